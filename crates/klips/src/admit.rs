//! What may reach the device: inner packets that the SA which carried them is entitled to carry (RFC 4301 §5.2).
//!
//! [`Admitted`] is the proof, and only this module makes one.

use crate::bundle::MOST;
use crate::discard::Discard;
use crate::ecn;
use crate::eroute::Passed;
use crate::open::Payload;
use crate::packet::{Parsed, proto};
use crate::plane::Plane;
use crate::sa::Sa;
use arrayvec::ArrayVec;
use core::net::IpAddr;
use core::ops::Range;
use ipsec_core::Flow;
use std::sync::Arc;

/// An inner packet that its SA was entitled to carry. Nothing else reaches the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    at: usize,
    len: usize,
}

impl Admitted {
    /// Where it lies in the receive buffer.
    pub(crate) const fn range(&self) -> Range<usize> {
        self.at..self.at.saturating_add(self.len)
    }

    #[cfg(test)]
    pub(crate) const fn for_test(at: usize, len: usize) -> Self {
        Self { at, len }
    }
}

/// Lets the payload of an SA in tunnel mode in as an inner packet; `tos` is that of the header around it, `around` the SAs that
/// were around this one, from the inside to the outside.
///
/// `entitled` is the flow that this SA was last found entitled to carry; to begin with, none.
//= https://www.rfc-editor.org/rfc/rfc4301#section-5.2
//# If an IPsec system receives an inbound packet on an SA and the packet's header fields are not consistent with the
//# selectors for the SA, it MUST discard the packet.
pub(crate) fn tunnelled(
    plane: &Plane,
    (sa, around): (&Sa, &[Arc<Sa>]),
    tos: u8,
    payload: Payload<'_>,
    entitled: &mut Option<Entitled>,
) -> Result<Admitted, Discard> {
    within(payload, tos, entitled, |flow| entitles(plane, sa, around, flow))
}

/// Lets a packet in that lies in another between `ends`, where policy wants IPComp in tunnel mode there that was not worth it
/// for this one. `None` if policy does not.
pub(crate) fn uncompressed(
    plane: &Plane,
    (src, dst): (IpAddr, IpAddr),
    around: &[Arc<Sa>],
    tos: u8,
    payload: Payload<'_>,
) -> Option<Admitted> {
    let passed = passed(Passed::uncompressed(src, dst), around);
    within(payload, tos, &mut None, |flow| plane.admission().admits(&passed, flow)).ok()
}

fn within(
    Payload { octets, at, next_header }: Payload<'_>,
    tos: u8,
    entitled: &mut Option<Entitled>,
    entitles: impl FnOnce(&Flow) -> bool,
) -> Result<Admitted, Discard> {
    let version = match next_header {
        proto::IPIP => 4,
        proto::IPV6 => 6,
        _ => return Err(Discard::BadNextHeader),
    };
    if octets.first().is_none_or(|first| first >> 4 != version) {
        return Err(Discard::Malformed);
    }
    let seen = Entitled::read(octets);
    let len = match seen {
        // The same question as for the packet before has the same answer.
        Some((seen, len)) if Some(seen) == *entitled => len,
        _ => {
            let parsed = Parsed::new(octets)?;
            if !entitles(&parsed.flow) {
                return Err(Discard::PolicyMismatch);
            }
            *entitled = seen.map(|(seen, _)| seen);
            parsed.len
        }
    };
    ecn::decapsulate(octets, tos)?;
    // What follows the inner packet is TFC padding (RFC 4303 §2.7).
    Ok(Admitted { at, len })
}

/// Lets a packet in that travelled in transport mode: its header was the outer one, so that its addresses are those of the
/// SA already.
pub(crate) fn transported(
    plane: &Plane,
    (sa, around): (&Sa, &[Arc<Sa>]),
    octets: &[u8],
    at: usize,
) -> Result<Admitted, Discard> {
    let parsed = Parsed::new(octets)?;
    if !entitles(plane, sa, around, &parsed.flow) {
        return Err(Discard::PolicyMismatch);
    }
    Ok(Admitted { at, len: parsed.len })
}

/// The SA's selectors, and policy for those that have none.
fn entitles(plane: &Plane, sa: &Sa, around: &[Arc<Sa>], flow: &Flow) -> bool {
    let by_policy = || plane.admission().admits(&passed(Passed::of(sa), around), flow);
    sa.entitles(flow) && (sa.reqid().is_none() || by_policy())
}

/// What policy looks at of the innermost SA and of those around it.
fn passed(innermost: Passed, around: &[Arc<Sa>]) -> ArrayVec<Passed, { MOST + 1 }> {
    [innermost].into_iter().chain(around.iter().map(|sa| Passed::of(sa))).take(MOST + 1).collect()
}

/// All that selectors look at in a TCP or UDP packet without options, extension headers or fragmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entitled {
    src: u128,
    dst: u128,
    ports: u32,
    version: u8,
    proto: u8,
}

impl Entitled {
    /// The flow of such a packet, and its length; `None` for any other packet, and for one too short to have ports.
    fn read(octets: &[u8]) -> Option<(Self, usize)> {
        let (seen, transport, len) =
            if let [0x45, _, l0, l1, _, _, f0, f1, _, number, _, _, rest @ ..] = octets {
                let &[s0, s1, s2, s3, d0, d1, d2, d3, p0, p1, p2, p3] = rest.first_chunk()?;
                if u16::from_be_bytes([*f0, *f1]) & 0x3fff != 0 {
                    return None;
                }
                let seen = Self {
                    src: u32::from_be_bytes([s0, s1, s2, s3]).into(),
                    dst: u32::from_be_bytes([d0, d1, d2, d3]).into(),
                    ports: u32::from_be_bytes([p0, p1, p2, p3]),
                    version: 4,
                    proto: *number,
                };
                (seen, 20, usize::from(u16::from_be_bytes([*l0, *l1])))
            } else if let [0x60..=0x6f, _, _, _, l0, l1, number, _, rest @ ..] = octets {
                let (src, rest) = rest.split_first_chunk()?;
                let (dst, rest) = rest.split_first_chunk()?;
                let seen = Self {
                    src: u128::from_be_bytes(*src),
                    dst: u128::from_be_bytes(*dst),
                    ports: u32::from_be_bytes(*rest.first_chunk()?),
                    version: 6,
                    proto: *number,
                };
                (seen, 40, usize::from(u16::from_be_bytes([*l0, *l1])).saturating_add(40))
            } else {
                return None;
            };
        let ported = matches!(seen.proto, proto::TCP | proto::UDP) && len.saturating_sub(transport) >= 8;
        (ported && len <= octets.len()).then_some((seen, len))
    }
}
