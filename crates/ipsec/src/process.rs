//! Processes by number and start time.
//!
//! A number alone is not a process: it is used again. A pid file therefore has two lines, the number and `start=` with
//! field 22 of proc_pid_stat(5), and who reads only the first line gets what pid files always had.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open, pidfd_send_signal,
    set_dumpable_behavior, setrlimit,
};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process that is or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since boot; 0 in files that do not say.
    start: u64,
}

impl Process {
    /// This one.
    pub fn me() -> io::Result<Self> {
        Self::now(std::process::id())
            .ok_or_else(|| io::Error::other("/proc/self/stat cannot be read: is /proc mounted?"))
    }

    /// The process that has this number now and has not ended.
    pub fn now(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold blanks and parentheses.
        let mut fields = stat.get(stat.rfind(')')?..)?.split_whitespace().skip(1);
        // A zombie has ended; so has X.
        if matches!(fields.next()?, "Z" | "X" | "x") {
            return None;
        }
        let start = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, start })
    }

    /// What a pid file says.
    pub fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let start = lines.next().and_then(|line| line.strip_prefix("start=")?.trim().parse().ok());
        Some(Self { pid, start: start.unwrap_or(0) })
    }

    /// Writes a pid file, whole or not at all.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("pid.new");
        let written = fs::write(&new, format!("{}\nstart={}\n", self.pid, self.start));
        let written = written.and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            let _ = fs::remove_file(new);
        }
        written
    }

    /// Says whether it still runs.
    pub fn is_alive(&self) -> bool {
        Self::now(self.pid).is_some_and(|now| self.start == 0 || now.start == self.start)
    }

    /// Whether it has this file open, which is where nobody but those we look for can open it. That is what shows a process
    /// to be ours: a number in a pid file shows nothing. The first process and "none" are never ours.
    pub fn holds(&self, file: &Path) -> bool {
        if self.pid < 2 || !self.is_alive() {
            return false;
        }
        let Ok(wanted) = fs::metadata(file) else { return false };
        let Ok(open) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return false };
        open.flatten().any(|fd| {
            fs::metadata(fd.path()).is_ok_and(|at| (at.dev(), at.ino()) == (wanted.dev(), wanted.ino()))
        })
    }

    /// The process that has this file open, whatever pid files say; `None` if nobody has.
    pub fn holder(file: &Path) -> Option<Self> {
        let all = fs::read_dir("/proc").ok()?;
        let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(Self::now).find(|process| process.holds(file))
    }

    /// A handle that stays with the process and is readable once it has ended, or `None` if it has ended.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        // Looked at after the handle was got: had the number been given away before, the start time would differ.
        Ok(self.handle()?.filter(|_| self.is_alive()))
    }

    /// A handle of whatever has its number.
    fn handle(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(fd))
    }

    /// Sends a signal to it, and to no other process that may have its number by now. False if it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(fd) = self.open()? else { return Ok(false) };
        match pidfd_send_signal(fd, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has ended; false if it has not by then.
    pub fn wait(&self, at_most: Duration) -> io::Result<bool> {
        match self.open()? {
            Some(fd) => ended(&fd, at_most),
            None => Ok(true),
        }
    }

    /// Waits until nothing of it is left. Of a process that was killed the first thread may have ended, so that it is not
    /// alive, while others still hold its locks, sockets and devices.
    pub fn gone(&self, at_most: Duration) -> io::Result<bool> {
        let Some(fd) = self.handle()? else { return Ok(true) };
        match Self::now(self.pid) {
            // It is alive, or its number is another's by now.
            Some(now) => Ok(now.start != self.start),
            None => ended(&fd, at_most),
        }
    }
}

/// The file this process runs, for starting it again. After an upgrade that is the new file at the place of the old one,
/// which the kernel names as deleted.
pub fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let name = path.as_os_str().as_bytes();
    match name.strip_suffix(b" (deleted)").map(|name| PathBuf::from(OsStr::from_bytes(name))) {
        Some(new) if new.exists() => Ok(new),
        _ => Ok(path),
    }
}

/// Waits for the last thread of a process.
fn ended(fd: &OwnedFd, at_most: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What is in our memory opens other people's traffic: it goes into no core file, and no debugger of another user reads it.
pub fn keep_memory_private() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // A handler that core_pattern pipes to is given cores whatever the limit says (core(5)).
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("core files cannot be switched off: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_pid_file_names_one_process_and_no_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("klips.pid");
        let me = Process::me().unwrap();
        me.write(&path).unwrap();
        assert_eq!(Process::read(&path), Some(me));
        assert!(me.is_alive());
        assert_eq!(fs::read_to_string(&path).unwrap().lines().next().unwrap(), me.pid.to_string());
        let other = Process { start: me.start + 1, ..me };
        assert!(!other.is_alive(), "the same number at another time is another process");
        assert!(!other.signal(Signal::KILL).unwrap(), "we would be dead");
    }

    #[test]
    fn nonsense_in_a_pid_file_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        for text in ["", "\n", "abc", "-1", "99999999999"] {
            fs::write(&path, text).unwrap();
            assert_eq!(Process::read(&path), None, "{text:?}");
        }
        for text in ["0", "4294967295"] {
            fs::write(&path, text).unwrap();
            assert!(!Process::read(&path).unwrap().is_alive(), "{text:?}");
        }
    }

    #[test]
    fn an_ended_process_is_not_alive_even_before_it_is_waited_for() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::now(child.id()).unwrap();
        assert!(process.is_alive());
        assert!(!process.wait(Duration::ZERO).unwrap());
        assert!(process.signal(Signal::KILL).unwrap());
        assert!(process.wait(Duration::from_secs(60)).unwrap());
        assert!(!process.is_alive());
        assert!(process.gone(Duration::from_secs(60)).unwrap());
        child.wait().unwrap();
        assert!(process.wait(Duration::ZERO).unwrap());
        assert!(process.gone(Duration::ZERO).unwrap());
        assert!(!Process::me().unwrap().gone(Duration::ZERO).unwrap());
    }
}
