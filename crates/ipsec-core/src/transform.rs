//! The one place where crypto libraries are called: sealing and opening ESP.

use crate::Spi;
use crate::algorithm::Suite;

/// Why keys do not fit a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The encryption key has a length the cipher does not know.
    EncryptionKey,
    /// The integrity key has a length the algorithm does not know.
    AuthKey,
    /// The two algorithms cannot be used together (no integrity at all, or twice).
    Suite,
}

/// The keyed algorithms of one ESP SA, ready to seal and open; shared between workers.
pub struct Transform {
    _todo: (),
}

impl core::fmt::Debug for Transform {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Transform")
    }
}

/// One received ESP packet on its way through [`Transform::open`].
pub struct Opening<'p> {
    /// SPI, sequence number, IV, ciphertext and ICV; the plaintext replaces the ciphertext where it stands.
    pub packet: &'p mut [u8],
    /// The high half of the sequence number, when the SA has extended ones (RFC 4303 §2.2.1).
    pub high: Option<u32>,
    /// Set once the ICV has been verified. While it is false the octets of `packet` mean nothing.
    pub authentic: bool,
}

impl Transform {
    /// Keys a suite.
    ///
    /// `encryption_key` carries the salt last where the cipher has one (RFC 4106 §8.1). `iv_key` is fresh random for
    /// each SA: CBC IVs are the sequence number encrypted under it, so they are unpredictable and never repeat.
    pub fn new(
        suite: Suite,
        encryption_key: &[u8],
        auth_key: &[u8],
        iv_key: &[u8; 16],
    ) -> Result<Self, KeyError> {
        let _ = (suite, encryption_key, auth_key, iv_key);
        Err(KeyError::Suite)
    }

    /// Octets before the payload: SPI, sequence number and IV.
    pub const fn header_len(&self) -> usize {
        8
    }

    /// Octets of ICV after the payload, its padding and trailer.
    pub const fn icv_len(&self) -> usize {
        0
    }

    /// Payload, padding and the two trailer octets together fill a multiple of this (RFC 4303 §2.4): at least 4.
    pub const fn alignment(&self) -> usize {
        4
    }

    /// The length of the ESP packet, header to ICV, that carries `payload` octets without extra padding.
    pub const fn sealed_len(&self, payload: usize) -> usize {
        payload
    }

    /// Seals a run of packets that lie `stride` octets apart in `run`; only the last may be shorter.
    ///
    /// Each packet already holds payload, padding and trailer between header and ICV room. Packet *i* gets the
    /// sequence number `first + i`; `esn` says whether its high half is authenticated. Whoever calls has reserved
    /// these numbers, once, for ever: they are also the IVs of counter modes.
    pub fn seal(&self, run: &mut [u8], stride: usize, spi: Spi, first: u64, esn: bool) {
        let _ = (run, stride, spi, first, esn);
    }

    /// Verifies and decrypts in place; sets [`Opening::authentic`] on those whose ICV holds.
    pub fn open(&self, packets: &mut [Opening<'_>]) {
        let _ = packets;
    }
}
