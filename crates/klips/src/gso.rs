//! Cutting superpackets into packets (what the kernel left to us when the device took TSO and USO).
//!
//! Headers are the superpacket's with lengths, IPv4 id, TCP sequence number, flags and checksums put right. A packet is
//! either written elsewhere, or exposed where its payload lies, so that it can be sealed on its way out of there. Nothing
//! the virtio header claims is believed before it was checked against the packet.

use crate::checksum::{Sum, pseudo};
use crate::discard::Discard;
use crate::packet::{Gso, Parsed, Vnet, proto};

/// How one packet read from the device becomes packets for the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    kind: Kind,
    /// Octets of IP header.
    transport: usize,
    /// Octets of all headers that every packet gets a copy of.
    headers: usize,
    /// Octets of payload in each packet but the last.
    size: usize,
    /// Octets of the whole superpacket.
    len: usize,
    count: usize,
    v4: bool,
    fields: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    Tcp,
    Udp,
}

/// What differs from packet to packet, as the superpacket has it, and the sums over what does not.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    /// IPv4 id.
    id: u16,
    /// TCP sequence number.
    seq: u32,
    /// TCP data offset and flags.
    flags: u16,
    /// Over the IPv4 header without total length, id and checksum.
    ip: Sum,
    /// Over pseudo-header and transport header without lengths, sequence number, flags and checksum.
    transport: Sum,
}

const FIN_PSH: u16 = 0x09;
const CWR: u16 = 0x80;

impl Cut {
    /// Says how `packet` will be cut. A checksum that the kernel left unfinished in a single packet is completed here.
    pub(crate) fn plan(vnet: &Vnet, packet: &mut [u8], parsed: &Parsed) -> Result<Self, Discard> {
        let v4 = parsed.flow.src.is_ipv4();
        let (len, transport) = (parsed.len, parsed.transport);
        let kind = match (vnet.gso, parsed.flow.proto) {
            (Gso::None, _) => Kind::Whole,
            (Gso::Tcp4, proto::TCP) if v4 => Kind::Tcp,
            (Gso::Tcp6, proto::TCP) if !v4 => Kind::Tcp,
            (Gso::Udp, proto::UDP) => Kind::Udp,
            _ => return Err(Discard::BadOffload),
        };
        let fields = Fields::default();
        if kind == Kind::Whole {
            if vnet.needs_csum {
                complete(vnet, packet.get_mut(..len).ok_or(Discard::BadOffload)?, parsed)?;
            }
            return Ok(Self { kind, transport, headers: 0, size: len, len, count: 1, v4, fields });
        }
        if parsed.fragment || vnet.gso_size == 0 {
            return Err(Discard::BadOffload);
        }
        let header = match kind {
            Kind::Tcp => {
                let offset = packet.get(transport.saturating_add(12)).ok_or(Discard::BadOffload)? >> 4;
                usize::from(offset).saturating_mul(4).max(20)
            }
            Kind::Udp | Kind::Whole => 8,
        };
        let headers = transport.saturating_add(header);
        let payload = len.checked_sub(headers).filter(|payload| *payload > 0).ok_or(Discard::BadOffload)?;
        let size = usize::from(vnet.gso_size);
        let fields = packet.get(..headers).and_then(|heads| Fields::read(kind, v4, transport, heads));
        let fields = fields.ok_or(Discard::BadOffload)?;
        Ok(Self { kind, transport, headers, size, len, count: payload.div_ceil(size), v4, fields })
    }

    /// Whether the packets are IPv4.
    #[inline]
    pub(crate) const fn is_v4(&self) -> bool {
        self.v4
    }

    /// How many packets it becomes.
    #[inline]
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Octets of the largest packet.
    #[inline]
    pub(crate) fn largest(&self) -> usize {
        self.headers.saturating_add(self.size).min(self.len)
    }

    /// Octets of the last packet.
    #[inline]
    pub(crate) const fn last(&self) -> usize {
        let before = self.count.saturating_sub(1).saturating_mul(self.size);
        self.len.saturating_sub(before)
    }

    /// The headers of `packet`, to be kept for [`Cut::expose`]; nothing for a single packet.
    #[inline]
    pub(crate) fn headers<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        packet.get(..self.headers).unwrap_or_default()
    }

    /// Writes packet `index` of `packet` to all of `to`.
    #[inline]
    pub(crate) fn write(&self, packet: &[u8], index: usize, to: &mut [u8]) -> Option<()> {
        if self.kind == Kind::Whole {
            to.copy_from_slice(packet.get(..to.len())?);
            return Some(());
        }
        let start = self.headers.checked_add(index.checked_mul(self.size)?)?;
        let (head, payload) = to.split_at_mut_checked(self.headers)?;
        head.copy_from_slice(packet.get(..self.headers)?);
        payload.copy_from_slice(packet.get(start..start.checked_add(payload.len())?)?);
        self.put_right(index, to)
    }

    /// Packet `index` where its payload lies in `packet`: its headers are written over the end of the packet before it.
    /// So packets must be taken in order, and each used before the next.
    #[inline]
    pub(crate) fn expose<'p>(&self, packet: &'p mut [u8], headers: &[u8], index: usize) -> Option<&'p [u8]> {
        let from = index.checked_mul(self.size)?;
        let last = index.checked_add(1)? == self.count;
        let len = if last { self.last() } else { self.largest() };
        let exposed = packet.get_mut(from..from.checked_add(len)?)?;
        if self.kind != Kind::Whole {
            exposed.get_mut(..self.headers)?.copy_from_slice(headers);
            self.put_right(index, exposed)?;
        }
        Some(exposed)
    }

    /// Puts right, in the headers that packet `index` begins with, what differs from the superpacket's.
    #[inline]
    fn put_right(&self, index: usize, packet: &mut [u8]) -> Option<()> {
        let Fields { id, seq, flags, ip: ip_sum, transport: sum } = self.fields;
        let len = packet.len();
        let (ip, segment) = packet.split_at_mut_checked(self.transport)?;
        if self.v4 {
            let header = ip.first_chunk_mut::<20>()?;
            // One superpacket stands for packets with ids that follow each other.
            let id = id.wrapping_add(index as u16);
            let checksum = ip_sum.word(len as u16).word(id).checksum();
            put(header, 2, len as u16)?;
            put(header, 4, id)?;
            put(header, 10, checksum)?;
        } else {
            put(ip, 4, len.checked_sub(40)? as u16)?;
        }
        let octets = segment.len() as u16;
        let (header, payload) = segment.split_at_mut_checked(self.headers.checked_sub(self.transport)?)?;
        let sum = sum.octets(payload).word(octets);
        if self.kind == Kind::Tcp {
            let header = header.first_chunk_mut::<20>()?;
            let seq = seq.wrapping_add(index.checked_mul(self.size)? as u32);
            let mut flags = flags;
            if index.checked_add(1)? != self.count {
                flags &= !FIN_PSH;
            }
            if index != 0 {
                // Congestion window reduced is said once (RFC 3168 §6.1.2).
                flags &= !CWR;
            }
            let checksum = sum.word((seq >> 16) as u16).word(seq as u16).word(flags).checksum();
            put(header, 4, (seq >> 16) as u16)?;
            put(header, 6, seq as u16)?;
            put(header, 12, flags)?;
            put(header, 16, checksum)
        } else {
            let header = header.first_chunk_mut::<8>()?;
            put(header, 4, octets)?;
            put(header, 6, udp(sum.word(octets).checksum()))
        }
    }
}

impl Fields {
    fn read(kind: Kind, v4: bool, transport: usize, headers: &[u8]) -> Option<Self> {
        let (ip, segment) = headers.split_at_checked(transport)?;
        let mut fields = Self::default();
        if v4 {
            fields.id = word(ip, 4)?;
            // 0xffff - x is -x in ones' complement arithmetic.
            fields.ip = Sum::default().octets(ip).word(!word(ip, 2)?).word(!fields.id).word(!word(ip, 10)?);
        }
        let addresses = if v4 { ip.get(12..20)? } else { ip.get(8..40)? };
        if kind == Kind::Tcp {
            let (high, low) = (word(segment, 4)?, word(segment, 6)?);
            fields.seq = u32::from(high) << 16 | u32::from(low);
            fields.flags = word(segment, 12)?;
            fields.transport = pseudo(addresses, proto::TCP, 0)
                .octets(segment)
                .word(!high)
                .word(!low)
                .word(!fields.flags)
                .word(!word(segment, 16)?);
        } else {
            fields.transport = pseudo(addresses, proto::UDP, 0)
                .octets(segment)
                .word(!word(segment, 4)?)
                .word(!word(segment, 6)?);
        }
        Some(fields)
    }
}

#[inline]
fn word(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

#[inline]
fn put(octets: &mut [u8], at: usize, value: u16) -> Option<()> {
    *octets.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

/// UDP has no checksum of 0; its other form stands for it (RFC 768).
const fn udp(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Completes the checksum of a single packet; its field holds the sum of the pseudo-header so far.
fn complete(vnet: &Vnet, packet: &mut [u8], parsed: &Parsed) -> Result<(), Discard> {
    let start = usize::from(vnet.csum_start);
    let field = start.saturating_add(usize::from(vnet.csum_offset));
    let covered = packet.get(start..).ok_or(Discard::BadOffload)?;
    // Within the packet, and not inside its IP header.
    if start < parsed.transport.min(20) || field.saturating_add(2) > packet.len() {
        return Err(Discard::BadOffload);
    }
    // The covered octets begin at an even offset of nothing else: the sum starts with them.
    let checksum = Sum::default().octets(covered).checksum();
    let checksum = if vnet.csum_offset == 6 { udp(checksum) } else { checksum };
    let field = packet.get_mut(field..).and_then(|rest| rest.first_chunk_mut::<2>());
    *field.ok_or(Discard::BadOffload)? = checksum.to_be_bytes();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain_sum(octets: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in octets.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn transport_sum(packet: &[u8], v4: bool, transport: usize, proto: u8) -> u16 {
        let mut octets = if v4 { packet[12..20].to_vec() } else { packet[8..40].to_vec() };
        octets.extend([0, proto]);
        octets.extend(((packet.len() - transport) as u16).to_be_bytes());
        octets.extend(&packet[transport..]);
        plain_sum(&octets)
    }

    /// One superpacket and what describes it, everything random that may be.
    #[derive(Debug)]
    struct Super {
        packet: Vec<u8>,
        vnet: Vnet,
        v4: bool,
        tcp: bool,
        transport: usize,
        headers: usize,
    }

    prop_compose! {
        fn superpacket()(v4: bool, tcp: bool, options in 0..3_usize, size in 1..400_u16, payload in 1..3000_usize,
                         fill: [u8; 40], id: u16, seq: u32, flags: u8, seed: u8) -> Super {
            let transport = if v4 { 20 } else { 40 };
            let header = if tcp { 20 + 4 * options } else { 8 };
            let headers = transport + header;
            let len = headers + payload;
            let proto = if tcp { 6 } else { 17 };
            let mut packet = fill.to_vec();
            packet.resize(len, 0);
            for (i, octet) in packet[transport..].iter_mut().enumerate() { *octet = (i as u8).wrapping_mul(31) ^ seed; }
            if v4 {
                packet[0] = 0x45;
                packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                packet[4..6].copy_from_slice(&id.to_be_bytes());
                packet[6..8].copy_from_slice(&[0x40, 0]);
                packet[9] = proto;
            } else {
                packet[0] = 0x60 | packet[0] & 15;
                packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
                packet[6] = proto;
            }
            if tcp {
                packet[transport + 4..transport + 8].copy_from_slice(&seq.to_be_bytes());
                packet[transport + 12] = ((header / 4) as u8) << 4;
                packet[transport + 13] = flags;
            }
            let gso = match (tcp, v4) { (true, true) => Gso::Tcp4, (true, false) => Gso::Tcp6, (false, _) => Gso::Udp };
            let vnet = Vnet { needs_csum: true, gso, gso_size: size, hdr_len: 3, ..Vnet::default() };
            Super { packet, vnet, v4, tcp, transport, headers }
        }
    }

    /// The same by the book, slowly.
    fn naive(s: &Super) -> Vec<Vec<u8>> {
        let size = usize::from(s.vnet.gso_size);
        let payload = &s.packet[s.headers..];
        let n = payload.len().div_ceil(size);
        payload
            .chunks(size)
            .enumerate()
            .map(|(i, part)| {
                let mut p = s.packet[..s.headers].to_vec();
                p.extend(part);
                let len = p.len();
                let t = s.transport;
                if s.v4 {
                    p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                    let id = u16::from_be_bytes([p[4], p[5]]).wrapping_add(i as u16);
                    p[4..6].copy_from_slice(&id.to_be_bytes());
                    p[10..12].fill(0);
                    let sum = plain_sum(&p[..20]);
                    p[10..12].copy_from_slice(&sum.to_be_bytes());
                } else {
                    p[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
                }
                if s.tcp {
                    let seq = u32::from_be_bytes(p[t + 4..t + 8].try_into().unwrap())
                        .wrapping_add((i * size) as u32);
                    p[t + 4..t + 8].copy_from_slice(&seq.to_be_bytes());
                    if i + 1 < n {
                        p[t + 13] &= !0x09;
                    }
                    if i > 0 {
                        p[t + 13] &= !0x80;
                    }
                    p[t + 16..t + 18].fill(0);
                    let sum = transport_sum(&p, s.v4, t, 6);
                    p[t + 16..t + 18].copy_from_slice(&sum.to_be_bytes());
                } else {
                    p[t + 4..t + 6].copy_from_slice(&((len - t) as u16).to_be_bytes());
                    p[t + 6..t + 8].fill(0);
                    let sum = transport_sum(&p, s.v4, t, 17);
                    p[t + 6..t + 8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
                }
                p
            })
            .collect()
    }

    fn cut(vnet: &Vnet, packet: &mut [u8]) -> Result<Vec<Vec<u8>>, Discard> {
        let parsed = Parsed::new(packet)?;
        let cut = Cut::plan(vnet, packet, &parsed)?;
        assert!(cut.largest() <= packet.len() && cut.last() <= cut.largest());
        (0..cut.count())
            .map(|i| {
                let mut to = vec![0xee; if i + 1 == cut.count() { cut.last() } else { cut.largest() }];
                cut.write(packet, i, &mut to).ok_or(Discard::Internal)?;
                Ok(to)
            })
            .collect()
    }

    /// The same packets, each exposed where it lies.
    fn exposed(vnet: &Vnet, packet: &mut [u8]) -> Result<Vec<Vec<u8>>, Discard> {
        let parsed = Parsed::new(packet)?;
        let cut = Cut::plan(vnet, packet, &parsed)?;
        let headers = cut.headers(packet).to_vec();
        let take = |i| Ok(cut.expose(packet, &headers, i).ok_or(Discard::Internal)?.to_vec());
        (0..cut.count()).map(take).collect()
    }

    proptest! {
        #[test]
        fn a_superpacket_is_cut_as_the_book_says(s in superpacket()) {
            let want = naive(&s);
            let mut packet = s.packet.clone();
            prop_assert_eq!(cut(&s.vnet, &mut packet), Ok(want.clone()));
            prop_assert_eq!(exposed(&s.vnet, &mut packet), Ok(want));
        }

        #[test]
        fn hostile_offload_headers_are_refused_or_survived(s in superpacket(), octets: [u8; 10], shorten: prop::sample::Index) {
            let mut packet = s.packet.clone();
            packet.truncate(shorten.index(packet.len()) + 1);
            if let Ok(vnet) = Vnet::parse(&octets) {
                prop_assert!(cut(&vnet, &mut packet) != Err(Discard::Internal));
                prop_assert!(exposed(&vnet, &mut packet) != Err(Discard::Internal));
            }
        }

        #[test]
        fn an_unfinished_checksum_is_completed(s in superpacket()) {
            // One packet with only the pseudo-header in its checksum field, as the kernel hands it over.
            let proto = if s.tcp { 6 } else { 17 };
            let at = s.transport + if s.tcp { 16 } else { 6 };
            let mut packet = s.packet.clone();
            if !s.tcp {
                let len = ((packet.len() - s.transport) as u16).to_be_bytes();
                packet[s.transport + 4..s.transport + 6].copy_from_slice(&len);
            }
            packet[at..at + 2].fill(0);
            let want = transport_sum(&packet, s.v4, s.transport, proto);
            let mut header = if s.v4 { packet[12..20].to_vec() } else { packet[8..40].to_vec() };
            header.extend([0, proto]);
            header.extend(((packet.len() - s.transport) as u16).to_be_bytes());
            let partial = !plain_sum(&header);
            packet[at..at + 2].copy_from_slice(&partial.to_be_bytes());
            let vnet = Vnet { needs_csum: true, csum_start: s.transport as u16, csum_offset: if s.tcp { 16 } else { 6 },
                              ..Vnet::default() };
            let got = cut(&vnet, &mut packet).unwrap();
            let want = if !s.tcp && want == 0 { 0xffff } else { want };
            prop_assert_eq!(u16::from_be_bytes([got[0][at], got[0][at + 1]]), want);
        }
    }
}
