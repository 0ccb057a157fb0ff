//! IP headers that are changed or written: where an IPsec header goes in a packet, and new outer headers.
//!
//! What a packet *is* to policy is measured by [`crate::packet::Parsed`]; this is for the general way, which puts headers in
//! and takes them out again.

use crate::checksum::Sum;
use crate::extension::{DESTINATION, HOP_BY_HOP, ROUTING, Walk};
use core::net::IpAddr;

/// The TTL or hop limit of outer headers.
const TTL: u8 = 64;
/// "Don't fragment", in the first octet of the flags of IPv4.
const DF: u8 = 0x40;

/// The part of a packet that stays before an IPsec header in transport mode: the IPv4 header with its options, or the IPv6
/// header with the extension headers that routers look at (RFC 4302 §3.1.1, RFC 4303 §3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Octets of it.
    pub(crate) len: usize,
    /// Where the octet is that names what follows.
    pub(crate) next_at: usize,
    /// What follows: an IP protocol number.
    pub(crate) next: u8,
}

impl Head {
    /// Finds it; `None` if the packet is not one.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let len = usize::from(packet.first()? & 15).checked_mul(4)?;
                let next = *packet.get(9)?;
                (len >= 20 && len <= packet.len()).then_some(Self { len, next_at: 9, next })
            }
            6 => Self::v6(packet),
            _ => None,
        }
    }

    fn v6(packet: &[u8]) -> Option<Self> {
        let mut head = Self { len: 40, next_at: 6, next: *packet.get(6)? };
        let mut walk = Walk::new(head.next);
        while let Some(extension) = walk.step(packet).ok()? {
            // Destination options are for routers on the way only where a routing header follows them.
            let before = match extension.kind {
                HOP_BY_HOP | ROUTING => true,
                DESTINATION => extension.next == ROUTING,
                _ => false,
            };
            if !before {
                break;
            }
            head = Self { len: extension.end, next_at: extension.at, next: extension.next };
        }
        Some(head)
    }

    /// Says what follows.
    pub(crate) fn name_next(&self, packet: &mut [u8], next: u8) -> Option<()> {
        *packet.get_mut(self.next_at)? = next;
        Some(())
    }
}

/// Puts right the lengths and, over IPv4, the checksum of a packet that begins with its IP header and is whole.
pub(crate) fn settle(packet: &mut [u8]) -> Option<()> {
    let len = packet.len();
    if packet.first()? >> 4 == 4 {
        let header = usize::from(packet.first()? & 15).checked_mul(4)?;
        packet.get_mut(2..4)?.copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
        packet.get_mut(10..12)?.fill(0);
        let sum = Sum::default().octets(packet.get(..header)?).checksum();
        packet.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    } else {
        let payload = u16::try_from(len.checked_sub(40)?).ok()?;
        packet.get_mut(4..6)?.copy_from_slice(&payload.to_be_bytes());
    }
    Some(())
}

/// What a new outer header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// What follows: an IP protocol number.
    pub(crate) next: u8,
    pub(crate) tos: u8,
    /// The identification; means nothing over IPv6.
    pub(crate) id: u16,
    /// Whether routers must not fragment it (RFC 4301 §8.1); means nothing over IPv6.
    pub(crate) dont_fragment: bool,
}

impl Outer {
    /// Octets of it.
    pub(crate) const fn len(v4: bool) -> usize {
        if v4 { 20 } else { 40 }
    }

    /// Writes it to `room`, lengths and checksum left to [`settle`].
    pub(crate) fn write(&self, room: &mut [u8]) -> Option<()> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = room.first_chunk_mut::<20>()?;
                let [i0, i1] = self.id.to_be_bytes();
                let ([a, b, c, d], [e, f, g, h]) = (src.octets(), dst.octets());
                let df = if self.dont_fragment { DF } else { 0 };
                *header = [0x45, self.tos, 0, 0, i0, i1, df, 0, TTL, self.next, 0, 0, a, b, c, d, e, f, g, h];
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = room.first_chunk_mut::<40>()?;
                header.fill(0);
                *header.first_chunk_mut::<8>()? =
                    [0x60 | self.tos >> 4, self.tos << 4, 0, 0, 0, 0, self.next, TTL];
                header.get_mut(8..24)?.copy_from_slice(&src.octets());
                header.get_mut(24..40)?.copy_from_slice(&dst.octets());
            }
            _ => return None,
        }
        Some(())
    }
}

/// Source and destination of a packet.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<16>()?));
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}

/// Whether a packet is of IPv4 and routers must not fragment it.
pub(crate) fn has_df(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 4) && packet.get(6).is_some_and(|flags| flags & DF != 0)
}

/// TOS or traffic class of a packet.
pub(crate) fn tos(packet: &[u8]) -> Option<u8> {
    let &[first, second] = packet.first_chunk::<2>()?;
    Some(if first >> 4 == 6 { first << 4 | second >> 4 } else { second })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 packet with these extension headers, eight octets each, before UDP.
    fn v6(extensions: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, extensions.first().copied().unwrap_or(17), 64];
        packet.extend([1; 32]);
        for (index, _) in extensions.iter().enumerate() {
            packet.extend([extensions.get(index + 1).copied().unwrap_or(17), 0, 1, 4, 0, 0, 0, 0]);
        }
        packet.extend([0; 8]);
        packet
    }

    #[test]
    fn an_ipsec_header_goes_behind_what_routers_look_at() {
        let head = |extensions: &[u8]| Head::read(&v6(extensions)).map(|head| (head.len, head.next));
        assert_eq!(head(&[]), Some((40, 17)));
        assert_eq!(head(&[0]), Some((48, 17)));
        assert_eq!(head(&[0, 43]), Some((56, 17)));
        // Destination options: for routers before a routing header, for the destination otherwise (RFC 8200 §4.1).
        assert_eq!(head(&[0, 60, 43]), Some((64, 17)));
        assert_eq!(head(&[0, 43, 60]), Some((56, 60)));
        assert_eq!(head(&[60]), Some((40, 60)));
        assert_eq!(head(&[0; 8]), Some((104, 17)));
        assert_eq!(head(&[0; 9]), None);
        let mut options = vec![0x46, 0, 0, 24, 0, 0, 0, 0, 9, 17, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 148, 4, 0, 0];
        assert_eq!(Head::read(&options), Some(Head { len: 24, next_at: 9, next: 17 }));
        options.truncate(23);
        assert_eq!(Head::read(&options), None);
    }

    /// The outer header of every captured packet, given its identification.
    #[test]
    fn a_new_header_is_what_another_host_would_write() {
        let text = include_str!("../../ipsec-core/tests/data/wire.json");
        let sets: serde_json::Value = serde_json::from_str(text).unwrap();
        // Whoever cut that one short has left the checksum of a longer one.
        let others = ["cleartext-pings", "esp-truncated-24"];
        let sets =
            sets.as_array().unwrap().iter().filter(|set| !others.iter().any(|name| set["name"] == *name));
        let packets = sets.flat_map(|set| set["ip_packets"].as_array().unwrap());
        let mut written = 0;
        for packet in packets {
            let packet = hex::decode(packet.as_str().unwrap()).unwrap();
            let outer = Outer {
                src: [192, 1, 2, 23].into(),
                dst: [192, 1, 2, 45].into(),
                next: packet[9],
                tos: 0,
                id: u16::from_be_bytes([packet[4], packet[5]]),
                dont_fragment: false,
            };
            let mut again = vec![0; 20];
            again.extend(&packet[20..]);
            outer.write(&mut again).unwrap();
            settle(&mut again).unwrap();
            assert_eq!(hex::encode(&again), hex::encode(&packet));
            written += 1;
        }
        assert_eq!(written, 5 * 8 + 3);
    }
}
