//! The one place where crypto libraries are called: sealing and opening ESP (RFC 4303), and the MACs of AH.
//!
//! A [`Transform`] is keyed once and then shared by all workers; sealing and opening neither allocate nor lock.
//! * What is authenticated: header, IV and ciphertext, and the high half of an extended sequence number, which is never
//!   sent (RFC 4303 §2.2.1, §3.3.2.1).
//! * Nonces: the IV of every counter mode is the sequence number XOR a start that is random for each SA. Within one SA a
//!   number sealed twice would break the cipher (RFC 4106 §3.1), so whoever calls [`Transform::seal`] has reserved the
//!   numbers, once, for ever. A second SA under the same key, as manual keys make one after every restart, starts
//!   elsewhere in the 2^64 values.
//! * Fail closed: a packet that cannot be sealed is wiped, not left in clear; a packet whose ICV does not hold is never
//!   decrypted, or wiped where the cipher decrypts while it verifies.

mod aead;
mod composed;
mod counter;
mod gmac;
mod mac;
mod sk;
mod soft;

use crate::Spi;
use crate::algorithm::{Auth, Encryption, Suite};
use aead::Aead;
use composed::Composed;
use gmac::Gmac;
pub use mac::Mac;
pub use sk::SkCipher;
use soft::SoftAead;

/// Octets of SPI and sequence number before everything else.
const ESP_HEADER: usize = 8;

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
    header: u8,
    icv: u8,
    alignment: u8,
    /// Where the IVs of counter modes start; see [`Transform::counter`].
    start: u64,
    scheme: Scheme,
}

enum Scheme {
    Aead(Aead),
    Composed(Box<Composed>),
    Soft(SoftAead),
    Gmac(Box<Gmac>),
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
    /// each SA: CBC IVs are the sequence number encrypted under it, so they are unpredictable and never repeat. Counter
    /// modes take from it where their IVs start.
    pub fn new(
        suite: Suite,
        encryption_key: &[u8],
        auth_key: &[u8],
        iv_key: &[u8; 16],
    ) -> Result<Self, KeyError> {
        let encryption = suite.encryption.ok_or(KeyError::Suite)?;
        let row = encryption.row();
        // A combined-mode cipher brings its own integrity; any other must not go without (RFC 4303 §3.2).
        if encryption.is_combined() == suite.auth.is_some() {
            return Err(KeyError::Suite);
        }
        if !row.has_keymat(encryption_key.len()) {
            return Err(KeyError::EncryptionKey);
        }
        let (icv, scheme) = match (encryption, suite.auth) {
            // GMAC as AH knows it carries an IV of its own, for which ESP has no place.
            (_, Some(Auth::AesGmac)) => return Err(KeyError::Suite),
            (_, Some(auth)) => {
                let composed = Composed::new(encryption, encryption_key, auth, auth_key, iv_key)?;
                (auth.row().icv, Scheme::Composed(Box::new(composed)))
            }
            (Encryption::AesGcm16 | Encryption::ChaCha20Poly1305, None) => {
                (row.icv, Scheme::Aead(Aead::new(encryption, encryption_key)?))
            }
            (Encryption::NullAesGmac, None) => (row.icv, Scheme::Gmac(Box::new(Gmac::new(encryption_key)?))),
            (_, None) => (row.icv, Scheme::Soft(SoftAead::new(encryption, encryption_key)?)),
        };
        let header = row.iv.saturating_add(ESP_HEADER as u8);
        let start = iv_key.first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets));
        Ok(Self { header, icv, alignment: row.block.max(4), start, scheme })
    }

    /// The IV of a counter mode for a sequence number: another for each number, for XOR loses nothing.
    #[inline]
    const fn counter(&self, seq: u64) -> u64 {
        seq ^ self.start
    }

    /// Octets before the payload: SPI, sequence number and IV.
    pub const fn header_len(&self) -> usize {
        self.header as usize
    }

    /// Octets of ICV after the payload, its padding and trailer.
    pub const fn icv_len(&self) -> usize {
        self.icv as usize
    }

    /// Payload, padding and the two trailer octets together fill a multiple of this (RFC 4303 §2.4): at least 4.
    pub const fn alignment(&self) -> usize {
        self.alignment as usize
    }

    /// The length of the ESP packet, header to ICV, that carries `payload` octets without extra padding.
    pub const fn sealed_len(&self, payload: usize) -> usize {
        // Alignments are powers of two.
        let mask = self.alignment().saturating_sub(1);
        let body = payload.saturating_add(2).saturating_add(mask) & !mask;
        body.saturating_add(self.header_len()).saturating_add(self.icv_len())
    }

    /// Seals a run of packets that lie `stride` octets apart in `run`; only the last may be shorter.
    ///
    /// Each packet already holds payload, padding and trailer between header and ICV room. Packet *i* gets the
    /// sequence number `first + i`; `esn` says whether its high half is authenticated. Whoever calls has reserved
    /// these numbers, once, for ever: the IVs of counter modes come from them.
    ///
    /// A packet that cannot be sealed (too short, not aligned, its number past the end of the space) is overwritten
    /// with zeros, SPI included, and the answer is `false`: no clear text ever leaves in place of ciphertext.
    pub fn seal(&self, run: &mut [u8], stride: usize, spi: Spi, first: u64, esn: bool) -> bool {
        let mut all = true;
        let mut next = Some(first);
        for packet in run.chunks_mut(stride.max(1)) {
            let sealed = next.filter(|&seq| may_carry(seq, esn)).and_then(|seq| match &self.scheme {
                Scheme::Aead(aead) => aead.seal(packet, spi, seq, esn, self.counter(seq)),
                Scheme::Composed(composed) => composed.seal(packet, spi, seq, esn),
                Scheme::Soft(aead) => aead.seal(packet, spi, seq, esn, self.counter(seq)),
                Scheme::Gmac(gmac) => gmac.seal(packet, spi, seq, esn, self.counter(seq)),
            });
            if sealed.is_none() {
                packet.fill(0);
                all = false;
            }
            next = next.and_then(|seq| seq.checked_add(1));
        }
        all
    }

    /// Seals `plain`, which lies elsewhere, into `packet`: padding, trailer and all. Where the cipher can, the octets are
    /// encrypted on their way, so that the payload is touched once.
    ///
    /// `packet` has [`Transform::sealed_len`] octets; otherwise, and where [`Transform::seal`] would refuse, it is
    /// overwritten with zeros and the answer is `false`.
    #[inline]
    pub fn seal_from(
        &self,
        plain: &[u8],
        next_header: u8,
        packet: &mut [u8],
        (spi, seq, esn): (Spi, u64, bool),
    ) -> bool {
        let sealed = if packet.len() == self.sealed_len(plain.len()) {
            self.sealed_from(plain, next_header, packet, (spi, seq, esn))
        } else {
            None
        };
        if sealed.is_none() {
            packet.fill(0);
        }
        sealed.is_some()
    }

    #[inline]
    fn sealed_from(
        &self,
        plain: &[u8],
        next_header: u8,
        packet: &mut [u8],
        (spi, seq, esn): (Spi, u64, bool),
    ) -> Option<()> {
        if let Scheme::Aead(aead) = &self.scheme {
            if !may_carry(seq, esn) {
                return None;
            }
            // Alignment 4: two octets of trailer and at most three of padding.
            let around = self.header_len().checked_add(self.icv_len())?;
            let room = packet.len().checked_sub(around)?.checked_sub(plain.len())?;
            let mut octets = [0; 5];
            let trailer = octets.get_mut(..room)?;
            write_trailer(trailer, next_header)?;
            return aead.seal_from((plain, trailer), packet, spi, (seq, self.counter(seq)), esn);
        }
        let end = packet.len().checked_sub(self.icv_len())?;
        let (body, trailer) = packet.get_mut(self.header_len()..end)?.split_at_mut_checked(plain.len())?;
        body.copy_from_slice(plain);
        write_trailer(trailer, next_header)?;
        let len = packet.len();
        self.seal(packet, len, spi, seq, esn).then_some(())
    }

    /// [`Transform::seal`] for one packet under an IV of the caller's choice, to meet vectors made elsewhere.
    #[cfg(test)]
    fn seal_with_iv(&self, packet: &mut [u8], spi: Spi, seq: u64, esn: bool, iv: &[u8]) -> Option<()> {
        let counter = || u64::from_be_bytes(iv.try_into().unwrap());
        match &self.scheme {
            Scheme::Aead(aead) => aead.seal(packet, spi, seq, esn, counter()),
            Scheme::Soft(aead) => aead.seal(packet, spi, seq, esn, counter()),
            Scheme::Gmac(gmac) => gmac.seal(packet, spi, seq, esn, counter()),
            Scheme::Composed(composed) => {
                let mut block = [0; 16];
                block[..iv.len()].copy_from_slice(iv);
                composed.seal_with_iv(packet, spi, seq, esn, block)
            }
        }
    }

    /// Verifies and decrypts in place; sets [`Opening::authentic`] on those whose ICV holds.
    ///
    /// The sequence number is not judged here: 0 opens if its ICV holds. That, and replays, is the window's business.
    pub fn open(&self, packets: &mut [Opening<'_>]) {
        for Opening { packet, high, authentic } in packets {
            let opened = match &self.scheme {
                Scheme::Aead(aead) => aead.open(packet, *high),
                Scheme::Composed(composed) => composed.open(packet, *high),
                Scheme::Soft(aead) => aead.open(packet, *high),
                Scheme::Gmac(gmac) => gmac.open(packet, *high),
            };
            *authentic = opened.is_some();
        }
    }
}

/// Writes padding, pad length and next header into all of `room`, which follows the payload (RFC 4303 §2.4–§2.6).
///
/// The default padding is 1, 2, 3 …; receivers check it. `None` if there is no room, or room for more padding than 255.
#[inline]
pub fn write_trailer(room: &mut [u8], next_header: u8) -> Option<()> {
    let (padding, end) = room.split_last_chunk_mut::<2>()?;
    for (octet, value) in padding.iter_mut().zip(1..=u8::MAX) {
        *octet = value;
    }
    *end = [u8::try_from(padding.len()).ok()?, next_header];
    Some(())
}

/// Whether a packet may have this sequence number: without ESN it ends at 2^32 - 1 and must never wrap
/// (RFC 4303 §3.3.3).
const fn may_carry(seq: u64, esn: bool) -> bool {
    seq != 0 && (esn || seq <= u32::MAX as u64)
}

#[cfg(test)]
mod tests;
