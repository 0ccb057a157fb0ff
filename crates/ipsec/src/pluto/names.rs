//! Names of hosts in ipsec.conf, as in `right=gate.example.com`.
//!
//! They are looked up by threads beside the engine. A name server that does not answer holds up whoever waits for that name:
//! no other connection, no message of a peer, no command.
//!
//! They are looked up again every minute, and soon when a peer does not answer. What then means something else, as does what
//! depends on the addresses of this host and its default route, is replaced unless it is up: a tunnel that works is left alone.

use super::Pluto;
use super::ctl::{Asked, Request};
use super::ports::Ports;
use crate::conf::connection::{self, Here, look_up};
use crate::conf::{Conf, Conn};
use crate::host::clock;
use ipsec_core::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Every name is asked for again after so long.
const AGAIN: Duration = Duration::from_secs(60);
/// What could not be found out sooner, and then ever later; and the name of a peer that does not answer.
const SOON: Duration = Duration::from_secs(2);
/// Addresses come in swarms.
const SWARM: Duration = Duration::from_millis(500);
/// Names looked up at the same time.
const AT_ONCE: usize = 8;

/// What became of each name.
pub(super) type Found = BTreeMap<String, Option<IpAddr>>;

/// What is known of names.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// The last address of each: while no name server answers, it is as good as any.
    known: BTreeMap<String, IpAddr>,
    /// When to ask again.
    pub(super) again: Option<Time>,
    /// How long since the last time, while something could not be found out.
    pause: Duration,
    /// What was loaded: edits of the file since then are nobody's business until somebody asks for them.
    pub(super) conf: Option<Conf>,
    /// Sections that cannot be loaded at the moment, and why.
    pub(super) waits: BTreeMap<String, String>,
}

impl Hosts {
    /// The names of a section that nothing is known of.
    pub(super) fn missing<'c>(&self, conn: &'c Conn) -> Vec<&'c str> {
        connection::names(conn).filter(|name| !self.known.contains_key(*name)).collect()
    }

    /// Takes what was found out.
    pub(super) fn take(&mut self, found: Found, now: Time) {
        let all = found.values().all(Option::is_some);
        self.pause = if all { AGAIN } else { self.pause.saturating_mul(2).clamp(SOON, AGAIN) };
        self.again = Some(now.after(self.pause));
        if all {
            self.pause = Duration::ZERO;
        }
        self.known.extend(found.into_iter().filter_map(|(name, address)| Some((name, address?))));
    }

    fn no_later_than(&mut self, due: Time) {
        self.again = Some(self.again.map_or(due, |again| again.min(due)));
    }
}

/// This host, and what names stand for as far as it is known: nothing is looked up here.
pub(super) struct Known<'p>(pub(super) &'p Ports, pub(super) &'p Hosts);

impl Here for Known<'_> {
    fn has(&self, address: IpAddr) -> bool {
        self.0.has(address)
    }

    fn address_towards(&self, peer: Option<IpAddr>) -> Option<IpAddr> {
        self.0.address_towards(peer)
    }

    fn resolve(&self, name: &str) -> Option<IpAddr> {
        self.1.known.get(name).copied()
    }
}

/// Looks all of them up, several at a time.
fn look_up_all(names: &[String]) -> Found {
    let share = names.len().div_ceil(AT_ONCE).max(1);
    thread::scope(|scope| {
        let shares: Vec<_> = names
            .chunks(share)
            .map(|names| {
                scope.spawn(move || names.iter().map(|name| (name.clone(), look_up(name))).collect())
            })
            .collect();
        shares.into_iter().flat_map(|share| share.join().unwrap_or_else(|_| Vec::new())).collect()
    })
}

impl Pluto {
    /// The names that a request is about.
    pub(super) fn names_for(&self, request: &Request) -> Vec<String> {
        let section = if let Request::Add { name } = request { Some(name) } else { None };
        if section.is_none() && !matches!(request, Request::Reload { .. } | Request::Again) {
            return Vec::new();
        }
        // What is wrong with the file is said when it is acted on.
        let read = if matches!(request, Request::Again) {
            self.hosts.conf.clone()
        } else {
            Conf::load(&self.options.confs).ok()
        };
        let Some(conf) = read else { return Vec::new() };
        let wanted = conf.conns.iter().filter(|conn| match section {
            Some(section) => conn.name == *section,
            None => connection::auto(conn).is_ok_and(|auto| auto != connection::Auto::Ignore),
        });
        let all: BTreeSet<&str> = wanted.flat_map(connection::names).collect();
        all.into_iter().map(str::to_owned).collect()
    }

    /// Has names looked up; the request comes back with what was found.
    pub(super) fn look_up(&mut self, names: Vec<String>, asked: Asked) {
        self.hosts.again = None;
        let (desk, reply) = (self.inbox.desk(), asked.reply.clone());
        let looking = thread::Builder::new().name("names".into()).spawn(move || {
            let found = look_up_all(&names);
            desk.ask(Asked { found: Some(found), ..asked });
        });
        if let Err(error) = looking {
            tracing::warn!("no thread to look names up: {error}");
            self.hosts.again = Some(clock::now().after(AGAIN));
            let _ =
                reply.send(serde_json::json!({ "error": format!("no thread to look names up: {error}") }));
        }
    }

    /// The addresses of this host have changed.
    pub(super) fn look_again(&mut self, now: Time) {
        self.hosts.no_later_than(now.after(SWARM));
    }

    /// A peer does not answer, or a tunnel has gone: it may be elsewhere, and so may we.
    pub(super) fn doubt(&mut self, connection: &str, now: Time) {
        let conn = self.hosts.conf.as_ref().and_then(|conf| conf.conn(self.section(connection)));
        let may_move = |conn: &Conn| {
            connection::names(conn).next().is_some()
                || ["left", "right"].iter().any(|side| conn.get(side) == Some("%defaultroute"))
        };
        if conn.is_some_and(may_move) {
            self.hosts.no_later_than(now.after(SOON));
        }
    }

    /// Has everything that was loaded looked up, and then loads what waited for it or means something else now.
    pub(super) fn look_up_again(&mut self) {
        let request = Request::Again;
        let names = self.names_for(&request);
        self.hosts.again = None;
        if names.is_empty() {
            self.again();
        } else {
            // Nobody waits for the answer; what it says is logged.
            let (reply, _) = channel();
            self.look_up(names, Asked { request, reply, found: None });
        }
    }
}
