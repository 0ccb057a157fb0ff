//! A host whose threads are busy for a long time with what some have asked for: everybody else goes on.

use crate::hostile::from;
use crate::outsider::first;
use crate::world::World;
use ike::event::Event;
use ike::job::{Job, JobId};
use ipsec_core::kex::Group;
use std::time::Duration;

/// Jobs that a host has and does not come to an end with.
fn never_done(world: &mut World) -> Vec<(JobId, Job)> {
    std::iter::from_fn(|| world.hosts[1].endpoint.job()).collect()
}

/// First messages of one source, each for an IKE SA of its own: as many as it may have without a cookie.
const EACH: u64 = 4;

fn flood(world: &mut World, source: u32) {
    let (to, now) = ("192.0.2.2:500".parse().unwrap(), world.now);
    for n in 0..EACH {
        let octets = first(world, u64::from(source) * 100 + n, None, vec![]);
        world.hosts[1].endpoint.datagram(to, from(source), &octets, now);
    }
}

#[test]
fn key_exchanges_of_one_source_that_never_end_delay_nobody_else() {
    for most in [4, 8, 32] {
        let mut world = World::new();
        for side in 0..2 {
            world.change(side, |c| {
                c.child.offers[0].groups = vec![Group::X25519];
                c.times.liveness = Some(Duration::from_secs(30));
            });
        }
        world.hosts[1].endpoint.set_jobs(most);
        flood(&mut world, 7);
        let slow = never_done(&mut world);
        assert_eq!(slow.len(), (most / 4).min(EACH as usize), "one source has a quarter");
        // A peer that nobody knows yet comes up, at once.
        world.up(0);
        world.settle();
        world.agree(1);
        assert_eq!(world.sent, 4, "nothing had to be said twice");
        // Strangers together have half, however many they are. The peer is known by now, and all it wants is done.
        for source in 10..20 {
            flood(&mut world, source);
        }
        let slower = never_done(&mut world);
        assert_eq!(slow.len() + slower.len(), most / 2);
        // To some of them cookies go.
        world.drain();
        for (side, ike) in [(0, false), (1, false), (0, true), (1, true)] {
            let sent = world.sent;
            let now = world.now;
            assert!(world.hosts[side].endpoint.rekey("net", ike, now));
            world.settle();
            world.agree(1);
            assert_eq!(world.sent - sent, 4, "nothing had to be said twice");
        }
        // Nor do its timers wait: four hours of rekeying, liveness and keepalives.
        world.run_for(Duration::from_secs(4 * 3600));
        world.agree(1);
        assert_eq!(world.gaps, 0);
        let rekeyed = |event: &&Event| matches!(event, Event::IkeRekeyed { .. });
        assert!(world.hosts[1].events.iter().filter(rekeyed).count() >= 3);
        // What is done in the end is for nobody any more.
        for (id, job) in slow.into_iter().chain(slower) {
            let Ok(answer) = job.run() else { continue };
            let now = world.now;
            world.hosts[1].endpoint.answer(id, answer, now);
        }
        world.settle();
        world.agree(1);
        assert_eq!(world.hosts[1].endpoint.rows().len(), 1);
    }
}
