//! A cipher without integrity beside a MAC, encrypt-then-MAC (RFC 4303 §3.3.2.1, §3.4.4.1).
//!
//! CBC IVs are the sequence number encrypted under a key of their own: unpredictable to whoever chooses plaintexts
//! (RFC 3602 §3) and, being a permutation of numbers used once, never repeated. The MAC is verified before a single
//! octet is decrypted; there is nothing for a padding oracle to see. IVs of counter mode are the sequence number XOR a start
//! of that SA's own: each is used once (RFC 3686 §2.1).

use super::counter::Counter;
use super::mac::{self, MAX_ICV, Mac};
use super::{ESP_HEADER, KeyError};
use crate::Spi;
use crate::algorithm::{Auth, Encryption};
use aws_lc_rs::cipher::{
    self, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::iv::FixedLength;
use cbc::cipher::{Block, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use des::TdesEde3;

pub(super) struct Composed {
    cipher: Cipher,
    mac: Mac,
}

enum Cipher {
    Null,
    AesCbc(Box<AesCbc>),
    TripleDes(Box<TripleDes>),
    AesCtr(Box<AesCtr>),
}

struct AesCtr {
    key: Counter,
    start: u64,
}

struct TripleDes {
    key: TdesEde3,
    iv: EncryptingKey,
}

struct AesCbc {
    encrypt: EncryptingKey,
    decrypt: DecryptingKey,
    iv: EncryptingKey,
}

impl Composed {
    pub(super) fn new(
        encryption: Encryption,
        encryption_key: &[u8],
        auth: Auth,
        auth_key: &[u8],
        iv_key: &[u8; 16],
    ) -> Result<Self, KeyError> {
        Ok(Self { cipher: Cipher::new(encryption, encryption_key, iv_key)?, mac: Mac::new(auth, auth_key)? })
    }

    #[inline]
    pub(super) fn seal(&self, packet: &mut [u8], spi: Spi, seq: u64, esn: bool) -> Option<()> {
        self.seal_with_iv(packet, spi, seq, esn, self.cipher.iv(seq)?)
    }

    #[inline]
    pub(super) fn seal_with_iv(
        &self,
        packet: &mut [u8],
        spi: Spi,
        seq: u64,
        esn: bool,
        iv: [u8; 16],
    ) -> Option<()> {
        let (header, rest) = packet.split_first_chunk_mut::<ESP_HEADER>()?;
        *header = (u64::from(spi.0) << 32 | u64::from(seq as u32)).to_be_bytes();
        let covered = rest.len().checked_sub(self.mac.icv_len())?;
        let (text, _) = rest.split_at_mut_checked(covered)?;
        self.cipher.encrypt(text, iv)?;
        let high = esn.then_some((seq >> 32) as u32);
        let full = self.authenticate(packet, high)?;
        let covered = packet.len().checked_sub(self.mac.icv_len())?;
        packet.get_mut(covered..)?.copy_from_slice(full.get(..self.mac.icv_len())?);
        Some(())
    }

    #[inline]
    pub(super) fn open(&self, packet: &mut [u8], high: Option<u32>) -> Option<()> {
        let covered = packet.len().checked_sub(self.mac.icv_len())?;
        let text_len = covered.checked_sub(ESP_HEADER)?;
        if !self.cipher.fits(text_len) {
            return None;
        }
        let mut received = [0; MAX_ICV];
        let received = received.get_mut(..self.mac.icv_len())?;
        received.copy_from_slice(packet.get(covered..)?);
        let full = self.authenticate(packet, high);
        // The place of the ICV served as scratch; give the packet back as it came.
        packet.get_mut(covered..)?.copy_from_slice(received);
        verify_slices_are_equal(full?.get(..self.mac.icv_len())?, received).ok()?;
        let text = packet.get_mut(ESP_HEADER..covered)?;
        self.cipher.decrypt(text)
    }

    /// The MAC over header, IV and ciphertext, and over the high half that is never sent (RFC 4303 §2.2.1).
    ///
    /// For the time of the computation that half stands where the ICV belongs, so that one pass covers everything.
    #[inline]
    fn authenticate(&self, packet: &mut [u8], high: Option<u32>) -> Option<[u8; mac::MAX_FULL]> {
        let mut covered = packet.len().checked_sub(self.mac.icv_len())?;
        if let Some(high) = high {
            let (_, icv) = packet.split_at_mut_checked(covered)?;
            *icv.first_chunk_mut::<4>()? = high.to_be_bytes();
            covered = covered.checked_add(4)?;
        }
        self.mac.compute(packet.get(..covered)?)
    }
}

impl Cipher {
    fn new(encryption: Encryption, key: &[u8], iv_key: &[u8; 16]) -> Result<Self, KeyError> {
        let aes = |key: &[u8]| {
            let algorithm = match key.len() {
                16 => &cipher::AES_128,
                24 => &cipher::AES_192,
                32 => &cipher::AES_256,
                _ => return Err(KeyError::EncryptionKey),
            };
            UnboundCipherKey::new(algorithm, key).map_err(|_| KeyError::EncryptionKey)
        };
        let iv = || EncryptingKey::ecb(aes(iv_key)?).map_err(|_| KeyError::EncryptionKey);
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest are combined modes")]
        match encryption {
            Encryption::Null => Ok(Self::Null),
            Encryption::AesCbc => Ok(Self::AesCbc(Box::new(AesCbc {
                encrypt: EncryptingKey::cbc(aes(key)?).map_err(|_| KeyError::EncryptionKey)?,
                decrypt: DecryptingKey::cbc(aes(key)?).map_err(|_| KeyError::EncryptionKey)?,
                iv: iv()?,
            }))),
            Encryption::TripleDesCbc => Ok(Self::TripleDes(Box::new(TripleDes {
                key: TdesEde3::new_from_slice(key).map_err(|_| KeyError::EncryptionKey)?,
                iv: iv()?,
            }))),
            Encryption::AesCtr => Ok(Self::AesCtr(Box::new(AesCtr {
                key: Counter::new(key)?,
                start: iv_key.first_chunk().map_or(0, |half| u64::from_be_bytes(*half)),
            }))),
            _ => Err(KeyError::Suite),
        }
    }

    /// Says whether IV and ciphertext may be this long together: at least one whole block of text.
    const fn fits(&self, len: usize) -> bool {
        match self {
            Self::Null => true,
            Self::AesCbc(_) => len >= 32 && len.is_multiple_of(16),
            Self::TripleDes(_) => len >= 16 && len.is_multiple_of(8),
            Self::AesCtr(_) => len >= 12 && len.is_multiple_of(4),
        }
    }

    /// The IV for a sequence number. A cipher with blocks of 8 octets uses half of it: as unpredictable as the whole.
    #[inline]
    fn iv(&self, seq: u64) -> Option<[u8; 16]> {
        let key = match self {
            Self::Null => return Some([0; 16]),
            Self::AesCbc(keys) => &keys.iv,
            Self::TripleDes(keys) => &keys.iv,
            Self::AesCtr(key) => return Some((u128::from(key.start ^ seq) << 64).to_be_bytes()),
        };
        let mut iv = u128::from(seq).to_be_bytes();
        key.encrypt(&mut iv).ok()?;
        Some(iv)
    }

    /// Encrypts `text`, whose first octets are the place of the IV.
    #[inline]
    fn encrypt(&self, text: &mut [u8], iv: [u8; 16]) -> Option<()> {
        if !self.fits(text.len()) {
            return None;
        }
        match self {
            Self::Null => Some(()),
            Self::AesCbc(keys) => {
                let (place, body) = text.split_first_chunk_mut::<16>()?;
                *place = iv;
                let context = EncryptionContext::Iv128(FixedLength::from(iv));
                keys.encrypt.less_safe_encrypt(body, context).ok()?;
                Some(())
            }
            Self::TripleDes(keys) => {
                let (place, body) = text.split_first_chunk_mut::<8>()?;
                *place = *iv.first_chunk::<8>()?;
                let (blocks, _) = Block::<TdesEde3>::slice_as_chunks_mut(body);
                cbc::Encryptor::inner_iv_init(&keys.key, &(*place).into()).encrypt_blocks(blocks);
                Some(())
            }
            Self::AesCtr(key) => {
                let (place, body) = text.split_first_chunk_mut::<8>()?;
                *place = *iv.first_chunk::<8>()?;
                key.key.apply(*place, body)
            }
        }
    }

    /// Decrypts what follows the IV at the beginning of `text`.
    #[inline]
    fn decrypt(&self, text: &mut [u8]) -> Option<()> {
        match self {
            Self::Null => Some(()),
            Self::AesCbc(keys) => {
                let (iv, body) = text.split_first_chunk_mut::<16>()?;
                let context = DecryptionContext::Iv128(FixedLength::from(*iv));
                keys.decrypt.decrypt(body, context).ok()?;
                Some(())
            }
            Self::TripleDes(keys) => {
                let (iv, body) = text.split_first_chunk_mut::<8>()?;
                let (blocks, _) = Block::<TdesEde3>::slice_as_chunks_mut(body);
                cbc::Decryptor::inner_iv_init(&keys.key, &(*iv).into()).decrypt_blocks(blocks);
                Some(())
            }
            Self::AesCtr(key) => {
                let (iv, body) = text.split_first_chunk_mut::<8>()?;
                key.key.apply(*iv, body)
            }
        }
    }
}
