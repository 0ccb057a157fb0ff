//! The supervisor (`plutorestartoncrash=yes`): starts a daemon again that died, and ends one that does not answer.
//!
//! It is started last and ended first, so whatever ends while it lives did so by itself. A daemon that was told to end takes
//! its pid file along, one that died leaves it: that is how the two are told apart. What it starts and stops, it does under
//! the same lock as `ipsec setup`, so the two never work at once.

mod backoff;
mod record;

use super::start::{self, Wanted};
use super::{TAG, Turn, Voice, stop};
use crate::ctl;
use crate::daemon::program::{READY, settle};
use crate::host::clock;
use crate::log::Priority;
use crate::pluto;
use crate::process::{self, Process};
use crate::rundir::{self, Rundir};
use backoff::Backoff;
use ipsec_core::Time;
use nix::sys::signal::{SigSet, Signal as Asked};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use sd_notify::NotifyState;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

pub(super) use record::{Record, Said};

/// Between two questions whether the daemons answer.
const ASK: Duration = Duration::from_secs(10);
/// How long one may take to answer one of them.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one may go on without answering any before it is taken for dead.
const HANGS: Duration = Duration::from_secs(60);
/// Between two looks for a daemon that is not there and that nobody wants started.
const LOOK: Duration = Duration::from_secs(2);

/// The supervisor of this run directory, found by the lock it holds.
pub(super) fn who(rundir: &Rundir) -> Option<Process> {
    let lock = rundir.supervisor_lock();
    let named = Process::read(&rundir.supervisor_pid()).and_then(|named| Process::now(named.pid));
    named.filter(|process| process.holds(&lock)).or_else(|| Process::holder(&lock))
}

/// Starts the supervisor in the background, and returns once it watches.
pub(super) fn spawn(file: Option<&Path>, voice: &Voice) -> Result<(), String> {
    let failed = |error: io::Error| format!("the supervisor cannot be started: {error}");
    let mut command = Command::new(process::program().map_err(failed)?);
    command.args(["setup", "supervise"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(file) = file {
        command.arg("--config").arg(std::path::absolute(file).map_err(failed)?);
    }
    let mut child = command.spawn().map_err(failed)?;
    let Some(out) = child.stdout.take() else { return Ok(()) };
    // It reads the configuration anew and says what start has said already, unless it comes to nothing.
    let mut said = Vec::new();
    for line in BufReader::new(out).lines() {
        let line = line.map_err(failed)?;
        if line == READY {
            return Ok(());
        }
        said.push(line);
    }
    let tag = format!("{TAG}: ");
    said.iter().for_each(|line| voice.say(line.strip_prefix(&tag).unwrap_or(line)));
    Err(format!("the supervisor ended as soon as it had started: {}", child.wait().map_err(failed)?))
}

/// Ends the supervisor, so that nothing is started again while the rest is ended.
pub(super) fn end(rundir: &Rundir) -> io::Result<()> {
    let Some(supervisor) = who(rundir) else { return Ok(()) };
    supervisor.signal(Signal::TERM)?;
    if supervisor.wait(stop::PATIENCE)? {
        return Ok(());
    }
    supervisor.signal(Signal::KILL)?;
    supervisor.wait(stop::PATIENCE).map(drop)
}

/// Has the supervisor run the program that is installed now, as the same process: for systemd it is the service.
pub(super) fn renew(rundir: &Rundir) -> io::Result<()> {
    who(rundir).map_or(Ok(()), |supervisor| supervisor.signal(Signal::HUP).map(drop))
}

/// What the process does: `ipsec setup supervise`, which nobody types.
pub(super) fn run(rundir: &Rundir, file: Option<&Path>) -> ExitCode {
    let voice = Voice::new(Priority::DEFAULT);
    let Ok(wanted) = start::read(file, &voice) else { return ExitCode::FAILURE };
    let voice = wanted.voice();
    match Supervisor::new(rundir, wanted, voice) {
        Ok(mut supervisor) => {
            supervisor.tell_systemd(&[
                NotifyState::MainPid(std::process::id()),
                NotifyState::Ready,
                NotifyState::Status("klips and pluto run"),
            ]);
            let _ = settle();
            loop {
                supervisor.watch();
                if !supervisor.renew.get() {
                    break;
                }
                supervisor.again();
            }
            supervisor.tell_systemd(&[NotifyState::Stopping]);
            ExitCode::SUCCESS
        }
        Err(error) => {
            voice.say(&format!("the supervisor cannot watch: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// One daemon and what is known of it.
struct Ward {
    name: &'static str,
    /// It, and a handle that is readable when it has ended.
    alive: Option<(Process, OwnedFd)>,
    /// Since when it has not answered.
    silent: Option<Time>,
    /// When it is to be started again.
    due: Option<Time>,
    backoff: Backoff,
    record: Record,
}

impl Ward {
    fn new(name: &'static str, record: Record) -> Self {
        Self { name, alive: None, silent: None, due: None, backoff: Backoff::default(), record }
    }

    /// Whether it has not answered for too long, now that it was asked again.
    fn hangs(&mut self, answered: bool, now: Time) -> bool {
        if answered {
            self.silent = None;
            return false;
        }
        now.since(*self.silent.get_or_insert(now)) >= HANGS
    }

    fn has_ended(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.alive.as_ref().is_some_and(|(_, fd)| {
            poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
        })
    }
}

struct Supervisor {
    rundir: Rundir,
    wanted: Wanted,
    voice: Voice,
    signals: SignalFd,
    wards: Vec<Ward>,
    /// When the daemons were last asked whether they answer.
    asked: Time,
    /// How often systemd wants to hear from us, where it does.
    watchdog: Option<Duration>,
    told: Cell<bool>,
    /// To start anew, with the program and the configuration there are now.
    renew: Cell<bool>,
    _lock: File,
}

const KLIPS: &str = "klips";
const PLUTO: &str = "pluto";

impl Supervisor {
    fn new(rundir: &Rundir, wanted: Wanted, voice: Voice) -> io::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Asked::SIGTERM, Asked::SIGINT, Asked::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block()?;
        let lock = rundir::lock(&rundir.supervisor_lock())?
            .ok_or_else(|| io::Error::other("there is one already"))?;
        Process::me()?.write(&rundir.supervisor_pid())?;
        // Zero is none, and not a reason to do nothing else.
        let usec = std::env::var("WATCHDOG_USEC").ok().and_then(|usec| usec.parse().ok());
        let usec = usec.filter(|usec: &u64| *usec > 0);
        // What an earlier program of this process has done, or one that was killed.
        let mut said = Record::read(&rundir.supervisor_state());
        let names = [KLIPS, PLUTO].into_iter().take(if wanted.pluto { 2 } else { 1 });
        let wards = names.map(|name| Ward::new(name, said.remove(name).unwrap_or_default())).collect();
        let mut all = Self {
            rundir: rundir.clone(),
            wanted,
            voice,
            signals: SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
            wards,
            asked: clock::now(),
            watchdog: usec.map(|usec| Duration::from_micros(usec) / 3),
            told: Cell::new(false),
            renew: Cell::new(false),
            _lock: lock,
        };
        all.note();
        Ok(all)
    }

    fn watch(&mut self) {
        while !self.is_told_to_end() && !self.renew.get() {
            let now = clock::now();
            for at in 0..self.wards.len() {
                self.look(at, now);
            }
            if now >= self.asked.after(ASK) {
                self.asked = now;
                for at in 0..self.wards.len() {
                    self.ask(at, now);
                }
            }
            if self.watchdog.is_some() {
                self.tell_systemd(&[NotifyState::Watchdog]);
            }
            self.wait();
        }
    }

    /// Sees whether a daemon has died, and starts it when its time has come.
    fn look(&mut self, at: usize, now: Time) {
        let Some(ward) = self.wards.get_mut(at) else { return };
        if ward.has_ended()
            && let Some((process, _)) = ward.alive.take()
        {
            ward.silent = None;
            if Process::read(&file(&self.rundir, ward.name)).is_some_and(|named| named.pid == process.pid) {
                self.died(at, process, now);
            } else {
                self.voice.log(&format!("{} (pid {}) has ended as it was told to", ward.name, process.pid));
                self.note();
            }
        }
        let Some(ward) = self.wards.get_mut(at) else { return };
        if ward.alive.is_none()
            && let Some(process) = alive(&self.rundir, ward.name)
            && let Ok(Some(fd)) = process.open()
        {
            ward.alive = Some((process, fd));
            ward.backoff.started(now);
            if ward.due.take().is_some() || ward.record.due.is_some() {
                ward.record.started();
                self.note();
            }
            return;
        }
        // It can have died before we first looked: between its start and ours, or while there was no supervisor.
        if ward.alive.is_none()
            && ward.due.is_none()
            && let Some(process) = dead(&self.rundir, ward.name)
        {
            self.died(at, process, now);
        }
        let Some(ward) = self.wards.get(at) else { return };
        if ward.due.is_some_and(|due| due <= now) {
            self.start(at);
        }
    }

    /// Has a daemon that died started again, after a while if it does so often.
    fn died(&mut self, at: usize, process: Process, now: Time) {
        let Some(ward) = self.wards.get_mut(at) else { return };
        let delay = ward.backoff.died(now);
        ward.due = Some(now.after(delay));
        ward.record.died(delay);
        let when = if delay.is_zero() { "now".to_owned() } else { format!("in {} s", delay.as_secs()) };
        self.voice.say(&format!("{} (pid {}) has died: it is started again {when}", ward.name, process.pid));
        self.note();
    }

    /// Starts a daemon again.
    fn start(&mut self, at: usize) {
        let Some(turn) = Turn::within(&self.rundir, || self.is_told_to_end()) else { return };
        let Some(ward) = self.wards.get(at) else { return };
        let name = ward.name;
        // While we waited for our turn, somebody else may have started it.
        if alive(&self.rundir, name).is_some() {
            return;
        }
        let started = if name == KLIPS {
            start::data_plane(&self.rundir, &self.wanted, &self.voice).inspect_err(|_| {
                // Half a data plane is of no use, and what it protects stays in.
                let _ = stop::end_klips(&self.rundir, &self.voice, true);
            })
        } else {
            start::key_daemon(&self.wanted, &self.voice)
        };
        drop(turn);
        let now = clock::now();
        let Some(ward) = self.wards.get_mut(at) else { return };
        match started {
            Ok(()) => {
                self.voice.say(&format!("{name} runs again"));
                self.look(at, now);
            }
            Err(why) => {
                let delay = ward.backoff.died(now);
                ward.due = Some(now.after(delay));
                ward.record.failed(&why.why, delay);
                self.voice.say(&format!("{name}: {}: tried again in {} s", why.why, delay.as_secs()));
                self.note();
            }
        }
    }

    /// Asks a daemon whether it answers, and ends one that has not done so for too long.
    fn ask(&mut self, at: usize, now: Time) {
        let Some(ward) = self.wards.get_mut(at) else { return };
        let Some((process, _)) = &ward.alive else { return };
        let process = *process;
        let answered = answers(&self.rundir, ward.name);
        if ward.hangs(answered, now) {
            self.voice.say(&format!(
                "{} (pid {}) has not answered for {} s: ending it",
                ward.name,
                process.pid,
                HANGS.as_secs()
            ));
            let _ = process.signal(Signal::KILL);
        }
    }

    fn wait(&self) {
        let now = clock::now();
        let mut until = self.asked.after(ASK);
        if let Some(often) = self.watchdog {
            until = until.min(now.after(often));
        }
        for ward in &self.wards {
            until = until.min(match (&ward.alive, ward.due) {
                (Some(_), _) => until,
                (None, Some(due)) => due,
                (None, None) => now.after(LOOK),
            });
        }
        let timeout = Timespec::try_from(until.since(now).min(ASK)).ok();
        let mut all = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let ends = self.wards.iter().filter_map(|ward| ward.alive.as_ref());
        all.extend(ends.map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        if poll(&mut all, timeout.as_ref()).is_err() {
            // Interrupted, or out of memory for a moment: never in a tight loop.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_told_to_end(&self) -> bool {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let hup = info.ssi_signo.cast_signed() == Asked::SIGHUP as i32;
            if hup { &self.renew } else { &self.told }.set(true);
        }
        self.told.get()
    }

    /// Becomes the program that is installed now. Returns only if that cannot be done.
    fn again(&mut self) {
        self.renew.set(false);
        let why = match process::program() {
            // The arguments are the same; the lock goes with this program and is taken by the next.
            Ok(program) => Command::new(program).args(std::env::args_os().skip(1)).exec(),
            Err(error) => error,
        };
        self.voice.say(&format!("the supervisor goes on as it is: {why}"));
    }

    /// Writes down what status is to know.
    fn note(&mut self) {
        let path = self.rundir.supervisor_state();
        let records = self.wards.iter().map(|ward| (ward.name, &ward.record));
        if let Err(error) = record::write(&path, records) {
            self.voice.log(&format!("{}: {error}", path.display()));
        }
    }

    fn tell_systemd(&self, what: &[NotifyState<'_>]) {
        // Where systemd did not start us there is nobody to tell.
        let _ = sd_notify::notify(what);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for path in
            [self.rundir.supervisor_state(), self.rundir.supervisor_pid(), self.rundir.supervisor_lock()]
        {
            let _ = fs::remove_file(path);
        }
    }
}

fn file(rundir: &Rundir, name: &str) -> PathBuf {
    if name == KLIPS { rundir.klips_pid() } else { rundir.pluto_pid() }
}

/// The daemon if it lives, has said so in its pid file, and can be asked.
fn alive(rundir: &Rundir, name: &str) -> Option<Process> {
    let lock = if name == KLIPS { rundir.klips_lock() } else { rundir.pluto_lock() };
    let named = Process::read(&file(rundir, name)).and_then(|named| Process::now(named.pid));
    named.filter(|process| process.holds(&lock))
}

/// The daemon if it has died: its pid file is there, and names a process that is not.
fn dead(rundir: &Rundir, name: &str) -> Option<Process> {
    Process::read(&file(rundir, name)).filter(|process| !process.is_alive())
}

fn answers(rundir: &Rundir, name: &str) -> bool {
    if name == KLIPS {
        let client = ctl::Client::connect(rundir).and_then(|client| Ok(client.within(PATIENCE)?));
        client.and_then(|mut client| client.call(ctl::Request::Status)).is_ok()
    } else {
        let client = pluto::ctl::Client::connect(rundir).and_then(|client| Ok(client.within(PATIENCE)?));
        client.and_then(|mut client| client.call(&pluto::ctl::Request::Ping, |_| Ok(()))).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_for_a_minute_hangs_and_who_answers_once_between_does_not() {
        let at = |seconds: u64| Time::from_nanos(seconds * 1_000_000_000);
        let mut ward = Ward::new(KLIPS, Record::default());
        assert!(!ward.hangs(false, at(100)), "the first time is not long");
        assert!(!ward.hangs(false, at(159)));
        assert!(!ward.hangs(true, at(160)));
        assert!(!ward.hangs(false, at(170)) && !ward.hangs(false, at(229)));
        assert!(ward.hangs(false, at(230)));
    }
}
