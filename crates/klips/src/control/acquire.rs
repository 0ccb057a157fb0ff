//! ACQUIRE: a packet needs an SA that is not there (RFC 2367 §3.1.6, pf_key(7P)).
//!
//! The first packet of two hosts that meets a `%trap` eroute makes a record and asks the registered key managers; those that
//! follow wait with it. Whoever answers by an ADD or UPDATE with the record's sequence number lets them go, through that
//! SA; an ACQUIRE with an errno, or fifteen seconds, drop them. Meanwhile the flow meets a `%hold` ([`super::hold`]). While the SA that answered lives, what meets the trap later,
//! on whichever worker, goes through it and asks nobody.

use super::hold::Hold;
use super::{Control, Hearers};
use crate::discard::Discard;
use crate::eroute::{Action, Eroute, IPCOMP};
use crate::hold::Held;
use crate::sa::Sa;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use ipnet::IpNet;
use ipsec_core::algorithm::{self, Row};
use ipsec_core::{Flow, Protocol, SaId, Selector, Time};
use pfkey::{
    Address, AlgorithmKind, Base, Comb, Descriptor, Ecomb, ExtType, Further, Level, Limits, Message,
    MessageType, SaType, Wanted, Writer,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};

/// How long key managers have, if nobody says otherwise.
pub(super) const LIFE: Duration = Duration::from_secs(15);
/// Packets that wait for one SA: of more the first stays, and the latest.
const PACKETS: usize = 4;
/// Records at a time. A scan of a trapped network meets this before it meets memory.
const RECORDS: usize = 1024;
/// Octets of all packets that wait.
const OCTETS: usize = 4 << 20;
/// `SADB_X_CALG_DEFLATE`.
const DEFLATE: u8 = 2;
/// The replay window proposed.
const REPLAY: u8 = 64;
/// Soft and hard seconds proposed.
const ADDTIME: (u64, u64) = (24_000, 28_800);

/// One SA that was asked for.
struct Record {
    key: Key,
    /// The sequence numbers of what else was asked for with it.
    also: Vec<u32>,
    /// Policy says which SAs will do, and lets packets go when they are there: an answer alone does not.
    by_policy: bool,
    packets: VecDeque<Held>,
    /// The eroute that packets meet meanwhile.
    hold: Option<Hold>,
}

/// What a record is about: the policy and the two hosts; with `%trapsubnet` all of its hosts, whose networks stand for them.
pub(super) type Key = (Selector, IpAddr, IpAddr);

/// All SAs that were asked for.
pub(super) struct Acquires {
    /// The last sequence number.
    last: u32,
    records: BTreeMap<u32, Record>,
    by_key: HashMap<Key, u32>,
    /// The records of which other numbers are.
    by_other: HashMap<u32, u32>,
    /// Every record has the same life: the order of their ends is that of their beginnings. Ends of records that went early
    /// are still there.
    ends: VecDeque<(Time, u32)>,
    octets: usize,
    /// Needs that were met. Weak: an SA that is gone takes its keys along.
    met: HashMap<Key, Weak<Sa>>,
    /// Which record a `%hold` eroute is of.
    by_hold: HashMap<Selector, u32>,
    /// Of records that have ended: to be taken out of the policy.
    lifted: Vec<Hold>,
    /// Packets that met a trap, and how many of them somebody was asked for.
    counts: (u64, u64),
}

impl Default for Acquires {
    fn default() -> Self {
        let (records, by_key, ends, met) = Default::default();
        let (by_other, by_hold, lifted, counts) = Default::default();
        Self { last: u32::MAX, records, by_key, by_other, ends, octets: 0, met, by_hold, lifted, counts }
    }
}

impl Acquires {
    /// Counts down; bit 31 tells the service's numbers from those of key managers.
    fn next_seq(&mut self) -> u32 {
        self.last = self.last.wrapping_sub(1) | 1 << 31;
        self.last
    }

    /// A new record.
    fn begin(&mut self, key: Key, end: Time) -> u32 {
        let seq = self.next_seq();
        let (also, packets) = Default::default();
        self.records.insert(seq, Record { key, also, by_policy: false, packets, hold: None });
        self.by_key.insert(key, seq);
        // Records that go early, because nobody listens, may come and go by the thousands within one life.
        if self.ends.len() >= RECORDS.saturating_mul(2) {
            self.ends.retain(|(_, seq)| self.records.contains_key(seq));
        }
        self.ends.push_back((end, seq));
        seq
    }

    /// One more number for what a record asks for.
    fn another(&mut self, seq: u32) -> u32 {
        let other = self.next_seq();
        if let Some(record) = self.records.get_mut(&seq) {
            record.also.push(other);
            self.by_other.insert(other, seq);
        }
        other
    }

    /// The number of the record that asked by this one.
    fn record_of(&self, seq: u32) -> u32 {
        self.by_other.get(&seq).copied().unwrap_or(seq)
    }

    /// Whether this number was asked by for an SA that policy names.
    pub(super) fn is_by_policy(&self, seq: u32) -> bool {
        self.records.get(&self.record_of(seq)).is_some_and(|record| record.by_policy)
    }

    /// Puts a packet with a record; what had to go for it is returned.
    pub(super) fn keep(&mut self, seq: u32, held: Held) -> Option<Held> {
        let len = held.packet.len();
        let Some(record) = self.records.get_mut(&seq) else { return Some(held) };
        let full = record.packets.len() >= PACKETS;
        // The one after the first: that one shows what it was all about.
        let room = record.packets.get(1).filter(|_| full).map_or(0, |oldest| oldest.packet.len());
        // A small packet may not make room for a large one: four of each record would be many times the limit.
        let octets = self.octets.saturating_sub(room).saturating_add(len);
        if octets > OCTETS {
            return Some(held);
        }
        self.octets = octets;
        let gone = if full { record.packets.remove(1) } else { None };
        record.packets.push_back(held);
        gone
    }

    /// Some of a record's packets have gone; without any it has nothing left to wait for.
    fn leave(&mut self, seq: u32, stay: VecDeque<Held>, gone: &[Held]) {
        let octets = gone.iter().fold(0_usize, |sum, held| sum.saturating_add(held.packet.len()));
        self.octets = self.octets.saturating_sub(octets);
        let empty = stay.is_empty();
        if let Some(record) = self.records.get_mut(&seq) {
            record.packets = stay;
        }
        if empty {
            self.end(seq);
        }
    }

    /// Ends a record: its packets, the oldest first.
    fn end(&mut self, seq: u32) -> VecDeque<Held> {
        let Some(record) = self.records.remove(&seq) else { return VecDeque::new() };
        self.by_key.remove(&record.key);
        record.also.iter().for_each(|other| _ = self.by_other.remove(other));
        self.lift(record.hold);
        let octets = record.packets.iter().fold(0_usize, |sum, held| sum.saturating_add(held.packet.len()));
        self.octets = self.octets.saturating_sub(octets);
        record.packets
    }

    /// The record's packets meet this eroute now.
    pub(super) fn hold(&mut self, seq: u32, hold: Hold) {
        if let Some(record) = self.records.get_mut(&seq) {
            self.by_hold.insert(hold.selector, seq);
            let before = record.hold.replace(hold);
            self.lift(before);
        }
    }

    fn lift(&mut self, hold: Option<Hold>) {
        if let Some(hold) = hold {
            self.by_hold.remove(&hold.selector);
            self.lifted.push(hold);
        }
    }

    /// The record whose packets meet this eroute.
    pub(super) fn held_by(&self, selector: &Selector) -> Option<u32> {
        self.by_hold.get(selector).copied()
    }

    /// The eroutes of records that have ended.
    pub(super) fn take_lifted(&mut self) -> Vec<Hold> {
        core::mem::take(&mut self.lifted)
    }

    /// Packets that met a trap, and how many of them somebody was asked for.
    pub(super) const fn counts(&self) -> (u64, u64) {
        self.counts
    }

    /// Remembers who met a need. As bounded as the records: of what finds no room the next packet asks again.
    fn meet(&mut self, key: Key, sa: &Arc<Sa>) {
        if self.met.len() >= RECORDS {
            self.met.retain(|_, sa| sa.upgrade().is_some_and(|sa| sa.is_alive()));
        }
        if self.met.len() < RECORDS {
            self.met.insert(key, Arc::downgrade(sa));
        }
    }

    /// The SA that met this need, if it still may carry the packet.
    fn met(&mut self, key: &Key, flow: &Flow) -> Option<Arc<Sa>> {
        let sa = self.met.get(key)?.upgrade().filter(|sa| sa.is_alive());
        if sa.is_none() {
            self.met.remove(key);
        }
        sa.filter(|sa| sa.selects(flow))
    }

    /// When the next record ends.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.ends.front().map(|(at, _)| *at)
    }

    fn overdue(&mut self, now: Time) -> Option<u32> {
        let (_, seq) = self.ends.front().copied().filter(|(at, _)| *at <= now)?;
        self.ends.pop_front();
        Some(seq)
    }
}

impl Control {
    /// What workers have trapped since last asked.
    pub(super) fn trapped(&mut self, now: Time) {
        for held in self.plane.take_trapped() {
            // The worker looked before control did; what is said now holds.
            let said = self.plane.eroutes().lookup(&held.flow).cloned();
            let Some(eroute) = said.filter(|eroute| eroute.action.waits()) else {
                self.release([held], None);
                continue;
            };
            if eroute.action == Action::Hold {
                self.met_hold(&eroute, held, now);
                continue;
            }
            let flow = held.flow;
            let nets = (eroute.selector.src.network(), eroute.selector.dst.network());
            let whole = eroute.action == Action::TrapSubnet;
            // One SA is enough for all that goes through the tunnel that policy wants.
            let wants = eroute.policy.as_ref().filter(|policy| policy.flow.wanted.is_some());
            let (src, dst) = wants.map_or((flow.src, flow.dst), |policy| policy.ends);
            let (from, to) = if whole { nets } else { (src, dst) };
            let key = (eroute.selector, from, to);
            self.acquires.counts.0 = self.acquires.counts.0.saturating_add(1);
            // It met the trap before its worker could know of the SA, or policy has only the trap to say.
            if wants.is_none()
                && let Some(sa) = self.acquires.met(&key, &held.flow)
            {
                self.release([held], Some(&sa));
                continue;
            }
            let seq = match self.acquires.by_key.get(&key) {
                Some(seq) => *seq,
                None => match self.begin_record(key, now) {
                    Some(seq) => seq,
                    None => {
                        self.dropped(1);
                        continue;
                    }
                },
            };
            let fresh = self.acquires.records.get_mut(&seq).is_some_and(|record| {
                record.by_policy = wants.is_some();
                record.packets.is_empty()
            });
            if self.acquires.keep(seq, held).is_some() {
                self.dropped(1);
            }
            if !fresh {
                continue;
            }
            // Where nobody is to answer, nothing waits.
            if self.ask(seq, &eroute, src, dst) {
                self.acquires.counts.1 = self.acquires.counts.1.saturating_add(1);
                self.put_hold(seq, &eroute, &flow);
            } else {
                self.given_up(seq);
            }
        }
    }

    /// A record, if there is room for another.
    pub(super) fn begin_record(&mut self, key: Key, now: Time) -> Option<u32> {
        let room = self.acquires.records.len() < RECORDS;
        room.then(|| self.acquires.begin(key, now.after(self.config.hold)))
    }

    /// Asks key managers for an SA, or for each that policy wants and that is not there, and says whether anybody heard.
    fn ask(&mut self, seq: u32, eroute: &Eroute, src: IpAddr, dst: IpAddr) -> bool {
        let missing = match eroute.policy.as_ref().filter(|policy| policy.flow.wanted.is_some()) {
            Some(policy) => self.missing(policy),
            None => vec![Further { wanted: ANY_ESP, src, dst }],
        };
        let mut heard = 0_usize;
        if self.sockets.any_extended() && !missing.is_empty() {
            let protocols = missing.iter().map(|missing| missing.wanted.protocol);
            let message = extended(&acquire(SaType::Unspec, seq), eroute, protocols, src, dst);
            heard = heard.saturating_add(self.sockets.deliver(Hearers::Extended, message));
        }
        for (n, Further { wanted, src, dst }) in missing.into_iter().enumerate() {
            let seq = if n == 0 { seq } else { self.acquires.another(seq) };
            let satype = satype_of(wanted.protocol);
            let mut w = Writer::new(&acquire(satype, seq));
            about(&mut w, eroute, src, dst);
            w.proposal(REPLAY, &combs(satype));
            let message = w.finish().unwrap_or_default();
            heard = heard.saturating_add(self.sockets.deliver(Hearers::Plain(satype.number()), message));
        }
        heard > 0
    }

    /// An SA came in. If it is the answer to ACQUIRE `seq`, what waits for it goes.
    pub(super) fn acquired(&mut self, seq: u32, id: &SaId) {
        let seq = self.acquires.record_of(seq);
        // Whether it is one that policy wants has been seen when it came in.
        if self.acquires.is_by_policy(seq) {
            return;
        }
        let Some(record) = self.sadb.find(id) else { return };
        // Key managers use the number for both directions; packets wait for the one that leads out.
        let outbound =
            record.flags & super::flag::OUTBOUND != 0 && matches!(id.protocol, Protocol::Esp | Protocol::Ah);
        let Some(sa) = record.sa.clone().filter(|sa| outbound && sa.is_alive()) else { return };
        let in_use = record.in_use;
        // The number alone makes no answer: key managers number their own requests, too.
        let key = self.acquires.records.get(&seq).map(|record| record.key);
        let Some(key) = key.filter(|(_, src, dst)| leads(&sa, *src, *dst)) else { return };
        let packets = self.acquires.end(seq);
        self.lift_holds();
        if in_use {
            self.acquires.meet(key, &sa);
            self.release(packets, Some(&sa));
        } else {
            self.dropped(packets.len());
        }
    }

    /// The answer to ACQUIRE `seq` was no SA that would do: nothing else is to come.
    pub(super) fn missed(&mut self, seq: u32, ask: &Message<'_>) {
        let seq = self.acquires.record_of(seq);
        let net = |address: Option<Address>| {
            address.and_then(|address| IpNet::new(address.ip()?, address.prefix).ok())
        };
        let inner = ask.inner_src.is_some();
        let leads = |(_, src, dst): &Key| match (net(ask.inner_src), net(ask.inner_dst)) {
            (Some(from), Some(to)) => from.contains(src) && to.contains(dst),
            _ => !inner && ask.dst.and_then(|dst| dst.ip()) == Some(*dst),
        };
        if self.acquires.records.get(&seq).is_some_and(|record| leads(&record.key)) {
            self.given_up(seq);
        }
    }

    /// Policy changed for what `selector` covers: what it gives another way goes there. A key manager that adds the SA first
    /// and the eroute then would leave behind what was trapped in between.
    pub(super) fn reconsider(&mut self, selector: Option<&Selector>) {
        let touches = |held: &Held| selector.is_none_or(|selector| selector.matches(&held.flow));
        let records = self.acquires.records.iter();
        let seqs: Vec<u32> =
            records.filter(|(_, record)| record.packets.iter().any(touches)).map(|(seq, _)| *seq).collect();
        for seq in seqs {
            let Some(record) = self.acquires.records.get(&seq) else { continue };
            // What is said now is hidden behind the eroute that we made.
            let hidden =
                record.hold.as_ref().and_then(|hold| hold.made.as_ref()).is_some_and(|made| {
                    record.packets.iter().any(|held| !self.waits_without(made, &held.flow))
                });
            if hidden {
                let hold = self.acquires.records.get_mut(&seq).and_then(|record| record.hold.take());
                self.acquires.lift(hold);
                self.lift_holds();
            }
            let Some(record) = self.acquires.records.get_mut(&seq) else { continue };
            let packets = core::mem::take(&mut record.packets);
            let (stay, go): (Vec<Held>, Vec<Held>) = packets.into_iter().partition(|held| self.waits(held));
            self.acquires.leave(seq, stay.into(), &go);
            self.lift_holds();
            self.release(go, None);
        }
    }

    /// Whether policy still says that the packet needs an SA.
    fn waits(&self, held: &Held) -> bool {
        let eroutes = self.plane.eroutes();
        eroutes.lookup(&held.flow).is_some_and(|eroute| eroute.action.waits())
    }

    /// Packets go back to the engines they came from, through `sa` or as policy says.
    fn release(&self, packets: impl IntoIterator<Item = Held>, sa: Option<&Arc<Sa>>) {
        let mut released = false;
        for held in packets {
            match held.release(sa.cloned()) {
                true => released = true,
                false => self.dropped(1),
            }
        }
        if released {
            self.plane.tell_returned();
        }
    }

    /// There will be no SA: what waits for it is dropped.
    pub(super) fn given_up(&mut self, seq: u32) {
        let packets = self.acquires.end(self.acquires.record_of(seq)).len();
        self.lift_holds();
        self.dropped(packets);
    }

    /// Records whose time is up.
    pub(super) fn expire_acquires(&mut self, now: Time) {
        while let Some(seq) = self.acquires.overdue(now) {
            self.given_up(seq);
        }
    }

    /// FLUSH takes these, too.
    pub(super) fn flush_acquires(&mut self) {
        let Acquires { last, records, counts, .. } = core::mem::take(&mut self.acquires);
        (self.acquires.last, self.acquires.counts) = (last, counts);
        self.dropped(records.values().fold(0, |sum, record| sum.saturating_add(record.packets.len())));
        for record in records.into_values() {
            self.acquires.lift(record.hold);
        }
        self.lift_holds();
    }

    /// Packets that met a trap since the start, and how many of them a key manager was asked for.
    pub fn trap_counts(&self) -> (u64, u64) {
        self.acquires.counts()
    }

    pub(super) fn dropped(&self, packets: usize) {
        self.discards.add(Discard::Hold, packets as u64);
    }
}

/// Whether an SA leads from one host to the other: in tunnel mode through its peer, else to its peer.
fn leads(sa: &Sa, src: IpAddr, dst: IpAddr) -> bool {
    let hosts = Flow { src, dst, proto: 0, sport: 0, dport: 0 };
    match &sa.selector {
        Some(_) => {
            sa.selectors().any(|one| one.src.contains(&src) && one.dst.contains(&dst)) || sa.entitles(&hosts)
        }
        None => sa.id.dst == dst,
    }
}

fn acquire(satype: SaType, seq: u32) -> Base {
    Base::request(MessageType::Acquire, satype, seq, 0)
}

/// An extended ACQUIRE for SAs of these protocols, which is also what INVERSE_ACQUIRE answers.
pub(super) fn extended(
    base: &Base,
    eroute: &Eroute,
    protocols: impl Iterator<Item = u8> + Clone,
    src: IpAddr,
    dst: IpAddr,
) -> Vec<u8> {
    let wants = |satype| protocols.clone().any(|protocol| satype_of(protocol) == satype);
    let mut w = Writer::new(base);
    about(&mut w, eroute, src, dst);
    w.eprop(REPLAY, &ecombs(wants(SaType::Esp), wants(SaType::Ah)));
    w.finish().unwrap_or_default()
}

/// The protocols of the SAs that an eroute wants.
pub(super) fn protocols(eroute: &Eroute) -> Vec<u8> {
    let wanted = eroute.policy.iter().flat_map(|policy| policy.wanted());
    let mut protocols: Vec<u8> = wanted.map(|wanted| wanted.wanted.protocol).collect();
    if protocols.is_empty() {
        protocols.push(ANY_ESP.protocol);
    }
    protocols
}

/// What an eroute wants that only says that packets need an SA.
const ANY_ESP: Wanted = Wanted { protocol: 50, mode: 2, level: Level::Require, reqid: 0 };

/// The SA type of an IP protocol that policy may want.
const fn satype_of(protocol: u8) -> SaType {
    match protocol {
        51 => SaType::Ah,
        IPCOMP => SaType::Ipcomp,
        _ => SaType::Esp,
    }
}

/// Which packets, from the policy, and between whom.
fn about(w: &mut Writer, eroute: &Eroute, src: IpAddr, dst: IpAddr) {
    let Selector { src: inner_src, dst: inner_dst, proto, sport, dport } = eroute.selector;
    for (kind, net, port) in
        [(ExtType::AddressInnerSrc, inner_src, sport), (ExtType::AddressInnerDst, inner_dst, dport)]
    {
        let socket = Some(SocketAddr::new(net.network(), port));
        w.address(kind, &Address { proto, prefix: net.prefix_len(), socket });
    }
    let carrier = if inner_src.addr().is_ipv4() { 4 } else { 41 };
    for (kind, ip) in [(ExtType::AddressSrc, src), (ExtType::AddressDst, dst)] {
        w.address(kind, &Address { proto: carrier, ..Address::host(ip) });
    }
    if let Some(policy) = &eroute.policy {
        w.flow_policy(&policy.flow);
    }
}

/// What may be agreed on, the best first: a cipher with integrity of its own, or a cipher and an integrity algorithm. Nothing
/// that is kept for old peers only.
fn alternatives()
-> impl Iterator<Item = (&'static Row<algorithm::Encryption>, Option<&'static Row<algorithm::Auth>>)> {
    use algorithm::{AUTH, Auth, ENCRYPTION, Encryption};
    let ciphers = |wanted: &'static [Encryption]| {
        wanted.iter().filter_map(|cipher| ENCRYPTION.iter().find(|row| row.algorithm == *cipher))
    };
    const COMBINED: &[Encryption] =
        &[Encryption::AesGcm16, Encryption::ChaCha20Poly1305, Encryption::AesCcm16];
    const HASHES: &[Auth] = &[Auth::HmacSha256, Auth::HmacSha384, Auth::HmacSha512];
    let hashes = || HASHES.iter().filter_map(|auth| AUTH.iter().find(|row| row.algorithm == *auth));
    let combined = ciphers(COMBINED).map(|cipher| (cipher, None));
    let separate =
        ciphers(&[Encryption::AesCbc]).flat_map(move |cipher| hashes().map(move |auth| (cipher, Some(auth))));
    combined.chain(separate)
}

const LIMITS: Limits = Limits { allocations: (0, 0), bytes: (0, 0), addtime: ADDTIME, usetime: (0, 0) };

fn salt(row: &Row<algorithm::Encryption>) -> u8 {
    u8::try_from(row.salt_bits).unwrap_or(0)
}

/// Integrity for AH, the best first; the same that go beside a cipher.
fn integrity() -> impl Iterator<Item = &'static Row<algorithm::Auth>> {
    alternatives().filter_map(|(_, auth)| auth)
}

fn combs(satype: SaType) -> Vec<Comb> {
    let none =
        Comb { auth: 0, encrypt: 0, auth_bits: (0, 0), encrypt_bits: (0, 0), salt_bits: 0, limits: LIMITS };
    match satype {
        SaType::Ah => integrity()
            .map(|auth| Comb { auth: auth.number, auth_bits: (auth.min_bits, auth.max_bits), ..none })
            .collect(),
        SaType::Ipcomp => vec![Comb { encrypt: DEFLATE, ..none }],
        SaType::Unspec | SaType::Esp | SaType::Ipip => alternatives()
            .map(|(cipher, auth)| Comb {
                auth: auth.map_or(0, |auth| auth.number),
                encrypt: cipher.number,
                auth_bits: auth.map_or((0, 0), |auth| (auth.min_bits, auth.max_bits)),
                encrypt_bits: (cipher.min_bits, cipher.max_bits),
                salt_bits: salt(cipher),
                ..none
            })
            .collect(),
    }
}

fn ecombs(esp: bool, ah: bool) -> Vec<Ecomb> {
    let of = |satype: SaType, kind, id, salt_bits, bits| Descriptor {
        satype: satype.number(),
        kind,
        id,
        salt_bits,
        bits,
    };
    let auth = |satype, auth: &Row<algorithm::Auth>| {
        of(satype, AlgorithmKind::Auth, auth.number, 0, (auth.min_bits, auth.max_bits))
    };
    // One for AH is enough beside ESP: the best.
    let ahs = || integrity().map(|row| auth(SaType::Ah, row));
    if !esp {
        return ahs().map(|ah| Ecomb { algorithms: vec![ah], limits: LIMITS }).collect();
    }
    alternatives()
        .map(|(cipher, integrity)| {
            let cipher = of(
                SaType::Esp,
                AlgorithmKind::Crypt,
                cipher.number,
                salt(cipher),
                (cipher.min_bits, cipher.max_bits),
            );
            let integrity = integrity.map(|row| auth(SaType::Esp, row));
            let around = ahs().take(usize::from(ah));
            Ecomb {
                algorithms: integrity.into_iter().chain([cipher]).chain(around).collect(),
                limits: LIMITS,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sa::{Blueprint, Keys, Mode};
    use ipsec_core::Spi;
    use ipsec_core::algorithm::Suite;

    #[test]
    fn records_that_go_early_leave_a_bounded_list_of_ends() {
        let mut acquires = Acquires::default();
        let net = |text: &str| text.parse().unwrap();
        let (src, dst) = ("10.1.0.1".parse().unwrap(), "10.2.0.1".parse().unwrap());
        let key = (Selector::nets(net("10.1.0.0/16"), net("10.2.0.0/16")), src, dst);
        let kept = acquires.begin((key.0, dst, src), Time::from_secs(15));
        for _ in 0..10 * RECORDS {
            let seq = acquires.begin(key, Time::from_secs(15));
            acquires.end(seq);
        }
        assert!(acquires.ends.len() <= 2 * RECORDS, "{} ends", acquires.ends.len());
        let first = acquires.overdue(Time::from_secs(15));
        assert_eq!(first, Some(kept), "what is still there is not forgotten");
    }

    #[test]
    fn the_other_numbers_of_a_record_go_with_it() {
        let mut acquires = Acquires::default();
        let ip = |text: &str| text.parse().unwrap();
        let key = (
            Selector::nets("10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap()),
            ip("10.1.0.1"),
            ip("10.2.0.1"),
        );
        let seq = acquires.begin(key, Time::from_secs(15));
        let other = acquires.another(seq);
        assert_eq!((acquires.record_of(other), acquires.by_other.len()), (seq, 1));
        acquires.end(seq);
        assert_eq!((acquires.record_of(other), acquires.by_other.len()), (other, 0));
    }

    /// Answers come as fast as key managers give them, and SAs may live for hours.
    #[test]
    fn needs_that_were_met_are_remembered_up_to_a_bound() {
        let mut acquires = Acquires::default();
        let net = |text: &str| text.parse().unwrap();
        let selector = Selector::nets(net("10.1.0.0/16"), net("10.2.0.0/16"));
        let key = |n: u32| (selector, IpAddr::from(n.to_be_bytes()), IpAddr::from([10, 2, 0, 1]));
        let sas = [0x1001, 0x1002].map(|spi| {
            Arc::new(Sa::new(Blueprint {
                id: SaId { dst: [192, 0, 2, 2].into(), protocol: Protocol::Esp, spi: Spi(spi) },
                src: [192, 0, 2, 1].into(),
                mode: Mode::Tunnel,
                suite: Suite { encryption: Some(algorithm::Encryption::AesGcm16), auth: None },
                keys: Keys::default(),
                esn: false,
                window: 0,
                encapsulation: None,
                selector: None,
                limits: Default::default(),
            }))
        });
        for n in 0..3 * RECORDS as u32 {
            acquires.meet(key(n), &sas[0]);
        }
        assert_eq!(acquires.met.len(), RECORDS);
        // Those whose SA has gone make room.
        sas[0].die();
        acquires.meet(key(7), &sas[1]);
        assert_eq!(acquires.met.len(), 1);
    }
}
