//! The asking side of `pf_key.sock`: one message out, its answer back.
//!
//! Knows of PF_KEY only what it takes to find the answer among everything a PF_KEY socket hears: type, sequence number
//! and process of the base header (RFC 2367 §2.3).

use crate::host::clock;
use crate::process::Process;
use crate::rundir::Rundir;
use core::fmt;
use ipsec_core::Time;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long an answer may take before something must be wrong.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest message: `sadb_msg_len` counts 8-octet words in 16 bits.
const LONGEST: usize = 65535 * 8;

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
    seq: u32,
}

impl KeyClient {
    /// Connects to the daemon of a run directory.
    pub fn connect(rundir: &Rundir) -> Result<Self, KeyError> {
        let address = SocketAddrUnix::new(rundir.pf_key_sock())?;
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
        Ok(Self { rundir: rundir.clone(), socket, seq: 0 })
    }

    /// A sequence number for the next message of this process.
    pub const fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    /// Sends one message and waits for the one that answers it; what others are told meanwhile is passed over.
    pub fn exchange(&mut self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match net::send(&self.socket, message, SendFlags::NOSIGNAL) {
            // It has hung up already; what it said before that is still to be read.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(errno) => return Err(errno.into()),
        }
        let asked = Mark::of(message);
        let until = clock::now().after(PATIENCE);
        loop {
            let answer = self.receive(until)?;
            if Mark::of(&answer) == asked {
                return Ok(answer);
            }
            if let Some(errno) = turned_away(&answer) {
                return Err(match errno {
                    Errno::PERM => KeyError::Denied(self.rundir.clone()),
                    errno => errno.into(),
                });
            }
        }
    }

    fn receive(&self, until: Time) -> Result<Vec<u8>, KeyError> {
        loop {
            let timeout = Timespec::try_from(until.since(clock::now())).map_err(|_| KeyError::Silence)?;
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut ready, Some(&timeout)) {
                Ok(0) => return Err(KeyError::Silence),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut octets = vec![0; LONGEST];
        let mut recv = || net::recv(&self.socket, &mut octets[..], RecvFlags::empty());
        let (_, len) = match recv() {
            // A connection closed with our message unread says so once, before what it has for us.
            Err(Errno::CONNRESET) => recv()?,
            other => other?,
        };
        if len == 0 {
            return Err(KeyError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        octets.truncate(len);
        Ok(octets)
    }
}

/// Why the daemon does not want us as a client: a base header of no type with an error in it.
const fn turned_away(message: &[u8]) -> Option<Errno> {
    match message {
        [_, 0, errno, ..] if *errno != 0 => Some(Errno::from_raw_os_error(*errno as i32)),
        _ => None,
    }
}

/// What a message and its answer have in common: type, sequence number, process.
#[derive(Debug, PartialEq, Eq)]
struct Mark(Option<(u8, [u8; 4], [u8; 4])>);

impl Mark {
    fn of(message: &[u8]) -> Self {
        let header = message.first_chunk::<16>();
        Self(header.map(|&[_, kind, _, _, _, _, _, _, s0, s1, s2, s3, p0, p1, p2, p3]| {
            (kind, [s0, s1, s2, s3], [p0, p1, p2, p3])
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn message(kind: u8, seq: u32, pid: u32, body: u8) -> Vec<u8> {
        let mut octets = vec![2, kind, 0, 3, 3, 0, 0, 0];
        octets.extend(seq.to_ne_bytes());
        octets.extend(pid.to_ne_bytes());
        octets.extend([body; 8]);
        octets
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

    #[test]
    fn the_answer_is_found_among_what_others_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let rundir = Rundir::new(dir.path());
        let answer = message(3, 7, 99, 1);
        let noise = vec![
            message(3, 8, 99, 2),
            message(4, 7, 99, 3),
            message(3, 7, 98, 4),
            vec![2, 3],
            answer.clone(),
        ];
        let daemon = daemon(&rundir, noise);
        let mut client = KeyClient::connect(&rundir).unwrap();
        let asked = message(3, 7, 99, 0);
        assert_eq!(client.exchange(&asked).unwrap(), answer);
        assert_eq!(daemon.join().unwrap(), asked);
    }

    #[test]
    fn a_daemon_that_hangs_up_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let rundir = Rundir::new(dir.path());
        let daemon = daemon(&rundir, Vec::new());
        let mut client = KeyClient::connect(&rundir).unwrap();
        assert!(matches!(client.exchange(&message(3, 7, 99, 0)), Err(KeyError::Io(_))));
        daemon.join().unwrap();
    }

    #[test]
    fn one_who_is_turned_away_is_told_why() {
        let dir = tempfile::tempdir().unwrap();
        let rundir = Rundir::new(dir.path());
        let daemon = daemon(&rundir, vec![vec![2, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]);
        let mut client = KeyClient::connect(&rundir).unwrap();
        let error = client.exchange(&message(3, 7, 99, 0)).unwrap_err().to_string();
        assert!(error.starts_with("permission denied") && error.contains("pfkeygroup="), "{error}");
        daemon.join().unwrap();
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
                // What `exchange` sends first, so that it lies unread when the other end closes.
                net::send(&client.socket, &message(3, 7, 99, 0), SendFlags::NOSIGNAL).unwrap();
            }
            let refusal = [2, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            net::send(&peer, &refusal, SendFlags::NOSIGNAL).unwrap();
            drop(peer);
            let error = client.exchange(&message(3, 7, 99, 0)).unwrap_err();
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
