//! Both sides of EAP-TLS, with nothing between them but a test.

use super::*;
use crate::auth::tests::{Authority, Holder, NOW, id};
use crate::connection::{Connection, Secrets};
use crate::credential::{
    Known, LocalAuth, LocalSignature, RemoteAuth, RemoteEap, RemoteSignature, Schemes, SendCert,
};
use crate::eap::{Around, Peer};
use crate::exchange::init::nobody;
use crate::identity::{Id, IdPattern};
use crate::x509::path::{Crl, Distrust, Trust};
use ipsec_core::sign::{Curve, KeyKind};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

const P256: KeyKind = KeyKind::Ec(Curve::P256);
static NEW: [&SupportedProtocolVersion; 1] = [&TLS13];
static OLD: [&SupportedProtocolVersion; 1] = [&TLS12];

/// Two sides: alice, who is asked, and a gateway.
struct Case {
    alice: Side,
    gateway: Side,
    /// Who the gateway has proved to be in IKE.
    proved: Id,
    /// What alice says in EAP that she is, and in IKE.
    name: Vec<u8>,
    said: Id,
    versions: &'static [&'static SupportedProtocolVersion],
}

struct Side {
    connection: Connection,
    secrets: Secrets,
}

impl Side {
    fn new(holder: &Holder, root: &Authority, wanted: &str) -> Self {
        let connection = Connection { remote_id: IdPattern::parse(wanted).unwrap(), ..nobody() };
        let trust = Trust { authorities: vec![root.certificate.clone()], ..Trust::default() };
        let keys = vec![holder.key.clone()];
        Self { connection, secrets: Secrets { keys, trust: Arc::new(trust), ..Secrets::default() } }
    }
}

fn signature(holder: &Holder) -> LocalSignature {
    let (public, chain) = (holder.certificate.key().clone(), vec![holder.certificate.clone()]);
    LocalSignature { public, chain, send: SendCert::Always, schemes: Schemes::default() }
}

impl Case {
    fn of(root: &Authority, alice: &Holder, gateway: &Holder) -> Self {
        let mut here = Side::new(alice, root, "@gateway");
        let mut there = Side::new(gateway, root, "%any");
        let by = Some(RemoteSignature::default());
        here.connection.remote_auth = RemoteAuth { shared_key: false, signature: by, eap: None };
        // In this test only: what alice shows in TLS stands where a gateway has what it shows in IKE.
        here.connection.local_auth = LocalAuth::Signature(Box::new(signature(alice)));
        there.connection.local_auth = LocalAuth::Signature(Box::new(signature(gateway)));
        let eap = Some(RemoteEap::Tls(RemoteSignature::default()));
        there.connection.remote_auth = RemoteAuth { shared_key: false, signature: None, eap };
        let (name, said) = (b"alice@example.org".to_vec(), id("10.9.8.7"));
        Self { alice: here, gateway: there, proved: id("@gateway"), name, said, versions: &NEW }
    }

    fn policy(&mut self) -> &mut RemoteSignature {
        let Some(RemoteEap::Tls(policy)) = &mut self.gateway.connection.remote_auth.eap else { panic!() };
        policy
    }

    fn sides(&self) -> (Tls, (Tls, Vec<u8>)) {
        let LocalAuth::Signature(local) = &self.alice.connection.local_auth else { panic!() };
        let peer = Peer { id: &self.proved, alone: false, at: Some(NOW) };
        let setup = Setup::client(local, &self.alice.connection, &self.alice.secrets, peer);
        let said = self.said.body();
        let (connection, secrets) = (&self.gateway.connection, &self.gateway.secrets);
        let around = Around { connection, secrets, said: &said, at: Some(NOW), fresh: [0; 16] };
        let gateway = Setup::server(around, &self.name).unwrap();
        (Tls::client(setup.unwrap().only(self.versions)), Tls::server(gateway.only(self.versions)))
    }

    /// Lets both speak to the end: what alice's side believes, and what the gateway's does. `between` sees each packet.
    fn talk(&self, mut between: impl FnMut(usize, &mut Vec<u8>)) -> (Result<Won, Why>, Result<Won, Why>) {
        let (mut client, (mut server, mut packet)) = self.sides();
        let unfinished = || Err(Why::Protocol("it was not finished"));
        for n in 0.. {
            assert!(n < 500, "it has no end");
            between(2 * n, &mut packet);
            packet = match take(&mut client, &packet) {
                Reply::Data(data) => data,
                Reply::Failure(why) => {
                    let theirs = server.over().cloned().map_or_else(unfinished, Err);
                    return (Err(why), theirs);
                }
                Reply::Success(_) => panic!("only EAP-Success is one"),
            };
            between(2 * n + 1, &mut packet);
            packet = match take(&mut server, &packet) {
                Reply::Data(data) => data,
                Reply::Success(won) => {
                    let ours = match &client.state {
                        State::Done(won) => Ok(won.clone()),
                        State::Over(why) => Err(why.clone()),
                        State::Waiting | State::Talking => unfinished(),
                    };
                    return (ours, Ok(won));
                }
                // EAP-Failure.
                Reply::Failure(why) => {
                    let ours = client.over().cloned().map_or_else(unfinished, Err);
                    return (ours, Err(why));
                }
            };
        }
        unreachable!()
    }

    #[track_caller]
    fn refused(&self) -> (Why, Why) {
        let (ours, theirs) = self.talk(|_, _| {});
        (ours.expect_err("alice believes"), theirs.expect_err("the gateway believes"))
    }
}

/// Takes a packet, and does the jobs beside that as a host does.
fn take(tls: &mut Tls, data: &[u8]) -> Reply {
    let mut given = Vec::new();
    loop {
        let mut answers = Answers::default();
        given.iter().cloned().for_each(|answer| answers.give(answer));
        match tls.take(data, &mut answers) {
            Ok(reply) => return reply,
            Err(Pause::Need(job)) => given.push(job.run().expect("a job that needs nothing but time")),
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn scene() -> (Authority, Holder, Holder) {
    let root = Authority::new("CN=Root");
    let alice = root.gateway("CN=Alice", &["alice@example.org"]);
    let gateway = root.gateway("CN=Gateway", &["@gateway"]);
    (root, alice, gateway)
}

#[test]
fn both_versions_and_every_kind_of_key_make_one_msk_on_both_sides() {
    let root = Authority::new("CN=Root");
    let kinds = [KeyKind::Rsa, P256, KeyKind::Ec(Curve::P384), KeyKind::Ec(Curve::P521), KeyKind::Ed25519];
    for (n, kind) in kinds.into_iter().enumerate() {
        let alice = root.issue(("CN=Alice", &["alice@example.org"]), kind, |_| {});
        let gateway = root.issue(("CN=Gateway", &["@gateway"]), kinds[(n + 1) % kinds.len()], |_| {});
        let mut msks = Vec::new();
        for versions in [&NEW, &OLD] {
            let mut case = Case::of(&root, &alice, &gateway);
            case.versions = versions;
            let mut packets = 0;
            let (ours, theirs) = case.talk(|_, _| packets += 1);
            let (ours, theirs) = (ours.expect("alice"), theirs.expect("gateway"));
            assert!(ours.msk == theirs.msk && ours.msk.len() == 64, "{kind:?}");
            assert_eq!((ours.id, theirs.id), (id("@gateway"), id("alice@example.org")));
            assert!(packets >= 6, "{packets}");
            msks.push(ours.msk);
        }
        assert!(msks[0] != msks[1] && msks[0].iter().any(|octet| *octet != 0));
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_by_who_sees_it_and_the_other_hears_it_by_an_alert() {
    let (root, alice, gateway) = scene();
    let stranger = Authority::new("CN=Stranger");
    for versions in [&NEW, &OLD] {
        let mut case = Case::of(&root, &alice, &gateway);
        case.versions = versions;
        case.alice = Side { connection: case.alice.connection, ..Side::new(&alice, &stranger, "@gateway") };
        let (ours, theirs) = case.refused();
        assert!(matches!(ours, Why::Distrust(Distrust::NoAuthority { .. })), "{ours:?}");
        assert!(matches!(theirs, Why::TlsAlert(48)), "{theirs:?}");

        let expired = root.issue(("CN=Alice", &["alice@example.org"]), P256, |params| {
            params.not_after = rcgen::date_time_ymd(2026, 2, 1);
        });
        let unknown = stranger.gateway("CN=Alice", &["alice@example.org"]);
        let bob = root.gateway("CN=Bob", &["bob@example.org"]);
        let web = root.issue(("CN=Alice", &["alice@example.org"]), P256, |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
        });
        for (holder, alert) in [(&expired, 45), (&unknown, 48), (&bob, 42), (&web, 43)] {
            let mut case = Case::of(&root, holder, &gateway);
            case.versions = versions;
            let (ours, theirs) = case.refused();
            assert!(ours == Why::TlsAlert(alert), "{ours:?}");
            let seen = match alert {
                42 => matches!(theirs, Why::NotVouched { .. }),
                43 => matches!(theirs, Why::Distrust(Distrust::Usage { .. })),
                45 => matches!(theirs, Why::Distrust(Distrust::Expired { .. })),
                _ => matches!(theirs, Why::Distrust(Distrust::NoAuthority { .. })),
            };
            assert!(seen, "{alert} {theirs:?}");
            assert!(ours.to_string().contains("the peer ended EAP-TLS with the alert"), "{ours}");
        }
        let mut case = Case::of(&root, &alice, &gateway);
        case.versions = versions;
        let crls = vec![Crl::from_der(&root.crl(&[alice.serial], (5, 7))).unwrap()];
        let trust = Trust { authorities: vec![root.certificate.clone()], crls, strict: false };
        case.gateway.secrets.trust = Arc::new(trust);
        assert_eq!(case.refused().0, Why::TlsAlert(44));
        // She has a certificate, and not its key.
        let thief = Holder { certificate: alice.certificate.clone(), ..bob };
        let mut case = Case::of(&root, &thief, &gateway);
        case.versions = versions;
        let LocalAuth::Signature(local) = &mut case.alice.connection.local_auth else { panic!() };
        local.public = thief.key.public().clone();
        assert!(matches!(case.refused().1, Why::BadSignature(_)), "{:?}", case.refused());
    }
}

/// The gateway proves twice who it is: what it shows in TLS must be for the same identity (CVE-2023-26463 and its like).
#[test]
fn a_gateway_that_is_somebody_else_in_tls_is_not_believed() {
    let (root, alice, _) = scene();
    let other = root.gateway("CN=Other", &["@other"]);
    for versions in [&NEW, &OLD] {
        let mut case = Case::of(&root, &alice, &other);
        case.versions = versions;
        let (ours, theirs) = case.refused();
        assert!(matches!(ours, Why::NotVouched { .. }), "{ours:?}");
        assert_eq!(theirs, Why::TlsAlert(42));
        // Nor is one whose certificate the connection does not name, or that is below another authority than it asks for.
        let gateway = root.gateway("CN=Gateway", &["@gateway"]);
        let mut case = Case::of(&root, &alice, &gateway);
        case.versions = versions;
        let policy = case.alice.connection.remote_auth.signature.as_mut().unwrap();
        policy.known = vec![Known::Certificate(other.certificate.clone())];
        assert!(matches!(case.refused().0, Why::BadSignature(_)));
        let policy = case.alice.connection.remote_auth.signature.as_mut().unwrap();
        (policy.known, policy.authorities) = (Vec::new(), vec![other.certificate.subject().clone()]);
        assert!(matches!(case.refused().0, Why::Distrust(Distrust::OtherAuthority { .. })));
        let policy = case.alice.connection.remote_auth.signature.as_mut().unwrap();
        policy.authorities = Vec::new();
        policy.known = vec![Known::Certificate(gateway.certificate.clone())];
        assert!(case.talk(|_, _| {}).0.is_ok());
    }
}

/// A row: what she says in EAP, what in IKE, whom the connection is for, and who she is then.
#[test]
fn who_a_peer_is_its_certificate_says_and_the_connection_must_be_for_it() {
    let root = Authority::new("C=CH, O=Example, CN=Root");
    let subject = "C=CH, O=Example, CN=Alice";
    let alice = root.gateway(subject, &["alice@example.org", "@laptop"]);
    let gateway = root.gateway("CN=Gateway", &["@gateway"]);
    let nobody = "10.9.8.7";
    let der = id(subject).body().data;
    for (name, said, wanted, who) in [
        (&b"alice@example.org"[..], nobody, "%any", Some("alice@example.org")),
        (b"laptop", nobody, "%any", Some("@laptop")),
        (b"alice@example.org", nobody, "*@example.org", Some("alice@example.org")),
        (subject.as_bytes(), nobody, "C=CH, O=Example, CN=*", Some(subject)),
        (&der, nobody, "%any", Some(subject)),
        // What EAP was told is nobody's name; what IKE was told is hers.
        (b"@example.org", "alice@example.org", "%any", Some("alice@example.org")),
        (b"anonymous@example.org", "@laptop", "@laptop", Some("@laptop")),
        (b"", "@laptop", "%any", Some("@laptop")),
        (b"\xff\xfe", "@laptop", "%any", Some("@laptop")),
        (&[b'a'; 5000], "@laptop", "%any", Some("@laptop")),
        // She is somebody, and not the one she says she is.
        (b"bob@example.org", nobody, "%any", None),
        (b"bob@example.org", "bob@example.org", "*@example.org", None),
        (b"", nobody, "%any", None),
        (b"alice", nobody, "%any", None),
        (b"10.9.8.7", nobody, "%any", None),
        // She is who she says, and the connection is for others; what she says in IKE does not change that.
        (b"alice@example.org", nobody, "bob@example.org", None),
        (b"alice@example.org", "bob@example.org", "bob@example.org", None),
        (b"alice@example.org", nobody, "*@example.com", None),
        (b"laptop", nobody, "*@example.org", None),
    ] {
        let mut case = Case::of(&root, &alice, &gateway);
        (case.name, case.said) = (name.to_vec(), id(said));
        case.gateway.connection.remote_id = IdPattern::parse(wanted).unwrap();
        let (ours, theirs) = case.talk(|_, _| {});
        assert_eq!(theirs.ok().map(|won| won.id), who.map(id), "{name:?} {said} {wanted}");
        assert_eq!(ours.is_ok(), who.is_some());
    }
    // A certificate that the connection names is for the one identity that it names, whatever stands in it.
    let mut named = Case::of(&root, &alice, &gateway);
    named.policy().known = vec![Known::Certificate(alice.certificate.clone())];
    named.gateway.secrets.trust = Arc::default();
    (named.name, named.gateway.connection.remote_id) = (b"road".to_vec(), IdPattern::Exactly(id("@road")));
    assert_eq!(named.talk(|_, _| {}).1.unwrap().id, id("@road"));
    named.name = b"elsewhere".to_vec();
    assert!(named.talk(|_, _| {}).1.is_err());
    (named.name, named.gateway.connection.remote_id) = (b"road".to_vec(), IdPattern::Any);
    assert!(named.talk(|_, _| {}).1.is_err());
}

#[test]
fn schemes_that_the_connection_does_not_allow_prove_nothing() {
    let (root, _, gateway) = scene();
    let alice = root.issue(("CN=Alice", &["alice@example.org"]), KeyKind::Rsa, |_| {});
    for versions in [&NEW, &OLD] {
        let mut case = Case::of(&root, &alice, &gateway);
        case.versions = versions;
        case.policy().schemes = Schemes { ecdsa: true, ..Schemes::none() };
        assert!(case.talk(|_, _| {}).1.is_err());
        case.policy().schemes = Schemes { rsa_pss: true, ..Schemes::none() };
        assert!(case.talk(|_, _| {}).1.is_ok());
    }
}

#[test]
fn who_shows_no_certificate_is_nobody() {
    let (root, alice, gateway) = scene();
    for versions in [&NEW, &OLD] {
        let mut case = Case::of(&root, &alice, &gateway);
        case.versions = versions;
        // She could sign by nothing, and so shows nothing.
        let LocalAuth::Signature(local) = &mut case.alice.connection.local_auth else { panic!() };
        local.schemes = Schemes::none();
        let (ours, theirs) = case.refused();
        assert_eq!(theirs, Why::NoCertificate("alice@example.org".to_owned()));
        assert_eq!(ours, Why::TlsAlert(116));
    }
}

/// A message may be 64 KiB, and its pieces one octet each; a conversation has its end before that.
#[test]
fn a_conversation_in_pieces_of_one_octet_has_an_end() {
    use crate::eap::packet::{IDENTITY, Packet, RESPONSE, TLS};
    use crate::eap::{MAX_TLS_ROUNDS, Server, Step};
    let (root, alice, gateway) = scene();
    let case = Case::of(&root, &alice, &gateway);
    let (connection, secrets) = (&case.gateway.connection, &case.gateway.secrets);
    let (mut server, _) = Server::begin(5, connection.remote_auth.eap.as_ref().unwrap());
    let said = case.said.body();
    let around = Around { connection, secrets, said: &said, at: Some(NOW), fresh: [0; 16] };
    let mut packet = Packet { code: RESPONSE, id: 5, kind: IDENTITY, data: case.name.clone() };
    for n in 1..=MAX_TLS_ROUNDS {
        let step = server.take(&packet.emit(), around, &mut Answers::default()).unwrap();
        assert!(matches!(step, Step::Send(_)), "{n}");
        let id = packet.id.wrapping_add(1);
        let first = if n == 1 { vec![0xc0, 0, 1, 0, 0, 22] } else { vec![0x40, 22] };
        packet = Packet { code: RESPONSE, id, kind: TLS, data: first };
    }
    let step = server.take(&packet.emit(), around, &mut Answers::default()).unwrap();
    assert!(matches!(step, Step::Failure(Some(_), _)), "{step:?}");
}

#[test]
fn long_chains_go_in_pieces_both_ways_and_none_is_longer_than_a_datagram_takes() {
    let mut above = vec![Authority::of(("CN=Root", KeyKind::Rsa, 4096), None, |_| {})];
    for name in ["CN=One", "CN=Two"] {
        above.push(Authority::of((name, KeyKind::Rsa, 4096), above.last(), |_| {}));
    }
    let last = above.last().unwrap();
    let alice = last.issue(("CN=Alice", &["alice@example.org"]), KeyKind::Rsa, |_| {});
    let gateway = last.issue(("CN=Gateway", &["@gateway"]), KeyKind::Rsa, |_| {});
    let mut case = Case::of(&above[0], &alice, &gateway);
    for side in [&mut case.alice, &mut case.gateway] {
        let LocalAuth::Signature(local) = &mut side.connection.local_auth else { panic!() };
        local.chain.extend(above[1..].iter().rev().map(|one| one.certificate.clone()));
    }
    for versions in [&NEW, &OLD] {
        case.versions = versions;
        let (mut packets, mut longest) = (0, 0);
        let (ours, theirs) =
            case.talk(|_, packet| (packets, longest) = (packets + 1, longest.max(packet.len())));
        assert!(ours.unwrap().msk == theirs.unwrap().msk);
        assert!(packets >= 14 && longest <= fragments::PIECE + 5, "{packets} {longest}");
    }
}

/// Whatever is changed on the way: it comes to nothing, or nothing has changed.
#[test]
fn a_packet_that_is_changed_cut_or_left_out_lets_nobody_in() {
    let (root, alice, gateway) = scene();
    let mut case = Case::of(&root, &alice, &gateway);
    for versions in [&NEW, &OLD] {
        case.versions = versions;
        let mut lengths = Vec::new();
        case.talk(|_, packet| lengths.push(packet.len())).0.unwrap();
        for (at, length) in lengths.iter().enumerate() {
            // All of what is short, and places all over what is long.
            let step = (*length / 24).max(1);
            for place in (0..*length).step_by(step) {
                for change in 0..2 {
                    let (ours, theirs) = case.talk(|n, packet| {
                        if n == at {
                            match change {
                                0 => packet[place] ^= 1,
                                _ => packet.truncate(place),
                            }
                        }
                    });
                    // A header of a record, or flags, of which nothing depends, may be others. The server's last word but
                    // one says that it believes her, which it does already: then she does not hear it, and that is all.
                    let same = matches!((&ours, &theirs), (Ok(ours), Ok(theirs)) if ours.msk == theirs.msk);
                    let idle = place < 4 && same || at + 2 >= lengths.len();
                    assert!(theirs.is_err() || idle, "packet {at} octet {place} change {change}");
                    assert!(same || ours.is_err() || at + 1 == lengths.len(), "packet {at} octet {place}");
                }
            }
        }
        // One that came twice is out of turn.
        for at in 1..lengths.len() {
            let mut before = Vec::new();
            let (_, theirs) = case.talk(|n, packet| {
                if n + 2 == at {
                    before.clone_from(packet);
                } else if n == at && *packet != before {
                    packet.clone_from(&before);
                }
            });
            assert!(theirs.is_err() || at + 1 == lengths.len() || before.len() <= 1, "{at}");
        }
    }
}

/// In TLS 1.3 the client is done before the server has seen its certificate: only the octet 0 says that it was found good.
#[test]
fn a_client_waits_for_the_word_that_it_is_believed() {
    let (root, alice, gateway) = scene();
    let case = Case::of(&root, &alice, &gateway);
    let (mut client, (mut server, mut packet)) = case.sides();
    let mut turns = 0;
    while client.proved().is_none() {
        let Reply::Data(said) = take(&mut client, &packet) else { panic!() };
        // The server's last word made it so, and not its own Finished.
        assert_eq!(client.proved().is_some(), matches!(server.state, State::Done(_)), "{turns}");
        if let Reply::Data(next) = take(&mut server, &said) {
            packet = next;
        }
        turns += 1;
    }
    assert_eq!(turns, 3);
    // Anything else that is said in TLS is not that word, and after it nothing more is to be said.
    assert!(matches!(take(&mut client, &packet), Reply::Data(_)));
    assert!(client.over().is_some());
}

/// A handler that stops for a job is called again from its beginning, and makes its client anew: what the first one has said is
/// said, and the second goes on from there.
#[test]
fn a_client_that_is_made_again_goes_on_with_what_was_said() {
    let (root, alice, gateway) = scene();
    let case = Case::of(&root, &alice, &gateway);
    let (mut first, (mut server, start)) = case.sides();
    let Err(Pause::Need(job)) = first.take(&start, &mut Answers::default()) else { panic!() };
    let mut answers = Answers::default();
    answers.give(job.run().unwrap());
    let (mut client, _) = case.sides();
    let Ok(Reply::Data(mut said)) = client.take(&start, &mut answers) else { panic!() };
    drop(first);
    while client.proved().is_none() {
        let Reply::Data(packet) = take(&mut server, &said) else { panic!("{:?}", client.over()) };
        let Reply::Data(next) = take(&mut client, &packet) else { panic!() };
        said = next;
    }
    assert!(matches!(take(&mut server, &said), Reply::Success(_)));
}

/// TLS of the same library, without anything of ours: the other side of a conversation.
struct Raw {
    tls: rustls::Connection,
    line: Line,
}

impl Raw {
    /// What it has to say, as a packet.
    fn says(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut octets).unwrap();
        }
        self.line.send(octets)
    }

    /// Hears a packet, and what it is asked for.
    fn hears(&mut self, packet: &[u8]) {
        let Ok(Taken::Message(octets)) = self.line.take(packet) else { panic!("in one piece") };
        let mut octets = &*octets;
        while !octets.is_empty() {
            self.tls.read_tls(&mut octets).unwrap();
            self.tls.process_new_packets().unwrap();
        }
    }

    /// The MSK by the words of the RFCs.
    fn msk(&self, newest: bool) -> Vec<u8> {
        let (label, context) = if newest {
            (&b"EXPORTER_EAP_TLS_Key_Material"[..], Some(&[13][..]))
        } else {
            (&b"client EAP encryption"[..], None)
        };
        self.tls.export_keying_material([0; 128], label, context).unwrap()[..64].to_vec()
    }
}

/// RFC 9190 §2.1.1 has one octet 0, and no other word.
#[test]
fn nothing_is_said_within_tls_but_that_the_client_is_believed_and_the_key_is_by_the_rfcs() {
    let (root, alice, gateway) = scene();
    let mut case = Case::of(&root, &alice, &gateway);
    for (versions, word, good) in [
        (&NEW, &[0][..], true),
        (&NEW, &[1], false),
        (&NEW, &[0, 0], false),
        (&NEW, b"welcome", false),
        (&OLD, &[], true),
    ] {
        case.versions = versions;
        let newest = versions[0].version == rustls::ProtocolVersion::TLSv1_3;
        let (mut client, _) = case.sides();
        let (_, (server, _)) = case.sides();
        let mut raw = Raw { tls: server.talk.raw(), line: Line::default() };
        let mut packet = Line::start();
        while raw.tls.is_handshaking() {
            let Reply::Data(said) = take(&mut client, &packet) else { panic!() };
            raw.hears(&said);
            if !raw.tls.is_handshaking() {
                std::io::Write::write_all(&mut raw.tls.writer(), word).unwrap();
            }
            packet = raw.says();
        }
        let reply = take(&mut client, &packet);
        assert_eq!(client.proved().is_some(), good, "{word:?} {reply:?}");
        if good {
            assert!(raw.msk(newest) == **client.proved().unwrap());
        }
        // A client has nothing to say there at all.
        let (client, (mut server, start)) = case.sides();
        assert_eq!(start, Line::start());
        let mut raw = Raw { tls: client.talk.raw(), line: Line::default() };
        while raw.tls.is_handshaking() {
            let said = raw.says();
            let Reply::Data(packet) = take(&mut server, &said) else { panic!() };
            raw.hears(&packet);
        }
        if good {
            let said = raw.says();
            let reply = take(&mut server, &said);
            // In TLS 1.3 that was its Finished, and what follows the server's word.
            let won = if newest {
                let Reply::Data(packet) = reply else { panic!() };
                raw.hears(&packet);
                take(&mut server, &[0])
            } else {
                reply
            };
            let Reply::Success(won) = won else { panic!("{won:?}") };
            assert!(raw.msk(newest) == *won.msk);
        } else {
            std::io::Write::write_all(&mut raw.tls.writer(), word).unwrap();
            let said = raw.says();
            assert!(matches!(take(&mut server, &said), Reply::Failure(_)));
        }
    }
}
