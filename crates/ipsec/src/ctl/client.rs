//! The asking side of `klips.ctl`.

use super::{Envelope, LONGEST, Refusal, Request};
use crate::print;
use crate::process::Process;
use crate::rundir::Rundir;
use crate::table::{Form, Table};
use core::fmt;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long an answer, or the next piece of one, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer, or not the wanted one.
#[derive(Debug)]
pub enum CtlError {
    /// No daemon serves this run directory.
    NotRunning(Rundir),
    /// A daemon does, but not us.
    Denied(Rundir),
    /// It does not answer.
    Silent,
    /// The connection broke or carried nonsense.
    Io(io::Error),
    /// The daemon said no.
    Refused(Refusal),
}

impl fmt::Display for CtlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(rundir) => {
                let dir = rundir.path().display();
                write!(
                    f,
                    "klips is not running in {dir}: `ipsec setup start` starts it (IPSEC_RUNDIR names another directory)"
                )
            }
            Self::Denied(rundir) => {
                write!(f, "permission denied on {}: this needs root", rundir.klips_ctl().display())
            }
            Self::Silent => {
                f.write_str("klips does not answer: `ipsec setup restart` ends it and starts a new one")
            }
            Self::Io(error) => write!(f, "klips.ctl: {error}"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl core::error::Error for CtlError {}

impl From<io::Error> for CtlError {
    fn from(error: io::Error) -> Self {
        // What a socket's time limit looks like depends on the system.
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && !print::is_unprinted(&error)
        {
            Self::Silent
        } else {
            Self::Io(error)
        }
    }
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    next: u64,
}

impl Client {
    /// Connects to the daemon of a run directory.
    pub fn connect(rundir: &Rundir) -> Result<Self, CtlError> {
        let stream = UnixStream::connect(rundir.klips_ctl()).map_err(|error| {
            let kind = error.kind();
            let denied = kind == ErrorKind::PermissionDenied;
            // The socket of a dead daemon refuses root and denies the rest.
            let dead = || Process::read(&rundir.klips_pid()).is_none_or(|process| !process.is_alive());
            if matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused) || denied && dead() {
                CtlError::NotRunning(rundir.clone())
            } else if denied {
                CtlError::Denied(rundir.clone())
            } else {
                CtlError::Io(error)
            }
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream), next: 1 })
    }

    /// The process that answers, found by the connection itself.
    pub fn server(&self) -> Option<Process> {
        let cred = rustix::net::sockopt::socket_peercred(self.reader.get_ref()).ok()?;
        Process::now(u32::try_from(cred.pid.as_raw_nonzero().get()).ok()?)
    }

    /// Waits no longer than this for an answer.
    pub fn within(self, patience: Duration) -> io::Result<Self> {
        self.reader.get_ref().set_read_timeout(Some(patience))?;
        Ok(self)
    }

    /// Asks for anything but a table.
    pub fn call(&mut self, request: Request) -> Result<Value, CtlError> {
        self.exchange(request, |_| Ok(()))
    }

    /// Asks for a table and hands on its text as it arrives; JSON rows come one by one.
    pub fn table(
        &mut self,
        table: Table,
        form: Form,
        mut piece: impl FnMut(&str) -> io::Result<()>,
    ) -> Result<(), CtlError> {
        self.exchange(Request::Table { table, form }, |reply| {
            if let Some(text) = reply.get("part").and_then(Value::as_str) {
                piece(text)?;
            }
            for row in reply.get("rows").and_then(Value::as_array).into_iter().flatten() {
                piece(&row.to_string())?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn exchange(
        &mut self,
        request: Request,
        mut part: impl FnMut(&Value) -> io::Result<()>,
    ) -> Result<Value, CtlError> {
        let id = self.next;
        self.next = self.next.saturating_add(1);
        let mut line = serde_json::to_vec(&Envelope { id, request }).map_err(io::Error::other)?;
        line.push(b'\n');
        self.reader.get_mut().write_all(&line)?;
        loop {
            let mut line = Vec::new();
            let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX);
            if (&mut self.reader).take(limit).read_until(b'\n', &mut line)? == 0 {
                return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
            }
            let mut reply: Value = serde_json::from_slice(&line).map_err(io::Error::other)?;
            if reply.get("error").is_some() {
                return Err(CtlError::Refused(serde_json::from_value(reply).map_err(io::Error::other)?));
            }
            if reply.get("id").and_then(Value::as_u64) != Some(id) {
                continue;
            }
            match reply.get_mut("ok") {
                Some(value) => return Ok(value.take()),
                None => part(&reply)?,
            }
        }
    }
}
