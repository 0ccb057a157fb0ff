//! One record of the dialect: the base header and its extensions, each at most once and as long as its type is.

use super::number::ext;
use crate::message;
use crate::{Address, Base, Diagnostic as D, Errno, ExtType, Fault, Identity, Key, Lifetime, Sa};
use core::net::SocketAddr;

/// How many extension types there are, 0 included.
const TYPES: usize = ext::MAX as usize + 1;

/// A record that has been looked over.
pub struct Record<'m> {
    /// The base header; its SA type is the dialect's, its diagnostic the reserved field.
    pub base: Base,
    extensions: [Option<&'m [u8]>; TYPES],
}

/// The base header of a record, were it ever so short.
pub(super) fn base(octets: &[u8]) -> Base {
    octets.first_chunk().map_or(Base::parse(&[0; Base::LEN]), Base::parse)
}

impl<'m> Record<'m> {
    /// Reads a record.
    pub fn parse(octets: &'m [u8]) -> Result<Self, Fault> {
        let (head, mut rest) = octets.split_first_chunk().ok_or(Fault::errno(Errno::EMSGSIZE))?;
        let base = Base::parse(head);
        if base.version != 2 || usize::from(base.words).saturating_mul(8) != octets.len() {
            return Err(Fault::errno(Errno::EINVAL));
        }
        let mut extensions = [None; TYPES];
        while !rest.is_empty() {
            let bad = Fault::invalid(D::BadExtlen);
            let &[l0, l1, t0, t1] = rest.first_chunk::<4>().ok_or(bad)?;
            let len = usize::from(u16::from_ne_bytes([l0, l1])).saturating_mul(8);
            let number = u16::from_ne_bytes([t0, t1]);
            let (octets, after) = rest.split_at_checked(len).filter(|_| len != 0).ok_or(bad)?;
            rest = after;
            let place = extensions.get_mut(usize::from(number)).filter(|_| number != 0);
            let place = place.ok_or(Fault::invalid(D::UnknownExt))?;
            if place.is_some() || !fits(number, len) {
                return Err(bad);
            }
            *place = Some(octets);
        }
        Ok(Self { base, extensions })
    }

    /// The octets of an extension, header included.
    pub fn raw(&self, number: u16) -> Option<&'m [u8]> {
        self.extensions.get(usize::from(number)).copied().flatten()
    }

    /// SADB_EXT_SA.
    pub fn sa(&self) -> Result<Sa, Fault> {
        let octets = self.raw(ExtType::Sa.number()).ok_or(Fault::invalid(D::MissingSa))?;
        message::sa(octets).ok_or(Fault::invalid(D::MalformedSa))
    }

    /// An address whose family is IPv4 or IPv6.
    pub fn address(&self, kind: ExtType, missing: D, malformed: D) -> Result<Address, Fault> {
        self.address_of(kind.number(), malformed)?.ok_or(Fault::invalid(missing))
    }

    /// The same, if it is there.
    pub fn address_of(&self, number: u16, malformed: D) -> Result<Option<Address>, Fault> {
        let Some(octets) = self.raw(number) else { return Ok(None) };
        let address = message::address(octets).filter(|address| address.socket.is_some());
        address.map(Some).ok_or(Fault::invalid(malformed))
    }

    /// Source and destination, of one family.
    pub fn ends(&self) -> Result<(Address, Address), Fault> {
        let src = self.address(ExtType::AddressSrc, D::MissingSrc, D::MalformedSrc)?;
        let dst = self.address(ExtType::AddressDst, D::MissingDst, D::MalformedDst)?;
        let four = |address: &Address| address.socket.is_some_and(|socket| socket.is_ipv4());
        if four(&src) != four(&dst) {
            return Err(Fault::invalid(D::AfMismatch));
        }
        Ok((src, dst))
    }

    /// A lifetime, if it is there.
    pub fn lifetime(&self, kind: ExtType) -> Option<Lifetime> {
        self.raw(kind.number()).and_then(message::lifetime)
    }

    /// A key, if it is there.
    pub fn key(&self, kind: ExtType, malformed: D) -> Result<Option<Key<'m>>, Fault> {
        let Some(octets) = self.raw(kind.number()) else { return Ok(None) };
        // What follows the bits is reserved here, and an initial IV on our side.
        let key = message::key(octets, false).ok_or(Fault::invalid(malformed))?;
        Ok(Some(Key { reserved: 0, ..key }))
    }

    /// An identity, if it is there.
    pub fn identity(&self, kind: ExtType) -> Option<Identity<'m>> {
        self.raw(kind.number()).and_then(message::identity)
    }

    /// SADB_X_EXT_SA2: mode and reqid; 0 and 0 without it.
    pub fn sa2(&self) -> (u8, u32) {
        let fields = self.raw(ext::SA2).and_then(|octets| octets.first_chunk::<16>());
        let Some(&[_, _, _, _, mode, _, _, _, _, _, _, _, r0, r1, r2, r3]) = fields else { return (0, 0) };
        (mode, u32::from_ne_bytes([r0, r1, r2, r3]))
    }

    /// SADB_X_EXT_NAT_T_TYPE and the two ports, 0 where one is not there.
    pub fn nat_t(&self) -> Option<(u8, u16, u16)> {
        let at = |number| self.raw(number).and_then(|octets| octets.first_chunk::<8>());
        let port = |number| match at(number) {
            Some(&[_, _, _, _, p0, p1, _, _]) => u16::from_be_bytes([p0, p1]),
            None => 0,
        };
        let &[_, _, _, _, kind, ..] = at(ext::NAT_T_TYPE)?;
        Some((kind, port(ext::NAT_T_SPORT), port(ext::NAT_T_DPORT)))
    }

    /// SADB_EXT_SPIRANGE, in host order here.
    pub fn spi_range(&self) -> Option<(u32, u32)> {
        let octets = self.raw(ExtType::SpiRange.number())?.first_chunk::<16>()?;
        let &[_, _, _, _, a, b, c, d, e, f, g, h, ..] = octets;
        Some((u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])))
    }
}

/// Whether an extension of this type may have so many octets.
const fn fits(number: u16, len: usize) -> bool {
    const SOCKADDR_IN: usize = 16;
    match number {
        1 | 16 | ext::SA2 => len == 16,
        2..=4 => len == 32,
        5..=7 | ext::NAT_T_OA => len >= 8 + SOCKADDR_IN,
        10 | 11 | 12 | ext::POLICY => len >= 16,
        ext::NAT_T_TYPE | ext::NAT_T_SPORT | ext::NAT_T_DPORT => len == 8,
        _ => len >= 8,
    }
}

/// An address without what only selectors have.
pub(super) const fn host(socket: Option<SocketAddr>) -> Option<Address> {
    match socket {
        Some(socket) => Some(Address::host(socket.ip())),
        None => None,
    }
}
