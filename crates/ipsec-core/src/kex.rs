//! Key exchange of IKE: one table of methods, and the three steps every method has (RFC 7296 §1.2, RFC 9370 §2).
//!
//! The initiator makes an [`Offer`], the responder [`Group::accept`]s it, the initiator [`Offer::finish`]es. Diffie-Hellman
//! fits this and so does a KEM: there the offer is an encapsulation key and the answer a ciphertext.
//!
//! These steps are slow and draw randomness from the library, so the IKE engine never takes them itself: they are jobs
//! that its host runs beside it.

mod modp;

use crate::Secret;
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::kem::{self, Ciphertext, DecapsulationKey, EncapsulationKey};
use aws_lc_rs::rand::SystemRandom;
use modp::Modp;

/// A key exchange method, in the order of its transform numbers (IANA, Transform Type 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// 1536-bit MODP (RFC 3526), number 5; legacy.
    Modp1536,
    /// 2048-bit MODP (RFC 3526), number 14.
    Modp2048,
    /// 3072-bit MODP (RFC 3526), number 15.
    Modp3072,
    /// 4096-bit MODP (RFC 3526), number 16.
    Modp4096,
    /// 6144-bit MODP (RFC 3526), number 17.
    Modp6144,
    /// 8192-bit MODP (RFC 3526), number 18.
    Modp8192,
    /// NIST P-256 (RFC 5903), number 19.
    Ecp256,
    /// NIST P-384 (RFC 5903), number 20.
    Ecp384,
    /// NIST P-521 (RFC 5903), number 21.
    Ecp521,
    /// Curve25519 (RFC 8031), number 31.
    X25519,
    /// ML-KEM-512 (FIPS 203), number 35.
    MlKem512,
    /// ML-KEM-768 (FIPS 203), number 36.
    MlKem768,
    /// ML-KEM-1024 (FIPS 203), number 37.
    MlKem1024,
}

/// What there is to know about a method.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The method.
    pub group: Group,
    /// Its transform number.
    pub number: u16,
    /// Its names: the canonical one first, then what else people write.
    pub names: &'static [&'static str],
    /// Octets of what the initiator sends.
    pub offer: usize,
    /// Octets of what the responder sends.
    pub answer: usize,
    /// Resists a quantum computer.
    pub post_quantum: bool,
    /// Kept for peers that have nothing better; never proposed unless asked for.
    pub legacy: bool,
}

/// The methods, in the order of [`Group`].
pub const GROUPS: [Row; 13] = [
    Row { legacy: true, ..row(Group::Modp1536, 5, &["modp1536", "dh5"], 192) },
    row(Group::Modp2048, 14, &["modp2048", "dh14"], 256),
    row(Group::Modp3072, 15, &["modp3072", "dh15"], 384),
    row(Group::Modp4096, 16, &["modp4096", "dh16"], 512),
    row(Group::Modp6144, 17, &["modp6144", "dh17"], 768),
    row(Group::Modp8192, 18, &["modp8192", "dh18"], 1024),
    row(Group::Ecp256, 19, &["ecp256", "dh19", "ecp_256", "prime256v1"], 64),
    row(Group::Ecp384, 20, &["ecp384", "dh20", "ecp_384"], 96),
    row(Group::Ecp521, 21, &["ecp521", "dh21", "ecp_521"], 132),
    row(Group::X25519, 31, &["x25519", "dh31", "curve25519"], 32),
    Row { answer: 768, post_quantum: true, ..row(Group::MlKem512, 35, &["mlkem512", "ml_kem_512"], 800) },
    Row { answer: 1088, post_quantum: true, ..row(Group::MlKem768, 36, &["mlkem768", "ml_kem_768"], 1184) },
    Row {
        answer: 1568,
        post_quantum: true,
        ..row(Group::MlKem1024, 37, &["mlkem1024", "ml_kem_1024"], 1568)
    },
];

const fn row(group: Group, number: u16, names: &'static [&'static str], octets: usize) -> Row {
    Row { group, number, names, offer: octets, answer: octets, post_quantum: false, legacy: false }
}

// Row n is about variant n, and there is no variant without a row.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const _: () = {
    let mut n = 0;
    while n < GROUPS.len() {
        assert!(GROUPS[n].group as usize == n);
        n += 1;
    }
    assert!(Group::MlKem1024 as usize + 1 == n);
};

/// Why a key exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KexError {
    /// The peer's value has the wrong length for the method.
    Length,
    /// The peer's value is none that an honest peer sends: not on the curve, of small order, not an ML-KEM key
    /// (RFC 6989 §2, RFC 8031 §2, FIPS 203 §7.2).
    Value,
    /// The library refused, which it does without randomness or memory.
    Library,
}

/// The initiator's side between its two steps; wiped when dropped.
#[derive(Debug)]
pub struct Offer {
    group: Group,
    private: Private,
}

enum Private {
    Modp(Secret),
    Curve(PrivateKey),
    Kem(Box<DecapsulationKey>),
}

impl core::fmt::Debug for Private {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Private")
    }
}

/// The three families, with what the library calls each member.
enum Method {
    Modp(&'static Modp),
    /// The point format of the library, with the octet in front that IKE does not send.
    Curve(&'static agreement::Algorithm, Point),
    Kem(&'static kem::Algorithm),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    /// x and y, behind one octet (SEC 1 §2.3.3) that RFC 5903 §7 leaves out.
    Uncompressed,
    /// As it is.
    Raw,
}

impl Group {
    /// Its row of the table.
    #[expect(
        clippy::indexing_slicing,
        reason = "one row per variant, in order: checked when this is compiled"
    )]
    pub const fn row(self) -> &'static Row {
        &GROUPS[self as usize]
    }

    /// Its transform number.
    pub const fn number(self) -> u16 {
        self.row().number
    }

    /// The method with this transform number.
    pub fn from_number(number: u16) -> Option<Self> {
        GROUPS.iter().find(|row| row.number == number).map(|row| row.group)
    }

    /// The method with this name, canonical or not, in either case.
    pub fn from_name(name: &str) -> Option<Self> {
        GROUPS
            .iter()
            .find(|row| row.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
            .map(|row| row.group)
    }

    /// The initiator's first step: what it keeps and what it sends.
    ///
    /// # Errors
    /// [`KexError::Library`].
    pub fn offer(self) -> Result<(Offer, Vec<u8>), KexError> {
        let (private, public) = match self.method() {
            Method::Modp(modp) => {
                let exponent = random(modp.exponent_octets())?;
                let public = modp.public(&exponent)?;
                (Private::Modp(exponent), public)
            }
            Method::Curve(algorithm, point) => {
                let (key, public) = curve(algorithm, point)?;
                (Private::Curve(key), public)
            }
            Method::Kem(algorithm) => {
                let key = DecapsulationKey::generate(algorithm).map_err(|_| KexError::Library)?;
                let public =
                    key.encapsulation_key().and_then(|key| key.key_bytes().map(|b| b.as_ref().to_vec()));
                (Private::Kem(Box::new(key)), public.map_err(|_| KexError::Library)?)
            }
        };
        Ok((Offer { group: self, private }, public))
    }

    /// The responder's only step: what it sends, and the shared secret.
    ///
    /// # Errors
    /// [`KexError::Length`] and [`KexError::Value`] for what the initiator sent, [`KexError::Library`].
    pub fn accept(self, offer: &[u8]) -> Result<(Vec<u8>, Secret), KexError> {
        if offer.len() != self.row().offer {
            return Err(KexError::Length);
        }
        match self.method() {
            Method::Modp(modp) => {
                let exponent = random(modp.exponent_octets())?;
                // The peer's value first: a bad one costs no exponentiation of ours.
                let shared = modp.shared(&exponent, offer)?;
                Ok((modp.public(&exponent)?, shared))
            }
            Method::Curve(algorithm, point) => {
                let (key, public) = curve(algorithm, point)?;
                Ok((public, agree(&key, algorithm, point, offer)?))
            }
            Method::Kem(algorithm) => {
                let key = EncapsulationKey::new(algorithm, offer).map_err(|_| KexError::Value)?;
                let (ciphertext, secret) = key.encapsulate().map_err(|_| KexError::Value)?;
                Ok((ciphertext.as_ref().to_vec(), Secret::from(secret.as_ref())))
            }
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::Modp1536 => Method::Modp(&modp::MODP1536),
            Self::Modp2048 => Method::Modp(&modp::MODP2048),
            Self::Modp3072 => Method::Modp(&modp::MODP3072),
            Self::Modp4096 => Method::Modp(&modp::MODP4096),
            Self::Modp6144 => Method::Modp(&modp::MODP6144),
            Self::Modp8192 => Method::Modp(&modp::MODP8192),
            Self::Ecp256 => Method::Curve(&agreement::ECDH_P256, Point::Uncompressed),
            Self::Ecp384 => Method::Curve(&agreement::ECDH_P384, Point::Uncompressed),
            Self::Ecp521 => Method::Curve(&agreement::ECDH_P521, Point::Uncompressed),
            Self::X25519 => Method::Curve(&agreement::X25519, Point::Raw),
            Self::MlKem512 => Method::Kem(&kem::ML_KEM_512),
            Self::MlKem768 => Method::Kem(&kem::ML_KEM_768),
            Self::MlKem1024 => Method::Kem(&kem::ML_KEM_1024),
        }
    }
}

impl Offer {
    /// The method it was made for.
    pub const fn group(&self) -> Group {
        self.group
    }

    /// The initiator's second step: the shared secret.
    ///
    /// # Errors
    /// [`KexError::Length`] and [`KexError::Value`] for what the responder sent.
    pub fn finish(&self, answer: &[u8]) -> Result<Secret, KexError> {
        if answer.len() != self.group.row().answer {
            return Err(KexError::Length);
        }
        match (&self.private, self.group.method()) {
            (Private::Modp(exponent), Method::Modp(modp)) => modp.shared(exponent, answer),
            (Private::Curve(key), Method::Curve(algorithm, point)) => agree(key, algorithm, point, answer),
            (Private::Kem(key), Method::Kem(_)) => {
                let secret = key.decapsulate(Ciphertext::from(answer)).map_err(|_| KexError::Value)?;
                Ok(Secret::from(secret.as_ref()))
            }
            (Private::Modp(_) | Private::Curve(_) | Private::Kem(_), _) => Err(KexError::Library),
        }
    }
}

impl core::fmt::Display for Group {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.row().names.first().copied().unwrap_or(""))
    }
}

fn random(octets: usize) -> Result<Secret, KexError> {
    use aws_lc_rs::rand::SecureRandom as _;
    let mut secret = Secret::zeros(octets);
    SystemRandom::new().fill(&mut secret).map_err(|_| KexError::Library)?;
    Ok(secret)
}

fn curve(algorithm: &'static agreement::Algorithm, point: Point) -> Result<(PrivateKey, Vec<u8>), KexError> {
    let key = PrivateKey::generate(algorithm).map_err(|_| KexError::Library)?;
    let public = key.compute_public_key().map_err(|_| KexError::Library)?;
    let public = match (point, public.as_ref()) {
        (Point::Raw, octets) => octets.to_vec(),
        (Point::Uncompressed, [_, octets @ ..]) => octets.to_vec(),
        (Point::Uncompressed, []) => return Err(KexError::Library),
    };
    Ok((key, public))
}

/// The shared secret: x alone for the NIST curves (RFC 5903 §7, RFC 5903 §9), the 32 octets for Curve25519.
fn agree(
    key: &PrivateKey,
    algorithm: &'static agreement::Algorithm,
    point: Point,
    peer: &[u8],
) -> Result<Secret, KexError> {
    let whole = match point {
        Point::Raw => peer.to_vec(),
        Point::Uncompressed => [&[4], peer].concat(),
    };
    let secret =
        agreement::agree(key, UnparsedPublicKey::new(algorithm, whole), KexError::Value, |secret| {
            Ok(Secret::from(secret))
        })?;
    // RFC 8031 §2 wants an all-zero secret refused; the library does that as well, but it is ours to keep.
    if secret.iter().fold(0, |all, octet| all | octet) == 0 {
        return Err(KexError::Value);
    }
    Ok(secret)
}

#[cfg(test)]
mod known;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_every_method_agree_and_two_runs_do_not() {
        for row in &GROUPS {
            let run = || {
                let (offer, sent) = row.group.offer().unwrap();
                assert_eq!(sent.len(), row.offer, "{:?}", row.group);
                let (answer, theirs) = row.group.accept(&sent).unwrap();
                assert_eq!(answer.len(), row.answer, "{:?}", row.group);
                let ours = offer.finish(&answer).unwrap();
                assert!(ours == theirs, "{:?}", row.group);
                ours
            };
            // The large MODP groups are slow without optimisation; once is enough for them.
            let first = run();
            assert!(row.offer > 512 || first != run(), "{:?}", row.group);
        }
    }

    #[test]
    fn a_value_of_the_wrong_length_is_refused_by_every_method() {
        for row in &GROUPS {
            for length in [0, 1, row.offer - 1, row.offer + 1] {
                assert_eq!(
                    row.group.accept(&vec![2; length]).err(),
                    Some(KexError::Length),
                    "{:?}",
                    row.group
                );
            }
            if row.offer <= 512 {
                let (offer, _) = row.group.offer().unwrap();
                assert_eq!(offer.finish(&vec![2; row.answer - 1]).err(), Some(KexError::Length));
            }
        }
    }

    /// RFC 6989 §2.1: 0, 1, p-1, p and more are no public values.
    #[test]
    fn values_that_make_a_known_secret_are_refused() {
        let zero = vec![0; 256];
        let mut one = zero.clone();
        one[255] = 1;
        let prime = hex::decode("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF").unwrap();
        let mut last = prime.clone();
        last[255] = 0xfe;
        for bad in [zero, one, last, prime, vec![0xff; 256]] {
            assert_eq!(Group::Modp2048.accept(&bad).err(), Some(KexError::Value));
        }
        // A point of small order on Curve25519, and a point that is not on P-256.
        assert_eq!(Group::X25519.accept(&[0; 32]).err(), Some(KexError::Value));
        assert_eq!(Group::Ecp256.accept(&[1; 64]).err(), Some(KexError::Value));
        // An ML-KEM key whose coefficients are not reduced (FIPS 203 §7.2).
        assert_eq!(Group::MlKem768.accept(&[0xff; 1184]).err(), Some(KexError::Value));
    }
}
