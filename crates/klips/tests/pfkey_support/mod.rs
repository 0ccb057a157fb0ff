//! Messages built octet by octet, and a service with one socket of every kind to hear the answers.
//!
//! The messages are built by hand on purpose: a test that used the codec would not notice the codec's mistakes.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use ipsec_core::Time;
use klips::{Config, Control, Plane, SocketId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub const GETSPI: u8 = 1;
pub const UPDATE: u8 = 2;
pub const ADD: u8 = 3;
pub const DELETE: u8 = 4;
pub const GET: u8 = 5;
pub const ACQUIRE: u8 = 6;
pub const REGISTER: u8 = 7;
pub const EXPIRE: u8 = 8;
pub const FLUSH: u8 = 9;
pub const DUMP: u8 = 10;
pub const PROMISC: u8 = 11;
pub const INVERSE_ACQUIRE: u8 = 12;
pub const UPDATEPAIR: u8 = 13;
pub const DELPAIR: u8 = 14;

pub const AH: u8 = 2;
pub const ESP: u8 = 3;

pub const SA: u16 = 1;
pub const CURRENT: u16 = 2;
pub const HARD: u16 = 3;
pub const SOFT: u16 = 4;
pub const SRC: u16 = 5;
pub const DST: u16 = 6;
pub const INNER_SRC: u16 = 7;
pub const AKEY: u16 = 8;
pub const EKEY: u16 = 9;
pub const ID_SRC: u16 = 10;
pub const ID_DST: u16 = 11;
pub const SENS: u16 = 12;
pub const PROPOSAL: u16 = 13;
pub const SUPPORTED_AUTH: u16 = 14;
pub const SUPPORTED_ENCRYPT: u16 = 15;
pub const RANGE: u16 = 16;
pub const EREG: u16 = 17;
pub const EPROP: u16 = 18;
pub const KMC: u16 = 19;
pub const NATT_LOC: u16 = 20;
pub const NATT_REM: u16 = 21;
pub const INNER_DST: u16 = 22;
pub const PAIR: u16 = 23;
pub const REPLAY: u16 = 24;
pub const EDUMP: u16 = 25;
pub const IDLE: u16 = 26;
pub const OUTER_SENS: u16 = 27;

pub const LARVAL: u8 = 0;
pub const MATURE: u8 = 1;
pub const DYING: u8 = 2;
pub const DEAD: u8 = 3;

pub const F_PFS: u32 = 1;
pub const F_NOREPLAY: u32 = 2;
pub const F_IN: u32 = 0x4000;
pub const F_OUT: u32 = 0x8000;
pub const F_PAIRED: u32 = 0x1_0000;
pub const F_TUNNEL: u32 = 0x2_0000;
pub const F_NATT_REM: u32 = 0x8_0000;
pub const F_NATT_LOC: u32 = 0x10_0000;
pub const F_UNIQUE: u32 = 0x4000_0000;
pub const F_USED: u32 = 0x8000_0000;

/// HMAC-SHA-256.
pub const SHA256: u8 = 5;
pub const MD5: u8 = 2;
pub const NULL: u8 = 11;
pub const AES_CBC: u8 = 12;
pub const TDES: u8 = 3;
pub const GCM16: u8 = 20;

pub const ENOENT: u8 = 2;
pub const ESRCH: u8 = 3;
pub const ENOMEM: u8 = 12;
pub const EBUSY: u8 = 16;
pub const EEXIST: u8 = 17;
pub const EINVAL: u8 = 22;
pub const EMSGSIZE: u8 = 90;
pub const EPROTOTYPE: u8 = 91;
pub const EOPNOTSUPP: u8 = 95;

/// One message on its way to becoming octets.
#[derive(Clone, Debug)]
pub struct Msg {
    pub octets: Vec<u8>,
    /// The length field is set already, to something of the test's choice.
    pub length_set: bool,
}

pub fn msg(kind: u8, satype: u8) -> Msg {
    let mut octets = vec![2, kind, 0, satype, 0, 0, 0, 0];
    octets.extend(7_u32.to_ne_bytes());
    octets.extend(4242_u32.to_ne_bytes());
    Msg { octets, length_set: false }
}

impl Msg {
    pub fn seq(mut self, seq: u32) -> Self {
        self.octets[8..12].copy_from_slice(&seq.to_ne_bytes());
        self
    }

    pub fn errno(mut self, errno: u8) -> Self {
        self.octets[2] = errno;
        self
    }

    pub fn words(mut self, words: u16) -> Self {
        self.octets[4..6].copy_from_slice(&words.to_ne_bytes());
        self.length_set = true;
        self
    }

    /// An extension with this body, padded to whole words.
    pub fn ext(self, kind: u16, body: &[u8]) -> Self {
        let words = (4 + body.len()).div_ceil(8) as u16;
        self.ext_words(kind, words, body)
    }

    /// An extension that says it has so many words.
    pub fn ext_words(mut self, kind: u16, words: u16, body: &[u8]) -> Self {
        self.octets.extend(words.to_ne_bytes());
        self.octets.extend(kind.to_ne_bytes());
        self.octets.extend(body);
        while self.octets.len() % 8 != 0 {
            self.octets.push(0);
        }
        self
    }

    pub fn sa(self, spi: u32) -> Self {
        self.sa_full(spi, 0, MATURE, 0, 0, 0)
    }

    pub fn sa_full(self, spi: u32, replay: u8, state: u8, auth: u8, encrypt: u8, flags: u32) -> Self {
        let mut body = spi.to_be_bytes().to_vec();
        body.extend([replay, state, auth, encrypt]);
        body.extend(flags.to_ne_bytes());
        self.ext(SA, &body)
    }

    pub fn addr(self, kind: u16, ip: &str) -> Self {
        self.addr_full(kind, ip, 0, 0, 0)
    }

    pub fn addr_full(self, kind: u16, ip: &str, port: u16, proto: u8, prefix: u8) -> Self {
        let mut body = vec![proto, prefix, 0, 0];
        body.extend(sockaddr(ip, port));
        self.ext(kind, &body)
    }

    /// An address of a family nobody has heard of.
    pub fn odd_addr(self, kind: u16) -> Self {
        let mut body = vec![0; 4];
        body.extend(77_u16.to_ne_bytes());
        body.extend([0; 14]);
        self.ext(kind, &body)
    }

    pub fn src(self, ip: &str) -> Self {
        self.addr(SRC, ip)
    }

    pub fn dst(self, ip: &str) -> Self {
        self.addr(DST, ip)
    }

    pub fn inner(self, src: &str, dst: &str) -> Self {
        let net = |text: &str| {
            let (ip, prefix) = text.split_once('/').unwrap();
            (ip.to_owned(), prefix.parse().unwrap())
        };
        let (src, src_prefix) = net(src);
        let (dst, dst_prefix) = net(dst);
        self.addr_full(INNER_SRC, &src, 0, 0, src_prefix).addr_full(INNER_DST, &dst, 0, 0, dst_prefix)
    }

    pub fn key(self, kind: u16, octets: usize) -> Self {
        let key: Vec<u8> = (1..=octets as u8).collect();
        self.key_full(kind, octets as u16 * 8, 0, &key)
    }

    pub fn key_full(self, kind: u16, bits: u16, reserved: u16, key: &[u8]) -> Self {
        let mut body = bits.to_ne_bytes().to_vec();
        body.extend(reserved.to_ne_bytes());
        body.extend(key);
        self.ext(kind, &body)
    }

    pub fn lifetime(self, kind: u16, allocations: u32, bytes: u64, addtime: u64, usetime: u64) -> Self {
        let mut body = allocations.to_ne_bytes().to_vec();
        for value in [bytes, addtime, usetime] {
            body.extend(value.to_ne_bytes());
        }
        self.ext(kind, &body)
    }

    pub fn range(self, min: u32, max: u32) -> Self {
        let mut body = min.to_be_bytes().to_vec();
        body.extend(max.to_be_bytes());
        body.extend([0; 4]);
        self.ext(RANGE, &body)
    }

    pub fn ident(self, kind: u16, idtype: u16, text: &str) -> Self {
        let mut body = idtype.to_ne_bytes().to_vec();
        body.extend([0; 10]);
        body.extend(text.as_bytes());
        body.push(0);
        self.ext(kind, &body)
    }

    pub fn kmc(self, proto: u32, cookie: u64) -> Self {
        let mut body = proto.to_ne_bytes().to_vec();
        body.extend(cookie.to_ne_bytes());
        self.ext(KMC, &body)
    }

    pub fn pair(self, spi: u32) -> Self {
        self.ext(PAIR, &spi.to_be_bytes())
    }

    pub fn replay(self, low: u32, high: u64) -> Self {
        let mut body = low.to_ne_bytes().to_vec();
        body.extend(high.to_ne_bytes());
        self.ext(REPLAY, &body)
    }

    pub fn edump(self, secs: u64) -> Self {
        let mut body = vec![0; 4];
        body.extend(secs.to_ne_bytes());
        self.ext(EDUMP, &body)
    }

    pub fn done(mut self) -> Vec<u8> {
        if !self.length_set {
            let words = (self.octets.len() / 8) as u16;
            self.octets[4..6].copy_from_slice(&words.to_ne_bytes());
        }
        self.octets
    }
}

pub fn sockaddr(ip: &str, port: u16) -> Vec<u8> {
    match SocketAddr::new(ip.parse().unwrap(), port) {
        SocketAddr::V4(v4) => {
            let mut octets = 2_u16.to_ne_bytes().to_vec();
            octets.extend(port.to_be_bytes());
            octets.extend(v4.ip().octets());
            octets.extend([0; 8]);
            octets
        }
        SocketAddr::V6(v6) => {
            let mut octets = 10_u16.to_ne_bytes().to_vec();
            octets.extend(port.to_be_bytes());
            octets.extend([0; 4]);
            octets.extend(v6.ip().octets());
            octets.extend([0; 4]);
            octets
        }
    }
}

/// A message taken apart again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub kind: u8,
    pub errno: u8,
    pub satype: u8,
    pub diagnostic: u16,
    pub seq: u32,
    pub pid: u32,
    pub octets: Vec<u8>,
}

impl Heard {
    pub fn new(octets: Vec<u8>) -> Self {
        assert!(octets.len() >= 16 && octets.len().is_multiple_of(8), "{octets:?}");
        assert_eq!(octets.len() / 8, usize::from(u16::from_ne_bytes([octets[4], octets[5]])));
        let word = |at: usize| u32::from_ne_bytes(octets[at..at + 4].try_into().unwrap());
        Self {
            kind: octets[1],
            errno: octets[2],
            satype: octets[3],
            diagnostic: u16::from_ne_bytes([octets[6], octets[7]]),
            seq: word(8),
            pid: word(12),
            octets,
        }
    }

    /// Its extensions in order: type and everything after the type.
    pub fn exts(&self) -> Vec<(u16, Vec<u8>)> {
        let mut all = Vec::new();
        let mut rest = &self.octets[16..];
        while !rest.is_empty() {
            let words = u16::from_ne_bytes([rest[0], rest[1]]);
            assert_ne!(words, 0);
            let (ext, tail) = rest.split_at(usize::from(words) * 8);
            all.push((u16::from_ne_bytes([ext[2], ext[3]]), ext[4..].to_vec()));
            rest = tail;
        }
        all
    }

    pub fn kinds(&self) -> Vec<u16> {
        self.exts().iter().map(|(kind, _)| *kind).collect()
    }

    pub fn find(&self, kind: u16) -> Option<Vec<u8>> {
        self.exts().into_iter().find(|(k, _)| *k == kind).map(|(_, body)| body)
    }

    pub fn spi(&self) -> Option<u32> {
        self.find(SA).map(|body| u32::from_be_bytes(body[..4].try_into().unwrap()))
    }

    pub fn state(&self) -> Option<u8> {
        self.find(SA).map(|body| body[5])
    }

    pub fn flags(&self) -> Option<u32> {
        self.find(SA).map(|body| u32::from_ne_bytes(body[8..12].try_into().unwrap()))
    }

    /// Allocations, bytes, addtime, usetime.
    pub fn life(&self, kind: u16) -> Option<(u32, u64, u64, u64)> {
        let body = self.find(kind)?;
        let wide = |at: usize| u64::from_ne_bytes(body[at..at + 8].try_into().unwrap());
        Some((u32::from_ne_bytes(body[..4].try_into().unwrap()), wide(4), wide(12), wide(20)))
    }

    pub fn address(&self, kind: u16) -> Option<(SocketAddr, u8, u8)> {
        let body = self.find(kind)?;
        let port = u16::from_be_bytes([body[6], body[7]]);
        let ip: IpAddr = match u16::from_ne_bytes([body[4], body[5]]) {
            2 => <[u8; 4]>::try_from(&body[8..12]).unwrap().into(),
            10 => <[u8; 16]>::try_from(&body[12..28]).unwrap().into(),
            other => panic!("family {other}"),
        };
        Some((SocketAddr::new(ip, port), body[0], body[1]))
    }
}

/// A service, and time.
pub struct Service {
    pub control: Control,
    pub plane: Arc<Plane>,
    pub now: Time,
}

/// Wall-clock seconds at the beginning of a test's time.
pub const EPOCH: u64 = 1_700_000_000;

/// Random octets that are different each time and the same in every run.
pub fn random() -> klips::Random {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    Box::new(move |octets| {
        for octet in octets {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *octet = (state >> 24) as u8;
        }
    })
}

impl Default for Service {
    fn default() -> Self {
        let mut config = Config::new(EPOCH, random());
        config.soft_fuzz = 0..=0;
        Self::new(config)
    }
}

pub const LOCAL: &str = "192.0.2.1";
pub const PEER: &str = "198.51.100.2";
pub const LOCAL6: &str = "2001:db8::1";
pub const PEER6: &str = "2001:db8:f::2";

impl Service {
    pub fn new(config: Config) -> Self {
        let plane = Arc::new(Plane::default());
        let mut control = Control::new(Arc::clone(&plane), config);
        let local = [LOCAL, LOCAL6, "127.0.0.1", "::1"];
        control.set_local_addresses(local.iter().map(|ip| ip.parse().unwrap()).collect());
        Self { control, plane, now: Time::from_secs(1000) }
    }

    pub fn open(&mut self) -> SocketId {
        self.control.connect(4242, self.now)
    }

    pub fn send(&mut self, from: SocketId, message: Msg) {
        self.control.request(from, &message.done(), self.now);
    }

    /// Everything a socket has to hear.
    pub fn hear(&mut self, socket: SocketId) -> Vec<Heard> {
        let mut all = Vec::new();
        while let Some(octets) = self.control.notice(socket, self.now) {
            all.push(Heard::new(octets));
        }
        all
    }

    /// Sends a message and returns the only answer.
    pub fn ask(&mut self, from: SocketId, message: Msg) -> Heard {
        self.send(from, message);
        let mut heard = self.hear(from);
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    /// Sends a message that must succeed.
    pub fn must(&mut self, from: SocketId, message: Msg) -> Heard {
        let heard = self.ask(from, message);
        assert_eq!((heard.errno, heard.diagnostic), (0, 0), "{heard:?}");
        heard
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub fn wait(&mut self, secs: u64) {
        let end = self.now.after(std::time::Duration::from_secs(secs));
        while let Some(at) = self.control.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.control.expire(self.now);
        }
        self.now = end;
        self.control.expire(end);
    }
}

/// A complete ADD of an ESP SA with AES-GCM-16.
pub fn add_esp(spi: u32, src: &str, dst: &str) -> Msg {
    msg(ADD, ESP).sa_full(spi, 32, MATURE, 0, GCM16, 0).src(src).dst(dst).key(EKEY, 20)
}

/// A complete ADD of an AH SA with HMAC-SHA-256.
pub fn add_ah(spi: u32, src: &str, dst: &str) -> Msg {
    msg(ADD, AH).sa_full(spi, 32, MATURE, SHA256, 0, 0).src(src).dst(dst).key(AKEY, 32)
}

pub fn get(satype: u8, spi: u32, dst: &str) -> Msg {
    msg(GET, satype).sa(spi).dst(dst)
}
