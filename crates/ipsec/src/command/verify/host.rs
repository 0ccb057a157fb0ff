//! The host itself: what we are, what we may, what we were told.

use super::Check;
use crate::command::version::VERSION;
use crate::conf::connection::{self, Auto, Here, Planned};
use crate::conf::{Conf, Problem, secrets};
use crate::ctl;
use crate::host::clock::wall;
use crate::pluto;
use crate::pluto::ports::Local;
use crate::rundir::Rundir;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// What the checks have to know of ipsec.conf.
pub(super) struct Configured {
    read: Result<Conf, Vec<Problem>>,
    problems: Vec<Problem>,
    /// What is loaded.
    planned: Vec<Planned>,
    /// Packets of other hosts go through us, of IPv4 and of IPv6.
    pub(super) forwards: (bool, bool),
    /// `forwardcontrol=yes`.
    pub(super) forwardcontrol: bool,
    /// What `interfaces=` names.
    pub(super) devices: Vec<String>,
}

impl Configured {
    pub(super) fn read(confs: &Path) -> Self {
        match Local::now() {
            Ok(here) => Self::seen_from(confs, Some(&here)),
            Err(_) => Self::seen_from(confs, None),
        }
    }

    /// The same, for who knows the addresses of this host already, and which names may be looked up.
    pub(super) fn seen_from(confs: &Path, here: Option<&dyn Here>) -> Self {
        let read = Conf::load(confs);
        let mut all = Self {
            problems: Vec::new(),
            planned: Vec::new(),
            forwards: (false, false),
            forwardcontrol: false,
            devices: Vec::new(),
            read,
        };
        let Ok(conf) = &all.read else { return all };
        all.forwardcontrol = conf.setup.forwardcontrol;
        all.devices = conf.setup.devices().map(str::to_owned).collect();
        let Some(here) = here else { return all };
        for conn in &conf.conns {
            if connection::auto(conn).is_ok_and(|auto| auto == Auto::Ignore) {
                continue;
            }
            match connection::plan(conn, here, &mut Vec::new()) {
                Ok(planned) => {
                    for one in &planned {
                        for net in one.ike.child.local.iter().flat_map(|selector| selector.prefixes()) {
                            // A subnet behind us; our own address alone needs no forwarding.
                            if net.prefix_len() < net.max_prefix_len() {
                                let (four, six) = &mut all.forwards;
                                *if net.addr().is_ipv4() { four } else { six } = true;
                            }
                        }
                    }
                    all.planned.extend(planned);
                }
                Err(problems) => all.problems.extend(problems),
            }
        }
        all
    }
}

pub(super) fn version() -> Check {
    let name = rustix::system::uname();
    Check::good(
        "version",
        format!(
            "tulips {VERSION} on {} {}",
            name.sysname().to_string_lossy(),
            name.release().to_string_lossy()
        ),
    )
}

/// The capabilities the daemons need, by number (capabilities(7)).
const NEEDED: [(u32, &str); 4] =
    [(10, "CAP_NET_BIND_SERVICE"), (12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN")];

pub(super) fn privileges() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(held) = held(&status) else {
        return Check::unknown("privileges", "/proc/self/status says no capabilities", "mount /proc");
    };
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(bit, _)| held & (1 << bit) == 0).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        Check::good("privileges", "this user may do what the daemons do")
    } else {
        Check::fail(
            "privileges",
            format!("this user lacks {}", missing.join(", ")),
            "be root; in a container add them (docker run --cap-add ...)",
        )
    }
}

fn held(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

pub(super) fn tun() -> Check {
    let path = "/dev/net/tun";
    match fs::File::options().read(true).write(true).open(path) {
        Ok(_) => Check::good("tun", format!("{path} opens")),
        Err(error) if error.kind() == ErrorKind::NotFound => Check::fail(
            "tun",
            format!("{path} is missing"),
            "modprobe tun, or give the container that device",
        ),
        Err(error) => Check::fail(
            "tun",
            format!("{path}: {error}"),
            "load the module (modprobe tun); in a container allow that device",
        ),
    }
}

pub(super) fn fuse() -> Check {
    let path = "/dev/fuse";
    if Path::new(path).exists() {
        Check::good("fuse", format!("{path} is there: the tables will be files, too"))
    } else {
        Check::warn(
            "fuse",
            format!("{path} is missing: no table files below the run directory; the commands work without"),
            "modprobe fuse, or give the container that device",
        )
    }
}

/// Certificates and lifetimes in wall-clock time need one that is about right: not before this program was made.
pub(super) fn clock() -> Check {
    let now = wall();
    let made = crate::process::program().ok().and_then(|path| fs::metadata(path).ok());
    let made = made.and_then(|at| u64::try_from(at.mtime()).ok()).unwrap_or(0);
    // A file system may be a little ahead.
    if now.saturating_add(300) < made {
        return Check::fail(
            "clock",
            "the clock is before the day this program was installed: certificates would not be valid",
            "set it: `timedatectl set-ntp true', or `date -s'",
        );
    }
    Check::good("clock", "the clock is not in the past")
}

pub(super) fn configuration(conf: &Configured) -> Check {
    match &conf.read {
        Err(problems) => Check::fail(
            "configuration",
            format!("ipsec.conf: {}", first(problems)),
            "`ipsec auto --check' says everything that is wrong, with lines",
        ),
        Ok(_) if !conf.problems.is_empty() => Check::fail(
            "configuration",
            format!("ipsec.conf: {}", first(&conf.problems)),
            "`ipsec auto --check' says everything that is wrong, with lines",
        ),
        Ok(_) if conf.planned.is_empty() => Check::warn(
            "configuration",
            "ipsec.conf has no connection that is loaded (auto=add, route or start)",
            "ipsec.conf(5) has a first one",
        ),
        Ok(_) => Check::good("configuration", format!("ipsec.conf: {} connections", conf.planned.len())),
    }
}

fn first(problems: &[Problem]) -> String {
    let more = problems.len().saturating_sub(1);
    let first = problems.first().map_or_else(String::new, ToString::to_string);
    if more == 0 { first } else { format!("{first} (and {more} more)") }
}

pub(super) fn secrets(confs: &Path, conf: &Configured) -> Check {
    let path = confs.join("ipsec.secrets");
    match secrets::read(&path) {
        Ok(read) if !secrets::missing(&read.secrets, &conf.planned).is_empty() => {
            let missing = secrets::missing(&read.secrets, &conf.planned);
            Check::fail(
                "secrets",
                format!("{} of {} connections have no secret", missing.len(), conf.planned.len()),
                missing.join("\n        "),
            )
        }
        Ok(read) => match read.warnings.first() {
            None => Check::good("secrets", format!("{} can be read", path.display())),
            Some(problem) => Check::warn("secrets", problem.to_string(), "see ipsec.secrets(5)"),
        },
        Err(problems) => Check::fail(
            "secrets",
            first(&problems),
            "see ipsec.secrets(5); `chmod 600` where others can read it",
        ),
    }
}

/// Whether both daemons run and answer.
pub(super) fn running(rundir: &Rundir) -> Check {
    const PATIENCE: Duration = Duration::from_secs(2);
    let klips = ctl::Client::connect(rundir).and_then(|client| Ok(client.within(PATIENCE)?));
    let klips = klips.and_then(|mut client| client.call(ctl::Request::Status)).map(drop);
    let pluto = pluto::ctl::Client::connect(rundir).and_then(|client| Ok(client.within(PATIENCE)?));
    let pluto = pluto.and_then(|mut client| client.call(&pluto::ctl::Request::Ping, |_| Ok(()))).map(drop);
    match (klips, pluto) {
        (Ok(()), Ok(())) => Check::good("running", "klips and pluto run and answer"),
        (Ok(()), Err(why)) => Check::warn("running", why.to_string(), "`ipsec setup status' says more"),
        (Err(why), _) => Check::warn("running", why.to_string(), "`ipsec setup status' says more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_where_proc_has_them() {
        assert_eq!(held("Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000003000\n"), Some(0x3000));
        assert_eq!(held("Name:\tx\n"), None);
        assert_eq!(held("CapEff:\tzz\n"), None);
    }
}
