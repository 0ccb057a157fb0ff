//! The dialect of KLIPS (FreeS/WAN, Openswan, libreswan up to 3): `ipsec spi`, `spigrp`, `eroute` and pluto of those speak
//! it.
//!
//! | message | native |
//! |---|---|
//! | GETSPI, ADD, UPDATE, GET, EXPIRE, REGISTER, ACQUIRE | the same (`sa`) |
//! | DELETE | GET, then DELETE of each SA of the group (`group`) |
//! | FLUSH | FLUSH of all SA types, whichever is named |
//! | X_GRPSA | GET of both, then GROUPSA of all that are linked then (`group`) |
//! | X_ADDFLOW, X_DELFLOW | ADDFLOW, REPLACEFLOW, DELFLOW, FLUSHFLOWS, for what comes in GROUPSA (`flow`) |
//! | X_NAT_T_NEW_MAPPING | NEWMAPPING, which only the service says |
//! | X_DEBUG | nothing: what is logged is the daemon's (`Turn::debug`), from then on what the words of the message say |
//! | DUMP, X_PROMISC, X_PCHANGE | refused: ENOSYS, as KLIPS does |
//! | X_PLUMBIF, X_UNPLUMBIF | refused: EOPNOTSUPP; `ipsec tncfg` attaches devices |
//!
//! Errno values are KLIPS'. The reason that pf_key(7P) has for a refusal is in `sadb_msg_reserved`, where KLIPS has 0.

mod flow;
mod group;
pub mod number;
mod record;
mod sa;

use super::outstanding::Outstanding;
use super::{Translator, Turn, header, translated};
use crate::{Base, Diagnostic as D, Errno, Fault, Member, Message, MessageType, SaType};
use group::{Name, Plan};
use number::{errno, message as theirs};
use record::Record;
use zeroize::Zeroizing;

/// `sadb_msg_pid` of requests that are ours and not the program's.
const OURS: u32 = u32::MAX;

/// Words of an X_DEBUG extension, in the order of klipsdebug(8).
const DEBUG_WORDS: [&str; 12] = [
    "tunnel", "netlink", "xform", "eroute", "spi", "radij", "esp", "ah", "rcv", "pfkey", "ipcomp", "verbose",
];

/// A native request whose answer is to come.
#[derive(Clone, Copy, Debug)]
struct Asked {
    native: u8,
    seq: u32,
    pid: u32,
    /// What the program is to be told with: the header of its own request; nothing if it is not to be told.
    told: Option<Base>,
    /// The link that it asked for.
    plan: Option<Plan>,
}

/// Something that begins with finding out which SAs are applied together.
struct Pending {
    /// The header of the program's request.
    base: Base,
    plan: Plan,
    /// The sequence number of the first GET; the second has the next.
    first: u32,
    groups: Vec<Vec<Member>>,
}

/// One socket of the dialect.
#[derive(Default)]
pub struct Klips {
    asked: Outstanding<Asked>,
    pending: Outstanding<Pending>,
    /// Sequence numbers of our own requests.
    last: u32,
}

impl core::fmt::Debug for Klips {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Klips({} asked, {} pending)", self.asked.len(), self.pending.len())
    }
}

impl Translator for Klips {
    fn request(&mut self, octets: &[u8]) -> Turn {
        translated(octets, |octets| self.translate(octets), refusal)
    }

    fn notice(&mut self, octets: &[u8]) -> Turn {
        let Ok(message) = Message::parse_answer(octets) else { return Turn::default() };
        let Some(kind) = message.base.kind() else {
            return Turn::say(octets.to_vec());
        };
        if kind == MessageType::Get && message.base.pid == OURS {
            return self.found(&message);
        }
        let asked = self.answers(&message.base);
        let base = match asked {
            // What the program did not ask for it does not hear of.
            Some(Asked { told: None, .. }) => return Turn::default(),
            Some(Asked { told: Some(told), .. }) => told,
            None => Base { number: spoken(kind).unwrap_or(0), ..message.base },
        };
        if message.base.errno.0 != 0 && kind != MessageType::Acquire {
            let diagnostic = D::from_number(message.base.diagnostic).unwrap_or(D::None);
            return match base.number {
                0 => Turn::default(),
                _ => Turn::say(refusal(&base, Fault { errno: message.base.errno, diagnostic })),
            };
        }
        let base = Base { errno: Errno(0), diagnostic: 0, ..base };
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest has no words in this dialect")]
        let records = match kind {
            MessageType::Socket => vec![octets.to_vec()],
            MessageType::GetSpi
            | MessageType::Update
            | MessageType::UpdatePair
            | MessageType::Add
            | MessageType::Delete
            | MessageType::DelPair
            | MessageType::Get
            | MessageType::Expire => sa::tell(&message, base).into_iter().collect(),
            MessageType::Register => sa::tell_supported(&message, base).into_iter().collect(),
            MessageType::Flush => vec![header(&base)],
            MessageType::Acquire => {
                sa::tell_acquire(&message, Base { errno: message.base.errno, ..base }).into_iter().collect()
            }
            MessageType::NewMapping => sa::tell_mapping(&message, base).into_iter().collect(),
            MessageType::AddFlow | MessageType::ReplaceFlow | MessageType::DelFlow => {
                flow::tell(&message, base).into_iter().collect()
            }
            MessageType::FlushFlows => flow::tell_clear(base).into_iter().collect(),
            MessageType::GroupSa => match asked.and_then(|asked| asked.plan) {
                Some(Plan::Link(one, two)) => group::tell_link(&one, &two, base).into_iter().collect(),
                Some(Plan::Unlink(one)) => group::tell_alone(&one, base).into_iter().collect(),
                Some(Plan::Inbound(one, src, dst)) => {
                    flow::tell_inbound(&one, &src, &dst, base).into_iter().collect()
                }
                Some(Plan::Delete(_)) | None => group::tell(&message, base),
            },
            _ => Vec::new(),
        };
        Turn { say: records.into_iter().map(Zeroizing::new).collect(), ..Turn::default() }
    }
}

/// Their number of our message; `None` for one that has no words there.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest has no words in this dialect")]
const fn spoken(kind: MessageType) -> Option<u8> {
    Some(match kind {
        MessageType::GetSpi
        | MessageType::Update
        | MessageType::Add
        | MessageType::Delete
        | MessageType::Get
        | MessageType::Acquire
        | MessageType::Register
        | MessageType::Expire
        | MessageType::Flush => kind.number(),
        MessageType::UpdatePair => MessageType::Update.number(),
        MessageType::DelPair => MessageType::Delete.number(),
        MessageType::AddFlow | MessageType::ReplaceFlow => theirs::ADDFLOW,
        MessageType::DelFlow | MessageType::FlushFlows => theirs::DELFLOW,
        MessageType::GroupSa => theirs::GRPSA,
        MessageType::NewMapping => theirs::NEW_MAPPING,
        _ => return None,
    })
}

impl Klips {
    fn translate(&mut self, octets: &[u8]) -> Result<Turn, Fault> {
        let record = Record::parse(octets)?;
        let base = Base { diagnostic: 0, errno: Errno(0), ..record.base };
        let unsupported = Fault { errno: Errno::EOPNOTSUPP, diagnostic: D::UnknownMsg };
        match base.number {
            theirs::ADDFLOW | theirs::DELFLOW => {
                let (kind, message) = match flow::request(&record)? {
                    flow::Request::Native(kind, message) => (kind, message),
                    flow::Request::Group(plan) => return self.look(base, plan),
                };
                self.expect(&base, kind, base.seq, base.pid);
                return Ok(Turn::ask(message));
            }
            theirs::GRPSA => return self.look(base, Plan::read(&record)?),
            theirs::DEBUG => return debug(&record, octets),
            theirs::NEW_MAPPING | theirs::PLUMBIF | theirs::UNPLUMBIF => return Err(unsupported),
            _ => {}
        }
        let kind = base.kind().ok_or(unsupported)?;
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest was refused by its number")]
        let message = match kind {
            MessageType::GetSpi | MessageType::Update | MessageType::Add | MessageType::Get => {
                sa::request(&record, kind)?
            }
            MessageType::Delete => {
                let name = Name::read(&record, base.satype_number, 1, 6)?;
                return self.look(base, Plan::Delete(name));
            }
            // An ACQUIRE with an errno says that there will be no SA; it has no answer.
            MessageType::Acquire => {
                return Ok(Turn::ask(header(&Base { errno: record.base.errno, ..base })));
            }
            MessageType::Register => {
                sa::satype(base.satype_number)?;
                header(&base)
            }
            MessageType::Flush => header(&Base { satype_number: SaType::Unspec.number(), ..base }),
            _ => return Err(unsupported),
        };
        self.expect(&base, kind, base.seq, base.pid);
        Ok(Turn::ask(message))
    }

    /// First finds out which SAs are applied together.
    fn look(&mut self, base: Base, plan: Plan) -> Result<Turn, Fault> {
        let first = self.number();
        let mut seq = first;
        let mut turn = Turn::default();
        for name in plan.names() {
            turn.ask.push(Zeroizing::new(name.request(MessageType::Get, seq, OURS)?));
            seq = self.number();
        }
        self.pending.push(Pending { base, plan, first, groups: Vec::new() });
        Ok(turn)
    }

    fn number(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    /// What a GET of ours was answered with. They come in the order in which they were asked.
    fn found(&mut self, message: &Message<'_>) -> Turn {
        let of = |pending: &Pending| {
            let n = u32::try_from(pending.groups.len()).unwrap_or(u32::MAX);
            pending.first.wrapping_add(n) == message.base.seq
        };
        let Some(at) = self.pending.position(of) else { return Turn::default() };
        let Some(pending) = self.pending.get_mut(at) else { return Turn::default() };
        if message.base.errno.0 != 0 {
            let base = pending.base;
            self.pending.remove(at);
            let diagnostic = D::from_number(message.base.diagnostic).unwrap_or(D::None);
            return Turn::say(refusal(&base, Fault { errno: message.base.errno, diagnostic }));
        }
        pending.groups.push(group::members(message));
        if pending.groups.len() < pending.plan.names().count() {
            return Turn::default();
        }
        let Some(Pending { base, plan, groups, .. }) = self.pending.remove(at) else {
            return Turn::default();
        };
        self.carry_out(&base, plan, &groups).unwrap_or_else(|fault| Turn::say(refusal(&base, fault)))
    }

    fn carry_out(&mut self, base: &Base, plan: Plan, groups: &[Vec<Member>]) -> Result<Turn, Fault> {
        let mut stamps = Vec::new();
        let (kind, requests) = plan.requests(groups, |visible| {
            let stamp = if visible { (base.seq, base.pid) } else { (self.number(), OURS) };
            stamps.push((visible, stamp));
            stamp
        })?;
        for (visible, (seq, pid)) in stamps {
            let told = visible.then_some(*base);
            self.asked.push(Asked { native: kind.number(), seq, pid, told, plan: Some(plan) });
        }
        Ok(Turn { ask: requests.into_iter().map(Zeroizing::new).collect(), ..Turn::default() })
    }

    fn expect(&mut self, base: &Base, native: MessageType, seq: u32, pid: u32) {
        self.asked.push(Asked { native: native.number(), seq, pid, told: Some(*base), plan: None });
    }

    /// The request that a message answers. Answers come in the order of the requests.
    fn answers(&mut self, base: &Base) -> Option<Asked> {
        let same =
            |asked: &Asked| asked.native == base.number && asked.seq == base.seq && asked.pid == base.pid;
        self.asked.answered(same)
    }
}

/// X_DEBUG: which parts log. The answer is the request.
fn debug(record: &Record<'_>, octets: &[u8]) -> Result<Turn, Fault> {
    let body = record.raw(number::ext::DEBUG).and_then(|octets| octets.get(4..)).unwrap_or_default();
    let (words, _) = body.as_chunks::<4>();
    if words.len() < DEBUG_WORDS.len() {
        return Err(Fault::invalid(D::BadExtlen));
    }
    let set = DEBUG_WORDS.iter().zip(words).map(|(name, word)| (*name, u32::from_ne_bytes(*word))).collect();
    Ok(Turn { say: vec![Zeroizing::new(octets.to_vec())], debug: Some(set), ..Turn::default() })
}

/// Why a record was refused: its header alone, with the errno that KLIPS has for it.
fn refusal(base: &Base, Fault { errno, diagnostic }: Fault) -> Vec<u8> {
    let grouping_or_change = matches!(base.number, 2 | theirs::GRPSA | theirs::ADDFLOW);
    #[expect(clippy::wildcard_enum_match_arm, reason = "most of them are the same there")]
    let errno = match diagnostic {
        D::SaNotfound | D::SaExpired if grouping_or_change => Errno::ENOENT,
        D::SaNotfound | D::SaExpired => Errno::ESRCH,
        D::BadAalg | D::BadEalg => errno::ESOCKTNOSUPPORT,
        _ => errno,
    };
    header(&Base { errno, diagnostic: diagnostic.number(), version: 2, ..*base })
}

#[cfg(test)]
mod tests;
