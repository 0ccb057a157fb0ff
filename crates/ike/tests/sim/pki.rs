//! Authorities and what they sign, made for a test.
#![allow(dead_code, reason = "every test that makes certificates has this file, and none needs all of it")]

use super::Certificate;
use ipsec_core::Secret;
use ipsec_core::sign::{Curve, KeyKind, PrivateKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// 1 June 2026, when every certificate here is valid that does not say otherwise, in seconds since 1970.
pub(crate) const NOW: u64 = 1_780_272_000;

static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Somebody with a certificate.
pub(crate) struct Holder {
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) key: Arc<PrivateKey>,
    /// The same key as a file has it.
    pub(crate) pkcs8: Secret,
    pub(crate) serial: u64,
}

/// Somebody who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: Arc<Certificate>,
}

fn params(subject: &str, names: &[&str]) -> (CertificateParams, u64) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for part in subject.split(", ").filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap();
        let key = match key {
            "C" => DnType::CountryName,
            "O" => DnType::OrganizationName,
            "OU" => DnType::OrganizationalUnitName,
            _ => DnType::CommonName,
        };
        params.distinguished_name.push(key, value);
    }
    let name = |name: &&str| match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => match name.strip_prefix('@') {
            Some(host) => SanType::DnsName(host.try_into().unwrap()),
            None => SanType::Rfc822Name((*name).try_into().unwrap()),
        },
    };
    params.subject_alt_names = names.iter().map(name).collect();
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    params.serial_number = Some(SerialNumber::from(serial));
    (params, serial)
}

fn key((kind, bits): (KeyKind, u16)) -> (KeyPair, PrivateKey, Secret) {
    let (key, pkcs8) = PrivateKey::generate(kind, bits).unwrap();
    (KeyPair::try_from(&*pkcs8).unwrap(), key, pkcs8)
}

impl Authority {
    pub(crate) fn new(subject: &str) -> Self {
        Self::with(subject, |_| {})
    }

    /// A root.
    pub(crate) fn with(subject: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::of((subject, KeyKind::Ec(Curve::P256), 0), None, change)
    }

    /// An authority that this one vouches for.
    pub(crate) fn below(&self, subject: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::of((subject, KeyKind::Ec(Curve::P256), 0), Some(self), change)
    }

    /// An authority with a key of a kind and, for RSA, of so many bits.
    pub(crate) fn of(
        (subject, kind, bits): (&str, KeyKind, u16),
        above: Option<&Self>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let ((mut params, _), (pair, ..)) = (params(subject, &[]), key((kind, bits)));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        change(&mut params);
        let der = match above {
            None => params.self_signed(&pair),
            Some(above) => params.signed_by(&pair, &above.issuer),
        };
        let certificate = Arc::new(Certificate::from_der(der.unwrap().der()).unwrap());
        Self { issuer: Issuer::new(params, pair), certificate }
    }

    /// A gateway's certificate: identities as people write them, the subject apart.
    pub(crate) fn gateway(&self, subject: &str, names: &[&str]) -> Holder {
        self.issue((subject, names), KeyKind::Ec(Curve::P256), |_| {})
    }

    pub(crate) fn issue(
        &self,
        who: (&str, &[&str]),
        kind: KeyKind,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Holder {
        self.issue_of(who, (kind, 2048), change)
    }

    pub(crate) fn issue_of(
        &self,
        (subject, names): (&str, &[&str]),
        of: (KeyKind, u16),
        change: impl FnOnce(&mut CertificateParams),
    ) -> Holder {
        let ((mut params, serial), (pair, key, pkcs8)) = (params(subject, names), key(of));
        change(&mut params);
        let der = params.signed_by(&pair, &self.issuer).unwrap();
        let certificate = Arc::new(Certificate::from_der(der.der()).unwrap());
        Holder { certificate, key: Arc::new(key), pkcs8, serial }
    }

    /// What this authority has revoked, said in one month of 2026 and to be said again in another.
    pub(crate) fn crl(&self, revoked: &[u64], (from, to): (u8, u8)) -> Vec<u8> {
        self.crl_between(revoked, [(2026, from), (2026, to)])
    }

    /// The same, said in a month of one year and to be said again in one of another.
    pub(crate) fn crl_between(&self, revoked: &[u64], [from, to]: [(i32, u8); 2]) -> Vec<u8> {
        let revoked_certs = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 2),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(from.0, from.1, 1),
            next_update: date_time_ymd(to.0, to.1, 1),
            crl_number: SerialNumber::from(u64::from(from.1)),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}
