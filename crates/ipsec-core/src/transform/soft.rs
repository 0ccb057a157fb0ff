//! Combined modes the fast library cannot truncate or does not have: AES-GCM with 8 or 12 octets of ICV (RFC 4106) and
//! AES-CCM with 8, 12 or 16 (RFC 4309).
//!
//! Nonce, additional data and packet are those of [`super::aead`]; the CCM nonce has 3 octets of salt instead of 4
//! (RFC 4309 §4).

use super::KeyError;
use super::aead::{extended_aad, header_value, short_aad};
use crate::Spi;
use crate::algorithm::Encryption;
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::{AeadInOut, Key, KeyInit, Nonce, Tag};
use ccm::Ccm;
use ccm::consts::{U8, U11, U12, U16};
use zeroize::Zeroizing;

const HEADER: usize = 16;

pub(super) struct SoftAead {
    key: Box<dyn Detached>,
    salt: Zeroizing<[u8; 4]>,
    salt_len: u8,
    icv: u8,
}

/// Sealing with the tag apart, whatever the sizes of key, nonce and tag.
trait Detached: Send + Sync {
    fn seal(&self, nonce: &[u8], aad: &[u8], body: &mut [u8], icv: &mut [u8]) -> Option<()>;
    fn open(&self, nonce: &[u8], aad: &[u8], body: &mut [u8], icv: &[u8]) -> Option<()>;
}

impl<A: AeadInOut + Send + Sync> Detached for A {
    fn seal(&self, nonce: &[u8], aad: &[u8], body: &mut [u8], icv: &mut [u8]) -> Option<()> {
        let nonce = <&Nonce<A>>::try_from(nonce).ok()?;
        let icv = <&mut Tag<A>>::try_from(icv).ok()?;
        *icv = self.encrypt_inout_detached(nonce, aad, body.into()).ok()?;
        Some(())
    }

    fn open(&self, nonce: &[u8], aad: &[u8], body: &mut [u8], icv: &[u8]) -> Option<()> {
        let nonce = <&Nonce<A>>::try_from(nonce).ok()?;
        let icv = <&Tag<A>>::try_from(icv).ok()?;
        self.decrypt_inout_detached(nonce, aad, body.into(), icv).ok()
    }
}

fn keyed<A: AeadInOut + KeyInit + Send + Sync + 'static>(key: &[u8]) -> Result<Box<dyn Detached>, KeyError> {
    let key = <&Key<A>>::try_from(key).map_err(|_| KeyError::EncryptionKey)?;
    Ok(Box::new(A::new(key)))
}

impl SoftAead {
    pub(super) fn new(encryption: Encryption, keymat: &[u8]) -> Result<Self, KeyError> {
        let row = encryption.row();
        let key_len = keymat.len().checked_sub(row.salt()).ok_or(KeyError::EncryptionKey)?;
        let (key, salt_octets) = keymat.split_at_checked(key_len).ok_or(KeyError::EncryptionKey)?;
        let mut salt = Zeroizing::new([0; 4]);
        salt.iter_mut().zip(salt_octets).for_each(|(to, from)| *to = *from);
        let key = match (encryption, key_len) {
            (Encryption::AesGcm8, 16) => keyed::<AesGcm<Aes128, U12, U8>>(key),
            (Encryption::AesGcm8, 24) => keyed::<AesGcm<Aes192, U12, U8>>(key),
            (Encryption::AesGcm8, 32) => keyed::<AesGcm<Aes256, U12, U8>>(key),
            (Encryption::AesGcm12, 16) => keyed::<AesGcm<Aes128, U12, U12>>(key),
            (Encryption::AesGcm12, 24) => keyed::<AesGcm<Aes192, U12, U12>>(key),
            (Encryption::AesGcm12, 32) => keyed::<AesGcm<Aes256, U12, U12>>(key),
            (Encryption::AesCcm8, 16) => keyed::<Ccm<Aes128, U8, U11>>(key),
            (Encryption::AesCcm8, 24) => keyed::<Ccm<Aes192, U8, U11>>(key),
            (Encryption::AesCcm8, 32) => keyed::<Ccm<Aes256, U8, U11>>(key),
            (Encryption::AesCcm12, 16) => keyed::<Ccm<Aes128, U12, U11>>(key),
            (Encryption::AesCcm12, 24) => keyed::<Ccm<Aes192, U12, U11>>(key),
            (Encryption::AesCcm12, 32) => keyed::<Ccm<Aes256, U12, U11>>(key),
            (Encryption::AesCcm16, 16) => keyed::<Ccm<Aes128, U16, U11>>(key),
            (Encryption::AesCcm16, 24) => keyed::<Ccm<Aes192, U16, U11>>(key),
            (Encryption::AesCcm16, 32) => keyed::<Ccm<Aes256, U16, U11>>(key),
            _ => Err(KeyError::Suite),
        }?;
        Ok(Self { key, salt, salt_len: row.salt() as u8, icv: row.icv })
    }

    pub(super) fn seal(&self, packet: &mut [u8], spi: Spi, seq: u64, esn: bool, iv: u64) -> Option<()> {
        let (header, rest) = packet.split_first_chunk_mut::<HEADER>()?;
        *header = header_value(spi, seq, iv).to_be_bytes();
        let (body, icv) = rest.split_at_mut_checked(rest.len().checked_sub(usize::from(self.icv))?)?;
        let nonce = self.nonce(iv.to_be_bytes());
        let nonce = nonce.get(..usize::from(self.salt_len).checked_add(8)?)?;
        if esn {
            self.key.seal(nonce, &extended_aad(spi.0, seq), body, icv)
        } else {
            self.key.seal(nonce, &short_aad(header), body, icv)
        }
    }

    pub(super) fn open(&self, packet: &mut [u8], high: Option<u32>) -> Option<()> {
        let (header, rest) = packet.split_first_chunk_mut::<HEADER>()?;
        let (body, icv) = rest.split_at_mut_checked(rest.len().checked_sub(usize::from(self.icv))?)?;
        let &mut [s0, s1, s2, s3, n0, n1, n2, n3, ref iv @ ..] = header;
        let nonce = self.nonce(*iv);
        let nonce = nonce.get(..usize::from(self.salt_len).checked_add(8)?)?;
        let opened = match high {
            None => self.key.open(nonce, &short_aad(header), body, icv),
            Some(high) => {
                let seq = u64::from(high) << 32 | u64::from(u32::from_be_bytes([n0, n1, n2, n3]));
                self.key.open(nonce, &extended_aad(u32::from_be_bytes([s0, s1, s2, s3]), seq), body, icv)
            }
        };
        if opened.is_none() {
            body.fill(0);
        }
        opened
    }

    /// Encrypts `body` where it stands, with the additional data given, into `icv`, whose length is the algorithm's.
    pub(super) fn seal_message(
        &self,
        iv: [u8; 8],
        aad: &[u8],
        body: &mut [u8],
        icv: &mut [u8],
    ) -> Option<()> {
        let nonce = self.nonce(iv);
        self.key.seal(nonce.get(..usize::from(self.salt_len).checked_add(8)?)?, aad, body, icv)
    }

    /// Decrypts `body` where it stands, or wipes it.
    pub(super) fn open_message(&self, iv: [u8; 8], aad: &[u8], body: &mut [u8], icv: &[u8]) -> Option<()> {
        let nonce = self.nonce(iv);
        let opened = self.key.open(nonce.get(..usize::from(self.salt_len).checked_add(8)?)?, aad, body, icv);
        if opened.is_none() {
            body.fill(0);
        }
        opened
    }

    /// Salt and IV; the last octet is spare when the salt has three.
    fn nonce(&self, iv: [u8; 8]) -> [u8; 12] {
        let mut nonce = [0; 12];
        let salt = self.salt.iter().take(usize::from(self.salt_len));
        nonce.iter_mut().zip(salt.chain(&iv)).for_each(|(to, from)| *to = *from);
        nonce
    }
}
