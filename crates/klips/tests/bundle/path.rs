//! Sizes, fragments, other hosts, address translators.

use crate::device::{complete, pseudo_start, sum};
use crate::host::{ESP, ESP_TUNNEL, ESP_UDP, Host, Setup, Spec, TUN, ah, ah_tunnel};
use crate::ip;
use crate::router::too_big;
use crate::wire::{header, next, settle};
use ipsec_core::algorithm::Auth;
use klips::{Discard, Verdict};

const SHA1: Spec = ah(Auth::HmacSha1);

fn sized(setup: &Setup, len: usize, dont_fragment: bool) -> Vec<u8> {
    let headers = if setup.inner(0).is_ipv4() { 28 } else { 48 };
    let mut packet = ip::udp(setup.inner(0), setup.inner(1), [999, 53], 0, 7, len - headers);
    if setup.inner(0).is_ipv4() {
        packet[6] = if dont_fragment { 0x40 } else { 0 };
        complete(&mut packet, 20, ip::UDP);
    }
    packet
}

#[test]
fn the_mtu_a_sender_is_told_is_the_longest_packet_that_crosses_the_link_in_one() {
    for chain in [
        &[ESP][..],
        &[ESP_UDP],
        &[SHA1],
        &[TUN, ESP, SHA1],
        &[ah_tunnel(Auth::HmacSha256)],
        &[ESP_TUNNEL, SHA1],
    ] {
        for outer6 in [false, true] {
            let setup = Setup { outer6, inner6: outer6, ..Setup::new(chain) };
            let mut left = Host::new(&setup, 0);
            let big = sized(&setup, 1500, true);
            let (verdict, wire) = left.send(&big);
            assert_eq!((verdict, wire.len()), (Verdict::Answer(Discard::TooBig), 0), "{chain:?}");
            let told = left.told.pop().unwrap();
            let mtu = match outer6 {
                false => usize::from(u16::from_be_bytes([told[26], told[27]])),
                true => u32::from_be_bytes(told[44..48].try_into().unwrap()) as usize,
            };
            let (verdict, wire) = left.send(&sized(&setup, mtu, true));
            assert_eq!((verdict, wire.len()), (Verdict::Send, 1), "{chain:?}");
            assert!(
                wire[0].len() <= 1500 && wire[0].len() + 16 > 1500,
                "{chain:?}: {} octets",
                wire[0].len()
            );
            assert_eq!(
                left.send(&sized(&setup, mtu + 1, true)).0,
                Verdict::Answer(Discard::TooBig),
                "{chain:?}"
            );
        }
    }
}

#[test]
fn what_is_too_long_and_may_be_fragmented_crosses_in_fragments() {
    for chain in
        [&[ESP][..], &[SHA1], &[ESP_UDP], &[ESP, SHA1], &[ah_tunnel(Auth::HmacSha1)], &[TUN, ESP, SHA1]]
    {
        for outer6 in [false, true] {
            let setup = Setup { outer6, inner6: outer6, ..Setup::new(chain) };
            let [mut left, mut right] = setup.pair();
            left.link.frag_icmp = false;
            let big = sized(&setup, 4000, false);
            let (verdict, wire) = left.send(&big);
            assert_eq!(verdict, Verdict::Send, "{chain:?}");
            assert!(wire.len() == 3 && wire.iter().all(|packet| packet.len() <= 1500), "{chain:?}");
            assert!(right.receive(wire) == [setup.arrives(big)], "{chain:?}: {:?}", right.refused());
        }
    }
}

/// A router on the way carries less than the link: the sender is told, and what may be fragmented is cut to what passes.
#[test]
fn a_path_narrower_than_the_link_is_learned_whatever_is_around_a_packet() {
    for chain in [
        &[ESP][..],
        &[ESP_UDP],
        &[SHA1],
        &[ESP, SHA1],
        &[TUN, ESP],
        &[TUN, ESP, SHA1],
        &[ah_tunnel(Auth::HmacSha256)],
        &[ESP_TUNNEL, SHA1],
    ] {
        for outer6 in [false, true] {
            let setup = Setup { outer6, inner6: outer6, ..Setup::new(chain) };
            let [mut left, mut right] = setup.pair();
            left.link.copy_df = true;
            let most = left.plane.largest_inside(&left.sends[0].id, 1500).unwrap();
            let big = sized(&setup, most, true);
            let (_, wire) = left.send(&big);
            assert!(wire.len() == 1 && wire[0].len() > 1480, "{chain:?}");
            assert!(outer6 || wire[0][6] == 0x40, "{chain:?}: DF is copied");
            // Another SPI: nothing is learned from it.
            let mut forged = wire[0].clone();
            let spi =
                header(&forged) + [0, 4, 8][[50, 51, 17].iter().position(|p| *p == next(&forged)).unwrap()];
            forged[spi] ^= 1;
            left.hear(&too_big(&forged, 1420, 576));
            assert_eq!(left.send(&big).0, Verdict::Send, "{chain:?}");
            left.hear(&too_big(&wire[0], 1420, 576));
            assert_eq!(left.send(&big).0, Verdict::Answer(Discard::TooBig), "{chain:?}");
            assert_eq!(left.refused(), [(Discard::TooBig, 1), (Discard::UnbelievedIcmp, 1)], "{chain:?}");

            left.link.frag_icmp = false;
            let big = sized(&setup, most, false);
            let (verdict, wire) = left.send(&big);
            assert_eq!(verdict, Verdict::Send, "{chain:?}");
            assert!(wire.iter().all(|packet| packet[0] >> 4 == 6 || packet[6] & 0x40 == 0), "{chain:?}");
            // What the kernel sends it fragments, or routers do; whole packets are cut here.
            let cut = wire.iter().all(|packet| packet.len() <= 1420);
            assert!(cut == (wire.len() == 2), "{chain:?}");
            assert!(right.receive(wire) == [setup.arrives(big)], "{chain:?}: {:?}", right.refused());
        }
    }
}

#[test]
fn transport_mode_is_for_whole_packets_between_its_two_hosts() {
    let setup = Setup::new(&[ESP]);
    let mut left = Host::new(&setup, 0);
    let mut fragment = sized(&setup, 500, false);
    fragment[6] = 0x20;
    settle(&mut fragment);
    assert_eq!(left.send(&fragment).0, Verdict::Discard(Discard::Fragment));
    let wide = ipsec_core::Selector::nets("0.0.0.0/0".parse().unwrap(), "0.0.0.0/0".parse().unwrap());
    left.plane.change_eroutes(|eroutes| {
        eroutes.replace(klips::Eroute::new(wide, klips::Action::Protect(left.sends[0].id)))
    });
    for (src, dst) in [([10, 0, 0, 1], [192, 0, 2, 2]), ([192, 0, 2, 1], [192, 0, 2, 3])] {
        let ping = ip::ping(src.into(), dst.into(), 1, 64);
        assert_eq!(left.send(&ping).0, Verdict::Discard(Discard::OtherHosts));
    }
    assert_eq!(left.refused(), [(Discard::OtherHosts, 2), (Discard::Fragment, 1)]);
}

/// A tunnel takes fragments; their ports are unknown, so policy with ports does not send them (RFC 4301 §7).
#[test]
fn a_fragment_goes_through_a_tunnel_of_a_bundle() {
    let setup = Setup::new(&[TUN, ESP, SHA1]);
    let [mut left, mut right] = setup.pair();
    let mut fragment = sized(&setup, 500, false);
    (fragment[6], fragment[7]) = (0x20, 0x11);
    settle(&mut fragment);
    let (verdict, wire) = left.send(&fragment);
    assert_eq!(verdict, Verdict::Send);
    assert_eq!(right.receive(wire), [fragment]);
}

/// RFC 3948 §3.1.2: the sender computed the checksum over its own address, which the NAT has changed since.
#[test]
fn the_transport_checksum_is_repaired_behind_a_nat() {
    for proto in [ip::UDP, ip::TCP] {
        let setup = Setup::new(&[ESP_UDP]);
        let mut left = Host::new(&setup, 0);
        // What the peer sends of from its private address, the NAT sends on from 192.0.2.1.
        let inner = match proto {
            ip::UDP => ip::udp(setup.inner(0), setup.inner(1), [999, 53], 0, 7, 300),
            _ => ip::tcp(setup.inner(0), setup.inner(1), [999, 80], 5, 0x18, &[3; 300]),
        };
        let mut wrong = inner.clone();
        let field = 20 + if proto == ip::UDP { 6 } else { 16 };
        let start = pseudo_start(&wrong, 20, proto);
        wrong[field] ^= 0x55;
        assert_ne!(sum(&wrong[20..], start), 0xffff);
        let (verdict, wire) = left.send(&wrong);
        assert_eq!(verdict, Verdict::Send);
        let mut right = Host::new(&setup, 1);
        let delivered = right.receive(wire);
        assert!(delivered == [setup.arrives(inner)], "protocol {proto}");

        // Without a NAT nobody touches it: a wrong checksum stays wrong.
        let plain = Setup::new(&[ESP]);
        let [mut left, mut right] = plain.pair();
        let (_, wire) = left.send(&wrong);
        assert_eq!(right.receive(wire), [wrong]);
    }
    // No UDP checksum is no checksum to repair.
    let setup = Setup::new(&[ESP_UDP]);
    let [mut left, mut right] = setup.pair();
    let mut bare = ip::udp(setup.inner(0), setup.inner(1), [999, 53], 0, 7, 300);
    bare[26..28].fill(0);
    let (_, wire) = left.send(&bare);
    assert_eq!(right.receive(wire), [setup.arrives(bare)]);
}

/// Time to live, options and identification are the packet's own in transport mode.
#[test]
fn transport_mode_keeps_the_header_that_is_there() {
    for chain in [&[ESP][..], &[SHA1], &[ESP, SHA1]] {
        let setup = Setup::new(chain);
        let [mut left, mut right] = setup.pair();
        let mut packet = sized(&setup, 200, true);
        packet.splice(20..20, [148, 4, 0, 0]);
        packet[0] = 0x46;
        (packet[4], packet[5], packet[8], packet[1]) = (0xbe, 0xef, 17, 0xb8);
        settle(&mut packet);
        let (_, wire) = left.send(&packet);
        let outer = &wire[0];
        assert_eq!((outer[1], &outer[4..6], outer[6], outer[8]), (0xb8, &[0xbe, 0xef][..], 0x40, 17));
        assert_eq!(outer[20..24], [148, 4, 0, 0]);
        assert_eq!(right.receive(wire), [packet], "{chain:?}");
    }
}
