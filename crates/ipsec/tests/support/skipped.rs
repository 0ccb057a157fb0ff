//! What cannot be tried on this machine is said, and `cargo xtask test` counts it.

use std::fs::File;
use std::io::Write as _;

/// Says what is not tried, and what would be needed for it.
pub(crate) fn skipped(what: &str) {
    eprintln!("skipped: {what}");
    if let Some(file) = std::env::var_os("TULIPS_SKIPPED") {
        let mut file = File::options().append(true).create(true).open(file).expect("skip list");
        writeln!(file, "{what}").expect("skip list");
    }
}
