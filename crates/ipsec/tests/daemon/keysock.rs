//! The PF_KEY socket of a real daemon, with clients that mean no good.

use crate::host::Host;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::os::fd::OwnedFd;
use std::time::Duration;

pub(crate) fn connect(host: &Host) -> OwnedFd {
    let fd = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("socket");
    let at = SocketAddrUnix::new(host.rundir.pf_key_sock()).expect("path");
    net::connect(&fd, &at).expect("connect");
    // A daemon that does not answer fails the test instead of hanging it.
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(Duration::from_secs(30))).expect("timeout");
    fd
}

pub(crate) fn send(fd: &OwnedFd, octets: &[u8]) {
    net::send(fd, octets, SendFlags::NOSIGNAL).expect("send");
}

pub(crate) fn receive(fd: &OwnedFd) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    let (length, _) = net::recv(fd, buffer.as_mut_slice(), RecvFlags::empty()).expect("receive");
    buffer.truncate(length);
    buffer
}

/// A base header (RFC 2367 §2.1) that claims `words` of eight octets.
fn header(kind: u8, satype: u8, words: u16, seq: u32) -> Vec<u8> {
    let mut octets = vec![2, kind, 0, satype];
    octets.extend(words.to_ne_bytes());
    octets.extend([0, 0]);
    octets.extend(seq.to_ne_bytes());
    octets.extend(std::process::id().to_ne_bytes());
    octets
}

const GET: u8 = 5;
const REGISTER: u8 = 7;
const FLUSH: u8 = 9;
const ESP: u8 = 3;

#[test]
fn malformed_records_are_answered_or_dropped_and_harm_nobody() {
    let Some(host) = Host::new("%none") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    let (bad, good) = (connect(&host), connect(&host));
    for length in (1..64).chain([100, 1000, 10_000, 60_000]) {
        for fill in [0, 1, 2, 0x7f, 0xff] {
            // A client that never reads: what it is told stays bounded.
            send(&bad, &vec![fill; length]);
        }
        let mut lie = header(3, ESP, u16::MAX, 1);
        lie.resize(length.max(16), 0xaa);
        send(&bad, &lie);
    }
    send(&good, &header(REGISTER, ESP, 2, 77));
    // Refusals of ADD are for everyone to hear (pf_key(7P)), so they come first.
    let answer = loop {
        let heard = receive(&good);
        if heard[1] == REGISTER {
            break heard;
        }
        assert_eq!(heard.len(), 16, "an error is a base header and nothing else");
    };
    assert_eq!((answer[2], answer[3]), (0, ESP), "{answer:?}");
    assert_eq!(answer[8..12], 77_u32.to_ne_bytes());
    assert_eq!(host.ipsec(&["setup", "status"]).code, 0);
    let table = host.ipsec(&["pf_key"]).out;
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.lines().all(|line| line.split_whitespace().count() == 22), "{table}");
    let registered = host.ipsec(&["pf_key", "--registered"]).out;
    assert_eq!(registered.lines().count(), 2, "{registered}");
    drop(bad);
    drop(good);
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}

#[test]
fn many_clients_at_once_each_get_their_own_answers() {
    let Some(host) = Host::new("%none") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    std::thread::scope(|scope| {
        for client in 0..16_u32 {
            let host = &host;
            scope.spawn(move || {
                let fd = connect(host);
                for n in 0..200 {
                    let seq = client << 16 | n;
                    // Nothing is named, so it is refused, and nobody else hears of a GET.
                    send(&fd, &header(GET, ESP, 2, seq));
                    let answer = receive(&fd);
                    assert_eq!((answer.len(), answer[1]), (16, GET));
                    assert_ne!(answer[2], 0, "errno");
                    assert_eq!(answer[8..12], seq.to_ne_bytes());
                }
            });
        }
    });
    // A FLUSH is for everyone.
    let (one, two) = (connect(&host), connect(&host));
    send(&one, &header(FLUSH, 0, 2, 5));
    for fd in [&one, &two] {
        let heard = receive(fd);
        assert_eq!((heard[1], &heard[8..12]), (FLUSH, &5_u32.to_ne_bytes()[..]));
    }
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}
