//! The outbound path: device → eroute → SA → sealed run (RFC 4301 §5.1).
//!
//! Reads top to bottom as the path itself, for one packet or one superpacket of up to 64 KiB: parsed once, looked up once,
//! cut and copied, once, to where it will be sealed. Single packets that follow each other on one SA wait there for each
//! other, at most until [`Outbound::finish`]; then all of them are charged at once, their sequence numbers reserved at once,
//! and they are sealed in one call. Every refusal is counted once, as the [`Discard`] it is.

use crate::discard::{Counters, Discard};
use crate::eroute::{Action, Eroute};
use crate::flow_cache::FlowCache;
use crate::gso::Cut;
use crate::hold::{Held, Home, Returned, Trapped};
use crate::icmp::LONGEST;
use crate::icmp::{self, Limiter, Trouble};
use crate::packet::{Gso, Parsed, Vnet, proto};
use crate::plane::{Event, Plane};
use crate::sa::{Encapsulation, Mode, Sa, SaState};
use crate::sealed::{RUN_OCTETS, RUN_PACKETS, Sealed};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use ipsec_core::transform::{Transform, write_trailer};
use ipsec_core::{SaId, Time};
use std::sync::Arc;

/// The outer header that the host's kernel writes for us, chosen by RFC 4301 §5.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// UDP ports when ESP travels in UDP; raw ESP otherwise.
    pub encapsulation: Option<Encapsulation>,
    /// TOS or traffic class, ECN included (RFC 6040 §4.1).
    pub tos: u8,
    /// Whether the outer packet must not be fragmented on its way.
    pub dont_fragment: bool,
}

/// Where a run of packets goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Sealed: ESP packets, to the wire.
    Esp(Path),
    /// `%pass`: whole IP packets, to the wire as they are.
    Clear(IpAddr),
    /// Answers (ICMP): whole IP packets, back to the device.
    Back,
}

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
}

/// One worker's outbound engine.
pub struct Outbound {
    plane: Arc<Plane>,
    counters: Arc<Counters>,
    link: Link,
    cache: FlowCache,
    answers: Limiter,
    batch: Option<Batch>,
    /// The headers of the superpacket that is being cut; kept for its allocation.
    headers: Vec<u8>,
    /// Where packets that met `%trap` come back to.
    home: Arc<Home>,
}

/// Packets of one SA that are sealed together: all of one size, the last perhaps shorter. Single packets lie behind the
/// runs meanwhile; those of a superpacket are sealed on their way out of it.
struct Batch {
    sa: Arc<Sa>,
    path: Path,
    /// Octets of each sealed packet but the last.
    stride: usize,
    /// Octets of all of them.
    len: usize,
    packets: usize,
    /// Inner octets of each packet but the last.
    size: usize,
    /// Inner octets of the last.
    last: usize,
    /// They must be sent one by one.
    alone: bool,
}

/// A superpacket, from which the packets of a batch come.
struct Source<'p> {
    cut: &'p Cut,
    packet: &'p mut [u8],
    headers: &'p [u8],
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
        // No protocol's headers are longer than this on any network seen; a longer one is the only that allocates.
        let headers = Vec::with_capacity(256);
        Self { plane, counters, link, cache, answers, batch: None, headers, home: Arc::default() }
    }

    /// The link changed (MTU, addresses).
    pub const fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Takes one packet or superpacket read from the device through policy and protection.
    ///
    /// `packet` is scratch afterwards. `out` must have room ([`Sealed::has_room`]) and be the same until
    /// [`Outbound::finish`], which must be called before its runs are sent.
    pub fn packet(&mut self, vnet: &Vnet, packet: &mut [u8], now: Time, out: &mut Sealed) -> Verdict {
        let parsed = match Parsed::new(packet) {
            Ok(parsed) => parsed,
            Err(why) => {
                self.counters.add(why, 1);
                return Verdict::Discard(why);
            }
        };
        let refusal = match self.decide(vnet, packet, &parsed, now, out) {
            Ok(verdict) => return verdict,
            Err(refusal) => refusal,
        };
        self.counters.add(refusal.why, refusal.packets as u64);
        match refusal.tell.and_then(|trouble| self.tell(trouble, packet, &parsed, now, out)) {
            Some(()) => Verdict::Answer(refusal.why),
            None => Verdict::Discard(refusal.why),
        }
    }

    /// Seals what waits. To be called at the end of every batch of packets, before the runs are sent.
    pub fn finish(&mut self, now: Time, out: &mut Sealed) {
        let Some(batch) = self.batch.take() else { return };
        if let Err(refusal) = seal(&self.plane, &batch, None, now, out) {
            self.counters.add(refusal.why, refusal.packets as u64);
        }
    }

    /// Takes packets that control has found a way for. Due when [`Plane::take_returned`] said so; `out` as for
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
        self.finish(now, out);
        self.home.is_ready()
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
            self.counters.add(Discard::Internal, 1);
            return;
        };
        let waits = |eroute: &Arc<Eroute>| matches!(eroute.action, Action::Trap | Action::Hold);
        let wanted = self.plane.eroutes().lookup(&parsed.flow).is_some_and(waits);
        let Some(sa) = sa.filter(|_| wanted) else {
            // Its verdict has been counted.
            let _ = self.packet(vnet, packet, now, out);
            return;
        };
        if let Err(refusal) = self.carry_returned(vnet, packet, &parsed, sa, now, out) {
            self.counters.add(refusal.why, refusal.packets as u64);
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
        if !sa.may_send() {
            return Err(refuse(Discard::NoSa));
        }
        let Self { plane, counters, link, batch, headers, .. } = self;
        carry(plane, counters, link, batch, headers, sa, (&cut, packet, parsed), now, out)
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
        let Self { plane, counters, cache, link, batch, headers, home, .. } = self;
        cache.renew(plane);
        let found;
        let (eroute, sa) = match cache.get(&parsed.flow) {
            Some(known) => known,
            None => {
                // RFC 4301 §5.1: what no policy matches is discarded.
                let eroute = plane.eroutes().lookup(&parsed.flow).cloned();
                let eroute = eroute.ok_or(Refusal::quiet(Discard::NoEroute, packets))?;
                found = look_up(plane, eroute);
                let (eroute, sa) = &found;
                if sa.is_some() || !matches!(eroute.action, Action::Protect(_)) {
                    cache.put(parsed.flow, Arc::clone(eroute), sa.clone());
                }
                (eroute, sa.as_ref())
            }
        };
        eroute.count(packets as u64, now);
        match eroute.action {
            Action::Protect(_) => {
                let sa = sa.ok_or(Refusal::quiet(Discard::NoSa, packets))?;
                carry(plane, counters, link, batch, headers, sa, (&cut, packet, parsed), now, out)?;
                Ok(Verdict::Send)
            }
            Action::Pass => {
                self.finish(now, out);
                pass(&cut, packet, parsed, out).map(|()| Verdict::Send)
            }
            Action::Drop => Err(Refusal::quiet(Discard::Drop, packets)),
            Action::Reject => Err(Refusal { why: Discard::Reject, packets, tell: Some(Trouble::Prohibited) }),
            Action::Trap => {
                // Asked first: what finds no room is not worth a copy of 64 KiB.
                if !plane.may_trap(parsed.len) {
                    return Err(Refusal::quiet(Discard::Hold, packets));
                }
                // A single packet's checksum is complete by now.
                let vnet = if vnet.gso == Gso::None { Vnet::default() } else { *vnet };
                let whole = packet.get(..parsed.len).unwrap_or_default();
                let held = Held::new(vnet, whole.into(), parsed.flow, home);
                match plane.trap(Trapped { eroute: Arc::clone(eroute), held }) {
                    true => Ok(Verdict::Keep),
                    false => Err(Refusal::quiet(Discard::Hold, packets)),
                }
            }
            Action::Hold => Err(Refusal::quiet(Discard::Hold, packets)),
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
        let Link { icmp_source4, icmp_source6, .. } = self.link;
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
        self.counters.add(Discard::Hold, self.home.close() as u64);
    }
}

/// PROTECT: with the packets of the same SA before it if it fits them, or behind them.
#[expect(clippy::too_many_arguments, reason = "the fields of an engine whose cache is borrowed")]
fn carry(
    plane: &Plane,
    counters: &Counters,
    link: &Link,
    batch: &mut Option<Batch>,
    headers: &mut Vec<u8>,
    sa: &Arc<Sa>,
    (cut, packet, parsed): (&Cut, &mut [u8], &Parsed),
    now: Time,
    out: &mut Sealed,
) -> Result<(), Refusal> {
    let Some(fresh) = protect(link, sa, cut, packet, parsed, batch, out)? else { return Ok(()) };
    if let Some(before) = batch.take()
        && let Err(refusal) = seal(plane, &before, None, now, out)
    {
        counters.add(refusal.why, refusal.packets as u64);
    }
    // A superpacket is a batch already, and a limited SA is asked packet by packet.
    if cut.count() > 1 || sa.is_limited() {
        headers.clear();
        headers.extend_from_slice(cut.headers(packet));
        return seal(plane, &fresh, Some(Source { cut, packet, headers }), now, out);
    }
    lay_out(&fresh, cut, packet, 0, out)?;
    *batch = Some(fresh);
    Ok(())
}

/// The SA that an eroute names, if it may carry packets.
fn look_up(plane: &Plane, eroute: Arc<Eroute>) -> (Arc<Eroute>, Option<Arc<Sa>>) {
    let named: Option<SaId> = match eroute.action {
        Action::Protect(id) => Some(id),
        Action::Pass | Action::Drop | Action::Reject | Action::Trap | Action::Hold => None,
    };
    let sa = named.and_then(|id| plane.sa(&id)).filter(|sa| sa.may_send());
    (eroute, sa)
}

/// PROTECT: tunnel mode ESP (RFC 4301 §5.1.2, RFC 4303 §3.3). The packet joins the batch if it fits it; otherwise it begins
/// the one that is returned.
fn protect(
    link: &Link,
    sa: &Arc<Sa>,
    cut: &Cut,
    packet: &[u8],
    parsed: &Parsed,
    batch: &mut Option<Batch>,
    out: &mut Sealed,
) -> Result<Option<Batch>, Refusal> {
    let packets = cut.count();
    let refuse = |why| Refusal::quiet(why, packets);
    if sa.mode != Mode::Tunnel {
        return Err(refuse(Discard::NotTunnel));
    }
    let transform = sa.transform().ok_or(refuse(Discard::Internal))?;

    // Too big for the path? RFC 4301 §8.2.1: the sender hears what would fit, or the outer packet is fragmented.
    let stride = transform.sealed_len(cut.largest());
    let outer = outer_header(sa);
    let fits = outer.saturating_add(stride) <= link.mtu;
    if !fits && parsed.dont_fragment && link.frag_icmp {
        let mtu = inner_mtu(transform, link.mtu.saturating_sub(outer));
        let least = if parsed.flow.src.is_ipv4() { 68 } else { 1280 };
        if mtu >= least {
            return Err(Refusal { why: Discard::TooBig, packets, tell: Some(Trouble::TooBig(mtu)) });
        }
    }
    let path = Path {
        src: sa.src,
        dst: sa.id.dst,
        encapsulation: sa.encapsulation(),
        tos: outer_tos(parsed.tos, link.hide_tos),
        dont_fragment: false,
    };
    let (size, last) = (cut.largest(), cut.last());
    let full = stride.saturating_mul(packets.saturating_sub(1));
    let len = full.saturating_add(transform.sealed_len(last));
    if let Some(batch) = batch
        && packets == 1
        && batch.takes(sa, &path, size, fits)
    {
        lay_out(batch, cut, packet, batch.len, out)?;
        batch.len = batch.len.saturating_add(len);
        batch.packets = batch.packets.saturating_add(1);
        batch.last = last;
        return Ok(None);
    }
    Ok(Some(Batch { sa: Arc::clone(sa), path, stride, len, packets, size, last, alone: !fits }))
}

impl Batch {
    /// Whether one more packet of `size` inner octets may join.
    fn takes(&self, sa: &Arc<Sa>, path: &Path, size: usize, fits: bool) -> bool {
        Arc::ptr_eq(&self.sa, sa)
            && self.path == *path
            && fits != self.alone
            // A shorter one ends it.
            && self.last == self.size
            && size <= self.size
            && self.packets < RUN_PACKETS
            && self.len.saturating_add(self.stride) <= RUN_OCTETS
    }
}

/// Writes a single packet to where it will be sealed, `skip` octets behind the runs: payload, padding, trailer, between
/// the room for header and ICV.
fn lay_out(batch: &Batch, cut: &Cut, packet: &[u8], skip: usize, out: &mut Sealed) -> Result<(), Refusal> {
    let refuse = |why| Refusal::quiet(why, 1);
    let transform = batch.sa.transform().ok_or(refuse(Discard::Internal))?;
    let len = transform.sealed_len(cut.last());
    let room = out.room(skip, len).ok_or(refuse(Discard::BadOffload))?;
    fill(transform, cut, packet, room).ok_or(refuse(Discard::Internal))
}

/// One packet where it will be sealed.
#[inline]
fn fill(transform: &Transform, cut: &Cut, packet: &[u8], place: &mut [u8]) -> Option<()> {
    let end = place.len().checked_sub(transform.icv_len())?;
    let (payload, trailer) = place.get_mut(transform.header_len()..end)?.split_at_mut_checked(cut.last())?;
    cut.write(packet, 0, payload)?;
    write_trailer(trailer, next_header(cut))
}

const fn next_header(cut: &Cut) -> u8 {
    if cut.is_v4() { proto::IPIP } else { proto::IPV6 }
}

/// Charges, numbers and seals a batch, and makes it a run. What is refused of it is its tail.
///
/// Without a source its packets lie where they will be sealed.
fn seal(
    plane: &Plane,
    batch: &Batch,
    source: Option<Source<'_>>,
    now: Time,
    out: &mut Sealed,
) -> Result<(), Refusal> {
    let Batch { sa, packets, stride, .. } = batch;
    let refuse = |why| Refusal::quiet(why, *packets);
    let transform = sa.transform().ok_or(refuse(Discard::Internal))?;
    // More, and smaller, packets than any device of ours is told to hand over at once.
    out.room(0, batch.len).ok_or(refuse(Discard::BadOffload))?;
    let admitted = charge(plane, batch, now);
    if admitted == 0 {
        return Err(refuse(Discard::Expired));
    }
    let charged = admitted;
    // RFC 4303 §3.3.3: once, and never again. The number is also the IV of counter modes: this line is the nonce guarantee.
    let reserved = sa.reserve(admitted as u64);
    let admitted = reserved.map_or(0, |(_, granted)| granted as usize);
    if admitted < charged && sa.die() {
        plane.tell(Event::Hard(sa.id));
    }
    let Some((first, _)) = reserved else { return Err(refuse(Discard::SequenceExhausted)) };
    let used = if admitted == *packets { batch.len } else { stride.saturating_mul(admitted) };
    let run = out.room(0, used).ok_or(refuse(Discard::Internal))?;
    let sealed = match source {
        None => transform.seal(run, *stride, sa.id.spi, first, sa.esn),
        Some(source) => seal_from(transform, sa, source, run, *stride, first),
    };
    if !sealed {
        return Err(refuse(Discard::Internal));
    }
    out.push(Route::Esp(batch.path), used, *stride, batch.alone);
    match packets.checked_sub(admitted) {
        Some(0) | None => Ok(()),
        Some(refused) if admitted < charged => Err(Refusal::quiet(Discard::SequenceExhausted, refused)),
        Some(refused) => Err(Refusal::quiet(Discard::Expired, refused)),
    }
}

/// Seals packets on their way out of a superpacket.
fn seal_from(
    transform: &Transform,
    sa: &Sa,
    Source { cut, packet, headers }: Source<'_>,
    run: &mut [u8],
    stride: usize,
    first: u64,
) -> bool {
    let mut next = Some(first);
    run.chunks_mut(stride).enumerate().all(|(index, place)| {
        let (Some(seq), Some(plain)) = (next, cut.expose(packet, headers, index)) else { return false };
        next = seq.checked_add(1);
        transform.seal_from(plain, next_header(cut), place, (sa.id.spi, seq, sa.esn))
    })
}

/// Charges the SA and says how many of the packets its lifetime lets pass; tells control what happened to it.
fn charge(plane: &Plane, batch: &Batch, now: Time) -> usize {
    let sa = &batch.sa;
    let mut admitted = 0_usize;
    let uniform = batch.last == batch.size;
    let full = if uniform { batch.packets } else { batch.packets.saturating_sub(1) };
    for (packets, size) in [(full, batch.size), (batch.packets.saturating_sub(full), batch.last)] {
        if packets == 0 {
            continue;
        }
        let charge = sa.charge(packets as u64, size as u64, now);
        for (happened, event) in [
            (charge.first, Event::FirstUse(sa.id)),
            (charge.soft, Event::SoftBytes(sa.id)),
            (charge.hard, Event::Hard(sa.id)),
        ] {
            if happened {
                plane.tell(event);
            }
        }
        admitted = admitted.saturating_add(charge.admitted as usize);
        // What follows the packet that met the limit is refused, however small.
        if sa.state() == SaState::Dead {
            break;
        }
    }
    admitted
}

/// BYPASS: whole packets, to the wire as they are.
fn pass(cut: &Cut, packet: &[u8], parsed: &Parsed, out: &mut Sealed) -> Result<(), Refusal> {
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

/// Octets before the ESP header: outer IP, and UDP if it travels in that.
fn outer_header(sa: &Sa) -> usize {
    let ip: usize = if sa.id.dst.is_ipv4() { 20 } else { 40 };
    if sa.encapsulation().is_some() { ip.saturating_add(8) } else { ip }
}

/// The largest inner packet whose ESP packet fits `room`.
fn inner_mtu(transform: &Transform, room: usize) -> usize {
    let around = transform.header_len().saturating_add(transform.icv_len());
    let body = room.saturating_sub(around);
    // Alignments are powers of two; two octets of the body are the trailer.
    let aligned = body & !transform.alignment().saturating_sub(1);
    aligned.saturating_sub(2)
}

/// The outer TOS: ECN is copied (RFC 6040 §4.1, normal mode), DSCP copied or hidden.
const fn outer_tos(inner: u8, hide: bool) -> u8 {
    if hide { inner & 3 } else { inner }
}
