//! What is protected stays in, whatever dies, until `ipsec setup stop`: everything that leaves is looked at on the far side of
//! the cable, at the router that would carry it on.

use crate::host::{Host, IPSEC};
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::Namespace;
use rustix::process::Signal;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

/// The gateway and the router next to it, which hears every frame.
struct Place {
    host: Host,
    frames: Socket,
    marker: std::cell::Cell<u8>,
    inside: &'static Inside,
    outside: &'static Outside,
    _router: Namespace,
}

/// What is protected.
#[derive(Debug)]
struct Inside {
    here: &'static str,
    ours: &'static str,
    there: &'static str,
    theirs: &'static str,
    route: &'static str,
}

const INSIDE: Inside = Inside {
    here: "10.1.0.1",
    ours: "10.1.0.0/16",
    there: "10.2.0.9",
    theirs: "10.2.0.0/16",
    route: "10.2.0.0/16",
};
const INSIDE_6: Inside = Inside {
    here: "fd00:1::1",
    ours: "fd00:1::/32",
    there: "fd00:2::9",
    theirs: "fd00:2::/32",
    route: "fd00:2::/32",
};

/// Between which addresses.
#[derive(Debug)]
struct Outside {
    here: &'static str,
    /// Where the gateway moves to for a while.
    moved: &'static str,
    peer: &'static str,
    said: &'static str,
}

const OUTSIDE: Outside =
    Outside { here: "192.0.2.7", moved: "192.0.2.8", peer: "192.0.2.9", said: "esp0x2002@192.0.2.9" };
const OUTSIDE_6: Outside = Outside {
    here: "2001:db8:7::7",
    moved: "2001:db8:7::8",
    peer: "2001:db8:7::9",
    said: "esp:2002@2001:db8:7::9",
};
const OUTSIDES: [&Outside; 2] = [&OUTSIDE, &OUTSIDE_6];

impl Outside {
    fn net(&self, address: &str) -> ipnet::IpNet {
        let bits = if address.contains(':') { 64 } else { 24 };
        format!("{address}/{bits}").parse().expect("net")
    }
}

/// Where markers come from, whatever becomes of the addresses that packets leave from.
const LOCAL: &str = "fe80::7";
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a look at the cable showed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    clear: usize,
    esp: usize,
}

impl Place {
    fn new() -> Option<Self> {
        Self::with(&INSIDE, &OUTSIDE)
    }

    fn with(inside: &'static Inside, outside: &'static Outside) -> Option<Self> {
        let host = Host::new("ipsec0=eth7")?;
        let router = Namespace::new().expect("namespace");
        let moved = host.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let lo = netlink.link("lo")?.expect("lo").index;
            netlink.add_address(lo, inside.here.parse::<IpAddr>().expect("address").into())?;
            let eth = netlink.link("eth7")?.expect("the host has made it").index;
            netlink.add_address_and_route(eth, OUTSIDE_6.net(OUTSIDE_6.here))?;
            netlink.add_address(eth, LOCAL.parse::<IpAddr>().expect("address").into())?;
            let cable = netlink.link("cable")?.expect("the host has made it").index;
            netlink.move_link(cable, router.as_fd())
        });
        moved.expect("namespace").expect("move");
        let frames = router.run(|| {
            let mut netlink = Netlink::open()?;
            let cable = netlink.link("cable")?.expect("just moved").index;
            netlink.set_up(cable, true)?;
            for outside in OUTSIDES {
                netlink.add_address_and_route(cable, outside.net(outside.peer))?;
            }
            // ETH_P_ALL.
            Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0x0003_i32.swap_bytes() >> 16)))
        });
        let frames = frames.expect("namespace").expect("packet socket");
        frames.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
        let marker = std::cell::Cell::new(0);
        let place = Self { host, frames, marker, inside, outside, _router: router };
        place.default_routes();
        Some(place)
    }

    fn change<R: Send>(&self, change: impl FnOnce(&mut Netlink) -> std::io::Result<R> + Send) -> R {
        let done = self.host.namespace.run(|| change(&mut Netlink::open()?));
        done.expect("namespace").expect("netlink")
    }

    fn index(&self, name: &str) -> u32 {
        self.change(|netlink| Ok(netlink.link(name)?.expect("a link").index))
    }

    /// Where what is protected would go in clear.
    fn default_routes(&self) {
        OUTSIDES.iter().for_each(|outside| self.default_route(outside));
    }

    fn default_route(&self, outside: &Outside) {
        let link = Some(self.index("eth7"));
        let dst = if outside.peer.contains(':') { "::/0" } else { "0.0.0.0/0" };
        let (dst, via) = (dst.parse().expect("net"), outside.peer.parse().ok());
        self.change(|netlink| netlink.add_route(&Route { dst, via, link, src: None, metric: 0 }));
    }

    fn protect(&self) {
        let link = Some(self.index("ipsec0"));
        let dst = self.inside.route.parse().expect("net");
        self.change(|netlink| netlink.add_route(&Route { dst, via: None, link, src: None, metric: 0 }));
    }

    fn is_protected(&self) -> bool {
        let routes = self.change(|netlink| {
            let device = netlink.link("ipsec0")?;
            Ok((device, netlink.routes()?))
        });
        let (Some(device), routes) = routes else { return false };
        device.up
            && routes
                .iter()
                .any(|route| route.link == Some(device.index) && Ok(route.dst) == self.inside.route.parse())
    }

    /// Waits for the daemon to have put right what was done to its device.
    fn protected_again(&self) -> usize {
        for probes in 1.. {
            self.stays_in();
            if self.is_protected() {
                return probes;
            }
            assert!(probes < 20_000, "the route has not come back");
        }
        0
    }

    fn key(&self) {
        let key = format!("0x{}", "11".repeat(20));
        let Outside { here, said, .. } = self.outside;
        let spi = ["spi", "--said", said, "--src", here, "--esp", "aes-gcm16", "--enckey", &key, "--tunnel"];
        let said_spi = self.host.ipsec(&spi);
        assert_eq!(said_spi.code, 0, "{said_spi:?}");
        let Inside { ours, theirs, .. } = self.inside;
        let words = ["eroute", "--replace", "--src", ours, "--dst", theirs, "--said", said];
        let said = self.host.ipsec(&words);
        assert_eq!(said.code, 0, "{said:?}");
    }

    /// A packet for the protected network leaves its host, then a marker; what was on the cable before the marker.
    fn look(&self) -> Seen {
        let sent = self.host.namespace.run(|| {
            let socket = UdpSocket::bind((self.inside.here, 0))?;
            // That there is no way is as good as that it is dropped.
            let _ = socket.send_to(b"secret", (self.inside.there, 7777));
            std::io::Result::Ok(())
        });
        sent.expect("namespace").expect("bound");
        self.until_marker()
    }

    fn until_marker(&self) -> Seen {
        let marker = self.marker.get().wrapping_add(1);
        self.marker.set(marker);
        // ESP is sent by a worker, behind the back of who sends the marker: the marker is sent until it is heard alone. Where
        // the machine is busy, the cable may lose what other tests leave no room for: then it is sent again.
        let mut seen = Seen::default();
        let (mut heard, mut lost) = (0, 0);
        while heard < 2 {
            self.mark(marker);
            let mut buffer = [0; 2048];
            loop {
                let Ok(length) = (&self.frames).read(&mut buffer) else {
                    lost += 1;
                    assert!(lost < 20, "the marker does not arrive");
                    break;
                };
                let packet = &buffer[..length];
                let (protocol, dst) = match packet.first().map(|octet| octet >> 4) {
                    Some(4) if length >= 20 => (packet[9], &packet[16..20]),
                    Some(6) if length >= 40 => (packet[6], &packet[24..40]),
                    _ => continue,
                };
                if dst == ALL_NODES.octets() && protocol == 17 && packet[48..] == [marker; 8] {
                    heard += 1;
                    break;
                }
                let clear = match self.inside.there.parse().expect("address") {
                    IpAddr::V4(there) => dst == there.octets(),
                    IpAddr::V6(there) => dst == there.octets(),
                };
                seen.clear += usize::from(clear);
                seen.esp += usize::from(protocol == 50);
            }
        }
        seen
    }

    fn mark(&self, marker: u8) {
        let link = self.index("eth7");
        let sent = self.host.namespace.run(|| {
            let socket = UdpSocket::bind(SocketAddrV6::new(LOCAL.parse().expect("address"), 0, 0, link))?;
            socket.send_to(&[marker; 8], SocketAddrV6::new(ALL_NODES, 9, 0, link))
        });
        sent.expect("namespace").expect("marker");
    }

    fn stays_in(&self) {
        assert_eq!(self.look().clear, 0, "in clear");
    }

    /// Sealed, and at once or a little later: a worker may not have run yet.
    fn is_carried(&self) {
        for _ in 0..2000 {
            let seen = self.look();
            assert_eq!(seen.clear, 0, "in clear");
            if seen.esp > 0 {
                return;
            }
        }
        panic!("nothing is carried");
    }
}

#[test]
fn what_is_protected_stays_in_whatever_dies_until_stop() {
    stays_in_whatever_dies(&INSIDE, &OUTSIDE);
}

#[test]
fn ipv6_that_is_protected_stays_in_whatever_dies_until_stop() {
    stays_in_whatever_dies(&INSIDE_6, &OUTSIDE);
}

#[test]
fn what_goes_through_a_tunnel_in_ipv6_stays_in_whatever_dies_until_stop() {
    stays_in_whatever_dies(&INSIDE, &OUTSIDE_6);
}

#[test]
fn ipv6_in_ipv6_stays_in_whatever_dies_until_stop() {
    stays_in_whatever_dies(&INSIDE_6, &OUTSIDE_6);
}

fn stays_in_whatever_dies(inside: &'static Inside, outside: &'static Outside) {
    let Some(place) = Place::with(inside, outside) else { return };
    let host = &place.host;
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    place.protect();
    place.key();
    place.is_carried();

    // kill -9: the device stays, closed, and the next daemon takes it up with its route.
    let daemon = host.daemon();
    assert!(daemon.signal(Signal::KILL).expect("kill"));
    assert!(daemon.wait(Duration::from_secs(30)).expect("wait"));
    place.stays_in();
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    place.stays_in();
    place.key();
    place.is_carried();

    // A restart, looked at all the while.
    let mut command = host.command(IPSEC, &["setup", "restart"]);
    let mut restart = host.namespace.spawn(command.stdout(Stdio::null())).expect("restart");
    while restart.try_wait().expect("wait").is_none() {
        place.stays_in();
    }
    assert!(restart.wait().expect("wait").success());
    place.key();
    place.is_carried();

    // The device is removed: it is there again, with its route.
    let index = place.index("ipsec0");
    place.change(|netlink| netlink.remove_link(index));
    place.protected_again();
    place.is_carried();

    // Down and up again.
    let index = place.index("ipsec0");
    place.change(|netlink| netlink.set_up(index, false));
    place.stays_in();
    place.change(|netlink| netlink.set_up(index, true));
    place.protected_again();
    place.is_carried();

    // The underlay is renumbered, by way of no address at all, and back.
    let eth = place.index("eth7");
    let Outside { here, moved, .. } = outside;
    for (old, new) in [(here, moved), (moved, here)] {
        place.change(|netlink| netlink.remove_address(eth, outside.net(old)));
        place.stays_in();
        place.change(|netlink| netlink.add_address_and_route(eth, outside.net(new)));
        place.default_route(outside);
        place.stays_in();
    }
    place.is_carried();

    // Both families go, and IPv6 is back first.
    for outside in OUTSIDES {
        place.change(|netlink| netlink.remove_address(eth, outside.net(outside.here)));
        place.stays_in();
    }
    for outside in [&OUTSIDE_6, &OUTSIDE] {
        place.change(|netlink| netlink.add_address_and_route(eth, outside.net(outside.here)));
        place.default_route(outside);
        place.stays_in();
    }
    place.is_carried();

    // Dead, and then the device is taken away as well: the route beneath drops.
    let daemon = host.daemon();
    assert!(daemon.signal(Signal::KILL).expect("kill"));
    assert!(daemon.wait(Duration::from_secs(30)).expect("wait"));
    let index = place.index("ipsec0");
    place.change(|netlink| netlink.remove_link(index));
    place.stays_in();

    // Only now it may go. This is also what shows that the router would have seen it.
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    assert_eq!(place.look(), Seen { clear: 1, esp: 0 });
    assert_eq!(host.left(), [""; 0]);
    assert!(!host.has_device("ipsec0"));
}

#[test]
fn a_route_that_is_taken_out_of_the_device_by_hand_stays_out() {
    let Some(place) = Place::new() else { return };
    let host = &place.host;
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    place.protect();
    place.key();
    place.is_carried();
    let link = Some(place.index("ipsec0"));
    let route = Route { dst: INSIDE.route.parse().expect("net"), via: None, link, src: None, metric: 0 };
    place.change(|netlink| netlink.remove_route(&route));
    // Until the daemon has noticed it is dropped beneath; then policy has nothing to say about it.
    while place.look().clear == 0 {}
    assert!(!place.is_protected());
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn a_route_that_is_replaced_by_one_out_of_another_interface_stays_replaced() {
    let Some(place) = Place::new() else { return };
    let host = &place.host;
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    place.protect();
    place.key();
    place.is_carried();
    let link = Some(place.index("eth7"));
    let (dst, via) = (INSIDE.route.parse().expect("net"), OUTSIDE.peer.parse().ok());
    place.change(|netlink| netlink.add_route(&Route { dst, via, link, src: None, metric: 0 }));
    assert_eq!(place.look().clear, 1);
    // Something that has nothing to do with it wakes the daemon, which does not put the old one back.
    place.change(|netlink| netlink.add_veth("one", "two"));
    assert_eq!(host.ipsec(&["tncfg"]).code, 0);
    assert_eq!(host.ipsec(&["tncfg"]).code, 0);
    assert_eq!(place.look().clear, 1);
    assert!(!place.is_protected());
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}
