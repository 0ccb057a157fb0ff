//! ESP in UDP beside a key manager that has the port itself.
//!
//! A daemon that speaks IKE on UDP 4500 binds that port, and what comes to it is the daemon's. A raw socket gets a copy of each
//! datagram, and a filter in it keeps what is ESP (RFC 3948 §2.1: four octets that are not zero where IKE has its marker). So
//! neither hears of the other, and one mapping of a NAT serves both. The UDP header is ours to read and to write. Superpackets
//! are not sent; one that arrives whole, from a neighbour on this machine, is told by its sequence numbers.

use super::{
    DROP, HEADER_TO_X, Instruction, KEEP, LOAD_AT_X, Plan, Port, WireError, modulo, raw, skip_unless,
};
use crate::host::mmsg;
use klips::{Encapsulation, Run};
use socket2::Domain;
use std::net::IpAddr;

/// The protocol number of UDP.
const UDP: i32 = 17;
/// Octets of a UDP header.
pub(in crate::host) const HEADER: usize = 8;
/// Where a UDP header has its checksum.
const CHECKSUM: usize = 6;
/// The shortest ESP packet: SPI, sequence number and something.
const SHORTEST: u32 = 16;

/// The socket of one worker: it gets the SPIs that name it, as with sockets that share a port.
pub(super) fn open(domain: Domain, plan: &Plan<'_>, index: usize) -> Result<Port, WireError> {
    let port = raw(domain, plan.device, UDP)?;
    mmsg::filter(&port.socket, &program(domain, plan, index))?;
    Ok(port)
}

/// Keeps ESP in UDP to our port, of the SPIs that are `index` modulo the number of workers.
fn program(domain: Domain, plan: &Plan<'_>, index: usize) -> Vec<Instruction> {
    let workers = u32::try_from(plan.workers.max(1)).unwrap_or(1);
    let index = u32::try_from(index).unwrap_or(0);
    // The filter sees IPv4 packets from their header on, IPv6 packets from after it.
    let v4 = domain == Domain::IPV4;
    let half = |at| Instruction { code: if v4 { 0x48 } else { 0x28 }, jt: 0, jf: 0, k: at };
    let word = |at| Instruction { code: if v4 { LOAD_AT_X.code } else { 0x20 }, jt: 0, jf: 0, k: at };
    let unless_at_least = |least, skip| Instruction { code: 0x35, jt: 0, jf: skip, k: least };
    let if_zero = |skip| Instruction { code: 0x15, jt: skip, jf: 0, k: 0 };
    let mut program = if v4 { vec![HEADER_TO_X] } else { Vec::new() };
    program.extend([
        half(2),
        skip_unless(plan.port.into(), 7),
        half(4),
        unless_at_least(SHORTEST, 5),
        word(8),
        // The marker of IKE, or a keepalive of the length of ESP.
        if_zero(3),
        modulo(workers),
        skip_unless(index, 1),
        KEEP,
        DROP,
    ]);
    program
}

/// The sender's port and the ESP packet in a UDP datagram; `None` if it is cut.
pub(in crate::host) fn split(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let (header, rest) = datagram.split_first_chunk::<HEADER>()?;
    let [s0, s1, _, _, l0, l1, _, _] = *header;
    let len = usize::from(u16::from_be_bytes([l0, l1])).checked_sub(HEADER)?;
    Some((u16::from_be_bytes([s0, s1]), rest.get(..len)?))
}

/// How far apart the ESP packets of one datagram lie, which is its length if there is one packet in it.
///
/// The kernel cuts a superpacket where a wire begins or a UDP socket receives it. From a container or a guest of this machine it
/// comes to a raw socket as it was sent, and nothing says what it is made of. Its packets are of one SA, their numbers follow
/// each other, and all but the last are equally long; eight octets of a single packet's ciphertext are like that once in
/// 2^64, and then its ICV is wrong.
pub(in crate::host) fn stride(packets: &[u8]) -> usize {
    let whole = packets.len().max(1);
    let Some(&[first_spi, first]) = packets.as_chunks::<4>().0.first_chunk() else { return whole };
    let number = |packet: &[u8]| match packet.as_chunks::<4>().0.first_chunk() {
        Some(&[spi, number]) if spi == first_spi => Some(u32::from_be_bytes(number)),
        _ => None,
    };
    let first = u32::from_be_bytes(first);
    // ESP is a multiple of four octets long (RFC 4303 §2.4).
    let words = packets.as_chunks::<4>().0.iter().zip((0..).step_by(4));
    let second = words.skip(2).find(|(word, at)| {
        **word == first_spi && packets.get(*at..).and_then(number) == Some(first.wrapping_add(1))
    });
    let Some((_, stride)) = second else { return whole };
    let follow = packets.chunks(stride).zip(0..).all(|(one, n)| number(one) == Some(first.wrapping_add(n)));
    if follow { stride } else { whole }
}

/// The packets of a run, each behind a UDP header, and how long each then is.
pub(super) fn join(run: &Run<'_>, udp: Encapsulation, ends: (IpAddr, IpAddr)) -> (Vec<u8>, usize) {
    let stride = run.stride.max(1);
    let count = run.octets.len().div_ceil(stride);
    let mut octets = Vec::with_capacity(run.octets.len().saturating_add(count.saturating_mul(HEADER)));
    for packet in run.octets.chunks(stride) {
        octets.extend_from_slice(&header(packet, udp, ends));
        octets.extend_from_slice(packet);
    }
    (octets, stride.saturating_add(HEADER))
}

/// The header of one datagram. Over IPv4 it has no checksum (RFC 3948 §2.1), which IPv6 asks for (RFC 8200 §8.1).
pub(super) fn header(payload: &[u8], udp: Encapsulation, (src, dst): (IpAddr, IpAddr)) -> [u8; HEADER] {
    let len = u16::try_from(payload.len().saturating_add(HEADER)).unwrap_or(u16::MAX);
    let mut header = [0; HEADER];
    let fields = [udp.local, udp.remote, len];
    for (to, field) in header.chunks_exact_mut(2).zip(fields) {
        to.copy_from_slice(&field.to_be_bytes());
    }
    if let (IpAddr::V6(src), IpAddr::V6(dst)) = (src, dst) {
        let pseudo = [&src.octets()[..], &dst.octets(), &u32::from(len).to_be_bytes(), &[0, 0, 0, 17]];
        let sum = pseudo.into_iter().chain([&header[..], payload]).map(sum).fold(0_u64, u64::saturating_add);
        let folded = (sum & 0xffff).saturating_add(sum >> 16);
        let folded = (folded & 0xffff).saturating_add(folded >> 16);
        let folded = (folded & 0xffff).saturating_add(folded >> 16);
        // Zero would say that there is none.
        let sum = !u16::try_from(folded & 0xffff).unwrap_or(0);
        let sum = if sum == 0 { u16::MAX } else { sum };
        if let Some(to) = header.get_mut(CHECKSUM..) {
            to.copy_from_slice(&sum.to_be_bytes());
        }
    }
    header
}

/// The sum of 16-bit words, the last one filled with a zero.
fn sum(octets: &[u8]) -> u64 {
    let word = |pair: &[u8]| {
        u64::from(u16::from_be_bytes([pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0)]))
    };
    octets.chunks(2).map(word).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ESP packets of these SPIs, numbers and lengths, one behind the other.
    fn packets(all: &[(u32, u32, usize)]) -> Vec<u8> {
        let packet = |&(spi, number, len): &(u32, u32, usize)| {
            let mut octets = [spi.to_be_bytes(), number.to_be_bytes()].concat();
            octets.resize(len, 0xee);
            octets
        };
        all.iter().flat_map(packet).collect()
    }

    #[test]
    fn a_superpacket_is_what_its_numbers_say_and_nothing_else_is_one() {
        for (all, expected) in [
            (&[(300, 7, 96)][..], 96),
            (&[(300, 7, 96), (300, 8, 96)], 96),
            (&[(300, 7, 96), (300, 8, 96), (300, 9, 40)], 96),
            (&[(300, u32::MAX, 1400), (300, 0, 1400), (300, 1, 1400)], 1400),
            // Not the next number, not the same SA, not all equally long, the longest last, not all of it.
            (&[(300, 7, 96), (300, 9, 96)], 192),
            (&[(300, 7, 96), (301, 8, 96)], 192),
            (&[(300, 7, 96), (300, 8, 96), (300, 10, 96)], 288),
            (&[(300, 7, 96), (300, 8, 80), (300, 9, 96)], 272),
            (&[(300, 7, 40), (300, 8, 96)], 136),
        ] {
            assert_eq!(stride(&packets(all)), expected, "{all:?}");
        }
        // What is too short for numbers is not looked into, and nothing is a stride of nothing.
        for len in 0..12 {
            assert_eq!(stride(&vec![0; len]), len.max(1));
        }
    }
}
