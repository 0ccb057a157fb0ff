//! Random schedules: both sides do whatever they can, at any moment, in any weather; then both agree.
//!
//! A few hundred here; `IKE_SCHEDULES=10000` says how many, and `IKE_SCHEDULE=N` plays one again.

use crate::world::{Dice, World, net};
use ike::event::Event;
use ipsec_core::kex::Group;
use std::time::Duration;

const SHORT: u64 = 200;

/// Each of these has found a fault of ours.
const FOUND: [u64; 5] = [417, 528, 1485, 2637, 4572];
/// The same of those in which addresses change and who both are is proved anew.
const FOUND_MOVING: [u64; 10] = [117, 126, 1057, 1804, 2183, 2884, 3058, 4298, 8116, 9269];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Two connections on one IKE SA, with or without more than one key exchange.
fn scene(seed: u64, moving: bool) -> World {
    let mut world = World::new();
    if moving {
        world.is_strict();
    }
    for side in 0..2 {
        world.change(side, |c| {
            if seed.is_multiple_of(3) {
                c.child.offers[0].groups = vec![Group::X25519];
            }
            if seed.is_multiple_of(9) {
                c.ike[0].additional = vec![vec![Some(Group::MlKem512)]];
                c.child.offers[0].additional = vec![vec![Some(Group::MlKem512)]];
            }
        });
        let mut more = (**world.hosts[side].endpoint.connections().next().unwrap()).clone();
        let nets = [vec![net("10.11.0.0/16")], vec![net("10.12.0.0/16")]];
        more.name = "new".to_owned();
        (more.child.local, more.child.remote) = (nets[side].clone(), nets[1 - side].clone());
        world.hosts[side].endpoint.add(more);
    }
    world.up(0);
    world.settle();
    world.agree(1);
    world
}

/// One thing that one side may do.
fn act(world: &mut World, dice: &mut Dice, moving: bool) {
    let side = (dice.next() % 2) as usize;
    let now = world.now;
    let address = world.hosts[side].address.parse().unwrap();
    let pairs: Vec<u32> = world.hosts[side].pairs.iter().map(|pair| pair.inbound.spi).collect();
    let endpoint = &mut world.hosts[side].endpoint;
    match dice.next() % 20 {
        0..6 => drop(endpoint.rekey("net", false, now)),
        6..10 => drop(endpoint.rekey("net", true, now)),
        10..12 => drop(endpoint.rekey("new", false, now)),
        12..14 if side == 0 => drop(endpoint.up("new", address, now)),
        // Never the last pair of a connection that is to be there at the end.
        14 => {
            let spare = world.hosts[side].pairs.iter().find(|pair| pair.connection.name == "new");
            if let Some(spi) = spare.map(|pair| pair.inbound.spi).filter(|_| pairs.len() > 1) {
                world.hosts[side].endpoint.delete_child(spi, now);
            }
        }
        15 => endpoint.ask_alive(now),
        16 | 19 if moving => drop(endpoint.reauthenticate("net", now)),
        // The initiator's host has another address; were both to go at once, they would have lost each other.
        17 if moving => {
            world.moves(0, ["192.0.2.1", "203.0.113.9", "203.0.113.10"][(dice.next() % 3) as usize]);
        }
        18 => {
            if let Some(spi) = pairs.first() {
                endpoint.child_expired(*spi, false, now);
            }
        }
        _ => {}
    }
    world.drain();
}

fn play(seed: u64, moving: bool) {
    let mut world = scene(seed, moving);
    let mut dice = Dice(seed ^ 0x5eed_5eed);
    world.weather(seed);
    for _ in 0..12 {
        act(&mut world, &mut dice, moving);
        world.run_for(Duration::from_millis(dice.next() % 900));
    }
    world.run_for(Duration::from_secs(200));
    world.weather_clears();
    world.run_for(Duration::from_secs(200));
    let up = |side: usize| {
        let mut names: Vec<&str> =
            world.hosts[side].pairs.iter().map(|pair| pair.connection.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(" ")
    };
    let words = || format!("seed {seed}\n{}\n---\n{}", world.hosts[0].words(), world.hosts[1].words());
    assert_eq!(up(0), up(1), "{}", words());
    assert!(up(0).starts_with("ne"), "something is up: {}", words());
    assert_eq!(world.hosts[0].pairs.len(), world.hosts[1].pairs.len(), "{}", words());
    world.consistent();
    for host in &world.hosts {
        assert_eq!(host.endpoint.rows().len(), 1, "one IKE SA: {}", words());
        let failed = |event: &&Event| matches!(event, Event::IkeDown { connection: None, .. });
        assert!(host.events.iter().find(failed).is_none(), "{}", words());
    }
}

fn play_all(found: &[u64], moving: bool) {
    if let Some(seed) = number("IKE_SCHEDULE") {
        return play(seed, moving);
    }
    let all = 0..number("IKE_SCHEDULES").unwrap_or(SHORT);
    found.iter().copied().chain(all).for_each(|seed| play(seed, moving));
}

#[test]
fn whatever_both_sides_do_at_once_in_whatever_weather_both_agree_at_the_end() {
    play_all(&FOUND, false);
}

#[test]
fn whatever_they_do_while_addresses_change_and_peers_are_proved_anew_both_agree_at_the_end() {
    play_all(&FOUND_MOVING, true);
}

//   a                       b
//   IKE_AUTH ─────────────►
//            (lost) ◄─────── its answer
//                   ◄─────── CREATE_CHILD_SA, a new IKE SA in place of one that a does not believe in yet
//   nothing; and IKE_AUTH once more, and then it is a request like any other
#[test]
fn a_request_that_overtakes_the_responders_proof_waits_for_it() {
    let mut world = World::new();
    world.by_hand();
    world.up(0);
    world.deliver(0, false);
    world.deliver(1, false);
    world.deliver(0, false);
    let now = world.now;
    assert!(world.hosts[1].endpoint.rekey("net", true, now));
    world.drain();
    world.lose(1);
    world.deliver(1, false);
    assert_eq!(world.in_flight(), "A [] B []", "nothing is said to whom nobody knows");
    world.by_itself();
    world.run_for(Duration::from_secs(20));
    world.agree(1);
    let rekeyed = |event: &Event| matches!(event, Event::IkeRekeyed { .. });
    assert!(world.hosts.iter().all(|host| host.events.iter().any(rekeyed)));
}

/// `a` asks for a child, `b` makes it, and the answer is lost: what `b` does with that child arrives before its answer.
fn overtaken(act: impl FnOnce(&mut World)) -> World {
    let mut world = scene(1, false);
    let (now, address) = (world.now, world.hosts[0].address.parse().unwrap());
    world.by_hand();
    world.hosts[0].endpoint.up("new", address, now).unwrap();
    world.drain();
    world.deliver(0, false);
    act(&mut world);
    world.drain();
    world.lose(1);
    world.deliver(1, false);
    world.by_itself();
    world.run_for(Duration::from_secs(150));
    world
}

//   a                       b
//   CREATE_CHILD_SA ──────►
//            (lost) ◄─────── its answer
//                   ◄─────── Delete, of a child that a does not have yet
#[test]
fn a_child_that_is_deleted_before_its_answer_arrives_is_not_kept() {
    let world = overtaken(|world| {
        let new = world.hosts[1].pairs.iter().find(|pair| pair.connection.name == "new").unwrap();
        let (spi, now) = (new.inbound.spi, world.now);
        world.hosts[1].endpoint.delete_child(spi, now);
    });
    world.agree(1);
    world.consistent();
}

//   a                       b
//   CREATE_CHILD_SA ──────►
//            (lost) ◄─────── its answer
//                   ◄─────── CREATE_CHILD_SA, REKEY_SA of a child that a does not have yet
//   TEMPORARY_FAILURE ────►  and not CHILD_SA_NOT_FOUND, or b would forget what a is about to have
#[test]
fn a_child_that_is_rekeyed_before_its_answer_arrives_stays_on_both_sides() {
    let world = overtaken(|world| {
        let now = world.now;
        assert!(world.hosts[1].endpoint.rekey("new", false, now));
    });
    world.agree(2);
    world.consistent();
}
