//! Signatures of IKE: keys, schemes, and the AlgorithmIdentifiers that name schemes on the wire (RFC 7427 §3).
//!
//! A signature is verified by the scheme the *caller* asks for, with a key whose kind fits it. Nothing here looks at a
//! signature to find out how it was made.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey, RsaKeyPair, VerificationAlgorithm,
};
use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};
use pkcs1::{RsaPssParamsOwned, RsaPssParamsRef, RsaPublicKeyRef};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A hash function under a signature, in the order of its number (IANA, IKEv2 Hash Algorithms).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignatureHash {
    /// SHA-1, number 1. Collisions are cheap: verified where the caller asks for it by name, signed with never.
    Sha1,
    /// SHA-256, number 2.
    Sha256,
    /// SHA-384, number 3.
    Sha384,
    /// SHA-512, number 4.
    Sha512,
}

impl SignatureHash {
    /// Every hash there is.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Its number (RFC 7427 §7).
    pub const fn number(self) -> u16 {
        match self {
            Self::Sha1 => 1,
            Self::Sha256 => 2,
            Self::Sha384 => 3,
            Self::Sha512 => 4,
        }
    }

    /// The hash with this number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.number() == number)
    }

    /// Octets of output, which is also the length of the salt in RSASSA-PSS here.
    const fn len(self) -> u8 {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    const fn oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Self::Sha1 => "1.3.14.3.2.26",
            Self::Sha256 => "2.16.840.1.101.3.4.2.1",
            Self::Sha384 => "2.16.840.1.101.3.4.2.2",
            Self::Sha512 => "2.16.840.1.101.3.4.2.3",
        })
    }

    const fn rsa_oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Self::Sha1 => "1.2.840.113549.1.1.5",
            Self::Sha256 => "1.2.840.113549.1.1.11",
            Self::Sha384 => "1.2.840.113549.1.1.12",
            Self::Sha512 => "1.2.840.113549.1.1.13",
        })
    }

    const fn ecdsa_oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Self::Sha1 => "1.2.840.10045.4.1",
            Self::Sha256 => "1.2.840.10045.4.3.2",
            Self::Sha384 => "1.2.840.10045.4.3.3",
            Self::Sha512 => "1.2.840.10045.4.3.4",
        })
    }
}

/// A curve of ECDSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    const fn oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Self::P256 => "1.2.840.10045.3.1.7",
            Self::P384 => "1.3.132.0.34",
            Self::P521 => "1.3.132.0.35",
        })
    }

    /// The hash that goes with it (RFC 4754 §3), and with which we sign.
    pub const fn hash(self) -> SignatureHash {
        match self {
            Self::P256 => SignatureHash::Sha256,
            Self::P384 => SignatureHash::Sha384,
            Self::P521 => SignatureHash::Sha512,
        }
    }
}

/// What a key can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// RSA, 2048 to 8192 bits.
    Rsa,
    /// ECDSA on a curve.
    Ec(Curve),
    /// Ed25519 (RFC 8032).
    Ed25519,
}

/// How a signature is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(SignatureHash),
    /// RSASSA-PSS, MGF1 and salt with the same hash.
    RsaPss(SignatureHash),
    /// ECDSA, the signature a DER SEQUENCE (RFC 7427).
    Ecdsa(SignatureHash),
    /// ECDSA with the curve's own hash, the signature r and s of fixed width (RFC 4754 §7).
    EcdsaRaw(Curve),
    /// Ed25519 (RFC 8420).
    Ed25519,
}

impl core::fmt::Display for SignatureHash {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        })
    }
}

impl core::fmt::Display for Scheme {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::RsaPkcs1(hash) => write!(f, "RSA (PKCS#1 v1.5) with {hash}"),
            Self::RsaPss(hash) => write!(f, "RSA-PSS with {hash}"),
            Self::Ecdsa(hash) => write!(f, "ECDSA with {hash}"),
            Self::EcdsaRaw(curve) => write!(f, "ECDSA with {}", curve.hash()),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

impl Scheme {
    /// The AlgorithmIdentifier that names it, in DER (RFC 7427 Appendix A). `None` for what has no name of its own: the
    /// raw ECDSA of RFC 4754, which the authentication method names.
    pub fn identifier(self) -> Option<Vec<u8>> {
        let plain =
            |oid: ObjectIdentifier, parameters| AlgorithmIdentifierRef { oid, parameters }.to_der().ok();
        let null = Some(der::asn1::AnyRef::NULL);
        match self {
            Self::RsaPkcs1(hash) => plain(hash.rsa_oid(), null),
            Self::Ecdsa(hash) => plain(hash.ecdsa_oid(), None),
            Self::Ed25519 => plain(ED25519, None),
            Self::EcdsaRaw(_) => None,
            Self::RsaPss(hash) => {
                let hash_id = AlgorithmIdentifierRef { oid: hash.oid(), parameters: null };
                let parameters = RsaPssParamsRef {
                    hash: hash_id,
                    mask_gen: spki::AlgorithmIdentifier { oid: MGF1, parameters: Some(hash_id) },
                    salt_len: hash.len(),
                    trailer_field: Default::default(),
                }
                .to_der()
                .ok()?;
                plain(RSA_PSS, der::asn1::AnyRef::try_from(&*parameters).ok())
            }
        }
    }

    /// The scheme an AlgorithmIdentifier names, whichever equivalent form it has: NULL parameters there or left out,
    /// PSS with its default trailer written or not. Nothing is guessed: unlike hashes in PSS, other salt lengths and
    /// anything left over are no scheme.
    pub fn from_identifier(der: &[u8]) -> Option<Self> {
        let id = AlgorithmIdentifierRef::from_der(der).ok()?;
        let nothing = id.parameters.is_none_or(|parameters| parameters.is_null());
        if id.oid == RSA_PSS {
            return Self::from_pss(&id.parameters?.decode_as::<RsaPssParamsOwned>().ok()?);
        }
        if !nothing {
            return None;
        }
        if id.oid == ED25519 {
            return Some(Self::Ed25519);
        }
        let hash = |oid: fn(SignatureHash) -> ObjectIdentifier| {
            SignatureHash::ALL.into_iter().find(|hash| oid(*hash) == id.oid)
        };
        hash(SignatureHash::rsa_oid)
            .map(Self::RsaPkcs1)
            .or_else(|| hash(SignatureHash::ecdsa_oid).map(Self::Ecdsa))
    }

    fn from_pss(parameters: &RsaPssParamsOwned) -> Option<Self> {
        let hash = SignatureHash::ALL.into_iter().find(|hash| hash.oid() == parameters.hash.oid)?;
        let mask = parameters.mask_gen.parameters.as_ref()?;
        let plain = |id: &spki::AlgorithmIdentifierOwned| {
            id.parameters.as_ref().is_none_or(|parameters| parameters.is_null())
        };
        let same = parameters.mask_gen.oid == MGF1 && mask.oid == hash.oid();
        (same && plain(mask) && plain(&parameters.hash) && parameters.salt_len == hash.len())
            .then_some(Self::RsaPss(hash))
    }

    /// The hash under it; `None` where the scheme hashes by itself ("Identity", RFC 8420 §2).
    pub const fn hash(self) -> Option<SignatureHash> {
        match self {
            Self::RsaPkcs1(hash) | Self::RsaPss(hash) | Self::Ecdsa(hash) => Some(hash),
            Self::EcdsaRaw(curve) => Some(curve.hash()),
            Self::Ed25519 => None,
        }
    }

    /// How the library verifies it with a key of this kind; `None` if they do not go together.
    fn verification(self, kind: KeyKind) -> Option<&'static dyn VerificationAlgorithm> {
        use Curve::{P256, P384, P521};
        use SignatureHash::{Sha1, Sha256, Sha384, Sha512};
        Some(match (self, kind) {
            (Self::RsaPkcs1(Sha1), KeyKind::Rsa) => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            (Self::RsaPkcs1(Sha256), KeyKind::Rsa) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (Self::RsaPkcs1(Sha384), KeyKind::Rsa) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (Self::RsaPkcs1(Sha512), KeyKind::Rsa) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (Self::RsaPss(Sha256), KeyKind::Rsa) => &signature::RSA_PSS_2048_8192_SHA256,
            (Self::RsaPss(Sha384), KeyKind::Rsa) => &signature::RSA_PSS_2048_8192_SHA384,
            (Self::RsaPss(Sha512), KeyKind::Rsa) => &signature::RSA_PSS_2048_8192_SHA512,
            (Self::Ecdsa(Sha256), KeyKind::Ec(P256)) => &signature::ECDSA_P256_SHA256_ASN1,
            (Self::Ecdsa(Sha384), KeyKind::Ec(P256)) => &signature::ECDSA_P256_SHA384_ASN1,
            (Self::Ecdsa(Sha512), KeyKind::Ec(P256)) => &signature::ECDSA_P256_SHA512_ASN1,
            (Self::Ecdsa(Sha256), KeyKind::Ec(P384)) => &signature::ECDSA_P384_SHA256_ASN1,
            (Self::Ecdsa(Sha384), KeyKind::Ec(P384)) => &signature::ECDSA_P384_SHA384_ASN1,
            (Self::Ecdsa(Sha512), KeyKind::Ec(P384)) => &signature::ECDSA_P384_SHA512_ASN1,
            (Self::Ecdsa(Sha256), KeyKind::Ec(P521)) => &signature::ECDSA_P521_SHA256_ASN1,
            (Self::Ecdsa(Sha384), KeyKind::Ec(P521)) => &signature::ECDSA_P521_SHA384_ASN1,
            (Self::Ecdsa(Sha512), KeyKind::Ec(P521)) => &signature::ECDSA_P521_SHA512_ASN1,
            (Self::EcdsaRaw(P256), KeyKind::Ec(P256)) => &signature::ECDSA_P256_SHA256_FIXED,
            (Self::EcdsaRaw(P384), KeyKind::Ec(P384)) => &signature::ECDSA_P384_SHA384_FIXED,
            (Self::EcdsaRaw(P521), KeyKind::Ec(P521)) => &signature::ECDSA_P521_SHA512_FIXED,
            (Self::Ed25519, KeyKind::Ed25519) => &signature::ED25519,
            _ => return None,
        })
    }
}

/// What is wrong with a key or a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// Not a key in any form we read.
    Malformed,
    /// A key of a kind we do not have, or RSA outside 2048 to 8192 bits.
    Unsupported,
    /// The scheme is not one for this key.
    Scheme,
    /// The signature is not one of this key over these octets.
    Invalid,
    /// The library refused, which it does without randomness or memory.
    Library,
}

impl core::fmt::Display for SignError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a key in PKCS#8, PKCS#1, SEC1 or SubjectPublicKeyInfo form",
            Self::Unsupported => "a key of a kind that is not supported (RSA of 2048 to 8192 bits, ECDSA P-256, P-384, P-521, Ed25519 are)",
            Self::Scheme => "the signature scheme is not one for this kind of key",
            Self::Invalid => "the signature is wrong",
            Self::Library => "the cryptographic library refused",
        })
    }
}

impl core::error::Error for SignError {}

/// A public key, checked when it was read: RSA of a size we take, a point on its curve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    spki: Vec<u8>,
    key: Vec<u8>,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7, RFC 7670).
    ///
    /// # Errors
    /// Anything but strict DER of a key we have, with the parameters its kind prescribes.
    pub fn from_spki(der: &[u8]) -> Result<Self, SignError> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| SignError::Malformed)?;
        let key = info.subject_public_key.as_bytes().ok_or(SignError::Malformed)?;
        let parameters = info.algorithm.parameters;
        let kind = match info.algorithm.oid {
            RSA if parameters.is_some_and(|any| any.is_null()) => KeyKind::Rsa,
            EC => {
                let curve = parameters.ok_or(SignError::Malformed)?.decode_as::<ObjectIdentifier>();
                let curve = curve.map_err(|_| SignError::Unsupported)?;
                let known = Curve::ALL.into_iter().find(|known| known.oid() == curve);
                KeyKind::Ec(known.ok_or(SignError::Unsupported)?)
            }
            ED25519 if parameters.is_none() => KeyKind::Ed25519,
            _ => return Err(SignError::Unsupported),
        };
        let scheme = match kind {
            KeyKind::Rsa => {
                let rsa = RsaPublicKeyRef::from_der(key).map_err(|_| SignError::Malformed)?;
                if !(256..=1024).contains(&rsa.modulus.as_bytes().len()) {
                    return Err(SignError::Unsupported);
                }
                Scheme::RsaPkcs1(SignatureHash::Sha256)
            }
            // The other forms of a point are nobody's in certificates, and one form is one less to get wrong.
            KeyKind::Ec(_) if key.first() != Some(&4) => return Err(SignError::Unsupported),
            KeyKind::Ec(curve) => Scheme::Ecdsa(curve.hash()),
            KeyKind::Ed25519 => Scheme::Ed25519,
        };
        let algorithm = scheme.verification(kind).ok_or(SignError::Unsupported)?;
        ParsedPublicKey::new(algorithm, key).map_err(|_| SignError::Malformed)?;
        Ok(Self { kind, spki: der.to_vec(), key: key.to_vec() })
    }

    /// A key of a kind from the octets that stand in its SubjectPublicKeyInfo (see [`PublicKey::key`]).
    ///
    /// # Errors
    /// They are none such.
    pub fn of(kind: KeyKind, key: &[u8]) -> Result<Self, SignError> {
        match kind {
            KeyKind::Rsa => public_of(RSA, Some(der::asn1::AnyRef::NULL), key),
            KeyKind::Ec(curve) => public_of(EC, Some((&curve.oid()).into()), key),
            KeyKind::Ed25519 => public_of(ED25519, None, key),
        }
    }

    /// Reads an RSA key in the form of DNS records (RFC 3110 §2), in which `leftrsasigkey=` has it: the length of the
    /// exponent, the exponent, the modulus.
    ///
    /// # Errors
    /// It is none such, or of a size we do not take.
    pub fn from_rfc3110(octets: &[u8]) -> Result<Self, SignError> {
        let (first, rest) = octets.split_first().ok_or(SignError::Malformed)?;
        let (length, rest) = match (first, rest.split_first_chunk::<2>()) {
            (0, Some((length, rest))) => (usize::from(u16::from_be_bytes(*length)), rest),
            (0, None) => return Err(SignError::Malformed),
            (length, _) => (usize::from(*length), rest),
        };
        let (exponent, modulus) = rest.split_at_checked(length).ok_or(SignError::Malformed)?;
        let number = |octets| der::asn1::UintRef::new(octets).map_err(|_| SignError::Malformed);
        let key = RsaPublicKeyRef { modulus: number(modulus)?, public_exponent: number(exponent)? };
        Self::of(KeyKind::Rsa, &key.to_der().map_err(|_| SignError::Malformed)?)
    }

    /// The same form of an RSA key; `None` of any other.
    pub fn to_rfc3110(&self) -> Option<Vec<u8>> {
        let key = RsaPublicKeyRef::from_der(&self.key).ok().filter(|_| self.kind == KeyKind::Rsa)?;
        let (exponent, modulus) = (key.public_exponent.as_bytes(), key.modulus.as_bytes());
        Some([&[u8::try_from(exponent.len()).ok().filter(|length| *length > 0)?], exponent, modulus].concat())
    }

    /// What it can do.
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The SubjectPublicKeyInfo it came from.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The key itself: RSAPublicKey in DER (RFC 8017 Appendix A.1.1), an uncompressed point, 32 octets of Ed25519.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Verifies a signature over `octets`, made as `scheme` says and in no other way.
    ///
    /// # Errors
    /// The scheme is none for this key, or the signature is wrong.
    pub fn verify(&self, scheme: Scheme, octets: &[u8], signature: &[u8]) -> Result<(), SignError> {
        let algorithm = scheme.verification(self.kind).ok_or(SignError::Scheme)?;
        signature::UnparsedPublicKey::new(algorithm, &self.key)
            .verify(octets, signature)
            .map_err(|_| SignError::Invalid)
    }
}

/// A private key; the library wipes it when it goes.
pub struct PrivateKey {
    public: PublicKey,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    /// One key, for the two forms of its signatures: DER, and r and s.
    Ec(Box<[EcdsaKeyPair; 2]>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl core::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PrivateKey({:?})", self.public.kind)
    }
}

impl PrivateKey {
    /// Reads a private key in DER: PKCS#8, RSAPrivateKey (PKCS#1), or ECPrivateKey (SEC1, RFC 5915).
    ///
    /// # Errors
    /// What is none of these, a key of a kind or size we do not have, or halves that do not belong together.
    pub fn from_der(der: &[u8]) -> Result<Self, SignError> {
        if let Ok(rsa) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
            return Self::rsa(rsa);
        }
        for curve in Curve::ALL {
            let [asn1, fixed] = signing(curve);
            let read = |algorithm| {
                EcdsaKeyPair::from_pkcs8(algorithm, der)
                    .or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, der))
            };
            if let (Ok(asn1), Ok(fixed)) = (read(asn1), read(fixed)) {
                return Self::ec(curve, asn1, fixed);
            }
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| SignError::Malformed)?;
        let public = PublicKey::of(KeyKind::Ed25519, pair.public_key().as_ref())?;
        Ok(Self { public, pair: Pair::Ed25519(Box::new(pair)) })
    }

    /// Makes a new key and returns it with its PKCS#8 form, which is what is kept in a file.
    ///
    /// # Errors
    /// An RSA size other than 2048, 3072, 4096 and 8192 bits.
    pub fn generate(kind: KeyKind, rsa_bits: u16) -> Result<(Self, crate::Secret), SignError> {
        use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
        let pkcs8 = match kind {
            KeyKind::Rsa => {
                let size = match rsa_bits {
                    2048 => KeySize::Rsa2048,
                    3072 => KeySize::Rsa3072,
                    4096 => KeySize::Rsa4096,
                    8192 => KeySize::Rsa8192,
                    _ => return Err(SignError::Unsupported),
                };
                let pair = RsaKeyPair::generate(size).map_err(|_| SignError::Library)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| SignError::Library)?;
                crate::Secret::from(der.as_ref())
            }
            KeyKind::Ec(curve) => {
                let [asn1, _] = signing(curve);
                let made = EcdsaKeyPair::generate_pkcs8(asn1, &SystemRandom::new());
                crate::Secret::from(made.map_err(|_| SignError::Library)?.as_ref())
            }
            KeyKind::Ed25519 => {
                let made = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new());
                crate::Secret::from(made.map_err(|_| SignError::Library)?.as_ref())
            }
        };
        Ok((Self::from_der(&pkcs8)?, pkcs8))
    }

    fn rsa(pair: RsaKeyPair) -> Result<Self, SignError> {
        let public = PublicKey::of(KeyKind::Rsa, pair.public_key().as_ref())?;
        Ok(Self { public, pair: Pair::Rsa(Box::new(pair)) })
    }

    fn ec(curve: Curve, asn1: EcdsaKeyPair, fixed: EcdsaKeyPair) -> Result<Self, SignError> {
        let public = PublicKey::of(KeyKind::Ec(curve), asn1.public_key().as_ref())?;
        Ok(Self { public, pair: Pair::Ec(Box::new([asn1, fixed])) })
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `octets`.
    ///
    /// # Errors
    /// The scheme is none for this key, or rests on SHA-1.
    pub fn sign(&self, scheme: Scheme, octets: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match (&self.pair, scheme) {
            (Pair::Rsa(pair), Scheme::RsaPkcs1(hash) | Scheme::RsaPss(hash)) => {
                let pss = matches!(scheme, Scheme::RsaPss(_));
                let encoding = match (hash, pss) {
                    (SignatureHash::Sha1, _) => return Err(SignError::Scheme),
                    (SignatureHash::Sha256, false) => &signature::RSA_PKCS1_SHA256,
                    (SignatureHash::Sha384, false) => &signature::RSA_PKCS1_SHA384,
                    (SignatureHash::Sha512, false) => &signature::RSA_PKCS1_SHA512,
                    (SignatureHash::Sha256, true) => &signature::RSA_PSS_SHA256,
                    (SignatureHash::Sha384, true) => &signature::RSA_PSS_SHA384,
                    (SignatureHash::Sha512, true) => &signature::RSA_PSS_SHA512,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, octets, &mut signature).map_err(|_| SignError::Library)?;
                Ok(signature)
            }
            (Pair::Ec(pairs), Scheme::Ecdsa(_) | Scheme::EcdsaRaw(_)) => {
                let KeyKind::Ec(curve) = self.public.kind else { return Err(SignError::Scheme) };
                let [asn1, fixed] = &**pairs;
                let pair = match scheme {
                    Scheme::Ecdsa(hash) if hash == curve.hash() => asn1,
                    Scheme::EcdsaRaw(asked) if asked == curve => fixed,
                    Scheme::RsaPkcs1(_)
                    | Scheme::RsaPss(_)
                    | Scheme::Ecdsa(_)
                    | Scheme::EcdsaRaw(_)
                    | Scheme::Ed25519 => return Err(SignError::Scheme),
                };
                Ok(pair.sign(&random, octets).map_err(|_| SignError::Library)?.as_ref().to_vec())
            }
            (Pair::Ed25519(pair), Scheme::Ed25519) => {
                Ok(pair.try_sign(octets).map_err(|_| SignError::Library)?.as_ref().to_vec())
            }
            _ => Err(SignError::Scheme),
        }
    }
}

/// How the library signs on a curve: DER, and r and s.
fn signing(curve: Curve) -> [&'static signature::EcdsaSigningAlgorithm; 2] {
    match curve {
        Curve::P256 => {
            [&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &signature::ECDSA_P256_SHA256_FIXED_SIGNING]
        }
        Curve::P384 => {
            [&signature::ECDSA_P384_SHA384_ASN1_SIGNING, &signature::ECDSA_P384_SHA384_FIXED_SIGNING]
        }
        Curve::P521 => {
            [&signature::ECDSA_P521_SHA512_ASN1_SIGNING, &signature::ECDSA_P521_SHA512_FIXED_SIGNING]
        }
    }
}

fn public_of(
    oid: ObjectIdentifier,
    parameters: Option<der::asn1::AnyRef<'_>>,
    key: &[u8],
) -> Result<PublicKey, SignError> {
    let info = SubjectPublicKeyInfoRef {
        algorithm: AlgorithmIdentifierRef { oid, parameters },
        subject_public_key: der::asn1::BitStringRef::from_bytes(key).map_err(|_| SignError::Malformed)?,
    };
    PublicKey::from_spki(&info.to_der().map_err(|_| SignError::Malformed)?)
}

#[cfg(test)]
mod known;
#[cfg(test)]
mod tests;
