//! What the data plane and IKE must agree on.
//!
//! * [`SaId`]: the name of a security association, `(destination, protocol, SPI)` (RFC 4301 §4.1).
//! * [`Selector`] and [`Flow`]: what a policy matches, and what a packet is matched by (RFC 4301 §4.4.1.1).
//! * [`algorithm`]: the one table of algorithms, with the numbers, key sizes and ICV lengths of each.
//! * [`transform`]: the one place where crypto libraries are called.
//! * [`prf`], [`kex`]: what IKE needs besides: key derivation and key exchange.
//! * [`sign`]: keys and signatures that say who somebody is.
//! * [`text`]: addresses, subnets, numbers, protocols and ports as people write them.
//! * [`Time`]: time as an argument; nothing here reads a clock.
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

pub mod algorithm;
pub mod digest;
pub mod kex;
pub mod mschap;
pub mod prf;
mod said;
mod secret;
mod selector;
pub mod sign;
pub mod text;
mod time;
pub mod transform;

pub use ipnet::IpNet;
pub use said::{Protocol, SaId, SaIdError, Said, Spi};
pub use secret::Secret;
pub use selector::{Flow, MAX_SELECTORS, Selector};
pub use time::Time;
