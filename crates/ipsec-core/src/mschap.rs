//! MS-CHAPv2 (RFC 2759) and the keys that come of it (RFC 3079): what Windows and Apple clients prove a password by.
//!
//! It rests on MD4 and single DES: whoever records an exchange finds the password's hash in a day. So it is spoken only to
//! a peer that has proved who it is by a certificate, inside IKE.

use crate::Secret;
use crate::digest::sha1;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use md4::{Digest, Md4};

/// Octets of a challenge of either side.
pub const CHALLENGE: usize = 16;
/// Octets of the answer to one.
pub const RESPONSE: usize = 24;

/// The hash of a password, which is as good as the password (RFC 2759 §8.3).
#[derive(Clone, Debug)]
pub struct PasswordHash(Secret);

impl PasswordHash {
    /// Of a password, which goes in as UTF-16, little end first.
    pub fn of(password: &str) -> Self {
        let units = Secret::from(password.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
        Self(Self::md4(&units))
    }

    fn md4(octets: &[u8]) -> Secret {
        Secret::from(Md4::digest(octets).as_slice())
    }

    /// The hash of the hash (RFC 2759 §8.4).
    fn again(&self) -> Secret {
        Self::md4(&self.0)
    }
}

/// One exchange of challenges, under one name.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The authenticator's challenge.
    pub authenticator: &'a [u8; CHALLENGE],
    /// The peer's challenge.
    pub peer: &'a [u8; CHALLENGE],
    /// The user's name, without a domain before it (RFC 2759 §4).
    pub user: &'a str,
}

impl Exchange<'_> {
    /// Both challenges and the name in eight octets (RFC 2759 §8.2).
    fn challenge(&self) -> [u8; 8] {
        let hash = sha1(&[self.peer, self.authenticator, self.user.as_bytes()]);
        let mut first = [0; 8];
        first.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        first
    }

    /// The peer's proof that it knows the password (RFC 2759 §8.1).
    pub fn response(&self, password: &PasswordHash) -> [u8; RESPONSE] {
        let challenge = self.challenge();
        let mut response = [0; RESPONSE];
        let mut padded = Secret::zeros(21);
        padded.iter_mut().zip(password.0.iter()).for_each(|(to, from)| *to = *from);
        for (key, part) in padded.chunks(7).zip(response.chunks_mut(8)) {
            let block = encrypted(key, challenge);
            part.iter_mut().zip(block).for_each(|(to, from)| *to = from);
        }
        response
    }

    /// The authenticator's proof that it knows the password as well: `S=` and forty digits (RFC 2759 §8.7).
    pub fn authenticator_response(&self, password: &PasswordHash, response: &[u8; RESPONSE]) -> String {
        let digest = sha1(&[&password.again(), response, b"Magic server to client signing constant"]);
        let digest = sha1(&[&digest, &self.challenge(), b"Pad to make it do more than one iteration"]);
        let mut text = "S=".to_owned();
        digest.iter().for_each(|octet| text.push_str(&format!("{octet:02X}")));
        text
    }
}

/// The MSK of EAP: what both sides share afterwards, 64 octets. What the authenticator receives by comes first (RFC 3079
/// §3, RFC 3748 §7.10).
pub fn msk(password: &PasswordHash, response: &[u8; RESPONSE]) -> Secret {
    let master = Secret::from(&sha1(&[&password.again(), response, b"This is the MPPE Master Key"])[..16]);
    let key = |magic: &[u8]| Secret::from(&sha1(&[&master, &[0; 40], magic, &[0xf2; 40]])[..16]);
    let receive =
        key(b"On the client side, this is the send key; on the server side, it is the receive key.");
    let send = key(b"On the client side, this is the receive key; on the server side, it is the send key.");
    let mut msk = Secret::zeros(64);
    msk.iter_mut().zip(receive.iter().chain(send.iter())).for_each(|(to, from)| *to = *from);
    msk
}

/// One block of DES under seven octets of key, each of whose seven bits gets its parity bit (RFC 2759 §8.6).
fn encrypted(seven: &[u8], block: [u8; 8]) -> [u8; 8] {
    let bits = seven.iter().fold(0_u64, |bits, octet| (bits << 8) | u64::from(*octet));
    let mut key = Secret::zeros(8);
    for (n, octet) in key.iter_mut().enumerate() {
        let shift = 49_u32.saturating_sub(u32::try_from(n).unwrap_or(0).saturating_mul(7));
        *octet = u8::try_from(bits.checked_shr(shift).unwrap_or(0) & 0x7f).unwrap_or(0) << 1;
    }
    let mut block = block.into();
    if let Ok(des) = des::Des::new_from_slice(&key) {
        des.encrypt_block(&mut block);
    }
    block.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// RFC 2759 §9.2 and RFC 3079 §3.5.3.
    #[test]
    fn the_examples_of_the_rfcs_hold() {
        let password = PasswordHash::of("clientPass");
        assert_eq!(&*password.0, octets::<16>("44EBBA8D5312B8D611474411F56989AE"));
        assert_eq!(&*password.again(), octets::<16>("41C00C584BD2D91C4017A2A12FA59F3F"));
        let exchange = Exchange {
            authenticator: &octets("5B5D7C7D7B3F2F3E3C2C602132262628"),
            peer: &octets("21402324255E262A28295F2B3A337C7E"),
            user: "User",
        };
        assert_eq!(exchange.challenge(), octets::<8>("D02E4386BCE91226"));
        let response = exchange.response(&password);
        assert_eq!(response, octets::<24>("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF"));
        let said = exchange.authenticator_response(&password, &response);
        assert_eq!(said, "S=407A5589115FD0D6209F510FE9C04566932CDA56");
        let msk = msk(&password, &response);
        // The server's send key, 128 bits.
        assert_eq!(&msk[16..32], octets::<16>("8B7CDC149B993A1BA118CB153F56DCCB"));
        assert!(msk[..16] != msk[16..32] && msk[32..].iter().all(|octet| *octet == 0));
    }

    #[test]
    fn another_password_name_or_challenge_is_another_answer() {
        let (password, other) = (PasswordHash::of("clientPass"), PasswordHash::of("clientpass"));
        let exchange = Exchange { authenticator: &[1; 16], peer: &[2; 16], user: "User" };
        let response = exchange.response(&password);
        assert_ne!(exchange.response(&other), response);
        assert_ne!(Exchange { user: "user", ..exchange }.response(&password), response);
        assert_ne!(Exchange { peer: &[3; 16], ..exchange }.response(&password), response);
        assert_ne!(Exchange { authenticator: &[3; 16], ..exchange }.response(&password), response);
    }
}
