//! What a worker remembers of the flows it carried last: the eroute that decides and the SA it names.
//!
//! Direct-mapped and bounded. Everything in it is forgotten when the policy changes ([`Plane::generation`]); an SA that
//! died is looked up again; that an SA was *missing* is never remembered, so a new one is found at once.

use crate::eroute::Eroute;
use crate::sa::Sa;
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
    sa: Option<Arc<Sa>>,
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
    /// Forgets everything if the policy is not the one it was filled under. The keys of SAs that are gone go with it.
    pub(crate) fn renew(&mut self, generation: u64) {
        if self.generation != generation {
            self.slots.fill_with(|| None);
            self.generation = generation;
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
    pub(crate) fn get(&self, flow: &Flow) -> Option<(&Arc<Eroute>, Option<&Arc<Sa>>)> {
        let entry = self.slots.get(self.slot(flow))?.as_ref()?;
        if entry.flow != *flow || entry.sa.as_ref().is_some_and(|sa| !sa.is_alive()) {
            return None;
        }
        Some((&entry.eroute, entry.sa.as_ref()))
    }

    /// Remembers a flow in the place of the one that was there.
    pub(crate) fn put(&mut self, flow: Flow, eroute: Arc<Eroute>, sa: Option<Arc<Sa>>) {
        let slot = self.slot(&flow);
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = Some(Entry { flow, eroute, sa });
        }
    }
}
