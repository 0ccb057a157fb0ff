//! Which SPI GETSPI hands out.

use ipsec_core::Spi;

/// How SPIs are chosen. The default draws them at random.
///
/// * SPI 0 never names an SA (RFC 4303 §2.1) and is never handed out. 1–255 are IANA's: they are handed out only when
///   the range asked for has nothing else, and not even then if `refuse_reserved` is set.
/// * With `worker_bits` the low bits of an SPI name the worker that is to open its packets, in turn, so that a peer's
///   traffic can be steered by SPI alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpiPolicy {
    /// Refuse ranges that hold nothing but reserved SPIs.
    pub refuse_reserved: bool,
    /// How many low bits name a worker; 0 for none, at most 8.
    pub worker_bits: u32,
    /// How many workers take turns; 0 counts as 2 to the power of `worker_bits`.
    pub workers: u32,
    /// Whose turn it is.
    pub turn: u32,
}

/// How many SPIs are drawn at random before the range is searched.
const DRAWS: u32 = 32;
/// How many SPIs of a range are searched, one after the other.
const SEARCH: u32 = 4096;

/// Why there is no SPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSpi {
    /// The range holds no SPI that may be handed out.
    Range,
    /// All that were tried are taken.
    Taken,
}

impl SpiPolicy {
    /// A policy whose SPIs name one of `workers` in their low bits.
    pub fn steered(workers: u32) -> Self {
        let workers = workers.clamp(1, 256);
        Self { worker_bits: workers.next_power_of_two().trailing_zeros(), workers, ..Self::default() }
    }

    /// Chooses an SPI between `min` and `max`, both included, that is not `taken`.
    ///
    /// illumos tries once; RFC 2367 §3.1.1 expects an SPI if there is one. Here a range of up to 4096 is searched to
    /// the end, a larger one until it is hopeless.
    pub(crate) fn choose(
        &mut self,
        min: u32,
        max: u32,
        random: &mut dyn FnMut(&mut [u8]),
        mut taken: impl FnMut(Spi) -> bool,
    ) -> Result<Spi, NoSpi> {
        let floor = if max >= 256 || self.refuse_reserved { 256 } else { 1 };
        let min = min.max(floor);
        let span = max.checked_sub(min).ok_or(NoSpi::Range)?;
        let mut draw = || {
            let mut octets = [0; 4];
            random(&mut octets);
            let drawn = u32::from_ne_bytes(octets);
            // A range that is everything but the reserved ones would have a bias of 2^-24: harmless.
            let offset = span.checked_add(1).and_then(|n| drawn.checked_rem(n)).unwrap_or(drawn);
            min.saturating_add(offset)
        };
        let mask = 1_u32.checked_shl(self.worker_bits.min(8)).unwrap_or(1).saturating_sub(1);
        let turns = if self.workers == 0 { mask.saturating_add(1) } else { self.workers };
        let worker = self.turn.checked_rem(turns).unwrap_or(0);
        self.turn = self.turn.wrapping_add(1);
        for _ in 0..DRAWS {
            let drawn = draw();
            let steered = drawn & !mask | worker;
            // A range too narrow to steer in is not refused for that.
            let spi = if (min..=max).contains(&steered) { steered } else { drawn };
            if !taken(Spi(spi)) {
                return Ok(Spi(spi));
            }
        }
        let first = draw();
        let around = (first..=max).chain(min..first);
        around.take(SEARCH as usize).map(Spi).find(|spi| !taken(*spi)).ok_or(NoSpi::Taken)
    }
}
