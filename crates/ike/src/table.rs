//! All IKE SAs of an endpoint, and the answers to what is asked of all of them at once.
//!
//! Who is due, on how many nobody has proved anything, which belong to a peer, and which has a child must cost the same with fifty
//! thousand IKE SAs as with one, or a flood would slow down everybody. So each of these is kept beside the IKE SAs, and
//! [`Table::note`] brings it up to date after every change of one.

use crate::identity::Id;
use crate::message::IkeSpi;
use crate::sa::{IkeSa, Task};
use crate::source::source;
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, SocketAddr};
use ipsec_core::Time;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};

/// A stranger that has more octets than this kept for it counts among those who may have to make room for others.
const LARGE: usize = 16 * 1024;

/// What an IKE SA is looked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// It has the child with this inbound SPI.
    Child(u32),
    /// It is of a connection with this name, has a child of it, or is to make one; see [`Mark::name`].
    Name(u64),
    /// Its peer is at this address, or its connection says so.
    Remote(IpAddr),
    /// It is to take the place of another.
    Succeeds,
    /// We have begun it, and the peer has proved nothing yet.
    Begun,
}

impl Mark {
    /// Two names may have one mark: whoever asks looks at the names, too.
    pub(crate) fn name(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self::Name(hasher.finish())
    }

    /// All marks of an IKE SA, in order.
    fn all(sa: &IkeSa) -> Vec<Self> {
        let mut all: Vec<Self> = sa.children.iter().map(|child| Self::Child(child.spi_in)).collect();
        let to_make = sa.tasks.iter().chain(sa.later.iter().map(|(_, task)| task));
        let to_make = to_make.filter_map(|task| match task {
            Task::Child { connection, .. } => Some(connection),
            _ => None,
        });
        let connections = sa.connection.iter().chain(sa.children.iter().map(|child| &child.connection));
        all.extend(connections.chain(to_make).map(|connection| Self::name(&connection.name)));
        all.push(Self::Remote(sa.remote.ip()));
        all.extend(sa.connection.as_ref().and_then(|connection| connection.remote_address).map(Self::Remote));
        all.extend(sa.succeeds.map(|_| Self::Succeeds));
        let begun = sa.initiator && !sa.is_established() && !sa.is_closed();
        all.extend(begun.then_some(Self::Begun));
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// One IKE SA and what the indices last heard of it.
#[derive(Debug)]
struct Entry {
    sa: IkeSa,
    deadline: Time,
    /// What is kept for a stranger, and since when it is here, if that is much.
    large: Option<(usize, Time)>,
    /// Where it comes from, while nobody has proved anything on it.
    source: Option<IpAddr>,
    peer: Option<Vec<u8>>,
    first: Option<(SocketAddr, IkeSpi)>,
    marks: Vec<Mark>,
}

/// All IKE SAs by our SPI.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: BTreeMap<IkeSpi, Entry>,
    timers: BTreeSet<(Time, IkeSpi)>,
    unproved: usize,
    /// Octets that are kept for strangers who have much kept, and who they are, the oldest first.
    held: usize,
    large: BTreeSet<(Time, IkeSpi)>,
    sources: BTreeMap<IpAddr, usize>,
    peers: BTreeMap<Vec<u8>, BTreeSet<IkeSpi>>,
    marked: BTreeSet<(Mark, IkeSpi)>,
    /// Where each peer's first message led, so that its repetition leads there too.
    firsts: BTreeMap<(SocketAddr, IkeSpi), IkeSpi>,
}

/// The identity as the index has it: what is the same by [`Id::is`] has the same octets here.
fn folded(id: &Id) -> Vec<u8> {
    let body = id.body();
    let mut octets = vec![body.kind];
    octets.extend(body.data.iter().map(u8::to_ascii_lowercase));
    octets
}

impl Table {
    pub(crate) fn insert(&mut self, sa: IkeSa) {
        let key = sa.key;
        self.remove(key);
        let deadline = sa.deadline();
        self.timers.insert((deadline, key));
        self.entries.insert(
            key,
            Entry { sa, deadline, large: None, source: None, peer: None, first: None, marks: Vec::new() },
        );
        self.note(key);
    }

    /// Notes which first message of a peer an IKE SA comes from.
    pub(crate) fn came_from(&mut self, key: IkeSpi, first: (SocketAddr, IkeSpi)) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.first = Some(first);
            self.firsts.insert(first, key);
        }
    }

    /// The IKE SA that a peer's first message led to.
    pub(crate) fn of_first(&self, first: (SocketAddr, IkeSpi)) -> Option<IkeSpi> {
        self.firsts.get(&first).copied()
    }

    pub(crate) fn remove(&mut self, key: IkeSpi) {
        let Some(entry) = self.entries.remove(&key) else { return };
        self.timers.remove(&(entry.deadline, key));
        if let Some(first) = entry.first {
            self.firsts.remove(&first);
        }
        for mark in entry.marks {
            self.marked.remove(&(mark, key));
        }
        self.weigh(key, entry.large, None);
        self.count(entry.source, None);
        self.index(key, entry.peer, None);
    }

    pub(crate) fn get(&self, key: IkeSpi) -> Option<&IkeSa> {
        self.entries.get(&key).map(|entry| &entry.sa)
    }

    /// An IKE SA that is about to change; [`Table::note`] must follow.
    pub(crate) fn get_mut(&mut self, key: IkeSpi) -> Option<&mut IkeSa> {
        self.entries.get_mut(&key).map(|entry| &mut entry.sa)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = IkeSpi> {
        self.entries.keys().copied()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &IkeSa> {
        self.entries.values().map(|entry| &entry.sa)
    }

    /// Brings the indices up to date with an IKE SA that may have changed.
    pub(crate) fn note(&mut self, key: IkeSpi) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let sa = &entry.sa;
        let deadline = sa.deadline();
        let source = sa.is_unproved().then(|| source(sa.remote.ip()));
        if deadline != entry.deadline {
            self.timers.remove(&(entry.deadline, key));
            self.timers.insert((deadline, key));
            entry.deadline = deadline;
        }
        let marks = Mark::all(sa);
        if marks != entry.marks {
            let old = core::mem::replace(&mut entry.marks, marks);
            for mark in old.iter().filter(|mark| !entry.marks.contains(mark)) {
                self.marked.remove(&(*mark, key));
            }
            self.marked
                .extend(entry.marks.iter().filter(|mark| !old.contains(mark)).map(|mark| (*mark, key)));
        }
        let large = Some((sa.held(), sa.began_at)).filter(|(held, _)| *held > LARGE);
        let old_large = core::mem::replace(&mut entry.large, large);
        let old_source = core::mem::replace(&mut entry.source, source);
        // Only who has proved to be somebody is indexed, and nobody becomes another afterwards.
        let same = sa.peer().is_some() == entry.peer.is_some();
        let peer = if same { None } else { Some(sa.peer().map(folded)) };
        let old_peer = peer.map(|peer| (core::mem::replace(&mut entry.peer, peer.clone()), peer));
        self.weigh(key, old_large, large);
        self.count(old_source, source);
        if let Some((old, new)) = old_peer {
            self.index(key, old, new);
        }
    }

    fn weigh(&mut self, key: IkeSpi, old: Option<(usize, Time)>, new: Option<(usize, Time)>) {
        if old == new {
            return;
        }
        if let Some((held, since)) = old {
            self.held = self.held.saturating_sub(held);
            self.large.remove(&(since, key));
        }
        if let Some((held, since)) = new {
            self.held = self.held.saturating_add(held);
            self.large.insert((since, key));
        }
    }

    /// The stranger that has much kept for longest, where all of them have more than `most` octets.
    pub(crate) fn one_too_many(&self, most: usize) -> Option<IkeSpi> {
        self.large.first().filter(|_| self.held > most).map(|(_, key)| *key)
    }

    fn count(&mut self, old: Option<IpAddr>, new: Option<IpAddr>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.unproved = self.unproved.saturating_sub(1);
            if let Some(count) = self.sources.get_mut(&old) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.sources.remove(&old);
                }
            }
        }
        if let Some(new) = new {
            self.unproved = self.unproved.saturating_add(1);
            let count = self.sources.entry(new).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn index(&mut self, key: IkeSpi, old: Option<Vec<u8>>, new: Option<Vec<u8>>) {
        if let Some(old) = old
            && let Some(keys) = self.peers.get_mut(&old)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.peers.remove(&old);
            }
        }
        if let Some(new) = new {
            self.peers.entry(new).or_default().insert(key);
        }
    }

    /// On how many nobody has proved anything, in all and of the [`source`] that this address belongs to.
    pub(crate) fn unproved(&self, from: IpAddr) -> (usize, usize) {
        let counted = (self.unproved, self.sources.get(&source(from)).copied().unwrap_or(0));
        debug_assert_eq!(counted.0, self.values().filter(|sa| sa.is_unproved()).count());
        counted
    }

    /// The IKE SAs whose peer has proved to be this one.
    pub(crate) fn of_peer(&self, id: &Id) -> impl Iterator<Item = &IkeSa> {
        let keys = self.peers.get(&folded(id)).into_iter().flatten();
        keys.filter_map(|key| self.get(*key)).filter(|sa| sa.peer().is_some_and(|peer| peer.is(id)))
    }

    /// The IKE SAs with this mark.
    pub(crate) fn marked(&self, mark: Mark) -> impl Iterator<Item = &IkeSa> {
        let all = self.marked.range((mark, IkeSpi(0))..=(mark, IkeSpi(u64::MAX)));
        debug_assert!(
            self.values()
                .filter(|sa| Mark::all(sa).contains(&mark))
                .map(|sa| &sa.key)
                .eq(all.clone().map(|(_, key)| key)),
            "a change was not noted"
        );
        all.filter_map(|(_, key)| self.get(*key))
    }

    /// The IKE SA that has this child.
    pub(crate) fn of_child(&self, spi_in: u32) -> Option<&IkeSa> {
        self.marked(Mark::Child(spi_in)).next()
    }

    /// When the first of them is due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let first = self.timers.first().map(|(at, _)| *at);
        debug_assert_eq!(first, self.values().map(IkeSa::deadline).min(), "a change was not noted");
        first
    }

    /// Those that are due.
    pub(crate) fn due(&self, now: Time) -> Vec<IkeSpi> {
        self.timers.range(..=(now, IkeSpi(u64::MAX))).map(|(_, key)| *key).collect()
    }
}
