//! Distinguished names: as people write them, in DER, and which of them are the same (RFC 5280 §7.1).

use core::fmt::Write as _;
use der::{Decode, Encode, Tag, Tagged};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

/// The longest name that is read, in octets of DER: no honest one comes near it.
const LONGEST: usize = 4096;

/// A distinguished name in its DER form, which is the form that is sent and signed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dn(Vec<u8>);

/// What a value is compared by: text without regard to case, to the kind of string and to blanks that say nothing, and
/// anything else by its octets.
#[derive(Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Octets(u8, Vec<u8>),
}

impl Dn {
    /// Reads the DER of a name.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        (der.len() <= LONGEST && RdnSequence::from_der(der).is_ok()).then(|| Self(der.to_vec()))
    }

    /// The DER.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// Reads what people write: `C=CH, O=Example, CN=west`, in the order of the certificate, or `/C=CH/O=Example/CN=west`.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}`: {why}; a name is written C=CH, O=Example, CN=west");
        let mut name = RdnSequence::default();
        for part in parts(text) {
            let rdn: RelativeDistinguishedName =
                spelled(part).parse().map_err(|_| wrong(&format!("`{part}' is not understood")))?;
            name.push(rdn);
        }
        let der = name.to_der().map_err(|_| wrong("it has no form in DER"))?;
        Self::from_der(&der).filter(|_| !name.is_empty()).ok_or_else(|| wrong("it is empty or too long"))
    }

    /// Says whether both are the same name: the same attributes in the same order, values compared without regard to
    /// case, to the kind of string, and to blanks that say nothing.
    pub fn is(&self, other: &Self) -> bool {
        self.0 == other.0 || self.like(other, false)
    }

    /// Says whether `other` is this name where a value of this one that is `*` alone stands for any.
    fn like(&self, other: &Self, stars: bool) -> bool {
        let (Ok(one), Ok(two)) = (RdnSequence::from_der(&self.0), RdnSequence::from_der(&other.0)) else {
            return false;
        };
        let star = Value::Text("*".to_owned());
        let same = |a: &AttributeTypeAndValue, b: &AttributeTypeAndValue| {
            a.oid == b.oid && (value(a) == value(b) || (stars && value(a) == star))
        };
        one.len() == two.len()
            && one.iter().zip(two.iter()).all(|(one, two)| {
                one.len() == two.len()
                    && one.iter().all(|a| two.iter().any(|b| same(a, b)))
                    && two.iter().all(|b| one.iter().any(|a| same(a, b)))
            })
    }
}

/// The parts of a name as it is written, each one relative name.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let text = text.trim();
    let (text, mark) = text.strip_prefix('/').map_or((text, ','), |rest| (rest, '/'));
    let mut escaped = false;
    let split = move |c: char| {
        let cuts = c == mark && !escaped;
        escaped = c == '\\' && !escaped;
        cuts
    };
    text.split(split).map(str::trim)
}

/// The names of attributes in the spelling the library knows.
fn spelled(part: &str) -> String {
    let Some((key, value)) = part.split_once('=') else { return part.to_owned() };
    let key = match key.trim().to_ascii_uppercase().as_str() {
        "E" | "EMAIL" | "EMAILADDRESS" => "emailAddress".to_owned(),
        "S" => "ST".to_owned(),
        "SERIALNUMBER" | "SN" => "serialNumber".to_owned(),
        known @ ("C" | "ST" | "L" | "O" | "OU" | "CN" | "DC" | "UID" | "STREET") => known.to_owned(),
        _ => key.trim().to_owned(),
    };
    format!("{key}={}", value.trim())
}

fn value(attribute: &AttributeTypeAndValue) -> Value {
    let (tag, octets) = (attribute.value.tag(), attribute.value.value());
    let text = match tag {
        Tag::Utf8String => core::str::from_utf8(octets).ok(),
        Tag::PrintableString | Tag::Ia5String | Tag::TeletexString | Tag::VisibleString => {
            core::str::from_utf8(octets).ok().filter(|text| text.is_ascii())
        }
        _ => None,
    };
    match text {
        Some(text) => Value::Text(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()),
        None => Value::Octets(tag.number().value().try_into().unwrap_or(u8::MAX), octets.to_vec()),
    }
}

/// Says whether a character may go to a terminal or a log: not one that steers it, nor one that turns the direction of what
/// follows, so that a name reads as another.
fn is_printed(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

impl core::fmt::Display for Dn {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Ok(name) = RdnSequence::from_der(&self.0) else { return f.write_str("an unreadable name") };
        for (n, rdn) in name.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { ", " })?;
            for c in rdn.to_string().chars() {
                if is_printed(c) {
                    f.write_char(c)?;
                } else {
                    // As RFC 4514 §2.4 has it for what cannot be written.
                    c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|octet| write!(f, "\\{octet:02x}"))?;
                }
            }
        }
        if name.is_empty() { f.write_str("the empty name") } else { Ok(()) }
    }
}

impl core::fmt::Debug for Dn {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Dn({self})")
    }
}

/// A name with values that may be anything: `C=CH, O=Example, CN=*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnPattern(Dn);

impl DnPattern {
    /// Reads a name in which `*` stands for a whole value; `None` if it has none such.
    pub(crate) fn of(name: &Dn) -> Option<Self> {
        let read = RdnSequence::from_der(name.der()).ok()?;
        let star = Value::Text("*".to_owned());
        let any = read.iter().flat_map(RelativeDistinguishedName::iter).any(|one| value(one) == star);
        any.then(|| Self(name.clone()))
    }

    /// Says whether the name is one of these.
    pub fn matches(&self, name: &Dn) -> bool {
        self.0.like(name, true)
    }
}

impl core::fmt::Display for DnPattern {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use der::asn1::Any;
    use x509_cert::attr::AttributeTypeAndValue;

    fn dn(text: &str) -> Dn {
        Dn::parse(text).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn names_are_read_printed_and_read_again() {
        for (text, printed) in [
            ("C=CH, O=Example, CN=west.example.org", "C=CH, O=Example, CN=west.example.org"),
            ("c=CH,o=Example,cn=west.example.org", "C=CH, O=Example, CN=west.example.org"),
            ("/C=CH/O=Example/CN=west.example.org", "C=CH, O=Example, CN=west.example.org"),
            (r"O=Example\, Inc., CN=west", r"O=Example\, Inc., CN=west"),
            ("DC=org, DC=example, UID=alice", "DC=org, DC=example, UID=alice"),
        ] {
            assert_eq!(dn(text).to_string(), printed);
            assert!(dn(&dn(text).to_string()).is(&dn(text)));
        }
        assert!(dn("E=a@example.org, CN=a").is(&dn("emailAddress=a@example.org, CN=a")));
        for bad in ["", "CN", "nonsense=1", "CN=a,", "C=CH, , CN=a"] {
            assert!(Dn::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_same_name_is_the_same_and_nothing_else_is() {
        let name = dn("C=CH, O=Example, CN=west");
        for same in ["C=ch, O=EXAMPLE, CN=West", "C=CH, O=  Example ,CN=west"] {
            assert!(name.is(&dn(same)), "{same}");
        }
        // Order, number, attributes and values all count.
        for other in [
            "O=Example, C=CH, CN=west",
            "C=CH, O=Example",
            "C=CH, O=Example, CN=west, CN=west",
            "C=CH, O=Example, OU=west",
            "C=CH, O=Example, CN=west2",
            "C=CH, O=Example, CN=*",
            "C=CH, O=Example, CN=w est",
        ] {
            assert!(!name.is(&dn(other)) && !dn(other).is(&name), "{other}");
        }
        // The kind of string does not count; octets that are no text do.
        let with = |tag: Tag, octets: &[u8]| {
            let one = AttributeTypeAndValue {
                oid: "2.5.4.3".parse().unwrap(),
                value: Any::new(tag, octets).unwrap(),
            };
            let mut name = RdnSequence::default();
            let mut rdn = RelativeDistinguishedName::default();
            rdn.insert(one).unwrap();
            name.push(rdn);
            Dn::from_der(&name.to_der().unwrap()).unwrap()
        };
        assert!(with(Tag::PrintableString, b"west").is(&with(Tag::Utf8String, b"WEST")));
        assert!(!with(Tag::Utf8String, b"west\0").is(&with(Tag::Utf8String, b"west")));
        assert!(!with(Tag::BmpString, b"\0w").is(&with(Tag::Utf8String, b"w")));
    }

    #[test]
    fn a_star_stands_for_one_whole_value_of_the_pattern_and_never_of_the_name() {
        let pattern = DnPattern::of(&dn("C=CH, O=Example, CN=*")).unwrap();
        assert!(pattern.matches(&dn("C=CH, O=Example, CN=anybody")));
        for other in
            ["C=CH, O=Other, CN=anybody", "C=CH, O=Example", "C=CH, O=Example, CN=a, OU=b", "C=CH, O=*, CN=a"]
        {
            assert!(!pattern.matches(&dn(other)), "{other}");
        }
        assert!(DnPattern::of(&dn("C=CH, O=Example, CN=west*")).is_none());
    }

    #[test]
    fn what_steers_a_terminal_or_turns_a_line_round_is_written_as_octets() {
        for hostile in
            ["a\u{1b}[2J", "a\u{9b}2J", "a\nerror", "a\u{202e}b", "a\u{2066}b", "a\u{feff}b", "a\u{7f}"]
        {
            let one = AttributeTypeAndValue {
                oid: "2.5.4.3".parse().unwrap(),
                value: Any::new(Tag::Utf8String, hostile.as_bytes()).unwrap(),
            };
            let mut rdn = RelativeDistinguishedName::default();
            rdn.insert(one).unwrap();
            let mut name = RdnSequence::default();
            name.push(rdn);
            let text = Dn::from_der(&name.to_der().unwrap()).unwrap().to_string();
            assert!(text.starts_with("CN=a\\") && text.is_ascii(), "{text:?}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        assert_eq!(dn("CN=Zürich").to_string(), "CN=Zürich");
    }

    #[test]
    fn every_truncation_of_a_name_is_refused() {
        let der = dn("C=CH, O=Example, CN=west").der().to_vec();
        for end in 0..der.len() {
            assert!(Dn::from_der(&der[..end]).is_none());
        }
        assert!(Dn::from_der(&[&der[..], &[0]].concat()).is_none());
    }
}
