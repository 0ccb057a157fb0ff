//! `ipsec setup` and the daemon, run as a person runs them.

use crate::host::{Host, IPSEC, KLIPS, PLUTO, Said};
use crate::skipped::skipped;
use ipsec::process::Process;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

#[test]
fn the_subsystem_lives_dies_and_lives_again() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    let said = host.ipsec(&["setup", "status"]);
    assert_eq!((said.out.as_str(), said.code), ("IPsec stopped\n", 0));

    let said = host.ipsec(&["setup", "start"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("ipsec_setup: Starting "), "{said:?}");
    assert!(host.has_device("ipsec0"));
    let first = host.daemon();
    let said = host.ipsec(&["setup", "status"]);
    assert_eq!(said.out, format!("IPsec running\nklips pid {}\nNo tunnels up\n", first.pid));
    assert_eq!(said.code, 0);
    assert_eq!(host.ipsec(&["tncfg"]).out, "ipsec0 -> eth7 mtu=1420(1420) -> 1500\n");
    assert_eq!(fs::read_to_string(host.rundir.info()).expect("info"), "#dr: no default route\npluto=no\n");

    let said = host.ipsec(&["setup", "--start"]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("apparently already running"), "{said:?}");
    assert_eq!(host.daemon(), first, "a second start changes nothing");
    assert!(first.is_alive());

    assert!(first.signal(Signal::KILL).expect("kill"));
    assert!(first.wait(Duration::from_secs(30)).expect("wait"));
    let said = host.ipsec(&["setup", "status"]);
    assert!(said.out.starts_with("IPsec running\nbut...\nno klips running!"), "{said:?}");
    assert_eq!(said.code, 1);
    assert_eq!(host.ipsec(&["setup", "status", "--lsb"]).code, 1);
    let said = host.ipsec(&["setup", "start"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_ne!(host.daemon(), first);
    assert!(host.has_device("ipsec0"));
    assert_eq!(host.ipsec(&["setup", "status"]).code, 0);

    let said = host.ipsec(&["setup", "stop"]);
    assert_eq!((said.out.lines().count(), said.code), (1, 0), "{said:?}");
    assert_eq!(host.left(), [""; 0]);
    assert!(!host.has_device("ipsec0") && !host.is_mounted());
    let said = host.ipsec(&["setup", "stop"]);
    assert_eq!(said.code, 1);
    assert!(
        said.out.contains("does not appear to be running!\nipsec_setup: doing cleanup anyway...\n"),
        "{said:?}"
    );
    assert_eq!(host.ipsec(&["setup", "stop", "--lsb"]).code, 0);
    assert_eq!(host.ipsec(&["setup", "status", "--lsb"]).code, 3);
    assert_eq!(host.ipsec(&["setup", "restart"]).code, 0);
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn a_start_that_fails_leaves_nothing_and_says_why() {
    // The first device can be attached, the second cannot.
    let Some(host) = Host::new("ipsec0=eth7 ipsec1=eth8") else { return };
    let said = host.ipsec(&["setup", "start"]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("ipsec1 on eth8: No such device."), "{said:?}");
    assert_eq!(host.left(), [""; 0]);
    assert!(!host.has_device("ipsec0") && !host.is_mounted());
    assert_eq!(host.ipsec(&["setup", "status"]).out, "IPsec stopped\n");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_touched() {
    let Some(host) = Host::new("%none") else { return };
    for (setup, why) in [
        ("\tpluto=no\n\tprotostack=netkey\n", "write protostack=klips"),
        (
            "\tpluto=no\n\tpfkeygroup=no-such-group-7\n\tinterfaces=%none\n",
            "there is no group no-such-group-7",
        ),
        ("\tpluto=perhaps\n", "pluto=perhaps"),
        ("\tpluto=no\n\tinterfaces=%defaultroute\n", "no default route"),
    ] {
        host.configure(setup);
        let said = host.ipsec(&["setup", "start"]);
        assert_eq!(said.code, 1, "{setup}: {said:?}");
        assert!(said.out.contains(why), "{setup}: {said:?}");
        assert_eq!(host.left(), [""; 0], "{setup}");
    }
    fs::remove_file(host.dir.path().join("ipsec.conf")).expect("remove");
    let said = host.ipsec(&["setup", "start", "--lsb"]);
    assert_eq!(said.code, 6, "{said:?}");
    for words in [&["setup"][..], &["setup", "begin"], &["setup", "--begin"]] {
        let said = host.ipsec(words);
        assert_eq!(said.code, 2);
        assert_eq!(
            said.err,
            "Usage: ipsec setup {--start|--stop|--restart|--status}\nTry `ipsec setup --help'.\n"
        );
    }
}

#[test]
fn a_daemon_that_lost_its_pid_file_is_found_all_the_same() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    let daemon = host.daemon();
    fs::remove_file(host.rundir.klips_pid()).expect("remove");
    let said = host.ipsec(&["setup", "status"]);
    assert_eq!(said.out, format!("IPsec running\nbut...\norphaned klips running (pid {})!\n", daemon.pid));
    assert!(host.ipsec(&["setup", "start"]).out.contains("apparently already running"));
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    assert!(!daemon.is_alive());
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn a_lock_of_another_process_with_the_same_number_holds_nobody_up() {
    let Some(host) = Host::new("%none") else { return };
    host.rundir.create().expect("run directory");
    // As after a reboot: the files are there, and the numbers belong to others. Ours is certainly in use.
    for path in [host.rundir.klips_pid(), host.rundir.setup_pid()] {
        fs::write(path, format!("{}\nstart=1\n", std::process::id())).expect("write");
    }
    assert_eq!(host.ipsec(&["setup", "status"]).code, 1);
    let said = host.ipsec(&["setup", "start"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn what_config_setup_says_reaches_the_daemon() {
    let Some(host) = Host::new("%none") else { return };
    let settings = |host: &Host| {
        let all = host.ipsec(&["look", "--json"]).out;
        let all: serde_json::Value = serde_json::from_str(&all).expect("json");
        all["status"]["settings"].clone()
    };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    assert_eq!(settings(&host), serde_json::json!({ "hidetos": true, "fragicmp": true, "copydf": false }));
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    host.configure(
        "\tpluto=no\n\tinterfaces=\"ipsec2=eth7\"\n\thidetos=no\n\tfragicmp=no\n\tcopydf=yes\n\toverridemtu=1300\n\
         \tklipsdebug=\"tunnel-xmit pfkey\"\n",
    );
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    assert_eq!(
        settings(&host),
        serde_json::json!({ "hidetos": false, "fragicmp": false, "copydf": true, "overridemtu": 1300 })
    );
    assert_eq!(host.ipsec(&["tncfg"]).out, "ipsec2 -> eth7 mtu=1300(1300) -> 1500\n");
    let debug = host.ipsec(&["klipsdebug"]).out;
    assert!(
        debug.starts_with("debug_tunnel=00000010.\n") && debug.ends_with("debug_pfkey=ffffffff.\n"),
        "{debug}"
    );
    assert_eq!(host.ipsec(&["klipsdebug", "--none"]).code, 0);
    assert!(!host.ipsec(&["klipsdebug"]).out.contains('1'));
    assert_eq!(host.ipsec(&["klipsdebug", "--set", "nonsense"]).code, 1);
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn of_many_starts_at_once_one_succeeds() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    let start = || host.command(IPSEC, &["setup", "start"]).stdout(Stdio::piped()).spawn().expect("spawn");
    let children: Vec<Child> = host.namespace.run(|| (0..8).map(|_| start()).collect()).expect("namespace");
    let said: Vec<Said> =
        children.into_iter().map(|child| child.wait_with_output().expect("wait").into()).collect();
    let codes: Vec<i32> = said.iter().map(|said| said.code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{said:?}");
    assert!(codes.iter().all(|code| [0, 1].contains(code)), "{said:?}");
    let said = host.ipsec(&["setup", "status"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn two_hosts_side_by_side_do_not_see_each_other() {
    let (Some(one), Some(two)) = (Host::new("ipsec0=eth7"), Host::new("ipsec0=eth7")) else { return };
    assert_eq!(one.ipsec(&["setup", "start"]).code, 0);
    assert_eq!(two.ipsec(&["setup", "start"]).code, 0);
    assert_ne!(one.daemon(), two.daemon());
    assert_eq!(one.ipsec(&["setup", "stop"]).code, 0);
    assert_eq!(two.ipsec(&["setup", "status"]).code, 0);
    assert!(two.has_device("ipsec0") && !one.has_device("ipsec0"));
    assert_eq!(two.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn a_daemon_in_the_foreground_ends_by_signal_and_leaves_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let Some(host) = Host::new("%none") else { return };
        let mut command = host.command(KLIPS, &["--foreground"]);
        let mut child = host.namespace.spawn(command.stderr(Stdio::null())).expect("klips");
        while UnixStream::connect(host.rundir.klips_ctl()).is_err() || !host.rundir.klips_pid().exists() {
            assert!(child.try_wait().expect("wait").is_none(), "klips ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(host.ipsec(&["tncfg", "--attach", "--virtual", "ipsec3", "--physical", "eth7"]).code, 0);
        let said = host.ipsec(&["setup", "status"]);
        assert!(said.out.contains("a klips is running that setup did not start"), "{said:?}");
        assert_eq!(said.code, 1);
        assert!(Process::now(child.id()).expect("alive").signal(signal).expect("signal"));
        assert_eq!(child.wait().expect("wait").code(), Some(0));
        assert_eq!(host.left(), [""; 0]);
        assert!(!host.has_device("ipsec3") && !host.is_mounted());
    }
}

#[test]
fn a_daemon_leaves_nothing_in_a_run_directory_given_relatively_either() {
    let Some(host) = Host::new("%none") else { return };
    let mut command = host.command(KLIPS, &[]);
    command.env("IPSEC_RUNDIR", "run").current_dir(host.dir.path());
    let said: Said = host.namespace.run(|| command.output()).expect("namespace").expect("klips").into();
    assert_eq!(said.code, 0, "{said:?}");
    let daemon = host.daemon();
    assert!(daemon.signal(Signal::TERM).expect("signal"));
    assert!(daemon.wait(Duration::from_secs(30)).expect("wait"));
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn files_are_nobody_elses_to_write_whatever_the_umask() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    let run = |program: &str| -> Said {
        let mut command = host.command("sh", &["-c", &format!("umask 0; exec {program}")]);
        host.namespace.run(|| command.output()).expect("namespace").expect("sh").into()
    };
    // The daemon by itself, then by way of setup.
    assert_eq!(run(KLIPS).code, 0);
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    let rundir = &host.rundir;
    assert_eq!(mode(&rundir.klips_pid()), 0o644);
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    assert_eq!(run(&format!("{IPSEC} setup start")).code, 0);
    for (path, expected) in [
        (rundir.path().to_path_buf(), 0o755),
        (rundir.klips_pid(), 0o644),
        (rundir.setup_pid(), 0o644),
        (rundir.info(), 0o644),
        (rundir.klips_lock(), 0o600),
        (rundir.klips_ctl(), 0o600),
        // Everyone may knock; who may come in is seen by credentials.
        (rundir.pf_key_sock(), 0o666),
    ] {
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn tables_as_files_are_the_tables_of_the_commands() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    if !host.is_mounted() {
        skipped("no FUSE mount here");
        return;
    }
    let net = host.rundir.proc().join("net");
    for (file, words) in [
        ("ipsec_tncfg", &["tncfg"][..]),
        ("ipsec_klipsdebug", &["klipsdebug"]),
        ("ipsec_version", &["version"]),
        ("ipsec_spigrp", &["spigrp"]),
        ("pf_key", &["pf_key"]),
        ("pf_key_registered", &["pf_key", "--registered"]),
        ("pf_key_supported", &["pf_key", "--supported"]),
    ] {
        let said = host.ipsec(words);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(fs::read_to_string(net.join(file)).expect(file), said.out, "{file}");
    }
    // No command shows these: programs look whether the kernel can do NAT traversal, and has hardware for ciphers.
    for (file, text) in
        [("ipsec/natt", "2\n"), ("ipsec/ocf", "0\n"), ("ipsec/stats/trap_count", "00000000\n")]
    {
        assert_eq!(fs::read_to_string(net.join(file)).expect(file), text, "{file}");
    }
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn devices_come_and_go_and_mistakes_are_named() {
    let Some(host) = Host::new("%none") else { return };
    let said = host.ipsec(&["tncfg"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("klips is not running"), "{said:?}");
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    assert_eq!(host.ipsec(&["tncfg", "--json"]).out, "[]\n");
    let attach =
        |name: &str, on: &str| host.ipsec(&["tncfg", "--attach", "--virtual", name, "--physical", on]);
    assert_eq!(attach("ipsec5", "eth7").code, 0);
    for (name, on, why) in [
        ("ipsec5", "eth7", "Device busy."),
        ("ipsec6", "eth7", "Device busy."),
        ("ipsec6", "eth8", "Is the physical device valid?"),
        ("eth9", "eth7", "Is the virtual device valid?"),
        ("ipsec6", "ipsec5", "Is the physical device valid?"),
    ] {
        let said = attach(name, on);
        assert_eq!(said.code, 1);
        assert!(said.err.contains(why) && said.err.contains(name), "{said:?}");
    }
    assert_eq!(host.ipsec(&["tncfg", "--attach", "--virtual", "ipsec6"]).code, 2);
    assert_eq!(host.ipsec(&["tncfg", "--virtual", "ipsec6"]).code, 2);
    assert_eq!(host.ipsec(&["tncfg", "--detach", "--virtual", "ipsec5"]).code, 0);
    assert!(!host.has_device("ipsec5"));
    assert_eq!(host.ipsec(&["tncfg", "--detach", "--virtual", "ipsec5"]).code, 1);
    assert_eq!(attach("ipsec5", "eth7").code, 0);
    assert_eq!(host.ipsec(&["tncfg", "--clear"]).code, 0);
    assert_eq!(host.ipsec(&["tncfg"]).out, "");
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn a_daemon_ends_with_the_parent_that_holds_its_standard_input() {
    let Some(host) = Host::new("%none") else { return };
    let mut command = host.command(KLIPS, &["--foreground", "--until-eof"]);
    command.stdin(Stdio::piped()).stderr(Stdio::null());
    let mut daemon = host.namespace.spawn(&mut command).expect("klips");
    for _ in 0..3000 {
        if UnixStream::connect(host.rundir.klips_ctl()).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(host.ipsec(&["tncfg"]).code, 0, "it runs while its standard input is open");
    drop(daemon.stdin.take());
    assert!(daemon.wait().expect("wait").success());
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn a_start_right_after_kill_9_does_not_meet_what_is_left_of_the_old_one() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    for _ in 0..8 {
        let old = host.daemon();
        assert!(old.signal(Signal::KILL).expect("kill"));
        let said = host.ipsec(&["setup", "start"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_ne!(host.daemon(), old);
    }
    assert!(host.has_device("ipsec0"));
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn a_process_is_never_signalled_for_what_a_pid_file_says() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    let mut bystander = std::process::Command::new("sleep").arg("600").spawn().expect("sleep");
    let start = || assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    for text in [format!("{}\n", bystander.id()), "1\n".into(), "0\n".into(), "nonsense\n".into()] {
        // Nothing of ours runs: the file is stale, whoever has the number now.
        host.rundir.create().expect("run directory");
        fs::write(host.rundir.klips_pid(), &text).expect("write");
        fs::write(host.rundir.setup_pid(), &text).expect("write");
        let said = host.ipsec(&["setup", "status"]);
        assert!(said.code == 1 && said.out.contains("no klips running!"), "{text:?}: {said:?}");
        let said = host.ipsec(&["setup", "stop"]);
        assert_eq!(said.code, 0, "{text:?}: {said:?}");
        assert!(bystander.try_wait().expect("wait").is_none(), "{text:?} was killed");
        // Ours runs, and its file names another.
        start();
        let ours = host.daemon();
        fs::write(host.rundir.klips_pid(), &text).expect("write");
        let said = host.ipsec(&["setup", "status"]);
        let illicit = format!("illicit klips running (pid {})!", ours.pid);
        assert!(said.code == 1 && said.out.contains(&illicit), "{text:?}: {said:?}");
        assert_eq!(host.ipsec(&["setup", "start"]).code, 1);
        assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
        assert!(!ours.is_alive());
        assert!(bystander.try_wait().expect("wait").is_none(), "{text:?} was killed");
        assert_eq!(host.left(), [""; 0], "{text:?}");
        // A number alone, as pid files always had, that is right.
        start();
        fs::write(host.rundir.klips_pid(), format!("{}\n", host.daemon().pid)).expect("write");
        assert_eq!(host.ipsec(&["setup", "status"]).code, 0);
        assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    }
    bystander.kill().expect("kill");
    bystander.wait().expect("wait");
}

#[test]
fn a_restart_with_a_configuration_that_cannot_be_used_stops_nothing() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    let daemon = host.daemon();
    host.configure("\tpluto=no\n\tsyslog=nowhere\n");
    let said = host.ipsec(&["setup", "restart"]);
    assert!(said.code == 1 && said.out.contains("syslog=nowhere"), "{said:?}");
    assert!(daemon.is_alive() && host.daemon() == daemon && host.has_device("ipsec0"));
    assert_eq!(host.ipsec(&["setup", "status"]).code, 0);
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn a_daemon_with_keys_leaves_no_core() {
    let Some(host) = Host::new("%none") else { return };
    for (program, pid) in [(KLIPS, host.rundir.klips_pid()), (PLUTO, host.rundir.pluto_pid())] {
        // Whoever starts it would have them, and this one dies as badly as one can.
        let mut command =
            host.command("sh", &["-c", "ulimit -c unlimited; exec \"$0\" --foreground", program]);
        command.current_dir(host.dir.path()).stderr(Stdio::null());
        let mut child = host.namespace.spawn(&mut command).expect("a shell");
        while Process::read(&pid).is_none() {
            assert!(child.try_wait().expect("wait").is_none(), "{program} ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).expect("limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("core");
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{program}");
        assert!(Process::now(child.id()).expect("alive").signal(Signal::ABORT).expect("signal"));
        let status = child.wait().expect("wait");
        assert_eq!((status.signal(), status.core_dumped()), (Some(libc::SIGABRT), false), "{program}");
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let Some(host) = Host::new("%none") else { return };
    // A pipe as stderr, never read: it is full after 64 KiB.
    let mut command = host.command(KLIPS, &["--foreground"]);
    let mut child = host.namespace.spawn(command.stderr(Stdio::piped())).expect("klips");
    while UnixStream::connect(host.rundir.klips_ctl()).is_err() || !host.rundir.klips_pid().exists() {
        assert!(child.try_wait().expect("wait").is_none(), "klips ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(host.ipsec(&["klipsdebug", "--all"]).code, 0);
    let mut ctl = ipsec::ctl::Client::connect(&host.rundir).expect("ctl");
    for _ in 0..3000 {
        ctl.call(ipsec::ctl::Request::Clear).expect("it answers though nobody reads what it logs");
    }
    assert!(Process::now(child.id()).expect("alive").signal(Signal::TERM).expect("signal"));
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}

#[test]
fn a_device_without_an_address_is_refused_and_so_is_a_directory_in_the_place_of_a_socket() {
    let Some(host) = Host::new("ipsec0=bare") else { return };
    let made = host.namespace.run(|| ipsec::host::netlink::Netlink::open()?.add_veth("bare", "bare-end"));
    made.expect("namespace").expect("interface");
    let said = host.ipsec(&["setup", "start"]);
    assert!(said.code == 1 && said.out.contains("unable to determine address of `bare'"), "{said:?}");
    assert_eq!(host.left(), [""; 0]);
    assert!(!host.has_device("ipsec0"));

    host.configure("\tpluto=no\n\tinterfaces=%none\n");
    for socket in [host.rundir.pf_key_sock(), host.rundir.klips_ctl()] {
        fs::create_dir_all(&socket).expect("directory");
        let said = host.ipsec(&["setup", "start"]);
        assert!(said.code == 1 && said.out.contains(&socket.display().to_string()), "{said:?}");
        fs::remove_dir(&socket).expect("still there");
    }
}

/// What pluto would say in its log alone, whoever types `start` reads at once; what is running by then goes on.
#[test]
fn a_start_says_what_pluto_will_not_read() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    let conn = "conn a\n\tleft=192.0.2.7\n\tright=192.0.2.9\n\tauthby=secret\n\tauto=add\n";
    host.configure(&format!("\tinterfaces=\"ipsec0=eth7\"\n{conn}"));
    let secrets = host.dir.path().join("ipsec.secrets");
    fs::write(&secrets, ": PSK \"crocus\"\n").expect("secrets");
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o644)).expect("mode");
    let start = host.ipsec(&["setup", "start"]);
    assert!(
        start.code == 0 && start.out.contains("chmod 600") && !start.out.contains("crocus"),
        "{}",
        start.out
    );
    assert!(start.out.contains("ipsec auto --rereadsecrets"), "{}", start.out);
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).expect("mode");
    let start = host.ipsec(&["setup", "start"]);
    assert_eq!((start.code, start.out.lines().count()), (0, 1), "{}", start.out);
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    for (line, said) in
        [("\tesp=rot13\n", "no connection is loaded: mend ipsec.conf"), ("\tleft=192.0.2.77\n", "waits: ")]
    {
        host.configure(&format!("\tinterfaces=\"ipsec0=eth7\"\n{conn}{line}"));
        let start = host.ipsec(&["setup", "start"]);
        assert!(start.code == 0 && start.out.contains(said), "{}", start.out);
        assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    }
}
