//! Where something comes from, as far as that says who is to blame.

use core::net::{IpAddr, Ipv6Addr};

/// What one sender can be expected to have all of: an IPv4 address, or an IPv6 network of 64 bits. Whoever has such a
/// network has 2^64 addresses, and can answer from each.
pub fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}
