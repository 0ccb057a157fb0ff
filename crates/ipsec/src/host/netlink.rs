//! Links, addresses and routes (rtnetlink(7)), asked for and changed without an asynchronous runtime.
//!
//! A [`Netlink`] belongs to the network namespace of the thread that opened it. One request is outstanding at a time; every
//! change is acknowledged before the call returns.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages have more kinds than concern us, and grow"
)]

mod way;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index, never used again in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up, with carrier, and the kernel has taken notice: before that it drops what is sent.
    pub running: bool,
    /// Somebody is at the other end: for a TUN device, it has a queue that is open.
    pub carrier: bool,
    /// What `ip link` shows as its alias.
    pub alias: Option<String>,
    /// The loopback.
    pub loopback: bool,
}

/// An address configured on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Index of the interface.
    pub link: u32,
    /// The address with its prefix length, host bits kept.
    pub net: IpNet,
    /// Only meaningful on that link (169.254/16, fe80::/10).
    pub link_local: bool,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// The next hop, if there is one.
    pub via: Option<IpAddr>,
    /// Out of which interface.
    pub link: Option<u32>,
    /// The preferred source.
    pub src: Option<IpAddr>,
    /// The lower, the better.
    pub metric: u32,
}

/// How long an answer is waited for. The kernel writes it before the question's call returns, so that this is for what has been
/// lost on the way; nobody who asks is held up for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket to the kernel's tables.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        Self::open_with(PATIENCE)
    }

    fn open_with(patience: Duration) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(patience))?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The interface of that name; `None` if there is none.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// All interfaces.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let replies = self.request(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(replies.iter().filter_map(link_of).collect())
    }

    /// All addresses of one interface, or of all.
    pub fn addresses(&mut self, link: Option<u32>) -> io::Result<Vec<Address>> {
        let replies = self.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let all = replies.iter().filter_map(address_of);
        Ok(all.filter(|address| link.is_none_or(|index| address.link == index)).collect())
    }

    /// Adds an address; not an error if the interface has it already. No route to its prefix comes with it, and no
    /// duplicate address detection holds it back: the device it is for has no neighbours.
    pub fn add_address(&mut self, link: u32, net: IpNet) -> io::Result<()> {
        self.add_address_with(link, net, AddressFlags::Noprefixroute | AddressFlags::Nodad)
    }

    /// Adds an address as `ip address add` does, with the route to its prefix.
    pub fn add_address_and_route(&mut self, link: u32, net: IpNet) -> io::Result<()> {
        self.add_address_with(link, net, AddressFlags::Nodad)
    }

    fn add_address_with(&mut self, link: u32, net: IpNet, flags: AddressFlags) -> io::Result<()> {
        let mut message = address_message(link, net);
        message.attributes.push(AddressAttribute::Flags(flags));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewAddress(message), flags).map(drop)
    }

    /// Removes an address; not an error if it is gone already.
    pub fn remove_address(&mut self, link: u32, net: IpNet) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(link, net));
        match self.request(message, NLM_F_ACK) {
            Err(error) if error.raw_os_error() != Some(libc::EADDRNOTAVAIL) => Err(error),
            _ => Ok(()),
        }
    }

    /// Brings an interface up or down.
    pub fn set_up(&mut self, link: u32, up: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Sets an interface's MTU.
    pub fn set_mtu(&mut self, link: u32, mtu: u32) -> io::Result<()> {
        self.set(link, LinkAttribute::Mtu(mtu))
    }

    /// Sets the length of an interface's transmit queue.
    pub fn set_queue_len(&mut self, link: u32, packets: u32) -> io::Result<()> {
        self.set(link, LinkAttribute::TxQueueLen(packets))
    }

    /// Sets how many segments the stack may hand to an interface in one superpacket.
    pub fn set_gso_max_segs(&mut self, link: u32, segments: u32) -> io::Result<()> {
        self.set(link, LinkAttribute::GsoMaxSegs(segments))
    }

    /// Sets what `ip link` shows as an interface's alias: at most 255 octets.
    pub fn set_alias(&mut self, link: u32, alias: &str) -> io::Result<()> {
        self.set(link, LinkAttribute::IfAlias(alias.into()))
    }

    /// Keeps the kernel from giving an interface a link-local IPv6 address of its own, and from soliciting routers on it.
    pub fn set_no_link_local(&mut self, link: u32) -> io::Result<()> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        self.set(link, LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]))
    }

    fn set(&mut self, link: u32, attribute: LinkAttribute) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(attribute);
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Makes a pair of virtual Ethernet interfaces.
    pub fn add_veth(&mut self, name: &str, peer: &str) -> io::Result<()> {
        let mut other = LinkMessage::default();
        other.attributes.push(LinkAttribute::IfName(peer.into()));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(RouteNetlinkMessage::NewLink(message), flags).map(drop)
    }

    /// Moves an interface into another network namespace.
    pub fn move_link(&mut self, link: u32, namespace: BorrowedFd<'_>) -> io::Result<()> {
        self.set(link, LinkAttribute::NetNsFd(namespace.as_raw_fd()))
    }

    /// Gives an interface another name; it must be down.
    pub fn rename(&mut self, link: u32, name: &str) -> io::Result<()> {
        self.set(link, LinkAttribute::IfName(name.into()))
    }

    /// Removes an interface.
    pub fn remove_link(&mut self, link: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        self.request(RouteNetlinkMessage::DelLink(message), NLM_F_ACK).map(drop)
    }

    /// The routes of the main table.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let replies = self.request(RouteNetlinkMessage::GetRoute(RouteMessage::default()), NLM_F_DUMP)?;
        Ok(replies.iter().filter_map(route_of).collect())
    }

    /// The routes of the main table, those of the least metric first; IPv4 before IPv6.
    pub fn best_routes(&mut self) -> io::Result<Vec<Route>> {
        let mut routes = self.routes()?;
        routes.sort_by_key(|route| (route.dst.addr().is_ipv6(), route.metric));
        Ok(routes)
    }

    /// The default routes, the best one first; IPv4 before IPv6.
    pub fn default_routes(&mut self) -> io::Result<Vec<Route>> {
        let mut routes = self.best_routes()?;
        routes.retain(|route| route.dst.prefix_len() == 0 && route.link.is_some());
        Ok(routes)
    }

    /// Adds a route, or puts it in the place of the one to the same destination with the same metric.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewRoute(route_message(route)), flags).map(drop)
    }

    /// Gives a source to a route that names none and was made by hand or by us, and leaves all else of it as it is; false if
    /// there is none such.
    pub fn give_source(&mut self, route: &Route, src: IpAddr) -> io::Result<bool> {
        let replies = self.request(RouteNetlinkMessage::GetRoute(RouteMessage::default()), NLM_F_DUMP)?;
        let found = replies.into_iter().find(|reply| route_of(reply).as_ref() == Some(route));
        let Some(RouteNetlinkMessage::NewRoute(mut message)) = found else { return Ok(false) };
        // Those of a routing daemon are its own business.
        if !matches!(message.header.protocol, RouteProtocol::Boot | RouteProtocol::Static) {
            return Ok(false);
        }
        message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::CacheInfo(_)));
        message.attributes.push(RouteAttribute::PrefSource(src.into()));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewRoute(message), flags).map(|_| true)
    }

    /// Removes a route; not an error if it is gone already.
    pub fn remove_route(&mut self, route: &Route) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelRoute(route_message(route)), NLM_F_ACK) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
            _ => Ok(()),
        }
    }

    /// Adds a route that drops, made by `protocol`; not an error if there is a route with that metric.
    pub fn add_blackhole(&mut self, dst: IpNet, metric: u32, protocol: u8) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRoute(blackhole(dst, metric, protocol));
        match self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes a route that drops; not an error if it is gone already.
    pub fn remove_blackhole(&mut self, dst: IpNet, metric: u32, protocol: u8) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelRoute(blackhole(dst, metric, protocol)), NLM_F_ACK) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
            _ => Ok(()),
        }
    }

    /// The routes that drop made by `protocol`: destination and metric.
    pub fn blackholes(&mut self, protocol: u8) -> io::Result<Vec<(IpNet, u32)>> {
        let replies = self.request(RouteNetlinkMessage::GetRoute(RouteMessage::default()), NLM_F_DUMP)?;
        let ours = replies.into_iter().filter_map(|reply| match reply {
            RouteNetlinkMessage::NewRoute(mut message)
                if message.header.kind == RouteType::BlackHole
                    && message.header.protocol == RouteProtocol::Other(protocol) =>
            {
                message.header.kind = RouteType::Unicast;
                route_of(&RouteNetlinkMessage::NewRoute(message))
            }
            _ => None,
        });
        Ok(ours.map(|route| (route.dst, route.metric)).collect())
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut octets = vec![0; request.buffer_len()];
        request.serialize(&mut octets);
        self.socket.send(&octets, 0)?;
        self.replies()
    }

    fn replies(&self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut replies = Vec::new();
        loop {
            let (octets, _) = self.socket.recv_from_full().map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => {
                    io::Error::new(io::ErrorKind::TimedOut, "netlink does not answer")
                }
                _ => error,
            })?;
            for message in messages(&octets) {
                let (header, payload) = message.map_err(io::Error::other)?.into_parts();
                if header.sequence_number != self.sequence {
                    continue;
                }
                match payload {
                    NetlinkPayload::Done(_) => return Ok(replies),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(replies),
                    NetlinkPayload::Error(error) => {
                        return Err(io::Error::from_raw_os_error(error.raw_code().saturating_neg()));
                    }
                    NetlinkPayload::InnerMessage(inner) => replies.push(inner),
                    _ => {}
                }
            }
        }
    }
}

/// What has happened since last asked.
#[derive(Debug, Default)]
pub struct Heard {
    /// Links or addresses have changed, or something was missed.
    pub changed: bool,
    /// Routes asked for that came (true) and went (false), in their order.
    pub routes: Vec<(bool, Route)>,
}

impl Heard {
    /// Whether there was anything.
    pub const fn any(&self) -> bool {
        self.changed || !self.routes.is_empty()
    }
}

/// Says when links, addresses or routes have changed.
pub struct Watch {
    socket: Socket,
}

impl Watch {
    /// Watches the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let addresses = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let routes = libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;
        let groups = libc::RTMGRP_LINK | addresses | routes;
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, groups.unsigned_abs()))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Takes what was heard. Of routes only those count that `counts` says do: a host may have a million others. An overrun
    /// counts as a change.
    pub fn take(&mut self, counts: impl Fn(&Route) -> bool) -> Heard {
        let mut heard = Heard::default();
        let mut buffer = Vec::with_capacity(65536);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => messages(&buffer).for_each(|message| heard.message(message, &counts)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => heard.changed = true,
                Err(_) => return heard,
            }
        }
    }
}

impl Heard {
    fn message(&mut self, message: Parsed, counts: impl Fn(&Route) -> bool) {
        let Ok(NetlinkPayload::InnerMessage(inner)) = message.map(|message| message.into_parts().1) else {
            self.changed = true;
            return;
        };
        let (came, route) = match inner {
            RouteNetlinkMessage::NewRoute(route) => (true, route),
            RouteNetlinkMessage::DelRoute(route) => (false, route),
            _ => {
                self.changed = true;
                return;
            }
        };
        let route = route_of(&RouteNetlinkMessage::NewRoute(route));
        if let Some(route) = route.filter(counts) {
            self.routes.push((came, route));
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

type Parsed = Result<NetlinkMessage<RouteNetlinkMessage>, netlink_packet_core::DecodeError>;

/// The messages of one datagram, each padded to four octets.
fn messages(mut octets: &[u8]) -> impl Iterator<Item = Parsed> + '_ {
    std::iter::from_fn(move || {
        let length = octets.first_chunk().map(|length| u32::from_ne_bytes(*length))?;
        let length = usize::try_from(length).ok()?;
        let this = octets.get(..length).filter(|this| !this.is_empty())?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(this))
    })
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn link_of(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let (mut name, mut mtu, mut carrier, mut alias) = (None, 0, false, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Mtu(value) => mtu = *value,
            LinkAttribute::Carrier(value) => carrier = *value != 0,
            LinkAttribute::IfAlias(value) => alias = Some(value.clone()),
            _ => {}
        }
    }
    Some(Link {
        index: message.header.index,
        name: name?,
        mtu,
        carrier,
        alias,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running),
        loopback: flags.contains(LinkFlags::Loopback),
    })
}

fn address_of(message: &RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        if let AddressAttribute::Address(value) = attribute {
            address = Some(*value);
        } else if let AddressAttribute::Local(value) = attribute {
            local = Some(*value);
        }
    }
    // On a point-to-point interface IFA_ADDRESS is the other end.
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Address { link: message.header.index, net, link_local: message.header.scope == AddressScope::Link })
}

fn address_message(link: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link;
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message.attributes.push(AddressAttribute::Address(net.addr()));
    message
}

fn route_of(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    if message.header.table != RouteHeader::RT_TABLE_MAIN || message.header.kind != RouteType::Unicast {
        return None;
    }
    parts_of(message)
}

/// A route of any table.
fn parts_of(message: &RouteMessage) -> Option<Route> {
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let mut dst = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut via, mut link, mut src, mut metric) = (None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(value) => dst = ip(value)?,
            RouteAttribute::Gateway(value) => via = ip(value),
            RouteAttribute::PrefSource(value) => src = ip(value),
            RouteAttribute::Oif(value) => link = Some(*value),
            RouteAttribute::Priority(value) => metric = *value,
            // The first of several next hops stands for all: it says which interface the route leaves by.
            RouteAttribute::MultiPath(hops) => link = link.or(hops.first().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    let dst = IpNet::new(dst, message.header.destination_prefix_length).ok()?;
    Some(Route { dst, via, link, src, metric })
}

fn blackhole(dst: IpNet, metric: u32, protocol: u8) -> RouteMessage {
    let mut message = route_message(&Route { dst, via: None, link: None, src: None, metric });
    message.header.kind = RouteType::BlackHole;
    message.header.scope = RouteScope::Universe;
    message.header.protocol = RouteProtocol::Other(protocol);
    message
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.dst.addr());
    message.header.destination_prefix_length = route.dst.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.header.kind = RouteType::Unicast;
    let attributes = &mut message.attributes;
    if route.dst.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.dst.network().into()));
    }
    attributes.extend(route.via.map(|via| RouteAttribute::Gateway(via.into())));
    attributes.extend(route.src.map(|src| RouteAttribute::PrefSource(src.into())));
    attributes.extend(route.link.map(RouteAttribute::Oif));
    if route.metric > 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netns::{Namespace, available};

    #[test]
    fn a_kernel_that_does_not_answer_is_not_waited_for() {
        let netlink = Netlink::open_with(Duration::from_millis(20)).unwrap();
        // Nothing was asked.
        assert_eq!(netlink.replies().unwrap_err().kind(), io::ErrorKind::TimedOut);
        let patience = rustix::net::sockopt::socket_timeout(&Netlink::open().unwrap().socket, Timeout::Recv);
        assert_eq!(patience.unwrap(), Some(PATIENCE));
    }

    #[test]
    fn links_addresses_and_routes_come_and_go() {
        if let Err(why) = available() {
            return eprintln!("skipped: {why}");
        }
        let (one, two) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        one.run(|| {
            let mut netlink = Netlink::open().unwrap();
            let mut watch = Watch::open().unwrap();
            assert!(!watch.take(|_| false).any());
            netlink.add_veth("left", "right").unwrap();
            let left = netlink.link("left").unwrap().unwrap();
            let right = netlink.link("right").unwrap().unwrap();
            assert!(!left.up);
            assert!(watch.take(|_| false).changed);
            netlink.move_link(right.index, two.as_fd()).unwrap();
            assert_eq!(netlink.link("right").unwrap(), None);

            netlink.set_mtu(left.index, 1400).unwrap();
            netlink.set_queue_len(left.index, 2000).unwrap();
            netlink.set_gso_max_segs(left.index, 44).unwrap();
            netlink.set_no_link_local(left.index).unwrap();
            netlink.set_up(left.index, true).unwrap();
            let left = netlink.link("left").unwrap().unwrap();
            assert!(left.up);
            assert_eq!(left.mtu, 1400);

            let net: IpNet = "10.1.2.3/24".parse().unwrap();
            let net6: IpNet = "2001:db8::3/64".parse().unwrap();
            netlink.add_address(left.index, net).unwrap();
            netlink.add_address(left.index, net).unwrap();
            netlink.add_address(left.index, net6).unwrap();
            let have = netlink.addresses(Some(left.index)).unwrap();
            assert_eq!(have.iter().map(|address| address.net).collect::<Vec<_>>(), [net, net6]);
            assert!(netlink.routes().unwrap().iter().all(|route| route.link != Some(left.index)));

            let neighbour = Route {
                dst: "10.1.2.0/24".parse().unwrap(),
                via: None,
                link: Some(left.index),
                src: Some(net.addr()),
                metric: 0,
            };
            netlink.add_route(&neighbour).unwrap();
            let default = |metric| Route {
                dst: "0.0.0.0/0".parse().unwrap(),
                via: Some("10.1.2.254".parse().unwrap()),
                link: Some(left.index),
                src: None,
                metric,
            };
            netlink.add_route(&default(20)).unwrap();
            netlink.add_route(&default(10)).unwrap();
            assert_eq!(netlink.default_routes().unwrap(), [default(10), default(20)]);
            assert!(netlink.routes().unwrap().contains(&neighbour));
            netlink.remove_route(&default(10)).unwrap();
            netlink.remove_route(&default(10)).unwrap();
            assert_eq!(netlink.default_routes().unwrap(), [default(20)]);

            netlink.remove_address(left.index, net).unwrap();
            netlink.remove_address(left.index, net).unwrap();
            netlink.remove_link(left.index).unwrap();
            assert_eq!(netlink.link("left").unwrap(), None);
            assert_eq!(netlink.set_up(left.index, true).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        })
        .unwrap();
        assert_eq!(two.run(|| Netlink::open().unwrap().link("right").unwrap()).unwrap(), None);
    }
}
