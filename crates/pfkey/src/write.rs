//! Building a message, extension by extension.

use crate::ext::{
    AF_INET, AF_INET6, Address, Counters, Flow, FlowPolicy, Further, Identity, InnerPair, KmCookie, Lifetime,
    Member, PacketLimits, Pair, ReplayValue, Sa, SaParams, SaPolicy, Sensitivity, SocketOptions, SpiRange,
    Tfc,
};
use crate::proposal::{Algorithm, Comb, Ecomb};
use crate::{Base, ExtType, Extension};
use core::net::{IpAddr, SocketAddr};

/// The message would be longer than its length fields can say (524 280 octets), or an extension would say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl core::fmt::Display for TooLong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the message would be longer than 524280 octets")
    }
}

impl core::error::Error for TooLong {}

/// A message in the making. Until it is finished it claims the longest length there is, so a half-built one is refused,
/// not misread. Padding and reserved fields are zero. `Debug` shows its length only: there may be keys in it.
#[derive(Clone)]
pub struct Writer {
    octets: Vec<u8>,
    broken: bool,
}

impl core::fmt::Debug for Writer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Writer({} octets)", self.octets.len())
    }
}

impl Writer {
    /// Octets that suffice for the longest request with keys that has no identities: 64 pairs of nets take two thirds of them.
    pub const ROOM: usize = 4096;

    /// A message with this header; its length is filled in at the end.
    pub fn new(base: &Base) -> Self {
        Self::with_capacity(base, 256)
    }

    /// The same with room for `octets`, so that a message with keys in it is never moved and leaves no copy behind.
    pub fn with_capacity(base: &Base, octets: usize) -> Self {
        let mut buffer = Vec::with_capacity(octets.max(Base::LEN));
        buffer.extend_from_slice(&Base { words: u16::MAX, ..*base }.octets());
        Self { octets: buffer, broken: false }
    }

    /// Fills in the length.
    pub fn finish(mut self) -> Result<Vec<u8>, TooLong> {
        let words = u16::try_from(self.octets.len() / 8).map_err(|_| TooLong)?;
        if self.broken {
            return Err(TooLong);
        }
        if let Some(field) = self.octets.get_mut(4..6) {
            field.copy_from_slice(&words.to_ne_bytes());
        }
        Ok(self.octets)
    }

    /// Appends one extension: its header, what `fill` writes, padding to a whole word.
    fn ext(&mut self, kind: ExtType, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.numbered(kind.number(), fill)
    }

    /// The same of an extension that has its number in another dialect.
    pub fn numbered(&mut self, number: u16, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.octets.len();
        self.octets.extend_from_slice(&u16::MAX.to_ne_bytes());
        self.octets.extend_from_slice(&number.to_ne_bytes());
        fill(&mut self.octets);
        self.octets.resize(self.octets.len().next_multiple_of(8), 0);
        let len = self.octets.len().saturating_sub(start);
        match (u16::try_from(len / 8), self.octets.get_mut(start..start.saturating_add(2))) {
            (Ok(words), Some(field)) => field.copy_from_slice(&words.to_ne_bytes()),
            _ => self.broken = true,
        }
        self
    }

    /// An extension of `u32` at octet 4 and `u64`s from octet 8.
    fn numbers(&mut self, kind: ExtType, first: u32, rest: &[u64]) -> &mut Self {
        self.ext(kind, |octets| {
            octets.extend_from_slice(&first.to_ne_bytes());
            rest.iter().for_each(|number| octets.extend_from_slice(&number.to_ne_bytes()));
        })
    }

    /// An extension of a message as it came.
    pub fn echo(&mut self, extension: &Extension<'_>) -> &mut Self {
        self.octets.extend_from_slice(extension.octets);
        self
    }

    /// SADB_EXT_SA.
    pub fn sa(&mut self, sa: &Sa) -> &mut Self {
        self.ext(ExtType::Sa, |octets| {
            octets.extend_from_slice(&sa.spi.to_be_bytes());
            octets.extend_from_slice(&[sa.replay, sa.state, sa.auth, sa.encrypt]);
            octets.extend_from_slice(&sa.flags.to_ne_bytes());
        })
    }

    /// SADB_EXT_LIFETIME_*, by its type.
    pub fn lifetime(&mut self, kind: ExtType, l: &Lifetime) -> &mut Self {
        self.numbers(kind, l.allocations, &[l.bytes, l.addtime, l.usetime])
    }

    /// SADB_EXT_ADDRESS_*, by its type.
    pub fn address(&mut self, kind: ExtType, address: &Address) -> &mut Self {
        self.address_numbered(kind.number(), address)
    }

    /// The same of an address that has its number in another dialect.
    pub(crate) fn address_numbered(&mut self, number: u16, address: &Address) -> &mut Self {
        self.numbered(number, |octets| address_body(octets, address))
    }

    /// SADB_EXT_ADDRESS_* in the place of an extension that was `octets` long: a shorter address keeps that length, as where
    /// an IPv4-mapped IPv6 address is answered as IPv4 (pf_key(7P)).
    pub fn address_in_place(&mut self, kind: ExtType, address: &Address, octets: usize) -> &mut Self {
        let end = self.octets.len().saturating_add(octets);
        self.ext(kind, |buffer| {
            address_body(buffer, address);
            buffer.resize(buffer.len().max(end), 0);
        })
    }

    /// SADB_EXT_KEY_*, by its type. `key` is the key and, in answers, its salt.
    pub fn key(&mut self, kind: ExtType, bits: u16, reserved: u16, key: &[u8]) -> &mut Self {
        self.ext(kind, |octets| {
            octets.extend_from_slice(&bits.to_ne_bytes());
            octets.extend_from_slice(&reserved.to_ne_bytes());
            octets.extend_from_slice(key);
        })
    }

    /// SADB_EXT_IDENTITY_*, by its type.
    pub fn identity(&mut self, kind: ExtType, identity: &Identity<'_>) -> &mut Self {
        self.ext(kind, |octets| {
            octets.extend_from_slice(&identity.kind.to_ne_bytes());
            octets.extend_from_slice(&[0; 2]);
            octets.extend_from_slice(&identity.id.to_ne_bytes());
            octets.extend_from_slice(identity.text);
            octets.push(0);
        })
    }

    /// SADB_EXT_SPIRANGE.
    pub fn spi_range(&mut self, range: &SpiRange) -> &mut Self {
        self.ext(ExtType::SpiRange, |octets| {
            octets.extend_from_slice(&range.min.to_be_bytes());
            octets.extend_from_slice(&range.max.to_be_bytes());
            octets.extend_from_slice(&[0; 4]);
        })
    }

    /// SADB_X_EXT_KM_COOKIE.
    pub fn km_cookie(&mut self, km: &KmCookie) -> &mut Self {
        self.numbers(ExtType::KmCookie, km.proto, &[km.cookie])
    }

    /// SADB_X_EXT_PAIR.
    pub fn pair(&mut self, pair: &Pair) -> &mut Self {
        self.ext(ExtType::Pair, |octets| octets.extend_from_slice(&pair.spi.to_be_bytes()))
    }

    /// SADB_X_EXT_REPLAY_VALUE.
    pub fn replay_value(&mut self, value: &ReplayValue) -> &mut Self {
        self.numbers(ExtType::ReplayValue, value.low, &[value.high])
    }

    /// SADB_X_EXT_EDUMP: only SAs used within the last `seconds`.
    pub fn edump(&mut self, seconds: u64) -> &mut Self {
        self.numbers(ExtType::Edump, 0, &[seconds])
    }

    /// SADB_X_EXT_EREG: the SA types to hear extended ACQUIREs of.
    pub fn ereg(&mut self, satypes: &[u8]) -> &mut Self {
        self.ext(ExtType::Ereg, |octets| {
            octets.extend_from_slice(satypes);
            octets.push(0);
        })
    }

    /// SADB_EXT_SUPPORTED_*, by its type.
    pub fn supported(&mut self, kind: ExtType, algorithms: &[Algorithm]) -> &mut Self {
        self.ext(kind, |octets| {
            octets.extend_from_slice(&[0; 4]);
            algorithms.iter().for_each(|algorithm| octets.extend_from_slice(&algorithm.octets()));
        })
    }

    /// SADB_EXT_PROPOSAL: combinations in the order of preference.
    pub fn proposal(&mut self, replay: u8, combs: &[Comb]) -> &mut Self {
        self.ext(ExtType::Proposal, |octets| {
            octets.extend_from_slice(&[replay, 0, 0, 0]);
            combs.iter().for_each(|comb| comb.write(octets));
        })
    }

    /// SADB_X_EXT_EPROP: extended combinations in the order of preference.
    pub fn eprop(&mut self, replay: u8, ecombs: &[Ecomb]) -> &mut Self {
        self.ext(ExtType::Eprop, |octets| {
            let count = u16::try_from(ecombs.len()).unwrap_or(u16::MAX);
            octets.extend_from_slice(&[replay, 0]);
            octets.extend_from_slice(&count.to_ne_bytes());
            ecombs.iter().for_each(|ecomb| ecomb.write(octets));
        })
    }

    /// SADB_EXT_SENSITIVITY or SADB_X_EXT_OUTER_SENS, by its type.
    pub fn sensitivity(&mut self, kind: ExtType, label: &Sensitivity<'_>) -> &mut Self {
        let words = |map: &[u8]| u8::try_from(map.len() / 8).ok().filter(|_| map.len().is_multiple_of(8));
        let (Some(words), Some(integrity_words)) = (words(label.bitmap), words(label.integrity_bitmap))
        else {
            self.broken = true;
            return self;
        };
        self.ext(kind, |octets| {
            octets.extend_from_slice(&label.domain.to_ne_bytes());
            octets.extend_from_slice(&[label.level, words, label.integrity_level, integrity_words]);
            octets.extend_from_slice(&label.flags.to_ne_bytes());
            octets.extend_from_slice(label.bitmap);
            octets.extend_from_slice(label.integrity_bitmap);
        })
    }

    /// Native: SAs from the inside to the outside; a group has at least one.
    pub fn group(&mut self, members: &[Member]) -> &mut Self {
        self.broken |= members.is_empty();
        self.ext(ExtType::Group, |octets| {
            octets.extend_from_slice(&[0; 4]);
            for member in members {
                octets.extend_from_slice(&[member.satype, 0, 0, 0]);
                octets.extend_from_slice(&member.spi.to_be_bytes());
            }
        })
    }

    /// Native: what an eroute does.
    pub fn flow(&mut self, flow: &Flow) -> &mut Self {
        self.numbers(
            ExtType::Flow,
            u32::from_ne_bytes([flow.action.number(), 0, 0, 0]),
            &[flow.packets, flow.last_use],
        )
    }

    /// Native: wide window and ESN.
    pub fn sa_params(&mut self, params: &SaParams) -> &mut Self {
        self.numbers(ExtType::SaParams, params.window, &[u64::from(params.esn)])
    }

    /// Native: limits of packets.
    pub fn packet_limits(&mut self, limits: &PacketLimits) -> &mut Self {
        self.numbers(ExtType::PacketLimits, 0, &[limits.soft, limits.hard])
    }

    /// Native: what else an SA may carry than its inner addresses say; at least one pair.
    pub fn selectors(&mut self, pairs: &[InnerPair]) -> &mut Self {
        let rows: Vec<[u8; 40]> = pairs.iter().filter_map(InnerPair::row).collect();
        self.broken |= rows.is_empty() || rows.len() != pairs.len();
        self.ext(ExtType::Selectors, |octets| {
            octets.extend_from_slice(&[0; 4]);
            rows.iter().for_each(|row| octets.extend_from_slice(row));
        })
    }

    /// Native: TFC padding and dummy packets.
    pub fn tfc(&mut self, tfc: &Tfc) -> &mut Self {
        self.numbers(ExtType::Tfc, tfc.pad, &[u64::from(tfc.dummies)])
    }

    /// Native: what an eroute of another dialect is besides.
    pub fn flow_policy(&mut self, policy: &FlowPolicy) -> &mut Self {
        let level = policy.wanted.map_or(0, |wanted| wanted.level.number());
        let (mode, protocol, reqid) = policy.wanted.map_or((0, 0, 0), |w| (w.mode, w.protocol, w.reqid));
        self.ext(ExtType::FlowPolicy, |octets| {
            octets.extend_from_slice(&[policy.direction.number(), level, mode, protocol]);
            [policy.index, policy.priority, reqid, 0]
                .iter()
                .for_each(|n| octets.extend_from_slice(&n.to_ne_bytes()));
            for Further { wanted, src, dst } in &policy.further {
                octets.extend_from_slice(&[0, wanted.level.number(), wanted.mode, wanted.protocol]);
                octets.extend_from_slice(&wanted.reqid.to_ne_bytes());
                for ip in [src, dst] {
                    let mapped = match ip {
                        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                        IpAddr::V6(ip) => *ip,
                    };
                    octets.extend_from_slice(&mapped.octets());
                }
            }
        })
    }

    /// Native: how policy finds the SA.
    pub fn sa_policy(&mut self, policy: &SaPolicy) -> &mut Self {
        self.numbers(ExtType::SaPolicy, policy.reqid, &[u64::from(policy.by_policy)])
    }

    /// Native: socket options.
    pub fn socket_options(&mut self, options: &SocketOptions) -> &mut Self {
        self.numbers(ExtType::SocketOptions, u32::from(options.loopback) | u32::from(options.quiet) << 1, &[])
    }

    /// Native: counters of an SA.
    pub fn counters(&mut self, c: &Counters) -> &mut Self {
        self.numbers(ExtType::Counters, 0, &[c.packets, c.forged, c.replayed, c.sequence])
    }
}

/// What follows the extension header of an address.
fn address_body(octets: &mut Vec<u8>, address: &Address) {
    octets.extend_from_slice(&[address.proto, address.prefix, 0, 0]);
    match address.socket {
        Some(socket) => sockaddr(octets, socket),
        None => octets.extend_from_slice(&[0; 16]),
    }
}

/// Appends a sockaddr: 16 octets of IPv4, or 28 of IPv6.
pub(crate) fn sockaddr(octets: &mut Vec<u8>, socket: SocketAddr) {
    let family = if socket.is_ipv4() { AF_INET } else { AF_INET6 };
    octets.extend_from_slice(&family.to_ne_bytes());
    octets.extend_from_slice(&socket.port().to_be_bytes());
    match socket.ip() {
        IpAddr::V4(ip) => {
            octets.extend_from_slice(&ip.octets());
            octets.extend_from_slice(&[0; 8]);
        }
        IpAddr::V6(ip) => {
            octets.extend_from_slice(&[0; 4]);
            octets.extend_from_slice(&ip.octets());
            octets.extend_from_slice(&[0; 4]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Errno, Fault, Message, MessageType, SaType};

    #[test]
    fn an_unfinished_message_is_refused() {
        let mut w = Writer::new(&Base::request(MessageType::Get, SaType::Esp, 1, 1));
        w.sa(&Sa::default());
        assert_eq!(Message::parse(&w.octets).unwrap_err(), Fault::errno(Errno::EMSGSIZE));
        assert!(Message::parse(&w.finish().unwrap()).is_ok());
    }
}
