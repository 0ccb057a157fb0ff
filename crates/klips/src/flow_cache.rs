//! What a worker remembers of the flows it carried last: the eroute that decides and the bundle it names.
//!
//! Direct-mapped and bounded. When the policy changes, the flows are forgotten that the change touches
//! ([`Plane::changes_since`]); an SA that died is looked up again; that an SA was *missing* is never remembered, so a new one is found at once.

use crate::bundle::Bundle;
use crate::eroute::Eroute;
use crate::plane::Plane;
use core::hash::{BuildHasher, Hash, Hasher};
use core::net::IpAddr;
use foldhash::fast::RandomState;
use ipsec_core::Flow;
use std::sync::Arc;

/// Flows remembered: a power of two.
const SLOTS: usize = 4096;

/// One flow.
struct Entry {
    flow: Flow,
    eroute: Arc<Eroute>,
    bundle: Option<Bundle>,
}

/// The cache of one worker.
pub(crate) struct FlowCache {
    slots: Box<[Option<Entry>]>,
    generation: u64,
    hasher: RandomState,
}

impl Default for FlowCache {
    fn default() -> Self {
        let slots = core::iter::repeat_with(|| None).take(SLOTS).collect();
        Self { slots, generation: 0, hasher: RandomState::default() }
    }
}

impl FlowCache {
    /// Forgets what the policy may say otherwise by now.
    #[inline]
    pub(crate) fn renew(&mut self, plane: &Plane) {
        if self.generation != plane.generation() {
            self.forget_changed(plane);
        }
    }

    #[cold]
    fn forget_changed(&mut self, plane: &Plane) {
        let slots = &mut self.slots;
        self.generation = plane.changes_since(self.generation, |change| {
            for slot in &mut *slots {
                slot.take_if(|entry| change.touches(&entry.flow));
            }
        });
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
    pub(crate) fn get(&self, flow: &Flow) -> Option<(&Arc<Eroute>, Option<&Bundle>)> {
        let entry = self.slots.get(self.slot(flow))?.as_ref()?;
        if entry.flow != *flow || entry.bundle.as_ref().is_some_and(|bundle| !bundle.is_alive()) {
            return None;
        }
        Some((&entry.eroute, entry.bundle.as_ref()))
    }

    /// Remembers a flow in the place of the one that was there.
    pub(crate) fn put(&mut self, flow: Flow, eroute: Arc<Eroute>, bundle: Option<Bundle>) {
        let slot = self.slot(&flow);
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = Some(Entry { flow, eroute, bundle });
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
        let known = |cache: &FlowCache| [1, 2, 3].map(|host| cache.get(&flow(host)).is_some());
        fill(&mut cache, &plane);
        let [_, before, _] = known(&cache);
        plane.change_eroute(selector(1), |eroutes| eroutes.replace(Eroute::new(selector(1), Action::Drop)));
        plane.change_eroute(selector(3), |eroutes| eroutes.replace(Eroute::new(selector(3), Action::Drop)));
        cache.renew(&plane);
        assert_eq!(known(&cache), [false, before, false]);

        fill(&mut cache, &plane);
        drop(plane.change_eroutes(crate::Eroutes::clear));
        cache.renew(&plane);
        assert_eq!(known(&cache), [false; 3]);

        // More changes than are remembered are a change of everything.
        fill(&mut cache, &plane);
        for _ in 0..=20 {
            plane.change_eroute(selector(9), |eroutes| {
                eroutes.replace(Eroute::new(selector(9), Action::Drop))
            });
        }
        cache.renew(&plane);
        assert_eq!(known(&cache), [false; 3]);
    }
}
