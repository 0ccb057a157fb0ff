//! Merging received segments of one flow into superpackets, so that one write to the device carries many.
//!
//! The rules are stricter than those of Linux' own GRO: a superpacket is only ever what some sender's GSO could have cut
//! into exactly the packets that came, octet for octet. (One exception: an IPv4 packet with DF is atomic, and its
//! identification means nothing (RFC 6864 §4.1); numbers that do not count up are replaced by ones that do.)
//! * Merging hands the checksum over to the device to complete, so a wrong one would be laundered: IPv4 header and
//!   transport checksums are verified before a packet is merged.
//! * Packets of a flow keep their order: a packet joins only its flow's last write, or begins a new one after it.
//! * ECN has been carried inwards before, and packets with different marks are never merged (RFC 6040 §4.2).

use crate::admit::Admitted;
use crate::checksum::{Sum, pseudo};
use crate::packet::{Gso, Vnet};
use arrayvec::ArrayVec;
use core::ops::Range;

/// Pieces of one superpacket.
const PIECES: u32 = 64;
/// Octets of one superpacket: what an IP length field can say.
const LONGEST: usize = 65_535;
/// Flows that may be collecting at once.
const OPEN: usize = 8;
/// "No packet follows".
const END: u32 = u32::MAX;

const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const DONT_FRAGMENT: u16 = 0x4000;

/// UDP ports of tunnels, whose own offloads would not survive it: VXLAN, Geneve, VXLAN as Linux numbered it first, GTP-U,
/// GRE in UDP (RFC 8086), WireGuard.
const TUNNEL_PORTS: [u16; 6] = [4789, 6081, 8472, 2152, 4754, 51820];

/// The packets of one write, linked through [`Merged::next`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    head: u32,
    tail: u32,
    count: u32,
    /// The head's shape; `None` for a packet that can be nothing but alone.
    shape: Option<Shape>,
    /// Octets of all headers and payloads together.
    len: usize,
    /// The TCP sequence number, and the IPv4 identification, that would carry on.
    seq: u32,
    id: u16,
    /// The head's checksums were found to be right.
    verified: bool,
}

/// What tells one flow from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    src: u128,
    dst: u128,
    ports: [u8; 4],
    /// TCP or UDP, and the IP version.
    kind: Gso,
    version: u8,
}

/// Where things are in a packet that may be merged.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: Gso,
    transport: usize,
    headers: usize,
    payload: usize,
    seq: u32,
    id: u16,
    dont_fragment: bool,
    /// FIN or PSH: nothing may follow in this superpacket.
    last: bool,
}

/// What a packet means for the merging of others.
enum Class {
    /// It may be merged.
    Segment(Key, Shape),
    /// Its flow is known, but it must stay alone and in its place.
    Alone(Key),
    /// It may belong to any flow between these addresses (fragments, options, other protocols).
    Unknown(u128, u128),
    /// It belongs to no flow that is ever merged.
    Stranger,
}

/// The flows that are collecting, and the chain each collects in.
type Flows = ArrayVec<(Key, usize), OPEN>;

/// A range of the buffer that packets were merged in: offset and length.
pub(crate) type Piece = (u32, u32);

/// What the packets of one buffer became. Nothing is allocated once the batches have reached their usual size.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    chains: Vec<Chain>,
    /// For each packet, the one that follows it in its superpacket.
    next: Vec<u32>,
    pieces: Vec<Piece>,
    writes: Vec<(Vnet, Range<u32>)>,
}

impl Merged {
    /// Room for `packets`.
    pub(crate) fn new(packets: usize) -> Self {
        Self {
            chains: Vec::with_capacity(packets),
            next: Vec::with_capacity(packets),
            pieces: Vec::with_capacity(packets),
            writes: Vec::with_capacity(packets),
        }
    }

    /// Forgets everything; keeps the room.
    pub(crate) fn clear(&mut self) {
        self.chains.clear();
        self.next.clear();
        self.pieces.clear();
        self.writes.clear();
    }

    /// The writes, each a header and the pieces of one packet or superpacket, in the order they must happen.
    pub(crate) fn writes(&self) -> impl Iterator<Item = (Vnet, &[Piece])> {
        self.writes.iter().map(|(vnet, pieces)| {
            (*vnet, self.pieces.get(pieces.start as usize..pieces.end as usize).unwrap_or_default())
        })
    }
}

/// Merges segments of one flow where that changes nothing for the receiver, if `tcp` and `udp` allow it. Edits headers in
/// `buffer`, in which the packets lie.
pub(crate) fn merge(packets: &[Admitted], buffer: &mut [u8], (tcp, udp): (bool, bool), merged: &mut Merged) {
    merged.clear();
    let mut flows = Flows::new();
    for (index, packet) in packets.iter().enumerate() {
        let index = index as u32;
        merged.next.push(END);
        let octets = buffer.get(packet.range()).unwrap_or_default();
        let class = if tcp || udp { classify(octets, tcp, udp) } else { Class::Stranger };
        let (key, shape) = match class {
            Class::Segment(key, shape) => (Some(key), Some(shape)),
            Class::Alone(key) => (Some(key), None),
            Class::Unknown(src, dst) => {
                flows.retain(|(key, _)| key.src != src || key.dst != dst);
                (None, None)
            }
            Class::Stranger => (None, None),
        };
        let position = key.and_then(|key| flows.iter().position(|(open, _)| *open == key));
        if let (Some(position), Some(shape)) = (position, shape)
            && let Some((_, chain)) = flows.get(position)
            && let Some(chain) = merged.chains.get_mut(*chain)
            && chain.takes(&shape, octets, packets.get(chain.head as usize).map(Admitted::range), buffer)
        {
            if let Some(link) = merged.next.get_mut(chain.tail as usize) {
                *link = index;
            }
            if !chain.append(index, &shape) {
                flows.swap_remove(position);
            }
            continue;
        }
        // A packet that does not carry its flow's last write on ends it.
        if let Some(position) = position {
            flows.swap_remove(position);
        }
        let chain = Chain::new(index, shape, octets.len());
        if let (Some(key), Some(shape)) = (key, shape)
            && !shape.last
        {
            if flows.is_full() {
                flows.remove(0);
            }
            flows.push((key, merged.chains.len()));
        }
        merged.chains.push(chain);
    }
    write_out(packets, buffer, merged);
}

/// Turns chains into writes and gives superpackets their headers.
fn write_out(packets: &[Admitted], buffer: &mut [u8], merged: &mut Merged) {
    for chain in &merged.chains {
        let begin = merged.pieces.len() as u32;
        let mut index = chain.head;
        let mut skip = 0;
        let mut last_flags = 0;
        while let Some(packet) = packets.get(index as usize) {
            let range = packet.range();
            if let Some(shape) = chain.shape.filter(|shape| shape.kind != Gso::Udp) {
                let flags = range.start.saturating_add(shape.transport).saturating_add(13);
                last_flags = buffer.get(flags).copied().unwrap_or_default();
            }
            let piece = (range.start.saturating_add(skip) as u32, range.len().saturating_sub(skip) as u32);
            merged.pieces.push(piece);
            skip = chain.shape.map_or(0, |shape| shape.headers);
            index = merged.next.get(index as usize).copied().unwrap_or(END);
        }
        let end = merged.pieces.len() as u32;
        let head = packets.get(chain.head as usize).and_then(|head| buffer.get_mut(head.range()));
        let vnet = match (chain.shape, head) {
            (Some(shape), Some(head)) if chain.count > 1 => {
                superheader(&shape, chain.len, last_flags, head).unwrap_or_default()
            }
            _ => Vnet::default(),
        };
        merged.writes.push((vnet, begin..end));
    }
}

/// Rewrites the head's headers for `len` octets in all and describes them to the device (virtio 1.2 §5.1.6.2).
fn superheader(shape: &Shape, len: usize, last_flags: u8, head: &mut [u8]) -> Option<Vnet> {
    let (ip, transport) = head.split_at_mut_checked(shape.transport)?;
    let segment = u16::try_from(len.saturating_sub(shape.transport)).ok()?;
    if ip.len() == IPV4_HEADER {
        let length = u16::try_from(len).ok()?;
        ip.get_mut(2..4)?.copy_from_slice(&length.to_be_bytes());
        ip.get_mut(10..12)?.fill(0);
        let sum = Sum::default().octets(ip).checksum();
        ip.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    } else {
        ip.get_mut(4..6)?.copy_from_slice(&segment.to_be_bytes());
    }
    let (proto, csum_offset) = match shape.kind {
        Gso::Udp => {
            transport.get_mut(4..6)?.copy_from_slice(&segment.to_be_bytes());
            (UDP, 6_usize)
        }
        Gso::Tcp4 | Gso::Tcp6 | Gso::None => {
            *transport.get_mut(13)? |= last_flags & (FIN | PSH);
            (TCP, 16)
        }
    };
    // The device adds the rest of the sum to this, once for each packet it cuts.
    let partial = pseudo(addresses(ip)?, proto, segment.into()).folded();
    transport.get_mut(csum_offset..csum_offset.saturating_add(2))?.copy_from_slice(&partial.to_be_bytes());
    Some(Vnet {
        needs_csum: true,
        gso: shape.kind,
        ecn: false,
        hdr_len: shape.headers as u16,
        gso_size: shape.payload as u16,
        csum_start: shape.transport as u16,
        csum_offset: csum_offset as u16,
    })
}

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// The addresses of a plain header, for the pseudo-header.
fn addresses(ip: &[u8]) -> Option<&[u8]> {
    if ip.len() == IPV4_HEADER { ip.get(12..20) } else { ip.get(8..40) }
}

impl Chain {
    fn new(index: u32, shape: Option<Shape>, len: usize) -> Self {
        Self {
            head: index,
            tail: index,
            count: 1,
            shape,
            len,
            seq: shape.map_or(0, |shape| shape.seq.wrapping_add(shape.payload as u32)),
            id: shape.map_or(0, |shape| shape.id.wrapping_add(1)),
            verified: false,
        }
    }

    /// Whether a packet carries this superpacket on.
    fn takes(&mut self, shape: &Shape, octets: &[u8], head: Option<Range<usize>>, rx: &[u8]) -> bool {
        let (Some(first), Some(head)) = (self.shape, head.and_then(|head| rx.get(head))) else {
            return false;
        };
        let udp = shape.kind == Gso::Udp;
        let fits = self.count < PIECES
            && self.len.saturating_add(shape.payload) <= LONGEST
            && shape.headers == first.headers
            && shape.payload <= first.payload
            && (!udp || shape.payload == first.payload)
            && (udp || shape.seq == self.seq)
            && (shape.dont_fragment || shape.id == self.id)
            && same_headers(&first, head, octets);
        if !fits || !verified(shape, octets) {
            return false;
        }
        self.verified = self.verified || verified(&first, head);
        self.verified
    }

    /// Appends a packet; says whether another may follow.
    fn append(&mut self, index: u32, shape: &Shape) -> bool {
        self.tail = index;
        self.count = self.count.saturating_add(1);
        self.len = self.len.saturating_add(shape.payload);
        self.seq = self.seq.wrapping_add(shape.payload as u32);
        self.id = self.id.wrapping_add(1);
        !shape.last && self.shape.is_some_and(|first| shape.payload == first.payload)
    }
}

/// Whether two packets of one flow differ in nothing but lengths, checksums, identification, sequence number, FIN and PSH.
fn same_headers(shape: &Shape, a: &[u8], b: &[u8]) -> bool {
    let same = |range: Range<usize>| match (a.get(range.clone()), b.get(range)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    };
    let t = shape.transport;
    // Version, traffic class and flow label, next header and hop limit; or TOS, TTL and protocol.
    let ip = if t == IPV6_HEADER { same(0..4) && same(6..8) } else { same(0..2) && same(6..10) };
    ip && (shape.kind == Gso::Udp || {
        let flags = t.saturating_add(13);
        let (ack, window) = (t.saturating_add(8), t.saturating_add(14));
        let (urgent, sum) = (t.saturating_add(18), t.saturating_add(16));
        let other = !(FIN | PSH);
        same(ack..flags)
            && a.get(flags).zip(b.get(flags)).is_some_and(|(a, b)| a & other == b & other)
            && same(window..sum)
            && same(urgent..shape.headers)
    })
}

/// Whether the IPv4 header's and the segment's checksums are what a sender would have computed. All ones in place of zero
/// is right too, but is not what will be computed again (RFC 1624 §3); for UDP it is the only form of zero.
fn verified(shape: &Shape, octets: &[u8]) -> bool {
    let Some((ip, segment)) = octets.split_at_checked(shape.transport) else {
        return false;
    };
    if ip.len() == IPV4_HEADER
        && (ip.get(10..12) == Some(&[0xff, 0xff]) || Sum::default().octets(ip).folded() != 0xffff)
    {
        return false;
    }
    let (proto, stored) = if shape.kind == Gso::Udp { (UDP, None) } else { (TCP, segment.get(16..18)) };
    let Some(addresses) = addresses(ip) else {
        return false;
    };
    stored != Some(&[0xff, 0xff])
        && pseudo(addresses, proto, segment.len()).octets(segment).folded() == 0xffff
}

/// Measures a packet. Anything out of the ordinary is not a segment.
fn classify(octets: &[u8], tcp: bool, udp: bool) -> Class {
    let Some((addresses, rest)) = read_ip(octets) else {
        return Class::Stranger;
    };
    let (src, dst) = addresses;
    let Some(ip) = rest else {
        return Class::Unknown(src, dst);
    };
    let Some(&[s0, s1, d0, d1]) = ip.segment.first_chunk::<4>() else {
        return Class::Unknown(src, dst);
    };
    let v6 = ip.transport == IPV6_HEADER;
    let kind = match (ip.proto, v6) {
        (TCP, false) if tcp => Gso::Tcp4,
        (TCP, true) if tcp => Gso::Tcp6,
        (UDP, _) if udp => Gso::Udp,
        (TCP | UDP, _) => return Class::Stranger,
        _ => return Class::Unknown(src, dst),
    };
    let key = Key { src, dst, ports: [s0, s1, d0, d1], kind, version: if v6 { 6 } else { 4 } };
    let measured = if kind == Gso::Udp { measure_udp(&ip) } else { measure_tcp(&ip) };
    match measured {
        Some((header, seq, last)) => {
            let shape = Shape {
                kind,
                transport: ip.transport,
                headers: ip.transport.saturating_add(header),
                payload: ip.segment.len().saturating_sub(header),
                seq,
                id: ip.id,
                dont_fragment: ip.dont_fragment,
                last,
            };
            Class::Segment(key, shape)
        }
        None => Class::Alone(key),
    }
}

/// An IP packet without options, extension headers or fragmentation.
struct Plain<'p> {
    transport: usize,
    proto: u8,
    id: u16,
    dont_fragment: bool,
    segment: &'p [u8],
}

/// The addresses of a packet, and the rest of it if it is plain.
fn read_ip(octets: &[u8]) -> Option<((u128, u128), Option<Plain<'_>>)> {
    if let Some((header, segment)) = octets.split_first_chunk::<IPV6_HEADER>()
        && header[0] >> 4 == 6
    {
        let [_, _, _, _, l0, l1, proto, _, rest @ ..] = header;
        let (src, dst) = rest.split_first_chunk::<16>()?;
        let addresses = (u128::from_be_bytes(*src), u128::from_be_bytes(dst.first_chunk().copied()?));
        let whole = usize::from(u16::from_be_bytes([*l0, *l1])) == segment.len();
        let plain = Plain { transport: IPV6_HEADER, proto: *proto, id: 0, dont_fragment: true, segment };
        return Some((addresses, whole.then_some(plain)));
    }
    let (header, segment) = octets.split_first_chunk::<IPV4_HEADER>()?;
    let &[first, _, l0, l1, i0, i1, f0, f1, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let src = u32::from_be_bytes([s0, s1, s2, s3]).into();
    let dst = u32::from_be_bytes([d0, d1, d2, d3]).into();
    let flags = u16::from_be_bytes([f0, f1]);
    let whole = usize::from(u16::from_be_bytes([l0, l1])) == octets.len();
    let plain = Plain {
        transport: IPV4_HEADER,
        proto,
        id: u16::from_be_bytes([i0, i1]),
        dont_fragment: flags == DONT_FRAGMENT,
        segment,
    };
    let simple = first == 0x45 && whole && flags & !DONT_FRAGMENT == 0;
    Some(((src, dst), simple.then_some(plain)))
}

/// Header length, sequence number, and whether it must be its superpacket's last; `None` if it must be alone.
fn measure_tcp(ip: &Plain<'_>) -> Option<(usize, u32, bool)> {
    let &[_, _, _, _, q0, q1, q2, q3, _, _, _, _, offset, flags, _, _, _, _, _, _] =
        ip.segment.first_chunk::<20>()?;
    let header = usize::from(offset >> 4).saturating_mul(4);
    // The four bits beside the data offset are reserved, but for the one of AccECN, which changes from packet to packet.
    let plain = offset & 0x0f == 0 && flags & ACK != 0 && flags & !(ACK | PSH | FIN | ECE) == 0;
    let payload = header >= 20 && ip.segment.len() > header;
    (plain && payload).then(|| (header, u32::from_be_bytes([q0, q1, q2, q3]), flags & (FIN | PSH) != 0))
}

/// As [`measure_tcp`]; datagrams have no sequence numbers and no last one.
fn measure_udp(ip: &Plain<'_>) -> Option<(usize, u32, bool)> {
    let &[s0, s1, d0, d1, l0, l1, c0, c1] = ip.segment.first_chunk::<8>()?;
    let ports = [u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])];
    let tunnel = ports.iter().any(|port| TUNNEL_PORTS.contains(port));
    let whole = usize::from(u16::from_be_bytes([l0, l1])) == ip.segment.len();
    // A datagram without a checksum would get one.
    let summed = [c0, c1] != [0, 0];
    (!tunnel && whole && summed && ip.segment.len() > 8).then_some((8, 0, false))
}

#[cfg(test)]
mod tests;
