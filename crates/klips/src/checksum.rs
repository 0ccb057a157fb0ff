//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// A sum of 16-bit words in network order, not yet folded.
///
/// The sum is taken over 32-bit native words in independent lanes, which the compiler turns into vector code; the
/// ones' complement sum does not care about byte order or word size (RFC 1071 §2).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds octets that begin at an even offset of what is summed.
    #[inline]
    #[must_use]
    pub(crate) fn octets(self, octets: &[u8]) -> Self {
        let mut lanes = [0_u64; 8];
        let (chunks, rest) = octets.as_chunks::<32>();
        for chunk in chunks {
            let (words, _) = chunk.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                // Eight lanes of 2^32 words each: more than any packet has.
                *lane = lane.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
            }
        }
        let mut sum = lanes.iter().fold(self.0, |sum, lane| sum.wrapping_add(*lane));
        let (words, tail) = rest.as_chunks::<4>();
        for word in words {
            sum = sum.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
        let mut last = [0_u8; 4];
        for (to, from) in last.iter_mut().zip(tail) {
            *to = *from;
        }
        Self(sum.wrapping_add(u64::from(u32::from_ne_bytes(last))))
    }

    /// Adds one 16-bit word.
    #[inline]
    #[must_use]
    pub(crate) const fn word(self, word: u16) -> Self {
        Self(self.0.wrapping_add(u16::from_ne_bytes(word.to_be_bytes()) as u64))
    }

    /// The sum folded to 16 bits, host order; all ones over data that carries a right checksum.
    #[inline]
    pub(crate) const fn folded(self) -> u16 {
        let mut sum = self.0;
        sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
        sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
        u16::from_be_bytes((sum as u16).to_ne_bytes())
    }

    /// The checksum: the complement of the folded sum, host order.
    #[inline]
    pub(crate) const fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// The pseudo-header of TCP and UDP: addresses (8 or 32 octets), protocol and length (RFC 9293 §3.1, RFC 8200 §8.1).
#[inline]
pub(crate) fn pseudo(addresses: &[u8], proto: u8, len: usize) -> Sum {
    let len = len as u32;
    Sum::default().octets(addresses).word(u16::from(proto)).word((len >> 16) as u16).word(len as u16)
}

/// The checksum after one word of what it covers changed from `old` to `new` (RFC 1624 eqn. 3).
#[inline]
pub(crate) const fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::word(Sum::word(Sum::word(Sum(0), !checksum), !old), new).checksum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, as slow and plain as it stands there.
    fn plain(octets: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in octets.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 1071 §3: 00 01 f2 03 f4 f5 f6 f7 sum to ddf2.
        assert_eq!(Sum::default().octets(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]).folded(), 0xddf2);
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_sum(octets in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(Sum::default().octets(&octets).checksum(), plain(&octets));
        }

        #[test]
        fn an_update_is_as_good_as_a_new_sum(octets in prop::collection::vec(any::<u8>(), 2..100), at: prop::sample::Index,
                                             new: u16) {
            let mut octets = octets;
            octets.truncate(octets.len() & !1);
            let at = at.index(octets.len() / 2) * 2;
            let old = u16::from_be_bytes([octets[at], octets[at + 1]]);
            let before = plain(&octets);
            octets[at..at + 2].copy_from_slice(&new.to_be_bytes());
            // Zero has two forms in ones' complement; a receiver takes either.
            let got = updated(before, old, new);
            let want = plain(&octets);
            prop_assert!(got == want || (got | want == 0xffff && got & want == 0));
        }
    }
}
