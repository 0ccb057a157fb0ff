//! Opening ESP (RFC 4303 §3.4): many packets of one SA at once, or one.

use super::Verified;
use crate::discard::Discard;
use crate::packet::proto;
use arrayvec::ArrayVec;
use ipsec_core::transform::{Opening, Transform};

/// Packets opened in one call.
pub(crate) const RUN: usize = 64;

/// SPI and the low half of the sequence number, as they stand in clear: nothing to believe, only to look things up by.
pub(crate) fn header(packet: &[u8]) -> Option<(u32, u32)> {
    let ([s0, s1, s2, s3, n0, n1, n2, n3], _) = packet.split_first_chunk()?;
    Some((u32::from_be_bytes([*s0, *s1, *s2, *s3]), u32::from_be_bytes([*n0, *n1, *n2, *n3])))
}

/// Whether a packet of `len` octets can be one of this transform: room for header, trailer and ICV, and aligned
/// (RFC 4303 §2.4).
pub(crate) fn fits(transform: &Transform, len: usize) -> bool {
    len.checked_sub(transform.header_len())
        .and_then(|rest| rest.checked_sub(transform.icv_len()))
        .is_some_and(|body| body >= 2 && body & transform.alignment().saturating_sub(1) == 0)
}

/// Packets of one SA that the window would take, waiting to be opened together.
#[derive(Default)]
pub(crate) struct Candidates<'p> {
    openings: ArrayVec<Opening<'p>, RUN>,
    places: ArrayVec<Place, RUN>,
}

#[derive(Clone, Copy)]
struct Place {
    at: usize,
    seq: u64,
}

impl<'p> Candidates<'p> {
    /// Adds a packet that lies at `at` in the receive buffer and has the number `seq`, if its number is as it says.
    pub(crate) fn push(
        &mut self,
        packet: &'p mut [u8],
        at: usize,
        seq: u64,
        esn: bool,
    ) -> Result<(), Discard> {
        let high = esn.then_some((seq >> 32) as u32);
        self.openings.try_push(Opening { packet, high, authentic: false }).map_err(|_| Discard::Internal)?;
        self.places.try_push(Place { at, seq }).map_err(|_| Discard::Internal)
    }

    /// Verifies and decrypts all of them, in order.
    ///
    //= https://www.rfc-editor.org/rfc/rfc4303#section-3.4.4.1
    //# If the computed and received ICVs match, then the datagram is valid, and it is accepted.
    pub(crate) fn open(
        &mut self,
        transform: &Transform,
    ) -> impl Iterator<Item = Result<Authenticated<'p>, Discard>> {
        transform.open(&mut self.openings);
        let (header, icv) = (transform.header_len(), transform.icv_len());
        self.openings.drain(..).zip(self.places.drain(..)).map(move |(opening, place)| {
            if !opening.authentic {
                return Err(Discard::Forged);
            }
            let body =
                opening.packet.len().checked_sub(icv).and_then(|end| opening.packet.get_mut(header..end));
            let Some(body) = body else {
                return Err(Discard::Internal);
            };
            Ok(Authenticated {
                verified: Verified { seq: place.seq },
                at: place.at.saturating_add(header),
                body,
            })
        })
    }
}

/// A packet whose ICV has been verified.
#[derive(Debug)]
pub(crate) struct Authenticated<'p> {
    verified: Verified,
    at: usize,
    /// Payload, padding, pad length, next header.
    body: &'p mut [u8],
}

impl<'p> Authenticated<'p> {
    /// The proof.
    pub(crate) const fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Octets of payload, as far as the trailer can be believed: what the SA is charged for.
    pub(crate) fn charged_len(&self) -> u64 {
        let fixed = self.body.len().saturating_sub(2);
        let pad = self.body.get(fixed).copied().map_or(0, usize::from);
        fixed.checked_sub(pad).unwrap_or(fixed) as u64
    }

    /// Takes the trailer off: the payload, its place in the receive buffer and its next header.
    pub(crate) fn payload(self) -> Result<Payload<'p>, Discard> {
        let Trailer { payload, next_header } = Trailer::read(self.body)?;
        let octets = self.body.get_mut(..payload).ok_or(Discard::Internal)?;
        Ok(Payload { octets, at: self.at, next_header })
    }
}

/// Verifies and decrypts one packet that has the number `seq`; what is inside is between header and ICV.
pub(crate) fn open(
    transform: &Transform,
    packet: &mut [u8],
    (seq, esn): (u64, bool),
) -> Result<Verified, Discard> {
    let high = esn.then_some((seq >> 32) as u32);
    let mut opening = [Opening { packet, high, authentic: false }];
    transform.open(&mut opening);
    if opening.iter().all(|opening| opening.authentic) { Ok(Verified { seq }) } else { Err(Discard::Forged) }
}

/// What the end of an authentic packet says (RFC 4303 §2.4–2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Octets of payload; more may follow the inner packet in it (RFC 4303 §2.7).
    pub(crate) payload: usize,
    /// The IP protocol number of what the payload is.
    pub(crate) next_header: u8,
}

impl Trailer {
    /// Reads it from the end of what was decrypted, and checks the padding.
    #[inline]
    pub(crate) fn read(body: &[u8]) -> Result<Self, Discard> {
        let Some((rest, &[pad, next_header])) = body.split_last_chunk::<2>() else {
            return Err(Discard::Internal);
        };
        if next_header == proto::NONE {
            return Err(Discard::Dummy);
        }
        let pad = usize::from(pad);
        let Some((payload, padding)) = rest.len().checked_sub(pad).and_then(|end| rest.split_at_checked(end))
        else {
            return Err(Discard::BadPadding);
        };
        //= https://www.rfc-editor.org/rfc/rfc4303#section-2.4
        //# When this padding scheme is employed, the receiver SHOULD inspect the Padding field.
        if PADDING.get(..pad).is_none_or(|expected| padding != expected) {
            return Err(Discard::BadPadding);
        }
        Ok(Self { payload: payload.len(), next_header })
    }
}

/// What an authenticated packet carries.
pub(crate) struct Payload<'p> {
    /// The octets; more may follow the inner packet (RFC 4303 §2.7).
    pub(crate) octets: &'p mut [u8],
    /// Where they lie in the receive buffer.
    pub(crate) at: usize,
    /// The IP protocol number of what they are.
    pub(crate) next_header: u8,
}

/// 1, 2, 3 … (RFC 4303 §2.4), as far as one octet can count them.
static PADDING: [u8; 255] = {
    let mut bytes = [0; 255];
    let mut rest: &mut [u8] = &mut bytes;
    let mut value = 1_u8;
    while let Some((first, tail)) = rest.split_first_mut() {
        *first = value;
        value = value.wrapping_add(1);
        rest = tail;
    }
    bytes
};
