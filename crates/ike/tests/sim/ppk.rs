//! Post-quantum preshared keys between two of ours (RFC 8784).

use super::password;
use super::world::{World, exactly, psk};
use ike::connection::Secrets;
use ike::message::{Message, NotifyKind, Payload};
use ike::ppk::PpkNeed::{Insist, Never, Propose};
use ike::ppk::{Ppk, PpkNeed, PpkPolicy};
use ipsec_core::Secret;

fn key(name: &str, key: &str) -> Ppk {
    Ppk { id: name.as_bytes().to_vec(), ends: Vec::new(), key: Secret::from(key.as_bytes()) }
}

fn secrets(ppks: Vec<Ppk>) -> Secrets {
    Secrets { ppks, ..psk("the secret of both") }
}

/// West and east with what they want, and the keys they have.
fn world(needs: [PpkNeed; 2], ppks: [Vec<Ppk>; 2]) -> World {
    let mut world = World::new();
    for (side, (need, ppks)) in needs.into_iter().zip(ppks).enumerate() {
        world.change(side, |c| c.ppk = PpkPolicy { need, ids: Vec::new() });
        world.hosts[side].endpoint.set_secrets(secrets(ppks));
    }
    world
}

fn used(world: &World) -> [Option<String>; 2] {
    [0, 1].map(|side| world.hosts[side].endpoint.rows().into_iter().find_map(|row| row.ppk))
}

/// What west and east want, which keys they have, and what comes of it: the key that is used, or what is said of it, and by
/// whom.
#[test]
fn a_key_is_used_where_both_have_it_and_nothing_comes_up_without_where_one_insists() {
    let one = || vec![key("one", "right")];
    let other = || vec![key("other", "different")];
    let none = Vec::<Ppk>::new;
    let wrong = || vec![key("one", "wrong")];
    type Outcome = Result<Option<&'static str>, (usize, &'static str)>;
    let both: Outcome = Ok(Some("one"));
    let cases: [([PpkNeed; 2], [Vec<Ppk>; 2], Outcome); 19] = [
        ([Never, Never], [one(), one()], Ok(None)),
        ([Propose, Propose], [one(), one()], both),
        ([Propose, Insist], [one(), one()], both),
        ([Insist, Propose], [one(), one()], both),
        ([Insist, Insist], [one(), one()], both),
        // One does not want it, or has none.
        ([Propose, Never], [one(), one()], Ok(None)),
        ([Never, Propose], [one(), one()], Ok(None)),
        ([Propose, Propose], [one(), none()], Ok(None)),
        ([Propose, Propose], [none(), one()], Ok(None)),
        ([Insist, Never], [one(), one()], Err((0, "the peer uses none"))),
        ([Never, Insist], [one(), one()], Err((1, "the peer uses none"))),
        ([Insist, Propose], [none(), one()], Err((0, "none is for @west and @east"))),
        ([Propose, Insist], [none(), one()], Err((1, "the peer uses none"))),
        ([Insist, Insist], [one(), none()], Err((0, "the peer uses none"))),
        // They have different ones.
        ([Propose, Propose], [one(), other()], Ok(None)),
        ([Insist, Propose], [one(), other()], Err((1, "the post-quantum preshared key \"one\""))),
        ([Propose, Insist], [one(), other()], Err((1, "the post-quantum preshared key \"one\""))),
        // Of one name, and different: that is an AUTH that does not hold, and no reason to do without.
        ([Propose, Propose], [one(), wrong()], Err((1, "could not prove who it is"))),
        ([Insist, Insist], [one(), wrong()], Err((1, "could not prove who it is"))),
    ];
    for (n, (needs, ppks, outcome)) in cases.into_iter().enumerate() {
        let mut world = world(needs, ppks);
        world.up(0);
        world.run_for(std::time::Duration::from_secs(10));
        let words = world.hosts.each_ref().map(|host| host.words());
        match outcome {
            Ok(name) => {
                world.agree(1);
                assert_eq!(used(&world), [name, name].map(|name| name.map(str::to_owned)), "case {n}");
                let offered = needs[0] != Never && needs[1] != Never;
                assert!(offered || !words.concat().contains("PPK"), "case {n}");
            }
            Err((side, said)) => {
                assert!(words[side].contains(said), "case {n}: {}\n---\n{}", words[0], words[1]);
                assert!(world.hosts.iter().all(|host| host.pairs.is_empty()), "case {n}");
            }
        }
    }
}

#[test]
fn a_connection_may_name_its_keys_and_a_key_those_it_is_for() {
    let ids = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
    let all = || vec![key("one", "1"), key("two", "2"), key("three", "3")];
    // The first of those named that is there is offered; the responder takes none that it does not name.
    for (west, east, outcome) in [
        (ids(&["none", "two", "one"]), ids(&["one", "two"]), Some("two")),
        (ids(&["three"]), ids(&["one", "two"]), None),
        (ids(&[]), ids(&["three"]), Some("three")),
    ] {
        let mut world = world([Propose, Propose], [all(), all()]);
        world.change(0, |c| c.ppk.ids = west.clone());
        world.change(1, |c| c.ppk.ids = east.clone());
        world.up(0);
        world.settle();
        world.agree(1);
        assert_eq!(used(&world)[0].as_deref(), outcome, "{west:?} {east:?}");
    }
    // A key for others is none for us, by whatever name.
    let others = || Ppk { ends: vec![exactly("@a"), exactly("@b")], ..key("one", "1") };
    let ours = || Ppk { ends: vec![exactly("@west"), exactly("@east")], ..key("one", "1") };
    for (theirs, outcome) in [(others(), None), (ours(), Some("one"))] {
        let mut world = world([Propose, Propose], [vec![ours()], vec![theirs]]);
        world.up(0);
        world.settle();
        assert_eq!(used(&world)[0].as_deref(), outcome);
    }
}

/// Takes what is said of such keys out of a first message.
fn stripped(octets: &[u8]) -> Vec<u8> {
    let mut message = Message::parse(octets).unwrap();
    let before = message.payloads.len();
    message
        .payloads
        .retain(|payload| !matches!(payload, Payload::Notify(notify) if notify.kind == NotifyKind::UsePpk));
    assert_eq!(message.payloads.len() + 1, before);
    message.emit()
}

#[test]
fn nobody_on_the_way_can_have_two_who_want_a_key_do_without() {
    for need in [Propose, Insist] {
        // Out of the request: the responder's first message is not over what was sent.
        let keys = || vec![key("one", "right")];
        let mut asked = world([need, need], [keys(), keys()]);
        asked.by_hand();
        asked.up(0);
        let octets = stripped(asked.oldest(0));
        asked.lose(0);
        asked.inject(1, &octets);
        asked.by_itself();
        asked.run_for(std::time::Duration::from_secs(100));
        // Out of the answer.
        let mut answered = world([need, need], [keys(), keys()]);
        answered.by_hand();
        answered.up(0);
        answered.deliver(0, false);
        let octets = stripped(answered.oldest(1));
        answered.lose(1);
        answered.inject(0, &octets);
        answered.fate(super::world::Fate::Arrives);
        answered.by_itself();
        answered.run_for(std::time::Duration::from_secs(3));
        for (world, way) in [(asked, "request"), (answered, "answer")] {
            let none = world.hosts.iter().all(|host| host.pairs.is_empty());
            let all = used(&world).iter().all(Option::is_some);
            assert!(none || all, "{way}, {need:?}: {}", world.hosts[0].words());
        }
    }
}

#[test]
fn an_ike_sa_without_a_key_carries_no_child_of_a_connection_that_insists_on_one() {
    for need in [Never, Propose] {
        let mut world = world([need, need], [vec![key("one", "1")], vec![key("one", "1")]]);
        for side in 0..2 {
            let mut more = (**world.hosts[side].endpoint.connections().next().unwrap()).clone();
            more.name = "new".to_owned();
            more.ppk.need = Insist;
            world.hosts[side].endpoint.add(more);
        }
        world.up(0);
        world.settle();
        // What the first one negotiated, and what came of it when it is rekeyed.
        let now = world.now;
        assert!(world.hosts[0].endpoint.rekey("net", true, now));
        world.settle();
        let keyed = used(&world)[0].is_some();
        assert_eq!(keyed, need == Propose);
        let address = world.hosts[0].address.parse().unwrap();
        world.hosts[0].endpoint.up("new", address, now).unwrap();
        world.settle();
        let rows = world.hosts[0].endpoint.rows();
        let row = rows.iter().find(|row| row.children.iter().any(|child| child.connection == "new"));
        assert_eq!(row.map(|row| row.ppk.is_some()), Some(true), "{}", world.hosts[0].words());
        assert_eq!(rows.len(), if keyed { 1 } else { 2 });
    }
}

#[test]
fn a_road_warrior_with_a_password_uses_one_too() {
    for (needs, theirs, outcome) in [
        ([Propose, Propose], "one", Ok(Some("one"))),
        ([Insist, Insist], "one", Ok(Some("one"))),
        ([Propose, Propose], "other", Ok(None)),
        ([Insist, Propose], "other", Err(())),
        ([Propose, Insist], "other", Err(())),
        ([Never, Insist], "one", Err(())),
        ([Insist, Never], "one", Err(())),
    ] {
        let mut world = password::world_with(|side, secrets: &mut Secrets| {
            secrets.ppks = vec![key(["one", theirs][side], "key")];
        });
        for (side, need) in needs.into_iter().enumerate() {
            world.change(side, |c| c.ppk.need = need);
        }
        world.up(0);
        world.run_for(std::time::Duration::from_secs(20));
        match outcome {
            Ok(name) => {
                world.agree(1);
                assert_eq!(used(&world), [name, name].map(|name: Option<&str>| name.map(str::to_owned)));
            }
            Err(()) => assert!(world.hosts.iter().all(|host| host.pairs.is_empty()), "{needs:?} {theirs}"),
        }
    }
}

#[test]
fn signatures_are_made_with_it_too() {
    for (needs, theirs, outcome) in [
        ([Propose, Propose], "one", Ok(Some("one"))),
        ([Insist, Propose], "one", Ok(Some("one"))),
        ([Propose, Propose], "other", Ok(None)),
        ([Insist, Propose], "other", Err(())),
    ] {
        let mut world = super::certificates::world_with(|side, secrets: &mut Secrets| {
            secrets.ppks = vec![key(["one", theirs][side], "key")];
        });
        for (side, need) in needs.into_iter().enumerate() {
            world.change(side, |c| c.ppk.need = need);
        }
        world.up(0);
        world.run_for(std::time::Duration::from_secs(20));
        match outcome {
            Ok(name) => {
                world.agree(1);
                assert_eq!(used(&world), [name, name].map(|name: Option<&str>| name.map(str::to_owned)));
            }
            Err(()) => assert!(world.hosts.iter().all(|host| host.pairs.is_empty()), "{needs:?} {theirs}"),
        }
    }
}
