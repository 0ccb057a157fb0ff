//! Handshakes between daemons on a cable, ours and strongSwan's in turn; and what a packet pays that finds no SA yet.

use super::pki::Pki;
use crate::measure::median;
use crate::report::{figure, row};
use crate::tunnel::contender::{other, said};
use crate::tunnel::place::{self, Place, Running, Side, patiently};
use crate::tunnel::{strongswan, tulips};
use ipsec::host::clock;
use ipsec::rundir::Rundir;
use ipsec_core::sign::{Curve, KeyKind};
use serde_json::json;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// What makes one side begin, and what makes it end.
type Step<'s> = &'s dyn Fn(&Side) -> io::Result<()>;

/// What both sides negotiate, and how they prove who they are.
struct Suite {
    name: &'static str,
    /// `authby=` of ipsec.conf.
    proof: &'static str,
    /// `ike=` of ipsec.conf.
    ours: &'static str,
    /// For swanctl.conf, if the strongSwan of distributions has it.
    theirs: Option<&'static str>,
    pki: Option<Pki>,
}

fn suites() -> [Suite; 4] {
    let suite = |name, proof, ours, theirs, pki| Suite { name, proof, ours, theirs, pki };
    let (p256, modp) = ("aes128gcm16-prfsha256-ecp256", "aes128gcm16-prfsha256-modp2048");
    let pki = |kind| Some(Pki::named(kind, ["b", "a"]));
    [
        suite("x25519+PSK", "secret", "aes128gcm16-prfsha256-x25519", Some(strongswan::PLAIN.ike), None),
        suite("x25519+ML-KEM-768+PSK", "secret", "aes128gcm16-prfsha256-x25519-ke1_mlkem768", None, None),
        suite("P-256+ECDSA", "ecdsa", p256, Some(p256), pki(KeyKind::Ec(Curve::P256))),
        suite("MODP-2048+RSA", "rsasig", modp, Some(modp), pki(KeyKind::Rsa)),
    ]
}

pub(super) fn run(quick: bool) -> io::Result<()> {
    place::become_able()?;
    let many = if quick { 30 } else { 300 };
    let charon = strongswan::program();
    if charon.is_none() {
        eprintln!("strongSwan is not installed");
    }
    let suites = suites();
    for suite in &suites {
        let (place, _running) = ours(suite, many)?;
        if suite.name == suites[0].name {
            let auto = |side: &Side, word: &str| auto(&place, side, word);
            // What is down only holds packets; what is routed asks for SAs.
            first_packets(&place, many.min(100), &|side| {
                auto(side, "--down").and_then(|()| auto(side, "--route"))
            })?;
        }
        if let (Some(charon), Some(ike)) = (&charon, suite.theirs) {
            theirs(suite, ike, many, charon)?;
        }
    }
    Ok(())
}

fn theirs(suite: &Suite, ike: &str, many: usize, charon: &Path) -> io::Result<()> {
    let (place, mut running) = (Place::new(false)?, Running::default());
    if let Some(pki) = &suite.pki {
        for side in &place.sides {
            let names = ["x509/own.der", "private/own.der", "x509ca/root.der"];
            equip(&place.path().join(side.name), pki, side, names)?;
        }
    }
    let certificates = suite.pki.is_some();
    strongswan::up(&place, &mut running, charon, strongswan::Suite { ike, certificates })?;
    let control =
        |side: &Side, words: &[&str]| strongswan::control(&place.path().join(side.name), side, words);
    let down: Step<'_> = &|side| control(side, &["--terminate", "--ike", "t"]);
    let up: Step<'_> = &|side| control(side, &["--initiate", "--child", "c"]);
    handshakes(("strongSwan", suite.name), &place, &running, many, down, up)
}

fn auto(place: &Place, side: &Side, word: &str) -> io::Result<()> {
    tulips::ipsec(side, &Rundir::new(place.path().join(side.name)), &["auto", word, "t"])
}

/// What was measured goes on running for as long as what is returned lives.
fn ours(suite: &Suite, many: usize) -> io::Result<(Place, Running)> {
    let (place, mut running) = (Place::new(false)?, Running::default());
    for side in &place.sides {
        let rundir = tulips::klips(&place, &mut running, side, 1)?;
        write_configuration(&rundir, suite, side, other(&place, side))?;
        let mut command = tulips::beside("pluto")?;
        command.arg("--foreground").env("IPSEC_RUNDIR", rundir.path()).env("IPSEC_CONFS", rundir.path());
        running.start(&place, side, &mut command)?;
        patiently(10, || tulips::ipsec(side, &rundir, &["auto", "--status"]).is_ok())
            .map_err(|_| io::Error::other(format!("pluto did not start; it said:\n{}", said(&place))))?;
    }
    let down: Step<'_> = &|side| auto(&place, side, "--down");
    let up: Step<'_> = &|side| auto(&place, side, "--up");
    up(&place.sides[0])?;
    handshakes(("tulips", suite.name), &place, &running, many, down, up)?;
    Ok((place, running))
}

/// A side's certificate, its key, and who vouches for both sides, in files of these names below a directory.
fn equip(directory: &Path, pki: &Pki, side: &Side, names: [&str; 3]) -> io::Result<()> {
    let holder = pki.holder(side.name == "b");
    let root = pki.trust.authorities.first().map_or(&[][..], |root| root.der());
    let files: [&[u8]; 3] = [holder.certificate.der(), &holder.pkcs8, root];
    for (name, octets) in names.into_iter().zip(files) {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap_or(directory))?;
        File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(octets)?;
    }
    Ok(())
}

/// AES-128-GCM for what is carried, as strongSwan has it here.
fn write_configuration(rundir: &Rundir, suite: &Suite, side: &Side, peer: &Side) -> io::Result<()> {
    let (who, secret) = match &suite.pki {
        None => (String::new(), ": PSK \"bench only\"\n"),
        Some(pki) => {
            let names = ["ipsec.d/certs/own.der", "ipsec.d/private/own.der", "ipsec.d/cacerts/root.der"];
            equip(rundir.path(), pki, side, names)?;
            let (own, peer) = (side.name, peer.name);
            (format!("\tleftcert=own.der\n\tleftid=@{own}\n\trightid=@{peer}\n"), ": PKCS8 own.der\n")
        }
    };
    let conf = format!(
        "conn t\n\tleft={}\n\tleftsubnet={}/32\n\tright={}\n\trightsubnet={}/32\n{who}\
         \tauthby={}\n\tike={}!\n\tesp=aes128gcm16!\n\tauto=add\n",
        side.outer, side.inner, peer.outer, peer.inner, suite.proof, suite.ours
    );
    fs::write(rundir.path().join("ipsec.conf"), conf)?;
    let mut secrets = File::options();
    secrets.write(true).create_new(true).mode(0o600);
    secrets.open(rundir.path().join("ipsec.secrets"))?.write_all(secret.as_bytes())
}

/// What the responder's programs spend for a tunnel that comes and goes, and how long the initiator's command takes.
fn handshakes(
    (name, suite): (&str, &str),
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
        ("suite", json!(suite)),
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
