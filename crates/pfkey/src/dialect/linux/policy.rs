//! Messages about policy, both ways.
//!
//! | here | there |
//! |---|---|
//! | `ADDRESS_SRC`, `ADDRESS_DST` of an SPD message | the selector: inner addresses; protocol 255 is 0 there |
//! | `X_POLICY` type discard, none | an eroute that drops, that passes |
//! | type ipsec | one that wants SAs (`FlowPolicy`), the first innermost, between the addresses of its request |
//! | level default | level require |
//! | level use, require | no number for the SA, whatever the request says |
//! | direction in, fwd | policy for what comes in on SAs without selectors |
//! | mode transport | an SA between the two hosts of the selector; refused, EOPNOTSUPP, where it is not about two hosts |
//! | mode transport behind another request | around that one's tunnel or between the same hosts |
//! | more than four requests, mode tunnel behind another, IPComp as the last | refused: EOPNOTSUPP |
//! | types entrust and bypass, no request, a lifetime of the policy | refused: EINVAL, EOPNOTSUPP |

use super::number::{ext, mode};
use super::record::Record;
use super::sa;
use crate::dialect::parts;
use crate::ext::sockaddr;
use crate::{
    Address, Base, Diagnostic as D, Errno, ExtType, Fault, Flow, FlowAction, FlowDirection, FlowPolicy,
    Further, Level, Lifetime, Message, MessageType, SaType, Wanted, Writer,
};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `IPSEC_POLICY_*`.
const DISCARD: u16 = 0;
const NONE: u16 = 1;
const IPSEC: u16 = 2;
/// ESP, AH and IPComp.
const PROTOCOLS: [u8; 3] = [50, 51, 108];
/// `IPSEC_ULPROTO_ANY`.
const ANY: u8 = 255;
/// `struct sadb_x_ipsecrequest` without its addresses.
const REQUEST: usize = 16;

const fn unsupported(diagnostic: D) -> Fault {
    Fault { errno: Errno::EOPNOTSUPP, diagnostic }
}

/// `SADB_X_EXT_POLICY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `IPSEC_POLICY_*`: 0 discard, 1 none, 2 ipsec.
    pub kind: u16,
    /// `IPSEC_DIR_*`: 1 in, 2 out, 3 fwd.
    pub direction: u8,
    /// Its number.
    pub index: u32,
    /// The smallest decides.
    pub priority: u32,
    /// The SAs that it wants, in the order in which they are applied.
    pub requests: Vec<Request>,
}

/// `struct sadb_x_ipsecrequest`: one SA that a policy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The IP protocol: 50 for ESP.
    pub protocol: u8,
    /// `IPSEC_MODE_*`.
    pub mode: u8,
    /// `IPSEC_LEVEL_*`; `None` is default, which is require.
    pub level: Option<Level>,
    /// The number that the SA must have, if it is to be unique.
    pub reqid: u32,
    /// The ends of the tunnel.
    pub ends: Option<(IpAddr, IpAddr)>,
}

impl Policy {
    /// Reads the extension.
    pub fn read(record: &Record<'_>) -> Result<Self, Fault> {
        let bad = Fault::invalid(D::BadPolicy);
        let (head, mut rest) =
            record.raw(ext::POLICY).and_then(|o| o.split_first_chunk::<16>()).ok_or(bad)?;
        let &[_, _, _, _, t0, t1, direction, _, i0, i1, i2, i3, p0, p1, p2, p3] = head;
        let mut requests = Vec::new();
        // What is shorter than a request is padding.
        while rest.len() >= REQUEST {
            let (request, after) = Request::read(rest).ok_or(bad)?;
            requests.push(request);
            rest = after;
        }
        Ok(Self {
            kind: u16::from_ne_bytes([t0, t1]),
            direction,
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            priority: u32::from_ne_bytes([p0, p1, p2, p3]),
            requests,
        })
    }

    /// Writes the extension.
    pub fn write(&self, w: &mut Writer) {
        w.numbered(ext::POLICY, |octets| {
            octets.extend_from_slice(&self.kind.to_ne_bytes());
            octets.extend_from_slice(&[self.direction, 0]);
            octets.extend_from_slice(&self.index.to_ne_bytes());
            octets.extend_from_slice(&self.priority.to_ne_bytes());
            self.requests.iter().for_each(|request| request.write(octets));
        });
    }

    fn direction(&self) -> Result<FlowDirection, Fault> {
        FlowDirection::from_number(self.direction).ok_or(Fault::invalid(D::BadPolicy))
    }

    /// The SAs that it wants, the innermost first, each with its ends.
    fn wanted(&self, record: &Record<'_>) -> Result<Vec<Further>, Fault> {
        if self.requests.is_empty() {
            return Err(Fault::invalid(D::BadPolicy));
        }
        // What comes out of a tunnel is for the device and not for another SA, so a tunnel is the innermost.
        let most = FlowPolicy::MOST_FURTHER.saturating_add(1);
        if self.requests.len() > most || self.requests.iter().skip(1).any(|one| one.mode == mode::TUNNEL) {
            return Err(unsupported(D::BadPolicy));
        }
        let mut wanted: Vec<Further> = Vec::new();
        for request in &self.requests {
            mode::known(request.mode)?;
            let none = request.mode == mode::TUNNEL && request.ends.is_none();
            if none || !PROTOCOLS.contains(&request.protocol) {
                return Err(Fault::invalid(D::BadPolicy));
            }
            // In transport mode they are those of the packet: of the tunnel inside of it, or where there is none the hosts
            // that the policy is about, if it is about two.
            let (src, dst) = match (wanted.last(), request.ends) {
                (Some(inside), _) => (inside.src, inside.dst),
                (None, Some(ends)) => ends,
                (None, None) => {
                    let (src, dst) = record.ends()?;
                    let host = |address: &Address| {
                        address.ip().filter(|ip| address.prefix == if ip.is_ipv4() { 32 } else { 128 })
                    };
                    host(&src).zip(host(&dst)).ok_or(unsupported(D::BadMode))?
                }
            };
            let level = request.level.unwrap_or(Level::Require);
            let reqid = if level == Level::Unique { request.reqid } else { 0 };
            let Request { protocol, mode, .. } = *request;
            wanted.push(Further { wanted: Wanted { protocol, mode, level, reqid }, src, dst });
        }
        Ok(wanted)
    }
}

impl Request {
    /// The first request of some octets, and what is behind it.
    fn read(octets: &[u8]) -> Option<(Self, &[u8])> {
        let &[l0, l1, protocol, 0, mode, level, _, _, r0, r1, r2, r3, ..] =
            octets.first_chunk::<REQUEST>()?
        else {
            return None;
        };
        let (whole, rest) = octets.split_at_checked(usize::from(u16::from_ne_bytes([l0, l1])))?;
        let addresses = whole.get(REQUEST..)?;
        let level = match level {
            0 => None,
            1 => Some(Level::Use),
            2 => Some(Level::Require),
            3 => Some(Level::Unique),
            _ => return None,
        };
        let ends = if addresses.is_empty() {
            None
        } else {
            let src = sockaddr(addresses).ok().flatten()?.ip();
            let dst = sockaddr(addresses.get(if src.is_ipv4() { 16 } else { 28 }..)?).ok().flatten()?.ip();
            Some((src, dst)).filter(|_| src.is_ipv4() == dst.is_ipv4())
        };
        let reqid = u32::from_ne_bytes([r0, r1, r2, r3]);
        let torn = ends.is_none() && !addresses.is_empty();
        (!torn).then_some((Self { protocol, mode, level, reqid, ends }, rest))
    }

    fn write(&self, octets: &mut Vec<u8>) {
        let level = self.level.map_or(0, Level::number);
        let mut ends = Vec::new();
        for ip in self.ends.into_iter().flat_map(|(src, dst)| [src, dst]) {
            crate::write::sockaddr(&mut ends, SocketAddr::new(ip, 0));
        }
        let len = u16::try_from(ends.len().saturating_add(REQUEST)).unwrap_or(u16::MAX);
        octets.extend_from_slice(&len.to_ne_bytes());
        octets.extend_from_slice(&u16::from(self.protocol).to_ne_bytes());
        octets.extend_from_slice(&[self.mode, level, 0, 0]);
        octets.extend_from_slice(&self.reqid.to_ne_bytes());
        octets.extend_from_slice(&[0; 4]);
        octets.append(&mut ends);
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
    let (action, mut wanted) = match policy.kind {
        DISCARD => (FlowAction::Drop, Vec::new()),
        NONE => (FlowAction::Pass, Vec::new()),
        IPSEC => (FlowAction::Protect, policy.wanted(record)?),
        _ => return Err(Fault::invalid(D::BadPolicy)),
    };
    let further = wanted.split_off(wanted.len().min(1));
    let innermost = wanted.first();
    let satype = if innermost.is_some() { SaType::Esp } else { SaType::Unspec };
    let mut w = Writer::new(&base(record, kind, satype));
    selector(&mut w, record)?;
    w.flow(&Flow { action, packets: 0, last_use: 0 });
    if let Some(Further { src, dst, .. }) = innermost {
        w.address(ExtType::AddressSrc, &Address::host(*src));
        w.address(ExtType::AddressDst, &Address::host(*dst));
    }
    let wanted = innermost.map(|innermost| innermost.wanted);
    w.flow_policy(&FlowPolicy { direction, index: 0, priority: policy.priority, wanted, further });
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
    w.flow_policy(shown.flow_policy.as_ref()?);
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
    let policy = message.flow_policy.as_ref().unwrap_or(&unranked);
    let action = message.flow.map(|flow| flow.action);
    let protects = matches!(
        action,
        Some(FlowAction::Protect | FlowAction::Trap | FlowAction::TrapSubnet | FlowAction::Hold)
    );
    let kind = match action {
        _ if policy.wanted.is_some() || protects => IPSEC,
        Some(FlowAction::Pass) => NONE,
        _ => DISCARD,
    };
    let named = message.sa.is_some() && message.flow_policy.is_none();
    let innermost = policy.wanted.or(named.then_some(Wanted {
        protocol: protocol(message.base.satype_number),
        mode: mode::TUNNEL,
        level: Level::Require,
        reqid: 0,
    }));
    let ip = |address: Option<Address>| address.and_then(|address| address.ip());
    let dst = ip(message.dst).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let anywhere = if dst.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let src = ip(message.src).unwrap_or(anywhere);
    let innermost = innermost.map(|wanted| Further { wanted, src, dst });
    let requests = innermost.iter().chain(&policy.further).map(|Further { wanted, src, dst }| {
        let Wanted { protocol, mode, level, reqid } = *wanted;
        let ends = (mode == mode::TUNNEL).then_some((*src, *dst));
        Request { protocol, mode, level: Some(level), reqid, ends }
    });
    let (direction, index) = (policy.direction.number(), policy.index);
    Policy { kind, direction, index, priority: policy.priority, requests: requests.collect() }.write(w);
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
    let none = FlowPolicy::default();
    let policy = message.flow_policy.as_ref().unwrap_or(&none);
    let (direction, index) = (FlowDirection::Out.number(), policy.index);
    Policy { kind: IPSEC, direction, index, priority: policy.priority, requests: Vec::new() }.write(&mut w);
    w.finish().ok()
}

/// SADB_X_NAT_T_NEW_MAPPING: the SA, where its peer was, where it is, each with its port.
pub(super) fn new_mapping(message: &Message<'_>, base: Base) -> Option<Vec<u8>> {
    let satype_number = sa::their_satype(message.base.satype()?)?;
    let mut w = Writer::new(&Base { satype_number, ..base });
    let (named, was, is) = (message.sa?, message.src?.ip()?, message.new_src?);
    w.sa(&crate::Sa { spi: named.spi, ..crate::Sa::default() });
    w.address(ExtType::AddressSrc, &sa::whole(was));
    parts::port(&mut w, ext::NAT_T_SPORT, message.natt_rem.map_or(0, |address| address.port()));
    w.address(ExtType::AddressDst, &sa::whole(is.ip()?));
    parts::port(&mut w, ext::NAT_T_DPORT, is.port());
    w.finish().ok()
}
