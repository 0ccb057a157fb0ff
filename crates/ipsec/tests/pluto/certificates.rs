//! Certificates and raw keys, between two of ours and with strongSwan.

use super::charon::{self, Charon, Children, both_ways};
use super::{Gateway, IPSEC, crosses, scene, wait};
use crate::skipped::skipped;
use ike::x509::Certificate;
use ipsec_core::sign::{Curve, KeyKind};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

#[path = "../../../ike/tests/sim/pki.rs"]
pub(super) mod pki;
use pki::{Authority, Holder};

pub(super) const P256: KeyKind = KeyKind::Ec(Curve::P256);
pub(super) const WEST: &str = "C=CH, O=Example, CN=west";
pub(super) const EAST: &str = "C=CH, O=Example, CN=east";

/// These certificates are for the time in which they are used, not for that of the simulation.
pub(super) fn lasting(params: &mut rcgen::CertificateParams) {
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2100, 1, 1));
}

pub(super) fn root() -> Authority {
    Authority::with("C=CH, O=Example, CN=Root", lasting)
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    ipsec::conf::files::pem(label, der).to_string()
}

pub(super) fn certificates(all: &[&Certificate]) -> String {
    all.iter().map(|one| pem("CERTIFICATE", one.der())).collect()
}

pub(super) fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
    fs::write(path, text).expect("file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mode");
}

/// What a gateway has below ipsec.d: its certificate with those above it, its key, and the authority it trusts.
pub(super) fn equip(dir: &Path, holder: &Holder, above: &[&Authority], trusted: &Authority) {
    let mut chain: Vec<&Certificate> = vec![&holder.certificate];
    chain.extend(above.iter().map(|one| &*one.certificate));
    write(&dir.join("ipsec.d/certs/own.pem"), &certificates(&chain));
    write(&dir.join("ipsec.d/private/own.key"), &pem("PRIVATE KEY", &holder.pkcs8));
    write(&dir.join("ipsec.d/cacerts/root.pem"), &certificates(&[&trusted.certificate]));
}

pub(super) const CONN: &str = "\
conn west-east
\tleft=192.0.2.1
\tleftsubnet=10.1.0.0/24
\tright=198.51.100.7
\trightsubnet=10.2.0.0/24
\tretransmit-interval=200
\tauto=add
";

pub(super) const SECRETS: &str = ": PKCS8 own.key\n";

/// Two gateways of ours; each is told before it starts what else it has.
pub(super) fn ours(lines: [&str; 2], prepare: impl Fn(usize, &Path)) -> Option<(Gateway, Gateway)> {
    let [left, _router, right] = scene()?;
    let mut west = Gateway::new(left, "10.1.0.1", &format!("{CONN}{}", lines[0]), SECRETS);
    let mut east = Gateway::new(right, "10.2.0.1", &format!("{CONN}{}", lines[1]), SECRETS);
    for (side, gateway) in [&mut west, &mut east].into_iter().enumerate() {
        prepare(side, gateway.dir.path());
        gateway.start_klips();
        gateway.start_pluto();
    }
    // The router lives as long as its cables.
    std::mem::forget(_router);
    Some((west, east))
}

const BY_CERTIFICATE: [&str; 2] = [
    "\tauthby=ecdsa\n\tleftcert=own.pem\n\trightid=\"C=CH, O=Example, CN=*\"\n\trightca=%same\n",
    "\tauthby=ecdsa\n\trightcert=own.pem\n\tleftid=%fromcert\n\tleftca=\"C=CH, O=Example, CN=Root\"\n",
];

#[test]
fn two_gateways_know_each_other_by_certificates() {
    let root = root();
    let holders = [(WEST, &["@west.example.org"]), (EAST, &["@east.example.org"])]
        .map(|(subject, names)| root.issue((subject, names), P256, lasting));
    let Some((west, east)) = ours(BY_CERTIFICATE, |side, dir| equip(dir, &holders[side], &[], &root)) else {
        return;
    };
    let said = west.done(&["auto", "--up", "west-east"]);
    assert!(said.contains("IKE SA established with C=CH, O=Example, CN=east"), "{said}");
    crosses(&west, &east);
    crosses(&east, &west);
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_on_both_sides() {
    let root = root();
    let stranger = Authority::with("C=CH, O=Stranger, CN=Root", lasting);
    let good = root.issue((WEST, &["@west.example.org"]), P256, lasting);
    let expired = root.issue((EAST, &["@east.example.org"]), P256, |params| {
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    });
    let foreign = stranger.issue((EAST, &["@east.example.org"]), P256, lasting);
    let valid = root.issue((EAST, &["@east.example.org"]), P256, lasting);
    let Some((west, east)) = ours(BY_CERTIFICATE, |side, dir| match side {
        0 => equip(dir, &good, &[], &root),
        _ => equip(dir, &expired, &[], &root),
    }) else {
        return;
    };
    let refused = |west: &Gateway| {
        let output = west.ipsec(&["auto", "--up", "west-east"]);
        assert_eq!(output.status.code(), Some(1));
        west.done(&["auto", "--down", "west-east"]);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(east.said().contains("this certificate expired at 2021-01-01"), "{}", east.said());
    let said = refused(&west);
    assert!(said.contains("the certificate of C=CH, O=Example, CN=east expired at 2021-01-01"), "{said}");
    wait("east to be told", || east.said().contains("AUTHENTICATION_FAILED"));

    let renew = |holder: &Holder| {
        equip(east.dir.path(), holder, &[], &root);
        east.done(&["auto", "--rereadall"]);
        east.done(&["auto", "--replace", "west-east"]);
    };
    renew(&foreign);
    let said = refused(&west);
    assert!(said.contains("was signed by C=CH, O=Stranger, CN=Root, which is not known here"), "{said}");
    // Its key, which others may read, is none.
    renew(&valid);
    let key = east.dir.path().join("ipsec.d/private/own.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("mode");
    let warned = east.done(&["auto", "--rereadall"]);
    assert!(warned.contains("chmod 600"), "{warned}");
    let said = refused(&west);
    assert!(said.contains("AUTHENTICATION_FAILED"), "{said}");
    wait("east to say why", || {
        east.said().contains("the private key of C=CH, O=Example, CN=east is not here")
    });
    // And all is well once it is.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("mode");
    east.done(&["auto", "--rereadall"]);
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
}

/// Ours in the west, charon in the east, each with a certificate below this authority.
fn with_charon(
    root: &Authority,
    above: &[&Authority],
    (west, east): (&Holder, &Holder),
    lines: &str,
    trusted_there: &Authority,
) -> Option<(Gateway, Charon)> {
    if !charon::is_there() {
        return None;
    }
    let [left, router, right] = scene()?;
    let (ike, esp) = ("aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519-noesn");
    let conn = format!("{CONN}\tike={ike}\n\tesp={esp}\n\tleftcert=own.pem\n{lines}");
    let mut gateway = Gateway::new(left, "10.1.0.1", &conn, SECRETS);
    equip(gateway.dir.path(), west, above, root);
    gateway.start_klips();
    gateway.start_pluto();
    let dir = tempfile::tempdir().expect("directory");
    write(&dir.path().join("x509/east.pem"), &certificates(&[&east.certificate]));
    for (n, one) in above.iter().enumerate() {
        write(&dir.path().join(format!("x509ca/above{n}.pem")), &certificates(&[&one.certificate]));
    }
    write(&dir.path().join("x509ca/root.pem"), &certificates(&[&trusted_there.certificate]));
    write(&dir.path().join("private/east.pem"), &pem("PRIVATE KEY", &east.pkcs8));
    let local = format!("auth = pubkey\n    certs = east.pem\n    id = \"{EAST}\"");
    let remote = format!("auth = pubkey\n    id = \"{WEST}\"");
    let charon = Charon::start_as(right, dir, (ike, esp, ""), (&local, &remote), &Children::NETS);
    std::mem::forget(router);
    Some((gateway, charon))
}

const PEER: &str = "\trightid=\"C=CH, O=Example, CN=east\"\n";

#[test]
fn strongswan_and_we_know_each_other_by_rsa_ecdsa_and_ed25519() {
    let root = root();
    for (kind, authby) in [
        (KeyKind::Rsa, "rsasig"),
        (KeyKind::Rsa, "rsa-pkcs1"),
        (P256, "ecdsa"),
        (KeyKind::Ec(Curve::P384), "ecdsa"),
        (KeyKind::Ec(Curve::P521), "ecdsa"),
        (KeyKind::Ed25519, "ed25519"),
    ] {
        // What it signs RSA with by default is PKCS#1; ours is PSS.
        let authby = if authby == "rsasig" { "rsa" } else { authby };
        let west = root.issue((WEST, &["@west.example.org"]), kind, lasting);
        let east = root.issue((EAST, &["@east.example.org"]), kind, lasting);
        let lines = format!("\tauthby={authby}\n{PEER}");
        let Some((gateway, charon)) = with_charon(&root, &[], (&west, &east), &lines, &root) else { return };
        let said = gateway.done(&["auto", "--up", "west-east"]);
        assert!(said.contains("IKE SA established with C=CH, O=Example, CN=east"), "{kind:?}: {said}");
        both_ways(&gateway, &charon);
        gateway.done(&["auto", "--down", "west-east"]);
        wait("charon to forget it", || !charon.done(&["--list-sas"]).contains("ESTABLISHED"));
        charon.done(&["--initiate", "--child", "net", "--timeout", "20"]);
        wait("up", || gateway.state() == "up");
        both_ways(&gateway, &charon);
    }
}

#[test]
fn a_chain_of_4096_bit_keys_goes_in_fragments_both_ways() {
    let root = Authority::of(("C=CH, O=Example, CN=Root", KeyKind::Rsa, 4096), None, lasting);
    let middle = Authority::of(("C=CH, O=Example, CN=Middle", KeyKind::Rsa, 4096), Some(&root), lasting);
    let [west, east] = [(WEST, "@west.example.org"), (EAST, "@east.example.org")]
        .map(|(subject, name)| middle.issue_of((subject, &[name]), (KeyKind::Rsa, 4096), lasting));
    let lines = format!("\tauthby=rsasig\n{PEER}");
    let Some((gateway, charon)) = with_charon(&root, &[&middle], (&west, &east), &lines, &root) else {
        return;
    };
    charon.done(&["--initiate", "--child", "net", "--timeout", "20"]);
    wait("up", || gateway.state() == "up");
    both_ways(&gateway, &charon);
    charon.done(&["--terminate", "--ike", "peer", "--timeout", "20"]);
    wait("down", || gateway.spis().is_empty());
    gateway.done(&["auto", "--up", "west-east"]);
    both_ways(&gateway, &charon);
    let log = charon.log();
    assert!(log.contains("received fragment #") && log.contains("splitting IKE message"), "{log}");
}

#[test]
fn strongswan_and_we_refuse_each_others_strangers() {
    let (root, stranger) = (root(), Authority::with("C=CH, O=Stranger, CN=Root", lasting));
    let west = root.issue((WEST, &["@west.example.org"]), P256, lasting);
    let east = stranger.issue((EAST, &["@east.example.org"]), P256, lasting);
    let lines = format!("\tauthby=ecdsa\n\tkeyingtries=1\n{PEER}");
    // It takes ours, and has none that we take: we say so, and it is told.
    let Some((gateway, charon)) = with_charon(&root, &[], (&west, &east), &lines, &root) else { return };
    let output = gateway.ipsec(&["auto", "--up", "west-east"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("CN=Root, which is not known here"), "{said}");
    wait("charon to forget it", || !charon.done(&["--list-sas"]).contains("ESTABLISHED"));
    // It begins, and is refused.
    assert!(!charon.swanctl(&["--initiate", "--child", "net", "--timeout", "20"]).status.success());
    assert!(charon.log().contains("AUTH_FAILED"), "{}", charon.log());
}

const PASSWORD: &str = "alice : EAP \"a long password of hers\"\n";

/// Ours in the west and charon in the east; one has a certificate and the users, the other a password.
fn by_password(we_know: bool, right: bool) -> Option<(Gateway, Charon)> {
    if !charon::is_there() {
        return None;
    }
    let root = root();
    let [left, router, right_side] = scene()?;
    let (ike, esp) = ("aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519-noesn");
    let lines = if we_know {
        "\tleftcert=own.pem\n\tleftid=@west.example.org\n\tleftauth=ecdsa\n\trightauth=eap-mschapv2\n\trightid=%any\n"
    } else {
        "\tleftauth=eap-mschapv2\n\tleftusername=alice\n\trightauth=pubkey\n\trightid=@east.example.org\n"
    };
    let conn = format!("{CONN}\tike={ike}\n\tesp={esp}\n\tkeyingtries=1\n{lines}");
    let secrets = if we_know { format!("{SECRETS}{PASSWORD}") } else { PASSWORD.to_owned() };
    let mut gateway = Gateway::new(left, "10.1.0.1", &conn, &secrets);
    let west = root.issue((WEST, &["@west.example.org"]), P256, lasting);
    let east = root.issue((EAST, &["@east.example.org"]), P256, lasting);
    equip(gateway.dir.path(), &west, &[], &root);
    gateway.start_klips();
    gateway.start_pluto();
    let dir = tempfile::tempdir().expect("directory");
    write(&dir.path().join("x509/east.pem"), &certificates(&[&east.certificate]));
    write(&dir.path().join("x509ca/root.pem"), &certificates(&[&root.certificate]));
    write(&dir.path().join("private/east.pem"), &pem("PRIVATE KEY", &east.pkcs8));
    let password = if right { "a long password of hers" } else { "another" };
    let more = format!("secrets {{ eap-alice {{ id = alice\n secret = \"{password}\" }} }}");
    let children = Children { more: Box::leak(more.into_boxed_str()), ..Children::NETS };
    let (local, remote) = if we_know {
        (
            "auth = eap-mschapv2\n    eap_id = alice\n    id = 198.51.100.7",
            "auth = pubkey\n    id = west.example.org",
        )
    } else {
        (
            "auth = pubkey\n    certs = east.pem\n    id = east.example.org",
            "auth = eap-mschapv2\n    eap_id = %any\n    id = %any",
        )
    };
    let charon = Charon::start_as(right_side, dir, (ike, esp, ""), (local, remote), &children);
    std::mem::forget(router);
    Some((gateway, charon))
}

#[test]
fn a_password_opens_the_way_to_strongswan_and_from_it() {
    let Some((gateway, charon)) = by_password(false, true) else { return };
    let said = gateway.done(&["auto", "--up", "west-east"]);
    assert!(said.contains("IKE SA established with @east.example.org"), "{said}");
    both_ways(&gateway, &charon);
    let Some((gateway, charon)) = by_password(true, true) else { return };
    charon.done(&["--initiate", "--child", "net", "--timeout", "20"]);
    wait("up", || gateway.state() == "up");
    assert!(gateway.said().contains("IKE SA established with @alice"), "{}", gateway.said());
    both_ways(&gateway, &charon);
}

#[test]
fn a_wrong_password_is_said_by_either_side() {
    let Some((gateway, _charon)) = by_password(false, false) else { return };
    let output = gateway.ipsec(&["auto", "--up", "west-east"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("does not take the name alice"), "{said}");
    let Some((gateway, charon)) = by_password(true, false) else { return };
    assert!(!charon.swanctl(&["--initiate", "--child", "net", "--timeout", "20"]).status.success());
    wait("ours to say why", || gateway.said().contains("alice could not prove who it is"));
}

/// Each side makes its key by the command, and the other has the line that it prints.
#[test]
fn two_gateways_know_each_other_by_keys_that_the_commands_make() {
    let Some([left, _router, right]) = scene() else { return };
    let mut west = Gateway::new(left, "10.1.0.1", "", "");
    let mut east = Gateway::new(right, "10.2.0.1", "", "");
    let mut lines = Vec::new();
    for (gateway, kind, side) in [(&west, "ed25519", "--left"), (&east, "rsa", "--right")] {
        let said = gateway.done(&["newhostkey", "--keytype", kind]);
        assert!(said.contains("mode 0600"), "{said}");
        let line = format!(": {} host.key", kind.to_ascii_uppercase());
        assert!(said.contains("ipsec.secrets:\n") && said.lines().any(|said| said == line), "{said}");
        let file = gateway.dir.path().join("ipsec.d/private/host.key");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().expect("above"))), (0o600, 0o700));
        let key = fs::read(&file).expect("key");
        for path in ["../host.key", "/tmp/host.key", ".key"] {
            let refused = gateway.ipsec(&["newhostkey", "--keytype", kind, "--output", path]);
            assert_eq!(refused.status.code(), Some(1), "{path}");
        }
        let again = gateway.ipsec(&["newhostkey", "--keytype", kind]);
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(again.status.code() == Some(1) && said.contains("never replaced"), "{said}");
        assert!(fs::read(&file).expect("key") == key, "it was replaced");
        let line = gateway.done(&["showhostkey", side]);
        assert_eq!(gateway.done(&["showhostkey"]).lines().next(), Some("-----BEGIN PUBLIC KEY-----"));
        lines.push(line);
    }
    let conf = format!("{CONN}\tauthby=pubkey\n\tleftid=@west\n\trightid=@east\n{}", lines.concat());
    for gateway in [&mut west, &mut east] {
        gateway.write("ipsec.conf", &conf);
        gateway.write("ipsec.secrets", ": PKCS8 host.key\n");
        gateway.start_klips();
        gateway.start_pluto();
    }
    let said = west.done(&["auto", "--up", "west-east"]);
    assert!(said.contains("IKE SA established with @east"), "{said}");
    crosses(&west, &east);
    crosses(&east, &west);
}

/// docs/examples/raw-public-keys as it is written: its commands, and both of its files.
#[test]
fn the_recipe_for_raw_public_keys_makes_a_tunnel() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/raw-public-keys");
    let read = |name: &str| fs::read_to_string(example.join(name)).expect(name);
    let (recipe, secrets) = (read("ipsec.conf"), read("ipsec.secrets"));
    let commands: Vec<&str> = recipe.lines().filter_map(|line| line.strip_prefix("#\tipsec ")).collect();
    let [make, ours, theirs, check] = commands[..] else { panic!("{commands:?}") };
    let Some([left, _router, right]) = scene() else { return };
    let mut west = Gateway::new(left, "10.1.0.1", &recipe, &secrets);
    let mut east = Gateway::new(right, "10.2.0.1", &recipe, &secrets);
    let run = |gateway: &Gateway, command: &str| gateway.done(&command.split(' ').collect::<Vec<_>>());
    let mut lines = Vec::new();
    for (gateway, show) in [(&west, ours), (&east, theirs)] {
        let said = run(gateway, make);
        assert!(said.lines().any(|line| line == secrets.trim_end()), "{said}");
        // What has been forgotten is said.
        let unfinished = gateway.ipsec(&check.split(' ').collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&unfinished.stderr).into_owned();
        assert!(
            unfinished.status.code() == Some(1) && said.contains("leftpubkey=0sTHE-LINE-OF-WEST"),
            "{said}"
        );
        lines.push(run(gateway, show));
    }
    let place = |line: &str| {
        let key = |line: &str| line.split_once('=').map(|(key, _)| key.to_owned());
        let new = lines.iter().find(|new| new.starts_with('\t') && key(new) == key(line));
        new.map_or_else(|| format!("{line}\n"), Clone::clone)
    };
    let conf: String = recipe.lines().map(place).collect();
    assert!(!conf.contains("THE-LINE"), "{conf}");
    for gateway in [&mut west, &mut east] {
        gateway.write("ipsec.conf", &conf);
        assert!(run(gateway, check).contains("nothing wrong"));
        gateway.start_klips();
        gateway.start_pluto();
    }
    wait("up", || west.state() == "up" && east.state() == "up");
    crosses(&west, &east);
    crosses(&east, &west);
}

/// What an operator does: a key and a request here, a certificate from somebody else's authority, and for the other side one file.
#[test]
fn a_request_is_signed_and_a_file_of_an_authority_imported_by_commands_alone() {
    let Some([left, _router, right]) = scene() else { return };
    let mut west = Gateway::new(left, "10.1.0.1", "", "");
    let mut east = Gateway::new(right, "10.2.0.1", "", "");
    let office = tempfile::tempdir().expect("directory");
    let openssl = |words: &str| {
        let output = Command::new("openssl").args(words.split(' ')).current_dir(office.path()).output();
        output.ok().filter(|output| output.status.success() || !words.starts_with("version"))
    };
    if openssl("version").is_none() {
        return skipped("no openssl (apt-get install openssl)");
    }
    let sign = |words: &str| {
        let output = openssl(words).expect("openssl");
        assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
    };
    sign(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj /O=Example/CN=Root",
    );
    west.done(&["newhostkey", "--keytype", "ecdsa"]);
    let asked = west.done(&["showhostkey", "--request", "O=Example, CN=west", "--san", "@west.example.org"]);
    fs::write(office.path().join("west.csr"), asked).expect("request");
    sign("req -verify -noout -in west.csr");
    sign("x509 -req -in west.csr -CA ca.pem -CAkey ca.key -days 30 -copy_extensions copy -out west.pem");
    sign(
        "req -newkey rsa:2048 -nodes -keyout east.key -out east.csr -subj /O=Example/CN=east -addext subjectAltName=DNS:east.example.org",
    );
    sign("x509 -req -in east.csr -CA ca.pem -CAkey ca.key -days 30 -copy_extensions copy -out east.pem");
    sign("pkcs12 -export -inkey east.key -in east.pem -certfile ca.pem -passout pass:tulip -out east.p12");
    let read = |name: &str| fs::read_to_string(office.path().join(name)).expect("file");
    write(&west.dir.path().join("ipsec.d/certs/host.pem"), &read("west.pem"));
    write(&west.dir.path().join("ipsec.d/cacerts/root.pem"), &read("ca.pem"));
    let file = office.path().join("east.p12");
    let import = |password: &str| {
        use std::io::Write;
        let mut command = east.command(IPSEC, &["import", file.to_str().expect("path")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("ipsec");
        writeln!(child.stdin.take().expect("pipe"), "{password}").expect("password");
        child.wait_with_output().expect("ended")
    };
    let refused = import("rose");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && why.contains("the password does not open it"), "{why}");
    assert!(!east.dir.path().join("ipsec.d").exists());
    let done = import("tulip");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains(": RSA east.key"), "{done:?}");
    assert!(said.contains("leftcert=east.pem") && said.contains("leftid=@east.example.org"), "{said}");
    let conf = |own: &str| {
        format!("{CONN}\tauthby=pubkey\n\tleftid=@west.example.org\n\trightid=@east.example.org\n\t{own}\n")
    };
    west.write("ipsec.conf", &conf("leftcert=host.pem"));
    west.write("ipsec.secrets", ": ECDSA host.key\n");
    east.write("ipsec.conf", &conf("rightcert=east.pem"));
    east.write("ipsec.secrets", ": RSA east.key\n");
    for gateway in [&mut west, &mut east] {
        gateway.start_klips();
        gateway.start_pluto();
    }
    let said = west.done(&["auto", "--up", "west-east"]);
    assert!(said.contains("IKE SA established with @east.example.org"), "{said}");
    crosses(&west, &east);
}
