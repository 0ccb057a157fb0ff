//! PF_KEY v2 on the wire: the messages of RFC 2367 as pf_key(7P) has them, with the later illumos extensions and our
//! native policy messages (from number 128 up).
//!
//! * [`Message::parse`] turns one record into a typed view. It checks in the documented order, so that of several
//!   faults the first one's errno and [`Diagnostic`] come back; it copies nothing and never panics.
//! * [`Writer`] builds a record. A message that was never finished claims a length it does not have and is refused.
//! * [`rules`] says for each message what it needs, what its reply keeps and who hears it.
//!
//! No I/O and no dependencies: whoever has a PF_KEY socket, or our `pf_key.sock`, can use it from both ends.
//!
//! Byte order: everything is in host order except SPIs, ports and addresses, which the wire carries in network order.
//! The types here hold host order throughout; nobody above this crate swaps anything.
//!
//! ```
//! use pfkey::{Base, ExtType, Address, Message, MessageType, Sa, SaType, Writer};
//!
//! // GET the SA esp0x1001@192.0.2.1.
//! let mut get = Writer::new(&Base::request(MessageType::Get, SaType::Esp, 1, 4242));
//! get.sa(&Sa { spi: 0x1001, ..Sa::default() });
//! get.address(ExtType::AddressDst, &Address::host("192.0.2.1".parse().unwrap()));
//! let record = get.finish().unwrap();
//!
//! let message = Message::parse(&record).unwrap();
//! assert_eq!(message.base.kind(), Some(MessageType::Get));
//! assert_eq!(message.sa.unwrap().spi, 0x1001);
//! ```
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

mod diagnostic;
mod ext;
mod message;
mod number;
mod proposal;
pub mod rules;
mod write;

pub use diagnostic::Diagnostic;
pub use ext::{
    Address, Counters, Flow, FlowAction, Group, Identity, Key, KmCookie, Lifetime, Member, Pair, ReplayValue,
    Sa, SaParams, Sensitivity, SocketOptions, SpiRange,
};
pub use message::{Base, Extension, Extensions, Fault, Message};
pub use number::{Errno, ExtType, MessageType, SaType, flags, identity, km, state};
pub use proposal::{Algorithm, AlgorithmKind, Comb, Descriptor, Ecomb, Limits};
pub use write::{TooLong, Writer};
