//! One owner of everything that is not a packet: SADB, policy, PF_KEY sockets.
//!
//! Sans-I/O: [`Control::request`] takes one record from a socket, [`Control::notice`] hands out what that or any other
//! socket is to receive. Notices are pulled when a socket can take them, so a DUMP of a million SAs to a slow reader is a
//! cursor, not a queue.
//!
//! A request goes through three stages, each with its order of checks, because of several faults the first is reported
//! (pf_key(7P)): its shape (the codec), its addresses ([`address`]), its meaning (the file of its message). Whoever hears
//! the answer is in the rules table. Keys leave in GET and DUMP only.

mod acquire;
mod add;
mod address;
mod batch;
mod class;
mod describe;
mod dummy;
mod echo;
mod expire;
pub(crate) mod flag;
mod flows;
mod group;
mod hold;
mod inverse;
mod keys;
mod movesa;
mod pair;
mod policy;
mod register;
mod remove;
mod update;
mod view;

use crate::discard::Counters;
pub use crate::keysock::SocketId;
use crate::keysock::{Dump, Dumping, Hearers, KeySockets, Next};
use crate::plane::Plane;
use crate::sa::SaState;
pub use crate::sadb::SpiPolicy;
use crate::sadb::{Cursor, Record, Sadb};
use acquire::Acquires;
pub use batch::FlowChange;
use class::Locals;
use core::net::{IpAddr, Ipv4Addr};
use core::ops::RangeInclusive;
use core::time::Duration;
use describe::Show;
use dummy::Dummies;
use flows::Present;
use ipsec_core::{Protocol, SaId, Spi, Time};
pub use pfkey::Lifetime;
use pfkey::rules::{self, Audience, Rule};
use pfkey::{Base, Diagnostic as D, Errno, ExtType, Fault, Message, MessageType, SaType};
use policy::Policies;
use std::sync::Arc;
pub use view::{Direction, SaRow, SocketRow, Supported, supported};

/// A source of fresh random octets.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// What control is told once.
pub struct Config {
    /// Seconds since 1970 at [`Time::ZERO`]: PF_KEY speaks wall-clock seconds.
    pub epoch: u64,
    /// Octets of unread notices a socket may hold; more are dropped and counted.
    pub receive_limit: usize,
    /// Fresh random octets for SPIs and IV keys.
    pub random: Random,
    /// So many seconds, chosen at random between these, are taken off the soft `addtime` of outbound SAs, so that many
    /// peers do not all rekey at once; GET shows what is left. `0..=0` is exact.
    pub soft_fuzz: RangeInclusive<u64>,
    /// How GETSPI chooses.
    pub spis: SpiPolicy,
    /// How long packets wait for a key manager, or at a `%hold`.
    pub hold: Duration,
}

impl Config {
    /// The usual: 256 KiB of unread notices, a fuzz of 8 to 23 s, SPIs drawn at random, 15 s to find an SA.
    pub fn new(epoch: u64, random: Random) -> Self {
        Self {
            epoch,
            receive_limit: 256 << 10,
            random,
            soft_fuzz: 8..=23,
            spis: SpiPolicy::default(),
            hold: acquire::LIFE,
        }
    }
}

/// The owner.
pub struct Control {
    plane: Arc<Plane>,
    config: Config,
    sadb: Sadb,
    sockets: KeySockets<Base>,
    locals: Locals,
    acquires: Acquires,
    policies: Policies,
    dummies: Dummies,
    discards: Arc<Counters>,
}

/// The database a message is about, if it names one.
fn protocol(ask: &Message<'_>) -> Option<Protocol> {
    match ask.base.satype()? {
        SaType::Unspec => None,
        SaType::Ah => Some(Protocol::Ah),
        SaType::Esp => Some(Protocol::Esp),
        SaType::Ipip => Some(Protocol::Ipip),
        SaType::Ipcomp => Some(Protocol::Ipcomp),
    }
}

impl Control {
    /// An empty SADB and no policy on `plane`.
    pub fn new(plane: Arc<Plane>, config: Config) -> Self {
        let sockets = KeySockets::new(config.receive_limit);
        let discards = plane.new_counters();
        let (sadb, locals, acquires, policies, dummies) = Default::default();
        Self { plane, config, sadb, sockets, locals, acquires, policies, dummies, discards }
    }

    /// A process opened a PF_KEY socket.
    pub fn connect(&mut self, pid: u32, now: Time) -> SocketId {
        self.sockets.open(pid, now)
    }

    /// It closed it.
    pub fn disconnect(&mut self, socket: SocketId) {
        self.sockets.close(socket);
    }

    /// Whether a socket hears anything at all (`SO_USELOOPBACK`).
    pub fn set_loopback(&mut self, socket: SocketId, on: bool) {
        if let Some(socket) = self.sockets.get_mut(socket) {
            socket.loopback = on;
        }
    }

    /// The addresses configured on this host ("mine" in pf_key(7P)'s direction rules).
    pub fn set_local_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.plane.change_admission(|admission| admission.set_locals(addresses.iter().copied().collect()));
        self.locals.set_mine(addresses);
    }

    /// The directed broadcast addresses of the networks this host is on: nobody sends from one.
    pub fn set_broadcast_addresses(&mut self, addresses: Vec<Ipv4Addr>) {
        self.locals.set_broadcast(addresses);
    }

    /// One record from a socket. Whatever it answers is a notice. An empty record is nothing at all.
    pub fn request(&mut self, from: SocketId, octets: &[u8], now: Time) {
        if octets.is_empty() || self.sockets.get(from).is_none() {
            return;
        }
        let outcome = Message::parse(octets).and_then(|mut ask| self.dispatch(from, &mut ask, now));
        if let Err(fault) = outcome {
            // A record too short for a header has no type: its sender alone hears of it.
            let base = octets.first_chunk().map_or(Base::parse(&[0; Base::LEN]), Base::parse);
            self.refuse(from, &base, fault);
        }
    }

    /// The base header with errno and diagnostic, to whom the rules say.
    fn refuse(&mut self, from: SocketId, base: &Base, fault: Fault) {
        if let Some(socket) = self.sockets.get_mut(from) {
            socket.last_error = fault.errno.0;
        }
        let rule = base.kind().and_then(rules::rule);
        let hearers = match (rule.map(|rule| rule.failure), base.kind()) {
            (Some(Audience::Everyone), _) => Hearers::All,
            (_, Some(MessageType::Acquire)) if base.satype_number == 0 => Hearers::SenderAndExtended(from),
            _ => Hearers::Sender(from),
        };
        self.sockets.deliver(hearers, base.refusal(fault).to_vec());
    }

    /// The messages, one arm each.
    fn dispatch(&mut self, from: SocketId, ask: &mut Message<'_>, now: Time) -> Result<(), Fault> {
        let unknown = Fault::invalid(D::UnknownMsg);
        let kind = ask.base.kind().ok_or(unknown)?;
        let rule = rules::rule(kind).ok_or(unknown)?;
        match kind {
            MessageType::Expire | MessageType::NewMapping => Err(Fault::errno(Errno::EOPNOTSUPP)),
            MessageType::Acquire => self.acquire(from, ask),
            MessageType::InverseAcquire => self.inverse_acquire(from, ask),
            MessageType::Register => self.register(from, ask),
            MessageType::Flush => self.flush_all(from, ask, rule),
            MessageType::Dump => self.dump(from, ask, rule, now),
            MessageType::Promisc => {
                let on = ask.base.satype_number != 0;
                if let Some(socket) = self.sockets.get_mut(from) {
                    socket.promiscuous = on;
                }
                self.echo(from, rule, ask, None);
                Ok(())
            }
            MessageType::Socket => {
                rule.complete(ask)?;
                // The answer comes while the socket still hears, and once it hears again.
                let loopback = ask.socket.is_none_or(|options| options.loopback);
                if loopback {
                    self.set_loopback(from, true);
                }
                if !ask.socket.is_some_and(|options| options.quiet) {
                    self.echo(from, rule, ask, None);
                }
                self.set_loopback(from, loopback);
                Ok(())
            }
            MessageType::AddFlow
            | MessageType::ReplaceFlow
            | MessageType::DelFlow
            | MessageType::FlushFlows
            | MessageType::DumpFlows
            | MessageType::GetFlow
            | MessageType::GroupSa => self.policy(from, ask, kind, rule),
            MessageType::GetSpi
            | MessageType::Update
            | MessageType::Add
            | MessageType::Delete
            | MessageType::Get
            | MessageType::UpdatePair
            | MessageType::DelPair
            | MessageType::MoveSa => {
                rule.takes(ask.base.satype_number)?;
                address::fix(ask, &self.locals)?;
                rules::possible(ask, ask.base.satype().unwrap_or(SaType::Unspec))?;
                self.about_sa(from, ask, kind, rule, now)
            }
        }
    }

    /// Messages about one SA, their addresses in order.
    fn about_sa(
        &mut self,
        from: SocketId,
        ask: &mut Message<'_>,
        kind: MessageType,
        rule: &Rule,
        now: Time,
    ) -> Result<(), Fault> {
        rule.complete(ask)?;
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the caller takes the messages that are not about one SA"
        )]
        match kind {
            MessageType::GetSpi => {
                let spi = self.reserve(ask, now)?;
                ask.sa = Some(pfkey::Sa { spi: spi.0, ..pfkey::Sa::default() });
                self.echo(from, rule, ask, ask.sa);
                Ok(())
            }
            MessageType::Add => {
                let id = self.add(ask, now)?;
                self.echo_final(from, rule, ask, &id);
                Ok(())
            }
            MessageType::Update | MessageType::UpdatePair => {
                let pair = kind == MessageType::UpdatePair;
                if self.update(ask, pair, now)? {
                    let id = self.named(ask)?;
                    self.echo_final(from, rule, ask, &id);
                } else {
                    self.echo(from, rule, ask, None);
                }
                Ok(())
            }
            MessageType::Get => {
                let id = self.named(ask)?;
                if let Some(record) = self.sadb.find(&id) {
                    let (base, state) = (answer(&ask.base), record.state() as u8);
                    let message = self.describe(&base, record, state, Show::of(rule).asked_by(ask));
                    self.sockets.deliver(hearers(from, rule, ask), message);
                }
                Ok(())
            }
            MessageType::MoveSa => {
                self.move_sa(ask)?;
                self.echo(from, rule, ask, None);
                Ok(())
            }
            MessageType::Delete if ask.sa.is_none() => {
                self.purge(ask)?;
                self.echo(from, rule, ask, None);
                Ok(())
            }
            MessageType::DelPair if ask.sa.is_none() => {
                self.purge(ask).map(|()| self.echo(from, rule, ask, None))
            }
            MessageType::Delete | MessageType::DelPair => {
                let pair = kind == MessageType::DelPair;
                let gone = if pair { self.delete_pair(ask)? } else { self.delete(ask)? };
                let (base, show) = (answer(&ask.base), Show::of(rule).asked_by(ask));
                let message = self.describe(&base, &gone, SaState::Dead as u8, show);
                self.sockets.deliver(hearers(from, rule, ask), message);
                Ok(())
            }
            _ => Err(Fault::invalid(D::UnknownMsg)),
        }
    }

    /// GETSPI: a name for an SA to come.
    fn reserve(&mut self, ask: &Message<'_>, now: Time) -> Result<Spi, Fault> {
        let ip = |address: Option<pfkey::Address>| address.and_then(|a| a.ip());
        let (Some(src), Some(dst), Some(range), Some(protocol)) =
            (ip(ask.src), ip(ask.dst), ask.spi_range, protocol(ask))
        else {
            return Err(Fault::invalid(D::MissingRange));
        };
        let (sadb, spis) = (&self.sadb, self.config.spis);
        let taken = |spi| sadb.find(&SaId { dst, protocol, spi }).is_some();
        let spi =
            spis.choose(range.min, range.max, src, &mut self.config.random, taken).map_err(
                |why| match why {
                    crate::sadb::NoSpi::Range => Fault::invalid(D::MalformedRange),
                    crate::sadb::NoSpi::Taken => Fault::errno(Errno::EEXIST),
                },
            )?;
        let id = SaId { dst, protocol, spi };
        let mut larva = Record::larval(id, src, now);
        larva.policy = ask.sa_policy.unwrap_or_default();
        self.sadb.insert(Box::new(larva)).map_err(|_| Fault::errno(Errno::EEXIST))?;
        // The peer may send before we have heard what it has agreed to.
        self.plane.larvae().add(id, src);
        Ok(spi)
    }

    /// FLUSH of SAs. It is done at once, so none is ever under way; a DUMP to the same socket may be.
    fn flush_all(&mut self, from: SocketId, ask: &Message<'_>, rule: &Rule) -> Result<(), Fault> {
        if !ask.is_bare() {
            return Err(Fault::invalid(D::NoExt));
        }
        rule.takes(ask.base.satype_number)?;
        self.check_no_dump(from)?;
        self.flush(protocol(ask));
        if matches!(protocol(ask), None | Some(Protocol::Esp)) {
            self.flush_acquires();
        }
        self.echo(from, rule, ask, None);
        Ok(())
    }

    /// DUMP of SAs: from now on the socket's notices are SAs until all have been shown.
    fn dump(&mut self, from: SocketId, ask: &Message<'_>, rule: &Rule, now: Time) -> Result<(), Fault> {
        let alone = ask.extensions().count() == 1 && ask.has(ExtType::Edump);
        if !ask.is_bare() && !alone {
            return Err(Fault::invalid(D::NoExt));
        }
        rule.takes(ask.base.satype_number)?;
        self.check_no_dump(from)?;
        let span = ask.edump.filter(|secs| *secs != 0).map(Duration::from_secs);
        let used_since = span.map(|span| Time::ZERO.after(now.since(Time::ZERO.after(span))));
        let what = Dumping::Sas(Cursor::new(protocol(ask)));
        self.sockets.start_dump(from, Dump { what, header: answer(&ask.base), used_since });
        Ok(())
    }

    /// pf_key(7P) has one FLUSH or DUMP under way at a time; here that is one per socket, so that a reader who stops
    /// reading keeps nobody else waiting.
    fn check_no_dump(&self, from: SocketId) -> Result<(), Fault> {
        match self.sockets.get(from).is_some_and(|socket| socket.dump.is_some()) {
            true => Err(Fault::errno(Errno::ENOMEM)),
            false => Ok(()),
        }
    }

    /// Policy messages.
    fn policy(
        &mut self,
        from: SocketId,
        ask: &mut Message<'_>,
        kind: MessageType,
        rule: &Rule,
    ) -> Result<(), Fault> {
        rule.complete(ask)?;
        address::fix(ask, &self.locals)?;
        #[expect(clippy::wildcard_enum_match_arm, reason = "the messages about SAs never come here")]
        match kind {
            MessageType::AddFlow => self.add_flow(ask, Present::Refuse)?,
            MessageType::ReplaceFlow => self.add_flow(ask, Present::Replace)?,
            MessageType::DelFlow => {
                let gone = self.delete_flow(ask)?;
                // A request names a policy; what it was is told of it.
                if gone.policy.is_some() {
                    let message = self.describe_flow(&answer(&ask.base), &gone);
                    self.sockets.deliver(hearers(from, rule, ask), message);
                    return Ok(());
                }
            }
            MessageType::FlushFlows => self.flush_flows(),
            MessageType::DumpFlows => {
                self.check_no_dump(from)?;
                let mut flows = self.plane.eroutes().list();
                flows.append(&mut self.plane.admission().list());
                let what = Dumping::Flows(flows.into_iter());
                self.sockets.start_dump(from, Dump { what, header: answer(&ask.base), used_since: None });
                return Ok(());
            }
            MessageType::GroupSa => self.group(ask)?,
            MessageType::GetFlow => {
                let index = ask.flow_policy.as_ref().map_or(0, |policy| policy.index);
                let eroute = self.policy_numbered(index).ok_or(Fault::errno(Errno::ENOENT))?;
                let message = self.describe_flow(&answer(&ask.base), &eroute);
                self.sockets.deliver(Hearers::Sender(from), message);
                return Ok(());
            }
            _ => return Err(Fault::invalid(D::UnknownMsg)),
        }
        self.echo(from, rule, ask, None);
        Ok(())
    }

    /// ACQUIRE from a user: that an SA could not be had, or something for those who hear everything.
    fn acquire(&mut self, from: SocketId, ask: &mut Message<'_>) -> Result<(), Fault> {
        let number = ask.base.satype_number;
        let failed = ask.base.errno.0 != 0;
        let extended = self.sockets.get(from).is_some_and(|socket| socket.extended);
        if number == 0 && !(failed && extended) {
            return Err(Fault::invalid(D::SatypeNeeded));
        }
        if !failed {
            let message = echo::again(ask, None, &ask.base);
            self.sockets.deliver(Hearers::Nobody, message);
            return Ok(());
        }
        if number != 0 {
            let satype = SaType::from_number(number).ok_or(Fault::invalid(D::UnknownSatype))?;
            address::fix(ask, &self.locals)?;
            rules::possible(ask, satype)?;
        }
        // What waits is ESP's, or what policy names. Without an SA type a socket means all it is registered for (reference Q12).
        let socket = self.sockets.get(from);
        let registered = |satype: SaType| socket.is_some_and(|socket| socket.is_registered(satype.number()));
        if number == 0 && socket.is_none_or(|socket| socket.satypes().next().is_none()) {
            return Err(Fault::errno(Errno::EBUSY));
        }
        let esp = number == SaType::Esp.number() || number == 0 && registered(SaType::Esp);
        // A longer one is ignored (pf_key(7P) has it as the bare header).
        if (esp || self.acquires.is_by_policy(ask.base.seq)) && ask.is_bare() {
            self.given_up(ask.base.seq);
        }
        Ok(())
    }

    /// The request again, with the flags the SA got.
    fn echo_final(&mut self, from: SocketId, rule: &Rule, ask: &Message<'_>, id: &SaId) {
        let flags = self.sadb.find(id).map(|record| record.flags);
        let sa = ask.sa.map(|sa| pfkey::Sa { flags: flags.unwrap_or(sa.flags), ..sa });
        self.echo(from, rule, ask, sa);
    }

    /// The request again, to whom the rules say.
    fn echo(&mut self, from: SocketId, rule: &Rule, ask: &Message<'_>, sa: Option<pfkey::Sa>) {
        let message = echo::again(ask, sa, &answer(&ask.base));
        self.sockets.deliver(hearers(from, rule, ask), message);
    }

    /// The next message for a socket, if it has any; carries on with its DUMP.
    pub fn notice(&mut self, to: SocketId, now: Time) -> Option<Vec<u8>> {
        let _ = now;
        match self.sockets.next(to)? {
            Next::Notice(octets) => Some(octets),
            Next::Dump => Some(self.next_of_dump(to)),
        }
    }

    /// The next message of a socket's DUMP, or its end: the base header with seq 0.
    fn next_of_dump(&mut self, to: SocketId) -> Vec<u8> {
        let Some(mut dump) = self.sockets.get_mut(to).and_then(|socket| socket.dump.take()) else {
            return Vec::new();
        };
        let show = rules::rule(MessageType::Dump).map_or(Show::NO_KEYS, Show::of);
        let message = match &mut dump.what {
            Dumping::Flows(flows) => flows.next().map(|flow| self.describe_flow(&dump.header, &flow)),
            Dumping::Sas(cursor) => loop {
                let Some(record) = self.sadb.next(cursor) else { break None };
                let used =
                    |since| record.sa.as_ref().and_then(|sa| sa.last_use()).is_some_and(|at| at >= since);
                if dump.used_since.is_none_or(used) {
                    let satype = describe::satype(record.id.protocol).number();
                    let base = Base { satype_number: satype, ..dump.header };
                    break Some(self.describe(&base, record, record.state() as u8, show));
                }
            },
        };
        let message = match message {
            Some(message) => {
                if let Some(socket) = self.sockets.get_mut(to) {
                    socket.dump = Some(dump);
                }
                message
            }
            None => Base { seq: 0, ..dump.header }.octets().to_vec(),
        };
        if self.sockets.any_promiscuous_but(to) {
            self.sockets.deliver(Hearers::PromiscuousBut(to), message.clone());
        }
        message
    }

    /// Takes the sockets that have got notices since last asked.
    pub fn take_ready(&mut self) -> Vec<SocketId> {
        self.sockets.take_ready()
    }

    /// Acts on what workers found and on every lifetime that has passed. Due at [`Control::deadline`] and whenever
    /// [`Plane::take_wake`] said so.
    pub fn expire(&mut self, now: Time) {
        self.expire_events(now);
        self.expire_timers(now);
        // First: what comes now is not to join a record that ends now.
        self.expire_acquires(now);
        self.trapped(now);
        self.send_dummies(now);
    }

    /// When [`Control::expire`] must be called next.
    pub fn deadline(&self) -> Option<Time> {
        [self.sadb.deadline(), self.acquires.deadline(), self.dummies.deadline()].into_iter().flatten().min()
    }

    /// Every SA of the SADB, for tables: AH, ESP, IPIP, IPCOMP, IPv4 before IPv6 in each.
    pub fn sas(&self) -> impl Iterator<Item = SaRow> {
        self.sadb.iter().map(|record| self.row(record))
    }

    /// One SA, for tables.
    pub fn sa(&self, id: &SaId) -> Option<SaRow> {
        self.sadb.find(id).map(|record| self.row(record))
    }

    /// How many SAs there are, in whatever state.
    pub fn sa_count(&self) -> usize {
        self.sadb.len()
    }

    /// Every PF_KEY socket, oldest first.
    pub fn sockets(&self) -> impl Iterator<Item = SocketRow> {
        self.sockets.iter().map(|(id, socket)| view::socket_row(id, socket, self.sockets.limit()))
    }

    /// Seconds since 1970 at `at`.
    pub const fn wall_clock(&self, at: Time) -> u64 {
        self.config.epoch.saturating_add(at.as_secs())
    }
}

/// Who hears that a message went well.
const fn hearers(from: SocketId, rule: &Rule, ask: &Message<'_>) -> Hearers {
    match rule.success {
        Audience::Everyone => Hearers::All,
        Audience::Sender => Hearers::Sender(from),
        Audience::Registered => Hearers::SenderAndPlain(from, ask.base.satype_number),
        Audience::Nobody => Hearers::Nobody,
    }
}

/// The header of an answer: the request's, saying that it went well (reference Q17).
const fn answer(base: &Base) -> Base {
    Base { errno: Errno(0), diagnostic: 0, words: 2, ..*base }
}
