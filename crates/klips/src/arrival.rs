//! How octets reached us.

use core::net::IpAddr;
use ipsec_core::Protocol;

/// What octets came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// In IP protocol 50.
    Esp,
    /// In IP protocol 51.
    Ah,
    /// In UDP, with these ports (host order); the local one is ours.
    Udp {
        /// Our port.
        local: u16,
        /// The peer's port.
        remote: u16,
    },
}

impl Carrier {
    /// The protocol of the SAs that packets of it name first.
    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Esp | Self::Udp { .. } => Protocol::Esp,
            Self::Ah => Protocol::Ah,
        }
    }
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
    /// Octets of the IP header itself, right before the datagram in the receive buffer; 0 where the kernel kept it. What AH
    /// authenticates and what transport mode delivers is that header; without it, it is written again from the fields above.
    pub header: usize,
}
