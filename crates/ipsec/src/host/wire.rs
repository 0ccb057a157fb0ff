//! The sockets of one worker on the unprotected side, and how sealed runs leave by them.
//!
//! All are bound to the physical interface, so that what they send never meets the routes into `ipsecN`, whatever those are.
//! Nothing is encapsulated or decapsulated by the kernel here: UDP 4500 and protocol 50 arrive as they came. While a raw ESP
//! socket is open the kernel does not answer ESP with "protocol unreachable".

pub(super) mod beside;

use super::mmsg::{self, Destination, Instruction, MAX, Scratch};
use klips::{Encapsulation, Path, Route, Run};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The protocol number of ESP.
const ESP: i32 = 50;
/// The protocol number of AH.
const AH: i32 = 51;
/// Octets of socket buffer asked for in each direction: bursts of a few superpackets and scheduling gaps (dataplane §1.1).
const BUFFER: usize = 8 << 20;
/// Octets of socket buffer for ICMP errors.
const ERRORS: usize = 64 << 10;
/// The longest UDP payload over IPv4; over IPv6 it is a little more.
const DATAGRAM: usize = 65_507;

/// Why the sockets are not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Raw sockets and binding to an interface need privileges.
    Forbidden,
    /// Somebody has the UDP port on this interface.
    PortInUse(u16),
    /// There is no such interface (any more).
    NoDevice,
    /// The kernel refused something else.
    Os(Errno),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden => f.write_str(
                "no permission to open a raw ESP socket: CAP_NET_RAW and CAP_NET_ADMIN are needed in this network namespace \
                 (run as root, or give the container `--cap-add NET_RAW --cap-add NET_ADMIN`)",
            ),
            Self::PortInUse(port) => write!(
                f,
                "UDP port {port} is in use on this interface: another IPsec daemon runs here (`ss -ulpn sport = :{port}`)"
            ),
            Self::NoDevice => f.write_str("the interface has gone"),
            Self::Os(errno) => write!(f, "the kernel refused a socket: {errno}"),
        }
    }
}

impl std::error::Error for WireError {}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::PERM | Errno::ACCESS) => Self::Forbidden,
            Some(Errno::NODEV | Errno::NXIO) => Self::NoDevice,
            Some(errno) => Self::Os(errno),
            None => Self::Os(Errno::IO),
        }
    }
}

/// What a worker's sockets are for.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The physical interface.
    pub device: &'a str,
    /// Our UDP port.
    pub port: u16,
    /// How many workers there are.
    pub workers: usize,
    /// Ask for `UDP_GRO`.
    pub gro: bool,
    /// Use `UDP_SEGMENT`.
    pub gso: bool,
    /// Have the kernel steer by SPI.
    pub steer: bool,
    /// The UDP port is a key manager's: see `beside`.
    pub beside: bool,
}

/// How received packets find their worker. Any worker may open any packet: this is about speed and about the order of
/// what one peer sends, which all of these keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// There is one worker.
    Alone,
    /// By SPI.
    Spi,
    /// By the addresses and ports of the outer packet, as the kernel spreads a `SO_REUSEPORT` group by itself.
    Flow,
    /// The first worker receives all.
    First,
}

impl Steering {
    /// The word of `--json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Spi => "spi",
            Self::Flow => "flow",
            Self::First => "first",
        }
    }
}

/// One socket and what is known of it.
#[derive(Debug)]
pub struct Port {
    socket: Socket,
    dont_fragment: AtomicBool,
}

/// One worker's sockets. The IPv6 ones are missing where the kernel has no IPv6.
#[derive(Debug)]
pub struct Wire {
    port: u16,
    beside: bool,
    udp4: Port,
    udp6: Option<Port>,
    esp4: Port,
    esp6: Option<Port>,
    /// The first worker's alone.
    ah4: Option<Socket>,
    ah6: Option<Socket>,
    /// Likewise.
    icmp4: Option<Socket>,
    icmp6: Option<Socket>,
    clear4: Socket,
    clear6: Option<Socket>,
    gso: AtomicBool,
    gro: bool,
    steering_udp: Steering,
    steering_esp: Steering,
    /// Whether packets come to our raw sockets that are not another worker's.
    receives_esp: bool,
    /// Runs that were to be one segmented send and were not.
    pub unsegmented: AtomicU64,
}

/// Which of a worker's sockets to receive from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
    /// Raw ESP over IPv4; datagrams begin with the IP header.
    Esp4,
    /// Raw ESP over IPv6.
    Esp6,
    /// AH over IPv4; datagrams begin with the IP header.
    Ah4,
    /// AH over IPv6.
    Ah6,
    /// ICMP: packets of ours that were too big for a router; messages begin with the IP header.
    Icmp4,
    /// The same over IPv6.
    Icmp6,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Udp4, Self::Udp6, Self::Esp4, Self::Esp6, Self::Ah4, Self::Ah6, Self::Icmp4, Self::Icmp6];
}

impl Wire {
    /// Opens the sockets of all workers on one interface, and has the kernel steer by SPI: worker *k* gets SPIs that are
    /// *k* modulo the number of workers. Where the kernel refuses, see [`Steering`].
    pub fn open(plan: &Plan<'_>) -> Result<Vec<Self>, WireError> {
        let shared = plan.workers > 1;
        if shared && !plan.beside {
            // A socket that does not share its port finds out whether anybody else has it.
            drop(udp(Domain::IPV4, plan, false)?);
        }
        let mut wires = (0..plan.workers.max(1))
            .map(|k| Self::open_one(plan, shared, k))
            .collect::<Result<Vec<_>, _>>()?;
        // Every raw socket gets a copy of every packet, and AH is hardly ever what a peer sends most of.
        if let Some(first) = wires.first_mut() {
            first.ah4 = Some(raw(Domain::IPV4, plan.device, AH)?.socket);
            first.ah6 = if_supported(raw(Domain::IPV6, plan.device, AH))?.map(|port| port.socket);
            first.icmp4 = Some(icmp(Domain::IPV4, plan.device)?);
            first.icmp6 = if_supported(icmp(Domain::IPV6, plan.device))?;
        }
        if shared {
            let steered = |done: &dyn Fn() -> io::Result<()>| plan.steer && done().is_ok();
            let first = wires.first().into_iter();
            // Their filters are steering.
            let udp = if plan.beside
                || steered(&|| first.clone().try_for_each(|wire| wire.steer_udp(plan.workers)))
            {
                Steering::Spi
            } else {
                Steering::Flow
            };
            let each = || wires.iter().enumerate();
            let esp = if steered(&|| each().try_for_each(|(k, wire)| wire.steer_esp(plan.workers, k))) {
                Steering::Spi
            } else {
                Steering::First
            };
            for (index, wire) in wires.iter_mut().enumerate() {
                (wire.steering_udp, wire.steering_esp) = (udp, esp);
                if esp == Steering::First {
                    wire.leave_esp_to_the_first(index)?;
                }
            }
        }
        Ok(wires)
    }

    fn open_one(plan: &Plan<'_>, shared: bool, index: usize) -> Result<Self, WireError> {
        let udp = |domain| match plan.beside {
            true => beside::open(domain, plan, index),
            false => udp(domain, plan, shared),
        };
        let udp4 = udp(Domain::IPV4)?;
        Ok(Self {
            port: plan.port,
            beside: plan.beside,
            // A kernel without the option would send the whole run as one datagram.
            gso: AtomicBool::new(
                plan.gso
                    && !plan.beside
                    && mmsg::set(&udp4.socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok(),
            ),
            // Older kernels have none; every datagram then comes alone.
            gro: plan.gro && !plan.beside && mmsg::set(&udp4.socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok(),
            udp4,
            udp6: if_supported(udp(Domain::IPV6))?,
            esp4: raw(Domain::IPV4, plan.device, ESP)?,
            esp6: if_supported(raw(Domain::IPV6, plan.device, ESP))?,
            ah4: None,
            ah6: None,
            icmp4: None,
            icmp6: None,
            clear4: clear(Domain::IPV4, plan.device)?,
            clear6: if_supported(clear(Domain::IPV6, plan.device))?,
            steering_udp: Steering::Alone,
            steering_esp: Steering::Alone,
            receives_esp: true,
            unsegmented: AtomicU64::new(0),
        })
    }

    /// One program serves a whole `SO_REUSEPORT` group.
    fn steer_udp(&self, workers: usize) -> io::Result<()> {
        let program = [load(0), modulo(u32::try_from(workers).unwrap_or(1)), RETURN_A];
        [Some(&self.udp4), self.udp6.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|port| mmsg::steer(&port.socket, &program))
    }

    /// Every raw socket gets a copy of every packet: one filter in all lets it pass.
    fn steer_esp(&self, workers: usize, index: usize) -> io::Result<()> {
        let (workers, index) = (u32::try_from(workers).unwrap_or(1), u32::try_from(index).unwrap_or(0));
        // The filter sees IPv4 packets from their header on, IPv6 packets from after it.
        let spi4: &[_] = &[HEADER_TO_X, LOAD_AT_X];
        for (port, spi) in [(Some(&self.esp4), spi4), (self.esp6.as_ref(), &[load(0)])] {
            if let Some(port) = port {
                let program = [spi, &[modulo(workers), skip_unless(index, 1), KEEP, DROP]].concat();
                mmsg::filter(&port.socket, &program)?;
            }
        }
        Ok(())
    }

    /// Without filters all raw sockets get all packets, of which one copy is one too many.
    fn leave_esp_to_the_first(&mut self, index: usize) -> io::Result<()> {
        self.receives_esp = index == 0;
        for port in [Some(&self.esp4), self.esp6.as_ref()].into_iter().flatten() {
            // Instead of the filter that may be there. Where none can be set there is none.
            let _ = mmsg::filter(&port.socket, &[if self.receives_esp { KEEP } else { DROP }]);
            if !self.receives_esp {
                // What nobody reads should take no memory.
                port.socket.set_recv_buffer_size(0)?;
            }
        }
        Ok(())
    }

    /// Binds all sockets to the interface that has the name now: it went away and came back as another.
    pub fn rebind(&self, device: &str) -> io::Result<()> {
        let ports = [Some(&self.udp4), self.udp6.as_ref(), Some(&self.esp4), self.esp6.as_ref()];
        let sockets = ports.into_iter().flatten().map(|port| &port.socket);
        let few = [&self.clear6, &self.ah4, &self.ah6, &self.icmp4, &self.icmp6];
        for socket in sockets.chain([&self.clear4]).chain(few.into_iter().flatten()) {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        Ok(())
    }

    /// The socket behind `source`, if there is one to receive from.
    pub fn socket(&self, source: Source) -> Option<&Socket> {
        match source {
            Source::Udp4 => Some(&self.udp4),
            Source::Udp6 => self.udp6.as_ref(),
            Source::Esp4 => self.receives_esp.then_some(&self.esp4),
            Source::Esp6 => self.esp6.as_ref().filter(|_| self.receives_esp),
            Source::Ah4 => return self.ah4.as_ref(),
            Source::Ah6 => return self.ah6.as_ref(),
            Source::Icmp4 => return self.icmp4.as_ref(),
            Source::Icmp6 => return self.icmp6.as_ref(),
        }
        .map(|port| &port.socket)
    }

    /// Empties the error queue behind `source`: the kernel has drawn its conclusions, and a queue that is not read keeps the
    /// socket ready for ever. Bounded, so that a flood of ICMP does not keep a worker from packets.
    pub fn forget_errors(&self, source: Source) {
        let Some(socket) = self.socket(source) else { return };
        let mut nothing = [];
        for _ in 0..MAX {
            if socket.recv_with_flags(&mut nothing, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT).is_err() {
                return;
            }
        }
    }

    /// Our UDP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether the UDP port is a key manager's, and datagrams come with their UDP headers.
    pub const fn is_beside(&self) -> bool {
        self.beside
    }

    /// Whether runs still leave as one segmented send.
    pub fn segments(&self) -> bool {
        self.gso.load(Relaxed)
    }

    /// Whether datagrams may come merged.
    pub const fn merges(&self) -> bool {
        self.gro
    }

    /// How UDP and raw ESP packets find their worker.
    pub const fn steering(&self) -> [Steering; 2] {
        [self.steering_udp, self.steering_esp]
    }

    /// Sends a run; returns how many of its packets could not be sent.
    pub fn send(&self, run: &Run<'_>, scratch: &mut Scratch) -> usize {
        match run.route {
            Route::Esp(path) => self.send_sealed(&path, run, scratch),
            // Headers and all, and nothing but the route looked up by the kernel.
            Route::Whole(dst) | Route::Clear(dst) => {
                let socket = if dst.is_ipv4() { Some(&self.clear4) } else { self.clear6.as_ref() };
                let to = Destination { to: SocketAddr::new(dst, 0), from: None, tos: None };
                socket.map_or(packets(run), |socket| each(socket, run, &to, scratch))
            }
            Route::Back => packets(run),
        }
    }

    fn send_sealed(&self, path: &Path, run: &Run<'_>, scratch: &mut Scratch) -> usize {
        let v4 = path.dst.is_ipv4();
        let (port, remote) = match path.encapsulation {
            Some(udp) if udp.local != self.port => return packets(run),
            Some(udp) => (if v4 { Some(&self.udp4) } else { self.udp6.as_ref() }, udp.remote),
            None => (if v4 { Some(&self.esp4) } else { self.esp6.as_ref() }, 0),
        };
        let Some(port) = port else { return packets(run) };
        if port.set_dont_fragment(path.dont_fragment, v4).is_err() {
            return packets(run);
        }
        let mut to =
            Destination { to: SocketAddr::new(path.dst, remote), from: Some(path.src), tos: Some(path.tos) };
        if let Some(udp) = path.encapsulation.filter(|_| self.beside) {
            let (octets, stride) = beside::join(run, udp, (path.src, path.dst));
            to.to.set_port(0);
            return each(&port.socket, &Run { octets: &octets, stride, ..*run }, &to, scratch);
        }
        if path.encapsulation.is_some() && run.octets.len() > run.stride && self.gso.load(Relaxed) {
            self.segmented(port, run, &to, scratch)
        } else {
            each(&port.socket, run, &to, scratch)
        }
    }

    /// As few sends as the limits of `UDP_SEGMENT` allow, of even size.
    fn segmented(&self, port: &Port, run: &Run<'_>, to: &Destination, scratch: &mut Scratch) -> usize {
        let Ok(stride) = u16::try_from(run.stride) else { return each(&port.socket, run, to, scratch) };
        let most = (DATAGRAM / run.stride.max(1)).clamp(1, MAX);
        let count = packets(run);
        let sends = count.div_ceil(most).max(1);
        let share = count.div_ceil(sends).max(1).saturating_mul(run.stride);
        let mut lost = 0;
        for part in run.octets.chunks(share) {
            let part = Run { octets: part, ..*run };
            match retry(&port.socket, || scratch.send(&port.socket, part.octets, to, Some(stride))) {
                Ok(()) => continue,
                Err(error) => match Unsegmented::why(&error) {
                    Some(Unsegmented::Never) => self.gso.store(false, Relaxed),
                    Some(Unsegmented::ThisTime) => {}
                    None => {
                        lost += packets(&part);
                        continue;
                    }
                },
            }
            self.unsegmented.fetch_add(1, Relaxed);
            lost += each(&port.socket, &part, to, scratch);
        }
        lost
    }

    /// Sends one datagram from our UDP port: an IKE message behind its marker, or a keepalive (RFC 3948 §2.2, §2.3).
    pub fn send_udp(&self, from: Option<IpAddr>, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let port = if to.is_ipv4() { Some(&self.udp4) } else { self.udp6.as_ref() };
        let port = port.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut to_peer = Destination { to, from, tos: None };
        let mut whole = Vec::new();
        if self.beside {
            let from = from.ok_or(io::ErrorKind::AddrNotAvailable)?;
            let udp = Encapsulation { local: self.port, remote: to.port() };
            whole.extend_from_slice(&beside::header(payload, udp, (from, to.ip())));
            whole.extend_from_slice(payload);
            to_peer.to.set_port(0);
        }
        let payload = if self.beside { &whole } else { payload };
        let send = || Scratch::default().send(&port.socket, payload, &to_peer, None);
        match send() {
            // The worker whose socket this is wants its packets whole; a message that is too long for that goes in fragments.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                port.set_dont_fragment(false, to.is_ipv4())?;
                send()
            }
            done => done,
        }
    }
}

/// A run that the kernel did not cut up, but may send packet by packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unsegmented {
    /// It will not cut up the next one either: no checksum offload on the way out, or no such option.
    Never,
    /// These segments are too long for the path, each for itself: the kernel fragments them one by one.
    ThisTime,
}

impl Unsegmented {
    fn why(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT => Some(Self::Never),
            libc::EINVAL | libc::EMSGSIZE => Some(Self::ThisTime),
            _ => None,
        }
    }
}

impl Port {
    const fn new(socket: Socket) -> Self {
        Self { socket, dont_fragment: AtomicBool::new(false) }
    }

    /// The option is one of the socket; it hardly ever changes, so remembering it saves the call.
    fn set_dont_fragment(&self, on: bool, v4: bool) -> io::Result<()> {
        if self.dont_fragment.load(Relaxed) == on {
            return Ok(());
        }
        discover_mtu(&self.socket, v4, on)?;
        self.dont_fragment.store(on, Relaxed);
        Ok(())
    }
}

fn packets(run: &Run<'_>) -> usize {
    run.octets.len().div_ceil(run.stride.max(1))
}

fn each(socket: &Socket, run: &Run<'_>, to: &Destination, scratch: &mut Scratch) -> usize {
    let stride = run.stride.max(1);
    let mut left = run.octets;
    let mut lost = 0;
    while !left.is_empty() {
        let sent = retry(socket, || scratch.send_each(socket, left, stride, to)).unwrap_or_else(|_| {
            // The error is about the first packet; the others may still go.
            lost += 1;
            1
        });
        left = left.get(sent.max(1).saturating_mul(stride)..).unwrap_or_default();
    }
    lost
}

/// Waits a moment for room where there is none, a few times; the device behind us then holds back the host.
fn retry<T>(socket: &Socket, mut send: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const MILLISECOND: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    let mut tries = 0;
    loop {
        let error = match send() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        tries += 1;
        match error.raw_os_error() {
            // An ICMP error about an earlier packet; this one was not sent.
            Some(libc::EINTR | libc::ECONNREFUSED) if tries < 8 => {}
            Some(libc::EACCES | libc::EPROTO | libc::EHOSTUNREACH | libc::ENETUNREACH) if tries < 2 => {}
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) if tries < 8 => {
                let mut ready = [PollFd::new(socket, PollFlags::OUT)];
                let _ = poll(&mut ready, Some(&MILLISECOND));
            }
            _ => return Err(error),
        }
    }
}

fn if_supported<T>(opened: Result<T, WireError>) -> Result<Option<T>, WireError> {
    match opened {
        Ok(socket) => Ok(Some(socket)),
        Err(WireError::Os(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn bare(domain: Domain, kind: Type, protocol: Option<i32>, device: &str) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), protocol.map(Protocol::from))?;
    socket.bind_device(Some(device.as_bytes()))?;
    // The FORCE options pass the limits of the host, and need CAP_NET_ADMIN.
    let size = i32::try_from(BUFFER).unwrap_or(i32::MAX);
    if mmsg::set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    if mmsg::set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size).is_err() {
        socket.set_send_buffer_size(BUFFER)?;
    }
    Ok(socket)
}

fn udp(domain: Domain, plan: &Plan<'_>, shared: bool) -> Result<Port, WireError> {
    let socket = bare(domain, Type::DGRAM, None, plan.device)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    let any: IpAddr = if domain == Domain::IPV4 {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        socket.set_only_v6(true)?;
        // RFC 3948 §2.1 has peers send zero UDP checksums; RFC 6935 allows that over IPv6 where asked for.
        mmsg::set(&socket, libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, 1)?;
        Ipv6Addr::UNSPECIFIED.into()
    };
    tell_addresses(&socket, domain)?;
    discover_mtu(&socket, domain == Domain::IPV4, false)?;
    if plan.gro {
        // Whether it is there is known from the IPv4 socket.
        let _ = mmsg::set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    socket.bind(&SocketAddr::new(any, plan.port).into()).map_err(|error| match error.raw_os_error() {
        Some(libc::EADDRINUSE) => WireError::PortInUse(plan.port),
        _ => error.into(),
    })?;
    Ok(Port::new(socket))
}

fn raw(domain: Domain, device: &str, protocol: i32) -> Result<Port, WireError> {
    let socket = bare(domain, Type::RAW, Some(protocol), device)?;
    // Over IPv4 the packet brings its header along, which says it all.
    if domain == Domain::IPV6 {
        tell_addresses(&socket, domain)?;
        // To a raw IPv6 socket that asks for no errors the kernel does not apply a Packet Too Big, so a path narrower than
        // the link would never be learned. What it queues for us is thrown away by `Wire::forget_errors`.
        mmsg::set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
    }
    discover_mtu(&socket, domain == Domain::IPV4, false)?;
    Ok(Port::new(socket))
}

/// For what routers say about packets of ours that were too big, and nothing else: the filter drops it before it is queued. The
/// queue is short, so that a flood costs little.
fn icmp(domain: Domain, device: &str) -> Result<Socket, WireError> {
    let protocol = if domain == Domain::IPV4 { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
    let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(protocol)))?;
    let too_big: &[Instruction] = if domain == Domain::IPV4 {
        // Destination unreachable: fragmentation needed and DF set.
        &[HEADER_TO_X, LOAD_TWO_AT_X, skip_unless(0x0304, 1), KEEP, DROP]
    } else {
        &[LOAD_OCTET, skip_unless(2, 1), KEEP, DROP]
    };
    mmsg::filter(&socket, too_big)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_recv_buffer_size(ERRORS)?;
    Ok(socket)
}

/// For whole packets (`%pass`). `IPPROTO_RAW` means that we write the IP header, and that nothing is received.
fn clear(domain: Domain, device: &str) -> Result<Socket, WireError> {
    let socket = bare(domain, Type::RAW, Some(libc::IPPROTO_RAW), device)?;
    if domain == Domain::IPV6 {
        mmsg::set(&socket, libc::IPPROTO_IPV6, libc::IPV6_HDRINCL, 1)?;
    }
    Ok(socket)
}

fn tell_addresses(socket: &Socket, domain: Domain) -> io::Result<()> {
    if domain == Domain::IPV4 {
        mmsg::set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        mmsg::set(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)
    } else {
        mmsg::set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        mmsg::set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)
    }
}

/// With `dont_fragment`, DF is set and the kernel refuses what the link cannot carry; without, it fragments. Over IPv4 it goes
/// by the link alone: what it has heard of the path anybody may have said who knows our addresses, and what is true of that
/// the engine has heard, too. Over IPv6 it must know the path, for no router fragments.
fn discover_mtu(socket: &Socket, v4: bool, dont_fragment: bool) -> io::Result<()> {
    if v4 {
        let value = if dont_fragment { libc::IP_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_OMIT };
        mmsg::set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
    } else {
        let value = if dont_fragment { libc::IPV6_PMTUDISC_DO } else { libc::IPV6_PMTUDISC_DONT };
        mmsg::set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, value)
    }
}

// Classic BPF (bpf(4) of the BSDs), as far as steering needs it. Words are loaded in network order.
const fn load(at: u32) -> Instruction {
    Instruction { code: 0x20, jt: 0, jf: 0, k: at }
}
/// X = the length of the IPv4 header at 0.
const HEADER_TO_X: Instruction = Instruction { code: 0xb1, jt: 0, jf: 0, k: 0 };
const LOAD_AT_X: Instruction = Instruction { code: 0x40, jt: 0, jf: 0, k: 0 };
const LOAD_TWO_AT_X: Instruction = Instruction { code: 0x48, jt: 0, jf: 0, k: 0 };
const LOAD_OCTET: Instruction = Instruction { code: 0x30, jt: 0, jf: 0, k: 0 };
const fn modulo(n: u32) -> Instruction {
    Instruction { code: 0x94, jt: 0, jf: 0, k: n }
}
const fn skip_unless(equal: u32, skip: u8) -> Instruction {
    Instruction { code: 0x15, jt: 0, jf: skip, k: equal }
}
const RETURN_A: Instruction = Instruction { code: 0x16, jt: 0, jf: 0, k: 0 };
const KEEP: Instruction = Instruction { code: 0x06, jt: 0, jf: 0, k: u32::MAX };
const DROP: Instruction = Instruction { code: 0x06, jt: 0, jf: 0, k: 0 };

#[cfg(test)]
mod tests;
