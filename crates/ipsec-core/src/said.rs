//! The name of a security association.

use core::fmt;
use core::net::IpAddr;

/// A Security Parameters Index in host order (RFC 4301 §4.1); on the wire it is big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(pub u32);

impl Spi {
    /// SPIs 1–255 are reserved by IANA and 0 never names an SA (RFC 4303 §2.1).
    pub const fn is_reserved(self) -> bool {
        self.0 < 256
    }
}

/// The protocol an SA speaks, by its IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// IP in IP (`tun`), RFC 2003: the encapsulating member of a bundle.
    Ipip = 4,
    /// ESP, RFC 4303.
    Esp = 50,
    /// AH, RFC 4302.
    Ah = 51,
    /// IPComp (`comp`), RFC 3173.
    Ipcomp = 108,
}

impl Protocol {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The word used in the text form of a SAID: `tun`, `esp`, `ah`, `comp`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ipip => "tun",
            Self::Esp => "esp",
            Self::Ah => "ah",
            Self::Ipcomp => "comp",
        }
    }
}

/// Names one SA: destination, protocol and SPI (a "SAID").
///
/// `Display` writes the form of every table and command (`esp0x101@192.0.2.1`); `{:#}` writes the form of the manual
/// pages (`esp.101@192.0.2.1`, `esp:101@2001:db8::1`). `FromStr` reads both, and decimal and octal SPIs as KLIPS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaId {
    /// Destination address of the outer header.
    pub dst: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The index.
    pub spi: Spi,
}

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.protocol.word();
        let spi = self.spi.0;
        if f.alternate() {
            let family = if self.dst.is_ipv4() { '.' } else { ':' };
            write!(f, "{word}{family}{spi:x}@{}", self.dst)
        } else {
            write!(f, "{word}0x{spi:x}@{}", self.dst)
        }
    }
}

/// Why a text is not a SAID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaIdError {
    /// Nothing before or no `@`.
    NoAt,
    /// The text does not begin with `ah`, `esp`, `tun` or `comp`.
    Protocol,
    /// The SPI is missing, not a number, or does not fit 32 bits.
    Spi,
    /// What follows `@` is not an address, or not of the family the SPI's prefix says.
    Address,
}
