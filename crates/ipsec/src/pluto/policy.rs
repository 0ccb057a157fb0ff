//! What is installed for which connection: pairs of SAs, eroutes, routes, and the program that is told of it.
//!
//! Once a connection's policy is there it stays until the connection is unrouted or deleted, whether SAs are there or not:
//! what it protects is held or dropped, and never leaves in clear.

mod account;
mod holders;
mod hosts;
mod pairs;
#[cfg(test)]
mod tests;

use super::journal::{self, Change, Journal};
use super::kernel::{Carried, Installed, Kernel, KernelError};
use super::resolver::Resolver;
use super::updown::{Runner, Told};
use crate::conf::connection::{Auto, Planned};
use crate::ctl::Client;
use crate::host::netlink::{Netlink, Route};
use crate::rundir::Rundir;
use crate::table::{Form, Table};
use account::Accounts;
use holders::Holders;
use hosts::Hosts;
use ike::connection::{Configured, Mode};
use ike::event::ChildUp;
use ike::message::pairs::pairs;
use ipnet::IpNet;
use ipsec_core::{Selector, Time};
use pairs::Pairs;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long a pair that was replaced goes on receiving: what was sealed before the peer changed over is on its way, and the
/// message that deletes the pair may overtake it.
const LINGER: Duration = Duration::from_secs(5);

/// What is installed.
#[derive(Debug)]
pub(super) struct Policy {
    rundir: Rundir,
    pairs: Pairs,
    /// Whose pairs are in transport mode, and what goes through them.
    hosts: Hosts,
    /// Whose pairs are in tunnel mode, where a connection has several peers.
    holders: Holders,
    /// Pairs of a pluto that was killed. They go on carrying packets until what takes their place is there, or until their
    /// hard lifetime.
    orphans: Pairs,
    /// Pairs that were replaced, until when packets on their way may still come to them.
    lingering: VecDeque<(Time, Installed)>,
    accounts: Accounts,
    journal: Journal,
    connections: BTreeMap<String, Kept>,
    runner: Runner,
    resolver: Resolver,
}

/// The policy of one connection.
#[derive(Debug, Default)]
struct Kept {
    flows: BTreeSet<Selector>,
    routes: Vec<Route>,
    /// Addresses the peer gave us, on which device.
    addresses: Vec<(u32, IpAddr)>,
    /// Packets that find no SA ask for one.
    trap: bool,
    /// The program, and what it was told of each flow.
    updown: String,
    told: BTreeMap<Selector, Told>,
}

/// Flows of one connection whose policy stays when their SAs go: as many as peers that were given addresses can come back to.
const MAX_FLOWS: usize = 65_536;

impl Kept {
    /// Says whether these may be kept, too: a peer can narrow what it asks for in ever new ways.
    fn has_room_for(&self, flows: &[Selector]) -> bool {
        let more = flows.iter().filter(|flow| !self.flows.contains(flow)).count();
        more == 0 || self.flows.len().saturating_add(more) <= MAX_FLOWS
    }
}

impl Policy {
    pub(super) fn new(rundir: Rundir) -> Self {
        let orphans: Pairs = journal::read(&rundir.pluto_sas()).into_iter().collect();
        if orphans.len() != 0 {
            tracing::info!(
                "{} pairs of SAs of an earlier pluto are there and stay until others take their place",
                orphans.len()
            );
        }
        // What an earlier pluto set is put back before anything is set anew.
        let mut resolver = Resolver::of_host(rundir.resolv_conf());
        resolver.restore();
        Self {
            journal: Journal::new(rundir.pluto_sas()),
            rundir,
            pairs: Pairs::default(),
            hosts: Hosts::default(),
            holders: Holders::default(),
            orphans,
            lingering: VecDeque::new(),
            accounts: Accounts::default(),
            connections: BTreeMap::new(),
            runner: Runner::new(),
            resolver,
        }
    }

    /// Removes what an earlier pluto installed for connections that there are no more.
    pub(super) fn bury(&mut self, kernel: &mut dyn Kernel, alive: impl Fn(&str) -> bool) {
        let all = core::mem::take(&mut self.orphans);
        let (stay, go): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|pair| alive(&pair.connection));
        self.orphans = stay.into_iter().collect();
        for pair in &go {
            tracing::info!("\"{}\": SAs of an earlier pluto removed", pair.connection);
            let _ = kernel.open(&pair.flows);
            let _ = kernel.remove(pair);
        }
        self.note(&go.iter().map(gone).collect::<Vec<_>>());
    }

    /// Writes down what has changed.
    fn note(&mut self, changes: &[Change<'_>]) {
        let Self { journal, pairs, orphans, lingering, .. } = self;
        let count = pairs.len().saturating_add(orphans.len()).saturating_add(lingering.len());
        let all = || pairs.iter().chain(orphans.iter()).chain(lingering.iter().map(|(_, pair)| pair));
        if let Err(error) = journal.note(changes, count, all) {
            tracing::warn!("{}: {error}", journal.path().display());
        }
    }

    /// Whether a connection has SAs.
    pub(super) fn is_up(&self, name: &str) -> bool {
        self.pairs.has(name)
    }

    /// Whether packets of a connection are ours.
    pub(super) fn is_routed(&self, name: &str) -> bool {
        self.connections.contains_key(name)
    }

    /// The pairs of a connection.
    pub(super) fn pairs(&self, name: &str) -> impl Iterator<Item = &Installed> {
        self.pairs.of(name)
    }

    /// The pairs of every connection that were replaced and are there for what is on its way.
    pub(super) fn lingering(&self) -> impl Iterator<Item = &Installed> {
        self.lingering.iter().map(|(_, pair)| pair)
    }

    /// What pairs of a connection that have gone had carried.
    pub(super) fn gone(&self, name: &str) -> Carried {
        self.accounts.gone(name)
    }

    /// Whether what a pair carries is to be added to that.
    pub(super) fn counts(&self, pair: &Installed) -> bool {
        self.accounts.counts(pair)
    }

    /// Installs a pair, and sends packets to it.
    pub(super) fn up(
        &mut self,
        kernel: &mut dyn Kernel,
        child: &ChildUp,
        planned: Option<&Planned>,
    ) -> Result<(), String> {
        let installed = self.install(kernel, child)?;
        let name = installed.connection.clone();
        let kept = self.connections.entry(name).or_default();
        kept.flows.extend(&installed.flows);
        kept.trap |= planned.is_some_and(|planned| planned.auto >= Auto::Route);
        let flows = installed.flows.clone();
        self.pairs.insert(installed.clone(), child.standby);
        if child.standby {
            self.send_what_is_left(kernel, &installed)?;
        }
        let go = if child.standby { Vec::new() } else { self.orphans.take_of(&installed.connection) };
        go.iter().for_each(|pair| _ = kernel.remove(pair));
        self.note(&go.iter().map(gone).chain([Change::Is(&installed)]).collect::<Vec<_>>());
        if let Some(planned) = planned {
            self.add_routes(planned, &flows, Some(child.remote.ip()), child.configured.as_ref())?;
            self.leave_old_address(kernel, &planned.ike.name, &flows, child.configured.as_deref());
            let Some(kept) = self.connections.get_mut(&planned.ike.name) else { return Ok(()) };
            let Kept { told, updown, .. } = kept;
            for flow in &flows {
                if let Some(told) = told.get_mut(flow).filter(|told| !told.up) {
                    told.up = true;
                    self.runner.tell(updown, told, "up");
                }
            }
        }
        Ok(())
    }

    /// Sends through a pair that is to wait what no other pair carries.
    fn send_what_is_left(&self, kernel: &mut dyn Kernel, pair: &Installed) -> Result<(), String> {
        let alone = |flow: &&Selector| self.pairs.carrier(&pair.connection, flow) == Some(pair);
        let flows: Vec<Selector> = pair.flows.iter().filter(alone).copied().collect();
        if flows.is_empty() {
            return Ok(());
        }
        kernel.send_through(&Installed { flows, ..pair.clone() }).map_err(|error| error.to_string())
    }

    fn install(&mut self, kernel: &mut dyn Kernel, child: &ChildUp) -> Result<Installed, String> {
        let flows =
            pairs(&child.local_selectors, &child.remote_selectors).map_err(|unfit| unfit.to_string())?;
        let (peer, spi_in) = (&child.peer, child.inbound.spi);
        let kept = self.connections.get(&child.connection.name);
        if !kept.is_none_or(|kept| kept.has_room_for(&flows)) {
            return Err(format!(
                "its peers have asked for {MAX_FLOWS} different flows, one after the other: `ipsec auto --down' and then `--unroute' forget them"
            ));
        }
        let taken = if child.mode == Mode::Transport {
            flows.iter().try_for_each(|flow| self.hosts.take(*flow, peer, spi_in))
        } else {
            self.holders.take(&child.connection, &flows, peer, spi_in)
        };
        let installed = taken
            .and_then(|()| kernel.install(child).map_err(|error| error.to_string()))
            .and_then(|installed| self.lead(kernel, installed, child.standby));
        if installed.is_err() {
            self.leave(&child.connection.name, &flows, spi_in);
        }
        installed
    }

    /// A pair is there no more: what it carried may be somebody else's.
    fn leave(&mut self, connection: &str, flows: &[Selector], spi_in: u32) {
        flows.iter().for_each(|flow| self.hosts.leave(flow, spi_in));
        self.holders.leave(connection, spi_in);
    }

    /// Has packets go through a pair, unless it is only to receive for now. If that cannot be done for all of them, they go
    /// where they went, and the pair is gone: half a policy would lead some of them to SAs that are not there.
    fn lead(
        &self,
        kernel: &mut dyn Kernel,
        installed: Installed,
        standby: bool,
    ) -> Result<Installed, String> {
        let flows = if standby { &[][..] } else { &installed.flows };
        for (n, flow) in flows.iter().enumerate() {
            let one = Installed { flows: vec![*flow], ..installed.clone() };
            if let Err(error) = kernel.send_through(&one) {
                for led in flows.iter().take(n) {
                    if let Err(error) = self.restore(kernel, &installed.connection, led) {
                        tracing::warn!("\"{}\": {error}", installed.connection);
                    }
                }
                if let Err(error) = kernel.remove(&installed) {
                    tracing::warn!("\"{}\": {error}", installed.connection);
                }
                return Err(error.to_string());
            }
        }
        Ok(installed)
    }

    /// What becomes of packets of a flow without the pair that has just been installed for them.
    fn restore(&self, kernel: &mut dyn Kernel, name: &str, flow: &Selector) -> Result<(), KernelError> {
        let carried = self.connections.keys().find_map(|name| self.pairs.carrier(name, flow));
        if let Some(pair) = carried.or_else(|| self.orphans.carrier(name, flow)) {
            return kernel.send_through(&Installed { flows: vec![*flow], ..pair.clone() });
        }
        match self.connections.values().find(|kept| kept.flows.contains(flow)) {
            Some(kept) => kernel.shut(&[*flow], kept.trap),
            None => kernel.open(&[*flow]),
        }
    }

    /// What was ours for an address that the peer has taken back goes with it: nothing of this host has it any more.
    fn leave_old_address(
        &mut self,
        kernel: &mut dyn Kernel,
        name: &str,
        flows: &[Selector],
        configured: Option<&Configured>,
    ) {
        let Some(configured) = configured else { return };
        let Some(kept) = self.connections.get_mut(name) else { return };
        let families: Vec<bool> = flows.iter().map(|flow| flow.src.addr().is_ipv4()).collect();
        let is_old = |address: IpAddr| {
            families.contains(&address.is_ipv4()) && !configured.addresses.contains(&address)
        };
        let (old, stay): (Vec<_>, Vec<_>) =
            kept.addresses.drain(..).partition(|(_, address)| is_old(*address));
        kept.addresses = stay;
        for (link, address) in old {
            let gone: Vec<Selector> =
                kept.flows.iter().filter(|flow| flow.src == IpNet::from(address)).copied().collect();
            for flow in &gone {
                kept.flows.remove(flow);
                kept.told.remove(flow);
            }
            let _ = kernel.open(&gone);
            kept.routes.retain(|route| route.src != Some(address));
            let removed =
                Netlink::open().and_then(|mut netlink| netlink.remove_address(link, address.into()));
            if let Err(error) = removed {
                tracing::warn!("\"{name}\": {address}: {error}");
            }
        }
    }

    /// Has packets go through a pair that only received so far.
    pub(super) fn in_use(&mut self, kernel: &mut dyn Kernel, spi_in: u32) -> Result<(), String> {
        match self.pairs.use_now(spi_in) {
            Some(pair) => kernel.send_through(pair).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// Removes a pair. What went through it goes through another that carries it, or else, if none has its place, is held
    /// from now on.
    pub(super) fn down(&mut self, kernel: &mut dyn Kernel, spi_in: u32, replaced: bool, now: Time) {
        let Some(pair) = self.pairs.get(spi_in).cloned() else { return };
        let sends = |flow: &&Selector| self.pairs.carrier(&pair.connection, flow) == Some(&pair);
        let sent: Vec<Selector> = pair.flows.iter().filter(sends).copied().collect();
        self.pairs.remove(spi_in);
        self.leave(&pair.connection, &pair.flows, spi_in);
        // The peer has it no longer: what is sent on it from now on is lost, however many others there are.
        for flow in sent {
            let Some(other) = self.pairs.carrier(&pair.connection, &flow) else { continue };
            if let Err(error) = kernel.send_through(&Installed { flows: vec![flow], ..other.clone() }) {
                tracing::warn!("\"{}\": {error}", pair.connection);
            }
        }
        // One connection may have many peers, each with its own address.
        let (others, alone): (Vec<Selector>, Vec<Selector>) =
            pair.flows.iter().partition(|flow| self.pairs.carry(&pair.connection, flow));
        // What has its place may have been narrowed to less.
        let narrowed = replaced && !others.is_empty();
        if (!replaced || narrowed) && !alone.is_empty() {
            let kept = self.connections.entry(pair.connection.clone()).or_default();
            if let Err(error) = kernel.shut(&alone, kept.trap) {
                tracing::warn!("\"{}\": {error}", pair.connection);
            }
            let Kept { told, updown, .. } = kept;
            for flow in &alone {
                if let Some(told) = told.get_mut(flow) {
                    told.up = false;
                    self.runner.tell(updown, told, "down");
                }
            }
            // Name servers behind a tunnel that is not there answer nobody.
            if !self.is_up(&pair.connection) {
                self.resolver.unset(&pair.connection);
            }
        }
        if !others.is_empty() {
            self.lingering.push_back((now.after(LINGER), pair));
            return;
        }
        self.end(kernel, &pair);
        self.note(&[gone(&pair)]);
    }

    /// Removes a pair from the data plane, and counts what it had carried.
    fn end(&mut self, kernel: &mut dyn Kernel, pair: &Installed) {
        let removed = kernel.remove(pair);
        if let Err(error) = &removed {
            tracing::warn!("\"{}\": {error}", pair.connection);
        }
        self.close(pair, removed.ok().flatten());
        self.accounts.forget(pair);
    }

    fn close(&mut self, pair: &Installed, carried: Option<Carried>) {
        if !self.accounts.close(pair, carried) {
            let name = &pair.connection;
            let lingering = self.lingering.iter().map(|(_, pair)| pair);
            let others = lingering.filter(|other| other.connection == *name).chain(self.pairs.of(name));
            self.accounts.begin_anew(name, others);
        }
    }

    /// The inbound SA of a pair has reached its end. The data plane knows for a moment what it had carried, and the engine
    /// may take longer to be done with it.
    pub(super) fn dead(&mut self, kernel: &mut dyn Kernel, spi_in: u32) {
        let lingers = || self.lingering().find(|pair| pair.spi_in == spi_in);
        let Some(pair) = self.pairs.get(spi_in).or_else(lingers).cloned() else { return };
        if self.accounts.counts(&pair) {
            let removed = kernel.remove(&pair);
            self.close(&pair, removed.ok().flatten());
        }
    }

    /// Has a pair go on between other addresses or ports, and what leads to it with it.
    pub(super) fn relocate(
        &mut self,
        kernel: &mut dyn Kernel,
        spi_in: u32,
        to: (SocketAddr, SocketAddr),
        encapsulate: bool,
    ) -> Result<(), String> {
        let lingers = self.lingering.iter().position(|(_, pair)| pair.spi_in == spi_in);
        let there = self.pairs.get(spi_in).or_else(|| self.lingering.get(lingers?).map(|(_, pair)| pair));
        let Some(old) = there.cloned() else { return Ok(()) };
        kernel.relocate(&old, to, encapsulate).map_err(|error| error.to_string())?;
        let new = Installed { local: to.0.ip(), remote: to.1.ip(), ..old.clone() };
        let moved = self.pairs.relocate(spi_in, &new);
        if let Some((_, pair)) = lingers.filter(|_| !moved).and_then(|at| self.lingering.get_mut(at)) {
            pair.clone_from(&new);
        }
        self.accounts.rename(&old, &new);
        self.note(&[gone(&old), Change::Is(&new)]);
        if old.local == new.local { Ok(()) } else { self.reroute(&new.connection, new.local) }
    }

    /// Routes lead into the device that stands on the way from our new address.
    fn reroute(&mut self, name: &str, local: IpAddr) -> Result<(), String> {
        let Some(kept) = self.connections.get_mut(name) else { return Ok(()) };
        let device = device(&self.rundir, Some(local))?;
        kept.told.values_mut().for_each(|told| told.me = Some(local));
        if kept.told.values().all(|told| told.device == device) {
            return Ok(());
        }
        let mut netlink = Netlink::open().map_err(|error| format!("netlink: {error}"))?;
        let link = netlink.link(&device).ok().flatten().ok_or_else(|| format!("{device} has gone"))?;
        for route in &mut kept.routes {
            route.link = Some(link.index);
            netlink
                .add_route(route)
                .map_err(|error| format!("route to {} through {device}: {error}", route.dst))?;
        }
        kept.told.values_mut().for_each(|told| told.device.clone_from(&device));
        Ok(())
    }

    /// When a pair that was replaced is to be removed.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.lingering.front().map(|(until, _)| *until)
    }

    /// Removes pairs whose time is over, or all that were replaced.
    pub(super) fn expire(&mut self, kernel: &mut dyn Kernel, now: Option<Time>) {
        let over = |(until, _): &mut (Time, Installed)| now.is_none_or(|now| *until <= now);
        let mut go = Vec::new();
        while let Some((_, pair)) = self.lingering.pop_front_if(over) {
            self.end(kernel, &pair);
            go.push(pair);
        }
        if !go.is_empty() {
            self.note(&go.iter().map(gone).collect::<Vec<_>>());
        }
    }

    /// A pair went together with the data plane.
    pub(super) fn forget(&mut self, spi_in: u32) {
        if let Some(pair) = self.pairs.remove(spi_in) {
            self.leave(&pair.connection, &pair.flows, spi_in);
            self.accounts.forget(&pair);
            self.note(&[gone(&pair)]);
        }
    }

    /// The data plane is out of reach, and what it had counted with it.
    pub(super) fn lost(&mut self) {
        let lingering = self.lingering.iter().map(|(_, pair)| pair);
        self.accounts.begin_all_anew(self.pairs.iter().chain(lingering));
    }

    /// Has packets of a connection ask for SAs.
    pub(super) fn route(&mut self, kernel: &mut dyn Kernel, planned: &Planned) -> Result<(), String> {
        let name = &planned.ike.name;
        let child = &planned.ike.child;
        if planned.ike.request.is_some() {
            return Err(format!("cannot route \"{name}\" yet: the peer gives our address when it is up"));
        }
        if child.remote.is_empty() || child.local.is_empty() {
            return Err(format!("cannot route \"{name}\": the peer's address is not known"));
        }
        let flows = pairs(&child.local, &child.remote).map_err(|unfit| unfit.to_string())?;
        let up = self.is_up(name);
        let kept = self.connections.entry(name.clone()).or_default();
        kept.trap = true;
        kept.flows.extend(&flows);
        if !up {
            // An earlier pluto's SAs serve what they carry meanwhile.
            let bare: Vec<Selector> =
                flows.iter().filter(|flow| !self.orphans.carry(name, flow)).copied().collect();
            kernel.shut(&bare, true).map_err(|error| error.to_string())?;
        }
        self.add_routes(planned, &flows, planned.ike.remote_address, None)
    }

    /// Gives packets of a connection back to the host.
    pub(super) fn unroute(&mut self, kernel: Option<&mut (dyn Kernel + '_)>, name: &str) {
        let Some(kept) = self.connections.remove(name) else { return };
        self.resolver.unset(name);
        // Routes first: what comes meanwhile finds the policy still there.
        if let Ok(mut netlink) = Netlink::open() {
            for route in &kept.routes {
                if let Err(error) = netlink.remove_route(route) {
                    tracing::warn!("\"{name}\": route to {}: {error}", route.dst);
                }
            }
        }
        for (link, address) in &kept.addresses {
            let used =
                self.connections.values().flat_map(|other| &other.addresses).any(|(_, a)| a == address);
            if !used && let Ok(mut netlink) = Netlink::open() {
                let _ = netlink.remove_address(*link, (*address).into());
            }
        }
        let flows: Vec<Selector> = kept.flows.iter().copied().collect();
        if let Some(kernel) = kernel
            && let Err(error) = kernel.open(&flows)
        {
            tracing::warn!("\"{name}\": {error}");
        }
        kept.told.values().for_each(|told| self.runner.tell(&kept.updown, told, "unroute"));
    }

    /// A data plane was found, and it is not the one that had our SAs: puts the policy back and says which pairs are lost.
    pub(super) fn found(&mut self, kernel: &mut dyn Kernel) -> Vec<u32> {
        let lost = core::mem::take(&mut self.pairs);
        self.hosts.clear();
        self.holders.clear();
        let lingering = core::mem::take(&mut self.lingering);
        self.accounts.begin_all_anew(core::iter::empty());
        let all = lost.iter().chain(lingering.iter().map(|(_, pair)| pair));
        self.note(&all.map(gone).collect::<Vec<_>>());
        for (name, kept) in &mut self.connections {
            let flows: Vec<Selector> = kept.flows.iter().copied().collect();
            if let Err(error) = kernel.shut(&flows, kept.trap) {
                tracing::warn!("\"{name}\": {error}");
            }
            // The devices were new, too.
            if let Ok(mut netlink) = Netlink::open() {
                let device = kept.told.values().next().map(|told| told.device.clone());
                let link = device.and_then(|device| netlink.link(&device).ok().flatten());
                kept.routes.retain_mut(|route| {
                    route.link = link.as_ref().map(|link| link.index).or(route.link);
                    // Where the device is not there yet, the next pair of SAs brings the route.
                    netlink.add_route(route).is_ok()
                });
            }
        }
        lost.iter().map(|pair| pair.spi_in).collect()
    }

    /// Routes what a connection protects into the device that stands on the way to the peer.
    fn add_routes(
        &mut self,
        planned: &Planned,
        flows: &[Selector],
        peer: Option<IpAddr>,
        configured: Option<&Arc<Configured>>,
    ) -> Result<(), String> {
        let name = &planned.ike.name;
        let local = planned.ike.local_address;
        let device = device(&self.rundir, local)?;
        let mut netlink = Netlink::open().map_err(|error| format!("netlink: {error}"))?;
        let link = netlink.link(&device).ok().flatten().ok_or_else(|| format!("{device} has gone"))?;
        if let Some(source) = planned.source {
            put(&mut netlink, link.index, source)
                .map_err(|error| format!("leftsourceip={source}: {error}"))?;
        }
        let given = configured.map(|configured| configured.addresses.clone()).unwrap_or_default();
        let kept = self.connections.entry(name.clone()).or_default();
        for flow in flows {
            let ours = |address: &&IpAddr| flow.src.contains(*address);
            let fits = |source: &IpAddr| source.is_ipv4() == flow.dst.addr().is_ipv4();
            let source = planned.source.filter(fits).or_else(|| given.iter().find(ours).copied());
            if let Some(address) = source.filter(|source| given.contains(source)) {
                put(&mut netlink, link.index, address)
                    .map_err(|error| format!("the address {address} that the peer gave: {error}"))?;
                if !kept.addresses.contains(&(link.index, address)) {
                    kept.addresses.push((link.index, address));
                }
            }
            let told = Told {
                connection: planned.section.clone(),
                device: device.clone(),
                me: local,
                peer,
                my_id: planned.ike.local_id.to_string(),
                peer_id: planned.ike.remote_id.to_string(),
                flow: *flow,
                source,
                metric: planned.metric,
                tunnel: planned.ike.child.mode == Mode::Tunnel,
                configured: configured.cloned(),
                up: kept.told.get(flow).is_some_and(|told| told.up),
            };
            kept.updown = planned.updown.clone().unwrap_or_default();
            if let Some(configured) = configured {
                self.resolver.set(name, &device, &configured.dns, &configured.domains);
            }
            for dst in halves(flow.dst) {
                let route =
                    Route { dst, via: None, link: Some(link.index), src: source, metric: planned.metric };
                if kept.routes.contains(&route) {
                    continue;
                }
                netlink
                    .add_route(&route)
                    .map_err(|error| format!("route to {dst} through {device}: {error}"))?;
                kept.routes.push(route);
            }
            if !kept.told.contains_key(flow) {
                self.runner.tell(&kept.updown, &told, "route");
            }
            kept.told.insert(*flow, told);
        }
        Ok(())
    }
}

fn gone(pair: &Installed) -> Change<'_> {
    Change::Gone(pair.spi_in, pair.local)
}

/// Puts an address on a device, if this host has it nowhere.
fn put(netlink: &mut Netlink, link: u32, address: IpAddr) -> std::io::Result<()> {
    let has = netlink.addresses(None).unwrap_or_default().iter().any(|have| have.net.addr() == address);
    if has { Ok(()) } else { netlink.add_address(link, address.into()) }
}

/// A default route of ours would take the place of the host's own, over which the peer is reached: two halves are more
/// specific and leave it there.
fn halves(net: IpNet) -> Vec<IpNet> {
    if net.prefix_len() != 0 {
        return vec![net];
    }
    net.subnets(1).map_or_else(|_| vec![net], Iterator::collect)
}

/// The device that stands on the interface with this address.
fn device(rundir: &Rundir, local: Option<IpAddr>) -> Result<String, String> {
    let mut client = Client::connect(rundir).map_err(|error| error.to_string())?;
    let mut devices: Vec<(String, Vec<IpNet>)> = Vec::new();
    let listed = client.table(Table::Tncfg, Form::Json, |row| {
        let row: Value = serde_json::from_str(row).unwrap_or_default();
        let name = row.get("virtual").and_then(Value::as_str).unwrap_or_default().to_owned();
        let addresses = row.get("addresses").and_then(Value::as_array).into_iter().flatten();
        devices.push((name, addresses.filter_map(|net| net.as_str()?.parse().ok()).collect()));
        Ok(())
    });
    listed.map_err(|error| error.to_string())?;
    if let Some(local) = local
        && let Some((name, _)) = devices.iter().find(|(_, nets)| nets.iter().any(|net| net.addr() == local))
    {
        return Ok(name.clone());
    }
    devices
        .into_iter()
        .next()
        .map(|(name, _)| name)
        .ok_or_else(|| "no ipsecN device is attached: see interfaces= in ipsec.conf".to_owned())
}

impl From<KernelError> for String {
    fn from(error: KernelError) -> Self {
        error.to_string()
    }
}
