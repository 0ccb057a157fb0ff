//! The one table of algorithms: numbers, names, key sizes, IV and ICV lengths.
//!
//! The PF_KEY numbers are those of pf_key(7P) and its later extensions (`SADB_AALG_*`, `SADB_EALG_*`); what those never
//! had (ChaCha20-Poly1305, GMAC, XCBC, CMAC) uses our own numbers, from 128 up. Everything that depends on an algorithm
//! (parsers, the SADB, REGISTER replies, tables, [`crate::transform`]) asks the rows here and nothing else.

mod weak;

pub use weak::WeakKey;

/// An encryption algorithm for ESP, combined-mode ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encryption {
    /// NULL (RFC 2410), only with an integrity algorithm.
    Null,
    /// AES-CBC (RFC 3602).
    AesCbc,
    /// AES-GCM with a 16-octet ICV (RFC 4106).
    AesGcm16,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-GCM with an 8-octet ICV (RFC 4106).
    AesGcm8,
    /// AES-GCM with a 12-octet ICV (RFC 4106).
    AesGcm12,
    /// AES-CCM with an 8-octet ICV (RFC 4309).
    AesCcm8,
    /// AES-CCM with a 12-octet ICV (RFC 4309).
    AesCcm12,
    /// AES-CCM with a 16-octet ICV (RFC 4309).
    AesCcm16,
    /// Triple DES in CBC mode (RFC 2451).
    TripleDesCbc,
    /// No encryption, AES-GMAC integrity in combined-mode clothes (`ENCR_NULL_AUTH_AES_GMAC`, RFC 4543).
    NullAesGmac,
    /// AES in counter mode (RFC 3686), only with an integrity algorithm.
    AesCtr,
}

/// An integrity algorithm for AH, or for ESP beside a cipher that has none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Auth {
    /// HMAC-SHA-1-96 (RFC 2404).
    HmacSha1,
    /// HMAC-SHA-256-128 (RFC 4868).
    HmacSha256,
    /// HMAC-SHA-384-192 (RFC 4868).
    HmacSha384,
    /// HMAC-SHA-512-256 (RFC 4868).
    HmacSha512,
    /// HMAC-MD5-96 (RFC 2403).
    HmacMd5,
    /// AES-XCBC-MAC-96 (RFC 3566).
    AesXcbc,
    /// AES-CMAC-96 (RFC 4494).
    AesCmac,
    /// AES-GMAC (RFC 4543); for AH only, ESP has [`Encryption::NullAesGmac`].
    AesGmac,
}

/// The algorithms of one SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suite {
    /// The cipher; `None` for AH.
    pub encryption: Option<Encryption>,
    /// The integrity algorithm; `None` beside a combined-mode cipher.
    pub auth: Option<Auth>,
}

/// What there is to know about one algorithm.
#[derive(Clone, Copy, Debug)]
pub struct Row<A> {
    /// The algorithm this row is about.
    pub algorithm: A,
    /// Its PF_KEY number.
    pub number: u8,
    /// Its names: the canonical one first, then what else people write.
    pub names: &'static [&'static str],
    /// The shortest key in bits, without the salt.
    pub min_bits: u16,
    /// The longest key in bits, without the salt.
    pub max_bits: u16,
    /// Every valid length is the shortest plus a multiple of this; 0 if there is one length only.
    pub step_bits: u16,
    /// Bits of salt that follow the key (RFC 4106 §8.1).
    pub salt_bits: u16,
    /// The block size in octets; 1 for stream ciphers and hashes that do not pad the payload.
    pub block: u8,
    /// Octets of IV in each packet.
    pub iv: u8,
    /// Octets of ICV in each packet; 0 for a cipher without integrity.
    pub icv: u8,
    /// Octets the algorithm itself computes before truncation, as the `alen` column counts them.
    pub full_icv: u8,
    /// What the SA table appends to `ESP` or `AH` for it.
    pub suffix: &'static str,
    /// Kept for peers that have nothing better; never proposed unless asked for.
    pub legacy: bool,
    /// Where it is specified.
    pub rfc: &'static str,
}

/// The encryption algorithms, in the order of [`Encryption`].
pub const ENCRYPTION: [Row<Encryption>; 12] = [
    Row {
        names: &["null", "none"],
        suffix: "_NULL",
        rfc: "RFC 2410",
        ..aes(Encryption::Null, 11, 0, 0).keyless()
    },
    Row {
        names: &["aes-cbc", "aes", "rijndael", "rijndael-cbc"],
        suffix: "_AES",
        rfc: "RFC 3602",
        block: 16,
        iv: 16,
        ..aes(Encryption::AesCbc, 12, 0, 0)
    },
    Row {
        names: &["aes-gcm16", "aes-gcm", "aes-gcm-16", "aes-gcm-c", "gcm"],
        suffix: "_AES_GCM16",
        rfc: "RFC 4106",
        ..aes(Encryption::AesGcm16, 20, 32, 16)
    },
    Row {
        names: &["chacha20-poly1305", "chacha20poly1305", "chacha20"],
        suffix: "_CHACHA20_POLY1305",
        rfc: "RFC 7634",
        min_bits: 256,
        step_bits: 0,
        ..aes(Encryption::ChaCha20Poly1305, 128, 32, 16)
    },
    Row {
        names: &["aes-gcm8", "aes-gcm-8", "aes-gcm-a"],
        suffix: "_AES_GCM8",
        rfc: "RFC 4106",
        ..aes(Encryption::AesGcm8, 18, 32, 8)
    },
    Row {
        names: &["aes-gcm12", "aes-gcm-12", "aes-gcm-b"],
        suffix: "_AES_GCM12",
        rfc: "RFC 4106",
        ..aes(Encryption::AesGcm12, 19, 32, 12)
    },
    Row {
        names: &["aes-ccm8", "aes-ccm-8", "aes-ccm-a"],
        suffix: "_AES_CCM8",
        rfc: "RFC 4309",
        ..aes(Encryption::AesCcm8, 14, 24, 8)
    },
    Row {
        names: &["aes-ccm12", "aes-ccm-12", "aes-ccm-b"],
        suffix: "_AES_CCM12",
        rfc: "RFC 4309",
        ..aes(Encryption::AesCcm12, 15, 24, 12)
    },
    Row {
        names: &["aes-ccm16", "aes-ccm", "aes-ccm-16", "aes-ccm-c", "ccm"],
        suffix: "_AES_CCM16",
        rfc: "RFC 4309",
        ..aes(Encryption::AesCcm16, 16, 24, 16)
    },
    Row {
        names: &["3des-cbc", "3des", "des3-cbc"],
        suffix: "_3DES",
        rfc: "RFC 2451",
        min_bits: 192,
        max_bits: 192,
        step_bits: 0,
        block: 8,
        iv: 8,
        legacy: true,
        ..aes(Encryption::TripleDesCbc, 3, 0, 0)
    },
    Row {
        names: &["null-aes-gmac", "aes-gmac", "null-auth-aes-gmac"],
        suffix: "_NULL_AES_GMAC",
        rfc: "RFC 4543",
        ..aes(Encryption::NullAesGmac, 129, 32, 16)
    },
    Row {
        names: &["aes-ctr", "ctr"],
        suffix: "_AES_CTR",
        rfc: "RFC 3686",
        ..aes(Encryption::AesCtr, 13, 32, 0)
    },
];

/// The integrity algorithms, in the order of [`Auth`].
pub const AUTH: [Row<Auth>; 8] = [
    Row {
        names: &["hmac-sha1", "hmac-sha", "sha1", "sha", "hmac-sha1-96", "sha1-96"],
        suffix: "_HMAC_SHA1",
        rfc: "RFC 2404",
        ..mac(Auth::HmacSha1, 3, 160, 12)
    },
    Row {
        names: &["hmac-sha256", "sha256", "sha-256", "sha2-256", "sha2", "hmac-sha2-256", "hmac-sha256-128"],
        suffix: "_HMAC_SHA2_256",
        rfc: "RFC 4868",
        ..mac(Auth::HmacSha256, 5, 256, 16)
    },
    Row {
        names: &["hmac-sha384", "sha384", "sha-384", "sha2-384", "hmac-sha2-384", "hmac-sha384-192"],
        suffix: "_HMAC_SHA2_384",
        rfc: "RFC 4868",
        ..mac(Auth::HmacSha384, 6, 384, 24)
    },
    Row {
        names: &["hmac-sha512", "sha512", "sha-512", "sha2-512", "hmac-sha2-512", "hmac-sha512-256"],
        suffix: "_HMAC_SHA2_512",
        rfc: "RFC 4868",
        ..mac(Auth::HmacSha512, 7, 512, 32)
    },
    Row {
        names: &["hmac-md5", "md5", "hmac-md5-96", "md5-96"],
        suffix: "_HMAC_MD5",
        rfc: "RFC 2403",
        legacy: true,
        ..mac(Auth::HmacMd5, 2, 128, 12)
    },
    Row {
        names: &["aes-xcbc", "aes-xcbc-mac", "xcbc", "aes-xcbc-96", "aes-xcbc-mac-96"],
        suffix: "_AES_XCBC",
        rfc: "RFC 3566",
        ..mac(Auth::AesXcbc, 128, 128, 12)
    },
    Row {
        names: &["aes-cmac", "cmac", "aes-cmac-96"],
        suffix: "_AES_CMAC",
        rfc: "RFC 4494",
        ..mac(Auth::AesCmac, 129, 128, 12)
    },
    Row {
        names: &["aes-gmac", "gmac"],
        suffix: "_AES_GMAC",
        rfc: "RFC 4543",
        max_bits: 256,
        step_bits: 64,
        salt_bits: 32,
        iv: 8,
        ..mac(Auth::AesGmac, 130, 128, 16)
    },
];

/// What the rows of the AES family have in common.
const fn aes(algorithm: Encryption, number: u8, salt_bits: u16, icv: u8) -> Row<Encryption> {
    Row {
        algorithm,
        number,
        names: &[],
        min_bits: 128,
        max_bits: 256,
        step_bits: 64,
        salt_bits,
        block: 1,
        iv: 8,
        icv,
        full_icv: icv,
        suffix: "",
        legacy: false,
        rfc: "",
    }
}

/// What the rows of the keyed hashes have in common.
const fn mac(algorithm: Auth, number: u8, bits: u16, icv: u8) -> Row<Auth> {
    Row {
        algorithm,
        number,
        names: &[],
        min_bits: bits,
        max_bits: bits,
        step_bits: 0,
        salt_bits: 0,
        block: 1,
        iv: 0,
        icv,
        full_icv: (bits / 8) as u8,
        suffix: "",
        legacy: false,
        rfc: "",
    }
}

impl Row<Encryption> {
    const fn keyless(self) -> Self {
        Self { min_bits: 0, max_bits: 0, step_bits: 0, iv: 0, ..self }
    }
}

impl<A: Copy> Row<A> {
    /// The canonical name.
    pub fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or("")
    }

    /// Octets of salt after the key.
    pub const fn salt(&self) -> usize {
        self.salt_bits as usize / 8
    }

    /// Says whether a key of so many bits, without its salt, is one the algorithm has.
    pub const fn has_key_bits(&self, bits: u32) -> bool {
        let (min, max) = (self.min_bits as u32, self.max_bits as u32);
        if bits < min || bits > max {
            return false;
        }
        match bits.saturating_sub(min).checked_rem(self.step_bits as u32) {
            Some(rest) => rest == 0,
            None => bits == min,
        }
    }

    /// Says whether a key of so many octets, its salt included, is one the algorithm has.
    pub const fn has_keymat(&self, octets: usize) -> bool {
        match octets.checked_sub(self.salt()) {
            Some(key) if key <= 512 => self.has_key_bits(key.saturating_mul(8) as u32),
            _ => false,
        }
    }

    /// Every key length the algorithm has, in octets of key and salt together.
    pub fn keymat_lengths(&self) -> impl Iterator<Item = usize> + use<A> {
        let salt = self.salt();
        let step = if self.step_bits == 0 { usize::MAX } else { usize::from(self.step_bits) / 8 };
        (usize::from(self.min_bits) / 8..=usize::from(self.max_bits) / 8)
            .step_by(step)
            .map(move |key| key.saturating_add(salt))
    }

    fn is_named(&self, name: &str) -> bool {
        // People write `aes_gcm16` and `AES-GCM16` as often as the name in the table.
        let same = |a: u8, b: u8| a == b || (a == b'-' && b == b'_');
        self.names.iter().any(|known| {
            known.len() == name.len()
                && known.bytes().zip(name.bytes()).all(|(a, b)| same(a, b.to_ascii_lowercase()))
        })
    }
}

impl Encryption {
    /// Its row of the table.
    #[expect(
        clippy::indexing_slicing,
        reason = "one row per variant, in order: checked when this is compiled"
    )]
    pub const fn row(self) -> &'static Row<Self> {
        &ENCRYPTION[self as usize]
    }

    /// The algorithm with this PF_KEY number.
    pub fn from_number(number: u8) -> Option<Self> {
        ENCRYPTION.iter().find(|row| row.number == number).map(|row| row.algorithm)
    }

    /// The algorithm with this name, canonical or not, in either case, with `-` or `_`.
    pub fn from_name(name: &str) -> Option<Self> {
        ENCRYPTION.iter().find(|row| row.is_named(name)).map(|row| row.algorithm)
    }

    /// Its IKE transform number (IANA, Transform Type 1).
    pub const fn transform_number(self) -> u16 {
        match self {
            Self::TripleDesCbc => 3,
            Self::Null => 11,
            Self::AesCbc => 12,
            Self::AesCtr => 13,
            Self::AesCcm8 => 14,
            Self::AesCcm12 => 15,
            Self::AesCcm16 => 16,
            Self::AesGcm8 => 18,
            Self::AesGcm12 => 19,
            Self::AesGcm16 => 20,
            Self::NullAesGmac => 21,
            Self::ChaCha20Poly1305 => 28,
        }
    }

    /// The algorithm with this IKE transform number.
    pub fn from_transform_number(number: u16) -> Option<Self> {
        ENCRYPTION.iter().map(|row| row.algorithm).find(|algorithm| algorithm.transform_number() == number)
    }

    /// Says whether its keys have more than one length, so that a proposal must name one (RFC 7296 §3.3.5).
    pub const fn has_key_lengths(self) -> bool {
        self.row().step_bits != 0
    }

    /// Says whether the algorithm brings its own integrity.
    pub const fn is_combined(self) -> bool {
        self.row().icv != 0
    }
}

impl Auth {
    /// Its row of the table.
    #[expect(
        clippy::indexing_slicing,
        reason = "one row per variant, in order: checked when this is compiled"
    )]
    pub const fn row(self) -> &'static Row<Self> {
        &AUTH[self as usize]
    }

    /// The algorithm with this PF_KEY number.
    pub fn from_number(number: u8) -> Option<Self> {
        AUTH.iter().find(|row| row.number == number).map(|row| row.algorithm)
    }

    /// Its IKE transform number (IANA, Transform Type 3), for keys of so many octets without the salt: GMAC has one
    /// number for each key length.
    pub const fn transform_number(self, key: usize) -> u16 {
        match self {
            Self::HmacMd5 => 1,
            Self::HmacSha1 => 2,
            Self::AesXcbc => 5,
            Self::AesCmac => 8,
            Self::AesGmac if key == 16 => 9,
            Self::AesGmac if key == 24 => 10,
            Self::AesGmac => 11,
            Self::HmacSha256 => 12,
            Self::HmacSha384 => 13,
            Self::HmacSha512 => 14,
        }
    }

    /// The algorithm with this IKE transform number.
    pub fn from_transform_number(number: u16) -> Option<Self> {
        AUTH.iter()
            .map(|row| row.algorithm)
            .find(|algorithm| [16, 24, 32].into_iter().any(|key| algorithm.transform_number(key) == number))
    }

    /// The algorithm with this name, canonical or not, in either case, with `-` or `_`.
    pub fn from_name(name: &str) -> Option<Self> {
        AUTH.iter().find(|row| row.is_named(name)).map(|row| row.algorithm)
    }
}

// Row n is about variant n, and there is no variant without a row.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const _: () = {
    let mut n = 0;
    while n < ENCRYPTION.len() {
        assert!(ENCRYPTION[n].algorithm as usize == n);
        n += 1;
    }
    assert!(Encryption::AesCtr as usize + 1 == n);
    n = 0;
    while n < AUTH.len() {
        assert!(AUTH[n].algorithm as usize == n);
        n += 1;
    }
    assert!(Auth::AesGmac as usize + 1 == n);
};

impl Suite {
    /// Whether what it seals cannot be changed without being noticed.
    pub fn has_integrity(&self) -> bool {
        self.auth.is_some() || self.encryption.is_some_and(Encryption::is_combined)
    }

    /// Octets of key material, salt included, are right for the algorithms and the algorithms for each other.
    pub fn has_keymat(&self, encryption: usize, auth: usize) -> bool {
        let cipher = self.encryption.is_none_or(|e| e.row().has_keymat(encryption));
        cipher && self.auth.is_none_or(|a| a.row().has_keymat(auth))
    }

    /// The name the SA table gives the transform: `ESP_AES_HMAC_SHA1`, `AH_HMAC_MD5`, and `proto` alone for the rest.
    pub fn transform_name(&self, protocol: crate::Protocol) -> String {
        let word = match protocol {
            crate::Protocol::Esp => "ESP",
            crate::Protocol::Ah => "AH",
            crate::Protocol::Ipip => "IPIP",
            crate::Protocol::Ipcomp => "COMP",
        };
        let encryption = self.encryption.map_or("", |e| e.row().suffix);
        let auth = self.auth.map_or("", |a| a.row().suffix);
        format!("{word}{encryption}{auth}")
    }
}

impl core::fmt::Display for Encryption {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.row().name())
    }
}

impl core::fmt::Display for Auth {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.row().name())
    }
}

#[cfg(test)]
mod tests;
