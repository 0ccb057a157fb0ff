//! OpenIKED, as Debian has it and unmodified, on our data plane at both ends: it believes to speak to Linux. Its
//! peer is another of them, our pluto, or strongSwan.
//!
//! ```text
//!   west 10.1.0.1 ── 192.0.2.1 ──────── 192.0.2.2 ── 10.2.0.1 east
//! ```
//!
//! `TULIPS_OPENIKED_ROOT=DIR`: that of another Debian's root directory, in the place of this machine's.

#[path = "support/charon.rs"]
mod charon;
#[path = "openiked/identity.rs"]
mod identity;
#[path = "openiked/pluto.rs"]
mod pluto;
#[path = "support/skipped.rs"]
mod skipped;
#[path = "support/stream.rs"]
mod stream;
#[path = "openiked/strongswan.rs"]
mod strongswan;

use identity::{Authority, By, write};

use ipsec::host::clock;
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::{End, Namespace, available, connect};
use ipsec::rundir::Rundir;
use serde_json::Value;
use skipped::skipped;
use socket2::{Domain, Protocol, Socket, Type};
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const IPSEC: &str = env!("CARGO_BIN_EXE_ipsec");
const KLIPS: &str = env!("CARGO_BIN_EXE_klips");
const IKED: &str = "/usr/sbin/iked";

/// The root of another Debian, whose iked takes the place of this machine's.
fn root() -> Option<String> {
    let root = std::env::var("TULIPS_OPENIKED_ROOT").ok()?;
    (!root.is_empty() && Path::new(&format!("{root}{IKED}")).exists()).then_some(root)
}

/// How long anything may take before the test fails. Nothing depends on it where all is well.
const PATIENCE: Duration = Duration::from_secs(60);

struct Gateway {
    namespace: Namespace,
    inside: IpAddr,
    rundir: Rundir,
    dir: tempfile::TempDir,
    klips: Option<Child>,
    iked: Option<Child>,
    /// Whether it looks for NATs on the way, and puts ESP into UDP where there is one.
    nat: bool,
    /// Whether it begins and ends with the data plane.
    restart: bool,
}

impl Gateway {
    /// `rule` is what stands before and behind the selectors in iked.conf.
    fn new(namespace: Namespace, inside: &str, rule: &str) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let rundir = Rundir::new(dir.path().join("run"));
        write(&dir.path().join("iked.conf"), rule);
        for name in ["ca", "certs", "crls", "private", "pubkeys/fqdn", "pubkeys/ipv4"] {
            fs::create_dir_all(dir.path().join("etc").join(name)).expect("directory");
        }
        // Only daemons that have a privilege to give up are let in without.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("mode");
        fs::write(dir.path().join("ipsec.conf"), "config setup\n\tpluto=no\n").expect("ipsec.conf");
        let inside = inside.parse().expect("address");
        Self { namespace, inside, rundir, dir, klips: None, iked: None, nat: false, restart: false }
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("IPSEC_RUNDIR", self.rundir.path()).env("IPSEC_CONFS", self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    fn ipsec(&self, args: &[&str]) -> Output {
        self.namespace.run(|| self.command(IPSEC, args).output()).expect("namespace").expect("ipsec")
    }

    /// Runs statements of setkey that must succeed.
    fn setkey(&self, statements: &str) {
        let file = self.dir.path().join("setkey.conf");
        fs::write(&file, statements).expect("statements");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
        let output = self.ipsec(&["setkey", "-k", "-f", &file.display().to_string()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn shown(&self, args: &[&str]) -> String {
        String::from_utf8_lossy(&self.ipsec(args).stdout).into_owned()
    }

    /// The SPIs of the SAs there are.
    fn spis(&self) -> Vec<u64> {
        let lines = self.shown(&["setkey", "-D", "--json"]);
        let mut all: Vec<u64> = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["spi"].as_u64())
            .collect();
        all.sort_unstable();
        all
    }

    /// What the data plane has refused, by reason.
    fn discards(&self) -> Value {
        let look: Value = serde_json::from_str(&self.shown(&["look", "--json"])).unwrap_or_default();
        look["status"]["discards"].clone()
    }

    fn refused(&self, reason: &str) -> u64 {
        self.discards()[reason].as_u64().unwrap_or(0)
    }

    fn start_klips(&mut self, other: &str) {
        let mut command = self.command(KLIPS, &["-F", "--workers", "1"]);
        command.args(self.nat.then_some("--share-port"));
        command.stderr(self.log("klips.log"));
        self.klips = Some(self.namespace.spawn(&mut command).expect("klips"));
        let attach = ["tncfg", "--attach", "--virtual", "ipsec0", "--physical", "eth0"];
        wait("klips", || self.ipsec(&attach).status.success());
        let routed = self.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let link = netlink.link("ipsec0")?.expect("ipsec0").index;
            let route =
                Route { dst: net(other), via: None, link: Some(link), src: Some(self.inside), metric: 0 };
            netlink.add_route(&route)
        });
        // A device that outlived its daemon has its route.
        let _ = routed.expect("namespace");
    }

    fn start_iked(&mut self) {
        let at = self.dir.path().display();
        let nat = if self.nat { "" } else { "-T" };
        let iked = format!("{IKED} -d -v {nat} -f {at}/iked.conf -s {at}/iked.ctl");
        // Keys and certificates are where it was built to look for them.
        let script = match root() {
            None => format!("mount --bind {at}/etc /etc/iked && exec {iked}"),
            Some(root) => {
                let programs = Path::new(IPSEC).parent().expect("a directory").display();
                format!(
                    "mkdir -p {root}{at} {root}{programs} && mount --bind {at} {root}{at} && \
                     mount --bind {programs} {root}{programs} && mount --bind {at}/etc {root}/etc/iked && \
                     mount --rbind /dev {root}/dev && mount -t proc proc {root}/proc && exec chroot {root} {iked}"
                )
            }
        };
        let restart: &[&str] = if self.restart { &["--restart"] } else { &[] };
        let args = ["--dialect", "linux", "--", "unshare", "-m", "sh", "-c", &script];
        let mut command = self.command(IPSEC, &[&["run"], restart, &args].concat());
        command.stdout(self.log("iked.log")).stderr(self.log("iked.log"));
        self.iked = Some(self.namespace.spawn(&mut command).expect("iked"));
    }

    /// Its children see that their parent has gone.
    fn kill(child: &mut Option<Child>) {
        if let Some(mut child) = child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    const fn inside(&self) -> Inside<'_> {
        (&self.namespace, self.inside)
    }

    /// Asks the daemon itself.
    fn ikectl(&self, args: &[&str]) {
        let ctl = self.dir.path().join("iked.ctl");
        let mut command = self.command("ikectl", &["-s", &ctl.display().to_string()]);
        let output = self.namespace.run(|| command.args(args).output()).expect("namespace").expect("ikectl");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn log(&self, name: &str) -> fs::File {
        fs::File::options().append(true).create(true).open(self.dir.path().join(name)).expect("log")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("iked.log")).unwrap_or_default();
            let end = log.lines().rev().take(40).collect::<Vec<_>>();
            eprintln!("---- iked at {}, the last line first\n{}", self.inside, end.join("\n"));
            eprintln!("---- policies\n{}", self.shown(&["setkey", "-DP"]));
        }
        Self::kill(&mut self.iked);
        Self::kill(&mut self.klips);
        let _ = rustix::mount::unmount(self.rundir.proc(), rustix::mount::UnmountFlags::DETACH);
    }
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let began = clock::now();
    while !until() {
        assert!(clock::now().since(began) < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a network")
}

/// A gateway's namespace and its address inside.
type Inside<'a> = (&'a Namespace, IpAddr);

/// Whether a datagram sent from inside one gateway arrives inside the other, of as many as `tries` says.
fn passes(from: Inside<'_>, to: Inside<'_>, tries: usize) -> bool {
    let bind = |(namespace, address): Inside<'_>, port: u16| {
        namespace.run(|| UdpSocket::bind((address, port))).expect("namespace").expect("socket")
    };
    let (receiver, sender) = (bind(to, 7777), bind(from, 0));
    receiver.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    (0..tries).any(|_| {
        let _ = sender.send_to(b"hello", (to.1, 7777));
        receiver.recv_from(&mut [0; 16]).is_ok_and(|(_, source)| source.ip() == from.1)
    })
}

fn crosses(from: Inside<'_>, to: Inside<'_>) {
    assert!(passes(from, to, 300), "nothing came from {} to {}", from.1, to.1);
}

/// Two namespaces with a cable between them; `None`, and why on stderr, where there cannot be any.
fn scene() -> Option<[Namespace; 2]> {
    if let Err(why) = available() {
        skipped(&why.to_string());
        return None;
    }
    let shim = Path::new(IPSEC).with_file_name("libpfkey_preload.so");
    if root().is_none() && !Path::new(IKED).exists() || !shim.exists() {
        skipped(&format!("no {IKED} (apt-get install openiked), or no {}", shim.display()));
        return None;
    }
    let made = || Namespace::new().expect("namespace");
    let (left, right) = (made(), made());
    connect(
        End { namespace: &left, name: "eth0", addresses: &[net("192.0.2.1/24")] },
        End { namespace: &right, name: "eth0", addresses: &[net("192.0.2.2/24")] },
    )
    .expect("cable");
    for (namespace, inside) in [(&left, "10.1.0.1/32"), (&right, "10.2.0.1/32")] {
        let added = namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let lo = netlink.link("lo")?.expect("lo").index;
            netlink.add_address(lo, net(inside))
        });
        added.expect("namespace").expect("address");
    }
    Some([left, right])
}

/// Two of them.
fn pair(options: &str, by: By) -> Option<(Gateway, Gateway)> {
    let (mut west, mut east) = prepared(options, by)?;
    east.start_iked();
    west.start_iked();
    Some((west, east))
}

/// Two whose data planes run.
fn prepared(options: &str, by: By) -> Option<(Gateway, Gateway)> {
    let [left, right] = scene()?;
    let (wests, easts) = ("10.1.0.0/16", "10.2.0.0/16");
    let (in_west, in_east) = (by.rule("west", "east"), by.rule("east", "west"));
    let in_west = format!("from {wests} to {easts} local 192.0.2.1 peer 192.0.2.2 {options} {in_west}");
    let in_east = format!("from {easts} to {wests} local 192.0.2.2 peer 192.0.2.1 {options} {in_east}");
    let mut west = Gateway::new(left, "10.1.0.1", &format!("ikev2 \"t\" active esp {in_west}\n"));
    let mut east = Gateway::new(right, "10.2.0.1", &format!("ikev2 \"t\" passive esp {in_east}\n"));
    // It does not start without a key, even if it is to use a secret.
    let authority = Authority::new();
    authority.equip(&authority.vouch("west"), &west.dir.path().join("etc"));
    authority.equip(&authority.vouch("east"), &east.dir.path().join("etc"));
    west.start_klips(easts);
    east.start_klips(wests);
    Some((west, east))
}

#[test]
fn openiked_makes_a_tunnel_and_policy_says_what_may_come_out_of_it() {
    let Some((west, east)) = pair("", By::Secret) else { return };
    crosses(west.inside(), east.inside());
    crosses(east.inside(), west.inside());
    // One SADB, one policy: every command of ours shows what it has made.
    assert_eq!(west.spis().len(), 2);
    assert_eq!(west.spis(), east.spis());
    let policies = west.shown(&["setkey", "-DP"]);
    for line in ["\tin ", "\tout ", "\tfwd ", "\tesp/tunnel/192.0.2.1-192.0.2.2/require"] {
        assert!(policies.contains(line), "{line}: {policies}");
    }
    let eroutes = west.shown(&["eroute"]);
    assert!(eroutes.contains("10.1.0.0/16") && eroutes.contains("10.2.0.0/16"), "{eroutes}");
    assert!(west.shown(&["spi"]).contains("192.0.2.2"));

    // Without the policy for what comes in, nothing comes out of an SA that has no selectors.
    let before = west.refused("policy_mismatch");
    west.setkey("spddelete 10.2.0.0/16 10.1.0.0/16 any -P in;");
    assert!(!passes(east.inside(), west.inside(), 5), "a packet came in that no policy wants");
    assert!(west.refused("policy_mismatch") > before, "and it was counted");
    west.setkey("spdadd 10.2.0.0/16 10.1.0.0/16 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/unique:9;");
    assert!(!passes(east.inside(), west.inside(), 5), "the policy wants another SA");
    west.setkey("spdupdate 10.2.0.0/16 10.1.0.0/16 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/require;");
    crosses(east.inside(), west.inside());
}

#[test]
fn openiked_rekeys_and_comes_back_after_it_was_killed() {
    let Some((mut west, mut east)) = pair("lifetime 26", By::Secret) else { return };
    crosses(west.inside(), east.inside());
    let first = west.spis();
    // A soft limit is told, and new SAs come in time; packets take the newest.
    wait("new SAs", || west.spis().iter().any(|spi| !first.contains(spi)));
    crosses(west.inside(), east.inside());
    crosses(east.inside(), west.inside());

    Gateway::kill(&mut west.iked);
    Gateway::kill(&mut east.iked);
    east.start_iked();
    west.start_iked();
    wait("SAs of the next ones", || !west.spis().is_empty());
    crosses(west.inside(), east.inside());

    // The data plane is killed, and what is protected stays in. The daemon is told once, and does not ask for ever.
    Gateway::kill(&mut west.klips);
    assert!(!passes(west.inside(), east.inside(), 5), "nothing is to leave without protection");
    let said = |gateway: &Gateway| fs::metadata(gateway.dir.path().join("iked.log")).expect("log").len();
    let before = said(&west);
    assert!(!passes(west.inside(), east.inside(), 5), "nothing is to leave without protection");
    assert!(said(&west) - before < 4096, "{} octets of log in a second", said(&west) - before);
    // Both are started again.
    Gateway::kill(&mut west.iked);
    west.start_klips("10.2.0.0/16");
    west.start_iked();
    crosses(west.inside(), east.inside());
    crosses(east.inside(), west.inside());
}

/// What somebody hears who holds the cable of a gateway.
struct Cable(Socket);

impl Cable {
    fn of(gateway: &Gateway) -> Self {
        // ETH_P_ALL.
        let all = Protocol::from(0x0003_i32.swap_bytes() >> 16);
        let socket = gateway.namespace.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(all)));
        let socket = socket.expect("namespace").expect("packet socket");
        socket.set_recv_buffer_size(1 << 22).expect("room");
        socket.set_nonblocking(true).expect("socket");
        Self(socket)
    }

    /// How many packets have gone over it since the last time, none of them one that is to be protected.
    fn carries_nothing_in_clear(&self) -> usize {
        let mut buffer = [0; 2048];
        let mut count = 0;
        while let Ok(len) = (&self.0).read(&mut buffer) {
            // The device of the tunnel has no Ethernet, and that of the host itself no addresses in it.
            let frame = buffer.get(..len).unwrap_or_default();
            let of_cable = frame.get(..6).is_some_and(|to| to[0] & 1 == 0 && to != [0; 6]);
            if !of_cable || frame.get(12..15) != Some(&[8, 0, 0x45]) {
                continue;
            }
            let inside = |at: usize| frame.get(at) == Some(&10);
            assert!(!inside(26) && !inside(30), "in clear: {frame:02x?}");
            count += 1;
        }
        count
    }
}

#[test]
fn openiked_goes_on_when_the_data_plane_alone_was_killed_and_started_again() {
    let Some((mut west, mut east)) = prepared("", By::Secret) else { return };
    // Whoever is started again begins, and need not wait until the other notices.
    let rule = east.dir.path().join("iked.conf");
    let text = fs::read_to_string(&rule).expect("rule").replace("passive", "active");
    write(&rule, &text);
    for gateway in [&mut east, &mut west] {
        gateway.restart = true;
        gateway.start_iked();
    }
    crosses(west.inside(), east.inside());
    crosses(east.inside(), west.inside());
    let cable = [Cable::of(&west), Cable::of(&east)];
    for round in 0..2 {
        let before = west.spis();
        assert!(before.len() >= 2, "{before:?}");
        let (one, other, far) =
            if round == 0 { (&mut west, &east, "10.2.0.0/16") } else { (&mut east, &west, "10.1.0.0/16") };
        Gateway::kill(&mut one.klips);
        assert!(!passes(one.inside(), other.inside(), 5), "nothing is to leave without protection");
        assert!(!passes(other.inside(), one.inside(), 5), "nothing is to come in without protection");
        one.start_klips(far);
        // Nobody has to do anything else.
        crosses(one.inside(), other.inside());
        crosses(other.inside(), one.inside());
        // The other may keep those of before until it finds out that nobody answers on them.
        let now = if round == 0 { west.spis() } else { east.spis() };
        assert!(now.iter().all(|spi| !before.contains(spi)), "they are new: {now:x?}, {before:x?}");
        let heard: usize = cable.iter().map(Cable::carries_nothing_in_clear).sum();
        assert!(heard > 20, "{heard} packets");
    }
}

#[test]
fn openiked_is_believed_by_its_certificate_and_takes_back_what_it_has_made() {
    let Some((west, east)) = pair("", By::Certificate) else { return };
    crosses(west.inside(), east.inside());
    crosses(east.inside(), west.inside());
    let first = west.spis();
    assert_eq!((first.len(), east.spis()), (2, first.clone()));

    // East takes it back, west hears of that, and nothing is left of it on either side.
    east.ikectl(&["reset", "id", "FQDN/west.example.org"]);
    for gateway in [&east, &west] {
        wait("an end", || gateway.spis().is_empty());
        wait("an end of policy", || gateway.shown(&["setkey", "-DP"]).contains("No SPD entries"));
    }
    west.ikectl(&["reload"]);
    wait("other SAs", || west.spis().len() == 2 && east.spis() == west.spis());
    assert!(west.spis().iter().all(|spi| !first.contains(spi)));
    crosses(west.inside(), east.inside());
    crosses(east.inside(), west.inside());
}
