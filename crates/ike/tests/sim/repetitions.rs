//! When a request that nobody answers is repeated, and when that ends (RFC 7296 §2.1, §2.4).

use crate::world::{Fate, World};
use ike::event::Event;
use std::time::Duration;

const MILLISECOND: Duration = Duration::from_millis(1);

/// When a side sends, after it has first done so, until it says that nobody answers, and when it says so.
fn moments(world: &mut World, side: usize) -> (Vec<Duration>, Duration) {
    let (began, mut at, mut sent) = (world.now, vec![Duration::ZERO], world.sent);
    loop {
        world.run_for(world.hosts[side].endpoint.deadline().since(world.now));
        let since = world.now.since(began);
        let gone = world.hosts[side].events.iter().any(|event| match event {
            Event::Failed { why, .. } | Event::IkeDown { why, .. } => {
                why.to_string().contains("no answer from")
            }
            _ => false,
        });
        if gone {
            return (at, since);
        }
        assert!(world.sent <= sent + 1 && since < Duration::from_secs(3600));
        if world.sent > sent {
            at.push(since);
            sent = world.sent;
        }
    }
}

/// After half a second, and then each time 1.8 times as long and ten seconds at most, to which up to a tenth is added; for a
/// minute.
fn is_as_it_should_be((at, over): &(Vec<Duration>, Duration)) {
    let (mut wait, mut more) = (Duration::from_millis(500), false);
    for (n, pair) in at.windows(2).enumerate() {
        let gap = pair[1] - pair[0];
        let most = if n == 0 { wait } else { wait.mul_f64(1.1) };
        assert!((wait..=most + MILLISECOND).contains(&gap), "{n}: {gap:?}, and not {wait:?} to {most:?}");
        more |= gap > wait + MILLISECOND;
        wait = wait.mul_f64(1.8).min(Duration::from_secs(10));
    }
    assert!(more, "nothing is ever added: {at:?}");
    assert!((10..=12).contains(&at.len()), "{at:?}");
    assert!((*over - Duration::from_secs(60)) <= MILLISECOND, "{over:?}");
}

#[test]
fn a_request_is_repeated_ever_more_seldom_and_never_by_all_at_once_until_the_peer_is_gone() {
    // A first message, of either side: each has a jitter of its own.
    let first = [0, 1].map(|side| {
        let mut world = World::new();
        world.fate(Fate::Lost);
        world.up(side);
        moments(&mut world, side)
    });
    first.iter().for_each(is_as_it_should_be);
    assert_ne!(first[0].0, first[1].0);
    // And whether a peer is there with whom all was well.
    let mut world = World::new();
    for side in 0..2 {
        world.change(side, |c| c.times.liveness = None);
    }
    world.up(0);
    world.settle();
    world.agree(1);
    world.fate(Fate::Lost);
    let now = world.now;
    world.hosts[0].endpoint.ask_alive(now);
    world.drain();
    let alive = moments(&mut world, 0);
    is_as_it_should_be(&alive);
    assert_ne!(alive.0, first[0].0);
}
