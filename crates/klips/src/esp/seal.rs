//! The outbound side: what stands around the payload before it is sealed.

/// Writes padding, pad length and next header into all of `room`, which follows the payload (RFC 4303 §2.4–§2.6).
///
/// The default padding is 1, 2, 3 …; receivers check it.
pub(crate) fn trailer(room: &mut [u8], next_header: u8) -> Option<()> {
    let (padding, end) = room.split_last_chunk_mut::<2>()?;
    for (octet, value) in padding.iter_mut().zip(1..=u8::MAX) {
        *octet = value;
    }
    *end = [u8::try_from(padding.len()).ok()?, next_header];
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trailer_counts_its_padding() {
        let mut room = [0xee; 7];
        trailer(&mut room, 4).unwrap();
        assert_eq!(room, [1, 2, 3, 4, 5, 5, 4]);
        let mut none = [0xee; 2];
        trailer(&mut none, 41).unwrap();
        assert_eq!(none, [0, 41]);
        assert_eq!(trailer(&mut [0; 1], 4), None);
        assert_eq!(trailer(&mut [0; 258], 4), None, "255 octets of padding at most");
    }
}
