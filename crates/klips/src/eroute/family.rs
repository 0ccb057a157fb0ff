//! The eroutes of one address family: a tuple space whose tuples are merged (after TupleMerge, Daly and others 2017).
//!
//! Policies have hundreds of shapes, and a probe for each would be hundreds of cache misses. So an eroute is kept by fewer
//! bits than it looks at, by those of a [`Cut`]; those that have these bits in common lie in one cell and are compared one by
//! one. A cell that becomes too large is cut again, by more bits. A handful of cuts serves a million eroutes of mixed masks.

use super::cut;
use super::space::{Shape, Tuple, Word};
use super::{Action, Eroute, ErouteError};
use crate::gradual::Gradual;
use core::cmp::Reverse;
use core::hash::BuildHasher;
use foldhash::fast::RandomState;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// Eroutes in one cell from which on it is cut again, and again whenever it has doubled.
pub(super) const LARGE: usize = 8;

/// Eroutes kept by the same bits of theirs.
struct Cut<A> {
    /// Which bits: each of its eroutes looks at all of them.
    by: Shape,
    /// The same as a mask.
    mask: Tuple<A>,
    /// None of its eroutes has a better shape.
    best: Shape,
    table: Gradual<Arc<Eroute>>,
}

impl<A: Word> Cut<A> {
    fn new(by: Shape) -> Self {
        Self { by, mask: by.leaves(&Tuple::ALL), best: Shape::NOTHING, table: Gradual::default() }
    }
}

/// What is known of all eroutes together.
#[derive(Default)]
struct Counts {
    all: usize,
    /// How many `%pass` there are of each shape.
    passes: BTreeMap<Shape, usize>,
    /// How many have a rank: without any the best shape decides.
    ranked: usize,
}

impl Counts {
    fn note(&mut self, eroute: &Eroute) {
        self.all = self.all.saturating_add(1);
        self.ranked = self.ranked.saturating_add(usize::from(eroute.policy.is_some()));
        if eroute.action == Action::Pass {
            let passes = self.passes.entry(Shape::of(&eroute.selector)).or_default();
            *passes = passes.saturating_add(1);
        }
    }

    fn forget(&mut self, eroute: &Eroute) {
        self.all = self.all.saturating_sub(1);
        self.ranked = self.ranked.saturating_sub(usize::from(eroute.policy.is_some()));
        if eroute.action == Action::Pass
            && let Entry::Occupied(mut passes) = self.passes.entry(Shape::of(&eroute.selector))
        {
            *passes.get_mut() = passes.get().saturating_sub(1);
            if *passes.get() == 0 {
                passes.remove();
            }
        }
    }
}

/// See the module.
pub(super) struct Family<A> {
    /// Of two cuts the one by more bits comes first; an eroute goes to the first that it has all bits for.
    cuts: Vec<Cut<A>>,
    counts: Counts,
    /// Seeded, so that nobody can choose selectors or packets that fall on one place.
    hasher: RandomState,
}

impl<A> Default for Family<A> {
    fn default() -> Self {
        let (cuts, counts, hasher) = Default::default();
        Self { cuts, counts, hasher }
    }
}

/// Whether it is the eroute of this shape and key.
fn is<A: Word>(eroute: &Arc<Eroute>, shape: Shape, key: &Tuple<A>) -> bool {
    Shape::of(&eroute.selector) == shape && Tuple::of(&eroute.selector) == *key
}

impl<A: Word> Family<A> {
    pub(super) const fn len(&self) -> usize {
        self.counts.all
    }

    pub(super) fn add(&mut self, shape: Shape, key: Tuple<A>, eroute: Eroute) -> Result<(), ErouteError> {
        if self.exact(shape, &key).is_some() {
            return Err(ErouteError::Exists);
        }
        self.insert(shape, key, eroute);
        Ok(())
    }

    pub(super) fn replace(&mut self, shape: Shape, key: Tuple<A>, eroute: Eroute) -> Option<Arc<Eroute>> {
        let hasher = &self.hasher;
        let old = self.cuts.iter_mut().filter(|cut| shape.covers(cut.by)).find_map(|cut| {
            cut.table.find_mut(hasher.hash_one(cut.mask.of_both(&key)), |eroute| is(eroute, shape, &key))
        });
        let Some(old) = old else {
            self.insert(shape, key, eroute);
            return None;
        };
        let new = Arc::new(eroute);
        let old = core::mem::replace(old, Arc::clone(&new));
        self.counts.forget(&old);
        self.counts.note(&new);
        Some(old)
    }

    /// Adds an eroute that is not there.
    fn insert(&mut self, shape: Shape, key: Tuple<A>, eroute: Eroute) {
        self.counts.note(&eroute);
        let at = self.place(shape, &key, Arc::new(eroute));
        self.refine(at, &key);
    }

    /// Puts an eroute where it belongs, and says to which cut.
    fn place(&mut self, shape: Shape, key: &Tuple<A>, eroute: Arc<Eroute>) -> usize {
        let at = self.cuts.iter().position(|cut| shape.covers(cut.by)).unwrap_or(self.cuts.len());
        if at == self.cuts.len() {
            self.cuts.push(Cut::new(Shape::NOTHING));
        }
        if let Some(Cut { mask, best, table, .. }) = self.cuts.get_mut(at) {
            let (mask, hasher) = (*mask, &self.hasher);
            let hash_of = |eroute: &Arc<Eroute>| hasher.hash_one(mask.of_both(&Tuple::of(&eroute.selector)));
            table.insert(hasher.hash_one(mask.of_both(key)), eroute, hash_of);
            *best = shape.max(*best);
        }
        at
    }

    /// Cuts the cell in which `key` is, if that has become too large and smaller ones can be made of it.
    fn refine(&mut self, at: usize, key: &Tuple<A>) {
        let Some(cut) = self.cuts.get_mut(at) else { return };
        let (by, mask, cell) = (cut.by, cut.mask, cut.mask.of_both(key));
        let hash = self.hasher.hash_one(cell);
        let inside = |eroute: &Arc<Eroute>| mask.of_both(&Tuple::of(&eroute.selector)) == cell;
        let size = cut.table.all(hash).filter(|eroute| inside(eroute)).count();
        if size < LARGE || !size.is_power_of_two() {
            return;
        }
        let mut members = Vec::with_capacity(size);
        while let Some(eroute) = cut.table.remove(hash, inside) {
            members.push((Shape::of(&eroute.selector), Tuple::of(&eroute.selector), eroute));
        }
        // Some may be older than a cut by more bits, and go there now.
        let stays = |(shape, ..): &&(Shape, Tuple<A>, Arc<Eroute>)| {
            !self.cuts.iter().take(at).any(|cut| shape.covers(cut.by))
        };
        let rest: Vec<_> = members.iter().filter(stays).map(|(shape, key, _)| (*shape, *key)).collect();
        if rest.len().saturating_mul(2) > size
            && let Some(by) = cut::choose(by, &rest)
        {
            self.cuts.insert(at, Cut::new(by));
        }
        for (shape, key, eroute) in members {
            self.place(shape, &key, eroute);
        }
        self.sweep();
    }

    /// A cut without eroutes is a probe for nothing.
    fn sweep(&mut self) {
        self.cuts.retain(|cut| !cut.table.is_empty());
    }

    pub(super) fn delete(&mut self, shape: Shape, key: &Tuple<A>) -> Option<Arc<Eroute>> {
        let hasher = &self.hasher;
        let gone = self.cuts.iter_mut().filter(|cut| shape.covers(cut.by)).find_map(|cut| {
            cut.table.remove(hasher.hash_one(cut.mask.of_both(key)), |eroute| is(eroute, shape, key))
        })?;
        self.sweep();
        self.counts.forget(&gone);
        Some(gone)
    }

    pub(super) fn exact(&self, shape: Shape, key: &Tuple<A>) -> Option<&Arc<Eroute>> {
        self.cuts.iter().filter(|cut| shape.covers(cut.by)).find_map(|cut| {
            cut.table.find(self.hasher.hash_one(cut.mask.of_both(key)), |eroute| is(eroute, shape, key))
        })
    }

    pub(super) fn lookup(&self, packet: &Tuple<A>) -> Option<&Arc<Eroute>> {
        if self.counts.ranked != 0 {
            // Of equals the first stays, which has the better shape.
            return self.matches(packet).into_iter().min_by_key(|eroute| eroute.rank());
        }
        let (mut best, mut found) = (Shape::NOTHING, None);
        for cut in &self.cuts {
            if found.is_some() && best >= cut.best {
                continue;
            }
            for eroute in cut.table.all(self.hasher.hash_one(cut.mask.of_both(packet))) {
                if packet.meets(&eroute.selector) {
                    let shape = Shape::of(&eroute.selector);
                    if found.is_none() || shape > best {
                        (best, found) = (shape, Some(eroute));
                    }
                }
            }
        }
        found
    }

    /// Those that match, the best shape first.
    pub(super) fn matches(&self, packet: &Tuple<A>) -> Vec<&Arc<Eroute>> {
        let mut all = Vec::new();
        for cut in &self.cuts {
            let cell = cut.table.all(self.hasher.hash_one(cut.mask.of_both(packet)));
            all.extend(cell.filter(|eroute| packet.meets(&eroute.selector)));
        }
        all.sort_unstable_by_key(|eroute| Reverse(Shape::of(&eroute.selector)));
        all
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Eroute>> {
        self.cuts.iter().flat_map(|cut| cut.table.iter())
    }

    /// Every eroute, in match order, down to the last shape that has a `%pass`, or to the last `%pass` of those that have ranks.
    pub(super) fn down_to_passes(&self) -> Vec<&Arc<Eroute>> {
        // Nobody looks for what is known not to be there.
        let Some((last, _)) = self.counts.passes.first_key_value() else { return Vec::new() };
        let mut all: Vec<_> = self.all().map(|eroute| (Shape::of(&eroute.selector), eroute)).collect();
        if self.counts.ranked == 0 {
            all.retain(|(shape, _)| shape >= last);
            all.sort_unstable_by_key(|(shape, _)| Reverse(*shape));
        } else {
            all.sort_unstable_by_key(|(shape, eroute)| (eroute.rank(), Reverse(*shape)));
            let last = all.iter().rposition(|(_, eroute)| eroute.action == Action::Pass);
            all.truncate(last.map_or(0, |last| last.saturating_add(1)));
        }
        all.into_iter().map(|(_, eroute)| eroute).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::space::{Place, key};
    use super::*;
    use core::net::Ipv4Addr;
    use ipnet::{IpNet, Ipv4Net};
    use ipsec_core::Selector;

    fn net(address: u32, len: u8) -> IpNet {
        Ipv4Net::new(Ipv4Addr::from_bits(address), len).unwrap().trunc().into()
    }

    fn family(selectors: impl IntoIterator<Item = Selector>) -> Family<u32> {
        let mut family = Family::default();
        for selector in selectors {
            let Some(Place::V4(shape, key)) = key(&selector) else { panic!() };
            let _ = family.add(shape, key, Eroute::new(selector, Action::Drop));
        }
        family
    }

    /// Probes and eroutes compared for the mean packet that one of the eroutes is for.
    fn work(family: &Family<u32>) -> (usize, usize) {
        let compared = |eroute: &Arc<Eroute>| {
            let packet = Tuple::of(&eroute.selector);
            let cell =
                |cut: &Cut<u32>| cut.table.all(family.hasher.hash_one(cut.mask.of_both(&packet))).count();
            family.cuts.iter().map(cell).sum::<usize>()
        };
        (family.cuts.len(), family.all().map(compared).sum::<usize>().div_ceil(family.len()))
    }

    /// A sequence that is the same each time.
    fn numbers() -> impl FnMut(u32) -> u32 {
        let mut state = 1_u64;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 32) as u32).checked_rem(below).unwrap_or((state >> 32) as u32)
        }
    }

    #[test]
    fn mixed_masks_need_few_probes_and_few_comparisons() {
        let mut number = numbers();
        let mut mixed = |sources: &[u8], least: u8| {
            let source = net(number(0), sources[number(sources.len() as u32) as usize]);
            Selector::nets(source, net(number(0), least + number(33 - u32::from(least)) as u8))
        };
        let both = family((0..50_000).map(|_| mixed(&[16, 20, 24, 32], 16)));
        let (probes, compared) = work(&both);
        assert!(probes <= 4 && compared <= 3, "{probes} probes, {compared} compared");
        let hub = family((0..50_000).map(|_| mixed(&[0], 16)));
        let (probes, compared) = work(&hub);
        assert!(probes <= 8 && compared <= 8, "{probes} probes, {compared} compared");
    }

    #[test]
    fn hosts_of_one_network_are_found_by_their_addresses_and_services_by_their_ports() {
        let hosts = |n: u32| Selector::nets(net(0x0a00_0000, 8), net(0x0a00_0000 + n, 32));
        let (probes, compared) = work(&family((0..20_000).map(hosts)));
        assert!(probes <= 2 && compared <= 2, "{probes} probes, {compared} compared");
        let services = |n: u16| Selector { proto: 6, dport: n + 1, ..hosts(1) };
        let (probes, compared) = work(&family((0..20_000).map(services)));
        assert!(probes <= 2 && compared <= 2, "{probes} probes, {compared} compared");
    }

    /// Prefixes that lie in one another cannot be kept apart; they are found all the same, and no cut is made in vain.
    #[test]
    fn what_no_bits_keep_apart_stays_together() {
        let nested =
            (0..=32).flat_map(|src| (0..=32).map(move |dst| Selector::nets(net(7, src), net(9, dst))));
        let nested = family(nested);
        assert_eq!((nested.len(), nested.cuts.len()), (33 * 33, 1));
        let packet = Tuple::of(&Selector::nets(net(7, 32), net(9, 32)));
        assert_eq!(nested.matches(&packet).len(), 33 * 33);
        assert_eq!(nested.lookup(&packet).unwrap().selector.dst.prefix_len(), 32);
    }

    #[test]
    fn a_cut_that_has_become_empty_is_not_probed() {
        let hosts = |n: u32| Selector::nets(net(0, 0), net(n, 32));
        let mut family = family((0..100).map(hosts).chain([Selector::nets(net(0, 0), net(0, 0))]));
        assert_eq!(family.cuts.len(), 2);
        for n in 0..100 {
            let Some(Place::V4(shape, key)) = key(&hosts(n)) else { panic!() };
            assert!(family.delete(shape, &key).is_some());
        }
        assert_eq!((family.cuts.len(), family.len()), (1, 1));
    }
}
