//! `ipsec run --restart`: the program begins and ends with the data plane.
//!
//! A key manager keeps in its memory what it has told the SADB. A kernel's SADB goes only with the machine, so no key manager has a plan
//! for one that is empty all of a sudden: its SAs and policies are gone, and only it knows them. Nobody can put them back in its place,
//! for a peer has gone on counting in the meantime. Being started is what every one of them has a plan for.

use super::super::Failure;
use crate::host::clock;
use crate::keyclient::{KeyClient, KeyError};
use crate::print;
use crate::process::{self, Process};
use crate::rundir::Rundir;
use ipsec_core::Time;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use pfkey::dialect::Dialect;
use pfkey::{MessageType, SaType};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::Duration;

/// What ends a program, or is for it to act on: it hears of these through us.
const SIGNALS: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
/// How long the program may take to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for a data plane.
const LOOK: Duration = Duration::from_millis(200);
/// No more than a base header of what the service says to all is looked at.
const HEAD: usize = 16;

/// What becomes of us.
enum End {
    /// The program has ended by itself, or because it was told to.
    Program(ExitStatus),
    /// We were told to while no program ran.
    Told(i32),
}

/// Keeps the program running while there is a data plane. `words` are the program, which was found, and its arguments.
pub(super) fn keep(words: &[OsString], dialect: Dialect) -> Result<ExitCode, Failure> {
    let signals = caught().map_err(|error| Failure::new(format_args!("signals: {error}")))?;
    let keeper = Keeper { words, dialect, rundir: Rundir::from_env(), signals };
    let (code, signal) = match keeper.run()? {
        End::Program(status) => (status.code(), status.signal()),
        End::Told(signal) => (None, Some(signal)),
    };
    // As a shell says it of a program that a signal has ended.
    let code = code.or_else(|| Some(128 + signal?)).and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// In the process that becomes the program: what its keeper has blocked is not, and it ends when its keeper was killed.
pub(super) fn be_kept(keeper: u32) -> Result<(), Failure> {
    set(SIGNALS).thread_unblock().map_err(|error| Failure::new(format_args!("signals: {error}")))?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(Failure::new)?;
    // It may have gone before that was said.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent == Some(keeper) {
        Ok(())
    } else {
        Err(Failure::new("the process that started this one has ended"))
    }
}

fn set(signals: [Signal; 6]) -> SigSet {
    signals.into_iter().collect()
}

fn caught() -> nix::Result<SignalFd> {
    let signals = set(SIGNALS);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

struct Keeper<'a> {
    words: &'a [OsString],
    dialect: Dialect,
    rundir: Rundir,
    signals: SignalFd,
}

/// The program while it runs.
struct Program {
    child: Child,
    /// Readable when it has ended.
    handle: OwnedFd,
    /// It was told to end, by somebody else than us.
    told: bool,
}

impl Keeper<'_> {
    fn say(&self, text: core::fmt::Arguments<'_>) {
        let name = self.words.first().map(|name| name.display().to_string()).unwrap_or_default();
        print::complain(format_args!("ipsec run: {name}: {text}"));
    }

    fn run(&self) -> Result<End, Failure> {
        let mut again = false;
        loop {
            let service = match self.service(again)? {
                Ok(service) => service,
                Err(signal) => return Ok(End::Told(signal)),
            };
            if again {
                self.say(format_args!("started again, for there is a data plane again"));
            }
            let mut program = self.start()?;
            let gone = self.watch(&service, &mut program)?;
            let ended = program.child.try_wait().map_err(Failure::new)?;
            match ended {
                // It may have seen the end of the service before we did.
                Some(status) if program.told || !gone && !is_gone(&service) => {
                    return Ok(End::Program(status));
                }
                Some(_) => self.say(format_args!("has ended with the data plane")),
                None => {
                    self.say(format_args!(
                        "ended, for the data plane has gone: started again when it is back"
                    ));
                    let status = self.end(&mut program)?;
                    if program.told {
                        return Ok(End::Program(status));
                    }
                }
            }
            again = true;
        }
    }

    /// Waits for a service that lets us in; a signal may end that.
    fn service(&self, again: bool) -> Result<Result<KeyClient, i32>, Failure> {
        let mut said = again;
        loop {
            match self.connect() {
                Ok(client) => return Ok(Ok(client)),
                Err(KeyError::NotRunning(_) | KeyError::Io(_)) => {}
                Err(why) => return Err(Failure::new(why)),
            }
            if !core::mem::replace(&mut said, true) {
                self.say(format_args!("waits for the data plane: `ipsec setup start` starts it"));
            }
            wait(&[PollFd::new(&self.signals, PollFlags::IN)], Some(LOOK));
            while let Ok(Some(info)) = self.signals.read_signal() {
                if ends(&info) {
                    return Ok(Err(info.ssi_signo.cast_signed()));
                }
            }
        }
    }

    /// A connection that ends with the service. Whoever may not have one is told so after a question.
    fn connect(&self) -> Result<KeyClient, KeyError> {
        let mut client = KeyClient::connect(&self.rundir)?;
        let _ = client.ask(client.request(MessageType::Get, SaType::Esp))?;
        KeyClient::connect_to(&self.rundir, self.dialect)
    }

    fn start(&self) -> Result<Program, Failure> {
        let failed = |error: io::Error| Failure::new(format_args!("the program cannot be started: {error}"));
        let mut command = Command::new(process::program().map_err(failed)?);
        command.args([
            "run",
            "--kept-by",
            &std::process::id().to_string(),
            "--dialect",
            self.dialect.name(),
            "--",
        ]);
        let child = command.args(self.words).spawn().map_err(failed)?;
        let process = Process::now(child.id());
        let handle = process.and_then(|process| process.open().transpose()).transpose().map_err(failed)?;
        match handle {
            Some(handle) => Ok(Program { child, handle, told: false }),
            // It has ended already: a pipe without a writer is as readable as that.
            None => {
                let (handle, _) = rustix::pipe::pipe().map_err(|error| failed(error.into()))?;
                Ok(Program { child, handle, told: false })
            }
        }
    }

    /// Waits for an end of the program or of the service; true: of the service. Signals are handed on.
    fn watch(&self, service: &KeyClient, program: &mut Program) -> Result<bool, Failure> {
        loop {
            let mut all = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&program.handle, PollFlags::IN),
                PollFd::from_borrowed_fd(service.as_fd(), PollFlags::IN),
            ];
            let _ = poll(&mut all, None);
            let [_, ended, said] = all.map(|fd| !fd.revents().is_empty());
            self.hand_on(program)?;
            if ended {
                return Ok(false);
            }
            // What it says to everybody is of no interest here.
            if said && is_gone(service) {
                return Ok(true);
            }
        }
    }

    fn hand_on(&self, program: &mut Program) -> Result<(), Failure> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            program.told |= ends(&info);
            // What a terminal sends goes to all in front of it.
            if !by_terminal(&info) {
                send(&program.handle, info.ssi_signo.cast_signed())?;
            }
        }
        Ok(())
    }

    /// Ends the program, by force if need be.
    fn end(&self, program: &mut Program) -> Result<ExitStatus, Failure> {
        send(&program.handle, Signal::SIGTERM as i32)?;
        let until = clock::now().after(PATIENCE);
        loop {
            let left = until.since(clock::now());
            wait(
                &[PollFd::new(&program.handle, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)],
                Some(left),
            );
            self.hand_on(program)?;
            if let Some(status) = program.child.try_wait().map_err(Failure::new)? {
                return Ok(status);
            }
            if left == Duration::ZERO {
                self.say(format_args!("does not end within {} s: killed", PATIENCE.as_secs()));
                program.child.kill().map_err(Failure::new)?;
                return program.child.wait().map_err(Failure::new);
            }
        }
    }
}

const fn by_terminal(info: &siginfo) -> bool {
    info.ssi_code > 0
}

/// Whether it says to end. SIGHUP of anybody but a terminal says to read something anew.
fn ends(info: &siginfo) -> bool {
    let signal = Signal::try_from(info.ssi_signo.cast_signed());
    match signal {
        Ok(Signal::SIGHUP) => by_terminal(info),
        Ok(signal) => [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT].contains(&signal),
        Err(_) => false,
    }
}

/// Sends the program a signal; one that has ended needs none.
fn send(handle: &OwnedFd, signal: i32) -> Result<(), Failure> {
    use rustix::process::{Signal, pidfd_send_signal};
    let Some(signal) = Signal::from_named_raw(signal) else { return Ok(()) };
    match pidfd_send_signal(handle, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::BADF) => Ok(()),
        Err(error) => Err(Failure::new(error)),
    }
}

/// Reads what lies ready, and says whether the service has gone.
fn is_gone(service: &KeyClient) -> bool {
    let now: Time = clock::now();
    loop {
        match service.hear(&mut [0; HEAD], Some(now)) {
            Ok(_) => {}
            Err(KeyError::Silence) => return false,
            Err(_) => return true,
        }
    }
}

fn wait(fds: &[PollFd<'_>], at_most: Option<Duration>) {
    let timeout = at_most.and_then(|time| Timespec::try_from(time).ok());
    let _ = poll(&mut fds.to_vec(), timeout.as_ref());
}
