//! The extension headers of IPv6 (RFC 8200 §4), walked in one place by all who look for what is behind them.

use crate::discard::Discard;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const DESTINATION: u8 = 60;

/// Extension headers walked in one packet; a longer chain is refused (RFC 8504 §5.3 allows a limit).
const MOST: usize = 8;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extension {
    /// Which.
    pub(crate) kind: u8,
    /// Where it begins; its first octet names what follows.
    pub(crate) at: usize,
    /// Where it ends, within the packet.
    pub(crate) end: usize,
    /// What follows.
    pub(crate) next: u8,
}

/// How far a packet has been walked. It borrows nothing, so that who walks may change what it finds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    next: u8,
    at: usize,
    walked: usize,
}

impl Walk {
    /// From the end of the fixed header, which names what follows it.
    #[inline]
    pub(crate) const fn new(next: u8) -> Self {
        Self { next, at: 40, walked: 0 }
    }

    /// What comes next: an IP protocol number.
    #[inline]
    pub(crate) const fn next(&self) -> u8 {
        self.next
    }

    /// Where that begins.
    #[inline]
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// Walks over the next extension header; `None` where something else comes next.
    #[inline]
    pub(crate) fn step(&mut self, packet: &[u8]) -> Result<Option<Extension>, Discard> {
        match self.next {
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION | 135 | 139 | 140 => self.over(packet).map(Some),
            _ => Ok(None),
        }
    }

    #[cold]
    fn over(&mut self, packet: &[u8]) -> Result<Extension, Discard> {
        let rest = packet.get(self.at..).and_then(<[u8]>::first_chunk::<8>).ok_or(Discard::Malformed)?;
        let &[next, words, ..] = rest;
        // Hop-by-hop, routing, destination options, mobility, HIP and shim6 share one shape (RFC 6564); the fragment header
        // has another (RFC 8200 §4.5).
        let words = if self.kind_has_length() { usize::from(words) } else { 0 };
        let end = self.at.saturating_add(words.saturating_add(1).saturating_mul(8));
        if self.walked >= MOST || end > packet.len() {
            return Err(Discard::Malformed);
        }
        let found = Extension { kind: self.next, at: self.at, end, next };
        *self = Self { next, at: end, walked: self.walked.saturating_add(1) };
        Ok(found)
    }

    const fn kind_has_length(&self) -> bool {
        self.next != FRAGMENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with extension headers of these kinds and so many words of eight octets behind their first one.
    fn packet(extensions: &[(u8, u8)]) -> Vec<u8> {
        let kind = |index: usize| extensions.get(index).map_or(17, |(kind, _)| *kind);
        let mut packet = vec![0; 40];
        packet[6] = kind(0);
        for (index, (_, words)) in extensions.iter().enumerate() {
            let begin = packet.len();
            packet.resize(begin + 8 + 8 * usize::from(*words), 0);
            packet[begin..begin + 2].copy_from_slice(&[kind(index + 1), *words]);
        }
        packet
    }

    fn walked(packet: &[u8]) -> Result<(Vec<Extension>, Walk), Discard> {
        let (mut walk, mut all) = (Walk::new(packet[6]), Vec::new());
        while let Some(extension) = walk.step(packet)? {
            all.push(extension);
        }
        Ok((all, walk))
    }

    #[test]
    fn each_is_found_with_its_length_and_what_follows() {
        let packet = packet(&[(0, 0), (43, 2), (60, 1), (135, 0), (139, 0), (140, 3)]);
        let (all, walk) = walked(&packet).unwrap();
        let found: Vec<_> = all.iter().map(|e| (e.kind, e.at, e.end, e.next)).collect();
        let expected = [
            (0, 40, 48, 43),
            (43, 48, 72, 60),
            (60, 72, 88, 135),
            (135, 88, 96, 139),
            (139, 96, 104, 140),
            (140, 104, 136, 17),
        ];
        assert_eq!(found, expected);
        assert_eq!((walk.next(), walk.at()), (17, 136));
        // Nothing is walked where there is none.
        assert_eq!(walked(&self::packet(&[])).unwrap().0, []);
    }

    /// The second octet of a fragment header is reserved, and means no length.
    #[test]
    fn a_fragment_header_is_eight_octets_whatever_it_says() {
        let mut packet = packet(&[(44, 0), (60, 0)]);
        packet[41] = 255;
        let (all, walk) = walked(&packet).unwrap();
        assert_eq!((all.len(), all[0].end, walk.at()), (2, 48, 56));
    }

    #[test]
    fn a_chain_that_is_too_long_or_leaves_the_packet_is_refused() {
        assert_eq!(walked(&packet(&[(60, 0); MOST])).unwrap().0.len(), MOST);
        assert_eq!(walked(&packet(&[(60, 0); MOST + 1])).err(), Some(Discard::Malformed));
        let whole = packet(&[(0, 1), (43, 0), (60, 2)]);
        assert!(walked(&whole).is_ok());
        for len in 40..whole.len() {
            assert_eq!(walked(&whole[..len]).err(), Some(Discard::Malformed), "{len}");
        }
    }
}
