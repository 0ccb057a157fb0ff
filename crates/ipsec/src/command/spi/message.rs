//! The PF_KEY message that makes an SA (RFC 2367 §3.1.3, pf_key(7P)).

use super::{Direction, Limits, NewSa};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use ipnet::IpNet;
use ipsec_core::Protocol;
use pfkey::{Address, ExtType, Lifetime, PacketLimits, Sa, SaParams, Tfc, Writer, flags, state};
use std::net::UdpSocket;

/// Writes everything about the SA; `direction` is which way it goes as seen from this host, if that is known.
pub(in crate::command) fn add(writer: &mut Writer, sa: &NewSa, direction: Option<Direction>) {
    writer.sa(&Sa {
        spi: sa.id.spi.0,
        // One octet is all there is; what does not fit goes with the parameters below.
        replay: u8::try_from(sa.window).unwrap_or(u8::MAX),
        state: state::MATURE,
        auth: sa.suite.auth.map_or(0, |auth| auth.row().number),
        encrypt: sa.suite.encryption.map_or(0, |encryption| encryption.row().number),
        flags: flag_word(sa, direction),
    });
    for (kind, limits) in [(ExtType::LifetimeHard, sa.life.hard), (ExtType::LifetimeSoft, sa.life.soft)] {
        if limits != Limits::default() {
            writer.lifetime(kind, &lifetime(limits));
        }
    }
    for (kind, octets) in [(ExtType::KeyEncrypt, &sa.encryption_key), (ExtType::KeyAuth, &sa.auth_key)] {
        if !octets.is_empty() {
            let bits = u16::try_from(octets.len().saturating_mul(8)).unwrap_or(u16::MAX);
            writer.key(kind, bits, 0, octets);
        }
    }
    writer.address(ExtType::AddressDst, &Address::host(sa.id.dst));
    if let Some((sport, dport)) = sa.encapsulation {
        let (local, remote) = if direction == Some(Direction::In) { (dport, sport) } else { (sport, dport) };
        let socket = SocketAddr::new(peer(sa, direction), remote);
        writer.address(ExtType::AddressNattRem, &Address { socket: Some(socket), ..udp(remote) });
        writer.address(ExtType::AddressNattLoc, &udp(local));
    }
    writer.address(ExtType::AddressSrc, &Address::host(sa.src));
    if let Some((src, dst)) = inner(sa) {
        writer.address(ExtType::AddressInnerSrc, &Address::net(src.addr(), src.prefix_len()));
        writer.address(ExtType::AddressInnerDst, &Address::net(dst.addr(), dst.prefix_len()));
    }
    if sa.esn || sa.window > u16::from(u8::MAX) {
        writer.sa_params(&SaParams { window: u32::from(sa.window), esn: sa.esn });
    }
    let limits = PacketLimits { soft: sa.life.soft.packets, hard: sa.life.hard.packets };
    if limits != PacketLimits::default() {
        writer.packet_limits(&limits);
    }
    if sa.tfc != Tfc::default() {
        writer.tfc(&sa.tfc);
    }
}

/// Which way an SA goes: to this host if its destination is an address of ours.
pub(super) fn direction(sa: &NewSa) -> Option<Direction> {
    if sa.direction.is_some() {
        return sa.direction;
    }
    let ours = |ip: IpAddr| !ip.is_unspecified() && UdpSocket::bind((ip, 0)).is_ok();
    match (ours(sa.src), ours(sa.id.dst)) {
        (false, true) => Some(Direction::In),
        (true, false) => Some(Direction::Out),
        // Both ends here, or neither: klips knows better, or it does not matter.
        (true, true) | (false, false) => None,
    }
}

fn flag_word(sa: &NewSa, direction: Option<Direction>) -> u32 {
    let mut word = match direction {
        Some(Direction::In) => flags::INBOUND,
        Some(Direction::Out) => flags::OUTBOUND,
        None => 0,
    };
    if sa.window == 0 && matches!(sa.id.protocol, Protocol::Esp | Protocol::Ah) {
        word |= flags::NOREPLAY;
    }
    if sa.encapsulation.is_some() {
        word |= flags::NATT_LOC | flags::NATT_REM;
    }
    if inner(sa).is_some() {
        word |= flags::TUNNEL;
    }
    word
}

/// What may be inside. An IPIP SA is an outer header, whatever is inside, unless that was said.
fn inner(sa: &NewSa) -> Option<(IpNet, IpNet)> {
    if !sa.tunnel || sa.id.protocol == Protocol::Ipip {
        return sa.inner;
    }
    let anything = || {
        let net = if sa.id.dst.is_ipv4() {
            IpNet::V4(ipnet::Ipv4Net::default())
        } else {
            IpNet::V6(ipnet::Ipv6Net::default())
        };
        (net, net)
    };
    Some(sa.inner.unwrap_or_else(anything))
}

/// A port of ESP in UDP. An address beside it would mean that one of the ends is somebody else behind a NAT
/// (pf_key(7P)); only key managers find that out.
fn udp(port: u16) -> Address {
    Address { proto: 17, prefix: 0, socket: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)) }
}

/// The address beside the peer's port. In transport mode pf_key(7P) wants to know it; it has no place for one of IPv6.
fn peer(sa: &NewSa, direction: Option<Direction>) -> IpAddr {
    let peer = if direction == Some(Direction::In) { sa.src } else { sa.id.dst };
    if inner(sa).is_none() && peer.is_ipv4() { peer } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) }
}

const fn lifetime(limits: Limits) -> Lifetime {
    let Limits { allocations, bytes, addtime, usetime, packets: _ } = limits;
    Lifetime { allocations, bytes, addtime, usetime }
}

#[cfg(test)]
mod tests;
