//! Which peer was given which address, written down for the pluto after this one: a peer gets the address it had. One JSON
//! object per line; a later line about an address is the one that counts.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// More addresses than the engine remembers for peers that are away, and as many that are there.
const MOST: usize = 1 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Leases {
    path: PathBuf,
    /// Lines in the file, and how many of them count.
    lines: usize,
    held: BTreeMap<IpAddr, Vec<u8>>,
}

impl Leases {
    /// What was written before; lines that are not of this form are passed over.
    pub(super) fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let (mut lines, mut held) = (0, BTreeMap::new());
        for line in text.lines().take(MOST) {
            lines += 1;
            if let Some((address, holder)) = serde_json::from_str(line).ok().and_then(|line| entry(&line)) {
                held.insert(address, holder);
            }
        }
        Self { path, lines, held }
    }

    /// Who had which address.
    pub(super) fn all(&self) -> impl Iterator<Item = (IpAddr, &[u8])> {
        self.held.iter().map(|(address, holder)| (*address, holder.as_slice()))
    }

    /// Writes down that an address was given to somebody.
    pub(super) fn note(&mut self, address: IpAddr, holder: &[u8]) -> io::Result<()> {
        if self.held.len() >= MOST && !self.held.contains_key(&address) {
            return Err(io::Error::other("too many addresses were given"));
        }
        self.held.insert(address, holder.to_vec());
        // Old lines go when they are more than those that count.
        if self.lines > self.held.len().saturating_mul(2).saturating_add(1000) {
            return self.rewrite();
        }
        let mut file = create(&self.path, true)?;
        file.write_all(line(address, holder).as_bytes())?;
        self.lines += 1;
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let new = self.path.with_extension("leases.new");
        let text: String = self.held.iter().map(|(address, holder)| line(*address, holder)).collect();
        create(&new, false)?.write_all(text.as_bytes())?;
        fs::rename(new, &self.path)?;
        self.lines = self.held.len();
        Ok(())
    }
}

fn create(path: &Path, append: bool) -> io::Result<fs::File> {
    fs::File::options().create(true).append(append).write(true).truncate(!append).mode(0o600).open(path)
}

fn line(address: IpAddr, holder: &[u8]) -> String {
    let hex: String = holder.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{}\n", json!({ "address": address.to_string(), "holder": hex }))
}

fn entry(line: &Value) -> Option<(IpAddr, Vec<u8>)> {
    let text = |key: &str| line.get(key)?.as_str();
    let hex =
        text("holder").filter(|hex| hex.is_ascii() && !hex.is_empty() && hex.len().is_multiple_of(2))?;
    let pairs = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    Some((text("address")?.parse().ok()?, pairs.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_read_again_and_the_file_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pluto.leases");
        let mut leases = Leases::read(path.clone());
        let (one, two) = ("10.9.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        leases.note(one, b"\x02alice").unwrap();
        leases.note(two, b"\x02bob").unwrap();
        leases.note(one, b"\x02carol").unwrap();
        let all = |leases: &Leases| leases.all().map(|(a, h)| (a, h.to_vec())).collect::<Vec<_>>();
        assert_eq!(
            all(&Leases::read(path.clone())),
            [(one, b"\x02carol".to_vec()), (two, b"\x02bob".to_vec())]
        );
        // A line that was torn is no line; the others count.
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{{\"address\":\"10.9.0.9\",\"hol")).unwrap();
        let mut leases = Leases::read(path.clone());
        assert_eq!(all(&leases).len(), 2);
        for n in 0..2000_u32 {
            leases.note(one, &n.to_be_bytes()).unwrap();
        }
        assert!(fs::read_to_string(&path).unwrap().lines().count() < 1100);
        assert_eq!(Leases::read(path).held[&one], 1999_u32.to_be_bytes());
    }
}
