//! Two hosts, a cable, and on each the key manager `page.c`, written from the text of pf_key(7P) and built from it as it
//! is, as C and as C++: the traffic of the hosts crosses the tunnel that they make.

use crate::host::Host;
use crate::setting::{compile, has, start, under_run};
use crate::skipped::skipped;
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::{End, connect};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout};
use std::time::Duration;

/// One of the two.
struct Side {
    host: Host,
    /// Its address inside, its network, and the other's.
    inner: &'static str,
    own: &'static str,
    far: &'static str,
}

impl Side {
    /// The device, the way into it, and a trap: a packet for the other network needs an SA.
    fn prepare(&self) {
        start(&self.host);
        let routed = self.host.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let device = netlink.link("ipsec0")?.expect("attached").index;
            netlink.add_address(device, format!("{}/32", self.inner).parse().expect("net"))?;
            let (dst, src) = (self.far.parse().expect("net"), self.inner.parse().ok());
            netlink.add_route(&Route { dst, via: None, link: Some(device), src, metric: 0 })
        });
        routed.expect("namespace").expect("route");
        let words = ["eroute", "--add", "--src", self.own, "--dst", self.far, "--said", "%trap"];
        let said = self.host.ipsec(&words);
        assert_eq!(said.code, 0, "{said:?}");
    }

    fn socket(&self, port: u16) -> UdpSocket {
        let bound = self.host.namespace.run(|| UdpSocket::bind((self.inner, port)));
        let socket = bound.expect("namespace").expect("bind");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        socket
    }
}

/// A key manager that runs.
struct Manager {
    process: Child,
    says: BufReader<ChildStdout>,
    hears: ChildStdin,
}

impl Manager {
    fn start(end: &Side, program: &Path, words: &[&str]) -> Self {
        let mut command = under_run(&end.host, program, words);
        command.stdin(std::process::Stdio::piped());
        let mut process = end.host.namespace.spawn(&mut command).expect("ipsec run");
        let says = BufReader::new(process.stdout.take().expect("piped"));
        let hears = process.stdin.take().expect("piped");
        Self { process, says, hears }
    }

    fn expect(&mut self, line: &str) {
        let mut said = String::new();
        self.says.read_line(&mut said).expect("a line");
        if said.trim_end() != line {
            let mut why = String::new();
            let _ = self.process.stderr.take().expect("piped").read_to_string(&mut why);
            panic!("{said:?} and not {line:?}: {why}");
        }
    }

    fn end(mut self) {
        self.expect("done");
        assert!(self.process.wait().expect("wait").success());
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tunnel_by(program: impl Fn(&Host) -> std::path::PathBuf) -> Option<()> {
    let end = |inner, own, far| Some(Side { host: Host::new("ipsec0=eth0")?, inner, own, far });
    let left = end("10.1.0.1", "10.1.0.0/16", "10.2.0.0/16")?;
    let right = end("10.2.0.1", "10.2.0.0/16", "10.1.0.0/16")?;
    let net = |text: &str| [text.parse().expect("net")];
    connect(
        End { namespace: &left.host.namespace, name: "eth0", addresses: &net("198.51.100.1/24") },
        End { namespace: &right.host.namespace, name: "eth0", addresses: &net("198.51.100.2/24") },
    )
    .expect("a cable");
    left.prepare();
    right.prepare();
    let program = program(&left.host);
    let words = ["198.51.100.1", "198.51.100.2", "10.1.0.0", "10.2.0.0", "0x1111", "0x2222"];
    let mut one = Manager::start(&left, &program, &words);
    let words = ["198.51.100.2", "198.51.100.1", "10.2.0.0", "10.1.0.0", "0x2222", "0x1111"];
    let mut two = Manager::start(&right, &program, &words);
    one.expect("ready");
    two.expect("ready");

    // The first packet makes the left manager add its SA, and its answer the right one.
    let (here, there) = (left.socket(0), right.socket(7));
    let mut buffer = [0; 512];
    let mut echo = |octets: &[u8]| {
        here.send_to(octets, (right.inner, 7)).expect("sent");
        let (got, from) = there.recv_from(&mut buffer).expect("it crosses");
        assert_eq!(&buffer[..got], octets);
        there.send_to(octets, from).expect("sent");
        let got = here.recv(&mut buffer).expect("it crosses back");
        assert_eq!(&buffer[..got], octets);
    };
    echo(&[0x55; 200]);
    one.expect("acquire 10.2.0.1");
    one.expect("added");
    two.expect("acquire 10.1.0.1");
    two.expect("added");
    (0..20).for_each(|n| echo(&[n; 100]));

    // GET, UPDATE, DUMP, DELETE.
    for (manager, end) in [(&mut one, &left), (&mut two, &right)] {
        manager.hears.write_all(b"go\n").expect("told");
        manager.expect("deleted");
        let left_over = end.host.ipsec(&["spi"]).out;
        assert_eq!(left_over.lines().count(), 1, "the inbound SA alone: {left_over}");
    }
    // What was deleted carries nothing; the need for it is told anew.
    there.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    here.send_to(b"none", (right.inner, 7)).expect("sent");
    there.send_to(b"none", here.local_addr().expect("address")).expect("sent");
    one.expect("acquire 10.2.0.1");
    two.expect("acquire 10.1.0.1");
    assert_eq!(there.recv(&mut buffer).expect_err("nothing crosses").kind(), ErrorKind::WouldBlock);
    one.end();
    two.end();
    for end in [left, right] {
        assert_eq!(end.host.ipsec(&["setup", "stop"]).code, 0);
    }
    Some(())
}

#[test]
fn a_key_manager_written_from_the_page_makes_a_tunnel() {
    let builds = [
        ("cc", ["-std=c89", "-pedantic", "-x", "c"]),
        ("c++", ["-std=c++98", "-O2", "-x", "c++"]),
        ("clang", ["-std=c89", "-pedantic", "-x", "c"]),
        ("clang++", ["-std=c++98", "-O2", "-x", "c++"]),
    ];
    for (compiler, words) in builds {
        if !has(compiler) {
            skipped(&format!("a key manager built by {compiler}: no such compiler"));
        } else if tunnel_by(|host| compile(host, compiler, &words, "page.c")).is_none() {
            return;
        }
    }
}
