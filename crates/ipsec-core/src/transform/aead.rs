//! Combined-mode ciphers with a 16-octet ICV: AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634).
//!
//! Both use the nonce salt | IV and the additional data SPI | sequence number, with the 64-bit number if it is extended
//! (RFC 4106 §3.1, §4, §5; RFC 7634 §2). The IV is the 64-bit sequence number, so it cannot repeat under one key.

use super::KeyError;
use crate::Spi;
use crate::algorithm::Encryption;
use aws_lc_rs::aead;
use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

const HEADER: usize = 16;
const ICV: usize = 16;

pub(super) struct Aead {
    key: LessSafeKey,
    salt: Zeroizing<[u8; 4]>,
}

impl Aead {
    pub(super) fn new(encryption: Encryption, keymat: &[u8]) -> Result<Self, KeyError> {
        let (key, salt) = keymat.split_last_chunk::<4>().ok_or(KeyError::EncryptionKey)?;
        let algorithm = match (encryption, key.len()) {
            (Encryption::AesGcm16, 16) => &aead::AES_128_GCM,
            (Encryption::AesGcm16, 24) => &aead::AES_192_GCM,
            (Encryption::AesGcm16, 32) => &aead::AES_256_GCM,
            (Encryption::ChaCha20Poly1305, 32) => &aead::CHACHA20_POLY1305,
            _ => return Err(KeyError::Suite),
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| KeyError::EncryptionKey)?;
        Ok(Self { key: LessSafeKey::new(key), salt: Zeroizing::new(*salt) })
    }

    #[inline]
    pub(super) fn seal(&self, packet: &mut [u8], spi: Spi, seq: u64, esn: bool) -> Option<()> {
        let (header, rest) = packet.split_first_chunk_mut::<HEADER>()?;
        let (body, icv) = rest.split_last_chunk_mut::<ICV>()?;
        let low = u128::from(seq as u32);
        *header = (u128::from(spi.0) << 96 | low << 64 | u128::from(seq)).to_be_bytes();
        let nonce = self.nonce(seq.to_be_bytes());
        let sealed = if esn {
            self.key.seal_in_place_scatter(nonce, Aad::from(extended_aad(spi.0, seq)), body, &[], icv)
        } else {
            self.key.seal_in_place_scatter(nonce, Aad::from(short_aad(header)), body, &[], icv)
        };
        sealed.ok()
    }

    #[inline]
    pub(super) fn open(&self, packet: &mut [u8], high: Option<u32>) -> Option<()> {
        let (header, rest) = packet.split_first_chunk_mut::<HEADER>()?;
        let (body, icv) = rest.split_last_chunk_mut::<ICV>()?;
        let &mut [s0, s1, s2, s3, n0, n1, n2, n3, ref iv @ ..] = header;
        let nonce = self.nonce(*iv);
        let opened = match high {
            None => {
                self.key.open_in_place_separate_tag(nonce, Aad::from(short_aad(header)), icv, body).is_ok()
            }
            Some(high) => {
                let seq = u64::from(high) << 32 | u64::from(u32::from_be_bytes([n0, n1, n2, n3]));
                let aad = Aad::from(extended_aad(u32::from_be_bytes([s0, s1, s2, s3]), seq));
                self.key.open_in_place_separate_tag(nonce, aad, icv, body).is_ok()
            }
        };
        if !opened {
            // The library wipes too, but unauthenticated plaintext is not something to rely on others for.
            body.fill(0);
            return None;
        }
        Some(())
    }

    #[inline]
    fn nonce(&self, iv: [u8; 8]) -> Nonce {
        let [s0, s1, s2, s3] = *self.salt;
        let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
        Nonce::assume_unique_for_key([s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7])
    }
}

const fn short_aad(header: &[u8; HEADER]) -> [u8; 8] {
    let [s0, s1, s2, s3, n0, n1, n2, n3, ..] = *header;
    [s0, s1, s2, s3, n0, n1, n2, n3]
}

/// SPI and the whole 64-bit sequence number, the high half that is never sent included.
const fn extended_aad(spi: u32, seq: u64) -> [u8; 12] {
    let [s0, s1, s2, s3] = spi.to_be_bytes();
    let [n0, n1, n2, n3, n4, n5, n6, n7] = seq.to_be_bytes();
    [s0, s1, s2, s3, n0, n1, n2, n3, n4, n5, n6, n7]
}
