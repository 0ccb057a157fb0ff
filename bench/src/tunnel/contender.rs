//! What is measured: the bare cable, forwarders, ourselves, and other user-space tunnels that are installed.

use super::place::{Place, Running, Side, patiently};
use super::traffic;
use super::{strongswan, wireguard};
use ipsec::ctl::Client;
use ipsec::rundir::Rundir;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Octets an inner packet may have in every tunnel but ours, which says itself what fits.
pub(super) const MTU: u32 = 1420;

/// One of those compared.
#[derive(Clone, Debug)]
pub(super) enum Contender {
    /// No tunnel
    Veth,
    /// TUN to UDP with offloads, perhaps AES-128-GCM around each packet, and nothing else
    Forward {
        /// AES-128-GCM around each packet
        gcm: bool,
    },
    /// Ourselves, AES-128-GCM
    Tulips {
        /// ESP not in UDP
        raw: bool,
        /// Threads of the data plane
        workers: usize,
    },
    /// A WireGuard daemon with the usual control socket
    WireGuard(PathBuf),
    /// charon with kernel-libipsec, AES-128-GCM in UDP
    StrongSwan(PathBuf),
}

/// All there are here: with our own variants, and what is in `PATH` or in `peers`.
pub(super) fn all(peers: Option<&Path>) -> Vec<Contender> {
    let mut all = vec![Contender::Veth, Contender::Forward { gcm: false }, Contender::Forward { gcm: true }];
    for (raw, workers) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
        all.push(Contender::Tulips { raw, workers });
    }
    all.extend(wireguard::programs(peers).into_iter().map(Contender::WireGuard));
    all.extend(strongswan::program().map(Contender::StrongSwan));
    all
}

impl Contender {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Veth => "veth".into(),
            Self::Forward { gcm } => if *gcm { "forward-gcm" } else { "forward" }.into(),
            Self::Tulips { raw, workers } => {
                format!("tulips-{}-{workers}", if *raw { "raw" } else { "udp" })
            }
            Self::WireGuard(program) => {
                program.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            Self::StrongSwan(_) => "strongswan-libipsec".into(),
        }
    }

    /// Joins the two sides' inner addresses; waits until they reach each other.
    pub(super) fn up(&self, place: &Place) -> io::Result<Running> {
        let mut running = Running::default();
        match self {
            Self::Veth => {
                for side in &place.sides {
                    side.address("eth0", 24, None)?;
                }
            }
            Self::Forward { gcm } => forward(place, &mut running, *gcm)?,
            Self::Tulips { raw, workers } => tulips(place, &mut running, *raw, *workers)?,
            Self::WireGuard(program) => wireguard::up(place, &mut running, program)?,
            Self::StrongSwan(program) => strongswan::up(place, &mut running, program)?,
        }
        let [a, b] = &place.sides;
        patiently(10, || traffic::reaches(a, b))
            .map_err(|_| io::Error::other(format!("does not carry traffic; it said:\n{}", said(place))))?;
        Ok(running)
    }
}

/// The logs of what was started.
pub(super) fn said(place: &Place) -> String {
    let entries = fs::read_dir(place.path()).into_iter().flatten().flatten();
    let logs =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log"));
    let texts = logs.filter_map(|path| fs::read_to_string(path).ok());
    texts.map(|text| text.lines().rev().take(3).map(|line| format!("{line}\n")).collect::<String>()).collect()
}

/// The other side's.
pub(super) fn other<'p>(place: &'p Place, side: &Side) -> &'p Side {
    let [a, b] = &place.sides;
    if side.name == a.name { b } else { a }
}

fn forward(place: &Place, running: &mut Running, gcm: bool) -> io::Result<()> {
    for side in &place.sides {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["forward", &side.outer.to_string(), &other(place, side).outer.to_string()]);
        if gcm {
            command.arg("--gcm");
        }
        running.start(place, side, &mut command)?;
        patiently(5, || side.has_link(super::forward::DEVICE))?;
        side.address(super::forward::DEVICE, 24, Some(MTU))?;
    }
    Ok(())
}

/// The daemon and the command beside this program; keys and eroutes through the command, as a person would.
fn tulips(place: &Place, running: &mut Running, raw: bool, workers: usize) -> io::Result<()> {
    let beside = |name: &str| Ok::<_, io::Error>(std::env::current_exe()?.with_file_name(name));
    let [a, b] = &place.sides;
    let mut keys = Vec::new();
    for number in [1_u8, 2] {
        let path = place.path().join(format!("key{number}"));
        let digits: String = (0..20).map(|at| format!("{:02x}", at * 11 + number)).collect();
        fs::write(&path, format!("0x{digits}\n"))?;
        keys.push(format!("@{}", path.display()));
    }
    for side in &place.sides {
        let rundir = Rundir::new(place.path().join(side.name));
        let mut command = Command::new(beside("klips")?);
        command.args(["--foreground", "--workers", &workers.to_string()]);
        running.start(place, side, command.env("IPSEC_RUNDIR", rundir.path()))?;
        patiently(10, || Client::connect(&rundir).is_ok())
            .map_err(|_| io::Error::other(format!("klips did not start; it said:\n{}", said(place))))?;
        let ipsec = |words: &[&str]| -> io::Result<String> {
            side.call(Command::new(beside("ipsec")?).args(words).env("IPSEC_RUNDIR", rundir.path()))
        };
        side.address("lo", 32, None)?;
        ipsec(&["tncfg", "--attach", "--virtual", "ipsec0", "--physical", "eth0"])?;
        for ((from, to), (key, spi)) in [(a, b), (b, a)].into_iter().zip(keys.iter().zip([0x1000, 0x1001])) {
            let said = format!("esp{spi:#x}@{}", to.outer);
            let (src, dst) = (format!("{}/32", from.inner), format!("{}/32", to.inner));
            let outer = from.outer.to_string();
            let mut words =
                vec!["spi", "--said", &said, "--src", &outer, "--esp", "aes-gcm16", "--enckey", key];
            words.extend(["--inner-src", &src, "--inner-dst", &dst, "--replay-window", "1024", "--esn"]);
            if !raw {
                words.extend(["--natt", "nonesp"]);
            }
            ipsec(&words)?;
            if from.name == side.name {
                ipsec(&["eroute", "--add", "--src", &src, "--dst", &dst, "--said", &said])?;
            }
        }
        side.route(other(place, side).inner, "ipsec0")?;
    }
    Ok(())
}
