//! AUTH by a signature: which scheme a method and its data name, and what a peer's certificates come to (RFC 7296 §2.15,
//! §3.8; RFC 4754; RFC 7427; RFC 8420).

use super::believe::{Voucher, believe};
use crate::connection::Connection;
use crate::credential::{Known, RemoteSignature, Schemes};
use crate::dn::Dn;
use crate::event::Why;
use crate::identity::{Id, IdPattern};
use crate::message::{CertEncoding, Message, Payload};
use crate::x509::Certificate;
use crate::x509::path::{Distrust, Trust, in_time};
use ipsec_core::sign::{Curve, PublicKey, Scheme, SignatureHash};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// RSA with SHA-1 (IANA, IKEv2 Authentication Method).
pub(super) const RSA: u8 = 1;
/// ECDSA on a curve with its hash (RFC 4754).
pub(super) const ECDSA: [(u8, Curve); 3] = [(9, Curve::P256), (10, Curve::P384), (11, Curve::P521)];
/// Digital Signature (RFC 7427).
const DIGITAL: u8 = 14;

/// Certificates that are read from one message, and their octets together: three times the longest honest chain.
const MAX_CERTIFICATES: usize = 10;
const MAX_OCTETS: usize = 48 * 1024;

/// Says whether a method is one of these.
pub(crate) fn is_signature(method: u8) -> bool {
    method == RSA || method == DIGITAL || ECDSA.iter().any(|(number, _)| *number == method)
}

/// The method and the authentication data of a signature.
pub(crate) fn encode(scheme: Scheme, signature: &[u8]) -> Option<(u8, Vec<u8>)> {
    if let Scheme::EcdsaRaw(curve) = scheme {
        let (method, _) = ECDSA.iter().find(|(_, known)| *known == curve)?;
        return Some((*method, signature.to_vec()));
    }
    let identifier = scheme.identifier()?;
    let mut data = vec![u8::try_from(identifier.len()).ok()?];
    data.extend_from_slice(&identifier);
    data.extend_from_slice(signature);
    Some((DIGITAL, data))
}

/// The scheme and the signature in authentication data.
fn decode(method: u8, data: &[u8]) -> Option<(Scheme, &[u8])> {
    if method == RSA {
        return Some((Scheme::RsaPkcs1(SignatureHash::Sha1), data));
    }
    if let Some((_, curve)) = ECDSA.iter().find(|(number, _)| *number == method) {
        return Some((Scheme::EcdsaRaw(*curve), data));
    }
    let (length, rest) = data.split_first().filter(|_| method == DIGITAL)?;
    let (identifier, signature) = rest.split_at_checked(usize::from(*length))?;
    Some((Scheme::from_identifier(identifier)?, signature))
}

/// The scheme that an announcement names, by its method and, for RFC 7427, the identifier behind it (RFC 9593 §3.2).
pub(super) fn scheme_of(method: u8, identifier: &[u8]) -> Option<Scheme> {
    match (method, identifier) {
        (DIGITAL, identifier) => Scheme::from_identifier(identifier),
        (method, []) => decode(method, &[]).map(|(scheme, _)| scheme),
        _ => None,
    }
}

/// The certificates of a message as they came.
///
/// # Errors
/// There are more than any honest peer has.
pub(crate) fn certificates(message: &Message) -> Result<Vec<Vec<u8>>, Why> {
    let all = message.payloads.iter().filter_map(|payload| match payload {
        Payload::Cert { encoding: CertEncoding::X509Signature, data } => Some(data.clone()),
        _ => None,
    });
    let all: Vec<Vec<u8>> = all.take(MAX_CERTIFICATES.saturating_add(1)).collect();
    if all.len() > MAX_CERTIFICATES || all.iter().map(Vec::len).sum::<usize>() > MAX_OCTETS {
        return Err(Why::Protocol("it sent more certificates than a peer can have"));
    }
    Ok(all)
}

/// A signature to verify, with all that belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    /// Connections it may be for, the best first.
    pub(super) candidates: Vec<Arc<Connection>>,
    pub(super) claimed: Id,
    pub(super) method: u8,
    pub(super) data: Vec<u8>,
    /// What it must be a signature of.
    pub(super) octets: Vec<u8>,
    /// The peer's certificate, then others that may lead to an authority.
    pub(super) certificates: Vec<Vec<u8>>,
    pub(super) trust: Arc<Trust>,
    /// Seconds since 1970.
    pub(super) at: u64,
}

impl Evidence {
    /// The first connection for which all of it holds.
    ///
    /// # Errors
    /// What does not hold for the best of them.
    pub(super) fn examine(&self) -> Result<Arc<Connection>, Why> {
        let read = |der: &Vec<u8>| Certificate::from_der(der);
        let mut certificates = self.certificates.iter();
        let leaf = certificates.next().map(read).transpose().map_err(Why::Certificate)?;
        // One that cannot be read may be meant for others; whether it was needed, the path will show.
        let others: Vec<Certificate> = certificates.filter_map(|der| read(der).ok()).collect();
        let mut ways = Ways { trust: &self.trust, others: &others, at: self.at, known: Vec::new() };
        let mut first = None;
        for connection in &self.candidates {
            match self.fits(connection, leaf.as_ref(), &mut ways) {
                Ok(()) => return Ok(connection.clone()),
                Err(why) => first = first.or(Some(why)),
            }
        }
        Err(first.unwrap_or(Why::NoConnection(self.claimed.to_string())))
    }

    fn fits<'a>(
        &self,
        connection: &'a Connection,
        leaf: Option<&Certificate>,
        ways: &mut Ways<'a>,
    ) -> Result<(), Why> {
        let policy = connection.remote_auth.signature.as_ref().ok_or(Why::BadMethod(self.method))?;
        if !policy.known.is_empty() {
            let mut first = None;
            for known in &policy.known {
                match self.is_of(known, connection, policy) {
                    Ok(()) => return Ok(()),
                    Err(why) => first = first.or(Some(why)),
                }
            }
            return Err(first.unwrap_or(Why::BadSignature(self.claimed.to_string())));
        }
        let leaf = leaf.ok_or_else(|| Why::NoCertificate(self.claimed.to_string()))?;
        // Names first: that is the cheapest, and what a person has to mend most often.
        believe(&self.claimed, Voucher::Authority(leaf), &connection.remote_id)?;
        ways.lead(leaf, &policy.authorities).map_err(Why::Distrust)?;
        self.verify(&policy.schemes, leaf.key())
    }

    /// Whether it was made with a key that the connection names.
    fn is_of(&self, known: &Known, connection: &Connection, policy: &RemoteSignature) -> Result<(), Why> {
        let voucher = match known {
            Known::Key(_) => Voucher::NamedKey,
            Known::Certificate(certificate) => {
                in_time(certificate, self.at).map_err(Why::Distrust)?;
                Voucher::Named(certificate)
            }
        };
        believe(&self.claimed, voucher, &connection.remote_id)?;
        self.verify(&policy.schemes, known.key())
    }

    fn verify(&self, schemes: &Schemes, key: &PublicKey) -> Result<(), Why> {
        let (scheme, signature) = decode(self.method, &self.data)
            .ok_or(Why::Protocol("its signature is of no scheme that is known here"))?;
        if !schemes.allow(scheme) {
            return Err(Why::Scheme(scheme));
        }
        key.verify(scheme, &self.octets, signature).map_err(|_| Why::BadSignature(self.claimed.to_string()))
    }
}

/// Ways from a peer's certificate to authorities, each looked for once, however many connections ask for the same ones: whoever
/// sends certificates that lead nowhere chooses how long that takes.
struct Ways<'a> {
    trust: &'a Trust,
    others: &'a [Certificate],
    at: u64,
    known: Vec<(&'a [Dn], Result<(), Distrust>)>,
}

impl<'a> Ways<'a> {
    fn lead(&mut self, leaf: &Certificate, authorities: &'a [Dn]) -> Result<(), Distrust> {
        if let Some((_, outcome)) = self.known.iter().find(|(known, _)| *known == authorities) {
            return outcome.clone();
        }
        let outcome = self.trust.path(leaf, self.others, authorities, self.at);
        self.known.push((authorities, outcome.clone()));
        outcome
    }
}

/// What a certificate is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) policy: &'a RemoteSignature,
    /// Who the connection is for.
    pub(crate) wanted: &'a IdPattern,
    /// Who the peer says it is; there may be several ways in which it has.
    pub(crate) claims: &'a [Id],
    pub(crate) trust: &'a Trust,
    /// Seconds since 1970.
    pub(crate) at: u64,
}

impl Shown<'_> {
    /// Says whether an authority vouches for this identity by this certificate.
    fn vouched(&self, claimed: &Id, leaf: &Certificate, others: &[Certificate]) -> Result<(), Why> {
        // Names first: that is the cheapest, and what a person has to mend most often.
        believe(claimed, Voucher::Authority(leaf), self.wanted)?;
        self.trust.path(leaf, others, &self.policy.authorities, self.at).map_err(Why::Distrust)
    }
}

/// Says whose a certificate is that came in TLS, with others behind it. That its holder has the key, TLS will show.
///
/// # Errors
/// Why it is not believed.
pub(crate) fn in_tls(shown: Shown<'_>, (leaf, others): (&[u8], &[CertificateDer<'_>])) -> Result<Id, Why> {
    let octets = others.iter().fold(leaf.len(), |sum, one| sum.saturating_add(one.len()));
    if others.len() >= MAX_CERTIFICATES || octets > MAX_OCTETS {
        return Err(Why::Protocol("it sent more certificates than a peer can have"));
    }
    let leaf = Certificate::from_der(leaf).map_err(Why::Certificate)?;
    let others: Vec<Certificate> = others.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    // Of what it says it is, the first that the certificate says as well; if none, that is what is wrong.
    let first = shown.claims.first();
    let claimed = shown.claims.iter().find(|claimed| leaf.vouches_for(claimed)).or(first);
    let claimed = claimed.ok_or(Why::Protocol("it did not say who it is"))?;
    let known = &shown.policy.known;
    if known.is_empty() {
        return shown.vouched(claimed, &leaf, &others).map(|()| claimed.clone());
    }
    let same = known.iter().find(|known| known.key() == leaf.key());
    let voucher = match same.ok_or_else(|| Why::BadSignature(claimed.to_string()))? {
        Known::Key(_) => Voucher::NamedKey,
        Known::Certificate(certificate) => {
            in_time(certificate, shown.at).map_err(Why::Distrust)?;
            Voucher::Named(certificate)
        }
    };
    believe(claimed, voucher, shown.wanted).map(|()| claimed.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::{Authority, NOW};
    use crate::message::{Exchange, Flags, Header, IkeSpi};

    #[test]
    fn methods_and_their_data_are_written_and_read() {
        for scheme in [
            Scheme::RsaPss(SignatureHash::Sha256),
            Scheme::RsaPkcs1(SignatureHash::Sha512),
            Scheme::Ecdsa(SignatureHash::Sha384),
            Scheme::Ed25519,
            Scheme::EcdsaRaw(Curve::P256),
            Scheme::EcdsaRaw(Curve::P384),
            Scheme::EcdsaRaw(Curve::P521),
        ] {
            let (method, data) = encode(scheme, b"signature").unwrap();
            assert!(is_signature(method));
            assert_eq!(decode(method, &data), Some((scheme, &b"signature"[..])));
            // Cut anywhere within the name of the scheme, it names none.
            let name = data.len() - b"signature".len();
            for end in 0..name {
                assert!(method != DIGITAL || decode(method, &data[..end]).is_none(), "{scheme:?} {end}");
            }
        }
        assert_eq!(decode(1, b"s"), Some((Scheme::RsaPkcs1(SignatureHash::Sha1), &b"s"[..])));
        for method in [0, 2, 3, 12, 13, 15, 255] {
            assert!(!is_signature(method) && decode(method, b"\x01s").is_none(), "{method}");
        }
        assert_eq!(decode(14, b""), None);
    }

    #[test]
    fn a_way_to_an_authority_is_looked_for_once_however_many_connections_there_are() {
        let (ca, stranger) = (Authority::new("CN=One"), Authority::new("CN=Nobody's"));
        let leaf = stranger.gateway("CN=west", &[]).certificate;
        let trust = Trust { authorities: vec![ca.certificate.clone()], ..Trust::default() };
        let (any, one) = (Vec::new(), vec![ca.certificate.subject().clone()]);
        let mut ways = Ways { trust: &trust, others: &[], at: NOW, known: Vec::new() };
        for _ in 0..16 {
            assert!(matches!(ways.lead(&leaf, &any), Err(Distrust::NoAuthority { .. })));
        }
        assert_eq!(ways.known.len(), 1);
        assert!(ways.lead(&leaf, &one).is_err());
        assert_eq!(ways.known.len(), 2);
        // Another evidence is another question.
        let good = ca.gateway("CN=west", &[]).certificate;
        let mut ways = Ways { known: Vec::new(), ..ways };
        assert!(ways.lead(&good, &any).is_ok() && ways.lead(&good, &one).is_ok());
    }

    #[test]
    fn more_certificates_than_a_peer_can_have_are_refused() {
        let with = |count: usize, octets: usize| {
            let one = Payload::Cert { encoding: CertEncoding::X509Signature, data: vec![0; octets] };
            let flags = Flags { initiator: true, response: false };
            let header =
                Header { spi_i: IkeSpi(1), spi_r: IkeSpi(2), exchange: Exchange::IkeAuth, flags, id: 1 };
            certificates(&Message { header, payloads: vec![one; count] })
        };
        assert_eq!(with(10, 1000).unwrap().len(), 10);
        assert!(with(11, 1).is_err());
        assert!(with(4, 13_000).is_err());
    }
}
