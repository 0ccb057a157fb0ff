//! Superpackets, cut again by a naive model of a device, must be the packets that came.

use super::*;
use crate::opened::Opened;
use device::{complete, cut, is_v4, seen};
use proptest::prelude::*;

/// The simulation's device: what is right for it is right here.
#[path = "../../tests/sim/device.rs"]
mod device;

/// Addresses, and the flow if the packet says.
fn flow_of(packet: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let (addresses, proto, transport, plain) = if is_v4(packet) {
        (&packet[12..20], packet[9], 20, packet[0] == 0x45 && packet[6] & 0xbf == 0 && packet[7] == 0)
    } else {
        (&packet[8..40], packet[6], 40, true)
    };
    let flow = (plain && (proto == TCP || proto == UDP))
        .then(|| [addresses, &[proto], &packet[transport..transport + 4]].concat());
    (addresses.to_vec(), flow)
}

/// The next packet of a stream, and what is odd about it.
#[derive(Clone, Debug)]
struct Step {
    flow: usize,
    oddity: u8,
    value: u8,
}

/// One sender.
struct Sender {
    v6: bool,
    proto: u8,
    dont_fragment: bool,
    ports: [u16; 2],
    seq: u32,
    id: u16,
}

fn senders() -> Vec<Sender> {
    let sender = |v6, proto, dont_fragment, ports| Sender {
        v6,
        proto,
        dont_fragment,
        ports,
        seq: 0xffff_ff00,
        id: 0xfff0,
    };
    vec![
        sender(false, TCP, true, [40_000, 443]),
        sender(false, TCP, false, [40_001, 443]),
        sender(true, TCP, false, [40_000, 443]),
        sender(false, UDP, true, [40_000, 443]),
        sender(true, UDP, false, [40_000, 443]),
        sender(false, UDP, false, [40_002, 443]),
        sender(false, UDP, false, [40_000, 4789]),
    ]
}

impl Sender {
    /// A packet with `size` octets of payload and at most one thing odd about it.
    fn packet(&mut self, size: usize, oddity: u8, value: u8) -> Vec<u8> {
        let bit = 1_u8 << (value % 8);
        let mut size = size;
        match oddity {
            1 => size = 1 + usize::from(value) % size,
            2 => size += 1 + usize::from(value),
            3 => size = 0,
            4 => self.seq = self.seq.wrapping_add(u32::from(value)),
            5 => self.seq = self.seq.wrapping_sub(size as u32 * (1 + u32::from(value % 3))),
            6 => self.id = self.id.wrapping_add(u16::from(value)),
            _ => {}
        }
        let transport = if self.v6 { 40 } else { 20 };
        let mut packet = vec![0; transport];
        if self.v6 {
            packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, self.proto, 64]);
            packet[8..40].copy_from_slice(&[0xfd; 32]);
        } else {
            packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, self.proto, 0, 0]);
            packet[4..6].copy_from_slice(&self.id.to_be_bytes());
            packet[6] = if self.dont_fragment { 0x40 } else { 0 };
            packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 1, 1]);
        }
        packet.extend(self.ports.iter().flat_map(|port| port.to_be_bytes()));
        if self.proto == TCP {
            packet.extend(self.seq.to_be_bytes());
            packet.extend([0, 0, 0, 9, 0x80, ACK, 1, 0, 0, 0, 0, 0]);
            packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        } else {
            packet.extend([0; 4]);
        }
        let payload = packet.len();
        // No two payloads alike.
        let unlike = self.seq.wrapping_mul(2_654_435_761).wrapping_add(self.id.into());
        packet.extend((0..size).map(|i| (unlike.rotate_left(i as u32) as usize ^ i) as u8));
        if self.proto == TCP {
            self.seq = self.seq.wrapping_add(size as u32);
        }
        self.id = self.id.wrapping_add(1);

        match (oddity, self.proto) {
            (7, TCP) => packet[transport + 13] |= bit,
            (8, TCP) => packet[transport + 13] ^= ACK,
            (9, TCP) => packet[transport + 12] |= 1 << (value % 4),
            (10, TCP) => packet[transport + 14] ^= bit,
            (11, TCP) => packet[transport + 11] ^= bit,
            (12, TCP) => packet[transport + 19] ^= bit,
            (13, TCP) => packet[transport + 24 + usize::from(value % 8)] ^= bit,
            // TOS or traffic class, ECN included; flow label.
            (14, _) => packet[1] ^= bit,
            (15, _) => packet[if self.v6 { 7 } else { 8 }] ^= bit,
            (16, _) if self.v6 => packet[3] ^= bit,
            (16, _) => packet[6] ^= 0x40,
            (17, _) if !self.v6 => {
                packet[6 + usize::from(value % 2)] |= [0x20, 1, 0x80][usize::from(value % 3)]
            }
            (18, _) if !self.v6 => {
                packet[0] = 0x46;
                packet.splice(20..20, [1, 1, 1, 0]);
            }
            (19, _) => {
                packet[if self.v6 { 6 } else { 9 }] = 1;
            }
            (24, TCP) => packet[transport + 13] |= PSH,
            (25, TCP) => packet[transport + 13] |= FIN,
            _ => {}
        }
        if packet[0] == 0x46 {
            complete(&mut packet, 24, self.proto);
        } else {
            complete(&mut packet, transport, self.proto);
        }
        match oddity {
            // Wrong checksums; a datagram without one; all ones where zero was meant.
            20 => {
                let at = transport + if self.proto == TCP { 16 } else { 6 };
                packet[at] ^= bit;
            }
            21 if !self.v6 => packet[10] ^= bit,
            22 if self.proto == UDP && !self.v6 => packet[transport + 6..transport + 8].fill(0),
            // Damage where no header is.
            23 if size > 0 => {
                let at = payload + usize::from(value) % size;
                packet[at] ^= bit;
            }
            _ => {}
        }
        packet
    }
}

/// Lays packets out as they lie after opening: one behind the other, with what was ESP between them.
fn lay_out(packets: &[Vec<u8>]) -> (Vec<u8>, Opened) {
    let mut rx = Vec::new();
    let mut opened = Opened::new(packets.len());
    for packet in packets {
        rx.extend([0xee; 24]);
        opened.packets.push(Admitted::for_test(rx.len(), packet.len()));
        rx.extend(packet);
    }
    (rx, opened)
}

fn merged(packets: &[Vec<u8>], tcp: bool, udp: bool) -> Vec<(Vnet, Vec<u8>)> {
    let (mut rx, mut opened) = lay_out(packets);
    opened.merge(&mut rx, tcp, udp);
    let writes = opened.writes().map(|write| {
        assert!(write.pieces() <= 64);
        (write.vnet, write.octets(&rx).flatten().copied().collect())
    });
    writes.collect()
}

/// Checks a batch; returns how many writes it became.
fn check(packets: &[Vec<u8>], tcp: bool, udp: bool) -> usize {
    let writes = merged(packets, tcp, udp);
    let out: Vec<Vec<u8>> = writes.iter().flat_map(|(vnet, packet)| cut(vnet, packet)).collect();
    assert_eq!(out.len(), packets.len());

    // Within each flow: the same packets in the same order. `came[j]` is where the j-th packet out was in the batch.
    let mut taken = vec![false; packets.len()];
    let mut came = Vec::new();
    for packet in &out {
        let (addresses, flow) = flow_of(packet);
        let same_flow = |other: &Vec<u8>| flow_of(other) == (addresses.clone(), flow.clone());
        let next = (0..packets.len()).find(|i| !taken[*i] && same_flow(&packets[*i])).expect("from nowhere");
        assert_eq!(hex::encode(seen(packet)), hex::encode(seen(&packets[next])));
        taken[next] = true;
        came.push(next);
    }
    // A packet that may be of any flow between two hosts is overtaken by none of them and overtakes none.
    for (j, packet) in out.iter().enumerate() {
        let (addresses, flow) = flow_of(packet);
        if flow.is_none() {
            for (k, other) in out.iter().enumerate().filter(|(_, other)| flow_of(other).0 == addresses) {
                assert_eq!(j.cmp(&k), came[j].cmp(&came[k]), "{other:02x?}");
            }
        }
    }
    writes.len()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let oddity = prop_oneof![6 => Just(0_u8), 1 => 0..26_u8];
    let step =
        (0..7_usize, oddity, any::<u8>()).prop_map(|(flow, oddity, value)| Step { flow, oddity, value });
    // Packets come in bursts of one flow.
    let burst = (step, 1..8_usize).prop_map(|(step, n)| {
        let plain = Step { oddity: 0, ..step };
        let mut burst = vec![plain; n];
        burst.push(step);
        burst
    });
    prop::collection::vec(burst, 1..16).prop_map(|bursts| bursts.concat())
}

fn stream(steps: &[Step], size: usize) -> Vec<Vec<u8>> {
    let mut senders = senders();
    steps.iter().map(|step| senders[step.flow].packet(size, step.oddity, step.value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn superpackets_cut_again_are_the_packets_that_came(
        steps in steps(),
        size in prop::sample::select(vec![32_usize, 100, 536, 1400, 4000]),
        tcp in prop::bool::weighted(0.8),
        udp in prop::bool::weighted(0.8),
    ) {
        check(&stream(&steps, size), tcp, udp);
    }

    #[test]
    fn with_merging_off_every_packet_is_its_own_write(steps in steps()) {
        let packets = stream(&steps, 100);
        let writes = merged(&packets, false, false);
        prop_assert_eq!(writes.len(), packets.len());
        for ((vnet, octets), packet) in writes.iter().zip(&packets) {
            prop_assert_eq!(vnet, &Vnet::default());
            prop_assert_eq!(octets, packet);
        }
    }
}

/// `n` plain packets of one sender.
fn plain(flow: usize, n: usize, size: usize) -> Vec<Vec<u8>> {
    stream(&vec![Step { flow, oddity: 0, value: 0 }; n], size)
}

#[test]
fn a_stream_in_order_becomes_one_write() {
    for flow in 0..6 {
        assert_eq!(check(&plain(flow, 40, 1400), true, true), 1, "flow {flow}");
        assert_eq!(check(&plain(flow, 40, 1400), flow > 2, flow < 3), 40, "flow {flow}, switched off");
    }
    assert_eq!(check(&plain(6, 40, 1400), true, true), 40, "VXLAN");
}

#[test]
fn a_superpacket_ends_at_64_pieces_and_at_65535_octets() {
    assert_eq!(check(&plain(0, 130, 100), true, true), 3);
    // 46 segments of 1400 octets and 52 of headers are 64,452; 47 would be 65,852.
    assert_eq!(merged(&plain(0, 47, 1400), true, true)[0].1.len(), 52 + 46 * 1400);
    assert_eq!(merged(&plain(2, 47, 1400), true, true)[0].1.len(), 72 + 46 * 1400);
    // To the last octet: 13 × 5037 + 52 = 65,533, and 5038 would be 65,546.
    assert_eq!(check(&plain(0, 13, 5037), true, true), 1);
    assert_eq!(check(&plain(0, 13, 5038), true, true), 2);
}

#[test]
fn interleaved_flows_are_merged_side_by_side() {
    let steps: Vec<Step> = (0..60).map(|i| Step { flow: i % 6, oddity: 0, value: 0 }).collect();
    assert_eq!(check(&stream(&steps, 500), true, true), 6);
}

#[test]
fn more_flows_than_fit_the_table_keep_their_order() {
    let mut senders: Vec<Sender> =
        (0..12).map(|n| Sender { ports: [50_000 + n, 80], ..senders().remove(1) }).collect();
    let packets: Vec<Vec<u8>> = (0..120).map(|i| senders[i % 12].packet(300, 0, 0)).collect();
    check(&packets, true, true);
}

/// What the second of three segments in order may be to be merged with both neighbours, with the first only, or not at all.
#[test]
fn each_oddity_breaks_the_stream_where_it_must() {
    let writes = |flow: usize, oddity: u8, value: u8| {
        let odd = Step { flow, oddity, value };
        let plain = Step { oddity: 0, ..odd.clone() };
        check(&stream(&[plain.clone(), odd, plain], 500), true, true)
    };
    for (name, flow, oddity, value, expected) in [
        ("short ends it", 0, 1, 7, 2),
        ("longer begins anew, and its successor is short", 0, 2, 0, 2),
        ("a pure acknowledgement", 0, 3, 0, 3),
        ("a hole", 0, 4, 100, 2),
        ("a retransmission begins anew, and is carried on", 0, 5, 0, 2),
        ("IPv4 identification jumps, without DF", 1, 6, 5, 2),
        ("IPv4 identification jumps, with DF", 0, 6, 5, 1),
        ("RST", 0, 7, 2, 3),
        ("SYN", 0, 7, 1, 3),
        ("URG", 0, 7, 5, 3),
        ("ECE", 0, 7, 6, 3),
        ("CWR", 0, 7, 7, 3),
        ("no ACK", 0, 8, 0, 3),
        ("AccECN", 0, 9, 0, 3),
        ("window", 0, 10, 0, 3),
        ("acknowledgement number", 0, 11, 1, 3),
        ("urgent pointer", 0, 12, 1, 3),
        ("options", 0, 13, 0, 3),
        ("CE", 0, 14, 0, 3),
        ("traffic class", 2, 14, 5, 3),
        ("TTL", 0, 15, 0, 3),
        ("hop limit", 2, 15, 0, 3),
        ("flow label", 2, 16, 0, 3),
        ("DF", 1, 16, 0, 3),
        ("a fragment", 0, 17, 0, 3),
        ("IPv4 options", 0, 18, 0, 3),
        ("ICMP between", 0, 19, 0, 3),
        ("a wrong TCP checksum", 0, 20, 3, 3),
        ("a wrong UDP checksum", 3, 20, 3, 3),
        ("a wrong IPv4 checksum", 0, 21, 3, 3),
        ("no UDP checksum", 3, 22, 0, 3),
        ("damaged payload", 0, 23, 9, 3),
        ("PSH", 0, 24, 0, 2),
        ("FIN", 0, 25, 0, 2),
        ("a shorter datagram", 3, 1, 7, 3),
    ] {
        assert_eq!(writes(flow, oddity, value), expected, "{name}");
    }
}

#[test]
fn a_superpacket_pushes_if_its_last_segment_did() {
    let steps = [0, 0, 24, 0].map(|oddity| Step { flow: 0, oddity, value: 0 });
    let writes = merged(&stream(&steps, 500), true, true);
    assert_eq!(writes.iter().map(|(_, packet)| packet[33] & PSH).collect::<Vec<_>>(), [PSH, 0]);
    check(&stream(&steps, 500), true, true);
}

#[test]
fn a_head_with_a_wrong_checksum_stays_alone() {
    let steps = [20, 0, 0].map(|oddity| Step { flow: 0, oddity, value: 3 });
    assert_eq!(check(&stream(&steps, 500), true, true), 2);
}
