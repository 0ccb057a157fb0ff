//! The devices `ipsecN`, each on top of a physical interface: attached, followed through changes, detached.
//!
//! All of it belongs to the network namespace of the thread that made [`Interfaces`], which must also be the one that
//! changes it. Where the settings name an owner, a device stays closed behind its daemon: it outlives it with its addresses and routes
//! ([`keep`]), is made again when somebody removes it, and goes only when it is detached.

pub mod clear;
pub mod keep;
mod source;
mod way;

use super::netlink::{Link, Netlink, Route, Watch};
use super::tun::{Device, Handle, Offloads, TunError};
use super::wire::{Plan, Steering, Wire, WireError};
use super::worker::{IkeSink, Shape, Shared, Tally, Workers};
use ipnet::IpNet;
use klips::{Plane, Sealed};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What protection may add to a packet: IPv6, UDP and ESP headers, IV, padding and ICV of the usual algorithms.
const OVERHEAD: u32 = 80;
/// RFC 8200 §5; below it the kernel takes IPv6 off the device.
const LEAST_MTU: u32 = 1280;
/// Packets that wait for a worker: enough for a burst while it sends.
const QUEUE: u32 = 1000;
/// More workers than this do not pay: each has its buffers.
const MOST_WORKERS: usize = 8;

/// What all interfaces have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Workers for each interface; one for each core, up to eight, if `None`.
    pub workers: Option<usize>,
    /// How they are laid out on threads.
    pub shape: Shape,
    /// Who keeps the devices when we are gone ([`keep::Mark`]); without one they go with the process.
    pub owner: Option<keep::Mark>,
    /// `hidetos=`.
    pub hide_tos: bool,
    /// `fragicmp=`.
    pub frag_icmp: bool,
    /// `copydf=`.
    pub copy_df: bool,
    /// `overridemtu=`.
    pub override_mtu: Option<u32>,
    /// Our UDP port.
    pub port: u16,
    /// It is a key manager's, and ESP in UDP is taken beside it.
    pub share_port: bool,
    /// What to ask of the TUN device.
    pub offloads: Offloads,
    /// Send runs with `UDP_SEGMENT`.
    pub segment: bool,
    /// Receive with `UDP_GRO`.
    pub receive_merged: bool,
    /// Merge TCP segments for the device.
    pub merge_tcp: bool,
    /// Merge UDP datagrams for the device.
    pub merge_udp: bool,
    /// Have the kernel steer received packets to workers by SPI.
    pub steer: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: None,
            shape: Shape::Together,
            owner: None,
            hide_tos: true,
            frag_icmp: true,
            copy_df: false,
            override_mtu: None,
            port: 4500,
            share_port: false,
            offloads: Offloads::ALL,
            segment: true,
            receive_merged: true,
            merge_tcp: true,
            merge_udp: true,
            steer: true,
        }
    }
}

/// A word of an offload list that names nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownOffload(String);

impl fmt::Display for UnknownOffload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<_> = Settings::offload_words().collect();
        write!(
            f,
            "no offload `{}': there are all, none, {}, each also with `-' before it",
            self.0,
            known.join(", ")
        )
    }
}

impl std::error::Error for UnknownOffload {}

impl Settings {
    /// How many workers each interface gets.
    pub fn worker_count(&self) -> usize {
        self.workers.unwrap_or_else(cores).clamp(1, 256)
    }

    /// The names of what the kernel can do for us, in lists of it and in `--json`.
    pub fn offload_words() -> impl Iterator<Item = &'static str> {
        let others = ["udp_segment", "udp_gro", "merge_tcp", "merge_udp", "steer"];
        Offloads::NAMES.into_iter().map(|(_, word)| word).chain(others)
    }

    /// Everything as simple as it can be: one packet in each call, whole, with its checksums.
    #[must_use]
    pub fn without_offloads(mut self) -> Self {
        self.switch_all(false);
        self
    }

    /// Switches on what a list names and all else off: [`Settings::offload_words`], `all` or `none`, separated by commas,
    /// read from left to right; `-` before a word takes it out. A list that begins so begins with all.
    pub fn set_offloads(&mut self, list: &str) -> Result<(), UnknownOffload> {
        self.switch_all(list.starts_with('-'));
        for word in list.split(',') {
            let (name, on) = word.strip_prefix('-').map_or((word, true), |name| (name, false));
            match name {
                "all" => self.switch_all(on),
                "none" => self.switch_all(!on),
                name if self.switch(name, on) => {}
                _ => return Err(UnknownOffload(word.into())),
            }
        }
        Ok(())
    }

    fn switch_all(&mut self, on: bool) {
        for word in Self::offload_words() {
            self.switch(word, on);
        }
    }

    /// Switches one; false if there is none of that name.
    fn switch(&mut self, name: &str, on: bool) -> bool {
        let switch = match name {
            "udp_segment" => &mut self.segment,
            "udp_gro" => &mut self.receive_merged,
            "merge_tcp" => &mut self.merge_tcp,
            "merge_udp" => &mut self.merge_udp,
            "steer" => &mut self.steer,
            name => {
                let Some((one, _)) = Offloads::NAMES.into_iter().find(|(_, word)| *word == name) else {
                    return false;
                };
                self.offloads = match (on, one) {
                    // The kernel segments nothing for those who cannot do checksums.
                    (true, one) => self.offloads.and(one).and(Offloads::CSUM),
                    (false, Offloads::CSUM) => Offloads::NONE,
                    (false, one) => self.offloads.without(one),
                };
                return true;
            }
        };
        *switch = on;
        true
    }
}

/// Which interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Physical {
    /// The one of this name.
    Name(String),
    /// `%defaultroute`: the one that carries the best default route.
    DefaultRoute,
}

/// Which addresses the device gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Those of the physical interface, followed when they change.
    Copy,
    /// These.
    Given(Vec<IpNet>),
}

/// Why an interface was not attached or detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The virtual name is not `ipsec` and a number.
    NotVirtual,
    /// The virtual device is attached already.
    Attached,
    /// Another virtual device is attached to the physical one.
    PhysicalTaken,
    /// The virtual device is not attached.
    NotAttached,
    /// There is no such physical interface, or it is one of ours.
    UnknownPhysical,
    /// `%defaultroute`, and there is no default route.
    NoDefaultRoute,
    /// `%defaultroute`, and several default routes are equally good.
    SeveralDefaultRoutes,
    /// No TUN device.
    Tun(TunError),
    /// No sockets.
    Wire(WireError),
    /// The kernel refused to set the device up.
    Os(Errno),
}

impl AttachError {
    /// The error number a device ioctl would have given (klips.md §3.4).
    pub const fn errno(self) -> Errno {
        match self {
            Self::NotVirtual => Errno::NODEV,
            Self::Attached | Self::PhysicalTaken | Self::Tun(TunError::Busy) => Errno::BUSY,
            Self::NotAttached
            | Self::UnknownPhysical
            | Self::NoDefaultRoute
            | Self::SeveralDefaultRoutes
            | Self::Wire(WireError::NoDevice) => Errno::NXIO,
            Self::Tun(TunError::Missing) => Errno::NOENT,
            Self::Tun(TunError::Unreadable | TunError::Forbidden) | Self::Wire(WireError::Forbidden) => {
                Errno::PERM
            }
            Self::Tun(TunError::Name) => Errno::INVAL,
            Self::Wire(WireError::PortInUse(_)) => Errno::ADDRINUSE,
            Self::Tun(TunError::Os(errno)) | Self::Wire(WireError::Os(errno)) | Self::Os(errno) => errno,
        }
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotVirtual => {
                f.write_str("No such device.  Is the virtual device valid?  It is `ipsec' and a number of at most four digits")
            }
            Self::Attached => f.write_str(
                "Device busy.  The virtual device is already attached to a physical device -- Use detach first.",
            ),
            Self::PhysicalTaken => f.write_str(
                "Device busy.  Another virtual device is attached to that physical device -- Use detach first.",
            ),
            Self::NotAttached => f.write_str("Device requested is not linked to any physical device."),
            Self::UnknownPhysical => f.write_str("No such device.  Is the physical device valid?"),
            Self::NoDefaultRoute => f.write_str("no default route, %defaultroute cannot cope!!!"),
            Self::SeveralDefaultRoutes => f.write_str(
                "multiple default routes with the same metric, %defaultroute cannot choose: name the interface",
            ),
            Self::Tun(error) => error.fmt(f),
            Self::Wire(error) => error.fmt(f),
            Self::Os(errno) => write!(f, "the kernel refused to set the device up: {errno}"),
        }
    }
}

impl std::error::Error for AttachError {}

impl From<TunError> for AttachError {
    fn from(error: TunError) -> Self {
        Self::Tun(error)
    }
}

impl From<WireError> for AttachError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<io::Error> for AttachError {
    fn from(error: io::Error) -> Self {
        Self::Os(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

/// One line of `ipsec tncfg`, and what `--json` says besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `ipsecN`.
    pub name: String,
    /// The physical interface.
    pub physical: String,
    /// Whether the physical interface is there and up.
    pub present: bool,
    /// Whether it is there at all.
    pub physical_there: bool,
    /// Whether the device itself is there.
    pub there: bool,
    /// Whether it is up.
    pub up: bool,
    /// MTU of the device.
    pub mtu: u32,
    /// MTU of the physical interface.
    pub physical_mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Which offloads are in use, by name.
    pub offloads: Vec<&'static str>,
    /// How UDP and raw ESP packets find their worker.
    pub steering: [Steering; 2],
    /// How many workers, each with a queue of the device.
    pub workers: usize,
    /// What workers counted, by name.
    pub counters: Vec<(&'static str, u64)>,
}

struct Attached {
    physical: String,
    physical_link: u32,
    physical_mtu: u32,
    present: bool,
    physical_there: bool,
    /// Index of the device; it is not there while it cannot be made again.
    device: u32,
    there: bool,
    up: bool,
    /// What is routed into it.
    routes: Vec<Route>,
    /// How ESP gets out when the default route leads in, in IPv4 and IPv6.
    ways: [way::Way; 2],
    handle: Handle,
    mtu: u32,
    follow: bool,
    addresses: Vec<IpNet>,
    offloads: Offloads,
    wires: Vec<Arc<Wire>>,
    shared: Arc<Shared>,
    workers: Workers,
}

/// All devices of one daemon.
pub struct Interfaces {
    plane: Arc<Plane>,
    wake: Arc<OwnedFd>,
    ike: IkeSink,
    settings: Settings,
    netlink: Netlink,
    watch: Watch,
    attached: BTreeMap<String, Attached>,
    guard: clear::Keeper,
    /// Addresses of this host that others may answer to.
    own: Vec<IpAddr>,
    leave: bool,
}

/// A device that is up, and who serves it.
struct Raised {
    device: u32,
    mtu: u32,
    offloads: Offloads,
    handle: Handle,
    shared: Arc<Shared>,
    workers: Workers,
}

impl Interfaces {
    /// None yet. `wake` is an eventfd, signalled when control has something to act on; `ike` takes the IKE messages that
    /// come to the UDP port, and is called by workers: it must not block.
    pub fn new(plane: Arc<Plane>, wake: Arc<OwnedFd>, ike: IkeSink, settings: Settings) -> io::Result<Self> {
        let (netlink, watch) = (Netlink::open()?, Watch::open()?);
        let guard = clear::Keeper::new(settings.owner.as_ref());
        let (attached, own) = (BTreeMap::new(), Vec::new());
        Ok(Self { plane, wake, ike, settings, netlink, watch, attached, guard, own, leave: false })
    }

    /// Changes what the next attachments go by; what the packet path goes by also holds for those that are there.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
        for attached in self.attached.values() {
            let link = klips_link(attached.physical_mtu, &self.settings);
            attached.shared.link.store(link);
        }
    }

    /// Packets that were kept for want of an SA have come back ([`Plane::take_returned`]).
    pub fn tell_returned(&self) {
        self.attached.values().for_each(|attached| attached.shared.tell_returned());
    }

    /// Makes the device `name` on top of a physical interface, and starts its workers.
    pub fn attach(&mut self, name: &str, on: &Physical, addresses: &Addresses) -> Result<(), AttachError> {
        if !is_virtual(name) {
            return Err(AttachError::NotVirtual);
        }
        if self.attached.contains_key(name) {
            return Err(AttachError::Attached);
        }
        let physical = self.physical(on)?;
        if self.attached.values().any(|other| other.physical == physical.name) {
            return Err(AttachError::PhysicalTaken);
        }
        let workers = self.settings.worker_count();
        let plan = Plan {
            device: &physical.name,
            port: self.settings.port,
            workers,
            gro: self.settings.receive_merged,
            gso: self.settings.segment,
            steer: self.settings.steer,
            beside: self.settings.share_port,
        };
        let wires: Vec<Arc<Wire>> = Wire::open(&plan)?.into_iter().map(Arc::new).collect();
        let wanted = self.wanted(addresses, physical.index)?;
        let Raised { device, mtu, offloads, handle, shared, workers } =
            self.raise(name, physical.mtu, &wanted, &wires)?;
        let mut attached = Attached {
            physical: physical.name,
            physical_link: physical.index,
            physical_mtu: physical.mtu,
            present: physical.up,
            physical_there: true,
            device,
            there: true,
            up: true,
            routes: keep::routes_into(&mut self.netlink, device)?,
            ways: [way::Way::default(); 2],
            handle,
            mtu,
            follow: *addresses == Addresses::Copy,
            addresses: wanted,
            offloads,
            wires,
            shared,
            workers,
        };
        attached.find_ways(name, &self.settings, &mut self.netlink)?;
        let mut log = Vec::new();
        let all = self.netlink.best_routes()?;
        attached.follow_ways(name, &all, &self.settings, &mut self.netlink, &mut log)?;
        attached.close_beneath(&self.settings, &mut self.netlink)?;
        log.iter().for_each(|line| tracing::info!("{line}"));
        self.attached.insert(name.into(), attached);
        self.look_at_own()?;
        self.say_unguarded();
        self.refuse_clear();
        Ok(())
    }

    /// Makes the device, or takes up the one a daemon before us has left, and starts its workers.
    fn raise(
        &mut self,
        name: &str,
        physical_mtu: u32,
        wanted: &[IpNet],
        wires: &[Arc<Wire>],
    ) -> Result<Raised, AttachError> {
        if let Some(link) = self.netlink.link(name)?
            && !self.settings.owner.as_ref().is_some_and(|owner| owner.owns(&link))
        {
            return Err(TunError::Busy.into());
        }
        let Device { offloads, queues, handle } = Device::create(name, wires.len(), self.settings.offloads)?;
        let device = self.netlink.link(name)?.ok_or(AttachError::Os(Errno::NODEV))?.index;
        if let Some(owner) = &self.settings.owner {
            // The name first: what is kept without one nobody would find again.
            self.netlink.set_alias(device, owner.alias())?;
            handle.keep(true)?;
        }
        let mtu = self.settings.override_mtu.unwrap_or_else(|| device_mtu(physical_mtu));
        self.netlink.set_mtu(device, mtu)?;
        self.netlink.set_queue_len(device, QUEUE)?;
        // A kernel that refuses hands over larger ones, which are cut all the same.
        let _ = self.netlink.set_gso_max_segs(device, Sealed::SEGMENTS);
        // Without IPv6 in the kernel there is nothing to keep it from.
        let _ = self.netlink.set_no_link_local(device);
        for net in wanted {
            self.netlink.add_address(device, *net)?;
        }
        let had = self.netlink.addresses(Some(device))?;
        let had: Vec<IpNet> = had.into_iter().map(|address| address.net).collect();
        let stay = keep_family(wanted.to_vec(), &had);
        for gone in had.iter().filter(|net| !stay.contains(net)) {
            self.netlink.remove_address(device, *gone)?;
        }
        self.netlink.set_up(device, true)?;
        let link = klips_link(physical_mtu, &self.settings);
        let mut shared =
            Shared::new(Arc::clone(&self.plane), Arc::clone(&self.wake), Arc::clone(&self.ike), link)?;
        shared.offloads = offloads;
        shared.merge_tcp = self.settings.merge_tcp;
        shared.merge_udp = self.settings.merge_udp;
        let shared = Arc::new(shared);
        let workers = Workers::start(name, &shared, queues, wires, self.settings.shape)?;
        Ok(Raised { device, mtu, offloads, handle, shared, workers })
    }

    /// Stops the workers of a device and removes it.
    pub fn detach(&mut self, name: &str) -> Result<(), AttachError> {
        if !is_virtual(name) {
            return Err(AttachError::NotVirtual);
        }
        let attached = self.attached.remove(name).ok_or(AttachError::NotAttached)?;
        attached.remove_ways(name, &self.settings, &mut self.netlink);
        attached.open_beneath(&self.settings, &mut self.netlink);
        self.refuse_clear();
        Ok(())
    }

    /// Detaches all.
    pub fn clear(&mut self) {
        for (name, attached) in std::mem::take(&mut self.attached) {
            attached.remove_ways(&name, &self.settings, &mut self.netlink);
            attached.open_beneath(&self.settings, &mut self.netlink);
        }
        self.refuse_clear();
    }

    /// From now on the devices stay, closed, when this is dropped.
    pub const fn leave(&mut self) {
        self.leave = true;
    }

    /// Whether none is attached.
    pub fn is_empty(&self) -> bool {
        self.attached.is_empty()
    }

    /// All attached devices, by name.
    pub fn list(&self) -> Vec<Status> {
        self.attached.iter().map(|(name, attached)| attached.status(name)).collect()
    }

    /// Readable when links or addresses have changed: call [`Interfaces::follow`].
    pub fn changes(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// Follows what happened to the interfaces: gone, back, another MTU, other addresses, other routes. Returns one line for
    /// the log for each change, or `None` if nothing that happened can be of interest.
    pub fn follow(&mut self) -> io::Result<Option<Vec<String>>> {
        let attached = &self.attached;
        let heard = self.watch.take(|route| attached.values().any(|attached| attached.cares_for(route)));
        if !heard.any() {
            return Ok(None);
        }
        let mut log = Vec::new();
        let links = self.netlink.links()?;
        for name in self.attached.keys().cloned().collect::<Vec<_>>() {
            self.follow_device(&name, &links, &mut log)?;
        }
        let all = self.netlink.best_routes()?;
        for (name, attached) in &mut self.attached {
            let found = links.iter().find(|link| link.name == attached.physical);
            let routes = attached.routes.clone();
            attached.follow_link(name, found, &self.settings, &mut self.netlink, &mut log)?;
            attached.shared.link.store(klips_link(attached.physical_mtu, &self.settings));
            // Before what drops is laid beneath a route that leads to a peer.
            attached.follow_ways(name, &all, &self.settings, &mut self.netlink, &mut log)?;
            if attached.there {
                attached.follow_routes(&heard, routes, &self.settings, &mut self.netlink)?;
            }
        }
        self.look_at_own()?;
        log.extend(self.give_sources()?);
        self.refuse_clear();
        Ok(Some(log))
    }

    fn look_at_own(&mut self) -> io::Result<()> {
        let all = self.netlink.addresses(None)?;
        let others =
            all.into_iter().filter(|address| !address.link_local && !address.net.addr().is_loopback());
        self.own = others.map(|address| address.net.addr()).collect();
        Ok(())
    }

    /// Every address of this host in this namespace: what "mine" means to PF_KEY.
    pub fn local_addresses(&mut self) -> io::Result<Vec<IpAddr>> {
        Ok(self.netlink.addresses(None)?.into_iter().map(|address| address.net.addr()).collect())
    }

    /// The directed broadcast addresses of the networks of this namespace. Networks of one or two hosts have none
    /// (RFC 3021).
    pub fn broadcast_addresses(&mut self) -> io::Result<Vec<Ipv4Addr>> {
        let wide = |net: IpNet| match net {
            IpNet::V4(net) => (net.prefix_len() < 31).then(|| net.broadcast()),
            IpNet::V6(_) => None,
        };
        Ok(self.netlink.addresses(None)?.into_iter().filter_map(|address| wide(address.net)).collect())
    }

    /// Sends a datagram from the UDP port of the interface that has the address `from`, or else of the first one.
    pub fn send_udp(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let any = from.ip().is_unspecified();
        let has = |attached: &&Attached| any || attached.addresses.iter().any(|net| net.addr() == from.ip());
        let attached = self.attached.values().find(has).or_else(|| self.attached.values().next());
        let wire = attached.and_then(|attached| attached.wires.first()).ok_or(io::ErrorKind::NotConnected)?;
        if from.port() != wire.port() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        wire.send_udp((!any).then_some(from.ip()), to, payload)
    }

    fn physical(&mut self, on: &Physical) -> Result<Link, AttachError> {
        let links = self.netlink.links()?;
        match on {
            Physical::Name(name) => links
                .into_iter()
                .find(|link| link.name == *name && !self.attached.contains_key(name))
                .ok_or(AttachError::UnknownPhysical),
            Physical::DefaultRoute => {
                let index = best_default(&self.netlink.default_routes()?)?;
                links.into_iter().find(|link| link.index == index).ok_or(AttachError::UnknownPhysical)
            }
        }
    }

    fn wanted(&mut self, addresses: &Addresses, physical: u32) -> io::Result<Vec<IpNet>> {
        match addresses {
            Addresses::Copy => global_addresses(&mut self.netlink, physical),
            Addresses::Given(given) => Ok(given.clone()),
        }
    }
}

impl Drop for Interfaces {
    fn drop(&mut self) {
        if !self.leave {
            self.clear();
        }
    }
}

impl Attached {
    fn follow_link(
        &mut self,
        name: &str,
        found: Option<&Link>,
        settings: &Settings,
        netlink: &mut Netlink,
        log: &mut Vec<String>,
    ) -> io::Result<()> {
        let physical = &self.physical;
        let Some(link) = found else {
            if self.physical_there {
                (self.present, self.physical_there) = (false, false);
                log.push(format!("{name}: {physical} has gone; waiting for it to come back"));
            }
            return Ok(());
        };
        self.physical_there = true;
        if link.index != self.physical_link {
            // Sockets are bound to an index, and the name has a new one.
            for wire in &self.wires {
                wire.rebind(physical)?;
            }
            self.physical_link = link.index;
            log.push(format!("{name}: attached to {physical} again"));
        }
        if link.up != self.present {
            self.present = link.up;
            log.push(format!("{name}: {physical} is {}", if link.up { "up" } else { "down" }));
        }
        if link.mtu != self.physical_mtu {
            self.physical_mtu = link.mtu;
            if settings.override_mtu.is_none() && self.there {
                self.mtu = device_mtu(link.mtu);
                netlink.set_mtu(self.device, self.mtu)?;
            }
            log.push(format!("{name}: MTU of {physical} is {}, ours {}", link.mtu, self.mtu));
        }
        // An interface that went away, or down, takes its addresses along; ours wait for its return.
        if self.follow && self.present && self.there {
            self.follow_addresses(name, netlink, log)?;
        }
        Ok(())
    }

    fn follow_addresses(
        &mut self,
        name: &str,
        netlink: &mut Netlink,
        log: &mut Vec<String>,
    ) -> io::Result<()> {
        let now = global_addresses(netlink, self.physical_link)?;
        let now = keep_family(now, &self.addresses);
        if now == self.addresses {
            return Ok(());
        }
        // New ones first: with the last address of a family the kernel takes the device's routes of that family, and what
        // they led into the tunnel would leave in clear.
        for new in now.iter().filter(|net| !self.addresses.contains(net)) {
            netlink.add_address(self.device, *new)?;
        }
        for gone in self.addresses.iter().filter(|net| !now.contains(net)) {
            netlink.remove_address(self.device, *gone)?;
        }
        let list: Vec<String> = now.iter().map(ToString::to_string).collect();
        log.push(format!("{name}: addresses are now {}", list.join(" ")));
        self.addresses = now;
        Ok(())
    }

    fn status(&self, name: &str) -> Status {
        let sum = |count: &dyn Fn(&Tally) -> u64| {
            self.workers.tallies.iter().fold(0_u64, |sum, tally| sum.wrapping_add(count(tally)))
        };
        let refused =
            [sum(&|tally| tally.refused_tcp.load(Relaxed)), sum(&|tally| tally.refused_udp.load(Relaxed))];
        let steering = self.wires.first().map_or([Steering::Alone; 2], |wire| wire.steering());
        let others = [
            ("udp_segment", self.wires.iter().all(|wire| wire.segments())),
            ("udp_gro", self.wires.iter().all(|wire| wire.merges())),
            ("merge_tcp", self.shared.merge_tcp && refused[0] == 0),
            ("merge_udp", self.shared.merge_udp && refused[1] == 0),
            ("steer", steering == [Steering::Spi; 2]),
        ];
        let used = others.into_iter().filter_map(|(word, used)| used.then_some(word));
        let offloads = self.offloads.names().chain(used).collect();
        let unsegmented =
            self.wires.iter().fold(0_u64, |sum, wire| sum.wrapping_add(wire.unsegmented.load(Relaxed)));
        Status {
            name: name.into(),
            physical: self.physical.clone(),
            present: self.present,
            physical_there: self.physical_there,
            there: self.there,
            up: self.up,
            mtu: self.mtu,
            physical_mtu: self.physical_mtu,
            addresses: self.addresses.clone(),
            offloads,
            steering,
            workers: self.wires.len(),
            counters: vec![
                ("device_reads", sum(&|tally| tally.reads.load(Relaxed))),
                ("device_writes", sum(&|tally| tally.writes.load(Relaxed))),
                ("device_refused_merged", refused[0].wrapping_add(refused[1])),
                ("datagrams_received", sum(&|tally| tally.datagrams.load(Relaxed))),
                ("receive_calls", sum(&|tally| tally.receives.load(Relaxed))),
                ("runs_not_segmented", unsegmented),
            ],
        }
    }
}

fn is_virtual(name: &str) -> bool {
    name.strip_prefix("ipsec").is_some_and(|number| {
        !number.is_empty() && number.len() <= 4 && number.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// `routes` are default routes, the best one first.
fn best_default(routes: &[Route]) -> Result<u32, AttachError> {
    let best = routes.first().ok_or(AttachError::NoDefaultRoute)?;
    let equal =
        |other: &Route| other.metric == best.metric && other.dst == best.dst && other.link != best.link;
    if routes.iter().any(equal) {
        return Err(AttachError::SeveralDefaultRoutes);
    }
    best.link.ok_or(AttachError::NoDefaultRoute)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_WORKERS))
}

fn device_mtu(physical: u32) -> u32 {
    physical.saturating_sub(OVERHEAD).max(LEAST_MTU.min(physical))
}

fn global_addresses(netlink: &mut Netlink, link: u32) -> io::Result<Vec<IpNet>> {
    let all = netlink.addresses(Some(link))?;
    let global = all.into_iter().filter(|address| !address.link_local && !address.net.addr().is_loopback());
    Ok(global.map(|address| address.net).collect())
}

/// The addresses to have: those there are `now`, and of a family that has none the ones before, until it has others.
fn keep_family(now: Vec<IpNet>, before: &[IpNet]) -> Vec<IpNet> {
    let missing = |v4: bool| !now.iter().any(|net| net.addr().is_ipv4() == v4);
    let (no_v4, no_v6) = (missing(true), missing(false));
    let kept = before.iter().filter(|net| if net.addr().is_ipv4() { no_v4 } else { no_v6 });
    let kept: Vec<IpNet> = kept.copied().collect();
    now.into_iter().chain(kept).collect()
}

fn klips_link(mtu: u32, settings: &Settings) -> klips::Link {
    klips::Link {
        mtu: usize::try_from(mtu).unwrap_or(usize::MAX),
        // All addresses we have are the host's own: it would not listen to them.
        icmp_source4: None,
        icmp_source6: None,
        hide_tos: settings.hide_tos,
        frag_icmp: settings.frag_icmp,
        copy_df: settings.copy_df,
    }
}

#[cfg(test)]
mod tests;
