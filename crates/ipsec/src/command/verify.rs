//! `ipsec verify`: what on this host stands in the way of IPsec, each with its remedy.
//!
//! Nothing is changed and nothing is sent. What cannot be found out is said to be so, and never taken for good.

mod firewall;
mod host;
mod kernel;
mod ports;

use super::{Failure, finish};
use crate::conf::connection::Here;
use crate::print;
use crate::rundir::{Rundir, confs};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

/// What `ipsec verify` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line is one check: OK, WARN (works, but look at it), FAIL (does not work),
or ?? (could not be found out), and what to do about it. Nothing is changed.

Exit codes: 0 nothing fails, 1 something does.")]
pub struct Args {
    /// Print one JSON object for each check
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grade {
    Good,
    Warn,
    Fail,
    /// It could not be looked at.
    Unknown,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Its name, for programs.
    pub(crate) id: &'static str,
    pub(crate) grade: Grade,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

impl Check {
    fn good(id: &'static str, found: impl Into<String>) -> Self {
        Self { id, grade: Grade::Good, found: found.into(), remedy: None }
    }

    fn warn(id: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { id, grade: Grade::Warn, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn fail(id: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { id, grade: Grade::Fail, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn unknown(id: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { id, grade: Grade::Unknown, found: found.into(), remedy: Some(remedy.into()) }
    }

    pub(crate) const fn word(&self) -> &'static str {
        match self.grade {
            Grade::Good => "OK",
            Grade::Warn => "WARN",
            Grade::Fail => "FAIL",
            Grade::Unknown => "??",
        }
    }

    /// As a person reads it.
    pub(crate) fn line(&self) -> String {
        let remedy = self.remedy.as_ref().map_or_else(String::new, |remedy| format!("\n     -> {remedy}"));
        format!("{:5}{}{remedy}", self.word(), self.found)
    }

    fn object(&self) -> Value {
        let grade = match self.grade {
            Grade::Good => "ok",
            Grade::Warn => "warn",
            Grade::Fail => "fail",
            Grade::Unknown => "unknown",
        };
        json!({ "check": self.id, "grade": grade, "found": self.found, "remedy": self.remedy })
    }
}

/// Every check there is.
pub(crate) fn all() -> Vec<Check> {
    let rundir = Rundir::from_env();
    let conf = host::Configured::read(&confs());
    let mut all = vec![
        host::version(),
        host::privileges(),
        host::tun(),
        host::fuse(),
        host::clock(),
        host::configuration(&conf),
        host::secrets(&confs(), &conf),
    ];
    all.extend(kernel::forwarding("/proc/sys/net".as_ref(), &conf));
    all.extend(kernel::reverse_path("/proc/sys/net/ipv4/conf".as_ref(), &conf));
    all.extend(kernel::redirects("/proc/sys/net/ipv4/conf".as_ref()));
    all.extend(kernel::mtu());
    all.push(kernel::xfrm());
    all.extend(ports::taken(&rundir));
    all.push(firewall::look());
    all.push(host::running(&rundir));
    all
}

/// What the connections need forwarded and is not, each with its remedy; no name is looked up that `here` does not know.
pub(crate) fn unforwarded(net: &Path, confs: &Path, here: &dyn Here) -> Vec<String> {
    let all = kernel::forwarding(net, &host::Configured::seen_from(confs, Some(here)));
    let failing = all.into_iter().filter(|check| check.grade == Grade::Fail);
    failing.map(|check| format!("{}: {}", check.found, check.remedy.unwrap_or_default())).collect()
}

/// The checks of what the operator has written, for a test of who passes them on.
#[cfg(test)]
pub(crate) fn of_files(confs: &Path) -> [Check; 2] {
    let conf = host::Configured::read(confs);
    [host::configuration(&conf), host::secrets(confs, &conf)]
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let all = all();
    let printed = all.iter().try_for_each(|check| print_one(check, args.json));
    let failing = all.iter().filter(|check| check.grade == Grade::Fail).count();
    finish(
        "verify",
        printed.map_err(Failure::from).and_then(|()| match failing {
            0 => Ok(()),
            1 => Err(Failure::new("one check fails: its remedy is beside it")),
            n => Err(Failure::new(format_args!("{n} checks fail: their remedies are beside them"))),
        }),
    )
}

fn print_one(check: &Check, json: bool) -> std::io::Result<()> {
    if json { print::line(check.object()) } else { print::line(check.line()) }
}
