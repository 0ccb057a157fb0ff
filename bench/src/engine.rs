//! Seal and open per packet through the whole engine, beside the raw cipher on octets of the same length.

use crate::measure::{Options, cpu_nanos, median};
use crate::report::{figure, row};
use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use ipsec_core::algorithm::{Auth, Encryption, Suite};
use ipsec_core::{Protocol, SaId, Selector, Spi, Time};
use klips::{
    Action, Arrival, Blueprint, Carrier, Counters, Discard, Encapsulation, Eroute, Gso, Inbound, Keys,
    Limits, Link, Mode, Opened, Outbound, Plane, Sa, Sealed, Verdict, Vnet,
};
use serde_json::json;
use std::hint::black_box;
use std::sync::Arc;
use zeroize::Zeroizing;

pub(crate) const NOW: Time = Time::from_secs(1);
/// Packets in a sample's batch.
const BATCH: usize = 32;

/// One suite and what its crypto alone costs.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    suite: Suite,
    key: usize,
    auth_key: usize,
    raw: Raw,
}

/// The same crypto without anything around it.
enum Raw {
    Aead(&'static Algorithm),
    Cbc(&'static cipher::Algorithm, hmac::Algorithm, usize),
    Mac(hmac::Algorithm, usize),
}

pub(crate) fn cases() -> Vec<Case> {
    let aead = |name, encryption, key, algorithm| Case {
        name,
        suite: Suite { encryption: Some(encryption), auth: None },
        key,
        auth_key: 0,
        raw: Raw::Aead(algorithm),
    };
    let suite = |encryption, auth| Suite { encryption: Some(encryption), auth: Some(auth) };
    vec![
        aead("aes-128-gcm16", Encryption::AesGcm16, 20, &AES_128_GCM),
        aead("aes-256-gcm16", Encryption::AesGcm16, 36, &AES_256_GCM),
        aead("chacha20-poly1305", Encryption::ChaCha20Poly1305, 36, &CHACHA20_POLY1305),
        Case {
            name: "aes-128-cbc-sha1",
            suite: suite(Encryption::AesCbc, Auth::HmacSha1),
            key: 16,
            auth_key: 20,
            raw: Raw::Cbc(&cipher::AES_128, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 12),
        },
        Case {
            name: "aes-256-cbc-sha256",
            suite: suite(Encryption::AesCbc, Auth::HmacSha256),
            key: 32,
            auth_key: 32,
            raw: Raw::Cbc(&cipher::AES_256, hmac::HMAC_SHA256, 16),
        },
        Case {
            name: "null-sha512",
            suite: suite(Encryption::Null, Auth::HmacSha512),
            key: 0,
            auth_key: 64,
            raw: Raw::Mac(hmac::HMAC_SHA512, 32),
        },
    ]
}

fn key(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8 ^ 0x5a).collect()
}

/// Seals the buffer under the number.
type SealFn = Box<dyn FnMut(&mut [u8], u64)>;
/// Opens the buffer under the number; whether its tag holds.
type OpenFn = Box<dyn FnMut(&mut [u8], u64) -> bool>;

/// Calls the crypto library on one buffer after the other, `len` octets of text each.
struct RawCipher {
    seal: SealFn,
    open: OpenFn,
    room: usize,
}

fn raw(case: &Case) -> RawCipher {
    let nonce = |n: u64| {
        let mut octets = [7; 12];
        octets[4..].copy_from_slice(&n.to_be_bytes());
        Nonce::assume_unique_for_key(octets)
    };
    match case.raw {
        Raw::Aead(algorithm) => {
            let new = || {
                LessSafeKey::new(
                    UnboundKey::new(algorithm, &key(case.key - 4)).expect("a key of the right length"),
                )
            };
            let (sealing, opening) = (new(), new());
            RawCipher {
                seal: Box::new(move |buffer, n| {
                    let (text, tag) = buffer.split_at_mut(buffer.len() - 16);
                    let sealed = sealing.seal_in_place_scatter(nonce(n), Aad::from([1; 8]), text, &[], tag);
                    sealed.expect("sealing cannot fail");
                }),
                open: Box::new(move |buffer, n| {
                    let (text, tag) = buffer.split_at_mut(buffer.len() - 16);
                    opening.open_in_place_separate_tag(nonce(n), Aad::from([1; 8]), tag, text).is_ok()
                }),
                room: 16,
            }
        }
        Raw::Cbc(algorithm, mac, icv) => {
            let cbc = EncryptingKey::cbc(UnboundCipherKey::new(algorithm, &key(case.key)).expect("a key"))
                .expect("a cipher");
            let uncbc =
                cipher::DecryptingKey::cbc(UnboundCipherKey::new(algorithm, &key(case.key)).expect("a key"))
                    .expect("a cipher");
            let (mac, unmac) =
                (hmac::Key::new(mac, &key(case.auth_key)), hmac::Key::new(mac, &key(case.auth_key)));
            RawCipher {
                seal: Box::new(move |buffer, n| {
                    let (text, tag) = buffer.split_at_mut(buffer.len() - icv);
                    let iv = EncryptionContext::Iv128(FixedLength::from(u128::from(n).to_be_bytes()));
                    cbc.less_safe_encrypt(text, iv).expect("whole blocks");
                    tag.copy_from_slice(&hmac::sign(&mac, text).as_ref()[..icv]);
                }),
                open: Box::new(move |buffer, n| {
                    let (text, tag) = buffer.split_at_mut(buffer.len() - icv);
                    let good = hmac::sign(&unmac, text).as_ref()[..icv] == *tag;
                    let iv = cipher::DecryptionContext::Iv128(FixedLength::from(u128::from(n).to_be_bytes()));
                    uncbc.decrypt(text, iv).expect("whole blocks");
                    good
                }),
                room: icv,
            }
        }
        Raw::Mac(mac, icv) => {
            let (mac, unmac) =
                (hmac::Key::new(mac, &key(case.auth_key)), hmac::Key::new(mac, &key(case.auth_key)));
            RawCipher {
                seal: Box::new(move |buffer, _| {
                    let (text, tag) = buffer.split_at_mut(buffer.len() - icv);
                    tag.copy_from_slice(&hmac::sign(&mac, text).as_ref()[..icv]);
                }),
                open: Box::new(move |buffer, _| {
                    let (text, tag) = buffer.split_at_mut(buffer.len() - icv);
                    hmac::sign(&unmac, text).as_ref()[..icv] == *tag
                }),
                room: icv,
            }
        }
    }
}

/// Two engines back to back.
pub(crate) struct Pair {
    pub(crate) outbound: Outbound,
    inbound: Inbound,
    counters: Arc<Counters>,
    pub(crate) sealed: Sealed,
    opened: Opened,
    arrival: Arrival,
    rx: Vec<u8>,
}

impl Pair {
    fn new(case: &Case) -> Self {
        Self::with(
            case,
            [Selector::nets("10.1.0.0/16".parse().expect("a net"), "10.2.0.0/16".parse().expect("a net"))],
        )
    }

    /// One SA and one eroute for each selector.
    pub(crate) fn with(case: &Case, selectors: impl IntoIterator<Item = Selector>) -> Self {
        let plane = Arc::new(Plane::default());
        let counters = plane.new_counters();
        let [src, dst] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        let mut eroutes = Vec::new();
        for (spi, selector) in (0x1001..).zip(selectors) {
            let id = SaId { dst, protocol: Protocol::Esp, spi: Spi(spi) };
            plane.publish(Arc::new(Sa::new(Blueprint {
                id,
                src,
                mode: Mode::Tunnel,
                suite: case.suite,
                keys: Keys {
                    encryption: Zeroizing::new(key(case.key)),
                    auth: Zeroizing::new(key(case.auth_key)),
                    ..Keys::default()
                },
                esn: true,
                window: 4096,
                encapsulation: Some(Encapsulation { local: 4500, remote: 4500 }),
                selector: Some(selector),
                limits: Limits::default(),
            })));
            eroutes.push(Eroute::new(selector, Action::Protect(id)));
        }
        plane.change_eroutes(|table| {
            for eroute in eroutes {
                table.replace(eroute);
            }
        });
        let link = Link {
            mtu: 65_535,
            icmp_source4: None,
            icmp_source6: None,
            hide_tos: true,
            frag_icmp: true,
            copy_df: false,
        };
        let carrier = Carrier::Udp { local: 4500, remote: 4500 };
        Self {
            outbound: Outbound::new(Arc::clone(&plane), Arc::clone(&counters), link),
            inbound: Inbound::new(plane, Arc::clone(&counters)),
            counters,
            sealed: Sealed::new(2 << 20),
            opened: Opened::new(4096),
            arrival: Arrival { src, dst, carrier, tos: 0, header: 0 },
            rx: vec![0; 4 << 20],
        }
    }

    /// Takes everything sealed to the other side: nanoseconds that opening and merging took.
    pub(crate) fn cross(&mut self) -> f64 {
        let mut at = 0;
        let mut arrivals = Vec::new();
        for run in self.sealed.runs() {
            self.rx[at..at + run.octets.len()].copy_from_slice(run.octets);
            arrivals.push((at..at + run.octets.len(), run.stride));
            at += run.octets.len();
        }
        self.sealed.clear();
        let Self { inbound, opened, arrival, rx, .. } = self;
        let nanos = cpu_nanos(|| {
            for (range, stride) in arrivals {
                inbound.datagrams(arrival, rx, range, stride, NOW, opened);
            }
            opened.merge(rx, true, true);
            black_box(opened.writes().count());
        });
        self.opened.clear();
        nanos
    }

    pub(crate) fn clean(&self) {
        for why in Discard::ALL {
            assert_eq!(self.counters.count(*why), 0, "{}", why.name());
        }
    }
}

/// An inner UDP packet of `len` octets whose checksum is absent, which is legal.
pub(crate) fn packet(len: usize) -> Vec<u8> {
    let mut p = vec![0x5a; len];
    p[..28].copy_from_slice(&[
        0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1, 3, 0xe8, 7, 0xd0, 0, 0, 0, 0,
    ]);
    p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    p[24..26].copy_from_slice(&((len - 20) as u16).to_be_bytes());
    p
}

/// A TCP superpacket of `segments` segments of 1368 octets.
pub(crate) fn superpacket(segments: usize) -> (Vnet, Vec<u8>) {
    let len = 40 + segments * 1368;
    let mut p = vec![0x5a; len];
    p[..40].copy_from_slice(&[
        0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1, 3, 0xe8, 7, 0xd0, 0, 0, 0, 1, 0,
        0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    let vnet = Vnet {
        needs_csum: true,
        gso: Gso::Tcp4,
        gso_size: 1368,
        hdr_len: 40,
        csum_start: 20,
        csum_offset: 16,
        ..Vnet::default()
    };
    (vnet, p)
}

pub(crate) fn run(options: &Options) {
    for case in &cases() {
        if options.wants(&format!("{} single", case.name)) {
            for size in [64_usize, 576, 1400, 16384] {
                single(case, size, options);
            }
        }
        if options.wants(&format!("{} tso44", case.name)) {
            bulk(case, options);
        }
    }
}

/// Octets that ESP encrypts of a packet: with padding and trailer (RFC 4303 §2.4). The raw cipher gets as many.
fn body(case: &Case, size: usize) -> usize {
    let alignment = if matches!(case.raw, Raw::Cbc(..)) { 16 } else { 4 };
    (size + 2).next_multiple_of(alignment)
}

/// One packet after the other, each a read of its own.
fn single(case: &Case, size: usize, options: &Options) {
    let mut pair = Pair::new(case);
    let mut raw = raw(case);
    let padded = body(case, size);
    let mut buffers = vec![vec![0x5a; padded + raw.room]; BATCH];
    let template = packet(size);
    let mut scratch = template.clone();
    let rounds = (if options.quick { 40_000 } else { 200_000 } / (size + 500)).max(2);
    let mut counter = 0_u64;
    let (mut seal, mut open, mut raw_seal, mut raw_open) = (vec![], vec![], vec![], vec![]);
    for _ in 0..options.samples() {
        let mut sums = [0.0; 4];
        for _ in 0..rounds {
            sums[0] += cpu_nanos(|| {
                for _ in 0..BATCH {
                    // The device would have written it; a copy of the size of a read is not the engine's.
                    let verdict = pair.outbound.packet(&Vnet::default(), &mut scratch, NOW, &mut pair.sealed);
                    assert_eq!(verdict, Verdict::Send);
                }
                pair.outbound.finish(NOW, &mut pair.sealed);
            });
            sums[1] += pair.cross();
            let first = counter;
            sums[2] += cpu_nanos(|| {
                for buffer in &mut buffers {
                    counter += 1;
                    (raw.seal)(buffer, counter);
                }
            });
            counter = first;
            sums[3] += cpu_nanos(|| {
                for buffer in &mut buffers {
                    counter += 1;
                    assert!((raw.open)(buffer, counter));
                }
            });
        }
        let per = (rounds * BATCH) as f64;
        for (samples, sum) in [&mut seal, &mut open, &mut raw_seal, &mut raw_open].into_iter().zip(sums) {
            samples.push(sum / per);
        }
    }
    pair.clean();
    report(case.name, "single", size, [seal, open, raw_seal, raw_open]);
}

/// Superpackets of 44 segments, as a TUN device with offloads hands them over.
fn bulk(case: &Case, options: &Options) {
    let mut pair = Pair::new(case);
    let mut raw = raw(case);
    let (vnet, template) = superpacket(44);
    let mut scratch = template.clone();
    let mut buffers = vec![vec![0x5a; body(case, 1408) + raw.room]; 44];
    let rounds = if options.quick { 4 } else { 20 };
    let (mut seal, mut open, mut raw_seal, mut raw_open) = (vec![], vec![], vec![], vec![]);
    let mut counter = 0_u64;
    for _ in 0..options.samples() {
        let mut sums = [0.0; 4];
        for _ in 0..rounds {
            scratch.copy_from_slice(&template);
            sums[0] += cpu_nanos(|| {
                assert_eq!(pair.outbound.packet(&vnet, &mut scratch, NOW, &mut pair.sealed), Verdict::Send);
            });
            sums[1] += pair.cross();
            let first = counter;
            sums[2] += cpu_nanos(|| {
                for buffer in &mut buffers {
                    counter += 1;
                    (raw.seal)(buffer, counter);
                }
            });
            counter = first;
            sums[3] += cpu_nanos(|| {
                for buffer in &mut buffers {
                    counter += 1;
                    assert!((raw.open)(buffer, counter));
                }
            });
        }
        let per = (rounds * 44) as f64;
        for (samples, sum) in [&mut seal, &mut open, &mut raw_seal, &mut raw_open].into_iter().zip(sums) {
            samples.push(sum / per);
        }
    }
    pair.clean();
    report(case.name, "tso44", 1408, [seal, open, raw_seal, raw_open]);
}

fn report(name: &str, shape: &str, size: usize, [seal, open, raw_seal, raw_open]: [Vec<f64>; 4]) {
    let ratio = |engine: &[f64], raw: &[f64]| {
        median(engine.iter().zip(raw).map(|(engine, raw)| raw / engine).collect())
    };
    let (seal_ratio, open_ratio) = (ratio(&seal, &raw_seal), ratio(&open, &raw_open));
    row(&[
        ("bench", json!(format!("{name} {shape}"))),
        ("octets", json!(size)),
        ("seal_ns", figure(median(seal))),
        ("raw_seal_ns", figure(median(raw_seal))),
        ("seal_of_raw", figure(seal_ratio)),
        ("open_ns", figure(median(open))),
        ("raw_open_ns", figure(median(raw_open))),
        ("open_of_raw", figure(open_ratio)),
    ]);
}
