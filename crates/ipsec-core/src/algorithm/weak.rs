//! DES keys that must not be used, and the parity bits that do not count.

use super::Encryption;

/// The key is one under which the cipher is not itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeakKey;

/// The weak and semi-weak keys of DES (RFC 2409 Appendix A, FIPS 74), with odd parity.
const WEAK: [[u8; 8]; 16] = [
    [0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01],
    [0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe],
    [0xe0, 0xe0, 0xe0, 0xe0, 0xf1, 0xf1, 0xf1, 0xf1],
    [0x1f, 0x1f, 0x1f, 0x1f, 0x0e, 0x0e, 0x0e, 0x0e],
    [0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe],
    [0xfe, 0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe, 0x01],
    [0x1f, 0xe0, 0x1f, 0xe0, 0x0e, 0xf1, 0x0e, 0xf1],
    [0xe0, 0x1f, 0xe0, 0x1f, 0xf1, 0x0e, 0xf1, 0x0e],
    [0x01, 0xe0, 0x01, 0xe0, 0x01, 0xf1, 0x01, 0xf1],
    [0xe0, 0x01, 0xe0, 0x01, 0xf1, 0x01, 0xf1, 0x01],
    [0x1f, 0xfe, 0x1f, 0xfe, 0x0e, 0xfe, 0x0e, 0xfe],
    [0xfe, 0x1f, 0xfe, 0x1f, 0xfe, 0x0e, 0xfe, 0x0e],
    [0x01, 0x1f, 0x01, 0x1f, 0x01, 0x0e, 0x01, 0x0e],
    [0x1f, 0x01, 0x1f, 0x01, 0x0e, 0x01, 0x0e, 0x01],
    [0xe0, 0xfe, 0xe0, 0xfe, 0xf1, 0xfe, 0xf1, 0xfe],
    [0xfe, 0xe0, 0xfe, 0xe0, 0xfe, 0xf1, 0xfe, 0xf1],
];

impl Encryption {
    /// Makes a key fit for use: DES parity is corrected where it stands, weak keys are refused.
    ///
    /// A triple DES key is weak if two neighbouring components are equal, which leaves single DES, or if more than one
    /// of them is weak. Keys of other algorithms are left alone.
    pub fn prepare_key(self, key: &mut [u8]) -> Result<(), WeakKey> {
        if self != Self::TripleDesCbc {
            return Ok(());
        }
        for octet in key.iter_mut() {
            *octet = *octet & 0xfe | u8::from((*octet >> 1).count_ones() % 2 == 0);
        }
        let (parts, _) = key.as_chunks::<8>();
        let weak = parts.iter().filter(|part| WEAK.contains(part)).count();
        let twice = parts.windows(2).any(|pair| pair.first() == pair.last());
        if weak > 1 || twice { Err(WeakKey) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [u8; 24] =
        *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x23\x45\x67\x89\xab\xcd\xef\x01\x45\x67\x89\xab\xcd\xef\x01\x23";

    fn with(at: usize, parts: &[[u8; 8]]) -> [u8; 24] {
        let mut key = GOOD;
        key[at * 8..][..parts.len() * 8].copy_from_slice(&parts.concat());
        key
    }

    fn prepared(mut key: [u8; 24]) -> Result<[u8; 24], WeakKey> {
        Encryption::TripleDesCbc.prepare_key(&mut key).map(|()| key)
    }

    #[test]
    fn parity_is_made_odd_and_nothing_else_changes() {
        let key = prepared(GOOD).unwrap();
        assert!(key.iter().all(|octet| octet.count_ones() % 2 == 1));
        assert!(key.iter().zip(GOOD).all(|(a, b)| a & 0xfe == b & 0xfe));
    }

    #[test]
    fn one_weak_component_is_allowed_and_two_are_not() {
        for weak in WEAK {
            assert!(weak.iter().all(|octet| octet.count_ones() % 2 == 1), "the table has odd parity");
            // The same key with its parity bits upside down is the same key.
            for weak in [weak, weak.map(|octet| octet ^ 1)] {
                assert!((0..3).all(|at| prepared(with(at, &[weak])).is_ok()));
                let other = if weak[0] & 0xfe == 0xfe { WEAK[0] } else { WEAK[1] };
                assert_eq!(prepared(with(0, &[weak, other])), Err(WeakKey));
                assert_eq!(prepared(with(1, &[weak, other])), Err(WeakKey));
            }
        }
    }

    #[test]
    fn neighbouring_components_must_differ() {
        let part: [u8; 8] = GOOD[..8].try_into().unwrap();
        assert_eq!(prepared(with(0, &[part, part])), Err(WeakKey));
        assert_eq!(prepared(with(1, &[part, part])), Err(WeakKey));
        // Two-key triple DES: K1 = K3.
        assert!(prepared(with(2, &[part])).is_ok());
    }

    #[test]
    fn other_ciphers_take_any_key() {
        let mut key = [0; 16];
        assert_eq!(Encryption::AesCbc.prepare_key(&mut key), Ok(()));
        assert_eq!(key, [0; 16]);
    }
}
