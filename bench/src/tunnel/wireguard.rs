//! WireGuard daemons in user space: an interface and a control socket below /var/run/wireguard.

use super::contender::{MTU, other};
use super::place::{Place, Running, patiently};
use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOCKETS: &str = "/run/wireguard";
const PORT: u16 = 51820;

/// Those of a known name, in `peers` and in `PATH`; a version may follow the name.
pub(super) fn programs(peers: Option<&Path>) -> BTreeSet<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = peers.map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    let entries = directories.filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
    let known = ["wireguard-go", "boringtun-cli", "gotatun"];
    let mut seen = BTreeSet::new();
    entries
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            known.iter().any(|known| name.starts_with(known)) && seen.insert(name)
        })
        .map(|entry| entry.path())
        .collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

pub(super) fn up(place: &Place, running: &mut Running, program: &Path) -> io::Result<()> {
    fs::create_dir_all(SOCKETS)?;
    let wrong = |_| io::Error::other("no key");
    let go = program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("wireguard-go"));
    let mut keys = Vec::new();
    for side in &place.sides {
        let mut command = Command::new(program);
        command.arg("-f").env("LOG_LEVEL", "error");
        if !go {
            command.arg("--disable-drop-privileges");
        }
        running.start(place, side, command.arg(device(side.name)))?;
        let private = PrivateKey::generate(&X25519).map_err(wrong)?;
        let seed: Curve25519SeedBin<'_> = private.as_be_bytes().map_err(wrong)?;
        let public = private.compute_public_key().map_err(wrong)?;
        keys.push((side, hex(seed.as_ref()), hex(public.as_ref())));
    }
    for (side, private, public) in &keys {
        let device = device(side.name);
        let socket = format!("{SOCKETS}/{device}.sock");
        patiently(5, || side.has_link(&device) && UnixStream::connect(&socket).is_ok())?;
        let peer = other(place, side);
        let peer_key = keys.iter().map(|(_, _, key)| key).find(|key| *key != public);
        let text = format!(
            "set=1\nprivate_key={private}\nlisten_port={PORT}\npublic_key={}\nendpoint={}:{PORT}\nallowed_ip={}/32\n\n",
            peer_key.map_or("", |key| key),
            peer.outer,
            peer.inner
        );
        configure(&socket, &text)?;
        side.address(&device, 24, Some(MTU))?;
    }
    Ok(())
}

/// The control socket is of the mount namespace, which both sides share.
fn device(side: &str) -> String {
    format!("wg-{side}")
}

fn configure(socket: &str, text: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    stream.write_all(text.as_bytes())?;
    let (mut answer, mut octets) = (String::new(), [0; 256]);
    while !answer.contains("errno=") {
        let len = stream.read(&mut octets)?;
        if len == 0 {
            break;
        }
        answer.push_str(&String::from_utf8_lossy(&octets[..len]));
    }
    if answer.contains("errno=0") { Ok(()) } else { Err(io::Error::other(format!("it answered {answer:?}"))) }
}
