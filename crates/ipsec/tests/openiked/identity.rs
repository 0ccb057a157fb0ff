//! How two of them prove who they are, and what each has of that below /etc/iked.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// How they prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A secret that both know.
    Secret,
    /// ECDSA P-256, with certificates of one authority.
    Certificate,
}

impl By {
    /// The end of a rule.
    pub(crate) fn rule(self, own: &str, peer: &str) -> String {
        match self {
            Self::Secret => "psk \"secret\"".into(),
            Self::Certificate => format!("srcid {own}.example.org dstid {peer}.example.org"),
        }
    }
}

/// Somebody's certificate and key, as PEM.
pub(crate) struct Holder {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Who signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: String,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2100, 1, 1));
    params
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = params("Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = pem("CERTIFICATE", params.self_signed(&key).expect("a certificate").der());
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn vouch(&self, name: &str) -> Holder {
        let host = format!("{name}.example.org");
        let mut params = params(name);
        params.subject_alt_names = vec![SanType::DnsName(host.try_into().expect("a name"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Holder {
            certificate: pem("CERTIFICATE", certificate.der()),
            key: pem("PRIVATE KEY", key.serialized_der()),
        }
    }

    /// Writes what `holder` has of it in the way that iked wants it, for /etc/iked.
    pub(crate) fn equip(&self, holder: &Holder, etc: &Path) {
        for (name, text) in [("ca/ca.crt", &self.certificate), ("certs/own.crt", &holder.certificate)] {
            write(&etc.join(name), text);
            // It reads them once it has given up being root.
            fs::set_permissions(etc.join(name), fs::Permissions::from_mode(0o644)).expect("mode");
        }
        write(&etc.join("private/local.key"), &holder.key);
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    ipsec::conf::files::pem(label, der).to_string()
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
    fs::write(path, text).expect("file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mode");
}
