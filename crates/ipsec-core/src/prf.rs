//! Pseudorandom functions of IKE: the negotiated PRF and prf+ (RFC 7296 §2.13).

use crate::Secret;
use crate::algorithm::Auth;
use crate::transform::Mac;
use aws_lc_rs::hmac;

/// A pseudorandom function, in the order of its transform numbers (IANA, Transform Type 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prf {
    /// HMAC-SHA-1 (RFC 2104), number 2; legacy.
    HmacSha1,
    /// AES-XCBC-PRF-128 (RFC 4434), number 4.
    AesXcbc,
    /// HMAC-SHA-256 (RFC 4868), number 5.
    HmacSha256,
    /// HMAC-SHA-384 (RFC 4868), number 6.
    HmacSha384,
    /// HMAC-SHA-512 (RFC 4868), number 7.
    HmacSha512,
    /// AES-CMAC-PRF-128 (RFC 4615), number 8.
    AesCmac,
}

impl Prf {
    /// Every PRF there is.
    pub const ALL: [Self; 6] =
        [Self::HmacSha1, Self::AesXcbc, Self::HmacSha256, Self::HmacSha384, Self::HmacSha512, Self::AesCmac];

    /// Its transform number (IANA, Transform Type 2).
    pub const fn number(self) -> u16 {
        match self {
            Self::HmacSha1 => 2,
            Self::AesXcbc => 4,
            Self::HmacSha256 => 5,
            Self::HmacSha384 => 6,
            Self::HmacSha512 => 7,
            Self::AesCmac => 8,
        }
    }

    /// The PRF with this transform number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|prf| prf.number() == number)
    }

    /// Its names as people write them, the canonical one first.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Self::HmacSha1 => &["prfsha1", "sha1", "sha"],
            Self::AesXcbc => &["prfaesxcbc", "aesxcbc", "aes_xcbc"],
            Self::HmacSha256 => &["prfsha256", "sha2_256", "sha256", "sha2"],
            Self::HmacSha384 => &["prfsha384", "sha2_384", "sha384"],
            Self::HmacSha512 => &["prfsha512", "sha2_512", "sha512"],
            Self::AesCmac => &["prfaescmac", "aescmac", "aes_cmac"],
        }
    }

    /// Octets of output, which is also the preferred length of a key (RFC 7296 §2.14).
    pub const fn octets(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::AesXcbc | Self::AesCmac => 16,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// Octets that each nonce gives to the key of SKEYSEED, if the key has one length only: half of it from each
    /// (RFC 7296 §2.14). `None` for a PRF that takes keys of any length.
    pub const fn nonce_part(self) -> Option<usize> {
        match self {
            Self::AesXcbc | Self::AesCmac => Some(8),
            Self::HmacSha1 | Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 => None,
        }
    }

    /// prf(key, data), where `data` is the pieces one after the other.
    pub fn compute(self, key: &[u8], data: &[&[u8]]) -> Secret {
        let hmac = |algorithm| {
            let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
            data.iter().for_each(|piece| context.update(piece));
            Secret::from(context.sign().as_ref())
        };
        match self {
            Self::HmacSha1 => hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Self::HmacSha256 => hmac(hmac::HMAC_SHA256),
            Self::HmacSha384 => hmac(hmac::HMAC_SHA384),
            Self::HmacSha512 => hmac(hmac::HMAC_SHA512),
            Self::AesXcbc => aes(Auth::AesXcbc, key, data),
            Self::AesCmac => aes(Auth::AesCmac, key, data),
        }
    }

    /// prf+(key, seed), the first `octets` of it (RFC 7296 §2.13).
    ///
    /// prf+ ends after 255 blocks; what is asked of it here never comes near, and more would be zeros, not secrets that
    /// repeat.
    pub fn plus(self, key: &[u8], seed: &[&[u8]], octets: usize) -> Secret {
        let mut stream = Vec::with_capacity(octets.saturating_add(self.octets()));
        let mut last = Secret::default();
        for count in 1..=u8::MAX {
            if stream.len() >= octets {
                break;
            }
            let counter = [count];
            let mut data: Vec<&[u8]> = Vec::with_capacity(seed.len().saturating_add(2));
            data.push(&last);
            data.extend_from_slice(seed);
            data.push(&counter);
            last = self.compute(key, &data);
            stream.extend_from_slice(&last);
        }
        let stream = Secret::from(stream);
        stream.part(0, octets)
    }
}

impl core::fmt::Display for Prf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.names().first().copied().unwrap_or(""))
    }
}

/// A block-cipher PRF. A key of another length than 16 octets is brought to it as RFC 4434 §2 and RFC 4615 §3 say:
/// padded with zeros if it is shorter, put through the PRF under a key of zeros if it is longer. For AES-CMAC any
/// length but 16 is put through.
fn aes(auth: Auth, key: &[u8], data: &[&[u8]]) -> Secret {
    let message = Secret::from(data.concat());
    let sixteen = match (key.len(), auth) {
        (16, _) => Secret::from(key),
        (0..16, Auth::AesXcbc) => {
            let mut padded = Secret::zeros(16);
            padded.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
            padded
        }
        _ => mac(auth, &[0; 16], key),
    };
    mac(auth, &sixteen, &message)
}

/// The whole MAC of one message; nothing only if the key has not 16 octets, which it has.
fn mac(auth: Auth, key: &[u8], message: &[u8]) -> Secret {
    let whole = Mac::new(auth, key).ok().and_then(|mac| mac.whole(message));
    whole.map_or_else(Secret::default, |whole| whole.part(0, 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    /// RFC 4231 §4.2 to §4.4 for HMAC-SHA-2, RFC 2202 §3 for HMAC-SHA-1.
    #[test]
    fn the_vectors_of_the_hmacs_hold() {
        let key = [0x0b; 20];
        let says = |prf: Prf| hex::encode(&*prf.compute(&key, &[b"Hi", b" There"]));
        assert_eq!(says(Prf::HmacSha1), "b617318655057264e28bc0b6fb378c8ef146be00");
        assert_eq!(says(Prf::HmacSha256), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        assert!(
            says(Prf::HmacSha384)
                .starts_with("afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c")
        );
        assert!(
            says(Prf::HmacSha512)
                .starts_with("87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde")
        );
    }

    /// RFC 4434 §4.
    #[test]
    fn the_vectors_of_xcbc_hold() {
        let message = octets("000102030405060708090a0b0c0d0e0f10111213");
        for (key, out) in [
            ("000102030405060708090a0b0c0d0e0f", "47f51b4564966215b8985c63055ed308"),
            ("00010203040506070809", "0fa087af7d866e7653434e602fdde835"),
            ("000102030405060708090a0b0c0d0e0fedcb", "8cd3c93ae598a9803006ffb67c40e9e4"),
        ] {
            assert_eq!(hex::encode(&*Prf::AesXcbc.compute(&octets(key), &[&message])), out, "{key}");
        }
    }

    /// RFC 4615 §4.
    #[test]
    fn the_vectors_of_cmac_hold() {
        let message = octets("000102030405060708090a0b0c0d0e0f10111213");
        for (key, out) in [
            ("000102030405060708090a0b0c0d0e0fedcb", "84a348a4a45d235babfffc0d2b4da09a"),
            ("000102030405060708090a0b0c0d0e0f", "980ae87b5f4c9c5214f5b6a8455e4c2d"),
            ("00010203040506070809", "290d9e112edb09ee141fcf64c0b72f3d"),
        ] {
            assert_eq!(hex::encode(&*Prf::AesCmac.compute(&octets(key), &[&message])), out, "{key}");
        }
    }

    /// NIST CAVP, IKEv2 key derivation with SHA-1. The whole key schedule with every digest, a rekey SKEYSEED included, is
    /// compared where it is made (`crates/ike/tests/schedule.rs`).
    #[test]
    fn the_cavp_case_of_skeyseed_holds() {
        let nonces = [octets("32b50d5f4a3763f3"), octets("9206a04b26564cb1")].concat();
        let shared = octets("4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52");
        let skeyseed = Prf::HmacSha1.compute(&nonces, &[&shared]);
        assert_eq!(hex::encode(&*skeyseed), "a9a7b222b59f8f48645f28a1db5b5f5d7479cba7");
        let (i, r) = (octets("34c9e7c188868785"), octets("3ff77d760d2b2199"));
        let keys = Prf::HmacSha1.plus(&skeyseed, &[&nonces, &i, &r], 132);
        assert_eq!(keys.len(), 132);
        assert!(hex::encode(&*keys).starts_with("a14293677cc80ff8f9cc0eee30d895da"));
        assert!(hex::encode(&*keys).ends_with("7a56cc4"));
    }

    #[test]
    fn prf_plus_is_one_stream_whatever_is_asked_of_it() {
        let long = Prf::HmacSha256.plus(b"key", &[b"se", b"ed"], 300);
        for octets in [0, 1, 31, 32, 33, 299] {
            assert_eq!(Prf::HmacSha256.plus(b"key", &[b"seed"], octets), long.part(0, octets));
        }
    }
}
