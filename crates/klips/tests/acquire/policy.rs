//! Policy that changes while packets wait.

use crate::host::{Host, START, acquires, replace_flow};
use klips::{Discard, Route};
use pfkey::FlowAction;
use std::time::Duration;

#[test]
fn the_eroute_that_replaces_the_trap_lets_packets_go_that_came_after_the_sa() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    host.add(manager, seq, 0x2002, true);
    assert_eq!(host.released().len(), 1);
    // The trap is still there, and other hosts need their own answer.
    host.trapped(7, 2);
    host.trapped(8, 3);
    assert_eq!(host.released().len(), 0);
    host.ask(manager, replace_flow(FlowAction::Protect, 0x2002));
    let mut marks: Vec<u8> = host.released().iter().map(|packet| packet[8 + 40]).collect();
    marks.sort_unstable();
    assert_eq!(marks, [2, 3]);
    // Nothing is left to expire.
    host.now = START.after(Duration::from_secs(15));
    host.control.expire(host.now);
    assert_eq!(host.dropped(), 0);
}

#[test]
fn a_packet_that_waits_goes_by_the_policy_there_is_when_it_goes() {
    for (action, why) in [(FlowAction::Drop, Discard::Drop), (FlowAction::Reject, Discard::Reject)] {
        let mut host = Host::trap();
        let manager = host.manager(false);
        host.trapped(9, 1);
        let seq = acquires(&host.heard(manager))[0].base.seq;
        // Into the engine's hands, and the policy changes before it looks.
        let (now, add) = (host.now, host.add_record(seq, 0x2002, true));
        host.control.request(manager, &add, now);
        host.ask(manager, replace_flow(action, 0));
        if host.plane.take_returned() {
            assert!(!host.outbound.returned(now, &mut host.sealed));
        }
        assert!(host.sealed.runs().all(|run| run.route == Route::Back), "{action:?}: it was sent");
        assert_eq!(host.counters.count(why), 1);
    }
}
