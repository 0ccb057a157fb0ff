//! Policy for what comes in on SAs without selectors: which of them may carry which packet (RFC 4301 §5.2 as Linux and
//! KAME have it).
//!
//! An SA that its key manager gave no selector is entitled to nothing by itself. A packet that was opened with it is
//! delivered if the policy that decides about it wants an SA, and wants this one; where it wants several, with all of them.

use crate::eroute::{Eroute, ErouteError, Eroutes, IPCOMP, Passed, Policy};
use core::net::IpAddr;
use ipsec_core::{Flow, Selector};
use pfkey::{FlowDirection, Level};
use std::collections::HashSet;
use std::sync::Arc;

/// Whom a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// This host.
    In,
    /// Another, behind it.
    Forward,
}

impl Side {
    /// The side a policy is asked on; `None` for what goes out.
    pub(crate) const fn of(direction: FlowDirection) -> Option<Self> {
        match direction {
            FlowDirection::In => Some(Self::In),
            FlowDirection::Forward => Some(Self::Forward),
            FlowDirection::Out => None,
        }
    }
}

/// Policy for what comes in.
#[derive(Default)]
pub(crate) struct Admission {
    inward: Eroutes,
    forward: Eroutes,
    /// The addresses of this host.
    locals: HashSet<IpAddr>,
}

impl Admission {
    /// The addresses of this host have changed.
    pub(crate) fn set_locals(&mut self, locals: HashSet<IpAddr>) {
        self.locals = locals;
    }

    const fn side(&self, side: Side) -> &Eroutes {
        match side {
            Side::In => &self.inward,
            Side::Forward => &self.forward,
        }
    }

    const fn side_mut(&mut self, side: Side) -> &mut Eroutes {
        match side {
            Side::In => &mut self.inward,
            Side::Forward => &mut self.forward,
        }
    }

    /// Says whether a packet of `flow` may come in on SAs of which the innermost has no selector; `passed` has them from the
    /// inside to the outside.
    pub(crate) fn admits(&self, passed: &[Passed], flow: &Flow) -> bool {
        let here = self.locals.contains(&flow.dst) || flow.dst.is_multicast();
        let side = if here { Side::In } else { Side::Forward };
        let decides = self.side(side).lookup(flow).and_then(|eroute| eroute.policy.as_ref());
        decides.is_some_and(|policy| satisfied(policy, passed))
    }

    /// Puts a policy in the place of the one with its selector, if any.
    pub(crate) fn replace(&mut self, side: Side, policy: Eroute) {
        drop(self.side_mut(side).replace(policy));
    }

    /// Removes the policy with exactly this selector.
    pub(crate) fn delete(&mut self, side: Side, selector: &Selector) -> Result<Arc<Eroute>, ErouteError> {
        self.side_mut(side).delete(selector)
    }

    /// The policy with exactly this selector.
    pub(crate) fn exact(&self, side: Side, selector: &Selector) -> Option<Arc<Eroute>> {
        self.side(side).exact(selector).cloned()
    }

    /// Removes all.
    pub(crate) fn clear(&mut self) {
        (self.inward, self.forward) = Default::default();
    }

    /// All of them, those of one side after those of the other, each in table order.
    pub(crate) fn list(&self) -> Vec<Arc<Eroute>> {
        let mut all = self.inward.list();
        all.append(&mut self.forward.list());
        all
    }
}

/// Whether each SA that a policy wants was there, in its order, the innermost of all among them. One that is only used where it
/// is there may be missing, and IPComp, which is used where it helps (RFC 3173 §2.2). What is around them does no harm.
fn satisfied(policy: &Policy, passed: &[Passed]) -> bool {
    let mut rest = passed;
    for wanted in policy.wanted() {
        match rest.split_first() {
            Some((sa, outer)) if sa.is(&wanted) && sa.has_number(&wanted.wanted) => rest = outer,
            _ if wanted.wanted.level == Level::Use || wanted.wanted.protocol == IPCOMP => {}
            _ => return false,
        }
    }
    rest.len() < passed.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eroute::Action;
    use crate::sa::{Blueprint, Keys, Limits, Mode, Sa};
    use ipsec_core::algorithm::{Encryption, Suite};
    use ipsec_core::{Protocol, SaId, Spi};
    use pfkey::{FlowPolicy, Wanted};

    const HERE: &str = "10.1.0.1";

    fn sa(src: &str, mode: Mode, reqid: u32) -> Sa {
        let sa = Sa::new(Blueprint {
            id: SaId { dst: "192.0.2.1".parse().unwrap(), protocol: Protocol::Esp, spi: Spi(0x1001) },
            src: src.parse().unwrap(),
            mode,
            suite: Suite { encryption: Some(Encryption::AesGcm16), auth: None },
            keys: Keys::default(),
            esn: false,
            window: 32,
            encapsulation: None,
            selector: None,
            limits: Limits::default(),
        });
        sa.judge_by_policy(reqid);
        sa
    }

    fn policy(src: &str, wanted: Option<(Level, u32)>, priority: u32) -> Eroute {
        let selector = Selector::nets(src.parse().unwrap(), "10.1.0.0/16".parse().unwrap());
        let mut policy = Eroute::new(selector, Action::Pass);
        let wanted = wanted.map(|(level, reqid)| Wanted { protocol: 50, mode: 2, level, reqid });
        let flow =
            FlowPolicy { direction: FlowDirection::In, index: 8, priority, wanted, further: Vec::new() };
        let ends = ("192.0.2.2".parse().unwrap(), "192.0.2.1".parse().unwrap());
        policy.policy = Some(Box::new(Policy { flow, ends, age: 1 }));
        policy
    }

    fn flow(dst: &str) -> Flow {
        Flow { src: "10.2.0.1".parse().unwrap(), dst: dst.parse().unwrap(), proto: 17, sport: 1, dport: 2 }
    }

    #[test]
    fn a_packet_comes_in_on_the_sa_that_policy_wants_and_on_no_other() {
        let mut admission = Admission::default();
        admission.set_locals([HERE.parse().unwrap()].into());
        let peers = || sa("192.0.2.2", Mode::Tunnel, 77);
        let admits =
            |admission: &Admission, sa: &Sa, dst: &str| admission.admits(&[Passed::of(sa)], &flow(dst));
        assert!(!admits(&admission, &peers(), HERE), "no policy");

        admission.replace(Side::In, policy("10.2.0.0/16", Some((Level::Require, 0)), 5));
        assert!(admits(&admission, &peers(), HERE));
        assert!(!admits(&admission, &peers(), "10.1.0.9"), "for a host behind this one there is no policy");
        assert!(!admits(&admission, &sa("192.0.2.9", Mode::Tunnel, 77), HERE), "another peer");
        assert!(!admits(&admission, &sa("192.0.2.2", Mode::Transport, 77), HERE), "another mode");

        admission.replace(Side::Forward, policy("10.2.0.0/16", Some((Level::Unique, 77)), 5));
        assert!(admits(&admission, &peers(), "10.1.0.9"));
        assert!(!admits(&admission, &sa("192.0.2.2", Mode::Tunnel, 78), "10.1.0.9"), "another number");

        // A policy that wants no SA takes nothing that came on one; the first that matches decides.
        admission.replace(Side::In, policy("10.2.0.1/32", None, 4));
        assert!(!admits(&admission, &peers(), HERE));
        admission.clear();
        assert!(!admits(&admission, &peers(), "10.1.0.9"));
    }
}
