//! The engine as its host sees it: datagrams, acquires, commands, answers and time go in; datagrams, jobs and events come
//! out, in any amount and whenever the host asks, but no datagram before the events that it rests on.

mod succession;

use crate::connection::{Connection, Secrets};
use crate::event::{Event, Transmit, Why};
use crate::exchange::init::{self, First};
use crate::identity::IdPattern;
use crate::job::{Answer, Job, JobId};
use crate::lease::Leases;
use crate::message::{
    Exchange, Header, IkeSpi, Message, Notify, NotifyKind, Payload, TrafficSelector, rules,
};
use crate::outbox::{Config, Context, Counters, Outbox, Random};
use crate::protect::Opened;
use crate::sa::{IkeSa, Opening1, Stage, Task, Work};
use crate::table::{Mark, Table};
use crate::tape::{Command, Drawn, Entry, Shared, Tape};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use ipsec_core::prf::Prf;
use ipsec_core::{Secret, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use succession::SUPERSEDED;

/// IKE SAs on which nobody has proved anything from which on a first message must come with a cookie (RFC 7296 §2.6).
const COOKIE_FROM: usize = 32;
/// The same of one source. Somebody who writes a peer's address as the sender of its messages cannot use up what that peer may
/// have: with a cookie only those come in who hear what is sent there.
const COOKIE_FROM_EACH: usize = 4;
/// IKE SAs there may be on which nobody has proved anything.
const MAX_UNPROVED: usize = 4096;
/// The same of one source, which has brought cookies by then. Behind one NAT there may be many peers that come back at once, and
/// some of them are refused each time.
const MAX_PER_SOURCE: usize = 64;
/// Octets of messages that may be kept for strangers who have more than 16 KiB each: fragments, what was asked for before EAP, TLS.
/// Beside that there is what 4096 have who have less, so that all together keep 128 MiB at the most.
const MAX_HELD: usize = 64 << 20;
/// The longest first message: it is kept until AUTH has covered it. One with every algorithm there is and ML-KEM-1024 has
/// less than half as much.
const MAX_FIRST: usize = 8 * 1024;
/// Requests for IKE SAs that are not here, or in another version, are answered so often in a second.
const MAX_WAYWARD: u32 = 10;
/// A cookie is accepted for this long, and for as long again.
const COOKIE_LIFE: Duration = Duration::from_secs(60);
/// A negotiation that nobody answered is begun anew after this.
const AGAIN: Duration = Duration::from_secs(5);

/// One side of IKE: all its IKE SAs.
pub struct Endpoint {
    config: Config,
    sas: Table,
    leases: Leases,
    /// Connections to be begun anew, and when.
    again: BTreeMap<String, Time>,
    /// The same by time.
    again_at: BTreeSet<(Time, String)>,
    /// Connections that are to be up.
    wanted: BTreeMap<String, u32>,
    cookies: [Secret; 2],
    cookies_since: Time,
    random: Box<dyn Random>,
    /// Since when requests for IKE SAs that are not here are counted, and how many there were.
    wayward: (Time, u32),
    out: Outbox,
}

impl core::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Endpoint({} connections, {} IKE SAs)", self.config.connections.len(), self.sas.len())
    }
}

/// One IKE SA, for status.
#[derive(Clone, Debug)]
pub struct IkeRow {
    /// Our SPI.
    pub ike: IkeSpi,
    /// The peer's.
    pub peer_spi: IkeSpi,
    /// We began it.
    pub initiator: bool,
    /// The connection, once known.
    pub connection: Option<String>,
    /// Where we are.
    pub local: SocketAddr,
    /// Where the peer is.
    pub remote: SocketAddr,
    /// Who the peer proved to be; `None` while it has not.
    pub peer: Option<String>,
    /// The algorithms, once chosen.
    pub algorithms: Option<String>,
    /// The name of the post-quantum preshared key that is mixed in.
    pub ppk: Option<String>,
    /// We are, and the peer is, behind a NAT.
    pub nat: (bool, bool),
    /// ESP goes in UDP.
    pub encapsulate: bool,
    /// Addresses the peer was given.
    pub given: Vec<IpAddr>,
    /// Addresses the peer has given us.
    pub taken: Vec<IpAddr>,
    /// When a successor will be negotiated.
    pub rekey_at: Time,
    /// Its Child SAs.
    pub children: Vec<ChildRow>,
}

/// One pair of Child SAs, for status.
#[derive(Clone, Debug)]
pub struct ChildRow {
    /// The connection.
    pub connection: String,
    /// Our inbound SPI.
    pub spi_in: u32,
    /// The outbound SPI.
    pub spi_out: u32,
    /// When a successor will be negotiated.
    pub rekey_at: Time,
    /// A successor has its place.
    pub replaced: bool,
}

impl Endpoint {
    /// An endpoint without connections.
    pub fn new(mut random: Box<dyn Random>, now: Time) -> Self {
        let mut secret = || {
            let mut octets = Secret::zeros(32);
            random.fill(&mut octets);
            octets
        };
        let cookies = [secret(), secret()];
        Self {
            config: Config::default(),
            sas: Table::default(),
            leases: Leases::default(),
            again: BTreeMap::new(),
            again_at: BTreeSet::new(),
            wanted: BTreeMap::new(),
            cookies,
            cookies_since: now,
            random,
            wayward: (now, 0),
            out: Outbox::default(),
        }
    }

    /// An endpoint of which everything is written down, secrets and all.
    pub fn recorded(random: Box<dyn Random>, now: Time, tape: Box<dyn Tape>) -> Self {
        let tape = Shared::new(tape);
        let mut endpoint = Self::new(Box::new(Drawn { random, tape: tape.clone() }), now);
        endpoint.out.tape = Some(tape);
        endpoint
    }

    /// Adds a connection, or puts it in place of the one of its name; IKE SAs that are up are not touched.
    pub fn add(&mut self, connection: Connection) {
        self.config.connections.insert(Arc::new(connection));
    }

    /// Forgets a connection, and takes down what it has up.
    pub fn remove(&mut self, name: &str, now: Time) -> bool {
        let known = self.config.connections.remove(name);
        self.down(name, now);
        known
    }

    /// The connections of IKE SAs that we have begun and on which the peer has proved nothing yet.
    pub fn begun(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.sas.marked(Mark::Begun).filter_map(|sa| sa.connection.as_ref())
    }

    /// The connections there are.
    pub fn connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.config.connections.values()
    }

    /// Sets all secrets anew.
    pub fn set_secrets(&mut self, secrets: Secrets) {
        self.config.secrets = secrets;
    }

    /// Notes that an address was given to this holder before, as [`Event::Leased`] told.
    pub fn restore_lease(&mut self, address: IpAddr, holder: &[u8]) {
        self.out.note(|| Entry::Command(Time::ZERO, Command::Lease(address), crate::tape::hex(holder)));
        self.leases.restore(address, holder);
    }

    /// Says how long after 1970 [`Time::ZERO`] was: certificates are valid at times of the calendar. Until it is said none is
    /// believed; a clock that is set is said again. Whole seconds would not do: rounded twice, a certificate that was made a
    /// moment ago would not be valid yet.
    pub const fn set_epoch(&mut self, since_1970: Duration) {
        self.config.epoch = Some(since_1970);
    }

    /// What was dropped, by reason.
    pub const fn counters(&self) -> Counters {
        self.out.counters
    }

    /// All IKE SAs that are not over.
    pub fn rows(&self) -> Vec<IkeRow> {
        let rows = self.sas.values().filter(|sa| !sa.is_closed()).map(|sa| IkeRow {
            ike: sa.key,
            peer_spi: sa.peer_spi,
            initiator: sa.initiator,
            connection: sa.connection.as_ref().map(|connection| connection.name.clone()),
            local: sa.local,
            remote: sa.remote,
            peer: sa.peer().map(ToString::to_string),
            algorithms: sa.channel.as_ref().map(|channel| {
                let mut all = channel.chosen.clone();
                all.spi.clear();
                all.proposal(crate::proposal::Protocol::Ike, Vec::new()).to_string()
            }),
            ppk: sa.ppk.as_deref().map(crate::ppk::name),
            nat: (sa.nat.here, sa.nat.there),
            encapsulate: sa.nat.encapsulate,
            given: sa.given.clone(),
            taken: sa.taken.as_ref().map(|taken| taken.addresses.clone()).unwrap_or_default(),
            rekey_at: sa.rekey_at,
            children: sa
                .children
                .iter()
                .map(|child| ChildRow {
                    connection: child.connection.name.clone(),
                    spi_in: child.spi_in,
                    spi_out: child.spi_out,
                    rekey_at: child.rekey_at,
                    replaced: child.replaced(),
                })
                .collect(),
        });
        rows.collect()
    }

    /// Brings a connection up and keeps it up: on an IKE SA that is there, or on a new one from `local`.
    ///
    /// # Errors
    /// Why that cannot even be begun.
    pub fn up(&mut self, name: &str, local: IpAddr, now: Time) -> Result<(), &'static str> {
        self.out.note(|| Entry::Command(now, Command::Up(local), name.to_owned()));
        let connection =
            self.config.connections.get(name).cloned().ok_or("no connection of this name is loaded")?;
        let remote = connection
            .remote_address
            .ok_or("the peer's address is not known (right=%any): only the peer can begin")?;
        self.not_again(name);
        let is = |sa: &IkeSa| sa.connection.as_ref().is_some_and(|c| c.name == name);
        let busy = self
            .sas
            .marked(Mark::name(name))
            .any(|sa| !sa.is_closed() && !sa.is_established() && sa.initiator && is(sa));
        if busy {
            return Ok(());
        }
        // Whatever serves it is, or is to be, where its peer is.
        let there = Mark::Remote(remote);
        let known = self.sas.marked(there).find(|sa| sa.serves(&connection) && !sa.replaced());
        if let Some(sa) = known {
            let has = sa.children.iter().any(|child| child.connection.name == name && !child.replaced());
            let asked = sa
                .tasks
                .iter()
                .any(|task| matches!(task, Task::Child { connection, .. } if connection.name == name));
            let key = sa.key;
            if !has && !asked {
                self.with(key, now, |sa, cx| {
                    sa.task(Task::Child { connection, rekeys: None, group: None });
                    sa.next_task(cx);
                });
            }
            return Ok(());
        }
        let ends = (SocketAddr::new(local, 500), SocketAddr::new(remote, connection.remote_port));
        self.begin(connection, ends, None, now)
    }

    /// Begins an IKE SA, in the place of another that goes when this one has its children.
    fn begin(
        &mut self,
        connection: Arc<Connection>,
        ends: (SocketAddr, SocketAddr),
        succeeds: Option<IkeSpi>,
        now: Time,
    ) -> Result<(), &'static str> {
        let group = connection.ike.iter().flat_map(|offer| &offer.groups).next().copied();
        let group = group.ok_or("the connection has no key exchange method (ike=)")?;
        let mut cx = Context {
            now,
            config: &self.config,
            leases: &mut self.leases,
            out: &mut self.out,
            random: &mut *self.random,
        };
        let (key, ni) = (cx.spi(), cx.nonce());
        let opening =
            Opening1 { ni, group, offer: None, cookie: None, sent: Vec::new(), rounds: 0, refused: None };
        let mut sa = IkeSa::new(key, true, ends, Stage::Opening(Box::new(opening)), now);
        sa.first_contact = connection.unique && succeeds.is_none();
        sa.succeeds = succeeds;
        sa.expires = now.after(connection.times.give_up.saturating_mul(4));
        sa.connection = Some(connection);
        sa.tasks.push_back(Task::Init);
        self.sas.insert(sa);
        self.with(key, now, |sa, cx| sa.next_task(cx));
        Ok(())
    }

    /// Has a connection's peers and us prove anew who we are; false if there is no IKE SA that we began.
    pub fn reauthenticate(&mut self, name: &str, now: Time) -> bool {
        self.out.note(|| Entry::Command(now, Command::Reauthenticate, name.to_owned()));
        let own = |sa: &&IkeSa| {
            sa.is_established()
                && sa.began
                && !sa.replaced()
                && sa.children.iter().any(|child| child.connection.name == name)
        };
        let keys: Vec<IkeSpi> = self.sas.marked(Mark::name(name)).filter(own).map(|sa| sa.key).collect();
        for key in &keys {
            self.with(*key, now, |sa, cx| {
                sa.task(Task::Reauthenticate);
                sa.next_task(cx);
            });
        }
        !keys.is_empty()
    }

    /// Says which addresses this host has; `leaves_from` says, of where we were and a peer, from which of
    /// them packets to that peer leave now. IKE SAs whose peer
    /// can follow go on from there (RFC 4555).
    pub fn addresses(
        &mut self,
        all: Vec<IpAddr>,
        leaves_from: impl Fn(IpAddr, IpAddr) -> Option<IpAddr>,
        now: Time,
    ) {
        let list = || all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        self.out.note(|| Entry::Command(now, Command::Addresses, list()));
        self.config.addresses = all;
        // What is only being negotiated goes on from the new address, too.
        let begun = |sa: &IkeSa| sa.initiator && !sa.is_established();
        let movable = self.sas.values().filter(|sa| (sa.mobike || begun(sa)) && !sa.is_closed());
        let keys: Vec<_> = movable.map(|sa| (sa.key, sa.local.ip(), sa.remote.ip())).collect();
        for (key, here, remote) in keys {
            if let Some(local) = leaves_from(here, remote).filter(|local| *local != here) {
                self.leaves(key, local, now);
            }
        }
    }

    /// Packets of one IKE SA leave from another address of ours now.
    pub(crate) fn leaves(&mut self, key: IkeSpi, local: IpAddr, now: Time) {
        self.out.note(|| Entry::Command(now, Command::Leaves(local), format!("{:016x}", key.0)));
        self.with(key, now, |sa, cx| sa.readdress(cx, local));
    }

    /// An authentic packet of an inbound SA came from elsewhere: behind a NAT its IKE SA follows (RFC 7296 §2.23).
    pub fn mapping(&mut self, spi_in: u32, from: SocketAddr, now: Time) {
        self.out.note(|| Entry::Command(now, Command::Mapping, format!("{spi_in} {from}")));
        let behind = self.sas.of_child(spi_in).filter(|sa| sa.nat.there);
        let Some(key) = behind.map(|sa| sa.key) else { return };
        self.with(key, now, |sa, cx| {
            sa.follow(cx, (sa.local, from));
            sa.next_task(cx);
        });
    }

    /// Says that a connection is to be kept up whatever happens: begun anew when the peer is gone.
    pub fn keep(&mut self, name: &str) {
        self.out.note(|| Entry::Command(Time::ZERO, Command::Keep, name.to_owned()));
        self.wanted.insert(name.to_owned(), 0);
    }

    /// Takes a connection down: its Child SAs, and IKE SAs that have no others.
    pub fn down(&mut self, name: &str, now: Time) {
        self.out.note(|| Entry::Command(now, Command::Down, name.to_owned()));
        self.wanted.remove(name);
        self.not_again(name);
        let keys: Vec<IkeSpi> = self.sas.marked(Mark::name(name)).map(|sa| sa.key).collect();
        for key in keys {
            self.with(key, now, |sa, cx| {
                let own = sa.connection.as_ref().is_some_and(|connection| connection.name == name);
                if !sa.is_established() {
                    if own && sa.initiator {
                        sa.close(cx, Why::Asked);
                    }
                    return;
                }
                sa.tasks.retain(
                    |task| !matches!(task, Task::Child { connection, .. } if connection.name == name),
                );
                let (ours, others): (Vec<_>, Vec<_>) =
                    sa.children.iter().partition(|child| child.connection.name == name);
                let ours: Vec<u32> = ours.iter().map(|child| child.spi_in).collect();
                if (own || !ours.is_empty()) && others.is_empty() {
                    sa.task(Task::DeleteIke(Why::Asked));
                } else {
                    ours.into_iter().for_each(|spi| sa.task(Task::DeleteChild(spi)));
                }
                sa.next_task(cx);
            });
        }
    }

    /// Takes everything down, without waiting for answers: the peers are told once.
    pub fn shutdown(&mut self, now: Time) {
        self.out.note(|| Entry::Command(now, Command::Shutdown, String::new()));
        let keys: Vec<IkeSpi> = self.sas.keys().collect();
        self.wanted.clear();
        self.again.clear();
        self.again_at.clear();
        for key in keys {
            self.with(key, now, |sa, cx| {
                if sa.is_established() {
                    sa.again();
                    sa.tasks.clear();
                    sa.task(Task::DeleteIke(Why::Asked));
                    sa.next_task(cx);
                }
                sa.close(cx, Why::Asked);
            });
        }
    }

    /// Negotiates a successor of a Child SA before its time (a soft lifetime of the data plane), or removes it (a hard
    /// one).
    pub fn child_expired(&mut self, spi_in: u32, hard: bool, now: Time) {
        let command = if hard { Command::Hard } else { Command::Soft };
        self.out.note(|| Entry::Command(now, command, spi_in.to_string()));
        let Some(key) = self.sas.of_child(spi_in).map(|sa| sa.key) else { return };
        self.with(key, now, |sa, cx| {
            let child = sa.children.iter().find(|child| child.spi_in == spi_in && !child.replaced());
            let Some(connection) = child.map(|child| child.connection.clone()) else { return };
            if hard {
                sa.remove_child(cx, spi_in);
                sa.task(Task::DeleteChild(spi_in));
                sa.task(Task::Child { connection, rekeys: None, group: None });
            } else {
                sa.task(Task::Child { connection, rekeys: Some(spi_in), group: None });
            }
            sa.next_task(cx);
        });
    }

    /// Removes one pair of SAs; the peer is told.
    pub fn delete_child(&mut self, spi_in: u32, now: Time) {
        self.out.note(|| Entry::Command(now, Command::Delete, spi_in.to_string()));
        let Some(key) = self.sas.of_child(spi_in).map(|sa| sa.key) else { return };
        self.with(key, now, |sa, cx| {
            sa.task(Task::DeleteChild(spi_in));
            sa.next_task(cx);
        });
    }

    /// Asks every peer now whether it is there.
    pub fn ask_alive(&mut self, now: Time) {
        self.out.note(|| Entry::Command(now, Command::Alive, String::new()));
        let established = self.sas.values().filter(|sa| sa.is_established() && !sa.replaced());
        let keys: Vec<IkeSpi> = established.map(|sa| sa.key).collect();
        for key in keys {
            self.with(key, now, |sa, cx| {
                sa.task(Task::Liveness);
                sa.next_task(cx);
            });
        }
    }

    /// Negotiates successors now: of every Child SA of a connection, or of the IKE SA.
    pub fn rekey(&mut self, name: &str, ike: bool, now: Time) -> bool {
        let command = if ike { Command::RekeyIke } else { Command::Rekey };
        self.out.note(|| Entry::Command(now, command, name.to_owned()));
        let own = |sa: &IkeSa| sa.children.iter().any(|child| child.connection.name == name);
        let named = self.sas.marked(Mark::name(name));
        let keys: Vec<IkeSpi> = named.filter(|sa| sa.is_established() && own(sa)).map(|sa| sa.key).collect();
        let any = !keys.is_empty();
        for key in keys {
            self.with(key, now, |sa, cx| {
                if ike {
                    sa.task(Task::RekeyIke { group: None });
                } else {
                    let children =
                        sa.children.iter().filter(|child| child.connection.name == name && !child.replaced());
                    let tasks: Vec<Task> = children
                        .map(|child| Task::Child {
                            connection: child.connection.clone(),
                            rekeys: Some(child.spi_in),
                            group: None,
                        })
                        .collect();
                    tasks.into_iter().for_each(|task| sa.task(task));
                }
                sa.next_task(cx);
            });
        }
        any
    }

    /// The connection whose networks hold a packet, for an ACQUIRE.
    pub fn connection_for(&self, src: IpAddr, dst: IpAddr) -> Option<&Arc<Connection>> {
        let holds = |selectors: &[TrafficSelector], end: Option<IpAddr>, address: IpAddr| {
            if selectors.is_empty() {
                end == Some(address)
            } else {
                selectors.iter().any(|one| one.holds(address))
            }
        };
        self.config.connections.values().find(|connection| {
            let child = &connection.child;
            // Where addresses are given, whichever was is in a packet that asks.
            let ours = connection.request.is_some() || holds(&child.local, connection.local_address, src);
            let theirs = match &connection.provision {
                Some(provision) => provision.holds(dst),
                None => holds(&child.remote, connection.remote_address, dst),
            };
            ours && theirs
        })
    }

    /// Takes a datagram, without the marker of RFC 3948 §2.2 if it came to port 4500.
    pub fn datagram(&mut self, local: SocketAddr, remote: SocketAddr, octets: &[u8], now: Time) {
        self.out.note(|| Entry::Datagram(now, local, remote, octets.to_vec()));
        let (header, ..) = match Header::parse(octets) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.out.counters.malformed = self.out.counters.malformed.saturating_add(1);
                if let crate::message::ParseError::MajorVersion(3..) = error {
                    self.version((local, remote), octets, now);
                }
                return;
            }
        };
        let first =
            header.exchange == Exchange::IkeSaInit && !header.flags.response && header.flags.initiator;
        if first && header.spi_r == IkeSpi(0) {
            return self.first((local, remote), &header, octets, now);
        }
        let key = if header.flags.initiator { header.spi_r } else { header.spi_i };
        if self.sas.get(key).is_none() {
            self.out.counters.stray = self.out.counters.stray.saturating_add(1);
            self.wayward((local, remote), &header, now);
            return;
        }
        self.with(key, now, |sa, cx| sa.datagram(cx, (local, remote), octets));
    }

    /// A request for an IKE SA that is not here: the peer may have outlived our memory, and is told, in clear and not too
    /// often (RFC 7296 §1.5). It will ask before it believes it.
    fn wayward(&mut self, (local, remote): (SocketAddr, SocketAddr), header: &Header, now: Time) {
        if header.flags.response || header.exchange == Exchange::IkeSaInit {
            return;
        }
        if !self.answers_strays(now) {
            return;
        }
        let flags = crate::message::Flags { initiator: !header.flags.initiator, response: true };
        let payloads = vec![Payload::Notify(Notify::new(NotifyKind::InvalidIkeSpi, Vec::new()))];
        let octets = Message { header: Header { flags, ..*header }, payloads }.emit();
        self.out.transmits.push_back(Transmit { local, remote, octets });
    }

    /// Says whether one more message that belongs to nothing is answered: anybody can send them in anybody's name.
    fn answers_strays(&mut self, now: Time) -> bool {
        if now.since(self.wayward.0) >= Duration::from_secs(1) {
            self.wayward = (now, 0);
        }
        self.wayward.1 = self.wayward.1.saturating_add(1);
        self.wayward.1 <= MAX_WAYWARD
    }

    /// A later major version is answered, so that the peer can fall back (RFC 7296 §2.5).
    fn version(&mut self, (local, remote): (SocketAddr, SocketAddr), octets: &[u8], now: Time) {
        let spi = |at: usize| {
            octets.get(at..).and_then(|rest| rest.first_chunk().map(|c| IkeSpi(u64::from_be_bytes(*c))))
        };
        let (Some(spi_i), Some(spi_r)) = (spi(0), spi(8)) else { return };
        // Only to requests, and never in answer to an answer.
        if octets.get(19).is_none_or(|flags| flags & 0x20 != 0) || !self.answers_strays(now) {
            return;
        }
        let flags = crate::message::Flags { initiator: false, response: true };
        let header = Header { spi_i, spi_r, exchange: Exchange::IkeSaInit, flags, id: 0 };
        let payloads = vec![Payload::Notify(Notify::new(NotifyKind::InvalidMajorVersion, Vec::new()))];
        let octets = Message { header, payloads }.emit();
        self.out.transmits.push_back(Transmit { local, remote, octets });
    }

    /// The first message of a peer. Until it is acceptable in every respect nothing is kept for it.
    fn first(
        &mut self,
        (local, remote): (SocketAddr, SocketAddr),
        header: &Header,
        octets: &[u8],
        now: Time,
    ) {
        if let Some(key) = self.sas.of_first((remote, header.spi_i)) {
            return self.with(key, now, |sa, cx| sa.datagram(cx, (local, remote), octets));
        }
        // Our own first message, thrown back at us: we would negotiate with ourselves.
        if self.sas.get(header.spi_i).is_some_and(|sa| sa.initiator) {
            self.out.counters.stray = self.out.counters.stray.saturating_add(1);
            return;
        }
        let message = match Message::parse(octets) {
            Ok(message) if rules::fits(&message) && header.id == 0 && octets.len() <= MAX_FIRST => message,
            Ok(_) | Err(_) => {
                self.out.counters.malformed = self.out.counters.malformed.saturating_add(1);
                return;
            }
        };
        let (unproved, same) = self.sas.unproved(remote.ip());
        let crowded = unproved >= COOKIE_FROM || same >= COOKIE_FROM_EACH;
        if crowded && !self.has_cookie(&message, remote, now) {
            self.out.counters.cookies = self.out.counters.cookies.saturating_add(1);
            let [current, _] = &self.cookies;
            let cookie = cookie(current, &message, remote);
            return self.reply((local, remote), header, Notify::new(NotifyKind::Cookie, cookie));
        }
        if unproved >= MAX_UNPROVED || same >= MAX_PER_SOURCE {
            self.out.counters.flooded = self.out.counters.flooded.saturating_add(1);
            return;
        }
        let fitting = self.config.connections.fitting(local.ip(), remote.ip());
        let mut fitting: Vec<_> = fitting.map(|(fit, connection)| (fit, connection.clone())).collect();
        fitting.sort_by_key(|(fit, _)| *fit);
        let offers: Vec<_> = fitting.iter().flat_map(|(_, connection)| connection.ike.clone()).collect();
        if offers.is_empty() {
            self.out.of_stranger(now, None, || format!("IKE_SA_INIT from {remote} to {local}: no connection here is for these two addresses (left=, right=)"));
            return self.reply(
                (local, remote),
                header,
                Notify::new(NotifyKind::NoProposalChosen, Vec::new()),
            );
        }
        match init::consider(&message, &offers) {
            First::Answer(notify, why) => {
                if notify.kind != NotifyKind::InvalidKePayload {
                    let connection = fitting.first().map(|(_, connection)| connection);
                    self.out.of_stranger(now, connection, || format!("IKE_SA_INIT from {remote}: {why}"));
                }
                self.reply((local, remote), header, notify);
            }
            First::Accept(chosen) => {
                let mut cx = Context {
                    now,
                    config: &self.config,
                    leases: &mut self.leases,
                    out: &mut self.out,
                    random: &mut *self.random,
                };
                let key = cx.spi();
                let ni = crate::exchange::nonce(&message).to_vec();
                let stage = Stage::Answering { ni, chosen, init_i: octets.to_vec() };
                let mut sa = IkeSa::new(key, false, (local, remote), stage, now);
                sa.peer_spi = header.spi_i;
                sa.connection = fitting.into_iter().next().map(|(_, connection)| connection);
                self.sas.insert(sa);
                self.sas.came_from(key, (remote, header.spi_i));
                let inner = Secret::default();
                self.with(key, now, |sa, cx| {
                    sa.run(cx, Work::Request(Opened { message, inner }), Vec::new())
                });
            }
        }
    }

    /// An answer that costs us nothing to forget.
    fn reply(&mut self, (local, remote): (SocketAddr, SocketAddr), header: &Header, notify: Notify) {
        let flags = crate::message::Flags { initiator: false, response: true };
        let message =
            Message { header: Header { flags, ..*header }, payloads: vec![Payload::Notify(notify)] };
        self.out.transmits.push_back(Transmit { local, remote, octets: message.emit() });
    }

    /// Says whether the message brings a cookie of ours that is not too old.
    fn has_cookie(&mut self, message: &Message, remote: SocketAddr, now: Time) -> bool {
        if now.since(self.cookies_since) >= COOKIE_LIFE {
            let mut fresh = Secret::zeros(32);
            self.random.fill(&mut fresh);
            self.cookies.swap(0, 1);
            let [current, _] = &mut self.cookies;
            *current = fresh;
            self.cookies_since = now;
        }
        let brought = crate::exchange::notified(message, NotifyKind::Cookie);
        brought.is_some_and(|notify| {
            self.cookies
                .iter()
                .any(|secret| Secret::from(cookie(secret, message, remote)).is_same(&notify.data))
        })
    }

    /// A job is done.
    pub fn answer(&mut self, job: JobId, answer: Answer, now: Time) {
        self.out.note(|| Entry::Answer(now, job, Box::new(answer.clone())));
        if let Some(key) = self.out.work.done(job) {
            self.with(key, now, |sa, cx| sa.answer(cx, job, answer));
        }
    }

    /// Does what is due at `now`.
    pub fn timeout(&mut self, now: Time) {
        self.out.note(|| Entry::Timeout(now));
        let due = self.sas.due(now);
        for key in due {
            if self.sas.get(key).is_some_and(|sa| sa.is_closed() && sa.expires <= now) {
                self.forget(key);
            } else {
                self.with(key, now, |sa, cx| sa.timeout(cx));
            }
        }
        while let Some((_, name)) = self.again_at.first().filter(|(at, _)| *at <= now).cloned() {
            self.not_again(&name);
            let connection = self.config.connections.get(&name).cloned();
            self.out.events.push_back(Event::Again { name, connection });
        }
    }

    /// When [`Endpoint::timeout`] is to be called next; exact and complete.
    pub fn deadline(&self) -> Time {
        let sas = self.sas.deadline().into_iter();
        sas.chain(self.again_at.first().map(|(at, _)| *at)).min().unwrap_or(Time::FOREVER)
    }

    /// The next datagram to send; none while there are events.
    ///
    /// What the peer does with a datagram rests on what the events before it are about. When a rekeying has been answered, or
    /// the pair that it replaces is deleted, the peer may send on the new pair (RFC 7296 §2.8), which has to be installed
    /// by then: so the host hears of it first, and cannot do it the other way round.
    pub fn transmit(&mut self) -> Option<Transmit> {
        if !self.out.events.is_empty() {
            return None;
        }
        let transmit = self.out.transmits.pop_front()?;
        self.out.note(|| Entry::Transmit(transmit.local, transmit.remote, transmit.octets.clone()));
        Some(transmit)
    }

    /// Says how many jobs the host can have at a time: a few for each of its threads, so that none of them is idle, and no
    /// more, for they are done in order and whoever comes next waits for all of them.
    pub fn set_jobs(&mut self, most: usize) {
        self.out.work.limit(most);
    }

    /// The next job to do. Peers that have proved who they are go first, sources take turns, and neither strangers nor any
    /// source have all of what the host can have. There is none while that is not answered: it is asked for again after each
    /// answer.
    pub fn job(&mut self) -> Option<(JobId, Job)> {
        self.out.work.hand_out()
    }

    /// The next event. It is to be dealt with before anything is sent: see [`Endpoint::transmit`].
    pub fn event(&mut self) -> Option<Event> {
        let event = self.out.events.pop_front();
        self.out.seen = self.out.seen.saturating_sub(usize::from(event.is_some()));
        event
    }

    fn forget(&mut self, key: IkeSpi) {
        self.sas.remove(key);
    }

    /// Does something with one IKE SA, and with what that leads to elsewhere.
    fn with(&mut self, key: IkeSpi, now: Time, work: impl FnOnce(&mut IkeSa, &mut Context<'_>)) {
        let others = self.has_others(key);
        let Some(sa) = self.sas.get_mut(key) else { return };
        sa.first_contact &= !others;
        let mut cx = Context {
            now,
            config: &self.config,
            leases: &mut self.leases,
            out: &mut self.out,
            random: &mut *self.random,
        };
        work(sa, &mut cx);
        self.sas.note(key);
        self.settle(now);
    }

    /// Says of an IKE SA that is to say that it is the only one with its peer whether there is another by now, or is about to
    /// be: the peer may have begun one, too, and would take ours for all there is (RFC 7296 §2.4).
    fn has_others(&self, key: IkeSpi) -> bool {
        let Some(sa) = self.sas.get(key).filter(|sa| sa.first_contact && !sa.is_established()) else {
            return false;
        };
        let Some(connection) = &sa.connection else { return false };
        let is_ours =
            |other: &IkeSa| other.connection.as_ref().is_some_and(|c| c.local_id.is(&connection.local_id));
        let by_name = if let IdPattern::Exactly(id) = &connection.remote_id {
            self.sas.of_peer(id).any(is_ours)
        } else {
            false
        };
        let there = |other: &IkeSa| other.is_half_open() || other.serves(connection);
        by_name || self.sas.marked(Mark::Remote(sa.remote.ip())).any(there)
    }

    /// Heirs take their places, peers that began anew lose their old IKE SAs, what failed is planned again.
    fn settle(&mut self, now: Time) {
        // An honest handshake is over in a moment: whoever has much kept for longest is the least likely to be one.
        if let Some(key) = self.sas.one_too_many(MAX_HELD) {
            self.with(key, now, |sa, cx| sa.make_room(cx));
        }
        for heir in core::mem::take(&mut self.out.born) {
            let key = heir.key;
            self.sas.insert(heir);
            self.with(key, now, |sa, cx| sa.next_task(cx));
        }
        for (from, to, tasks) in core::mem::take(&mut self.out.moved) {
            if self.sas.get(to).is_none_or(IkeSa::is_closed) {
                // The peer has deleted the one that stands while it was not known here, and all that it has with it.
                self.with(from, now, |sa, cx| {
                    let children: Vec<u32> = sa.children.iter().map(|child| child.spi_in).collect();
                    children.into_iter().for_each(|spi_in| drop(sa.remove_child(cx, spi_in)));
                });
                continue;
            }
            // Children that stayed while two rekeyings crossed go to the one that stands.
            let children =
                self.sas.get_mut(from).map(|sa| core::mem::take(&mut sa.children)).unwrap_or_default();
            self.sas.note(from);
            self.with(to, now, |sa, cx| {
                sa.awaits = false;
                sa.children.extend(children);
                for task in tasks {
                    match task {
                        // It has its time, there as well.
                        Task::DeleteIke(Why::Superseded) => sa.later.push((cx.now.after(SUPERSEDED), task)),
                        task => sa.task(task),
                    }
                }
                sa.next_task(cx);
            });
        }
        for (to, children) in core::mem::take(&mut self.out.orphans) {
            match self.sas.get_mut(to).filter(|sa| !sa.is_closed()) {
                Some(sa) => {
                    sa.awaits = false;
                    sa.children.extend(children);
                }
                // The peer has deleted that one, too, and all that it had there.
                None => children.iter().for_each(|child| self.out.events.push_back(child.down())),
            }
            self.sas.note(to);
        }
        for (key, heir, until) in core::mem::take(&mut self.out.redundant) {
            if let Some(sa) = self.sas.get_mut(key) {
                (sa.heir, sa.expires) = (Some(heir), sa.expires.min(until));
            }
            self.sas.note(key);
        }
        self.succeed(now);
        self.supersede(now);
        self.plan(now);
    }

    /// Connections that are to be up and have just lost what they had are begun anew, for ever or as often as they say.
    fn plan(&mut self, now: Time) {
        let mut lost: Vec<(Arc<Connection>, bool)> = Vec::new();
        for event in self.out.events.iter().skip(self.out.seen) {
            match event {
                Event::Failed { connection, why } if *why != Why::Asked => {
                    lost.push((connection.clone(), true))
                }
                Event::IkeDown { connection: Some(connection), why, .. }
                    if !matches!(why, Why::Asked | Why::Rekeyed | Why::Superseded) =>
                {
                    lost.push((connection.clone(), false));
                }
                Event::ChildUp(up) => {
                    if let Some(tries) = self.wanted.get_mut(&up.connection.name) {
                        *tries = 0;
                    }
                }
                _ => {}
            }
        }
        self.out.seen = self.out.events.len();
        for (connection, failed) in lost {
            let Some(tries) = self.wanted.get_mut(&connection.name) else { continue };
            let wait = if failed {
                AGAIN.saturating_mul(1_u32 << (*tries).min(6))
            } else {
                Duration::from_millis(100)
            };
            *tries = tries.saturating_add(u32::from(failed));
            if connection.attempts.is_some_and(|most| *tries >= most) {
                self.wanted.remove(&connection.name);
                continue;
            }
            if !self.again.contains_key(&connection.name) {
                self.again.insert(connection.name.clone(), now.after(wait));
                self.again_at.insert((now.after(wait), connection.name.clone()));
            }
        }
    }

    /// A connection is not to be begun anew any more.
    fn not_again(&mut self, name: &str) {
        if let Some((name, at)) = self.again.remove_entry(name) {
            self.again_at.remove(&(at, name));
        }
    }
}

/// A cookie: what only we can make of the nonce, the address and the SPI of the peer (RFC 7296 §2.6).
fn cookie(secret: &Secret, message: &Message, remote: SocketAddr) -> Vec<u8> {
    let address = match remote.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (port, spi) = (remote.port().to_be_bytes(), message.header.spi_i.0.to_be_bytes());
    Prf::HmacSha256.compute(secret, &[crate::exchange::nonce(message), &address, &port, &spi]).to_vec()
}
