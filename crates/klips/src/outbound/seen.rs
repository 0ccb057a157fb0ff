//! Packets that somebody wants to see, on their way out.

use super::{Outbound, Verdict};
use crate::discard::Discard;
use crate::eroute::Action;
use crate::packet::{Parsed, Vnet};
use crate::sealed::Sealed;
use crate::trace::{Fate, Sighting, Way};
use ipsec_core::Time;
use std::sync::Arc;

impl Outbound {
    /// Takes a packet that is to be seen by itself, so that whatever is counted meanwhile is about it; any other as always.
    #[cold]
    pub(super) fn see(&mut self, vnet: &Vnet, packet: &mut [u8], now: Time, out: &mut Sealed) -> Verdict {
        let plane = Arc::clone(&self.sealer.plane);
        let parsed = Parsed::new(packet).ok();
        let wanted = match &parsed {
            Some(parsed) => plane.trace().wants(Way::Out, &parsed.flow),
            None => plane.trace().wants_unknown(Way::Out, |_| false),
        };
        if !wanted {
            return self.take(vnet, packet, now, out);
        }
        self.finish(now, out);
        let (counted, used) = (self.sealer.counters.all(), out.used());
        let flow = parsed.map(|parsed| parsed.flow);
        let eroute = flow
            .and_then(|flow| plane.eroutes().lookup(&flow).map(|eroute| (eroute.selector, eroute.action)));
        let octets = parsed.map_or(packet.len(), |parsed| parsed.len);
        let verdict = self.take(vnet, packet, now, out);
        self.finish(now, out);
        let saw = |fate| plane.saw(Sighting { at: now, way: Way::Out, flow, octets, eroute, sa: None, fate });
        match verdict {
            Verdict::Keep => saw(Fate::Kept),
            // What was sealed in the end may be less than what was to be.
            Verdict::Send if out.used() > used => match eroute {
                Some((_, Action::Pass)) => saw(Fate::Passed),
                _ => saw(Fate::Protected),
            },
            Verdict::Send | Verdict::Answer(_) | Verdict::Discard(_) => {}
        }
        for ((why, before), after) in Discard::ALL.iter().zip(counted).zip(self.sealer.counters.all()) {
            let more = after.wrapping_sub(before);
            if more > 0 {
                saw(Fate::Refused(*why, more));
            }
        }
        verdict
    }
}
