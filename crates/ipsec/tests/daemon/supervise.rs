//! `plutorestartoncrash` and `forwardcontrol`, with real daemons that are killed.

use crate::host::Host;
use ipsec::host::clock;
use ipsec::process::Process;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

fn started() -> Option<Host> {
    let host = Host::new("ipsec0=eth7")?;
    host.configure("\tinterfaces=\"ipsec0=eth7\"\n");
    let said = host.ipsec(&["setup", "start"]);
    assert_eq!(said.code, 0, "{said:?}");
    Some(host)
}

fn pluto(host: &Host) -> Option<Process> {
    Process::read(&host.rundir.pluto_pid()).filter(Process::is_alive)
}

fn klips(host: &Host) -> Option<Process> {
    Process::read(&host.rundir.klips_pid()).filter(Process::is_alive)
}

fn kill(process: Process) {
    assert!(process.signal(Signal::KILL).expect("kill"), "{process:?} had died");
    assert!(process.wait(Duration::from_secs(30)).expect("wait"));
}

fn wait(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited in vain: {what}");
}

#[test]
fn a_daemon_that_is_killed_is_there_again_and_status_says_how_often() {
    let Some(host) = started() else { return };
    let supervisor = Process::read(&host.rundir.supervisor_pid()).expect("supervisor.pid");
    assert!(supervisor.is_alive());
    let first = pluto(&host).expect("pluto");
    kill(first);
    wait("another pluto", || pluto(&host).is_some_and(|now| now != first));
    wait("a sound state", || host.ipsec(&["setup", "status"]).code == 0);
    let said = host.ipsec(&["setup", "status"]);
    assert!(said.out.contains("pluto has died once and was started again, last at 2"), "{said:?}");

    // The data plane, too, with its devices and settings.
    let first = klips(&host).expect("klips");
    kill(first);
    wait("another klips", || klips(&host).is_some_and(|now| now != first));
    wait("a sound state", || host.ipsec(&["setup", "status"]).code == 0);
    wait("its device", || host.ipsec(&["tncfg"]).out == "ipsec0 -> eth7 mtu=1420(1420) -> 1500\n");
    let lives: serde_json::Value =
        serde_json::from_str(&host.ipsec(&["setup", "status", "--json"]).out).expect("JSON");
    assert_eq!(
        (&lives["lives"]["pluto"]["deaths"], &lives["lives"]["klips"]["deaths"]),
        (&1.into(), &1.into())
    );

    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    assert!(!supervisor.is_alive() && pluto(&host).is_none() && klips(&host).is_none());
    assert_eq!(host.left(), [""; 0]);
    assert!(!host.has_device("ipsec0") && !host.is_mounted());
}

#[test]
fn one_that_dies_again_and_again_is_started_ever_more_slowly_and_status_says_when() {
    let Some(host) = started() else { return };
    for death in 1..=4 {
        wait("pluto", || pluto(&host).is_some());
        let now = pluto(&host).expect("pluto");
        // The supervisor has to have seen it, or it does not know that this one died.
        wait("the supervisor to see it", || {
            let state = fs::read_to_string(host.rundir.supervisor_state()).unwrap_or_default();
            !state.contains("\"due\":1") && !state.contains("\"due\":2")
        });
        kill(now);
        wait("the supervisor to see it die", || {
            let state = fs::read_to_string(host.rundir.supervisor_state()).unwrap_or_default();
            state.contains(&format!("\"deaths\":{death}"))
        });
    }
    // 0, 1, 2, now 4 seconds.
    let said = host.ipsec(&["setup", "status"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("dead Pluto!  It has died: the supervisor starts it again in "), "{said:?}");
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn what_was_told_to_end_is_not_started_again() {
    let Some(host) = started() else { return };
    let first = pluto(&host).expect("pluto");
    let said = host.ipsec(&["whack", "--shutdown"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(first.wait(Duration::from_secs(30)).expect("wait"));
    // A supervisor that does not know the difference starts the first dead one at once, and had its turn before each klips.
    for _ in 0..2 {
        let first = klips(&host).expect("klips");
        kill(first);
        wait("another klips", || klips(&host).is_some_and(|now| now != first));
    }
    assert!(pluto(&host).is_none());
    let said = host.ipsec(&["setup", "status"]);
    assert!(said.code == 1 && said.out.contains("no Pluto running!"), "{said:?}");
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    assert_eq!(host.left(), [""; 0]);
}

#[test]
fn a_supervisor_that_is_killed_is_missed_and_a_start_brings_it_back_and_touches_nothing() {
    let Some(host) = started() else { return };
    let (one, two) = (pluto(&host), klips(&host));
    kill(Process::read(&host.rundir.supervisor_pid()).expect("supervisor.pid"));
    let said = host.ipsec(&["setup", "status"]);
    assert!(said.code == 1 && said.out.contains("no supervisor running!"), "{said:?}");
    let said = host.ipsec(&["setup", "start"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!((pluto(&host), klips(&host)), (one, two));
    assert_eq!(host.ipsec(&["setup", "status"]).code, 0);
    // It watches what it did not start.
    kill(one.expect("pluto"));
    wait("another pluto", || pluto(&host).is_some_and(|now| Some(now) != one));
    // What died while nobody watched is found by its pid file.
    kill(Process::read(&host.rundir.supervisor_pid()).expect("supervisor.pid"));
    let one = pluto(&host);
    kill(one.expect("pluto"));
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    wait("another pluto", || pluto(&host).is_some_and(|now| Some(now) != one));
    assert_eq!(klips(&host), two);
    // All at once, and a stop right after it.
    for process in
        [Process::read(&host.rundir.supervisor_pid()), klips(&host), pluto(&host)].into_iter().flatten()
    {
        kill(process);
    }
    host.ipsec(&["setup", "stop"]);
    assert_eq!(host.left(), [""; 0]);
    assert!(!host.has_device("ipsec0") && !host.is_mounted());
}

#[test]
fn a_stop_in_the_middle_of_a_restart_wins() {
    let Some(host) = started() else { return };
    for daemon in [klips, pluto, klips] {
        wait("a daemon", || daemon(&host).is_some());
        kill(daemon(&host).expect("a daemon"));
        // Anywhere between seeing it and having started it.
        assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
        assert_eq!(host.left(), [""; 0]);
        assert!(klips(&host).is_none() && pluto(&host).is_none() && !host.has_device("ipsec0"));
        assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    }
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn forwarding_is_on_while_it_runs_and_as_before_after_it() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    let read = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        host.namespace.run(|| fs::read_to_string(path)).expect("namespace").expect("sysctl").trim().to_owned()
    };
    let write = |name: &str, value: &str| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        host.namespace.run(|| fs::write(path, value)).expect("namespace").expect("sysctl");
    };
    // An interface that differs from what turning forwarding off would leave.
    write("ip_forward", "0");
    write("conf/eth7/forwarding", "1");
    write("conf/cable/accept_redirects", "0");
    let before =
        ["ip_forward", "conf/eth7/forwarding", "conf/cable/forwarding", "conf/cable/accept_redirects"];
    let values = || before.map(read);
    let was = values();
    host.configure("\tpluto=no\n\tinterfaces=\"ipsec0=eth7\"\n\tforwardcontrol=yes\n");
    let said = host.ipsec(&["setup", "start"]);
    assert!(said.code == 0 && said.out.contains("stop turns it off again"), "{said:?}");
    assert_eq!(read("ip_forward"), "1");
    assert_eq!(host.ipsec(&["setup", "restart"]).code, 0);
    assert_eq!(read("ip_forward"), "1");
    // After an accident, too.
    kill(klips(&host).expect("klips"));
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    assert_eq!(read("ip_forward"), "1");
    kill(klips(&host).expect("klips"));
    host.ipsec(&["setup", "stop"]);
    assert_eq!(values(), was);
    assert_eq!(host.left(), [""; 0]);
    // What the host itself wants on stays on.
    write("ip_forward", "1");
    let said = host.ipsec(&["setup", "start"]);
    assert!(said.code == 0 && !said.out.contains("off again"), "{said:?}");
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    assert_eq!(read("ip_forward"), "1");
}

/// What systemd is told, each word with its value.
struct Systemd(UnixDatagram);

impl Systemd {
    fn hears(&self) -> Option<BTreeMap<String, String>> {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).ok()?;
        let text = String::from_utf8(buffer[..length].to_vec()).expect("text");
        let word = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        Some(text.lines().map(|line| word(line).expect("key=value")).collect())
    }

    /// The next of these; what comes before it is nothing but the watchdog's.
    fn next(&self, key: &str) -> BTreeMap<String, String> {
        loop {
            let heard = self.hears().unwrap_or_else(|| panic!("waited in vain for {key}"));
            if heard.contains_key(key) {
                return heard;
            }
            assert!(heard.keys().all(|other| other == "WATCHDOG"), "{heard:?} before {key}");
        }
    }
}

#[test]
fn systemd_hears_who_the_service_is_that_it_is_ready_that_it_watches_and_that_it_ends() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    host.configure("\tinterfaces=\"ipsec0=eth7\"\n");
    let at = host.dir.path().join("notify");
    let systemd = Systemd(UnixDatagram::bind(&at).expect("socket"));
    systemd.0.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
    let ipsec = |args: &[&str]| {
        let mut command = host.command(crate::host::IPSEC, args);
        command.env("NOTIFY_SOCKET", &at).env("WATCHDOG_USEC", "600000").env("WATCHDOG_PID", "1");
        let output = host.namespace.run(|| command.output()).expect("namespace").expect("ipsec");
        assert!(output.status.success(), "{output:?}");
    };
    ipsec(&["setup", "start"]);
    let supervisor = Process::read(&host.rundir.supervisor_pid()).expect("supervisor.pid");
    let told = systemd.hears().expect("the first word");
    assert_eq!(told["MAINPID"], supervisor.pid.to_string());
    assert_eq!((&*told["READY"], &*told["STATUS"]), ("1", "klips and pluto run"));
    let began = clock::now();
    for _ in 0..5 {
        assert_eq!(systemd.next("WATCHDOG").len(), 1);
    }
    // A third of what systemd waits, so that one may be late; and not without a pause.
    let took = clock::now().since(began);
    assert!(took > Duration::from_millis(700), "five in {took:?}");

    // Another program in the same process is the same service.
    ipsec(&["setup", "restart", "--pluto"]);
    let told = systemd.next("MAINPID");
    assert_eq!((&*told["MAINPID"], &*told["READY"]), (&*supervisor.pid.to_string(), "1"));
    systemd.next("WATCHDOG");
    assert!(supervisor.is_alive());

    // One that hangs says nothing any more, for which systemd kills it.
    assert!(supervisor.signal(Signal::STOP).expect("stop"));
    systemd.0.set_nonblocking(true).expect("non-blocking");
    while systemd.hears().is_some() {}
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(systemd.hears(), None);
    assert!(supervisor.signal(Signal::CONT).expect("cont"));
    systemd.0.set_nonblocking(false).expect("blocking");
    systemd.next("WATCHDOG");

    ipsec(&["setup", "stop"]);
    systemd.next("STOPPING");
    assert_eq!(host.left(), [""; 0]);
}

/// Zero is how systemd says that it has no watchdog: not that it wants to hear without a pause.
#[test]
fn a_watchdog_of_no_time_is_none() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    host.configure("\tinterfaces=\"ipsec0=eth7\"\n");
    let at = host.dir.path().join("notify");
    let systemd = Systemd(UnixDatagram::bind(&at).expect("socket"));
    systemd.0.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
    let mut command = host.command(crate::host::IPSEC, &["setup", "start"]);
    command.env("NOTIFY_SOCKET", &at).env("WATCHDOG_USEC", "0");
    let output = host.namespace.run(|| command.output()).expect("namespace").expect("ipsec");
    assert!(output.status.success(), "{output:?}");
    systemd.next("READY");
    systemd.0.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
    assert_eq!(systemd.hears(), None);
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    assert_eq!(systemd.next("STOPPING").len(), 1);
}
