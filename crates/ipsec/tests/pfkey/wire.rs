//! A daemon and its PF_KEY sockets.
//!
//! That a socket hears *nothing* is known without waiting: it asks something itself, and whatever was meant for it
//! before comes before that answer.

use crate::host::Host;
use crate::pfkey_cases::{SOCKETS, Transport, aging, introduction, setup};
use crate::pfkey_support::*;
use ipsec::host::clock;
use ipsec_core::Time;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Native: socket options.
const SOCKET: u8 = 134;
const SOCKET_OPTIONS: u16 = 131;
const DUMPFLOWS: u8 = 132;
const FLUSHFLOWS: u8 = 131;
/// The sequence number of questions that only find out whether anything else was said.
const FENCE: u32 = 0xfe40_0000;
const FENCE_BITS: u32 = 0xfff0_0000;

pub(crate) fn loopback(on: bool) -> Msg {
    msg(SOCKET, 0).ext(SOCKET_OPTIONS, &u32::from(on).to_ne_bytes())
}

/// One PF_KEY socket.
pub(crate) struct Socket(pub(crate) OwnedFd);

impl Socket {
    pub(crate) fn open(host: &Host) -> Self {
        let fd = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("socket");
        let at = SocketAddrUnix::new(host.rundir.pf_key_sock()).expect("path");
        net::connect(&fd, &at).expect("connect");
        // A daemon that does not answer fails the test instead of hanging it.
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(Duration::from_secs(30)))
            .expect("timeout");
        Self(fd)
    }

    pub(crate) fn send(&self, octets: &[u8]) {
        net::send(&self.0, octets, SendFlags::NOSIGNAL).expect("send");
    }

    pub(crate) fn receive(&self) -> Heard {
        let mut buffer = vec![0; 1 << 16];
        let (length, _) = net::recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty()).expect("receive");
        buffer.truncate(length);
        Heard::new(buffer)
    }

    /// What was said to it before an answer to this.
    pub(crate) fn until_fence(&self) -> Vec<Heard> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let own = FENCE | COUNT.fetch_add(1, Ordering::Relaxed) & !FENCE_BITS;
        self.send(&loopback(true).seq(own).done());
        let mut all = Vec::new();
        loop {
            let heard = self.receive();
            match (heard.kind, heard.seq) {
                (SOCKET, seq) if seq == own => return all,
                // A promiscuous one hears those of the others, too.
                (SOCKET, seq) if seq & FENCE_BITS == FENCE => {}
                _ => all.push(heard),
            }
        }
    }

    /// Sends a message and returns its answer, whatever else is said meanwhile.
    pub(crate) fn ask(&self, message: Msg) -> Heard {
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
    pub(crate) fn must(&self, message: Msg) -> Heard {
        let heard = self.ask(message);
        assert_eq!((heard.errno, heard.diagnostic), (0, 0), "{heard:?}");
        heard
    }
}

/// A daemon on a host of its own, with one socket of every kind.
pub(crate) struct Daemon {
    pub(crate) host: Host,
    sockets: Vec<(char, Socket)>,
    /// When the SAs that age had aged.
    aged: Option<Time>,
    dumping: Option<(char, u8)>,
}

impl Daemon {
    pub(crate) fn start() -> Option<Self> {
        let host = Host::new("%none")?;
        let added = host.namespace.run(|| {
            let mut netlink = ipsec::host::netlink::Netlink::open()?;
            let link = netlink.link("eth7")?.expect("made with the host").index;
            for net in [format!("{LOCAL}/24"), format!("{LOCAL6}/64")] {
                netlink.add_address_and_route(link, net.parse().expect("net"))?;
            }
            std::io::Result::Ok(())
        });
        added.and_then(|added| added).expect("addresses");
        let said = host.ipsec(&["setup", "start"]);
        assert_eq!(said.code, 0, "{said:?}");
        Some(Self { host, sockets: Vec::new(), aged: None, dumping: None })
    }

    pub(crate) fn stop(self) {
        drop(self.sockets);
        let said = self.host.ipsec(&["setup", "stop"]);
        assert_eq!(said.code, 0, "{said:?}");
    }

    pub(crate) fn socket(&self, letter: char) -> &Socket {
        &self.sockets.iter().find(|(l, _)| *l == letter).expect("letter").1
    }
}

impl Transport for Daemon {
    fn begin(&mut self, aged: bool) {
        self.sockets.clear();
        let s = Socket::open(&self.host);
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
            let socket = Socket::open(&self.host);
            if let Some(message) = introduction(*letter) {
                socket.must(message);
            }
            self.sockets.push((*letter, socket));
        }
        self.hear();
    }

    fn send(&mut self, from: char, octets: &[u8]) {
        self.dumping = Some((from, octets[1])).filter(|(_, kind)| [DUMP, DUMPFLOWS].contains(kind));
        self.socket(from).send(octets);
    }

    fn hear(&mut self) -> Vec<(char, Vec<Heard>)> {
        let dumping = self.dumping.take();
        let hear = |(letter, socket): &(char, Socket)| {
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
            all.extend(socket.until_fence());
            (*letter, all)
        };
        let heard = self.sockets.iter().map(hear).collect();
        // To ask is to hear again.
        self.socket('d').must(loopback(false).seq(FENCE));
        self.socket('p').until_fence();
        heard
    }
}
