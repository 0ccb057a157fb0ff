//! The way of ESP out of the physical interface when the default route leads into the tunnel.
//!
//! Our sockets are bound to the physical interface and pass the routes into devices. But where the one default route has been
//! put in the place of the one that led out, nothing is left to pass it by: the kernel would take every peer for a neighbour
//! on the link, and ESP would be lost without a word. Then the default route there was goes on, for sockets that are bound to
//! that interface and for nobody else: nothing in clear gets out by it that was not sent that way on purpose.

use super::super::netlink::{Netlink, Route};
use super::{Attached, Settings};
use std::io;

/// Numbers of our tables begin here: one for each mark and device.
const TABLES: u32 = 450_000;

/// What is known of one family's way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    /// The default route out of the physical interface, as it was last seen.
    known: Option<Route>,
    /// Whether it is kept beside the main table.
    kept: bool,
    /// It has been said that there is none.
    said: bool,
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
                if let Some(way) = self.ways.get_mut(family) {
                    (way.known, way.kept) = (Some(route), true);
                }
            }
        }
        Ok(())
    }

    /// Keeps the way out as long as it is needed; `defaults` are the default routes there are, the best first.
    pub(super) fn follow_ways(
        &mut self,
        name: &str,
        defaults: &[Route],
        settings: &Settings,
        netlink: &mut Netlink,
        log: &mut Vec<String>,
    ) -> io::Result<()> {
        let Some(owner) = &settings.owner else { return Ok(()) };
        let (table, protocol) = (table(name, owner.protocol()), owner.protocol());
        for (way, v6) in self.ways.iter_mut().zip([false, true]) {
            let of = |link: u32| {
                let leads = |route: &&Route| route.link == Some(link) && route.dst.addr().is_ipv6() == v6;
                defaults.iter().find(leads).copied()
            };
            let (out, into) = (of(self.physical_link), of(self.device));
            if let Some(out) = out {
                way.known = Some(Route { metric: 0, src: None, ..out });
                way.said = false;
            }
            let needed = out.is_none() && into.is_some();
            match (needed, way.known) {
                (true, Some(known)) if !way.kept => {
                    netlink.add_way(&self.physical, &known, table, protocol)?;
                    way.kept = true;
                    let via = known.via.map_or_else(String::new, |via| format!(" by {via}"));
                    log.push(format!(
                        "{name}: the default route leads into it; ESP still leaves {}{via}",
                        self.physical
                    ));
                }
                (true, None) if !way.said => {
                    way.said = true;
                    log.push(format!(
                        "{name}: the default route leads into it and none out of {}: ESP reaches peers on the link only",
                        self.physical
                    ));
                }
                (false, Some(known)) if way.kept => {
                    netlink.remove_way(&self.physical, &known, table, protocol)?;
                    way.kept = false;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The device goes for good.
    pub(super) fn remove_ways(&self, name: &str, settings: &Settings, netlink: &mut Netlink) {
        let Some(owner) = &settings.owner else { return };
        for way in self.ways.iter().filter(|way| way.kept) {
            if let Some(known) = &way.known {
                let _ = netlink.remove_way(
                    &self.physical,
                    known,
                    table(name, owner.protocol()),
                    owner.protocol(),
                );
            }
        }
    }
}
