//! The SA table and the SA groups: ipsec_spi(5), ipsec_spigrp(5).

use super::{Form, word};
use core::fmt::Write as _;
use ipsec_core::algorithm::Suite;
use ipsec_core::{SaId, Time};
use klips::{Direction, Discard, Lifetime, Mode, SaRow, SaState};
use pfkey::Tfc;
use serde_json::{Value, json};

/// `SADB_X_SAFLAGS_INBOUND | SADB_X_SAFLAGS_OUTBOUND`: what `dir=` says already.
const DIRECTION_FLAGS: u32 = 0xc000;

pub(super) fn line(sa: &SaRow, now: Time, form: Form) -> String {
    match form {
        Form::Json => object(sa, now).to_string(),
        Form::Man | Form::Klips => text(sa, now),
    }
}

/// One group: the SAs applied to one packet, innermost first. An SA that stands alone is a group by itself. The page has one
/// line for each group; the kernel had one for each SA, with those outside of it.
pub(super) fn group(id: &SaId, group: Option<&[SaId]>, form: Form) -> Option<String> {
    let group = group.unwrap_or(core::slice::from_ref(id));
    let at = group.iter().position(|member| member == id).unwrap_or(0);
    let members = if form == Form::Klips { group.get(at..)? } else { group };
    if form != Form::Klips && at > 0 {
        return None;
    }
    Some(match form {
        Form::Json => {
            json!({ "group": members.iter().map(ToString::to_string).collect::<Vec<_>>() }).to_string()
        }
        // Every SAID is followed by a blank, the last one too: it always was.
        Form::Man | Form::Klips => {
            let mut line: String = members.iter().map(|member| format!("{member} ")).collect();
            line.push('\n');
            line
        }
    })
}

/// `PROTO[_ENC][_AUTH]`, as KLIPS composed it.
fn transform(sa: &SaRow) -> String {
    Suite { encryption: sa.encryption, auth: sa.auth }.transform_name(sa.id.protocol)
}

fn policy(one: ipsec_core::Selector) -> Value {
    let ipsec_core::Selector { src, dst, proto, sport, dport } = one;
    json!({ "src": src.to_string(), "dst": dst.to_string(), "proto": proto, "sport": sport, "dport": dport })
}

const fn direction(sa: &SaRow) -> &'static str {
    match sa.direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
        Direction::Both => "both",
    }
}

const fn state(state: SaState) -> &'static str {
    match state {
        SaState::Larval => "larval",
        SaState::Mature => "mature",
        SaState::Dying => "dying",
        SaState::Dead => "dead",
    }
}

/// Bits of IV each packet carries, of cipher key without salt, of integrity key, and of what the hash computes.
fn bits(sa: &SaRow) -> [usize; 4] {
    let cipher = sa.encryption.map(|cipher| cipher.row());
    let key = sa.encryption_key.saturating_sub(cipher.map_or(0, |row| row.salt()));
    let hash = sa.auth.map_or(0, |auth| usize::from(auth.row().full_icv));
    let iv = cipher.map_or(0, |row| usize::from(row.iv));
    [iv, key, sa.auth_key, hash].map(|octets| octets.saturating_mul(8))
}

/// Seconds since the SA was added, and since it was first used.
fn ages(sa: &SaRow, now: Time) -> (u64, u64) {
    let added = now.since(sa.added).as_secs();
    let unused = sa.current.usetime.saturating_sub(sa.current.addtime);
    (added, if sa.current.usetime == 0 { 0 } else { added.saturating_sub(unused) })
}

/// The highest sequence number so far, in the SA's direction.
fn sequence(sa: &SaRow) -> u64 {
    if sa.direction == Direction::Inbound { sa.received } else { sa.sent }
}

/// Packets refused for one reason.
fn refused(sa: &SaRow, why: Discard) -> u64 {
    sa.refused.iter().find(|(reason, _)| *reason == why).map_or(0, |(_, n)| *n)
}

/// One SA. Items that are zero are left out, as KLIPS did; only `life`, `natencap` and what follows always stand.
fn text(sa: &SaRow, now: Time) -> String {
    // Inbound lines have two blanks after `dir=in`, and always had.
    let dir = if sa.direction == Direction::Inbound { "in " } else { direction(sa) };
    let mut out = format!("{} {}: dir={dir}", sa.id, transform(sa));
    if !sa.src.is_unspecified() {
        let _ = write!(out, " src={}", sa.src);
    }
    if let Some(inner) = &sa.selector {
        let _ = write!(out, " policy={}->{}", inner.src, inner.dst);
        for more in sa.more_selectors.iter().flat_map(|more| more.iter()) {
            let _ = write!(out, ",{}->{}", more.src, more.dst);
        }
    }
    let [iv, cipher_key, hash_key, hash] = bits(sa);
    if iv != 0 {
        let _ = write!(out, " iv_bits={iv}bits");
    }
    let mut item = |name: &str, value: u64| {
        if value != 0 {
            let _ = write!(out, " {name}={value}");
        }
    };
    item("ooowin", sa.window.into());
    item("ooo_errs", refused(sa, Discard::ReplayOld));
    item("ooo_dups", refused(sa, Discard::Replayed));
    item("seq", sequence(sa));
    let flags = sa.flags & !DIRECTION_FLAGS;
    if flags != 0 {
        let _ = write!(out, " flags={flags:#x}<>");
    }
    let mut item = |name: &str, value: u64| {
        if value != 0 {
            let _ = write!(out, " {name}={value}");
        }
    };
    item("alen", hash as u64);
    item("aklen", hash_key as u64);
    item("auth_errs", refused(sa, Discard::Forged));
    item("eklen", cipher_key as u64);
    item("encr_size_errs", refused(sa, Discard::Short));
    item("encr_pad_errs", refused(sa, Discard::BadPadding));
    let _ = write!(out, " life(c,s,h)={}", lifetimes(sa, now));
    if let Some(last) = sa.last_use {
        let _ = write!(out, " idle={}", now.since(last).as_secs());
    }
    let (kind, sport, dport) =
        sa.encapsulation.map_or(("none", 0, 0), |udp| ("nonesp", udp.local, udp.remote));
    let _ = write!(out, " natencap={kind} natsport={sport} natdport={dport} refcount=1 ref=0");
    if sa.state != SaState::Mature {
        let _ = write!(out, " state={}", state(sa.state));
    }
    out.push('\n');
    out
}

/// `name(current,soft,hard)` for each lifetime in use, without anything between them.
fn lifetimes(sa: &SaRow, now: Time) -> String {
    let (addtime, usetime) = ages(sa, now);
    let Lifetime { allocations, bytes, addtime: _, usetime: _ } = sa.current;
    let (soft, hard) = (&sa.soft, &sa.hard);
    [
        // One allocation is what every SA has: not worth a word.
        ("alloc", allocations.into(), soft.allocations.into(), hard.allocations.into(), 1),
        ("bytes", bytes, soft.bytes, hard.bytes, 0),
        ("addtime", addtime, soft.addtime, hard.addtime, 0),
        ("usetime", usetime, soft.usetime, hard.usetime, 0),
        ("packets", sa.packets, sa.packet_limits.soft, sa.packet_limits.hard, 0),
    ]
    .into_iter()
    .filter(|&(_, current, soft, hard, usual): &(_, u64, u64, u64, u64)| {
        current > usual || soft != 0 || hard != 0
    })
    .map(|(name, current, soft, hard, _)| format!("{name}({current},{soft},{hard})"))
    .collect()
}

fn object(sa: &SaRow, now: Time) -> Value {
    let (addtime, usetime) = ages(sa, now);
    let limits = |l: &Lifetime, packets: u64| {
        json!({
            "allocations": l.allocations, "bytes": l.bytes, "addtime": l.addtime, "usetime": l.usetime, "packets": packets,
        })
    };
    let [_, cipher_key, hash_key, _] = bits(sa);
    json!({
        "said": sa.id.to_string(),
        "protocol": sa.id.protocol.word(),
        "spi": sa.id.spi.0,
        "src": sa.src.to_string(),
        "dst": sa.id.dst.to_string(),
        "direction": direction(sa),
        "state": state(sa.state),
        "flags": sa.flags,
        "mode": match sa.mode { Mode::Tunnel => "tunnel", Mode::Transport => "transport" },
        "transform": transform(sa),
        "encryption": sa.encryption.map(|cipher| cipher.row().name()),
        "encryption_key_bits": cipher_key,
        "auth": sa.auth.map(|auth| auth.row().name()),
        "auth_key_bits": hash_key,
        "policy": sa.selector.map(policy),
        "more_policy": sa.more_selectors.iter().flat_map(|more| more.iter().copied()).map(policy).collect::<Vec<_>>(),
        "encapsulation": sa.encapsulation.map(|udp| json!({ "local": udp.local, "remote": udp.remote })),
        "in_use": sa.in_use,
        "esn": sa.esn,
        "window": sa.window,
        "sequence": sequence(sa),
        "packets": sa.packets,
        "path_mtu": sa.path_mtu.filter(|(_, until)| now < *until).map(|(mtu, _)| mtu),
        "refused": sa.refused.iter().map(|(why, n)| (why.name().to_owned(), json!(n))).collect::<serde_json::Map<_, _>>(),
        "current": { "allocations": sa.current.allocations, "bytes": sa.current.bytes, "addtime": addtime, "usetime": usetime },
        "soft": limits(&sa.soft, sa.packet_limits.soft),
        "hard": limits(&sa.hard, sa.packet_limits.hard),
        "tfc": (sa.tfc != Tfc::default()).then(|| json!({
            "pad": if sa.tfc.pad == Tfc::MTU { json!("mtu") } else { json!(sa.tfc.pad) },
            "dummies_ms": sa.tfc.dummies, "padding_sent": sa.hidden.0, "dummies_sent": sa.hidden.1,
        })),
        "idle": sa.last_use.map(|last| now.since(last).as_secs()),
        "pair": sa.pair.map(|spi| spi.0),
        "src_identity": word(&sa.src_identity),
        "dst_identity": word(&sa.dst_identity),
    })
}

#[cfg(test)]
mod tests;
