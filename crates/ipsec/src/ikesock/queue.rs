//! Between the workers, who receive IKE messages, and the thread that hands them on: bounded in number, octets and age, and
//! no source may have it for itself.

use super::{Kind, Record};
use crate::daemon::mailbox::Waker;
use ike::source::source;
use ipsec_core::Time;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Messages that wait.
pub const MOST: usize = 1024;
/// Their octets.
const OCTETS: usize = 2 << 20;
/// Those of one [`source`]. Enough for a message in the most fragments that are accepted.
pub const EACH: usize = 128;
/// How long messages are kept for a key daemon that has gone: it is being restarted, or it will not come back.
pub const GRACE: Duration = Duration::from_secs(30);

/// What became of the messages since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken in.
    pub received: u64,
    /// Handed to the key daemon.
    pub delivered: u64,
    /// Refused: too many wait.
    pub full: u64,
    /// Refused: too many of that source wait.
    pub crowded: u64,
    /// Dropped: no key daemon came for them in time.
    pub stale: u64,
    /// Sent for the key daemon.
    pub sent: u64,
    /// Not sent: the kernel refused, or no device has the address.
    pub unsent: u64,
}

/// Messages on their way to the key daemon.
#[derive(Debug)]
pub struct Queue {
    waker: Waker,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Until when messages are worth keeping; never while there has been no key daemon.
    open_until: Option<Time>,
    messages: VecDeque<Held>,
    octets: usize,
    sources: HashMap<IpAddr, usize>,
    counts: Counts,
}

#[derive(Debug)]
struct Held {
    source: IpAddr,
    at: Time,
    record: Vec<u8>,
}

impl Queue {
    /// An empty one, whose waker is signalled when it no longer is.
    pub fn new() -> io::Result<Self> {
        Ok(Self { waker: Waker::new()?, waiting: Mutex::default() })
    }

    /// Readable when messages wait.
    pub const fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Takes a message in; false if there is nobody to hand it to. Called by workers: it never waits for more than another
    /// such call.
    pub fn push(&self, local: SocketAddr, remote: SocketAddr, message: &[u8], now: Time) -> bool {
        let source = source(remote.ip());
        let mut waiting = self.waiting.lock();
        if waiting.open_until.is_none_or(|until| now >= until) {
            return false;
        }
        waiting.counts.received += 1;
        if waiting.messages.len() >= MOST || waiting.octets.saturating_add(message.len()) > OCTETS {
            waiting.counts.full += 1;
            return true;
        }
        let of_source = waiting.sources.entry(source).or_default();
        if *of_source >= EACH {
            waiting.counts.crowded += 1;
            return true;
        }
        *of_source += 1;
        let record = Record { kind: Kind::Ike, local, remote, message }.to_vec();
        waiting.octets = waiting.octets.saturating_add(record.len());
        waiting.messages.push_back(Held { source, at: now, record });
        drop(waiting);
        self.waker.wake();
        true
    }

    /// The next message to hand on, if one waits that is not too old.
    pub fn pop(&self, now: Time) -> Option<Vec<u8>> {
        let mut waiting = self.waiting.lock();
        loop {
            let held = waiting.take()?;
            if now.since(held.at) <= GRACE {
                return Some(held.record);
            }
            waiting.counts.stale += 1;
        }
    }

    /// A key daemon has come.
    pub fn open(&self) {
        self.waiting.lock().open_until = Some(Time::from_nanos(u64::MAX));
    }

    /// It has gone: what comes is kept for its successor, for a while.
    pub fn close(&self, now: Time) {
        self.waiting.lock().open_until = Some(now.after(GRACE));
    }

    /// Counts what became of messages.
    pub fn count(&self, with: impl FnOnce(&mut Counts)) {
        with(&mut self.waiting.lock().counts);
    }

    /// What became of messages so far.
    pub fn counts(&self) -> Counts {
        self.waiting.lock().counts
    }
}

impl Waiting {
    fn take(&mut self) -> Option<Held> {
        let held = self.messages.pop_front()?;
        self.octets = self.octets.saturating_sub(held.record.len());
        if let Some(count) = self.sources.get_mut(&held.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sources.remove(&held.source);
            }
        }
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    const NOW: Time = Time::from_secs(100);

    fn local() -> SocketAddr {
        "192.0.2.1:4500".parse().unwrap()
    }

    fn from(n: u32) -> SocketAddr {
        SocketAddr::new(IpAddr::V4((0x0a00_0000 + n).into()), 4500)
    }

    #[test]
    fn nothing_is_kept_before_there_was_a_key_daemon_and_little_after_it_went() {
        let queue = Queue::new().unwrap();
        assert!(!queue.push(local(), from(1), b"m", NOW));
        queue.open();
        assert!(queue.push(local(), from(1), b"one", NOW));
        queue.close(NOW);
        assert!(queue.push(local(), from(1), b"two", NOW.after(GRACE / 2)));
        assert!(!queue.push(local(), from(1), b"three", NOW.after(GRACE)));
        // The successor comes late: what is older than it can be of use is not handed on.
        let late = NOW.after(GRACE + GRACE / 4);
        let record = queue.pop(late).unwrap();
        assert_eq!(Record::parse(&record).unwrap().message, b"two");
        assert_eq!(queue.pop(late), None);
        assert_eq!(queue.counts().stale, 1);
    }

    #[test]
    fn one_source_does_not_crowd_out_the_others() {
        let queue = Queue::new().unwrap();
        queue.open();
        for _ in 0..MOST * 2 {
            queue.push(local(), from(1), b"flood", NOW);
        }
        queue.push(local(), from(2), b"honest", NOW);
        let mut seen = Vec::new();
        while let Some(record) = queue.pop(NOW) {
            seen.push(Record::parse(&record).unwrap().message.to_vec());
        }
        assert_eq!(seen.len(), EACH + 1);
        assert_eq!(seen.last().unwrap(), b"honest");
        assert_eq!(queue.counts().crowded, (MOST * 2 - EACH) as u64);
        // What was taken out makes room again.
        queue.push(local(), from(1), b"again", NOW);
        assert!(queue.pop(NOW).is_some());
    }

    #[test]
    fn an_attacker_with_a_whole_ipv6_network_is_one_source() {
        let queue = Queue::new().unwrap();
        queue.open();
        let local = "[2001:db8::1]:4500".parse().unwrap();
        for n in 0..200_u16 {
            let remote = SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, n).into(), n);
            queue.push(local, remote, b"m", NOW);
        }
        assert_eq!(queue.counts().crowded, 200 - EACH as u64);
    }

    #[test]
    fn a_flood_from_everywhere_ends_at_the_bound() {
        let queue = Queue::new().unwrap();
        queue.open();
        for n in 0..5000 {
            queue.push(local(), from(n), b"m", NOW);
        }
        assert_eq!(queue.counts().full, 5000 - MOST as u64);
        let queue = Queue::new().unwrap();
        queue.open();
        for n in 0..100 {
            queue.push(local(), from(n), &[0; 60_000], NOW);
        }
        assert!(queue.counts().full > 50, "octets are bounded, too");
    }
}
