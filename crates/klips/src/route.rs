//! Where packets go when the engine is done with them.

use crate::sa::Encapsulation;
use core::net::IpAddr;

/// The outer header that the host's kernel writes for us, chosen by RFC 4301 §5.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// UDP ports when ESP travels in UDP; raw ESP otherwise.
    pub encapsulation: Option<Encapsulation>,
    /// TOS or traffic class, ECN included (RFC 6040 §4.1).
    pub tos: u8,
    /// Whether the outer packet must not be fragmented on its way.
    pub dont_fragment: bool,
}

/// Where a run of packets goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Sealed: ESP packets, to the wire.
    Esp(Path),
    /// Protected: whole IP packets with an outer header of ours, to the wire as they are. AH covers its outer header, and
    /// transport mode keeps the one that is there.
    Whole(IpAddr),
    /// `%pass`: whole IP packets, to the wire as they are.
    Clear(IpAddr),
    /// Answers (ICMP): whole IP packets, back to the device.
    Back,
}
