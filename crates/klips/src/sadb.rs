//! The SA database behind PF_KEY (RFC 2367 §1.3; RFC 4301 calls it the SAD).
//!
//! Invariants:
//! * An SA is named by protocol, destination and SPI alone ([`SaId`]); a second of that name does not come in.
//! * An SA keeps its place from when it comes in to when it goes, so a [`Cursor`] that walks the places shows every SA
//!   that was there all the while exactly once, whatever comes and goes meanwhile.
//! * An SA whose limits lie in time has exactly one timer, set to the next of them. No operation but a purge and a flush
//!   looks at more than the SA it is about.

mod record;
mod spi;
#[cfg(test)]
mod tests;

use core::net::IpAddr;
use ipsec_core::{Protocol, SaId, Spi, Time};
pub(crate) use record::{Due, Extras, Identity, Km, Ports, Record, TimeLimits};
pub(crate) use spi::NoSpi;
pub use spi::SpiPolicy;
use std::collections::{BTreeSet, HashMap};

/// The SAs of one protocol and family.
#[derive(Default)]
struct Table {
    index: HashMap<(IpAddr, Spi), u32, foldhash::quality::RandomState>,
    places: Vec<Option<Box<Record>>>,
    free: Vec<u32>,
}

/// Where an SA has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    table: u8,
    slot: u32,
}

/// A walk over the SAs, in the order of DUMP: AH, ESP, IPIP, IPCOMP, and IPv4 before IPv6 in each.
///
/// It holds no lock and no copy: SAs that come in behind it are not seen, those ahead of it are, and those that went
/// away are not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    next: Place,
    end: u8,
}

impl Cursor {
    /// From the first SA of one protocol, or of all.
    pub(crate) fn new(protocol: Option<Protocol>) -> Self {
        let first = protocol.map_or(0, first_table);
        let end = protocol.map_or(TABLES as u8, |_| first.saturating_add(2));
        Self { next: Place { table: first, slot: 0 }, end }
    }
}

/// How many [`Table`]s there are: four protocols, two families.
const TABLES: usize = 8;

const fn first_table(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Ah => 0,
        Protocol::Esp => 2,
        Protocol::Ipip => 4,
        Protocol::Ipcomp => 6,
    }
}

const fn table_of(id: &SaId) -> u8 {
    first_table(id.protocol).saturating_add(id.dst.is_ipv6() as u8)
}

/// An SA of that name is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exists;

/// All SAs this host knows.
#[derive(Default)]
pub(crate) struct Sadb {
    tables: [Table; TABLES],
    timers: BTreeSet<(Time, Place)>,
}

impl Sadb {
    /// The SA of that name.
    pub(crate) fn find(&self, id: &SaId) -> Option<&Record> {
        self.record(self.place(id)?)
    }

    /// The SA of that name, to change it; [`Sadb::rearm`] afterwards if its times changed.
    pub(crate) fn find_mut(&mut self, id: &SaId) -> Option<&mut Record> {
        let place = self.place(id)?;
        self.record_mut(place)
    }

    /// How many SAs there are, in whatever state.
    pub(crate) fn len(&self) -> usize {
        self.tables.iter().fold(0, |sum, table| sum.saturating_add(table.index.len()))
    }

    /// Takes in an SA of a new name and sets its timer.
    pub(crate) fn insert(&mut self, record: Box<Record>) -> Result<(), Exists> {
        use std::collections::hash_map::Entry;
        let number = table_of(&record.id);
        let table = self.tables.get_mut(usize::from(number)).ok_or(Exists)?;
        let Entry::Vacant(entry) = table.index.entry((record.id.dst, record.id.spi)) else {
            return Err(Exists);
        };
        let slot = match table.free.pop() {
            Some(slot) => {
                if let Some(place) = table.places.get_mut(slot as usize) {
                    *place = Some(record);
                }
                slot
            }
            None => {
                let slot = u32::try_from(table.places.len()).map_err(|_| Exists)?;
                table.places.push(Some(record));
                slot
            }
        };
        entry.insert(slot);
        self.rearm_at(Place { table: number, slot });
        Ok(())
    }

    /// Takes an SA out, and its timer with it.
    pub(crate) fn remove(&mut self, id: &SaId) -> Option<Box<Record>> {
        let place = self.place(id)?;
        let table = self.tables.get_mut(usize::from(place.table))?;
        table.index.remove(&(id.dst, id.spi));
        let record = table.places.get_mut(place.slot as usize)?.take()?;
        table.free.push(place.slot);
        if let Some(timer) = record.timer {
            self.timers.remove(&(timer, place));
        }
        Some(record)
    }

    /// Takes all SAs of one protocol out, or of all.
    pub(crate) fn clear(&mut self, protocol: Option<Protocol>, mut gone: impl FnMut(Box<Record>)) {
        let cursor = Cursor::new(protocol);
        let (first, end) = (cursor.next.table, cursor.end);
        for (number, table) in (0_u8..).zip(self.tables.iter_mut()) {
            if number >= first && number < end {
                table.index.clear();
                table.free.clear();
                core::mem::take(&mut table.places).into_iter().flatten().for_each(&mut gone);
            }
        }
        self.timers.retain(|(_, place)| place.table < first || place.table >= end);
    }

    /// Sets an SA's timer to the next thing time will do to it.
    pub(crate) fn rearm(&mut self, id: &SaId) {
        if let Some(place) = self.place(id) {
            self.rearm_at(place);
        }
    }

    fn rearm_at(&mut self, place: Place) {
        let Some(record) = self.record_mut(place) else { return };
        let (old, new) = (record.timer, record.due().map(|(at, _)| at));
        if old != new {
            record.timer = new;
            if let Some(old) = old {
                self.timers.remove(&(old, place));
            }
            if let Some(new) = new {
                self.timers.insert((new, place));
            }
        }
    }

    /// When [`Sadb::take_due`] will next have something.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// An SA whose timer has passed, and takes the timer away; [`Sadb::rearm`] sets the next.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<SaId> {
        let (at, place) = self.timers.first().copied().filter(|(at, _)| *at <= now)?;
        self.timers.remove(&(at, place));
        let record = self.record_mut(place)?;
        record.timer = None;
        Some(record.id)
    }

    /// The next SA of a walk.
    pub(crate) fn next(&self, cursor: &mut Cursor) -> Option<&Record> {
        while cursor.next.table < cursor.end {
            let table = self.tables.get(usize::from(cursor.next.table))?;
            let rest = table.places.get(cursor.next.slot as usize..).unwrap_or_default();
            for place in rest {
                cursor.next.slot = cursor.next.slot.saturating_add(1);
                if let Some(record) = place {
                    return Some(record);
                }
            }
            cursor.next = Place { table: cursor.next.table.saturating_add(1), slot: 0 };
        }
        None
    }

    /// All of them, in the order of a [`Cursor`].
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.tables.iter().flat_map(|table| table.places.iter().flatten().map(|record| &**record))
    }

    /// Those of one protocol.
    pub(crate) fn of(&self, protocol: Protocol) -> impl Iterator<Item = &Record> {
        let mut cursor = Cursor::new(Some(protocol));
        core::iter::from_fn(move || self.next(&mut cursor))
    }

    fn place(&self, id: &SaId) -> Option<Place> {
        let table = table_of(id);
        let slot = *self.tables.get(usize::from(table))?.index.get(&(id.dst, id.spi))?;
        Some(Place { table, slot })
    }

    fn record(&self, place: Place) -> Option<&Record> {
        self.tables.get(usize::from(place.table))?.places.get(place.slot as usize)?.as_deref()
    }

    fn record_mut(&mut self, place: Place) -> Option<&mut Record> {
        self.tables.get_mut(usize::from(place.table))?.places.get_mut(place.slot as usize)?.as_deref_mut()
    }
}
