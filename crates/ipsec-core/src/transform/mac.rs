//! The integrity algorithms: keyed once, shared, computing over one piece of memory without allocating.
//!
//! ESP uses them through [`super::Transform`]; AH (RFC 4302) uses [`Mac`] itself, over a copy of the packet with its
//! mutable fields cleared.

use super::KeyError;
use super::gmac::Gmac;
use crate::algorithm::Auth;
use ::hmac::Hmac;
use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use cmac::Cmac;
use cmac::digest::Mac as _;
use md5::Md5;
use zeroize::Zeroizing;

/// The longest MAC before truncation (SHA-512).
pub(super) const MAX_FULL: usize = 64;
/// The longest ICV on the wire (HMAC-SHA-512-256).
pub(super) const MAX_ICV: usize = 32;

/// A keyed integrity algorithm.
pub struct Mac {
    icv: u8,
    keyed: Keyed,
}

enum Keyed {
    Hmac(Box<hmac::Key>),
    Md5(Box<Hmac<Md5>>),
    Xcbc(Box<Xcbc>),
    Cmac(Box<Cmac<Aes128>>),
    Gmac(Box<Gmac>),
}

impl core::fmt::Debug for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Mac")
    }
}

impl Mac {
    /// Keys an integrity algorithm; the salt is last where it has one.
    pub fn new(auth: Auth, key: &[u8]) -> Result<Self, KeyError> {
        let row = auth.row();
        if !row.has_keymat(key.len()) {
            return Err(KeyError::AuthKey);
        }
        let hmac = |algorithm| Keyed::Hmac(Box::new(hmac::Key::new(algorithm, key)));
        let keyed = match auth {
            Auth::HmacSha1 => hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Auth::HmacSha256 => hmac(hmac::HMAC_SHA256),
            Auth::HmacSha384 => hmac(hmac::HMAC_SHA384),
            Auth::HmacSha512 => hmac(hmac::HMAC_SHA512),
            Auth::HmacMd5 => {
                Keyed::Md5(Box::new(KeyInit::new_from_slice(key).map_err(|_| KeyError::AuthKey)?))
            }
            Auth::AesXcbc => Keyed::Xcbc(Box::new(Xcbc::new(key)?)),
            Auth::AesCmac => {
                Keyed::Cmac(Box::new(KeyInit::new_from_slice(key).map_err(|_| KeyError::AuthKey)?))
            }
            Auth::AesGmac => Keyed::Gmac(Box::new(Gmac::new(key)?)),
        };
        Ok(Self { icv: row.icv.saturating_add(row.iv), keyed })
    }

    /// Octets in the ICV field of AH; for GMAC that is the IV and the ICV (RFC 4543 §4). The header as a whole may need
    /// padding after them (RFC 4302 §2.6).
    pub const fn icv_len(&self) -> usize {
        self.icv as usize
    }

    /// Fills the ICV field of AH, `icv_len` octets long, for the packet that has the sequence number `seq`.
    ///
    /// `message` is everything that is authenticated, the ICV field itself cleared and the high half of an extended
    /// sequence number at the end (RFC 4302 §3.3.3). GMAC takes `seq` as its IV: never sign two packets with one number.
    /// `false` if `icv` has another length.
    #[must_use]
    pub fn sign(&self, seq: u64, message: &[u8], icv: &mut [u8]) -> bool {
        if let Keyed::Gmac(gmac) = &self.keyed {
            let Some(field) = gmac.sign(message, seq).filter(|field| field.len() == icv.len()) else {
                return false;
            };
            icv.copy_from_slice(&field);
            return true;
        }
        if icv.len() != self.icv_len() {
            return false;
        }
        let Some(full) = self.compute(message) else { return false };
        icv.iter_mut().zip(full).for_each(|(to, from)| *to = from);
        true
    }

    /// Says whether the ICV field of a received AH is right for `message`, in constant time.
    #[must_use]
    pub fn verify(&self, message: &[u8], icv: &[u8]) -> bool {
        let mut expected = [0; MAX_ICV];
        let Some(expected) = expected.get_mut(..self.icv_len()) else { return false };
        // Only GMAC reads the number here: its IV, which the packet itself carries.
        let iv = icv.first_chunk().map_or(0, |iv| u64::from_be_bytes(*iv));
        self.sign(iv, message, expected) && verify_slices_are_equal(expected, icv).is_ok()
    }

    /// The whole MAC of `message` before truncation, for a PRF; `None` for GMAC, which needs an IV.
    pub fn whole(&self, message: &[u8]) -> Option<crate::Secret> {
        self.compute(message).map(|full| crate::Secret::from(full.as_slice()))
    }

    /// The whole MAC of `message`; the first [`Mac::icv_len`] octets are the ICV. Not for GMAC, which needs an IV.
    #[inline]
    pub(super) fn compute(&self, message: &[u8]) -> Option<[u8; MAX_FULL]> {
        let mut full = [0; MAX_FULL];
        match &self.keyed {
            Keyed::Hmac(key) => {
                hmac::sign_to_buffer(key, message, &mut full).ok()?;
            }
            Keyed::Md5(key) => {
                let mac = Hmac::clone(key).chain_update(message).finalize().into_bytes();
                *full.first_chunk_mut()? = mac.0;
            }
            Keyed::Cmac(key) => {
                let mac = Cmac::clone(key).chain_update(message).finalize().into_bytes();
                *full.first_chunk_mut()? = mac.0;
            }
            Keyed::Xcbc(key) => *full.first_chunk_mut()? = key.compute(message),
            Keyed::Gmac(_) => return None,
        }
        Some(full)
    }
}

/// AES-XCBC-MAC (RFC 3566 §4): CBC-MAC under a derived key, the last block masked with one of two others.
struct Xcbc {
    k1: Aes128,
    k2: Zeroizing<[u8; 16]>,
    k3: Zeroizing<[u8; 16]>,
}

impl Xcbc {
    fn new(key: &[u8]) -> Result<Self, KeyError> {
        let aes = Aes128::new_from_slice(key).map_err(|_| KeyError::AuthKey)?;
        let derive = |constant: u8| {
            let mut block = Array([constant; 16]);
            aes.encrypt_block(&mut block);
            Zeroizing::new(block.0)
        };
        let k1 = Aes128::new(&Array(*derive(1)));
        Ok(Self { k1, k2: derive(2), k3: derive(3) })
    }

    fn compute(&self, message: &[u8]) -> [u8; 16] {
        let whole = !message.is_empty() && message.len().is_multiple_of(16);
        let last_at = if whole { message.len().saturating_sub(16) } else { message.len() & !15 };
        let (blocks, rest) = message.split_at_checked(last_at).unwrap_or((message, &[]));
        let mut state = Array([0; 16]);
        for block in blocks.as_chunks::<16>().0 {
            xor(&mut state.0, block);
            self.k1.encrypt_block(&mut state);
        }
        // A short last block is padded with one bit and zeros (RFC 3566 §4, step 5b).
        let mut last = [0; 16];
        last.iter_mut().zip(rest.iter().chain(&[0x80])).for_each(|(to, from)| *to = *from);
        xor(&mut last, if whole { &self.k2 } else { &self.k3 });
        xor(&mut state.0, &last);
        self.k1.encrypt_block(&mut state);
        state.0
    }
}

fn xor(into: &mut [u8; 16], from: &[u8; 16]) {
    into.iter_mut().zip(from).for_each(|(a, b)| *a ^= b);
}
