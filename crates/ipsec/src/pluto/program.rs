//! What the program `pluto` does: arguments, background, logging.

use super::{Options, run};
use crate::daemon::program::{leave, priority, settle};
use crate::log::{self, Priority, Syslog};
use crate::process::program;
use crate::rundir::{Rundir, confs};
use clap::Parser;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// The key daemon of tulips: IKEv2 (RFC 7296), which negotiates the SAs that klips uses
///
/// `ipsec setup start` starts it after klips and stops it before; `ipsec auto` steers it. It reads ipsec.conf and
/// ipsec.secrets when it starts, and does with each connection what its auto= says.
#[derive(Debug, Parser)]
#[command(
    name = "pluto",
    version,
    after_help = "\
Exit codes: 0 stopped as asked, 1 failed (the reason is on stderr), 2 usage.

Environment:
  IPSEC_CONFS        directory of ipsec.conf, ipsec.secrets  [/etc]
  IPSEC_RUNDIR       directory of sockets, pid file          [/var/run/pluto]
  IPSEC_RESOLV_CONF  where a peer's name servers go          [/etc/resolv.conf]
  IPSEC_LOG          what to log, as info or ike=debug       [info]"
)]
struct Args {
    /// Stay in the foreground and log to stderr
    #[arg(short = 'F', long)]
    foreground: bool,
    /// Facility and priority of syslog lines
    #[arg(long, value_name = "FACILITY.PRIORITY", default_value = "daemon.error", value_parser = priority)]
    syslog: Priority,
    /// Threads for key exchanges
    #[arg(long, value_name = "N", default_value_t = 2)]
    nhelpers: usize,
    /// Record everything IKE says and hears, with all its keys, in a directory of its own
    #[arg(long, value_name = "DIR")]
    record: Option<std::path::PathBuf>,
    /// End when standard input does: for a parent that may be killed
    #[arg(long)]
    until_eof: bool,
    /// The half that stays when the daemon has left the foreground
    #[arg(long, hide = true)]
    left: bool,
}

/// The program's name.
pub const NAME: &str = "pluto";

/// A command that runs the program: the file beside ours, or else ours under that name.
pub fn command() -> io::Result<Command> {
    let ours = program()?;
    let beside = ours.with_file_name(NAME);
    let mut command = Command::new(if beside.exists() { beside } else { ours });
    command.arg0(NAME);
    Ok(command)
}

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if !args.foreground && !args.left {
        return leave(NAME);
    }
    let syslog = Syslog::new(NAME, args.syslog);
    log::init(args.left.then_some(syslog));
    let options = Options {
        rundir: Rundir::from_env(),
        confs: confs(),
        helpers: args.nhelpers.clamp(1, 64),
        record: args.record,
    };
    if args.until_eof && args.foreground {
        end_with_parent();
    }
    let outcome = run(&options, || {
        if args.left {
            let _ = settle();
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            if args.left {
                syslog.line(&why);
            }
            crate::print::complain(format_args!("pluto: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// Sends ourselves SIGTERM once nobody holds the other end of standard input.
fn end_with_parent() {
    let wait = || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    };
    if let Err(error) = std::thread::Builder::new().name("parent".into()).spawn(wait) {
        tracing::warn!("--until-eof: {error}");
    }
}
