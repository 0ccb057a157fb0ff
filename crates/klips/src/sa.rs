//! One SA in use, shared by all workers (RFC 4301 §4.4.2).
//!
//! What never changes is plain data; what changes is atomic, or behind the window's lock, and is touched once per
//! *batch*: one reservation for n sequence numbers, one charge for n packets, one lock for a run of received ones.
//! What an SA is to its key manager (lifetimes in seconds, identities, pairs, cookies) is in [`crate::sadb`].

use crate::comp::Luck;
use crate::discard::{Counters, Discard};
use crate::path_mtu::PathMtu;
use crate::tfc::Hiding;
use crate::window::Window;
use core::fmt;
use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use ipsec_core::algorithm::Suite;
use ipsec_core::transform::{KeyError, Mac, Transform};
use ipsec_core::{Flow, Protocol, SaId, Selector, Time};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use zeroize::Zeroizing;

/// Tunnel or transport mode (RFC 4301 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A whole IP packet inside.
    Tunnel,
    /// The transport payload inside, the IP header kept.
    Transport,
}

/// The life of an SA (RFC 2367 §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SaState {
    /// Reserved by GETSPI; carries nothing.
    Larval = 0,
    /// In use.
    Mature = 1,
    /// In use, past a soft limit.
    Dying = 2,
    /// Past a hard limit; carries nothing.
    Dead = 3,
}

/// UDP encapsulation of ESP (RFC 3948): the ports, host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encapsulation {
    /// Our port.
    pub local: u16,
    /// The peer's port.
    pub remote: u16,
}

/// Key material, wiped when dropped; `Debug` shows lengths only.
#[derive(Clone, Default)]
pub struct Keys {
    /// Encryption key with its salt last, where the cipher has one.
    pub encryption: Zeroizing<Vec<u8>>,
    /// Integrity key.
    pub auth: Zeroizing<Vec<u8>>,
    /// See [`Transform::new`].
    pub iv: Zeroizing<[u8; 16]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} + {} octets)", self.encryption.len(), self.auth.len())
    }
}

/// Limits of what it carries; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes after which the key manager is told, once.
    pub soft_bytes: u64,
    /// Bytes after which the SA carries nothing more.
    pub hard_bytes: u64,
    /// Packets after which the key manager is told, once.
    pub soft_packets: u64,
    /// Packets after which the SA carries nothing more.
    pub hard_packets: u64,
}

/// What an SA is made of.
#[derive(Debug)]
pub struct Blueprint {
    /// Its name; the destination is the outer one.
    pub id: SaId,
    /// The outer source; unspecified if any peer may send on it.
    pub src: IpAddr,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Algorithms.
    pub suite: Suite,
    /// Keys for them, lengths already checked.
    pub keys: Keys,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Width of the replay window in packets; 0 for no replay protection.
    pub window: u32,
    /// UDP encapsulation.
    pub encapsulation: Option<Encapsulation>,
    /// What inner packets may be, seen from sender to receiver (RFC 4301 §5.2).
    pub selector: Option<Selector>,
    /// Limits of what it carries.
    pub limits: Limits,
}

/// Above the number that policy knows an SA by.
const BY_POLICY: u64 = 1 << 32;

/// One SA in use.
#[derive(Debug)]
pub struct Sa {
    /// Its name; the destination is the outer one.
    pub id: SaId,
    /// The outer source; unspecified if any peer may send on it.
    pub src: IpAddr,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Algorithms.
    pub suite: Suite,
    /// Extended sequence numbers.
    pub esn: bool,
    /// What inner packets may be, seen from sender to receiver.
    pub selector: Option<Selector>,
    /// What else they may be. Most SAs have one selector, which is looked at first and where it lies.
    more: Option<Arc<[Selector]>>,
    /// UDP encapsulation: our port. That of the peer is below, for a NAT may change it.
    local_port: Option<u16>,
    remote_port: AtomicU16,
    /// It has moved: there is another of the same keys and numbers, between other addresses.
    superseded: AtomicBool,
    /// What the way between these addresses can carry.
    path_mtu: PathMtu,
    pub(crate) live: Arc<Live>,
}

/// What of an SA stays the same wherever it moves.
#[derive(Debug)]
pub(crate) struct Live {
    keys: Keys,
    transform: OnceLock<Result<Box<Transform>, KeyError>>,
    mac: OnceLock<Result<Box<Mac>, KeyError>>,
    /// How compression has gone; IPComp's alone.
    luck: Luck,
    state: AtomicU8,
    /// The replay window; `None` without replay protection.
    pub(crate) window: Option<Mutex<Window>>,
    /// Packets come on it and never go: an eroute may not name it.
    receives_only: AtomicBool,
    /// It carries inner packets of either family, whatever family its selector is written in.
    either_family: AtomicBool,
    /// Inbound policy says what may come on it: [`BY_POLICY`], and the number that policy may ask for.
    policy: AtomicU64,
    /// TFC padding and dummy packets.
    hiding: Hiding,
    sent: AtomicU64,
    soft_bytes: AtomicU64,
    hard_bytes: AtomicU64,
    soft_packets: AtomicU64,
    hard_packets: AtomicU64,
    told_soft: AtomicU8,
    bytes: AtomicU64,
    packets: AtomicU64,
    first_use: AtomicU64,
    last_use: AtomicU64,
    /// Made at the first refusal: most SAs have none.
    refused: OnceLock<Counters>,
}

/// What [`Sa::charge`] allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    /// How many of the packets may pass: all of them, or those before the hard limit.
    pub admitted: u64,
    /// How many packets the SA has carried before these.
    pub before: u64,
    /// This was the SA's first use.
    pub first: bool,
    /// The soft limit was crossed just now.
    pub soft: bool,
    /// The hard limit was reached just now.
    pub hard: bool,
}

impl Sa {
    /// Puts together an SA that is mature and unused.
    pub fn new(b: Blueprint) -> Self {
        Self {
            id: b.id,
            src: b.src,
            mode: b.mode,
            suite: b.suite,
            esn: b.esn,
            local_port: b.encapsulation.map(|udp| udp.local),
            remote_port: AtomicU16::new(b.encapsulation.map_or(0, |udp| udp.remote)),
            selector: b.selector,
            more: None,
            superseded: AtomicBool::new(false),
            path_mtu: PathMtu::default(),
            live: Arc::new(Live {
                keys: b.keys,
                transform: OnceLock::new(),
                mac: OnceLock::new(),
                luck: Luck::default(),
                state: AtomicU8::new(SaState::Mature as u8),
                // With ESN the window also says which high half a packet means (RFC 4303 §2.2.1), so it is always there.
                window: (b.window > 0 || b.esn).then(|| Mutex::new(Window::new(b.window))),
                receives_only: AtomicBool::new(false),
                either_family: AtomicBool::new(false),
                policy: AtomicU64::new(0),
                hiding: Hiding::default(),
                sent: AtomicU64::new(0),
                soft_bytes: AtomicU64::new(b.limits.soft_bytes),
                hard_bytes: AtomicU64::new(b.limits.hard_bytes),
                soft_packets: AtomicU64::new(b.limits.soft_packets),
                hard_packets: AtomicU64::new(b.limits.hard_packets),
                told_soft: AtomicU8::new(0),
                bytes: AtomicU64::new(0),
                packets: AtomicU64::new(0),
                first_use: AtomicU64::new(0),
                last_use: AtomicU64::new(0),
                refused: OnceLock::new(),
            }),
        }
    }

    /// The same SA, of which inner packets may also be any of these (RFC 4301 §4.4.1.1: selectors are lists).
    #[must_use]
    pub fn with_more(self, more: Vec<Selector>) -> Self {
        Self { more: (!more.is_empty()).then(|| more.into()), ..self }
    }

    /// The keyed algorithms of ESP; the key schedule is built on first use, so an idle SA stays small.
    pub(crate) fn transform(&self) -> Option<&Transform> {
        self.live
            .transform
            .get_or_init(|| {
                Transform::new(
                    self.suite,
                    &self.live.keys.encryption,
                    &self.live.keys.auth,
                    &self.live.keys.iv,
                )
                .map(Box::new)
            })
            .as_deref()
            .ok()
    }

    /// The keyed algorithm of AH, likewise; `None` for any other SA.
    pub(crate) fn mac(&self) -> Option<&Mac> {
        let auth = self.suite.auth.filter(|_| self.id.protocol == Protocol::Ah)?;
        self.live.mac.get_or_init(|| Mac::new(auth, &self.live.keys.auth).map(Box::new)).as_deref().ok()
    }

    /// How compression has gone.
    pub(crate) fn luck(&self) -> &Luck {
        &self.live.luck
    }

    /// The keys, for GET and DUMP alone (pf_key(7P)).
    pub(crate) fn keys(&self) -> &Keys {
        &self.live.keys
    }

    /// Where the SA is in its life.
    pub fn state(&self) -> SaState {
        match self.live.state.load(Ordering::Acquire) {
            0 => SaState::Larval,
            1 => SaState::Mature,
            2 => SaState::Dying,
            _ => SaState::Dead,
        }
    }

    /// Moves the SA on in its life. There is no way back: a smaller state is ignored.
    pub(crate) fn advance(&self, state: SaState) {
        self.live.state.fetch_max(state as u8, Ordering::AcqRel);
    }

    /// Says whether packets may use it: mature or dying.
    pub fn is_alive(&self) -> bool {
        matches!(self.state(), SaState::Mature | SaState::Dying) && !self.superseded.load(Ordering::Acquire)
    }

    /// The same SA between other addresses or ports: keys, numbers, window and counters are shared, so that whoever still
    /// sends on this one gives out no number twice.
    pub(crate) fn moved(&self, id: SaId, src: IpAddr, encapsulation: Option<Encapsulation>) -> Self {
        Self {
            id,
            src,
            mode: self.mode,
            suite: self.suite,
            esn: self.esn,
            local_port: encapsulation.map(|udp| udp.local),
            remote_port: AtomicU16::new(encapsulation.map_or(0, |udp| udp.remote)),
            selector: self.selector,
            more: self.more.clone(),
            superseded: AtomicBool::new(false),
            path_mtu: PathMtu::default(),
            live: Arc::clone(&self.live),
        }
    }

    /// The same SA where it is, to be put together with others, or apart: whoever remembers it as it was looks again.
    pub(crate) fn again(&self) -> Self {
        self.moved(self.id, self.src, self.encapsulation())
    }

    /// The same SA where it is, for packets of this selector only.
    pub(crate) fn narrowed(&self, selector: Selector) -> Self {
        self.live.either_family.store(false, Ordering::Relaxed);
        Self { selector: Some(selector), more: None, ..self.again() }
    }

    /// Whether both are one SA: the same keys, numbers and counters.
    pub(crate) fn is_same_life(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.live, &other.live)
    }

    /// It has moved: whoever remembers this one looks again.
    pub(crate) fn supersede(&self) {
        self.superseded.store(true, Ordering::Release);
    }

    /// Changes the limits (UPDATE).
    pub(crate) fn limit(&self, limits: Limits) {
        self.live.soft_bytes.store(limits.soft_bytes, Ordering::Relaxed);
        self.live.hard_bytes.store(limits.hard_bytes, Ordering::Relaxed);
        self.live.soft_packets.store(limits.soft_packets, Ordering::Relaxed);
        self.live.hard_packets.store(limits.hard_packets, Ordering::Relaxed);
    }

    /// Reserves up to `n` sequence numbers and returns the first and how many there are, or `None` when none is left: they
    /// end, they never wrap.
    ///
    //= https://www.rfc-editor.org/rfc/rfc4303#section-3.3.3
    //# The sender MUST NOT send a packet on an SA if doing so would cause the sequence number to cycle.
    pub(crate) fn reserve(&self, n: u64) -> Option<(u64, u64)> {
        let end = if self.esn { u64::MAX } else { u64::from(u32::MAX) };
        let granted = |sent: u64| n.min(end.saturating_sub(sent));
        let sent = self
            .live
            .sent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sent| {
                sent.checked_add(granted(sent)).filter(|last| *last > sent)
            })
            .ok()?;
        Some((sent.checked_add(1)?, granted(sent)))
    }

    /// Packets come on this SA and never go.
    pub(crate) fn only_receive(&self) {
        self.live.receives_only.store(true, Ordering::Relaxed);
    }

    /// Whether packets may go on it now.
    pub(crate) fn may_send(&self) -> bool {
        self.is_alive() && !self.live.receives_only.load(Ordering::Relaxed)
    }

    /// Hides its packets from now on, or no more: it must not be in use yet.
    #[doc(hidden)] // Control's, and the simulation's.
    pub fn hide(&self, tfc: pfkey::Tfc) {
        self.live.hiding.set(tfc);
    }

    /// What hides its packets.
    pub(crate) fn hiding(&self) -> &Hiding {
        &self.live.hiding
    }

    /// Octets of TFC padding sent, those of dummy packets not among them, and dummy packets.
    pub fn hidden(&self) -> (u64, u64) {
        self.live.hiding.sent()
    }

    /// Whether it pads what it sends.
    pub(crate) fn pads(&self) -> bool {
        self.live.hiding.pad() != 0 && !self.live.receives_only.load(Ordering::Relaxed)
    }

    /// Has inbound policy say what may come on it, by this number.
    pub(crate) fn judge_by_policy(&self, reqid: u32) {
        self.live.policy.store(BY_POLICY | u64::from(reqid), Ordering::Relaxed);
    }

    /// The number that inbound policy knows it by; `None` where its selector says all.
    pub(crate) fn reqid(&self) -> Option<u32> {
        let policy = self.live.policy.load(Ordering::Relaxed);
        (policy & BY_POLICY != 0).then_some(policy as u32)
    }

    /// It carries inner packets of either family.
    pub(crate) fn carry_either_family(&self) {
        self.live.either_family.store(true, Ordering::Relaxed);
    }

    /// UDP encapsulation as it is now.
    pub fn encapsulation(&self) -> Option<Encapsulation> {
        let remote = self.remote_port.load(Ordering::Relaxed);
        self.local_port.map(|local| Encapsulation { local, remote })
    }

    /// The peer's UDP port is another now (RFC 3948 §3, RFC 7296 §2.23). Says whether that is news.
    #[doc(hidden)] // Control's, and the simulation's.
    pub fn follow(&self, port: u16) -> bool {
        self.local_port.is_some() && self.remote_port.swap(port, Ordering::Relaxed) != port
    }

    /// What is known of the way that its packets take.
    #[inline]
    pub(crate) const fn path_mtu(&self) -> &PathMtu {
        &self.path_mtu
    }

    /// What inner packets may be in tunnel mode; in transport mode there are none.
    pub(crate) fn inner(&self) -> Option<Selector> {
        self.selector.filter(|_| self.mode == Mode::Tunnel)
    }

    /// What else they may be in tunnel mode.
    pub(crate) const fn more(&self) -> Option<&Arc<[Selector]>> {
        match self.mode {
            Mode::Tunnel => self.more.as_ref(),
            Mode::Transport => None,
        }
    }

    /// All its selectors; none are all packets.
    pub(crate) fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.selector.iter().chain(self.more.iter().flat_map(|more| more.iter()))
    }

    /// Whether a packet of this flow matches one of its selectors, or it has none.
    pub(crate) fn selects(&self, flow: &Flow) -> bool {
        self.selector.is_none_or(|selector| selector.matches(flow))
            || self.more.as_ref().is_some_and(|more| more.iter().any(|one| one.matches(flow)))
    }

    /// Whether an inner packet of this flow may travel on it (RFC 4301 §5.2).
    pub(crate) fn entitles(&self, flow: &Flow) -> bool {
        self.selects(flow) || self.live.either_family.load(Ordering::Relaxed)
    }

    /// Accounts for `n` packets of `size` inner octets each, all at once, and says how many of them may pass.
    ///
    /// The hard limit is reached by the packet that would bring the total to it; that packet and those after it are
    /// refused and not counted (pf_key(7P) as illumos does it).
    pub(crate) fn charge(&self, n: u64, size: u64, now: Time) -> Charge {
        let counted = self.count_packets(n);
        let granted = counted.map_or(n, |(_, granted)| granted);
        let hard = self.live.hard_bytes.load(Ordering::Relaxed);
        let mut admitted = granted;
        let before = if hard == 0 {
            self.live.bytes.fetch_add(granted.saturating_mul(size), Ordering::Relaxed)
        } else {
            let mut current = self.live.bytes.load(Ordering::Relaxed);
            loop {
                let room = hard.saturating_sub(1).saturating_sub(current);
                admitted = room.checked_div(size).map_or(granted, |fit| fit.min(granted));
                let next = current.saturating_add(admitted.saturating_mul(size));
                match self.live.bytes.compare_exchange_weak(
                    current,
                    next,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(before) => break before,
                    Err(other) => current = other,
                }
            }
        };
        let packets = match counted {
            None => self.live.packets.fetch_add(admitted, Ordering::Relaxed),
            Some((before, granted)) => {
                self.live.packets.fetch_sub(granted.saturating_sub(admitted), Ordering::Relaxed);
                before
            }
        };
        self.live.last_use.store(now.as_nanos(), Ordering::Relaxed);
        let first = self.live.first_use.load(Ordering::Relaxed) == 0
            && self
                .live
                .first_use
                .compare_exchange(0, now.as_nanos().max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        let after = before.saturating_add(admitted.saturating_mul(size));
        let reached = |limit: &AtomicU64, count: u64| {
            let limit = limit.load(Ordering::Relaxed);
            limit != 0 && count >= limit
        };
        let soft = (reached(&self.live.soft_bytes, after)
            || reached(&self.live.soft_packets, packets.saturating_add(admitted)))
            && self.live.told_soft.swap(1, Ordering::Relaxed) == 0;
        Charge { admitted, before: packets, first, soft, hard: admitted < n && self.die() }
    }

    /// Counts as many of `n` packets as a limit of packets lets pass, and says how many there were and how many of these pass.
    /// `None` without such a limit.
    fn count_packets(&self, n: u64) -> Option<(u64, u64)> {
        let hard = Some(self.live.hard_packets.load(Ordering::Relaxed)).filter(|hard| *hard != 0)?;
        let granted = |before: u64| n.min(hard.saturating_sub(1).saturating_sub(before));
        let count = |before: u64| Some(before.saturating_add(granted(before)));
        let counted = self.live.packets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        let (Ok(before) | Err(before)) = counted;
        Some((before, granted(before)))
    }

    /// Whether it carries only so much.
    pub(crate) fn is_limited(&self) -> bool {
        self.live.hard_bytes.load(Ordering::Relaxed) != 0
            || self.live.hard_packets.load(Ordering::Relaxed) != 0
    }

    /// Makes the SA dead; true for the one caller who did it.
    pub(crate) fn die(&self) -> bool {
        self.live.state.fetch_max(SaState::Dead as u8, Ordering::AcqRel) < SaState::Dead as u8
    }

    /// Inner octets carried.
    pub fn bytes(&self) -> u64 {
        self.live.bytes.load(Ordering::Relaxed)
    }

    /// Packets carried.
    pub fn packets(&self) -> u64 {
        self.live.packets.load(Ordering::Relaxed)
    }

    /// The last sequence number sent.
    pub fn sent(&self) -> u64 {
        self.live.sent.load(Ordering::Relaxed)
    }

    /// The highest sequence number received; 0 if none, or without a window to remember it.
    pub fn received(&self) -> u64 {
        self.live.window.as_ref().map_or(0, |window| window.lock().right())
    }

    /// Continues sending after `last` (SADB_X_EXT_REPLAY_VALUE, tests near the end of the numbers), unless it is further
    /// already: whatever message comes, and whenever, no number is given out twice.
    #[doc(hidden)] // Control's, and the simulation's.
    pub fn continue_after(&self, last: u64) {
        self.live.sent.fetch_max(last, Ordering::Relaxed);
    }

    /// Takes every number up to `last` for received (SADB_X_EXT_REPLAY_VALUE of an inbound SA), unless the window is
    /// further already: what was recorded before an SA was saved is refused after it was loaded.
    #[doc(hidden)] // Control's, and the simulation's.
    pub fn received_up_to(&self, last: u64) {
        if let Some(window) = &self.live.window {
            window.lock().skip_to(last);
        }
    }

    /// Counts `n` packets that came for this SA and were refused for `why`: which peer sends rubbish is the first question
    /// asked of a counter that grows.
    pub(crate) fn refuse(&self, why: Discard, n: u64) {
        self.live.refused.get_or_init(Counters::default).add(why, n);
    }

    /// How many packets were refused for each reason; what never happened is left out.
    pub fn refused(&self) -> Vec<(Discard, u64)> {
        let Some(counters) = self.live.refused.get() else { return Vec::new() };
        Discard::ALL.iter().map(|why| (*why, counters.count(*why))).filter(|(_, n)| *n != 0).collect()
    }

    /// When the first packet passed.
    pub fn first_use(&self) -> Option<Time> {
        Some(self.live.first_use.load(Ordering::Relaxed)).filter(|at| *at != 0).map(Time::from_nanos)
    }

    /// When the last packet passed.
    pub fn last_use(&self) -> Option<Time> {
        Some(self.live.last_use.load(Ordering::Relaxed)).filter(|at| *at != 0).map(Time::from_nanos)
    }
}

#[cfg(test)]
mod tests;
