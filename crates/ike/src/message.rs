//! IKE messages on the wire (RFC 7296 §3): the header, every payload, and what is inside them.
//!
//! A [`Message`] is what was read or is to be written, in plain form. [`crate::protect`] puts payloads into the SK
//! payload and takes them out. Which payloads an exchange may hold is one table: [`rules`].

mod header;
pub mod pairs;
mod payload;
pub mod rules;
mod traffic;

pub use header::{Exchange, Flags, Header, IkeSpi};
pub use payload::{Attribute, CertEncoding, Configuration, Delete, IdBody, Notify, NotifyKind, Payload};
pub use traffic::TrafficSelector;

use crate::wire::{Malformed, Reader, Writer};

/// The most payloads one message may hold: more is no peer's need, and each costs memory.
pub const MAX_PAYLOADS: usize = 96;

/// One IKE message, its payloads in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The header, but for its length and first payload, which follow from the rest.
    pub header: Header,
    /// The payloads.
    pub payloads: Vec<Payload>,
}

/// Why octets are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The shape is wrong.
    Malformed(Malformed),
    /// A later major version (RFC 7296 §2.5).
    MajorVersion(u8),
    /// A payload with the critical bit that we do not know; its type (RFC 7296 §2.5).
    UnknownCritical(u8),
}

impl From<Malformed> for ParseError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl Message {
    /// Reads a message in plain form; an SK or SKF payload becomes [`Payload::Protected`].
    ///
    /// # Errors
    /// [`ParseError`]; no prefix of a bad message is used.
    pub fn parse(octets: &[u8]) -> Result<Self, ParseError> {
        let (header, first, body) = Header::parse(octets)?;
        Ok(Self { header, payloads: parse_chain(first, body)? })
    }

    /// Writes the message in plain form.
    pub fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(512);
        self.header.emit(first(&self.payloads), &mut writer);
        emit_chain(&self.payloads, &mut writer);
        let mut octets = writer.into_octets();
        Header::set_length(&mut octets);
        octets
    }
}

/// The number of the first payload, 0 if there is none.
pub(crate) fn first(payloads: &[Payload]) -> u8 {
    payloads.first().map_or(0, Payload::kind)
}

/// Reads payloads, the first of kind `next`, which must fill `octets` exactly.
pub(crate) fn parse_chain(mut next: u8, octets: &[u8]) -> Result<Vec<Payload>, ParseError> {
    let mut reader = Reader::new(octets);
    let mut payloads = Vec::new();
    while next != 0 {
        if payloads.len() >= MAX_PAYLOADS {
            return Err(Malformed("number of payloads").into());
        }
        let kind = next;
        next = reader.u8("next payload")?;
        let flags = reader.u8("critical bit")?;
        let length = usize::from(reader.u16("payload length")?);
        let body = reader.take(length.checked_sub(4).ok_or(Malformed("payload length"))?, "payload")?;
        match Payload::parse(kind, next, body)? {
            Some(Payload::Protected { kind, first, body }) => {
                // Nothing may follow it (RFC 7296 §3.14); its own next payload names what it holds.
                if !reader.is_empty() {
                    return Err(Malformed("end of message").into());
                }
                payloads.push(Payload::Protected { kind, first, body });
                return Ok(payloads);
            }
            Some(payload) => payloads.push(payload),
            // The critical bit counts only for what we do not know (RFC 7296 §2.5).
            None if flags & 0x80 != 0 => return Err(ParseError::UnknownCritical(kind)),
            None => {}
        }
    }
    if reader.is_empty() { Ok(payloads) } else { Err(Malformed("end of message").into()) }
}

/// Writes payloads one after the other, each naming the next.
pub(crate) fn emit_chain(payloads: &[Payload], writer: &mut Writer) {
    for (n, payload) in payloads.iter().enumerate() {
        let rest = payloads.get(n.saturating_add(1)..).unwrap_or_default();
        payload.emit(first(rest), writer);
    }
}

#[cfg(test)]
mod tests;
