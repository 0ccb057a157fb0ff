//! Who the peer is: AUTH (RFC 7296 §2.15), and the proof that it was right.
//!
//! [`Authenticated`] cannot be made anywhere else, and here only by [`shared_key`], [`after_eap`] and [`accept`], which have
//! checked what belongs together: the identity the peer claims is one the connection allows ([`believe`]), the secret or the key is one
//! that was configured or vouched for under this identity, and AUTH was made with it over this very handshake. Each bypass
//! that other implementations had was one of these left out, or an AUTH that nobody had asked for.

mod believe;
pub(crate) mod methods;
pub(crate) mod signature;

use crate::connection::{Connection, Secrets};
use crate::eap::Won;
use crate::event::Why;
use crate::identity::Id;
use crate::message::IdBody;
use crate::x509::path::Trust;
use believe::{Voucher, believe};
use ipsec_core::Secret;
use ipsec_core::prf::Prf;
use signature::Evidence;
use std::sync::Arc;

/// The authentication method of a shared key (IANA, IKEv2 Authentication Method).
pub(crate) const SHARED_KEY: u8 = 2;

/// A peer that has proved who it is.
#[derive(Debug)]
pub(crate) struct Authenticated {
    id: Id,
    /// By a secret that both sides have, and not by what only this peer has.
    by_secret: bool,
}

impl Authenticated {
    /// Who it is.
    pub(crate) const fn id(&self) -> &Id {
        &self.id
    }

    /// Says whether that rests on a shared secret, which may be a group's.
    pub(crate) const fn by_secret(&self) -> bool {
        self.by_secret
    }

    /// For the IKE SA that takes the place of one whose peer has proved who it is: its keys come from that one's, so
    /// nobody else can have them (RFC 7296 §2.18).
    pub(crate) fn inherited(&self) -> Self {
        Self { id: self.id.clone(), by_secret: self.by_secret }
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
    /// What a signature is made of: the pieces that AUTH covers, one after the other.
    pub(crate) fn octets(&self, prf: Prf, id: &IdBody) -> Vec<u8> {
        let maced = prf.compute(self.sk_p, &[&id.octets()]);
        [self.init, self.nonce, &maced, self.int_auth].concat()
    }

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

/// Checks the peer's AUTH by a shared key.
///
/// # Errors
/// What does not hold. The peer is told AUTHENTICATION_FAILED and nothing more, whichever it is (RFC 7296 §2.21.2).
pub(crate) fn shared_key(
    prf: Prf,
    secrets: &Secrets,
    connection: &Connection,
    claim: Claim<'_>,
    signed: Signed<'_>,
) -> Result<Authenticated, Why> {
    let id = Id::from_body(claim.id).ok_or(Why::Protocol("its identity is of no type that is known here"))?;
    believe(&id, Voucher::SharedKey, &connection.remote_id)?;
    if claim.method != SHARED_KEY || !connection.remote_auth.shared_key {
        return Err(Why::BadMethod(claim.method));
    }
    let local = &connection.local_id;
    let key = secrets.psk(local, &id).ok_or_else(|| Why::NoSecret(local.to_string(), id.to_string()))?;
    let expected = signed.shared_key(prf, key, claim.id);
    if !expected.is_same(claim.data) {
        return Err(Why::BadAuth(id.to_string()));
    }
    Ok(Authenticated { id, by_secret: true })
}

/// Checks the peer's AUTH after EAP: by the key that EAP has made, and by nothing else (RFC 7296 §2.16).
///
/// # Errors
/// What does not hold.
pub(crate) fn after_eap(
    prf: Prf,
    won: &Won,
    connection: &Connection,
    claim: Claim<'_>,
    signed: Signed<'_>,
) -> Result<Authenticated, Why> {
    // What it said it is before EAP counts for nothing: clients say their address there, or what they like.
    believe(&won.id, Voucher::Eap, &connection.remote_id)?;
    if connection.remote_auth.eap.is_none() {
        return Err(Why::BadMethod(claim.method));
    }
    of_eap(prf, (&won.id, &won.msk), claim, signed)?;
    Ok(Authenticated { id: won.id.clone(), by_secret: false })
}

/// Checks that the peer's AUTH is made with the key of EAP. SK_pi and SK_pr, which RFC 7296 §2.16 has for methods that make
/// none, prove nothing: RFC 5998 §3 forbids them.
///
/// # Errors
/// It is not.
pub(crate) fn of_eap(
    prf: Prf,
    (peer, msk): (&Id, &Secret),
    claim: Claim<'_>,
    signed: Signed<'_>,
) -> Result<(), Why> {
    if claim.method != SHARED_KEY {
        return Err(Why::BadMethod(claim.method));
    }
    if msk.is_empty() || !signed.shared_key(prf, msk, claim.id).is_same(claim.data) {
        return Err(Why::NotOfEap(peer.to_string()));
    }
    Ok(())
}

/// A signature and certificates to verify, which takes a while: a job for the host.
#[derive(Clone, Debug)]
pub struct Verification(Evidence);

/// What came of it. Only [`Verification::run`] makes one, and only the handler of IKE_AUTH makes anything of it.
#[derive(Clone, Debug)]
pub struct Verified {
    connection: Arc<Connection>,
    id: Id,
}

impl Verification {
    /// What is to be verified: the claim, for the first of the `candidates` for which it holds, with the certificates
    /// that came with it, believed as `trust` says at `at` (seconds since 1970).
    ///
    /// # Errors
    /// The identity is of no type that is known here.
    pub(crate) fn new(
        candidates: Vec<Arc<Connection>>,
        claim: Claim<'_>,
        octets: Vec<u8>,
        certificates: Vec<Vec<u8>>,
        (trust, at): (Arc<Trust>, u64),
    ) -> Result<Self, Why> {
        let claimed =
            Id::from_body(claim.id).ok_or(Why::Protocol("its identity is of no type that is known here"))?;
        let (method, data) = (claim.method, claim.data.to_vec());
        Ok(Self(Evidence { candidates, claimed, method, data, octets, certificates, trust, at }))
    }

    /// Verifies it.
    ///
    /// # Errors
    /// What does not hold.
    pub fn run(self) -> Result<Verified, Why> {
        let connection = self.0.examine()?;
        Ok(Verified { connection, id: self.0.claimed })
    }
}

/// Takes what came of a verification, if the connection it was for is still one of the `candidates`: while it was under
/// way the configuration may have changed.
///
/// # Errors
/// It is not.
pub(crate) fn accept(
    verified: &Verified,
    candidates: &[Arc<Connection>],
) -> Result<(Authenticated, Arc<Connection>), Why> {
    let connection = candidates.iter().find(|connection| ***connection == *verified.connection);
    let connection = connection.ok_or_else(|| Why::NoConnection(verified.id.to_string()))?;
    Ok((Authenticated { id: verified.id.clone(), by_secret: false }, connection.clone()))
}

#[cfg(test)]
pub(crate) mod tests;
