//! `ipsec version`: which tulips this is.

use super::{Failure, finish};
use crate::print;
use std::process::ExitCode;

/// What `ipsec version` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The line of `ipsec --version`; the last word but one is the version, as scripts expect.
pub const LINE: &str = concat!("Linux tulips ", env!("CARGO_PKG_VERSION"), " (klips)");

/// The content of `ipsec_version`.
pub fn file() -> String {
    format!("tulips version: {VERSION}\n")
}

/// The same for `--json`.
pub fn object() -> serde_json::Value {
    serde_json::json!({ "name": "tulips", "version": VERSION })
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let printed = if args.json { print::line(object()) } else { print::text(file()) };
    finish("version", printed.map_err(Failure::from))
}
