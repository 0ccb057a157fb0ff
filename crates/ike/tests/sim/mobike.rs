//! Addresses change under an IKE SA (RFC 4555), and who both sides are is proved anew beside it.

use crate::world::{World, net};
use ike::event::Event;
use ipsec_core::kex::Group;
use std::time::Duration;

/// A tunnel whose ends are where their hosts are, and nowhere else.
fn tunnel() -> World {
    let mut world = World::new();
    world.is_strict();
    world.up(0);
    world.settle();
    world.agree(1);
    world
}

/// Where the children of both sides are: ours and the peer's address, of the west and of the east.
fn placed(world: &World) -> Vec<[String; 2]> {
    let last = |side: usize| world.hosts[side].pairs.last().expect("a pair");
    (0..2).map(|side| [last(side).local, last(side).remote].map(|end| end.ip().to_string())).collect()
}

#[test]
fn an_ike_sa_and_its_children_move_with_either_host_and_keep_their_names() {
    let mut world = tunnel();
    let spi = world.hosts[0].pairs[0].inbound.spi;
    world.moves(0, "203.0.113.9");
    world.settle();
    assert_eq!(placed(&world), [["203.0.113.9", "192.0.2.2"], ["192.0.2.2", "203.0.113.9"]]);
    // The responder's own address goes: it says so from the one it has left, and the initiator follows.
    world.moves(1, "203.0.113.20");
    world.settle();
    assert_eq!(placed(&world), [["203.0.113.9", "203.0.113.20"], ["203.0.113.20", "203.0.113.9"]]);
    assert_eq!(world.hosts[0].pairs[0].inbound.spi, spi, "nothing was negotiated anew");
    // Everything goes on from there, and the heir of the IKE SA moves as well.
    for (side, ike) in [(0, false), (1, true), (1, false)] {
        world.hosts[side].endpoint.rekey("net", ike, world.now);
        world.settle();
        world.agree(1);
    }
    world.moves(0, "203.0.113.10");
    world.settle();
    assert_eq!(placed(&world), [["203.0.113.10", "203.0.113.20"], ["203.0.113.20", "203.0.113.10"]]);
    world.run_for(Duration::from_secs(120));
    world.agree(1);
    assert_eq!(world.gaps, 0);
}

#[test]
fn two_moves_at_once_and_a_move_in_the_middle_of_a_rekeying_end_in_the_right_place() {
    for seed in 0..60 {
        let mut world = tunnel();
        world.weather(seed);
        world.hosts[(seed % 2) as usize].endpoint.rekey("net", seed % 3 == 0, world.now);
        world.run_for(Duration::from_millis(seed * 7 % 300));
        world.moves(0, "203.0.113.9");
        world.run_for(Duration::from_millis(seed * 31 % 200));
        world.moves(0, "203.0.113.10");
        world.run_for(Duration::from_secs(60));
        world.weather_clears();
        world.run_for(Duration::from_secs(60));
        world.agree(1);
        assert_eq!(
            placed(&world),
            [["203.0.113.10", "192.0.2.2"], ["192.0.2.2", "203.0.113.10"]],
            "seed {seed}"
        );
    }
}

#[test]
fn who_says_it_has_moved_must_answer_from_there() {
    let mut world = tunnel();
    // The west says it is at an address that is a victim's, and hears nothing that is sent there.
    world.lies(0, "203.0.113.66");
    world.run_for(Duration::from_secs(2));
    assert_eq!(placed(&world)[1], ["192.0.2.2", "203.0.113.66"]);
    world.run_for(Duration::from_secs(10));
    assert!(world.hosts[1].pairs.is_empty(), "the victim gets no more");
    assert!(world.hosts[1].endpoint.rows().is_empty());
}

#[test]
fn where_one_side_does_not_want_it_nobody_moves() {
    for side in 0..2 {
        let mut world = World::new();
        world.is_strict();
        world.change(side, |c| c.mobike = false);
        world.up(0);
        world.settle();
        world.moves(0, "203.0.113.9");
        world.settle();
        assert_eq!(placed(&world), [["192.0.2.1", "192.0.2.2"], ["192.0.2.2", "192.0.2.1"]]);
    }
}

#[test]
fn a_path_that_is_dead_is_left_for_another_address_of_the_peer() {
    let mut world = World::new();
    world.is_strict();
    world.has(1, &["192.0.2.2", "198.51.100.2"]);
    world.up(0);
    world.settle();
    world.agree(1);
    // East can be reached at its other address only, and does not know it.
    world.is_cut_but_for(1, "198.51.100.2");
    world.run_for(Duration::from_secs(80));
    assert_eq!(placed(&world), [["192.0.2.1", "198.51.100.2"], ["198.51.100.2", "192.0.2.1"]]);
    world.hosts[0].endpoint.rekey("net", false, world.now);
    world.settle();
    world.agree(1);
}

/// West and east with two connections on one IKE SA.
fn two_children(prepare: impl Fn(&mut World)) -> World {
    let mut world = World::new();
    prepare(&mut world);
    for side in 0..2 {
        let mut more = (**world.hosts[side].endpoint.connections().next().unwrap()).clone();
        more.name = "more".to_owned();
        let (here, there) =
            if side == 0 { ("10.11.0.0/16", "10.12.0.0/16") } else { ("10.12.0.0/16", "10.11.0.0/16") };
        (more.child.local, more.child.remote) = (vec![net(here)], vec![net(there)]);
        world.hosts[side].endpoint.add(more);
    }
    world.up(0);
    world.settle();
    let now = world.now;
    world.hosts[0].endpoint.up("more", "192.0.2.1".parse().unwrap(), now).unwrap();
    world.settle();
    world.agree(2);
    world
}

#[test]
fn reauthentication_makes_the_new_with_all_its_children_before_it_breaks_the_old() {
    let mut world = two_children(|_| {});
    let before = world.hosts[0].endpoint.rows()[0].ike;
    assert!(world.hosts[0].endpoint.reauthenticate("net", world.now));
    world.settle();
    world.run_for(Duration::from_secs(30));
    world.agree(2);
    assert_eq!(world.gaps, 0);
    for host in &world.hosts {
        let rows = host.endpoint.rows();
        assert!(rows.len() == 1 && rows[0].ike != before, "{rows:#?}");
        assert_eq!(host.events.iter().filter(|event| matches!(event, Event::IkeUp { .. })).count(), 2);
        // At every moment each connection had a pair: what came up second went down last.
        let mut up = [0_i32; 2];
        let mut least = [i32::MAX; 2];
        for event in &host.events {
            let (name, change) = match event {
                Event::ChildUp(up) => (&up.connection.name, 1),
                Event::ChildDown { connection, .. } => (&connection.name, -1),
                _ => continue,
            };
            let which = usize::from(name == "more");
            up[which] += change;
            least[which] = least[which].min(up[which]);
        }
        assert_eq!(least, [1, 1]);
    }
}

/// The peer cannot receive on its new pair before it has the answer that makes it.
///
/// ```text
///   A (proves anew)               B
///   IKE_SA_INIT, IKE_AUTH ──────▶ has both pairs, sends on the old one
///                   answer ◀───── (under way)
///   has both                      sends on the old one
///   Delete (old) ───────────────▶ sends on the new one
/// ```
#[test]
fn who_proves_anew_who_it_is_is_sent_to_on_the_new_pair_when_it_has_it_and_not_before() {
    for deletes in [true, false] {
        let mut world = World::new();
        world.up(0);
        world.settle();
        let sends = |world: &World| world.hosts[1].pairs.last().map(|pair| pair.inbound.spi);
        let before = sends(&world);
        world.by_hand();
        let now = world.now;
        assert!(world.hosts[0].endpoint.reauthenticate("net", now));
        world.drain();
        for side in [0, 1, 0] {
            world.deliver(side, false);
        }
        assert_eq!((world.hosts[1].pairs.len(), sends(&world)), (2, before), "the answer is under way");
        world.deliver(1, false);
        assert_eq!((world.hosts[0].pairs.len(), sends(&world)), (2, before));
        if deletes {
            world.by_itself();
            world.settle();
            world.agree(1);
        } else {
            // It has forgotten the old one, and says nothing of it.
            world.run_for(Duration::from_millis(1100));
            assert_eq!(world.hosts[1].pairs.len(), 2);
        }
        assert!(sends(&world).is_some() && sends(&world) != before);
        assert_eq!(world.gaps, 0);
    }
}

#[test]
fn a_pair_that_was_to_wait_and_has_a_successor_by_then_is_not_sent_on() {
    let mut world = World::new();
    world.up(0);
    world.settle();
    world.by_hand();
    let now = world.now;
    assert!(world.hosts[0].endpoint.reauthenticate("net", now));
    world.drain();
    // IKE_SA_INIT, IKE_AUTH, and the end of the IKE SA before, each with its answer.
    for side in [0, 1, 0, 1, 0, 1] {
        world.deliver(side, false);
    }
    assert!(world.hosts[1].endpoint.rekey("net", false, now));
    world.drain();
    for side in [1, 0] {
        world.deliver(side, false);
    }
    // The Delete of the old pair is under way.
    let sends = |world: &World| world.hosts[1].pairs.last().map(|pair| pair.inbound.spi);
    let newest = sends(&world);
    assert_eq!(world.hosts[1].pairs.len(), 2);
    world.run_for(Duration::from_millis(1100));
    assert_eq!(sends(&world), newest);
    world.by_itself();
    world.settle();
    world.agree(1);
}

#[test]
fn an_ike_sa_that_is_to_be_proved_anew_is_so_at_the_end_of_its_life() {
    let mut world = two_children(|world| {
        for side in 0..2 {
            world.change(side, |c| c.reauthenticate = true);
        }
    });
    world.run_for(Duration::from_secs(4 * 3600 + 600));
    world.agree(2);
    assert_eq!(world.gaps, 0);
    let up = world.hosts[1].events.iter().filter(|event| matches!(event, Event::IkeUp { .. })).count();
    assert!(up >= 2, "{up}");
}

#[test]
fn a_reauthentication_that_fails_leaves_what_there_is() {
    let mut world = two_children(|world| world.change(0, |c| c.reauthenticate = true));
    world.hosts[1].endpoint.set_secrets(crate::world::psk("another"));
    world.hosts[0].endpoint.reauthenticate("net", world.now);
    world.run_for(Duration::from_secs(10));
    world.agree(2);
    world.hosts[1].endpoint.set_secrets(crate::world::psk("the secret of both"));
    // It is tried again by itself.
    world.run_for(Duration::from_secs(60));
    world.agree(2);
    let up = world.hosts[0].events.iter().filter(|event| matches!(event, Event::IkeUp { .. })).count();
    assert_eq!(up, 2);
}

#[test]
fn without_a_child_in_ike_auth_the_first_one_has_a_key_exchange_of_its_own() {
    let mut world = World::new();
    for side in 0..2 {
        world.change(side, |c| c.child.offers[0].groups = vec![Group::Ecp256]);
    }
    world.change(0, |c| c.childless = true);
    world.up(0);
    world.settle();
    world.agree(1);
    assert_eq!(world.sent, 6);
}
