//! How everything is: as an object for programs, and as lines for people.

use super::failures::Failures;
use super::kernel::{Carried, Installed};
use super::policy::Policy;
use crate::conf::connection::{Auto, Planned};
use crate::print::span;
use ike::IkeRow;
use ike::message::TrafficSelector;
use ipsec_core::Time;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Selectors as people write them: `10.1.0.0/16 === 10.2.0.0/16`.
pub fn flows(local: &[TrafficSelector], remote: &[TrafficSelector]) -> String {
    let side = |selectors: &[TrafficSelector]| {
        let one = |selector: &TrafficSelector| {
            let nets: Vec<String> = selector.prefixes().iter().map(ToString::to_string).collect();
            let ports = match selector.ports {
                (0, u16::MAX) => String::new(),
                (first, last) if first == last => format!("/{first}"),
                (first, last) => format!("/{first}-{last}"),
            };
            let proto =
                if selector.protocol == 0 { String::new() } else { format!(":{}", selector.protocol) };
            format!("{}{proto}{ports}", nets.join(","))
        };
        selectors.iter().map(one).collect::<Vec<_>>().join(",")
    };
    format!("{} === {}", side(local), side(remote))
}

pub(super) fn connections(
    planned: &BTreeMap<String, Planned>,
    policy: &Policy,
    failures: &Failures,
    rows: &[IkeRow],
    now: Time,
) -> Value {
    let mut lingering: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for pair in policy.lingering() {
        lingering.entry(&pair.connection).or_default().push(names(policy, pair));
    }
    let connections: Vec<Value> = planned
        .iter()
        .map(|(name, planned)| {
            let own = |row: &&IkeRow| {
                row.connection.as_deref() == Some(name)
                    || row.children.iter().any(|child| child.connection == *name)
            };
            let state = if policy.is_up(name) {
                "up"
            } else if rows.iter().filter(own).any(|row| row.peer.is_none()) {
                "connecting"
            } else if policy.is_routed(name) {
                "routed"
            } else {
                "down"
            };
            let pairs: Vec<Value> = policy
                .pairs(name)
                .map(|pair| {
                    let child =
                        rows.iter().flat_map(|row| &row.children).find(|child| child.spi_in == pair.spi_in);
                    let mut object = names(policy, pair);
                    object["rekey_in"] = json!(child.map(|child| child.rekey_at.since(now).as_secs()));
                    object["replaced"] = json!(child.is_some_and(|child| child.replaced));
                    object
                })
                .collect();
            let ike = &planned.ike;
            let address = |address: Option<std::net::IpAddr>| {
                address.map_or_else(|| "%any".to_owned(), |a| a.to_string())
            };
            let failure = failures.last(name, ike.remote_address).filter(|_| state != "up").map(
                |last| json!({ "why": last.why, "ago": now.since(last.at).as_secs(), "times": last.times }),
            );
            json!({
                "name": name,
                "section": planned.section,
                "auto": auto(planned.auto),
                "state": state,
                "local": address(ike.local_address),
                "remote": address(ike.remote_address),
                "local_id": ike.local_id.to_string(),
                "remote_id": ike.remote_id.to_string(),
                "flows": flows(&ike.child.local, &ike.child.remote),
                "sas": pairs,
                "lingering": lingering.remove(name.as_str()).unwrap_or_default(),
                "gone": carried(policy.gone(name)),
                "failure": failure,
            })
        })
        .collect();
    let sas: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "ike": row.ike.to_string(),
                "peer_spi": row.peer_spi.to_string(),
                "connection": row.connection,
                "initiator": row.initiator,
                "local": row.local.to_string(),
                "remote": row.remote.to_string(),
                "peer": row.peer,
                "algorithms": row.algorithms,
                "ppk": row.ppk,
                "nat_here": row.nat.0,
                "nat_there": row.nat.1,
                "encapsulate": row.encapsulate,
                "given": row.given.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "taken": row.taken.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "rekey_in": row.rekey_at.since(now).as_secs(),
            })
        })
        .collect();
    json!({ "connections": connections, "ike_sas": sas })
}

/// The names of a pair in the data plane.
fn names(policy: &Policy, pair: &Installed) -> Value {
    json!({
        "in": format!("{:#010x}", pair.spi_in),
        "out": format!("{:#010x}", pair.spi_out),
        "local": pair.local.to_string(),
        "remote": pair.remote.to_string(),
        "counted": policy.counts(pair),
    })
}

/// Octets and packets of either direction.
pub(crate) fn carried(carried: Carried) -> Value {
    let Carried { out, r#in } = carried;
    json!({
        "bytes": { "out": out.bytes, "in": r#in.bytes },
        "packets": { "out": out.packets, "in": r#in.packets },
    })
}

const fn auto(auto: Auto) -> &'static str {
    match auto {
        Auto::Ignore => "ignore",
        Auto::Add => "add",
        Auto::Route => "route",
        Auto::Start => "start",
    }
}

/// The object as lines, each with the `000` that scripts look for (klips.md §7.3 in spirit).
pub fn lines(status: &Value) -> Vec<String> {
    let text = |value: &Value, key: &str| match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "?".to_owned(),
        Some(other) => other.to_string(),
    };
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let is = |value: &Value, key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    let mut all = vec![format!(
        "using kernel interface: {}",
        if is(status, "klips") { "klips" } else { "klips (does not answer)" }
    )];
    all.extend(
        list(status, "addresses").iter().filter_map(Value::as_str).map(|a| format!("interface {a}:500")),
    );
    let failed = status.get("recording_failed").and_then(Value::as_str);
    if let Some(dir) = status.get("recording").and_then(Value::as_str) {
        all.push(match failed {
            None => format!("EVERYTHING IS RECORDED WITH ALL ITS KEYS in {dir}"),
            Some(why) => format!("recording has stopped, WHAT IS THERE HAS ALL KEYS: {why}"),
        });
    }
    all.push(String::new());
    for one in list(status, "connections") {
        let name = text(&one, "name");
        all.push(format!(
            "\"{name}\": {}[{}] {} {}[{}]; {}",
            text(&one, "local"),
            text(&one, "local_id"),
            text(&one, "flows"),
            text(&one, "remote"),
            text(&one, "remote_id"),
            text(&one, "state")
        ));
        for pair in list(&one, "sas") {
            all.push(format!(
                "\"{name}\":   ESP in={} out={}; replaced in {}s",
                text(&pair, "in"),
                text(&pair, "out"),
                text(&pair, "rekey_in")
            ));
        }
        if let Some(failure) = one.get("failure").filter(|failure| !failure.is_null()) {
            let ago = span(failure.get("ago").and_then(Value::as_u64));
            let times = failure.get("times").and_then(Value::as_u64).filter(|times| *times > 1);
            let times = times.map(|times| format!(" ({times} failures since it was up)")).unwrap_or_default();
            all.push(format!("\"{name}\":   {ago} ago: {}{times}", text(failure, "why")));
        }
        let carried = |at: &str| one.pointer(at).and_then(Value::as_u64).filter(|n| *n != 0);
        for (word, way) in [("sent", "out"), ("received", "in")] {
            if let Some(packets) = carried(&format!("/traffic/packets/{way}")) {
                let octets = carried(&format!("/traffic/bytes/{way}")).unwrap_or(0);
                all.push(format!("\"{name}\":   {word} {octets} octets in {packets} packets"));
            }
        }
    }
    for one in list(status, "waiting") {
        all.push(format!("\"{}\": waits {}", text(&one, "section"), text(&one, "why")));
    }
    all.push(String::new());
    for row in list(status, "ike_sas") {
        all.push(format!(
            "#{}: \"{}\" {} {} {}; {}{}{}{}",
            text(&row, "ike"),
            text(&row, "connection"),
            if is(&row, "initiator") { "to" } else { "from" },
            text(&row, "remote"),
            row.get("peer")
                .and_then(Value::as_str)
                .map_or_else(|| "being negotiated".to_owned(), |peer| format!("with {peer}")),
            row.get("algorithms").and_then(Value::as_str).unwrap_or("no algorithms chosen yet"),
            row.get("ppk").and_then(Value::as_str).map(|id| format!(" with PPK {id:?}")).unwrap_or_default(),
            if is(&row, "encapsulate") { "; in UDP" } else { "" },
            inside(&row)
        ));
    }
    all.into_iter().map(|line| format!("000 {line}").trim_end().to_owned()).collect()
}

/// Addresses that were given, for people.
fn inside(row: &Value) -> String {
    let list = |key: &str| {
        let all = row.get(key).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
    };
    match (list("given"), list("taken")) {
        (given, _) if !given.is_empty() => format!("; it was given {given}"),
        (_, taken) if !taken.is_empty() => format!("; it gave us {taken}"),
        _ => String::new(),
    }
}
