//! Timing: alternating samples, medians.

use rustix::time::{ClockId, clock_gettime};
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

/// Nanoseconds of this thread's processor time that `work` takes: what other programs do meanwhile is not in it.
pub(crate) fn cpu_nanos(work: impl FnOnce()) -> f64 {
    let now = || {
        let at = clock_gettime(ClockId::ThreadCPUTime);
        at.tv_sec as f64 * 1e9 + at.tv_nsec as f64
    };
    let start = now();
    work();
    now() - start
}

/// The median.
pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
