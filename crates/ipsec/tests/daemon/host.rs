//! A host of its own for each test: a network namespace, a run directory, a configuration.

use crate::skipped::skipped;
use ipsec::host::netns::{Namespace, available};
use ipsec::process::Process;
use ipsec::rundir::Rundir;
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub(crate) const IPSEC: &str = env!("CARGO_BIN_EXE_ipsec");
pub(crate) const KLIPS: &str = env!("CARGO_BIN_EXE_klips");
pub(crate) const PLUTO: &str = env!("CARGO_BIN_EXE_pluto");

/// A host of its own: a network namespace with an interface `eth7`, a run directory, a configuration.
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) rundir: Rundir,
    pub(crate) dir: tempfile::TempDir,
}

/// What a command said, and its exit code.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |octets| String::from_utf8(octets).expect("text");
        Self { out: text(output.stdout), err: text(output.stderr), code: output.status.code().unwrap_or(-1) }
    }
}

impl Host {
    /// `None`, and why on stderr, where namespaces cannot be made.
    pub(crate) fn new(interfaces: &str) -> Option<Self> {
        if let Err(why) = available() {
            skipped(&why.to_string());
            return None;
        }
        let namespace = Namespace::new().expect("namespace");
        let made = namespace.run(|| {
            let mut netlink = ipsec::host::netlink::Netlink::open()?;
            netlink.add_veth("eth7", "cable")?;
            for name in ["eth7", "cable"] {
                let link = netlink.link(name)?.expect("just made").index;
                netlink.set_up(link, true)?;
                if name == "eth7" {
                    netlink.add_address_and_route(link, "192.0.2.7/24".parse().expect("net"))?;
                }
            }
            std::io::Result::Ok(())
        });
        made.and_then(|made| made).expect("interfaces");
        let dir = tempfile::tempdir().expect("directory");
        let rundir = Rundir::new(dir.path().join("run"));
        let host = Self { namespace, rundir, dir };
        host.configure(&format!("\tprotostack=klips\n\tpluto=no\n\tinterfaces=\"{interfaces}\"\n"));
        Some(host)
    }

    pub(crate) fn configure(&self, setup: &str) {
        fs::write(self.dir.path().join("ipsec.conf"), format!("config setup\n{setup}")).expect("ipsec.conf");
    }

    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("IPSEC_RUNDIR", self.rundir.path()).env("IPSEC_CONFS", self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn ipsec(&self, args: &[&str]) -> Said {
        self.namespace.run(|| self.command(IPSEC, args).output()).expect("namespace").expect("ipsec").into()
    }

    pub(crate) fn daemon(&self) -> Process {
        Process::read(&self.rundir.klips_pid()).expect("pid file")
    }

    pub(crate) fn has_device(&self, name: &str) -> bool {
        let found = self.namespace.run(|| ipsec::host::netlink::Netlink::open()?.link(name));
        found.expect("namespace").expect("netlink").is_some()
    }

    /// What is left in the run directory.
    pub(crate) fn left(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.rundir.path()) else { return Vec::new() };
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.expect("entry").file_name().into_string().expect("name")
        };
        entries.map(name).collect()
    }

    pub(crate) fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let at = self.rundir.proc();
        mounts.lines().any(|line| line.split(' ').nth(1).map(Path::new) == Some(&at))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Whatever a failed test left running, first who would start it again.
        let all = [self.rundir.supervisor_pid(), self.rundir.pluto_pid(), self.rundir.klips_pid()];
        for daemon in all.iter().filter_map(|path| Process::read(path)) {
            let _ = daemon.signal(Signal::KILL);
            let _ = daemon.wait(Duration::from_secs(10));
        }
        let _ = rustix::mount::unmount(self.rundir.proc(), rustix::mount::UnmountFlags::DETACH);
    }
}
