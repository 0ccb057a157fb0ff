use super::super::{Here, plan};
use super::*;
use crate::conf::Conf;
use ike::connection::Connection;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

#[path = "../../../../../ike/tests/sim/pki.rs"]
mod pki;
use pki::Authority;

struct West(PathBuf);

impl Here for West {
    fn has(&self, address: IpAddr) -> bool {
        address == IpAddr::from([192, 0, 2, 1])
    }
    fn address_towards(&self, _: Option<IpAddr>) -> Option<IpAddr> {
        None
    }
    fn confs(&self) -> PathBuf {
        self.0.clone()
    }
}

/// What the lines come to, or what is wrong with them; and what is warned of.
fn planned(confs: &Path, lines: &[&str]) -> (Result<Connection, String>, Vec<String>) {
    let text = format!("conn a\n\tleft=192.0.2.1\n\tright=192.0.2.2\n\t{}\n", lines.join("\n\t"));
    let conf = Conf::parse("f", &text).unwrap_or_else(|why| panic!("{why:?}"));
    let mut warnings = Vec::new();
    let planned = plan(&conf.conns[0], &West(confs.to_path_buf()), &mut warnings);
    let planned = planned.map(|mut all| all.remove(0).ike);
    let planned = planned.map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    (planned, warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn who_proves_what_by_which_means_is_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("ipsec.d/certs");
    std::fs::create_dir_all(&certs).unwrap();
    let lasting = |params: &mut rcgen::CertificateParams| {
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2100, 1, 1));
    };
    let root = Authority::with("CN=Root", lasting);
    let west = root.issue(("CN=west", &["@west"]), KeyKind::Rsa, lasting);
    let east = root.issue(("CN=east", &["@east"]), KeyKind::Ed25519, lasting);
    std::fs::write(certs.join("west.der"), west.certificate.der()).unwrap();
    std::fs::write(certs.join("east.der"), east.certificate.der()).unwrap();
    let good = |lines: &[&str]| {
        let (planned, warnings) = planned(dir.path(), lines);
        (planned.unwrap_or_else(|why| panic!("{lines:?}: {why}")), warnings)
    };

    // Without a word it is a secret; with a certificate it is that.
    let (plain, _) = good(&[]);
    assert!(plain.local_auth == LocalAuth::SharedKey && plain.remote_auth == RemoteAuth::default());
    let (cert, warnings) = good(&["leftcert=west.der", "rightca=%same"]);
    let LocalAuth::Signature(local) = &cert.local_auth else { panic!() };
    assert!(local.public == *west.certificate.key() && local.send == SendCert::Always);
    assert_eq!(cert.local_id.to_string(), "CN=west");
    assert!(!cert.remote_auth.shared_key && warnings.is_empty(), "{warnings:?}");
    let policy = cert.remote_auth.signature.unwrap();
    assert!(policy.authorities == [root.certificate.subject().clone()] && policy.known.is_empty());

    // Each word opens what it names and nothing beside it.
    for (word, secret, rsa_pss, rsa_pkcs1, ecdsa, ed25519, sha1) in [
        ("rsasig", false, true, true, false, false, false),
        ("rsa-pss", false, true, false, false, false, false),
        ("rsa-pkcs1", false, false, true, false, false, false),
        ("ecdsa", false, false, false, true, false, false),
        ("ed25519", false, false, false, false, true, false),
        ("rsasig,ecdsa", false, true, true, true, false, false),
        ("secret,ed25519", true, false, false, false, true, false),
        ("rsa-sha1", false, false, false, false, false, true),
        ("pubkey", false, true, true, true, true, false),
    ] {
        let (one, _) = good(&["leftcert=west.der", "leftauth=rsasig", &format!("rightauth={word}")]);
        let schemes = one.remote_auth.signature.unwrap().schemes;
        let all = (schemes.rsa_pss, schemes.rsa_pkcs1, schemes.ecdsa, schemes.ed25519, schemes.rsa_sha1);
        assert_eq!(
            (one.remote_auth.shared_key, all),
            (secret, (rsa_pss, rsa_pkcs1, ecdsa, ed25519, sha1)),
            "{word}"
        );
    }
    let (one, _) = good(&["leftcert=west.der", "authby=rsa-sha2_512"]);
    assert_eq!(one.remote_auth.signature.unwrap().schemes.hashes, [SignatureHash::Sha512]);

    // The peer's own certificate, and who it is then.
    let (one, _) = good(&["authby=pubkey", "leftcert=west", "rightcert=east"]);
    assert_eq!(one.remote_id.to_string(), "CN=east");
    let known = one.remote_auth.signature.unwrap().known;
    assert_eq!(known, [Known::Certificate(east.certificate.clone())]);
    // RFC 3110: length of the exponent, exponent, modulus.
    let coded =
        format!("rightrsasigkey=0s{}", Base64::encode_string(&der_of_rsa(west.certificate.key().key())));
    let (one, _) = good(&["authby=rsasig", "leftcert=west", "rightid=@west", &coded]);
    assert_eq!(one.remote_auth.signature.unwrap().known, [Known::Key(west.certificate.key().clone())]);

    // What will not work is said before a peer says it.
    let bad = |lines: &[&str], what: &str| {
        let said = planned(dir.path(), lines).0.unwrap_err();
        assert!(said.contains(what), "{lines:?}: {said}");
    };
    bad(&["leftcert=west", "authby=ecdsa"], "does not allow what this host's RSA key can sign");
    bad(&["leftcert=west", "authby=rsasig", "rightid=%any", &coded], "a key alone vouches for no name");
    // EAP, and what the other side does then.
    let (one, _) = good(&["leftauth=eap-tls", "leftcert=west.der", "eap_identity=west", "rightid=@east"]);
    let LocalAuth::Eap(eap) = &one.local_auth else { panic!() };
    let EapProof::Tls(signature) = &eap.proof else { panic!() };
    assert!(eap.name == "west" && signature.public == *west.certificate.key());
    assert!(one.remote_auth.signature.is_some() && !one.remote_auth.shared_key);
    let (one, _) = good(&["leftauth=eap-mschapv2", "leftusername=alice", "rightid=@east"]);
    let alice = LocalEap { name: "alice".to_owned(), proof: EapProof::Password };
    assert_eq!(one.local_auth, LocalAuth::Eap(Box::new(alice)));
    let gateway =
        ["leftauth=rsasig", "leftcert=west.der", "rightid=%any", "rightauth=eap-tls", "rightca=%same"];
    let (one, _) = good(&gateway);
    let Some(RemoteEap::Tls(policy)) = &one.remote_auth.eap else { panic!() };
    assert_eq!(policy.authorities, [root.certificate.subject().clone()]);
    assert!(one.remote_auth.signature.is_none() && !one.remote_auth.shared_key);
    // In EAP alone, where both show a certificate there; by a signature besides, where that is named, too.
    for (right, signature) in [("eap-tls", false), ("eap-tls,pubkey", true)] {
        let right = format!("rightauth={right}");
        let alone = ["leftauth=eap-tls", "leftcert=west.der", "eap_identity=west", "rightid=@east", &right];
        let (one, warnings) = good(&alone);
        assert!(matches!(&one.local_auth, LocalAuth::Eap(eap) if matches!(eap.proof, EapProof::Tls(_))));
        assert!(matches!(one.remote_auth.eap, Some(RemoteEap::Tls(_))) && !one.remote_auth.shared_key);
        assert!(one.remote_auth.signature.is_some() == signature && warnings.is_empty(), "{warnings:?}");
    }
    let (one, _) = good(&["leftauth=rsasig", "leftcert=west.der", "rightid=%any", "rightauth=eap-mschapv2"]);
    assert!(one.remote_auth.eap == Some(RemoteEap::Password) && one.remote_auth.signature.is_none());
    bad(
        &["leftauth=eap-tls", "rightauth=pubkey"],
        "leftauth=eap-tls needs a certificate of this host: leftcert=",
    );
    bad(
        &["leftauth=eap-tls", "leftcert=west.der", "rightauth=secret"],
        "beside leftauth=eap-tls the peer proves",
    );
    bad(
        &["leftauth=eap-mschapv2", "leftusername=alice", "rightauth=eap-mschapv2"],
        "without, a stranger could try passwords",
    );
    for ways in
        [["leftauth=eap-tls", "rightauth=eap-mschapv2"], ["leftauth=eap-mschapv2", "rightauth=eap-tls"]]
    {
        bad(&[&ways[..], &["leftcert=west.der"]].concat(), "the peer proves who it is by a certificate");
    }
    bad(
        &["leftauth=secret", "rightid=%any", "rightauth=eap-tls"],
        "beside rightauth=eap-tls this host proves",
    );
    bad(&["rightauth=eap-tls,eap-mschapv2", "leftcert=west.der", "leftauth=rsasig"], "one method of EAP");
    bad(
        &["leftauth=eap-ttls", "leftcert=west.der"],
        "eap-mschapv2, by passwords, and eap-tls, by certificates",
    );
    bad(&[&gateway[..], &["eap_identity=alice"]].concat(), "whose names are let in, rightid= says");
    assert!(good(&[&gateway[..], &["eap_identity=%identity"]].concat()).1.is_empty());
    let (_, warnings) = good(&["leftauth=eap-tls", "leftcert=west.der", "eap_identity=bob@example.org"]);
    assert!(
        warnings.iter().any(|line| line.contains("not for bob@example.org but for @west")),
        "{warnings:?}"
    );
    let (_, warnings) = good(&["leftcert=west", "leftid=@other"]);
    assert!(warnings.len() == 1 && warnings[0].contains("not for @other but for @west"), "{warnings:?}");
    let (_, warnings) = good(&["leftcert=west", "authby=rsasig,rsa-sha1"]);
    assert!(warnings.iter().any(|line| line.contains("SHA-1 is weak")), "{warnings:?}");
}

/// A key of 2048 bits from RSAPublicKey to RFC 3110: both numbers stand behind their tags in DER.
fn der_of_rsa(der: &[u8]) -> Vec<u8> {
    let (modulus, exponent) = (&der[9..9 + 256], &der[9 + 256 + 2..]);
    [&[exponent.len() as u8], exponent, modulus].concat()
}
