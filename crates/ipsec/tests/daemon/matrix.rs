//! Every state that `ipsec setup status` knows, made with real daemons and looked at: the matrix of the original scripts with the
//! words that are ours.

use crate::host::{Host, KLIPS};
use ipsec::process::Process;
use rustix::process::Signal;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PLUTO: &str = env!("CARGO_BIN_EXE_pluto");

fn host() -> Option<Host> {
    let host = Host::new("ipsec0=eth7")?;
    host.configure("\tinterfaces=\"ipsec0=eth7\"\n\tplutorestartoncrash=no\n");
    Some(host)
}

fn started() -> Option<Host> {
    let host = host()?;
    let said = host.ipsec(&["setup", "start"]);
    assert_eq!(said.code, 0, "{said:?}");
    Some(host)
}

fn pluto(host: &Host) -> Process {
    Process::read(&host.rundir.pluto_pid()).expect("pluto.pid")
}

fn kill(process: Process) {
    process.signal(Signal::KILL).expect("kill");
    assert!(
        process.wait(Duration::from_secs(30)).expect("wait")
            && process.gone(Duration::from_secs(30)).expect("gone")
    );
}

/// Status says exactly this, with this exit code; and stop then leaves nothing, whatever it was.
fn is(host: &Host, text: &str, code: i32) {
    let said = host.ipsec(&["setup", "status"]);
    assert_eq!((said.out.as_str(), said.code), (text, code), "{said:?}");
    host.ipsec(&["setup", "stop"]);
    assert_eq!(host.left(), [""; 0], "{text}");
    assert!(!host.has_device("ipsec0") && !host.is_mounted(), "{text}");
    assert_eq!(host.ipsec(&["setup", "status"]).out, "IPsec stopped\n");
}

/// A process that is certainly not ours.
fn bystander() -> Child {
    Command::new("sleep").arg("600").spawn().expect("sleep")
}

#[test]
fn nothing_at_all() {
    let Some(host) = host() else { return };
    is(&host, "IPsec stopped\n", 0);
}

#[test]
fn healthy_with_and_without_eroutes() {
    let Some(host) = started() else { return };
    let head = format!("IPsec running\npluto pid {}\nklips pid {}\n", pluto(&host).pid, host.daemon().pid);
    assert_eq!(host.ipsec(&["setup", "status"]).out, format!("{head}No tunnels up\n"));
    let add = |net: &str, action: &str| {
        let said = host.ipsec(&["eroute", "--add", "--src", "10.0.0.0/16", "--dst", net, "--said", action]);
        assert_eq!(said.code, 0, "{said:?}");
    };
    for (net, action) in [
        ("10.11.0.0/16", "%drop"),
        ("10.12.0.0/16", "%trap"),
        ("10.13.0.0/16", "%hold"),
        ("10.14.0.0/16", "%pass"),
    ] {
        add(net, action);
    }
    let said = host.ipsec(&["setup", "status"]);
    assert_eq!(said.out, format!("{head}No tunnels up\n"), "policy alone is no tunnel");
    let said = "esp0x101@192.0.2.2";
    let key = format!("0x{}", "11".repeat(20));
    let words =
        ["spi", "--said", said, "--src", "192.0.2.1", "--esp", "aes-gcm16", "--enckey", &key, "--tunnel"];
    let made = host.ipsec(&words);
    assert_eq!(made.code, 0, "{made:?}");
    ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"].iter().for_each(|net| add(net, said));
    is(&host, &format!("{head}3 tunnels up\n"), 0);
}

#[test]
fn the_lock_file_alone() {
    let Some(host) = host() else { return };
    host.rundir.create().expect("run directory");
    fs::write(host.rundir.setup_pid(), "1\n").expect("lock");
    let info = host.rundir.info();
    is(
        &host,
        &format!(
            "IPsec running\nbut...\nno klips running!\nno Pluto running!\n{} file missing!\n",
            info.display()
        ),
        1,
    );
}

#[test]
fn a_dead_pluto() {
    let Some(host) = started() else { return };
    kill(pluto(&host));
    is(&host, "IPsec running\nbut...\ndead Pluto!  It has died: `ipsec setup restart` starts it again\n", 1);
}

#[test]
fn an_illicit_pluto() {
    let Some(host) = started() else { return };
    let ours = pluto(&host);
    let mut other = bystander();
    fs::write(host.rundir.pluto_pid(), format!("{}\n", other.id())).expect("pid file");
    is(&host, &format!("IPsec running\nbut...\nillicit Pluto running (pid {})!\n", ours.pid), 1);
    assert!(!ours.is_alive(), "it is found by the lock it holds");
    assert!(other.try_wait().expect("wait").is_none(), "a number in a file was believed");
    other.kill().expect("kill");
    other.wait().expect("wait");
}

#[test]
fn an_orphaned_pluto() {
    let Some(host) = started() else { return };
    let ours = pluto(&host);
    fs::remove_file(host.rundir.pluto_pid()).expect("pid file");
    is(&host, &format!("IPsec running\nbut...\norphaned Pluto running (pid {})!\n", ours.pid), 1);
    assert!(!ours.is_alive());
}

#[test]
fn a_missing_info_file() {
    let Some(host) = started() else { return };
    let info = host.rundir.info();
    fs::remove_file(&info).expect("info");
    is(&host, &format!("IPsec running\nbut...\n{} file missing!\n", info.display()), 1);
}

#[test]
fn no_klips_under_a_pluto() {
    let Some(host) = started() else { return };
    kill(host.daemon());
    is(&host, "IPsec running\nbut...\nno klips running!  It has died: `ipsec setup start` cleans up\n", 1);
}

#[test]
fn a_pluto_without_a_lock_file() {
    let Some(host) = host() else { return };
    host.rundir.create().expect("run directory");
    let start = || {
        let mut command = host.command(PLUTO, &["-F"]);
        let child = host.namespace.spawn(command.stderr(Stdio::null())).expect("pluto");
        while !host.rundir.pluto_pid().exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    };
    let mut child = start();
    let text =
        format!("IPsec stopped\nbut...\na Pluto is running that setup did not start (pid {})!\n", child.id());
    is(&host, &text, 1);
    child.wait().expect("wait");
    let mut child = start();
    fs::remove_file(host.rundir.pluto_pid()).expect("pid file");
    is(&host, &format!("IPsec stopped\nbut...\norphaned Pluto is running (pid {})!\n", child.id()), 1);
    child.wait().expect("wait");
}

#[test]
fn locks_left_behind() {
    let Some(host) = host() else { return };
    host.rundir.create().expect("run directory");
    for path in [host.rundir.klips_lock(), host.rundir.pluto_lock(), host.rundir.pluto_sas()] {
        fs::write(&path, "").expect("file");
        is(&host, &format!("IPsec stopped\nbut...\nhas {}, left behind!\n", path.display()), 1);
    }
}

#[test]
fn an_info_file_left_behind() {
    let Some(host) = host() else { return };
    host.rundir.create().expect("run directory");
    fs::write(host.rundir.info(), "pluto=yes\n").expect("info");
    is(&host, &format!("IPsec stopped\nbut...\nhas {} file!\n", host.rundir.info().display()), 1);
}

#[test]
fn eroutes_without_a_daemon_that_asked_for_them() {
    let Some(host) = host() else { return };
    let mut command = host.command(KLIPS, &["--foreground"]);
    let mut child = host.namespace.spawn(command.stderr(Stdio::null())).expect("klips");
    while host.ipsec(&["tncfg"]).code != 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let said =
        host.ipsec(&["eroute", "--add", "--src", "10.0.0.0/16", "--dst", "10.1.0.0/16", "--said", "%drop"]);
    assert_eq!(said.code, 0, "{said:?}");
    fs::write(host.rundir.info(), "").expect("info");
    is(
        &host,
        &format!(
            "IPsec stopped\nbut...\na klips is running that setup did not start (pid {})!\nhas {} file!\nsome eroutes exist!\n",
            child.id(),
            host.rundir.info().display()
        ),
        1,
    );
    child.wait().expect("wait");
}
