//! Several key exchanges in one negotiation after the first: CREATE_CHILD_SA with IKE_FOLLOWUP_KE (RFC 9370 §2.2.4).

use crate::world::{World, net};
use ike::event::Event;
use ipsec_core::kex::Group;
use std::time::Duration;

/// Children, and IKE SAs, with two more key exchanges each.
pub(crate) fn hybrid(world: &mut World, side: usize) {
    world.change(side, |c| {
        let additional = vec![vec![Some(Group::MlKem512)], vec![Some(Group::Ecp256), None]];
        c.ike[0].additional.clone_from(&additional);
        (c.child.offers[0].groups, c.child.offers[0].additional) = (vec![Group::X25519], additional);
    });
}

fn up() -> World {
    let mut world = World::new();
    hybrid(&mut world, 0);
    hybrid(&mut world, 1);
    world.up(0);
    world.settle();
    world.agree(1);
    world
}

fn algorithms(world: &World, side: usize) -> String {
    world.hosts[side].endpoint.rows()[0].algorithms.clone().expect("keys")
}

#[test]
fn every_rekeying_has_all_key_exchanges_and_both_sides_the_same_keys() {
    let mut world = up();
    for (side, ike) in [(0, false), (1, false), (0, true), (1, true), (1, false), (0, false)] {
        let before = world.sent;
        world.hosts[side].endpoint.rekey("net", ike, world.now);
        world.settle();
        world.agree(1);
        // CREATE_CHILD_SA, two IKE_FOLLOWUP_KE and the deletion, each asked and answered.
        assert_eq!(world.sent - before, 8);
        let used = algorithms(&world, side);
        assert!(used.contains("ke1_mlkem512") && used.contains("ke2_ecp256"), "{used}");
    }
    assert_eq!(world.gaps, 0);
}

#[test]
fn rekeyings_with_several_key_exchanges_that_cross_in_any_weather_leave_one_pair_and_one_ike_sa() {
    for seed in 0..40 {
        let mut world = up();
        world.weather(seed);
        for (side, ike) in [(0, seed % 3 == 0), (1, seed % 4 == 0), ((seed % 2) as usize, false)] {
            world.hosts[side].endpoint.rekey("net", ike, world.now);
            world.run_for(Duration::from_millis(seed * 37 % 500));
        }
        world.run_for(Duration::from_secs(150));
        world.weather_clears();
        world.run_for(Duration::from_secs(150));
        world.agree(1);
        assert_eq!(world.gaps, 0, "seed {seed}");
        for host in &world.hosts {
            assert_eq!(host.endpoint.rows().len(), 1, "seed {seed}");
        }
    }
}

#[test]
fn a_connection_that_insists_on_a_key_exchange_has_no_child_on_an_ike_sa_without_it() {
    for insists in 0..2 {
        let mut world = World::new();
        for side in 0..2 {
            let mut more = (**world.hosts[side].endpoint.connections().next().unwrap()).clone();
            let nets = [vec![net("10.11.0.0/16")], vec![net("10.12.0.0/16")]];
            more.name = "more".to_owned();
            (more.child.local, more.child.remote) = (nets[side].clone(), nets[1 - side].clone());
            if side == insists {
                more.ike[0].additional = vec![vec![Some(Group::MlKem768)]];
            }
            world.hosts[side].endpoint.add(more);
        }
        world.up(0);
        world.settle();
        world.agree(1);
        let now = world.now;
        world.hosts[0].endpoint.up("more", "192.0.2.1".parse().unwrap(), now).unwrap();
        world.settle();
        let up = |event: &Event| matches!(event, Event::ChildUp(up) if up.connection.name == "more");
        for host in &world.hosts {
            assert!(!host.events.iter().any(up), "{insists}: {}", host.words());
        }
    }
}

#[test]
fn an_intermediate_exchange_whose_answer_is_lost_is_answered_again_under_the_old_keys() {
    for seed in 0..100 {
        let mut world = World::new();
        hybrid(&mut world, 0);
        hybrid(&mut world, 1);
        world.weather(seed);
        world.up(0);
        // Nobody begins anew by itself: what is lost must come by repetition.
        world.run_for(Duration::from_secs(30));
        world.weather_clears();
        world.settle();
        world.agree(1);
    }
}
