//! Our policy messages: eroutes added, replaced, deleted, flushed and dumped.
//!
//! An eroute's selector is in the inner addresses: prefixes, ports, and the protocol of the destination. PROTECT names
//! its SA by SA type, SA extension and destination; that SA need not be there yet.

use super::{Control, describe, flag, policy, protocol};
use crate::admission::Side;
use crate::eroute::{Action, Eroute, ErouteError};
use core::net::SocketAddr;
use ipnet::IpNet;
use ipsec_core::{SaId, Selector, Spi, Time};
use pfkey::{
    Address, Base, Diagnostic as D, Errno, ExtType, Fault, Flow, FlowAction, Message, SaType, Writer,
    identity,
};
use std::sync::Arc;

/// What ADDFLOW and REPLACEFLOW do with an eroute that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    Refuse,
    Replace,
}

impl Control {
    /// ADDFLOW and REPLACEFLOW.
    pub(super) fn add_flow(&mut self, ask: &mut Message<'_>, present: Present) -> Result<(), Fault> {
        let text = |identity: &Option<pfkey::Identity<'_>>| {
            identity.map_or(Box::default(), |i| String::from_utf8_lossy(i.text).into())
        };
        let selector = selector(ask)?;
        let policy = self.flow_policy(ask)?;
        let (action, bundle) = match policy.as_ref().and_then(|policy| self.wanted_action(policy)) {
            Some(wanted) => wanted,
            None => (action(ask)?, None),
        };
        // Packets never go on an SA that they come on.
        if let Action::Protect(id) = action
            && self.sadb.find(&id).is_some_and(|sa| sa.flags & flag::BOTH == flag::INBOUND)
        {
            return Err(Fault::invalid(D::BadSaflags));
        }
        let eroute = Eroute::new(selector, action);
        let mut eroute = eroute.between(text(&ask.src_identity), text(&ask.dst_identity)).through(bundle);
        eroute.policy.clone_from(&policy);
        let side = Side::of(policy::direction(ask));
        let before = match side {
            None => self.plane.eroutes().exact(&selector).cloned(),
            Some(side) => self.plane.admission().exact(side, &selector),
        };
        if before.is_some() && present == Present::Refuse {
            return Err(Fault::errno(Errno::EEXIST));
        }
        match side {
            None => drop(self.plane.change_eroute(selector, |eroutes| eroutes.replace(eroute))),
            Some(side) => self.plane.change_admission(|admission| admission.replace(side, eroute)),
        }
        self.policy_added(selector, policy.as_deref(), before.as_deref());
        if side.is_none() {
            self.reconsider(Some(&selector));
        }
        Ok(())
    }

    /// DELFLOW of exactly the selector named; what it has taken away.
    pub(super) fn delete_flow(&mut self, ask: &Message<'_>) -> Result<Arc<Eroute>, Fault> {
        let selector = selector(ask)?;
        let side = Side::of(policy::direction(ask));
        let gone = match side {
            None => self.plane.change_eroute(selector, |eroutes| eroutes.delete(&selector)),
            Some(side) => self.plane.change_admission(|admission| admission.delete(side, &selector)),
        };
        match gone {
            Ok(gone) => {
                self.policy_gone(&gone);
                if side.is_none() {
                    self.reconsider(Some(&selector));
                }
                Ok(gone)
            }
            Err(ErouteError::Missing | ErouteError::Exists) => Err(Fault::errno(Errno::ENOENT)),
        }
    }

    /// FLUSHFLOWS.
    pub(super) fn flush_flows(&mut self) {
        drop(self.plane.change_eroutes(|eroutes| eroutes.clear()));
        self.plane.change_admission(|admission| admission.clear());
        self.policies_gone();
        self.reconsider(None);
    }

    /// One eroute of a DUMPFLOWS.
    pub(super) fn describe_flow(&self, base: &Base, eroute: &Eroute) -> Vec<u8> {
        let s = &eroute.selector;
        let net = |net: IpNet, port: u16| Address {
            proto: s.proto,
            prefix: net.prefix_len(),
            socket: Some(SocketAddr::new(net.network(), port)),
        };
        let satype = match eroute.action {
            Action::Protect(id) => describe::satype(id.protocol),
            Action::Pass
            | Action::Drop
            | Action::Reject
            | Action::Trap
            | Action::TrapSubnet
            | Action::Hold => SaType::Unspec,
        };
        let mut w = Writer::new(&Base { satype_number: satype.number(), ..*base });
        let wants = eroute.policy.as_ref().filter(|policy| policy.flow.wanted.is_some());
        if let Action::Protect(id) = eroute.action {
            w.sa(&pfkey::Sa { spi: id.spi.0, ..pfkey::Sa::default() });
            if wants.is_none() {
                w.address(ExtType::AddressDst, &Address::host(id.dst));
            }
        }
        if let Some(policy) = wants {
            w.address(ExtType::AddressSrc, &Address::host(policy.ends.0));
            w.address(ExtType::AddressDst, &Address::host(policy.ends.1));
        }
        if let Some(policy) = &eroute.policy {
            w.flow_policy(&policy.flow);
        }
        w.address(ExtType::AddressInnerSrc, &net(s.src, s.sport));
        w.address(ExtType::AddressInnerDst, &net(s.dst, s.dport));
        for (kind, text) in
            [(ExtType::IdentitySrc, eroute.src_identity()), (ExtType::IdentityDst, eroute.dst_identity())]
        {
            if !text.is_empty() {
                w.identity(kind, &pfkey::Identity { kind: identity::FQDN, id: 0, text: text.as_bytes() });
            }
        }
        let last_use = eroute.last_use().map_or(0, |at: Time| self.wall_clock(at));
        w.flow(&Flow { action: wire_action(eroute.action), packets: eroute.packets(), last_use });
        w.finish().unwrap_or_default()
    }
}

const fn wire_action(action: Action) -> FlowAction {
    match action {
        Action::Protect(_) => FlowAction::Protect,
        Action::Pass => FlowAction::Pass,
        Action::Drop => FlowAction::Drop,
        Action::Reject => FlowAction::Reject,
        Action::Trap => FlowAction::Trap,
        Action::TrapSubnet => FlowAction::TrapSubnet,
        Action::Hold => FlowAction::Hold,
    }
}

/// What a flow message wants done.
fn action(ask: &Message<'_>) -> Result<Action, Fault> {
    Ok(match ask.flow.ok_or(Fault::invalid(D::BadExtlen))?.action {
        FlowAction::Protect => Action::Protect(said(ask)?),
        FlowAction::Pass => Action::Pass,
        FlowAction::Drop => Action::Drop,
        FlowAction::Reject => Action::Reject,
        FlowAction::Trap => Action::Trap,
        FlowAction::TrapSubnet => Action::TrapSubnet,
        FlowAction::Hold => Action::Hold,
    })
}

/// The SA a flow message names.
fn said(ask: &Message<'_>) -> Result<SaId, Fault> {
    let protocol = protocol(ask).ok_or(Fault::invalid(match ask.base.satype_number {
        0 => D::SatypeNeeded,
        _ => D::UnknownSatype,
    }))?;
    let sa = ask.sa.ok_or(Fault::invalid(D::MissingSa))?;
    let dst = ask.dst.ok_or(Fault::invalid(D::MissingDst))?.ip().ok_or(Fault::invalid(D::BadDstAf))?;
    Ok(SaId { dst, protocol, spi: Spi(sa.spi) })
}

/// The selector of a flow message. The addresses have been put in order.
pub(super) fn selector(ask: &Message<'_>) -> Result<Selector, Fault> {
    let (Some(src), Some(dst)) = (ask.inner_src, ask.inner_dst) else {
        return Err(Fault::invalid(D::MissingInnerSrc));
    };
    let net = |address: &Address, family, prefix| {
        let ip = address.ip().ok_or(Fault::invalid(family))?;
        IpNet::new(ip, address.prefix).map(|net| net.trunc()).map_err(|_| Fault::invalid(prefix))
    };
    // Without a protocol there are no ports (RFC 4301 §4.4.1.1).
    if dst.proto == 0 && (src.port() != 0 || dst.port() != 0) {
        return Err(Fault::invalid(D::InnerProtoMismatch));
    }
    Ok(Selector {
        src: net(&src, D::BadInnerSrcAf, D::PrefixInnerSrc)?,
        dst: net(&dst, D::BadInnerDstAf, D::PrefixInnerDst)?,
        proto: dst.proto,
        sport: src.port(),
        dport: dst.port(),
    })
}
