//! Transport mode (RFC 7296 §1.3.1), through a NAT too (§2.23.1).

use crate::world::World;
use ike::connection::{Mode, Upper};
use ike::event::{ChildUp, Event};
use ike::message::TrafficSelector;
use std::time::Duration;

/// Between the hosts themselves; `modes` of west and east.
fn scene(modes: [Mode; 2], upper: Upper) -> World {
    let mut world = World::new();
    for (side, mode) in modes.into_iter().enumerate() {
        let upper =
            if side == 0 { upper } else { Upper { local: upper.remote, remote: upper.local, ..upper } };
        world.change(side, |c| {
            (c.child.mode, c.child.local, c.child.remote) = (mode, vec![], vec![]);
            c.child.upper = upper;
        });
    }
    world
}

const BOTH: [Mode; 2] = [Mode::Transport; 2];

/// A protocol, and a port of east.
fn upper(protocol: u8, port: u16) -> Upper {
    let ports = host("192.0.2.2", (protocol, port))[0].ports;
    Upper { protocol, remote: ports, ..Upper::default() }
}

fn host(address: &str, upper: (u8, u16)) -> Vec<TrafficSelector> {
    vec![TrafficSelector::of(format!("{address}/32").parse().unwrap(), upper.0, upper.1)]
}

/// The newest pair of a side is in transport mode, between these two.
fn is_between(world: &World, side: usize, local: (&str, u16), remote: (&str, u16), protocol: u8) {
    let pair: &ChildUp = world.hosts[side].pairs.last().unwrap();
    assert_eq!(pair.mode, Mode::Transport);
    assert_eq!(pair.local_selectors, host(local.0, (protocol, local.1)), "ours of {side}");
    assert_eq!(pair.remote_selectors, host(remote.0, (protocol, remote.1)), "theirs of {side}");
    assert_eq!((pair.local.ip(), pair.remote.ip()), (local.0.parse().unwrap(), remote.0.parse().unwrap()));
}

fn is_rekeyed_by_both(world: &mut World, check: impl Fn(&World)) {
    for side in 0..2 {
        let before = world.hosts[0].last_spi();
        assert!(world.hosts[side].endpoint.rekey("net", false, world.now));
        world.settle();
        assert_eq!(world.hosts.each_ref().map(|host| host.pairs.len()), [1, 1]);
        assert_ne!(world.hosts[0].last_spi(), before);
        check(world);
    }
}

#[test]
fn it_is_agreed_with_protocol_and_ports_and_stays_so_when_it_is_rekeyed() {
    for (protocol, port) in [(0, 0), (6, 443)] {
        let upper = upper(protocol, port);
        let mut world = scene(BOTH, upper);
        world.up(0);
        world.settle();
        let check = |world: &World| {
            world.agree(1);
            is_between(world, 0, ("192.0.2.1", 0), ("192.0.2.2", port), protocol);
            is_between(world, 1, ("192.0.2.2", port), ("192.0.2.1", 0), protocol);
        };
        check(&world);
        is_rekeyed_by_both(&mut world, check);
    }
}

#[test]
fn who_insists_on_it_has_no_tunnel_and_says_what_to_compare() {
    // The responder grants a tunnel: what it has made is taken away again.
    let mut world = scene([Mode::Transport, Mode::Tunnel], Upper::default());
    world.up(0);
    world.settle();
    assert!(world.hosts[0].words().contains("type=transport"), "{}", world.hosts[0].words());
    assert!(world.hosts.iter().all(|host| host.pairs.is_empty()));
    assert!(world.hosts.iter().all(|host| host.endpoint.rows().len() == 1), "the IKE SA stands");
    // The initiator wants one: it is refused.
    let mut world = scene([Mode::Tunnel, Mode::Transport], Upper::default());
    world.up(0);
    world.settle();
    assert!(world.hosts[1].words().contains("type=transport"), "{}", world.hosts[1].words());
    assert!(world.hosts.iter().all(|host| host.pairs.is_empty()));
}

#[test]
fn behind_a_nat_each_side_means_the_addresses_it_sees() {
    let mut world = scene(BOTH, upper(17, 53));
    world.nat("198.51.100.7:31000");
    world.up(0);
    world.settle();
    let check = |world: &World| {
        is_between(world, 0, ("192.0.2.1", 0), ("192.0.2.2", 53), 17);
        is_between(world, 1, ("192.0.2.2", 53), ("198.51.100.7", 0), 17);
        assert!(world.hosts.iter().all(|host| host.pairs.iter().all(|pair| pair.encapsulate)));
    };
    check(&world);
    is_rekeyed_by_both(&mut world, check);
    // The NAT has another port for it: the SAs go on there.
    let spis = world.hosts.each_ref().map(|host| host.last_spi());
    world.nat("198.51.100.7:32000");
    world.hosts[0].endpoint.ask_alive(world.now);
    world.settle();
    assert_eq!(world.hosts.each_ref().map(|host| host.last_spi()), spis);
    assert_eq!(world.hosts[1].pairs[0].remote.port(), 32000);
    check(&world);
}

#[test]
fn another_address_is_another_pair_of_sas() {
    let mut world = scene(BOTH, Upper::default());
    world.is_strict();
    world.up(0);
    world.settle();
    world.agree(1);
    world.moves(0, "203.0.113.9");
    world.run_for(Duration::from_secs(60));
    world.agree(1);
    is_between(&world, 0, ("203.0.113.9", 0), ("192.0.2.2", 0), 0);
    is_between(&world, 1, ("192.0.2.2", 0), ("203.0.113.9", 0), 0);
    let moved = |event: &Event| matches!(event, Event::ChildMoved { .. });
    assert!(!world.hosts.iter().any(|host| host.events.iter().any(moved)), "its selectors would be wrong");
}
