//! What a router on the way says.

use crate::device::sum;

/// That an IP packet is too big for a link with this MTU: an ICMP message, without the IP header it comes in, that quotes
/// `quoted` octets of the packet.
pub(crate) fn too_big(packet: &[u8], mtu: u16, quoted: usize) -> Vec<u8> {
    let v4 = packet[0] >> 4 == 4;
    let (kind, code) = if v4 { (3, 4) } else { (2, 0) };
    let [m0, m1] = mtu.to_be_bytes();
    let mut message = vec![kind, code, 0, 0, 0, 0, m0, m1];
    message.extend(&packet[..quoted.min(packet.len())]);
    if v4 {
        let checksum = !sum(&message, 0);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}
