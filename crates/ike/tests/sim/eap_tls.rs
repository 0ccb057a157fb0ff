//! A road warrior with a certificate of its own, shown in EAP-TLS, and a gateway with one (RFC 5216, RFC 9190).

use super::insider;
use super::pki::{Authority, Holder, NOW};
use super::world::{World, exactly};
use ike::connection::Secrets;
use ike::credential::{
    EapProof, LocalAuth, LocalEap, LocalSignature, RemoteAuth, RemoteEap, RemoteSignature, Schemes, SendCert,
};
use ike::eap::EapSecret;
use ike::event::{Event, Why};
use ike::identity::IdPattern;
use ike::message::Payload;
use ike::x509::path::{Crl, Distrust, Trust};
use ipsec_core::mschap::PasswordHash;
use ipsec_core::sign::{Curve, KeyKind};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const P256: KeyKind = KeyKind::Ec(Curve::P256);

pub(crate) fn signature(holder: &Holder, above: &[&Authority]) -> LocalSignature {
    let mut chain = vec![holder.certificate.clone()];
    chain.extend(above.iter().map(|one| one.certificate.clone()));
    let public = holder.certificate.key().clone();
    LocalSignature { public, chain, send: SendCert::Always, schemes: Schemes::default() }
}

pub(crate) fn by_certificate(name: &str, holder: &Holder, above: &[&Authority]) -> LocalAuth {
    let proof = EapProof::Tls(signature(holder, above));
    LocalAuth::Eap(Box::new(LocalEap { name: name.to_owned(), proof }))
}

/// The west has this certificate and goes by this name, the east lets everybody in whom the root vouches for.
pub(crate) fn world(
    root: &Authority,
    (west, name): (&Holder, &str),
    east: &Holder,
    above: &[&Authority],
) -> World {
    let mut world = World::new();
    world.change(0, |c| {
        c.local_auth = by_certificate(name, west, above);
        let signature = Some(RemoteSignature::default());
        c.remote_auth = RemoteAuth { shared_key: false, signature, eap: None };
    });
    world.change(1, |c| {
        c.local_auth = LocalAuth::Signature(Box::new(signature(east, above)));
        let eap = Some(RemoteEap::Tls(RemoteSignature::default()));
        c.remote_auth = RemoteAuth { shared_key: false, signature: None, eap };
        c.remote_id = IdPattern::Any;
    });
    for (side, holder) in [west, east].into_iter().enumerate() {
        let now = world.now;
        world.hosts[side].endpoint.set_secrets(secrets(root, holder));
        world.hosts[side].endpoint.set_epoch(Duration::from_secs(NOW - now.as_secs()));
    }
    world
}

fn secrets(root: &Authority, holder: &Holder) -> Secrets {
    let trust = Trust { authorities: vec![root.certificate.clone()], ..Trust::default() };
    Secrets { keys: vec![holder.key.clone()], trust: Arc::new(trust), ..Secrets::default() }
}

pub(crate) fn scene() -> (Authority, Holder, Holder) {
    let root = Authority::new("CN=Root");
    let alice = root.issue(("CN=Alice", &["alice@example.org"]), P256, |_| {});
    let east = root.issue(("CN=east", &["@east"]), P256, |_| {});
    (root, alice, east)
}

/// Two who come up by EAP-TLS, and the secrets of each.
pub(crate) fn world_and_secrets() -> (World, [Secrets; 2]) {
    let (root, alice, east) = scene();
    let known = [&alice, &east].map(|holder| secrets(&root, holder));
    (world(&root, (&alice, ALICE), &east, &[]), known)
}

pub(crate) const ALICE: &str = "alice@example.org";

/// Why it came to nothing where it began, and what the other side said. Nobody believes to be connected.
pub(crate) fn refused(world: &mut World) -> (Why, String) {
    world.up(0);
    world.settle();
    world.agree(0);
    assert!(world.hosts.iter().all(|host| host.endpoint.rows().iter().all(|row| row.peer.is_none())));
    let failed = world.hosts[0].events.iter().find_map(|event| match event {
        Event::Failed { why, .. } => Some(why.clone()),
        _ => None,
    });
    (failed.expect("a failure"), world.hosts[1].words())
}

#[test]
fn a_road_warrior_with_a_certificate_in_eap_is_let_in_and_known_by_its_name() {
    let (root, alice, east) = scene();
    let mut open = world(&root, (&alice, ALICE), &east, &[]);
    open.up(0);
    open.settle();
    open.agree(1);
    assert_eq!(open.hosts[1].endpoint.rows()[0].peer.as_deref(), Some(ALICE));
    assert_eq!(open.hosts[0].endpoint.rows()[0].peer.as_deref(), Some("@east"));
    for seed in 0..10 {
        let mut stormy = world(&root, (&alice, ALICE), &east, &[]);
        stormy.weather(seed);
        stormy.up(0);
        stormy.run_for(Duration::from_secs(90));
        stormy.weather_clears();
        stormy.settle();
        stormy.agree(1);
    }
    // The connection may be for some.
    for (allowed, pairs) in [(ALICE, 1), ("bob@example.org", 0), ("*@example.org", 1), ("*@example.com", 0)] {
        let mut some = world(&root, (&alice, ALICE), &east, &[]);
        some.change(1, |c| c.remote_id = IdPattern::parse(allowed).unwrap());
        some.up(0);
        some.settle();
        some.agree(pairs);
    }
}

#[test]
fn a_chain_of_4096_bit_keys_goes_in_pieces_that_no_datagram_is_too_short_for() {
    let root = Authority::of(("CN=Root", KeyKind::Rsa, 4096), None, |_| {});
    let middle = Authority::of(("CN=Middle", KeyKind::Rsa, 4096), Some(&root), |_| {});
    let alice = middle.issue(("CN=Alice", &["alice@example.org"]), KeyKind::Rsa, |_| {});
    let east = middle.issue(("CN=east", &["@east"]), KeyKind::Rsa, |_| {});
    for seed in 0..3 {
        let mut long = world(&root, (&alice, ALICE), &east, &[&middle]);
        if seed > 0 {
            long.weather(seed);
        }
        long.up(0);
        long.run_for(Duration::from_secs(90));
        long.weather_clears();
        long.settle();
        long.agree(1);
        assert!(long.longest <= 1228 && long.sent > 16, "{} {}", long.longest, long.sent);
    }
}

#[test]
fn what_is_wrong_in_eap_tls_is_said_on_both_sides() {
    let (root, alice, east) = scene();
    let stranger = Authority::new("CN=Stranger");
    let expired = root.issue(("CN=Alice", &[ALICE]), P256, |params| {
        params.not_after = rcgen::date_time_ymd(2026, 2, 1);
    });
    let unknown = stranger.issue(("CN=Alice", &[ALICE]), P256, |_| {});
    let bob = root.issue(("CN=Bob", &["bob@example.org"]), P256, |_| {});
    for (holder, there, here) in [
        (&expired, "certificate_expired", "expired at 2026-02-01"),
        (&unknown, "unknown_ca", "CN=Stranger, which is not known here"),
        (&bob, "bad_certificate", "says it is alice@example.org, and its certificate is for"),
    ] {
        let mut world = world(&root, (holder, ALICE), &east, &[]);
        let (why, said) = refused(&mut world);
        assert!(why.to_string().contains(there), "{why}");
        assert!(said.contains(here), "{said}");
    }
    // She is who she says, and the connection is for another.
    let mut other = world(&root, (&alice, ALICE), &east, &[]);
    other.change(1, |c| c.remote_id = exactly("bob@example.org"));
    let (why, said) = refused(&mut other);
    assert!(why.to_string().contains("access_denied"), "{why}");
    assert!(said.contains("the connection is with bob@example.org"), "{said}");
    let mut revoked = world(&root, (&alice, ALICE), &east, &[]);
    let crls = vec![Crl::from_der(&root.crl(&[alice.serial], (5, 7))).unwrap()];
    let trust = Trust { authorities: vec![root.certificate.clone()], crls, strict: false };
    let keys = vec![east.key.clone()];
    revoked.hosts[1].endpoint.set_secrets(Secrets { keys, trust: Arc::new(trust), ..Secrets::default() });
    let (why, said) = refused(&mut revoked);
    assert!(why.to_string().contains("certificate_revoked") && said.contains("was revoked"), "{why} {said}");
    // She has no key: it is not even tried. The gateway has proved who it is before that is asked for.
    let mut keyless = world(&root, (&alice, ALICE), &east, &[]);
    let before = keyless.sent;
    keyless.hosts[0].endpoint.set_secrets(secrets(&root, &bob));
    assert!(matches!(refused(&mut keyless).0, Why::NoPrivateKey(_)));
    assert_eq!(keyless.sent - before, 2);
}

/// Nothing of our certificate is told to a gateway that has not proved who it is (CVE-2015-4171).
#[test]
fn no_certificate_is_shown_in_eap_to_a_gateway_that_is_a_stranger() {
    let (root, alice, east) = scene();
    let mut rogue = world(&root, (&alice, ALICE), &east, &[]);
    let stranger = Authority::new("CN=Root");
    let other = stranger.issue(("CN=east", &["@east"]), P256, |_| {});
    rogue.change(1, |c| c.local_auth = LocalAuth::Signature(Box::new(signature(&other, &[]))));
    rogue.hosts[1].endpoint.set_secrets(secrets(&root, &other));
    let (why, said) = refused(&mut rogue);
    assert!(matches!(why, Why::Distrust(Distrust::Path { .. })), "{why:?}");
    assert!(!said.contains("alice"), "{said}");
}

#[test]
fn who_wants_another_method_of_eap_is_told_so_on_both_sides() {
    let (root, alice, east) = scene();
    let password = || EapSecret { user: "alice".to_owned(), password: PasswordHash::of("right") };
    // A certificate, where passwords are asked for.
    let mut passwords = world(&root, (&alice, ALICE), &east, &[]);
    passwords.change(1, |c| c.remote_auth.eap = Some(RemoteEap::Password));
    let (why, said) = refused(&mut passwords);
    assert!(
        why.to_string().contains("asks for EAP-MSCHAPv2, and the connection here is for EAP-TLS"),
        "{why}"
    );
    assert!(said.contains("asks for EAP-TLS, and the connection here is for EAP-MSCHAPv2"), "{said}");
    // A password that is right, where certificates are.
    let mut certificates = world(&root, (&alice, ALICE), &east, &[]);
    certificates.change(0, |c| {
        let local = LocalEap { name: "alice".to_owned(), proof: EapProof::Password };
        c.local_auth = LocalAuth::Eap(Box::new(local));
    });
    for (side, holder) in [&alice, &east].into_iter().enumerate() {
        let secrets = Secrets { eap: vec![password()], ..secrets(&root, holder) };
        certificates.hosts[side].endpoint.set_secrets(secrets);
    }
    let (why, said) = refused(&mut certificates);
    assert!(
        why.to_string().contains("asks for EAP-TLS, and the connection here is for EAP-MSCHAPv2"),
        "{why}"
    );
    assert!(said.contains("asks for EAP-MSCHAPv2, and the connection here is for EAP-TLS"), "{said}");
    // And no EAP at all where there is none.
    let mut none = world(&root, (&alice, ALICE), &east, &[]);
    none.change(1, |c| {
        let signature = Some(RemoteSignature::default());
        c.remote_auth = RemoteAuth { shared_key: false, signature, eap: None };
    });
    assert!(refused(&mut none).1.contains("authenticates by EAP"));
}

/// While the host does a turn of TLS the connection may change: then what was believed for the old one opens nothing.
#[test]
fn a_connection_that_changes_in_the_middle_of_eap_lets_nobody_in() {
    let (root, alice, east) = scene();
    let mut world = world(&root, (&alice, ALICE), &east, &[]);
    world.by_hand();
    world.up(0);
    // IKE_SA_INIT, IKE_AUTH, and four more requests of EAP: the name, two of TLS, and that all has been heard.
    for _ in 0..6 {
        world.deliver(0, false);
        world.deliver(1, false);
    }
    world.change(1, |c| c.remote_id = exactly("bob@example.org"));
    world.by_itself();
    world.settle();
    world.agree(0);
    assert!(
        world.hosts[1].words().contains("no connection here is for alice@example.org"),
        "{}",
        world.hosts[1].words()
    );
}

/// Delivers until the gateway has said its last word: it believes to be connected, and has not been heard.
pub(crate) fn to_the_last_word(world: &mut World) {
    world.by_hand();
    world.up(0);
    while world.hosts[1].endpoint.rows().iter().all(|row| row.peer.is_none()) {
        if !world.oldest(1).is_empty() {
            world.deliver(1, false);
        }
        world.deliver(0, false);
    }
}

/// A gateway that has all of IKE's keys and is not the other end of EAP: its last word, the AUTH after EAP, says so.
#[test]
fn the_last_word_of_a_gateway_is_by_the_key_of_eap_or_it_is_not_believed() {
    for wrong in [false, true] {
        let (mut world, _) = world_and_secrets();
        to_the_last_word(&mut world);
        insider::changes(&mut world, 1, |message| {
            let auth = message.payloads.iter_mut().find_map(|payload| match payload {
                Payload::Auth { data, .. } => Some(data),
                _ => None,
            });
            auth.expect("its AUTH")[7] ^= u8::from(wrong);
        });
        let up = world.hosts[0].events.iter().any(|event| matches!(event, Event::IkeUp { .. }));
        assert_eq!(up, !wrong);
        assert_eq!(world.hosts[0].words().contains("AUTH is not made with the key of that"), wrong);
        world.by_itself();
        world.settle();
        world.agree(usize::from(!wrong));
    }
}
