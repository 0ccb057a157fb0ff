//! The side that asks who somebody is.

use super::packet::{FAILURE, IDENTITY, NAK, Packet, REQUEST, RESPONSE, SUCCESS, name};
use super::tls::{Setup, Tls};
use super::{MAX_ROUNDS, MAX_TLS_ROUNDS, Reply, Step, Won, mschap, packet};
use crate::connection::{Connection, Secrets};
use crate::credential::RemoteEap;
use crate::event::Why;
use crate::message::IdBody;
use crate::sa::{Answers, Pause};

/// One conversation with one peer.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    id: u8,
    rounds: u8,
    method: Method,
}

#[derive(Clone, Debug)]
enum Method {
    /// It was asked who it is, and will be asked to prove it so.
    Asked(Way),
    /// By a password.
    Mschap(mschap::Server),
    /// By a certificate.
    Tls(Tls),
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Password,
    Certificate,
}

/// What a conversation is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) secrets: &'a Secrets,
    /// What the peer said it is before EAP.
    pub(crate) said: &'a IdBody,
    /// The time of day, in seconds since 1970, if it is known.
    pub(crate) at: Option<u64>,
    /// Fresh randomness, for the case that a challenge is sent.
    pub(crate) fresh: [u8; 16],
}

impl Server {
    /// Begins by asking who it is.
    pub(crate) fn begin(id: u8, how: &RemoteEap) -> (Self, Vec<u8>) {
        let packet = Packet { code: REQUEST, id, kind: IDENTITY, data: Vec::new() };
        let way = match how {
            RemoteEap::Password => Way::Password,
            RemoteEap::Tls(_) => Way::Certificate,
        };
        (Self { id, rounds: 0, method: Method::Asked(way) }, packet.emit())
    }

    const fn kind(&self) -> u8 {
        match self.method {
            Method::Asked(Way::Password) | Method::Mschap(_) => mschap::KIND,
            Method::Asked(Way::Certificate) | Method::Tls(_) => packet::TLS,
        }
    }

    /// Takes the peer's packet. Success comes with a last packet to send.
    pub(crate) fn take(
        &mut self,
        octets: &[u8],
        around: Around<'_>,
        answers: &mut Answers,
    ) -> Result<Step<(Vec<u8>, Won)>, Pause> {
        self.rounds = self.rounds.saturating_add(1);
        let most = if self.kind() == packet::TLS { MAX_TLS_ROUNDS } else { MAX_ROUNDS };
        let packet = Packet::parse(octets).filter(|p| p.code == RESPONSE && p.id == self.id);
        let Some(packet) = packet.filter(|_| self.rounds <= most) else {
            return Ok(self.fail(Why::Protocol("its EAP packet is no answer to ours")));
        };
        let id = self.id.wrapping_add(1);
        let reply = match (&mut self.method, packet.kind) {
            (_, NAK) => {
                let theirs: Vec<String> = packet.data.iter().take(8).copied().map(name).collect();
                let theirs = if theirs.is_empty() { "no other method".to_owned() } else { theirs.join(", ") };
                let ours = name(self.kind());
                return Ok(self.fail(Why::EapMethod { ours, theirs, setting: "rightauth" }));
            }
            // By passwords, what it says here counts for nothing: the name in its answer is the one that is proved.
            (Method::Asked(Way::Password), IDENTITY) => {
                let mut server = mschap::Server::default();
                let data = server.begin(id, around.fresh);
                self.method = Method::Mschap(server);
                Reply::Data(data)
            }
            (Method::Asked(Way::Certificate), IDENTITY) => match Setup::server(around, &packet.data) {
                Ok(setup) => {
                    let (tls, data) = Tls::server(setup);
                    self.method = Method::Tls(tls);
                    Reply::Data(data)
                }
                Err(why) => Reply::Failure(why),
            },
            (Method::Mschap(server), mschap::KIND) => server.take(&packet.data, id, &around.secrets.eap),
            (Method::Tls(tls), packet::TLS) => tls.take(&packet.data, answers)?,
            _ => Reply::Failure(self.over().unwrap_or(Why::Protocol("its EAP packet is out of turn"))),
        };
        Ok(match reply {
            Reply::Data(data) => {
                self.id = id;
                Step::Send(Packet { code: REQUEST, id, kind: self.kind(), data }.emit())
            }
            Reply::Success(won) => {
                let packet = Packet { code: SUCCESS, id: self.id, kind: 0, data: Vec::new() };
                Step::Success((packet.emit(), won))
            }
            Reply::Failure(why) => self.fail(why),
        })
    }

    /// Octets that are kept for it.
    pub(crate) fn held(&self) -> usize {
        if let Method::Tls(tls) = &self.method { tls.held() } else { 0 }
    }

    /// Why it will come to nothing, if it will: not every client waits to be told that it has failed.
    pub(crate) fn over(&self) -> Option<Why> {
        match &self.method {
            Method::Asked(_) => None,
            Method::Mschap(server) => server.over(),
            Method::Tls(tls) => tls.over().cloned(),
        }
    }

    fn fail<W>(&self, why: Why) -> Step<W> {
        let packet = Packet { code: FAILURE, id: self.id, kind: 0, data: Vec::new() };
        Step::Failure(Some(packet.emit()), why)
    }
}
