//! Packets that somebody wants to see.

use crate::host::{Host, Setup, Side};
use crate::ip;
use crate::policy::sized;
use ipsec_core::{Flow, Selector};
use klips::{Action, Discard, Eroute, Fate, Sighting, Verdict, Vnet, Wanted, Way};

fn all() -> Wanted {
    Wanted { out: true, inward: true, flows: vec![] }
}

/// What the engines say of packets from now on; the host wakes its workers.
fn watch(host: &mut Host, wanted: Wanted) {
    host.plane.watch(wanted);
    assert!(host.plane.take_returned());
    host.wake();
}

fn seen(host: &Host) -> Vec<Sighting> {
    let (seen, missed) = host.plane.take_seen();
    assert_eq!(missed, 0);
    seen.into()
}

fn fates(host: &Host) -> Vec<Fate> {
    seen(host).into_iter().map(|seen| seen.fate).collect()
}

/// Pings from left to right, marked by their number.
fn ping(setup: &Setup, number: u16) -> Vec<u8> {
    ip::ping(setup.inner(Side::Left), setup.inner(Side::Right), number, 40)
}

#[test]
fn each_packet_is_seen_with_the_eroute_the_sa_and_its_fate_and_nothing_is_while_nobody_watches() {
    for setup in Setup::default().shapes() {
        let [mut left, mut right] = setup.pair();
        let (_, wire) = left.send(&Vnet::default(), &ping(&setup, 1));
        right.receive(&wire);
        assert_eq!((seen(&left), seen(&right)), (vec![], vec![]));

        [&mut left, &mut right].into_iter().for_each(|host| watch(host, all()));
        let packet = ping(&setup, 2);
        let (_, wire) = left.send(&Vnet::default(), &packet);
        let [out] = seen(&left)[..] else { panic!("seen once") };
        let (src, dst) = (setup.inner(Side::Left), setup.inner(Side::Right));
        let flow = out.flow.unwrap();
        assert_eq!((flow.src, flow.dst), (src, dst));
        let eroute = Some((setup.selector(Side::Left), Action::Protect(setup.id(Side::Left))));
        assert_eq!(
            (out.way, out.octets, out.eroute, out.fate),
            (Way::Out, packet.len(), eroute, Fate::Protected)
        );

        let mut forged = wire[0].clone();
        *forged.octets.last_mut().unwrap() ^= 1;
        let mut stranger = wire[0].clone();
        stranger.octets[0] ^= 0x55;
        for (datagram, inside, fate) in [
            (&wire[0], Some(flow), Fate::Delivered),
            (&wire[0], None, Fate::Refused(Discard::Replayed, 1)),
            (&forged, None, Fate::Refused(Discard::Replayed, 1)),
            (&stranger, None, Fate::Refused(Discard::NoSa, 1)),
        ] {
            right.receive(std::slice::from_ref(datagram));
            let [seen] = seen(&right)[..] else { panic!("seen once") };
            assert_eq!((seen.way, seen.flow, seen.fate), (Way::In, inside, fate));
            let named = seen.sa.unwrap();
            assert_eq!(named == setup.id(Side::Left), fate != Fate::Refused(Discard::NoSa, 1));
        }

        // And silence again.
        [&mut left, &mut right].into_iter().for_each(|host| watch(host, Wanted::default()));
        let (_, wire) = left.send(&Vnet::default(), &ping(&setup, 3));
        right.receive(&wire);
        assert_eq!((seen(&left), seen(&right)), (vec![], vec![]));
    }
}

#[test]
fn a_packet_of_a_batch_is_seen_with_its_own_fate() {
    let setup = Setup { inner6: false, ..Setup::default() };
    let [mut left, _] = setup.pair();
    left.set_link(|link| link.mtu = 1500);
    let narrow = Selector { proto: ip::UDP, dport: 53, ..setup.selector(Side::Left) };
    watch(&mut left, all());
    for (action, fate) in [
        (Action::Drop, Fate::Refused(Discard::Drop, 1)),
        (Action::Reject, Fate::Refused(Discard::Reject, 1)),
        (Action::Pass, Fate::Passed),
        (Action::Trap, Fate::Kept),
    ] {
        left.plane.change_eroutes(|eroutes| drop(eroutes.replace(Eroute::new(narrow, action))));
        // All in one batch: what is before and behind it is not its own.
        for packet in [ping(&setup, 1), sized(&setup, 100, false), ping(&setup, 2), sized(&setup, 1500, true)]
        {
            let _: Verdict = left.offer(&Vnet::default(), &packet);
        }
        left.flush();

        assert_eq!(fates(&left), [Fate::Protected, fate, Fate::Protected, fate], "{action:?}");
    }
    // An SA without numbers left, and a packet too big.
    left.plane.change_eroutes(|eroutes| drop(eroutes.delete(&narrow)));
    let _ = left.send(&Vnet::default(), &sized(&setup, 1500, true));
    assert_eq!(fates(&left), [Fate::Refused(Discard::TooBig, 1)]);
    left.sends.continue_after(u64::from(u32::MAX));
    let _ = left.send(&Vnet::default(), &ping(&setup, 9));
    assert_eq!(fates(&left), [Fate::Refused(Discard::SequenceExhausted, 1)]);
}

#[test]
fn one_flow_is_seen_either_way_and_no_other() {
    let setup = Setup::default();
    let [mut left, mut right] = setup.pair();
    let host = |side| ipnet::IpNet::from(setup.inner(side));
    let wanted = Selector { proto: ip::ICMP, ..Selector::nets(host(Side::Left), host(Side::Right)) };
    for end in [&mut left, &mut right] {
        watch(end, Wanted { flows: vec![wanted], ..Wanted::default() });
    }
    let udp = sized(&setup, 100, false);
    let other = ip::ping("10.1.0.77".parse().unwrap(), setup.inner(Side::Right), 1, 8);
    for (packet, is_seen) in [(&udp, false), (&other, false), (&ping(&setup, 1), true)] {
        let (_, wire) = left.send(&Vnet::default(), packet);
        right.receive(&wire);
        assert_eq!(fates(&left), if is_seen { vec![Fate::Protected] } else { vec![] });
        assert_eq!(fates(&right), if is_seen { vec![Fate::Delivered] } else { vec![] });
        // What an SA refuses that may carry the flow may have been of it.
        right.receive(&wire);
        assert_eq!(fates(&right), [Fate::Refused(Discard::Replayed, 1)]);
    }
    // Of an SA that cannot carry it nothing is seen.
    let elsewhere = Selector::nets("10.77.0.1/32".parse().unwrap(), "10.78.0.1/32".parse().unwrap());
    watch(&mut right, Wanted { flows: vec![elsewhere], ..Wanted::default() });
    let (_, wire) = left.send(&Vnet::default(), &udp);
    right.receive(&wire);
    right.receive(&wire);
    assert_eq!(fates(&right), []);
    watch(&mut right, Wanted { flows: vec![wanted], ..Wanted::default() });
    // The way back is the same flow.
    let back = ip::ping(setup.inner(Side::Right), setup.inner(Side::Left), 1, 8);
    let (_, wire) = right.send(&Vnet::default(), &back);
    left.receive(&wire);
    let flows: Vec<Option<Flow>> =
        [&left, &right].iter().flat_map(|end| seen(end)).map(|seen| seen.flow).collect();
    assert!(flows.len() == 2 && flows.iter().flatten().all(|flow| flow.src == setup.inner(Side::Right)));
    // What waited before it has its own fate.
    left.sends.continue_after(u64::from(u32::MAX) - 1);
    for packet in [&udp, &udp, &ping(&setup, 2)] {
        let _: Verdict = left.offer(&Vnet::default(), packet);
    }
    left.flush();
    assert_eq!(fates(&left), [Fate::Refused(Discard::NoSa, 1)]);
    let [mut left, mut right] = setup.pair();
    // What comes in on an SA that may not carry it is seen for what it is.
    let stray = Selector::nets("10.9.0.1/32".parse().unwrap(), host(Side::Right));
    watch(&mut right, Wanted { flows: vec![stray], ..Wanted::default() });
    let packet = ip::ping("10.9.0.1".parse().unwrap(), setup.inner(Side::Right), 1, 8);
    let everything = Selector::nets("0.0.0.0/0".parse().unwrap(), "0.0.0.0/0".parse().unwrap());
    left.plane.change_eroutes(|eroutes| {
        eroutes.replace(Eroute::new(everything, Action::Protect(setup.id(Side::Left))));
    });
    let (_, wire) = left.send(&Vnet::default(), &packet);
    right.receive(&wire);
    let [seen] = seen(&right)[..] else { panic!("seen once") };
    assert_eq!(
        (seen.fate, seen.flow.unwrap().src),
        (Fate::Refused(Discard::PolicyMismatch, 1), "10.9.0.1".parse::<std::net::IpAddr>().unwrap())
    );
}

#[test]
fn what_nobody_takes_is_bounded_and_counted() {
    let setup = Setup::default();
    let [mut left, _] = setup.pair();
    watch(&mut left, all());
    for number in 0..5000 {
        let _ = left.send(&Vnet::default(), &ping(&setup, number));
    }
    let (seen, missed) = left.plane.take_seen();
    assert_eq!((seen.len(), missed), (4096, 5000 - 4096));
    assert_eq!(left.plane.take_seen().1, 0);
}
