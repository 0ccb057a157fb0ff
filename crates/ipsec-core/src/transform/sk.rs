//! The protection of IKE messages, the SK and SKF payloads (RFC 7296 §3.14, RFC 5282, RFC 7383 §2.5).
//!
//! A message is `header … SK header | IV | ciphertext | ICV`. Combined-mode ciphers authenticate everything before the
//! IV as additional data; the others are followed by a MAC over everything before the ICV. What is encrypted is the
//! payloads, padding, and one octet that says how long the padding is.

use super::KeyError;
use super::aead::Salted;
use super::counter::Counter;
use super::mac::Mac;
use super::soft::SoftAead;
use crate::algorithm::{Auth, Encryption};
use aes::{Aes128, Aes192, Aes256};
use aws_lc_rs::aead;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use cbc::cipher::common::BlockSizeUser;
use cbc::cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit,
};
use des::TdesEde3;

/// The keyed algorithms of one direction of an IKE SA.
pub struct SkCipher {
    iv: u8,
    block: u8,
    icv: u8,
    scheme: Scheme,
}

enum Scheme {
    Aead(Box<Salted>),
    Soft(Box<SoftAead>),
    Cbc(Box<dyn Cbc>, Box<Mac>),
    Counter(Box<Counter>, Box<Mac>),
}

/// A block cipher in CBC mode, whatever its block and key.
trait Cbc: Send + Sync {
    fn encrypt(&self, iv: &[u8], body: &mut [u8]) -> Option<()>;
    fn decrypt(&self, iv: &[u8], body: &mut [u8]) -> Option<()>;
}

struct Blocks<C>(C);

impl<C> Cbc for Blocks<C>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser + Send + Sync,
{
    fn encrypt(&self, iv: &[u8], body: &mut [u8]) -> Option<()> {
        let mut mode = cbc::Encryptor::<&C>::inner_iv_init(&self.0, iv.try_into().ok()?);
        let (blocks, rest) = Block::<C>::slice_as_chunks_mut(body);
        mode.encrypt_blocks(blocks);
        rest.is_empty().then_some(())
    }

    fn decrypt(&self, iv: &[u8], body: &mut [u8]) -> Option<()> {
        let mut mode = cbc::Decryptor::<&C>::inner_iv_init(&self.0, iv.try_into().ok()?);
        let (blocks, rest) = Block::<C>::slice_as_chunks_mut(body);
        mode.decrypt_blocks(blocks);
        rest.is_empty().then_some(())
    }
}

fn blocks<C>(key: &[u8]) -> Result<Box<dyn Cbc>, KeyError>
where
    C: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + Send + Sync + 'static,
{
    Ok(Box::new(Blocks(C::new_from_slice(key).map_err(|_| KeyError::EncryptionKey)?)))
}

impl core::fmt::Debug for SkCipher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SkCipher")
    }
}

impl SkCipher {
    /// Keys the algorithms of one direction. `encryption_key` carries its salt last where the cipher has one; `auth` is
    /// absent beside a combined-mode cipher and must not be absent beside another.
    ///
    /// # Errors
    /// Algorithms that do not go together or are none of IKE's, and keys of the wrong length.
    pub fn new(
        encryption: Encryption,
        encryption_key: &[u8],
        auth: Option<(Auth, &[u8])>,
    ) -> Result<Self, KeyError> {
        let row = encryption.row();
        if !row.has_keymat(encryption_key.len()) {
            return Err(KeyError::EncryptionKey);
        }
        let scheme = match (encryption, auth) {
            (Encryption::AesGcm16, None) => Scheme::Aead(Box::new(Salted::aes_gcm(encryption_key)?)),
            (Encryption::ChaCha20Poly1305, None) => {
                Scheme::Aead(Box::new(Salted::new(&aead::CHACHA20_POLY1305, encryption_key)?))
            }
            (
                Encryption::AesGcm8
                | Encryption::AesGcm12
                | Encryption::AesCcm8
                | Encryption::AesCcm12
                | Encryption::AesCcm16,
                None,
            ) => Scheme::Soft(Box::new(SoftAead::new(encryption, encryption_key)?)),
            // GMAC wants an IV of its own, for which the SK payload has no place.
            (_, Some((Auth::AesGmac, _))) => return Err(KeyError::Suite),
            (Encryption::AesCbc | Encryption::TripleDesCbc, Some((auth, key))) => {
                let cipher = match (encryption, encryption_key.len()) {
                    (Encryption::AesCbc, 16) => blocks::<Aes128>(encryption_key),
                    (Encryption::AesCbc, 24) => blocks::<Aes192>(encryption_key),
                    (Encryption::AesCbc, _) => blocks::<Aes256>(encryption_key),
                    _ => blocks::<TdesEde3>(encryption_key),
                }?;
                Scheme::Cbc(cipher, Box::new(Mac::new(auth, key)?))
            }
            (Encryption::AesCtr, Some((auth, key))) => {
                Scheme::Counter(Box::new(Counter::new(encryption_key)?), Box::new(Mac::new(auth, key)?))
            }
            _ => return Err(KeyError::Suite),
        };
        let icv = match &scheme {
            Scheme::Aead(_) | Scheme::Soft(_) => row.icv,
            Scheme::Cbc(_, mac) | Scheme::Counter(_, mac) => {
                u8::try_from(mac.icv_len()).map_err(|_| KeyError::AuthKey)?
            }
        };
        Ok(Self { iv: row.iv, block: row.block, icv, scheme })
    }

    /// Octets of IV.
    pub const fn iv_len(&self) -> usize {
        self.iv as usize
    }

    /// Octets of ICV.
    pub const fn icv_len(&self) -> usize {
        self.icv as usize
    }

    /// Payloads, padding and the padding's length fill a multiple of this; 1 for ciphers that need no padding.
    pub const fn block(&self) -> usize {
        self.block as usize
    }

    /// Says whether the IV must be unpredictable (CBC, RFC 7296 §3.14) or only unique (counters, RFC 5282 §3.1).
    pub const fn iv_is_random(&self) -> bool {
        matches!(self.scheme, Scheme::Cbc(..))
    }

    /// Encrypts `message` from `body` on, where an IV of ours stands first, and fills the ICV at its end.
    ///
    /// `message` is the whole message, its lengths already those it is sent with. `None`, and nothing encrypted that
    /// could be sent, if the lengths are not the cipher's.
    #[must_use]
    pub fn seal(&self, message: &mut [u8], body: usize) -> Option<()> {
        let end = message.len().checked_sub(self.icv_len())?;
        let (covered, icv) = message.split_at_mut_checked(end)?;
        let (aad, rest) = covered.split_at_mut_checked(body)?;
        let (iv, text) = rest.split_at_mut_checked(self.iv_len())?;
        match &self.scheme {
            Scheme::Aead(key) => {
                let tag = key.seal((&*iv).try_into().ok()?, aad, text)?;
                icv.copy_from_slice(&tag);
            }
            Scheme::Soft(key) => key.seal_message((&*iv).try_into().ok()?, aad, text, icv)?,
            Scheme::Cbc(cipher, mac) => {
                cipher.encrypt(iv, text)?;
                icv.copy_from_slice(mac.whole(covered)?.get(..usize::from(self.icv))?);
            }
            Scheme::Counter(key, mac) => {
                key.apply((&*iv).try_into().ok()?, text)?;
                icv.copy_from_slice(mac.whole(covered)?.get(..usize::from(self.icv))?);
            }
        }
        Some(())
    }

    /// Verifies `message` and decrypts it where it stands; what was encrypted, its padding gone, is what is returned.
    ///
    /// `None` if anything is not as it must be: which, nobody is told.
    #[must_use]
    pub fn open<'m>(&self, message: &'m mut [u8], body: usize) -> Option<&'m [u8]> {
        let end = message.len().checked_sub(self.icv_len())?;
        let (covered, icv) = message.split_at_mut_checked(end)?;
        if let Scheme::Cbc(_, mac) | Scheme::Counter(_, mac) = &self.scheme {
            // The MAC first: there is nothing for a padding oracle to see.
            let expected = mac.whole(covered)?;
            verify_slices_are_equal(expected.get(..usize::from(self.icv))?, icv).ok()?;
        }
        let (aad, rest) = covered.split_at_mut_checked(body)?;
        let (iv, text) = rest.split_at_mut_checked(self.iv_len())?;
        if text.is_empty() || !text.len().is_multiple_of(self.block()) {
            return None;
        }
        match &self.scheme {
            Scheme::Aead(key) => key.open((&*iv).try_into().ok()?, aad, text, icv)?,
            Scheme::Soft(key) => key.open_message((&*iv).try_into().ok()?, aad, text, icv)?,
            Scheme::Cbc(cipher, _) => cipher.decrypt(iv, text)?,
            Scheme::Counter(key, _) => key.apply((&*iv).try_into().ok()?, text)?,
        }
        let (padding, rest) = text.split_last()?;
        rest.get(..rest.len().checked_sub(usize::from(*padding))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every suite an IKE SA can have.
    fn ciphers() -> Vec<SkCipher> {
        let mut all = Vec::new();
        for row in &crate::algorithm::ENCRYPTION {
            for keymat in row.keymat_lengths() {
                let key: Vec<u8> = (0..keymat as u8).collect();
                all.extend(SkCipher::new(row.algorithm, &key, None));
                for auth in &crate::algorithm::AUTH {
                    let auth_key = vec![7; auth.keymat_lengths().next().unwrap()];
                    all.extend(SkCipher::new(row.algorithm, &key, Some((auth.algorithm, &auth_key))));
                }
            }
        }
        all
    }

    fn message(cipher: &SkCipher, payload: &[u8]) -> (Vec<u8>, usize) {
        let body = 32;
        let mut message = vec![0x55; body];
        message.extend(vec![9; cipher.iv_len()]);
        message.extend_from_slice(payload);
        let padding = (cipher.block() - (payload.len() + 1) % cipher.block()) % cipher.block();
        message.extend(vec![0; padding]);
        message.push(padding as u8);
        message.extend(vec![0; cipher.icv_len()]);
        (message, body)
    }

    #[test]
    fn what_is_sealed_opens_and_no_flipped_bit_does() {
        let ciphers = ciphers();
        // GCM and CCM of three lengths with three keys, ChaCha20; CBC and CTR with three keys and 3DES with seven MACs.
        assert_eq!(ciphers.len(), 3 * 6 + 1 + 7 * 7);
        for cipher in ciphers {
            for length in [0, 1, 15, 16, 100] {
                let payload: Vec<u8> = (0..length).collect();
                let (mut sealed, body) = message(&cipher, &payload);
                cipher.seal(&mut sealed, body).unwrap();
                assert_eq!(cipher.open(&mut sealed.clone(), body).unwrap(), payload);
                for octet in 0..sealed.len() {
                    let mut forged = sealed.clone();
                    forged[octet] ^= 1 << (octet % 8);
                    assert!(cipher.open(&mut forged, body).is_none(), "{octet}");
                }
                for end in 0..sealed.len() {
                    assert!(cipher.open(&mut sealed[..end].to_vec(), body).is_none());
                }
            }
        }
    }

    #[test]
    fn padding_longer_than_what_there_is_does_not_open() {
        let cipher = SkCipher::new(Encryption::AesGcm16, &[1; 20], None).unwrap();
        let (mut sealed, body) = message(&cipher, b"x");
        let padding = sealed.len() - 17;
        sealed[padding] = 2;
        cipher.seal(&mut sealed, body).unwrap();
        assert!(cipher.open(&mut sealed, body).is_none());
    }

    #[test]
    fn a_cipher_without_integrity_is_refused_and_so_is_integrity_twice() {
        assert!(SkCipher::new(Encryption::AesCbc, &[1; 16], None).is_err());
        assert!(SkCipher::new(Encryption::AesGcm16, &[1; 20], Some((Auth::HmacSha256, &[1; 32]))).is_err());
        assert!(SkCipher::new(Encryption::Null, &[], Some((Auth::HmacSha256, &[1; 32]))).is_err());
        assert!(SkCipher::new(Encryption::AesCbc, &[1; 16], Some((Auth::AesGmac, &[1; 20]))).is_err());
    }
}
