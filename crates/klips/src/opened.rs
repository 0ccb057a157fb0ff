//! What a batch of received datagrams became: packets for the device, IKE messages for pluto.

use crate::inbound::{Admitted, Arrival};
use crate::packet::Vnet;
use core::ops::Range;

/// One write to the device: a virtio-net header and the pieces of one packet or merged superpacket.
#[derive(Clone, Copy, Debug)]
pub struct Write<'o> {
    /// The header, all zero for a packet that was not merged.
    pub vnet: Vnet,
    /// Where the pieces lie in the receive buffer, in order.
    pub pieces: &'o [Piece],
}

/// A range of the receive buffer: offset and length.
pub type Piece = (u32, u32);

/// What a batch of received datagrams became; filled by [`crate::Inbound::datagrams`], finished by [`Opened::merge`].
///
/// Everything here points into the receive buffer, so one batch is one buffer. Nothing is allocated once the batches have
/// reached their usual size.
#[derive(Debug, Default)]
pub struct Opened {
    /// In order of arrival.
    pub(crate) packets: Vec<Admitted>,
    pub(crate) ike: Vec<(Arrival, Range<usize>)>,
    pub(crate) chains: Vec<crate::gro::Chain>,
    /// For each packet, the one that follows it in its superpacket.
    pub(crate) next: Vec<u32>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) writes: Vec<(Vnet, Range<u32>)>,
}

impl Opened {
    /// Room for a batch of `packets`.
    pub fn new(packets: usize) -> Self {
        Self {
            packets: Vec::with_capacity(packets),
            ike: Vec::with_capacity(packets.min(16)),
            chains: Vec::with_capacity(packets),
            next: Vec::with_capacity(packets),
            pieces: Vec::with_capacity(packets),
            writes: Vec::with_capacity(packets),
        }
    }

    /// Merges segments of one flow into superpackets where that changes nothing for the receiver, if `tcp` and `udp` allow
    /// it; with both off every packet is its own write. Edits headers in `rx`, the buffer all the datagrams came from.
    pub fn merge(&mut self, rx: &mut [u8], tcp: bool, udp: bool) {
        crate::gro::merge(self, rx, tcp, udp);
    }

    /// The writes, in the order they must happen.
    pub fn writes(&self) -> impl Iterator<Item = Write<'_>> {
        self.writes.iter().map(|(vnet, pieces)| Write {
            vnet: *vnet,
            pieces: self.pieces.get(pieces.start as usize..pieces.end as usize).unwrap_or_default(),
        })
    }

    /// IKE messages found on port 4500, without their non-ESP marker (RFC 3948 §2.2).
    pub fn ike(&self) -> impl Iterator<Item = (Arrival, Range<usize>)> {
        self.ike.iter().cloned()
    }

    /// How many packets were let in since [`Opened::clear`].
    pub const fn packets(&self) -> usize {
        self.packets.len()
    }

    /// Forgets everything; keeps the room.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.ike.clear();
        self.chains.clear();
        self.next.clear();
        self.pieces.clear();
        self.writes.clear();
    }
}
