//! `ipsec klipsdebug`: what the data plane logs.

use super::{Failure, finish, listing};
use crate::ctl::{Client, Request};
use crate::rundir::Rundir;
use crate::table::Table;
use std::process::ExitCode;

/// What `ipsec klipsdebug` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without options it prints the flags. With `pfkey` set, every PF_KEY message is
logged (its header; never keys); with any flag set, packets refused by the data
plane are logged by reason, once a second.

FLAG is one of tunnel, tunnel-xmit, netlink, xform, eroute, spi, radij, esp,
ah, rcv, pfkey, ipcomp.")]
pub struct Args {
    /// Set a flag; may be repeated
    #[arg(long, value_name = "FLAG")]
    set: Vec<String>,
    /// Clear a flag; may be repeated
    #[arg(long, value_name = "FLAG")]
    clear: Vec<String>,
    /// Set every flag
    #[arg(long, conflicts_with_all = ["set", "clear", "none"])]
    all: bool,
    /// Clear every flag
    #[arg(long, conflicts_with_all = ["set", "clear"])]
    none: bool,
    /// Print a JSON array instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    finish("klipsdebug", act(args))
}

fn act(args: Args) -> Result<(), Failure> {
    let Args { mut set, mut clear, all, none, json } = args;
    if all {
        set.push("all".into());
    }
    if none {
        clear.push("all".into());
    }
    if set.is_empty() && clear.is_empty() {
        return listing::print(Table::Klipsdebug, json);
    }
    Client::connect(&Rundir::from_env())?.call(Request::Debug { set, clear })?;
    Ok(())
}
