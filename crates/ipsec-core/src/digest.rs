//! Hashes that the protocols fix.

use aws_lc_rs::digest;

/// SHA-1 of the pieces one after the other: what NAT detection (RFC 7296 §2.23) and certificate requests (§3.7) are
/// made with. Nothing depends on it being hard to find collisions.
pub fn sha1(pieces: &[&[u8]]) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    pieces.iter().for_each(|piece| context.update(piece));
    let mut hash = [0; 20];
    hash.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

#[cfg(test)]
mod tests {
    /// FIPS 180-4, the example "abc".
    #[test]
    fn the_example_of_sha_1_holds() {
        assert_eq!(hex::encode(super::sha1(&[b"a", b"bc"])), "a9993e364706816aba3e25717850c26c9cd0d89d");
    }
}
