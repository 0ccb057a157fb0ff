//! What the messages of dialects have in common, both ways: the parts that differ in their numbers alone.

use super::record::{Layout, Record};
use crate::{Address, Diagnostic as D, Errno, ExtType, Fault, Message, SpiRange, Writer};
use core::net::{Ipv4Addr, SocketAddr};

/// UDP_ENCAP_ESPINUDP: ESP in UDP as RFC 3948 has it.
pub const ESP_IN_UDP: u8 = 2;

/// The flags of an SA whose record says that it is in UDP, as RFC 3948 has it.
pub(super) fn natt_flags<L: Layout>(record: &Record<'_, L>) -> Result<u32, Fault> {
    match record.nat_t() {
        None | Some((0, ..)) => Ok(0),
        Some((ESP_IN_UDP, ..)) => Ok(crate::flags::NATT_LOC | crate::flags::NATT_REM),
        // What came before RFC 3948.
        Some(_) => Err(Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::BadMode }),
    }
}

/// The ports of ESP in UDP for the service, the packet's source first. Says whether there are any.
pub(super) fn ask_ports<L: Layout>(w: &mut Writer, record: &Record<'_, L>) -> bool {
    let Some((ESP_IN_UDP, sport, dport)) = record.nat_t() else { return false };
    for (kind, port) in [(ExtType::AddressNattLoc, sport), (ExtType::AddressNattRem, dport)] {
        // Only the ports are known; whose they are the service sees by the direction.
        let socket = Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        w.address(kind, &Address { proto: 17, prefix: 0, socket });
    }
    true
}

/// Keys and identities for the service.
pub(super) fn ask_keys<L: Layout>(w: &mut Writer, record: &Record<'_, L>) -> Result<(), Fault> {
    for (kind, malformed) in [(ExtType::KeyAuth, D::MalformedAkey), (ExtType::KeyEncrypt, D::MalformedEkey)] {
        if let Some(key) = record.key(kind, malformed)? {
            w.key(kind, key.bits, 0, key.octets);
        }
    }
    ask_identities(w, record);
    Ok(())
}

/// Identities for the service.
pub(super) fn ask_identities<L: Layout>(w: &mut Writer, record: &Record<'_, L>) {
    for kind in [ExtType::IdentitySrc, ExtType::IdentityDst] {
        if let Some(identity) = record.identity(kind) {
            w.identity(kind, &identity);
        }
    }
}

/// The range of a GETSPI for the service; `order` reads an SPI as the dialect writes it there.
pub(super) fn ask_spi_range<L: Layout>(
    w: &mut Writer,
    record: &Record<'_, L>,
    order: fn([u8; 4]) -> u32,
) -> Result<(), Fault> {
    let (min, max) = record.spi_range().ok_or(Fault::invalid(D::MissingRange))?;
    let (min, max) = (order(min), order(max));
    if min > max {
        return Err(Fault::invalid(D::MalformedRange));
    }
    w.spi_range(&SpiRange { min, max });
    Ok(())
}

/// Keys for the program: salt is part of the key in dialects.
pub(super) fn tell_keys(w: &mut Writer, message: &Message<'_>) {
    for (kind, key) in [(ExtType::KeyAuth, message.auth_key), (ExtType::KeyEncrypt, message.encrypt_key)] {
        if let Some(key) = key {
            w.key(kind, key.bits.saturating_add(key.reserved), 0, key.octets);
        }
    }
}

/// Identities for the program.
pub(super) fn tell_identities(w: &mut Writer, message: &Message<'_>) {
    let both = [(ExtType::IdentitySrc, message.src_identity), (ExtType::IdentityDst, message.dst_identity)];
    for (kind, identity) in both {
        if let Some(identity) = identity {
            w.identity(kind, &identity);
        }
    }
}

/// The ports of a packet for the program: the sender's is ours or the peer's, as the SA's direction says.
pub(super) fn tell_ports<L: Layout>(w: &mut Writer, message: &Message<'_>, flags: u32) {
    let (Some(local), Some(remote)) = (message.natt_loc, message.natt_rem) else { return };
    // In the echo of a request of a dialect they still are the packet's.
    let inbound = flags & (crate::flags::INBOUND | crate::flags::OUTBOUND) == crate::flags::INBOUND;
    let (sport, dport) = if inbound { (remote, local) } else { (local, remote) };
    let [kind, source, destination] = L::NAT_T;
    w.numbered(kind, |octets| octets.extend_from_slice(&[ESP_IN_UDP, 0, 0, 0]));
    port(w, source, sport.port());
    port(w, destination, dport.port());
}

/// A port in network order, and two reserved octets.
pub(super) fn port(w: &mut Writer, number: u16, port: u16) {
    w.numbered(number, |octets| {
        octets.extend_from_slice(&port.to_be_bytes());
        octets.extend_from_slice(&[0; 2]);
    });
}
