//! EAP-TLS (RFC 5216, RFC 9190): both sides prove by certificates who they are, in TLS 1.3 or 1.2.
//!
//! What is pure stays here: [`fragments`], and whose turn it is. TLS itself draws randomness, exchanges keys, signs and
//! verifies, so each of its turns is a job ([`Turn`]) that the host does beside the engine, and [`Said`] what came of it.
//! Which certificates are believed, and whose they are, is said by the same functions as in IKE_AUTH
//! ([`crate::auth::signature`]).

mod alert;
mod credentials;
pub mod fragments;
mod session;

pub(crate) use alert::alert;
pub(crate) use session::Outcome;
pub(super) use session::Setup;
pub use session::{Said, Turn};

use super::{Reply, Won};
use crate::event::Why;
use crate::identity::Id;
use crate::job::{Answer, Job};
use crate::sa::{Answers, Pause};
use fragments::{Line, Taken};
use ipsec_core::Secret;
use session::Talk;
use std::sync::Arc;

/// What a session of TLS keeps while it waits for the other side.
const SESSION: usize = 32 * 1024;

/// One conversation, as either side.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    server: bool,
    talk: Arc<Talk>,
    line: Line,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// The client waits for the server to begin.
    Waiting,
    Talking,
    /// TLS has come to its end: the other side has proved who it is.
    Done(Won),
    /// It has come to nothing, and the other side is told why by an alert, or has told us.
    Over(Why),
}

impl Tls {
    pub(super) fn client(setup: Setup) -> Self {
        let talk = Arc::new(Talk::new(setup));
        Self { server: false, talk, line: Line::default(), state: State::Waiting }
    }

    /// The server, and what it begins with.
    pub(super) fn server(setup: Setup) -> (Self, Vec<u8>) {
        let talk = Arc::new(Talk::new(setup));
        (Self { server: true, talk, line: Line::default(), state: State::Talking }, Line::start())
    }

    /// Octets that are kept for it: of messages, and of TLS itself, as measured.
    pub(super) fn held(&self) -> usize {
        SESSION.saturating_add(self.line.held())
    }

    /// The MSK, for the client that EAP-Success may be said to.
    pub(super) const fn proved(&self) -> Option<&Secret> {
        if let State::Done(won) = &self.state { Some(&won.msk) } else { None }
    }

    /// Who the other side has proved to be.
    pub(super) const fn peer(&self) -> Option<&Id> {
        if let State::Done(won) = &self.state { Some(&won.id) } else { None }
    }

    /// Why it has come to nothing, if it has.
    pub(super) const fn over(&self) -> Option<&Why> {
        if let State::Over(why) = &self.state { Some(why) } else { None }
    }

    /// Takes the data of a packet.
    pub(super) fn take(&mut self, data: &[u8], answers: &mut Answers) -> Result<Reply, Pause> {
        let mut line = self.line.clone();
        let taken = match (line.take(data), &self.state) {
            (Ok(taken), _) => taken,
            (Err(_), State::Over(why)) => return Ok(Reply::Failure(why.clone())),
            (Err(why), _) => return Ok(Reply::Failure(Why::Protocol(why))),
        };
        let reply = match (taken, &self.state) {
            (Taken::Reply(data), _) => Reply::Data(data),
            (_, State::Over(why)) => Reply::Failure(why.clone()),
            (Taken::Start, State::Waiting) => self.turn(&mut line, Vec::new(), answers)?,
            (Taken::Message(octets), State::Done(won)) if octets.is_empty() && self.server => {
                Reply::Success(won.clone())
            }
            (Taken::Message(octets), State::Talking | State::Done(_)) if !octets.is_empty() => {
                self.turn(&mut line, octets, answers)?
            }
            (Taken::Start | Taken::Message(_), State::Waiting | State::Talking | State::Done(_)) => {
                Reply::Failure(Why::Protocol("its EAP-TLS packet is out of turn"))
            }
        };
        self.line = line;
        Ok(reply)
    }

    /// Gives TLS what the other side has said, and sends what it says to that.
    fn turn(&mut self, line: &mut Line, octets: Vec<u8>, answers: &mut Answers) -> Result<Reply, Pause> {
        let asked = answers.ask(|| Job::Tls(Turn::new(self.talk.clone(), octets)))?;
        let Answer::Tls(said) = asked else {
            return Ok(Reply::Failure(Why::Internal("an answer to another question")));
        };
        let (octets, outcome, talk) = said.parts();
        self.talk = talk.unwrap_or_else(|| self.talk.clone());
        let silent = octets.is_empty();
        self.state = match outcome {
            Outcome::More if matches!(self.state, State::Done(_)) => {
                return Ok(Reply::Failure(Why::Protocol("it goes on with TLS after the end")));
            }
            Outcome::More if silent && self.server => {
                return Ok(Reply::Failure(Why::Protocol("it stops in the middle of TLS")));
            }
            // An alert is to be answered by a client; else nothing would tell its silence from consent.
            Outcome::Failed(why) if silent && (self.server || !matches!(why, Why::TlsAlert(_))) => {
                return Ok(Reply::Failure(why));
            }
            Outcome::More => State::Talking,
            Outcome::Done(won) => State::Done(won),
            Outcome::Failed(why) => State::Over(why),
        };
        // A client that has nothing to say answers so (RFC 5216 §2.1.1).
        Ok(Reply::Data(line.send(octets)))
    }
}

#[cfg(test)]
mod tests;
