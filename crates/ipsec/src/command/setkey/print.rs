//! SAs and policies as setkey(8) prints them, and as JSON.

use super::grammar::{AUTH, ENCRYPTION};
use core::fmt::Write as _;
use core::net::IpAddr;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use pfkey::dialect::linux::number::SATYPE_IPCOMP;
use pfkey::dialect::linux::{Policy, Record, Request};
use pfkey::{Address, Diagnostic as D, ExtType, Fault, Key, Level, Lifetime};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// How to show it.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// Ports beside the addresses of SAs in UDP.
    pub(super) ports: bool,
    /// One line for each SA.
    pub(super) short: bool,
    /// Seconds since 1970.
    pub(super) now: u64,
    pub(super) zone: TimeZone,
}

impl Look {
    fn date(&self, seconds: u64) -> String {
        let at = i64::try_from(seconds).ok().filter(|seconds| *seconds != 0);
        match at.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
            Some(at) => at.to_zoned(self.zone.clone()).strftime("%b %e %H:%M:%S %Y").to_string(),
            None => " ".repeat(20),
        }
    }
}

const STATES: [&str; 4] = ["larval", "mature", "dying", "dead"];
const MODES: [&str; 4] = ["any", "transport", "tunnel", "beet"];

fn word<'w>(words: &[&'w str], number: u8) -> &'w str {
    words.get(usize::from(number)).copied().unwrap_or("?")
}

/// The word for an algorithm; its number where there is none.
fn algorithm(table: &[(&str, u8)], number: u8) -> String {
    let known = table.iter().find(|(word, known)| *known == number && *word != "simple");
    known.map_or_else(|| format!("#{number}"), |(word, _)| (*word).to_owned())
}

const fn protocol(satype: u8) -> &'static str {
    match satype {
        2 => "ah",
        3 => "esp",
        SATYPE_IPCOMP => "ipcomp",
        _ => "?",
    }
}

fn ends(record: &Record<'_>) -> Result<(IpAddr, IpAddr), Fault> {
    let (src, dst) = record.ends()?;
    src.ip().zip(dst.ip()).ok_or(Fault::invalid(D::BadSrcAf))
}

/// Eight digits and a blank, and so on.
fn hex(key: &Key<'_>) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(key.octets.len() * 9 / 4 + 8));
    for (place, octet) in key.octets.iter().enumerate() {
        if place % 4 == 0 && place > 0 {
            text.push(' ');
        }
        let _ = write!(text, "{octet:02x}");
    }
    text
}

fn keys<'m>(record: &Record<'m>) -> Result<[Option<Key<'m>>; 2], Fault> {
    Ok([record.key(ExtType::KeyEncrypt, D::MalformedEkey)?, record.key(ExtType::KeyAuth, D::MalformedAkey)?])
}

/// An SA of DUMP, GET or a notice.
pub(super) fn sa(record: &Record<'_>, look: &Look) -> Result<Zeroizing<String>, Fault> {
    let sa = record.sa(ExtType::Sa.number())?;
    let (src, dst) = ends(record)?;
    let (mode, reqid) = record.sa2();
    let nat_t = record.nat_t();
    // Large enough for keys, so that it is not moved.
    let mut out = Zeroizing::new(String::with_capacity(4096));
    let port = |port: u16| if look.ports { format!("[{port}]") } else { String::new() };
    let (sport, dport) =
        nat_t.map_or((String::new(), String::new()), |(_, sport, dport)| (port(sport), port(dport)));
    let udp = if nat_t.is_some() { "-udp" } else { "" };
    let name = protocol(record.base.satype_number);
    if look.short {
        let mode = word(&MODES, mode);
        let state = word(&STATES, sa.state);
        let _ = write!(out, "{src}{sport} {dst}{dport} {name}{udp} {:#010x} {mode} {reqid} {state}", sa.spi);
        out.push('\n');
        return Ok(out);
    }
    let mut put = |text: core::fmt::Arguments<'_>| {
        let _ = out.write_fmt(text);
    };
    put(format_args!("{src}{sport} {dst}{dport} \n\t{name}{udp} mode={} ", word(&MODES, mode)));
    put(format_args!("spi={0}(0x{0:08x}) reqid={reqid}(0x{reqid:08x})\n", sa.spi));
    let [encrypt, auth] = keys(record)?;
    if name == "ipcomp" {
        put(format_args!("\tC: deflate\n"));
    } else if sa.encrypt != 0 {
        let key = encrypt.as_ref().map(hex).unwrap_or_default();
        put(format_args!("\tE: {}  {}\n", algorithm(ENCRYPTION, sa.encrypt), &**key));
    }
    if sa.auth != 0 {
        let key = auth.as_ref().map(hex).unwrap_or_default();
        put(format_args!("\tA: {}  {}\n", algorithm(AUTH, sa.auth), &**key));
    }
    put(format_args!(
        "\tseq=0x{:08x} replay={} flags=0x{:08x} state={} \n",
        0,
        sa.replay,
        sa.flags,
        word(&STATES, sa.state)
    ));
    let life = |kind| record.lifetime(kind).unwrap_or_default();
    let current = life(ExtType::LifetimeCurrent);
    let (hard, soft) = (life(ExtType::LifetimeHard), life(ExtType::LifetimeSoft));
    let now = look.now;
    put(format_args!("\tcreated: {}\tcurrent: {}\n", look.date(current.addtime), look.date(now)));
    let age = if current.addtime == 0 { 0 } else { now.saturating_sub(current.addtime) };
    put(format_args!("\tdiff: {age}(s)\thard: {}(s)\tsoft: {}(s)\n", hard.addtime, soft.addtime));
    put(format_args!(
        "\tlast: {}\thard: {}(s)\tsoft: {}(s)\n",
        look.date(current.usetime),
        hard.usetime,
        soft.usetime
    ));
    put(format_args!(
        "\tcurrent: {}(bytes)\thard: {}(bytes)\tsoft: {}(bytes)\n",
        current.bytes, hard.bytes, soft.bytes
    ));
    put(format_args!(
        "\tallocated: {}\thard: {}\tsoft: {}\n",
        current.allocations, hard.allocations, soft.allocations
    ));
    put(format_args!("\tsadb_seq={} pid={} refcnt=0\n", record.base.seq, record.base.pid));
    Ok(out)
}

/// The same as JSON.
pub(super) fn sa_json(record: &Record<'_>) -> Result<Value, Fault> {
    let sa = record.sa(ExtType::Sa.number())?;
    let (src, dst) = ends(record)?;
    let (mode, reqid) = record.sa2();
    let [encrypt, auth] = keys(record)?;
    let plain = |key: Option<Key<'_>>| key.map(|key| hex(&key).replace(' ', ""));
    let life = |kind| {
        record.lifetime(kind).map(
            |Lifetime { allocations, bytes, addtime, usetime }| json!({ "allocations": allocations, "bytes": bytes, "addtime": addtime, "usetime": usetime }),
        )
    };
    // IPComp has its algorithm where ESP has its cipher.
    let compresses = record.base.satype_number == SATYPE_IPCOMP;
    let encrypts = sa.encrypt != 0 && !compresses;
    Ok(json!({
        "src": src, "dst": dst, "protocol": protocol(record.base.satype_number), "spi": sa.spi,
        "mode": word(&MODES, mode), "reqid": reqid, "state": word(&STATES, sa.state), "replay": sa.replay,
        "compression": compresses.then_some("deflate"),
        "encryption": encrypts.then(|| algorithm(ENCRYPTION, sa.encrypt)), "encryption_key": plain(encrypt),
        "auth": (sa.auth != 0).then(|| algorithm(AUTH, sa.auth)), "auth_key": plain(auth),
        "udp_ports": record.nat_t().map(|(_, sport, dport)| json!([sport, dport])),
        "current": life(ExtType::LifetimeCurrent), "hard": life(ExtType::LifetimeHard),
        "soft": life(ExtType::LifetimeSoft),
    }))
}

fn range(address: &Address) -> String {
    let port = match address.port() {
        0 => "any".to_owned(),
        port => port.to_string(),
    };
    let ip = address.ip().map(|ip| ip.to_string()).unwrap_or_default();
    let whole = if ip.contains(':') { 128 } else { 32 };
    let bits = if address.prefix == whole { String::new() } else { format!("/{}", address.prefix) };
    format!("{ip}{bits}[{port}]")
}

fn request(request: &Request) -> String {
    let protocol = match request.protocol {
        50 => "esp",
        51 => "ah",
        108 => "ipcomp",
        4 => "tun",
        _ => "?",
    };
    let ends = request.ends.map(|(src, dst)| format!("{src}-{dst}")).unwrap_or_default();
    let level = match (request.level, request.reqid) {
        (None, _) => "default".to_owned(),
        (Some(Level::Use), _) => "use".to_owned(),
        (Some(Level::Require), _) => "require".to_owned(),
        (Some(Level::Unique), 0) => "unique".to_owned(),
        (Some(Level::Unique), reqid) => format!("unique:{reqid}"),
    };
    format!("{protocol}/{}/{ends}/{level}", word(&MODES, request.mode))
}

const DIRECTIONS: [&str; 4] = ["any", "in", "out", "fwd"];
const KINDS: [&str; 5] = ["discard", "none", "ipsec", "entrust", "bypass"];

fn kind(policy: &Policy) -> &'static str {
    KINDS.get(usize::from(policy.kind)).copied().unwrap_or("?")
}

/// As the word that statements have for it.
fn priority(number: u32) -> String {
    const BASES: [(&str, i64); 3] = [("high", 1 << 30), ("def", 0), ("low", -(1 << 30))];
    let offset = (1_i64 << 31) - i64::from(number);
    let near = BASES.iter().min_by_key(|(_, base)| (offset - base).unsigned_abs());
    match near.map(|(word, base)| (*word, offset - base)) {
        Some((word, 0)) => format!("prio {word} "),
        // Without a word for it, it is the first of all.
        _ if number == 0 => String::new(),
        Some((word, more)) if more > 0 => format!("prio {word} + {more} "),
        Some((word, less)) => format!("prio {word} - {} ", -less),
        None => String::new(),
    }
}

/// A policy of SPDDUMP or a notice.
pub(super) fn policy(record: &Record<'_>, look: &Look) -> Result<String, Fault> {
    let (src, dst) = record.ends()?;
    let policy = Policy::read(record)?;
    let upper = if src.proto == 255 { "any".to_owned() } else { src.proto.to_string() };
    let mut out = format!("{} {} {upper}\n", range(&src), range(&dst));
    let mut put = |text: core::fmt::Arguments<'_>| {
        let _ = out.write_fmt(text);
    };
    let direction = word(&DIRECTIONS, policy.direction);
    put(format_args!("\t{direction} {}{}\n", priority(policy.priority), kind(&policy)));
    policy.requests.iter().for_each(|wanted| put(format_args!("\t{}\n", request(wanted))));
    let current = record.lifetime(ExtType::LifetimeCurrent).unwrap_or_default();
    let hard = record.lifetime(ExtType::LifetimeHard).unwrap_or_default();
    put(format_args!(
        "\tcreated: {}  lastused: {}\n",
        look.date(current.addtime),
        look.date(current.usetime)
    ));
    put(format_args!("\tlifetime: {}(s) validtime: {}(s)\n", hard.addtime, hard.usetime));
    put(format_args!(
        "\tspid={} seq={} pid={}\n\trefcnt=1\n",
        policy.index, record.base.seq, record.base.pid
    ));
    Ok(out)
}

/// The same as JSON.
pub(super) fn policy_json(record: &Record<'_>) -> Result<Value, Fault> {
    let (src, dst) = record.ends()?;
    let policy = Policy::read(record)?;
    Ok(json!({
        "src": range(&src), "dst": range(&dst), "upper": (src.proto != 255).then_some(src.proto),
        "direction": word(&DIRECTIONS, policy.direction), "policy": kind(&policy), "priority": policy.priority,
        "requests": policy.requests.iter().map(request).collect::<Vec<_>>(), "spid": policy.index,
        "last_used": record.lifetime(ExtType::LifetimeCurrent).map(|current| current.usetime),
    }))
}

/// The word for a message type.
pub(super) const fn message(number: u8) -> &'static str {
    match number {
        1 => "GETSPI",
        2 => "UPDATE",
        3 => "ADD",
        4 => "DELETE",
        5 => "GET",
        6 => "ACQUIRE",
        7 => "REGISTER",
        8 => "EXPIRE",
        9 => "FLUSH",
        10 => "DUMP",
        11 => "X_PROMISC",
        13 => "X_SPDUPDATE",
        14 => "X_SPDADD",
        15 => "X_SPDDELETE",
        16 => "X_SPDGET",
        18 => "X_SPDDUMP",
        19 => "X_SPDFLUSH",
        20 => "X_SPDSETIDX",
        22 => "X_SPDDELETE2",
        23 => "X_NAT_T_NEW_MAPPING",
        24 => "X_MIGRATE",
        _ => "?",
    }
}
