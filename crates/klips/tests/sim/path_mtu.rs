//! A router on the way that carries less than the link does, and others who only say so.

use crate::device::sum;
use crate::host::{Host, Setup, Side};
use crate::net::Datagram;
use crate::policy::{sized, told};
use crate::router::too_big;
use klips::{Discard, Sa, Verdict, Vnet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A datagram as the IP packet that the kernel makes of it.
fn on_the_wire(datagram: &Datagram) -> Vec<u8> {
    let udp = datagram.ports.map_or(vec![], |ports| {
        let len = datagram.octets.len() as u16 + 8;
        [ports[0], ports[1], len, 0].iter().flat_map(|word| word.to_be_bytes()).collect()
    });
    let proto = if udp.is_empty() { 50 } else { 17 };
    let len = (udp.len() + datagram.octets.len()) as u16;
    let header = match (datagram.src, datagram.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [l0, l1] = (len + 20).to_be_bytes();
            let df = if datagram.dont_fragment { 0x40 } else { 0 };
            let start = [0x45, 0, l0, l1, 0, 7, df, 0, 64, proto, 0, 0];
            [&start[..], &src.octets(), &dst.octets()].concat()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let [l0, l1] = len.to_be_bytes();
            [&[0x60, 0, 0, 0, l0, l1, proto, 64][..], &src.octets(), &dst.octets()].concat()
        }
        _ => panic!("mixed families"),
    };
    [header, udp, datagram.octets.clone()].concat()
}

/// What one packet of the left host is on the wire.
fn sent(left: &mut Host, packet: &[u8]) -> Vec<u8> {
    let (verdict, wire) = left.send(&Vnet::default(), packet);
    assert_eq!((verdict, wire.len()), (Verdict::Send, 1));
    on_the_wire(&wire[0])
}

/// A host that copies DF, before a link of 1500 octets.
fn left(setup: &Setup) -> Host {
    let [mut left, _] = setup.pair();
    left.set_link(|link| (link.mtu, link.copy_df) = (1500, true));
    left
}

#[test]
fn a_path_narrower_than_the_link_is_learned_its_senders_are_told_and_it_is_forgotten_again() {
    for setup in Setup::default().shapes() {
        let mut left = left(&setup);
        let big = sized(&setup, 1400, true);
        let wire = sent(&mut left, &big);
        assert!(wire.len() > 1400);
        left.hear(&too_big(&wire, 1400, 576));

        let (verdict, nothing) = left.send(&Vnet::default(), &big);
        assert_eq!((verdict, nothing.len()), (Verdict::Answer(Discard::TooBig), 0), "{setup:?}");
        let (.., mtu) = told(&mut left, &setup, &big);
        let mtu = mtu as usize;
        assert!((1280..1400).contains(&mtu));
        let wire = sent(&mut left, &sized(&setup, mtu, true));
        assert!(wire.len() <= 1400 && wire.len() + 16 > 1400, "{setup:?}: {} octets", wire.len());
        let (verdict, _) = left.send(&Vnet::default(), &sized(&setup, mtu + 1, true));
        assert_eq!(verdict, Verdict::Answer(Discard::TooBig));
        left.told.clear();

        // What may be fragmented goes, and may be.
        if !setup.inner6 {
            let (_, wire) = left.send(&Vnet::default(), &sized(&setup, 1400, false));
            assert!(!wire[0].dont_fragment);
        }

        // The SA that comes after it knows the way already.
        let rekeyed = Setup { generation: 1, ..setup };
        let next = Arc::new(Sa::new(rekeyed.blueprint(Side::Left, Side::Left)));
        left.plane.publish(Arc::clone(&next));
        let before = left.plane.largest_inside(&next.id, 1500);
        assert!(before > Some(mtu), "what is asked for another link is not the path's business");
        left.plane.change_eroutes(|eroutes| {
            drop(
                eroutes
                    .replace(klips::Eroute::new(setup.selector(Side::Left), klips::Action::Protect(next.id))),
            );
        });
        assert_eq!(left.send(&Vnet::default(), &big).0, Verdict::Answer(Discard::TooBig));

        // Whoever is told less later is told; whoever says more is not believed, nor refused.
        let fits = sized(&setup, mtu, true);
        let wire = sent(&mut left, &fits);
        left.hear(&too_big(&wire, 1390, 576));
        assert_eq!(left.send(&Vnet::default(), &fits).0, Verdict::Answer(Discard::TooBig));
        let wire = sent(&mut left, &sized(&setup, 1280, true));
        assert!(wire.len() < 1390);

        // Ten minutes after the last news the whole link is tried again.
        left.now = left.now.after(Duration::from_secs(598));
        assert_eq!(left.send(&Vnet::default(), &fits).0, Verdict::Answer(Discard::TooBig));
        left.now = left.now.after(Duration::from_secs(2));
        assert!(sent(&mut left, &big).len() > 1400);
        let too_big = left.plane.discarded(Discard::TooBig);
        assert_eq!(left.refused(), [(Discard::TooBig, too_big)]);
    }
}

#[test]
fn nobody_who_has_not_seen_a_packet_of_late_narrows_a_path() {
    for setup in Setup::default().shapes() {
        let mut left = left(&setup);
        left.sends.continue_after(5_000_000);
        let big = sized(&setup, 1400, true);
        let wire = sent(&mut left, &big);
        let (ip, v4) = if setup.outer6 { (40, false) } else { (20, true) };
        let esp = if setup.udp { ip + 8 } else { ip };
        let edit = |at: usize, octets: &[u8]| {
            let mut packet = wire.clone();
            packet[at..at + octets.len()].copy_from_slice(octets);
            too_big(&packet, 1400, 576)
        };
        let number = |n: u32| edit(esp + 4, &n.to_be_bytes());
        let len = wire.len() as u16;
        let mut unlike = too_big(&wire, 1400, 576);
        unlike[8] ^= 0x20;
        if v4 {
            unlike[2..4].fill(0);
            let checksum = !sum(&unlike, 0);
            unlike[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        let later = if v4 {
            edit(6, &[0x60, 1])
        } else {
            let mut packet = wire.clone();
            let next = core::mem::replace(&mut packet[6], 44);
            packet.splice(40..40, [next, 0, 0, 9, 0, 0, 0, 1]);
            too_big(&packet, 1400, 576)
        };
        let mut refused = vec![
            ("another SPI", edit(esp + 3, &[7])),
            ("a number that was not sent", number(6_000_000)),
            ("number 0", number(0)),
            ("a number of long ago", number(5_000_001 - (1 << 20))),
            ("from another source", edit(ip - if v4 { 5 } else { 17 }, &[99])),
            ("to another destination", edit(ip - 1, &[99])),
            ("as long as the packet", too_big(&wire, len, 576)),
            ("narrower than any path", too_big(&wire, if v4 { 575 } else { 1279 }, 576)),
            ("without the number", too_big(&wire, 1400, esp + 7)),
            ("without an IP header", too_big(&wire, 1400, ip - 1)),
            ("of the other family", unlike),
            ("as a later fragment", later),
        ];
        if v4 {
            refused.push(("of a packet that may be fragmented", edit(6, &[0])));
            refused.push(("with a header shorter than there is", edit(0, &[0x44])));
        } else {
            refused.push(("with no MTU", too_big(&wire, 0, 576)));
        }
        if setup.udp {
            refused.push(("to another port", edit(ip + 2, &[1, 2])));
            refused.push(("raw", edit(if v4 { 9 } else { 6 }, &[50])));
        } else {
            let ports = [&Setup::port(Side::Left).to_be_bytes()[..], &Setup::port(Side::Right).to_be_bytes()]
                .concat();
            let mut udp = wire.clone();
            udp[if v4 { 9 } else { 6 }] = 17;
            udp.splice(ip..ip, [&ports[..], &[0; 4]].concat());
            refused.push(("in UDP", too_big(&udp, 1400, 576)));
        }
        let unbelieved = |left: &Host| left.plane.discarded(Discard::UnbelievedIcmp);
        for (n, (what, message)) in refused.iter().enumerate() {
            left.hear(message);
            assert_eq!(unbelieved(&left), n as u64 + 1, "{what}, {setup:?}");
            assert!(sent(&mut left, &big).len() > 1400, "{what}, {setup:?}");
        }

        // What is not about packets of ours, or is something else, is nothing to us: not even counted.
        let mut echo = too_big(&wire, 1400, 576);
        echo[0] = if v4 { 8 } else { 128 };
        let mut unsound = too_big(&wire, 1400, 576);
        unsound[2] ^= 1;
        let mut other =
            vec![edit(if v4 { 9 } else { 6 }, &[6]), echo, vec![], vec![if v4 { 3 } else { 2 }, 4, 0]];
        if v4 {
            other.push(unsound);
        }
        if setup.udp {
            other.push(edit(ip, &[1, 2]));
        }
        other.iter().for_each(|message| left.hear(message));
        assert_eq!(unbelieved(&left), refused.len() as u64, "{setup:?}");
        assert!(sent(&mut left, &big).len() > 1400);

        // And the very message that is right, about the oldest packet that is recent.
        left.hear(&number(left.sends.sent() as u32 - ((1 << 20) - 1)));
        assert_eq!(left.send(&Vnet::default(), &big).0, Verdict::Answer(Discard::TooBig), "{setup:?}");
        assert_eq!(unbelieved(&left), refused.len() as u64);
    }
}

/// RFC 1191 §5: routers older than it name no MTU.
#[test]
fn a_router_that_names_no_mtu_means_the_next_plateau() {
    let setup = Setup::default();
    let mut left = left(&setup);
    let big = sized(&setup, 1400, true);
    let wire = sent(&mut left, &big);
    // Number 0 no packet has, not even one of an SA that has sent few.
    let mut guessed = wire.clone();
    guessed[24..28].fill(0);
    left.hear(&too_big(&guessed, 0, 28));
    assert_eq!(left.plane.discarded(Discard::UnbelievedIcmp), 1);
    // RFC 792 asks for eight octets of what is inside of IP: SPI and number.
    left.hear(&too_big(&wire, 0, 28));
    assert_eq!(left.send(&Vnet::default(), &big).0, Verdict::Answer(Discard::TooBig));
    let (.., mtu) = told(&mut left, &setup, &big);
    let wire = sent(&mut left, &sized(&setup, mtu as usize, true));
    assert!(wire.len() <= 1006 && wire.len() + 16 > 1006);
}

/// IPv6 cannot be told less than 1280 octets (RFC 8200 §5): then routers must be able to help.
#[test]
fn what_ipv6_cannot_be_told_may_be_fragmented_outside() {
    let setup = Setup { inner6: true, ..Setup::default() };
    let mut left = left(&setup);
    let full = sized(&setup, 1280, true);
    let wire = sent(&mut left, &full);
    assert_eq!(wire[6], 0x40);
    left.hear(&too_big(&wire, 1300, 576));
    let wire = sent(&mut left, &full);
    assert_eq!((wire[6], left.refused()), (0, vec![]));
}

/// Without `copydf=yes` routers fragment, whatever the packet inside says, as KLIPS had it.
#[test]
fn the_outer_packet_may_be_fragmented_unless_told_otherwise() {
    for setup in Setup::default().shapes() {
        for (copy_df, inner_df) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut left = left(&setup);
            left.set_link(|link| link.copy_df = copy_df);
            let (_, wire) = left.send(&Vnet::default(), &sized(&setup, 1000, inner_df));
            // IPv6 is never fragmented by routers: inside it is as DF, outside there is nothing to say.
            let expected = copy_df && (inner_df || setup.inner6) && !setup.outer6;
            assert_eq!(wire[0].dont_fragment, expected, "{setup:?}");
        }
    }
}
