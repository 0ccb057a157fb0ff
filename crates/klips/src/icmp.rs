//! What a sender is told about a packet that was refused (RFC 792, RFC 1812 §4.3.2, RFC 4443).

use crate::checksum::{Sum, pseudo};
use crate::packet::{Parsed, proto};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use ipsec_core::Time;

/// Answers that may be sent at once, and how long one takes to be earned back (RFC 1812 §4.3.2.8, RFC 4443 §2.4(f)).
const BURST: u32 = 50;
const EARN: Duration = Duration::from_millis(10);

/// The longest answer: an ICMPv6 error fills the minimum MTU (RFC 4443 §2.4(c)).
pub(crate) const LONGEST: usize = 1280;
/// The longest ICMP answer over IPv4 (RFC 1812 §4.3.2.3).
const LONGEST4: usize = 576;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// `%reject`: communication administratively prohibited.
    Prohibited,
    /// Too big, and must not be fragmented; this much would fit.
    TooBig(usize),
}

/// A bucket of answers.
#[derive(Debug)]
pub(crate) struct Limiter {
    left: u32,
    earned: Time,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { left: BURST, earned: Time::ZERO }
    }
}

impl Limiter {
    /// Takes one answer out, if there is one.
    pub(crate) fn take(&mut self, now: Time) -> bool {
        let earned = now.since(self.earned).as_nanos().checked_div(EARN.as_nanos()).unwrap_or(0);
        if earned > 0 {
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(BURST)).min(BURST);
            self.earned = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Writes the answer to `packet` into `out` and returns its length; `None` where there must be none.
pub(crate) fn answer(
    trouble: Trouble,
    packet: &[u8],
    parsed: &Parsed,
    source4: Option<Ipv4Addr>,
    source6: Option<Ipv6Addr>,
    out: &mut [u8],
) -> Option<usize> {
    let kind = packet.get(parsed.transport).copied().unwrap_or(0);
    // Never about a later fragment, and never about an error (RFC 1122 §3.2.2, RFC 4443 §2.4(e)).
    if parsed.later_fragment {
        return None;
    }
    match (parsed.flow.src, parsed.flow.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let error = parsed.flow.proto == proto::ICMP && !matches!(kind, 0 | 8 | 13 | 14);
            let nobody =
                src.is_unspecified() || src.is_multicast() || src.is_broadcast() || src.is_loopback();
            if error || nobody || dst.is_multicast() || dst.is_broadcast() {
                return None;
            }
            v4(trouble, packet.get(..parsed.len)?, src, source4.unwrap_or(dst), out)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let error = parsed.flow.proto == proto::ICMPV6 && kind < 128;
            let nobody = src.is_unspecified() || src.is_multicast() || src.is_loopback();
            // Too big is said even about multicast (RFC 4443 §2.4(e.3)).
            let multicast = dst.is_multicast() && !matches!(trouble, Trouble::TooBig(_));
            if error || nobody || multicast {
                return None;
            }
            let source = source6.or(Some(dst).filter(|dst| !dst.is_multicast()))?;
            v6(trouble, packet.get(..parsed.len)?, src, source, out)
        }
        _ => None,
    }
}

fn v4(trouble: Trouble, packet: &[u8], to: Ipv4Addr, from: Ipv4Addr, out: &mut [u8]) -> Option<usize> {
    let (code, mtu) = match trouble {
        Trouble::Prohibited => (13, 0),
        Trouble::TooBig(mtu) => (4, u16::try_from(mtu).unwrap_or(u16::MAX)),
    };
    let quoted = packet.get(..packet.len().min(LONGEST4.saturating_sub(28)))?;
    let len = quoted.len().checked_add(28)?;
    let (header, body) = out.get_mut(..len)?.split_first_chunk_mut::<20>()?;
    let [l0, l1] = u16::try_from(len).ok()?.to_be_bytes();
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (from.octets(), to.octets());
    // TOS as RFC 1812 §4.3.2.5 has it: internetwork control.
    *header = [0x45, 0xc0, l0, l1, 0, 0, 0, 0, 64, proto::ICMP, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
    let sum = Sum::default().octets(header).checksum();
    *header.get_mut(10..12)?.as_mut_array::<2>()? = sum.to_be_bytes();
    let (icmp, data) = body.split_first_chunk_mut::<8>()?;
    let [m0, m1] = mtu.to_be_bytes();
    *icmp = [3, code, 0, 0, 0, 0, m0, m1];
    data.copy_from_slice(quoted);
    let sum = Sum::default().octets(body).checksum();
    *body.get_mut(2..4)?.as_mut_array::<2>()? = sum.to_be_bytes();
    Some(len)
}

fn v6(trouble: Trouble, packet: &[u8], to: Ipv6Addr, from: Ipv6Addr, out: &mut [u8]) -> Option<usize> {
    let (kind, code, mtu) = match trouble {
        Trouble::Prohibited => (1, 1, 0),
        Trouble::TooBig(mtu) => (2, 0, u32::try_from(mtu).unwrap_or(u32::MAX)),
    };
    let quoted = packet.get(..packet.len().min(LONGEST.saturating_sub(48)))?;
    let len = quoted.len().checked_add(48)?;
    let (header, body) = out.get_mut(..len)?.split_first_chunk_mut::<40>()?;
    let [l0, l1] = u16::try_from(body.len()).ok()?.to_be_bytes();
    *header.first_chunk_mut::<8>()? = [0x60, 0, 0, 0, l0, l1, proto::ICMPV6, 64];
    header.get_mut(8..24)?.copy_from_slice(&from.octets());
    header.get_mut(24..40)?.copy_from_slice(&to.octets());
    let (icmp, data) = body.split_first_chunk_mut::<8>()?;
    let [m0, m1, m2, m3] = mtu.to_be_bytes();
    *icmp = [kind, code, 0, 0, m0, m1, m2, m3];
    data.copy_from_slice(quoted);
    let sum = pseudo(header.get(8..40)?, proto::ICMPV6, body.len()).octets(body).checksum();
    *body.get_mut(2..4)?.as_mut_array::<2>()? = sum.to_be_bytes();
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_rationed_and_earned_back() {
        let mut limiter = Limiter::default();
        let now = Time::from_secs(100);
        let got = (0..1000).filter(|_| limiter.take(now)).count();
        assert_eq!(got, BURST as usize);
        let later = now.after(EARN * 3);
        assert_eq!((0..1000).filter(|_| limiter.take(later)).count(), 3);
    }
}
