//! `ipsec setup stop`.
//!
//! pluto goes first: it takes its SAs down and tells its peers, for which it needs klips.

use super::forward::Forwarding;
use super::{End, NAME, Turn, Voice, is_root, supervise};
use crate::ctl::{Client, CtlError, Request};
use crate::daemon::instance::{ClaimError, Instance};
use crate::host::clock;
use crate::host::interfaces::keep::Mark;
use crate::log::Priority;
use crate::pluto::resolver::Resolver;
use crate::process::Process;
use crate::rundir::Rundir;
use rustix::process::Signal;
use std::fs;
use std::io;
use std::time::Duration;

/// How long a person waits without a word.
pub(super) const FIRST: Duration = Duration::from_secs(1);
/// How long the daemon may take after that before it is told more firmly.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// With `closed` only what runs is ended, and what it protected stays in.
pub(super) fn run(rundir: &Rundir, closed: bool) -> End {
    let voice = Voice::new(Priority::DEFAULT);
    if !is_root(&voice) {
        return End::NotRoot;
    }
    let Some(_turn) = Turn::take(rundir, &voice) else { return End::Failed };
    voice.say(&format!("Stopping {NAME}..."));
    if let Err(error) = supervise::end(rundir) {
        voice.say(&format!("the supervisor cannot be ended: {error}"));
    }
    let running = rundir.setup_pid().exists() || who(rundir).is_some() || who_pluto(rundir).is_some();
    if !running {
        voice.say("stop ordered, but IPsec does not appear to be running!");
        voice.say("doing cleanup anyway...");
    }
    let end = match take_down(rundir, &voice, closed) {
        Ok(()) if running => End::Done,
        Ok(()) => End::Already,
        Err(why) => {
            voice.say(&why);
            End::Failed
        }
    };
    voice.log(&format!("...{NAME} stopped"));
    end
}

/// The daemon of this run directory, whether or not its pid file is still there. What a pid file says is not believed:
/// only a process that holds this directory's lock is ours, to be asked, waited for or signalled.
pub(super) fn who(rundir: &Rundir) -> Option<Process> {
    let ours = |process: &Process| process.holds(&rundir.klips_lock());
    let named = Process::read(&rundir.klips_pid()).and_then(|named| Process::now(named.pid)).filter(ours);
    named.or_else(|| Client::connect(rundir).ok().and_then(|client| client.server()).filter(ours))
}

/// The key daemon of this run directory, found by the lock it holds: by its pid file, else by looking at every process.
pub(super) fn who_pluto(rundir: &Rundir) -> Option<Process> {
    let lock = rundir.pluto_lock();
    let named = Process::read(&rundir.pluto_pid()).and_then(|named| Process::now(named.pid));
    named.filter(|process| process.holds(&lock)).or_else(|| Process::holder(&lock))
}

/// Ends the daemons if there are any, and removes what it and a start have made. Says everything that did not go smoothly.
///
/// With `closed` devices and the routes beneath stay: what was protected is dropped until there is a daemon again.
pub(super) fn take_down(rundir: &Rundir, voice: &Voice, closed: bool) -> Result<(), String> {
    end_pluto(rundir, voice)?;
    end_klips(rundir, voice, closed)?;
    clean(rundir)?;
    if closed {
        return Ok(());
    }
    Resolver::of_host(rundir.resolv_conf()).restore();
    let forwarding = rundir.forwarding();
    Forwarding::of_host(forwarding.clone()).restore().map_err(|error| {
        format!("{}: forwarding cannot be made what it was: {error}", forwarding.display())
    })?;
    Mark::new(rundir.path()).remove_left(true).map_err(|error| format!("cannot remove the devices: {error}"))
}

/// Ends klips if there is one.
pub(super) fn end_klips(rundir: &Rundir, voice: &Voice, closed: bool) -> Result<(), String> {
    match who(rundir) {
        Some(daemon) => end(rundir, daemon, voice, closed)
            .map_err(|error| format!("klips (pid {}): {error}", daemon.pid))?,
        None if rundir.klips_pid().exists() => {
            voice.say(&format!("Removing orphaned {}:", rundir.klips_pid().display()));
        }
        None => {}
    }
    Ok(())
}

/// Ends pluto if there is one.
pub(super) fn end_pluto(rundir: &Rundir, voice: &Voice) -> Result<(), String> {
    match who_pluto(rundir) {
        Some(pluto) => {
            ask_pluto(pluto, voice).map_err(|error| format!("pluto (pid {}): {error}", pluto.pid))?
        }
        None if rundir.pluto_pid().exists() => {
            voice.say(&format!("Removing orphaned {}:", rundir.pluto_pid().display()));
        }
        None => {}
    }
    Ok(())
}

/// pluto is asked by SIGTERM, which it takes at any moment, and made to go if it does not.
fn ask_pluto(pluto: Process, voice: &Voice) -> io::Result<()> {
    pluto.signal(Signal::TERM)?;
    if patiently("pluto", pluto, voice)? {
        return Ok(());
    }
    voice.say("Attempt to shut Pluto down failed!  Trying kill:");
    pluto.signal(Signal::KILL)?;
    if patiently("pluto", pluto, voice)? {
        return Ok(());
    }
    Err(io::Error::other("cannot be killed; `ps` says what it waits for"))
}

fn end(rundir: &Rundir, daemon: Process, voice: &Voice, closed: bool) -> io::Result<()> {
    let Process { pid, .. } = daemon;
    // A daemon that is slow to answer may still have heard.
    let asked = match Client::connect(rundir).map(|client| client.within(FIRST)) {
        Ok(client) => matches!(client?.call(Request::Stop { leave: closed }), Ok(_) | Err(CtlError::Silent)),
        Err(_) => false,
    };
    if asked && patiently("klips", daemon, voice)? {
        return Ok(());
    }
    voice.say("Attempt to shut klips down failed!  Trying kill:");
    // SIGTERM takes the devices along.
    if !closed {
        daemon.signal(Signal::TERM)?;
        if patiently("klips", daemon, voice)? {
            return Ok(());
        }
        voice.say(&format!("klips (pid {pid}) does not hear SIGTERM, killing it"));
    }
    daemon.signal(Signal::KILL)?;
    if patiently("klips", daemon, voice)? {
        return Ok(());
    }
    Err(io::Error::other("cannot be killed; `ps` says what it waits for"))
}

/// Waits, and says so if it takes longer than a person likes to wait without a word.
fn patiently(name: &str, daemon: Process, voice: &Voice) -> io::Result<bool> {
    if daemon.wait(FIRST)? {
        return Ok(true);
    }
    voice.say(&format!("waiting for {name} (pid {}) to end...", daemon.pid));
    daemon.wait(PATIENCE)
}

/// Removes what a dead daemon and a start have left.
pub(super) fn clean(rundir: &Rundir) -> Result<(), String> {
    if let Some(daemon) = Process::read(&rundir.klips_pid()) {
        let _ = daemon.gone(PATIENCE);
    }
    // Claiming the directory removes what a daemon leaves; giving it back removes the rest.
    let deadline = clock::now().after(PATIENCE);
    let claimed = loop {
        // One that is being killed has given up its files before the last of its threads gives up the lock.
        match Instance::claim(rundir) {
            Err(ClaimError::Taken(_)) if who(rundir).is_none() && clock::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            claimed => break claimed,
        }
    };
    match claimed {
        Ok(instance) => drop(instance),
        Err(ClaimError::Io(why)) => return Err(why),
        Err(ClaimError::Taken(_)) => {
            let dir = rundir.path().display();
            return Err(format!(
                "a klips that does not answer holds {dir}: `fuser -v {}` names it",
                rundir.klips_lock().display()
            ));
        }
    }
    for path in rundir.leavings() {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
