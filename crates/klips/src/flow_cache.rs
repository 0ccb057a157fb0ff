//! What a worker remembers of the flows it carried last: the eroute that decides and the bundle it names.
//!
//! Direct-mapped and bounded. When the policy changes, a flow is held against the changes since it was last seen, the next time
//! it comes, and forgotten if one touches it: a change costs the packets of the flows it is about, and no others. An SA that
//! died is looked up again; that an SA was *missing* is never remembered, so a new one is found at once.

use crate::bundle::Bundle;
use crate::eroute::{Change, Eroute};
use crate::plane::Plane;
use core::hash::{BuildHasher, Hash, Hasher};
use core::net::IpAddr;
use foldhash::fast::RandomState;
use ipsec_core::Flow;
use std::collections::VecDeque;
use std::sync::Arc;

/// Flows remembered: a power of two.
const SLOTS: usize = 4096;

/// One flow.
#[derive(Debug)]
struct Entry {
    flow: Flow,
    eroute: Arc<Eroute>,
    bundle: Option<Bundle>,
    /// The policy it was last held against.
    generation: u64,
}

/// The cache of one worker.
#[derive(Debug)]
pub struct FlowCache {
    slots: Box<[Option<Entry>]>,
    /// The policy the engine goes by.
    generation: u64,
    /// The changes that made it, the last one last.
    changes: VecDeque<Change>,
    hasher: RandomState,
}

impl Default for FlowCache {
    fn default() -> Self {
        let slots = core::iter::repeat_with(|| None).take(SLOTS).collect();
        Self { slots, generation: 0, changes: VecDeque::new(), hasher: RandomState::default() }
    }
}

/// Whether no change since an entry was last held against the policy touches its flow.
#[cold]
fn still_holds(entry: &Entry, generation: u64, changes: &VecDeque<Change>) -> bool {
    let missed = usize::try_from(generation.saturating_sub(entry.generation)).unwrap_or(usize::MAX);
    missed <= changes.len() && !changes.iter().rev().take(missed).any(|change| change.touches(&entry.flow))
}

impl FlowCache {
    /// Hears what the policy may say otherwise by now.
    #[inline]
    pub(crate) fn renew(&mut self, plane: &Plane) {
        if self.generation != plane.generation() {
            self.generation = plane.changes_since(self.generation, &mut self.changes);
        }
    }

    /// Looks a flow up as an engine does, and remembers it; says whether an eroute decides. What a lookup costs is measured
    /// by this.
    #[doc(hidden)]
    pub fn decides(&mut self, plane: &Plane, flow: &Flow) -> bool {
        self.renew(plane);
        if self.get(flow).is_some() {
            return true;
        }
        let found = plane.eroutes().lookup(flow).cloned();
        found.map(|eroute| self.put(*flow, eroute, None)).is_some()
    }

    /// Lets go of SAs that have died.
    pub(crate) fn forget_dead(&mut self) {
        for slot in &mut self.slots {
            slot.take_if(|entry| entry.bundle.as_ref().is_some_and(|bundle| !bundle.is_alive()));
        }
    }

    /// Seeded, so that nobody can choose flows that fall on one slot.
    #[inline]
    fn slot(&self, flow: &Flow) -> usize {
        let mut hasher = self.hasher.build_hasher();
        match (flow.src, flow.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                hasher.write_u64(u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()));
            }
            (src, dst) => (src, dst).hash(&mut hasher),
        }
        hasher.write_u64(u64::from(flow.proto) << 32 | u64::from(flow.sport) << 16 | u64::from(flow.dport));
        (hasher.finish() as usize) & (SLOTS.saturating_sub(1))
    }

    /// What is remembered of a flow, if it still holds.
    #[inline]
    pub(crate) fn get(&mut self, flow: &Flow) -> Option<(&Arc<Eroute>, Option<&Bundle>)> {
        let slot = self.slot(flow);
        let entry = self.slots.get_mut(slot)?.as_mut()?;
        if entry.flow != *flow || entry.bundle.as_ref().is_some_and(|bundle| !bundle.is_alive()) {
            return None;
        }
        if entry.generation != self.generation {
            if !still_holds(entry, self.generation, &self.changes) {
                return None;
            }
            entry.generation = self.generation;
        }
        Some((&entry.eroute, entry.bundle.as_ref()))
    }

    /// Remembers a flow in the place of the one that was there.
    pub(crate) fn put(&mut self, flow: Flow, eroute: Arc<Eroute>, bundle: Option<Bundle>) {
        let slot = self.slot(&flow);
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = Some(Entry { flow, eroute, bundle, generation: self.generation });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eroute::Action;
    use ipsec_core::Selector;

    fn flow(host: u8) -> Flow {
        let src = IpAddr::from([10, 1, 0, host]);
        Flow { src, dst: IpAddr::from([10, 2, 0, 1]), proto: 17, sport: 1, dport: 2 }
    }

    fn selector(host: u8) -> Selector {
        Selector::nets(format!("10.1.0.{host}/32").parse().unwrap(), "10.2.0.0/16".parse().unwrap())
    }

    #[test]
    fn a_change_of_policy_forgets_the_flows_it_touches_and_no_other() {
        let (plane, mut cache) = (Plane::default(), FlowCache::default());
        let fill = |cache: &mut FlowCache, plane: &Plane| {
            cache.renew(plane);
            for host in 1..=3 {
                cache.put(flow(host), Arc::new(Eroute::new(selector(host), Action::Pass)), None);
            }
        };
        // Whether a flow is known; three flows may fall on one slot.
        let known = |cache: &mut FlowCache| [1, 2, 3].map(|host| cache.get(&flow(host)).is_some());
        fill(&mut cache, &plane);
        let [_, before, _] = known(&mut cache);
        plane.change_eroute(selector(1), |eroutes| {
            drop(eroutes.replace(Eroute::new(selector(1), Action::Drop)))
        });
        plane.change_eroute(selector(3), |eroutes| {
            drop(eroutes.replace(Eroute::new(selector(3), Action::Drop)))
        });
        cache.renew(&plane);
        assert_eq!(known(&mut cache), [false, before, false]);

        fill(&mut cache, &plane);
        drop(plane.change_eroutes(crate::Eroutes::clear));
        cache.renew(&plane);
        assert_eq!(known(&mut cache), [false; 3]);

        // More changes than are remembered are a change of everything.
        fill(&mut cache, &plane);
        for _ in 0..=Plane::CHANGES {
            plane.change_eroute(selector(9), |eroutes| {
                drop(eroutes.replace(Eroute::new(selector(9), Action::Drop)));
            });
        }
        cache.renew(&plane);
        assert_eq!(known(&mut cache), [false; 3]);
    }

    #[test]
    fn a_flow_that_is_seen_between_changes_that_do_not_touch_it_is_never_looked_up_again() {
        let (plane, mut cache) = (Plane::default(), FlowCache::default());
        cache.renew(&plane);
        cache.put(flow(1), Arc::new(Eroute::new(selector(1), Action::Pass)), None);
        let change = |host| {
            let eroute = Eroute::new(selector(host), Action::Drop);
            drop(plane.change_eroute(selector(host), |eroutes| eroutes.replace(eroute)));
        };
        for _ in 0..3 {
            for _ in 0..Plane::CHANGES {
                change(9);
            }
            cache.renew(&plane);
            assert!(cache.get(&flow(1)).is_some());
        }
        // The change that touches it is the oldest of those it has missed.
        change(1);
        for _ in 1..Plane::CHANGES {
            change(9);
            cache.renew(&plane);
        }
        assert!(cache.get(&flow(1)).is_none());
    }
}
