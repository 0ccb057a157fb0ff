//! Combined-mode ciphers with a 16-octet ICV: AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634).
//!
//! Both use the nonce salt | IV and the additional data SPI | sequence number, with the 64-bit number if it is extended
//! (RFC 4106 §3.1, §4, §5; RFC 7634 §2). The IV is the caller's, who sees to it that it does not repeat under one key.

use super::KeyError;
use crate::Spi;
use crate::algorithm::Encryption;
use aws_lc_rs::aead;
use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

const HEADER: usize = 16;
const ICV: usize = 16;

pub(super) struct Aead {
    key: Salted,
}

/// A key of the library with the salt that begins every nonce.
pub(super) struct Salted {
    key: LessSafeKey,
    salt: Zeroizing<[u8; 4]>,
}

impl Aead {
    pub(super) fn new(encryption: Encryption, keymat: &[u8]) -> Result<Self, KeyError> {
        let key = if encryption == Encryption::ChaCha20Poly1305 {
            Salted::new(&aead::CHACHA20_POLY1305, keymat)?
        } else {
            Salted::aes_gcm(keymat)?
        };
        Ok(Self { key })
    }

    #[inline]
    pub(super) fn seal(&self, packet: &mut [u8], spi: Spi, seq: u64, esn: bool, iv: u64) -> Option<()> {
        let (header, rest) = packet.split_first_chunk_mut::<HEADER>()?;
        let (body, icv) = rest.split_last_chunk_mut::<ICV>()?;
        *header = header_value(spi, seq, iv).to_be_bytes();
        let nonce = self.key.nonce(iv.to_be_bytes());
        let sealed = if esn {
            self.key.key.seal_in_place_scatter(nonce, Aad::from(extended_aad(spi.0, seq)), body, &[], icv)
        } else {
            self.key.key.seal_in_place_scatter(nonce, Aad::from(short_aad(header)), body, &[], icv)
        };
        sealed.ok()
    }

    /// Encrypts `plain` and its `trailer` on their way into `packet`.
    #[inline]
    pub(super) fn seal_from(
        &self,
        (plain, trailer): (&[u8], &[u8]),
        packet: &mut [u8],
        spi: Spi,
        (seq, iv): (u64, u64),
        esn: bool,
    ) -> Option<()> {
        let (header, rest) = packet.split_first_chunk_mut::<HEADER>()?;
        let (body, rest) = rest.split_at_mut_checked(plain.len())?;
        *header = header_value(spi, seq, iv).to_be_bytes();
        let (key, nonce) = (&self.key.key, self.key.nonce(iv.to_be_bytes()));
        let sealed = if esn {
            key.seal_out_of_place_scatter(
                nonce,
                Aad::from(extended_aad(spi.0, seq)),
                plain,
                body,
                trailer,
                rest,
            )
        } else {
            key.seal_out_of_place_scatter(nonce, Aad::from(short_aad(header)), plain, body, trailer, rest)
        };
        sealed.ok()
    }

    #[inline]
    pub(super) fn open(&self, packet: &mut [u8], high: Option<u32>) -> Option<()> {
        let (header, rest) = packet.split_first_chunk_mut::<HEADER>()?;
        let (body, icv) = rest.split_last_chunk_mut::<ICV>()?;
        let &mut [s0, s1, s2, s3, n0, n1, n2, n3, ref iv @ ..] = header;
        let nonce = self.key.nonce(*iv);
        let opened = match high {
            None => self
                .key
                .key
                .open_in_place_separate_tag(nonce, Aad::from(short_aad(header)), icv, body)
                .is_ok(),
            Some(high) => {
                let seq = u64::from(high) << 32 | u64::from(u32::from_be_bytes([n0, n1, n2, n3]));
                let aad = Aad::from(extended_aad(u32::from_be_bytes([s0, s1, s2, s3]), seq));
                self.key.key.open_in_place_separate_tag(nonce, aad, icv, body).is_ok()
            }
        };
        if !opened {
            // The library wipes too, but unauthenticated plaintext is not something to rely on others for.
            body.fill(0);
            return None;
        }
        Some(())
    }
}

impl Salted {
    pub(super) fn aes_gcm(keymat: &[u8]) -> Result<Self, KeyError> {
        let algorithm = match keymat.len() {
            20 => &aead::AES_128_GCM,
            28 => &aead::AES_192_GCM,
            36 => &aead::AES_256_GCM,
            _ => return Err(KeyError::EncryptionKey),
        };
        Self::new(algorithm, keymat)
    }

    pub(super) fn new(algorithm: &'static aead::Algorithm, keymat: &[u8]) -> Result<Self, KeyError> {
        let (key, salt) = keymat.split_last_chunk::<4>().ok_or(KeyError::EncryptionKey)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| KeyError::EncryptionKey)?;
        Ok(Self { key: LessSafeKey::new(key), salt: Zeroizing::new(*salt) })
    }

    #[inline]
    fn nonce(&self, iv: [u8; 8]) -> Nonce {
        let [s0, s1, s2, s3] = *self.salt;
        let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
        Nonce::assume_unique_for_key([s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7])
    }

    /// Encrypts `body` where it stands, with the additional data given, and returns the tag.
    pub(super) fn seal(&self, iv: [u8; 8], aad: &[u8], body: &mut [u8]) -> Option<[u8; ICV]> {
        let mut icv = [0; ICV];
        self.key.seal_in_place_scatter(self.nonce(iv), Aad::from(aad), body, &[], &mut icv).ok()?;
        Some(icv)
    }

    /// Decrypts `body` where it stands, or wipes it.
    pub(super) fn open(&self, iv: [u8; 8], aad: &[u8], body: &mut [u8], icv: &[u8]) -> Option<()> {
        let opened = self.key.open_in_place_separate_tag(self.nonce(iv), Aad::from(aad), icv, body).is_ok();
        if !opened {
            body.fill(0);
        }
        opened.then_some(())
    }

    /// The tag over additional data alone.
    pub(super) fn gmac(&self, iv: [u8; 8], message: &[u8]) -> Option<[u8; ICV]> {
        let mut icv = [0; ICV];
        self.key.seal_in_place_scatter(self.nonce(iv), Aad::from(message), &mut [], &[], &mut icv).ok()?;
        Some(icv)
    }
}

/// SPI, the low half of the sequence number, IV.
#[inline]
pub(super) const fn header_value(spi: Spi, seq: u64, iv: u64) -> u128 {
    (spi.0 as u128) << 96 | (seq as u32 as u128) << 64 | iv as u128
}

pub(super) const fn short_aad(header: &[u8; HEADER]) -> [u8; 8] {
    let [s0, s1, s2, s3, n0, n1, n2, n3, ..] = *header;
    [s0, s1, s2, s3, n0, n1, n2, n3]
}

/// SPI and the whole 64-bit sequence number, the high half that is never sent included.
pub(super) const fn extended_aad(spi: u32, seq: u64) -> [u8; 12] {
    let [s0, s1, s2, s3] = spi.to_be_bytes();
    let [n0, n1, n2, n3, n4, n5, n6, n7] = seq.to_be_bytes();
    [s0, s1, s2, s3, n0, n1, n2, n3, n4, n5, n6, n7]
}
