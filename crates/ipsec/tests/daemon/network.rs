//! Two gateways, a router between them that forwards and tells of its limits, a host behind each:
//! `ha` – `a` – router – `b` – `hb`. Both families inside and outside, keys set by hand, routes as the manual pages have them.

use crate::host::Host;
use ipsec::host::interfaces::keep::Mark;
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::{End, Namespace, connect};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

pub(crate) struct Network {
    pub(crate) ha: Namespace,
    pub(crate) a: Host,
    pub(crate) router: Namespace,
    pub(crate) b: Host,
    pub(crate) hb: Namespace,
}

/// How the tunnel is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) outer6: bool,
    pub(crate) inner6: bool,
    pub(crate) udp: bool,
}

const A: [&str; 2] = ["192.0.2.7", "2001:db8:a::7"];
const B: [&str; 2] = ["198.51.100.7", "2001:db8:b::7"];
const NETS: [[&str; 2]; 2] = [["10.1.0.0/16", "10.2.0.0/16"], ["fd00:1::/32", "fd00:2::/32"]];
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn within<R: Send>(
    namespace: &Namespace,
    change: impl FnOnce(&mut Netlink) -> std::io::Result<R> + Send,
) -> R {
    namespace.run(|| change(&mut Netlink::open()?)).expect("namespace").expect("netlink")
}

fn link(netlink: &mut Netlink, name: &str) -> std::io::Result<u32> {
    Ok(netlink.link(name)?.ok_or(std::io::ErrorKind::NotFound)?.index)
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("net")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn defaults(netlink: &mut Netlink, name: &str, via: [&str; 2]) -> std::io::Result<()> {
    let link = Some(link(netlink, name)?);
    for (dst, via) in ["0.0.0.0/0", "::/0"].into_iter().zip(via) {
        netlink.add_route(&Route { dst: net(dst), via: via.parse().ok(), link, src: None, metric: 0 })?;
    }
    Ok(())
}

fn forward(namespace: &Namespace) {
    let done = namespace.run(|| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
    });
    done.expect("namespace").expect("forwarding");
}

impl Network {
    /// `None`, and why on stderr, where namespaces cannot be made.
    pub(crate) fn new() -> Option<Self> {
        let (a, b) = (Host::new("ipsec0=eth7")?, Host::new("ipsec0=eth7")?);
        let [ha, router, hb] = [(); 3].map(|()| Namespace::new().expect("namespace"));
        within(&b.namespace, |netlink| {
            let eth7 = link(netlink, "eth7")?;
            netlink.remove_address(eth7, net("192.0.2.7/24"))?;
            netlink.add_address_and_route(eth7, net("198.51.100.7/24"))
        });
        for (host, own, cable, theirs) in [
            (&a, "2001:db8:a::7/64", "to-a", ["192.0.2.1/24", "2001:db8:a::1/64"]),
            (&b, "2001:db8:b::7/64", "to-b", ["198.51.100.1/24", "2001:db8:b::1/64"]),
        ] {
            within(&host.namespace, |netlink| {
                let (far, eth7) = (link(netlink, "cable")?, link(netlink, "eth7")?);
                netlink.add_address_and_route(eth7, net(own))?;
                netlink.set_up(far, false)?;
                netlink.rename(far, cable)?;
                netlink.move_link(far, router.as_fd())
            });
            within(&router, |netlink| {
                let near = link(netlink, cable)?;
                netlink.set_up(near, true)?;
                theirs.iter().try_for_each(|own| netlink.add_address_and_route(near, net(own)))
            });
            within(&host.namespace, |netlink| {
                let via = theirs.map(|own| own.split('/').next().unwrap_or(own));
                defaults(netlink, "eth7", via)
            });
        }
        for (host, inside, [gateway4, own4], [gateway6, own6]) in [
            (&a, &ha, ["10.1.0.1", "10.1.0.9"], ["fd00:1::1", "fd00:1::9"]),
            (&b, &hb, ["10.2.0.1", "10.2.0.9"], ["fd00:2::1", "fd00:2::9"]),
        ] {
            let nets = |v4: &str, v6: &str| [net(&format!("{v4}/16")), net(&format!("{v6}/32"))];
            connect(
                End { namespace: &host.namespace, name: "in0", addresses: &nets(gateway4, gateway6) },
                End { namespace: inside, name: "eth0", addresses: &nets(own4, own6) },
            )
            .expect("cable");
            within(inside, |netlink| defaults(netlink, "eth0", [gateway4, gateway6]));
            forward(&host.namespace);
        }
        forward(&router);
        for host in [&a, &b] {
            let said = host.ipsec(&["setup", "start"]);
            assert_eq!(said.code, 0, "{said:?}");
        }
        Some(Self { ha, a, router, b, hb })
    }

    /// Sets both SAs, the eroute and the route on both gateways, in the place of those there are.
    pub(crate) fn tunnel(&self, way: Way) {
        let (outer, inner) = (usize::from(way.outer6), usize::from(way.inner6));
        let (ends, nets) = ([A[outer], B[outer]], NETS[inner]);
        let key = format!("0x{}", "5a".repeat(20));
        for (host, own) in [(&self.a, 0), (&self.b, 1)] {
            let must = |words: &[&str]| {
                let said = host.ipsec(words);
                assert_eq!(said.code, 0, "{words:?}: {said:?}");
            };
            must(&["spi", "--clear"]);
            must(&["eroute", "--clear"]);
            let said = [0, 1].map(|from| format!("esp0x100{from}@{}", ends[1 - from]));
            for from in [0, 1] {
                let natt: &[&str] = if way.udp { &["--natt", "nonesp"] } else { &[] };
                let (src, dst) = (nets[from], nets[1 - from]);
                let words = ["spi", "--said", &said[from], "--src", ends[from], "--esp", "aes-gcm16"];
                let more = ["--enckey", &key, "--inner-src", src, "--inner-dst", dst];
                must(&[&words[..], &more, natt].concat());
            }
            let (src, dst) = (nets[own], nets[1 - own]);
            must(&["eroute", "--replace", "--src", src, "--dst", dst, "--said", &said[own]]);
            within(&host.namespace, |netlink| {
                let link = Some(link(netlink, "ipsec0")?);
                netlink.add_route(&Route { dst: net(dst), via: None, link, src: None, metric: 0 })
            });
        }
    }

    pub(crate) fn set_mtu(namespace: &Namespace, name: &str, mtu: u32) {
        within(namespace, |netlink| {
            let link = link(netlink, name)?;
            netlink.set_mtu(link, mtu)
        });
    }

    /// Sends so many octets by TCP from the host behind `a` to the one behind `b`, and has them sent back.
    pub(crate) fn tcp(&self, inner6: bool, octets: usize) {
        let address = SocketAddr::new(ip(if inner6 { "fd00:2::9" } else { "10.2.0.9" }), 7);
        let listener = self.hb.run(|| TcpListener::bind(address)).expect("namespace").expect("bound");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all)?;
            stream.write_all(&all)
        });
        let connect = || TcpStream::connect_timeout(&address, LIMIT);
        let mut stream = self.ha.run(connect).expect("namespace").expect("the tunnel carries no TCP");
        stream.set_read_timeout(Some(LIMIT)).expect("timeout");
        stream.set_write_timeout(Some(LIMIT)).expect("timeout");
        let all: Vec<u8> = (0..octets).map(|n| (n * 7 % 251) as u8).collect();
        stream.write_all(&all).expect("all written");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("all read");
        assert!(back == all, "{} octets came back of {octets}", back.len());
        server.join().expect("server").expect("served");
    }
}

const EACH: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

/// A link in the middle that is narrower than the tunnel believes: the router says so to who sends ESP.
#[test]
fn a_narrower_path_carries_all_tcp_whatever_carries_esp() {
    let Some(place) = Network::new() else { return };
    Network::set_mtu(&place.router, "to-b", 1300);
    Network::set_mtu(&place.b.namespace, "eth7", 1300);
    for udp in [false, true] {
        for [outer6, inner6] in EACH {
            place.tunnel(Way { outer6, inner6, udp });
            place.tcp(inner6, 1_000_000);
        }
    }
}

/// The same where the peer itself lies in a network that is routed into the device: past what drops beneath that route, and
/// with what the router says about a way that only our sockets take.
#[test]
fn a_peer_whose_address_is_routed_into_the_tunnel_is_reached_over_a_narrower_path() {
    let Some(place) = Network::new() else { return };
    let cable = |mtu| {
        Network::set_mtu(&place.router, "to-b", mtu);
        Network::set_mtu(&place.b.namespace, "eth7", mtu);
    };
    for udp in [false, true] {
        for [outer6, inner6] in EACH {
            cable(1500);
            place.tunnel(Way { outer6, inner6, udp });
            within(&place.a.namespace, |netlink| {
                let link = Some(link(netlink, "ipsec0")?);
                let dst = net(if outer6 { "2001:db8:b::/64" } else { "198.51.100.0/24" });
                netlink.add_route(&Route { dst, via: None, link, src: None, metric: 0 })
            });
            place.tcp(inner6, 100_000);
            cable(1300);
            place.tcp(inner6, 300_000);
        }
    }
}

/// The default route put in the place of the one that led to the peer.
#[test]
fn a_default_route_into_the_tunnel_leaves_esp_its_way_and_gives_it_back() {
    let Some(place) = Network::new() else { return };
    let ways = |v6: bool| {
        let mark = Mark::new(place.a.rundir.path()).protocol();
        let mut ways = within(&place.a.namespace, |netlink| netlink.ways(mark));
        ways.retain(|(_, route)| route.dst.addr().is_ipv6() == v6);
        ways.len()
    };
    for outer6 in [false, true] {
        let (all, router) = if outer6 { ("::/0", "2001:db8:a::1") } else { ("0.0.0.0/0", "192.0.2.1") };
        place.tunnel(Way { outer6, inner6: outer6, udp: true });
        place.tcp(outer6, 10_000);
        let default = |name: &str, via: Option<&str>| {
            within(&place.a.namespace, |netlink| {
                let link = Some(link(netlink, name)?);
                let via = via.map(ip);
                netlink.add_route(&Route { dst: net(all), via, link, src: None, metric: 0 })
            });
        };
        default("ipsec0", None);
        // The daemon hears of it a little later; TCP tries again.
        place.tcp(outer6, 100_000);
        assert!(ways(outer6) > 0);
        // A daemon that comes after one that was killed takes it up.
        let daemon = place.a.daemon();
        assert!(daemon.signal(rustix::process::Signal::KILL).expect("kill"));
        assert!(daemon.wait(LIMIT).expect("wait"));
        assert_eq!(place.a.ipsec(&["setup", "start"]).code, 0);
        place.tunnel(Way { outer6, inner6: outer6, udp: false });
        place.tcp(outer6, 100_000);
        default("eth7", Some(router));
        place.tcp(outer6, 10_000);
        default("ipsec0", None);
        place.tcp(outer6, 10_000);
    }
    assert_eq!(place.a.ipsec(&["setup", "stop"]).code, 0);
    assert_eq!([ways(false), ways(true)], [0, 0]);
}

/// A gateway's own packets, from a socket that names no address, and with them its ICMP errors.
#[test]
fn the_gateways_own_packets_go_through_the_tunnel() {
    let Some(place) = Network::new() else { return };
    for inner6 in [false, true] {
        place.tunnel(Way { outer6: false, inner6, udp: true });
        let (any, to, from) =
            if inner6 { ("::", "fd00:2::9", "fd00:1::1") } else { ("0.0.0.0", "10.2.0.9", "10.1.0.1") };
        let ears = place.hb.run(|| UdpSocket::bind((ip(to), 9))).expect("namespace").expect("bound");
        ears.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
        // The daemon hears of a route, and of what policy has to do with it, a little later.
        let mut heard = None;
        for _ in 0..300 {
            let send = || UdpSocket::bind((any, 0))?.send_to(b"own", (ip(to), 9));
            place.a.namespace.run(send).expect("namespace").expect("sent");
            if let Ok((_, who)) = ears.recv_from(&mut [0; 16]) {
                heard = Some(who.ip());
                break;
            }
        }
        assert_eq!(heard, Some(ip(from)));
        // A link behind b that is narrower than the tunnel: b says so, to a host behind a.
        Network::set_mtu(&place.b.namespace, "in0", 1280);
        Network::set_mtu(&place.hb, "eth0", 1280);
        place.tcp(inner6, 300_000);
    }
}
