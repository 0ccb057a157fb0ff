//! With scapy on python-cryptography: both ends ping through the tunnel, so each opens what the other sealed; then a flipped bit, a
//! replay and an inner packet outside the selectors are refused, and the right counter moves and no other.

use super::{Case, Gateway};
use crate::skipped::skipped;
use ipsec::host::netns::{Namespace, available};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

impl Case {
    /// What the oracle is told.
    fn description(&self) -> Value {
        let [from_us, to_us] = self.spis();
        let sa = |dir: &str, spi: usize, salt: u8| {
            let mut sa = json!({
                "name": dir, "dir": dir, "spi": spi, "esn": self.esn,
                "enc": self.cipher.0, "key": self.key(self.cipher.1, salt), "proto": self.protocol,
                "mode": if self.transport { "transport" } else { "tunnel" },
            });
            if self.auth.1 > 0 {
                sa["auth"] = json!(self.auth.0);
                sa["auth_key"] = json!(self.key(self.auth.1, salt ^ 0x80));
            }
            if self.udp {
                sa["encap"] = json!([4500, 4500]);
            }
            sa
        };
        let ([us, them], [inner_us, inner_them]) = (self.outer(), self.inner());
        json!({
            "local": them, "remote": us, "inner_local": inner_them, "inner_remote": inner_us,
            "sas": [sa("out", to_us, 1), sa("in", from_us, 2)],
        })
    }
}

struct Oracle {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Oracle {
    fn start(gateway: &Gateway, beyond: &Namespace, python: &str, cases: &[Case]) -> Self {
        let descriptions: Vec<Value> = cases.iter().map(Case::description).collect();
        let path = gateway.dir.path().join("cases.json");
        fs::write(&path, Value::from(descriptions).to_string()).expect("cases");
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers/oracle.py");
        let mut command = Command::new(python);
        command.arg(script).arg(path).arg("eth0").env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = beyond.spawn(&mut command).expect("python");
        let input = process.stdin.take().expect("standard input");
        let output = BufReader::new(process.stdout.take().expect("standard output"));
        let mut oracle = Self { process, input, output };
        assert_eq!(oracle.answer()["ready"], cases.len());
        oracle
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the oracle said {line:?}"))
    }

    fn order(&mut self, order: &Value) -> Value {
        writeln!(self.input, "{order}").expect("the oracle listens");
        self.answer()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A Python that has what the oracle needs; why not, if there is none.
fn ready() -> Result<String, String> {
    available()?;
    let python = std::env::var("TULIPS_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut check = Command::new(&python);
    check.args(["-c", "import scapy.layers.ipsec, cryptography"]).stdin(Stdio::null()).stderr(Stdio::null());
    match check.status() {
        Ok(status) if status.success() => Ok(python),
        _ => Err(format!("{python} has no scapy and cryptography: `cargo xtask test` installs them")),
    }
}

#[test]
fn scapy_opens_what_we_seal_and_we_open_what_scapy_seals() {
    let python = match ready() {
        Ok(python) => python,
        Err(why) => return skipped(&why.to_string()),
    };
    let wrong = meet(&python, &Case::all());
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn scapy_and_we_understand_each_other_in_transport_mode() {
    let python = match ready() {
        Ok(python) => python,
        Err(why) => return skipped(&why.to_string()),
    };
    let wrong: Vec<String> = Case::transport().iter().flat_map(|cases| meet(&python, cases)).collect();
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is inside is as long as it was told to be, whatever is in it, and so is a dummy (RFC 4303 §2.6, §2.7).
#[test]
fn scapy_sees_padded_packets_and_dummies_of_one_length() {
    const PAD: usize = 700;
    let python = match ready() {
        Ok(python) => python,
        Err(why) => return skipped(&why.to_string()),
    };
    let mut cases =
        Case::all().into_iter().filter(|case| ["aes-gcm16", "aes-cbc-256+hmac-sha256"].contains(&case.esp));
    let cases: Vec<Case> =
        (0..).map_while(|number| Some(Case { number, pad: Some(PAD), ..cases.next()? })).collect();
    let (gateway, beyond) = Gateway::new(&cases);
    cases.iter().for_each(|case| case.install(&gateway));
    let mut oracle = Oracle::start(&gateway, &beyond, &python, &cases);
    for case in &cases {
        for octets in [8, 200, 600] {
            assert!(gateway.ping(case, octets), "{}, {octets}", case.name());
        }
    }
    let inner = |case: &Case| if case.inner6 { 41 } else { 4 };
    for case in &cases {
        let mut seen = Vec::new();
        let numbers = |seen: &[Value], next: u64| seen.iter().filter(|one| one["next"] == next).count();
        while numbers(&seen, 59) < 3 || numbers(&seen, inner(case)) < 3 {
            let more = oracle.order(&json!({ "do": "seen", "case": case.number }));
            seen.extend(more["seen"].as_array().expect("a list").iter().cloned());
            std::thread::sleep(Duration::from_millis(20));
        }
        for one in &seen {
            assert_eq!(one["inside"], PAD, "{}: {seen:?}", case.name());
            assert_eq!(one["wire"], seen[0]["wire"], "{}: {seen:?}", case.name());
        }
        assert_eq!(seen.len(), numbers(&seen, 59) + numbers(&seen, inner(case)), "{}: {seen:?}", case.name());
    }
}

/// What is wrong with any of these, tried one after the other between one gateway of ours and one oracle.
fn meet(python: &str, cases: &[Case]) -> Vec<String> {
    let (gateway, beyond) = Gateway::new(cases);
    cases.iter().for_each(|case| case.install(&gateway));
    let mut oracle = Oracle::start(&gateway, &beyond, python, cases);
    let mut wrong = Vec::new();
    for case in cases {
        let mut complain = |what: String| wrong.push(format!("{}: {what}", case.name()));
        let before = gateway.discards();
        let replies =
            oracle.order(&json!({ "do": "ping", "case": case.number, "count": 2 }))["replies"].clone();
        if replies != 2 {
            complain(format!("of 2 pings from scapy {replies} were answered"));
            continue;
        }
        if !gateway.ping(case, 56) {
            complain("scapy did not answer our ping".into());
        }
        if gateway.discards() != before {
            complain(format!("good packets were refused: {before:?} became {:?}", gateway.discards()));
        }
        // In transport mode there is no other packet inside: whoever sends from elsewhere is not the peer.
        let outside = if case.transport { "wrong_encapsulation" } else { "policy_mismatch" };
        for (order, counter) in [("flip", "forged"), ("replay", "replayed"), ("outside", outside)] {
            let before = gateway.discards();
            oracle.order(&json!({ "do": order, "case": case.number }));
            if let Err(what) = gateway.only_moved(&before, counter) {
                complain(what);
            }
        }
        // What was refused has not hurt the tunnel.
        if oracle.order(&json!({ "do": "ping", "case": case.number, "count": 1 }))["replies"] != 1 {
            complain("no ping afterwards".into());
        }
    }
    // One of each family knows what all of it could not open.
    for case in 0..cases.len().min(2) {
        let stats = oracle.order(&json!({ "do": "stats", "case": case }));
        for kind in ["bad_icv", "no_sa"] {
            if let Some(count) = stats.get(kind) {
                wrong.push(format!("{kind}: the oracle could not open {count} packets of ours"));
            }
        }
    }
    wrong
}
