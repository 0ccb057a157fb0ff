//! Policy that asks for several SAs one after the other (setkey(8): `esp/transport//require ah/transport//require`), in the
//! dialect of Linux: the SAs come one by one, and nobody groups them.

use crate::host::Host;
use crate::linux_world::*;
use crate::pfkey_support::*;
use crate::wire::next;
use crate::{Vnet, ip};
use klips::{Config, Discard, Verdict};
use std::net::IpAddr;

const SPDUPDATE: u8 = 13;
const SPDGET: u8 = 16;
const TRANSPORT: u8 = 1;
const TUNNEL: u8 = 2;
const USE: u8 = 1;
const REQUIRE: u8 = 2;
const UNIQUE: u8 = 3;
const ESP_50: u16 = 50;
const AH_51: u16 = 51;
const COMP_108: u16 = 108;
const ENDS: [&str; 2] = [LOCAL, PEER];

/// Protocol, mode, level, number.
type Request = (u16, u8, u8, u32);

struct Side {
    world: World,
    host: Host,
}

/// Two hosts that know nothing yet.
fn sides() -> [Side; 2] {
    ENDS.map(|address| {
        let mut config = Config::new(EPOCH, random());
        config.soft_fuzz = 0..=0;
        let mut service = Service::new(config);
        service.control.set_local_addresses([address.parse().unwrap()].into());
        let host = Host::on(service.plane.clone());
        Side { world: World::of(service), host }
    })
}

/// The requests of a policy for what goes from one of the two.
fn requests(from: usize, list: &[Request]) -> Vec<u8> {
    let of = |(proto, mode, level, reqid): &Request| {
        let ends = (*mode == TUNNEL).then_some((ENDS[from], ENDS[1 - from]));
        request(*proto, *mode, *level, *reqid, ends)
    };
    list.iter().flat_map(of).collect()
}

/// A policy of `at` for what goes from `from`: between the hosts, or between networks behind them.
fn policy(kind: u8, at: usize, from: usize, networks: bool, list: &[Request]) -> Msg {
    let direction = if at == from {
        OUT
    } else if networks {
        FWD
    } else {
        IN
    };
    let end = |n: usize| match networks {
        true => (["10.1.0.0", "10.2.0.0"][n], 16),
        false => (ENDS[n], 32),
    };
    let ((src, a), (dst, b)) = (end(from), end(1 - from));
    let ends = msg(kind, 0).addr_full(SRC, src, 0, 255, a).addr_full(DST, dst, 0, 255, b);
    ends.policy(2, direction, 0, &requests(from, list))
}

fn spi(proto: u16, from: usize, n: u32) -> u32 {
    0x1000 + 0x100 * from as u32 + u32::from(proto) + n * 0x1000
}

/// One SA for what goes from `from`; `n` tells those of one kind apart.
fn sa((proto, mode, _, reqid): Request, from: usize, n: u32) -> Msg {
    let named = |satype: u8, auth: u8, encrypt: u8| {
        let sa = msg(ADD, satype).sa_full(spi(proto, from, n), 32, MATURE, auth, encrypt, 0);
        sa.ends(ENDS[from], ENDS[1 - from]).sa2(mode, reqid)
    };
    match proto {
        ESP_50 => named(ESP, SHA256, AES_CBC).key(AKEY, 32).key(EKEY, 16),
        AH_51 => named(AH, SHA256, 0).key(AKEY, 32),
        _ => named(IPCOMP, 0, 2),
    }
}

fn delete((proto, ..): Request, from: usize, n: u32) -> Msg {
    let satype = if proto == ESP_50 { ESP } else { AH };
    msg(DELETE, satype).sa(spi(proto, from, n)).ends(ENDS[from], ENDS[1 - from])
}

/// Both hosts have these policies and these SAs.
fn keyed(networks: bool, list: &[Request]) -> [Side; 2] {
    let mut sides = sides();
    for (at, side) in sides.iter_mut().enumerate() {
        for from in [0, 1] {
            side.world.must(policy(SPDADD, at, from, networks, list));
            list.iter().for_each(|request| drop(side.world.must(sa(*request, from, 0))));
        }
    }
    sides
}

fn inner(networks: bool, n: usize) -> IpAddr {
    if networks { IpAddr::from([10, n as u8 + 1, 0, 9]) } else { ENDS[n].parse().unwrap() }
}

/// One packet that compression helps, and one that it does not.
fn packets(networks: bool, from: usize) -> Vec<Vec<u8>> {
    let noise: Vec<u8> =
        (0..900_u32).map(|n| (n.wrapping_mul(n).wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    let packet = |data: &[u8]| {
        let head = [8, 0, 0, 0, 0, 1, 0, 1];
        ip::packet(inner(networks, from), inner(networks, 1 - from), 1, 0, &[&head[..], data].concat())
    };
    vec![packet(&[7; 900]), packet(&noise)]
}

const LISTS: &[(bool, &[Request])] = &[
    (false, &[(ESP_50, TRANSPORT, REQUIRE, 0), (AH_51, TRANSPORT, REQUIRE, 0)]),
    (false, &[(ESP_50, TRANSPORT, UNIQUE, 5), (AH_51, TRANSPORT, UNIQUE, 6)]),
    (false, &[(COMP_108, TRANSPORT, USE, 0), (ESP_50, TRANSPORT, REQUIRE, 0)]),
    (
        false,
        &[(COMP_108, TRANSPORT, REQUIRE, 0), (ESP_50, TRANSPORT, REQUIRE, 0), (AH_51, TRANSPORT, REQUIRE, 0)],
    ),
    (true, &[(ESP_50, TUNNEL, REQUIRE, 0), (AH_51, TRANSPORT, REQUIRE, 0)]),
    (true, &[(COMP_108, TUNNEL, USE, 0), (ESP_50, TRANSPORT, REQUIRE, 0)]),
    (true, &[(COMP_108, TUNNEL, REQUIRE, 0), (ESP_50, TRANSPORT, REQUIRE, 0), (AH_51, TRANSPORT, USE, 0)]),
];

#[test]
fn every_list_of_requests_is_a_bundle_both_ways() {
    for (networks, list) in LISTS {
        let mut sides = keyed(*networks, list);
        for from in [0, 1] {
            let means = packets(*networks, from);
            let many: Vec<_> = means.iter().map(|packet| (Vnet::default(), packet.clone())).collect();
            let (verdicts, wire) = sides[from].host.send_all(&many);
            assert_eq!(verdicts, [Verdict::Send; 2], "{list:?}: {:?}", sides[from].host.refused());
            let outermost = list.last().unwrap().0 as u8;
            assert!(wire.iter().all(|packet| next(packet) == outermost), "{list:?}");
            if list[0].0 == COMP_108 {
                assert!(wire[0].len() < 400 && wire[1].len() > 900, "{list:?}");
            }
            assert_eq!(sides[1 - from].host.receive(wire), means, "{list:?}");
            assert_eq!(sides[1 - from].host.refused(), [], "{list:?}");
        }
    }
}

/// Everything comes back, to whoever listens, by its number and in a dump.
#[test]
fn a_list_of_requests_is_told_as_it_was_added() {
    for (networks, list) in LISTS {
        for at in [0, 1] {
            let mut world = World::new();
            let told = world.must(policy(SPDADD, at, 0, *networks, list));
            let body = told.find(POLICY).unwrap();
            // A level that leaves the number open has none; where it is unique, it is the one that was asked for.
            assert_eq!(body[12..], requests(0, list), "{list:?}");
            let index = u32::from_ne_bytes(body[4..8].try_into().unwrap());
            let shown = world.must(msg(SPDGET, 0).numbered(index));
            assert_eq!(shown.find(POLICY), Some(body.clone()));
            let dumped = world.ask(ASKS, msg(SPDDUMP, 0));
            assert_eq!((dumped.len(), dumped[0].find(POLICY)), (1, Some(body)));
            assert_eq!(world.hear(LISTENS)[0].octets, told.octets);
        }
    }
    // Numbers of their own, each another.
    let mut world = World::new();
    let unique = [(ESP_50, TRANSPORT, UNIQUE, 0), (AH_51, TRANSPORT, UNIQUE, 0)];
    let body = world.must(policy(SPDADD, 0, 0, false, &unique)).find(POLICY).unwrap();
    let number = |at: usize| u32::from_ne_bytes(body[at..at + 4].try_into().unwrap());
    assert!(number(20) > 0x3fff && number(36) == number(20) + 1, "{body:?}");
}

#[test]
fn what_is_no_bundle_is_refused_by_name() {
    let esp = (ESP_50, TRANSPORT, REQUIRE, 0);
    let ah = (AH_51, TRANSPORT, REQUIRE, 0);
    for list in [
        &[esp, (COMP_108, TRANSPORT, REQUIRE, 0)][..],
        &[esp, (AH_51, TUNNEL, REQUIRE, 0)],
        &[esp, ah, esp, ah, esp],
        &[(COMP_108, TRANSPORT, USE, 0)],
    ] {
        let mut world = World::new();
        let heard = world.ask(ASKS, policy(SPDADD, 0, 0, false, list));
        assert_eq!(heard[0].errno, EOPNOTSUPP, "{list:?}");
    }
    let mut world = World::new();
    assert_eq!(world.ask(ASKS, policy(SPDADD, 0, 0, true, &[esp, ah]))[0].errno, EOPNOTSUPP, "networks");
}

/// The one that sends leaves something out, or does something else than the one that receives wants.
#[test]
fn a_peer_that_leaves_an_sa_out_is_refused_unless_it_is_only_used() {
    let esp = (ESP_50, TRANSPORT, REQUIRE, 0);
    let ah = (AH_51, TRANSPORT, REQUIRE, 0);
    let comp = (COMP_108, TRANSPORT, REQUIRE, 0);
    let tunnel = (ESP_50, TUNNEL, REQUIRE, 0);
    let used = |(proto, mode, _, reqid): Request| (proto, mode, USE, reqid);
    for (networks, wants, does, lets_in) in [
        (false, &[esp, ah][..], &[esp, ah][..], true),
        (false, &[esp, ah], &[esp], false),
        (false, &[esp, ah], &[ah], false),
        (false, &[esp, ah], &[ah, esp], false),
        (false, &[esp, used(ah)], &[esp], true),
        (false, &[used(esp), ah], &[ah], true),
        (false, &[used(esp), ah], &[esp], false),
        (false, &[(ESP_50, TRANSPORT, UNIQUE, 9), ah], &[esp, ah], false),
        (false, &[esp, (AH_51, TRANSPORT, UNIQUE, 9)], &[esp, ah], false),
        // Compression protects nothing, and not every packet has it.
        (false, &[comp, esp], &[esp], true),
        (false, &[esp], &[comp, esp], false),
        // Something must have been wanted of what was there.
        (false, &[(ESP_50, TUNNEL, USE, 0)], &[esp], false),
        (false, &[used(comp), used(ah)], &[esp], false),
        // More than is wanted does no harm.
        (false, &[esp], &[esp, ah], true),
        (true, &[tunnel, ah], &[tunnel], false),
        (true, &[tunnel, ah], &[tunnel, ah], true),
        (true, &[(COMP_108, TUNNEL, USE, 0), esp], &[tunnel], false),
    ] {
        let [mut left, mut right] = sides();
        left.world.must(policy(SPDADD, 0, 0, networks, does));
        right.world.must(policy(SPDADD, 1, 0, networks, wants));
        // Whatever is wanted, the same SAs are there on both.
        let mut there: Vec<Request> = Vec::new();
        for (proto, mode, _, _) in does.iter().chain(wants) {
            if !there.iter().any(|(other, ..)| other == proto) {
                there.push((*proto, *mode, REQUIRE, 0));
            }
        }
        for side in [&mut left, &mut right] {
            there.iter().for_each(|request| drop(side.world.must(sa(*request, 0, 0))));
        }
        let packet = packets(networks, 0).remove(0);
        let (verdict, wire) = left.host.send(&packet);
        assert_eq!(verdict, Verdict::Send, "{does:?}: {:?}", left.host.refused());
        let arrived = right.host.receive(wire);
        let refused = right.host.refused();
        if lets_in {
            assert_eq!((arrived, refused), (vec![packet], vec![]), "{wants:?}, {does:?}");
        } else {
            assert_eq!(arrived, Vec::<Vec<u8>>::new(), "{wants:?}, {does:?}");
            assert_eq!(refused, [(Discard::PolicyMismatch, 1)], "{wants:?}, {does:?}");
        }
    }
}

/// ACQUIRE for each that is missing, by its SA type; the packet waits for all of them and goes through all of them.
#[test]
fn each_sa_that_is_missing_is_asked_for_and_the_packet_waits_for_all() {
    let (comp, esp, ah) =
        ((COMP_108, TRANSPORT, USE, 0), (ESP_50, TRANSPORT, REQUIRE, 0), (AH_51, TRANSPORT, REQUIRE, 0));
    let list = [comp, esp, ah];
    for order in [[comp, esp, ah], [ah, esp, comp], [esp, comp, ah]] {
        let [mut left, mut right] = sides();
        left.world.must(policy(SPDADD, 0, 0, false, &list));
        right.world.must(policy(SPDADD, 1, 0, false, &list));
        list.iter().for_each(|request| drop(right.world.must(sa(*request, 0, 0))));
        left.world.hear(REGISTERED);
        let packet = packets(false, 0).remove(0);
        assert_eq!(left.host.send(&packet).0, Verdict::Keep);
        let now = left.world.service.now;
        assert!(left.host.plane.take_wake());
        left.world.service.control.expire(now);
        let asked = left.world.hear(REGISTERED);
        assert_eq!(
            asked.iter().map(|one| (one.kind, one.satype)).collect::<Vec<_>>(),
            [(ACQUIRE, IPCOMP), (ACQUIRE, ESP), (ACQUIRE, AH)]
        );
        assert!(asked.iter().all(|one| one.find(PROPOSAL).is_some_and(|body| body.len() > 4)));
        let seqs: Vec<u32> = asked.iter().map(|one| one.seq).collect();
        assert!(seqs[0] != seqs[1] && seqs[1] != seqs[2] && seqs[0] != seqs[2], "{seqs:?}");
        // Each answer has the number of its question; a second packet asks nobody again.
        assert_eq!(left.host.send(&packet).0, Verdict::Keep);
        left.world.service.control.expire(now);
        assert!(left.world.hear(REGISTERED).is_empty());
        let required = order.iter().rposition(|request| request.2 == REQUIRE).unwrap();
        for (n, request) in order.iter().enumerate() {
            assert_eq!(left.host.returned(), Vec::<Vec<u8>>::new(), "before all that are required are there");
            let place = list.iter().position(|one| one == request).unwrap();
            left.world.must(sa(*request, 0, 0).seq(seqs[place]));
            if n == required {
                break;
            }
        }
        let wire = left.host.returned();
        assert_eq!(wire.len(), 2, "{order:?}");
        assert!(wire.iter().all(|packet| next(packet) == 51));
        assert_eq!(right.host.receive(wire), [packet.clone(), packet]);
        assert_eq!((left.host.refused(), right.host.refused()), (vec![], vec![]));
    }
}

/// An answer that is no SA which policy wants is none, whatever its number.
#[test]
fn an_answer_that_policy_does_not_want_carries_nothing() {
    let [mut left, _] = sides();
    left.world.must(policy(SPDADD, 0, 0, false, &[(AH_51, TRANSPORT, UNIQUE, 9)]));
    left.world.hear(REGISTERED);
    let packet = packets(false, 0).remove(0);
    assert_eq!(left.host.send(&packet).0, Verdict::Keep);
    let now = left.world.service.now;
    left.world.service.control.expire(now);
    let asked = left.world.hear(REGISTERED);
    assert_eq!((asked.len(), asked[0].satype), (1, AH));
    let seq = asked[0].seq;
    left.world.must(sa((ESP_50, TRANSPORT, REQUIRE, 0), 0, 0).seq(seq));
    left.world.must(sa((AH_51, TRANSPORT, REQUIRE, 0), 0, 0).seq(seq));
    assert_eq!(left.host.returned(), Vec::<Vec<u8>>::new());
    left.world.must(sa((AH_51, TRANSPORT, UNIQUE, 9), 0, 1).seq(seq));
    assert_eq!(left.host.returned().len(), 1);
}

/// A negotiation that failed for one of them leaves nothing that waits.
#[test]
fn a_refusal_of_one_is_a_refusal_of_all() {
    for n in [0, 1] {
        let [mut left, _] = sides();
        left.world.must(policy(SPDADD, 0, 0, false, LISTS[0].1));
        left.world.hear(REGISTERED);
        assert_eq!(left.host.send(&packets(false, 0)[0]).0, Verdict::Keep);
        let now = left.world.service.now;
        left.world.service.control.expire(now);
        let asked = left.world.hear(REGISTERED);
        let no = msg(ACQUIRE, asked[n].satype).seq(asked[n].seq).errno(110);
        assert!(left.world.ask(REGISTERED, no).is_empty());
        assert_eq!(left.host.refused(), [(Discard::Hold, 1)]);
        left.world.must(sa((ESP_50, TRANSPORT, REQUIRE, 0), 0, 0).seq(asked[0].seq));
        left.world.must(sa((AH_51, TRANSPORT, REQUIRE, 0), 0, 0).seq(asked[1].seq));
        assert_eq!(left.host.returned(), Vec::<Vec<u8>>::new());
    }
}

/// One of the SAs is replaced before the other, goes, or ends: what goes out is never less than what policy wants.
#[test]
fn sas_of_a_bundle_come_and_go_one_by_one() {
    let list = LISTS[0].1;
    let [esp, ah] = [list[0], list[1]];
    let mut sides = keyed(false, list);
    let packet = packets(false, 0).remove(0);
    let crosses = |[left, right]: &mut [Side; 2]| {
        let (verdict, wire) = left.host.send(&packet);
        assert_eq!(verdict, Verdict::Send, "{:?}", left.host.refused());
        let wire = wire.into_iter().next().unwrap();
        let arrived = right.host.receive(vec![wire.clone()]);
        assert_eq!((arrived, right.host.refused()), (vec![packet.clone()], vec![]));
        u32::from_be_bytes(wire[24..28].try_into().unwrap())
    };
    assert_eq!(crosses(&mut sides), 0x1033);
    for side in &mut sides {
        side.world.must(sa(esp, 0, 1));
    }
    assert_eq!(crosses(&mut sides), 0x1033, "a new ESP in the old AH");
    for side in &mut sides {
        side.world.must(sa(ah, 0, 1));
        side.world.must(delete(esp, 0, 0));
    }
    assert_eq!(crosses(&mut sides), 0x2033);
    for side in &mut sides {
        side.world.must(delete(ah, 0, 1));
    }
    assert_eq!(crosses(&mut sides), 0x1033, "back to the older");
    let [left, _] = &mut sides;
    left.world.must(delete(esp, 0, 1));
    assert_eq!(left.host.send(&packet).0, Verdict::Keep, "not AH alone");
    left.world.must(sa(esp, 0, 2));
    left.world.must(delete(ah, 0, 0));
    assert_eq!(left.host.send(&packet).0, Verdict::Keep, "not ESP alone");
    // What is around a tunnel does not go without it, even if that is only to be used.
    let [mut gate, _] = self::sides();
    let comp = (COMP_108, TUNNEL, USE, 0);
    gate.world.must(policy(SPDADD, 0, 0, true, &[comp, esp]));
    gate.world.must(sa(esp, 0, 0));
    assert_eq!(gate.host.send(&packets(true, 0)[0]).0, Verdict::Keep);
    gate.world.must(sa(comp, 0, 0));
    assert_eq!(gate.host.send(&packets(true, 0)[0]).0, Verdict::Send);
    // Policy that wants less goes on with less, and one that wants to use it does not wait for it.
    left.world.must(policy(SPDUPDATE, 0, 0, false, &[esp, (AH_51, TRANSPORT, USE, 0)]));
    let (verdict, wire) = left.host.send(&packet);
    assert_eq!((verdict, next(&wire[0])), (Verdict::Send, 50));
    left.world.must(policy(SPDUPDATE, 0, 0, false, list));
    assert_eq!(left.host.send(&packet).0, Verdict::Keep);
}

/// Natively, to a host's own service.
fn natively(side: &mut Side, message: Msg) {
    let socket = side.world.service.open();
    side.world.service.must(socket, message);
}

/// Two hosts of which the left does what the right is tried with: ESP in AH, or a packet in a packet in ESP.
fn tried(networks: bool, list: &[Request]) -> [Side; 2] {
    let mut sides = sides();
    sides[0].world.must(policy(SPDADD, 0, 0, networks, list));
    sides[1].world.must(policy(SPDADD, 1, 0, networks, list));
    list.iter().for_each(|request| drop(sides[0].world.must(sa(*request, 0, 0))));
    sides
}

/// Selectors of an SA that has some hold, whatever policy says of SAs that have none.
#[test]
fn sas_with_selectors_of_their_own_and_those_that_policy_judges_do_not_lie_in_each_other() {
    let [esp, ah] = [LISTS[0].1[0], LISTS[0].1[1]];
    let (number, auth) = (spi(ESP_50, 0, 0), spi(AH_51, 0, 0));
    let native_esp = || {
        let sa = msg(ADD, ESP).sa_full(number, 32, MATURE, SHA256, AES_CBC, 0);
        sa.src(LOCAL).dst(PEER).key(AKEY, 32).key(EKEY, 16)
    };
    for outer in [false, true] {
        let [mut left, mut right] = tried(false, &[esp, ah]);
        if outer {
            right.world.must(sa(esp, 0, 0));
            natively(&mut right, add_ah(auth, LOCAL, PEER));
        } else {
            right.world.must(sa(ah, 0, 0));
            natively(&mut right, native_esp());
        }
        let (_, wire) = left.host.send(&packets(false, 0)[0]);
        assert_eq!(next(&wire[0]), 51);
        // What AH has left is a packet of ESP, which nothing takes off.
        assert!(right.host.receive(wire).iter().all(|packet| next(packet) == 50), "{outer}");
    }
    // A packet in a packet stays one.
    let [mut left, mut right] = tried(true, &[(COMP_108, TUNNEL, USE, 0), esp]);
    natively(&mut right, native_esp());
    let (_, wire) = left.host.send(&packets(true, 0)[1]);
    assert_eq!(wire.len(), 1);
    assert!(right.host.receive(wire).iter().all(|packet| next(packet) == 4));
}

#[test]
fn esp_that_was_agreed_in_udp_does_not_come_in_another_sa() {
    let [esp, ah] = [LISTS[0].1[0], LISTS[0].1[1]];
    let [mut left, mut right] = tried(false, &[esp, ah]);
    let ports = [4500_u16.to_be_bytes(), [0; 2]].concat();
    let in_udp = sa(esp, 0, 0).ext(20, &[2, 0, 0, 0]).ext(21, &ports).ext(22, &ports);
    right.world.must(in_udp);
    right.world.must(sa(ah, 0, 0));
    let (_, wire) = left.host.send(&packets(false, 0)[0]);
    assert_eq!(right.host.receive(wire), Vec::<Vec<u8>>::new());
    assert_eq!(right.host.refused(), [(Discard::PolicyMismatch, 1)]);
}

#[test]
fn two_requests_of_one_kind_are_two_sas() {
    let esp = LISTS[0].1[0];
    let [mut left, _] = sides();
    left.world.must(policy(SPDADD, 0, 0, false, &[esp, esp]));
    left.world.must(sa(esp, 0, 0));
    assert_eq!(left.host.send(&packets(false, 0)[0]).0, Verdict::Keep, "one is not enough for both");
    left.world.must(sa(esp, 0, 1));
    assert_eq!(left.host.send(&packets(false, 0)[0]).0, Verdict::Send);
}

/// IPComp that policy judges is there for policy: an eroute that names it has nothing that protects.
#[test]
fn compression_that_an_eroute_names_sends_nothing() {
    let [mut left, _] = sides();
    left.world.must(sa((COMP_108, TRANSPORT, USE, 0), 0, 0));
    let protect = [vec![0; 4], vec![0; 16]].concat();
    let named = msg(128, 10).sa(spi(COMP_108, 0, 0)).dst(PEER);
    natively(&mut left, named.inner("192.0.2.1/32", "198.51.100.2/32").ext(128, &protect));
    assert_eq!(left.host.send(&packets(false, 0)[0]), (Verdict::Discard(Discard::NoSa), vec![]));
}

/// Who met a need before policy said which SA it wants does not meet it any more.
#[test]
fn an_sa_that_met_a_trap_does_not_meet_the_policy_in_its_place() {
    let [mut left, _] = sides();
    let trap = [vec![4, 0, 0, 0], vec![0; 16]].concat();
    natively(&mut left, msg(128, 0).inner("192.0.2.1/32", "198.51.100.2/32").ext(128, &trap));
    left.world.hear(ASKS);
    left.world.hear(REGISTERED);
    let packet = packets(false, 0).remove(0);
    assert_eq!(left.host.send(&packet).0, Verdict::Keep);
    let now = left.world.service.now;
    left.world.service.control.expire(now);
    let seq = left.world.hear(REGISTERED)[0].seq;
    left.world.must(sa((ESP_50, TRANSPORT, REQUIRE, 0), 0, 0).seq(seq));
    assert_eq!(left.host.returned().len(), 1);
    left.world.must(policy(SPDUPDATE, 0, 0, false, &[(AH_51, TRANSPORT, REQUIRE, 0)]));
    assert_eq!(left.host.send(&packet).0, Verdict::Keep);
    left.world.service.control.expire(now);
    assert_eq!(left.host.returned(), Vec::<Vec<u8>>::new());
}

/// Somebody takes the SAs into a group of their own, or out of one: policy goes on with them.
#[test]
fn a_group_that_takes_an_sa_does_not_take_it_from_policy() {
    let [mut left, mut right] = keyed(false, LISTS[0].1);
    let body = [vec![0; 4], vec![ESP, 0, 0, 0], spi(ESP_50, 0, 0).to_be_bytes().to_vec()].concat();
    natively(&mut left, msg(133, 0).dst(PEER).ext(130, &body));
    let packet = packets(false, 0).remove(0);
    let (verdict, wire) = left.host.send(&packet);
    assert_eq!((verdict, next(&wire[0])), (Verdict::Send, 51));
    assert_eq!(right.host.receive(wire), [packet]);
}
