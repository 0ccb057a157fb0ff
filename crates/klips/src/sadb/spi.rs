//! Which SPI GETSPI hands out.

use core::net::IpAddr;
use ipsec_core::Spi;

/// How SPIs are chosen: at random, within the range asked for.
///
/// * SPI 0 never names an SA (RFC 4303 §2.1) and is never handed out. 1–255 are IANA's: they are handed out only when
///   the range asked for has nothing else, and not even then if `refuse_reserved` is set.
/// * With several `workers` an SPI names the one that is to open its packets, by the remainder of a division. All SAs from
///   one peer name the same: on a rekey the new SA's first packets must not overtake the old one's last.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpiPolicy {
    /// Refuse ranges that hold nothing but reserved SPIs.
    pub refuse_reserved: bool,
    /// Among how many workers the host steers by SPI; 0 and 1 mean that it does not.
    pub workers: u32,
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
    /// Chooses an SPI between `min` and `max`, both included, that is not `taken`.
    ///
    /// illumos tries once; RFC 2367 §3.1.1 expects an SPI if there is one. Here a range of up to 4096 is searched to
    /// the end, a larger one until it is hopeless.
    pub(crate) fn choose(
        self,
        min: u32,
        max: u32,
        peer: IpAddr,
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
        let workers = self.workers.max(1);
        let worker = mix(peer).checked_rem(workers).unwrap_or(0);
        for _ in 0..DRAWS {
            let drawn = draw();
            let before = drawn.checked_rem(workers).unwrap_or(0);
            let steered = drawn.saturating_sub(before).saturating_add(worker);
            let next = steered.saturating_add(workers);
            // A range too narrow to steer in is not refused for that.
            let spi = [steered, next].into_iter().find(|spi| (min..=max).contains(spi)).unwrap_or(drawn);
            if !taken(Spi(spi)) {
                return Ok(Spi(spi));
            }
        }
        let first = draw();
        let around = (first..=max).chain(min..first);
        around.take(SEARCH as usize).map(Spi).find(|spi| !taken(*spi)).ok_or(NoSpi::Taken)
    }
}

/// A number that depends on every octet of an address (FNV-1a); which one is of no consequence.
fn mix(address: IpAddr) -> u32 {
    let fold = |octets: &[u8]| {
        octets
            .iter()
            .fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193))
    };
    match address {
        IpAddr::V4(address) => fold(&address.octets()),
        IpAddr::V6(address) => fold(&address.octets()),
    }
}
