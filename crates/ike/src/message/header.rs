//! The IKE header (RFC 7296 §3.1).

use super::ParseError;
use crate::wire::{Malformed, Reader, Writer};

/// The name one side gives an IKE SA; 0 means not yet known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSpi(pub u64);

impl core::fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The exchange types (RFC 7296 §3.1, RFC 9242 §3.1, RFC 9370 §2.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exchange {
    /// IKE_SA_INIT, 34.
    IkeSaInit,
    /// IKE_AUTH, 35.
    IkeAuth,
    /// CREATE_CHILD_SA, 36.
    CreateChildSa,
    /// INFORMATIONAL, 37.
    Informational,
    /// IKE_INTERMEDIATE, 43.
    IkeIntermediate,
    /// IKE_FOLLOWUP_KE, 44.
    IkeFollowupKe,
}

impl Exchange {
    /// Its number.
    pub const fn number(self) -> u8 {
        match self {
            Self::IkeSaInit => 34,
            Self::IkeAuth => 35,
            Self::CreateChildSa => 36,
            Self::Informational => 37,
            Self::IkeIntermediate => 43,
            Self::IkeFollowupKe => 44,
        }
    }

    /// The exchange with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            34 => Some(Self::IkeSaInit),
            35 => Some(Self::IkeAuth),
            36 => Some(Self::CreateChildSa),
            37 => Some(Self::Informational),
            43 => Some(Self::IkeIntermediate),
            44 => Some(Self::IkeFollowupKe),
            _ => None,
        }
    }

    /// As the RFCs write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IkeSaInit => "IKE_SA_INIT",
            Self::IkeAuth => "IKE_AUTH",
            Self::CreateChildSa => "CREATE_CHILD_SA",
            Self::Informational => "INFORMATIONAL",
            Self::IkeIntermediate => "IKE_INTERMEDIATE",
            Self::IkeFollowupKe => "IKE_FOLLOWUP_KE",
        }
    }
}

/// The two flags that mean something to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The sender is the original initiator of the IKE SA.
    pub initiator: bool,
    /// The message answers another.
    pub response: bool,
}

/// The header without what follows from the rest of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The initiator's SPI.
    pub spi_i: IkeSpi,
    /// The responder's SPI; 0 in the first message.
    pub spi_r: IkeSpi,
    /// The exchange.
    pub exchange: Exchange,
    /// The flags.
    pub flags: Flags,
    /// The Message ID.
    pub id: u32,
}

impl Header {
    /// Reads the header; also says what kind the first payload is, and where the payloads are.
    ///
    /// # Errors
    /// Octets too short, a length that is not theirs, an exchange there is not, a later major version.
    pub fn parse(octets: &[u8]) -> Result<(Self, u8, &[u8]), ParseError> {
        let mut reader = Reader::new(octets);
        let spi_i = IkeSpi(reader.u64("initiator's SPI")?);
        let spi_r = IkeSpi(reader.u64("responder's SPI")?);
        let first = reader.u8("next payload")?;
        let version = reader.u8("version")?;
        let exchange = reader.u8("exchange type")?;
        let flags = reader.u8("flags")?;
        let id = reader.u32("message ID")?;
        let length = reader.u32("length")?;
        if version >> 4 != 2 {
            return Err(ParseError::MajorVersion(version >> 4));
        }
        if usize::try_from(length) != Ok(octets.len()) {
            return Err(Malformed("length").into());
        }
        if spi_i == IkeSpi(0) {
            return Err(Malformed("initiator's SPI").into());
        }
        let exchange = Exchange::from_number(exchange).ok_or(Malformed("exchange type"))?;
        let flags = Flags { initiator: flags & 0x08 != 0, response: flags & 0x20 != 0 };
        Ok((Self { spi_i, spi_r, exchange, flags, id }, first, reader.rest()))
    }

    /// Writes the header with a length that is still to be set.
    pub(crate) fn emit(&self, first: u8, writer: &mut Writer) {
        writer.u64(self.spi_i.0);
        writer.u64(self.spi_r.0);
        writer.u8(first);
        writer.u8(0x20);
        writer.u8(self.exchange.number());
        let initiator = if self.flags.initiator { 0x08 } else { 0 };
        let response = if self.flags.response { 0x20 } else { 0 };
        writer.u8(initiator | response);
        writer.u32(self.id);
        writer.u32(u32::MAX);
    }

    /// Sets the length of a message to what it is.
    pub(crate) fn set_length(octets: &mut [u8]) {
        let length = u32::try_from(octets.len()).unwrap_or(u32::MAX);
        if let Some(field) = octets.get_mut(24..).and_then(|rest| rest.first_chunk_mut()) {
            *field = length.to_be_bytes();
        }
    }
}
