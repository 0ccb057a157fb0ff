//! One IKE SA: what it knows at each stage, the one request it may have outstanding, and how it gets from datagram to
//! answer.
//!
//! **The way of a datagram**: [`IkeSa::datagram`] opens it, tells requests from responses and repetitions from news, and
//! hands news to [`IkeSa::run`]. That calls the handler of the exchange, in [`crate::exchange`]. A handler that needs
//! something slow returns [`Pause::Need`]; it is called again from its beginning, with all answers so far, when the job
//! is done. So a handler changes nothing before its last question is answered.
//!
//! Only [`crate::auth`] makes an [`Authenticated`], and only [`Stage::Established`] holds one: without it there are no
//! children, no rekeying and no configuration.

mod timers;

use crate::auth::Authenticated;
use crate::auth::methods::Methods;
use crate::connection::{Configured, Connection, Mode};
use crate::event::{Event, Transmit, Why};
use crate::exchange::followup::{Ours, Theirs};
use crate::job::{Answer, Job, JobId};
use crate::keys::IkeKeys;
use crate::message::{
    Exchange, Flags, Header, IkeSpi, Message, Notify, NotifyKind, ParseError, Payload, rules,
};
use crate::outbox::Context;
use crate::ppk::Named;
use crate::proposal::{Chosen, Protocol};
use crate::protect::{Opened, Opener, Opening, Sealer};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use ipsec_core::Time;
use ipsec_core::kex::{Group, Offer};
use std::collections::VecDeque;
use std::sync::Arc;

/// A closed IKE SA still answers repetitions of the last request for so long.
const LINGER: Duration = Duration::from_secs(10);
/// A half-open IKE SA that its initiator does not finish is forgotten after so long.
pub(crate) const HALF_OPEN: Duration = Duration::from_secs(30);
/// The longest datagram without fragmentation of IP on nearly every path: 1280 less IPv6 and UDP headers and the marker.
pub(crate) const DATAGRAM: usize = 1228;
/// Tasks that may wait for their turn on one IKE SA.
const MAX_TASKS: usize = 256;

/// What the exchanges of one IKE SA can be about.
#[derive(Debug)]
pub(crate) enum Work {
    /// A request of the peer.
    Request(Opened),
    /// The answer to our request.
    Response(Opened),
    /// Something to ask the peer.
    Begin(Task),
}

/// Something to ask the peer when it is our turn.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// IKE_SA_INIT.
    Init,
    /// IKE_INTERMEDIATE, the next additional key exchange.
    Intermediate,
    /// IKE_AUTH.
    Auth,
    /// A Child SA for the connection, in place of another if `rekeys` names one; `group` if the peer asked for one.
    Child { connection: Arc<Connection>, rekeys: Option<u32>, group: Option<Group> },
    /// IKE_FOLLOWUP_KE, the next additional key exchange of a CREATE_CHILD_SA.
    Followup,
    /// A new IKE SA in place of this.
    RekeyIke { group: Option<Group> },
    /// Remove a Child SA.
    DeleteChild(u32),
    /// Remove this IKE SA.
    DeleteIke(Why),
    /// Is anybody there?
    Liveness,
    /// We are elsewhere now (RFC 4555 §3.5).
    Move,
    /// Our addresses are others now, and the path is the peer's choice (RFC 4555 §3.6).
    Addresses,
    /// Can the peer be reached where it says it is? The cookie that it is to bring back.
    Routable(Vec<u8>),
    /// A new IKE SA beside this one, on which both sides prove anew who they are.
    Reauthenticate,
    /// This IKE SA has what the one it succeeds had, which may go.
    Retire,
}

/// Our request that the peer has not answered yet.
#[derive(Debug)]
pub(crate) struct Outstanding {
    pub(crate) id: u32,
    pub(crate) asked: Asked,
    datagrams: Vec<Vec<u8>>,
    first: Time,
    next: Time,
    wait: Duration,
    /// How often it was repeated.
    tries: u32,
}

/// What was asked.
#[derive(Debug)]
pub(crate) enum Asked {
    Init,
    Intermediate(Arc<Offer>),
    Auth {
        spi_in: Option<u32>,
    },
    Eap,
    Child(Box<AskedChild>),
    RekeyIke(Box<AskedIke>),
    Followup(Arc<Offer>),
    DeleteChild(u32),
    DeleteIke(Why),
    Liveness,
    /// From where to where.
    Move((SocketAddr, SocketAddr)),
    /// The cookie, and where it went.
    Routable(Vec<u8>, IpAddr),
}

#[derive(Debug)]
pub(crate) struct AskedChild {
    pub(crate) connection: Arc<Connection>,
    pub(crate) rekeys: Option<u32>,
    pub(crate) spi_in: u32,
    pub(crate) ni: Vec<u8>,
    pub(crate) offer: Option<Arc<Offer>>,
    /// The peer has asked for this group already: it has no reason to ask for another.
    pub(crate) sent_back: bool,
    /// The peer rekeyed the same child meanwhile: the pair it made, and the lower nonce of its exchange.
    pub(crate) crossed: Option<(u32, Vec<u8>)>,
    /// What the peer deleted meanwhile without our knowing it: the child it has just made for us may be among them.
    pub(crate) gone: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct AskedIke {
    pub(crate) ni: Vec<u8>,
    pub(crate) spi: IkeSpi,
    pub(crate) offer: Arc<Offer>,
    /// As of a child.
    pub(crate) sent_back: bool,
    /// The peer rekeyed this IKE SA meanwhile: the one it made, and the lower nonce of its exchange.
    pub(crate) crossed: Option<(IkeSpi, Vec<u8>)>,
}

/// Where ESP goes: our end and the peer's, and whether in UDP between their ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) encapsulate: bool,
}

/// A pair of Child SAs.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub(crate) connection: Arc<Connection>,
    pub(crate) protocol: Protocol,
    pub(crate) mode: Mode,
    pub(crate) spi_in: u32,
    pub(crate) spi_out: u32,
    /// Where it is on this host: our end and the peer's, and whether in UDP.
    pub(crate) placed: Placed,
    pub(crate) rekey_at: Time,
    pub(crate) expires: Time,
    /// Until then it only receives, as long as another pair carries what it is for.
    pub(crate) idle_until: Option<Time>,
    /// The pair that has its place, or will have it when this one goes; this one waits for its deletion.
    pub(crate) replaced_by: Option<u32>,
    /// We have asked the peer to delete it. It still receives until the peer has said that it no longer sends.
    pub(crate) deleting: bool,
}

impl Child {
    pub(crate) const fn replaced(&self) -> bool {
        self.replaced_by.is_some() || self.deleting
    }

    /// What the host is told when it goes.
    pub(crate) fn down(&self) -> Event {
        Event::ChildDown {
            connection: self.connection.clone(),
            spi_in: self.spi_in,
            spi_out: self.spi_out,
            local: self.placed.local,
            remote: self.placed.remote,
            replaced: self.replaced_by.is_some(),
        }
    }
}

/// Nonces, key exchange and messages of IKE_SA_INIT, until AUTH has covered them.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) init_i: Vec<u8>,
    pub(crate) init_r: Vec<u8>,
    pub(crate) ni: Vec<u8>,
    pub(crate) nr: Vec<u8>,
    /// IntAuth of both sides so far (RFC 9242 §3.3.2).
    pub(crate) int_auth: [Vec<u8>; 2],
    /// Additional key exchanges still to come.
    pub(crate) additional: VecDeque<Group>,
    /// The hashes the peer can verify signatures with, by number; `None` if it has not said so (RFC 7427 §4).
    pub(crate) hashes: Option<Vec<u16>>,
    /// How the peer lets us prove who we are, if it has said so (RFC 9593).
    pub(crate) methods: Option<Methods>,
    /// The peer asks for our certificate.
    pub(crate) asked: bool,
    /// Both sides can mix in a post-quantum preshared key.
    pub(crate) can_ppk: bool,
    /// The one we have named.
    pub(crate) named: Option<Named>,
}

/// The initiator before the answer to IKE_SA_INIT.
#[derive(Debug)]
pub(crate) struct Opening1 {
    pub(crate) ni: Vec<u8>,
    pub(crate) group: Group,
    pub(crate) offer: Option<(Arc<Offer>, Vec<u8>)>,
    pub(crate) cookie: Option<Vec<u8>>,
    pub(crate) sent: Vec<u8>,
    /// How often the peer has sent us back; it has no reason to do so for ever.
    pub(crate) rounds: u8,
    /// Somebody refused. Anybody could have, so a better answer is waited for (RFC 7296 §2.21.1).
    pub(crate) refused: Option<Why>,
}

/// Where an IKE SA stands. There is no way back.
#[derive(Debug)]
pub(crate) enum Stage {
    /// We began it.
    Opening(Box<Opening1>),
    /// The responder computes its share.
    Answering { ni: Vec<u8>, chosen: Box<Chosen>, init_i: Vec<u8> },
    /// There are keys, and nobody has proved anything yet.
    Keyed(Box<Handshake>),
    /// EAP is under way within IKE_AUTH.
    Eap(Box<crate::exchange::eap::Conversation>),
    /// The peer has proved who it is.
    Established(Authenticated),
    /// Nothing happens any more.
    Closed,
}

/// The keys in use, both directions.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) chosen: Chosen,
    pub(crate) keys: IkeKeys,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
}

/// What NAT detection found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nat {
    /// We are behind one, and keep its mapping alive.
    pub(crate) here: bool,
    /// The peer is.
    pub(crate) there: bool,
    /// The peer is one of ours, and both may choose.
    pub(crate) kin: bool,
    /// ESP goes in UDP, for that or because both sides want it.
    pub(crate) encapsulate: bool,
}

/// A handler that has to wait for a job.
#[derive(Debug)]
struct Pending {
    job: JobId,
    work: Work,
    answers: Vec<Answer>,
}

/// One IKE SA.
#[derive(Debug)]
pub(crate) struct IkeSa {
    /// Our SPI, by which everything finds it.
    pub(crate) key: IkeSpi,
    /// We are its original initiator.
    pub(crate) initiator: bool,
    /// The peer has proved who it is at some time, here or on the one that this took the place of.
    pub(crate) proved: bool,
    pub(crate) peer_spi: IkeSpi,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) connection: Option<Arc<Connection>>,
    /// We began the first in the row of IKE SAs that this one is the last of (RFC 4555 §2.1).
    pub(crate) began: bool,
    /// Both sides know how to move.
    pub(crate) mobike: bool,
    /// We have moved before the peer could be told.
    pub(crate) readdressed: bool,
    /// Other addresses of the peer.
    pub(crate) elsewhere: Vec<IpAddr>,
    /// Where both sides know it to be.
    pub(crate) placed: (SocketAddr, SocketAddr),
    /// The address at which the peer has proved that it can be reached.
    pub(crate) routable: IpAddr,
    /// Where its children were sent on its word alone, until it has answered from there.
    pub(crate) unchecked: Option<IpAddr>,
    /// It has left such an address without an answer: from now on it answers first.
    pub(crate) wary: bool,
    /// Where the last authentic message came from, and to where.
    pub(crate) heard_at: (SocketAddr, SocketAddr),
    /// The peer can do without a child in IKE_AUTH (RFC 6023).
    pub(crate) peer_can_be_childless: bool,
    /// CREATE_CHILD_SA of either side whose additional key exchanges are not over.
    pub(crate) ours: Option<Ours>,
    pub(crate) theirs: Option<Box<Theirs>>,
    /// The IKE SA whose place this one is to take.
    pub(crate) succeeds: Option<IkeSpi>,
    pub(crate) stage: Stage,
    pub(crate) channel: Option<Channel>,
    /// The group of IKE_SA_INIT, where the IKE SA has been rekeyed since.
    pub(crate) first_group: Option<Group>,
    /// The name of the post-quantum preshared key that is in its keys, or in those of an IKE SA it comes from.
    pub(crate) ppk: Option<Vec<u8>>,
    /// What the last IKE_INTERMEDIATE came under: should our answer be lost, it comes so again (RFC 9242 §3.3).
    pub(crate) before: Option<Opener>,
    pub(crate) nat: Nat,
    /// Both sides can read fragments.
    pub(crate) fragmentation: bool,
    pub(crate) request: Option<Outstanding>,
    next_request: u32,
    /// The Message ID the peer's next request will have.
    expected: u32,
    answered: Option<(u32, Vec<Vec<u8>>)>,
    pending: Option<Pending>,
    pub(crate) tasks: VecDeque<Task>,
    /// Tasks that the peer asked us to try later.
    pub(crate) later: Vec<(Time, Task)>,
    pub(crate) children: Vec<Child>,
    pub(crate) rekey_at: Time,
    pub(crate) expires: Time,
    /// The name under which the addresses of `given` were taken: that of the first IKE SA with this peer.
    pub(crate) lessee: IkeSpi,
    /// Addresses the peer was given.
    pub(crate) given: Vec<IpAddr>,
    /// What the peer has given us.
    pub(crate) taken: Option<Arc<Configured>>,
    /// We have no other IKE SA with this peer, and will say so (RFC 7296 §2.4).
    pub(crate) first_contact: bool,
    /// When it came up the peer had another here, which may go on carrying what it sends.
    pub(crate) beside: bool,
    /// When it began here: as responder, when the peer's first message came.
    pub(crate) began_at: Time,
    /// Since when the peer's rekeyings of it, and of those it comes from, are counted, and how many there were.
    pub(crate) rekeyed_by_peer: (Time, u32),
    /// The IKE SA that took this one's place.
    pub(crate) heir: Option<IkeSpi>,
    /// The one the peer made while our own rekeying was under way, and the lower nonce of its exchange.
    pub(crate) crossing: Option<(IkeSpi, Vec<u8>)>,
    /// Its parent has not handed its children over yet: two rekeyings crossed, and which stands is not known here.
    pub(crate) awaits: bool,
    /// When somebody without keys last had us ask whether the peer is there.
    doubted: Time,
    heard: Time,
    sent: Time,
}

/// Why a handler stopped.
#[derive(Debug)]
pub(crate) enum Pause {
    /// It needs an answer first.
    Need(Job),
    /// The request is refused with a notification; nothing has changed.
    Refuse(Notify, Option<Why>),
    /// The whole IKE SA comes to nothing.
    Fail(Why),
}

impl Pause {
    /// A refusal without data.
    pub(crate) const fn refuse(kind: NotifyKind) -> Self {
        Self::Refuse(Notify::new(kind, Vec::new()), None)
    }
}

/// The answers a handler has so far, in the order it asks.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    given: Vec<Answer>,
    next: usize,
}

impl Answers {
    /// One more answer.
    #[cfg(test)]
    pub(crate) fn give(&mut self, answer: Answer) {
        self.given.push(answer);
    }

    /// The next answer, or the demand for it.
    pub(crate) fn ask(&mut self, job: impl FnOnce() -> Job) -> Result<Answer, Pause> {
        let answer = self.given.get(self.next).cloned().ok_or_else(|| Pause::Need(job()))?;
        self.next = self.next.saturating_add(1);
        Ok(answer)
    }
}

impl Handshake {
    /// The octets of the messages that AUTH covers.
    const fn held(&self) -> usize {
        self.init_i.len().saturating_add(self.init_r.len())
    }
}

impl IkeSa {
    /// Octets of messages that are kept here for somebody who has proved nothing; what else there is of an IKE SA has one size.
    pub(crate) fn held(&self) -> usize {
        if !self.is_unproved() {
            return 0;
        }
        let stage = match &self.stage {
            Stage::Answering { init_i, .. } => init_i.len(),
            Stage::Keyed(handshake) => handshake.held(),
            Stage::Eap(conversation) => conversation.handshake.held().saturating_add(conversation.held()),
            Stage::Opening(_) | Stage::Established(_) | Stage::Closed => 0,
        };
        let partial = self.channel.as_ref().map_or(0, |channel| channel.opener.held());
        let work = self.pending.as_ref().map_or(0, |pending| match &pending.work {
            Work::Request(opened) | Work::Response(opened) => opened.inner.len().saturating_mul(2),
            Work::Begin(_) => 0,
        });
        let answered = self.answered.iter().flat_map(|(_, datagrams)| datagrams).map(Vec::len).sum();
        [stage, partial, work, answered].iter().fold(0, |sum: usize, one| sum.saturating_add(*one))
    }

    /// What AUTH covers, while nobody has proved anything.
    pub(crate) fn handshake(&self) -> Option<&Handshake> {
        match &self.stage {
            Stage::Keyed(handshake) => Some(handshake),
            Stage::Eap(conversation) => Some(&conversation.handshake),
            _ => None,
        }
    }

    /// The same, to be used up: the next stage is about to begin.
    pub(crate) fn take_handshake(&mut self) -> Option<Box<Handshake>> {
        match core::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Keyed(handshake) => Some(handshake),
            Stage::Eap(conversation) => Some(conversation.handshake),
            other => {
                self.stage = other;
                None
            }
        }
    }

    pub(crate) fn new(
        key: IkeSpi,
        initiator: bool,
        ends: (SocketAddr, SocketAddr),
        stage: Stage,
        now: Time,
    ) -> Self {
        let (local, remote) = ends;
        Self {
            key,
            initiator,
            proved: matches!(stage, Stage::Established(_)),
            peer_spi: IkeSpi(0),
            local,
            remote,
            connection: None,
            began: initiator,
            mobike: false,
            readdressed: false,
            elsewhere: Vec::new(),
            placed: ends,
            routable: remote.ip(),
            unchecked: None,
            wary: false,
            heard_at: ends,
            peer_can_be_childless: false,
            ours: None,
            theirs: None,
            succeeds: None,
            stage,
            channel: None,
            first_group: None,
            ppk: None,
            before: None,
            nat: Nat::default(),
            fragmentation: false,
            request: None,
            next_request: 0,
            expected: 0,
            answered: None,
            pending: None,
            tasks: VecDeque::new(),
            later: Vec::new(),
            children: Vec::new(),
            rekey_at: Time::FOREVER,
            expires: now.after(HALF_OPEN),
            lessee: key,
            given: Vec::new(),
            taken: None,
            first_contact: false,
            beside: false,
            began_at: now,
            rekeyed_by_peer: (now, 0),
            heir: None,
            crossing: None,
            awaits: false,
            doubted: now,
            heard: now,
            sent: now,
        }
    }

    /// The SPIs as the header has them: the initiator's, the responder's.
    pub(crate) const fn spis(&self) -> (IkeSpi, IkeSpi) {
        if self.initiator { (self.key, self.peer_spi) } else { (self.peer_spi, self.key) }
    }

    pub(crate) const fn is_established(&self) -> bool {
        matches!(self.stage, Stage::Established(_))
    }

    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }

    /// It counts against the limits of what has proved nothing: half open, or refused and only there to say so once more.
    pub(crate) const fn is_unproved(&self) -> bool {
        !self.initiator && !self.proved
    }

    /// A peer began it, and it may still become something.
    pub(crate) const fn is_half_open(&self) -> bool {
        !self.initiator && matches!(self.stage, Stage::Answering { .. } | Stage::Keyed(_) | Stage::Eap(_))
    }

    /// It makes room for another of the same peer, in a moment.
    pub(crate) fn is_to_go(&self) -> bool {
        let goes = |task: &Task| matches!(task, Task::DeleteIke(Why::Superseded));
        self.later.iter().any(|(_, task)| goes(task)) || self.tasks.iter().any(goes)
    }

    /// The peer has spoken on it since then, with its keys.
    pub(crate) fn spoke_since(&self, then: Time) -> bool {
        self.heard >= then
    }

    /// Another has taken its place, and it waits for its deletion.
    pub(crate) const fn replaced(&self) -> bool {
        self.heir.is_some()
    }

    /// Says whether Child SAs of another connection may be made here: it has the same two ends, and its peer is the one
    /// that proved who it is.
    pub(crate) fn serves(&self, other: &Connection) -> bool {
        let Stage::Established(proved) = &self.stage else { return false };
        let ours = self.connection.as_ref().is_some_and(|connection| connection.local_id.is(&other.local_id));
        // Where an IKE SA has moved, its addresses are not those of the connection any more.
        let same = self.connection.as_ref().is_some_and(|connection| {
            (connection.local_address, connection.remote_address)
                == (other.local_address, other.remote_address)
        });
        let fits = same || other.fit(self.local.ip(), self.remote.ip()).is_some();
        // Whoever insists on algorithms does so of the IKE SA, too: a child of its own is no way around them.
        let strong = |channel: &Channel| {
            let chosen = channel.chosen.proposal(Protocol::Ike, Vec::new());
            other.ike.iter().any(|offer| offer.choose(&chosen).is_some())
        };
        let mixed = other.ppk.admits(self.ppk.as_deref());
        let chosen = || self.channel.as_ref().is_some_and(strong);
        ours && other.remote_id.matches(proved.id()) && fits && mixed && chosen()
    }

    /// Who the peer proved to be.
    pub(crate) const fn peer(&self) -> Option<&crate::identity::Id> {
        if let Stage::Established(proved) = &self.stage { Some(proved.id()) } else { None }
    }

    pub(crate) fn header(&self, exchange: Exchange, response: bool, id: u32) -> Header {
        let (spi_i, spi_r) = self.spis();
        Header { spi_i, spi_r, exchange, flags: Flags { initiator: self.initiator, response }, id }
    }

    /// Takes a datagram that names this IKE SA.
    pub(crate) fn datagram(&mut self, cx: &mut Context<'_>, ends: (SocketAddr, SocketAddr), octets: &[u8]) {
        let Ok((header, ..)) = Header::parse(octets) else {
            cx.out.counters.malformed = cx.out.counters.malformed.saturating_add(1);
            return;
        };
        // A message of ours that comes back to us is not the peer's.
        if header.flags.initiator == self.initiator {
            cx.out.counters.stray = cx.out.counters.stray.saturating_add(1);
            return;
        }
        if header.exchange == Exchange::IkeSaInit {
            return self.init_datagram(cx, &header, octets);
        }
        if header.flags.response && is_unknown_here(octets) {
            cx.out.counters.stray = cx.out.counters.stray.saturating_add(1);
            return self.doubt(cx);
        }
        let (awaited, fresh) = (self.awaits_message(&header), self.is_fresh(&header));
        let Some(channel) = &mut self.channel else {
            cx.out.counters.stray = cx.out.counters.stray.saturating_add(1);
            return;
        };
        match channel.opener.open(octets, awaited) {
            Opening::Message(opened) if fresh => {
                self.heard(cx, ends, &opened.message.header);
                self.message(cx, opened);
            }
            Opening::Malformed(header, error) if fresh => self.unreadable(cx, &header, error),
            Opening::Message(Opened { message: Message { header, .. }, .. })
            | Opening::Malformed(header, _)
            | Opening::Again(header) => self.answer_again(cx, ends, &header),
            Opening::Fragment => {}
            // Its content has been dealt with; only what was answered is answered again.
            Opening::Forged => match self.before.as_mut().map(|before| before.open(octets, false)) {
                Some(
                    Opening::Message(Opened { message: Message { header, .. }, .. })
                    | Opening::Malformed(header, _)
                    | Opening::Again(header),
                ) => self.answer_again(cx, ends, &header),
                Some(Opening::Fragment) => {}
                Some(Opening::Forged) | None => {
                    cx.out.counters.forged = cx.out.counters.forged.saturating_add(1);
                }
            },
        }
    }

    /// Says whether it is the request whose turn it is, or the answer to ours. Anything else may be a record of what was said
    /// long ago, played by somebody else.
    fn awaits_message(&self, header: &Header) -> bool {
        let ours = || self.request.as_ref().is_some_and(|request| request.id == header.id);
        // The last number there is has none behind it, by which a repetition would be known (RFC 7296 §2.2).
        let turn =
            if header.flags.response { ours() } else { header.id == self.expected && header.id != u32::MAX };
        turn && !self.is_closed()
    }

    /// Says whether it is news: what is no news does not even say that the peer is there (RFC 7296 §2.4), and neither does what
    /// is being dealt with already.
    fn is_fresh(&self, header: &Header) -> bool {
        self.awaits_message(header) && self.pending.is_none()
    }

    /// The request that was answered last is answered again, to where it comes from this time: our answer was lost
    /// (RFC 7296 §2.1). Nothing else comes of it.
    fn answer_again(&mut self, cx: &mut Context<'_>, ends: (SocketAddr, SocketAddr), header: &Header) {
        if let Some((id, datagrams)) = &self.answered
            && *id == header.id
            && !header.flags.response
        {
            let datagrams = datagrams.clone();
            self.transmit_between(cx, ends, &datagrams);
        }
    }

    /// The answer to our IKE_SA_INIT, or the peer's request once more. Neither is protected.
    fn init_datagram(&mut self, cx: &mut Context<'_>, header: &Header, octets: &[u8]) {
        if header.flags.response {
            let waits = matches!(&self.request, Some(Outstanding { asked: Asked::Init, .. }));
            match Message::parse(octets) {
                Ok(message) if waits && self.pending.is_none() && header.id == 0 && rules::fits(&message) => {
                    let inner = ipsec_core::Secret::from(octets);
                    self.run(cx, Work::Response(Opened { message, inner }), Vec::new());
                }
                _ => cx.out.counters.stray = cx.out.counters.stray.saturating_add(1),
            }
            return;
        }
        // The same request gets the same answer, octet for octet; another under this name gets none.
        let same = match &self.stage {
            Stage::Keyed(handshake) => handshake.init_i == octets,
            _ => false,
        };
        if same && let Some((0, datagrams)) = &self.answered {
            let datagrams = datagrams.clone();
            self.transmit(cx, &datagrams);
        }
    }

    /// Notes by news from the peer that it is there, and where, if it is behind a NAT whose mapping changed (RFC 7296 §2.23).
    fn heard(&mut self, cx: &mut Context<'_>, (local, remote): (SocketAddr, SocketAddr), header: &Header) {
        self.heard = cx.now;
        self.heard_at = (local, remote);
        // Where an initiator is, its host says: an answer to where it was before does not take it back.
        let local = if self.initiator && !self.is_established() { self.local } else { local };
        if (remote != self.remote || local != self.local) && (self.nat.there || !self.is_established()) {
            self.follow(cx, (local, remote));
        }
        // An answer by a way that the children do not go yet.
        if header.flags.response && self.is_established() && self.mobike && self.began {
            let moving = matches!(&self.request, Some(Outstanding { asked: Asked::Move(_), .. }));
            if !moving && (self.local, self.remote) != self.placed {
                self.task(Task::Move);
            }
        }
    }

    /// Authentic and still not a message: the peer is told, and asked for nothing more (RFC 7296 §2.21.3).
    fn unreadable(&mut self, cx: &mut Context<'_>, header: &Header, error: ParseError) {
        cx.out.counters.malformed = cx.out.counters.malformed.saturating_add(1);
        if header.flags.response {
            return;
        }
        let notify = match error {
            ParseError::UnknownCritical(kind) => {
                Notify::new(NotifyKind::UnsupportedCriticalPayload, vec![kind])
            }
            ParseError::Malformed(_) | ParseError::MajorVersion(_) => {
                Notify::new(NotifyKind::InvalidSyntax, Vec::new())
            }
        };
        let fatal = !self.is_established() || notify.kind == NotifyKind::InvalidSyntax;
        self.respond(cx, header.exchange, header.id, vec![Payload::Notify(notify)]);
        if fatal {
            self.close(cx, Why::Protocol("it sent a message that cannot be read"));
        }
    }

    /// A protected message, read, whole and news. The window is 1: what is older was answered long ago, what is newer must
    /// wait for its turn, and while a job of ours is under way the peer's request waits for its repetition.
    fn message(&mut self, cx: &mut Context<'_>, opened: Opened) {
        let header = opened.message.header;
        if header.flags.response {
            if rules::fits(&opened.message) {
                self.run(cx, Work::Response(opened), Vec::new());
            }
            return;
        }
        // A request that has overtaken the answer by which the responder proves who it is waits for its repetition, too: until
        // then it has nothing to ask, and then it may.
        if self.initiator && !self.is_established() {
            return;
        }
        // What is here is still with the parent. The peer repeats itself, and by then it will be known who has it.
        let ends = opened.message.payloads.contains(&Payload::Delete(crate::message::Delete::IkeSa));
        if self.awaits && !ends {
            return;
        }
        if !rules::fits(&opened.message) {
            self.respond(cx, header.exchange, header.id, vec![notify(NotifyKind::InvalidSyntax)]);
            self.close(cx, Why::Protocol("it sent a message with payloads that its exchange does not have"));
            return;
        }
        self.run(cx, Work::Request(opened), Vec::new());
    }

    /// A job is done.
    pub(crate) fn answer(&mut self, cx: &mut Context<'_>, job: JobId, answer: Answer) {
        match self.pending.take() {
            Some(Pending { job: waits, work, mut answers }) if waits == job => {
                answers.push(answer);
                self.run(cx, work, answers);
            }
            other => self.pending = other,
        }
    }

    /// Calls the handler, and sees to what it came to.
    pub(crate) fn run(&mut self, cx: &mut Context<'_>, work: Work, given: Vec<Answer>) {
        let mut answers = Answers { given, next: 0 };
        let outcome = crate::exchange::step(self, cx, &work, &mut answers);
        match (outcome, work) {
            (Ok(()), _) => {}
            (Err(Pause::Need(job)), work) => {
                let job = cx.out.work.ask(self.key, self.is_unproved(), self.remote.ip(), job);
                self.pending = Some(Pending { job, work, answers: answers.given });
                return;
            }
            (Err(Pause::Refuse(refusal, why)), Work::Request(opened)) => {
                let header = opened.message.header;
                let fatal = matches!(
                    header.exchange,
                    Exchange::IkeSaInit | Exchange::IkeAuth | Exchange::IkeIntermediate
                );
                let why = why.unwrap_or(Why::Protocol(refusal.kind.name()));
                let said = || format!("refused {}: {why}", header.exchange.name());
                match self.is_unproved() {
                    true => cx.out.of_stranger(cx.now, self.connection.as_ref(), said),
                    false => cx.out.progress(self.connection.as_ref(), said()),
                }
                self.respond(cx, header.exchange, header.id, vec![Payload::Notify(refusal)]);
                if fatal {
                    self.close(cx, why);
                }
            }
            (Err(Pause::Refuse(refusal, why)), Work::Response(_) | Work::Begin(_)) => {
                self.close(cx, why.unwrap_or(Why::Protocol(refusal.kind.name())));
            }
            (Err(Pause::Fail(why)), _) => self.close(cx, why),
        }
        self.next_task(cx);
    }

    /// Begins what waits, if nothing else is under way.
    pub(crate) fn next_task(&mut self, cx: &mut Context<'_>) {
        while self.request.is_none() && self.pending.is_none() && !self.is_closed() {
            let Some(task) = self.tasks.pop_front() else { return };
            self.run(cx, Work::Begin(task), Vec::new());
        }
    }

    /// Adds a task, unless the same is there already.
    pub(crate) fn task(&mut self, task: Task) {
        let same = |known: &Task| match (known, &task) {
            (Task::Child { rekeys: Some(a), .. }, Task::Child { rekeys: Some(b), .. }) => a == b,
            (Task::DeleteChild(a), Task::DeleteChild(b)) => a == b,
            (Task::RekeyIke { .. }, Task::RekeyIke { .. })
            | (Task::Liveness, Task::Liveness)
            | (Task::Move, Task::Move)
            | (Task::Addresses, Task::Addresses)
            | (Task::Routable(_), Task::Routable(_))
            | (Task::Reauthenticate, Task::Reauthenticate)
            | (Task::DeleteIke(_), Task::DeleteIke(_)) => true,
            _ => false,
        };
        if self.tasks.len() < MAX_TASKS && !self.tasks.iter().any(same) {
            self.tasks.push_back(task);
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(
        &mut self,
        cx: &mut Context<'_>,
        exchange: Exchange,
        payloads: Vec<Payload>,
        asked: Asked,
    ) -> Message {
        let id = self.next_request;
        let message = Message { header: self.header(exchange, false, id), payloads };
        let datagrams = self.datagrams(cx, &message);
        self.transmit(cx, &datagrams);
        let wait = self.connection.as_ref().map_or(Duration::from_secs(1), |c| c.times.retransmit);
        let next = cx.now.after(wait);
        self.request = Some(Outstanding { id, asked, datagrams, first: cx.now, next, wait, tries: 0 });
        message
    }

    /// The request has been answered: the next one may go.
    pub(crate) fn granted(&mut self) -> Option<Asked> {
        let request = self.request.take()?;
        self.next_request = request.id.saturating_add(1);
        Some(request.asked)
    }

    /// The peer wants IKE_SA_INIT once more, with another cookie or group; that is no new Message ID (RFC 7296 §2.6).
    pub(crate) fn again(&mut self) {
        self.request = None;
    }

    /// Answers a request; the answer is kept and sent again as it is.
    pub(crate) fn respond(
        &mut self,
        cx: &mut Context<'_>,
        exchange: Exchange,
        id: u32,
        payloads: Vec<Payload>,
    ) -> Message {
        let message = Message { header: self.header(exchange, true, id), payloads };
        let datagrams = self.datagrams(cx, &message);
        self.transmit_back(cx, &datagrams);
        self.answered = Some((id, datagrams));
        self.expected = id.saturating_add(1);
        message
    }

    fn datagrams(&mut self, cx: &mut Context<'_>, message: &Message) -> Vec<Vec<u8>> {
        if message.header.exchange == Exchange::IkeSaInit {
            return vec![message.emit()];
        }
        let limit = self.fragmentation.then_some(DATAGRAM);
        let random = &mut *cx.random;
        let sealed = self
            .channel
            .as_mut()
            .and_then(|c| c.sealer.seal(message, limit, &mut |octets| random.fill(octets)));
        sealed.unwrap_or_default()
    }

    fn transmit(&mut self, cx: &mut Context<'_>, datagrams: &[Vec<u8>]) {
        self.transmit_between(cx, (self.local, self.remote), datagrams);
    }

    /// Answers: to where the request came from (RFC 7296 §2.11).
    fn transmit_back(&mut self, cx: &mut Context<'_>, datagrams: &[Vec<u8>]) {
        self.transmit_between(cx, self.heard_at, datagrams);
    }

    fn transmit_between(
        &mut self,
        cx: &mut Context<'_>,
        (local, remote): (SocketAddr, SocketAddr),
        datagrams: &[Vec<u8>],
    ) {
        self.sent = cx.now;
        for octets in datagrams {
            cx.out.transmits.push_back(Transmit { local, remote, octets: octets.clone() });
        }
    }

    /// Ends it. Its children go with it; what its host has to know, it is told.
    pub(crate) fn close(&mut self, cx: &mut Context<'_>, why: Why) {
        if self.is_closed() {
            return;
        }
        let children: Vec<u32> = self.children.iter().map(|child| child.spi_in).collect();
        for spi_in in children {
            self.remove_child(cx, spi_in);
        }
        if !self.replaced() {
            // Otherwise its heir has them.
            self.given.iter().for_each(|address| cx.leases.give_back(*address, self.lessee));
        }
        let established = self.is_established();
        let connection = self.connection.clone();
        self.stage = Stage::Closed;
        self.before = None;
        if let Some(channel) = &mut self.channel {
            channel.opener.forget();
        }
        self.request = None;
        if let Some(pending) = self.pending.take() {
            cx.out.work.cancel(pending.job);
        }
        (self.ours, self.theirs) = (None, None);
        self.tasks.clear();
        self.later.clear();
        self.expires = cx.now.after(LINGER);
        let ike = self.key;
        if established {
            cx.out.events.push_back(Event::IkeDown { ike, connection, why });
        } else if let Some(connection) = connection.filter(|_| self.initiator) {
            cx.out.events.push_back(Event::Failed { connection, why });
        } else {
            cx.out.peer_failed(cx.now, self.remote, why);
        }
    }

    /// Ends it for others, and keeps nothing of it.
    pub(crate) fn make_room(&mut self, cx: &mut Context<'_>) {
        self.close(cx, Why::Crowded);
        self.answered = None;
    }

    /// The child that we have asked for and do not have yet.
    pub(crate) fn asked_child(&mut self) -> Option<&mut AskedChild> {
        match self.request.as_mut().map(|request| &mut request.asked) {
            Some(Asked::Child(asked)) => Some(asked),
            _ => self.ours.as_mut().and_then(Ours::child),
        }
    }

    /// Removes a pair of SAs and tells the host.
    pub(crate) fn remove_child(&mut self, cx: &mut Context<'_>, spi_in: u32) -> Option<Child> {
        let at = self.children.iter().position(|child| child.spi_in == spi_in)?;
        let child = self.children.remove(at);
        // A successor that only received so far sends from now on, before the old pair goes.
        if let Some(spi_in) =
            child.replaced_by.filter(|spi| self.children.iter().any(|other| other.spi_in == *spi))
        {
            cx.out.events.push_back(Event::ChildInUse { spi_in });
        }
        cx.out.events.push_back(child.down());
        Some(child)
    }
}

/// A notification about no SA and without data.
pub(crate) const fn notify(kind: NotifyKind) -> Payload {
    Payload::Notify(Notify::new(kind, Vec::new()))
}

/// Says whether an unprotected message is about an IKE SA, or an SPI, that its sender does not know.
fn is_unknown_here(octets: &[u8]) -> bool {
    let is = |payload: &Payload| {
        let unknown = [NotifyKind::InvalidIkeSpi, NotifyKind::InvalidSpi];
        matches!(payload, Payload::Notify(notify) if unknown.contains(&notify.kind))
    };
    Message::parse(octets).is_ok_and(|message| message.payloads.iter().any(is))
}

#[cfg(test)]
mod tests;
