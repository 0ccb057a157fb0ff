//! `pluto`: the key daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    ipsec::pluto::program::main()
}
