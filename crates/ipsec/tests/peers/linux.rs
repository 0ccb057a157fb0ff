//! With the kernel of Linux in an emulated machine (`support/guest.rs`): what `ip xfrm` and `ipsec` are told by hand, they
//! understand of each other. For every case each end pings, TCP and datagrams of many sizes go there and come back as they
//! were, and neither end refuses anything; keys are changed while packets come.

#[path = "../support/guest.rs"]
mod guest;

use super::{Case, Gateway};
use crate::skipped::skipped;
use guest::Guest;
use ipsec::host::netns::available;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long anything may take. Nothing depends on it where all is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// Octets there and back, in some hundred segments, so that superpackets are made of them at both ends.
const STREAM: usize = 150_000;
/// From one octet to what no link carries in one packet.
const DATAGRAMS: &[usize] = &[1, 47, 500, 1300, 1372, 1373, 1400, 1401, 1472, 1473, 3000, 8000];
/// Transport mode is for whole packets (RFC 4303 §3.3.4): what the device does not carry its host has cut before we see it.
const WHOLE: usize = 1300;

/// Echoes TCP and datagrams, and has ESP in UDP opened by the kernel.
const SERVER: &str = r"
import socket, struct, threading, time

def bypass(s, family):
    # IP_XFRM_POLICY, IPV6_XFRM_POLICY (xfrm(7)): what comes for this socket needs no SA, as key daemons have it.
    for direction in (0, 1):
        selector = bytes(40) + struct.pack('=HBBBxxxiI', family, 0, 0, 0, 0, 0)
        policy = selector + b'\xff' * 32 + bytes(64) + struct.pack('=IIBBBB', 0, 0, direction, 0, 0, 0)
        level, option = (0, 17) if family == socket.AF_INET else (41, 35)
        s.setsockopt(level, option, policy.ljust(168, b'\0'))

ports = []
for family in (socket.AF_INET, socket.AF_INET6):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        s.setsockopt(41, 26, 1)
    s.bind(('', 4500))
    s.setsockopt(17, 100, 2)
    bypass(s, family)
    ports.append(s)

def datagrams():
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    # The answer is to leave from where the question came to.
    s.setsockopt(41, 49, 1)
    s.bind(('::', 7))
    while True:
        data, ancillary, _, sender = s.recvmsg(65536, 1024)
        s.sendmsg([data], ancillary, 0, sender)

def stream(c):
    with c:
        while data := c.recv(65536):
            c.sendall(data)

threading.Thread(target=datagrams, daemon=True).start()
listener = socket.create_server(('::', 7), family=socket.AF_INET6, dualstack_ipv6=True)
open('/share/serving', 'w').close()
while True:
    threading.Thread(target=stream, args=(listener.accept()[0],), daemon=True).start()
";

const SETUP: &str = "
set -e
sysctl -qw net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.lo.accept_dad=0
ip addr add 192.0.2.2/24 dev eth0
ip addr add 2001:db8::2/64 dev eth0 nodad
ip route add 10.1.0.0/16 via 192.0.2.1
ip route add 2001:db8:1::/48 via 2001:db8::1
setsid python3 /share/server.py </dev/null >/share/server.log 2>&1 &
for i in $(seq 200); do [ -e /share/serving ] && break; sleep 0.1; done
[ -e /share/serving ]
";

impl Case {
    /// What `ip xfrm state add` says of algorithms and keys.
    fn xfrm_algorithms(&self, salt: u8) -> String {
        let (cipher, length) = self.cipher;
        let key = |length, salt| match length {
            0 => "\"\"".to_owned(),
            _ => format!("0x{}", self.key(length, salt)),
        };
        let (kind, name, icv) = match cipher {
            "aes-gcm-16" => ("aead", "rfc4106(gcm(aes))", " 128"),
            "aes-gcm-12" => ("aead", "rfc4106(gcm(aes))", " 96"),
            "aes-gcm-8" => ("aead", "rfc4106(gcm(aes))", " 64"),
            "aes-ccm-16" => ("aead", "rfc4309(ccm(aes))", " 128"),
            "aes-ccm-12" => ("aead", "rfc4309(ccm(aes))", " 96"),
            "aes-ccm-8" => ("aead", "rfc4309(ccm(aes))", " 64"),
            "aes-gmac" => ("aead", "rfc4543(gcm(aes))", " 128"),
            "chacha20-poly1305" => ("aead", "rfc7539esp(chacha20,poly1305)", " 128"),
            "aes-cbc" => ("enc", "cbc(aes)", ""),
            "3des-cbc" => ("enc", "cbc(des3_ede)", ""),
            "null" => ("enc", "ecb(cipher_null)", ""),
            other => panic!("{other}"),
        };
        let mut text = String::new();
        if self.protocol == "esp" {
            text = format!("{kind} {name} {}{icv} ", key(length, salt));
        }
        let auth = match self.auth.0 {
            "none" => return text,
            "hmac-md5-96" => ("hmac(md5)", 96),
            "hmac-sha1-96" => ("hmac(sha1)", 96),
            "hmac-sha256-128" => ("hmac(sha256)", 128),
            "hmac-sha384-192" => ("hmac(sha384)", 192),
            "hmac-sha512-256" => ("hmac(sha512)", 256),
            "aes-xcbc-96" => ("xcbc(aes)", 96),
            "aes-cmac-96" => ("cmac(aes)", 96),
            other => panic!("{other}"),
        };
        text + &format!("auth-trunc {} {} {}", auth.0, key(self.auth.1, salt ^ 0x80), auth.1)
    }

    fn xfrm_mode(&self) -> &'static str {
        if self.transport { "transport" } else { "tunnel" }
    }

    /// The line that adds the SA that Linux sends on, or the one that it receives on.
    fn xfrm_state(&self, sends: bool) -> String {
        let ([us, them], [into, out]) = (self.outer(), self.spis());
        let (src, dst, spi, salt) = if sends { (them, us, out, 1) } else { (us, them, into, 2) };
        let mut line = format!(
            "xfrm state add src {src} dst {dst} proto {} spi {spi:#x} reqid {} mode {} replay-window 64",
            self.protocol,
            self.number + 1,
            self.xfrm_mode()
        );
        if self.esn {
            line += " flag esn";
        }
        if self.protocol == "ah" && !self.outer6 {
            // By itself Linux pads the ICV to eight octets also over IPv4, where RFC 4302 §3.3.3.2.1 says four.
            line += " flag align4";
        }
        if self.outer6 != self.inner6 {
            line += " flag af-unspec";
        }
        if self.udp {
            line += " encap espinudp 4500 4500 0.0.0.0";
        }
        format!("{line} {}\n", self.xfrm_algorithms(salt))
    }

    /// The line of its policy for what leaves, which names the SA.
    fn xfrm_out(&self, change: &str) -> String {
        let ([us, them], [ours, theirs]) = (self.outer(), self.networks());
        format!(
            "xfrm policy {change} src {theirs} dst {ours} dir out priority 9 tmpl src {them} dst {us} proto {} spi {:#x} reqid {} mode {}\n",
            self.protocol,
            self.spis()[1],
            self.number + 1,
            self.xfrm_mode()
        )
    }

    /// The line of its policy for what comes.
    fn xfrm_in(&self) -> String {
        let ([us, them], [ours, theirs]) = (self.outer(), self.networks());
        format!(
            "xfrm policy add src {ours} dst {theirs} dir in priority 9 tmpl src {us} dst {them} proto {} reqid {} mode {}\n",
            self.protocol,
            self.number + 1,
            self.xfrm_mode()
        )
    }
}

/// Both ends, and what is wrong with them.
struct Pair {
    gateway: Gateway,
    guest: Guest,
    wrong: Vec<String>,
}

impl Pair {
    fn new(cases: &[Case]) -> Self {
        let (gateway, beyond) = Gateway::new(cases);
        let guest = Guest::boot(beyond, None);
        guest.write("server.py", SERVER);
        guest.done(SETUP);
        Self { gateway, guest, wrong: Vec::new() }
    }

    /// Has both ends know the SAs and policy of these.
    fn install(&self, cases: &[Case]) {
        let mut batch = String::new();
        for case in cases {
            if !case.transport {
                let _ = writeln!(
                    batch,
                    "addr add {} dev lo{}",
                    case.networks()[1],
                    if case.inner6 { " nodad" } else { "" }
                );
            }
            batch +=
                &(case.xfrm_state(false) + &case.xfrm_state(true) + &case.xfrm_out("add") + &case.xfrm_in());
        }
        self.batch(&batch);
        cases.iter().for_each(|case| case.install(&self.gateway));
    }

    fn batch(&self, lines: &str) {
        self.guest.write("batch", lines);
        self.guest.done("ip -batch /share/batch");
    }

    /// What the kernel has refused.
    fn refused(&self) -> String {
        self.guest
            .done("grep -v '\\s0$' /proc/net/xfrm_stat || true")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Tries every case, one after the other.
    fn meet(&mut self, cases: &[Case]) {
        let mut before = (self.gateway.discards(), self.refused());
        before.0.retain(|name, _| name != "too_big");
        // Together, for a command in the guest is slow; few at a time, for it has its limit.
        let mut from_guest = Vec::new();
        for some in cases.chunks(20) {
            let script: String = some
                .iter()
                .map(|case| {
                    let [ours, theirs] = case.inner();
                    format!(
                        "ping -n -q -c 2 -i 0.01 -W 20 -I {theirs} {ours} >/dev/null && echo yes || echo no\n"
                    )
                })
                .collect();
            let said = self.guest.done(&script);
            from_guest.extend(said.lines().map(|line| line == "yes"));
        }
        assert_eq!(from_guest.len(), cases.len());
        for (case, from_guest) in cases.iter().zip(from_guest) {
            let results = [
                ("ping from it", if from_guest { Ok(()) } else { Err("no answer".to_owned()) }),
                (
                    "ping to it",
                    if self.gateway.ping(case, 56) { Ok(()) } else { Err("no answer".to_owned()) },
                ),
                ("TCP", self.echo(case, stream)),
                (
                    "UDP",
                    self.echo(case, |from, to| {
                        datagrams(from, to, if case.transport { WHOLE } else { usize::MAX })
                    }),
                ),
            ];
            let mut line = format!("{:<75}", case.name());
            for (what, result) in results {
                let _ = write!(line, "  {what}: {}", if result.is_ok() { "yes" } else { "NO" });
                if let Err(why) = result {
                    self.wrong.push(format!("{}: {what}: {why}", case.name()));
                }
            }
            println!("{line}");
        }
        let mut after = (self.gateway.discards(), self.refused());
        // TCP is told what fits where more is around it than the device allows for, and heeds it.
        after.0.retain(|name, _| name != "too_big");
        if after != before {
            self.wrong.push(format!("good packets were refused: {before:?} became {after:?}"));
        }
    }

    fn echo(
        &self,
        case: &Case,
        what: impl FnOnce(SocketAddr, SocketAddr) -> std::io::Result<()> + Send,
    ) -> Result<(), String> {
        let [ours, theirs] = case.inner().map(|address| address.parse::<IpAddr>().expect("an address"));
        let done = self.gateway.namespace.run(|| what((ours, 0).into(), (theirs, 7).into()));
        done.expect("namespace").map_err(|error| error.to_string())
    }

    /// New keys and SPIs in both directions while packets come: of these none is lost, and in the end the new SAs carry them.
    fn rekey(&mut self, case: &Case) {
        let new = Case { age: case.age + 1, ..*case };
        let [ours, theirs] = case.inner();
        let before = (self.gateway.discards(), self.refused());
        let mut command = Command::new("ping");
        command
            .args(["-n", "-q", "-c", "150", "-i", "0.01", "-W", "2", "-I", &ours, &theirs])
            .stdout(Stdio::piped());
        let ping = self.gateway.namespace.spawn(&mut command).expect("ping");
        // Whoever receives can do so before anybody sends.
        new.install_sa(&self.gateway, false);
        new.install_sa(&self.gateway, true);
        self.batch(&(new.xfrm_state(false) + &new.xfrm_state(true)));
        new.install_eroute(&self.gateway, "--replace");
        self.batch(&new.xfrm_out("update"));
        let output = ping.wait_with_output().expect("ping");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // What was under way has come: the old ones can go.
        for sends in [false, true] {
            self.gateway.ipsec(&["spi", "--del", "--said", &case.said(sends)], "");
        }
        let ([us, them], [into, out]) = (case.outer(), case.spis());
        let mut lines = String::new();
        for (src, dst, spi) in [(us, them, into), (them, us, out)] {
            let _ =
                writeln!(lines, "xfrm state delete src {src} dst {dst} proto {} spi {spi:#x}", case.protocol);
        }
        self.batch(&lines);
        let after = (self.gateway.discards(), self.refused());
        if !text.contains(" 150 received, 0% packet loss") || after != before {
            self.wrong.push(format!("{}: rekey: {text}; {before:?} became {after:?}", case.name()));
        }
        println!("{:<75}  rekeyed by hand", case.name());
        self.meet(&[new]);
    }

    /// Nobody knows anything.
    fn forget(&self) {
        self.gateway.ipsec(&["eroute", "--clear"], "");
        self.gateway.ipsec(&["spi", "--clear"], "");
        self.guest.done("ip xfrm policy flush && ip xfrm state flush");
        // What transport mode is for, neighbour discovery is needed for first (RFC 4301 §4.4.1.1 has it bypass).
        let mut lines = String::new();
        for (direction, kind) in [("in", 135), ("in", 136), ("out", 135), ("out", 136)] {
            let _ = writeln!(
                lines,
                "xfrm policy add src ::/0 dst ::/0 proto ipv6-icmp type {kind} dir {direction} priority 1"
            );
        }
        self.batch(&lines);
    }
}

fn socket(from: SocketAddr, to: SocketAddr, kind: Type, protocol: Protocol) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn octets(count: usize) -> Vec<u8> {
    (0..count).map(|n| ((n * 31) ^ (n >> 8)) as u8).collect()
}

fn same(sent: &[u8], came: &[u8]) -> std::io::Result<()> {
    if sent == came {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("{} octets came as {} others", sent.len(), came.len())))
    }
}

fn stream(from: SocketAddr, to: SocketAddr) -> std::io::Result<()> {
    let socket = socket(from, to, Type::STREAM, Protocol::TCP)?;
    let (sent, mut came) = (octets(STREAM), vec![0; STREAM]);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (&socket).write_all(&sent));
        (&socket).read_exact(&mut came)?;
        writer.join().expect("no panic")
    })?;
    same(&sent, &came)
}

fn datagrams(from: SocketAddr, to: SocketAddr, most: usize) -> std::io::Result<()> {
    let socket = socket(from, to, Type::DGRAM, Protocol::UDP)?;
    for &size in DATAGRAMS.iter().filter(|size| **size <= most) {
        let (sent, mut came) = (octets(size), vec![0; 65_536]);
        (&socket).write_all(&sent)?;
        let length = (&socket)
            .read(&mut came)
            .map_err(|error| std::io::Error::other(format!("{size} octets: {error}")))?;
        same(&sent, &came[..length])?;
    }
    Ok(())
}

#[test]
fn linux_and_we_understand_each_other_with_manual_keys() {
    if let Err(why) = available() {
        return skipped(&why.to_string());
    }
    if !guest::is_there() {
        return;
    }
    let cases = Case::all();
    let mut pair = Pair::new(&cases);
    pair.install(&cases);
    pair.meet(&cases);
    // Suites that RFC 8221 says must or should be there, in one carrier and family each, and AH.
    let suites = ["aes-gcm16", "aes-cbc-256+hmac-sha256", "chacha20-poly1305", "hmac-sha256"];
    let some = suites
        .iter()
        .enumerate()
        .flat_map(|(n, suite)| cases.iter().filter(|case| case.esp == *suite).skip(n).step_by(3));
    for case in some {
        pair.rekey(case);
    }
    pair.gateway.route(["192.0.2.2/32", "2001:db8::2/128"]);
    for cases in Case::transport() {
        pair.forget();
        pair.install(&cases);
        pair.meet(&cases);
        pair.rekey(&cases[0]);
    }
    assert!(pair.wrong.is_empty(), "{} complaints:\n{}", pair.wrong.len(), pair.wrong.join("\n"));
}
