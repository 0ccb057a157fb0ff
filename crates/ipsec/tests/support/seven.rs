//! One socket of every kind, as the table of pf_key(7P) (`crates/klips/tests/pfkey_cases`) wants them, on a daemon that runs.
//!
//! That a socket hears *nothing* is known without waiting: it asks something itself, and whatever was meant for it
//! before comes before that answer.

use crate::pfkey_cases::{SOCKETS, aging, introduction, setup};
use crate::pfkey_support::*;
use ipsec::host::clock;
use ipsec_core::Time;
use std::time::Duration;

const DUMPFLOWS: u8 = 132;
const FLUSHFLOWS: u8 = 131;
/// The sequence numbers of questions that only find out whether anything else was said.
pub(crate) const FENCE: u32 = 0xfe40_0000;

/// One PF_KEY socket, however it is reached.
pub(crate) trait Talk {
    fn send(&self, octets: &[u8]);

    fn receive(&self) -> Heard;

    /// What was said to it before the answer to a question that nobody else asks.
    fn until_fence(&self) -> Vec<Heard>;

    /// From now on it hears nothing, or again what it hears otherwise.
    fn deafen(&self, deaf: bool);

    /// Sends a message and returns its answer, whatever else is said meanwhile.
    fn ask(&self, message: Msg) -> Heard {
        let kind = message.octets[1];
        self.send(&message.done());
        loop {
            let heard = self.receive();
            if heard.kind == kind {
                return heard;
            }
        }
    }

    /// Sends a message that must succeed.
    fn must(&self, message: Msg) -> Heard {
        let heard = self.ask(message);
        assert_eq!((heard.errno, heard.diagnostic), (0, 0), "{heard:?}");
        heard
    }
}

/// The sockets of one case.
pub(crate) struct Seven<S> {
    sockets: Vec<(char, S)>,
    /// When the SAs that age had aged.
    aged: Option<Time>,
    dumping: Option<(char, u8)>,
}

impl<S> Default for Seven<S> {
    fn default() -> Self {
        Self { sockets: Vec::new(), aged: None, dumping: None }
    }
}

impl<S: Talk> Seven<S> {
    pub(crate) fn socket(&self, letter: char) -> &S {
        &self.sockets.iter().find(|(l, _)| *l == letter).expect("letter").1
    }

    /// Opens them anew, with the SAs that every case begins with.
    pub(crate) fn begin(&mut self, aged: bool, open: impl Fn() -> S) {
        self.sockets.clear();
        let s = open();
        // The dead one is there to be seen for a second.
        let still = self.aged.filter(|at| aged && clock::now().since(*at) < Duration::from_millis(600));
        if still.is_none() {
            s.must(msg(FLUSH, 0));
            s.must(msg(FLUSHFLOWS, 0));
            if aged {
                aging().into_iter().for_each(|message| drop(s.must(message)));
                (0..2).for_each(|_| assert_eq!(s.receive().kind, EXPIRE));
            }
            self.aged = aged.then(clock::now);
            setup().into_iter().for_each(|message| drop(s.must(message)));
        }
        self.sockets.push(('s', s));
        for letter in &SOCKETS[1..] {
            let socket = open();
            if let Some(message) = introduction(*letter) {
                socket.must(message);
            }
            self.sockets.push((*letter, socket));
        }
        self.socket('d').deafen(true);
        self.hear();
    }

    pub(crate) fn send(&mut self, from: char, octets: &[u8]) {
        self.dumping = Some((from, octets[1])).filter(|(_, kind)| [DUMP, DUMPFLOWS].contains(kind));
        self.socket(from).send(octets);
    }

    pub(crate) fn hear(&mut self) -> Vec<(char, Vec<Heard>)> {
        let dumping = self.dumping.take();
        let hear = |(letter, socket): &(char, S)| {
            let mut all = Vec::new();
            // Other messages and a DUMP take turns: the end of the DUMP comes first.
            if let Some((_, kind)) = dumping.filter(|(from, _)| from == letter) {
                loop {
                    let heard = socket.receive();
                    let end = heard.kind == kind && heard.octets.len() == 16;
                    all.push(heard);
                    if end {
                        break;
                    }
                }
            }
            // To ask is to hear again.
            if *letter == 'd' {
                socket.deafen(false);
            }
            all.extend(socket.until_fence());
            if *letter == 'd' {
                socket.deafen(true);
            }
            (*letter, all)
        };
        let heard = self.sockets.iter().map(hear).collect();
        // The promiscuous one has heard the others' questions, too.
        self.socket('p').until_fence();
        heard
    }
}
