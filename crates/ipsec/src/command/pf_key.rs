//! `ipsec pf_key`: who speaks PF_KEY with the daemon, what for, and with which algorithms.

use super::{finish, listing};
use crate::table::Table;
use std::process::ExitCode;

/// What `ipsec pf_key` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without options it prints one line of 22 columns for each open PF_KEY socket,
as ipsec_pf_key(5) explains them. Where a kernel would show addresses there are
cookies that stay the same as long as the socket is open.")]
pub struct Args {
    /// Show which socket is registered for which SA type
    #[arg(long, conflicts_with = "supported")]
    registered: bool,
    /// Show the algorithms
    #[arg(long)]
    supported: bool,
    /// Print a JSON array with one object per row
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let table = match (args.registered, args.supported) {
        (true, _) => Table::PfKeyRegistered,
        (_, true) => Table::PfKeySupported,
        _ => Table::PfKey,
    };
    finish("pf_key", listing::print(table, args.json))
}
