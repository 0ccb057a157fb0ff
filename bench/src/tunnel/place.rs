//! Two network namespaces joined by a cable, the programs that run in them, and what those cost.
//!
//! The namespaces have no names: they go when this process and its children go, however that happens.

use ipnet::IpNet;
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::{End, Namespace, become_root_in_user_namespace, connect};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Becomes able to make namespaces, in a mount namespace of its own so that what daemons mount or leave below /run is
/// nobody else's. Before the first thread.
pub(crate) fn become_able() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        become_root_in_user_namespace()?;
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
}

/// One of the two ends.
pub(crate) struct Side {
    pub(crate) namespace: Namespace,
    /// `a` or `b`
    pub(crate) name: &'static str,
    pub(crate) outer: Ipv4Addr,
    /// What traffic comes from and goes to: behind the end, or `outer` where the ends speak for themselves.
    pub(crate) inner: Ipv4Addr,
}

impl Side {
    fn new(name: &'static str, number: u8, host: bool) -> io::Result<Self> {
        let namespace = Namespace::new()?;
        let outer = Ipv4Addr::new(192, 0, 2, number);
        let inner = if host { outer } else { Ipv4Addr::new(10, 77, 0, number) };
        Ok(Self { namespace, name, outer, inner })
    }

    /// Runs a program to its end; what it wrote, or why it failed.
    pub(crate) fn call(&self, command: &mut Command) -> io::Result<String> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.namespace.spawn(command)?.wait_with_output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{command:?}: {}", why.trim_end())))
    }

    /// Gives an interface the inner address and sets it up, with the MTU if one is said.
    pub(crate) fn address(&self, link: &str, prefix: u8, mtu: Option<u32>) -> io::Result<()> {
        let net = IpNet::new(self.inner.into(), prefix).map_err(io::Error::other)?;
        self.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let index = netlink.link(link)?.ok_or(io::ErrorKind::NotFound)?.index;
            if let Some(mtu) = mtu {
                netlink.set_mtu(index, mtu)?;
            }
            netlink.set_up(index, true)?;
            netlink.add_address_and_route(index, net)
        })?
    }

    /// Routes one address into an interface.
    pub(crate) fn route(&self, to: Ipv4Addr, link: &str) -> io::Result<()> {
        self.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let link = netlink.link(link)?.map(|link| link.index);
            let dst = IpNet::from(IpAddr::V4(to));
            netlink.add_route(&Route { dst, via: None, link, src: Some(self.inner.into()), metric: 0 })
        })?
    }

    pub(crate) fn has_link(&self, link: &str) -> bool {
        matches!(self.namespace.run(|| Netlink::open()?.link(link)), Ok(Ok(Some(_))))
    }
}

/// Both ends, a cable with an MTU of 1500 between their `eth0`, and a directory that goes with them.
pub(crate) struct Place {
    pub(crate) sides: [Side; 2],
    pub(crate) directory: tempfile::TempDir,
}

impl Place {
    /// `hosts`: traffic is between the ends of the cable themselves.
    pub(crate) fn new(hosts: bool) -> io::Result<Self> {
        let sides = [Side::new("a", 1, hosts)?, Side::new("b", 2, hosts)?];
        let nets = sides.each_ref().map(|side| IpNet::new_assert(side.outer.into(), 24));
        let [a, b] = &sides;
        connect(
            End { namespace: &a.namespace, name: "eth0", addresses: &nets[..1] },
            End { namespace: &b.namespace, name: "eth0", addresses: &nets[1..] },
        )?;
        let directory =
            tempfile::Builder::new().prefix(&format!("tulips-bench-{}-", std::process::id())).tempdir()?;
        Ok(Self { sides, directory })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// The programs of one contender. They end with it.
#[derive(Default)]
pub(crate) struct Running {
    /// Each with the name of its side.
    children: Vec<(&'static str, Child)>,
}

impl Running {
    /// Starts a daemon; what it says goes to a file in the place's directory.
    pub(crate) fn start(&mut self, place: &Place, side: &Side, command: &mut Command) -> io::Result<()> {
        let log = File::create(place.path().join(format!("{}-{}.log", side.name, self.children.len())))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.children.push((side.name, side.namespace.spawn(command)?));
        Ok(())
    }

    /// Seconds of processor time the programs have had.
    pub(crate) fn cpu(&self) -> f64 {
        self.children.iter().fold(0.0, |sum, (_, child)| sum + cpu(&child.id().to_string()))
    }

    /// Seconds of processor time the programs of one side have had.
    pub(crate) fn cpu_of(&self, side: &Side) -> f64 {
        let of = self.children.iter().filter(|(name, _)| *name == side.name);
        of.fold(0.0, |sum, (_, child)| sum + cpu(&child.id().to_string()))
    }

    /// Resident memory of all, MiB.
    pub(crate) fn resident(&self) -> f64 {
        let kib = |child: &Child| {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        self.children.iter().map(|(_, child)| kib(child)).fold(0.0, |sum, one| sum + one) / 1024.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for (_, child) in &self.children {
            if let Ok(pid) = i32::try_from(child.id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        for (_, child) in &mut self.children {
            if patiently(3, || matches!(child.try_wait(), Ok(Some(_)))).is_err() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Looks again and again, for so many seconds.
pub(crate) fn patiently(seconds: u32, mut done: impl FnMut() -> bool) -> io::Result<()> {
    for _ in 0..seconds * 50 {
        if done() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn ticks() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64
}

/// Seconds of processor time a process has had; `self` is ours.
pub(crate) fn cpu(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may have blanks and brackets; utime and stime are the 12th and 13th after it.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let spent: u64 = after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    spent as f64 / ticks()
}

/// Seconds all processes of the machine have had, without interrupts and idling.
pub(crate) fn machine() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let spent: u64 = line.split_whitespace().skip(1).take(3).filter_map(|n| n.parse::<u64>().ok()).sum();
    spent as f64 / ticks()
}
