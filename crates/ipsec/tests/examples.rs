//! The files below docs/examples are what they say: the programs take them as they stand.

#[path = "support/skipped.rs"]
mod skipped;

use ike::credential::{EapProof, LocalAuth, RemoteEap};
use ike::x509::Certificate;
use ipsec::conf::connection::{Auto, Here, Planned, plan};
use ipsec::conf::{Conf, secrets};
use ipsec_core::sign::{Curve, KeyKind};
use skipped::skipped;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A host with one address, and the directory of its files.
struct At(IpAddr, PathBuf);

impl Here for At {
    fn has(&self, address: IpAddr) -> bool {
        self.0 == address
    }

    fn address_towards(&self, _: Option<IpAddr>) -> Option<IpAddr> {
        Some(self.0)
    }

    fn confs(&self) -> PathBuf {
        self.1.clone()
    }
}

#[path = "../../ike/tests/sim/pki.rs"]
mod pki;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples").join(name)
}

/// Everything that is begun at start in an example, as the host with this address sees it.
fn planned(name: &str, here: &str) -> Vec<Planned> {
    planned_in(&example(name), name, here)
}

fn planned_in(dir: &Path, name: &str, here: &str) -> Vec<Planned> {
    let conf = Conf::load(dir).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
    assert!(conf.warnings.is_empty(), "{name}: {:?}", conf.warnings);
    let (here, mut warnings) = (At(here.parse().expect("address"), dir.to_path_buf()), Vec::new());
    let mut all = Vec::new();
    for conn in conf.conns.iter().filter(|conn| conn.get("auto").is_some()) {
        all.extend(
            plan(conn, &here, &mut warnings).unwrap_or_else(|problems| panic!("{name}: {problems:?}")),
        );
    }
    warnings.retain(|warning| !warning.what.contains("no effect yet"));
    assert!(warnings.is_empty(), "{name} uses what is weak: {warnings:?}");
    all
}

/// A file that only its owner can read.
fn write_secret(file: &Path, text: &str) {
    fs::write(file, text).expect("ipsec.secrets");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("mode");
}

/// packaging/debian/README.Debian: its secret and its connection, on both hosts.
#[test]
fn the_first_steps_on_debian_make_a_connection_with_its_secret() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/debian/README.Debian");
    let text = fs::read_to_string(path).expect("README.Debian");
    let steps: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("       ")).collect();
    let conn = steps.iter().skip_while(|line| !line.starts_with("conn "));
    let conn: Vec<&str> = conn.copied().take(9).collect();
    let secret =
        steps.iter().find_map(|line| line.strip_prefix("echo \"@")?.split_once("\" >> /etc/ipsec.secrets"));
    let (secret, _) = secret.expect("the line of the secret");
    let (ids, command) =
        secret.strip_suffix(')').and_then(|line| line.split_once("$(ipsec ")).expect("a command");
    let bits = Command::new(env!("CARGO_BIN_EXE_ipsec")).args(command.split(' ')).output().expect("ipsec");
    let bits = String::from_utf8(bits.stdout).expect("text");
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("ipsec.conf"), conn.join("\n") + "\n").expect("ipsec.conf");
    let file = dir.path().join("ipsec.secrets");
    write_secret(&file, &format!("@{ids}{bits}"));
    let read = secrets::read(&file).expect("secrets");
    for here in ["192.0.2.1", "198.51.100.7"] {
        let all = planned_in(dir.path(), "README.Debian", here);
        assert!(all.len() == 1 && all[0].auto == Auto::Start, "{here}: {all:?}");
        assert_eq!(secrets::missing(&read.secrets, &all), [""; 0]);
    }
}

#[test]
fn examples_with_shared_secrets_load_with_their_secrets() {
    for (name, here, connections) in [
        ("site-to-site-psk", "192.0.2.1", 1),
        ("site-to-site-psk", "192.0.2.2", 1),
        ("host-to-host", "192.0.2.1", 1),
        ("host-to-host", "192.0.2.2", 1),
        ("strongswan", "192.0.2.1", 1),
        ("post-quantum", "192.0.2.2", 1),
        ("aws", "10.1.0.4", 2),
        ("azure", "10.1.0.4", 1),
        ("gcp", "10.1.0.4", 4),
    ] {
        let all = planned(name, here);
        assert_eq!(all.len(), connections, "{name}");
        assert!(all.iter().any(|planned| planned.auto == Auto::Start), "{name}");
        // What is checked out is readable by all; what is used must not be.
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("ipsec.secrets");
        let text = fs::read_to_string(example(name).join("ipsec.secrets")).expect("ipsec.secrets");
        // Who copies one and puts no secret of its own there is told so.
        let placeholder = "put the output of ipsec ranbits here";
        if text.contains(placeholder) {
            write_secret(&file, &text);
            let why =
                secrets::read(&file).err().unwrap_or_else(|| panic!("{name}: the placeholder is taken"));
            assert!(why[0].to_string().contains("everybody knows"), "{name}: {why:?}");
        }
        write_secret(&file, &text.replace(placeholder, "0a1b2c3d4e5f"));
        let read = secrets::read(&file).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        assert!(read.warnings.is_empty(), "{name}: {:?}", read.warnings);
        for planned in &all {
            let ike::identity::IdPattern::Exactly(peer) = &planned.ike.remote_id else {
                panic!("{name}: the peer is anybody")
            };
            let found = read.secrets.psk(&planned.ike.local_id, peer);
            assert!(found.is_some(), "{name}: no secret for {} and {peer}", planned.ike.local_id);
        }
    }
}

#[test]
fn examples_with_certificates_load_with_their_certificates_and_keys() {
    let lasting = |params: &mut rcgen::CertificateParams| {
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2100, 1, 1));
    };
    let root = pki::Authority::with("C=CH, O=Example, CN=Root", lasting);
    let (p256, vpn) = (KeyKind::Ec(Curve::P256), "C=CH, O=Example, CN=vpn.example.org");
    for (name, file, subject, kind) in [
        ("site-to-site-certificates", "west", "C=CH, O=Example, CN=west.example.org", p256),
        ("road-warrior-server", "vpn", vpn, KeyKind::Rsa),
        ("windows-clients", "vpn", vpn, KeyKind::Rsa),
        ("apple-clients", "vpn", vpn, p256),
        ("eap-tls-server", "vpn", vpn, p256),
        ("eap-tls-client", "alice", "C=CH, O=Example, CN=alice@example.org", p256),
    ] {
        let dir = tempfile::tempdir().expect("directory");
        let write = |path: &str, octets: &[u8]| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
            fs::write(&path, octets).expect("file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
        };
        for file in ["ipsec.conf", "ipsec.secrets"] {
            write(file, &fs::read(example(name).join(file)).expect("file"));
        }
        let name_of = subject.rsplit('=').next().expect("a name");
        let names = [if name_of.contains('@') { name_of.to_owned() } else { format!("@{name_of}") }];
        let holder = root.issue((subject, &[&names[0]]), kind, lasting);
        write(&format!("ipsec.d/certs/{file}.pem"), holder.certificate.der());
        write(&format!("ipsec.d/private/{file}.key"), &holder.pkcs8);
        let all = planned_in(dir.path(), name, "192.0.2.1");
        assert!(!all.is_empty(), "{name}");
        let read =
            secrets::read(&dir.path().join("ipsec.secrets")).unwrap_or_else(|why| panic!("{name}: {why:?}"));
        assert!(read.warnings.is_empty(), "{name}: {:?}", read.warnings);
        for planned in &all {
            let local = match &planned.ike.local_auth {
                LocalAuth::Signature(local) => local,
                LocalAuth::Eap(eap) => match &eap.proof {
                    EapProof::Tls(local) => local,
                    EapProof::Password => panic!("{name}: it does not sign"),
                },
                LocalAuth::SharedKey => panic!("{name}: it does not sign"),
            };
            assert!(read.secrets.key(&local.public).is_some(), "{name}: its key is not there");
            let users = read.secrets.eap.len();
            assert!(
                planned.ike.remote_auth.eap != Some(RemoteEap::Password) || users > 0,
                "{name}: it lets users in, and there are none"
            );
        }
    }
}

/// What both know libreswan takes as it stands, too; what it does not know (ML-KEM, users with passwords,
/// EAP-TLS by these words) it refuses.
#[test]
fn examples_load_in_libreswan_where_the_keywords_are_common() {
    let program =
        std::env::var("LIBRESWAN_ADDCONN").unwrap_or_else(|_| "/usr/libexec/ipsec/addconn".to_owned());
    if !Path::new(&program).exists() {
        return skipped(&format!(
            "no {program} (apt-get install libreswan, or say LIBRESWAN_ADDCONN=/where/addconn)"
        ));
    }
    for (name, common) in [
        ("site-to-site-psk", true),
        ("site-to-site-certificates", true),
        ("strongswan", true),
        ("aws", true),
        ("azure", true),
        ("gcp", true),
        ("host-to-host", true),
        ("road-warrior-client", true),
        ("post-quantum", false),
        ("windows-clients", false),
        ("eap-tls-server", false),
    ] {
        let file = example(name).join("ipsec.conf");
        let output = Command::new(&program).arg("--checkconfig").arg("--config").arg(&file).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.success() && !said.contains("ERROR"), common, "{name}: {said}");
        // Everything was understood, and not passed over.
        let passed_over =
            said.lines().filter(|line| line.contains("keyword") && !line.contains("'interfaces'"));
        assert!(!common || passed_over.count() == 0, "{name}: {said}");
    }
}
