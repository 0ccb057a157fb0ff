//! The commands of `ipsec`: one module each, with `Args` and `run`.
//!
//! Exit codes are the same everywhere: 0 done, 1 failed with the reason on stderr, 2 not understood.

use crate::print;
use core::fmt;
use std::io;
use std::process::ExitCode;

mod ask;
pub mod auto;
pub mod barf;
pub mod completion;
pub mod demo;
pub mod eroute;
pub mod hostkey;
pub mod import;
pub mod key;
pub mod klipsdebug;
pub mod listing;
pub mod look;
pub mod manual;
pub mod metrics;
pub mod optionsfrom;
pub mod pf_key;
pub mod ranbits;
pub mod run;
mod said;
mod service;
pub mod setkey;
pub mod setup;
pub mod showdefaults;
pub mod spi;
pub mod spigrp;
pub mod tncfg;
pub mod top;
mod usage;
pub mod verify;
pub mod version;

pub(crate) use service::port as service_port;
pub use usage::Usage;

/// Why a command failed: one line that names the value and the remedy.
#[derive(Debug)]
pub enum Failure {
    /// Nobody reads what is printed any more; not a failure to the person who closed the pipe.
    Unread,
    /// Anything else.
    Because(String),
}

impl Failure {
    /// With this reason.
    pub fn new(why: impl fmt::Display) -> Self {
        Self::Because(why.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unread => "nobody reads standard output",
            Self::Because(why) => why,
        })
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if print::unread(&error) { Self::Unread } else { Self::new(error) }
    }
}

/// Turns the outcome of `ipsec` without a command into its exit code.
pub fn finish_plain(printed: io::Result<()>) -> ExitCode {
    match printed.map_err(Failure::from) {
        Ok(()) | Err(Failure::Unread) => ExitCode::SUCCESS,
        Err(why) => {
            print::complain(format_args!("ipsec: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// Turns the outcome of `ipsec COMMAND` into its exit code, and says on stderr what went wrong.
pub fn finish(command: &str, outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) | Err(Failure::Unread) => ExitCode::SUCCESS,
        Err(why) => {
            print::complain(format_args!("ipsec {command}: {why}"));
            ExitCode::FAILURE
        }
    }
}
