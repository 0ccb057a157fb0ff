//! `ipsec run --restart`: a program that begins and ends with the data plane.

use crate::host::{Host, IPSEC};
use crate::setting::{build_shim, start};
use ipsec::process::Process;
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::time::Duration;

/// Says when it begins and what it is told, and ends with 3 when it is told to. It waits in a way that a signal interrupts.
const PROGRAM: &str = "trap 'echo told; kill $! 2>&-; exit 3' TERM; trap 'echo reread' HUP; echo began; \
                       while :; do sleep 1000 >&- 2>&- & wait $!; kill $!; done";

/// A program under `ipsec run --restart`.
struct Kept {
    process: Child,
    says: BufReader<ChildStdout>,
    complains: BufReader<ChildStderr>,
}

impl Kept {
    fn start(host: &Host, script: &str) -> Self {
        let mut command = host.command(IPSEC, &["run", "--restart", "--", "sh", "-c", script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = host.namespace.spawn(&mut command).expect("ipsec run");
        let says = BufReader::new(process.stdout.take().expect("piped"));
        let complains = BufReader::new(process.stderr.take().expect("piped"));
        Self { process, says, complains }
    }

    #[track_caller]
    fn says(&mut self, line: &str) {
        let mut said = String::new();
        self.says.read_line(&mut said).expect("a line");
        assert_eq!(said.trim_end(), line);
    }

    fn complaint(&mut self) -> String {
        let mut said = String::new();
        self.complains.read_line(&mut said).expect("a line");
        said
    }

    fn signal(&self, signal: Signal) {
        let process = Process::now(self.process.id()).expect("it runs");
        assert!(process.signal(signal).expect("signal"));
    }

    /// Its exit code, and what it said on standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.process.wait().expect("wait");
        let mut why = String::new();
        self.complains.read_to_string(&mut why).expect("text");
        (status.code(), why)
    }
}

fn kill_data_plane(host: &Host) {
    let daemon = host.daemon();
    daemon.signal(Signal::KILL).expect("kill");
    let patience = Duration::from_secs(30);
    assert!(daemon.wait(patience).expect("wait") && daemon.gone(patience).expect("gone"));
}

#[test]
fn a_program_is_ended_with_the_data_plane_and_started_again_with_the_next() {
    let Some(host) = Host::new("%none") else { return };
    // There is none yet.
    build_shim();
    let mut kept = Kept::start(&host, PROGRAM);
    assert!(kept.complaint().contains("sh: waits for the data plane: `ipsec setup start` starts it"));
    start(&host);
    kept.says("began");
    // What it hears is none of our business.
    kept.signal(Signal::HUP);
    kept.says("reread");
    for _ in 0..2 {
        kill_data_plane(&host);
        kept.says("told");
        assert_eq!(host.ipsec(&["setup", "restart"]).code, 0);
        kept.says("began");
    }
    kept.signal(Signal::TERM);
    kept.says("told");
    let (code, why) = kept.end();
    assert_eq!(code, Some(3), "{why}");
    let times = |what: &str| why.lines().filter(|line| line.contains(what)).count();
    assert_eq!((times("has gone"), times("started again, for")), (2, 2), "{why}");

    // Nobody starts it again who ends by himself, or is told to end where there is no data plane.
    let kept = Kept::start(&host, "exit 7");
    assert_eq!(kept.end(), (Some(7), String::new()));
    let kept = Kept::start(&host, "kill -USR1 $$");
    assert_eq!(kept.end(), (Some(128 + 10), String::new()));
    let mut kept = Kept::start(&host, PROGRAM);
    kept.says("began");
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    kept.says("told");
    kept.signal(Signal::TERM);
    let (code, why) = kept.end();
    assert_eq!(code, Some(128 + 15), "{why}");
}

#[test]
fn a_program_that_does_not_end_is_killed_and_none_is_left_behind() {
    let Some(host) = Host::new("%none") else { return };
    start(&host);
    // The first time it does not hear.
    let once = host.dir.path().join("once");
    let script = format!(
        "mkdir {} 2>&- && trap '' TERM; echo began; while :; do sleep 1 >&- 2>&-; done",
        once.display()
    );
    let mut stubborn = Kept::start(&host, &script);
    stubborn.says("began");
    // Whoever kills the one that keeps it ends it, too.
    let mut orphan = Kept::start(&host, PROGRAM);
    orphan.says("began");
    orphan.signal(Signal::KILL);
    orphan.says("told");
    assert_eq!(orphan.end().0, None);
    kill_data_plane(&host);
    assert_eq!(host.ipsec(&["setup", "restart"]).code, 0);
    stubborn.says("began");
    stubborn.signal(Signal::TERM);
    let (code, why) = stubborn.end();
    assert_eq!(code, Some(128 + 15), "{why}");
    assert!(why.contains("does not end within 10 s: killed"), "{why}");
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn a_program_that_may_not_have_a_socket_is_not_waited_for() {
    let Some(host) = Host::new("%none") else { return };
    start(&host);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut command = host.command(IPSEC, &["run", "--restart", "--", "true"]);
    let output =
        host.namespace.run(|| command.uid(65_534).gid(65_534).output()).expect("namespace").expect("ipsec");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && why.contains("permission denied"), "{why}");
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}
