//! What is printed arrives, or the command says that it did not; a reader that has gone is nobody's fault.

use crate::host::{Host, IPSEC};
use std::fs::File;
use std::io::pipe;
use std::process::{Command, Output, Stdio};

/// Every command that prints, with and without a daemon.
const COMMANDS: [&[&str]; 21] = [
    &["--help"],
    &["--version"],
    &["--confdir"],
    &["spi", "--help"],
    &["version"],
    &["version", "--json"],
    &["look"],
    &["look", "--json"],
    &["eroute"],
    &["eroute", "--json"],
    &["eroute", "--explain", "10.1.0.1", "10.2.0.1"],
    &["eroute", "--explain", "10.1.0.1", "10.2.0.1", "--json"],
    &["spi", "--json"],
    &["spigrp", "--json"],
    &["tncfg"],
    &["tncfg", "--json"],
    &["pf_key", "--supported"],
    &["klipsdebug"],
    &["setup", "status"],
    &["setup", "status", "--json"],
    &["key", "-n", "dump"],
];

fn run(host: &Host, args: &[&str], out: Stdio) -> Output {
    let mut command: Command = host.command(IPSEC, args);
    host.namespace.run(|| command.stdout(out).output()).expect("namespace").expect("ipsec")
}

#[test]
fn a_full_disk_is_an_error_with_its_name_and_a_closed_pipe_is_none() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    let eroute = ["eroute", "--add", "--src", "10.1.0.0/16", "--dst", "10.2.0.0/16", "--said", "%drop"];
    assert_eq!(host.ipsec(&eroute).code, 0);
    for args in COMMANDS {
        // What prints nothing can fail at nothing.
        let whole = run(&host, args, Stdio::piped());
        assert_eq!(whole.status.code(), Some(0), "{args:?}");
        let prints = !whole.stdout.is_empty();

        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let full = run(&host, args, full.into());
        let err = String::from_utf8_lossy(&full.stderr);
        assert_eq!(full.status.code(), Some(i32::from(prints)), "{args:?}: {err}");
        if prints {
            assert!(err.contains("standard output: No space left on device"), "{args:?}: {err}");
            assert!(!err.contains("klips.ctl") && !err.contains("panicked"), "{args:?}: {err}");
        }

        let (reader, writer) = pipe().expect("pipe");
        drop(reader);
        let closed = run(&host, args, writer.into());
        let err = String::from_utf8_lossy(&closed.stderr);
        assert_eq!((closed.status.code(), &*err), (Some(0), ""), "{args:?}");
    }
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn every_command_tells_its_version() {
    for command in ["eroute", "spi", "key", "tncfg", "look", "pf_key", "setup", "spigrp", "version"] {
        let told = Command::new(IPSEC).args([command, "--version"]).output().expect("ipsec");
        let text = String::from_utf8_lossy(&told.stdout);
        assert!(told.status.success() && text.contains(env!("CARGO_PKG_VERSION")), "{command}: {text}");
    }
    let unknown = Command::new(IPSEC).args(["nonsense", "--version"]).output().expect("ipsec");
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn a_reason_that_cannot_be_told_changes_no_exit_code() {
    for (args, code) in [(&["spi", "--nonsense"][..], 2), (&["spi", "--del"], 2), (&["look"], 1)] {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let mut command = Command::new(IPSEC);
        command.args(args).env("IPSEC_RUNDIR", "/nonexistent").stdin(Stdio::null()).stderr(full);
        assert_eq!(command.output().expect("ipsec").status.code(), Some(code), "{args:?}");
    }
}
