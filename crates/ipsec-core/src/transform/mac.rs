//! The integrity algorithms: keyed once, computing over one piece of memory, truncated by whoever asks.

use super::KeyError;
use crate::algorithm::Auth;
use aws_lc_rs::hmac;

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
    Hmac(hmac::Key),
}

impl core::fmt::Debug for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Mac")
    }
}

impl Mac {
    /// Keys an integrity algorithm.
    pub fn new(auth: Auth, key: &[u8]) -> Result<Self, KeyError> {
        let row = auth.row();
        if !row.has_keymat(key.len()) {
            return Err(KeyError::AuthKey);
        }
        let hmac = |algorithm| Keyed::Hmac(hmac::Key::new(algorithm, key));
        let keyed = match auth {
            Auth::HmacSha1 => hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Auth::HmacSha256 => hmac(hmac::HMAC_SHA256),
            Auth::HmacSha384 => hmac(hmac::HMAC_SHA384),
            Auth::HmacSha512 => hmac(hmac::HMAC_SHA512),
            Auth::HmacMd5 | Auth::AesXcbc | Auth::AesCmac | Auth::AesGmac => return Err(KeyError::Suite),
        };
        Ok(Self { icv: row.icv, keyed })
    }

    /// Octets of ICV on the wire.
    pub const fn icv_len(&self) -> usize {
        self.icv as usize
    }

    /// The whole MAC of `message`; the first [`Mac::icv_len`] octets are the ICV.
    #[inline]
    pub(super) fn compute(&self, message: &[u8]) -> Option<[u8; MAX_FULL]> {
        let mut full = [0; MAX_FULL];
        match &self.keyed {
            Keyed::Hmac(key) => {
                hmac::sign_to_buffer(key, message, &mut full).ok()?;
            }
        }
        Some(full)
    }
}
