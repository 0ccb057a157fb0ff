//! AH (RFC 4302): the header, and what of a packet it authenticates.
//!
//! Everything is authenticated but what routers may change: those fields count as zero. The message is put together in a
//! scratch buffer, once for each packet; the packet itself is never touched for it.

use crate::extension::{DESTINATION, HOP_BY_HOP, ROUTING, Walk};
use ipsec_core::Spi;
use ipsec_core::transform::Mac;

/// Octets before the ICV: next header, length, reserved, SPI, sequence number.
const FIXED: usize = 12;

/// Octets of AH as we write it (RFC 4302 §2.2): whole words over IPv4, pairs of them over IPv6.
pub(crate) fn len(mac: &Mac, v4: bool) -> usize {
    FIXED.saturating_add(mac.icv_len()).next_multiple_of(if v4 { 4 } else { 8 })
}

/// What stands in clear in an AH: nothing to believe before it has been verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// What follows.
    pub(crate) next: u8,
    /// Octets of AH.
    pub(crate) len: usize,
    pub(crate) spi: u32,
    pub(crate) seq: u32,
}

impl Header {
    /// Reads it from the front of `octets`.
    pub(crate) fn read(octets: &[u8]) -> Option<Self> {
        let &[next, words, _, _, s0, s1, s2, s3, n0, n1, n2, n3] = octets.first_chunk::<FIXED>()?;
        let len = usize::from(words).saturating_add(2).saturating_mul(4);
        (len >= FIXED && len <= octets.len()).then_some(Self {
            next,
            len,
            spi: u32::from_be_bytes([s0, s1, s2, s3]),
            seq: u32::from_be_bytes([n0, n1, n2, n3]),
        })
    }

    /// Whether an AH of this algorithm may be so long. Over IPv4 some peers fill pairs of words, as if it were IPv6.
    pub(crate) fn fits(&self, mac: &Mac, v4: bool) -> bool {
        self.len == len(mac, v4) || (v4 && self.len == len(mac, false))
    }
}

/// What an AH of ours says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    pub(crate) next: u8,
    pub(crate) spi: Spi,
    pub(crate) seq: u64,
    pub(crate) esn: bool,
}

/// Writes AH into `packet`, in which it has its place behind `head` octets of IP header, all of whose other fields are
/// final. `None` if there is no place for it, or an IPv6 routing header still leads elsewhere.
pub(crate) fn sign(
    mac: &Mac,
    packet: &mut [u8],
    head: usize,
    fields: &Fields,
    scratch: &mut Vec<u8>,
) -> Option<()> {
    let v4 = packet.first()? >> 4 == 4;
    let place = packet.get_mut(head..)?.get_mut(..len(mac, v4))?;
    place.fill(0);
    let words = u8::try_from(place.len().checked_div(4)?.checked_sub(2)?).ok()?;
    place.first_chunk_mut::<2>()?.copy_from_slice(&[fields.next, words]);
    place.get_mut(4..8)?.copy_from_slice(&fields.spi.0.to_be_bytes());
    place.get_mut(8..12)?.copy_from_slice(&(fields.seq as u32).to_be_bytes());
    let high = fields.esn.then_some((fields.seq >> 32) as u32);
    message(mac, packet, head, high, scratch)?;
    let icv = packet.get_mut(head.checked_add(FIXED)?..)?.get_mut(..mac.icv_len())?;
    mac.sign(fields.seq, scratch, icv).then_some(())
}

/// Says whether the ICV of `packet`, whose AH begins after `head` octets, is right.
//= https://www.rfc-editor.org/rfc/rfc4302#section-3.4.4
//# If the computed and received ICVs match, then the datagram is valid, and it is accepted.
pub(crate) fn verify(
    mac: &Mac,
    packet: &[u8],
    head: usize,
    high: Option<u32>,
    scratch: &mut Vec<u8>,
) -> bool {
    let icv = || packet.get(head.checked_add(FIXED)?..)?.get(..mac.icv_len());
    match (message(mac, packet, head, high, scratch), icv()) {
        (Some(()), Some(icv)) => mac.verify(scratch, icv),
        _ => false,
    }
}

/// What is authenticated of a packet (RFC 4302 §3.3.3), to `scratch`.
fn message(mac: &Mac, packet: &[u8], head: usize, high: Option<u32>, scratch: &mut Vec<u8>) -> Option<()> {
    scratch.clear();
    scratch.extend_from_slice(packet);
    let (ip, ah) = scratch.split_at_mut_checked(head)?;
    clear_mutable(ip)?;
    ah.get_mut(FIXED..)?.get_mut(..mac.icv_len())?.fill(0);
    if let Some(high) = high {
        // RFC 4302 §3.3.3: the half that is never sent counts, at the end.
        scratch.extend_from_slice(&high.to_be_bytes());
    }
    Some(())
}

/// Clears what changes on the way, and foretells what changes predictably (RFC 4302 §3.3.3.1, Appendix A).
fn clear_mutable(ip: &mut [u8]) -> Option<()> {
    if ip.first()? >> 4 == 4 {
        // TOS, flags and fragment offset, TTL, checksum.
        *ip.get_mut(1)? = 0;
        ip.get_mut(6..9)?.fill(0);
        ip.get_mut(10..12)?.fill(0);
        let (fixed, options) = ip.split_first_chunk_mut::<20>()?;
        if let Some(last) = clear_options(options)? {
            fixed.get_mut(16..20)?.copy_from_slice(&last);
        }
        return Some(());
    }
    let fixed = ip.first_chunk_mut::<40>()?;
    *fixed.first_chunk_mut::<4>()? = [0x60, 0, 0, 0];
    *fixed.get_mut(7)? = 0;
    let mut walk = Walk::new(*fixed.get(6)?);
    while walk.at() < ip.len() {
        let extension = walk.step(ip).ok()??;
        let octets = ip.get_mut(extension.at..extension.end)?;
        match extension.kind {
            HOP_BY_HOP | DESTINATION => clear_ipv6_options(octets.get_mut(2..)?)?,
            // Segments left to visit rearrange the addresses on the way; sources of such packets are refused (RFC 5095).
            ROUTING if *octets.get(3)? == 0 => {}
            _ => return None,
        }
    }
    Some(())
}

/// Clears the IPv4 options that change on the way; the final destination, if a source route still leads there.
fn clear_options(options: &mut [u8]) -> Option<Option<[u8; 4]>> {
    let mut last = None;
    let mut at = 0_usize;
    while let Some(&kind) = options.get(at) {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(*options.get(at.checked_add(1)?)?),
        };
        let end = at.checked_add(len).filter(|_| len > 0)?;
        let option = options.get_mut(at..end)?;
        match kind {
            // No operation; security, extended security, commercial security; router alert; multi-destination delivery.
            1 | 130 | 133 | 134 | 148 | 149 => {}
            // Loose and strict source routes: with addresses left to visit the last of them is where AH is verified.
            131 | 137 => {
                let pointer = usize::from(*option.get(2)?);
                if pointer <= len {
                    last = option.last_chunk::<4>().copied();
                }
                option.fill(0);
            }
            _ => option.fill(0),
        }
        at = end;
    }
    Some(last)
}

/// Clears the data of IPv6 options that say they change on the way (RFC 8200 §4.2: the third bit of their type).
fn clear_ipv6_options(options: &mut [u8]) -> Option<()> {
    let mut at = 0_usize;
    while let Some(&kind) = options.get(at) {
        if kind == 0 {
            at = at.checked_add(1)?;
            continue;
        }
        let data = at.checked_add(2)?;
        let end = data.checked_add(usize::from(*options.get(at.checked_add(1)?)?))?;
        let octets = options.get_mut(data..end)?;
        if kind & 0x20 != 0 {
            octets.fill(0);
        }
        at = end;
    }
    Some(())
}

#[cfg(test)]
mod tests;
