//! Packets that wait for a key manager: what an outbound engine met at `%trap`, and how it gets it back.
//!
//! Invariant: whatever waits, and for whom, is bounded, in packets and in octets; the rest is dropped and counted where it
//! would have been kept.

use crate::eroute::Eroute;
use crate::packet::Vnet;
use crate::sa::Sa;
use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use parking_lot::Mutex;
use std::sync::Arc;

/// Packets on their way from workers to control.
const PACKETS: usize = 64;
/// Octets of them.
const OCTETS: usize = 1 << 20;

/// A packet or superpacket as it came from the device. Dropping it drops the packet: whoever does counts it.
pub(crate) struct Held {
    pub(crate) vnet: Vnet,
    pub(crate) packet: Box<[u8]>,
    home: Arc<Home>,
}

impl Held {
    pub(crate) fn new(vnet: Vnet, packet: Box<[u8]>, home: Arc<Home>) -> Self {
        Self { vnet, packet, home }
    }

    /// Sends it back to the engine it came from, which lets it go through `sa`.
    pub(crate) fn release(self, sa: &Arc<Sa>) {
        let home = Arc::clone(&self.home);
        home.packets.lock().push((self, Arc::clone(sa)));
        home.ready.store(true, Ordering::Release);
    }
}

/// Where packets come back to; one for each outbound engine. No more come back than were given away.
#[derive(Default)]
pub(crate) struct Home {
    ready: AtomicBool,
    packets: Mutex<Vec<(Held, Arc<Sa>)>>,
}

impl Home {
    /// Whether something has come back.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// What has come back, in its order.
    pub(crate) fn take(&self) -> Vec<(Held, Arc<Sa>)> {
        self.ready.store(false, Ordering::Relaxed);
        core::mem::take(&mut *self.packets.lock())
    }
}

/// A packet that met `%trap`.
pub(crate) struct Trapped {
    pub(crate) eroute: Arc<Eroute>,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) held: Held,
}

/// What workers have trapped and control has not looked at.
#[derive(Default)]
pub(crate) struct Traps {
    queue: Mutex<(Vec<Trapped>, usize)>,
}

impl Traps {
    /// Whether it was taken.
    pub(crate) fn push(&self, trapped: Trapped) -> bool {
        let (list, octets) = &mut *self.queue.lock();
        let more = octets.saturating_add(trapped.held.packet.len());
        if list.len() >= PACKETS || more > OCTETS {
            return false;
        }
        *octets = more;
        list.push(trapped);
        true
    }

    pub(crate) fn take(&self) -> Vec<Trapped> {
        core::mem::take(&mut *self.queue.lock()).0
    }
}
