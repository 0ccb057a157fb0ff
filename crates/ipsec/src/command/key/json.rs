//! PF_KEY messages as JSON, one object in one line.
//!
//! Written straight into a buffer that is wiped: a key in it is copied nowhere else.

use super::print::{
    Hex, auth_name, encryption_name, flag_names, identity_kind, satype_word, state_word, type_word,
};
use pfkey::{
    Address, Base, Comb, Diagnostic, Ecomb, Errno, ExtType, Identity, Key, Lifetime, Limits, Message, Sa,
};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// A record as a JSON object with a line end.
pub(super) fn line(record: &[u8], paranoid: bool) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(record.len().saturating_mul(16).saturating_add(8192)));
    // Writing to a Vec does not fail, and every key is a string.
    let _ = serde_json::to_writer(&mut *out, &Record { octets: record, paranoid });
    out.push(b'\n');
    out
}

struct Record<'a> {
    octets: &'a [u8],
    paranoid: bool,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("length", &self.octets.len())?;
        let Some(base) = self.octets.first_chunk().map(Base::parse) else { return map.end() };
        map.serialize_entry("type", type_word(base.number))?;
        map.serialize_entry("satype", satype_word(base.satype_number))?;
        map.serialize_entry("seq", &base.seq)?;
        map.serialize_entry("pid", &base.pid)?;
        if base.errno != Errno(0) {
            map.serialize_entry("errno", base.errno.name())?;
            map.serialize_entry("diagnostic", &base.diagnostic)?;
            let text = Diagnostic::from_number(base.diagnostic).map_or("unknown", Diagnostic::text);
            map.serialize_entry("why", text)?;
        }
        match Message::parse_answer(self.octets) {
            Ok(message) => extensions(&mut map, &message, self.paranoid)?,
            Err(_) => map.serialize_entry("malformed", &true)?,
        }
        map.end()
    }
}

fn extensions<M: SerializeMap>(map: &mut M, message: &Message<'_>, paranoid: bool) -> Result<(), M::Error> {
    if let Some(sa) = message.sa {
        map.serialize_entry("sa", &association(&sa))?;
    }
    for (name, one) in [
        ("src", message.src),
        ("dst", message.dst),
        ("inner_src", message.inner_src),
        ("inner_dst", message.inner_dst),
        ("natt_loc", message.natt_loc),
        ("natt_rem", message.natt_rem),
    ] {
        if let Some(one) = one {
            map.serialize_entry(name, &address(&one))?;
        }
    }
    for (name, key) in [("authkey", message.auth_key), ("encrkey", message.encrypt_key)] {
        if let Some(key) = key {
            map.serialize_entry(name, &KeyObject { key, paranoid })?;
        }
    }
    for (name, one) in [("srcid", message.src_identity), ("dstid", message.dst_identity)] {
        if let Some(Identity { kind, id, text }) = one {
            let text = String::from_utf8_lossy(text);
            map.serialize_entry(name, &json!({ "type": identity_kind(kind), "id": id, "value": text }))?;
        }
    }
    for (name, one) in
        [("current", message.current), ("soft", message.soft), ("hard", message.hard), ("idle", message.idle)]
    {
        if let Some(Lifetime { allocations, bytes, addtime, usetime }) = one {
            let life =
                json!({ "allocations": allocations, "bytes": bytes, "addtime": addtime, "usetime": usetime });
            map.serialize_entry(name, &life)?;
        }
    }
    if let Some(km) = message.km_cookie {
        map.serialize_entry("km", &json!({ "proto": km.proto, "cookie": km.cookie }))?;
    }
    if let Some(pair) = message.pair {
        map.serialize_entry("pair", &format!("0x{:x}", pair.spi))?;
    }
    if let Some(value) = message.replay_value {
        map.serialize_entry("replay_value", &value.high.max(u64::from(value.low)))?;
    }
    if let Some(range) = message.spi_range {
        let (min, max) = (format!("0x{:x}", range.min), format!("0x{:x}", range.max));
        map.serialize_entry("spi_range", &json!({ "min": min, "max": max }))?;
    }
    offers(map, message)?;
    native(map, message)
}

/// What is proposed and what is supported.
fn offers<M: SerializeMap>(map: &mut M, message: &Message<'_>) -> Result<(), M::Error> {
    type Name = fn(u8) -> String;
    if let Some(octets) = message.raw(ExtType::Proposal) {
        let combs: Vec<Value> = Comb::list(octets).map(|comb| combination(&comb)).collect();
        map.serialize_entry("proposal", &combs)?;
    }
    if let Some(octets) = message.raw(ExtType::Eprop) {
        let ecombs: Vec<Value> = Ecomb::list(octets).map(|ecomb| extended(&ecomb)).collect();
        map.serialize_entry("extended_proposal", &ecombs)?;
    }
    let supported: [(_, _, Name); 2] = [
        ("supported_auth", ExtType::SupportedAuth, auth_name),
        ("supported_encrypt", ExtType::SupportedEncrypt, encryption_name),
    ];
    for (name, kind, word) in supported {
        if let Some(octets) = message.raw(kind) {
            let rows = pfkey::Algorithm::list(octets).map(|a| {
                json!({
                    "name": word(a.id), "min_bits": a.min_bits, "max_bits": a.max_bits,
                    "increment": a.increment, "iv": a.iv, "salt_bits": a.salt_bits,
                })
            });
            map.serialize_entry(name, &rows.collect::<Vec<Value>>())?;
        }
    }
    if let Some(satypes) = message.ereg {
        let words: Vec<&str> = satypes.iter().map(|satype| satype_word(*satype)).collect();
        map.serialize_entry("extended_register", &words)?;
    }
    Ok(())
}

/// What pf_key(7P) does not have.
fn native<M: SerializeMap>(map: &mut M, message: &Message<'_>) -> Result<(), M::Error> {
    if let Some(params) = message.sa_params {
        map.serialize_entry("params", &json!({ "window": params.window, "esn": params.esn }))?;
    }
    if let Some(selectors) = message.selectors {
        let pair = |one: pfkey::InnerPair| {
            json!({
                "src": format!("{}/{}", one.src.ip(), one.src_prefix), "dst": format!("{}/{}", one.dst.ip(), one.dst_prefix),
                "proto": one.proto, "sport": one.src.port(), "dport": one.dst.port(),
            })
        };
        map.serialize_entry("more_inner", &selectors.pairs().map(pair).collect::<Vec<Value>>())?;
    }
    if let Some(tfc) = message.tfc {
        map.serialize_entry("tfc", &json!({ "pad": tfc.pad, "dummies_ms": tfc.dummies }))?;
    }
    if let Some(limits) = message.packet_limits {
        map.serialize_entry("packet_limits", &json!({ "soft": limits.soft, "hard": limits.hard }))?;
    }
    if let Some(flow) = message.flow {
        let action = format!("{:?}", flow.action).to_ascii_lowercase();
        let flow = json!({ "action": action, "packets": flow.packets, "last_use": flow.last_use });
        map.serialize_entry("flow", &flow)?;
    }
    if let Some(c) = message.counters {
        let pfkey::Counters { packets, forged, replayed, sequence } = c;
        let counters =
            json!({ "packets": packets, "forged": forged, "replayed": replayed, "sequence": sequence });
        map.serialize_entry("counters", &counters)?;
    }
    if let Some(group) = message.group {
        let member =
            |m: pfkey::Member| json!({ "satype": satype_word(m.satype), "spi": format!("0x{:x}", m.spi) });
        map.serialize_entry("group", &group.members().map(member).collect::<Vec<Value>>())?;
    }
    Ok(())
}

fn association(sa: &Sa) -> Value {
    json!({
        "spi": format!("0x{:x}", sa.spi),
        "replay": sa.replay,
        "state": state_word(sa.state),
        "auth": (sa.auth != 0).then(|| auth_name(sa.auth)),
        "encrypt": (sa.encrypt != 0).then(|| encryption_name(sa.encrypt)),
        "flags": flag_names(sa.flags).collect::<Vec<_>>(),
    })
}

fn address(address: &Address) -> Value {
    json!({
        "address": address.ip().map(|ip| ip.to_string()),
        "port": address.port(),
        "proto": address.proto,
        "prefix": address.prefix,
    })
}

fn limits(limits: &Limits) -> Value {
    json!({ "bytes": limits.bytes, "addtime": limits.addtime, "usetime": limits.usetime })
}

fn combination(comb: &Comb) -> Value {
    json!({
        "auth": (comb.auth != 0).then(|| auth_name(comb.auth)),
        "auth_bits": comb.auth_bits,
        "encrypt": (comb.encrypt != 0).then(|| encryption_name(comb.encrypt)),
        "encrypt_bits": comb.encrypt_bits,
        "salt_bits": comb.salt_bits,
        "soft_hard": limits(&comb.limits),
    })
}

fn extended(ecomb: &Ecomb) -> Value {
    let algorithms = ecomb.algorithms.iter().map(|one| {
        let name = match one.kind {
            pfkey::AlgorithmKind::Auth => auth_name(one.id),
            pfkey::AlgorithmKind::Crypt => encryption_name(one.id),
        };
        json!({ "satype": satype_word(one.satype), "name": name, "bits": one.bits, "salt_bits": one.salt_bits })
    });
    json!({ "algorithms": algorithms.collect::<Vec<_>>(), "soft_hard": limits(&ecomb.limits) })
}

struct KeyObject<'m> {
    key: Key<'m>,
    paranoid: bool,
}

impl Serialize for KeyObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Text<'m>(Hex<'m>);
        impl Serialize for Text<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("bits", &self.key.bits)?;
        map.serialize_entry("salt_bits", &self.key.reserved)?;
        if !self.paranoid {
            map.serialize_entry("hex", &Text(Hex(self.key.octets)))?;
        }
        map.end()
    }
}
