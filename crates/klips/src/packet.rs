//! IP packets as the data plane sees them: parsed once, from hostile octets.

use crate::discard::Discard;
use ipsec_core::Flow;

/// What kind of superpacket a TUN read delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// One packet.
    #[default]
    None,
    /// TCP over IPv4, to be cut into segments (TSO4).
    Tcp4,
    /// TCP over IPv6 (TSO6).
    Tcp6,
    /// UDP, to be cut into datagrams (USO).
    Udp,
}

/// The `virtio_net_hdr` before every packet of a TUN device opened with `IFF_VNET_HDR` (virtio 1.2 §5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vnet {
    /// The transport checksum holds only the pseudo-header sum; it must be completed.
    pub needs_csum: bool,
    /// What to cut.
    pub gso: Gso,
    /// The TCP superpacket carries CWR on its first segment only.
    pub ecn: bool,
    /// Length of all headers as the kernel claims it; not to be trusted on input.
    pub hdr_len: u16,
    /// Payload octets per segment.
    pub gso_size: u16,
    /// Where the checksum begins, from the start of the packet.
    pub csum_start: u16,
    /// Where the checksum is stored, from `csum_start`.
    pub csum_offset: u16,
}

impl Vnet {
    /// Octets on the device.
    pub const LEN: usize = 10;

    /// Reads the header in host byte order.
    pub fn parse(_octets: &[u8; Self::LEN]) -> Result<Self, Discard> {
        Err(Discard::BadOffload)
    }

    /// Writes the header in host byte order.
    pub fn octets(&self) -> [u8; Self::LEN] {
        [0; Self::LEN]
    }
}

/// One IP packet, measured: what policy and tunnelling need to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// Its identity for policy.
    pub flow: Flow,
    /// Length of the IP header with its options or extension headers: where the transport header begins.
    pub transport: usize,
    /// Total length by the IP header; the octets may be longer.
    pub len: usize,
    /// TOS or traffic class.
    pub tos: u8,
    /// Must not be fragmented (IPv6, or IPv4 with DF).
    pub dont_fragment: bool,
    /// A fragment that is not the first: it has no ports.
    pub later_fragment: bool,
}
