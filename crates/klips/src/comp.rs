//! IPComp with DEFLATE (RFC 3173, RFC 2394): smaller payloads, where they get smaller.
//!
//! Nothing here is authenticated: it lies inside of ESP or AH, and is looked at when their ICVs have been verified. Even so a
//! peer may send little that inflates to much; no packet becomes larger than an IP packet can be.

use crate::discard::Discard;
use core::sync::atomic::{AtomicU32, Ordering};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Octets of the IPComp header: next header, flags, CPI (RFC 3173 §3.1).
pub(crate) const HEADER: usize = 4;
/// Shorter payloads hardly ever shrink (RFC 2394 §2.2).
const WORTH: usize = 90;
/// The level at which every zlib finds what the others find.
const LEVEL: u32 = 6;

/// The Compression Parameter Index of an SA: the low half of its SPI (RFC 3173 §3.3).
pub(crate) const fn cpi(spi: ipsec_core::Spi) -> u16 {
    spi.0 as u16
}

/// Next header and CPI of an IPComp header.
pub(crate) fn header(octets: &[u8]) -> Option<(u8, u16)> {
    let &[next, _, c0, c1] = octets.first_chunk::<HEADER>()?;
    Some((next, u16::from_be_bytes([c0, c1])))
}

/// How compression has gone on one SA (RFC 3173 §2.2: adaptive). After eight packets in a row that did not shrink four go
/// untried, and after every two more that do not, eight.
#[derive(Debug, Default)]
pub(crate) struct Luck(AtomicU32);

impl Luck {
    const PATIENCE: u32 = 8;

    /// Whether to try the next packet. Workers share it and may both be told yes: nothing depends on the number.
    fn tries(&self) -> bool {
        let now = self.0.load(Ordering::Relaxed);
        let (failures, skip) = (now & 0xffff, now >> 16);
        if let Some(left) = skip.checked_sub(1) {
            self.0.store(left << 16 | failures, Ordering::Relaxed);
        }
        skip == 0
    }

    fn learn(&self, shrank: bool) {
        if shrank {
            return self.0.store(0, Ordering::Relaxed);
        }
        let failures = (self.0.load(Ordering::Relaxed) & 0xffff).saturating_add(1);
        let next = match failures {
            Self::PATIENCE => 4 << 16 | failures,
            // Two more have failed since.
            over if over >= Self::PATIENCE.saturating_add(2) => 8 << 16 | Self::PATIENCE,
            under => under,
        };
        self.0.store(next, Ordering::Relaxed);
    }
}

/// One worker's compressor and decompressor. Each is some hundred kilobytes, so they are made when first needed.
#[derive(Default)]
pub(crate) struct Codec {
    deflate: Option<Box<Compress>>,
    inflate: Option<Box<Decompress>>,
    output: Vec<u8>,
}

impl Codec {
    /// The IPComp header and compressed octets that stand for `body`, if that makes fewer of them.
    pub(crate) fn shrink(&mut self, luck: &Luck, body: &[u8], next: u8, cpi: u16) -> Option<&[u8]> {
        let room = body.len().checked_sub(HEADER.saturating_add(1))?;
        if body.len() < WORTH || !luck.tries() {
            return None;
        }
        let deflate =
            self.deflate.get_or_insert_with(|| Box::new(Compress::new(Compression::new(LEVEL), false)));
        deflate.reset();
        self.output.clear();
        self.output.resize(HEADER.saturating_add(room), 0);
        let (header, octets) = self.output.split_first_chunk_mut::<HEADER>()?;
        let [c0, c1] = cpi.to_be_bytes();
        *header = [next, 0, c0, c1];
        let ended = matches!(deflate.compress(body, octets, FlushCompress::Finish), Ok(Status::StreamEnd));
        luck.learn(ended);
        let len = usize::try_from(deflate.total_out()).ok()?.checked_add(HEADER)?;
        if ended { self.output.get(..len) } else { None }
    }

    /// Appends what `octets` stand for to `out`: at most `limit` octets.
    pub(crate) fn grow(&mut self, octets: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), Discard> {
        let inflate = self.inflate.get_or_insert_with(|| Box::new(Decompress::new(false)));
        inflate.reset(false);
        let start = out.len();
        // One octet more than may be: that it is used is how too much is told from just enough.
        out.resize(start.saturating_add(limit).saturating_add(1), 0);
        let room = out.get_mut(start..).ok_or(Discard::Internal)?;
        let ended = match inflate.decompress(octets, room, FlushDecompress::Finish) {
            Ok(Status::StreamEnd) => true,
            Ok(Status::Ok | Status::BufError) => false,
            Err(_) => {
                out.truncate(start);
                return Err(Discard::BadCompression);
            }
        };
        let grown = usize::try_from(inflate.total_out()).unwrap_or(usize::MAX);
        let verdict = match (ended, grown > limit) {
            (_, true) => Err(Discard::Bomb),
            (true, false) => Ok(()),
            // The input ended before the stream did.
            (false, false) => Err(Discard::BadCompression),
        };
        out.truncate(if verdict.is_ok() { start.saturating_add(grown) } else { start });
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shrinks_comes_back_and_what_does_not_stays() {
        let (mut codec, luck) = (Codec::default(), Luck::default());
        let body: Vec<u8> = (0..1400).map(|n| (n / 32) as u8).collect();
        let small = codec.shrink(&luck, &body, 6, 0x5678).unwrap().to_vec();
        assert!(small.len() < 300);
        assert_eq!(header(&small), Some((6, 0x5678)));
        let mut out = vec![9; 3];
        codec.grow(&small[HEADER..], &mut out, 1400).unwrap();
        assert_eq!((&out[..3], &out[3..]), (&[9; 3][..], &body[..]));
        let noise: Vec<u8> = (0..1400_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert!(codec.shrink(&luck, &noise, 6, 1).is_none_or(|small| small.len() < noise.len()));
        assert_eq!(codec.shrink(&luck, &body[..WORTH - 1], 6, 1), None);
    }

    #[test]
    fn a_bomb_is_a_refusal_and_leaves_nothing() {
        let (mut codec, luck) = (Codec::default(), Luck::default());
        let body = vec![0; 65_000];
        let small = codec.shrink(&luck, &body, 4, 1).unwrap().to_vec();
        assert!(small.len() < 200, "{}", small.len());
        let mut out = vec![1, 2];
        assert_eq!(codec.grow(&small[HEADER..], &mut out, 64_999), Err(Discard::Bomb));
        assert_eq!(out, [1, 2]);
        assert_eq!(codec.grow(&small[HEADER..], &mut out, 65_000), Ok(()));
        out.truncate(2);
        for bad in [&small[HEADER..small.len() - 3], &[0xff; 40], &[]] {
            assert_eq!(codec.grow(bad, &mut out, 65_000), Err(Discard::BadCompression));
            assert_eq!(out, [1, 2]);
        }
    }

    #[test]
    fn packets_that_do_not_shrink_are_tried_ever_less() {
        let luck = Luck::default();
        let mut tried = String::new();
        for _ in 0..40 {
            let tries = luck.tries();
            tried.push(if tries { 't' } else { '-' });
            if tries {
                luck.learn(false);
            }
        }
        assert_eq!(tried, format!("tttttttt----tt--------tt--------tt------"));
        while !luck.tries() {}
        luck.learn(true);
        assert!((0..8).all(|_| {
            let tries = luck.tries();
            luck.learn(false);
            tries
        }));
    }
}
