//! Two gateways and a router between them, each gateway from an ipsec.conf and an ipsec.secrets: klips, pluto, IKE, ESP, and
//! the commands that steer them.
//!
//! ```text
//!   west 10.1.0.1 ── 192.0.2.1 ──── router ──── 198.51.100.7 ── 10.2.0.1 east
//! ```

mod certificates;
mod charon;
mod crossed;
mod eap_tls;
mod flood;
mod hosts;
mod inside;
mod libreswan;
mod many;
mod moves;
mod names;
mod operate;
mod ours;
mod outside;
mod padding;
mod ppk;
mod record;
mod schema;
mod several;
mod slow;
mod strongswan;
mod traffic;
mod transport;

#[path = "../support/alone.rs"]
mod alone;
#[path = "../support/skipped.rs"]
mod skipped;
#[path = "../support/stream.rs"]
mod stream;

use ipsec::host::clock;
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::{End, Namespace, available, connect};
use ipsec::process::Process;
use ipsec::rundir::Rundir;
use rustix::process::Signal;
use serde_json::Value;
use skipped::skipped;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const IPSEC: &str = env!("CARGO_BIN_EXE_ipsec");
const KLIPS: &str = env!("CARGO_BIN_EXE_klips");
const PLUTO: &str = env!("CARGO_BIN_EXE_pluto");

/// How long anything may take before the test fails. Nothing depends on it where all is well.
const PATIENCE: Duration = Duration::from_secs(60);

const CONN: &str = "\
conn west-east
\tleft=192.0.2.1
\tleftid=@west
\tleftsubnet=10.1.0.0/24
\tright=198.51.100.7
\trightid=@east
\trightsubnet=10.2.0.0/24
\tauthby=secret
\tretransmit-interval=200
";

struct Gateway {
    namespace: Namespace,
    rundir: Rundir,
    dir: tempfile::TempDir,
    inside: IpAddr,
    daemons: Vec<Child>,
}

impl Gateway {
    fn new(namespace: Namespace, inside: &str, conn: &str, secret: &str) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let rundir = Rundir::new(dir.path().join("run"));
        let gateway =
            Self { namespace, rundir, dir, inside: inside.parse().expect("address"), daemons: Vec::new() };
        gateway.write("ipsec.conf", conn);
        gateway.write("ipsec.secrets", secret);
        gateway
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("IPSEC_RUNDIR", self.rundir.path()).env("IPSEC_CONFS", self.dir.path());
        // Name servers are the host's, and no test is to change those of the machine it runs on.
        command.env("IPSEC_RESOLV_CONF", self.dir.path().join("resolv.conf"));
        command.stdin(Stdio::null());
        command
    }

    fn ipsec(&self, args: &[&str]) -> Output {
        self.namespace.run(|| self.command(IPSEC, args).output()).expect("namespace").expect("ipsec")
    }

    /// Runs a command that must succeed, and says what it printed.
    fn done(&self, args: &[&str]) -> String {
        let output = self.ipsec(args);
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn start_klips(&mut self) {
        self.start_klips_on("eth0");
    }

    fn start_klips_on(&mut self, physical: &str) {
        let mut command = self.command(KLIPS, &["-F", "--workers", "1"]);
        command.stderr(self.log("klips.log"));
        self.daemons.push(self.namespace.spawn(&mut command).expect("klips"));
        // What a killed one left is there before the new one answers.
        let attach = ["tncfg", "--attach", "--virtual", "ipsec0", "--physical", physical];
        wait("klips", || self.ipsec(&attach).status.success());
    }

    fn start_pluto(&mut self) {
        self.start_pluto_with(&[]);
    }

    fn start_pluto_with(&mut self, options: &[&str]) {
        let mut command = self.command(PLUTO, &[&["-F"], options].concat());
        command.stderr(self.log("pluto.log"));
        self.daemons.push(self.namespace.spawn(&mut command).expect("pluto"));
        wait("pluto", || {
            self.rundir.pluto_pid().exists() && self.ipsec(&["auto", "--status"]).status.success()
        });
        wait("klips and pluto together", || self.status()["klips"] == true);
    }

    const fn inside(&self) -> Inside<'_> {
        (&self.namespace, self.inside)
    }

    fn log(&self, name: &str) -> fs::File {
        fs::File::options().append(true).create(true).open(self.dir.path().join(name)).expect("log")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("pluto.log")).unwrap_or_default()
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.ipsec(&["auto", "--status", "--json"]).stdout).unwrap_or_default()
    }

    /// What status says of the connection.
    fn connection(&self) -> Value {
        let all = self.status()["connections"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["name"] == "west-east").unwrap_or_default()
    }

    fn state(&self) -> String {
        self.connection()["state"].as_str().unwrap_or_default().to_owned()
    }

    /// The inbound SPIs of the pairs there are.
    fn spis(&self) -> Vec<String> {
        let sas = self.connection()["sas"].as_array().cloned().unwrap_or_default();
        sas.iter()
            .filter(|sa| sa["replaced"] == false)
            .map(|sa| sa["in"].as_str().expect("text").to_owned())
            .collect()
    }

    /// The IKE SAs there are, by their SPIs.
    fn ike_sas(&self) -> Vec<String> {
        let all = self.status()["ike_sas"].as_array().cloned().unwrap_or_default();
        all.iter().map(|sa| sa["ike"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn kill(&mut self, pid: &Path) {
        let process = Process::read(pid).expect("a pid file");
        process.signal(Signal::KILL).expect("kill");
        process.wait(PATIENCE).expect("end");
        process.gone(PATIENCE).expect("its last thread");
        self.daemons.retain_mut(|child| child.try_wait().expect("child").is_none());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- pluto at {}\n{}", self.inside, self.said());
        }
        for child in &mut self.daemons {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = rustix::mount::unmount(self.rundir.proc(), rustix::mount::UnmountFlags::DETACH);
    }
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let began = clock::now();
    while !until() {
        assert!(clock::now().since(began) < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a network")
}

/// The namespaces of west, the router and east, joined and with routes; `None`, and why on stderr, where they cannot be made.
fn scene() -> Option<[Namespace; 3]> {
    if let Err(why) = available() {
        skipped(&why.to_string());
        return None;
    }
    alone::wait();
    let made = || Namespace::new().expect("namespace");
    let (left, router, right) = (made(), made(), made());
    for (gateway, name, here, there) in [
        (&left, "eth1", "192.0.2.1/24", "192.0.2.254/24"),
        (&right, "eth2", "198.51.100.7/24", "198.51.100.254/24"),
    ] {
        connect(
            End { namespace: gateway, name: "eth0", addresses: &[net(here)] },
            End { namespace: &router, name, addresses: &[net(there)] },
        )
        .expect("cable");
    }
    router.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("router").expect("forwarding");
    for (gateway, inside, via) in
        [(&left, "10.1.0.1/32", "192.0.2.254"), (&right, "10.2.0.1/32", "198.51.100.254")]
    {
        gateway
            .run(|| {
                let mut netlink = Netlink::open()?;
                let lo = netlink.link("lo")?.expect("lo").index;
                netlink.add_address(lo, net(inside))
            })
            .expect("namespace")
            .expect("address");
        default_route(gateway, via);
    }
    Some([left, router, right])
}

/// Everything goes this way.
fn default_route(host: &Namespace, via: &str) {
    let added = host.run(|| {
        let mut netlink = Netlink::open()?;
        let link = netlink.link("eth0")?.map(|link| link.index);
        netlink.add_route(&Route { dst: net("0.0.0.0/0"), via: via.parse().ok(), link, src: None, metric: 0 })
    });
    added.expect("namespace").expect("route");
}

/// The router shows east one address for all that are behind it. False, and why on stderr, where it cannot.
fn masquerades(router: &Namespace) -> bool {
    masquerades_at(router, "eth2")
}

/// The same of what leaves by one of its devices.
fn masquerades_at(router: &Namespace, device: &str) -> bool {
    let rules = format!(
        "table ip nat {{ chain post {{ type nat hook postrouting priority 100; oifname {device} masquerade random; }}; }}"
    );
    let made = router.run(|| Command::new("nft").arg(rules).output()).expect("namespace");
    let made_it = made.as_ref().is_ok_and(|output| output.status.success());
    if !made_it {
        skipped(&format!("no nft, or no NAT in this kernel (apt-get install nftables): {made:?}"));
    }
    made_it
}

/// Two gateways of ours with a router between.
fn pair(west: (&str, &str), east: (&str, &str)) -> Option<(Gateway, Gateway, Namespace)> {
    let [left, router, right] = scene()?;
    let mut west = Gateway::new(left, "10.1.0.1", west.0, west.1);
    let mut east = Gateway::new(right, "10.2.0.1", east.0, east.1);
    for gateway in [&mut west, &mut east] {
        gateway.start_klips();
        gateway.start_pluto();
    }
    Some((west, east, router))
}

const SECRET: &str = "@west @east : PSK \"the quick brown fox\"\n";

fn both() -> Option<(Gateway, Gateway, Namespace)> {
    let conn = format!("{CONN}\tauto=add\n");
    pair((&conn, SECRET), (&conn, SECRET))
}

/// A host with an address inside.
type Inside<'a> = (&'a Namespace, IpAddr);

/// Sends datagrams from inside one gateway to inside the other until one arrives.
fn crosses(from: &Gateway, to: &Gateway) {
    passes(from.inside(), to.inside());
}

fn passes(from: Inside<'_>, to: Inside<'_>) {
    let bind = |(namespace, address): Inside<'_>, port: u16| {
        namespace.run(|| UdpSocket::bind((address, port))).expect("namespace").expect("socket")
    };
    let (receiver, sender) = (bind(to, 7777), bind(from, 0));
    receiver.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    wait("a datagram through the tunnel", || {
        // What the host's own routes do not know yet is an error, and tried again.
        let _ = sender.send_to(b"hello", (to.1, 7777));
        receiver.recv_from(&mut [0; 16]).is_ok_and(|(_, source)| source.ip() == from.1)
    });
}

/// Numbered datagrams from one to the other while `change` is made; none may be lost. Says how many there were.
fn unbroken(from: &Gateway, to: &Gateway, change: impl FnOnce()) -> u32 {
    let (sent, lost) = stream::during(from.inside(), to.inside(), change);
    assert!(
        sent > 20 && lost.is_empty(),
        "of {sent} datagrams were lost: {lost:?}; refused: {:?} and {:?}",
        from.discards(),
        to.discards()
    );
    sent
}

#[test]
fn two_files_each_make_a_tunnel_that_can_be_rekeyed_and_taken_down() {
    let Some((west, east, _router)) = both() else { return };
    let progress = west.done(&["auto", "--up", "west-east"]);
    assert!(
        progress.contains("IKE SA established") && progress.contains("IPsec SA established"),
        "{progress}"
    );
    assert_eq!((west.state(), east.state()), ("up".to_owned(), "up".to_owned()));
    crosses(&west, &east);
    crosses(&east, &west);
    let text = west.done(&["auto", "--status"]);
    assert!(text.contains("\"west-east\"") && text.contains("; up"), "{text}");

    schema::holds(&west.status());
    schema::holds(&east.status());

    let before = west.spis();
    west.done(&["auto", "--rekey", "west-east"]);
    wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
    crosses(&west, &east);
    east.done(&["auto", "--rekey", "--ike", "west-east"]);
    crosses(&east, &west);

    west.done(&["auto", "--down", "west-east"]);
    wait("both ends down", || west.spis().is_empty() && east.spis().is_empty());
    // Down is not open: what was protected does not leave in clear.
    assert_ne!(west.state(), "down");
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
}

#[test]
fn rekeyings_by_either_side_under_traffic_lose_nothing() {
    let Some((west, east, _router)) = both() else { return };
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    for (side, ike) in [(&west, false), (&east, false), (&west, true), (&east, true), (&west, false)] {
        let before = west.spis();
        unbroken(&west, &east, || {
            if ike {
                side.done(&["auto", "--rekey", "--ike", "west-east"]);
            } else {
                side.done(&["auto", "--rekey", "west-east"]);
                wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
            }
        });
    }
    // Both at once.
    unbroken(&east, &west, || {
        west.done(&["auto", "--rekey", "west-east"]);
        east.done(&["auto", "--rekey", "west-east"]);
        wait("one pair on each side", || west.spis().len() == 1 && east.spis().len() == 1);
    });
}

impl Gateway {
    /// What the data plane has refused, by reason.
    fn discards(&self) -> Value {
        let look: Value = serde_json::from_slice(&self.ipsec(&["look", "--json"]).stdout).expect("JSON");
        look["status"]["discards"].clone()
    }
}

/// How many SAs the data plane has.
fn sas(gateway: &Gateway) -> usize {
    let rows: Value = serde_json::from_slice(&gateway.ipsec(&["spi", "--json"]).stdout).expect("JSON");
    rows.as_array().map_or(0, Vec::len)
}

#[test]
fn what_is_protected_never_leaves_in_clear_before_during_or_after() {
    let conn = |auto: &str| format!("{CONN}\tauto={auto}\n\tretransmit-timeout=2s\n");
    let Some((west, mut east, router)) = pair((&conn("start"), SECRET), (&conn("add"), SECRET)) else {
        return;
    };
    // The router would take what comes to it in clear.
    let witness = router.run(|| {
        let mut netlink = Netlink::open()?;
        let lo = netlink.link("lo")?.expect("lo").index;
        netlink.add_address(lo, net("10.2.0.1/32"))?;
        UdpSocket::bind("10.2.0.1:7777")
    });
    let witness = witness.expect("namespace").expect("witness");
    witness.set_nonblocking(true).expect("option");
    let say = || {
        let sender =
            west.namespace.run(|| UdpSocket::bind((west.inside, 0))).expect("namespace").expect("socket");
        let _ = sender.send_to(b"secret", (east.inside, 7777));
    };
    say();
    wait("up", || west.state() == "up");
    say();
    west.done(&["auto", "--down", "west-east"]);
    wait("down", || west.spis().is_empty());
    say();
    let pid = east.rundir.pluto_pid();
    east.kill(&pid);
    west.ipsec(&["auto", "--up", "west-east", "--asynchronous"]);
    let sender =
        west.namespace.run(|| UdpSocket::bind((west.inside, 0))).expect("namespace").expect("socket");
    wait("given up for now", || {
        let _ = sender.send_to(b"secret", (east.inside, 7777));
        west.said().contains("no answer from")
    });
    // That it would have heard them is shown by what comes when all is undone.
    let heard = || witness.recv_from(&mut [0; 16]).is_ok();
    assert!(!heard(), "in clear");
    west.done(&["auto", "--delete", "west-east"]);
    wait("a packet in clear", || {
        let _ = sender.send_to(b"open", (east.inside, 7777));
        heard()
    });
}

#[test]
fn a_killed_pluto_leaves_a_tunnel_that_works_and_its_successor_no_leak() {
    let Some((mut west, east, _router)) = both() else { return };
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    assert_eq!(sas(&west), 2);
    let pid = west.rundir.pluto_pid();
    west.kill(&pid);
    crosses(&west, &east);
    west.start_pluto();
    // It does not know the keys and cannot rebuild it yet: the tunnel goes on.
    crosses(&east, &west);
    assert_eq!(sas(&west), 2);
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    assert_eq!(sas(&west), 2, "the old pair is gone");
    wait("the same on the other side", || sas(&east) == 2);
    // Of a connection that is no more nothing is left.
    west.kill(&pid);
    west.write("ipsec.conf", "config setup\n");
    west.start_pluto();
    wait("nothing left", || sas(&west) == 0);
}

#[test]
fn a_nat_between_is_crossed_and_a_hybrid_key_exchange_with_it() {
    let west_conn = format!("{CONN}\tauto=add\n\tpq=require\n");
    let east_conn = west_conn.replace("left=192.0.2.1", "left=%any");
    let Some((west, east, router)) = pair((&west_conn, SECRET), (&east_conn, SECRET)) else { return };
    if !masquerades(&router) {
        return;
    }
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    crosses(&east, &west);
    let row = &east.status()["ike_sas"][0];
    assert_eq!(row["nat_there"], true, "{row}");
    assert!(row["algorithms"].as_str().is_some_and(|text| text.contains("ke1_mlkem768")), "{row}");
    east.done(&["auto", "--rekey", "west-east"]);
    west.done(&["auto", "--rekey", "--ike", "west-east"]);
    crosses(&west, &east);
}

#[test]
fn a_packet_brings_a_routed_connection_up_and_is_not_lost() {
    let conn = |auto: &str| format!("{CONN}\tauto={auto}\n");
    let Some((west, east, _router)) = pair((&conn("route"), SECRET), (&conn("add"), SECRET)) else { return };
    wait("the trap", || west.state() == "routed");
    let receiver =
        east.namespace.run(|| UdpSocket::bind((east.inside, 7777))).expect("namespace").expect("socket");
    receiver.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let sender =
        west.namespace.run(|| UdpSocket::bind((west.inside, 0))).expect("namespace").expect("socket");
    sender.send_to(b"the first packet", (east.inside, 7777)).expect("sent");
    let mut buffer = [0; 64];
    let (len, from) = receiver.recv_from(&mut buffer).expect("it arrives");
    assert_eq!((&buffer[..len], from.ip()), (&b"the first packet"[..], west.inside));
    assert_eq!(west.state(), "up");
}

#[test]
fn a_wrong_secret_is_said_on_both_sides_and_ends_with_exit_code_1() {
    let conn = format!("{CONN}\tauto=add\n\tkeyingtries=1\n");
    let wrong = "@west @east : PSK \"the lazy dog\"\n";
    let Some((west, east, _router)) = pair((&conn, SECRET), (&conn, wrong)) else { return };
    let output = west.ipsec(&["auto", "--up", "west-east"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("AUTHENTICATION_FAILED") && said.contains("the secret"), "{said}");
    // Once is enough.
    let progress = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        progress.contains("IKE_AUTH as @west") && !progress.contains("AUTHENTICATION_FAILED"),
        "{progress}"
    );
    wait("the other side's words", || east.said().contains("secret is not ours"));
    // Who comes later is told, on both sides.
    for (gateway, why) in [(&west, "AUTHENTICATION_FAILED"), (&east, "secret is not ours")] {
        schema::holds(&gateway.status());
        let failure = gateway.connection()["failure"].clone();
        assert!(failure["why"].as_str().is_some_and(|said| said.contains(why)), "{failure}");
        assert!(failure["ago"].as_u64() < Some(60) && failure["times"] == 1, "{failure}");
        let text = gateway.done(&["auto", "--status"]);
        assert!(text.lines().any(|line| line.contains("s ago: ") && line.contains(why)), "{text}");
    }
    assert!(!east.said().contains("lazy dog") && !west.said().contains("quick brown"));
    assert!(west.spis().is_empty() && east.spis().is_empty());
    // A reload rereads secrets, too, and one that is only tried does not.
    east.write("ipsec.secrets", SECRET);
    assert_eq!(east.done(&["auto", "--reload", "--dry-run"]), "");
    assert_eq!(west.ipsec(&["auto", "--up", "west-east"]).status.code(), Some(1));
    assert_eq!(east.done(&["auto", "--reload"]), "");
    assert_eq!(west.connection()["failure"]["times"], 2);
    west.done(&["auto", "--up", "west-east"]);
    wait("up on both sides", || east.state() == "up");
    for gateway in [&west, &east] {
        assert!(gateway.connection()["failure"].is_null(), "{}", gateway.connection());
    }
    west.done(&["auto", "--down", "west-east"]);
    wait("down on both sides", || east.spis().is_empty());
    let why =
        |gateway: &Gateway| gateway.connection()["failure"]["why"].as_str().unwrap_or_default().to_owned();
    assert_eq!(why(&west), "taken down on this side");
    // Those before it was up are of the past.
    assert_eq!(west.connection()["failure"]["times"], 1);
    assert_eq!(why(&east), "IKE SA is down: the peer deleted it");
    east.write("ipsec.secrets", "what is this\n");
    let output = east.ipsec(&["auto", "--reload"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("ipsec.secrets:1:"), "{said}");
    // One that is missing is said before anybody tries.
    west.done(&["auto", "--check"]);
    west.write("ipsec.secrets", "@west @other : PSK \"the quick brown fox\"\n");
    let output = west.ipsec(&["auto", "--check"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("no secret for @west and @east"), "{said}");
    let output = west.ipsec(&["verify"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("FAIL 1 of 1 connections have no secret"),
        "{said}"
    );
    assert!(said.contains("no secret for @west and @east"), "{said}");
}

#[test]
fn a_peer_that_never_answers_is_said_with_what_to_look_at() {
    let conn = format!("{CONN}\tauto=add\n\tkeyingtries=1\n\tretransmit-timeout=2s\n");
    let Some((west, mut east, _router)) = pair((&conn, SECRET), (&conn, SECRET)) else { return };
    let pid = east.rundir.pluto_pid();
    east.kill(&pid);
    let output = west.ipsec(&["auto", "--up", "west-east"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no answer from 198.51.100.7"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let progress = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(progress.contains("IKE_SA_INIT to") && !progress.contains("no answer"), "{progress}");
    let failure = west.connection()["failure"].clone();
    assert!(failure["why"].as_str().is_some_and(|why| why.contains("no answer from")), "{failure}");
    // The log has all of it.
    assert!(west.said().contains("given up: no answer from"), "{}", west.said());
}

#[test]
fn who_joins_an_attempt_is_told_so_at_once_and_sees_how_it_ends() {
    let Some((west, east, _router)) = both() else { return };
    let peer = Process::read(&east.rundir.pluto_pid()).expect("a pid file");
    peer.signal(Signal::STOP).expect("stopped");
    west.done(&["auto", "--up", "--asynchronous", "west-east"]);
    wait("the first step", || west.said().contains("IKE_SA_INIT to"));
    let mut up = west.command(IPSEC, &["auto", "--up", "west-east"]);
    let mut up = west.namespace.spawn(up.stdout(Stdio::piped())).expect("ipsec");
    let mut lines = BufReader::new(up.stdout.take().expect("pipe")).lines().map(|line| line.expect("line"));
    let first = lines.next().unwrap_or_default();
    // A status of a peer that has said nothing has words for it.
    let text = west.done(&["auto", "--status"]);
    peer.signal(Signal::CONT).expect("continued");
    assert!(
        first.contains("\"west-east\" #1: under way already, since ") && first.contains("IKE_SA_INIT to"),
        "{first}"
    );
    assert!(text.contains("198.51.100.7:500 being negotiated; no algorithms chosen yet"), "{text}");
    let rest: Vec<String> = lines.collect();
    assert!(rest.iter().any(|line| line.contains("#1: IPsec SA established")), "{rest:?}");
    assert!(up.wait().expect("a child").success());
    // An attempt that is over is joined by nobody.
    west.done(&["auto", "--down", "west-east"]);
    let said = west.done(&["auto", "--up", "west-east"]);
    assert!(!said.contains("under way") && said.contains("IPsec SA established"), "{said}");
}

#[test]
fn either_daemon_of_either_side_can_be_killed_and_the_tunnel_comes_back() {
    let conn = format!("{CONN}\tauto=start\n");
    let Some((mut west, east, _router)) = pair((&conn, SECRET), (&conn, SECRET)) else { return };
    wait("up", || west.state() == "up" && east.state() == "up");
    crosses(&west, &east);
    let pid = west.rundir.pluto_pid();
    west.kill(&pid);
    west.start_pluto();
    wait("up again", || west.state() == "up");
    crosses(&west, &east);
    let pid = west.rundir.klips_pid();
    west.kill(&pid);
    west.start_klips();
    wait("up on a new klips", || west.state() == "up");
    crosses(&west, &east);
    crosses(&east, &west);
}

#[test]
fn a_reload_does_what_changed_and_nothing_else() {
    let Some((west, east, _router)) = both() else { return };
    west.done(&["auto", "--up", "west-east"]);
    let before = west.spis();
    let more = format!("{CONN}\tauto=add\nconn other\n\talso=west-east\n\trightsubnet=10.9.0.0/24\n");
    west.write("ipsec.conf", &more);
    let would = west.done(&["auto", "--reload", "--dry-run"]);
    assert_eq!(would, "\"other\": would add\n");
    assert_eq!(west.status()["connections"].as_array().map(Vec::len), Some(1));
    assert_eq!(west.done(&["auto", "--reload"]), "\"other\": added\n");
    assert_eq!(west.done(&["auto", "--reload"]), "");
    assert_eq!(west.spis(), before);
    crosses(&west, &east);
    west.write("ipsec.conf", "conn west-east\n\tleft=192.0.2.1\n\tauto=add\n\trihgt=198.51.100.7\n");
    let output = west.ipsec(&["auto", "--reload"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("do you mean right=?"), "{said}");
    assert_eq!(west.spis(), before, "a file with an error changes nothing");
    let check = west.ipsec(&["auto", "--check"]);
    assert_eq!(check.status.code(), Some(1));
    // A device that is not there is said before the start comes to nothing.
    let check = |devices: &str| {
        west.write("ipsec.conf", &format!("config setup\n\tinterfaces=\"{devices}\"\n{CONN}\tauto=add\n"));
        let check = west.ipsec(&["auto", "--check"]);
        (check.status.code(), String::from_utf8_lossy(&check.stderr).into_owned())
    };
    assert_eq!(check("ipsec0=eth0"), (Some(0), String::new()));
    let (code, said) = check("ipsec0=eth0 ipsec1=eth7");
    assert!(code == Some(1) && said.contains("ipsec.conf:2: this host has no device eth7;"), "{said}");
    assert!(!said.contains("device eth0"), "{said}");
}
