//! Certificates (RFC 5280) as IKE needs them: the key, the names it is vouched for under, and what it may be used for.
//!
//! [`path`] leads from a certificate to an authority that is trusted, [`request`] asks one for a certificate.

pub mod path;
pub mod request;

use crate::dn::Dn;
use crate::identity::Id;
use crate::message::IdBody;
use core::net::IpAddr;
use der::{Decode, Encode};
use ipsec_core::digest::sha1;
use ipsec_core::sign::{PublicKey, SignError};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

/// The longest certificate that is read.
const LONGEST: usize = 16384;
/// Names in one certificate. Each is compared with what a peer says it is.
const MAX_NAMES: usize = 256;

/// A certificate, read and not yet trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    key: PublicKey,
    subject: Dn,
    issuer: Dn,
    names: Vec<Id>,
    valid: (u64, u64),
    /// The key may sign what its holder says (RFC 4945 §5.1.3.2).
    signs: bool,
    /// It is an authority, and may sign certificates.
    authority: bool,
}

/// Why a certificate cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Not a certificate in DER.
    Malformed,
    /// Longer than any honest one, or with more names.
    TooLong,
    /// Its key is none we can use.
    Key(SignError),
}

impl core::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed => f.write_str("not an X.509 certificate"),
            Self::TooLong => write!(f, "a certificate of more than {LONGEST} octets or {MAX_NAMES} names"),
            Self::Key(error) => write!(f, "a certificate with {error}"),
        }
    }
}

impl Certificate {
    /// Reads the DER of a certificate.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Self, Unreadable> {
        let malformed = Unreadable::Malformed;
        if der.len() > LONGEST {
            return Err(Unreadable::TooLong);
        }
        let read = x509_cert::Certificate::from_der(der).map_err(|_| malformed)?;
        let tbs = read.tbs_certificate();
        let spki = tbs.subject_public_key_info().to_der().map_err(|_| malformed)?;
        let key = PublicKey::from_spki(&spki).map_err(Unreadable::Key)?;
        let name = |name: &x509_cert::name::Name| {
            name.to_der().ok().and_then(|der| Dn::from_der(&der)).ok_or(malformed)
        };
        let (subject, issuer) = (name(tbs.subject())?, name(tbs.issuer())?);
        let alternative = tbs.get_extension::<SubjectAltName>().map_err(|_| malformed)?;
        let alternative = alternative.map(|(_, SubjectAltName(names))| names).unwrap_or_default();
        if alternative.len() > MAX_NAMES {
            return Err(Unreadable::TooLong);
        }
        let mut names: Vec<Id> = alternative.iter().filter_map(identity).collect();
        // A certificate may have no name of its own; nobody's identity is the empty one.
        names.extend(Some(Id::Name(subject.clone())).filter(|_| !tbs.subject().is_empty()));
        let time = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        let usage = tbs.get_extension::<KeyUsage>().map_err(|_| malformed)?.map(|(_, usage)| usage);
        let basic = tbs.get_extension::<BasicConstraints>().map_err(|_| malformed)?;
        let (signs, certifies) =
            usage.map_or((true, true), |u| (u.digital_signature() || u.non_repudiation(), u.key_cert_sign()));
        Ok(Self {
            der: der.to_vec(),
            key,
            subject,
            issuer,
            names,
            valid: (time(tbs.validity().not_before), time(tbs.validity().not_after)),
            signs,
            authority: certifies && basic.is_some_and(|(_, basic)| basic.ca),
        })
    }

    /// The DER it was read from.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its key.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whose it is.
    pub const fn subject(&self) -> &Dn {
        &self.subject
    }

    /// Who signed it.
    pub const fn issuer(&self) -> &Dn {
        &self.issuer
    }

    /// The identities it vouches for: its subject, and the subjectAltNames that are identities of IKE.
    pub fn names(&self) -> &[Id] {
        &self.names
    }

    /// When it begins and ends to be valid, in seconds since 1970; both belong to it.
    pub const fn valid(&self) -> (u64, u64) {
        self.valid
    }

    /// Whether it is an authority's.
    pub const fn is_authority(&self) -> bool {
        self.authority
    }

    /// Whether it says of the holder of its key that this is its identity. A certificate vouches for no KEY_ID, and the
    /// commonName in its subject is no host's name (RFC 4945 §3.1).
    pub fn vouches_for(&self, id: &Id) -> bool {
        self.names.iter().any(|name| name.is(id))
    }

    /// The hash by which certificates of this authority are asked for: SHA-1 of its public key (RFC 7296 §3.7).
    pub fn key_hash(&self) -> [u8; 20] {
        sha1(&[self.key.spki()])
    }
}

/// The identity of IKE that a subjectAltName is. A name with a `*` is a web server's way to have many: it is none.
fn identity(name: &GeneralName) -> Option<Id> {
    let body = |kind: u8, data: &[u8]| IdBody { kind, data: data.to_vec() };
    let id = match name {
        GeneralName::DnsName(name) => Id::from_body(&body(2, name.as_bytes())),
        GeneralName::Rfc822Name(name) => Id::from_body(&body(3, name.as_bytes())),
        GeneralName::IpAddress(octets) => match octets.as_bytes().len() {
            4 => Id::from_body(&body(1, octets.as_bytes())),
            16 => Id::from_body(&body(5, octets.as_bytes())),
            _ => None,
        },
        GeneralName::DirectoryName(name) => Id::from_body(&body(9, &name.to_der().ok()?)),
        GeneralName::OtherName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::UniformResourceIdentifier(_)
        | GeneralName::RegisteredId(_) => None,
    };
    id.filter(|id| match id {
        Id::Fqdn(name) | Id::Mail(name) => !name.is_empty() && !name.contains('*'),
        // What stands for every address is nobody's.
        Id::Address(address) => *address != IpAddr::from([0; 4]) && *address != IpAddr::from([0; 16]),
        Id::Name(_) | Id::Key(_) => true,
    })
}

impl core::fmt::Display for Certificate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.subject)
    }
}

impl core::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Certificate({self})")
    }
}

/// A time as people read it: `2026-11-28T22:00:00Z`.
pub fn date(seconds: u64) -> String {
    let time = der::DateTime::from_unix_duration(core::time::Duration::from_secs(seconds));
    time.map_or_else(|_| format!("{seconds} s after 1970"), |time| time.to_string())
}
