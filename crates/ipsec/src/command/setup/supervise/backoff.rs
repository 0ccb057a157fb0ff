//! When to start again what has died: at once the first time, later each time it dies young.

use ipsec_core::Time;
use std::time::Duration;

/// Who has lived this long died of something new.
const STABLE: Duration = Duration::from_secs(600);
/// Never more often than this in the long run. There is no last try: a gateway comes back once what ails it is over.
pub(super) const LONGEST: Duration = Duration::from_secs(300);

/// How often in a row one has died.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    deaths: u32,
    started: Option<Time>,
}

impl Backoff {
    /// It runs.
    pub(super) fn started(&mut self, now: Time) {
        self.started = Some(now);
    }

    /// It has died, or could not be started: how long to wait before the next try. 0, 1, 2, 4 … 256, 300, 300 seconds.
    pub(super) fn died(&mut self, now: Time) -> Duration {
        if self.started.take().is_some_and(|started| now.since(started) >= STABLE) {
            self.deaths = 0;
        }
        let delay = match self.deaths {
            0 => Duration::ZERO,
            n => Duration::from_secs(1 << n.saturating_sub(1).min(16)).min(LONGEST),
        };
        self.deaths = self.deaths.saturating_add(1);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn one_that_dies_and_dies_is_started_ever_more_slowly_and_never_given_up() {
        let mut backoff = Backoff::default();
        let mut now = 0;
        let mut delays = Vec::new();
        for _ in 0..100 {
            backoff.started(at(now));
            // It lives for a second.
            let delay = backoff.died(at(now + 1)).as_secs();
            delays.push(delay);
            now += 1 + delay;
        }
        assert_eq!(delays[..12], [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!(delays[12..].iter().all(|delay| *delay == 300));
        let hour = delays
            .iter()
            .scan(0, |at, delay| {
                *at += 1 + delay;
                Some(*at)
            })
            .filter(|at| *at < 3600)
            .count();
        assert!(hour <= 20, "{hour} starts in the first hour");
    }

    #[test]
    fn one_that_cannot_even_be_started_waits_as_long() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..4).map(|_| backoff.died(at(7)).as_secs()).collect();
        assert_eq!(delays, [0, 1, 2, 4]);
    }

    #[test]
    fn a_long_life_makes_the_next_death_the_first_one() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.died(at(1));
        }
        backoff.started(at(100));
        assert_eq!(backoff.died(at(699)), Duration::from_secs(16), "599 seconds are not long");
        backoff.started(at(1000));
        assert_eq!(backoff.died(at(1600)), Duration::ZERO);
    }
}
