//! What the supervisor has done, written down for `ipsec setup status`.

use crate::host::clock::wall;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// One daemon's lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Record {
    /// How often it died.
    pub(in super::super) deaths: u64,
    /// When it last did, in seconds since 1970.
    pub(in super::super) died: Option<u64>,
    /// When it is to be started again, in seconds since 1970; `None` while it runs.
    pub(in super::super) due: Option<u64>,
    /// Why the last try failed.
    pub(in super::super) why: Option<String>,
}

/// What the file says: a record for each daemon by its name.
pub(in super::super) type Said = BTreeMap<String, Record>;

impl Record {
    pub(super) fn died(&mut self, delay: Duration) {
        self.deaths = self.deaths.saturating_add(1);
        self.died = Some(wall());
        self.due = Some(wall().saturating_add(delay.as_secs()));
    }

    pub(super) fn failed(&mut self, why: &str, delay: Duration) {
        self.why = Some(why.to_owned());
        self.due = Some(wall().saturating_add(delay.as_secs()));
    }

    pub(super) fn started(&mut self) {
        (self.due, self.why) = (None, None);
    }

    /// In how many seconds it is to be started.
    pub(in super::super) fn wait(&self) -> Option<u64> {
        self.due.map(|due| due.saturating_sub(wall()))
    }

    /// Reads the file; a missing or broken one says nothing.
    pub(in super::super) fn read(path: &Path) -> Said {
        fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

/// Writes the file, whole or not at all.
pub(super) fn write<'r>(
    path: &Path,
    records: impl Iterator<Item = (&'static str, &'r Record)>,
) -> io::Result<()> {
    let all: BTreeMap<&str, &Record> = records.collect();
    let new = path.with_extension("json.new");
    fs::write(&new, format!("{}\n", serde_json::to_string(&all).map_err(io::Error::other)?))?;
    fs::rename(new, path)
}
