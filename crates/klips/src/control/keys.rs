//! Keys as PF_KEY carries them: whether an algorithm takes them, in the order pf_key(7P) finds fault.

use ipsec_core::algorithm::{Auth, Encryption, WeakKey};

/// Why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadKey {
    /// Not a length of the algorithm.
    Bits,
    /// Within the algorithm's range, but between two of its lengths: the cipher itself refuses it.
    Context,
    /// One of those keys that do not encrypt.
    Weak,
}

/// Whether `auth` takes a key of so many bits.
pub(super) const fn check_auth(auth: Auth, bits: u32) -> Result<(), BadKey> {
    let row = auth.row();
    match bits.checked_sub(row.salt_bits as u32) {
        Some(bits) if row.has_key_bits(bits) => Ok(()),
        Some(bits) if bits > row.min_bits as u32 && bits < row.max_bits as u32 => Err(BadKey::Context),
        _ => Err(BadKey::Bits),
    }
}

/// Whether `encryption` takes `keymat`, which is `bits` long with its salt.
///
/// DES keys get their parity set first: peers do not agree on whether to bother.
pub(super) fn check_encryption(encryption: Encryption, bits: u32, keymat: &mut [u8]) -> Result<(), BadKey> {
    let row = encryption.row();
    let Some(key) = bits.checked_sub(u32::from(row.salt_bits)).filter(|_| encryption != Encryption::Null)
    else {
        return Err(BadKey::Bits);
    };
    if key < u32::from(row.min_bits) || key > u32::from(row.max_bits) {
        return Err(BadKey::Bits);
    }
    encryption.prepare_key(keymat).map_err(|WeakKey| BadKey::Weak)?;
    if row.has_key_bits(key) { Ok(()) } else { Err(BadKey::Context) }
}
