use super::*;
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn plan(line: &str) -> Result<Plan, String> {
    let words = std::iter::once("eroute").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    cli.args.plan().map_err(|usage| usage.to_string())
}

fn selector(src: &str, dst: &str, proto: u8, sport: u16, dport: u16) -> Selector {
    Selector { src: src.parse().unwrap(), dst: dst.parse().unwrap(), proto, sport, dport }
}

fn added(line: &str) -> (Selector, String, bool) {
    match plan(line) {
        Ok(Plan::Add { selector, said, replace }) => (selector, said.to_string(), replace),
        other => panic!("{line}: {other:?}"),
    }
}

const NETS: &str = "--src 10.1.2.3/16 --dst 10.2.0.0/255.255.0.0";

#[test]
fn options_may_come_in_any_order() {
    let expected = (selector("10.1.0.0/16", "10.2.0.0/16", 0, 0, 0), "esp0x101@192.0.2.1".to_owned(), false);
    assert_eq!(added(&format!("--add {NETS} --said esp0x101@192.0.2.1")), expected);
    assert_eq!(added(&format!("--said esp.101@192.0.2.1 {NETS} --add --eraf inet")), expected);
    assert_eq!(added(&format!("{NETS} --proto esp --spi 0x101 --edst 192.0.2.1 --af inet --add")), expected);
    // As getopt_long had it: any beginning that is clear.
    assert_eq!(added(&format!("--add {NETS} --sai esp257@192.0.2.1")), expected);
}

#[test]
fn magic_words_and_replacing() {
    for word in ["%pass", "%drop", "%reject", "%trap", "%hold"] {
        let (_, said, replace) = added(&format!("--replace {NETS} --said {word}"));
        assert_eq!((said.as_str(), replace), (word, true));
    }
}

#[test]
fn protocols_and_ports() {
    let (got, ..) =
        added(&format!("--add {NETS} --transport-proto tcp --src-port 1024 --dst-port 0x19 --said %pass"));
    assert_eq!(got, selector("10.1.0.0/16", "10.2.0.0/16", 6, 1024, 25));
    let (got, ..) = added("--add --src 10.1.0.0/16:1024 --dst %default --transport-proto 17 --said %pass");
    assert_eq!(got, selector("10.1.0.0/16", "0.0.0.0/0", 17, 1024, 0));
    for (line, why) in [
        ("--dst-port 25", "ports need --transport-proto"),
        ("--transport-proto 47 --dst-port 8", "ports need --transport-proto"),
        ("--transport-proto tcp --dst-port 65536", "--dst-port 65536"),
        ("--transport-proto 256", "--transport-proto 256"),
        ("--transport-proto tcp --dst-port no-such-service", "--dst-port no-such-service"),
    ] {
        let error = plan(&format!("--add {NETS} --said %pass {line}")).unwrap_err();
        assert!(error.contains(why), "{line}: {error}");
    }
    let differ = plan("--add --src 10/8:1 --dst 10/8 --src-port 2 --transport-proto tcp --said %pass");
    assert!(differ.unwrap_err().contains("differ"));
}

#[test]
fn the_default_subnet_has_the_family_of_the_other() {
    let (got, ..) = added("--add --src %default --dst 2001:db8::/32 --said %pass");
    assert_eq!(got, selector("::/0", "2001:db8::/32", 0, 0, 0));
    assert!(plan("--add --src 10/8 --dst 2001:db8::/32 --said %pass").is_err());
    assert!(plan("--add --src %default --dst %default --said %pass").is_err());
    assert_eq!(
        added("--add --eraf inet6 --src %default --dst %default --said %pass").0,
        selector("::/0", "::/0", 0, 0, 0)
    );
}

#[test]
fn deleting_clearing_listing() {
    assert_eq!(
        plan(&format!("--del {NETS}")),
        Ok(Plan::Delete(selector("10.1.0.0/16", "10.2.0.0/16", 0, 0, 0)))
    );
    assert_eq!(plan("--clear"), Ok(Plan::Clear));
    assert_eq!(plan(""), Ok(Plan::List));
    assert_eq!(plan("--json --label x --debug"), Ok(Plan::List));
}

#[test]
fn explaining() {
    let explained = |line: &str| match plan(line) {
        Ok(Plan::Explain(flow)) => {
            (flow.src.to_string(), flow.dst.to_string(), flow.proto, flow.sport, flow.dport)
        }
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(explained("--explain 10.1.2.3 10.2.3.4"), ("10.1.2.3".into(), "10.2.3.4".into(), 0, 0, 0));
    assert_eq!(explained("--explain ::1 ::2 icmpv6").2, 58);
    let full = explained("--explain 10.1.2.3 10.2.3.4 tcp 40000 80");
    assert_eq!((full.2, full.3, full.4), (6, 40_000, 80));
    let wrong =
        ["--explain 1.2.3.4", "--explain 1.2.3.4 ::1", "--explain 1.2.3.4 4.3.2.1 tcp 1", "--explain a b"];
    for line in wrong.into_iter().chain([
        "--explain 1.2.3.4 4.3.2.1 icmp 256 2",
        "--explain 1.2.3.4 4.3.2.1 47 1 2",
        "--explain 1.1.1.1 2.2.2.2 6 1 2 3",
    ]) {
        assert!(plan(line).is_err(), "{line}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_done() {
    for (line, why) in [
        (format!("--add --del {NETS} --said %pass"), "cannot be used with"),
        (format!("--add {NETS}"), "--said"),
        ("--add --src 10/8 --said %pass".to_owned(), "--dst is required"),
        ("--del --dst 10/8".to_owned(), "--src is required"),
        (NETS.to_owned(), "exactly one of"),
        ("--said %pass".to_owned(), "exactly one of"),
        (format!("--add {NETS} --said esp0xff@192.0.2.1"), "reserved SPI 0xff"),
        (format!("--add {NETS} --said esp@192.0.2.1"), "--said esp@192.0.2.1"),
        (format!("--add {NETS} --said %none"), "unknown % keyword"),
        (format!("--add {NETS} --edst 192.0.2.1 --spi 0x100"), "--proto"),
        (format!("--add {NETS} --edst 192.0.2.1 --spi 0x100 --proto gre"), "--proto gre"),
        (format!("--add {NETS} --edst ::1 --af inet --spi 0x100 --proto esp"), "wrong family"),
        (
            format!("--add {NETS} --said %pass --edst 192.0.2.1 --spi 0x100 --proto esp"),
            "cannot be used with",
        ),
        (format!("--addin {NETS} --said tun0x100@192.0.2.1"), "--inner-src"),
        ("--add --src 10/33 --dst 10/8 --said %pass".to_owned(), "--src 10/33"),
        ("10/8".to_owned(), "unexpected argument"),
    ] {
        let error = plan(&line).expect_err(&line);
        assert!(error.contains(why), "{line}: {error}");
    }
}

#[test]
fn an_explanation_names_the_winner_the_reason_and_the_rest() {
    let row = |dst: &str, proto: u8, dport: u16, said: &str| {
        serde_json::json!({
            "src": "10.1.0.0/16", "dst": dst, "proto": proto, "sport": 0, "dport": dport, "said": said, "packets": 3,
        })
    };
    let answer = serde_json::json!({
        "eroute": row("10.2.3.0/24", 6, 80, "esp0x101@192.0.2.1"),
        "why": "of 2 that match, its destination prefix is longer: /24, not /16",
        "others": [{
            "eroute": row("10.2.0.0/16", 0, 0, "%drop"),
            "beaten": "its destination prefix is longer: /24, not /16",
        }],
    });
    assert_eq!(
        explanation(&answer),
        "10.1.0.0/16 -> 10.2.3.0/24:80 proto 6 => esp0x101@192.0.2.1\n\
         of 2 that match, its destination prefix is longer: /24, not /16\n  \
         not 10.1.0.0/16 -> 10.2.0.0/16 => %drop: its destination prefix is longer: /24, not /16\n"
    );
    let nothing = serde_json::json!({ "eroute": null, "others": [], "why": "no eroute matches: the packet is dropped" });
    assert_eq!(explanation(&nothing), "no eroute matches: the packet is dropped\n");
}
