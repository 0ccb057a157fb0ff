//! Lifetimes and rekeying, from the key manager's ADD to the packets on the wire.

use crate::device::seen;
use crate::flow::{ACK, Flow, name};
use crate::gateway::{Expired, Gateway, Lives, at};
use crate::host::{Setup, Side};
use crate::ip;
use crate::net::{Datagram, Net, Random, Weather, clear_sky, weathers};
use klips::{Discard, Limits, Verdict, Vnet};
use pfkey::Lifetime;
use std::collections::{BTreeMap, VecDeque};

const NONE: Lives = [Lifetime { allocations: 0, bytes: 0, addtime: 0, usetime: 0 }; 2];

/// What was heard, and in which second.
type Moments = Vec<(u64, Expired)>;

/// Pings from left to right every ten seconds from the fifth on; what each side's listener heard, and when; how many
/// pings arrived.
fn lived(setup: &Setup, lives: Lives) -> ([Moments; 2], usize, [Gateway; 2]) {
    let mut gateways = Gateway::pair(setup, lives);
    let mut net = setup.wire(Side::Left, &clear_sky());
    let mut heard = [Vec::new(), Vec::new()];
    for second in 0..200 {
        for half in 0..2 {
            for (gateway, heard) in gateways.iter_mut().zip(&mut heard) {
                gateway.pass_until(at(second));
                heard.extend(gateway.hear().into_iter().map(|expired| (second, expired)));
            }
            if half == 0 && second % 10 == 5 {
                let ping = ip::ping(setup.inner(Side::Left), setup.inner(Side::Right), second as u16, 56);
                let [left, right] = &mut gateways;
                let (_, sent) = left.host.send(&Vnet::default(), &ping);
                right.host.receive(&net.carry(sent));
            }
        }
    }
    let arrived = gateways[1].host.take().len();
    (heard, arrived, gateways)
}

#[test]
fn each_lifetime_is_told_to_who_listens_when_it_is_over_and_at_the_hard_one_traffic_stops() {
    let setup = Setup::default();
    let life = |bytes, addtime, usetime| Lifetime { allocations: 0, bytes, addtime, usetime };
    let (out, back) = (setup.spi(Side::Left).0, setup.spi(Side::Right).0);
    let both = |when, what: fn(u32) -> Expired| [(when, what(out)), (when, what(back))];
    let used = |soft: u64, hard: u64| vec![(soft, Expired::Soft(out)), (hard, Expired::Hard(out))];
    let added = [both(60, Expired::Soft), both(100, Expired::Hard)].concat();
    // A ping is 84 octets: with the fourth 300 are passed, the seventh would make it 588. The receiver never sees that.
    let bytes = [used(35, 65), vec![(35, Expired::Soft(out))]];
    for (name, lives, expected, arrived) in [
        ("bytes", [life(300, 0, 0), life(588, 0, 0)], bytes, 6),
        ("addtime", [life(0, 60, 0), life(0, 100, 0)], [added.clone(), added], 10),
        ("usetime", [life(0, 0, 60), life(0, 0, 100)], [used(65, 105), used(65, 105)], 10),
        (
            "whichever is first",
            [life(0, 0, 60), life(504, 150, 0)],
            [
                [(55, Expired::Hard(out)), (150, Expired::Hard(back))].to_vec(),
                [(65, Expired::Soft(out)), (150, Expired::Hard(out)), (150, Expired::Hard(back))].to_vec(),
            ],
            5,
        ),
    ] {
        let (heard, got, [left, right]) = lived(&setup, lives);
        assert_eq!(heard, expected, "{name}");
        assert_eq!(got, arrived, "{name}");
        assert_eq!(left.host.sends.sent(), arrived as u64, "{name}");
        let refused: u64 = left.host.refused().iter().map(|(_, n)| n).sum();
        assert_eq!(refused as usize, 20 - arrived, "{name}: {:?}", left.host.refused());
        let ended = |why| matches!(why, Discard::Expired | Discard::NoSa);
        assert!(left.host.refused().iter().all(|(why, _)| ended(*why)), "{name}");
        assert_eq!(right.host.refused(), [], "{name}");
    }
}

#[test]
fn a_limit_of_packets_is_told_and_kept_like_one_of_bytes() {
    let limits = Limits { soft_packets: 4, hard_packets: 7, ..Limits::default() };
    let setup = Setup { limits, ..Setup::default() };
    let out = setup.spi(Side::Left).0;
    let (heard, arrived, [left, right]) = lived(&setup, NONE);
    assert_eq!(
        heard,
        [vec![(35, Expired::Soft(out)), (65, Expired::Hard(out))], vec![(35, Expired::Soft(out))]]
    );
    assert_eq!((arrived, left.host.sends.sent(), left.host.sends.packets()), (6, 6, 6));
    assert_eq!((left.host.plane.discarded(Discard::Expired), right.host.refused()), (1, vec![]));
}

#[test]
fn sequence_numbers_that_are_used_up_are_a_hard_lifetime() {
    for esn in [false, true] {
        let setup = Setup { esn, ..Setup::default() };
        let [mut left, _] = Gateway::pair(&setup, NONE);
        let end = if esn { u64::MAX } else { u64::from(u32::MAX) };
        left.host.sends.continue_after(end - 2);
        let ping = ip::ping(setup.inner(Side::Left), setup.inner(Side::Right), 1, 56);
        let sent: Vec<usize> = (0..4).map(|_| left.host.send(&Vnet::default(), &ping).1.len()).collect();
        assert_eq!(sent, [1, 1, 0, 0]);
        left.pass_until(at(1));
        assert_eq!(left.hear(), [Expired::Hard(setup.spi(Side::Left).0)]);
        assert!(left.host.refused().contains(&(Discard::SequenceExhausted, 1)));
    }
}

/// What is under way, by flow.
#[derive(Default)]
struct Ledger {
    under_way: BTreeMap<(u8, [u8; 4]), VecDeque<Vec<u8>>>,
    packets: usize,
}

impl Ledger {
    fn sent(&mut self, packets: &[Vec<u8>]) {
        for packet in packets {
            self.under_way.entry(name(packet)).or_default().push_back(seen(packet));
            self.packets += 1;
        }
    }

    /// Strikes out what arrived; in its flow's order if it must be.
    fn arrived(&mut self, packets: &[Vec<u8>], in_order: bool) {
        for packet in packets {
            let flow = self.under_way.get_mut(&name(packet)).expect("a flow of ours");
            let packet = seen(packet);
            let place = flow.iter().position(|sent| *sent == packet).expect("sent, and not arrived before");
            assert!(place == 0 || !in_order, "overtook {place} packets");
            flow.remove(place);
        }
    }

    fn is_settled(&self) -> bool {
        self.under_way.values().all(VecDeque::is_empty)
    }
}

/// When the receiver has the keys of a new SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// Before anybody sends on it.
    First,
    /// Some packets later: the sender uses it as it answers.
    Late,
}

/// Eight flows from left to right, and a rekey after every `turns` superpackets, `rekeys` times.
fn rekeyed(
    weather: &Weather,
    size: usize,
    turns: usize,
    (rekeys, keys): (u8, Keys),
    mut net: Net,
) -> (Ledger, [Gateway; 2]) {
    let mut setup = Setup { udp: true, window: 4096, ..Setup::default() };
    let [mut left, mut right] = Gateway::pair(&setup, NONE);
    let mut flows: Vec<Flow> = (0..8).map(|n| Flow::number(n, &setup)).collect();
    flows.iter_mut().for_each(|flow| flow.size = size);
    let mut random = Random::new(weather.seed);
    let mut ledger = Ledger::default();
    let in_order = weather.reordering == 0;
    let deliver = |right: &mut Gateway, ledger: &mut Ledger, arrived: Vec<Datagram>| {
        right.host.receive(&arrived);
        ledger.arrived(&right.host.take(), in_order);
    };
    let mut second = 0;
    for generation in 0..=rekeys {
        let mut old = None;
        if generation > 0 {
            // As a key manager does it: first who receives, then who sends; the old SA goes when nothing comes on it.
            let next = Setup { generation, ..setup };
            match keys {
                Keys::First => right.add(&next, Side::Left, NONE),
                Keys::Late => right.reserve(&next, Side::Left),
            }
            left.add(&next, Side::Left, NONE);
            left.switch_to(&next);
            old = Some(core::mem::replace(&mut setup, next));
        }
        for turn in 0..turns {
            let flow = random.next() as usize % flows.len();
            let parts = if random.chance(300) { 1 } else { 1 + random.next() as usize % 16 };
            let handed = flows[flow].next(parts * size, ACK, random.chance(500));
            assert_eq!(left.host.offer(&handed.vnet, &handed.packet), Verdict::Send);
            ledger.sent(&handed.means);
            if turn == turns / 2
                && let Some(old) = old.take()
            {
                right.delete(old.id(Side::Left));
            }
            // The rekey comes while packets wait for their batch to end.
            if random.chance(500) || turn == 3 {
                let sent = left.host.flush();
                let spi = setup.spi(Side::Left).0.to_be_bytes();
                let old = sent.iter().take_while(|datagram| !datagram.octets.starts_with(&spi)).count();
                assert!(sent[old..].iter().all(|datagram| datagram.octets.starts_with(&spi)));
                assert!(old == 0 || turn <= 3, "the old SA was used");
                let arrived = net.carry(sent);
                deliver(&mut right, &mut ledger, arrived);
            }
            if turn == 3 && generation > 0 && keys == Keys::Late {
                right.hatch(&setup, Side::Left);
                ledger.arrived(&right.host.take(), in_order);
            }
            if turn == 3 && generation > 0 {
                left.delete(Setup { generation: generation - 1, ..setup }.id(Side::Left));
            }
        }
        second += 1;
        left.pass_until(at(second));
        right.pass_until(at(second));
    }
    let mut arrived = net.carry(left.host.flush());
    arrived.extend(net.settle());
    deliver(&mut right, &mut ledger, arrived);
    (ledger, [left, right])
}

#[test]
fn a_rekey_under_load_loses_nothing() {
    for weather in weathers().into_iter().filter(|w| w.loss + w.damage + w.duplication == 0 && w.delay < 100)
    {
        let setup = Setup::default();
        let net = setup.wire(Side::Left, &weather);
        let (ledger, [left, right]) = rekeyed(&weather, 600, 40, (8, Keys::First), net);
        assert!(ledger.is_settled() && ledger.packets > 1000, "{}: {}", weather.name, ledger.packets);
        assert_eq!((left.host.refused(), right.host.refused()), (vec![], vec![]), "{}", weather.name);
        assert_eq!(left.host.clear.len(), 0);
    }
}

/// A responder may send on a new pair as it answers, and its packets overtake what the key managers say to each other.
#[test]
fn a_peer_that_sends_before_we_have_the_keys_loses_nothing() {
    for weather in weathers().into_iter().filter(|w| w.loss + w.damage + w.duplication == 0 && w.delay < 100)
    {
        let net = Setup::default().wire(Side::Left, &weather);
        let (ledger, [left, right]) = rekeyed(&weather, 600, 40, (8, Keys::Late), net);
        assert!(ledger.is_settled() && ledger.packets > 1000, "{}: {}", weather.name, ledger.packets);
        assert_eq!((left.host.refused(), right.host.refused()), (vec![], vec![]), "{}", weather.name);
    }
}

/// The short form of a soak: enough packets that whatever goes wrong once in a hundred thousand goes wrong here.
#[test]
fn of_200_000_packets_with_20_rekeys_none_is_lost_and_none_overtakes_another_of_its_flow() {
    let net = Net::new(&clear_sky());
    let (ledger, [left, right]) = rekeyed(&clear_sky(), 40, 1570, (20, Keys::First), net);
    assert!(ledger.is_settled() && ledger.packets > 200_000, "{}", ledger.packets);
    assert_eq!((left.host.refused(), right.host.refused()), (vec![], vec![]));
    assert!(right.host.writes * 3 < ledger.packets);
}
