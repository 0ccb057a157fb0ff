//! The fast way out: one ESP SA in tunnel mode (RFC 4301 §5.1.2, RFC 4303 §3.3).
//!
//! A superpacket is cut and sealed in one pass, each packet encrypted on its way out of it. Single packets that follow each
//! other on one SA are copied to where they will be sealed and wait there for each other, at most until
//! [`Sealer::finish`]; then all of them are charged at once, their sequence numbers reserved at once, and they are sealed in
//! one call.

use super::wrap::Wrapper;
use super::{Item, Link, Refusal};
use crate::bundle::Bundle;
use crate::discard::{Counters, Discard};
use crate::gso::Cut;
use crate::icmp::Trouble;
use crate::packet::proto;
use crate::plane::{Event, Plane};
use crate::route::{Path, Route};
use crate::sa::{Sa, SaState};
use crate::sealed::{RUN_OCTETS, RUN_PACKETS, Sealed};
use ipsec_core::Time;
use ipsec_core::transform::{Transform, write_trailer};
use std::sync::Arc;

/// What protects packets, once policy has said how.
pub(super) struct Sealer {
    pub(super) plane: Arc<Plane>,
    pub(super) counters: Arc<Counters>,
    pub(super) link: Link,
    batch: Option<Batch>,
    /// The headers of the superpacket that is being cut; kept for its allocation.
    headers: Vec<u8>,
    wrapper: Wrapper,
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

impl Sealer {
    pub(super) fn new(plane: Arc<Plane>, counters: Arc<Counters>, link: Link) -> Self {
        // No protocol's headers are longer than this on any network seen; a longer one is the only that allocates.
        let headers = Vec::with_capacity(256);
        Self { plane, counters, link, batch: None, headers, wrapper: Wrapper::default() }
    }

    /// Seals what waits.
    pub(super) fn finish(&mut self, now: Time, out: &mut Sealed) {
        if let Some(batch) = self.batch.take()
            && let Err(refusal) = seal(&self.plane, &batch, None, now, out)
        {
            self.counters.add(refusal.why, refusal.packets as u64);
        }
        if self.wrapper.waits() {
            self.wrapper.finish(&self.plane, &self.counters, &self.link, now, out);
        }
    }

    /// PROTECT.
    #[inline]
    pub(super) fn carry(
        &mut self,
        bundle: &Bundle,
        item: Item<'_>,
        now: Time,
        out: &mut Sealed,
    ) -> Result<(), Refusal> {
        match bundle {
            Bundle::Tunnel(sa) => self.tunnel(sa, item, now, out),
            Bundle::Chain(chain) => {
                let Self { plane, counters, link, wrapper, .. } = self;
                if wrapper.must_finish(chain, link, &item, now) {
                    wrapper.finish(plane, counters, link, now, out);
                }
                wrapper.add(chain, link, &item, now)
            }
        }
    }

    /// A dummy packet (RFC 4303 §2.6).
    pub(super) fn dummy(&mut self, bundle: &Bundle, now: Time, out: &mut Sealed) {
        self.finish(now, out);
        if let Bundle::Chain(chain) = bundle {
            self.wrapper.dummy(chain, &self.link, now);
        }
    }

    /// With the packets of the same SA before it if it fits them, or behind them.
    fn tunnel(&mut self, sa: &Arc<Sa>, item: Item<'_>, now: Time, out: &mut Sealed) -> Result<(), Refusal> {
        let Some(fresh) = self.begin(sa, &item, now, out)? else { return Ok(()) };
        let Self { plane, counters, batch, headers, .. } = self;
        if let Some(before) = batch.take()
            && let Err(refusal) = seal(plane, &before, None, now, out)
        {
            counters.add(refusal.why, refusal.packets as u64);
        }
        let Item { cut, packet, .. } = item;
        // A superpacket is a batch already, and a limited SA is asked packet by packet.
        if cut.count() > 1 || sa.is_limited() {
            headers.clear();
            headers.extend_from_slice(cut.headers(packet));
            return seal(plane, &fresh, Some(Source { cut: &cut, packet, headers }), now, out);
        }
        lay_out(&fresh, &cut, packet, 0, out)?;
        *batch = Some(fresh);
        Ok(())
    }

    /// The packet joins the batch if it fits it; otherwise it begins the one that is returned.
    fn begin(
        &mut self,
        sa: &Arc<Sa>,
        item: &Item<'_>,
        now: Time,
        out: &mut Sealed,
    ) -> Result<Option<Batch>, Refusal> {
        let Item { cut, packet, parsed } = item;
        let packets = cut.count();
        let refuse = |why| Refusal::quiet(why, packets);
        let transform = sa.transform().ok_or(refuse(Discard::Internal))?;

        // Too big for the path? RFC 4301 §8.2.1: the sender hears what would fit, or the outer packet is fragmented.
        let stride = transform.sealed_len(cut.largest());
        let outer = outer_header(sa);
        let link = &self.link;
        let path_mtu = sa.path_mtu().limit(link.mtu, now);
        let fits = outer.saturating_add(stride) <= path_mtu;
        if !fits && parsed.dont_fragment && link.frag_icmp {
            let mtu = inner_mtu(transform, path_mtu.saturating_sub(outer));
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
            dont_fragment: link.copy_df && parsed.dont_fragment && fits && sa.id.dst.is_ipv4(),
        };
        let (size, last) = (cut.largest(), cut.last());
        let full = stride.saturating_mul(packets.saturating_sub(1));
        let len = full.saturating_add(transform.sealed_len(last));
        if let Some(batch) = &mut self.batch
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
        plane.tell_charge(sa.id, &charge);
        admitted = admitted.saturating_add(charge.admitted as usize);
        // What follows the packet that met the limit is refused, however small.
        if sa.state() == SaState::Dead {
            break;
        }
    }
    admitted
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
pub(super) const fn outer_tos(inner: u8, hide: bool) -> u8 {
    if hide { inner & 3 } else { inner }
}
