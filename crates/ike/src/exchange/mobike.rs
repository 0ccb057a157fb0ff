//! MOBIKE (RFC 4555): an IKE SA and its children go on between other addresses, and no key is negotiated anew.
//!
//! The original initiator decides. It says from its new address that it has moved; the responder follows what it saw of
//! that message, and then asks whether anybody is there who can read an answer (§3.7), so that nobody can have a third
//! party flooded with what it is sent.

use super::init;
use super::{notifications, notified, refused};
use crate::connection::{Connection, Encapsulation, Mode};
use crate::event::{Event, Why};
use crate::message::{Exchange, Message, Notify, NotifyKind, Payload};
use crate::outbox::Context;
use crate::sa::{Asked, Child, IkeSa, Placed, Task};
use core::net::{IpAddr, SocketAddr};

/// The most addresses of a peer that are remembered.
const MOST: usize = 8;

/// What is said of it in IKE_AUTH: that we know it, and at which other addresses we can be reached (§3.3, §3.4).
pub(super) fn about_us(sa: &IkeSa, cx: &Context<'_>, connection: &Connection) -> Vec<Payload> {
    if !connection.mobike {
        return Vec::new();
    }
    let mut payloads = vec![crate::sa::notify(NotifyKind::MobikeSupported)];
    payloads.extend(addresses(sa, cx));
    payloads
}

/// Our other addresses of the same kind as the one in use; that there are none is said, too.
fn addresses(sa: &IkeSa, cx: &Context<'_>) -> Vec<Payload> {
    let here = sa.local.ip();
    let others = cx.config.addresses.iter().filter(|address| **address != here).take(MOST);
    let all: Vec<Payload> = others
        .map(|address| match address {
            IpAddr::V4(a) => Notify::new(NotifyKind::AdditionalIp4Address, a.octets().to_vec()),
            IpAddr::V6(a) => Notify::new(NotifyKind::AdditionalIp6Address, a.octets().to_vec()),
        })
        .map(Payload::Notify)
        .collect();
    if all.is_empty() { vec![crate::sa::notify(NotifyKind::NoAdditionalAddresses)] } else { all }
}

/// Takes the peer's word in IKE_AUTH: it is in use if both sides say so.
pub(super) fn agree(sa: &mut IkeSa, connection: &Connection, message: &Message) {
    sa.mobike = connection.mobike && notified(message, NotifyKind::MobikeSupported).is_some();
    take_addresses(sa, message);
}

/// Where else the peer says it can be reached. The list replaces the one before (§3.6).
/// Says whether there was one.
fn take_addresses(sa: &mut IkeSa, message: &Message) -> bool {
    if !sa.mobike {
        return false;
    }
    let address = |notify: &Notify| match notify.kind {
        NotifyKind::AdditionalIp4Address => <[u8; 4]>::try_from(&*notify.data).ok().map(IpAddr::from),
        NotifyKind::AdditionalIp6Address => <[u8; 16]>::try_from(&*notify.data).ok().map(IpAddr::from),
        _ => None,
    };
    let usable =
        |address: &IpAddr| !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
    let all: Vec<IpAddr> = notifications(message).filter_map(address).filter(usable).take(MOST).collect();
    let none = notified(message, NotifyKind::NoAdditionalAddresses).is_some();
    let listed = none || !all.is_empty();
    if listed {
        sa.elsewhere = all;
    }
    listed
}

/// Tells the initiator, from an address that is left to us, where we can be reached (§3.6).
pub(super) fn tell(sa: &mut IkeSa, cx: &mut Context<'_>) {
    let payloads = addresses(sa, cx);
    sa.ask(cx, Exchange::Informational, payloads, Asked::Liveness);
}

/// Tells the peer that we are here now (§3.5).
pub(super) fn begin(sa: &mut IkeSa, cx: &mut Context<'_>) {
    let mut payloads = vec![crate::sa::notify(NotifyKind::UpdateSaAddresses)];
    payloads.extend(nat_detection(sa));
    payloads.extend(addresses(sa, cx));
    cx.out.progress(sa.connection.as_ref(), format!("UPDATE_SA_ADDRESSES: {} to {}", sa.local, sa.remote));
    let ends = (sa.local, sa.remote);
    sa.ask(cx, Exchange::Informational, payloads, Asked::Move(ends));
}

/// NAT detection for where we are, unless a NAT is what we pretend.
fn nat_detection(sa: &IkeSa) -> Vec<Payload> {
    let forced =
        sa.connection.as_ref().is_some_and(|connection| connection.encapsulation == Encapsulation::Yes);
    init::nat_detection(sa.spis(), (sa.local, sa.remote), forced)
}

/// The peer has answered: what it has moved, we move.
pub(super) fn answered(sa: &mut IkeSa, cx: &mut Context<'_>, message: &Message) {
    let Some(Asked::Move(ends)) = sa.granted() else { return };
    if let Some(notify) = refused(message) {
        let why = Why::Refused("to follow us to another address", notify.kind);
        cx.out.progress(sa.connection.as_ref(), why.to_string());
        return;
    }
    // Meanwhile we have moved on: that is said next.
    if ends != (sa.local, sa.remote) {
        sa.task(Task::Move);
        return;
    }
    take_nat(sa, message);
    take_addresses(sa, message);
    sa.moved(cx);
}

/// Takes what a message says of NATs on the way.
fn take_nat(sa: &mut IkeSa, message: &Message) {
    let policy = sa.connection.as_ref().map_or(Encapsulation::Auto, |connection| connection.encapsulation);
    if notified(message, NotifyKind::NatDetectionSourceIp).is_some() {
        let kin = sa.nat.kin;
        sa.nat = init::nat(message, (sa.local, sa.remote), policy);
        sa.nat.kin = kin;
        sa.nat.encapsulate |= kin && policy == Encapsulation::Auto;
    }
}

/// What an INFORMATIONAL request says of addresses: what is answered besides, or the refusal.
pub(super) fn answer(sa: &mut IkeSa, cx: &mut Context<'_>, message: &Message) -> Vec<Payload> {
    if !sa.mobike {
        return Vec::new();
    }
    let ends = sa.heard_at;
    let mut payloads = Vec::new();
    payloads.extend(notified(message, NotifyKind::Cookie2).cloned().map(Payload::Notify));
    if let Some(notify) = notified(message, NotifyKind::NoNatsAllowed)
        && notify.data != no_nats(ends)
    {
        return vec![crate::sa::notify(NotifyKind::UnexpectedNatDetected)];
    }
    let listed = take_addresses(sa, message);
    // Only who began the first IKE SA says where it goes (§2.1, §3.5).
    if sa.began {
        // The responder speaks from elsewhere: there it is to be reached.
        if listed && ends.1.ip() != sa.remote.ip() {
            sa.remote = ends.1;
            sa.task(Task::Move);
        }
    } else if notified(message, NotifyKind::UpdateSaAddresses).is_some() {
        (sa.local, sa.remote) = ends;
        take_nat(sa, message);
        sa.follow(cx, ends);
    }
    if notified(message, NotifyKind::NatDetectionSourceIp).is_some() {
        payloads.extend(nat_detection(sa));
    }
    payloads
}

/// What NO_NATS_ALLOWED holds: the sender's address, the receiver's, and their ports (§4.2.5). Ours is the receiver's.
fn no_nats((local, remote): (SocketAddr, SocketAddr)) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let ports = [remote.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    [octets(remote.ip()), octets(local.ip()), ports].concat()
}

/// Asks whether who says that it has moved can read what is sent there (§3.7).
pub(super) fn check(sa: &mut IkeSa, cx: &mut Context<'_>, cookie: &[u8]) {
    let payloads = vec![Payload::Notify(Notify::new(NotifyKind::Cookie2, cookie.to_vec()))];
    sa.ask(cx, Exchange::Informational, payloads, Asked::Routable(cookie.to_vec(), sa.remote.ip()));
}

/// The answer to that.
pub(super) fn checked(sa: &mut IkeSa, cx: &mut Context<'_>, message: &Message) {
    let Some(Asked::Routable(cookie, there)) = sa.granted() else { return };
    if notified(message, NotifyKind::Cookie2).is_none_or(|notify| notify.data != cookie) {
        sa.close(cx, Why::Protocol("it says it has moved, and does not answer from there (RFC 4555 §3.7)"));
        return;
    }
    // It has gone on meanwhile: what was asked about one address says nothing of another, where it is asked next.
    if there == sa.remote.ip() {
        (sa.routable, sa.unchecked) = (there, None);
        if sa.placed != (sa.local, sa.remote) {
            sa.moved(cx);
        }
    }
}

impl IkeSa {
    /// The peer speaks from elsewhere, and its children follow. Where it has not been heard to answer from it is asked whether
    /// it does (RFC 4555 §3.7), at once or, if it has gone on before without an answer, before they follow: else it could
    /// have a third party flooded for as long as it comes back now and then.
    pub(crate) fn follow(&mut self, cx: &mut Context<'_>, ends: (SocketAddr, SocketAddr)) {
        (self.local, self.remote) = ends;
        let there = ends.1.ip();
        let asks = self.is_established() && self.mobike && !self.began && self.routable != there;
        if self.unchecked.is_some_and(|before| before != there) {
            (self.unchecked, self.wary) = (None, true);
        }
        if asks {
            let mut cookie = vec![0; 16];
            cx.random.fill(&mut cookie);
            self.task(Task::Routable(cookie));
            if self.wary {
                return;
            }
            self.unchecked = Some(there);
        }
        self.moved(cx);
    }

    /// Where new children go.
    pub(crate) const fn place(&self) -> Placed {
        Placed { local: self.local, remote: self.remote, encapsulate: self.nat.encapsulate }
    }

    /// Both sides know where the IKE SA is now: its children go there.
    pub(crate) fn moved(&mut self, cx: &mut Context<'_>) {
        self.placed = (self.local, self.remote);
        let to = self.place();
        // What travels in transport mode is between the very addresses that have changed: it is negotiated anew for those there
        // are now. Another port is only another way (RFC 4555 moves what is in tunnel mode).
        let elsewhere = |child: &Child| {
            let hosts = |placed: &Placed| (placed.local.ip(), placed.remote.ip());
            child.mode == Mode::Transport && hosts(&child.placed) != hosts(&to)
        };
        let left = self.children.iter().filter(|child| elsewhere(child) && !child.replaced());
        let anew: Vec<Task> = left
            .map(|child| {
                let (connection, rekeys) = (child.connection.clone(), Some(child.spi_in));
                Task::Child { connection, rekeys, group: None }
            })
            .collect();
        anew.into_iter().for_each(|task| self.task(task));
        for child in self.children.iter_mut().filter(|child| child.placed != to && !elsewhere(child)) {
            let from = core::mem::replace(&mut child.placed, to);
            cx.out.events.push_back(Event::ChildMoved {
                spi_in: child.spi_in,
                spi_out: child.spi_out,
                from: (from.local, from.remote),
                to: (to.local, to.remote),
                encapsulate: to.encapsulate,
            });
        }
    }

    /// This host has these addresses now, and packets to the peer leave from `local`: where that makes a difference, the peer
    /// is told.
    pub(crate) fn readdress(&mut self, cx: &mut Context<'_>, local: IpAddr) {
        if local == self.local.ip() || local.is_ipv4() != self.remote.is_ipv4() {
            return;
        }
        let wants = self.connection.as_ref().is_some_and(|connection| connection.mobike);
        if !self.is_established() && self.initiator && wants {
            // The responder follows what it hears until both know each other.
            self.local.set_ip(local);
            self.readdressed = true;
            return self.repeat_now(cx);
        }
        if !self.is_established() || !self.mobike {
            return;
        }
        // A responder stays where it is as long as it can: the path is the initiator's choice.
        if !self.began && cx.config.addresses.contains(&self.local.ip()) {
            return;
        }
        self.local.set_ip(local);
        // What is being asked now goes on from here.
        self.repeat_now(cx);
        // What another has replaced only has to say goodbye.
        if self.replaced() {
            return;
        }
        self.task(if self.began { Task::Move } else { Task::Addresses });
        self.next_task(cx);
    }

    /// No answer comes from where the peer was: what it was asked goes to the next of its addresses (§3.10).
    pub(crate) fn try_elsewhere(&mut self) {
        if !self.is_established() || !self.mobike || !self.began {
            return;
        }
        let mut all = vec![self.placed.1.ip()];
        let family = |address: &&IpAddr| address.is_ipv4() == self.local.is_ipv4();
        all.extend(self.elsewhere.iter().filter(family).filter(|address| **address != self.placed.1.ip()));
        let here = all.iter().position(|address| *address == self.remote.ip()).unwrap_or(0);
        if let Some(next) = all.iter().cycle().nth(here.saturating_add(1)) {
            self.remote.set_ip(*next);
        }
    }
}
