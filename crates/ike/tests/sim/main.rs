//! Two engines on a fake wire and a fake clock, which moves only from deadline to deadline.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks at what it is about and passes over the rest"
)]

mod certificates;
mod clear;
mod collisions;
mod configuration;
mod crossed_starts;
mod downgrade;
mod eap_alone;
mod eap_tls;
mod followup;
mod hostile;
mod insider;
mod memory;
mod mobike;
mod outsider;
mod password;
mod pki;
mod ppk;
mod repetitions;
mod schedules;
mod siege;
mod slow;
mod strangers;
mod suites;
mod tape;
mod transport;
mod world;

use ike::connection::{Encapsulation, WhenGone};
use ike::event::{Event, Why};
use ike::message::{NotifyKind, TrafficSelector};
use ike::x509::Certificate;
use ipsec_core::algorithm::Encryption;
use ipsec_core::kex::Group;
use std::time::Duration;
use world::{Fate, World, psk};

#[test]
fn two_gateways_with_one_secret_agree_on_keys_in_four_datagrams() {
    let mut world = World::new();
    world.up(0);
    world.settle();
    assert_eq!(world.sent, 4);
    world.agree(1);
    let [a, _] = &world.hosts;
    let up = &a.pairs[0];
    assert_eq!(up.local_selectors[0].to_string(), "10.1.0.0/16");
    assert_eq!(up.remote_selectors[0].to_string(), "10.2.0.0/16");
    // Two of ours: ESP goes in UDP, and so does IKE from here on.
    assert!(up.encapsulate);
    assert_eq!((up.local.port(), up.remote.port()), (4500, 4500));
}

#[test]
fn whatever_the_wire_loses_repeats_or_reorders_the_tunnel_comes_up_once() {
    for seed in 0..200 {
        let mut world = World::new();
        world.weather(seed);
        world.up(0);
        world.run_until(
            |world| world.hosts.iter().all(|host| !host.pairs.is_empty()),
            Duration::from_secs(300),
        );
        world.weather_clears();
        world.settle();
        world.agree(1);
    }
}

#[test]
fn both_sides_may_begin_at_once_and_traffic_has_a_way() {
    for seed in 0..50 {
        let mut world = World::new();
        world.weather(seed);
        world.up(0);
        world.up(1);
        world.run_for(Duration::from_secs(120));
        world.weather_clears();
        world.run_for(Duration::from_secs(60));
        assert!(!world.hosts[0].pairs.is_empty(), "seed {seed}");
        world.consistent();
    }
}

#[test]
fn a_peer_that_wants_another_group_gets_it_and_a_cookie_as_well() {
    let mut world = World::new();
    world.change(0, |c| c.ike[0].groups = vec![Group::X25519, Group::Ecp256]);
    world.change(1, |c| c.ike[0].groups = vec![Group::Ecp256]);
    // Half-open IKE SAs from elsewhere put the responder under load.
    world.load(1, 40);
    world.up(0);
    world.settle();
    world.agree(1);
    assert!(world.hosts[1].endpoint.counters().cookies > 0);
    assert!(world.hosts[0].endpoint.rows()[0].algorithms.as_ref().unwrap().contains("ecp256"));
}

#[test]
fn hybrid_key_exchange_goes_into_the_keys_and_cannot_be_taken_out() {
    let hybrid = |world: &mut World, side: usize, must: bool| {
        let last = if must { vec![Some(Group::MlKem768)] } else { vec![Some(Group::MlKem768), None] };
        world.change(side, |c| c.ike[0].additional = vec![last]);
    };
    let mut world = World::new();
    hybrid(&mut world, 0, true);
    hybrid(&mut world, 1, true);
    world.up(0);
    world.settle();
    world.agree(1);
    assert!(world.hosts[0].endpoint.rows()[0].algorithms.as_ref().unwrap().contains("ke1_mlkem768"));
    // Two more secrets, one after the other.
    let mut world = World::new();
    for side in 0..2 {
        world.change(side, |c| {
            c.ike[0].additional = vec![vec![Some(Group::MlKem512)], vec![Some(Group::Ecp384)]]
        });
    }
    world.up(0);
    world.settle();
    world.agree(1);
    // A peer without it is refused where it is required, and served where it is not.
    for (must, comes_up) in [(true, false), (false, true)] {
        let mut world = World::new();
        hybrid(&mut world, 0, must);
        world.up(0);
        world.settle();
        assert_eq!(!world.hosts[0].pairs.is_empty(), comes_up);
    }
}

#[test]
fn a_wrong_secret_a_wrong_name_and_a_missing_secret_are_told_apart_here_and_not_told_there() {
    let why = |prepare: &dyn Fn(&mut World)| {
        let mut world = World::new();
        prepare(&mut world);
        world.up(0);
        world.settle();
        assert!(world.hosts.iter().all(|host| host.pairs.is_empty()));
        let failed = world.hosts[0]
            .events
            .iter()
            .find_map(|e| if let Event::Failed { why, .. } = e { Some(why.clone()) } else { None });
        let told = world.hosts[1].words();
        (failed.unwrap(), told)
    };
    let refused = Why::Refused("IKE_AUTH", NotifyKind::AuthenticationFailed);
    let (there, here) = why(&|world| world.hosts[1].endpoint.set_secrets(psk("another")));
    assert_eq!(there, refused);
    assert!(here.contains("its secret is not ours"), "{here}");
    let (there, here) = why(&|world| world.change(1, |c| c.remote_id = world::exactly("@other")));
    assert_eq!(there, refused);
    assert!(here.contains("no connection here is for @west"), "{here}");
    let (there, here) = why(&|world| world.hosts[1].endpoint.set_secrets(Default::default()));
    assert_eq!(there, refused);
    assert!(here.contains("no secret for @east and @west"), "{here}");
    let (there, _) = why(&|world| world.hosts[0].endpoint.set_secrets(Default::default()));
    assert!(matches!(there, Why::NoSecret(..)));
    // A responder that is somebody else.
    let (there, _) = why(&|world| {
        world.change(0, |c| c.remote_id = world::exactly("@other"));
        world.change(1, |c| c.local_id = ike::identity::Id::parse("@other").unwrap());
        world.hosts[1].endpoint.set_secrets(psk("another"));
    });
    assert!(matches!(there, Why::NoSecret(..)), "{there:?}");
}

#[test]
fn algorithms_and_networks_that_do_not_meet_are_named_on_both_sides() {
    let mut world = World::new();
    world.change(1, |c| c.ike[0].encryption = vec![(Encryption::ChaCha20Poly1305, 0)]);
    world.up(0);
    world.settle();
    let here = world.hosts[1].words();
    assert!(here.contains("nothing common in: encryption"), "{here}");
    assert!(here.contains("aes-gcm16_256") && here.contains("chacha20-poly1305"), "{here}");
    let there = world.hosts[0].words();
    assert!(there.contains("compare ike= and esp="), "{there}");
    // A peer that has no connection for us answers the same.
    let mut world = World::new();
    world.change(1, |c| c.remote_address = Some([192, 0, 2, 99].into()));
    world.up(0);
    world.settle();
    let ours = world.hosts[0].address;
    let there = world.hosts[0].words();
    assert!(there.contains("NO_PROPOSAL_CHOSEN"), "{there}");
    assert!(there.contains(&format!("it has no connection for {ours} (its left= and right=)")), "{there}");

    let mut world = World::new();
    world.change(1, |c| c.child.remote = vec![world::net("10.9.0.0/16")]);
    world.up(0);
    world.settle();
    let here = world.hosts[1].words();
    assert!(here.contains("the peer asks for 10.1.0.0/16 and 10.2.0.0/16, here it is 10.9.0.0/16"), "{here}");
    assert!(world.hosts[0].words().contains("TS_UNACCEPTABLE"), "{}", world.hosts[0].words());
    // The IKE SA stands all the same (RFC 7296 §1.2).
    assert_eq!(world.hosts[0].endpoint.rows()[0].peer.as_deref(), Some("@east"));
}

#[test]
fn a_responder_narrows_to_what_both_sides_have() {
    let mut world = World::new();
    world.change(0, |c| c.child.remote = vec![world::net("0.0.0.0/0")]);
    world.change(1, |c| c.child.local = vec![world::net("10.2.0.0/16"), world::net("10.3.0.0/16")]);
    world.up(0);
    world.settle();
    world.agree(1);
    let texts: Vec<String> =
        world.hosts[0].pairs[0].remote_selectors.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.2.0.0/16", "10.3.0.0/16"]);
}

#[test]
fn ranges_of_ports_are_agreed_on_as_far_as_they_can_be_kept_to() {
    let of = |ports: (u16, u16)| TrafficSelector { protocol: 6, ports, ..world::net("10.2.0.0/16") };
    let asked = |remote: Vec<TrafficSelector>| {
        let mut world = World::new();
        world.change(0, |c| c.child.remote = remote);
        world.up(0);
        world.settle();
        world.consistent();
        let granted = world.hosts[0].pairs.first().map(|pair| pair.remote_selectors.clone());
        (granted, world.hosts.map(|host| host.words()))
    };
    let few = of((8000, 8010));
    assert_eq!(asked(vec![few]).0, Some(vec![few]));
    // The wide one is left out, and the initiator sees it in the answer (RFC 7296 §2.9).
    let (packet, wide) = (of((2000, 2000)), of((1024, u16::MAX)));
    assert_eq!(asked(vec![packet, wide]).0, Some(vec![packet]));
    // By itself it is refused, and the log names it.
    let (none, [west, east]) = asked(vec![wide]);
    assert_eq!(none, None);
    assert!(east.contains("ports 1024 to 65535") && west.contains("TS_UNACCEPTABLE"), "{east}");
}

#[test]
fn a_nat_on_the_way_is_found_and_its_mapping_followed_only_when_a_new_message_is_authentic() {
    let mut world = World::new();
    world.nat("198.51.100.7:31000");
    world.up(0);
    world.settle();
    world.agree(1);
    let row = world.hosts[1].endpoint.rows().remove(0);
    assert_eq!(row.nat, (false, true));
    assert_eq!(row.remote.to_string(), "198.51.100.7:31000");
    assert_eq!(world.hosts[0].endpoint.rows()[0].nat, (true, false));
    // What was recorded comes again from elsewhere: nobody moves.
    world.replay_from("203.0.113.66:666");
    world.settle();
    assert_eq!(world.hosts[1].endpoint.rows()[0].remote.to_string(), "198.51.100.7:31000");
    // The NAT forgets, and the next word of ours comes from another port.
    world.nat("198.51.100.7:32000");
    world.hosts[0].endpoint.rekey("net", false, world.now);
    world.settle();
    assert_eq!(world.hosts[1].endpoint.rows()[0].remote.to_string(), "198.51.100.7:32000");
    assert!(world.hosts[1].events.iter().any(|event| matches!(event, Event::ChildMoved { .. })));
    // It keeps the mapping alive.
    let before = world.keepalives;
    world.run_for(Duration::from_secs(25));
    assert!(world.keepalives > before);
}

#[test]
fn encapsulation_is_what_both_sides_say() {
    let encapsulated = |a: Encapsulation, b: Encapsulation| {
        let mut world = World::new();
        world.change(0, |c| c.encapsulation = a);
        world.change(1, |c| c.encapsulation = b);
        world.up(0);
        world.settle();
        world.hosts.iter().map(|host| host.pairs.first().map(|pair| pair.encapsulate)).collect::<Vec<_>>()
    };
    use Encapsulation::{Auto, No, Yes};
    assert_eq!(encapsulated(Auto, Auto), [Some(true), Some(true)]);
    assert_eq!(encapsulated(No, No), [Some(false), Some(false)]);
    assert_eq!(encapsulated(Yes, Auto), [Some(true), Some(true)]);
    assert_eq!(encapsulated(Auto, No), [Some(false), Some(false)]);
}

#[test]
fn messages_too_long_for_a_datagram_are_cut_and_put_together_in_any_order() {
    for seed in 0..20 {
        let mut world = World::new();
        // Many selectors make IKE_AUTH long.
        for side in 0..2 {
            let nets = |site: u8, count: u8| {
                (0..count).map(|n| world::net(&format!("fd00:{site}:0:{n}::/64"))).collect::<Vec<_>>()
            };
            let (local, remote) =
                if side == 0 { (nets(1, 64), nets(2, 1)) } else { (nets(2, 1), nets(1, 64)) };
            world.change(side, |c| (c.child.local, c.child.remote) = (local, remote));
        }
        world.weather(seed);
        world.up(0);
        world.run_until(
            |world| world.hosts.iter().all(|host| !host.pairs.is_empty()),
            Duration::from_secs(300),
        );
        world.weather_clears();
        world.settle();
        world.agree(1);
        assert!(world.longest <= 1228, "{}", world.longest);
        assert_eq!(world.hosts[0].pairs[0].local_selectors.len(), 64);
    }
}

#[test]
fn lists_of_selectors_are_narrowed_to_lists_and_stay_so_when_they_are_rekeyed() {
    let nets = |all: &[&str]| all.iter().map(|net| world::net(net)).collect::<Vec<_>>();
    for beginner in [0, 1] {
        let mut world = World::new();
        world.change(0, |c| {
            c.child.local = nets(&["10.1.0.0/24", "10.1.9.0/24", "10.7.0.0/24"]);
            c.child.remote = nets(&["10.2.0.0/16", "10.8.0.0/24"]);
        });
        world.change(1, |c| {
            c.child.local = nets(&["10.2.0.0/24", "10.2.9.0/24", "10.8.0.0/25"]);
            c.child.remote = nets(&["10.1.0.0/16"]);
        });
        world.up(beginner);
        world.settle();
        for _ in 0..2 {
            world.agree(1);
            let [here, there] = [0, 1].map(|side: usize| {
                let pair = &world.hosts[side].pairs[0];
                (pair.local_selectors.clone(), pair.remote_selectors.clone())
            });
            assert_eq!(here.0, nets(&["10.1.0.0/24", "10.1.9.0/24"]));
            assert_eq!(here.1, nets(&["10.2.0.0/24", "10.2.9.0/24", "10.8.0.0/25"]));
            assert_eq!((there.1, there.0), here);
            let now = world.now;
            assert!(world.hosts[beginner].endpoint.rekey("net", false, now));
            world.settle();
        }
    }
}

#[test]
fn more_pairs_than_sas_can_keep_to_are_refused_and_both_sides_say_so() {
    let nets = |second: u8, count: u8| {
        (0..count).map(|n| world::net(&format!("10.{second}.{n}.0/24"))).collect::<Vec<_>>()
    };
    for (count, up) in [(8, 1), (9, 0)] {
        let mut world = World::new();
        world.change(0, |c| (c.child.local, c.child.remote) = (nets(1, 8), nets(2, count)));
        world.change(1, |c| (c.child.local, c.child.remote) = (nets(2, count), nets(1, 8)));
        world.up(0);
        world.settle();
        world.agree(up);
        let said = world.hosts[1].words();
        assert_eq!(said.contains("more than 64 pairs"), up == 0, "{said}");
        let refused = world.hosts[0].words();
        assert_eq!(refused.contains("TS_UNACCEPTABLE"), up == 0, "{refused}");
    }
}

#[test]
fn a_child_is_rekeyed_before_its_end_without_a_moment_in_which_there_is_none() {
    let mut world = World::new();
    world.up(0);
    world.settle();
    let first = world.hosts[0].pairs[0].inbound.spi;
    // Four hours: several children, one IKE SA after the other, never a gap.
    world.run_for(Duration::from_secs(4 * 3600 + 600));
    world.agree(1);
    assert_ne!(world.hosts[0].pairs[0].inbound.spi, first);
    assert_eq!(world.gaps, 0);
    assert!(world.hosts[0].events.iter().any(|event| matches!(event, Event::IkeRekeyed { .. })));
}

#[test]
fn no_host_can_send_what_a_new_pair_rests_on_before_it_has_heard_of_the_pair() {
    let mut world = World::new();
    world.by_hand();
    world.up(0);
    world.deliver(0, false);
    world.deliver(1, false);
    // Once it has the answer to IKE_AUTH the peer sends on the first pair.
    assert_eq!(world.deliver_to_the_impatient(0), ["installed", "sent"]);
    world.deliver(1, false);
    world.agree(1);
    let now = world.now;
    assert!(world.hosts[0].endpoint.rekey("net", false, now));
    world.drain();
    // It may send on the next one as soon as it has the answer to CREATE_CHILD_SA, and where it gave that itself, as soon as it is
    // told to delete the pair before.
    assert_eq!(world.deliver_to_the_impatient(0), ["installed", "sent"]);
    assert_eq!(world.deliver_to_the_impatient(1), ["installed", "sent"]);
    world.deliver(0, false);
    world.deliver(1, false);
    world.agree(1);
}

#[test]
fn rekeying_with_pfs_uses_a_new_key_exchange_and_one_side_without_it_is_caught() {
    let mut world = World::new();
    for side in 0..2 {
        world.change(side, |c| c.child.offers[0].groups = vec![Group::Ecp256]);
    }
    world.up(0);
    world.settle();
    world.hosts[0].endpoint.rekey("net", false, world.now);
    world.settle();
    world.agree(1);
    world.hosts[1].endpoint.rekey("net", false, world.now);
    world.settle();
    world.agree(1);
    // PFS on one side only: the first child came up, for it never has PFS; the rekeying says what is wrong.
    let mut world = World::new();
    world.change(0, |c| c.child.offers[0].groups = vec![Group::Ecp256]);
    world.up(0);
    world.settle();
    world.hosts[0].endpoint.rekey("net", false, world.now);
    world.settle();
    world.agree(1);
    assert!(world.hosts[1].words().contains("nothing common in: key exchange"), "{}", world.hosts[1].words());
}

#[test]
fn a_rekeying_begins_with_the_group_that_the_peer_chose_for_the_ike_sa() {
    let mut world = World::new();
    for (side, groups) in [(0, vec![Group::X25519, Group::Ecp256]), (1, vec![Group::Ecp256])] {
        world.change(side, |c| {
            c.ike[0].groups = groups.clone();
            c.child.offers[0].groups = groups;
        });
    }
    world.up(0);
    world.settle();
    let first = world.hosts[0].pairs[0].inbound.spi;
    world.hosts[0].endpoint.rekey("net", false, world.now);
    world.settle();
    world.agree(1);
    assert_ne!(world.hosts[0].pairs[0].inbound.spi, first);
    // Not every peer refuses another one in a way that lets us try again.
    assert!(!world.hosts[1].words().contains("another group is wanted"), "{}", world.hosts[1].words());
}

/// libreswan holds to it for children, whatever group it rekeys the IKE SA with.
#[test]
fn a_rekeying_begins_with_the_group_of_the_first_ike_sa_when_that_was_rekeyed_with_another() {
    let mut world = World::new();
    // In IKE_SA_INIT nobody knows yet which of the responder's connections it is for; the other one likes the first group.
    let mut other = (**world.hosts[1].endpoint.connections().next().unwrap()).clone();
    (other.name, other.remote_id) = ("a".to_owned(), world::exactly("@other"));
    world.hosts[1].endpoint.add(other);
    for (side, groups) in [(0, vec![Group::X25519, Group::Ecp256]), (1, vec![Group::Ecp256, Group::X25519])] {
        world.change_named("net", side, |c| {
            c.ike[0].groups = groups;
            c.child.offers[0].groups = vec![Group::Ecp256, Group::X25519];
        });
    }
    world.change_named("net", 1, |c| c.child.offers[0].groups = vec![Group::X25519]);
    let group = |world: &World| {
        let algorithms = world.hosts[0].endpoint.rows()[0].algorithms.clone().unwrap_or_default();
        algorithms.rsplit('-').next().unwrap_or_default().to_owned()
    };
    world.up(0);
    world.settle();
    assert_eq!(group(&world), "x25519");
    for _ in 0..2 {
        world.hosts[0].endpoint.rekey("net", true, world.now);
        world.settle();
        assert_eq!(group(&world), "ecp256");
    }
    let first = world.hosts[0].pairs[0].inbound.spi;
    world.hosts[0].endpoint.rekey("net", false, world.now);
    world.settle();
    world.agree(1);
    assert_ne!(world.hosts[0].pairs[0].inbound.spi, first);
    assert!(!world.hosts[1].words().contains("another group is wanted"), "{}", world.hosts[1].words());
}

#[test]
fn rekeyings_of_both_sides_that_cross_leave_one_pair_and_one_ike_sa() {
    for seed in 0..300 {
        let mut world = World::new();
        world.up(0);
        world.settle();
        world.weather(seed);
        for step in 0..6_u64 {
            let bits = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(step.wrapping_mul(1_442_695_040_888_963_407))
                >> 40;
            let ike = bits & 3 == 0;
            world.hosts[(bits >> 3 & 1) as usize].endpoint.rekey("net", ike, world.now);
            if bits & 4 != 0 {
                world.hosts[(bits >> 4 & 1) as usize].endpoint.rekey("net", bits & 32 != 0, world.now);
            }
            world.run_for(Duration::from_millis(bits >> 5 & 0x3ff));
        }
        world.run_for(Duration::from_secs(90));
        world.weather_clears();
        world.run_for(Duration::from_secs(90));
        world.agree(1);
        assert_eq!(world.gaps, 0, "seed {seed}");
        for host in &world.hosts {
            assert_eq!(host.endpoint.rows().len(), 1, "seed {seed}: {:#?}", host.endpoint.rows());
        }
    }
}

#[test]
fn a_peer_that_is_gone_is_noticed_and_sought_again_where_that_is_wanted() {
    for when_gone in [WhenGone::Clear, WhenGone::Restart] {
        let mut world = World::new();
        world.up(0);
        if when_gone == WhenGone::Restart {
            world.hosts[0].endpoint.keep("net");
        }
        world.settle();
        world.agree(1);
        world.fate(Fate::Lost);
        world.run_for(Duration::from_secs(600));
        assert!(world.hosts[0].pairs.is_empty());
        assert!(
            world.hosts[0].words().contains("no answer from 192.0.2.2:4500"),
            "{}",
            world.hosts[0].words()
        );
        world.fate(Fate::Arrives);
        world.run_for(Duration::from_secs(700));
        assert_eq!(!world.hosts[0].pairs.is_empty(), when_gone == WhenGone::Restart);
    }
}

#[test]
fn a_peer_that_lost_its_memory_says_so_and_its_old_pairs_go() {
    let mut world = World::new();
    world.up(0);
    world.settle();
    world.forget(0);
    world.up(0);
    world.settle();
    world.agree(1);
    assert_eq!(world.hosts[1].endpoint.rows().len(), 1);
    assert!(world.hosts[1].words().contains("the same peer began anew"));
}

#[test]
fn down_takes_all_away_on_both_sides_and_nothing_comes_back() {
    let mut world = World::new();
    world.up(0);
    world.settle();
    world.hosts[0].endpoint.down("net", world.now);
    world.settle();
    world.run_for(Duration::from_secs(120));
    for host in &world.hosts {
        assert!(host.pairs.is_empty() && host.endpoint.rows().is_empty());
    }
}

#[test]
fn nobody_without_keys_changes_anything() {
    let mut world = World::new();
    world.record();
    world.up(0);
    world.settle();
    world.hosts[0].endpoint.rekey("net", false, world.now);
    world.hosts[1].endpoint.rekey("net", true, world.now);
    world.settle();
    let before: Vec<String> = world.hosts.iter().map(|host| format!("{:?}", host.endpoint.rows())).collect();
    let events: Vec<usize> = world.hosts.iter().map(|host| host.events.len()).collect();
    // Everything that was ever said, again, to both, cut at every octet, with every bit flipped, from anywhere.
    world.torment();
    let after: Vec<String> = world
        .hosts
        .iter()
        .map(|host| {
            format!("{:?}", host.endpoint.rows().iter().filter(|row| row.peer.is_some()).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(before, after);
    for (host, events) in world.hosts.iter().zip(events) {
        let news: Vec<&Event> = host.events[events..]
            .iter()
            .filter(|e| !matches!(e, Event::Progress { .. } | Event::PeerFailed { .. }))
            .collect();
        assert!(news.is_empty(), "{news:?}");
    }
    // And it still works.
    world.hosts[0].endpoint.rekey("net", false, world.now);
    world.settle();
    world.agree(1);
}

#[test]
fn a_flood_of_first_messages_is_bounded_and_a_real_peer_gets_through() {
    let mut world = World::new();
    world.load(1, 20_000);
    let half_open = world.hosts[1].endpoint.rows().len();
    assert!(half_open <= 40, "{half_open}: cookies keep spoofed sources out");
    world.up(0);
    world.settle();
    world.agree(1);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.hosts[1].endpoint.rows().len(), 1, "what was half open is forgotten");
}
