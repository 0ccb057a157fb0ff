//! A record of everything that goes into an endpoint and comes out of it, with its keys: for reports of what went wrong.
//!
//! An endpoint decides by nothing but what it is given. So the same configuration, the same randomness, the same answers of
//! jobs and the same datagrams at the same times make the same datagrams again, octet for octet: [`replay`] does that and
//! says where it was otherwise. A record is lines of words; it holds every secret of the connections it is about.

use crate::eap::{Outcome, Said, Won};
use crate::endpoint::Endpoint;
use crate::event::Why;
use crate::identity::Id;
use crate::job::{Answer, Job, JobId};
use crate::message::{IdBody, IkeSpi};
use crate::outbox::Random;
use core::fmt::Write as _;
use core::net::{IpAddr, SocketAddr};
use ipsec_core::kex::{Group, KexError};
use ipsec_core::{Secret, Time};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// One thing that happened, in the order in which it did.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Random octets were drawn.
    Draw(Secret),
    /// A datagram came: where, from where.
    Datagram(Time, SocketAddr, SocketAddr, Vec<u8>),
    /// A job was answered.
    Answer(Time, JobId, Box<Answer>),
    /// A job was answered by what follows from it.
    Again(Time, JobId),
    /// Time went by.
    Timeout(Time),
    /// A command, in words: what, of which connection, and what else.
    Command(Time, Command, String),
    /// A datagram was sent: from where, to where.
    Transmit(SocketAddr, SocketAddr, Vec<u8>),
    /// An IKE SA has keys: initiator's and responder's SPI, SK_ei, SK_er, SK_ai, SK_ar, and the names of cipher and MAC.
    Keys(Box<Keys>),
}

/// What a host asks of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bring a connection up, from this address.
    Up(IpAddr),
    /// Take it down.
    Down,
    /// Rekey its Child SAs.
    Rekey,
    /// Rekey its IKE SA.
    RekeyIke,
    /// Prove anew who both are.
    Reauthenticate,
    /// Keep it up.
    Keep,
    /// The host has these addresses, with commas between.
    Addresses,
    /// The IKE SA of this name leaves from here now.
    Leaves(IpAddr),
    /// The Child SA of this inbound SPI has reached a soft limit.
    Soft,
    /// It has reached a hard one.
    Hard,
    /// This holder, in hexadecimal digits, had an address before.
    Lease(IpAddr),
    /// An authentic packet of an inbound SA came from elsewhere: its SPI, and from where.
    Mapping,
    /// The Child SA of this inbound SPI is to go.
    Delete,
    /// Ask every peer whether it is there.
    Alive,
    /// The end.
    Shutdown,
}

impl Command {
    /// The words of a line, and what stands behind the name.
    fn words(self) -> (&'static str, Option<IpAddr>) {
        match self {
            Self::Up(address) => ("up", Some(address)),
            Self::Down => ("down", None),
            Self::Rekey => ("rekey", None),
            Self::RekeyIke => ("rekey-ike", None),
            Self::Reauthenticate => ("reauthenticate", None),
            Self::Keep => ("keep", None),
            Self::Addresses => ("addresses", None),
            Self::Leaves(address) => ("leaves", Some(address)),
            Self::Soft => ("soft", None),
            Self::Hard => ("hard", None),
            Self::Lease(address) => ("lease", Some(address)),
            Self::Mapping => ("mapping", None),
            Self::Delete => ("delete", None),
            Self::Alive => ("alive", None),
            Self::Shutdown => ("shutdown", None),
        }
    }

    fn parse(word: &str, address: Option<IpAddr>) -> Option<Self> {
        Some(match word {
            "up" => Self::Up(address?),
            "down" => Self::Down,
            "rekey" => Self::Rekey,
            "rekey-ike" => Self::RekeyIke,
            "reauthenticate" => Self::Reauthenticate,
            "keep" => Self::Keep,
            "addresses" => Self::Addresses,
            "leaves" => Self::Leaves(address?),
            "soft" => Self::Soft,
            "hard" => Self::Hard,
            "lease" => Self::Lease(address?),
            "mapping" => Self::Mapping,
            "delete" => Self::Delete,
            "alive" => Self::Alive,
            "shutdown" => Self::Shutdown,
            _ => return None,
        })
    }
}

/// The keys of one IKE SA.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The initiator's SPI, the responder's.
    pub spis: (IkeSpi, IkeSpi),
    /// SK_ei, SK_er, salt last.
    pub encryption: [Secret; 2],
    /// SK_ai, SK_ar; empty beside combined-mode ciphers.
    pub integrity: [Secret; 2],
    /// The cipher and its bits of key.
    pub cipher: Option<(ipsec_core::algorithm::Encryption, u16)>,
    /// The integrity algorithm.
    pub mac: Option<ipsec_core::algorithm::Auth>,
}

/// Who takes a record.
pub trait Tape: Send {
    /// Something happened.
    fn take(&mut self, entry: &Entry);
}

/// A tape that an endpoint and its randomness share.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Box<dyn Tape>>>);

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Tape")
    }
}

impl Shared {
    pub(crate) fn new(tape: Box<dyn Tape>) -> Self {
        Self(Arc::new(Mutex::new(tape)))
    }

    pub(crate) fn take(&self, entry: &Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(entry);
    }
}

/// Randomness that is written down.
pub(crate) struct Drawn {
    pub(crate) random: Box<dyn Random>,
    pub(crate) tape: Shared,
}

impl Random for Drawn {
    fn fill(&mut self, octets: &mut [u8]) {
        self.random.fill(octets);
        self.tape.take(&Entry::Draw(Secret::from(&*octets)));
    }
}

pub(crate) fn hex(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len().saturating_mul(2).saturating_add(1));
    // A word must be there even for no octets.
    text.push('.');
    for octet in octets {
        let _ = write!(text, "{octet:02x}");
    }
    text
}

fn unhex(word: &str) -> Option<Vec<u8>> {
    let digits = word.strip_prefix('.')?;
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            core::str::from_utf8(pair)
                .ok()
                .filter(|p| p.len() == 2)
                .and_then(|p| u8::from_str_radix(p, 16).ok())
        })
        .collect()
}

impl core::fmt::Display for Entry {
    /// The line that says it, without its end.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let at = |time: &Time| time.as_nanos();
        match self {
            Self::Draw(octets) => write!(f, "draw {}", hex(octets)),
            Self::Datagram(time, local, remote, octets) => {
                write!(f, "datagram {} {local} {remote} {}", at(time), hex(octets))
            }
            Self::Answer(time, job, answer) => {
                write!(f, "answer {} {} ", at(time), job.0)?;
                match &**answer {
                    Answer::Offered(Ok((offer, share))) => {
                        write!(f, "offered {} {}", offer.group().number(), hex(share))
                    }
                    Answer::Accepted(Ok((share, secret))) => {
                        write!(f, "accepted {} {}", hex(share), hex(secret))
                    }
                    Answer::Finished(Ok(secret)) => write!(f, "finished {}", hex(secret)),
                    Answer::Offered(Err(_)) => f.write_str("offered"),
                    Answer::Accepted(Err(_)) => f.write_str("accepted"),
                    Answer::Finished(Err(_)) => f.write_str("finished"),
                    Answer::Spi(Some(spi)) => write!(f, "spi {spi}"),
                    Answer::Spi(None) => f.write_str("spi"),
                    Answer::Signed(Ok(signature)) => write!(f, "signed {}", hex(signature)),
                    Answer::Tls(said) => {
                        write!(f, "tls {} ", hex(&said.octets))?;
                        match &said.outcome {
                            Outcome::More => f.write_str("more"),
                            Outcome::Failed(_) => f.write_str("failed"),
                            Outcome::Done(won) => {
                                let body = won.id.body();
                                write!(f, "{}:{}:{}", body.kind, hex(&body.data), hex(&won.msk))
                            }
                        }
                    }
                    // Whose it was follows from what is configured, and is found out again.
                    Answer::Signed(Err(_)) | Answer::Verified(_) => f.write_str("again"),
                }
            }
            Self::Again(time, job) => write!(f, "answer {} {} again", at(time), job.0),
            Self::Timeout(time) => write!(f, "timeout {}", at(time)),
            Self::Command(time, command, name) => {
                let (what, address) = command.words();
                write!(f, "{what} {} {}", at(time), hex(name.as_bytes()))?;
                address.map_or(Ok(()), |address| write!(f, " {address}"))
            }
            Self::Transmit(local, remote, octets) => write!(f, "transmit {local} {remote} {}", hex(octets)),
            Self::Keys(keys) => {
                let Keys { spis, encryption: [ei, er], integrity: [ai, ar], cipher, mac } = &**keys;
                let (cipher, bits) =
                    cipher.map_or((0, 0), |(cipher, bits)| (cipher.transform_number(), bits));
                let mac = mac.map_or(0, |mac| mac.transform_number(mac.row().max_bits as usize / 8));
                let (ei, er, ai, ar) = (hex(ei), hex(er), hex(ai), hex(ar));
                write!(
                    f,
                    "keys {:016x} {:016x} {cipher} {bits} {ei} {er} {mac} {ai} {ar}",
                    spis.0.0, spis.1.0
                )
            }
        }
    }
}

impl Entry {
    /// Reads a line; `None` if it is none, or one that [`replay`] has no use for.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let mut next = || words.next().filter(|word| !word.is_empty());
        let time = |word: &str| word.parse().ok().map(Time::from_nanos);
        let entry = match kind {
            "draw" => Self::Draw(Secret::from(unhex(next()?)?)),
            "datagram" => {
                Self::Datagram(time(next()?)?, next()?.parse().ok()?, next()?.parse().ok()?, unhex(next()?)?)
            }
            "answer" => {
                let (at, job) = (time(next()?)?, JobId(next()?.parse().ok()?));
                let kind = next()?;
                let rest = (next(), next());
                if kind == "again" {
                    return Some(Self::Again(at, job));
                }
                Self::Answer(at, job, Box::new(answer(kind, rest)?))
            }
            "timeout" => Self::Timeout(time(next()?)?),
            "transmit" => Self::Transmit(next()?.parse().ok()?, next()?.parse().ok()?, unhex(next()?)?),
            command => {
                let (at, name) = (time(next()?)?, String::from_utf8(unhex(next()?)?).ok()?);
                let address = next().and_then(|word| word.parse().ok());
                let command = Command::parse(command, address)?;
                Self::Command(at, command, name)
            }
        };
        Some(entry)
    }
}

fn answer(kind: &str, rest: (Option<&str>, Option<&str>)) -> Option<Answer> {
    Some(match (kind, rest) {
        // Whose secret half it was matters to nobody: what came of it is in the record.
        ("offered", (Some(group), Some(share))) => {
            let offer = Group::from_number(group.parse().ok()?)?.offer().ok()?.0;
            Answer::Offered(Ok((Arc::new(offer), unhex(share)?)))
        }
        ("accepted", (Some(share), Some(secret))) => {
            Answer::Accepted(Ok((unhex(share)?, Secret::from(unhex(secret)?))))
        }
        ("finished", (Some(secret), None)) => Answer::Finished(Ok(Secret::from(unhex(secret)?))),
        ("offered", _) => Answer::Offered(Err(KexError::Value)),
        ("accepted", _) => Answer::Accepted(Err(KexError::Value)),
        ("finished", _) => Answer::Finished(Err(KexError::Value)),
        ("signed", (Some(signature), None)) => Answer::Signed(Ok(unhex(signature)?)),
        ("tls", (Some(octets), Some(outcome))) => {
            let outcome = match outcome {
                "more" => Outcome::More,
                "failed" => Outcome::Failed(Why::Tls("as it is recorded".to_owned())),
                done => {
                    let mut words = done.split(':');
                    let (kind, data) = (words.next()?.parse().ok()?, unhex(words.next()?)?);
                    let id = Id::from_body(&IdBody { kind, data })?;
                    Outcome::Done(Won { id, msk: Secret::from(unhex(words.next()?)?) })
                }
            };
            Answer::Tls(Box::new(Said::recorded(unhex(octets)?, outcome)))
        }
        ("spi", (spi, _)) => Answer::Spi(spi.and_then(|spi| spi.parse().ok())),
        _ => return None,
    })
}

/// Randomness as it was drawn.
struct Again(VecDeque<u8>);

impl Random for Again {
    fn fill(&mut self, octets: &mut [u8]) {
        octets.iter_mut().for_each(|octet| *octet = self.0.pop_front().unwrap_or(0));
    }
}

/// Where a replay was not what is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The line, from 1.
    pub line: usize,
    /// What is there.
    pub recorded: String,
    /// What came instead.
    pub replayed: String,
}

/// Has an endpoint that `configure` has given the same connections and secrets do again what a record says, and compares
/// each datagram it sends. Says how many those were.
///
/// # Errors
/// The first one that differs.
pub fn replay(record: &str, configure: impl FnOnce(&mut Endpoint)) -> Result<usize, Box<Divergence>> {
    let entries: Vec<(usize, Entry)> = (1_usize..)
        .zip(record.lines())
        .filter_map(|(line, text)| Some((line, Entry::parse(text)?)))
        .collect();
    let drawn = entries
        .iter()
        .filter_map(|(_, entry)| if let Entry::Draw(octets) = entry { Some(octets) } else { None });
    let drawn: VecDeque<u8> = drawn.flat_map(|octets| octets.iter().copied()).collect();
    let start = entries.iter().find_map(|(_, entry)| time(entry)).unwrap_or(Time::ZERO);
    let mut endpoint = Endpoint::new(Box::new(Again(drawn)), start);
    // Whatever the host had, whenever it had it.
    endpoint.set_jobs(usize::MAX);
    configure(&mut endpoint);
    let mut same = 0_usize;
    let mut jobs = BTreeMap::new();
    for (line, entry) in entries {
        jobs.extend(core::iter::from_fn(|| endpoint.job()));
        match entry {
            Entry::Draw(_) | Entry::Keys(_) => {}
            Entry::Datagram(at, local, remote, octets) => endpoint.datagram(local, remote, &octets, at),
            Entry::Answer(at, job, answer) => {
                jobs.remove(&job);
                endpoint.answer(job, *answer, at);
            }
            Entry::Again(at, job) => {
                if let Some(Ok(answer)) = jobs.remove(&job).map(Job::run) {
                    endpoint.answer(job, answer, at);
                }
            }
            Entry::Timeout(at) => endpoint.timeout(at),
            Entry::Command(at, command, name) => endpoint.again(command, &name, at),
            Entry::Transmit(local, remote, octets) => {
                // The host had dealt with them, or there would have been nothing to send.
                while endpoint.event().is_some() {}
                let sent =
                    endpoint.transmit().map(|sent| Entry::Transmit(sent.local, sent.remote, sent.octets));
                let recorded = Entry::Transmit(local, remote, octets).to_string();
                let replayed = sent.map_or_else(|| "nothing".to_owned(), |sent| sent.to_string());
                if recorded != replayed {
                    return Err(Box::new(Divergence { line, recorded, replayed }));
                }
                same = same.saturating_add(1);
            }
        }
    }
    Ok(same)
}

const fn time(entry: &Entry) -> Option<Time> {
    match entry {
        Entry::Datagram(at, ..)
        | Entry::Answer(at, ..)
        | Entry::Again(at, _)
        | Entry::Timeout(at)
        | Entry::Command(at, ..) => Some(*at),
        Entry::Draw(_) | Entry::Transmit(..) | Entry::Keys(_) => None,
    }
}

impl Endpoint {
    /// Does once more what a host asked.
    fn again(&mut self, command: Command, name: &str, at: Time) {
        match command {
            Command::Up(local) => drop(self.up(name, local, at)),
            Command::Down => self.down(name, at),
            Command::Rekey => drop(self.rekey(name, false, at)),
            Command::RekeyIke => drop(self.rekey(name, true, at)),
            Command::Reauthenticate => drop(self.reauthenticate(name, at)),
            Command::Keep => self.keep(name),
            Command::Addresses => {
                let all = name.split(',').filter_map(|address| address.parse().ok()).collect();
                self.addresses(all, |_, _| None, at);
            }
            Command::Leaves(local) => {
                if let Ok(key) = u64::from_str_radix(name, 16) {
                    self.leaves(IkeSpi(key), local, at);
                }
            }
            Command::Soft => drop(name.parse().map(|spi| self.child_expired(spi, false, at))),
            Command::Hard => drop(name.parse().map(|spi| self.child_expired(spi, true, at))),
            Command::Mapping => {
                let words = name.split_once(' ').map(|(spi, from)| (spi.parse(), from.parse()));
                if let Some((Ok(spi), Ok(from))) = words {
                    self.mapping(spi, from, at);
                }
            }
            Command::Delete => drop(name.parse().map(|spi| self.delete_child(spi, at))),
            Command::Alive => self.ask_alive(at),
            Command::Shutdown => self.shutdown(at),
            Command::Lease(address) => {
                if let Some(holder) = unhex(name) {
                    self.restore_lease(address, &holder);
                }
            }
        }
    }
}
