//! Two gateways that prove who they are by signatures.

use super::Certificate;
use super::pki::{Authority, Holder, NOW};
use super::world::{World, exactly, psk};
use ike::connection::Secrets;
use ike::credential::{
    Known, LocalAuth, LocalSignature, RemoteAuth, RemoteEap, RemoteSignature, Schemes, SendCert,
};
use ike::event::{Event, Why};
use ike::identity::{Id, IdPattern};
use ike::x509::path::{Crl, Distrust, Trust};
use ipsec_core::Secret;
use ipsec_core::sign::{Curve, KeyKind};
use std::sync::Arc;
use std::time::Duration;

const P256: KeyKind = KeyKind::Ec(Curve::P256);
const IDS: [&str; 2] = ["@west", "@east"];

fn holder(ca: &Authority, side: usize, kind: KeyKind) -> Holder {
    let subject = ["C=CH, O=Example, CN=west", "C=CH, O=Example, CN=east"][side];
    ca.issue((subject, &[IDS[side]]), kind, |_| {})
}

fn local(holder: &Holder, between: &[&Authority]) -> LocalAuth {
    let mut chain: Vec<Arc<Certificate>> = vec![holder.certificate.clone()];
    chain.extend(between.iter().map(|one| one.certificate.clone()));
    let public = holder.certificate.key().clone();
    LocalAuth::Signature(Box::new(LocalSignature {
        public,
        chain,
        send: SendCert::Always,
        schemes: Schemes::default(),
    }))
}

/// A world in which both sides sign, and believe whom this authority vouches for.
fn world(root: &Authority, holders: [&Holder; 2], between: &[&Authority]) -> World {
    let mut world = World::new();
    for (side, holder) in holders.into_iter().enumerate() {
        world.change(side, |c| {
            c.local_auth = local(holder, between);
            c.remote_auth =
                RemoteAuth { shared_key: false, signature: Some(RemoteSignature::default()), eap: None };
        });
        let now = world.now;
        let endpoint = &mut world.hosts[side].endpoint;
        endpoint.set_secrets(secrets(root, holder));
        endpoint.set_epoch(Duration::from_secs(NOW - now.as_secs()));
    }
    world
}

fn secrets(root: &Authority, holder: &Holder) -> Secrets {
    let trust = Trust { authorities: vec![root.certificate.clone()], ..Trust::default() };
    Secrets { keys: vec![holder.key.clone()], trust: Arc::new(trust), ..Secrets::default() }
}

/// Both sides sign, and have more secrets than that.
pub(crate) fn world_with(add: impl Fn(usize, &mut Secrets)) -> World {
    let root = Authority::new("C=CH, O=Example, CN=Root");
    let holders = [holder(&root, 0, P256), holder(&root, 1, KeyKind::Ed25519)];
    let mut world = world(&root, holders.each_ref(), &[]);
    for (side, holder) in holders.iter().enumerate() {
        let mut secrets = secrets(&root, holder);
        add(side, &mut secrets);
        world.hosts[side].endpoint.set_secrets(secrets);
    }
    world
}

fn policy(world: &mut World, side: usize, change: impl FnOnce(&mut RemoteSignature)) {
    world.change(side, |c| change(c.remote_auth.signature.as_mut().unwrap()));
}

/// Why it came to nothing on the side that began it, and what the other said.
fn refused(world: &mut World) -> (Why, String) {
    world.up(0);
    world.settle();
    world.agree(0);
    for host in &world.hosts {
        assert!(
            host.endpoint.rows().iter().all(|row| row.peer.is_none()),
            "somebody believes to be connected"
        );
    }
    let failed = world.hosts[0].events.iter().find_map(|event| match event {
        Event::Failed { why, .. } => Some(why.clone()),
        _ => None,
    });
    (failed.expect("a failure"), world.hosts[1].words())
}

#[test]
fn every_kind_of_key_signs_on_either_side() {
    let root = Authority::new("C=CH, O=Example, CN=Root");
    let kinds = [KeyKind::Rsa, P256, KeyKind::Ec(Curve::P384), KeyKind::Ec(Curve::P521), KeyKind::Ed25519];
    for (n, kind) in kinds.into_iter().enumerate() {
        let (west, east) = (holder(&root, 0, kind), holder(&root, 1, kinds[(n + 1) % kinds.len()]));
        let mut world = world(&root, [&west, &east], &[]);
        world.up(0);
        world.settle();
        world.agree(1);
        let peer = world.hosts[1].endpoint.rows()[0].peer.clone();
        assert_eq!(peer.as_deref(), Some("@west"));
    }
}

#[test]
fn chains_raw_keys_and_a_secret_on_one_side_alone_do_as_well() {
    let root = Authority::new("C=CH, O=Example, CN=Root");
    let middle = root.below("C=CH, O=Example, CN=Middle", |_| {});
    let (west, east) = (holder(&middle, 0, P256), holder(&middle, 1, KeyKind::Rsa));
    let mut chained = world(&root, [&west, &east], &[&middle]);
    chained.up(0);
    chained.settle();
    chained.agree(1);
    // More than a datagram, and none longer than one.
    assert!(chained.longest <= 1228);

    // Names of certificates as identities, and only their shape known beforehand.
    let mut named = world(&root, [&west, &east], &[&middle]);
    for (side, holder) in [(0, &west), (1, &east)] {
        named.change(side, |c| {
            c.local_id = Id::Name(holder.certificate.subject().clone());
            c.remote_id = IdPattern::parse("C=CH, O=Example, CN=*").unwrap();
        });
    }
    named.up(0);
    named.settle();
    named.agree(1);

    let mut raw = world(&root, [&west, &east], &[]);
    for (side, other) in [(0, &east), (1, &west)] {
        policy(&mut raw, side, |policy| policy.known = vec![Known::Key(other.certificate.key().clone())]);
        raw.change(side, |c| {
            let LocalAuth::Signature(local) = &mut c.local_auth else { panic!() };
            local.chain.clear();
        });
        // Nobody is trusted to vouch for anybody.
        let keys = vec![[&west, &east][side].key.clone()];
        raw.hosts[side].endpoint.set_secrets(Secrets { keys, ..Secrets::default() });
    }
    raw.up(0);
    raw.settle();
    raw.agree(1);

    let mut mixed = world(&root, [&west, &east], &[&middle]);
    mixed.change(0, |c| c.local_auth = LocalAuth::SharedKey);
    mixed.change(1, |c| c.remote_auth = RemoteAuth::default());
    for side in 0..2 {
        let trust = Trust { authorities: vec![root.certificate.clone()], ..Trust::default() };
        let keys = vec![[&west, &east][side].key.clone()];
        let secrets = Secrets { keys, trust: Arc::new(trust), ..psk("a secret") };
        mixed.hosts[side].endpoint.set_secrets(secrets);
    }
    mixed.up(0);
    mixed.settle();
    mixed.agree(1);
}

#[test]
fn certificates_are_sent_as_configured_and_asked_for() {
    let root = Authority::new("C=CH, O=Example, CN=Root");
    let (west, east) = (holder(&root, 0, P256), holder(&root, 1, P256));
    let send = |world: &mut World, send: SendCert| {
        for side in 0..2 {
            world.change(side, |c| {
                let LocalAuth::Signature(local) = &mut c.local_auth else { panic!() };
                local.send = send;
            });
        }
    };
    let mut asked = world(&root, [&west, &east], &[]);
    send(&mut asked, SendCert::IfAsked);
    asked.up(0);
    asked.settle();
    asked.agree(1);
    let mut never = world(&root, [&west, &east], &[]);
    send(&mut never, SendCert::Never);
    let (there, here) = refused(&mut never);
    assert!(here.contains("@west sent no certificate") && here.contains("leftsendcert=always"), "{here}");
    assert!(matches!(there, Why::Refused("IKE_AUTH", _)), "{there:?}");
    // Whoever knows the certificates needs none.
    let mut known = world(&root, [&west, &east], &[]);
    send(&mut known, SendCert::Never);
    for (side, other) in [(0, &east), (1, &west)] {
        policy(&mut known, side, |policy| policy.known = vec![Known::Certificate(other.certificate.clone())]);
    }
    known.up(0);
    known.settle();
    known.agree(1);
}

/// What is wrong with one side is said by the other, whichever begins; and nobody believes to be connected.
#[test]
fn what_is_wrong_with_a_certificate_is_said_by_the_side_that_sees_it_and_the_other_is_told() {
    let root = Authority::new("C=CH, O=Example, CN=Root");
    let stranger = Authority::new("C=CH, O=Stranger, CN=Root");
    let good = [holder(&root, 0, P256), holder(&root, 1, P256)];
    for bad in 0..2 {
        let expired = root.issue((["CN=west", "CN=east"][bad], &[IDS[bad]]), P256, |params| {
            params.not_after = rcgen::date_time_ymd(2026, 2, 1);
        });
        let others = root.gateway("CN=other", &["@other"]);
        let unknown = holder(&stranger, bad, P256);
        for (held, what) in
            [(&expired, "expired at 2026-02-01"), (&others, "for @other"), (&unknown, "cacerts")]
        {
            let mut holders = [&good[0], &good[1]];
            holders[bad] = held;
            let mut world = world(&root, holders, &[]);
            let (there, here) = refused(&mut world);
            if bad == 0 {
                assert!(here.contains(what), "{here}");
                assert!(there.to_string().contains("AUTHENTICATION_FAILED"), "{there}");
            } else {
                assert!(there.to_string().contains(what), "{there}");
                assert!(here.contains("AUTHENTICATION_FAILED"), "{here}");
            }
        }
        // Its key is not its certificate's.
        let mut holders = [&good[0], &good[1]];
        let thief = Holder {
            certificate: good[bad].certificate.clone(),
            key: others.key.clone(),
            pkcs8: Secret::default(),
            serial: 0,
        };
        holders[bad] = &thief;
        let mut world = world(&root, holders, &[]);
        let keyless = refused(&mut world);
        let said = if bad == 0 { keyless.0.to_string() } else { keyless.1 };
        assert!(said.contains("private key"), "{said}");
    }
}

#[test]
fn a_gateway_whose_certificate_was_revoked_gets_no_further() {
    let root = Authority::new("C=CH, O=Example, CN=Root");
    let (west, east) = (holder(&root, 0, P256), holder(&root, 1, P256));
    let mut world = world(&root, [&west, &east], &[]);
    let crls = vec![Crl::from_der(&root.crl(&[west.serial], (5, 7))).unwrap()];
    let trust = Trust { authorities: vec![root.certificate.clone()], crls, strict: false };
    let keys = vec![east.key.clone()];
    world.hosts[1].endpoint.set_secrets(Secrets { keys, trust: Arc::new(trust), ..Secrets::default() });
    let (_, here) = refused(&mut world);
    assert!(here.contains("was revoked"), "{here}");
}

/// The east has a connection for users with passwords, too, and so does not say what it takes (RFC 9593): the west tries.
fn announces_nothing(world: &mut World) {
    let mut users = (**world.hosts[1].endpoint.connections().next().unwrap()).clone();
    (users.name, users.remote_id) = ("users".to_owned(), exactly("@users"));
    users.remote_auth = RemoteAuth { shared_key: false, signature: None, eap: Some(RemoteEap::Password) };
    world.hosts[1].endpoint.add(users);
}

#[test]
fn nobody_gets_in_by_a_way_that_the_connection_does_not_have() {
    let root = Authority::new("C=CH, O=Example, CN=Root");
    let (west, east) = (holder(&root, 0, P256), holder(&root, 1, P256));
    // The right secret, where certificates are asked for.
    let mut by_secret = world(&root, [&west, &east], &[]);
    by_secret.change(0, |c| c.local_auth = LocalAuth::SharedKey);
    announces_nothing(&mut by_secret);
    for side in 0..2 {
        let secrets = Secrets { keys: vec![east.key.clone()], ..psk("the secret of both") };
        by_secret.hosts[side].endpoint.set_secrets(secrets);
    }
    let (_, here) = refused(&mut by_secret);
    assert!(here.contains("authenticates by a shared secret"), "{here}");
    // A certificate, where the secret is.
    let mut by_certificate = world(&root, [&west, &east], &[]);
    by_certificate.change(1, |c| c.remote_auth = RemoteAuth::default());
    announces_nothing(&mut by_certificate);
    let (_, here) = refused(&mut by_certificate);
    assert!(here.contains("authenticates by a signature"), "{here}");
    // A certificate of an authority that the connection does not take.
    let mut elsewhere = world(&root, [&west, &east], &[]);
    let only = Authority::new("CN=Only").certificate.subject().clone();
    policy(&mut elsewhere, 0, |policy| policy.authorities = vec![only]);
    let (there, _) = refused(&mut elsewhere);
    assert!(matches!(there, Why::Distrust(Distrust::OtherAuthority { .. })), "{there:?}");
    // It knows who it is to be: the other gateway of the same authority is not.
    let mut another = world(&root, [&west, &east], &[]);
    another.change(0, |c| c.remote_id = exactly("@north"));
    another.change(1, |c| c.local_id = Id::parse("@north").unwrap());
    let (there, _) = refused(&mut another);
    assert!(matches!(there, Why::NotVouched { .. }), "{there:?}");
    // A clock that begins in 1970: no certificate is believed.
    let mut timeless = world(&root, [&west, &east], &[]);
    timeless.hosts[1].endpoint.set_epoch(Duration::ZERO);
    let (_, here) = refused(&mut timeless);
    assert!(here.contains("not valid before"), "{here}");
}

#[test]
fn each_side_proves_itself_as_the_other_has_said_it_may() {
    let root = Authority::new("C=CH, O=Example, CN=Root");
    let holders = [holder(&root, 0, KeyKind::Rsa), holder(&root, 1, KeyKind::Rsa)];
    // Of two schemes of its key each takes the one that the other takes (RFC 9593), though it likes the first better.
    let mut narrow = world(&root, holders.each_ref(), &[]);
    for side in 0..2 {
        policy(&mut narrow, side, |signature| {
            signature.schemes = Schemes { rsa_pkcs1: true, ..Schemes::none() };
        });
    }
    narrow.up(0);
    narrow.settle();
    narrow.agree(1);

    // What the other side does not take is not even tried, and it is said why.
    let mut none = world(&root, holders.each_ref(), &[]);
    policy(&mut none, 1, |signature| signature.schemes = Schemes { ed25519: true, ..Schemes::none() });
    let before = none.sent;
    let (why, _) = refused(&mut none);
    assert_eq!(why, Why::NoScheme("RSA"));
    // Two messages went, and no AUTH.
    assert_eq!(none.sent - before, 2);
    let mut secret = World::new();
    secret.change(1, |c| {
        let signature = Some(RemoteSignature::default());
        c.remote_auth = RemoteAuth { shared_key: false, signature, eap: None };
    });
    assert_eq!(refused(&mut secret).0, Why::SecretNotTaken);

    // The responder, too: what the initiator takes, it says in IKE_AUTH.
    let mut theirs = world(&root, holders.each_ref(), &[]);
    policy(&mut theirs, 0, |signature| signature.schemes = Schemes { ed25519: true, ..Schemes::none() });
    let (why, said) = refused(&mut theirs);
    assert!(
        matches!(why, Why::Refused(..)) && said.contains("no signature that our RSA key makes"),
        "{said}"
    );
}
