//! Keys as PF_KEY carries them: whether an algorithm takes them, in the order pf_key(7P) finds fault.

use ipsec_core::algorithm::{Auth, Encryption};

/// DES keys under which encrypting twice, or with the partner key, gives the plaintext back; parity set (FIPS 74).
const WEAK: [u64; 16] = [
    0x0101_0101_0101_0101,
    0xfefe_fefe_fefe_fefe,
    0xe0e0_e0e0_f1f1_f1f1,
    0x1f1f_1f1f_0e0e_0e0e,
    0x011f_011f_010e_010e,
    0x1f01_1f01_0e01_0e01,
    0x01e0_01e0_01f1_01f1,
    0xe001_e001_f101_f101,
    0x01fe_01fe_01fe_01fe,
    0xfe01_fe01_fe01_fe01,
    0x1fe0_1fe0_0ef1_0ef1,
    0xe01f_e01f_f10e_f10e,
    0x1ffe_1ffe_0efe_0efe,
    0xfe1f_fe1f_fe0e_fe0e,
    0xe0fe_e0fe_f1fe_f1fe,
    0xfee0_fee0_fef1_fef1,
];

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
    if encryption == Encryption::TripleDesCbc {
        check_triple_des(keymat)?;
    }
    if row.has_key_bits(key) { Ok(()) } else { Err(BadKey::Context) }
}

fn check_triple_des(keymat: &mut [u8]) -> Result<(), BadKey> {
    for octet in keymat.iter_mut() {
        let seven = *octet & 0xfe;
        *octet = seven | u8::from(seven.count_ones().is_multiple_of(2));
    }
    let (keys, _) = keymat.as_chunks::<8>();
    let weak = keys.iter().filter(|key| WEAK.contains(&u64::from_be_bytes(**key))).count();
    let [one, two, three] = keys else { return Err(BadKey::Bits) };
    if weak > 1 || one == two || two == three { Err(BadKey::Weak) } else { Ok(()) }
}
