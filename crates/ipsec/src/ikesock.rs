//! `ike.sock`: how IKE messages that come to klips' UDP port reach the key daemon, and how its answers leave by the same port.
//!
//! UDP 4500 carries ESP and IKE alike (RFC 3948), and a NAT's mapping holds for one port, so both must be sent from one
//! socket. That socket is klips'. `AF_UNIX`, `SOCK_SEQPACKET`; one record is one datagram with its addresses:
//!
//! ```text
//!  0        1        2        4            6           8          24            40
//! | version | kind   | zero   | local port | remote port | local    | remote      | octets …
//! | 1       | 1 IKE  |        | big endian | big endian  | 16 octets, IPv4 mapped (RFC 4291 §2.5.5.2)
//! |         | 2 keepalive
//! ```
//!
//! IKE messages travel without the non-ESP marker; klips takes it off and puts it on. A keepalive (RFC 3948 §2.3) has no
//! octets here. Nothing else can be sent this way.

pub mod client;
pub mod queue;
pub mod server;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Octets before the message.
const HEADER: usize = 40;
/// The longest record: a datagram and its header.
pub const LONGEST: usize = HEADER + 65_535;
const VERSION: u8 = 1;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IKE message.
    Ike,
    /// A NAT keepalive.
    Keepalive,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Ike => 1,
            Self::Keepalive => 2,
        }
    }
}

/// One datagram and between whom it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'m> {
    /// What it is.
    pub kind: Kind,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// The message; empty for a keepalive.
    pub message: &'m [u8],
}

impl<'m> Record<'m> {
    /// Its octets.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(HEADER.saturating_add(self.message.len()));
        octets.extend_from_slice(&[VERSION, self.kind.number(), 0, 0]);
        octets.extend_from_slice(&self.local.port().to_be_bytes());
        octets.extend_from_slice(&self.remote.port().to_be_bytes());
        for address in [self.local.ip(), self.remote.ip()] {
            let wide = match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            octets.extend_from_slice(&wide.octets());
        }
        octets.extend_from_slice(self.message);
        octets
    }

    /// What `octets` say; `None` if they are no record.
    pub fn parse(octets: &'m [u8]) -> Option<Self> {
        let (header, message) = octets.split_at_checked(HEADER)?;
        let (&[version, kind, zero, also], rest) = header.split_first_chunk()?;
        let (&[l0, l1, r0, r1], rest) = rest.split_first_chunk()?;
        let (local, rest) = rest.split_first_chunk::<16>()?;
        let remote = rest.first_chunk::<16>()?;
        let kind = match kind {
            1 if !message.is_empty() => Kind::Ike,
            2 if message.is_empty() => Kind::Keepalive,
            _ => return None,
        };
        let address = |octets: &[u8; 16]| Ipv6Addr::from(*octets).to_canonical();
        let local = SocketAddr::new(address(local), u16::from_be_bytes([l0, l1]));
        let remote = SocketAddr::new(address(remote), u16::from_be_bytes([r0, r1]));
        let one_family = local.is_ipv4() == remote.is_ipv4();
        (version == VERSION && zero == 0 && also == 0 && one_family).then_some(Self {
            kind,
            local,
            remote,
            message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is_one() {
        let four = ("192.0.2.1:4500".parse().unwrap(), "198.51.100.7:61000".parse().unwrap());
        let six = ("[2001:db8::1]:4500".parse().unwrap(), "[2001:db8::2]:4500".parse().unwrap());
        for (local, remote) in [four, six] {
            for (kind, message) in [(Kind::Ike, &b"message"[..]), (Kind::Keepalive, b"")] {
                let record = Record { kind, local, remote, message };
                let octets = record.to_vec();
                assert_eq!(Record::parse(&octets), Some(record));
                for short in 0..HEADER {
                    assert_eq!(Record::parse(octets.get(..short).unwrap()), None);
                }
                for (at, wrong) in [(0, 2), (1, 0), (1, 3), (2, 1), (3, 1)] {
                    let mut octets = octets.clone();
                    octets[at] = wrong;
                    assert_eq!(Record::parse(&octets), None, "octet {at} is {wrong}");
                }
            }
        }
        let mixed = Record { kind: Kind::Keepalive, local: four.0, remote: six.1, message: b"" };
        assert_eq!(Record::parse(&mixed.to_vec()), None, "two families");
        let empty = Record { kind: Kind::Ike, local: four.0, remote: four.1, message: b"" };
        assert_eq!(Record::parse(&empty.to_vec()), None, "an IKE message of no octets");
        let loud = Record { kind: Kind::Keepalive, local: four.0, remote: four.1, message: b"x" };
        assert_eq!(Record::parse(&loud.to_vec()), None, "a keepalive that says something");
    }
}
