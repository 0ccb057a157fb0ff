//! What is done to all SAs of a group: GRPSA, and DELETE, which takes away every SA that is applied together with the one
//! named.
//!
//! KLIPS links SAs one by one; our groups are whole. So the service is first asked which groups there are, by a GET whose
//! answer the program does not see.

use super::number::{ext, message as number};
use super::record::Record;
use super::sa::{finish, host, put_sa, satype};
use crate::{
    Address, Base, Diagnostic as D, Errno, ExtType, Fault, Member, Message, MessageType, Sa, SaType, Writer,
};

/// SAs that one packet may go through.
const MOST: usize = 4;

/// An SA of the dialect: all of a group lead to one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) member: Member,
    pub(super) dst: Address,
}

impl Name {
    /// SADB_EXT_SA and the destination, or those of the second SA.
    pub(super) fn read(record: &Record<'_>, satype_number: u8, sa: u16, dst: u16) -> Result<Self, Fault> {
        let satype = satype(satype_number)?.number();
        let dst = host(&record.address(dst, D::MissingDst, D::MalformedDst)?);
        Ok(Self { member: Member { satype, spi: record.sa(sa)?.spi }, dst })
    }

    /// A native request that names it.
    pub(super) fn request(&self, kind: MessageType, seq: u32, pid: u32) -> Result<Vec<u8>, Fault> {
        let base = Base::request(kind, satype(self.member.satype)?, seq, pid);
        let mut w = Writer::new(&base);
        w.sa(&Sa { spi: self.member.spi, ..Sa::default() });
        w.address(ExtType::AddressDst, &self.dst);
        finish(w)
    }
}

/// What is to be done once it is known which SAs are applied together.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    /// The first SA inside of the second.
    Link(Name, Name),
    /// All SAs of its group stand alone.
    Unlink(Name),
    /// All SAs of its group are deleted.
    Delete(Name),
    /// What comes on its group has to be of this selector, source and destination as the packet has them.
    Inbound(Name, Address, Address),
}

impl Plan {
    /// What a GRPSA wants.
    pub(super) fn read(record: &Record<'_>) -> Result<Self, Fault> {
        let first = Name::read(record, record.base.satype_number, 1, 6)?;
        let second = [ext::SATYPE2, ext::SA2, ext::ADDRESS_DST2];
        match second.map(|number| record.raw(number).is_some()) {
            [false, false, false] => Ok(Self::Unlink(first)),
            [true, true, true] => {
                let satype = record.octet(ext::SATYPE2).unwrap_or(0);
                let second = Name::read(record, satype, ext::SA2, ext::ADDRESS_DST2)?;
                if first.dst != second.dst {
                    return Err(Fault::invalid(D::BadDst));
                }
                Ok(Self::Link(first, second))
            }
            _ => Err(Fault::invalid(D::MissingSa)),
        }
    }

    /// The SAs whose groups have to be known.
    pub(super) fn names(&self) -> impl Iterator<Item = Name> {
        let (first, second) = match *self {
            Self::Link(first, second) => (first, Some(second)),
            Self::Unlink(one) | Self::Delete(one) | Self::Inbound(one, ..) => (one, None),
        };
        core::iter::once(first).chain(second)
    }

    /// The native requests, the last of which is the one whose answer the program is to hear, and their type.
    pub(super) fn requests(
        &self,
        groups: &[Vec<Member>],
        mut stamp: impl FnMut(bool) -> (u32, u32),
    ) -> Result<(MessageType, Vec<Vec<u8>>), Fault> {
        let (Some(first), Some(name)) = (groups.first(), self.names().next()) else {
            return Err(Fault::invalid(D::MissingSa));
        };
        let others = first.iter().filter(|member| **member != name.member);
        match self {
            Self::Link(one, two) => {
                let second = groups.get(1).ok_or(Fault::invalid(D::MissingSa))?;
                // Something is linked outside of the first already, or inside of the second.
                if first.last() != Some(&one.member) || second.first() != Some(&two.member) || first == second
                {
                    return Err(Fault::errno(Errno::EEXIST));
                }
                let all: Vec<Member> = first.iter().chain(second).copied().collect();
                if all.len() > MOST {
                    return Err(Fault::invalid(D::BadExtlen));
                }
                Ok((MessageType::GroupSa, vec![finish(group(&one.dst, &all, stamp(true)))?]))
            }
            Self::Inbound(_, src, dst) => {
                let mut w = group(&name.dst, first, stamp(true));
                w.address(ExtType::AddressInnerSrc, src).address(ExtType::AddressInnerDst, dst);
                Ok((MessageType::GroupSa, vec![finish(w)?]))
            }
            Self::Unlink(_) => {
                let mut all = Vec::new();
                for member in others {
                    all.push(finish(group(&name.dst, &[*member], stamp(false)))?);
                }
                all.push(finish(group(&name.dst, &[name.member], stamp(true)))?);
                Ok((MessageType::GroupSa, all))
            }
            Self::Delete(_) => {
                let mut all = Vec::new();
                for member in others {
                    let (seq, pid) = stamp(false);
                    all.push(Name { member: *member, ..name }.request(MessageType::Delete, seq, pid)?);
                }
                let (seq, pid) = stamp(true);
                all.push(name.request(MessageType::Delete, seq, pid)?);
                Ok((MessageType::Delete, all))
            }
        }
    }
}

/// A native GROUPSA.
fn group(dst: &Address, members: &[Member], (seq, pid): (u32, u32)) -> Writer {
    let mut w = Writer::new(&Base::request(MessageType::GroupSa, SaType::Unspec, seq, pid));
    w.address(ExtType::AddressDst, dst);
    w.group(members);
    w
}

/// The SAs of a group as a GET shows them; one that is in none is its own.
pub(super) fn members(message: &Message<'_>) -> Vec<Member> {
    let own = || message.sa.map(|sa| Member { satype: message.base.satype_number, spi: sa.spi });
    match message.group {
        Some(group) => group.members().take(MOST).collect(),
        None => own().into_iter().collect(),
    }
}

/// GRPSA of a group that somebody else has made: one message for each link, or one for an SA that stands alone.
pub(super) fn tell(message: &Message<'_>, base: Base) -> Vec<Vec<u8>> {
    let (Some(dst), Some(group)) = (message.dst, message.group) else { return Vec::new() };
    let all: Vec<Name> = group.members().take(MOST).map(|member| Name { member, dst: host(&dst) }).collect();
    if let [alone] = all.as_slice() {
        return tell_alone(alone, base).into_iter().collect();
    }
    all.iter().zip(all.iter().skip(1)).filter_map(|(one, two)| tell_link(one, two, base)).collect()
}

/// GRPSA: the first SA is inside of the second.
pub(super) fn tell_link(one: &Name, two: &Name, base: Base) -> Option<Vec<u8>> {
    let mut w = begin(one, base);
    w.numbered(ext::SATYPE2, |octets| octets.extend_from_slice(&[two.member.satype, 0, 0, 0]));
    put_sa(&mut w, ext::SA2, &Sa { spi: two.member.spi, ..Sa::default() });
    w.address_numbered(ext::ADDRESS_DST2, &two.dst);
    w.finish().ok()
}

/// GRPSA: the SA stands alone.
pub(super) fn tell_alone(one: &Name, base: Base) -> Option<Vec<u8>> {
    begin(one, base).finish().ok()
}

fn begin(one: &Name, base: Base) -> Writer {
    let mut w = Writer::new(&Base { number: number::GRPSA, satype_number: one.member.satype, ..base });
    put_sa(&mut w, 1, &Sa { spi: one.member.spi, ..Sa::default() });
    w.address(ExtType::AddressDst, &one.dst);
    w
}
