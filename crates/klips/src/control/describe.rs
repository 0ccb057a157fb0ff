//! Messages about SAs, made from what is stored.
//!
//! Invariant: keys are written in one place, [`Control::describe`], and only where the table of rules says that an answer is
//! whole: GET and DUMP.

use super::add::{BESIDE_IDENTITIES, SELECTOR_OCTETS};
use super::expire::Limit;
use super::{Control, flag};
use crate::discard::Discard;
use crate::sa::Sa;
use crate::sadb::Record;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use ipsec_core::algorithm::Encryption;
use ipsec_core::{Protocol, Selector, Time};
use pfkey::rules::{Reply, Rule};
use pfkey::{
    Address, Base, Counters, ExtType, Identity, InnerPair, KmCookie, Lifetime, Member, Message, MessageType,
    PacketLimits, Pair, ReplayValue, SaParams, SaType, Writer, state,
};

/// UDP, the protocol of NAT-T addresses.
const UDP: u8 = 17;

/// The SA type of a protocol.
pub(super) const fn satype(protocol: Protocol) -> SaType {
    match protocol {
        Protocol::Ah => SaType::Ah,
        Protocol::Esp => SaType::Esp,
        Protocol::Ipip => SaType::Ipip,
        Protocol::Ipcomp => SaType::Ipcomp,
    }
}

/// What a message shows of an SA that others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Show {
    keys: bool,
    counters: bool,
}

impl Show {
    pub(super) const NO_KEYS: Self = Self { keys: false, counters: false };

    /// What the rules say of a message's answer.
    pub(super) fn of(rule: &Rule) -> Self {
        Self { keys: rule.reply == Reply::Whole, ..Self::NO_KEYS }
    }

    /// The same, with the counters if the request has the extension that they go in: it is native, and a program of
    /// pf_key(7P) need not know it.
    pub(super) const fn asked_by(self, ask: &Message<'_>) -> Self {
        Self { counters: ask.counters.is_some(), ..self }
    }
}

impl Control {
    /// Everything there is to say about an SA, in pf_key(7P)'s order.
    pub(super) fn describe(&self, base: &Base, record: &Record, state: u8, show: Show) -> Vec<u8> {
        // Large enough for all of it, so that no copy of keys is left behind where the buffer grew.
        let extras = record.extras();
        let names = extras.map_or([None, None], |e| [e.src_identity.as_ref(), e.dst_identity.as_ref()]);
        let names =
            names.into_iter().flatten().fold(0_usize, |sum, name| sum.saturating_add(name.text.len()));
        let esp = record.sa.as_deref();
        let more = esp.and_then(Sa::more).map_or(0, |more| more.len().saturating_mul(SELECTOR_OCTETS));
        let beside = BESIDE_IDENTITIES.saturating_add(more);
        let mut w = Writer::with_capacity(base, beside.saturating_add(names));
        w.sa(&self.wire_sa(record, state));
        w.lifetime(ExtType::LifetimeCurrent, &self.current(record));
        for (kind, limit) in [(ExtType::LifetimeHard, &record.hard), (ExtType::LifetimeSoft, &record.soft)] {
            if !limit.is_empty() {
                w.lifetime(kind, limit);
            }
        }
        if let Some(idle) = extras.map(|extras| extras.idle).filter(|idle| *idle != Default::default()) {
            let idle = Lifetime { addtime: idle.addtime, usetime: idle.usetime, ..Lifetime::default() };
            w.lifetime(ExtType::LifetimeIdle, &idle);
        }
        if record.packet_limits() != PacketLimits::default() {
            w.packet_limits(&record.packet_limits());
        }
        if let Some(tfc) = esp.map(|sa| sa.hiding().asked()).filter(|tfc| *tfc != Default::default()) {
            w.tfc(&tfc);
        }
        outer(&mut w, record);
        natt(&mut w, record);
        inner(&mut w, record);
        if record.km != Default::default() {
            w.km_cookie(&KmCookie { proto: record.km.proto, cookie: record.km.cookie });
        }
        if record.policy != Default::default() {
            w.sa_policy(&record.policy);
        }
        if let Some(sa) = esp.filter(|_| show.keys) {
            keys(&mut w, sa);
        }
        if let Some(extras) = extras {
            let identities =
                [(ExtType::IdentitySrc, &extras.src_identity), (ExtType::IdentityDst, &extras.dst_identity)];
            for (kind, identity) in identities {
                if let Some(identity) = identity {
                    w.identity(kind, &Identity { kind: identity.kind, id: 0, text: &identity.text });
                }
            }
        }
        if record.flags & flag::PAIRED != 0 {
            w.pair(&Pair { spi: record.pair });
        }
        if let Some(sa) = esp {
            let counter = if record.flags & flag::BOTH == flag::INBOUND { sa.received() } else { sa.sent() };
            if counter != 0 {
                let high = if sa.esn { counter } else { 0 };
                w.replay_value(&ReplayValue { low: counter as u32, high });
            }
            // Only for those who asked for more than pf_key(7P) knows.
            if sa.esn || record.window > u32::from(u8::MAX) {
                w.sa_params(&SaParams { window: record.window, esn: sa.esn });
            }
        }
        if let Some(group) = extras.and_then(|extras| extras.group.as_deref()) {
            let member =
                |id: &ipsec_core::SaId| Member { satype: satype(id.protocol).number(), spi: id.spi.0 };
            w.group(&group.iter().map(member).collect::<Vec<_>>());
        }
        if show.counters {
            w.counters(&esp.map_or(Counters::default(), |sa| counters(sa, record)));
        }
        w.finish().unwrap_or_default()
    }

    /// EXPIRE: the SA, what it has used, the limit that was reached, its addresses.
    pub(super) fn describe_expire(&self, record: &Record, limit: Limit) -> Vec<u8> {
        let base = Base::request(MessageType::Expire, satype(record.id.protocol), 0, 0);
        let mut w = Writer::new(&base);
        let (state, kind) = match limit {
            Limit::Soft => (state::DYING, ExtType::LifetimeSoft),
            Limit::Hard => (state::DEAD, ExtType::LifetimeHard),
            Limit::Idle => (state::MATURE, ExtType::LifetimeIdle),
        };
        w.sa(&self.wire_sa(record, state));
        w.lifetime(ExtType::LifetimeCurrent, &self.current(record));
        match limit {
            Limit::Soft => w.lifetime(kind, &record.soft),
            Limit::Hard => w.lifetime(kind, &record.hard),
            Limit::Idle => {
                let idle = record.extras().map_or(Default::default(), |extras| extras.idle);
                let idle = Lifetime { addtime: idle.addtime, usetime: idle.usetime, ..Lifetime::default() };
                w.lifetime(kind, &idle)
            }
        };
        if record.packet_limits() != PacketLimits::default() {
            w.packet_limits(&record.packet_limits());
        }
        outer(&mut w, record);
        if record.flags & flag::TUNNEL != 0 {
            inner(&mut w, record);
        }
        w.km_cookie(&KmCookie { proto: record.km.proto, cookie: record.km.cookie });
        if record.policy != Default::default() {
            w.sa_policy(&record.policy);
        }
        w.finish().unwrap_or_default()
    }

    pub(super) fn wire_sa(&self, record: &Record, state: u8) -> pfkey::Sa {
        let used = record.sa.as_ref().is_some_and(|sa| sa.first_use().is_some());
        pfkey::Sa {
            spi: record.id.spi.0,
            replay: record.replay,
            state,
            auth: record.auth,
            encrypt: record.encrypt,
            flags: record.flags | if used { flag::USED } else { 0 },
        }
    }

    /// What the SA has used of its life; `allocations` is never counted.
    pub(super) fn current(&self, record: &Record) -> Lifetime {
        let wall = |at: Option<Time>| at.map_or(0, |at| self.wall_clock(at));
        let sa = record.sa.as_ref();
        Lifetime {
            allocations: 0,
            bytes: sa.map_or(0, |sa| sa.bytes()),
            addtime: self.wall_clock(record.added),
            usetime: wall(sa.and_then(|sa| sa.first_use())),
        }
    }
}

fn counters(sa: &Sa, record: &Record) -> Counters {
    let refused = sa.refused();
    let refused = |why: Discard| refused.iter().find(|(reason, _)| *reason == why).map_or(0, |(_, n)| *n);
    Counters {
        packets: sa.packets(),
        forged: refused(Discard::Forged),
        replayed: refused(Discard::Replayed).saturating_add(refused(Discard::ReplayOld)),
        sequence: if record.flags & flag::BOTH == flag::INBOUND { sa.received() } else { sa.sent() },
    }
}

pub(super) fn outer(w: &mut Writer, record: &Record) {
    let address = |ip: IpAddr, port: u16| Address {
        proto: record.ports.proto,
        prefix: 0,
        socket: Some(SocketAddr::new(ip, port)),
    };
    w.address(ExtType::AddressSrc, &address(record.src, record.ports.src));
    w.address(ExtType::AddressDst, &address(record.id.dst, record.ports.dst));
}

/// The UDP ports of either end, with their addresses.
pub(super) fn natt(w: &mut Writer, record: &Record) {
    let Some(extras) = record.extras() else { return };
    let ends = [
        (flag::NATT_LOC, ExtType::AddressNattLoc, extras.natt_loc),
        (flag::NATT_REM, ExtType::AddressNattRem, extras.natt_rem),
    ];
    for (flag, kind, address) in ends {
        if let Some(address) = address.filter(|_| record.flags & flag != 0) {
            let socket = Some(in_family(address, record.id.dst));
            w.address(kind, &Address { proto: UDP, prefix: 0, socket });
        }
    }
}

fn inner(w: &mut Writer, record: &Record) {
    let Some(selector) = record.sa.as_ref().and_then(|sa| sa.inner()) else { return };
    let address = |net: ipnet::IpNet, port: u16| Address {
        proto: selector.proto,
        prefix: net.prefix_len(),
        socket: Some(SocketAddr::new(net.network(), port)),
    };
    w.address(ExtType::AddressInnerSrc, &address(selector.src, selector.sport));
    w.address(ExtType::AddressInnerDst, &address(selector.dst, selector.dport));
    if let Some(more) = record.sa.as_ref().and_then(|sa| sa.more()) {
        let pair = |one: &Selector| InnerPair {
            proto: one.proto,
            src: SocketAddr::new(one.src.network(), one.sport),
            src_prefix: one.src.prefix_len(),
            dst: SocketAddr::new(one.dst.network(), one.dport),
            dst_prefix: one.dst.prefix_len(),
        };
        w.selectors(&more.iter().map(pair).collect::<Vec<_>>());
    }
}

/// The keys, salt after the key and counted apart.
fn keys(w: &mut Writer, sa: &Sa) {
    let keys = sa.keys();
    let bits = |octets: usize| u16::try_from(octets.saturating_mul(8)).unwrap_or(u16::MAX);
    if !keys.auth.is_empty() {
        w.key(ExtType::KeyAuth, bits(keys.auth.len()), 0, &keys.auth);
    }
    if !keys.encryption.is_empty() {
        let salt = sa.suite.encryption.map_or(0, |e: Encryption| e.row().salt_bits);
        let key = bits(keys.encryption.len()).saturating_sub(salt);
        w.key(ExtType::KeyEncrypt, key, salt, &keys.encryption);
    }
}

/// A NAT-T address, always IPv4, in the clothes of the outer family.
fn in_family(address: SocketAddr, outer: IpAddr) -> SocketAddr {
    match (address.ip(), outer) {
        (IpAddr::V4(ip), IpAddr::V6(_)) => {
            let ip = if ip.is_unspecified() { Ipv6Addr::UNSPECIFIED } else { ip.to_ipv6_mapped() };
            SocketAddr::new(ip.into(), address.port())
        }
        _ => address,
    }
}
