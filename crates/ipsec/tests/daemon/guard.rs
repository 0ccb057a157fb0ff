//! A clear packet from outside does not pass for one that came through the tunnel (RFC 4301 §5.2): a router in front of the
//! gateway speaks for a host behind the peer, to a host behind the gateway and to the gateway itself.

use crate::host::Host;
use ipsec::host::guard;
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::{End, Namespace, connect};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

/// An end of what is protected, and the address of the router that is nobody's.
struct Family {
    behind_peer: IpAddr,
    behind_us: IpAddr,
    gateway: IpAddr,
    router: IpAddr,
    route: &'static str,
    eroute: [&'static str; 2],
    key: [&'static str; 3],
}

struct Place {
    host: Host,
    router: Namespace,
    protected: Namespace,
}

fn families() -> [Family; 2] {
    let ip = |text: &str| text.parse().expect("address");
    [
        Family {
            behind_peer: ip("10.2.0.9"),
            behind_us: ip("10.1.0.9"),
            gateway: ip("10.1.0.1"),
            router: ip("192.0.2.9"),
            route: "10.2.0.0/16",
            eroute: ["10.1.0.0/16", "10.2.0.0/16"],
            key: ["esp0x2002@192.0.2.9", "192.0.2.7", "192.0.2.9"],
        },
        Family {
            behind_peer: ip("fd00:2::9"),
            behind_us: ip("fd00:1::9"),
            gateway: ip("fd00:1::1"),
            router: ip("2001:db8::9"),
            route: "fd00:2::/32",
            eroute: ["fd00:1::/32", "fd00:2::/32"],
            key: ["esp0x2002@2001:db8::9", "2001:db8::7", "2001:db8::9"],
        },
    ]
}

fn link(netlink: &mut Netlink, name: &str) -> std::io::Result<u32> {
    Ok(netlink.link(name)?.ok_or(std::io::ErrorKind::NotFound)?.index)
}

impl Place {
    fn new() -> Option<Self> {
        let host = Host::new("ipsec0=eth7")?;
        let (router, protected) =
            (Namespace::new().expect("namespace"), Namespace::new().expect("namespace"));
        let net = |text: &str| text.parse().expect("net");
        host.run(|netlink| {
            let (cable, eth7) = (link(netlink, "cable")?, link(netlink, "eth7")?);
            netlink.add_address_and_route(eth7, net("2001:db8::7/64"))?;
            netlink.move_link(cable, router.as_fd())
        });
        connect(
            End {
                namespace: &host.namespace,
                name: "in0",
                addresses: &[net("10.1.0.1/16"), net("fd00:1::1/32")],
            },
            End {
                namespace: &protected,
                name: "eth0",
                addresses: &[net("10.1.0.9/16"), net("fd00:1::9/32")],
            },
        )
        .expect("cable");
        within(&router, |netlink| {
            let (cable, lo) = (link(netlink, "cable")?, link(netlink, "lo")?);
            netlink.set_up(cable, true)?;
            netlink.add_address_and_route(cable, net("192.0.2.9/24"))?;
            netlink.add_address_and_route(cable, net("2001:db8::9/64"))?;
            for (own, to, via) in
                [("10.2.0.9/32", "10.1.0.0/16", "192.0.2.7"), ("fd00:2::9/128", "fd00:1::/32", "2001:db8::7")]
            {
                netlink.add_address(lo, net(own))?;
                let via = via.parse().ok();
                netlink.add_route(&Route { dst: net(to), via, link: Some(cable), src: None, metric: 0 })?;
            }
            Ok(())
        });
        within(&protected, |netlink| {
            let eth0 = link(netlink, "eth0")?;
            for (all, via) in [("0.0.0.0/0", "10.1.0.1"), ("::/0", "fd00:1::1")] {
                let via = via.parse().ok();
                netlink.add_route(&Route { dst: net(all), via, link: Some(eth0), src: None, metric: 0 })?;
            }
            Ok(())
        });
        let forwards = host.namespace.run(|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
        });
        forwards.expect("namespace").expect("forwarding");
        Some(Self { host, router, protected })
    }

    fn start(&self) {
        let said = self.host.ipsec(&["setup", "start"]);
        assert_eq!(said.code, 0, "{said:?}");
    }

    fn eroute(&self, words: &[&str]) {
        let said = self.host.ipsec(&[&["eroute"], words].concat());
        assert_eq!(said.code, 0, "{said:?}");
    }

    fn protect(&self, family: &Family) {
        let [said, src, _] = family.key;
        let key = format!("0x{}", "11".repeat(20));
        let done = self.host.ipsec(&[
            "spi",
            "--said",
            said,
            "--src",
            src,
            "--esp",
            "aes-gcm16",
            "--enckey",
            &key,
            "--tunnel",
        ]);
        assert_eq!(done.code, 0, "{done:?}");
        let [src, dst] = family.eroute;
        self.eroute(&["--add", "--src", src, "--dst", dst, "--said", said]);
        self.route(family);
    }

    fn route(&self, family: &Family) {
        let dst = family.route.parse().expect("net");
        self.host.run(|netlink| {
            let link = Some(link(netlink, "ipsec0")?);
            netlink.add_route(&Route { dst, via: None, link, src: None, metric: 0 })
        });
    }

    /// Whether a datagram that says it comes from behind the peer gets to the host behind us, and to the gateway.
    fn gets_through(&self, family: &Family) -> [bool; 2] {
        [(&self.protected, family.behind_us), (&self.host.namespace, family.gateway)].map(|(at, dst)| {
            let ears =
                at.run(|| UdpSocket::bind(SocketAddr::new(dst, 7))).expect("namespace").expect("bound");
            ears.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
            // What comes last shows that all before it has had its chance, and that the way is open.
            for (src, word) in [(family.behind_peer, b"false"), (family.router, b"plain")] {
                let sent = self
                    .router
                    .run(|| UdpSocket::bind(SocketAddr::new(src, 0))?.send_to(word, SocketAddr::new(dst, 7)));
                sent.expect("namespace").expect("sent");
            }
            let mut buffer = [0; 16];
            let first = ears.recv(&mut buffer).expect("the last datagram in time");
            let through = &buffer[..first] == b"false";
            assert!(through || &buffer[..first] == b"plain");
            through
        })
    }

    fn status(&self) -> Value {
        let said = self.host.ipsec(&["look", "--json"]);
        assert_eq!(said.code, 0, "{said:?}");
        serde_json::from_str::<Value>(&said.out).expect("json")["status"]["clear_refused"].clone()
    }

    fn refused(&self) -> u64 {
        self.status()["packets"].as_u64().expect("a number")
    }

    fn kill(&self) {
        // Whoever is answered a second time has been heard after the daemon has seen what came before the first.
        let _ = self.status();
        let daemon = self.host.daemon();
        assert!(daemon.signal(Signal::KILL).expect("kill"));
        assert!(daemon.wait(Duration::from_secs(30)).expect("wait"));
    }
}

fn within<R: Send>(
    namespace: &Namespace,
    change: impl FnOnce(&mut Netlink) -> std::io::Result<R> + Send,
) -> R {
    namespace.run(|| change(&mut Netlink::open()?)).expect("namespace").expect("netlink")
}

impl Host {
    fn run<R: Send>(&self, change: impl FnOnce(&mut Netlink) -> std::io::Result<R> + Send) -> R {
        within(&self.namespace, change)
    }
}

const THROUGH: [bool; 2] = [true; 2];
const REFUSED: [bool; 2] = [false; 2];

#[test]
fn a_clear_packet_from_outside_does_not_pass_for_a_protected_one() {
    let Some(place) = Place::new() else { return };
    let all = families();
    place.start();
    for family in &all {
        // What no route leads into the tunnel is the host's own business.
        assert_eq!(place.gets_through(family), THROUGH);
        place.protect(family);
    }
    // The daemon hears of a route after the kernel has it; the kernel needs no daemon to go by it.
    for family in &all {
        assert_eq!(place.gets_through(family), REFUSED);
    }
    assert_eq!(place.refused(), 4);

    // A dead daemon, and a dead daemon whose device is gone as well.
    place.kill();
    for family in &all {
        assert_eq!(place.gets_through(family), REFUSED);
    }
    place.host.run(|netlink| {
        let ipsec0 = link(netlink, "ipsec0")?;
        netlink.remove_link(ipsec0)
    });
    for family in &all {
        assert_eq!(place.gets_through(family), REFUSED);
    }
    place.start();
    for family in &all {
        place.protect(family);
        assert_eq!(place.gets_through(family), REFUSED);
    }
    // It is the same table: what it counted while nobody was there is not lost.
    assert_eq!(place.refused(), 16);

    // Stopped, nothing is left of it.
    let table = place.status()["by"].as_str().expect("a table").to_owned();
    assert_eq!(place.host.ipsec(&["setup", "stop"]).code, 0);
    for family in &all {
        assert_eq!(place.gets_through(family), THROUGH);
    }
    assert!(table.starts_with("nf_tables inet tulips_"), "{table}");
}

#[test]
fn what_policy_passes_in_clear_also_comes_in_clear() {
    let Some(place) = Place::new() else { return };
    let all = families();
    place.start();
    for family in &all {
        place.protect(family);
        let (peer, us) = (family.behind_peer.to_string(), family.behind_us.to_string());
        let bits = if family.behind_us.is_ipv4() { 32 } else { 128 };
        let (peer, us) = (format!("{peer}/{bits}"), format!("{us}/{bits}"));
        // The pass is for one host; the gateway is none of it.
        let pass = ["--src", &us, "--dst", &peer];
        place.eroute(&[&["--add"], &pass[..], &["--said", "%pass"]].concat());
        assert_eq!(place.gets_through(family), [true, false]);
        // Nested the other way round the longer prefix decides, as it does for what goes out.
        place.eroute(&[&["--del"], &pass[..]].concat());
        place.eroute(&["--replace", "--src", family.eroute[0], "--dst", family.eroute[1], "--said", "%pass"]);
        assert_eq!(place.gets_through(family), THROUGH);
        place.eroute(&[&["--add"], &pass[..], &["--said", "%drop"]].concat());
        assert_eq!(place.gets_through(family), [false, true]);
        // One port of one protocol, the answer's.
        place.eroute(&[&["--del"], &pass[..]].concat());
        place.eroute(&["--replace", "--src", family.eroute[0], "--dst", family.eroute[1], "--said", "%trap"]);
        for (port, through) in [("8", false), ("7", true)] {
            let ports = ["--transport-proto", "udp", "--src-port", port];
            place.eroute(&[&["--add"], &pass[..], &ports, &["--said", "%pass"]].concat());
            assert_eq!(place.gets_through(family), [through, false], "{port}");
        }
    }
    assert_eq!(place.host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn the_guard_is_there_again_when_the_firewall_was_reloaded() {
    let Some(place) = Place::new() else { return };
    let [family, _] = families();
    place.start();
    place.protect(&family);
    assert_eq!(place.gets_through(&family), REFUSED);
    let table = place.status()["by"].as_str().expect("a table").replace("nf_tables inet ", "");
    // What `nft flush ruleset` does to it.
    place.host.namespace.run(|| guard::remove(&table)).expect("namespace").expect("removed");
    // The daemon answers after it has heard what happened before the question.
    for attempt in 1.. {
        if place.gets_through(&family) == REFUSED {
            break;
        }
        assert!(attempt < 1000, "it has not come back");
    }
    assert_eq!(place.host.ipsec(&["setup", "stop"]).code, 0);
}
