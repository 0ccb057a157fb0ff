//! Explicit congestion notification through tunnels (RFC 6040).

use crate::checksum::updated;
use crate::discard::Discard;

/// The two bits of TOS or traffic class that ECN owns.
const MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// What becomes of the inner field on the way out of a tunnel (RFC 6040 §4.2, figure 4).
const fn decapsulated(inner: u8, outer: u8) -> Result<u8, Discard> {
    match (inner & MASK, outer & MASK) {
        // A congested queue asked for this packet to be dropped; its sender would not hear the mark.
        (NOT_ECT, CE) => Err(Discard::CongestionNotCarried),
        (NOT_ECT, _) => Ok(NOT_ECT),
        (_, CE) => Ok(CE),
        (inner, ECT_1) if inner != CE => Ok(ECT_1),
        (inner, _) => Ok(inner),
    }
}

/// Carries the outer congestion mark over to the inner packet, whose first octets are an IPv4 or IPv6 header.
pub(crate) fn decapsulate(packet: &mut [u8], outer: u8) -> Result<(), Discard> {
    let Some((&mut version, [second, ..])) = packet.split_first_mut() else {
        return Err(Discard::Malformed);
    };
    if version >> 4 == 6 {
        let ecn = decapsulated(*second >> 4, outer)?;
        *second = *second & !(MASK << 4) | ecn << 4;
        return Ok(());
    }
    let before = *second;
    let after = before & !MASK | decapsulated(before, outer)?;
    if after != before {
        *second = after;
        let Some([_, _, _, _, _, _, _, _, _, _, c0, c1]) = packet.first_chunk_mut::<12>() else {
            return Err(Discard::Malformed);
        };
        // The other octet of the word cancels out.
        [*c0, *c1] = updated(u16::from_be_bytes([*c0, *c1]), before.into(), after.into()).to_be_bytes();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6040 §4.2, figure 4, row by row; `None` is "drop".
    const FIGURE_4: [[Option<u8>; 4]; 4] = [
        // outer:  Not-ECT      ECT(1)       ECT(0)       CE
        /* Not-ECT */
        [Some(0), Some(0), Some(0), None],
        /* ECT(1)  */ [Some(1), Some(1), Some(1), Some(3)],
        /* ECT(0)  */ [Some(2), Some(1), Some(2), Some(3)],
        /* CE      */ [Some(3), Some(3), Some(3), Some(3)],
    ];

    fn sum(header: &[u8]) -> u16 {
        let sum = header.chunks(2).fold(0_u32, |sum, w| sum + u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    #[test]
    fn the_mark_is_carried_as_rfc_6040_figure_4_says() {
        for dscp in [0_u8, 0x28, 0xb8, 0xfc] {
            for inner in 0..4_u8 {
                for outer in 0..4_u8 {
                    let expected = FIGURE_4[usize::from(inner)][usize::from(outer)];
                    let mut packet = [0; 20];
                    packet[..12].copy_from_slice(&[0x45, dscp | inner, 0, 20, 7, 7, 0, 0, 64, 17, 0, 0]);
                    let checksum = !sum(&packet);
                    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
                    let result = decapsulate(&mut packet, 0xa0 | outer);
                    assert_eq!(result.is_ok(), expected.is_some());
                    assert_eq!(packet[1], dscp | expected.unwrap_or(inner));
                    assert_eq!(sum(&packet), 0xffff);

                    let class = dscp | inner;
                    let mut packet = [0_u8; 40];
                    (packet[0], packet[1]) = (0x60 | class >> 4, class << 4 | 0xe);
                    let result = decapsulate(&mut packet, outer);
                    assert_eq!(result.is_ok(), expected.is_some());
                    let class = dscp | expected.unwrap_or(inner);
                    assert_eq!((packet[0], packet[1]), (0x60 | class >> 4, class << 4 | 0xe));
                }
            }
        }
    }
}
