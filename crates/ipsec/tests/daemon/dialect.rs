//! The sockets of other dialects: what one adds, the others show.

use crate::host::Host;
use crate::keysock::{receive, send};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::os::fd::OwnedFd;
use std::time::Duration;

fn connect(host: &Host, name: &str) -> OwnedFd {
    let fd = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("socket");
    let at = SocketAddrUnix::new(host.rundir.path().join(name)).expect("path");
    net::connect(&fd, &at).expect("connect");
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(Duration::from_secs(30))).expect("timeout");
    fd
}

/// An extension of linux/pfkeyv2.h.
fn ext(number: u16, body: &[u8]) -> Vec<u8> {
    let len = (4 + body.len()).next_multiple_of(8);
    let mut octets = u16::try_from(len / 8).expect("short").to_ne_bytes().to_vec();
    octets.extend(number.to_ne_bytes());
    octets.extend(body);
    octets.resize(len, 0);
    octets
}

fn record(number: u8, satype: u8, seq: u32, extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = extensions.concat();
    let mut octets = vec![2, number, 0, satype];
    octets.extend(u16::try_from((16 + body.len()) / 8).expect("short").to_ne_bytes());
    octets.extend([0, 0]);
    octets.extend(seq.to_ne_bytes());
    octets.extend(std::process::id().to_ne_bytes());
    octets.extend(body);
    octets
}

fn address(number: u16, last: u8) -> Vec<u8> {
    ext(number, &[&[0, 32, 0, 0, 2, 0, 0, 0, 192, 0, 2, last][..], &[0; 8]].concat())
}

fn add(seq: u32) -> Vec<u8> {
    let sa = [&0x1001_u32.to_be_bytes()[..], &[64, 1, 0, 20, 0, 0, 0, 0]].concat();
    let sa2 = [&[2, 0, 0, 0, 0, 0, 0, 0][..], &77_u32.to_ne_bytes()].concat();
    let key = [&160_u16.to_ne_bytes()[..], &[0, 0], &[0x5e; 20]].concat();
    record(3, 3, seq, &[ext(1, &sa), ext(19, &sa2), address(5, 1), address(6, 2), ext(9, &key)])
}

/// The next answer to a request of this sequence number: its type, errno and octets.
fn answer(fd: &OwnedFd, seq: u32) -> (u8, u8, Vec<u8>) {
    loop {
        let octets = receive(fd);
        if octets[8..12] == seq.to_ne_bytes() {
            return (octets[1], octets[2], octets);
        }
    }
}

#[test]
fn what_the_linux_socket_adds_the_native_one_shows_and_the_other_way_round() {
    let Some(host) = Host::new("%none") else { return };
    assert_eq!(host.ipsec(&["setup", "start"]).code, 0);
    let (linux, other) = (connect(&host, "pf_key.linux.sock"), connect(&host, "pf_key.linux.sock"));
    send(&linux, &record(7, 3, 1, &[]));
    let (kind, errno, supported) = answer(&linux, 1);
    assert_eq!((kind, errno), (7, 0));
    assert!(supported.len() > 100, "lists of algorithms");

    send(&linux, &add(2));
    assert_eq!(answer(&linux, 2).1, 0);
    send(&linux, &add(3));
    assert_eq!(answer(&linux, 3).1, 17, "EEXIST");
    // The other socket hears of the SA, without its key, and not of the refusal.
    let (_, _, heard) = answer(&other, 2);
    assert!(!heard.windows(8).any(|octets| octets == [0x5e; 8]), "a key went out");

    let table = host.ipsec(&["spi", "--json"]);
    assert!(table.out.contains("0x1001") || table.out.contains("4097"), "{}", table.out);

    send(&other, &record(10, 0, 9, &[]));
    let dumped = answer(&other, 0);
    assert_eq!((dumped.0, dumped.1), (10, 0), "the only SA is the last");
    assert!(dumped.2.windows(20).any(|octets| octets == [0x5e; 20]));
    assert!(dumped.2.windows(4).any(|octets| octets == 77_u32.to_ne_bytes()), "reqid");

    let gone = host.ipsec(&["spi", "--clear"]);
    assert_eq!(gone.code, 0, "{}", gone.err);
    send(&other, &record(10, 0, 10, &[]));
    assert_eq!(answer(&other, 10).1, 2, "ENOENT: nothing is there");
}
