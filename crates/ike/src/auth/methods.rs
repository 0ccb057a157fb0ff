//! SUPPORTED_AUTH_METHODS (RFC 9593): the ways in which the sender lets the other side prove who it is. Who has several
//! credentials takes one that will do, and who has none that will is told so before it tries.
//!
//! The responder says it in IKE_SA_INIT, of all connections that the two addresses may be of; the initiator, to a responder
//! that has, in IKE_AUTH.

use super::SHARED_KEY;
use super::signature::{ECDSA, RSA, encode, scheme_of};
use crate::connection::Connection;
use crate::credential::Schemes;
use crate::message::{Message, Notify, NotifyKind, Payload};
use ipsec_core::sign::{Curve, Scheme, SignatureHash};

/// The most announcements that are read.
const MOST: usize = 64;

/// What a peer has announced, as far as it is known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Methods {
    /// A shared secret.
    pub(crate) shared_key: bool,
    /// Signatures by these schemes.
    pub(crate) schemes: Vec<Scheme>,
}

/// What we take of the peers of these connections. Nothing where one of them takes EAP, which has no number of its own: its
/// peers would believe that they may not.
pub(crate) fn announce<'a>(connections: impl Iterator<Item = &'a Connection>) -> Option<Payload> {
    let mut all = Methods::default();
    let mut any = false;
    for connection in connections {
        let ways = &connection.remote_auth;
        if ways.eap.is_some() {
            return None;
        }
        any = true;
        all.shared_key |= ways.shared_key;
        for scheme in ways.signature.iter().flat_map(|policy| schemes(&policy.schemes)) {
            if !all.schemes.contains(&scheme) {
                all.schemes.push(scheme);
            }
        }
    }
    any.then(|| Payload::Notify(Notify::new(NotifyKind::SupportedAuthMethods, all.octets())))
}

/// All schemes that are allowed.
fn schemes(allowed: &Schemes) -> Vec<Scheme> {
    let hashes = [SignatureHash::Sha256, SignatureHash::Sha384, SignatureHash::Sha512];
    let hashed = [Scheme::RsaPss, Scheme::RsaPkcs1, Scheme::Ecdsa];
    let mut all = vec![Scheme::Ed25519, Scheme::RsaPkcs1(SignatureHash::Sha1)];
    all.extend(hashed.iter().flat_map(|scheme| hashes.map(scheme)));
    all.extend([Curve::P256, Curve::P384, Curve::P521].map(Scheme::EcdsaRaw));
    all.retain(|scheme| allowed.allow(*scheme));
    all
}

impl Methods {
    /// Announcements of two octets, of three, and of more, each with its length first (RFC 9593 §3.2). The third octet links
    /// one to an authority of CERTREQ; 0 is any.
    fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        if self.shared_key {
            octets.extend([2, SHARED_KEY]);
        }
        for scheme in &self.schemes {
            match scheme {
                Scheme::RsaPkcs1(SignatureHash::Sha1) => octets.extend([3, RSA, 0]),
                Scheme::EcdsaRaw(curve) => {
                    let method = ECDSA.iter().find(|(_, known)| known == curve);
                    octets.extend(method.iter().flat_map(|(method, _)| [3, *method, 0]));
                }
                scheme => {
                    // The authentication data of an empty signature: the identifier behind its length.
                    let Some((method, data)) = encode(*scheme, &[]) else { continue };
                    let identifier = data.get(1..).unwrap_or_default();
                    let length = u8::try_from(identifier.len().saturating_add(3)).unwrap_or(0);
                    octets.extend([length, method, 0]);
                    octets.extend_from_slice(identifier);
                }
            }
        }
        octets
    }

    /// What a message announces; nothing if it does not, or what cannot be read.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let mut announced = crate::exchange::notifications(message)
            .filter(|notify| notify.kind == NotifyKind::SupportedAuthMethods)
            .filter(|notify| !notify.data.is_empty())
            .peekable();
        announced.peek()?;
        let mut all = Self::default();
        let mut left = MOST;
        for notify in announced {
            let mut rest = &*notify.data;
            while let Some((&length, _)) = rest.split_first() {
                let (one, more) = rest.split_at_checked(usize::from(length)).filter(|_| length >= 2)?;
                left = left.checked_sub(1)?;
                rest = more;
                match one {
                    [_, SHARED_KEY] => all.shared_key = true,
                    [_, method, _, identifier @ ..] => all.schemes.extend(scheme_of(*method, identifier)),
                    _ => {}
                }
            }
        }
        Some(all)
    }

    /// Says whether a signature by this scheme will do.
    pub(crate) fn take(&self, scheme: Scheme) -> bool {
        self.schemes.contains(&scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{RemoteAuth, RemoteEap, RemoteSignature};
    use crate::exchange::init::nobody;
    use crate::message::{Exchange, Flags, Header, IkeSpi};

    fn connection(shared_key: bool, schemes: Option<Schemes>, eap: Option<RemoteEap>) -> Connection {
        let signature = schemes.map(|schemes| RemoteSignature { schemes, ..RemoteSignature::default() });
        Connection { remote_auth: RemoteAuth { shared_key, signature, eap }, ..nobody() }
    }

    fn message(payloads: Vec<Payload>) -> Message {
        let flags = Flags { initiator: false, response: true };
        let header =
            Header { spi_i: IkeSpi(1), spi_r: IkeSpi(2), exchange: Exchange::IkeSaInit, flags, id: 0 };
        Message { header, payloads }
    }

    fn with(data: &[u8]) -> Option<Methods> {
        Methods::of(&message(vec![Payload::Notify(Notify::new(
            NotifyKind::SupportedAuthMethods,
            data.to_vec(),
        ))]))
    }

    #[test]
    fn what_is_announced_is_read_and_nothing_is_where_eap_is_taken() {
        let old = Schemes { rsa_sha1: true, ..Schemes::default() };
        let all = [
            connection(true, None, None),
            connection(false, Some(old.clone()), None),
            connection(false, Some(Schemes::none()), None),
        ];
        let read = Methods::of(&message(announce(all.iter()).into_iter().collect())).unwrap();
        assert_eq!(read, Methods { shared_key: true, schemes: schemes(&old) });
        assert_eq!(read.schemes.len(), 14);
        let ed25519 = Schemes { ed25519: true, ..Schemes::none() };
        let read = Methods::of(&message(
            announce([connection(false, Some(ed25519), None)].iter()).into_iter().collect(),
        ));
        assert_eq!(read, Some(Methods { shared_key: false, schemes: vec![Scheme::Ed25519] }));
        assert_eq!(
            announce(
                [connection(true, None, None), connection(false, None, Some(RemoteEap::Password))].iter()
            ),
            None
        );
        assert_eq!(announce(core::iter::empty()), None);
    }

    #[test]
    fn what_cannot_be_read_announces_nothing_and_what_is_not_known_is_passed_over() {
        // Methods nobody knows, of every form, beside one that is known.
        let known = with(&[2, 77, 2, 2, 3, 78, 0, 3, 9, 1, 5, 14, 0, 1, 2]).unwrap();
        assert_eq!(known, Methods { shared_key: true, schemes: vec![Scheme::EcdsaRaw(Curve::P256)] });
        for data in [&[0][..], &[1, 2], &[2], &[2, 2, 9, 14], &[255, 14, 0]] {
            assert_eq!(with(data), None, "{data:?}");
        }
        assert_eq!(with(&[2, 2].repeat(65)), None);
        assert!(with(&[2, 2].repeat(64)).is_some());
        assert_eq!(Methods::of(&message(vec![])), None);
        // The responder will say it in IKE_INTERMEDIATE (RFC 9593 §3.1).
        assert_eq!(with(&[]), None);
    }
}
