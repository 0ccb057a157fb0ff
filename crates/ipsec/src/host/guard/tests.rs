use super::*;
use crate::host::netlink::{Netlink, Route};
use crate::host::netns::{End, Namespace, available, connect};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket as Raw, Type};
use std::net::IpAddr;
use std::time::Duration;

fn wanted() -> Wanted {
    let selector =
        |src: &str, dst: &str| Selector::nets(src.parse().expect("net"), dst.parse().expect("net"));
    let ports = Selector { proto: 6, sport: 25, dport: 80, ..selector("10.1.0.0/16", "10.2.0.0/16") };
    Wanted {
        devices: vec!["ipsec0".into(), "ipsec17".into()],
        closed: ["10.2.0.0/16", "10.2.3.0/24", "192.168.0.0/16", "224.0.0.0/3", "fd00::/8"]
            .map(|net| net.parse().expect("net"))
            .into(),
        policy: vec![
            (selector("10.1.0.0/24", "10.2.0.0/24"), true),
            (ports, false),
            (selector("10.1.0.0/16", "0.0.0.0/0"), true),
            (Selector { proto: 17, dport: 53, ..selector("fd00:1::/32", "fd00:2::/32") }, true),
        ],
        ports: vec![500, 4500],
    }
}

#[test]
fn the_kernel_takes_every_kind_of_rule_counts_on_and_tells_who_meddles() {
    if let Err(why) = available() {
        return eprintln!("skipped: {why}");
    }
    let namespace = Namespace::new().expect("namespace");
    let done = namespace.run(|| -> Result<(), GuardError> {
        let mut guard = Guard::open("tulips_test".into())?;
        guard.install(wanted())?;
        assert_eq!(guard.refused(), 0);
        assert!(!guard.disturbed()?, "by ourselves");
        guard.install(Wanted { devices: vec!["ipsec3".into()], ..wanted() })?;
        assert!(!guard.disturbed()?, "by ourselves");
        // Another's table, then ours.
        remove("tulips_other")?;
        assert!(!guard.disturbed()?, "that is not ours");
        remove("tulips_test")?;
        assert!(guard.disturbed()?, "somebody has removed it");
        assert!(guard.nft.counter("tulips_test", ruleset::COUNTER).is_some(), "and it is there again");
        guard.install(Wanted::default())?;
        assert_eq!(guard.nft.counter("tulips_test", ruleset::COUNTER), None);
        remove("tulips_test")?;
        let _ = guard.disturbed()?;
        // A table of more than one message a set, and of more messages than answers fit in a buffer.
        let host = |n: u32| IpNet::from(IpAddr::from(n.to_be_bytes()));
        let many = (0..3000).map(|n| (Selector::nets(host(n), host(n + 1)), n % 2 == 0)).collect();
        guard.install(Wanted { policy: many, ..wanted() })?;
        // The counter is the same object from one set of rules to the next.
        guard.install(wanted())?;
        guard.install(Wanted { closed: Vec::new(), policy: Vec::new(), ..wanted() })?;
        assert!(guard.nft.counter("tulips_test", ruleset::COUNTER).is_some());
        assert!(!guard.disturbed()?, "by ourselves");
        Ok(())
    });
    done.expect("namespace").expect("nf_tables");
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    let said = |errno| GuardError::from(io::Error::from_raw_os_error(errno)).to_string();
    assert!(said(libc::EPROTONOSUPPORT).contains("modprobe nf_tables"));
    assert!(said(libc::ENOENT).contains("modprobe nft_fib_inet"));
    assert!(said(libc::EPERM).contains("nf_tables: "));
}

/// A packet with an IP header of its own, from behind the peer: its answer would go into a device of ours.
struct Packet {
    name: String,
    six: bool,
    protocol: u8,
    hops: u8,
    /// Flags and offset of IPv4.
    fragment: u16,
    payload: Vec<u8>,
    /// For the gateway itself, or for a host behind it.
    ours: bool,
    passes: bool,
}

impl Packet {
    fn new(name: impl Into<String>, six: bool, protocol: u8, payload: Vec<u8>, passes: bool) -> Self {
        Self { name: name.into(), six, protocol, hops: 64, fragment: 0, payload, ours: true, passes }
    }

    /// The same for a host behind the gateway, which nothing but policy lets through.
    fn forwarded(&self) -> Self {
        let name = format!("{}, forwarded", self.name);
        Self {
            ours: false,
            passes: false,
            ..Self::new(name, self.six, self.protocol, self.payload.clone(), false)
        }
    }

    fn destination(&self) -> IpAddr {
        let text = match (self.six, self.ours) {
            (false, true) => "192.0.2.7",
            (false, false) => "10.1.0.9",
            (true, true) => "2001:db8::7",
            (true, false) => "fd00:1::9",
        };
        text.parse().expect("address")
    }

    fn octets(&self) -> Vec<u8> {
        let source: IpAddr = if self.six { "fd00:2::9" } else { "10.2.0.9" }.parse().expect("address");
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let length = |header: usize| u16::try_from(self.payload.len() + header).expect("short").to_be_bytes();
        let mut all = if self.six {
            let mut all = vec![0x60, 0, 0, 0];
            all.extend(length(0));
            all.extend([self.protocol, self.hops]);
            all
        } else {
            let mut all = vec![0x45, 0];
            all.extend(length(20));
            all.extend([0, 7]);
            all.extend(self.fragment.to_be_bytes());
            // The kernel fills in the checksum.
            all.extend([self.hops, self.protocol, 0, 0]);
            all
        };
        all.extend(octets(source));
        all.extend(octets(self.destination()));
        all.extend(&self.payload);
        all
    }
}

fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut all = source.to_be_bytes().to_vec();
    all.extend(destination.to_be_bytes());
    all.extend([0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    all
}

/// An ICMP error of some type about a packet of ours.
fn about(kind: u8, six: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut all = vec![kind, 0, 0, 0, 0, 0, 5, 0];
    let mut inner = vec![0; if six { 40 } else { 20 }];
    inner[0] = if six { 0x60 } else { 0x45 };
    inner[if six { 6 } else { 9 }] = protocol;
    all.extend(inner);
    all.extend(payload);
    all
}

/// Every kind of packet that the rules name, and beside each the nearest that they do not.
fn packets() -> Vec<Packet> {
    let mut all = Vec::new();
    for six in [false, true] {
        let version = if six { "IPv6" } else { "IPv4" };
        let named = |name: &str| format!("{name} over {version}");
        // A next header of AH that no rule knows by itself, then a SPI.
        let ah = vec![59, 4, 0, 0, 0, 0, 0x20, 2, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        all.push(Packet::new(named("ESP"), six, 50, vec![0, 0, 0x20, 2, 0, 0, 0, 1, 9, 9, 9, 9], true));
        all.push(Packet::new(named("AH"), six, 51, ah, true));
        for (port, passes) in [(500, true), (4500, true), (501, false), (7, false)] {
            all.push(Packet::new(named(&format!("UDP {port}")), six, 17, udp(9, port), passes));
        }
        all.push(Packet::new(named("TCP from port 4500 to 4500"), six, 6, udp(4500, 4500), false));
        for n in 0..all.len() {
            if all[n].six == six && all[n].passes {
                let forwarded = all[n].forwarded();
                all.push(forwarded);
            }
        }
        // Fragments: the first one shows its ports and is judged by them.
        for (protocol, offset, passes) in [(17, 185, true), (17, 0, false), (6, 185, false)] {
            let mut packet = Packet::new(
                named(&format!("a fragment of protocol {protocol} at {offset}")),
                six,
                protocol,
                udp(9, 7),
                passes,
            );
            if six {
                let at = (offset << 3 | 1_u16).to_be_bytes();
                packet.payload.splice(0..0, [protocol, 0, at[0], at[1], 0, 0, 0, 7]);
                packet.protocol = 44;
            } else {
                packet.fragment = 0x2000 | offset;
            }
            all.push(packet);
        }
        let (icmp, errors, others): (u8, &[u8], &[u8]) =
            if six { (58, &[1, 2, 3, 4], &[5, 128, 129]) } else { (1, &[3, 11, 12], &[0, 5, 8]) };
        for &kind in errors {
            for (protocol, port, passes) in [
                (50, 0, true),
                (51, 0, true),
                (17, 500, true),
                (17, 4500, true),
                (17, 501, false),
                (6, 4500, false),
            ] {
                let name = named(&format!("ICMP {kind} about protocol {protocol}, port {port}"));
                let packet =
                    Packet::new(name, six, icmp, about(kind, six, protocol, &udp(port, 4500)), passes);
                if kind == errors[0] && passes {
                    all.push(packet.forwarded());
                }
                all.push(packet);
            }
        }
        for &kind in others {
            let name = named(&format!("ICMP {kind}"));
            all.push(Packet::new(name, six, icmp, about(kind, six, 50, &[0; 8]), false));
        }
    }
    for kind in 132..=138 {
        for hops in [255, 254] {
            let name = format!("neighbour discovery {kind} with hop limit {hops}");
            let passes = (133..=137).contains(&kind) && hops == 255;
            let mut packet = Packet::new(name, true, 58, [&[kind, 0, 0, 0][..], &[0; 20]].concat(), passes);
            packet.hops = hops;
            all.push(packet);
        }
    }
    all
}

/// Each rule is there and none is wider than it says.
#[test]
fn what_tunnels_are_made_of_passes_and_what_only_resembles_it_does_not() {
    if let Err(why) = available() {
        return eprintln!("skipped: {why}");
    }
    let net = |text: &str| -> IpNet { text.parse().expect("net") };
    let [gateway, router, beyond] = [(); 3].map(|()| Namespace::new().expect("namespace"));
    let outer = [net("192.0.2.7/24"), net("2001:db8::7/64")];
    let next = [net("192.0.2.9/24"), net("2001:db8::9/64")];
    connect(
        End { namespace: &gateway, name: "eth0", addresses: &outer },
        End { namespace: &router, name: "eth0", addresses: &next },
    )
    .expect("cable");
    // Only the name counts.
    connect(
        End { namespace: &gateway, name: "ipsec0", addresses: &[] },
        End { namespace: &beyond, name: "eth0", addresses: &[] },
    )
    .expect("device");
    let routed = |at: &Namespace, routes: &[(&str, Option<&str>)], link: &str| {
        let made = at.run(|| {
            let mut netlink = Netlink::open()?;
            let link = netlink.link(link)?.map(|link| link.index);
            routes.iter().try_for_each(|(dst, via)| {
                let via = via.map(|via| via.parse().expect("address"));
                netlink.add_route(&Route { dst: net(dst), via, link, src: None, metric: 0 })
            })
        });
        made.expect("namespace").expect("routes");
    };
    routed(&gateway, &[("10.2.0.0/16", None), ("fd00:2::/32", None)], "ipsec0");
    let through = [("10.1.0.0/16", Some("192.0.2.7")), ("fd00:1::/32", Some("2001:db8::7"))];
    routed(&router, &through, "eth0");
    let opened = gateway.run(|| {
        let mut guard = Guard::open("tulips_test".into())?;
        guard.install(Wanted {
            devices: vec!["ipsec0".into()],
            ports: vec![500, 4500],
            ..Wanted::default()
        })?;
        Ok::<_, GuardError>(guard)
    });
    let mut guard = opened.expect("namespace").expect("nf_tables");
    let send = |packets: &[&Packet]| {
        let sent = router.run(|| {
            // What one processor sends arrives in order.
            let mut one = CpuSet::new();
            let may = sched_getaffinity(Pid::from_raw(0))?;
            let first = (0..CpuSet::count()).find(|cpu| may.is_set(*cpu).unwrap_or(false)).unwrap_or(0);
            one.set(first)?;
            sched_setaffinity(Pid::from_raw(0), &one)?;
            packets.iter().try_for_each(|packet| {
                let domain = if packet.six { Domain::IPV6 } else { Domain::IPV4 };
                let raw = Raw::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
                let to = std::net::SocketAddr::new(packet.destination(), 0);
                raw.send_to(&packet.octets(), &to.into()).map(drop)
            })
        });
        sent.expect("namespace").expect("sent");
    };
    let mut seen = 0;
    let mut wrong = Vec::new();
    for packet in packets() {
        // One that is always refused shows that the one before it has had its turn.
        let last = Packet::new("", packet.six, 6, udp(1, 2), false);
        send(&[&packet, &last]);
        let mut now = guard.refused();
        for _ in 0..2000 {
            if now > seen {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
            now = guard.refused();
        }
        let passed = match now - seen {
            1 => true,
            2 => false,
            n => panic!("{}: {n} were refused", packet.name),
        };
        if passed != packet.passes {
            wrong.push(format!("{} {}", packet.name, if passed { "passed" } else { "was refused" }));
        }
        seen = now;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
