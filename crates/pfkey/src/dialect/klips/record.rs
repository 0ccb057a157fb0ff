//! One record of the dialect: the base header and its extensions, each at most once, as long as its type is, and none that
//! its message does not take or lacks.

use super::number::{ext, message as number};
use crate::message;
use crate::{Address, Base, Diagnostic as D, Errno, ExtType, Fault, Identity, Key, Lifetime, Sa};

/// How many extension types there are, 0 included.
const TYPES: usize = ext::MAX as usize + 1;

/// A record that has been looked over.
pub(super) struct Record<'m> {
    pub(super) base: Base,
    extensions: [Option<&'m [u8]>; TYPES],
}

/// The base header of a record, were it ever so short.
pub(super) fn base(octets: &[u8]) -> Base {
    octets.first_chunk().map_or(Base::parse(&[0; Base::LEN]), Base::parse)
}

/// What a message cannot do without, and how that is missed; then what else it takes.
type Rule = (&'static [(u16, D)], &'static [u16]);

const SA: (u16, D) = (1, D::MissingSa);
const SRC: (u16, D) = (5, D::MissingSrc);
const DST: (u16, D) = (6, D::MissingDst);
const FLOW: [(u16, D); 4] = [
    (ext::SRC_FLOW, D::MissingInnerSrc),
    (ext::DST_FLOW, D::MissingInnerDst),
    (ext::SRC_MASK, D::MissingInnerSrc),
    (ext::DST_MASK, D::MissingInnerDst),
];

/// The rules of a message; `None` for one that there is not.
const fn rule(kind: u8) -> Option<Rule> {
    Some(match kind {
        1 => (&[SRC, DST, (16, D::MissingRange)], &[]),
        2 | 3 => (
            &[SA, SRC, DST],
            &[
                2,
                3,
                4,
                7,
                8,
                9,
                10,
                11,
                12,
                ext::NAT_T_TYPE,
                ext::NAT_T_SPORT,
                ext::NAT_T_DPORT,
                ext::NAT_T_OA,
                ext::SAREF,
            ],
        ),
        4 | 5 => (&[SA, SRC, DST], &[]),
        6 => (&[], &[1, 5, 6, 7, 10, 11, 12, 13]),
        7 | 9 => (&[], &[]),
        number::GRPSA => (&[SA, DST], &[ext::SATYPE2, ext::SA2, ext::ADDRESS_DST2]),
        number::ADDFLOW => (&[SA, DST, FLOW[0], FLOW[1], FLOW[2], FLOW[3]], &[5, 10, 11, ext::PROTOCOL]),
        number::DELFLOW => (
            &[],
            &[1, 5, 6, 10, 11, ext::SRC_FLOW, ext::DST_FLOW, ext::SRC_MASK, ext::DST_MASK, ext::PROTOCOL],
        ),
        number::DEBUG => (&[(ext::DEBUG, D::BadExtlen)], &[]),
        number::PLUMBIF | number::UNPLUMBIF => (&[(ext::PLUMBIF, D::BadExtlen)], &[]),
        _ => return None,
    })
}

impl<'m> Record<'m> {
    /// Reads a record.
    pub(super) fn parse(octets: &'m [u8]) -> Result<Self, Fault> {
        let (head, mut rest) = octets.split_first_chunk().ok_or(Fault::errno(Errno::EMSGSIZE))?;
        let base = Base::parse(head);
        if usize::from(base.words).saturating_mul(8) != octets.len() {
            return Err(Fault::errno(Errno::EMSGSIZE));
        }
        // What others have the diagnostic in has to be 0 here.
        if base.version != 2 || base.diagnostic != 0 {
            return Err(Fault::errno(Errno::EINVAL));
        }
        if matches!(base.number, 10..=12) {
            return Err(Fault { errno: super::number::errno::ENOSYS, diagnostic: D::UnknownMsg });
        }
        let (required, optional) = rule(base.number).ok_or(Fault::invalid(D::UnknownMsg))?;
        let mut extensions = [None; TYPES];
        while !rest.is_empty() {
            let bad = Fault::invalid(D::BadExtlen);
            let &[l0, l1, t0, t1] = rest.first_chunk::<4>().ok_or(bad)?;
            let len = usize::from(u16::from_ne_bytes([l0, l1])).saturating_mul(8);
            let number = u16::from_ne_bytes([t0, t1]);
            let (octets, after) = rest.split_at_checked(len).filter(|_| len != 0).ok_or(bad)?;
            rest = after;
            let taken = required.iter().any(|(known, _)| *known == number) || optional.contains(&number);
            let place = extensions.get_mut(usize::from(number)).filter(|_| taken);
            let place = place.ok_or(Fault::invalid(D::UnknownExt))?;
            if place.is_some() || !fits(number, len) {
                return Err(bad);
            }
            *place = Some(octets);
        }
        let record = Self { base, extensions };
        match required.iter().find(|(number, _)| record.raw(*number).is_none()) {
            Some((_, missing)) => Err(Fault::invalid(*missing)),
            None => Ok(record),
        }
    }

    /// The octets of an extension, header included.
    pub(super) fn raw(&self, number: u16) -> Option<&'m [u8]> {
        self.extensions.get(usize::from(number)).copied().flatten()
    }

    /// SADB_EXT_SA, or SADB_X_EXT_SA2: with the number of KLIPS' own table behind it, or without.
    pub(super) fn sa(&self, number: u16) -> Result<Sa, Fault> {
        let octets = self.raw(number).ok_or(Fault::invalid(D::MissingSa))?;
        octets.get(..16).and_then(message::sa).ok_or(Fault::invalid(D::MalformedSa))
    }

    /// An address whose family is IPv4 or IPv6.
    pub(super) fn address(&self, number: u16, missing: D, malformed: D) -> Result<Address, Fault> {
        self.address_if(number, malformed)?.ok_or(Fault::invalid(missing))
    }

    /// The same, if it is there.
    pub(super) fn address_if(&self, number: u16, malformed: D) -> Result<Option<Address>, Fault> {
        let Some(octets) = self.raw(number) else { return Ok(None) };
        let address = message::address(octets).filter(|address| address.socket.is_some());
        address.map(Some).ok_or(Fault::invalid(malformed))
    }

    /// A lifetime, if it is there: with a limit of packets behind it, or without.
    pub(super) fn lifetime(&self, kind: ExtType) -> Result<Option<Lifetime>, Fault> {
        let Some(octets) = self.raw(kind.number()) else { return Ok(None) };
        // There is no limit of packets on our side, and a limit that is not kept is none.
        if octets.get(32..).unwrap_or_default().iter().any(|octet| *octet != 0) {
            return Err(Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::MissingLifetime });
        }
        Ok(octets.get(..32).and_then(message::lifetime))
    }

    /// A key, if it is there.
    pub(super) fn key(&self, kind: ExtType, malformed: D) -> Result<Option<Key<'m>>, Fault> {
        let Some(octets) = self.raw(kind.number()) else { return Ok(None) };
        // What follows the bits is reserved here, and an initial IV on our side.
        let key = message::key(octets, false).ok_or(Fault::invalid(malformed))?;
        Ok(Some(Key { reserved: 0, ..key }))
    }

    /// An identity, if it is there.
    pub(super) fn identity(&self, kind: ExtType) -> Option<Identity<'m>> {
        self.raw(kind.number()).and_then(message::identity)
    }

    /// The octet behind an extension's header.
    pub(super) fn octet(&self, number: u16) -> Option<u8> {
        self.raw(number).and_then(|octets| octets.get(4)).copied()
    }

    /// SADB_X_EXT_NAT_T_TYPE and the two ports, 0 where one is not there.
    pub(super) fn nat_t(&self) -> Option<(u8, u16, u16)> {
        let port = |number| match self.raw(number).and_then(|octets| octets.first_chunk::<8>()) {
            Some(&[_, _, _, _, p0, p1, _, _]) => u16::from_be_bytes([p0, p1]),
            None => 0,
        };
        Some((self.octet(ext::NAT_T_TYPE)?, port(ext::NAT_T_SPORT), port(ext::NAT_T_DPORT)))
    }

    /// SADB_EXT_SPIRANGE, in network order as all SPIs.
    pub(super) fn spi_range(&self) -> Option<(u32, u32)> {
        let octets = self.raw(ExtType::SpiRange.number())?.first_chunk::<16>()?;
        let &[_, _, _, _, a, b, c, d, e, f, g, h, ..] = octets;
        Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])))
    }
}

/// Whether an extension of this type may have so many octets.
const fn fits(number: u16, len: usize) -> bool {
    const SOCKADDR_IN: usize = 16;
    match number {
        1 | ext::SA2 => len == 16 || len == 24,
        16 | ext::SAREF => len == 16,
        2..=4 => len == 32 || len == 40,
        5..=7 | ext::ADDRESS_DST2..=ext::DST_MASK | ext::NAT_T_OA => len >= 8 + SOCKADDR_IN,
        10..=12 => len >= 16,
        ext::SATYPE2 | ext::PROTOCOL | ext::NAT_T_TYPE | ext::NAT_T_SPORT | ext::NAT_T_DPORT => len == 8,
        _ => len >= 8,
    }
}
