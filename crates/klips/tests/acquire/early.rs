//! Packets that are ahead of the keys of their SA: between GETSPI and UPDATE.

use crate::host::{Host, PID, udp};
use ipsec_core::algorithm::{Auth, Encryption, Suite};
use ipsec_core::transform::Transform;
use ipsec_core::{Spi, Time};
use klips::{Arrival, Carrier, Counters, Discard, Inbound, Opened, SocketId};
use pfkey::client::Client;
use pfkey::{Address, ExtType, Message, MessageType, Sa, SaType, SpiRange, flags, state};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const ESP: Carrier = Carrier::Esp;
const UDP: Carrier = Carrier::Udp { local: 4500, remote: 4500 };

/// A gateway, its key manager, and an engine that receives.
struct Scene {
    host: Host,
    manager: SocketId,
    inbound: Inbound,
    counters: Arc<Counters>,
    carrier: Carrier,
    from: IpAddr,
}

impl Scene {
    fn new(carrier: Carrier) -> Self {
        let mut host = Host::trap();
        let manager = host.manager(false);
        let counters = host.plane.new_counters();
        let inbound = Inbound::new(Arc::clone(&host.plane), Arc::clone(&counters));
        Self { host, manager, inbound, counters, carrier, from: "192.0.2.2".parse().unwrap() }
    }

    fn addresses(ask: &mut pfkey::client::Request) {
        ask.address(ExtType::AddressSrc, &Address::host("192.0.2.2".parse().unwrap()));
        ask.address(ExtType::AddressDst, &Address::host("192.0.2.1".parse().unwrap()));
    }

    /// GETSPI of exactly this one.
    fn reserve(&mut self, spi: u32) {
        let mut ask = Client::new(PID).request(MessageType::GetSpi, SaType::Esp);
        Self::addresses(&mut ask);
        ask.spi_range(&SpiRange { min: spi, max: spi });
        let answers = self.host.ask(self.manager, ask);
        assert_eq!(Message::parse_answer(&answers[0]).unwrap().sa.unwrap().spi, spi);
    }

    /// UPDATE with the keys, of an SA with this partner; says whether it was taken.
    fn update_with(&mut self, spi: u32, partner: Option<u32>) -> bool {
        let mut ask = Client::new(PID).request(MessageType::Update, SaType::Esp);
        let natt = if self.carrier == ESP { 0 } else { flags::NATT_REM };
        let flags = flags::TUNNEL | natt;
        ask.sa(&Sa { spi, replay: 64, state: state::MATURE, encrypt: 11, auth: 5, flags });
        Self::addresses(&mut ask);
        ask.address(ExtType::AddressInnerSrc, &Address::net([10, 2, 0, 0].into(), 16));
        ask.address(ExtType::AddressInnerDst, &Address::net([10, 1, 0, 0].into(), 16));
        if natt != 0 {
            let socket = "192.0.2.2:4500".parse().ok();
            ask.address(ExtType::AddressNattRem, &Address { proto: 17, prefix: 0, socket });
        }
        ask.key(ExtType::KeyAuth, 256, 0, &[7; 32]);
        if let Some(spi) = partner {
            ask.pair(&pfkey::Pair { spi });
        }
        let answers = self.host.ask(self.manager, ask);
        Message::parse_answer(&answers[0]).unwrap().base.errno.0 == 0
    }

    fn update(&mut self, spi: u32) {
        assert!(self.update_with(spi, None));
    }

    /// What arrives of these, each in a datagram.
    fn receive(&mut self, packets: &[Vec<u8>]) -> Vec<u8> {
        // A raw socket hands the IP header over, a UDP socket does not.
        let header = if self.carrier == ESP { 20 } else { 0 };
        let (src, dst) = (self.from, "192.0.2.1".parse().unwrap());
        let arrival = Arrival { src, dst, carrier: self.carrier, tos: 0, header };
        let mut marks = Vec::new();
        for packet in packets {
            let mut rx = [&vec![0x45; header][..], packet].concat();
            let (mut opened, len) = (Opened::new(1), packet.len());
            let range = header..header + len;
            self.inbound.datagrams(&arrival, &mut rx, range, len, self.host.now, &mut opened);
            marks.extend(delivered(opened, &mut rx));
        }
        marks
    }

    /// What comes of those that waited, if the host is told to look, into a buffer for so many octets.
    fn matured_in(&mut self, room: usize) -> Vec<u8> {
        let mut marks = Vec::new();
        if self.host.plane.take_returned() {
            let mut rx = vec![0; room];
            loop {
                let mut opened = Opened::new(64);
                if self.inbound.matured(&mut rx, self.host.now, &mut opened) == 0 {
                    break;
                }
                marks.extend(delivered(opened, &mut rx));
            }
        }
        marks
    }

    fn matured(&mut self) -> Vec<u8> {
        self.matured_in(1 << 18)
    }

    /// The counters of the engine that moved.
    fn refused(&self) -> Vec<(Discard, u64)> {
        let all = Discard::ALL.iter().map(|why| (*why, self.counters.count(*why)));
        all.filter(|(_, n)| *n > 0).collect()
    }
}

/// The marks of the packets that the device gets.
fn delivered(mut opened: Opened, rx: &mut [u8]) -> Vec<u8> {
    opened.merge(rx, false, false);
    opened.writes().map(|write| write.octets(rx).flatten().copied().collect::<Vec<u8>>()[28]).collect()
}

/// A packet of the peer's, with its number as its mark.
fn packet(spi: u32, number: u8, len: usize) -> Vec<u8> {
    let suite = Suite { encryption: Some(Encryption::Null), auth: Some(Auth::HmacSha256) };
    let transform = Transform::new(suite, &[], &[7; 32], &[0; 16]).unwrap();
    let mut inner = udp(1, number, len);
    inner[12..20].copy_from_slice(&[10, 2, 0, 9, 10, 1, 0, 1]);
    let mut packet = vec![0; transform.sealed_len(inner.len())];
    assert!(transform.seal_from(&inner, 4, &mut packet, (Spi(spi), number.into(), false)));
    packet
}

fn packets(spi: u32, numbers: impl Iterator<Item = u8>) -> Vec<Vec<u8>> {
    numbers.map(|number| packet(spi, number, 60)).collect()
}

#[test]
fn what_comes_before_the_keys_is_delivered_in_order_when_they_are_there() {
    for carrier in [ESP, UDP] {
        let mut scene = Scene::new(carrier);
        scene.reserve(0x7001);
        assert_eq!(scene.receive(&packets(0x7001, 1..=5)), []);
        assert_eq!(scene.matured(), [], "nobody has said that there is anything");
        scene.update(0x7001);
        assert_eq!(scene.matured(), [1, 2, 3, 4, 5], "{carrier:?}");
        assert_eq!(scene.receive(&packets(0x7001, 6..=7)), [6, 7]);
        assert_eq!(scene.refused(), []);
    }
}

#[test]
fn what_waited_has_no_privilege() {
    let mut scene = Scene::new(ESP);
    scene.reserve(0x7001);
    let mut forged = packet(0x7001, 2, 60);
    forged[40] ^= 1;
    let mut stranger = packet(0x7001, 4, 60);
    stranger.truncate(12);
    let again = packet(0x7001, 1, 60);
    let all = [packet(0x7001, 1, 60), forged, again.clone(), stranger, packet(0x7001, 3, 60)];
    assert_eq!(scene.receive(&all), []);
    scene.update(0x7001);
    assert_eq!(scene.matured(), [1, 3]);
    assert_eq!(scene.receive(&[again]), []);
    let refused = [(Discard::Short, 1), (Discard::Replayed, 2), (Discard::Forged, 1)];
    assert_eq!(scene.refused(), refused);
}

#[test]
fn only_what_names_a_larva_and_comes_from_its_peer_waits() {
    let mut scene = Scene::new(ESP);
    scene.reserve(0x7001);
    assert_eq!(scene.receive(&packets(0x7002, 1..=5)), []);
    scene.from = "192.0.2.66".parse().unwrap();
    assert_eq!(scene.receive(&packets(0x7001, 1..=5)), []);
    assert_eq!(scene.refused(), [(Discard::NoSa, 10)]);
    // Nothing of it was kept: it does not come with the keys.
    scene.update(0x7001);
    assert_eq!(scene.matured(), []);
    // And an SA that has been one is none any more.
    let mut delete = Client::new(PID).request(MessageType::Delete, SaType::Esp);
    delete.sa(&Sa { spi: 0x7001, ..Sa::default() });
    Scene::addresses(&mut delete);
    scene.host.ask(scene.manager, delete);
    scene.from = "192.0.2.2".parse().unwrap();
    assert_eq!(scene.receive(&packets(0x7001, 1..=5)), []);
    assert_eq!(scene.refused(), [(Discard::NoSa, 15)]);
}

#[test]
fn who_floods_larvae_fills_a_bounded_room_and_what_came_first_stays() {
    let mut scene = Scene::new(ESP);
    for spi in 0x7001..=0x7006 {
        scene.reserve(spi);
    }
    // One of them has its share.
    assert_eq!(scene.receive(&packets(0x7001, 1..=100)), []);
    assert_eq!(scene.refused(), [(Discard::Early, 36)]);
    // All of them together have theirs.
    for spi in 0x7002..=0x7006 {
        scene.receive(&packets(spi, 1..=64));
    }
    assert_eq!(scene.refused(), [(Discard::Early, 36 + 128)]);
    scene.update(0x7001);
    assert_eq!(scene.matured(), (1..=64).collect::<Vec<u8>>());
    // There is room again.
    scene.receive(&packets(0x7005, 1..=64));
    assert_eq!(scene.refused(), [(Discard::Early, 36 + 128)]);
    // Long ones meet another limit.
    let mut scene = Scene::new(ESP);
    scene.reserve(0x7001);
    let long: Vec<_> = (1..=20).map(|number| packet(0x7001, number, 60_000)).collect();
    assert_eq!(scene.receive(&long), []);
    let refused = 20 - (512 << 10) / 60_070;
    assert_eq!(scene.refused(), [(Discard::Early, refused)]);
    // These make room as well.
    scene.update(0x7001);
    assert_eq!(scene.matured().len() as u64, 20 - refused);
    scene.reserve(0x7002);
    let long: Vec<_> = (1..=20).map(|number| packet(0x7002, number, 60_000)).collect();
    scene.receive(&long);
    assert_eq!(scene.refused(), [(Discard::Early, 2 * refused)]);
}

#[test]
fn what_waited_too_long_or_for_nothing_is_dropped_and_counted() {
    let late = |scene: &mut Scene| {
        scene.host.now = scene.host.now.after(Duration::from_secs(3));
        scene.update(0x7001);
    };
    let unusable = |scene: &mut Scene| assert!(!scene.update_with(0x7001, Some(0x9999)));
    let flushed = |scene: &mut Scene| {
        let ask = Client::new(PID).request(MessageType::Flush, SaType::Esp);
        scene.host.ask(scene.manager, ask);
    };
    let given_up = |scene: &mut Scene| {
        let mut delete = Client::new(PID).request(MessageType::Delete, SaType::Esp);
        delete.sa(&Sa { spi: 0x7001, ..Sa::default() });
        Scene::addresses(&mut delete);
        scene.host.ask(scene.manager, delete);
    };
    let forgotten = |scene: &mut Scene| {
        scene.host.now = Time::from_secs(100_000);
        scene.host.control.expire(scene.host.now);
    };
    let ends: [&dyn Fn(&mut Scene); 5] = [&late, &unusable, &flushed, &given_up, &forgotten];
    for (n, end) in ends.into_iter().enumerate() {
        let mut scene = Scene::new(ESP);
        scene.reserve(0x7001);
        assert_eq!(scene.receive(&packets(0x7001, 1..=5)), []);
        end(&mut scene);
        assert_eq!(scene.matured(), [], "{n}");
        assert_eq!(scene.refused(), [(Discard::Early, 5)], "{n}");
        // What comes then is what comes for any SPI that is not there.
        if n > 0 {
            scene.receive(&packets(0x7001, 6..=7));
            assert_eq!(scene.refused(), [(Discard::NoSa, 2), (Discard::Early, 5)], "{n}");
        }
    }
    // An engine that ends leaves nothing uncounted.
    let mut scene = Scene::new(ESP);
    scene.reserve(0x7001);
    scene.receive(&packets(0x7001, 1..=5));
    drop(scene.inbound);
    assert_eq!(scene.counters.count(Discard::Early), 5);
}

/// What does not fit the host's buffer in one go comes in the next, and nothing is lost or out of order.
#[test]
fn a_buffer_for_one_packet_is_enough() {
    let mut scene = Scene::new(ESP);
    scene.reserve(0x7001);
    scene.reserve(0x7002);
    let mixed: Vec<_> = (1..=10).map(|n| packet(0x7001 + u32::from(n % 2), n, 20_000)).collect();
    assert_eq!(scene.receive(&mixed), []);
    scene.update(0x7001);
    assert_eq!(scene.matured_in(66_000), [2, 4, 6, 8, 10]);
    scene.update(0x7002);
    assert_eq!(scene.matured_in(66_000), [1, 3, 5, 7, 9]);
    assert_eq!(scene.refused(), []);
}
