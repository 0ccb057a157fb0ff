//! `klips`: the data-plane daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    ipsec::daemon::program::main()
}
