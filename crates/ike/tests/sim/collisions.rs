//! Exchanges of both sides that cross (RFC 7296 §2.8, §2.25): every message delivered by hand, in the order of the diagram,
//! nonces fixed, and then whatever is left runs to its end.
//!
//! In a script `a.child` has A rekey the child, `a.ike` the IKE SA; `a.del` deletes the child, `a.delold` the one that was
//! there first, `a.down` the IKE SA; `a.new` makes a child of another connection. `a>req` delivers the oldest message of A,
//! which must be a CREATE_CHILD_SA request (`ans` its answer, `del` and `ack` an INFORMATIONAL one); `a!req` loses it,
//! `a+req` delivers a copy. The first number of each list is the nonce of the side's own request where it asks first.

use crate::world::{World, net};
use ike::message::{Exchange, Header};
use std::time::Duration;

/// Both sides with one IKE SA, one child, and a second connection that is not up.
fn scene() -> World {
    let mut world = World::new();
    for side in 0..2 {
        let mut more = (**world.hosts[side].endpoint.connections().next().unwrap()).clone();
        let nets = [vec![net("10.11.0.0/16")], vec![net("10.12.0.0/16")]];
        more.name = "new".to_owned();
        more.remote_address = world.hosts[1 - side].address.parse().ok();
        (more.child.local, more.child.remote) = (nets[side].clone(), nets[1 - side].clone());
        world.hosts[side].endpoint.add(more);
    }
    world.change_named("net", 1, |c| c.remote_address = "192.0.2.1".parse().ok());
    world.up(0);
    world.settle();
    world.agree(1);
    world
}

/// Plays a script and compares what is left with what is expected.
fn play(nonces_a: &[u8], nonces_b: &[u8], script: &str, expected: &str) {
    let mut world = scene();
    let first = world.hosts[0].pairs[0].inbound.spi;
    let first_b = world.hosts[1].pairs[0].inbound.spi;
    world.hosts[0].will_draw(nonces_a);
    world.hosts[1].will_draw(nonces_b);
    world.by_hand();
    let mut asked = [0; 2];
    for word in script.split_whitespace() {
        let (side, rest) = (usize::from(word.starts_with('b')), &word[1..]);
        let (act, what) = rest.split_at(1);
        let now = world.now;
        if act == "." {
            let address = world.hosts[side].address.parse().unwrap();
            let endpoint = &mut world.hosts[side].endpoint;
            match what {
                "child" => assert!(endpoint.rekey("net", false, now)),
                "ike" => assert!(endpoint.rekey("net", true, now)),
                "del" => endpoint.delete_child([first, first_b][side], now),
                "delold" => endpoint.delete_child([first, first_b][side], now),
                "down" => endpoint.down("net", now),
                "new" => endpoint.up("new", address, now).unwrap(),
                "alive" => endpoint.ask_alive(now),
                other => panic!("{other}"),
            }
            world.drain();
            if what == "child" {
                asked[side] = world.hosts[side].last_spi();
            }
            continue;
        }
        let (header, ..) = Header::parse(world.oldest(side)).unwrap();
        let kind = match (header.exchange, header.flags.response) {
            (Exchange::CreateChildSa, false) => "req",
            (Exchange::CreateChildSa, true) => "ans",
            (Exchange::Informational, false) => "del",
            (Exchange::Informational, true) => "ack",
            other => panic!("{other:?}"),
        };
        assert_eq!(kind, what, "`{word}' in {script}: {}", world.in_flight());
        match act {
            ">" => world.deliver(side, false),
            "+" => world.deliver(side, true),
            _ => world.lose(side),
        }
        // With another connection's child the newest pair is not the one that sends.
        if !expected.contains("pairs=0") && !script.contains(".new") {
            assert_eq!(world.gaps, 0, "after `{word}' in {script}");
        }
    }
    world.by_itself();
    // An IKE SA that one side never heard of goes after two minutes.
    world.run_for(Duration::from_secs(150));
    for word in expected.split_whitespace() {
        let (what, value) = word.split_once('=').unwrap();
        let number = || value.parse::<usize>().unwrap();
        match what {
            "pairs" => world.agree(number()),
            "ikes" => {
                let rows: Vec<usize> = world.hosts.iter().map(|host| host.endpoint.rows().len()).collect();
                assert_eq!(rows, [number(); 2]);
            }
            "child" => {
                let side = usize::from(value == "b");
                let stands = world.hosts[side].pairs.iter().any(|pair| pair.inbound.spi == asked[side]);
                assert!(stands, "the pair that {value} made stands: {:#x}", asked[side]);
            }
            "ike" => {
                let a_began = world.hosts[0].endpoint.rows()[0].initiator;
                assert_eq!(a_began, value == "a", "which IKE SA stands");
            }
            other => panic!("{other}"),
        }
    }
    if !expected.contains("ikes") {
        for host in &world.hosts {
            assert_eq!(host.endpoint.rows().len(), 1, "one IKE SA: {:#?}", host.endpoint.rows());
        }
    }
    // And it still works, whichever side asks.
    if !expected.contains("=0") && !script.contains(".del ") {
        for side in 0..2 {
            let before = world.hosts[0].pairs.len();
            assert!(world.hosts[side].endpoint.rekey("net", false, world.now));
            world.settle();
            world.agree(before);
        }
        assert!(world.gaps == 0 || script.contains(".new"));
    }
}

#[test]
fn both_rekey_a_child_and_a_drew_the_lowest() {
    // A's nonce is the lowest: A's pair goes, B's stands.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[1, 8], &[5, 9], "a.child b.child a>req b>req a>ans b>ans", "pairs=1 child=b");
}

#[test]
fn both_rekey_a_child_and_the_lowest_is_in_the_answer_to_a() {
    // B's answer to A has the lowest nonce: A's pair goes all the same.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[4, 8], &[5, 1], "a.child b.child a>req b>req a>ans b>ans", "pairs=1 child=b");
}

#[test]
fn both_rekey_a_child_and_b_drew_the_lowest() {
    // B's nonce is the lowest: B's pair goes.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[5, 9], &[1, 8], "a.child b.child a>req b>req a>ans b>ans", "pairs=1 child=a");
}

#[test]
fn both_rekey_a_child_and_the_lowest_is_in_the_answer_to_b() {
    // A's answer to B has the lowest nonce: B's pair goes.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[5, 1], &[4, 8], "a.child b.child a>req b>req a>ans b>ans", "pairs=1 child=a");
}

#[test]
fn both_rekey_a_child_and_b_is_answered_first() {
    // The same with the answers the other way round.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   <-------------- its answer --------------
    //   -------------- its answer -------------->
    play(&[1, 8], &[5, 9], "a.child b.child a>req b>req b>ans a>ans", "pairs=1 child=b");
}

#[test]
fn both_rekey_a_child_and_the_winner_is_answered_first() {
    // B's nonce is the lowest and A hears first.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   <----------- CREATE_CHILD_SA ------------
    //   ----------- CREATE_CHILD_SA ------------>
    //   <-------------- its answer --------------
    //   -------------- its answer -------------->
    play(&[5, 9], &[1, 8], "a.child b.child b>req a>req b>ans a>ans", "pairs=1 child=a");
}

#[test]
fn both_rekey_a_child_and_a_hears_all_before_b_hears_anything() {
    // A answers B's request and only then its own goes on.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   <----------- CREATE_CHILD_SA ------------
    //   -------- CREATE_CHILD_SA (lost) --------x
    //   -------------- its answer -------------->
    play(&[1, 8], &[5, 9], "a.child b.child b>req a!req a>ans", "pairs=1 child=b");
}

#[test]
fn both_rekey_a_child_and_b_asks_late() {
    // B's request is on its way while A's exchange is completed: A has replaced the child already.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   x-------- CREATE_CHILD_SA (lost) --------
    //   <-------------- its answer --------------
    play(&[3, 8], &[5, 9], "a.child b.child a>req b!req b>ans", "pairs=1 child=a");
}

#[test]
fn both_rekey_a_child_and_a_s_request_is_lost_once() {
    // A's request arrives by its repetition, after B's exchange.
    //
    // A                                             B
    // rekeys the child
    //   -------- CREATE_CHILD_SA (lost) --------x
    //                                               rekeys the child
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    play(&[3, 8], &[5, 9], "a.child a!req b.child b>req a>ans", "pairs=1 child=b");
}

#[test]
fn both_rekey_a_child_and_the_answer_to_a_is_lost_once() {
    // The answer to A comes by repetition.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   x---------- its answer (lost) -----------
    //   -------------- its answer -------------->
    play(&[1, 8], &[5, 9], "a.child b.child a>req b>req b!ans a>ans", "pairs=1 child=b");
}

#[test]
fn both_rekey_a_child_and_the_answer_to_the_winner_is_lost_once() {
    // The answer to B comes by repetition.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   <-------------- its answer --------------
    //   ---------- its answer (lost) -----------x
    play(&[1, 8], &[5, 9], "a.child b.child a>req b>req b>ans a!ans", "pairs=1 child=b");
}

#[test]
fn both_rekey_a_child_and_every_message_comes_twice() {
    // Each request and each answer twice.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----- CREATE_CHILD_SA (and again) ------>
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----- CREATE_CHILD_SA (and again) ------
    //   <----------- CREATE_CHILD_SA ------------
    //   -------- its answer (and again) -------->
    //   -------------- its answer -------------->
    //   <-------- its answer (and again) --------
    //   <-------------- its answer --------------
    play(
        &[1, 8],
        &[5, 9],
        "a.child b.child a+req a>req b+req b>req a+ans a>ans b+ans b>ans",
        "pairs=1 child=b",
    );
}

#[test]
fn both_rekey_a_child_and_the_loser_s_deletion_is_lost_once() {
    // What is one too many goes by the repetition of its deletion.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    //   --------- INFORMATIONAL (lost) ---------x
    play(&[1, 8], &[5, 9], "a.child b.child a>req b>req a>ans b>ans a!del", "pairs=1 child=b");
}

#[test]
fn both_rekey_a_child_and_the_winner_s_deletion_is_lost_once() {
    // The old pair goes by the repetition of its deletion.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    //   x--------- INFORMATIONAL (lost) ---------
    play(&[1, 8], &[5, 9], "a.child b.child a>req b>req a>ans b>ans b!del", "pairs=1 child=b");
}

#[test]
fn a_rekeys_a_child_that_b_is_deleting() {
    // B refuses for now; A hears of the deletion and has nothing to rekey.
    //
    // A                                             B
    // rekeys the child
    //                                               deletes the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <------------ INFORMATIONAL -------------
    //   <-------------- its answer --------------
    //   -------------- its answer -------------->
    play(&[3], &[5], "a.child b.del a>req b>del b>ans a>ack", "pairs=0");
}

#[test]
fn a_rekeys_a_child_that_b_is_deleting_and_hears_of_that_first() {
    // The deletion is answered as usual, and then the rekeying refused.
    //
    // A                                             B
    // rekeys the child
    //                                               deletes the child
    //   <------------ INFORMATIONAL -------------
    //   ----------- CREATE_CHILD_SA ------------>
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[3], &[5], "a.child b.del b>del a>req a>ack b>ans", "pairs=0");
}

#[test]
fn b_rekeys_a_child_that_a_is_deleting() {
    // The same the other way round.
    //
    // A                                             B
    //                                               rekeys the child
    // deletes the child
    //   <----------- CREATE_CHILD_SA ------------
    //   ------------ INFORMATIONAL ------------->
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[3], &[5], "b.child a.del b>req a>del a>ans b>ack", "pairs=0");
}

#[test]
fn a_rekeys_a_child_whose_deletion_is_over() {
    // A's request comes by repetition, when B has nothing to rekey any more (CHILD_SA_NOT_FOUND).
    //
    // A                                             B
    // rekeys the child
    //                                               deletes the child
    //   <------------ INFORMATIONAL -------------
    //   -------- CREATE_CHILD_SA (lost) --------x
    //   -------------- its answer -------------->
    play(&[3], &[5], "a.child b.del b>del a!req a>ack", "pairs=0");
}

#[test]
fn both_delete_a_child() {
    // Each answers without naming it a second time (§1.4.1).
    //
    // A                                             B
    // deletes the child
    //                                               deletes the child
    //   ------------ INFORMATIONAL ------------->
    //   <------------ INFORMATIONAL -------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[], &[], "a.del b.del a>del b>del a>ack b>ack", "pairs=0");
}

#[test]
fn both_delete_a_child_and_one_deletion_is_lost_once() {
    // The second comes for what is gone already.
    //
    // A                                             B
    // deletes the child
    //                                               deletes the child
    //   --------- INFORMATIONAL (lost) ---------x
    //   <------------ INFORMATIONAL -------------
    //   -------------- its answer -------------->
    play(&[], &[], "a.del b.del a!del b>del a>ack", "pairs=0");
}

#[test]
fn both_delete_a_child_and_one_answer_is_lost_once() {
    // The repetition finds nothing and is answered all the same.
    //
    // A                                             B
    // deletes the child
    //                                               deletes the child
    //   ------------ INFORMATIONAL ------------->
    //   x--------- INFORMATIONAL (lost) ---------
    //   <-------------- its answer --------------
    play(&[], &[], "a.del b.del a>del b!del b>ack", "pairs=0");
}

#[test]
fn the_old_child_is_deleted_by_both_after_a_rekeying() {
    // A deletes what it replaced while B deletes the same.
    //
    // A                                             B
    // rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <-------------- its answer --------------
    //                                               deletes the old child
    //   ------------ INFORMATIONAL ------------->
    //   <------------ INFORMATIONAL -------------
    play(&[3, 8], &[5], "a.child a>req b>ans b.delold a>del b>del", "pairs=1 child=a");
}

#[test]
fn both_rekey_the_ike_sa_and_a_drew_the_lowest() {
    // A's nonce is the lowest: A's IKE SA goes, B's has the child.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               rekeys the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[1, 8], &[5, 9], "a.ike b.ike a>req b>req a>ans b>ans", "pairs=1 ike=b");
}

#[test]
fn both_rekey_the_ike_sa_and_the_lowest_is_in_the_answer_to_a() {
    // B's answer to A has the lowest nonce.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               rekeys the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[4, 8], &[5, 1], "a.ike b.ike a>req b>req a>ans b>ans", "pairs=1 ike=b");
}

#[test]
fn both_rekey_the_ike_sa_and_b_drew_the_lowest() {
    // B's nonce is the lowest: B's IKE SA goes.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               rekeys the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[5, 9], &[1, 8], "a.ike b.ike a>req b>req a>ans b>ans", "pairs=1 ike=a");
}

#[test]
fn both_rekey_the_ike_sa_and_the_lowest_is_in_the_answer_to_b() {
    // A's answer to B has the lowest nonce.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               rekeys the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[5, 1], &[4, 8], "a.ike b.ike a>req b>req a>ans b>ans", "pairs=1 ike=a");
}

#[test]
fn both_rekey_the_ike_sa_and_b_is_answered_first() {
    // The answers the other way round.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               rekeys the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   <-------------- its answer --------------
    //   -------------- its answer -------------->
    play(&[1, 8], &[5, 9], "a.ike b.ike a>req b>req b>ans a>ans", "pairs=1 ike=b");
}

#[test]
fn both_rekey_the_ike_sa_and_the_winner_deletes_the_old_one_before_the_loser_is_answered() {
    // A hears of the end of the old IKE SA while it still waits.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               rekeys the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   x---------- its answer (lost) -----------
    //   <------------ INFORMATIONAL -------------
    play(&[1, 8], &[5, 9], "a.ike b.ike a>req b>req a>ans b!ans b>del", "pairs=1 ike=b");
}

#[test]
fn both_rekey_the_ike_sa_and_a_s_request_is_lost_once() {
    // A's request comes for an IKE SA that B's exchange has replaced.
    //
    // A                                             B
    // rekeys the IKE SA
    //   -------- CREATE_CHILD_SA (lost) --------x
    //                                               rekeys the IKE SA
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    play(&[3, 8], &[5, 9], "a.ike a!req b.ike b>req a>ans", "pairs=1 ike=b");
}

#[test]
fn both_rekey_the_ike_sa_and_the_answer_to_a_is_lost_once() {
    // The answer to A comes by repetition.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               rekeys the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   x---------- its answer (lost) -----------
    //   -------------- its answer -------------->
    play(&[1, 8], &[5, 9], "a.ike b.ike a>req b>req b!ans a>ans", "pairs=1 ike=b");
}

#[test]
fn both_rekey_the_ike_sa_and_every_message_comes_twice() {
    // Each request and each answer twice.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               rekeys the IKE SA
    //   ----- CREATE_CHILD_SA (and again) ------>
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----- CREATE_CHILD_SA (and again) ------
    //   <----------- CREATE_CHILD_SA ------------
    //   -------- its answer (and again) -------->
    //   -------------- its answer -------------->
    //   <-------- its answer (and again) --------
    //   <-------------- its answer --------------
    play(&[5, 9], &[1, 8], "a.ike b.ike a+req a>req b+req b>req a+ans a>ans b+ans b>ans", "pairs=1 ike=a");
}

#[test]
fn both_rekey_the_ike_sa_and_the_loser_s_deletion_is_lost_once() {
    // The IKE SA that is one too many goes by repetition.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               rekeys the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    //   --------- INFORMATIONAL (lost) ---------x
    play(&[1, 8], &[5, 9], "a.ike b.ike a>req b>req a>ans b>ans a!del", "pairs=1 ike=b");
}

#[test]
fn a_rekeys_the_ike_sa_while_b_rekeys_its_child() {
    // Each refuses for now (§2.25.2), and both come about later.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[3, 8], &[5, 9], "a.ike b.child a>req b>req a>ans b>ans", "pairs=1");
}

#[test]
fn b_rekeys_the_ike_sa_while_a_rekeys_its_child() {
    // The same the other way round.
    //
    // A                                             B
    //                                               rekeys the IKE SA
    // rekeys the child
    //   <----------- CREATE_CHILD_SA ------------
    //   ----------- CREATE_CHILD_SA ------------>
    //   <-------------- its answer --------------
    //   -------------- its answer -------------->
    play(&[3, 8], &[5, 9], "b.ike a.child b>req a>req b>ans a>ans", "pairs=1");
}

#[test]
fn a_child_is_rekeyed_on_an_ike_sa_that_has_just_been_replaced() {
    // B asks on the old IKE SA and is told to ask again, on the new one.
    //
    // A                                             B
    // rekeys the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //                                               rekeys the child
    //   <-------------- its answer --------------
    play(&[3, 8], &[5, 9], "a.ike a>req b.child b>ans", "pairs=1 ike=a");
}

#[test]
fn a_rekeys_the_ike_sa_while_b_deletes_its_child() {
    // B refuses for now; the child goes; the IKE SA is rekeyed later.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               deletes the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <------------ INFORMATIONAL -------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[3, 8], &[5, 9], "a.ike b.del a>req b>del a>ack b>ans", "pairs=0 ikes=1");
}

#[test]
fn b_rekeys_the_ike_sa_while_a_deletes_its_child() {
    // The same the other way round.
    //
    // A                                             B
    //                                               rekeys the IKE SA
    // deletes the child
    //   <----------- CREATE_CHILD_SA ------------
    //   ------------ INFORMATIONAL ------------->
    //   <-------------- its answer --------------
    //   -------------- its answer -------------->
    play(&[3, 8], &[5, 9], "b.ike a.del b>req a>del b>ack a>ans", "pairs=0 ikes=1");
}

#[test]
fn a_rekeys_the_ike_sa_while_b_makes_a_child() {
    // Each refuses for now; the child comes about on the new IKE SA.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               makes a child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[3, 8], &[5, 9], "a.ike b.new a>req b>req a>ans b>ans", "pairs=2");
}

#[test]
fn a_rekeys_the_ike_sa_that_b_is_deleting() {
    // B refuses, and all is over.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               deletes the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   <------------ INFORMATIONAL -------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[3], &[5], "a.ike b.down a>req b>del a>ack b>ans", "ikes=0 pairs=0");
}

#[test]
fn a_rekeys_the_ike_sa_that_b_is_deleting_and_hears_of_that_first() {
    // The deletion is answered, and nothing is left to rekey.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               deletes the IKE SA
    //   <------------ INFORMATIONAL -------------
    //   ----------- CREATE_CHILD_SA ------------>
    //   -------------- its answer -------------->
    play(&[3], &[5], "a.ike b.down b>del a>req a>ack", "ikes=0 pairs=0");
}

#[test]
fn both_delete_the_ike_sa() {
    // Each answers the other, and both are done.
    //
    // A                                             B
    // deletes the IKE SA
    //                                               deletes the IKE SA
    //   ------------ INFORMATIONAL ------------->
    //   <------------ INFORMATIONAL -------------
    play(&[], &[], "a.down b.down a>del b>del", "ikes=0 pairs=0");
}

#[test]
fn both_delete_the_ike_sa_and_one_deletion_is_lost() {
    // The other one is enough.
    //
    // A                                             B
    // deletes the IKE SA
    //                                               deletes the IKE SA
    //   --------- INFORMATIONAL (lost) ---------x
    //   <------------ INFORMATIONAL -------------
    play(&[], &[], "a.down b.down a!del b>del", "ikes=0 pairs=0");
}

#[test]
fn a_rekeys_a_child_of_the_ike_sa_that_b_is_deleting() {
    // B refuses, and all is over.
    //
    // A                                             B
    // rekeys the child
    //                                               deletes the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   <------------ INFORMATIONAL -------------
    play(&[3], &[5], "a.child b.down a>req b>del", "ikes=0 pairs=0");
}

#[test]
fn a_makes_a_child_on_the_ike_sa_that_b_is_deleting() {
    // B refuses, and all is over.
    //
    // A                                             B
    // makes a child
    //                                               deletes the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   <------------ INFORMATIONAL -------------
    play(&[3], &[5], "a.new b.down a>req b>del", "ikes=0 pairs=0");
}

#[test]
fn both_make_a_child_at_once() {
    // Two exchanges, two pairs: nothing says that there must be one.
    //
    // A                                             B
    // makes a child
    //                                               makes a child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[3, 8], &[5, 9], "a.new b.new a>req b>req a>ans b>ans", "pairs=3");
}

#[test]
fn a_makes_a_child_while_b_rekeys_another() {
    // They have nothing to do with each other.
    //
    // A                                             B
    // makes a child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[3, 8], &[5, 9], "a.new b.child a>req b>req a>ans b>ans", "pairs=2 child=b");
}

#[test]
fn a_makes_a_child_while_b_deletes_another() {
    // They have nothing to do with each other.
    //
    // A                                             B
    // makes a child
    //                                               deletes the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <------------ INFORMATIONAL -------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[3, 8], &[5, 9], "a.new b.del a>req b>del a>ack b>ans", "pairs=1");
}

#[test]
fn a_asks_whether_anybody_is_there_while_b_rekeys_a_child() {
    // A question about nothing is in nobody's way.
    //
    // A                                             B
    // asks whether anybody is there
    //                                               rekeys the child
    //   ------------ INFORMATIONAL ------------->
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    play(&[3, 8], &[5, 9], "a.alive b.child a>del b>req a>ans b>ack", "pairs=1 child=b");
}

#[test]
fn both_rekey_a_child_and_then_the_ike_sa() {
    // One collision after the other.
    //
    // A                                             B
    // rekeys the child
    //                                               rekeys the child
    //   ----------- CREATE_CHILD_SA ------------>
    //   <----------- CREATE_CHILD_SA ------------
    //   -------------- its answer -------------->
    //   <-------------- its answer --------------
    // rekeys the IKE SA
    //                                               rekeys the IKE SA
    play(
        &[1, 8, 1, 8],
        &[5, 9, 5, 9],
        "a.child b.child a>req b>req a>ans b>ans a.ike b.ike",
        "pairs=1 child=b",
    );
}

#[test]
fn both_rekey_the_ike_sa_and_the_new_one_is_deleted_before_the_old() {
    // A has heard nothing of B's rekeying, deletes the old IKE SA and then, for good, the new one. B hears the second first,
    // while the child is still with the old IKE SA: it goes with what it was to go to, and its host is told.
    //
    // A                                             B
    // rekeys the IKE SA
    //                                               rekeys the IKE SA
    //   ----------- CREATE_CHILD_SA ------------>
    //   x-------- CREATE_CHILD_SA (lost) --------
    //   <-------------- its answer --------------
    //   ---- INFORMATIONAL, the old (lost) -----x
    // deletes the new one
    //   -------- INFORMATIONAL, the new -------->
    //   <-------------- its answer --------------
    //   -------- INFORMATIONAL, the old -------->
    play(&[3], &[5, 9], "a.ike b.ike a>req b!req b>ans a.down a!del a>del b>ack", "ikes=0 pairs=0");
}
