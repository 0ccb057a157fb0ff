//! strongSwan's charon with kernel-libipsec, which protects packets in its own process. IKEv2 with a shared secret.

use super::contender::{other, said};
use super::place::{Place, Running, Side, patiently};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// charon where distributions put it, if it has the plugin.
pub(crate) fn program() -> Option<PathBuf> {
    let known = ["/usr/lib/ipsec/charon", "/usr/lib/strongswan/charon", "/usr/libexec/ipsec/charon"];
    known.into_iter().map(PathBuf::from).find(|path| {
        let plugin = path.with_file_name("plugins").join("libstrongswan-kernel-libipsec.so");
        path.exists() && plugin.exists()
    })
}

/// What it negotiates.
#[derive(Clone, Copy)]
pub(crate) struct Suite<'s> {
    /// In the words of swanctl.conf.
    pub(crate) ike: &'s str,
    /// Both show certificates, whose files are where swanctl looks for them; else they share a secret.
    pub(crate) certificates: bool,
}

/// The tunnel of the other benches.
pub(crate) const PLAIN: Suite<'_> = Suite { ike: "aes128gcm16-prfsha256-curve25519", certificates: false };

pub(crate) fn up(place: &Place, running: &mut Running, charon: &Path, suite: Suite<'_>) -> io::Result<()> {
    for side in &place.sides {
        side.address("lo", 32, None)?;
        let directory = place.path().join(side.name);
        fs::create_dir_all(&directory)?;
        write_configuration(&directory, side, other(place, side), suite)?;
        // Each has a pid file in /run and will not start beside another's.
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c"]);
        command.arg("mount -t tmpfs tmpfs /run && exec \"$0\"").arg(charon);
        running.start(place, side, command.env("STRONGSWAN_CONF", directory.join("strongswan.conf")))?;
        patiently(10, || directory.join("vici").exists())
            .map_err(|_| io::Error::other(format!("charon did not start; it said:\n{}", said(place))))?;
        let file = directory.join("swanctl.conf");
        control(&directory, side, &["--load-all", "--file", &file.to_string_lossy()])?;
    }
    let [a, _] = &place.sides;
    control(&place.path().join(a.name), a, &["--initiate", "--child", "c"])
}

pub(crate) fn control(directory: &Path, side: &Side, words: &[&str]) -> io::Result<()> {
    let mut command = Command::new("swanctl");
    command.args(words).arg("--uri").arg(format!("unix://{}/vici", directory.display()));
    command.env("STRONGSWAN_CONF", directory.join("strongswan.conf")).env("SWANCTL_DIR", directory);
    side.call(&mut command).map(|_| ())
}

fn write_configuration(directory: &Path, side: &Side, peer: &Side, suite: Suite<'_>) -> io::Result<()> {
    let (local, remote) = if suite.certificates {
        let who = |side: &Side| format!("auth = pubkey\n id = {}", side.name);
        (format!("{}\n certs = own.der", who(side)), who(peer))
    } else {
        let who = |side: &Side| format!("auth = psk\n id = {}", side.outer);
        (who(side), who(peer))
    };
    let daemon = format!(
        "charon {{\n load = random nonce sha2 sha1 hmac kdf pem pkcs1 pkcs8 pubkey x509 constraints curve25519 gmp aesni openssl gcm \
         kernel-libipsec kernel-netlink socket-default vici\n install_virtual_ip = no\n \
         plugins {{ vici {{ socket = unix://{}/vici }} }}\n}}\n",
        directory.display()
    );
    fs::write(directory.join("strongswan.conf"), daemon)?;
    let connection = format!(
        "connections {{ t {{\n version = 2\n local_addrs = {0}\n remote_addrs = {1}\n \
         proposals = {4}\n rekey_time = 0\n local {{\n {local}\n }}\n \
         remote {{\n {remote}\n }}\n children {{ c {{\n local_ts = {2}/32\n remote_ts = {3}/32\n \
         esp_proposals = aes128gcm16\n rekey_time = 0\n mode = tunnel\n }} }}\n}} }}\n\
         secrets {{ ike-t {{ secret = \"bench only\" }} }}\n",
        side.outer, peer.outer, side.inner, peer.inner, suite.ike
    );
    fs::write(directory.join("swanctl.conf"), connection)
}
