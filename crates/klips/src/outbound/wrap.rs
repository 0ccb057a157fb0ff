//! The general way out: the SAs of a bundle from the inner to the outer, over frames with room at both ends.
//!
//! A superpacket is cut into frames, single packets wait in them for each other. Then all frames go through one SA after the
//! other: charged at once, their numbers reserved at once. At the end the kernel writes the outermost header where it may;
//! otherwise the packets go whole, and in fragments of ours where they are longer than the link.

use super::seal::outer_tos;
use super::{Item, Link, Refusal};
use crate::ah;
use crate::bundle::Chain;
use crate::checksum::{Sum, pseudo};
use crate::comp::{self, Codec};
use crate::discard::{Counters, Discard};
use crate::fragment;
use crate::icmp::Trouble;
use crate::ip::{self, Head, Outer};
use crate::packet::proto;
use crate::plane::{Event, Plane};
use crate::route::{Path, Route};
use crate::sa::{Encapsulation, Mode, Sa};
use crate::sealed::{RUN_OCTETS, RUN_PACKETS, Sealed};
use core::ops::Range;
use ipsec_core::transform::write_trailer;
use ipsec_core::{Protocol, Time};
use std::sync::Arc;

/// Octets of all frames.
const BUFFER: usize = 2 * Sealed::SUPERPACKET;
/// Octets of a UDP header.
const UDP: usize = 8;

/// One packet, and the room around it.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Where the packet begins: with its IP header.
    at: usize,
    len: usize,
    /// Where its room ends.
    end: usize,
}

impl Frame {
    const fn range(&self) -> Range<usize> {
        self.at..self.at.saturating_add(self.len)
    }
}

/// See the module. Nothing is allocated before the first packet comes this way, nor after the largest batch has.
#[derive(Default)]
pub(super) struct Wrapper {
    chain: Option<Arc<Chain>>,
    buffer: Vec<u8>,
    frames: Vec<Frame>,
    codec: Codec,
    scratch: Vec<u8>,
}

impl Wrapper {
    /// Whether packets wait.
    #[inline]
    pub(super) const fn waits(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Whether what waits must go before this packet can come.
    pub(super) fn must_finish(&self, chain: &Arc<Chain>, link: &Link, item: &Item<'_>, now: Time) -> bool {
        let other = self.chain.as_ref().is_none_or(|waiting| !Arc::ptr_eq(waiting, chain));
        // Short packets that are padded are as long as any.
        let long = || {
            let padded = chain.padded(chain.path_mtu(link.mtu, now));
            padded != 0 && self.end().saturating_add(room(chain, item.cut.largest().max(padded))) > RUN_OCTETS
        };
        self.waits() && (other || item.cut.count() > 1 || self.frames.len() >= RUN_PACKETS || long())
    }

    /// Where the next frame begins.
    fn end(&self) -> usize {
        self.frames.last().map_or(0, |frame| frame.end)
    }

    /// Cuts a packet into frames.
    pub(super) fn add(
        &mut self,
        chain: &Arc<Chain>,
        link: &Link,
        item: &Item<'_>,
        now: Time,
    ) -> Result<(), Refusal> {
        let Item { cut, packet, parsed } = item;
        let packets = cut.count();
        let refuse = |why| Refusal::quiet(why, packets);
        let head =
            Head::read(packet.get(..parsed.len).unwrap_or_default()).ok_or(refuse(Discard::Malformed))?;
        let transport = chain.sas().first().is_some_and(|sa| sa.mode == Mode::Transport);
        if transport && parsed.fragment {
            return Err(refuse(Discard::Fragment));
        }
        let between = |sa: &Arc<Sa>| sa.id.dst == parsed.flow.dst && sa.src == parsed.flow.src;
        if chain.is_transport() && !chain.sas().iter().all(between) {
            return Err(refuse(Discard::OtherHosts));
        }
        let grown = chain.grown(cut.largest(), head.len).ok_or(refuse(Discard::Internal))?;
        let path_mtu = chain.path_mtu(link.mtu, now);
        if grown > path_mtu && parsed.dont_fragment && link.frag_icmp {
            let mtu = chain.inner_mtu(path_mtu, head.len);
            let least = if parsed.flow.src.is_ipv4() { 68 } else { 1280 };
            if mtu >= least {
                return Err(Refusal { why: Discard::TooBig, packets, tell: Some(Trouble::TooBig(mtu)) });
            }
        }
        let (front, _) = chain.room();
        // Of many packets that are padded all must find room where they are sent from.
        let most = Sealed::SUPERPACKET.checked_div(packets).unwrap_or(0).saturating_sub(room(chain, 0));
        let room = room(chain, cut.largest().max(chain.padded(path_mtu).min(most)));
        let start = self.end();
        let used = start.saturating_add(room.saturating_mul(packets));
        if used > BUFFER {
            return Err(refuse(Discard::BadOffload));
        }
        if self.buffer.len() < used {
            self.buffer.resize(used, 0);
        }
        let before = self.frames.len();
        for index in 0..packets {
            let len = if index.saturating_add(1) == packets { cut.last() } else { cut.largest() };
            let begin = start.saturating_add(room.saturating_mul(index));
            let at = begin.saturating_add(front);
            let place = self.buffer.get_mut(at..at.saturating_add(len));
            if place.and_then(|place| cut.write(packet, index, place)).is_none() {
                self.frames.truncate(before);
                return Err(refuse(Discard::Internal));
            }
            self.frames.push(Frame { at, len, end: begin.saturating_add(room) });
        }
        self.chain = Some(Arc::clone(chain));
        Ok(())
    }

    /// Makes a frame that holds no packet, as long as the innermost SA pads to. Nothing waits.
    pub(super) fn dummy(&mut self, chain: &Arc<Chain>, link: &Link, now: Time) {
        let len = chain.pad(0, chain.path_mtu(link.mtu, now));
        let Some(sa) = chain.sas().first().filter(|_| len != 0) else { return };
        let (at, end) = (chain.room().0, room(chain, len));
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        // No version of IP: what follows the header that is put around it has no protocol.
        let Some(place) = self.buffer.get_mut(at..at.saturating_add(len)) else { return };
        place.fill(0);
        self.frames.push(Frame { at, len, end });
        self.chain = Some(Arc::clone(chain));
        sa.hiding().count_dummy();
    }

    /// Takes what waits through its SAs and makes runs of it. What is refused is counted.
    pub(super) fn finish(
        &mut self,
        plane: &Plane,
        counters: &Counters,
        link: &Link,
        now: Time,
        out: &mut Sealed,
    ) {
        let Some(chain) = self.chain.take() else { return };
        let path_mtu = chain.path_mtu(link.mtu, now);
        for (index, sa) in chain.sas().iter().enumerate() {
            let before = self.charge(plane, counters, sa, now);
            self.apply(plane, counters, link, (sa, chain.pad(index, path_mtu)), before);
        }
        // Taken out and put back: the list keeps its room.
        let mut frames = core::mem::take(&mut self.frames);
        for frame in frames.drain(..) {
            if let Err(why) = self.emit(&chain, frame, path_mtu, out) {
                counters.add(why, 1);
            }
        }
        self.frames = frames;
    }

    /// Charges the SA for all frames; those that its lifetime does not let pass go no further. Returns how many packets it
    /// has carried before.
    fn charge(&mut self, plane: &Plane, counters: &Counters, sa: &Sa, now: Time) -> u64 {
        let mut admitted = 0_usize;
        let mut before = None;
        for same in self.frames.chunk_by(|a, b| a.len == b.len) {
            let size = same.first().map_or(0, |frame| frame.len) as u64;
            let charge = sa.charge(same.len() as u64, size, now);
            plane.tell_charge(sa.id, &charge);
            before.get_or_insert(charge.before);
            admitted = admitted.saturating_add(charge.admitted as usize);
            if (charge.admitted as usize) < same.len() {
                break;
            }
        }
        let refused = self.frames.len().saturating_sub(admitted);
        counters.add(Discard::Expired, refused as u64);
        self.frames.truncate(admitted);
        before.unwrap_or(0)
    }

    /// Puts one SA around all frames. Without sequence numbers packets are told apart by how many there were.
    fn apply(
        &mut self,
        plane: &Plane,
        counters: &Counters,
        link: &Link,
        (sa, pad): (&Sa, usize),
        before: u64,
    ) {
        let count = self.frames.len();
        let mut next = before;
        if matches!(sa.id.protocol, Protocol::Esp | Protocol::Ah) && count > 0 {
            // RFC 4303 §3.3.3: once, and never again. The number is also the IV of counter modes: this line is the nonce
            // guarantee of the general way.
            let reserved = sa.reserve(count as u64);
            let (first, granted) = reserved.unwrap_or((0, 0));
            if (granted as usize) < count {
                if sa.die() {
                    plane.tell(Event::Hard(sa.id));
                }
                counters.add(Discard::SequenceExhausted, (count as u64).saturating_sub(granted));
                self.frames.truncate(granted as usize);
            }
            next = first;
        }
        let Self { buffer, frames, codec, scratch, .. } = self;
        let mut step = Step { sa, pad, hide_tos: link.hide_tos, copy_df: link.copy_df, codec, scratch };
        frames.retain_mut(|frame| {
            let done = step.take(buffer, frame, next);
            next = next.saturating_add(1);
            if let Err(why) = done {
                counters.add(why, 1);
            }
            done.is_ok()
        });
    }

    /// Makes a frame part of a run.
    fn emit(&self, chain: &Chain, frame: Frame, path_mtu: usize, out: &mut Sealed) -> Result<(), Discard> {
        let packet = self.buffer.get(frame.range()).ok_or(Discard::Internal)?;
        let fits = packet.len() <= path_mtu;
        if chain.by_kernel() {
            let (head, (src, dst)) =
                Head::read(packet).zip(ip::addresses(packet)).ok_or(Discard::Internal)?;
            let encapsulation = chain.sas().last().and_then(|sa| sa.encapsulation());
            let tos = ip::tos(packet).ok_or(Discard::Internal)?;
            let path = Path { src, dst, encapsulation, tos, dont_fragment: fits && ip::has_df(packet) };
            let skip = if encapsulation.is_some() { head.len.saturating_add(UDP) } else { head.len };
            let esp = packet.get(skip..).ok_or(Discard::Internal)?;
            out.room(0, esp.len()).ok_or(Discard::BadOffload)?.copy_from_slice(esp);
            out.push(Route::Esp(path), esp.len(), esp.len(), !fits);
            return Ok(());
        }
        let (_, dst) = ip::addresses(packet).ok_or(Discard::Internal)?;
        let mut push = |packet: &[u8], alone| {
            out.room(0, packet.len())?.copy_from_slice(packet);
            out.push(Route::Whole(dst), packet.len(), packet.len(), alone);
            Some(())
        };
        if fits {
            return push(packet, false).ok_or(Discard::BadOffload);
        }
        // The packet has a number of its own (RFC 8200 §4.5: unlikely to be used again soon), and carries it in clear.
        let id = Sum::default().octets(packet.get(..64).unwrap_or(packet)).folded();
        let id = u32::from(id) << 16 | u32::from(packet.len() as u16);
        fragment::cut(packet, path_mtu, id, |fragment| push(fragment, true)).ok_or(Discard::TooBig)
    }
}

/// Octets of a frame whose packet is `len` long, or is padded to that.
fn room(chain: &Chain, len: usize) -> usize {
    let (front, back) = chain.room();
    front.saturating_add(len).saturating_add(back)
}

/// One SA, about to be put around packets.
struct Step<'s> {
    sa: &'s Sa,
    /// Octets that packets inside are padded to.
    pad: usize,
    hide_tos: bool,
    copy_df: bool,
    codec: &'s mut Codec,
    scratch: &'s mut Vec<u8>,
}

impl Step<'_> {
    /// `number` is the packet's, reserved for it alone.
    fn take(&mut self, buffer: &mut [u8], frame: &mut Frame, number: u64) -> Result<(), Discard> {
        if self.sa.mode == Mode::Tunnel {
            self.tunnel(buffer, frame, number).ok_or(Discard::Internal)?;
        }
        match self.sa.id.protocol {
            Protocol::Ipip => Some(()),
            Protocol::Esp => self.esp(buffer, frame, number),
            // An IPv6 routing header that leads elsewhere is what it cannot be put behind.
            Protocol::Ah => return self.ah(buffer, frame, number).ok_or(Discard::Malformed),
            Protocol::Ipcomp => self.comp(buffer, frame),
        }
        .ok_or(Discard::Internal)
    }

    /// A new header around the whole packet (RFC 4301 §5.1.2).
    fn tunnel(&self, buffer: &mut [u8], frame: &mut Frame, number: u64) -> Option<()> {
        let packet = buffer.get(frame.range())?;
        let inner = ip::tos(packet)?;
        let next = match packet.first()? >> 4 {
            4 => proto::IPIP,
            6 => proto::IPV6,
            // A dummy: the only frame that holds no packet.
            _ => proto::NONE,
        };
        let Sa { src, id, .. } = *self.sa;
        // Not 0: that would have the kernel choose another, which AH does not authenticate. Packets may be fragmented on
        // their way, so those that follow each other must differ.
        let name = (number as u16).wrapping_mul(0x9e37) ^ id.spi.0 as u16;
        let outer = Outer {
            src,
            dst: id.dst,
            next,
            tos: outer_tos(inner, self.hide_tos),
            id: if name == 0 { 0x9e37 } else { name },
            // An IPv6 packet is never fragmented on its way.
            dont_fragment: self.copy_df && (next == proto::IPV6 || ip::has_df(packet)),
        };
        let len = Outer::len(id.dst.is_ipv4());
        frame.at = frame.at.checked_sub(len)?;
        frame.len = frame.len.checked_add(len)?;
        let packet = buffer.get_mut(frame.range())?;
        outer.write(packet)?;
        ip::settle(packet)
    }

    /// Moves the header up by `room` octets, to make place behind it.
    fn open(buffer: &mut [u8], frame: &mut Frame, room: usize) -> Option<Head> {
        let head = Head::read(buffer.get(frame.range())?)?;
        let at = frame.at.checked_sub(room)?;
        let header = frame.at..frame.at.checked_add(head.len)?;
        (header.end <= buffer.len()).then(|| buffer.copy_within(header, at))?;
        frame.at = at;
        frame.len = frame.len.checked_add(room)?;
        Some(head)
    }

    fn esp(&self, buffer: &mut [u8], frame: &mut Frame, number: u64) -> Option<()> {
        let transform = self.sa.transform()?;
        let encapsulation = self.sa.encapsulation();
        let udp = if encapsulation.is_some() { UDP } else { 0 };
        let head = Self::open(buffer, frame, transform.header_len().checked_add(udp)?)?;
        let start = head.len.checked_add(udp)?;
        let body = frame.len.checked_sub(start)?.checked_sub(transform.header_len())?;
        // The path may carry more than it did when the frame was made: there is no padding for which there is no room.
        let tail = transform.alignment().checked_add(2)?.checked_add(transform.icv_len())?;
        let around = start.checked_add(transform.header_len())?.checked_add(tail)?;
        let most = frame.end.checked_sub(frame.at)?.saturating_sub(around);
        let padding = self.pad.min(most).saturating_sub(body);
        let padded = body.checked_add(padding)?;
        let sealed = transform.sealed_len(padded);
        frame.len = start.checked_add(sealed)?;
        if frame.range().end > frame.end {
            return None;
        }
        let packet = buffer.get_mut(frame.range())?;
        let (header, esp) = packet.split_at_mut_checked(start)?;
        let end = sealed.checked_sub(transform.icv_len())?;
        let (body, payload) =
            (transform.header_len().checked_add(body)?, transform.header_len().checked_add(padded)?);
        if padding != 0 {
            esp.get_mut(body..payload)?.fill(0);
            self.sa.hiding().count_padding(padding);
        }
        write_trailer(esp.get_mut(payload..end)?, head.next)?;
        if !transform.seal(esp, sealed, self.sa.id.spi, number, self.sa.esn) {
            return None;
        }
        let next = if encapsulation.is_some() { proto::UDP } else { Protocol::Esp.number() };
        head.name_next(header, next)?;
        ip::settle(packet)?;
        match encapsulation {
            Some(ports) => encapsulate(packet, head.len, ports),
            None => Some(()),
        }
    }

    fn ah(&mut self, buffer: &mut [u8], frame: &mut Frame, number: u64) -> Option<()> {
        let mac = self.sa.mac()?;
        let v4 = buffer.get(frame.at)? >> 4 == 4;
        let head = Self::open(buffer, frame, ah::len(mac, v4))?;
        let packet = buffer.get_mut(frame.range())?;
        head.name_next(packet, Protocol::Ah.number())?;
        ip::settle(packet)?;
        let fields = ah::Fields { next: head.next, spi: self.sa.id.spi, seq: number, esn: self.sa.esn };
        ah::sign(mac, packet, head.len, &fields, self.scratch)
    }

    fn comp(&mut self, buffer: &mut [u8], frame: &mut Frame) -> Option<()> {
        let packet = buffer.get_mut(frame.range())?;
        let head = Head::read(packet)?;
        let body = packet.get(head.len..)?;
        let cpi = comp::cpi(self.sa.id.spi);
        let Some(small) = self.codec.shrink(self.sa.luck(), body, head.next, cpi) else { return Some(()) };
        let end = head.len.checked_add(small.len())?;
        packet.get_mut(head.len..end)?.copy_from_slice(small);
        frame.len = end;
        let packet = packet.get_mut(..end)?;
        head.name_next(packet, Protocol::Ipcomp.number())?;
        ip::settle(packet)
    }
}

/// Writes the UDP header of a packet that goes whole (RFC 3948 §2.1): without a checksum over IPv4, with one over IPv6, where
/// many hosts ask for it.
fn encapsulate(packet: &mut [u8], head: usize, ports: Encapsulation) -> Option<()> {
    let (ip, datagram) = packet.split_at_mut_checked(head)?;
    let [s0, s1] = ports.local.to_be_bytes();
    let [d0, d1] = ports.remote.to_be_bytes();
    let len = datagram.len();
    let [l0, l1] = u16::try_from(len).ok()?.to_be_bytes();
    *datagram.first_chunk_mut::<UDP>()? = [s0, s1, d0, d1, l0, l1, 0, 0];
    if ip.first()? >> 4 == 6 {
        let sum = pseudo(ip.get(8..40)?, proto::UDP, len).octets(datagram).checksum();
        let sum = if sum == 0 { 0xffff } else { sum };
        datagram.get_mut(6..8)?.copy_from_slice(&sum.to_be_bytes());
    }
    Some(())
}
