//! Eroutes: the ordered policy (RFC 4301 §4.4.1).

use core::sync::atomic::{AtomicU64, Ordering};
use ipsec_core::{Flow, SaId, Selector, Time};
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

    /// Counts `n` packets matched at once.
    pub(crate) fn count(&self, n: u64, now: Time) {
        self.packets.fetch_add(n, Ordering::Relaxed);
        self.last_use.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Packets matched so far.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }
}

/// All eroutes, searchable in match order.
#[derive(Default)]
pub struct Eroutes {}

/// An eroute with this selector exists, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErouteError {
    /// Add: one with exactly this selector is there already.
    Exists,
    /// Delete: none has exactly this selector.
    Missing,
}

impl Eroutes {
    /// Adds an eroute whose selector is not there yet.
    pub fn add(&mut self, _eroute: Eroute) -> Result<(), ErouteError> {
        Err(ErouteError::Exists)
    }

    /// Puts an eroute in the place of the one with the same selector, if any: an upsert, without a gap.
    pub fn replace(&mut self, _eroute: Eroute) {}

    /// Removes the eroute with exactly this selector.
    pub fn delete(&mut self, _selector: &Selector) -> Result<Arc<Eroute>, ErouteError> {
        Err(ErouteError::Missing)
    }

    /// Removes all.
    pub fn clear(&mut self) {}

    /// How many there are.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The eroute that decides about `flow` (design.md §2.4): the longest source prefix, then destination prefix, then
    /// with protocol, source port, destination port set.
    pub fn lookup(&self, _flow: &Flow) -> Option<&Arc<Eroute>> {
        None
    }

    /// All of them in table order: family, source, destination, protocol, ports.
    pub fn list(&self) -> Vec<Arc<Eroute>> {
        Vec::new()
    }
}
