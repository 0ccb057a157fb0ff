//! What anybody can say in clear, and what comes of it: nothing but a question (RFC 7296 §1.5, §2.21).

use crate::world::{Fate, World, net};
use ike::connection::{Psk, Secrets};
use ike::event::{Event, Transmit};
use ike::identity::IdPattern;
use ike::message::{Exchange, Flags, Header, IkeSpi, Message, Notify, NotifyKind, Payload};
use ike::proposal::Offer;
use ipsec_core::Secret;
use ipsec_core::algorithm::Encryption;
use std::time::Duration;

fn failed(world: &World) -> bool {
    world.hosts[0].events.iter().any(|event| matches!(event, Event::Failed { .. }))
}

/// An answer to the west's first message that anybody on the way could have made.
fn forged(world: &World, kind: NotifyKind, data: Vec<u8>) -> Vec<u8> {
    let (mut header, ..) = Header::parse(world.oldest(0)).unwrap();
    header.flags = Flags { initiator: false, response: true };
    Message { header, payloads: vec![Payload::Notify(Notify::new(kind, data))] }.emit()
}

#[test]
fn a_refusal_that_anybody_could_have_sent_does_not_end_a_negotiation() {
    for (kind, data) in [
        (NotifyKind::NoProposalChosen, vec![]),
        (NotifyKind::InvalidSyntax, vec![]),
        (NotifyKind::AuthenticationFailed, vec![]),
        // A group that was never offered.
        (NotifyKind::InvalidKePayload, vec![0, 2]),
        (NotifyKind::Cookie, vec![0; 65]),
    ] {
        let mut world = World::new();
        world.by_hand();
        world.up(0);
        let octets = forged(&world, kind, data);
        world.inject(0, &octets);
        assert!(!failed(&world), "{kind}");
        assert!(
            world.hosts[0].words().contains("Anybody could say so"),
            "{kind}: {}",
            world.hosts[0].words()
        );
        world.by_itself();
        world.settle();
        world.agree(1);
    }
}

#[test]
fn an_answer_that_is_none_does_not_end_a_negotiation_either() {
    // A value that no key exchange has, another group than was chosen, algorithms that nobody offered, nobody's SPI.
    for wrong in 0..4 {
        let mut world = World::new();
        world.by_hand();
        world.up(0);
        let asked = Message::parse(world.oldest(0)).unwrap();
        let mut payloads = asked.payloads.clone();
        payloads.retain(|payload| matches!(payload, Payload::Sa(_) | Payload::Ke { .. } | Payload::Nonce(_)));
        for payload in &mut payloads {
            match payload {
                Payload::Ke { data, .. } if wrong == 0 => data.fill(0),
                Payload::Ke { group, .. } if wrong == 1 => *group = 14,
                Payload::Sa(proposals) if wrong == 2 => proposals[0].number = 9,
                _ => {}
            }
        }
        let flags = Flags { initiator: false, response: true };
        let spi_r = IkeSpi(if wrong == 3 { 0 } else { 0xbad });
        let header = Header { flags, spi_r, ..asked.header };
        world.inject(0, &Message { header, payloads }.emit());
        assert!(!failed(&world), "{wrong}: {}", world.hosts[0].words());
        world.by_itself();
        world.settle();
        world.agree(1);
    }
    // Demands for one cookie after the other.
    let mut world = World::new();
    world.by_hand();
    world.up(0);
    for n in 0..40 {
        let octets = forged(&world, NotifyKind::Cookie, vec![n; 8]);
        world.inject(0, &octets);
    }
    assert!(!failed(&world), "{}", world.hosts[0].words());
    // The peer hears the last of its first messages, which is the one that AUTH will be over.
    (0..8).for_each(|_| world.lose(0));
    world.by_itself();
    world.settle();
    world.agree(1);
}

#[test]
fn a_true_refusal_is_believed_after_a_while_and_said_with_its_reason() {
    let mut world = World::new();
    world.change(1, |c| {
        c.ike = vec![Offer { encryption: vec![(Encryption::ChaCha20Poly1305, 0)], ..c.ike[0].clone() }]
    });
    world.up(0);
    world.run_for(Duration::from_secs(2));
    assert!(!failed(&world));
    world.run_for(Duration::from_secs(4));
    assert!(failed(&world));
    assert!(world.hosts[0].words().contains("NO_PROPOSAL_CHOSEN"), "{}", world.hosts[0].words());
    assert!(!world.hosts[0].words().contains("no answer from"), "{}", world.hosts[0].words());
}

#[test]
fn who_does_not_know_an_ike_sa_says_so_and_is_not_believed_without_a_question() {
    let mut world = World::new();
    world.up(0);
    world.settle();
    let row = world.hosts[0].endpoint.rows().remove(0);
    let unknown = |id: u32| {
        let flags = Flags { initiator: false, response: true };
        let header =
            Header { spi_i: row.ike, spi_r: row.peer_spi, exchange: Exchange::Informational, flags, id };
        let notify = Payload::Notify(Notify::new(NotifyKind::InvalidIkeSpi, vec![]));
        Message { header, payloads: vec![notify] }.emit()
    };
    world.run_for(Duration::from_secs(11));
    let before = world.sent;
    for id in 0..50 {
        world.inject(0, &unknown(id));
        world.run_for(Duration::from_millis(50));
    }
    // One question and its answer, however often it is said.
    assert_eq!(world.sent - before, 2);
    world.agree(1);
    // East forgets everything, and says so: west asks, hears nothing, and is done long before it would have asked by itself.
    world.forget(1);
    let now = world.now;
    world.hosts[0].endpoint.ask_alive(now);
    world.run_for(Duration::from_secs(2));
    assert!(world.hosts[1].endpoint.counters().stray > 0);
    world.fate(Fate::Arrives);
    world.run_for(Duration::from_secs(65));
    assert!(world.hosts[0].endpoint.rows().is_empty());
}

#[test]
fn a_flood_of_requests_for_nothing_is_answered_now_and_then() {
    let mut world = World::new();
    for n in 0..1000_u64 {
        let flags = Flags { initiator: true, response: false };
        let header = Header {
            spi_i: IkeSpi(n + 1),
            spi_r: IkeSpi(7),
            exchange: Exchange::Informational,
            flags,
            id: 0,
        };
        world.inject(1, &Message { header, payloads: vec![] }.emit());
        // Answers are never answered: two endpoints would go on for ever.
        let header = Header { flags: Flags { initiator: true, response: true }, ..header };
        world.inject(1, &Message { header, payloads: vec![] }.emit());
    }
    assert_eq!(world.sent, 10);
}

/// Both sides have one secret, and a connection may be for anybody who has it: a mirror must not be somebody.
#[test]
fn a_mirror_is_nobody() {
    let mut world = World::new();
    for side in 0..2 {
        world.change(side, |c| {
            (c.local_address, c.remote_id) = (None, IdPattern::Any);
            (c.child.local, c.child.remote) = (vec![net("0.0.0.0/0")], vec![net("0.0.0.0/0")]);
        });
        let psks = vec![Psk { ids: Vec::new(), key: Secret::from(&b"the secret of both"[..]) }];
        world.hosts[side].endpoint.set_secrets(Secrets { psks, ..Secrets::default() });
    }
    world.by_hand();
    world.up(0);
    for _ in 0..100 {
        while let Some(sent) = world.take(0) {
            let back = Transmit { local: sent.remote, remote: sent.local, octets: Vec::new() };
            world.give(1, &back, &sent.octets);
        }
        world.run_for(Duration::from_secs(1));
        assert!(world.hosts[0].endpoint.rows().iter().all(|row| row.peer.is_none()));
        assert!(world.hosts[0].pairs.is_empty(), "it has a tunnel with itself");
    }
    assert!(world.hosts[0].endpoint.counters().stray > 0);
    // With somebody else the same connection comes up.
    world.by_itself();
    world.up(0);
    world.settle();
    world.agree(1);
}
