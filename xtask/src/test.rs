//! `cargo xtask test`.

use crate::peers::{self, Wanted};
use crate::run::{Failed, cargo, root, step, works};
use std::fs;
use std::process::Command;
use std::time::Instant;

/// What to leave out
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install nothing, even as root
    #[arg(long)]
    no_install: bool,
    /// Also what needs another kernel: Linux and libreswan in a machine that qemu emulates (some minutes, 300 MB)
    #[arg(long)]
    guests: bool,
    /// With a newer strongSwan (ML-KEM) and OpenIKED than this machine's, from a Debian in a directory below target (some
    /// minutes, 700 MB)
    #[arg(long)]
    newer: bool,
    /// Only the tests whose name contains this
    filter: Option<String>,
}

/// Enough to notice a parser that broke, in a few seconds for each target; exploring is for the night.
const FUZZ_ITERATIONS: &str = "40000";

#[expect(clippy::disallowed_methods, reason = "says how long the tests took; nothing depends on it")]
pub(crate) fn test(args: &Args) -> Result<(), Failed> {
    let start = Instant::now();
    let peers = peers::prepare(!args.no_install, Wanted { guests: args.guests, newer: args.newer });
    let skips = root().join("target/skipped-tests");
    let _ = fs::remove_file(&skips);
    let with_peers = |command: &mut Command| {
        // Tests that cannot run here append a line with their name and the reason.
        command.env("TULIPS_SKIPPED", &skips);
        if let Some(python) = &peers.python {
            command.env("TULIPS_PYTHON", python);
        }
        if let Some(newer) = &peers.newer {
            command.env("TULIPS_STRONGSWAN_ROOT", newer).env("TULIPS_OPENIKED_ROOT", newer);
        }
    };

    let nextest = works(&mut cargo(&["nextest", "--version"]));
    let mut tests = if nextest {
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        cargo(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"])
    };
    with_peers(&mut tests);
    // The programs the namespace tests start.
    step("build", &mut cargo(&["build", "--quiet", "--workspace", "--bins"]))?;
    step("shim", &mut cargo(&["build", "--quiet", "-p", "pfkey-preload"]))?;
    step("tests", tests.args(&args.filter))?;
    if args.filter.is_none() {
        step("documentation tests", &mut cargo(&["test", "--quiet", "--workspace", "--doc"]))?;
        step("fuzz", &mut cargo(&["run", "--quiet", "-p", "fuzz", "--", "--iterations", FUZZ_ITERATIONS]))?;
    }

    let mut skipped = peers.missing;
    let reported = fs::read_to_string(&skips).unwrap_or_default();
    skipped.extend(reported.lines().map(str::to_owned));
    skipped.sort();
    skipped.dedup();
    for what in &skipped {
        println!("skipped: {what}");
    }
    println!("test: passed in {} s, {} skipped", start.elapsed().as_secs(), skipped.len());
    Ok(())
}
