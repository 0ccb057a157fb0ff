//! What is too big, what is in fragments already, and what policy sends elsewhere than through the tunnel.

use crate::device::{complete, sum};
use crate::host::{Host, Setup, Side};
use crate::ip;
use crate::net::clear_sky;
use ipsec_core::Selector;
use klips::{Action, Blueprint, Discard, Eroute, Sa, Verdict, Vnet};
use std::sync::Arc;

/// A packet of `len` octets in all from left to right, IPv4 with DF as asked.
pub(crate) fn sized(setup: &Setup, len: usize, dont_fragment: bool) -> Vec<u8> {
    let (left, right) = (setup.inner(Side::Left), setup.inner(Side::Right));
    let headers = if setup.inner6 { 48 } else { 28 };
    let mut packet = ip::udp(left, right, [999, 53], 0, 7, len - headers);
    if !setup.inner6 {
        packet[6] = if dont_fragment { 0x40 } else { 0 };
        complete(&mut packet, 20, ip::UDP);
    }
    packet
}

/// Octets of outer headers before ESP.
fn outer(setup: &Setup) -> usize {
    (if setup.outer6 { 40 } else { 20 }) + (if setup.udp { 8 } else { 0 })
}

/// Type, code and last four octets of the only ICMP packet `host` gave back; its checksums are right, it goes to the sender
/// and it quotes what it is about.
pub(crate) fn told(host: &mut Host, setup: &Setup, about: &[u8]) -> (u8, u8, u32) {
    let told = core::mem::take(&mut host.told);
    let [packet] = &told[..] else { panic!("told {} times", told.len()) };
    let (icmp, to, from) =
        if setup.inner6 { (&packet[40..], 24..40, 8..24) } else { (&packet[20..], 16..20, 12..16) };
    assert_eq!(packet[to], about[from]);
    if setup.inner6 {
        assert_eq!(packet[6], ip::ICMP6);
        assert_eq!(sum(icmp, crate::device::pseudo_start(packet, 40, ip::ICMP6)), 0xffff);
    } else {
        assert_eq!(packet[9], ip::ICMP);
        assert_eq!((sum(&packet[..20], 0), sum(icmp, 0)), (0xffff, 0xffff));
    }
    let quoted = &icmp[8..];
    assert_eq!(quoted, &about[..quoted.len()]);
    assert!(quoted.len() >= 64);
    (icmp[0], icmp[1], u32::from_be_bytes(icmp[4..8].try_into().unwrap()))
}

#[test]
fn the_mtu_a_sender_is_told_is_the_longest_packet_that_crosses_the_link_in_one() {
    for base in Setup::every_suite() {
        for setup in base.shapes() {
            let [mut left, mut right] = setup.pair();
            left.set_link(|link| link.mtu = 1500);
            let big = sized(&setup, 1500, true);
            let (verdict, sent) = left.send(&Vnet::default(), &big);
            assert_eq!((verdict, sent.len()), (Verdict::Answer(Discard::TooBig), 0));
            let (kind, code, mtu) = told(&mut left, &setup, &big);
            assert_eq!((kind, code), if setup.inner6 { (2, 0) } else { (3, 4) });

            let mut net = setup.wire(Side::Left, &clear_sky());
            let fitting = sized(&setup, mtu as usize, true);
            let (verdict, sent) = left.send(&Vnet::default(), &fitting);
            assert_eq!(verdict, Verdict::Send, "{setup:?}: told {mtu}");
            assert!(sent[0].octets.len() + outer(&setup) <= 1500);
            right.receive(&net.carry(sent));
            assert_eq!(right.take(), [fitting]);
            // One more would not have.
            let (verdict, _) = left.send(&Vnet::default(), &sized(&setup, mtu as usize + 1, true));
            assert_eq!(verdict, Verdict::Answer(Discard::TooBig), "{setup:?}: told {mtu}");
            assert_eq!((left.refused(), left.sends.packets()), (vec![(Discard::TooBig, 2)], 1));
        }
    }
}

#[test]
fn what_may_be_fragmented_outside_is_and_crosses_whole() {
    for setup in Setup::default().shapes() {
        for frag_icmp in [true, false] {
            let [mut left, mut right] = setup.pair();
            left.set_link(|link| (link.mtu, link.frag_icmp) = (1500, frag_icmp));
            // IPv6 routers do not fragment, so IPv6 is told unless its sender is not to be.
            let packet = sized(&setup, 1500, setup.inner6 || !frag_icmp);
            let (verdict, sent) = left.send(&Vnet::default(), &packet);
            if setup.inner6 && frag_icmp {
                assert_eq!(verdict, Verdict::Answer(Discard::TooBig));
                continue;
            }
            assert_eq!(verdict, Verdict::Send);
            right.receive(&setup.wire(Side::Left, &clear_sky()).carry(sent));
            assert_eq!((right.take(), left.told.len()), (vec![packet], 0));
        }
    }
}

/// The fragments of a datagram, `size` octets of it in each.
fn fragments(whole: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = (whole.len() - 20).div_ceil(size);
    let parts = whole[20..].chunks(size).enumerate();
    parts
        .map(|(n, part)| {
            let mut packet = [&whole[..20], part].concat();
            let more = if n + 1 < count { 0x2000 } else { 0 };
            let field = more | (n * size / 8) as u16;
            packet[6..8].copy_from_slice(&field.to_be_bytes());
            complete(&mut packet, 20, 0);
            packet
        })
        .collect()
}

#[test]
fn fragments_cross_as_they_are_unless_policy_asks_for_ports_they_do_not_have() {
    let setup = Setup { udp: true, ..Setup::default() };
    let parts = fragments(&sized(&setup, 4000, false), 1200);
    assert_eq!(parts.len(), 4);
    let [mut left, mut right] = setup.pair();
    for part in &parts {
        let (_, sent) = left.send(&Vnet::default(), part);
        right.receive(&sent);
    }
    assert_eq!(right.take(), parts);
    assert_eq!((left.refused(), right.refused()), (vec![], vec![]));

    // A policy with ports says nothing of later fragments, and what nothing is said of is discarded.
    let narrow = Selector { proto: ip::UDP, dport: 53, ..setup.selector(Side::Left) };
    left.plane.change_eroutes(|eroutes| {
        drop(eroutes.clear());
        eroutes.replace(Eroute::new(narrow, Action::Protect(setup.id(Side::Left))));
    });
    let verdicts: Vec<Verdict> = parts.iter().map(|part| left.send(&Vnet::default(), part).0).collect();
    assert_eq!(verdicts, [&[Verdict::Send][..], &[Verdict::Discard(Discard::NoEroute); 3]].concat());
}

#[test]
fn each_action_does_with_a_packet_what_its_name_says_and_nothing_else() {
    for inner6 in [false, true] {
        let setup = Setup { inner6, ..Setup::default() };
        let packet = sized(&setup, 200, false);
        let prohibited = if inner6 { (1, 1, 0) } else { (3, 13, 0) };
        // What is counted, and whether it goes out in clear, protected, or back to its sender.
        for (action, counted, goes) in [
            (Some(Action::Protect(setup.id(Side::Left))), None, [0, 1, 0]),
            (Some(Action::Pass), None, [1, 0, 0]),
            (Some(Action::Drop), Some(Discard::Drop), [0, 0, 0]),
            (Some(Action::Reject), Some(Discard::Reject), [0, 0, 1]),
            (None, Some(Discard::NoEroute), [0, 0, 0]),
        ] {
            let [mut left, _] = setup.pair();
            left.plane.change_eroutes(|eroutes| {
                drop(eroutes.clear());
                if let Some(action) = action {
                    eroutes.replace(Eroute::new(setup.selector(Side::Left), action));
                }
            });
            // Twice: found in the table, and remembered.
            for _ in 0..2 {
                let (_, sent) = left.send(&Vnet::default(), &packet);
                assert_eq!([left.clear.len(), sent.len(), left.told.len()], goes, "{action:?}");
                if left.clear.pop().is_some_and(|clear| clear != packet) {
                    panic!("let through, but changed");
                }
                if !left.told.is_empty() {
                    assert_eq!(told(&mut left, &setup, &packet), prohibited);
                }
            }
            assert_eq!(left.refused(), counted.map(|why| (why, 2)).into_iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn packets_of_two_sas_between_the_same_gateways_are_sealed_each_with_its_own() {
    let wide = Setup { udp: true, merge: false, ..Setup::default() };
    let narrow = Setup { generation: 1, ..wide };
    let selector = Selector { proto: ip::UDP, dport: 53, ..wide.selector(Side::Left) };
    let [mut left, mut right] = wide.pair();
    let [sender, receiver] = [(&left, Side::Left), (&right, Side::Right)].map(|(host, side)| {
        let sa =
            Arc::new(Sa::new(Blueprint { selector: Some(selector), ..narrow.blueprint(Side::Left, side) }));
        host.plane.publish(Arc::clone(&sa));
        sa
    });
    let eroute = Eroute::new(selector, Action::Protect(sender.id));
    left.plane.change_eroutes(|eroutes| eroutes.add(eroute)).unwrap();

    // All of one size and TOS, so that nothing but the SA keeps them apart.
    let packet = |n: u16| {
        let port = if n.is_multiple_of(3) { 53 } else { 54 };
        ip::udp(wide.inner(Side::Left), wide.inner(Side::Right), [n, port], 0, n.into(), 60)
    };
    let packets: Vec<Vec<u8>> = (0..30).map(packet).collect();
    for packet in &packets {
        assert_eq!(left.offer(&Vnet::default(), packet), Verdict::Send);
    }
    right.receive(&left.flush());
    assert_eq!((right.take(), right.refused()), (packets, vec![]));
    assert_eq!((receiver.packets(), right.receives.packets()), (10, 20));
}
