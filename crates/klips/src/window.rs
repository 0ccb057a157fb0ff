//! The anti-replay window (RFC 4303 §3.4.3, Appendix A; a ring of words as in RFC 6479).
//!
//! Verification has two stages and the window keeps them apart by type. [`Window::check`] only looks, and is cheap enough
//! to run before any cryptography. [`Window::advance`] changes the window and asks for an [`Verified`] packet, which
//! exists only once an ICV has been verified. A forged packet can therefore never push a genuine one out of the window.
//!
//! The number `n` has the bit `n mod width` of the ring. A bit left of the window is stale, and is cleared before the right
//! edge passes over it.

use crate::discard::Discard;
use crate::open::Verified;

/// What has been received of one SA's 64-bit sequence numbers, down from the highest.
#[derive(Debug)]
pub(crate) struct Window {
    /// The highest number authenticated so far; 0 before the first.
    right: u64,
    /// A power of two.
    width: u64,
    ring: Box<[u64]>,
}

impl Window {
    /// A window `width` packets wide; rounded up to a power of two from 32 to 4096.
    pub(crate) fn new(width: u32) -> Self {
        let width = width.clamp(32, 4096).next_power_of_two();
        Self { right: 0, width: width.into(), ring: vec![0; width.div_ceil(64) as usize].into() }
    }

    /// The highest number authenticated so far; 0 before the first.
    pub(crate) const fn right(&self) -> u64 {
        self.right
    }

    /// Takes every number up to `last` for seen. Never moves the window back.
    pub(crate) fn skip_to(&mut self, last: u64) {
        if last > self.right {
            self.right = last;
            self.ring.fill(u64::MAX);
        }
    }

    /// The high half that a packet's low half belongs to (RFC 4303 Appendix A2.2): the one that puts it inside the window
    /// or, failing that, ahead of it. `None` where there is no such number: before the first or after the last.
    pub(crate) const fn infer(&self, low: u32) -> Option<u32> {
        let (top_high, top_low) = ((self.right >> 32) as u32, self.right as u32);
        let reach = (self.width as u32).saturating_sub(1);
        let inside = low >= top_low.wrapping_sub(reach);
        if top_low >= reach {
            // The window lies within one cycle of the low half (case A).
            if inside { Some(top_high) } else { top_high.checked_add(1) }
        } else {
            // It began in the cycle before (case B).
            if inside { top_high.checked_sub(1) } else { Some(top_high) }
        }
    }

    /// Says whether `seq` could be accepted, without recording it.
    pub(crate) fn check(&self, seq: u64) -> Result<(), Discard> {
        // The sender's first packet carries 1 (RFC 4303 §3.3.3), so 0 is never a number we have yet to see.
        if seq == 0 {
            return Err(Discard::ReplayOld);
        }
        let Some(age) = self.right.checked_sub(seq) else {
            return Ok(());
        };
        if age >= self.width {
            return Err(Discard::ReplayOld);
        }
        let (word, bit) = self.place(seq);
        match self.ring.get(word) {
            Some(seen) if seen & bit == 0 => Ok(()),
            Some(_) => Err(Discard::Replayed),
            None => Err(Discard::Internal),
        }
    }

    /// Records an authentic packet, unless its number has been seen or passed since it was checked: by another worker,
    /// or earlier in the same batch.
    ///
    //= https://www.rfc-editor.org/rfc/rfc4303#section-3.4.3
    //# The receive window is updated only if the integrity verification succeeds.
    pub(crate) fn advance(&mut self, packet: &Verified) -> Result<(), Discard> {
        let seq = packet.seq();
        self.check(seq)?;
        if seq > self.right {
            self.forget_up_to(seq);
            self.right = seq;
        }
        let (word, bit) = self.place(seq);
        if let Some(seen) = self.ring.get_mut(word) {
            *seen |= bit;
        }
        Ok(())
    }

    /// Clears the bits of the numbers after the right edge, up to `seq`.
    fn forget_up_to(&mut self, seq: u64) {
        if seq.saturating_sub(self.right) >= self.width {
            self.ring.fill(0);
            return;
        }
        let unit = self.width.min(64);
        let mut at = self.right.saturating_add(1);
        while at <= seq {
            let (word, bit) = self.place(at);
            // As many bits as are left in this word, or before the new edge.
            let left_in_word = unit.saturating_sub(at & unit.saturating_sub(1));
            let span = left_in_word.min(seq.saturating_sub(at).saturating_add(1));
            let ones = u64::MAX.checked_shr(64_u32.saturating_sub(span as u32)).unwrap_or(0);
            if let Some(seen) = self.ring.get_mut(word) {
                *seen &= !ones.wrapping_mul(bit);
            }
            let Some(next) = at.checked_add(span) else { return };
            at = next;
        }
    }

    /// The word and the bit that stand for `seq`.
    const fn place(&self, seq: u64) -> (usize, u64) {
        let position = seq & self.width.saturating_sub(1);
        ((position >> 6) as usize, 1_u64.wrapping_shl(position as u32 & 63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn accept(window: &mut Window, seq: u64) -> Result<(), Discard> {
        window.advance(&Verified::for_test(seq))
    }

    /// A generator whose sequence is the same on every machine.
    struct Lcg(u64);

    impl Lcg {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 33
        }
    }

    /// The obvious model: remember everything, forget nothing.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
        top: u64,
    }

    impl Model {
        fn judge(&self, seq: u64, width: u64) -> Result<(), Discard> {
            if seq == 0 || u128::from(seq) + u128::from(width) <= u128::from(self.top) {
                Err(Discard::ReplayOld)
            } else if self.seen.contains(&seq) {
                Err(Discard::Replayed)
            } else {
                Ok(())
            }
        }

        /// By search: the candidate inside the window, or else the lowest one ahead of it.
        fn infer(&self, low: u32, width: u64) -> Option<u32> {
            let left = i128::from(self.top) - i128::from(width) + 1;
            let top_high = i128::from(self.top >> 32);
            (-1..=1)
                .map(|step| (top_high + step) << 32 | i128::from(low))
                .find(|number| *number >= left)
                .and_then(|number| u64::try_from(number).ok())
                .map(|number| (number >> 32) as u32)
        }
    }

    /// A step from the right edge: mostly within the window, at its two edges, or far beyond its width.
    fn step(random: &mut Lcg, width: u64) -> i64 {
        let width = width as i64;
        match random.next() % 16 {
            0..=5 => 1 + (random.next() % 3) as i64,
            6..=9 => -((random.next() % (2 * width as u64)) as i64),
            10 => width + (random.next() % 5) as i64 - 2,
            11 => -width + (random.next() % 5) as i64 - 2,
            12 => (random.next() % (4 * width as u64)) as i64,
            13 => 63 + (random.next() % 4) as i64,
            14 => (random.next() % 100_000) as i64,
            _ => 0,
        }
    }

    #[test]
    fn agrees_with_a_set_that_forgets_nothing() {
        let mut random = Lcg(7);
        for round in 0..1_500_u64 {
            let asked = [1, 32, 33, 64, 100, 128, 1024, 4095, 4096][(round % 9) as usize];
            let mut window = Window::new(asked);
            let width = window.width;
            assert!(width >= asked.into());
            let mut model = Model::default();
            // From the beginning, just below 2^32, and in the last cycle.
            let start = [0, (1 << 32) - 200, u64::MAX - 500_000][(round / 9 % 3) as usize];
            if start > 0 {
                accept(&mut window, start).unwrap();
                (model.top, _) = (start, model.seen.insert(start));
            }
            for _ in 0..300 {
                let seq = model.top.saturating_add_signed(step(&mut random, width));
                let expected = model.judge(seq, width);
                assert_eq!(window.check(seq), expected, "seq {seq}, right {}, width {width}", model.top);
                assert_eq!(accept(&mut window, seq), expected, "advance {seq}, right {}", model.top);
                if expected.is_ok() {
                    model.seen.insert(seq);
                    model.top = model.top.max(seq);
                }
                assert_eq!(window.right, model.top);
            }
        }
    }

    #[test]
    fn infers_the_high_half_as_a_search_does() {
        let mut random = Lcg(11);
        for round in 0..4_000_u64 {
            let mut window = Window::new([32, 64, 1024, 4096][(round % 4) as usize]);
            let width = window.width;
            let cycle = [0, 1, 2, 77, u64::from(u32::MAX)][(round / 4 % 5) as usize] << 32;
            // Right edges at both ends of a cycle, where the window may span two, and anywhere within.
            let right = match random.next() % 4 {
                0 => cycle + random.next() % (2 * width),
                1 => cycle + u64::from(u32::MAX) - random.next() % (2 * width),
                2 => cycle + width - 2 + random.next() % 3,
                _ => cycle + (random.next() << 1 & u64::from(u32::MAX)),
            };
            if right == 0 {
                continue;
            }
            accept(&mut window, right).unwrap();
            let model = Model { top: right, ..Model::default() };
            for offset in
                (0..2 * width).step_by(7).chain(width - 3..width + 3).chain([1 << 31, (1 << 32) - 1])
            {
                for low in
                    [(right as u32).wrapping_sub(offset as u32), (right as u32).wrapping_add(offset as u32)]
                {
                    assert_eq!(window.infer(low), model.infer(low, width), "low {low:#x}, right {right:#x}");
                }
            }
        }
    }

    #[test]
    fn every_sender_in_step_is_understood_across_2_to_the_32() {
        let mut window = Window::new(64);
        for seq in (1_u64 << 32) - 1_000..(1 << 32) + 1_000 {
            let high = window.infer(seq as u32).unwrap();
            assert_eq!(u64::from(high) << 32 | u64::from(seq as u32), seq);
            accept(&mut window, seq).unwrap();
            // A straggler from 40 numbers ago is still placed where it belongs, and known.
            let old = seq - 40;
            let high = window.infer(old as u32).unwrap();
            assert_eq!(u64::from(high) << 32 | u64::from(old as u32), old);
        }
    }

    #[test]
    fn a_low_half_from_before_the_first_packet_is_no_number() {
        let window = Window::new(64);
        assert_eq!(window.infer(u32::MAX), None);
        assert_eq!(window.infer(u32::MAX - 62), None);
        assert_eq!(window.infer(u32::MAX - 63), Some(0));
    }

    #[test]
    fn a_window_that_was_saved_takes_nothing_from_before() {
        for width in [32, 64, 1024] {
            let mut window = Window::new(width);
            accept(&mut window, 7).unwrap();
            window.skip_to(5_000);
            assert_eq!(accept(&mut window, 5_000), Err(Discard::Replayed));
            assert_eq!(accept(&mut window, 4_990), Err(Discard::Replayed));
            assert_eq!(accept(&mut window, 5_000 - u64::from(width)), Err(Discard::ReplayOld));
            // A later message does not move it back.
            window.skip_to(20);
            assert_eq!(accept(&mut window, 4_999), Err(Discard::Replayed));
            assert_eq!(accept(&mut window, 5_002), Ok(()));
            assert_eq!(accept(&mut window, 5_001), Ok(()));
            assert_eq!(accept(&mut window, 5_001), Err(Discard::Replayed));
        }
    }

    #[test]
    fn checking_changes_nothing() {
        let mut window = Window::new(64);
        accept(&mut window, 100).unwrap();
        for seq in [1, 37, 99, 100, 101, 1 << 40] {
            let _ = window.check(seq);
        }
        assert_eq!(window.right, 100);
        assert_eq!(window.check(99), Ok(()));
    }

    #[test]
    fn of_two_workers_with_one_number_the_second_is_refused() {
        let mut window = Window::new(64);
        assert_eq!((window.check(5), window.check(5)), (Ok(()), Ok(())));
        assert_eq!(accept(&mut window, 5), Ok(()));
        assert_eq!(accept(&mut window, 5), Err(Discard::Replayed));
    }

    #[test]
    fn zero_is_never_a_number() {
        let mut window = Window::new(64);
        assert_eq!(window.check(0), Err(Discard::ReplayOld));
        assert_eq!(accept(&mut window, 0), Err(Discard::ReplayOld));
    }
}
