//! Everything that touches the outside world: devices, sockets, namespaces, the clock, threads.
//!
//! The engines (`klips`) decide; what is here only moves octets and asks the kernel for things.

pub mod clock;
pub mod guard;
pub mod interfaces;
pub mod mmsg;
pub mod netlink;
pub mod netns;
pub mod tun;
pub mod wire;
pub mod worker;
