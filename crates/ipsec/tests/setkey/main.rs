//! Scripts of setkey on real data planes: between two of ours, and between one of ours and a Linux kernel that is told by its own
//! PF_KEY socket (`support/guest.rs`, `cargo xtask test --guests`).
//!
//! ```text
//!   here 10.1.0.1 ── 192.0.2.1 ──────── 192.0.2.2 ── 10.2.0.1 there
//! ```

mod bundle;
mod dump;
#[path = "../support/guest.rs"]
mod guest;
#[expect(dead_code, reason = "the tests of the daemon need more of it")]
#[path = "../daemon/host.rs"]
mod host;
#[path = "../support/skipped.rs"]
mod skipped;

use guest::Guest;
use host::{Host, IPSEC};
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::{End, Namespace, connect};
use serde_json::Value;
use std::fs;
use std::process::Output;

/// Addresses of either side, outside and inside.
pub(crate) const OUTSIDE: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
pub(crate) const INSIDE: [&str; 2] = ["10.1.0.1", "10.2.0.1"];
pub(crate) const NETS: [&str; 2] = ["10.1.0.0/16", "10.2.0.0/16"];

/// Whoever runs a script.
pub(crate) trait Side {
    /// `ipsec setkey` with these words, and these statements as its file if there are any.
    fn setkey(&self, words: &str, statements: &str) -> (bool, String);

    /// Echo requests from one address to another: whether one was answered.
    fn reaches(&self, from: &str, to: &str) -> bool;

    /// How many packets were refused because policy wants others.
    fn refused(&self) -> u64;

    fn done(&self, words: &str, statements: &str) -> String {
        let (ok, text) = self.setkey(words, statements);
        assert!(ok, "setkey {words}: {text}\n{statements}");
        text
    }

    /// What is dumped, as objects.
    fn dumped(&self, words: &str) -> Vec<Value> {
        let text = self.done(words, "");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// How often and with what an address is asked: what compresses well, and more than a block of any cipher.
const PING: &str = "ping -q -c 3 -i 0.2 -w 10 -s 900 -p 00";

pub(crate) struct Ours {
    pub(crate) host: Host,
}

impl Ours {
    fn new() -> Option<Self> {
        Some(Self { host: Host::new("ipsec0=eth0")? })
    }

    fn cable<'a>(&'a self, address: &'a [ipnet::IpNet]) -> End<'a> {
        End { namespace: &self.host.namespace, name: "eth0", addresses: address }
    }

    /// The data plane, and a way to the other side through its device.
    fn start(&self, at: usize) {
        let said = self.host.ipsec(&["setup", "start"]);
        assert_eq!(said.code, 0, "{said:?}");
        let routed = self.host.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let lo = netlink.link("lo")?.expect("lo").index;
            netlink.add_address(lo, net(&format!("{}/32", INSIDE[at])))?;
            let link = Some(netlink.link("ipsec0")?.expect("attached").index);
            // The other's own address, too: what is between the hosts themselves.
            for (dst, src) in
                [(NETS[1 - at].to_owned(), INSIDE[at]), (format!("{}/32", OUTSIDE[1 - at]), OUTSIDE[at])]
            {
                let src = src.parse().ok();
                netlink.add_route(&Route { dst: net(&dst), via: None, link, src, metric: 0 })?;
            }
            std::io::Result::Ok(())
        });
        routed.expect("namespace").expect("routes");
    }

    fn sh(&self, script: &str) -> Output {
        let mut command = self.host.command("sh", &["-c", script]);
        self.host.namespace.run(|| command.output()).expect("namespace").expect("sh")
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

impl Side for Ours {
    fn setkey(&self, words: &str, statements: &str) -> (bool, String) {
        let file = self.host.dir.path().join("script");
        fs::write(&file, statements).expect("script");
        let words =
            if statements.is_empty() { words.to_owned() } else { format!("{words} -f {}", file.display()) };
        let output = self.sh(&format!("umask 077; chmod 600 {}; {IPSEC} setkey {words}", file.display()));
        (output.status.success(), text(&output))
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        self.sh(&format!("{PING} -I {from} {to}")).status.success()
    }

    fn refused(&self) -> u64 {
        let status: Value = serde_json::from_str(&self.host.ipsec(&["look", "--json"]).out).expect("JSON");
        status["status"]["discards"]["policy_mismatch"].as_u64().unwrap_or(0)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.host.ipsec(&["setup", "stop"]);
    }
}

/// Linux, told by its own PF_KEY socket: what stands before it is a socket like ours, for `ipsec setkey` to speak to.
pub(crate) struct Linux {
    pub(crate) guest: Guest,
}

/// Hands records on between a socket at our place and the kernel's. A `write` that the kernel refuses is answered by a header.
const BRIDGE: &str = r#"
import os, select, socket
os.makedirs("/run/key", exist_ok=True)
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.bind("/run/key/pf_key.linux.sock")
door.listen(8)
open("/run/key/ready", "w").close()
while True:
    client, _ = door.accept()
    if os.fork():
        client.close()
        continue
    kernel = socket.socket(15, socket.SOCK_RAW, 2)
    while True:
        ready, _, _ = select.select([client, kernel], [], [])
        if kernel in ready:
            client.send(kernel.recv(1 << 20))
        if client in ready:
            record = client.recv(1 << 20)
            if not record:
                os._exit(0)
            try:
                kernel.send(record)
            except OSError as error:
                head = bytearray(record[:16])
                head[2], head[4:8] = error.errno, b"\2\0\0\0"
                client.send(head)
"#;

impl Linux {
    fn boot(namespace: Namespace) -> Self {
        let linux = Self { guest: Guest::boot(namespace, None) };
        linux.guest.write("bridge.py", BRIDGE);
        linux.guest.done(&format!(
            "ip addr add {}/24 dev eth0 && ip addr add {}/32 dev lo && ip route add {} via {} src {} && \
             setsid python3 /share/bridge.py </dev/null >/share/bridge.log 2>&1 & \
             for i in $(seq 200); do [ -e /run/key/ready ] && exit 0; sleep 0.1; done; cat /share/bridge.log; exit 1",
            OUTSIDE[1], INSIDE[1], NETS[0], OUTSIDE[0], INSIDE[1]
        ));
        linux
    }
}

impl Side for Linux {
    fn setkey(&self, words: &str, statements: &str) -> (bool, String) {
        self.guest.write("statements", statements);
        let words =
            if statements.is_empty() { words.to_owned() } else { format!("{words} -f /run/statements") };
        let said = self.guest.run(&format!(
            "umask 077; cp /share/statements /run/statements; chmod 600 /run/statements; IPSEC_RUNDIR=/run/key {IPSEC} setkey {words}"
        ));
        (said.ok, said.text)
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        self.guest.run(&format!("{PING} -I {from} {to}")).ok
    }

    fn refused(&self) -> u64 {
        let counters = self.guest.done("cat /proc/net/xfrm_stat");
        let of = |name: &str| {
            let line = counters.lines().find(|line| line.starts_with(name)).expect("a counter");
            line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number")
        };
        of("XfrmInTmplMismatch") + of("XfrmInNoPols") + of("XfrmInPolBlock")
    }
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a network")
}

/// Two of ours; `None`, and why on stderr, where there can be none.
pub(crate) fn two() -> Option<[Ours; 2]> {
    let both = [Ours::new()?, Ours::new()?];
    let nets = OUTSIDE.map(|address| [net(&format!("{address}/24"))]);
    connect(both[0].cable(&nets[0]), both[1].cable(&nets[1])).expect("a cable");
    both.iter().enumerate().for_each(|(at, ours)| ours.start(at));
    Some(both)
}

/// One of ours and a Linux; the same.
pub(crate) fn with_linux() -> Option<(Ours, Linux)> {
    if !guest::is_there() {
        return None;
    }
    let ours = Ours::new()?;
    let far = Namespace::new().expect("namespace");
    let nets = OUTSIDE.map(|address| [net(&format!("{address}/24"))]);
    connect(ours.cable(&nets[0]), End { namespace: &far, name: "eth0", addresses: &nets[1] })
        .expect("a cable");
    ours.start(0);
    Some((ours, Linux::boot(far)))
}
