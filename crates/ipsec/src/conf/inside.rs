//! Addresses inside: what is asked of a peer, and what peers are given (RFC 7296 §2.19, RFC 8598).

use ike::connection::{Provision, Request};
use ipnet::IpNet;
use std::net::IpAddr;

/// What `leftsourceip=` asks for, if it asks: `%config` in the families of the peer's networks, or in the one named.
pub(super) fn request(value: &str, theirs: &[IpNet]) -> Option<Request> {
    let mut request = Request { ipv4: false, ipv6: false };
    for word in words(value) {
        match word.to_ascii_lowercase().as_str() {
            "%config" => {
                request.ipv6 |= theirs.iter().any(|net| net.addr().is_ipv6());
                request.ipv4 |= !request.ipv6 || theirs.iter().any(|net| net.addr().is_ipv4());
            }
            "%config4" => request.ipv4 = true,
            "%config6" => request.ipv6 = true,
            _ => return None,
        }
    }
    (request.ipv4 || request.ipv6).then_some(request)
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split([',', ' ', '\t']).filter(|word| !word.is_empty())
}

/// Ranges and prefixes. Of a prefix the addresses that no host has are left out.
pub(super) fn pools(value: &str) -> Result<Vec<(IpAddr, IpAddr)>, String> {
    let mut pools = Vec::new();
    for word in words(value) {
        let wrong =
            || format!("{word}: write FIRST-LAST or a network, such as 10.9.0.10-10.9.0.99 or 10.9.0.0/24");
        let pool = match word.split_once('-') {
            Some((first, last)) => (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?),
            None => prefix(word.parse().map_err(|_| wrong())?),
        };
        let (first, last): (IpAddr, IpAddr) = pool;
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return Err(wrong());
        }
        pools.push(pool);
    }
    if pools.is_empty() { Err("write FIRST-LAST or a network".to_owned()) } else { Ok(pools) }
}

fn prefix(net: IpNet) -> (IpAddr, IpAddr) {
    let (first, last) = (net.network(), net.broadcast());
    match (first, last) {
        // Neither the network itself nor its broadcast address.
        (IpAddr::V4(first), IpAddr::V4(last)) if net.prefix_len() < 31 => {
            (IpAddr::V4((first.to_bits() + 1).into()), IpAddr::V4((last.to_bits() - 1).into()))
        }
        // The first is the anycast address of all routers (RFC 4291 §2.6.1).
        (IpAddr::V6(first), _) if net.prefix_len() < 127 => (IpAddr::V6((first.to_bits() + 1).into()), last),
        whole => whole,
    }
}

/// Name servers.
pub(super) fn dns(value: &str, into: &mut Provision) -> Result<(), String> {
    for word in words(value) {
        into.dns.push(word.parse().map_err(|_| format!("{word} is not an address"))?);
    }
    Ok(())
}

/// Domains that those servers are for.
pub(super) fn domains(value: &str, into: &mut Provision) -> Result<(), String> {
    for word in words(value) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if word.len() > 253 || !word.chars().all(plain) || word.split('.').any(str::is_empty) {
            return Err(format!("{word} is not the name of a domain, such as corp.example.org"));
        }
        into.domains.push(word.to_ascii_lowercase());
    }
    Ok(())
}
