//! Both sides prove in EAP-TLS alone who they are: the gateway leaves AUTH out of its first answer (RFC 5998).

use super::eap_tls::{ALICE, P256, by_certificate, refused, scene, signature, to_the_last_word, world};
use super::pki::{Authority, Holder};
use super::world::{World, exactly};
use super::{insider, password};
use ike::credential::{LocalAuth, RemoteAuth, RemoteEap, RemoteSignature};
use ike::event::{Event, Why};
use ike::identity::IdPattern;
use ike::message::{Message, Notify, NotifyKind, Payload};
use std::time::Duration;

/// In EAP-TLS, and in no other way.
fn in_tls() -> RemoteAuth {
    let eap = Some(RemoteEap::Tls(RemoteSignature::default()));
    RemoteAuth { shared_key: false, signature: None, eap }
}

/// Both have these certificates, and may prove by them in EAP alone who they are, whoever begins.
fn alone(root: &Authority, west: &Holder, east: &Holder) -> World {
    let mut world = world(root, (west, ALICE), east, &[]);
    world.change(0, |c| {
        c.remote_auth = in_tls();
        c.attempts = Some(1);
    });
    world.change(1, |c| c.local_auth = by_certificate("@east", east, &[]));
    world
}

/// The same, with nothing delivered but by hand.
fn by_hand() -> World {
    let (root, alice, east) = scene();
    let mut world = alone(&root, &alice, &east);
    world.by_hand();
    world
}

/// Delivers until the gateway has answered the first IKE_AUTH.
fn to_the_first_answer(world: &mut World) {
    world.up(0);
    for side in [0, 1, 0] {
        world.deliver(side, false);
    }
}

fn has_auth(message: &Message) -> bool {
    message.payloads.iter().any(|payload| matches!(payload, Payload::Auth { .. } | Payload::Cert { .. }))
}

/// Alice's side believes nobody, and neither side has anybody. Says why.
fn believes_nobody(world: &mut World) -> Why {
    world.by_itself();
    world.settle();
    world.agree(0);
    let events = &world.hosts[0].events;
    assert!(!events.iter().any(|event| matches!(event, Event::IkeUp { .. })));
    assert!(world.hosts.iter().all(|host| host.endpoint.rows().iter().all(|row| row.peer.is_none())));
    let failed = events.iter().find_map(|event| match event {
        Event::Failed { why, .. } => Some(why.clone()),
        _ => None,
    });
    failed.expect("a failure")
}

#[test]
fn both_prove_in_eap_alone_who_they_are_whoever_begins() {
    let (root, alice, east) = scene();
    for begins in [0, 1] {
        let mut world = alone(&root, &alice, &east);
        if begins == 1 {
            world.change(1, |c| c.remote_id = exactly(ALICE));
            world.change(0, |c| c.local_id = ike::identity::Id::parse(ALICE).unwrap());
        }
        world.up(begins);
        world.settle();
        world.agree(1);
        assert_eq!(world.hosts[0].endpoint.rows()[0].peer.as_deref(), Some("@east"));
        assert_eq!(world.hosts[1].endpoint.rows()[0].peer.as_deref(), Some(ALICE));
    }
    for seed in 0..5 {
        let mut stormy = alone(&root, &alice, &east);
        stormy.weather(seed);
        stormy.up(0);
        stormy.run_for(Duration::from_secs(90));
        stormy.weather_clears();
        stormy.settle();
        stormy.agree(1);
    }
}

/// AUTH and certificates are left out for who has said that they may, where the connection says so, too; for nobody else.
#[test]
fn a_gateway_leaves_auth_out_only_where_both_have_said_so() {
    let signature_too = || RemoteAuth { signature: Some(RemoteSignature::default()), ..in_tls() };
    for (asks, may, expected) in
        [(true, true, false), (true, false, true), (false, true, true), (false, false, true)]
    {
        let (root, alice, east) = scene();
        let mut world = alone(&root, &alice, &east);
        let remote = if asks { signature_too() } else { RemoteAuth { eap: None, ..signature_too() } };
        world.change(0, |c| c.remote_auth = remote);
        if !may {
            world.change(1, |c| c.local_auth = LocalAuth::Signature(Box::new(signature(&east, &[]))));
        }
        world.by_hand();
        to_the_first_answer(&mut world);
        insider::changes(&mut world, 1, |message| assert_eq!(has_auth(message), expected, "{asks} {may}"));
        // All four come up: a gateway that proves more than it has to is believed.
        world.by_itself();
        world.settle();
        world.agree(1);
    }
    // Unless nothing says that its signature counts.
    let (root, alice, east) = scene();
    let mut strict = alone(&root, &alice, &east);
    strict.change(1, |c| c.local_auth = LocalAuth::Signature(Box::new(signature(&east, &[]))));
    assert!(matches!(refused(&mut strict).0, Why::BadMethod(14)));
}

/// Who stands between, or plays the gateway, leaves out what would show that it is none.
#[test]
fn auth_that_is_left_out_unasked_is_missed() {
    let mut world = by_hand();
    let signature = Some(RemoteSignature::default());
    world.change(0, |c| c.remote_auth = RemoteAuth { signature, eap: None, shared_key: false });
    to_the_first_answer(&mut world);
    let sent = world.sent;
    insider::changes(&mut world, 1, |message| {
        assert!(has_auth(message));
        message.payloads.retain(|payload| !matches!(payload, Payload::Auth { .. } | Payload::Cert { .. }));
    });
    // One message, that it is not believed: EAP is not begun.
    assert_eq!(world.sent, sent + 1);
    insider::changes(&mut world, 0, |message| {
        assert!(!message.payloads.iter().any(|payload| matches!(payload, Payload::Eap(_))), "{message:?}");
    });
    let why = believes_nobody(&mut world);
    assert!(why.to_string().contains("did not prove it"), "{why}");
}

/// A password is never tried on who has proved nothing: not by a gateway that is told that it may leave AUTH out, and not by a
/// client whom a stranger asks for one.
#[test]
fn mschapv2_is_no_method_to_do_without_auth_by() {
    let mut told = password::world_with(|_, _| {});
    told.by_hand();
    told.up(0);
    told.deliver(0, false);
    told.deliver(1, false);
    insider::changes(&mut told, 0, |message| {
        let notify = Notify::new(NotifyKind::EapOnlyAuthentication, Vec::new());
        message.payloads.push(Payload::Notify(notify));
    });
    insider::changes(&mut told, 1, |message| assert!(has_auth(message)));

    let mut asked = by_hand();
    to_the_first_answer(&mut asked);
    let sent = asked.sent;
    insider::changes(&mut asked, 1, |message| {
        assert!(!has_auth(message));
        // A challenge of MSCHAPv2.
        let mut packet = vec![1, 7, 0, 31, 26, 1, 7, 0, 26, 16];
        packet.resize(31, 0x55);
        message.payloads.retain(|payload| !matches!(payload, Payload::Eap(_)));
        message.payloads.push(Payload::Eap(packet));
    });
    // It is not even told what we would have instead (RFC 5998 §3).
    assert_eq!(asked.sent, sent);
    let why = believes_nobody(&mut asked);
    assert!(matches!(&why, Why::EapMethod { theirs, .. } if theirs.contains("MSCHAPv2")), "{why}");
}

#[test]
fn a_success_that_no_key_came_of_is_none() {
    // EAP-Success in the place of EAP.
    let mut early = by_hand();
    to_the_first_answer(&mut early);
    insider::changes(&mut early, 1, |message| {
        message.payloads.retain(|payload| !matches!(payload, Payload::Eap(_)));
        message.payloads.push(Payload::Eap(vec![3, 7, 0, 4]));
    });
    let why = believes_nobody(&mut early);
    assert!(why.to_string().contains("a success before it has proved"), "{why}");
    // No EAP at all, and all that is granted at once.
    let mut none = by_hand();
    to_the_first_answer(&mut none);
    insider::changes(&mut none, 1, |message| {
        message.payloads.retain(|payload| !matches!(payload, Payload::Eap(_)));
    });
    assert!(believes_nobody(&mut none).to_string().contains("asks for no EAP"));
    // The last word without AUTH, with one of no key or of another, and the right one.
    for change in 0..4 {
        let mut last = by_hand();
        to_the_last_word(&mut last);
        insider::changes(&mut last, 1, |message| {
            for payload in &mut message.payloads {
                let Payload::Auth { data, .. } = payload else { continue };
                match change {
                    0 => data.truncate(1),
                    1 => data.fill(0),
                    2 => data[7] ^= 1,
                    _ => {}
                }
            }
        });
        if change < 3 {
            assert!(matches!(believes_nobody_here(&mut last), Why::NotOfEap(peer) if peer == "@east"));
        } else {
            last.by_itself();
            last.settle();
            last.agree(1);
        }
    }
}

/// The gateway has believed us, and is told that we do not believe it.
fn believes_nobody_here(world: &mut World) -> Why {
    assert!(!world.hosts[0].events.iter().any(|event| matches!(event, Event::IkeUp { .. })));
    believes_nobody(world)
}

/// Everybody whom the authority vouches for could be the gateway, if its name were not asked for.
#[test]
fn who_has_a_certificate_of_the_same_authority_is_not_the_gateway_for_that() {
    let (root, alice, _) = scene();
    let bob = root.issue(("CN=Bob", &["bob@example.org"]), P256, |_| {});
    // It says that it is the gateway, and shows what it has.
    let mut poses = alone(&root, &alice, &bob);
    let (why, _) = refused(&mut poses);
    assert!(matches!(&why, Why::NotVouched { claimed, .. } if claimed == "@east"), "{why}");
    // It says who it is, and that is nobody we look for: it is not even told our name.
    let mut honest = alone(&root, &alice, &bob);
    honest.change(1, |c| c.local_id = ike::identity::Id::parse("bob@example.org").unwrap());
    honest.change(0, |c| c.remote_id = IdPattern::parse("*@example.com").unwrap());
    let before = honest.sent;
    let (why, _) = refused(&mut honest);
    assert!(matches!(&why, Why::WrongId { is, .. } if is == "bob@example.org"), "{why}");
    // IKE_SA_INIT and IKE_AUTH, and that it is not believed.
    assert_eq!(honest.sent - before, 6);
}
