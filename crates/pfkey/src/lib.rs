//! PF_KEY v2 on the wire: the messages of RFC 2367 as pf_key(7P) has them, with the later illumos extensions and our
//! native policy messages (from number 128 up).
//!
//! * [`Message::parse`] turns one record into a typed view. It checks in the documented order, so that of several
//!   faults the first one's errno and [`Diagnostic`] come back; it copies nothing and never panics.
//! * [`Writer`] builds a record. A message that was never finished claims a length it does not have and is refused.
//! * [`client`] tells the answer to a request from everything else a PF_KEY socket hears.
//! * [`rules`] says for each message what it needs, what its reply keeps and who hears it.
//!
//! # Messages
//!
//! A record is one message: a base header ([`Base`]: type, SA type, sequence number, process), then extensions. The answer
//! is the same header with what has become of the request; `sadb_msg_errno` and a [`Diagnostic`] say why it failed.
//!
//! | message | asks for | the answer goes to |
//! |---|---|---|
//! | [`GetSpi`](MessageType::GetSpi) | an SPI of a range: a *larval* SA of that name | all |
//! | [`Update`](MessageType::Update) | a larval SA becomes *mature*, with keys; or other lifetimes for a mature one | all |
//! | [`Add`](MessageType::Add) | a mature SA at once | all |
//! | [`Delete`](MessageType::Delete), [`DelPair`](MessageType::DelPair) | an SA, or an SA and its pair, goes | all |
//! | [`Get`](MessageType::Get), [`Dump`](MessageType::Dump) | one SA, or all, with keys | the sender |
//! | [`UpdatePair`](MessageType::UpdatePair) | other lifetimes for an SA and its pair | all |
//! | [`Register`](MessageType::Register) | to be sent ACQUIREs; says what algorithms there are | the sender |
//! | [`Acquire`](MessageType::Acquire) | an SA is needed: the service to key managers; from one, that there will be none | the registered |
//! | [`InverseAcquire`](MessageType::InverseAcquire) | which SA would be needed for such a packet | the sender |
//! | [`Expire`](MessageType::Expire) | nothing: the service says that a lifetime has ended | all |
//! | [`Flush`](MessageType::Flush) | all SAs go | all |
//! | [`Promisc`](MessageType::Promisc) | to hear everything, as it is said | the sender |
//! | native: [`AddFlow`](MessageType::AddFlow) … [`DumpFlows`](MessageType::DumpFlows), [`GetFlow`](MessageType::GetFlow) | eroutes: added, replaced, deleted, flushed, listed | all, or the sender |
//! | native: [`MoveSa`](MessageType::MoveSa) | an SA and its pair go on between other addresses or ports | all |
//! | native: [`NewMapping`](MessageType::NewMapping) | nothing: a peer sends from another address or port now | the registered |
//! | native: [`Socket`](MessageType::Socket) | socket options (`SO_USELOOPBACK`) | the sender |
//!
//! A refusal is the base header alone, and goes to whom the answer would have gone to. Keys leave in GET and DUMP and
//! nowhere else.
//!
//! # Moving an SA
//!
//! MOVESA names an SA by `Sa`, `AddressSrc` and `AddressDst` as they are, and says in `NewSrc` and `NewDst`, at least one of
//! them, where it goes on (MOBIKE, RFC 4555; a NAT that chose another port). The flags NATT_LOC or NATT_REM in `Sa` mean
//! ESP in UDP from then on, between the ports of `NewSrc` and `NewDst` (0 is 4500); without them it is plain ESP. The partner
//! of a paired SA moves with it. Keys, sequence numbers, replay window, limits and counters stay, and eroutes that name the SA
//! follow. Refused, nothing has changed: EEXIST where there is an SA of the new name, ESRCH for one that is not there or
//! dead, EINVAL for a larval one, for other families and for addresses that cannot be.
//!
//! NEWMAPPING is told to those registered for ESP: `Sa`, `AddressSrc` and `AddressDst` as they are, in `NewSrc` where the
//! newest packet came from, `KmCookie` if there is one. An SA in UDP follows the port by itself; to another
//! address it goes only when its key manager moves it.
//!
//! # Changing SAs under traffic
//!
//! Each message is one change, and no packet sees half of it. Several make one change in this order: UPDATE the inbound SA,
//! so that what the peer sends is understood; ADD the outbound one; REPLACEFLOW, which takes effect for a packet whole or not at all;
//! only then DELETE the old ones. In the other order, packets meet an eroute whose SA is not there, and are dropped.
//!
//! # The life of an SA
//!
//! *larval* (a name without keys) → *mature* → *dying* (a soft limit was reached, EXPIRE said so) → *dead* (a hard limit;
//! EXPIRE again; it carries nothing any more and is soon gone). There is no way back. Limits count bytes, seconds since it was
//! added, seconds since its first use; an idle limit counts seconds since its last.
//!
//! # Who may use it
//!
//! No I/O and no dependencies: whoever has a PF_KEY socket, or our `pf_key.sock`, can use it from both ends.
//!
//! # Byte order
//!
//! Everything is in host order except SPIs, ports and addresses, which the wire carries in network order.
//! The types here hold host order throughout; nobody above this crate swaps anything.
//!
//! # Example
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

pub mod client;
mod diagnostic;
pub mod dialect;
mod ext;
mod message;
mod number;
mod proposal;
pub mod rules;
mod write;

pub use diagnostic::Diagnostic;
pub use ext::{
    Address, Counters, Flow, FlowAction, FlowDirection, FlowPolicy, Further, Group, Identity, InnerPair, Key,
    KmCookie, Level, Lifetime, Member, PacketLimits, Pair, ReplayValue, Sa, SaParams, SaPolicy, Selectors,
    Sensitivity, SocketOptions, SpiRange, Tfc, Wanted,
};
pub use message::{Base, Extension, Extensions, Fault, Message};
pub use number::{Errno, ExtType, MessageType, SaType, flags, identity, km, state};
pub use proposal::{Algorithm, AlgorithmKind, Comb, Descriptor, Ecomb, Limits};
pub use write::{TooLong, Writer};
