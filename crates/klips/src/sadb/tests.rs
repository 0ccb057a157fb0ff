use super::*;
use crate::sa::{Blueprint, Keys, Limits, Mode, Sa, SaState};
use ipsec_core::algorithm::{Encryption, Suite};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn id(n: u32) -> SaId {
    let dst = match n % 2 {
        0 => IpAddr::from([192, 0, 2, 1]),
        _ => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    };
    let protocol = match n / 2 % 4 {
        0 => Protocol::Ah,
        1 => Protocol::Esp,
        2 => Protocol::Ipip,
        _ => Protocol::Ipcomp,
    };
    SaId { dst, protocol, spi: Spi(0x1000 + n / 8) }
}

fn mature(id: SaId, added: Time, hard: u64, soft: u64) -> Record {
    let limits = |addtime| pfkey::Lifetime { addtime, ..Default::default() };
    let sa = Sa::new(Blueprint {
        id,
        src: IpAddr::from([192, 0, 2, 2]),
        mode: Mode::Tunnel,
        suite: Suite { encryption: Some(Encryption::AesGcm16), auth: None },
        keys: Keys::default(),
        esn: false,
        window: 0,
        encapsulation: None,
        selector: None,
        limits: Limits::default(),
    });
    Record {
        sa: Some(Arc::new(sa)),
        hard: limits(hard),
        soft: limits(soft),
        ..Record::larval(id, IpAddr::from([192, 0, 2, 2]), added)
    }
}

/// What a walk must show of each SA that stays: exactly once.
#[derive(Clone, Copy, Debug)]
enum Op {
    Insert(u32),
    Remove(u32),
    Clear(Option<Protocol>),
    Walk,
    StartWalk,
    Time(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (0..64_u32).prop_map(Op::Insert),
        5 => (0..64_u32).prop_map(Op::Remove),
        1 => prop_oneof![Just(None), Just(Some(Protocol::Ah)), Just(Some(Protocol::Esp))].prop_map(Op::Clear),
        6 => Just(Op::Walk),
        1 => Just(Op::StartWalk),
        3 => (0..40_u64).prop_map(Op::Time),
    ];
    proptest::collection::vec(op, 1..200)
}

proptest! {
    /// Beside a model that keeps everything in one map: names are unique, a walk shows what stays exactly once and
    /// nothing that went, and timers come when due, in order, and for nothing else.
    #[test]
    fn agrees_with_one_map(ops in ops()) {
        let mut sadb = Sadb::default();
        let mut model: BTreeMap<SaId, Time> = BTreeMap::new();
        let mut now = Time::ZERO;
        let mut walk: Option<(Cursor, Vec<SaId>, Vec<SaId>)> = None;
        for op in ops {
            match op {
                Op::Insert(n) => {
                    // Larvals wait 90 s: time moves on by at most 40 s a step.
                    let fresh = sadb.insert(Box::new(Record::larval(id(n), id(n).dst, now)));
                    prop_assert_eq!(fresh.is_ok(), !model.contains_key(&id(n)));
                    model.entry(id(n)).or_insert(now);
                }
                Op::Remove(n) => {
                    let gone = sadb.remove(&id(n)).map(|record| record.id);
                    prop_assert_eq!(gone, model.remove(&id(n)).map(|_| id(n)));
                    if let Some((_, stays, _)) = &mut walk {
                        stays.retain(|x| *x != id(n));
                    }
                }
                Op::Clear(protocol) => {
                    let mut gone = Vec::new();
                    sadb.clear(protocol, |record| gone.push(record.id));
                    let cleared = |id: &SaId| protocol.is_none_or(|p| p == id.protocol);
                    gone.sort();
                    let expected: Vec<_> = model.keys().copied().filter(cleared).collect();
                    prop_assert_eq!(gone, expected);
                    model.retain(|id, _| !cleared(id));
                    if let Some((_, stays, _)) = &mut walk {
                        stays.retain(|x| !cleared(x));
                    }
                }
                Op::StartWalk => {
                    walk = Some((Cursor::new(None), model.keys().copied().collect(), Vec::new()));
                }
                Op::Walk => {
                    if let Some((cursor, stays, seen)) = &mut walk {
                        match sadb.next(cursor) {
                            Some(record) => {
                                prop_assert!(model.contains_key(&record.id), "shows what is not there");
                                seen.push(record.id);
                            }
                            None => {
                                for x in stays.iter() {
                                    let times = seen.iter().filter(|y| *y == x).count();
                                    prop_assert_eq!(times, 1, "{}", x);
                                }
                                walk = None;
                            }
                        }
                    }
                }
                Op::Time(secs) => {
                    now = now.after(core::time::Duration::from_secs(secs));
                    let due_at = |added: &Time| added.after(core::time::Duration::from_secs(90));
                    prop_assert_eq!(sadb.deadline(), model.values().map(due_at).min());
                    let mut due = Vec::new();
                    while let Some(id) = sadb.take_due(now) {
                        prop_assert_eq!(sadb.find(&id).and_then(|r| r.overdue(now)), Some(Due::Larval));
                        sadb.remove(&id);
                        due.push(id);
                    }
                    due.sort();
                    let expected: Vec<_> =
                        model.iter().filter(|(_, added)| due_at(added) <= now).map(|(id, _)| *id).collect();
                    prop_assert_eq!(&due, &expected);
                    model.retain(|_, added| due_at(added) > now);
                    if let Some((_, stays, _)) = &mut walk {
                        stays.retain(|x| !due.contains(x));
                    }
                }
            }
            prop_assert_eq!(sadb.len(), model.len());
            prop_assert_eq!(sadb.iter().count(), model.len());
            for n in 0..64 {
                prop_assert_eq!(sadb.find(&id(n)).is_some(), model.contains_key(&id(n)));
            }
        }
    }
}

#[test]
fn the_soft_limit_comes_before_the_hard_one_and_both_at_once_count_as_hard() {
    let mut sadb = Sadb::default();
    sadb.insert(Box::new(mature(id(2), Time::from_secs(100), 60, 40))).unwrap();
    assert_eq!(sadb.deadline(), Some(Time::from_secs(140)));
    assert_eq!(sadb.take_due(Time::from_nanos(139_999_999_999)), None);
    let at = |secs| sadb.find(&id(2)).unwrap().overdue(Time::from_secs(secs));
    assert_eq!(at(139), None);
    assert_eq!(at(140), Some(Due::Soft));
    assert_eq!(at(159), Some(Due::Soft));
    assert_eq!(at(160), Some(Due::Hard));
    assert_eq!(at(u64::MAX / 2_000_000_000), Some(Due::Hard));
}

#[test]
fn a_dying_sa_has_only_its_hard_limit_left() {
    let mut sadb = Sadb::default();
    sadb.insert(Box::new(mature(id(2), Time::ZERO, 60, 40))).unwrap();
    sadb.find(&id(2)).unwrap().sa.as_ref().unwrap().advance(SaState::Dying);
    sadb.rearm(&id(2));
    assert_eq!(sadb.deadline(), Some(Time::from_secs(60)));
}

#[test]
fn limits_beyond_the_end_of_time_never_come() {
    let record = mature(id(2), Time::from_secs(5), u64::MAX, 0);
    assert_eq!(record.due(), Some((Time::FOREVER, Due::Hard)));
    assert_eq!(record.overdue(Time::from_secs(1 << 32)), None);
}

const PEER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));

fn source(values: Vec<u32>) -> impl FnMut(&mut [u8]) {
    let mut values = values.into_iter().cycle();
    move |octets| octets.copy_from_slice(&values.next().unwrap_or(0).to_ne_bytes())
}

proptest! {
    #[test]
    fn an_spi_is_in_its_range_and_never_zero(min: u32, max: u32, random: Vec<u32>, workers in 0..9_u32) {
        prop_assume!(!random.is_empty() && min <= max);
        let policy = SpiPolicy { workers, ..SpiPolicy::default() };
        match policy.choose(min, max, PEER, &mut source(random), |_| false) {
            Ok(spi) => prop_assert!((min..=max).contains(&spi.0) && spi.0 != 0),
            Err(why) => {
                prop_assert_eq!(why, NoSpi::Range);
                prop_assert_eq!(max, 0);
            }
        }
    }

    #[test]
    fn a_small_range_is_used_up_before_it_is_refused(min in 1..u32::MAX - 300, size in 1..300_u32, seed: u32) {
        let mut taken = BTreeSet::new();
        let policy = SpiPolicy::default();
        let min = min.max(256);
        let max = min + size - 1;
        let mut random = source(vec![seed]);
        for _ in 0..size {
            let spi = policy.choose(min, max, PEER, &mut random, |spi| taken.contains(&spi)).unwrap();
            prop_assert!(taken.insert(spi));
        }
        prop_assert_eq!(policy.choose(min, max, PEER, &mut random, |spi| taken.contains(&spi)), Err(NoSpi::Taken));
    }
}

#[test]
fn reserved_spis_are_the_last_resort() {
    let policy = SpiPolicy::default();
    for n in 0..1000 {
        let spi = policy.choose(1, 300, PEER, &mut source(vec![n]), |_| false).unwrap();
        assert!(!spi.is_reserved());
    }
    assert_eq!(policy.choose(7, 7, PEER, &mut source(vec![9]), |_| false), Ok(Spi(7)));
    let strict = SpiPolicy { refuse_reserved: true, ..SpiPolicy::default() };
    assert_eq!(strict.choose(7, 255, PEER, &mut source(vec![9]), |_| false), Err(NoSpi::Range));
    assert_eq!(policy.choose(0, 0, PEER, &mut source(vec![9]), |_| false), Err(NoSpi::Range));
}

#[test]
fn a_peers_spis_name_one_worker_and_peers_are_spread() {
    for workers in [2, 3, 8] {
        let policy = SpiPolicy { workers, ..SpiPolicy::default() };
        let named = |peer: IpAddr, n: u32| {
            let mut random = source(vec![n.wrapping_mul(0x9e37_79b9)]);
            policy.choose(256, u32::MAX, peer, &mut random, |_| false).unwrap().0 % workers
        };
        let mut seen = BTreeSet::new();
        for host in 0..64 {
            let peer = IpAddr::from([192, 0, 2, host]);
            let worker = named(peer, 0);
            seen.insert(worker);
            assert!((1..100).all(|n| named(peer, n) == worker));
        }
        assert_eq!(seen.len(), workers as usize);
    }
}
