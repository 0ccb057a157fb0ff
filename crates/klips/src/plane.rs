//! What control and workers share.

use crate::admission::Admission;
use crate::bundle::{Bundle, BundleError, Sas};
use crate::discard::{Counters, Discard};
use crate::early::Larvae;
use crate::eroute::{Action, Change, Eroute, Eroutes};
use crate::hold::{Held, Traps};
use crate::path_mtu::{Claim, Paths};
use crate::sa::{Charge, Sa, SaState};
use crate::trace::{Sighting, Trace, Wanted};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ipsec_core::{SaId, Selector, Time};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a worker found that control must act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The SA carried its first packet: `usetime` limits begin.
    FirstUse(SaId),
    /// The soft limit of bytes or packets was reached.
    Soft(SaId),
    /// The hard limit of bytes or packets was reached, or the sequence numbers ended; the SA takes no more packets.
    Hard(SaId),
    /// The newest authentic packet of this inbound SA came from another UDP port of the peer's: a NAT on the way has
    /// changed its mapping. The SA follows; the one of the other direction is control's to move.
    Moved(SaId, u16),
}

/// The meeting place of control and workers.
///
/// Workers take read access per batch: the SA map is lock-free, the eroutes are behind a read lock taken only on a
/// flow-cache miss. Control publishes changes and never makes a worker wait longer than one change takes.
#[derive(Default)]
pub struct Plane {
    eroutes: RwLock<Eroutes>,
    admission: RwLock<Admission>,
    admission_generation: AtomicU64,
    /// Each SA under its name, in the bundle it is in.
    sas: papaya::HashMap<SaId, Bundle, foldhash::quality::RandomState>,
    generation: AtomicU64,
    /// The last changes of policy, the newest last: it made the generation what it is.
    changes: Mutex<VecDeque<Change>>,
    events: Mutex<Vec<Event>>,
    paths: Mutex<Paths>,
    traps: Traps,
    trace: Trace,
    larvae: Larvae,
    /// SAs that are to send a dummy packet.
    dummies: Mutex<VecDeque<SaId>>,
    wake: AtomicBool,
    returned: AtomicBool,
    counters: Mutex<Vec<Arc<Counters>>>,
}

impl Plane {
    /// Changes of policy that are remembered one by one.
    pub(crate) const CHANGES: usize = 64;
    /// Dummy packets that wait to be sent.
    const DUMMIES: usize = 1024;

    /// Counts changes of policy. A flow cache filled under an older generation is stale.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The policy, to look a flow up in. Hold it no longer than that.
    pub fn eroutes(&self) -> RwLockReadGuard<'_, Eroutes> {
        self.eroutes.read()
    }

    /// Eroutes whose packets are protected at the moment: they lead to an SA, and that SA is there.
    pub fn protecting(&self) -> usize {
        let leads = |eroute: &&Arc<Eroute>| matches!(&eroute.action, Action::Protect(id) if self.bundle(id).is_some_and(|bundle| bundle.may_send()));
        self.eroutes().all().filter(leads).count()
    }

    /// Changes the policy; whatever flow caches know is stale afterwards.
    ///
    /// What `change` returns is dropped by the caller, when packets flow again: a whole table can be taken out so.
    #[doc(hidden)] // Control's, and the simulation's.
    pub fn change_eroutes<R>(&self, change: impl FnOnce(&mut Eroutes) -> R) -> R {
        self.change(Change::All, change)
    }

    /// Changes what policy says of the flows that `selector` matches, and of no other.
    pub(crate) fn change_eroute<R>(&self, selector: Selector, change: impl FnOnce(&mut Eroutes) -> R) -> R {
        self.change(Change::Only(selector), change)
    }

    fn change<R>(&self, what: Change, change: impl FnOnce(&mut Eroutes) -> R) -> R {
        let result = change(&mut self.eroutes.write());
        let mut changes = self.changes.lock();
        if changes.len() >= Self::CHANGES {
            changes.pop_front();
        }
        changes.push_back(what);
        self.generation.fetch_add(1, Ordering::Release);
        result
    }

    /// Policy for what comes in on SAs without selectors.
    pub(crate) fn admission(&self) -> RwLockReadGuard<'_, Admission> {
        self.admission.read()
    }

    /// Counts changes of that policy: what a worker has found out under an older one it asks again.
    #[inline]
    pub(crate) fn admission_generation(&self) -> u64 {
        self.admission_generation.load(Ordering::Acquire)
    }

    /// Changes that policy.
    pub(crate) fn change_admission<R>(&self, change: impl FnOnce(&mut Admission) -> R) -> R {
        let result = change(&mut self.admission.write());
        self.admission_generation.fetch_add(1, Ordering::Release);
        result
    }

    /// Adds the changes of policy since `generation` to those a worker knows, and returns the generation now. Those that are
    /// too old to be remembered are not among them.
    #[cold]
    pub(crate) fn changes_since(&self, generation: u64, known: &mut VecDeque<Change>) -> u64 {
        let changes = self.changes.lock();
        let now = self.generation();
        let missed = usize::try_from(now.saturating_sub(generation)).unwrap_or(usize::MAX);
        if missed > changes.len() {
            known.clear();
        }
        known.extend(changes.iter().skip(changes.len().saturating_sub(missed)).copied());
        while known.len() > Self::CHANGES {
            known.pop_front();
        }
        now
    }

    /// The SA of that name, if there is one.
    pub fn sa(&self, id: &SaId) -> Option<Arc<Sa>> {
        self.sas.pin().get(id).and_then(|bundle| bundle.sa(id).cloned())
    }

    /// What is done to packets that meet the SA of that name: the bundle it is in.
    pub(crate) fn bundle(&self, id: &SaId) -> Option<Bundle> {
        self.sas.pin().get(id).cloned()
    }

    /// The longest packet that the SA, or the group it is in, makes no longer than `mtu` on the wire. `None` if packets cannot go on it.
    pub fn largest_inside(&self, id: &SaId, mtu: usize) -> Option<usize> {
        self.bundle(id).filter(Bundle::may_send).map(|bundle| bundle.inner_mtu(mtu))
    }

    /// Puts an SA in use by itself, in the place of any of that name; one that protects nothing by itself stays out. Flow
    /// caches stay valid: they never remember that an SA was missing, and ask again for one that is dead.
    #[doc(hidden)] // Control's, and the simulation's.
    pub fn publish(&self, sa: Arc<Sa>) {
        self.publish_alone(sa);
    }

    /// As [`Plane::publish`]; says whether it is in use now.
    pub(crate) fn publish_alone(&self, sa: Arc<Sa>) -> bool {
        let id = sa.id;
        match Bundle::alone(sa) {
            Ok(bundle) => {
                self.put(&bundle);
                true
            }
            // IPIP and IPComp wait for what makes a bundle of them. Those that have left theirs are found no more.
            Err(_) => {
                if let Some(old) = self.sas.pin().remove(&id).and_then(|old| old.sa(&id)) {
                    old.supersede();
                    self.tell_returned();
                }
                false
            }
        }
    }

    /// Puts SAs in use as one bundle, from the inside to the outside; none of them does anything by itself any more.
    #[doc(hidden)] // Control's, and the simulation's.
    pub fn publish_group(&self, sas: impl IntoIterator<Item = Arc<Sa>>) -> Result<(), BundleError> {
        let mut group = Sas::new();
        for sa in sas {
            group.try_push(sa).map_err(|_| BundleError::Number)?;
        }
        Bundle::new(group).map(|bundle| self.put(&bundle))
    }

    fn put(&self, bundle: &Bundle) {
        let mut replaced = false;
        self.tell_path(bundle);
        for sa in bundle.sas() {
            // An SA that goes on as another object of the same life is superseded, not dead.
            if let Some(old) = self.sas.pin().insert(sa.id, bundle.clone()).and_then(|old| old.sa(&sa.id))
                && !Arc::ptr_eq(old, sa)
            {
                if old.is_same_life(sa) {
                    old.supersede()
                } else {
                    old.advance(SaState::Dead)
                }
                replaced = true;
            }
        }
        if replaced {
            self.tell_returned();
        }
    }

    /// Takes an SA out of use. Workers that still remember it see that it is dead; the rest of its bundle carries nothing
    /// without it.
    #[doc(hidden)] // Control's, and the simulation's.
    pub fn withdraw(&self, id: &SaId) {
        if let Some(bundle) = self.sas.pin().remove(id) {
            if let Some(sa) = bundle.sa(id) {
                sa.advance(SaState::Dead);
            }
            // Its keys are wiped when the last of those who remember it lets go of it, idle workers too.
            self.tell_returned();
        }
    }

    /// An SA goes on as `sa`, between other addresses; what policy says of `old` it says of `sa` from then on. There is no
    /// moment at which neither is found.
    pub(crate) fn move_sa(&self, old: &SaId, sa: Arc<Sa>) {
        let new = sa.id;
        let before = self.bundle(old);
        let after = before.as_ref().map(|bundle| {
            bundle.sas().iter().map(|one| Arc::clone(if one.id == *old { &sa } else { one })).collect()
        });
        match after.map_or_else(|| Bundle::alone(sa), Bundle::new) {
            Ok(bundle) => {
                self.tell_path(&bundle);
                for sa in bundle.sas() {
                    self.sas.pin().insert(sa.id, bundle.clone());
                }
            }
            // Where it is now the others of its bundle cannot follow: none of them carries anything.
            Err(_) => drop(self.sas.pin().remove(&new)),
        }
        if new != *old {
            let named: Vec<_> = {
                let eroutes = self.eroutes();
                eroutes
                    .all()
                    .filter(|eroute| eroute.action == Action::Protect(*old))
                    .map(Arc::clone)
                    .collect()
            };
            // One at a time: packets that meet the others need not wait.
            for eroute in &named {
                let moved = eroute.redirected(Action::Protect(new));
                drop(self.change_eroute(eroute.selector, |eroutes| eroutes.replace(moved)));
            }
            self.sas.pin().remove(old);
        }
        if let Some(left) = before.as_ref().and_then(|bundle| bundle.sa(old)) {
            left.supersede();
            self.tell_returned();
        }
    }

    /// What is known of the way to a peer a new SA need not learn.
    fn tell_path(&self, bundle: &Bundle) {
        if let Some(sa) = bundle.outermost() {
            self.paths.lock().tell(sa);
        }
    }

    /// Narrows the path of an SA, if the claim is about a packet that went out on it just now; says whether it is.
    pub(crate) fn believe(&self, claim: &Claim, now: Time) -> bool {
        let sa = self.bundle(&claim.id).and_then(|bundle| bundle.outermost().cloned());
        let Some(sa) = sa.filter(|sa| claim.is_about(sa)) else { return false };
        let learned = claim.learned(now);
        if sa.path_mtu().learn(learned, now) {
            self.paths.lock().remember(&sa, learned, now);
        }
        true
    }

    /// Tells control what packets have done to an SA's life.
    #[inline]
    pub(crate) fn tell_charge(&self, id: SaId, charge: &Charge) {
        for (happened, event) in [
            (charge.first, Event::FirstUse(id)),
            (charge.soft, Event::Soft(id)),
            (charge.hard, Event::Hard(id)),
        ] {
            if happened {
                self.tell(event);
            }
        }
    }

    /// Tells control something. Each kind happens at most once per SA, so the queue is bounded by the SAs there are.
    pub(crate) fn tell(&self, event: Event) {
        self.events.lock().push(event);
        self.wake.store(true, Ordering::Release);
    }

    /// Tells control that the peer of an SA has another port. A peer may flap: of each SA only the last word is kept.
    pub(crate) fn tell_moved(&self, id: SaId, port: u16) {
        self.events.lock().retain(|event| !matches!(event, Event::Moved(other, _) if *other == id));
        self.tell(Event::Moved(id, port));
    }

    /// Whether a packet of `len` octets that met `%trap` would be taken now.
    pub(crate) fn may_trap(&self, len: usize) -> bool {
        self.traps.has_room(len)
    }

    /// Hands control a packet that met `%trap`, and says whether it was taken.
    pub(crate) fn trap(&self, held: Held) -> bool {
        let taken = self.traps.push(held);
        if taken {
            self.wake.store(true, Ordering::Release);
        }
        taken
    }

    /// Takes what was trapped so far.
    pub(crate) fn take_trapped(&self) -> Vec<Held> {
        self.traps.take()
    }

    /// Has the engines say what becomes of packets, from their next batch on: the host then calls what
    /// [`Plane::take_returned`] asks for, and idle ones hear it too.
    pub fn watch(&self, wanted: Wanted) {
        self.trace.want(wanted);
        self.tell_returned();
    }

    /// What was seen since last asked, the oldest first, and how many sightings were lost for want of room.
    pub fn take_seen(&self) -> (VecDeque<Sighting>, u64) {
        self.trace.take()
    }

    pub(crate) const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Tells control of a packet that somebody wants to see.
    pub(crate) fn saw(&self, sighting: Sighting) {
        self.trace.put(sighting);
        self.wake.store(true, Ordering::Release);
    }

    /// Packets went back to the engines they came from, or SAs have died that these may remember.
    pub(crate) fn tell_returned(&self) {
        self.returned.store(true, Ordering::Release);
    }

    /// SPIs that wait for keys.
    pub(crate) const fn larvae(&self) -> &Larvae {
        &self.larvae
    }

    /// A larva has got its keys, or will not: what waits for it is looked at.
    pub(crate) fn end_larva(&self, id: &SaId) {
        self.larvae.remove(id);
        self.tell_returned();
    }

    /// Has an engine send a dummy packet on an SA, soon. Where engines are so busy that many wait, those that come now are
    /// not missed.
    pub(crate) fn ask_dummy(&self, id: SaId) {
        let mut dummies = self.dummies.lock();
        if dummies.len() < Self::DUMMIES {
            dummies.push_back(id);
            drop(dummies);
            self.tell_returned();
        }
    }

    /// The next SA that is to send one.
    pub(crate) fn take_dummy(&self) -> Option<SaId> {
        self.dummies.lock().pop_front()
    }

    /// Whether there is one.
    pub(crate) fn wants_dummy(&self) -> bool {
        !self.dummies.lock().is_empty()
    }

    /// Says, once, that packets wait in engines, or that SAs have died: the host then calls
    /// [`crate::Outbound::returned`], [`crate::Inbound::forget_dead`] and [`crate::Inbound::matured`] of each engine.
    pub fn take_returned(&self) -> bool {
        self.returned.load(Ordering::Relaxed) && self.returned.swap(false, Ordering::Acquire)
    }

    /// Says, once, that there are events: the host then wakes the thread that owns [`crate::Control`].
    pub fn take_wake(&self) -> bool {
        self.wake.load(Ordering::Relaxed) && self.wake.swap(false, Ordering::Acquire)
    }

    /// Takes the events told so far.
    #[doc(hidden)] // Control's, and the simulation's.
    pub fn take_events(&self) -> Vec<Event> {
        core::mem::take(&mut *self.events.lock())
    }

    /// Counters for one more worker.
    pub fn new_counters(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.counters.lock().push(Arc::clone(&counters));
        counters
    }

    /// How many packets all workers together refused for `why`.
    pub fn discarded(&self, why: Discard) -> u64 {
        self.counters.lock().iter().fold(0, |sum, c| sum.wrapping_add(c.count(why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec_core::Spi;

    #[test]
    fn what_is_remembered_of_changes_is_bounded_on_either_side() {
        let (plane, mut known) = (Plane::default(), VecDeque::new());
        let mut generation = 0;
        for n in 0..10 * Plane::CHANGES {
            plane.change_eroutes(|_| ());
            // A worker that looks after each change, and one that looks now and then.
            if n % 7 == 0 || n > 5 * Plane::CHANGES {
                generation = plane.changes_since(generation, &mut known);
            }
            assert!(plane.changes.lock().len() <= Plane::CHANGES && known.len() <= Plane::CHANGES);
        }
        assert_eq!((known.len(), generation), (Plane::CHANGES, plane.generation()));
    }

    /// A peer behind a NAT, or one that plays it, may change its port with every packet.
    #[test]
    fn of_a_peer_that_flaps_the_last_word_is_kept_and_of_others_theirs() {
        let plane = Plane::default();
        let id =
            |spi| SaId { dst: [192, 0, 2, 1].into(), protocol: ipsec_core::Protocol::Esp, spi: Spi(spi) };
        plane.tell_moved(id(1), 7);
        plane.tell(Event::Hard(id(2)));
        (0..1000).for_each(|port| plane.tell_moved(id(2), port));
        assert!(plane.take_wake());
        let events = [Event::Moved(id(1), 7), Event::Hard(id(2)), Event::Moved(id(2), 999)];
        assert_eq!(plane.take_events(), events);
    }
}
