//! The host's clock: the one place that reads time. Everything else is handed a [`Time`].

use core::time::Duration;
use ipsec_core::Time;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Now, on `CLOCK_BOOTTIME`: lifetimes go on while the machine sleeps.
pub fn now() -> Time {
    Time::from_nanos(nanos(clock_gettime(ClockId::Boottime)))
}

/// Time since 1970 at [`Time::ZERO`]: what turns a [`Time`] into the time of day for PF_KEY and for certificates.
pub fn epoch() -> Duration {
    let wall = nanos(clock_gettime(ClockId::Realtime));
    Duration::from_nanos(wall.saturating_sub(now().as_nanos()))
}

/// The time of day: seconds since 1970.
pub fn wall() -> u64 {
    nanos(clock_gettime(ClockId::Realtime)) / 1_000_000_000
}

fn nanos(at: Timespec) -> u64 {
    let secs = u64::try_from(at.tv_sec).unwrap_or(0);
    secs.saturating_mul(1_000_000_000).saturating_add(u64::try_from(at.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back_and_the_epoch_is_this_century() {
        let first = now();
        assert!(now() >= first);
        assert!(first > Time::ZERO);
        assert!(wall() > 1_600_000_000, "{}", wall());
        let sum = epoch().saturating_add(now().since(Time::ZERO)).as_secs();
        assert!(wall().abs_diff(sum) <= 1, "{sum}");
    }
}
