//! Two data planes in two network namespaces, a cable between them, real packets through both.
//!
//! Needs the right to make network namespaces (root, or `unshare -Ur`) and `/dev/net/tun`; says so and skips otherwise.

mod fragments;
mod hops;

#[path = "../support/alone.rs"]
mod alone;
#[path = "../support/skipped.rs"]
mod skipped;

use ipnet::IpNet;
use ipsec::host::interfaces::clear::Guarded;
use ipsec::host::interfaces::keep::Mark;
use ipsec::host::interfaces::{Addresses, Interfaces, Physical, Settings, Status};
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::{End, Namespace, available, connect};
use ipsec::host::worker::Shape;
use ipsec_core::algorithm::{Auth, Encryption, Suite};
use ipsec_core::{Protocol, SaId, Selector, Spi};
use klips::{Action, Blueprint, Discard, Encapsulation, Eroute, Keys, Limits, Mode, Plane, Sa};
use rustix::event::{EventfdFlags, eventfd};
use skipped::skipped;
use socket2::{Domain, Protocol as Ip, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const GCM: Suite = Suite { encryption: Some(Encryption::AesGcm16), auth: None };
const CBC: Suite = Suite { encryption: Some(Encryption::AesCbc), auth: Some(Auth::HmacSha256) };

/// What the two ends agree on.
#[derive(Clone)]
struct Case {
    outer6: bool,
    inner6: bool,
    udp: bool,
    suite: Suite,
    settings: Settings,
    kind: Kind,
    /// The MTU of the link behind a router between the two; without one they are on one cable.
    router: Option<u32>,
}

/// What is done to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// ESP in tunnel mode: the fast way.
    Tunnel,
    /// AH in tunnel mode.
    AhTunnel,
    /// IPIP, IPComp, ESP and AH, one after the other.
    Group,
    /// ESP in transport mode.
    Transport,
    /// ESP and AH in transport mode.
    TransportGroup,
}

impl Kind {
    const fn is_transport(self) -> bool {
        matches!(self, Self::Transport | Self::TransportGroup)
    }
}

impl Default for Case {
    fn default() -> Self {
        let settings = Settings { workers: Some(1), ..Settings::default() };
        Self {
            outer6: false,
            inner6: false,
            udp: true,
            suite: GCM,
            settings,
            kind: Kind::Tunnel,
            router: None,
        }
    }
}

/// One end: a gateway that is its own protected host.
struct Gateway {
    namespace: Namespace,
    plane: Arc<Plane>,
    interfaces: Interfaces,
    inner: IpAddr,
}

struct Tunnel {
    left: Gateway,
    right: Gateway,
    /// The router between them, if there is one.
    _router: Option<Namespace>,
}

fn outer(case: &Case, host: u8) -> IpNet {
    let far = case.router.is_some() && host.is_multiple_of(2);
    let net = match (case.outer6, far) {
        (false, false) => format!("192.0.2.{host}/24"),
        (false, true) => format!("198.51.100.{host}/24"),
        (true, false) => format!("2001:db8::{host}/64"),
        (true, true) => format!("2001:db8:1::{host}/64"),
    };
    net.parse().unwrap()
}

/// The network behind an end; its first address is the end's own. In transport mode that is the end itself.
fn inner(case: &Case, host: u8) -> IpNet {
    if case.kind.is_transport() {
        return outer(case, host).addr().into();
    }
    let net = if case.inner6 { format!("fd00:{host}::1/64") } else { format!("10.0.{host}.1/24") };
    net.parse().unwrap()
}

/// The SAs from one end to the other, from the inside to the outside.
fn sas(case: &Case, from: u8, to: u8) -> Vec<Arc<Sa>> {
    const NONE: Suite = Suite { encryption: None, auth: None };
    const AH: Suite = Suite { encryption: None, auth: Some(Auth::HmacSha256) };
    let tun = (Protocol::Ipip, Mode::Tunnel, NONE);
    let comp = (Protocol::Ipcomp, Mode::Transport, NONE);
    let esp = (Protocol::Esp, Mode::Transport, case.suite);
    let ah = (Protocol::Ah, Mode::Transport, AH);
    let chain = match case.kind {
        Kind::Tunnel => vec![(Protocol::Esp, Mode::Tunnel, case.suite)],
        Kind::AhTunnel => vec![(Protocol::Ah, Mode::Tunnel, AH)],
        Kind::Group => vec![tun, comp, esp, ah],
        Kind::Transport => vec![esp],
        Kind::TransportGroup => vec![esp, ah],
    };
    let key = |len: usize| Zeroizing::new((0..len).map(|n| n as u8 ^ from).collect::<Vec<u8>>());
    let one = |(n, (protocol, mode, suite)): (u32, (Protocol, Mode, Suite))| {
        let encryption =
            suite.encryption.map_or(0, |cipher| if cipher == Encryption::AesGcm16 { 20 } else { 16 });
        let auth = if suite.auth.is_some() { 32 } else { 0 };
        Arc::new(Sa::new(Blueprint {
            id: SaId { dst: outer(case, to).addr(), protocol, spi: Spi(0x1000 + u32::from(from) + 0x10 * n) },
            src: outer(case, from).addr(),
            mode,
            suite,
            keys: Keys { encryption: key(encryption), auth: key(auth), ..Keys::default() },
            esn: false,
            window: 1024,
            encapsulation: (case.udp && protocol == Protocol::Esp)
                .then_some(Encapsulation { local: 4500, remote: 4500 }),
            selector: (n == 0).then(|| Selector::nets(inner(case, from), inner(case, to))),
            limits: Limits::default(),
        }))
    };
    (0..).zip(chain).map(one).collect()
}

fn gateway(case: &Case, namespace: Namespace, host: u8, peer: u8) -> Gateway {
    let plane = Arc::new(Plane::default());
    let (out, back) = (sas(case, host, peer), sas(case, peer, host));
    let id = out[0].id;
    plane.publish_group(out).unwrap();
    plane.publish_group(back).unwrap();
    let selector = Selector::nets(inner(case, host), inner(case, peer));
    plane.change_eroutes(|eroutes| eroutes.add(Eroute::new(selector, Action::Protect(id))).unwrap());
    let own = IpNet::from(inner(case, host).addr());
    let interfaces = namespace.run(|| {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let ike = Arc::new(|_: &_, _: &_| false);
        let mut interfaces = Interfaces::new(Arc::clone(&plane), wake, ike, case.settings.clone()).unwrap();
        let eth0 = Physical::Name("eth0".into());
        interfaces.attach("ipsec0", &eth0, &Addresses::Given(vec![own])).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link("ipsec0").unwrap().map(|link| link.index);
        let dst = inner(case, peer).trunc();
        netlink.add_route(&Route { dst, via: None, link, src: Some(own.addr()), metric: 0 }).unwrap();
        interfaces
    });
    Gateway { namespace, plane, interfaces: interfaces.unwrap(), inner: own.addr() }
}

/// The tunnel, or a reason to skip.
fn tunnel(case: &Case) -> Option<Tunnel> {
    if let Err(why) = available() {
        skipped(&why.to_string());
        return None;
    }
    alone::wait();
    let (left, right) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let router = case.router.map(|mtu| router(case, mtu, [&left, &right]));
    if router.is_none() {
        connect(
            End { namespace: &left, name: "eth0", addresses: &[outer(case, 1)] },
            End { namespace: &right, name: "eth0", addresses: &[outer(case, 2)] },
        )
        .unwrap();
    }
    Some(Tunnel { left: gateway(case, left, 1, 2), right: gateway(case, right, 2, 1), _router: router })
}

/// Puts a router between the two, with a link of this MTU to the second. Each has a route to the other.
fn router(case: &Case, mtu: u32, ends: [&Namespace; 2]) -> Namespace {
    let router = Namespace::new().unwrap();
    for (host, end) in (1..).zip(ends) {
        let name = format!("eth{host}");
        connect(
            End { namespace: end, name: "eth0", addresses: &[outer(case, host)] },
            End { namespace: &router, name: &name, addresses: &[outer(case, host + 100)] },
        )
        .unwrap();
        let small = |name: &str| {
            let mut netlink = Netlink::open().unwrap();
            let link = netlink.link(name).unwrap().unwrap().index;
            netlink.set_mtu(link, if host == 2 { mtu } else { 1500 }).unwrap();
            link
        };
        router.run(|| small(&name)).unwrap();
        let via = Some(outer(case, host + 100).addr());
        end.run(|| {
            let link = Some(small("eth0"));
            let dst = outer(case, 3 - host).trunc();
            Netlink::open().unwrap().add_route(&Route { dst, via, link, src: None, metric: 0 }).unwrap();
        })
        .unwrap();
    }
    router
        .run(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        })
        .unwrap();
    router
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 % 253) as u8).collect()
}

impl Gateway {
    fn status(&self) -> Status {
        self.interfaces.list().remove(0)
    }

    fn counter(&self, name: &str) -> u64 {
        self.status().counters.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// A counter of this end's kernel for IPv4 (RFC 4293).
    fn of_ip(&self, name: &str) -> u64 {
        // Without the thread it would be the namespace of the first one.
        let read = || std::fs::read_to_string("/proc/thread-self/net/snmp");
        let text = self.namespace.run(read).unwrap().unwrap();
        let mut rows = text.lines().filter(|line| line.starts_with("Ip:"));
        let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
        let at = names.split(' ').position(|known| known == name).unwrap();
        values.split(' ').nth(at).unwrap().parse().unwrap()
    }

    /// Hears every ICMP message that comes to this end.
    fn icmp(&self) -> Socket {
        let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Ip::ICMPV4));
        self.namespace.run(open).unwrap().unwrap()
    }

    fn udp(&self) -> UdpSocket {
        let socket = self.namespace.run(|| UdpSocket::bind((self.inner, 0))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // A thread that does not run for a while must not be taken for a loss on the way.
        let size = 8 << 20;
        ipsec::host::mmsg::set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).unwrap();
        socket
    }

    /// Everything this end refused, but packets without an eroute: the host's own chatter.
    fn refused(&self) -> Vec<(&'static str, u64)> {
        let all = Discard::ALL.iter().filter(|why| **why != Discard::NoEroute);
        all.map(|why| (why.name(), self.plane.discarded(*why))).filter(|(_, n)| *n > 0).collect()
    }
}

impl Tunnel {
    /// Sends `octets` by TCP from left to right, which sends them back, and compares.
    fn tcp_echo(&self, octets: &[u8]) {
        let address = SocketAddr::new(self.right.inner, 7);
        let listener = self.right.namespace.run(|| TcpListener::bind(address)).unwrap().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let limit = Duration::from_secs(20);
        let connect = || TcpStream::connect_timeout(&address, limit);
        let mut stream = self.left.namespace.run(connect).unwrap().expect("the tunnel carries no TCP");
        stream.set_read_timeout(Some(limit)).unwrap();
        stream.set_write_timeout(Some(limit)).unwrap();
        stream.write_all(octets).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == octets, "{} octets came back of {}", back.len(), octets.len());
        server.join().unwrap();
    }

    /// One UDP datagram there and back.
    fn udp_echo(&self, octets: &[u8]) {
        let bind = |end: &Gateway| {
            let socket = end.namespace.run(|| UdpSocket::bind((end.inner, 0))).unwrap().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket
        };
        let (left, right) = (bind(&self.left), bind(&self.right));
        let mut buffer = vec![0; 65_536];
        left.send_to(octets, right.local_addr().unwrap()).unwrap();
        let (n, from) = right.recv_from(&mut buffer).expect("the tunnel carries no UDP");
        assert_eq!(from, left.local_addr().unwrap());
        right.send_to(&buffer[..n], from).unwrap();
        let (n, _) = left.recv_from(&mut buffer).expect("the tunnel carries no UDP back");
        assert!(buffer[..n] == *octets);
    }
}

/// Numbered datagrams of one flow, never more than `AHEAD` of which are not acknowledged; the receiver checks that they
/// come in order, once each and unchanged.
fn stream(from: &UdpSocket, to: &UdpSocket, datagrams: u32, len: usize) {
    const AHEAD: u32 = 64;
    let datagram = |number: u32| {
        let mut octets = pattern(len.max(4));
        octets[..4].copy_from_slice(&number.to_be_bytes());
        octets
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; 65_536];
            for number in 0..datagrams {
                let (n, _) = to.recv_from(&mut buffer).expect("a datagram was lost");
                assert!(buffer[..n] == datagram(number), "{number} was expected, {:?} came", &buffer[..4]);
                if number % (AHEAD / 2) == AHEAD / 2 - 1 {
                    to.send(&number.to_be_bytes()).unwrap();
                }
            }
        });
        let mut acknowledged = 0;
        for number in 0..datagrams {
            while number - acknowledged >= AHEAD {
                let mut buffer = [0; 4];
                from.recv_from(&mut buffer).expect("an acknowledgement was lost");
                acknowledged = u32::from_be_bytes(buffer) + 1;
            }
            from.send(&datagram(number)).unwrap();
        }
    });
}

/// One ICMP echo from inside a namespace: true if it was answered.
fn ping(end: &Gateway, dst: Ipv4Addr) -> bool {
    let socket = end.icmp();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // Type 8, code 0, checksum, identifier 7, number 1.
    let request = [8, 0, 0xf7, 0xf7, 0, 7, 0, 1];
    socket.send_to(&request, &SocketAddr::new(dst.into(), 0).into()).unwrap();
    let mut buffer = [0; 2048];
    loop {
        match (&socket).read(&mut buffer) {
            // Our own request is seen too where the way goes through `lo`.
            Ok(n) if n >= 28 && buffer[20] == 0 => return buffer[24..28] == [0, 7, 0, 1],
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

fn check(case: &Case) {
    let Some(tunnel) = tunnel(case) else { return };
    for len in [0, 1, 100, 1300] {
        tunnel.udp_echo(&pattern(len));
    }
    tunnel.tcp_echo(&pattern(3_000_000));
    // Longer than the device's MTU: the host cuts it before we see it, to what TCP has found to fit. Transport mode is for
    // whole packets.
    if !case.kind.is_transport() {
        tunnel.udp_echo(&pattern(5000));
    }
    for end in [&tunnel.left, &tunnel.right] {
        let mut refused = end.refused();
        // A full packet, UDP and ESP are 4 octets longer than IPv6 has room for: the host is told, and heeds it.
        let more = case.outer6 && case.udp || case.kind != Kind::Tunnel;
        refused.retain(|(why, n)| !(more && *why == "too_big" && *n < 100));
        assert_eq!(refused, []);
    }
}

#[test]
fn every_family_in_every_family_over_udp_and_raw() {
    for outer6 in [false, true] {
        for inner6 in [false, true] {
            for udp in [true, false] {
                check(&Case { outer6, inner6, udp, ..Case::default() });
            }
        }
    }
}

#[test]
fn ah_transport_mode_and_groups_in_every_family() {
    for (kind, udp) in [
        (Kind::AhTunnel, false),
        (Kind::Group, false),
        (Kind::Transport, false),
        (Kind::Transport, true),
        (Kind::TransportGroup, false),
    ] {
        for outer6 in [false, true] {
            check(&Case { kind, udp, outer6, inner6: outer6, ..Case::default() });
        }
    }
}

#[test]
fn the_same_without_any_offload() {
    for inner6 in [false, true] {
        for udp in [true, false] {
            let case = Case::default();
            let settings = case.settings.clone().without_offloads();
            check(&Case { inner6, udp, settings, ..case });
        }
    }
}

#[test]
fn the_same_on_two_workers_and_on_split_ones() {
    for shape in [Shape::Together, Shape::Split] {
        for (workers, udp) in [(1, true), (2, true), (2, false)] {
            let settings = Settings { workers: Some(workers), shape, ..Settings::default() };
            check(&Case { udp, settings, ..Case::default() });
        }
    }
}

/// All offloads or none, one worker or several, steered or not, in UDP and raw.
fn layouts() -> impl Iterator<Item = Case> {
    let settings = |workers, list: &str| {
        let mut settings = Settings { workers: Some(workers), ..Settings::default() };
        settings.set_offloads(list).unwrap();
        settings
    };
    let all = [(1, "all"), (1, "none"), (2, "all"), (2, "none"), (3, "-steer")];
    let settings = all.map(|(workers, list)| settings(workers, list));
    settings.into_iter().flat_map(|settings| {
        [true, false].map(|udp| Case { udp, settings: settings.clone(), ..Case::default() })
    })
}

#[test]
fn flows_in_both_directions_lose_nothing_and_keep_their_order() {
    for case in layouts() {
        let Some(tunnel) = tunnel(&case) else { return };
        let (left, right) = (&tunnel.left, &tunnel.right);
        // Until the kernel knows its neighbour it keeps a few packets and drops the rest: that is before the flows begin.
        tunnel.udp_echo(b"who is there");
        std::thread::scope(|scope| {
            for (flow, len) in [8, 200, 1000, 1364, 64, 700].into_iter().enumerate() {
                let (from, to) = if flow % 2 == 0 { (left, right) } else { (right, left) };
                let (from, to) = (from.udp(), to.udp());
                scope.spawn(move || {
                    from.connect(to.local_addr().unwrap()).unwrap();
                    to.connect(from.local_addr().unwrap()).unwrap();
                    // The way back decides which queue of the device a flow belongs to; this settles it.
                    for (from, to) in [(&from, &to), (&to, &from)] {
                        from.send(b"first").unwrap();
                        to.recv_from(&mut [0; 8]).expect("the first datagram was lost");
                    }
                    stream(&from, &to, 2000, len);
                });
            }
        });
        for end in [left, right] {
            assert_eq!(end.refused(), [], "{:?}", end.status());
        }
    }
}

#[test]
fn pings_are_answered_and_raw_esp_draws_no_errors() {
    for case in layouts() {
        let Some(tunnel) = tunnel(&case) else { return };
        let heard = [tunnel.left.icmp(), tunnel.right.icmp()];
        for (end, dst) in [(&tunnel.left, [10, 0, 2, 1]), (&tunnel.right, [10, 0, 1, 1])] {
            assert!(ping(end, dst.into()), "{:?}", end.status());
        }
        tunnel.tcp_echo(&pattern(1_000_000));
        for mut socket in heard {
            socket.set_nonblocking(true).unwrap();
            let mut buffer = [0; 2048];
            while let Ok(n) = socket.read(&mut buffer) {
                // Type 3 is "destination unreachable".
                assert!(n > 20 && buffer[20] != 3, "{:?}", &buffer[20..n]);
            }
        }
    }
}

#[test]
fn a_cipher_with_separate_integrity_carries_the_same() {
    for udp in [true, false] {
        check(&Case { udp, suite: CBC, ..Case::default() });
    }
}

#[test]
fn superpackets_cross_the_device_in_both_directions() {
    let Some(tunnel) = tunnel(&Case::default()) else { return };
    let octets = pattern(20_000_000);
    tunnel.tcp_echo(&octets);
    let packets = octets.len() as u64 / 1368;
    for end in [&tunnel.left, &tunnel.right] {
        assert!(end.counter("device_reads") < packets, "{:?}", end.status());
        assert!(end.counter("device_writes") < packets, "{:?}", end.status());
        assert_eq!(end.counter("device_refused_merged"), 0);
        assert_eq!(end.counter("runs_not_segmented"), 0);
    }
}

#[test]
fn a_smaller_mtu_below_is_followed_while_traffic_flows() {
    let Some(mut tunnel) = tunnel(&Case::default()) else { return };
    tunnel.tcp_echo(&pattern(100_000));
    for end in [&mut tunnel.left, &mut tunnel.right] {
        let interfaces = &mut end.interfaces;
        let log = end.namespace.run(|| {
            let mut netlink = Netlink::open().unwrap();
            let eth0 = netlink.link("eth0").unwrap().unwrap();
            netlink.set_mtu(eth0.index, 1400).unwrap();
            interfaces.follow().unwrap()
        });
        assert!(
            log.unwrap().unwrap_or_default().contains(&"ipsec0: MTU of eth0 is 1400, ours 1320".to_owned())
        );
    }
    tunnel.tcp_echo(&pattern(1_000_000));
    assert_eq!((tunnel.left.refused(), tunnel.right.refused()), (vec![], vec![]));
}

/// Routes each end's peer itself into the device.
fn catch_peers(case: &Case, tunnel: &Tunnel) {
    for (end, peer) in [(&tunnel.left, 2), (&tunnel.right, 1)] {
        let dst = IpNet::from(outer(case, peer).addr());
        let catch = || {
            let mut netlink = Netlink::open().unwrap();
            let link = netlink.link("ipsec0").unwrap().map(|link| link.index);
            netlink.add_route(&Route { dst, via: None, link, src: None, metric: 0 }).unwrap();
        };
        end.namespace.run(catch).unwrap();
    }
}

/// Settings with which clear packets are refused whose answer would go into the device.
fn guarded() -> Settings {
    let owner = Some(Mark::new(std::path::Path::new("/run/test")));
    Settings { owner, workers: Some(1), ..Settings::default() }
}

#[test]
fn a_route_to_the_peer_through_the_device_does_not_catch_what_it_sends() {
    for udp in [true, false] {
        let case = Case { udp, ..Case::default() };
        let Some(tunnel) = tunnel(&case) else { return };
        catch_peers(&case, &tunnel);
        tunnel.udp_echo(&pattern(1000));
        tunnel.tcp_echo(&pattern(300_000));
    }
}

/// Whatever the peer sends then comes from where answers would go into the device: ESP and its fragments, neighbour discovery.
#[test]
fn the_guard_against_clear_packets_lets_everything_through_that_a_tunnel_is_made_of() {
    for (outer6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let case = Case { outer6, udp, settings: guarded(), ..Case::default() };
        let Some(mut tunnel) = tunnel(&case) else { return };
        catch_peers(&case, &tunnel);
        tunnel.udp_echo(&pattern(1000));
        tunnel.tcp_echo(&pattern(300_000));
        // An ICMP error about ESP is heard, and a ping from there is not.
        let ping = if outer6 { [128, 0, 0, 0, 0, 1, 0, 1] } else { [8, 0, 0xf7, 0xfd, 0, 1, 0, 1] };
        for (message, refused) in [(&too_big(&case)[..], 0), (&ping, 1)] {
            let to = SocketAddr::new(outer(&case, 1).addr(), 0).into();
            let send = || {
                let (domain, ip) =
                    if outer6 { (Domain::IPV6, Ip::ICMPV6) } else { (Domain::IPV4, Ip::ICMPV4) };
                let icmp = Socket::new(domain, Type::RAW, Some(ip)).unwrap();
                icmp.bind_device(Some(b"eth0")).unwrap();
                icmp.send_to(message, &to).unwrap();
            };
            tunnel.right.namespace.run(send).unwrap();
            // It is behind these on the cable, and has been judged when they have arrived.
            tunnel.udp_echo(&pattern(1000));
            let guarded = tunnel.left.interfaces.guarded();
            assert!(matches!(guarded, Some(Guarded::By(_, n)) if n == refused), "{guarded:?}");
        }
        // The link narrows behind the device's back: what it sends then goes in fragments.
        for end in [&tunnel.left, &tunnel.right] {
            let narrow = || {
                let mut netlink = Netlink::open().unwrap();
                let link = netlink.link("eth0").unwrap().unwrap();
                netlink.set_mtu(link.index, 1300).unwrap();
            };
            end.namespace.run(narrow).unwrap();
        }
        tunnel.udp_echo(&pattern(1380));
    }
}

/// ICMPv6 type 2, or ICMP type 3 code 4, with an MTU of 1300, about an ESP packet from the left to the right.
fn too_big(case: &Case) -> Vec<u8> {
    let mut message = match (outer(case, 1).addr(), outer(case, 2).addr()) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let start = [2, 0, 0, 0, 0, 0, 0x05, 0x14, 0x60, 0, 0, 0, 0, 64, 50, 64];
            [&start[..], &from.octets(), &to.octets()].concat()
        }
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let start = [3, 4, 0, 0, 0, 0, 0x05, 0x14, 0x45, 0, 0, 84, 0, 0, 0x40, 0, 64, 50, 0, 0];
            [&start[..], &from.octets(), &to.octets()].concat()
        }
        _ => unreachable!("one family outside"),
    };
    message.extend(0x1002_u32.to_be_bytes());
    message.extend([0; 60]);
    if !case.outer6 {
        let sum: u32 = message.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
        let sum = !(sum % 0xffff) as u16;
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// A router's word about a narrower path reaches a socket that is not connected; without asking for errors the kernel
/// would ignore it, and raw ESP in IPv6 would vanish there for ever.
#[test]
fn a_packet_too_big_for_raw_esp_in_ipv6_narrows_the_path() {
    let case = Case { outer6: true, udp: false, ..Case::default() };
    let Some(tunnel) = tunnel(&case) else { return };
    tunnel.udp_echo(&pattern(1000));
    let (ours, theirs) = (outer(&case, 1).addr(), outer(&case, 2).addr());
    let path_mtu = || {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        socket.connect(SocketAddr::new(theirs, 9)).unwrap();
        rustix::net::sockopt::ipv6_mtu(&socket).unwrap()
    };
    assert_eq!(tunnel.left.namespace.run(path_mtu).unwrap(), 1500);

    let message = too_big(&case);
    tunnel
        .right
        .namespace
        .run(|| {
            let icmp = Socket::new(Domain::IPV6, Type::RAW, Some(Ip::ICMPV6)).unwrap();
            for _ in 0..200 {
                icmp.send_to(&message, &SocketAddr::new(ours, 0).into()).unwrap();
            }
        })
        .unwrap();
    // The messages are ahead of what follows on the same cable.
    tunnel.udp_echo(&pattern(1000));
    assert_eq!(tunnel.left.namespace.run(path_mtu).unwrap(), 1300);
    // What no longer fits is fragmented, and nothing is lost to errors that were reported.
    tunnel.udp_echo(&pattern(1380));
    tunnel.tcp_echo(&pattern(300_000));
    // The engine looks closer: nothing that it sent was quoted.
    let mut refused = tunnel.left.refused();
    refused.retain(|(why, _)| *why != "unbelieved_icmp");
    assert_eq!((refused, tunnel.right.refused()), (vec![], vec![]));
}

/// The longest packet that the left end's kernel knows to fit on its way to the right end's inner address.
fn inner_path_mtu(tunnel: &Tunnel) -> u32 {
    let peer = SocketAddr::new(tunnel.right.inner, 9);
    let ask = || {
        let socket = UdpSocket::bind((tunnel.left.inner, 0)).unwrap();
        socket.connect(peer).unwrap();
        match peer {
            SocketAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket).unwrap(),
            SocketAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket).unwrap(),
        }
    };
    tunnel.left.namespace.run(ask).unwrap()
}

/// A router on the way carries 1400 octets only, and says so: TCP inside is told what fits through the tunnel, whatever is
/// around it, and nothing crosses in fragments.
#[test]
fn tcp_is_told_what_fits_past_a_router_with_a_smaller_mtu() {
    for (kind, udp) in [
        (Kind::Tunnel, true),
        (Kind::Tunnel, false),
        (Kind::AhTunnel, false),
        (Kind::Transport, false),
        (Kind::TransportGroup, false),
    ] {
        for outer6 in [false, true] {
            // The right end announces more than the router carries.
            let settings = Settings { copy_df: true, override_mtu: Some(1420), ..Case::default().settings };
            let case =
                Case { outer6, inner6: outer6, udp, kind, settings, router: Some(1400), ..Case::default() };
            let Some(tunnel) = tunnel(&case) else { return };
            tunnel.udp_echo(&pattern(100));
            tunnel.tcp_echo(&pattern(300_000));
            let told = inner_path_mtu(&tunnel);
            let around = if outer6 { 120 } else { 100 };
            assert!((1400 - around..1400).contains(&told), "{kind:?} {udp} {outer6}: {told}");
            assert!(tunnel.left.plane.discarded(Discard::TooBig) > 0);
            // The right end is on the small link itself: it knew.
            for end in [&tunnel.left, &tunnel.right] {
                let mut refused = end.refused();
                refused.retain(|(why, _)| *why != "too_big");
                assert_eq!(refused, [], "{kind:?} {udp} {outer6}");
            }
        }
    }
}

/// Without `copydf=yes` the router fragments, and nobody need be told: a path that swallows ICMP is no trouble.
#[test]
fn without_df_a_router_with_a_smaller_mtu_fragments_and_nobody_is_told() {
    for udp in [true, false] {
        let case = Case { udp, router: Some(1000), ..Case::default() };
        let Some(tunnel) = tunnel(&case) else { return };
        let before = inner_path_mtu(&tunnel);
        tunnel.tcp_echo(&pattern(300_000));
        assert_eq!((inner_path_mtu(&tunnel), tunnel.left.refused()), (before, vec![]));
    }
}

/// Somebody off the path knows addresses and ports. The kernel believes him; packets that must not be fragmented go all the
/// same, and those that may are not cut to pieces.
#[test]
fn a_forged_word_about_a_small_path_changes_nothing() {
    for (udp, copy_df) in [(true, true), (true, false), (false, true)] {
        let settings = Settings { copy_df, ..Case::default().settings };
        let case = Case { udp, settings, ..Case::default() };
        let Some(tunnel) = tunnel(&case) else { return };
        tunnel.udp_echo(&pattern(1300));
        let ours = outer(&case, 1).addr();
        let mut message = too_big(&case);
        // 576 octets, it says, about a packet of 1500, and guesses at the SPI.
        message[6..8].copy_from_slice(&576_u16.to_be_bytes());
        message[10..12].copy_from_slice(&1500_u16.to_be_bytes());
        if udp {
            message[17] = 17;
            message[28..32].copy_from_slice(&[0x11, 0x94, 0x11, 0x94]);
        } else {
            message[31] ^= 0x55;
        }
        message[2..4].fill(0);
        let sum: u32 = message.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
        let sum = !(sum % 0xffff) as u16;
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let send = || {
            let icmp = Socket::new(Domain::IPV4, Type::RAW, Some(Ip::ICMPV4)).unwrap();
            for _ in 0..20 {
                icmp.send_to(&message, &SocketAddr::new(ours, 0).into()).unwrap();
            }
        };
        tunnel.right.namespace.run(send).unwrap();
        // It lies in another queue than the datagram that follows it.
        while tunnel.left.plane.discarded(Discard::UnbelievedIcmp) < 20 {
            std::thread::sleep(Duration::from_millis(5));
        }
        tunnel.udp_echo(&pattern(1300));
        tunnel.tcp_echo(&pattern(300_000));
        assert_eq!(tunnel.left.of_ip("FragCreates"), 0, "UDP {udp}, DF {copy_df}");
        assert_eq!(tunnel.left.refused(), [("unbelieved_icmp", 20)]);
    }
}
