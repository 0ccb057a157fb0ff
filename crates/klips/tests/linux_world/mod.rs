//! Programs that speak the dialect of Linux, each on a socket of its own, with the real service below.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use crate::pfkey_support::{AH, DST, ESP, Heard, Msg, RANGE, REGISTER, SRC, Service, msg, sockaddr};
use klips::SocketId;
use pfkey::dialect::{Dialect, Translator, Turn};

/// `SADB_X_SATYPE_IPCOMP` of `linux/pfkeyv2.h`.
pub(crate) const IPCOMP: u8 = 9;
pub(crate) const SPDADD: u8 = 14;
pub(crate) const SPDDUMP: u8 = 18;
pub(crate) const POLICY: u16 = 18;
pub(crate) const SA2: u16 = 19;
/// `IPSEC_DIR_*`.
pub(crate) const IN: u8 = 1;
pub(crate) const OUT: u8 = 2;
pub(crate) const FWD: u8 = 3;

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
        Self::of(Service::default())
    }

    pub(crate) fn of(mut service: Service) -> Self {
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

/// Source and destination as this dialect writes hosts.
pub(crate) trait Linux {
    fn ends(self, src: &str, dst: &str) -> Self;
    fn sa2(self, mode: u8, reqid: u32) -> Self;
    fn spis(self, min: u32, max: u32) -> Self;
    fn policy(self, kind: u16, direction: u8, priority: u32, requests: &[u8]) -> Self;
    fn numbered(self, index: u32) -> Self;
    fn selector(self, proto: u8, prefix: u8) -> Self;
}

impl Linux for Msg {
    fn ends(self, src: &str, dst: &str) -> Self {
        let whole = |ip: &str| if ip.contains(':') { 128 } else { 32 };
        self.addr_full(SRC, src, 0, 0, whole(src)).addr_full(DST, dst, 0, 0, whole(dst))
    }

    fn sa2(self, mode: u8, reqid: u32) -> Self {
        self.ext(SA2, &[&[mode, 0, 0, 0, 0, 0, 0, 0][..], &reqid.to_ne_bytes()].concat())
    }

    /// In host order.
    fn spis(self, min: u32, max: u32) -> Self {
        self.ext(RANGE, &[min.to_ne_bytes(), max.to_ne_bytes(), [0; 4]].concat())
    }

    fn policy(self, kind: u16, direction: u8, priority: u32, requests: &[u8]) -> Self {
        let mut body = kind.to_ne_bytes().to_vec();
        body.extend([direction, 0, 0, 0, 0, 0]);
        body.extend(priority.to_ne_bytes());
        body.extend(requests);
        self.ext(POLICY, &body)
    }

    fn numbered(self, index: u32) -> Self {
        let mut body = vec![0, 0, OUT, 0];
        body.extend(index.to_ne_bytes());
        body.extend([0; 4]);
        self.ext(POLICY, &body)
    }

    fn selector(self, proto: u8, prefix: u8) -> Self {
        let src = self.addr_full(SRC, "10.1.0.0", 0, proto, prefix);
        src.addr_full(DST, "10.2.0.0", 0, proto, prefix)
    }
}

/// `struct sadb_x_ipsecrequest`, with ends where they are named.
pub(crate) fn request(proto: u16, mode: u8, level: u8, reqid: u32, ends: Option<(&str, &str)>) -> Vec<u8> {
    let mut octets = vec![0, 0];
    octets.extend(proto.to_ne_bytes());
    octets.extend([mode, level, 0, 0]);
    octets.extend(reqid.to_ne_bytes());
    octets.extend([0; 4]);
    for ip in ends.into_iter().flat_map(|(src, dst)| [src, dst]) {
        octets.extend(sockaddr(ip, 0));
    }
    octets.resize(octets.len().next_multiple_of(8), 0);
    let len = octets.len() as u16;
    octets[..2].copy_from_slice(&len.to_ne_bytes());
    octets
}
