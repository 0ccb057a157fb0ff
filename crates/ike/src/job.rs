//! What takes time or comes from outside: the engine asks, its host answers, and one that is slow delays nobody else.

pub use crate::auth::{Verification, Verified};
pub use crate::eap::{Said, Turn};
use crate::event::Why;
use ipsec_core::Secret;
use ipsec_core::kex::{Group, KexError, Offer};
use ipsec_core::sign::{PrivateKey, Scheme, SignError};
use std::sync::Arc;

/// The name of a job, until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Something to do beside the engine.
#[derive(Debug)]
pub enum Job {
    /// The initiator's first step of a key exchange.
    Offer(Group),
    /// The responder's step of a key exchange, with what the initiator sent.
    Accept(Group, Vec<u8>),
    /// The initiator's last step, with what the responder sent.
    Finish(Arc<Offer>, Vec<u8>),
    /// An SPI for an inbound Child SA from `peer` to `local`, from the data plane (GETSPI).
    Spi {
        /// Our address.
        local: core::net::IpAddr,
        /// The peer's address.
        peer: core::net::IpAddr,
    },
    /// Our signature over the octets.
    Sign(Arc<PrivateKey>, Scheme, Vec<u8>),
    /// The peer's signature and certificates.
    Verify(Box<Verification>),
    /// A turn of TLS in EAP.
    Tls(Turn),
}

/// What came of a job.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Of [`Job::Offer`]: what is kept and what is sent.
    Offered(Result<(Arc<Offer>, Vec<u8>), KexError>),
    /// Of [`Job::Accept`]: what is sent and the shared secret.
    Accepted(Result<(Vec<u8>, Secret), KexError>),
    /// Of [`Job::Finish`]: the shared secret.
    Finished(Result<Secret, KexError>),
    /// Of [`Job::Spi`]: the SPI, or `None` where the data plane gave none.
    Spi(Option<u32>),
    /// Of [`Job::Sign`]: the signature.
    Signed(Result<Vec<u8>, SignError>),
    /// Of [`Job::Verify`]: whose it is, or what does not hold.
    Verified(Box<Result<Verified, Why>>),
    /// Of [`Job::Tls`]: what is said to the peer, and how it stands.
    Tls(Box<Said>),
}

impl Job {
    /// Does it, where that needs nothing but time; gives it back where only the host can answer.
    ///
    /// # Errors
    /// The job itself.
    pub fn run(self) -> Result<Answer, Self> {
        Ok(match self {
            Self::Offer(group) => Answer::Offered(group.offer().map(|(offer, sent)| (Arc::new(offer), sent))),
            Self::Accept(group, theirs) => Answer::Accepted(group.accept(&theirs)),
            Self::Finish(offer, theirs) => Answer::Finished(offer.finish(&theirs)),
            Self::Sign(key, scheme, octets) => Answer::Signed(key.sign(scheme, &octets)),
            Self::Verify(verification) => Answer::Verified(Box::new(verification.run())),
            Self::Tls(turn) => Answer::Tls(Box::new(turn.run())),
            host @ Self::Spi { .. } => return Err(host),
        })
    }
}
