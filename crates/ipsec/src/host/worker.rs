//! Workers: one TUN queue, its sockets, its buffers, one engine for each direction; run to completion.
//!
//! A worker reads a batch, has it transformed and sends it, and only then looks again. Nothing is handed to another
//! thread, nothing is allocated, locked or timed per packet. The two halves share nothing but descriptors, so that
//! [`Shape::Split`] can give each its own thread. Nothing is ever held back to make a batch larger.

mod end;

use super::clock;
use super::mmsg::{MAX, Message, Scratch, Slots};
use super::tun::{Offloads, Queue};
use super::wire::{Source, Wire, beside};
use ipsec_core::Time;
use klips::{
    Arrival, Carrier, Counters, Discard, Gso, Inbound, Link, Opened, Outbound, Plane, Route, Run, Sealed,
    Vnet, Write,
};
use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// Reads from the device before what they became is sent.
const READS: usize = 64;
/// Octets of sealed packets before they are sent: the longest superpacket, single packets before it, and a little more, so
/// that what has been sealed is sent while it is in the cache.
const SEALED: usize = Sealed::SUPERPACKET + 96 * 1024;
/// One receive slot: the longest datagram, and an odd number of cache lines so that the slots do not fall on each other in
/// the cache. Pages that are never used are never there.
const SLOT: usize = 65_536 + 25 * 64;
/// Slots for datagrams that `UDP_GRO` has put together: what fits a second-level cache.
const LARGE: usize = 4;
/// Packets opened before they are written to the device.
const OPENED: usize = 1024;
/// Pieces of one write; the engine merges no more, and the kernel allows 1024.
const PIECES: usize = 68;

/// How workers are laid out on threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One thread for each worker.
    Together,
    /// Two threads for each worker: one sends, one receives.
    Split,
}

/// Takes an IKE message that came to the UDP port; false if nobody is there to take it.
pub type IkeSink = Arc<dyn Fn(&Arrival, &[u8]) -> bool + Send + Sync>;

/// What all workers of one interface share.
pub struct Shared {
    /// The engines' meeting place.
    pub plane: Arc<Plane>,
    /// Signalled when control has something to act on.
    pub wake: Arc<OwnedFd>,
    /// Where IKE messages go.
    pub ike: IkeSink,
    /// The link as it is now.
    pub link: LinkCell,
    /// What the device agreed to.
    pub offloads: Offloads,
    /// Merge received TCP segments.
    pub merge_tcp: bool,
    /// Merge received UDP datagrams.
    pub merge_udp: bool,
    stop: OwnedFd,
    returned: OwnedFd,
}

impl Shared {
    /// Everything is on; `link` can change later.
    pub fn new(plane: Arc<Plane>, wake: Arc<OwnedFd>, ike: IkeSink, link: Link) -> io::Result<Self> {
        Ok(Self {
            plane,
            wake,
            ike,
            link: LinkCell::new(link),
            offloads: Offloads::ALL,
            merge_tcp: true,
            merge_udp: true,
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            returned: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }
}

impl Shared {
    /// Packets that were kept have come back to the engines ([`Plane::take_returned`]).
    pub fn tell_returned(&self) {
        signal(&self.returned);
    }
}

/// A [`Link`] that workers look at once per batch, at the price of one load.
#[derive(Debug)]
pub struct LinkCell {
    version: AtomicU64,
    link: Mutex<Link>,
}

impl LinkCell {
    fn new(link: Link) -> Self {
        Self { version: AtomicU64::new(0), link: Mutex::new(link) }
    }

    /// The link now.
    pub fn load(&self) -> Link {
        *self.link.lock()
    }

    /// Changes the link.
    pub fn store(&self, link: Link) {
        *self.link.lock() = link;
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// What a worker did; written by it alone, read by anyone.
#[derive(Debug, Default)]
pub struct Tally {
    /// Packets and superpackets read from the device.
    pub reads: AtomicU64,
    /// Packets and superpackets written to the device.
    pub writes: AtomicU64,
    /// Datagrams received, those that `UDP_GRO` put together counted as one.
    pub datagrams: AtomicU64,
    /// Calls that received them.
    pub receives: AtomicU64,
    /// Merged TCP segments the device refused (some kernels do); they are merged no more.
    pub refused_tcp: AtomicU64,
    /// Merged UDP datagrams the device refused; likewise.
    pub refused_udp: AtomicU64,
}

/// The workers of one interface, running until this is dropped.
pub struct Workers {
    shared: Arc<Shared>,
    /// What each does.
    pub tallies: Vec<Arc<Tally>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts a worker for each queue and its wire.
    pub fn start(
        name: &str,
        shared: &Arc<Shared>,
        queues: Vec<Queue>,
        wires: &[Arc<Wire>],
        shape: Shape,
    ) -> io::Result<Self> {
        let mut workers = Self { shared: Arc::clone(shared), tallies: Vec::new(), threads: Vec::new() };
        for (index, (queue, wire)) in queues.into_iter().zip(wires).enumerate() {
            let tally = Arc::new(Tally::default());
            let queue = Arc::new(queue);
            let transmit = Transmit::new(shared, &queue, wire, &tally);
            let receive = Receive::new(shared, &queue, wire, &tally);
            workers.tallies.push(tally);
            let halves = match shape {
                Shape::Together => vec![(Some(transmit), Some(receive), "")],
                Shape::Split => vec![(Some(transmit), None, "tx"), (None, Some(receive), "rx")],
            };
            for (transmit, receive, suffix) in halves {
                let turns = Loop::new(Arc::clone(shared), transmit, receive)?;
                let thread = thread::Builder::new().name(format!("{name}.{index}{suffix}"));
                workers.threads.push(thread.spawn(move || end::or_end(|| turns.run()))?);
            }
        }
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        signal(&self.shared.stop);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Signals an eventfd. It can only fail where it is signalled already.
pub fn signal(eventfd: impl AsFd) {
    let _ = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
}

/// One thread: waits, and gives each half its turn.
struct Loop {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    transmit: Option<Transmit>,
    receive: Option<Receive>,
}

const STOP: u64 = 0;
const DEVICE: u64 = 1;
const RETURNED: u64 = 2;
const SOURCES: u64 = 3;

impl Loop {
    fn new(shared: Arc<Shared>, transmit: Option<Transmit>, receive: Option<Receive>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let add = |fd: &dyn AsFdDyn, data| {
            epoll::add(&epoll, fd.fd(), epoll::EventData::new_u64(data), epoll::EventFlags::IN)
        };
        add(&shared.stop, STOP)?;
        if let Some(transmit) = &transmit {
            add(&*transmit.queue, DEVICE)?;
        }
        // All workers are to see it, so none reads it: each is told of every change, once.
        let changes = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &shared.returned, epoll::EventData::new_u64(RETURNED), changes)?;
        if let Some(receive) = &receive {
            for (source, data) in Source::ALL.into_iter().zip(SOURCES..) {
                if let Some(socket) = receive.wire.socket(source) {
                    add(socket, data)?;
                }
            }
        }
        Ok(Self { shared, epoll, transmit, receive })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(8);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let now = clock::now();
            for event in &events {
                match { event.data }.u64() {
                    STOP => return Ok(()),
                    DEVICE => self.device(now),
                    RETURNED => self.returned(now),
                    source => {
                        if { event.flags }.contains(epoll::EventFlags::ERR) {
                            self.errors(source);
                        }
                        self.source(source, now);
                    }
                }
            }
            if self.shared.plane.take_wake() {
                signal(&*self.shared.wake);
            }
        }
    }

    fn device(&mut self, now: Time) {
        let Some(transmit) = &mut self.transmit else { return };
        if transmit.turn(now).is_err() {
            // Somebody removed the device under us. Its descriptor would be ready for ever.
            let _ = epoll::delete(&self.epoll, &*transmit.queue);
        }
    }

    fn returned(&mut self, now: Time) {
        if let Some(receive) = &mut self.receive {
            receive.engine.forget_dead();
            receive.matured(now);
        }
        if let Some(transmit) = &mut self.transmit {
            let mut more = true;
            while more {
                more = transmit.engine.returned(now, &mut transmit.sealed);
                transmit.send();
            }
        }
    }

    fn source(&mut self, data: u64, now: Time) {
        if let (Some(receive), Some(source)) = (&mut self.receive, source(data)) {
            receive.turn(source, now);
        }
    }

    fn errors(&self, data: u64) {
        if let (Some(receive), Some(source)) = (&self.receive, source(data)) {
            receive.wire.forget_errors(source);
        }
    }
}

/// The socket that an event is about.
fn source(data: u64) -> Option<Source> {
    let index = usize::try_from(data.checked_sub(SOURCES)?).ok()?;
    Source::ALL.get(index).copied()
}

/// `AsFd` as an object.
trait AsFdDyn {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl<T: AsFd> AsFdDyn for T {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}

/// The outbound half: device → engine → wire.
struct Transmit {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    wire: Arc<Wire>,
    engine: Outbound,
    counters: Arc<Counters>,
    tally: Arc<Tally>,
    link: u64,
    buffer: Box<[u8]>,
    sealed: Sealed,
    scratch: Scratch,
}

impl Transmit {
    fn new(shared: &Arc<Shared>, queue: &Arc<Queue>, wire: &Arc<Wire>, tally: &Arc<Tally>) -> Self {
        let counters = shared.plane.new_counters();
        Self {
            shared: Arc::clone(shared),
            queue: Arc::clone(queue),
            wire: Arc::clone(wire),
            engine: Outbound::new(Arc::clone(&shared.plane), Arc::clone(&counters), shared.link.load()),
            counters,
            tally: Arc::clone(tally),
            link: 0,
            buffer: vec![0; Vnet::LEN + 65_536].into(),
            sealed: Sealed::new(SEALED),
            scratch: Scratch::default(),
        }
    }

    /// Everything the device has, up to a batch, through the engine and out.
    fn turn(&mut self, now: Time) -> io::Result<()> {
        let version = self.shared.link.version.load(Ordering::Acquire);
        if version != self.link {
            self.link = version;
            self.engine.set_link(self.shared.link.load());
        }
        let mut reads = 0;
        let mut result = Ok(());
        while reads < READS && self.sealed.has_room() {
            match self.queue.read(&mut self.buffer) {
                Ok(octets) => {
                    reads += 1;
                    self.packet(octets, now);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        result = Err(error);
                    }
                    break;
                }
            }
        }
        self.tally.reads.fetch_add(reads as u64, Ordering::Relaxed);
        self.engine.finish(now, &mut self.sealed);
        self.send();
        result
    }

    fn packet(&mut self, octets: usize, now: Time) {
        let read = self.buffer.get_mut(..octets).and_then(<[u8]>::split_first_chunk_mut);
        let Some((header, packet)) = read else { return };
        match Vnet::parse(header) {
            // The verdict is in the runs and in the engine's own counters.
            Ok(vnet) => drop(self.engine.packet(&vnet, packet, now, &mut self.sealed)),
            Err(why) => self.counters.add(why, 1),
        }
    }

    fn send(&mut self) {
        let mut lost = 0;
        for run in self.sealed.runs() {
            lost += match run.route {
                Route::Back => write_back(&self.queue, &run),
                Route::Esp(_) | Route::Whole(_) | Route::Clear(_) => self.wire.send(&run, &mut self.scratch),
            };
        }
        self.sealed.clear();
        if lost > 0 {
            self.counters.add(Discard::HostIo, lost as u64);
        }
    }
}

/// Writes our own packets to the device; returns how many it refused.
fn write_back(queue: &Queue, run: &Run<'_>) -> usize {
    let header = Vnet::default().octets();
    let packets = run.octets.chunks(run.stride.max(1));
    packets.filter(|packet| queue.write(&[IoSlice::new(&header), IoSlice::new(packet)]).is_err()).count()
}

/// The inbound half: wire → engine → device.
struct Receive {
    shared: Arc<Shared>,
    wire: Arc<Wire>,
    engine: Inbound,
    opened: Opened,
    pending: usize,
    deliver: Deliver,
    slots: Slots,
    buffer: Box<[u8]>,
    large: [bool; Source::ALL.len()],
}

impl Receive {
    fn new(shared: &Arc<Shared>, queue: &Arc<Queue>, wire: &Arc<Wire>, tally: &Arc<Tally>) -> Self {
        let counters = shared.plane.new_counters();
        Self {
            shared: Arc::clone(shared),
            wire: Arc::clone(wire),
            engine: Inbound::new(Arc::clone(&shared.plane), Arc::clone(&counters)),
            opened: Opened::new(OPENED),
            pending: 0,
            deliver: Deliver {
                queue: Arc::clone(queue),
                counters,
                tally: Arc::clone(tally),
                merge_tcp: shared.merge_tcp,
                merge_udp: shared.merge_udp,
            },
            slots: Slots::default(),
            buffer: vec![0; SLOT * MAX].into(),
            large: [false; Source::ALL.len()],
        }
    }

    /// One batch from one socket, through the engine to the device.
    fn turn(&mut self, source: Source, now: Time) {
        let large = self.large.get(source as usize).copied().unwrap_or(false);
        let count = if large { LARGE } else { MAX };
        let Some(socket) = self.wire.socket(source) else { return };
        // An error that is not "nothing there" is about an earlier packet we sent, and is gone once reported.
        let Ok(received) = self.slots.receive(socket, &mut self.buffer, SLOT, count) else { return };
        let mut octets = 0_usize;
        for index in 0..received {
            let Some(message) = self.slots.message(index) else { continue };
            octets = octets.saturating_add(message.len);
            self.message(source, &message, now);
        }
        self.flush();
        if let Some(large) = self.large.get_mut(source as usize) {
            *large = octets / received.max(1) > 8192;
        }
        self.deliver.tally.receives.fetch_add(1, Ordering::Relaxed);
        self.deliver.tally.datagrams.fetch_add(received as u64, Ordering::Relaxed);
    }

    fn message(&mut self, source: Source, message: &Message, now: Time) {
        let slot = message.start..message.start.saturating_add(message.len);
        let beside = matches!(source, Source::Udp4 | Source::Udp6) && self.wire.is_beside();
        let found = if message.truncated {
            Err(Discard::Malformed)
        } else {
            match source {
                Source::Udp4 | Source::Udp6 if beside => {
                    from_beside(&self.buffer, message, slot, self.wire.port()).ok_or(Discard::Malformed)
                }
                Source::Udp4 | Source::Udp6 => Ok(from_udp(message, slot, self.wire.port())),
                Source::Esp4 => from_raw4(&self.buffer, slot, Carrier::Esp).ok_or(Discard::Malformed),
                Source::Ah4 => from_raw4(&self.buffer, slot, Carrier::Ah).ok_or(Discard::Malformed),
                Source::Esp6 => Ok(from_raw6(message, slot, Carrier::Esp)),
                Source::Ah6 => Ok(from_raw6(message, slot, Carrier::Ah)),
                Source::Icmp4 | Source::Icmp6 => return self.icmp(source == Source::Icmp4, slot, now),
            }
        };
        let (arrival, range) = match found {
            Ok(found) => found,
            Err(why) => return self.deliver.counters.add(why, 1),
        };
        let stride = match self.buffer.get(range.clone()) {
            Some(packets) if beside => beside::stride(packets),
            _ => message.segment.unwrap_or(range.len()).max(1),
        };
        let segments = range.len().div_ceil(stride);
        if self.pending.saturating_add(segments) > OPENED {
            self.flush();
        }
        self.pending = self.pending.saturating_add(segments);
        self.engine.datagrams(&arrival, &mut self.buffer, range, stride, now, &mut self.opened);
    }

    /// What came before its SA had keys.
    fn matured(&mut self, now: Time) {
        loop {
            let taken = self.engine.matured(&mut self.buffer, now, &mut self.opened);
            if taken == 0 {
                return;
            }
            self.pending = self.pending.saturating_add(taken);
            self.flush();
        }
    }

    fn icmp(&self, v4: bool, slot: Range<usize>, now: Time) {
        let message = self.buffer.get(slot).unwrap_or_default();
        // Over IPv4 with the IP header, which the kernel has checked.
        let header = if v4 { message.first().map_or(0, |first| usize::from(first & 15) * 4) } else { 0 };
        self.engine.icmp(v4, message.get(header..).unwrap_or_default(), self.wire.port(), now);
    }

    fn flush(&mut self) {
        if self.pending == 0 {
            return;
        }
        self.pending = 0;
        self.opened.merge(&mut self.buffer, self.deliver.merge_tcp, self.deliver.merge_udp);
        for (arrival, range) in self.opened.ike() {
            let taken = self.buffer.get(range).is_some_and(|message| (self.shared.ike)(&arrival, message));
            if !taken {
                self.deliver.counters.add(Discard::NoIke, 1);
            }
        }
        let mut writes = 0;
        for write in self.opened.writes() {
            writes += 1;
            self.deliver.write(&write, &self.buffer);
        }
        self.deliver.tally.writes.fetch_add(writes, Ordering::Relaxed);
        self.opened.clear();
    }
}

fn from_udp(message: &Message, slot: Range<usize>, local: u16) -> (Arrival, Range<usize>) {
    let src = message.from.ip();
    let carrier = Carrier::Udp { local, remote: message.from.port() };
    (Arrival { src, dst: to(message), carrier, tos: message.tos, header: 0 }, slot)
}

/// Raw IPv4 sockets deliver the IP header, already checked by the kernel, reassembled if it came in fragments.
fn from_raw4(buffer: &[u8], slot: Range<usize>, carrier: Carrier) -> Option<(Arrival, Range<usize>)> {
    let packet = buffer.get(slot.clone())?;
    let header = packet.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let address = |at: usize| {
        let octets: [u8; 4] = header.get(at..)?.first_chunk().copied()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    };
    let arrival = Arrival { src: address(12)?, dst: address(16)?, carrier, tos: header[1], header: length };
    let start = slot.start.checked_add(length).filter(|start| *start <= slot.end)?;
    Some((arrival, start..slot.end))
}

/// Raw sockets for UDP beside a key manager's.
fn from_beside(
    buffer: &[u8],
    message: &Message,
    slot: Range<usize>,
    local: u16,
) -> Option<(Arrival, Range<usize>)> {
    let none = Carrier::Udp { local, remote: 0 };
    let (arrival, datagram) = match message.from.is_ipv4() {
        true => from_raw4(buffer, slot, none)?,
        false => from_raw6(message, slot, none),
    };
    let (remote, packet) = beside::split(buffer.get(datagram.clone())?)?;
    let start = datagram.start.checked_add(beside::HEADER)?;
    let range = start..start.checked_add(packet.len())?;
    Some((Arrival { carrier: Carrier::Udp { local, remote }, header: 0, ..arrival }, range))
}

/// Raw IPv6 sockets keep the header to themselves.
fn from_raw6(message: &Message, slot: Range<usize>, carrier: Carrier) -> (Arrival, Range<usize>) {
    let arrival = Arrival { src: message.from.ip(), dst: to(message), carrier, tos: message.tos, header: 0 };
    (arrival, slot)
}

fn to(message: &Message) -> IpAddr {
    message.to.unwrap_or_else(|| {
        if message.from.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
    })
}

/// The way to the device.
struct Deliver {
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    tally: Arc<Tally>,
    merge_tcp: bool,
    merge_udp: bool,
}

impl Deliver {
    fn write(&mut self, write: &Write<'_>, buffer: &[u8]) {
        let header = write.vnet.octets();
        let octets = write.octets(buffer);
        let mut pieces = [IoSlice::new(&header); PIECES];
        let written = if let Some(pieces) = pieces.get_mut(..=write.pieces()) {
            for (slot, octets) in pieces.iter_mut().skip(1).zip(octets) {
                *slot = IoSlice::new(octets);
            }
            self.queue.write(pieces)
        } else {
            // Very many very small segments: the only packets that are put together by copying.
            let joined: Vec<u8> = octets.flatten().copied().collect();
            self.queue.write(&[IoSlice::new(&header), IoSlice::new(&joined)])
        };
        if let Err(error) = written {
            self.refused(write, &error);
        }
    }

    /// A few kernels refuse superpackets that are in order (dataplane §2.1). Singles they all take.
    fn refused(&mut self, write: &Write<'_>, error: &io::Error) {
        self.counters.add(Discard::HostIo, write.pieces().max(1) as u64);
        if error.raw_os_error() == Some(libc::EINVAL) && write.vnet.gso != Gso::None {
            let (merge, refused) = match write.vnet.gso {
                Gso::Udp => (&mut self.merge_udp, &self.tally.refused_udp),
                Gso::Tcp4 | Gso::Tcp6 | Gso::None => (&mut self.merge_tcp, &self.tally.refused_tcp),
            };
            *merge = false;
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}
