//! AES-GMAC (RFC 4543): AES-GCM with nothing to encrypt, in ESP as a combined mode and in AH as an integrity algorithm.
//!
//! What ESP authenticates is the whole packet before its ICV: SPI, sequence number (64 bits of it if extended), IV and
//! payload (RFC 4543 §3.3, §3.5).

use super::KeyError;
use super::aead::{Salted, header_value};
use crate::Spi;
use aws_lc_rs::constant_time::verify_slices_are_equal;

const IV: usize = 8;
const ICV: usize = 16;
/// SPI, sequence number and IV.
const HEADER: usize = 16;

pub(super) struct Gmac {
    key: Salted,
}

impl Gmac {
    pub(super) fn new(keymat: &[u8]) -> Result<Self, KeyError> {
        Ok(Self { key: Salted::aes_gcm(keymat)? })
    }

    pub(super) fn seal(&self, packet: &mut [u8], spi: Spi, seq: u64, esn: bool, iv: u64) -> Option<()> {
        *packet.first_chunk_mut::<HEADER>()? = header_value(spi, seq, iv).to_be_bytes();
        let icv = self.esp_icv(packet, iv.to_be_bytes(), esn.then_some((seq >> 32) as u32))?;
        *packet.last_chunk_mut::<ICV>()? = icv;
        Some(())
    }

    pub(super) fn open(&self, packet: &mut [u8], high: Option<u32>) -> Option<()> {
        let received = *packet.last_chunk::<ICV>()?;
        let iv = *packet.first_chunk::<HEADER>()?.last_chunk::<IV>()?;
        let icv = self.esp_icv(packet, iv, high);
        *packet.last_chunk_mut::<ICV>()? = received;
        verify_slices_are_equal(&icv?, &received).ok()
    }

    /// IV and ICV over a message, as AH carries them in its ICV field.
    pub(super) fn sign(&self, message: &[u8], iv: u64) -> Option<[u8; IV + ICV]> {
        let iv = iv.to_be_bytes();
        let mut field = [0; IV + ICV];
        *field.first_chunk_mut::<IV>()? = iv;
        *field.last_chunk_mut::<ICV>()? = self.key.gmac(iv, message)?;
        Some(field)
    }

    /// Computes the ICV of an ESP packet. The place of the ICV is scratch: the high half of the sequence number belongs
    /// before the low one, so for the time of the computation everything after the SPI moves up by its length.
    fn esp_icv(&self, packet: &mut [u8], iv: [u8; IV], high: Option<u32>) -> Option<[u8; ICV]> {
        let covered = packet.len().checked_sub(ICV).filter(|&len| len >= HEADER)?;
        let Some(high) = high else {
            return self.key.gmac(iv, packet.get(..covered)?);
        };
        let moved = covered.checked_add(4)?;
        packet.copy_within(4..covered, 8);
        packet.get_mut(4..8)?.copy_from_slice(&high.to_be_bytes());
        let icv = self.key.gmac(iv, packet.get(..moved)?);
        packet.copy_within(8..moved, 4);
        icv
    }
}
