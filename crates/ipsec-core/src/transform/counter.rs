//! AES in counter mode (RFC 3686), for ESP and for the SK payload (RFC 5930): a stream of key, the same to encrypt and to
//! decrypt.

use super::KeyError;
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

/// A key and its nonce, which are keying material both.
pub(super) struct Counter {
    key: EncryptingKey,
    nonce: [u8; 4],
}

impl Counter {
    pub(super) fn new(keymat: &[u8]) -> Result<Self, KeyError> {
        let (key, nonce) = keymat.split_last_chunk::<4>().ok_or(KeyError::EncryptionKey)?;
        let algorithm = match key.len() {
            16 => &cipher::AES_128,
            24 => &cipher::AES_192,
            32 => &cipher::AES_256,
            _ => return Err(KeyError::EncryptionKey),
        };
        let key = UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::ctr);
        Ok(Self { key: key.map_err(|_| KeyError::EncryptionKey)?, nonce: *nonce })
    }

    /// Encrypts or decrypts; the counter of a packet begins at 1 (RFC 3686 §4).
    pub(super) fn apply(&self, iv: [u8; 8], text: &mut [u8]) -> Option<()> {
        let [n0, n1, n2, n3] = self.nonce;
        let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
        let block = [n0, n1, n2, n3, i0, i1, i2, i3, i4, i5, i6, i7, 0, 0, 0, 1];
        let context = EncryptionContext::Iv128(FixedLength::from(block));
        self.key.less_safe_encrypt(text, context).ok().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_vectors_1_and_9_of_rfc_3686() {
        for (keymat, iv, plain, sealed) in [
            (
                "ae6852f8121067cc4bf7a5765577f39e00000030",
                "0000000000000000",
                "53696e676c6520626c6f636b206d7367",
                "e4095d4fb7a7b3792d6175a3261311b8",
            ),
            (
                "ff7a617ce69148e4f1726e2f43581de2aa62d9f805532edff1eed687fb54153d001cc5b7",
                "51a51d70a1c11148",
                "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
                "eb6c52821d0bbbf7ce7594462aca4faab407df866569fd07f48cc0b583d6071f1ec0e6b8",
            ),
        ] {
            let octets = |text: &str| hex::decode(text).unwrap();
            let key = Counter::new(&octets(keymat)).unwrap();
            let (iv, mut text) = (octets(iv).try_into().unwrap(), octets(plain));
            key.apply(iv, &mut text).unwrap();
            assert_eq!(hex::encode(&text), sealed);
            key.apply(iv, &mut text).unwrap();
            assert_eq!(hex::encode(&text), plain);
        }
    }
}
