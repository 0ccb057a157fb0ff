//! Which eroute decides about a packet, and why.

use crate::table::Form;
use crate::table::eroute::Line;
use ipsec_core::{Flow, Selector};
use klips::Plane;
use serde_json::{Value, json};

/// What decides the order, most important first: a name, and how much of it a selector has.
fn rank(s: &Selector) -> [(&'static str, u8); 5] {
    [
        ("source prefix", s.src.prefix_len()),
        ("destination prefix", s.dst.prefix_len()),
        ("protocol", u8::from(s.proto != 0)),
        ("source port", u8::from(s.sport != 0)),
        ("destination port", u8::from(s.dport != 0)),
    ]
}

/// Why `winner` comes before `other`, both of which match.
fn because(winner: &Selector, other: &Selector) -> String {
    let (a, b) = (rank(winner), rank(other));
    match a.iter().zip(&b).find(|(a, b)| a.1 != b.1) {
        Some(((what, long), (_, short))) if what.ends_with("prefix") => {
            format!("its {what} is longer: /{long}, not /{short}")
        }
        Some(((what, _), _)) => format!("it names a {what}"),
        None => "they match the same packets".to_owned(),
    }
}

/// The eroute that decides about `flow`, those that would if it were not there, and the reason in words.
pub(super) fn explain(plane: &Plane, flow: &Flow) -> Value {
    let eroutes = plane.eroutes();
    let row = |line: &Line| serde_json::from_str::<Value>(&line.write(Form::Json)).unwrap_or(Value::Null);
    let Some(winner) = eroutes.lookup(flow).cloned() else {
        drop(eroutes);
        return json!({ "eroute": null, "others": [], "why": "no eroute matches: the packet is dropped" });
    };
    // In the order in which they would win; collected outside the lock.
    let all = eroutes.list();
    drop(eroutes);
    let mut others: Vec<Line> = all
        .iter()
        .filter(|eroute| eroute.selector != winner.selector && eroute.selector.matches(flow))
        .map(|eroute| Line::from(&**eroute))
        .collect();
    others.sort_by_key(|line| std::cmp::Reverse(rank(&line.selector).map(|(_, n)| n)));
    let why = others.first().map_or_else(
        || "no other eroute matches".to_owned(),
        |next| {
            format!(
                "of {} that match, {}",
                others.len().saturating_add(1),
                because(&winner.selector, &next.selector)
            )
        },
    );
    let reasons: Vec<Value> = others
        .iter()
        .map(|line| json!({ "eroute": row(line), "beaten": because(&winner.selector, &line.selector) }))
        .collect();
    json!({ "eroute": row(&Line::from(&*winner)), "others": reasons, "why": why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(src: &str, dst: &str, proto: u8, dport: u16) -> Selector {
        Selector { proto, dport, ..Selector::nets(src.parse().unwrap(), dst.parse().unwrap()) }
    }

    #[test]
    fn the_reason_is_the_first_thing_in_which_they_differ() {
        let net = selector("10.0.0.0/8", "0.0.0.0/0", 0, 0);
        let longer = selector("10.1.0.0/16", "0.0.0.0/0", 0, 0);
        assert_eq!(because(&longer, &net), "its source prefix is longer: /16, not /8");
        let there = selector("10.0.0.0/8", "10.2.0.0/16", 0, 0);
        assert_eq!(because(&there, &net), "its destination prefix is longer: /16, not /0");
        let mail = selector("10.0.0.0/8", "0.0.0.0/0", 6, 25);
        assert_eq!(because(&mail, &net), "it names a protocol");
        let tcp = selector("10.0.0.0/8", "0.0.0.0/0", 6, 0);
        assert_eq!(because(&mail, &tcp), "it names a destination port");
    }

    #[test]
    fn nothing_matches_means_drop() {
        let flow = Flow {
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            proto: 6,
            sport: 1,
            dport: 2,
        };
        let answer = explain(&Plane::default(), &flow);
        assert_eq!(answer["eroute"], Value::Null);
        assert_eq!(answer["why"], "no eroute matches: the packet is dropped");
    }
}
