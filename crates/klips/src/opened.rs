//! What a batch of received datagrams became: packets for the device, IKE messages for pluto.

use crate::admit::Admitted;
use crate::arrival::Arrival;
use crate::gro::{self, Merged, Piece};
use crate::packet::Vnet;
use core::ops::Range;

/// One write to the device: a virtio-net header and the pieces of one packet or merged superpacket.
#[derive(Clone, Copy, Debug)]
pub struct Write<'o> {
    /// The header, all zero for a packet that was not merged.
    pub vnet: Vnet,
    pieces: &'o [Piece],
    /// Where the pieces lie, if not in the receive buffer.
    arena: Option<&'o [u8]>,
}

impl<'o> Write<'o> {
    /// The pieces, in order. `rx` is the buffer all the datagrams came from.
    pub fn octets<'a>(&'a self, rx: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let buffer = self.arena.unwrap_or(rx);
        self.pieces.iter().map(move |(at, len)| {
            buffer.get(*at as usize..).and_then(|rest| rest.get(..*len as usize)).unwrap_or_default()
        })
    }

    /// How many pieces there are.
    pub const fn pieces(&self) -> usize {
        self.pieces.len()
    }
}

/// What a batch of received datagrams became; filled by [`crate::Inbound::datagrams`], finished by [`Opened::merge`].
///
/// What was opened in place points into the receive buffer, so one batch is one buffer. What came the general way lies in an
/// arena here. Nothing is allocated once the batches have reached their usual size.
#[derive(Debug, Default)]
pub struct Opened {
    /// In order of arrival.
    pub(crate) packets: Vec<Admitted>,
    pub(crate) ike: Vec<(Arrival, Range<usize>)>,
    merged: Merged,
    /// Packets that came the general way, and what was decompressed and put together on it.
    pub(crate) arena: Vec<u8>,
    /// Those of them that were let in, in order of arrival.
    pub(crate) unwrapped: Vec<Admitted>,
    merged_unwrapped: Merged,
}

impl Opened {
    /// Room for a batch of `packets`.
    pub fn new(packets: usize) -> Self {
        Self {
            packets: Vec::with_capacity(packets),
            ike: Vec::with_capacity(packets.min(16)),
            merged: Merged::new(packets),
            ..Self::default()
        }
    }

    /// Merges segments of one flow into superpackets where that changes nothing for the receiver, if `tcp` and `udp` allow
    /// it; with both off every packet is its own write. Edits headers in `rx`, the buffer all the datagrams came from.
    pub fn merge(&mut self, rx: &mut [u8], tcp: bool, udp: bool) {
        gro::merge(&self.packets, rx, (tcp, udp), &mut self.merged);
        // A flow comes one of the two ways: its SA is in a bundle or it is not.
        if !self.unwrapped.is_empty() {
            gro::merge(&self.unwrapped, &mut self.arena, (tcp, udp), &mut self.merged_unwrapped);
        }
    }

    /// The writes, in the order they must happen.
    pub fn writes(&self) -> impl Iterator<Item = Write<'_>> {
        let from = |arena| move |(vnet, pieces)| Write { vnet, pieces, arena };
        self.merged
            .writes()
            .map(from(None))
            .chain(self.merged_unwrapped.writes().map(from(Some(self.arena.as_slice()))))
    }

    /// IKE messages found on port 4500, without their non-ESP marker (RFC 3948 §2.2).
    pub fn ike(&self) -> impl Iterator<Item = (Arrival, Range<usize>)> {
        self.ike.iter().cloned()
    }

    /// How many packets were let in since [`Opened::clear`].
    pub const fn packets(&self) -> usize {
        self.packets.len().saturating_add(self.unwrapped.len())
    }

    /// Forgets everything; keeps the room.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.ike.clear();
        self.merged.clear();
        self.arena.clear();
        self.unwrapped.clear();
        self.merged_unwrapped.clear();
    }
}
