//! Every suite: round trips, refusals, forgeries.

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
        lengths.into_iter().filter_map(move |len| {
            Transform::new(suite, &key(len, 1), &key(auth_len, 2), &[3; 16]).ok().map(|built| (suite, built))
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
    assert!(tried >= 4 * (4 + 3 * 4 + 4), "{tried}");
}
