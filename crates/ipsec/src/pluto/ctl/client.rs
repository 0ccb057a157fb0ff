//! The asking side of `pluto.ctl`.

use super::LONGEST;
use crate::process::Process;
use crate::rundir::Rundir;
use core::fmt;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// The longest answer: a status of a hundred thousand connections.
const LONGEST_ANSWER: u64 = 1 << 28;

/// Why there is no answer, or not the wanted one.
#[derive(Debug)]
pub enum Unanswered {
    /// No pluto serves this run directory.
    NotRunning(Rundir),
    /// One does, but not us.
    Denied(PathBuf),
    /// It does not answer in time.
    Silent,
    /// It ended before it answered.
    Ended,
    /// The connection broke or carried nonsense.
    Io(io::Error),
    /// What is to be shown could not be written.
    Unwritten(io::Error),
    /// pluto said no.
    Refused(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(rundir) => write!(
                f,
                "pluto is not running in {}: `ipsec setup start' starts it (IPSEC_RUNDIR names another directory)",
                rundir.path().display()
            ),
            Self::Denied(path) => write!(f, "permission denied on {}: this needs root", path.display()),
            Self::Silent => {
                f.write_str("pluto does not answer: `ipsec setup restart' ends it and starts a new one")
            }
            Self::Ended => f.write_str("pluto ended before it answered"),
            Self::Io(error) => write!(f, "pluto.ctl: {error}"),
            Self::Unwritten(error) => error.fmt(f),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for Unanswered {}

impl From<io::Error> for Unanswered {
    fn from(error: io::Error) -> Self {
        let late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        if late { Self::Silent } else { Self::Io(error) }
    }
}

/// A connection to pluto.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    next: u64,
}

impl Client {
    /// Connects to the pluto of a run directory.
    pub fn connect(rundir: &Rundir) -> Result<Self, Unanswered> {
        let path = rundir.pluto_ctl();
        let stream = UnixStream::connect(&path).map_err(|error| {
            let kind = error.kind();
            let denied = kind == ErrorKind::PermissionDenied;
            // The socket of a dead daemon refuses root and denies the rest.
            let dead = || Process::read(&rundir.pluto_pid()).is_none_or(|process| !process.is_alive());
            if matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused) || denied && dead() {
                Unanswered::NotRunning(rundir.clone())
            } else if denied {
                Unanswered::Denied(path.clone())
            } else {
                Unanswered::Io(error)
            }
        })?;
        Ok(Self { reader: BufReader::new(stream), next: 1 })
    }

    /// Waits no longer than this for the next line of an answer. Without it, as long as it takes: a negotiation is slow.
    pub fn within(self, patience: Duration) -> io::Result<Self> {
        self.reader.get_ref().set_read_timeout(Some(patience))?;
        self.reader.get_ref().set_write_timeout(Some(patience))?;
        Ok(self)
    }

    /// Asks, hands on what is said meanwhile, and returns the answer.
    pub fn call(
        &mut self,
        asked: &super::Request,
        mut say: impl FnMut(&str) -> io::Result<()>,
    ) -> Result<Value, Unanswered> {
        let id = self.next;
        self.next = self.next.saturating_add(1);
        let mut request = serde_json::to_value(asked).map_err(io::Error::other)?;
        request["id"] = json!(id);
        let line = format!("{request}\n");
        debug_assert!(u64::try_from(line.len()).is_ok_and(|len| len <= LONGEST));
        self.reader.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut line = Vec::new();
            if (&mut self.reader).take(LONGEST_ANSWER).read_until(b'\n', &mut line)? == 0 {
                // The answer to this one may be overtaken by the end itself.
                let asked = matches!(asked, super::Request::Stop { .. });
                return if asked { Ok(Value::Null) } else { Err(Unanswered::Ended) };
            }
            let mut reply: Value = serde_json::from_slice(&line).map_err(io::Error::other)?;
            if let Some(text) = reply.get("say").and_then(Value::as_str) {
                say(text).map_err(Unanswered::Unwritten)?;
            } else if let Some(why) = reply.get("error").and_then(Value::as_str) {
                return Err(Unanswered::Refused(why.to_owned()));
            } else if let Some(answer) = reply.get_mut("ok") {
                return Ok(answer.take());
            }
        }
    }

    /// Hands on everything that is said of connections, until pluto ends or `tell` wants no more.
    pub fn watch(mut self, mut tell: impl FnMut(&Value) -> bool) -> Result<(), Unanswered> {
        self.reader.get_mut().write_all(b"{\"id\":0,\"do\":\"watch\"}\n")?;
        loop {
            let mut line = Vec::new();
            if (&mut self.reader).take(LONGEST_ANSWER).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let reply: Value = serde_json::from_slice(&line).map_err(io::Error::other)?;
            if reply.get("say").is_some_and(|event| !tell(event)) {
                return Ok(());
            }
        }
    }
}
