//! Traffic selectors (RFC 7296 §3.13.1, §2.9) and narrowing.

use crate::wire::{Malformed, Reader, Writer};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use ipnet::IpNet;

/// The most selectors in one payload; the count is one octet, and each costs an eroute.
const MAX_SELECTORS: usize = 64;

/// One traffic selector: a range of addresses, a protocol, a range of ports.
///
/// For ICMP the ports are type and code (`type << 8 | code`). Ports 65535 to 0 mean OPAQUE: only packets that show
/// none (RFC 7296 §3.13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrafficSelector {
    /// The transport protocol, 0 for any.
    pub protocol: u8,
    /// The first and the last port, host order.
    pub ports: (u16, u16),
    /// The first and the last address, of one family.
    pub addresses: (IpAddr, IpAddr),
}

impl TrafficSelector {
    /// What stands for any port.
    pub const ALL_PORTS: (u16, u16) = (0, u16::MAX);

    /// A prefix with a protocol and a port; 0 is any.
    pub fn of(net: IpNet, protocol: u8, port: u16) -> Self {
        let ports = if port == 0 { Self::ALL_PORTS } else { (port, port) };
        Self::of_range(net, protocol, ports)
    }

    /// A prefix with a protocol, 0 for any, and a range of ports.
    pub fn of_range(net: IpNet, protocol: u8, ports: (u16, u16)) -> Self {
        Self { protocol, ports, addresses: (net.network(), net.broadcast()) }
    }

    /// Everything of one family.
    pub const fn everything(ipv6: bool) -> Self {
        let addresses = if ipv6 {
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)))
        } else {
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST))
        };
        Self { protocol: 0, ports: (0, u16::MAX), addresses }
    }

    /// The family of its addresses.
    pub const fn is_ipv4(&self) -> bool {
        self.addresses.0.is_ipv4()
    }

    /// Says whether the address is in its range.
    pub fn holds(&self, address: IpAddr) -> bool {
        let (first, last) = self.addresses;
        address.is_ipv4() == first.is_ipv4() && first <= address && address <= last
    }

    /// What both selectors hold; `None` if that is nothing.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (one, two) if one == two => one,
            _ => return None,
        };
        let opaque = (u16::MAX, 0);
        let ports = match (self.ports, other.ports) {
            (ports, (0, u16::MAX)) | ((0, u16::MAX), ports) => ports,
            (one, two) if one == opaque || two == opaque => (one == two).then_some(opaque)?,
            ((a, b), (c, d)) if a.max(c) <= b.min(d) => (a.max(c), b.min(d)),
            _ => return None,
        };
        let (((a, b), (c, d)), same) =
            ((self.addresses, other.addresses), self.addresses.0.is_ipv4() == other.addresses.0.is_ipv4());
        let addresses = (a.max(c), b.min(d));
        (same && addresses.0 <= addresses.1).then_some(Self { protocol, ports, addresses })
    }

    /// Says whether everything `other` holds is held by this.
    pub fn covers(&self, other: &Self) -> bool {
        self.intersection(other) == Some(*other)
    }

    /// The prefixes that together are the range of addresses, fewest first.
    pub fn prefixes(&self) -> Vec<IpNet> {
        match self.addresses {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Narrows what a peer asks for to what policy allows (RFC 7296 §2.9): every intersection, in the order asked,
    /// without those that others among them cover.
    pub fn narrow(asked: &[Self], allowed: &[Self]) -> Vec<Self> {
        let mut narrowed: Vec<Self> = Vec::new();
        for ours in asked.iter().flat_map(|asked| allowed.iter().filter_map(|one| one.intersection(asked))) {
            if narrowed.len() < MAX_SELECTORS && !narrowed.iter().any(|kept| kept.covers(&ours)) {
                narrowed.retain(|kept| !ours.covers(kept));
                narrowed.push(ours);
            }
        }
        narrowed
    }

    pub(super) fn parse_list(r: &mut Reader<'_>) -> Result<Vec<Self>, Malformed> {
        let count = usize::from(r.u8("number of traffic selectors")?);
        r.array::<3>("number of traffic selectors")?;
        if count == 0 || count > MAX_SELECTORS {
            return Err(Malformed("number of traffic selectors"));
        }
        let mut selectors = Vec::new();
        for _ in 0..count {
            let kind = r.u8("traffic selector type")?;
            let protocol = r.u8("protocol of a traffic selector")?;
            let length = r.u16("length of a traffic selector")?;
            let octets =
                usize::from(length).checked_sub(4).ok_or(Malformed("length of a traffic selector"))?;
            let mut r = Reader::new(r.take(octets, "traffic selector")?);
            let ports = match kind {
                7 | 8 => (r.u16("first port")?, r.u16("last port")?),
                // A kind we do not know selects nothing we could protect (RFC 7296 §3.13.1).
                _ => continue,
            };
            let addresses = if kind == 7 {
                (
                    IpAddr::V4(r.array::<4>("first address")?.into()),
                    IpAddr::V4(r.array::<4>("last address")?.into()),
                )
            } else {
                (
                    IpAddr::V6(r.array::<16>("first address")?.into()),
                    IpAddr::V6(r.array::<16>("last address")?.into()),
                )
            };
            let ordered = addresses.0 <= addresses.1 && (ports.0 <= ports.1 || ports == (u16::MAX, 0));
            if !r.is_empty() || !ordered {
                return Err(Malformed("traffic selector"));
            }
            selectors.push(Self { protocol, ports, addresses });
        }
        if r.is_empty() { Ok(selectors) } else { Err(Malformed("number of traffic selectors")) }
    }

    pub(super) fn emit_list(selectors: &[Self], w: &mut Writer) {
        w.u8(u8::try_from(selectors.len()).unwrap_or(u8::MAX));
        w.put(&[0, 0, 0]);
        for selector in selectors {
            w.u8(if selector.addresses.0.is_ipv4() { 7 } else { 8 });
            w.u8(selector.protocol);
            w.counted(4, |w| {
                w.u16(selector.ports.0);
                w.u16(selector.ports.1);
                for address in [selector.addresses.0, selector.addresses.1] {
                    match address {
                        IpAddr::V4(address) => w.put(&address.octets()),
                        IpAddr::V6(address) => w.put(&address.octets()),
                    }
                }
            });
        }
    }
}

impl core::fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match (self.prefixes().as_slice(), self.addresses) {
            ([net], _) => write!(f, "{net}")?,
            (_, (first, last)) => write!(f, "{first}-{last}")?,
        }
        match (self.protocol, self.ports) {
            (0, (0, u16::MAX)) => Ok(()),
            (protocol, (0, u16::MAX)) => write!(f, "[{protocol}]"),
            (protocol, (first, last)) if first == last => write!(f, "[{protocol}/{first}]"),
            (protocol, (first, last)) => write!(f, "[{protocol}/{first}-{last}]"),
        }
    }
}
