//! `--life`: `soft-bytes=1000,hard-addtime=3600`.

use ipsec_core::text;

/// The limits of one kind; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections; recorded, never counted.
    pub allocations: u32,
    /// Octets.
    pub bytes: u64,
    /// Seconds after the SA was added.
    pub addtime: u64,
    /// Seconds after its first packet.
    pub usetime: u64,
    /// Packets.
    pub packets: u64,
}

/// The limits of an SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Where its key manager is told.
    pub soft: Limits,
    /// Where it ends.
    pub hard: Limits,
}

/// Reads the list; each limit may be given once.
pub(super) fn parse(list: &str) -> Result<Life, String> {
    let mut life = Life::default();
    let mut seen = Vec::new();
    for item in list.split(',') {
        let bad = |why: &str| format!("{item}: {why}");
        let (name, value) = item.split_once('=').ok_or_else(|| bad("write it as LIMIT=N"))?;
        let value = text::number(value).map_err(|why| bad(&why.to_string()))?;
        let (kind, what) = name.split_once('-').ok_or_else(|| bad("write soft-… or hard-…"))?;
        if seen.contains(&name) {
            return Err(bad("given twice"));
        }
        seen.push(name);
        let limits = match kind {
            "soft" => &mut life.soft,
            "hard" => &mut life.hard,
            _ => return Err(bad("write soft-… or hard-…")),
        };
        match what {
            "allocations" | "alloc" => {
                limits.allocations = value.try_into().map_err(|_| bad("number too large"))?
            }
            "bytes" => limits.bytes = value,
            "addtime" => limits.addtime = value,
            "usetime" => limits.usetime = value,
            "packets" => limits.packets = value,
            _ => return Err(bad("must be allocations, bytes, addtime, usetime or packets")),
        }
    }
    if life.hard.packets != 0 && life.soft.packets > life.hard.packets {
        return Err(format!("soft-packets={}: above hard-packets={}", life.soft.packets, life.hard.packets));
    }
    Ok(life)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_and_given_once() {
        let life =
            parse("soft-bytes=0x400,hard-bytes=2048,hard-addtime=3600,soft-usetime=7,hard-allocations=1,hard-packets=8")
                .unwrap();
        assert_eq!(life.soft, Limits { bytes: 1024, usetime: 7, ..Limits::default() });
        assert_eq!(
            life.hard,
            Limits { bytes: 2048, addtime: 3600, allocations: 1, packets: 8, ..Limits::default() }
        );
        for (wrong, why) in [
            ("", "write it as"),
            ("soft-bytes", "write it as"),
            ("bytes=1", "write soft-"),
            ("firm-bytes=1", "write soft-"),
            ("soft-years=1", "must be allocations"),
            ("soft-bytes=-1", "non-digit"),
            ("soft-bytes=1,soft-bytes=2", "given twice"),
            ("soft-packets=9,hard-packets=8", "above hard-packets=8"),
            ("hard-allocations=4294967296", "too large"),
            ("soft-bytes=1,", "write it as"),
        ] {
            let error = parse(wrong).expect_err(wrong);
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
