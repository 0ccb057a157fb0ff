//! One record of a dialect: the base header and its extensions, each at most once and as long as its type is.
//!
//! Dialects number and measure extensions each in its own way ([`Layout`]); what is in them they share with RFC 2367, and
//! that is read here. What only one dialect has it reads itself.

use crate::message;
use crate::{Address, Base, Diagnostic as D, ExtType, Fault, Identity, Key, Lifetime, Sa};
use core::marker::PhantomData;

/// More extension types than any dialect has, 0 included.
const TYPES: usize = 33;

/// The numbers and lengths of a dialect's extensions.
pub trait Layout {
    /// The highest number.
    const MAX: u16;
    /// ESP in UDP: the extensions of its type, of the source's port and of the destination's.
    const NAT_T: [u16; 3];

    /// Whether an extension of this number may have so many octets, header included.
    fn fits(number: u16, len: usize) -> bool;
}

/// A record that has been looked over.
pub struct Record<'m, L> {
    /// The base header; its SA type is the dialect's, its diagnostic the reserved field.
    pub base: Base,
    extensions: [Option<&'m [u8]>; TYPES],
    layout: PhantomData<L>,
}

/// The base header of a record, were it ever so short.
pub(super) fn base(octets: &[u8]) -> Base {
    octets.first_chunk().map_or(Base::parse(&[0; Base::LEN]), Base::parse)
}

impl<'m, L: Layout> Record<'m, L> {
    /// Reads what follows the header; `takes` says which extensions the message may have.
    pub(super) fn read(base: Base, mut rest: &'m [u8], takes: impl Fn(u16) -> bool) -> Result<Self, Fault> {
        const { assert!((L::MAX as usize) < TYPES) };
        let mut extensions = [None; TYPES];
        while !rest.is_empty() {
            let bad = Fault::invalid(D::BadExtlen);
            let &[l0, l1, t0, t1] = rest.first_chunk::<4>().ok_or(bad)?;
            let len = usize::from(u16::from_ne_bytes([l0, l1])).saturating_mul(8);
            let number = u16::from_ne_bytes([t0, t1]);
            let (octets, after) = rest.split_at_checked(len).filter(|_| len != 0).ok_or(bad)?;
            rest = after;
            let known = number != 0 && number <= L::MAX && takes(number);
            let place = extensions.get_mut(usize::from(number)).filter(|_| known);
            let place = place.ok_or(Fault::invalid(D::UnknownExt))?;
            if place.is_some() || !L::fits(number, len) {
                return Err(bad);
            }
            *place = Some(octets);
        }
        Ok(Self { base, extensions, layout: PhantomData })
    }

    /// The octets of an extension, header included.
    pub fn raw(&self, number: u16) -> Option<&'m [u8]> {
        self.extensions.get(usize::from(number)).copied().flatten()
    }

    /// The octet behind an extension's header.
    pub fn octet(&self, number: u16) -> Option<u8> {
        self.raw(number).and_then(|octets| octets.get(4)).copied()
    }

    /// SADB_EXT_SA, or another of its form; what a dialect has behind it is left out.
    pub fn sa(&self, number: u16) -> Result<Sa, Fault> {
        let octets = self.raw(number).ok_or(Fault::invalid(D::MissingSa))?;
        octets.get(..16).and_then(message::sa).ok_or(Fault::invalid(D::MalformedSa))
    }

    /// An address whose family is IPv4 or IPv6.
    pub fn address(&self, number: u16, missing: D, malformed: D) -> Result<Address, Fault> {
        self.address_if(number, malformed)?.ok_or(Fault::invalid(missing))
    }

    /// The same, if it is there.
    pub fn address_if(&self, number: u16, malformed: D) -> Result<Option<Address>, Fault> {
        let Some(octets) = self.raw(number) else { return Ok(None) };
        let address = message::address(octets).filter(|address| address.socket.is_some());
        address.map(Some).ok_or(Fault::invalid(malformed))
    }

    /// A lifetime, if it is there; what a dialect has behind it is left out.
    pub fn lifetime(&self, kind: ExtType) -> Option<Lifetime> {
        self.raw(kind.number()).and_then(|octets| octets.get(..32)).and_then(message::lifetime)
    }

    /// A key, if it is there.
    pub fn key(&self, kind: ExtType, malformed: D) -> Result<Option<Key<'m>>, Fault> {
        let Some(octets) = self.raw(kind.number()) else { return Ok(None) };
        // What Linux wants of NULL, and no key.
        if octets.get(4..6) == Some(&[0; 2]) {
            return Ok(None);
        }
        // What follows the bits is reserved here, and an initial IV on our side.
        let key = message::key(octets, false).ok_or(Fault::invalid(malformed))?;
        Ok(Some(Key { reserved: 0, ..key }))
    }

    /// An identity, if it is there.
    pub fn identity(&self, kind: ExtType) -> Option<Identity<'m>> {
        self.raw(kind.number()).and_then(message::identity)
    }

    /// The type of ESP in UDP and its two ports, 0 where one is not there.
    pub fn nat_t(&self) -> Option<(u8, u16, u16)> {
        let [kind, sport, dport] = L::NAT_T;
        let port = |number| match self.raw(number).and_then(|octets| octets.first_chunk::<8>()) {
            Some(&[_, _, _, _, p0, p1, _, _]) => u16::from_be_bytes([p0, p1]),
            None => 0,
        };
        Some((self.octet(kind)?, port(sport), port(dport)))
    }

    /// SADB_EXT_SPIRANGE: its least and its greatest SPI, each in the dialect's order of octets.
    pub(super) fn spi_range(&self) -> Option<([u8; 4], [u8; 4])> {
        let octets = self.raw(ExtType::SpiRange.number())?.first_chunk::<16>()?;
        let &[_, _, _, _, a, b, c, d, e, f, g, h, ..] = octets;
        Some(([a, b, c, d], [e, f, g, h]))
    }
}
