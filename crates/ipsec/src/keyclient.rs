//! The asking side of `pf_key.sock`: one message out, its answer back. [`pfkey::client`] knows which record that is; this
//! is the socket below it.

use crate::host::clock;
use crate::process::Process;
use crate::rundir::Rundir;
use core::fmt;
use ipsec_core::Time;
use pfkey::client::{Client, Heard, Request};
use pfkey::dialect::Dialect;
use pfkey::{Base, Fault, Message, MessageType, SaType, TooLong};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// How long an answer may take before something must be wrong.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The longest message: `sadb_msg_len` counts 8-octet words in 16 bits.
pub const LONGEST: usize = 65535 * 8;

/// Why there is no answer.
#[derive(Debug)]
pub enum KeyError {
    /// No daemon serves this run directory.
    NotRunning(Rundir),
    /// A daemon does, but not us.
    Denied(Rundir),
    /// The connection broke.
    Io(io::Error),
    /// Nothing came.
    Silence,
    /// The request says more than a message can.
    TooLong(TooLong),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(rundir) => {
                let dir = rundir.path().display();
                write!(f, "klips is not running in {dir}: `ipsec setup start` starts it")
            }
            Self::Denied(rundir) => write!(
                f,
                "permission denied on {}: this needs root or the group of pfkeygroup=",
                rundir.pf_key_sock().display()
            ),
            Self::Io(error) => write!(f, "pf_key.sock: {error}"),
            Self::Silence => write!(f, "klips did not answer within {} seconds", PATIENCE.as_secs()),
            Self::TooLong(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for KeyError {}

impl From<Errno> for KeyError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// An open PF_KEY socket.
#[derive(Debug)]
pub struct KeyClient {
    rundir: Rundir,
    socket: OwnedFd,
    client: Client,
    seq: u32,
    /// Where answers are read: room for the longest, of which only what was heard has to be wiped again.
    buffer: Vec<u8>,
}

impl KeyClient {
    /// Connects to the daemon of a run directory.
    pub fn connect(rundir: &Rundir) -> Result<Self, KeyError> {
        Self::connect_to(rundir, Dialect::Native)
    }

    /// The same, to speak a dialect. Only whole messages can be sent and heard there.
    pub fn connect_to(rundir: &Rundir, dialect: Dialect) -> Result<Self, KeyError> {
        let address = SocketAddrUnix::new(rundir.dialect_sock(dialect))?;
        let socket =
            net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        net::connect(&socket, &address).map_err(|errno| {
            // The socket of a dead daemon refuses root and denies the rest.
            let dead = || Process::read(&rundir.klips_pid()).is_none_or(|process| !process.is_alive());
            match errno {
                Errno::NOENT | Errno::CONNREFUSED => KeyError::NotRunning(rundir.clone()),
                Errno::ACCESS | Errno::PERM if dead() => KeyError::NotRunning(rundir.clone()),
                Errno::ACCESS | Errno::PERM => KeyError::Denied(rundir.clone()),
                other => other.into(),
            }
        })?;
        let client = Client::new(std::process::id());
        Ok(Self { rundir: rundir.clone(), socket, client, seq: 0, buffer: vec![0; LONGEST] })
    }

    /// Begins a request, to be filled in and asked.
    pub fn request(&self, kind: MessageType, satype: SaType) -> Request {
        self.client.request(kind, satype)
    }

    /// Sends a request and waits for its last answer: done, or why not. What others are told meanwhile is passed over.
    pub fn ask(&mut self, request: Request) -> Result<Result<(), Fault>, KeyError> {
        self.ask_for(request, |_| ())
    }

    /// The same, with what `read` finds in the last answer.
    pub fn ask_for<R>(
        &mut self,
        request: Request,
        read: impl FnOnce(&Message<'_>) -> R,
    ) -> Result<Result<R, Fault>, KeyError> {
        let (ticket, record) = self.client.finish(request).map_err(KeyError::TooLong)?;
        match net::send(&self.socket, &Zeroizing::new(record), SendFlags::NOSIGNAL) {
            // It has hung up already; what it said before that is still to be read.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(errno) => return Err(errno.into()),
        }
        let until = clock::now().after(PATIENCE);
        loop {
            let len = receive(&self.socket, &mut self.buffer, Some(until))?;
            let record = Wiped(self.buffer.get_mut(..len).unwrap_or_default());
            match turned_away(record.0) {
                Some(Errno::PERM) => return Err(KeyError::Denied(self.rundir.clone())),
                Some(errno) => return Err(errno.into()),
                None => {}
            }
            match self.client.hear(record.0) {
                Ok(Heard::Answer { to, more: false, message }) if to == ticket => {
                    return Ok(Ok(read(&message)));
                }
                Ok(Heard::Refused { to, fault }) if to == ticket => return Ok(Err(fault)),
                Ok(Heard::Answer { .. } | Heard::Refused { .. } | Heard::Notice(_)) | Err(_) => {}
            }
        }
    }

    /// A sequence number for a whole message, sent as it is.
    pub const fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    /// Sends a whole message. What comes of it is there to be heard.
    pub fn send(&self, message: &[u8]) -> Result<(), KeyError> {
        match net::send(&self.socket, message, SendFlags::NOSIGNAL) {
            // It has hung up already; what it said before that is still to be read.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for the next message, whoever it is for, and says how long it is; `buffer` has room for [`LONGEST`].
    /// Without a time it waits for ever.
    pub fn hear(&self, buffer: &mut [u8], until: Option<Time>) -> Result<usize, KeyError> {
        let len = receive(&self.socket, buffer, until)?;
        match turned_away(buffer.get(..len).unwrap_or_default()) {
            Some(Errno::PERM) => Err(KeyError::Denied(self.rundir.clone())),
            Some(errno) => Err(errno.into()),
            None => Ok(len),
        }
    }

    /// Sends a whole message and waits for the one that answers it; says how long that is.
    pub fn exchange(&self, message: &[u8], buffer: &mut [u8]) -> Result<usize, KeyError> {
        let mark = |record: &[u8]| record.first_chunk().map(Base::parse).map(|b| (b.number, b.seq, b.pid));
        self.send(message)?;
        let until = clock::now().after(PATIENCE);
        loop {
            let len = self.hear(buffer, Some(until))?;
            if mark(buffer.get(..len).unwrap_or_default()) == mark(message) {
                return Ok(len);
            }
        }
    }
}

impl AsFd for KeyClient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A record in the buffer it was read into. It may hold keys, which are gone with it.
struct Wiped<'b>(&'b mut [u8]);

impl Drop for Wiped<'_> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Waits for the next record, and says how long it is.
fn receive(socket: &OwnedFd, buffer: &mut [u8], until: Option<Time>) -> Result<usize, KeyError> {
    loop {
        let timeout = match until {
            Some(until) => {
                Some(Timespec::try_from(until.since(clock::now())).map_err(|_| KeyError::Silence)?)
            }
            None => None,
        };
        let mut ready = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut ready, timeout.as_ref()) {
            Ok(0) => return Err(KeyError::Silence),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut recv = || net::recv(socket, &mut *buffer, RecvFlags::empty());
    let (_, len) = match recv() {
        // A connection closed with our message unread says so once, before what it has for us.
        Err(Errno::CONNRESET) => recv()?,
        other => other?,
    };
    if len == 0 {
        return Err(KeyError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(len)
}

/// Why the daemon does not want us as a client: a base header of no type and number with an error in it.
const fn turned_away(message: &[u8]) -> Option<Errno> {
    match message {
        [_, 0, errno, _, _, _, _, _, 0, 0, 0, 0, ..] if *errno != 0 => {
            Some(Errno::from_raw_os_error(*errno as i32))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pfkey::Writer;
    use std::thread;

    /// What a daemon says, as it says it to process `pid`.
    fn said(kind: MessageType, seq: u32, pid: u32, errno: pfkey::Errno) -> Vec<u8> {
        Writer::new(&Base { errno, ..Base::request(kind, SaType::Esp, seq, pid) }).finish().unwrap()
    }

    /// Answers every message with `answers`, then hangs up.
    fn daemon(rundir: &Rundir, answers: Vec<Vec<u8>>) -> thread::JoinHandle<Vec<u8>> {
        let listener =
            net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        net::bind(&listener, &SocketAddrUnix::new(rundir.pf_key_sock()).unwrap()).unwrap();
        net::listen(&listener, 1).unwrap();
        thread::spawn(move || {
            let peer = net::accept(&listener).unwrap();
            let mut octets = vec![0; 1000];
            let (_, len) = net::recv(&peer, &mut octets[..], RecvFlags::empty()).unwrap();
            for answer in answers {
                net::send(&peer, &answer, SendFlags::NOSIGNAL).unwrap();
            }
            octets[..len].to_vec()
        })
    }

    const DONE: pfkey::Errno = pfkey::Errno(0);

    fn ask(client: &mut KeyClient) -> Result<Result<(), Fault>, KeyError> {
        client.ask(client.request(MessageType::Flush, SaType::Esp))
    }

    /// Asks for something, is told `answers`, and says what came of it and what the daemon was asked.
    fn asked(answers: Vec<Vec<u8>>) -> (Result<Result<(), Fault>, KeyError>, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let rundir = Rundir::new(dir.path());
        let daemon = daemon(&rundir, answers);
        let mut client = KeyClient::connect(&rundir).unwrap();
        (ask(&mut client), daemon.join().unwrap())
    }

    #[test]
    fn the_answer_is_found_among_what_others_are_told() {
        let me = std::process::id();
        let noise = vec![
            said(MessageType::Flush, 2, me, pfkey::Errno::EEXIST),
            said(MessageType::Delete, 1, me, pfkey::Errno::EEXIST),
            said(MessageType::Flush, 1, me ^ 1, pfkey::Errno::EEXIST),
            vec![2, 9],
            said(MessageType::Flush, 1, me, DONE),
        ];
        let (answer, request) = asked(noise);
        assert_eq!(answer.unwrap(), Ok(()));
        assert_eq!(request, said(MessageType::Flush, 1, me, DONE));
    }

    #[test]
    fn what_was_heard_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let rundir = Rundir::new(dir.path());
        let me = std::process::id();
        let answers = vec![
            said(MessageType::Flush, 7, me, DONE),
            vec![0xaa; 100_000],
            said(MessageType::Flush, 1, me, DONE),
        ];
        let daemon = daemon(&rundir, answers);
        let mut client = KeyClient::connect(&rundir).unwrap();
        ask(&mut client).unwrap().unwrap();
        daemon.join().unwrap();
        assert_eq!(client.buffer.len(), LONGEST);
        assert!(client.buffer.iter().all(|octet| *octet == 0), "part of an answer is still there");
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let refusal = said(MessageType::Flush, 1, std::process::id(), pfkey::Errno::ENOMEM);
        assert_eq!(asked(vec![refusal]).0.unwrap(), Err(Fault::errno(pfkey::Errno::ENOMEM)));
    }

    #[test]
    fn a_daemon_that_hangs_up_is_an_error() {
        assert!(matches!(asked(Vec::new()).0, Err(KeyError::Io(_))));
    }

    const TURNED_AWAY: [u8; 16] = [2, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn one_who_is_turned_away_is_told_why() {
        let error = asked(vec![TURNED_AWAY.to_vec()]).0.unwrap_err().to_string();
        assert!(error.starts_with("permission denied") && error.contains("pfkeygroup="), "{error}");
    }

    #[test]
    fn one_who_is_turned_away_unread_is_told_why() {
        let dir = tempfile::tempdir().unwrap();
        let rundir = Rundir::new(dir.path());
        let listener =
            net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        net::bind(&listener, &SocketAddrUnix::new(rundir.pf_key_sock()).unwrap()).unwrap();
        net::listen(&listener, 1).unwrap();
        for sent_before_closing in [true, false] {
            let mut client = KeyClient::connect(&rundir).unwrap();
            let peer = net::accept(&listener).unwrap();
            if sent_before_closing {
                // What `ask` sends first, so that it lies unread when the other end closes.
                let request = said(MessageType::Flush, 1, std::process::id(), DONE);
                net::send(&client.socket, &request, SendFlags::NOSIGNAL).unwrap();
            }
            net::send(&peer, &TURNED_AWAY, SendFlags::NOSIGNAL).unwrap();
            drop(peer);
            let error = ask(&mut client).unwrap_err();
            assert!(matches!(error, KeyError::Denied(_)), "{error}");
        }
    }

    #[test]
    fn without_a_daemon_the_error_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = KeyClient::connect(&Rundir::new(dir.path())).unwrap_err().to_string();
        assert!(error.contains("klips is not running in") && error.contains("ipsec setup start"), "{error}");
    }
}
