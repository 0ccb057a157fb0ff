//! What an operator looks at and hooks into: updown programs, metrics, `ipsec top`, `ipsec monitor`, one number for each
//! negotiation.

use crate::skipped::skipped;
use crate::{CONN, Gateway, IPSEC, PATIENCE, SECRET, both, crosses, pair, unbroken, wait};
use ipsec::process::Process;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The value of a metric whose line begins with this.
pub(crate) fn metric(text: &str, head: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(head))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn an_updown_program_is_told_what_happens_in_its_order() {
    let dir = tempfile::tempdir().expect("directory");
    let (program, out) = (dir.path().join("updown"), dir.path().join("out"));
    let line = "$PLUTO_VERB $PLUTO_CONNECTION $PLUTO_INTERFACE $PLUTO_ME $PLUTO_PEER $PLUTO_MY_CLIENT $PLUTO_PEER_CLIENT $PLUTO_MY_ID $PLUTO_PEER_ID";
    fs::write(&program, format!("#!/bin/sh\necho {line} >>{}\n", out.display())).expect("program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
    let west_conn = format!("{CONN}\tauto=add\n\tleftupdown={}\n", program.display());
    let Some((west, east, _router)) = pair((&west_conn, SECRET), (&format!("{CONN}\tauto=add\n"), SECRET))
    else {
        return;
    };
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    west.done(&["auto", "--down", "west-east"]);
    wait("down", || west.spis().is_empty());
    west.done(&["auto", "--delete", "west-east"]);
    let said = || fs::read_to_string(&out).unwrap_or_default();
    wait("four words", || said().lines().count() == 4);
    let rest = "west-east ipsec0 192.0.2.1 198.51.100.7 10.1.0.0/24 10.2.0.0/24 @west @east";
    let expected = ["route", "up", "down", "unroute"].map(|verb| format!("{verb}-client {rest}\n"));
    assert_eq!(said(), expected.concat());
}

/// The rules of Prometheus' own tool, where it is there.
fn promtool(text: &str) {
    let program = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let mut command = Command::new(&program);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return eprintln!(
            "not asked: no {program} (apt-get install prometheus, or say PROMTOOL=/where/promtool)"
        );
    };
    child.stdin.take().expect("pipe").write_all(text.as_bytes()).expect("metrics");
    let output = child.wait_with_output().expect("promtool");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // It reads the older format, where the help of a counter has its whole name; in OpenMetrics `_total` belongs to the sample.
    let amiss: Vec<_> =
        said.lines().filter(|line| !line.is_empty() && !line.ends_with("_total no help text")).collect();
    assert!(matches!(output.status.code(), Some(0 | 3)) && amiss.is_empty(), "{said}");
}

#[test]
fn metrics_and_top_show_the_counters_and_a_connection_that_is_down() {
    let Some((mut west, east, _router)) = both() else { return };
    let metrics = |west: &Gateway| west.done(&["metrics"]);
    let up = "ipsec_connection_up{connection=\"west-east\"}";
    assert_eq!(metric(&metrics(&west), up), Some(0.0), "configured, and down");
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    crosses(&east, &west);
    let text = metrics(&west);
    promtool(&text);
    assert_eq!(metric(&text, up), Some(1.0));
    assert_eq!(metric(&text, "ipsec_daemon_up{daemon=\"klips\"}"), Some(1.0));
    assert_eq!(metric(&text, "ipsec_ike_sas"), Some(1.0));
    assert_eq!(metric(&text, "ipsec_sas"), Some(2.0));
    // The same numbers as in the table of SAs.
    let rows: Value = serde_json::from_slice(&west.ipsec(&["spi", "--json"]).stdout).expect("JSON");
    for (direction, word) in [("out", "out"), ("in", "in")] {
        let of = |row: &&Value| row["direction"] == direction;
        let row = rows.as_array().expect("rows").iter().find(of).expect("an SA");
        let value = |name: &str| {
            metric(
                &text,
                &format!("ipsec_connection_{name}_total{{connection=\"west-east\",direction=\"{word}\"}}"),
            )
        };
        assert_eq!(value("bytes"), row["current"]["bytes"].as_f64(), "{text}\n{row}");
        assert_eq!(value("packets"), row["packets"].as_f64(), "{text}\n{row}");
        assert!(value("packets") > Some(0.0));
    }
    let top = west.done(&["top", "--once", "--delay", "1"]);
    assert!(
        top.starts_with("klips runs, pluto runs") && top.contains("connections 1, 1 up; IKE SAs 1, SAs 2"),
        "{top}"
    );
    assert!(top.contains("west-east  up         198.51.100.7"), "{top}");

    // Without a pluto the connection is not gone from sight.
    let pid = west.rundir.pluto_pid();
    west.kill(&pid);
    let text = metrics(&west);
    assert_eq!(metric(&text, up), Some(0.0));
    assert_eq!(metric(&text, "ipsec_daemon_up{daemon=\"pluto\"}"), Some(0.0));
    assert!(text.contains("state=\"unloaded\"} 1"), "{text}");
}

#[test]
fn top_draws_on_a_terminal_and_leaves_it_as_it_was() {
    let Some((west, _east, _router)) = both() else { return };
    let typescript = west.dir.path().join("typescript");
    let command =
        format!("stty rows 24 cols 100; {IPSEC} top --delay 1; stty -a | grep -c -w echo; echo code $?");
    let mut script = west.command("script", &["-q", "-c", &command]);
    script
        .arg(&typescript)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let Ok(mut child) = west.namespace.spawn(&mut script) else {
        skipped("no script(1)");
        return;
    };
    let seen = || String::from_utf8_lossy(&fs::read(&typescript).unwrap_or_default()).into_owned();
    wait("a picture", || seen().contains("west-east"));
    child.stdin.as_mut().expect("pipe").write_all(b"tq").expect("keys");
    wait("its end", || child.try_wait().expect("wait").is_some());
    let seen = seen();
    assert!(seen.contains("\x1b[?1049h") && seen.contains("\x1b[?1049l"), "{seen:?}");
    assert!(seen.contains("CONNECTION") && seen.contains("packets refused: "), "{seen:?}");
    assert!(seen.trim_end().contains("code 0"), "{seen:?}");
}

#[test]
fn a_negotiation_has_one_number_in_log_progress_and_monitor() {
    let conn = |auto: &str| format!("{CONN}\tauto={auto}\n");
    let Some((west, east, _router)) = pair((&conn("route"), SECRET), (&conn("add"), SECRET)) else { return };
    wait("the trap", || west.state() == "routed");
    let mut monitor = west.command(IPSEC, &["monitor", "--json", "--passive"]);
    monitor.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut monitor = west.namespace.spawn(&mut monitor).expect("monitor");
    let lines = BufReader::new(monitor.stdout.take().expect("pipe")).lines();
    let connected = || {
        let sockets = west.namespace.run(|| fs::read_to_string("/proc/thread-self/net/unix"));
        let sockets = sockets.expect("namespace").expect("sockets");
        // The other end of a connection has the name, too, and is connected (03).
        sockets.lines().any(|line| line.contains(" 03 ") && line.ends_with("/pluto.ctl"))
    };
    wait("the monitor at pluto", connected);
    // What it asks for is heard before this.
    west.status();
    crosses(&west, &east);
    let mut number = None;
    for line in lines {
        let line: Value = serde_json::from_str(&line.expect("line")).expect("JSON");
        let Some(ike) = line.get("ike") else { continue };
        assert_eq!(ike["connection"], "west-east");
        let this = ike["negotiation"].as_u64();
        assert!(number.is_none() || number == this, "{ike}");
        number = this;
        if ike["text"].as_str().is_some_and(|text| text.contains("IPsec SA established")) {
            break;
        }
    }
    monitor.kill().expect("kill");
    monitor.wait().expect("wait");
    let mark = format!("\"west-east\" #{}: ", number.expect("a number"));
    let said = west.said();
    let of: Vec<&str> =
        said.lines().filter_map(|line| line.split_once(&mark).map(|(_, text)| text)).collect();
    assert!(of.first().is_some_and(|text| text.contains("begun by a packet")), "{said}");
    assert!(of.iter().any(|text| text.contains("IKE SA established")), "{said}");
    assert!(of.iter().any(|text| text.contains("IPsec SA established")), "{said}");
    // The next one is another.
    let progress = west.done(&["auto", "--rekey", "west-east"]);
    assert!(!progress.contains(&mark), "{progress}");
    wait("the next number", || {
        let said = west.said();
        said.lines().filter(|line| line.contains("SAs replaced")).any(|line| !line.contains(&mark))
    });
}

#[test]
fn a_reload_under_traffic_costs_what_did_not_change_no_packet() {
    let other = |net: &str| format!("{CONN}\tauto=add\nconn other\n\talso=west-east\n\trightsubnet={net}\n");
    let Some((west, east, _router)) =
        pair((&other("10.8.0.0/24"), SECRET), (&format!("{CONN}\tauto=add\n"), SECRET))
    else {
        return;
    };
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    let before = west.spis();
    unbroken(&west, &east, || {
        for n in 0..20 {
            west.write("ipsec.conf", &other(&format!("10.{}.0.0/24", 20 + n)));
            assert_eq!(west.done(&["auto", "--reload"]), "\"other\": changed\n");
        }
        // Away, and back again.
        west.write("ipsec.conf", &format!("{CONN}\tauto=add\n"));
        assert_eq!(west.done(&["auto", "--reload"]), "\"other\": removed\n");
        west.write("ipsec.conf", &other("10.8.0.0/24"));
        west.done(&["auto", "--reload"]);
        west.done(&["auto", "--rereadsecrets"]);
    });
    assert_eq!(west.spis(), before);
}

#[test]
fn down_answers_when_it_is_down_and_what_is_routed_then_asks_anew() {
    let Some((west, east, _router)) = both() else { return };
    west.done(&["auto", "--up", "west-east"]);
    let peer = Process::read(&east.rundir.pluto_pid()).expect("a pid file");
    peer.signal(Signal::STOP).expect("stopped");
    let mut down = west.command(IPSEC, &["auto", "--down", "west-east"]);
    let mut down = west.namespace.spawn(&mut down).expect("ipsec");
    std::thread::sleep(Duration::from_millis(500));
    let early = down.try_wait().expect("a child");
    peer.signal(Signal::CONT).expect("continued");
    assert!(early.is_none(), "it answers although the SAs are still there");
    assert!(down.wait().expect("a child").success());
    assert!(west.spis().is_empty() && west.state() != "up", "{}", west.state());
    // A peer that is not there is not waited for until it is given up.
    west.done(&["auto", "--up", "west-east"]);
    peer.signal(Signal::STOP).expect("stopped");
    let said = west.done(&["auto", "--down", "west-east"]);
    peer.signal(Signal::CONT).expect("continued");
    assert!(said.contains("still up"), "{said}");
    wait("down", || west.spis().is_empty());
    // One datagram each time: the first is not the one that is lost.
    let bind = |gateway: &Gateway| {
        gateway.namespace.run(|| UdpSocket::bind((gateway.inside, 0))).expect("namespace").expect("socket")
    };
    let (from, to) = (bind(&west), bind(&east));
    to.set_read_timeout(Some(PATIENCE)).expect("timeout");
    for n in 0..20_u8 {
        west.done(&["auto", "--down", "west-east"]);
        west.done(&["auto", "--route", "west-east"]);
        from.send_to(&[n], to.local_addr().expect("address")).expect("sent");
        let mut heard = [0; 16];
        let octets = to.recv(&mut heard).expect("the datagram");
        assert_eq!(heard[..octets], [n]);
    }
}
