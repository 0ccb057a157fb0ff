//! The key schedule against known answers: SKEYSEED, all keys of an IKE SA, those of its children with and without PFS, and
//! of the IKE SA that takes its place (RFC 7296 §2.14, §2.17, §2.18).

use ike::keys::{IkeKeys, Seed};
use ike::message::IkeSpi;
use ike::proposal::Chosen;
use ipsec_core::Secret;
use ipsec_core::algorithm::{Auth, Encryption};
use ipsec_core::prf::Prf;
use serde_json::Value;

fn octets(value: &Value, key: &str) -> Vec<u8> {
    hex::decode(value[key].as_str().unwrap_or_else(|| panic!("{key}"))).unwrap()
}

/// All keys in the order in which they were cut from prf+.
fn whole(keys: &IkeKeys) -> String {
    let all = [&keys.d, &keys.a[0], &keys.a[1], &keys.e[0], &keys.e[1], &keys.p[0], &keys.p[1]];
    all.map(|key| hex::encode(&**key)).concat()
}

#[test]
fn keys_of_ike_sas_and_children_are_those_of_the_known_answers_with_every_digest() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ikev2_kdf.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let spi = |key: &str| IkeSpi(u64::from_be_bytes(octets(&all, key).try_into().unwrap()));
    let (ni, nr) = (octets(&all, "ni"), octets(&all, "nr"));
    let (shared, renewed) = (Secret::from(octets(&all, "gir")), Secret::from(octets(&all, "gir_new")));
    let seed = Seed { ni: &ni, nr: &nr, spi_i: spi("spii"), spi_r: spi("spir") };
    let cases = all["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let (prf, auth, bits) = match case["digest"].as_str().unwrap() {
            "sha1" => (Prf::HmacSha1, Auth::HmacSha1, 128),
            "sha256" => (Prf::HmacSha256, Auth::HmacSha256, 256),
            "sha384" => (Prf::HmacSha384, Auth::HmacSha384, 256),
            "sha512" => (Prf::HmacSha512, Auth::HmacSha512, 256),
            other => panic!("{other}"),
        };
        let chosen = Chosen {
            number: 1,
            encryption: Some((Encryption::AesCbc, bits)),
            integrity: Some(auth),
            prf: Some(prf),
            group: None,
            additional: Vec::new(),
            esn: false,
            spi: Vec::new(),
        };
        let known = |key: &str| case[key].as_str().unwrap().to_owned();
        let skeyseed = prf.compute(&[&*ni, &nr].concat(), &[&shared]);
        assert_eq!(hex::encode(&*skeyseed), known("skeyseed"), "{prf:?}");
        let keys = IkeKeys::initial(&chosen, prf, &shared, seed);
        assert_eq!(whole(&keys), known("dkm"), "{prf:?}");
        let length = octets(case, "child").len();
        assert_eq!(hex::encode(&*keys.child(&[], &ni, &nr, length)), known("child"), "{prf:?}");
        let pfs = keys.child(std::slice::from_ref(&renewed), &ni, &nr, length);
        assert_eq!(hex::encode(&*pfs), known("pfs"), "{prf:?}");
        let rekeyed = keys.rekeyed(&chosen, prf, std::slice::from_ref(&renewed), seed);
        assert_eq!(whole(&rekeyed), known("rekeyed"), "{prf:?}");
        // That it is of the SKEYSEED that is known, and not of another way of making one.
        let (i, r) = (octets(&all, "spii"), octets(&all, "spir"));
        let stream = prf.plus(&octets(case, "rekey"), &[&ni, &nr, &i, &r], whole(&rekeyed).len() / 2);
        assert_eq!(whole(&rekeyed), hex::encode(&*stream), "{prf:?}");
    }
}
