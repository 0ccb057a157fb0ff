//! `ipsec setup status`.

use super::stop;
use super::supervise::{self, Record, Said};
use crate::ctl::{Client, CtlError, Request};
use crate::print;
use crate::process::Process;
use crate::rundir::Rundir;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What is found of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    /// It runs, and its pid file says so.
    Normal(u32),
    /// It runs without a pid file.
    Orphaned(u32),
    /// It runs, and the pid file names another process.
    Illicit(u32),
    /// A pid file of a process that has ended.
    Dead,
    /// Nothing.
    No,
}

/// What is found altogether.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    klips: Daemon,
    pluto: Daemon,
    /// The start that is in force wanted pluto; not known without its info file.
    pluto_wanted: Option<bool>,
    /// The process in the lock file; 0 if it cannot be read.
    lock: Option<u32>,
    info: bool,
    /// The start that is in force wanted a supervisor.
    supervised: bool,
    supervisor: Daemon,
    /// What the supervisor has done.
    lives: Said,
    /// Files that a daemon or a start left, other than the lock and the info file.
    left: Vec<String>,
    /// Eroutes that lead to SAs, if they can be asked for: %trap, %hold and the like are policy, and nothing is up there.
    tunnels: Option<u64>,
    /// All eroutes, if they can be asked for.
    eroutes: Option<u64>,
    /// It was asked and did not answer.
    silent: bool,
    /// Where the table files are seen from here, if not where they should be.
    elsewhere: Option<PathBuf>,
}

/// How long the daemon may take to answer before that is worth mentioning.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn run(rundir: &Rundir, lsb: bool, json: bool) -> ExitCode {
    let found = look(rundir);
    let (headline, details, strange) = found.report(rundir);
    let printed = if json {
        print::line(found.object(&details, strange))
    } else {
        let but = strange.then_some("but...");
        let lines: Vec<&str> =
            [headline].into_iter().chain(but).chain(details.iter().map(String::as_str)).collect();
        print::line(lines.join("\n"))
    };
    if let Err(error) = printed
        && !print::unread(&error)
    {
        print::complain(format_args!("ipsec setup: {error}"));
        return ExitCode::FAILURE;
    }
    let code = if lsb { found.lsb() } else { u8::from(strange) };
    code.into()
}

fn look(rundir: &Rundir) -> Found {
    let klips = daemon(&rundir.klips_pid(), stop::who(rundir));
    let pluto = daemon(&rundir.pluto_pid(), stop::who_pluto(rundir));
    let info = fs::read_to_string(rundir.info()).ok();
    let has = |word: &str| info.as_ref().map(|info| info.lines().any(|line| line == word));
    let (pluto_wanted, supervised) = (has("pluto=yes"), has("supervisor=yes") == Some(true));
    let supervisor = daemon(&rundir.supervisor_pid(), supervise::who(rundir));
    let status = Client::connect(rundir).and_then(|client| client.within(PATIENCE)?.call(Request::Status));
    let count = |what: &str| status.as_ref().ok().and_then(|status| status.get(what)).and_then(Value::as_u64);
    let (tunnels, eroutes) = (count("tunnels"), count("eroutes"));
    let lock = rundir.setup_pid();
    Found {
        klips,
        pluto,
        pluto_wanted,
        supervised,
        supervisor,
        lives: Record::read(&rundir.supervisor_state()),
        left: left(rundir, klips, pluto, supervisor),
        lock: lock.exists().then(|| Process::read(&lock).map_or(0, |process| process.pid)),
        info: info.is_some(),
        tunnels,
        eroutes,
        silent: matches!(status, Err(CtlError::Silent)),
        elsewhere: if let Daemon::Normal(pid) = klips { elsewhere(rundir, pid) } else { None },
    }
}

/// Files of those that are not there any more.
fn left(rundir: &Rundir, klips: Daemon, pluto: Daemon, supervisor: Daemon) -> Vec<String> {
    let of = |daemon: Daemon, files: Vec<PathBuf>| {
        if matches!(daemon, Daemon::Dead | Daemon::No) { files } else { Vec::new() }
    };
    let all = [
        of(klips, vec![rundir.klips_lock(), rundir.klips_ctl(), rundir.pf_key_sock(), rundir.ike_sock()]),
        of(pluto, vec![rundir.pluto_lock(), rundir.pluto_ctl(), rundir.pluto_sas()]),
        of(supervisor, vec![rundir.supervisor_lock(), rundir.supervisor_state()]),
        vec![rundir.forwarding(), rundir.resolv_conf()],
    ];
    let there = all.into_iter().flatten().filter(|path| path.symlink_metadata().is_ok());
    there.map(|path| path.display().to_string()).collect()
}

/// What a pid file says beside what there is. A process that is shown to be ours and is not the one in the file is
/// illicit, one without a file is orphaned (ipsec_setup(8)).
fn daemon(file: &Path, alive: Option<Process>) -> Daemon {
    match (Process::read(file), alive) {
        (Some(named), Some(alive)) if named.pid == alive.pid => Daemon::Normal(alive.pid),
        (Some(_), Some(alive)) => Daemon::Illicit(alive.pid),
        (None, Some(alive)) if file.exists() => Daemon::Illicit(alive.pid),
        (None, Some(alive)) => Daemon::Orphaned(alive.pid),
        (Some(_), None) => Daemon::Dead,
        (None, None) => Daemon::No,
    }
}

/// A daemon started in another mount namespace, as by `ip netns exec`, has mounted its files there. Only root is told.
fn elsewhere(rundir: &Rundir, pid: u32) -> Option<PathBuf> {
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let proc = rundir.proc();
    let theirs = Path::new("/proc").join(pid.to_string()).join("root").join(proc.strip_prefix("/").ok()?);
    let apart = of("self")? != of(&pid.to_string())?;
    (apart && !proc.join("net").exists() && theirs.join("net").exists()).then(|| theirs.join("net"))
}

impl Found {
    /// The headline, what follows it, and whether something is strange.
    fn report(&self, rundir: &Rundir) -> (&'static str, Vec<String>, bool) {
        let mut strange = Vec::new();
        let info = rundir.info().display().to_string();
        if let Some(owner) = self.lock {
            match self.klips {
                Daemon::Normal(pid) if owner != 0 && owner != pid => {
                    strange.push(format!("the lock file names process {owner}, klips is {pid}!"));
                }
                Daemon::Normal(_) => {}
                Daemon::Orphaned(pid) => strange.push(format!("orphaned klips running (pid {pid})!")),
                Daemon::Illicit(pid) => strange.push(format!("illicit klips running (pid {pid})!")),
                Daemon::Dead => strange.push(format!(
                    "no klips running!  It has died: {}",
                    self.remedy("klips", "`ipsec setup start` cleans up")
                )),
                Daemon::No => strange.push("no klips running!".into()),
            }
            if self.silent {
                strange.push(
                    "klips does not answer!  `ipsec setup restart` ends it and starts a new one".into(),
                );
            }
            match (self.pluto, self.pluto_wanted) {
                (Daemon::Orphaned(pid), _) => strange.push(format!("orphaned Pluto running (pid {pid})!")),
                (Daemon::Illicit(pid), _) => strange.push(format!("illicit Pluto running (pid {pid})!")),
                (Daemon::Dead, _) => strange.push(format!(
                    "dead Pluto!  It has died: {}",
                    self.remedy("pluto", "`ipsec setup restart` starts it again")
                )),
                (Daemon::No, Some(true) | None) => strange.push("no Pluto running!".into()),
                (Daemon::Normal(pid), Some(false)) => {
                    strange.push(format!("a Pluto is running that setup did not start (pid {pid})!"));
                }
                (Daemon::Normal(_), Some(true) | None) | (Daemon::No, Some(false)) => {}
            }
            match self.supervisor {
                Daemon::Dead | Daemon::No if self.supervised => strange.push(
                    "no supervisor running!  A daemon that dies is not started again: `ipsec setup start` starts it"
                        .into(),
                ),
                Daemon::Orphaned(pid) | Daemon::Illicit(pid) => {
                    strange.push(format!("a supervisor runs that is not in its pid file (pid {pid})!"));
                }
                Daemon::Normal(_) | Daemon::Dead | Daemon::No => {}
            }
            if !self.info {
                strange.push(format!("{info} file missing!"));
            }
            if !strange.is_empty() {
                return ("IPsec running", strange, true);
            }
            let mut lines = Vec::new();
            if let Daemon::Normal(pid) = self.pluto {
                lines.push(format!("pluto pid {pid}"));
            }
            if let Daemon::Normal(pid) = self.klips {
                lines.push(format!("klips pid {pid}"));
            }
            for (name, record) in self.lives.iter().filter(|(_, record)| record.deaths > 0) {
                let times = if record.deaths == 1 { "once" } else { &format!("{} times", record.deaths) };
                let when =
                    record.died.and_then(when).map_or_else(String::new, |at| format!(", last at {at}"));
                lines.push(format!("{name} has died {times} and was started again{when}"));
            }
            match self.tunnels {
                Some(0) => lines.push("No tunnels up".into()),
                Some(n) => lines.push(format!("{n} tunnels up")),
                None => {}
            }
            if let Some(path) = &self.elsewhere {
                lines.push(format!("the table files are in another mount namespace: {}", path.display()));
            }
            return ("IPsec running", lines, false);
        }
        match self.klips {
            Daemon::Normal(pid) => {
                strange.push(format!("a klips is running that setup did not start (pid {pid})!"))
            }
            Daemon::Orphaned(pid) => strange.push(format!("orphaned klips is running (pid {pid})!")),
            Daemon::Illicit(pid) => strange.push(format!("illicit klips is running (pid {pid})!")),
            Daemon::Dead => strange.push(format!("has stale {} file!", rundir.klips_pid().display())),
            Daemon::No => {}
        }
        match self.pluto {
            Daemon::Normal(pid) => {
                strange.push(format!("a Pluto is running that setup did not start (pid {pid})!"));
            }
            Daemon::Orphaned(pid) => strange.push(format!("orphaned Pluto is running (pid {pid})!")),
            Daemon::Illicit(pid) => strange.push(format!("illicit Pluto is running (pid {pid})!")),
            Daemon::Dead => strange.push("has stale pluto.pid file!".into()),
            Daemon::No => {}
        }
        if let Daemon::Normal(pid) | Daemon::Orphaned(pid) | Daemon::Illicit(pid) = self.supervisor {
            strange.push(format!("a supervisor is running (pid {pid})!"));
        }
        if self.info {
            strange.push(format!("has {info} file!"));
        }
        strange.extend(self.left.iter().map(|path| format!("has {path}, left behind!")));
        if self.eroutes.is_some_and(|n| n > 0) {
            strange.push("some eroutes exist!".into());
        }
        let is_strange = !strange.is_empty();
        ("IPsec stopped", strange, is_strange)
    }

    /// What becomes of a daemon that has died.
    fn remedy(&self, name: &str, otherwise: &str) -> String {
        let record = self.lives.get(name).filter(|_| matches!(self.supervisor, Daemon::Normal(_)));
        match record.and_then(|record| Some((record, record.wait()?))) {
            Some((Record { why: Some(why), .. }, wait)) => {
                format!("the supervisor starts it again in {wait} s; the last try failed: {why}")
            }
            Some((_, wait)) => format!("the supervisor starts it again in {wait} s"),
            None => otherwise.to_owned(),
        }
    }

    /// The Linux Standard Base: 0 running, 1 dead with a pid file, 2 dead with a lock file, 3 not running.
    const fn lsb(&self) -> u8 {
        match (self.klips, self.lock) {
            (Daemon::Normal(_) | Daemon::Orphaned(_) | Daemon::Illicit(_), _) => 0,
            (Daemon::Dead, _) => 1,
            (Daemon::No, Some(_)) => 2,
            (Daemon::No, None) => 3,
        }
    }

    fn object(&self, details: &[String], strange: bool) -> Value {
        let word = |daemon: Daemon| match daemon {
            Daemon::Normal(pid) => ("normal", Some(pid)),
            Daemon::Orphaned(pid) => ("orphaned", Some(pid)),
            Daemon::Illicit(pid) => ("illicit", Some(pid)),
            Daemon::Dead => ("dead", None),
            Daemon::No => ("no", None),
        };
        let ((kind, pid), (pluto, pluto_pid)) = (word(self.klips), word(self.pluto));
        let (supervisor, supervisor_pid) = word(self.supervisor);
        json!({
            "running": self.lock.is_some(),
            "strange": strange,
            "details": if strange { details } else { &[] },
            "klips": kind,
            "klips_pid": pid,
            "pluto": pluto,
            "pluto_pid": pluto_pid,
            "supervisor": supervisor,
            "supervisor_pid": supervisor_pid,
            "lives": self.lives,
            "tunnels": self.tunnels,
            "eroutes": self.eroutes,
        })
    }
}

/// Seconds since 1970 as people read them.
fn when(seconds: u64) -> Option<String> {
    let at = jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    Some(at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Found = Found {
        klips: Daemon::No,
        pluto: Daemon::No,
        pluto_wanted: Some(false),
        supervised: false,
        supervisor: Daemon::No,
        lives: Said::new(),
        left: Vec::new(),
        lock: None,
        info: false,
        tunnels: None,
        eroutes: None,
        silent: false,
        elsewhere: None,
    };

    fn check(klips: Daemon, lock: Option<u32>, info: bool, tunnels: Option<u64>) -> (String, bool, u8) {
        // Policy alone is no tunnel, and it is left behind all the same.
        let eroutes = tunnels.map(|n| n + 2);
        said(&Found { klips, lock, info, tunnels, eroutes, ..NOTHING })
    }

    fn said(found: &Found) -> (String, bool, u8) {
        let (headline, details, strange) = found.report(&Rundir::new("/r"));
        let mut text = headline.to_owned();
        if strange {
            text.push_str("|but...");
        }
        for line in details {
            text.push('|');
            text.push_str(&line);
        }
        (text, strange, found.lsb())
    }

    #[test]
    fn every_state_has_its_words_and_its_codes() {
        for (klips, lock, info, tunnels, text, strange, lsb) in [
            (Daemon::No, None, false, None, "IPsec stopped", false, 3),
            (Daemon::Normal(7), Some(7), true, Some(0), "IPsec running|klips pid 7|No tunnels up", false, 0),
            (Daemon::Normal(7), Some(7), true, Some(3), "IPsec running|klips pid 7|3 tunnels up", false, 0),
            // Not root: the daemon is not asked.
            (Daemon::Normal(7), Some(7), true, None, "IPsec running|klips pid 7", false, 0),
            (
                Daemon::Dead,
                Some(7),
                true,
                None,
                "IPsec running|but...|no klips running!  It has died: `ipsec setup start` cleans up",
                true,
                1,
            ),
            (
                Daemon::No,
                Some(7),
                false,
                None,
                "IPsec running|but...|no klips running!|/r/ipsec.info file missing!",
                true,
                2,
            ),
            (
                Daemon::Normal(7),
                Some(8),
                true,
                Some(0),
                "IPsec running|but...|the lock file names process 8, klips is 7!",
                true,
                0,
            ),
            (
                Daemon::Orphaned(7),
                Some(7),
                true,
                Some(0),
                "IPsec running|but...|orphaned klips running (pid 7)!",
                true,
                0,
            ),
            (Daemon::No, None, true, None, "IPsec stopped|but...|has /r/ipsec.info file!", true, 3),
            (Daemon::Dead, None, false, None, "IPsec stopped|but...|has stale /r/klips.pid file!", true, 1),
            (
                Daemon::Normal(7),
                None,
                false,
                Some(0),
                "IPsec stopped|but...|a klips is running that setup did not start (pid 7)!|some eroutes exist!",
                true,
                0,
            ),
        ] {
            assert_eq!(check(klips, lock, info, tunnels), (text.to_owned(), strange, lsb));
        }
    }

    #[test]
    fn pluto_is_told_of_where_it_runs_and_missed_where_it_should() {
        let running =
            Found { klips: Daemon::Normal(7), lock: Some(7), info: true, tunnels: Some(1), ..NOTHING };
        for (pluto, wanted, text, strange) in [
            (Daemon::Normal(9), Some(true), "IPsec running|pluto pid 9|klips pid 7|1 tunnels up", false),
            (Daemon::No, Some(false), "IPsec running|klips pid 7|1 tunnels up", false),
            (Daemon::No, Some(true), "IPsec running|but...|no Pluto running!", true),
            (
                Daemon::Dead,
                Some(true),
                "IPsec running|but...|dead Pluto!  It has died: `ipsec setup restart` starts it again",
                true,
            ),
            (Daemon::Illicit(9), Some(true), "IPsec running|but...|illicit Pluto running (pid 9)!", true),
            (Daemon::Orphaned(9), Some(true), "IPsec running|but...|orphaned Pluto running (pid 9)!", true),
        ] {
            let found = Found { pluto, pluto_wanted: wanted, ..running.clone() };
            let (words, is_strange, _) = said(&found);
            assert_eq!((words.as_str(), is_strange), (text, strange));
        }
        let alone = Found { pluto: Daemon::Orphaned(9), ..NOTHING };
        assert_eq!(
            said(&alone),
            ("IPsec stopped|but...|orphaned Pluto is running (pid 9)!".to_owned(), true, 3)
        );
    }

    #[test]
    fn what_the_supervisor_does_is_said_and_so_is_that_there_is_none() {
        let record = |record: Record| Said::from([("pluto".to_owned(), record)]);
        let running = Found {
            klips: Daemon::Normal(7),
            pluto: Daemon::Normal(9),
            pluto_wanted: Some(true),
            supervised: true,
            supervisor: Daemon::Normal(5),
            lock: Some(7),
            info: true,
            tunnels: Some(0),
            lives: record(Record { deaths: 2, ..Record::default() }),
            ..NOTHING
        };
        let (text, strange, _) = said(&running);
        assert!(!strange && text.contains("|pluto has died 2 times and was started again|"), "{text}");

        let why = Some("no memory".to_owned());
        let waits = Record { deaths: 3, due: Some(u64::MAX), why, ..Record::default() };
        let dead = Found { pluto: Daemon::Dead, lives: record(waits), ..running.clone() };
        let (text, strange, _) = said(&dead);
        assert!(strange && text.contains("the supervisor starts it again in "), "{text}");
        assert!(text.ends_with("the last try failed: no memory"), "{text}");

        // What a dead supervisor meant to do, nobody does.
        for supervisor in [Daemon::Dead, Daemon::No] {
            let (text, strange, _) = said(&Found { supervisor, ..dead.clone() });
            assert!(
                strange && text.contains("`ipsec setup restart` starts it again|no supervisor running!"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_left_behind_is_named_file_by_file() {
        let found = Found { left: vec!["/r/pluto.lock".into(), "/r/pluto.sas".into()], ..NOTHING };
        let expected = "IPsec stopped|but...|has /r/pluto.lock, left behind!|has /r/pluto.sas, left behind!";
        assert_eq!(said(&found), (expected.to_owned(), true, 3));
    }

    #[test]
    fn who_cannot_see_the_table_files_is_told_where_they_are() {
        let found = Found {
            klips: Daemon::Normal(7),
            lock: Some(7),
            info: true,
            tunnels: Some(0),
            silent: false,
            elsewhere: Some("/proc/7/root/r/proc/net".into()),
            ..NOTHING
        };
        let (_, details, strange) = found.report(&Rundir::new("/r"));
        let expected = "the table files are in another mount namespace: /proc/7/root/r/proc/net";
        assert_eq!((details.last().map(String::as_str), strange), (Some(expected), false));
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_strange() {
        let found = Found {
            klips: Daemon::Normal(7),
            lock: Some(7),
            info: true,
            tunnels: None,
            silent: true,
            elsewhere: None,
            ..NOTHING
        };
        let (_, details, strange) = found.report(&Rundir::new("/r"));
        assert!(strange && details[0].starts_with("klips does not answer!"), "{details:?}");
    }
}
