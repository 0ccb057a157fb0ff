//! Packets to begin with.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const A4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub(crate) const B4: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
pub(crate) const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub(crate) const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);

/// RFC 1071.
fn checksum(octets: &[u8], start: u32) -> u16 {
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.fold(start, u32::wrapping_add);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(crate) fn ipv4(proto: u8, flags: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(flags.to_be_bytes());
    packet.extend([64, proto, 0, 0]);
    packet.extend(A4.octets());
    packet.extend(B4.octets());
    packet.extend(options);
    let sum = checksum(&packet, 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// `chain` is the extension headers, complete, and `next` what the fixed header calls the first of them.
pub(crate) fn ipv6(next: u8, chain: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(((chain.len() + payload.len()) as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(A6.octets());
    packet.extend(B6.octets());
    packet.extend(chain);
    packet.extend(payload);
    packet
}

pub(crate) fn udp(payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0, 53];
    segment.extend(((8 + payload.len()) as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    segment
}

/// A TCP segment over IPv4 with a true checksum, so that merging may take it.
pub(crate) fn tcp4(seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0, 80];
    segment.extend(seq.to_be_bytes());
    segment.extend(1_u32.to_be_bytes());
    segment.extend([0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    let mut pseudo = A4.octets().to_vec();
    pseudo.extend(B4.octets());
    pseudo.extend([0, 6]);
    pseudo.extend((segment.len() as u16).to_be_bytes());
    pseudo.extend(&segment);
    let sum = checksum(&pseudo, 0);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(6, 0x4000, &[], &segment)
}

pub(crate) fn plain() -> Vec<(&'static str, Vec<u8>)> {
    let echo = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    let fragment = [17, 0, 0x00, 0x01, 0, 0, 0, 7];
    let hop_by_hop = [60, 0, 5, 2, 0, 0, 1, 0];
    let destination = [17, 0, 1, 4, 0, 0, 0, 0];
    vec![
        ("v4-icmp", ipv4(1, 0, &[], &echo)),
        ("v4-udp", ipv4(17, 0x4000, &[], &udp(b"hello"))),
        ("v4-tcp", tcp4(1, b"GET /")),
        ("v4-options", ipv4(17, 0, &[7, 7, 4, 0, 0, 0, 0, 0], &udp(b"route"))),
        ("v4-first-fragment", ipv4(17, 0x2000, &[], &udp(&[0; 24]))),
        ("v4-later-fragment", ipv4(17, 0x0004, &[], &[0; 32])),
        ("v6-udp", ipv6(17, &[], &udp(b"hello"))),
        ("v6-icmp", ipv6(58, &[], &[128, 0, 0, 0, 0, 1, 0, 1])),
        ("v6-extensions", ipv6(0, &[hop_by_hop, destination].concat(), &udp(b"deep"))),
        ("v6-fragment", ipv6(44, &fragment, &udp(&[0; 16]))),
    ]
}
