//! `ipsec setup`: starts, stops and asks after the subsystem (ipsec_setup(8)).
//!
//! A start is all or nothing: what a start that fails has made, it takes away again. A stop cleans up whatever it finds.
//! Both keep others of their kind out of the run directory while they work.

mod forward;
mod restart;
mod start;
mod status;
mod stop;
mod supervise;

use crate::conf::{Conf, Problem};
use crate::host::clock;
use crate::log::{Priority, Syslog};
use crate::print;
use crate::rundir::{self, Rundir};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What the subsystem is called in messages.
const NAME: &str = "tulips IPsec";

const USAGE: &str = "Usage: ipsec setup {--start|--stop|--restart|--status}";

/// What `ipsec setup` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
COMMAND, with or without dashes before it:
  start    start the data plane (klips), attach the devices that `config setup`
           in ipsec.conf names, then start the key daemon (pluto), which brings
           up what says auto=start; all of it or nothing
  stop     stop both and remove everything they made, even if nothing runs
  restart  stop, then start
  status   say how it is

Exit codes:
  0  started, stopped; status: running, or cleanly stopped
  1  failed, or nothing to do; status: something strange follows \"but...\"
  2  usage
With --lsb, status: 0 running, 1 dead with a pid file, 2 dead with a lock file,
3 stopped. start and stop: 0 also if there was nothing to do, 4 not root,
5 klips not installed, 6 not configured.

A first ipsec.conf (with pluto=no the data plane alone, keys by `ipsec spi'):
  config setup
          interfaces=%defaultroute
          protostack=klips")]
pub struct Args {
    /// start, stop, restart or status
    #[arg(value_name = "COMMAND", allow_hyphen_values = true)]
    command: Option<String>,
    /// Exit codes of the Linux Standard Base
    #[arg(long)]
    lsb: bool,
    /// Read this file instead of ipsec.conf
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// status: print one JSON object
    #[arg(long)]
    json: bool,
    /// restart: only pluto; the SAs that are up stay until it has new ones
    #[arg(long)]
    pluto: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    /// There was nothing to do: it ran already, or did not run.
    Already,
    Failed,
    NotRoot,
    NotInstalled,
    NotConfigured,
}

impl End {
    const fn code(self, lsb: bool) -> u8 {
        match self {
            Self::Done => 0,
            Self::Already if lsb => 0,
            Self::NotRoot if lsb => 4,
            Self::NotInstalled if lsb => 5,
            Self::NotConfigured if lsb => 6,
            Self::Already | Self::Failed | Self::NotRoot | Self::NotInstalled | Self::NotConfigured => 1,
        }
    }
}

/// Where the lines of start and stop go: standard output and the system's log, under the same name.
#[derive(Clone, Copy)]
struct Voice(Syslog);

const TAG: &str = "ipsec_setup";

impl Voice {
    const fn new(priority: Priority) -> Self {
        Self(Syslog::new(TAG, priority))
    }

    fn say(&self, text: &str) {
        // It is in the log, too, and starting does not depend on a terminal.
        let _ = print::line(format_args!("{TAG}: {text}"));
        self.0.line(text);
    }

    fn log(&self, text: &str) {
        self.0.line(text);
    }
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let rundir = Rundir::from_env();
    let command = args.command.as_deref().unwrap_or("");
    let lsb = args.lsb;
    match command.strip_prefix("--").unwrap_or(command) {
        "start" => start::run(&rundir, args.config.as_deref()).code(lsb).into(),
        "stop" => stop::run(&rundir, false).code(lsb).into(),
        "restart" if args.pluto => restart::run(&rundir, args.config.as_deref()).code(lsb).into(),
        "restart" => {
            // What cannot be started must not be the end of what runs.
            if let Err(end) = start::check(args.config.as_deref()) {
                return end.code(lsb).into();
            }
            // Whatever stop found to complain about, it has cleaned up.
            if stop::run(&rundir, true) == End::NotRoot {
                return End::NotRoot.code(lsb).into();
            }
            start::run(&rundir, args.config.as_deref()).code(lsb).into()
        }
        "status" => status::run(&rundir, lsb, args.json),
        "supervise" => supervise::run(&rundir, args.config.as_deref()),
        _ => {
            print::complain(format_args!("{USAGE}\nTry `ipsec setup --help'."));
            ExitCode::from(2)
        }
    }
}

/// How often each daemon has died and was started again, as the supervisor has written down.
pub(crate) fn lives(rundir: &Rundir) -> BTreeMap<String, u64> {
    let said = supervise::Record::read(&rundir.supervisor_state());
    said.into_iter().map(|(name, record)| (name, record.deaths)).collect()
}

/// Says so if we are not root, in our own user namespace.
fn is_root(voice: &Voice) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        voice.say("permission denied (must be superuser)");
    }
    root
}

/// Keeps other starts and stops of this run directory out for as long as it lives.
struct Turn {
    path: PathBuf,
    _lock: File,
}

/// How long one `ipsec setup` waits for another to be done.
const TURN: Duration = Duration::from_secs(20);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(50);

impl Turn {
    /// Waits for it, and says so.
    fn take(rundir: &Rundir, voice: &Voice) -> Option<Self> {
        let deadline = clock::now().after(TURN);
        let mut said = false;
        loop {
            match Self::now(rundir) {
                Ok(Some(turn)) => return Some(turn),
                Ok(None) if clock::now() >= deadline => {
                    let dir = rundir.path().display();
                    voice.say(&format!("another ipsec setup is at work in {dir}: try again when it is done"));
                    return None;
                }
                Ok(None) => {
                    if !said {
                        voice.say("waiting for another ipsec setup to be done...");
                        said = true;
                    }
                    std::thread::sleep(LOOK);
                }
                Err(error) => {
                    let path = rundir.setup_lock();
                    voice.say(&format!("...unable to create {}, aborting: {error}", path.display()));
                    return None;
                }
            }
        }
    }

    /// Waits for it as long as `over` does not say that it is of no use any more.
    fn within(rundir: &Rundir, over: impl Fn() -> bool) -> Option<Self> {
        while !over() {
            if let Ok(Some(turn)) = Self::now(rundir) {
                return Some(turn);
            }
            std::thread::sleep(LOOK);
        }
        None
    }

    fn now(rundir: &Rundir) -> io::Result<Option<Self>> {
        let path = rundir.setup_lock();
        rundir.create()?;
        Ok(rundir::lock(&path)?.map(|lock| Self { path, _lock: lock }))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Reads the configuration, and complains where it must.
fn configuration(voice: &Voice, file: Option<&Path>) -> Option<Conf> {
    let file = file.map_or_else(|| rundir::confs().join("ipsec.conf"), Path::to_path_buf);
    if !file.exists() {
        let name = file.display();
        voice.say(&format!(
            "no {name}: `ipsec setup --help` shows a first one (IPSEC_CONFS names another directory)"
        ));
        return None;
    }
    let complain = |problems: &[Problem], kind: &str| {
        for problem in problems {
            voice.say(&format!("{kind}{problem}"));
        }
    };
    match Conf::read(&file) {
        Ok(conf) => {
            complain(&conf.warnings, "warning: ");
            Some(conf)
        }
        Err(problems) => {
            complain(&problems, "");
            voice.say(&format!("cannot use {}", file.display()));
            None
        }
    }
}
