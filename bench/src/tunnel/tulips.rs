//! Ourselves: the daemon and the command beside this program; keys and eroutes through the command, as a person would.

use super::contender::{other, said};
use super::place::{Place, Running, Side, patiently};
use crate::measure::{cpu_nanos, median};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use ipsec::ctl::Client;
use ipsec::rundir::Rundir;
use std::fs;
use std::io;
use std::process::Command;

/// Octets of a full packet.
const FULL: usize = 1400;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// ESP in tunnel mode in UDP, AES-128-GCM
    Udp,
    /// ESP in tunnel mode, AES-128-GCM
    Raw,
    /// AH in tunnel mode, HMAC-SHA-256
    Ah,
    /// ESP in transport mode, AES-128-GCM
    Transport,
    /// An IPIP tunnel in ESP in AH: AES-128-GCM and HMAC-SHA-256
    Bundle,
}

impl Way {
    pub(super) const ALL: [Self; 5] = [Self::Udp, Self::Raw, Self::Ah, Self::Transport, Self::Bundle];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Raw => "raw",
            Self::Ah => "ah",
            Self::Transport => "transport",
            Self::Bundle => "bundle",
        }
    }

    /// Gbit/s of full packets that one core could protect if there were nothing else to do: the algorithms alone.
    pub(super) fn algorithms_gbit(self) -> io::Result<f64> {
        let has = |word| self.sas().iter().any(|(_, options)| options.contains(&word));
        let gcm = has("GCM").then(|| UnboundKey::new(&AES_128_GCM, &[7; 16]).map(LessSafeKey::new));
        let gcm = gcm.transpose().map_err(|_| io::Error::other("no key"))?;
        let sha = has("SHA").then(|| hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]));
        let mut packet = [0x5a; FULL];
        let samples = (0..1001).map(|_| {
            cpu_nanos(|| {
                if let Some(key) = &gcm {
                    let nonce = Nonce::assume_unique_for_key([9; 12]);
                    let tag = key.seal_in_place_separate_tag(nonce, Aad::from([1; 8]), &mut packet);
                    let _ = std::hint::black_box(tag);
                }
                if let Some(key) = &sha {
                    std::hint::black_box(hmac::sign(key, &packet));
                }
            })
        });
        Ok(FULL as f64 * 8.0 / median(samples.collect()))
    }

    /// The SAs from one end to the other, from the inside to the outside: protocol, and options of `ipsec spi`. The words
    /// GCM and SHA stand for files with keys of 20 and of 32 octets.
    const fn sas(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::Udp => {
                &[("esp", &["--esp", "aes-gcm16", "--enckey", "GCM", "--natt", "nonesp", "--tunnel"])]
            }
            Self::Raw => &[("esp", &["--esp", "aes-gcm16", "--enckey", "GCM", "--tunnel"])],
            Self::Ah => &[("ah", &["--ah", "hmac-sha256", "--authkey", "SHA", "--tunnel"])],
            Self::Transport => &[("esp", &["--esp", "aes-gcm16", "--enckey", "GCM"])],
            Self::Bundle => &[
                ("tun", &["--ip4"]),
                ("esp", &["--esp", "aes-gcm16", "--enckey", "GCM"]),
                ("ah", &["--ah", "hmac-sha256", "--authkey", "SHA"]),
            ],
        }
    }
}

/// A program that was built with this one.
pub(crate) fn beside(name: &str) -> io::Result<Command> {
    Ok(Command::new(std::env::current_exe()?.with_file_name(name)))
}

/// Runs the `ipsec` command on one side.
pub(crate) fn ipsec(side: &Side, rundir: &Rundir, words: &[&str]) -> io::Result<()> {
    // Configuration lies in the run directory, if there is any.
    let path = rundir.path();
    side.call(beside("ipsec")?.args(words).env("IPSEC_RUNDIR", path).env("IPSEC_CONFS", path)).map(drop)
}

/// Starts the data plane of one side, with its inner address and an interface.
pub(crate) fn klips(place: &Place, running: &mut Running, side: &Side, workers: usize) -> io::Result<Rundir> {
    let rundir = Rundir::new(place.path().join(side.name));
    let mut command = beside("klips")?;
    command.args(["--foreground", "--workers", &workers.to_string()]);
    running.start(place, side, command.env("IPSEC_RUNDIR", rundir.path()))?;
    patiently(10, || Client::connect(&rundir).is_ok())
        .map_err(|_| io::Error::other(format!("klips did not start; it said:\n{}", said(place))))?;
    if side.inner != side.outer {
        side.address("lo", 32, None)?;
    }
    ipsec(side, &rundir, &["tncfg", "--attach", "--virtual", "ipsec0", "--physical", "eth0"])?;
    Ok(rundir)
}

pub(super) fn up(place: &Place, running: &mut Running, way: Way, workers: usize) -> io::Result<()> {
    for side in &place.sides {
        let rundir = klips(place, running, side, workers)?;
        let ipsec = |words: &[&str]| ipsec(side, &rundir, words);
        let peer = other(place, side);
        outbound(place, side, peer, way, &ipsec)?;
        one_way(place, peer, side, way, &ipsec)?;
        side.route(peer.inner, "ipsec0")?;
    }
    Ok(())
}

/// The SAs of one direction; the SAID that an eroute would name.
fn one_way(
    place: &Place,
    from: &Side,
    to: &Side,
    way: Way,
    ipsec: &dyn Fn(&[&str]) -> io::Result<()>,
) -> io::Result<String> {
    let (outer, net) = (from.outer.to_string(), |side: &Side| format!("{}/32", side.inner));
    let (src, dst) = (net(from), net(to));
    let mut saids = Vec::new();
    for (number, (protocol, options)) in (0x1000..).step_by(0x10).zip(way.sas()) {
        let spi = number + u32::from(to.outer.octets()[3]);
        let said = format!("{protocol}{spi:#x}@{}", to.outer);
        let mut words = ["spi", "--said", &said, "--src", &outer].map(str::to_owned).to_vec();
        for option in *options {
            words.push(match *option {
                "GCM" => key(place, from, 20)?,
                "SHA" => key(place, from, 32)?,
                word => word.to_owned(),
            });
        }
        if *protocol != "tun" {
            words.extend(["--replay-window", "1024", "--esn"].map(str::to_owned));
        }
        if saids.is_empty() && *protocol != "tun" && way != Way::Transport {
            words.extend(["--inner-src", &src, "--inner-dst", &dst].map(str::to_owned));
        }
        ipsec(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        saids.push(said);
    }
    if saids.len() > 1 {
        let words = ["spigrp", "--said"].into_iter().chain(saids.iter().map(String::as_str));
        ipsec(&words.collect::<Vec<_>>())?;
    }
    saids.into_iter().next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The SAs from `side` to `peer`, and the eroute that sends what goes there through them.
fn outbound(
    place: &Place,
    side: &Side,
    peer: &Side,
    way: Way,
    ipsec: &dyn Fn(&[&str]) -> io::Result<()>,
) -> io::Result<()> {
    let said = one_way(place, side, peer, way, ipsec)?;
    let (src, dst) = (format!("{}/32", side.inner), format!("{}/32", peer.inner));
    ipsec(&["eroute", "--add", "--src", &src, "--dst", &dst, "--said", &said])
}

/// A file with the key for what `from` sends, as an argument.
fn key(place: &Place, from: &Side, octets: usize) -> io::Result<String> {
    let path = place.path().join(format!("key-{}-{octets}", from.name));
    let number = from.outer.octets()[3];
    let digits: String = (0..octets).map(|at| format!("{:02x}", (at * 7) as u8 + number)).collect();
    fs::write(&path, format!("0x{digits}\n"))?;
    Ok(format!("@{}", path.display()))
}
