//! EAP-TLS between two of ours and with strongSwan, as the side that asks and as the side that is asked.

use super::certificates::pki::{Authority, Holder};
use super::certificates::{
    CONN, EAST, P256, SECRETS, WEST, certificates, equip, lasting, ours, pem, root, write,
};
use super::charon::{self, Charon, Children, both_ways};
use super::{Gateway, crosses, scene, wait};
use ipsec_core::sign::KeyKind;

/// A road warrior of ours in the west, and a gateway of ours in the east.
const BETWEEN_OURS: [&str; 2] = [
    "\tleftauth=eap-tls\n\tleftcert=own.pem\n\teap_identity=west@example.org\n\trightauth=pubkey\n\trightid=@east.example.org\n\tkeyingtries=1\n",
    "\trightauth=pubkey\n\trightcert=own.pem\n\trightid=@east.example.org\n\tleftauth=eap-tls\n\tleftid=*@example.org\n\teap_identity=%any\n",
];

#[test]
fn a_certificate_in_eap_opens_the_way_between_two_of_ours() {
    let root = root();
    let west = root.issue((WEST, &["west@example.org"]), P256, lasting);
    let east = root.issue((EAST, &["@east.example.org"]), KeyKind::Rsa, lasting);
    let Some((gateway, office)) =
        ours(BETWEEN_OURS, |side, dir| equip(dir, [&west, &east][side], &[], &root))
    else {
        return;
    };
    let said = gateway.done(&["auto", "--up", "west-east"]);
    assert!(said.contains("IKE SA established with @east.example.org"), "{said}");
    assert!(office.said().contains("IKE SA established with west@example.org"), "{}", office.said());
    crosses(&gateway, &office);
    crosses(&office, &gateway);
}

#[test]
fn certificates_in_eap_alone_open_the_way_between_two_of_ours_whoever_begins() {
    let root = root();
    let west = root.issue((WEST, &["@west.example.org"]), P256, lasting);
    let east = root.issue((EAST, &["@east.example.org"]), KeyKind::Rsa, lasting);
    let ids =
        "\tleftid=@west.example.org\n\trightid=@east.example.org\n\tleftauth=eap-tls\n\trightauth=eap-tls\n";
    let conns = [format!("\tleftcert=own.pem\n{ids}"), format!("\trightcert=own.pem\n{ids}")];
    let Some((gateway, office)) =
        ours([&conns[0], &conns[1]], |side, dir| equip(dir, [&west, &east][side], &[], &root))
    else {
        return;
    };
    for (begins, other, name) in
        [(&gateway, &office, "@east.example.org"), (&office, &gateway, "@west.example.org")]
    {
        let said = begins.done(&["auto", "--up", "west-east"]);
        assert!(said.contains(&format!("IKE SA established with {name}")), "{said}");
        crosses(begins, other);
        crosses(other, begins);
        begins.done(&["auto", "--down", "west-east"]);
        wait("both ends down", || begins.spis().is_empty() && other.spis().is_empty());
    }
}

#[test]
fn strongswan_and_we_prove_in_eap_tls_alone_who_we_are_whoever_begins() {
    let root = root();
    let west = root.issue((WEST, &["@west.example.org"]), P256, lasting);
    let east = root.issue((EAST, &["@east.example.org"]), P256, lasting);
    for tls in versions() {
        for we_ask in [false, true] {
            let all = (&root, &west, &east);
            let Some((gateway, charon)) = with_charon_and(true, we_ask, tls, all, &[]) else { return };
            if we_ask {
                charon.done(&["--initiate", "--child", "net", "--timeout", "20"]);
                wait("up", || gateway.state() == "up");
            } else {
                gateway.done(&["auto", "--up", "west-east"]);
            }
            let said = gateway.said();
            assert!(said.contains("IKE SA established with @east.example.org"), "{said}");
            both_ways(&gateway, &charon);
            // Neither certificate nor signature before EAP, from whichever of us is the gateway.
            let log = charon.log();
            assert!(log.contains("N(EAP_ONLY)") && log.contains("IKE_AUTH response 1 [ IDr EAP/"), "{log}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_certificate_in_eap_is_said_on_both_sides() {
    let root = root();
    let stranger = Authority::with("C=CH, O=Stranger, CN=Root", lasting);
    let west = stranger.issue((WEST, &["west@example.org"]), P256, lasting);
    let east = root.issue((EAST, &["@east.example.org"]), P256, lasting);
    let Some((gateway, office)) =
        ours(BETWEEN_OURS, |side, dir| equip(dir, [&west, &east][side], &[], &root))
    else {
        return;
    };
    let output = gateway.ipsec(&["auto", "--up", "west-east"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("alert unknown_ca (48)"), "{said}");
    wait("east to say why", || office.said().contains("CN=Root, which is not known here"));
}

/// Ours in the west and charon in the east: one of them is a gateway, the other has a certificate to show in EAP-TLS.
fn with_charon(
    we_ask: bool,
    tls: &'static str,
    all: (&Authority, &Holder, &Holder),
    above: &[&Authority],
) -> Option<(Gateway, Charon)> {
    with_charon_and(false, we_ask, tls, all, above)
}

/// The same where, if `alone`, both show one there, and prove nothing in IKE.
fn with_charon_and(
    alone: bool,
    we_ask: bool,
    tls: &'static str,
    (trusted, west, east): (&Authority, &Holder, &Holder),
    above: &[&Authority],
) -> Option<(Gateway, Charon)> {
    if !charon::is_there() {
        return None;
    }
    let [left, router, right] = scene()?;
    let (ike, esp) = ("aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519-noesn");
    let lines = if we_ask {
        "\tleftid=@west.example.org\n\tleftauth=pubkey\n\trightauth=eap-tls\n\trightid=%any\n"
    } else {
        "\tleftauth=eap-tls\n\teap_identity=west.example.org\n\trightauth=pubkey\n\trightid=@east.example.org\n"
    };
    let lines = if alone { lines.replace("auth=pubkey", "auth=eap-tls") } else { lines.to_owned() };
    let conn = format!("{CONN}\tike={ike}\n\tesp={esp}\n\tkeyingtries=1\n\tleftcert=own.pem\n{lines}");
    let mut gateway = Gateway::new(left, "10.1.0.1", &conn, SECRETS);
    equip(gateway.dir.path(), west, above, trusted);
    gateway.start_klips();
    gateway.start_pluto();
    let dir = tempfile::tempdir().expect("directory");
    write(&dir.path().join("x509/east.pem"), &certificates(&[&east.certificate]));
    for (n, one) in above.iter().chain([&trusted]).enumerate() {
        write(&dir.path().join(format!("x509ca/above{n}.pem")), &certificates(&[&one.certificate]));
    }
    write(&dir.path().join("private/east.pem"), &pem("PRIVATE KEY", &east.pkcs8));
    let (local, remote) = if we_ask {
        (
            "auth = eap-tls\n    certs = east.pem\n    eap_id = east.example.org\n    id = 198.51.100.7",
            "auth = pubkey\n    id = west.example.org",
        )
    } else {
        (
            "auth = pubkey\n    certs = east.pem\n    id = east.example.org",
            // Without a name in EAP it asks for none, and begins with TLS.
            if tls == "1.2" && east.certificate.key().kind() == P256 {
                "auth = eap-tls\n    id = %any"
            } else {
                "auth = eap-tls\n    eap_id = %any\n    id = %any"
            },
        )
    };
    let auth = |section: &str| {
        if alone { section.replace("auth = pubkey", "auth = eap-tls") } else { section.to_owned() }
    };
    let (local, remote) = (auth(local), auth(remote));
    let children = Children { tls, ..Children::NETS };
    let charon = Charon::start_as(right, dir, (ike, esp, ""), (&local, &remote), &children);
    std::mem::forget(router);
    Some((gateway, charon))
}

/// The versions of TLS that the charon here can speak in EAP.
fn versions() -> &'static [&'static str] {
    if charon::root().is_some() { &["1.2", "1.3"] } else { &["1.2"] }
}

#[test]
fn strongswan_lets_us_in_by_eap_tls_and_we_let_it_in() {
    let root = root();
    for tls in versions() {
        for kind in [P256, KeyKind::Rsa] {
            let west = root.issue((WEST, &["@west.example.org"]), kind, lasting);
            let east = root.issue((EAST, &["@east.example.org"]), kind, lasting);
            let Some((gateway, charon)) = with_charon(false, tls, (&root, &west, &east), &[]) else { return };
            let said = gateway.done(&["auto", "--up", "west-east"]);
            assert!(said.contains("IKE SA established with @east.example.org"), "{said}");
            both_ways(&gateway, &charon);
            assert!(
                charon.log().contains(&format!("using TLS {tls}"))
                    || charon.log().contains(&format!("negotiated TLS {tls}")),
                "{}",
                charon.log()
            );
            drop((gateway, charon));
            let Some((gateway, charon)) = with_charon(true, tls, (&root, &west, &east), &[]) else { return };
            charon.done(&["--initiate", "--child", "net", "--timeout", "20"]);
            wait("up", || gateway.state() == "up");
            let said = gateway.said();
            assert!(said.contains("IKE SA established with @east.example.org"), "{said}");
            both_ways(&gateway, &charon);
        }
    }
}

#[test]
fn a_chain_of_4096_bit_keys_goes_in_pieces_of_eap_tls_both_ways() {
    let root = Authority::of(("C=CH, O=Example, CN=Root", KeyKind::Rsa, 4096), None, lasting);
    let middle = Authority::of(("C=CH, O=Example, CN=Middle", KeyKind::Rsa, 4096), Some(&root), lasting);
    let [west, east] = [(WEST, "@west.example.org"), (EAST, "@east.example.org")]
        .map(|(subject, name)| middle.issue_of((subject, &[name]), (KeyKind::Rsa, 4096), lasting));
    for we_ask in [false, true] {
        let all = (&root, &west, &east);
        let Some((gateway, charon)) = with_charon(we_ask, "1.2", all, &[&middle]) else { return };
        if we_ask {
            charon.done(&["--initiate", "--child", "net", "--timeout", "20"]);
            wait("up", || gateway.state() == "up");
        } else {
            gateway.done(&["auto", "--up", "west-east"]);
        }
        both_ways(&gateway, &charon);
        let log = charon.log();
        assert!(log.contains("sending TLS Certificate") || log.contains("fragment"), "{log}");
    }
}

#[test]
fn strongswan_and_we_refuse_each_others_strangers_in_eap_tls() {
    let (root, stranger) = (root(), Authority::with("C=CH, O=Stranger, CN=Root", lasting));
    let good = root.issue((WEST, &["@west.example.org"]), P256, lasting);
    let east = root.issue((EAST, &["@east.example.org"]), P256, lasting);
    // It does not take ours.
    let bad = stranger.issue((WEST, &["@west.example.org"]), P256, lasting);
    let Some((gateway, charon)) = with_charon(false, "1.2", (&root, &bad, &east), &[]) else { return };
    let output = gateway.ipsec(&["auto", "--up", "west-east"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("the peer ended EAP-TLS with the alert"),
        "{said}"
    );
    assert!(charon.log().contains("TLS"), "{}", charon.log());
    drop((gateway, charon));
    // We do not take its: it was revoked.
    let Some((gateway, charon)) = with_charon(true, "1.2", (&root, &good, &east), &[]) else { return };
    let list = gateway.dir.path().join("ipsec.d/crls/root.pem");
    write(&list, &pem("X509 CRL", &root.crl(&[east.serial], (5, 7))));
    gateway.done(&["auto", "--rereadall"]);
    assert!(!charon.swanctl(&["--initiate", "--child", "net", "--timeout", "20"]).status.success());
    wait("ours to say why", || gateway.said().contains("was revoked"));
    assert!(charon.log().contains("received fatal TLS alert 'certificate revoked'"), "{}", charon.log());
}
