//! What is installed, written down for the pluto after this one: one JSON object per line, names alone, no keys.
//!
//! A line says that a pair is there, or that it has gone, and each change is a line at the end: what it costs does not grow with
//! the pairs there are. When most lines are about what has gone the file is written anew, whole or not at all.

use super::kernel::Installed;
use ipsec_core::Selector;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// More lines were never written.
const MOST: usize = 1 << 22;
/// The file has twice as many lines as there are pairs, and so many more, before it is written anew.
const SLACK: usize = 64;

/// What has happened to a pair.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'p> {
    /// It is there.
    Is(&'p Installed),
    /// The one with this inbound SPI at this address of ours has gone.
    Gone(u32, IpAddr),
}

impl Change<'_> {
    fn line(self) -> Value {
        match self {
            Self::Is(pair) => line(pair),
            Self::Gone(spi_in, local) => json!({ "gone": spi_in, "local": local.to_string() }),
        }
    }
}

/// The file as far as it is written.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// What lines are added to; none before it was written whole.
    file: Option<File>,
    lines: usize,
    /// What the file had no room for.
    unwritten: String,
}

impl Journal {
    /// One that says first what is there, and then what changes.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, file: None, lines: 0, unwritten: String::new() }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down what has changed, so that `all` are there now, `count` of them.
    ///
    /// # Errors
    /// The disk is full, say. What could not be written is written with the next change.
    pub(super) fn note<'p, I: Iterator<Item = &'p Installed>>(
        &mut self,
        changes: &[Change<'_>],
        count: usize,
        all: impl FnOnce() -> I,
    ) -> io::Result<()> {
        if count == 0 {
            (self.file, self.lines, self.unwritten) = (None, 0, String::new());
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        self.lines = self.lines.saturating_add(changes.len());
        match &mut self.file {
            Some(file) if self.lines <= count.saturating_mul(2).saturating_add(SLACK) => {
                for change in changes {
                    self.unwritten.push_str(&format!("{}\n", change.line()));
                }
                if let Err(error) = file.write_all(self.unwritten.as_bytes()) {
                    // Part of a line may be there. It is a line by itself when this comes once more.
                    self.unwritten.insert(0, '\n');
                    return Err(error);
                }
                self.unwritten.clear();
                Ok(())
            }
            _ => {
                let (file, lines) = anew(&self.path, all())?;
                (self.file, self.lines, self.unwritten) = (Some(file), lines, String::new());
                Ok(())
            }
        }
    }
}

/// Writes the file whole, or leaves the one that is there; says how many lines it has.
fn anew<'p>(path: &Path, pairs: impl Iterator<Item = &'p Installed>) -> io::Result<(File, usize)> {
    let mut lines = 0_usize;
    let mut text = String::new();
    for pair in pairs {
        text.push_str(&format!("{}\n", line(pair)));
        lines = lines.saturating_add(1);
    }
    let new = path.with_extension("sas.new");
    let written = fs::write(&new, text).and_then(|()| OpenOptions::new().append(true).open(&new));
    let renamed = written.and_then(|file| fs::rename(&new, path).map(|()| file));
    if renamed.is_err() {
        let _ = fs::remove_file(&new);
    }
    Ok((renamed?, lines))
}

fn line(pair: &Installed) -> Value {
    let flow = |flow: &Selector| {
        let Selector { src, dst, proto, sport, dport } = flow;
        json!({ "src": src.to_string(), "dst": dst.to_string(), "proto": proto, "sport": sport, "dport": dport })
    };
    json!({
        "connection": pair.connection, "in": pair.spi_in, "out": pair.spi_out,
        "local": pair.local.to_string(), "remote": pair.remote.to_string(),
        "flows": pair.flows.iter().map(flow).collect::<Vec<_>>(),
    })
}

/// Reads what was written and has not gone; lines that are not of this form are passed over.
pub(super) fn read(path: &Path) -> Vec<Installed> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut all = BTreeMap::new();
    for value in text.lines().take(MOST).filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if let Some(pair) = pair(&value) {
            all.insert((pair.spi_in, pair.local), pair);
        } else if let Some(gone) = gone(&value) {
            all.remove(&gone);
        }
    }
    all.into_values().collect()
}

fn number(value: &Value, key: &str) -> Option<u64> {
    value.get(key)?.as_u64()
}

fn text(value: &Value, key: &str) -> Option<String> {
    Some(value.get(key)?.as_str()?.to_owned())
}

fn gone(value: &Value) -> Option<(u32, IpAddr)> {
    Some((number(value, "gone")?.try_into().ok()?, text(value, "local")?.parse().ok()?))
}

fn pair(value: &Value) -> Option<Installed> {
    let flow = |value: &Value| {
        Some(Selector {
            src: text(value, "src")?.parse().ok()?,
            dst: text(value, "dst")?.parse().ok()?,
            proto: number(value, "proto")?.try_into().ok()?,
            sport: number(value, "sport")?.try_into().ok()?,
            dport: number(value, "dport")?.try_into().ok()?,
        })
    };
    Some(Installed {
        connection: text(value, "connection")?,
        spi_in: number(value, "in")?.try_into().ok()?,
        spi_out: number(value, "out")?.try_into().ok()?,
        local: text(value, "local")?.parse().ok()?,
        remote: text(value, "remote")?.parse().ok()?,
        flows: value.get("flows")?.as_array()?.iter().map(flow).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn some(spi_in: u32) -> Installed {
        let flow = Selector {
            src: "10.1.0.0/16".parse().unwrap(),
            dst: "2001:db8::/32".parse().unwrap(),
            proto: 6,
            sport: 0,
            dport: 443,
        };
        Installed {
            connection: "a/1x2".into(),
            spi_in,
            spi_out: u32::MAX,
            local: "192.0.2.1".parse().unwrap(),
            remote: "2001:db8::2".parse().unwrap(),
            flows: vec![flow],
        }
    }

    fn gone(pair: &Installed) -> Change<'_> {
        Change::Gone(pair.spi_in, pair.local)
    }

    #[test]
    fn what_is_written_is_read_and_nothing_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pluto.sas");
        let [one, two] = [some(0x1001), some(0x1002)];
        let mut journal = Journal::new(path.clone());
        journal.note(&[Change::Is(&one)], 1, || [&one].into_iter()).unwrap();
        assert_eq!(read(&path), std::slice::from_ref(&one));
        journal
            .note(&[Change::Is(&two)], 2, || -> std::slice::Iter<'_, Installed> { panic!("whole") })
            .unwrap();
        assert_eq!(read(&path), [one.clone(), two.clone()]);
        // Killed in the middle of a line.
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(read(&path), std::slice::from_ref(&one));
        // The next pluto begins with what it has read, and the torn line is not in its way.
        let mut journal = Journal::new(path.clone());
        journal.note(&[Change::Is(&two)], 2, || [&one, &two].into_iter()).unwrap();
        journal.note(&[gone(&one)], 1, || [&two].into_iter()).unwrap();
        assert_eq!(read(&path), std::slice::from_ref(&two));
        journal.note(&[gone(&two)], 0, || [].into_iter()).unwrap();
        assert!(!path.exists());
        journal.note(&[], 0, || [].into_iter()).unwrap();
        assert!(read(&path).is_empty());
    }

    #[test]
    fn a_change_is_one_line_and_what_has_gone_does_not_stay_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pluto.sas");
        let mut journal = Journal::new(path.clone());
        let mut pairs: Vec<Installed> = (0..1000).map(some).collect();
        journal.note(&[], pairs.len(), || pairs.iter()).unwrap();
        let length = || fs::metadata(&path).unwrap().size();
        let (whole, mut written) = (length(), 0);
        for n in 0..10_000_u32 {
            let before = length();
            let old = pairs.remove(0);
            pairs.push(some(1000 + n));
            let new = pairs.last().unwrap();
            journal.note(&[gone(&old), Change::Is(new)], pairs.len(), || pairs.iter()).unwrap();
            written += if length() >= before { length() - before } else { length() };
            assert!(length() < 3 * whole, "{}", length());
        }
        assert!(written < 10_000 * 2 * whole / 1000 * 2, "{written}");
        assert_eq!(read(&path), pairs);
    }

    /// `/dev/full` takes nothing.
    #[test]
    fn what_a_full_disk_refused_is_written_with_the_next_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pluto.sas");
        let pairs: Vec<Installed> = (0..4).map(some).collect();
        let [one, two, three, four] = &pairs[..] else { panic!() };
        let mut journal = Journal::new(path.clone());
        journal.note(&[Change::Is(one)], 1, || pairs[..1].iter()).unwrap();
        let room = journal.file.replace(OpenOptions::new().append(true).open("/dev/full").unwrap());
        assert!(journal.note(&[Change::Is(two)], 2, || pairs[..2].iter()).is_err());
        assert!(journal.note(&[gone(one)], 1, || pairs[1..2].iter()).is_err());
        assert_eq!(read(&path), std::slice::from_ref(one));
        // The last write was cut in the middle of a line.
        let mut torn = room.unwrap();
        torn.write_all(br#"{"connection":"a/1x2","in":4098,"#).unwrap();
        journal.file = Some(torn);
        journal.note(&[Change::Is(three), Change::Is(four)], 3, || pairs[1..].iter()).unwrap();
        assert_eq!(read(&path), pairs[1..]);
    }
}
