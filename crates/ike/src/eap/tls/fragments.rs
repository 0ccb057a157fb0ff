//! TLS in EAP packets (RFC 5216 §2.1.5, §3): flags, lengths, and messages in pieces, each piece acknowledged.

use crate::wire::{Reader, Writer};

/// The length of the whole message goes before this piece.
const LENGTH: u8 = 0x80;
/// There are more pieces.
const MORE: u8 = 0x40;
/// The server begins.
const START: u8 = 0x20;

/// Octets of TLS in one packet: it goes in one datagram of IKE, without fragmentation there.
pub const PIECE: usize = 1100;
/// The longest message of TLS that is put together: more than the certificates that any peer can have.
pub const LONGEST: usize = 64 * 1024;

/// What a packet came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The server begins.
    Start,
    /// What the other side has said, as a whole; nothing, if it has nothing to say.
    Message(Vec<u8>),
    /// This is to be sent: the next piece of ours, or that we have had a piece of theirs.
    Reply(Vec<u8>),
}

/// Both directions of one conversation. It is a dialogue: nobody speaks before the other has finished.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// What of our message has not been sent yet.
    left: Vec<u8>,
    /// The pieces of the other side's message so far, and how long it says that the whole is.
    pieces: Vec<u8>,
    whole: Option<usize>,
}

impl Line {
    /// What the server begins with.
    pub fn start() -> Vec<u8> {
        vec![START]
    }

    /// Octets that are kept of both sides' messages.
    pub fn held(&self) -> usize {
        self.left.capacity().saturating_add(self.pieces.capacity())
    }

    /// Says something: this is to be sent, and what is left of it when it is asked for.
    pub fn send(&mut self, message: Vec<u8>) -> Vec<u8> {
        let whole = Some(message.len()).filter(|octets| *octets > PIECE);
        self.left = message;
        self.piece(whole)
    }

    /// The next piece; the first of several says how long the whole is.
    fn piece(&mut self, whole: Option<usize>) -> Vec<u8> {
        let later = self.left.split_off(self.left.len().min(PIECE));
        let piece = core::mem::replace(&mut self.left, later);
        let whole = whole.and_then(|octets| u32::try_from(octets).ok());
        let more = if self.left.is_empty() { 0 } else { MORE };
        let mut w = Writer::with_capacity(piece.len().saturating_add(5));
        w.u8(more | whole.map_or(0, |_| LENGTH));
        whole.into_iter().for_each(|whole| w.u32(whole));
        w.put(&piece);
        w.into_octets()
    }

    /// Takes the data of a packet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(&mut self, data: &[u8]) -> Result<Taken, &'static str> {
        let mut r = Reader::new(data);
        let flags = r.u8("").map_err(|_| "its EAP-TLS packet has no flags")?;
        let whole = if flags & LENGTH == 0 {
            None
        } else {
            let octets = r.u32("").map_err(|_| "its EAP-TLS packet is cut")?;
            Some(usize::try_from(octets).unwrap_or(usize::MAX))
        };
        let piece = r.rest();
        if !self.left.is_empty() {
            // It has had a piece, and has nothing to say before it has had them all.
            return if flags & (LENGTH | MORE | START) == 0 && piece.is_empty() {
                Ok(Taken::Reply(self.piece(None)))
            } else {
                Err("it speaks before it has heard all of an EAP-TLS message")
            };
        }
        let first = self.pieces.is_empty();
        if flags & START != 0 {
            let alone = first && flags & (LENGTH | MORE) == 0 && piece.is_empty();
            return if alone {
                Ok(Taken::Start)
            } else {
                Err("it begins EAP-TLS in the middle of a message")
            };
        }
        if first {
            self.whole = whole;
        } else if whole.is_some_and(|whole| self.whole != Some(whole)) {
            return Err("the pieces of its EAP-TLS message say different lengths of the whole");
        }
        let more = flags & MORE != 0;
        let so_far = self.pieces.len().saturating_add(piece.len());
        let most = self.whole.unwrap_or(LONGEST);
        if so_far > LONGEST || most > LONGEST {
            return Err("its EAP-TLS message is longer than any honest one");
        }
        // Each piece must bring it nearer to its end.
        if more && (self.whole.is_none() || piece.is_empty() || so_far >= most) || so_far > most {
            return Err("the pieces of its EAP-TLS message are not what it says the whole is");
        }
        self.pieces.extend_from_slice(piece);
        if more {
            return Ok(Taken::Reply(vec![0]));
        }
        if self.whole.take().is_some_and(|whole| whole != so_far) {
            return Err("its EAP-TLS message ends before its end");
        }
        Ok(Taken::Message(core::mem::take(&mut self.pieces)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a message over a line, and says in how many packets.
    fn carry(message: &[u8]) -> (Vec<u8>, usize) {
        let (mut here, mut there) = (Line::default(), Line::default());
        let mut packet = here.send(message.to_vec());
        for packets in 1.. {
            assert!(packet.len() <= PIECE + 5);
            match there.take(&packet).unwrap() {
                Taken::Message(whole) => return (whole, packets),
                Taken::Reply(heard) => {
                    assert_eq!(heard, [0]);
                    let Ok(Taken::Reply(next)) = here.take(&heard) else { panic!() };
                    packet = next;
                }
                Taken::Start => panic!(),
            }
        }
        unreachable!()
    }

    #[test]
    fn a_message_of_any_length_comes_over_in_pieces() {
        for octets in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1, LONGEST] {
            let message: Vec<u8> = (0..octets).map(|n| n as u8).collect();
            let (whole, packets) = carry(&message);
            assert!(whole == message, "{octets}");
            assert_eq!(packets, octets.div_ceil(PIECE).max(1));
        }
        assert_eq!(Line::default().take(&Line::start()), Ok(Taken::Start));
        // Others say the length of whole messages, too, or with each piece, and set bits that mean nothing.
        assert_eq!(Line::default().take(&[0x9f, 0, 0, 0, 2, 7, 8]), Ok(Taken::Message(vec![7, 8])));
        let mut line = Line::default();
        assert_eq!(line.take(&[0xc0, 0, 0, 0, 3, 7, 8]), Ok(Taken::Reply(vec![0])));
        assert_eq!(line.take(&[0x80, 0, 0, 0, 3, 9]), Ok(Taken::Message(vec![7, 8, 9])));
        assert_eq!(line.take(&[0, 1]), Ok(Taken::Message(vec![1])));
    }

    #[test]
    fn pieces_that_claim_too_much_bring_nothing_or_do_not_fit_are_refused() {
        let longer = u32::try_from(LONGEST + 1).unwrap().to_be_bytes();
        let [a, b, c, d] = longer;
        for bad in [
            &[][..],
            &[0x80],
            &[0x80, 0, 0, 0],
            // Longer than what it says, shorter, and as long with more to come.
            &[0x80, 0, 0, 0, 1, 7, 8],
            &[0x80, 0, 0, 0, 3, 7, 8],
            &[0xc0, 0, 0, 0, 2, 7, 8],
            &[0xc0, 0, 0, 0, 1, 7, 8],
            // A first piece that does not say how long the whole is, and ones with nothing in them.
            &[0x40, 7],
            &[0x40],
            &[0xc0, 0, 0, 0, 2],
            &[0x80, a, b, c, d, 7],
            &[0xc0, a, b, c, d, 7],
            &[0xc0, 0xff, 0xff, 0xff, 0xff, 7],
            // A beginning with more than that.
            &[0x20, 7],
            &[0x60],
            &[0xa0, 0, 0, 0, 0],
        ] {
            assert!(Line::default().take(bad).is_err(), "{bad:?}");
        }
        let begun = || {
            let mut line = Line::default();
            assert_eq!(line.take(&[0xc0, 0, 0, 0, 4, 7, 8]), Ok(Taken::Reply(vec![0])));
            line
        };
        for bad in [&[0x20][..], &[0xc0, 0, 0, 0, 5, 9], &[0x40], &[0x40, 9, 9], &[0, 9], &[0, 9, 9, 9], &[0]]
        {
            assert!(begun().take(bad).is_err(), "{bad:?}");
        }
        assert_eq!(begun().take(&[0, 9, 9]), Ok(Taken::Message(vec![7, 8, 9, 9])));
        // Who has not heard all has nothing to say.
        let speaking = || {
            let mut line = Line::default();
            line.send(vec![1; PIECE + 1]);
            line
        };
        assert!(matches!(speaking().take(&[0]), Ok(Taken::Reply(_))));
        for bad in [&[0, 1][..], &[0x20], &[0x40], &[0x80, 0, 0, 0, 0]] {
            assert!(speaking().take(bad).is_err(), "{bad:?}");
        }
    }
}
