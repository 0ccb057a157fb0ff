//! `%hold` eroutes: those of traps, and those that somebody has put there.

use crate::host::{Host, acquires, negative, replace_flow};
use ipsec_core::Selector;
use klips::{Action, Eroute, Verdict, Vnet};
use pfkey::FlowAction;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The eroutes as the table has them.
fn table(host: &Host) -> Vec<(String, Action, u64)> {
    let row = |eroute: &Arc<Eroute>| {
        let Selector { src, dst, proto, sport, dport } = eroute.selector;
        (format!("{src}->{dst} {proto} {sport} {dport}"), eroute.action, eroute.packets())
    };
    host.plane.eroutes().list().iter().map(row).collect()
}

/// Eight packets through a `%trap`: one meets it, seven the `%hold` that is there since; exact counts, as ever.
#[test]
fn a_trap_puts_a_hold_for_its_flow_into_the_table_until_there_is_an_sa() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    let trap = table(&host)[0].0.clone();
    for mark in 1..=8 {
        assert_eq!(host.packet(9, mark), Verdict::Keep);
        host.control.expire(host.now);
    }
    let [(_, _, trapped), (hold, action, held)] = &table(&host)[..] else { panic!("{:?}", table(&host)) };
    assert_eq!(
        (*trapped, hold.as_str(), *action, *held),
        (1, "10.1.0.1/32->10.2.0.9/32 0 0 0", Action::Hold, 7)
    );
    // Another flow of the network asks anew, and has its own.
    host.trapped(7, 1);
    assert_eq!(table(&host).len(), 3);
    assert_eq!(host.control.trap_counts(), (2, 2));
    assert_eq!(host.dropped(), 4);
    let asked = host.heard(manager);
    assert_eq!(acquires(&asked).len(), 2);
    let seq = acquires(&asked)[0].base.seq;
    host.add(manager, seq, 0x2002, true);
    let marks: Vec<u8> = host.released().iter().map(|packet| packet[8 + 40]).collect();
    assert_eq!(marks, [1, 6, 7, 8]);
    assert_eq!(table(&host).len(), 2, "the hold of the flow that has its SA is gone");
    // The other one goes when its time is up.
    host.now = host.now.after(Duration::from_secs(16));
    host.control.expire(host.now);
    let left = table(&host);
    assert_eq!((left.len(), &left[0].0, left[0].1), (1, &trap, Action::Trap));
}

#[test]
fn a_trapsubnet_becomes_the_hold_of_all_it_matches_and_is_itself_again() {
    let mut host = Host::new(Action::TrapSubnet);
    let manager = host.manager(false);
    let before = table(&host);
    for (count, mark) in (1..=8).enumerate() {
        assert_eq!(host.packet(9 + count as u8, mark), Verdict::Keep);
        host.control.expire(host.now);
    }
    // One line, and it has counted all of them.
    assert_eq!(table(&host), [(before[0].0.clone(), Action::Hold, 8)]);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    host.control.request(manager, &negative(seq), host.now);
    assert_eq!(table(&host), [(before[0].0.clone(), Action::TrapSubnet, 8)]);
    assert_eq!(host.dropped(), 8);
}

/// With a protocol or a port in the trap the hold has it too, and no more than that (the masks are right), over IPv6 as well.
#[test]
fn the_hold_of_a_trap_matches_as_much_of_a_flow_as_the_trap_did() {
    for (selector, flow, hold) in [
        ("10.1.0.0/16->10.2.0.0/16 17 0 53", ("10.1.0.9", "10.2.0.1"), "10.1.0.9/32->10.2.0.1/32 17 0 53"),
        ("fd00:1::/32->fd00:2::/32 0 0 0", ("fd00:1::9", "fd00:2::1"), "fd00:1::9/128->fd00:2::1/128 0 0 0"),
    ] {
        let mut words = selector.split(' ');
        let (src, dst) = words.next().unwrap().split_once("->").unwrap();
        let mut number = || words.next().unwrap().parse::<u16>().unwrap();
        let (proto, sport, dport) = (number() as u8, number(), number());
        let selector =
            Selector { proto, sport, dport, ..Selector::nets(src.parse().unwrap(), dst.parse().unwrap()) };
        let mut host = Host::trap();
        host.manager(false);
        host.plane.change_eroutes(|eroutes| {
            drop(eroutes.clear());
            eroutes.add(Eroute::new(selector, Action::Trap)).unwrap();
        });
        let (src, dst): (IpAddr, IpAddr) = (flow.0.parse().unwrap(), flow.1.parse().unwrap());
        let mut packet = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0][..], &src.octets(), &dst.octets()].concat()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                [&[0x60, 0, 0, 0, 0, 8, 17, 64][..], &src.octets(), &dst.octets()].concat()
            }
            _ => unreachable!(),
        };
        packet.extend([0x30, 0x39, 0, 53, 0, 8, 0, 0]);
        assert_eq!(host.send(&Vnet::default(), &mut packet), Verdict::Keep);
        host.control.expire(host.now);
        let holds: Vec<String> =
            table(&host).into_iter().filter(|row| row.1 == Action::Hold).map(|row| row.0).collect();
        assert_eq!(holds, [hold]);
    }
}

/// What a person holds stays held: the first and the latest packets, nobody asked, until policy says otherwise.
#[test]
fn a_hold_that_somebody_put_there_keeps_the_first_and_the_latest_packets() {
    let mut host = Host::new(Action::Hold);
    let manager = host.manager(false);
    for mark in 1..=7 {
        assert_eq!(host.packet(9, mark), Verdict::Keep);
        host.control.expire(host.now);
    }
    assert_eq!((host.heard(manager).len(), host.dropped()), (0, 3));
    let before = table(&host);
    assert_eq!((before.len(), before[0].1, before[0].2), (1, Action::Hold, 7));
    host.add(manager, 0, 0x2002, true);
    assert_eq!(host.released(), Vec::<Vec<u8>>::new());
    host.ask(manager, replace_flow(FlowAction::Protect, 0x2002));
    let marks: Vec<u8> = host.released().iter().map(|packet| packet[8 + 40]).collect();
    assert_eq!(marks, [1, 5, 6, 7]);
    // When their time is up the packets go; the eroute is not ours to take away.
    let mut host = Host::new(Action::Hold);
    assert_eq!(host.packet(9, 1), Verdict::Keep);
    host.control.expire(host.now);
    host.now = host.now.after(Duration::from_secs(16));
    host.control.expire(host.now);
    assert_eq!((host.dropped(), table(&host)[0].1), (1, Action::Hold));
}

/// A wider eroute that is put in while a flow is held decides about it: the hold we made does not stand in its way.
#[test]
fn the_hold_of_a_trap_gives_way_to_what_policy_says_behind_it() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    assert_eq!(table(&host).len(), 2);
    host.add(manager, 0, 0x2002, true);
    host.ask(manager, replace_flow(FlowAction::Protect, 0x2002));
    assert_eq!(host.released().len(), 1);
    assert_eq!(table(&host).len(), 1);
    assert!(matches!(table(&host)[0].1, Action::Protect(_)));
}
