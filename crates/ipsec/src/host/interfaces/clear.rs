//! Keeps the guard against clear packets from outside ([`crate::host::guard`]) in step with devices, routes and policy.

use super::super::guard::{Guard, MOST_EROUTES, Wanted};
use super::{Interfaces, keep};
use std::os::fd::BorrowedFd;

/// Where IKE comes in besides the port of ESP.
const IKE: u16 = 500;

/// Whether clear packets from outside are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// By this table of nf_tables, which has refused so many.
    By(String, u64),
    /// They are not, for this reason.
    Not(String),
}

/// The guard and what is known of it.
pub(super) struct Keeper {
    guard: Option<Guard>,
    /// Why nothing is refused.
    why: Option<String>,
    /// The policy it goes by ([`klips::Plane::generation`]).
    policy: u64,
    /// There are more eroutes than it takes.
    crowded: bool,
    /// Lines for the log.
    unsaid: Vec<String>,
}

impl Keeper {
    /// Without an owner there is nobody who could take a guard away again, and so there is none.
    pub(super) fn new(owner: Option<&keep::Mark>) -> Self {
        let (mut guard, mut why) = (None, None);
        match owner.map(|mark| Guard::open(mark.table())) {
            Some(Ok(opened)) => guard = Some(opened),
            Some(Err(error)) => why = Some(error.to_string()),
            None => {}
        }
        Self { guard, why, policy: 0, crowded: false, unsaid: Vec::new() }
    }

    /// What went wrong is said once, and tried again at the next change.
    fn outcome(&mut self, why: Option<String>) {
        if why != self.why
            && let Some(why) = &why
        {
            self.unsaid.push(warning(why));
        }
        self.why = why;
    }
}

fn warning(why: &str) -> String {
    format!("clear packets from outside are not refused (RFC 4301 section 5.2): {why}")
}

impl Interfaces {
    /// Brings the guard in step.
    pub(super) fn refuse_clear(&mut self) {
        let keeper = &mut self.guard;
        keeper.policy = self.plane.generation();
        let Some(guard) = &mut keeper.guard else { return };
        let routes = self.attached.values().flat_map(|attached| &attached.routes).map(|route| route.dst);
        let mut closed: Vec<_> = routes.filter(|dst| keep::is_closed(*dst)).collect();
        closed.sort_unstable();
        let wanted = Wanted {
            devices: self.attached.keys().cloned().collect(),
            closed,
            policy: self.plane.eroutes().bypasses(),
            ports: [IKE]
                .into_iter()
                .chain([self.settings.port].into_iter().filter(|port| *port != IKE))
                .collect(),
        };
        let crowded = wanted.policy.len() > MOST_EROUTES;
        if crowded && !keeper.crowded {
            keeper.unsaid.push(format!(
                "more than {MOST_EROUTES} eroutes come before some %pass: nothing they pass is taken from outside in clear"
            ));
        }
        keeper.crowded = crowded;
        let why = guard.install(wanted).err().map(|error| error.to_string());
        keeper.outcome(why);
    }

    /// Says at the first device that there is no guard.
    pub(super) fn say_unguarded(&mut self) {
        if let Keeper { guard: None, why: Some(why), unsaid, .. } = &mut self.guard
            && self.attached.len() == 1
        {
            unsaid.push(warning(why));
        }
    }

    /// Brings the guard and the sources of routes in step with policy, if that has changed.
    pub fn follow_policy(&mut self) {
        if self.guard.policy == self.plane.generation() {
            return;
        }
        self.refuse_clear();
        match self.give_sources() {
            Ok(lines) => lines.iter().for_each(|line| tracing::info!("{line}")),
            Err(error) => tracing::warn!("sources of routes: {error}"),
        }
    }

    /// Readable when tables of nf_tables have changed: call [`Interfaces::guard_again`].
    pub fn guard_changes(&self) -> Option<BorrowedFd<'_>> {
        self.guard.guard.as_ref().map(Guard::changes)
    }

    /// Puts the guard back if somebody has taken it away.
    pub fn guard_again(&mut self) {
        let Some(guard) = &mut self.guard.guard else { return };
        match guard.disturbed() {
            Ok(false) => {}
            Ok(true) => {
                let name = guard.name();
                self.guard.unsaid.push(format!(
                    "somebody has changed the nf_tables table inet {name}, which refuses clear packets from outside: it is there again"
                ));
            }
            Err(error) => self.guard.outcome(Some(error.to_string())),
        }
    }

    /// What is to be logged about the guard.
    pub fn guard_said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.guard.unsaid)
    }

    /// Whether clear packets from outside are refused; `None` while there is no device they could pretend to have come from,
    /// and without an owner.
    pub fn guarded(&mut self) -> Option<Guarded> {
        if self.attached.is_empty() {
            return None;
        }
        let Keeper { guard, why, .. } = &mut self.guard;
        match (why, guard) {
            (Some(why), _) => Some(Guarded::Not(why.clone())),
            (None, Some(guard)) => Some(Guarded::By(guard.name().to_owned(), guard.refused())),
            (None, None) => None,
        }
    }
}
