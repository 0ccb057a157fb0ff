//! What hides how long packets are, and when there are any: TFC padding and dummy packets (RFC 4303 §2.7, §2.6).
//!
//! Both are for tunnel mode: there the length of the packet inside says where padding begins. An SA that hides goes the
//! general way out ([`crate::bundle::Bundle`]), so that those that do not pay nothing for it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use pfkey::Tfc;

/// What an SA hides, and what that has cost so far.
#[derive(Debug, Default)]
pub(crate) struct Hiding {
    pad: AtomicU32,
    dummies: AtomicU32,
    padding: AtomicU64,
    sent: AtomicU64,
}

impl Hiding {
    /// Sets what is hidden; before packets come.
    pub(crate) fn set(&self, tfc: Tfc) {
        self.pad.store(tfc.pad, Ordering::Relaxed);
        self.dummies.store(tfc.dummies, Ordering::Relaxed);
    }

    /// What was asked for.
    pub(crate) fn asked(&self) -> Tfc {
        Tfc { pad: self.pad.load(Ordering::Relaxed), dummies: self.dummies.load(Ordering::Relaxed) }
    }

    /// Octets that inner packets are padded to, if the path carries so much; 0 for none.
    pub(crate) fn pad(&self) -> usize {
        usize::try_from(self.pad.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// From one dummy packet to the next.
    pub(crate) fn interval(&self) -> Option<Duration> {
        let every = self.dummies.load(Ordering::Relaxed);
        (every != 0).then(|| Duration::from_millis(every.into()))
    }

    /// Counts octets of padding.
    pub(crate) fn count_padding(&self, octets: usize) {
        self.padding.fetch_add(octets as u64, Ordering::Relaxed);
    }

    /// Counts a dummy packet.
    pub(crate) fn count_dummy(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Octets of padding sent, those of dummy packets not among them, and dummy packets.
    pub(crate) fn sent(&self) -> (u64, u64) {
        (self.padding.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }
}
