//! ADD, and UPDATE of a larval SA, which is the same (RFC 2367 §3.1.3, §3.1.2).

use super::class::Class;
use super::keys::{self, BadKey};
use super::{Control, flag, protocol};
use crate::sa::{Blueprint, Encapsulation, Keys, Limits, Mode, Sa};
use crate::sadb::{Extras, Identity, Km, Ports, Record, TimeLimits};
use core::net::IpAddr;
use ipnet::IpNet;
use ipsec_core::algorithm::{Auth, Encryption, Suite};
use ipsec_core::{MAX_SELECTORS, Protocol, SaId, Selector, Spi, Time};
use pfkey::{Address, Diagnostic as D, Errno, ExtType, Fault, Lifetime, Message, km, state};
use std::sync::Arc;
use zeroize::Zeroizing;

/// UDP port of encapsulated ESP where none is named (RFC 3948).
const NATT_PORT: u16 = 4500;

/// The widest replay window the data plane keeps.
const WIDEST_WINDOW: u32 = 4096;

/// Milliseconds from one dummy packet to the next: each wakes workers, and what is due later than in an hour hides nothing.
const DUMMIES: core::ops::RangeInclusive<u32> = 10..=3_600_000;

/// Octets of text in both identities together. GET and DUMP show an SA in one message, and a Unix socket with the send buffer
/// of this service takes one of this length on any host.
const IDENTITIES: usize = 128 << 10;

/// What GET says of an SA besides that text is shorter than this.
pub(super) const BESIDE_IDENTITIES: usize = 1024;

/// What a selector beside the first takes in GET.
pub(super) const SELECTOR_OCTETS: usize = 40;

/// Says whether a message has a security label. Nothing here is labelled.
pub(super) fn has_label(ask: &Message<'_>) -> bool {
    ask.has(ExtType::Sensitivity) || ask.has(ExtType::OuterSensitivity)
}

/// Soft limits lie below hard ones, idle ones below both. A limit of 0 is none and below nothing.
pub(super) fn check_lifetimes(ask: &Message<'_>) -> Result<(), Fault> {
    let above = |one: u64, other: u64| one != 0 && other != 0 && one > other;
    if ask.packet_limits.is_some_and(|packets| above(packets.soft, packets.hard)) {
        return Err(Fault::errno(Errno::EINVAL));
    }
    let pairs = [(ask.soft, ask.hard, true), (ask.idle, ask.hard, false), (ask.idle, ask.soft, false)];
    for (less, more, all) in pairs {
        let (Some(less), Some(more)) = (less, more) else { continue };
        if all && above(less.allocations.into(), more.allocations.into()) {
            return Err(Fault::invalid(D::AllocHserr));
        }
        if all && above(less.bytes, more.bytes) {
            return Err(Fault::invalid(D::BytesHserr));
        }
        if above(less.addtime, more.addtime) {
            return Err(Fault::invalid(D::AddtimeHserr));
        }
        if above(less.usetime, more.usetime) {
            return Err(Fault::invalid(D::UsetimeHserr));
        }
    }
    Ok(())
}

impl Control {
    /// ADD of a mature SA.
    pub(super) fn add(&mut self, ask: &mut Message<'_>, now: Time) -> Result<SaId, Fault> {
        let keymat = check_add(ask)?;
        let outcome = self.build(ask, keymat, None, now).and_then(|record| {
            let id = record.id;
            self.take_in(record, ask).map(|()| id)
        });
        self.answered(ask, outcome)
    }

    /// UPDATE that makes a larval SA mature: the name and the addresses stay those of GETSPI.
    pub(super) fn hatch(&mut self, ask: &mut Message<'_>, id: SaId, now: Time) -> Result<(), Fault> {
        let keymat = check_add(ask)?;
        let Some(larva) = self.sadb.find(&id) else { return Err(Fault::invalid(D::SaNotfound)) };
        let (src, paired, pair) = (larva.src, larva.flags & flag::PAIRED, larva.pair);
        let record = self.build(ask, keymat, Some(src), now);
        // A larval SA that was taken to be made mature does not come back if that fails (reference Q20).
        let outcome = match record {
            Ok(mut record) => {
                // The partner stays.
                self.sadb.remove(&id);
                record.flags |= paired;
                record.pair = pair;
                let outcome = self.take_in(record, ask);
                self.plane.end_larva(&id);
                outcome
            }
            Err(fault) => {
                self.take_out(&id);
                Err(fault)
            }
        };
        self.answered(ask, outcome)
    }

    /// An answer to an ACQUIRE, good or bad from here on: there is no other to wait for (pf_key(7P)).
    fn answered<T>(&mut self, ask: &Message<'_>, outcome: Result<T, Fault>) -> Result<T, Fault> {
        let ip = |address: Option<Address>| address.and_then(|a| a.ip());
        if let (Err(_), Some(src), Some(dst), Some(sa)) = (&outcome, ip(ask.src), ip(ask.dst), ask.sa)
            && protocol(ask) == Some(Protocol::Esp)
            && self.direction(sa.flags, src, dst) & flag::OUTBOUND != 0
        {
            self.missed(ask.base.seq, ask);
        }
        outcome
    }

    /// Puts a complete SA into the SADB, pairs it, and lets the data plane have it.
    fn take_in(&mut self, record: Record, ask: &Message<'_>) -> Result<(), Fault> {
        let (id, sa, in_use, added) = (record.id, record.sa.clone(), record.in_use, record.added);
        self.sadb.insert(Box::new(record)).map_err(|_| Fault::errno(Errno::EEXIST))?;
        if let Some(pair) = ask.pair
            && let Err(fault) = self.pair(&id, pair.spi)
        {
            self.take_out(&id);
            return Err(fault);
        }
        if let Some(sa) = sa.filter(|_| in_use) {
            self.plane.publish(sa);
            self.policy_sa_came(&id);
            self.begin_dummies(&id, added);
        }
        self.acquired(ask.base.seq, &id);
        Ok(())
    }

    /// Makes the SA an ADD describes; `larva` is the source of the larval SA it comes from.
    fn build(
        &mut self,
        ask: &mut Message<'_>,
        keymat: Keymat,
        larva: Option<IpAddr>,
        now: Time,
    ) -> Result<Record, Fault> {
        let (Some(protocol), Some(wire)) = (protocol(ask), ask.sa) else {
            return Err(Fault::invalid(D::MissingSa));
        };
        let socket = |address: Option<Address>| address.and_then(|a| a.socket);
        let (Some(src), Some(dst)) = (socket(ask.src), socket(ask.dst)) else {
            return Err(Fault::invalid(D::MissingDst));
        };
        let from = larva.unwrap_or(src.ip());
        let id = SaId { dst: dst.ip(), protocol, spi: Spi(wire.spi) };
        let direction = self.direction(wire.flags, from, dst.ip());
        if direction == flag::BOTH && ask.pair.is_some() {
            return Err(Fault::invalid(D::PairInappropriate));
        }
        let policy = ask.sa_policy.unwrap_or_default();
        // The sender of what comes in is the peer.
        if policy.by_policy && direction == flag::INBOUND {
            core::mem::swap(&mut ask.natt_loc, &mut ask.natt_rem);
        }
        let inner = fix_inner_proto(ask)?;
        if wire.flags & flag::TUNNEL != 0 && inner.is_none() {
            return Err(Fault::invalid(D::BadSaflags));
        }
        let more = more_selectors(ask, inner)?;
        let suite = keymat.suite;
        let combined = suite.encryption.is_some_and(Encryption::is_combined);
        if keymat.misfit {
            return Err(Fault::errno(Errno::EINVAL));
        }
        // Integrity twice over is no suite.
        if combined && suite.auth.is_some() {
            return Err(Fault::invalid(D::BadCtx));
        }
        if ask.replay_value.is_some_and(|value| value.low == 0 && value.high != 0) {
            return Err(Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::InvalidReplay });
        }
        let identities = [&ask.src_identity, &ask.dst_identity].into_iter().flatten();
        let text = identities.fold(0_usize, |sum, identity| sum.saturating_add(identity.text.len()));
        // An SA that no socket could be told of is not taken in.
        let beside = more.len().saturating_mul(SELECTOR_OCTETS).saturating_add(BESIDE_IDENTITIES);
        if text > IDENTITIES || text.saturating_add(beside) > self.config.receive_limit {
            return Err(Fault::errno(Errno::EMSGSIZE));
        }
        if larva.is_none() && self.sadb.find(&id).is_some() {
            return Err(Fault::errno(Errno::EEXIST));
        }

        let tunnel = inner.is_some() || protocol == Protocol::Ipip;
        // Without a source there is no one sender whose sequence numbers could be judged.
        let replay = if from.is_unspecified() { 0 } else { wire.replay };
        let params = ask.sa_params.unwrap_or_default();
        let judged =
            !from.is_unspecified() && wire.flags & flag::NOREPLAY == 0 && direction != flag::OUTBOUND;
        let width = if params.window == 0 { u32::from(replay) } else { params.window.min(WIDEST_WINDOW) };
        let hard = ask.hard.unwrap_or_default();
        let mut soft = ask.soft.unwrap_or_default();
        self.fuzz(direction, &mut soft);
        let ports = Ports {
            proto: ask.dst.map_or(0, |dst| dst.proto),
            src: if tunnel { 0 } else { src.port() },
            dst: if tunnel { 0 } else { dst.port() },
        };
        let mut keys = keymat.keys;
        (self.config.random)(&mut keys.iv[..]);
        let sa = Sa::new(Blueprint {
            id,
            src: from,
            mode: if tunnel { Mode::Tunnel } else { Mode::Transport },
            suite,
            keys,
            esn: params.esn,
            window: if judged { width } else { 0 },
            encapsulation: encapsulation(ask, wire.flags),
            selector: if tunnel { inner } else { transport_selector(from, dst.ip(), ports) },
            limits: {
                let packets = ask.packet_limits.unwrap_or_default();
                Limits {
                    soft_bytes: soft.bytes,
                    hard_bytes: hard.bytes,
                    soft_packets: packets.soft,
                    hard_packets: packets.hard,
                }
            },
        })
        .with_more(more);
        if direction == flag::INBOUND {
            sa.only_receive();
        }
        if let Some(tfc) = ask.tfc {
            check_tfc(tfc, protocol, tunnel)?;
            sa.hide(tfc);
        }
        // A PF_KEY selector is of one family. Where no key manager has reserved the SPI or left its mark, nobody has
        // negotiated it, and all of one family means whatever there is.
        let manual = larva.is_none() && ask.km_cookie.is_none();
        let whole = |s: Selector| s.src.prefix_len() == 0 && s.dst.prefix_len() == 0 && s.proto == 0;
        if (manual || policy.by_policy) && inner.is_some_and(whole) {
            sa.carry_either_family();
        }
        if policy.by_policy {
            sa.judge_by_policy(policy.reqid);
        }
        if let Some(value) = ask.replay_value {
            let last = replay_value(value, params.esn);
            if direction & flag::OUTBOUND != 0 {
                sa.continue_after(last);
            }
            if direction & flag::INBOUND != 0 {
                sa.received_up_to(last);
            }
        }
        let is_narrow = |one: &Selector| one.proto != 0 || one.sport != 0 || one.dport != 0;
        let unique = if inner.is_some() { sa.selectors().any(is_narrow) } else { ports != Ports::default() };
        // Encryption without integrity is kept for whoever asked, but never used (RFC 4303 §3.2).
        let integrity = suite.has_integrity();
        let made = [(unique, flag::UNIQUE), (combined, flag::EALG1 | flag::EALG2)];
        let made = made.iter().filter(|(set, _)| *set).fold(direction, |flags, (_, more)| flags | more);
        Ok(Record {
            sa: Some(Arc::new(sa)),
            // IPIP and IPComp protect nothing by themselves: they are used in a group, or where policy wants them in one.
            in_use: match protocol {
                Protocol::Esp | Protocol::Ah => integrity,
                Protocol::Ipcomp => policy.by_policy,
                Protocol::Ipip => false,
            },
            replay,
            window: if from.is_unspecified() { 0 } else { width },
            auth: wire.auth,
            encrypt: wire.encrypt,
            ports,
            flags: wire.flags & !flag::BOTH | made,
            km: ask.km_cookie.map_or(Km::default(), stored_km),
            policy,
            hard,
            soft,
            extras: extras(ask),
            ..Record::larval(id, from, now)
        })
    }

    /// Which way packets go, as the key manager says or as the addresses tell.
    fn direction(&self, flags: u32, src: IpAddr, dst: IpAddr) -> u32 {
        if flags & flag::BOTH != 0 {
            return flags & flag::BOTH;
        }
        match (self.locals.class(dst), self.locals.class(src)) {
            (Class::Mine, _) => flag::INBOUND,
            (Class::Other | Class::Unspecified, Class::Mine) => flag::OUTBOUND,
            (Class::Many | Class::Other | Class::Unspecified, _) => flag::BOTH,
        }
    }

    /// Takes something off the soft `addtime` of an outbound SA, but never all of it (reference Q19).
    pub(super) fn fuzz(&mut self, flags: u32, soft: &mut Lifetime) {
        let (least, most) = (*self.config.soft_fuzz.start(), *self.config.soft_fuzz.end());
        let Some(span) = most.checked_sub(least) else { return };
        if flags & flag::BOTH != flag::OUTBOUND || soft.addtime == 0 || most == 0 {
            return;
        }
        let mut octets = [0; 8];
        (self.config.random)(&mut octets);
        let off = u64::from_ne_bytes(octets).checked_rem(span.saturating_add(1)).unwrap_or(0);
        soft.addtime = soft.addtime.saturating_sub(least.saturating_add(off)).max(1);
    }
}

/// Padding and dummies are for ESP in tunnel mode: elsewhere nothing says where a packet ends and padding begins (RFC 4303
/// §2.7). A dummy as short as it can be is none: it is as long as padded packets are.
fn check_tfc(tfc: pfkey::Tfc, protocol: Protocol, tunnel: bool) -> Result<(), Fault> {
    if tfc == pfkey::Tfc::default() {
        return Ok(());
    }
    if protocol != Protocol::Esp || !tunnel {
        return Err(Fault::errno(Errno::EOPNOTSUPP));
    }
    let often = tfc.dummies != 0 && !DUMMIES.contains(&tfc.dummies);
    if tfc.pad == 0 || often { Err(Fault::errno(Errno::EINVAL)) } else { Ok(()) }
}

/// The sequence number that a replay value means: its 64-bit counter with ESN, as far as one is given.
pub(super) const fn replay_value(value: pfkey::ReplayValue, esn: bool) -> u64 {
    if esn && value.high > value.low as u64 { value.high } else { value.low as u64 }
}

/// The keys of an ADD, found good.
struct Keymat {
    suite: Suite,
    keys: Keys,
    /// A length that the table's range allows and the cipher does not.
    misfit: bool,
}

/// Everything that can be wrong with an ADD that is complete, before it meets the SADB, in order.
fn check_add(ask: &Message<'_>) -> Result<Keymat, Fault> {
    let esp = protocol(ask) == Some(Protocol::Esp);
    let ah = protocol(ask) == Some(Protocol::Ah);
    let Some(sa) = ask.sa else { return Err(Fault::invalid(D::MissingSa)) };
    let null = Encryption::Null.row().number;
    if esp && ask.encrypt_key.is_none() && sa.encrypt != null {
        return Err(Fault::invalid(D::MissingEkey));
    }
    if ah && ask.auth_key.is_none() {
        return Err(Fault::invalid(D::MissingAkey));
    }
    if sa.state != state::MATURE {
        return Err(Fault::invalid(D::BadSastate));
    }
    if ah && sa.encrypt != 0 {
        return Err(Fault::invalid(D::EncrNotsupp));
    }
    if esp && sa.encrypt == 0 {
        return Err(Fault::invalid(D::BadEalg));
    }
    if esp && sa.encrypt == null && sa.auth == 0 {
        return Err(Fault::invalid(D::BadAalg));
    }
    if sa.flags & !(if ah { flag::ADD_AH } else { flag::ADD_ESP }) != 0 {
        return Err(Fault::invalid(D::BadSaflags));
    }
    check_lifetimes(ask)?;
    if sa.flags & flag::NATT_LOC != 0 && ask.natt_loc.is_none() {
        return Err(Fault::invalid(D::MissingNattLoc));
    }
    if sa.flags & flag::NATT_REM != 0 && ask.natt_rem.is_none() {
        return Err(Fault::invalid(D::MissingNattRem));
    }
    if ask.current.is_some() {
        return Err(Fault::errno(Errno::EOPNOTSUPP));
    }
    if has_label(ask) {
        return Err(if ah { Fault::errno(Errno::EOPNOTSUPP) } else { Fault::invalid(D::BadLabel) });
    }
    check_keys(ask, sa)
}

/// Keys and algorithms, integrity first. What has no algorithms (IPIP, IPComp) has no keys either.
fn check_keys(ask: &Message<'_>, sa: pfkey::Sa) -> Result<Keymat, Fault> {
    let mut misfit = false;
    let mut suite = Suite { encryption: None, auth: None };
    let mut keys = Keys::default();
    if let Some(key) = ask.auth_key {
        let auth = Auth::from_number(sa.auth).ok_or(Fault::invalid(D::BadAalg))?;
        // ESP has GMAC as a cipher (RFC 4543 §3); there is no such thing beside another.
        if auth == Auth::AesGmac && protocol(ask) == Some(Protocol::Esp) {
            return Err(Fault::invalid(D::BadAalg));
        }
        match keys::check_auth(auth, u32::from(key.bits)) {
            Ok(()) => {}
            Err(BadKey::Context) => misfit = true,
            Err(BadKey::Bits | BadKey::Weak) => return Err(Fault::invalid(D::BadAkeybits)),
        }
        suite.auth = Some(auth);
        keys.auth = Zeroizing::new(key.octets.to_vec());
    }
    if let Some(key) = ask.encrypt_key {
        let encryption = Encryption::from_number(sa.encrypt).ok_or(Fault::invalid(D::BadEalg))?;
        // A key manager may send an initial IV along; every packet has its own.
        let bits = u32::from(key.bits.saturating_sub(key.reserved));
        let octets = key.octets.get(..bits as usize / 8).unwrap_or_default();
        keys.encryption = Zeroizing::new(octets.to_vec());
        match keys::check_encryption(encryption, bits, &mut keys.encryption) {
            Ok(()) => {}
            Err(BadKey::Context) => misfit = true,
            Err(BadKey::Bits) => return Err(Fault::invalid(D::BadEkeybits)),
            Err(BadKey::Weak) => return Err(Fault::invalid(D::WeakEkey)),
        }
        suite.encryption = Some(encryption);
    } else if protocol(ask) == Some(Protocol::Esp) {
        suite.encryption = Some(Encryption::Null);
    }
    Ok(Keymat { suite, keys, misfit })
}

/// The inner selector, once it is known that the outer protocol carries its family; unsaid it is filled in.
fn fix_inner_proto(ask: &mut Message<'_>) -> Result<Option<Selector>, Fault> {
    let (Some(src), Some(dst)) = (ask.inner_src, ask.inner_dst) else { return Ok(None) };
    let (Some(from), Some(to)) = (src.socket, dst.socket) else { return Ok(None) };
    let carrier = if to.is_ipv4() { 4 } else { 41 };
    for outer in [&mut ask.src, &mut ask.dst].into_iter().flatten() {
        match outer.proto {
            0 => outer.proto = carrier,
            proto if proto == carrier => {}
            _ => return Err(Fault::errno(Errno::EPROTOTYPE)),
        }
    }
    let net = |ip: IpAddr, prefix: u8, fault: D| IpNet::new(ip, prefix).map_err(|_| Fault::invalid(fault));
    Ok(Some(Selector {
        src: net(from.ip(), src.prefix, D::PrefixInnerSrc)?.trunc(),
        dst: net(to.ip(), dst.prefix, D::PrefixInnerDst)?.trunc(),
        proto: dst.proto,
        sport: from.port(),
        dport: to.port(),
    }))
}

/// What an SA in tunnel mode may carry beside its inner addresses.
fn more_selectors(ask: &Message<'_>, inner: Option<Selector>) -> Result<Vec<Selector>, Fault> {
    let Some(asked) = ask.selectors else { return Ok(Vec::new()) };
    if inner.is_none() {
        return Err(Fault::invalid(D::MissingInnerSrc));
    }
    // They are beside the first.
    if asked.count() >= MAX_SELECTORS {
        return Err(Fault::errno(Errno::EMSGSIZE));
    }
    let net = |ip: IpAddr, prefix: u8, fault: D| IpNet::new(ip, prefix).map_err(|_| Fault::invalid(fault));
    let one = |pair: pfkey::InnerPair| {
        Ok(Selector {
            src: net(pair.src.ip(), pair.src_prefix, D::PrefixInnerSrc)?.trunc(),
            dst: net(pair.dst.ip(), pair.dst_prefix, D::PrefixInnerDst)?.trunc(),
            proto: pair.proto,
            sport: pair.src.port(),
            dport: pair.dst.port(),
        })
    };
    asked.pairs().map(one).collect()
}

/// What may travel in transport mode: packets between the two hosts, of the protocol and ports that its addresses have.
fn transport_selector(src: IpAddr, dst: IpAddr, ports: Ports) -> Option<Selector> {
    let host = |ip: IpAddr| IpNet::from(ip);
    let from = if src.is_unspecified() { IpNet::new(src, 0).ok()? } else { host(src) };
    (src.is_ipv4() == dst.is_ipv4()).then(|| Selector {
        src: from,
        dst: host(dst),
        proto: ports.proto,
        sport: ports.src,
        dport: ports.dst,
    })
}

/// UDP encapsulation, if either end is behind a NAT.
fn encapsulation(ask: &Message<'_>, flags: u32) -> Option<Encapsulation> {
    let port = |address: Option<Address>| match address.map_or(0, |a| a.port()) {
        0 => NATT_PORT,
        port => port,
    };
    let flagged = flags & (flag::NATT_LOC | flag::NATT_REM) != 0;
    flagged.then(|| Encapsulation { local: port(ask.natt_loc), remote: port(ask.natt_rem) })
}

/// The cookie as it is kept: IKEv1's was 32 bits and what lies behind them a reserved word.
pub(super) const fn stored_km(asked: pfkey::KmCookie) -> Km {
    let narrow = asked.cookie.to_ne_bytes();
    let [a, b, c, d, ..] = narrow;
    let cookie = match asked.proto {
        km::IKE => u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]),
        _ => asked.cookie,
    };
    Km { proto: asked.proto, cookie }
}

/// What most SAs do not have, if this one has any of it.
fn extras(ask: &Message<'_>) -> Option<Box<Extras>> {
    let identity = |asked: &Option<pfkey::Identity<'_>>| {
        asked.as_ref().map(|asked| Identity { kind: asked.kind, text: asked.text.into() })
    };
    let any = ask.src_identity.is_some()
        || ask.dst_identity.is_some()
        || ask.natt_loc.is_some()
        || ask.natt_rem.is_some()
        || ask.idle.is_some()
        || ask.packet_limits.is_some();
    any.then(|| {
        Box::new(Extras {
            src_identity: identity(&ask.src_identity),
            dst_identity: identity(&ask.dst_identity),
            natt_loc: ask.natt_loc.and_then(|a| a.socket),
            natt_rem: ask.natt_rem.and_then(|a| a.socket),
            idle: ask
                .idle
                .map_or(TimeLimits::default(), |l| TimeLimits { addtime: l.addtime, usetime: l.usetime }),
            packets: ask.packet_limits.unwrap_or_default(),
            mapping: None,
            idle_told: Time::ZERO,
            group: None,
        })
    })
}
