//! EAP (RFC 3748) with MSCHAPv2 (draft-kamath-pppext-eap-mschapv2), as the side that knows the passwords and as the side that
//! has one: messages in, messages out, and in the end the MSK or why there is none.
//!
//! Neither side believes a success that was not earned: the server's user has answered the server's challenge, and the
//! client's server has proved that it knows the password before EAP-Success counts.

mod client;
mod packet;
mod server;

pub(crate) use client::Client;
pub(crate) use server::Server;

use crate::event::Why;
use ipsec_core::Secret;
use ipsec_core::mschap::PasswordHash;

/// Packets of one conversation: an honest one has at most six.
const MAX_ROUNDS: u8 = 16;
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

/// What an EAP packet comes to.
#[derive(Debug)]
pub(crate) enum Step {
    /// A packet to send; the conversation goes on.
    Send(Vec<u8>),
    /// It has succeeded: a last packet to send, if this side is to, whose password it was, and the MSK.
    Success(Option<Vec<u8>>, String, Secret),
    /// It has failed: a last packet to send, if this side is to, and why.
    Failure(Option<Vec<u8>>, Why),
}
