//! What is on the wire: whole IP packets, fragments put together again.

/// Where the transport header of a packet without options or extension headers begins.
pub(crate) fn header(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { usize::from(packet[0] & 15) * 4 } else { 40 }
}

/// The protocol that the IP header names.
pub(crate) fn next(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[9] } else { packet[6] }
}

/// Lengths and header checksum put right.
pub(crate) fn settle(packet: &mut [u8]) {
    let len = packet.len() as u16;
    if packet[0] >> 4 == 4 {
        let header = header(packet);
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[10..12].fill(0);
        let sum = !crate::device::sum(&packet[..header], 0);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
    }
}

/// Puts the fragments of one packet together, as the receiving kernel does. Anything else comes back as it is.
pub(crate) fn reassemble(packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut whole: Vec<Vec<u8>> = Vec::new();
    let mut parts: Option<Vec<u8>> = None;
    for packet in packets {
        let (offset, more, payload, first) = if packet[0] >> 4 == 4 {
            let word = u16::from_be_bytes([packet[6], packet[7]]);
            if word & 0x3fff == 0 {
                whole.push(packet);
                continue;
            }
            let at = header(&packet);
            let mut first = packet[..at].to_vec();
            (first[6], first[7]) = (0, 0);
            (usize::from(word & 0x1fff) * 8, word & 0x2000 != 0, packet[at..].to_vec(), first)
        } else {
            if packet[6] != 44 {
                whole.push(packet);
                continue;
            }
            let word = u16::from_be_bytes([packet[42], packet[43]]);
            let mut first = packet[..40].to_vec();
            first[6] = packet[40];
            (usize::from(word & !7), word & 1 != 0, packet[48..].to_vec(), first)
        };
        let begun = parts.get_or_insert(first);
        let head = header(begun);
        assert_eq!(begun.len() - head, offset, "fragments out of order");
        begun.extend(payload);
        if !more {
            let mut done = parts.take().unwrap();
            settle(&mut done);
            whole.push(done);
        }
    }
    assert!(parts.is_none(), "the last fragment is missing");
    whole
}
