//! Jobs, from when a handler asks until the host has answered: whose turn it is.
//!
//! A host has a few threads and does what it is given in order, so what it is given is kept short here. Peers that have proved
//! who they are go before all others; among equals sources take turns; and one source, or strangers together, never have all
//! of what the host can have at a time. So one slow key exchange or signature, or a great many of them, keep nobody waiting
//! but those who asked for them.

use crate::job::{Job, JobId};
use crate::message::IkeSpi;
use crate::source::source;
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

/// Jobs that the host may have at a time, if it does not say otherwise.
const HANDED: usize = 32;

/// Who jobs are for: whether for strangers, and the source.
type Asker = (bool, IpAddr);

/// What one source waits for.
#[derive(Debug, Default)]
struct Lane {
    queue: BTreeMap<JobId, (IkeSpi, Job)>,
    /// How many of its jobs the host has.
    handed: usize,
    /// Its place among those whose turn may come.
    turn: Option<u64>,
}

/// All jobs that are not answered.
#[derive(Debug)]
pub(crate) struct Work {
    lanes: BTreeMap<Asker, Lane>,
    /// Sources that may be given something, in order.
    ready: BTreeSet<(bool, u64, IpAddr)>,
    /// Who asked for what is still queued here.
    queued: BTreeMap<JobId, Asker>,
    /// What the host has, who asked, and which IKE SA waits for it.
    handed: BTreeMap<JobId, (Asker, IkeSpi)>,
    /// How many of these are strangers'.
    of_strangers: usize,
    most: usize,
    turn: u64,
    next: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            lanes: BTreeMap::new(),
            ready: BTreeSet::new(),
            queued: BTreeMap::new(),
            handed: BTreeMap::new(),
            of_strangers: 0,
            most: HANDED,
            turn: 0,
            next: 0,
        }
    }
}

impl Work {
    /// The host can have so many at a time: strangers together half of them, one source a quarter.
    pub(crate) fn limit(&mut self, most: usize) {
        self.most = most.max(4);
    }

    /// Something to do for an IKE SA with a peer at `remote`, which has proved who it is or is a stranger.
    pub(crate) fn ask(&mut self, sa: IkeSpi, stranger: bool, remote: IpAddr, job: Job) -> JobId {
        let id = JobId(self.next);
        self.next = self.next.saturating_add(1);
        let asker = (stranger, source(remote));
        self.lanes.entry(asker).or_default().queue.insert(id, (sa, job));
        self.queued.insert(id, asker);
        self.line_up(asker);
        id
    }

    /// Puts a source behind those that wait for their turn, if it has something to be done and may have it done.
    fn line_up(&mut self, asker: Asker) {
        let (stranger, from) = asker;
        let Some(lane) = self.lanes.get_mut(&asker) else { return };
        let may = !lane.queue.is_empty() && lane.handed < self.most / 4;
        match (lane.turn, may) {
            (None, true) => {
                self.turn = self.turn.saturating_add(1);
                lane.turn = Some(self.turn);
                self.ready.insert((stranger, self.turn, from));
            }
            (Some(turn), false) => {
                lane.turn = None;
                self.ready.remove(&(stranger, turn, from));
            }
            (None, false) | (Some(_), true) => {}
        }
        if lane.queue.is_empty() && lane.handed == 0 {
            self.lanes.remove(&asker);
        }
    }

    /// Takes out what is still queued.
    fn take(&mut self, id: JobId) -> Option<(IkeSpi, Job)> {
        let asker = self.queued.remove(&id)?;
        let taken = self.lanes.get_mut(&asker)?.queue.remove(&id);
        self.line_up(asker);
        taken
    }

    /// Nobody waits for it any more.
    pub(crate) fn cancel(&mut self, id: JobId) {
        self.take(id);
    }

    /// The next for the host, if it has not enough to do.
    pub(crate) fn hand_out(&mut self) -> Option<(JobId, Job)> {
        let (stranger, turn, from) = *self.ready.first()?;
        if self.handed.len() >= self.most || (stranger && self.of_strangers >= self.most / 2) {
            return None;
        }
        let asker = (stranger, from);
        self.ready.remove(&(stranger, turn, from));
        let lane = self.lanes.get_mut(&asker)?;
        lane.turn = None;
        let (id, (sa, job)) = lane.queue.pop_first()?;
        lane.handed = lane.handed.saturating_add(1);
        self.queued.remove(&id);
        self.handed.insert(id, (asker, sa));
        self.of_strangers = self.of_strangers.saturating_add(usize::from(stranger));
        self.line_up(asker);
        Some((id, job))
    }

    /// The IKE SA that waits for what has been done. A record may answer what has not been handed out.
    pub(crate) fn done(&mut self, id: JobId) -> Option<IkeSpi> {
        let Some((asker, sa)) = self.handed.remove(&id) else { return self.take(id).map(|(sa, _)| sa) };
        self.of_strangers = self.of_strangers.saturating_sub(usize::from(asker.0));
        if let Some(lane) = self.lanes.get_mut(&asker) {
            lane.handed = lane.handed.saturating_sub(1);
        }
        self.line_up(asker);
        Some(sa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec_core::kex::Group;

    fn ask(work: &mut Work, stranger: bool, last: u8) -> JobId {
        let remote = IpAddr::from([192, 0, 2, last]);
        work.ask(IkeSpi(u64::from(last)), stranger, remote, Job::Offer(Group::X25519))
    }

    fn all(work: &mut Work) -> Vec<JobId> {
        core::iter::from_fn(|| work.hand_out().map(|(id, _)| id)).collect()
    }

    #[test]
    fn sources_take_turns_and_those_that_are_known_go_first() {
        let mut work = Work::default();
        let first = [1, 1, 1, 2, 3].map(|last| ask(&mut work, true, last));
        let known = ask(&mut work, false, 4);
        assert_eq!(all(&mut work), [known, first[0], first[3], first[4], first[1], first[2]]);
    }

    #[test]
    fn whatever_one_source_or_all_strangers_ask_the_others_come_next() {
        let mut work = Work::default();
        work.limit(16);
        // One source has a quarter, strangers together have half.
        let greedy: Vec<JobId> = (0..100).map(|_| ask(&mut work, true, 1)).collect();
        assert_eq!(all(&mut work), greedy[..4]);
        let other: Vec<JobId> = (0..100).map(|_| ask(&mut work, true, 2)).collect();
        assert_eq!(all(&mut work), other[..4]);
        let third = ask(&mut work, true, 3);
        assert_eq!(all(&mut work), []);
        // Peers come all the same, and a greedy one leaves room for the next.
        let known: Vec<JobId> = (0..100).map(|_| ask(&mut work, false, 4)).collect();
        assert_eq!(all(&mut work), known[..4]);
        let another = ask(&mut work, false, 5);
        assert_eq!(all(&mut work), [another]);
        // What is done makes room for whose turn it is: a source that has waited longer than the others.
        assert_eq!(work.done(greedy[0]), Some(IkeSpi(1)));
        assert_eq!(all(&mut work), [third]);
        assert_eq!(work.done(known[0]), Some(IkeSpi(4)));
        assert_eq!(all(&mut work), [known[4]]);
    }

    #[test]
    fn nothing_is_left_of_what_was_done_or_is_wanted_no_more() {
        let mut work = Work::default();
        let ids: Vec<JobId> = (0..200).map(|n| ask(&mut work, n % 3 == 0, n % 7)).collect();
        let mut handed = 0;
        for id in &ids {
            if id.0 % 2 == 0 {
                work.cancel(*id);
            }
        }
        while let Some((id, _)) = work.hand_out() {
            handed += 1;
            assert!(id.0 % 2 == 1);
            assert!(work.done(id).is_some() && work.done(id).is_none());
        }
        assert_eq!(handed, 100);
        assert!(
            work.lanes.is_empty()
                && work.queued.is_empty()
                && work.handed.is_empty()
                && work.ready.is_empty()
        );
        assert_eq!(work.of_strangers, 0);
        // Answered without having been handed out, as a record may do.
        let id = ask(&mut work, true, 1);
        assert_eq!(work.done(id), Some(IkeSpi(1)));
        assert_eq!(all(&mut work), []);
    }
}
