use super::*;
use crate::host::netlink::Route;
use crate::host::netns::{End, Namespace, available, connect};
use rustix::event::{EventfdFlags, eventfd};

/// Two namespaces joined by `eth0`, or a reason to skip.
fn cable() -> Option<(Namespace, Namespace)> {
    if let Err(why) = available() {
        eprintln!("skipped: {why}");
        return None;
    }
    let (left, right) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    plug(&left, &right);
    Some((left, right))
}

fn plug(left: &Namespace, right: &Namespace) {
    let nets =
        |host| [format!("192.0.2.{host}/24"), format!("2001:db8::{host}/64")].map(|net| net.parse().unwrap());
    connect(
        End { namespace: left, name: "eth0", addresses: &nets(1) },
        End { namespace: right, name: "eth0", addresses: &nets(2) },
    )
    .unwrap();
}

fn interfaces(settings: Settings) -> Interfaces {
    let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    Interfaces::new(Arc::default(), wake, Arc::new(|_, _| false), settings).unwrap()
}

fn eth0() -> Physical {
    Physical::Name("eth0".into())
}

#[test]
fn a_device_has_the_addresses_of_its_interface_and_goes_when_detached() {
    let Some((left, _right)) = cable() else { return };
    left.run(|| {
        let mut interfaces = interfaces(Settings { workers: Some(2), ..Settings::default() });
        interfaces.attach("ipsec0", &eth0(), &Addresses::Copy).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link("ipsec0").unwrap().unwrap();
        assert!(link.up);
        assert_eq!(link.mtu, 1420);
        let have: Vec<_> = netlink.addresses(Some(link.index)).unwrap().iter().map(|a| a.net).collect();
        let nets: Vec<IpNet> = vec!["192.0.2.1/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()];
        assert_eq!(have, nets);
        // What is on the link stays reachable through the link.
        assert!(netlink.routes().unwrap().iter().all(|route| route.link != Some(link.index)));

        let [status] = &interfaces.list()[..] else { panic!("one device") };
        assert_eq!(
            (status.name.as_str(), status.physical.as_str(), status.present),
            ("ipsec0", "eth0", true)
        );
        assert_eq!((status.mtu, status.physical_mtu, status.workers), (1420, 1500, 2));
        assert_eq!(status.addresses, nets);
        assert!(status.offloads.contains(&"tso") && status.offloads.contains(&"udp_segment"));
        let local = interfaces.local_addresses().unwrap();
        assert!(local.contains(&"192.0.2.1".parse().unwrap()) && local.contains(&"::1".parse().unwrap()));

        interfaces.detach("ipsec0").unwrap();
        assert!(interfaces.is_empty());
        assert_eq!(netlink.link("ipsec0").unwrap(), None);
        // And can be attached again at once: nothing was left behind.
        interfaces.attach("ipsec0", &eth0(), &Addresses::Copy).unwrap();
    })
    .unwrap();
}

#[test]
fn a_device_can_have_other_addresses_and_another_mtu() {
    let Some((left, _right)) = cable() else { return };
    left.run(|| {
        let settings = Settings { override_mtu: Some(1300), ..Settings::default() }.without_offloads();
        let mut interfaces = interfaces(settings);
        let given: Vec<IpNet> = vec!["10.7.0.1/32".parse().unwrap()];
        interfaces.attach("ipsec3", &eth0(), &Addresses::Given(given.clone())).unwrap();
        let [status] = &interfaces.list()[..] else { panic!("one device") };
        assert_eq!((status.mtu, &status.addresses), (1300, &given));
        assert_eq!(status.offloads, ["udp_segment"; 0]);
    })
    .unwrap();
}

#[test]
fn what_cannot_be_attached_is_refused_with_its_reason_and_leaves_nothing() {
    let Some((left, _right)) = cable() else { return };
    left.run(|| {
        let mut interfaces = interfaces(Settings { workers: Some(1), ..Settings::default() });
        let mut attach = |name: &str, on: &Physical| interfaces.attach(name, on, &Addresses::Copy);
        for name in ["eth0", "ipsec", "ipsecx", "ipsec0a", "ipsec12345", ""] {
            assert_eq!(attach(name, &eth0()), Err(AttachError::NotVirtual), "{name}");
        }
        let nowhere = Physical::Name("eth7".into());
        assert_eq!(attach("ipsec0", &nowhere), Err(AttachError::UnknownPhysical));
        assert_eq!(attach("ipsec0", &Physical::DefaultRoute), Err(AttachError::NoDefaultRoute));
        attach("ipsec0", &eth0()).unwrap();
        assert_eq!(attach("ipsec0", &Physical::Name("lo".into())), Err(AttachError::Attached));
        assert_eq!(attach("ipsec1", &eth0()), Err(AttachError::PhysicalTaken));
        assert_eq!(attach("ipsec1", &Physical::Name("ipsec0".into())), Err(AttachError::UnknownPhysical));
        attach("ipsec1", &Physical::Name("lo".into())).unwrap();
        assert_eq!(interfaces.detach("ipsec2"), Err(AttachError::NotAttached));
        assert_eq!(interfaces.detach("eth0"), Err(AttachError::NotVirtual));
        assert_eq!(interfaces.list().len(), 2);

        // Another daemon beside us finds the port taken, whatever its device is called.
        let mut other = self::interfaces(Settings { workers: Some(2), ..Settings::default() });
        let refused = other.attach("ipsec5", &eth0(), &Addresses::Copy).unwrap_err();
        assert_eq!(refused, AttachError::Wire(WireError::PortInUse(4500)));
        assert_eq!(Netlink::open().unwrap().link("ipsec5").unwrap(), None);
    })
    .unwrap();
}

#[test]
fn without_privileges_nothing_is_attached_and_the_message_says_what_is_needed() {
    let Some((left, _right)) = cable() else { return };
    left.run(|| {
        let mut interfaces = interfaces(Settings { workers: Some(1), ..Settings::default() });
        let sets = rustix::thread::capabilities(None).unwrap();
        let none =
            rustix::thread::CapabilitySets { effective: rustix::thread::CapabilitySet::empty(), ..sets };
        // Capabilities are those of a thread, and this one is about to end.
        rustix::thread::set_capabilities(None, none).unwrap();
        let refused = interfaces.attach("ipsec0", &eth0(), &Addresses::Copy).unwrap_err();
        assert_eq!(refused, AttachError::Wire(WireError::Forbidden));
        assert_eq!(refused.errno(), Errno::PERM);
        assert!(refused.to_string().contains("CAP_NET_RAW"), "{refused}");
        let refused = Device::create("ipsec0", 1, Offloads::ALL).unwrap_err();
        assert_eq!(refused, TunError::Forbidden);
        assert!(refused.to_string().contains("CAP_NET_ADMIN"), "{refused}");
    })
    .unwrap();
}

#[test]
fn the_best_default_route_chooses_the_interface() {
    let Some((left, right)) = cable() else { return };
    let net = ["198.51.100.1/24".parse().unwrap()];
    connect(
        End { namespace: &left, name: "eth1", addresses: &net },
        End { namespace: &right, name: "eth1", addresses: &[] },
    )
    .unwrap();
    left.run(|| {
        let mut netlink = Netlink::open().unwrap();
        let mut default = |name: &str, via: &str, metric| {
            let link = netlink.link(name).unwrap().map(|link| link.index);
            let dst = "0.0.0.0/0".parse().unwrap();
            netlink
                .add_route(&Route { dst, via: Some(via.parse().unwrap()), link, src: None, metric })
                .unwrap();
        };
        default("eth0", "192.0.2.2", 20);
        default("eth1", "198.51.100.2", 10);
        let mut interfaces = interfaces(Settings::default());
        interfaces.attach("ipsec0", &Physical::DefaultRoute, &Addresses::Copy).unwrap();
        assert_eq!(interfaces.list()[0].physical, "eth1");
    })
    .unwrap();
}

#[test]
fn default_routes_that_are_equally_good_are_not_chosen_between() {
    let route = |link, metric, dst: &str| Route {
        dst: dst.parse().unwrap(),
        via: None,
        link: Some(link),
        src: None,
        metric,
    };
    let (v4, v6) = ("0.0.0.0/0", "::/0");
    assert_eq!(best_default(&[]), Err(AttachError::NoDefaultRoute));
    assert_eq!(best_default(&[route(3, 10, v4), route(4, 20, v4)]), Ok(3));
    assert_eq!(best_default(&[route(3, 10, v4), route(4, 10, v4)]), Err(AttachError::SeveralDefaultRoutes));
    assert_eq!(best_default(&[route(3, 10, v4), route(3, 10, v4)]), Ok(3));
    assert_eq!(best_default(&[route(3, 10, v4), route(4, 10, v6)]), Ok(3));
}

#[test]
fn an_interface_that_changes_goes_and_comes_back_is_followed() {
    let Some((left, right)) = cable() else { return };
    left.run(|| {
        let mut interfaces = interfaces(Settings { workers: Some(2), ..Settings::default() });
        interfaces.attach("ipsec0", &eth0(), &Addresses::Copy).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.link("eth0").unwrap().unwrap().index;
        let device = netlink.link("ipsec0").unwrap().unwrap().index;
        interfaces.follow().unwrap().unwrap_or_default();
        assert_eq!(interfaces.follow().unwrap().unwrap_or_default(), [""; 0]);

        netlink.set_mtu(index, 1400).unwrap();
        assert_eq!(
            interfaces.follow().unwrap().unwrap_or_default(),
            ["ipsec0: MTU of eth0 is 1400, ours 1320"]
        );
        assert_eq!(netlink.link("ipsec0").unwrap().unwrap().mtu, 1320);

        netlink.add_address(index, "192.0.2.77/32".parse().unwrap()).unwrap();
        netlink.remove_address(index, "192.0.2.1/24".parse().unwrap()).unwrap();
        assert_eq!(
            interfaces.follow().unwrap().unwrap_or_default(),
            ["ipsec0: addresses are now 192.0.2.77/32 2001:db8::1/64"]
        );
        let have: Vec<_> =
            netlink.addresses(Some(device)).unwrap().iter().map(|a| a.net.to_string()).collect();
        assert_eq!(have, ["192.0.2.77/32", "2001:db8::1/64"]);

        netlink.remove_link(index).unwrap();
        assert_eq!(
            interfaces.follow().unwrap().unwrap_or_default(),
            ["ipsec0: eth0 has gone; waiting for it to come back"]
        );
        assert!(!interfaces.list()[0].present);
        let here = Namespace::current().unwrap();
        plug(&here, &right);
        let log = interfaces.follow().unwrap().unwrap_or_default();
        assert_eq!(log[..2], ["ipsec0: attached to eth0 again", "ipsec0: eth0 is up"]);
        let status = &interfaces.list()[0];
        assert_eq!((status.present, status.mtu), (true, 1420));
        let again = status.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(again, ["192.0.2.1/24", "2001:db8::1/64"]);

        // The sockets are on the new interface: what leaves by it arrives.
        let listener = right.run(|| std::net::UdpSocket::bind("192.0.2.2:4500")).unwrap().unwrap();
        listener.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
        let from = "0.0.0.0:4500".parse().unwrap();
        interfaces.send_udp(from, "192.0.2.2:4500".parse().unwrap(), b"\0\0\0\0hello").unwrap();
        let mut got = [0; 64];
        let (n, from) = listener.recv_from(&mut got).unwrap();
        assert_eq!(&got[..n], b"\0\0\0\0hello");
        assert_eq!(from, "192.0.2.1:4500".parse().unwrap());
    })
    .unwrap();
}

#[test]
fn ike_on_the_udp_port_is_handed_over_without_its_marker() {
    let Some((left, right)) = cable() else { return };
    left.run(|| {
        let (tell, told) = std::sync::mpsc::channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let sink: IkeSink =
            Arc::new(move |arrival, message: &[u8]| tell.send((*arrival, message.to_vec())).is_ok());
        let mut interfaces = Interfaces::new(Arc::default(), wake, sink, Settings::default()).unwrap();
        interfaces.attach("ipsec0", &eth0(), &Addresses::Copy).unwrap();
        let peer = right.run(|| std::net::UdpSocket::bind("192.0.2.2:4501")).unwrap().unwrap();
        peer.send_to(b"\0\0\0\0an IKE message", "192.0.2.1:4500").unwrap();
        let (arrival, message) = told.recv_timeout(std::time::Duration::from_secs(5)).unwrap();
        assert_eq!(message, b"an IKE message");
        assert_eq!(arrival.src, "192.0.2.2".parse::<IpAddr>().unwrap());
        assert_eq!(arrival.dst, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(arrival.carrier, klips::Carrier::Udp { local: 4500, remote: 4501 });
    })
    .unwrap();
}

#[test]
fn a_list_of_offloads_switches_what_it_names() {
    let set = |list: &str| {
        let mut settings = Settings::default();
        settings.set_offloads(list).map(|()| settings)
    };
    let all = set("all").unwrap();
    assert!(all.offloads == Offloads::ALL && all.segment && all.receive_merged && all.merge_tcp && all.steer);
    let none = set("none").unwrap();
    assert!(none.offloads == Offloads::NONE && !none.segment && !none.receive_merged);
    assert!(!none.merge_tcp && !none.merge_udp && !none.steer);
    let some = set("tso,udp_gro").unwrap();
    assert!(some.offloads == Offloads::CSUM.and(Offloads::TSO) && some.receive_merged && !some.segment);
    let less = set("-uso,-merge_udp").unwrap();
    assert!(less.offloads == Offloads::ALL.without(Offloads::USO) && !less.merge_udp && less.merge_tcp);
    assert_eq!(set("all,-csum").unwrap().offloads, Offloads::NONE);
    for bad in ["", "gso", "all,", "--uso", "tso uso"] {
        assert!(set(bad).is_err(), "{bad}");
    }
    assert!(set("gso").unwrap_err().to_string().contains("udp_segment"));
}
