//! `--optionsfrom FILE`: more arguments, from a file, in its place; for what should not stand on a command line.
//!
//! The format is that of optionsfrom(3): a line that begins with `--` is an option and, after white space, its argument;
//! any other line is one argument. Quotes around an argument keep its blanks. Empty lines and lines that begin with `#`
//! are nothing.

use super::Failure;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

/// Files within files within files.
const MAX_DEPTH: usize = 10;

/// The arguments with every `--optionsfrom FILE` replaced by what the file says.
pub fn expand(arguments: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    within(arguments, 0)
}

fn within(arguments: Vec<OsString>, depth: usize) -> Result<Vec<OsString>, Failure> {
    let mut all = Vec::with_capacity(arguments.len());
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let file = match argument.to_str() {
            // What follows is not ours to read.
            Some("--") => {
                all.push(argument);
                all.extend(rest);
                return Ok(all);
            }
            Some("--optionsfrom") => rest.next().ok_or_else(|| Failure::new("--optionsfrom needs a file"))?,
            Some(text) if text.starts_with("--optionsfrom=") => {
                text.trim_start_matches("--optionsfrom=").into()
            }
            _ => {
                all.push(argument);
                continue;
            }
        };
        let refuse = |why: &dyn core::fmt::Display| {
            Failure::new(format_args!("--optionsfrom {}: {why}", Path::new(&file).display()))
        };
        if depth == MAX_DEPTH {
            return Err(refuse(&"files that name each other"));
        }
        let text = fs::read_to_string(&file).map_err(|error| refuse(&error))?;
        all.extend(within(words(&text).map_err(|line| refuse(&line))?, depth + 1)?);
    }
    Ok(all)
}

fn words(text: &str) -> Result<Vec<OsString>, String> {
    let mut all = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let argument = if line.starts_with("--") {
            let (option, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            all.push(OsString::from(option));
            argument.trim_start()
        } else {
            line
        };
        let unquoted = match argument.strip_prefix('"') {
            Some(rest) => {
                rest.strip_suffix('"').ok_or_else(|| format!("line {number}: quote does not end"))?
            }
            None => argument,
        };
        if !argument.is_empty() {
            all.push(OsStr::new(unquoted).to_owned());
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(words: &[&str]) -> Result<Vec<String>, String> {
        let all =
            expand(words.iter().map(OsString::from).collect()).map_err(|failure| failure.to_string())?;
        Ok(all.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn a_file_stands_for_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::write(
            path("a"),
            format!("# keys\n\n--enckey  0x12\n  --label \"a b\"\nword\n--optionsfrom {}\n", path("b")),
        )
        .unwrap();
        fs::write(path("b"), "--esn").unwrap();
        let expected =
            ["spi", "--enckey", "0x12", "--label", "a b", "word", "--esn", "--json"].map(String::from);
        assert_eq!(expanded(&["spi", "--optionsfrom", &path("a"), "--json"]).unwrap(), expected);
        assert_eq!(expanded(&["spi", &format!("--optionsfrom={}", path("a")), "--json"]).unwrap(), expected);
    }

    #[test]
    fn files_that_cannot_be_meant_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("loop"), format!("--optionsfrom {}\n", path("loop"))).unwrap();
        fs::write(path("open"), "--label \"a\n").unwrap();
        assert!(expanded(&["--optionsfrom", &path("loop")]).unwrap_err().contains("name each other"));
        assert!(expanded(&["--optionsfrom", &path("open")]).unwrap_err().contains("line 1: quote"));
        assert!(expanded(&["--optionsfrom", &path("none")]).unwrap_err().contains("none: No such file"));
        assert_eq!(expanded(&["--optionsfrom"]).unwrap_err(), "--optionsfrom needs a file");
        assert_eq!(expanded(&["--", "--optionsfrom", "x"]).unwrap().len(), 3);
    }
}
