//! `cargo xtask`: what CI runs and what measures.

mod deb;
mod lint;
mod peers;
mod run;
mod test;

use clap::Parser;
use std::process::ExitCode;

/// Chores of this repository
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Chore {
    /// Formatting, clippy, documentation, licences and advisories, paths in ARCHITECTURE.md, tests in docs/attacks.md
    Lint,
    /// Every test: units, documentation, fuzz corpora, namespaces with an independent peer
    Test(test::Args),
    /// The Debian package, from what this tree builds; `--try` installs, upgrades and removes it in a root of its own
    Deb(deb::Args),
    /// Measure; each figure beside the limit measured in the same run
    Bench(BenchArgs),
}

#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
struct BenchArgs {
    /// What the bench program takes; `--help` says
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    let outcome = match Chore::parse() {
        Chore::Lint => lint::lint(),
        Chore::Test(args) => test::test(&args),
        Chore::Deb(args) => deb::deb(&args),
        Chore::Bench(args) => bench(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &BenchArgs) -> Result<(), run::Failed> {
    run::step(
        "build",
        &mut run::cargo(&[
            "build",
            "--quiet",
            "--release",
            "-p",
            "ipsec",
            "-p",
            "bench",
            "-p",
            "pfkey-preload",
        ]),
    )?;
    run::step(
        "bench",
        run::cargo(&["run", "--quiet", "--release", "-p", "bench", "--"]).args(&args.arguments),
    )
}
