//! Inner packets.

use crate::device::complete;
use std::net::IpAddr;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMP6: u8 = 58;

/// What every payload is made of; the eavesdropper looks for any eight octets of it.
pub(crate) const MARK: &[u8; 56] = b"<tulips-secret-3f9c1e77-must-never-be-seen-on-the-wire!>";

/// `len` octets of marked payload, different for each `unique`.
pub(crate) fn marked(unique: u64, len: usize) -> Vec<u8> {
    let blocks = (0..).flat_map(|n: u64| {
        let number = (unique << 24).wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        MARK.iter().copied().chain(number.to_be_bytes())
    });
    blocks.take(len).collect()
}

/// An IP packet around a transport header and payload; lengths and checksums are right.
pub(crate) fn packet(src: IpAddr, dst: IpAddr, proto: u8, tos: u8, transport: &[u8]) -> Vec<u8> {
    let mut packet = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = vec![0x45, tos, 0, 0, 0, 7, 0x40, 0, 64, proto, 0, 0];
            header.extend(src.octets());
            header.extend(dst.octets());
            header
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut header = vec![0x60 | tos >> 4, tos << 4, 0, 0, 0, 0, proto, 64];
            header.extend(src.octets());
            header.extend(dst.octets());
            header
        }
        _ => panic!("mixed families"),
    };
    let at = packet.len();
    packet.extend(transport);
    complete(&mut packet, at, proto);
    packet
}

/// An echo request with a marked payload of `len` octets.
pub(crate) fn ping(src: IpAddr, dst: IpAddr, number: u16, len: usize) -> Vec<u8> {
    let (proto, kind) = if src.is_ipv4() { (ICMP, 8) } else { (ICMP6, 128) };
    let mut icmp = vec![kind, 0, 0, 0, 0x12, 0x34];
    icmp.extend(number.to_be_bytes());
    icmp.extend(marked(number.into(), len));
    packet(src, dst, proto, 0, &icmp)
}

/// A datagram with a marked payload of `len` octets.
pub(crate) fn udp(src: IpAddr, dst: IpAddr, ports: [u16; 2], tos: u8, unique: u64, len: usize) -> Vec<u8> {
    let mut datagram: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    datagram.extend([0; 4]);
    datagram.extend(marked(unique, len));
    packet(src, dst, UDP, tos, &datagram)
}

/// A TCP segment.
pub(crate) fn tcp(src: IpAddr, dst: IpAddr, ports: [u16; 2], seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    segment.extend(seq.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    packet(src, dst, TCP, 0, &segment)
}
