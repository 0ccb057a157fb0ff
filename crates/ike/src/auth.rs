//! Who the peer is: AUTH (RFC 7296 §2.15), and the proof that it was right.
//!
//! [`Authenticated`] cannot be made anywhere else, and here only by [`verify`], which has checked three things that
//! belong together: the identity the peer claims is one the connection allows, the secret is the one configured for
//! these two identities, and AUTH was made with it over this very handshake. Each bypass that other implementations
//! had was one of the three left out, or an AUTH that nobody had asked for.

use crate::connection::Secrets;
use crate::event::Why;
use crate::identity::{Id, IdPattern};
use crate::message::IdBody;
use ipsec_core::Secret;
use ipsec_core::prf::Prf;

/// The authentication method of a shared key (IANA, IKEv2 Authentication Method).
pub(crate) const SHARED_KEY: u8 = 2;

/// A peer that has proved who it is.
#[derive(Debug)]
pub(crate) struct Authenticated {
    id: Id,
}

impl Authenticated {
    /// Who it is.
    pub(crate) const fn id(&self) -> &Id {
        &self.id
    }

    /// For the IKE SA that takes the place of one whose peer has proved who it is: its keys come from that one's, so
    /// nobody else can have them (RFC 7296 §2.18).
    pub(crate) fn inherited(&self) -> Self {
        Self { id: self.id.clone() }
    }
}

/// What AUTH is made over: one side's first message, the other side's nonce, that side's identity under its SK_p, and,
/// after IKE_INTERMEDIATE, what was said there (RFC 9242 §3.3.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'a> {
    pub(crate) init: &'a [u8],
    pub(crate) nonce: &'a [u8],
    pub(crate) sk_p: &'a Secret,
    pub(crate) int_auth: &'a [u8],
}

impl Signed<'_> {
    /// AUTH with a shared key: prf(prf(key, "Key Pad for IKEv2"), octets).
    pub(crate) fn shared_key(&self, prf: Prf, key: &Secret, id: &IdBody) -> Secret {
        let padded = prf.compute(key, &[b"Key Pad for IKEv2"]);
        let maced = prf.compute(self.sk_p, &[&id.octets()]);
        prf.compute(&padded, &[self.init, self.nonce, &maced, self.int_auth])
    }
}

/// What the peer sent to prove who it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) id: &'a IdBody,
    pub(crate) method: u8,
    pub(crate) data: &'a [u8],
}

/// Checks the peer's AUTH.
///
/// # Errors
/// What does not hold. The peer is told AUTHENTICATION_FAILED and nothing more, whichever it is (RFC 7296 §2.21.2).
pub(crate) fn verify(
    prf: Prf,
    secrets: &Secrets,
    (local, allowed): (&Id, &IdPattern),
    claim: Claim<'_>,
    signed: Signed<'_>,
) -> Result<Authenticated, Why> {
    let id = Id::from_body(claim.id).ok_or(Why::Protocol("its identity is of no type that is known here"))?;
    if !allowed.matches(&id) {
        return Err(Why::WrongId { is: id.to_string(), wanted: allowed.to_string() });
    }
    if claim.method != SHARED_KEY {
        return Err(Why::BadMethod(claim.method));
    }
    let key = secrets.psk(local, &id).ok_or_else(|| Why::NoSecret(local.to_string(), id.to_string()))?;
    let expected = signed.shared_key(prf, key, claim.id);
    if !expected.is_same(claim.data) {
        return Err(Why::BadAuth(id.to_string()));
    }
    Ok(Authenticated { id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Psk;

    fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    /// What is matched against what: the identity claimed, the pattern of the connection, the secret configured, and
    /// the secret AUTH was made with. Only the first row makes an `Authenticated`.
    #[test]
    fn only_the_right_identity_with_the_right_secret_over_this_handshake_is_believed() {
        let exactly = |text: &str| IdPattern::Exactly(id(text));
        let secrets = Secrets {
            psks: vec![
                Psk { ids: vec![exactly("@us"), exactly("@peer")], key: Secret::from(&b"right"[..]) },
                Psk { ids: vec![exactly("@us"), exactly("@other")], key: Secret::from(&b"other"[..]) },
            ],
        };
        let sk_p = Secret::from(&[7; 32][..]);
        let signed = Signed { init: b"message", nonce: b"nonce", sk_p: &sk_p, int_auth: b"" };
        let elsewhere = Signed { init: b"another message", ..signed };
        let try_it = |claimed: &str, allowed: &IdPattern, secret: &[u8], over: Signed<'_>, method: u8| {
            let body = id(claimed).body();
            let data = over.shared_key(Prf::HmacSha256, &Secret::from(secret), &body);
            let claim = Claim { id: &body, method, data: &data };
            verify(Prf::HmacSha256, &secrets, (&id("@us"), allowed), claim, signed)
        };
        assert_eq!(try_it("@peer", &exactly("@peer"), b"right", signed, 2).unwrap().id(), &id("@peer"));
        assert!(try_it("@peer", &IdPattern::Any, b"right", signed, 2).is_ok());
        // Its own secret, somebody else's name, and the other way round.
        assert!(matches!(try_it("@peer", &exactly("@peer"), b"other", signed, 2), Err(Why::BadAuth(_))));
        assert!(matches!(try_it("@other", &exactly("@peer"), b"other", signed, 2), Err(Why::WrongId { .. })));
        assert!(matches!(try_it("@nobody", &IdPattern::Any, b"right", signed, 2), Err(Why::NoSecret(..))));
        // No secret at all is not the empty secret.
        assert!(matches!(try_it("@nobody", &IdPattern::Any, b"", signed, 2), Err(Why::NoSecret(..))));
        assert!(matches!(try_it("@peer", &exactly("@peer"), b"", signed, 2), Err(Why::BadAuth(_))));
        // From another handshake, or by a method that proves nothing (NULL, RFC 7619).
        assert!(matches!(try_it("@peer", &exactly("@peer"), b"right", elsewhere, 2), Err(Why::BadAuth(_))));
        assert!(matches!(try_it("@peer", &exactly("@peer"), b"right", signed, 13), Err(Why::BadMethod(13))));
        // The type of an identity counts.
        assert!(matches!(
            try_it("192.0.2.1", &exactly("@192.0.2.1"), b"right", signed, 2),
            Err(Why::WrongId { .. })
        ));
        // Too short is wrong, and so is nothing.
        let body = id("@peer").body();
        let whole = signed.shared_key(Prf::HmacSha256, &Secret::from(&b"right"[..]), &body);
        for end in 0..whole.len() {
            let claim = Claim { id: &body, method: 2, data: &whole[..end] };
            assert!(verify(Prf::HmacSha256, &secrets, (&id("@us"), &IdPattern::Any), claim, signed).is_err());
        }
    }
}
