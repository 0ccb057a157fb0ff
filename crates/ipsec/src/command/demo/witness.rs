//! Who stands beside a cable and looks at every frame.
//!
//! A witness believes nothing that our own code says: it has a packet socket of the kernel, and the kernel's count of
//! frames to compare its own with.

use super::traffic::Marker;
use crate::command::Failure;
use crate::host::netlink::Netlink;
use crate::host::netns::Namespace;
use core::time::Duration;
use memchr::memmem;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// ESP, raw or in UDP 4500.
    pub(super) esp: u64,
    /// IKE, on port 500 or behind the non-ESP marker on 4500 (RFC 3948 §2.2).
    pub(super) ike: u64,
    /// Address resolution.
    pub(super) arp: u64,
    /// Anything else.
    pub(super) others: u64,
    /// Frames with the mark in them.
    pub(super) marks: u64,
    /// Frames the interface counted and we did not see.
    pub(super) missed: u64,
    /// An ESP packet to gateway B, IP header first.
    pub(super) sample: Option<Vec<u8>>,
}

pub(super) struct Witness<'n> {
    namespace: &'n Namespace,
    interface: &'static str,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Seen, u64)>,
    counted: Option<u64>,
}

const ESP: u8 = 50;
const UDP: u8 = 17;
const PORT: u16 = 4500;
const IKE: u16 = 500;

/// What [`classify`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Esp,
    Ike,
    Arp,
    Other,
}

/// Ethernet, IPv4: whole packets only, no fragments, no keepalives.
fn classify(frame: &[u8]) -> Kind {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let esp = || {
        let header = usize::from(frame.get(14)? & 0x0f) * 4 + 14;
        let whole = word(20)? & 0x3fff == 0;
        let carried = match *frame.get(23)? {
            ESP => header,
            UDP if word(header)? == PORT && word(header + 2)? == PORT => header + 8,
            _ => return None,
        };
        let spi = frame.get(carried..carried + 4)?;
        (whole && spi != [0; 4]).then_some(())
    };
    // The version and length of a whole IKE header, in a datagram between the ports of IKE.
    let ike = || {
        let header = usize::from(frame.get(14)? & 0x0f) * 4 + 14;
        let at = match (word(header)?, word(header + 2)?) {
            (IKE, IKE) => header + 8,
            (PORT, PORT) if frame.get(header + 8..header + 12)? == [0; 4] => header + 12,
            _ => return None,
        };
        let whole = word(20)? & 0x3fff == 0 && *frame.get(23)? == UDP;
        let length = u32::from_be_bytes(frame.get(at + 24..at + 28)?.try_into().ok()?);
        let fits = frame.len().checked_sub(at)? == usize::try_from(length).ok()?;
        (whole && *frame.get(at + 17)? == 0x20 && fits).then_some(())
    };
    match word(12) {
        Some(0x0806) => Kind::Arp,
        Some(0x0800) if esp().is_some() => Kind::Esp,
        Some(0x0800) if ike().is_some() => Kind::Ike,
        _ => Kind::Other,
    }
}

impl<'n> Witness<'n> {
    /// Looks at every frame of an interface.
    pub(super) fn on(
        namespace: &'n Namespace,
        interface: &'static str,
        marker: Marker,
    ) -> Result<Self, Failure> {
        Self::start(namespace, interface, marker, |index| of_interface(index, &[]), true)
    }

    /// Looks only at frames that are not what should be there: the kernel sorts the others out, so that watching costs
    /// nothing.
    pub(super) fn for_strangers(
        namespace: &'n Namespace,
        interface: &'static str,
        raw: bool,
        marker: Marker,
    ) -> Result<Self, Failure> {
        Self::start(
            namespace,
            interface,
            marker,
            |index| of_interface(index, if raw { NOT_ESP } else { NOT_ESP_IN_UDP }),
            false,
        )
    }

    fn start(
        namespace: &'n Namespace,
        interface: &'static str,
        marker: Marker,
        filter: impl FnOnce(u32) -> Vec<SockFilter> + Send,
        all: bool,
    ) -> Result<Self, Failure> {
        let open = || {
            let every = i32::from(3_u16.to_be());
            let link = Netlink::open()?.link(interface)?.ok_or(ErrorKind::NotFound)?;
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every)))?;
            let _ = socket.set_recv_buffer_size(8 << 20);
            socket.attach_filter(&filter(link.index))?;
            // What came before the filter did.
            socket.set_nonblocking(true)?;
            while (&socket).read(&mut [0; 64]).is_ok() {}
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            let counted = if all { Some(count(interface)?) } else { None };
            io::Result::Ok((socket, counted))
        };
        let opened = namespace.run(open).and_then(|opened| opened);
        let (socket, counted) =
            opened.map_err(|error| Failure::new(format_args!("cannot watch {interface}: {error}")))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || watch(&socket, &marker, &stopping));
        Ok(Self { namespace, interface, stop, thread, counted })
    }

    /// Stops looking, once everything that is there has been looked at.
    pub(super) fn stop(self) -> Result<Seen, Failure> {
        let failed = |error: io::Error| Failure::new(format_args!("{}: {error}", self.interface));
        self.stop.store(true, Ordering::Release);
        let (mut seen, frames) = self.thread.join().map_err(|_| Failure::new("the witness fell over"))?;
        if let Some(before) = self.counted {
            let now = self.namespace.run(|| count(self.interface)).and_then(|now| now).map_err(failed)?;
            seen.missed = now.saturating_sub(before).saturating_sub(frames);
        }
        Ok(seen)
    }
}

fn watch(mut socket: &Socket, marker: &Marker, stop: &AtomicBool) -> (Seen, u64) {
    let mut frame = vec![0; 1 << 17];
    let (mut seen, mut frames) = (Seen::default(), 0_u64);
    let finder = memmem::Finder::new(marker.text());
    loop {
        let stopping = stop.load(Ordering::Acquire);
        let Ok(length) = socket.read(&mut frame) else {
            if stopping {
                return (seen, frames);
            }
            continue;
        };
        let Some(frame) = frame.get(..length) else { continue };
        frames += 1;
        match classify(frame) {
            Kind::Esp => seen.esp += 1,
            Kind::Ike => seen.ike += 1,
            Kind::Arp => seen.arp += 1,
            Kind::Other => seen.others += 1,
        }
        if finder.find(frame).is_some() {
            seen.marks += 1;
        }
        if seen.sample.is_none()
            && length <= 1514
            && classify(frame) == Kind::Esp
            && frame.get(30..34) == Some(&[192, 0, 2, 2][..])
        {
            seen.sample = frame.get(14..).map(<[u8]>::to_vec);
        }
    }
}

/// Frames in and out of an interface, as the kernel counts them.
fn count(interface: &str) -> io::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'));
    let numbers: Vec<u64> =
        line.unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [_, received, _, _, _, _, _, _, _, sent, ..] => Ok(received + sent),
        _ => Err(ErrorKind::NotFound.into()),
    }
}

/// Opcodes of classic BPF (bpf(4)).
mod op {
    pub(super) const LOAD_WORD: u16 = 0x20;
    pub(super) const LOAD_HALF: u16 = 0x28;
    pub(super) const LOAD_OCTET: u16 = 0x30;
    pub(super) const LOAD_WORD_X: u16 = 0x40;
    pub(super) const LOAD_HALF_X: u16 = 0x48;
    pub(super) const X_HEADER: u16 = 0xb1;
    pub(super) const EQUAL: u16 = 0x15;
    pub(super) const ANY_BIT: u16 = 0x45;
    pub(super) const RETURN: u16 = 0x06;
}

type Step = (u16, u8, u8, u32);

/// Keeps all but whole ESP-in-UDP packets and ARP; jumps count from the next step.
const NOT_ESP_IN_UDP: &[Step] = &[
    (op::LOAD_HALF, 0, 0, 12),
    (op::EQUAL, 12, 0, 0x0806),
    (op::EQUAL, 0, 12, 0x0800),
    (op::LOAD_OCTET, 0, 0, 23),
    (op::EQUAL, 0, 10, UDP as u32),
    (op::LOAD_HALF, 0, 0, 20),
    (op::ANY_BIT, 8, 0, 0x3fff),
    (op::X_HEADER, 0, 0, 14),
    (op::LOAD_HALF_X, 0, 0, 14),
    (op::EQUAL, 0, 5, PORT as u32),
    (op::LOAD_HALF_X, 0, 0, 16),
    (op::EQUAL, 0, 3, PORT as u32),
    (op::LOAD_WORD_X, 0, 0, 22),
    (op::EQUAL, 1, 0, 0),
    (op::RETURN, 0, 0, 0),
    (op::RETURN, 0, 0, u32::MAX),
];

/// The same for ESP without UDP.
const NOT_ESP: &[Step] = &[
    (op::LOAD_HALF, 0, 0, 12),
    (op::EQUAL, 5, 0, 0x0806),
    (op::EQUAL, 0, 5, 0x0800),
    (op::LOAD_OCTET, 0, 0, 23),
    (op::EQUAL, 0, 3, ESP as u32),
    (op::LOAD_HALF, 0, 0, 20),
    (op::ANY_BIT, 1, 0, 0x3fff),
    (op::RETURN, 0, 0, 0),
    (op::RETURN, 0, 0, u32::MAX),
];

/// Frames of one interface, and of those what `then` keeps.
fn of_interface(index: u32, then: &[Step]) -> Vec<SockFilter> {
    // SKF_AD_OFF + SKF_AD_IFINDEX: where the frame was seen.
    const INTERFACE: u32 = (-0x1000_i32 + 8).cast_unsigned();
    let all: &[Step] = &[(op::RETURN, 0, 0, u32::MAX)];
    let head = [(op::LOAD_WORD, 0, 0, INTERFACE), (op::EQUAL, 1, 0, index), (op::RETURN, 0, 0, 0)];
    let then = if then.is_empty() { all } else { then };
    head.iter().chain(then).map(|&(code, yes, no, k)| SockFilter::new(code, yes, no, k)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with a filter, for the few steps we use.
    fn keeps(program: &[Step], frame: &[u8]) -> bool {
        let half = |at: usize| frame.get(at..at + 2).map(|o| u32::from(u16::from_be_bytes([o[0], o[1]])));
        let word = |at: usize| frame.get(at..at + 4).map(|o| u32::from_be_bytes([o[0], o[1], o[2], o[3]]));
        let (mut at, mut a, mut x) = (0_usize, 0_u32, 0_usize);
        loop {
            let (code, yes, no, k) = program[at];
            at += 1;
            let loaded = match code {
                op::LOAD_HALF => half(k as usize),
                op::LOAD_OCTET => frame.get(k as usize).map(|o| u32::from(*o)),
                op::LOAD_HALF_X => half(x + k as usize),
                op::LOAD_WORD_X => word(x + k as usize),
                op::X_HEADER => {
                    x = usize::from(frame[k as usize] & 15) * 4;
                    continue;
                }
                op::EQUAL => {
                    at += usize::from(if a == k { yes } else { no });
                    continue;
                }
                op::ANY_BIT => {
                    at += usize::from(if a & k != 0 { yes } else { no });
                    continue;
                }
                _ => return k != 0,
            };
            // A load beyond the frame ends the program, and the frame is dropped.
            let Some(loaded) = loaded else { return false };
            a = loaded;
        }
    }

    fn frame(ethertype: u16, fragment: u16, proto: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(ethertype.to_be_bytes());
        frame.extend([0x45, 0, 0, 0, 0, 0]);
        frame.extend(fragment.to_be_bytes());
        frame.extend([64, proto, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend(payload);
        frame
    }

    fn udp(sport: u16, dport: u16, spi: u32) -> Vec<u8> {
        let mut datagram = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
        datagram.extend([0; 4]);
        datagram.extend(spi.to_be_bytes());
        datagram.extend([0; 24]);
        datagram
    }

    #[test]
    fn ike_is_a_whole_message_between_its_ports() {
        let message = |marker: &[u8], version: u8, length: u32| {
            let mut octets = marker.to_vec();
            octets.extend([7; 16]);
            octets.extend([33, version, 34, 8, 0, 0, 0, 0]);
            octets.extend(length.to_be_bytes());
            octets.extend([1; 12]);
            octets
        };
        let datagram = |sport: u16, dport: u16, message: Vec<u8>| {
            let mut octets = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
            octets.extend([0; 4]);
            octets.extend(message);
            frame(0x800, 0, UDP, &octets)
        };
        let marker = [0; 4];
        for (what, frame, kind) in [
            ("on 500", datagram(500, 500, message(&[], 0x20, 40)), Kind::Ike),
            ("on 4500", datagram(4500, 4500, message(&marker, 0x20, 40)), Kind::Ike),
            ("longer than it says", datagram(500, 500, message(&[], 0x20, 39)), Kind::Other),
            ("IKEv1", datagram(500, 500, message(&[], 0x10, 40)), Kind::Other),
            ("to another port", datagram(500, 501, message(&[], 0x20, 40)), Kind::Other),
            ("anything on 500", datagram(500, 500, b"this is clear text".to_vec()), Kind::Other),
        ] {
            assert_eq!(classify(&frame), kind, "{what}");
        }
    }

    #[test]
    fn what_is_not_esp_does_not_pass_for_esp() {
        let good = udp(4500, 4500, 0x1001);
        for (what, frame, kind) in [
            ("ESP in UDP", frame(0x800, 0x4000, UDP, &good), Kind::Esp),
            ("ESP", frame(0x800, 0x4000, ESP, &[0, 0, 0x10, 1, 0, 0, 0, 1]), Kind::Esp),
            ("ARP", frame(0x806, 0, 0, &[]), Kind::Arp),
            ("IKE", frame(0x800, 0, UDP, &udp(4500, 4500, 0)), Kind::Other),
            ("DNS", frame(0x800, 0, UDP, &udp(4500, 53, 0x1001)), Kind::Other),
            ("to 4500 only", frame(0x800, 0, UDP, &udp(53, 4500, 0x1001)), Kind::Other),
            ("a fragment", frame(0x800, 0x2000, UDP, &good), Kind::Other),
            ("TCP", frame(0x800, 0, 6, &good), Kind::Other),
            ("IPv6", frame(0x86dd, 0, UDP, &good), Kind::Other),
        ] {
            assert_eq!(classify(&frame), kind, "{what}");
            let raw = frame[23] == ESP && kind == Kind::Esp;
            if !raw {
                assert_eq!(
                    keeps(NOT_ESP_IN_UDP, &frame),
                    kind == Kind::Other,
                    "{what}, filter for ESP in UDP"
                );
            }
            if kind != Kind::Esp || raw {
                assert_eq!(keeps(NOT_ESP, &frame), kind == Kind::Other, "{what}, filter for ESP");
            }
        }
        assert_eq!(classify(&[]), Kind::Other);
    }
}
