//! PF_KEY: messages per second inside the engine and over the socket, and what an SA costs in memory.
//!
//! Over the socket the limit is a bare echo of records of the same size over the same kind of socket; inside the engine there
//! is none but itself, at other sizes of the database, and processor time is what counts. The service is the daemon's own, on a thread of its own.

pub(crate) mod ways;

use crate::measure::{Options, cpu_nanos, median, nanos};
use crate::report::{figure, row};
use ipsec::host::clock;
use ipsec::keysock::KeySockets;
use ipsec::peer::Trust;
use ipsec_core::Time;
use klips::{Config, Control, Plane, SocketId};
use pfkey::dialect::Dialect;
use pfkey::{Address, Base, Errno, ExtType, Lifetime, MessageType, Sa, SaType, Writer, flags, state};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::json;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// Messages in one sample.
const SAMPLE: u32 = 10_000;
/// Requests on their way at once, when pipelined: as many answers fit a socket's buffer.
const WINDOW: usize = 64;
const NOW: Time = Time::from_nanos(1);
const PID: u32 = 4242;

/// What a message about the `n`-th SA says. Many peers, many SAs for each.
fn about(kind: MessageType, n: u32) -> Vec<u8> {
    let mut writer = Writer::with_capacity(&Base::request(kind, SaType::Esp, n.max(1), PID), 512);
    let peer = Address::host([198, 18, (n >> 8) as u8, n as u8].into());
    let ours = Address::host([192, 0, 2, 1].into());
    let spi = 0x1000 + n;
    let sa = Sa { spi, replay: 64, state: state::MATURE, encrypt: 20, flags: flags::TUNNEL, ..Sa::default() };
    let with_lives = matches!(kind, MessageType::Add | MessageType::Update);
    writer.sa(&if kind == MessageType::Add { sa } else { Sa { encrypt: 0, flags: 0, ..sa } });
    if with_lives {
        let hard = Lifetime { addtime: 3600, bytes: 1 << 40, ..Lifetime::default() };
        writer.lifetime(ExtType::LifetimeHard, &hard);
        writer.lifetime(ExtType::LifetimeSoft, &Lifetime { addtime: 3000, ..Lifetime::default() });
    }
    if kind != MessageType::Get {
        writer.address(ExtType::AddressSrc, &ours);
    }
    writer.address(ExtType::AddressDst, &peer);
    if kind == MessageType::Add {
        writer.address(ExtType::AddressInnerSrc, &Address::net([10, 1, 0, 0].into(), 16));
        writer.address(ExtType::AddressInnerDst, &Address::net([10, 2, 0, 0].into(), 16));
        let mut key = [0x5a; 20];
        key[..4].copy_from_slice(&n.to_be_bytes());
        writer.key(ExtType::KeyEncrypt, 160, 0, &key);
    }
    writer.finish().expect("a short message")
}

/// Records, all of one length, in one piece: thousands of small buffers that come and go would be a benchmark of malloc.
struct Batch {
    octets: Vec<u8>,
    len: usize,
}

impl Batch {
    fn iter(&self) -> std::slice::ChunksExact<'_, u8> {
        self.octets.chunks_exact(self.len)
    }
}

fn batch(kind: MessageType, numbers: impl Iterator<Item = u32>) -> Batch {
    let len = about(kind, 0).len();
    let mut octets = Vec::with_capacity(len * SAMPLE as usize);
    numbers.for_each(|n| octets.extend(about(kind, n)));
    Batch { octets, len }
}

fn control() -> Control {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let random = move |octets: &mut [u8]| {
        for octet in octets {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *octet = (state >> 56) as u8;
        }
    };
    let mut control = Control::new(Arc::new(Plane::default()), Config::new(1_700_000_000, Box::new(random)));
    control.set_local_addresses(vec![[192, 0, 2, 1].into()]);
    control
}

fn well(answer: &[u8]) -> bool {
    let base = answer.first_chunk::<{ Base::LEN }>().map(Base::parse);
    base.is_some_and(|base| base.errno == Errno(0))
}

/// The engine alone: requests in, answers out, no socket.
struct Engine {
    control: Control,
    socket: SocketId,
}

impl Engine {
    fn new() -> Self {
        let mut control = control();
        let socket = control.connect(PID, NOW);
        Self { control, socket }
    }

    fn ask(&mut self, requests: &Batch) -> f64 {
        cpu_nanos(|| {
            for request in requests.iter() {
                self.control.request(self.socket, request, NOW);
                let answer = self.control.notice(self.socket, NOW).expect("an answer");
                assert!(well(&answer), "refused: {:?}", &answer[..16]);
            }
            self.control.take_ready();
        })
    }

    /// Seconds, and how many SAs came.
    fn dump(&mut self) -> (f64, u32) {
        let request = Writer::new(&Base::request(MessageType::Dump, SaType::Unspec, 1, PID)).finish();
        let mut count = 0;
        let nanos = cpu_nanos(|| {
            self.control.request(self.socket, &request.expect("a short message"), NOW);
            while let Some(answer) = self.control.notice(self.socket, NOW) {
                count += u32::from(answer.len() > Base::LEN);
            }
        });
        (nanos / 1e9, count)
    }
}

/// Resident memory of this process, octets.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = pages.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    pages * rustix::param::page_size() as f64
}

fn per_second(nanos: f64) -> serde_json::Value {
    figure(f64::from(SAMPLE) / nanos * 1e9)
}

/// Fills an engine to `n` SAs and measures around the full table.
fn engine(n: u32, options: &Options) {
    let name = format!("pfkey engine, {n} SAs");
    if !options.wants(&name) {
        return;
    }
    let mut engine = Engine::new();
    let before = resident();
    let mut adds = 0.0;
    for start in (0..n).step_by(SAMPLE as usize) {
        // Made as they are needed: a million of them would be more than the SAs.
        adds += engine.ask(&batch(MessageType::Add, start..start + SAMPLE));
    }
    // All of them, so that what it costs to grow the tables is in it, wherever they happen to grow.
    let adds = adds * f64::from(SAMPLE) / f64::from(n);
    let octets = (resident() - before) / f64::from(n);
    // Numbers all over the table.
    let some = || (0..SAMPLE).map(|i| (u64::from(i) * 2_654_435_761 % u64::from(n)) as u32);
    let distinct = || (0..SAMPLE).map(|i| i * (n / SAMPLE));
    let gets = engine.ask(&batch(MessageType::Get, some()));
    let updates = engine.ask(&batch(MessageType::Update, some()));
    let (dump, dumped) = engine.dump();
    assert_eq!(dumped, n);
    let deletes = engine.ask(&batch(MessageType::Delete, distinct()));
    row(&[
        ("bench", json!(name)),
        ("add_per_s", per_second(adds)),
        ("get_per_s", per_second(gets)),
        ("update_per_s", per_second(updates)),
        ("delete_per_s", per_second(deletes)),
        ("dump_sas_per_s", figure(f64::from(n) / dump)),
        ("octets_per_sa", figure(octets)),
    ]);
}

/// One end of a SEQPACKET connection.
struct Line {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Line {
    fn connect(path: &Path) -> io::Result<Self> {
        let fd = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        net::connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(Self { fd, buffer: vec![0; 1 << 16] })
    }

    fn send(&self, record: &[u8]) {
        net::send(&self.fd, record, SendFlags::NOSIGNAL).expect("the other end is there");
    }

    fn receive(&mut self) -> &[u8] {
        let (_, len) = net::recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()).expect("an answer");
        &self.buffer[..len]
    }

    fn one_by_one(&mut self, records: &Batch) -> f64 {
        nanos(|| {
            for record in records.iter() {
                self.send(record);
                assert!(well(self.receive()));
            }
        })
    }

    fn pipelined(&mut self, records: &Batch) -> f64 {
        nanos(|| {
            for records in
                records.octets.chunks(WINDOW * records.len).map(|some| some.chunks_exact(records.len))
            {
                records.clone().for_each(|record| self.send(record));
                for _ in records {
                    assert!(well(self.receive()));
                }
            }
        })
    }
}

/// Nanoseconds that `n` records of `len` octets take from a thread that does nothing but send them.
fn stream(path: &Path, n: u32, len: usize) -> io::Result<f64> {
    let listener = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    net::bind(&listener, &SocketAddrUnix::new(path)?)?;
    net::listen(&listener, 1)?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let peer = net::accept(&listener).expect("a client");
            let record = vec![0; len];
            for _ in 0..n {
                net::send(&peer, &record, SendFlags::NOSIGNAL).expect("the other end is there");
            }
        });
        let mut line = Line::connect(path)?;
        Ok(nanos(|| (0..n).for_each(|_| assert!(!line.receive().is_empty()))))
    })
}

/// A thread that sends back whatever it gets, and a socket to talk to it.
fn with_echo<R>(path: &Path, work: impl FnOnce(&mut Line) -> R) -> io::Result<R> {
    let listener = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    net::bind(&listener, &SocketAddrUnix::new(path)?)?;
    net::listen(&listener, 1)?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let peer = net::accept(&listener).expect("a client");
            let mut buffer = vec![0; 1 << 16];
            while let Ok((_, len)) = net::recv(&peer, &mut buffer[..], RecvFlags::empty()) {
                if len == 0 || net::send(&peer, &buffer[..len], SendFlags::NOSIGNAL).is_err() {
                    break;
                }
            }
        });
        Line::connect(path).map(|mut line| work(&mut line))
    })
}

/// The daemon's service, its sockets and its loop, without its devices.
fn with_service<R>(dialect: Dialect, path: &Path, work: impl FnOnce(&mut Line) -> R) -> io::Result<R> {
    let poll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
    let mut sockets = KeySockets::bind([(dialect, path.to_path_buf())], Arc::clone(&poll), Trust::default())?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut control = control();
            let mut events = Vec::with_capacity(256);
            while !over.load(Relaxed) {
                epoll::wait(&poll, spare_capacity(&mut events), None).expect("events");
                for event in events.drain(..) {
                    let now = clock::now();
                    sockets.event(&mut control, event.data.u64(), event.flags, now, |_, _| ());
                }
                sockets.deliver(&mut control, clock::now());
            }
        });
        let done = Line::connect(path).map(|mut line| work(&mut line));
        over.store(true, Relaxed);
        // Something for it to wake up to.
        drop(Line::connect(path));
        done
    })
}

/// The socket: one message at a time and many on their way, beside the echo.
fn socket(options: &Options) -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let rounds = if options.quick { 3 } else { 9 };
    for kind in [MessageType::Add, MessageType::Get, MessageType::Update, MessageType::Delete] {
        let name = format!("pfkey socket, {}", format!("{kind:?}").to_uppercase());
        if !options.wants(&name) {
            continue;
        }
        let mut samples: [Vec<f64>; 4] = Default::default();
        for round in 0..rounds {
            let records = batch(kind, 0..SAMPLE);
            let (adds, deletes) = (batch(MessageType::Add, 0..SAMPLE), batch(MessageType::Delete, 0..SAMPLE));
            let path = |what: &str| dir.path().join(format!("{what}{}{round}", kind.number()));
            let echoed =
                with_echo(&path("echo"), |line| (line.one_by_one(&records), line.pipelined(&records)))?;
            let served = with_service(Dialect::Native, &path("service"), |line| {
                // What is asked about must be there, and what is added must not.
                let prepare = |line: &mut Line, before: bool| match (kind, before) {
                    (MessageType::Add, false) => drop(line.pipelined(&deletes)),
                    (MessageType::Add, true) => {}
                    (MessageType::Delete, _) => drop(line.pipelined(&adds)),
                    (_, true) => drop(line.pipelined(&adds)),
                    (_, false) => {}
                };
                prepare(line, true);
                let one = line.one_by_one(&records);
                prepare(line, false);
                (one, line.pipelined(&records))
            })?;
            for (samples, sample) in samples.iter_mut().zip([served.0, echoed.0, served.1, echoed.1]) {
                samples.push(sample);
            }
        }
        let [one, one_echo, many, many_echo] = samples.map(median);
        row(&[
            ("bench", json!(name)),
            ("one_by_one_per_s", per_second(one)),
            ("echo_per_s", per_second(one_echo)),
            ("time_of_echo", figure(one / one_echo)),
            ("pipelined_per_s", per_second(many)),
            ("pipelined_echo_per_s", per_second(many_echo)),
            ("pipelined_time_of_echo", figure(many / many_echo)),
        ]);
    }
    ways::dialects(options, dir.path())?;
    ways::shim(options, dir.path())?;
    dump(options, &dir.path().join("dump"))
}

/// DUMP over the socket: to a reader that does nothing else, then to one that asks for an SA through another socket
/// between any two sips of it.
fn dump(options: &Options, path: &Path) -> io::Result<()> {
    const SIP: usize = 100;
    let name = "pfkey socket, DUMP";
    if !options.wants(name) {
        return Ok(());
    }
    let n = if options.quick { 100_000 } else { 1_000_000 };
    let request = Writer::new(&Base::request(MessageType::Dump, SaType::Unspec, 1, PID)).finish();
    let request = request.expect("a short message");
    let gets = batch(MessageType::Get, 0..SAMPLE);
    let columns = with_service(Dialect::Native, path, |line| {
        for start in (0..n).step_by(SAMPLE as usize) {
            line.pipelined(&batch(MessageType::Add, start..start + SAMPLE));
        }
        let (mut count, mut longest) = (0_u32, 0);
        let swift = nanos(|| {
            line.send(&request);
            loop {
                let len = line.receive().len();
                if len <= Base::LEN {
                    break;
                }
                longest = longest.max(len);
                count += 1;
            }
        });
        assert_eq!(count, n);
        let streamed = stream(&path.with_extension("stream"), n, longest).expect("a socket");

        let alone = line.one_by_one(&gets);
        let mut slow = Line::connect(path).expect("the service");
        let (before, mut grown) = (resident(), 0.0_f64);
        let (mut asked, mut meanwhile) = (0_u32, 0.0);
        slow.send(&request);
        'dump: for get in gets.octets.chunks_exact(gets.len).cycle() {
            meanwhile += nanos(|| {
                line.send(get);
                assert!(well(line.receive()));
            });
            asked += 1;
            grown = grown.max(resident() - before);
            for _ in 0..SIP {
                if slow.receive().len() <= Base::LEN {
                    break 'dump;
                }
                count += 1;
            }
        }
        assert_eq!(count, 2 * n);
        [
            ("dump_sas_per_s", f64::from(n) / swift * 1e9),
            ("stream_per_s", f64::from(n) / streamed * 1e9),
            ("time_of_stream", swift / streamed),
            ("get_per_s", f64::from(SAMPLE) / alone * 1e9),
            ("get_per_s_while_slow_dump", f64::from(asked) / meanwhile * 1e9),
            ("grown_kib_by_slow_dump", grown / 1024.0),
        ]
    })?;
    let mut cells = vec![("bench", json!(name)), ("sas", json!(n))];
    cells.extend(columns.map(|(name, value)| (name, figure(value))));
    row(&cells);
    Ok(())
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    // Each size in a process of its own would be cleaner still; growing, the memory of one is not taken for the next's.
    for n in [10_000, 100_000, 1_000_000] {
        engine(n, options);
    }
    socket(options)
}
