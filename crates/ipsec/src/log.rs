//! Where lines for people go: stderr in the foreground, syslog(3) otherwise.
//!
//! Neither ever waits: a log daemon that does not read, or a pipe nobody empties, must not hold up whoever has something to
//! say. What cannot be written at once is dropped and counted, and the count is the next thing written.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// A facility and a priority, as `syslog=` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    facility: u8,
    severity: u8,
}

const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

const SEVERITIES: [&[&str]; 8] = [
    &["emerg", "panic"],
    &["alert"],
    &["crit"],
    &["err", "error"],
    &["warning", "warn"],
    &["notice"],
    &["info"],
    &["debug"],
];

impl Priority {
    /// `daemon.error`, the default of `syslog=`.
    pub const DEFAULT: Self = Self { facility: 3, severity: 3 };

    /// Reads `facility.priority`.
    pub fn parse(text: &str) -> Option<Self> {
        let (facility, severity) = text.split_once('.')?;
        let facility = FACILITIES.iter().find(|(name, _)| *name == facility)?.1;
        let severity = SEVERITIES.iter().position(|names| names.contains(&severity))?;
        Some(Self { facility, severity: u8::try_from(severity).ok()? })
    }

    const fn severity(self, severity: u8) -> Self {
        Self { severity, ..self }
    }
}

/// The connection to the system's log.
#[derive(Clone, Copy, Debug)]
pub struct Syslog {
    tag: &'static str,
    priority: Priority,
}

impl Syslog {
    /// Lines under `tag`.
    pub const fn new(tag: &'static str, priority: Priority) -> Self {
        Self { tag, priority }
    }

    /// Sends one line. A host without a log daemon loses it, as with syslog(3).
    pub fn line(&self, text: &str) {
        self.send(self.priority, text);
    }

    fn send(&self, priority: Priority, text: &str) {
        self.send_to("/dev/log".as_ref(), priority, text);
    }

    fn send_to(&self, log: &Path, priority: Priority, text: &str) {
        let record = |priority: Priority, text: &str| {
            let code = u32::from(priority.facility) * 8 + u32::from(priority.severity);
            format!("<{code}>{}[{}]: {text}", self.tag, std::process::id())
        };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            LOST.tell(|lost| {
                let warning = record(priority.severity(4), &lost);
                socket.send_to(warning.as_bytes(), log).map(drop)
            })?;
            socket.send_to(record(priority, text.trim_end()).as_bytes(), log)
        });
        LOST.note(&sent);
    }
}

/// Lines that could not be written because nobody reads.
struct Lost(AtomicU64);

static LOST: Lost = Lost(AtomicU64::new(0));

impl Lost {
    /// Says how many there were, by `write`, if there were any.
    fn tell(&self, write: impl FnOnce(String) -> io::Result<()>) -> io::Result<()> {
        let lost = self.0.swap(0, Ordering::Relaxed);
        if lost == 0 {
            return Ok(());
        }
        let told = write(format!("{lost} log lines were lost: whoever reads the log was too slow"));
        if told.is_err() {
            self.0.fetch_add(lost, Ordering::Relaxed);
        }
        told
    }

    /// Counts what had to wait. Without a log daemon nothing is lost that anybody wanted.
    fn note<T>(&self, written: &io::Result<T>) {
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One event on its way to stderr.
#[derive(Debug, Default)]
pub struct ErrLine(Vec<u8>);

impl Write for ErrLine {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ErrLine {
    fn drop(&mut self) {
        let written =
            LOST.tell(|lost| to_stderr(format!("{lost}\n").as_bytes())).and_then(|()| to_stderr(&self.0));
        LOST.note(&written);
    }
}

/// Writes what can be written without waiting: a pipe that is ready takes `PIPE_BUF` octets (pipe(7)).
fn to_stderr(line: &[u8]) -> io::Result<()> {
    let stderr = io::stderr();
    let line = line.get(..4096).unwrap_or(line);
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&now))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    rustix::io::write(&stderr, line)?;
    Ok(())
}

/// One event on its way to syslog.
#[derive(Debug)]
pub struct Line {
    log: Syslog,
    priority: Priority,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.log.send(self.priority, &String::from_utf8_lossy(&self.text));
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { log: *self, priority: self.priority, text: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        let severity = match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        Line { log: *self, priority: self.priority.severity(severity), text: Vec::new() }
    }
}

/// Sends what the program logs to stderr, or to syslog under `tag`.
pub fn init(syslog: Option<Syslog>) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("IPSEC_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,fuser=warn"));
    let build = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // Only the first call of a process has an effect; tests make several.
    let _ = match syslog {
        Some(syslog) => {
            build.with_writer(syslog).without_time().with_ansi(false).with_level(false).try_init()
        }
        None => build.with_writer(ErrLine::default).with_ansi(false).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_daemon_that_does_not_read_loses_lines_and_is_told_how_many() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        daemon.set_nonblocking(true).unwrap();
        let log = Syslog::new("klips", Priority::DEFAULT);
        let say = |text: &str| log.send_to(&path, Priority::DEFAULT, text);
        for line in 0..2000 {
            say(&format!("line {line}"));
        }
        let read = || {
            let mut buffer = [0; 256];
            let length = daemon.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
        };
        let kept = std::iter::from_fn(read).count();
        assert!(kept > 0 && kept < 2000, "{kept}");
        say("again");
        let after: Vec<String> = std::iter::from_fn(read).collect();
        assert!(
            after[0].ends_with(&format!(
                "{} log lines were lost: whoever reads the log was too slow",
                2000 - kept
            )),
            "{after:?}"
        );
        assert!(after[1].ends_with("again") && after.len() == 2, "{after:?}");
    }

    #[test]
    fn priorities_are_read_as_syslog_conf_writes_them() {
        assert_eq!(Priority::parse("daemon.error"), Some(Priority::DEFAULT));
        assert_eq!(Priority::parse("local7.debug"), Some(Priority { facility: 23, severity: 7 }));
        for wrong in ["", "daemon", "daemon.", "demon.err", "daemon.err.or", ".err"] {
            assert_eq!(Priority::parse(wrong), None, "{wrong}");
        }
    }
}
