//! What a policy matches, and what a packet is matched by.

use core::net::IpAddr;
use ipnet::IpNet;

/// A packet's identity for policy: addresses, protocol and ports (RFC 4301 §4.4.1.1).
///
/// Ports are 0 where the protocol has none or where they are not in this packet (later fragments, RFC 4301 §7).
/// ICMP and ICMPv6 have type and code in the place of both, `type << 8 | code`, as IKE has them (RFC 7296 §3.13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Transport protocol.
    pub proto: u8,
    /// Source port, host order.
    pub sport: u16,
    /// Destination port, host order.
    pub dport: u16,
}

/// The most selectors that one SA has (RFC 4301 §4.4.1.1: they are a list). Each is an eroute, and each packet that comes in is
/// compared with all of them until one matches.
pub const MAX_SELECTORS: usize = 64;

/// What a policy matches: two prefixes, a transport protocol and two ports; 0 means any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// Source prefix, host bits clear.
    pub src: IpNet,
    /// Destination prefix, of the same family, host bits clear.
    pub dst: IpNet,
    /// Transport protocol, 0 for any.
    pub proto: u8,
    /// Source port, host order, 0 for any.
    pub sport: u16,
    /// Destination port, host order, 0 for any.
    pub dport: u16,
}

impl Selector {
    /// A selector on addresses alone, host bits cleared.
    pub fn nets(src: IpNet, dst: IpNet) -> Self {
        Self { src: src.trunc(), dst: dst.trunc(), proto: 0, sport: 0, dport: 0 }
    }

    /// Says whether `flow` is within this selector.
    ///
    /// A selector with ports never matches a packet whose ports are unknown (RFC 4301 §7).
    pub fn matches(&self, flow: &Flow) -> bool {
        let ok = |want: u16, got: u16| want == 0 || want == got;
        self.src.contains(&flow.src)
            && self.dst.contains(&flow.dst)
            && (self.proto == 0 || self.proto == flow.proto)
            && ok(self.sport, flow.sport)
            && ok(self.dport, flow.dport)
    }

    /// The selector of the traffic in the other direction.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, proto: self.proto, sport: self.dport, dport: self.sport }
    }
}
