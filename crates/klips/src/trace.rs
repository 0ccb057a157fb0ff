//! Packets that somebody wants to see: what the engines say of them while they are asked to, and nothing otherwise.
//!
//! Off, it costs one relaxed load a batch. On, what is seen lies in one bounded list until control takes it; what finds no room
//! is counted.

use crate::discard::Discard;
use crate::eroute::Action;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ipsec_core::{Flow, SaId, Selector, Time};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;

/// Sightings that wait to be taken.
const WAITING: usize = 4096;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the device to the wire.
    Out,
    /// From the wire to the device.
    In,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Out: it was protected and handed to the kernel.
    Protected,
    /// Out: it went as it was (`%pass`).
    Passed,
    /// Out: it waits for an SA.
    Kept,
    /// In: it was let in.
    Delivered,
    /// So many packets were refused; those of a superpacket may meet different fates.
    Refused(Discard, u64),
}

/// One packet or superpacket, as an engine saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When.
    pub at: Time,
    /// Which way it went.
    pub way: Way,
    /// What it is to policy; `None` where it was refused before that could be known.
    pub flow: Option<Flow>,
    /// Its length inside; of a superpacket, all of it.
    pub octets: usize,
    /// Out: the eroute that decided.
    pub eroute: Option<(Selector, Action)>,
    /// In: the SA that it came on, or named.
    pub sa: Option<SaId>,
    /// What became of it.
    pub fate: Fate,
}

/// What is to be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All that goes out.
    pub out: bool,
    /// All that comes in.
    pub inward: bool,
    /// What these match, whichever way it goes; and refusals of SAs that may carry it.
    pub flows: Vec<Selector>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    on: AtomicBool,
    wanted: RwLock<Wanted>,
    seen: Mutex<VecDeque<Sighting>>,
    missed: AtomicU64,
}

impl Wanted {
    fn is_nothing(&self) -> bool {
        !self.out && !self.inward && self.flows.is_empty()
    }

    fn all(&self, way: Way) -> bool {
        match way {
            Way::Out => self.out,
            Way::In => self.inward,
        }
    }

    fn flow(&self, flow: &Flow) -> bool {
        self.flows.iter().any(|wanted| wanted.matches(flow) || wanted.reversed().matches(flow))
    }
}

impl Trace {
    /// Whether anybody wants to see anything.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(crate) fn want(&self, wanted: Wanted) {
        self.on.store(!wanted.is_nothing(), Ordering::Relaxed);
        *self.wanted.write() = wanted;
    }

    /// Whether packets of this flow are to be seen.
    pub(crate) fn wants(&self, way: Way, flow: &Flow) -> bool {
        let wanted = self.wanted.read();
        wanted.all(way) || wanted.flow(flow)
    }

    /// Whether refusals are to be seen of what shows no flow: `may_carry` says which flows its SA could have carried.
    pub(crate) fn wants_unknown(&self, way: Way, may_carry: impl Fn(&Selector) -> bool) -> bool {
        let wanted = self.wanted.read();
        wanted.all(way) || wanted.flows.iter().any(may_carry)
    }

    pub(crate) fn put(&self, sighting: Sighting) {
        let mut seen = self.seen.lock();
        if seen.len() < WAITING {
            seen.push_back(sighting);
        } else {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was seen since last asked, and how much found no room.
    pub(crate) fn take(&self) -> (VecDeque<Sighting>, u64) {
        let seen = core::mem::take(&mut *self.seen.lock());
        (seen, self.missed.swap(0, Ordering::Relaxed))
    }
}
