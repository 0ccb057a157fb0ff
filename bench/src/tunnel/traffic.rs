//! What is sent: TCP streams, UDP at a rate, echo requests. All by threads of this process inside the namespaces.

use super::place::Side;
use ipsec::host::clock;
use ipsec::host::mmsg::{self, Destination, MAX, Scratch, Slots};
use nix::sys::socket::{setsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Octets in one write of a TCP sender.
const WRITE: usize = 128 << 10;

/// Bulk TCP: octets and seconds of the measured window, which calls `window` at its beginning and its end.
pub(super) fn tcp(
    from: &Side,
    to: &Side,
    streams: usize,
    length: Duration,
    mut window: impl FnMut(),
) -> io::Result<(f64, f64)> {
    let listener = to.namespace.run(|| TcpListener::bind((to.inner, 0)))??;
    let address = listener.local_addr()?;
    let pairs = (0..streams)
        .map(|_| {
            let stream =
                from.namespace.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(3)))??;
            Ok((stream, listener.accept()?.0))
        })
        .collect::<io::Result<Vec<_>>>()?;
    let (stop, octets) = (&AtomicBool::new(false), &AtomicU64::new(0));
    let figures = thread::scope(|scope| {
        for (sender, receiver) in &pairs {
            scope.spawn(move || {
                let (mut sender, page) = (sender, vec![0x5a; WRITE]);
                while !stop.load(Relaxed) && sender.write_all(&page).is_ok() {}
            });
            scope.spawn(move || {
                let (mut receiver, mut page) = (receiver, vec![0; WRITE]);
                while let Ok(len @ 1..) = receiver.read(&mut page) {
                    octets.fetch_add(len as u64, Relaxed);
                }
            });
        }
        // Slow start is not what is measured.
        thread::sleep(Duration::from_millis(300));
        window();
        let (start, before) = (clock::now(), octets.load(Relaxed));
        thread::sleep(length);
        let (after, seconds) = (octets.load(Relaxed), clock::now().since(start).as_secs_f64());
        window();
        stop.store(true, Relaxed);
        for (sender, receiver) in &pairs {
            let _ = (sender.shutdown(Shutdown::Both), receiver.shutdown(Shutdown::Both));
        }
        ((after - before) as f64, seconds)
    });
    Ok(figures)
}

/// What became of the datagrams of one trial.
struct Trial {
    sent: u64,
    received: u64,
    /// Per second
    rate: f64,
}

impl Trial {
    fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }
}

fn udp_socket(side: &Side) -> io::Result<UdpSocket> {
    let socket = side.namespace.run(|| UdpSocket::bind((side.inner, 0)))??;
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
    setsockopt(&socket, sockopt::SndBufForce, &(8 << 20))?;
    Ok(socket)
}

fn readable(socket: &UdpSocket, wait: Duration) -> bool {
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit)).is_ok_and(|ready| ready > 0)
}

/// Counts what arrives until the sender is done and nothing more comes.
fn count(socket: &UdpSocket, done: &AtomicBool) -> u64 {
    const STRIDE: usize = 2048;
    let (mut slots, mut buffer, mut received) = (Slots::default(), vec![0; STRIDE * MAX], 0);
    loop {
        match slots.receive(socket, &mut buffer, STRIDE, MAX) {
            Ok(number) => received += number as u64,
            Err(_) => {
                let over = done.load(Relaxed);
                if !readable(socket, Duration::from_millis(100)) && over {
                    return received;
                }
            }
        }
    }
}

/// Sends `rate` datagrams a second, or as many as there can be.
fn pour(socket: &UdpSocket, to: SocketAddr, size: usize, rate: Option<f64>, length: Duration) -> u64 {
    let _ = nix::sys::prctl::set_timerslack(1);
    let octets = vec![0x5a; size * MAX];
    let (mut scratch, destination) = (Scratch::default(), Destination { to, from: None, tos: None });
    let (start, mut sent) = (clock::now(), 0_u64);
    loop {
        let elapsed = clock::now().since(start);
        if elapsed >= length {
            return sent;
        }
        let due = rate.map_or(sent + 32, |rate| (elapsed.as_secs_f64() * rate) as u64 + 1);
        let burst = due.saturating_sub(sent).min(32) as usize;
        if burst == 0 {
            thread::sleep(Duration::from_micros(50));
            continue;
        }
        // A full queue of the sender's own host is no loss of the tunnel.
        sent += scratch.send_each(socket, &octets[..burst * size], size, &destination).unwrap_or(0) as u64;
    }
}

fn trial(from: &Side, to: &Side, size: usize, rate: Option<f64>, length: Duration) -> io::Result<Trial> {
    let (sender, receiver) = (udp_socket(from)?, udp_socket(to)?);
    let address = receiver.local_addr()?;
    let done = AtomicBool::new(false);
    let (sent, received) = thread::scope(|scope| {
        let counter = scope.spawn(|| count(&receiver, &done));
        let sent = scope.spawn(|| pour(&sender, address, size, rate, length)).join();
        done.store(true, Relaxed);
        (sent.unwrap_or(0), counter.join().unwrap_or(0))
    });
    Ok(Trial { sent, received, rate: received as f64 / length.as_secs_f64() })
}

/// The highest rate of datagrams with `size` octets of payload at which no more than one in a thousand is lost.
pub(super) fn udp(from: &Side, to: &Side, size: usize, steps: u32, length: Duration) -> io::Result<f64> {
    let flood = trial(from, to, size, None, length)?;
    let (mut low, mut high) = ((flood.rate * 0.2).max(500.0), (flood.rate * 1.6).max(5000.0));
    let mut best = 0.0;
    for _ in 0..steps {
        let rate = (low * high).sqrt();
        let mut good = None;
        // The second chance is the machine's: a neighbour that took the core for a moment is not the tunnel's limit.
        for _ in 0..2 {
            let trial = trial(from, to, size, Some(rate), length)?;
            if trial.loss() <= 0.001 && trial.sent as f64 >= 0.97 * rate * length.as_secs_f64() {
                good = Some(trial.rate);
                break;
            }
        }
        match good {
            Some(reached) => (low, best) = (rate, reached),
            None => high = rate,
        }
        if high / low < 1.04 {
            break;
        }
    }
    Ok(best)
}

/// Round trips of echo requests in microseconds, sorted; the kernel of the other end answers them.
pub(super) fn ping(from: &Side, to: &Side, requests: u16) -> io::Result<Vec<f64>> {
    from.namespace.run(|| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::ICMPV4))?;
        socket.connect(&SocketAddr::from((to.inner, 0)).into())?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut trips = Vec::new();
        for number in 0..requests {
            let start = clock::now();
            if socket.send(&echo(number)).is_ok() && answered(&socket, number) {
                trips.push(clock::now().since(start).as_secs_f64() * 1e6);
            }
            thread::sleep(Duration::from_millis(5));
        }
        trips.sort_by(f64::total_cmp);
        Ok(trips)
    })?
}

const IDENTIFIER: u16 = 0x7a1b;

fn echo(number: u16) -> [u8; 64] {
    let mut octets = [0; 64];
    octets[0] = 8;
    octets[4..6].copy_from_slice(&IDENTIFIER.to_be_bytes());
    octets[6..8].copy_from_slice(&number.to_be_bytes());
    let sum: u32 = octets.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    octets[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    octets
}

fn answered(socket: &socket2::Socket, number: u16) -> bool {
    let mut octets = [0; 256];
    let mut reader = socket;
    while let Ok(len) = reader.read(&mut octets) {
        // A raw socket hears the IP header too, and every answer to this host.
        let header = usize::from(octets[0] & 0x0f) * 4;
        let wanted = [IDENTIFIER.to_be_bytes(), number.to_be_bytes()].concat();
        if len >= header + 8 && octets[header] == 0 && octets[header + 4..header + 8] == wanted[..] {
            return true;
        }
    }
    false
}

/// Whether anything answers at the other end by now.
pub(super) fn reaches(from: &Side, to: &Side) -> bool {
    matches!(ping(from, to, 1), Ok(trips) if !trips.is_empty())
}

/// Both reading and sending sockets of a forwarder want large buffers.
pub(super) fn large_buffers(socket: &UdpSocket) -> io::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &(4 << 20))?;
    setsockopt(socket, sockopt::SndBufForce, &(4 << 20))?;
    mmsg::set(socket, nix::libc::SOL_UDP, nix::libc::UDP_GRO, 1)
}
