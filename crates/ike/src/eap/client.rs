//! The side that has a password. It speaks only to a server that has proved who it is by its certificate.

use super::packet::{
    FAILURE, IDENTITY, MSCHAPV2, Mschap, NAK, NOTIFICATION, Packet, REQUEST, RESPONSE, SUCCESS,
};
use super::{EapSecret, MAX_ROUNDS, Step};
use crate::event::Why;
use ipsec_core::Secret;
use ipsec_core::mschap::{Exchange, msk};

/// One conversation.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    secret: EapSecret,
    rounds: u8,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing is proved.
    Waiting,
    /// We have answered a challenge, and the server must prove that it knows the password as well.
    Answered { proof: String, msk: Secret },
    /// It has.
    Proved(Secret),
    /// It does not take ours.
    Refused,
}

impl Client {
    pub(crate) const fn new(secret: EapSecret) -> Self {
        Self { secret, rounds: 0, state: State::Waiting }
    }

    /// Takes the server's packet. `challenge` is fresh randomness, for the case that one is sent.
    pub(crate) fn take(&mut self, octets: &[u8], challenge: [u8; 16]) -> Step {
        self.rounds = self.rounds.saturating_add(1);
        let fail = |why: &'static str| Step::Failure(None, Why::Protocol(why));
        let Some(packet) = Packet::parse(octets).filter(|_| self.rounds <= MAX_ROUNDS) else {
            return fail("its EAP packet is none");
        };
        match (packet.code, packet.kind) {
            // A success that was not earned would have us believe somebody who does not know the password (CVE-2023-26463).
            (SUCCESS, _) => match &self.state {
                State::Proved(msk) => Step::Success(None, self.secret.user.clone(), msk.clone()),
                State::Waiting | State::Answered { .. } | State::Refused => {
                    fail("it calls EAP a success before it has proved that it knows the password")
                }
            },
            (FAILURE, _) => Step::Failure(None, Why::PasswordRefused(self.secret.user.clone())),
            (REQUEST, IDENTITY) => answer(packet.id, IDENTITY, self.secret.user.as_bytes().to_vec()),
            (REQUEST, NOTIFICATION) => answer(packet.id, NOTIFICATION, Vec::new()),
            (REQUEST, MSCHAPV2) => self.mschap(&packet, challenge),
            (REQUEST, _) => answer(packet.id, NAK, vec![MSCHAPV2]),
            _ => fail("its EAP packet is no request"),
        }
    }

    fn mschap(&mut self, packet: &Packet, ours: [u8; 16]) -> Step {
        let fail = |why: &'static str| Step::Failure(None, Why::Protocol(why));
        let inner = match (Mschap::parse(&packet.data), &self.state) {
            (Some(Mschap::Challenge { id, challenge, .. }), State::Waiting) => {
                let (user, password) = (&self.secret.user, &self.secret.password);
                let plain = user.rsplit('\\').next().unwrap_or(user);
                let exchange = Exchange { authenticator: &challenge, peer: &ours, user: plain };
                let response = exchange.response(password);
                let proof = exchange.authenticator_response(password, &response);
                self.state = State::Answered { proof, msk: msk(password, &response) };
                Mschap::Response { id, challenge: ours, response, name: user.clone() }
            }
            (Some(Mschap::Success { text, .. }), State::Answered { proof, msk }) => {
                // Forty digits in either case, and then whatever it likes to say.
                let said = text.get(..proof.len()).map(str::to_ascii_uppercase);
                let same = said.is_some_and(|said| Secret::from(said.as_bytes()).is_same(proof.as_bytes()));
                if !same {
                    return fail("it does not know the password: its proof is wrong");
                }
                self.state = State::Proved(msk.clone());
                Mschap::SuccessSeen
            }
            (Some(Mschap::Failure { .. }), State::Answered { .. }) => {
                self.state = State::Refused;
                Mschap::FailureSeen
            }
            _ => return fail("its EAP packet is out of turn"),
        };
        answer(packet.id, MSCHAPV2, inner.emit())
    }
}

fn answer(id: u8, kind: u8, data: Vec<u8>) -> Step {
    Step::Send(Packet { code: RESPONSE, id, kind, data }.emit())
}

#[cfg(test)]
mod tests {
    use super::super::Server;
    use super::*;
    use ipsec_core::mschap::PasswordHash;

    fn secret(user: &str, password: &str) -> EapSecret {
        EapSecret { user: user.to_owned(), password: PasswordHash::of(password) }
    }

    /// Lets both speak to the end, and says what each came to.
    fn talk(
        client: &mut Client,
        users: &[EapSecret],
        mut between: impl FnMut(&mut Vec<u8>),
    ) -> (Step, Option<Step>) {
        let (mut server, mut packet) = Server::begin(5);
        let mut last = None;
        loop {
            between(&mut packet);
            match client.take(&packet, [2; 16]) {
                Step::Send(answer) => match server.take(&answer, users, [1; 16]) {
                    Step::Send(next) => packet = next,
                    Step::Success(Some(next), user, msk) => {
                        last = Some(Step::Success(None, user, msk));
                        packet = next;
                    }
                    Step::Failure(Some(next), why) => {
                        last = Some(Step::Failure(None, why));
                        packet = next;
                    }
                    other => panic!("{other:?}"),
                },
                end => return (end, last),
            }
        }
    }

    #[test]
    fn both_sides_get_one_msk_when_both_know_the_password() {
        let users = [secret("bob", "other"), secret("alice", "right")];
        for name in ["alice", r"OFFICE\alice"] {
            let (client, server) = talk(&mut Client::new(secret(name, "right")), &users, |_| {});
            let (Step::Success(None, _, one), Some(Step::Success(None, user, two))) = (client, server) else {
                panic!("{name}")
            };
            assert!(one == two && one.len() == 64 && user == "alice");
        }
    }

    #[test]
    fn a_wrong_password_an_unknown_user_and_an_empty_one_look_the_same() {
        let users = [secret("alice", "right")];
        for wrong in
            [secret("alice", "wrong"), secret("mallory", "right"), secret("mallory", ""), secret("", "")]
        {
            let (client, server) = talk(&mut Client::new(wrong), &users, |_| {});
            assert!(matches!(client, Step::Failure(None, Why::PasswordRefused(_))), "{client:?}");
            assert!(matches!(server, Some(Step::Failure(None, Why::BadPassword(_)))), "{server:?}");
        }
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_not_believed() {
        // It calls it a success at once, or after our answer, or with a proof of its own making.
        let success = Packet { code: SUCCESS, id: 5, kind: 0, data: Vec::new() }.emit();
        let mut client = Client::new(secret("alice", "right"));
        assert!(matches!(client.take(&success, [2; 16]), Step::Failure(..)));
        let request =
            |inner: Mschap| Packet { code: REQUEST, id: 6, kind: MSCHAPV2, data: inner.emit() }.emit();
        let challenge = Mschap::Challenge { id: 6, challenge: [1; 16], name: "sly".to_owned() };
        let challenged = || {
            let mut client = Client::new(secret("alice", "right"));
            assert!(matches!(client.take(&request(challenge.clone()), [2; 16]), Step::Send(_)));
            client
        };
        assert!(matches!(challenged().take(&success, [2; 16]), Step::Failure(..)));
        for text in [String::new(), "S=".to_owned(), format!("S={}", "0".repeat(40)), "M=welcome".to_owned()]
        {
            let said = Mschap::Success { id: 6, text };
            assert!(matches!(challenged().take(&request(said), [2; 16]), Step::Failure(..)));
        }
        // Nor is it answered twice: two answers to challenges of its choice would be worth more than one.
        assert!(matches!(challenged().take(&request(challenge.clone()), [2; 16]), Step::Failure(..)));
        // A packet between that is changed in any bit comes to nothing or changes nothing.
        let users = [secret("alice", "right")];
        for bit in 0..400 {
            let mut n = 0;
            let (client, _) = talk(&mut Client::new(secret("alice", "right")), &users, |packet| {
                n += 1;
                if let (3, Some(octet)) = (n, packet.get_mut(bit / 8)) {
                    *octet ^= 1 << (bit % 8);
                }
            });
            assert!(matches!(client, Step::Success(..) | Step::Failure(..)));
        }
    }

    #[test]
    fn a_user_cannot_skip_the_challenge() {
        let users = [secret("alice", "right")];
        let respond =
            |id: u8, inner: &Mschap| Packet { code: RESPONSE, id, kind: MSCHAPV2, data: inner.emit() }.emit();
        let seen = Mschap::SuccessSeen;
        let (mut server, _) = Server::begin(5);
        assert!(matches!(server.take(&respond(5, &seen), &users, [1; 16]), Step::Failure(..)));
        let (mut server, _) = Server::begin(5);
        let identity = Packet { code: RESPONSE, id: 5, kind: IDENTITY, data: b"alice".to_vec() }.emit();
        assert!(matches!(server.take(&identity, &users, [1; 16]), Step::Send(_)));
        assert!(matches!(server.take(&respond(6, &seen), &users, [1; 16]), Step::Failure(..)));
        // Told that it was wrong, it says that it was right.
        let (mut server, _) = Server::begin(5);
        server.take(&identity, &users, [1; 16]);
        let wrong =
            Mschap::Response { id: 6, challenge: [2; 16], response: [0; 24], name: "alice".to_owned() };
        assert!(matches!(server.take(&respond(6, &wrong), &users, [1; 16]), Step::Send(_)));
        assert!(matches!(server.take(&respond(7, &seen), &users, [1; 16]), Step::Failure(..)));
        // An answer to another question is none.
        let (mut server, _) = Server::begin(5);
        let stale = Packet { code: RESPONSE, id: 4, kind: IDENTITY, data: b"alice".to_vec() }.emit();
        assert!(matches!(server.take(&stale, &users, [1; 16]), Step::Failure(..)));
    }
}
