//! The one table of algorithms: numbers, key sizes, IV and ICV lengths.
//!
//! The PF_KEY numbers are those of pf_key(7P) and its later extensions (illumos `SADB_AALG_*`, `SADB_EALG_*`);
//! ChaCha20-Poly1305, GMAC and others that illumos never had use our own numbers (from 128 up).

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
}

/// The algorithms of one SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suite {
    /// The cipher; `None` for AH.
    pub encryption: Option<Encryption>,
    /// The integrity algorithm; `None` beside a combined-mode cipher.
    pub auth: Option<Auth>,
}
