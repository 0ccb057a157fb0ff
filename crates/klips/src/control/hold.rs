//! `%hold` eroutes: what packets meet while a key manager is asked, or for as long as a person says so.
//!
//! The `%trap` that asked stays; for the flow that met it there is a `%hold` that only it matches, with a protocol and ports
//! where the `%trap` has them. A `%trapsubnet` becomes a `%hold` itself. Both are seen in the table and go when there is
//! nothing to wait for. A `%hold` that somebody has put there stays: only what it keeps goes, when its time is up.

use super::Control;
use crate::eroute::{Action, Eroute};
use crate::hold::Held;
use ipnet::IpNet;
use ipsec_core::{Flow, Selector, Time};
use std::sync::Arc;

/// An eroute that waits.
pub(super) struct Hold {
    pub(super) selector: Selector,
    /// The eroute we made, if we made it.
    pub(super) made: Option<Made>,
}

/// An eroute we made.
pub(super) struct Made {
    eroute: Arc<Eroute>,
    /// What was there before.
    instead_of: Option<Action>,
}

/// Which packets of a trapped network wait together with one of this flow.
fn selector_of(trap: &Eroute, flow: &Flow) -> Selector {
    let only = |set: bool, value: u16| if set { value } else { 0 };
    let Selector { proto, sport, dport, .. } = trap.selector;
    if trap.action == Action::TrapSubnet {
        return trap.selector;
    }
    Selector {
        src: IpNet::from(flow.src),
        dst: IpNet::from(flow.dst),
        proto: if proto == 0 { 0 } else { flow.proto },
        sport: only(sport != 0, flow.sport),
        dport: only(dport != 0, flow.dport),
    }
}

impl Control {
    /// From now on packets of that flow meet a `%hold`, as long as `trap` is what they would meet.
    pub(super) fn put_hold(&mut self, seq: u32, trap: &Arc<Eroute>, flow: &Flow) {
        let selector = selector_of(trap, flow);
        let made = self.plane.change_eroute(selector, |eroutes| {
            let there = eroutes.exact(&selector).cloned();
            let instead_of = match &there {
                None => {
                    let hold = Eroute::new(selector, Action::Hold);
                    let hold = hold.between(trap.src_identity().into(), trap.dst_identity().into());
                    eroutes.add(hold).ok()?;
                    None
                }
                // The trap matches this flow alone, or all that it matches waits together.
                Some(there) if Arc::ptr_eq(there, trap) => {
                    eroutes.replace(trap.redirected(Action::Hold));
                    Some(trap.action)
                }
                // Somebody has said something else of this flow.
                Some(_) => return None,
            };
            Some(Made { eroute: eroutes.exact(&selector).cloned()?, instead_of })
        });
        if let Some(made) = made {
            self.acquires.hold(seq, Hold { selector, made: Some(made) });
        }
    }

    /// Takes away, or turns back, the `%hold` eroutes of records that have ended, unless they are no longer ours.
    pub(super) fn lift_holds(&mut self) {
        for Hold { selector, made } in self.acquires.take_lifted() {
            let Some(Made { eroute, instead_of }) = made else { continue };
            self.plane.change_eroute(selector, |eroutes| {
                if eroutes.exact(&selector).is_some_and(|there| Arc::ptr_eq(there, &eroute)) {
                    match instead_of {
                        Some(action) => drop(eroutes.replace(eroute.redirected(action))),
                        None => drop(eroutes.delete(&selector)),
                    }
                }
            });
        }
    }

    /// A packet met a `%hold`.
    pub(super) fn met_hold(&mut self, hold: &Arc<Eroute>, held: Held, now: Time) {
        let selector = hold.selector;
        let seq = match self.acquires.held_by(&selector) {
            Some(seq) => seq,
            // One that a person has put there: nobody is asked.
            None => {
                let key = (selector, selector.src.network(), selector.dst.network());
                let Some(seq) = self.begin_record(key, now) else { return self.dropped(1) };
                self.acquires.hold(seq, Hold { selector, made: None });
                seq
            }
        };
        if self.acquires.keep(seq, held).is_some() {
            self.dropped(1);
        }
    }

    /// Whether what is said of this flow is to wait, were it not for the `%hold` that we made.
    pub(super) fn waits_without(&self, made: &Made, flow: &Flow) -> bool {
        match made.instead_of {
            // It is what is said.
            Some(_) => self.plane.eroutes().lookup(flow).is_some_and(|eroute| eroute.action.waits()),
            None => {
                let all = self.plane.eroutes().explain(flow);
                let next = all.iter().find(|eroute| !Arc::ptr_eq(eroute, &made.eroute));
                next.is_some_and(|eroute| eroute.action.waits())
            }
        }
    }
}
