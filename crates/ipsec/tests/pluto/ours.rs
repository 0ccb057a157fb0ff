//! Two of ours under a numbered stream: each kind of suite, each way of proving who one is, and accidents on the way.

use super::certificates::{self, EAST, P256, SECRETS, WEST, equip, lasting, root, write};
use super::flood::Flood;
use super::moves::forget;
use super::{CONN, Gateway, SECRET, crosses, masquerades_at, pair, scene, stream, unbroken, wait};
use ipsec::host::netns::Namespace;
use ipsec_core::sign::KeyKind;
use std::path::Path;

/// The west brings it up; then each side rekeys the child and the IKE SA, and nothing is lost.
fn comes_up_and_is_rekeyed(west: &Gateway, east: &Gateway) {
    west.done(&["auto", "--up", "west-east"]);
    crosses(west, east);
    crosses(east, west);
    for (asks, from, to) in [(west, west, east), (east, east, west)] {
        unbroken(from, to, || {
            let before = west.spis();
            asks.done(&["auto", "--rekey", "west-east"]);
            wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
            let before = west.ike_sas();
            asks.done(&["auto", "--rekey", "--ike", "west-east"]);
            wait("another IKE SA", || west.ike_sas().len() == 1 && west.ike_sas() != before);
        });
    }
}

#[test]
fn suites_of_every_kind_come_up_and_are_rekeyed() {
    for (ike, esp, esn) in [
        ("aes128-sha256-modp2048", "aes128-sha256-modp2048", "no"),
        ("aes256ctr-sha512-ecp384", "aes256ctr-sha512-ecp384", "yes"),
        ("chacha20poly1305-prfsha512-ecp521", "chacha20poly1305-ecp521", "no"),
        ("aes256ccm16-prfsha384-ecp256", "aes256ccm16-ecp256", "yes"),
        ("aes128-aesxcbc-modp3072", "aes128-aesxcbc-modp3072", "no"),
        ("aes192gcm16-prfsha256-x25519-ke1_mlkem768", "aes192gcm16-x25519-ke1_mlkem768", "yes"),
        ("aes256gcm16-prfsha384-mlkem1024", "aes256gcm16-mlkem1024", "yes"),
    ] {
        let conn = format!("{CONN}\tauto=add\n\tike={ike}\n\tesp={esp}\n\tesn={esn}\n");
        let Some((west, east, _router)) = pair((&conn, SECRET), (&conn, SECRET)) else { return };
        comes_up_and_is_rekeyed(&west, &east);
        for gateway in [&west, &east] {
            let said = gateway.status()["ike_sas"][0]["algorithms"].as_str().unwrap_or_default().to_owned();
            let exchange = ike.rsplit_once('-').map_or(ike, |(_, last)| last);
            assert!(said.ends_with(exchange), "{said} and not {ike}");
            let sas = gateway.done(&["spi", "--json"]);
            assert_eq!(sas.contains("\"esn\":true"), esn == "yes", "{esp}: {sas}");
        }
    }
}

/// Two gateways of ours, each with its own lines and secrets, and what else it has below its directory.
fn equipped(
    lines: [&str; 2],
    secrets: [&str; 2],
    prepare: impl Fn(usize, &Path),
) -> Option<(Gateway, Gateway, Namespace)> {
    let [left, router, right] = scene()?;
    let conn = |side: usize| format!("{}{}", certificates::CONN, lines[side]);
    let mut west = Gateway::new(left, "10.1.0.1", &conn(0), secrets[0]);
    let mut east = Gateway::new(right, "10.2.0.1", &conn(1), secrets[1]);
    for (side, gateway) in [&mut west, &mut east].into_iter().enumerate() {
        prepare(side, gateway.dir.path());
        gateway.start_klips();
        gateway.start_pluto();
    }
    Some((west, east, router))
}

/// How many fragments of IP a host has put together.
fn fragments(gateway: &Gateway) -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/net/snmp");
    let text = gateway.namespace.run(read).expect("namespace").expect("counters");
    let mut ip = text.lines().filter(|line| line.starts_with("Ip:"));
    let names = ip.next().unwrap_or_default().split_whitespace();
    let column = names.zip(ip.next().unwrap_or_default().split_whitespace());
    let found = column.into_iter().find(|(name, _)| *name == "ReasmReqds").map(|(_, n)| n.parse());
    found.expect("the counter").expect("a number")
}

const BY_CERTIFICATE: [&str; 2] = [
    "\tauthby=AUTH\n\tleftcert=own.pem\n\trightid=\"C=CH, O=Example, CN=east\"\n\trightca=%same\n",
    "\tauthby=AUTH\n\trightcert=own.pem\n\tleftid=\"C=CH, O=Example, CN=west\"\n\tleftca=%same\n",
];

#[test]
fn certificates_of_every_kind_and_a_chain_of_long_ones_in_fragments_of_ike() {
    for (kind, bits, auth) in [
        (KeyKind::Rsa, 4096, "rsasig"),
        (KeyKind::Ed25519, 0, "ed25519"),
        (KeyKind::Ec(ipsec_core::sign::Curve::P384), 0, "ecdsa"),
    ] {
        let root = certificates::pki::Authority::of(("C=CH, O=Example, CN=Root", kind, bits), None, lasting);
        let middle = certificates::pki::Authority::of(
            ("C=CH, O=Example, CN=Middle", kind, bits),
            Some(&root),
            lasting,
        );
        let holders = [(WEST, "@west.example.org"), (EAST, "@east.example.org")]
            .map(|(subject, name)| middle.issue_of((subject, &[name]), (kind, bits), lasting));
        let lines = BY_CERTIFICATE.map(|lines| lines.replace("AUTH", auth));
        let Some((west, east, _router)) = equipped([&lines[0], &lines[1]], [SECRETS; 2], |side, dir| {
            equip(dir, &holders[side], &[&middle], &root);
        }) else {
            return;
        };
        comes_up_and_is_rekeyed(&west, &east);
        // Two certificates of such keys are more than two datagrams hold: IKE has cut them, and not IP.
        assert_eq!((fragments(&west), fragments(&east)), (0, 0));
    }
}

#[test]
fn a_revoked_certificate_is_refused_as_soon_as_the_list_is_there() {
    let root = root();
    let holders = [(WEST, &["@west.example.org"]), (EAST, &["@east.example.org"])]
        .map(|(subject, names)| root.issue((subject, names), P256, lasting));
    let lines = BY_CERTIFICATE.map(|lines| format!("{}\tkeyingtries=1\n", lines.replace("AUTH", "ecdsa")));
    let Some((west, east, _router)) = equipped([&lines[0], &lines[1]], [SECRETS; 2], |side, dir| {
        equip(dir, &holders[side], &[], &root);
    }) else {
        return;
    };
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    west.done(&["auto", "--down", "west-east"]);
    let list = root.crl_between(&[holders[0].serial], [(2020, 1), (2100, 1)]);
    write(&east.dir.path().join("ipsec.d/crls/root.pem"), &certificates::pem("X509 CRL", &list));
    east.done(&["auto", "--reload"]);
    let output = west.ipsec(&["auto", "--up", "west-east"]);
    assert_eq!(output.status.code(), Some(1));
    wait("the reason", || east.said().contains("revoked"));
}

#[test]
fn a_password_and_a_certificate_open_the_way_between_two_of_ours() {
    let root = root();
    let holder = root.issue((EAST, &["@east.example.org"]), P256, lasting);
    let lines = [
        "\tleftauth=eap-mschapv2\n\tleftusername=alice\n\trightauth=pubkey\n\trightid=@east.example.org\n",
        "\trightcert=own.pem\n\trightid=@east.example.org\n\trightauth=ecdsa\n\tleftauth=eap-mschapv2\n\tleftid=%any\n",
    ];
    const PASSWORD: &str = "alice : EAP \"a long password of hers\"\n";
    let secrets = [PASSWORD, &format!("{SECRETS}{PASSWORD}")];
    let Some((west, east, _router)) = equipped(lines, secrets, |_, dir| equip(dir, &holder, &[], &root))
    else {
        return;
    };
    comes_up_and_is_rekeyed(&west, &east);
    assert!(east.said().contains("IKE SA established with @alice"), "{}", east.said());
}

#[test]
fn a_post_quantum_preshared_key_is_mixed_in_and_an_ike_sa_may_come_up_alone() {
    let conn = format!("{CONN}\tauto=add\n\tppk=insist\n\tchildless=yes\n");
    let secrets = format!("{SECRET}@west @east : PPKS \"spring\" 0x{}\n", "5a".repeat(32));
    let Some((west, east, _router)) = pair((&conn, &secrets), (&conn, &secrets)) else { return };
    comes_up_and_is_rekeyed(&west, &east);
    for gateway in [&west, &east] {
        assert_eq!(gateway.status()["ike_sas"][0]["ppk"], "spring", "{}", gateway.said());
    }
}

#[test]
fn groups_of_children_that_do_not_meet_are_found_by_the_first_rekeying_and_cost_nothing() {
    let [ours, theirs] =
        ["x25519", "ecp384"].map(|group| format!("{CONN}\tauto=add\n\tesp=aes256gcm16-{group}\n"));
    let Some((west, east, _router)) = pair((&ours, SECRET), (&theirs, SECRET)) else { return };
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    let before = west.spis();
    unbroken(&west, &east, || {
        for (asks, refuses) in [(&west, &east), (&east, &west)] {
            asks.done(&["auto", "--rekey", "west-east"]);
            let named = |said: &str| said.contains("x25519") && said.contains("ecp384");
            wait("what the other has to say", || named(&refuses.said()));
            wait("the reason", || asks.said().contains("NO_PROPOSAL_CHOSEN"));
        }
    });
    assert_eq!(west.spis(), before);
}

/// The router shows one address for all behind it, and forgets in the middle of a stream by which port. The data plane follows on
/// the word of the first authentic packet.
#[test]
fn a_nat_that_forgets_is_followed_under_a_stream() {
    let west_conn = format!("{CONN}\tauto=add\n");
    let east_conn = west_conn.replace("left=192.0.2.1", "left=%any");
    let Some((west, east, router)) = pair((&west_conn, SECRET), (&east_conn, SECRET)) else { return };
    if !masquerades_at(&router, "eth2") {
        return;
    }
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    let before = (west.spis(), east.spis());
    let seen = || east.status()["ike_sas"][0]["remote"].as_str().unwrap_or_default().to_owned();
    let mapped = seen();
    assert!(mapped.starts_with("198.51.100.254:"), "{mapped}");
    let (sent, lost) = stream::during(west.inside(), east.inside(), || {
        forget(&router, "eth2", "198.51.100.254/24");
        wait("its new port", || seen() != mapped);
    });
    // The router itself is without a way for a moment.
    assert!(lost.len() <= 20, "of {sent} lost {lost:?}; {:?}", east.discards());
    unbroken(&east, &west, || {});
    assert!(seen().starts_with("198.51.100.254:"), "{}", seen());
    assert_eq!((west.spis(), east.spis()), before, "the same SAs go on");
}

#[test]
fn a_peer_that_dies_is_noticed_and_had_back() {
    let conn = format!("{CONN}\tauto=add\n\tdpddelay=1s\n\tretransmit-timeout=2s\n\tdpdaction=restart\n");
    let Some((west, mut east, _router)) = pair((&conn, SECRET), (&conn, SECRET)) else { return };
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    let before = west.spis();
    for pid in [east.rundir.pluto_pid(), east.rundir.klips_pid()] {
        east.kill(&pid);
    }
    wait("its silence to be said", || west.said().contains("no answer from 198.51.100.7"));
    assert!(!west.spis().iter().any(|spi| before.contains(spi)));
    east.start_klips();
    east.start_pluto();
    wait("up again", || west.state() == "up");
    crosses(&west, &east);
    crosses(&east, &west);
}

#[test]
fn a_flood_of_strangers_keeps_no_peer_out_and_costs_the_tunnel_nothing() {
    let west_conn =
        format!("{CONN}\tauto=add\n\tike=aes256gcm16-prfsha256-ecp384,aes256gcm16-prfsha256-x25519\n");
    let any = CONN.replace("left=192.0.2.1", "left=%any");
    let east_conn = format!("{any}\tauto=add\n\tike=aes256gcm16-prfsha256-x25519\n");
    let Some((west, east, router)) = pair((&west_conn, SECRET), (&east_conn, SECRET)) else { return };
    let flood = Flood::start(&router, "198.51.100.7");
    wait("cookies", || east.status()["dropped"]["cookies"].as_u64() > Some(0));
    comes_up_and_is_rekeyed(&west, &east);
    drop(flood);
}
