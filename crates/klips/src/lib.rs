//! The KLIPS half of tulips: SA database, eroutes, PF_KEY service and the packet path, as a pure engine.
//!
//! No I/O, no clock, no threads of its own: the host hands in octets, [`ipsec_core::Time`] and randomness, and gets
//! verdicts, sealed runs and notices back.
//!
//! Three kinds of state, three owners (ARCHITECTURE.md):
//!
//! * [`Control`] owns the SA database and the PF_KEY sockets: one thread, `&mut self`.
//! * [`Eroutes`] is the policy: changed by control, read by workers on a flow-cache miss.
//! * [`Sa`] is one SA in use, shared by all workers; synchronised once per batch, never per packet.
//!
//! [`Plane`] is what they meet in. A worker owns one [`Outbound`] and one [`Inbound`].
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

mod admission;
mod admit;
mod ah;
mod arrival;
mod bundle;
mod checksum;
mod comp;
mod control;
mod discard;
mod early;
mod ecn;
mod eroute;
mod extension;
mod flow_cache;
mod fragment;
mod gradual;
mod gro;
mod gso;
mod hold;
mod icmp;
mod inbound;
mod ip;
mod keysock;
mod open;
mod opened;
mod outbound;
mod packet;
mod path_mtu;
mod plane;
mod route;
mod sa;
mod sadb;
mod sealed;
mod tfc;
mod trace;
mod window;

pub use arrival::{Arrival, Carrier};
pub use bundle::BundleError;
pub use control::{
    Config, Control, Direction, FlowChange, Lifetime, Random, SaRow, SocketId, SocketRow, SpiPolicy,
    Supported, supported,
};
pub use discard::{Counters, Discard};
pub use eroute::{Action, Eroute, ErouteError, Eroutes};
#[doc(hidden)] // To be measured.
pub use flow_cache::FlowCache;
pub use inbound::Inbound;
pub use opened::{Opened, Write};
pub use outbound::{Link, Outbound, Verdict};
pub use packet::{Gso, Vnet};
pub use plane::{Event, Plane};
pub use route::{Path, Route};
pub use sa::{Blueprint, Encapsulation, Keys, Limits, Mode, Sa, SaState};
pub use sealed::{Run, Sealed};
pub use trace::{Fate, Sighting, Wanted, Way};
