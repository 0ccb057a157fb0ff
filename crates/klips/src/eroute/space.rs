//! The table of eroutes: a *tuple space*.
//!
//! Eroutes of one [`Shape`] (prefix lengths, and which of protocol and ports are set) lie in one hash table, and the shapes
//! are kept in match order, so the first hit decides. Where there are many shapes, those whose source or destination prefix
//! nobody has are skipped without a probe.

use super::{Action, Eroute, ErouteError};
use crate::gradual::Gradual;
use core::hash::{BuildHasher, Hash};
use core::net::IpAddr;
use foldhash::fast::RandomState;
use ipnet::IpNet;
use ipsec_core::{Flow, Selector};
use std::sync::Arc;

/// An address as a number.
pub(super) trait Word: Copy + Eq + Hash {
    /// How it is kept: `u128` would waste half of each place in a table on alignment.
    type Kept: Copy + Eq;

    /// An address of this family; 0 for one of the other.
    fn of(ip: IpAddr) -> Self;
    /// It as it is kept.
    fn keep(self) -> Self::Kept;
    /// It as it was.
    fn kept(kept: Self::Kept) -> Self;

    /// The leading `len` bits.
    fn prefix(self, len: u8) -> Self;
}

impl Word for u32 {
    type Kept = Self;

    fn keep(self) -> Self {
        self
    }

    fn kept(kept: Self) -> Self {
        kept
    }

    #[inline]
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.to_bits(),
            IpAddr::V6(_) => 0,
        }
    }

    #[inline]
    fn prefix(self, len: u8) -> Self {
        self & Self::MAX.checked_shl(Self::BITS.saturating_sub(Self::from(len))).unwrap_or(0)
    }
}

impl Word for u128 {
    type Kept = [u64; 2];

    fn keep(self) -> [u64; 2] {
        [(self >> 64) as u64, self as u64]
    }

    fn kept([high, low]: [u64; 2]) -> Self {
        Self::from(high) << 64 | Self::from(low)
    }

    #[inline]
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V6(ip) => ip.to_bits(),
            IpAddr::V4(_) => 0,
        }
    }

    #[inline]
    fn prefix(self, len: u8) -> Self {
        self & Self::MAX.checked_shl(Self::BITS.saturating_sub(u32::from(len))).unwrap_or(0)
    }
}

/// Which bits of a packet an eroute looks at. In match order: the better shape is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    src: u8,
    dst: u8,
    proto: bool,
    sport: bool,
    dport: bool,
}

/// A packet, or what an eroute of some shape leaves of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tuple<A> {
    src: A,
    dst: A,
    rest: u64,
}

pub(super) enum Place {
    V4(Shape, Tuple<u32>),
    V6(Shape, Tuple<u128>),
}

pub(super) fn key(s: &Selector) -> Option<Place> {
    let shape = Shape {
        src: s.src.prefix_len(),
        dst: s.dst.prefix_len(),
        proto: s.proto != 0,
        sport: s.sport != 0,
        dport: s.dport != 0,
    };
    match (s.src, s.dst) {
        (IpNet::V4(_), IpNet::V4(_)) => Some(Place::V4(shape, Tuple::of(s))),
        (IpNet::V6(_), IpNet::V6(_)) => Some(Place::V6(shape, Tuple::of(s))),
        _ => None,
    }
}

impl<A: Word> Tuple<A> {
    /// What an eroute with this selector looks for.
    #[inline]
    fn of(s: &Selector) -> Self {
        let (src, dst) = (A::of(s.src.network()), A::of(s.dst.network()));
        Self { src, dst, rest: rest(s.proto, s.sport, s.dport) }
    }
}

#[inline]
fn rest(proto: u8, sport: u16, dport: u16) -> u64 {
    u64::from(proto) << 32 | u64::from(sport) << 16 | u64::from(dport)
}

#[inline]
pub(super) fn tuple<A>(src: A, dst: A, flow: &Flow) -> Tuple<A> {
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

/// The eroutes of one address family.
pub(super) struct Family<A: Word> {
    /// Best shape first. An eroute is found by its selector's [`Tuple`], which is in the eroute and nowhere else.
    shapes: Vec<(Shape, Gradual<Arc<Eroute>>)>,
    sources: Prefixes<A>,
    destinations: Prefixes<A>,
    len: usize,
    /// How many of them are `%pass`.
    passes: usize,
    /// How many have a rank: without any the best shape decides.
    ranked: usize,
    /// Seeded, so that nobody can choose selectors or packets that fall on one place.
    hasher: RandomState,
}

impl<A: Word> Default for Family<A> {
    fn default() -> Self {
        let (shapes, sources, destinations, hasher) = Default::default();
        Self { shapes, sources, destinations, len: 0, passes: 0, ranked: 0, hasher }
    }
}

impl<A: Word> Family<A> {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn find(&self, shape: Shape) -> Result<usize, usize> {
        self.shapes.binary_search_by(|(other, _)| other.cmp(&shape).reverse())
    }

    pub(super) fn add(&mut self, shape: Shape, key: Tuple<A>, eroute: Eroute) -> Result<(), ErouteError> {
        if self.exact(shape, &key).is_some() {
            return Err(ErouteError::Exists);
        }
        self.insert(shape, key, eroute);
        Ok(())
    }

    pub(super) fn replace(&mut self, shape: Shape, key: Tuple<A>, eroute: Eroute) -> Option<Arc<Eroute>> {
        let hash = self.hasher.hash_one(key);
        let old = self.find(shape).ok().and_then(|at| {
            let (_, table) = self.shapes.get_mut(at)?;
            table.find_mut(hash, |eroute| Tuple::of(&eroute.selector) == key)
        });
        let Some(old) = old else {
            self.insert(shape, key, eroute);
            return None;
        };
        let (action, ranked) = (eroute.action, usize::from(eroute.policy.is_some()));
        let old = core::mem::replace(old, Arc::new(eroute));
        self.ranked = self.ranked.saturating_add(ranked);
        self.unranked(&old);
        self.count_pass(old.action, -1);
        self.count_pass(action, 1);
        Some(old)
    }

    /// Adds an eroute that is not there.
    fn insert(&mut self, shape: Shape, key: Tuple<A>, eroute: Eroute) {
        let at = match self.find(shape) {
            Ok(at) => at,
            Err(at) => {
                self.shapes.insert(at, (shape, Gradual::default()));
                at
            }
        };
        self.count_pass(eroute.action, 1);
        self.ranked = self.ranked.saturating_add(usize::from(eroute.policy.is_some()));
        let hasher = &self.hasher;
        let hash_of = |eroute: &Arc<Eroute>| hasher.hash_one(Tuple::<A>::of(&eroute.selector));
        if let Some((_, table)) = self.shapes.get_mut(at) {
            table.insert(hasher.hash_one(key), Arc::new(eroute), hash_of);
            self.sources.add(key.src, shape.src, hasher);
            self.destinations.add(key.dst, shape.dst, hasher);
            self.len = self.len.saturating_add(1);
        }
    }

    pub(super) fn delete(&mut self, shape: Shape, key: &Tuple<A>) -> Option<Arc<Eroute>> {
        let hash = self.hasher.hash_one(*key);
        let at = self.find(shape).ok()?;
        let (_, table) = self.shapes.get_mut(at)?;
        let gone = table.remove(hash, |eroute| Tuple::of(&eroute.selector) == *key)?;
        if table.is_empty() {
            self.shapes.remove(at);
        }
        self.sources.remove(key.src, shape.src, &self.hasher);
        self.destinations.remove(key.dst, shape.dst, &self.hasher);
        self.len = self.len.saturating_sub(1);
        self.count_pass(gone.action, -1);
        self.unranked(&gone);
        Some(gone)
    }

    pub(super) fn exact(&self, shape: Shape, key: &Tuple<A>) -> Option<&Arc<Eroute>> {
        let (_, table) = self.shapes.get(self.find(shape).ok()?)?;
        table.find(self.hasher.hash_one(*key), |eroute| Tuple::of(&eroute.selector) == *key)
    }

    pub(super) fn lookup(&self, packet: &Tuple<A>) -> Option<&Arc<Eroute>> {
        let mut matches = self.matches(*packet);
        match self.ranked {
            0 => matches.next(),
            // Of equals the first stays, which has the better shape.
            _ => matches.min_by_key(|eroute| eroute.rank()),
        }
    }

    /// Those that match, the best shape first.
    pub(super) fn matches(&self, packet: Tuple<A>) -> impl Iterator<Item = &Arc<Eroute>> {
        let prune = self.shapes.len() > FEW;
        let sources = if prune { self.sources.above(packet.src, &self.hasher) } else { Lengths::ALL };
        let destinations =
            if prune { self.destinations.above(packet.dst, &self.hasher) } else { Lengths::ALL };
        self.shapes
            .iter()
            .filter(move |(shape, _)| sources.has(shape.src) && destinations.has(shape.dst))
            .filter_map(move |(shape, table)| {
                let key = shape.leaves(&packet);
                table.find(self.hasher.hash_one(key), |eroute| Tuple::of(&eroute.selector) == key)
            })
    }

    fn unranked(&mut self, gone: &Eroute) {
        self.ranked = self.ranked.saturating_sub(usize::from(gone.policy.is_some()));
    }

    fn count_pass(&mut self, action: Action, by: isize) {
        if action == Action::Pass {
            self.passes = self.passes.saturating_add_signed(by);
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Eroute>> {
        self.shapes.iter().flat_map(|(_, table)| table.iter())
    }

    /// Every eroute, in match order, down to the last shape that has a `%pass`, or to the last `%pass` of those that have ranks.
    pub(super) fn down_to_passes(&self) -> Vec<&Arc<Eroute>> {
        // Nobody looks for what is known not to be there.
        if self.passes == 0 {
            return Vec::new();
        }
        let is_pass = |eroute: &Arc<Eroute>| eroute.action == Action::Pass;
        if self.ranked != 0 {
            let mut all: Vec<_> = self.all().collect();
            // Of equals the better shape stays first.
            all.sort_by_key(|eroute| eroute.rank());
            let last = all.iter().rposition(|eroute| is_pass(eroute));
            all.truncate(last.map_or(0, |last| last.saturating_add(1)));
            return all;
        }
        let last = self.shapes.iter().rposition(|(_, table)| table.iter().any(is_pass));
        let count = last.map_or(0, |last| last.saturating_add(1));
        self.shapes.iter().take(count).flat_map(|(_, table)| table.iter()).collect()
    }
}

/// Prefixes of one length, and how many eroutes have each.
type Users<A> = Gradual<(<A as Word>::Kept, u32)>;

/// The prefixes in use on one side, by length, and how many eroutes have each.
struct Prefixes<A: Word> {
    by_length: Vec<(u8, Users<A>)>,
}

impl<A: Word> Default for Prefixes<A> {
    fn default() -> Self {
        Self { by_length: Vec::new() }
    }
}

impl<A: Word> Prefixes<A> {
    fn place(&self, len: u8) -> Result<usize, usize> {
        self.by_length.binary_search_by_key(&len, |(len, _)| *len)
    }

    fn add(&mut self, prefix: A, len: u8, hasher: &RandomState) {
        let at = match self.place(len) {
            Ok(at) => at,
            Err(at) => {
                self.by_length.insert(at, (len, Gradual::default()));
                at
            }
        };
        let Some((_, prefixes)) = self.by_length.get_mut(at) else { return };
        let (hash, kept) = (hasher.hash_one(prefix), prefix.keep());
        match prefixes.find_mut(hash, |(other, _)| *other == kept) {
            Some((_, users)) => *users = users.saturating_add(1),
            None => prefixes.insert(hash, (kept, 1), |(other, _)| hasher.hash_one(A::kept(*other))),
        }
    }

    fn remove(&mut self, prefix: A, len: u8, hasher: &RandomState) {
        let Ok(at) = self.place(len) else { return };
        let Some((_, prefixes)) = self.by_length.get_mut(at) else { return };
        let (hash, kept) = (hasher.hash_one(prefix), prefix.keep());
        let is = |(other, _): &(A::Kept, u32)| *other == kept;
        let Some((_, users)) = prefixes.find_mut(hash, is) else { return };
        *users = users.saturating_sub(1);
        if *users == 0 {
            prefixes.remove(hash, is);
        }
        if prefixes.is_empty() {
            self.by_length.remove(at);
        }
    }

    /// The lengths of the prefixes in use that contain `address`.
    fn above(&self, address: A, hasher: &RandomState) -> Lengths {
        let mut lengths = Lengths::NONE;
        for (len, prefixes) in &self.by_length {
            let prefix = address.prefix(*len);
            let kept = prefix.keep();
            if prefixes.find(hasher.hash_one(prefix), |(other, _)| *other == kept).is_some() {
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
