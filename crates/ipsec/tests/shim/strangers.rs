//! What is not about PF_KEY stays as it was; what cannot be run so is refused in words.

use crate::host::IPSEC;
use crate::setting::{has, host, run, under_run};
use crate::skipped::skipped;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn a_static_program_is_refused_in_words() {
    let Some(host) = host() else { return };
    let source = host.dir.path().join("nothing.c");
    fs::write(&source, "int main(void) { return 0; }\n").expect("source");
    for flag in ["-static", "-static-pie"] {
        let program = host.dir.path().join(format!("nothing{flag}"));
        let built = Command::new("cc").arg(flag).arg("-o").arg(&program).arg(&source).output().expect("cc");
        if !built.status.success() {
            skipped(&format!("a program linked with {flag}: no static C library"));
            continue;
        }
        let said = run(&host, &program, &[]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("statically linked") && said.err.contains(flag), "{said:?}");
    }
    let said = run(&host, Path::new("no-such-program-at-all"), &[]);
    assert!(said.code == 1 && said.err.contains("no such program in PATH"), "{said:?}");
    let said = run(&host, Path::new("/nowhere/program"), &[]);
    assert!(said.code == 1 && said.err.contains("/nowhere/program"), "{said:?}");
}

#[test]
fn a_program_is_started_as_it_would_be_without_us() {
    let Some(host) = host() else { return };
    // Words, exit status, standard input and what else is preloaded.
    let said = run(&host, Path::new("sh"), &["-c", "echo \"$0|$1|$2\"; exit 7", "a b", "--", "*"]);
    assert_eq!((said.out.as_str(), said.code), ("a b|--|*\n", 7), "{said:?}");
    let mut command =
        under_run(&host, Path::new("sh"), &["-c", "echo \"$LD_PRELOAD\"; echo $IPSEC_PFKEY_SOCKET"]);
    command.env("LD_PRELOAD", "libm.so.6");
    let out = String::from_utf8(command.output().expect("sh").stdout).expect("text");
    let shim = Path::new(IPSEC).with_file_name("libpfkey_preload.so");
    let shim = fs::canonicalize(shim).expect("built");
    let socket = host.rundir.pf_key_sock();
    assert_eq!(out, format!("{}:libm.so.6\n{}\n", shim.display(), socket.display()));
    // A program may go elsewhere: where the socket is does not depend on that.
    let (dir, name) = (socket.parent().expect("a directory"), socket.file_name().expect("a name"));
    let mut command = under_run(&host, Path::new("sh"), &["-c", "cd / && echo $IPSEC_PFKEY_SOCKET"]);
    command.env("IPSEC_RUNDIR", ".").current_dir(dir);
    let out = String::from_utf8(command.output().expect("sh").stdout).expect("text");
    assert_eq!(out, format!("{}\n", dir.join(name).display()));
}

/// CPython's tests of sockets, of `select` and of starting programs: thousands of calls that the shim stands before.
#[test]
fn the_test_suite_of_another_program_passes_under_it() {
    const SOCKET: &str = "test.test_socket.";
    const SUITES: &[&str] = &[
        "BasicTCPTest",
        "BasicUDPTest",
        "BasicSocketPairTest",
        "BufferIOTest",
        "CreateServerFunctionalTest",
        "FileObjectClassTestCase",
        "InheritanceTest",
        "NonBlockingTCPTests",
        "RecvmsgIntoUDPTest",
        "RecvmsgSCMRightsStreamTest",
        "RecvmsgIntoSCMRightsStreamTest",
        "RecvmsgUDPTest",
        "RecvmsgUnixStreamTest",
        "SendfileUsingSendTest",
        "SendmsgTCPTest",
        "SendmsgUDPTest",
        "SendmsgUnixStreamTest",
        "TestUnixDomain",
        "TestLinuxAbstractNamespace",
    ];
    const OTHERS: &[&str] =
        &["test.test_epoll", "test.test_select", "test.test_posix", "test.test_asyncio.test_unix_events"];
    let python = std::env::var("TULIPS_PYTHON").unwrap_or_else(|_| "python3".into());
    if !has(&python)
        || !Command::new(&python).args(["-c", "import test.test_socket"]).status().expect("python").success()
    {
        skipped(
            "CPython's tests of sockets under ipsec run: no python3 with its tests (apt-get install libpython3-testsuite)",
        );
        return;
    }
    let Some(host) = host() else { return };
    let sockets: Vec<String> = SUITES.iter().map(|class| format!("{SOCKET}{class}")).collect();
    let suites = [sockets, OTHERS.iter().map(|suite| (*suite).to_owned()).collect()];
    for suite in suites {
        // What fails without the shim says nothing about it.
        let verdict = |shimmed: bool| {
            let words: Vec<&str> =
                ["-m", "unittest"].into_iter().chain(suite.iter().map(String::as_str)).collect();
            let mut command = if shimmed {
                under_run(&host, Path::new(&python), &words)
            } else {
                host.command(&python, &words)
            };
            command.current_dir(host.dir.path());
            let output = host.namespace.run(|| command.output()).expect("namespace").expect("python");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let failed = |line: &&str| line.starts_with("FAIL:") || line.starts_with("ERROR:");
            let failures: Vec<String> = said.lines().filter(failed).map(str::to_owned).collect();
            let count =
                said.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse().ok());
            (failures, count.unwrap_or(0_usize), said)
        };
        let (mut failures, count, said) = verdict(true);
        if !failures.is_empty() {
            let (without, ..) = verdict(false);
            failures.retain(|failure| !without.contains(failure));
        }
        assert!(failures.is_empty(), "with the shim alone: {failures:?}\n{said}");
        assert!(count > 100, "{count} tests\n{said}");
    }
}
