//! Packets that wait for a key manager: what an outbound engine met at `%trap`, and how it gets it back.
//!
//! Invariant: whatever waits, and for whom, is bounded, in packets and in octets; the rest is dropped and counted where it
//! would have been kept.

use crate::packet::Vnet;
use crate::sa::Sa;
use core::sync::atomic::{AtomicBool, Ordering};
use ipsec_core::Flow;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// Packets on their way from workers to control.
const PACKETS: usize = 64;
/// Octets of them.
const OCTETS: usize = 1 << 20;

/// A packet or superpacket as it came from the device. Dropping it drops the packet: whoever does counts it.
pub(crate) struct Held {
    pub(crate) vnet: Vnet,
    pub(crate) packet: Box<[u8]>,
    pub(crate) flow: Flow,
    /// Weak: an engine that ends takes with it what came back to it, and the SAs, so the keys, that this would hold on to.
    home: Weak<Home>,
}

impl Held {
    pub(crate) fn new(vnet: Vnet, packet: Box<[u8]>, flow: Flow, home: &Arc<Home>) -> Self {
        Self { vnet, packet, flow, home: Arc::downgrade(home) }
    }

    /// Sends it back to the engine it came from, with the SA that was found for it if it is not policy that has changed.
    /// Says whether that engine is still there.
    #[must_use]
    pub(crate) fn release(self, sa: Option<Arc<Sa>>) -> bool {
        let Some(home) = self.home.upgrade() else { return false };
        let mut packets = home.packets.lock();
        let Some(packets) = packets.as_mut() else { return false };
        packets.push_back(Returned { vnet: self.vnet, packet: self.packet, sa });
        home.ready.store(true, Ordering::Release);
        true
    }
}

/// A packet that has come back.
pub(crate) struct Returned {
    pub(crate) vnet: Vnet,
    pub(crate) packet: Box<[u8]>,
    /// What it goes through while policy still says that it needs an SA.
    pub(crate) sa: Option<Arc<Sa>>,
}

/// Where packets come back to; one for each outbound engine. No more come back than were given away.
pub(crate) struct Home {
    ready: AtomicBool,
    /// `None` once the engine is gone.
    packets: Mutex<Option<VecDeque<Returned>>>,
}

impl Default for Home {
    fn default() -> Self {
        Self { ready: AtomicBool::new(false), packets: Mutex::new(Some(VecDeque::new())) }
    }
}

impl Home {
    /// The next of what has come back, in its order.
    pub(crate) fn next(&self) -> Option<Returned> {
        if !self.is_ready() {
            return None;
        }
        let mut packets = self.packets.lock();
        let next = packets.as_mut().and_then(VecDeque::pop_front);
        // Under the lock, so that what comes back now is not overlooked.
        self.ready.store(packets.as_ref().is_some_and(|packets| !packets.is_empty()), Ordering::Relaxed);
        next
    }

    /// Whether something has come back.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// The engine ends: how many packets it leaves.
    pub(crate) fn close(&self) -> usize {
        self.packets.lock().take().map_or(0, |packets| packets.len())
    }
}

/// What workers have trapped and control has not looked at.
#[derive(Default)]
pub(crate) struct Traps {
    queue: Mutex<(Vec<Held>, usize)>,
}

impl Traps {
    /// Whether a packet of `len` octets would be taken now.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        let (list, octets) = &*self.queue.lock();
        list.len() < PACKETS && octets.saturating_add(len) <= OCTETS
    }

    /// Whether it was taken.
    pub(crate) fn push(&self, held: Held) -> bool {
        let (list, octets) = &mut *self.queue.lock();
        let more = octets.saturating_add(held.packet.len());
        if list.len() >= PACKETS || more > OCTETS {
            return false;
        }
        *octets = more;
        list.push(held);
        true
    }

    pub(crate) fn take(&self) -> Vec<Held> {
        core::mem::take(&mut *self.queue.lock()).0
    }
}
