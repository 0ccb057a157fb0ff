//! The text of addresses, subnets, SAIDs, numbers and protocols, row by row as the historical parsers read them.
//!
//! The tables under `data/` are observations of `ttoaddr`, `ttosubnet`, `ttosa`, `ttoul` and `ttoprotoport`. Where this
//! library is deliberately better, [`BETTER`] says so, row by row; everything else must agree.

use core::net::IpAddr;
use ipsec_core::text::{Family, ProtoPort, TextError, address, number, number_in, proto_port, subnet};
use ipsec_core::{SaId, SaIdError, Said};

/// Inputs where we differ on purpose: `(input, what we say, why)`.
const BETTER: [(&str, &str, &str); 14] = [
    ("::ffff:1.2.3.4", "::ffff:1.2.3.4", "RFC 4291 §2.2 form 3"),
    ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0", "a :: may stand for one group"),
    ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8", "a :: may stand for one group"),
    ("3049:1::192.168.0.1/28", "3049::/28", "RFC 4291 §2.2 form 3"),
    ("[3049:1::/64]:25", "3049:1::/64:25", "a port after an IPv6 subnet, as tables write it"),
    ("1.2.3.0/24:65536", "ERR", "meant no port at all"),
    ("esp4294967296@1.2.3.4", "ERR", "named SPI 0"),
    ("esp0x100000000@1.2.3.4", "ERR", "named SPI 0"),
    ("esp.100000000@1.2.3.4", "ERR", "named SPI 0"),
    ("int.106@0.0.0.0", "ERR", "no such word"),
    ("int255@0.0.0.0", "ERR", "no such word"),
    ("int262@0.0.0.0", "ERR", "no such word"),
    ("int270@0.0.0.0", "ERR", "no such word"),
    ("int1000@0.0.0.0", "ERR", "no such word"),
];

/// The cells of every row of every table in `page` that has `columns` of them, code marks removed.
fn table(page: &str, columns: usize) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim_start_matches("| ").trim_end_matches('|').trim_end_matches(' ');
        inner.split(" | ").map(|cell| cell.trim_matches('`').to_owned()).collect()
    };
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("|--"));
    rows.map(cells).filter(|row| row.len() == columns).collect()
}

fn check(input: &str, expected: &str, got: Result<String, impl core::fmt::Debug>) {
    let expected = BETTER.iter().find(|(better, ..)| *better == input).map_or(expected, |(_, ours, _)| ours);
    match got {
        Ok(text) => assert_eq!(text, expected, "`{input}`"),
        Err(error) => {
            assert!(expected.starts_with("ERR"), "`{input}` is refused ({error:?}), should be {expected}")
        }
    }
}

fn family(word: &str) -> Option<Family> {
    match word {
        "inet" => Some(Family::V4),
        "inet6" => Some(Family::V6),
        _ => None,
    }
}

#[test]
fn addresses() {
    let rows = table(include_str!("data/addr.md"), 3);
    assert!(rows.len() > 45, "{}", rows.len());
    for row in rows.iter().filter(|row| row[0] != "af") {
        check(&row[1], &row[2], address(&row[1], family(&row[0])).map(|address| address.to_string()));
    }
}

#[test]
fn subnets() {
    let rows = table(include_str!("data/sub.md"), 3);
    assert!(rows.len() > 70, "{}", rows.len());
    for row in rows.iter().filter(|row| row[0] != "af") {
        let text = subnet(&row[1], family(&row[0])).map(|(net, port)| match port {
            Some(port) => format!("{net}:{port}"),
            None => net.to_string(),
        });
        check(&row[1], &row[2], text);
    }
}

#[test]
fn saids() {
    let page = include_str!("data/sa.md");
    let good = table(page, 5);
    assert!(good.len() > 40, "{}", good.len());
    for row in good.iter().filter(|row| row[0] != "input to ttosa") {
        let parsed = row[0].parse::<Said>();
        check(&row[0], &row[3], parsed.map(|said| said.to_string()));
        // The manual-page form reads back as the same SAID; magic words have one form only.
        if let Ok(id) = row[0].parse::<SaId>() {
            if !row[1].starts_with('%') {
                assert_eq!(format!("{id:#}"), row[1]);
            }
            assert_eq!(format!("{id:#}").parse(), Ok(id));
            assert_eq!(id.to_string().parse(), Ok(id));
            assert!(row[4].starts_with('%') || row[4].parse() == Ok(id), "{}", row[4]);
        }
        if let Ok(said) = parsed {
            assert_eq!(said.to_string().parse(), Ok(said));
        }
    }
    let bad = table(page, 2);
    assert!(bad.len() > 30, "{}", bad.len());
    for row in bad.iter().filter(|row| row[0] != "input") {
        check(&row[0], &row[1], row[0].parse::<Said>().map(|said| said.to_string()));
    }
}

#[test]
fn magic_words_are_not_sas() {
    for word in
        ["%pass", "%drop", "%reject", "%hold", "%trap", "%trapsubnet", "%passthrough4", "%passthrough6"]
    {
        assert_eq!(word.parse::<Said>().unwrap().word(), Some(word));
        assert_eq!(word.parse::<SaId>(), Err(SaIdError::NoAt));
    }
    assert_eq!("int256@0.0.0.0".parse::<SaId>(), Err(SaIdError::Protocol));
}

#[test]
fn what_tables_write_in_brackets_is_read() {
    let net = "3049:1::/64".parse().unwrap();
    assert_eq!(subnet("[3049:1::/64]:25", None), Ok((net, Some(25))));
    assert_eq!(subnet("[3049:1::/64]", Some(Family::V6)), Ok((net, None)));
    for wrong in
        ["[3049:1::/64", "3049:1::/64]", "[10.0.0.0/8]:25", "[3049:1::/64]25", "[3049:1::]/64", "[]/[]"]
    {
        assert!(subnet(wrong, None).is_err(), "{wrong}");
    }
    assert_eq!("tun:130@[3058:4::5]".parse::<SaId>(), "tun:130@3058:4::5".parse());
    for wrong in ["tun.130@[1.2.3.4]", "tun:130@[3058:4::5", "tun:130@3058:4::5]"] {
        assert_eq!(wrong.parse::<SaId>(), Err(SaIdError::Address), "{wrong}");
    }
}

#[test]
fn numbers() {
    let mut checked = 0;
    for row in table(include_str!("data/misc.md"), 2) {
        let Some(call) = row[0].strip_prefix("ttoul(") else { continue };
        let (text, base) = call.trim_end_matches(')').split_once(", base ").unwrap();
        let got = match base.parse().unwrap() {
            0 => number(text.trim_matches('`')),
            13 => continue,
            base => number_in(text.trim_matches('`'), base),
        };
        check(&row[0], &row[1], got.map(|value| value.to_string()));
        checked += 1;
    }
    assert_eq!(checked, 15);
    assert_eq!(number("18446744073709551615"), Ok(u64::MAX));
    assert_eq!(number("18446744073709551616"), Err(TextError::TooBig));
}

#[test]
fn protocols_and_ports() {
    // These said "any port", or took a protocol for granted; a typing error must not widen a policy.
    let refused = ["tcp/bar", "tcp/", "/25"];
    let services = |name: &str, proto: u8| (name == "smtp" && proto == 6).then_some(25);
    let mut checked = 0;
    for row in table(include_str!("data/misc.md"), 2) {
        let Some(call) = row[0].strip_prefix("ttoprotoport(`") else { continue };
        let text = call.trim_end_matches("`)");
        let got = proto_port(text, services);
        checked += 1;
        if refused.contains(&text) {
            assert!(got.is_err(), "{text}");
            continue;
        }
        let got = got.map(|ProtoPort { proto, port, any_port }| {
            format!("proto={proto} port={port} wild={}", u8::from(any_port))
        });
        check(&row[0], &row[1], got);
    }
    assert_eq!(checked, 20);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn any_text_is_read_without_panic(text in "[0-9a-fx.:/@%espahtuncomi-]{0,40}|\\PC{0,20}") {
            let _ = address(&text, None);
            let _ = subnet(&text, Some(Family::V4));
            let _ = subnet(&text, Some(Family::V6));
            let _ = text.parse::<Said>();
            let _ = proto_port(&text, |_, _| None);
            let _ = number(&text);
        }

        #[test]
        fn what_is_written_is_read(v6: bool, bits: u128, len: u8, spi: u32, port: u16) {
            let ip: IpAddr = if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) };
            prop_assert_eq!(address(&ip.to_string(), None), Ok(ip));
            let len = len % if v6 { 129 } else { 33 };
            let net = ipnet::IpNet::new(ip, len).unwrap().trunc();
            let text = format!("{net}:{port}");
            prop_assert_eq!(subnet(&text, None), Ok((net, Some(port).filter(|&port| port != 0))));
            for protocol in ["ah", "esp", "tun", "comp"] {
                let text = format!("{protocol}0x{spi:x}@{ip}");
                prop_assert_eq!(text.parse::<SaId>().unwrap().to_string(), text);
            }
        }
    }
}
