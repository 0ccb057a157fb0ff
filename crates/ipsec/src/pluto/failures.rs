//! Why connections are not up: what ended or hindered each the last time, until it is up again. Whoever comes an hour later has
//! no log to read.

use ipsec_core::Time;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Peers of which it is kept that what they had begun came to nothing. They have proved nothing, and may be many.
const PEERS: usize = 256;
/// A reason has words of the peer in it, and is no longer than this.
const LONGEST: usize = 1000;

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What, and what would mend it.
    pub(super) why: String,
    /// When.
    pub(super) at: Time,
    /// How often something has gone wrong since the connection was up.
    pub(super) times: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Failures {
    own: BTreeMap<String, Failure>,
    peers: BTreeMap<IpAddr, Failure>,
}

impl Failures {
    /// A connection that is loaded was ended or could not be brought up. What happens at one moment is one failure, and what is
    /// said last says it best: an IKE SA goes after its children.
    pub(super) fn note(&mut self, name: &str, why: &str, at: Time) {
        let failure = again(self.own.get(name), why, at);
        self.own.insert(name.to_owned(), failure);
    }

    /// What a peer at this address had begun came to nothing.
    pub(super) fn note_peer(&mut self, remote: IpAddr, why: &str, at: Time) {
        let failure = again(self.peers.get(&remote), why, at);
        if self.peers.len() >= PEERS && !self.peers.contains_key(&remote) {
            let oldest = self.peers.iter().min_by_key(|(_, failure)| failure.at).map(|(remote, _)| *remote);
            oldest.map(|oldest| self.peers.remove(&oldest));
        }
        self.peers.insert(remote, failure);
    }

    /// A connection is up, with a peer there.
    pub(super) fn is_up(&mut self, name: &str, remote: IpAddr) {
        self.forget(name);
        self.peers.remove(&remote);
    }

    /// A connection is up, or no longer loaded.
    pub(super) fn forget(&mut self, name: &str) {
        self.own.remove(name);
    }

    /// The last failure of a connection, whose peer is to be there.
    pub(super) fn last(&self, name: &str, remote: Option<IpAddr>) -> Option<&Failure> {
        let own = self.own.get(name);
        let peer = remote.and_then(|remote| self.peers.get(&remote));
        own.into_iter().chain(peer).max_by_key(|failure| failure.at)
    }
}

fn again(before: Option<&Failure>, why: &str, at: Time) -> Failure {
    let why = why.chars().map(|c| if c.is_control() { '?' } else { c }).take(LONGEST).collect();
    let times = before.map_or(1, |before| before.times.saturating_add(u64::from(before.at != at)));
    Failure { why, at, times }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn said(failures: &Failures, remote: Option<IpAddr>) -> Option<(&str, u64, u64)> {
        failures
            .last("a", remote)
            .map(|last| (last.why.as_str(), last.at.since(Time::ZERO).as_secs(), last.times))
    }

    #[test]
    fn the_last_one_is_kept_until_the_connection_is_up() {
        let mut failures = Failures::default();
        failures.note("a", "its SAs ended", Time::from_secs(1));
        failures.note("a", "no answer", Time::from_secs(1));
        failures.note("b", "other", Time::from_secs(9));
        assert_eq!(said(&failures, None), Some(("no answer", 1, 1)));
        failures.note("a", "no answer", Time::from_secs(3));
        assert_eq!(said(&failures, Some(PEER)), Some(("no answer", 3, 2)));
        // The peer has tried meanwhile.
        failures.note_peer(PEER, "not its secret", Time::from_secs(4));
        assert_eq!(said(&failures, Some(PEER)), Some(("not its secret", 4, 1)));
        assert_eq!(said(&failures, None), Some(("no answer", 3, 2)));
        failures.note("a", "no answer", Time::from_secs(5));
        assert_eq!(said(&failures, Some(PEER)), Some(("no answer", 5, 3)));
        failures.is_up("a", PEER);
        assert_eq!((said(&failures, Some(PEER)), failures.last("b", None).is_some()), (None, true));
    }

    #[test]
    fn strangers_can_fill_no_memory_and_write_on_no_terminal() {
        let mut failures = Failures::default();
        failures.note_peer(PEER, &"\x1b[2J".repeat(LONGEST), Time::from_secs(1 << 20));
        for n in 0..10_000_u32 {
            failures.note_peer(IpAddr::V4(n.into()), "nobody", Time::from_secs(n.into()));
        }
        assert_eq!(failures.peers.len(), PEERS);
        let why = &failures.last("a", Some(PEER)).unwrap().why;
        assert!(why.len() <= LONGEST && !why.contains('\x1b'), "{}", why.len());
    }
}
