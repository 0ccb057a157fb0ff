//! Reauthentication, make before break: both sides prove anew who they are on a new IKE SA, that makes its own children,
//! and then the old one goes (RFC 7296 §2.8.3).

use crate::connection::Connection;
use crate::outbox::Context;
use crate::sa::{IkeSa, Task};
use core::time::Duration;
use std::sync::Arc;

/// A reauthentication that came to nothing is tried again after this.
const LATER: Duration = Duration::from_secs(30);

/// Asks for an IKE SA beside this one.
pub(super) fn begin(sa: &mut IkeSa, cx: &mut Context<'_>) {
    if sa.replaced() {
        return;
    }
    sa.rekey_at = cx.now.after(LATER);
    cx.out.reauthenticate.push(sa.key);
}

/// The new IKE SA has made what the old one had: if it has all of it, the old one goes.
pub(super) fn retire(sa: &mut IkeSa, cx: &mut Context<'_>) {
    if let Some(old) = sa.succeeds.take() {
        let has: Vec<Arc<Connection>> = sa.children.iter().map(|child| child.connection.clone()).collect();
        cx.out.retired.push((old, sa.key, has));
    }
}

impl IkeSa {
    /// What the old IKE SA had and this does not have yet is made here, one after the other.
    pub(crate) fn succeed(&mut self, children: Vec<Arc<Connection>>) {
        for connection in children {
            if !self.children.iter().any(|child| child.connection.name == connection.name) {
                self.task(Task::Child { connection, rekeys: None, group: None });
            }
        }
        self.task(Task::Retire);
    }
}
