//! Somebody on the way who takes the post-quantum key exchange out of the first messages (RFC 9370 §2.2.1, RFC 9242 §3.3.2):
//! what both could do, both do, or there is no tunnel.

use crate::world::World;
use ike::message::{Exchange, Header, Message, NotifyKind, Payload};
use ike::proposal::{Kind, Transform};
use ipsec_core::kex::Group;
use std::time::Duration;

/// What is taken out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    Nothing,
    /// The transforms of additional key exchanges.
    Transforms,
    /// The best of them.
    Best,
    /// INTERMEDIATE_EXCHANGE_SUPPORTED.
    Notify,
    /// Transforms and notification.
    All,
}

fn stripped(octets: &[u8], loss: Loss) -> Vec<u8> {
    let mut message = Message::parse(octets).unwrap();
    let goes = |transform: &Transform| match (transform.kind, loss) {
        (Kind::Additional(_), Loss::Transforms | Loss::All) => true,
        (Kind::Additional(_), Loss::Best) => transform.number == Group::MlKem1024.number(),
        _ => false,
    };
    let is_word = |payload: &Payload| matches!(payload, Payload::Notify(notify) if notify.kind == NotifyKind::IntermediateExchangeSupported);
    message.payloads.retain(|payload| !(matches!(loss, Loss::Notify | Loss::All) && is_word(payload)));
    for payload in &mut message.payloads {
        if let Payload::Sa(proposals) = payload {
            proposals.iter_mut().for_each(|proposal| proposal.transforms.retain(|one| !goes(one)));
        }
    }
    let less = message.emit();
    // A refusal has nothing that could be taken out.
    let refusal = !message.payloads.iter().any(|payload| matches!(payload, Payload::Sa(_)));
    assert_eq!(less.len() < octets.len(), loss != Loss::Nothing && !refusal, "{loss:?} from {message:?}");
    less
}

/// West and east, each of which insists on a post-quantum key exchange, or merely can do it. The best is what both prefer.
fn world(insist: [bool; 2]) -> World {
    let mut world = World::new();
    for (side, insists) in insist.into_iter().enumerate() {
        let mut groups = vec![Some(Group::MlKem1024), Some(Group::MlKem512)];
        groups.extend((!insists).then_some(None));
        world.change(side, |c| c.ike[0].additional = vec![groups]);
    }
    world
}

/// Nobody believes to be connected without the best that both can do, nor before the shares of it have been `exchanged` both
/// ways. Says who does.
fn is_kept(world: &World, exchanged: [bool; 2]) -> [bool; 2] {
    world.hosts.each_ref().map(|host| {
        let rows = host.endpoint.rows();
        let mut known = rows.iter().filter(|row| row.peer.is_some()).peekable();
        let is = known.peek().is_some();
        assert!(is || host.pairs.is_empty());
        for row in known {
            let algorithms = row.algorithms.as_deref().unwrap_or_default();
            assert!(algorithms.contains("ke1_mlkem1024"), "{algorithms}\n{}", host.words());
            assert_eq!(exchanged, [true; 2], "{}", host.words());
        }
        is
    })
}

#[test]
fn nobody_on_the_way_can_have_two_do_without_the_post_quantum_key_exchange_that_both_can_do() {
    for insist in [[true, true], [true, false], [false, true], [false, false]] {
        for loss in [Loss::Nothing, Loss::Transforms, Loss::Best, Loss::Notify, Loss::All] {
            for side in 0..2 {
                // The responder has chosen already.
                if (side, loss) == (1, Loss::Best) {
                    continue;
                }
                let mut world = world(insist);
                world.by_hand();
                world.up(0);
                let mut exchanged = [false; 2];
                for _ in 0..100 {
                    // From message to message, repetitions included: not even for a moment.
                    while let Some((from, sent)) = (0..2).find_map(|from| Some((from, world.take(from)?))) {
                        let (header, ..) = Header::parse(&sent.octets).unwrap();
                        let goes = from == side && header.exchange == Exchange::IkeSaInit;
                        let octets = if goes { stripped(&sent.octets, loss) } else { sent.octets.clone() };
                        exchanged[from] |= header.exchange == Exchange::IkeIntermediate;
                        world.give(from, &sent, &octets);
                        is_kept(&world, exchanged);
                    }
                    world.run_for(Duration::from_secs(1));
                }
                assert_eq!(
                    is_kept(&world, exchanged),
                    [loss == Loss::Nothing; 2],
                    "{loss:?} of {side}, {insist:?}"
                );
            }
        }
    }
}
