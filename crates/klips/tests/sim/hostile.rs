//! Packets made by hand: what an attacker, or a peer gone wrong, may put on the wire.

use crate::host::{Host, Setup, Side};
use crate::ip;
use crate::net::Datagram;
use ipsec_core::transform::Transform;
use klips::{Discard, Event, Limits, SaState};

/// What is sealed, trailer included as asked for.
struct Parcel<'p> {
    payload: &'p [u8],
    padding: Option<Vec<u8>>,
    pad_len: Option<u8>,
    next_header: u8,
}

impl<'p> Parcel<'p> {
    const fn new(payload: &'p [u8]) -> Self {
        Self { payload, padding: None, pad_len: None, next_header: 4 }
    }
}

/// A peer that seals whatever it is told to.
struct Peer {
    setup: Setup,
    transform: Transform,
}

impl Peer {
    fn new(setup: Setup) -> Self {
        Self { setup, transform: setup.transform(Side::Left) }
    }

    fn seal(&self, seq: u64, parcel: &Parcel<'_>) -> Datagram {
        let (t, len) = (&self.transform, parcel.payload.len());
        let fill = t.sealed_len(len) - t.header_len() - t.icv_len() - len - 2;
        let padding = parcel.padding.clone().unwrap_or_else(|| (1..=fill as u8).collect());
        let pad_len = parcel.pad_len.unwrap_or(padding.len() as u8);
        let header = vec![0; t.header_len()];
        let icv = vec![0; t.icv_len()];
        let trailer = [pad_len, parcel.next_header];
        let mut packet = [&header[..], parcel.payload, &padding, &trailer, &icv].concat();
        let stride = packet.len();
        assert!(t.seal(&mut packet, stride, self.setup.spi(Side::Left), seq, self.setup.esn));
        self.setup.datagram(Side::Left, packet)
    }

    fn ping(&self, seq: u64) -> Datagram {
        self.seal(seq, &Parcel::new(&self.inner(56)))
    }

    /// An inner packet the SA may carry.
    fn inner(&self, len: usize) -> Vec<u8> {
        ip::ping(self.setup.inner(Side::Left), self.setup.inner(Side::Right), 1, len)
    }
}

fn receiver(setup: &Setup) -> Host {
    let [_, right] = setup.pair();
    right
}

fn peer_and_receiver(setup: Setup) -> (Peer, Host) {
    (Peer::new(setup), receiver(&setup))
}

#[test]
fn a_replayed_packet_is_dropped() {
    for esn in [false, true] {
        let (peer, mut host) = peer_and_receiver(Setup { esn, ..Setup::default() });
        let packet = peer.ping(1);
        host.receive(std::slice::from_ref(&packet));
        assert_eq!(host.take(), [peer.inner(56)]);
        // Alone, and twice in one batch.
        host.receive(std::slice::from_ref(&packet));
        let second = peer.ping(2);
        host.receive(&[second.clone(), packet, second]);
        assert_eq!(host.take(), [peer.inner(56)]);
        assert_eq!(host.refused(), [(Discard::Replayed, 3)]);
        assert_eq!(host.receives.packets(), 2);
    }
}

#[test]
fn what_is_refused_of_an_sa_is_counted_with_it() {
    let (peer, mut host) = peer_and_receiver(Setup::default());
    let (first, far) = (peer.ping(1), peer.ping(100_000));
    let mut forged = peer.ping(100_002);
    let last = forged.octets.len() - 1;
    forged.octets[last] ^= 1;
    let odd = Parcel { pad_len: Some(255), ..Parcel::new(&[0x45; 4]) };
    let mut short = peer.ping(3);
    short.octets.truncate(12);
    host.receive(&[first.clone(), far, first, forged.clone(), peer.seal(100_001, &odd), short]);
    host.receive(&[forged]);
    let ours = [(Discard::Short, 1), (Discard::ReplayOld, 1), (Discard::Forged, 2), (Discard::BadPadding, 1)];
    assert_eq!(host.receives.refused(), ours);
    assert_eq!(host.refused(), ours, "and with the whole");
    assert_eq!(host.sends.refused(), []);
}

#[test]
fn within_the_window_order_does_not_matter_and_left_of_it_nothing_passes() {
    for window in [32, 64, 1024, 4096] {
        let (peer, mut host) = peer_and_receiver(Setup { window, ..Setup::default() });
        let width = u64::from(window);
        let top = 3 * width;
        host.receive(&[peer.ping(top)]);
        for seq in (top - width + 1..top).rev() {
            host.receive(&[peer.ping(seq)]);
        }
        assert_eq!(host.take().len() as u64, width);
        assert_eq!(host.refused(), []);
        for seq in [1, top - width - 1, top - width] {
            host.receive(&[peer.ping(seq)]);
        }
        assert!(host.take().is_empty());
        assert_eq!(host.refused(), [(Discard::ReplayOld, 3)]);
    }
}

#[test]
fn without_a_window_replays_pass() {
    let (peer, mut host) = peer_and_receiver(Setup { window: 0, ..Setup::default() });
    let packet = peer.ping(1);
    host.receive(&[packet.clone(), packet]);
    assert_eq!(host.take().len(), 2);
    assert_eq!(host.refused(), []);
}

/// ESN cannot be read without a window, so there is one even if none was asked for (RFC 4303 §3.4.3).
#[test]
fn esn_brings_its_own_window() {
    let (peer, mut host) = peer_and_receiver(Setup { window: 0, esn: true, ..Setup::default() });
    let packet = peer.ping(1);
    host.receive(&[packet.clone(), packet]);
    assert_eq!(host.take().len(), 1);
    assert_eq!(host.refused(), [(Discard::Replayed, 1)]);
}

#[test]
fn every_flipped_bit_is_refused_and_moves_nothing() {
    for setup in Setup::every_suite() {
        for esn in [false, true] {
            let (peer, mut host) = peer_and_receiver(Setup { esn, ..setup });
            host.receive(&[peer.ping(100)]);
            assert_eq!(host.take().len(), 1);
            host.events();
            let (bytes, packets, last_use) =
                (host.receives.bytes(), host.receives.packets(), host.receives.last_use());
            host.now = ipsec_core::Time::from_secs(50);

            // Were it believed, this one would push the window far ahead.
            let genuine = peer.seal(5_000, &Parcel::new(&peer.inner(8)));
            let bits = genuine.octets.len() * 8;
            for bit in 0..bits {
                let mut forged = genuine.clone();
                forged.octets[bit / 8] ^= 0x80 >> (bit % 8);
                host.receive(&[forged]);
            }
            assert!(host.take().is_empty());
            let refused = host.refused();
            let total: u64 = refused.iter().map(|(_, n)| n).sum();
            assert_eq!(total, bits as u64, "{setup:?}");
            // 32 bits of SPI. A number may also look too old, or be 100 or its neighbour.
            let no_sa = refused.iter().find(|(why, _)| *why == Discard::NoSa);
            assert_eq!(no_sa, Some(&(Discard::NoSa, 32)));
            let known = |why| matches!(why, Discard::NoSa | Discard::Forged | Discard::ReplayOld);
            assert!(refused.iter().all(|(why, _)| known(*why)), "{setup:?}: {refused:?}");
            let now = (host.receives.bytes(), host.receives.packets(), host.receives.last_use());
            assert_eq!(now, (bytes, packets, last_use));
            assert_eq!(host.events(), []);

            // The window stands where it stood: what is left of 5,000 but not of 100 still passes, and so does the packet.
            host.receive(&[peer.ping(99), genuine]);
            assert_eq!(host.take().len(), 2, "{setup:?}");
        }
    }
}

#[test]
fn a_packet_sealed_for_another_cycle_of_esn_is_forged() {
    let (peer, mut host) = peer_and_receiver(Setup { esn: true, ..Setup::default() });
    host.receive(&[peer.ping(5)]);
    host.receive(&[peer.ping((1 << 32) + 6)]);
    assert_eq!(host.refused(), [(Discard::Forged, 1)]);
    host.receive(&[peer.ping(6)]);
    assert_eq!(host.take().len(), 2);
}

#[test]
fn sequence_number_zero_is_refused() {
    let (peer, mut host) = peer_and_receiver(Setup::default());
    let mut packet = peer.ping(1);
    packet.octets[4..8].fill(0);
    host.receive(&[packet]);
    assert_eq!(host.refused(), [(Discard::ReplayOld, 1)]);
}

#[test]
fn an_inner_packet_outside_the_selectors_is_refused() {
    for inner6 in [false, true] {
        let (peer, mut host) = peer_and_receiver(Setup { inner6, ..Setup::default() });
        let next_header = if inner6 { 41 } else { 4 };
        let (left, right) = (peer.setup.inner(Side::Left), peer.setup.inner(Side::Right));
        let stranger: std::net::IpAddr =
            if inner6 { "fd99::9".parse().unwrap() } else { "10.9.0.9".parse().unwrap() };
        let pairs = [(stranger, right), (left, stranger), (right, left)];
        for (n, (src, dst)) in pairs.into_iter().enumerate() {
            let inner = ip::ping(src, dst, 1, 56);
            host.receive(&[peer.seal(n as u64 + 1, &Parcel { next_header, ..Parcel::new(&inner) })]);
        }
        assert!(host.take().is_empty());
        assert_eq!(host.refused(), [(Discard::PolicyMismatch, 3)]);
        // They were authentic, and used the SA.
        assert_eq!(host.receives.packets(), 3);
    }
}

#[test]
fn a_selector_with_ports_lets_no_other_port_and_no_later_fragment_in() {
    let setup = Setup::default();
    let peer = Peer::new(setup);
    let mut host = receiver(&setup);
    let mut blueprint = setup.blueprint(Side::Left, Side::Right);
    let narrow = ipsec_core::Selector { proto: ip::UDP, dport: 53, ..setup.selector(Side::Left) };
    blueprint.selector = Some(narrow);
    host.plane.publish(std::sync::Arc::new(klips::Sa::new(blueprint)));
    let (left, right) = (setup.inner(Side::Left), setup.inner(Side::Right));
    let good = ip::udp(left, right, [999, 53], 0, 1, 40);
    let other_port = ip::udp(left, right, [999, 54], 0, 1, 40);
    let other_proto = ip::tcp(left, right, [999, 53], 1, 0x10, &[0; 40]);
    let mut fragment = good.clone();
    fragment[7] = 5;
    for (n, inner) in [&good, &other_port, &other_proto, &fragment].into_iter().enumerate() {
        host.receive(&[peer.seal(n as u64 + 1, &Parcel::new(inner))]);
    }
    assert_eq!(host.take(), [good]);
    assert_eq!(host.refused(), [(Discard::PolicyMismatch, 3)]);
}

#[test]
fn an_sa_with_several_selectors_carries_what_one_of_them_matches_and_nothing_between_them() {
    let setup = Setup::default();
    let peer = Peer::new(setup);
    let host = receiver(&setup);
    let nets = |src: &str, dst: &str| ipsec_core::Selector::nets(src.parse().unwrap(), dst.parse().unwrap());
    let dns = ipsec_core::Selector { proto: ip::UDP, dport: 53, ..nets("10.3.0.0/24", "10.4.0.0/24") };
    let more = vec![dns, nets("10.3.1.0/24", "10.4.1.0/24"), nets("fd00:3::/64", "fd00:4::/64")];
    let sa = klips::Sa::new(setup.blueprint(Side::Left, Side::Right)).with_more(more);
    host.plane.publish(std::sync::Arc::new(sa));
    let mut host = Host::on(host.plane, &setup, Side::Right);
    let (left, right) = (setup.inner(Side::Left), setup.inner(Side::Right));
    let packet = |src: &str, dst: &str, port: u16| {
        ip::udp(src.parse().unwrap(), dst.parse().unwrap(), [999, port], 0, 1, 40)
    };
    // The first, each of the others, and the first again: what was found before is no answer to another question.
    let good = [
        ip::udp(left, right, [999, 7], 0, 1, 40),
        packet("10.3.0.1", "10.4.0.1", 53),
        packet("10.3.1.1", "10.4.1.1", 7),
        packet("fd00:3::1", "fd00:4::1", 7),
        ip::udp(left, right, [999, 8], 0, 1, 40),
    ];
    // A source of one with the destination of another, a port that one has and another has not, the way back.
    let bad = [
        packet("10.3.0.1", "10.4.1.1", 53),
        packet("10.3.1.1", "10.4.0.1", 53),
        packet("10.3.0.1", "10.4.0.1", 54),
        packet("10.4.1.1", "10.3.1.1", 7),
        packet("fd00:3::1", "fd00:5::1", 7),
        packet("10.9.0.1", "10.4.1.1", 7),
    ];
    let mut seq = 0;
    let mut arrives = |host: &mut Host, inner: &[u8]| {
        seq += 1;
        let next_header = if inner[0] >> 4 == 6 { 41 } else { 4 };
        host.receive(&[peer.seal(seq, &Parcel { next_header, ..Parcel::new(inner) })]);
        host.take()
    };
    for (good, bad) in good.iter().zip(bad.iter().chain(&bad)) {
        assert_eq!(arrives(&mut host, good), std::slice::from_ref(good));
        assert!(arrives(&mut host, bad).is_empty());
    }
    assert!(arrives(&mut host, &bad[5]).is_empty());
    assert_eq!(host.refused(), [(Discard::PolicyMismatch, 6)]);
}

#[test]
fn a_dummy_packet_is_gone_quietly_whatever_its_padding() {
    let (peer, mut host) = peer_and_receiver(Setup::default());
    for (seq, pad_len) in [(1, 0), (2, 3), (3, 255)] {
        let dummy = Parcel {
            next_header: 59,
            padding: Some(vec![0xaa; 2]),
            pad_len: Some(pad_len),
            ..Parcel::new(&[0x99; 32])
        };
        host.receive(&[peer.seal(seq, &dummy)]);
    }
    assert!(host.take().is_empty());
    assert_eq!(host.refused(), [(Discard::Dummy, 3)]);
}

#[test]
fn padding_must_count_up_from_one_and_fit() {
    let (peer, mut host) = peer_and_receiver(Setup::default());
    let inner = peer.inner(56);
    assert_eq!(inner.len() % 4, 0);
    let mut seq = 0;
    let mut try_it = |host: &mut Host, padding: Vec<u8>, pad_len: u8| {
        seq += 1;
        let parcel = Parcel { padding: Some(padding), pad_len: Some(pad_len), ..Parcel::new(&inner) };
        host.receive(&[peer.seal(seq, &parcel)]);
        host.take().len()
    };
    // More than is needed is legal (RFC 4303 §2.4), up to 255.
    for pad in [2, 6, 254] {
        assert_eq!(try_it(&mut host, (1..=pad).collect(), pad), 1);
    }
    assert_eq!(host.refused(), []);
    let bad = [vec![0, 0], vec![2, 1], vec![1, 3], vec![1, 2, 3, 4, 5, 7], vec![0, 2, 3, 4, 5, 6]];
    for padding in &bad {
        assert_eq!(try_it(&mut host, padding.clone(), padding.len() as u8), 0, "{padding:?}");
    }
    assert_eq!(host.refused(), [(Discard::BadPadding, bad.len() as u64)]);
    // Longer than the packet.
    let whole = inner.len() as u8 + 2;
    assert_eq!(try_it(&mut host, vec![1, 2], whole + 1), 0);
    assert_eq!(host.refused(), [(Discard::BadPadding, bad.len() as u64 + 1)]);
}

#[test]
fn octets_after_the_inner_packet_are_tfc_padding() {
    let (peer, mut host) = peer_and_receiver(Setup::default());
    let inner = peer.inner(56);
    let padded = [&inner[..], &[0; 600]].concat();
    host.receive(&[peer.seal(1, &Parcel::new(&padded))]);
    assert_eq!(host.take(), [inner]);
    assert_eq!(host.refused(), []);
}

#[test]
fn what_is_not_an_ip_packet_of_its_kind_is_refused() {
    let (peer, mut host) = peer_and_receiver(Setup::default());
    let inner = peer.inner(56);
    let mut truncated = inner.clone();
    truncated.truncate(60);
    for (seq, payload, next_header) in [
        (1, &inner[..], 41),
        (2, &inner[..], 108),
        (3, &inner[..], 6),
        (4, &inner[..], 0),
        (5, &truncated, 4),
        (6, &inner[..12], 4),
        (7, &[], 4),
    ] {
        host.receive(&[peer.seal(seq, &Parcel { next_header, ..Parcel::new(payload) })]);
    }
    assert!(host.take().is_empty());
    assert_eq!(host.refused(), [(Discard::Malformed, 4), (Discard::BadNextHeader, 3)]);
}

#[test]
fn the_congestion_mark_is_carried_in_or_the_packet_is_not() {
    for inner6 in [false, true] {
        let setup = Setup { inner6, ..Setup::default() };
        let (peer, mut host) = peer_and_receiver(setup);
        let next_header = if inner6 { 41 } else { 4 };
        let mut seq = 0;
        let mut through = |host: &mut Host, inner: u8, outer: u8| {
            seq += 1;
            let (left, right) = (setup.inner(Side::Left), setup.inner(Side::Right));
            let packet = ip::udp(left, right, [1, 2], inner, 1, 40);
            let mut sealed = peer.seal(seq, &Parcel { next_header, ..Parcel::new(&packet) });
            sealed.tos = outer;
            host.receive(&[sealed]);
            let delivered = host.take();
            let delivered = delivered.first()?;
            let tos = if inner6 { delivered[0] << 4 | delivered[1] >> 4 } else { delivered[1] };
            // Nothing but the mark and the header checksum has changed.
            assert_eq!(*delivered, ip::udp(left, right, [1, 2], tos, 1, 40));
            Some(tos)
        };
        assert_eq!(through(&mut host, 0xb8, 0x03), None);
        assert_eq!(host.refused(), [(Discard::CongestionNotCarried, 1)]);
        for (inner, outer, expected) in [
            (0xb8, 0x00, 0xb8),
            (0xb8, 0xb9, 0xb8),
            (0xba, 0x03, 0xbb),
            (0xb9, 0x03, 0xbb),
            (0xba, 0x01, 0xb9),
            (0xb9, 0x02, 0xb9),
            (0xbb, 0x00, 0xbb),
            // DSCP is not carried (RFC 4301 §5.1.2.1).
            (0x02, 0xb8, 0x02),
        ] {
            assert_eq!(through(&mut host, inner, outer), Some(expected), "{inner:#x} in {outer:#x}");
        }
        assert_eq!(host.refused(), [(Discard::CongestionNotCarried, 1)]);
    }
}

#[test]
fn esp_must_come_as_agreed() {
    for udp in [false, true] {
        let setup = Setup { udp, ..Setup::default() };
        let (peer, mut host) = peer_and_receiver(setup);
        let good = peer.ping(1);
        let mut wrong = Vec::new();
        wrong.push(Datagram { ports: if udp { None } else { Some([4500, 4501]) }, ..good.clone() });
        wrong.push(Datagram { src: "192.0.2.77".parse().unwrap(), ..good.clone() });
        if udp {
            wrong.push(Datagram { ports: Some([4500, 4502]), ..good.clone() });
        }
        host.receive(&wrong);
        assert!(host.take().is_empty());
        assert_eq!(host.refused(), [(Discard::WrongEncapsulation, wrong.len() as u64)]);
        host.receive(&[good]);
        assert_eq!(host.take().len(), 1);
    }
}

#[test]
fn on_port_4500_ike_and_keepalives_are_told_apart_from_esp() {
    let setup = Setup { udp: true, ..Setup::default() };
    let (peer, mut host) = peer_and_receiver(setup);
    let esp = peer.ping(1);
    let datagram = |octets: &[u8]| setup.datagram(Side::Left, octets.to_vec());
    let ike = [&[0; 4][..], &[7; 60]].concat();
    host.receive(&[
        datagram(&ike),
        datagram(&[0xff]),
        esp,
        datagram(&[0xfe]),
        datagram(&[0; 4]),
        datagram(&[1, 2, 3]),
        datagram(&[1, 2, 3, 4, 5, 6, 7]),
        datagram(&[]),
    ]);
    assert_eq!(host.ike, [vec![7; 60]]);
    assert_eq!(host.take().len(), 1);
    assert_eq!(host.refused(), [(Discard::Short, 5), (Discard::Keepalive, 1)]);
    // It was handed over once.
    host.receive(&[datagram(&[0xff])]);
    assert_eq!(host.ike.len(), 1);
}

/// Raw ESP has no marker: SPI 0 is an SPI that names nothing, one octet is a fragment of nothing.
#[test]
fn raw_esp_knows_neither_marker_nor_keepalive() {
    let setup = Setup::default();
    let (_, mut host) = peer_and_receiver(setup);
    host.receive(&[setup.datagram(Side::Left, vec![0; 64]), setup.datagram(Side::Left, vec![0xff])]);
    assert_eq!(host.refused(), [(Discard::NoSa, 1), (Discard::Short, 1)]);
    assert!(host.ike.is_empty());
}

#[test]
fn short_and_unaligned_packets_are_refused_before_anything_is_computed() {
    for setup in Setup::every_suite() {
        let (peer, mut host) = peer_and_receiver(setup);
        let t = &peer.transform;
        let smallest = t.sealed_len(0);
        let whole = peer.ping(1);
        let mut expected = 0;
        for len in 8..whole.octets.len() {
            let aligned = (len.wrapping_sub(t.header_len() + t.icv_len())) % t.alignment() == 0;
            if len >= smallest && aligned {
                continue;
            }
            expected += 1;
            host.receive(&[Datagram { octets: whole.octets[..len].to_vec(), ..whole.clone() }]);
        }
        assert_eq!(host.refused(), [(Discard::Short, expected)], "{:?}", setup.suite);
    }
}

#[test]
fn the_soft_limit_is_told_once_and_the_hard_limit_ends_the_sa() {
    // Six pings of 84 octets are 504; the seventh would make 588.
    let limits = Limits { soft_bytes: 300, hard_bytes: 588, ..Limits::default() };
    for batch in [1, 3, 10] {
        let setup = Setup { limits, ..Setup::default() };
        let (peer, mut host) = peer_and_receiver(setup);
        let id = setup.id(Side::Left);
        let packets: Vec<Datagram> = (1..=10).map(|seq| peer.ping(seq)).collect();
        let mut events = Vec::new();
        for batch in packets.chunks(batch) {
            host.receive(batch);
            events.extend(host.events());
        }
        assert_eq!(host.take().len(), 6, "in batches of {batch}");
        assert_eq!(events, [Event::FirstUse(id), Event::Soft(id), Event::Hard(id)]);
        assert_eq!(host.refused(), [(Discard::Expired, 4)]);
        assert_eq!((host.receives.bytes(), host.receives.packets()), (504, 6));
        assert_eq!(host.receives.state(), SaState::Dead);
    }
}

/// A packet that would pass the limit ends the SA, even if a smaller one behind it would still fit.
#[test]
fn nothing_passes_after_the_packet_that_met_the_limit() {
    let setup =
        Setup { limits: Limits { soft_bytes: 0, hard_bytes: 400, ..Limits::default() }, ..Setup::default() };
    let (peer, mut host) = peer_and_receiver(setup);
    let sized = |seq, len| peer.seal(seq, &Parcel::new(&peer.inner(len)));
    host.receive(&[sized(1, 56), sized(2, 500), sized(3, 56)]);
    host.receive(&[sized(4, 1)]);
    assert_eq!(host.take().len(), 1);
    assert_eq!(host.refused(), [(Discard::Expired, 3)]);
}

#[test]
fn a_withdrawn_sa_is_gone_at_once() {
    let (peer, mut host) = peer_and_receiver(Setup::default());
    host.receive(&[peer.ping(1)]);
    host.plane.withdraw(&peer.setup.id(Side::Left));
    host.receive(&[peer.ping(2)]);
    assert_eq!(host.take().len(), 1);
    assert_eq!(host.refused(), [(Discard::NoSa, 1)]);
}

#[test]
fn packets_of_many_sas_in_one_read_are_delivered_in_order_of_arrival() {
    let setup = Setup { udp: true, merge: false, ..Setup::default() };
    let (peer, mut host) = peer_and_receiver(setup);
    // A second SA whose packets carry another SPI.
    let mut blueprint = setup.blueprint(Side::Left, Side::Right);
    blueprint.id.spi = ipsec_core::Spi(0x2000_0002);
    host.plane.publish(std::sync::Arc::new(klips::Sa::new(blueprint)));
    let sealed_for = |spi: u32, seq: u64, number: u16| {
        let inner = ip::ping(setup.inner(Side::Left), setup.inner(Side::Right), number, 56);
        let mut datagram = peer.seal(seq, &Parcel::new(&inner));
        let len = datagram.octets.len();
        let (header, icv) = (peer.transform.header_len(), peer.transform.icv_len());
        let fill = len - header - icv - inner.len() - 2;
        let mut octets = vec![0; header];
        octets.extend(&inner);
        octets.extend(1..=fill as u8);
        octets.extend([fill as u8, 4]);
        octets.extend(vec![0; icv]);
        assert!(peer.transform.seal(&mut octets, len, ipsec_core::Spi(spi), seq, false));
        datagram.octets = octets;
        datagram
    };
    let batch: Vec<Datagram> = (0..200_u16)
        .map(|n| sealed_for(if n % 7 < 3 { 0x2000_0002 } else { 0x1000_0001 }, u64::from(n) + 1, n))
        .collect();
    host.receive(&batch);
    let numbers: Vec<u16> =
        host.take().iter().map(|packet| u16::from_be_bytes([packet[26], packet[27]])).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    assert_eq!(host.refused(), []);
}

/// A NAT that forgets gives the peer another port. It is followed, but only on the word of an authentic newest packet.
#[test]
fn another_port_is_followed_after_authentication_and_by_the_newest_packet_only() {
    let (peer, mut host) = peer_and_receiver(Setup { udp: true, ..Setup::default() });
    let id = host.receives.id;
    let port = |host: &Host| host.receives.encapsulation().unwrap().remote;
    let from = |packet: Datagram, port| Datagram { ports: Some([port, 4501]), ..packet };
    let (first, late) = (peer.ping(1), peer.ping(4));

    host.receive(&[from(first.clone(), 4499)]);
    assert_eq!((host.take().len(), port(&host)), (1, 4499));
    host.receive(&[from(peer.ping(5), 4498)]);
    assert_eq!((host.take().len(), port(&host)), (1, 4498));
    // Control hears the last word, once.
    assert_eq!(host.events(), [Event::FirstUse(id), Event::Moved(id, 4498)]);

    let mut forged = peer.ping(6);
    *forged.octets.last_mut().unwrap() ^= 1;
    host.receive(&[from(forged, 4000)]);
    // One that was recorded, and one that was overtaken: the second is welcome, and says nothing about now.
    host.receive(&[from(first, 4001)]);
    host.receive(&[from(late, 4002)]);
    assert_eq!((host.take().len(), port(&host)), (1, 4498));
    assert_eq!(host.refused(), [(Discard::Replayed, 1), (Discard::Forged, 1)]);
    assert_eq!(host.events(), []);

    // Without a window nothing is known to be the newest.
    let (peer, mut host) = peer_and_receiver(Setup { udp: true, window: 0, ..Setup::default() });
    host.receive(&[from(peer.ping(1), 4499)]);
    assert_eq!((host.take().len(), port(&host)), (1, 4500));
}
