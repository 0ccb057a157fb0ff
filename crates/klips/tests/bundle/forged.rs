//! What a peer, or somebody between, must not get away with.

use crate::host::{COMP, ESP, ESP_CBC, ESP_TUNNEL, ESP_UDP, Host, Setup, Spec, TUN, ah, ah_tunnel};
use crate::wire::{header, settle};
use crate::{Vnet, ip};
use ipsec_core::algorithm::Auth;
use klips::{Discard, Verdict};
use std::sync::Arc;

const SHA1: Spec = ah(Auth::HmacSha1);

/// A host that has the SAs of `setup` but applies only some of them, as a peer would that leaves one out.
fn dishonest(setup: &Setup, applies: &[usize]) -> Host {
    let host = Host::new(setup, 0);
    let sas: Vec<_> = applies.iter().map(|n| setup.sa(*n, 0, 0)).collect();
    host.plane.publish_group(sas.iter().map(Arc::clone)).unwrap();
    if let Some(first) = sas.first() {
        let eroute = klips::Eroute::new(setup.selector(0), klips::Action::Protect(first.id));
        host.plane.change_eroutes(|eroutes| eroutes.replace(eroute));
    }
    host
}

#[test]
fn a_peer_that_leaves_an_sa_out_is_refused() {
    for (chain, applies, why) in [
        // AH left out, on the outside.
        (&[ESP_TUNNEL, SHA1][..], &[0][..], Discard::WrongBundle),
        (&[ESP, SHA1], &[0], Discard::WrongBundle),
        (&[TUN, ESP, SHA1], &[0, 1], Discard::WrongBundle),
        // ESP left out, on the inside.
        (&[ESP, SHA1], &[1], Discard::WrongBundle),
        (&[TUN, ESP, SHA1], &[0, 2], Discard::WrongBundle),
        // The outer tunnel left out.
        (&[ESP_TUNNEL, ESP_TUNNEL], &[0], Discard::WrongBundle),
        // The inner one.
        (&[ESP_TUNNEL, ESP_TUNNEL], &[1], Discard::WrongBundle),
        (&[ah_tunnel(Auth::HmacSha1), ESP_TUNNEL], &[1], Discard::WrongBundle),
    ] {
        let setup = Setup::new(chain);
        let mut right = Host::new(&setup, 1);
        let mut peer = dishonest(&setup, applies);
        let ping = ip::ping(setup.inner(0), setup.inner(1), 1, 64);
        let (verdict, wire) = peer.send(&ping);
        assert_eq!((verdict, wire.len()), (Verdict::Send, 1), "{chain:?} {:?}", peer.refused());
        assert_eq!(right.receive(wire), Vec::<Vec<u8>>::new(), "{chain:?} without all but {applies:?}");
        assert_eq!(right.refused(), [(why, 1)], "{chain:?} without all but {applies:?}");
        // The same with nothing left out is let in.
        let mut honest = Host::new(&setup, 0);
        honest.sends.iter().for_each(|sa| sa.continue_after(10));
        let (_, wire) = honest.send(&ping);
        assert_eq!(right.receive(wire), [ping], "{chain:?}");
    }
}

/// RFC 4302 §3.3.3.1.1: what routers change is not authenticated, everything else is.
#[test]
fn ah_notices_every_change_but_those_of_routers() {
    for chain in [&[SHA1][..], &[ah_tunnel(Auth::HmacSha256)], &[ESP, SHA1]] {
        for outer6 in [false, true] {
            let setup = Setup { inner6: outer6, outer6, ..Setup::new(chain) };
            let [mut left, _] = setup.pair();
            let (_, wire) = left.send(&ip::ping(setup.inner(0), setup.inner(1), 1, 40));
            let packet = &wire[0];
            for at in 0..packet.len() {
                let mut right = Host::new(&setup, 1);
                let mut changed = packet.clone();
                // A raw IPv6 socket does not hand the header over: what is not in the addresses is not seen.
                if outer6 && at < 8 {
                    continue;
                }
                changed[at] ^= 0x01;
                let router = !outer6 && matches!(at, 1 | 8 | 10 | 11);
                // Version and length, protocol: the packet is no longer one that reaches us.
                if !outer6 && matches!(at, 0 | 2 | 3 | 6 | 7 | 9) {
                    continue;
                }
                let delivered = right.receive(vec![changed]);
                let expected = usize::from(router);
                assert_eq!(delivered.len(), expected, "{chain:?} octet {at}: {:?}", right.refused());
            }
        }
    }
}

#[test]
fn ah_over_a_router_that_changes_what_routers_change_verifies() {
    let setup = Setup::new(&[ah_tunnel(Auth::HmacSha1)]);
    let [mut left, mut right] = setup.pair();
    let (_, mut wire) = left.send(&ip::ping(setup.inner(0), setup.inner(1), 1, 40));
    let packet = &mut wire[0];
    (packet[1], packet[6], packet[8]) = (0x03 | packet[1], 0x40, 3);
    settle(packet);
    // CE on the outside of a packet that cannot carry it (RFC 6040 §4.2).
    assert_eq!((right.receive(wire).len(), right.refused()), (0, vec![(Discard::CongestionNotCarried, 1)]));
}

/// IPv4 options, by what RFC 4302 Appendix A1 says of each, in transport mode.
#[test]
fn ipv4_options_are_authenticated_as_far_as_they_stay_the_same() {
    let setup = Setup::new(&[SHA1]);
    for (option, octet, stays) in [
        (&[148, 4, 0, 0][..], 23, true),
        (&[130, 8, 1, 2, 3, 4, 5, 6], 25, true),
        (&[7, 7, 4, 0, 0, 0, 0, 0], 24, false),
        (&[68, 8, 5, 0, 0, 0, 0, 0], 25, false),
    ] {
        let [mut left, mut right] = setup.pair();
        let mut packet = ip::ping(setup.inner(0), setup.inner(1), 1, 40);
        packet.splice(20..20, option.iter().copied());
        packet[0] += option.len() as u8 / 4;
        settle(&mut packet);
        let (verdict, wire) = left.send(&packet);
        assert_eq!(verdict, Verdict::Send, "{option:?}");
        assert_eq!(right.receive(wire), [packet.clone()], "{option:?}: {:?}", right.refused());
        let (_, mut wire) = left.send(&packet);
        wire[0][octet] ^= 1;
        settle(&mut wire[0]);
        assert_eq!(right.receive(wire).is_empty(), stays, "{option:?}");
    }
}

#[test]
fn a_packet_played_again_is_refused_by_every_layer() {
    for chain in [&[ESP][..], &[SHA1], &[ESP_CBC, SHA1], &[TUN, ESP]] {
        let setup = Setup::new(chain);
        let [mut left, mut right] = setup.pair();
        let (_, wire) = left.send(&ip::ping(setup.inner(0), setup.inner(1), 1, 40));
        assert_eq!(right.receive(wire.clone()).len(), 1);
        assert_eq!(right.receive(wire).len(), 0);
        assert_eq!(right.refused(), [(Discard::Replayed, 1)], "{chain:?}");
    }
}

#[test]
fn every_truncation_is_refused_and_moves_nothing() {
    for chain in [&[ESP_CBC, SHA1][..], &[SHA1], &[TUN, COMP, ESP_UDP], &[COMP, ESP]] {
        let setup = Setup::new(chain);
        let [mut left, mut right] = setup.pair();
        let (_, wire) = left.send(&ip::ping(setup.inner(0), setup.inner(1), 1, 400));
        let whole = &wire[0];
        for len in header(whole)..whole.len() {
            let mut cut = whole[..len].to_vec();
            settle(&mut cut);
            if next_is_udp(&cut) && len < header(&cut) + 8 {
                continue;
            }
            assert_eq!(right.receive(vec![cut]).len(), 0, "{chain:?}: {len} octets");
        }
        assert!(right.receives.iter().all(|sa| sa.packets() == 0));
        assert_eq!(right.receive(wire).len(), 1, "{chain:?}: none of that moved a window");
    }
}

fn next_is_udp(packet: &[u8]) -> bool {
    crate::wire::next(packet) == 17
}

/// What is inside must be what the innermost SA was agreed on for, however much is around it.
#[test]
fn a_peer_that_puts_something_else_inside_is_refused() {
    for chain in
        [&[TUN, ESP][..], &[TUN, COMP, ESP, SHA1], &[ESP_TUNNEL, ESP_TUNNEL], &[ah_tunnel(Auth::HmacSha1)]]
    {
        let setup = Setup::new(chain);
        let [mut left, mut right] = setup.pair();
        let wide = ipsec_core::Selector::nets("0.0.0.0/0".parse().unwrap(), "0.0.0.0/0".parse().unwrap());
        let eroute = klips::Eroute::new(wide, klips::Action::Protect(left.sends[0].id));
        left.plane.change_eroutes(|eroutes| eroutes.replace(eroute));
        let other = ip::ping([10, 66, 0, 1].into(), setup.inner(1), 1, 300);
        let (verdict, wire) = left.send(&other);
        assert_eq!(verdict, Verdict::Send);
        assert_eq!(right.receive(wire).len(), 0, "{chain:?}");
        assert_eq!(right.refused(), [(Discard::PolicyMismatch, 1)], "{chain:?}");
    }
}

/// A deflate stream, as its sender could have made it.
fn deflated(octets: &[u8]) -> Vec<u8> {
    let mut deflate = flate2::Compress::new(flate2::Compression::new(9), false);
    let mut out = vec![0; 4096];
    deflate.compress(octets, &mut out, flate2::FlushCompress::Finish).unwrap();
    out.truncate(deflate.total_out() as usize);
    out
}

/// The peer of an IPComp and an ESP SA, whose ESP does no compressing: what it sends in protocol 108 is the test's.
fn compressing_by_hand(setup: &Setup) -> Host {
    let peer = Host::new(&Setup { chain: vec![ESP], ..setup.clone() }, 0);
    let sa = setup.sa(1, 0, 0);
    peer.plane.publish(Arc::clone(&sa));
    let eroute = klips::Eroute::new(setup.selector(0), klips::Action::Protect(sa.id));
    peer.plane.change_eroutes(|eroutes| eroutes.replace(eroute));
    peer
}

/// A peer whose payload inflates to more than any packet: counted, refused, and the SA goes on.
#[test]
fn a_decompression_bomb_is_a_counted_refusal() {
    let setup = Setup::new(&[COMP, ESP]);
    let [mut left, mut right] = setup.pair();
    let bomb = deflated(&[0; 70_000]);
    let cpi = setup.id(0, 0).spi.0 as u16;
    let comp = [&[17, 0][..], &cpi.to_be_bytes(), &bomb].concat();
    let mut peer = compressing_by_hand(&setup);
    let mut packet = ip::packet(setup.inner(0), setup.inner(1), 108, 0, &comp);
    settle(&mut packet);
    let (verdict, wire) = peer.send(&packet);
    assert_eq!((verdict, wire.len()), (Verdict::Send, 1));
    assert_eq!(right.receive(wire), Vec::<Vec<u8>>::new());
    assert_eq!(right.refused(), [(Discard::Bomb, 1)]);
    // Another CPI, and something that is no stream.
    for (cpi, body, why) in
        [(cpi ^ 1, &bomb[..], Discard::WrongBundle), (cpi, &[0xff; 9], Discard::BadCompression)]
    {
        let before = right.plane.discarded(why);
        let comp = [&[17, 0][..], &cpi.to_be_bytes(), body].concat();
        let packet = ip::packet(setup.inner(0), setup.inner(1), 108, 0, &comp);
        let (_, wire) = peer.send(&packet);
        assert_eq!(right.receive(wire).len(), 0);
        assert_eq!(right.plane.discarded(why), before + 1, "{why:?}");
    }
    left.sends[1].continue_after(100);
    let ping = ip::ping(setup.inner(0), setup.inner(1), 1, 400);
    let (_, wire) = left.send_all(&[(Vnet::default(), ping.clone())]);
    assert_eq!(right.receive(wire), [ping]);
}

/// Each of them may be, and all of them together are more than a batch may hold.
#[test]
fn a_batch_that_inflates_to_too_much_is_bounded() {
    const PACKETS: usize = 200;
    const ARENA: usize = 8 << 20;
    let setup = Setup::new(&[COMP, ESP]);
    let mut right = Host::new(&setup, 1);
    let mut peer = compressing_by_hand(&setup);
    let large = ip::udp(setup.inner(0), setup.inner(1), [999, 53], 0, 7, 0);
    let mut large = [&large[20..], &[0; 65_000]].concat();
    let len = large.len() as u16;
    large[4..6].copy_from_slice(&len.to_be_bytes());
    large[6..8].fill(0);
    let cpi = setup.id(0, 0).spi.0 as u16;
    let comp = [&[17, 0][..], &cpi.to_be_bytes(), &deflated(&large)].concat();
    let packet = ip::packet(setup.inner(0), setup.inner(1), 108, 0, &comp);
    for _ in 0..2 {
        let wire: Vec<_> = (0..PACKETS).flat_map(|_| peer.send(&packet).1).collect();
        let before = right.plane.discarded(Discard::Bomb);
        let delivered = right.receive(wire);
        assert!(delivered.iter().all(|packet| packet.len() == 20 + large.len()));
        assert!(
            (ARENA - 65_536..ARENA + 65_536).contains(&(delivered.len() * 65_100)),
            "{}",
            delivered.len()
        );
        let refused = right.plane.discarded(Discard::Bomb) - before;
        assert_eq!(delivered.len() + refused as usize, PACKETS, "the next batch has room again");
    }
}
