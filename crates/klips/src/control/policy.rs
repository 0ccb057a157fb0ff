//! Policies of dialects whose policy names no SA but says which one it wants (RFC 4301 §4.4.1 as Linux and KAME have it).
//!
//! One for what goes out is an eroute whose action follows the SADB: PROTECT with the newest SA that fits, and as long as
//! there is none, `%trap`, or `%pass` where the SA is only to be used if it is there. One that wants several SAs has packets
//! go through the newest that fits each, one after the other; SAs of level `use` that are not there are left out, and without
//! one of the others it is `%trap`. One for what came in is asked about packets of SAs that have no selector of their own, and
//! says whether they may be delivered ([`crate::admission`]).

use super::{Control, flag};
use crate::admission::Side;
use crate::bundle::{Bundle, Sas};
use crate::eroute::{Action, Eroute, IPCOMP, Passed, Policy};
use crate::sa::{Sa, SaState};
use core::net::IpAddr;
use ipsec_core::{Protocol, SaId, Selector, Time};
use pfkey::{Diagnostic as D, Errno, Fault, FlowDirection, Further, Level, Message};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// `IPSEC_MODE_*`.
const TRANSPORT: u8 = 1;
const TUNNEL: u8 = 2;

/// Numbers of SAs up to this one are for people to give (`IPSEC_MANUAL_REQID_MAX`).
const MANUAL: u32 = 0x3fff;

/// What finds policies and SAs for each other.
#[derive(Default)]
pub(super) struct Policies {
    /// The last number given.
    last_index: u32,
    last_reqid: u32,
    age: u64,
    by_index: HashMap<u32, (FlowDirection, Selector)>,
    /// Policies for what goes out, by the far ends of the SAs that they want.
    by_end: HashMap<IpAddr, Vec<Selector>>,
    /// Those of them that want several SAs.
    several: HashSet<Selector>,
    /// Outbound SAs by destination, in the order in which they came. Some may have gone since.
    sas: HashMap<IpAddr, Vec<SaId>>,
}

impl Policies {
    /// A number that nothing has, with the direction in its last bits, as Linux numbers policies.
    fn index(&mut self, direction: FlowDirection) -> u32 {
        loop {
            self.last_index = self.last_index.wrapping_add(1) & (u32::MAX >> 3);
            let index = self.last_index << 3 | u32::from(direction.number().saturating_sub(1));
            if self.last_index != 0 && !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }

    /// An outbound SA has come in. Those that have gone are looked for when there are twice as many, so that one more costs
    /// little: SAs to one destination, and destinations, of which a peer that roams has had many.
    fn remember(&mut self, id: SaId, is_there: impl Fn(&SaId) -> bool) {
        if self.sas.len().is_power_of_two() && !self.sas.contains_key(&id.dst) {
            self.sas.retain(|_, sas| sas.iter().any(&is_there));
        }
        let sas = self.sas.entry(id.dst).or_default();
        if sas.len().is_power_of_two() {
            sas.retain(&is_there);
        }
        sas.push(id);
    }

    fn forget(&mut self, gone: &Eroute) {
        let Some(policy) = &gone.policy else { return };
        self.by_index.remove(&policy.flow.index);
        // One for what comes in may have the selector and the ends of one for what goes out, which stays.
        if policy.flow.direction != FlowDirection::Out {
            return;
        }
        self.several.remove(&gone.selector);
        for Further { dst, .. } in policy.wanted() {
            if let Some(selectors) = self.by_end.get_mut(&dst) {
                selectors.retain(|selector| *selector != gone.selector);
                if selectors.is_empty() {
                    self.by_end.remove(&dst);
                }
            }
        }
    }
}

impl Control {
    /// What a flow message says besides its selector and action, if it does.
    pub(super) fn flow_policy(&mut self, ask: &mut Message<'_>) -> Result<Option<Box<Policy>>, Fault> {
        let Some(flow) = &mut ask.flow_policy else { return Ok(None) };
        let all = flow.wanted.iter().chain(flow.further.iter().map(|further| &further.wanted));
        for wanted in all.clone() {
            if !matches!(wanted.mode, TRANSPORT | TUNNEL) {
                return Err(Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::BadMode });
            }
            if ![Protocol::Esp, Protocol::Ah, Protocol::Ipcomp]
                .map(Protocol::number)
                .contains(&wanted.protocol)
            {
                return Err(Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::BadPolicy });
            }
        }
        // Compression alone protects nothing. What comes out of a tunnel is for the device, and not for another SA.
        let alone = all.last().is_some_and(|outermost| outermost.protocol == IPCOMP);
        if alone || flow.further.iter().any(|further| further.wanted.mode == TUNNEL) {
            return Err(Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::BadPolicy });
        }
        let ip = |address: Option<pfkey::Address>| address.and_then(|address| address.ip());
        let ends = match flow.wanted {
            None => None,
            Some(_) => {
                let src = ip(ask.src).ok_or(Fault::invalid(D::MissingSrc))?;
                let dst = ip(ask.dst).ok_or(Fault::invalid(D::MissingDst))?;
                Some((src, dst))
            }
        };
        // A number of our own, where the policy only says that it is to be the SA's alone.
        let further = flow.further.iter_mut().map(|further| &mut further.wanted);
        for wanted in flow.wanted.iter_mut().chain(further) {
            if wanted.level == Level::Unique && wanted.reqid == 0 {
                self.policies.last_reqid = self.policies.last_reqid.wrapping_add(1) & MANUAL;
                wanted.reqid = self.policies.last_reqid.saturating_add(MANUAL.saturating_add(1));
            }
        }
        flow.index = self.policies.index(flow.direction);
        self.policies.age = self.policies.age.saturating_add(1);
        let nowhere = (core::net::Ipv4Addr::UNSPECIFIED.into(), core::net::Ipv4Addr::UNSPECIFIED.into());
        let policy = Policy { flow: flow.clone(), ends: ends.unwrap_or(nowhere), age: self.policies.age };
        Ok(Some(Box::new(policy)))
    }

    /// What an eroute that wants SAs does just now, and through which if they are several.
    pub(super) fn wanted_action(&self, policy: &Policy) -> Option<(Action, Option<Bundle>)> {
        let level = policy.flow.wanted?.level;
        if !policy.wants_several() {
            let found = policy.wanted().next().and_then(|wanted| self.wanted_sa(&wanted, &[]));
            return Some(match found {
                Some(sa) => (Action::Protect(sa.id), None),
                None if level == Level::Use => (Action::Pass, None),
                None => (Action::Trap, None),
            });
        }
        let mut sas = Sas::new();
        let mut untunnelled = false;
        for wanted in policy.wanted() {
            match self.wanted_sa(&wanted, &sas) {
                // Policy names no more of them than there is room for.
                Some(sa) => _ = sas.try_push(sa),
                None if wanted.wanted.level == Level::Use => untunnelled |= wanted.wanted.mode == TUNNEL,
                None => return Some((Action::Trap, None)),
            }
        }
        let Some(first) = sas.first().map(|sa| sa.id) else { return Some((Action::Pass, None)) };
        // What is around a tunnel leads to its ends, and not to those of the packet.
        if untunnelled {
            return Some((Action::Trap, None));
        }
        // Compression, with nothing around it that protects: that is not what was wanted either.
        Some(Bundle::new(sas).map_or((Action::Trap, None), |bundle| (Action::Protect(first), Some(bundle))))
    }

    /// The SAs that a policy wants and that are not there.
    pub(super) fn missing(&self, policy: &Policy) -> Vec<Further> {
        let mut there = Sas::new();
        policy
            .wanted()
            .filter(|wanted| match self.wanted_sa(wanted, &there) {
                Some(sa) => there.try_push(sa).is_err(),
                None => true,
            })
            .collect()
    }

    /// The newest SA that a policy may use, besides those that it uses already: one that is dying only where there is no
    /// other.
    fn wanted_sa(&self, wanted: &Further, besides: &[Arc<Sa>]) -> Option<Arc<Sa>> {
        let mut dying = None;
        for id in self.policies.sas.get(&wanted.dst)?.iter().rev() {
            let Some(record) = self.sadb.find(id) else { continue };
            let fits = |sa: &&Arc<Sa>| {
                record.in_use
                    && record.policy.reqid == wanted.wanted.reqid
                    && Passed::of(sa).is(wanted)
                    && besides.iter().all(|other| other.id != *id)
            };
            let Some(sa) = record.sa.as_ref().filter(fits) else { continue };
            match record.state() {
                SaState::Mature => return Some(Arc::clone(sa)),
                SaState::Dying => dying = dying.or_else(|| Some(Arc::clone(sa))),
                SaState::Larval | SaState::Dead => {}
            }
        }
        dying
    }

    /// A policy has come in, in the place of `before` if there was one.
    pub(super) fn policy_added(
        &mut self,
        selector: Selector,
        policy: Option<&Policy>,
        before: Option<&Eroute>,
    ) {
        if let Some(before) = before {
            self.policies.forget(before);
        }
        let Some(policy) = policy else { return };
        self.policies.by_index.insert(policy.flow.index, (policy.flow.direction, selector));
        if policy.flow.direction != FlowDirection::Out {
            return;
        }
        if policy.wants_several() {
            self.policies.several.insert(selector);
        }
        for Further { dst, .. } in policy.wanted() {
            let selectors = self.policies.by_end.entry(dst).or_default();
            if selectors.last() != Some(&selector) {
                selectors.push(selector);
            }
        }
    }

    /// A policy has gone.
    pub(super) fn policy_gone(&mut self, gone: &Eroute) {
        self.policies.forget(gone);
    }

    /// All policies have gone.
    pub(super) fn policies_gone(&mut self) {
        (self.policies.by_index, self.policies.by_end) = Default::default();
        self.policies.several.clear();
    }

    /// The longest packet that passes whichever policy carries it that has packets go through several SAs. `link` says how long
    /// what leaves from an address may be, and `None` for addresses that are not asked about. `None` where nothing leaves so.
    pub fn largest_inside_several(&self, link: impl Fn(IpAddr) -> Option<usize>, now: Time) -> Option<usize> {
        let eroutes = self.plane.eroutes();
        let bundles = self.policies.several.iter().filter_map(|selector| eroutes.exact(selector)?.bundle());
        let inside = bundles.filter(|bundle| bundle.may_send()).filter_map(|bundle| {
            let outermost = bundle.outermost()?;
            let link = link(outermost.src)?;
            Some(bundle.inner_mtu(outermost.path_mtu().limit(link, now)))
        });
        inside.min()
    }

    /// The policy of this number.
    pub(super) fn policy_numbered(&self, index: u32) -> Option<Arc<Eroute>> {
        let (direction, selector) = self.policies.by_index.get(&index)?;
        match Side::of(*direction) {
            None => self.plane.eroutes().exact(selector).cloned(),
            Some(side) => self.plane.admission().exact(side, selector),
        }
    }

    /// An outbound SA has come in.
    pub(super) fn policy_sa_came(&mut self, id: &SaId) {
        if self.sadb.find(id).is_none_or(|record| record.flags & flag::OUTBOUND == 0) {
            return;
        }
        let sadb = &self.sadb;
        self.policies.remember(*id, |id| sadb.find(id).is_some());
        self.policy_sas_changed(id.dst);
    }

    /// SAs to this destination have come, gone, or moved on in their lives.
    pub(super) fn policy_sas_changed(&mut self, dst: IpAddr) {
        let Some(selectors) = self.policies.by_end.get(&dst).cloned() else { return };
        for selector in selectors {
            let eroute = self.plane.eroutes().exact(&selector).cloned();
            let Some(eroute) = eroute else { continue };
            let wanted = eroute.policy.as_ref().and_then(|policy| self.wanted_action(policy));
            let Some((action, bundle)) = wanted else { continue };
            let same = match (&bundle, eroute.bundle()) {
                (None, None) => true,
                (Some(now), Some(before)) => now.is(before),
                (Some(_), None) | (None, Some(_)) => false,
            };
            if same && action == eroute.action {
                continue;
            }
            let changed = eroute.redirected(action).through(bundle);
            drop(self.plane.change_eroute(selector, |eroutes| eroutes.replace(changed)));
            self.reconsider(Some(&selector));
        }
    }

    /// Many SAs have gone.
    pub(super) fn policy_all_changed(&mut self) {
        let sadb = &self.sadb;
        self.policies.sas.retain(|_, sas| {
            sas.retain(|id| sadb.find(id).is_some());
            !sas.is_empty()
        });
        let ends: Vec<IpAddr> = self.policies.by_end.keys().copied().collect();
        ends.into_iter().for_each(|dst| self.policy_sas_changed(dst));
    }
}

/// The direction of a flow message; without a policy it is about an eroute.
pub(super) fn direction(ask: &Message<'_>) -> FlowDirection {
    ask.flow_policy.as_ref().map_or(FlowDirection::Out, |policy| policy.direction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec_core::Spi;

    /// Rekeyed ten thousand times, to one destination or to another each time: what has gone is not kept.
    #[test]
    fn sas_that_have_gone_do_not_pile_up() {
        for roams in [false, true] {
            let mut policies = Policies::default();
            for n in 0..10_000_u32 {
                let dst = if roams { IpAddr::from(n.to_be_bytes()) } else { IpAddr::from([192, 0, 2, 2]) };
                let id = SaId { dst, protocol: Protocol::Esp, spi: Spi(0x1000 + n) };
                policies.remember(id, |other| other.spi.0 + 1 == id.spi.0);
                assert_eq!(policies.sas.get(&dst).and_then(|sas| sas.last()), Some(&id));
            }
            let kept: usize = policies.sas.values().map(Vec::len).sum();
            assert!(kept <= 4, "{kept} are kept of one that is there");
        }
    }
}
