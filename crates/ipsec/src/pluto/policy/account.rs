//! What connections have carried: counters that only grow, however often SAs are replaced.
//!
//! What a pair carries the data plane knows as long as the pair is there. What it had carried in the end is added here when it is
//! removed, so that the sum of both goes on. A sum that has become unknown begins anew at zero, as a counter may: with traffic in
//! it that had been counted before, whoever takes a smaller value for a new beginning would count that twice.

use crate::pluto::kernel::{Carried, Installed, Load};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    gone: BTreeMap<String, Carried>,
    /// Pairs that are there and do not count: what they carry, or had carried until now, is in no sum or in one already.
    closed: BTreeSet<(u32, IpAddr)>,
}

const fn name(pair: &Installed) -> (u32, IpAddr) {
    (pair.spi_in, pair.local)
}

impl Accounts {
    /// What pairs of a connection that have gone had carried.
    pub(super) fn gone(&self, connection: &str) -> Carried {
        self.gone.get(connection).copied().unwrap_or_default()
    }

    /// Whether what a pair carries is to be added to what others have.
    pub(super) fn counts(&self, pair: &Installed) -> bool {
        !self.closed.contains(&name(pair))
    }

    /// A pair is counted no longer, with what it had carried in the end. False if that is not known, and was counted so far.
    pub(super) fn close(&mut self, pair: &Installed, carried: Option<Carried>) -> bool {
        if !self.closed.insert(name(pair)) {
            return true;
        }
        let Some(carried) = carried else { return false };
        let sum = self.gone.entry(pair.connection.clone()).or_default();
        sum.out = plus(sum.out, carried.out);
        sum.r#in = plus(sum.r#in, carried.r#in);
        true
    }

    /// A pair is there no longer.
    pub(super) fn forget(&mut self, pair: &Installed) {
        self.closed.remove(&name(pair));
    }

    /// A pair has another name.
    pub(super) fn rename(&mut self, old: &Installed, new: &Installed) {
        if self.closed.remove(&name(old)) {
            self.closed.insert(name(new));
        }
    }

    /// The sum of a connection begins at zero; of the pairs it has now nothing counts.
    pub(super) fn begin_anew<'p>(&mut self, connection: &str, pairs: impl Iterator<Item = &'p Installed>) {
        self.gone.remove(connection);
        self.closed.extend(pairs.map(name));
    }

    /// Every sum begins at zero.
    pub(super) fn begin_all_anew<'p>(&mut self, pairs: impl Iterator<Item = &'p Installed>) {
        self.gone.clear();
        self.closed = pairs.map(name).collect();
    }
}

const fn plus(one: Load, other: Load) -> Load {
    Load { bytes: one.bytes.saturating_add(other.bytes), packets: one.packets.saturating_add(other.packets) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(spi_in: u32) -> Installed {
        Installed {
            connection: "a".to_owned(),
            spi_in,
            spi_out: spi_in,
            local: [192, 0, 2, 1].into(),
            remote: [192, 0, 2, 2].into(),
            flows: Vec::new(),
        }
    }

    fn load(n: u64) -> Carried {
        Carried { out: Load { bytes: n * 100, packets: n }, r#in: Load { bytes: n * 1000, packets: n * 10 } }
    }

    #[test]
    fn what_each_pair_had_carried_is_added_once() {
        let mut accounts = Accounts::default();
        assert!(accounts.close(&pair(1), Some(load(1))));
        // It was dead, and is removed now.
        assert!(accounts.close(&pair(1), None) && accounts.close(&pair(1), Some(load(1))));
        accounts.forget(&pair(1));
        assert!(accounts.close(&pair(2), Some(load(4))));
        assert_eq!((accounts.gone("a"), accounts.gone("b")), (load(5), Carried::default()));
    }

    #[test]
    fn after_a_loss_only_what_came_later_counts() {
        let mut accounts = Accounts::default();
        assert!(accounts.close(&pair(1), Some(load(7))) && !accounts.close(&pair(2), None));
        accounts.begin_anew("a", [pair(3)].iter());
        assert_eq!(accounts.gone("a"), Carried::default());
        assert!(!accounts.counts(&pair(3)) && accounts.counts(&pair(4)));
        // It moves, and is the same pair.
        let moved = Installed { local: [192, 0, 2, 9].into(), ..pair(3) };
        accounts.rename(&pair(3), &moved);
        assert!(!accounts.counts(&moved) && accounts.close(&moved, Some(load(9))));
        assert!(accounts.close(&pair(4), Some(load(2))));
        assert_eq!(accounts.gone("a"), load(2));
        accounts.begin_all_anew([pair(5)].iter());
        assert!(!accounts.counts(&pair(5)) && accounts.counts(&pair(3)));
        assert_eq!(accounts.gone("a"), Carried::default());
    }
}
