//! What is installed, written down for the pluto after this one: one JSON object per line, names alone, no keys.

use super::kernel::Installed;
use ipsec_core::Selector;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::Path;

/// More was never installed.
const MOST: usize = 1 << 20;

/// Writes all pairs, whole or not at all.
pub(super) fn write<'p>(path: &Path, pairs: impl Iterator<Item = &'p Installed>) -> io::Result<()> {
    let mut text = String::new();
    for pair in pairs {
        let flows: Vec<Value> = pair
            .flows
            .iter()
            .map(|flow| {
                let Selector { src, dst, proto, sport, dport } = flow;
                json!({ "src": src.to_string(), "dst": dst.to_string(), "proto": proto, "sport": sport, "dport": dport })
            })
            .collect();
        let line = json!({
            "connection": pair.connection, "in": pair.spi_in, "out": pair.spi_out,
            "local": pair.local.to_string(), "remote": pair.remote.to_string(), "flows": flows,
        });
        text.push_str(&line.to_string());
        text.push('\n');
    }
    if text.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let new = path.with_extension("sas.new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}

/// Reads what was written; lines that are not of this form are passed over.
pub(super) fn read(path: &Path) -> Vec<Installed> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().take(MOST).filter_map(|line| pair(&serde_json::from_str(line).ok()?)).collect()
}

fn pair(value: &Value) -> Option<Installed> {
    let number = |value: &Value, key: &str| value.get(key)?.as_u64();
    let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
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

    #[test]
    fn what_is_written_is_read_and_nothing_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pluto.sas");
        let flow = Selector {
            src: "10.1.0.0/16".parse().unwrap(),
            dst: "2001:db8::/32".parse().unwrap(),
            proto: 6,
            sport: 0,
            dport: 443,
        };
        let pair = Installed {
            connection: "a/1x2".into(),
            spi_in: 0x1001,
            spi_out: u32::MAX,
            local: "192.0.2.1".parse().unwrap(),
            remote: "2001:db8::2".parse().unwrap(),
            flows: vec![flow],
        };
        write(&path, [&pair, &pair].into_iter()).unwrap();
        assert_eq!(read(&path), [pair.clone(), pair.clone()]);
        let torn = fs::read_to_string(&path).unwrap();
        fs::write(&path, &torn[..torn.len() - 5]).unwrap();
        assert_eq!(read(&path), [pair]);
        write(&path, [].into_iter()).unwrap();
        assert!(!path.exists());
        write(&path, [].into_iter()).unwrap();
        assert!(read(&path).is_empty());
    }
}
