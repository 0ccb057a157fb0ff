//! Timing: alternating samples, medians.

use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;
use std::time::Instant;

/// How long to measure
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Fewer and shorter samples
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only what contains this
    pub(crate) filter: Option<String>,
}

impl Options {
    pub(crate) const fn samples(&self) -> usize {
        if self.quick { 9 } else { 31 }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    }
}

/// Nanoseconds that `work` takes.
#[expect(clippy::disallowed_methods, reason = "a benchmark is what reads clocks")]
pub(crate) fn nanos(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

/// Nanoseconds of the processor that `work` takes this thread: what other programs do at the same time does not count, but
/// for the caches they empty. For work that never waits. What reading the clock costs is taken off.
pub(crate) fn cpu_nanos(work: impl FnOnce()) -> f64 {
    static READING: OnceLock<f64> = OnceLock::new();
    let clock = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
    };
    let reading = *READING.get_or_init(|| median((0..1001).map(|_| -(clock() - clock())).collect()));
    let start = clock();
    work();
    clock() - start - reading
}

/// The median.
pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
