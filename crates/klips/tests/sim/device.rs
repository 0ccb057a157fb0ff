//! A TUN device with offloads, too simple to be wrong: completes checksums and cuts superpackets.

use super::{Gso, Vnet};

const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// RFC 1071 as it stands there.
pub(crate) fn sum(octets: &[u8], start: u32) -> u16 {
    let pairs = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = pairs.fold(start, |sum, word| sum + word);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn is_v4(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4
}

/// The pseudo-header's sum for everything after `transport`.
pub(crate) fn pseudo_start(packet: &[u8], transport: usize, proto: u8) -> u32 {
    let addresses = if is_v4(packet) { &packet[12..20] } else { &packet[8..40] };
    u32::from(sum(addresses, 0)) + u32::from(proto) + (packet.len() - transport) as u32
}

/// Computes lengths and checksums of a packet whose transport header begins at `transport`.
pub(crate) fn complete(packet: &mut [u8], transport: usize, proto: u8) {
    let len = packet.len();
    if is_v4(packet) {
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[10..12].fill(0);
        let ip = !sum(&packet[..transport], 0);
        packet[10..12].copy_from_slice(&ip.to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    }
    let at = match proto {
        TCP => transport + 16,
        UDP => {
            packet[transport + 4..transport + 6].copy_from_slice(&((len - transport) as u16).to_be_bytes());
            transport + 6
        }
        _ => return,
    };
    packet[at..at + 2].fill(0);
    let mut check = !sum(&packet[transport..], pseudo_start(packet, transport, proto));
    if proto == UDP && check == 0 {
        check = 0xffff;
    }
    packet[at..at + 2].copy_from_slice(&check.to_be_bytes());
}

/// What a device makes of one write: a model of segmentation offload too simple to be wrong.
pub(crate) fn cut(vnet: &Vnet, packet: &[u8]) -> Vec<Vec<u8>> {
    if *vnet == Vnet::default() {
        return vec![packet.to_vec()];
    }
    assert!(vnet.needs_csum && packet.len() <= 65_535 && vnet.gso_size > 0);
    let transport = usize::from(vnet.csum_start);
    let proto = if vnet.gso == Gso::Udp { UDP } else { TCP };
    assert_eq!(vnet.csum_offset, if proto == UDP { 6 } else { 16 });
    assert_eq!(is_v4(packet), vnet.gso == Gso::Tcp4 || vnet.gso == Gso::Udp && transport == 20);
    // The length fields are those of the whole, and completing the checksum as a device does gives a right one.
    let mut whole = packet.to_vec();
    let at = transport + usize::from(vnet.csum_offset);
    let check = !sum(&whole[transport..], 0);
    whole[at..at + 2].copy_from_slice(&check.to_be_bytes());
    let mut right = whole.clone();
    complete(&mut right, transport, proto);
    assert_eq!(whole, right);

    let (headers, payload) = packet.split_at(usize::from(vnet.hdr_len));
    assert!(payload.len() > usize::from(vnet.gso_size), "one segment is no superpacket");
    let count = payload.len().div_ceil(usize::from(vnet.gso_size));
    let segments = payload.chunks(usize::from(vnet.gso_size)).enumerate();
    segments
        .map(|(i, part)| {
            let mut packet = [headers, part].concat();
            if is_v4(&packet) {
                let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(i as u16);
                packet[4..6].copy_from_slice(&id.to_be_bytes());
            }
            if proto == TCP {
                let at = transport + 4;
                let seq = u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
                let seq = seq.wrapping_add((i * usize::from(vnet.gso_size)) as u32);
                packet[at..at + 4].copy_from_slice(&seq.to_be_bytes());
                if i + 1 < count {
                    packet[transport + 13] &= !FIN_PSH;
                }
                if i > 0 {
                    packet[transport + 13] &= !CWR;
                }
            }
            complete(&mut packet, transport, proto);
            packet
        })
        .collect()
}

/// A packet as one must see it who knows RFC 6864: an atomic packet's identification is nothing.
pub(crate) fn seen(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if is_v4(&packet) && packet.len() >= 20 && packet[6] & 0x40 != 0 {
        let id = u16::from_be_bytes([packet[4], packet[5]]);
        let check = u16::from_be_bytes([packet[10], packet[11]]);
        // Take it out of the checksum too, so that a wrong checksum stays wrong.
        let check = !sum(&[], u32::from(!check) + u32::from(!id));
        packet[4..6].fill(0);
        packet[10..12].copy_from_slice(&if check == 0xffff { 0 } else { check }.to_be_bytes());
    }
    packet
}
