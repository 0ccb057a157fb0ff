//! UDP port 500 of every address of this host.
//!
//! Each socket is bound to one address and its interface, so that what it sends is never routed into `ipsecN`, and answers
//! leave from where they were asked.

use crate::conf::connection::Here;
use crate::host::netlink::Netlink;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The port of IKE.
pub const IKE: u16 = 500;

/// Port 500 of the addresses.
#[derive(Debug, Default)]
pub struct Ports {
    sockets: BTreeMap<IpAddr, UdpSocket>,
}

impl Ports {
    /// Opens and closes sockets until they are those of the addresses that are there now; what could not be opened is
    /// returned with why.
    pub fn follow(&mut self) -> io::Result<Vec<String>> {
        let wanted = addresses()?;
        self.sockets.retain(|address, _| wanted.contains_key(address));
        let mut failed = Vec::new();
        for (address, device) in wanted {
            if self.sockets.contains_key(&address) {
                continue;
            }
            match open(address, &device) {
                Ok(socket) => {
                    self.sockets.insert(address, socket);
                }
                // An IPv6 address that is still being looked for twice will be there in a moment.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(error) => failed.push(format!("UDP {address} port {IKE}: {error}{}", hint(&error))),
            }
        }
        Ok(failed)
    }

    /// The sockets with their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&IpAddr, &UdpSocket)> {
        self.sockets.iter()
    }

    /// Sends from an address; lost, as datagrams are, if it is not ours any more.
    pub fn send(&self, from: IpAddr, to: SocketAddr, octets: &[u8]) -> io::Result<()> {
        let socket = self.sockets.get(&from).ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.send_to(octets, to).map(drop)
    }
}

/// The addresses of this host, each with its interface.
fn addresses() -> io::Result<BTreeMap<IpAddr, String>> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let mut all = BTreeMap::new();
    for address in netlink.addresses(None)? {
        let Some(link) = links.iter().find(|link| link.index == address.link) else { continue };
        // The addresses of our own devices are those of the physical ones.
        if !link.loopback && !address.link_local && !is_ours(&link.name) {
            all.insert(address.net.addr(), link.name.clone());
        }
    }
    Ok(all)
}

/// The addresses of this host, for those who do not open ports.
#[derive(Debug)]
pub struct Local(BTreeMap<IpAddr, String>);

impl Local {
    /// Those there are now.
    pub fn now() -> io::Result<Self> {
        addresses().map(Self)
    }
}

impl Here for Local {
    fn has(&self, address: IpAddr) -> bool {
        self.0.contains_key(&address)
    }

    fn address_towards(&self, peer: Option<IpAddr>) -> Option<IpAddr> {
        towards(peer)
    }
}

impl Here for Ports {
    fn has(&self, address: IpAddr) -> bool {
        self.sockets.contains_key(&address)
    }

    fn address_towards(&self, peer: Option<IpAddr>) -> Option<IpAddr> {
        towards(peer)
    }
}

/// Which address packets to `peer` leave from.
fn towards(peer: Option<IpAddr>) -> Option<IpAddr> {
    // Nothing is sent: connecting makes the kernel look the route up.
    let peer = peer.unwrap_or_else(|| IpAddr::from([192, 0, 2, 1]));
    let any: IpAddr = if peer.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((peer, IKE)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn is_ours(device: &str) -> bool {
    device.strip_prefix("ipsec").is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()))
}

fn open(address: IpAddr, device: &str) -> io::Result<UdpSocket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind_device(Some(device.as_bytes()))?;
    socket.bind(&SocketAddr::new(address, IKE).into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::AddrInUse {
        ": another IKE daemon runs here (`ss -ulpn sport = :500')"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        ": CAP_NET_BIND_SERVICE and CAP_NET_RAW are needed"
    } else {
        ""
    }
}
