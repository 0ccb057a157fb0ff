//! INVERSE_ACQUIRE: which policy applies, so what a key manager should agree to (pf_key(7P)).

use super::Control;
use pfkey::{Address, Diagnostic as D, Errno, Fault, Message};

impl Control {
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
