//! The source of the gateway's own packets into a tunnel, its ICMP errors first of all.
//!
//! A device has the addresses of the physical interface, and to a route that names no source the kernel gives the first of
//! them. No eroute from one network to another matches that. Such a route gets an address of this host that lies in a network
//! its policy protects, if there is one.

use super::super::netlink::Route;
use super::Interfaces;
use ipnet::IpNet;
use ipsec_core::Flow;
use klips::{Action, Eroute, Eroutes};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

/// With more eroutes than these only those are asked that match all of a route's destinations.
const FEW: usize = 4096;

impl Interfaces {
    /// Gives each route into a device that names no source the one it needs. Returns lines for the log.
    pub(super) fn give_sources(&mut self) -> io::Result<Vec<String>> {
        let mut log = Vec::new();
        for (name, attached) in &mut self.attached {
            if attached.routes.iter().all(|route| route.src.is_some()) {
                continue;
            }
            let plain: Vec<IpAddr> = attached.addresses.iter().map(IpNet::addr).collect();
            // Once for all routes: of many eroutes few are for an address of this host.
            let nets = protected(&self.plane.eroutes(), plain.iter().chain(&self.own));
            for route in attached.routes.iter_mut().filter(|route| route.src.is_none()) {
                let source = source(&self.plane.eroutes(), &nets, route, &plain, &self.own);
                let Some(source) = source else { continue };
                if self.netlink.give_source(route, source)? {
                    route.src = Some(source);
                    log.push(format!("{name}: packets of this host to {} carry {source}", route.dst));
                }
            }
        }
        Ok(log)
    }
}

/// What policy protects between one of these addresses and others: source and destination.
fn protected<'a>(
    eroutes: &Eroutes,
    addresses: impl Iterator<Item = &'a IpAddr> + Clone,
) -> Vec<(IpNet, IpNet)> {
    let all = if eroutes.len() <= FEW { eroutes.list() } else { Vec::new() };
    let ours = |eroute: &&Arc<Eroute>| {
        protects(eroute) && addresses.clone().any(|address| eroute.selector.src.contains(address))
    };
    all.iter().filter(ours).map(|eroute| (eroute.selector.src, eroute.selector.dst)).collect()
}

/// The source a route needs: none if policy protects one the device has.
fn source(
    eroutes: &Eroutes,
    nets: &[(IpNet, IpNet)],
    route: &Route,
    plain: &[IpAddr],
    own: &[IpAddr],
) -> Option<IpAddr> {
    let overlaps = |net: &IpNet| net.contains(&route.dst) || route.dst.contains(net);
    let protected = |src: IpAddr| {
        let flow = Flow { src, dst: route.dst.network(), proto: 0, sport: 0, dport: 0 };
        eroutes.lookup(&flow).is_some_and(|eroute| protects(eroute))
            || nets.iter().any(|(from, to)| from.contains(&src) && overlaps(to))
    };
    if eroutes.is_empty() || plain.iter().copied().any(protected) {
        return None;
    }
    own.iter().copied().find(|src| src.is_ipv4() == route.dst.addr().is_ipv4() && protected(*src))
}

fn protects(eroute: &Eroute) -> bool {
    matches!(eroute.action, Action::Protect(_)) || eroute.action.waits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec_core::Selector;

    #[test]
    fn a_source_is_one_that_policy_protects_and_only_where_the_device_has_none() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        let net = |text: &str| text.parse::<IpNet>().expect("net");
        let mut eroutes = Eroutes::default();
        let outer = [ip("192.0.2.7")];
        let own = ["192.0.2.7", "172.16.0.1", "10.1.0.1", "10.3.0.1", "fd00:1::1"].map(ip);
        let asked = |eroutes: &Eroutes, dst: &str| {
            let route = Route { dst: net(dst), via: None, link: Some(9), src: None, metric: 0 };
            source(eroutes, &protected(eroutes, outer.iter().chain(&own)), &route, &outer, &own)
        };
        assert_eq!(asked(&eroutes, "10.2.0.0/16"), None);
        for (src, dst, action) in [
            ("10.1.0.0/16", "10.2.0.0/16", Action::Trap),
            ("10.3.0.0/16", "10.4.5.0/24", Action::Hold),
            ("172.16.0.0/12", "10.6.0.0/16", Action::Pass),
            ("192.0.2.7/32", "10.5.0.0/16", Action::Trap),
            ("10.1.0.0/16", "10.5.0.0/16", Action::Trap),
            ("fd00:1::/32", "fd00:2::/32", Action::Trap),
        ] {
            eroutes.add(Eroute::new(Selector::nets(net(src), net(dst)), action)).expect("new");
        }
        assert_eq!(asked(&eroutes, "10.2.0.0/16"), Some(ip("10.1.0.1")));
        // Part of what is routed, more than what is routed.
        assert_eq!(asked(&eroutes, "10.4.0.0/16"), Some(ip("10.3.0.1")));
        assert_eq!(asked(&eroutes, "10.2.3.0/24"), Some(ip("10.1.0.1")));
        assert_eq!(asked(&eroutes, "10.6.0.0/16"), None, "what passes needs none");
        assert_eq!(asked(&eroutes, "10.5.0.0/16"), None, "what the kernel takes is protected");
        assert_eq!(asked(&eroutes, "fd00:2::/48"), Some(ip("fd00:1::1")));
    }
}
