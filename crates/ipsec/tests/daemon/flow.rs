//! `ipsec klipsdebug --flow`: where the packets of one flow go.

use crate::host::{Host, IPSEC};
use ipsec::host::netlink::{Netlink, Route};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A host whose packets for 10.2.0.0/16 meet the eroutes.
fn routed() -> Option<Host> {
    let host = Host::new("ipsec0=eth7")?;
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    let routed = host.namespace.run(|| {
        let mut netlink = Netlink::open()?;
        let device = netlink.link("ipsec0")?.expect("attached").index;
        netlink.add_address(device, "10.1.0.1/32".parse().expect("net"))?;
        let src = "10.1.0.1".parse().ok();
        let dst = "10.2.0.0/16".parse().expect("net");
        netlink.add_route(&Route { dst, via: None, link: Some(device), src, metric: 0 })
    });
    routed.expect("namespace").expect("route");
    Some(host)
}

/// Ends what goes on meanwhile, whatever happens.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Packets of the flow and of another, until `work` is done.
fn meanwhile<R>(host: &Host, work: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    let socket = host.namespace.run(|| UdpSocket::bind("10.1.0.1:999")).expect("namespace").expect("socket");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for to in ["10.2.0.8:53", "10.2.0.9:53"] {
                    socket.send_to(b"question", to).expect("sent");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let _done = Done(&done);
        work()
    })
}

#[test]
fn klipsdebug_says_of_one_flow_where_its_packets_go() {
    let Some(host) = routed() else { return };
    let eroute = |what: &str, said: &str| {
        let words = ["eroute", what, "--src", "10.1.0.0/16", "--dst", "10.2.0.0/16", "--said", said];
        assert_eq!(host.ipsec(&words).code, 0);
    };
    eroute("--add", "%drop");
    let mut command = host.command(IPSEC, &["klipsdebug", "--flow", "10.1.0.1", "10.2.0.9", "udp"]);
    let mut child = host.namespace.spawn(command.stdout(Stdio::piped())).expect("klipsdebug");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!(next(), "10.1.0.0/16 -> 10.2.0.0/16 => %drop");
    assert_eq!(next(), "no other eroute matches");
    let dropped = "out: 10.1.0.1 port 999 -> 10.2.0.9 port 53 proto 17, 36 octets; \
                   10.1.0.0/16 -> 10.2.0.0/16 => %drop; refused: drop";
    let passed = "out: 10.1.0.1 port 999 -> 10.2.0.9 port 53 proto 17, 36 octets; \
                  10.1.0.0/16 -> 10.2.0.0/16 => %pass; passed";
    meanwhile(&host, || {
        assert_eq!(next(), dropped);
        eroute("--replace", "%pass");
        loop {
            match next() {
                line if line == passed => break,
                line => assert_eq!(line, dropped),
            }
        }
    });
    child.kill().expect("kill");
    child.wait().expect("wait");

    let said = meanwhile(&host, || {
        host.ipsec(&["klipsdebug", "--flow", "10.2.0.9", "10.1.0.1", "--seconds", "1", "--json"])
    });
    assert_eq!(said.code, 0, "{said:?}");
    let mut rows =
        said.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    assert!(rows.next().expect("policy")["policy"]["eroute"].is_null(), "the way back has no eroute");
    let rows: Vec<_> = rows.collect();
    assert!(!rows.is_empty());
    assert!(rows.iter().all(|row| row["fate"] == "passed" && row["packet"]["dst"] == "10.2.0.9"), "{rows:?}");

    for wrong in [
        &["--flow", "10.1.0.1"][..],
        &["--flow", "10.1.0.1", "::1"],
        &["--seconds", "1"],
        &["--flow", "a", "b"],
    ] {
        assert_eq!(host.ipsec(&[&["klipsdebug"], wrong].concat()).code, 2, "{wrong:?}");
    }
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}
