//! Certificates, authorities, revocation lists and private keys in files below the directory of ipsec.conf: `ipsec.d/certs`,
//! `cacerts`, `crls` and `private`.
//!
//! Certificates and lists are PEM, as many as a file holds, or one in DER. A private key is PKCS#8, PKCS#1 or SEC 1, PEM or
//! DER, not encrypted, and nobody's to read but its owner's.

use base64ct::{Base64, Encoding};
use ike::x509::path::{Crl, Trust};
use ike::x509::{Certificate, date};
use ipsec_core::sign::PrivateKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// The longest file that is read.
const LONGEST: u64 = 4 << 20;
/// Files of one directory that are read.
const MOST: usize = 1024;

/// What is in DER as PEM.
pub fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let coded = Zeroizing::new(Base64::encode_string(der));
    let mut text = Zeroizing::new(String::with_capacity(coded.len().saturating_mul(2).saturating_add(128)));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = coded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Makes a file of this mode, in a directory that is made with it, never in the place of one that is there.
pub fn new_file(path: &Path, mode: u32) -> Result<File, String> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return format!("{}: there is such a file already, and it is never replaced", path.display());
        }
        format!("{}: {error}", path.display())
    };
    if let Some(directory) = path.parent() {
        // Who may look into a directory of keys is who may read them.
        let closed = if mode & 0o077 == 0 { 0o700 } else { 0o755 };
        DirBuilder::new().recursive(true).mode(closed).create(directory).map_err(failed)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)
}

/// Reads a file, at most [`LONGEST`] octets of it.
pub(crate) fn octets(path: &Path) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut octets)?;
    Ok(octets)
}

/// Reads a file that others cannot read; the open file is looked at, not its name.
pub(super) fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |error: io::Error| format!("cannot read file: {error}");
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.mode() & 0o077 != 0 {
        return Err(format!(
            "others may read or write this file (mode {:04o}): `chmod 600 {}'",
            meta.mode() & 0o7777,
            path.display()
        ));
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&meta.uid()) {
        return Err(format!("this file belongs to user {}: `chown root {}'", meta.uid(), path.display()));
    }
    // A vector that grows leaves copies behind; this one is as long as it will be.
    let mut octets = Zeroizing::new(Vec::with_capacity(
        usize::try_from(meta.len().min(LONGEST)).unwrap_or(0).saturating_add(1),
    ));
    file.take(LONGEST).read_to_end(&mut octets).map_err(failed)?;
    Ok(octets)
}

/// The file a name stands for: itself, or below a directory of `ipsec.d`, with or without its ending.
fn find(confs: &Path, directory: &str, name: &str) -> Result<PathBuf, String> {
    let base = confs.join("ipsec.d").join(directory).join(name);
    let endings = ["", ".pem", ".crt", ".cer", ".der", ".key"];
    let candidates = endings.iter().map(|ending| PathBuf::from(format!("{}{ending}", base.display())));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| format!("there is no file {}", base.display()))
}

/// The certificates of a file, the first the one it is named for.
///
/// # Errors
/// Why it cannot be read, or what it is instead.
pub fn certificates(confs: &Path, name: &str) -> Result<Vec<Arc<Certificate>>, String> {
    let path = find(confs, "certs", name)?;
    read_certificates(&path).map_err(|why| format!("{}: {why}", path.display()))
}

fn read_certificates(path: &Path) -> Result<Vec<Arc<Certificate>>, String> {
    let octets = octets(path).map_err(|error| error.to_string())?;
    let ders: Vec<Vec<u8>> = if is_pem(&octets) {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
        all.map_err(|error| format!("not PEM: {error}"))?.iter().map(|der| der.to_vec()).collect()
    } else {
        vec![octets]
    };
    if ders.is_empty() {
        return Err("no certificate is in it".to_owned());
    }
    let read = |der: &Vec<u8>| Certificate::from_der(der).map(Arc::new).map_err(|error| error.to_string());
    ders.iter().map(read).collect()
}

fn is_pem(octets: &[u8]) -> bool {
    memchr::memmem::find(octets, b"-----BEGIN ").is_some()
}

/// The private key of a file, which must be nobody else's to read.
///
/// # Errors
/// Why it is refused, and the remedy.
pub fn private_key(confs: &Path, name: &str) -> Result<PrivateKey, String> {
    let path = find(confs, "private", name)?;
    let refused = |why: &str| format!("{}: {why}", path.display());
    let octets = secret(&path).map_err(|why| refused(&why))?;
    if memchr::memmem::find(&octets, b"ENCRYPTED").is_some() && is_pem(&octets) {
        let remedy = format!(
            "the key is encrypted, and nobody is there to type: `openssl pkey -in {0} -out {0}'",
            path.display()
        );
        return Err(refused(&remedy));
    }
    let key = if is_pem(&octets) {
        let mut der = PrivateKeyDer::from_pem_slice(&octets)
            .map_err(|error| refused(&format!("no private key: {error}")))?;
        let key = PrivateKey::from_der(der.secret_der());
        der.zeroize();
        key
    } else {
        PrivateKey::from_der(&octets)
    };
    key.map_err(|error| refused(&error.to_string()))
}

/// Everybody whom this host believes about others, and what they have revoked; and what of it could not be read, each as a
/// line. `strict` asks for a current list.
pub fn trust(confs: &Path, strict: bool, now: u64) -> (Trust, Vec<String>) {
    let mut lines = Vec::new();
    let mut authorities = Vec::new();
    for file in files(&confs.join("ipsec.d/cacerts"), &mut lines) {
        match read_certificates(&file) {
            Ok(read) => {
                for authority in &read {
                    let why = if !authority.is_authority() {
                        Some(
                            "is no authority's (basicConstraints, keyUsage): it belongs into ipsec.d/certs"
                                .to_owned(),
                        )
                    } else if authority.valid().1 < now {
                        Some(format!("expired at {}", date(authority.valid().1)))
                    } else {
                        None
                    };
                    lines.extend(
                        why.map(|why| format!("{}: the certificate of {authority} {why}", file.display())),
                    );
                }
                authorities.extend(read);
            }
            Err(why) => lines.push(format!("{}: {why}", file.display())),
        }
    }
    let mut crls = Vec::new();
    for file in files(&confs.join("ipsec.d/crls"), &mut lines) {
        match lists(&file) {
            Ok(read) => crls.extend(read),
            Err(why) => lines.push(format!("{}: {why}", file.display())),
        }
    }
    (Trust { authorities, crls, strict }.in_order(), lines)
}

fn lists(path: &Path) -> Result<Vec<Crl>, String> {
    let octets = octets(path).map_err(|error| error.to_string())?;
    if !is_pem(&octets) {
        return Ok(vec![Crl::from_der(&octets)?]);
    }
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&octets).collect();
    let all = all.map_err(|error| format!("not PEM: {error}"))?;
    all.iter().map(|der| Crl::from_der(der.as_ref())).collect()
}

/// The files of a directory in the order of their names; a directory that is not there has none.
fn files(directory: &Path, lines: &mut Vec<String>) -> Vec<PathBuf> {
    let read = match std::fs::read_dir(directory) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            lines.push(format!("{}: {error}", directory.display()));
            return Vec::new();
        }
    };
    let hidden =
        |path: &PathBuf| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let mut files: Vec<PathBuf> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.is_file() && !hidden(path));
    files.sort();
    if files.len() > MOST {
        lines.push(format!("{}: only the first {MOST} files are read", directory.display()));
        files.truncate(MOST);
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec_core::sign::{Curve, KeyKind};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_private_key_that_others_may_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipsec.d/private/own.key");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (_, pkcs8) = PrivateKey::generate(KeyKind::Ec(Curve::P256), 0).unwrap();
        fs::write(&path, &*pkcs8).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let said = private_key(dir.path(), "own.key").unwrap_err();
            assert!(said.contains("chmod 600"), "{mode:o}: {said}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(private_key(dir.path(), "own").is_ok());
        assert!(private_key(dir.path(), "other").unwrap_err().contains("there is no file"));
        for (text, what) in [
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
                "openssl pkey",
            ),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no private key"),
            ("nothing", "not a key"),
        ] {
            fs::write(&path, text).unwrap();
            let said = private_key(dir.path(), "own.key").unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_and_the_rest_is_trusted() {
        let dir = tempfile::tempdir().unwrap();
        assert!(trust(dir.path(), true, 0).1.is_empty());
        for (file, text) in
            [("cacerts/a.pem", "nothing"), ("crls/b.crl", "nothing"), ("cacerts/.hidden", "nothing")]
        {
            let path = dir.path().join("ipsec.d").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let (trust, lines) = trust(dir.path(), false, 0);
        assert!(trust.authorities.is_empty() && trust.crls.is_empty());
        assert!(
            lines.len() == 2 && lines[0].contains("a.pem: not an X.509") && lines[1].contains("b.crl"),
            "{lines:?}"
        );
    }
}
