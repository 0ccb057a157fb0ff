//! From lines to sections.

use super::value::braces;
use super::{Location, Problem, Setting};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files within files within files.
const MAX_DEPTH: usize = 10;
/// Files altogether: a few that include each other by pattern would otherwise be read billions of times.
const MAX_FILES: usize = 1_000;

/// Everything read, nothing interpreted.
#[derive(Debug, Default)]
pub(super) struct Sections {
    pub(super) setup: Vec<Setting>,
    pub(super) defaults: Vec<Setting>,
    pub(super) conns: Vec<Section>,
    pub(super) errors: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// One `conn` as it stands in the file.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) at: Location,
    pub(super) settings: Vec<Setting>,
}

/// Which section the parameters belong to now.
#[derive(Clone, Copy)]
enum Current {
    Nothing,
    /// A section whose header was refused: its parameters are part of the same mistake.
    Refused,
    Setup,
    Defaults,
    Conn(usize),
}

pub(super) struct Reader<R, M> {
    sections: Sections,
    current: Current,
    depth: usize,
    files: usize,
    open: R,
    matching: M,
}

impl<R: Fn(&Path) -> io::Result<Vec<u8>>, M: Fn(&Path) -> Vec<PathBuf>> Reader<R, M> {
    pub(super) fn new(open: R, matching: M) -> Self {
        Self { sections: Sections::default(), current: Current::Nothing, depth: 0, files: 0, open, matching }
    }

    pub(super) fn finish(self) -> Sections {
        self.sections
    }

    /// Reads a file; `from` is the line that included it.
    pub(super) fn file(&mut self, path: &Path, from: Option<&Location>) {
        let file: Arc<Path> = path.into();
        let here = |line| Location { file: file.clone(), line };
        let complain_at = from.cloned().unwrap_or_else(|| here(0));
        let octets = match (self.open)(path) {
            Ok(octets) => octets,
            Err(error) => {
                return self.error(&complain_at, format!("cannot read file: {error} [{}]", path.display()));
            }
        };
        let Ok(text) = String::from_utf8(octets) else {
            return self.error(&complain_at, format!("file is not text in UTF-8 [{}]", path.display()));
        };
        for (index, line) in text.lines().enumerate() {
            self.line(line, &here(index + 1));
        }
    }

    fn line(&mut self, line: &str, at: &Location) {
        if let Some(c) = line.chars().find(|&c| c.is_control() && c != '\t' && c != '\r') {
            return self.error(at, format!("line contains unprintable character [U+{:04X}]", u32::from(c)));
        }
        let indented = line.starts_with(char::is_whitespace);
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            return;
        }
        if indented { self.parameter(text, at) } else { self.header(text, at) }
    }

    fn header(&mut self, text: &str, at: &Location) {
        let words: Vec<&str> = text.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        self.current = Current::Refused;
        match words[..] {
            ["version", "2" | "2.0"] => self.current = Current::Nothing,
            ["version", other] => {
                self.error(at, format!("only version 2.0 of this file is supported [{other}]"));
            }
            ["config", "setup"] => self.current = Current::Setup,
            ["config", other] => self.error(at, format!("unknown config section [{other}]")),
            ["conn", "%default"] => self.current = Current::Defaults,
            ["conn", name] => self.conn(name, at),
            ["include", pattern] => self.include(pattern.trim_matches('"'), at),
            ["version" | "config" | "conn" | "include", ..] => {
                self.error(
                    at,
                    format!("section header has wrong number of fields, {} [{text}]", words.len()),
                );
            }
            [word, ..] if word.contains('=') => {
                self.error(at, format!("a parameter must be indented [{word}]"));
            }
            [word, ..] => self.error(at, format!("section type not recognized [{word}]")),
            [] => {}
        }
    }

    fn conn(&mut self, name: &str, at: &Location) {
        let rest_ok = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(rest_ok) {
            return self.error(at, format!("invalid section name [{name}]"));
        }
        if let Some(first) = self.sections.conns.iter().find(|conn| conn.name == name) {
            let first = &first.at;
            let what =
                format!("duplicate conn section, first at {}:{} [{name}]", first.file.display(), first.line);
            return self.error(at, what);
        }
        self.current = Current::Conn(self.sections.conns.len());
        self.sections.conns.push(Section { name: name.to_owned(), at: at.clone(), settings: Vec::new() });
    }

    fn include(&mut self, pattern: &str, at: &Location) {
        self.current = Current::Nothing;
        if self.depth == MAX_DEPTH {
            return self.error(at, format!("max inclusion depth reached [{pattern}]"));
        }
        // The directory is a name, only what is written here is a pattern.
        let base = at.file.parent().map_or("".into(), Path::to_string_lossy);
        let base = PathBuf::from(glob::Pattern::escape(&base));
        let paths = braces(pattern).into_iter().flat_map(|pattern| (self.matching)(&base.join(pattern)));
        let paths: Vec<PathBuf> = paths.collect();
        if paths.is_empty() && !super::is_pattern(pattern) {
            self.warning(at, format!("no such file to include [{pattern}]"));
        }
        self.depth += 1;
        for path in paths {
            self.files += 1;
            if self.files > MAX_FILES {
                self.error(at, format!("too many files are included [{pattern}]"));
                break;
            }
            self.file(&path, Some(at));
            self.current = Current::Nothing;
        }
        self.depth -= 1;
    }

    fn parameter(&mut self, text: &str, at: &Location) {
        let Some((key, value)) = text.split_once('=') else {
            return self.error(at, format!("parameter without = [{text}]"));
        };
        let key = key.trim_end().to_ascii_lowercase();
        let well_formed = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if key.is_empty() || !key.chars().all(well_formed) {
            return self.error(at, format!("this is no parameter name [{key}]"));
        }
        let value = match unquoted(value) {
            Ok(value) => value,
            Err(what) => return self.error(at, format!("{what} [{key}]")),
        };
        let section = match self.current {
            Current::Refused => return,
            Current::Nothing => return self.error(at, format!("parameter is not within a section [{key}]")),
            Current::Setup => &mut self.sections.setup,
            Current::Defaults => &mut self.sections.defaults,
            Current::Conn(index) => match self.sections.conns.get_mut(index) {
                Some(conn) => &mut conn.settings,
                None => return,
            },
        };
        if value.is_empty() || key.starts_with("x-") {
            return;
        }
        let setting = Setting { key, value: value.to_owned(), at: at.clone() };
        let repeatable = ["also", "alsoflip"].contains(&setting.key.as_str());
        let Some(earlier) = section.iter_mut().find(|earlier| !repeatable && earlier.key == setting.key)
        else {
            section.push(setting);
            return;
        };
        let what =
            format!("duplicated parameter, this value counts and not that of line {}", earlier.at.line);
        let problem = Problem::new(at, format!("{what} [{}]", setting.key));
        *earlier = setting;
        self.sections.warnings.push(problem);
    }

    fn error(&mut self, at: &Location, what: String) {
        self.sections.errors.push(Problem::new(at, what));
    }

    fn warning(&mut self, at: &Location, what: String) {
        self.sections.warnings.push(Problem::new(at, what));
    }
}

/// What follows the `=`, without quotes and without the comment behind it.
fn unquoted(raw: &str) -> Result<&str, &'static str> {
    let text = raw.trim_start();
    let closing = match text.chars().next() {
        Some('"') => '"',
        Some('{') => '}',
        _ => {
            // `left=a#b` and `left=#b` are data; a comment has white space before it.
            let comment =
                raw.char_indices().find(|&(at, c)| c == '#' && raw[..at].ends_with(char::is_whitespace));
            let value = raw[..comment.map_or(raw.len(), |(at, _)| at)].trim();
            return if value.contains('"') {
                Err("mismatched quotes in parameter value")
            } else if value.contains(char::is_whitespace) {
                Err("white space within non-quoted parameter")
            } else {
                Ok(value)
            };
        }
    };
    let Some((value, rest)) = text[1..].split_once(closing) else {
        return Err("mismatched quotes in parameter value");
    };
    let comment = rest.starts_with(char::is_whitespace) && rest.trim_start().starts_with('#');
    if comment || rest.trim().is_empty() {
        Ok(value.trim())
    } else {
        Err("mismatched quotes in parameter value")
    }
}
