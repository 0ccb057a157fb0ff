//! The files below docs/examples are what they say: the programs take them as they stand.

use ipsec::conf::connection::{Auto, Here, Planned, plan};
use ipsec::conf::{Conf, secrets};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A host with one address.
struct At(IpAddr);

impl Here for At {
    fn has(&self, address: IpAddr) -> bool {
        self.0 == address
    }

    fn address_towards(&self, _: Option<IpAddr>) -> Option<IpAddr> {
        Some(self.0)
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples").join(name)
}

/// Everything that is begun at start in an example, as the host with this address sees it.
fn planned(name: &str, here: &str) -> Vec<Planned> {
    let conf = Conf::load(&example(name)).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
    assert!(conf.warnings.is_empty(), "{name}: {:?}", conf.warnings);
    let (here, mut warnings) = (At(here.parse().expect("address")), Vec::new());
    let mut all = Vec::new();
    for conn in conf.conns.iter().filter(|conn| conn.get("auto").is_some()) {
        all.extend(
            plan(conn, &here, &mut warnings).unwrap_or_else(|problems| panic!("{name}: {problems:?}")),
        );
    }
    assert!(warnings.is_empty(), "{name} uses what is weak: {warnings:?}");
    all
}

#[test]
fn examples_with_shared_secrets_load_with_their_secrets() {
    for (name, here, connections) in [
        ("site-to-site-psk", "192.0.2.1", 1),
        ("site-to-site-psk", "192.0.2.2", 1),
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
        fs::copy(example(name).join("ipsec.secrets"), &file).expect("ipsec.secrets");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
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
