//! Eroutes: the ordered policy (RFC 4301 §4.4.1).
//!
//! Among the eroutes that match a packet the one decides that has the longest source prefix; among those the longest
//! destination prefix; then one with a protocol, a source port, a destination port before one without (design.md §2.4).
//!
//! The table is a *tuple space*: eroutes of one [`Shape`] (prefix lengths, and which of protocol and ports are set) lie
//! in one hash table, and the shapes are kept in match order, so the first hit decides. Where there are many shapes,
//! those whose source or destination prefix nobody has are skipped without a probe.

use core::cmp::Reverse;
use core::hash::Hash;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use foldhash::fast::RandomState;
use ipnet::IpNet;
use ipsec_core::{Flow, SaId, Selector, Time};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// What becomes of a packet that an eroute matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Protect with the SA of this name (PROTECT).
    Protect(SaId),
    /// `%pass`: let through unprotected (BYPASS).
    Pass,
    /// `%drop`: discard.
    Drop,
    /// `%reject`: discard and say so.
    Reject,
    /// `%trap`: ask the key manager for an SA, once per flow.
    Trap,
    /// `%hold`: asked, waiting.
    Hold,
}

/// One entry of the policy.
#[derive(Debug)]
pub struct Eroute {
    /// What it matches.
    pub selector: Selector,
    /// What it does.
    pub action: Action,
    /// The local identity, as printed in tables; empty if none.
    pub src_identity: Box<str>,
    /// The remote identity, as printed in tables; empty if none.
    pub dst_identity: Box<str>,
    packets: AtomicU64,
    last_use: AtomicU64,
}

impl Eroute {
    /// A fresh eroute that has matched nothing yet.
    pub fn new(selector: Selector, action: Action) -> Self {
        Self {
            selector,
            action,
            src_identity: Box::default(),
            dst_identity: Box::default(),
            packets: AtomicU64::new(0),
            last_use: AtomicU64::new(0),
        }
    }

    /// The same entry with another action; it goes on counting.
    pub(crate) fn redirected(&self, action: Action) -> Self {
        Self {
            selector: self.selector,
            action,
            src_identity: self.src_identity.clone(),
            dst_identity: self.dst_identity.clone(),
            packets: AtomicU64::new(self.packets.load(Ordering::Relaxed)),
            last_use: AtomicU64::new(self.last_use.load(Ordering::Relaxed)),
        }
    }

    /// Counts `n` packets matched at once.
    pub(crate) fn count(&self, n: u64, now: Time) {
        self.packets.fetch_add(n, Ordering::Relaxed);
        self.last_use.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Packets matched so far.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// When it last matched.
    pub fn last_use(&self) -> Option<Time> {
        Some(self.last_use.load(Ordering::Relaxed)).filter(|at| *at != 0).map(Time::from_nanos)
    }
}

/// What a change of policy may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// What is said of any flow.
    All,
    /// What is said of flows this matches, and of no other.
    Only(Selector),
}

impl Change {
    /// Whether what is said of `flow` may be another now.
    pub(crate) fn touches(&self, flow: &Flow) -> bool {
        match self {
            Self::All => true,
            Self::Only(selector) => selector.matches(flow),
        }
    }
}

/// An eroute with this selector exists, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErouteError {
    /// Add: one with exactly this selector is there already.
    Exists,
    /// Delete: none has exactly this selector.
    Missing,
}

/// All eroutes, searchable in match order.
#[derive(Default)]
pub struct Eroutes {
    v4: Family<u32>,
    v6: Family<u128>,
}

impl Eroutes {
    /// Adds an eroute whose selector is not there yet.
    pub fn add(&mut self, eroute: Eroute) -> Result<(), ErouteError> {
        match key(&eroute.selector) {
            Some(Place::V4(shape, key)) => self.v4.add(shape, key, eroute),
            Some(Place::V6(shape, key)) => self.v6.add(shape, key, eroute),
            // Selectors of two families match nothing; whoever builds one refuses it before.
            None => Err(ErouteError::Exists),
        }
    }

    /// Puts an eroute in the place of the one with the same selector, if any: an upsert, without a gap in between.
    /// The new one counts from 0.
    pub fn replace(&mut self, eroute: Eroute) {
        match key(&eroute.selector) {
            Some(Place::V4(shape, key)) => self.v4.replace(shape, key, eroute),
            Some(Place::V6(shape, key)) => self.v6.replace(shape, key, eroute),
            None => {}
        }
    }

    /// Removes the eroute with exactly this selector.
    pub fn delete(&mut self, selector: &Selector) -> Result<Arc<Eroute>, ErouteError> {
        match key(selector) {
            Some(Place::V4(shape, key)) => self.v4.delete(shape, &key),
            Some(Place::V6(shape, key)) => self.v6.delete(shape, &key),
            None => None,
        }
        .ok_or(ErouteError::Missing)
    }

    /// Removes all. Dropping them takes long where they are many: that is the caller's to do, and when.
    #[must_use]
    pub fn clear(&mut self) -> impl Sized + use<> {
        core::mem::take(self)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.v4.len.saturating_add(self.v6.len)
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.v4.len == 0 && self.v6.len == 0
    }

    /// The eroute with exactly this selector.
    pub fn exact(&self, selector: &Selector) -> Option<&Arc<Eroute>> {
        match key(selector)? {
            Place::V4(shape, key) => self.v4.exact(shape, &key),
            Place::V6(shape, key) => self.v6.exact(shape, &key),
        }
    }

    /// The eroute that decides about `flow`.
    pub fn lookup(&self, flow: &Flow) -> Option<&Arc<Eroute>> {
        self.candidates(flow, |_| true)
    }

    /// Every eroute that matches `flow`, the one that decides first (`ipsec eroute --explain`).
    pub fn explain(&self, flow: &Flow) -> Vec<Arc<Eroute>> {
        let mut all = Vec::new();
        self.candidates(flow, |eroute| {
            all.push(Arc::clone(eroute));
            false
        });
        all
    }

    /// Offers the eroutes that match, in match order, until one is taken.
    fn candidates(&self, flow: &Flow, take: impl FnMut(&Arc<Eroute>) -> bool) -> Option<&Arc<Eroute>> {
        match (flow.src, flow.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                self.v4.lookup(&tuple(src.to_bits(), dst.to_bits(), flow), take)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                self.v6.lookup(&tuple(src.to_bits(), dst.to_bits(), flow), take)
            }
            _ => None,
        }
    }

    /// What decides about passing in clear, in match order within each family: every eroute down to the last shape that has a
    /// `%pass`, and whether it is one. Empty where there is none, and that is known without a search.
    pub fn bypasses(&self) -> Vec<(Selector, bool)> {
        let all = self.v4.down_to_passes().chain(self.v6.down_to_passes());
        all.map(|eroute| (eroute.selector, eroute.action == Action::Pass)).collect()
    }

    /// All of them in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Eroute>> {
        self.v4.all().chain(self.v6.all())
    }

    /// All of them in table order: family, source, destination, protocol, ports; the longer prefix first where the
    /// addresses are the same.
    pub fn list(&self) -> Vec<Arc<Eroute>> {
        let mut all: Vec<Arc<Eroute>> = self.v4.all().chain(self.v6.all()).map(Arc::clone).collect();
        all.sort_unstable_by_key(|eroute| listed(&eroute.selector));
        all
    }
}

/// The order of [`Eroutes::list`].
pub(crate) fn listed(s: &Selector) -> impl Ord + use<> {
    let lengths = Reverse((s.src.prefix_len(), s.dst.prefix_len()));
    (s.src.network(), s.dst.network(), s.proto, s.sport, s.dport, lengths)
}

/// An address as a number.
trait Word: Copy + Eq + Hash {
    /// The leading `len` bits.
    fn prefix(self, len: u8) -> Self;
}

impl Word for u32 {
    #[inline]
    fn prefix(self, len: u8) -> Self {
        self & Self::MAX.checked_shl(Self::BITS.saturating_sub(Self::from(len))).unwrap_or(0)
    }
}

impl Word for u128 {
    #[inline]
    fn prefix(self, len: u8) -> Self {
        self & Self::MAX.checked_shl(Self::BITS.saturating_sub(u32::from(len))).unwrap_or(0)
    }
}

/// Which bits of a packet an eroute looks at. In match order: the better shape is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    src: u8,
    dst: u8,
    proto: bool,
    sport: bool,
    dport: bool,
}

/// A packet, or what an eroute of some shape leaves of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tuple<A> {
    src: A,
    dst: A,
    rest: u64,
}

enum Place {
    V4(Shape, Tuple<u32>),
    V6(Shape, Tuple<u128>),
}

fn key(s: &Selector) -> Option<Place> {
    let shape = Shape {
        src: s.src.prefix_len(),
        dst: s.dst.prefix_len(),
        proto: s.proto != 0,
        sport: s.sport != 0,
        dport: s.dport != 0,
    };
    let rest = rest(s.proto, s.sport, s.dport);
    match (s.src, s.dst) {
        (IpNet::V4(src), IpNet::V4(dst)) => {
            let (src, dst) = (src.network().to_bits(), dst.network().to_bits());
            Some(Place::V4(shape, Tuple { src, dst, rest }))
        }
        (IpNet::V6(src), IpNet::V6(dst)) => {
            let (src, dst) = (src.network().to_bits(), dst.network().to_bits());
            Some(Place::V6(shape, Tuple { src, dst, rest }))
        }
        _ => None,
    }
}

#[inline]
fn rest(proto: u8, sport: u16, dport: u16) -> u64 {
    u64::from(proto) << 32 | u64::from(sport) << 16 | u64::from(dport)
}

#[inline]
fn tuple<A>(src: A, dst: A, flow: &Flow) -> Tuple<A> {
    Tuple { src, dst, rest: rest(flow.proto, flow.sport, flow.dport) }
}

impl Shape {
    #[inline]
    fn leaves<A: Word>(self, packet: &Tuple<A>) -> Tuple<A> {
        let bits = |set: bool, bits: u64| if set { bits } else { 0 };
        let mask = bits(self.proto, 0xff << 32) | bits(self.sport, 0xffff << 16) | bits(self.dport, 0xffff);
        Tuple { src: packet.src.prefix(self.src), dst: packet.dst.prefix(self.dst), rest: packet.rest & mask }
    }
}

/// With more shapes than this, prefixes are looked up first so that shapes can be skipped.
const FEW: usize = 6;

/// The eroutes of one shape.
type Table<A> = HashMap<Tuple<A>, Arc<Eroute>, RandomState>;

/// The eroutes of one address family.
struct Family<A> {
    /// Best shape first.
    shapes: Vec<(Shape, Table<A>)>,
    sources: Prefixes<A>,
    destinations: Prefixes<A>,
    len: usize,
    /// How many of them are `%pass`.
    passes: usize,
}

impl<A> Default for Family<A> {
    fn default() -> Self {
        let (sources, destinations) = (Prefixes::default(), Prefixes::default());
        Self { shapes: Vec::new(), sources, destinations, len: 0, passes: 0 }
    }
}

impl<A: Word> Family<A> {
    fn find(&self, shape: Shape) -> Result<usize, usize> {
        self.shapes.binary_search_by(|(other, _)| other.cmp(&shape).reverse())
    }

    fn table(&mut self, shape: Shape) -> Option<&mut Table<A>> {
        let at = match self.find(shape) {
            Ok(at) => at,
            Err(at) => {
                self.shapes.insert(at, (shape, HashMap::default()));
                at
            }
        };
        self.shapes.get_mut(at).map(|(_, table)| table)
    }

    fn counted(&mut self, shape: Shape, key: &Tuple<A>) {
        self.sources.add(key.src, shape.src);
        self.destinations.add(key.dst, shape.dst);
        self.len = self.len.saturating_add(1);
    }

    fn add(&mut self, shape: Shape, key: Tuple<A>, eroute: Eroute) -> Result<(), ErouteError> {
        match self.table(shape).map(|table| table.entry(key)) {
            Some(Entry::Vacant(place)) => {
                let action = eroute.action;
                place.insert(Arc::new(eroute));
                self.counted(shape, &key);
                self.count_pass(action, 1);
                Ok(())
            }
            _ => Err(ErouteError::Exists),
        }
    }

    fn replace(&mut self, shape: Shape, key: Tuple<A>, eroute: Eroute) {
        let action = eroute.action;
        let Some(table) = self.table(shape) else { return };
        match table.insert(key, Arc::new(eroute)) {
            Some(replaced) => self.count_pass(replaced.action, -1),
            None => self.counted(shape, &key),
        }
        self.count_pass(action, 1);
    }

    fn count_pass(&mut self, action: Action, by: isize) {
        if action == Action::Pass {
            self.passes = self.passes.saturating_add_signed(by);
        }
    }

    fn delete(&mut self, shape: Shape, key: &Tuple<A>) -> Option<Arc<Eroute>> {
        let at = self.find(shape).ok()?;
        let (_, table) = self.shapes.get_mut(at)?;
        let gone = table.remove(key)?;
        if table.is_empty() {
            self.shapes.remove(at);
        }
        self.sources.remove(key.src, shape.src);
        self.destinations.remove(key.dst, shape.dst);
        self.len = self.len.saturating_sub(1);
        self.count_pass(gone.action, -1);
        Some(gone)
    }

    fn exact(&self, shape: Shape, key: &Tuple<A>) -> Option<&Arc<Eroute>> {
        self.shapes.get(self.find(shape).ok()?)?.1.get(key)
    }

    fn lookup(&self, packet: &Tuple<A>, mut take: impl FnMut(&Arc<Eroute>) -> bool) -> Option<&Arc<Eroute>> {
        let prune = self.shapes.len() > FEW;
        let sources = if prune { self.sources.above(packet.src) } else { Lengths::ALL };
        let destinations = if prune { self.destinations.above(packet.dst) } else { Lengths::ALL };
        self.shapes
            .iter()
            .filter(|(shape, _)| sources.has(shape.src) && destinations.has(shape.dst))
            .filter_map(|(shape, table)| table.get(&shape.leaves(packet)))
            .find(|eroute| take(eroute))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Eroute>> {
        self.shapes.iter().flat_map(|(_, table)| table.values())
    }

    fn down_to_passes(&self) -> impl Iterator<Item = &Arc<Eroute>> {
        let has = |(_, table): &(Shape, Table<A>)| table.values().any(|eroute| eroute.action == Action::Pass);
        // Nobody looks for what is known not to be there.
        let last = if self.passes == 0 { None } else { self.shapes.iter().rposition(has) };
        let count = last.map_or(0, |last| last.saturating_add(1));
        self.shapes.iter().take(count).flat_map(|(_, table)| table.values())
    }
}

/// The prefixes in use on one side, by length, and how many eroutes have each.
struct Prefixes<A> {
    by_length: Vec<(u8, HashMap<A, u32, RandomState>)>,
}

impl<A> Default for Prefixes<A> {
    fn default() -> Self {
        Self { by_length: Vec::new() }
    }
}

impl<A: Word> Prefixes<A> {
    fn add(&mut self, prefix: A, len: u8) {
        let at = match self.by_length.binary_search_by_key(&len, |(len, _)| *len) {
            Ok(at) => at,
            Err(at) => {
                self.by_length.insert(at, (len, HashMap::default()));
                at
            }
        };
        if let Some((_, prefixes)) = self.by_length.get_mut(at) {
            let users = prefixes.entry(prefix).or_insert(0);
            *users = users.saturating_add(1);
        }
    }

    fn remove(&mut self, prefix: A, len: u8) {
        let Ok(at) = self.by_length.binary_search_by_key(&len, |(len, _)| *len) else { return };
        let Some((_, prefixes)) = self.by_length.get_mut(at) else { return };
        if let Entry::Occupied(mut users) = prefixes.entry(prefix) {
            *users.get_mut() = users.get().saturating_sub(1);
            if *users.get() == 0 {
                users.remove();
            }
        }
        if prefixes.is_empty() {
            self.by_length.remove(at);
        }
    }

    /// The lengths of the prefixes in use that contain `address`.
    fn above(&self, address: A) -> Lengths {
        let mut lengths = Lengths::NONE;
        for (len, prefixes) in &self.by_length {
            if prefixes.contains_key(&address.prefix(*len)) {
                lengths.insert(*len);
            }
        }
        lengths
    }
}

/// A set of prefix lengths, 0 to 128.
#[derive(Clone, Copy)]
struct Lengths(u128, bool);

impl Lengths {
    const ALL: Self = Self(u128::MAX, true);
    const NONE: Self = Self(0, false);

    fn insert(&mut self, len: u8) {
        match 1_u128.checked_shl(u32::from(len)) {
            Some(bit) => self.0 |= bit,
            None => self.1 = true,
        }
    }

    #[inline]
    fn has(self, len: u8) -> bool {
        1_u128.checked_shl(u32::from(len)).map_or(self.1, |bit| self.0 & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The rule of design.md §2.4, as it is written there.
    fn naive<'t>(table: &'t [Selector], flow: &Flow) -> Option<&'t Selector> {
        table.iter().filter(|s| s.matches(flow)).max_by_key(|s| {
            (s.src.prefix_len(), s.dst.prefix_len(), s.proto != 0, s.sport != 0, s.dport != 0)
        })
    }

    fn selector(src: &str, dst: &str) -> Selector {
        Selector::nets(src.parse().unwrap(), dst.parse().unwrap())
    }

    fn flow(src: &str, dst: &str, proto: u8, sport: u16, dport: u16) -> Flow {
        Flow { src: src.parse().unwrap(), dst: dst.parse().unwrap(), proto, sport, dport }
    }

    #[test]
    fn every_recommended_answer_of_the_corpus_is_ours() {
        let corpus = include_str!("../tests/data/eroute_match.jsonl");
        let (mut tables, mut queries) = (0, 0);
        for line in corpus.lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let number = |v: &serde_json::Value, name: &str| v[name].as_u64().unwrap() as u16;
            let mut table = Eroutes::default();
            let mut selectors = Vec::new();
            for e in case["eroutes"].as_array().unwrap() {
                let mut s = selector(e["src"].as_str().unwrap(), e["dst"].as_str().unwrap());
                (s.proto, s.sport, s.dport) =
                    (number(e, "proto") as u8, number(e, "sport"), number(e, "dport"));
                let _ = table.add(Eroute::new(s, Action::Pass));
                selectors.push(s);
            }
            for q in case["queries"].as_array().unwrap() {
                let f = flow(
                    q["src"].as_str().unwrap(),
                    q["dst"].as_str().unwrap(),
                    number(q, "proto") as u8,
                    number(q, "sport"),
                    number(q, "dport"),
                );
                let want = q["recommended"].as_u64().map(|i| selectors[i as usize]);
                assert_eq!(table.lookup(&f).map(|e| e.selector), want, "{f:?}");
                queries += 1;
            }
            tables += 1;
        }
        assert_eq!((tables, queries > 2000), (200, true), "{queries}");
    }

    #[test]
    fn add_replace_and_delete_are_exact() {
        let mut table = Eroutes::default();
        let wide = selector("10.0.0.0/8", "0.0.0.0/0");
        let narrow = selector("10.0.0.0/9", "0.0.0.0/0");
        table.add(Eroute::new(wide, Action::Drop)).unwrap();
        assert_eq!(table.add(Eroute::new(wide, Action::Pass)), Err(ErouteError::Exists));
        assert_eq!(table.delete(&narrow).unwrap_err(), ErouteError::Missing);
        let f = flow("10.1.2.3", "192.0.2.1", 6, 1, 2);
        table.lookup(&f).unwrap().count(7, Time::from_secs(3));
        assert_eq!(table.lookup(&f).unwrap().packets(), 7);
        table.replace(Eroute::new(wide, Action::Pass));
        assert_eq!(table.len(), 1);
        assert_eq!(
            (table.lookup(&f).unwrap().packets(), table.lookup(&f).unwrap().action),
            (0, Action::Pass)
        );
        table.replace(Eroute::new(narrow, Action::Reject));
        assert_eq!(table.lookup(&f).unwrap().action, Action::Reject);
        assert_eq!(table.explain(&f).len(), 2);
        table.delete(&narrow).unwrap();
        assert_eq!(table.lookup(&f).unwrap().action, Action::Pass);
        table.delete(&wide).unwrap();
        assert!(table.is_empty() && table.lookup(&f).is_none());
    }

    prop_compose! {
        fn any_selector(v6: bool)(src in 0..6_u8, dst in 0..6_u8, sl in 0..=8_u8, dl in 0..=8_u8,
                                  proto in prop::sample::select(vec![0_u8, 6, 17]),
                                  sport in 0..3_u16, dport in 0..3_u16) -> Selector {
            let net = |host: u8, len: u8| -> IpNet {
                // Few addresses, many nested prefixes.
                let host = u128::from(host).wrapping_mul(0x2400_0000_0000_0000_0000_0000_0000_0001);
                if v6 { IpNet::new(IpAddr::V6(host.into()), len.wrapping_mul(16)).unwrap().trunc() }
                else { IpNet::new(IpAddr::V4(((host >> 96) as u32).into()), len.wrapping_mul(4)).unwrap().trunc() }
            };
            Selector { src: net(src, sl), dst: net(dst, dl), proto, sport, dport }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_rule_as_written(v6: bool, ops in prop::collection::vec((any::<bool>(), any_selector(true), any_selector(false)), 1..80),
                                           probes in prop::collection::vec((0..6_u8, 0..6_u8, 0..3_u16, 0..3_u16, any::<bool>()), 1..40)) {
            let mut table = Eroutes::default();
            let mut model: Vec<Selector> = Vec::new();
            for (add, six, four) in ops {
                let s = if v6 { six } else { four };
                let known = model.contains(&s);
                if add {
                    prop_assert_eq!(table.add(Eroute::new(s, Action::Pass)).is_ok(), !known);
                    if !known { model.push(s); }
                } else {
                    let s = model.first().copied().unwrap_or(s);
                    prop_assert_eq!(table.delete(&s).is_ok(), model.contains(&s));
                    model.retain(|other| *other != s);
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (src, dst, sport, dport, tcp) in probes {
                let address = |host: u8| {
                    let host = u128::from(host).wrapping_mul(0x2400_0000_0000_0000_0000_0000_0000_0001);
                    if v6 { IpAddr::V6(host.into()) } else { IpAddr::V4(((host >> 96) as u32).into()) }
                };
                let f = Flow { src: address(src), dst: address(dst), proto: if tcp { 6 } else { 17 }, sport, dport };
                prop_assert_eq!(table.lookup(&f).map(|e| e.selector), naive(&model, &f).copied());
                prop_assert_eq!(table.explain(&f).len(), model.iter().filter(|s| s.matches(&f)).count());
            }
            let listed: Vec<Selector> = table.list().iter().map(|e| e.selector).collect();
            let mut want = model.clone();
            want.sort_by_key(super::listed);
            prop_assert_eq!(listed, want);
        }
    }
}
