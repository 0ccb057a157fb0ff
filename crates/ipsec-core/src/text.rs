//! Addresses, subnets, numbers, protocols and ports as people write them.
//!
//! The grammar of ttoaddr(3), ttosubnet(3), ttoul(3) and ttoprotoport(3), numeric only: nothing here asks a resolver.
//! Where the historical parsers lost information silently, these refuse: numbers too big for their field (port 65536
//! meant "no port"), unknown service names and an empty port (both meant "any port"), an empty protocol. IPv6
//! text is whatever RFC 4291 §2.2 allows, embedded IPv4 included.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The family an address is expected to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Why a text is not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextError {
    /// Nothing there.
    Empty,
    /// Not a number, or a digit the base does not have.
    Number,
    /// A number that does not fit its field.
    TooBig,
    /// Not a numeric address.
    Address,
    /// An address of the other family.
    Family,
    /// No `/` where a subnet was expected.
    NoSlash,
    /// More mask bits than the address has.
    MaskBits,
    /// Ones and zeros mixed in a mask.
    Mask,
    /// `%default` where the family is not known.
    Default,
    /// Not a protocol.
    Protocol,
    /// Not a port.
    Port,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty string",
            Self::Number => "non-digit in number",
            Self::TooBig => "number too large",
            Self::Address => "not a numeric address",
            Self::Family => "address of the wrong family",
            Self::NoSlash => "no / in subnet specification",
            Self::MaskBits => "subnet mask bit count too large",
            Self::Mask => "non-contiguous or otherwise erroneous mask",
            Self::Default => "%default needs a known address family",
            Self::Protocol => "<protocol> is neither a number between 0 and 255 nor a known name",
            Self::Port => "<port> must be a number between 0 and 65535 or a known service",
        })
    }
}

impl core::error::Error for TextError {}

/// A number in C notation: `0x` hexadecimal, a leading `0` octal, anything else decimal; no sign, no blanks.
pub fn number(text: &str) -> Result<u64, TextError> {
    match (text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")), text.strip_prefix('0')) {
        (Some(""), _) => Err(TextError::Number),
        (Some(hex), _) => number_in(hex, 16),
        (_, Some(octal)) if !octal.is_empty() => number_in(octal, 8),
        _ => number_in(text, 10),
    }
}

/// A number in base 8, 10 or 16 without any prefix.
pub fn number_in(text: &str, base: u32) -> Result<u64, TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    text.chars().try_fold(0_u64, |value, c| {
        let digit = c.to_digit(base).ok_or(TextError::Number)?;
        value
            .checked_mul(u64::from(base))
            .and_then(|v| v.checked_add(u64::from(digit)))
            .ok_or(TextError::TooBig)
    })
}

/// An address: dotted decimal with trailing octets left out (`10` is 10.0.0.0), IPv6, or with a known family
/// `0x` and eight hexadecimal digits.
///
/// Octets are decimal even with leading zeros, as they always were here (`010.1.2.3` is 10.1.2.3).
pub fn address(text: &str, family: Option<Family>) -> Result<IpAddr, TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    if let (Some(Family::V4), Some(hex)) = (family, text.strip_prefix("0x").filter(|hex| hex.len() == 8)) {
        let bits = number_in(hex, 16).map_err(|_| TextError::Address)?;
        return Ok(Ipv4Addr::from_bits(u32::try_from(bits).map_err(|_| TextError::Address)?).into());
    }
    if text.contains(':') {
        let v6: Ipv6Addr = text.parse().map_err(|_| TextError::Address)?;
        return if family == Some(Family::V4) { Err(TextError::Family) } else { Ok(v6.into()) };
    }
    let v4 = dotted(text)?;
    if family == Some(Family::V6) { Err(TextError::Family) } else { Ok(v4.into()) }
}

fn dotted(text: &str) -> Result<Ipv4Addr, TextError> {
    // One dot may follow the last octet given.
    let text = text.strip_suffix('.').filter(|_| text.matches('.').count() < 4).unwrap_or(text);
    let mut octets = [0; 4];
    let mut places = octets.iter_mut();
    for part in text.split('.') {
        let value = number_in(part, 10).map_err(|_| TextError::Address)?;
        *places.next().ok_or(TextError::Address)? = u8::try_from(value).map_err(|_| TextError::Address)?;
    }
    Ok(octets.into())
}

/// A subnet and the port written after it, `address/bits[:port]` or `address/mask[:port]`; host bits are cleared. IPv6
/// may also be written as tables have it, `[address/bits]:port`.
///
/// `%default` is everything of the known family. A mask may be dotted or `0x` and hexadecimal (IPv4 only); port 0 is
/// no port.
pub fn subnet(text: &str, family: Option<Family>) -> Result<(IpNet, Option<u16>), TextError> {
    if text == "%default" {
        return match family {
            Some(Family::V4) => Ok((IpNet::V4(Ipv4Net::default()), None)),
            Some(Family::V6) => Ok((IpNet::V6(Ipv6Net::default()), None)),
            None => Err(TextError::Default),
        };
    }
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    // `[2001:db8::/64]:25`, as tables write IPv6 with a port.
    let bracketed = text.strip_prefix('[');
    let (host, rest) = bracketed.unwrap_or(text).split_once('/').ok_or(TextError::NoSlash)?;
    let (mask, port) = match (bracketed, rest.split_once(':')) {
        (None, Some((mask, port))) => (mask, Some(port)),
        (None, None) => (rest, None),
        (Some(_), Some((mask, port))) => (mask.strip_suffix(']').ok_or(TextError::Mask)?, Some(port)),
        (Some(_), None) => (rest.strip_suffix(']').ok_or(TextError::Mask)?, None),
    };
    let port = port.map(|port| u16::try_from(number(port)?).map_err(|_| TextError::Port)).transpose()?;
    let host = address(host, family)?;
    if bracketed.is_some() && host.is_ipv4() {
        return Err(TextError::Address);
    }
    let net = IpNet::new(host, prefix_len(mask, host)?).map_err(|_| TextError::MaskBits)?;
    Ok((net.trunc(), port.filter(|&port| port != 0)))
}

/// A mask as a number of bits (decimal, leading zeros or not), dotted, or hexadecimal.
fn prefix_len(mask: &str, host: IpAddr) -> Result<u8, TextError> {
    if mask.is_empty() {
        return Err(TextError::Empty);
    }
    if host.is_ipv4() && (mask.contains('.') || mask.starts_with("0x")) {
        let IpAddr::V4(mask) = address(mask, Some(Family::V4)).map_err(|_| TextError::Mask)? else {
            return Err(TextError::Mask);
        };
        let bits = mask.to_bits();
        return if bits.leading_ones() == bits.count_ones() {
            Ok(bits.leading_ones() as u8)
        } else {
            Err(TextError::Mask)
        };
    }
    let bits = number_in(mask, 10)?;
    u8::try_from(bits).map_err(|_| TextError::MaskBits)
}

/// A transport protocol and a port, as `leftprotoport=` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtoPort {
    /// The protocol, 0 for any.
    pub proto: u8,
    /// The port, 0 for any.
    pub port: u16,
    /// `%any`: a single port, whichever the peer has.
    pub any_port: bool,
}

/// `protocol`, `protocol/port` or `protocol/%any`, by number or by name.
///
/// `service` finds the port of a service name under a protocol; the host has a database for that, nothing here does.
pub fn proto_port(text: &str, service: impl Fn(&str, u8) -> Option<u16>) -> Result<ProtoPort, TextError> {
    let (proto, port) = match text.split_once('/') {
        Some((proto, port)) => (proto, Some(port)),
        None => (text, None),
    };
    let proto = protocol(proto)?;
    let (port, any_port) = match port {
        None => (0, false),
        Some("%any") => (0, true),
        Some(name) => (self::port(name, proto, service)?, false),
    };
    Ok(ProtoPort { proto, port, any_port })
}

/// A port, by decimal number or by service name.
pub fn port(text: &str, proto: u8, service: impl Fn(&str, u8) -> Option<u16>) -> Result<u16, TextError> {
    match number(text) {
        Ok(port) => u16::try_from(port).map_err(|_| TextError::Port),
        Err(_) => service(text, proto).ok_or(TextError::Port),
    }
}

/// A transport protocol, by number or by its name in protocols(5).
pub fn protocol(text: &str) -> Result<u8, TextError> {
    if let Ok(number) = number(text) {
        return u8::try_from(number).map_err(|_| TextError::Protocol);
    }
    PROTOCOLS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|&(_, number)| number)
        .ok_or(TextError::Protocol)
}

/// The protocol's name, if it has one that [`protocol`] reads.
pub fn protocol_name(number: u8) -> Option<&'static str> {
    PROTOCOLS.iter().find(|&&(_, known)| known == number).map(|&(name, _)| name)
}

/// The IANA protocol numbers that occur in selectors.
const PROTOCOLS: [(&str, u8); 26] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("ipip", 4),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ipv6-crypt", 50),
    ("ah", 51),
    ("ipv6-auth", 51),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("ipcomp", 108),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("udplite", 136),
];
