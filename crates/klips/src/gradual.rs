//! A hash table that grows a bucket at a time: no insertion moves more than a few hundred entries, however many there are.
//!
//! Policy is changed under a lock that packets wait for. A table that doubles moves all it has at once, which for a million
//! entries is tens of milliseconds without a packet; here a full bucket becomes two (extendible hashing, Fagin and others
//! 1979), and only the directory, four octets a bucket, is ever doubled. An entry is found as fast as in one table and one
//! step through the directory.

use hashbrown::HashTable;

/// Entries at which a bucket becomes two.
const FULL: usize = 448;
/// Bits of the hash that choose a bucket, at most: 65 536 buckets. Beyond 29 million entries buckets grow instead.
const DEEPEST: u32 = 16;
/// The lowest of these bits: a bucket itself looks at the lowest and the highest ones.
const SHIFT: u32 = 24;

/// See the module. The caller says which hash an entry has, always the same.
pub(crate) struct Gradual<T> {
    /// The bucket of each combination of as many bits of the hash as its length says.
    directory: Vec<u32>,
    buckets: Vec<Bucket<T>>,
    len: usize,
}

struct Bucket<T> {
    entries: HashTable<T>,
    /// How many bits of the hash all of its entries have in common.
    depth: u32,
}

impl<T> Default for Gradual<T> {
    fn default() -> Self {
        Self { directory: Vec::new(), buckets: Vec::new(), len: 0 }
    }
}

/// The bits of a hash that choose a bucket.
const fn bits(hash: u64) -> usize {
    (hash >> SHIFT) as usize
}

impl<T> Gradual<T> {
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.buckets.iter().flat_map(|bucket| bucket.entries.iter())
    }

    /// Which bucket a hash belongs to; the directory's length is a power of two.
    #[inline]
    fn number(&self, hash: u64) -> Option<u32> {
        self.directory.get(bits(hash) & self.directory.len().wrapping_sub(1)).copied()
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&T> {
        self.buckets.get(self.number(hash)? as usize)?.entries.find(hash, is)
    }

    /// All entries that have this hash, and maybe some that have another.
    #[inline]
    pub(crate) fn all(&self, hash: u64) -> impl Iterator<Item = &T> {
        let bucket = self.number(hash).and_then(|number| self.buckets.get(number as usize));
        bucket.map_or_else(Default::default, |bucket| bucket.entries.iter_hash(hash))
    }

    pub(crate) fn find_mut(&mut self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let number = self.number(hash)?;
        self.buckets.get_mut(number as usize)?.entries.find_mut(hash, is)
    }

    /// Adds an entry. Several may have one hash. `hash_of` says what the hash of any other is.
    pub(crate) fn insert(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) {
        if self.buckets.is_empty() {
            self.buckets.push(Bucket { entries: HashTable::new(), depth: 0 });
            self.directory = vec![0];
        }
        self.make_room(hash, &hash_of);
        let Some(number) = self.number(hash) else { return };
        if let Some(bucket) = self.buckets.get_mut(number as usize) {
            bucket.entries.insert_unique(hash, entry, hash_of);
            self.len = self.len.saturating_add(1);
        }
    }

    pub(crate) fn remove(&mut self, hash: u64, is: impl FnMut(&T) -> bool) -> Option<T> {
        let number = self.number(hash)?;
        let entries = &mut self.buckets.get_mut(number as usize)?.entries;
        let (gone, _) = entries.find_entry(hash, is).ok()?.remove();
        // What is empty gives its memory back now: a table that has become empty is then quickly dropped.
        if entries.is_empty() {
            *entries = HashTable::new();
        }
        self.len = self.len.saturating_sub(1);
        Some(gone)
    }

    /// Makes two of the bucket that `hash` belongs to, if it is full.
    fn make_room(&mut self, hash: u64, hash_of: &impl Fn(&T) -> u64) {
        let (Some(number), Ok(fresh)) = (self.number(hash), u32::try_from(self.buckets.len())) else {
            return;
        };
        let Some(bucket) = self.buckets.get_mut(number as usize) else { return };
        let depth = bucket.depth;
        if bucket.entries.len() < FULL || depth >= DEEPEST {
            return;
        }
        if 1_usize << depth == self.directory.len() {
            self.directory.extend_from_within(..);
        }
        let (bit, deeper) = (1_usize << depth, depth.saturating_add(1));
        let mut halves = [(); 2].map(|()| HashTable::with_capacity(FULL / 2));
        for entry in core::mem::take(&mut bucket.entries) {
            let hash = hash_of(&entry);
            let [near, far] = &mut halves;
            let half = if bits(hash) & bit == 0 { near } else { far };
            half.insert_unique(hash, entry, hash_of);
        }
        let [near, far] = halves;
        *bucket = Bucket { entries: near, depth: deeper };
        self.buckets.push(Bucket { entries: far, depth: deeper });
        // Every combination of bits that ends in those of the new bucket leads to it.
        let first = bits(hash) & bit.wrapping_sub(1) | bit;
        for place in self.directory.iter_mut().skip(first).step_by(bit.saturating_mul(2)) {
            *place = fresh;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::BuildHasher;
    use foldhash::fast::RandomState;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn fill(n: u64, hash_of: impl Fn(&u64) -> u64) -> Gradual<u64> {
        let mut table = Gradual::default();
        for entry in 0..n {
            table.insert(hash_of(&entry), entry, &hash_of);
        }
        table
    }

    #[test]
    fn all_that_was_put_in_is_found_and_no_bucket_is_ever_over_full() {
        let state = RandomState::default();
        let hash_of = |entry: &u64| state.hash_one(entry);
        let mut table = fill(100_000, hash_of);
        assert!(table.buckets.len() > 200);
        assert!(table.buckets.iter().all(|bucket| bucket.entries.len() <= FULL));
        assert!(table.directory.len() < 16 * table.buckets.len(), "{}", table.directory.len());
        assert!((0..100_000).all(|entry| table.find(hash_of(&entry), |e| *e == entry) == Some(&entry)));
        assert_eq!(table.find(hash_of(&100_000), |e| *e == 100_000), None);
        assert_eq!(table.iter().collect::<HashSet<_>>().len(), 100_000);
        for entry in 0..100_000 {
            assert_eq!(table.remove(hash_of(&entry), |e| *e == entry), Some(entry));
        }
        assert!(table.is_empty() && table.iter().next().is_none());
        assert!(table.buckets.iter().all(|bucket| bucket.entries.capacity() == 0), "it is cheap to drop");
    }

    /// What an insertion costs is how many entries' hashes it asks for.
    #[test]
    fn no_insertion_moves_more_than_a_bucket() {
        let state = RandomState::default();
        let moved = core::cell::Cell::new(0);
        let mut table = Gradual::default();
        for entry in 0..100_000_u64 {
            moved.set(0);
            table.insert(state.hash_one(entry), entry, |entry| {
                moved.set(moved.get() + 1);
                state.hash_one(entry)
            });
            assert!(moved.get() <= 2 * FULL, "{} for {entry}", moved.get());
        }
    }

    /// Whoever could choose hashes would make one bucket grow, and nothing else.
    #[test]
    fn entries_of_one_hash_make_one_large_bucket() {
        let mut table = fill(3000, |_| 7 << SHIFT);
        assert_eq!(table.buckets.len(), DEEPEST as usize + 1);
        assert_eq!(table.find(7 << SHIFT, |entry| *entry == 2999), Some(&2999));
        assert_eq!(table.remove(7 << SHIFT, |entry| *entry == 2999), Some(2999));
        assert_eq!(table.iter().count(), 2999);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Beside a set, with a hash that has few bits, so that buckets of all depths occur.
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0_u64..6000), 1..9000), width in 1_u32..12) {
            let hash_of = |entry: &u64| (entry % (1 << width)) << SHIFT | entry << 57 | entry;
            let (mut table, mut model) = (Gradual::default(), HashSet::new());
            for (add, entry) in steps {
                let (hash, known) = (hash_of(&entry), model.contains(&entry));
                prop_assert_eq!(table.find(hash, |e| *e == entry).is_some(), known);
                if add && !known {
                    table.insert(hash, entry, hash_of);
                    model.insert(entry);
                } else if !add {
                    prop_assert_eq!(table.remove(hash, |e| *e == entry).is_some(), model.remove(&entry));
                }
            }
            prop_assert_eq!(table.len, model.len());
            prop_assert_eq!(table.iter().copied().collect::<HashSet<_>>(), model);
        }
    }
}
