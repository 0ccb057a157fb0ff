//! Fragments of what is outside, which kernels put together: what never becomes whole costs a bound amount of memory, is
//! counted there, and hurts nothing that comes whole.

use super::{Case, Gateway, outer, pattern, tunnel};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, SocketAddr};

/// First fragments, of a datagram each.
const FRAGMENTS: u16 = 20_000;

/// A number of a file of `/proc/net`: the one after this word, in the line that begins with that.
fn number(end: &Gateway, file: &str, line: &str, word: &str) -> u64 {
    let text = end
        .namespace
        .run(|| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")))
        .unwrap()
        .unwrap();
    let words =
        text.lines().find(|found| found.starts_with(line)).unwrap_or_else(|| panic!("no {line}: {text}"));
    let mut words = words.split_whitespace().skip_while(|found| *found != word);
    words.nth(1).unwrap_or_else(|| panic!("no {word}: {text}")).parse().unwrap()
}

fn high_mark(end: &Gateway) -> u64 {
    let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ipfrag_high_thresh");
    end.namespace.run(read).unwrap().unwrap().trim().parse().unwrap()
}

#[test]
fn fragments_that_never_become_a_packet_are_bounded_and_hurt_nothing_that_comes_whole() {
    for udp in [false, true] {
        let case = Case { udp, ..Case::default() };
        let Some(tunnel) = tunnel(&case) else { return };
        tunnel.udp_echo(&pattern(100));
        let (IpAddr::V4(from), IpAddr::V4(to)) = (outer(&case, 2).addr(), outer(&case, 1).addr()) else {
            unreachable!()
        };
        let send = || {
            // With a header of its own.
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
            let mut packet = vec![0; 1420];
            packet[..10].copy_from_slice(&[0x45, 0, 5, 0x8c, 0, 0, 0x20, 0, 64, if udp { 17 } else { 50 }]);
            packet[12..16].copy_from_slice(&from.octets());
            packet[16..20].copy_from_slice(&to.octets());
            // Ports 4500, or the SPI of what the left end opens.
            packet[20..24].copy_from_slice(&if udp { [0x11, 0x94, 0x11, 0x94] } else { [0, 0, 0x10, 2] });
            for id in 1..=FRAGMENTS {
                packet[4..6].copy_from_slice(&id.to_be_bytes());
                socket.send_to(&packet, &SocketAddr::new(to.into(), 0).into()).unwrap();
            }
        };
        let waited = || number(&tunnel.left, "sockstat", "FRAG:", "memory");
        tunnel.right.namespace.run(send).unwrap();
        let (high, memory) = (high_mark(&tunnel.left), waited());
        // What the kernel counts for one is some more than what came.
        assert!(memory > high / 2 && memory < high + 65_536, "{memory} of {high}");
        assert!(memory < u64::from(FRAGMENTS) * 1420 / 4, "what claims more than that is not kept: {memory}");
        assert!(tunnel.left.of_ip("ReasmFails") > u64::from(FRAGMENTS) / 2);
        for len in [1, 1300] {
            tunnel.udp_echo(&pattern(len));
        }
        tunnel.tcp_echo(&pattern(300_000));
        // A fragment alone is nothing that an engine has seen.
        assert_eq!((tunnel.left.refused(), tunnel.right.refused()), (vec![], vec![]), "UDP {udp}");
    }
}
