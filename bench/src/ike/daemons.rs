//! Handshakes between daemons on a cable, ours and strongSwan's in turn; and what a packet pays that finds no SA yet.

use crate::measure::median;
use crate::report::{figure, row};
use crate::tunnel::contender::{other, said};
use crate::tunnel::place::{self, Place, Running, Side, patiently};
use crate::tunnel::{strongswan, tulips};
use ipsec::host::clock;
use ipsec::rundir::Rundir;
use serde_json::json;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// What makes one side begin, and what makes it end.
type Step<'s> = &'s dyn Fn(&Side) -> io::Result<()>;

pub(super) fn run(quick: bool) -> io::Result<()> {
    place::become_able()?;
    let many = if quick { 30 } else { 300 };
    ours(many)?;
    match strongswan::program() {
        Some(charon) => {
            let (place, mut running) = (Place::new(false)?, Running::default());
            strongswan::up(&place, &mut running, &charon)?;
            let control =
                |side: &Side, words: &[&str]| strongswan::control(&place.path().join(side.name), side, words);
            let down: Step<'_> = &|side| control(side, &["--terminate", "--ike", "t"]);
            let up: Step<'_> = &|side| control(side, &["--initiate", "--child", "c"]);
            handshakes("strongSwan", &place, &running, many, down, up)
        }
        None => {
            eprintln!("strongSwan is not installed");
            Ok(())
        }
    }
}

fn ours(many: usize) -> io::Result<()> {
    let (place, mut running) = (Place::new(false)?, Running::default());
    for side in &place.sides {
        let rundir = tulips::klips(&place, &mut running, side, 1)?;
        write_configuration(&rundir, side, other(&place, side))?;
        let mut command = tulips::beside("pluto")?;
        command.arg("--foreground").env("IPSEC_RUNDIR", rundir.path()).env("IPSEC_CONFS", rundir.path());
        running.start(&place, side, &mut command)?;
        patiently(10, || tulips::ipsec(side, &rundir, &["auto", "--status"]).is_ok())
            .map_err(|_| io::Error::other(format!("pluto did not start; it said:\n{}", said(&place))))?;
    }
    let auto = |side: &Side, word: &str| {
        tulips::ipsec(side, &Rundir::new(place.path().join(side.name)), &["auto", word, "t"])
    };
    let down: Step<'_> = &|side| auto(side, "--down");
    let up: Step<'_> = &|side| auto(side, "--up");
    up(&place.sides[0])?;
    handshakes("tulips", &place, &running, many, down, up)?;
    // What is down only holds packets; what is routed asks for SAs.
    let route: Step<'_> = &|side| auto(side, "--down").and_then(|()| auto(side, "--route"));
    first_packets(&place, many.min(100), route)
}

/// A shared secret, x25519 and AES-128-GCM, as strongSwan has it here.
fn write_configuration(rundir: &Rundir, side: &Side, peer: &Side) -> io::Result<()> {
    let conf = format!(
        "conn t\n\tleft={}\n\tleftsubnet={}/32\n\tright={}\n\trightsubnet={}/32\n\tauthby=secret\n\
         \tike=aes128gcm16-prfsha256-x25519!\n\tesp=aes128gcm16!\n\tauto=add\n",
        side.outer, side.inner, peer.outer, peer.inner
    );
    fs::write(rundir.path().join("ipsec.conf"), conf)?;
    let mut secrets = File::options();
    secrets.write(true).create_new(true).mode(0o600);
    secrets.open(rundir.path().join("ipsec.secrets"))?.write_all(b": PSK \"bench only\"\n")
}

/// What the responder's programs spend for a tunnel that comes and goes, and how long the initiator's command takes.
fn handshakes(
    name: &str,
    place: &Place,
    running: &Running,
    many: usize,
    down: Step<'_>,
    up: Step<'_>,
) -> io::Result<()> {
    let [a, b] = &place.sides;
    let (mut taken, before) = (Vec::new(), running.cpu_of(b));
    for _ in 0..many {
        down(a)?;
        let start = clock::now();
        up(a)?;
        taken.push(clock::now().since(start).as_secs_f64() * 1e3);
    }
    row(&[
        ("daemons", json!(name)),
        ("handshakes", json!(many)),
        ("responder_cpu_ms_each", figure((running.cpu_of(b) - before) * 1e3 / many as f64)),
        ("command_ms", figure(median(taken))),
    ]);
    Ok(())
}

/// From sending a datagram until it has arrived: through SAs that are there, and where an ACQUIRE has to make them first.
fn first_packets(place: &Place, many: usize, route: Step<'_>) -> io::Result<()> {
    let [a, b] = &place.sides;
    let socket = |side: &Side| {
        let socket = side.namespace.run(|| UdpSocket::bind((side.inner, 0)))??;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok::<_, io::Error>(socket)
    };
    let (from, to) = (socket(a)?, socket(b)?);
    from.connect(to.local_addr()?)?;
    let trip = || -> io::Result<f64> {
        let start = clock::now();
        from.send(b"first")?;
        to.recv(&mut [0; 16])?;
        Ok(clock::now().since(start).as_secs_f64() * 1e6)
    };
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for _ in 0..many {
        route(a)?;
        first.push(trip()?);
        later.push(trip()?);
    }
    first.sort_by(f64::total_cmp);
    row(&[
        ("acquire", json!("first packet")),
        ("arrives_us", figure(median(first.clone()))),
        ("longest_us", figure(first.last().copied().unwrap_or_default())),
        ("with_sas_us", figure(median(later))),
    ]);
    Ok(())
}
