//! Time as an argument.

use core::time::Duration;

/// A point in time: nanoseconds on a clock that does not stop while the machine sleeps (`CLOCK_BOOTTIME`).
///
/// The engines never read a clock; the host hands them a `Time` with every call, and tests hand them any they like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The beginning of the clock.
    pub const ZERO: Self = Self(0);
    /// Later than any time the engines will see.
    pub const FOREVER: Self = Self(u64::MAX);

    /// From nanoseconds since the clock began.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From whole seconds since the clock began.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the clock began.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the clock began, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// This time moved into the future; stops at [`Time::FOREVER`].
    #[must_use]
    pub const fn after(self, span: Duration) -> Self {
        let nanos = span.as_nanos();
        if nanos > u64::MAX as u128 {
            return Self::FOREVER;
        }
        Self(self.0.saturating_add(nanos as u64))
    }

    /// The span from `earlier` to this time; nothing if `earlier` is in fact later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
