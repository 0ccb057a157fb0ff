//! IKE: what a responder pays for a handshake, for an IKE SA that is up, for a rekeying and for a flood.
//!
//! Both ends are engines in this process; only the responder's processor time counts. Beside each handshake stands what its key
//! exchange alone costs, the least any implementation with this library can do.

use crate::measure::{Options, cpu_nanos, median};
use crate::report::{figure, row};
use ike::connection::{ChildPolicy, Connection, Encapsulation, Mode, Psk, Secrets, Times, WhenGone};
use ike::event::{Event, Transmit};
use ike::identity::{Id, IdPattern};
use ike::job::Answer;
use ike::message::{Exchange, Flags, Header, IkeSpi, Message, Payload, TrafficSelector};
use ike::proposal::{Offer, Protocol};
use ike::{Endpoint, Random};
use ipsec_core::algorithm::Encryption;
use ipsec_core::kex::Group;
use ipsec_core::prf::Prf;
use ipsec_core::{Secret, Time};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const NOW: Time = Time::from_secs(1);
const US: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// What the issue aims at.
const AIM_MILLIS: f64 = 0.5;
const AIM_OCTETS: f64 = 6.0 * 1024.0;

struct Dice(u64);

impl Random for Dice {
    fn fill(&mut self, octets: &mut [u8]) {
        for octet in octets {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *octet = (self.0 >> 56) as u8;
        }
    }
}

/// A row of the table: a name, the key exchange, and the additional one.
const SUITES: [(&str, Group, Option<Group>); 3] = [
    ("x25519+PSK", Group::X25519, None),
    ("x25519+ML-KEM-768+PSK", Group::X25519, Some(Group::MlKem768)),
    ("MODP-2048+PSK", Group::Modp2048, None),
];

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn connection(group: Group, more: Option<Group>, peer: Option<u32>) -> Connection {
    let net = |text: &str| vec![TrafficSelector::of(text.parse().expect("a network"), 0, 0)];
    let ours = |us: bool| if us { net("10.1.0.0/16") } else { net("172.16.0.0/12") };
    let name = |us: bool| if us { "@gw".to_owned() } else { format!("@peer{}", peer.unwrap_or(0)) };
    let id = |text: &str| Id::parse(text).expect("an identity");
    let us = peer.is_none();
    Connection {
        name: "net".to_owned(),
        local_address: peer.map(address).or(Some(US)),
        remote_address: peer.map(|_| US),
        remote_port: 500,
        local_id: id(&name(us)),
        remote_id: if us { IdPattern::Any } else { IdPattern::Exactly(id("@gw")) },
        local_auth: Default::default(),
        remote_auth: Default::default(),
        ppk: Default::default(),
        ike: vec![Offer {
            encryption: vec![(Encryption::AesGcm16, 256)],
            prf: vec![Prf::HmacSha256],
            groups: vec![group],
            additional: more.into_iter().map(|group| vec![Some(group)]).collect(),
            ..Offer::default()
        }],
        child: ChildPolicy {
            offers: vec![Offer {
                encryption: vec![(Encryption::AesGcm16, 256)],
                esn: vec![false],
                ..Offer::default()
            }],
            mode: Mode::Tunnel,
            local: ours(us),
            remote: ours(!us),
            replay_window: 64,
        },
        times: Times::default(),
        encapsulation: Encapsulation::Auto,
        fragmentation: true,
        attempts: None,
        when_gone: WhenGone::Clear,
        unique: false,
        mobike: false,
        childless: false,
        reauthenticate: false,
        provision: None,
        request: None,
    }
}

fn endpoint(connection: Connection, seed: u64) -> Endpoint {
    let mut endpoint = Endpoint::new(Box::new(Dice(seed)), NOW);
    endpoint.add(connection);
    endpoint.set_secrets(Secrets {
        psks: vec![Psk { ids: Vec::new(), key: Secret::from(&b"the secret of all"[..]) }],
        ..Secrets::default()
    });
    endpoint
}

/// One side: its engine, the SPIs it was given, and how many children came up.
struct Side {
    engine: Endpoint,
    spi: u32,
    children: usize,
}

impl Side {
    fn new(engine: Endpoint) -> Self {
        Self { engine, spi: 0x1000, children: 0 }
    }

    /// Does what the engine wants done; what is to be sent is handed back.
    fn drain(&mut self) -> Vec<Transmit> {
        let mut sent = Vec::new();
        loop {
            let mut any = false;
            while let Some((id, job)) = self.engine.job() {
                any = true;
                // What cannot be computed is an SPI: that is the data plane's to give.
                let answer = job.run().unwrap_or_else(|_| {
                    self.spi += 1;
                    Answer::Spi(Some(self.spi))
                });
                self.engine.answer(id, answer, NOW);
            }
            while let Some(event) = self.engine.event() {
                any = true;
                self.children += usize::from(matches!(event, Event::ChildUp(_)));
            }
            while let Some(transmit) = self.engine.transmit() {
                any = true;
                sent.push(transmit);
            }
            if !any {
                return sent;
            }
        }
    }

    fn take(&mut self, all: &[Transmit]) -> Vec<Transmit> {
        for Transmit { local, remote, octets } in all {
            self.engine.datagram(*remote, *local, octets, NOW);
        }
        self.drain()
    }
}

/// Carries datagrams to and fro until nobody has any; the nanoseconds the responder needed.
fn talk(client: &mut Side, responder: &mut Side) -> f64 {
    let mut spent = 0.0;
    let mut sent = client.drain();
    while !sent.is_empty() {
        let mut answers = Vec::new();
        spent += cpu_nanos(|| answers = responder.take(&sent));
        sent = client.take(&answers);
    }
    spent
}

fn handshake(n: u32, suite: (Group, Option<Group>), responder: &mut Side) -> (Side, f64) {
    let mut client = Side::new(endpoint(connection(suite.0, suite.1, Some(n)), u64::from(n) + 7));
    client.engine.up("net", address(n), NOW).expect("begun");
    let spent = talk(&mut client, responder);
    assert_eq!(client.children, 1, "peer {n} has no child");
    (client, spent)
}

/// What the key exchange of a handshake alone costs its responder.
fn limit((group, more): (Group, Option<Group>)) -> f64 {
    let groups: Vec<Group> = [Some(group), more].into_iter().flatten().collect();
    let samples = (0..101).map(|_| {
        let offers: Vec<_> = groups.iter().map(|group| group.offer().expect("an offer").1).collect();
        cpu_nanos(|| {
            for (group, offer) in groups.iter().zip(&offers) {
                drop(std::hint::black_box(group.accept(offer).expect("accepted")));
            }
        })
    });
    median(samples.collect())
}

fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = pages.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0.0);
    pages * rustix::param::page_size() as f64
}

pub(crate) fn run(options: &Options) {
    for (name, group, more) in SUITES.into_iter().filter(|(name, ..)| options.wants(name)) {
        handshakes(name, (group, more), options.quick);
    }
    if options.wants("memory") {
        memory(if options.quick { &[1_000] } else { &[1_000, 50_000] });
    }
    if options.wants("rekey") {
        rekeys(options.quick);
    }
    if options.wants("flood") {
        flood(if options.quick { 20_000 } else { 200_000 });
    }
}

fn handshakes(name: &str, suite: (Group, Option<Group>), quick: bool) {
    let mut responder = Side::new(endpoint(connection(suite.0, suite.1, None), 1));
    let many = if quick { 100 } else { 1000 };
    let samples: Vec<f64> = (0..many).map(|n| handshake(n, suite, &mut responder).1).collect();
    let (spent, limit) = (median(samples), limit(suite));
    row(&[
        ("handshake", json!(name)),
        ("per_second", figure(1e9 / spent)),
        ("cpu_us", figure(spent / 1e3)),
        ("key_exchange_us", figure(limit / 1e3)),
        ("times_key_exchange", figure(spent / limit)),
        ("aim_us", json!(AIM_MILLIS * 1e3)),
    ]);
}

/// Octets that an IKE SA with one child keeps, and what an event costs among so many.
fn memory(sizes: &[u32]) {
    let suite = (Group::X25519, None);
    let mut responder = Side::new(endpoint(connection(suite.0, suite.1, None), 1));
    // What the first ones leave behind in the allocator is nobody's.
    (0..50).for_each(|n| drop(handshake(n, suite, &mut responder)));
    let (before, mut n) = (resident(), 50);
    for &size in sizes {
        let mut last = Vec::new();
        while n < size + 50 {
            let (_, spent) = handshake(n, suite, &mut responder);
            n += 1;
            if n + 200 > size + 50 {
                last.push(spent);
            }
        }
        let idle = median((0..101).map(|_| cpu_nanos(|| responder.engine.timeout(NOW))).collect());
        row(&[
            ("ike_sas", json!(size)),
            ("octets_each", figure((resident() - before) / f64::from(size))),
            ("aim_octets", json!(AIM_OCTETS)),
            ("handshake_us", figure(median(last) / 1e3)),
            ("idle_wakeup_us", figure(idle / 1e3)),
        ]);
    }
}

fn rekeys(quick: bool) {
    for (name, pfs) in [("without PFS", None), ("with x25519", Some(Group::X25519))] {
        let with = |peer| {
            let mut connection = connection(Group::X25519, None, peer);
            connection.child.offers[0].groups.extend(pfs);
            connection
        };
        let mut responder = Side::new(endpoint(with(None), 1));
        let mut client = Side::new(endpoint(with(Some(1)), 2));
        client.engine.up("net", address(1), NOW).expect("begun");
        talk(&mut client, &mut responder);
        let many = if quick { 100 } else { 2000 };
        let samples = (0..many).map(|n| {
            assert!(client.engine.rekey("net", false, NOW));
            let spent = talk(&mut client, &mut responder);
            assert_eq!(client.children, n + 2);
            spent
        });
        let spent = median(samples.collect());
        let bare = pfs.map_or(0.0, |group| limit((group, None)));
        row(&[
            ("child rekey", json!(name)),
            ("per_second", figure(1e9 / spent)),
            ("cpu_us", figure(spent / 1e3)),
            ("key_exchange_us", figure(bare / 1e3)),
        ]);
    }
}

/// First messages from everywhere while a hundred peers rekey.
fn flood(messages: u32) {
    const PEERS: u32 = 100;
    let suite = (Group::X25519, None);
    let mut responder = Side::new(endpoint(connection(suite.0, suite.1, None), 1));
    let mut peers: Vec<Side> = (0..PEERS).map(|n| handshake(n, suite, &mut responder).0).collect();
    let offer = connection(suite.0, suite.1, None).ike[0].clone();
    let (_, share) = Group::X25519.offer().expect("an offer");
    let first = |n: u32| {
        let payloads = vec![
            Payload::Sa(vec![offer.proposal(1, Protocol::Ike, vec![])]),
            Payload::Ke { group: Group::X25519.number(), data: share.clone() },
            Payload::Nonce(vec![7; 32]),
        ];
        let flags = Flags { initiator: true, response: false };
        let spi_i = IkeSpi(0xbad0_0000_0000 + u64::from(n));
        let header = Header { spi_i, spi_r: IkeSpi(0), exchange: Exchange::IkeSaInit, flags, id: 0 };
        Message { header, payloads }.emit()
    };
    let before = resident();
    let (mut spent, mut rekeyed) = (0.0, 0_usize);
    for n in 0..messages {
        let octets = first(n);
        let from = SocketAddr::new(Ipv4Addr::from_bits(0xc600_0000 + n).into(), 500);
        spent += cpu_nanos(|| {
            responder.engine.datagram(SocketAddr::new(US, 500), from, &octets, NOW);
            // Its answers go to nobody; key exchanges that passed are computed as for anybody.
            drop(responder.drain());
        });
        if n % (messages / PEERS) == 0 {
            let at = (n / (messages / PEERS)) as usize;
            if let Some(peer) = peers.get_mut(at) {
                assert!(peer.engine.rekey("net", false, NOW));
                talk(peer, &mut responder);
                rekeyed += usize::from(peer.children == 2);
            }
        }
    }
    let counters = responder.engine.counters();
    row(&[
        ("flood", json!(format!("{messages} first messages"))),
        ("per_second", figure(f64::from(messages) * 1e9 / spent)),
        ("us_each", figure(spent / f64::from(messages) / 1e3)),
        ("cookies", json!(counters.cookies)),
        ("octets_kept", figure(resident() - before)),
        ("peers_rekeyed", json!(rekeyed)),
        ("of", json!(PEERS)),
    ]);
    assert_eq!(rekeyed, PEERS as usize, "a real peer was lost in the flood");
}
