//! How the two sides of a connection prove who they are, as it is configured.

use crate::dn::Dn;
use crate::x509::Certificate;
use ipsec_core::sign::{KeyKind, PublicKey, Scheme, SignatureHash};
use std::sync::Arc;

/// How we prove who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalAuth {
    /// By the secret that both sides have.
    #[default]
    SharedKey,
    /// By a signature.
    Signature(Box<LocalSignature>),
    /// In EAP, once the peer has proved who it is by a signature; or where the peer may prove it by EAP-TLS
    /// ([`RemoteAuth::eap`]) and we do, both in EAP alone (RFC 5998).
    Eap(Box<LocalEap>),
}

/// Who we are in EAP, and how we prove it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEap {
    /// The name we give.
    pub name: String,
    /// What proves it.
    pub proof: EapProof,
}

/// What proves in EAP who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EapProof {
    /// The password of [`crate::connection::Secrets::eap`] that this name has, by EAP-MSCHAPv2.
    Password,
    /// A certificate, by EAP-TLS. There the peer proves once more who it is, by one for the same identity.
    Tls(LocalSignature),
}

/// The key we sign with, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSignature {
    /// The public half; the private one is among the [`crate::connection::Secrets`].
    pub public: PublicKey,
    /// Its certificate, then those of authorities between it and the root; none for a raw public key.
    pub chain: Vec<Arc<Certificate>>,
    /// When the certificates are sent.
    pub send: SendCert,
    /// Schemes we may sign with.
    pub schemes: Schemes,
}

/// When certificates are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendCert {
    /// Whatever the peer says: some ask for none and need one.
    #[default]
    Always,
    /// When it asks.
    IfAsked,
    /// Never: the peer has them.
    Never,
}

/// How the peer may prove who it is. A way that is not here is refused, whatever the peer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteAuth {
    /// By the secret that both sides have.
    pub shared_key: bool,
    /// By a signature.
    pub signature: Option<RemoteSignature>,
    /// In EAP.
    pub eap: Option<RemoteEap>,
}

/// How a peer may prove in EAP who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteEap {
    /// By a password: any user of [`crate::connection::Secrets::eap`] whose name is an identity that the connection allows.
    Password,
    /// By a certificate in TLS: for the name that it gives in EAP, or for the identity that it gives in IKE.
    Tls(RemoteSignature),
}

impl Default for RemoteAuth {
    fn default() -> Self {
        Self { shared_key: true, signature: None, eap: None }
    }
}

/// Whose signatures are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteSignature {
    /// Schemes the peer may sign with.
    pub schemes: Schemes,
    /// The peer's keys, where they are known beforehand; if there are any, no others count.
    pub known: Vec<Known>,
    /// The authorities one of which must be on the way to the peer's certificate; none is any that is trusted.
    pub authorities: Vec<Dn>,
}

/// A key of the peer that is known beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// By its certificate.
    Certificate(Arc<Certificate>),
    /// By itself.
    Key(PublicKey),
}

impl Known {
    pub(crate) fn key(&self) -> &PublicKey {
        match self {
            Self::Certificate(certificate) => certificate.key(),
            Self::Key(key) => key,
        }
    }
}

/// Signature schemes that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schemes {
    /// RSASSA-PSS.
    pub rsa_pss: bool,
    /// RSASSA-PKCS1-v1_5.
    pub rsa_pkcs1: bool,
    /// ECDSA, by RFC 7427 or RFC 4754.
    pub ecdsa: bool,
    /// Ed25519.
    pub ed25519: bool,
    /// Hashes under RSA and ECDSA, the one to sign with first.
    pub hashes: Vec<SignatureHash>,
    /// RSA with SHA-1, which is method 1 of RFC 7296: to verify a peer that has nothing better. Nothing here signs so.
    pub rsa_sha1: bool,
}

impl Default for Schemes {
    fn default() -> Self {
        Self {
            rsa_pss: true,
            rsa_pkcs1: true,
            ecdsa: true,
            ed25519: true,
            hashes: vec![SignatureHash::Sha256, SignatureHash::Sha384, SignatureHash::Sha512],
            rsa_sha1: false,
        }
    }
}

impl Schemes {
    /// No scheme at all; the configuration says which there are.
    pub fn none() -> Self {
        let all = Self::default();
        Self { rsa_pss: false, rsa_pkcs1: false, ecdsa: false, ed25519: false, ..all }
    }

    /// Says whether a scheme may be used.
    pub fn allow(&self, scheme: Scheme) -> bool {
        let hash = |hash: SignatureHash| self.hashes.contains(&hash);
        match scheme {
            Scheme::RsaPkcs1(SignatureHash::Sha1) => self.rsa_sha1,
            Scheme::RsaPkcs1(with) => self.rsa_pkcs1 && hash(with),
            Scheme::RsaPss(with) => self.rsa_pss && hash(with),
            Scheme::Ecdsa(with) => self.ecdsa && hash(with),
            Scheme::EcdsaRaw(curve) => self.ecdsa && hash(curve.hash()),
            Scheme::Ed25519 => self.ed25519,
        }
    }

    /// The hashes we can verify with, by number, as they are announced (RFC 7427 §4); 5 is "Identity" (RFC 8420 §2).
    pub(crate) fn announced(&self) -> Vec<u16> {
        let mut numbers: Vec<u16> = self.hashes.iter().map(|hash| hash.number()).collect();
        numbers.extend(self.rsa_sha1.then_some(SignatureHash::Sha1.number()));
        numbers.extend(self.ed25519.then_some(IDENTITY));
        numbers
    }

    /// The scheme to sign with, for a peer that has announced these hashes, and has said what it takes; `None` where it has
    /// announced no hashes is by the methods of RFC 7296 and RFC 4754.
    pub(crate) fn choose(
        &self,
        kind: KeyKind,
        theirs: Option<&[u16]>,
        takes: impl Fn(Scheme) -> bool,
    ) -> Option<Scheme> {
        let will_do = |scheme: &Scheme| self.allow(*scheme) && takes(*scheme);
        let Some(theirs) = theirs else {
            return match kind {
                KeyKind::Ec(curve) => Some(Scheme::EcdsaRaw(curve)).filter(will_do),
                // RSA with SHA-1 is signed by nobody any more, and Ed25519 has no method of its own.
                KeyKind::Rsa | KeyKind::Ed25519 => None,
            };
        };
        let mut known = self.hashes.iter().copied().filter(|hash| theirs.contains(&hash.number()));
        let scheme = match kind {
            KeyKind::Rsa => known
                .find_map(|hash| [Scheme::RsaPss(hash), Scheme::RsaPkcs1(hash)].into_iter().find(&will_do)),
            KeyKind::Ec(curve) => {
                let with = known.find(|hash| *hash == curve.hash()).map(Scheme::Ecdsa);
                with.filter(&will_do).or(with.map(|_| Scheme::EcdsaRaw(curve)))
            }
            KeyKind::Ed25519 => theirs.contains(&IDENTITY).then_some(Scheme::Ed25519),
        };
        scheme.filter(will_do)
    }
}

/// The "Identity" hash: the scheme hashes by itself (RFC 8420 §2).
const IDENTITY: u16 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec_core::sign::Curve;

    #[test]
    fn the_scheme_is_one_that_both_allow_and_never_sha_1() {
        let all = Schemes::default();
        let any = |_: Scheme| true;
        assert_eq!(
            all.choose(KeyKind::Rsa, Some(&[1, 2, 3]), any),
            Some(Scheme::RsaPss(SignatureHash::Sha256))
        );
        assert_eq!(all.choose(KeyKind::Rsa, Some(&[3]), any), Some(Scheme::RsaPss(SignatureHash::Sha384)));
        assert_eq!(all.choose(KeyKind::Rsa, Some(&[1]), any), None);
        assert_eq!(all.choose(KeyKind::Rsa, None, any), None);
        let old = Schemes { rsa_pss: false, rsa_sha1: true, ..all.clone() };
        assert_eq!(
            old.choose(KeyKind::Rsa, Some(&[1, 2]), any),
            Some(Scheme::RsaPkcs1(SignatureHash::Sha256))
        );
        assert_eq!(old.choose(KeyKind::Rsa, Some(&[1]), any), None);
        let p384 = KeyKind::Ec(Curve::P384);
        assert_eq!(all.choose(p384, Some(&[2, 3]), any), Some(Scheme::Ecdsa(SignatureHash::Sha384)));
        assert_eq!(all.choose(p384, Some(&[2]), any), None);
        assert_eq!(all.choose(p384, None, any), Some(Scheme::EcdsaRaw(Curve::P384)));
        assert_eq!(all.choose(KeyKind::Ed25519, Some(&[2, 5]), any), Some(Scheme::Ed25519));
        assert_eq!(all.choose(KeyKind::Ed25519, Some(&[2]), any), None);
        assert_eq!(Schemes::none().choose(p384, None, any), None);
        assert_eq!(all.announced(), [2, 3, 4, 5]);
        // What the peer says it takes (RFC 9593) narrows that.
        let pkcs1 = |scheme: Scheme| scheme == Scheme::RsaPkcs1(SignatureHash::Sha384);
        let chosen = Some(Scheme::RsaPkcs1(SignatureHash::Sha384));
        assert_eq!(all.choose(KeyKind::Rsa, Some(&[2, 3]), pkcs1), chosen);
        let raw = |scheme: Scheme| scheme == Scheme::EcdsaRaw(Curve::P384);
        assert_eq!(all.choose(p384, Some(&[2, 3]), raw), Some(Scheme::EcdsaRaw(Curve::P384)));
        assert_eq!(all.choose(KeyKind::Ed25519, Some(&[2, 5]), raw), None);
    }
}
