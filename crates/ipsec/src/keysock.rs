//! The PF_KEY socket: `AF_UNIX`, `SOCK_SEQPACKET`; one record is one message.
//!
//! Reads when a client has written, writes when it can take more. What a client is to receive stays in [`Service`] until
//! then, so a client that does not read costs one message here and holds nobody up. A request is answered before the
//! next one is looked at.

mod ends;
mod unread;

use crate::peer::Trust;
use ipsec_core::Time;
use klips::{Control, SocketId};
use pfkey::dialect::{DebugWords, Dialect, Translator, Turn};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// What answers: [`Control`], or a stand-in in tests.
pub trait Service {
    /// A process opened a socket.
    fn connect(&mut self, pid: u32, now: Time) -> SocketId;
    /// It closed it.
    fn disconnect(&mut self, socket: SocketId);
    /// One record from a socket.
    fn request(&mut self, from: SocketId, octets: &[u8], now: Time);
    /// The next message for a socket.
    fn notice(&mut self, to: SocketId, now: Time) -> Option<Vec<u8>>;
    /// Sockets that have got messages since last asked.
    fn take_ready(&mut self) -> Vec<SocketId>;
}

impl Service for Control {
    fn connect(&mut self, pid: u32, now: Time) -> SocketId {
        Self::connect(self, pid, now)
    }
    fn disconnect(&mut self, socket: SocketId) {
        Self::disconnect(self, socket);
    }
    fn request(&mut self, from: SocketId, octets: &[u8], now: Time) {
        Self::request(self, from, octets, now);
    }
    fn notice(&mut self, to: SocketId, now: Time) -> Option<Vec<u8>> {
        Self::notice(self, to, now)
    }
    fn take_ready(&mut self) -> Vec<SocketId> {
        Self::take_ready(self)
    }
}

/// The longest message: `sadb_msg_len` counts 8-octet words in 16 bits.
const LONGEST: usize = 65535 * 8;
/// Messages read from, or written to, one client before the others get their turn.
const TURN: usize = 64;
/// What a socket may hold of messages its reader has not taken; beyond it they wait in [`Service`].
const SEND_BUFFER: usize = 1 << 18;

/// Sockets at a time. Further ones are told so: a listener that cannot accept would wake us without end.
const CLIENTS: usize = 4096;

/// What a translator may have left for a client that does not read, in octets; beyond it, records are dropped.
const LEFT: usize = 1 << 16;

struct Client {
    fd: OwnedFd,
    socket: SocketId,
    /// Between the client and the service, unless it speaks as the service does.
    translator: Option<Box<dyn Translator>>,
    /// Taken from the service, refused by the socket for now, or what its translation left. It may hold keys (GET, DUMP).
    waiting: VecDeque<Zeroizing<Vec<u8>>>,
    /// Whether epoll tells us when it can take more.
    watched: bool,
    /// It will send nothing more, but it still listens (`shutdown(SHUT_WR)`).
    silent: bool,
}

impl Client {
    /// What epoll is to tell; that both sides have hung up it always does.
    const fn interest(&self) -> EventFlags {
        let read = if self.silent { EventFlags::empty() } else { EventFlags::IN };
        if self.watched { read.union(EventFlags::OUT) } else { read }
    }
}

/// All PF_KEY clients of the daemon. Its events carry numbers from [`KeySockets::FIRST`] up.
pub struct KeySockets {
    epoll: Arc<OwnedFd>,
    listeners: Vec<(Dialect, OwnedFd)>,
    trust: Trust,
    clients: BTreeMap<u64, Client>,
    by_socket: BTreeMap<SocketId, u64>,
    next: u64,
    buffer: Vec<u8>,
    debug: Option<DebugWords>,
    /// When a refusal was last logged, and how many there were since. Anybody may knock as often as he likes.
    refused: (Option<Time>, u64),
}

/// One line about refusals in this time.
const QUIET: Duration = Duration::from_secs(10);

impl KeySockets {
    /// The number of the first listener's events; the others and clients have larger ones.
    pub const FIRST: u64 = 1 << 32;

    /// Listens at paths, which must not exist, each for its dialect, and watches by `epoll`.
    pub fn bind(
        paths: impl IntoIterator<Item = (Dialect, PathBuf)>,
        epoll: Arc<OwnedFd>,
        trust: Trust,
    ) -> io::Result<Self> {
        let mut listeners = Vec::new();
        let mut next = Self::FIRST;
        for (dialect, path) in paths {
            let listener = Self::listen(&path)?;
            epoll::add(&epoll, &listener, EventData::new_u64(next), EventFlags::IN)?;
            listeners.push((dialect, listener));
            next += 1;
        }
        let (clients, by_socket) = Default::default();
        Ok(Self {
            epoll,
            listeners,
            trust,
            clients,
            by_socket,
            next,
            buffer: vec![0; LONGEST + 1],
            debug: None,
            refused: (None, 0),
        })
    }

    fn listen(path: &Path) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let at = |error: Errno| {
            io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", path.display()))
        };
        net::bind(&listener, &SocketAddrUnix::new(path)?).map_err(at)?;
        // Anyone may connect, so that everyone is told EPERM in the protocol's own words; who may stay is seen by credentials.
        rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o666))?;
        net::listen(&listener, 128)?;
        Ok(listener)
    }

    /// What is to be logged from now on, if a client has said so.
    pub fn take_debug(&mut self) -> Option<DebugWords> {
        self.debug.take()
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Octets a client has been sent and has not read; what the service still has for it is not among them.
    pub fn unread(&self, socket: SocketId) -> usize {
        let client = self.by_socket.get(&socket).and_then(|number| self.clients.get(number));
        client.map_or(0, |client| {
            client
                .waiting
                .iter()
                .fold(unread::unread(&client.fd), |sum, record| sum.saturating_add(record.len()))
        })
    }

    /// Acts on one event. `heard` is shown every request before the service is.
    pub fn event(
        &mut self,
        service: &mut impl Service,
        number: u64,
        flags: EventFlags,
        now: Time,
        heard: impl FnMut(SocketId, &[u8]),
    ) {
        let listener = number.checked_sub(Self::FIRST).and_then(|place| usize::try_from(place).ok());
        if let Some(listener) = listener.filter(|place| *place < self.listeners.len()) {
            return self.accept(listener, service, now);
        }
        if flags.contains(EventFlags::OUT) {
            self.write(service, number, now);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(service, number, now, heard);
        }
    }

    /// Hands out what the service has got for anyone since last time.
    pub fn deliver(&mut self, service: &mut impl Service, now: Time) {
        for socket in service.take_ready() {
            if let Some(&number) = self.by_socket.get(&socket)
                && self.clients.get(&number).is_some_and(|client| !client.watched)
            {
                self.write(service, number, now);
            }
        }
    }

    fn accept(&mut self, listener: usize, service: &mut impl Service, now: Time) {
        for _ in 0..TURN {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Some((dialect, listener)) = self.listeners.get(listener) else { return };
            let fd = match net::accept_with(listener, flags) {
                Ok(fd) => fd,
                Err(Errno::AGAIN) => return,
                Err(error) => return self.log_refusal(now, &format!("accept: {error}")),
            };
            let refuse = |pid, why| {
                let _ = net::send(&fd, &refusal(pid, why), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
                ends::drain(&fd);
            };
            let peer = match self.trust.look(&fd) {
                Ok(peer) if !peer.trusted => {
                    self.log_refusal(now, &format!("process {} may not use it", peer.pid));
                    refuse(peer.pid, Errno::PERM);
                    continue;
                }
                Ok(peer) if self.clients.len() >= CLIENTS => {
                    self.log_refusal(now, &format!("process {} sent away, {CLIENTS} are open", peer.pid));
                    refuse(peer.pid, Errno::NFILE);
                    continue;
                }
                Ok(peer) => peer,
                Err(error) => {
                    self.log_refusal(now, &format!("peer credentials: {error}"));
                    continue;
                }
            };
            // The kernel caps it; a smaller one only means more turns.
            let _ = sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER);
            let number = self.next;
            if let Err(error) = epoll::add(&self.epoll, &fd, EventData::new_u64(number), EventFlags::IN) {
                self.log_refusal(now, &format!("epoll: {error}"));
                continue;
            }
            self.next = self.next.saturating_add(1);
            let socket = service.connect(peer.pid, now);
            self.by_socket.insert(socket, number);
            let (translator, waiting) = (dialect.translator(), VecDeque::new());
            self.clients
                .insert(number, Client { fd, socket, translator, waiting, watched: false, silent: false });
        }
    }

    /// Anybody can connect as often as he likes: what is said of those who are sent away has an end.
    fn log_refusal(&mut self, now: Time, what: &str) {
        let (last, more) = &mut self.refused;
        if last.is_some_and(|last| now < last.after(QUIET)) {
            *more = more.saturating_add(1);
            return;
        }
        match std::mem::take(more) {
            0 => tracing::info!("PF_KEY socket: {what}"),
            more => tracing::info!("PF_KEY socket: {what}; {more} refusals before it were not logged"),
        }
        *last = Some(now);
    }

    fn read(
        &mut self,
        service: &mut impl Service,
        number: u64,
        now: Time,
        mut heard: impl FnMut(SocketId, &[u8]),
    ) {
        for _ in 0..TURN {
            let Some(client) = self.clients.get_mut(&number) else { return };
            // A record longer than any message is cut here and then refused for its length.
            match net::recv(&client.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((0, _)) => match ends::after_nothing(&client.fd) {
                    ends::After::More => {}
                    ends::After::Silence => return self.listen_only(service, number),
                    ends::After::End => return self.close(service, number),
                },
                Ok((length, _)) => {
                    let record = self.buffer.get_mut(..length).unwrap_or_default();
                    heard(client.socket, record);
                    if let Some(words) = client.request(service, record, now) {
                        self.debug = Some(words);
                    }
                    // ADD and UPDATE bring keys.
                    record.zeroize();
                    // The reply is on its way before anything else is done with the message or for anyone else.
                    self.write(service, number, now);
                    self.deliver(service, now);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => return self.close(service, number),
            }
        }
    }

    fn write(&mut self, service: &mut impl Service, number: u64, now: Time) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let mut full = true;
        for _ in 0..TURN {
            let Some(message) = client.next(service, now) else {
                full = false;
                break;
            };
            match net::send(&client.fd, &message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {
                    client.waiting.push_front(message);
                    break;
                }
                // Larger than the socket's whole buffer: it can never be taken, and whoever asked must not wait for it.
                Err(Errno::MSGSIZE) => {
                    tracing::warn!(
                        "PF_KEY socket: a message of {} octets is too long to send",
                        message.len()
                    );
                    if let Some(header) = ends::too_long(&message) {
                        client.waiting.push_front(header);
                    }
                }
                Err(_) => return self.close(service, number),
            }
        }
        if full != client.watched {
            client.watched = full;
            self.watch(service, number);
        }
    }

    /// The client has said its last word: what it asked for, it still gets.
    fn listen_only(&mut self, service: &mut impl Service, number: u64) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.silent = true;
            self.watch(service, number);
        }
    }

    /// Tells epoll what is of interest now.
    fn watch(&mut self, service: &mut impl Service, number: u64) {
        let Some(client) = self.clients.get(&number) else { return };
        let data = EventData::new_u64(number);
        if epoll::modify(&self.epoll, &client.fd, data, client.interest()).is_err() {
            self.close(service, number);
        }
    }

    fn close(&mut self, service: &mut impl Service, number: u64) {
        if let Some(client) = self.clients.remove(&number) {
            let _ = epoll::delete(&self.epoll, client.fd.as_fd());
            self.by_socket.remove(&client.socket);
            service.disconnect(client.socket);
        }
    }
}

impl Client {
    /// A record that the client has sent.
    fn request(&mut self, service: &mut impl Service, record: &[u8], now: Time) -> Option<DebugWords> {
        let Some(translator) = &mut self.translator else {
            service.request(self.socket, record, now);
            return None;
        };
        // The end of the connection is no record, and an empty one asks nothing.
        if record.is_empty() {
            return None;
        }
        let mut turn = translator.request(record);
        let debug = turn.debug.take();
        self.take(service, turn, now);
        debug
    }

    /// What the client is to be sent next.
    fn next(&mut self, service: &mut impl Service, now: Time) -> Option<Zeroizing<Vec<u8>>> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Some(message);
            }
            let message = service.notice(self.socket, now).map(Zeroizing::new)?;
            let Some(translator) = &mut self.translator else { return Some(message) };
            let turn = translator.notice(&message);
            self.take(service, turn, now);
        }
    }

    fn take(&mut self, service: &mut impl Service, turn: Turn, now: Time) {
        for message in turn.ask {
            service.request(self.socket, &message, now);
        }
        for record in turn.say {
            let left = self.waiting.iter().fold(record.len(), |sum, record| sum.saturating_add(record.len()));
            if left <= LEFT || self.waiting.is_empty() {
                self.waiting.push_back(record);
            }
        }
    }
}

/// A base header that says why not (RFC 2367 §2.1), to process `pid`.
fn refusal(pid: u32, why: Errno) -> [u8; 16] {
    const VERSION: u8 = 2;
    let errno = u8::try_from(why.raw_os_error()).unwrap_or(u8::MAX);
    let mut header = [VERSION, 0, errno, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (head, tail) = header.split_at_mut(12);
    if let Some(words) = head.get_mut(4..6) {
        words.copy_from_slice(&2_u16.to_ne_bytes());
    }
    tail.copy_from_slice(&pid.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests;
