//! A broken datagram at every stage. Before a message arrives it comes cut at every octet and with flipped bits, it comes back
//! to who sent it, and everything that was said before comes again; then the message itself, and all is as if nothing had been.

use crate::strangers::state;
use crate::world::{World, net};
use crate::{certificates, eap_tls, followup, password};
use ike::event::Transmit;
use ike::message::{Exchange, Header};
use std::collections::BTreeSet;
use std::time::Duration;

/// A message as it might come: cut, or with one bit that is another.
fn broken(octets: &[u8]) -> Vec<Vec<u8>> {
    let cuts = (0..octets.len()).map(|end| octets[..end].to_vec());
    // Every bit of what says where it belongs, and one of every octet behind.
    let flips = (0..octets.len()).flat_map(|at| {
        let bits = if at < 36 { 0..8 } else { at % 8..at % 8 + 1 };
        bits.map(move |bit| {
            let mut flipped = octets.to_vec();
            flipped[at] ^= 1 << bit;
            flipped
        })
    });
    // In the first messages a flipped bit may make another one that is as good: see below.
    let (header, ..) = Header::parse(octets).unwrap();
    let clear = header.exchange == Exchange::IkeSaInit;
    cuts.chain(flips.filter(|_| !clear)).collect()
}

/// Who is besieged, and what has been said so far.
#[derive(Default)]
struct Siege {
    said: Vec<(usize, Transmit)>,
    heard: BTreeSet<Vec<u8>>,
    stages: BTreeSet<&'static str>,
}

impl Siege {
    /// Delivers what is under way until nothing is.
    fn run(&mut self, world: &mut World) {
        while let Some((side, sent)) = (0..2).find_map(|side| Some((side, world.take(side)?))) {
            // What is repeated has been through this.
            if self.heard.insert(sent.octets.clone()) {
                let (header, ..) = Header::parse(&sent.octets).unwrap();
                self.stages.insert(header.exchange.name());
                let before = [0, 1].map(|side| state(world, side));
                for octets in broken(&sent.octets) {
                    world.give(side, &sent, &octets);
                }
                let back = Transmit { local: sent.remote, remote: sent.local, octets: Vec::new() };
                world.give(1 - side, &back, &sent.octets);
                for (side, old) in &self.said {
                    world.give(*side, old, &old.octets);
                }
                let after = [0, 1].map(|side| state(world, side));
                assert_eq!(before, after, "before {} from {side} arrives", header.exchange.name());
                self.said.push((side, sent.clone()));
            }
            world.give(side, &sent, &sent.octets);
            assert!(self.said.len() < 200, "{}", world.in_flight());
        }
    }
}

type Scene = (&'static str, World, &'static [&'static str]);

/// Every way of coming up, and the exchanges it has besides those that all have.
fn scenes() -> Vec<Scene> {
    let mut hybrid = World::new();
    followup::hybrid(&mut hybrid, 0);
    followup::hybrid(&mut hybrid, 1);
    let mut childless = World::new();
    childless.change(0, |c| c.childless = true);
    // Many selectors make IKE_AUTH longer than a datagram.
    let mut pieces = certificates::world_with(|_, _| {});
    for side in 0..2 {
        let nets = |site: u8, count: u8| {
            (0..count).map(|n| net(&format!("fd00:{site}:0:{n}::/64"))).collect::<Vec<_>>()
        };
        let (local, remote) = if side == 0 { (nets(1, 32), nets(2, 1)) } else { (nets(2, 1), nets(1, 32)) };
        pieces.change(side, |c| (c.child.local, c.child.remote) = (local, remote));
    }
    vec![
        ("a secret", World::new(), &[]),
        ("several key exchanges", hybrid, &["IKE_INTERMEDIATE", "IKE_FOLLOWUP_KE"]),
        ("a password", password::world_with(|_, _| {}), &[]),
        ("certificates in pieces", pieces, &[]),
        ("EAP-TLS", eap_tls::world_and_secrets().0, &[]),
        ("a child by itself", childless, &[]),
    ]
}

#[test]
fn broken_and_repeated_datagrams_at_every_stage_change_nothing_and_the_tunnel_comes_up_all_the_same() {
    for (name, mut world, exchanges) in scenes() {
        let mut siege = Siege::default();
        for side in 0..2 {
            let mut more = (**world.hosts[side].endpoint.connections().next().unwrap()).clone();
            let nets = [vec![net("10.11.0.0/16")], vec![net("10.12.0.0/16")]];
            more.name = "more".to_owned();
            (more.child.local, more.child.remote) = (nets[side].clone(), nets[1 - side].clone());
            world.hosts[side].endpoint.add(more);
        }
        world.by_hand();
        world.change_named("net", 1, |c| c.remote_address = "192.0.2.1".parse().ok());
        let (address, now) = (world.hosts[0].address.parse().unwrap(), world.now);
        world.hosts[0].endpoint.up("net", address, now).unwrap();
        world.drain();
        siege.run(&mut world);
        world.agree(1);
        for (side, ike) in [(0, false), (1, false), (0, true), (1, true), (1, false)] {
            let before = world.hosts[0].pairs[0].inbound.spi;
            assert!(world.hosts[side].endpoint.rekey("net", ike, now), "{name}");
            world.drain();
            siege.run(&mut world);
            world.agree(1);
            assert_eq!(world.hosts[0].pairs[0].inbound.spi == before, ike, "{name}, {side}");
        }
        world.hosts[0].endpoint.up("more", address, now).unwrap();
        world.drain();
        siege.run(&mut world);
        world.agree(2);
        world.hosts[1].endpoint.down("more", now);
        world.drain();
        siege.run(&mut world);
        world.agree(1);
        for exchange in
            ["IKE_SA_INIT", "IKE_AUTH", "CREATE_CHILD_SA", "INFORMATIONAL"].iter().chain(exchanges)
        {
            assert!(siege.stages.remove(exchange), "{name} has no {exchange}");
        }
        assert!(siege.stages.is_empty(), "{name}: {:?}", siege.stages);
        world.hosts[0].endpoint.down("net", now);
        world.drain();
        siege.run(&mut world);
        world.agree(0);
    }
}

/// Nobody can tell at once that a nonce or a share in a first message is not the peer's: AUTH does, and then all begins anew.
#[test]
fn a_flipped_bit_in_a_first_message_costs_time_and_no_more() {
    for side in 0..2 {
        let mut at = 0;
        loop {
            let mut world = World::new();
            world.hosts[0].endpoint.keep("net");
            world.by_hand();
            world.up(0);
            if side == 1 {
                world.deliver(0, false);
            }
            let sent = world.take(side).expect("a first message");
            let mut flipped = sent.octets.clone();
            let Some(octet) = flipped.get_mut(at) else { break };
            *octet ^= 1 << (at % 8);
            world.give(side, &sent, &flipped);
            world.give(side, &sent, &sent.octets);
            world.by_itself();
            let up = |world: &World| world.hosts.iter().all(|host| !host.pairs.is_empty());
            world.run_until(up, Duration::from_secs(300));
            world.run_for(Duration::from_secs(60));
            assert!(up(&world), "octet {at} of {side}: {}", world.hosts[0].words());
            world.agree(1);
            let rows = world.hosts.each_ref().map(|host| host.endpoint.rows().len());
            assert_eq!(rows, [1, 1], "octet {at} of {side}");
            at += 1;
        }
        assert!(at > 200, "{at}");
    }
}
