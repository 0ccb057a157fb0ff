//! The commands of `ipsec`: one module each, with `Args` and `run`.
//!
//! Exit codes are the same everywhere: 0 done, 1 failed with the reason on stderr, 2 not understood.

use core::fmt;
use std::process::ExitCode;

mod ask;
pub mod auto;
pub mod demo;
pub mod eroute;
pub mod key;
pub mod klipsdebug;
pub mod listing;
pub mod look;
pub mod optionsfrom;
pub mod pf_key;
mod said;
mod service;
pub mod setup;
pub mod spi;
pub mod tncfg;
mod usage;
pub mod version;

pub(crate) use service::port as service_port;
pub use usage::Usage;

/// Why a command failed: one line that names the value and the remedy.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// With this reason.
    pub fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Turns the outcome of `ipsec COMMAND` into its exit code, and says on stderr what went wrong.
pub fn finish(command: &str, outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("ipsec {command}: {why}");
            ExitCode::FAILURE
        }
    }
}
