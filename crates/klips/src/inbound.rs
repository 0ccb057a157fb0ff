//! The inbound path: wire → SA → replay check → open → replay advance → policy → device (RFC 4301 §5.2).

use crate::discard::Counters;
use crate::packet::Vnet;
use crate::plane::Plane;
use core::net::IpAddr;
use core::ops::Range;
use ipsec_core::Time;
use std::sync::Arc;

/// How octets reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// In IP protocol 50.
    Esp,
    /// In UDP, with these ports (host order); the local one is ours.
    Udp {
        /// Our port.
        local: u16,
        /// The peer's port.
        remote: u16,
    },
}

/// The outer header of received datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// Raw or in UDP.
    pub carrier: Carrier,
    /// TOS or traffic class, for ECN (RFC 6040 §4.2).
    pub tos: u8,
}

/// One write to the device: a virtio-net header and the pieces of one packet or merged superpacket.
#[derive(Clone, Copy, Debug)]
pub struct Write<'o> {
    /// The header, all zero for a packet that was not merged.
    pub vnet: Vnet,
    /// Where the pieces lie in the receive buffer, in order.
    pub pieces: &'o [Piece],
}

/// A range of the receive buffer.
pub type Piece = (u32, u32);

/// What a batch of received datagrams became; filled by [`Inbound::datagrams`], finished by [`Opened::merge`].
#[derive(Debug, Default)]
pub struct Opened {}

impl Opened {
    /// Room for a batch of `packets`.
    pub fn new(_packets: usize) -> Self {
        Self {}
    }

    /// Merges segments of one flow into superpackets where that changes nothing for the receiver (`gro`); with
    /// `merge` off every packet is its own write. Edits headers in `rx`.
    pub fn merge(&mut self, _rx: &mut [u8], _tcp: bool, _udp: bool) {}

    /// The writes, in the order they must happen.
    pub fn writes(&self) -> impl Iterator<Item = Write<'_>> {
        core::iter::empty()
    }

    /// IKE messages found on port 4500, without their non-ESP marker (RFC 3948 §2.2).
    pub fn ike(&self) -> impl Iterator<Item = (Arrival, Range<usize>)> {
        core::iter::empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {}
}

/// One worker's inbound engine.
pub struct Inbound {
    plane: Arc<Plane>,
    counters: Arc<Counters>,
}

impl Inbound {
    /// An engine on `plane`.
    pub fn new(plane: Arc<Plane>, counters: Arc<Counters>) -> Self {
        Self { plane, counters }
    }

    /// Takes datagrams of one arrival, `stride` octets apart in `rx[range]` (the last may be shorter), as `UDP_GRO`
    /// delivers them. ESP is opened where it stands.
    pub fn datagrams(
        &mut self,
        arrival: &Arrival,
        rx: &mut [u8],
        range: Range<usize>,
        stride: usize,
        now: Time,
        out: &mut Opened,
    ) {
        let _ = (arrival, rx, range, stride, now, out, &self.plane, &self.counters);
    }
}
