//! PF_KEY messages as people read them: the blocks and prefixes of `ipseckey`.
//!
//! Extensions come in the order of the message; lifetimes are collected and come last. Keys are written here and in
//! the other two places that are meant to have them, JSON and the save file, never when paranoid.

use core::fmt::{self, Write as _};
use core::net::IpAddr;
use ipsec_core::algorithm::{Auth, Encryption};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use pfkey::{
    Address, Algorithm, AlgorithmKind, Base, Comb, Diagnostic, Ecomb, Errno, ExtType, Extension, Fault,
    Identity, Key, Lifetime, Limits, Message, MessageType, Sa, SaType, Tfc, flags, state,
};
use zeroize::Zeroizing;

/// How to show a message.
pub(super) struct Look<'a> {
    /// Keys as `XX`.
    pub(super) paranoid: bool,
    /// Times also as plain seconds.
    pub(super) verbose: bool,
    /// Who knows the names of addresses; without it there are no names at all.
    pub(super) names: Option<&'a mut dyn FnMut(IpAddr) -> Option<String>>,
    /// Seconds since 1970.
    pub(super) now: u64,
    /// Of the times.
    pub(super) zone: TimeZone,
}

impl fmt::Debug for Look<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Look(paranoid: {})", self.paranoid)
    }
}

/// The word for a message type.
pub(super) fn type_word(number: u8) -> &'static str {
    match MessageType::from_number(number) {
        Some(MessageType::GetSpi) => "GETSPI",
        Some(MessageType::Update) => "UPDATE",
        Some(MessageType::Add) => "ADD",
        Some(MessageType::Delete) => "DELETE",
        Some(MessageType::Get) => "GET",
        Some(MessageType::Acquire) => "ACQUIRE",
        Some(MessageType::Register) => "REGISTER",
        Some(MessageType::Expire) => "EXPIRE",
        Some(MessageType::Flush) => "FLUSH",
        Some(MessageType::Dump) => "DUMP",
        Some(MessageType::Promisc) => "X_PROMISC",
        Some(MessageType::InverseAcquire) => "X_INVERSE_ACQUIRE",
        Some(MessageType::UpdatePair) => "UPDATE PAIR",
        Some(MessageType::DelPair) => "DELETE PAIR",
        Some(MessageType::AddFlow) => "ADD FLOW",
        Some(MessageType::ReplaceFlow) => "REPLACE FLOW",
        Some(MessageType::DelFlow) => "DELETE FLOW",
        Some(MessageType::FlushFlows) => "FLUSH FLOWS",
        Some(MessageType::DumpFlows) => "DUMP FLOWS",
        Some(MessageType::GetFlow) => "GET FLOW",
        Some(MessageType::GroupSa) => "GROUP SA",
        Some(MessageType::Socket) => "SOCKET",
        Some(MessageType::MoveSa) => "MOVE SA",
        Some(MessageType::NewMapping) => "NEW MAPPING",
        None => "<unknown>",
    }
}

/// The word for an SA type.
pub(super) fn satype_word(number: u8) -> &'static str {
    match SaType::from_number(number) {
        Some(SaType::Unspec) => "<unspecified>",
        Some(SaType::Ah) => "AH",
        Some(SaType::Esp) => "ESP",
        Some(SaType::Ipip) => "IPIP",
        Some(SaType::Ipcomp) => "IPCOMP",
        None => "<unknown>",
    }
}

/// The word for an SA state.
pub(super) const fn state_word(number: u8) -> &'static str {
    match number {
        state::LARVAL => "LARVAL",
        state::MATURE => "MATURE",
        state::DYING => "DYING",
        state::DEAD => "DEAD",
        4 => "ACTIVE_ELSEWHERE",
        5 => "IDLE",
        _ => "<unknown>",
    }
}

/// Why a message was refused, in words.
pub(super) fn refusal(base: &Base) -> String {
    let diagnostic = Diagnostic::from_number(base.diagnostic).unwrap_or(Diagnostic::None);
    Fault { errno: base.errno, diagnostic }.to_string()
}

/// The name of an authentication algorithm, or its number.
pub(super) fn auth_name(number: u8) -> String {
    Auth::from_number(number).map_or_else(|| number.to_string(), |auth| auth.row().name().to_owned())
}

/// The name of an encryption algorithm, or its number.
pub(super) fn encryption_name(number: u8) -> String {
    Encryption::from_number(number)
        .map_or_else(|| number.to_string(), |cipher| cipher.row().name().to_owned())
}

/// The names of flags, in the order of the original.
pub(super) fn flag_names(word: u32) -> impl Iterator<Item = &'static str> {
    flags::NAMES.iter().filter(move |(flag, _)| word & flag != 0).map(|(_, name)| *name)
}

/// A date and a time of day.
pub(super) fn date(seconds: u64, zone: &TimeZone) -> String {
    match i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()) {
        Some(at) => at.to_zoned(zone.clone()).strftime("%a %b %e %H:%M:%S %Y %Z").to_string(),
        None => format!("{seconds} seconds after 1970"),
    }
}

/// Hexadecimal digits of key octets, without a copy of them.
#[derive(Clone, Copy)]
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hex({} octets)", self.0.len())
    }
}

/// A record as text, without a blank line after it.
pub(super) fn text(record: &[u8], look: &mut Look<'_>) -> Zeroizing<String> {
    // Large enough for all of it, so that no copy of a key is left behind where it grew.
    let mut out = Zeroizing::new(String::with_capacity(record.len().saturating_mul(16).saturating_add(8192)));
    // Writing to a String does not fail.
    let _ = write_record(&mut out, record, look);
    out
}

fn write_record(out: &mut String, record: &[u8], look: &mut Look<'_>) -> fmt::Result {
    let Some(base) = record.first_chunk().map(Base::parse) else {
        return writeln!(out, "UNK: {} octets, which is less than a message", record.len());
    };
    header(out, &base, record.len())?;
    let message = match Message::parse_answer(record) {
        Ok(message) => message,
        Err(why) => return writeln!(out, "UNK: what follows cannot be read ({why})"),
    };
    for extension in message.extensions() {
        block(out, &message, &extension, look)?;
    }
    lifetimes(out, &message, look)
}

fn header(out: &mut String, base: &Base, octets: usize) -> fmt::Result {
    let (kind, satype) = (type_word(base.number), satype_word(base.satype_number));
    writeln!(out, "PF_KEY version {}, type {kind}, SA type {satype}.", base.version)?;
    if base.errno != Errno(0) {
        let why = std::io::Error::from_raw_os_error(i32::from(base.errno.0));
        writeln!(out, "Error {} ({why}).", base.errno.name())?;
        let text = Diagnostic::from_number(base.diagnostic).map_or("unknown", Diagnostic::text);
        writeln!(out, "Diagnostic {}: {text}.", base.diagnostic)?;
    }
    writeln!(out, "Length {octets} bytes, seq={}, pid={}.", base.seq, base.pid)
}

fn block(
    out: &mut String,
    message: &Message<'_>,
    extension: &Extension<'_>,
    look: &mut Look<'_>,
) -> fmt::Result {
    let len = extension.octets.len();
    match extension.kind {
        ExtType::Sa => message.sa.map_or(Ok(()), |sa| association(out, &sa)),
        // Together, at the end.
        ExtType::LifetimeCurrent | ExtType::LifetimeHard | ExtType::LifetimeSoft | ExtType::LifetimeIdle => {
            Ok(())
        }
        ExtType::AddressSrc => address(out, "SRC", "Source address", message.src, look),
        ExtType::AddressDst => address(out, "DST", "Destination address", message.dst, look),
        ExtType::AddressInnerSrc => address(out, "INS", "Inner source address", message.inner_src, look),
        ExtType::AddressInnerDst => address(out, "IND", "Inner destination address", message.inner_dst, look),
        ExtType::AddressNattLoc => address(out, "NLC", "NAT-T local address", message.natt_loc, look),
        ExtType::AddressNattRem => address(out, "NRM", "NAT-T remote address", message.natt_rem, look),
        ExtType::NewSrc => address(out, "NSR", "New source address", message.new_src, look),
        ExtType::FlowPolicy => message.flow_policy.as_ref().map_or(Ok(()), |policy| {
            let direction = format!("{:?}", policy.direction).to_lowercase();
            let further = match policy.further.len() {
                0 => String::new(),
                n => format!(", {} SAs", n.saturating_add(1)),
            };
            writeln!(out, "PLC: Policy {} {direction}, priority {}{further}", policy.index, policy.priority)
        }),
        ExtType::SaPolicy => message.sa_policy.map_or(Ok(()), |policy| {
            let by = if policy.by_policy { ", inbound packets judged by policy" } else { "" };
            writeln!(out, "POL: Policy number {}{by}", policy.reqid)
        }),
        ExtType::NewDst => address(out, "NDS", "New destination address", message.new_dst, look),
        ExtType::KeyAuth => key(out, "AKY", "Authentication key", message.auth_key, look.paranoid),
        ExtType::KeyEncrypt => key(out, "EKY", "Encryption key", message.encrypt_key, look.paranoid),
        ExtType::IdentitySrc => identity(out, "SID", "Source identity", message.src_identity),
        ExtType::IdentityDst => identity(out, "DID", "Destination identity", message.dst_identity),
        ExtType::Sensitivity => writeln!(out, "SNS: Sensitivity, {len} bytes"),
        ExtType::OuterSensitivity => writeln!(out, "OSN: Outer sensitivity, {len} bytes"),
        ExtType::KmCookie => message.km_cookie.map_or(Ok(()), |km| {
            let name = match km.proto {
                pfkey::km::MANUAL => "manual",
                pfkey::km::IKE => "IKEv1",
                pfkey::km::KINK => "KINK",
                pfkey::km::IKEV2 => "IKEv2",
                _ => "<unknown>",
            };
            writeln!(out, "KMC: Protocol {}, {name}, cookie 0x{:x}", km.proto, km.cookie)
        }),
        ExtType::Proposal => proposal(out, extension.octets),
        ExtType::Eprop => extended(out, extension.octets),
        ExtType::SupportedAuth => supported(out, "SUA", "authentication", extension.octets, auth_name),
        ExtType::SupportedEncrypt => supported(out, "SUE", "encryption", extension.octets, encryption_name),
        ExtType::SpiRange => message.spi_range.map_or(Ok(()), |range| {
            writeln!(out, "SPR: SPI range, min=0x{:x} max=0x{:x}", range.min, range.max)
        }),
        ExtType::Ereg => {
            write!(out, "ERG: Extended REGISTER for")?;
            for satype in message.ereg.unwrap_or_default() {
                write!(out, " {}", satype_word(*satype))?;
            }
            writeln!(out)
        }
        ExtType::Pair => {
            message.pair.map_or(Ok(()), |pair| writeln!(out, "OTH: Paired with spi=0x{:x}", pair.spi))
        }
        ExtType::ReplayValue => message.replay_value.map_or(Ok(()), |value| {
            writeln!(out, "RPL: Replay value {}", value.high.max(u64::from(value.low)))
        }),
        ExtType::Edump => writeln!(out, "EDU: Used within {} seconds", message.edump.unwrap_or(0)),
        ExtType::SaParams => message.sa_params.map_or(Ok(()), |params| {
            let esn = if params.esn { "extended" } else { "32-bit" };
            writeln!(out, "PRM: Replay window size={}, {esn} sequence numbers", params.window)
        }),
        ExtType::Selectors => message
            .selectors
            .into_iter()
            .flat_map(|all| all.pairs())
            .try_for_each(|one| writeln!(out, "INM: Inner packets also {}", super::save::pair(&one))),
        ExtType::PacketLimits => message.packet_limits.map_or(Ok(()), |limits| {
            writeln!(out, "PKT: Packets: soft limit {}, hard limit {} (0 is none)", limits.soft, limits.hard)
        }),
        ExtType::Tfc => message.tfc.map_or(Ok(()), |tfc| {
            let pad = if tfc.pad == Tfc::MTU { "path MTU".to_owned() } else { tfc.pad.to_string() };
            writeln!(out, "TFC: Padded to {pad}, a dummy packet each {} ms (0 is none)", tfc.dummies)
        }),
        ExtType::Flow => message
            .flow
            .map_or(Ok(()), |flow| writeln!(out, "FLW: {:?}, {} packets", flow.action, flow.packets)),
        ExtType::Counters => message.counters.map_or(Ok(()), |c| {
            let pfkey::Counters { packets, forged, replayed, sequence } = c;
            writeln!(
                out,
                "CNT: {packets} packets, {forged} forged, {replayed} replayed, sequence number {sequence}"
            )
        }),
        ExtType::Group => {
            write!(out, "GRP: From the inside to the outside")?;
            for member in message.group.iter().flat_map(|group| group.members()) {
                write!(out, " {} spi=0x{:x}", satype_word(member.satype), member.spi)?;
            }
            writeln!(out)
        }
        ExtType::SocketOptions => message.socket.map_or(Ok(()), |options| {
            writeln!(out, "OPT: SO_USELOOPBACK {}", if options.loopback { "on" } else { "off" })
        }),
    }
}

fn association(out: &mut String, sa: &Sa) -> fmt::Result {
    let (spi, replay, state) = (sa.spi, sa.replay, state_word(sa.state));
    writeln!(out, "SA: SADB_ASSOC spi=0x{spi:x}, replay window size={replay}, state={state}")?;
    if sa.auth != 0 {
        writeln!(out, "SA: authentication by {}", auth_name(sa.auth))?;
    }
    if sa.encrypt != 0 {
        writeln!(out, "SA: encryption by {}", encryption_name(sa.encrypt))?;
    }
    write!(out, "SA: flags=0x{:x} < ", sa.flags)?;
    for name in flag_names(sa.flags) {
        write!(out, "{name} ")?;
    }
    writeln!(out, ">")
}

fn address(
    out: &mut String,
    prefix: &str,
    what: &str,
    address: Option<Address>,
    look: &mut Look<'_>,
) -> fmt::Result {
    let Some(address) = address else { return Ok(()) };
    write!(out, "{prefix}: {what} (proto={}", address.proto)?;
    if look.names.is_some() {
        let name = ipsec_core::text::protocol_name(address.proto);
        let unknown = if address.proto == 0 { "<unspecified>" } else { "<unknown>" };
        write!(out, "/{}", name.unwrap_or(unknown))?;
    }
    writeln!(out, ")")?;
    let Some(socket) = address.socket else {
        return writeln!(out, "{prefix}: of a family nobody knows here");
    };
    let family = if socket.is_ipv4() { "AF_INET" } else { "AF_INET6" };
    write!(out, "{prefix}: {family}: port {}, {}", socket.port(), socket.ip())?;
    if address.prefix != 0 {
        write!(out, "/{}", address.prefix)?;
    }
    if let Some(names) = &mut look.names {
        match names(socket.ip()) {
            Some(name) => write!(out, " ({})", Plain(name.as_bytes()))?,
            None => write!(out, " <unknown>")?,
        }
    }
    writeln!(out, ".")
}

/// Text from outside: nothing in it moves the cursor of a terminal.
pub(super) struct Plain<'a>(pub(super) &'a [u8]);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { write!(f, "\\u{:04x}", c as u32)? } else { f.write_char(c)? }
            }
            chunk.invalid().iter().try_for_each(|octet| write!(f, "\\x{octet:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn key(out: &mut String, prefix: &str, what: &str, key: Option<Key<'_>>, paranoid: bool) -> fmt::Result {
    let Some(key) = key else { return Ok(()) };
    writeln!(out, "{prefix}: {what}.")?;
    write!(out, "{prefix}: ")?;
    let (own, salt) =
        key.octets.split_at_checked(usize::from(key.bits).div_ceil(8)).unwrap_or((key.octets, &[]));
    let mut octets = |octets: &[u8]| {
        if paranoid {
            octets.iter().try_for_each(|_| out.write_str("XX"))
        } else {
            write!(out, "{}", Hex(octets))
        }
    };
    octets(own)?;
    if salt.is_empty() {
        return writeln!(out, "/{}", key.bits);
    }
    out.write_char('[')?;
    let mut octets = |octets: &[u8]| {
        if paranoid {
            octets.iter().try_for_each(|_| out.write_str("XX"))
        } else {
            write!(out, "{}", Hex(octets))
        }
    };
    octets(salt)?;
    writeln!(out, "]/{}+{}", key.bits, key.reserved)
}

/// The name of an identity type, or its number.
pub(super) fn identity_kind(kind: u16) -> String {
    match kind {
        pfkey::identity::PREFIX => "prefix".to_owned(),
        pfkey::identity::FQDN => "fqdn".to_owned(),
        pfkey::identity::USER_FQDN => "user_fqdn".to_owned(),
        pfkey::identity::DN => "der_dn".to_owned(),
        pfkey::identity::GN => "der_gn".to_owned(),
        other => other.to_string(),
    }
}

fn identity(out: &mut String, prefix: &str, what: &str, identity: Option<Identity<'_>>) -> fmt::Result {
    let Some(Identity { kind, id, text }) = identity else { return Ok(()) };
    write!(out, "{prefix}: {what}, type={}", identity_kind(kind))?;
    if id != 0 {
        write!(out, ", uid={id}")?;
    }
    writeln!(out, ", {}", Plain(text))
}

fn limits(out: &mut String, prefix: &str, limits: &Limits) -> fmt::Result {
    for (word, (soft, hard)) in
        [("bytes", limits.bytes), ("addtime", limits.addtime), ("usetime", limits.usetime)]
    {
        if (soft, hard) != (0, 0) {
            writeln!(out, "{prefix}:   {word}: soft={soft}, hard={hard}")?;
        }
    }
    Ok(())
}

fn proposal(out: &mut String, octets: &[u8]) -> fmt::Result {
    let replay = octets.get(4).copied().unwrap_or(0);
    writeln!(out, "PRP: Proposal, replay window size={replay}, the best first")?;
    for comb in Comb::list(octets) {
        write!(out, "PRP:  ")?;
        if comb.encrypt != 0 {
            let (min, max) = comb.encrypt_bits;
            write!(out, " {} {min}-{max} bits", encryption_name(comb.encrypt))?;
            if comb.salt_bits != 0 {
                write!(out, " and {} of salt", comb.salt_bits)?;
            }
        }
        if comb.auth != 0 {
            write!(out, " {} {}-{} bits", auth_name(comb.auth), comb.auth_bits.0, comb.auth_bits.1)?;
        }
        writeln!(out)?;
        limits(out, "PRP", &comb.limits)?;
    }
    Ok(())
}

fn extended(out: &mut String, octets: &[u8]) -> fmt::Result {
    let replay = octets.get(4).copied().unwrap_or(0);
    writeln!(out, "EPR: Extended proposal, replay window size={replay}, the best first")?;
    for ecomb in Ecomb::list(octets) {
        write!(out, "EPR:  ")?;
        for one in &ecomb.algorithms {
            let name = match one.kind {
                AlgorithmKind::Auth => auth_name(one.id),
                AlgorithmKind::Crypt => encryption_name(one.id),
            };
            write!(out, " {} {name} {}-{} bits", satype_word(one.satype), one.bits.0, one.bits.1)?;
        }
        writeln!(out)?;
        limits(out, "EPR", &ecomb.limits)?;
    }
    Ok(())
}

fn supported(
    out: &mut String,
    prefix: &str,
    what: &str,
    octets: &[u8],
    name: fn(u8) -> String,
) -> fmt::Result {
    writeln!(out, "{prefix}: Supported {what} algorithms")?;
    for a in Algorithm::list(octets) {
        let Algorithm { id, iv, min_bits, max_bits, increment, salt_bits } = a;
        writeln!(
            out,
            "{prefix}:   {}, {min_bits}-{max_bits} bits, increment={increment}, ivlen={iv}, salt={salt_bits}",
            name(id)
        )?;
    }
    Ok(())
}

fn lifetimes(out: &mut String, message: &Message<'_>, look: &Look<'_>) -> fmt::Result {
    let Message { current, soft, hard, idle, .. } = message;
    if current.is_none() && soft.is_none() && hard.is_none() && idle.is_none() {
        return Ok(());
    }
    writeln!(out, " LT: Lifetimes")?;
    if let Some(used) = current {
        writeln!(
            out,
            "CLT: {} bytes protected{}, {} allocations",
            used.bytes,
            Size(used.bytes),
            used.allocations
        )?;
        moment(out, "CLT: added at", used.addtime, look)?;
        if used.usetime != 0 {
            moment(out, "CLT: first used at", used.usetime, look)?;
        }
        moment(out, "CLT: now", look.now, look)?;
    }
    for (prefix, what, limit) in [("SLT", "Soft", soft), ("HLT", "Hard", hard), ("ILT", "Idle", idle)] {
        let Some(limit) = limit else { continue };
        // An idle limit counts from the last packet, which no message says.
        let used = if prefix == "ILT" { None } else { current.as_ref() };
        bounds(out, prefix, what, limit, used, look)?;
    }
    Ok(())
}

fn moment(out: &mut String, what: &str, at: u64, look: &Look<'_>) -> fmt::Result {
    write!(out, "{what} {}", date(at, &look.zone))?;
    if look.verbose {
        write!(out, " ({at})")?;
    }
    writeln!(out)
}

fn bounds(
    out: &mut String,
    prefix: &str,
    what: &str,
    limit: &Lifetime,
    used: Option<&Lifetime>,
    look: &Look<'_>,
) -> fmt::Result {
    writeln!(
        out,
        "{prefix}: {what} limit: {} bytes{}, {} allocations",
        limit.bytes,
        Size(limit.bytes),
        limit.allocations
    )?;
    writeln!(
        out,
        "{prefix}: {} seconds since added{}, {} seconds since first use{}",
        limit.addtime,
        Span(limit.addtime),
        limit.usetime,
        Span(limit.usetime)
    )?;
    let Some(used) = used else { return Ok(()) };
    if limit.bytes != 0 {
        let left = limit.bytes.saturating_sub(used.bytes);
        writeln!(out, "{prefix}: {left} bytes{} more can be protected", Size(left))?;
    }
    let ends = [("added", used.addtime, limit.addtime), ("first used", used.usetime, limit.usetime)];
    for (since, from, length) in ends {
        if length == 0 || from == 0 {
            continue;
        }
        let at = from.saturating_add(length);
        if at > look.now {
            let left = at - look.now;
            write!(out, "{prefix}: {left} seconds{} more, counted since it was {since}; ", Span(left))?;
            moment(out, "expires at", at, look)?;
        } else {
            moment(out, &format!("{prefix}: counted since it was {since}, expired at"), at, look)?;
        }
    }
    Ok(())
}

/// ` (2.5 KiB)` from 1 KiB up.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(bits, _)| self.0 >> bits != 0) {
            Some((bits, unit)) => write!(f, " ({:.1} {unit})", self.0 as f64 / (1_u64 << bits) as f64),
            None => Ok(()),
        }
    }
}

/// ` (1 d 2 h 3 min 4 s)` from more than a minute up.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 <= 60 {
            return Ok(());
        }
        let parts =
            [(self.0 / 86400, "d"), (self.0 / 3600 % 24, "h"), (self.0 / 60 % 60, "min"), (self.0 % 60, "s")];
        let mut before = " (";
        for (count, unit) in parts.into_iter().filter(|(count, _)| *count != 0) {
            write!(f, "{before}{count} {unit}")?;
            before = " ";
        }
        f.write_char(')')
    }
}

#[cfg(test)]
mod tests;
