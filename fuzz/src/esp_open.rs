//! What the wire delivers: datagrams from anybody, taken through the inbound path.
//!
//! Layout: one octet of options (algorithm, ESN, carrier, whether the datagrams are sealed first), then datagrams, each
//! behind its length in two octets. Sealed first means: the octets are what an authentic but malicious peer put inside,
//! so that padding, next headers, inner packets and merging are reached in spite of the ICV.

use crate::packets::{plain, tcp4};
use ipsec_core::algorithm::{Auth, Encryption, Suite};
use ipsec_core::transform::Transform;
use ipsec_core::{Protocol, SaId, Selector, Spi, Time};
use klips::{
    Arrival, Blueprint, Carrier, Discard, Encapsulation, Inbound, Keys, Limits, Mode, Opened, Plane, Sa,
};
use std::sync::Arc;
use zeroize::Zeroizing;

const SPI: Spi = Spi(0x2001);
const IV_KEY: [u8; 16] = [9; 16];

const ALGORITHM: u8 = 0x07;
const ESN: u8 = 0x08;
const UDP: u8 = 0x10;
const SEAL: u8 = 0x20;

fn suite(options: u8) -> (Suite, usize, usize) {
    let (encryption, auth, key, auth_key) = match options & ALGORITHM {
        0 => (Encryption::AesGcm16, None, 20, 0),
        1 => (Encryption::ChaCha20Poly1305, None, 36, 0),
        2 => (Encryption::AesCbc, Some(Auth::HmacSha256), 16, 32),
        3 => (Encryption::Null, Some(Auth::HmacSha1), 0, 20),
        4 => (Encryption::AesCcm16, None, 19, 0),
        5 => (Encryption::TripleDesCbc, Some(Auth::HmacMd5), 24, 16),
        6 => (Encryption::NullAesGmac, None, 20, 0),
        _ => (Encryption::AesCbc, Some(Auth::AesXcbc), 32, 16),
    };
    (Suite { encryption: Some(encryption), auth }, key, auth_key)
}

/// Not all alike: a triple DES key of three equal parts is refused.
fn key(length: usize) -> Vec<u8> {
    (1..=length).map(|i| (i * 37 % 251) as u8).collect()
}

fn datagrams(mut data: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk() {
        let (this, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        all.push(this);
        data = rest;
    }
    all
}

/// Puts the octets where a sender would put payload, padding and trailer.
fn seal(transform: &Transform, seq: u64, esn: bool, inside: &[u8]) -> Vec<u8> {
    let body = (inside.len().max(2)).next_multiple_of(transform.alignment());
    let mut packet = vec![0; transform.header_len()];
    // The trailer is the end of what was given; what is missing in front is zeros.
    packet.resize(transform.header_len() + body - inside.len(), 0);
    packet.extend(inside);
    packet.resize(transform.header_len() + body + transform.icv_len(), 0);
    let length = packet.len();
    assert!(transform.seal(&mut packet, length, SPI, seq, esn));
    packet
}

/// Takes the octets through the inbound path.
pub fn run(data: &[u8]) {
    let Some((&options, rest)) = data.split_first() else { return };
    let (suite, encryption, auth) = suite(options);
    let esn = options & ESN != 0;
    let udp = options & UDP != 0;
    let keys = Keys {
        encryption: Zeroizing::new(key(encryption)),
        auth: Zeroizing::new(key(auth)),
        iv: Zeroizing::new(IV_KEY),
    };
    let transform = Transform::new(suite, &keys.encryption, &keys.auth, &keys.iv).expect("good keys");
    let inner =
        Selector::nets("10.1.0.0/16".parse().expect("a prefix"), "10.2.0.0/16".parse().expect("a prefix"));
    let plane = Arc::new(Plane::default());
    let dst = [192, 0, 2, 2].into();
    plane.publish(Arc::new(Sa::new(Blueprint {
        id: SaId { dst, protocol: Protocol::Esp, spi: SPI },
        src: [192, 0, 2, 1].into(),
        mode: Mode::Tunnel,
        suite,
        keys,
        esn,
        window: 64,
        encapsulation: udp.then_some(Encapsulation { local: 4500, remote: 4500 }),
        selector: Some(inner),
        limits: Limits::default(),
    })));
    let counters = plane.new_counters();
    let mut inbound = Inbound::new(Arc::clone(&plane), Arc::clone(&counters));
    let carrier = if udp { Carrier::Udp { local: 4500, remote: 4500 } } else { Carrier::Esp };
    let arrival = Arrival { src: [192, 0, 2, 1].into(), dst, carrier, tos: options >> 6, header: 0 };

    // One receive buffer, as a worker has it: all arrivals lie in it.
    let mut rx = Vec::new();
    let mut places = Vec::new();
    for (seq, datagram) in (1_u64..).zip(datagrams(rest)) {
        let start = rx.len();
        if options & SEAL != 0 {
            rx.extend(seal(&transform, seq, esn, datagram));
        } else {
            rx.extend_from_slice(datagram);
        }
        places.push(start..rx.len());
    }
    let mut out = Opened::new(places.len());
    for place in &places {
        let stride = place.len();
        inbound.datagrams(&arrival, &mut rx, place.clone(), stride, Time::from_nanos(1), &mut out);
    }
    out.merge(&mut rx, true, true);
    assert_eq!(counters.count(Discard::Internal), 0, "an invariant did not hold");
    let refused: u64 = Discard::ALL.iter().map(|&why| counters.count(why)).sum();
    let ike = out.ike().count();
    assert_eq!(
        out.packets() + ike + refused as usize,
        places.len(),
        "a datagram vanished, or was counted twice"
    );
    for write in out.writes() {
        let mut head = Vec::new();
        for piece in write.octets(&rx) {
            head.extend(piece.iter().take(20 - head.len().min(20)));
        }
        // Whatever the peer wrote inside: what is delivered is within the selectors (RFC 4301 §5.2).
        assert_eq!(head.first().map(|octet| *octet >> 4), Some(4_u8), "not IPv4");
        assert_eq!(head.get(12..14), Some(&[10, 1][..]), "a source outside the selectors");
        assert_eq!(head.get(16..18), Some(&[10, 2][..]), "a destination outside the selectors");
    }
}

/// Sealed packets and what may be inside them, for every algorithm.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let framed = |options: u8, datagrams: &[Vec<u8>]| {
        let mut data = vec![options];
        for datagram in datagrams {
            data.extend((datagram.len() as u16).to_be_bytes());
            data.extend(datagram);
        }
        data
    };
    let padded = |packet: &[u8], next: u8, alignment: usize| {
        let pad = (packet.len() + 2).next_multiple_of(alignment) - packet.len() - 2;
        let mut inside = packet.to_vec();
        inside.extend((1..=pad).map(|octet| octet as u8));
        inside.extend([pad as u8, next]);
        inside
    };
    let mut all = Vec::new();
    for algorithm in 0..=ALGORITHM {
        let (suite, encryption, auth) = suite(algorithm);
        let transform = Transform::new(suite, &key(encryption), &key(auth), &IV_KEY).expect("good keys");
        let flow: Vec<Vec<u8>> =
            (0..3).map(|n| padded(&tcp4(1 + n * 8, b"segment."), 4, transform.alignment())).collect();
        for extra in [0, ESN, UDP] {
            let options = algorithm | extra;
            let sealed: Vec<Vec<u8>> =
                (1..).zip(&flow).map(|(seq, inside)| seal(&transform, seq, extra == ESN, inside)).collect();
            all.push((format!("wire-{options:02x}"), framed(options, &sealed)));
        }
        all.push((format!("inside-{algorithm:02x}"), framed(algorithm | SEAL, &flow)));
    }
    for (name, packet) in plain() {
        let next = if packet[0] >> 4 == 4 { 4 } else { 41 };
        all.push((format!("inside-{name}"), framed(SEAL, &[padded(&packet, next, 4)])));
    }
    all.push(("inside-dummy".to_owned(), framed(SEAL, &[padded(&[0; 30], 59, 4)])));
    all.push(("ike-and-keepalive".to_owned(), framed(UDP, &[vec![0xff], [&[0; 4][..], b"ike"].concat()])));
    all
}
