//! What goes through a bundle comes out of it, whatever it is made of.

use crate::device::seen;
use crate::host::{COMP, ESP, ESP_CBC, ESP_TUNNEL, ESP_UDP, Host, Setup, Spec, TUN, ah, ah_tunnel};
use crate::wire::next;
use crate::{Gso, Vnet, ip};
use ipsec_core::Protocol;
use ipsec_core::algorithm::Auth;
use klips::{BundleError, Discard, Mode, Verdict};

const SHA1: Spec = ah(Auth::HmacSha1);
const SHA256: Spec = ah(Auth::HmacSha256);

/// Chains that make sense, tunnel mode somewhere or not at all.
fn chains() -> Vec<Vec<Spec>> {
    let mut all = vec![
        vec![ESP],
        vec![ESP_CBC],
        vec![ESP_UDP],
        vec![ESP, SHA1],
        vec![COMP, ESP],
        vec![COMP, ESP_CBC, SHA256],
        vec![TUN, ESP],
        vec![TUN, ESP_UDP],
        vec![TUN, ESP_CBC, SHA256],
        vec![TUN, COMP, ESP, SHA1],
        vec![TUN, COMP, ESP_UDP],
        vec![ESP_TUNNEL, SHA1],
        vec![ESP_TUNNEL, ESP_TUNNEL],
        vec![ah_tunnel(Auth::HmacSha1), ESP_TUNNEL],
        vec![ah_tunnel(Auth::HmacSha1), ESP],
        vec![TUN, SHA1, ESP],
        vec![Spec { esn: true, ..ESP }, Spec { esn: true, ..SHA256 }],
    ];
    for auth in [Auth::HmacMd5, Auth::HmacSha1, Auth::HmacSha256, Auth::HmacSha384, Auth::HmacSha512] {
        all.extend([vec![ah(auth)], vec![ah_tunnel(auth)]]);
    }
    all.extend(
        [Auth::AesXcbc, Auth::AesCmac, Auth::AesGmac].map(|auth| vec![Spec { esn: true, ..ah_tunnel(auth) }]),
    );
    all
}

fn setups() -> impl Iterator<Item = Setup> {
    chains().into_iter().flat_map(|chain| {
        let plain = Setup { chain, inner6: false, outer6: false };
        [(false, false), (true, false), (false, true), (true, true)]
            .map(|(inner6, outer6)| Setup { inner6, outer6, ..plain.clone() })
            .into_iter()
            // In transport mode there is one family.
            .filter(|setup| !setup.transport() || setup.inner6 == setup.outer6)
    })
}

/// Packets of several kinds from left to right, among them a superpacket; and what a network without offloads would see.
fn traffic(setup: &Setup) -> Vec<(Vnet, Vec<u8>)> {
    let (left, right) = (setup.inner(0), setup.inner(1));
    let mut packets: Vec<(Vnet, Vec<u8>)> = [0, 1, 2, 3, 100, 1000]
        .into_iter()
        .flat_map(|len| {
            [ip::ping(left, right, len as u16, len), ip::udp(left, right, [999, 53], 0x28, len as u64, len)]
        })
        .map(|packet| (Vnet::default(), packet))
        .collect();
    let mut tcp = ip::tcp(left, right, [40_000, 443], 77, 0x18, &ip::marked(5, 5 * 1000 + 7));
    let transport = if left.is_ipv4() { 20 } else { 40 };
    let partial = crate::device::sum(&[], crate::device::pseudo_start(&tcp, transport, ip::TCP));
    tcp[transport + 16..transport + 18].copy_from_slice(&partial.to_be_bytes());
    let vnet = Vnet {
        needs_csum: true,
        gso: if left.is_ipv4() { Gso::Tcp4 } else { Gso::Tcp6 },
        gso_size: 1000,
        hdr_len: transport as u16 + 20,
        csum_start: transport as u16,
        csum_offset: 16,
        ..Vnet::default()
    };
    packets.push((vnet, tcp));
    packets
}

#[test]
fn every_bundle_carries_every_packet_and_counts_it_on_each_sa() {
    for setup in setups() {
        let [mut left, mut right] = setup.pair();
        let packets = traffic(&setup);
        let means: Vec<Vec<u8>> =
            packets.iter().flat_map(|(vnet, packet)| crate::device::cut(vnet, packet)).collect();
        let (verdicts, wire) = left.send_all(&packets);
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Send), "{setup:?}: {verdicts:?}");
        assert_eq!(wire.len(), means.len(), "{setup:?}: {:?}", left.refused());
        if setup.chain.iter().any(|spec| spec.protocol == Protocol::Esp) {
            for packet in &wire {
                assert!(
                    !packet.windows(8).any(|octets| ip::MARK.windows(8).any(|mark| mark == octets)),
                    "{setup:?}"
                );
            }
        }
        let outermost = setup.chain.last().unwrap();
        let on_the_wire = if outermost.udp { 17 } else { outermost.protocol.number() };
        assert!(wire.iter().all(|packet| next(packet) == on_the_wire), "{setup:?}");
        let delivered = right.receive(wire);
        assert_eq!((left.refused(), right.refused()), (vec![], vec![]), "{setup:?}");
        let sorted = |packets: &[Vec<u8>]| {
            let mut all: Vec<_> = packets.iter().map(|packet| seen(packet)).collect();
            all.sort();
            all
        };
        let arrive: Vec<Vec<u8>> = means.iter().cloned().map(|packet| setup.arrives(packet)).collect();
        assert!(sorted(&delivered) == sorted(&arrive), "{setup:?}");
        for sa in left.sends.iter().chain(&right.receives) {
            assert_eq!(sa.packets(), means.len() as u64, "{setup:?}: {}", sa.id);
        }
        assert!(right.writes < means.len(), "segments of one flow are merged the general way, too");
    }
}

#[test]
fn a_bundle_without_one_of_its_sas_carries_nothing_and_neither_do_the_others_alone() {
    let setup = Setup::new(&[TUN, ESP, SHA1]);
    let ping = ip::ping(setup.inner(0), setup.inner(1), 1, 64);
    for gone in 0..3 {
        let [mut left, mut right] = setup.pair();
        let (_, wire) = left.send(&ping);
        left.plane.withdraw(&left.sends[gone].id);
        assert_eq!(left.send(&ping), (Verdict::Discard(Discard::NoSa), vec![]), "SA {gone}");
        right.plane.withdraw(&right.receives[gone].id);
        assert_eq!(right.receive(wire), Vec::<Vec<u8>>::new(), "SA {gone}");
        assert!(
            matches!(right.refused()[..], [(Discard::NoSa | Discard::Expired, 1)]),
            "{:?}",
            right.refused()
        );
    }
}

#[test]
fn the_hard_limit_of_one_sa_ends_the_bundle() {
    for limited in 0..2 {
        let mut chain = [ESP, SHA1];
        chain[limited].hard_bytes = 600;
        let setup = Setup::new(&chain);
        let mut left = Host::new(&setup, 0);
        let ping = ip::ping(setup.inner(0), setup.inner(1), 1, 172);
        let sent = (0..5).filter(|_| left.send(&ping).1.len() == 1).count();
        assert!((1..3).contains(&sent), "{sent} packets");
        assert!(!left.sends[limited].is_alive());
    }
}

#[test]
fn numbers_that_end_end_the_bundle_after_the_last_one() {
    let setup = Setup::new(&[ESP, SHA1]);
    let [mut left, mut right] = setup.pair();
    left.sends[1].continue_after(u64::from(u32::MAX) - 2);
    let ping = ip::ping(setup.inner(0), setup.inner(1), 1, 64);
    let many = vec![(Vnet::default(), ping.clone()); 4];
    let (_, wire) = left.send_all(&many);
    assert_eq!((wire.len(), left.refused()), (2, vec![(Discard::SequenceExhausted, 2)]));
    assert_eq!(right.receive(wire).len(), 2);
    assert_eq!(left.send(&ping).0, Verdict::Discard(Discard::NoSa));
}

#[test]
fn what_is_no_bundle_is_not_published() {
    let refused = |chain: &[Spec]| {
        let setup = Setup::new(chain);
        let plane = klips::Plane::default();
        let sas = (0..chain.len()).map(|n| setup.sa(n, 0, 0));
        let outcome = plane.publish_group(sas);
        assert_eq!(plane.sa(&setup.id(0, 0)).is_some(), outcome.is_ok());
        outcome.unwrap_err()
    };
    assert_eq!(refused(&[TUN]), BundleError::Unprotected);
    assert_eq!(refused(&[COMP]), BundleError::Unprotected);
    assert_eq!(refused(&[TUN, COMP]), BundleError::Unprotected);
    assert_eq!(refused(&[ESP, TUN]), BundleError::Unprotected);
    assert_eq!(refused(&[ESP_UDP, SHA1]), BundleError::Encapsulated);
    assert_eq!(refused(&[TUN, COMP, ESP, SHA1, SHA1]), BundleError::Number);
    assert_eq!(klips::Plane::default().publish_group([]), Err(BundleError::Number));
}

/// Compression is tried where it helps, and a packet that does not shrink goes without.
#[test]
fn compression_shrinks_what_it_can_and_leaves_the_rest() {
    let setup = Setup::new(&[TUN, COMP, ESP]);
    let [mut left, mut right] = setup.pair();
    let (a, b) = (setup.inner(0), setup.inner(1));
    let dull = ip::packet(a, b, 1, 0, &[&[8, 0, 0, 0, 0, 1, 0, 1][..], &[7; 1000]].concat());
    let noise: Vec<u8> =
        (0..1000_u32).map(|n| (n.wrapping_mul(n).wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    let noisy = ip::packet(a, b, 1, 0, &[&[8, 0, 0, 0, 0, 1, 0, 1][..], &noise].concat());
    let (_, small) = left.send(&dull);
    let (_, large) = left.send(&noisy);
    assert!(small[0].len() < 200 && large[0].len() > 1000, "{} {}", small[0].len(), large[0].len());
    assert_eq!(right.receive([small, large].concat()), [dull, noisy]);
    assert_eq!(right.refused(), []);
    assert_eq!(left.sends[1].mode, Mode::Transport);
}
