//! IP packets as the data plane sees them: parsed once, from hostile octets.

use crate::discard::Discard;
use crate::extension::{FRAGMENT, Walk};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use ipsec_core::Flow;

/// IP protocol numbers the packet path knows by name.
pub(crate) mod proto {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IPIP: u8 = 4;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const IPV6: u8 = 41;
    pub(crate) const ICMPV6: u8 = 58;
    /// "No next header": what a dummy packet of ESP holds (RFC 4303 §2.6).
    pub(crate) const NONE: u8 = 59;
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const F_NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_ECN`.
const GSO_ECN: u8 = 0x80;

/// What kind of superpacket a TUN read delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// One packet.
    #[default]
    None,
    /// TCP over IPv4, to be cut into segments (TSO4).
    Tcp4,
    /// TCP over IPv6 (TSO6).
    Tcp6,
    /// UDP, to be cut into datagrams (USO).
    Udp,
}

/// The `virtio_net_hdr` before every packet of a TUN device opened with `IFF_VNET_HDR` (virtio 1.2 §5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vnet {
    /// The transport checksum holds only the pseudo-header sum; it must be completed.
    pub needs_csum: bool,
    /// What to cut.
    pub gso: Gso,
    /// The TCP superpacket carries CWR on its first segment only.
    pub ecn: bool,
    /// Length of all headers as the kernel claims it; not to be trusted on input.
    pub hdr_len: u16,
    /// Payload octets per segment.
    pub gso_size: u16,
    /// Where the checksum begins, from the start of the packet.
    pub csum_start: u16,
    /// Where the checksum is stored, from `csum_start`.
    pub csum_offset: u16,
}

impl Vnet {
    /// Octets on the device.
    pub const LEN: usize = 10;

    /// Reads the header in host byte order.
    pub fn parse(octets: &[u8; Self::LEN]) -> Result<Self, Discard> {
        let &[flags, gso, h0, h1, g0, g1, s0, s1, o0, o1] = octets;
        let kind = match gso & !GSO_ECN {
            0 => Gso::None,
            1 => Gso::Tcp4,
            4 => Gso::Tcp6,
            5 => Gso::Udp,
            _ => return Err(Discard::BadOffload),
        };
        Ok(Self {
            needs_csum: flags & F_NEEDS_CSUM != 0,
            gso: kind,
            ecn: gso & GSO_ECN != 0,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        })
    }

    /// Writes the header in host byte order.
    pub fn octets(&self) -> [u8; Self::LEN] {
        let gso = match self.gso {
            Gso::None => 0,
            Gso::Tcp4 => 1,
            Gso::Tcp6 => 4,
            Gso::Udp => 5,
        };
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        let flags = if self.needs_csum { F_NEEDS_CSUM } else { 0 };
        [flags, gso | if self.ecn { GSO_ECN } else { 0 }, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

/// One IP packet, measured: what policy and tunnelling need to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// Its identity for policy.
    pub flow: Flow,
    /// Length of the IP header with its options or extension headers: where the transport header begins.
    pub transport: usize,
    /// Total length by the IP header; the octets may be longer.
    pub len: usize,
    /// TOS or traffic class.
    pub tos: u8,
    /// Must not be fragmented (IPv6, or IPv4 with DF).
    pub dont_fragment: bool,
    /// A fragment, the first included.
    pub fragment: bool,
    /// A fragment that is not the first: it has no ports.
    pub later_fragment: bool,
}

impl Parsed {
    /// Measures a packet. Octets beyond the length its header claims are not looked at.
    #[inline]
    pub(crate) fn new(octets: &[u8]) -> Result<Self, Discard> {
        match octets.first().ok_or(Discard::Malformed)? >> 4 {
            4 => Self::v4(octets),
            6 => Self::v6(octets),
            _ => Err(Discard::Malformed),
        }
    }

    fn v4(octets: &[u8]) -> Result<Self, Discard> {
        let header = octets.first_chunk::<20>().ok_or(Discard::Malformed)?;
        let &[first, tos, l0, l1, _, _, f0, f1, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
        let transport = usize::from(first & 15).saturating_mul(4);
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        if transport < 20 || transport > len || len > octets.len() {
            return Err(Discard::Malformed);
        }
        let fragmentation = u16::from_be_bytes([f0, f1]);
        let later_fragment = fragmentation & 0x1fff != 0;
        let payload = octets.get(transport..len).ok_or(Discard::Malformed)?;
        let (sport, dport) = ports(proto, payload, later_fragment);
        Ok(Self {
            flow: Flow {
                src: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
                dst: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
                proto,
                sport,
                dport,
            },
            transport,
            len,
            tos,
            dont_fragment: fragmentation & 0x4000 != 0,
            fragment: fragmentation & 0x3fff != 0,
            later_fragment,
        })
    }

    fn v6(octets: &[u8]) -> Result<Self, Discard> {
        let (header, _) = octets.split_first_chunk::<40>().ok_or(Discard::Malformed)?;
        let &[v0, v1, _, _, l0, l1, next, _, ref addresses @ ..] = header;
        let len = usize::from(u16::from_be_bytes([l0, l1])).saturating_add(40);
        let octets = octets.get(..len).ok_or(Discard::Malformed)?;
        let (src, dst) = addresses.split_first_chunk::<16>().ok_or(Discard::Malformed)?;
        let dst = dst.first_chunk::<16>().ok_or(Discard::Malformed)?;
        let mut walk = Walk::new(next);
        let (mut fragment, mut later_fragment) = (false, false);
        // What follows the header of a later fragment is no header; fragments of fragments are put together by nobody here.
        while !(later_fragment || fragment && walk.next() == FRAGMENT) {
            let Some(extension) = walk.step(octets)? else { break };
            if extension.kind == FRAGMENT {
                let word = octets.get(extension.at.saturating_add(2)..).and_then(<[u8]>::first_chunk);
                let offset = u16::from_be_bytes(*word.ok_or(Discard::Malformed)?);
                fragment = offset & 0xfff9 != 0;
                later_fragment = offset & 0xfff8 != 0;
            }
        }
        let (proto, transport) = (walk.next(), walk.at());
        let payload = octets.get(transport..).ok_or(Discard::Malformed)?;
        let (sport, dport) = ports(proto, payload, later_fragment);
        Ok(Self {
            flow: Flow {
                src: IpAddr::V6(Ipv6Addr::from(*src)),
                dst: IpAddr::V6(Ipv6Addr::from(*dst)),
                proto,
                sport,
                dport,
            },
            transport,
            len,
            tos: v0 << 4 | v1 >> 4,
            dont_fragment: true,
            fragment,
            later_fragment,
        })
    }
}

/// The ports of protocols that have them where these have them: TCP, UDP, DCCP, SCTP and UDP-Lite. ICMP has type and code in
/// the place of both, as IKE negotiates them (RFC 4301 §4.4.1.1, RFC 7296 §3.13.1).
#[inline]
fn ports(proto: u8, payload: &[u8], later_fragment: bool) -> (u16, u16) {
    if later_fragment || !matches!(proto, proto::TCP | proto::UDP | 33 | 132 | 136) {
        return if later_fragment { (0, 0) } else { type_and_code(proto, payload) };
    }
    payload
        .first_chunk::<4>()
        .map_or((0, 0), |&[s0, s1, d0, d1]| (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

#[inline]
fn type_and_code(proto: u8, payload: &[u8]) -> (u16, u16) {
    match (proto, payload.first_chunk::<2>()) {
        (proto::ICMP | proto::ICMPV6, Some(octets)) => {
            let both = u16::from_be_bytes(*octets);
            (both, both)
        }
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An IPv4 TCP packet 10.0.0.1:1000 → 10.0.0.2:80 with DF.
    fn v4() -> Vec<u8> {
        hex::decode("4500002800014000400600000a0000010a00000203e8005000000001000000025010ffff00000000")
            .unwrap()
    }

    #[test]
    fn an_ipv4_packet_is_measured() {
        let p = Parsed::new(&v4()).unwrap();
        assert_eq!((p.transport, p.len, p.dont_fragment, p.fragment), (20, 40, true, false));
        assert_eq!((p.flow.proto, p.flow.sport, p.flow.dport), (6, 1000, 80));
        assert_eq!(p.flow.src.to_string(), "10.0.0.1");
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut octets = v4();
        octets[6..8].copy_from_slice(&[0x20, 0x05]);
        let p = Parsed::new(&octets).unwrap();
        assert!(p.fragment && p.later_fragment);
        assert_eq!((p.flow.sport, p.flow.dport), (0, 0));
        octets[6..8].copy_from_slice(&[0x20, 0x00]);
        let p = Parsed::new(&octets).unwrap();
        assert!(p.fragment && !p.later_fragment);
        assert_eq!(p.flow.dport, 80);
    }

    #[test]
    fn icmp_shows_its_type_and_code_and_a_later_fragment_nothing() {
        let mut octets = v4();
        octets[9] = 1;
        octets[20..22].copy_from_slice(&[3, 4]);
        let flow = Parsed::new(&octets).unwrap().flow;
        assert_eq!((flow.proto, flow.sport, flow.dport), (1, 0x0304, 0x0304));
        octets[7] = 1;
        let flow = Parsed::new(&octets).unwrap().flow;
        assert_eq!((flow.proto, flow.sport, flow.dport), (1, 0, 0));
    }

    #[test]
    fn ipv6_extension_headers_are_walked_and_their_number_is_bounded() {
        let packet = |extensions: usize| {
            let mut octets = vec![0x6a, 0xb0, 0, 0, 0, 0, if extensions > 0 { 60 } else { 17 }, 64];
            octets.extend([0xfd; 32]);
            for left in (0..extensions).rev() {
                octets.extend([if left > 0 { 60 } else { 17 }, 0, 1, 4, 0, 0, 0, 0]);
            }
            octets.extend([0x12, 0x34, 0x00, 0x35, 0, 8, 0, 0]);
            let len = (octets.len() - 40) as u16;
            octets[4..6].copy_from_slice(&len.to_be_bytes());
            octets
        };
        for n in [0, 1, 8] {
            let p = Parsed::new(&packet(n)).unwrap();
            assert_eq!((p.flow.proto, p.flow.sport, p.flow.dport), (17, 0x1234, 53), "{n} extensions");
            assert_eq!((p.tos, p.transport), (0xab, 40 + 8 * n));
        }
        assert_eq!(Parsed::new(&packet(9)), Err(Discard::Malformed));
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = v4();
        for len in 0..whole.len() {
            assert_eq!(Parsed::new(&whole[..len]), Err(Discard::Malformed), "{len} octets");
        }
    }

    proptest! {
        #[test]
        fn hostile_octets_are_measured_within_their_bounds(octets in prop::collection::vec(any::<u8>(), 0..200),
                                                           version in prop::sample::select(vec![0x45_u8, 0x60, 0x4f])) {
            let mut octets = octets;
            if let Some(first) = octets.first_mut() { *first = version; }
            if let Ok(p) = Parsed::new(&octets) {
                prop_assert!(p.transport <= p.len && p.len <= octets.len());
            }
        }

        #[test]
        fn the_virtio_header_survives_the_round_trip(octets: [u8; 10]) {
            if let Ok(vnet) = Vnet::parse(&octets) {
                prop_assert_eq!(Vnet::parse(&vnet.octets()), Ok(vnet));
            }
        }
    }
}
