//! Each suite of the fast library against RustCrypto, packet by packet.

use super::{key, opens};
use crate::Spi;
use crate::algorithm::{Auth, Encryption, Suite};
use crate::transform::Transform;
use aes_gcm::aead::{AeadInOut, Key, Nonce};
use cbc::cipher::{Block, BlockModeEncrypt, KeyIvInit};
use hmac::{EagerHash, Hmac, KeyInit, Mac};
use proptest::prelude::*;

/// One packet as RFC 4303 says, made by other code.
fn expected(
    suite: Suite,
    keys: (&[u8], &[u8]),
    iv: &[u8],
    spi: u32,
    seq: u64,
    esn: bool,
    body: &[u8],
) -> Vec<u8> {
    let wire = [&spi.to_be_bytes()[..], &(seq as u32).to_be_bytes()].concat();
    let high = if esn { ((seq >> 32) as u32).to_be_bytes().to_vec() } else { vec![] };
    let aad = [&spi.to_be_bytes()[..], &high, &(seq as u32).to_be_bytes()].concat();
    match suite.auth {
        None => {
            let sealed = match (suite.encryption.unwrap(), keys.0.len()) {
                (Encryption::AesGcm16, 20) => aead::<aes_gcm::Aes128Gcm>(keys.0, iv, &aad, body),
                (Encryption::AesGcm16, 28) => {
                    aead::<aes_gcm::AesGcm<aes::Aes192, ccm::consts::U12>>(keys.0, iv, &aad, body)
                }
                (Encryption::AesGcm16, 36) => aead::<aes_gcm::Aes256Gcm>(keys.0, iv, &aad, body),
                (Encryption::ChaCha20Poly1305, _) => {
                    aead::<chacha20poly1305::ChaCha20Poly1305>(keys.0, iv, &aad, body)
                }
                other => panic!("{other:?}"),
            };
            [wire, iv.to_vec(), sealed].concat()
        }
        Some(auth) => {
            let text = match (suite.encryption.unwrap(), keys.0.len()) {
                (Encryption::Null, _) => body.to_vec(),
                (Encryption::AesCtr, 20) => ctr::<aes::Aes128>(keys.0, iv, body),
                (Encryption::AesCtr, 28) => ctr::<aes::Aes192>(keys.0, iv, body),
                (Encryption::AesCtr, _) => ctr::<aes::Aes256>(keys.0, iv, body),
                (_, 16) => cbc::<aes::Aes128>(keys.0, iv, body),
                (_, 24) => cbc::<aes::Aes192>(keys.0, iv, body),
                (_, _) => cbc::<aes::Aes256>(keys.0, iv, body),
            };
            let packet = [wire, text].concat();
            let covered = [&packet[..], &high].concat();
            let icv = match auth {
                Auth::HmacSha1 => mac::<sha1::Sha1>(keys.1, &covered, 12),
                Auth::HmacSha256 => mac::<sha2::Sha256>(keys.1, &covered, 16),
                Auth::HmacSha384 => mac::<sha2::Sha384>(keys.1, &covered, 24),
                Auth::HmacSha512 => mac::<sha2::Sha512>(keys.1, &covered, 32),
                Auth::HmacMd5 | Auth::AesXcbc | Auth::AesCmac | Auth::AesGmac => {
                    panic!("{auth} has no oracle")
                }
            };
            [packet, icv].concat()
        }
    }
}

fn aead<A: AeadInOut + KeyInit>(keymat: &[u8], iv: &[u8], aad: &[u8], body: &[u8]) -> Vec<u8> {
    let (key, salt) = keymat.split_at(keymat.len() - 4);
    let nonce = [salt, iv].concat();
    let mut text = body.to_vec();
    let tag = A::new(<&Key<A>>::try_from(key).unwrap())
        .encrypt_inout_detached(<&Nonce<A>>::try_from(&nonce[..]).unwrap(), aad, text.as_mut_slice().into())
        .unwrap();
    [text, tag.to_vec()].concat()
}

fn cbc<C>(key: &[u8], iv: &[u8], body: &[u8]) -> Vec<u8>
where
    C: cbc::cipher::BlockCipherEncrypt + KeyInit,
{
    let mut text = body.to_vec();
    let (blocks, rest) = Block::<C>::slice_as_chunks_mut(&mut text);
    assert!(rest.is_empty());
    cbc::Encryptor::<C>::new_from_slices(key, iv).unwrap().encrypt_blocks(blocks);
    [iv, &text].concat()
}

/// Block by block, as RFC 3686 §4 writes it.
fn ctr<C>(keymat: &[u8], iv: &[u8], body: &[u8]) -> Vec<u8>
where
    C: cbc::cipher::BlockCipherEncrypt + KeyInit,
{
    let (key, nonce) = keymat.split_at(keymat.len() - 4);
    let cipher = C::new_from_slice(key).unwrap();
    let sealed = (1_u32..).zip(body.chunks(16)).flat_map(|(counter, text)| {
        let stream = [nonce, iv, &counter.to_be_bytes()].concat();
        let mut stream = Block::<C>::try_from(&stream[..]).unwrap();
        cipher.encrypt_block(&mut stream);
        text.iter().zip(stream.iter()).map(|(a, b)| a ^ b).collect::<Vec<_>>()
    });
    [iv.to_vec(), sealed.collect()].concat()
}

fn mac<D: EagerHash>(key: &[u8], message: &[u8], len: usize) -> Vec<u8> {
    let mac = <Hmac<D> as KeyInit>::new_from_slice(key).unwrap().chain_update(message).finalize();
    mac.into_bytes()[..len].to_vec()
}

fn suites() -> impl Strategy<Value = (Suite, usize)> {
    let ciphers = [
        (Encryption::Null, vec![0]),
        (Encryption::AesCbc, vec![16, 24, 32]),
        (Encryption::AesCtr, vec![20, 28, 36]),
        (Encryption::AesGcm16, vec![20, 28, 36]),
        (Encryption::ChaCha20Poly1305, vec![36]),
    ];
    let macs = [Auth::HmacSha1, Auth::HmacSha256, Auth::HmacSha384, Auth::HmacSha512];
    let all: Vec<(Suite, usize)> = ciphers
        .into_iter()
        .flat_map(|(cipher, lens)| lens.into_iter().map(move |len| (cipher, len)))
        .flat_map(|(cipher, len)| {
            let auths = if cipher.is_combined() { vec![None] } else { macs.map(Some).to_vec() };
            auths.into_iter().map(move |auth| (Suite { encryption: Some(cipher), auth }, len))
        })
        .collect();
    prop::sample::select(all)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]
    #[test]
    fn agrees_with_another_library(
        (suite, key_len) in suites(),
        spi in 256_u32..,
        seq in prop_oneof![1..=u64::from(u32::MAX), 1..u64::MAX],
        units in 1_usize..100,
        salt: u8,
        iv_key: [u8; 16],
    ) {
        let esn = seq > u64::from(u32::MAX) || salt & 1 == 1;
        let keys = (key(key_len, salt), key(suite.auth.map_or(0, |a| a.row().keymat_lengths().next().unwrap()), !salt));
        let transform = Transform::new(suite, &keys.0, &keys.1, &iv_key).unwrap();
        let body: Vec<u8> = (0..units * transform.alignment()).map(|i| (i as u8) ^ salt).collect();
        let mut packet = [vec![0; transform.header_len()], body.clone(), vec![0; transform.icv_len()]].concat();
        let len = packet.len();
        prop_assert!(transform.seal(&mut packet, len, Spi(spi), seq, esn));
        let iv = packet[8..transform.header_len()].to_vec();
        prop_assert_eq!(&packet, &expected(suite, (&keys.0, &keys.1), &iv, spi, seq, esn, &body));
        prop_assert!(opens(&transform, &mut packet, esn.then_some((seq >> 32) as u32)));
        prop_assert_eq!(&packet[transform.header_len()..len - transform.icv_len()], &body[..]);
    }
}
