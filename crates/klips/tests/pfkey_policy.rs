//! Policies that say which SA they want: the eroute follows the SADB, and policies have a rank.

mod pfkey_support;

use ipsec_core::{Flow, Protocol, SaId, Selector, Spi};
use klips::{Action, SocketId};
use pfkey_support::*;

const ADD_FLOW: u8 = 128;
const REPLACE_FLOW: u8 = 129;
const DEL_FLOW: u8 = 130;
const FLUSH_FLOWS: u8 = 131;
const DUMP_FLOWS: u8 = 132;
const GET_FLOW: u8 = 137;
const FLOW: u16 = 128;
const SA_POLICY: u16 = 135;
const FLOW_POLICY: u16 = 136;
/// Directions and levels, as they are numbered.
const IN: u8 = 1;
const OUT: u8 = 2;
const FORWARD: u8 = 3;
const USE: u8 = 1;
const REQUIRE: u8 = 2;
const UNIQUE: u8 = 3;
const ANYTHING: (&str, &str) = ("0.0.0.0/0", "0.0.0.0/0");
const NET: (&str, &str) = ("10.1.0.0/16", "10.2.0.0/16");

fn sa_policy(reqid: u32) -> Vec<u8> {
    [reqid.to_ne_bytes().to_vec(), 1_u64.to_ne_bytes().to_vec()].concat()
}

fn flow_policy(direction: u8, level: u8, reqid: u32, index: u32, priority: u32) -> Vec<u8> {
    let mut body = vec![direction, level, if level == 0 { 0 } else { 2 }, if level == 0 { 0 } else { 50 }];
    [index, priority, reqid, 0].iter().for_each(|n| body.extend(n.to_ne_bytes()));
    body
}

/// A flow message: 0 protects, 1 passes, 2 drops.
fn flow(kind: u8, (src, dst): (&str, &str), action: u8, policy: &[u8]) -> Msg {
    let action = [vec![action, 0, 0, 0], vec![0; 16]].concat();
    let ends = msg(kind, ESP).src(LOCAL).dst(PEER);
    ends.inner(src, dst).ext(FLOW, &action).ext(FLOW_POLICY, policy)
}

fn tunnel(spi: u32, reqid: u32) -> Msg {
    between(LOCAL, PEER, spi, reqid)
}

fn between(src: &str, dst: &str, spi: u32, reqid: u32) -> Msg {
    msg(ADD, ESP)
        .sa_full(spi, 32, MATURE, 0, GCM16, F_TUNNEL)
        .src(src)
        .dst(dst)
        .inner(ANYTHING.0, ANYTHING.1)
        .key(EKEY, 20)
        .ext(SA_POLICY, &sa_policy(reqid))
}

fn protect(spi: u32) -> Option<Action> {
    Some(Action::Protect(SaId { dst: PEER.parse().unwrap(), protocol: Protocol::Esp, spi: Spi(spi) }))
}

fn action_of(service: &Service, (src, dst): (&str, &str)) -> Option<Action> {
    let selector = Selector::nets(src.parse().unwrap(), dst.parse().unwrap());
    service.plane.eroutes().exact(&selector).map(|eroute| eroute.action)
}

fn index_of(heard: &Heard) -> u32 {
    u32::from_ne_bytes(heard.find(FLOW_POLICY).unwrap()[4..8].try_into().unwrap())
}

fn delete(service: &mut Service, s: SocketId, spi: u32) {
    service.must(s, msg(DELETE, ESP).sa(spi).dst(PEER));
}

#[test]
fn an_eroute_that_wants_an_sa_takes_the_newest_that_fits() {
    let mut service = Service::default();
    let s = service.open();
    let want = flow(ADD_FLOW, NET, 0, &flow_policy(OUT, REQUIRE, 0, 0, 0));
    service.must(s, want.clone());
    assert_eq!(action_of(&service, NET), Some(Action::Trap), "none is there");
    assert_eq!(service.ask(s, want).errno, EEXIST);
    service.must(s, tunnel(0x1001, 77));
    assert_eq!(action_of(&service, NET), Some(Action::Trap), "of another number");
    service.must(s, tunnel(0x1002, 0));
    assert_eq!(action_of(&service, NET), protect(0x1002));
    service.must(s, tunnel(0x1003, 0));
    assert_eq!(action_of(&service, NET), protect(0x1003), "rekeyed");
    delete(&mut service, s, 0x1003);
    assert_eq!(action_of(&service, NET), protect(0x1002));
    // Between other ends, for packets the other way, in transport mode: none of these is wanted.
    service.must(s, between(LOCAL, "198.51.100.9", 0x2001, 0));
    service.must(s, between(PEER, LOCAL, 0x2002, 0));
    service.must(s, add_esp(0x2003, LOCAL, PEER));
    assert_eq!(action_of(&service, NET), protect(0x1002));
    // Between two hosts a policy may want just that one.
    let hosts = ("192.0.2.1/32", "198.51.100.2/32");
    let mut transport = flow_policy(OUT, REQUIRE, 0, 0, 0);
    transport[2] = 1;
    service.must(s, flow(ADD_FLOW, hosts, 0, &transport));
    assert_eq!(action_of(&service, hosts), protect(0x2003));
    for (at, odd) in [(2, 3), (3, 108)] {
        let mut policy = flow_policy(OUT, REQUIRE, 0, 0, 0);
        policy[at] = odd;
        assert_eq!(service.ask(s, flow(REPLACE_FLOW, NET, 0, &policy)).errno, EOPNOTSUPP);
    }
    service.must(s, msg(FLUSH, 0));
    assert_eq!(action_of(&service, NET), Some(Action::Trap));
}

#[test]
fn an_sa_that_ends_is_left_and_one_that_is_dying_is_the_last_choice() {
    let mut service = Service::default();
    let s = service.open();
    service.must(s, flow(ADD_FLOW, NET, 0, &flow_policy(OUT, UNIQUE, 77, 0, 0)));
    service.must(s, tunnel(0x1001, 77));
    let mortal = tunnel(0x1002, 77).lifetime(HARD, 0, 0, 20, 0).lifetime(SOFT, 0, 0, 10, 0);
    service.must(s, mortal);
    assert_eq!(action_of(&service, NET), protect(0x1002));
    service.wait(11);
    let told = service.hear(s);
    assert_eq!(told.first().map(|told| told.kind), Some(EXPIRE));
    assert_eq!(told[0].find(SA_POLICY), Some(sa_policy(77)), "whose it is");
    assert_eq!(action_of(&service, NET), protect(0x1001), "the older one is not dying");
    delete(&mut service, s, 0x1001);
    assert_eq!(action_of(&service, NET), protect(0x1002));
    service.wait(10);
    service.hear(s);
    assert_eq!(action_of(&service, NET), Some(Action::Trap), "a hard limit");
}

#[test]
fn use_lets_packets_go_as_they_are_and_only_then() {
    let mut service = Service::default();
    let s = service.open();
    service.must(s, tunnel(0x1001, 0));
    service.must(s, flow(ADD_FLOW, NET, 0, &flow_policy(OUT, USE, 0, 0, 0)));
    assert_eq!(action_of(&service, NET), protect(0x1001));
    delete(&mut service, s, 0x1001);
    assert_eq!(action_of(&service, NET), Some(Action::Pass));
    service.must(s, flow(REPLACE_FLOW, NET, 0, &flow_policy(OUT, REQUIRE, 0, 0, 0)));
    assert_eq!(action_of(&service, NET), Some(Action::Trap));
    // What was replaced no longer follows anything.
    service.must(s, flow(REPLACE_FLOW, NET, 2, &flow_policy(OUT, 0, 0, 0, 0)));
    service.must(s, tunnel(0x1002, 0));
    assert_eq!(action_of(&service, NET), Some(Action::Drop));
}

#[test]
fn the_smaller_priority_decides_then_the_older_and_the_rest_come_in_between() {
    let mut service = Service::default();
    let s = service.open();
    let wide = ("10.0.0.0/8", "10.0.0.0/8");
    let host = ("10.1.0.1/32", "10.2.0.1/32");
    let decides = |service: &Service| {
        let flow = Flow {
            src: "10.1.0.1".parse().unwrap(),
            dst: "10.2.0.1".parse().unwrap(),
            proto: 6,
            sport: 1,
            dport: 2,
        };
        let eroutes = service.plane.eroutes();
        let first = eroutes.explain(&flow).first().map(|eroute| eroute.selector);
        assert_eq!(eroutes.lookup(&flow).map(|eroute| eroute.selector), first, "they agree");
        first.unwrap().src.prefix_len()
    };
    service.must(s, flow(ADD_FLOW, wide, 2, &flow_policy(OUT, 0, 0, 0, 5)));
    service.must(s, flow(ADD_FLOW, NET, 1, &flow_policy(OUT, 0, 0, 0, 5)));
    assert_eq!(decides(&service), 8, "the older of two, though the other is narrower");
    service.must(s, flow(REPLACE_FLOW, NET, 1, &flow_policy(OUT, 0, 0, 0, 4)));
    assert_eq!(decides(&service), 16);
    // An eroute without a policy is of the middle, behind others of that.
    let plain = msg(ADD_FLOW, 0).inner(host.0, host.1).ext(FLOW, &[vec![1, 0, 0, 0], vec![0; 16]].concat());
    service.must(s, plain);
    assert_eq!(decides(&service), 16);
    for net in [wide, NET] {
        service.must(s, flow(REPLACE_FLOW, net, 2, &flow_policy(OUT, 0, 0, 0, 1 << 31)));
    }
    assert_eq!(decides(&service), 8);
    for net in [wide, NET] {
        service.must(s, flow(REPLACE_FLOW, net, 2, &flow_policy(OUT, 0, 0, 0, (1 << 31) + 1)));
    }
    assert_eq!(decides(&service), 32);
    for net in [wide, NET] {
        service.must(s, flow(DEL_FLOW, net, 0, &flow_policy(OUT, 0, 0, 0, 0)));
    }
    assert_eq!(decides(&service), 32);
}

#[test]
fn policies_have_numbers_and_directions() {
    let mut service = Service::default();
    let s = service.open();
    let mut indices = Vec::new();
    for direction in [IN, OUT, FORWARD] {
        let heard = service.must(s, flow(ADD_FLOW, NET, 0, &flow_policy(direction, REQUIRE, 0, 0, 0)));
        indices.push(index_of(&heard));
        assert_eq!(index_of(&heard) & 7, u32::from(direction) - 1, "as Linux numbers them");
    }
    let by_index = |index| msg(GET_FLOW, 0).ext(FLOW_POLICY, &flow_policy(OUT, 0, 0, index, 0));
    for (index, direction) in indices.iter().zip([IN, OUT, FORWARD]) {
        let heard = service.must(s, by_index(*index));
        assert_eq!((index_of(&heard), heard.find(FLOW_POLICY).unwrap()[0]), (*index, direction));
    }
    service.send(s, msg(DUMP_FLOWS, 0));
    assert_eq!(service.hear(s).len(), 4, "three and the end");
    service.must(s, flow(DEL_FLOW, NET, 0, &flow_policy(FORWARD, 0, 0, 0, 0)));
    assert_eq!(service.ask(s, by_index(indices[2])).errno, ENOENT);
    assert_eq!(service.must(s, by_index(indices[0])).errno, 0, "another direction stays");
    assert_eq!(service.ask(s, flow(DEL_FLOW, NET, 0, &flow_policy(FORWARD, 0, 0, 0, 0))).errno, ENOENT);
    let unique = flow(ADD_FLOW, NET, 0, &flow_policy(FORWARD, UNIQUE, 0, 0, 0));
    let reqid = service.must(s, unique).find(FLOW_POLICY).unwrap()[12..16].to_vec();
    assert!(u32::from_ne_bytes(reqid.try_into().unwrap()) > 0x3fff, "a number of the service's own");
    service.must(s, msg(FLUSH_FLOWS, 0));
    assert_eq!(service.ask(s, by_index(indices[0])).errno, ENOENT);
    assert_eq!(service.ask(s, by_index(0)).errno, ENOENT);
}

#[test]
fn an_inbound_policy_that_goes_takes_nothing_of_its_outbound_twin_along() {
    let mut service = Service::default();
    let s = service.open();
    for direction in [IN, OUT, FORWARD] {
        service.must(s, flow(ADD_FLOW, NET, 0, &flow_policy(direction, REQUIRE, 0, 0, 0)));
    }
    for direction in [IN, FORWARD] {
        service.must(s, flow(DEL_FLOW, NET, 0, &flow_policy(direction, 0, 0, 0, 0)));
    }
    service.must(s, tunnel(0x1001, 0));
    assert_eq!(action_of(&service, NET), protect(0x1001), "it still follows the SADB");
}
