//! What is protected stays in, whatever dies, until `ipsec setup stop`: everything that leaves is looked at on the far side of
//! the cable, at the router that would carry it on.

use crate::host::{Host, IPSEC};
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::Namespace;
use rustix::process::Signal;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

/// The gateway and the router next to it, which hears every frame.
struct Place {
    host: Host,
    frames: Socket,
    markers: std::cell::Cell<u8>,
    _router: Namespace,
}

/// What a look at the cable showed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    clear: usize,
    esp: usize,
}

const ROUTER: &str = "192.0.2.9";

impl Place {
    fn new() -> Option<Self> {
        let host = Host::new("ipsec0=eth7")?;
        let router = Namespace::new().expect("namespace");
        let moved = host.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let lo = netlink.link("lo")?.expect("lo").index;
            netlink.add_address(lo, "10.1.0.1/32".parse().expect("net"))?;
            let cable = netlink.link("cable")?.expect("the host has made it").index;
            netlink.move_link(cable, router.as_fd())
        });
        moved.expect("namespace").expect("move");
        let frames = router.run(|| {
            let mut netlink = Netlink::open()?;
            let cable = netlink.link("cable")?.expect("just moved").index;
            netlink.set_up(cable, true)?;
            netlink.add_address_and_route(cable, format!("{ROUTER}/24").parse().expect("net"))?;
            // ETH_P_ALL.
            Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0x0003_i32.swap_bytes() >> 16)))
        });
        let frames = frames.expect("namespace").expect("packet socket");
        frames.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
        let place = Self { host, frames, markers: std::cell::Cell::new(0), _router: router };
        place.default_route();
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
    fn default_route(&self) {
        let link = Some(self.index("eth7"));
        let (dst, via) = ("0.0.0.0/0".parse().expect("net"), ROUTER.parse().ok());
        self.change(|netlink| netlink.add_route(&Route { dst, via, link, src: None, metric: 0 }));
    }

    fn protect(&self) {
        let link = Some(self.index("ipsec0"));
        let dst = "10.2.0.0/16".parse().expect("net");
        self.change(|netlink| netlink.add_route(&Route { dst, via: None, link, src: None, metric: 0 }));
    }

    fn is_protected(&self) -> bool {
        let routes = self.change(|netlink| {
            let device = netlink.link("ipsec0")?;
            Ok((device, netlink.routes()?))
        });
        let (Some(device), routes) = routes else { return false };
        device.up
            && routes.iter().any(|route| route.link == Some(device.index) && route.dst.prefix_len() == 16)
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
        let said = "esp0x2002@192.0.2.9";
        let spi =
            ["spi", "--said", said, "--src", "192.0.2.7", "--esp", "aes-gcm16", "--enckey", &key, "--tunnel"];
        let said_spi = self.host.ipsec(&spi);
        assert_eq!(said_spi.code, 0, "{said_spi:?}");
        let words = ["eroute", "--replace", "--src", "10.1.0.0/16", "--dst", "10.2.0.0/16", "--said", said];
        let said = self.host.ipsec(&words);
        assert_eq!(said.code, 0, "{said:?}");
    }

    /// A packet for the protected network leaves its host, then a marker in clear; what was on the cable before the marker.
    fn look(&self) -> Seen {
        let marker = self.markers.get().wrapping_add(1);
        self.markers.set(marker);
        let sent = self.host.namespace.run(|| {
            let socket = UdpSocket::bind("10.1.0.1:0")?;
            // That there is no way is as good as that it is dropped.
            let _ = socket.send_to(b"secret", "10.2.0.9:7777");
            std::io::Result::Ok(())
        });
        sent.expect("namespace").expect("bound");
        self.until_marker(marker)
    }

    fn until_marker(&self, marker: u8) -> Seen {
        // ESP is sent by a worker, behind the back of who sends the marker: the marker is sent until it is heard alone. Where
        // the machine is busy, the cable may lose what other tests leave no room for: then it is sent again.
        let mut seen = Seen::default();
        let (mut heard, mut lost) = (0, 0);
        while heard < 2 {
            let sent =
                self.host.namespace.run(|| UdpSocket::bind("0.0.0.0:0")?.send_to(&[marker; 8], (ROUTER, 9)));
            if sent.expect("namespace").is_err() {
                // Without an address nothing goes out that way at all.
                return seen;
            }
            let mut buffer = [0; 2048];
            loop {
                let Ok(length) = (&self.frames).read(&mut buffer) else {
                    lost += 1;
                    assert!(lost < 20, "the marker does not arrive");
                    break;
                };
                let packet = &buffer[..length];
                if length < 28 || packet[0] != 0x45 {
                    continue;
                }
                if packet[16..18] == [10, 2] {
                    seen.clear += 1;
                } else if packet[9] == 50 {
                    seen.esp += 1;
                } else if packet[9] == 17 && length == 36 && packet[28..] == [marker; 8] {
                    heard += 1;
                    break;
                }
            }
        }
        seen
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
    let Some(place) = Place::new() else { return };
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
    for (old, new) in [("192.0.2.7/24", "192.0.2.8/24"), ("192.0.2.8/24", "192.0.2.7/24")] {
        place.change(|netlink| netlink.remove_address(eth, old.parse().expect("net")));
        place.stays_in();
        place.change(|netlink| netlink.add_address_and_route(eth, new.parse().expect("net")));
        place.default_route();
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
    let route = Route { dst: "10.2.0.0/16".parse().expect("net"), via: None, link, src: None, metric: 0 };
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
    let (dst, via) = ("10.2.0.0/16".parse().expect("net"), ROUTER.parse().ok());
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
