//! Eroutes, both ways.
//!
//! | here | there |
//! |---|---|
//! | `ADDRESS_SRC_FLOW` and `_MASK`, `_DST_FLOW` and `_MASK`, `PROTOCOL` | `AddressInnerSrc`, `AddressInnerDst` |
//! | ADDFLOW with SATYPE_INT and the SPI of a word, or `tun` with SPI 0 | the action of that word; `%trapsubnet` is `%trap` |
//! | ADDFLOW with REPLACEFLOW | REPLACEFLOW: one change, of which no packet sees half |
//! | ADDFLOW with INFLOW or POLICYONLY | GROUPSA of the group as it is, with the selector for what comes on its `tun` (`group`) |
//! | DELFLOW with INFLOW or POLICYONLY | refused: EOPNOTSUPP, BAD_SAFLAGS; what is no longer to come in ends with its SA |
//! | DELFLOW with CLEARFLOW | FLUSHFLOWS |
//! | a mask that is no prefix | refused: EINVAL, PREFIX_INNER_SRC or PREFIX_INNER_DST |

use super::group::{Name, Plan};
use super::number::{SATYPE_INT, ext, flags, message as number, word};
use super::record::Record;
use super::sa::{finish, host, put_sa};
use crate::dialect::parts;
use crate::{
    Address, Base, Diagnostic as D, Errno, ExtType, Fault, Flow, FlowAction, Message, MessageType, Sa,
    SaType, Writer,
};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What an ADDFLOW or a DELFLOW is.
pub(super) enum Request {
    /// A native request, and its type.
    Native(MessageType, Vec<u8>),
    /// Something that is done to a whole group.
    Group(Plan),
}

/// What is asked for.
pub(super) fn request(record: &Record<'_>) -> Result<Request, Fault> {
    let flags = record.sa(1).map_or(0, |sa| sa.flags);
    if flags & (flags::INFLOW | flags::POLICYONLY) == 0 {
        return native(record).map(|(kind, message)| Request::Native(kind, message));
    }
    if record.base.number == number::DELFLOW {
        return Err(Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::BadSaflags });
    }
    let name = Name::read(record, record.base.satype_number, 1, 6)?;
    let [src, dst] = selector(record)?;
    Ok(Request::Group(Plan::Inbound(name, src, dst)))
}

/// The native request that an eroute of packets that leave is, and its type.
fn native(record: &Record<'_>) -> Result<(MessageType, Vec<u8>), Fault> {
    let sa = record.sa(1).ok();
    let flags = sa.map_or(0, |sa| sa.flags);
    let base = Base { diagnostic: 0, errno: Errno(0), satype_number: 0, ..record.base };
    if record.base.number == number::DELFLOW {
        if flags & flags::CLEARFLOW != 0 {
            let kind = MessageType::FlushFlows;
            return Ok((kind, crate::dialect::header(&Base { number: kind.number(), ..base })));
        }
        let kind = MessageType::DelFlow;
        let mut w = Writer::new(&Base { number: kind.number(), ..base });
        put_selector(&mut w, &selector(record)?);
        return Ok((kind, finish(w)?));
    }
    let kind = if flags & flags::REPLACEFLOW != 0 { MessageType::ReplaceFlow } else { MessageType::AddFlow };
    let sa = sa.ok_or(Fault::invalid(D::MissingSa))?;
    let action = action(record.base.satype_number, sa.spi)?;
    let satype_number = if action == FlowAction::Protect { record.base.satype_number } else { 0 };
    let mut w = Writer::new(&Base { number: kind.number(), satype_number, ..base });
    if action == FlowAction::Protect {
        w.sa(&Sa { spi: sa.spi, ..Sa::default() });
        w.address(ExtType::AddressDst, &host(&record.address(6, D::MissingDst, D::MalformedDst)?));
    }
    put_selector(&mut w, &selector(record)?);
    parts::ask_identities(&mut w, record);
    w.flow(&Flow { action, packets: 0, last_use: 0 });
    Ok((kind, finish(w)?))
}

/// What an eroute to this SA does.
fn action(satype: u8, spi: u32) -> Result<FlowAction, Fault> {
    match (satype, spi) {
        (SATYPE_INT, word::PASS) => Ok(FlowAction::Pass),
        (SATYPE_INT, word::DROP) => Ok(FlowAction::Drop),
        (SATYPE_INT, word::REJECT) => Ok(FlowAction::Reject),
        (SATYPE_INT, word::HOLD) => Ok(FlowAction::Hold),
        (SATYPE_INT, word::TRAP) => Ok(FlowAction::Trap),
        (SATYPE_INT, word::TRAPSUBNET) => Ok(FlowAction::TrapSubnet),
        (SATYPE_INT, _) => Err(Fault::invalid(D::MalformedSa)),
        // %passthrough, as it was written before there were words.
        (satype, 0) if satype == SaType::Ipip.number() => Ok(FlowAction::Pass),
        (satype, _) => super::sa::satype(satype).map(|_| FlowAction::Protect),
    }
}

/// The selector: two networks, a protocol, two ports.
fn selector(record: &Record<'_>) -> Result<[Address; 2], Fault> {
    let src = (ext::SRC_FLOW, ext::SRC_MASK, D::MissingInnerSrc, D::MalformedInnerSrc, D::PrefixInnerSrc);
    let dst = (ext::DST_FLOW, ext::DST_MASK, D::MissingInnerDst, D::MalformedInnerDst, D::PrefixInnerDst);
    let proto = record.octet(ext::PROTOCOL).unwrap_or(0);
    let side = |(net, mask, missing, malformed, bad)| {
        let net = record.address(net, missing, malformed)?;
        let mask = record.address(mask, missing, malformed)?;
        let (Some(net), Some(mask)) = (net.socket, mask.ip()) else { return Err(Fault::invalid(malformed)) };
        if net.is_ipv4() != mask.is_ipv4() {
            return Err(Fault::invalid(D::InnerAfMismatch));
        }
        let prefix = prefix(mask).ok_or(Fault::invalid(bad))?;
        Ok(Address { proto, prefix, socket: Some(net) })
    };
    Ok([side(src)?, side(dst)?])
}

fn put_selector(w: &mut Writer, [src, dst]: &[Address; 2]) {
    w.address(ExtType::AddressInnerSrc, src).address(ExtType::AddressInnerDst, dst);
}

/// The length of the prefix that a mask is.
fn prefix(mask: IpAddr) -> Option<u8> {
    let (bits, width) = match mask {
        IpAddr::V4(mask) => (u128::from(mask.to_bits()) << 96, 32),
        IpAddr::V6(mask) => (mask.to_bits(), 128),
    };
    let ones = bits.leading_ones();
    (bits.count_ones() == ones && ones <= width).then(|| u8::try_from(ones).ok()).flatten()
}

/// A message about an eroute, in words of the dialect.
pub(super) fn tell(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let (src, dst) = (message.inner_src?, message.inner_dst?);
    let word = |spi| (SATYPE_INT, spi, Address::host(Ipv4Addr::UNSPECIFIED.into()));
    let (satype_number, spi, edst) = match message.flow.map(|flow| flow.action) {
        Some(FlowAction::Protect) | None => {
            let edst = message.dst.unwrap_or(Address::host(Ipv4Addr::UNSPECIFIED.into()));
            (message.base.satype_number, message.sa.map_or(0, |sa| sa.spi), edst)
        }
        Some(FlowAction::Pass) => word(word::PASS),
        Some(FlowAction::Drop) => word(word::DROP),
        Some(FlowAction::Reject) => word(word::REJECT),
        Some(FlowAction::Trap) => word(word::TRAP),
        Some(FlowAction::TrapSubnet) => word(word::TRAPSUBNET),
        Some(FlowAction::Hold) => word(word::HOLD),
    };
    let replace = message.base.kind() == Some(MessageType::ReplaceFlow);
    let flags = if replace { flags::REPLACEFLOW } else { 0 };
    let mut w = Writer::new(&Base { satype_number, ..base });
    put_sa(&mut w, 1, &Sa { spi, flags, ..Sa::default() });
    w.address(ExtType::AddressDst, &host(&edst));
    put_flow(&mut w, &src, &dst)?;
    parts::tell_identities(&mut w, message);
    put_protocol(&mut w, &dst);
    w.finish().ok()
}

/// ADDFLOW of what may come on an SA.
pub(super) fn tell_inbound(name: &Name, src: &Address, dst: &Address, base: Base) -> Option<Vec<u8>> {
    let mut w = Writer::new(&base);
    put_sa(&mut w, 1, &Sa { spi: name.member.spi, flags: flags::INFLOW, ..Sa::default() });
    w.address(ExtType::AddressDst, &name.dst);
    put_flow(&mut w, src, dst)?;
    put_protocol(&mut w, dst);
    w.finish().ok()
}

/// The four extensions of a flow.
fn put_flow(w: &mut Writer, src: &Address, dst: &Address) -> Option<()> {
    let plain = |address: &Address| Address { proto: 0, prefix: 0, socket: address.socket };
    for (number, address) in [(ext::SRC_FLOW, plain(src)), (ext::DST_FLOW, plain(dst))] {
        w.address_numbered(number, &address);
    }
    for (number, net) in [(ext::SRC_MASK, src), (ext::DST_MASK, dst)] {
        w.address_numbered(number, &Address::host(mask(net)?));
    }
    Some(())
}

fn put_protocol(w: &mut Writer, dst: &Address) {
    if dst.proto != 0 {
        w.numbered(ext::PROTOCOL, |octets| octets.extend_from_slice(&[dst.proto, 0, 0, 0]));
    }
}

/// DELFLOW of all eroutes.
pub(super) fn tell_clear(base: Base) -> Option<Vec<u8>> {
    let mut w = Writer::new(&base);
    put_sa(&mut w, 1, &Sa { flags: flags::CLEARFLOW, ..Sa::default() });
    w.finish().ok()
}

/// The mask of a network.
fn mask(net: &Address) -> Option<IpAddr> {
    let ones = |width: u32| u128::MAX.checked_shl(width.saturating_sub(u32::from(net.prefix))).unwrap_or(0);
    Some(match net.socket? {
        SocketAddr::V4(_) => IpAddr::V4(u32::try_from(ones(32) & u128::from(u32::MAX)).ok()?.into()),
        SocketAddr::V6(_) => IpAddr::V6(ones(128).into()),
    })
}
