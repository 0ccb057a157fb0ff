//! From the octets of the wire to an authenticated payload (RFC 4303 §3.4, RFC 4302 §3.4).
//!
//! [`Verified`] is the proof that an ICV has been verified. Only the two modules below make one, and everything that must not
//! happen for a forged packet (moving the window, charging the SA, looking at the payload) asks for it, or for the
//! [`Authenticated`] packet that holds one.

mod ah;
mod esp;

pub(crate) use ah::verify;
pub(crate) use esp::{Authenticated, Candidates, Payload, RUN, Trailer, fits, header, open};

/// The ICV of the packet with this sequence number has been verified.
#[derive(Debug)]
pub(crate) struct Verified {
    seq: u64,
}

impl Verified {
    /// The packet's sequence number, all 64 bits of it.
    pub(crate) const fn seq(&self) -> u64 {
        self.seq
    }

    #[cfg(test)]
    pub(crate) const fn for_test(seq: u64) -> Self {
        Self { seq }
    }
}
