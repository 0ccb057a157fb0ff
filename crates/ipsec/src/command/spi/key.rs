//! Keys as people write them, and from where they need not be seen.

use super::Usage;
use crate::print;
use base64ct::{Base64, Encoding};
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::MetadataExt;
use zeroize::Zeroizing;

/// Longer than any key in text; a file that goes on is not a key file.
const MAX_FILE: u64 = 4096;

/// A key, or where to find it, as it was typed; `Debug` does not show it.
#[derive(Clone)]
pub struct KeyText(Zeroizing<String>);

impl From<String> for KeyText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl core::fmt::Debug for KeyText {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "KeyText({} characters)", self.0.len())
    }
}

/// The key an option gives, by value, `-`, `@FILE` or by its file option; empty if there is none.
pub(super) fn take(
    option: &str,
    value: Option<&KeyText>,
    file: Option<&str>,
) -> Result<Zeroizing<Vec<u8>>, Usage> {
    let value = value.map(|text| text.0.as_str());
    let said = |why: &str| Usage::new(format_args!("{option}: {why}"));
    let file = file.or_else(|| value.and_then(|value| value.strip_prefix('@')));
    let text = match (file, value) {
        (Some("-"), _) | (None, Some("-")) => {
            line(&mut io::stdin().lock()).map_err(|why| said(&why.to_string()))?
        }
        (Some(path), _) => from_file(path).map_err(|why| said(&format!("{path}: {why}")))?,
        (None, Some(value)) => Zeroizing::new(value.to_owned()),
        (None, None) => return Ok(Zeroizing::default()),
    };
    decode(&text).map_err(said)
}

/// A key that is written out.
pub(in crate::command) fn value(text: &KeyText) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    decode(&text.0)
}

/// Complains about a key of a wrong length, and about one that nothing needs; `for_what` has the valid lengths, of which
/// `salt` octets are not key.
pub(super) fn check(
    option: &str,
    for_what: Option<(&str, Vec<usize>)>,
    salt: usize,
    key: &[u8],
) -> Result<(), Usage> {
    let (name, lengths) = for_what.unwrap_or(("this SA", vec![0]));
    if lengths.contains(&key.len()) {
        return Ok(());
    }
    Err(Usage::new(match (&lengths[..], key.len()) {
        ([0], _) => format!("{name} takes no {option}"),
        (_, 0) => format!("{name} needs {option}"),
        (lengths, len) => {
            let all: Vec<String> = lengths.iter().map(ToString::to_string).collect();
            let salt =
                if salt == 0 { String::new() } else { format!(", of which the last {salt} are the salt") };
            format!("{option} has {len} octets, {name} takes {}{salt}", all.join(", "))
        }
    }))
}

fn from_file(path: &str) -> io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        print::complain(format_args!("warning: others can read the key in {path}; chmod 600 it"));
    }
    line(&mut io::BufReader::new(file))
}

/// One line, so that two keys can come through one pipe.
fn line(from: &mut impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize));
    from.by_ref().take(MAX_FILE).read_line(&mut text)?;
    Ok(text)
}

/// `0x` hexadecimal (with `_` between digits if you like), `0s` base64, `0t` text.
fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let text = text.trim();
    let (form, digits) = text.split_at_checked(2).unwrap_or((text, ""));
    if digits.is_empty() {
        return Err("no key there; write 0x and hexadecimal, 0s and base64 or 0t and text");
    }
    match form {
        "0x" | "0X" => {
            let digits = Zeroizing::new(digits.replace('_', ""));
            hex::decode(&*digits).map(Zeroizing::new).map_err(|_| "not an even number of hexadecimal digits")
        }
        "0s" => Base64::decode_vec(digits).map(Zeroizing::new).map_err(|_| "not base64"),
        "0t" => Ok(Zeroizing::new(digits.as_bytes().to_vec())),
        _ => Err("key must begin with 0x (hexadecimal), 0s (base64) or 0t (text)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn three_forms() {
        let octets = |text| decode(text).map(|key| key.to_vec());
        assert_eq!(octets("0x00ffA0"), Ok(vec![0, 0xff, 0xa0]));
        assert_eq!(octets("0x0011_2233\n"), Ok(vec![0, 0x11, 0x22, 0x33]));
        assert_eq!(octets("0sAP+g"), Ok(vec![0, 0xff, 0xa0]));
        assert_eq!(octets("0tsecret"), Ok(b"secret".to_vec()));
        for wrong in ["", "0x", "0x1", "0xgg", "0s!", "0sAP+", "secret", "12", "0t", "é"] {
            assert!(octets(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_keys_come_through_one_pipe() {
        let mut pipe = &b"0x01\n0x02\n"[..];
        assert_eq!(decode(&line(&mut pipe).unwrap()).unwrap()[..], [1]);
        assert_eq!(decode(&line(&mut pipe).unwrap()).unwrap()[..], [2]);
        assert!(decode(&line(&mut pipe).unwrap()).is_err());
    }

    #[test]
    fn keys_come_from_files() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "0xabcd").unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(take("--enckey", Some(&format!("@{path}").into()), None).unwrap()[..], [0xab, 0xcd]);
        assert_eq!(take("--enckey", None, Some(path)).unwrap()[..], [0xab, 0xcd]);
        let missing =
            take("--enckey", Some(&"@/nonexistent/key".to_owned().into()), None).unwrap_err().to_string();
        assert!(missing.starts_with("--enckey: /nonexistent/key: "), "{missing}");
        assert!(take("--enckey", None, None).unwrap().is_empty());
    }
}
