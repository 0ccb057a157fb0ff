//! An attacker on the wire: who has every packet that was ever sent, and may send whatever he likes.

use crate::host::{Host, Setup, Side};
use crate::ip;
use crate::net::{Datagram, Random};
use ipsec_core::{Selector, Time};
use klips::{Discard, Sa, Vnet};
use std::sync::Arc;

/// Everything about a receiver that only a genuine, new packet may move.
fn standing(host: &Host) -> (u64, u64, u64, Option<Time>) {
    let sa = &host.receives;
    (sa.bytes(), sa.packets(), sa.received(), sa.last_use())
}

fn pings(left: &mut Host, setup: &Setup, count: u16) -> Vec<Datagram> {
    let (src, dst) = (setup.inner(Side::Left), setup.inner(Side::Right));
    let send =
        |number| left.send(&Vnet::default(), &ip::ping(src, dst, number, 40 + usize::from(number % 9))).1;
    (0..count).flat_map(send).collect()
}

#[test]
fn a_capture_played_again_in_any_order_and_to_either_end_moves_nothing() {
    for (window, esn, udp) in [(32, false, true), (64, true, true), (1024, false, false), (4096, true, false)]
    {
        let setup = Setup { window, esn, udp, ..Setup::default() };
        let [mut left, mut right] = setup.pair();
        let capture = pings(&mut left, &setup, 300);
        right.receive(&capture);
        assert_eq!(right.take().len(), 300);
        let (before, _) = (standing(&right), (left.events(), right.events()));
        let late = Time::from_secs(5000);
        (left.now, right.now) = (late, late);

        let mut shuffled = capture.clone();
        let mut random = Random::new(4);
        shuffled.sort_by_cached_key(|_| random.next());
        let backwards: Vec<Datagram> = capture.iter().rev().cloned().collect();
        for again in [&capture, &backwards, &shuffled] {
            right.receive(again);
            again.iter().for_each(|one| right.receive(std::slice::from_ref(one)));
        }
        // Back to where it came from: he has no such SA to receive on.
        for datagram in &capture {
            let ports = datagram.ports.map(|[from, to]| [to, from]);
            left.receive(&[Datagram { src: datagram.dst, dst: datagram.src, ports, ..datagram.clone() }]);
        }
        assert_eq!((right.take().len(), left.take().len()), (0, 0));
        assert_eq!((standing(&right), right.events()), (before, vec![]));
        assert_eq!((standing(&left), left.events()), ((0, 0, 0, None), vec![]));
        assert_eq!(left.refused(), [(Discard::NoSa, 300)]);
        // With ESN what lies behind the window can only be of the next cycle, and its ICV says that it is not.
        let behind = 6 * 300_u64.saturating_sub(window.into());
        let old = if esn { Discard::Forged } else { Discard::ReplayOld };
        let count = |why| right.refused().iter().find(|(w, _)| *w == why).map_or(0, |(_, n)| *n);
        assert_eq!((count(Discard::Replayed), count(old)), (1800 - behind, behind), "window {window}");

        let fresh = pings(&mut left, &setup, 1);
        right.receive(&fresh);
        assert_eq!(right.take().len(), 1);
    }
}

/// What an attacker makes of a genuine packet; the last of these is his own work but for the SPI.
fn forgeries(genuine: &Datagram, random: &mut Random) -> Vec<Datagram> {
    let len = genuine.octets.len();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut forged = genuine.clone();
        change(&mut forged.octets);
        forged
    };
    let (bit, cut, junk) = (random.next() as usize % (8 * (len - 8)), random.next(), random.next());
    let ahead = u32::from_be_bytes(genuine.octets[4..8].try_into().unwrap()) + 1000;
    vec![
        with(&|octets| octets[8 + bit / 8] ^= 1 << (bit % 8)),
        with(&|octets| octets[4..8].copy_from_slice(&ahead.to_be_bytes())),
        with(&|octets| octets[len - 1] ^= 0x80),
        with(&|octets| octets.truncate(4 + cut as usize % (len - 4))),
        with(&|octets| octets.extend([0; 16])),
        with(&|octets| {
            octets[8..].iter_mut().enumerate().for_each(|(i, octet)| *octet = junk as u8 ^ i as u8)
        }),
    ]
}

#[test]
fn forgeries_among_genuine_packets_change_nothing_but_the_count_of_what_was_refused() {
    for base in Setup::every_suite() {
        for esn in [false, true] {
            let setup = Setup { esn, udp: esn, ..base };
            let [mut left, mut attacked] = setup.pair();
            let [_, mut quiet] = setup.pair();
            let mut random = Random::new(9);
            let mut forged = 0;
            for burst in pings(&mut left, &setup, 40).chunks(8) {
                let mut mixed = Vec::new();
                for genuine in burst {
                    let forgeries = forgeries(genuine, &mut random);
                    forged += forgeries.len() as u64;
                    mixed.extend(forgeries);
                    mixed.push(genuine.clone());
                }
                attacked.receive(&mixed);
                quiet.receive(burst);
            }
            assert_eq!(attacked.take(), quiet.take(), "{setup:?}");
            assert_eq!((standing(&attacked), attacked.events()), (standing(&quiet), quiet.events()));
            let refused = attacked.refused();
            assert_eq!(refused.iter().map(|(_, n)| n).sum::<u64>(), forged, "{setup:?}: {refused:?}");
            let known = |why| matches!(why, Discard::Forged | Discard::Short);
            assert!(refused.iter().all(|(why, _)| known(*why)), "{setup:?}: {refused:?}");
            assert_eq!(quiet.refused(), []);
        }
    }
}

/// Numbers are judged before keys are touched: whoever floods us with old packets, damaged or not, buys no cryptography.
#[test]
fn an_old_number_is_refused_for_what_it_is_whatever_follows_it() {
    let setup = Setup::default();
    let [mut left, mut right] = setup.pair();
    let capture = pings(&mut left, &setup, 200);
    right.receive(&capture);
    let junk = |datagram: &Datagram| {
        let mut junk = datagram.clone();
        junk.octets[8..].fill(0xee);
        junk
    };
    right.receive(&[junk(&capture[0]), junk(&capture[135]), junk(&capture[136]), junk(&capture[199])]);
    assert_eq!(right.refused(), [(Discard::ReplayOld, 2), (Discard::Replayed, 2)]);
}

/// Whoever has a narrow SA gets no further with it because another SA may carry more.
#[test]
fn what_one_sa_may_carry_another_may_not() {
    for inner6 in [false, true] {
        let wide = Setup { inner6, merge: false, ..Setup::default() };
        let narrow = Setup { generation: 1, ..wide };
        let ([mut left, mut right], [mut other, _]) = (wide.pair(), narrow.pair());
        let mut blueprint = narrow.blueprint(Side::Left, Side::Right);
        let all = narrow.selector(Side::Left);
        blueprint.selector = Some(Selector { proto: ip::UDP, dport: 53, ..all });
        right.plane.publish(Arc::new(Sa::new(blueprint)));
        let packet = |port| ip::udp(wide.inner(Side::Left), wide.inner(Side::Right), [999, port], 0, 1, 40);
        let mut sealed = |wide, port| {
            let sender = if wide { &mut left } else { &mut other };
            sender.send(&Vnet::default(), &packet(port)).1
        };
        // The same flow on both, in one batch and one after the other, and what the narrow one may carry.
        let batch = [sealed(true, 54), sealed(false, 54), sealed(true, 54), sealed(false, 53)].concat();
        right.receive(&batch);
        for wide in [true, false, false, true] {
            right.receive(&sealed(wide, 54));
        }
        let delivered = [54, 54, 53, 54, 54].map(packet);
        assert_eq!((right.take(), right.refused()), (delivered.to_vec(), vec![(Discard::PolicyMismatch, 3)]));
    }
}
