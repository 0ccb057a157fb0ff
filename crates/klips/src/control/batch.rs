//! Many changes of policy as one: all of them, or none.

use super::{Control, Hearers, flag};
use crate::eroute::{Action, Eroute};
use ipsec_core::Selector;
use pfkey::{Base, Diagnostic as D, Errno, Fault, MessageType, SaType};
use std::collections::HashMap;
use std::sync::Arc;

/// Changes made while packets wait: few enough that they do not notice.
const AT_ONCE: usize = 128;

/// One change of policy.
#[derive(Debug)]
pub enum FlowChange {
    /// Add an eroute; there must be none with its selector.
    Add(Eroute),
    /// Add an eroute, or put it in the place of the one with its selector.
    Replace(Eroute),
    /// Delete the eroute with exactly this selector.
    Delete(Selector),
}

impl Control {
    /// Makes all changes, in their order, or none: then which is the first that cannot be made, and why.
    ///
    /// Nobody else changes policy meanwhile, so what has been found possible stays possible. Packets see the changes a few at
    /// a time.
    pub fn change_flows(&mut self, changes: Vec<FlowChange>) -> Result<(), (usize, Fault)> {
        self.check_flows(&changes)?;
        let (mut done, mut gone) = (Vec::new(), Vec::new());
        let mut rest = changes.into_iter().peekable();
        while rest.peek().is_some() {
            self.plane.change_eroutes(|eroutes| {
                for change in rest.by_ref().take(AT_ONCE) {
                    let (kind, eroute) = match change {
                        FlowChange::Add(eroute) => (MessageType::AddFlow, eroute),
                        FlowChange::Replace(eroute) => (MessageType::ReplaceFlow, eroute),
                        FlowChange::Delete(selector) => {
                            let deleted = eroutes.delete(&selector).ok();
                            done.extend(
                                deleted.iter().map(|eroute| (MessageType::DelFlow, Arc::clone(eroute))),
                            );
                            gone.extend(deleted);
                            continue;
                        }
                    };
                    let selector = eroute.selector;
                    gone.extend(eroutes.replace(eroute));
                    done.extend(eroutes.exact(&selector).map(|eroute| (kind, Arc::clone(eroute))));
                }
            });
        }
        // A policy of a dialect may have been among them: nothing finds it by its number any more, and it follows no SA.
        gone.iter().for_each(|eroute| self.policy_gone(eroute));
        self.reconsider(None);
        for (kind, eroute) in done {
            let message = self.describe_flow(&Base::request(kind, SaType::Unspec, 0, 0), &eroute);
            self.sockets.deliver(Hearers::All, message);
        }
        Ok(())
    }

    /// Goes through the changes as if they had been made.
    fn check_flows(&self, changes: &[FlowChange]) -> Result<(), (usize, Fault)> {
        let eroutes = self.plane.eroutes();
        let mut there: HashMap<Selector, bool> = HashMap::new();
        for (number, change) in changes.iter().enumerate() {
            let (selector, action) = match change {
                FlowChange::Add(eroute) | FlowChange::Replace(eroute) => {
                    (eroute.selector, Some(eroute.action))
                }
                FlowChange::Delete(selector) => (*selector, None),
            };
            let refuse = |fault| Err((number, fault));
            if selector.src.addr().is_ipv4() != selector.dst.addr().is_ipv4() {
                return refuse(Fault::invalid(D::InnerAfMismatch));
            }
            if selector.proto == 0 && (selector.sport != 0 || selector.dport != 0) {
                return refuse(Fault::invalid(D::InnerProtoMismatch));
            }
            if let Some(Action::Protect(id)) = action
                && self.sadb.find(&id).is_some_and(|sa| sa.flags & flag::BOTH == flag::INBOUND)
            {
                return refuse(Fault::invalid(D::BadSaflags));
            }
            let known = there.entry(selector).or_insert_with(|| eroutes.exact(&selector).is_some());
            match change {
                FlowChange::Add(_) if *known => return refuse(Fault::errno(Errno::EEXIST)),
                FlowChange::Delete(_) if !*known => return refuse(Fault::errno(Errno::ENOENT)),
                FlowChange::Add(_) | FlowChange::Replace(_) => *known = true,
                FlowChange::Delete(_) => *known = false,
            }
        }
        Ok(())
    }
}
