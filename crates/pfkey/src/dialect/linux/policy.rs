//! Messages about policy, both ways.
//!
//! | here | there |
//! |---|---|
//! | `ADDRESS_SRC`, `ADDRESS_DST` of an SPD message | the selector: inner addresses; protocol 255 is 0 there |
//! | `X_POLICY` type discard, none | an eroute that drops, that passes |
//! | type ipsec with one request | one that wants an SA (`FlowPolicy`), between the request's addresses |
//! | level default | level require |
//! | level use, require | no number for the SA, whatever the request says |
//! | direction in, fwd | policy for what comes in on SAs without selectors |
//! | several requests, mode transport, protocol other than ESP | refused: EOPNOTSUPP |
//! | types entrust and bypass, no request, a lifetime of the policy | refused: EINVAL, EOPNOTSUPP |

use super::number::ext;
use super::record::Record;
use super::sa;
use crate::ext::sockaddr;
use crate::{
    Address, Base, Diagnostic as D, Errno, ExtType, Fault, Flow, FlowAction, FlowDirection, FlowPolicy,
    Level, Lifetime, Message, MessageType, SaType, Wanted, Writer,
};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// `IPSEC_POLICY_*`.
const DISCARD: u16 = 0;
const NONE: u16 = 1;
const IPSEC: u16 = 2;
/// `IPSEC_ULPROTO_ANY`.
const ANY: u8 = 255;
/// `struct sadb_x_ipsecrequest` without its addresses.
const REQUEST: usize = 16;

const fn unsupported(diagnostic: D) -> Fault {
    Fault { errno: Errno::EOPNOTSUPP, diagnostic }
}

/// `SADB_X_EXT_POLICY` as it came.
struct Policy<'m> {
    kind: u16,
    direction: u8,
    index: u32,
    priority: u32,
    requests: &'m [u8],
}

impl<'m> Policy<'m> {
    fn read(record: &Record<'m>) -> Result<Self, Fault> {
        let bad = Fault::invalid(D::BadPolicy);
        let (head, requests) =
            record.raw(ext::POLICY).and_then(|o| o.split_first_chunk::<16>()).ok_or(bad)?;
        let &[_, _, _, _, t0, t1, direction, _, i0, i1, i2, i3, p0, p1, p2, p3] = head;
        Ok(Self {
            kind: u16::from_ne_bytes([t0, t1]),
            direction,
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            priority: u32::from_ne_bytes([p0, p1, p2, p3]),
            requests,
        })
    }

    fn direction(&self) -> Result<FlowDirection, Fault> {
        FlowDirection::from_number(self.direction).ok_or(Fault::invalid(D::BadPolicy))
    }

    /// The one SA that it wants, and the ends of its tunnel.
    fn request(&self) -> Result<(Wanted, SocketAddr, SocketAddr), Fault> {
        let bad = Fault::invalid(D::BadPolicy);
        let (head, rest) = self.requests.split_first_chunk::<REQUEST>().ok_or(bad)?;
        let &[l0, l1, protocol, high, mode, level, _, _, r0, r1, r2, r3, _, _, _, _] = head;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let ends = len.checked_sub(REQUEST).and_then(|len| rest.get(..len)).ok_or(bad)?;
        // What follows is another request, or nothing; the extension is padded to whole words.
        if rest.len().saturating_sub(ends.len()) >= REQUEST {
            return Err(unsupported(D::BadPolicy));
        }
        let level = match level {
            1 => Level::Use,
            0 | 2 => Level::Require,
            3 => Level::Unique,
            _ => return Err(bad),
        };
        if high != 0 {
            return Err(bad);
        }
        let reqid = if level == Level::Unique { u32::from_ne_bytes([r0, r1, r2, r3]) } else { 0 };
        // A transport request names no addresses; the service says that it has no such mode.
        if ends.is_empty() {
            return Err(unsupported(D::BadMode));
        }
        let src = sockaddr(ends).ok().flatten().ok_or(bad)?;
        let second = ends.get(if src.is_ipv4() { 16 } else { 28 }..).unwrap_or_default();
        let dst = sockaddr(second).ok().flatten().filter(|dst| dst.is_ipv4() == src.is_ipv4()).ok_or(bad)?;
        Ok((Wanted { protocol, mode, level, reqid }, src, dst))
    }
}

fn base(record: &Record<'_>, kind: MessageType, satype: SaType) -> Base {
    let base = Base::request(kind, satype, record.base.seq, record.base.pid);
    Base { version: record.base.version, ..base }
}

/// The selector, as the inner addresses of a native message.
fn selector(w: &mut Writer, record: &Record<'_>) -> Result<(), Fault> {
    let (src, dst) = record.ends()?;
    // Linux reads the protocol of the source.
    let proto = if src.proto == ANY { 0 } else { src.proto };
    for (kind, address) in [(ExtType::AddressInnerSrc, src), (ExtType::AddressInnerDst, dst)] {
        w.address(kind, &Address { proto, ..address });
    }
    Ok(())
}

/// SPDADD, SPDSETIDX and SPDUPDATE.
pub(super) fn add(record: &Record<'_>, kind: MessageType) -> Result<Vec<u8>, Fault> {
    let policy = Policy::read(record)?;
    let direction = policy.direction()?;
    let limit = record.lifetime(ExtType::LifetimeHard).or(record.lifetime(ExtType::LifetimeSoft));
    if limit.is_some_and(|limit| !limit.is_empty()) {
        return Err(unsupported(D::BadPolicy));
    }
    let (action, request) = match policy.kind {
        DISCARD => (FlowAction::Drop, None),
        NONE => (FlowAction::Pass, None),
        IPSEC => (FlowAction::Protect, Some(policy.request()?)),
        _ => return Err(Fault::invalid(D::BadPolicy)),
    };
    let satype = if request.is_some() { SaType::Esp } else { SaType::Unspec };
    let mut w = Writer::new(&base(record, kind, satype));
    selector(&mut w, record)?;
    w.flow(&Flow { action, packets: 0, last_use: 0 });
    if let Some((_, src, dst)) = &request {
        w.address(ExtType::AddressSrc, &Address::host(src.ip()));
        w.address(ExtType::AddressDst, &Address::host(dst.ip()));
    }
    let wanted = request.map(|(wanted, ..)| wanted);
    w.flow_policy(&FlowPolicy { direction, index: 0, priority: policy.priority, wanted });
    w.finish().map_err(|_| Fault::errno(Errno::EMSGSIZE))
}

/// SPDDELETE: by selector and direction.
pub(super) fn delete(record: &Record<'_>) -> Result<Vec<u8>, Fault> {
    let direction = Policy::read(record)?.direction()?;
    let mut w = Writer::new(&base(record, MessageType::DelFlow, SaType::Unspec));
    selector(&mut w, record)?;
    w.flow_policy(&FlowPolicy { direction, ..FlowPolicy::default() });
    w.finish().map_err(|_| Fault::errno(Errno::EMSGSIZE))
}

/// SPDGET, and the first half of SPDDELETE2: by number.
pub(super) fn get(record: &Record<'_>) -> Result<Vec<u8>, Fault> {
    let index = Policy::read(record)?.index;
    let mut w = Writer::new(&base(record, MessageType::GetFlow, SaType::Unspec));
    w.flow_policy(&FlowPolicy { index, ..FlowPolicy::default() });
    w.finish().map_err(|_| Fault::errno(Errno::EMSGSIZE))
}

/// The second half of SPDDELETE2: what GETFLOW has shown is deleted.
pub(super) fn delete_shown(shown: &Message<'_>) -> Option<Vec<u8>> {
    let base = Base::request(MessageType::DelFlow, SaType::Unspec, shown.base.seq, shown.base.pid);
    let mut w = Writer::new(&base);
    w.address(ExtType::AddressInnerSrc, &shown.inner_src?);
    w.address(ExtType::AddressInnerDst, &shown.inner_dst?);
    w.flow_policy(&shown.flow_policy?);
    w.finish().ok()
}

/// A policy as the service tells of it.
pub(super) fn tell(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let mut w = Writer::new(&Base { satype_number: SaType::Unspec.number(), ..base });
    let (src, dst) = (message.inner_src?, message.inner_dst?);
    let proto = if dst.proto == 0 { ANY } else { dst.proto };
    w.address(ExtType::AddressSrc, &Address { proto, ..src });
    w.address(ExtType::AddressDst, &Address { proto, ..dst });
    for kind in [ExtType::LifetimeHard, ExtType::LifetimeSoft] {
        w.lifetime(kind, &Lifetime::default());
    }
    let usetime = message.flow.map_or(0, |flow| flow.last_use);
    w.lifetime(ExtType::LifetimeCurrent, &Lifetime { usetime, ..Lifetime::default() });
    extension(&mut w, message);
    w.finish().ok()
}

/// SADB_X_EXT_POLICY. An eroute of another dialect is a policy for what goes out, of the middle priority.
fn extension(w: &mut Writer, message: &Message<'_>) {
    let unranked = FlowPolicy { priority: FlowPolicy::MIDDLE, ..FlowPolicy::default() };
    let policy = message.flow_policy.unwrap_or(unranked);
    let action = message.flow.map(|flow| flow.action);
    let protects = matches!(action, Some(FlowAction::Protect | FlowAction::Trap | FlowAction::Hold));
    let kind = match action {
        _ if policy.wanted.is_some() || protects => IPSEC,
        Some(FlowAction::Pass) => NONE,
        _ => DISCARD,
    };
    let named = message.sa.is_some() && message.flow_policy.is_none();
    let request = policy.wanted.or(named.then_some(Wanted {
        protocol: protocol(message.base.satype_number),
        mode: super::number::mode::TUNNEL,
        level: Level::Require,
        reqid: 0,
    }));
    w.numbered(ext::POLICY, |octets| {
        octets.extend_from_slice(&kind.to_ne_bytes());
        octets.extend_from_slice(&[policy.direction.number(), 0]);
        octets.extend_from_slice(&policy.index.to_ne_bytes());
        octets.extend_from_slice(&policy.priority.to_ne_bytes());
        if let Some(wanted) = request {
            let ip = |address: Option<Address>| address.and_then(|address| address.ip());
            let dst = ip(message.dst).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            let nowhere = if dst.is_ipv4() { dst } else { IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED) };
            let src = ip(message.src).unwrap_or(if dst.is_ipv4() { [0; 4].into() } else { nowhere });
            put_request(octets, wanted, src, dst);
        }
    });
}

/// One `struct sadb_x_ipsecrequest` with its addresses.
fn put_request(octets: &mut Vec<u8>, wanted: Wanted, src: IpAddr, dst: IpAddr) {
    let level = match wanted.level {
        Level::Use => 1,
        Level::Require => 2,
        Level::Unique => 3,
    };
    let mut ends = Vec::new();
    for ip in [src, dst] {
        crate::write::sockaddr(&mut ends, SocketAddr::new(ip, 0));
    }
    let len = u16::try_from(ends.len().saturating_add(REQUEST)).unwrap_or(u16::MAX);
    octets.extend_from_slice(&len.to_ne_bytes());
    octets.extend_from_slice(&u16::from(wanted.protocol).to_ne_bytes());
    octets.extend_from_slice(&[wanted.mode, level, 0, 0]);
    octets.extend_from_slice(&wanted.reqid.to_ne_bytes());
    octets.extend_from_slice(&[0; 4]);
    octets.append(&mut ends);
}

/// The IP protocol of an SA type.
const fn protocol(satype: u8) -> u8 {
    match SaType::from_number(satype) {
        Some(SaType::Ah) => 51,
        Some(SaType::Ipip) => 4,
        Some(SaType::Ipcomp) => 108,
        Some(SaType::Esp | SaType::Unspec) | None => 50,
    }
}

/// ACQUIRE: between which ends, for which policy, with what.
pub(super) fn acquire(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let satype_number = sa::their_satype(message.base.satype()?)?;
    let mut w = Writer::new(&Base { satype_number, ..base });
    for (kind, address) in [(ExtType::AddressSrc, message.src), (ExtType::AddressDst, message.dst)] {
        if let Some(ip) = address.and_then(|address| address.ip()) {
            w.address(kind, &sa::whole(ip));
        }
    }
    sa::tell_proposal(&mut w, message);
    let policy = message.flow_policy.unwrap_or_default();
    w.numbered(ext::POLICY, |octets| {
        octets.extend_from_slice(&IPSEC.to_ne_bytes());
        octets.extend_from_slice(&[FlowDirection::Out.number(), 0]);
        octets.extend_from_slice(&policy.index.to_ne_bytes());
        octets.extend_from_slice(&policy.priority.to_ne_bytes());
    });
    w.finish().ok()
}

/// SADB_X_NAT_T_NEW_MAPPING: the SA, where its peer was, where it is. Which port it had before is not told.
pub(super) fn new_mapping(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let satype_number = sa::their_satype(message.base.satype()?)?;
    let mut w = Writer::new(&Base { satype_number, ..base });
    let (named, was, is) = (message.sa?, message.src?.ip()?, message.new_src?);
    w.sa(&crate::Sa { spi: named.spi, ..crate::Sa::default() });
    let port = |w: &mut Writer, number, port: u16| {
        w.numbered(number, |octets| {
            octets.extend_from_slice(&port.to_be_bytes());
            octets.extend_from_slice(&[0; 2]);
        });
    };
    w.address(ExtType::AddressSrc, &sa::whole(was));
    port(&mut w, ext::NAT_T_SPORT, 0);
    w.address(ExtType::AddressDst, &sa::whole(is.ip()?));
    port(&mut w, ext::NAT_T_DPORT, is.port());
    w.finish().ok()
}
