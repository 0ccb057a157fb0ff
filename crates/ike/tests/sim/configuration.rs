//! Addresses, name servers and domains that a gateway gives to a road warrior (RFC 7296 §2.19, RFC 8598).

use crate::world::{World, net};
use ike::connection::{Provision, Request};
use ike::event::Event;
use std::net::IpAddr;
use std::time::Duration;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn provision(pool: (&str, &str)) -> Provision {
    Provision {
        pools: vec![(ip(pool.0), ip(pool.1))],
        dns: vec![ip("10.2.0.53")],
        domains: vec!["corp.example.org".to_owned()],
        subnets: vec!["10.2.0.0/16".parse().unwrap()],
    }
}

const V4: Request = Request { ipv4: true, ipv6: false };

/// West asks, east gives from the pool.
fn road(pool: (&str, &str)) -> World {
    let mut world = World::new();
    world.change(0, |c| {
        c.request = Some(V4);
        c.child.local = vec![];
    });
    world.change(1, |c| {
        c.provision = Some(provision(pool));
        c.child.remote = vec![];
    });
    world
}

/// What stands on the west's side of its only pair.
fn ours(world: &World) -> String {
    let selectors = &world.hosts[0].pairs.last().expect("a pair").local_selectors;
    selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn who_asks_is_given_an_address_name_servers_and_their_domains() {
    let mut world = road(("10.9.0.10", "10.9.0.20"));
    world.up(0);
    world.settle();
    world.agree(1);
    assert_eq!(ours(&world), "10.9.0.10/32");
    let configured = world.hosts[0].pairs[0].configured.clone().expect("what it was given");
    assert_eq!(configured.addresses, [ip("10.9.0.10")]);
    assert_eq!(configured.dns, [ip("10.2.0.53")]);
    assert_eq!(configured.domains, ["corp.example.org"]);
    assert_eq!(configured.subnets, ["10.2.0.0/16".parse().unwrap()]);
    assert_eq!(world.hosts[1].endpoint.rows()[0].given, [ip("10.9.0.10")]);
    // Every successor, of either side, is for the same address.
    for (side, ike) in [(0, false), (1, false), (1, true), (0, true), (1, false)] {
        world.hosts[side].endpoint.rekey("net", ike, world.now);
        world.settle();
        world.agree(1);
        assert_eq!(ours(&world), "10.9.0.10/32");
        assert_eq!(world.hosts[1].endpoint.rows()[0].given, [ip("10.9.0.10")]);
    }
}

#[test]
fn a_peer_that_comes_back_has_its_address_again_after_a_restart_of_either_side() {
    let mut world = road(("10.9.0.10", "10.9.0.20"));
    world.up(0);
    world.settle();
    world.hosts[0].endpoint.down("net", world.now);
    world.settle();
    // Somebody else has been there meanwhile; who it was is what the gateway has written down.
    let leased = |event: &Event| match event {
        Event::Leased { address, holder } => Some((*address, holder.clone())),
        _ => None,
    };
    let noted: Vec<_> = world.hosts[1].events.iter().filter_map(leased).collect();
    assert_eq!(noted.len(), 1);
    let settings = world.hosts[1].endpoint.connections().next().unwrap().clone();
    world.forget(1);
    world.change(1, |c| *c = (*settings).clone());
    world.hosts[1].endpoint.restore_lease(ip("10.9.0.11"), &noted[0].1);
    world.hosts[1].endpoint.restore_lease(ip("10.9.0.10"), b"another");
    world.up(0);
    world.settle();
    world.agree(1);
    assert_eq!(ours(&world), "10.9.0.11/32");
    // It loses its memory and begins anew while its old IKE SA is still there.
    let settings = world.hosts[0].endpoint.connections().next().unwrap().clone();
    world.forget(0);
    world.change(0, |c| *c = (*settings).clone());
    world.up(0);
    world.settle();
    assert_eq!(ours(&world), "10.9.0.11/32");
    assert_eq!(world.hosts[1].endpoint.rows().len(), 1);
}

#[test]
fn a_pool_that_is_empty_and_a_peer_that_does_not_ask_are_told_so_in_words() {
    let mut world = road(("10.9.0.10", "10.9.0.10"));
    world.hosts[1].endpoint.restore_lease(ip("10.9.0.10"), b"somebody who is away");
    world.up(0);
    world.settle();
    world.agree(1);
    // Of the other family there is none.
    let mut world = road(("2001:db8::1", "2001:db8::9"));
    world.up(0);
    world.settle();
    world.agree(0);
    assert!(world.hosts[0].words().contains("INTERNAL_ADDRESS_FAILURE"), "{}", world.hosts[0].words());
    assert!(world.hosts[1].words().contains("2001:db8::1-2001:db8::9"), "{}", world.hosts[1].words());
    // The IKE SA stands all the same (RFC 7296 §3.15.4).
    assert_eq!(world.hosts[0].endpoint.rows()[0].peer.as_deref(), Some("@east"));
    let mut world = road(("10.9.0.10", "10.9.0.20"));
    world.change(0, |c| {
        c.request = None;
        c.child.local = vec![net("10.1.0.0/16")];
    });
    world.up(0);
    world.settle();
    world.agree(0);
    assert!(world.hosts[0].words().contains("leftsourceip=%config"), "{}", world.hosts[0].words());
}

#[test]
fn a_peer_gets_nothing_but_the_address_it_was_given() {
    // It does not ask, and then wants a child of its own choice all the same.
    let mut world = road(("10.9.0.10", "10.9.0.20"));
    world.change(0, |c| {
        c.request = None;
        c.child.local = vec![net("10.9.0.15/32")];
    });
    world.up(0);
    world.settle();
    world.up(0);
    world.settle();
    world.agree(0);
    // It was given one and asks for a child with another.
    let mut world = road(("10.9.0.10", "10.9.0.20"));
    world.up(0);
    world.settle();
    world.agree(1);
    let mut second = (**world.hosts[0].endpoint.connections().next().unwrap()).clone();
    second.name = "second".to_owned();
    (second.request, second.child.local) = (None, vec![net("10.9.0.15/32")]);
    let now = world.now;
    world.hosts[0].endpoint.add(second);
    world.hosts[0].endpoint.up("second", ip("192.0.2.1"), now).unwrap();
    world.settle();
    world.agree(1);
    assert!(world.hosts[0].words().contains("TS_UNACCEPTABLE"), "{}", world.hosts[0].words());
}

#[test]
fn a_gateway_that_gives_no_address_is_not_served() {
    let mut world = road(("10.9.0.10", "10.9.0.20"));
    // East has no pool, and takes whatever network the west has.
    world.change(1, |c| {
        c.provision = None;
        c.child.remote = vec![net("0.0.0.0/0")];
    });
    world.up(0);
    world.run_for(Duration::from_secs(30));
    assert!(world.hosts[0].pairs.is_empty(), "what east allows is not what west would protect");
    assert!(world.hosts[0].words().contains("the peer gave no address"), "{}", world.hosts[0].words());
    assert!(world.hosts[1].pairs.is_empty(), "and east is told to take it away");
}

#[test]
fn addresses_of_both_families_are_given_and_each_child_has_its_own() {
    let mut world = road(("10.9.0.10", "10.9.0.20"));
    world.change(0, |c| c.request = Some(Request { ipv4: true, ipv6: true }));
    world.change(1, |c| {
        c.provision.as_mut().unwrap().pools.push((ip("2001:db8:9::10"), ip("2001:db8:9::20")));
    });
    let mut six = (**world.hosts[0].endpoint.connections().next().unwrap()).clone();
    (six.name, six.child.remote) = ("six".to_owned(), vec![net("2001:db8:2::/64")]);
    let mut there = (**world.hosts[1].endpoint.connections().next().unwrap()).clone();
    (there.name, there.child.local) = ("six".to_owned(), vec![net("2001:db8:2::/64")]);
    world.hosts[0].endpoint.add(six);
    world.hosts[1].endpoint.add(there);
    world.up(0);
    world.settle();
    assert_eq!(ours(&world), "10.9.0.10/32");
    let now = world.now;
    world.hosts[0].endpoint.up("six", ip("192.0.2.1"), now).unwrap();
    world.settle();
    world.agree(2);
    assert_eq!(ours(&world), "2001:db8:9::10/128");
    assert_eq!(world.hosts[0].endpoint.rows().len(), 1, "on one IKE SA");
}
