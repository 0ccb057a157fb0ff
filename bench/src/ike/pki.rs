//! An authority, and a certificate for each side.

use ike::x509::Certificate;
use ike::x509::path::Trust;
use ipsec_core::Secret;
use ipsec_core::sign::{Curve, KeyKind, PrivateKey};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use std::sync::Arc;

/// 1 June 2026, when the certificates are valid, in seconds since 1970.
pub(super) const NOW: u64 = 1_780_272_000;

/// Somebody with a certificate.
pub(super) struct Holder {
    pub(super) certificate: Arc<Certificate>,
    pub(super) key: Arc<PrivateKey>,
    /// The same as a file has it.
    pub(super) pkcs8: Secret,
}

/// Who is believed, and the gateway and its peers whom that vouches for.
pub(super) struct Pki {
    pub(super) trust: Arc<Trust>,
    gateway: Holder,
    peer: Holder,
}

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    params
}

fn pair(kind: KeyKind) -> (KeyPair, PrivateKey, Secret) {
    let (key, pkcs8) = PrivateKey::generate(kind, 2048).expect("a key");
    (KeyPair::try_from(&*pkcs8).expect("a key pair"), key, pkcs8)
}

impl Pki {
    /// All keys are of one kind; RSA has 2048 bits.
    pub(super) fn new(kind: KeyKind) -> Self {
        Self::named(kind, ["gw", "peer"])
    }

    /// The gateway and its peer have these names.
    pub(super) fn named(kind: KeyKind, names: [&str; 2]) -> Self {
        let ((mut root, (signer, ..)), peers) = ((params("Root", &[]), pair(kind)), names);
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let own = root.self_signed(&signer).expect("a certificate");
        let issuer = Issuer::new(root, signer);
        let read = |der: &[u8]| Arc::new(Certificate::from_der(der).expect("a certificate"));
        let [gateway, peer] = peers.map(|name| {
            let (pair, key, pkcs8) = pair(kind);
            let certificate = params(name, &[name]).signed_by(&pair, &issuer).expect("a certificate");
            Holder { certificate: read(certificate.der()), key: Arc::new(key), pkcs8 }
        });
        let trust = Trust { authorities: vec![read(own.der())], ..Trust::default() };
        Self { trust: Arc::new(trust), gateway, peer }
    }

    pub(super) fn ecdsa() -> Self {
        Self::new(KeyKind::Ec(Curve::P256))
    }

    pub(super) fn rsa() -> Self {
        Self::new(KeyKind::Rsa)
    }

    /// The gateway, or a peer of it.
    pub(super) const fn holder(&self, gateway: bool) -> &Holder {
        if gateway { &self.gateway } else { &self.peer }
    }
}
