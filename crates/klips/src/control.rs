//! One owner of everything that is not a packet: SADB, policy, PF_KEY sockets.
//!
//! Sans-I/O: [`Control::request`] takes one record from a socket, [`Control::notice`] hands out what that or any other
//! socket is to receive. Notices are pulled when a socket can take them, so a DUMP of a million SAs to a slow reader is a
//! cursor, not a queue.

mod view;

pub use crate::keysock::SocketId;
use crate::plane::Plane;
pub use crate::sadb::SpiPolicy;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use ipsec_core::Time;
use std::sync::Arc;
pub use view::{Direction, Lifetime, SaRow, SocketRow, Supported, supported};

/// A source of fresh random octets.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// What control is told once.
pub struct Config {
    /// Seconds since 1970 at [`Time::ZERO`]: PF_KEY speaks wall-clock seconds.
    pub epoch: u64,
    /// Octets of unread notices a socket may hold; more are dropped and counted.
    pub receive_limit: usize,
    /// Fresh random octets for SPIs and IV keys.
    pub random: Random,
    /// So many seconds, chosen at random between these, are taken off the soft `addtime` of outbound SAs, so that many
    /// peers do not all rekey at once; GET shows what is left. `0..=0` is exact.
    pub soft_fuzz: RangeInclusive<u64>,
    /// How GETSPI chooses.
    pub spis: SpiPolicy,
}

impl Config {
    /// The usual: 256 KiB of unread notices, a fuzz of 8 to 23 s, SPIs drawn at random.
    pub fn new(epoch: u64, random: Random) -> Self {
        Self { epoch, receive_limit: 256 << 10, random, soft_fuzz: 8..=23, spis: SpiPolicy::default() }
    }
}

/// The owner.
pub struct Control {
    plane: Arc<Plane>,
    config: Config,
}

impl Control {
    /// An empty SADB and no policy on `plane`.
    pub fn new(plane: Arc<Plane>, config: Config) -> Self {
        Self { plane, config }
    }

    /// A process opened a PF_KEY socket.
    pub fn connect(&mut self, pid: u32, now: Time) -> SocketId {
        let _ = (pid, now, &self.plane, &self.config.epoch);
        SocketId(0)
    }

    /// It closed it.
    pub fn disconnect(&mut self, socket: SocketId) {
        let _ = socket;
    }

    /// One record from a socket. Whatever it answers is a notice.
    pub fn request(&mut self, from: SocketId, octets: &[u8], now: Time) {
        let _ = (from, octets, now);
    }

    /// The next message for a socket, if it has any; carries on with its DUMP.
    pub fn notice(&mut self, to: SocketId, now: Time) -> Option<Vec<u8>> {
        let _ = (to, now);
        None
    }

    /// Takes the sockets that have got notices since last asked.
    pub fn take_ready(&mut self) -> Vec<SocketId> {
        Vec::new()
    }

    /// Acts on what workers found and on every lifetime that has passed. Due at [`Control::deadline`] and whenever
    /// [`Plane::take_wake`] said so.
    pub fn expire(&mut self, now: Time) {
        let _ = now;
    }

    /// When [`Control::expire`] must be called next.
    pub fn deadline(&self) -> Option<Time> {
        None
    }

    /// The addresses configured on this host ("mine" in pf_key(7P)'s direction rules).
    pub fn set_local_addresses(&mut self, addresses: Vec<IpAddr>) {
        let _ = addresses;
    }

    /// Every SA of the SADB, for tables: AH, ESP, IPIP, IPCOMP, IPv4 before IPv6 in each.
    pub fn sas(&self) -> impl Iterator<Item = SaRow> {
        core::iter::empty()
    }

    /// One SA, for tables.
    pub fn sa(&self, id: &ipsec_core::SaId) -> Option<SaRow> {
        let _ = id;
        None
    }

    /// Every PF_KEY socket, oldest first.
    pub fn sockets(&self) -> impl Iterator<Item = SocketRow> {
        core::iter::empty()
    }

    /// Seconds since 1970 at `at`.
    pub fn wall_clock(&self, at: Time) -> u64 {
        self.config.epoch.saturating_add(at.as_secs())
    }
}
