//! Where lines for people go: stderr in the foreground, syslog(3) otherwise.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
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
        let code = u32::from(priority.facility) * 8 + u32::from(priority.severity);
        let record = format!("<{code}>{}[{}]: {}", self.tag, std::process::id(), text.trim_end());
        let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(record.as_bytes(), "/dev/log"));
    }
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
        None => build.with_writer(io::stderr).with_ansi(false).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_read_as_syslog_conf_writes_them() {
        assert_eq!(Priority::parse("daemon.error"), Some(Priority::DEFAULT));
        assert_eq!(Priority::parse("local7.debug"), Some(Priority { facility: 23, severity: 7 }));
        for wrong in ["", "daemon", "daemon.", "demon.err", "daemon.err.or", ".err"] {
            assert_eq!(Priority::parse(wrong), None, "{wrong}");
        }
    }
}
