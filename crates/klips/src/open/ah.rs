//! AH: nothing is decrypted, the packet stays as it is.

use super::Verified;
use crate::ah;
use crate::discard::Discard;
use ipsec_core::transform::Mac;

/// Verifies a packet whose AH begins after `head` octets of IP header and has the number `seq`.
pub(crate) fn verify(
    mac: &Mac,
    packet: &[u8],
    head: usize,
    (seq, esn): (u64, bool),
    scratch: &mut Vec<u8>,
) -> Result<Verified, Discard> {
    let high = esn.then_some((seq >> 32) as u32);
    if ah::verify(mac, packet, head, high, scratch) { Ok(Verified { seq }) } else { Err(Discard::Forged) }
}
