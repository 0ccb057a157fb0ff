//! Tables on standard output.

use super::Failure;
use crate::ctl::{Client, CtlError};
use crate::print::{self, Screen};
use crate::rundir::Rundir;
use crate::table::{Form, Table};
use std::io::Write;
use std::process::ExitCode;

impl From<CtlError> for Failure {
    fn from(error: CtlError) -> Self {
        if let CtlError::Io(error) = error {
            return if print::is_unprinted(&error) { error.into() } else { Self::new(CtlError::Io(error)) };
        }
        Self::new(error)
    }
}

/// What commands that only show a table take.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Print a JSON array with one object per row
    #[arg(long)]
    json: bool,
}

/// Runs a command that only shows a table.
pub fn run(command: &str, table: Table, args: Args) -> ExitCode {
    super::finish(command, print(table, args.json))
}

/// Prints a table as the daemon has it now: in the form of its manual page, or as a JSON array.
pub fn print(table: Table, json: bool) -> Result<(), Failure> {
    let mut client = Client::connect(&Rundir::from_env())?;
    Ok(write(&mut client, table, json, Screen::buffered()?)?)
}

fn write(client: &mut Client, table: Table, json: bool, mut out: impl Write) -> Result<(), CtlError> {
    if !json {
        client.table(table, Form::Man, |text| out.write_all(text.as_bytes()))?;
        return Ok(out.flush()?);
    }
    let mut before = "[";
    client.table(table, Form::Json, |row| {
        write!(out, "{before}\n{row}")?;
        before = ",";
        Ok(())
    })?;
    // `[` is still to come if there was no row.
    writeln!(out, "{}]", if before == "[" { "[" } else { "\n" })?;
    Ok(out.flush()?)
}
