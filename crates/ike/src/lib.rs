//! The IKEv2 engine of tulips (RFC 7296), pure: no I/O, no clock, no threads of its own.
//!
//! * [`Endpoint`]: all IKE SAs of one host. Datagrams, acquires, commands, answers and time go in; datagrams, jobs, events
//!   and a deadline come out.
//! * [`connection`], [`credential`], [`identity`], [`dn`]: what is configured.
//! * [`x509`]: certificates, their names, and the way from one to an authority that is trusted.
//! * [`ppk`]: preshared keys against those who will break key exchanges one day.
//! * [`event`], [`job`]: what the host is told, and what it is asked to do.
//! * [`message`]: messages and payloads on the wire, and the table of what each exchange may hold.
//! * [`proposal`]: algorithms as they are offered and chosen.
//! * [`keys`]: the key schedule.
//! * [`tape`]: a record of all that goes in and out, and how it is replayed.
//! * [`protect`]: the SK payload and its fragments.
//! * [`source`]: what counts as one sender.
#![forbid(unsafe_code)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a peer may send is an open set: payloads and notifications that a handler does not know are passed over (RFC 7296 §2.5)"
)]
#![expect(
    clippy::result_large_err,
    reason = "an error here is the end of a negotiation: rare, and on no packet's way"
)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod auth;
pub mod connection;
pub mod credential;
pub mod dn;
pub mod eap;
mod endpoint;
pub mod event;
mod exchange;
pub mod identity;
pub mod job;
pub mod keys;
mod lease;
mod loaded;
pub mod message;
mod outbox;
pub mod ppk;
pub mod proposal;
pub mod protect;
mod sa;
pub mod source;
mod table;
pub mod tape;
mod wire;
mod work;
pub mod x509;

pub use endpoint::{ChildRow, Endpoint, IkeRow};
pub use outbox::{Counters, Random};
pub use wire::Malformed;
