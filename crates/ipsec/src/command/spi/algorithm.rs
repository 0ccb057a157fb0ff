//! The names of algorithms as `--esp` and `--ah` take them: `aes-gcm16`, `aes128-sha1-96`, `aes-cbc+hmac-sha256`.

use ipsec_core::algorithm::{Auth, Encryption, Suite};

/// The algorithms of an ESP SA, and the key length in bits if the name says one.
pub(in crate::command) fn esp(text: &str) -> Option<(Suite, Option<u32>)> {
    if let Some((encryption, bits)) = cipher(text).filter(|(encryption, _)| encryption.is_combined()) {
        return Some((Suite { encryption: Some(encryption), auth: None }, bits));
    }
    // Names contain hyphens themselves: the first place where both halves are names is the one that is meant.
    text.char_indices().filter(|&(_, c)| "-+/_".contains(c)).find_map(|(at, _)| {
        let (encryption, bits) =
            cipher(text.get(..at)?).filter(|(encryption, _)| !encryption.is_combined())?;
        let auth = Auth::from_name(text.get(at.checked_add(1)?..)?)?;
        // What ESP authenticates with GMAC is a cipher of its own, `null-aes-gmac` (RFC 4543 §3).
        (auth != Auth::AesGmac).then_some((Suite { encryption: Some(encryption), auth: Some(auth) }, bits))
    })
}

/// The algorithm of an AH SA.
pub(in crate::command) fn ah(text: &str) -> Option<Auth> {
    Auth::from_name(text)
}

/// A cipher with or without the length of its key: `aes`, `aes256`, `aes-cbc-256`.
fn cipher(text: &str) -> Option<(Encryption, Option<u32>)> {
    if let Some(encryption) = Encryption::from_name(text) {
        return Some((encryption, None));
    }
    let digits = text.len().checked_sub(text.chars().rev().take_while(char::is_ascii_digit).count())?;
    let bits = text.get(digits..)?.parse().ok()?;
    let name = text.get(..digits)?.trim_end_matches(['-', '_']);
    let encryption = Encryption::from_name(name).filter(|encryption| encryption.row().has_key_bits(bits))?;
    Some((encryption, Some(bits)))
}
