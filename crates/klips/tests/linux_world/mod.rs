//! Programs that speak the dialect of Linux, each on a socket of its own, with the real service below.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use crate::pfkey_support::{AH, ESP, Heard, Msg, REGISTER, Service, msg};
use klips::SocketId;
use pfkey::dialect::{Dialect, Translator, Turn};

/// `SADB_X_SATYPE_IPCOMP` of `linux/pfkeyv2.h`.
pub(crate) const IPCOMP: u8 = 9;

/// A program and the translation of its socket.
struct Program {
    socket: SocketId,
    translator: Box<dyn Translator>,
}

/// One that asks, one that only listens, one that has registered for AH, ESP and IPComp.
pub(crate) struct World {
    pub(crate) service: Service,
    programs: Vec<Program>,
}

pub(crate) const ASKS: usize = 0;
pub(crate) const LISTENS: usize = 1;
pub(crate) const REGISTERED: usize = 2;

impl World {
    pub(crate) fn new() -> Self {
        let mut service = Service::default();
        let mut open =
            || Program { socket: service.open(), translator: Dialect::Linux.translator().expect("one") };
        let programs = vec![open(), open(), open()];
        let mut world = Self { service, programs };
        for satype in [AH, ESP, IPCOMP] {
            let heard = world.ask(REGISTERED, msg(REGISTER, satype));
            assert_eq!(heard[0].errno, 0);
        }
        world.hear(ASKS);
        world.hear(LISTENS);
        world
    }

    fn act(&mut self, n: usize, turn: Turn, heard: &mut Vec<Heard>) {
        let socket = self.programs[n].socket;
        turn.ask.iter().for_each(|ask| self.service.control.request(socket, ask, self.service.now));
        heard.extend(turn.say.iter().map(|record| Heard::new(record.to_vec())));
    }

    /// All that a program has to hear now.
    pub(crate) fn hear(&mut self, n: usize) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some(notice) = self.service.control.notice(self.programs[n].socket, self.service.now) {
            let turn = self.programs[n].translator.notice(&notice);
            self.act(n, turn, &mut heard);
        }
        heard
    }

    /// What a program hears once it has sent this.
    pub(crate) fn ask(&mut self, n: usize, message: Msg) -> Vec<Heard> {
        self.ask_octets(n, &message.done())
    }

    pub(crate) fn ask_octets(&mut self, n: usize, octets: &[u8]) -> Vec<Heard> {
        let turn = self.programs[n].translator.request(octets);
        let mut heard = Vec::new();
        self.act(n, turn, &mut heard);
        heard.extend(self.hear(n));
        heard
    }

    /// The one answer, which is no refusal.
    #[track_caller]
    pub(crate) fn must(&mut self, message: Msg) -> Heard {
        let kind = message.octets[1];
        let heard = self.ask(ASKS, message);
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!((heard[0].kind, heard[0].errno), (kind, 0), "{heard:?}");
        heard[0].clone()
    }
}
