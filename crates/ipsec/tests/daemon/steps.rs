//! Two hundred starts, stops, restarts and accidents in a row, with the data plane alone and with both daemons: status is right
//! after each, and stop leaves nothing.

use crate::host::Host;
use ipsec::process::Process;
use rustix::process::Signal;
use std::fs;
use std::time::Duration;

/// `s` start, `t` stop, `r` restart, `k` kill -9, `p` the pid file goes, `i` the info file goes, `d` the device goes. Drawn once, by
/// chance, and kept: the steps are what is tested, not where they came from.
const STEPS: &str = "\
    tsksrtsrstsstpsskdrtdspssstpsrktrssskttrtspksrriks\
    dstksrskkritkrrtpdrkskkdpstksrsssksstistripisttids\
    sssrrssttrdkrkksikipttsksssstsssstsikssttspdrrssts\
    pssdrsrsrdikstskrktspdpppksrtsssskdtdddtsssskiprkp";

/// The same with pluto: `K` kill -9 of pluto, `P` its pid file goes, `w` the power goes: processes, devices and mounts are gone at
/// once and the files are not.
const BOTH: &str = "\
    dsssKKKsrKswtwkKssrpppKtsKrtPsttKKrkrrwkwKtstrssss\
    KssKskKKktsrsttKpKwsKksKPdssPwtsKwskrpskwssstPssst\
    kKwKtsKKriKssitwsKstsssdwKwdwsKttsrPrisKkttkssPirk\
    kpktrKstprsktwksktistKswtkkstkskkktwwpktKwtsrssisw";

/// What must be so.
#[derive(Clone, Copy, Debug, Default)]
struct Model {
    started: bool,
    alive: bool,
    pid_file: bool,
    info: bool,
    pluto: bool,
    pluto_pid_file: bool,
    with_pluto: bool,
}

impl Model {
    const fn up(with_pluto: bool) -> Self {
        Self {
            started: true,
            alive: true,
            pid_file: true,
            info: true,
            pluto: with_pluto,
            pluto_pid_file: with_pluto,
            with_pluto,
        }
    }

    const fn stopped(with_pluto: bool) -> Self {
        Self {
            started: false,
            alive: false,
            pid_file: false,
            info: false,
            pluto: false,
            pluto_pid_file: false,
            with_pluto,
        }
    }

    const fn is_strange(self) -> bool {
        let pluto = !self.with_pluto || self.pluto && self.pluto_pid_file;
        self.started && !(self.alive && self.pid_file && self.info && pluto)
    }
}

#[test]
fn status_is_right_after_every_accident_and_stop_leaves_nothing() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    walk(&host, STEPS, false);
}

#[test]
fn status_is_right_after_every_accident_with_both_daemons_and_stop_leaves_nothing() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    // Nobody but the steps starts anything.
    host.configure("\tinterfaces=\"ipsec0=eth7\"\n\tplutorestartoncrash=no\n");
    walk(&host, BOTH, true);
}

fn kill(process: Option<Process>) {
    if let Some(process) = process {
        process.signal(Signal::KILL).expect("kill");
        assert!(process.wait(Duration::from_secs(30)).expect("wait"));
        assert!(process.gone(Duration::from_secs(30)).expect("its last thread"));
    }
}

fn walk(host: &Host, steps: &str, with_pluto: bool) {
    let mut model = Model::stopped(with_pluto);
    let mut daemon = None;
    let mut pluto = None;
    let remove_device = || {
        let gone = host.namespace.run(|| {
            let mut netlink = ipsec::host::netlink::Netlink::open()?;
            netlink.link("ipsec0")?.map_or(Ok(()), |link| netlink.remove_link(link.index))
        });
        gone.expect("namespace").expect("netlink");
    };
    for (number, step) in steps.chars().enumerate() {
        let at = format!("step {number} ({step}), {model:?}");
        match step {
            's' | 'r' | 't' => {
                let word = match step {
                    's' => "start",
                    'r' => "restart",
                    _ => "stop",
                };
                let said = host.ipsec(&["setup", word]);
                let nothing_to_do = match step {
                    's' => model.alive,
                    't' => !model.started && !model.alive,
                    _ => false,
                };
                assert_eq!(said.code, i32::from(nothing_to_do), "{at}: {said:?}");
                if step == 't' {
                    model = Model::stopped(with_pluto);
                    assert_eq!(host.left(), [""; 0], "{at}");
                    assert!(!host.has_device("ipsec0") && !host.is_mounted(), "{at}");
                    for process in [daemon, pluto].into_iter().flatten() {
                        assert!(!Process::is_alive(&process), "{at}: {process:?}");
                    }
                } else if !nothing_to_do {
                    model = Model::up(with_pluto);
                    daemon = Some(host.daemon());
                    pluto = with_pluto.then(|| Process::read(&host.rundir.pluto_pid()).expect("pluto.pid"));
                    assert!(host.has_device("ipsec0"), "{at}");
                }
            }
            'k' => {
                kill(daemon.take());
                model.alive = false;
            }
            'K' => {
                kill(pluto.take());
                model.pluto = false;
            }
            'w' => {
                kill(pluto.take());
                kill(daemon.take());
                (model.alive, model.pluto) = (false, false);
                remove_device();
                let _ = rustix::mount::unmount(host.rundir.proc(), rustix::mount::UnmountFlags::DETACH);
            }
            'p' => model.pid_file &= fs::remove_file(host.rundir.klips_pid()).is_err(),
            'P' => model.pluto_pid_file &= fs::remove_file(host.rundir.pluto_pid()).is_err(),
            'i' => model.info &= fs::remove_file(host.rundir.info()).is_err(),
            _ => remove_device(),
        }
        let said = host.ipsec(&["setup", "status"]);
        let headline = if model.started { "IPsec running\n" } else { "IPsec stopped\n" };
        assert!(said.out.starts_with(headline), "{at}: {said:?}");
        assert_eq!(said.code, i32::from(model.is_strange()), "{at}: {said:?}");
        assert_eq!(said.out.contains("but...\n"), model.is_strange(), "{at}: {said:?}");
        let words = format!("pluto pid {}\n", pluto.map_or(0, |process: Process| process.pid));
        let sound = with_pluto && model.started && !model.is_strange();
        assert_eq!(said.out.contains(&words), sound, "{at}: {said:?}");
    }
    host.ipsec(&["setup", "stop"]);
    assert_eq!(host.left(), [""; 0]);
    assert!(!host.has_device("ipsec0") && !host.is_mounted());
}
