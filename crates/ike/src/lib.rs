//! The IKEv2 engine of tulips (RFC 7296), pure: no I/O, no clock, no threads of its own.
//!
//! * [`message`]: messages and payloads on the wire, and the table of what each exchange may hold.
//! * [`proposal`]: algorithms as they are offered and chosen.
//! * [`keys`]: the key schedule.
//! * [`protect`]: the SK payload and its fragments.
#![forbid(unsafe_code)]
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
mod endpoint;
pub mod event;
mod exchange;
pub mod identity;
pub mod job;
pub mod keys;
pub mod message;
mod outbox;
pub mod proposal;
pub mod protect;
mod sa;
mod wire;

pub use endpoint::{ChildRow, Endpoint, IkeRow};
pub use outbox::{Counters, Random};
pub use wire::Malformed;
