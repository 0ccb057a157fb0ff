//! EAP (RFC 3748) as the side that asks who somebody is, and as the side that is asked: messages in, messages out, and in the
//! end the MSK or why there is none.
//!
//! `Server` and `Client` are the conversation, the same for every method; what is of a method's type they hand to it:
//! `mschap`, a user's password, or `tls`, certificates of both sides. A method that takes time (TLS) asks for a job like
//! every handler, and changes nothing before it is answered.
//!
//! Neither side believes a success that was not earned: the server's user has answered the server's challenge, and the
//! client's server has proved that it knows the password, or what its certificate says, before EAP-Success counts.

mod client;
mod mschap;
mod packet;
mod server;
mod tls;

pub(crate) use client::{Client, Peer, ready};
pub(crate) use server::{Around, Server};
pub use tls::fragments;
pub(crate) use tls::{Outcome, alert};
pub use tls::{Said, Turn};

use crate::event::Why;
use crate::identity::Id;
use ipsec_core::Secret;
use ipsec_core::mschap::PasswordHash;

/// Packets of one conversation by passwords: an honest one has at most six.
const MAX_ROUNDS: u8 = 16;
/// Packets of one with TLS: the longest chains both ways, in fragments, are not a hundred.
const MAX_TLS_ROUNDS: u8 = 128;
/// The longest name of a user.
const MAX_NAME: usize = 253;

/// A user and the password.
#[derive(Clone, Debug)]
pub struct EapSecret {
    /// The name, as the user gives it.
    pub user: String,
    /// The password's hash: what is kept, so that the password itself is not.
    pub password: PasswordHash,
}

/// Who has succeeded, and the key that both ends of EAP have now.
#[derive(Clone, Debug)]
pub(crate) struct Won {
    pub(crate) id: Id,
    pub(crate) msk: Secret,
}

/// What an EAP packet comes to.
#[derive(Debug)]
pub(crate) enum Step<W> {
    /// A packet to send; the conversation goes on.
    Send(Vec<u8>),
    /// It has succeeded.
    Success(W),
    /// It has failed: a last packet to send, if this side is to, and why.
    Failure(Option<Vec<u8>>, Why),
}

/// What a method makes of a packet of its type.
#[derive(Debug)]
enum Reply {
    /// What it says to that.
    Data(Vec<u8>),
    /// The other side has proved who it is, and knows that we believe it.
    Success(Won),
    /// It will come to nothing.
    Failure(Why),
}

#[cfg(test)]
mod tests;
