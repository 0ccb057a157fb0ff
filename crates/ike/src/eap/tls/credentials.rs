//! What TLS asks about keys and certificates, answered as IKE_AUTH answers it.

use crate::auth::signature::{Shown, in_tls};
use crate::credential::{LocalSignature, RemoteSignature, Schemes};
use crate::event::Why;
use crate::identity::{Id, IdPattern};
use crate::x509::Certificate;
use crate::x509::path::{Distrust, Trust};
use ipsec_core::sign::{Curve, KeyKind, PrivateKey, Scheme, SignatureHash};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureAlgorithm,
    SignatureScheme,
};
use std::sync::{Arc, Mutex, PoisonError};

/// Authorities that are named in a request for a certificate.
const MAX_AUTHORITIES: usize = 20;

/// Schemes of both worlds and the keys they are of, those we like best first. TLS 1.3 has no PKCS#1, and binds the curve to
/// the hash.
const SCHEMES: [(SignatureScheme, Scheme, KeyKind); 10] = {
    use Scheme::{Ecdsa, Ed25519, RsaPkcs1, RsaPss};
    use SignatureHash::{Sha256, Sha384, Sha512};
    [
        (SignatureScheme::ED25519, Ed25519, KeyKind::Ed25519),
        (SignatureScheme::ECDSA_NISTP256_SHA256, Ecdsa(Sha256), KeyKind::Ec(Curve::P256)),
        (SignatureScheme::ECDSA_NISTP384_SHA384, Ecdsa(Sha384), KeyKind::Ec(Curve::P384)),
        (SignatureScheme::ECDSA_NISTP521_SHA512, Ecdsa(Sha512), KeyKind::Ec(Curve::P521)),
        (SignatureScheme::RSA_PSS_SHA256, RsaPss(Sha256), KeyKind::Rsa),
        (SignatureScheme::RSA_PSS_SHA384, RsaPss(Sha384), KeyKind::Rsa),
        (SignatureScheme::RSA_PSS_SHA512, RsaPss(Sha512), KeyKind::Rsa),
        (SignatureScheme::RSA_PKCS1_SHA256, RsaPkcs1(Sha256), KeyKind::Rsa),
        (SignatureScheme::RSA_PKCS1_SHA384, RsaPkcs1(Sha384), KeyKind::Rsa),
        (SignatureScheme::RSA_PKCS1_SHA512, RsaPkcs1(Sha512), KeyKind::Rsa),
    ]
};

/// Our certificate and the key that belongs to it.
#[derive(Debug)]
pub(super) struct Ours(Arc<CertifiedKey>);

impl Ours {
    pub(super) fn new(local: &LocalSignature, key: Arc<PrivateKey>) -> Self {
        let chain = local.chain.iter().map(|one| CertificateDer::from(one.der().to_vec())).collect();
        let key = Key { key, schemes: local.schemes.clone() };
        Self(Arc::new(CertifiedKey::new(chain, Arc::new(key))))
    }
}

impl ResolvesClientCert for Ours {
    // It is sent whatever the server says of authorities: it sees best itself whether it will do.
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Ours {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A private key of ours, which signs as it does in IKE_AUTH.
#[derive(Clone, Debug)]
struct Key {
    key: Arc<PrivateKey>,
    schemes: Schemes,
}

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let kind = self.key.public().kind();
        let fitting = SCHEMES.iter().filter(|(_, scheme, of)| *of == kind && self.schemes.allow(*scheme));
        let chosen = fitting.clone().find(|(named, ..)| offered.contains(named));
        let (named, scheme, _) = chosen?;
        Some(Box::new(Pen { key: self.key.clone(), named: *named, scheme: *scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.key.public().kind() {
            KeyKind::Rsa => SignatureAlgorithm::RSA,
            KeyKind::Ec(_) => SignatureAlgorithm::ECDSA,
            KeyKind::Ed25519 => SignatureAlgorithm::ED25519,
        }
    }
}

/// A key with the scheme it is to sign by.
#[derive(Debug)]
struct Pen {
    key: Arc<PrivateKey>,
    named: SignatureScheme,
    scheme: Scheme,
}

impl Signer for Pen {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.key.sign(self.scheme, message).map_err(|error| Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.named
    }
}

/// Who the other side is to be, and what is believed about that.
#[derive(Debug)]
pub(super) struct Theirs {
    policy: RemoteSignature,
    /// Who the connection is for.
    wanted: IdPattern,
    /// Who it says it is; the first that its certificate vouches for counts.
    pub(super) claims: Vec<Id>,
    trust: Arc<Trust>,
    /// Seconds since 1970.
    at: u64,
    /// Authorities that are named in a request for a certificate.
    authorities: Vec<DistinguishedName>,
    /// What its certificate came to.
    verdict: Mutex<Option<Result<Id, Why>>>,
}

impl Theirs {
    pub(super) fn new(
        policy: &RemoteSignature,
        wanted: &IdPattern,
        claims: Vec<Id>,
        (trust, at): (Arc<Trust>, u64),
    ) -> Self {
        let named = trust.allowed(&policy.authorities).take(MAX_AUTHORITIES);
        let authorities = named.map(|one| DistinguishedName::from(one.subject().der().to_vec())).collect();
        let (policy, wanted, verdict) = (policy.clone(), wanted.clone(), Mutex::new(None));
        Self { policy, wanted, claims, trust, at, authorities, verdict }
    }

    /// Who has proved to have the key of a certificate that is believed, or why it is not; nothing before it has shown one.
    pub(super) fn verdict(&self) -> Option<Result<Id, Why>> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says whether a certificate is believed, and keeps whose it is.
    fn examine(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let found = in_tls(self.shown(), (leaf, others));
        let alert = found.as_ref().err().map(alert);
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        alert.map_or(Ok(()), |error| Err(Error::InvalidCertificate(error)))
    }

    /// Says whether it has the key of the certificate.
    fn verify(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        binds_curve: bool,
    ) -> Result<HandshakeSignatureValid, Error> {
        let refused = Error::PeerMisbehaved(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme);
        let known = SCHEMES.iter().find(|(named, ..)| *named == signed.scheme);
        let Some((_, scheme, kind)) = known.filter(|(_, scheme, _)| self.policy.schemes.allow(*scheme))
        else {
            return Err(refused);
        };
        let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let leaf = Certificate::from_der(leaf).map_err(bad)?;
        if binds_curve && (leaf.key().kind() != *kind || matches!(scheme, Scheme::RsaPkcs1(_))) {
            return Err(refused);
        }
        let verified = leaf.key().verify(*scheme, message, signed.signature());
        verified
            .map(|()| HandshakeSignatureValid::assertion())
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn shown(&self) -> Shown<'_> {
        let Self { policy, wanted, claims, trust, at, .. } = self;
        Shown { policy, wanted, claims, trust, at: *at }
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        let allowed = SCHEMES.iter().filter(|(_, scheme, _)| self.policy.schemes.allow(*scheme));
        allowed.map(|(named, ..)| *named).collect()
    }
}

/// What the other side is told of why its certificate is not believed.
fn alert(why: &Why) -> CertificateError {
    match why {
        Why::Distrust(Distrust::Expired { .. }) => CertificateError::Expired,
        Why::Distrust(Distrust::NotYet { .. }) => CertificateError::NotValidYet,
        Why::Distrust(Distrust::NoAuthority { .. } | Distrust::OtherAuthority { .. }) => {
            CertificateError::UnknownIssuer
        }
        Why::Distrust(Distrust::Revoked(_)) => CertificateError::Revoked,
        Why::Distrust(Distrust::NoRevocationList(_)) => CertificateError::UnknownRevocationStatus,
        Why::Distrust(Distrust::Usage { .. }) => CertificateError::InvalidPurpose,
        Why::NotVouched { .. } => CertificateError::NotValidForName,
        Why::WrongId { .. } | Why::Nameless(_) => CertificateError::ApplicationVerificationFailure,
        _ => CertificateError::BadEncoding,
    }
}

/// The same questions, asked by a client and by a server.
#[derive(Debug)]
pub(super) struct Judge(pub(super) Arc<Theirs>);

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.examine(leaf, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify(message, leaf, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify(message, leaf, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.0.authorities
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.examine(leaf, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify(message, leaf, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify(message, leaf, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}
