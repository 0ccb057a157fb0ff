//! Eroutes and packets as numbers: which bits of a packet an eroute looks at, its [`Shape`], and what these are, its [`Tuple`].

use core::hash::Hash;
use core::net::IpAddr;
use core::ops::BitAnd;
use ipnet::IpNet;
use ipsec_core::{Flow, Selector};

/// An address as a number.
pub(super) trait Word: Copy + Ord + Hash + BitAnd<Output = Self> {
    /// Lengths at which networks are cut, ascending: an eroute may be kept by so many leading bits.
    const STEPS: &'static [u8];

    /// All bits set.
    const ALL: Self;

    /// An address of this family; 0 for one of the other.
    fn of(ip: IpAddr) -> Self;

    /// Whether it is in the network.
    fn is_in(self, net: &IpNet) -> bool;

    /// The leading `len` bits.
    fn prefix(self, len: u8) -> Self;
}

impl Word for u32 {
    const ALL: Self = Self::MAX;
    const STEPS: &'static [u8] = &[0, 8, 16, 20, 24, 28, 32];

    #[inline]
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.to_bits(),
            IpAddr::V6(_) => 0,
        }
    }

    #[inline]
    fn is_in(self, net: &IpNet) -> bool {
        matches!(net, IpNet::V4(net) if (self ^ net.addr().to_bits()).prefix(net.prefix_len()) == 0)
    }

    #[inline]
    fn prefix(self, len: u8) -> Self {
        self & Self::MAX.checked_shl(Self::BITS.saturating_sub(Self::from(len))).unwrap_or(0)
    }
}

impl Word for u128 {
    const ALL: Self = Self::MAX;
    const STEPS: &'static [u8] = &[0, 16, 32, 40, 48, 56, 64, 80, 96, 112, 128];

    #[inline]
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V6(ip) => ip.to_bits(),
            IpAddr::V4(_) => 0,
        }
    }

    #[inline]
    fn is_in(self, net: &IpNet) -> bool {
        matches!(net, IpNet::V6(net) if (self ^ net.addr().to_bits()).prefix(net.prefix_len()) == 0)
    }

    #[inline]
    fn prefix(self, len: u8) -> Self {
        self & Self::MAX.checked_shl(Self::BITS.saturating_sub(u32::from(len))).unwrap_or(0)
    }
}

/// Which bits of a packet an eroute looks at. In match order: the better shape is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) src: u8,
    pub(super) dst: u8,
    pub(super) proto: bool,
    pub(super) sport: bool,
    pub(super) dport: bool,
}

/// A packet, or what a shape leaves of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tuple<A> {
    src: A,
    dst: A,
    rest: u64,
}

pub(super) enum Place {
    V4(Shape, Tuple<u32>),
    V6(Shape, Tuple<u128>),
}

pub(super) fn key(s: &Selector) -> Option<Place> {
    let shape = Shape::of(s);
    match (s.src, s.dst) {
        (IpNet::V4(_), IpNet::V4(_)) => Some(Place::V4(shape, Tuple::of(s))),
        (IpNet::V6(_), IpNet::V6(_)) => Some(Place::V6(shape, Tuple::of(s))),
        _ => None,
    }
}

impl<A: Word> Tuple<A> {
    /// All bits set.
    pub(super) const ALL: Self = Self { src: A::ALL, dst: A::ALL, rest: u64::MAX };

    /// The bits that are set in both.
    #[inline]
    pub(super) fn of_both(&self, other: &Self) -> Self {
        Self { src: self.src & other.src, dst: self.dst & other.dst, rest: self.rest & other.rest }
    }

    /// What an eroute with this selector looks for.
    #[inline]
    pub(super) fn of(s: &Selector) -> Self {
        let (src, dst) = (A::of(s.src.network()), A::of(s.dst.network()));
        Self { src, dst, rest: rest(s.proto, s.sport, s.dport) }
    }

    /// Whether a packet is one of those that this is for.
    #[inline]
    pub(super) fn meets(&self, s: &Selector) -> bool {
        let rest = rest(s.proto, s.sport, s.dport);
        self.src.is_in(&s.src)
            && self.dst.is_in(&s.dst)
            && (rest == 0 || Shape::of(s).leaves(self).rest == rest)
    }
}

#[inline]
fn rest(proto: u8, sport: u16, dport: u16) -> u64 {
    u64::from(proto) << 32 | u64::from(sport) << 16 | u64::from(dport)
}

#[inline]
pub(super) fn tuple<A>(src: A, dst: A, flow: &Flow) -> Tuple<A> {
    Tuple { src, dst, rest: rest(flow.proto, flow.sport, flow.dport) }
}

impl Shape {
    /// It looks at nothing.
    pub(super) const NOTHING: Self = Self { src: 0, dst: 0, proto: false, sport: false, dport: false };

    #[inline]
    pub(super) fn of(s: &Selector) -> Self {
        let (src, dst) = (s.src.prefix_len(), s.dst.prefix_len());
        Self { src, dst, proto: s.proto != 0, sport: s.sport != 0, dport: s.dport != 0 }
    }

    /// Whether it looks at all bits that `other` looks at.
    #[inline]
    pub(super) const fn covers(self, other: Self) -> bool {
        self.src >= other.src
            && self.dst >= other.dst
            && self.proto >= other.proto
            && self.sport >= other.sport
            && self.dport >= other.dport
    }

    /// What an eroute or packet is as far as this looks.
    #[inline]
    pub(super) fn leaves<A: Word>(self, packet: &Tuple<A>) -> Tuple<A> {
        let bits = |set: bool, bits: u64| if set { bits } else { 0 };
        let mask = bits(self.proto, 0xff << 32) | bits(self.sport, 0xffff << 16) | bits(self.dport, 0xffff);
        Tuple { src: packet.src.prefix(self.src), dst: packet.dst.prefix(self.dst), rest: packet.rest & mask }
    }
}
