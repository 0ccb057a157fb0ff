//! A peer that has an IKE SA here and begins another: the one that stands, the one that goes, and when.

use super::Endpoint;
use crate::connection::Connection;
use crate::event::{Event, Why};
use crate::exchange::child::SUCCESSION;
use crate::message::IkeSpi;
use crate::sa::{IkeSa, Stage, Task};
use crate::table::Mark;
use core::net::SocketAddr;
use core::time::Duration;
use ipsec_core::Time;

/// An IKE SA of a peer that has another one goes after this, if the peer has not removed it.
pub(super) const SUPERSEDED: Duration = Duration::from_secs(5);
/// IKE SAs that a peer may have that need not have but one (uniqueids=no).
const MAX_PER_PEER: usize = 256;

impl Endpoint {
    /// Peers have proved who they are on new IKE SAs: what becomes of their older ones.
    pub(super) fn supersede(&mut self, now: Time) {
        for (new, id, initial) in core::mem::take(&mut self.out.superseded) {
            let same = |sa: &&IkeSa| sa.key != new && !sa.replaced();
            let local = self.sas.get(new).and_then(|sa| sa.connection.clone());
            // Somebody who knows the secret of a group can say that it is anybody, and is not the user of this name who has a password or
            // a certificate; who has proved more may be the one who had only the secret before.
            let by_secret = |sa: &IkeSa| matches!(&sa.stage, Stage::Established(peer) if peer.by_secret());
            let now_by_secret = self.sas.get(new).is_some_and(by_secret);
            let ours = |sa: &&IkeSa| match (&sa.connection, &local) {
                (Some(one), Some(two)) => {
                    let in_the_same_way =
                        one.remote_auth == two.remote_auth && by_secret(sa) == now_by_secret;
                    one.local_id.is(&two.local_id) && (in_the_same_way || (by_secret(sa) && !now_by_secret))
                }
                _ => false,
            };
            // One on which it has spoken since it began the new one it has not forgotten: both sides began at once.
            let began_at = self.sas.get(new).map_or(now, |sa| sa.began_at);
            let forgotten = |sa: &IkeSa| initial && !sa.spoke_since(began_at);
            let unique = local.as_ref().is_some_and(|connection| connection.unique);
            let old = self.sas.of_peer(&id).filter(same).filter(ours).map(|sa| (sa.key, forgotten(sa)));
            let mut old = old.collect::<Vec<_>>();
            if old.iter().any(|(_, forgotten)| !forgotten) {
                self.stands_beside(new, now);
            }
            // Where it may have several it has not as many as it likes: the oldest make room.
            let began = |key: &IkeSpi| self.sas.get(*key).map_or(now, |sa| sa.began_at);
            old.sort_by_key(|(key, _)| began(key));
            let too_many = old.len().saturating_add(1).saturating_sub(MAX_PER_PEER);
            for (n, (key, forgotten)) in old.into_iter().enumerate() {
                self.with(key, now, |sa, cx| {
                    if forgotten {
                        // There is nobody to tell (RFC 7296 §2.4).
                        sa.close(cx, Why::Superseded);
                    } else if n < too_many && sa.is_to_go() {
                        // It has had its time, and is not waited for any longer.
                        sa.close(cx, Why::Superseded);
                    } else if (unique || n < too_many) && !sa.is_to_go() {
                        // It may be proving anew who it is, and makes its children first. Only one side comes here of two
                        // that began at once: for ours to stand here the peer has granted it, and has ours still to come.
                        sa.later.push((cx.now.after(SUPERSEDED), Task::DeleteIke(Why::Superseded)));
                    }
                });
            }
        }
    }

    /// A peer that has an IKE SA here has begun another, and may be proving anew who it is. It can receive on the pair that came with
    /// it as soon as it has our answer, which is under way: until the old pair goes, or for as long as an answer takes, packets stay
    /// on that.
    fn stands_beside(&mut self, new: IkeSpi, now: Time) {
        let Some(sa) = self.sas.get_mut(new) else { return };
        sa.beside = true;
        let until = now.after(SUCCESSION);
        for event in &mut self.out.events {
            if let Event::ChildUp(up) = event
                && up.ike == new
                && !up.standby
                && let Some(child) = sa.children.iter_mut().find(|child| child.spi_in == up.inbound.spi)
            {
                (up.standby, child.idle_until) = (true, Some(until));
            }
        }
        self.sas.note(new);
    }

    /// IKE SAs that are to be proved anew, and what becomes of the old ones.
    pub(super) fn succeed(&mut self, now: Time) {
        for old in core::mem::take(&mut self.out.reauthenticate) {
            // One that was begun before this one took another's place is for this one.
            let of_this = |sa: &IkeSa| {
                sa.succeeds.is_some_and(|first| first == old || self.last_heir(first, sa.key) == old)
            };
            let busy = self.sas.marked(Mark::Succeeds).any(|sa| !sa.is_closed() && of_this(sa));
            let Some(sa) = self.sas.get(old).filter(|_| !busy) else { continue };
            let first = sa.children.iter().find(|child| !child.replaced()).map(|child| &child.connection);
            let Some(connection) = first.or(sa.connection.as_ref()).cloned() else { continue };
            let remote = SocketAddr::new(sa.remote.ip(), connection.remote_port);
            let ends = (SocketAddr::new(sa.local.ip(), 500), remote);
            let _ = self.begin(connection, ends, Some(old), now);
        }
        for new in core::mem::take(&mut self.out.proved_anew) {
            let Some(old) = self.sas.get(new).and_then(|sa| sa.succeeds) else { continue };
            let old = self.last_heir(old, new);
            if let Some(sa) = self.sas.get_mut(new) {
                sa.succeeds = Some(old);
                self.sas.note(new);
            }
            let Some(sa) = self.sas.get_mut(old) else { continue };
            sa.heir = Some(new);
            let children = sa.children.iter().map(|child| child.connection.clone()).collect();
            self.sas.note(old);
            self.with(new, now, |sa, cx| {
                sa.succeed(children);
                sa.next_task(cx);
            });
        }
        for (old, new, has) in core::mem::take(&mut self.out.retired) {
            let old = self.last_heir(old, new);
            self.with(old, now, |sa, cx| {
                let covered = |connection: &Connection| has.iter().any(|other| other.name == connection.name);
                if sa.children.iter().all(|child| covered(&child.connection)) {
                    sa.heir = Some(new);
                    cx.out.events.push_back(Event::IkeRekeyed { from: old, to: new });
                    sa.task(Task::DeleteIke(Why::Rekeyed));
                    sa.next_task(cx);
                } else {
                    sa.heir = None;
                    if sa.began && sa.mobike && sa.placed != (sa.local, sa.remote) {
                        sa.task(Task::Move);
                        sa.next_task(cx);
                    }
                }
            });
        }
    }

    /// The last in the row of IKE SAs that took `old`'s place by rekeying, which may have crossed with its succession by `new`.
    fn last_heir(&self, old: IkeSpi, new: IkeSpi) -> IkeSpi {
        let mut last = old;
        // A row cannot be longer than there are IKE SAs.
        for _ in 0..self.sas.len() {
            let heir = self.sas.get(last).and_then(|sa| sa.heir).filter(|heir| *heir != new);
            match heir.filter(|heir| self.sas.get(*heir).is_some_and(|sa| !sa.is_closed())) {
                Some(heir) => last = heir,
                None => break,
            }
        }
        last
    }
}
