//! Identities (RFC 7296 §3.5): as people write them, as they stand in ID payloads, and which of them are the same.

use crate::dn::{Dn, DnPattern};
use crate::message::IdBody;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who one side is, or must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// ID_IPV4_ADDR, ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_FQDN, without the `@` people write in front.
    Fqdn(String),
    /// ID_RFC822_ADDR: `user@host`.
    Mail(String),
    /// ID_DER_ASN1_DN.
    Name(Dn),
    /// ID_KEY_ID: octets with a meaning between the two sides only.
    Key(Vec<u8>),
}

/// The longest identity that a peer may have: names of hosts and of people are shorter, and it is logged.
const LONGEST: usize = 1024;

impl Id {
    /// Reads what people write: an address, `@name`, `name`, `user@host`, `C=CH, CN=name`, `@#hex` or `@[text]` for a key
    /// ID.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if let Some(hex) = text.strip_prefix("@#") {
            let hex = hex.trim_start_matches("0x");
            let digits = hex.as_bytes().chunks(2).map(|pair| {
                core::str::from_utf8(pair)
                    .ok()
                    .filter(|pair| pair.len() == 2)
                    .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            });
            let octets: Option<Vec<u8>> = digits.collect();
            return octets.filter(|octets| !octets.is_empty()).map(Self::Key).ok_or_else(|| {
                format!("`{text}`: after @# come pairs of hexadecimal digits, such as @#0a1b")
            });
        }
        if let Some(inner) = text.strip_prefix("@[").and_then(|rest| rest.strip_suffix(']')) {
            return Ok(Self::Key(inner.as_bytes().to_vec()));
        }
        if !text.starts_with('@') && text.contains('=') {
            return Dn::parse(text).map(Self::Name);
        }
        let named = text.strip_prefix('@').unwrap_or(text);
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '=' | '"' | '\'');
        if named.is_empty() || !named.chars().all(plain) {
            return Err(format!(
                "`{text}` is no identity: write an address, @name, user@host, @#hex, or a name such as \"C=CH, CN=west\""
            ));
        }
        match named.split_once('@') {
            Some((user, host)) if !user.is_empty() && !host.is_empty() => Ok(Self::Mail(named.to_owned())),
            Some(_) => Err(format!("`{text}` is no identity: user@host lacks the user or the host")),
            None => Ok(Self::Fqdn(named.to_owned())),
        }
    }

    /// The identity of a user who has proved who it is by a password.
    pub fn user(name: &str) -> Self {
        if name.contains('@') { Self::Mail(name.to_owned()) } else { Self::Fqdn(name.to_owned()) }
    }

    /// The payload that says so.
    pub fn body(&self) -> IdBody {
        match self {
            Self::Address(IpAddr::V4(address)) => IdBody { kind: 1, data: address.octets().to_vec() },
            Self::Address(IpAddr::V6(address)) => IdBody { kind: 5, data: address.octets().to_vec() },
            Self::Fqdn(name) => IdBody { kind: 2, data: name.as_bytes().to_vec() },
            Self::Mail(name) => IdBody { kind: 3, data: name.as_bytes().to_vec() },
            Self::Name(name) => IdBody { kind: 9, data: name.der().to_vec() },
            Self::Key(octets) => IdBody { kind: 11, data: octets.clone() },
        }
    }

    /// Who a peer says it is; `None` for a type we do not know, or data that is none of its type. Names must be
    /// printable: an octet 0 in one has let peers pass for others.
    pub fn from_body(body: &IdBody) -> Option<Self> {
        let text = || {
            let text = core::str::from_utf8(&body.data).ok()?;
            let fits = text.len() <= LONGEST && text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
            fits.then(|| text.to_owned())
        };
        match body.kind {
            1 => <[u8; 4]>::try_from(&*body.data).ok().map(|a| Self::Address(Ipv4Addr::from(a).into())),
            5 => <[u8; 16]>::try_from(&*body.data).ok().map(|a| Self::Address(Ipv6Addr::from(a).into())),
            2 => text().map(Self::Fqdn),
            3 => text().map(Self::Mail),
            9 if body.data.len() <= LONGEST => Dn::from_der(&body.data).map(Self::Name),
            11 if body.data.len() <= LONGEST => Some(Self::Key(body.data.clone())),
            _ => None,
        }
    }

    /// Says whether both are the same identity: the type counts, case does not count in names of hosts.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fqdn(one), Self::Fqdn(two)) => one.eq_ignore_ascii_case(two),
            (Self::Mail(one), Self::Mail(two)) => match (one.rsplit_once('@'), two.rsplit_once('@')) {
                // The part before the @ belongs to its host, which alone knows whether case counts there.
                (Some((user, host)), Some((user2, host2))) => {
                    user == user2 && host.eq_ignore_ascii_case(host2)
                }
                _ => one == two,
            },
            (Self::Name(one), Self::Name(two)) => one.is(two),
            _ => self == other,
        }
    }
}

impl core::fmt::Display for Id {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Fqdn(name) => write!(f, "@{name}"),
            Self::Mail(name) => f.write_str(name),
            Self::Key(octets) => {
                f.write_str("@#")?;
                octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// Which identities one side may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdPattern {
    /// This one.
    Exactly(Id),
    /// Names of hosts that end so, at a dot: `*.example.org`, written without the star.
    Below(String),
    /// Anybody's address at this host: `*@example.org`, written without the star.
    At(String),
    /// Distinguished names of a shape: `C=CH, O=Example, CN=*`.
    Like(DnPattern),
    /// Any that has the secret or the certificate (`%any`).
    Any,
}

impl IdPattern {
    /// Reads what people write: an identity, `%any`, or one with `*`: `@*.example.org`, `*@example.org`,
    /// `C=CH, O=Example, CN=*`.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if matches!(text, "%any" | "%any4" | "%any6" | "0.0.0.0" | "::" | "*") {
            return Ok(Self::Any);
        }
        if text.starts_with("@#") || text.starts_with("@[") || !text.contains('*') {
            return Id::parse(text).map(Self::Exactly);
        }
        let wrong = || {
            format!(
                "`{text}`: a * stands for the first part of a name (@*.example.org, *@example.org) or for a whole value (C=CH, CN=*)"
            )
        };
        if text.contains('=') {
            let name = Dn::parse(text)?;
            return DnPattern::of(&name).map(Self::Like).ok_or_else(wrong);
        }
        if let Some(host) = text.strip_prefix("*@").filter(|host| !host.contains('*')) {
            return match Id::parse(host)? {
                Id::Fqdn(host) => Ok(Self::At(host)),
                _ => Err(wrong()),
            };
        }
        let below =
            text.strip_prefix('@').unwrap_or(text).strip_prefix('*').filter(|rest| rest.starts_with('.'));
        match below.map(|rest| Id::parse(rest.trim_start_matches('.'))) {
            Some(Ok(Id::Fqdn(host))) if !host.contains('*') => Ok(Self::Below(format!(".{host}"))),
            _ => Err(wrong()),
        }
    }

    /// Says whether the identity is one of them.
    pub fn matches(&self, id: &Id) -> bool {
        let ends = |name: &str, end: &str| {
            let cut = name.len().checked_sub(end.len()).filter(|cut| *cut > 0);
            cut.and_then(|cut| name.get(cut..)).is_some_and(|rest| rest.eq_ignore_ascii_case(end))
        };
        match (self, id) {
            (Self::Exactly(wanted), id) => wanted.is(id),
            (Self::Below(end), Id::Fqdn(name)) => ends(name, end),
            (Self::At(host), Id::Mail(name)) => {
                name.rsplit_once('@').is_some_and(|(_, named)| named.eq_ignore_ascii_case(host))
            }
            (Self::Like(pattern), Id::Name(name)) => pattern.matches(name),
            (Self::Below(_) | Self::At(_) | Self::Like(_), _) => false,
            (Self::Any, _) => true,
        }
    }

    /// How much it leaves open: what says more is taken before what says less.
    pub(crate) const fn looseness(&self) -> u8 {
        match self {
            Self::Exactly(_) => 0,
            Self::Below(_) | Self::At(_) | Self::Like(_) => 1,
            Self::Any => 2,
        }
    }
}

impl core::fmt::Display for IdPattern {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Exactly(id) => write!(f, "{id}"),
            Self::Below(end) => write!(f, "@*{end}"),
            Self::At(host) => write!(f, "*@{host}"),
            Self::Like(pattern) => write!(f, "{pattern}"),
            Self::Any => f.write_str("%any"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_printed_and_read_again() {
        for (text, kind) in [
            ("192.0.2.1", 1),
            ("2001:db8::1", 5),
            ("@west.example.org", 2),
            ("west.example.org", 2),
            ("alice@example.org", 3),
            ("@#0a1b", 11),
            ("@[group]", 11),
            ("C=CH, O=Example, CN=west", 9),
        ] {
            let id = Id::parse(text).unwrap();
            assert_eq!(id.body().kind, kind, "{text}");
            assert_eq!(Id::from_body(&id.body()), Some(id.clone()), "{text}");
            assert_eq!(Id::parse(&id.to_string()), Ok(id), "{text}");
        }
        for bad in ["", "@", "@#", "@#0", "@#xy", "a@", "@a@", "a b", "C=CH,"] {
            assert!(Id::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_type_is_not_another_and_no_trick_with_octets_makes_it_so() {
        let fqdn = Id::parse("@192.0.2.1").unwrap();
        assert!(!fqdn.is(&Id::parse("192.0.2.1").unwrap()));
        assert!(Id::parse("@West.Example.org").unwrap().is(&Id::parse("@west.example.ORG").unwrap()));
        assert!(!Id::parse("Alice@example.org").unwrap().is(&Id::parse("alice@example.org").unwrap()));
        assert!(!Id::parse("@example.org").unwrap().is(&Id::parse("@a.example.org").unwrap()));
        let with_zero = IdBody { kind: 2, data: b"west.example.org\0.evil.org".to_vec() };
        assert_eq!(Id::from_body(&with_zero), None);
        assert_eq!(Id::from_body(&IdBody { kind: 1, data: vec![1, 2, 3] }), None);
        assert_eq!(Id::from_body(&IdBody { kind: 13, data: vec![] }), None);
        for kind in [2, 3, 11] {
            let long = |octets| Id::from_body(&IdBody { kind, data: vec![b'a'; octets] });
            assert!(long(LONGEST).is_some() && long(LONGEST + 1).is_none());
        }
    }
}
