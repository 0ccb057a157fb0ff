//! Name servers that a peer gave us: set while the connection is up, and undone.
//!
//! Where systemd-resolved runs, it is told which servers the device has and for which domains; it forgets them with the device,
//! or when told to. Elsewhere /etc/resolv.conf is written, and what was there before is kept in the run directory, so that
//! `ipsec setup stop` puts it back even after a crash. A file that somebody changed meanwhile is that person's, and stays.

use super::updown::Runner;
use crate::rundir;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// By which we know a file that we wrote.
const MARK: &str = "# by tulips (ipsec): what was here before is back when the connection is down";
/// resolv.conf(5) has no more.
const MOST_SERVERS: usize = 3;

/// What one connection was given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    device: String,
    servers: Vec<IpAddr>,
    domains: Vec<String>,
}

/// What is set for which connection.
#[derive(Debug)]
pub(crate) struct Resolver {
    given: BTreeMap<String, Given>,
    /// systemd-resolved runs.
    resolved: bool,
    file: PathBuf,
    backup: PathBuf,
    /// resolvectl(1) asks a daemon over a bus, and either may take its time: nobody waits for it.
    runner: Runner,
}

impl Resolver {
    /// Of this host; the file that was there before is kept at `backup`.
    pub(crate) fn of_host(backup: PathBuf) -> Self {
        let file = rundir::resolv_conf();
        // It serves the host, and knows nothing of a file that is only ours.
        let resolved = file == Path::new(rundir::RESOLV_CONF)
            && Path::new("/run/systemd/resolve/io.systemd.Resolve").exists();
        Self { given: BTreeMap::new(), resolved, file, backup, runner: Runner::new() }
    }

    /// Sets what a connection was given.
    pub(crate) fn set(&mut self, name: &str, device: &str, servers: &[IpAddr], domains: &[String]) {
        if servers.is_empty() {
            return;
        }
        // A domain comes from the peer and goes into a file and onto a command line.
        let sound = |domain: &&String| {
            !domain.is_empty()
                && domain.len() < 254
                && !domain.starts_with(['-', '.'])
                && domain.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_'))
        };
        let given = Given {
            device: device.to_owned(),
            servers: servers.iter().copied().take(MOST_SERVERS).collect(),
            domains: domains.iter().filter(sound).cloned().collect(),
        };
        if self.given.get(name) == Some(&given) {
            return;
        }
        self.given.insert(name.to_owned(), given);
        self.apply(device);
    }

    /// Undoes it.
    pub(crate) fn unset(&mut self, name: &str) {
        if let Some(given) = self.given.remove(name) {
            self.apply(&given.device);
        }
    }

    /// Puts back what was there before, ours or a predecessor's.
    pub(crate) fn restore(&mut self) {
        let devices: Vec<String> =
            std::mem::take(&mut self.given).into_values().map(|given| given.device).collect();
        devices.iter().for_each(|device| self.apply(device));
        if let Err(error) = self.put_back() {
            tracing::warn!("{}: {error}", self.file.display());
        }
    }

    fn apply(&mut self, device: &str) {
        if self.resolved {
            self.tell("resolvectl", device);
        } else if let Err(error) = self.write() {
            tracing::warn!("name servers: {}: {error}", self.file.display());
        }
    }

    fn tell(&mut self, program: &str, device: &str) {
        for words in self.words(device) {
            let mut command = Command::new(program);
            command.args(&words);
            self.runner.run(format!("name servers: {program} {}", words.join(" ")), command);
        }
    }

    /// What resolvectl(1) is to be told of a device.
    fn words(&self, device: &str) -> Vec<Vec<String>> {
        let of: Vec<&Given> = self.given.values().filter(|given| given.device == device).collect();
        if of.is_empty() {
            return vec![vec!["revert".into(), device.into()]];
        }
        let mut dns = vec!["dns".to_owned(), device.to_owned()];
        dns.extend(of.iter().flat_map(|given| &given.servers).map(ToString::to_string));
        let mut domain = vec!["domain".to_owned(), device.to_owned()];
        for given in of {
            if given.domains.is_empty() {
                // Every name, as a peer that names no domains means it.
                domain.push("~.".to_owned());
            }
            domain.extend(given.domains.iter().cloned());
        }
        vec![dns, domain]
    }

    /// Writes the file for what is set now, or puts it back if nothing is.
    fn write(&self) -> io::Result<()> {
        if self.given.is_empty() {
            return self.put_back();
        }
        let now = fs::read_to_string(&self.file).unwrap_or_default();
        let before = if now.starts_with(MARK) {
            fs::read_to_string(&self.backup).unwrap_or_default()
        } else {
            // First kept, then replaced: whatever happens between, it is not lost.
            replace(&self.backup, &now)?;
            now
        };
        let mut text = format!("{MARK}\n");
        let domains: Vec<&str> =
            self.given.values().flat_map(|given| &given.domains).map(String::as_str).collect();
        let kept = |line: &&str| {
            let word = line.split_whitespace().next().unwrap_or("");
            // Its servers would be asked after ours; its options stay.
            word != "nameserver" && (domains.is_empty() || !matches!(word, "search" | "domain"))
        };
        if !domains.is_empty() {
            text.push_str(&format!("search {}\n", domains.join(" ")));
        }
        let servers = self.given.values().flat_map(|given| &given.servers).take(MOST_SERVERS);
        servers.for_each(|server| text.push_str(&format!("nameserver {server}\n")));
        before.lines().filter(kept).for_each(|line| {
            text.push_str(line);
            text.push('\n');
        });
        replace(&self.file, &text)
    }

    fn put_back(&self) -> io::Result<()> {
        let before = match fs::read_to_string(&self.backup) {
            Ok(before) => before,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if fs::read_to_string(&self.file).is_ok_and(|now| now.starts_with(MARK)) {
            replace(&self.file, &before)?;
        }
        fs::remove_file(&self.backup)
    }
}

/// Writes a file, whole or not at all where it can be renamed over; in place where it cannot, because it is a link that others
/// rely on or is mounted by itself, as in containers.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|at| at.file_type().is_symlink());
    if !is_link {
        let new = path.with_extension("tulips.new");
        let renamed = fs::write(&new, text).and_then(|()| {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
            fs::rename(&new, path)
        });
        if renamed.is_ok() {
            return Ok(());
        }
        let _ = fs::remove_file(new);
    }
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(dir: &tempfile::TempDir) -> Resolver {
        let file = dir.path().join("resolv.conf");
        fs::write(&file, BEFORE).unwrap();
        let backup = dir.path().join("before");
        Resolver { given: BTreeMap::new(), resolved: false, file, backup, runner: Runner::new() }
    }

    const BEFORE: &str = "search home.example\nnameserver 192.0.2.53\noptions edns0\n";

    fn servers(text: &str) -> Vec<IpAddr> {
        text.split(' ').map(|server| server.parse().unwrap()).collect()
    }

    #[test]
    fn what_a_peer_gives_is_set_and_undone() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = host(&dir);
        let read = |host: &Resolver| fs::read_to_string(&host.file).unwrap();
        host.set("a", "ipsec0", &servers("10.1.0.53 2001:db8::53"), &["corp.example".into()]);
        let expected = format!(
            "{MARK}\nsearch corp.example\nnameserver 10.1.0.53\nnameserver 2001:db8::53\noptions edns0\n"
        );
        assert_eq!(read(&host), expected);
        // A second one, and the first goes: the backup is still what the host had.
        host.set("b", "ipsec1", &servers("10.2.0.53"), &[]);
        assert!(read(&host).contains("nameserver 10.2.0.53"));
        host.unset("a");
        assert!(!read(&host).contains("10.1.0.53") && read(&host).contains("search home.example"));
        host.unset("b");
        assert_eq!(read(&host), BEFORE);
        assert!(!host.backup.exists());
    }

    #[test]
    fn a_crash_is_undone_by_who_comes_after() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = host(&dir);
        first.set("a", "ipsec0", &servers("10.1.0.53"), &[]);
        let mut second = Resolver { given: BTreeMap::new(), ..first };
        // A second pluto sets its own before anything was put back.
        second.set("a", "ipsec0", &servers("10.9.0.53"), &[]);
        second.restore();
        assert_eq!(fs::read_to_string(&second.file).unwrap(), BEFORE);
    }

    #[test]
    fn a_file_that_somebody_changed_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = host(&dir);
        host.set("a", "ipsec0", &servers("10.1.0.53"), &[]);
        fs::write(&host.file, "nameserver 203.0.113.1\n").unwrap();
        host.unset("a");
        assert_eq!(fs::read_to_string(&host.file).unwrap(), "nameserver 203.0.113.1\n");
    }

    #[test]
    fn a_link_is_written_through_and_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = host(&dir);
        let target = dir.path().join("target");
        fs::rename(&host.file, &target).unwrap();
        std::os::unix::fs::symlink(&target, &host.file).unwrap();
        host.set("a", "ipsec0", &servers("10.1.0.53"), &[]);
        host.unset("a");
        assert!(fs::symlink_metadata(&host.file).unwrap().file_type().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), BEFORE);
    }

    #[test]
    fn what_a_peer_calls_a_domain_is_no_option_and_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = host(&dir);
        let evil = ["x\nnameserver 6.6.6.6", "--help", "a b", "", ".", "good.example"].map(String::from);
        host.set("a", "ipsec0", &servers("10.1.0.53"), &evil);
        let text = fs::read_to_string(&host.file).unwrap();
        assert!(text.contains("search good.example\n") && !text.contains("6.6.6.6"), "{text}");
        assert_eq!(host.words("ipsec0")[1], ["domain", "ipsec0", "good.example"]);
    }

    #[test]
    fn nobody_waits_for_resolved_and_it_hears_everything_in_order() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mut host = host(&dir);
        // Says what it was told once it is let go, or that this took too long: whoever waits for it cannot let it go.
        let program = dir.path().join("resolvectl");
        let at = dir.path().display();
        let text = format!(
            "#!/bin/sh\nn=0; while [ ! -e {at}/go ]; do n=$((n+1)); [ $n -gt 200 ] && {{ echo late >>{at}/out; exit; }}; sleep 0.05; done\necho $* >>{at}/out\n"
        );
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let program = program.display().to_string();
        let given = Given { device: "ipsec0".into(), servers: servers("10.1.0.53"), domains: Vec::new() };
        host.given.insert("a".into(), given);
        host.tell(&program, "ipsec0");
        host.given.clear();
        host.tell(&program, "ipsec0");
        fs::write(dir.path().join("go"), "").unwrap();
        drop(host);
        let out = fs::read_to_string(dir.path().join("out")).unwrap();
        assert_eq!(out, "dns ipsec0 10.1.0.53\ndomain ipsec0 ~.\nrevert ipsec0\n");
    }

    #[test]
    fn systemd_resolved_is_told_by_device() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = host(&dir);
        host.set("a", "ipsec0", &servers("10.1.0.53"), &[]);
        assert_eq!(
            host.words("ipsec0"),
            [vec!["dns", "ipsec0", "10.1.0.53"], vec!["domain", "ipsec0", "~."]]
        );
        host.unset("a");
        assert_eq!(host.words("ipsec0"), [vec!["revert", "ipsec0"]]);
    }
}
