//! The second stage of checks, the same for every message about SAs: addresses put in order, then what can never be
//! part of such a message.
//!
//! The order of the checks is part of the interface: of several faults pf_key(7P) reports the first.

use super::class::{Class, Locals};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use pfkey::{Address, Diagnostic, Fault, Message};

/// An outer or NAT-T address: its family is known, and IPv4 in IPv6 clothes is IPv4.
fn unmap(address: &mut Address, unknown: Diagnostic) -> Result<SocketAddr, Fault> {
    let socket = address.socket.ok_or(Fault::invalid(unknown))?;
    let socket = SocketAddr::new(socket.ip().to_canonical(), socket.port());
    address.socket = Some(socket);
    Ok(socket)
}

/// Puts the addresses of a request in order, or says what is wrong with them.
pub(super) fn fix(ask: &mut Message<'_>, locals: &Locals) -> Result<(), Fault> {
    use Diagnostic as D;
    if let Some(src) = &mut ask.src {
        let src = unmap(src, D::BadSrcAf)?;
        if locals.class(src.ip()) == Class::Many {
            return Err(Fault::invalid(D::BadSrc));
        }
    }
    if let Some(dst) = &mut ask.dst {
        let dst = unmap(dst, D::BadDstAf)?;
        if locals.class(dst.ip()) == Class::Unspecified {
            return Err(Fault::invalid(D::BadDst));
        }
    }
    if let Some(loc) = &mut ask.natt_loc {
        let loc = unmap(loc, D::BadNattLocAf)?;
        if matches!(locals.class(loc.ip()), Class::Mine | Class::Many) {
            return Err(Fault::invalid(D::MalformedNattLoc));
        }
        if loc.is_ipv6() {
            return Err(Fault::invalid(D::BadNattLocAf));
        }
    }
    // A dialect that knows ports alone leaves the address open. So does a key manager of ours between hosts of IPv6, whose
    // addresses do not go in here.
    let by_policy = ask.sa_policy.is_some_and(|policy| policy.by_policy);
    let six = ask.sa_params.is_some() && ask.dst.is_some_and(|dst| dst.socket.is_some_and(|s| s.is_ipv6()));
    let open = ask.inner_src.is_some() || by_policy || six;
    if let Some(rem) = &mut ask.natt_rem {
        let rem = unmap(rem, D::BadNattRemAf)?;
        match locals.class(rem.ip()) {
            Class::Other => {}
            Class::Unspecified if open => {}
            Class::Mine | Class::Many | Class::Unspecified => {
                return Err(Fault::invalid(D::MalformedNattRem));
            }
        }
        if rem.is_ipv6() {
            return Err(Fault::invalid(D::BadNattRemAf));
        }
    }
    match (&mut ask.inner_src, &mut ask.inner_dst) {
        (Some(_), None) => return Err(Fault::invalid(D::MissingInnerDst)),
        (None, Some(_)) => return Err(Fault::invalid(D::MissingInnerSrc)),
        (None, None) => {}
        (Some(src), Some(dst)) => {
            let dst = fix_inner(dst, D::BadInnerDstAf, D::PrefixInnerDst)?;
            let src = fix_inner(src, D::BadInnerSrcAf, D::PrefixInnerSrc)?;
            if src.is_ipv4() != dst.is_ipv4() {
                return Err(Fault::invalid(D::InnerAfMismatch));
            }
        }
    }
    fix_outer_pair(ask)
}

/// An inner address is a prefix: it loses its host bits, and 96 bits of its length with its IPv6 clothes.
fn fix_inner(address: &mut Address, unknown: Diagnostic, too_long: Diagnostic) -> Result<SocketAddr, Fault> {
    let mapped = address.socket.is_some_and(|socket| socket.is_ipv6());
    let socket = unmap(address, unknown)?;
    if mapped && socket.is_ipv4() {
        address.prefix = address.prefix.wrapping_sub(96);
    }
    let net = ipnet::IpNet::new(socket.ip(), address.prefix).map_err(|_| Fault::invalid(too_long))?;
    address.socket = Some(SocketAddr::new(net.network(), socket.port()));
    Ok(socket)
}

/// What source and destination must have in common, once both are there.
fn fix_outer_pair(ask: &mut Message<'_>) -> Result<(), Fault> {
    use Diagnostic as D;
    let port = |address: &Option<Address>| address.as_ref().is_some_and(|a| a.port() != 0);
    let inner_ports = port(&ask.inner_src) || port(&ask.inner_dst);
    let (Some(src), Some(dst)) = (&mut ask.src, &mut ask.dst) else { return Ok(()) };
    if inner_ports && (src.port() != 0 || dst.port() != 0) {
        return Err(Fault::invalid(D::DualPortSets));
    }
    let (Some(from), Some(to)) = (src.socket, dst.socket) else { return Ok(()) };
    if from.is_ipv4() == to.is_ipv4() {
        return Ok(());
    }
    match (src.proto, dst.proto) {
        (0, proto) => src.proto = proto,
        (proto, 0) => dst.proto = proto,
        (one, other) if one == other => {}
        _ => return Err(Fault::invalid(D::ProtoMismatch)),
    }
    // Only the IPv6 way of saying "any source" goes with an IPv4 destination.
    if from.is_ipv4() || !from.ip().is_unspecified() {
        return Err(Fault::invalid(D::AfMismatch));
    }
    src.socket = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), from.port()));
    Ok(())
}
