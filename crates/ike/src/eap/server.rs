//! The side that knows the passwords.

use super::packet::{FAILURE, IDENTITY, MSCHAPV2, Mschap, NAK, Packet, REQUEST, RESPONSE, SUCCESS};
use super::{EapSecret, MAX_NAME, MAX_ROUNDS, Step};
use crate::event::Why;
use ipsec_core::Secret;
use ipsec_core::mschap::{Exchange, PasswordHash, msk};

/// One conversation with one peer.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    id: u8,
    rounds: u8,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// It was asked who it is.
    Asked,
    /// It was sent a challenge.
    Challenged([u8; 16]),
    /// Its answer was right, and it was sent our own proof.
    Right(String, Secret),
    /// Its answer was wrong, and it was told so.
    Wrong(String),
}

impl Server {
    /// Begins by asking who it is.
    pub(crate) fn begin(id: u8) -> (Self, Vec<u8>) {
        let packet = Packet { code: REQUEST, id, kind: IDENTITY, data: Vec::new() };
        (Self { id, rounds: 0, state: State::Asked }, packet.emit())
    }

    /// Takes the peer's packet. `challenge` is fresh randomness, for the case that one is sent.
    pub(crate) fn take(&mut self, octets: &[u8], secrets: &[EapSecret], challenge: [u8; 16]) -> Step {
        self.rounds = self.rounds.saturating_add(1);
        let packet = Packet::parse(octets).filter(|p| p.code == RESPONSE && p.id == self.id);
        let Some(packet) = packet.filter(|_| self.rounds <= MAX_ROUNDS) else {
            return self.fail(Why::Protocol("its EAP packet is no answer to ours"));
        };
        if packet.kind == NAK {
            return self.fail(Why::Protocol("it does not speak EAP-MSCHAPv2, the only method here"));
        }
        match (self.state.clone(), packet.kind, Mschap::parse(&packet.data)) {
            // Who it says it is here counts for nothing: the name in its answer is the one that is proved.
            (State::Asked, IDENTITY, _) => {
                self.state = State::Challenged(challenge);
                let id = self.id.wrapping_add(1);
                self.send(&Mschap::Challenge { id, challenge, name: "tulips".to_owned() })
            }
            (State::Challenged(ours), MSCHAPV2, Some(Mschap::Response { challenge, response, name, .. })) => {
                self.judge((&ours, &challenge), &response, &name, secrets)
            }
            (State::Right(user, msk), MSCHAPV2, Some(Mschap::SuccessSeen)) => {
                let packet = Packet { code: SUCCESS, id: self.id, kind: 0, data: Vec::new() };
                Step::Success(Some(packet.emit()), user, msk)
            }
            (State::Wrong(user), ..) => self.fail(Why::BadPassword(user)),
            _ => self.fail(Why::Protocol("its EAP packet is out of turn")),
        }
    }

    /// The user whose answer was wrong, if it was: not every client waits to be told that it has failed.
    pub(crate) fn wrong(&self) -> Option<&str> {
        if let State::Wrong(user) = &self.state { Some(user) } else { None }
    }

    fn judge(
        &mut self,
        (authenticator, peer): (&[u8; 16], &[u8; 16]),
        response: &[u8; 24],
        name: &str,
        secrets: &[EapSecret],
    ) -> Step {
        // Windows puts a domain before the name, and leaves it out of the hash (RFC 2759 §4).
        let user = name.rsplit('\\').next().unwrap_or(name);
        let known = secrets.iter().rfind(|secret| secret.user == name || secret.user == user);
        // One that nobody has answers as slowly, and as wrong, as another's.
        let nobody = PasswordHash::of("");
        let password = known.map_or(&nobody, |secret| &secret.password);
        let exchange = Exchange { authenticator, peer, user };
        let right = Secret::from(&exchange.response(password)[..]).is_same(response);
        let id = self.id.wrapping_add(1);
        if right && known.is_some() && !user.is_empty() && name.len() <= MAX_NAME {
            let proof = exchange.authenticator_response(password, response);
            let user = known.map_or(user, |secret| &secret.user).to_owned();
            self.state = State::Right(user, msk(password, response));
            return self.send(&Mschap::Success { id, text: format!("{proof} M=welcome") });
        }
        self.state = State::Wrong(name.chars().take(MAX_NAME).collect());
        // 691: the name or the password is wrong; another try is another negotiation.
        let text = format!("E=691 R=0 C={} V=3 M=wrong name or password", "0".repeat(32));
        self.send(&Mschap::Failure { id, text })
    }

    fn send(&mut self, inner: &Mschap) -> Step {
        self.id = self.id.wrapping_add(1);
        let packet = Packet { code: REQUEST, id: self.id, kind: MSCHAPV2, data: inner.emit() };
        Step::Send(packet.emit())
    }

    fn fail(&self, why: Why) -> Step {
        let packet = Packet { code: FAILURE, id: self.id, kind: 0, data: Vec::new() };
        Step::Failure(Some(packet.emit()), why)
    }
}
