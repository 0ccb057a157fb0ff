//! `ipsec key` and `ipsec monitor` with a real daemon.

use crate::host::{Host, IPSEC, Said};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

const KEY: &str = "000102030405060708090a0b0c0d0e0f";

fn started() -> Option<Host> {
    let host = Host::new("%none")?;
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    Some(host)
}

fn stop(host: &Host) {
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

/// Writes a file as it should be: for nobody else to read.
fn file(host: &Host, name: &str, text: &str) -> String {
    let path = host.dir.path().join(name);
    fs::write(&path, text).expect("file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
    path.to_str().expect("path").to_owned()
}

fn done(said: Said) -> String {
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    said.out
}

/// What a dump says that does not depend on when it was made.
fn lasting(host: &Host) -> Vec<serde_json::Value> {
    let mut rows: Vec<serde_json::Value> = done(host.ipsec(&["key", "-n", "--json", "dump"]))
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for row in &mut rows {
        let row = row.as_object_mut().expect("object");
        for word in ["current", "seq", "pid", "length"] {
            row.remove(word);
        }
    }
    rows.sort_by_key(ToString::to_string);
    rows
}

/// One SA of each kind that the words can make.
fn everything() -> String {
    format!(
        "# all there is\n\
         add esp spi 0x1001 encr_alg aes-gcm16 src 192.0.2.1 dst 192.0.2.7 encrkey {KEY}01020304 \\\n  \
         replay 64 inbound hard_bytes 1000000 soft_bytes 900000 hard_addtime 3600 soft_addtime 3000\n\
         add esp spi 0x1002 encralg aes authalg hmac-sha256 src 192.0.2.7 dst 192.0.2.1 outbound \\\n  \
         encrkey 0x{KEY}/128 authkey {KEY}{KEY} hard_usetime 100 idle_addtime 50 replay_value 77\n\
         add esp spi 0x1003 auth_alg sha1 dst 192.0.2.7 authkey {KEY}10111213 proto tcp sport 1 dport 2\n\
         add ah spi 0x1004 auth_alg hmac-sha512 src6 2001:db8::1 dst6 2001:db8::2 authkey {KEY}{KEY}{KEY}{KEY}\n\
         add esp spi 0x1005 encr_alg aes-gcm16 src 192.0.2.1 dst 192.0.2.7 encrkey {KEY}{KEY}01020304 \\\n  \
         isrc 10.1.0.0/16 idst 10.2.3.4 iproto 17 isport 53 idport 54 replay 1024 esn inbound\n\
         add esp spi 0x1006 encr_alg chacha20-poly1305 src 192.0.2.7 dst 192.0.2.1 outbound \\\n  \
         encrkey {KEY}{KEY}05060708 encap udp nat_lport 4500 nat_rport 4501 isrc 10.2.0.0/16 idst 10.1.0.0/16\n\
         add esp spi 0x1007 encr_alg 3des auth_alg md5 dst 192.0.2.9 authkey {KEY} replay 0 \\\n  \
         encrkey 0123456789abcdef23456789abcdef01456789abcdef0123\n\
         add esp spi 0x1008 encr_alg aes-ccm8 dst 192.0.2.9 encrkey {KEY}010203 \\\n  \
         srcidtype fqdn \"west gate.example\" dstidtype 6 key\n"
    )
}

#[test]
fn what_is_saved_is_read_back_as_the_same_sas() {
    let Some(host) = started() else { return };
    let made = file(&host, "made", &everything());
    done(host.ipsec(&["key", "-c", &made]));
    assert!(lasting(&host).is_empty(), "-c sends nothing");
    done(host.ipsec(&["key", "-f", &made]));
    let before = lasting(&host);
    assert_eq!(before.len(), 8);
    let saved = host.dir.path().join("saved");
    let saved = saved.to_str().expect("path");
    done(host.ipsec(&["key", "-s", saved]));
    assert_eq!(fs::metadata(saved).expect("saved").permissions().mode() & 0o777, 0o600);
    done(host.ipsec(&["key", "flush"]));
    assert!(lasting(&host).is_empty());
    done(host.ipsec(&["key", "-f", saved]));
    assert_eq!(lasting(&host), before);
    // Once more: what is there already is refused, one by one, with the line and the remedy.
    let again = host.ipsec(&["key", "-f", saved]);
    assert_eq!((again.code, again.err.lines().count()), (1, 8), "{again:?}");
    assert!(
        again.err.lines().all(|line| line.starts_with(saved) && line.contains("EEXIST")),
        "{}",
        again.err
    );
    stop(&host);
}

/// `ipsec key` reading its commands from standard input.
fn piped(host: &Host, args: &[&str], text: &str) -> Said {
    let spawn = || {
        host.command(IPSEC, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let mut child = host.namespace.run(spawn).expect("namespace").expect("ipsec");
    child.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("write");
    child.wait_with_output().expect("output").into()
}

#[test]
fn keys_are_shown_to_those_who_ask_and_never_when_paranoid() {
    let Some(host) = started() else { return };
    let made = file(&host, "made", &everything());
    done(host.ipsec(&["key", "-f", &made]));
    let get = ["get", "esp", "spi", "0x1001", "dst", "192.0.2.7"];
    let shown = done(host.ipsec(&[&["key", "-n"][..], &get].concat()));
    assert!(shown.contains(&format!("EKY: {KEY}[01020304]/128+32\n")), "{shown}");
    assert!(done(host.ipsec(&["key", "--json", "dump", "esp"])).contains(KEY));
    let file = host.dir.path().join("saved");
    let file = file.to_str().expect("path");
    for quiet in [
        &["key", "-np", "dump"][..],
        &["key", "-p", "--json", "dump"],
        &["key", "-p", "save", "all"],
        &[&["key", "-npv"][..], &get].concat(),
    ] {
        let said = done(host.ipsec(quiet));
        assert!(said.contains("0x1001") && !said.contains("000102") && !said.contains("01020304"), "{said}");
    }
    done(host.ipsec(&["key", "-p", "-s", file]));
    assert!(!fs::read_to_string(file).expect("saved").contains("000102"));
    // What is sent is shown too, without keys.
    let line = format!("add esp spi 0x1010 auth_alg sha1 dst 192.0.2.7 authkey {KEY}10111213\n");
    let said = done(piped(&host, &["key", "-npv"], &line));
    assert!(said.contains("type ADD") && said.contains("XXXX/160") && !said.contains("000102"), "{said}");
    stop(&host);
}

#[test]
fn one_bad_line_does_not_stop_the_others_and_is_named() {
    let Some(host) = started() else { return };
    let text = format!(
        "add esp spi 0x1001 dst 192.0.2.7 encr_alg aes-gcm16 \\\n encrkey {KEY}01020304 sprot 5\n\
         add esp spi 0x1002 dst 192.0.2.7 auth_alg sha1 authkey {KEY}10111213\n\
         add esp spi 0x1003 dst 192.0.2.7 auth_alg sha1 authkey {KEY}\ndump\n"
    );
    let made = file(&host, "made", &text);
    let said = host.ipsec(&["key", "-f", &made]);
    assert_eq!(said.code, 1);
    let lines: Vec<&str> = said.err.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{made}:2: add: sprot: no such keyword")), "{lines:?}");
    assert!(lines[1].starts_with(&format!("{made}:4: add: klips refused it: EINVAL, bad auth")), "{lines:?}");
    assert!(lines[2].starts_with(&format!("{made}:5: dump: dump: not in a file")), "{lines:?}");
    assert_eq!(lasting(&host).len(), 1);
    // A single command is refused on the command line if there would be keys in it, and is understood or is not.
    let said = host.ipsec(&["key", "add", "esp", "spi", "1"]);
    assert!(said.code == 2 && said.err.contains("everyone can read keys"), "{said:?}");
    assert_eq!(host.ipsec(&["key", "get", "esp", "spi", "x"]).code, 2);
    let said = host.ipsec(&["key", "get", "esp", "spi", "0x9999", "dst", "192.0.2.7"]);
    assert!(said.code == 1 && said.err.contains("ESRCH") && said.err.contains("`dump'"), "{said:?}");
    stop(&host);
}

/// A monitor that has begun to listen.
fn watching(host: &Host, args: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let spawn = || host.command(IPSEC, args).stdout(Stdio::piped()).spawn();
    let mut child = host.namespace.run(spawn).expect("namespace").expect("ipsec");
    let mut out = BufReader::new(child.stdout.take().expect("stdout"));
    let mut line = String::new();
    out.read_line(&mut line).expect("line");
    assert!(line.starts_with("Monitoring "), "{line}");
    (child, out)
}

/// Ends it as Ctrl-C does, and gives back what it has said.
fn interrupted((mut child, mut out): (Child, BufReader<std::process::ChildStdout>), last: &str) -> String {
    let mut said = String::new();
    while !said.contains(last) {
        assert_ne!(out.read_line(&mut said).expect("line"), 0, "{said}");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("kill");
    out.read_to_string(&mut said).expect("the rest");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    said
}

#[test]
fn a_monitor_sees_what_others_do_and_no_keys() {
    let Some(host) = started() else { return };
    let (active, passive) =
        (watching(&host, &["monitor", "-n"]), watching(&host, &["key", "-n", "pmonitor"]));
    let made = file(&host, "made", &everything());
    done(host.ipsec(&["key", "-f", &made]));
    done(host.ipsec(&["key", "get", "esp", "spi", "0x1001", "dst", "192.0.2.7"]));
    done(host.ipsec(&["key", "flush"]));
    let active = interrupted(active, "type FLUSH");
    assert!(active.contains("type ADD, SA type ESP") && active.contains("spi=0x1008"), "{active}");
    let passive = interrupted(passive, "type FLUSH");
    assert!(passive.contains("type ADD, SA type AH") && !passive.contains("type GET"), "{passive}");
    // Promiscuous sockets hear the answers of others, keys and all (pf_key(7P)).
    assert!(active.contains("EKY: XXXX") && !active.contains("000102"), "{active}");
    assert!(!passive.contains("AKY") && !passive.contains("EKY"), "{passive}");
    stop(&host);
}

#[test]
fn what_the_monitor_was_too_slow_for_is_counted() {
    let Some(host) = started() else { return };
    let slow = watching(&host, &["monitor", "-n", "--passive"]);
    let pid = rustix::process::Pid::from_child(&slow.0);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stop");
    // Two megabytes of notices that nobody reads.
    let name = "x".repeat(4000);
    let add =
        |spi| format!("add esp spi {spi} dst 192.0.2.9 auth_alg md5 authkey {KEY} srcidtype fqdn {name}\n");
    done(piped(&host, &["key"], &(1000..1500).map(add).collect::<String>()));
    let rows = done(host.ipsec(&["pf_key", "--json"]));
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("continue");
    let said = interrupted(slow, "type ADD");
    let lost = said
        .lines()
        .find_map(|line| line.strip_suffix(" messages were lost: they came faster than they were read."));
    let rows: serde_json::Value = serde_json::from_str(&rows).expect("JSON");
    let counted =
        rows.as_array().expect("array").iter().find_map(|row| row["dropped"].as_u64().filter(|n| *n > 0));
    assert_eq!(lost.map(str::to_owned), counted.map(|n| n.to_string()), "{rows}");
    assert!(counted.is_some(), "{rows}");
    stop(&host);
}
