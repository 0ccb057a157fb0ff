//! What an authority is asked to sign: PKCS#10 (RFC 2986).

use crate::dn::Dn;
use crate::identity::Id;
use der::asn1::{BitString, Ia5String, OctetString};
use der::oid::AssociatedOid;
use der::{Decode, Encode};
use ipsec_core::sign::{KeyKind, PrivateKey, Scheme, SignatureHash};
use std::net::IpAddr;
use x509_cert::attr::Attributes;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

/// The DER of a request for a certificate with this subject and, as subjectAltNames, these identities. The signature in it
/// proves to the authority that who asks has the key.
///
/// # Errors
/// Which identity no certificate can have.
pub fn request(key: &PrivateKey, subject: &Dn, names: &[Id]) -> Result<Vec<u8>, String> {
    let failed = |error: der::Error| format!("the request cannot be written: {error}");
    let mut attributes = Attributes::default();
    if !names.is_empty() {
        let names = names.iter().map(alternative).collect::<Result<Vec<_>, _>>()?;
        let value = SubjectAltName(names).to_der().and_then(OctetString::new).map_err(failed)?;
        let extension = Extension { extn_id: SubjectAltName::OID, critical: false, extn_value: value };
        let asked = ExtensionReq(vec![extension]).try_into().map_err(failed)?;
        attributes.insert(asked).map_err(failed)?;
    }
    let info = CertReqInfo {
        version: Version::V1,
        subject: Name::from_der(subject.der()).map_err(failed)?,
        public_key: SubjectPublicKeyInfoOwned::from_der(key.public().spki()).map_err(failed)?,
        attributes,
    };
    let scheme = match key.public().kind() {
        // The older padding: every authority knows it.
        KeyKind::Rsa => Scheme::RsaPkcs1(SignatureHash::Sha256),
        KeyKind::Ec(curve) => Scheme::Ecdsa(curve.hash()),
        KeyKind::Ed25519 => Scheme::Ed25519,
    };
    let unsigned = info.to_der().map_err(failed)?;
    let signature = key.sign(scheme, &unsigned).map_err(|error| error.to_string())?;
    let algorithm = scheme.identifier().unwrap_or_default();
    let algorithm = AlgorithmIdentifierOwned::from_der(&algorithm).map_err(failed)?;
    let signature = BitString::from_bytes(&signature).map_err(failed)?;
    CertReq { info, algorithm, signature }.to_der().map_err(failed)
}

fn alternative(id: &Id) -> Result<GeneralName, String> {
    let text = |text: &str| Ia5String::new(text).map_err(|_| format!("`{text}` is not plain ASCII"));
    let octets = |octets: &[u8]| OctetString::new(octets).map_err(|error| error.to_string());
    Ok(match id {
        Id::Fqdn(name) => GeneralName::DnsName(text(name)?),
        Id::Mail(name) => GeneralName::Rfc822Name(text(name)?),
        Id::Address(IpAddr::V4(address)) => GeneralName::IpAddress(octets(&address.octets())?),
        Id::Address(IpAddr::V6(address)) => GeneralName::IpAddress(octets(&address.octets())?),
        Id::Name(_) | Id::Key(_) => {
            return Err(format!("{id}: write a host's name, user@host or an address"));
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use ipsec_core::sign::Curve;

    #[test]
    fn who_asks_proves_to_have_the_key_and_says_who_it_is() {
        let subject = Dn::parse("C=CH, O=Example, CN=west").unwrap();
        let names = ["@west.example.org", "ops@example.org", "192.0.2.1", "2001:db8::1"];
        let ids: Vec<Id> = names.iter().map(|name| Id::parse(name).unwrap()).collect();
        for kind in [KeyKind::Rsa, KeyKind::Ec(Curve::P384), KeyKind::Ed25519] {
            let (key, _) = PrivateKey::generate(kind, 2048).unwrap();
            let der = request(&key, &subject, &ids).unwrap();
            let read = CertReq::from_der(&der).unwrap();
            assert_eq!(read.info.subject.to_der().unwrap(), subject.der());
            assert_eq!(read.info.public_key.to_der().unwrap(), key.public().spki());
            let scheme = Scheme::from_identifier(&read.algorithm.to_der().unwrap()).unwrap();
            let (signed, signature) = (read.info.to_der().unwrap(), read.signature.raw_bytes());
            key.public().verify(scheme, &signed, signature).unwrap();
            let value = read.info.attributes.get(0).unwrap().values.get(0).unwrap().to_der().unwrap();
            let extensions = Vec::<Extension>::from_der(&value).unwrap();
            let SubjectAltName(found) =
                SubjectAltName::from_der(extensions[0].extn_value.as_bytes()).unwrap();
            let found: Vec<Id> = found.iter().filter_map(super::super::identity).collect();
            assert_eq!((extensions.len(), found), (1, ids.clone()));
        }
    }

    #[test]
    fn what_no_certificate_has_is_not_asked_for() {
        let (key, _) = PrivateKey::generate(KeyKind::Ed25519, 0).unwrap();
        let subject = Dn::parse("CN=west").unwrap();
        for (id, said) in [("@#0102", "write a host's name"), ("CN=west", "write a host's name")] {
            let why = request(&key, &subject, &[Id::parse(id).unwrap()]).unwrap_err();
            assert!(why.contains(said), "{why}");
        }
        let plain = CertReq::from_der(&request(&key, &subject, &[]).unwrap()).unwrap();
        assert!(plain.info.attributes.is_empty());
    }
}
