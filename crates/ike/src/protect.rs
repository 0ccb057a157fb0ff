//! The SK payload and its fragments: payloads in, octets out, and back (RFC 7296 §3.14, RFC 7383).

use crate::message::{Exchange, Header, Message, ParseError, Payload, emit_chain, first, parse_chain};
use crate::wire::{Malformed, Writer};
use ipsec_core::Secret;
use ipsec_core::transform::SkCipher;

const HEADER: usize = 28;
const GENERIC: usize = 4;
const SK: u8 = 46;
const SKF: u8 = 53;

/// The most fragments of one message, and the most octets they may hold together. A certificate chain of 4096-bit keys
/// fits several times; a peer that claims more is refused before anything is kept.
pub const MAX_FRAGMENTS: u16 = 64;
const MAX_MESSAGE: usize = 65_000;

/// The sending direction of an IKE SA: the cipher, and the numbers its IVs are made of.
#[derive(Debug)]
pub struct Sealer {
    cipher: SkCipher,
    /// Counter-mode IVs count from a random start; CBC IVs are drawn from the engine's randomness.
    counter: u64,
}

impl Sealer {
    /// A direction whose IVs begin at `start`.
    pub const fn new(cipher: SkCipher, start: u64) -> Self {
        Self { cipher, counter: start }
    }

    fn iv(&mut self, random: &mut dyn FnMut(&mut [u8])) -> Vec<u8> {
        let mut iv = vec![0; self.cipher.iv_len()];
        if self.cipher.iv_is_random() {
            random(&mut iv);
        } else {
            self.counter = self.counter.wrapping_add(1);
            iv.copy_from_slice(&self.counter.to_be_bytes());
        }
        iv
    }

    /// Writes `message` protected: as one datagram, or, where `limit` says how long a datagram may be and it is longer,
    /// as fragments. `None` only for what cannot be sent in any number of fragments.
    pub fn seal(
        &mut self,
        message: &Message,
        limit: Option<usize>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Option<Vec<Vec<u8>>> {
        let inner = plain(&message.payloads);
        let kind = first(&message.payloads);
        let whole = self.one(&message.header, kind, None, &inner, random)?;
        let Some(limit) = limit.filter(|limit| whole.len() > *limit) else { return Some(vec![whole]) };
        // What is left of a datagram for payloads, at worst: padding of one block, its length, the fragment's number.
        let costs = [HEADER, GENERIC, 4, self.cipher.iv_len(), self.cipher.icv_len(), self.cipher.block(), 1];
        let room = limit.checked_sub(costs.iter().sum())?.max(64);
        let total = u16::try_from(inner.len().div_ceil(room)).ok().filter(|total| *total <= MAX_FRAGMENTS)?;
        let mut fragments = Vec::new();
        for (number, part) in (1..=total).zip(inner.chunks(room)) {
            // Only the first fragment names what the message begins with (RFC 7383 §2.5).
            let kind = if number == 1 { kind } else { 0 };
            fragments.push(self.one(&message.header, kind, Some((number, total)), part, random)?);
        }
        Some(fragments)
    }

    fn one(
        &mut self,
        header: &Header,
        kind: u8,
        fragment: Option<(u16, u16)>,
        text: &[u8],
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Option<Vec<u8>> {
        let block = self.cipher.block();
        let with_length = text.len().checked_add(1)?;
        let padding = with_length.next_multiple_of(block).checked_sub(with_length)?;
        let mut w = Writer::with_capacity(text.len().saturating_add(128));
        header.emit(if fragment.is_some() { SKF } else { SK }, &mut w);
        w.u8(kind);
        w.u8(0);
        let numbers = if fragment.is_some() { 4 } else { 0 };
        let parts = [GENERIC, numbers, self.cipher.iv_len(), with_length, padding, self.cipher.icv_len()];
        w.u16(u16::try_from(parts.iter().sum::<usize>()).ok()?);
        if let Some((number, total)) = fragment {
            w.u16(number);
            w.u16(total);
        }
        let body = w.len();
        w.put(&self.iv(random));
        w.put(text);
        w.put(&vec![0; padding]);
        w.u8(u8::try_from(padding).ok()?);
        w.put(&vec![0; self.cipher.icv_len()]);
        let mut octets = w.into_octets();
        Header::set_length(&mut octets);
        self.cipher.seal(&mut octets, body)?;
        Some(octets)
    }
}

/// Payloads as they are encrypted.
pub fn plain(payloads: &[Payload]) -> Secret {
    let mut w = Writer::default();
    emit_chain(payloads, &mut w);
    Secret::from(w.into_octets())
}

/// What came out of an SK payload, and what IntAuth of RFC 9242 §3.3.2 is made of.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The message, its payloads those that were protected.
    pub message: Message,
    /// The octets of those payloads.
    pub inner: Secret,
}

/// The receiving direction of an IKE SA.
#[derive(Debug)]
pub struct Opener {
    cipher: SkCipher,
    partial: Option<Partial>,
}

/// Fragments of one message that came so far, each of them authentic.
#[derive(Debug)]
struct Partial {
    id: u32,
    response: bool,
    total: u16,
    kind: u8,
    parts: Vec<Option<Secret>>,
    octets: usize,
}

/// What became of a protected datagram.
#[derive(Debug)]
pub enum Opening {
    /// A whole message.
    Message(Opened),
    /// A fragment that was kept, or was there already; others are missing.
    Fragment,
    /// The first fragment of a message that nothing waits for: it may be one that has been answered (RFC 7383 §2.6.1).
    Again(Header),
    /// The ICV does not hold, or there is no SK payload: nothing at all happened.
    Forged,
    /// Authentic, and still not a message.
    Malformed(Header, ParseError),
}

impl Opener {
    /// Octets of a message that is not whole.
    pub fn held(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.octets)
    }

    /// Lets go of what has come of a message that is not whole.
    pub fn forget(&mut self) {
        self.partial = None;
    }

    /// A direction that nothing has come through yet.
    pub const fn new(cipher: SkCipher) -> Self {
        Self { cipher, partial: None }
    }

    /// Opens one datagram. Fragments are kept only of a message that is `awaited`: what was recorded and comes again must not
    /// drive out what has come so far of a new one.
    pub fn open(&mut self, octets: &[u8], awaited: bool) -> Opening {
        let Ok((header, mut kind, rest)) = Header::parse(octets) else { return Opening::Forged };
        // Payloads in front of SK are authentic but were never protected: nothing of ours reads them.
        let mut at = octets.len().saturating_sub(rest.len());
        while kind != SK && kind != SKF {
            let Some((next, length)) = generic(octets, at) else { return Opening::Forged };
            if kind == 0 {
                return Opening::Forged;
            }
            (kind, at) = (next, at.saturating_add(length));
        }
        let Some((first, length)) = generic(octets, at) else { return Opening::Forged };
        if at.saturating_add(length) != octets.len() {
            return Opening::Forged;
        }
        let mut copy = octets.to_vec();
        let body = at.saturating_add(GENERIC);
        if kind == SK {
            let Some(inner) = self.cipher.open(&mut copy, body).map(Secret::from) else {
                return Opening::Forged;
            };
            return Self::whole(header, first, inner);
        }
        let numbers = octets.get(body..).and_then(|rest| rest.first_chunk::<4>());
        let Some(&[n0, n1, t0, t1]) = numbers else { return Opening::Forged };
        let (number, total) = (u16::from_be_bytes([n0, n1]), u16::from_be_bytes([t0, t1]));
        if number == 0 || number > total || total > MAX_FRAGMENTS {
            return Opening::Forged;
        }
        let text = self.cipher.open(&mut copy, body.saturating_add(4)).map(Secret::from);
        let Some(text) = text else { return Opening::Forged };
        if !awaited {
            return if number == 1 { Opening::Again(header) } else { Opening::Fragment };
        }
        self.keep(header, first, (number, total), text)
    }

    fn keep(&mut self, header: Header, first: u8, (number, total): (u16, u16), text: Secret) -> Opening {
        let response = header.flags.response;
        // The same message cut smaller begins anew; cut larger it is old (RFC 7383 §2.6.1).
        let stale = self.partial.as_ref().is_none_or(|partial| {
            (partial.id, partial.response) != (header.id, response) || partial.total < total
        });
        if stale {
            let parts = vec![None; usize::from(total)];
            self.partial = Some(Partial { id: header.id, response, total, kind: 0, parts, octets: 0 });
        }
        let Some(partial) = &mut self.partial else { return Opening::Fragment };
        let place = partial.parts.get_mut(usize::from(number).saturating_sub(1));
        let (true, Some(place @ None)) = (partial.total == total, place) else { return Opening::Fragment };
        partial.octets = partial.octets.saturating_add(text.len());
        if partial.octets > MAX_MESSAGE {
            self.partial = None;
            return Opening::Malformed(header, ParseError::Malformed(Malformed("length of fragments")));
        }
        *place = Some(text);
        if number == 1 {
            partial.kind = first;
        }
        if partial.parts.iter().any(Option::is_none) {
            return Opening::Fragment;
        }
        let Some(partial) = self.partial.take() else { return Opening::Fragment };
        let inner: Vec<&[u8]> = partial.parts.iter().flatten().map(|part| &**part).collect();
        Self::whole(header, partial.kind, Secret::from(inner.concat()))
    }

    fn whole(header: Header, first: u8, inner: Secret) -> Opening {
        match parse_chain(first, &inner) {
            Ok(payloads) => Opening::Message(Opened { message: Message { header, payloads }, inner }),
            Err(error) => Opening::Malformed(header, error),
        }
    }
}

/// The next payload and the length of the one at `at`.
fn generic(octets: &[u8], at: usize) -> Option<(u8, usize)> {
    let &[next, _, l0, l1] = octets.get(at..)?.first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    (length >= GENERIC).then_some((next, length))
}

/// The header and the SK header that IntAuth covers, as if nothing were encrypted (RFC 9242 §3.3.2): the lengths are
/// those of the plain payloads.
pub fn int_auth_header(header: &Header, payloads: &[Payload], inner: usize) -> Vec<u8> {
    debug_assert!(header.exchange == Exchange::IkeIntermediate, "no other exchange is covered by IntAuth");
    let mut w = Writer::default();
    header.emit(SK, &mut w);
    w.u8(first(payloads));
    w.u8(0);
    w.u16(u16::try_from(inner.saturating_add(GENERIC)).unwrap_or(u16::MAX));
    let mut octets = w.into_octets();
    let length = u32::try_from(octets.len().saturating_add(inner)).unwrap_or(u32::MAX);
    if let Some(field) = octets.get_mut(24..).and_then(|rest| rest.first_chunk_mut()) {
        *field = length.to_be_bytes();
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Flags, IkeSpi};
    use ipsec_core::algorithm::Encryption;

    fn pair() -> (Sealer, Opener) {
        let cipher = || SkCipher::new(Encryption::AesGcm16, &[7; 20], None).unwrap();
        (Sealer::new(cipher(), 0), Opener::new(cipher()))
    }

    fn header(id: u32) -> Header {
        let flags = Flags { initiator: true, response: false };
        Header { spi_i: IkeSpi(1), spi_r: IkeSpi(2), exchange: Exchange::Informational, flags, id }
    }

    fn fragment(sealer: &mut Sealer, id: u32, numbers: (u16, u16), text: &[u8]) -> Vec<u8> {
        sealer.one(&header(id), 43, Some(numbers), text, &mut |_| {}).unwrap()
    }

    #[test]
    fn fragments_that_together_are_too_long_are_given_up() {
        let (mut sealer, mut opener) = pair();
        let outcomes: Vec<Opening> =
            (1..=64).map(|n| opener.open(&fragment(&mut sealer, 1, (n, 64), &[0; 2000]), true)).collect();
        // Long before the last one: 65 000 octets are reached by the thirty-third.
        assert!(outcomes.iter().position(|outcome| matches!(outcome, Opening::Malformed(..))) == Some(32));
        assert!(!outcomes.iter().any(|outcome| matches!(outcome, Opening::Message(_))));
    }

    #[test]
    fn numbers_that_no_fragment_has_are_refused_and_a_repetition_is_not_counted_twice() {
        let (mut sealer, mut opener) = pair();
        for numbers in [(0, 2), (3, 2), (1, 0), (1, 65)] {
            let octets = fragment(&mut sealer, 1, numbers, &[0; 8]);
            assert!(matches!(opener.open(&octets, true), Opening::Forged), "{numbers:?}");
        }
        // A Vendor ID of eight octets in two pieces, the first of them twice.
        let payload = [0, 0, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8];
        let (first, second) = payload.split_at(6);
        let one = fragment(&mut sealer, 2, (1, 2), first);
        assert!(matches!(opener.open(&one, true), Opening::Fragment));
        assert!(matches!(opener.open(&one, true), Opening::Fragment));
        let two = sealer.one(&header(2), 0, Some((2, 2)), second, &mut |_| {}).unwrap();
        let Opening::Message(opened) = opener.open(&two, true) else { panic!() };
        assert_eq!(opened.message.payloads, [Payload::Vendor(vec![1, 2, 3, 4, 5, 6, 7, 8])]);
    }
}
