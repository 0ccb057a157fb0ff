//! What the way to a peer can carry, learned from what routers say (RFC 4301 §8.2, RFC 1191, RFC 8201).
//!
//! Nobody vouches for an ICMP error, and whoever knows two addresses can send one (RFC 5927 §7). One that would narrow a path
//! counts only if it quotes a packet that we sent a moment ago, by the SPI of a live SA and a sequence number that is no older
//! than [`RECENT`] packets: nobody off the path knows either. Even then no path becomes narrower than what every host must
//! take, and after [`AGE`] it is as wide as the link again.

use crate::checksum::Sum;
use crate::packet::proto;
use crate::sa::{Encapsulation, Sa};
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use ipsec_core::{Protocol, SaId, Spi, Time};
use std::collections::HashMap;

/// How long a narrower path is believed in (RFC 8201 §4: ten minutes are recommended).
const AGE: Duration = Duration::from_secs(600);
/// Packets that may have been sent since the one that is quoted: a second of a fast link, and one in 4096 of all numbers.
const RECENT: u32 = 1 << 20;
/// No path is narrower than what every host must take (RFC 791 §3.1, RFC 8200 §5).
const LEAST4: usize = 576;
const LEAST6: usize = 1280;
/// What a router that names no MTU may have meant (RFC 1191 §7.1).
const PLATEAUS: [usize; 8] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, LEAST4];
/// Destinations remembered beyond the life of one SA.
const PATHS: usize = 1024;
/// The fragment header (RFC 8200 §4.5).
const FRAGMENT: u8 = 44;

/// What was learned of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Learned {
    /// The longest packet, in octets of IP.
    pub(crate) mtu: u16,
    /// When it is forgotten; whole seconds.
    pub(crate) until: Time,
}

/// What is known of the path that an SA's packets take. One word, so that looking costs a packet next to nothing.
#[derive(Debug, Default)]
pub(crate) struct PathMtu(AtomicU64);

impl PathMtu {
    /// The longest packet that may go, over a link that carries packets of `link` octets.
    #[inline]
    pub(crate) fn limit(&self, link: usize, now: Time) -> usize {
        match self.0.load(Ordering::Relaxed) {
            0 => link,
            word => {
                known(word).filter(|known| now < known.until).map_or(link, |known| link.min(known.mtu.into()))
            }
        }
    }

    /// What was learned last, forgotten by now or not.
    pub(crate) fn learned(&self) -> Option<Learned> {
        known(self.0.load(Ordering::Relaxed))
    }

    /// Learns something; says whether that is news: a path never becomes wider by what somebody says.
    pub(crate) fn learn(&self, learned: Learned, now: Time) -> bool {
        let narrower = |word| match known(word).filter(|known| now < known.until) {
            Some(known) if known.mtu <= learned.mtu => None,
            _ => Some(learned.until.as_secs() << 16 | u64::from(learned.mtu)),
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, narrower).is_ok()
    }
}

const fn known(word: u64) -> Option<Learned> {
    if word == 0 {
        return None;
    }
    Some(Learned { mtu: word as u16, until: Time::from_secs(word >> 16) })
}

/// What is known of paths whatever SA is used: a new SA to the same peer need not learn it again.
#[derive(Debug, Default)]
pub(crate) struct Paths(HashMap<(IpAddr, IpAddr), Learned>);

impl Paths {
    /// Remembers what was learned of the way that an SA's packets take.
    pub(crate) fn remember(&mut self, sa: &Sa, learned: Learned, now: Time) {
        if self.0.len() >= PATHS {
            self.0.retain(|_, known| now < known.until);
        }
        let way = (sa.src, sa.id.dst);
        let narrower = self.0.get(&way).is_some_and(|known| now < known.until && known.mtu <= learned.mtu);
        if !narrower && (self.0.len() < PATHS || self.0.contains_key(&way)) {
            self.0.insert(way, learned);
        }
    }

    /// Tells a new SA what is known of its way.
    pub(crate) fn tell(&self, sa: &Sa) {
        if let Some(learned) = self.0.get(&(sa.src, sa.id.dst)) {
            // What is forgotten by now does no harm: it is looked at with the clock in hand.
            sa.path_mtu().learn(*learned, Time::ZERO);
        }
    }
}

/// An ICMP message that says that a packet of ours was too big.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The SA of the packet, as the packet names it.
    pub(crate) id: SaId,
    /// What the path can carry.
    pub(crate) mtu: u16,
    src: IpAddr,
    udp: Option<Encapsulation>,
    /// The low half of its sequence number.
    number: u32,
}

/// What a message is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is about a packet that the data plane did not send.
    Elsewhere,
    /// It is about one that it may have sent.
    Claim(Claim),
    /// It cannot be believed, whatever was sent.
    Absurd,
}

impl Heard {
    /// Reads an ICMP message, without the IP header that it came in; `port` is our port of ESP in UDP.
    pub(crate) fn read(v4: bool, message: &[u8], port: u16) -> Self {
        let Some((mtu, quote)) = (if v4 { too_big4(message) } else { too_big6(message) }) else {
            return Self::Elsewhere;
        };
        let Some(quote) = Quote::read(quote, v4) else { return Self::Absurd };
        let (protocol, udp, at) = match quote.proto {
            50 => (Protocol::Esp, None, 0),
            51 => (Protocol::Ah, None, 4),
            proto::UDP => {
                let Some(&[s0, s1, d0, d1]) = quote.payload.first_chunk() else { return Self::Absurd };
                let ports = Encapsulation {
                    local: u16::from_be_bytes([s0, s1]),
                    remote: u16::from_be_bytes([d0, d1]),
                };
                if ports.local != port {
                    return Self::Elsewhere;
                }
                (Protocol::Esp, Some(ports), 8)
            }
            _ => return Self::Elsewhere,
        };
        // A router that quotes eight octets only (RFC 792) shows nothing of ESP in UDP: anybody could have said so.
        let named = quote.payload.get(at..).and_then(<[u8]>::first_chunk::<8>);
        let (Some(&[p0, p1, p2, p3, n0, n1, n2, n3]), Some(mtu)) = (named, quote.believable(mtu, v4)) else {
            return Self::Absurd;
        };
        let spi = Spi(u32::from_be_bytes([p0, p1, p2, p3]));
        Self::Claim(Claim {
            id: SaId { dst: quote.dst, protocol, spi },
            mtu,
            src: quote.src,
            udp,
            number: u32::from_be_bytes([n0, n1, n2, n3]),
        })
    }
}

impl Claim {
    /// Whether it quotes a packet that went out on this SA, not long ago.
    pub(crate) fn is_about(&self, sa: &Sa) -> bool {
        let sent = sa.sent();
        let since = (sent as u32).wrapping_sub(self.number);
        let recent = since < RECENT && u64::from(since) < sent;
        sa.id == self.id && sa.src == self.src && sa.encapsulation() == self.udp && recent
    }

    /// What is learned from it, if it is true.
    pub(crate) const fn learned(&self, now: Time) -> Learned {
        Learned { mtu: self.mtu, until: Time::from_secs(now.after(AGE).as_secs()) }
    }
}

/// MTU and quoted packet of "fragmentation needed and DF set" (RFC 792, RFC 1191 §4). Raw sockets see messages that nobody has
/// verified yet.
fn too_big4(message: &[u8]) -> Option<(usize, &[u8])> {
    let (&[kind, code, _, _, _, _, m0, m1], quote) = message.split_first_chunk::<8>()?;
    let sound = (kind, code) == (3, 4) && Sum::default().octets(message).checksum() == 0;
    sound.then_some((usize::from(u16::from_be_bytes([m0, m1])), quote))
}

/// MTU and quoted packet of "packet too big" (RFC 4443 §3.2); the code says nothing. The kernel has verified it (RFC 3542 §3.1).
fn too_big6(message: &[u8]) -> Option<(usize, &[u8])> {
    let (&[kind, _, _, _, m0, m1, m2, m3], quote) = message.split_first_chunk::<8>()?;
    let mtu = u32::from_be_bytes([m0, m1, m2, m3]);
    (kind == 2).then_some((usize::try_from(mtu).ok()?, quote))
}

/// The beginning of a packet of ours, as a router returns it.
struct Quote<'m> {
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    /// Length of the whole packet, as its header says.
    len: usize,
    /// What is there of it behind the IP header.
    payload: &'m [u8],
}

impl<'m> Quote<'m> {
    fn read(octets: &'m [u8], v4: bool) -> Option<Self> {
        if v4 { Self::v4(octets) } else { Self::v6(octets) }
    }

    fn v4(octets: &'m [u8]) -> Option<Self> {
        let &[first, _, l0, l1, _, _, f0, f1, _, proto, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            octets.first_chunk()?;
        let header = usize::from(first & 15).checked_mul(4)?;
        // Only what must not be fragmented is ever too big, and a later fragment names no SA.
        let word = u16::from_be_bytes([f0, f1]);
        let ours = first >> 4 == 4 && header >= 20 && word & 0x4000 != 0 && word & 0x1fff == 0;
        ours.then_some(Self {
            src: [s0, s1, s2, s3].into(),
            dst: [d0, d1, d2, d3].into(),
            proto,
            len: u16::from_be_bytes([l0, l1]).into(),
            payload: octets.get(header..)?,
        })
    }

    fn v6(octets: &'m [u8]) -> Option<Self> {
        let (header, mut payload) = octets.split_first_chunk::<40>()?;
        let &[first, _, _, _, l0, l1, mut proto, ..] = header;
        let address = |at: usize| Some(IpAddr::from(*header.get(at..)?.first_chunk::<16>()?));
        // The kernel may have cut the packet already, to a size that was right before.
        if proto == FRAGMENT {
            let (&[next, _, o0, o1, ..], rest) = payload.split_first_chunk::<8>()?;
            if u16::from_be_bytes([o0, o1]) & !7 != 0 {
                return None;
            }
            (proto, payload) = (next, rest);
        }
        let len = usize::from(u16::from_be_bytes([l0, l1])).checked_add(40)?;
        (first >> 4 == 6).then_some(Self { src: address(8)?, dst: address(24)?, proto, len, payload })
    }

    /// The MTU that a router names or means, if it may be one: less than the packet that it was too small for, and not less
    /// than any path has (RFC 8201 §4).
    fn believable(&self, named: usize, v4: bool) -> Option<u16> {
        let mtu = match named {
            0 if v4 => PLATEAUS.into_iter().find(|plateau| *plateau < self.len)?,
            named => named,
        };
        let least = if v4 { LEAST4 } else { LEAST6 };
        u16::try_from(mtu).ok().filter(|_| (least..self.len).contains(&mtu))
    }
}

#[cfg(test)]
mod tests;
