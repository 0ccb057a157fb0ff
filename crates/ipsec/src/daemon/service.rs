//! The PF_KEY service as the daemon offers it: what follows from a change of policy outside the engine has followed before
//! anybody is answered.

use crate::host::interfaces::Interfaces;
use crate::keysock::Service;
use ipsec_core::Time;
use klips::{Control, SocketId};

/// The engine's service, and the interfaces that go by its policy.
pub(super) struct Serving<'a> {
    pub(super) control: &'a mut Control,
    pub(super) interfaces: &'a mut Interfaces,
}

impl Service for Serving<'_> {
    fn connect(&mut self, pid: u32, now: Time) -> SocketId {
        self.control.connect(pid, now)
    }
    fn disconnect(&mut self, socket: SocketId) {
        self.control.disconnect(socket);
    }
    fn request(&mut self, from: SocketId, octets: &[u8], now: Time) {
        self.control.request(from, octets, now);
        self.interfaces.follow_policy();
    }
    fn notice(&mut self, to: SocketId, now: Time) -> Option<Vec<u8>> {
        self.control.notice(to, now)
    }
    fn take_ready(&mut self) -> Vec<SocketId> {
        self.control.take_ready()
    }
}
