//! Packets that are ahead of the keys of their SA: a peer sends on a new pair of SAs as it answers (RFC 7296 §1.2), and the
//! key manager has yet to read that answer.
//!
//! An SPI that GETSPI has handed out is a *larva* until UPDATE brings its keys. Packets that name one wait with the engine that
//! received them, as they came; nothing in them has been looked at but the SPI. When the keys are there they take the way of
//! all packets, from its beginning.
//!
//! Whoever sends here without being the peer must know an SPI that so far only IKE has carried, encrypted, and the peer's address, and
//! in time: he could displace packets that without this would be lost for certain. So what came first stays, and all of it is
//! bounded: for each larva, in number, octets and age. What does not get in, or out again in time, is [`Discard::Early`].

use crate::arrival::Arrival;
use crate::discard::Discard;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use ipsec_core::{SaId, Time};
use std::collections::VecDeque;

/// Names that wait for their keys, for control and workers.
#[derive(Default)]
pub(crate) struct Larvae {
    /// The address that packets for each come from.
    sources: papaya::HashMap<SaId, IpAddr, foldhash::quality::RandomState>,
    /// How many have got keys.
    hatched: AtomicU64,
}

impl Larvae {
    /// GETSPI has handed this out.
    pub(crate) fn add(&self, id: SaId, src: IpAddr) {
        self.sources.pin().insert(id, src);
    }

    /// Its SA is in use by now, or will never be.
    pub(crate) fn remove(&self, id: &SaId) {
        // In this order: who does not find it any more knows by then that an SA has come.
        self.hatched.fetch_add(1, Ordering::Release);
        self.sources.pin().remove(id);
    }

    /// Whether packets from there may be ahead of the keys.
    #[cold]
    pub(crate) fn expect(&self, id: &SaId, src: IpAddr) -> bool {
        self.sources.pin().get(id).is_some_and(|named| named.is_unspecified() || *named == src)
    }

    /// Whether one got its keys since last asked: an SA that was not there a moment ago may be there now.
    pub(crate) fn have_hatched(&self, seen: &mut u64) -> bool {
        let now = self.hatched.load(Ordering::Acquire);
        core::mem::replace(seen, now) != now
    }
}

/// A packet that waits.
struct Waiting {
    id: SaId,
    arrival: Arrival,
    /// Its IP header, where there is one, and what it carries.
    octets: Box<[u8]>,
    since: Time,
}

/// What one engine has received too early, in the order it came.
#[derive(Default)]
pub(crate) struct Early {
    waiting: VecDeque<Waiting>,
    octets: usize,
}

impl Early {
    /// Packets for one larva: a hundredth of a second of a busy one.
    pub(crate) const OF_ONE: usize = 64;
    /// Packets for all of them.
    pub(crate) const PACKETS: usize = 256;
    /// Octets of these.
    pub(crate) const OCTETS: usize = 1 << 19;
    /// How long one is worth waiting for. Keys are a moment behind, or the exchange that was to bring them has failed.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Keeps a packet with the IP header before it, if there is room for it.
    pub(crate) fn keep(
        &mut self,
        id: SaId,
        (arrival, header): (&Arrival, &[u8]),
        packet: &[u8],
        now: Time,
    ) -> Result<(), Discard> {
        let more = self.octets.saturating_add(header.len()).saturating_add(packet.len());
        let of_one = self.waiting.iter().filter(|other| other.id == id).count();
        if of_one >= Self::OF_ONE || self.waiting.len() >= Self::PACKETS || more > Self::OCTETS {
            return Err(Discard::Early);
        }
        self.octets = more;
        let octets = [header, packet].concat().into();
        self.waiting.push_back(Waiting { id, arrival: *arrival, octets, since: now });
        Ok(())
    }

    /// Takes the first packet out of those whose SA is there, writes it to `room`, and says how long it is there. Of the
    /// others, those that nothing will come of go: how many.
    pub(crate) fn next(
        &mut self,
        room: &mut [u8],
        now: Time,
        fate: impl Fn(&SaId, &Arrival) -> Fate,
    ) -> (Option<(Arrival, usize)>, usize) {
        let mut gone = 0_usize;
        let mut at = 0;
        while let Some(packet) = self.waiting.get(at) {
            let fate = if now.since(packet.since) > Self::PATIENCE {
                Fate::Gone
            } else {
                fate(&packet.id, &packet.arrival)
            };
            if fate == Fate::Waits {
                at = at.saturating_add(1);
                continue;
            }
            let Some(packet) = self.waiting.remove(at) else { break };
            self.octets = self.octets.saturating_sub(packet.octets.len());
            let len = packet.octets.len();
            match room.get_mut(..len).filter(|_| fate == Fate::Ripe) {
                Some(place) => {
                    place.copy_from_slice(&packet.octets);
                    return (Some((packet.arrival, len)), gone);
                }
                None => gone = gone.saturating_add(1),
            }
        }
        (None, gone)
    }
}

/// What becomes of a packet that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its SA is there.
    Ripe,
    /// Its SA may come.
    Waits,
    /// Its SA will not come.
    Gone,
}
