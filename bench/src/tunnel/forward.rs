//! A reference forwarder: what system calls, copies and checksums of a tunnel in user space cost here, with every offload
//! and without any protocol. One thread each way. IPv4 only; a benchmark's yardstick and nothing to use.
//!
//! With AES-128-GCM each packet is sealed as ESP would seal it (8 octets of header, 8 of IV, 2 of trailer, 16 of tag), and
//! that is all: no policy, no window, no lifetimes.

use super::traffic;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ipsec::host::mmsg::{Destination, Scratch, Slots};
use ipsec::host::tun::{Device, Offloads, Queue};
use klips::{Gso, Vnet};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;

/// The TUN device's name.
pub(super) const DEVICE: &str = "forward0";
const PORT: u16 = 4600;
const HEADER: usize = 16;
const TRAILER: usize = 2;
const TAG: usize = 16;
/// What one `UDP_SEGMENT` call may carry.
const LARGEST: usize = 65_000;
const MOST: usize = 60;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// From where to where
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    local: Ipv4Addr,
    remote: Ipv4Addr,
    /// AES-128-GCM around each packet
    #[arg(long)]
    gcm: bool,
}

/// Forwards until ended.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    let device = Device::create(DEVICE, 1, Offloads::ALL).map_err(io::Error::other)?;
    let queue = device.queues.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
    let socket = UdpSocket::bind((options.local, PORT))?;
    traffic::large_buffers(&socket)?;
    let to = SocketAddr::from((options.remote, PORT));
    thread::scope(|scope| {
        let outward = scope.spawn(|| outward(&queue, &socket, to, key(options.gcm)?));
        inward(&queue, &socket, key(options.gcm)?)?;
        outward.join().map_err(|_| io::Error::other("fell over"))?
    })?;
    Ok(true)
}

fn key(gcm: bool) -> io::Result<Option<LessSafeKey>> {
    let made = || UnboundKey::new(&AES_128_GCM, &[7; 16]).map(LessSafeKey::new);
    gcm.then(made).transpose().map_err(|_| io::Error::other("no key"))
}

fn wait(what: impl rustix::fd::AsFd) {
    let _ = poll(&mut [PollFd::new(&what, PollFlags::IN)], None);
}

fn get16(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

fn put16(octets: &mut [u8], at: usize, value: u16) {
    octets[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn get32(octets: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

/// The one's complement sum in native byte order, not folded: eight octets at a time.
fn sum(octets: &[u8], start: u64) -> u64 {
    let (mut even, mut odd) = (start, 0_u64);
    let mut words = octets.chunks_exact(8);
    for word in &mut words {
        even += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        odd += u64::from(u32::from_ne_bytes([word[4], word[5], word[6], word[7]]));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    let last = u64::from_ne_bytes(last);
    even + odd + (last & 0xffff_ffff) + (last >> 32)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo(ip: &[u8], len: usize) -> u64 {
    let rest = [0, ip[9], (len >> 8) as u8, len as u8];
    sum(&rest, sum(&ip[12..20], 0))
}

/// Writes the complement of a sum over `octets` where the checksum is.
fn finish(octets: &mut [u8], at: usize, start: u64) {
    octets[at..at + 2].fill(0);
    let value = !fold(sum(octets, start));
    octets[at..at + 2].copy_from_slice(&value.to_ne_bytes());
}

/// Datagrams of one length after each other, the last perhaps shorter, until they are sent at once.
struct Outgoing<'s> {
    socket: &'s UdpSocket,
    scratch: Scratch,
    destination: Destination,
    key: Option<LessSafeKey>,
    number: u64,
    octets: Vec<u8>,
    segment: usize,
    short: bool,
}

impl Outgoing<'_> {
    fn flush(&mut self) {
        if !self.octets.is_empty() {
            let segment = u16::try_from(self.segment).ok().filter(|_| self.octets.len() > self.segment);
            // Lost is lost: this is what a full queue does to any forwarder.
            let _ = self.scratch.send(self.socket, &self.octets, &self.destination, segment);
        }
        self.octets.clear();
        self.short = false;
    }

    /// Appends one packet that `write` completes from head and body.
    fn push(&mut self, head: &[u8], body: &[u8], write: impl FnOnce(&mut [u8])) {
        let overhead = if self.key.is_some() { HEADER + TRAILER + TAG } else { 0 };
        let (inner, len) = (head.len() + body.len(), head.len() + body.len() + overhead);
        let at = self.octets.len();
        let full = self.short || len > self.segment || at + len > LARGEST || at / self.segment.max(1) >= MOST;
        if at > 0 && full {
            self.flush();
        }
        let at = self.octets.len();
        if at == 0 {
            self.segment = len;
        }
        self.short = len < self.segment;
        let Some(key) = &self.key else {
            self.octets.extend_from_slice(head);
            self.octets.extend_from_slice(body);
            return write(&mut self.octets[at..]);
        };
        self.number += 1;
        self.octets.extend_from_slice(&[1; 8]);
        self.octets.extend_from_slice(&self.number.to_be_bytes());
        self.octets.extend_from_slice(head);
        self.octets.extend_from_slice(body);
        self.octets.extend_from_slice(&[0, 4]);
        write(&mut self.octets[at + HEADER..at + HEADER + inner]);
        let tag = key.seal_in_place_separate_tag(
            nonce(self.number),
            Aad::from([1; 8]),
            &mut self.octets[at + HEADER..],
        );
        if let Ok(tag) = tag {
            self.octets.extend_from_slice(tag.as_ref());
        }
    }

    /// Cuts a superpacket, or passes a packet on.
    fn packet(&mut self, vnet: &Vnet, packet: &mut [u8]) {
        let tcp = match vnet.gso {
            Gso::Tcp4 => true,
            Gso::Udp if packet[0] >> 4 == 4 => false,
            Gso::None | Gso::Tcp6 | Gso::Udp => {
                if vnet.needs_csum {
                    let start = usize::from(vnet.csum_start);
                    if start + usize::from(vnet.csum_offset) + 2 <= packet.len() {
                        let part = &mut packet[start..];
                        // The field holds the sum of the pseudo header, which belongs in.
                        let value = !fold(sum(part, 0));
                        let at = usize::from(vnet.csum_offset);
                        part[at..at + 2].copy_from_slice(&value.to_ne_bytes());
                    }
                }
                return self.push(packet, &[], |_| {});
            }
        };
        let transport = usize::from(packet[0] & 15) * 4;
        let head = transport + if tcp { usize::from(packet[transport + 12] >> 4) * 4 } else { 8 };
        let (head, body) = packet.split_at(head);
        let (identification, sequence) = (get16(head, 4), get32(head, transport + 4));
        let size = usize::from(vnet.gso_size).max(1);
        let last = body.len().div_ceil(size) - 1;
        for (index, piece) in body.chunks(size).enumerate() {
            self.push(head, piece, |packet| {
                let len = packet.len();
                put16(packet, 2, len as u16);
                put16(packet, 4, identification.wrapping_add(index as u16));
                finish(&mut packet[..transport], 10, 0);
                let start = pseudo(packet, len - transport);
                let part = &mut packet[transport..];
                if tcp {
                    let at = sequence.wrapping_add((index * size) as u32);
                    part[4..8].copy_from_slice(&at.to_be_bytes());
                    // FIN and PSH are the last segment's.
                    part[13] &= if index < last { !0x09 } else { 0xff };
                    finish(part, 16, start);
                } else {
                    put16(part, 4, (len - transport) as u16);
                    finish(part, 6, start);
                }
            });
        }
    }
}

fn nonce(number: u64) -> Nonce {
    let mut octets = [9; 12];
    octets[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(octets)
}

fn outward(queue: &Queue, socket: &UdpSocket, to: SocketAddr, key: Option<LessSafeKey>) -> io::Result<()> {
    let destination = Destination { to, from: None, tos: None };
    let mut outgoing = Outgoing {
        socket,
        scratch: Scratch::default(),
        destination,
        key,
        number: 0,
        octets: Vec::with_capacity(1 << 17),
        segment: 0,
        short: false,
    };
    let mut buffer = vec![0; Vnet::LEN + 66_000];
    loop {
        match queue.read(&mut buffer) {
            Ok(len) if len > Vnet::LEN + 20 => {
                let (header, packet) = buffer[..len].split_at_mut(Vnet::LEN);
                if let Some(Ok(vnet)) = header.first_chunk().map(Vnet::parse) {
                    outgoing.packet(&vnet, packet);
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                outgoing.flush();
                wait(queue);
            }
            Err(error) => return Err(error),
        }
    }
}

/// A packet whose segments may follow each other in one write: where it is and how long its headers are.
struct Merging {
    head: usize,
    at: usize,
    pieces: Vec<(usize, usize)>,
    body: usize,
    segment: usize,
    closed: bool,
}

/// Headers' length of what may be merged at all: no options, no fragment, TCP with ACK and perhaps PSH, checksum right.
fn mergeable(packet: &[u8]) -> Option<usize> {
    if packet.len() < 28 || packet[0] != 0x45 || usize::from(get16(packet, 2)) != packet.len() {
        return None;
    }
    let head = match packet[9] {
        TCP if packet.len() >= 40 && packet[33] & !8 == 0x10 => 20 + usize::from(packet[32] >> 4) * 4,
        UDP => 28,
        _ => return None,
    };
    let whole = get16(packet, 6) & 0x3fff == 0 && packet.len() > head;
    let right = || fold(sum(&packet[20..], pseudo(packet, packet.len() - 20))) == 0xffff;
    (whole && right()).then_some(head)
}

impl Merging {
    fn takes(&self, rx: &[u8], packet: &[u8], head: usize) -> bool {
        let first = &rx[self.at..];
        let body = packet.len() - head;
        let same = self.head == head
            && first[9] == packet[9]
            && first[12..24] == packet[12..24]
            && (first[1], first[8], first[6]) == (packet[1], packet[8], packet[6]);
        let follows = || {
            if packet[9] == UDP {
                return body == self.segment;
            }
            get32(packet, 24) == get32(first, 24).wrapping_add(self.body as u32)
                && first[28..32] == packet[28..32]
                && first[34..36] == packet[34..36]
                && first[40..head] == packet[40..head]
        };
        !self.closed
            && same
            && body <= self.segment
            && self.pieces.len() < MOST
            && head + self.body + body < LARGEST
            && follows()
    }

    fn flush(self, rx: &mut [u8], queue: &Queue) {
        let mut vnet = Vnet::default();
        if self.pieces.len() > 1 {
            let total = self.head + self.body;
            let first = &mut rx[self.at..self.at + self.head];
            let tcp = first[9] == TCP;
            put16(first, 2, total as u16);
            finish(&mut first[..20], 10, 0);
            if !tcp {
                put16(first, 24, (total - 20) as u16);
            }
            vnet = Vnet {
                needs_csum: true,
                gso: if tcp { Gso::Tcp4 } else { Gso::Udp },
                gso_size: self.segment as u16,
                hdr_len: self.head as u16,
                csum_start: 20,
                csum_offset: if tcp { 16 } else { 6 },
                ..Vnet::default()
            };
            let at = 20 + usize::from(vnet.csum_offset);
            let start = fold(pseudo(first, total - 20)).to_ne_bytes();
            first[at..at + 2].copy_from_slice(&start);
        }
        let header = vnet.octets();
        let mut slices = vec![IoSlice::new(&header), IoSlice::new(&rx[self.at..self.at + self.head])];
        slices.extend(self.pieces.iter().map(|(at, len)| IoSlice::new(&rx[*at..at + len])));
        let _ = queue.write(&slices);
    }
}

fn inward(queue: &Queue, socket: &UdpSocket, key: Option<LessSafeKey>) -> io::Result<()> {
    let (mut slots, mut rx) = (Slots::default(), vec![0; 1 << 16]);
    loop {
        let stride = rx.len();
        if slots.receive(socket, &mut rx, stride, 1).is_err() {
            wait(socket);
            continue;
        }
        let Some(message) = slots.message(0) else { continue };
        let (end, segment) = (message.len, message.segment.unwrap_or(message.len).max(1));
        let mut merging: Option<Merging> = None;
        for start in (0..end).step_by(segment) {
            let Some((at, len)) = inner(&key, &mut rx, start, segment.min(end - start)) else { continue };
            let head = mergeable(&rx[at..at + len]);
            let fits = |merging: &Merging| head.filter(|head| merging.takes(&rx, &rx[at..at + len], *head));
            if let Some((merging, head)) = merging.as_mut().and_then(|m| fits(m).map(|head| (m, head))) {
                let (body, push) = (len - head, rx[at + 9] == TCP && rx[at + 33] & 8 != 0);
                merging.pieces.push((at + head, body));
                merging.body += body;
                merging.closed = push || body < merging.segment;
                if push {
                    rx[merging.at + 33] |= 8;
                }
                continue;
            }
            if let Some(merging) = merging.take() {
                merging.flush(&mut rx, queue);
            }
            let head = head.unwrap_or(len);
            let piece = (at + head, len - head);
            // What cannot be merged has no body, so nothing fits after it.
            let closed = piece.1 == 0 || rx[at + 9] == TCP && rx[at + 33] & 8 != 0;
            merging =
                Some(Merging { head, at, pieces: vec![piece], body: piece.1, segment: piece.1, closed });
        }
        if let Some(merging) = merging.take() {
            merging.flush(&mut rx, queue);
        }
    }
}

/// Where the packet inside a datagram is.
fn inner(key: &Option<LessSafeKey>, rx: &mut [u8], start: usize, len: usize) -> Option<(usize, usize)> {
    let Some(key) = key else { return Some((start, len)) };
    let text = len.checked_sub(HEADER + TAG).filter(|text| *text > TRAILER)?;
    let datagram = &mut rx[start..start + len];
    let (header, rest) = datagram.split_at_mut(HEADER);
    let (text_octets, tag) = rest.split_at_mut(text);
    let number = u64::from_be_bytes(header[8..].try_into().ok()?);
    key.open_in_place_separate_tag(nonce(number), Aad::from([1; 8]), tag, text_octets).ok()?;
    Some((start + HEADER, text - TRAILER))
}
