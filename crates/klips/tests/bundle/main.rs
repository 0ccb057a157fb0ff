//! Bundles of SAs, transport mode, AH and IPComp: two hosts, the octets between them, and what reaches whom.

#[path = "../sim/device.rs"]
mod device;
mod forged;
mod group;
mod host;
#[path = "../sim/ip.rs"]
mod ip;
#[path = "../linux_world/mod.rs"]
mod linux_world;
mod path;
#[path = "../pfkey_support/mod.rs"]
mod pfkey_support;
mod policy;
#[path = "../sim/router.rs"]
mod router;
mod tfc;
mod wire;

pub(crate) use klips::{Gso, Vnet};
