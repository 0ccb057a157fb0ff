//! Vectors: the RFCs', those of draft-mcgrew-gcm-test-01, captures from the wire, and packets sealed by scapy.

use super::{opens, transforms};
use crate::algorithm::{Auth, Encryption, Suite};
use crate::transform::{Mac, Transform};
use crate::{Protocol, Spi};
use hex::decode;
use serde_json::Value;

fn rows(json: &str) -> Vec<Value> {
    serde_json::from_str(json).unwrap()
}

fn octets(row: &Value, field: &str) -> Vec<u8> {
    decode(row[field].as_str().unwrap_or("")).unwrap()
}

/// Opens `packet`, seals the plaintext again under the same IV, and expects the same octets; returns the plaintext.
fn opens_and_seals_alike(transform: &Transform, packet: &[u8], high: Option<u32>) -> Vec<u8> {
    let mut opened = packet.to_vec();
    assert!(opens(transform, &mut opened, high), "does not open");
    let (header, icv) = (transform.header_len(), transform.icv_len());
    let clear = opened[header..opened.len() - icv].to_vec();
    let mut again = vec![0; header];
    again.extend_from_slice(&clear);
    again.resize(packet.len(), 0);
    let spi = Spi(u32::from_be_bytes(packet[..4].try_into().unwrap()));
    let low = u32::from_be_bytes(packet[4..8].try_into().unwrap());
    let seq = u64::from(high.unwrap_or(0)) << 32 | u64::from(low);
    transform.seal_with_iv(&mut again, spi, seq, high.is_some(), &packet[8..header]).unwrap();
    assert_eq!(again, packet);
    clear
}

#[test]
fn gcm_esp_test_cases() {
    let rows = rows(include_str!("../../../tests/data/gcm_esp.json"));
    assert_eq!(rows.len(), 14);
    for row in rows {
        let (nonce, aad) = (octets(&row, "nonce"), octets(&row, "aad"));
        let keymat = [octets(&row, "key"), nonce[..4].to_vec()].concat();
        let suite = Suite { encryption: Some(Encryption::AesGcm16), auth: None };
        let transform = Transform::new(suite, &keymat, &[], &[0; 16]).unwrap();
        let spi_and_low = [&aad[..4], &aad[aad.len() - 4..]].concat();
        let packet = [spi_and_low, nonce[4..].to_vec(), octets(&row, "cipher"), octets(&row, "tag")].concat();
        let high = (aad.len() == 12).then(|| u32::from_be_bytes(aad[4..8].try_into().unwrap()));
        assert_eq!(opens_and_seals_alike(&transform, &packet, high), octets(&row, "plain"));
    }
}

#[test]
fn rfc_7634_appendix_a() {
    let keymat: Vec<u8> = (0x80..0xa4).collect();
    let suite = Suite { encryption: Some(Encryption::ChaCha20Poly1305), auth: None };
    let transform = Transform::new(suite, &keymat, &[], &[0; 16]).unwrap();
    let packet = decode(concat!(
        "01020304000000051011121314151617",
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f7",
        "2aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0",
        "76aaa8266b7fb0f7b11b369907e1ad43"
    ))
    .unwrap();
    let clear = decode(concat!(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f1011121314151617",
        "18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204"
    ))
    .unwrap();
    assert_eq!(opens_and_seals_alike(&transform, &packet, None), clear);
}

/// The ESP packets of RFC 3602 §4 (cases 5 and 7) have no ICV; ours goes behind them.
#[test]
fn rfc_3602_ciphertexts() {
    let cases = [
        (
            "90d382b410eeba7ad938c46cec1a82bf",
            "e96e8c08ab465763fd098d45dd3ff893",
            concat!(
                "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52",
                "775b07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6"
            ),
            concat!(
                "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627",
                "28292a2b2c2d2e2f30313233343536370102030405060708090a0b0c0d0e0e01"
            ),
        ),
        (
            "0123456789abcdef0123456789abcdef",
            "f4e765244f6407adf13dc1380f673f37",
            concat!(
                "773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b859243c6",
                "47752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d"
            ),
            concat!(
                "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a2040008090a0b0c0d0e0f10111213",
                "1415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233343536370102030405060708090a0a04"
            ),
        ),
    ];
    for (key, iv, ciphertext, plaintext) in cases {
        let suite = Suite { encryption: Some(Encryption::AesCbc), auth: Some(Auth::HmacSha1) };
        let transform = Transform::new(suite, &decode(key).unwrap(), &[7; 20], &[0; 16]).unwrap();
        let clear = decode(plaintext).unwrap();
        let mut packet = [vec![0; 24], clear.clone(), vec![0; 12]].concat();
        transform.seal_with_iv(&mut packet, Spi(0x4321), 1, false, &decode(iv).unwrap()).unwrap();
        assert_eq!(hex::encode(&packet[24..packet.len() - 12]), ciphertext);
        assert_eq!(opens_and_seals_alike(&transform, &packet, None), clear);
    }
}

/// RFC 2202, RFC 4868 §2.7, RFC 3566 §4.6 and RFC 4493 §4, truncated as ESP and AH do.
#[test]
fn mac_vectors() {
    let hi = b"Hi There".as_slice();
    let counting: Vec<u8> = (0..34).collect();
    let xcbc_key: Vec<u8> = (0..16).collect();
    let cmac_key = decode("2b7e151628aed2a6abf7158809cf4f3c").unwrap();
    let cmac_text = decode(concat!(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    ))
    .unwrap();
    let cases: [(Auth, &[u8], &[u8], &str); 18] = [
        (Auth::HmacMd5, &[0x0b; 16], hi, "9294727a3638bb1c13f48ef8158bfc9d"),
        (Auth::HmacMd5, &[0xaa; 16], &[0xdd; 50], "56be34521d144c88dbb8c733f0e8b3f6"),
        (Auth::HmacSha1, &[0x0b; 20], hi, "b617318655057264e28bc0b6fb378c8ef146be00"),
        (Auth::HmacSha1, &[0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
        (Auth::HmacSha256, &[0x0b; 32], hi, "198a607eb44bfbc69903a0f1cf2bbdc5"),
        (Auth::HmacSha384, &[0x0b; 48], hi, "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"),
        (
            Auth::HmacSha512,
            &[0x0b; 64],
            hi,
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
        ),
        (Auth::AesXcbc, &xcbc_key, &[], "75f0251d528ac01c4573dfd584d79f29"),
        (Auth::AesXcbc, &xcbc_key, &counting[..3], "5b376580ae2f19afe7219ceef172756f"),
        (Auth::AesXcbc, &xcbc_key, &counting[..16], "d2a246fa349b68a79998a4394ff7a263"),
        (Auth::AesXcbc, &xcbc_key, &counting[..20], "47f51b4564966215b8985c63055ed308"),
        (Auth::AesXcbc, &xcbc_key, &counting[..32], "f54f0ec8d2b9f3d36807734bd5283fd4"),
        (Auth::AesXcbc, &xcbc_key, &counting[..34], "becbb3bccdb518a30677d5481fb6b4d8"),
        (Auth::AesXcbc, &xcbc_key, &[0; 1000], "f0dafee895db30253761103b5d84528f"),
        (Auth::AesCmac, &cmac_key, &[], "bb1d6929e95937287fa37d129b756746"),
        (Auth::AesCmac, &cmac_key, &cmac_text[..16], "070a16b46b4d4144f79bdd9dd04a287c"),
        (Auth::AesCmac, &cmac_key, &cmac_text[..40], "dfa66747de9ae63030ca32611497c827"),
        (Auth::AesCmac, &cmac_key, &cmac_text, "51f0bebf7e3b9d92fc49741779363cfe"),
    ];
    for (auth, key, message, full) in cases {
        let mac = Mac::new(auth, key).unwrap();
        let expected = &decode(full).unwrap()[..mac.icv_len()];
        let mut icv = vec![0; mac.icv_len()];
        assert!(mac.sign(1, message, &mut icv));
        assert_eq!(icv, expected, "{auth} over {} octets", message.len());
        assert!(mac.verify(message, expected));
        for bit in 0..expected.len() * 8 {
            let mut wrong = expected.to_vec();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!mac.verify(message, &wrong), "{auth} accepts bit {bit} flipped");
        }
        assert!(!mac.verify(message, &expected[1..]), "{auth} accepts a short ICV");
    }
}

/// Every suite and key size, with and without ESN, as scapy over OpenSSL seals them.
#[test]
fn packets_sealed_by_scapy() {
    let rows = rows(include_str!("../../../tests/data/scapy.json"));
    let inner = decode(concat!(
        "45000054000040003f01b8a6c0000201c00001010800baf06f000500239bc73bf234010008090a0b0c0d0e0f101112131415161718",
        "191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637"
    ))
    .unwrap();
    // AES-CTR has the vectors of its RFC, and RustCrypto beside it (`oracle`).
    let others = transforms().filter(|(suite, _)| suite.encryption != Some(Encryption::AesCtr));
    assert_eq!(rows.len(), 2 * others.count());
    for row in rows {
        let suite = Suite {
            encryption: Encryption::from_name(row["encryption"].as_str().unwrap()),
            auth: row["auth"].as_str().map(|name| Auth::from_name(name).unwrap()),
        };
        let transform =
            Transform::new(suite, &octets(&row, "key"), &octets(&row, "auth_key"), &[0; 16]).unwrap();
        let high = row["esn"].as_bool().unwrap().then(|| (row["seq"].as_u64().unwrap() >> 32) as u32);
        let packet = octets(&row, "packet");
        // No reading of the spare bits of the sequence number may make the wrong half right.
        let wrong = if high.is_some() { None } else { Some(0) };
        assert!(!opens(&transform, &mut packet.clone(), wrong), "{suite:?} ignores ESN");
        let clear = opens_and_seals_alike(&transform, &packet, high);
        assert_eq!(clear[..inner.len()], inner, "{suite:?}");
        assert_eq!(clear.last(), Some(&4));
    }
}

/// Captures of FreeS/WAN and Openswan on the wire: each opens, and is sealed again octet for octet under the same IV.
#[test]
fn captured_packets() {
    let mut opened = 0;
    for capture in rows(include_str!("../../../tests/data/wire.json")) {
        let keys = &capture["keys"];
        let Some(auth) = keys["auth"].as_str().and_then(Auth::from_name) else { continue };
        let encryption = keys["enc"].as_str().map(|name| Encryption::from_name(name).unwrap());
        for packet in capture["ip_packets"].as_array().unwrap() {
            let packet = decode(packet.as_str().unwrap()).unwrap();
            if encryption.is_some() {
                // In UDP there are eight octets more before it.
                let at = if packet[9] == 17 { 28 } else { 20 };
                assert!(at == 28 || packet[9] == Protocol::Esp.number());
                let suite = Suite { encryption, auth: Some(auth) };
                let transform =
                    Transform::new(suite, &octets(keys, "enckey"), &octets(keys, "authkey"), &[0; 16])
                        .unwrap();
                let clear = opens_and_seals_alike(&transform, &packet[at..], None);
                assert!([4, 108].contains(clear.last().unwrap()));
            } else {
                assert_eq!(packet[9], Protocol::Ah.number());
                let mac = Mac::new(auth, &octets(keys, "authkey")).unwrap();
                let icv = packet[32..44].to_vec();
                let mut message = packet.clone();
                // TOS, fragment offset, TTL, checksum and the ICV are cleared (RFC 4302 §3.3.3.1.1.1).
                for at in [1, 6, 7, 8, 10, 11].into_iter().chain(32..44) {
                    message[at] = 0;
                }
                assert!(mac.verify(&message, &icv));
                message[50] ^= 1;
                assert!(!mac.verify(&message, &icv));
            }
            opened += 1;
        }
    }
    // Sets without integrity, and those that are not protected, are not among them.
    assert_eq!(opened, 32 + 3);
}
