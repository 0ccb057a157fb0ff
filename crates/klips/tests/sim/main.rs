//! Two hosts in one process, on a fake wire and clock.
//!
//! [`host::Host`] is a plane with an outbound and an inbound engine and a model of a TUN device above them. [`net::Net`]
//! loses, doubles, delays and damages what they send; the [`net::Eavesdropper`] sees all of it and asserts that there is
//! nothing to see. Every scenario says which counters moved, and that no other did.

mod attacker;
mod device;
mod flow;
mod gateway;
mod host;
mod hostile;
mod ip;
mod keyed;
mod net;
mod pair;
mod path_mtu;
mod policy;
mod router;
mod stream;
mod tfc;
mod trace;

use klips::{Gso, Vnet};
