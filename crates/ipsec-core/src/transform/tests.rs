//! Every suite: round trips, refusals, forgeries.

mod oracle;
mod vectors;

use super::*;
use crate::algorithm::{Auth, Encryption};

/// Every suite that can carry ESP.
pub(super) fn suites() -> Vec<Suite> {
    let ciphers = crate::algorithm::ENCRYPTION.iter().map(|row| row.algorithm);
    let macs =
        || crate::algorithm::AUTH.iter().map(|row| row.algorithm).filter(|&auth| auth != Auth::AesGmac);
    ciphers
        .flat_map(|cipher| {
            let macs: Vec<Option<Auth>> =
                if cipher.is_combined() { vec![None] } else { macs().map(Some).collect() };
            macs.into_iter().map(move |auth| Suite { encryption: Some(cipher), auth })
        })
        .collect()
}

/// Keys that are valid and everywhere different.
pub(super) fn key(octets: usize, salt: u8) -> Vec<u8> {
    (0..octets).map(|i| (i as u8).wrapping_mul(37).wrapping_add(salt)).collect()
}

fn transforms() -> impl Iterator<Item = (Suite, Transform)> {
    suites().into_iter().flat_map(|suite| {
        let auth_len = suite.auth.map_or(0, |a| a.row().keymat_lengths().next().unwrap());
        let lengths: Vec<usize> = suite.encryption.unwrap().row().keymat_lengths().collect();
        lengths.into_iter().map(move |len| {
            let built = Transform::new(suite, &key(len, 1), &key(auth_len, 2), &[3; 16]);
            (suite, built.unwrap_or_else(|e| panic!("{suite:?} with {len} octets: {e:?}")))
        })
    })
}

/// A packet with room for everything around a body of `blocks` alignment units.
fn unsealed(transform: &Transform, units: usize) -> Vec<u8> {
    let body = transform.alignment() * units;
    let mut packet = vec![0; transform.header_len() + body + transform.icv_len()];
    for (i, octet) in packet[transform.header_len()..][..body].iter_mut().enumerate() {
        *octet = i as u8;
    }
    packet
}

fn opens(transform: &Transform, packet: &mut [u8], high: Option<u32>) -> bool {
    let mut opening = [Opening { packet, high, authentic: false }];
    transform.open(&mut opening);
    opening[0].authentic
}

#[test]
fn a_payload_that_lies_elsewhere_is_sealed_as_if_it_had_been_copied() {
    for (suite, transform) in transforms() {
        for (len, seq, esn) in [(0, 1, false), (1, 2, true), (41, 0xffff_ffff, false), (1402, 1 << 40, true)]
        {
            let plain: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(7)).collect();
            let mut elsewhere = vec![0xee; transform.sealed_len(len)];
            assert!(transform.seal_from(&plain, 41, &mut elsewhere, (Spi(9), seq, esn)), "{suite:?}");
            assert!(opens(&transform, &mut elsewhere, esn.then_some((seq >> 32) as u32)), "{suite:?}");
            let end = elsewhere.len() - transform.icv_len();
            let body = &elsewhere[transform.header_len()..end];
            let (text, trailer) = body.split_at(len);
            assert_eq!(text, plain, "{suite:?}");
            let padding = trailer.len() - 2;
            let want: Vec<u8> = (1..=padding as u8).chain([padding as u8, 41]).collect();
            assert_eq!(trailer, want, "{suite:?}");
        }
    }
}

#[test]
fn what_cannot_be_sealed_from_elsewhere_is_wiped() {
    for (suite, transform) in transforms() {
        let plain = [0x5a; 40];
        let len = transform.sealed_len(plain.len());
        let wrong_room = [len - 1, len + 1, len - 4, len + 4, 0, 7].map(|len| (len, 1));
        for (len, seq) in wrong_room.into_iter().chain([(len, 0), (len, 1 << 32)]) {
            let mut packet = vec![0xee; len];
            assert!(
                !transform.seal_from(&plain, 4, &mut packet, (Spi(9), seq, false)),
                "{suite:?} {len} {seq}"
            );
            assert!(packet.iter().all(|octet| *octet == 0), "{suite:?} {len} {seq}");
        }
    }
}

#[test]
fn the_trailer_counts_its_padding() {
    let mut room = [0xee; 7];
    write_trailer(&mut room, 4).unwrap();
    assert_eq!(room, [1, 2, 3, 4, 5, 5, 4]);
    let mut none = [0xee; 2];
    write_trailer(&mut none, 41).unwrap();
    assert_eq!(none, [0, 41]);
    assert_eq!(write_trailer(&mut [0; 1], 4), None);
    assert_eq!(write_trailer(&mut [0; 258], 4), None, "255 octets of padding at most");
}

#[test]
fn every_suite_opens_what_it_sealed() {
    let mut tried = 0;
    for (suite, transform) in transforms() {
        for (seq, esn) in
            [(1, false), (0xffff_ffff, false), (0x1_0000_0000, true), (0x1234_5678_9abc_def0, true)]
        {
            let clear = unsealed(&transform, 5);
            let mut packet = clear.clone();
            let len = packet.len();
            assert!(transform.seal(&mut packet, len, Spi(0x1234_5678), seq, esn), "{suite:?}");
            assert_eq!(packet[..4], 0x1234_5678_u32.to_be_bytes());
            assert_eq!(packet[4..8], (seq as u32).to_be_bytes());
            let body = transform.header_len()..len - transform.icv_len();
            let hidden = !matches!(suite.encryption, Some(Encryption::Null | Encryption::NullAesGmac));
            assert_eq!(packet[body.clone()] != clear[body.clone()], hidden, "{suite:?}");
            assert!(opens(&transform, &mut packet, esn.then_some((seq >> 32) as u32)), "{suite:?}");
            assert_eq!(packet[body.clone()], clear[body], "{suite:?}");
            tried += 1;
        }
    }
    // Seven MACs beside NULL, three keys of AES-CBC and AES-CTR, and 3DES; seven AES modes with three keys; ChaCha20.
    assert_eq!(tried, 4 * (7 * (1 + 3 + 3 + 1) + 7 * 3 + 1));
}

#[test]
fn every_bit_matters() {
    for (suite, transform) in transforms() {
        for high in [None, Some(0x8000_0001)] {
            let seq = u64::from(high.unwrap_or(0)) << 32 | 0x0102_0304;
            let mut sealed = unsealed(&transform, 3);
            let len = sealed.len();
            assert!(transform.seal(&mut sealed, len, Spi(0x1001), seq, high.is_some()));
            assert!(opens(&transform, &mut sealed.clone(), high));
            for bit in 0..len * 8 {
                let mut forged = sealed.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    !opens(&transform, &mut forged, high),
                    "{suite:?} does not mind bit {bit} of {len} octets"
                );
            }
            for bit in 0..32 {
                let forged = Some(high.unwrap_or(0) ^ (1 << bit));
                assert!(
                    !opens(&transform, &mut sealed.clone(), forged),
                    "{suite:?} does not mind ESN bit {bit}"
                );
            }
            if high.is_some() {
                assert!(!opens(&transform, &mut sealed.clone(), None), "{suite:?} does not mind ESN at all");
            }
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for (suite, transform) in transforms() {
        let mut sealed = unsealed(&transform, 3);
        let len = sealed.len();
        assert!(transform.seal(&mut sealed, len, Spi(0x1001), 1, false));
        for len in 0..len {
            assert!(!opens(&transform, &mut sealed[..len].to_vec(), None), "{suite:?} opens {len} octets");
            assert!(!opens(&transform, &mut sealed[..len].to_vec(), Some(0)), "{suite:?} opens {len} octets");
        }
    }
}

/// Nobody must find the plaintext of a forged packet where a genuine one would have left it.
#[test]
fn a_forged_packet_leaves_no_plaintext() {
    for (suite, transform) in transforms() {
        if matches!(suite.encryption, Some(Encryption::Null | Encryption::NullAesGmac)) {
            continue;
        }
        let clear = unsealed(&transform, 16);
        let mut packet = clear.clone();
        let len = packet.len();
        assert!(transform.seal(&mut packet, len, Spi(0x1001), 1, false));
        packet[len - 1] ^= 1;
        assert!(!opens(&transform, &mut packet, None));
        for at in transform.header_len()..len - transform.icv_len() - 8 {
            assert_ne!(packet[at..at + 8], clear[at..at + 8], "{suite:?} at {at}");
        }
    }
}

#[test]
fn what_cannot_be_sealed_is_wiped() {
    for (suite, transform) in transforms() {
        let good = unsealed(&transform, 2);
        let refused = |packet: &[u8], seq, esn| {
            let mut packet = packet.to_vec();
            let len = packet.len();
            assert!(!transform.seal(&mut packet, len, Spi(0x1001), seq, esn), "{suite:?}");
            assert!(packet.iter().all(|&octet| octet == 0), "{suite:?}");
        };
        // Number 0 is never sent, and without ESN there is none after 2^32 - 1.
        refused(&good, 0, false);
        refused(&good, 1 << 32, false);
        for len in 1..transform.header_len() + transform.icv_len() {
            refused(&good[..len], 1, false);
        }
        if transform.alignment() > 4 {
            refused(&good[..good.len() - 4], 1, false);
        }
    }
}

#[test]
fn a_run_that_reaches_the_end_of_the_numbers_stops_there() {
    let suite = Suite { encryption: Some(Encryption::AesGcm16), auth: None };
    let transform = Transform::new(suite, &key(20, 0), &[], &[0; 16]).unwrap();
    for (first, esn) in [(u64::from(u32::MAX), false), (u64::MAX, true)] {
        let one = unsealed(&transform, 2);
        let mut run = [one.clone(), one.clone()].concat();
        assert!(!transform.seal(&mut run, one.len(), Spi(0x1001), first, esn));
        let (last, beyond) = run.split_at_mut(one.len());
        assert!(opens(&transform, last, esn.then_some(u32::MAX)));
        assert!(beyond.iter().all(|&octet| octet == 0));
    }
}

#[test]
fn a_run_is_sealed_with_consecutive_numbers_and_a_short_last_packet() {
    for (suite, transform) in transforms() {
        let (long, short) = (unsealed(&transform, 6), unsealed(&transform, 2));
        let mut run = [long.clone(), long.clone(), short.clone()].concat();
        assert!(transform.seal(&mut run, long.len(), Spi(0x1001), 0xffff_ffff, true), "{suite:?}");
        for (i, packet) in run.chunks_mut(long.len()).enumerate() {
            let seq = 0xffff_ffff_u64 + i as u64;
            assert_eq!(packet[4..8], (seq as u32).to_be_bytes());
            assert!(opens(&transform, packet, Some((seq >> 32) as u32)), "{suite:?} packet {i}");
            let clear = if i < 2 { &long } else { &short };
            let body = transform.header_len()..clear.len() - transform.icv_len();
            assert_eq!(packet[body.clone()], clear[body], "{suite:?} packet {i}");
        }
    }
}

/// RFC 3602 §3: unpredictable; and our own promise: never the same under one key, never another SA's.
#[test]
fn cbc_ivs_do_not_repeat_and_do_not_count() {
    let suite = Suite { encryption: Some(Encryption::AesCbc), auth: Some(Auth::HmacSha256) };
    let ivs = |iv_key: u8| -> Vec<u128> {
        let transform = Transform::new(suite, &key(16, 0), &key(32, 0), &[iv_key; 16]).unwrap();
        (1..500)
            .map(|seq| {
                let mut packet = unsealed(&transform, 1);
                let len = packet.len();
                assert!(transform.seal(&mut packet, len, Spi(0x1001), seq, false));
                u128::from_be_bytes(packet[8..24].try_into().unwrap())
            })
            .collect()
    };
    let mut all = [ivs(1), ivs(2)].concat();
    let steps = all.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    assert!(
        steps.clone().all(|step| step > 1 << 64 && step < u128::MAX - (1 << 64)),
        "IVs are near each other"
    );
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 2 * 499);
}

#[test]
fn counter_modes_count_their_ivs_from_where_they_start() {
    for (suite, transform) in transforms().filter(|(suite, _)| suite.auth.is_none()) {
        let mut packet = unsealed(&transform, 1);
        let len = packet.len();
        assert!(transform.seal(&mut packet, len, Spi(0x1001), 0x0102_0304_0506_0708, true));
        let iv = transform.start ^ 0x0102_0304_0506_0708;
        assert_eq!(packet[8..16], iv.to_be_bytes(), "{suite:?}");
    }
}

#[test]
fn keys_and_suites_that_do_not_fit_are_refused() {
    let suite = |encryption, auth| Suite { encryption, auth };
    let new = |suite, encryption: usize, auth: usize| {
        Transform::new(suite, &key(encryption, 0), &key(auth, 0), &[0; 16]).map(drop)
    };
    let (gcm, cbc, sha1) = (Some(Encryption::AesGcm16), Some(Encryption::AesCbc), Some(Auth::HmacSha1));
    assert_eq!(new(suite(gcm, sha1), 20, 20), Err(KeyError::Suite));
    assert_eq!(new(suite(cbc, None), 16, 0), Err(KeyError::Suite));
    assert_eq!(new(suite(Some(Encryption::Null), None), 0, 0), Err(KeyError::Suite));
    assert_eq!(new(suite(None, sha1), 0, 20), Err(KeyError::Suite));
    assert_eq!(new(suite(cbc, Some(Auth::AesGmac)), 16, 20), Err(KeyError::Suite));
    for octets in (0..80).filter(|octets| ![20, 28, 36].contains(octets)) {
        assert_eq!(new(suite(gcm, None), octets, 0), Err(KeyError::EncryptionKey), "{octets}");
    }
    for octets in (0..80).filter(|&octets| octets != 20) {
        assert_eq!(new(suite(cbc, sha1), 16, octets), Err(KeyError::AuthKey), "{octets}");
    }
    assert_eq!(new(suite(Some(Encryption::Null), sha1), 1, 20), Err(KeyError::EncryptionKey));
}

#[test]
fn sealed_len_is_what_sealing_needs() {
    for (suite, transform) in transforms() {
        for payload in 0..100 {
            let len = transform.sealed_len(payload);
            let body = len - transform.header_len() - transform.icv_len();
            assert!(body >= payload + 2 && body < payload + 2 + transform.alignment(), "{suite:?}");
            assert_eq!(body % transform.alignment(), 0);
            assert!(transform.seal(&mut vec![0; len], len, Spi(0x1001), 1, false), "{suite:?}");
        }
    }
}

#[test]
fn one_key_set_twice_never_uses_one_iv_twice() {
    for row in crate::algorithm::ENCRYPTION.iter().filter(|row| row.algorithm.is_combined()) {
        let suite = Suite { encryption: Some(row.algorithm), auth: None };
        let key = vec![7; row.keymat_lengths().next().unwrap()];
        let mut ivs = std::collections::HashSet::new();
        for start in [[0x11; 16], [0x92; 16]] {
            let transform = Transform::new(suite, &key, &[], &start).unwrap();
            let (header, len) = (transform.header_len(), transform.sealed_len(40));
            let iv_len = header - ESP_HEADER;
            for seq in 1..=4 {
                // Both ways of sealing, each with numbers of its own.
                let mut sealed = vec![0; len];
                if seq % 2 == 0 {
                    assert!(transform.seal_from(&[9; 40], 4, &mut sealed, (Spi(0x100), seq, false)));
                } else {
                    let end = len - transform.icv_len();
                    assert!(write_trailer(&mut sealed[header + 40..end], 4).is_some());
                    assert!(transform.seal(&mut sealed, len, Spi(0x100), seq, false));
                }
                let iv = sealed[ESP_HEADER..ESP_HEADER + iv_len].to_vec();
                assert!(ivs.insert(iv), "{:?}: number {seq} repeats an IV", row.algorithm);
                // What one sealed the other opens: the IV travels in the packet.
                let other = Transform::new(suite, &key, &[], &[0x44; 16]).unwrap();
                let mut opening = [Opening { packet: &mut sealed, high: None, authentic: false }];
                other.open(&mut opening);
                assert!(opening[0].authentic);
            }
        }
        assert_eq!(ivs.len(), 8);
    }
}
