//! TFC padding (RFC 4303 §2.7): packets of every length are of one length on the wire, and arrive as they were.

use crate::host::{COMP, ESP_TUNNEL, ESP_UDP, Host, Setup, Spec, TUN, ah};
use crate::router::too_big;
use crate::{Gso, Vnet, ip};
use ipsec_core::Protocol;
use ipsec_core::algorithm::{Auth, Encryption, Suite};
use klips::{Discard, Mode, Verdict};
use pfkey::Tfc;

const GCM: Suite = Suite { encryption: Some(Encryption::AesGcm16), auth: None };

fn padded(spec: Spec, pad: u32) -> Spec {
    Spec { tfc: Tfc { pad, dummies: 0 }, ..spec }
}

/// ESP in tunnel mode, with both kinds of cipher, in UDP, and inside and outside of others.
fn chains(pad: u32) -> Vec<Vec<Spec>> {
    let gcm = Spec { suite: GCM, ..ESP_TUNNEL };
    let udp = Spec { mode: Mode::Tunnel, ..ESP_UDP };
    vec![
        vec![padded(ESP_TUNNEL, pad)],
        vec![padded(gcm, pad)],
        vec![padded(udp, pad)],
        vec![padded(ESP_TUNNEL, pad), ah(Auth::HmacSha256)],
        vec![padded(ESP_TUNNEL, pad), ESP_TUNNEL],
        vec![ESP_TUNNEL, padded(ESP_TUNNEL, pad)],
        vec![TUN, COMP, padded(gcm, pad)],
    ]
}

fn setups(pad: u32) -> impl Iterator<Item = Setup> {
    chains(pad).into_iter().flat_map(|chain| {
        [(false, false), (true, false), (false, true), (true, true)].map(|(inner6, outer6)| Setup {
            inner6,
            outer6,
            ..Setup::new(&chain)
        })
    })
}

fn datagram(setup: &Setup, len: usize) -> Vec<u8> {
    ip::udp(setup.inner(0), setup.inner(1), [999, 53], 0, len as u64, len)
}

#[test]
fn packets_of_every_length_are_as_long_as_the_path_carries_and_arrive_as_they_were() {
    for setup in setups(Tfc::MTU) {
        let [mut left, mut right] = setup.pair();
        let most = left.plane.largest_inside(&left.sends[0].id, 1500).unwrap();
        let headers = if setup.inner6 { 48 } else { 28 };
        let mut lengths = Vec::new();
        for len in [0, 1, 2, 3, 64, 500, 999, most - headers] {
            let packet = datagram(&setup, len);
            let (verdict, wire) = left.send(&packet);
            assert_eq!((verdict, wire.len()), (Verdict::Send, 1), "{setup:?}");
            lengths.push(wire[0].len());
            assert_eq!(right.receive(wire), [packet], "{setup:?}: {len} octets: {:?}", right.refused());
        }
        lengths.dedup();
        assert!(lengths.len() == 1 && lengths[0] <= 1500 && lengths[0] > 1500 - 48, "{setup:?}: {lengths:?}");
        assert_eq!((left.refused(), right.refused()), (vec![], vec![]), "{setup:?}");
    }
}

#[test]
fn padding_to_a_size_leaves_longer_packets_alone_and_is_counted() {
    for setup in setups(600) {
        let [mut left, mut right] = setup.pair();
        let lengths = [10, 200, 300, 900, 901, 1100].map(|len| {
            let packet = datagram(&setup, len);
            let (_, wire) = left.send(&packet);
            let len = wire[0].len();
            assert_eq!(right.receive(wire), [packet], "{setup:?}: {:?}", right.refused());
            len
        });
        assert!(lengths[0] == lengths[1] && lengths[1] == lengths[2], "{setup:?}: {lengths:?}");
        // What is compressed is short again.
        let longer = lengths[3] > lengths[2] && lengths[5] > lengths[3];
        assert!(
            longer || setup.chain.iter().any(|spec| spec.protocol == Protocol::Ipcomp),
            "{setup:?}: {lengths:?}"
        );
    }
    let setup = Setup::new(&[padded(ESP_TUNNEL, 600)]);
    let mut left = Host::new(&setup, 0);
    for len in [72, 172, 1000] {
        assert_eq!(left.send(&datagram(&setup, len)).0, Verdict::Send);
    }
    // 100 and 200 octets of packet; the third is longer.
    assert_eq!(left.sends[0].hidden(), (500 + 400, 0));
    assert_eq!(
        (left.sends[0].packets(), left.sends[0].bytes()),
        (3, 100 + 200 + 1028),
        "padding is not traffic"
    );
}

/// A superpacket's last segment is shorter; on the wire it is not.
#[test]
fn segments_of_a_superpacket_are_padded_too() {
    let setup = Setup::new(&[padded(ESP_TUNNEL, Tfc::MTU)]);
    let [mut left, mut right] = setup.pair();
    let mut tcp =
        ip::tcp(setup.inner(0), setup.inner(1), [40_000, 443], 77, 0x18, &ip::marked(5, 60 * 536 + 7));
    let partial = crate::device::sum(&[], crate::device::pseudo_start(&tcp, 20, ip::TCP));
    tcp[36..38].copy_from_slice(&partial.to_be_bytes());
    let vnet = Vnet {
        needs_csum: true,
        gso: Gso::Tcp4,
        gso_size: 536,
        hdr_len: 40,
        csum_start: 20,
        csum_offset: 16,
        ..Vnet::default()
    };
    let single = (Vnet::default(), datagram(&setup, 9));
    let (verdicts, wire) = left.send_all(&[single.clone(), (vnet, tcp), single]);
    assert_eq!((verdicts, wire.len()), (vec![Verdict::Send; 3], 63));
    assert!(wire.iter().all(|packet| packet.len() == wire[0].len() && packet.len() > 1400));
    assert_eq!(right.receive(wire).len(), 63);
    assert_eq!((left.refused(), right.refused()), (vec![], vec![]));
}

/// Many short packets in one batch: each may become as long as the path carries, over links of any MTU.
#[test]
fn a_batch_of_short_packets_finds_room_whatever_the_link_carries() {
    for mtu in [1500, 9000, 65_535] {
        let setup = Setup::new(&[padded(ESP_TUNNEL, Tfc::MTU)]);
        let [mut left, mut right] = setup.pair();
        left.link.mtu = mtu;
        let batch = vec![(Vnet::default(), datagram(&setup, 5)); 8];
        let (verdicts, wire) = left.send_all(&batch);
        assert_eq!((verdicts, wire.len()), (vec![Verdict::Send; 8], 8), "{mtu}");
        assert!(wire.iter().all(|packet| packet.len() > mtu - 48 && packet.len() <= mtu), "{mtu}");
        assert_eq!(right.receive(wire).len(), 8, "{mtu}: {:?}", right.refused());
        assert_eq!(left.refused(), [], "{mtu}");
    }
}

#[test]
fn padding_follows_the_path() {
    let setup = Setup::new(&[padded(ESP_TUNNEL, Tfc::MTU)]);
    let [mut left, mut right] = setup.pair();
    left.link.copy_df = true;
    let packet = datagram(&setup, 9);
    let (_, wire) = left.send(&packet);
    assert!(wire[0].len() > 1450);
    left.hear(&too_big(&wire[0], 1300, 576));
    let (_, wire) = left.send(&packet);
    assert!(wire[0].len() <= 1300 && wire[0].len() > 1250, "{}", wire[0].len());
    assert_eq!(right.receive(wire), [packet]);
    assert_eq!(left.refused(), [], "an authentic quotation");
}

#[test]
fn what_is_behind_the_packet_is_noughts_and_inside_of_the_encryption() {
    // Without encryption the padding can be seen.
    let null = Suite { encryption: Some(Encryption::Null), auth: Some(Auth::HmacSha256) };
    let setup = Setup::new(&[padded(Spec { suite: null, ..ESP_TUNNEL }, 400)]);
    let mut left = Host::new(&setup, 0);
    // What lay in the frame before does not leave with the next packet.
    let before = ip::udp(setup.inner(0), setup.inner(1), [999, 53], 0, 0xaaaa, 300);
    assert_eq!(left.send(&before).0, Verdict::Send);
    let packet = datagram(&setup, 20);
    let (_, wire) = left.send(&packet);
    let esp = &wire[0][20..];
    assert_eq!(&esp[8..8 + packet.len()], packet);
    assert!(esp[8 + packet.len()..8 + 400].iter().all(|octet| *octet == 0));
    // Padding that aligns, its length, the next header: IPv4.
    assert_eq!(&esp[408..412], [1, 2, 2, 4]);
    assert_eq!(left.plane.discarded(Discard::Internal), 0);
}
