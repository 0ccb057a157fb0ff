//! Policies of dialects whose policy names no SA but says which one it wants (RFC 4301 §4.4.1 as Linux and KAME have it).
//!
//! One for what goes out is an eroute whose action follows the SADB: PROTECT with the newest SA that fits, and as long as
//! there is none, `%trap`, or `%pass` where the SA is only to be used if it is there. One for what came in is asked about
//! packets of SAs that have no selector of their own, and says whether they may be delivered ([`crate::admission`]).

use super::{Control, flag};
use crate::admission::Side;
use crate::eroute::{Action, Eroute, Policy};
use crate::sa::SaState;
use core::net::IpAddr;
use ipsec_core::{Protocol, SaId, Selector};
use pfkey::{Diagnostic as D, Errno, Fault, FlowDirection, FlowPolicy, Level, Message};
use std::collections::HashMap;
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
    /// Policies for what goes out, by the far end of the tunnel that they want.
    by_end: HashMap<IpAddr, Vec<Selector>>,
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
        if let Some(selectors) = self.by_end.get_mut(&policy.ends.1) {
            selectors.retain(|selector| *selector != gone.selector);
            if selectors.is_empty() {
                self.by_end.remove(&policy.ends.1);
            }
        }
    }
}

impl Control {
    /// What a flow message says besides its selector and action, if it does.
    pub(super) fn flow_policy(&mut self, ask: &mut Message<'_>) -> Result<Option<Box<Policy>>, Fault> {
        let Some(flow) = &mut ask.flow_policy else { return Ok(None) };
        let ip = |address: Option<pfkey::Address>| address.and_then(|address| address.ip());
        let ends = match flow.wanted {
            None => None,
            Some(wanted) if !matches!(wanted.mode, TRANSPORT | TUNNEL) => {
                return Err(Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::BadMode });
            }
            // Compression alone protects nothing, and there are no bundles here.
            Some(wanted)
                if ![Protocol::Esp, Protocol::Ah].map(Protocol::number).contains(&wanted.protocol) =>
            {
                return Err(Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::BadPolicy });
            }
            Some(_) => {
                let src = ip(ask.src).ok_or(Fault::invalid(D::MissingSrc))?;
                let dst = ip(ask.dst).ok_or(Fault::invalid(D::MissingDst))?;
                Some((src, dst))
            }
        };
        // A number of our own, where the policy only says that it is to be the SA's alone.
        if let Some(wanted) = &mut flow.wanted
            && wanted.level == Level::Unique
            && wanted.reqid == 0
        {
            self.policies.last_reqid = self.policies.last_reqid.wrapping_add(1) & MANUAL;
            wanted.reqid = self.policies.last_reqid.saturating_add(MANUAL.saturating_add(1));
        }
        flow.index = self.policies.index(flow.direction);
        self.policies.age = self.policies.age.saturating_add(1);
        let nowhere = (core::net::Ipv4Addr::UNSPECIFIED.into(), core::net::Ipv4Addr::UNSPECIFIED.into());
        let policy = Policy { flow: *flow, ends: ends.unwrap_or(nowhere), age: self.policies.age };
        Ok(Some(Box::new(policy)))
    }

    /// What an eroute that wants an SA does just now.
    pub(super) fn wanted_action(&self, policy: &Policy) -> Option<Action> {
        let wanted = policy.flow.wanted?;
        Some(match self.wanted_sa(policy) {
            Some(id) => Action::Protect(id),
            None if wanted.level == Level::Use => Action::Pass,
            None => Action::Trap,
        })
    }

    /// The newest SA that a policy may use: one that is dying only where there is no other.
    fn wanted_sa(&self, policy: &Policy) -> Option<SaId> {
        let wanted = policy.flow.wanted?;
        let mut dying = None;
        for id in self.policies.sas.get(&policy.ends.1)?.iter().rev() {
            let Some(record) = self.sadb.find(id) else { continue };
            let fits = record.in_use
                && record.policy.reqid == wanted.reqid
                && record.sa.as_ref().is_some_and(|sa| policy.wants(sa));
            match record.state() {
                SaState::Mature if fits => return Some(*id),
                SaState::Dying if fits => dying = dying.or(Some(*id)),
                SaState::Larval | SaState::Mature | SaState::Dying | SaState::Dead => {}
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
        if policy.flow.direction == FlowDirection::Out && policy.flow.wanted.is_some() {
            self.policies.by_end.entry(policy.ends.1).or_default().push(selector);
        }
    }

    /// A policy has gone.
    pub(super) fn policy_gone(&mut self, gone: &Eroute) {
        self.policies.forget(gone);
    }

    /// All policies have gone.
    pub(super) fn policies_gone(&mut self) {
        (self.policies.by_index, self.policies.by_end) = Default::default();
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
            let action = eroute.policy.as_ref().and_then(|policy| self.wanted_action(policy));
            let Some(action) = action.filter(|action| *action != eroute.action) else { continue };
            drop(self.plane.change_eroute(selector, |eroutes| eroutes.replace(eroute.redirected(action))));
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
    ask.flow_policy.map_or(FlowDirection::Out, |FlowPolicy { direction, .. }| direction)
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
