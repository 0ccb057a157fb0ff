//! What the program `klips` does: arguments, background, logging. `ipsec` does it too when it is called `klips`, so that
//! one file is enough to run everything.

use crate::daemon::{self, Options};
use crate::host::interfaces::keep::Mark;
use crate::host::interfaces::{Settings, UnknownOffload};
use crate::log::{self, Priority, Syslog};
use crate::peer::Trust;
use crate::print;
use crate::process::program;
use crate::rundir::Rundir;
use clap::Parser;
use nix::unistd::Group;
use rustix::process;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// The data plane of tulips: SA database, eroutes, ESP, PF_KEY service
///
/// `ipsec setup start` starts it, attaches its devices and stops it again; by hand it is of use for tests and
/// supervisors. SIGTERM and SIGINT end it, and it leaves nothing behind.
#[derive(Debug, Parser)]
#[command(
    name = "klips",
    version,
    after_help = "\
Exit codes: 0 stopped as asked, 1 failed (the reason is on stderr), 2 usage.

Environment:
  IPSEC_RUNDIR  directory of sockets, pid file, proc/   [/var/run/pluto]
  IPSEC_LOG     what to log, as info or klips=debug     [info]"
)]
struct Args {
    /// Stay in the foreground and log to stderr
    #[arg(short = 'F', long)]
    foreground: bool,
    /// Let members of this group speak PF_KEY, besides root
    #[arg(long, value_name = "GROUP")]
    pfkeygroup: Option<String>,
    /// Facility and priority of syslog lines
    #[arg(long, value_name = "FACILITY.PRIORITY", default_value = "daemon.error", value_parser = priority)]
    syslog: Priority,
    /// Workers for each device; one for each core, up to eight, if not given
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Which offloads to use, where the kernel has them: `all`, `none`, names, or `-NAME` for all but some
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, value_parser = offloads, long_help = "\
Which offloads to use, where the kernel has them: `all', `none', or names separated by commas; with `-' before it a name \
is taken out, as in --offload=-uso,-merge_udp.  What is in use `ipsec tncfg --json' says.

  csum, tso, tso_ecn, uso  superpackets and checksums left to us by the device
  udp_segment, udp_gro     many datagrams sent and received as one
  merge_tcp, merge_udp     segments of one flow given to the device as one
  steer                    received packets find their worker by SPI")]
    offload: Option<Settings>,
    /// Seconds that a packet waits at `%trap` for an SA, or at `%hold` for another eroute, before it is dropped
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    hold: u64,
    /// UDP 4500 is a key manager's that binds it, as OpenIKED does: take ESP in UDP beside it
    #[arg(long)]
    share_port: bool,
    /// End when standard input does: for a parent that may be killed
    #[arg(long)]
    until_eof: bool,
    /// The half that stays when the daemon has left the foreground
    #[arg(long, hide = true)]
    left: bool,
}

fn offloads(list: &str) -> Result<Settings, UnknownOffload> {
    let mut settings = Settings::default();
    settings.set_offloads(list)?;
    Ok(settings)
}

pub(crate) fn priority(text: &str) -> Result<Priority, &'static str> {
    Priority::parse(text).ok_or("not a facility and a priority, such as daemon.error")
}

/// What the half in the background says once it can be asked.
pub(crate) const READY: &str = "ready";

/// The program's name.
pub const NAME: &str = "klips";

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
    let syslog = Syslog::new("klips", args.syslog);
    log::init(args.left.then_some(syslog));
    let outcome = group(args.pfkeygroup.as_deref()).and_then(|group| {
        let rundir = Rundir::from_env();
        let owner = Some(Mark::new(rundir.path()));
        let options = Options {
            rundir,
            trust: Trust { group },
            interfaces: Settings {
                workers: args.workers,
                owner,
                share_port: args.share_port,
                ..args.offload.unwrap_or_default()
            },
            hold: Duration::from_secs(args.hold),
            until_eof: args.until_eof && args.foreground,
        };
        daemon::run(&options, || {
            if args.left {
                let _ = settle();
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            if args.left {
                syslog.line(&why);
            }
            print::complain(format_args!("klips: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// The number of a group, given by name or number.
pub fn group(name: Option<&str>) -> Result<Option<u32>, String> {
    let Some(name) = name else { return Ok(None) };
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group.gid.as_raw())),
        Ok(None) => Err(format!("there is no group {name}: `getent group` lists them")),
        Err(error) => Err(format!("group {name}: {error}")),
    }
}

/// Starts ourselves again in the background and waits until that one can be asked, or has said why not.
///
/// A second program start instead of fork(2): it needs no unsafe code and copies no half-made state.
pub(crate) fn leave(name: &str) -> ExitCode {
    let child = program().and_then(|program| {
        Command::new(program)
            .arg0(name)
            .args(std::env::args_os().skip(1))
            .arg("--left")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
    });
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            print::complain(format_args!("{name}: cannot start in the background: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        let _ = BufReader::new(out).read_line(&mut line);
    }
    if line.trim_end() == READY {
        return ExitCode::SUCCESS;
    }
    match child.wait() {
        Ok(status) if status.code() == Some(1) => {}
        Ok(status) => print::complain(format_args!("{name}: ended while starting: {status}")),
        Err(error) => print::complain(format_args!("{name}: {error}")),
    }
    ExitCode::FAILURE
}

/// Cuts the ties to who started us, after telling them that all is well.
pub(crate) fn settle() -> io::Result<()> {
    let _ = process::setsid();
    std::env::set_current_dir("/")?;
    let mut out = io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
