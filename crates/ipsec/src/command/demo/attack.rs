//! Somebody on the wire who has seen a packet, and what it brings him.

use super::scene::Gateway;
use crate::command::Failure;
use crate::host::netns::Namespace;
use core::time::Duration;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::thread;

/// What was sent, the counter that must move for it, and whether it moved, by one.
pub(super) type Refused = (&'static str, &'static str, bool);

/// Sends a packet that was seen to gateway B: again, changed, and under a name nobody knows.
pub(super) fn run(from: &Namespace, b: &Gateway<'_>, packet: &[u8]) -> Result<Vec<Refused>, Failure> {
    let esp = esp_offset(packet).ok_or_else(|| Failure::new("the packet that was seen is not ESP"))?;
    let changed = |at: usize, mask: u8| {
        let mut packet = packet.to_vec();
        if let Some(octet) = packet.get_mut(at) {
            *octet ^= mask;
        }
        packet
    };
    let fresh_number = changed(esp + 6, 0x01);
    let other_spi = changed(esp + 1, 0x40);
    let attempts = [
        ("the same packet again", "replayed", packet.to_vec()),
        ("the packet under a number not used yet", "forged", fresh_number),
        ("the packet for an SA that is not there", "no_sa", other_spi),
    ];
    let mut refused = Vec::new();
    for (what, why, packet) in attempts {
        let before = b.discard(why)?;
        send(from, packet, esp)
            .map_err(|error| Failure::new(format_args!("the attacker could not send: {error}")))?;
        let mut moved = 0;
        for _ in 0..50 {
            moved = b.discard(why)?.saturating_sub(before);
            if moved > 0 {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        refused.push((what, why, moved == 1));
    }
    Ok(refused)
}

fn esp_offset(packet: &[u8]) -> Option<usize> {
    let header = usize::from(packet.first()? & 0x0f).checked_mul(4)?;
    match packet.get(9)? {
        17 => header.checked_add(8),
        50 => Some(header),
        _ => None,
    }
}

fn send(from: &Namespace, mut packet: Vec<u8>, esp: usize) -> io::Result<()> {
    // RFC 3948 §2.1: no checksum. The one that was seen may not have been filled in yet.
    if packet.get(9) == Some(&17)
        && let Some(checksum) = packet.get_mut(esp.saturating_sub(2)..esp)
    {
        checksum.fill(0);
    }
    from.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
        socket.set_header_included_v4(true)?;
        socket.send_to(&packet, &SocketAddr::from(([192, 0, 2, 2], 0)).into()).map(drop)
    })?
}
