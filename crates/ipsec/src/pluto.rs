//! The key daemon: one thread that owns the IKE engine and waits for whatever happens next.
//!
//! Datagrams come from UDP 500, which is pluto's, and from UDP 4500 through klips ([`crate::ikesock`]). Key exchanges are
//! computed by a few threads ([`pool`]). What the engine decides becomes SAs and policy through [`kernel::Kernel`]. A klips
//! that has gone is waited for, and what was installed in it is negotiated anew.

pub mod ctl;
mod failures;
mod journal;
pub mod kernel;
mod leases;
mod manage;
mod names;
mod policy;
pub mod pool;
pub mod ports;
pub mod program;
mod record;
pub(crate) mod resolver;
pub mod status;
mod updown;

use crate::command::version;
use crate::conf::connection::{Here, Planned};
use crate::host::clock;
use crate::host::netlink::Watch;
use crate::ikesock::{self, Kind, Record, client::Client};
use crate::process::{Process, keep_memory_private};
use crate::rundir::{self, Rundir};
use ctl::Inbox;
use failures::Failures;
use ike::event::{Event, Why};
use ike::job::{Answer, Job, JobId};
use ike::{Endpoint, Random};
use ipsec_core::Time;
use kernel::{Kernel, Notice, PfKey};
use leases::Leases;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use policy::Policy;
use pool::Pool;
use ports::Ports;
use record::Recorder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Jobs given to the threads at a time, for each of them: of one source a quarter, so that even then each has something to do
/// while its last answer is taken to the engine.
const JOBS: usize = 8;
/// Datagrams taken from one socket before others get their turn.
const TURN: usize = 64;
/// Between two attempts to find klips.
const SEARCH: Duration = Duration::from_millis(500);

/// What the daemon is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its files are.
    pub rundir: Rundir,
    /// The directory of ipsec.conf and ipsec.secrets.
    pub confs: PathBuf,
    /// Threads for key exchanges.
    pub helpers: usize,
    /// Where everything is recorded, with all keys.
    pub record: Option<PathBuf>,
}

struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, octets: &mut [u8]) {
        // Without randomness nothing here is safe to go on with, and the kernel always has some.
        if let Err(error) = getrandom::fill(octets) {
            tracing::error!("no randomness: {error}");
            std::process::abort();
        }
    }
}

/// Runs until told to stop. `ready` is called once the daemon can be asked; what is returned as an error was not logged.
pub fn run(options: &Options, ready: impl FnOnce()) -> Result<(), String> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    keep_memory_private();
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|error| format!("signals: {error}"))?;
    let rundir = &options.rundir;
    let dir = rundir.path().display();
    rundir.create().map_err(|error| format!("{dir}: {error}"))?;
    let lock = rundir::lock(&rundir.pluto_lock()).map_err(|error| format!("{dir}: {error}"))?;
    let Some(lock) = lock else {
        return Err(match Process::read(&rundir.pluto_pid()).filter(Process::is_alive) {
            Some(Process { pid, .. }) => format!("pluto is already running in {dir} (pid {pid})"),
            None => format!("another pluto is starting or stopping in {dir}"),
        });
    };
    let instance = Instance { rundir: rundir.clone(), _lock: lock };
    instance.clean();
    let mut pluto = Pluto::new(options, &signals).map_err(|error| format!("{dir}: {error}"))?;
    let announced = Process::me().and_then(|me| me.write(&rundir.pluto_pid()));
    announced.map_err(|error| format!("{}: {error}", rundir.pluto_pid().display()))?;
    tracing::info!("pluto {} started in {dir}", version::VERSION);
    ready();
    pluto.start();
    let outcome = pluto.serve();
    if pluto.leave {
        tracing::info!("what is up stays, for the pluto that follows");
    } else {
        pluto.stop();
    }
    drop(pluto);
    drop(instance);
    tracing::info!("pluto stopped");
    outcome.map_err(|error| error.to_string())
}

/// The run directory while pluto's part of it is ours.
struct Instance {
    rundir: Rundir,
    _lock: File,
}

impl Instance {
    fn clean(&self) {
        for path in [self.rundir.pluto_ctl(), self.rundir.pluto_pid()] {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.clean();
        let _ = fs::remove_file(self.rundir.pluto_lock());
    }
}

/// klips as far as it is connected.
struct Plane {
    kernel: PfKey,
    ike: Client,
}

/// A number for each negotiation of a connection, from the packet that begins it to the SAs, by which a person finds its lines.
#[derive(Debug, Default)]
struct Attempts {
    last: u64,
    running: BTreeMap<String, Attempt>,
}

/// What goes on for a connection.
#[derive(Debug, Default)]
struct Attempt {
    number: u64,
    since: Time,
    /// The last word about it.
    said: String,
}

impl Attempts {
    /// What goes on for a connection; a new one if nothing did.
    fn of(&mut self, name: &str, now: Time) -> &mut Attempt {
        let last = &mut self.last;
        self.running.entry(name.to_owned()).or_insert_with(|| {
            *last = last.wrapping_add(1);
            Attempt { number: *last, since: now, said: String::new() }
        })
    }

    /// What comes next for it is another.
    fn end(&mut self, name: &str) {
        self.running.remove(name);
    }
}

/// Why a connection is not up that somebody took down.
const ASKED: &str = "taken down on this side";

/// Who hears what is said of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hears {
    All,
    /// Not who waits for it to be up: what becomes of it is their answer, and is not said twice.
    NotWatchers,
}

/// Somebody who waits for a section to be up.
struct Watcher {
    section: String,
    reply: Sender<Value>,
}

/// Who waits for connections to be down.
struct Leaving {
    names: Vec<String>,
    /// A peer that is not there cannot agree, and nobody waits for that until it is given up.
    until: Time,
    reply: Sender<Value>,
}

struct Pluto {
    options: Options,
    /// Why the record has stopped, if it has.
    record_failed: record::Failed,
    endpoint: Endpoint,
    planned: BTreeMap<String, Planned>,
    hosts: names::Hosts,
    policy: Policy,
    leases: Leases,
    plane: Option<Plane>,
    searched: Time,
    complained: bool,
    ports: Ports,
    watch: Watch,
    pool: Pool,
    inbox: Inbox,
    signals: SignalFd,
    watchers: Vec<Watcher>,
    leaving: Vec<Leaving>,
    /// Who wants to hear everything that is said of connections.
    listeners: Vec<Sender<Value>>,
    attempts: Attempts,
    failures: Failures,
    /// Connections that wait for an IKE SA that is being made, in order: all of one peer share one.
    waiting: VecDeque<String>,
    buffer: Vec<u8>,
    /// Certificates without a current revocation list of their issuer are not believed.
    strict: bool,
    stop: bool,
    /// What is up stays so, for the pluto that follows.
    leave: bool,
}

impl Pluto {
    fn new(options: &Options, signals: &SigSet) -> io::Result<Self> {
        let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let inbox = ctl::spawn(&options.rundir.pluto_ctl())?;
        let (random, now) = (Box::new(SystemRandom), clock::now());
        let mut record_failed = record::Failed::default();
        let mut endpoint = match &options.record {
            Some(dir) => {
                let recorder = Recorder::new(dir)?;
                record_failed = recorder.failed();
                tracing::warn!(
                    "EVERYTHING IKE SAYS IS RECORDED WITH ALL ITS KEYS in {}: who can read that can read what goes through the tunnels",
                    dir.display()
                );
                Endpoint::recorded(random, now, Box::new(recorder))
            }
            None => Endpoint::new(random, now),
        };
        endpoint.set_jobs(options.helpers.max(1).saturating_mul(JOBS));
        let leases = Leases::read(options.rundir.pluto_leases());
        leases.all().for_each(|(address, holder)| endpoint.restore_lease(address, holder));
        Ok(Self {
            options: options.clone(),
            record_failed,
            endpoint,
            leases,
            planned: BTreeMap::new(),
            hosts: names::Hosts::default(),
            policy: Policy::new(options.rundir.clone()),
            plane: None,
            searched: Time::ZERO,
            complained: false,
            ports: Ports::default(),
            watch: Watch::open()?,
            pool: Pool::new(options.helpers)?,
            inbox,
            signals,
            watchers: Vec::new(),
            leaving: Vec::new(),
            listeners: Vec::new(),
            attempts: Attempts::default(),
            failures: Failures::default(),
            waiting: VecDeque::new(),
            buffer: vec![0; ikesock::LONGEST],
            strict: false,
            stop: false,
            leave: false,
        })
    }

    /// Reads the configuration and does with each connection what its `auto=` says.
    fn start(&mut self) {
        self.listen();
        self.find_plane(clock::now());
        if let Err(why) = self.read_secrets() {
            tracing::error!("{why}");
        }
        match self.reload(false) {
            Ok(_) => self.look_up_again(),
            Err(why) => tracing::error!("{why}"),
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        while !self.stop {
            self.settle();
            self.say_who_left(clock::now());
            let ready = self.wait()?;
            let now = clock::now();
            self.endpoint.set_epoch(clock::epoch());
            if ready.signal {
                self.signal();
            }
            if ready.links && self.watch.take(|_| false).changed {
                self.listen();
                self.look_again(now);
            }
            while let Some((id, answer)) = self.pool.answer() {
                self.endpoint.answer(id, answer, now);
            }
            self.receive(now);
            self.hear(now);
            self.inbox.waker.clear();
            while let Some(asked) = self.inbox.next() {
                self.act(asked);
            }
            if self.endpoint.deadline() <= now {
                self.endpoint.timeout(now);
            }
            if let Some(plane) = &mut self.plane
                && self.policy.deadline().is_some_and(|over| over <= now)
            {
                self.policy.expire(&mut plane.kernel, Some(now));
            }
            self.find_plane(now);
            if self.hosts.again.is_some_and(|due| due <= now) {
                self.look_up_again();
            }
        }
        Ok(())
    }

    /// Waits until something happens, or until something is to be done.
    fn wait(&self) -> io::Result<Ready> {
        let now = clock::now();
        let mut due = self.endpoint.deadline();
        match (&self.plane, self.policy.deadline()) {
            (None, _) => due = due.min(self.searched.after(SEARCH)),
            (Some(_), Some(over)) => due = due.min(over),
            (Some(_), None) => {}
        }
        due = due.min(self.hosts.again.unwrap_or(Time::FOREVER));
        due = self.leaving.iter().map(|leaving| leaving.until).fold(due, Time::min);
        let wait = due.since(now).min(Duration::from_secs(60));
        let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
        let signals = self.signals.as_fd();
        let mut all = vec![
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(&self.watch, PollFlags::IN),
            PollFd::new(&self.inbox.waker, PollFlags::IN),
            PollFd::new(self.pool.waker(), PollFlags::IN),
        ];
        let key = self.plane.as_ref().map(|plane| plane.kernel.fd());
        if let (Some(plane), Some(key)) = (&self.plane, &key) {
            all.push(PollFd::new(key, PollFlags::IN));
            all.push(PollFd::new(&plane.ike, PollFlags::IN));
        }
        all.extend(self.ports.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::IN)));
        match poll(&mut all, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is = |n: usize| all.get(n).is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty());
        let ready = Ready { signal: is(0), links: is(1) };
        if is(3) {
            self.pool.waker().clear();
        }
        Ok(ready)
    }

    fn signal(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGHUP) => match self.reread() {
                    Ok(_) => self.look_up_again(),
                    Err(why) => tracing::error!("SIGHUP: {why}"),
                },
                Ok(signal) => {
                    tracing::info!("{signal}: stopping");
                    self.stop = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Opens port 500 of the addresses that are there now.
    fn listen(&mut self) {
        match self.ports.follow() {
            Ok(failed) => failed.iter().for_each(|line| tracing::error!("{line}")),
            Err(error) => tracing::warn!("netlink: {error}"),
        }
        let all: Vec<IpAddr> = self.ports.iter().map(|(address, _)| *address).collect();
        let ports = &self.ports;
        // What goes through a tunnel of ours leaves from an address of the tunnel, which is none to move to.
        let leaves_from = |here: IpAddr, remote: IpAddr| {
            let first = || all.iter().copied().find(|address| address.is_ipv4() == here.is_ipv4());
            let route = ports.address_towards(Some(remote)).filter(|address| ports.has(*address));
            route.or_else(|| if ports.has(here) { Some(here) } else { first() })
        };
        self.endpoint.addresses(all.clone(), leaves_from, clock::now());
    }

    /// Connects to klips if it is not, and puts back what it does not have any more.
    fn find_plane(&mut self, now: Time) {
        if self.plane.is_some() || now < self.searched.after(SEARCH) {
            return;
        }
        self.searched = now;
        let rundir = &self.options.rundir;
        let found = PfKey::connect(rundir).map_err(|error| error.to_string()).and_then(|kernel| {
            let ike = Client::connect(rundir).map_err(|error| format!("ike.sock: {error}"))?;
            Ok(Plane { kernel, ike })
        });
        match found {
            Ok(mut plane) => {
                tracing::info!("klips is there: UDP 4500 and the SA database are in reach");
                self.complained = false;
                let lost = self.policy.found(&mut plane.kernel);
                self.plane = Some(plane);
                for spi in lost {
                    self.endpoint.child_expired(spi, true, now);
                }
            }
            Err(why) if !self.complained => {
                tracing::warn!(
                    "{why}: until klips is there no SAs can be made and peers behind a NAT not be reached"
                );
                self.complained = true;
            }
            Err(_) => {}
        }
    }

    fn lost_plane(&mut self) {
        if self.plane.take().is_some() {
            tracing::warn!("klips has gone: waiting for it");
            self.policy.lost();
        }
    }

    /// Takes what has arrived at both ports.
    fn receive(&mut self, now: Time) {
        for (address, socket) in self.ports.iter() {
            for _ in 0..TURN {
                match socket.recv_from(&mut self.buffer) {
                    Ok((len, from)) => {
                        let octets = self.buffer.get(..len).unwrap_or_default();
                        self.endpoint.datagram(SocketAddr::new(*address, ports::IKE), from, octets, now);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An earlier datagram of ours was refused somewhere; IKE finds out by itself.
                    Err(_) => {}
                }
            }
        }
        let Some(plane) = &self.plane else { return };
        for _ in 0..TURN {
            match plane.ike.receive(&mut self.buffer) {
                Ok(Some(Record { kind: Kind::Ike, local, remote, message })) => {
                    self.endpoint.datagram(local, remote, message, now);
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => return self.lost_plane(),
            }
        }
    }

    /// Takes what the data plane has to say.
    fn hear(&mut self, now: Time) {
        let Some(plane) = &mut self.plane else { return };
        let Ok(notices) = plane.kernel.notices() else { return self.lost_plane() };
        for notice in notices {
            match notice {
                Notice::Acquire { src, dst } => {
                    let Some(connection) = self.endpoint.connection_for(src, dst).cloned() else {
                        tracing::info!(
                            "a packet from {src} to {dst} needs an SA, and no connection is for it"
                        );
                        continue;
                    };
                    self.say(&connection.name, &format!("begun by a packet from {src} to {dst}"));
                    if let Err(why) = self.up(&connection.name, now) {
                        self.failed(&connection.name, &why);
                    }
                }
                Notice::Expire { spi, hard } => {
                    if hard && let Some(plane) = &mut self.plane {
                        self.policy.dead(&mut plane.kernel, spi);
                    }
                    self.endpoint.child_expired(spi, hard, now);
                }
                Notice::Mapping { spi, from } => self.endpoint.mapping(spi, from, now),
            }
        }
    }

    /// Does what the engine wants done, until it wants nothing more.
    fn settle(&mut self) {
        let now = clock::now();
        loop {
            let mut any = false;
            while let Some(event) = self.endpoint.event() {
                any = true;
                self.event(event, now);
            }
            while let Some(transmit) = self.endpoint.transmit() {
                any = true;
                self.send(transmit.local, transmit.remote, &transmit.octets);
            }
            while let Some((id, job)) = self.endpoint.job() {
                any = true;
                self.job(id, job, now);
            }
            if !any {
                return;
            }
        }
    }

    fn send(&self, local: SocketAddr, remote: SocketAddr, octets: &[u8]) {
        let sent = if local.port() == ports::IKE {
            self.ports.send(local.ip(), remote, octets)
        } else {
            let (kind, message) =
                if octets == [0xff] { (Kind::Keepalive, &[][..]) } else { (Kind::Ike, octets) };
            match &self.plane {
                Some(plane) => plane.ike.send(&Record { kind, local, remote, message }),
                None => Err(io::ErrorKind::NotConnected.into()),
            }
        };
        if let Err(error) = sent {
            tracing::debug!("{local} to {remote}: {error}");
        }
    }

    fn job(&mut self, id: JobId, job: Job, now: Time) {
        let Job::Spi { local, peer } = job else { return self.pool.run(id, job) };
        let spi = match &mut self.plane {
            None => None,
            Some(plane) => match plane.kernel.spi(local, peer) {
                Ok(spi) => Some(spi),
                Err(error) => {
                    tracing::error!("no SPI for what comes from {peer}: {error}");
                    None
                }
            },
        };
        self.endpoint.answer(id, Answer::Spi(spi), now);
    }

    fn event(&mut self, event: Event, now: Time) {
        let most = match &event {
            // Twice as many each time, and never more at once than an IKE SA queues.
            Event::ChildUp(_) => 2,
            Event::IkeUp { .. } | Event::IkeDown { .. } | Event::Failed { .. } => 1,
            Event::IkeRekeyed { .. }
            | Event::ChildInUse { .. }
            | Event::ChildDown { .. }
            | Event::ChildMoved { .. }
            | Event::Leased { .. }
            | Event::PeerFailed { .. }
            | Event::Progress { .. }
            | Event::Again { .. } => 0,
        };
        self.happened(event, now);
        self.go_on(most, now);
    }

    fn happened(&mut self, event: Event, now: Time) {
        match event {
            Event::ChildUp(child) => {
                let name = child.connection.name.clone();
                let planned = self.planned.get(&name);
                let done = match &mut self.plane {
                    Some(plane) => self.policy.up(&mut plane.kernel, &child, planned),
                    None => Err("the data plane does not answer".to_owned()),
                };
                match done {
                    Ok(()) => {
                        let what =
                            if child.replaces.is_some() { "SAs replaced" } else { "IPsec SA established" };
                        let how = if child.encapsulate { " in UDP" } else { "" };
                        self.say(
                            &name,
                            &format!(
                                "{what} {{ESP{how} in={:#010x} out={:#010x} {}}}",
                                child.inbound.spi,
                                child.outbound.spi,
                                status::flows(&child.local_selectors, &child.remote_selectors)
                            ),
                        );
                        self.failures.is_up(&name, child.remote.ip());
                        self.finish(&name, &Ok(()));
                    }
                    Err(why) => {
                        self.failed(&name, &format!("the SAs could not be installed: {why}"));
                        // Other peers of the connection have theirs.
                        if self.policy.is_up(&name) {
                            self.endpoint.delete_child(child.inbound.spi, now);
                        } else {
                            self.endpoint.down(&name, now);
                        }
                    }
                }
            }
            Event::ChildInUse { spi_in } => {
                if let Some(plane) = &mut self.plane
                    && let Err(why) = self.policy.in_use(&mut plane.kernel, spi_in)
                {
                    tracing::error!("SA {spi_in:#010x}: {why}");
                }
            }
            Event::ChildDown { connection, spi_in, replaced, .. } => {
                let was_up = self.policy.is_up(&connection.name);
                if let Some(plane) = &mut self.plane {
                    self.policy.down(&mut plane.kernel, spi_in, replaced, now);
                } else {
                    self.policy.forget(spi_in);
                }
                if !replaced {
                    let name = &connection.name;
                    self.doubt(name, now);
                    self.say(name, &format!("IPsec SA is down {{in={spi_in:#010x}}}"));
                    // What could not even be installed has a better reason than this.
                    if was_up {
                        let why = if self.leaves(name) { ASKED } else { "its SAs ended" };
                        self.note_down(name, why, now);
                    }
                }
            }
            Event::ChildMoved { spi_in, from, to, encapsulate, .. } => {
                let moved = match &mut self.plane {
                    Some(plane) => self.policy.relocate(&mut plane.kernel, spi_in, to, encapsulate),
                    None => Ok(()),
                };
                match moved {
                    Ok(()) => tracing::info!(
                        "SA {spi_in:#010x}: from {} and {} to {} and {}, its numbers kept",
                        from.0,
                        from.1,
                        to.0,
                        to.1
                    ),
                    Err(why) => {
                        tracing::warn!("SA {spi_in:#010x} could not be moved, and is negotiated anew: {why}");
                        self.endpoint.child_expired(spi_in, false, now);
                    }
                }
            }
            Event::Leased { address, holder } => {
                if let Err(error) = self.leases.note(address, &holder) {
                    tracing::warn!(
                        "{}: {error}: a peer may get another address after a restart",
                        self.options.rundir.pluto_leases().display()
                    );
                }
            }
            Event::IkeUp { connection, peer, remote, .. } => {
                self.say(&connection.name, &format!("IKE SA established with {peer} at {remote}"));
            }
            Event::IkeRekeyed { from, to } => tracing::info!("IKE SA {from} was replaced by {to}"),
            Event::IkeDown { connection: Some(connection), why, .. } => {
                self.doubt(&connection.name, now);
                let name = &connection.name;
                self.tell(name, &format!("IKE SA is down: {why}"), Hears::NotWatchers);
                if why != Why::Asked && why != Why::Rekeyed {
                    self.note_down(name, &format!("IKE SA is down: {why}"), now);
                } else if self.leaves(name) {
                    // What we end for another reason has that reason.
                    self.note_down(name, ASKED, now);
                }
                self.finish(name, &Err(why.to_string()));
            }
            Event::IkeDown { why, .. } => tracing::info!("a peer's negotiation came to nothing: {why}"),
            Event::PeerFailed { remote, why } => {
                let said = format!("negotiation with {remote} came to nothing: {why}");
                tracing::info!("{said}");
                self.failures.note_peer(remote.ip(), &said, now);
            }
            Event::Progress { connection: Some(connection), text } => self.say(&connection.name, &text),
            Event::Progress { connection: None, text } => tracing::info!("{text}"),
            Event::Again { name, connection } => {
                if connection.is_some()
                    && let Err(why) = self.up(&name, now)
                {
                    self.failed(&name, &why);
                }
            }
            Event::Failed { connection, why } => {
                self.doubt(&connection.name, now);
                let name = &connection.name;
                self.tell(name, &format!("given up: {why}"), Hears::NotWatchers);
                let asked = why == Why::Asked;
                let why = why.to_string();
                self.note_down(name, if asked { ASKED } else { &why }, now);
                self.finish(name, &Err(why));
            }
        }
    }

    /// The section a connection comes from.
    fn section<'n>(&'n self, name: &'n str) -> &'n str {
        self.planned.get(name).map_or(name, |planned| &planned.section)
    }

    /// Says something about a connection: in the log, and to who waits for it.
    fn say(&mut self, name: &str, text: &str) {
        self.tell(name, text, Hears::All);
    }

    /// Something about a connection came to nothing, and who waits for it is told so.
    fn failed(&mut self, name: &str, why: &str) {
        self.tell(name, why, Hears::NotWatchers);
        self.note_down(name, why, clock::now());
        self.finish(name, &Err(why.to_owned()));
    }

    /// Whether somebody is taking a connection down.
    fn leaves(&self, name: &str) -> bool {
        self.leaving.iter().any(|leaving| leaving.names.iter().any(|one| one == name))
    }

    /// Keeps why a connection is not up, if it is not.
    fn note_down(&mut self, name: &str, why: &str, now: Time) {
        if self.planned.contains_key(name) && !self.policy.is_up(name) {
            self.failures.note(name, why, now);
        }
    }

    /// The same as [`Self::say`], to fewer.
    fn tell(&mut self, name: &str, text: &str, hears: Hears) {
        let attempt = self.attempts.of(name, clock::now());
        attempt.said = text.to_owned();
        let number = attempt.number;
        let said = format!("\"{name}\" #{number}: {text}");
        tracing::info!("{said}");
        let section = self.section(name).to_owned();
        let line = json!({ "say": said });
        if !self.listeners.is_empty() {
            let event = json!({ "say": { "connection": name, "negotiation": number, "text": text } });
            self.listeners.retain(|listener| listener.send(event.clone()).is_ok());
        }
        if hears == Hears::All {
            self.watchers
                .retain(|watcher| watcher.section != section || watcher.reply.send(line.clone()).is_ok());
        }
    }

    /// Tells who waits for a connection what came of it. A section of several connections is up when all are.
    fn finish(&mut self, name: &str, outcome: &Result<(), String>) {
        self.attempts.end(name);
        let section = self.section(name).to_owned();
        if outcome.is_ok() && !self.is_up(&section) {
            return;
        }
        let line = match outcome {
            Ok(()) => json!({ "ok": null }),
            Err(why) => json!({ "error": format!("\"{name}\": {why}") }),
        };
        self.watchers.retain(|watcher| {
            if watcher.section != section {
                return true;
            }
            let _ = watcher.reply.send(line.clone());
            false
        });
    }

    /// Whether every connection of a section has its SAs.
    fn is_up(&self, section: &str) -> bool {
        let mut names = self.names(section).into_iter().peekable();
        names.peek().is_some() && names.all(|name| self.policy.is_up(&name))
    }

    /// The connections a section became.
    fn names(&self, section: &str) -> Vec<String> {
        // A section of several is `section/1x2` and so on: they lie beside one another.
        let from = self.planned.range::<str, _>((Bound::Included(section), Bound::Unbounded));
        let of = from.take_while(|(name, _)| name.starts_with(section));
        of.filter(|(_, planned)| planned.section == section).map(|(name, _)| name.clone()).collect()
    }

    fn loaded(&self, section: &str) -> Result<Vec<String>, String> {
        let names = self.names(section);
        if names.is_empty() {
            return Err(format!("no connection named \"{section}\" is loaded: `ipsec auto --add {section}'"));
        }
        Ok(names)
    }

    fn up(&mut self, name: &str, now: Time) -> Result<(), String> {
        let planned = self.planned.get(name).ok_or("no such connection")?;
        // One that may move begins from where it is now.
        let left =
            planned.ike.local_address.filter(|address| !planned.ike.mobike || self.ports.has(*address));
        let local = left.or_else(|| self.ports.address_towards(planned.ike.remote_address));
        let local = local.ok_or("this host has no address towards the peer")?;
        if self.is_begun_by_another(name) {
            if !self.waiting.iter().any(|waiting| waiting == name) {
                self.waiting.push_back(name.to_owned());
            }
            return Ok(());
        }
        self.endpoint.up(name, local, now).map_err(str::to_owned)
    }

    /// Whether an IKE SA between the same two ends is being made for another connection.
    fn is_begun_by_another(&self, name: &str) -> bool {
        let Some(own) = self.planned.get(name) else { return false };
        self.endpoint.begun().filter(|other| other.name != name).any(|other| {
            self.planned.get(&other.name).is_some_and(|other| {
                let (one, two) = (&own.ike, &other.ike);
                one.local_address == two.local_address
                    && one.remote_address == two.remote_address
                    && one.local_id == two.local_id
                    && one.remote_id == two.remote_id
            })
        })
    }

    /// Lets some of those that wait go on.
    fn go_on(&mut self, most: usize, now: Time) {
        for _ in 0..most {
            let Some(name) = self.waiting.pop_front() else { return };
            if let Err(why) = self.up(&name, now) {
                self.failed(&name, &why);
            }
        }
    }

    /// Tells the peers, removes what was installed.
    fn stop(&mut self) {
        self.endpoint.shutdown(clock::now());
        self.settle();
        let names: Vec<String> = self.planned.keys().cloned().collect();
        names.iter().for_each(|name| self.unroute(name));
        if let Some(plane) = &mut self.plane {
            self.policy.expire(&mut plane.kernel, None);
            self.policy.bury(&mut plane.kernel, |_| false);
        }
    }
}

/// What has happened while waiting.
struct Ready {
    signal: bool,
    links: bool,
}
