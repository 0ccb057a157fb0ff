//! The general way in: the SAs of a bundle from the outer to the inner, every one of them demanded (RFC 4301 §5.2).
//!
//! Each packet is copied to the arena, once, its IP header in front, and loses one layer after the other there. A run loses
//! each layer together: one look at the window, one advance, one charge. What an SA leaves must be what the next one inside
//! of it is for, or the packet goes no further: a peer that leaves an SA out is refused. Only IPComp may be left out, for it
//! protects nothing and is used where it helps (RFC 3173 §2.2).
//!
//! SAs that policy judges are in no bundle: what one of them leaves says which the next is, and when the innermost has been
//! taken off policy is asked about all of them ([`crate::admission`]). So those of an old and a new negotiation may mix.

use super::{Inbound, Run, number};
use crate::admit::{Admitted, transported, tunnelled};
use crate::ah;
use crate::arrival::{Arrival, Carrier};
use crate::bundle::{Chain, MOST, Sas};
use crate::checksum::pseudo;
use crate::comp;
use crate::discard::Discard;
use crate::ip::{self, Head, Outer};
use crate::open::{self, Payload, RUN, Trailer, Verified};
use crate::opened::Opened;
use crate::packet::{Parsed, proto};
use crate::plane::Plane;
use crate::sa::{Mode, Sa};
use arrayvec::ArrayVec;
use core::ops::Range;
use ipsec_core::{Protocol, SaId, Spi, Time};
use std::sync::Arc;

/// Octets of packets and of what they were decompressed to, in one batch.
const ARENA: usize = 8 << 20;
/// The longest IP packet.
const LONGEST: usize = 65_535;

/// As IP protocols.
const ESP: u8 = Protocol::Esp.number();
const AH: u8 = Protocol::Ah.number();
const IPCOMP: u8 = Protocol::Ipcomp.number();

/// A packet in the arena.
#[derive(Clone, Copy)]
struct Layer {
    /// Where its IP header begins.
    at: usize,
    /// Octets of it, the IP header included.
    len: usize,
    head: Head,
    /// The last SA in tunnel mode was entitled to carry it.
    admitted: Option<Admitted>,
}

/// What is inside of a layer: its place in the arena, and the IP protocol number of what it is.
struct Inside {
    octets: Range<usize>,
    next: u8,
}

type Layers = ArrayVec<Layer, RUN>;

impl Inbound {
    pub(super) fn unwrap(
        &mut self,
        chain: &Chain,
        from: (&Arrival, &[u8]),
        run: &mut Run<'_>,
        now: Time,
        out: &mut Opened,
    ) {
        let Some(outermost) = chain.sas().last() else { return };
        let mut layers = Layers::new();
        for (packet, _) in run.drain(..) {
            match lay_out(from, packet, &mut out.arena) {
                Ok(layer) => layers.push(layer),
                Err(why) => self.refuse_of(outermost, why, 1),
            }
        }
        let (arrival, _) = from;
        for (n, sa) in chain.sas().iter().enumerate().rev() {
            let around = chain.sas().get(n.saturating_add(1)..).unwrap_or_default();
            layers = self.take_off((sa, around), arrival, layers, now, &mut out.arena);
        }
        self.go_on(chain.sas(), arrival, layers, now, out);
    }

    /// Takes one SA off; `around` are those that were.
    fn take_off(
        &mut self,
        by: (&Sa, &[Arc<Sa>]),
        arrival: &Arrival,
        layers: Layers,
        now: Time,
        arena: &mut Vec<u8>,
    ) -> Layers {
        match by.0.id.protocol {
            Protocol::Esp | Protocol::Ah => self.verify(by, arrival, layers, now, arena),
            Protocol::Ipip | Protocol::Ipcomp => self.strip(by, layers, now, arena),
        }
    }

    /// What the SAs of a bundle have left, `passed` from the inside to the outside: more SAs, where it is policy that says which
    /// belong together, or packets for the device. It calls itself no more often than a packet has SAs.
    fn go_on(&mut self, passed: &[Arc<Sa>], arrival: &Arrival, layers: Layers, now: Time, out: &mut Opened) {
        let Some(innermost) = passed.first() else { return };
        let natted = matches!(arrival.carrier, Carrier::Udp { .. });
        let next: ArrayVec<Option<Arc<Sa>>, RUN> =
            layers.iter().map(|layer| self.next_by_policy(passed, layer, &out.arena)).collect();
        let mut layers = layers.into_iter().zip(next).peekable();
        while let Some((layer, next)) = layers.next() {
            if let Some(sa) = next {
                // Neighbours of one SA lose it together.
                let mut run = Layers::new();
                run.push(layer);
                let same = |(_, next): &(Layer, Option<Arc<Sa>>)| {
                    next.as_ref().is_some_and(|next| Arc::ptr_eq(next, &sa))
                };
                while let Some((layer, _)) = layers.next_if(same) {
                    run.push(layer);
                }
                let left = self.take_off((&sa, passed), arrival, run, now, &mut out.arena);
                let passed: Sas = [sa].into_iter().chain(passed.iter().cloned()).take(MOST).collect();
                self.go_on(&passed, arrival, left, now, out);
                continue;
            }
            match deliver(&self.plane, passed, layer, natted, &mut out.arena) {
                Ok(packet) => {
                    let inner = out.arena.get(packet.range()).filter(|_| self.watched.is_some());
                    self.saw(innermost, inner.and_then(|inner| Parsed::new(inner).ok()).as_ref());
                    out.unwrapped.push(packet);
                }
                Err(why) => self.refuse_of(innermost, why, 1),
            }
        }
    }

    /// The SA that a packet in transport mode is for, once those that policy judges have been taken off: another that policy
    /// judges, used by itself. Whether it may lie in those, policy says when the innermost has been taken off.
    fn next_by_policy(&self, passed: &[Arc<Sa>], layer: &Layer, arena: &[u8]) -> Option<Arc<Sa>> {
        let by_policy = |sa: &Arc<Sa>| sa.reqid().is_some();
        if passed.len() >= MOST || layer.admitted.is_some() || !passed.iter().all(by_policy) {
            return None;
        }
        let packet = arena.get(layer.range())?;
        let body = packet.get(layer.head.len..)?;
        let (protocol, spi) = match layer.head.next {
            ESP => (Protocol::Esp, open::header(body)?.0),
            AH => (Protocol::Ah, ah::Header::read(body)?.spi),
            IPCOMP => (Protocol::Ipcomp, comp::header(body)?.1.into()),
            _ => return None,
        };
        let (_, dst) = ip::addresses(packet)?;
        let bundle = self.plane.bundle(&SaId { dst, protocol, spi: Spi(spi) })?;
        match bundle.sas() {
            [sa] if by_policy(sa) && sa.encapsulation().is_none() && bundle.is_alive() => {
                Some(Arc::clone(sa))
            }
            _ => None,
        }
    }

    /// Takes ESP or AH off. The order is that of the fast way: check, open, advance, charge.
    fn verify(
        &mut self,
        by: (&Sa, &[Arc<Sa>]),
        arrival: &Arrival,
        layers: Layers,
        now: Time,
        arena: &mut [u8],
    ) -> Layers {
        let (sa, _) = by;
        let mut candidates = ArrayVec::<(Layer, u64), RUN>::new();
        {
            let window = sa.live.window.as_ref().map(|window| window.lock());
            for layer in layers {
                let judged = belongs(sa, &layer, arena)
                    .and_then(|()| measured(sa, &layer, arena))
                    .and_then(|low| number(sa, window.as_deref(), Some(low)));
                match judged {
                    Ok(seq) => candidates.push((layer, seq)),
                    Err(why) => self.refuse_of(sa, why, 1),
                }
            }
        }
        let mut opened = ArrayVec::<(Layer, Verified), RUN>::new();
        for (layer, seq) in candidates {
            match open_one(sa, &layer, (seq, sa.esn), arena, &mut self.scratch) {
                Ok(verified) => opened.push((layer, verified)),
                Err(why) => self.refuse_of(sa, why, 1),
            }
        }
        let mut authentic = ArrayVec::<(Layer, Result<Inside, Discard>), RUN>::new();
        let mut newest = false;
        {
            let mut window = sa.live.window.as_ref().map(|window| window.lock());
            for (layer, verified) in opened {
                if let Some(window) = &mut window {
                    if let Err(why) = window.advance(&verified) {
                        self.refuse_of(sa, why, 1);
                        continue;
                    }
                    newest |= window.right() == verified.seq();
                }
                authentic.push((layer, inside(sa, &layer, arena)));
            }
        }
        if newest {
            self.follow(sa, arrival);
        }
        let len = |(layer, inside): &(Layer, Result<Inside, Discard>)| {
            inside.as_ref().map_or(layer.len, |inside| inside.octets.len()) as u64
        };
        let admitted = self.charge(sa, &authentic, len, now);
        self.refuse_of(sa, Discard::Expired, authentic.len().saturating_sub(admitted));
        let mut left = Layers::new();
        for (layer, inside) in authentic.into_iter().take(admitted) {
            match inside.and_then(|inside| settle(&self.plane, by, layer, inside, arena)) {
                Ok(layer) => left.push(layer),
                Err(why) => self.refuse_of(sa, why, 1),
            }
        }
        left
    }

    /// Takes IPIP or IPComp off, which prove nothing: what is outside of them has been verified.
    fn strip(&mut self, by: (&Sa, &[Arc<Sa>]), layers: Layers, now: Time, arena: &mut Vec<u8>) -> Layers {
        let (sa, _) = by;
        let admitted = self.charge(sa, &layers, |layer| layer.len as u64, now);
        self.refuse_of(sa, Discard::Expired, layers.len().saturating_sub(admitted));
        let mut left = Layers::new();
        for layer in layers.into_iter().take(admitted) {
            let stripped = match sa.id.protocol {
                Protocol::Ipcomp if layer.head.next != Protocol::Ipcomp.number() => {
                    uncompressed(&self.plane, by, layer, arena)
                }
                Protocol::Ipcomp => self.decompress(by, layer, arena),
                Protocol::Esp | Protocol::Ah | Protocol::Ipip => belongs(sa, &layer, arena).and_then(|()| {
                    let octets = layer.body();
                    settle(&self.plane, by, layer, Inside { octets, next: layer.head.next }, arena)
                }),
            };
            match stripped {
                Ok(layer) => left.push(layer),
                Err(why) => self.refuse_of(sa, why, 1),
            }
        }
        left
    }

    /// Puts a decompressed packet at the end of the arena.
    fn decompress(
        &mut self,
        by: (&Sa, &[Arc<Sa>]),
        layer: Layer,
        arena: &mut Vec<u8>,
    ) -> Result<Layer, Discard> {
        let (sa, _) = by;
        belongs(sa, &layer, arena)?;
        let body = arena.get(layer.body()).ok_or(Discard::Internal)?;
        let (next, _) = comp::header(body).ok_or(Discard::Short)?;
        // The arena grows under what it holds: the compressed octets are copied out of it.
        self.scratch.clear();
        self.scratch.extend_from_slice(body.get(comp::HEADER..).ok_or(Discard::Short)?);
        if arena.len() > ARENA {
            return Err(Discard::Bomb);
        }
        let at = arena.len();
        arena.extend_from_within(layer.at..layer.at.saturating_add(layer.head.len));
        let limit = LONGEST.saturating_sub(layer.head.len);
        if let Err(why) = self.codec.grow(&self.scratch, arena, limit) {
            arena.truncate(at);
            return Err(why);
        }
        let layer = Layer { at, len: arena.len().saturating_sub(at), ..layer };
        settle(&self.plane, by, layer, Inside { octets: layer.body(), next }, arena)
    }
}

impl Layer {
    fn read(arena: &[u8], at: usize, len: usize) -> Result<Self, Discard> {
        let packet = arena.get(at..).and_then(|rest| rest.get(..len)).ok_or(Discard::Internal)?;
        let head = Head::read(packet).ok_or(Discard::Malformed)?;
        Ok(Self { at, len, head, admitted: None })
    }

    /// What follows the IP header.
    const fn body(&self) -> Range<usize> {
        self.at.saturating_add(self.head.len)..self.at.saturating_add(self.len)
    }

    const fn range(&self) -> Range<usize> {
        self.at..self.at.saturating_add(self.len)
    }
}

/// Copies a datagram to the arena behind its IP header, or behind one as it may have been.
fn lay_out(
    (arrival, header): (&Arrival, &[u8]),
    packet: &[u8],
    arena: &mut Vec<u8>,
) -> Result<Layer, Discard> {
    let at = arena.len();
    if at > ARENA {
        return Err(Discard::Bomb);
    }
    if header.is_empty() {
        let Arrival { src, dst, carrier, tos, .. } = *arrival;
        let outer = Outer { src, dst, next: carrier.protocol().number(), tos, id: 0, dont_fragment: false };
        arena.resize(at.saturating_add(Outer::len(dst.is_ipv4())), 0);
        let room = arena.get_mut(at..).ok_or(Discard::Internal)?;
        outer.write(room).ok_or(Discard::Malformed)?;
        if let (true, Some(flags)) = (dst.is_ipv4(), room.get_mut(6)) {
            // Its identification is gone, and means nothing where a packet is atomic (RFC 6864 §4.1): it is whole by now.
            *flags = 0x40;
        }
    } else {
        arena.extend_from_slice(header);
    }
    arena.extend_from_slice(packet);
    if header.is_empty() {
        arena.get_mut(at..).and_then(ip::settle).ok_or(Discard::Malformed)?;
    }
    Layer::read(arena, at, arena.len().saturating_sub(at))
}

/// Whether what is here is for this SA: its protocol, its SPI, its ends.
fn belongs(sa: &Sa, layer: &Layer, arena: &[u8]) -> Result<(), Discard> {
    let packet = arena.get(layer.range()).ok_or(Discard::Internal)?;
    let body = packet.get(layer.head.len..).unwrap_or_default();
    let (src, dst) = ip::addresses(packet).ok_or(Discard::Malformed)?;
    let spi = sa.id.spi.0;
    let next = layer.head.next;
    let named = match sa.id.protocol {
        Protocol::Esp => next == Protocol::Esp.number() && open::header(body).is_some_and(|(n, _)| n == spi),
        Protocol::Ah => {
            next == Protocol::Ah.number() && ah::Header::read(body).is_some_and(|header| header.spi == spi)
        }
        Protocol::Ipcomp => comp::header(body).is_some_and(|(_, cpi)| cpi == comp::cpi(sa.id.spi)),
        Protocol::Ipip => matches!(next, proto::IPIP | proto::IPV6),
    };
    let ends = dst == sa.id.dst && (sa.src.is_unspecified() || sa.src == src);
    if named && ends { Ok(()) } else { Err(Discard::WrongBundle) }
}

/// The low half of the sequence number of a packet that is long enough to be one of this SA.
fn measured(sa: &Sa, layer: &Layer, arena: &[u8]) -> Result<u32, Discard> {
    let body = arena.get(layer.body()).ok_or(Discard::Internal)?;
    if let Some(mac) = sa.mac() {
        let header = ah::Header::read(body).ok_or(Discard::Short)?;
        let v4 = sa.id.dst.is_ipv4();
        return if header.fits(mac, v4) { Ok(header.seq) } else { Err(Discard::Short) };
    }
    let transform = sa.transform().ok_or(Discard::Internal)?;
    if !open::fits(transform, body.len()) {
        return Err(Discard::Short);
    }
    open::header(body).map(|(_, low)| low).ok_or(Discard::Short)
}

fn open_one(
    sa: &Sa,
    layer: &Layer,
    number: (u64, bool),
    arena: &mut [u8],
    scratch: &mut Vec<u8>,
) -> Result<Verified, Discard> {
    if let Some(mac) = sa.mac() {
        let packet = arena.get(layer.range()).ok_or(Discard::Internal)?;
        return open::verify(mac, packet, layer.head.len, number, scratch);
    }
    let transform = sa.transform().ok_or(Discard::Internal)?;
    open::open(transform, arena.get_mut(layer.body()).ok_or(Discard::Internal)?, number)
}

/// What is inside of an authentic packet.
fn inside(sa: &Sa, layer: &Layer, arena: &[u8]) -> Result<Inside, Discard> {
    let body = layer.body();
    let octets = arena.get(body.clone()).ok_or(Discard::Internal)?;
    if sa.mac().is_some() {
        let header = ah::Header::read(octets).ok_or(Discard::Internal)?;
        return Ok(Inside { octets: body.start.saturating_add(header.len)..body.end, next: header.next });
    }
    let transform = sa.transform().ok_or(Discard::Internal)?;
    let end = body.end.saturating_sub(transform.icv_len());
    let start = body.start.saturating_add(transform.header_len());
    let trailer = Trailer::read(arena.get(start..end).ok_or(Discard::Internal)?)?;
    Ok(Inside { octets: start..start.saturating_add(trailer.payload), next: trailer.next_header })
}

/// What an SA leaves: in tunnel mode the packet inside, which it must be entitled to carry; in transport mode the same packet
/// without what the SA had put into it.
fn settle(
    plane: &Plane,
    by: (&Sa, &[Arc<Sa>]),
    layer: Layer,
    inside: Inside,
    arena: &mut [u8],
) -> Result<Layer, Discard> {
    let Inside { octets, next } = inside;
    if by.0.mode == Mode::Tunnel {
        let tos = arena.get(layer.range()).and_then(ip::tos).ok_or(Discard::Internal)?;
        let at = octets.start;
        let octets = arena.get_mut(octets).ok_or(Discard::Internal)?;
        let admitted = tunnelled(plane, by, tos, Payload { octets, at, next_header: next }, &mut None)?;
        let Range { start, end } = admitted.range();
        return Ok(Layer {
            admitted: Some(admitted),
            ..Layer::read(arena, start, end.saturating_sub(start))?
        });
    }
    // The header moves up to what it is the header of now.
    let at =
        octets.start.checked_sub(layer.head.len).filter(|at| *at >= layer.at).ok_or(Discard::Internal)?;
    arena.copy_within(layer.at..layer.at.saturating_add(layer.head.len), at);
    let packet = arena.get_mut(at..octets.end).ok_or(Discard::Internal)?;
    layer.head.name_next(packet, next).ok_or(Discard::Internal)?;
    ip::settle(packet).ok_or(Discard::Malformed)?;
    Layer::read(arena, at, octets.end.saturating_sub(at))
}

/// IPComp that was not worth it: there is nothing to take off, except in tunnel mode.
fn uncompressed(
    plane: &Plane,
    by: (&Sa, &[Arc<Sa>]),
    layer: Layer,
    arena: &mut [u8],
) -> Result<Layer, Discard> {
    match by.0.mode {
        Mode::Transport => Ok(layer),
        Mode::Tunnel => {
            settle(plane, by, layer, Inside { octets: layer.body(), next: layer.head.next }, arena)
        }
    }
}

/// A packet for the device: one that an SA in tunnel mode was entitled to carry, or the one that all of them were put into.
fn deliver(
    plane: &Plane,
    passed: &[Arc<Sa>],
    layer: Layer,
    natted: bool,
    arena: &mut [u8],
) -> Result<Admitted, Discard> {
    let (innermost, around) = passed.split_first().ok_or(Discard::Internal)?;
    if let (Mode::Tunnel, Some(admitted)) = (innermost.mode, layer.admitted) {
        return Ok(admitted);
    }
    if let Some(admitted) = plain_tunnel(plane, passed, &layer, arena) {
        return Ok(admitted);
    }
    let packet = arena.get_mut(layer.range()).ok_or(Discard::Internal)?;
    if natted {
        repair(packet, &layer.head);
    }
    transported(plane, (innermost, around), packet, layer.at)
}

/// A packet in a packet, as IPComp in tunnel mode leaves one that it was not worth for, where policy wants that.
fn plain_tunnel(plane: &Plane, passed: &[Arc<Sa>], layer: &Layer, arena: &mut [u8]) -> Option<Admitted> {
    let next_header = layer.head.next;
    let by_policy = passed.iter().all(|sa| sa.mode == Mode::Transport && sa.reqid().is_some());
    if !by_policy || !matches!(next_header, proto::IPIP | proto::IPV6) {
        return None;
    }
    let packet = arena.get(layer.range())?;
    let (ends, tos) = (ip::addresses(packet)?, ip::tos(packet)?);
    let at = layer.body().start;
    let octets = arena.get_mut(layer.body())?;
    crate::admit::uncompressed(plane, ends, passed, tos, Payload { octets, at, next_header })
}

/// The transport checksum was computed over addresses that a NAT has changed (RFC 3948 §3.1.2): it is computed again. What
/// it was for, the ICV has done.
fn repair(packet: &mut [u8], head: &Head) -> Option<()> {
    let (at, kind): (usize, u8) = match head.next {
        proto::TCP => (16, proto::TCP),
        proto::UDP => (6, proto::UDP),
        _ => return None,
    };
    let v4 = packet.first()? >> 4 == 4;
    let (ip, segment) = packet.split_at_mut_checked(head.len)?;
    let field = at..at.checked_add(2)?;
    if kind == proto::UDP && v4 && segment.get(field.clone())? == [0, 0] {
        return None;
    }
    segment.get_mut(field.clone())?.fill(0);
    let addresses = if v4 { ip.get(12..20)? } else { ip.get(8..40)? };
    let sum = pseudo(addresses, kind, segment.len()).octets(segment).checksum();
    // UDP has no checksum of 0 (RFC 768).
    let sum = if sum == 0 && kind == proto::UDP { 0xffff } else { sum };
    segment.get_mut(field)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}
