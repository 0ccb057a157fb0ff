//! From a certificate to an authority that is trusted (RFC 5280 §6): signatures, times, basic and name constraints,
//! extended key usage as IKE has it, and revocation.
//!
//! The path is built and checked by `webpki`, which bounds the work; what it leaves to its caller is here: the times and
//! the usage of the authorities, and keyCertSign. Constraints on distinguished names refuse every certificate below them.

use super::{Certificate, date};
use crate::dn::Dn;
use core::cell::Cell;
use core::time::Duration;
use der::{Decode, Encode};
use ipsec_core::sign::{Curve, KeyKind, PublicKey, Scheme, SignatureHash};
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, TrustAnchor,
    UnixTime, alg_id,
};
use std::sync::Arc;
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    OwnedCertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    VerifiedPath, anchor_from_trusted_cert,
};
use x509_cert::crl::CertificateList;

/// Whom this host believes about others.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Authorities.
    pub authorities: Vec<Arc<Certificate>>,
    /// What they have revoked.
    pub crls: Vec<Crl>,
    /// A certificate without a current list of its issuer is not believed.
    pub strict: bool,
}

/// A certificate revocation list.
#[derive(Clone, Debug)]
pub struct Crl {
    issuer: Dn,
    made: u64,
    list: Arc<CertRevocationList<'static>>,
}

impl Crl {
    /// Reads the DER of a complete list.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let malformed = |_| "not a certificate revocation list".to_owned();
        let read: CertificateList = CertificateList::from_der(der).map_err(malformed)?;
        let issuer = read.tbs_cert_list.issuer.to_der().map_err(malformed)?;
        let list = OwnedCertRevocationList::from_der(der)
            .map_err(|error| format!("a revocation list of a kind that is not understood ({error:?})"))?;
        Ok(Self {
            issuer: Dn::from_der(&issuer).ok_or("a revocation list whose issuer is not understood")?,
            made: read.tbs_cert_list.this_update.to_unix_duration().as_secs(),
            list: Arc::new(CertRevocationList::Owned(list)),
        })
    }

    /// Who made it.
    pub const fn issuer(&self) -> &Dn {
        &self.issuer
    }
}

/// Why a certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// Its time is over.
    Expired {
        /// Whose certificate: the peer's, or an authority's on the way.
        whose: String,
        /// Since when, in seconds since 1970.
        since: u64,
    },
    /// Its time has not come.
    NotYet {
        /// Whose certificate.
        whose: String,
        /// From when, in seconds since 1970.
        from: u64,
    },
    /// No way leads to an authority we know.
    NoAuthority {
        /// Whose certificate.
        whose: String,
        /// The authority that is missing.
        issuer: String,
    },
    /// A way leads to an authority we know, but not through the one that is asked for.
    OtherAuthority {
        /// Whose certificate.
        whose: String,
        /// Who signed it.
        issuer: String,
        /// Who should have, as the configuration says.
        wanted: String,
    },
    /// It, or an authority on the way, was revoked.
    Revoked(String),
    /// Nothing says whether it was revoked, or only what is out of date.
    NoRevocationList(String),
    /// It is not for this.
    Usage {
        /// Whose certificate.
        whose: String,
        /// What it is not for, or what it is instead.
        why: &'static str,
    },
    /// Something else on the way does not hold.
    Path {
        /// Whose certificate.
        whose: String,
        /// What.
        why: String,
    },
}

impl core::fmt::Display for Distrust {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Expired { whose, since } => write!(
                f,
                "the certificate of {whose} expired at {}: it must be renewed; if that is in the future, set the clock",
                date(*since)
            ),
            Self::NotYet { whose, from } => write!(
                f,
                "the certificate of {whose} is not valid before {}: wait, or set the clock that is wrong",
                date(*from)
            ),
            Self::NoAuthority { whose, issuer } => write!(
                f,
                "the certificate of {whose} was signed by {issuer}, which is not known here: put that authority's certificate into ipsec.d/cacerts and run `ipsec auto --rereadall'"
            ),
            Self::OtherAuthority { whose, issuer, wanted } => write!(
                f,
                "the certificate of {whose} was signed by {issuer}, and the connection takes only {wanted} (rightca=)"
            ),
            Self::Revoked(whose) => write!(f, "the certificate of {whose}, or one above it, was revoked"),
            Self::NoRevocationList(whose) => write!(
                f,
                "no current revocation list says that the certificate of {whose} stands, and strictcrlpolicy=yes asks for one: put it into ipsec.d/crls"
            ),
            Self::Usage { whose, why } => write!(f, "the certificate of {whose} {why}"),
            Self::Path { whose, why } => write!(f, "the certificate of {whose} is not believed: {why}"),
        }
    }
}

/// A way to sign certificates, verified where all signatures are.
#[derive(Debug)]
struct Algorithm {
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    kind: KeyKind,
    scheme: Scheme,
}

impl SignatureVerificationAlgorithm for Algorithm {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }

    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let verified =
            PublicKey::of(self.kind, key).and_then(|key| key.verify(self.scheme, message, signature));
        verified.map_err(|_| InvalidSignature)
    }
}

const fn by(
    key: AlgorithmIdentifier,
    kind: KeyKind,
    signature: AlgorithmIdentifier,
    scheme: Scheme,
) -> Algorithm {
    Algorithm { key, signature, kind, scheme }
}

/// SHA-1 is not among them: who can make two certificates with one hash could have one signed and use the other.
static ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 16] = {
    use Scheme::{Ecdsa, RsaPkcs1, RsaPss};
    use SignatureHash::{Sha256, Sha384, Sha512};
    const P256: KeyKind = KeyKind::Ec(Curve::P256);
    const P384: KeyKind = KeyKind::Ec(Curve::P384);
    const P521: KeyKind = KeyKind::Ec(Curve::P521);
    [
        &by(alg_id::ECDSA_P256, P256, alg_id::ECDSA_SHA256, Ecdsa(Sha256)),
        &by(alg_id::ECDSA_P256, P256, alg_id::ECDSA_SHA384, Ecdsa(Sha384)),
        &by(alg_id::ECDSA_P256, P256, alg_id::ECDSA_SHA512, Ecdsa(Sha512)),
        &by(alg_id::ECDSA_P384, P384, alg_id::ECDSA_SHA256, Ecdsa(Sha256)),
        &by(alg_id::ECDSA_P384, P384, alg_id::ECDSA_SHA384, Ecdsa(Sha384)),
        &by(alg_id::ECDSA_P384, P384, alg_id::ECDSA_SHA512, Ecdsa(Sha512)),
        &by(alg_id::ECDSA_P521, P521, alg_id::ECDSA_SHA256, Ecdsa(Sha256)),
        &by(alg_id::ECDSA_P521, P521, alg_id::ECDSA_SHA384, Ecdsa(Sha384)),
        &by(alg_id::ECDSA_P521, P521, alg_id::ECDSA_SHA512, Ecdsa(Sha512)),
        &by(alg_id::ED25519, KeyKind::Ed25519, alg_id::ED25519, Scheme::Ed25519),
        &by(alg_id::RSA_ENCRYPTION, KeyKind::Rsa, alg_id::RSA_PKCS1_SHA256, RsaPkcs1(Sha256)),
        &by(alg_id::RSA_ENCRYPTION, KeyKind::Rsa, alg_id::RSA_PKCS1_SHA384, RsaPkcs1(Sha384)),
        &by(alg_id::RSA_ENCRYPTION, KeyKind::Rsa, alg_id::RSA_PKCS1_SHA512, RsaPkcs1(Sha512)),
        &by(alg_id::RSA_ENCRYPTION, KeyKind::Rsa, alg_id::RSA_PSS_SHA256, RsaPss(Sha256)),
        &by(alg_id::RSA_ENCRYPTION, KeyKind::Rsa, alg_id::RSA_PSS_SHA384, RsaPss(Sha384)),
        &by(alg_id::RSA_ENCRYPTION, KeyKind::Rsa, alg_id::RSA_PSS_SHA512, RsaPss(Sha512)),
    ]
};

/// What the holder of a certificate may use it for, where it says so at all: TLS as either side, IKE by its own name and
/// the names that were tried before (RFC 4945 §5.1.3.12 would have none of them looked at), or anything.
const PURPOSES: [&[usize]; 8] = [
    &[1, 3, 6, 1, 5, 5, 7, 3, 1],
    &[1, 3, 6, 1, 5, 5, 7, 3, 2],
    &[1, 3, 6, 1, 5, 5, 7, 3, 5],
    &[1, 3, 6, 1, 5, 5, 7, 3, 6],
    &[1, 3, 6, 1, 5, 5, 7, 3, 7],
    &[1, 3, 6, 1, 5, 5, 7, 3, 17],
    &[1, 3, 6, 1, 5, 5, 8, 2, 2],
    &[2, 5, 29, 37, 0],
];

struct ForIke<'c>(&'c Cell<bool>);

impl ExtendedKeyUsageValidator for ForIke<'_> {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let mut none = true;
        for purpose in purposes {
            none = false;
            if PURPOSES.contains(&&*purpose?.to_decoded_oid()) {
                return Ok(());
            }
        }
        if !none {
            self.0.set(true);
            return Err(Error::UnknownIssuer);
        }
        Ok(())
    }
}

impl Trust {
    /// Puts lists of one issuer in the order in which they count: the latest first.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.crls.sort_by_key(|crl| core::cmp::Reverse(crl.made));
        self
    }

    /// The authorities that may vouch for a peer: all, or those the configuration names.
    pub(crate) fn allowed(&self, wanted: &[Dn]) -> impl Iterator<Item = &Arc<Certificate>> {
        self.authorities.iter().filter(move |one| {
            wanted.is_empty() || wanted.iter().any(|name| name.is(one.subject()) || name.is(one.issuer()))
        })
    }

    /// Finds the way from a certificate to an authority at a time in seconds since 1970. `sent` came with it; `wanted`
    /// are the authorities one of which must be on the way, and none is any.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn path(
        &self,
        leaf: &Certificate,
        sent: &[Certificate],
        wanted: &[Dn],
        at: u64,
    ) -> Result<(), Distrust> {
        let whose = leaf.to_string();
        in_time(leaf, at)?;
        if !leaf.signs {
            return Err(Distrust::Usage {
                whose,
                why: "is not for signatures (keyUsage has no digitalSignature)",
            });
        }
        let path_error = |why: &str| Distrust::Path { whose: whose.clone(), why: why.to_owned() };
        let der = CertificateDer::from(leaf.der());
        let end = EndEntityCert::try_from(&der).map_err(|error| self.why(leaf, sent, &error, at))?;
        let roots: Vec<CertificateDer<'_>> = self
            .authorities
            .iter()
            .filter(|root| root.is_authority() && in_time(root, at).is_ok())
            .map(|root| CertificateDer::from(root.der()))
            .collect();
        let anchors: Vec<TrustAnchor<'_>> =
            roots.iter().filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
        let between: Vec<CertificateDer<'_>> =
            sent.iter().map(|one| CertificateDer::from(one.der())).collect();
        let (purpose, other, unsigned) = (Cell::new(false), Cell::new(false), Cell::new(false));
        let mut wanted_der: Vec<Vec<u8>> = Vec::new();
        for name in self.authorities.iter().map(|one| &**one).chain(sent).map(Certificate::subject) {
            if wanted.iter().any(|wanted| wanted.is(name)) {
                wanted_der.push(contents(name));
            }
        }
        let check = |path: &VerifiedPath<'_>| {
            for issuer in path.intermediate_certificates() {
                if !Certificate::from_der(&issuer.der()).is_ok_and(|issuer| issuer.is_authority()) {
                    unsigned.set(true);
                    return Err(Error::UnknownIssuer);
                }
            }
            let mut subjects = path.intermediate_certificates().map(webpki::Cert::subject);
            let root = path.anchor().subject.as_ref();
            let through = |subject: &[u8]| wanted_der.iter().any(|wanted| wanted == subject);
            if !wanted.is_empty() && !through(root) && !subjects.any(through) {
                other.set(true);
                return Err(Error::UnknownIssuer);
            }
            Ok(())
        };
        let lists: Vec<&CertRevocationList<'_>> = self.crls.iter().map(|crl| &*crl.list).collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            let (unknown, expired) = if self.strict {
                (UnknownStatusPolicy::Deny, ExpirationPolicy::Enforce)
            } else {
                (UnknownStatusPolicy::Allow, ExpirationPolicy::Ignore)
            };
            let options = options.with_depth(RevocationCheckDepth::Chain);
            options.with_status_policy(unknown).with_expiration_policy(expired).build()
        });
        if self.strict && revocation.is_none() {
            return Err(Distrust::NoRevocationList(whose));
        }
        let time = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let found = end.verify_for_usage(
            &ALGORITHMS,
            &anchors,
            &between,
            time,
            ForIke(&purpose),
            revocation,
            Some(&check),
        );
        match found {
            Ok(_) => Ok(()),
            Err(_) if purpose.get() => Err(Distrust::Usage {
                whose,
                why: "is not for IKE: its extended key usage has none of serverAuth, clientAuth, ipsecIKE",
            }),
            Err(_) if other.get() => {
                let wanted = wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
                Err(Distrust::OtherAuthority { whose, issuer: leaf.issuer().to_string(), wanted })
            }
            Err(_) if unsigned.get() => {
                Err(path_error("a certificate on the way was signed by one that is no authority"))
            }
            Err(error) => Err(self.why(leaf, sent, &error, at)),
        }
    }

    /// What an error of the library means to who has to mend it.
    fn why(&self, leaf: &Certificate, sent: &[Certificate], error: &Error, at: u64) -> Distrust {
        let whose = leaf.to_string();
        match error {
            Error::UnknownIssuer => {
                // The first on the way up whose issuer nobody has shown, or whose time is wrong.
                let mut last = leaf;
                for _ in 0..=sent.len() {
                    if let Some(root) = self.authorities.iter().find(|root| root.subject().is(last.issuer()))
                    {
                        if let Err(untimely) = in_time(root, at) {
                            return untimely;
                        }
                        if !root.is_authority() {
                            let whose = root.to_string();
                            let why = "stands in ipsec.d/cacerts and is no authority's (basicConstraints, keyUsage)";
                            return Distrust::Usage { whose, why };
                        }
                        break;
                    }
                    match sent.iter().find(|one| one.subject().is(last.issuer()) && *one != last) {
                        Some(next) => last = next,
                        None => break,
                    }
                }
                Distrust::NoAuthority { whose: last.to_string(), issuer: last.issuer().to_string() }
            }
            Error::CertExpired { not_after, .. } => {
                let since = not_after.as_secs();
                let expired = sent.iter().find(|one| one.valid().1 == since);
                Distrust::Expired { whose: expired.map_or(whose, ToString::to_string), since }
            }
            Error::CertNotValidYet { not_before, .. } => {
                let from = not_before.as_secs();
                let early = sent.iter().find(|one| one.valid().0 == from);
                Distrust::NotYet { whose: early.map_or(whose, ToString::to_string), from }
            }
            Error::CertRevoked => Distrust::Revoked(whose),
            Error::UnknownRevocationStatus | Error::CrlExpired { .. } => Distrust::NoRevocationList(whose),
            Error::CaUsedAsEndEntity => Distrust::Usage {
                whose,
                why: "is an authority's, not a gateway's; name it as rightcert= to take it all the same",
            },
            Error::InvalidSignatureForPublicKey => {
                Distrust::Path { whose, why: "a signature on the way is not its issuer's".to_owned() }
            }
            Error::NameConstraintViolation => Distrust::Path {
                whose,
                why: "an authority above it may not vouch for such a name".to_owned(),
            },
            error => Distrust::Path { whose, why: format!("{error:?}") },
        }
    }
}

/// What is inside the SEQUENCE of a name, as `webpki` compares it.
fn contents(name: &Dn) -> Vec<u8> {
    der::asn1::AnyRef::from_der(name.der()).map(|any| any.value().to_vec()).unwrap_or_default()
}

/// Says whether it is the certificate's time.
pub(crate) fn in_time(certificate: &Certificate, at: u64) -> Result<(), Distrust> {
    let (from, to) = certificate.valid();
    let whose = certificate.to_string();
    if at < from {
        Err(Distrust::NotYet { whose, from })
    } else if at > to {
        Err(Distrust::Expired { whose, since: to })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
