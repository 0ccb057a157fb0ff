//! ESP, AH and IPComp captured from FreeS/WAN-family gateways (one ping flow, 192.0.2.1 → 192.0.1.1), opened by the inbound engine.

use ipsec_core::algorithm::{Auth, Encryption, Suite};
use ipsec_core::{Protocol, SaId, Selector, Spi, Time};
use klips::{
    Arrival, Blueprint, Carrier, Discard, Encapsulation, Inbound, Keys, Limits, Mode, Opened, Plane, Sa,
};
use std::net::Ipv4Addr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// One capture: its keys and its packets, outer IP header first.
struct Capture {
    name: String,
    suite: Suite,
    keys: Keys,
    packets: Vec<Vec<u8>>,
}

fn captures() -> Vec<Capture> {
    let text = include_str!("../../ipsec-core/tests/data/wire.json");
    let all: serde_json::Value = serde_json::from_str(text).unwrap();
    let all = all.as_array().unwrap().iter();
    all.map(|set| {
        let octets = |key: &str| hex::decode(set["keys"][key].as_str().unwrap_or_default()).unwrap();
        let encryption = match set["keys"]["enc"].as_str() {
            Some("3des-cbc") => Some(Encryption::TripleDesCbc),
            Some("aes-cbc") => Some(Encryption::AesCbc),
            _ => None,
        };
        let auth = match set["keys"]["auth"].as_str() {
            Some("hmac-md5-96") => Some(Auth::HmacMd5),
            Some("hmac-sha1-96") => Some(Auth::HmacSha1),
            _ => None,
        };
        let packets = set["ip_packets"].as_array().unwrap().iter();
        Capture {
            name: set["name"].as_str().unwrap().to_owned(),
            suite: Suite { encryption, auth },
            keys: Keys {
                encryption: Zeroizing::new(octets("enckey")),
                auth: Zeroizing::new(octets("authkey")),
                iv: Zeroizing::default(),
            },
            packets: packets.map(|packet| hex::decode(packet.as_str().unwrap()).unwrap()).collect(),
        }
    })
    .collect()
}

fn capture(name: &str) -> Capture {
    captures().into_iter().find(|capture| capture.name == name).unwrap()
}

struct Gateway {
    plane: Arc<Plane>,
    inbound: Inbound,
}

impl Gateway {
    fn on(plane: Arc<Plane>) -> Self {
        let counters = plane.new_counters();
        Self { inbound: Inbound::new(Arc::clone(&plane), counters), plane }
    }

    /// A gateway with the SA of a capture, whose SPI the first packet tells.
    fn new(capture: &Capture, selector: &str) -> Self {
        Self::grouped(capture, &[], selector)
    }

    /// The same inside of which there are others, in a group.
    fn grouped(capture: &Capture, inside: &[(Protocol, u32)], selector: &str) -> Self {
        let first = &capture.packets[0];
        let (carrier, protected) = strip(first);
        let ah = carrier == Carrier::Ah;
        let at = if ah { 4 } else { 0 };
        let spi = Spi(u32::from_be_bytes(protected[at..at + 4].try_into().unwrap()));
        let dst = Ipv4Addr::new(first[16], first[17], first[18], first[19]).into();
        let (from, to) = selector.split_once("->").unwrap();
        let protocol = if ah { Protocol::Ah } else { Protocol::Esp };
        let outermost = Blueprint {
            id: SaId { dst, protocol, spi },
            src: Ipv4Addr::new(192, 1, 2, 23).into(),
            mode: if inside.is_empty() { Mode::Tunnel } else { Mode::Transport },
            suite: capture.suite,
            keys: capture.keys.clone(),
            esn: false,
            window: 64,
            encapsulation: match carrier {
                Carrier::Esp | Carrier::Ah => None,
                Carrier::Udp { local, remote } => Some(Encapsulation { local, remote }),
            },
            selector: inside.is_empty().then(|| Selector::nets(from.parse().unwrap(), to.parse().unwrap())),
            limits: Limits::default(),
        };
        let others = inside.iter().map(|(protocol, spi)| Blueprint {
            id: SaId { dst, protocol: *protocol, spi: Spi(*spi) },
            src: outermost.src,
            mode: if *protocol == Protocol::Ipip { Mode::Tunnel } else { Mode::Transport },
            suite: Suite { encryption: None, auth: None },
            keys: Keys::default(),
            esn: false,
            window: 0,
            encapsulation: None,
            selector: (*protocol == Protocol::Ipip)
                .then(|| Selector::nets(from.parse().unwrap(), to.parse().unwrap())),
            limits: Limits::default(),
        });
        let sas: Vec<_> =
            others.collect::<Vec<_>>().into_iter().chain([outermost]).map(|b| Arc::new(Sa::new(b))).collect();
        let gateway = Self::on(Arc::new(Plane::default()));
        gateway.plane.publish_group(sas).unwrap();
        gateway
    }

    /// What the device gets for one packet of the wire.
    fn receive(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let octet = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap();
        let (carrier, protected) = strip(packet);
        // A raw socket hands the IP header over, a UDP socket does not.
        let header = if matches!(carrier, Carrier::Udp { .. }) { 0 } else { 20 };
        let arrival =
            Arrival { src: octet(12).into(), dst: octet(16).into(), carrier, tos: packet[1], header };
        let mut rx = [&packet[..header], protected].concat();
        let mut opened = Opened::new(1);
        let range = header..rx.len();
        let stride = range.len();
        self.inbound.datagrams(&arrival, &mut rx, range, stride, Time::from_secs(1), &mut opened);
        opened.merge(&mut rx, true, true);
        opened.writes().map(|write| write.octets(&rx).flatten().copied().collect()).collect()
    }

    /// The counters that moved.
    fn refused(&self) -> Vec<(Discard, u64)> {
        let all = Discard::ALL.iter().map(|why| (*why, self.plane.discarded(*why)));
        all.filter(|(_, n)| *n > 0).collect()
    }
}

/// What is inside the outer header, and how it was carried.
fn strip(packet: &[u8]) -> (Carrier, &[u8]) {
    match packet[9] {
        50 => (Carrier::Esp, &packet[20..]),
        51 => (Carrier::Ah, &packet[20..]),
        17 => {
            let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            (Carrier::Udp { remote: port(20), local: port(22) }, &packet[28..])
        }
        other => panic!("protocol {other}"),
    }
}

const POLICY: &str = "192.0.2.0/24->192.0.1.0/24";

#[test]
fn captured_esp_opens_to_the_ping_that_was_sent() {
    let pings = capture("cleartext-pings").packets;
    for name in ["esp-3des-md5", "esp-3des-sha1", "esp-aes128-sha1", "esp-aes256-sha1", "udp-esp-3des-md5"] {
        let capture = capture(name);
        let mut gateway = Gateway::new(&capture, POLICY);
        for (n, packet) in capture.packets.iter().enumerate() {
            let delivered = gateway.receive(packet);
            assert_eq!(delivered.len(), 1, "{name}: packet {n}: {:?}", gateway.refused());
            let inner = &delivered[0];
            assert_eq!(inner.len(), 84, "{name}");
            // Each capture is a run of its own: addresses and ICMP type are the same, identifiers are not.
            assert_eq!(inner[12..21], pings[0][12..21], "{name}");
        }
        assert_eq!(gateway.refused(), [], "{name}");
    }
}

/// Every set there is, whole: what is delivered of it, or why nothing is.
#[test]
fn every_packet_of_every_set_is_delivered_or_refused_for_its_reason() {
    let group = [(Protocol::Ipip, 0x1000), (Protocol::Ipcomp, 0x5678)];
    let mut packets = 0;
    for capture in captures() {
        let (inside, len, refused): (&[_], _, _) = match &*capture.name {
            "esp-3des-md5" | "esp-3des-sha1" | "esp-aes128-sha1" | "esp-aes256-sha1" | "udp-esp-3des-md5"
            | "ah-sha1" => (&[], 84, None),
            "esp-ipcomp" => (&group, 1024, None),
            // RFC 4301 §3.2 lets ESP go without integrity; we do not.
            "esp-3des-noauth" => (&[], 0, Some(Discard::Internal)),
            "esp-truncated-24" => (&[], 0, Some(Discard::Short)),
            // Nothing is protected of these: they are what others are compared with.
            "cleartext-pings" => continue,
            other => panic!("{other} is not known"),
        };
        // Without keys no SA can be made; of what is too short none is looked for.
        let keys = if capture.keys.encryption.is_empty() && capture.keys.auth.is_empty() {
            self::capture("esp-3des-md5")
        } else {
            self::capture(&capture.name)
        };
        let mut gateway = Gateway::grouped(&keys, inside, POLICY);
        for packet in &capture.packets {
            let delivered: Vec<usize> = gateway.receive(packet).iter().map(Vec::len).collect();
            let expected = if refused.is_none() { vec![len] } else { vec![] };
            assert_eq!(delivered, expected, "{}: {:?}", capture.name, gateway.refused());
        }
        let count = capture.packets.len() as u64;
        let expected: Vec<_> = refused.into_iter().map(|why| (why, count)).collect();
        assert_eq!(gateway.refused(), expected, "{}", capture.name);
        packets += count;
    }
    assert_eq!(packets, 5 * 8 + 4);
}

#[test]
fn the_first_packet_of_the_documented_capture_is_the_documented_ping() {
    let capture = capture("esp-3des-md5");
    let mut gateway = Gateway::new(&capture, POLICY);
    let inner = gateway.receive(&capture.packets[0]);
    assert_eq!(hex::encode(&inner[0]), DOCUMENTED_PING);
}

#[test]
fn a_capture_played_twice_is_refused_the_second_time() {
    let capture = capture("esp-aes128-sha1");
    let mut gateway = Gateway::new(&capture, POLICY);
    for packet in &capture.packets {
        assert_eq!(gateway.receive(packet).len(), 1);
    }
    for packet in &capture.packets {
        assert!(gateway.receive(packet).is_empty());
    }
    assert_eq!(gateway.refused(), [(Discard::Replayed, 8)]);
}

#[test]
fn a_capture_outside_the_selectors_is_refused() {
    let capture = capture("esp-aes128-sha1");
    let mut gateway = Gateway::new(&capture, "192.0.2.2/32->192.0.1.0/24");
    assert!(gateway.receive(&capture.packets[0]).is_empty());
    assert_eq!(gateway.refused(), [(Discard::PolicyMismatch, 1)]);
}

/// RFC 4301 §3.2 lets ESP go without integrity; we do not, so such an SA never opens anything.
#[test]
fn esp_without_integrity_is_not_opened() {
    let capture = capture("esp-3des-noauth");
    let mut gateway = Gateway::new(&capture, POLICY);
    assert!(gateway.receive(&capture.packets[0]).is_empty());
    assert_eq!(gateway.refused(), [(Discard::Internal, 1)]);
}

/// The payload is IPComp (next header 108), which a tunnel-mode SA alone does not carry.
#[test]
fn a_payload_that_is_no_ip_packet_is_refused() {
    let capture = capture("esp-ipcomp");
    let mut gateway = Gateway::new(&capture, POLICY);
    assert!(gateway.receive(&capture.packets[0]).is_empty());
    assert_eq!(gateway.refused(), [(Discard::BadNextHeader, 1)]);
}

/// `tun`, `comp` and `esp` of KLIPS, grouped: a ping of 1024 octets.
#[test]
fn captured_ipcomp_in_esp_is_the_ping_that_was_sent() {
    let capture = capture("esp-ipcomp");
    let mut gateway =
        Gateway::grouped(&capture, &[(Protocol::Ipip, 0x1000), (Protocol::Ipcomp, 0x5678)], POLICY);
    for packet in &capture.packets {
        let delivered = gateway.receive(packet);
        assert_eq!(delivered.len(), 1, "{:?}", gateway.refused());
        assert_eq!(delivered[0].len(), 1024);
        assert_eq!(hex::encode(&delivered[0][12..20]), "c0000201c0000101");
    }
    assert_eq!(gateway.refused(), []);
}

#[test]
fn captured_ah_is_the_ping_that_was_sent() {
    let capture = capture("ah-sha1");
    let mut gateway = Gateway::new(&capture, POLICY);
    let pings = self::capture("cleartext-pings").packets;
    for packet in &capture.packets {
        let delivered = gateway.receive(packet);
        assert_eq!(delivered.len(), 1, "{:?}", gateway.refused());
        assert_eq!((delivered[0].len(), &delivered[0][12..21]), (84, &pings[0][12..21]));
    }
    // The same once more, and with a changed octet of the ping.
    assert!(gateway.receive(&capture.packets[0]).is_empty());
    let mut gateway = Gateway::new(&capture, POLICY);
    let mut forged = capture.packets[0].clone();
    forged[100] ^= 1;
    assert!(gateway.receive(&forged).is_empty());
    assert_eq!(gateway.refused(), [(Discard::Forged, 1)]);
}

/// ESP in ESP: the first packet of the gateways' east-icmp-02, to another host inside.
#[test]
fn captured_esp_in_esp_is_the_documented_ping() {
    let keys = |encryption: &str, auth: &str| Keys {
        encryption: Zeroizing::new(hex::decode(encryption).unwrap()),
        auth: Zeroizing::new(hex::decode(auth).unwrap()),
        iv: Zeroizing::default(),
    };
    let packet = hex::decode(DOUBLE_ESP).unwrap();
    let suite = Suite { encryption: Some(Encryption::TripleDesCbc), auth: Some(Auth::HmacMd5) };
    let sa = |dst: [u8; 4], spi, keys, selector: &str| {
        let (from, to) = selector.split_once("->").unwrap();
        Arc::new(Sa::new(Blueprint {
            id: SaId { dst: dst.into(), protocol: Protocol::Esp, spi: Spi(spi) },
            src: Ipv4Addr::new(192, 1, 2, 23).into(),
            mode: Mode::Tunnel,
            suite,
            keys,
            esn: false,
            window: 64,
            encapsulation: None,
            selector: Some(Selector::nets(from.parse().unwrap(), to.parse().unwrap())),
            limits: Limits::default(),
        }))
    };
    let inner = sa(
        [192, 0, 1, 1],
        0xabcd_abcd,
        keys("434545464649494a4a4c4c4f4f5151525254545757584043", "87658765876587658765876587658765"),
        POLICY,
    );
    let outer = sa(
        [192, 1, 2, 45],
        0x1234_5678,
        keys("43434545464649494a4a4c4c4f4f51515252545457575840", "65876587658765876587658765876587"),
        "192.1.2.23/32->192.0.1.1/32",
    );
    let mut gateway = Gateway::on(Arc::new(Plane::default()));
    gateway.plane.publish_group([inner, outer]).unwrap();
    let delivered = gateway.receive(&packet);
    assert_eq!(delivered.len(), 1, "{:?}", gateway.refused());
    assert_eq!(hex::encode(&delivered[0]), DOCUMENTED_PING);
}

const DOUBLE_ESP: &str = "450000c0294d00004032cc78c0010217c001022d123456780000000147412fc54b99800befbbafd4d0d960a86f57c5d8438ef69389a04b761c4506aa04707a04ded7b948e6bb2ae9a1bc35851cec0b967c35ffd3bbf3373e02b42e33c2f5dcfb01b9013db033c953132de719acefbc66e79c458d3967af01a7ccce3ec6329a55533335b9578ffaf08d09ea9d737f811878623fb74442073d9adb0c01f38d44ed3ccd56c25436f0867bd03a45a38f5917458d6016d513d6542846af5959412f4a";

const DOCUMENTED_PING: &str = "45000054000040003f01b8a6c0000201c00001010800baf06f000500239bc73bf234010008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637";

#[test]
fn every_truncation_of_a_capture_is_refused() {
    let capture = capture("esp-aes128-sha1");
    let mut gateway = Gateway::new(&capture, POLICY);
    let whole = &capture.packets[0];
    for len in 20..whole.len() {
        assert!(gateway.receive(&whole[..len]).is_empty(), "{len} octets");
    }
    let refused = gateway.refused();
    assert!(refused.iter().all(|(why, _)| matches!(why, Discard::Short | Discard::Forged)), "{refused:?}");
    assert_eq!(refused.iter().map(|(_, n)| *n).sum::<u64>(), (whole.len() - 20) as u64);
    assert_eq!(gateway.receive(whole).len(), 1, "none of that moved the window");
}
