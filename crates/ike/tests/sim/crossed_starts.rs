//! Two gateways that begin at once: whichever way their messages cross, and whichever of them is lost, both have the same
//! IKE SAs in the end, and the same pairs.

use crate::world::World;
use ike::message::IkeSpi;
use std::collections::BTreeSet;
use std::time::Duration;

/// Messages that are delivered by hand, at most: both sides' IKE_SA_INIT and IKE_AUTH, asked and answered.
const MESSAGES: usize = 8;

/// A begins, and B after `later` deliveries. Where both have a message under way, `order` says each time whether B's is
/// delivered first; the message with the number `lost` is lost, and comes again by the clock. Returns whether an IKE SA gave
/// way to another; what `order` does not say becomes A's turn, and is added to it.
fn play(order: &mut Vec<bool>, later: usize, lost: Option<usize>) -> bool {
    let mut world = World::new();
    world.change(1, |c| c.remote_address = "192.0.2.1".parse().ok());
    world.by_hand();
    world.up(0);
    let (mut did, mut turns) = (String::new(), 0);
    for n in 0..MESSAGES {
        if n == later {
            world.up(1);
            did.push_str(" b.up");
        }
        let waits = [0, 1].map(|side| !world.oldest(side).is_empty());
        let side = match waits {
            [false, false] => break,
            [true, true] => {
                if turns == order.len() {
                    order.push(false);
                }
                turns += 1;
                usize::from(order[turns - 1])
            }
            [a, _] => usize::from(!a),
        };
        let name = ["a", "b"][side];
        world.run_for(Duration::from_millis(5));
        if lost == Some(n) {
            did.push_str(&format!(" {name}!"));
            world.lose(side);
        } else {
            did.push_str(&format!(" {name}>"));
            world.deliver(side, false);
        }
    }
    world.by_itself();
    world.run_for(Duration::from_secs(60));

    let spis = |side: usize| -> BTreeSet<[IkeSpi; 2]> {
        let rows = world.hosts[side].endpoint.rows();
        rows.iter()
            .map(|row| if side == 0 { [row.ike, row.peer_spi] } else { [row.peer_spi, row.ike] })
            .collect()
    };
    let words = || format!("{did}\nA: {}\nB: {}", world.hosts[0].words(), world.hosts[1].words());
    assert_eq!(spis(0), spis(1), "the same IKE SAs after{}", words());
    assert!(!spis(0).is_empty(), "one stays after{}", words());
    let [a, b] = &world.hosts;
    assert!(!a.pairs.is_empty() && a.pairs.len() == b.pairs.len(), "the same pairs after{}", words());
    world.consistent();
    [a, b].iter().any(|host| host.words().contains("the same peer began anew"))
}

/// All orders, one after the other; how many there were, and in how many an IKE SA gave way.
fn play_all(lost: Option<usize>) -> (usize, usize) {
    let (mut all, mut gave_way) = (0, 0);
    for later in 0..5 {
        let mut order = Vec::new();
        loop {
            all += 1;
            gave_way += usize::from(play(&mut order, later, lost));
            // The last turn of A's becomes B's, and what comes after it is open again.
            let Some(last) = order.iter().rposition(|b| !b) else { break };
            order.truncate(last);
            order.push(true);
        }
    }
    (all, gave_way)
}

#[test]
fn both_begin_at_once_and_agree_in_whichever_order_their_messages_come() {
    let (all, gave_way) = play_all(None);
    // In some of them both IKE SAs stay, in others one gives way.
    assert!(all > 20 && 0 < gave_way && gave_way < all, "{all} {gave_way}");
}

#[test]
fn both_begin_at_once_and_agree_whichever_message_is_lost() {
    let all: usize = (0..MESSAGES).map(|lost| play_all(Some(lost)).0).sum();
    assert!(all > 100, "{all}");
}
