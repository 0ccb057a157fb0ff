//! Two hundred starts, stops, restarts and accidents in a row: status is right after each, and stop leaves nothing.

use crate::host::Host;
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

/// What must be so.
#[derive(Clone, Copy, Debug, Default)]
struct Model {
    started: bool,
    alive: bool,
    pid_file: bool,
    info: bool,
}

impl Model {
    const UP: Self = Self { started: true, alive: true, pid_file: true, info: true };

    const fn is_strange(self) -> bool {
        self.started && !(self.alive && self.pid_file && self.info)
    }
}

#[test]
fn status_is_right_after_every_accident_and_stop_leaves_nothing() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    let mut model = Model::default();
    let mut daemon = None;
    for (number, step) in STEPS.chars().enumerate() {
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
                    model = Model::default();
                    assert_eq!(host.left(), [""; 0], "{at}");
                    assert!(!host.has_device("ipsec0") && !host.is_mounted(), "{at}");
                } else if !nothing_to_do {
                    model = Model::UP;
                    daemon = Some(host.daemon());
                    assert!(host.has_device("ipsec0"), "{at}");
                }
            }
            'k' => {
                if let Some(daemon) = daemon.take().filter(|_| model.alive) {
                    assert!(daemon.signal(Signal::KILL).expect("kill"), "{at}");
                    assert!(daemon.wait(Duration::from_secs(30)).expect("wait"), "{at}");
                    model.alive = false;
                }
            }
            'p' => model.pid_file &= fs::remove_file(host.rundir.klips_pid()).is_err(),
            'i' => model.info &= fs::remove_file(host.rundir.info()).is_err(),
            _ => {
                let gone = host.namespace.run(|| {
                    let mut netlink = ipsec::host::netlink::Netlink::open()?;
                    netlink.link("ipsec0")?.map_or(Ok(()), |link| netlink.remove_link(link.index))
                });
                gone.expect("namespace").expect("netlink");
            }
        }
        let said = host.ipsec(&["setup", "status"]);
        let headline = if model.started { "IPsec running\n" } else { "IPsec stopped\n" };
        assert!(said.out.starts_with(headline), "{at}: {said:?}");
        assert_eq!(said.code, i32::from(model.is_strange()), "{at}: {said:?}");
        assert_eq!(said.out.contains("but...\n"), model.is_strange(), "{at}: {said:?}");
    }
    host.ipsec(&["setup", "stop"]);
    assert_eq!(host.left(), [""; 0]);
    assert!(!host.has_device("ipsec0") && !host.is_mounted());
}
