//! klips' end of `ike.sock`: one key daemon at a time; messages to it as it takes them, datagrams from it at once.

use super::queue::Queue;
use super::{Kind, LONGEST, Record};
use crate::peer::Trust;
use ipsec_core::Time;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// Records moved each way before others get their turn.
const TURN: usize = 64;
/// What the socket holds for the key daemon while it is busy.
const SEND_BUFFER: usize = 1 << 18;

/// The numbers of its events.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// Somebody connects.
    pub listener: u64,
    /// Messages wait.
    pub queue: u64,
    /// The key daemon said something, takes something, or went.
    pub client: u64,
}

/// The listening socket and the key daemon that is connected.
#[derive(Debug)]
pub struct Server {
    epoll: Arc<OwnedFd>,
    listener: OwnedFd,
    numbers: Numbers,
    trust: Trust,
    queue: Arc<Queue>,
    client: Option<OwnedFd>,
    /// Taken from the queue, refused by the socket for now.
    refused: Option<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Server {
    /// Listens at `path`, which must not exist.
    pub fn bind(path: &Path, epoll: Arc<OwnedFd>, numbers: Numbers, trust: Trust) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        net::bind(&listener, &SocketAddrUnix::new(path)?)?;
        // Who speaks here speaks to peers in our name.
        rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600))?;
        net::listen(&listener, 8)?;
        let queue = Arc::new(Queue::new()?);
        epoll::add(&epoll, &listener, EventData::new_u64(numbers.listener), EventFlags::IN)?;
        epoll::add(&epoll, queue.waker(), EventData::new_u64(numbers.queue), EventFlags::IN)?;
        let buffer = vec![0; LONGEST + 1];
        Ok(Self { epoll, listener, numbers, trust, queue, client: None, refused: None, buffer })
    }

    /// Where workers put what they receive.
    pub fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    /// Whether a key daemon is connected.
    pub const fn connected(&self) -> bool {
        self.client.is_some()
    }

    /// Acts on an event of one of its numbers. `send` sends a datagram of the key daemon's.
    pub fn event(
        &mut self,
        number: u64,
        flags: EventFlags,
        now: Time,
        send: impl FnMut(&Record<'_>) -> io::Result<()>,
    ) {
        if number == self.numbers.listener {
            self.accept(now);
        } else if number == self.numbers.queue {
            self.queue.waker().clear();
            self.deliver(now);
        } else {
            if flags.contains(EventFlags::OUT) {
                self.watch(false);
                self.deliver(now);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.receive(now, send);
            }
        }
    }

    fn accept(&mut self, now: Time) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(fd) = net::accept_with(&self.listener, flags) {
            match self.trust.look(&fd) {
                Ok(peer) if peer.trusted => {}
                Ok(peer) => {
                    tracing::warn!("ike.sock: process {} may not use it", peer.pid);
                    continue;
                }
                Err(error) => {
                    tracing::warn!("ike.sock: peer credentials: {error}");
                    continue;
                }
            }
            // One that is still connected is hanging, or has been replaced: pluto sees to it that there is one.
            self.drop_client(now);
            let _ = sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER);
            let watch = EventData::new_u64(self.numbers.client);
            if let Err(error) = epoll::add(&self.epoll, &fd, watch, EventFlags::IN) {
                tracing::warn!("ike.sock: epoll: {error}");
                continue;
            }
            self.client = Some(fd);
            self.queue.open();
            self.deliver(now);
        }
    }

    /// Hands on what waits, as much as the key daemon takes.
    fn deliver(&mut self, now: Time) {
        for _ in 0..TURN {
            let Some(client) = &self.client else { return };
            let Some(record) = self.refused.take().or_else(|| self.queue.pop(now)) else { return };
            match net::send(client, &record, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => self.queue.count(|counts| counts.delivered += 1),
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {
                    self.refused = Some(record);
                    return self.watch(true);
                }
                Err(_) => {
                    // It died: its successor gets the message.
                    self.refused = Some(record);
                    return self.drop_client(now);
                }
            }
        }
        // More may wait; others first.
        self.queue.waker().wake();
    }

    fn receive(&mut self, now: Time, mut send: impl FnMut(&Record<'_>) -> io::Result<()>) {
        for _ in 0..TURN {
            let Some(client) = &self.client else { return };
            match net::recv(client, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((0, _)) => return self.drop_client(now),
                Ok((len, _)) => {
                    let record = self.buffer.get(..len).and_then(Record::parse);
                    let sent = record.is_some_and(|record| send(&record).is_ok());
                    self.queue.count(|counts| if sent { counts.sent += 1 } else { counts.unsent += 1 });
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => return self.drop_client(now),
            }
        }
    }

    fn watch(&mut self, out: bool) {
        let Some(client) = &self.client else { return };
        let interest = if out { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        let _ = epoll::modify(&self.epoll, client, EventData::new_u64(self.numbers.client), interest);
    }

    fn drop_client(&mut self, now: Time) {
        if let Some(client) = self.client.take() {
            let _ = epoll::delete(&self.epoll, &client);
            self.queue.close(now);
        }
    }
}

/// What the UDP payload of a record is: the marker before an IKE message, or the one octet of a keepalive.
pub const fn prefix(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Ike => &[0; 4],
        Kind::Keepalive => &[0xff],
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Client;
    use super::*;
    use crate::host::clock;
    use crate::rundir::Rundir;
    use rustix::buffer::spare_capacity;
    use rustix::event::Timespec;

    struct Scene {
        server: Server,
        epoll: Arc<OwnedFd>,
        rundir: Rundir,
        sent: Vec<Vec<u8>>,
        _dir: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let rundir = Rundir::new(dir.path());
            let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap());
            let numbers = Numbers { listener: 1, queue: 2, client: 3 };
            let trust = Trust { group: Some(rustix::process::getegid().as_raw()) };
            let server = Server::bind(&rundir.ike_sock(), Arc::clone(&epoll), numbers, trust).unwrap();
            Self { server, epoll, rundir, sent: Vec::new(), _dir: dir }
        }

        /// Acts on everything that has happened.
        fn settle(&mut self) {
            loop {
                let mut events = Vec::with_capacity(8);
                let none = Timespec { tv_sec: 0, tv_nsec: 0 };
                epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&none)).unwrap();
                if events.is_empty() {
                    return;
                }
                for event in events {
                    let sent = &mut self.sent;
                    self.server.event({ event.data }.u64(), event.flags, clock::now(), |record| {
                        sent.push(record.to_vec());
                        Ok(())
                    });
                }
            }
        }

        fn arrive(&self, message: &[u8]) -> bool {
            let (local, remote) = ("192.0.2.1:4500".parse().unwrap(), "198.51.100.7:4500".parse().unwrap());
            self.server.queue().push(local, remote, message, clock::now())
        }
    }

    fn heard(client: &Client) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; LONGEST];
        let mut all = Vec::new();
        while let Ok(Some(record)) = client.receive(&mut buffer) {
            all.push(record.message.to_vec());
        }
        all
    }

    #[test]
    fn what_comes_while_the_key_daemon_restarts_is_there_when_it_is_back() {
        let mut scene = Scene::new();
        assert!(!scene.arrive(b"nobody"));
        let first = Client::connect(&scene.rundir).unwrap();
        scene.settle();
        assert!(scene.arrive(b"one"));
        scene.settle();
        assert_eq!(heard(&first), [b"one"]);
        drop(first);
        scene.settle();
        assert!(scene.arrive(b"two") && scene.arrive(b"three"));
        scene.settle();
        let second = Client::connect(&scene.rundir).unwrap();
        scene.settle();
        assert_eq!(heard(&second), [&b"two"[..], b"three"]);
    }

    #[test]
    fn a_key_daemon_that_does_not_read_gets_everything_in_order_later() {
        let mut scene = Scene::new();
        let client = Client::connect(&scene.rundir).unwrap();
        scene.settle();
        let (mut next, mut all) = (0_u32, Vec::new());
        // More than the socket holds, in portions that the queue takes.
        for _ in 0..20 {
            for _ in 0..100 {
                let mut message = vec![0; 4000];
                message[..4].copy_from_slice(&next.to_be_bytes());
                scene.arrive(&message);
                next += 1;
            }
            scene.settle();
            for message in heard(&client) {
                all.push(u32::from_be_bytes(message[..4].try_into().unwrap()));
            }
        }
        for _ in 0..20 {
            scene.settle();
            for message in heard(&client) {
                all.push(u32::from_be_bytes(message[..4].try_into().unwrap()));
            }
        }
        let counts = scene.server.queue().counts();
        assert_eq!(all.len() as u64 + counts.crowded + counts.full, u64::from(next));
        assert!(all.is_sorted() && all.len() > 500, "{}", all.len());
    }

    #[test]
    fn what_the_key_daemon_sends_is_sent_and_nonsense_is_not() {
        let mut scene = Scene::new();
        let client = Client::connect(&scene.rundir).unwrap();
        scene.settle();
        let record = Record {
            kind: Kind::Ike,
            local: "192.0.2.1:4500".parse().unwrap(),
            remote: "198.51.100.7:4500".parse().unwrap(),
            message: b"hello",
        };
        client.send(&record).unwrap();
        client.send_raw(b"nonsense").unwrap();
        scene.settle();
        assert_eq!(scene.sent, [record.to_vec()]);
        let counts = scene.server.queue().counts();
        assert_eq!((counts.sent, counts.unsent), (1, 1));
    }

    #[test]
    fn the_newest_key_daemon_is_the_one() {
        let mut scene = Scene::new();
        let first = Client::connect(&scene.rundir).unwrap();
        scene.settle();
        let second = Client::connect(&scene.rundir).unwrap();
        scene.settle();
        assert!(scene.arrive(b"m"));
        scene.settle();
        assert!(first.receive(&mut vec![0; LONGEST]).is_err(), "it is hung up on");
        assert_eq!(heard(&second), [b"m"]);
    }
}
