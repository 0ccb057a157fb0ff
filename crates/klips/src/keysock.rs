//! PF_KEY sockets: who hears what (pf_key(7P); RFC 2367 §1.4).
//!
//! Invariants:
//! * No socket waits for another: what a socket does not read in time is dropped for that socket alone, and counted.
//! * What waits for a socket is bounded by its receive limit; one message may exceed it if nothing else waits.
//! * A DUMP is never queued: it is a cursor, moved on when its reader asks for the next message.
//! * A socket with loopback off hears nothing at all.

use crate::sadb::Cursor;
use core::fmt;
use ipsec_core::Time;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Names one PF_KEY socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// A DUMP on its way.
#[derive(Debug)]
pub(crate) struct Dump<H> {
    pub(crate) what: Dumping,
    /// The request's header: every message carries its seq and pid.
    pub(crate) header: H,
    /// Only what was used since then (`SADB_X_EXT_EDUMP`).
    pub(crate) used_since: Option<Time>,
}

/// What a DUMP walks over.
#[derive(Debug)]
pub(crate) enum Dumping {
    Sas(Cursor),
    /// The flows as they were when asked for: the table shares its entries, so this is a list of references.
    Flows(std::vec::IntoIter<Arc<crate::eroute::Eroute>>),
}

/// A message waiting for a socket; one sent to many is kept once. It may hold keys (GET): whoever goes without reading it
/// leaves none behind.
type Notice = Arc<Zeroizing<Vec<u8>>>;

/// One socket.
pub(crate) struct Socket<H> {
    pub(crate) pid: u32,
    pub(crate) created: Time,
    pub(crate) last_error: u8,
    pub(crate) dropped: u64,
    /// Bit n: registered for SA type n.
    pub(crate) registered: u16,
    pub(crate) extended: bool,
    pub(crate) promiscuous: bool,
    pub(crate) loopback: bool,
    pub(crate) dump: Option<Dump<H>>,
    queue: VecDeque<Notice>,
    queued: usize,
    ready: bool,
    /// The last message handed out was of the DUMP: the queue is next. Neither starves the other.
    dumped_last: bool,
}

impl<H> fmt::Debug for Socket<H> {
    // Waiting messages may hold keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({}, {} octets waiting)", self.pid, self.queued)
    }
}

impl<H> Socket<H> {
    pub(crate) const fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) const fn is_registered(&self, satype: u8) -> bool {
        satype < 16 && self.registered >> satype & 1 == 1
    }

    pub(crate) const fn register(&mut self, satype: u8) {
        if satype < 16 {
            self.registered |= 1 << satype;
        }
    }

    /// The SA types it is registered for.
    pub(crate) fn satypes(&self) -> impl Iterator<Item = u8> + '_ {
        (0..16).filter(|satype| self.is_registered(*satype))
    }
}

/// Who is to hear a message, besides promiscuous sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hearers {
    /// Every open socket.
    All,
    /// The socket that asked.
    Sender(SocketId),
    /// Nobody.
    Nobody,
    /// The socket that asked, and those with a plain REGISTER for the SA type.
    SenderAndPlain(SocketId, u8),
    /// Sockets with a plain REGISTER for the SA type.
    Plain(u8),
    /// Sockets registered for the SA type, either way.
    Registered(u8),
    /// Sockets with an extended REGISTER.
    Extended,
    /// The socket that asked, and those with an extended REGISTER.
    SenderAndExtended(SocketId),
    /// Promiscuous sockets alone, and not this one, which has heard it.
    PromiscuousBut(SocketId),
}

/// What is left for a socket to hear.
pub(crate) enum Next {
    /// A waiting message.
    Notice(Vec<u8>),
    /// The next message of its DUMP.
    Dump,
}

/// All PF_KEY sockets.
pub(crate) struct KeySockets<H> {
    sockets: BTreeMap<SocketId, Socket<H>>,
    last: u64,
    limit: usize,
    ready: Vec<SocketId>,
}

impl<H> KeySockets<H> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { sockets: BTreeMap::new(), last: 0, limit, ready: Vec::new() }
    }

    pub(crate) fn open(&mut self, pid: u32, now: Time) -> SocketId {
        self.last = self.last.saturating_add(1);
        let id = SocketId(self.last);
        let socket = Socket {
            pid,
            created: now,
            last_error: 0,
            dropped: 0,
            registered: 0,
            extended: false,
            promiscuous: false,
            loopback: true,
            dump: None,
            queue: VecDeque::new(),
            queued: 0,
            ready: false,
            dumped_last: false,
        };
        self.sockets.insert(id, socket);
        id
    }

    pub(crate) fn close(&mut self, id: SocketId) {
        self.sockets.remove(&id);
    }

    pub(crate) fn get(&self, id: SocketId) -> Option<&Socket<H>> {
        self.sockets.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket<H>> {
        self.sockets.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SocketId, &Socket<H>)> {
        self.sockets.iter().map(|(id, socket)| (*id, socket))
    }

    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// Says whether any socket that hears has an extended REGISTER.
    pub(crate) fn any_extended(&self) -> bool {
        self.sockets.values().any(|socket| socket.extended && socket.loopback)
    }

    /// Says whether anyone besides `one` hears everything.
    pub(crate) fn any_promiscuous_but(&self, one: SocketId) -> bool {
        self.sockets.iter().any(|(id, socket)| *id != one && socket.promiscuous && socket.loopback)
    }

    /// Puts a message into the queue of everyone who is to hear it, and says how many besides promiscuous ones that
    /// were.
    pub(crate) fn deliver(&mut self, to: Hearers, message: Vec<u8>) -> usize {
        let hears = |id: SocketId, socket: &Socket<H>| match to {
            Hearers::All => true,
            Hearers::Sender(sender) => id == sender,
            Hearers::Nobody | Hearers::PromiscuousBut(_) => false,
            Hearers::SenderAndExtended(sender) => id == sender || socket.extended,
            Hearers::SenderAndPlain(sender, satype) => {
                id == sender || (!socket.extended && socket.is_registered(satype))
            }
            Hearers::Plain(satype) => !socket.extended && socket.is_registered(satype),
            Hearers::Registered(satype) => socket.is_registered(satype),
            Hearers::Extended => socket.extended,
        };
        let wanted = |id: SocketId, socket: &Socket<H>| {
            let spared = to == Hearers::PromiscuousBut(id);
            socket.loopback && !spared && (socket.promiscuous || hears(id, socket))
        };
        let (mut heard, notice) = (0_usize, Arc::new(Zeroizing::new(message)));
        for (id, socket) in self.sockets.iter_mut().filter(|(id, socket)| wanted(**id, socket)) {
            heard = heard.saturating_add(usize::from(hears(*id, socket)));
            push(socket, *id, Arc::clone(&notice), self.limit, &mut self.ready);
        }
        heard
    }

    /// Starts a DUMP to a socket, and so makes it ready.
    pub(crate) fn start_dump(&mut self, to: SocketId, dump: Dump<H>) {
        if let Some(socket) = self.sockets.get_mut(&to).filter(|socket| socket.loopback) {
            socket.dump = Some(dump);
            wake(socket, to, &mut self.ready);
        }
    }

    /// What a socket is to hear next. A DUMP and other messages take turns.
    pub(crate) fn next(&mut self, to: SocketId) -> Option<Next> {
        let socket = self.sockets.get_mut(&to)?;
        socket.ready = false;
        if socket.dump.is_some() && (socket.queue.is_empty() || !socket.dumped_last) {
            socket.dumped_last = true;
            return Some(Next::Dump);
        }
        socket.dumped_last = false;
        let notice = socket.queue.pop_front()?;
        socket.queued = socket.queued.saturating_sub(notice.len());
        Some(Next::Notice(match Arc::try_unwrap(notice) {
            Ok(mut last) => core::mem::take(&mut *last),
            Err(shared) => shared.to_vec(),
        }))
    }

    /// Takes the sockets that became ready since last asked.
    pub(crate) fn take_ready(&mut self) -> Vec<SocketId> {
        core::mem::take(&mut self.ready)
    }
}

fn push<H>(socket: &mut Socket<H>, id: SocketId, notice: Notice, limit: usize, ready: &mut Vec<SocketId>) {
    let queued = socket.queued.saturating_add(notice.len());
    if queued > limit && !socket.queue.is_empty() {
        socket.dropped = socket.dropped.saturating_add(1);
        return;
    }
    socket.queued = queued;
    socket.queue.push_back(notice);
    wake(socket, id, ready);
}

fn wake<H>(socket: &mut Socket<H>, id: SocketId, ready: &mut Vec<SocketId>) {
    // Said once until it has been asked, so the list is no longer than there are sockets.
    if !core::mem::replace(&mut socket.ready, true) {
        ready.push(id);
    }
}
