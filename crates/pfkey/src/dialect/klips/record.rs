//! Records of the dialect: which extensions a message takes and cannot do without.

use super::number::{ext, message as number};
use crate::dialect::record;
use crate::{Base, Diagnostic as D, Errno, ExtType, Fault};

/// A record that has been looked over.
pub(super) type Record<'m> = record::Record<'m, Layout>;

/// The extensions of KLIPS.
pub(super) struct Layout;

impl record::Layout for Layout {
    const MAX: u16 = ext::MAX;
    const NAT_T: [u16; 3] = [ext::NAT_T_TYPE, ext::NAT_T_SPORT, ext::NAT_T_DPORT];

    fn fits(number: u16, len: usize) -> bool {
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
    /// Reads a record: no extension that its message does not take, and none lacking.
    pub(super) fn parse(octets: &'m [u8]) -> Result<Self, Fault> {
        let (head, rest) = octets.split_first_chunk().ok_or(Fault::errno(Errno::EMSGSIZE))?;
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
        let takes = |number| required.iter().any(|(known, _)| *known == number) || optional.contains(&number);
        let record = Self::read(base, rest, takes)?;
        match required.iter().find(|(number, _)| record.raw(*number).is_none()) {
            Some((_, missing)) => Err(Fault::invalid(*missing)),
            None => Ok(record),
        }
    }

    /// The limit of packets behind a lifetime, which later kernels had there; 0 is none.
    pub(super) fn packets(&self, kind: ExtType) -> u64 {
        let octets = self.raw(kind.number()).and_then(|octets| octets.get(32..));
        octets.and_then(<[u8]>::first_chunk).map_or(0, |octets| u32::from_ne_bytes(*octets).into())
    }
}
