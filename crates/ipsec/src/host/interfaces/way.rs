//! The way of ESP and IKE out of the physical interface, past what leads into the tunnel.
//!
//! Our sockets are bound to the physical interface, and the kernel passes routes out of others for them. But not those that drop,
//! which lie beneath the routes into devices, so that a peer whose own address is protected (host to host, or a gateway in a
//! network that is reached through the tunnel) would be taken for a neighbour on the link, and ESP be lost without a word. The
//! same where the one default route has been put in the place of the one that led out. And what a router says in IPv6 of a
//! path that is narrower the kernel would note with the route into the device.
//!
//! So what leads out of the physical interface is there once more, in a table that only sockets bound to that interface look at:
//! nothing in clear gets out by it that was not sent that way on purpose.

use super::super::netlink::{Netlink, Route};
use super::keep::{is_closed, is_kept};
use super::{Attached, Settings};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Numbers of our tables begin here: one for each mark and device.
const TABLES: u32 = 450_000;

/// What has been said of a default route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Said {
    /// Nothing: it leads out, or there is none.
    #[default]
    Nothing,
    /// It leads in, and ESP goes out by the one before.
    Kept,
    /// It leads in, and no other is known.
    Lost,
}

/// What is known of one family's way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    /// The default route out of the physical interface, as it was last seen.
    known: Option<Route>,
    /// What has been said of a default route that leads in.
    said: Said,
}

fn table(name: &str, protocol: u8) -> u32 {
    let number: u32 = name.trim_start_matches("ipsec").parse().unwrap_or(0);
    TABLES + u32::from(protocol) * 10_000 + number
}

impl Attached {
    /// Takes up what a daemon before us has left.
    pub(super) fn find_ways(
        &mut self,
        name: &str,
        settings: &Settings,
        netlink: &mut Netlink,
    ) -> io::Result<()> {
        let Some(owner) = &settings.owner else { return Ok(()) };
        for (number, route) in netlink.ways(owner.protocol())? {
            if number == table(name, owner.protocol()) && route.link == Some(self.physical_link) {
                let family = usize::from(route.dst.addr().is_ipv6());
                if let Some(way) = self.ways.get_mut(family).filter(|_| route.dst.prefix_len() == 0) {
                    way.known = Some(route);
                }
            }
        }
        Ok(())
    }

    /// Keeps the way out as long as it is needed; `routes` are all there are, the best first.
    pub(super) fn follow_ways(
        &mut self,
        name: &str,
        routes: &[Route],
        settings: &Settings,
        netlink: &mut Netlink,
        log: &mut Vec<String>,
    ) -> io::Result<()> {
        let Some(owner) = &settings.owner else { return Ok(()) };
        let (table, protocol) = (table(name, owner.protocol()), owner.protocol());
        let (device, physical) = (self.device, self.physical_link);
        let mut wanted: Vec<Route> = Vec::new();
        for (way, v6) in self.ways.iter_mut().zip([false, true]) {
            let of = |link: u32| {
                let leads = move |route: &&Route| route.link == Some(link) && is_v6(route) == v6;
                routes.iter().filter(leads).copied()
            };
            let default = |route: &Route| route.dst.prefix_len() == 0;
            let out = of(physical).find(default);
            way.known = out.map(|out| Route { src: None, ..out }).or(way.known);
            let leads_in = out.is_none() && of(device).any(|route| default(&route));
            way.say(leads_in, name, &self.physical, log);
            if !leads_in && !of(device).any(|route| is_kept(route.dst) && is_closed(route.dst)) {
                continue;
            }
            let known = way.known.filter(|_| leads_in);
            for route in of(physical).filter(|route| is_kept(route.dst)).chain(known) {
                // Of several next hops the first.
                if !wanted.iter().any(|other| (other.dst, other.metric) == (route.dst, route.metric)) {
                    wanted.push(Route { src: None, ..route });
                }
            }
        }
        let mut there: Vec<Route> = netlink
            .ways(protocol)?
            .into_iter()
            .filter(|(n, _)| *n == table)
            .map(|(_, route)| route)
            .collect();
        // Those that gateways are reached by first.
        wanted.sort_by_key(|route| route.via.is_some());
        for route in wanted.iter().filter(|route| !there.contains(route)) {
            // What it does not take the main table still has.
            if let Err(error) = netlink.add_way(&self.physical, route, table, protocol) {
                tracing::debug!("{name}: the way to {} out of {}: {error}", route.dst, self.physical);
            }
        }
        there.retain(|route| !wanted.contains(route));
        self.remove_from(&there, &wanted, (table, protocol), netlink)
    }

    /// Removes routes of the table, and the rules of families that have none left.
    fn remove_from(
        &self,
        gone: &[Route],
        left: &[Route],
        (table, protocol): (u32, u8),
        netlink: &mut Netlink,
    ) -> io::Result<()> {
        for route in gone {
            // One with the same destination and metric has taken its place.
            let replaced = |other: &Route| (other.dst, other.metric) == (route.dst, route.metric);
            if !left.iter().any(replaced) {
                netlink.remove_way(route, table, protocol)?;
            }
            if !left.iter().any(|other| is_v6(other) == is_v6(route)) {
                netlink.remove_way_rule(&self.physical, route.dst.addr(), table, protocol)?;
            }
        }
        Ok(())
    }

    /// The device goes for good.
    pub(super) fn remove_ways(&self, name: &str, settings: &Settings, netlink: &mut Netlink) {
        let Some(owner) = &settings.owner else { return };
        let (table, protocol) = (table(name, owner.protocol()), owner.protocol());
        let there = netlink.ways(protocol).unwrap_or_default();
        let there: Vec<Route> =
            there.into_iter().filter(|(n, _)| *n == table).map(|(_, route)| route).collect();
        let _ = self.remove_from(&there, &[], (table, protocol), netlink);
        // Where the kernel has taken the routes before us, too.
        for family in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let _ = netlink.remove_way_rule(&self.physical, family, table, protocol);
        }
    }
}

impl Way {
    /// Says once what becomes of ESP where the default route leads in.
    fn say(&mut self, leads_in: bool, name: &str, physical: &str, log: &mut Vec<String>) {
        let now = match self.known {
            _ if !leads_in => Said::Nothing,
            Some(_) => Said::Kept,
            None => Said::Lost,
        };
        let before = std::mem::replace(&mut self.said, now);
        if before == now {
            return;
        }
        match (now, self.known.and_then(|known| known.via)) {
            (Said::Nothing, _) => {}
            (Said::Kept, via) => {
                let via = via.map_or_else(String::new, |via| format!(" by {via}"));
                log.push(format!("{name}: the default route leads into it; ESP still leaves {physical}{via}"));
            }
            (Said::Lost, _) => log.push(format!(
                "{name}: the default route leads into it and none out of {physical}: ESP reaches peers on the link only"
            )),
        }
    }
}

fn is_v6(route: &Route) -> bool {
    route.dst.addr().is_ipv6()
}
