//! What strangers can have the engine hold, compute and say, and for how long; and what a peer can that has proved who it is.

use crate::insider::Insider;
use crate::outsider::{Outsider, first};
use crate::world::{Fate, World};
use ike::connection::{Psk, Secrets};
use ike::event::Event;
use ike::identity::Id;
use ike::message::{Exchange, Flags, Header, IkeSpi, Message, Notify, NotifyKind, Payload};
use ike::proposal::Protocol;
use ipsec_core::Secret;
use ipsec_core::algorithm::Encryption;
use ipsec_core::kex::Group;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

pub(crate) fn from(n: u32) -> SocketAddr {
    SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0b00_0000 + n).into(), 500)
}

/// A proof that is none.
fn lie() -> Vec<Payload> {
    vec![Payload::IdI(Id::parse("@west").unwrap().body()), Payload::Auth { method: 2, data: vec![0; 32] }]
}

#[test]
fn who_writes_a_peers_address_as_the_sender_does_not_use_up_what_that_peer_may_have() {
    let mut world = World::new();
    for n in 0..100 {
        let octets = first(&world, 0xbad0 + n, None, vec![]);
        world.hears("192.0.2.1:500".parse().unwrap(), &octets);
    }
    world.up(0);
    world.settle();
    world.agree(1);
}

#[test]
fn whoever_has_an_ipv6_network_is_one_source_for_the_engine_too() {
    let mut world = World::new();
    world.change(1, |c| c.local_address = None);
    let answered = (1..=200_u16)
        .filter(|n| {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, *n);
            Outsider::begin(&mut world, SocketAddr::new(address.into(), 500), u64::from(*n)).is_some()
        })
        .count();
    assert!((4..=64).contains(&answered), "{answered}");
    // Another network is another source.
    let other: IpAddr = "2001:db8:9::1".parse().unwrap();
    assert!(Outsider::begin(&mut world, SocketAddr::new(other, 500), 7).is_some());
}

#[test]
fn who_was_refused_counts_for_as_long_as_that_is_remembered() {
    let mut world = World::new();
    let mut refused = 0;
    for n in 0..200 {
        let Some(mut outsider) = Outsider::begin(&mut world, from(1), 1 + n) else { continue };
        let answer = outsider.say(&mut world, Exchange::IkeAuth, lie());
        assert!(
            matches!(&answer[0].payloads[0], Payload::Notify(notify) if notify.kind == NotifyKind::AuthenticationFailed)
        );
        refused += 1;
    }
    assert_eq!(refused, 64);
    assert!(world.hosts[1].endpoint.counters().flooded > 0);
    // Whoever made a mistake is heard again.
    world.run_for(Duration::from_secs(11));
    assert!(Outsider::begin(&mut world, from(1), 1000).is_some());
}

#[test]
fn a_first_message_of_any_length_is_not_kept() {
    let mut world = World::new();
    let long = |octets: usize| vec![Payload::Vendor(vec![0; octets])];
    let octets = first(&world, 1, None, long(4000));
    assert!(!world.hears(from(1), &octets).is_empty());
    for octets in [8192, 16_000] {
        let octets = first(&world, 2, None, long(octets));
        assert!(world.hears(from(2), &octets).is_empty());
    }
    assert_eq!(world.hosts[1].endpoint.counters().malformed, 2);
}

#[test]
fn key_exchanges_of_strangers_wait_in_a_bounded_queue_behind_those_of_peers_and_none_is_done_for_nobody() {
    let mut world = World::new();
    world.up(0);
    world.settle();
    world.change(1, |c| c.child.offers[0].groups = c.ike[0].groups.clone());
    let (to, now) = ("192.0.2.2:500".parse().unwrap(), world.now);
    // Thirty without cookies: nobody has to do their key exchanges yet.
    for n in 0..30 {
        let octets = first(&world, 1 + n, None, vec![]);
        world.hosts[1].endpoint.datagram(to, from(n as u32), &octets, now);
    }
    let east = &mut world.hosts[1].endpoint;
    assert!(east.rekey("net", true, now));
    let mut taken = Vec::new();
    while let Some((id, job)) = east.job() {
        taken.push((id, job));
    }
    assert!(matches!(taken[0].1, ike::job::Job::Offer(_)), "a peer goes first: {:?}", taken[0].1);
    assert_eq!(taken.len(), 17, "strangers have half of what a host can be busy with");
    // The host is slow, and meanwhile they are forgotten; others come, and there is no more than it can be busy with.
    let later = now.after(Duration::from_secs(31));
    east.timeout(later);
    for n in 0..30 {
        let octets = first(&world, 1 + n, None, vec![]);
        world.hosts[1].endpoint.datagram(to, from(1000 + n as u32), &octets, later);
    }
    let east = &mut world.hosts[1].endpoint;
    let more = std::iter::from_fn(|| east.job()).count();
    assert_eq!(more, 0, "the host has what it can be busy with for strangers");
    east.timeout(later.after(Duration::from_secs(31)));
    for (id, job) in taken {
        if let Ok(answer) = job.run() {
            east.answer(id, answer, later.after(Duration::from_secs(31)));
        }
    }
    let left = std::iter::from_fn(|| east.job()).filter(|(_, job)| matches!(job, ike::job::Job::Accept(..)));
    assert_eq!(left.count(), 0, "those that waited are forgotten with whom they were for");
}

#[test]
fn strangers_do_not_choose_how_much_is_said_of_them() {
    let mut world = World::new();
    let said = |world: &World| {
        world.hosts[1].events.iter().filter(|event| matches!(event, Event::Progress { .. })).count()
    };
    // Each of them offers nothing that is wanted, in as many words as a message holds.
    let offer =
        ike::proposal::Offer { encryption: vec![(Encryption::AesCbc, 128); 120], ..Default::default() };
    let unwanted = |n: u64| {
        let flags = Flags { initiator: true, response: false };
        let header =
            Header { spi_i: IkeSpi(n), spi_r: IkeSpi(0), exchange: Exchange::IkeSaInit, flags, id: 0 };
        let proposals = (1..=5).map(|number| offer.proposal(number, Protocol::Ike, vec![])).collect();
        let ke = Payload::Ke { group: 31, data: vec![9; 32] };
        Message { header, payloads: vec![Payload::Sa(proposals), ke, Payload::Nonce(vec![7; 32])] }.emit()
    };
    for n in 0..1000 {
        world.hears(from(n), &unwanted(1 + u64::from(n)));
    }
    assert_eq!(said(&world), 64);
    assert_eq!(world.hosts[1].endpoint.counters().unsaid, 1000 - 64);
    let longest = world.hosts[1].words().lines().map(str::len).max().unwrap();
    assert!(longest < 1500, "{longest}");
    // By and by there is more, and a peer is spoken of whatever strangers do.
    world.run_for(Duration::from_secs(10));
    for n in 0..1000 {
        world.hears(from(n), &unwanted(1 + u64::from(n)));
    }
    assert_eq!(said(&world), 74);
    world.up(0);
    world.settle();
    world.agree(1);
}

#[test]
fn a_peer_that_is_gone_is_noticed_although_somebody_plays_what_it_once_said() {
    let mut world = World::new();
    world.up(0);
    world.settle();
    let now = world.now;
    // What the east says of itself, and in answer to questions.
    for side in 0..2 {
        world.hosts[side].endpoint.ask_alive(now);
        world.settle();
    }
    world.fate(Fate::Lost);
    for _ in 0..180 {
        world.replay_from("192.0.2.2:500");
        world.run_for(Duration::from_secs(1));
    }
    assert!(world.hosts[0].endpoint.rows().is_empty(), "for three minutes nobody has been there");
}

#[test]
fn an_answer_goes_to_who_asked_whatever_is_played_meanwhile_from_elsewhere() {
    let mut world = World::new();
    world.up(0);
    world.settle();
    let now = world.now;
    world.record();
    world.hosts[0].endpoint.ask_alive(now);
    world.settle();
    let old = world.recorded(1);
    // A request that takes the east a while.
    world.by_hand();
    world.hosts[0].endpoint.rekey("net", true, now);
    world.drain();
    let request = world.oldest(0).to_vec();
    let (to, west, elsewhere) =
        ("192.0.2.2:500".parse().unwrap(), "192.0.2.1:500".parse().unwrap(), from(66));
    let east = &mut world.hosts[1].endpoint;
    east.datagram(to, west, &request, now);
    let (id, job) = east.job().expect("a key exchange");
    for octets in old.iter().chain([&request]) {
        east.datagram(to, elsewhere, octets, now);
    }
    while east.transmit().is_some() {}
    east.answer(id, job.run().unwrap(), now);
    while east.event().is_some() {}
    assert_eq!(east.transmit().expect("an answer").remote.ip(), west.ip());
}

#[test]
fn fragments_of_old_messages_do_not_drive_out_those_of_a_new_one() {
    let mut world = World::new();
    for side in 0..2 {
        world.change(side, |c| c.child.offers[0].groups = vec![Group::MlKem1024]);
    }
    world.up(0);
    world.settle();
    world.agree(1);
    let old = |world: &World, to: usize| -> Vec<Vec<u8>> {
        world.recorded(to).into_iter().filter(|octets| octets[16] == 53).collect()
    };
    // A rekeying by ML-KEM-1024 comes in two fragments each way.
    world.record();
    world.hosts[0].endpoint.rekey("net", false, world.now);
    world.settle();
    world.agree(1);
    let (mut to_east, mut to_west) = (old(&world, 1), old(&world, 0));
    assert!(to_east.len() > 1 && to_west.len() > 1, "{} {}", to_east.len(), to_west.len());
    to_east.truncate(1);
    to_west.truncate(1);
    let before = world.hosts[0].pairs[0].inbound.spi;
    world.by_hand();
    world.hosts[0].endpoint.rekey("net", false, world.now);
    world.drain();
    for _ in 0..12 {
        for side in 0..2 {
            while !world.oldest(side).is_empty() {
                world.deliver(side, false);
                let old = if side == 0 { &to_east } else { &to_west };
                world.inject_without_answer(1 - side, &old[0]);
            }
        }
    }
    assert_ne!(world.hosts[0].pairs[0].inbound.spi, before, "the pair was rekeyed");
    world.agree(1);
}

#[test]
fn a_refused_key_exchange_takes_no_room() {
    let mut world = World::new();
    let octets = first(&world, 1, None, vec![]);
    let mut message = Message::parse(&octets).unwrap();
    for payload in &mut message.payloads {
        if let Payload::Ke { data, .. } = payload {
            data.fill(0);
        }
    }
    let answer = world.hears(from(1), &message.emit());
    assert_eq!(answer.len(), 1);
    assert!(world.hosts[1].endpoint.rows().is_empty());
}

#[test]
fn a_victim_is_not_flooded_by_who_comes_back_now_and_then() {
    let mut world = World::new();
    world.is_strict();
    world.up(0);
    world.settle();
    let victim = "203.0.113.66";
    let there = |world: &World| {
        world.hosts[1].pairs.last().is_some_and(|pair| pair.remote.ip().to_string() == victim)
    };
    let mut flooded = Duration::ZERO;
    for _ in 0..20 {
        // It says it is there, and is back in time to answer what it was asked.
        world.lies(0, victim);
        for _ in 0..5 {
            world.run_for(Duration::from_secs(1));
            flooded += if there(&world) { Duration::from_secs(1) } else { Duration::ZERO };
        }
        world.lies(0, "192.0.2.1");
        world.run_for(Duration::from_secs(3));
        assert!(!there(&world));
    }
    assert!(flooded <= Duration::from_secs(10), "{flooded:?}");
}

fn refused(answers: &[Message]) -> Option<NotifyKind> {
    answers.iter().flat_map(|message| &message.payloads).find_map(|payload| match payload {
        Payload::Notify(notify) if notify.kind.is_error() => Some(notify.kind),
        _ => None,
    })
}

#[test]
fn a_peer_has_as_many_children_as_an_honest_one_could_need() {
    let mut world = World::new();
    let mut west = Outsider::begin(&mut world, "192.0.2.1:500".parse().unwrap(), 7).unwrap();
    west.prove(&mut world, "@west", vec![]);
    assert_eq!(world.hosts[1].pairs.len(), 1);
    let refused =
        (0..1000).filter_map(|n| refused(&west.child(&mut world, 0x10_0000 + n))).collect::<Vec<_>>();
    assert_eq!(world.hosts[1].pairs.len(), 256);
    assert!(refused.len() == 1000 - 255 && refused.iter().all(|kind| *kind == NotifyKind::NoAdditionalSas));
    assert_eq!(world.hosts[1].endpoint.rows().len(), 1, "what it has stays");
}

#[test]
fn a_peer_that_rekeys_without_end_has_few_ike_sas() {
    let mut world = World::new();
    let mut west = Outsider::begin(&mut world, "192.0.2.1:500".parse().unwrap(), 7).unwrap();
    west.prove(&mut world, "@west", vec![]);
    for n in 0..200 {
        if let Some(next) = west.successor(&mut world, 100 + n) {
            west = next;
        }
    }
    let rows = world.hosts[1].endpoint.rows().len();
    assert!((8..=17).contains(&rows), "{rows}");
    // It is only asked to wait.
    for _ in 0..7 {
        world.run_for(Duration::from_secs(18));
        west.say(&mut world, Exchange::Informational, vec![]);
    }
    assert!(west.successor(&mut world, 1000).is_some());
}

/// Two connections for the same user: by a password or a certificate, and by a secret that many know.
#[test]
fn who_only_knows_the_secret_of_a_group_supersedes_nobody_who_has_proved_more() {
    for one_connection in [false, true] {
        supersedes_nobody(one_connection);
    }
}

/// Users and the group have a connection each, or both are of one.
fn supersedes_nobody(one_connection: bool) {
    let (mut world, secrets) = crate::eap_tls::world_and_secrets();
    if one_connection {
        world.change(1, |c| c.remote_auth.shared_key = true);
    }
    world.up(0);
    world.settle();
    world.agree(1);
    let alice = world.hosts[1].endpoint.rows()[0].peer.clone();
    if !one_connection {
        let mut group = (**world.hosts[1].endpoint.connections().next().unwrap()).clone();
        group.name = "group".to_owned();
        (group.local_auth, group.remote_auth) = Default::default();
        world.hosts[1].endpoint.add(group);
    }
    let psk = Psk { ids: vec![], key: Secret::from(&b"the secret of both"[..]) };
    world.hosts[1].endpoint.set_secrets(Secrets { psks: vec![psk], ..secrets[1].clone() });
    let mut mallory = Outsider::begin(&mut world, from(66), 7).unwrap();
    let initial = Payload::Notify(Notify::new(NotifyKind::InitialContact, vec![]));
    let answers = mallory.prove(&mut world, "alice@example.org", vec![initial]);
    assert_eq!(refused(&answers), None);
    let rows = world.hosts[1].endpoint.rows();
    assert!(rows.len() == 2 && rows.iter().all(|row| row.peer == alice), "{rows:#?}");
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.hosts[1].pairs.len(), 2, "Alice still has hers");
}

#[test]
fn a_peer_that_may_have_several_ike_sas_has_not_as_many_as_it_likes() {
    let mut world = World::new();
    world.change(1, |c| c.unique = false);
    for n in 0..300 {
        let mut west = Outsider::begin(&mut world, from(n), 1 + u64::from(n)).unwrap();
        assert_eq!(refused(&west.prove(&mut world, "@west", vec![])), None);
    }
    // The oldest is asked to go in five seconds, and goes at once where still more come.
    assert_eq!(world.hosts[1].endpoint.rows().len(), 257);
    world.run_for(Duration::from_secs(75));
    assert_eq!(world.hosts[1].endpoint.rows().len(), 256);
}

#[test]
fn what_comes_in_another_version_is_answered_now_and_then() {
    let mut world = World::new();
    let mut octets = first(&world, 1, None, vec![]);
    octets[17] = 0x30;
    let answered = (0..1000).filter(|n| !world.hears(from(*n), &octets).is_empty()).count();
    assert_eq!(answered, 10);
    world.run_for(Duration::from_secs(2));
    assert!(!world.hears(from(1), &octets).is_empty());
}

#[test]
fn a_peer_that_demands_one_group_after_the_other_is_asked_no_more() {
    for ike in [false, true] {
        let mut world = World::new();
        for side in 0..2 {
            world.change(side, |c| {
                c.ike[0].groups = vec![Group::X25519, Group::Ecp256];
                c.child.offers[0].groups = c.ike[0].groups.clone();
            });
        }
        world.up(0);
        world.settle();
        world.agree(1);
        world.by_hand();
        let mut east = Insider::new(&world.hosts[1].keys).unwrap();
        let now = world.now;
        assert!(world.hosts[0].endpoint.rekey("net", ike, now));
        world.drain();
        let mut asked = 0;
        while let Some(transmit) = world.take(0) {
            let (header, ..) = Header::parse(&transmit.octets).unwrap();
            if header.exchange != Exchange::CreateChildSa || asked > 20 {
                break;
            }
            asked += 1;
            let wanted = [Group::Ecp256, Group::X25519][(asked + 1) % 2].number().to_be_bytes().to_vec();
            let demand = Payload::Notify(Notify::new(NotifyKind::InvalidKePayload, wanted));
            let answer = east.says(1, (Exchange::CreateChildSa, true, header.id), vec![demand]);
            world.give(0, &transmit, &[]);
            world.inject(0, &answer);
        }
        assert_eq!(asked, 2, "{ike}");
        assert_eq!(world.hosts[0].pairs.len(), 1, "what there is goes on");
    }
}
