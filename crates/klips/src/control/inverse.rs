//! INVERSE_ACQUIRE: which policy applies, so what a key manager should agree to (pf_key(7P)).

use super::{Control, Hearers, acquire};
use crate::eroute::Action;
use crate::keysock::SocketId;
use ipsec_core::Flow;
use pfkey::{Address, Base, Diagnostic as D, Errno, Fault, Message, MessageType};

impl Control {
    /// INVERSE_ACQUIRE: an extended ACQUIRE for the eroute that such a packet meets, if it is one that protects.
    pub(super) fn inverse_acquire(&mut self, from: SocketId, ask: &Message<'_>) -> Result<(), Fault> {
        Self::check_inverse(ask)?;
        let none = Fault::errno(Errno::ENOENT);
        let ip =
            |address: Option<Address>| address.and_then(|address| address.ip()).map(|ip| ip.to_canonical());
        let (src, dst) = (ip(ask.src).ok_or(none)?, ip(ask.dst).ok_or(none)?);
        // In tunnel mode policy is about what is inside.
        let (inside_src, inside_dst) = (ask.inner_src.or(ask.src), ask.inner_dst.or(ask.dst));
        let port = |address: Option<Address>| address.map_or(0, |address| address.port());
        let proto = |address: Option<Address>| address.map_or(0, |address| address.proto);
        let flow = Flow {
            src: ip(inside_src).ok_or(none)?,
            dst: ip(inside_dst).ok_or(none)?,
            proto: proto(inside_dst).max(proto(inside_src)),
            sport: port(inside_src),
            dport: port(inside_dst),
        };
        let eroute = self.plane.eroutes().lookup(&flow).cloned().ok_or(none)?;
        match eroute.action {
            Action::Protect(_) | Action::Trap | Action::TrapSubnet | Action::Hold => {}
            Action::Pass | Action::Drop | Action::Reject => return Err(none),
        }
        let base =
            Base { number: MessageType::Acquire.number(), satype_number: 0, ..super::answer(&ask.base) };
        let message = acquire::extended(&base, &eroute, acquire::protocols(&eroute).into_iter(), src, dst);
        self.sockets.deliver(Hearers::SenderAndExtended(from), message);
        Ok(())
    }

    /// What is wrong with an INVERSE_ACQUIRE, in its own order and with its own words.
    pub(super) fn check_inverse(ask: &Message<'_>) -> Result<(), Fault> {
        let src = ask.src.ok_or(Fault::invalid(D::MissingSrc))?;
        let dst = ask.dst.ok_or(Fault::invalid(D::MissingDst))?;
        let inner = match (ask.inner_src, ask.inner_dst) {
            (Some(_), None) => return Err(Fault::invalid(D::MissingInnerDst)),
            (None, Some(_)) => return Err(Fault::invalid(D::MissingInnerSrc)),
            (None, None) => None,
            (Some(src), Some(dst)) => Some((src, dst)),
        };
        let v4 = |address: &Address, fault| {
            address.ip().map(|ip| ip.to_canonical().is_ipv4()).ok_or(Fault::invalid(fault))
        };
        if v4(&src, D::BadSrc)? != v4(&dst, D::BadDst)? {
            return Err(Fault::invalid(D::AfMismatch));
        }
        let Some((inner_src, inner_dst)) = inner else { return Ok(()) };
        let inner_v4 = v4(&inner_src, D::MalformedInnerSrc)?;
        if inner_v4 != v4(&inner_dst, D::MalformedInnerDst)? {
            return Err(Fault::invalid(D::InnerAfMismatch));
        }
        let carrier = if inner_v4 { 4 } else { 41 };
        if [src.proto, dst.proto].iter().any(|proto| *proto != 0 && *proto != carrier) {
            return Err(Fault::errno(Errno::EPROTOTYPE));
        }
        Ok(())
    }
}
