//! When dummy packets are due (RFC 4303 §2.6): by a clock of their own, whatever traffic there is.

use super::{Control, flag};
use crate::sa::Sa;
use ipsec_core::{SaId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// The next dummy packet of each SA that sends them.
#[derive(Debug, Default)]
pub(super) struct Dummies {
    due: BTreeSet<(Time, SaId)>,
    of: BTreeMap<SaId, Time>,
}

impl Dummies {
    /// When the next is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    fn put(&mut self, id: SaId, at: Time) {
        if let Some(before) = self.of.insert(id, at) {
            self.due.remove(&(before, id));
        }
        self.due.insert((at, id));
    }

    fn take(&mut self, now: Time) -> Option<SaId> {
        let next = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.due.remove(&next);
        self.of.remove(&next.1);
        Some(next.1)
    }

    /// The SA is gone. Says when its next dummy was due, if it sent any.
    pub(super) fn forget(&mut self, id: &SaId) -> Option<Time> {
        let at = self.of.remove(id)?;
        self.due.remove(&(at, *id));
        Some(at)
    }

    /// The SA goes on under another name.
    pub(super) fn rename(&mut self, old: &SaId, new: SaId) {
        if let Some(at) = self.forget(old) {
            self.put(new, at);
        }
    }

    /// All of them are gone for which `stays` does not hold.
    pub(super) fn retain(&mut self, stays: impl Fn(&SaId) -> bool) {
        self.of.retain(|id, _| stays(id));
        self.due.retain(|(_, id)| stays(id));
    }
}

impl Control {
    /// Begins to send dummies on an SA that wants them.
    pub(super) fn begin_dummies(&mut self, id: &SaId, now: Time) {
        let Some(record) = self.sadb.find(id).filter(|record| record.flags & flag::OUTBOUND != 0) else {
            return;
        };
        if let Some(interval) = record.sa.as_ref().and_then(|sa| sa.hiding().interval()) {
            self.dummies.put(*id, now.after(interval));
        }
    }

    /// Has workers send the dummies that are due. Those that were missed are not made up for: a host that slept would betray
    /// that by a burst.
    pub(super) fn send_dummies(&mut self, now: Time) {
        while let Some(id) = self.dummies.take(now) {
            let sa = self.sadb.find(&id).filter(|record| record.in_use).and_then(|record| record.sa.as_ref());
            if sa.is_some_and(|sa| Sa::may_send(sa)) {
                self.plane.ask_dummy(id);
                self.begin_dummies(&id, now);
            }
        }
    }
}
