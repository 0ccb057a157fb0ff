//! `ipsec import`: what an authority hands out in one file (PKCS#12, RFC 7292), put where ipsec.conf finds it.

use super::hostkey::word;
use super::{Failure, finish};
use crate::conf::files;
use crate::host::clock::wall;
use crate::print;
use crate::rundir::confs;
use ike::x509::{Certificate, date};
use ipsec_core::sign::PrivateKey;
use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

/// What `ipsec import` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ipsec import west.p12                     asks for the password
  ipsec import --name host west.p12 < password.txt

The key goes to ipsec.d/private, mode 0600, this host's certificate with those
between it and its authority to ipsec.d/certs, authorities to ipsec.d/cacerts.
Nothing that is there is replaced. What ipsec.conf and ipsec.secrets need is
printed.
Exit codes: 0 done, 1 failed (the reason is on stderr), 2 usage.")]
pub struct Args {
    /// The file, such as west.p12 or west.pfx
    file: PathBuf,
    /// What the files are called, without an ending; by default as FILE
    #[arg(long)]
    name: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    finish("import", go(args).map_err(Failure::new))
}

/// Everything that is taken out of the file.
struct Found {
    key: PrivateKey,
    pkcs8: Zeroizing<Vec<u8>>,
    /// This host's, then who signed it, up to an authority that signed itself.
    chain: Vec<Certificate>,
    /// Authorities that signed themselves.
    roots: Vec<Certificate>,
}

fn go(args: &Args) -> Result<(), Failure> {
    let stem = args.file.file_stem().and_then(|stem| stem.to_str());
    let name = args.name.as_deref().or(stem).unwrap_or_default();
    if name.is_empty() || name.starts_with('.') || name.contains(|c: char| c == '/' || c.is_whitespace()) {
        return Err(Failure::new(format_args!("`{name}' is no name for files: write --name NAME")));
    }
    let octets = files::octets(&args.file);
    let octets = octets.map_err(|error| Failure::new(format_args!("{}: {error}", args.file.display())))?;
    let password = password().map_err(|error| Failure::new(format_args!("the password: {error}")))?;
    let why = |why: String| Failure::new(format_args!("{}: {why}", args.file.display()));
    let found = Pkcs12Archive::from_pkcs12(&octets, &password).map_err(|error| why(reason(&error)))?;
    let found = sort(found).map_err(why)?;
    let lines = write(&found, name, &confs()).map_err(Failure::new)?;
    Ok(print::text(lines)?)
}

/// From the terminal without showing it, or the first line of standard input.
fn password() -> io::Result<Zeroizing<String>> {
    if io::stdin().is_terminal() {
        return rpassword::prompt_password("Password of the file: ").map(Zeroizing::new);
    }
    let mut line = Zeroizing::new(String::with_capacity(1024));
    io::stdin().read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned()))
}

fn reason(error: &Error) -> String {
    match error {
        Error::MacError(_) | Error::UnpadError => "the password does not open it".to_owned(),
        Error::UnsupportedEncryptionScheme | Error::UnsupportedMacAlgorithm | Error::Pkcs5Error(_) => {
            format!(
                "{error}: write it anew with `openssl pkcs12 -legacy -in FILE -nodes | openssl pkcs12 -export -out NEW'"
            )
        }
        Error::DerError(_) | Error::InvalidVersion | Error::UnsupportedContentType => {
            format!("not a PKCS#12 file with a password ({error})")
        }
        Error::IoError(_)
        | Error::UnsupportedCertificateType
        | Error::X509Error(_)
        | Error::InvalidLength
        | Error::InvalidParameters
        | Error::InvalidData
        | Error::InvalidPrivateKey => error.to_string(),
    }
}

/// What belongs to what: by keys and names, and not by what the file calls them.
fn sort(archive: Pkcs12Archive) -> Result<Found, String> {
    let [bag] = archive.keys.as_slice() else {
        return Err(match archive.keys.len() {
            0 => "no private key is in it: a certificate alone goes to ipsec.d/certs, an authority's to ipsec.d/cacerts"
                .to_owned(),
            several => format!("{several} private keys are in it: export the one of this host alone"),
        });
    };
    let pkcs8 = Zeroizing::new(bag.key.as_der().to_vec());
    let key = PrivateKey::from_der(&pkcs8).map_err(|error| format!("its private key: {error}"))?;
    let mut all = Vec::new();
    for bag in &archive.certs {
        let certificate = Certificate::from_der(bag.cert.as_der());
        all.push(certificate.map_err(|error| format!("{}: {error}", bag.cert.subject()))?);
    }
    let own = all.iter().position(|certificate| certificate.key() == key.public());
    let own = own.ok_or("no certificate in it is for its private key")?;
    let mut chain = vec![all.swap_remove(own)];
    let (roots, mut between): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|one| one.is_authority() && one.subject().is(one.issuer()));
    while let Some(last) = chain.last()
        && let Some(next) = between.iter().position(|one| one.subject().is(last.issuer()))
    {
        chain.push(between.swap_remove(next));
    }
    Ok(Found { key, pkcs8, chain, roots })
}

/// Writes the files, all of them or none; the answer is what a person does next.
fn write(found: &Found, name: &str, confs: &Path) -> Result<String, String> {
    let base = confs.join("ipsec.d");
    let own = found.chain.first().ok_or("no certificate")?;
    let pem = |all: &[Certificate]| {
        Zeroizing::new(
            all.iter().map(|one| files::pem("CERTIFICATE", one.der()).to_string()).collect::<String>(),
        )
    };
    let mut all = vec![
        (base.join("private").join(format!("{name}.key")), 0o600, files::pem("PRIVATE KEY", &found.pkcs8)),
        (base.join("certs").join(format!("{name}.pem")), 0o644, pem(&found.chain)),
    ];
    // One that is believed already needs no second file.
    let (trusted, _) = files::trust(confs, false, 0);
    let mut lines = String::new();
    let mut roots =
        found.roots.iter().filter(|root| !trusted.authorities.iter().any(|one| one.der() == root.der()));
    for (n, root) in (1..).zip(&mut roots) {
        let file = if n == 1 { format!("{name}.pem") } else { format!("{name}-{n}.pem") };
        let path = base.join("cacerts").join(file);
        lines +=
            &format!("{}: {root}: from now on this host believes whom it has certified\n", path.display());
        all.push((path, 0o644, pem(std::slice::from_ref(root))));
    }
    let mut made = Vec::new();
    for (path, mode, text) in &all {
        let written = files::new_file(path, *mode).and_then(|mut file| {
            made.push(path);
            let done = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
            done.map_err(|error| format!("{}: {error}", path.display()))
        });
        if let Err(why) = written {
            made.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(why);
        }
    }
    let (key, until) = (word(found.key.public().kind()), own.valid().1);
    let late = if until < wall() { ", WHICH IS OVER: ask for a new one" } else { "" };
    lines += &format!("{own}, valid until {}{late}\n", date(until));
    lines += &format!("ipsec.secrets: : {key} {name}.key\nipsec.conf:    leftcert={name}.pem\n");
    // Peers know hosts by names rather than by subjects.
    if let Some(id) = own.names().first() {
        let text = id.to_string();
        let quoted = if text.contains(' ') { format!("\"{text}\"") } else { text };
        lines += &format!("               leftid={quoted}\n");
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p12_keystore::{
        Certificate as Cert, EncryptionAlgorithm, KeyStore, KeyStoreEntry, PrivateKey as Key, PrivateKeyChain,
    };
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use std::os::unix::fs::PermissionsExt;

    /// A root, one below it, and a host below that, as an authority puts them into a file.
    fn archive(algorithm: EncryptionAlgorithm) -> (Vec<u8>, Key) {
        let named = |name: &str, authority: bool| {
            let mut params =
                CertificateParams::new(if authority { vec![] } else { vec![name.to_owned()] }).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            if authority {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            (params, KeyPair::generate().unwrap())
        };
        let ((root, root_key), (below, below_key)) = (named("Root", true), named("Below", true));
        let (host, host_key) = named("west.example.org", false);
        let root_der = root.self_signed(&root_key).unwrap();
        let issuer = Issuer::new(root, root_key);
        let below_der = below.signed_by(&below_key, &issuer).unwrap();
        let host_der = host.signed_by(&host_key, &Issuer::new(below, below_key)).unwrap();
        let key = Key::from_der(&host_key.serialize_der()).unwrap();
        let certs = [host_der, below_der, root_der].map(|one| Cert::from_der(one.der()).unwrap());
        let mut store = KeyStore::new();
        let chain = PrivateKeyChain::new("host", key.clone(), certs);
        store.add_entry("host", KeyStoreEntry::PrivateKeyChain(chain));
        (store.writer("tulip").encryption_algorithm(algorithm).write().unwrap(), key)
    }

    #[test]
    fn each_part_goes_where_it_belongs_and_nothing_is_replaced() {
        for algorithm in [
            EncryptionAlgorithm::PbeWithHmacSha256AndAes256,
            // What Windows and old programs write.
            EncryptionAlgorithm::PbeWithShaAnd40BitRc4Cbc,
            EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc,
        ] {
            let (octets, key) = archive(algorithm);
            let dir = tempfile::tempdir().unwrap();
            let found = || sort(Pkcs12Archive::from_pkcs12(&octets, "tulip").unwrap()).unwrap();
            let said = write(&found(), "west", dir.path()).unwrap();
            for line in [
                ": ECDSA west.key\n",
                "leftcert=west.pem\n",
                "leftid=@west.example.org\n",
                "Root: from now on",
            ] {
                assert!(said.contains(line), "{line} is not in {said}");
            }
            let mode = |path: &str| {
                fs::metadata(dir.path().join("ipsec.d").join(path)).unwrap().permissions().mode() & 0o777
            };
            assert_eq!((mode("private"), mode("private/west.key")), (0o700, 0o600));
            let chain = files::certificates(dir.path(), "west").unwrap();
            assert_eq!(chain.len(), 2, "the root is in no chain");
            assert!(chain[1].to_string().contains("Below"), "{}", chain[1]);
            let read = files::private_key(dir.path(), "west").unwrap();
            assert!(
                read.public() == chain[0].key()
                    && read.public() == PrivateKey::from_der(key.as_der()).unwrap().public()
            );
            let (trust, lines) = files::trust(dir.path(), false, 0);
            assert!(
                trust.authorities.len() == 1 && trust.authorities[0].to_string().contains("Root"),
                "{lines:?}"
            );

            // A second time: nothing is touched, and of a new name the root is there already.
            let before = fs::read(dir.path().join("ipsec.d/private/west.key")).unwrap();
            let why = write(&found(), "west", dir.path()).unwrap_err();
            assert!(why.contains("never replaced"), "{why}");
            assert!(fs::read(dir.path().join("ipsec.d/private/west.key")).unwrap() == before);
            // A certificate of that name without its key: the key that was written goes again.
            fs::write(dir.path().join("ipsec.d/certs/other.pem"), "x").unwrap();
            assert!(write(&found(), "other", dir.path()).is_err());
            assert!(!dir.path().join("ipsec.d/private/other.key").exists());
            write(&found(), "third", dir.path()).unwrap();
            assert!(!dir.path().join("ipsec.d/cacerts/third.pem").exists());
        }
    }

    #[test]
    fn what_cannot_be_imported_is_said_in_words() {
        let (octets, _) = archive(EncryptionAlgorithm::PbeWithHmacSha256AndAes256);
        let opened = |octets: &[u8], password: &str| {
            Pkcs12Archive::from_pkcs12(octets, password)
                .map_err(|error| reason(&error))
                .and_then(sort)
                .map(drop)
        };
        assert_eq!(opened(&octets, "rose").unwrap_err(), "the password does not open it");
        assert!(opened(b"-----BEGIN CERTIFICATE-----", "").unwrap_err().starts_with("not a PKCS#12 file"));
        assert!(opened(&octets[..octets.len() - 1], "tulip").is_err());
        let archive = Pkcs12Archive::from_pkcs12(&octets, "tulip").unwrap();
        let without = |change: fn(&mut Pkcs12Archive)| {
            let mut less = archive.clone();
            change(&mut less);
            sort(less).map(drop).unwrap_err()
        };
        assert!(without(|less| less.keys.clear()).contains("no private key"));
        assert!(without(|less| less.certs.clear()).contains("no certificate in it is for its private key"));
        assert!(without(|less| less.keys.push(less.keys[0].clone())).contains("2 private keys"));
    }
}
