//! Four namespaces and two daemons, and how they go away again.

use crate::command::Failure;
use crate::ctl::{Client, Request};
use crate::daemon::program;
use crate::host::netlink::{Netlink, Route};
use crate::host::netns::{Namespace, become_root_in_user_namespace};
use crate::pluto;
use crate::rundir::Rundir;
use core::time::Duration;
use ipnet::IpNet;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use zeroize::Zeroizing;

/// Becomes somebody who may make network namespaces; says whether that is root itself. Must be called before the first
/// thread is started.
pub(super) fn become_able() -> Result<bool, Failure> {
    let root = rustix::process::geteuid().is_root();
    if !root {
        become_root_in_user_namespace().map_err(|error| Failure::new(no_user_namespace(&error)))?;
    }
    // The daemons mount their tables: in a mount namespace of our own those go with us, however we end.
    let mounts = unshare(CloneFlags::CLONE_NEWNS).map_err(io::Error::from).and_then(|()| {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .map_err(io::Error::from)
    });
    mounts.map_err(|error| {
        Failure::new(format_args!(
            "root here may not make namespaces ({error}); in a container, start it with\n  docker run --privileged … or podman run --privileged …"
        ))
    })?;
    if !Path::new("/dev/net/tun").exists() {
        return Err(Failure::new(
            "there is no /dev/net/tun.\n  On a host:       sudo modprobe tun\n  In a container:  start it with --device /dev/net/tun",
        ));
    }
    Ok(root)
}

/// Which of the several ways to forbid user namespaces it is, and the way around.
fn no_user_namespace(error: &io::Error) -> String {
    let setting =
        |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default().trim().to_owned();
    let remedy = if setting("kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "AppArmor forbids it: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else if setting("kernel/unprivileged_userns_clone") == "0" {
        "The kernel is told not to: sudo sysctl kernel.unprivileged_userns_clone=1"
    } else if setting("user/max_user_namespaces") == "0" {
        "There may be none: sudo sysctl user.max_user_namespaces=15000"
    } else {
        "In a container: start it with --privileged, or with --security-opt seccomp=unconfined"
    };
    format!(
        "users may not make namespaces of their own here ({error}).\n  {remedy}\n  or run it as root: sudo ipsec demo"
    )
}

/// The daemons and their directory. Leaving twice does no harm.
#[derive(Clone)]
pub(super) struct Cast {
    directory: PathBuf,
    daemons: Arc<Mutex<Vec<Child>>>,
}

impl Cast {
    pub(super) fn new() -> Result<Self, Failure> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(Failure::new)?;
        let directory = std::env::temp_dir().join(format!("tulips-demo-{}", hex::encode(random)));
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(|error| Failure::new(format_args!("cannot make {}: {error}", directory.display())))?;
        Ok(Self { directory, daemons: Arc::default() })
    }

    /// Ends the daemons, by their own pid, and removes what they had.
    pub(super) fn leave(&self) {
        let mut daemons = self.daemons.lock();
        for daemon in daemons.iter() {
            if let Ok(pid) = i32::try_from(daemon.id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        for mut daemon in daemons.drain(..) {
            let gone = patiently(Duration::from_secs(3), || matches!(daemon.try_wait(), Ok(Some(_))));
            if !gone {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Looks again and again, for so long.
fn patiently(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let step = Duration::from_millis(20);
    let mut left = limit;
    while !done() {
        match left.checked_sub(step) {
            Some(rest) => left = rest,
            None => return false,
        }
        thread::sleep(step);
    }
    true
}

/// Four namespaces and the cables between them.
pub(super) struct Scene {
    pub(super) host_a: Namespace,
    pub(super) gateway_a: Namespace,
    pub(super) gateway_b: Namespace,
    pub(super) host_b: Namespace,
}

fn failed(what: &str) -> impl Fn(io::Error) -> Failure + '_ {
    move |error| Failure::new(format_args!("{what}: {error}"))
}

impl Scene {
    pub(super) fn build() -> Result<Self, Failure> {
        let namespace = || Namespace::new().map_err(failed("cannot make a network namespace"));
        let scene = Self {
            host_a: namespace()?,
            gateway_a: namespace()?,
            gateway_b: namespace()?,
            host_b: namespace()?,
        };
        scene.connect().map_err(failed("cannot join the namespaces"))?;
        Ok(scene)
    }

    fn connect(&self) -> io::Result<()> {
        cable((&self.gateway_a, "lan-a", "10.1.0.1/24"), (&self.host_a, "eth-a", "10.1.0.2/24"))?;
        cable((&self.gateway_b, "lan-b", "10.2.0.1/24"), (&self.host_b, "eth-b", "10.2.0.2/24"))?;
        cable((&self.gateway_a, "wan-a", "192.0.2.1/24"), (&self.gateway_b, "wan-b", "192.0.2.2/24"))?;
        for (host, link, gateway) in
            [(&self.host_a, "eth-a", [10, 1, 0, 1]), (&self.host_b, "eth-b", [10, 2, 0, 1])]
        {
            route(host, link, "0.0.0.0/0", Some(gateway))?;
        }
        for gateway in [&self.gateway_a, &self.gateway_b] {
            gateway.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
        }
        Ok(())
    }

    /// What is for the other site goes into ipsec0.
    pub(super) fn route_into_tunnel(&self) -> Result<(), Failure> {
        let into = |gateway, net| route(gateway, "ipsec0", net, None);
        into(&self.gateway_a, "10.2.0.0/16")
            .and_then(|()| into(&self.gateway_b, "10.1.0.0/16"))
            .map_err(failed("route"))
    }
}

type End<'n> = (&'n Namespace, &'n str, &'n str);

fn cable(here: End<'_>, there: End<'_>) -> io::Result<()> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    here.0.run(|| {
        let mut netlink = Netlink::open()?;
        netlink.add_veth(here.1, there.1)?;
        let other = netlink.link(there.1)?.ok_or_else(missing)?;
        netlink.move_link(other.index, there.0.as_fd())
    })??;
    for (namespace, name, net) in [here, there] {
        namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let link = netlink.link(name)?.ok_or_else(missing)?.index;
            // No chatter of IPv6 on a wire that is to be looked at.
            let _ = netlink.set_no_link_local(link);
            netlink.set_up(link, true)?;
            netlink.add_address_and_route(link, net.parse::<IpNet>().map_err(io::Error::other)?)
        })??;
    }
    Ok(())
}

fn route(namespace: &Namespace, link: &str, dst: &str, via: Option<[u8; 4]>) -> io::Result<()> {
    let dst = dst.parse::<IpNet>().map_err(io::Error::other)?;
    namespace.run(|| {
        let mut netlink = Netlink::open()?;
        let link = netlink.link(link)?.map(|link| link.index);
        netlink.add_route(&Route { dst, via: via.map(Into::into), link, src: None, metric: 0 })
    })?
}

/// One gateway: its daemon and how to talk to it.
pub(super) struct Gateway<'n> {
    namespace: &'n Namespace,
    rundir: Rundir,
    confs: PathBuf,
    log: PathBuf,
}

/// The two files of a gateway.
pub(super) struct Files {
    pub(super) conf: String,
    pub(super) secrets: Zeroizing<String>,
}

impl<'n> Gateway<'n> {
    /// Starts klips in the foreground and attaches ipsec0.
    pub(super) fn start(
        cast: &Cast,
        namespace: &'n Namespace,
        name: &str,
        physical: &str,
    ) -> Result<Self, Failure> {
        let rundir = Rundir::new(cast.directory.join(name));
        let log = cast.directory.join(format!("klips-{name}.log"));
        let out = File::create(&log).map_err(failed("log"))?;
        let mut command = program::command().map_err(failed("klips"))?;
        // Even if we are killed, our end of their standard input closes, and they end.
        command.args(["--foreground", "--until-eof"]).env("IPSEC_RUNDIR", rundir.path());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(out);
        // Ctrl-C is for us; we end the daemons when we are done with them.
        command.process_group(0);
        let child = namespace.spawn(&mut command).map_err(failed("cannot start klips"))?;
        cast.daemons.lock().push(child);
        let confs = cast.directory.join(format!("etc-{name}"));
        let gateway = Self { namespace, rundir, confs, log };
        if !patiently(Duration::from_secs(10), || Client::connect(&gateway.rundir).is_ok()) {
            return Err(Failure::new(format_args!("klips did not start; it said:\n{}", gateway.said())));
        }
        gateway.ipsec(&["tncfg", "--attach", "--virtual", "ipsec0", "--physical", physical], None)?;
        Ok(gateway)
    }

    /// Writes the two files and starts pluto in the foreground.
    pub(super) fn start_pluto(&self, cast: &Cast, files: &Files) -> Result<(), Failure> {
        DirBuilder::new().mode(0o700).create(&self.confs).map_err(failed("directory"))?;
        for (name, text) in [("ipsec.conf", &files.conf), ("ipsec.secrets", &*files.secrets)] {
            let mut file = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(self.confs.join(name))
                .map_err(failed(name))?;
            file.write_all(text.as_bytes()).map_err(failed(name))?;
        }
        let out = File::options().append(true).open(&self.log).map_err(failed("log"))?;
        let mut command = pluto::program::command().map_err(failed("pluto"))?;
        command.args(["--foreground", "--until-eof"]);
        command.env("IPSEC_RUNDIR", self.rundir.path()).env("IPSEC_CONFS", &self.confs);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(out);
        command.process_group(0);
        let child = self.namespace.spawn(&mut command).map_err(failed("cannot start pluto"))?;
        // Before klips, which it needs to take its SAs down.
        cast.daemons.lock().insert(0, child);
        let there = || self.status().is_ok_and(|status| status.get("klips") == Some(&true.into()));
        if !patiently(Duration::from_secs(10), there) {
            return Err(Failure::new(format_args!("pluto did not start; it said:\n{}", self.said())));
        }
        Ok(())
    }

    /// What pluto says of itself.
    pub(super) fn status(&self) -> Result<serde_json::Value, Failure> {
        serde_json::from_str(&self.ipsec(&["auto", "--status", "--json"], None)?).map_err(Failure::new)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs an `ipsec` command on the gateway, with something on its standard input if need be.
    pub(super) fn ipsec(&self, words: &[&str], input: Option<&str>) -> Result<String, Failure> {
        let this = std::env::current_exe().map_err(failed("ipsec"))?;
        let mut command = Command::new(this);
        command.arg0("ipsec").args(words);
        command.env("IPSEC_RUNDIR", self.rundir.path()).env("IPSEC_CONFS", &self.confs);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.namespace.spawn(&mut command).map_err(failed("ipsec"))?;
        if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
            let _ = pipe.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed("ipsec"))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            let said = self.said();
            return Err(Failure::new(format_args!(
                "`ipsec {}` failed: {}\n{said}",
                words.join(" "),
                why.trim_end()
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How many packets gateway's data plane refused for a reason.
    pub(super) fn discard(&self, why: &str) -> Result<u64, Failure> {
        let status = Client::connect(&self.rundir)?.call(Request::Status)?;
        Ok(status.pointer(&format!("/discards/{why}")).and_then(serde_json::Value::as_u64).unwrap_or(0))
    }

    /// Packets the eroutes have matched.
    pub(super) fn eroute_packets(&self) -> Result<u64, Failure> {
        let rows = self.ipsec(&["eroute", "--json"], None)?;
        let rows: Vec<serde_json::Value> = serde_json::from_str(&rows).map_err(Failure::new)?;
        Ok(rows.iter().filter_map(|row| row.get("packets").and_then(serde_json::Value::as_u64)).sum())
    }
}

/// One SA in each direction on both gateways, and what is sent through them. Returns what was typed, keys left out.
pub(super) fn install(a: &Gateway<'_>, b: &Gateway<'_>, raw: bool) -> Result<Vec<String>, Failure> {
    const NETS: [&str; 2] = ["10.1.0.0/16", "10.2.0.0/16"];
    const ENDS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
    let mut typed = Vec::new();
    for (from, to, spi) in [(0, 1, 0x1001), (1, 0, 0x1002)] {
        let mut key = Zeroizing::new([0; 20]);
        getrandom::fill(&mut key[..]).map_err(Failure::new)?;
        let key = Zeroizing::new(format!("0x{}\n", hex::encode(&key[..])));
        let said = format!("esp{spi:#x}@{}", ENDS[to]);
        let mut words =
            vec!["spi", "--said", &said, "--src", ENDS[from], "--esp", "aes-gcm16", "--enckey", "-"];
        words.extend([
            "--inner-src",
            NETS[from],
            "--inner-dst",
            NETS[to],
            "--replay-window",
            "1024",
            "--esn",
        ]);
        if !raw {
            words.extend(["--natt", "nonesp"]);
        }
        for gateway in [a, b] {
            gateway.ipsec(&words, Some(&key))?;
        }
        typed.push(format!("gateway-a,b# ipsec {}", words.join(" ")));
        let (gateway, name) = if from == 0 { (a, 'a') } else { (b, 'b') };
        let words = ["eroute", "--add", "--src", NETS[from], "--dst", NETS[to], "--said", &said];
        gateway.ipsec(&words, None)?;
        typed.push(format!("gateway-{name}#   ipsec {}", words.join(" ")));
    }
    Ok(typed)
}

/// The files of both gateways, with a fresh secret; and as they are shown, without it.
pub(super) fn files(raw: bool) -> Result<([Files; 2], [Files; 2]), Failure> {
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(&mut random[..]).map_err(Failure::new)?;
    let secret = Zeroizing::new(format!("0x{}", hex::encode(&random[..])));
    let conf = |device: &str| {
        format!(
            "config setup\n\tinterfaces=\"ipsec0={device}\"\n\nconn site-to-site\n\tleft=192.0.2.1\n\tleftid=@gateway-a\n\t\
             leftsubnet=10.1.0.0/16\n\tright=192.0.2.2\n\trightid=@gateway-b\n\trightsubnet=10.2.0.0/16\n\tauthby=secret\n\t\
             pq=require\n\tencapsulation={}\n\tauto=add\n",
            if raw { "no" } else { "yes" }
        )
    };
    let secrets = |secret: &str| Zeroizing::new(format!("@gateway-a @gateway-b : PSK {secret}\n"));
    let both = |secret: &str| {
        ["wan-a", "wan-b"].map(|device| Files { conf: conf(device), secrets: secrets(secret) })
    };
    Ok((both(&secret), both("0x... (256 bits from `ipsec ranbits --continuous 256')")))
}
