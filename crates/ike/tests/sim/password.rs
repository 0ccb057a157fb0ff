//! A road warrior with a password, and a gateway with a certificate (RFC 7296 §2.16).

use super::pki::{Authority, Holder, NOW};
use super::world::World;
use ike::connection::Secrets;
use ike::credential::{
    EapProof, LocalAuth, LocalEap, LocalSignature, RemoteAuth, RemoteEap, RemoteSignature, Schemes, SendCert,
};
use ike::eap::EapSecret;
use ike::event::{Event, Why};
use ike::identity::IdPattern;
use ike::x509::path::Trust;
use ipsec_core::mschap::PasswordHash;
use ipsec_core::sign::{Curve, KeyKind};
use std::sync::Arc;
use std::time::Duration;

fn user(name: &str, password: &str) -> EapSecret {
    EapSecret { user: name.to_owned(), password: PasswordHash::of(password) }
}

/// The west has this password, the east these users, and a certificate of the root that the west trusts.
fn world(root: &Authority, east: &Holder, ours: EapSecret, theirs: Vec<EapSecret>) -> World {
    world_of((root, east), ours, theirs, |_, _| {})
}

/// A password that is known, and more secrets than that.
pub(crate) fn world_with(add: impl Fn(usize, &mut Secrets)) -> World {
    let (root, east) = scene();
    world_of((&root, &east), user("alice", "right"), vec![user("alice", "right")], add)
}

fn world_of(
    (root, east): (&Authority, &Holder),
    ours: EapSecret,
    theirs: Vec<EapSecret>,
    add: impl Fn(usize, &mut Secrets),
) -> World {
    let mut world = World::new();
    world.change(0, |c| {
        c.local_auth =
            LocalAuth::Eap(Box::new(LocalEap { name: ours.user.clone(), proof: EapProof::Password }));
        let signature = Some(RemoteSignature::default());
        c.remote_auth = RemoteAuth { shared_key: false, signature, eap: None };
    });
    world.change(1, |c| {
        c.local_auth = LocalAuth::Signature(Box::new(LocalSignature {
            public: east.certificate.key().clone(),
            chain: vec![east.certificate.clone()],
            send: SendCert::Always,
            schemes: Schemes::default(),
        }));
        c.remote_auth = RemoteAuth { shared_key: false, signature: None, eap: Some(RemoteEap::Password) };
        c.remote_id = IdPattern::Any;
    });
    let trust = Arc::new(Trust { authorities: vec![root.certificate.clone()], ..Trust::default() });
    let now = world.now;
    let secrets = [
        Secrets { eap: vec![ours], trust, ..Secrets::default() },
        Secrets { eap: theirs, keys: vec![east.key.clone()], ..Secrets::default() },
    ];
    for (side, (host, mut secrets)) in world.hosts.iter_mut().zip(secrets).enumerate() {
        add(side, &mut secrets);
        host.endpoint.set_secrets(secrets);
        host.endpoint.set_epoch(Duration::from_secs(NOW - now.as_secs()));
    }
    world
}

fn scene() -> (Authority, Holder) {
    let root = Authority::new("CN=Root");
    let east = root.issue(("CN=east", &["@east"]), KeyKind::Ec(Curve::P256), |_| {});
    (root, east)
}

fn failed(world: &World) -> Why {
    let failed = world.hosts[0].events.iter().find_map(|event| match event {
        Event::Failed { why, .. } => Some(why.clone()),
        _ => None,
    });
    failed.expect("a failure")
}

#[test]
fn a_road_warrior_with_a_password_is_let_in_and_known_by_the_users_name() {
    let (root, east) = scene();
    let users = || vec![user("bob", "other"), user("alice", "right")];
    let mut open = world(&root, &east, user("alice", "right"), users());
    open.up(0);
    open.settle();
    open.agree(1);
    assert_eq!(open.hosts[1].endpoint.rows()[0].peer.as_deref(), Some("@alice"));
    assert_eq!(open.hosts[0].endpoint.rows()[0].peer.as_deref(), Some("@east"));
    // In any weather.
    for seed in 0..20 {
        let mut stormy = world(&root, &east, user("alice", "right"), users());
        stormy.weather(seed);
        stormy.up(0);
        stormy.run_for(Duration::from_secs(60));
        stormy.weather_clears();
        stormy.settle();
        stormy.agree(1);
    }
    // The connection may be for some users.
    for (allowed, pairs) in [("@alice", 1), ("@bob", 0), ("*@example.org", 0)] {
        let mut some = world(&root, &east, user("alice", "right"), users());
        some.change(1, |c| c.remote_id = IdPattern::parse(allowed).unwrap());
        some.up(0);
        some.settle();
        some.agree(pairs);
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_refused_and_said_on_both_sides() {
    let (root, east) = scene();
    for wrong in [user("alice", "wrong"), user("mallory", "right"), user("alice", "")] {
        let name = wrong.user.clone();
        let mut world = world(&root, &east, wrong, vec![user("alice", "right")]);
        world.up(0);
        world.settle();
        world.agree(0);
        assert!(matches!(failed(&world), Why::PasswordRefused(user) if user == name));
        assert!(
            world.hosts[1].words().contains(&format!("{name} could not prove")),
            "{}",
            world.hosts[1].words()
        );
        assert!(world.hosts[1].endpoint.rows().iter().all(|row| row.peer.is_none()));
    }
}

/// Other clients gave the password away to whoever answered (CVE-2015-4171).
#[test]
fn no_password_is_told_to_a_gateway_that_has_not_proved_who_it_is() {
    let (root, east) = scene();
    let (_, stranger) = scene();
    let mut rogue = world(&root, &east, user("alice", "right"), vec![user("alice", "right")]);
    // It has a certificate for the right name, of an authority that is not ours.
    rogue.change(1, |c| {
        let LocalAuth::Signature(local) = &mut c.local_auth else { panic!() };
        (local.public, local.chain) =
            (stranger.certificate.key().clone(), vec![stranger.certificate.clone()]);
    });
    let (keys, eap) = (vec![stranger.key.clone()], vec![user("alice", "right")]);
    rogue.hosts[1].endpoint.set_secrets(Secrets { keys, eap, ..Secrets::default() });
    rogue.up(0);
    rogue.settle();
    rogue.agree(0);
    assert!(matches!(failed(&rogue), Why::Distrust(_)), "{:?}", failed(&rogue));
    let words = rogue.hosts[1].words();
    assert!(words.contains("AUTHENTICATION_FAILED") && !words.contains("alice"), "{words}");
}

#[test]
fn a_password_does_not_open_a_connection_that_asks_for_something_else() {
    let (root, east) = scene();
    let mut closed = world(&root, &east, user("alice", "right"), vec![user("alice", "right")]);
    closed.change(1, |c| {
        let signature = Some(RemoteSignature::default());
        c.remote_auth = RemoteAuth { shared_key: true, signature, eap: None };
    });
    closed.up(0);
    closed.settle();
    closed.agree(0);
    assert!(closed.hosts[1].words().contains("authenticates by EAP"), "{}", closed.hosts[1].words());
    // One that takes both takes each.
    let mut both = world(&root, &east, user("alice", "right"), vec![user("alice", "right")]);
    both.change(1, |c| c.remote_auth.signature = Some(RemoteSignature::default()));
    both.up(0);
    both.settle();
    both.agree(1);
}
