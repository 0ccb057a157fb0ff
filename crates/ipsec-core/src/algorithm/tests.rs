use super::*;

/// pfkey-illumos §1.5: the numbers and sizes key managers have compiled in.
#[test]
fn numbers_and_sizes_of_pf_key() {
    let encryption = [
        ("3des-cbc", 3, 192..=192, 0, 8, 0),
        ("null", 11, 0..=0, 0, 0, 0),
        ("aes-cbc", 12, 128..=256, 0, 16, 0),
        ("aes-ccm8", 14, 128..=256, 24, 8, 8),
        ("aes-ccm12", 15, 128..=256, 24, 8, 12),
        ("aes-ccm16", 16, 128..=256, 24, 8, 16),
        ("aes-gcm8", 18, 128..=256, 32, 8, 8),
        ("aes-gcm12", 19, 128..=256, 32, 8, 12),
        ("aes-gcm16", 20, 128..=256, 32, 8, 16),
    ];
    for (name, number, bits, salt, iv, icv) in encryption {
        let row = Encryption::from_number(number).unwrap().row();
        assert_eq!((row.name(), row.min_bits..=row.max_bits, row.salt_bits), (name, bits, salt));
        assert_eq!((row.iv, row.icv), (iv, icv), "{name}");
    }
    let auth = [
        ("hmac-md5", 2, 128, 12),
        ("hmac-sha1", 3, 160, 12),
        ("hmac-sha256", 5, 256, 16),
        ("hmac-sha384", 6, 384, 24),
        ("hmac-sha512", 7, 512, 32),
    ];
    for (name, number, bits, icv) in auth {
        let row = Auth::from_number(number).unwrap().row();
        assert_eq!((row.name(), row.min_bits, row.max_bits, row.icv), (name, bits, bits, icv));
    }
}

#[test]
fn no_number_and_no_name_is_used_twice() {
    let mut numbers: Vec<u8> = ENCRYPTION.iter().map(|row| row.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), ENCRYPTION.len());
    let mut numbers: Vec<u8> = AUTH.iter().map(|row| row.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), AUTH.len());
    for row in &ENCRYPTION {
        for name in row.names {
            assert_eq!(Encryption::from_name(name), Some(row.algorithm), "{name}");
            assert_eq!(
                Encryption::from_name(&name.to_uppercase().replace('-', "_")),
                Some(row.algorithm),
                "{name}"
            );
        }
    }
    for row in &AUTH {
        for name in row.names {
            assert_eq!(Auth::from_name(name), Some(row.algorithm), "{name}");
        }
    }
    // Numbers that are not PF_KEY's are ours and leave PF_KEY's alone.
    for (number, rfc) in
        ENCRYPTION.iter().map(|r| (r.number, r.rfc)).chain(AUTH.iter().map(|r| (r.number, r.rfc)))
    {
        assert!(number <= 20 || number >= 128, "{rfc}");
    }
}

#[test]
fn nothing_is_found_under_a_name_or_number_nobody_has() {
    for name in ["", "aes-", "aes cbc", "des-cbc", "sha3", "aes-gcm16x"] {
        assert_eq!((Encryption::from_name(name), Auth::from_name(name)), (None, None), "{name}");
    }
    for number in [0, 1, 2, 7, 17, 21, 127, 255] {
        assert_eq!(Encryption::from_number(number), None);
    }
    assert_eq!((Auth::from_number(0), Auth::from_number(1), Auth::from_number(4)), (None, None, None));
}

#[test]
fn key_lengths_are_exactly_those_of_the_table() {
    let lengths =
        |row: &Row<Encryption>| (0..600).filter(|&octets| row.has_keymat(octets)).collect::<Vec<_>>();
    for row in &ENCRYPTION {
        assert_eq!(lengths(row), row.keymat_lengths().collect::<Vec<_>>(), "{}", row.name());
    }
    assert_eq!(lengths(Encryption::Null.row()), [0]);
    assert_eq!(lengths(Encryption::AesCbc.row()), [16, 24, 32]);
    assert_eq!(lengths(Encryption::AesGcm16.row()), [20, 28, 36]);
    assert_eq!(lengths(Encryption::AesCcm8.row()), [19, 27, 35]);
    assert_eq!(lengths(Encryption::ChaCha20Poly1305.row()), [36]);
    // 160 bits lie between the limits of AES and are no AES key.
    assert!(!Encryption::AesCbc.row().has_key_bits(160));
    assert_eq!(Auth::AesGmac.row().keymat_lengths().collect::<Vec<_>>(), [20, 28, 36]);
}

#[test]
fn transforms_are_named_as_in_the_sa_table() {
    let name = |protocol, encryption, auth| Suite { encryption, auth }.transform_name(protocol);
    let esp = |encryption, auth| name(crate::Protocol::Esp, Some(encryption), auth);
    assert_eq!(esp(Encryption::TripleDesCbc, Some(Auth::HmacMd5)), "ESP_3DES_HMAC_MD5");
    assert_eq!(esp(Encryption::AesCbc, Some(Auth::HmacSha256)), "ESP_AES_HMAC_SHA2_256");
    assert_eq!(esp(Encryption::AesGcm16, None), "ESP_AES_GCM16");
    assert_eq!(name(crate::Protocol::Ah, None, Some(Auth::HmacSha1)), "AH_HMAC_SHA1");
    assert_eq!(name(crate::Protocol::Ipip, None, None), "IPIP");
}
