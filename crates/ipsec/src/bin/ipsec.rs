//! `ipsec COMMAND …`, also called as `ipsec-COMMAND`: the one command a person types.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};
use ipsec::command;
use ipsec::daemon::program;
use ipsec::pluto;
use ipsec::print;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// IPsec in user space: start it, show it, steer it
#[derive(Debug, Parser)]
#[command(
    name = "ipsec",
    version = command::version::VERSION,
    disable_version_flag = true,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 done, 1 failed (the reason is on stderr), 2 usage.

Environment:
  IPSEC_CONFS   directory of ipsec.conf                 [/etc]
  IPSEC_RUNDIR  directory of sockets, pid files, proc/  [/var/run/pluto]

Every command takes --optionsfrom FILE: more options, one to a line, for what
should not stand on a command line. `ipsec COMMAND --help` has examples.
Each command is also a program of its own when `ipsec` is linked to as
`ipsec-COMMAND`."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print the version
    #[arg(long, short = 'V')]
    version: bool,
    /// Print the version and nothing else, for scripts
    #[arg(long)]
    versioncode: bool,
    /// Print where `klips` and `ipsec` are
    #[arg(long)]
    directory: bool,
    /// Print where ipsec.conf is looked for
    #[arg(long)]
    confdir: bool,
    /// Print the licence
    #[arg(long)]
    copyright: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show or change the policy: which packets go through which SA, or nowhere, or in clear
    Eroute(Box<command::eroute::Args>),
    /// Show or change the security associations by hand
    Spi(Box<command::spi::Args>),
    /// Show or change the SADB over PF_KEY, as ipseckey does: dump, save, load, watch
    Key(command::key::Args),
    /// Print every PF_KEY message as it happens
    Monitor(command::key::MonitorArgs),
    /// Show or change which virtual device stands on which physical one
    Tncfg(command::tncfg::Args),
    /// Show or change what the data plane logs
    Klipsdebug(command::klipsdebug::Args),
    /// Everything at a glance
    Look(command::look::Args),
    /// Show open PF_KEY sockets, registrations, algorithms
    #[command(name = "pf_key")]
    PfKey(command::pf_key::Args),
    /// Load connections and bring them up and down: steer pluto
    Auto(command::auto::Args),
    /// The same in the words of whack
    Whack(command::auto::WhackArgs),
    /// Run a program that opens a PF_KEY socket, unmodified, on our PF_KEY service
    Run(command::run::Args),
    /// SAs and policies in the language of setkey(8): scripts for KAME and ipsec-tools
    Setkey(command::setkey::Args),
    /// Bring up and down connections whose keys stand in ipsec.conf
    Manual(command::manual::Args),
    /// Start, stop, restart the subsystem, or say how it is
    Setup(command::setup::Args),
    /// Show or change which SAs are applied together
    Spigrp(command::spigrp::Args),
    /// Connections, rates and refusals as they are now, in the terminal
    Top(command::top::Args),
    /// Numbers for Prometheus, printed once or served
    Metrics(command::metrics::Args),
    /// What on this host stands in the way, each with its remedy
    Verify(command::verify::Args),
    /// Everything that helps to find a fault, without keys
    Barf(command::barf::Args),
    /// What `%defaultroute' and unsaid settings stand for
    Showdefaults(command::showdefaults::Args),
    /// Random bits, as secrets and keys are written
    Ranbits(command::ranbits::Args),
    /// Print completions for bash, zsh or fish
    Completion(command::completion::Args),
    /// Two hosts, two gateways, a tunnel, traffic and proof; touches nothing of this machine
    Demo(command::demo::Args),
    /// Make a private key for this host
    Newhostkey(command::hostkey::NewArgs),
    /// Show the public half of this host's key
    Showhostkey(command::hostkey::ShowArgs),
    /// Take this host's certificate, its key and its authorities out of a PKCS#12 file
    Import(command::import::Args),
    /// Print the version of the data plane
    Version(command::version::Args),
}

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    if Path::new(&called).file_name() == Some(program::NAME.as_ref()) {
        return program::main();
    }
    if Path::new(&called).file_name() == Some(pluto::program::NAME.as_ref()) {
        return pluto::program::main();
    }
    let arguments = match command::optionsfrom::expand(arguments(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(why) => {
            print::complain(format_args!("ipsec: {why}"));
            return ExitCode::from(2);
        }
    };
    // `ipsec COMMAND --version` says what `ipsec --version` does.
    if let [_, name, flag] = &arguments[..]
        && flag == "--version"
        && Cli::command().find_subcommand(name).is_some()
    {
        return command::finish_plain(print::line(command::version::LINE));
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(told) => return explain(&told),
    };
    match cli.command {
        Some(Command::Eroute(args)) => command::eroute::run(&args),
        Some(Command::Spi(args)) => command::spi::run(&args),
        Some(Command::Key(args)) => command::key::run(&args),
        Some(Command::Monitor(args)) => command::key::monitor(&args),
        Some(Command::Klipsdebug(args)) => command::klipsdebug::run(args),
        Some(Command::Look(args)) => command::look::run(args),
        Some(Command::PfKey(args)) => command::pf_key::run(args),
        Some(Command::Auto(args)) => command::auto::run(&args),
        Some(Command::Whack(args)) => command::auto::whack(&args),
        Some(Command::Run(args)) => command::run::run(&args),
        Some(Command::Setkey(args)) => command::setkey::run(&args),
        Some(Command::Manual(args)) => command::manual::run(&args),
        Some(Command::Setup(args)) => command::setup::run(args),
        Some(Command::Spigrp(args)) => command::spigrp::run(&args),
        Some(Command::Top(args)) => command::top::run(&args),
        Some(Command::Metrics(args)) => command::metrics::run(&args),
        Some(Command::Verify(args)) => command::verify::run(&args),
        Some(Command::Barf(args)) => command::barf::run(&args),
        Some(Command::Showdefaults(args)) => command::showdefaults::run(&args),
        Some(Command::Ranbits(args)) => command::ranbits::run(&args),
        Some(Command::Completion(args)) => command::completion::run(&args, Cli::command()),
        Some(Command::Tncfg(args)) => command::tncfg::run(args),
        Some(Command::Demo(args)) => command::demo::run(&args),
        Some(Command::Newhostkey(args)) => command::hostkey::new(&args),
        Some(Command::Showhostkey(args)) => command::hostkey::show(&args),
        Some(Command::Import(args)) => command::import::run(&args),
        Some(Command::Version(args)) => command::version::run(args),
        None => facts(&cli),
    }
}

/// Help and versions that were asked for go to standard output and can fail there; what was not understood goes to
/// standard error.
fn explain(told: &clap::Error) -> ExitCode {
    let printed = told.print();
    if let Some(ContextValue::String(word)) = told.get(ContextKind::InvalidSubcommand)
        && let Some(there_is) = instead(word)
    {
        print::complain(format_args!("ipsec: for that there is {there_is}"));
    }
    if told.use_stderr() {
        return ExitCode::from(2);
    }
    command::finish_plain(printed.map_err(print::failed))
}

/// What says here what other programs call by this word.
fn instead(word: &str) -> Option<&'static str> {
    Some(match word {
        "status" | "statusall" => "`ipsec setup status', and `ipsec auto --status' for connections",
        "start" => "`ipsec setup start'",
        "stop" => "`ipsec setup stop'",
        "restart" => "`ipsec setup restart'",
        "up" => "`ipsec auto --up NAME'",
        "down" => "`ipsec auto --down NAME'",
        "add" => "`ipsec auto --add NAME'",
        "delete" => "`ipsec auto --delete NAME'",
        "route" => "`ipsec auto --route NAME'",
        "unroute" => "`ipsec auto --unroute NAME'",
        "reload" | "update" => "`ipsec auto --reload'",
        "check" | "checkconfig" => "`ipsec auto --check'",
        "rereadsecrets" | "rereadall" => "`ipsec auto --rereadsecrets'",
        _ => return None,
    })
}

/// `ipsec-eroute --json` means `ipsec eroute --json`.
fn arguments(mut given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let program = given.next().unwrap_or_else(|| "ipsec".into());
    let name = Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or("ipsec");
    let command = match name {
        "ipseckey" => Some("key"),
        "setkey" => Some("setkey"),
        other => other.strip_prefix("ipsec-"),
    };
    [OsString::from("ipsec")].into_iter().chain(command.map(OsString::from)).chain(given).collect()
}

fn facts(cli: &Cli) -> ExitCode {
    let mut lines = Vec::new();
    if cli.version {
        lines.push(format!("{}\nSee `ipsec --copyright' for copyright information.", command::version::LINE));
    }
    if cli.versioncode {
        lines.push(command::version::VERSION.to_owned());
    }
    if cli.directory
        && let Some(dir) = std::env::current_exe().ok().as_deref().and_then(Path::parent)
    {
        lines.push(dir.display().to_string());
    }
    if cli.confdir {
        lines.push(ipsec::rundir::confs().display().to_string());
    }
    if cli.copyright {
        lines.push(
            "tulips: MIT OR Apache-2.0, at your choice. The texts are in LICENSE-MIT and LICENSE-APACHE."
                .to_owned(),
        );
    }
    command::finish_plain(lines.iter().try_for_each(print::line))
}
