//! The data-plane daemon: one thread that owns [`Control`] and waits for whatever happens next.
//!
//! Everything that must not be torn goes through this thread, and nothing in it blocks: PF_KEY clients are read and
//! written when they can be, `klips.ctl` and FUSE are served by threads of their own that ask here, packets are carried by
//! workers. On its way out it takes everything with it that it made.

mod batch;
mod devices;
mod explain;
pub mod instance;
pub mod mailbox;
pub mod program;
mod service;
mod watch;

use crate::ctl::{self, Refusal, Request, Settings};
use crate::host::clock;
use crate::host::interfaces::clear::Guarded;
use crate::host::interfaces::{self, Addresses, AttachError, Interfaces, Physical};
use crate::keysock::KeySockets;
use crate::peer::Trust;
use crate::process::{Process, keep_memory_private};
use crate::rundir::Rundir;
use crate::table::{Device, Klipsdebug, Snapshot, Table};
use crate::{command::version, ikesock, proc_fs};
use instance::{ClaimError, Instance};
use ipnet::IpNet;
use ipsec_core::Time;
use klips::{Arrival, Carrier, Config, Control, Discard, Plane, SpiPolicy};
use mailbox::{Answer, Ask, Inbox, Waker};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use pfkey::dialect::Dialect;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use serde_json::{Value, json};
use service::Serving;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// What a daemon is told when it starts.
#[derive(Clone)]
pub struct Options {
    /// Where its files are.
    pub rundir: Rundir,
    /// Who may speak PF_KEY.
    pub trust: Trust,
    /// How devices are attached, until [`Request::Configure`] says otherwise.
    pub interfaces: interfaces::Settings,
    /// How long packets wait for a key manager, or at a `%hold`.
    pub hold: Duration,
    /// End when standard input does. It is a pipe whose other end is held by somebody who may be killed.
    pub until_eof: bool,
}

/// Octets of unread PF_KEY messages a socket may leave with us.
const RECEIVE_LIMIT: usize = 1 << 20;

/// What an event is about, if not a PF_KEY client.
mod number {
    pub(super) const SIGNAL: u64 = 1;
    pub(super) const TIMER: u64 = 2;
    pub(super) const MAIL: u64 = 3;
    pub(super) const WORKERS: u64 = 4;
    pub(super) const NETLINK: u64 = 5;
    pub(super) const PARENT: u64 = 6;
    pub(super) const IKE_LISTENER: u64 = 7;
    pub(super) const IKE_QUEUE: u64 = 8;
    pub(super) const IKE_CLIENT: u64 = 9;
    pub(super) const GUARD: u64 = 10;
}

/// Runs until told to stop. `ready` is called once the daemon can be asked; what is returned as an error was not logged.
pub fn run(options: &Options, ready: impl FnOnce()) -> Result<(), String> {
    // Files of ours are written by nobody else, whatever umask we were started with.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    more_files();
    keep_memory_private();
    // Before the first thread: all of them inherit it, and signals arrive at the descriptor alone.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|error| format!("signals: {error}"))?;
    let dir = options.rundir.path().display();
    let instance = Instance::claim(&options.rundir).map_err(|error| match error {
        ClaimError::Taken(Some(Process { pid, .. })) => {
            format!("klips is already running in {dir} (pid {pid})")
        }
        ClaimError::Taken(None) => format!("another klips is starting or stopping in {dir}"),
        ClaimError::Io(why) => why,
    })?;
    let mut daemon = Daemon::new(options, &signals).map_err(|error| format!("{dir}: {error}"))?;
    instance.announce().map_err(|error| format!("{}: {error}", options.rundir.klips_pid().display()))?;
    tracing::info!("klips {} started in {dir}", version::VERSION);
    ready();
    let outcome = daemon.serve();
    drop(daemon);
    drop(instance);
    tracing::info!("klips stopped");
    outcome.map_err(|error| error.to_string())
}

/// Every PF_KEY socket is an open file: takes as many as the system lets us have.
fn more_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

struct Daemon {
    control: Control,
    plane: Arc<Plane>,
    sockets: KeySockets,
    inbox: Inbox,
    workers: Waker,
    signals: SignalFd,
    timer: OwnedFd,
    epoll: Arc<OwnedFd>,
    interfaces: Interfaces,
    ike: ikesock::server::Server,
    how: interfaces::Settings,
    debug: Klipsdebug,
    /// Who wants to see packets.
    watches: watch::Watches,
    /// The counters as last logged, while debugging.
    logged: Vec<u64>,
    /// Why the tables are not files.
    no_files: Option<String>,
    started: Time,
    stop: bool,
}

impl Daemon {
    fn new(options: &Options, signals: &SigSet) -> io::Result<Self> {
        let rundir = &options.rundir;
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let plane = Arc::new(Plane::default());
        let random = |octets: &mut [u8]| {
            // Without randomness nothing here is safe to go on with, and the kernel always has some.
            if let Err(error) = getrandom::fill(octets) {
                tracing::error!("no randomness: {error}");
                std::process::abort();
            }
        };
        let config = Config::new(clock::epoch().as_secs(), Box::new(random));
        let workers = u32::try_from(options.interfaces.worker_count()).unwrap_or(1);
        let spis = SpiPolicy { workers, ..SpiPolicy::default() };
        let control = Control::new(
            Arc::clone(&plane),
            Config { receive_limit: RECEIVE_LIMIT, spis, hold: options.hold, ..config },
        );
        let paths = Dialect::ALL.iter().map(|dialect| (*dialect, rundir.dialect_sock(*dialect)));
        let sockets = KeySockets::bind(paths, Arc::clone(&epoll), options.trust)?;
        let (mailbox, inbox) = mailbox::mailbox()?;
        ctl::server::spawn(&rundir.klips_ctl(), Trust::default(), mailbox.clone())?;
        let now = UNIX_EPOCH + Duration::from_secs(clock::wall());
        let no_files = proc_fs::mount(rundir, mailbox, now).err().map(|error| error.to_string());
        if let Some(why) = &no_files {
            tracing::warn!(
                "no table files in {}: {why}; the commands show the tables",
                rundir.proc().display()
            );
        }
        let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let workers = Waker::new()?;
        let numbers = ikesock::server::Numbers {
            listener: number::IKE_LISTENER,
            queue: number::IKE_QUEUE,
            client: number::IKE_CLIENT,
        };
        let ike_server =
            ikesock::server::Server::bind(&rundir.ike_sock(), Arc::clone(&epoll), numbers, Trust::default())?;
        let queue = ike_server.queue();
        let ike = Arc::new(move |arrival: &Arrival, message: &[u8]| match arrival.carrier {
            Carrier::Udp { local, remote } => {
                let (local, remote) =
                    (SocketAddr::new(arrival.dst, local), SocketAddr::new(arrival.src, remote));
                queue.push(local, remote, message, clock::now())
            }
            Carrier::Esp | Carrier::Ah => false,
        });
        let interfaces = Interfaces::new(Arc::clone(&plane), workers.fd(), ike, options.interfaces.clone())?;
        let mut daemon = Self {
            control,
            plane,
            sockets,
            inbox,
            workers,
            signals,
            timer,
            epoll,
            interfaces,
            ike: ike_server,
            how: options.interfaces.clone(),
            debug: Klipsdebug::default(),
            watches: watch::Watches::default(),
            logged: Vec::new(),
            no_files,
            started: clock::now(),
            stop: false,
        };
        daemon.look_at_addresses();
        for (number, fd) in [
            (number::SIGNAL, daemon.signals.as_fd()),
            (number::TIMER, daemon.timer.as_fd()),
            (number::MAIL, daemon.inbox.waker.as_fd()),
            (number::WORKERS, daemon.workers.as_fd()),
            (number::NETLINK, daemon.interfaces.changes()),
        ] {
            epoll::add(&daemon.epoll, fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        }
        if let Some(fd) = daemon.interfaces.guard_changes() {
            let event = epoll::EventData::new_u64(number::GUARD);
            epoll::add(&daemon.epoll, fd, event, epoll::EventFlags::IN)?;
        }
        if options.until_eof {
            // Nobody writes to it: the one event it can have is that its other end is closed.
            let (number, never) = (epoll::EventData::new_u64(number::PARENT), epoll::EventFlags::empty());
            epoll::add(&daemon.epoll, rustix::stdio::stdin(), number, never)?;
        }
        Ok(daemon)
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        while !self.stop {
            self.set_timer()?;
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            let debugging = self.debug != Klipsdebug::default();
            let watching = debugging || !self.watches.is_empty();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), watching.then_some(&second)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                self.event(event.data.u64(), event.flags);
            }
            let now = clock::now();
            if self.control.deadline().is_some_and(|due| due <= now) {
                self.control.expire(now);
            }
            // A move of an SA that nobody has asked for is a change of policy too.
            self.interfaces.follow_policy();
            self.interfaces.guard_said().iter().for_each(|line| tracing::warn!("{line}"));
            self.sockets.deliver(&mut self.control, now);
            if self.plane.take_returned() {
                self.interfaces.tell_returned();
            }
            if watching {
                self.look();
            }
            if debugging {
                self.log_discards();
            }
        }
        Ok(())
    }

    fn event(&mut self, number: u64, flags: epoll::EventFlags) {
        let now = clock::now();
        match number {
            number::SIGNAL => self.signal(),
            number::TIMER => {
                let _ = rustix::io::read(&self.timer, &mut [0; 8]);
                self.control.expire(now);
            }
            number::MAIL => self.mail(),
            number::PARENT => {
                tracing::info!("standard input has ended: stopping");
                self.stop = true;
            }
            number::WORKERS => {
                self.workers.clear();
                self.plane.take_wake();
                self.control.expire(now);
            }
            number::NETLINK => {
                match self.interfaces.follow() {
                    Ok(None) => return,
                    Ok(Some(lines)) => lines.iter().for_each(|line| tracing::info!("{line}")),
                    Err(error) => tracing::warn!("following the interfaces: {error}"),
                }
                self.look_at_addresses();
            }
            number::GUARD => self.interfaces.guard_again(),
            number::IKE_LISTENER | number::IKE_QUEUE | number::IKE_CLIENT => {
                let interfaces = &self.interfaces;
                self.ike.event(number, flags, now, |record| {
                    let payload = [ikesock::server::prefix(record.kind), record.message].concat();
                    interfaces.send_udp(record.local, record.remote, &payload)
                });
            }
            client => {
                let debug = self.debug;
                let mut service = Serving { control: &mut self.control, interfaces: &mut self.interfaces };
                self.sockets.event(&mut service, client, flags, now, |from, record| {
                    for part in pfkey_parts(record).filter(|part| debug.is_set(part)) {
                        tracing::info!("{part}: {} from socket {}", pfkey_line(record), from.0);
                    }
                });
                if let Some(words) = self.sockets.take_debug() {
                    self.debug.put(&words);
                    self.want();
                    self.logged = self.discards().map(|(_, count)| count).collect();
                }
            }
        }
    }

    fn signal(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGHUP) => {
                    tracing::info!("SIGHUP: nothing to reread; `ipsec setup restart` restarts")
                }
                Ok(signal) => {
                    tracing::info!("{signal}: stopping");
                    self.stop = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Wakes us at the next lifetime, even if the machine slept meanwhile.
    fn set_timer(&self) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // All zero disarms it; a deadline that has passed must still fire.
        let at = self.control.deadline().map_or(zero, |due| {
            let nanos = due.as_nanos().max(1);
            let part = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            Timespec { tv_sec: part(nanos / 1_000_000_000), tv_nsec: part(nanos % 1_000_000_000) }
        });
        let times = Itimerspec { it_interval: zero, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &times)?;
        Ok(())
    }

    fn look_at_addresses(&mut self) {
        match self.interfaces.local_addresses() {
            Ok(mine) => self.control.set_local_addresses(mine),
            Err(error) => tracing::warn!("netlink: addresses: {error}"),
        }
        match self.interfaces.broadcast_addresses() {
            Ok(broadcast) => self.control.set_broadcast_addresses(broadcast),
            Err(error) => tracing::warn!("netlink: addresses: {error}"),
        }
    }

    /// The PF_KEY sockets: what waits for one is with the service, and in the kernel.
    fn key_sockets(&self) -> Vec<klips::SocketRow> {
        let rows = self.control.sockets();
        rows.map(|row| klips::SocketRow {
            queued: row.queued.saturating_add(self.sockets.unread(row.id)),
            ..row
        })
        .collect()
    }

    fn mail(&mut self) {
        self.inbox.waker.clear();
        while let Some(mail) = self.inbox.next() {
            let answer = match mail.ask {
                Ask::Table(table) => Answer::Table(self.table(table)),
                Ask::Do(request) => self.act(request).map_or_else(Answer::Refused, Answer::Done),
            };
            let _ = mail.reply.send(answer);
        }
    }

    fn table(&self, table: Table) -> Snapshot {
        match table {
            Table::Eroute => Snapshot::Eroute(self.plane.eroutes().list()),
            Table::Spi => Snapshot::Spi(self.control.sas().collect(), clock::now()),
            Table::Spigrp => Snapshot::Spigrp(self.control.sas().map(|sa| (sa.id, sa.group)).collect()),
            Table::Tncfg => Snapshot::Tncfg(self.devices()),
            Table::Klipsdebug => Snapshot::Klipsdebug(self.debug),
            Table::Version => Snapshot::Version,
            Table::PfKey => Snapshot::PfKey(self.key_sockets()),
            Table::PfKeyRegistered => Snapshot::PfKeyRegistered(self.control.sockets().collect()),
            Table::PfKeySupported => Snapshot::PfKeySupported,
            Table::TrapCount => Snapshot::Count(self.control.trap_counts().0),
            Table::TrapSendcount => Snapshot::Count(self.control.trap_counts().1),
            Table::Xforms => Snapshot::Xforms,
            // As a kernel that needs no patch for it.
            Table::Natt => Snapshot::Level("natt", 2),
            // Ciphers are computed where packets are.
            Table::Ocf => Snapshot::Level("ocf", 0),
            Table::Discards => Snapshot::Discards(self.discards().collect()),
        }
    }

    fn discards(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Discard::ALL.iter().map(|&why| (why.name(), self.plane.discarded(why)))
    }

    fn act(&mut self, request: Request) -> Result<Value, Refusal> {
        match request {
            Request::Table { .. } => Err(Refusal::new("a table is not an action")),
            Request::Status => Ok(self.status()),
            Request::Attach { r#virtual, physical, addresses } => {
                let given = addresses.map_or(Ok(Addresses::Copy), |all| nets(&all).map(Addresses::Given))?;
                let on = match physical.as_str() {
                    "%defaultroute" => Physical::DefaultRoute,
                    name => Physical::Name(name.to_owned()),
                };
                let done = self.interfaces.attach(&r#virtual, &on, &given);
                done.map_err(|error| refused(error, &format!("{virtual} on {physical}")))?;
                self.attached(&r#virtual)
            }
            Request::Detach { r#virtual } => {
                self.interfaces.detach(&r#virtual).map_err(|error| refused(error, &r#virtual))?;
                tracing::info!("{virtual} detached");
                Ok(Value::Null)
            }
            Request::Clear => {
                self.interfaces.clear();
                tracing::info!("all devices detached");
                Ok(Value::Null)
            }
            Request::Configure(new) => Ok(self.configure(&new)),
            Request::Debug { set, clear } => self.set_debug(&set, &clear),
            Request::Explain { src, dst, proto, sport, dport } => {
                let flow = ipsec_core::Flow { src, dst, proto, sport, dport };
                Ok(explain::explain(&self.plane, &flow))
            }
            Request::Watch { watcher: id, src, dst, proto, sport, dport } => {
                let nets = ipsec_core::Selector::nets(src.into(), dst.into());
                self.watch(id, ipsec_core::Selector { proto, sport, dport, ..nets })
            }
            Request::Eroutes { changes } => {
                batch::make(&mut self.control, &changes)?;
                Ok(json!({ "changed": changes.len() }))
            }
            Request::Stop { leave } => {
                tracing::info!(
                    "asked to stop{}",
                    if leave { ", and to leave the devices closed" } else { "" }
                );
                if leave {
                    self.interfaces.leave();
                }
                self.stop = true;
                Ok(Value::Null)
            }
        }
    }

    /// What was attached, as the table shows it.
    fn attached(&self, name: &str) -> Result<Value, Refusal> {
        let found = self.devices().into_iter().find(|device| device.name == name);
        let device = found.ok_or_else(|| Refusal::new(format!("{name} has gone again")))?;
        let Device { name, physical, mtu, .. } = &device;
        tracing::info!("{name} attached to {} mtu {mtu}", physical.as_deref().unwrap_or("NULL"));
        Ok(json!(device))
    }

    fn configure(&mut self, new: &Settings) -> Value {
        let &Settings { hidetos, fragicmp, copydf, overridemtu } = new;
        let how = &mut self.how;
        how.hide_tos = hidetos.unwrap_or(how.hide_tos);
        how.frag_icmp = fragicmp.unwrap_or(how.frag_icmp);
        how.copy_df = copydf.unwrap_or(how.copy_df);
        how.override_mtu = overridemtu.map_or(how.override_mtu, |mtu| (mtu != 0).then_some(mtu));
        self.interfaces.set_settings(how.clone());
        self.settings()
    }

    fn settings(&self) -> Value {
        let interfaces::Settings { hide_tos, frag_icmp, copy_df, override_mtu, .. } = self.how;
        json!(Settings {
            hidetos: Some(hide_tos),
            fragicmp: Some(frag_icmp),
            copydf: Some(copy_df),
            overridemtu: override_mtu
        })
    }

    fn set_debug(&mut self, set: &[String], clear: &[String]) -> Result<Value, Refusal> {
        let mut flags = self.debug;
        for (names, on) in [(clear, false), (set, true)] {
            for name in names {
                if !flags.change(name, on) {
                    let known = Klipsdebug::WORDS.join(", ");
                    return Err(Refusal::with(
                        "EINVAL",
                        format!(
                            "no debug flag {name}: there are {known}, tunnel-xmit, netlink, ipcomp, verbose, all, none"
                        ),
                    ));
                }
            }
        }
        self.debug = flags;
        self.want();
        self.logged = self.discards().map(|(_, count)| count).collect();
        Ok(Value::Null)
    }

    fn status(&mut self) -> Value {
        let clear_refused = self.interfaces.guarded().map(|guarded| match guarded {
            Guarded::By(table, packets) => {
                json!({ "by": format!("nf_tables inet {table}"), "packets": packets })
            }
            Guarded::Not(why) => json!({ "by": null, "why": why }),
        });
        json!({
            "pid": std::process::id(),
            "version": version::VERSION,
            "uptime": clock::now().since(self.started).as_secs(),
            "eroutes": self.plane.eroutes().len(),
            "tunnels": self.plane.protecting(),
            "sas": self.control.sa_count(),
            "sockets": self.sockets.len(),
            "files": self.no_files.is_none(),
            "no_files": self.no_files,
            "settings": self.settings(),
            "ike": self.ike_status(),
            "devices": self.interfaces.list().len(),
            "clear_refused": clear_refused,
            "discards": self.discards().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), json!(count)))
                .collect::<serde_json::Map<_, _>>(),
        })
    }

    /// What became of IKE messages on the UDP port.
    fn ike_status(&self) -> Value {
        let ikesock::queue::Counts { received, delivered, full, crowded, stale, sent, unsent } =
            self.ike.queue().counts();
        json!({
            "connected": self.ike.connected(), "received": received, "delivered": delivered, "full": full,
            "crowded": crowded, "stale": stale, "sent": sent, "unsent": unsent,
        })
    }

    /// While any flag is set, says once a second what the data plane refused since.
    fn log_discards(&mut self) {
        let now: Vec<(&str, u64)> = self.discards().collect();
        for ((name, count), before) in now.iter().zip(&self.logged) {
            let more = count.saturating_sub(*before);
            if more > 0 {
                tracing::info!("rcv, xform: {more} packets refused: {name}");
            }
        }
        self.logged = now.into_iter().map(|(_, count)| count).collect();
    }
}

fn refused(error: AttachError, what: &str) -> Refusal {
    let errno = errno_name(error.errno());
    let remedy = if error == AttachError::UnknownPhysical {
        "  `ip link' lists them; one of ours cannot carry another"
    } else {
        ""
    };
    Refusal { error: format!("{what}: {error}{remedy}"), errno }
}

/// The name of an errno that attaching can end with.
fn errno_name(errno: Errno) -> Option<String> {
    let names = [
        (Errno::NODEV, "ENODEV"),
        (Errno::BUSY, "EBUSY"),
        (Errno::NXIO, "ENXIO"),
        (Errno::NOENT, "ENOENT"),
        (Errno::PERM, "EPERM"),
        (Errno::INVAL, "EINVAL"),
        (Errno::ADDRINUSE, "EADDRINUSE"),
    ];
    names.iter().find(|(known, _)| *known == errno).map(|(_, name)| (*name).to_owned())
}

fn nets(all: &[String]) -> Result<Vec<IpNet>, Refusal> {
    let parse = |text: &String| {
        text.parse().map_err(|_| Refusal::with("EINVAL", format!("{text}: not ADDRESS/BITS")))
    };
    all.iter().map(parse).collect()
}

/// The header of a PF_KEY message in one line; never its body, which may hold keys.
/// The words of `ipsec klipsdebug` that a message is about: SAs are `spi`'s business, policy is that of the tree, `radij`.
fn pfkey_parts(record: &[u8]) -> impl Iterator<Item = &'static str> {
    use pfkey::MessageType as M;
    let part = match record.get(1).and_then(|kind| M::from_number(*kind)) {
        Some(M::GetSpi | M::Update | M::Add | M::Delete | M::Flush) => Some("spi"),
        Some(M::AddFlow | M::ReplaceFlow | M::DelFlow | M::FlushFlows) => Some("radij"),
        _ => None,
    };
    ["pfkey"].into_iter().chain(part)
}

fn pfkey_line(record: &[u8]) -> String {
    let octet = |n: usize| record.get(n).copied().unwrap_or(0);
    let word = |n: usize| u32::from_ne_bytes([octet(n), octet(n + 1), octet(n + 2), octet(n + 3)]);
    let (kind, satype) = (octet(1), octet(3));
    format!(
        "message type {kind}, SA type {satype}, seq {}, pid {}, {} octets",
        word(8),
        word(12),
        record.len()
    )
}
