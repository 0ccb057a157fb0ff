//! What an IKE SA does when time passes: repetitions, keepalives, rekeying, liveness, ends (RFC 7296 §2.1, §2.4, §2.8).

use super::{Asked, Child, HALF_OPEN, IkeSa, Stage, Task};
use crate::event::{Event, Why};
use crate::outbox::Context;
use core::time::Duration;
use ipsec_core::Time;

/// A NAT forgets a mapping that nothing passes; 20 s is what RFC 3948 §4 suggests.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Between two repetitions of a request there is no longer time than this.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A peer that says it has moved must answer from there within this time, and is asked without a back-off, so that a few lost
/// datagrams do not end its IKE SA.
const ROUTABLE: Duration = Duration::from_secs(10);
/// A request of a peer that is heard and does not answer it is repeated for so many times the time after which it is gone.
const PATIENCE: u32 = 4;
/// After so many repetitions a request goes to other addresses of the peer, too.
const PATIENT: u32 = 3;
/// What anybody can say makes us ask the peer no more often than this.
const DOUBT: Duration = Duration::from_secs(10);

impl IkeSa {
    /// When it wants to be woken.
    pub(crate) fn deadline(&self) -> Time {
        let mut deadline = self.expires;
        if let Some(request) = &self.request {
            deadline = deadline.min(request.next);
        }
        if self.is_established() {
            deadline = deadline.min(self.rekey_at);
            for child in &self.children {
                deadline = deadline.min(if child.replaced() {
                    child.expires
                } else {
                    child.rekey_at.min(child.expires)
                });
                child.idle_until.iter().for_each(|at| deadline = deadline.min(*at));
            }
            if let Some(liveness) = self.liveness() {
                deadline = deadline.min(liveness);
            }
            if self.nat.here {
                deadline = deadline.min(self.sent.after(KEEPALIVE));
            }
            self.later.iter().for_each(|(at, _)| deadline = deadline.min(*at));
        }
        deadline
    }

    fn liveness(&self) -> Option<Time> {
        let busy = self.request.is_some() || self.pending.is_some() || !self.tasks.is_empty();
        let after = self.connection.as_ref()?.times.liveness.filter(|_| !busy)?;
        Some(self.heard.after(after))
    }

    /// Does what is due.
    pub(crate) fn timeout(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        if self.is_closed() {
            return;
        }
        if self.expires <= now {
            let why = match (self.is_established(), self.replaced()) {
                (true, true) => Why::Rekeyed,
                (true, false) => Why::Expired,
                (false, _) => self.silence(),
            };
            self.close(cx, why);
            return;
        }
        self.repeat(cx);
        if !self.is_established() {
            return;
        }
        let due: Vec<Child> = self.children.iter().filter(|child| child.expires <= now).cloned().collect();
        for child in due {
            // Nothing negotiated may outlive its time, whatever the peer says.
            self.remove_child(cx, child.spi_in);
            self.task(Task::DeleteChild(child.spi_in));
        }
        for child in self.children.iter_mut().filter(|child| child.idle_until.is_some_and(|at| at <= now)) {
            child.idle_until = None;
            // Another has its place by now, or it is on its way out.
            if child.replaced() {
                continue;
            }
            cx.out.events.push_back(Event::ChildInUse { spi_in: child.spi_in });
        }
        for child in self.children.iter_mut().filter(|child| !child.replaced() && child.rekey_at <= now) {
            child.rekey_at = Time::FOREVER;
            let (connection, rekeys) = (child.connection.clone(), Some(child.spi_in));
            self.tasks.push_back(Task::Child { connection, rekeys, group: None });
        }
        if self.rekey_at <= now {
            self.rekey_at = Time::FOREVER;
            // Who is to prove anew who it is does so by itself: a rekeying would only put it off.
            match (self.connection.as_ref().is_some_and(|c| c.reauthenticate), self.began) {
                (true, true) => self.task(Task::Reauthenticate),
                (true, false) => {}
                (false, _) => self.task(Task::RekeyIke { group: None }),
            }
        }
        let (due, later) = core::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Time, Task)> = due;
        due.into_iter().for_each(|(_, task)| self.task(task));
        if self.liveness().is_some_and(|at| at <= now) {
            self.task(Task::Liveness);
        }
        if self.nat.here && self.sent.after(KEEPALIVE) <= now {
            self.transmit(cx, &[vec![0xff]]);
        }
        self.next_task(cx);
    }

    /// Sends the outstanding request again, ever more seldom, until the peer counts as gone (RFC 7296 §2.1, §2.4).
    fn repeat(&mut self, cx: &mut Context<'_>) {
        let give_up = self.connection.as_ref().map_or(HALF_OPEN, |connection| connection.times.give_up);
        let Some(request) = &mut self.request else { return };
        if request.next > cx.now {
            return;
        }
        // Nobody is sent for long what he may not have asked for.
        let hasty = matches!(request.asked, Asked::Routable(..));
        let give_up = if hasty { give_up.min(ROUTABLE) } else { give_up };
        // Who speaks to us is not gone: it may not have known this IKE SA when it was asked. But not for ever.
        let (since, last) =
            (request.first.max(self.heard), request.first.after(give_up.saturating_mul(PATIENCE)));
        let end = if hasty { request.first.after(give_up) } else { since.after(give_up).min(last) };
        if end <= cx.now {
            let why = match &request.asked {
                Asked::DeleteIke(why) => why.clone(),
                _ => self.silence(),
            };
            self.close(cx, why);
            return;
        }
        // 1.8 times as long, and up to a tenth more, so that many peers do not speak at once.
        let jitter = cx.random_below(u64::try_from(request.wait.as_nanos()).unwrap_or(u64::MAX).div_ceil(10));
        if !hasty {
            request.wait =
                (request.wait.saturating_mul(9).checked_div(5).unwrap_or(request.wait)).min(LONGEST_WAIT);
        }
        request.next = cx.now.after(request.wait).after(Duration::from_nanos(jitter));
        request.next = request.next.min(end.max(cx.now));
        request.tries = request.tries.saturating_add(1);
        let (datagrams, tries) = (request.datagrams.clone(), request.tries);
        if tries >= PATIENT {
            self.try_elsewhere();
        }
        self.transmit(cx, &datagrams);
    }

    /// Nobody answered, or nobody who can be believed.
    fn silence(&self) -> Why {
        let refused = if let Stage::Opening(opening) = &self.stage { opening.refused.clone() } else { None };
        refused.unwrap_or(Why::Silence(self.remote))
    }

    /// Somebody without keys says that we are not known there: the peer itself is asked, now and then
    /// (RFC 7296 §1.5, §2.4).
    pub(super) fn doubt(&mut self, cx: &mut Context<'_>) {
        if self.is_established() && cx.now.since(self.doubted) >= DOUBT && self.request.is_none() {
            self.doubted = cx.now;
            self.task(Task::Liveness);
            self.next_task(cx);
        }
    }

    /// Sends the outstanding request again at once: where it came from before, nobody can answer.
    pub(crate) fn repeat_now(&mut self, cx: &mut Context<'_>) {
        let Some(request) = &mut self.request else { return };
        request.first = cx.now;
        let datagrams = request.datagrams.clone();
        self.transmit(cx, &datagrams);
    }
}
