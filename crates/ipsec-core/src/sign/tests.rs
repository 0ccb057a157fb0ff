use super::*;

fn octets(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn keys() -> Vec<PrivateKey> {
    let kinds = [
        KeyKind::Rsa,
        KeyKind::Ec(Curve::P256),
        KeyKind::Ec(Curve::P384),
        KeyKind::Ec(Curve::P521),
        KeyKind::Ed25519,
    ];
    kinds.map(|kind| PrivateKey::generate(kind, 2048).unwrap().0).into()
}

fn schemes() -> Vec<Scheme> {
    let mut all = vec![Scheme::Ed25519];
    for hash in SignatureHash::ALL {
        all.extend([Scheme::RsaPkcs1(hash), Scheme::RsaPss(hash), Scheme::Ecdsa(hash)]);
    }
    all.extend(Curve::ALL.map(Scheme::EcdsaRaw));
    all
}

/// Whatever signs is verified by its own scheme and key only, and no flipped bit or cut end passes.
#[test]
fn a_signature_is_good_for_its_key_its_scheme_and_its_octets_only() {
    let keys = keys();
    let mut signed = 0;
    for key in &keys {
        for scheme in schemes() {
            let Ok(signature) = key.sign(scheme, b"octets") else { continue };
            signed += 1;
            for other in &keys {
                for by in schemes() {
                    let good = core::ptr::eq(key, other) && by == scheme;
                    assert_eq!(
                        other.public().verify(by, b"octets", &signature).is_ok(),
                        good,
                        "{key:?} {scheme:?} {by:?}"
                    );
                }
            }
            let public = key.public();
            assert_eq!(public.verify(scheme, b"octet", &signature), Err(SignError::Invalid));
            for at in 0..signature.len() {
                let mut forged = signature.clone();
                forged[at] ^= 1 << (at % 8);
                assert_eq!(
                    public.verify(scheme, b"octets", &forged),
                    Err(SignError::Invalid),
                    "{scheme:?} {at}"
                );
                assert_eq!(public.verify(scheme, b"octets", &signature[..at]), Err(SignError::Invalid));
            }
            let mut longer = signature.clone();
            longer.push(0);
            assert_eq!(public.verify(scheme, b"octets", &longer), Err(SignError::Invalid));
        }
    }
    // RSA six ways, each curve two, Ed25519 one.
    assert_eq!(signed, 6 + 3 * 2 + 1);
}

/// A signature of zeros was once good for every message (CVE-2022-21449).
#[test]
fn a_signature_of_zeros_is_none() {
    for key in keys() {
        for scheme in schemes() {
            for length in [0, 8, 64, 96, 132, 256] {
                assert!(key.public().verify(scheme, b"octets", &vec![0; length]).is_err());
            }
            assert!(key.public().verify(scheme, b"octets", &octets("3006020100020100")).is_err());
        }
    }
}

/// One ECDSA signature has one form: numbers with zeros in front, long lengths and what follows the end do not pass.
#[test]
fn an_ecdsa_signature_in_another_form_is_none() {
    let (key, _) = PrivateKey::generate(KeyKind::Ec(Curve::P256), 0).unwrap();
    let scheme = Scheme::Ecdsa(SignatureHash::Sha256);
    let good = key.sign(scheme, b"octets").unwrap();
    let body = &good[2..];
    let long_length = [&[0x30, 0x81, good[1]], body].concat();
    let trailing_inside = [&[0x30, good[1] + 2], body, &[5, 0]].concat();
    let trailing = [&good, &[0u8][..]].concat();
    let (r, rest) = body[2..].split_at(usize::from(body[1]));
    let padded = [&[0x30, good[1] + 1, 2, body[1] + 1, 0], r, rest].concat();
    for forged in [long_length, trailing_inside, trailing, padded] {
        assert_eq!(key.public().verify(scheme, b"octets", &forged), Err(SignError::Invalid));
    }
}

#[test]
fn sha_1_is_verified_when_asked_for_and_signs_nothing() {
    let (key, _) = PrivateKey::generate(KeyKind::Rsa, 2048).unwrap();
    for scheme in [Scheme::RsaPkcs1(SignatureHash::Sha1), Scheme::RsaPss(SignatureHash::Sha1)] {
        assert_eq!(key.sign(scheme, b"octets"), Err(SignError::Scheme));
    }
    assert!(Scheme::RsaPkcs1(SignatureHash::Sha1).verification(KeyKind::Rsa).is_some());
    assert!(Scheme::RsaPss(SignatureHash::Sha1).verification(KeyKind::Rsa).is_none());
    assert!(Scheme::Ecdsa(SignatureHash::Sha1).verification(KeyKind::Ec(Curve::P256)).is_none());
}

/// RFC 7427 Appendix A.
#[test]
fn the_identifiers_are_those_of_the_rfc() {
    use SignatureHash::{Sha1, Sha256, Sha384, Sha512};
    for (scheme, der) in [
        (Scheme::RsaPkcs1(Sha1), "300d06092a864886f70d0101050500"),
        (Scheme::RsaPkcs1(Sha256), "300d06092a864886f70d01010b0500"),
        (Scheme::RsaPkcs1(Sha384), "300d06092a864886f70d01010c0500"),
        (Scheme::RsaPkcs1(Sha512), "300d06092a864886f70d01010d0500"),
        (Scheme::Ecdsa(Sha1), "300906072a8648ce3d0401"),
        (Scheme::Ecdsa(Sha256), "300a06082a8648ce3d040302"),
        (Scheme::Ecdsa(Sha384), "300a06082a8648ce3d040303"),
        (Scheme::Ecdsa(Sha512), "300a06082a8648ce3d040304"),
        (Scheme::Ed25519, "300506032b6570"),
        (
            Scheme::RsaPss(Sha256),
            "304106092a864886f70d01010a3034a00f300d06096086480165030402010500\
             a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120",
        ),
    ] {
        let der = octets(der);
        assert_eq!(scheme.identifier(), Some(der.clone()), "{scheme:?}");
        assert_eq!(Scheme::from_identifier(&der), Some(scheme));
        for end in 0..der.len() {
            assert_eq!(Scheme::from_identifier(&der[..end]), None);
        }
    }
    for scheme in schemes() {
        match scheme.identifier() {
            Some(der) => assert_eq!(Scheme::from_identifier(&der), Some(scheme)),
            None => assert!(matches!(scheme, Scheme::EcdsaRaw(_))),
        }
    }
}

#[test]
fn equivalent_identifiers_are_read_and_others_are_not() {
    let pss = |text: &str| Scheme::from_identifier(&octets(text));
    // RSA without its NULL, PSS with its default trailer written (as OpenIKED writes it), PSS hashes without NULL.
    assert_eq!(pss("300b06092a864886f70d01010b"), Some(Scheme::RsaPkcs1(SignatureHash::Sha256)));
    let with_trailer = "304606092a864886f70d01010a3039a00f300d06096086480165030402010500\
        a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020101";
    assert_eq!(pss(with_trailer), Some(Scheme::RsaPss(SignatureHash::Sha256)));
    let without_null = "303d06092a864886f70d01010a3030a00d300b0609608648016503040201\
        a11a301806092a864886f70d010108300b0609608648016503040201a203020120";
    assert_eq!(pss(without_null), Some(Scheme::RsaPss(SignatureHash::Sha256)));
    // MGF1 with another hash, a salt of 20 octets, a hash nobody named.
    let good = "304106092a864886f70d01010a3034a00f300d06096086480165030402010500\
        a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120";
    assert!(pss(good).is_some());
    assert_eq!(pss(&good.replacen("0402010500a203", "0402020500a203", 1)), None);
    assert_eq!(pss(&good.replace("a203020120", "a203020114")), None);
    assert_eq!(pss("300a06082a8648ce3d040301"), None);
    // Parameters where there are none.
    assert_eq!(pss("300e06092a864886f70d01010b020100"), None);
    assert_eq!(pss("300806032b6570020100"), None);
}

/// RFC 4754 §8.1.
#[test]
fn the_vector_of_ecdsa_256_holds() {
    let spki = octets(
        "3059301306072a8648ce3d020106082a8648ce3d03010703420004\
         2442a5cc0ecd015fa3ca31dc8e2bbc70bf42d60cbca20085e0822cb04235e970\
         6fc98bd7e50211a4a27102fa3549df79ebcb4bf246b80945cddfe7d509bbfd7d",
    );
    let signature = octets(
        "cb28e0999b9c7715fd0a80d8e47a77079716cbbf917dd72e97566ea1c066957c\
         86fa3bb4e26cad5bf90b7f81899256ce7594bb1ea0c89212748bff3b3d5b0315",
    );
    let key = PublicKey::from_spki(&spki).unwrap();
    assert_eq!(key.verify(Scheme::EcdsaRaw(Curve::P256), b"abc", &signature), Ok(()));
}

/// RFC 8032 §7.1, TEST 1.
#[test]
fn the_vector_of_ed25519_holds() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let key = PrivateKey::from_der(&octets(&format!("302e020100300506032b657004220420{seed}"))).unwrap();
    assert_eq!(
        hex::encode(key.public().key()),
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    );
    assert_eq!(
        hex::encode(key.sign(Scheme::Ed25519, b"").unwrap()),
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    );
}

/// Points that are not on the curve, forms nobody uses, parameters that are missing or of another curve.
#[test]
fn keys_that_are_none_are_refused() {
    for key in keys() {
        let spki = key.public().spki().to_vec();
        assert!(PublicKey::from_spki(&spki).is_ok());
        for end in 0..spki.len() {
            assert!(PublicKey::from_spki(&spki[..end]).is_err());
        }
        assert!(PublicKey::from_spki(&[&spki, &[0u8][..]].concat()).is_err());
        if matches!(key.public().kind(), KeyKind::Ec(_)) {
            let mut off_curve = spki.clone();
            *off_curve.last_mut().unwrap() ^= 1;
            assert_eq!(PublicKey::from_spki(&off_curve), Err(SignError::Malformed));
        }
    }
    let small = "305c300d06092a864886f70d0101010500034b003048024100";
    let weak = format!("{small}{}0203010001", "c1".repeat(64));
    assert!(PublicKey::from_spki(&octets(&weak)).is_err());
    assert!(PrivateKey::generate(KeyKind::Rsa, 1024).is_err());
    assert_eq!(PrivateKey::from_der(b"").err(), Some(SignError::Malformed));
    assert_eq!(PrivateKey::from_der(&[0x30; 64]).err(), Some(SignError::Malformed));
}

#[test]
fn debug_shows_no_private_key() {
    let (key, _) = PrivateKey::generate(KeyKind::Ed25519, 0).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(Ed25519)");
}
