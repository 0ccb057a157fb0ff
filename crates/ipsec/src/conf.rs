//! ipsec.conf: one grammar that reads the files of FreeS/WAN 2, Openswan 2.4 and Openswan 2.6 / libreswan.
//!
//! ```text
//! file      := line*
//! line      := blank | comment | header | parameter
//! header    := "version" NUMBER | "config" "setup" | "conn" NAME | "include" PATTERN      in column one
//! parameter := WHITESPACE KEY "=" value                                                  belongs to the last section
//! value     := WORD | '"' any but '"' '"' | '{' any but '}' '}'                           blanks around "=" and value
//! comment   := "#" in column one, or white space and "#", to the end of the line; not within quotes
//! NAME      := letter (letter | digit | "." | "_" | "-")* | "%default"
//! ```
//!
//! * `version` may be left out; 2 and 2.0 are understood, version 1 files were another language and are refused.
//! * Empty lines and comments are allowed anywhere (2.4 ended a section at them). An `include` does end a section.
//! * `include` takes shell patterns with braces, relative to the file it stands in, ten deep; a file that is not there is a
//!   warning, a pattern that matches nothing is not: an empty directory of files is how it begins.
//! * Keys are read in either case. A key given twice in one section is a warning and the later value counts; an empty
//!   value is as if the line were not there; keys beginning with `x-` are for others and are skipped.
//! * `conn %default` may stand anywhere and be given in parts. `also=` and `alsoflip=` may be given several times, name
//!   sections before or after, and pull in what the section does not have itself; the first to supply a key wins.
//! * Everything wrong in all files is reported at once, each as `FILE:LINE: what [token]`; nothing is guessed.

mod conn;
pub mod connection;
pub mod files;
mod inside;
mod read;
pub mod secrets;
mod setup;
pub mod suite;
mod value;

pub use conn::{Conn, keys};
pub use setup::{Interface, Protostack, Setup};
pub use value::{flag, time};

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What ipsec.conf says.
#[derive(Clone, Debug)]
pub struct Conf {
    /// `config setup`, with defaults for what is not there.
    pub setup: Setup,
    /// The connections in the order of the file, `also=` and `%default` resolved.
    pub conns: Vec<Conn>,
    /// What was read but is probably not meant.
    pub warnings: Vec<Problem>,
}

/// Where something stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, as it was opened.
    pub file: Arc<Path>,
    /// The line, from 1.
    pub line: usize,
}

/// Something wrong, or suspicious, at a place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it is.
    pub at: Location,
    /// What it is.
    pub what: String,
}

impl Problem {
    fn new(at: &Location, what: impl Into<String>) -> Self {
        Self { at: at.clone(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.line {
            // The file as a whole.
            0 => write!(f, "{}: {}", self.at.file.display(), self.what),
            line => write!(f, "{}:{line}: {}", self.at.file.display(), self.what),
        }
    }
}

/// One `key=value` and where it stands; the key is in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, in lower case.
    pub key: String,
    /// The value without its quotes, never empty.
    pub value: String,
    /// Where it stands.
    pub at: Location,
}

impl Conf {
    /// Reads `ipsec.conf` below `confs` (see [`crate::rundir::confs`]).
    pub fn load(confs: &Path) -> Result<Self, Vec<Problem>> {
        Self::read(&confs.join("ipsec.conf"))
    }

    /// Reads the named file and what it includes.
    pub fn read(file: &Path) -> Result<Self, Vec<Problem>> {
        let mut reader = read::Reader::new(|path: &Path| std::fs::read(path), matching);
        reader.file(file, None);
        Self::from_sections(reader.finish())
    }

    /// Reads `text` as if it were the file `name`; an `include` finds nothing.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let mut reader = read::Reader::new(|_: &Path| Ok(text.as_bytes().to_vec()), |_: &Path| Vec::new());
        reader.file(Path::new(name), None);
        Self::from_sections(reader.finish())
    }

    /// The connection with this name.
    pub fn conn(&self, name: &str) -> Option<&Conn> {
        self.conns.iter().find(|conn| conn.name == name)
    }

    /// The file as it was understood, which read again is understood the same: includes, `also=` and defaults resolved, each
    /// value in quotes. Values of keys that `shown` does not want to be seen are left out.
    pub fn text(&self, shown: impl Fn(&str) -> bool) -> String {
        let mut text = String::from("config setup\n");
        let mut section = |header: &str, settings: &[Setting]| {
            text.push_str(header);
            for Setting { key, value, .. } in settings {
                text.push_str(&if !shown(key) {
                    format!("\t# {key} is left out\n")
                } else if value.contains('"') {
                    // It stood in braces, and has none itself.
                    format!("\t{key}={{{value}}}\n")
                } else {
                    format!("\t{key}=\"{value}\"\n")
                });
            }
        };
        section("", &self.setup.settings);
        for conn in &self.conns {
            section(&format!("\nconn {}\n", conn.name), &conn.settings);
        }
        text
    }

    fn from_sections(sections: read::Sections) -> Result<Self, Vec<Problem>> {
        let read::Sections { setup, defaults, conns, mut errors, mut warnings } = sections;
        let setup = Setup::from_settings(&setup, &mut errors, &mut warnings);
        let mut conns = conn::resolve(&defaults, &conns, &mut errors);
        // What one says for all of them; each may say otherwise.
        if let Some(unique) = setup.settings.iter().find(|setting| setting.key == "uniqueids") {
            let silent = |conn: &&mut Conn| {
                !["initial-contact", "initial_contact"].iter().any(|key| conn.get(key).is_some())
            };
            for conn in conns.iter_mut().filter(silent) {
                conn.settings.push(Setting { key: "initial-contact".to_owned(), ..unique.clone() });
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { setup, conns, warnings })
    }
}

/// Whether a name stands for any number of files, none included.
fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// The files a pattern stands for, in alphabetical order.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let Some(pattern) = pattern.to_str() else { return Vec::new() };
    glob::glob(pattern).map(|paths| paths.filter_map(Result::ok).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
