//! Who counts hops (RFC 4301 §5.1.2.1): each gateway as a router, where its kernel forwards a packet, and the tunnel as one hop between them.

use super::{Case, Kind, Tunnel, inner, tunnel};
use ipsec::host::netlink::{Netlink, Route};
use ipsec::host::netns::{End, Namespace, connect};
use rustix::net::{RecvFlags, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// A host behind each gateway, which forwards what it sends.
fn hosts(case: &Case, tunnel: &Tunnel) -> [(Namespace, IpAddr); 2] {
    [(1, &tunnel.left), (2, &tunnel.right)].map(|(n, gateway)| {
        let host = Namespace::new().unwrap();
        let net = if case.inner6 { format!("fd00:{n}::2/64") } else { format!("10.0.{n}.2/24") };
        let net: ipnet::IpNet = net.parse().unwrap();
        connect(
            End { namespace: &host, name: "eth0", addresses: &[net] },
            End { namespace: &gateway.namespace, name: "eth1", addresses: &[inner(case, n)] },
        )
        .unwrap();
        let forward = || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        };
        gateway.namespace.run(forward).unwrap();
        let way_out = || {
            let mut netlink = Netlink::open().unwrap();
            let link = netlink.link("eth0").unwrap().map(|link| link.index);
            let (dst, via) = (inner(case, 3 - n).trunc(), Some(inner(case, n).addr()));
            netlink.add_route(&Route { dst, via, link, src: None, metric: 0 }).unwrap();
        };
        host.run(way_out).unwrap();
        (host, net.addr())
    })
}

/// Who says that the hops are used up.
fn complains(icmp: &Socket, six: bool) -> IpAddr {
    let mut buffer = [0; 2048];
    loop {
        let (_, n, from) = recvfrom(icmp, buffer.as_mut_slice(), RecvFlags::empty()).expect("time exceeded");
        let message = &buffer[if six { 0 } else { 20 }..n];
        if message[0] == if six { 3 } else { 11 } {
            return SocketAddr::try_from(from.unwrap()).unwrap().ip();
        }
    }
}

#[test]
fn each_gateway_is_one_hop_and_who_ends_a_packet_says_so() {
    for (outer6, inner6) in [(false, false), (false, true), (true, false), (true, true)] {
        for kind in [Kind::Tunnel, Kind::Group] {
            let case = Case { outer6, inner6, kind, udp: kind == Kind::Tunnel, ..Case::default() };
            let Some(tunnel) = tunnel(&case) else { return };
            let [(here, ours), (there, theirs)] = hosts(&case, &tunnel);
            let bind = |(host, address): (&Namespace, IpAddr), port: u16| {
                let socket = host.run(|| UdpSocket::bind((address, port))).unwrap().unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            };
            let (from, to) = (bind((&here, ours), 0), bind((&there, theirs), 7777));
            let icmp = here.run(|| {
                let (domain, protocol) =
                    if inner6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
                Socket::new(domain, Type::RAW, Some(protocol))
            });
            let icmp = icmp.unwrap().unwrap();
            icmp.set_read_timeout(Some(PATIENCE)).unwrap();
            let send = |hops: u32| {
                let socket = socket2::SockRef::from(&from);
                if inner6 { socket.set_unicast_hops_v6(hops) } else { socket.set_ttl_v4(hops) }.unwrap();
                from.send_to(&[hops as u8], to.local_addr().unwrap()).unwrap();
            };
            let sealed = || tunnel.left.plane.sa(&super::sas(&case, 1, 2)[0].id).unwrap().packets();
            // The near gateway forwards nothing of it, so nothing is sealed.
            send(1);
            assert_eq!(complains(&icmp, inner6), inner(&case, 1).addr());
            assert_eq!(sealed(), 0);
            // The far one has opened it, and its word comes back through the tunnel.
            send(2);
            assert_eq!(complains(&icmp, inner6), inner(&case, 2).addr());
            assert_eq!(sealed(), 1);
            // What is between the gateways takes nothing: the packet arrives on its last hop.
            send(3);
            let mut buffer = [0; 8];
            let (n, source) = to.recv_from(&mut buffer).expect("three hops are enough");
            assert_eq!((&buffer[..n], source), (&[3][..], from.local_addr().unwrap()));
            assert_eq!((tunnel.left.refused(), tunnel.right.refused()), (vec![], vec![]));
        }
    }
}
