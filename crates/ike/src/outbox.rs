//! What a handler works with besides its IKE SA: the time, the configuration, randomness, and where it puts what it has
//! to say.

use crate::connection::{Connection, Secrets};
use crate::event::{Event, Transmit, Why};
use crate::identity::Id;
use crate::lease::Leases;
use crate::loaded::Loaded;
use crate::message::IkeSpi;
use crate::sa::{Child, IkeSa, Task};
use crate::tape::{Entry, Shared};
use crate::work::Work;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use ipsec_core::Time;
use std::collections::VecDeque;
use std::sync::Arc;

/// Where randomness comes from. In tests it may repeat itself; elsewhere it must be the operating system's.
pub trait Random: Send {
    /// Fills the octets.
    fn fill(&mut self, octets: &mut [u8]);
}

/// What is configured.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) connections: Loaded,
    /// The addresses of this host.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) secrets: Secrets,
    /// Time since 1970 at [`Time::ZERO`], once the host has said so.
    pub(crate) epoch: Option<Duration>,
}

impl Config {
    /// The time of day, in seconds since 1970: certificates have theirs.
    pub(crate) fn time_of_day(&self, now: Time) -> Option<u64> {
        self.epoch.map(|epoch| epoch.saturating_add(now.since(Time::ZERO)).as_secs())
    }
}

/// What was refused without an answer, or dropped: one count for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Octets that are no IKE message.
    pub malformed: u64,
    /// Messages whose ICV does not hold.
    pub forged: u64,
    /// Messages for no IKE SA of ours, or that nothing waits for.
    pub stray: u64,
    /// First messages answered by a cookie.
    pub cookies: u64,
    /// First messages dropped because nobody has proved anything on too many IKE SAs.
    pub flooded: u64,
    /// What was not said of negotiations with strangers, because too much would have been.
    pub unsaid: u64,
}

/// What goes out, until the host fetches it.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) work: Work,
    /// IKE SAs that rekeying made.
    pub(crate) born: Vec<IkeSa>,
    /// What waited on an IKE SA that was replaced, for its heir.
    pub(crate) moved: Vec<(IkeSpi, IkeSpi, Vec<Task>)>,
    /// Children of an IKE SA that goes, for its heir.
    pub(crate) orphans: Vec<(IkeSpi, Vec<Child>)>,
    /// IKE SAs that are one too many, the one that stands instead, and until when they wait for their deletion.
    pub(crate) redundant: Vec<(IkeSpi, IkeSpi, Time)>,
    /// A peer that has begun an IKE SA, which may not be its first: that, who it is, and whether it says that older ones are gone.
    pub(crate) superseded: Vec<(IkeSpi, Id, bool)>,
    /// IKE SAs beside which another is to be begun.
    pub(crate) reauthenticate: Vec<IkeSpi>,
    /// IKE SAs on which a peer has proved anew who it is.
    pub(crate) proved_anew: Vec<IkeSpi>,
    /// IKE SAs that may go, the one that succeeds each, and the connections it has children of.
    pub(crate) retired: Vec<(IkeSpi, IkeSpi, Vec<Arc<Connection>>)>,
    pub(crate) counters: Counters,
    /// Where all is written down, if somebody wants it.
    pub(crate) tape: Option<Shared>,
    /// How much may be said of strangers.
    words: Ration,
    /// How many of the events the endpoint has looked at for itself.
    pub(crate) seen: usize,
}

/// So much may be said of strangers at once, and one more each second.
const MAX_WORDS: u64 = 64;

/// What was taken of something of which there is some at once and more by and by.
#[derive(Debug, Default)]
struct Ration {
    taken: u64,
    since: Time,
}

impl Ration {
    fn take(&mut self, now: Time) -> bool {
        let grown = now.since(self.since).as_secs();
        self.taken = self.taken.saturating_sub(grown);
        self.since = self.since.after(Duration::from_secs(grown));
        let some = self.taken < MAX_WORDS;
        self.taken = self.taken.saturating_add(u64::from(some));
        some
    }
}

impl Outbox {
    /// Takes the children of an IKE SA that is about to close to the one that took its place.
    pub(crate) fn moved_children(&mut self, sa: &mut IkeSa, to: IkeSpi) {
        self.orphans.push((to, core::mem::take(&mut sa.children)));
    }

    /// Writes something down, if somebody wants it.
    pub(crate) fn note(&self, entry: impl FnOnce() -> Entry) {
        if let Some(tape) = &self.tape {
            tape.take(&entry());
        }
    }

    /// Says something of a negotiation in which nobody has proved anything: now and then, for whoever sends most of what comes
    /// of strangers also chooses how much is said of it.
    pub(crate) fn of_stranger(
        &mut self,
        now: Time,
        connection: Option<&Arc<Connection>>,
        text: impl FnOnce() -> String,
    ) {
        if self.may_say(now) {
            self.progress(connection, text());
        }
    }

    /// The same, when it has come to nothing.
    pub(crate) fn peer_failed(&mut self, now: Time, remote: SocketAddr, why: Why) {
        if self.may_say(now) {
            self.events.push_back(Event::PeerFailed { remote, why });
        }
    }

    /// Whether something may be said of a stranger now; what may not is counted.
    fn may_say(&mut self, now: Time) -> bool {
        let may = self.words.take(now);
        self.counters.unsaid = self.counters.unsaid.saturating_add(u64::from(!may));
        may
    }

    pub(crate) fn progress(&mut self, connection: Option<&Arc<Connection>>, text: String) {
        self.events.push_back(Event::Progress { connection: connection.cloned(), text });
    }
}

/// What a handler works with.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) config: &'a Config,
    pub(crate) leases: &'a mut Leases,
    pub(crate) out: &'a mut Outbox,
    pub(crate) random: &'a mut dyn Random,
}

impl Context<'_> {
    /// A fresh nonce: as long as half the longest PRF key, and twice what RFC 7296 §2.10 demands at least.
    pub(crate) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.random.fill(&mut nonce);
        nonce
    }

    /// A fresh SPI for an IKE SA: never 0.
    pub(crate) fn spi(&mut self) -> IkeSpi {
        loop {
            let mut octets = [0; 8];
            self.random.fill(&mut octets);
            if octets != [0; 8] {
                return IkeSpi(u64::from_be_bytes(octets));
            }
        }
    }

    /// A number below `limit`; 0 if that is 0.
    pub(crate) fn random_below(&mut self, limit: u64) -> u64 {
        let mut octets = [0; 8];
        self.random.fill(&mut octets);
        u64::from_be_bytes(octets).checked_rem(limit).unwrap_or(0)
    }
}
