//! The asking side of PF_KEY, without a socket: which record is the answer to which request.
//!
//! A PF_KEY socket hears more than answers: what others ask for (an SA added or deleted), and what the service has to say by
//! itself (ACQUIRE, EXPIRE), in any order (RFC 2367 §1.4). A [`Client`] numbers requests and sorts what comes back. It does
//! no I/O: send the records it makes and show it the records that arrive, one by one, over `pf_key.sock`, a real PF_KEY
//! socket or a test's queue.
//!
//! # Registering, and what the service can do
//!
//! ```
//! use pfkey::client::{Client, Heard};
//! use pfkey::{Algorithm, ExtType, MessageType, SaType};
//! # use pfkey::{Base, Writer};
//! # fn send(record: &[u8]) -> Vec<u8> {
//! #     let asked = pfkey::Message::parse(record).unwrap();
//! #     let mut w = Writer::new(&asked.base);
//! #     let gcm = Algorithm { id: 20, iv: 8, min_bits: 128, max_bits: 256, increment: 64, salt_bits: 32 };
//! #     w.supported(ExtType::SupportedEncrypt, &[gcm]);
//! #     w.finish().unwrap()
//! # }
//! let mut client = Client::new(std::process::id());
//! let (register, record) = client.finish(client.request(MessageType::Register, SaType::Esp))?;
//! let heard = send(&record);
//!
//! match client.hear(&heard).expect("a PF_KEY record") {
//!     Heard::Answer { to, message, .. } if to == register => {
//!         let supported = message.raw(ExtType::SupportedEncrypt).unwrap_or_default();
//!         assert!(Algorithm::list(supported).any(|algorithm| algorithm.id == 20), "AES-GCM with a 16-octet ICV");
//!     }
//!     Heard::Refused { fault, .. } => panic!("REGISTER: {fault}"),
//!     other => panic!("{other:?}"),
//! }
//! # Ok::<(), pfkey::TooLong>(())
//! ```
//!
//! # An SPI, then a pair of SAs
//!
//! GETSPI makes a larval SA, which lives for a few minutes; UPDATE gives it keys. ADD makes the other direction at once, and
//! its PAIR extension ties the two: they are then updated and deleted together.
//!
//! ```
//! use pfkey::client::{Client, Heard};
//! use pfkey::{Address, ExtType, Lifetime, MessageType, Pair, Sa, SaType, SpiRange, flags, state};
//! # use pfkey::{Message, Writer};
//! # fn send(record: &[u8]) -> Vec<u8> {
//! #     let asked = Message::parse(record).unwrap();
//! #     let mut w = Writer::new(&asked.base);
//! #     w.sa(&asked.sa.unwrap_or(Sa { spi: 0x1001, ..Sa::default() }));
//! #     w.finish().unwrap()
//! # }
//! let (ours, theirs) = (Address::host("192.0.2.1".parse()?), Address::host("192.0.2.2".parse()?));
//! let mut client = Client::new(std::process::id());
//!
//! // Ours to choose: the SPI of what we shall receive.
//! let mut ask = client.request(MessageType::GetSpi, SaType::Esp);
//! ask.address(ExtType::AddressSrc, &theirs);
//! ask.address(ExtType::AddressDst, &ours);
//! ask.spi_range(&SpiRange { min: 0x100, max: u32::MAX });
//! let (ticket, record) = client.finish(ask)?;
//! let heard = send(&record);
//! let Ok(Heard::Answer { to, message, .. }) = client.hear(&heard) else { panic!() };
//! assert_eq!(to, ticket);
//! let inbound = message.sa.expect("GETSPI answers with an SA").spi;
//!
//! // Both directions by one recipe: AES-GCM-16 (20), 128 bits of key and 32 of salt, an hour to live.
//! let outbound = 0x2002; // the peer's choice, told to us by the peer
//! let here = (&ours, Address::net("10.1.0.0".parse()?, 16));
//! let there = (&theirs, Address::net("10.2.0.0".parse()?, 16));
//! for (kind, key, spi, (src, inner_src), (dst, inner_dst)) in [
//!     (MessageType::Update, [0x11; 20], inbound, there, here),
//!     (MessageType::Add, [0x22; 20], outbound, here, there),
//! ] {
//!     let mut ask = client.request(kind, SaType::Esp);
//!     ask.sa(&Sa { spi, replay: 64, state: state::MATURE, encrypt: 20, flags: flags::TUNNEL, ..Sa::default() });
//!     ask.lifetime(ExtType::LifetimeHard, &Lifetime { addtime: 3600, ..Lifetime::default() });
//!     ask.address(ExtType::AddressSrc, src);
//!     ask.address(ExtType::AddressDst, dst);
//!     ask.address(ExtType::AddressInnerSrc, &inner_src);
//!     ask.address(ExtType::AddressInnerDst, &inner_dst);
//!     ask.key(ExtType::KeyEncrypt, 160, 0, &key);
//!     if kind == MessageType::Add {
//!         ask.pair(&Pair { spi: inbound });
//!     }
//!     let (ticket, record) = client.finish(ask)?;
//!     match client.hear(&send(&record)).expect("a PF_KEY record") {
//!         Heard::Answer { to, .. } => assert_eq!(to, ticket),
//!         Heard::Refused { fault, .. } => panic!("{kind:?}: {fault}"),
//!         Heard::Notice(_) => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Listening for EXPIRE
//!
//! A registered socket is told when an SA reaches a limit: the message holds the limit that was reached.
//!
//! ```
//! use pfkey::client::{Client, Heard};
//! use pfkey::{MessageType, SaType};
//! # use pfkey::{Address, Base, ExtType, Lifetime, Sa, Writer};
//! # let mut w = Writer::new(&Base::request(MessageType::Expire, SaType::Esp, 0, 0));
//! # w.sa(&Sa { spi: 0x1001, ..Sa::default() });
//! # w.lifetime(ExtType::LifetimeSoft, &Lifetime { addtime: 1800, ..Lifetime::default() });
//! # w.address(ExtType::AddressDst, &Address::host("192.0.2.1".parse().unwrap()));
//! # let heard = w.finish().unwrap();
//! let mut client = Client::new(std::process::id());
//! if let Ok(Heard::Notice(message)) = client.hear(&heard)
//!     && message.base.kind() == Some(MessageType::Expire)
//!     && let (Some(sa), Some(dst)) = (message.sa, message.dst)
//! {
//!     match (message.soft, message.hard, message.idle) {
//!         (Some(_), ..) => println!("negotiate a successor of {:#x}@{:?}", sa.spi, dst.ip()),
//!         (_, Some(_), _) => println!("{:#x} is gone", sa.spi),
//!         (.., Some(_)) => println!("{:#x} was idle for too long", sa.spi),
//!         (None, None, None) => {}
//!     }
//! }
//! ```

use crate::{Base, Diagnostic, Errno, Fault, Message, MessageType, SaType, TooLong, Writer};
use core::ops::{Deref, DerefMut};
use std::collections::BTreeMap;

/// Names a request that was sent; its answer carries the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// `sadb_msg_seq` of the request.
    pub seq: u32,
}

/// A request in the making: a [`Writer`] whose header is filled in.
#[derive(Debug)]
pub struct Request {
    seq: u32,
    kind: MessageType,
    answers: u32,
    writer: Writer,
}

impl Deref for Request {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        &self.writer
    }
}

impl DerefMut for Request {
    fn deref_mut(&mut self) -> &mut Writer {
        &mut self.writer
    }
}

/// What a record turned out to be.
#[derive(Clone, Debug)]
pub enum Heard<'m> {
    /// The answer to a request, or one of them.
    Answer {
        /// Which request.
        to: Ticket,
        /// The answer.
        message: Message<'m>,
        /// More answers to it will come: DUMP has one for each SA and a bare header at the end, an extended REGISTER one
        /// for each SA type.
        more: bool,
    },
    /// The request was refused; nothing has changed.
    Refused {
        /// Which request.
        to: Ticket,
        /// Why.
        fault: Fault,
    },
    /// Meant for all who listen: somebody else's success, ACQUIRE, EXPIRE.
    Notice(Message<'m>),
}

impl MessageType {
    /// Whether it has any number of answers and then a bare header.
    const fn is_dump(self) -> bool {
        matches!(self, Self::Dump | Self::DumpFlows)
    }
}

/// What a request still waits for.
#[derive(Clone, Copy, Debug)]
struct Pending {
    kind: MessageType,
    answers: u32,
}

/// Numbers requests and recognizes their answers.
///
/// Answers are told from notices by process and sequence number (RFC 2367 §2.1), so two clients of one process must not
/// use the same numbers: see [`Client::starting_at`].
#[derive(Clone, Debug)]
pub struct Client {
    pid: u32,
    next: u32,
    pending: BTreeMap<u32, Pending>,
}

impl Client {
    /// A client of process `pid`, whose first request has the sequence number 1.
    pub const fn new(pid: u32) -> Self {
        Self::starting_at(pid, 1)
    }

    /// The same with another first sequence number, for a process with several sockets. 0 counts as 1: with it the
    /// messages of a DUMP could not be told from its end.
    pub const fn starting_at(pid: u32, seq: u32) -> Self {
        Self { pid, next: if seq == 0 { 1 } else { seq }, pending: BTreeMap::new() }
    }

    /// Begins a request. Fill in its extensions, then [`Client::finish`] it.
    pub fn request(&self, kind: MessageType, satype: SaType) -> Request {
        // Room enough for keys not to be left behind when it grows.
        let base = Base::request(kind, satype, self.next, self.pid);
        let writer = Writer::with_capacity(&base, Writer::ROOM);
        Request { seq: self.next, kind, answers: 1, writer }
    }

    /// An extended REGISTER (`SADB_X_EXT_EREG`): to be told extended ACQUIREs of all these SA types, which name the
    /// algorithms of both AH and ESP at once.
    pub fn register_extended(&self, satypes: &[SaType]) -> Request {
        let mut request = self.request(MessageType::Register, SaType::Unspec);
        request.ereg(&satypes.iter().map(|satype| satype.number()).collect::<Vec<_>>());
        request.answers = u32::try_from(satypes.len()).unwrap_or(u32::MAX);
        request
    }

    /// Ends a request: its record, to be sent, and the ticket that its answer will carry.
    pub fn finish(&mut self, request: Request) -> Result<(Ticket, Vec<u8>), TooLong> {
        let Request { seq, kind, answers, writer } = request;
        let record = writer.finish()?;
        self.pending.insert(seq, Pending { kind, answers });
        self.next = self.next.checked_add(1).unwrap_or(1);
        Ok((Ticket { seq }, record))
    }

    /// How many requests wait for an answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Gives up waiting: what should still come for this request is a notice from now on.
    pub fn forget(&mut self, ticket: Ticket) {
        self.pending.remove(&ticket.seq);
    }

    /// Sorts a record that was received. `Err` is a record that cannot be read: the service never sends one.
    pub fn hear<'m>(&mut self, record: &'m [u8]) -> Result<Heard<'m>, Fault> {
        let message = Message::parse_answer(record)?;
        let Some((seq, pending)) = self.asked(&message) else { return Ok(Heard::Notice(message)) };
        let to = Ticket { seq };
        if message.base.errno != Errno(0) {
            self.pending.remove(&seq);
            let diagnostic = Diagnostic::from_number(message.base.diagnostic).unwrap_or(Diagnostic::None);
            return Ok(Heard::Refused { to, fault: Fault { errno: message.base.errno, diagnostic } });
        }
        let more = if pending.kind.is_dump() { !message.is_bare() } else { pending.answers > 1 };
        if more {
            let answers = pending.answers.saturating_sub(1).max(1);
            self.pending.insert(seq, Pending { answers, ..pending });
        } else {
            self.pending.remove(&seq);
        }
        Ok(Heard::Answer { to, message, more })
    }

    /// The request that a message answers.
    fn asked(&self, message: &Message<'_>) -> Option<(u32, Pending)> {
        let base = &message.base;
        if base.pid != self.pid {
            return None;
        }
        // A type that the service does not know is not repeated in its refusal.
        let repeats = |pending: &Pending| base.number == pending.kind.number() || base.number == 0;
        let exact = self.pending.get(&base.seq).filter(|pending| repeats(pending));
        if let Some(pending) = exact {
            return Some((base.seq, *pending));
        }
        // The end of a DUMP has the sequence number 0, whatever the request had; one is under way at a time.
        let ends = base.seq == 0 && message.is_bare();
        self.pending
            .iter()
            .find(|(_, pending)| ends && pending.kind.is_dump() && repeats(pending))
            .map(|(seq, pending)| (*seq, *pending))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Address, ExtType, InnerPair, Lifetime, Pair, ReplayValue, Sa, SaParams};
    use core::net::Ipv6Addr;

    const PID: u32 = 77;

    fn said(kind: MessageType, seq: u32, pid: u32, errno: u8, body: bool) -> Vec<u8> {
        let mut writer =
            Writer::new(&Base { errno: Errno(errno), ..Base::request(kind, SaType::Esp, seq, pid) });
        if body {
            writer.sa(&Sa { spi: seq, ..Sa::default() });
        }
        writer.finish().unwrap()
    }

    fn asked(client: &mut Client, kind: MessageType) -> Ticket {
        client.finish(client.request(kind, SaType::Esp)).unwrap().0
    }

    /// What is moved leaves its keys where it was.
    #[test]
    fn a_request_with_all_that_an_sa_may_have_is_never_moved() {
        let mut client = Client::new(PID);
        let mut request = client.request(MessageType::Add, SaType::Esp);
        let pair = InnerPair {
            proto: 6,
            src: (Ipv6Addr::LOCALHOST, 1).into(),
            src_prefix: 128,
            dst: (Ipv6Addr::LOCALHOST, 2).into(),
            dst_prefix: 128,
        };
        let host = Address::host(Ipv6Addr::LOCALHOST.into());
        request.sa(&Sa::default());
        for kind in [ExtType::LifetimeHard, ExtType::LifetimeSoft, ExtType::LifetimeIdle] {
            request.lifetime(kind, &Lifetime::default());
        }
        for kind in [ExtType::KeyEncrypt, ExtType::KeyAuth] {
            request.key(kind, 512, 0, &[7; 64]);
        }
        for kind in [
            ExtType::AddressSrc,
            ExtType::AddressDst,
            ExtType::AddressNattLoc,
            ExtType::AddressNattRem,
            ExtType::AddressInnerSrc,
            ExtType::AddressInnerDst,
        ] {
            request.address(kind, &host);
        }
        request.selectors(&[pair; 63]).sa_params(&SaParams::default());
        request.replay_value(&ReplayValue::default()).pair(&Pair { spi: 5 });
        let (_, record) = client.finish(request).unwrap();
        assert_eq!(record.capacity(), Writer::ROOM, "{} octets", record.len());
    }

    #[test]
    fn an_answer_is_found_among_notices_and_only_once() {
        let mut client = Client::new(PID);
        let ticket = asked(&mut client, MessageType::Add);
        let noise = [
            said(MessageType::Add, ticket.seq, PID + 1, 0, true),
            said(MessageType::Delete, ticket.seq, PID, 0, true),
            said(MessageType::Add, ticket.seq + 1, PID, 0, true),
            said(MessageType::Acquire, ticket.seq, 0, 0, true),
        ];
        for record in &noise {
            assert!(matches!(client.hear(record), Ok(Heard::Notice(_))));
        }
        let answer = said(MessageType::Add, ticket.seq, PID, 0, true);
        assert!(matches!(client.hear(&answer), Ok(Heard::Answer { to, more: false, .. }) if to == ticket));
        assert_eq!(client.pending(), 0);
        assert!(matches!(client.hear(&answer), Ok(Heard::Notice(_))));
    }

    #[test]
    fn a_refusal_names_errno_and_diagnostic() {
        let mut client = Client::new(PID);
        let ticket = asked(&mut client, MessageType::Add);
        let fault = Fault::invalid(Diagnostic::MissingDst);
        let base = Base::request(MessageType::Add, SaType::Esp, ticket.seq, PID);
        let heard = base.refusal(fault);
        assert!(
            matches!(client.hear(&heard), Ok(Heard::Refused { to, fault: f }) if to == ticket && f == fault)
        );
        // A type that does not exist is not repeated.
        let ticket = asked(&mut client, MessageType::Promisc);
        let heard =
            Base { number: 0, ..Base::request(MessageType::Promisc, SaType::Unspec, ticket.seq, PID) };
        let heard = heard.refusal(Fault::invalid(Diagnostic::UnknownMsg));
        assert!(matches!(client.hear(&heard), Ok(Heard::Refused { to, .. }) if to == ticket));
    }

    #[test]
    fn a_dump_ends_with_its_bare_header_whose_number_is_zero() {
        let mut client = Client::new(PID);
        let get = asked(&mut client, MessageType::Get);
        let dump = asked(&mut client, MessageType::Dump);
        for _ in 0..3 {
            let heard = said(MessageType::Dump, dump.seq, PID, 0, true);
            assert!(matches!(client.hear(&heard), Ok(Heard::Answer { to, more: true, .. }) if to == dump));
        }
        let others = said(MessageType::Dump, 0, PID + 1, 0, false);
        assert!(matches!(client.hear(&others), Ok(Heard::Notice(_))));
        let end = said(MessageType::Dump, 0, PID, 0, false);
        assert!(matches!(client.hear(&end), Ok(Heard::Answer { to, more: false, .. }) if to == dump));
        assert_eq!(client.pending(), 1);
        client.forget(get);
        assert_eq!(client.pending(), 0);
    }

    #[test]
    fn an_extended_register_has_an_answer_for_each_type() {
        let mut client = Client::new(PID);
        let request = client.register_extended(&[SaType::Ah, SaType::Esp]);
        let (ticket, record) = client.finish(request).unwrap();
        assert_eq!(Message::parse(&record).unwrap().ereg, Some(&[2, 3][..]));
        let heard = said(MessageType::Register, ticket.seq, PID, 0, false);
        assert!(matches!(client.hear(&heard), Ok(Heard::Answer { more: true, .. })));
        assert!(matches!(client.hear(&heard), Ok(Heard::Answer { more: false, .. })));
        assert_eq!(client.pending(), 0);
    }

    #[test]
    fn numbers_go_round_without_zero() {
        let mut client = Client::starting_at(PID, u32::MAX);
        assert_eq!(asked(&mut client, MessageType::Get).seq, u32::MAX);
        assert_eq!(asked(&mut client, MessageType::Get).seq, 1);
        assert_eq!(Client::starting_at(PID, 0).request(MessageType::Get, SaType::Esp).seq, 1);
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        assert_eq!(Client::new(PID).hear(&[2, 3]).unwrap_err(), Fault::errno(Errno::EMSGSIZE));
    }
}
