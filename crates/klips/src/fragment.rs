//! Fragments of packets that go out with a header of our own: the kernel does not fragment those.

use crate::extension::FRAGMENT;
use crate::ip::{self, Head};

const FRAGMENT_HEADER: usize = 8;
const MORE: u16 = 0x2000;

/// Hands `each` the fragments of `packet`, none longer than `mtu`, in order. `id` names the packet over IPv6; over IPv4 it has
/// a name. `None` if it cannot be cut so: then nothing, or not all, has been handed over.
pub(crate) fn cut(
    packet: &[u8],
    mtu: usize,
    id: u32,
    mut each: impl FnMut(&[u8]) -> Option<()>,
) -> Option<()> {
    if packet.first()? >> 4 == 4 { v4(packet, mtu, &mut each) } else { v6(packet, mtu, id, &mut each) }
}

fn v4(packet: &[u8], mtu: usize, each: &mut impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
    let head = Head::read(packet)?;
    let (header, payload) = packet.split_at_checked(head.len)?;
    let before = u16::from_be_bytes(*header.get(6..8)?.first_chunk()?);
    // What came as a fragment stays one: its own offset, and more to follow if more were to follow it.
    let (offset, more) = (usize::from(before & 0x1fff).checked_mul(8)?, before & MORE);
    let size = mtu.checked_sub(head.len)? & !7;
    if size == 0 {
        return None;
    }
    let mut fragment = Vec::with_capacity(mtu);
    let mut done = 0_usize;
    for part in payload.chunks(size) {
        fragment.clear();
        fragment.extend_from_slice(header);
        fragment.extend_from_slice(part);
        let last = done.checked_add(part.len())? == payload.len();
        let word =
            u16::try_from(offset.checked_add(done)?.checked_div(8)?).ok()? | if last { more } else { MORE };
        fragment.get_mut(6..8)?.copy_from_slice(&word.to_be_bytes());
        if done > 0 {
            keep_copied_options(&mut fragment)?;
        }
        ip::settle(&mut fragment)?;
        each(&fragment)?;
        done = done.checked_add(part.len())?;
    }
    Some(())
}

/// Options that are not to be copied into later fragments become no operation (RFC 791 §3.1: the first bit of their type).
fn keep_copied_options(fragment: &mut [u8]) -> Option<()> {
    let end = Head::read(fragment)?.len;
    let mut at = 20_usize;
    while at < end {
        let kind = *fragment.get(at)?;
        let len = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(*fragment.get(at.checked_add(1)?)?).max(1),
        };
        let next = at.checked_add(len)?.min(end);
        if kind & 0x80 == 0 {
            fragment.get_mut(at..next)?.fill(1);
        }
        at = next;
    }
    Some(())
}

fn v6(packet: &[u8], mtu: usize, id: u32, each: &mut impl FnMut(&[u8]) -> Option<()>) -> Option<()> {
    let head = Head::read(packet)?;
    let (header, payload) = packet.split_at_checked(head.len)?;
    let size = mtu.checked_sub(head.len)?.checked_sub(FRAGMENT_HEADER)? & !7;
    if size == 0 {
        return None;
    }
    let mut fragment = Vec::with_capacity(mtu);
    let mut done = 0_usize;
    for part in payload.chunks(size) {
        fragment.clear();
        fragment.extend_from_slice(header);
        let last = done.checked_add(part.len())? == payload.len();
        let [o0, o1] = (u16::try_from(done).ok()? | u16::from(!last)).to_be_bytes();
        let [i0, i1, i2, i3] = id.to_be_bytes();
        fragment.extend_from_slice(&[head.next, 0, o0, o1, i0, i1, i2, i3]);
        fragment.extend_from_slice(part);
        head.name_next(&mut fragment, FRAGMENT)?;
        ip::settle(&mut fragment)?;
        each(&fragment)?;
        done = done.checked_add(part.len())?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Parsed;

    fn all(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let mut fragments = Vec::new();
        cut(packet, mtu, 0xdead_beef, |fragment| {
            fragments.push(fragment.to_vec());
            Some(())
        })
        .unwrap();
        fragments
    }

    #[test]
    fn ipv4_fragments_make_up_the_packet() {
        let mut packet =
            vec![0x46, 7, 0, 0, 1, 2, 0x40, 0, 64, 50, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 7, 3, 4, 0];
        packet.extend((0..3000_u32).map(|n| n as u8));
        ip::settle(&mut packet).unwrap();
        let fragments = all(&packet, 1500);
        assert_eq!(fragments.iter().map(Vec::len).collect::<Vec<_>>(), [1496, 1496, 80]);
        let mut payload: Vec<u8> = Vec::new();
        for (index, fragment) in fragments.iter().enumerate() {
            let parsed = Parsed::new(fragment).unwrap();
            assert!(parsed.fragment && !parsed.dont_fragment);
            assert_eq!(parsed.later_fragment, index > 0);
            assert_eq!(fragment[4..6], [1, 2]);
            // Record route is in the first fragment alone.
            assert_eq!(fragment[20] == 7, index == 0);
            let word = u16::from_be_bytes([fragment[6], fragment[7]]);
            assert_eq!((usize::from(word & 0x1fff) * 8, word & MORE != 0), (payload.len(), index < 2));
            payload.extend(&fragment[24..]);
        }
        assert_eq!(payload[..], packet[24..]);
        assert_eq!(cut(&packet, 30, 0, |_| Some(())), None);
    }

    #[test]
    fn ipv6_fragments_make_up_the_packet() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 51, 64];
        packet.extend([3; 32]);
        packet.extend((0..2000_u32).map(|n| n as u8));
        ip::settle(&mut packet).unwrap();
        let fragments = all(&packet, 1280);
        assert_eq!(fragments.iter().map(Vec::len).collect::<Vec<_>>(), [1280, 816]);
        let mut payload: Vec<u8> = Vec::new();
        for fragment in &fragments {
            let parsed = Parsed::new(fragment).unwrap();
            assert!(parsed.fragment);
            assert_eq!(
                (fragment[6], fragment[40], &fragment[44..48]),
                (44, 51, &[0xde, 0xad, 0xbe, 0xef][..])
            );
            payload.extend(&fragment[48..]);
        }
        assert_eq!(payload[..], packet[40..]);
    }
}
