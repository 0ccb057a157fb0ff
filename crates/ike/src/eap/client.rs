//! The side that is asked who it is. It speaks only to a server that has proved who it is by its certificate, or that must
//! do so in EAP-TLS before anything is said of ours.

use super::packet::{FAILURE, IDENTITY, NAK, NOTIFICATION, Packet, REQUEST, RESPONSE, SUCCESS, name};
use super::tls::{Setup, Tls};
use super::{MAX_ROUNDS, MAX_TLS_ROUNDS, Reply, Step, mschap, packet};
use crate::connection::{Connection, Secrets};
use crate::credential::{EapProof, LocalEap};
use crate::event::Why;
use crate::identity::Id;
use crate::sa::{Answers, Pause};
use ipsec_core::Secret;

/// One conversation.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Who we say we are.
    name: String,
    rounds: u8,
    method: Method,
    /// The method that the server asked for and did not get.
    declined: Option<u8>,
    /// The server has proved nothing yet.
    alone: bool,
}

/// The server, before EAP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer<'a> {
    /// Who it is, or says it is.
    pub(crate) id: &'a Id,
    /// It has not proved that: it is to do so in EAP alone (RFC 5998).
    pub(crate) alone: bool,
    /// The time of day, in seconds since 1970.
    pub(crate) at: Option<u64>,
}

#[derive(Clone, Debug)]
enum Method {
    /// We have a password.
    Mschap(mschap::Client),
    /// We have a certificate.
    Tls(Tls),
}

/// Says whether what is needed to prove ourselves so is there.
///
/// # Errors
/// What is missing.
pub(crate) fn ready(local: &LocalEap, secrets: &Secrets) -> Result<(), Why> {
    match &local.proof {
        EapProof::Password => {
            secrets.user(&local.name).map(|_| ()).ok_or_else(|| Why::NoPassword(local.name.clone()))
        }
        EapProof::Tls(signature) => {
            let key = secrets.key(&signature.public);
            key.map(|_| ()).ok_or_else(|| Why::NoPrivateKey(local.name.clone()))
        }
    }
}

impl Client {
    /// Begins with a server.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn new(
        local: &LocalEap,
        connection: &Connection,
        secrets: &Secrets,
        peer: Peer<'_>,
    ) -> Result<Self, Why> {
        ready(local, secrets)?;
        let method = match &local.proof {
            // A stranger could try passwords by the answer (RFC 5998 §4).
            EapProof::Password if peer.alone => {
                return Err(Why::Internal("a password is for a gateway that has proved who it is"));
            }
            EapProof::Password => {
                let secret = secrets.user(&local.name).ok_or_else(|| Why::NoPassword(local.name.clone()))?;
                Method::Mschap(mschap::Client::new(secret.clone()))
            }
            EapProof::Tls(signature) => {
                Method::Tls(Tls::client(Setup::client(signature, connection, secrets, peer)?))
            }
        };
        Ok(Self { name: local.name.clone(), rounds: 0, method, declined: None, alone: peer.alone })
    }

    const fn kind(&self) -> u8 {
        match self.method {
            Method::Mschap(_) => mschap::KIND,
            Method::Tls(_) => packet::TLS,
        }
    }

    /// Takes the server's packet. `fresh` is randomness, for the case that a challenge is to be answered.
    pub(crate) fn take(
        &mut self,
        octets: &[u8],
        fresh: [u8; 16],
        answers: &mut Answers,
    ) -> Result<Step<Secret>, Pause> {
        self.rounds = self.rounds.saturating_add(1);
        let fail = |why: &'static str| Ok(Step::Failure(None, Why::Protocol(why)));
        let most = if self.kind() == packet::TLS { MAX_TLS_ROUNDS } else { MAX_ROUNDS };
        let Some(packet) = Packet::parse(octets).filter(|_| self.rounds <= most) else {
            return fail("its EAP packet is none");
        };
        let reply = match (packet.code, packet.kind, &mut self.method) {
            // A success that was not earned would have us believe somebody who has proved nothing (CVE-2023-26463).
            (SUCCESS, ..) => {
                return self.proved().map_or_else(
                    || fail("it calls EAP a success before it has proved that it knows the password or has the key of a certificate"),
                    |msk| Ok(Step::Success(msk.clone())),
                );
            }
            (FAILURE, ..) => return Ok(Step::Failure(None, self.refused())),
            (REQUEST, IDENTITY, _) => return Ok(answer(packet.id, IDENTITY, self.name.as_bytes().to_vec())),
            (REQUEST, NOTIFICATION, _) => return Ok(answer(packet.id, NOTIFICATION, Vec::new())),
            (REQUEST, mschap::KIND, Method::Mschap(client)) => client.take(&packet.data, fresh),
            (REQUEST, packet::TLS, Method::Tls(tls)) => tls.take(&packet.data, answers)?,
            (REQUEST, other, _) => {
                self.declined = Some(other);
                if self.alone {
                    // Nothing is negotiated with a stranger (RFC 5998 §3).
                    return Ok(Step::Failure(None, self.refused()));
                }
                return Ok(answer(packet.id, NAK, vec![self.kind()]));
            }
            _ => return fail("its EAP packet is no request"),
        };
        Ok(match reply {
            Reply::Data(data) => answer(packet.id, self.kind(), data),
            // Only EAP-Success is one.
            Reply::Success(_) => return fail("its EAP packet is out of turn"),
            Reply::Failure(why) => Step::Failure(None, why),
        })
    }

    /// The MSK, once the server has proved itself within EAP.
    fn proved(&self) -> Option<&Secret> {
        match &self.method {
            Method::Mschap(client) => client.proved(),
            Method::Tls(tls) => tls.proved(),
        }
    }

    /// Who the server has proved to be within EAP, where the method says that.
    pub(crate) fn server(&self) -> Option<&Id> {
        match &self.method {
            Method::Mschap(_) => None,
            Method::Tls(tls) => tls.peer(),
        }
    }

    /// Why the server has given up, as far as it can be known.
    fn refused(&self) -> Why {
        match (self.declined, &self.method) {
            (Some(theirs), _) => {
                let (ours, theirs) = (name(self.kind()), name(theirs));
                Why::EapMethod { ours, theirs, setting: "leftauth" }
            }
            (None, Method::Mschap(client)) => client.refused(),
            (None, Method::Tls(tls)) => {
                tls.over().cloned().unwrap_or_else(|| Why::CertificateRefused(self.name.clone()))
            }
        }
    }
}

fn answer<W>(id: u8, kind: u8, data: Vec<u8>) -> Step<W> {
    Step::Send(Packet { code: RESPONSE, id, kind, data }.emit())
}
