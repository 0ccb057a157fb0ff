//! What was typed and cannot be meant.

use crate::print;
use core::fmt;
use std::process::ExitCode;

/// What is wrong with the arguments, in one line that names the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage(String);

impl Usage {
    /// With this explanation.
    pub fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }

    /// Says so on stderr; the exit code of `ipsec COMMAND` is 2.
    pub fn report(&self, command: &str) -> ExitCode {
        print::complain(format_args!("ipsec {command}: {self}\nTry `ipsec {command} --help'."));
        ExitCode::from(2)
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
