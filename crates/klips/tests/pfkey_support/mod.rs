//! Messages built octet by octet, and a service with one socket of every kind to hear the answers.
//!
//! The messages are built by hand on purpose: a test that used the codec would not notice the codec's mistakes.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use ipsec_core::Time;
use klips::{Config, Control, Plane, SocketId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub(crate) const GETSPI: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const ADD: u8 = 3;
pub(crate) const DELETE: u8 = 4;
pub(crate) const GET: u8 = 5;
pub(crate) const ACQUIRE: u8 = 6;
pub(crate) const REGISTER: u8 = 7;
pub(crate) const EXPIRE: u8 = 8;
pub(crate) const FLUSH: u8 = 9;
pub(crate) const DUMP: u8 = 10;
pub(crate) const PROMISC: u8 = 11;
pub(crate) const INVERSE_ACQUIRE: u8 = 12;
pub(crate) const UPDATEPAIR: u8 = 13;
pub(crate) const DELPAIR: u8 = 14;

pub(crate) const AH: u8 = 2;
pub(crate) const ESP: u8 = 3;

pub(crate) const SA: u16 = 1;
pub(crate) const CURRENT: u16 = 2;
pub(crate) const HARD: u16 = 3;
pub(crate) const SOFT: u16 = 4;
pub(crate) const SRC: u16 = 5;
pub(crate) const DST: u16 = 6;
pub(crate) const INNER_SRC: u16 = 7;
pub(crate) const AKEY: u16 = 8;
pub(crate) const EKEY: u16 = 9;
pub(crate) const ID_SRC: u16 = 10;
pub(crate) const ID_DST: u16 = 11;
pub(crate) const SENS: u16 = 12;
pub(crate) const PROPOSAL: u16 = 13;
pub(crate) const SUPPORTED_AUTH: u16 = 14;
pub(crate) const SUPPORTED_ENCRYPT: u16 = 15;
pub(crate) const RANGE: u16 = 16;
pub(crate) const EREG: u16 = 17;
pub(crate) const EPROP: u16 = 18;
pub(crate) const KMC: u16 = 19;
pub(crate) const NATT_LOC: u16 = 20;
pub(crate) const NATT_REM: u16 = 21;
pub(crate) const INNER_DST: u16 = 22;
pub(crate) const PAIR: u16 = 23;
pub(crate) const REPLAY: u16 = 24;
pub(crate) const EDUMP: u16 = 25;
pub(crate) const IDLE: u16 = 26;
pub(crate) const OUTER_SENS: u16 = 27;

pub(crate) const LARVAL: u8 = 0;
pub(crate) const MATURE: u8 = 1;
pub(crate) const DYING: u8 = 2;
pub(crate) const DEAD: u8 = 3;

pub(crate) const F_PFS: u32 = 1;
pub(crate) const F_NOREPLAY: u32 = 2;
pub(crate) const F_IN: u32 = 0x4000;
pub(crate) const F_OUT: u32 = 0x8000;
pub(crate) const F_PAIRED: u32 = 0x1_0000;
pub(crate) const F_TUNNEL: u32 = 0x2_0000;
pub(crate) const F_NATT_REM: u32 = 0x8_0000;
pub(crate) const F_NATT_LOC: u32 = 0x10_0000;
pub(crate) const F_UNIQUE: u32 = 0x4000_0000;
pub(crate) const F_USED: u32 = 0x8000_0000;

/// HMAC-SHA-256.
pub(crate) const SHA256: u8 = 5;
pub(crate) const MD5: u8 = 2;
pub(crate) const NULL: u8 = 11;
pub(crate) const AES_CBC: u8 = 12;
pub(crate) const TDES: u8 = 3;
pub(crate) const GCM16: u8 = 20;

pub(crate) const ENOENT: u8 = 2;
pub(crate) const ESRCH: u8 = 3;
pub(crate) const ENOMEM: u8 = 12;
pub(crate) const EBUSY: u8 = 16;
pub(crate) const EEXIST: u8 = 17;
pub(crate) const EINVAL: u8 = 22;
pub(crate) const EMSGSIZE: u8 = 90;
pub(crate) const EPROTOTYPE: u8 = 91;
pub(crate) const EOPNOTSUPP: u8 = 95;

/// One message on its way to becoming octets.
#[derive(Clone, Debug)]
pub(crate) struct Msg {
    pub(crate) octets: Vec<u8>,
    /// The length field is set already, to something of the test's choice.
    pub(crate) length_set: bool,
}

pub(crate) fn msg(kind: u8, satype: u8) -> Msg {
    let mut octets = vec![2, kind, 0, satype, 0, 0, 0, 0];
    octets.extend(7_u32.to_ne_bytes());
    octets.extend(4242_u32.to_ne_bytes());
    Msg { octets, length_set: false }
}

impl Msg {
    pub(crate) fn seq(mut self, seq: u32) -> Self {
        self.octets[8..12].copy_from_slice(&seq.to_ne_bytes());
        self
    }

    pub(crate) fn errno(mut self, errno: u8) -> Self {
        self.octets[2] = errno;
        self
    }

    pub(crate) fn words(mut self, words: u16) -> Self {
        self.octets[4..6].copy_from_slice(&words.to_ne_bytes());
        self.length_set = true;
        self
    }

    /// An extension with this body, padded to whole words.
    pub(crate) fn ext(self, kind: u16, body: &[u8]) -> Self {
        let words = (4 + body.len()).div_ceil(8) as u16;
        self.ext_words(kind, words, body)
    }

    /// An extension that says it has so many words.
    pub(crate) fn ext_words(mut self, kind: u16, words: u16, body: &[u8]) -> Self {
        self.octets.extend(words.to_ne_bytes());
        self.octets.extend(kind.to_ne_bytes());
        self.octets.extend(body);
        while !self.octets.len().is_multiple_of(8) {
            self.octets.push(0);
        }
        self
    }

    pub(crate) fn sa(self, spi: u32) -> Self {
        self.sa_full(spi, 0, MATURE, 0, 0, 0)
    }

    pub(crate) fn sa_full(self, spi: u32, replay: u8, state: u8, auth: u8, encrypt: u8, flags: u32) -> Self {
        let mut body = spi.to_be_bytes().to_vec();
        body.extend([replay, state, auth, encrypt]);
        body.extend(flags.to_ne_bytes());
        self.ext(SA, &body)
    }

    pub(crate) fn addr(self, kind: u16, ip: &str) -> Self {
        self.addr_full(kind, ip, 0, 0, 0)
    }

    pub(crate) fn addr_full(self, kind: u16, ip: &str, port: u16, proto: u8, prefix: u8) -> Self {
        let mut body = vec![proto, prefix, 0, 0];
        body.extend(sockaddr(ip, port));
        self.ext(kind, &body)
    }

    /// An address of a family nobody has heard of.
    pub(crate) fn odd_addr(self, kind: u16) -> Self {
        let mut body = vec![0; 4];
        body.extend(77_u16.to_ne_bytes());
        body.extend([0; 14]);
        self.ext(kind, &body)
    }

    pub(crate) fn src(self, ip: &str) -> Self {
        self.addr(SRC, ip)
    }

    pub(crate) fn dst(self, ip: &str) -> Self {
        self.addr(DST, ip)
    }

    pub(crate) fn inner(self, src: &str, dst: &str) -> Self {
        let net = |text: &str| {
            let (ip, prefix) = text.split_once('/').unwrap();
            (ip.to_owned(), prefix.parse().unwrap())
        };
        let (src, src_prefix) = net(src);
        let (dst, dst_prefix) = net(dst);
        self.addr_full(INNER_SRC, &src, 0, 0, src_prefix).addr_full(INNER_DST, &dst, 0, 0, dst_prefix)
    }

    pub(crate) fn key(self, kind: u16, octets: usize) -> Self {
        let key: Vec<u8> = (1..=octets as u8).collect();
        self.key_full(kind, octets as u16 * 8, 0, &key)
    }

    pub(crate) fn key_full(self, kind: u16, bits: u16, reserved: u16, key: &[u8]) -> Self {
        let mut body = bits.to_ne_bytes().to_vec();
        body.extend(reserved.to_ne_bytes());
        body.extend(key);
        self.ext(kind, &body)
    }

    pub(crate) fn lifetime(
        self,
        kind: u16,
        allocations: u32,
        bytes: u64,
        addtime: u64,
        usetime: u64,
    ) -> Self {
        let mut body = allocations.to_ne_bytes().to_vec();
        for value in [bytes, addtime, usetime] {
            body.extend(value.to_ne_bytes());
        }
        self.ext(kind, &body)
    }

    pub(crate) fn range(self, min: u32, max: u32) -> Self {
        let mut body = min.to_be_bytes().to_vec();
        body.extend(max.to_be_bytes());
        body.extend([0; 4]);
        self.ext(RANGE, &body)
    }

    pub(crate) fn ident(self, kind: u16, idtype: u16, text: &str) -> Self {
        let mut body = idtype.to_ne_bytes().to_vec();
        body.extend([0; 10]);
        body.extend(text.as_bytes());
        body.push(0);
        self.ext(kind, &body)
    }

    pub(crate) fn kmc(self, proto: u32, cookie: u64) -> Self {
        let mut body = proto.to_ne_bytes().to_vec();
        body.extend(cookie.to_ne_bytes());
        self.ext(KMC, &body)
    }

    pub(crate) fn pair(self, spi: u32) -> Self {
        self.ext(PAIR, &spi.to_be_bytes())
    }

    pub(crate) fn replay(self, low: u32, high: u64) -> Self {
        let mut body = low.to_ne_bytes().to_vec();
        body.extend(high.to_ne_bytes());
        self.ext(REPLAY, &body)
    }

    pub(crate) fn edump(self, secs: u64) -> Self {
        let mut body = vec![0; 4];
        body.extend(secs.to_ne_bytes());
        self.ext(EDUMP, &body)
    }

    pub(crate) fn done(mut self) -> Vec<u8> {
        if !self.length_set {
            let words = (self.octets.len() / 8) as u16;
            self.octets[4..6].copy_from_slice(&words.to_ne_bytes());
        }
        self.octets
    }
}

pub(crate) fn sockaddr(ip: &str, port: u16) -> Vec<u8> {
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
pub(crate) struct Heard {
    pub(crate) kind: u8,
    pub(crate) errno: u8,
    pub(crate) satype: u8,
    pub(crate) diagnostic: u16,
    pub(crate) seq: u32,
    pub(crate) pid: u32,
    pub(crate) octets: Vec<u8>,
}

impl Heard {
    pub(crate) fn new(octets: Vec<u8>) -> Self {
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
    pub(crate) fn exts(&self) -> Vec<(u16, Vec<u8>)> {
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

    pub(crate) fn kinds(&self) -> Vec<u16> {
        self.exts().iter().map(|(kind, _)| *kind).collect()
    }

    pub(crate) fn find(&self, kind: u16) -> Option<Vec<u8>> {
        self.exts().into_iter().find(|(k, _)| *k == kind).map(|(_, body)| body)
    }

    pub(crate) fn spi(&self) -> Option<u32> {
        self.find(SA).map(|body| u32::from_be_bytes(body[..4].try_into().unwrap()))
    }

    pub(crate) fn state(&self) -> Option<u8> {
        self.find(SA).map(|body| body[5])
    }

    pub(crate) fn flags(&self) -> Option<u32> {
        self.find(SA).map(|body| u32::from_ne_bytes(body[8..12].try_into().unwrap()))
    }

    /// Allocations, bytes, addtime, usetime.
    pub(crate) fn life(&self, kind: u16) -> Option<(u32, u64, u64, u64)> {
        let body = self.find(kind)?;
        let wide = |at: usize| u64::from_ne_bytes(body[at..at + 8].try_into().unwrap());
        Some((u32::from_ne_bytes(body[..4].try_into().unwrap()), wide(4), wide(12), wide(20)))
    }

    pub(crate) fn address(&self, kind: u16) -> Option<(SocketAddr, u8, u8)> {
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
pub(crate) struct Service {
    pub(crate) control: Control,
    pub(crate) plane: Arc<Plane>,
    pub(crate) now: Time,
}

/// Wall-clock seconds at the beginning of a test's time.
pub(crate) const EPOCH: u64 = 1_700_000_000;

/// Random octets that are different each time and the same in every run.
pub(crate) fn random() -> klips::Random {
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

pub(crate) const LOCAL: &str = "192.0.2.1";
pub(crate) const PEER: &str = "198.51.100.2";
/// Of the network that [`LOCAL`] is in.
pub(crate) const BROADCAST: &str = "192.0.2.255";
pub(crate) const LOCAL6: &str = "2001:db8::1";
pub(crate) const PEER6: &str = "2001:db8:f::2";

impl Service {
    pub(crate) fn new(config: Config) -> Self {
        let plane = Arc::new(Plane::default());
        let mut control = Control::new(Arc::clone(&plane), config);
        let local = [LOCAL, LOCAL6, "127.0.0.1", "::1"];
        control.set_local_addresses(local.iter().map(|ip| ip.parse().unwrap()).collect());
        control.set_broadcast_addresses(vec![BROADCAST.parse().unwrap()]);
        Self { control, plane, now: Time::from_secs(1000) }
    }

    pub(crate) fn open(&mut self) -> SocketId {
        self.control.connect(4242, self.now)
    }

    pub(crate) fn send(&mut self, from: SocketId, message: Msg) {
        self.control.request(from, &message.done(), self.now);
    }

    /// Everything a socket has to hear.
    pub(crate) fn hear(&mut self, socket: SocketId) -> Vec<Heard> {
        let mut all = Vec::new();
        while let Some(octets) = self.control.notice(socket, self.now) {
            all.push(Heard::new(octets));
        }
        all
    }

    /// Sends a message and returns the only answer.
    pub(crate) fn ask(&mut self, from: SocketId, message: Msg) -> Heard {
        self.send(from, message);
        let mut heard = self.hear(from);
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    /// Sends a message that must succeed.
    pub(crate) fn must(&mut self, from: SocketId, message: Msg) -> Heard {
        let heard = self.ask(from, message);
        assert_eq!((heard.errno, heard.diagnostic), (0, 0), "{heard:?}");
        heard
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub(crate) fn wait(&mut self, secs: u64) {
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
pub(crate) fn add_esp(spi: u32, src: &str, dst: &str) -> Msg {
    msg(ADD, ESP).sa_full(spi, 32, MATURE, 0, GCM16, 0).src(src).dst(dst).key(EKEY, 20)
}

/// A complete ADD of an AH SA with HMAC-SHA-256.
pub(crate) fn add_ah(spi: u32, src: &str, dst: &str) -> Msg {
    msg(ADD, AH).sa_full(spi, 32, MATURE, SHA256, 0, 0).src(src).dst(dst).key(AKEY, 32)
}

pub(crate) fn get(satype: u8, spi: u32, dst: &str) -> Msg {
    msg(GET, satype).sa(spi).dst(dst)
}
