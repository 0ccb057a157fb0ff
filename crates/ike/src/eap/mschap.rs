//! MSCHAPv2 in EAP (draft-kamath-pppext-eap-mschapv2): both sides prove that they know a password.

mod packet;

use super::packet::MSCHAPV2;
use super::{EapSecret, MAX_NAME, Reply, Won};
use crate::event::Why;
use crate::identity::Id;
use ipsec_core::Secret;
use ipsec_core::mschap::{Exchange, PasswordHash, msk};
pub(super) use packet::Mschap;

/// The side that has a password.
#[derive(Clone, Debug)]
pub(super) struct Client {
    secret: EapSecret,
    state: Asked,
}

#[derive(Clone, Debug)]
enum Asked {
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
    pub(super) const fn new(secret: EapSecret) -> Self {
        Self { secret, state: Asked::Waiting }
    }

    /// The MSK, once the server has proved that it knows the password.
    pub(super) const fn proved(&self) -> Option<&Secret> {
        if let Asked::Proved(msk) = &self.state { Some(msk) } else { None }
    }

    /// Why the server gave up.
    pub(super) fn refused(&self) -> Why {
        Why::PasswordRefused(self.secret.user.clone())
    }

    /// Takes what the server says. `ours` is fresh randomness, for the case that a challenge is sent.
    pub(super) fn take(&mut self, data: &[u8], ours: [u8; 16]) -> Reply {
        let fail = |why: &'static str| Reply::Failure(Why::Protocol(why));
        let inner = match (Mschap::parse(data), &self.state) {
            (Some(Mschap::Challenge { id, challenge, .. }), Asked::Waiting) => {
                let (user, password) = (&self.secret.user, &self.secret.password);
                let plain = user.rsplit('\\').next().unwrap_or(user);
                let exchange = Exchange { authenticator: &challenge, peer: &ours, user: plain };
                let response = exchange.response(password);
                let proof = exchange.authenticator_response(password, &response);
                self.state = Asked::Answered { proof, msk: msk(password, &response) };
                Mschap::Response { id, challenge: ours, response, name: user.clone() }
            }
            (Some(Mschap::Success { text, .. }), Asked::Answered { proof, msk }) => {
                // Forty digits in either case, and then whatever it likes to say.
                let said = text.get(..proof.len()).map(str::to_ascii_uppercase);
                let same = said.is_some_and(|said| Secret::from(said.as_bytes()).is_same(proof.as_bytes()));
                if !same {
                    return fail("it does not know the password: its proof is wrong");
                }
                self.state = Asked::Proved(msk.clone());
                Mschap::SuccessSeen
            }
            (Some(Mschap::Failure { .. }), Asked::Answered { .. }) => {
                self.state = Asked::Refused;
                Mschap::FailureSeen
            }
            _ => return fail("its EAP packet is out of turn"),
        };
        Reply::Data(inner.emit())
    }
}

/// The side that knows the passwords.
#[derive(Clone, Debug, Default)]
pub(super) struct Server(Asking);

#[derive(Clone, Debug, Default)]
enum Asking {
    /// Nothing was asked yet.
    #[default]
    Fresh,
    /// It was sent a challenge.
    Challenged([u8; 16]),
    /// Its answer was right, and it was sent our own proof.
    Right(Won),
    /// Its answer was wrong, and it was told so.
    Wrong(String),
}

impl Server {
    /// Asks for the password. `id` is the number of the packet, `challenge` fresh randomness.
    pub(super) fn begin(&mut self, id: u8, challenge: [u8; 16]) -> Vec<u8> {
        self.0 = Asking::Challenged(challenge);
        Mschap::Challenge { id, challenge, name: "tulips".to_owned() }.emit()
    }

    /// Why it will come to nothing, if it will: not every client waits to be told.
    pub(super) fn over(&self) -> Option<Why> {
        if let Asking::Wrong(user) = &self.0 { Some(Why::BadPassword(user.clone())) } else { None }
    }

    /// Takes what the client says; `id` is the number of the packet that answers it.
    pub(super) fn take(&mut self, data: &[u8], id: u8, secrets: &[EapSecret]) -> Reply {
        match (self.0.clone(), Mschap::parse(data)) {
            (Asking::Challenged(ours), Some(Mschap::Response { challenge, response, name, .. })) => {
                Reply::Data(self.judge((&ours, &challenge), &response, (&name, id), secrets).emit())
            }
            (Asking::Right(won), Some(Mschap::SuccessSeen)) => Reply::Success(won),
            (Asking::Wrong(user), _) => Reply::Failure(Why::BadPassword(user)),
            _ => Reply::Failure(Why::Protocol("its EAP packet is out of turn")),
        }
    }

    fn judge(
        &mut self,
        (authenticator, peer): (&[u8; 16], &[u8; 16]),
        response: &[u8; 24],
        (name, id): (&str, u8),
        secrets: &[EapSecret],
    ) -> Mschap {
        // Windows puts a domain before the name, and leaves it out of the hash (RFC 2759 §4).
        let user = name.rsplit('\\').next().unwrap_or(name);
        let known = secrets.iter().rfind(|secret| secret.user == name || secret.user == user);
        // One that nobody has answers as slowly, and as wrong, as another's.
        let nobody = PasswordHash::of("");
        let password = known.map_or(&nobody, |secret| &secret.password);
        let exchange = Exchange { authenticator, peer, user };
        let right = Secret::from(&exchange.response(password)[..]).is_same(response);
        if right && known.is_some() && !user.is_empty() && name.len() <= MAX_NAME {
            let proof = exchange.authenticator_response(password, response);
            let user = known.map_or(user, |secret| &secret.user);
            self.0 = Asking::Right(Won { id: Id::user(user), msk: msk(password, response) });
            return Mschap::Success { id, text: format!("{proof} M=welcome") };
        }
        self.0 = Asking::Wrong(name.chars().take(MAX_NAME).collect());
        // 691: the name or the password is wrong; another try is another negotiation.
        let text = format!("E=691 R=0 C={} V=3 M=wrong name or password", "0".repeat(32));
        Mschap::Failure { id, text }
    }
}

/// The type of its packets.
pub(super) const KIND: u8 = MSCHAPV2;
