//! The wire, the clock and the two hosts of the simulation.

use super::insider::KeysOf;
use ike::connection::{ChildPolicy, Connection, Encapsulation, Mode, Psk, Secrets, Times, WhenGone};
use ike::event::{ChildUp, Event, Transmit};
use ike::identity::{Id, IdPattern};
use ike::job::{Answer, Job, JobId};
use ike::message::{Exchange, Flags, Header, IkeSpi, Message, Payload, TrafficSelector};
use ike::proposal::{Offer, Protocol};
use ike::{Endpoint, Random};
use ipsec_core::algorithm::Encryption;
use ipsec_core::kex::Group;
use ipsec_core::prf::Prf;
use ipsec_core::{Secret, Time};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Randomness that repeats itself: a test must fail the same way twice.
#[derive(Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The same, but for nonces that a test has chosen; nothing else is drawn in 32 octets once an endpoint is there.
struct Chosen {
    dice: Dice,
    nonces: Nonces,
}

type Nonces = Arc<Mutex<VecDeque<u8>>>;

impl Random for Chosen {
    fn fill(&mut self, octets: &mut [u8]) {
        let chosen = if octets.len() == 32 { self.nonces.lock().unwrap().pop_front() } else { None };
        match chosen {
            Some(nonce) => octets.fill(nonce),
            None => self.dice.fill(octets),
        }
    }
}

impl Random for Dice {
    fn fill(&mut self, octets: &mut [u8]) {
        for octet in octets {
            *octet = self.next() as u8;
        }
    }
}

pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) address: &'static str,
    /// Pairs of SAs that are installed.
    pub(crate) pairs: Vec<ChildUp>,
    pub(crate) events: Vec<Event>,
    /// The keys it has made.
    pub(crate) keys: KeysOf,
    spi: u32,
    nonces: Nonces,
}

impl Host {
    /// The nonces it draws next, each one octet over and over.
    pub(crate) fn will_draw(&self, nonces: &[u8]) {
        self.nonces.lock().unwrap().extend(nonces);
    }

    /// The last SPI it was given.
    pub(crate) const fn last_spi(&self) -> u32 {
        self.spi
    }

    /// Everything it said in words.
    pub(crate) fn words(&self) -> String {
        let say = |event: &Event| match event {
            Event::Progress { text, .. } => Some(text.clone()),
            Event::PeerFailed { remote, why, .. } => {
                Some(format!("negotiation with {remote} came to nothing: {why}"))
            }
            Event::Failed { why, .. } | Event::IkeDown { why, .. } => Some(why.to_string()),
            _ => None,
        };
        self.events.iter().filter_map(say).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    Lost,
}

pub(crate) struct World {
    pub(crate) hosts: [Host; 2],
    pub(crate) now: Time,
    /// Datagrams that were sent, keepalives not counted.
    pub(crate) sent: usize,
    pub(crate) keepalives: usize,
    pub(crate) longest: usize,
    /// Moments at which one side sent on a pair that the other did not have, or had none at all, after the first came up.
    pub(crate) gaps: usize,
    was_up: bool,
    wire: Vec<(Time, usize, Transmit)>,
    dice: Option<Dice>,
    fate: Fate,
    nat: Option<SocketAddr>,
    /// Where each host hears what is sent to it; nothing is everywhere.
    reached: [Option<IpAddr>; 2],
    /// What is not sent from where a host is heard does not arrive either.
    is_cut: bool,
    /// What each host has sent, where a test delivers it by hand.
    hand: Option<[VecDeque<Transmit>; 2]>,
    record: Vec<(usize, Transmit)>,
}

pub(crate) fn exactly(text: &str) -> IdPattern {
    IdPattern::Exactly(Id::parse(text).unwrap())
}

pub(crate) fn net(text: &str) -> TrafficSelector {
    TrafficSelector::of(text.parse().unwrap(), 0, 0)
}

pub(crate) fn psk(key: &str) -> Secrets {
    Secrets {
        psks: vec![Psk { ids: vec![exactly("@west"), exactly("@east")], key: Secret::from(key.as_bytes()) }],
        ..Secrets::default()
    }
}

/// The connection as the west gateway has it.
pub(crate) fn site(name: &str) -> Connection {
    let child =
        Offer { encryption: vec![(Encryption::AesGcm16, 256)], esn: vec![true, false], ..Offer::default() };
    let ike = Offer {
        encryption: vec![(Encryption::AesGcm16, 256)],
        prf: vec![Prf::HmacSha256],
        groups: vec![Group::X25519],
        ..Offer::default()
    };
    Connection {
        name: name.to_owned(),
        local_address: Some("192.0.2.1".parse().unwrap()),
        remote_address: Some("192.0.2.2".parse().unwrap()),
        remote_port: 500,
        local_id: Id::parse("@west").unwrap(),
        remote_id: exactly("@east"),
        local_auth: Default::default(),
        remote_auth: Default::default(),
        ppk: Default::default(),
        ike: vec![ike],
        child: ChildPolicy {
            offers: vec![child],
            mode: Mode::Tunnel,
            local: vec![net("10.1.0.0/16")],
            remote: vec![net("10.2.0.0/16")],
            upper: Default::default(),
            replay_window: 64,
            pad: None,
        },
        times: Times::default(),
        encapsulation: Encapsulation::Auto,
        fragmentation: true,
        attempts: None,
        when_gone: WhenGone::Clear,
        unique: true,
        mobike: true,
        childless: false,
        reauthenticate: false,
        provision: None,
        request: None,
    }
}

fn mirrored(mut c: Connection) -> Connection {
    std::mem::swap(&mut c.local_address, &mut c.remote_address);
    std::mem::swap(&mut c.child.local, &mut c.child.remote);
    (c.local_id, c.remote_id) = (Id::parse("@east").unwrap(), exactly("@west"));
    // From anywhere: what a NAT makes of the address does not matter.
    c.remote_address = None;
    c
}

fn host(side: usize, seed: u64) -> Host {
    let nonces = Nonces::default();
    let random = Chosen { dice: Dice(seed), nonces: nonces.clone() };
    let keys = KeysOf::default();
    let mut endpoint = Endpoint::recorded(Box::new(random), Time::ZERO, Box::new(keys.clone()));
    let west = site("net");
    endpoint.add(if side == 0 { west } else { mirrored(west) });
    endpoint.set_secrets(psk("the secret of both"));
    let address = ["192.0.2.1", "192.0.2.2"][side];
    let spi = 0x1000 * (side as u32 + 1);
    Host { endpoint, address, pairs: Vec::new(), events: Vec::new(), keys, spi, nonces }
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            hosts: [host(0, 1), host(1, 2)],
            now: Time::from_secs(1000),
            sent: 0,
            keepalives: 0,
            longest: 0,
            gaps: 0,
            was_up: false,
            wire: Vec::new(),
            dice: None,
            fate: Fate::Arrives,
            nat: None,
            reached: [None; 2],
            is_cut: false,
            hand: None,
            record: Vec::new(),
        }
    }

    /// Changes the connection of one side.
    pub(crate) fn change(&mut self, side: usize, change: impl FnOnce(&mut Connection)) {
        let endpoint = &mut self.hosts[side].endpoint;
        let mut connection = (**endpoint.connections().next().unwrap()).clone();
        change(&mut connection);
        endpoint.add(connection);
    }

    /// The same of one of several.
    pub(crate) fn change_named(&mut self, name: &str, side: usize, change: impl FnOnce(&mut Connection)) {
        let endpoint = &mut self.hosts[side].endpoint;
        let mut connection = (**endpoint.connections().find(|c| c.name == name).unwrap()).clone();
        change(&mut connection);
        endpoint.add(connection);
    }

    /// From now on nothing arrives but what is delivered.
    pub(crate) fn by_hand(&mut self) {
        self.hand = Some(Default::default());
    }

    /// The wire works again, with what is on it.
    pub(crate) fn by_itself(&mut self) {
        let hand = self.hand.take().unwrap();
        for (side, sent) in hand.into_iter().enumerate() {
            let at = self.now.after(Duration::from_millis(1));
            self.wire.extend(sent.into_iter().map(|transmit| (at, 1 - side, transmit)));
        }
    }

    /// The oldest message of a host that is under way.
    pub(crate) fn oldest(&self, side: usize) -> &[u8] {
        let sent = self.hand.as_ref().and_then(|hand| hand[side].front());
        sent.map_or(&[], |transmit| transmit.octets.as_slice())
    }

    /// What is under way, for complaints.
    pub(crate) fn in_flight(&self) -> String {
        let kinds = |side: usize| {
            let sent = self.hand.iter().flat_map(move |hand| &hand[side]);
            let headers = sent.filter_map(|transmit| Header::parse(&transmit.octets).ok());
            headers.map(|(header, ..)| format!("{} {}", header.exchange.name(), header.flags.response))
        };
        format!("A {:?} B {:?}", kinds(0).collect::<Vec<_>>(), kinds(1).collect::<Vec<_>>())
    }

    /// Delivers it, or a copy of it.
    pub(crate) fn deliver(&mut self, side: usize, copy: bool) {
        let sent = &mut self.hand.as_mut().unwrap()[side];
        let transmit = if copy { sent.front().cloned() } else { sent.pop_front() };
        let transmit = transmit.expect("something under way");
        self.hosts[1 - side].endpoint.datagram(transmit.remote, transmit.local, &transmit.octets, self.now);
        self.drain();
    }

    /// Delivers it to a host that asks, each time before anything else, for what is to be sent. Says of each pair it hears of and
    /// of each datagram it has, in order, which it was.
    pub(crate) fn deliver_to_the_impatient(&mut self, side: usize) -> Vec<&'static str> {
        let transmit = self.hand.as_mut().unwrap()[side].pop_front().expect("something under way");
        let now = self.now;
        let endpoint = &mut self.hosts[1 - side].endpoint;
        endpoint.datagram(transmit.remote, transmit.local, &transmit.octets, now);
        let mut order = Vec::new();
        loop {
            if let Some(transmit) = self.hosts[1 - side].endpoint.transmit() {
                order.push("sent");
                self.send(1 - side, transmit);
            } else if let Some((id, job)) = self.hosts[1 - side].endpoint.job() {
                self.job(1 - side, id, job);
            } else if let Some(event) = self.hosts[1 - side].endpoint.event() {
                if matches!(event, Event::ChildUp(_)) {
                    order.push("installed");
                }
                self.event(1 - side, event);
            } else {
                return order;
            }
        }
    }

    /// A datagram from nowhere comes to a host, as if the other had sent it.
    pub(crate) fn inject(&mut self, side: usize, octets: &[u8]) {
        let ends = [0, 1].map(|side| SocketAddr::new(self.hosts[side].address.parse().unwrap(), 500));
        self.hosts[side].endpoint.datagram(ends[side], ends[1 - side], octets, self.now);
        self.drain();
    }

    /// Takes it off the wire.
    pub(crate) fn take(&mut self, side: usize) -> Option<Transmit> {
        self.hand.as_mut().unwrap()[side].pop_front()
    }

    /// Puts octets in the place of what was taken off the wire: the other host hears them.
    pub(crate) fn give(&mut self, side: usize, taken: &Transmit, octets: &[u8]) {
        self.hosts[1 - side].endpoint.datagram(taken.remote, taken.local, octets, self.now);
        self.drain();
    }

    /// A datagram comes to the east from somewhere; what it sends there at once. What it sends elsewhere goes its way.
    pub(crate) fn hears(&mut self, from: SocketAddr, octets: &[u8]) -> Vec<Vec<u8>> {
        let to = SocketAddr::new(
            if from.is_ipv4() { self.hosts[1].address } else { "2001:db8::2" }.parse().unwrap(),
            500,
        );
        self.hosts[1].endpoint.datagram(to, from, octets, self.now);
        let mut answers = Vec::new();
        loop {
            if let Some((id, job)) = self.hosts[1].endpoint.job() {
                self.job(1, id, job);
            } else if let Some(event) = self.hosts[1].endpoint.event() {
                self.event(1, event);
            } else if let Some(transmit) = self.hosts[1].endpoint.transmit() {
                if transmit.remote == from {
                    answers.push(transmit.octets);
                } else {
                    self.send(1, transmit);
                }
            } else {
                return answers;
            }
        }
    }

    /// A datagram from nowhere, as with [`World::inject`]; whatever it is answered by is lost.
    pub(crate) fn inject_without_answer(&mut self, side: usize, octets: &[u8]) {
        let ends = [0, 1].map(|side| SocketAddr::new(self.hosts[side].address.parse().unwrap(), 500));
        self.hosts[side].endpoint.datagram(ends[side], ends[1 - side], octets, self.now);
        while self.hosts[side].endpoint.transmit().is_some() {}
    }

    /// What was recorded of what was sent to a host.
    pub(crate) fn recorded(&self, to: usize) -> Vec<Vec<u8>> {
        let sent = self.record.iter().filter(|(side, _)| *side == to);
        sent.map(|(_, transmit)| transmit.octets.clone()).collect()
    }

    /// Loses it.
    pub(crate) fn lose(&mut self, side: usize) {
        self.hand.as_mut().unwrap()[side].pop_front().expect("something under way");
    }

    pub(crate) fn up(&mut self, side: usize) {
        if side == 1 {
            self.change(1, |c| c.remote_address = Some("192.0.2.1".parse().unwrap()));
        }
        let host = &mut self.hosts[side];
        host.endpoint.up("net", host.address.parse().unwrap(), self.now).unwrap();
        self.drain();
    }

    /// From now on the wire loses, repeats and delays.
    pub(crate) fn weather(&mut self, seed: u64) {
        self.dice = Some(Dice(seed ^ 0xdead_beef));
    }

    pub(crate) fn weather_clears(&mut self) {
        self.dice = None;
    }

    pub(crate) fn fate(&mut self, fate: Fate) {
        self.fate = fate;
    }

    /// The west is behind a NAT that shows this address.
    pub(crate) fn nat(&mut self, shows: &str) {
        self.nat = Some(shows.parse().unwrap());
    }

    /// What is not sent to where a host is does not arrive.
    pub(crate) fn is_strict(&mut self) {
        for side in 0..2 {
            self.reached[side] = self.hosts[side].address.parse().ok();
        }
    }

    /// A host has these addresses.
    pub(crate) fn has(&mut self, side: usize, addresses: &[&str]) {
        let all: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let now = self.now;
        self.hosts[side].endpoint.addresses(all, |here, _| Some(here), now);
        self.drain();
    }

    /// A host hears only what is sent here.
    pub(crate) fn reaches(&mut self, side: usize, address: &str) {
        self.reached[side] = address.parse().ok();
    }

    /// Only by this address of a host does anything pass, either way.
    pub(crate) fn is_cut_but_for(&mut self, side: usize, address: &str) {
        self.reaches(side, address);
        self.is_cut = true;
    }

    /// A host has another address, and no other.
    pub(crate) fn moves(&mut self, side: usize, address: &'static str) {
        self.hosts[side].address = address;
        self.reaches(side, address);
        self.lies(side, address);
    }

    /// A host says that it is somewhere.
    pub(crate) fn lies(&mut self, side: usize, address: &str) {
        let new: IpAddr = address.parse().unwrap();
        let now = self.now;
        self.hosts[side].endpoint.addresses(vec![new], |_, _| Some(new), now);
        self.drain();
    }

    pub(crate) fn record(&mut self) {
        self.record.clear();
    }

    /// One side starts again and knows nothing.
    pub(crate) fn forget(&mut self, side: usize) {
        self.hosts[side] = host(side, 77);
        self.was_up = false;
    }

    /// Takes what the hosts have to say onto the wire, and does their jobs.
    pub(crate) fn drain(&mut self) {
        for side in 0..2 {
            loop {
                let host = &mut self.hosts[side];
                if let Some((id, job)) = host.endpoint.job() {
                    self.job(side, id, job);
                } else if let Some(event) = host.endpoint.event() {
                    self.event(side, event);
                } else if let Some(transmit) = host.endpoint.transmit() {
                    self.send(side, transmit);
                } else {
                    break;
                }
            }
        }
        let [a, b] = &self.hosts;
        let up = !a.pairs.is_empty() && !b.pairs.is_empty();
        self.was_up |= up;
        if self.was_up && self.fate == Fate::Arrives {
            // What either side sends on, its newest pair, the other must be able to receive.
            let hears = |from: &Host, to: &Host| {
                from.pairs
                    .last()
                    .is_some_and(|pair| to.pairs.iter().any(|known| known.inbound.spi == pair.outbound.spi))
            };
            let gap = self.wire.is_empty() && !(hears(a, b) && hears(b, a));
            self.gaps += usize::from(gap);
        }
    }

    fn job(&mut self, side: usize, id: JobId, job: Job) {
        let host = &mut self.hosts[side];
        let answer = match job.run() {
            Ok(answer) => answer,
            Err(Job::Spi { .. }) => {
                host.spi += 1;
                Answer::Spi(Some(host.spi))
            }
            Err(other) => panic!("{other:?}"),
        };
        host.endpoint.answer(id, answer, self.now);
    }

    fn event(&mut self, side: usize, event: Event) {
        let host = &mut self.hosts[side];
        match &event {
            // The last is the one that sends.
            Event::ChildUp(up) if up.standby => host.pairs.insert(0, (**up).clone()),
            Event::ChildUp(up) => host.pairs.push((**up).clone()),
            Event::ChildInUse { spi_in } => {
                let at = host.pairs.iter().position(|pair| pair.inbound.spi == *spi_in).unwrap();
                let pair = host.pairs.remove(at);
                host.pairs.push(pair);
            }
            Event::ChildMoved { spi_in, to, encapsulate, .. } => {
                let pair = host.pairs.iter_mut().find(|pair| pair.inbound.spi == *spi_in).unwrap();
                (pair.local, pair.remote, pair.encapsulate) = (to.0, to.1, *encapsulate);
            }
            Event::ChildDown { spi_in, .. } => host.pairs.retain(|pair| pair.inbound.spi != *spi_in),
            Event::Again { name, .. } => {
                host.endpoint.up(name, host.address.parse().unwrap(), self.now).unwrap();
            }
            _ => {}
        }
        host.events.push(event);
    }

    fn send(&mut self, side: usize, mut transmit: Transmit) {
        if transmit.octets == [0xff] {
            self.keepalives += 1;
            return;
        }
        self.sent += 1;
        self.longest = self.longest.max(transmit.octets.len());
        let misses = |side: usize, end: SocketAddr| self.reached[side].is_some_and(|here| here != end.ip());
        let cut = self.is_cut && misses(side, transmit.local);
        if self.fate == Fate::Lost || misses(1 - side, transmit.remote) || cut {
            return;
        }
        if let Some(nat) = self.nat {
            if side == 0 {
                transmit.local = nat;
            } else {
                transmit.remote = SocketAddr::new("192.0.2.1".parse().unwrap(), transmit.local.port());
            }
        }
        self.record.push((1 - side, transmit.clone()));
        if let Some(hand) = &mut self.hand {
            return hand[side].push_back(transmit);
        }
        let mut copies = vec![Duration::from_millis(1)];
        if let Some(dice) = &mut self.dice {
            let roll = dice.next() % 100;
            copies = match roll {
                0..15 => vec![],
                15..30 => (0..2).map(|_| Duration::from_millis(dice.next() % 900)).collect(),
                _ => vec![Duration::from_millis(dice.next() % 400)],
            };
        }
        for delay in copies {
            self.wire.push((self.now.after(delay), 1 - side, transmit.clone()));
        }
    }

    fn next(&self) -> Time {
        let wire = self.wire.iter().map(|(at, ..)| *at);
        let hosts = self.hosts.iter().map(|host| host.endpoint.deadline());
        wire.chain(hosts).min().unwrap()
    }

    /// Lets the next thing happen.
    fn step(&mut self) {
        self.now = self.now.max(self.next());
        if let Some(at) = self.wire.iter().position(|(at, ..)| *at <= self.now) {
            // The earliest; of those that come at once, the first sent.
            let earliest = self.wire.iter().map(|(at, ..)| *at).min().unwrap();
            let at = self.wire.iter().position(|(when, ..)| *when == earliest).unwrap_or(at);
            let (_, to, transmit) = self.wire.remove(at);
            self.hosts[to].endpoint.datagram(transmit.remote, transmit.local, &transmit.octets, self.now);
        } else {
            for host in &mut self.hosts {
                if host.endpoint.deadline() <= self.now {
                    host.endpoint.timeout(self.now);
                }
            }
        }
        self.drain();
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now.after(span);
        self.run_until(|_| false, span);
        self.now = self.now.max(end);
    }

    pub(crate) fn run_until(&mut self, done: impl Fn(&Self) -> bool, most: Duration) {
        self.drain();
        let end = self.now.after(most);
        while !done(self) && self.next() <= end {
            self.step();
        }
    }

    /// Until nothing is on the wire.
    pub(crate) fn settle(&mut self) {
        self.drain();
        let end = self.now.after(Duration::from_secs(20));
        while self.now < end
            && (!self.wire.is_empty() || self.next() < self.now.after(Duration::from_secs(4)))
        {
            self.step();
        }
    }

    /// Both sides have so many pairs, with each other's SPIs and the same keys.
    pub(crate) fn agree(&self, pairs: usize) {
        let [a, b] = &self.hosts;
        assert_eq!((a.pairs.len(), b.pairs.len()), (pairs, pairs), "{}\n---\n{}", a.words(), b.words());
        self.consistent();
    }

    pub(crate) fn consistent(&self) {
        let [a, b] = &self.hosts;
        for pair in &a.pairs {
            let other = b
                .pairs
                .iter()
                .find(|other| other.inbound.spi == pair.outbound.spi)
                .expect("the same pair there");
            assert_eq!(pair.inbound.spi, other.outbound.spi);
            assert!(
                pair.inbound.encryption == other.outbound.encryption
                    && pair.outbound.encryption == other.inbound.encryption
            );
            assert!(
                pair.inbound.integrity == other.outbound.integrity
                    && pair.outbound.integrity == other.inbound.integrity
            );
            assert!(
                pair.inbound.encryption != pair.outbound.encryption && !pair.inbound.encryption.is_empty()
            );
            assert_eq!((pair.suite, pair.esn, pair.mode), (other.suite, other.esn, other.mode));
            assert_eq!(pair.encapsulate, other.encapsulate);
            assert_eq!(pair.local_selectors, other.remote_selectors);
            assert_eq!(pair.remote_selectors, other.local_selectors);
        }
    }

    /// First messages of many who never go on, each from an address of its own.
    pub(crate) fn load(&mut self, side: usize, count: u32) {
        let offer = self.hosts[side].endpoint.connections().next().unwrap().ike[0].clone();
        let group = offer.groups[0];
        let (_, share) = group.offer().unwrap();
        for n in 0..count {
            let payloads = vec![
                Payload::Sa(vec![offer.proposal(1, Protocol::Ike, vec![])]),
                Payload::Ke { group: group.number(), data: share.clone() },
                Payload::Nonce(vec![7; 32]),
            ];
            let flags = Flags { initiator: true, response: false };
            let spi_i = IkeSpi(0xbad0_0000 + u64::from(n));
            let header = Header { spi_i, spi_r: IkeSpi(0), exchange: Exchange::IkeSaInit, flags, id: 0 };
            let octets = Message { header, payloads }.emit();
            let from = SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0b00_0000 + n).into(), 500);
            let to = SocketAddr::new(self.hosts[side].address.parse().unwrap(), 500);
            self.hosts[side].endpoint.datagram(to, from, &octets, self.now);
            // What goes to those addresses arrives nowhere.
            let host = &mut self.hosts[side];
            while let Some((id, job)) = host.endpoint.job() {
                host.endpoint.answer(id, job.run().unwrap(), self.now);
            }
            while host.endpoint.event().is_some() {}
            while host.endpoint.transmit().is_some() {}
        }
    }

    /// Everything recorded so far comes again to the one it was for, from another port.
    pub(crate) fn replay_from(&mut self, from: &str) {
        for (to, transmit) in self.record.clone() {
            self.hosts[to].endpoint.datagram(
                transmit.remote,
                from.parse().unwrap(),
                &transmit.octets,
                self.now,
            );
        }
    }

    /// Everything recorded, to both, whole, cut and with flipped bits.
    pub(crate) fn torment(&mut self) {
        for (_, transmit) in self.record.clone() {
            for to in 0..2 {
                let mut give = |octets: &[u8], now: Time| {
                    let endpoint = &mut self.hosts[to].endpoint;
                    endpoint.datagram(transmit.remote, transmit.local, octets, now);
                    while endpoint.transmit().is_some() {}
                };
                give(&transmit.octets, self.now);
                for end in 0..transmit.octets.len() {
                    give(&transmit.octets[..end], self.now);
                    let mut flipped = transmit.octets.clone();
                    flipped[end] ^= 1 << (end % 8);
                    give(&flipped, self.now);
                }
            }
        }
        for side in 0..2 {
            let host = &mut self.hosts[side];
            while let Some((id, job)) = host.endpoint.job() {
                if let Ok(answer) = job.run() {
                    host.endpoint.answer(id, answer, self.now);
                }
            }
            while let Some(event) = host.endpoint.event() {
                host.events.push(event);
            }
            while host.endpoint.transmit().is_some() {}
        }
    }
}
