//! ipsec.secrets: who shares which secret with whom (ipsec.secrets(5)).
//!
//! ```text
//! file  := entry | "include" PATTERN                              in column one; `#' begins a comment
//! entry := ID* ":" "PSK" key                                      goes on in lines that are indented
//! ID    := address | "@" name | user "@" host | name | "%any" | "%any6"
//!        | NAME ":" "EAP" key                                      a user's password
//!        | ID* ":" "PPKS" NAME key                                  a post-quantum preshared key (RFC 8784)
//!        | NAME ":" "PPK" key                                      the same, for whoever names it
//!        | ID* ":" ("RSA" | "ECDSA" | "ED25519" | "PKCS8") FILE    a private key, below ipsec.d/private
//! key   := '"' characters '"' | "0x" hex | "0s" base64
//! ```
//!
//! A private key that cannot be used is a warning, for others may not need it. Secrets of other types are read and passed
//! over with a warning. Whatever is wrong is said with file and line, and never
//! with a secret.

use super::connection::Planned;
use super::{Location, Problem, files, matching};
use base64ct::{Base64, Encoding};
use ike::connection::{Psk, Secrets};
use ike::credential::LocalAuth;
use ike::eap::EapSecret;
use ike::event::Why;
use ike::identity::{Id, IdPattern};
use ike::ppk::Ppk;
use ipsec_core::Secret;
use ipsec_core::mschap::PasswordHash;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// What is as strong against Grover's search as AES-128 against any other (RFC 8784 §6).
const PPK_OCTETS: usize = 32;
/// What stands in the examples where a secret has to be. Everybody knows it.
const PLACEHOLDER: &str = "put the output of ipsec ranbits here";
/// Files within files.
const MAX_DEPTH: usize = 10;

/// What was read, and what of it is probably not meant.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The secrets.
    pub secrets: Secrets,
    /// What was passed over.
    pub warnings: Vec<Problem>,
}

/// Reads a file and what it includes. A file that is not there holds no secrets.
pub fn read(file: &Path) -> Result<Loaded, Vec<Problem>> {
    let confs = file.parent().unwrap_or(Path::new(".")).to_path_buf();
    let mut reader = Reader { confs, out: Loaded::default(), errors: Vec::new() };
    if file.exists() {
        reader.file(file, 0);
    } else {
        let at = Location { file: file.into(), line: 0 };
        reader.out.warnings.push(Problem::new(&at, "there is no such file: no secrets are known"));
    }
    if reader.errors.is_empty() { Ok(reader.out) } else { Err(reader.errors) }
}

/// The secrets that connections need and that are not there, in the words of a connection that fails for it.
pub fn missing<'p>(secrets: &Secrets, planned: impl IntoIterator<Item = &'p Planned>) -> Vec<String> {
    let mut all = Vec::new();
    for connection in planned.into_iter().map(|planned| &planned.ike) {
        let (local, peer) = (&connection.local_id, &connection.remote_id);
        let LocalAuth::SharedKey = connection.local_auth else { continue };
        let there = match peer {
            IdPattern::Exactly(peer) => secrets.psk(local, peer).is_some(),
            // Who it will be is not known yet: one secret may be its.
            IdPattern::Below(_) | IdPattern::At(_) | IdPattern::Like(_) | IdPattern::Any => {
                !secrets.psks.is_empty()
            }
        };
        if !there {
            let why = Why::NoSecret(local.to_string(), peer.to_string());
            let line = format!("\"{}\": {why}", connection.name);
            if !all.contains(&line) {
                all.push(line);
            }
        }
    }
    all
}

struct Reader {
    /// The directory that has `ipsec.d`.
    confs: PathBuf,
    out: Loaded,
    errors: Vec<Problem>,
}

impl Reader {
    fn file(&mut self, path: &Path, depth: usize) {
        let file: Arc<Path> = path.into();
        let whole = Location { file: file.clone(), line: 0 };
        let text = match text_of(path) {
            Ok(text) => text,
            Err(why) => return self.errors.push(Problem::new(&whole, why)),
        };
        let mut entry: Option<(usize, Zeroizing<String>)> = None;
        for (n, line) in (1..).zip(text.lines()) {
            let bare = line.trim();
            if bare.is_empty() || bare.starts_with('#') {
                continue;
            }
            if line.starts_with(char::is_whitespace) {
                match &mut entry {
                    Some((_, so_far)) => {
                        so_far.push(' ');
                        so_far.push_str(bare);
                    }
                    None => {
                        let at = Location { file: file.clone(), line: n };
                        self.errors.push(Problem::new(&at, "an entry begins in column one"));
                    }
                }
                continue;
            }
            if let Some((at, text)) = entry.take() {
                self.entry(&text, &Location { file: file.clone(), line: at });
            }
            if let Some(pattern) =
                bare.strip_prefix("include").filter(|rest| rest.starts_with(char::is_whitespace))
            {
                self.include(pattern.trim(), depth, &Location { file: file.clone(), line: n });
            } else {
                entry = Some((n, Zeroizing::new(bare.to_owned())));
            }
        }
        if let Some((at, text)) = entry {
            self.entry(&text, &Location { file, line: at });
        }
    }

    fn include(&mut self, pattern: &str, depth: usize, at: &Location) {
        if depth >= MAX_DEPTH {
            return self.errors.push(Problem::new(at, format!("max inclusion depth reached [{pattern}]")));
        }
        let pattern = pattern.trim_matches('"');
        let base = at.file.parent().map_or("".into(), Path::to_string_lossy);
        let found = matching(&PathBuf::from(glob::Pattern::escape(&base)).join(pattern));
        if found.is_empty() && !super::is_pattern(pattern) {
            self.out.warnings.push(Problem::new(at, format!("no such file to include [{pattern}]")));
        }
        found.iter().for_each(|file| self.file(file, depth + 1));
    }

    fn entry(&mut self, text: &str, at: &Location) {
        match entry(text) {
            Ok(Entry::Psk(psk)) => self.out.secrets.psks.push(psk),
            Ok(Entry::Eap(user)) => self.out.secrets.eap.push(user),
            Ok(Entry::Ppk(ppk)) => {
                if ppk.key.len() < PPK_OCTETS {
                    let why = format!(
                        "a post-quantum preshared key that is shorter than {PPK_OCTETS} octets can be guessed: take more, from `ipsec ranbits 256'"
                    );
                    self.out.warnings.push(Problem::new(at, why));
                }
                self.out.secrets.ppks.push(ppk);
            }
            Ok(Entry::Key(name)) => match files::private_key(&self.confs, &name) {
                Ok(key) => self.out.secrets.keys.push(Arc::new(key)),
                Err(why) => self.out.warnings.push(Problem::new(at, why)),
            },
            Ok(Entry::Other(kind)) => self
                .out
                .warnings
                .push(Problem::new(at, format!("secrets of this type are not used [{kind}]"))),
            Err(why) => self.errors.push(Problem::new(at, why)),
        }
    }
}

/// The text of a file that others cannot read.
fn text_of(path: &Path) -> Result<Zeroizing<String>, String> {
    let octets = files::secret(path)?;
    let text = std::str::from_utf8(&octets).map_err(|_| "file is not text in UTF-8".to_owned())?;
    Ok(Zeroizing::new(text.to_owned()))
}

enum Entry {
    Psk(Psk),
    /// A user of EAP.
    Eap(EapSecret),
    Ppk(Ppk),
    /// The file of a private key.
    Key(String),
    Other(String),
}

fn entry(text: &str) -> Result<Entry, String> {
    let (ids, rest) = index(text)?;
    let rest = rest.trim_start();
    let (kind, rest) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
    match kind.to_ascii_uppercase().as_str() {
        "PSK" => {
            let ids = ids.iter().map(|id| pattern(id)).collect::<Result<_, _>>()?;
            Ok(Entry::Psk(Psk { ids, key: key(rest.trim())? }))
        }
        "EAP" => match ids.as_slice() {
            [user] => {
                let password = key(rest.trim())?;
                let password = std::str::from_utf8(&password).map_err(|_| "a password is text".to_owned())?;
                let user = user.trim_matches('"').to_owned();
                Ok(Entry::Eap(EapSecret { user, password: PasswordHash::of(password) }))
            }
            _ => Err("a password is one user's: `NAME : EAP \"...\"'".to_owned()),
        },
        "RSA" | "ECDSA" | "ED25519" | "PKCS8" => key_file(rest.trim()).map(Entry::Key),
        "PPKS" => {
            let ends = ids.iter().map(|id| pattern(id)).collect::<Result<_, _>>()?;
            let (name, secret) = word(rest.trim())?;
            Ok(Entry::Ppk(Ppk { id: ppk_name(name)?, ends, key: key(secret.trim())? }))
        }
        "PPK" => match ids.as_slice() {
            [name] => {
                let name = name.trim_matches('"');
                Ok(Entry::Ppk(Ppk { id: ppk_name(name)?, ends: Vec::new(), key: key(rest.trim())? }))
            }
            _ => Err("a post-quantum preshared key has one name: `NAME : PPK \"...\"', or `ID ID : PPKS \"NAME\" \"...\"'".to_owned()),
        },
        kind @ ("XAUTH" | "NTLM" | "PIN" | "PPKF" | "P12" | "BLISS") => Ok(Entry::Other(kind.to_owned())),
        "" => Err("the type of the secret is missing after `:': write PSK".to_owned()),
        // What stands there may be a secret whose type was forgotten.
        _ => Err("unknown type of secret after `:': write PSK".to_owned()),
    }
}

/// The name of a post-quantum preshared key: it goes over the wire.
fn ppk_name(name: &str) -> Result<Vec<u8>, String> {
    match name.len() {
        1..=255 => Ok(name.as_bytes().to_vec()),
        _ => Err("the name of a post-quantum preshared key is 1 to 255 octets long".to_owned()),
    }
}

/// The first word, in double quotes or not, and what stands behind it.
fn word(text: &str) -> Result<(&str, &str), String> {
    match text.strip_prefix('"') {
        Some(rest) => {
            rest.split_once('"').ok_or_else(|| "the quote before the name is not closed".to_owned())
        }
        None => Ok(text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))),
    }
}

/// The words before the colon that stands alone or ends a word; IPv6 addresses have colons of their own.
fn index(text: &str) -> Result<(Vec<&str>, &str), String> {
    let mut ids = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if let Some(kind) =
            word.strip_prefix(':').filter(|kind| kind.is_empty() || kind.starts_with(char::is_alphabetic))
            && word.parse::<core::net::IpAddr>().is_err()
        {
            let from = text.len() - rest.len() + word.len() - kind.len();
            return Ok((ids, text.get(from..).unwrap_or_default()));
        }
        if let Some(id) = word.strip_suffix(':').filter(|_| word.parse::<core::net::IpAddr>().is_err()) {
            ids.push(id);
            return Ok((ids, after));
        }
        ids.push(word);
        rest = after.trim_start();
    }
    Err("an entry is `ID ID : PSK \"secret\"', and there is no `:'".to_owned())
}

/// The name of a private key's file; the whole rest of the entry.
fn key_file(text: &str) -> Result<String, String> {
    if text.starts_with('{') {
        return Err("a key that stands in this file itself is not read: put it into a file below ipsec.d/private, PKCS#8 or PKCS#1 in PEM, and write its name".to_owned());
    }
    let text = text.split(" #").next().unwrap_or(text).trim();
    let (name, rest) = match text.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
        Some((name, rest)) => (name, rest),
        None => text.split_at(text.find(char::is_whitespace).unwrap_or(text.len())),
    };
    match (name, rest.trim()) {
        ("", _) => Err("the file of the key is missing: `: RSA FILE', below ipsec.d/private".to_owned()),
        (name, "") => Ok(name.to_owned()),
        _ => Err("keys with a passphrase are not read: `openssl pkey -in FILE -out FILE' takes it away, and mode 0600 guards the file".to_owned()),
    }
}

fn pattern(text: &str) -> Result<IdPattern, String> {
    match text {
        "%any" | "%any6" | "0.0.0.0" | "::" | "*" => Ok(IdPattern::Any),
        text => Id::parse(text).map(IdPattern::Exactly),
    }
}

fn key(text: &str) -> Result<Secret, String> {
    let ends_well = |rest: &str| rest.trim().is_empty() || rest.trim_start().starts_with('#');
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            return match inner.split_once(quote) {
                Some(("", _)) => Err("the secret is empty".to_owned()),
                Some((PLACEHOLDER, _)) => Err(
                    "this is the secret of the examples, which everybody knows: put the output of `ipsec ranbits --continuous 256' in its place, on both sides".to_owned(),
                ),
                Some((secret, rest)) if ends_well(rest) => Ok(Secret::from(secret.as_bytes())),
                Some(_) => Err("something stands behind the secret's closing quote".to_owned()),
                None => Err("the quote before the secret is not closed".to_owned()),
            };
        }
    }
    let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    if word.is_empty() {
        return Err("the secret is missing at the end of the entry".to_owned());
    }
    if !ends_well(rest) {
        return Err("a secret with blanks stands in double quotes".to_owned());
    }
    let octets = if let Some(hex) = word.strip_prefix("0x") {
        hex::decode(hex.replace('_', "")).map_err(|_| "the secret after 0x is not hexadecimal".to_owned())?
    } else if let Some(coded) = word.strip_prefix("0s") {
        Base64::decode_vec(coded).map_err(|_| "the secret after 0s is not base64".to_owned())?
    } else {
        return Err("a secret is in double quotes, or begins with 0x (hexadecimal) or 0s (base64)".to_owned());
    };
    if octets.is_empty() {
        return Err("the secret is empty".to_owned());
    }
    Ok(Secret::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_the_examples_is_none() {
        for behind in ["", " # ours"] {
            let why = entry(&format!("@a @b : PSK \"{PLACEHOLDER}\"{behind}")).err();
            assert!(why.is_some_and(|why| why.contains("everybody knows") && why.contains("ipsec ranbits")));
        }
        assert!(entry("@a @b : PSK \"put the output of ipsec ranbits here!\"").is_ok());
    }
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn write(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn read_text(text: &str) -> Result<Loaded, Vec<Problem>> {
        let dir = tempfile::tempdir().unwrap();
        read(&write(dir.path(), "s", text, 0o600))
    }

    #[test]
    fn entries_are_read_as_they_have_always_been_written() {
        let text = "\
# comment
192.0.2.1 198.51.100.7 : PSK \"both ends # not a comment\" # comment
@west @east: PSK 0x6b6579
2001:db8::1 2001:db8::2 : PSK 0sa2V5
: PSK 'for everybody'
%any road@example.org
\t: PSK \"continued\"
west.example.org :PSK \"tight\"
: RSA west.pem
: ECDSA \"west.key\" # comment
";
        let read = read_text(text).unwrap();
        let keys: Vec<String> =
            read.secrets.psks.iter().map(|psk| String::from_utf8(psk.key.to_vec()).unwrap()).collect();
        assert_eq!(keys, ["both ends # not a comment", "key", "key", "for everybody", "continued", "tight"]);
        let ids: Vec<usize> = read.secrets.psks.iter().map(|psk| psk.ids.len()).collect();
        assert_eq!(ids, [2, 2, 2, 0, 2, 1]);
        // The keys are not there; who does not need them is none the worse.
        let said: Vec<String> = read.warnings.iter().map(ToString::to_string).collect();
        assert!(
            said.len() == 2
                && said[0].contains(":9: there is no file")
                && said[1].contains("private/west.key"),
            "{said:?}"
        );
    }

    #[test]
    fn post_quantum_preshared_keys_have_a_name_and_those_they_are_for() {
        let text = "\
@west @east : PPKS \"first one\" 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
: PPKS second \"0123456789abcdef0123456789abcdef\"
third : PPK \"too short\"
";
        let read = read_text(text).unwrap();
        let all: Vec<(&[u8], usize, usize)> =
            read.secrets.ppks.iter().map(|ppk| (&*ppk.id, ppk.ends.len(), ppk.key.len())).collect();
        assert_eq!(all, [(&b"first one"[..], 2, 32), (b"second", 0, 32), (b"third", 0, 9)]);
        let said: Vec<String> = read.warnings.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains(":3: ") && said[0].contains("ranbits"), "{said:?}");
        assert!(read.secrets.psks.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_the_secret() {
        for (text, line, what) in [
            ("\n@a @b PSK \"hush\"", 2, "no `:'"),
            ("@a : PSK hush", 1, "double quotes"),
            ("@a : PSK \"hush", 1, "not closed"),
            ("@a : \"hush\"", 1, "unknown type"),
            ("@a : PSK 0xhush", 1, "not hexadecimal"),
            ("@a : PSK", 1, "missing"),
            ("@a : PSK \"\"", 1, "empty"),
            (" : PSK \"hush\"", 1, "column one"),
            ("@ : PSK \"hush\"", 1, ""),
            (": RSA", 1, "missing"),
            ("@a @b : PPK \"hush\"", 1, "one name"),
            (": PPKS \"n hush", 1, "not closed"),
            (": PPKS n", 1, "missing"),
            (": PPKS \"\" \"hush\"", 1, "1 to 255"),
            (": RSA {", 1, "put it into a file"),
            (": RSA a.pem \"hush\"", 1, "passphrase"),
        ] {
            let problems = read_text(text).unwrap_err();
            let said = problems[0].to_string();
            assert!(said.contains(&format!(":{line}: ")) && said.contains(what), "{text:?}: {said}");
            assert!(!said.contains("hush"), "{said}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o640, 0o604, 0o660] {
            let path = write(dir.path(), "s", ": PSK \"x\"", mode);
            let said = read(&path).unwrap_err()[0].to_string();
            assert!(said.contains("chmod 600"), "{mode:o}: {said}");
        }
        // What is included is held to the same.
        write(dir.path(), "more", ": PSK \"x\"", 0o644);
        assert!(read(&write(dir.path(), "s", "include mor?", 0o600)).is_err());
        write(dir.path(), "more", ": PSK \"x\"", 0o600);
        assert_eq!(read(&write(dir.path(), "s", "include mor?", 0o600)).unwrap().secrets.psks.len(), 1);
        write(dir.path(), "loop", "include loop", 0o600);
        assert!(read(&dir.path().join("loop")).is_err());
    }
}
