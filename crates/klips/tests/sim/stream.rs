//! Offloads change nothing: whatever is cut on one side and merged on the other, each flow is the one it would have been.

use crate::Gso;
use crate::device::seen;
use crate::flow::{ACK, CWR, ECE, FIN, Flow, Handed, PSH, name};
use crate::host::{Host, Setup, Side};
use crate::net::{Random, Weather, clear_sky, weathers};
use klips::{Discard, Limits, SaState, Verdict, Vnet};
use std::collections::BTreeMap;

/// Packets by flow, as one who knows RFC 6864 sees them.
fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<(u8, [u8; 4]), Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for packet in packets {
        flows.entry(name(packet)).or_default().push(seen(packet));
    }
    flows
}

/// What eight senders hand over, in turns and in bursts, and of every kind.
fn script(setup: &Setup, random: &mut Random, turns: usize) -> Vec<Handed> {
    let mut flows: Vec<Flow> = (0..8).map(|n| Flow::number(n, setup)).collect();
    let mut handed = Vec::new();
    while handed.len() < turns {
        let flow = random.next() as usize % flows.len();
        for _ in 0..=random.next() % 4 {
            let len = match random.next() % 8 {
                0 => 1 + random.next() as usize % 1199,
                1 => 6 * 1200,
                2 => 1 + random.next() as usize % 12_000,
                _ => 1200,
            };
            let flags = match random.next() % 12 {
                0 => ACK | PSH,
                1 => ACK | ECE,
                2 => ACK | CWR,
                3 => ACK | FIN | PSH,
                _ => ACK,
            };
            if random.chance(25) {
                flows[flow].tos ^= 0x03;
            }
            handed.push(flows[flow].next(len, flags, random.chance(500)));
        }
    }
    handed
}

/// Offers what was handed over; without offloads it is packets with finished checksums that are handed over.
fn offer(left: &mut Host, handed: &Handed, offloads: bool) {
    let single = Vnet::default();
    let whole = [(&handed.vnet, &handed.packet)];
    let parts = handed.means.iter().map(|packet| (&single, packet));
    let all: Vec<_> = if offloads { whole.into_iter().collect() } else { parts.collect() };
    for (vnet, packet) in all {
        let verdict = left.offer(vnet, packet);
        let over =
            Verdict::Discard(Discard::Expired) == verdict || Verdict::Discard(Discard::NoSa) == verdict;
        assert!(verdict == Verdict::Send || over, "{verdict:?}");
    }
}

/// Runs one script over one wire and hands what arrives to a host that merges and to one that does not.
fn over(weather: &Weather, setup: &Setup, offloads: bool) -> [Host; 2] {
    let [mut left, merging] = Setup { merge: true, ..*setup }.pair();
    let [_, plain] = Setup { merge: false, ..*setup }.pair();
    let mut hosts = [merging, plain];
    let mut random = Random::new(weather.seed + 77);
    let mut net = setup.wire(Side::Left, weather);
    let handed = script(setup, &mut random, 120);
    let turns = handed.len();
    let mut means = Vec::new();
    let mut waiting = Vec::new();
    for (n, handed) in handed.iter().enumerate() {
        means.extend(handed.means.iter().cloned());
        offer(&mut left, handed, offloads);
        // As many in a batch as the device happens to have.
        let last = n + 1 == turns;
        if random.chance(600) && !last {
            continue;
        }
        let mut arrived = net.carry(left.flush());
        if last {
            arrived.extend(net.settle());
        }
        for mut datagram in arrived {
            // Queues on the way mark what may be marked.
            if random.chance(20) && datagram.tos & 3 != 0 && weather.loss > 0 {
                datagram.tos |= 3;
            }
            waiting.push(datagram);
        }
        // Workers take what there is, now more, now less.
        if random.chance(333) {
            hosts.iter_mut().for_each(|host| host.receive(&waiting));
            waiting.clear();
        }
    }
    hosts.iter_mut().for_each(|host| host.receive(&waiting));
    assert_eq!(left.refused(), []);

    // Merging changes neither what arrives nor its order, whatever the wire did.
    let [merging, plain] = &hosts;
    let label = format!("{}, inner6 {}, udp {}, offloads {offloads}", weather.name, setup.inner6, setup.udp);
    assert_eq!(merging.refused(), plain.refused(), "{label}");
    assert!(by_flow(&merging.delivered) == by_flow(&plain.delivered), "{label}: merging changed a flow");
    assert_eq!(plain.writes, plain.delivered.len());
    if weather.loss + weather.reordering + weather.damage + weather.duplication == 0 {
        assert_eq!(merging.refused(), [], "{label}");
        assert!(by_flow(&means) == by_flow(&plain.delivered), "{label}: cutting changed a flow");
    }
    hosts
}

#[test]
fn a_flow_is_the_same_with_offloads_on_and_off_at_either_end() {
    for weather in weathers() {
        for (inner6, udp) in [(false, true), (true, true), (false, false), (true, false)] {
            let setup = Setup { inner6, udp, esn: inner6, window: 4096, ..Setup::default() };
            for offloads in [true, false] {
                let _ = over(&weather, &setup, offloads);
            }
        }
    }
}

/// So that the test above is about something: most of what can be merged is.
#[test]
fn many_packets_of_interleaved_flows_become_few_writes() {
    for inner6 in [false, true] {
        let setup = Setup { inner6, udp: true, ..Setup::default() };
        let [merging, plain] = over(&clear_sky(), &setup, true);
        assert!(merging.writes * 2 < plain.writes, "{} for {}", merging.writes, plain.writes);
    }
}

/// A superpacket of each kind that is sent at once and received at once is one write again, and the very same one.
#[test]
fn a_superpacket_that_meets_no_trouble_comes_out_as_it_went_in() {
    for setup in Setup::default().shapes() {
        for n in 0..6 {
            let [mut left, mut right] = setup.pair();
            let handed = Flow::number(n, &setup).next(10 * 1200 + if n % 3 == 2 { 0 } else { 7 }, ACK, true);
            assert_ne!(handed.vnet.gso, Gso::None);
            let (_, sent) = left.send(&handed.vnet, &handed.packet);
            assert_eq!(sent.len(), handed.means.len());
            right.receive(&sent);
            assert_eq!((right.writes, right.take()), (1, handed.means), "{setup:?}, flow {n}");
        }
    }
}

/// The hard limit lies where it lies, also in the middle of a superpacket: what came before it is whole and arrives.
#[test]
fn a_superpacket_that_meets_a_limit_passes_as_far_as_single_packets_would() {
    for n in [0, 2, 5] {
        for whole in 0..=6_u64 {
            let base = Setup { udp: true, ..Setup::default() };
            let handed = Flow::number(n, &base).next(5 * 1200 + 300, ACK, true);
            // One octet more than the first `whole` packets have: the next would pass it, the short last one too.
            let size: u64 = handed.means[..whole as usize].iter().map(|packet| packet.len() as u64).sum();
            let limits = Limits { soft_bytes: 0, hard_bytes: size + 1, ..Limits::default() };
            let setup = Setup { limits, ..base };
            let mut hosts = [true, false].map(|offloads| {
                let [mut left, _] = setup.pair();
                let [_, mut right] = base.pair();
                for _ in 0..3 {
                    offer(&mut left, &handed, offloads);
                }
                right.receive(&left.flush());
                // The packet that met the limit is refused as expired; what comes later finds no SA.
                let [no_sa, expired] = [Discard::NoSa, Discard::Expired].map(|why| left.plane.discarded(why));
                assert_eq!((left.refused().len(), expired + no_sa), (2, 18 - whole), "offloads {offloads}");
                assert_eq!((left.sends.bytes(), left.sends.sent()), (size, whole));
                assert_eq!(left.sends.state(), SaState::Dead);
                right
            });
            for right in &mut hosts {
                assert_eq!(right.take(), handed.means[..whole as usize], "flow {n}");
                assert_eq!(right.refused(), []);
            }
        }
    }
}
