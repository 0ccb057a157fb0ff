//! Addresses that peers are given (RFC 7296 §2.19): who has which, and who had it last.
//!
//! A peer that comes back gets the address it had, for what it knows it by outlives a reconnect. So an address that was
//! given stays with its holder until no other is left for somebody new.

use crate::identity::Id;
use crate::message::IkeSpi;
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

/// Holders that are away and still have an address: more than that, and the one who has been away longest loses it.
const MAX_AWAY: usize = 65_536;

/// One address.
#[derive(Debug)]
struct Lease {
    holder: Vec<u8>,
    /// The IKE SA that uses it, by the name it had when it took it.
    user: Option<IkeSpi>,
    /// When it was given back, in order among all.
    left: u64,
}

/// All addresses that were ever given and are still with whom they were given to.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    by_address: BTreeMap<IpAddr, Lease>,
    by_holder: BTreeSet<(Vec<u8>, IpAddr)>,
    away: BTreeSet<(u64, IpAddr)>,
    /// The first address of a range that may be new: all before it were given.
    next: BTreeMap<(IpAddr, IpAddr), IpAddr>,
    turn: u64,
}

/// Who asks for an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taker<'a> {
    /// Who it is, as [`holder`] writes it.
    pub(crate) holder: &'a [u8],
    /// Its IKE SA.
    pub(crate) ike: IkeSpi,
    /// An older IKE SA of the same peer is about to go, and its address may be taken from it.
    pub(crate) supersedes: bool,
    /// The address it would like.
    pub(crate) wants: Option<IpAddr>,
}

/// In the type of a holder: it has proved who it is by a shared secret. Who knows the secret of a group can say that it is
/// anybody, and must not have what somebody with a password or a certificate has.
const BY_SECRET: u8 = 0x80;

/// A peer as leases know it: its identity, exactly, but for case in names of hosts, and whether that rests on a shared secret.
pub(crate) fn holder(id: &Id, by_secret: bool) -> Vec<u8> {
    let body = id.body();
    let mut octets = vec![body.kind | if by_secret { BY_SECRET } else { 0 }];
    match id {
        Id::Fqdn(name) => octets.extend(name.to_ascii_lowercase().into_bytes()),
        Id::Address(_) | Id::Mail(_) | Id::Name(_) | Id::Key(_) => octets.extend(body.data),
    }
    octets
}

fn within(ranges: &[(IpAddr, IpAddr)], address: IpAddr) -> bool {
    ranges
        .iter()
        .any(|(first, last)| first.is_ipv4() == address.is_ipv4() && *first <= address && address <= *last)
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => a.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(a) => a.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

impl Leases {
    /// An address from one of the ranges, which are of one family; and whether it is new to its holder. Asking twice for
    /// one IKE SA gives the same.
    pub(crate) fn take(&mut self, ranges: &[(IpAddr, IpAddr)], taker: Taker<'_>) -> Option<(IpAddr, bool)> {
        if let Some(address) = self.own(ranges, taker) {
            self.assign(address, taker);
            return Some((address, false));
        }
        let wanted = taker.wants.filter(|a| within(ranges, *a) && !self.by_address.contains_key(a));
        let crowded = self.away.len() >= MAX_AWAY;
        let fresh = if crowded { None } else { wanted.or_else(|| self.fresh(ranges)) };
        let longest_away = || self.away.iter().map(|(_, address)| *address).find(|a| within(ranges, *a));
        let address = fresh.or_else(longest_away)?;
        self.assign(address, taker);
        Some((address, true))
    }

    /// What this peer has had before, and nobody else uses.
    fn own(&self, ranges: &[(IpAddr, IpAddr)], taker: Taker<'_>) -> Option<IpAddr> {
        let from = (taker.holder.to_vec(), IpAddr::from([0; 4]));
        let mut own = self
            .by_holder
            .range(from..)
            .take_while(|(holder, _)| holder == taker.holder)
            .map(|(_, address)| *address)
            .filter(|address| within(ranges, *address));
        let user = |address: &IpAddr| self.by_address.get(address).and_then(|lease| lease.user);
        let all: Vec<IpAddr> = own.by_ref().collect();
        let mine = all.iter().find(|address| user(address) == Some(taker.ike));
        mine.or_else(|| all.iter().find(|address| user(address).is_none() || taker.supersedes)).copied()
    }

    fn fresh(&mut self, ranges: &[(IpAddr, IpAddr)]) -> Option<IpAddr> {
        for range in ranges {
            let mut at = Some(*self.next.get(range).unwrap_or(&range.0));
            while let Some(address) = at.filter(|address| *address <= range.1) {
                self.next.insert(*range, address);
                if !self.by_address.contains_key(&address) {
                    return Some(address);
                }
                at = after(address);
            }
        }
        None
    }

    fn assign(&mut self, address: IpAddr, taker: Taker<'_>) {
        let lease = Lease { holder: taker.holder.to_vec(), user: Some(taker.ike), left: 0 };
        if let Some(old) = self.by_address.insert(address, lease) {
            self.by_holder.remove(&(old.holder, address));
            self.away.remove(&(old.left, address));
        }
        self.by_holder.insert((taker.holder.to_vec(), address));
    }

    /// The IKE SA that took the address is gone. If another has it meanwhile, nothing happens.
    pub(crate) fn give_back(&mut self, address: IpAddr, ike: IkeSpi) {
        self.turn = self.turn.saturating_add(1);
        if let Some(lease) = self.by_address.get_mut(&address).filter(|lease| lease.user == Some(ike)) {
            (lease.user, lease.left) = (None, self.turn);
            self.away.insert((self.turn, address));
        }
    }

    /// Notes who had an address before this endpoint was there.
    pub(crate) fn restore(&mut self, address: IpAddr, holder: &[u8]) {
        if self.by_address.get(&address).is_some_and(|lease| lease.user.is_some()) {
            return;
        }
        let ike = IkeSpi(0);
        self.assign(address, Taker { holder, ike, supersedes: false, wants: None });
        self.give_back(address, ike);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a(last: u8) -> IpAddr {
        [10, 9, 0, last].into()
    }

    fn take(leases: &mut Leases, pool: (u8, u8), holder: &str, ike: u64) -> Option<IpAddr> {
        let taker = Taker { holder: holder.as_bytes(), ike: IkeSpi(ike), supersedes: false, wants: None };
        leases.take(&[(a(pool.0), a(pool.1))], taker).map(|(address, _)| address)
    }

    #[test]
    fn who_comes_back_gets_what_it_had_as_long_as_others_find_room() {
        let mut leases = Leases::default();
        let pool = (1, 3);
        assert_eq!(take(&mut leases, pool, "alice", 1), Some(a(1)));
        assert_eq!(take(&mut leases, pool, "bob", 2), Some(a(2)));
        leases.give_back(a(1), IkeSpi(1));
        leases.give_back(a(2), IkeSpi(2));
        // A free one is there: nobody loses what it had.
        assert_eq!(take(&mut leases, pool, "carol", 3), Some(a(3)));
        assert_eq!(take(&mut leases, pool, "bob", 4), Some(a(2)));
        // None is free: alice has been away, bob and carol are there.
        assert_eq!(take(&mut leases, pool, "dave", 5), Some(a(1)));
        assert_eq!(take(&mut leases, pool, "alice", 6), None, "the pool is full");
        leases.give_back(a(3), IkeSpi(3));
        assert_eq!(take(&mut leases, pool, "alice", 6), Some(a(3)));
    }

    #[test]
    fn an_address_in_use_is_nobody_elses_whatever_is_asked() {
        let mut leases = Leases::default();
        assert_eq!(take(&mut leases, (1, 9), "alice", 1), Some(a(1)));
        // The same peer from a second device gets another, unless the first is about to go.
        assert_eq!(take(&mut leases, (1, 9), "alice", 2), Some(a(2)));
        let ask = |leases: &mut Leases, holder: &'static [u8], ike, supersedes, wants| {
            let taker = Taker { holder, ike: IkeSpi(ike), supersedes, wants };
            leases.take(&[(a(1), a(9))], taker)
        };
        assert_eq!(ask(&mut leases, b"alice", 3, true, None), Some((a(1), false)));
        // What the old IKE SA gives back is not its own any more.
        leases.give_back(a(1), IkeSpi(1));
        assert_eq!(ask(&mut leases, b"bob", 4, false, Some(a(1))), Some((a(3), true)));
        // A wish is granted inside the pool alone.
        assert_eq!(ask(&mut leases, b"carol", 5, false, Some(a(7))), Some((a(7), true)));
        assert_eq!(ask(&mut leases, b"dave", 6, false, Some(a(77))), Some((a(4), true)));
        // Asking again for the same IKE SA changes nothing.
        assert_eq!(ask(&mut leases, b"dave", 6, false, None), Some((a(4), false)));
    }

    #[test]
    fn what_was_noted_before_a_restart_holds_and_an_endless_pool_does_not_grow_for_ever() {
        let mut leases = Leases::default();
        leases.restore(a(5), b"alice");
        assert_eq!(take(&mut leases, (1, 9), "alice", 1), Some(a(5)));
        leases.restore(a(5), b"mallory");
        assert_eq!(take(&mut leases, (1, 9), "alice", 1), Some(a(5)), "it is in use");
        let range: (IpAddr, IpAddr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::ffff:ffff".parse().unwrap());
        let mut leases = Leases::default();
        for n in 0..70_000_u64 {
            let holder = n.to_be_bytes();
            let taker = Taker { holder: &holder, ike: IkeSpi(n + 1), supersedes: false, wants: None };
            let (address, _) = leases.take(&[range], taker).unwrap();
            leases.give_back(address, IkeSpi(n + 1));
        }
        assert_eq!(leases.by_address.len(), MAX_AWAY);
        assert_eq!((leases.by_holder.len(), leases.away.len()), (MAX_AWAY, MAX_AWAY));
    }

    #[test]
    fn case_counts_where_it_makes_another_peer() {
        let id = |text: &str| holder(&Id::parse(text).unwrap(), false);
        assert_eq!(id("@West.example.org"), id("@west.example.org"));
        assert_ne!(id("Alice@example.org"), id("alice@example.org"));
        assert_ne!(id("@192.0.2.1"), id("192.0.2.1"));
        let alice = Id::parse("@alice").unwrap();
        assert_ne!(holder(&alice, false), holder(&alice, true), "who only knows a secret is another");
    }
}
