//! What was recorded happens again, octet for octet.

use crate::world::{Dice, Fate, World, psk};
use ike::tape::{Divergence, Entry, Tape, replay};
use ike::{Endpoint, Random};
use ipsec_core::kex::Group;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<String>>);

impl Tape for Lines {
    fn take(&mut self, entry: &Entry) {
        let mut text = self.0.lock().unwrap();
        text.push_str(&entry.to_string());
        text.push('\n');
    }
}

/// Both sides recorded.
fn taped(seed: u64) -> (World, [Lines; 2]) {
    let mut world = World::new();
    let tapes = [Lines::default(), Lines::default()];
    for (side, tape) in tapes.iter().enumerate() {
        let known: Vec<_> = world.hosts[side].endpoint.connections().map(|c| (**c).clone()).collect();
        let random: Box<dyn Random> = Box::new(Dice(seed + side as u64));
        let mut endpoint = Endpoint::recorded(random, world.now, Box::new(tape.clone()));
        known.into_iter().for_each(|connection| endpoint.add(connection));
        endpoint.set_secrets(psk("the secret of both"));
        world.hosts[side].endpoint = endpoint;
        world.change(side, |c| {
            c.ike[0].additional = vec![vec![Some(Group::MlKem768)]];
            c.child.offers[0].groups = vec![Group::X25519];
        });
    }
    (world, tapes)
}

/// The same, through loss, rekeyings, a move and the end.
fn recorded(seed: u64) -> (World, [Lines; 2]) {
    let (mut world, tapes) = taped(seed);
    world.is_strict();
    world.weather(seed);
    world.up(0);
    world.run_for(Duration::from_secs(40));
    world.hosts[1].endpoint.rekey("net", false, world.now);
    world.run_for(Duration::from_secs(20));
    world.moves(0, "203.0.113.9");
    world.run_for(Duration::from_secs(20));
    world.hosts[0].endpoint.rekey("net", true, world.now);
    world.run_for(Duration::from_secs(30));
    // What a host does besides: it asks, takes away one child, and in the end goes itself.
    world.hosts[0].endpoint.ask_alive(world.now);
    world.run_for(Duration::from_secs(5));
    let (now, spi_in) = (world.now, world.hosts[1].pairs[0].inbound.spi);
    world.hosts[1].endpoint.delete_child(spi_in, now);
    world.run_for(Duration::from_secs(10));
    world.hosts[0].endpoint.down("net", world.now);
    world.hosts[1].endpoint.shutdown(world.now);
    world.run_for(Duration::from_secs(30));
    world.fate(Fate::Lost);
    (world, tapes)
}

fn again(world: &World, side: usize, text: &str) -> Result<usize, Box<Divergence>> {
    let known: Vec<_> = world.hosts[side].endpoint.connections().map(|c| (**c).clone()).collect();
    replay(text, |endpoint| {
        known.into_iter().for_each(|connection| endpoint.add(connection));
        endpoint.set_secrets(psk("the secret of both"));
    })
}

#[test]
fn a_record_is_replayed_to_the_same_octets_and_one_changed_bit_is_noticed() {
    for seed in 0..5 {
        let (world, tapes) = recorded(seed);
        for (side, tape) in tapes.iter().enumerate() {
            let again = |text: &str| again(&world, side, text);
            let text = tape.0.lock().unwrap().clone();
            let same = again(&text).unwrap_or_else(|at| panic!("seed {seed} side {side}: {at:?}"));
            let sent = text.lines().filter(|line| line.starts_with("transmit")).count();
            assert!(same == sent && sent >= 12, "{same} of {sent}");
            // Every line is read as it was written, but for the keys, which nobody needs again.
            for line in text.lines().filter(|line| !line.starts_with("keys") && !line.contains(" offered ")) {
                assert_eq!(Entry::parse(line).expect(line).to_string(), line);
            }
            let changed =
                text.replacen("accepted .", "accepted .ff", 1).replacen("finished .", "finished .ff", 1);
            assert!(again(&changed).is_err(), "another secret, other octets");
        }
    }
}

/// TLS draws randomness of its own: what it said is in the record, and it is not done again.
#[test]
fn a_record_of_eap_tls_is_replayed_as_well() {
    let (mut world, secrets) = crate::eap_tls::world_and_secrets();
    let epoch = Duration::from_secs(crate::pki::NOW - world.now.as_secs());
    let tapes = [Lines::default(), Lines::default()];
    for (side, tape) in tapes.iter().enumerate() {
        let known: Vec<_> = world.hosts[side].endpoint.connections().map(|c| (**c).clone()).collect();
        let random: Box<dyn Random> = Box::new(Dice(side as u64));
        let mut endpoint = Endpoint::recorded(random, world.now, Box::new(tape.clone()));
        known.into_iter().for_each(|connection| endpoint.add(connection));
        endpoint.set_secrets(secrets[side].clone());
        endpoint.set_epoch(epoch);
        world.hosts[side].endpoint = endpoint;
    }
    world.up(0);
    world.settle();
    world.agree(1);
    world.fate(Fate::Lost);
    for (side, tape) in tapes.iter().enumerate() {
        let known: Vec<_> = world.hosts[side].endpoint.connections().map(|c| (**c).clone()).collect();
        let again = |text: &str| {
            replay(text, |endpoint| {
                known.iter().for_each(|connection| endpoint.add(connection.clone()));
                endpoint.set_secrets(secrets[side].clone());
                endpoint.set_epoch(epoch);
            })
        };
        let text = tape.0.lock().unwrap().clone();
        let same = again(&text).unwrap_or_else(|at| panic!("side {side}: {at:?}"));
        assert!(same >= 6, "{same}");
        let mut turns = text.lines().filter(|line| line.contains(" tls "));
        turns.clone().for_each(|line| assert_eq!(Entry::parse(line).expect(line).to_string(), line));
        // The last of them has the key, and with another AUTH is another.
        let last = turns.next_back().expect("a turn of TLS");
        assert!(!last.ends_with(" more"), "{last}");
        let other = last.replace(":.", ":.ff");
        assert!(again(&text.replace(last, &other)).is_err(), "another key, other octets");
    }
}

#[test]
fn a_record_has_the_keys_of_each_ike_sa() {
    let (_, tapes) = recorded(1);
    let text = tapes[0].0.lock().unwrap().clone();
    // IKE_SA_INIT, IKE_INTERMEDIATE, and the rekeyed one.
    assert_eq!(text.lines().filter(|line| line.starts_with("keys ")).count(), 3);
}

/// What tells of a NAT's new mapping may be a packet of a child, of which the engine sees nothing.
#[test]
fn a_mapping_that_the_data_plane_has_told_of_is_in_the_record() {
    let (mut world, tapes) = taped(9);
    world.nat("198.51.100.7:31000");
    world.up(0);
    world.settle();
    world.agree(1);
    let (now, spi_in) = (world.now, world.hosts[1].pairs[0].inbound.spi);
    world.nat("198.51.100.7:32000");
    world.hosts[1].endpoint.mapping(spi_in, "198.51.100.7:32000".parse().unwrap(), now);
    assert!(world.hosts[1].endpoint.rekey("net", false, now));
    world.settle();
    world.agree(1);
    let text = tapes[1].0.lock().unwrap().clone();
    let there =
        text.lines().filter(|line| line.starts_with("transmit") && line.contains(" 198.51.100.7:32000 "));
    assert!(there.count() >= 2);
    let sent = text.lines().filter(|line| line.starts_with("transmit")).count();
    assert_eq!(again(&world, 1, &text), Ok(sent));
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("mapping")).collect();
    assert!(again(&world, 1, &without.join("\n")).is_err());
}
