//! Algorithms as people write them in `ike=`, `esp=` and `phase2alg=`, in the words of FreeS/WAN, libreswan and strongSwan.
//!
//! ```text
//! list     := proposal ("," proposal)*                  in the order of preference; a `!' at the end means nothing here
//! proposal := word (("-" | ";" | "+") word)*            words of one kind are alternatives
//! word     := cipher | integrity | PRF | key exchange | "ke" N "_" key exchange | "esn" | "noesn"
//! ```

use ike::proposal::Offer;
use ipsec_core::algorithm::{Auth, Encryption};
use ipsec_core::kex::Group;
use ipsec_core::prf::Prf;

/// What a list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The IKE SA.
    Ike,
    /// ESP.
    Esp,
}

/// Reads a list; the second part is what in it is weak.
pub fn offers(text: &str, what: Use) -> Result<(Vec<Offer>, Vec<String>), String> {
    let mut weak = Vec::new();
    let text = text.trim().trim_end_matches('!');
    let offers =
        text.split(',').map(|one| offer(one.trim(), what, &mut weak)).collect::<Result<Vec<_>, _>>()?;
    Ok((offers, weak))
}

/// What is offered where the file does not say: modern algorithms, and behind them what every peer has.
pub fn default_offers(what: Use) -> Vec<Offer> {
    let combined =
        vec![(Encryption::AesGcm16, 256), (Encryption::AesGcm16, 128), (Encryption::ChaCha20Poly1305, 0)];
    let cbc = vec![(Encryption::AesCbc, 256), (Encryption::AesCbc, 128)];
    let integrity = vec![Auth::HmacSha256, Auth::HmacSha384, Auth::HmacSha512];
    match what {
        Use::Ike => {
            let base = Offer { prf: PRFS.to_vec(), groups: GROUPS.to_vec(), ..Offer::default() };
            vec![Offer { encryption: combined, ..base.clone() }, Offer { encryption: cbc, integrity, ..base }]
        }
        Use::Esp => {
            let base = Offer { esn: vec![true, false], ..Offer::default() };
            vec![Offer { encryption: combined, ..base.clone() }, Offer { encryption: cbc, integrity, ..base }]
        }
    }
}

const PRFS: [Prf; 3] = [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512];
const GROUPS: [Group; 6] =
    [Group::X25519, Group::Ecp256, Group::Ecp384, Group::Ecp521, Group::Modp2048, Group::Modp3072];

fn offer(text: &str, what: Use, weak: &mut Vec<String>) -> Result<Offer, String> {
    let mut offer = Offer::default();
    let mut esn: Vec<bool> = Vec::new();
    let mut prfs_named = false;
    for word in text.split(['-', ';', '+']) {
        let lower = word.trim().to_ascii_lowercase();
        let word = lower.as_str();
        let additional = word.strip_prefix("ke").and_then(|rest| rest.split_once('_'));
        if let Some((n, name)) = additional.filter(|(n, _)| n.len() == 1) {
            let n: usize = n
                .parse()
                .ok()
                .filter(|n| (1..=7).contains(n))
                .ok_or("additional key exchanges are ke1_ to ke7_")?;
            let group = match name {
                "none" => None,
                name => Some(Group::from_name(name).ok_or_else(|| unknown(word))?),
            };
            while offer.additional.len() < n {
                offer.additional.push(Vec::new());
            }
            if let Some(slot) = offer.additional.get_mut(n - 1) {
                slot.push(group);
            }
        } else if word == "esn" || word == "noesn" {
            esn.push(word == "esn");
        } else if let Some(cipher) = cipher(word) {
            let known = cipher.0.row();
            if known.legacy {
                weak.push(format!("{} is weak", known.name()));
            }
            offer.encryption.push(cipher);
        } else if let Some(group) = Group::from_name(word) {
            if group.row().legacy {
                weak.push(format!("{group} is weak"));
            }
            offer.groups.push(group);
        } else if let Some(prf) = word.starts_with("prf").then(|| prf(word)).flatten() {
            prfs_named = true;
            offer.prf.push(prf);
        } else if let Some(auth) = auth(word) {
            if auth.row().legacy {
                weak.push(format!("{} is weak", auth.row().name()));
            }
            offer.integrity.push(auth);
        } else {
            return Err(unknown(word));
        }
    }
    if offer.additional.iter().any(Vec::is_empty) {
        return Err(format!("additional key exchanges are numbered without gaps, from ke1_ [{text}]"));
    }
    complete(&mut offer, what, prfs_named, esn, text)?;
    Ok(offer)
}

/// Fills in what was not said, and refuses what cannot be together.
fn complete(
    offer: &mut Offer,
    what: Use,
    prfs_named: bool,
    esn: Vec<bool>,
    text: &str,
) -> Result<(), String> {
    if offer.encryption.is_empty() {
        return Err(format!("no cipher, such as aes256 or aes_gcm256 [{text}]"));
    }
    let combined = offer.encryption.iter().filter(|(cipher, _)| cipher.is_combined()).count();
    if combined != 0 && combined != offer.encryption.len() {
        return Err(format!(
            "ciphers with and without integrity of their own need a proposal each, with a comma between [{text}]"
        ));
    }
    match what {
        Use::Ike => {
            if !prfs_named {
                // One word has always named both.
                offer.prf = offer.integrity.iter().filter_map(|auth| prf_of(*auth)).collect();
            }
            if offer.prf.is_empty() {
                offer.prf = PRFS.to_vec();
            }
            if combined != 0 {
                offer.integrity.clear();
            } else if offer.integrity.is_empty() {
                offer.integrity = vec![Auth::HmacSha256, Auth::HmacSha384, Auth::HmacSha512];
            }
            if offer.groups.is_empty() {
                offer.groups = GROUPS.to_vec();
            }
            if !esn.is_empty() {
                return Err(format!("esn is for esp= [{text}]"));
            }
        }
        Use::Esp => {
            if prfs_named {
                return Err(format!("a PRF is for ike= [{text}]"));
            }
            if combined != 0 && !offer.integrity.is_empty() {
                return Err(format!("a cipher with integrity of its own takes no other [{text}]"));
            }
            if combined == 0 && offer.integrity.is_empty() {
                offer.integrity = vec![Auth::HmacSha256];
            }
            offer.esn = if esn.is_empty() { vec![true, false] } else { esn };
        }
    }
    Ok(())
}

fn unknown(word: &str) -> String {
    format!(
        "unknown algorithm `{word}'; write for example aes_gcm256-sha2_256-x25519 or aes256-sha2_256-modp2048"
    )
}

/// A cipher with its bits of key: `aes256`, `aes_gcm256`, `aes256gcm16`, `aes_gcm_c_256`, `chacha20_poly1305` ….
fn cipher(word: &str) -> Option<(Encryption, u16)> {
    match word {
        "3des" | "3des_cbc" | "3descbc" => return Some((Encryption::TripleDesCbc, 0)),
        "chacha20_poly1305" | "chacha20poly1305" | "chacha20" => {
            return Some((Encryption::ChaCha20Poly1305, 0));
        }
        "null" => return Some((Encryption::Null, 0)),
        _ => {}
    }
    let (mut bits, mut icv, mut mode) = (None, None, None);
    for piece in pieces(word.strip_prefix("aes")?) {
        match (piece, piece.parse::<u16>()) {
            (_, Ok(number @ (128 | 192 | 256))) if bits.is_none() => bits = Some(number),
            (_, Ok(number)) if mode.is_some() && icv.is_none() => {
                icv = Some(match number {
                    8 | 64 => 8,
                    12 | 96 => 12,
                    16 | 128 => 16,
                    _ => return None,
                });
            }
            ("a", Err(_)) if mode.is_some() => icv = Some(8),
            ("b", Err(_)) if mode.is_some() => icv = Some(12),
            ("c", Err(_)) if mode.is_some() => icv = Some(16),
            ("gcm" | "ccm" | "cbc" | "ctr", Err(_)) if mode.is_none() => mode = Some(piece),
            _ => return None,
        }
    }
    let cipher = match (mode, icv) {
        (None | Some("cbc"), None) => Encryption::AesCbc,
        (Some("gcm"), None | Some(16)) => Encryption::AesGcm16,
        (Some("gcm"), Some(12)) => Encryption::AesGcm12,
        (Some("gcm"), Some(8)) => Encryption::AesGcm8,
        (Some("ccm"), None | Some(16)) => Encryption::AesCcm16,
        (Some("ccm"), Some(12)) => Encryption::AesCcm12,
        (Some("ccm"), Some(8)) => Encryption::AesCcm8,
        (Some("ctr"), None) => Encryption::AesCtr,
        _ => return None,
    };
    Some((cipher, bits.unwrap_or(128)))
}

/// Letters, digits, letters: `gcm16_256` is `gcm`, `16`, `256`.
fn pieces(text: &str) -> Vec<&str> {
    let parts = text.split('_').filter(|part| !part.is_empty());
    let cut = |part| {
        let mut pieces: Vec<&str> = Vec::new();
        let mut rest: &str = part;
        while let Some(first) = rest.chars().next() {
            let digits = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(end);
            pieces.push(piece);
            rest = after;
        }
        pieces
    };
    parts.flat_map(cut).collect()
}

fn auth(word: &str) -> Option<Auth> {
    Some(match word {
        "md5" | "hmac_md5" => Auth::HmacMd5,
        "sha" | "sha1" | "hmac_sha1" => Auth::HmacSha1,
        "sha2" | "sha256" | "sha2_256" | "hmac_sha2_256" => Auth::HmacSha256,
        "sha384" | "sha2_384" | "hmac_sha2_384" => Auth::HmacSha384,
        "sha512" | "sha2_512" | "hmac_sha2_512" => Auth::HmacSha512,
        "aesxcbc" | "aes_xcbc" => Auth::AesXcbc,
        "aescmac" | "aes_cmac" => Auth::AesCmac,
        _ => return None,
    })
}

fn prf(word: &str) -> Option<Prf> {
    let word = word.strip_prefix("prf_").map_or_else(|| word.to_owned(), |rest| format!("prf{rest}"));
    Prf::ALL.into_iter().find(|prf| {
        prf.names().contains(&word.as_str()) || prf.names().iter().any(|name| word == format!("prf{name}"))
    })
}

const fn prf_of(auth: Auth) -> Option<Prf> {
    Some(match auth {
        Auth::HmacSha1 => Prf::HmacSha1,
        Auth::HmacSha256 => Prf::HmacSha256,
        Auth::HmacSha384 => Prf::HmacSha384,
        Auth::HmacSha512 => Prf::HmacSha512,
        Auth::AesXcbc => Prf::AesXcbc,
        Auth::AesCmac => Prf::AesCmac,
        Auth::HmacMd5 | Auth::AesGmac => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, what: Use) -> Offer {
        let (mut offers, _) = offers(text, what).unwrap_or_else(|why| panic!("{text}: {why}"));
        assert_eq!(offers.len(), 1);
        offers.remove(0)
    }

    #[test]
    fn the_words_of_the_three_families_mean_the_same() {
        use Encryption::{AesCbc, AesGcm8, AesGcm16};
        let openswan = one("aes256-sha2_256-modp2048", Use::Ike);
        assert_eq!(openswan.encryption, [(AesCbc, 256)]);
        assert_eq!(
            (openswan.integrity.as_slice(), openswan.prf.as_slice()),
            (&[Auth::HmacSha256][..], &[Prf::HmacSha256][..])
        );
        assert_eq!(openswan.groups, [Group::Modp2048]);
        assert_eq!(openswan, one("AES256-SHA256;DH14", Use::Ike));
        let libreswan = one("aes_gcm256-sha2_512;dh19", Use::Ike);
        assert_eq!(libreswan.encryption, [(AesGcm16, 256)]);
        assert!(libreswan.integrity.is_empty());
        assert_eq!((libreswan.prf, libreswan.groups), (vec![Prf::HmacSha512], vec![Group::Ecp256]));
        let strongswan = one("aes256gcm16-prfsha256-x25519-ke1_mlkem768!", Use::Ike);
        assert_eq!(strongswan.encryption, [(AesGcm16, 256)]);
        assert_eq!(strongswan.additional, [[Some(Group::MlKem768)]]);
        for (word, cipher) in [
            ("aes_gcm_c_256", (AesGcm16, 256)),
            ("aes128gcm128", (AesGcm16, 128)),
            ("aes_gcm16_192", (AesGcm16, 192)),
            ("aes_gcm_a", (AesGcm8, 128)),
            ("aes", (AesCbc, 128)),
            ("aes_cbc_192", (AesCbc, 192)),
            ("aes_ctr256", (Encryption::AesCtr, 256)),
            ("3des", (Encryption::TripleDesCbc, 0)),
            ("chacha20_poly1305", (Encryption::ChaCha20Poly1305, 0)),
        ] {
            assert_eq!(one(word, Use::Esp).encryption, [cipher], "{word}");
        }
        assert_eq!(one("aes_gcm256+aes_gcm128", Use::Esp).encryption.len(), 2);
        assert_eq!(one("aes256-sha256-noesn", Use::Esp).esn, [false]);
        assert_eq!(offers("aes_gcm256,aes256-sha1", Use::Esp).unwrap().0.len(), 2);
    }

    #[test]
    fn what_cannot_be_is_refused_and_what_is_weak_is_named() {
        for bad in [
            "",
            "sha256",
            "aes512",
            "aes_gcm256-foo",
            "aes256+aes_gcm256",
            "aes256gcm32",
            "aes256-ke2_mlkem768",
            "aes256-ke9_x25519",
        ] {
            assert!(offers(bad, Use::Ike).is_err(), "{bad}");
        }
        assert!(offers("aes_gcm256-sha256", Use::Esp).is_err());
        assert!(offers("aes256-prfsha256", Use::Esp).is_err());
        let (_, weak) = offers("3des-md5-modp1536", Use::Ike).unwrap();
        assert_eq!(weak.len(), 3, "{weak:?}");
        assert!(offers("aes256-sha2_256-modp2048", Use::Ike).unwrap().1.is_empty());
    }
}
