//! The name of a security association, and its text.
//!
//! The text forms are those of ttosa(3) and satot(3). Read here: every form FreeS/WAN wrote, with numeric addresses.

use crate::text::{self, Family};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

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
    /// A word with `%` that is not among those of [`Said`].
    Magic,
}

impl fmt::Display for SaIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAt => "no @ in SA specifier",
            Self::Protocol => "SA specifier lacks valid protocol prefix",
            Self::Spi => "SA specifier lacks a 32-bit SPI",
            Self::Address => "SA specifier lacks a numeric address of the right family",
            Self::Magic => "unknown % keyword",
        })
    }
}

impl core::error::Error for SaIdError {}

impl FromStr for SaId {
    type Err = SaIdError;

    fn from_str(text: &str) -> Result<Self, SaIdError> {
        let (word, spi, dst) = split(text)?;
        let protocol = match word {
            "ah" => Protocol::Ah,
            "esp" => Protocol::Esp,
            "tun" => Protocol::Ipip,
            "comp" => Protocol::Ipcomp,
            _ => return Err(SaIdError::Protocol),
        };
        Ok(Self { dst, protocol, spi: Spi(spi) })
    }
}

/// What stands where a SAID may stand in an eroute: an SA, or one of the magic words (`%pass`, `%trap` …).
///
/// The magic words are not SAs. KLIPS kept them as SAIDs of protocol 61 (`int`) with SPIs from 256 up and
/// `%passthrough` as a `tun` SAID with SPI 0; those spellings are read, and the words are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Said {
    /// An SA.
    Sa(SaId),
    /// `%pass`: in clear.
    Pass,
    /// `%drop`: silently nowhere.
    Drop,
    /// `%reject`: nowhere, and the sender is told.
    Reject,
    /// `%hold`: kept while a key manager is asked.
    Hold,
    /// `%trap`: ask a key manager for an SA.
    Trap,
    /// `%trapsubnet`: as `%trap`, for the whole of the eroute's subnets.
    TrapSubnet,
    /// `%passthrough4`: in clear, IPv4, by way of a tunnel without an SA.
    Passthrough4,
    /// `%passthrough6`: the same for IPv6.
    Passthrough6,
}

impl Said {
    /// The word for everything that is not an SA.
    pub const fn word(&self) -> Option<&'static str> {
        match self {
            Self::Sa(_) => None,
            Self::Pass => Some("%pass"),
            Self::Drop => Some("%drop"),
            Self::Reject => Some("%reject"),
            Self::Hold => Some("%hold"),
            Self::Trap => Some("%trap"),
            Self::TrapSubnet => Some("%trapsubnet"),
            Self::Passthrough4 => Some("%passthrough4"),
            Self::Passthrough6 => Some("%passthrough6"),
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Sa(id) = self {
            return fmt::Display::fmt(id, f);
        }
        f.write_str(self.word().unwrap_or(""))
    }
}

impl FromStr for Said {
    type Err = SaIdError;

    fn from_str(text: &str) -> Result<Self, SaIdError> {
        match text {
            "%pass" => return Ok(Self::Pass),
            "%drop" => return Ok(Self::Drop),
            "%reject" => return Ok(Self::Reject),
            "%hold" => return Ok(Self::Hold),
            "%trap" => return Ok(Self::Trap),
            "%trapsubnet" => return Ok(Self::TrapSubnet),
            "%passthrough" | "%passthrough4" => return Ok(Self::Passthrough4),
            "%passthrough6" => return Ok(Self::Passthrough6),
            _ if text.starts_with('%') => return Err(SaIdError::Magic),
            _ => {}
        }
        match split(text)? {
            ("int", 256, _) => Ok(Self::Pass),
            ("int", 257, _) => Ok(Self::Drop),
            ("int", 258, _) => Ok(Self::Reject),
            ("int", 259, _) => Ok(Self::Hold),
            ("int", 260, _) => Ok(Self::Trap),
            ("int", 261, _) => Ok(Self::TrapSubnet),
            ("int", ..) => Err(SaIdError::Spi),
            ("tun", 0, IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ok(Self::Passthrough4),
            ("tun", 0, IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ok(Self::Passthrough6),
            _ => text.parse().map(Self::Sa),
        }
    }
}

/// Takes a SAID apart: protocol word, SPI, address.
fn split(text: &str) -> Result<(&str, u32, IpAddr), SaIdError> {
    let (head, address) = text.split_once('@').ok_or(SaIdError::NoAt)?;
    let word = ["ah", "esp", "tun", "comp", "int"];
    let word = word.iter().find(|word| head.starts_with(**word)).ok_or(SaIdError::Protocol)?;
    let (word, spi) = head.split_at_checked(word.len()).ok_or(SaIdError::Protocol)?;
    let (spi, family) = match (spi.strip_prefix('.'), spi.strip_prefix(':')) {
        (Some(hex), _) => (text::number_in(hex, 16), Family::V4),
        (_, Some(hex)) => (text::number_in(hex, 16), Family::V6),
        _ => (text::number(spi), if address.contains(':') { Family::V6 } else { Family::V4 }),
    };
    // KLIPS kept the low 32 bits of a longer number: a typing error then named an SA nobody meant.
    let spi = spi.ok().and_then(|spi| u32::try_from(spi).ok()).ok_or(SaIdError::Spi)?;
    // Tables put an IPv6 address in brackets where a protocol follows.
    let address = match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) if family == Family::V6 => inner,
        _ => address,
    };
    let address = text::address(address, Some(family)).map_err(|_| SaIdError::Address)?;
    Ok((word, spi, address))
}
