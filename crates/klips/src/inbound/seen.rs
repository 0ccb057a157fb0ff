//! Packets that somebody wants to see, on their way in.

use super::Inbound;
use crate::discard::Discard;
use crate::packet::Parsed;
use crate::sa::Sa;
use crate::trace::{Fate, Sighting, Way};
use ipsec_core::{SaId, Selector};

impl Inbound {
    /// A packet was let in that came on `sa`.
    #[inline]
    pub(super) fn saw(&self, sa: &Sa, packet: Option<&Parsed>) {
        if self.watched.is_some() {
            self.say(Some(sa.id), packet, Fate::Delivered);
        }
    }

    /// Refuses a packet that is known for what it is.
    pub(super) fn refuse_seen(&self, sa: &Sa, why: Discard, packet: Option<&Parsed>) {
        match packet {
            Some(_) => {
                self.refuse(why, 1);
                sa.refuse(why, 1);
                self.say(Some(sa.id), packet, Fate::Refused(why, 1));
            }
            None => self.refuse_of(sa, why, 1),
        }
    }

    /// Packets of an SA were refused before it could be seen what they are.
    #[inline]
    pub(super) fn saw_refused(&self, sa: &Sa, why: Discard, n: usize) {
        if self.watched.is_some() {
            let carries = |wanted: &Selector| {
                let meets = |own: &Selector| overlap(own, wanted) || overlap(own, &wanted.reversed());
                sa.selector.is_none() || sa.selectors().any(meets)
            };
            if self.plane.trace().wants_unknown(Way::In, carries) {
                self.put(Some(sa.id), None, Fate::Refused(why, n as u64));
            }
        }
    }

    /// Packets that name no SA, or one that cannot take them, were refused.
    #[inline]
    pub(super) fn saw_unknown(&self, id: SaId, why: Discard, n: usize) {
        if self.watched.is_some() && self.plane.trace().wants_unknown(Way::In, |_| false) {
            self.put(Some(id), None, Fate::Refused(why, n as u64));
        }
    }

    #[cold]
    fn say(&self, sa: Option<SaId>, packet: Option<&Parsed>, fate: Fate) {
        if packet.is_some_and(|packet| self.plane.trace().wants(Way::In, &packet.flow)) {
            self.put(sa, packet, fate);
        }
    }

    fn put(&self, sa: Option<SaId>, packet: Option<&Parsed>, fate: Fate) {
        let Some(at) = self.watched else { return };
        let (flow, octets) = (packet.map(|packet| packet.flow), packet.map_or(0, |packet| packet.len));
        self.plane.saw(Sighting { at, way: Way::In, flow, octets, eroute: None, sa, fate });
    }
}

/// Whether there are packets that both match, as far as addresses say.
fn overlap(a: &Selector, b: &Selector) -> bool {
    (a.src.contains(&b.src) || b.src.contains(&a.src)) && (a.dst.contains(&b.dst) || b.dst.contains(&a.dst))
}
