//! Two hosts talking: what goes in on one side comes out on the other, whatever the wire does, and nobody learns anything.

use crate::device;
use crate::host::{Host, Setup, Side};
use crate::ip;
use crate::net::{Net, Weather, clear_sky, weathers};
use klips::{Discard, Event, Gso, Limits, SaState, Verdict, Vnet};
use std::collections::HashMap;

#[test]
fn a_ping_crosses_and_comes_back_whatever_the_suite_and_the_families() {
    for base in Setup::every_suite() {
        for setup in base.shapes() {
            let [mut left, mut right] = setup.pair();
            let mut there = setup.wire(Side::Left, &clear_sky());
            let mut back = setup.wire(Side::Right, &clear_sky());
            for number in 1..=2 {
                let (l, r) = (setup.inner(Side::Left), setup.inner(Side::Right));
                // Two lengths, so that padding differs.
                let (ping, answer) = (ip::ping(l, r, number, 56), ip::ping(r, l, number, 57));
                let (verdict, sent) = left.send(&Vnet::default(), &ping);
                assert_eq!(verdict, Verdict::Send, "{setup:?}");
                right.receive(&there.carry(sent));
                assert_eq!(right.take(), [ping], "{setup:?}");
                let (_, sent) = right.send(&Vnet::default(), &answer);
                left.receive(&back.carry(sent));
                assert_eq!(left.take(), [answer], "{setup:?}");
            }
            assert_eq!((left.refused(), right.refused()), (vec![], vec![]), "{setup:?}");
            assert_eq!((there.eavesdropper.seen, back.eavesdropper.seen), (2, 2));
            // Both ends count the same.
            assert_eq!(left.sends.bytes(), right.receives.bytes());
            assert_eq!((left.sends.packets(), right.receives.packets()), (2, 2));
        }
    }
}

#[test]
fn whatever_the_wire_does_each_packet_arrives_once_or_not_at_all_and_is_accounted_for() {
    for weather in weathers() {
        for (window, esn, merge) in [
            (32, true, true),
            (64, false, true),
            (64, true, false),
            (1024, false, true),
            (1024, true, false),
            (4096, false, false),
            (4096, true, true),
        ] {
            let setup = Setup { window, esn, merge, udp: merge, ..Setup::default() };
            let [mut left, mut right] = setup.pair();
            let mut net = setup.wire(Side::Left, &weather);
            let mut sent_packets = HashMap::new();
            let sent = 1200_u64;
            for n in 0..sent {
                let (l, r) = (setup.inner(Side::Left), setup.inner(Side::Right));
                let packet =
                    ip::udp(l, r, [5000 + (n % 3) as u16, 6000], 0, n, 100 + (n % 5) as usize / 4 * 33);
                let (verdict, datagrams) = left.send(&Vnet::default(), &packet);
                assert_eq!(verdict, Verdict::Send);
                sent_packets.insert(device::seen(&packet), 1);
                let arrived = net.carry(datagrams);
                right.receive(&arrived);
            }
            right.receive(&net.settle());

            let delivered = right.take();
            for packet in &delivered {
                let left = sent_packets.get_mut(&device::seen(packet)).expect("delivered, but never sent");
                assert_eq!(core::mem::replace(left, 0), 1, "delivered twice");
            }
            let label = format!("{}, window {window}, esn {esn}", weather.name);
            let refused = right.refused();
            let count = |why| refused.iter().find(|(w, _)| *w == why).map_or(0, |(_, n)| *n);
            let fate = net.fate;
            let arrived = sent - fate.lost + fate.doubled;
            let total: u64 = refused.iter().map(|(_, n)| n).sum();
            assert_eq!(delivered.len() as u64 + total, arrived, "{label}: {refused:?}");
            assert_eq!(right.receives.packets(), delivered.len() as u64, "{label}");
            assert_eq!((left.refused(), &left.clear, &left.told), (vec![], &vec![], &vec![]), "{label}");
            assert_eq!(net.eavesdropper.seen, sent, "{label}");

            let late = weather.delay >= window.into();
            if fate.damaged == 0 && !late {
                // Every copy but the first is refused as what it is, and nothing else is.
                assert_eq!((count(Discard::Replayed), total), (fate.doubled, fate.doubled), "{label}");
            }
            if fate.damaged > 0 {
                let expected = |why| matches!(why, Discard::Forged | Discard::Replayed | Discard::ReplayOld);
                assert!(refused.iter().all(|(why, _)| expected(*why)), "{label}: {refused:?}");
                assert!(count(Discard::Forged) > 0, "{label}");
            }
            if late && fate.damaged == 0 {
                // With ESN what lies behind the window is taken for a number ahead of it (RFC 4303 Appendix A2.2), and
                // its ICV says otherwise.
                let expected = |why| why == Discard::ReplayOld || esn && why == Discard::Forged;
                assert!(total > 0 && refused.iter().all(|(why, _)| expected(*why)), "{label}: {refused:?}");
            }
        }
    }
}

/// Segments of one superpacket.
const MSS: usize = 1400;

/// A TCP superpacket as a device with offloads hands it over: the checksum holds the pseudo-header's sum alone.
fn superpacket(setup: &Setup, seq: u32, payload: &[u8]) -> (Vnet, Vec<u8>) {
    let (l, r) = (setup.inner(Side::Left), setup.inner(Side::Right));
    let mut packet = ip::tcp(l, r, [40_000, 443], seq, 0x18, payload);
    let transport = if setup.inner6 { 40 } else { 20 };
    if payload.len() <= MSS {
        return (Vnet::default(), packet);
    }
    let start = device::pseudo_start(&packet, transport, ip::TCP);
    let partial = device::sum(&[], start);
    packet[transport + 16..transport + 18].copy_from_slice(&partial.to_be_bytes());
    let vnet = Vnet {
        needs_csum: true,
        gso: if setup.inner6 { Gso::Tcp6 } else { Gso::Tcp4 },
        ecn: false,
        hdr_len: transport as u16 + 20,
        gso_size: MSS as u16,
        csum_start: transport as u16,
        csum_offset: 16,
    };
    (vnet, packet)
}

/// What a receiver has of a stream.
struct Receiver {
    first: u32,
    have: Vec<bool>,
    octets: Vec<u8>,
}

impl Receiver {
    fn take(&mut self, packet: &[u8], setup: &Setup) {
        let transport = if setup.inner6 { 40 } else { 20 };
        let mut whole = packet.to_vec();
        device::complete(&mut whole, transport, ip::TCP);
        assert_eq!(whole, packet, "checksums and lengths are right");
        let seq = u32::from_be_bytes(packet[transport + 4..transport + 8].try_into().unwrap());
        let payload = &packet[transport + 20..];
        let at = seq.wrapping_sub(self.first) as usize;
        self.octets[at..at + payload.len()].copy_from_slice(payload);
        self.have[at / MSS] = true;
    }
}

/// Sends a stream until all of it is there, retransmitting what is missing.
fn transfer(setup: &Setup, weather: &Weather, len: usize) -> (Host, Host, Net) {
    let [mut left, mut right] = setup.pair();
    let mut net = setup.wire(Side::Left, weather);
    let stream = ip::marked(9, len);
    // The numbers wrap on the way.
    let first = u32::MAX - 300_000;
    let segments = len.div_ceil(MSS);
    let mut receiver = Receiver { first, have: vec![false; segments], octets: vec![0; len] };
    let mut rounds = 0;
    while receiver.have.contains(&false) {
        rounds += 1;
        assert!(rounds < 40, "{}: never complete", weather.name);
        let missing: Vec<usize> = (0..segments).filter(|i| !receiver.have[*i]).collect();
        // Neighbours go together, as a sender's TCP would hand them to its device.
        for run in missing.chunk_by(|a, b| a + 1 == *b).flat_map(|run| run.chunks(44)) {
            let (begin, end) = (run[0] * MSS, (run[run.len() - 1] * MSS + MSS).min(len));
            let seq = first.wrapping_add(begin as u32);
            let (vnet, packet) = superpacket(setup, seq, &stream[begin..end]);
            let (verdict, sent) = left.send(&vnet, &packet);
            assert_eq!(verdict, Verdict::Send);
            assert_eq!(sent.len(), run.len());
            right.receive(&net.carry(sent));
            for packet in right.take() {
                receiver.take(&packet, setup);
            }
        }
        right.receive(&net.settle());
        for packet in right.take() {
            receiver.take(&packet, setup);
        }
    }
    assert!(receiver.octets == stream, "{}: the stream arrived changed", weather.name);
    (left, right, net)
}

#[test]
fn a_stream_of_superpackets_arrives_octet_for_octet() {
    for weather in weathers() {
        for (inner6, udp, esn, merge) in
            [(false, true, true, true), (true, true, false, true), (false, false, false, false)]
        {
            let setup = Setup { inner6, udp, esn, merge, window: 4096, ..Setup::default() };
            let (left, right, net) = transfer(&setup, &weather, 1 << 19);
            assert_eq!(left.refused(), [], "{}", weather.name);
            let quiet = net.fate.doubled + net.fate.damaged == 0;
            if quiet {
                assert_eq!(right.refused(), [], "{}", weather.name);
            }
            if merge && weather.name == "clear sky" {
                // 44 segments each way in one write: the whole point.
                assert_eq!(right.writes, (1_usize << 19).div_ceil(MSS).div_ceil(44));
            }
        }
    }
}

#[test]
fn many_megabytes_through_a_storm() {
    let storm = weathers().into_iter().find(|weather| weather.name == "storm").unwrap();
    let setup = Setup { udp: true, esn: true, window: 4096, ..Setup::default() };
    let (left, right, net) = transfer(&setup, &storm, 6 << 20);
    assert_eq!(left.refused(), []);
    assert!(net.fate.lost > 300 && net.fate.doubled > 300 && net.fate.damaged > 100, "{:?}", net.fate);
    let arrived = net.eavesdropper.seen - net.fate.lost + net.fate.doubled;
    let refused: u64 = right.refused().iter().map(|(_, n)| n).sum();
    assert_eq!(right.receives.packets() + refused, arrived);
}

fn ping_through(left: &mut Host, right: &mut Host, net: &mut Net, setup: &Setup, number: u16) -> Verdict {
    let ping = ip::ping(setup.inner(Side::Left), setup.inner(Side::Right), number, 56);
    let (verdict, sent) = left.send(&Vnet::default(), &ping);
    right.receive(&net.carry(sent));
    verdict
}

#[test]
fn sequence_numbers_end_and_never_wrap() {
    let setup = Setup::default();
    let [mut left, mut right] = setup.pair();
    let mut net = setup.wire(Side::Left, &clear_sky());
    left.sends.continue_after(u64::from(u32::MAX) - 3);
    let verdicts: Vec<Verdict> =
        (0..5).map(|n| ping_through(&mut left, &mut right, &mut net, &setup, n)).collect();
    assert_eq!(verdicts[..3], [Verdict::Send; 3]);
    assert_eq!(right.take().len(), 3);
    assert_eq!(right.refused(), []);
    assert_eq!(left.sends.sent(), u64::from(u32::MAX));
    assert_eq!(left.sends.state(), SaState::Dead);
    let id = setup.id(Side::Left);
    assert_eq!(left.events(), [Event::FirstUse(id), Event::Hard(id)]);
    let refused = left.refused();
    assert_eq!(refused.iter().map(|(_, n)| n).sum::<u64>(), 2, "{refused:?}");
    assert!(refused.contains(&(Discard::SequenceExhausted, 1)), "{refused:?}");
    assert_eq!(net.eavesdropper.seen, 3);
}

#[test]
fn extended_sequence_numbers_end_too() {
    let setup = Setup { esn: true, ..Setup::default() };
    let [mut left, mut right] = setup.pair();
    let mut net = setup.wire(Side::Left, &clear_sky());
    left.sends.continue_after(u64::MAX - 2);
    for n in 0..4 {
        let _ = ping_through(&mut left, &mut right, &mut net, &setup, n);
    }
    assert_eq!((left.sends.sent(), net.eavesdropper.seen), (u64::MAX, 2));
    assert!(left.refused().contains(&(Discard::SequenceExhausted, 1)));
    // To this receiver, who is at the beginning, they are nothing.
    assert!(right.take().is_empty());
}

#[test]
fn extended_sequence_numbers_cross_2_to_the_32_in_any_weather_the_window_covers() {
    for weather in weathers().into_iter().filter(|weather| weather.delay < 4096) {
        let setup = Setup { esn: true, udp: true, window: 4096, merge: false, ..Setup::default() };
        let [mut left, mut right] = setup.pair();
        // The first number brings the receiver near the boundary.
        left.sends.continue_after((1 << 32) - 5000);
        let mut net = setup.wire(Side::Left, &clear_sky());
        let _ = ping_through(&mut left, &mut right, &mut net, &setup, 0);
        assert_eq!(right.take().len(), 1);
        left.sends.continue_after((1 << 32) - 600);
        let mut net = setup.wire(Side::Left, &weather);
        for n in 0..1200 {
            let _ = ping_through(&mut left, &mut right, &mut net, &setup, n);
        }
        right.receive(&net.settle());
        assert_eq!(left.sends.sent(), (1 << 32) + 600);
        let total: u64 = right.refused().iter().map(|(_, n)| n).sum();
        assert_eq!(right.take().len() as u64 + total, 1200 - net.fate.lost + net.fate.doubled);
        if net.fate.damaged == 0 {
            assert_eq!(total, net.fate.doubled, "{}: {:?}", weather.name, right.refused());
        }
    }
}

#[test]
fn both_ends_reach_the_same_limits_and_the_sender_stops_first() {
    let limits = Limits { soft_bytes: 300, hard_bytes: 588, ..Limits::default() };
    let setup = Setup { limits, ..Setup::default() };
    let [mut left, mut right] = setup.pair();
    let mut net = setup.wire(Side::Left, &clear_sky());
    let verdicts: Vec<Verdict> =
        (0..9).map(|n| ping_through(&mut left, &mut right, &mut net, &setup, n)).collect();
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Send).count(), 6);
    assert_eq!(right.take().len(), 6);
    let id = setup.id(Side::Left);
    assert_eq!(left.events(), [Event::FirstUse(id), Event::Soft(id), Event::Hard(id)]);
    assert_eq!(right.events(), [Event::FirstUse(id), Event::Soft(id)]);
    assert_eq!(right.refused(), []);
    assert_eq!(left.refused().iter().map(|(_, n)| n).sum::<u64>(), 3);
    assert_eq!((left.sends.bytes(), right.receives.bytes()), (504, 504));
}

#[test]
fn use_is_dated_by_the_clock_we_are_given() {
    let setup = Setup::default();
    let [mut left, mut right] = setup.pair();
    let mut net = setup.wire(Side::Left, &clear_sky());
    for at in [10, 90_000] {
        let now = ipsec_core::Time::from_secs(at);
        (left.now, right.now) = (now, now);
        let _ = ping_through(&mut left, &mut right, &mut net, &setup, 1);
    }
    let first = Some(ipsec_core::Time::from_secs(10));
    let last = Some(ipsec_core::Time::from_secs(90_000));
    for sa in [&left.sends, &right.receives] {
        assert_eq!((sa.first_use(), sa.last_use()), (first, last));
    }
}

/// Segments so small that no other device of ours would hand over as many at once.
#[test]
fn a_superpacket_of_hundreds_of_small_segments_is_cut_not_dropped() {
    for mss in [36_u16, 100, 150] {
        let suite = ipsec_core::algorithm::Suite {
            encryption: Some(ipsec_core::algorithm::Encryption::AesCbc),
            auth: Some(ipsec_core::algorithm::Auth::HmacSha512),
        };
        let setup = Setup { suite, key: 32, inner6: true, merge: false, window: 4096, ..Setup::default() };
        let [mut left, mut right] = setup.pair();
        let mut net = setup.wire(Side::Left, &clear_sky());
        let payload = ip::marked(3, 64_000);
        let (vnet, packet) = superpacket(&setup, 1, &payload);
        let (verdict, sent) = left.send(&Vnet { gso_size: mss, ..vnet }, &packet);
        assert_eq!(verdict, Verdict::Send, "MSS {mss}");
        assert_eq!(sent.len(), payload.len().div_ceil(mss.into()));
        right.receive(&net.carry(sent));
        let arrived: Vec<u8> = right.take().iter().flat_map(|packet| packet[60..].to_vec()).collect();
        assert!(arrived == payload, "MSS {mss}");
        assert_eq!((left.refused(), right.refused()), (vec![], vec![]));
    }
}

#[test]
fn a_superpacket_uses_the_last_numbers_and_loses_only_what_has_none() {
    let setup = Setup::default();
    let [mut left, mut right] = setup.pair();
    let mut net = setup.wire(Side::Left, &clear_sky());
    left.sends.continue_after(u64::from(u32::MAX) - 3);
    let (vnet, packet) = superpacket(&setup, 1, &ip::marked(3, 5 * MSS));
    let (_, sent) = left.send(&vnet, &packet);
    assert_eq!((sent.len(), left.sends.sent()), (3, u64::from(u32::MAX)));
    right.receive(&net.carry(sent));
    // Three segments, merged or not, and nothing else.
    assert_eq!((right.receives.packets(), right.refused()), (3, vec![]));
    assert_eq!(left.refused(), [(Discard::SequenceExhausted, 2)]);
    assert_eq!(left.sends.state(), SaState::Dead);
    let id = setup.id(Side::Left);
    assert_eq!(left.events(), [Event::FirstUse(id), Event::Hard(id)]);
}

#[test]
fn numbers_never_go_back_whatever_is_asked() {
    let setup = Setup::default();
    let [mut left, mut right] = setup.pair();
    let mut net = setup.wire(Side::Left, &clear_sky());
    for n in 0..3 {
        let _ = ping_through(&mut left, &mut right, &mut net, &setup, n);
        // The eavesdropper would see a number or an IV again.
        left.sends.continue_after(0);
    }
    assert_eq!((left.sends.sent(), net.eavesdropper.seen, right.take().len()), (3, 3, 3));
    // What was recorded before the receiver was saved is refused after it was loaded.
    let ping = ip::ping(setup.inner(Side::Left), setup.inner(Side::Right), 9, 56);
    let (_, recorded) = left.send(&Vnet::default(), &ping);
    right.receives.received_up_to(4);
    right.receive(&net.carry(recorded));
    assert_eq!((right.take().len(), right.refused()), (0, vec![(Discard::Replayed, 1)]));
}

#[test]
fn an_idle_worker_lets_go_of_an_sa_that_has_died() {
    let setup = Setup::default();
    let [mut left, mut right] = setup.pair();
    let mut net = setup.wire(Side::Left, &clear_sky());
    let _ = ping_through(&mut left, &mut right, &mut net, &setup, 1);
    let (sends, receives) = (left.sends.clone(), right.receives.clone());
    left.forget_sas();
    right.forget_sas();
    for (host, sa, id) in
        [(&mut left, sends, setup.id(Side::Left)), (&mut right, receives, setup.id(Side::Left))]
    {
        let weak = std::sync::Arc::downgrade(&sa);
        drop(sa);
        host.plane.withdraw(&id);
        assert!(host.plane.take_returned(), "workers are woken");
        host.wake();
        // The map of SAs frees what was taken out of it when it gets round to it.
        for _ in 0..10_000 {
            let filler = std::sync::Arc::new(klips::Sa::new(setup.blueprint(Side::Left, Side::Left)));
            host.plane.publish(filler);
            host.plane.withdraw(&id);
        }
        assert!(weak.upgrade().is_none(), "its keys would live on");
    }
}
