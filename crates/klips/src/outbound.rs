//! The outbound path: device → eroute → SA → sealed run (RFC 4301 §5.1).

use crate::discard::{Counters, Discard};
use crate::packet::Vnet;
use crate::plane::Plane;
use crate::sa::Encapsulation;
use core::net::IpAddr;
use ipsec_core::Time;
use std::sync::Arc;

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
    /// Whether the outer packet may be fragmented on its way.
    pub dont_fragment: bool,
}

/// Where a run of packets goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Sealed: ESP packets, to the wire.
    Esp(Path),
    /// `%pass`: whole IP packets, to the wire as they are.
    Clear(IpAddr),
    /// Answers (ICMP): whole IP packets, back to the device.
    Back,
}

/// Packets of one route, `stride` octets apart; only the last may be shorter. One `UDP_SEGMENT` send.
#[derive(Clone, Copy, Debug)]
pub struct Run<'b> {
    /// Where they go.
    pub route: Route,
    /// The packets, back to back.
    pub octets: &'b [u8],
    /// Length of each but the last.
    pub stride: usize,
}

/// What a batch of outbound packets became: runs, ready to send, in one buffer that is allocated once.
#[derive(Debug)]
pub struct Sealed {
    buffer: Box<[u8]>,
}

impl Sealed {
    /// Room a superpacket may need; [`Sealed::has_room`] says whether that much is left.
    pub const SUPERPACKET: usize = 96 * 1024;

    /// A buffer for at least one superpacket.
    pub fn new(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity.max(Self::SUPERPACKET)].into() }
    }

    /// Whether another packet may be handed to [`Outbound::packet`] before the runs are sent and cleared.
    pub fn has_room(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The runs in the order they must be sent.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        core::iter::empty()
    }

    /// Forgets all runs; keeps the buffer.
    pub fn clear(&mut self) {}
}

/// What became of one packet read from the device.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Sealed, or let through by `%pass`: it is in a run.
    Send,
    /// Refused and counted; the sender is told by an ICMP packet that is in a [`Route::Back`] run.
    Answer(Discard),
    /// Refused and counted.
    Discard(Discard),
}

/// One worker's outbound engine.
pub struct Outbound {
    plane: Arc<Plane>,
    counters: Arc<Counters>,
    link: Link,
}

/// What the outbound path must know of the link below and the device above.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// MTU of the physical interface, outer IP header included.
    pub mtu: usize,
    /// Source of our ICMP answers, IPv4.
    pub icmp_source4: Option<core::net::Ipv4Addr>,
    /// Source of our ICMP answers, IPv6.
    pub icmp_source6: Option<core::net::Ipv6Addr>,
    /// `hidetos=yes`: the outer DSCP is 0 rather than a copy of the inner.
    pub hide_tos: bool,
    /// `fragicmp=yes`: tell the sender when a packet is too big.
    pub frag_icmp: bool,
}

impl Outbound {
    /// An engine on `plane`.
    pub fn new(plane: Arc<Plane>, counters: Arc<Counters>, link: Link) -> Self {
        Self { plane, counters, link }
    }

    /// The link changed (MTU, addresses).
    pub fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Takes one packet or superpacket read from the device through policy and protection.
    ///
    /// `packet` is scratch afterwards. `out` must have room ([`Sealed::has_room`]).
    pub fn packet(&mut self, vnet: &Vnet, packet: &mut [u8], now: Time, out: &mut Sealed) -> Verdict {
        let _ = (vnet, packet, now, out, &self.plane, &self.counters);
        Verdict::Discard(Discard::NoEroute)
    }
}
