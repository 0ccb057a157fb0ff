//! A snapshot as Prometheus reads it (OpenMetrics 1.0).

use super::Snapshot;
use crate::command::version::VERSION;
use crate::pluto::kernel::{Carried, Load};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

type Labels = Vec<(&'static str, String)>;

/// The states a connection can be in: each has a line, 1 for the one it is in.
const STATES: [&str; 5] = ["up", "connecting", "routed", "down", "unloaded"];

/// The type of what [`text`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All of it, one line for each value.
pub fn text(seen: &Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("ipsec");
    let mut gauge = |name: &str, help: &str, values: Vec<(Labels, u64)>| {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        registry.register(name, help, family);
    };
    let one = |value: u64| vec![(Labels::new(), value)];
    let by = |label: &'static str, value: &str| vec![(label, value.to_owned())];
    gauge("build", "The version of the programs", vec![(by("version", VERSION), 1)]);
    gauge(
        "daemon_up",
        "Whether a daemon answers",
        vec![(by("daemon", "klips"), seen.klips.into()), (by("daemon", "pluto"), seen.pluto.into())],
    );
    gauge("uptime_seconds", "Seconds since klips was started", one(seen.uptime));
    gauge("ike_sas", "IKE SAs that are established", one(seen.ike_sas));
    gauge("sas", "SAs in the data plane, of each direction", one(seen.sas));
    gauge("eroutes", "Entries of the policy", one(seen.eroutes));
    let all = || seen.connections.iter().map(|one| (vec![("connection", one.name.clone())], one));
    gauge(
        "connection_up",
        "Whether a connection that is configured has its SAs",
        all().map(|(labels, one)| (labels, u64::from(one.state == "up"))).collect(),
    );
    let mut states = Vec::new();
    for (labels, one) in all() {
        for state in STATES {
            let mut labels = labels.clone();
            labels.push(("state", state.to_owned()));
            states.push((labels, u64::from(one.state == state)));
        }
    }
    gauge("connection_state", "The state a connection is in", states);
    gauge(
        "connection_rekey_seconds",
        "Seconds until new SAs are negotiated",
        all().filter_map(|(labels, one)| Some((labels, one.rekey?))).collect(),
    );
    gauge(
        "connection_idle_seconds",
        "Seconds since a packet came through a connection",
        all().filter_map(|(labels, one)| Some((labels, one.idle?))).collect(),
    );

    let mut counter = |name: &str, help: &str, unit: Option<Unit>, values: Vec<(Labels, u64)>| {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, family),
            None => registry.register(name, help, family),
        }
    };
    // Where it is not known there is no line: a zero would be a counter that began anew, and the next value all traffic again.
    let both = |of: fn(Load) -> u64| {
        let mut values = Vec::new();
        for (labels, one) in all() {
            let Some(Carried { out, r#in }) = one.traffic else { continue };
            for (direction, load) in [("out", out), ("in", r#in)] {
                let mut labels = labels.clone();
                labels.push(("direction", direction.to_owned()));
                values.push((labels, of(load)));
            }
        }
        values
    };
    counter(
        "connection",
        "Octets that a connection has carried since pluto and klips were started, through all its SAs",
        Some(Unit::Bytes),
        both(|load| load.bytes),
    );
    counter(
        "connection_packets",
        "Packets that a connection has carried since pluto and klips were started, through all its SAs",
        None,
        both(|load| load.packets),
    );
    let named = |label: &'static str, values: &std::collections::BTreeMap<String, u64>| {
        values.iter().map(|(name, count)| (by(label, name), *count)).collect()
    };
    counter("discards", "Packets the data plane refused", None, named("reason", &seen.discards));
    counter("ike_discards", "IKE messages pluto refused", None, named("reason", &seen.ike_dropped));
    counter(
        "daemon_deaths",
        "Times a daemon died and was started again",
        None,
        named("daemon", &seen.deaths),
    );

    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::Connection;
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// One sample line: its name, its labels, its value.
    type Sample = (String, BTreeMap<String, String>, f64);

    /// A reader of OpenMetrics 1.0, strict where Prometheus is: a TYPE before each sample, names and label names of the
    /// right letters, no sample twice, families not mixed, `# EOF` and nothing after it.
    fn read(text: &str) -> Result<Vec<Sample>, String> {
        let is_name = |name: &str| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
        };
        let body = text.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?;
        let (mut samples, mut seen, mut families) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut family: Option<(String, String)> = None;
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (kind, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                let rest = words.next().unwrap_or("");
                if !is_name(name) {
                    return Err(format!("name: {line}"));
                }
                match kind {
                    "TYPE" => {
                        if !families.insert(name.to_owned()) {
                            return Err(format!("a family twice: {line}"));
                        }
                        family = Some((name.to_owned(), rest.to_owned()));
                    }
                    "UNIT" if name.ends_with(&format!("_{rest}")) => {}
                    "HELP" => {}
                    _ => return Err(format!("comment: {line}")),
                }
                continue;
            }
            let (head, value) = line.rsplit_once(' ').ok_or(format!("no value: {line}"))?;
            let value: f64 = value.parse().map_err(|_| format!("value: {line}"))?;
            let (name, labels) = match head.split_once('{') {
                Some((name, rest)) => (name, rest.strip_suffix('}').ok_or(format!("labels: {line}"))?),
                None => (head, ""),
            };
            let mut all = BTreeMap::new();
            let mut rest = labels;
            while !rest.is_empty() {
                let (label, after) = rest.split_once("=\"").ok_or(format!("label: {line}"))?;
                let mut text = String::new();
                let mut chars = after.char_indices();
                let end = loop {
                    match chars.next().ok_or(format!("quotes: {line}"))? {
                        (at, '"') => break at,
                        (_, '\\') => text.push(match chars.next().ok_or("escape")?.1 {
                            'n' => '\n',
                            c @ ('"' | '\\') => c,
                            c => return Err(format!("escape {c}: {line}")),
                        }),
                        (_, c) => text.push(c),
                    }
                };
                if !is_name(label) || all.insert(label.to_owned(), text).is_some() {
                    return Err(format!("label: {line}"));
                }
                rest = &after[end + 1..];
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
            let (base, kind) = family.clone().ok_or(format!("before its TYPE: {line}"))?;
            let expected = if kind == "counter" { format!("{base}_total") } else { base };
            if name != expected || !is_name(name) {
                return Err(format!("{name} is not {expected}: {line}"));
            }
            if !seen.insert((name.to_owned(), all.clone())) {
                return Err(format!("twice: {line}"));
            }
            samples.push((name.to_owned(), all, value));
        }
        Ok(samples)
    }

    fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |all: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| all.get(*key).map(String::as_str) == Some(value))
        };
        samples.iter().find(|(of, all, _)| of == name && has(all)).map(|(_, _, value)| *value)
    }

    #[test]
    fn a_parser_reads_it_and_finds_what_was_put_in() {
        let up = Connection {
            name: "west-east".into(),
            state: "up".into(),
            traffic: Some(Carried {
                out: Load { bytes: 70, packets: 3 },
                r#in: Load { bytes: 7, packets: 2 },
            }),
            rekey: Some(700),
            ..Connection::default()
        };
        let down =
            Connection { name: "odd \"name\"\\\n".into(), state: "unloaded".into(), ..Connection::default() };
        let seen = Snapshot {
            klips: true,
            sas: 2,
            connections: vec![up, down],
            discards: [("forged".to_owned(), 5), ("replayed".to_owned(), 0)].into(),
            deaths: [("pluto".to_owned(), 4)].into(),
            ..Snapshot::default()
        };
        let text = text(&seen).unwrap();
        assert!(!text.contains("..\n"), "a help text has two full stops: {text}");
        let samples = read(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
        let is = |name: &str, labels: &[(&str, &str)]| {
            value(&samples, name, labels).unwrap_or_else(|| panic!("{name} {labels:?}\n{text}"))
        };
        assert_eq!(is("ipsec_daemon_up", &[("daemon", "klips")]), 1.0);
        assert_eq!(is("ipsec_daemon_up", &[("daemon", "pluto")]), 0.0);
        assert_eq!(is("ipsec_connection_up", &[("connection", "west-east")]), 1.0);
        assert_eq!(is("ipsec_connection_up", &[("connection", "odd \"name\"\\\n")]), 0.0);
        assert_eq!(
            is("ipsec_connection_state", &[("connection", "odd \"name\"\\\n"), ("state", "unloaded")]),
            1.0
        );
        assert_eq!(
            is("ipsec_connection_bytes_total", &[("connection", "west-east"), ("direction", "out")]),
            70.0
        );
        assert_eq!(
            is("ipsec_connection_packets_total", &[("connection", "west-east"), ("direction", "in")]),
            2.0
        );
        // Not zero: it is not known.
        let odd = [("connection", "odd \"name\"\\\n"), ("direction", "out")];
        assert_eq!(value(&samples, "ipsec_connection_bytes_total", &odd), None);
        assert_eq!(is("ipsec_connection_rekey_seconds", &[("connection", "west-east")]), 700.0);
        assert_eq!(is("ipsec_discards_total", &[("reason", "forged")]), 5.0);
        assert_eq!(is("ipsec_discards_total", &[("reason", "replayed")]), 0.0);
        assert_eq!(is("ipsec_daemon_deaths_total", &[("daemon", "pluto")]), 4.0);
        assert_eq!(is("ipsec_sas", &[]), 2.0);
    }

    #[test]
    fn the_reader_of_these_tests_refuses_what_prometheus_would() {
        for wrong in [
            "# TYPE a gauge\na 1\n",
            "a 1\n# EOF\n",
            "# TYPE a counter\na 1\n# EOF\n",
            "# TYPE a gauge\na{x=\"1} 1\n# EOF\n",
            "# TYPE a gauge\na 1\na 1\n# EOF\n",
            "# TYPE a gauge\na x\n# EOF\n",
            "# TYPE a gauge\n# TYPE a gauge\n# EOF\n",
            "# TYPE 1a gauge\n# EOF\n",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    /// The dashboard asks for nothing that is not there.
    #[test]
    fn the_dashboard_knows_our_names() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/grafana/ipsec.json");
        let dashboard: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let traffic = Some(Carried::default());
        let one = Connection { rekey: Some(1), idle: Some(1), traffic, ..Connection::default() };
        let counts: BTreeMap<String, u64> = [("x".to_owned(), 1)].into();
        let seen = Snapshot {
            connections: vec![one],
            discards: counts.clone(),
            ike_dropped: counts.clone(),
            deaths: counts,
            ..Snapshot::default()
        };
        let text = text(&seen).unwrap();
        let mut names = 0;
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap();
                for name in query
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .filter(|word| word.starts_with("ipsec_"))
                {
                    let family = name.trim_end_matches("_total");
                    assert!(text.contains(&format!("# TYPE {family} ")), "{name}");
                    names += 1;
                }
            }
        }
        assert!(names >= 8, "{names}");
    }
}
