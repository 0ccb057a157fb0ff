//! The dialect of `linux/pfkeyv2.h`, which KAME made: OpenIKED, racoon, setkey(8) and strongSwan's kernel-pfkey speak it.
//!
//! | message | native |
//! |---|---|
//! | GETSPI, ADD, UPDATE, DELETE, GET, EXPIRE | the same (`sa`) |
//! | REGISTER, FLUSH, DUMP, X_PROMISC | the same |
//! | ACQUIRE | the same; its addresses are those of the tunnel that policy wants |
//! | X_SPDADD, X_SPDSETIDX, X_SPDUPDATE, X_SPDDELETE | ADDFLOW, REPLACEFLOW, DELFLOW (`policy`) |
//! | X_SPDGET, X_SPDDELETE2 | GETFLOW, then DELFLOW |
//! | X_SPDFLUSH, X_SPDDUMP | FLUSHFLOWS, DUMPFLOWS |
//! | X_NAT_T_NEW_MAPPING | NEWMAPPING |
//! | X_MIGRATE, X_KMADDRESS, a DUMP with X_FILTER, what is not in this table | refused: EOPNOTSUPP |
//!
//! What Linux's own af_key answers, and where we differ and why, is a table: `crates/klips/tests/af_key.rs`. Errno values are Linux's. The reason that pf_key(7P) has for a refusal is in `sadb_msg_reserved`, where others have 0.

pub mod number;
mod policy;
mod record;
mod sa;

use super::outstanding::Outstanding;
use super::{Translator, Turn, header, translated};
use crate::{Base, Diagnostic as D, Errno, Fault, Message, MessageType, SaType};
pub use policy::{Policy, Request};
pub use record::Record;
use zeroize::Zeroizing;

/// A native request whose answer is to come.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// The native message.
    native: u8,
    /// What the program had sent.
    number: u8,
    satype: u8,
    seq: u32,
    pid: u32,
    /// The mode of a GETSPI, which its answer repeats.
    mode: u8,
}

/// One socket of the dialect.
#[derive(Default)]
pub struct Linux {
    asked: Outstanding<Asked>,
    /// Bit n: registered for SA type n of the dialect.
    registered: u16,
    dump: Dump,
}

/// A DUMP on its way. The dialect marks the last message, which is known only once the next has not come.
#[derive(Default)]
struct Dump {
    held: Option<Zeroizing<Vec<u8>>>,
    told: u32,
}

impl core::fmt::Debug for Linux {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Linux({} asked)", self.asked.len())
    }
}

impl Translator for Linux {
    fn request(&mut self, octets: &[u8]) -> Turn {
        translated(octets, |octets| self.translate(octets), refusal)
    }

    fn notice(&mut self, octets: &[u8]) -> Turn {
        let Ok(message) = Message::parse_answer(octets) else { return Turn::default() };
        let Some(kind) = message.base.kind() else {
            return Turn::say(octets.to_vec());
        };
        let asked = self.answers(&message.base);
        // A refusal is its asker's business alone.
        if message.base.errno.0 != 0 && kind != MessageType::Acquire {
            return asked.map_or_else(Turn::default, |asked| self.refused(&asked, &message));
        }
        let flow = |number| policy::tell(&message, Base { number, ..spoken(&message.base) });
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest has no words in this dialect")]
        match kind {
            MessageType::AddFlow => told(flow(asked.map_or(number::message::SPDADD, |asked| asked.number))),
            MessageType::ReplaceFlow => told(flow(number::message::SPDUPDATE)),
            MessageType::DelFlow => {
                told(flow(asked.map_or(number::message::SPDDELETE, |asked| asked.number)))
            }
            MessageType::GetFlow => match asked {
                Some(asked) if asked.number == number::message::SPDDELETE2 => {
                    self.delete_shown(asked, &message)
                }
                _ => told(flow(number::message::SPDGET)),
            },
            MessageType::DumpFlows if asked.is_none() && !message.is_bare() => {
                told(flow(number::message::SPDDUMP))
            }
            MessageType::DumpFlows => self.dumped(&message, policy::tell),
            MessageType::FlushFlows => {
                let base =
                    Base { number: number::message::SPDFLUSH, satype_number: 0, ..spoken(&message.base) };
                Turn::say(header(&base))
            }
            MessageType::NewMapping => {
                let base = Base { number: number::message::NEW_MAPPING, ..spoken(&message.base) };
                told(policy::new_mapping(&message, base))
            }
            MessageType::Socket => Turn::say(octets.to_vec()),
            // What a promiscuous socket hears of another's.
            MessageType::Dump if asked.is_none() && !message.is_bare() => {
                told(sa::tell(&message, spoken(&message.base)))
            }
            MessageType::Dump => self.dumped(&message, sa::tell),
            // A reserved SPI is told to its asker alone.
            MessageType::GetSpi => match asked {
                Some(asked) => told(sa::tell_reserved(&message, spoken(&message.base), asked.mode)),
                None => Turn::default(),
            },
            MessageType::Register => told(sa::tell_supported(&message, spoken(&message.base))),
            MessageType::Flush | MessageType::Promisc => told(bare(&message.base, asked)),
            MessageType::Acquire => {
                told(policy::acquire(&message, Base { errno: message.base.errno, ..spoken(&message.base) }))
            }
            MessageType::UpdatePair => told(sa::tell(&message, named(&message.base, MessageType::Update))),
            MessageType::DelPair => told(sa::tell(&message, named(&message.base, MessageType::Delete))),
            MessageType::Update
            | MessageType::Add
            | MessageType::Delete
            | MessageType::Get
            | MessageType::Expire => told(sa::tell(&message, spoken(&message.base))),
            _ => Turn::default(),
        }
    }
}

impl Linux {
    fn translate(&mut self, octets: &[u8]) -> Result<Turn, Fault> {
        let record = Record::parse(octets)?;
        // The reserved field of a request is 0; answers have a diagnostic there, and on Linux how often a policy is in use.
        if record.base.diagnostic != 0 {
            return Err(Fault::errno(Errno::EINVAL));
        }
        if !(1..=number::message::MIGRATE).contains(&record.base.number) {
            return Err(Fault { errno: Errno::EINVAL, diagnostic: D::UnknownMsg });
        }
        if let Some(kind) = spd(record.base.number) {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the two others are their header alone")]
            let message = match kind {
                MessageType::AddFlow | MessageType::ReplaceFlow => policy::add(&record, kind)?,
                MessageType::DelFlow => policy::delete(&record)?,
                MessageType::GetFlow => policy::get(&record)?,
                _ => header(&Base::request(kind, SaType::Unspec, record.base.seq, record.base.pid)),
            };
            self.expect(&record, kind);
            return Ok(Turn::ask(message));
        }
        let kind = record.base.kind().filter(|kind| kind.number() <= MessageType::Promisc.number());
        let unsupported = Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::UnknownMsg };
        let kind = kind.ok_or(unsupported)?;
        let base = Base { diagnostic: 0, errno: Errno(0), ..record.base };
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else has a number up to 11")]
        let message = match kind {
            MessageType::GetSpi
            | MessageType::Update
            | MessageType::Add
            | MessageType::Delete
            | MessageType::Get => sa::request(&record, kind)?,
            // An ACQUIRE with an errno says that there will be no SA; it has no answer.
            MessageType::Acquire => {
                let base = Base { errno: record.base.errno, ..base };
                return Ok(Turn::ask(header(&Base { satype_number: self.satype(&record)?, ..base })));
            }
            MessageType::Expire => return Err(unsupported),
            // Who asks for some SAs is not to be shown all.
            MessageType::Dump if record.raw(number::ext::FILTER).is_some() => return Err(unsupported),
            MessageType::Register => {
                self.register(record.base.satype_number)?;
                header(&Base { satype_number: self.satype(&record)?, ..base })
            }
            MessageType::Promisc if record.base.satype_number > 1 => {
                return Err(Fault::errno(Errno::EINVAL));
            }
            MessageType::Promisc => header(&base),
            _ => header(&Base { satype_number: self.satype(&record)?, ..base }),
        };
        self.expect(&record, kind);
        Ok(Turn::ask(message))
    }

    /// SPDDELETE2, once it is known what has that number.
    fn delete_shown(&mut self, asked: Asked, shown: &Message<'_>) -> Turn {
        let Some(message) = policy::delete_shown(shown) else { return Turn::default() };
        let native = MessageType::DelFlow.number();
        self.asked.push(Asked { native, ..asked });
        Turn::ask(message)
    }

    /// Our number of the record's SA type.
    fn satype(&self, record: &Record<'_>) -> Result<u8, Fault> {
        sa::our_satype(record.base.satype_number).map(SaType::number)
    }

    /// A socket registers once for an SA type.
    fn register(&mut self, satype: u8) -> Result<(), Fault> {
        sa::our_satype(satype)?;
        if satype == 0 {
            return Err(Fault::invalid(D::SatypeNeeded));
        }
        let bit = 1_u16.checked_shl(satype.into()).unwrap_or(0);
        if self.registered & bit != 0 {
            return Err(Fault::errno(Errno::EEXIST));
        }
        self.registered |= bit;
        Ok(())
    }

    fn expect(&mut self, record: &Record<'_>, native: MessageType) {
        let base = &record.base;
        self.asked.push(Asked {
            native: native.number(),
            number: base.number,
            satype: base.satype_number,
            seq: base.seq,
            pid: base.pid,
            mode: record.sa2().0,
        });
    }

    /// The request that a message answers. Answers come in the order of the requests.
    fn answers(&mut self, base: &Base) -> Option<Asked> {
        let same =
            |asked: &Asked| asked.native == base.number && asked.seq == base.seq && asked.pid == base.pid;
        // A DUMP has many answers, and the last of them has its own number.
        let dumps = [MessageType::Dump.number(), MessageType::DumpFlows.number()];
        if dumps.contains(&base.number) && base.errno.0 == 0 {
            return self.asked.find(same).copied();
        }
        self.asked.answered(same)
    }

    fn refused(&mut self, asked: &Asked, message: &Message<'_>) -> Turn {
        let bit = 1_u16.checked_shl(asked.satype.into()).unwrap_or(0);
        if asked.native == MessageType::Register.number() {
            self.registered &= !bit;
        }
        let base = Base { number: asked.number, satype_number: asked.satype, ..message.base };
        let diagnostic = D::from_number(message.base.diagnostic).unwrap_or(D::None);
        // No SPI is left in the range.
        let exhausted = asked.native == MessageType::GetSpi.number() && base.errno == Errno::EEXIST;
        let errno = if exhausted { Errno::ENOENT } else { base.errno };
        Turn::say(refusal(&base, Fault { errno, diagnostic }))
    }

    /// One message of a DUMP, or its end. The dialect numbers them, and the last is 0.
    fn dumped(&mut self, message: &Message<'_>, tell: fn(&Message<'_>, Base) -> Option<Vec<u8>>) -> Turn {
        let mut turn = Turn::default();
        if !message.is_bare() {
            self.dump.told = self.dump.told.saturating_add(1);
            let number = match message.base.kind() {
                Some(MessageType::DumpFlows) => number::message::SPDDUMP,
                _ => message.base.number,
            };
            let base = Base { number, seq: self.dump.told, ..spoken(&message.base) };
            if let Some(record) = tell(message, base)
                && let Some(before) = self.dump.held.replace(Zeroizing::new(record))
            {
                turn.say.push(before);
            }
            return turn;
        }
        let Dump { held, .. } = core::mem::take(&mut self.dump);
        let dump = |asked: &Asked| asked.native == message.base.number && asked.pid == message.base.pid;
        let asked = self.asked.answered(dump);
        match (held, asked) {
            (Some(mut last), _) => {
                if let Some(seq) = last.get_mut(8..12) {
                    seq.fill(0);
                }
                turn.say.push(last);
            }
            // Nothing to show is an error here.
            (None, Some(Asked { number, satype, seq, .. })) => {
                let base = Base { number, satype_number: satype, seq, ..message.base };
                turn.say.push(Zeroizing::new(refusal(&base, Fault::errno(Errno::ENOENT))));
            }
            (None, None) => {}
        }
        turn
    }
}

/// The header of a native answer, as the dialect has it: there is no diagnostic in it.
const fn spoken(base: &Base) -> Base {
    Base { errno: Errno(0), diagnostic: 0, words: 2, ..*base }
}

const fn named(base: &Base, kind: MessageType) -> Base {
    Base { number: kind.number(), ..spoken(base) }
}

fn told(record: Option<Vec<u8>>) -> Turn {
    record.map_or_else(Turn::default, Turn::say)
}

fn bare(base: &Base, asked: Option<Asked>) -> Option<Vec<u8>> {
    let satype_number = match asked {
        Some(asked) => asked.satype,
        None => sa::their_satype(base.satype()?)?,
    };
    Some(header(&Base { satype_number, ..spoken(base) }))
}

/// The native message of one about policy.
const fn spd(number: u8) -> Option<MessageType> {
    use number::message;
    Some(match number {
        message::SPDADD | message::SPDSETIDX => MessageType::AddFlow,
        message::SPDUPDATE => MessageType::ReplaceFlow,
        message::SPDDELETE => MessageType::DelFlow,
        message::SPDGET | message::SPDDELETE2 => MessageType::GetFlow,
        message::SPDDUMP => MessageType::DumpFlows,
        message::SPDFLUSH => MessageType::FlushFlows,
        _ => return None,
    })
}

/// Why a record was refused: its header alone, with the errno that Linux has for it.
fn refusal(base: &Base, Fault { errno, diagnostic }: Fault) -> Vec<u8> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "most of them are EINVAL there, too")]
    let errno = match diagnostic {
        D::SaNotfound | D::SaExpired | D::PairSaNotfound => Errno::ESRCH,
        _ => errno,
    };
    header(&Base { errno, diagnostic: diagnostic.number(), version: 2, ..*base })
}

#[cfg(test)]
mod tests;
