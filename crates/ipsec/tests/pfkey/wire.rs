//! A daemon and its PF_KEY sockets.

use crate::host::Host;
use crate::pfkey_cases::Transport;
use crate::pfkey_support::*;
use crate::seven::{FENCE, Seven, Talk};
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Native: socket options.
const SOCKET: u8 = 134;
const SOCKET_OPTIONS: u16 = 131;
/// The bits of a sequence number that say it is such a question's.
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
}

impl Talk for Socket {
    fn send(&self, octets: &[u8]) {
        net::send(&self.0, octets, SendFlags::NOSIGNAL).expect("send");
    }

    fn receive(&self) -> Heard {
        let mut buffer = vec![0; 1 << 16];
        let (length, _) = net::recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty()).expect("receive");
        buffer.truncate(length);
        Heard::new(buffer)
    }

    /// It asks to hear, which it then does.
    fn until_fence(&self) -> Vec<Heard> {
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

    fn deafen(&self, deaf: bool) {
        // Its question says the other.
        if deaf {
            self.must(loopback(false).seq(FENCE));
        }
    }
}

/// A daemon on a host of its own, with one socket of every kind.
pub(crate) struct Daemon {
    pub(crate) host: Host,
    sockets: Seven<Socket>,
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
        Some(Self { host, sockets: Seven::default() })
    }

    pub(crate) fn stop(self) {
        drop(self.sockets);
        let said = self.host.ipsec(&["setup", "stop"]);
        assert_eq!(said.code, 0, "{said:?}");
    }

    pub(crate) fn socket(&self, letter: char) -> &Socket {
        self.sockets.socket(letter)
    }
}

impl Transport for Daemon {
    fn begin(&mut self, aged: bool) {
        self.sockets.begin(aged, || Socket::open(&self.host));
    }

    fn send(&mut self, from: char, octets: &[u8]) {
        self.sockets.send(from, octets);
    }

    fn hear(&mut self) -> Vec<(char, Vec<Heard>)> {
        self.sockets.hear()
    }
}
