//! What the two hosts say to each other.

use super::scene::Scene;
use crate::command::Failure;
use crate::host::clock;
use crate::host::netns::Namespace;
use core::time::Duration;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// A sentence that nobody else says: what must not be seen on the wire.
#[derive(Clone)]
pub(super) struct Marker(Arc<Vec<u8>>);

impl Marker {
    pub(super) fn new() -> Result<Self, Failure> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(Failure::new)?;
        Ok(Self(Arc::new(format!("this is clear text {}\n", hex::encode(random)).into_bytes())))
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }

    /// The sentence again and again, at least this long, ending with the sentence.
    fn pages(&self, octets: usize) -> Vec<u8> {
        self.0.repeat(octets.div_ceil(self.0.len()))
    }
}

pub(super) struct Pings {
    pub(super) sent: u32,
    pub(super) answered: u32,
    pub(super) average_micros: f64,
}

/// Echo requests (RFC 792), one after the other.
pub(super) fn ping(from: &Namespace, to: Ipv4Addr, count: u16, marker: &Marker) -> Result<Pings, Failure> {
    let failed = |error| Failure::new(format_args!("ping: {error}"));
    let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
    let socket = from.run(open).and_then(|socket| socket).map_err(failed)?;
    let mut pings = Pings { sent: 0, answered: 0, average_micros: 0.0 };
    let mut total = Duration::ZERO;
    for number in 1..=count {
        let request = echo(number, marker.text());
        let start = clock::now();
        let late = start.after(Duration::from_secs(1));
        socket.send_to(&request, &SocketAddr::from((to, 0)).into()).map_err(failed)?;
        pings.sent += 1;
        let mut reply = vec![0; 2048];
        while clock::now() < late {
            socket.set_read_timeout(Some(Duration::from_millis(200))).map_err(failed)?;
            let Ok(length) = (&socket).read(&mut reply) else { continue };
            // Type 0; everything after the checksum as it was sent.
            if reply.get(20) == Some(&0) && reply.get(24..length) == request.get(4..) {
                pings.answered += 1;
                total += clock::now().since(start);
                break;
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    pings.average_micros = (total.as_secs_f64() * 1e7 / f64::from(pings.answered.max(1))).round() / 10.0;
    Ok(pings)
}

fn echo(number: u16, text: &[u8]) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0, 0x74, 0x75];
    packet.extend(number.to_be_bytes());
    packet.extend(text);
    let sum = packet.chunks(2).fold(0_u32, |sum, pair| {
        let word = [pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0)];
        sum.wrapping_add(u32::from(u16::from_be_bytes(word)))
    });
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16));
    let [_, _, high, low] = sum.to_be_bytes();
    packet.splice(2..4, [high, low]);
    packet
}

/// What a TCP connection carried.
pub(super) struct Carried {
    pub(super) octets: u64,
    pub(super) seconds: f64,
    pub(super) gigabits: f64,
    pub(super) intact: bool,
}

/// So many octets from host A to host B.
pub(super) fn letter(scene: &Scene, octets: usize, marker: &Marker) -> Result<Carried, Failure> {
    let pages = marker.pages(octets);
    let length = pages.len() as u64;
    let carried = carry(scene, marker, move |mut stream| stream.write_all(&pages), || ())?;
    Ok(Carried { intact: carried.intact && carried.octets == length, ..carried })
}

/// As many octets as go in so much time; half way through, `meanwhile` is called.
pub(super) fn stream(
    scene: &Scene,
    time: Duration,
    marker: &Marker,
    meanwhile: impl FnOnce(),
) -> Result<Carried, Failure> {
    let pages = marker.pages(256 << 10);
    let send = move |mut stream: &TcpStream| {
        let end = clock::now().after(time);
        while clock::now() < end {
            stream.write_all(&pages)?;
        }
        Ok(())
    };
    carry(scene, marker, send, || {
        thread::sleep(time / 2);
        meanwhile();
    })
}

fn carry(
    scene: &Scene,
    marker: &Marker,
    send: impl FnOnce(&TcpStream) -> io::Result<()> + Send,
    meanwhile: impl FnOnce(),
) -> Result<Carried, Failure> {
    let failed = |error: io::Error| Failure::new(format_args!("TCP between the hosts: {error}"));
    let to = SocketAddr::from(([10, 2, 0, 2], 7777));
    let listener =
        scene.host_b.run(|| TcpListener::bind(to)).and_then(|listener| listener).map_err(failed)?;
    let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(5));
    let out = scene.host_a.run(connect).and_then(|stream| stream).map_err(failed)?;
    // A tunnel that carries nothing must not keep anybody waiting.
    out.set_write_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    let (into, _) = listener.accept().map_err(failed)?;
    into.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = send(&out);
            let _ = out.shutdown(Shutdown::Write);
            sent
        });
        let receiver = scope.spawn(|| receive(into, marker));
        meanwhile();
        let broken = || Failure::new("a thread of the demo fell over");
        sender.join().map_err(|_| broken())?.map_err(failed)?;
        receiver.join().map_err(|_| broken())?.map_err(failed)
    })
}

/// Reads to the end and compares every octet with what was promised.
fn receive(mut stream: TcpStream, marker: &Marker) -> io::Result<Carried> {
    const READ: usize = 1 << 18;
    let period = marker.text().len();
    let expected = marker.pages(READ.saturating_add(period));
    let mut buffer = vec![0; READ];
    let start = clock::now();
    let (mut octets, mut at, mut intact) = (0_u64, 0_usize, true);
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        intact &= buffer.get(..length) == expected.get(at..at.saturating_add(length));
        at = at.saturating_add(length).checked_rem(period).unwrap_or(0);
        octets = octets.saturating_add(length as u64);
    }
    let seconds = clock::now().since(start).as_secs_f64();
    let gigabits = octets as f64 * 8.0 / seconds.max(1e-9) / 1e9;
    Ok(Carried { octets, seconds, gigabits, intact })
}
