//! `forwardcontrol=yes`: packets are forwarded while IPsec runs, and what was so before is so again after it.
//!
//! Turning `ip_forward` on resets settings of every interface to those of a router, and off to those of a host (Linux'
//! ip-sysctl). What is restored is therefore not one number but each of them, as it was. What was before is written
//! down before anything is changed, so that a stop after a crash restores it, too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const MAIN: &str = "ip_forward";
/// Of every interface, reset by the main one.
const PER_INTERFACE: [&str; 3] = ["forwarding", "accept_redirects", "send_redirects"];

/// Where the settings are, where it is written down, and of which boot that is.
pub(super) struct Forwarding {
    sysctl: PathBuf,
    file: PathBuf,
    boot: String,
}

impl Forwarding {
    /// Of this host and this network namespace.
    pub(super) fn of_host(file: PathBuf) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { sysctl: "/proc/sys/net/ipv4".into(), file, boot: boot.trim().to_owned() }
    }

    /// Turns forwarding on. True if it was off.
    pub(super) fn turn_on(&self) -> Result<bool, String> {
        let main = self.sysctl.join(MAIN);
        let failed = |path: &Path, error: io::Error| {
            format!(
                "forwardcontrol=yes: {}: {error}: turn it on by `sysctl net.ipv4.ip_forward=1'",
                path.display()
            )
        };
        if fs::read_to_string(&main).map_err(|error| failed(&main, error))?.trim() != "0" {
            return Ok(false);
        }
        let mut text = format!("boot {}\n", self.boot);
        for (name, value) in self.interfaces() {
            text.push_str(&format!("{name} {value}\n"));
        }
        let new = self.file.with_extension("new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.file));
        written.map_err(|error| failed(&self.file, error))?;
        fs::write(&main, "1\n").map_err(|error| {
            let _ = fs::remove_file(&self.file);
            failed(&main, error)
        })?;
        Ok(true)
    }

    /// Makes it what it was before we turned it on. Whoever has changed it since has the last word.
    pub(super) fn restore(&self) -> io::Result<()> {
        let text = match fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut lines = text.lines();
        // After a boot the settings are new ones, and not ours.
        let ours = lines.next().and_then(|line| line.strip_prefix("boot ")) == Some(&self.boot);
        let main = self.sysctl.join(MAIN);
        if ours && fs::read_to_string(&main)?.trim() == "1" {
            fs::write(&main, "0\n")?;
            for (name, value) in lines.filter_map(|line| line.split_once(' ')) {
                let path = self.sysctl.join("conf").join(name);
                // An interface may have gone since; and a name from a file leads nowhere else.
                let known = !name.starts_with('/')
                    && !name.contains("..")
                    && PER_INTERFACE.iter().any(|leaf| path.ends_with(leaf));
                if known && fs::read_to_string(&path).is_ok_and(|now| now.trim() != value) {
                    fs::write(&path, format!("{value}\n"))?;
                }
            }
        }
        fs::remove_file(&self.file)
    }

    /// `eth0/forwarding` and its value, for each of each.
    fn interfaces(&self) -> Vec<(String, String)> {
        let conf = self.sysctl.join("conf");
        let mut all = Vec::new();
        for entry in fs::read_dir(&conf).into_iter().flatten().flatten() {
            let Ok(interface) = entry.file_name().into_string() else { continue };
            for leaf in PER_INTERFACE {
                if let Ok(value) = fs::read_to_string(entry.path().join(leaf)) {
                    all.push((format!("{interface}/{leaf}"), value.trim().to_owned()));
                }
            }
        }
        // What holds for all is written before what one has of its own.
        all.sort_by_key(|(name, _)| (!name.starts_with("all/"), !name.starts_with("default/"), name.clone()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(dir: &Path) -> Forwarding {
        for (name, value) in
            [("ip_forward", "0"), ("conf/all/accept_redirects", "1"), ("conf/eth0/accept_redirects", "0")]
        {
            let path = dir.join("sysctl").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        Forwarding { sysctl: dir.join("sysctl"), file: dir.join("forwarding"), boot: "this".into() }
    }

    fn main_is(host: &Forwarding) -> String {
        fs::read_to_string(host.sysctl.join(MAIN)).unwrap().trim().to_owned()
    }

    #[test]
    fn what_was_off_is_on_and_off_again_with_what_hung_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        assert!(host.turn_on().unwrap());
        assert_eq!(main_is(&host), "1");
        // As the kernel does.
        let leaf = host.sysctl.join("conf/eth0/accept_redirects");
        fs::write(&leaf, "1\n").unwrap();
        host.restore().unwrap();
        assert_eq!(main_is(&host), "0");
        assert_eq!(fs::read_to_string(leaf).unwrap(), "0\n");
        assert!(!host.file.exists());
        host.restore().unwrap();
    }

    #[test]
    fn what_was_on_stays_on() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        fs::write(host.sysctl.join(MAIN), "1\n").unwrap();
        assert!(!host.turn_on().unwrap());
        host.restore().unwrap();
        assert_eq!(main_is(&host), "1");
    }

    #[test]
    fn a_second_start_after_a_crash_does_not_take_our_own_setting_for_the_hosts() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        assert!(host.turn_on().unwrap());
        assert!(!host.turn_on().unwrap());
        host.restore().unwrap();
        assert_eq!(main_is(&host), "0");
    }

    #[test]
    fn a_note_of_an_earlier_boot_or_a_change_by_somebody_else_restores_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = host(dir.path());
        host.turn_on().unwrap();
        host.boot = "another".into();
        host.restore().unwrap();
        assert_eq!(main_is(&host), "1", "the boot turned it on, not we");
        host.turn_on().unwrap();
        assert!(!host.file.exists());
        // Somebody turned it off meanwhile, which took what hung on it along.
        fs::write(host.sysctl.join(MAIN), "0\n").unwrap();
        host.turn_on().unwrap();
        fs::write(host.sysctl.join(MAIN), "0\n").unwrap();
        let leaf = host.sysctl.join("conf/eth0/accept_redirects");
        fs::write(&leaf, "1\n").unwrap();
        host.restore().unwrap();
        assert_eq!(fs::read_to_string(leaf).unwrap(), "1\n", "theirs is the last word");
        assert!(!host.file.exists());
    }

    #[test]
    fn a_note_that_was_tampered_with_writes_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        host.turn_on().unwrap();
        let victim = dir.path().join("victim/forwarding");
        fs::create_dir_all(victim.parent().unwrap()).unwrap();
        fs::write(&victim, "7\n").unwrap();
        fs::write(&host.file, format!("boot this\n../../victim/forwarding 0\n{} 0\n", victim.display()))
            .unwrap();
        host.restore().unwrap();
        assert_eq!(fs::read_to_string(victim).unwrap(), "7\n");
    }
}
