//! The outbound path: device → eroute → bundle → sealed run (RFC 4301 §5.1).
//!
//! Reads top to bottom as the path itself, for one packet or one superpacket of up to 64 KiB: parsed once, looked up once,
//! and then passed on, told no, kept, or protected: what is here decides, [`seal`] protects the fast way and [`wrap`] the
//! general one. Every refusal is counted once, as the [`Discard`] it is.

mod seal;
mod seen;
mod wrap;

use crate::bundle::Bundle;
use crate::discard::{Counters, Discard};
use crate::eroute::{Action, Eroute};
use crate::flow_cache::FlowCache;
use crate::gso::Cut;
use crate::hold::{Held, Home, Returned};
use crate::icmp::{self, LONGEST, Limiter, Trouble};
use crate::packet::{Gso, Parsed, Vnet};
use crate::plane::Plane;
use crate::route::Route;
use crate::sa::Sa;
use crate::sealed::Sealed;
use core::net::{Ipv4Addr, Ipv6Addr};
use ipsec_core::{SaId, Time};
use seal::Sealer;
use std::sync::Arc;

/// What became of one packet read from the device.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To be sealed by [`Outbound::finish`], or let through by `%pass`: it is in a run, or will be.
    Send,
    /// Refused and counted; the sender is told by an ICMP packet that is in a [`Route::Back`] run.
    Answer(Discard),
    /// Kept until a key manager has found it an SA or given up; it comes back by [`Outbound::returned`], or is counted then.
    Keep,
    /// Refused and counted.
    Discard(Discard),
}

/// What the outbound path must know of the link below and the device above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// MTU of the physical interface, outer IP header included.
    pub mtu: usize,
    /// Source of our ICMP answers, IPv4; the destination of the packet they are about if `None`. A host takes an answer
    /// from one of its own addresses for a martian (RFC 1812 §5.3.7) and never hears it.
    pub icmp_source4: Option<Ipv4Addr>,
    /// Source of our ICMP answers, IPv6; likewise.
    pub icmp_source6: Option<Ipv6Addr>,
    /// `hidetos=yes`: the outer DSCP is 0 rather than a copy of the inner.
    pub hide_tos: bool,
    /// `fragicmp=yes`: a packet that is too big and must not be fragmented is refused and its sender told. Otherwise
    /// it is protected and the outer packet is fragmented.
    pub frag_icmp: bool,
    /// `copydf=yes`: the outer IPv4 packet must not be fragmented where the inner must not (RFC 4301 §8.1), so that routers
    /// say what they can carry. Otherwise they fragment it, as KLIPS had it.
    pub copy_df: bool,
}

/// One worker's outbound engine.
pub struct Outbound {
    cache: FlowCache,
    answers: Limiter,
    /// Where packets that met `%trap` come back to.
    home: Arc<Home>,
    sealer: Sealer,
    /// Somebody wants to see packets; asked once a batch.
    watched: bool,
}

/// One packet or superpacket on its way: how it is cut, where it lies, what it is.
struct Item<'p> {
    cut: Cut,
    packet: &'p mut [u8],
    parsed: &'p Parsed,
}

/// Why a packet goes no further, and what its sender may hear of it.
struct Refusal {
    why: Discard,
    packets: usize,
    tell: Option<Trouble>,
}

impl Refusal {
    const fn quiet(why: Discard, packets: usize) -> Self {
        Self { why, packets, tell: None }
    }
}

impl Outbound {
    /// An engine on `plane`.
    pub fn new(plane: Arc<Plane>, counters: Arc<Counters>, link: Link) -> Self {
        let (cache, answers) = (FlowCache::default(), Limiter::default());
        Self {
            cache,
            answers,
            home: Arc::default(),
            sealer: Sealer::new(plane, counters, link),
            watched: false,
        }
    }

    /// The link changed (MTU, addresses).
    pub const fn set_link(&mut self, link: Link) {
        self.sealer.link = link;
    }

    /// Takes one packet or superpacket read from the device through policy and protection.
    ///
    /// `packet` is scratch afterwards. `out` must have room ([`Sealed::has_room`]) and be the same until
    /// [`Outbound::finish`], which must be called before its runs are sent.
    pub fn packet(&mut self, vnet: &Vnet, packet: &mut [u8], now: Time, out: &mut Sealed) -> Verdict {
        if self.watched { self.see(vnet, packet, now, out) } else { self.take(vnet, packet, now, out) }
    }

    fn take(&mut self, vnet: &Vnet, packet: &mut [u8], now: Time, out: &mut Sealed) -> Verdict {
        let parsed = match Parsed::new(packet) {
            Ok(parsed) => parsed,
            Err(why) => {
                self.sealer.counters.add(why, 1);
                return Verdict::Discard(why);
            }
        };
        let refusal = match self.decide(vnet, packet, &parsed, now, out) {
            Ok(verdict) => return verdict,
            Err(refusal) => refusal,
        };
        self.sealer.counters.add(refusal.why, refusal.packets as u64);
        match refusal.tell.and_then(|trouble| self.tell(trouble, packet, &parsed, now, out)) {
            Some(()) => Verdict::Answer(refusal.why),
            None => Verdict::Discard(refusal.why),
        }
    }

    /// Seals what waits. To be called at the end of every batch of packets, before the runs are sent.
    pub fn finish(&mut self, now: Time, out: &mut Sealed) {
        self.sealer.finish(now, out);
        self.watched = self.sealer.plane.trace().is_on();
    }

    /// Takes packets that control has found a way for, and sends the dummy packets that are due. Due when [`Plane::take_returned`] said so; `out` as for
    /// [`Outbound::packet`], and the runs are complete afterwards. Says whether more wait that found no room: they are to be
    /// taken once these have been sent. Lets go of SAs that have died, and so of their keys.
    #[must_use]
    pub fn returned(&mut self, now: Time, out: &mut Sealed) -> bool {
        self.cache.forget_dead();
        while out.has_room()
            && let Some(Returned { vnet, mut packet, sa }) = self.home.next()
        {
            self.packet_returned(&vnet, &mut packet, sa.as_ref(), now, out);
        }
        while out.has_room()
            && let Some(id) = self.sealer.plane.take_dummy()
        {
            if let Some(bundle) = self.sealer.plane.bundle(&id).filter(Bundle::may_send) {
                self.sealer.dummy(&bundle, now, out);
            }
        }
        self.finish(now, out);
        self.home.is_ready() || self.sealer.plane.wants_dummy()
    }

    /// Policy may have changed while the packet waited, and what it says now holds. Only while it still says that an SA is
    /// needed, this is the one; what it may carry is its own selectors' to say.
    fn packet_returned(
        &mut self,
        vnet: &Vnet,
        packet: &mut [u8],
        sa: Option<&Arc<Sa>>,
        now: Time,
        out: &mut Sealed,
    ) {
        let Ok(parsed) = Parsed::new(packet) else {
            self.sealer.counters.add(Discard::Internal, 1);
            return;
        };
        let waits = |eroute: &Arc<Eroute>| eroute.action.waits();
        let wanted = self.sealer.plane.eroutes().lookup(&parsed.flow).is_some_and(waits);
        let Some(sa) = sa.filter(|_| wanted) else {
            // Its verdict has been counted.
            let _ = self.packet(vnet, packet, now, out);
            return;
        };
        if let Err(refusal) = self.carry_returned(vnet, packet, &parsed, sa, now, out) {
            self.sealer.counters.add(refusal.why, refusal.packets as u64);
            let _ = refusal.tell.and_then(|trouble| self.tell(trouble, packet, &parsed, now, out));
        }
    }

    fn carry_returned(
        &mut self,
        vnet: &Vnet,
        packet: &mut [u8],
        parsed: &Parsed,
        sa: &Arc<Sa>,
        now: Time,
        out: &mut Sealed,
    ) -> Result<(), Refusal> {
        let cut = Cut::plan(vnet, packet, parsed).map_err(|why| Refusal::quiet(why, 1))?;
        let refuse = |why| Refusal::quiet(why, cut.count());
        if !sa.entitles(&parsed.flow) {
            return Err(refuse(Discard::PolicyMismatch));
        }
        // The bundle it is in by now, if it is in one.
        let bundle = self.sealer.plane.bundle(&sa.id).filter(Bundle::may_send);
        let bundle = bundle.ok_or(refuse(Discard::NoSa))?;
        self.sealer.carry(&bundle, Item { cut, packet, parsed }, now, out)
    }

    /// Policy: which eroute decides, and what it says.
    fn decide(
        &mut self,
        vnet: &Vnet,
        packet: &mut [u8],
        parsed: &Parsed,
        now: Time,
        out: &mut Sealed,
    ) -> Result<Verdict, Refusal> {
        let cut = Cut::plan(vnet, packet, parsed).map_err(|why| Refusal::quiet(why, 1))?;
        let packets = cut.count();
        let Self { cache, home, sealer, .. } = self;
        cache.renew(&sealer.plane);
        let found;
        let (eroute, bundle) = match cache.get(&parsed.flow) {
            Some(known) => known,
            None => {
                // RFC 4301 §5.1: what no policy matches is discarded.
                let eroute = sealer.plane.eroutes().lookup(&parsed.flow).cloned();
                let eroute = eroute.ok_or(Refusal::quiet(Discard::NoEroute, packets))?;
                found = look_up(&sealer.plane, eroute);
                let (eroute, bundle) = &found;
                if bundle.is_some() || !matches!(eroute.action, Action::Protect(_)) {
                    cache.put(parsed.flow, Arc::clone(eroute), bundle.clone());
                }
                (eroute, bundle.as_ref())
            }
        };
        eroute.count(packets as u64, now);
        match eroute.action {
            Action::Protect(_) => {
                let bundle = bundle.ok_or(Refusal::quiet(Discard::NoSa, packets))?;
                sealer.carry(bundle, Item { cut, packet, parsed }, now, out)?;
                Ok(Verdict::Send)
            }
            Action::Pass => {
                sealer.finish(now, out);
                pass(&Item { cut, packet, parsed }, out).map(|()| Verdict::Send)
            }
            Action::Drop => Err(Refusal::quiet(Discard::Drop, packets)),
            Action::Reject => Err(Refusal { why: Discard::Reject, packets, tell: Some(Trouble::Prohibited) }),
            Action::Trap | Action::TrapSubnet | Action::Hold => {
                // Asked first: what finds no room is not worth a copy of 64 KiB.
                if !sealer.plane.may_trap(parsed.len) {
                    return Err(Refusal::quiet(Discard::Hold, packets));
                }
                // A single packet's checksum is complete by now.
                let vnet = if vnet.gso == Gso::None { Vnet::default() } else { *vnet };
                let whole = packet.get(..parsed.len).unwrap_or_default();
                let held = Held::new(vnet, whole.into(), parsed.flow, home);
                match sealer.plane.trap(held) {
                    true => Ok(Verdict::Keep),
                    false => Err(Refusal::quiet(Discard::Hold, packets)),
                }
            }
        }
    }

    /// Tells the sender, if the rate allows it and such a packet may be answered at all.
    fn tell(
        &mut self,
        trouble: Trouble,
        packet: &[u8],
        parsed: &Parsed,
        now: Time,
        out: &mut Sealed,
    ) -> Option<()> {
        self.finish(now, out);
        let Link { icmp_source4, icmp_source6, .. } = self.sealer.link;
        let room = out.room(0, LONGEST)?;
        let len = icmp::answer(trouble, packet, parsed, icmp_source4, icmp_source6, room)?;
        if !self.answers.take(now) {
            return None;
        }
        out.push(Route::Back, len, len, true);
        Some(())
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.sealer.counters.add(Discard::Hold, self.home.close() as u64);
    }
}

/// The bundle that an eroute names, if it may carry packets.
fn look_up(plane: &Plane, eroute: Arc<Eroute>) -> (Arc<Eroute>, Option<Bundle>) {
    let named: Option<SaId> = match eroute.action {
        Action::Protect(id) => Some(id),
        Action::Pass | Action::Drop | Action::Reject | Action::Trap | Action::TrapSubnet | Action::Hold => {
            None
        }
    };
    // Where policy wants several SAs it is these, and none of them by itself.
    let several = eroute.policy.as_ref().is_some_and(|policy| policy.wants_several());
    let bundle = match named {
        Some(_) if several => eroute.bundle().cloned(),
        Some(id) => plane.bundle(&id),
        None => None,
    };
    let bundle = bundle.filter(Bundle::may_send);
    (eroute, bundle)
}

/// BYPASS: whole packets, to the wire as they are.
fn pass(item: &Item<'_>, out: &mut Sealed) -> Result<(), Refusal> {
    let Item { cut, packet, parsed } = item;
    let packets = cut.count();
    let stride = cut.largest();
    let used = stride.saturating_mul(packets.saturating_sub(1)).saturating_add(cut.last());
    let room = out.room(0, used).ok_or(Refusal::quiet(Discard::BadOffload, packets))?;
    for (index, place) in room.chunks_mut(stride.max(1)).enumerate() {
        cut.write(packet, index, place).ok_or(Refusal::quiet(Discard::Internal, packets))?;
    }
    out.push(Route::Clear(parsed.flow.dst), used, stride, false);
    Ok(())
}
