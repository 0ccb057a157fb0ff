//! What keeps protected traffic in when a daemon, its device or an address is gone.
//!
//! A device that has an owner is kept by the kernel when its daemon dies, with its addresses and routes, and drops what it is
//! given. Beneath every route into it lies one that drops, the next in line when the route goes with its device or its source
//! address. Both carry a mark of the run directory, so that `ipsec setup stop` finds them without the daemon and takes them away.

use super::super::guard;
use super::super::netlink::{Heard, Link, Netlink, Route};
use super::{Attached, Interfaces, LEAST_MTU, Raised, Settings};
use ipnet::IpNet;
use std::io;
use std::path::Path;

/// How the names of our tables of nf_tables begin.
pub const TABLE: &str = "tulips_";

/// Who keeps a device: the run directory of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    alias: String,
    protocol: u8,
}

impl Mark {
    /// The mark of the instance with this run directory.
    pub fn new(rundir: &Path) -> Self {
        let name = rundir.to_string_lossy();
        // FNV-1a: the same in every version of ours, for what an older one has left.
        let hash = name
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193));
        let tail: String = name.chars().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect();
        // Numbers that no routing daemon is known by (rt_protos).
        let protocol = 96 + u8::try_from(hash % 64).unwrap_or(0);
        Self { alias: format!("tulips {hash:08x} {tail}"), protocol }
    }

    /// What marks routes and rules as ours (`rtm_protocol`).
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The table of nf_tables that refuses what comes in clear ([`crate::host::guard`]).
    pub fn table(&self) -> String {
        let hash = self.alias.split(' ').nth(1).unwrap_or_default();
        format!("{TABLE}{hash}")
    }

    /// What `ip link` shows of it.
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// Whether the device is one that we or a daemon before us made.
    pub fn owns(&self, link: &Link) -> bool {
        link.alias.as_ref() == Some(&self.alias)
    }

    /// Removes devices that nobody holds, and with `all` the routes beneath and the guard as well.
    pub fn remove_left(&self, all: bool) -> io::Result<()> {
        let mut netlink = Netlink::open()?;
        for link in netlink.links()?.iter().filter(|link| self.owns(link) && !link.carrier) {
            netlink.remove_link(link.index)?;
        }
        if all {
            guard::remove(&self.table())?;
            netlink.remove_ways(self.protocol)?;
            for (dst, metric) in netlink.blackholes(self.protocol)? {
                netlink.remove_blackhole(dst, metric, self.protocol)?;
            }
        }
        Ok(())
    }
}

/// What is routed into a device.
pub(super) fn routes_into(netlink: &mut Netlink, device: u32) -> io::Result<Vec<Route>> {
    let mut routes = netlink.routes()?;
    routes.retain(|route| route.link == Some(device) && is_kept(route.dst));
    Ok(routes)
}

/// Not what every interface has for itself.
pub(super) fn is_kept(dst: IpNet) -> bool {
    let own = match dst {
        IpNet::V4(net) => net.network().is_multicast(),
        IpNet::V6(net) => net.network().is_multicast() || net.network().is_unicast_link_local(),
    };
    !own
}

/// Whether a route that drops may lie beneath. One for everything, or for half of it, would also stop ESP itself, which looks
/// for its way past the route into the device.
pub(super) fn is_closed(dst: IpNet) -> bool {
    dst.prefix_len() > 1
}

impl Interfaces {
    /// A device that was removed is made again, one that was renamed gets its name back, one that was down its addresses.
    pub(super) fn follow_device(
        &mut self,
        name: &str,
        links: &[Link],
        log: &mut Vec<String>,
    ) -> io::Result<()> {
        let Some(attached) = self.attached.get_mut(name) else { return Ok(()) };
        if let Some(link) = links.iter().find(|link| link.index == attached.device) {
            if link.name != name {
                let done = self.netlink.rename(link.index, name);
                let what = done.map_or_else(|error| format!("which stays: {error}"), |()| "and back".into());
                log.push(format!("{name}: was renamed to {}, {what}", link.name));
            }
            if link.up {
                // The kernel takes IPv6 addresses from what is down, and what was down for a moment has not been seen to be.
                let has = self.netlink.addresses(Some(attached.device))?;
                // It takes IPv6 off what is too narrow for it.
                let possible = |net: &IpNet| net.addr().is_ipv4() || link.mtu >= LEAST_MTU;
                let missing = |net: &&IpNet| possible(net) && !has.iter().any(|address| address.net == **net);
                for net in attached.addresses.iter().filter(missing) {
                    self.netlink.add_address(attached.device, *net)?;
                }
            }
            if link.up != attached.up {
                log.push(format!("{name}: is {}", if link.up { "up" } else { "down" }));
            }
            attached.up = link.up;
            if link.mtu != attached.mtu {
                // Somebody has set it by hand.
                attached.mtu = link.mtu;
                log.push(format!("{name}: MTU is now {}", link.mtu));
            }
            return Ok(());
        }
        if attached.there {
            attached.there = false;
            log.push(format!("{name}: the device was removed; making it again"));
        }
        let (mtu, addresses) = (attached.physical_mtu, attached.addresses.clone());
        let wires = attached.wires.clone();
        let raised = self.raise(name, mtu, &addresses, &wires);
        let Some(attached) = self.attached.get_mut(name) else { return Ok(()) };
        match raised {
            Ok(Raised { device, mtu, offloads, handle, shared, workers }) => {
                // The old workers end here.
                (attached.device, attached.mtu, attached.offloads) = (device, mtu, offloads);
                (attached.handle, attached.shared, attached.workers) = (handle, shared, workers);
                (attached.there, attached.up) = (true, true);
                log.push(format!("{name}: is there again"));
            }
            Err(error) => log.push(format!("{name}: cannot be made again: {error}")),
        }
        Ok(())
    }
}

/// Whether both cannot be there at once.
fn same_place(one: &Route, other: &Route) -> bool {
    (one.dst, one.metric) == (other.dst, other.metric)
}

impl Attached {
    /// Whether something of a route changes what is to be done: one into the device, one in the place of such, or the way out.
    pub(super) fn cares_for(&self, route: &Route) -> bool {
        route.link == Some(self.device)
            || self.routes.iter().any(|known| same_place(known, route))
            || (route.link == Some(self.physical_link) && route.dst.prefix_len() == 0)
    }

    /// Routes that somebody took away or replaced are gone; those the kernel took along with an address or the device are put
    /// back.
    pub(super) fn follow_routes(
        &mut self,
        heard: &Heard,
        before: Vec<Route>,
        settings: &Settings,
        netlink: &mut Netlink,
    ) -> io::Result<()> {
        self.routes = before;
        let all = if self.up { netlink.routes()? } else { Vec::new() };
        let into = |route: &&Route| route.link == Some(self.device) && is_kept(route.dst);
        let now: Vec<Route> = all.iter().filter(into).copied().collect();
        // The kernel says of routes it takes along as much as of those that somebody takes: nothing can be learnt then.
        if self.up && !heard.changed {
            for (came, route) in heard.routes.iter().filter(|(_, route)| route.link == Some(self.device)) {
                if !came && !now.contains(route) {
                    self.routes.retain(|known| known != route);
                    self.remove_beneath(route, settings, netlink)?;
                }
            }
        }
        if self.up {
            // One that somebody has put in the place of ours is said, and of ours nothing is.
            let put = |known: &Route| {
                let other = |route: &Route| same_place(known, route) && route.link != Some(self.device);
                heard.routes.iter().any(|(came, route)| *came && other(route)) && all.iter().any(other)
            };
            let there = |known: &Route| now.iter().any(|route| same_place(known, route));
            let (replaced, stay): (Vec<Route>, _) =
                self.routes.iter().copied().partition(|known| put(known) && !there(known));
            self.routes = stay;
            replaced.iter().try_for_each(|route| self.remove_beneath(route, settings, netlink))?;
        }
        if self.up {
            for route in &mut self.routes {
                route.link = Some(self.device);
                if now.iter().any(|there| same_place(there, route)) {
                    continue;
                }
                if netlink.add_route(route).is_err() {
                    // Its source may be what has gone.
                    route.src = None;
                    netlink.add_route(route)?;
                }
            }
        }
        let mut all = now;
        all.extend(self.routes.iter().copied());
        let mut routes: Vec<Route> = Vec::new();
        for route in all {
            if !routes.iter().any(|known| same_place(known, &route)) {
                routes.push(route);
            }
        }
        self.routes = routes;
        self.close_beneath(settings, netlink)
    }

    /// Lays a route that drops beneath each route into the device.
    pub(super) fn close_beneath(&mut self, settings: &Settings, netlink: &mut Netlink) -> io::Result<()> {
        let Some(owner) = &settings.owner else { return Ok(()) };
        for route in self.routes.iter().filter(|route| is_closed(route.dst)) {
            netlink.add_blackhole(route.dst, route.metric.saturating_add(1), owner.protocol)?;
        }
        Ok(())
    }

    fn remove_beneath(&self, route: &Route, settings: &Settings, netlink: &mut Netlink) -> io::Result<()> {
        let Some(owner) = &settings.owner else { return Ok(()) };
        netlink.remove_blackhole(route.dst, route.metric.saturating_add(1), owner.protocol)
    }

    /// The device goes for good, and nothing of it stays closed.
    pub(super) fn open_beneath(self, settings: &Settings, netlink: &mut Netlink) {
        for route in &self.routes {
            let _ = self.remove_beneath(route, settings, netlink);
        }
        let _ = self.handle.keep(false);
    }
}
