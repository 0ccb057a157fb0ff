//! What is measured: the bare cable, forwarders, ourselves, and other user-space tunnels that are installed.

use super::place::{Place, Running, Side, patiently};
use super::traffic;
use super::tulips::{self, Way};
use super::{strongswan, wireguard};
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
    /// Ourselves
    Tulips {
        way: Way,
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
    for way in Way::ALL {
        all.extend([1, 2].map(|workers| Contender::Tulips { way, workers }));
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
            Self::Tulips { way, workers } => format!("tulips-{}-{workers}", way.name()),
            Self::WireGuard(program) => {
                program.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            Self::StrongSwan(_) => "strongswan-libipsec".into(),
        }
    }

    /// Whether the ends of the cable speak to each other themselves, and nothing is behind them.
    pub(super) fn is_of_hosts(&self) -> bool {
        matches!(self, Self::Tulips { way: Way::Transport, .. })
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
            Self::Tulips { way, workers } => tulips::up(place, &mut running, *way, *workers)?,
            Self::WireGuard(program) => wireguard::up(place, &mut running, program)?,
            Self::StrongSwan(program) => strongswan::up(place, &mut running, program, strongswan::PLAIN)?,
        }
        let [a, b] = &place.sides;
        patiently(10, || traffic::reaches(a, b))
            .map_err(|_| io::Error::other(format!("does not carry traffic; it said:\n{}", said(place))))?;
        Ok(running)
    }
}

/// The logs of what was started.
pub(crate) fn said(place: &Place) -> String {
    let entries = fs::read_dir(place.path()).into_iter().flatten().flatten();
    let logs =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log"));
    let texts = logs.filter_map(|path| fs::read_to_string(path).ok());
    texts.map(|text| text.lines().rev().take(3).map(|line| format!("{line}\n")).collect::<String>()).collect()
}

/// The other side's.
pub(crate) fn other<'p>(place: &'p Place, side: &Side) -> &'p Side {
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
