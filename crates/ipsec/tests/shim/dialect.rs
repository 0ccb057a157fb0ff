//! `ipsec run --dialect`: programs written for another PF_KEY.

use crate::setting::{compile, host, under_run_as};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;

#[test]
fn a_tool_written_for_klips_is_told_by_write() {
    let Some(host) = host() else { return };
    let program = compile(&host, "cc", &["-std=c99", "-D_GNU_SOURCE"], "klips.c");
    let mut command = under_run_as(&host, &["--dialect", "klips"], &program, &[]);
    command.stdin(Stdio::piped());
    let mut process = host.namespace.spawn(&mut command).expect("ipsec run");
    let mut says = BufReader::new(process.stdout.take().expect("piped"));
    let mut line = String::new();
    says.read_line(&mut line).expect("a line");
    let table = host.ipsec(&["eroute"]).out;
    process.stdin.take().expect("piped").write_all(b"\n").expect("told");
    says.read_line(&mut line).expect("a line");
    let mut why = String::new();
    process.stderr.take().expect("piped").read_to_string(&mut why).expect("text");
    assert!(process.wait().expect("wait").success() && line == "added\ncleared\n", "{line}{why}");
    // What the one dialect has said all others see.
    assert!(table.contains("192.0.2.0/24") && table.contains("tun0x12345678@192.1.2.40"), "{table}");
    assert_eq!(host.ipsec(&["eroute"]).out, "");
}

#[test]
fn a_dialect_nobody_speaks_is_named_with_those_there_are() {
    let Some(host) = host() else { return };
    let said = host.ipsec(&["run", "--dialect", "openbsd", "--", "true"]);
    assert_eq!(said.code, 2, "{said:?}");
    for word in ["openbsd", "native", "linux", "klips"] {
        assert!(said.err.contains(word), "{said:?}");
    }
}
