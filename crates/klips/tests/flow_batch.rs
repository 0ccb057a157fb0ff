//! Many changes of policy as one: all of them or none, and what has been said before is forgotten.

mod pfkey_support;

use ipsec_core::{Protocol, SaId, Selector, Spi};
use klips::{Action, Eroute, FlowChange};
use pfkey_support::*;

const ADD_FLOW: u8 = 128;
const REPLACE_FLOW: u8 = 129;
const DEL_FLOW: u8 = 130;
const GET_FLOW: u8 = 137;
const FLOW: u16 = 128;
const FLOW_POLICY: u16 = 136;
const NET: (&str, &str) = ("10.1.0.0/16", "10.2.0.0/16");
const OTHER: (&str, &str) = ("10.1.0.0/16", "10.3.0.0/16");

fn selector((src, dst): (&str, &str)) -> Selector {
    Selector::nets(src.parse().unwrap(), dst.parse().unwrap())
}

fn add(net: (&str, &str), action: Action) -> FlowChange {
    FlowChange::Add(Eroute::new(selector(net), action))
}

fn replace(net: (&str, &str), action: Action) -> FlowChange {
    FlowChange::Replace(Eroute::new(selector(net), action))
}

fn delete(net: (&str, &str)) -> FlowChange {
    FlowChange::Delete(selector(net))
}

fn action_of(service: &Service, net: (&str, &str)) -> Option<Action> {
    service.plane.eroutes().exact(&selector(net)).map(|eroute| eroute.action)
}

#[test]
fn a_batch_is_made_whole_and_told_in_its_order() {
    let mut service = Service::default();
    let s = service.open();
    // More than are made at once.
    let many: Vec<Selector> =
        (0..300_u16).map(|n| selector((&format!("10.9.{}.{}/32", n >> 8, n & 255), "10.2.0.0/16"))).collect();
    let mut changes = vec![add(NET, Action::Pass), replace(NET, Action::Drop)];
    changes.extend(many.iter().map(|selector| FlowChange::Add(Eroute::new(*selector, Action::Reject))));
    changes.push(delete(NET));
    service.control.change_flows(changes).unwrap();
    assert_eq!(service.plane.eroutes().len(), 300);
    assert!(many.iter().all(|selector| service.plane.eroutes().exact(selector).is_some()));
    let told: Vec<u8> = service.hear(s).iter().map(|heard| heard.kind).collect();
    assert_eq!((&told[..2], told.len(), told.last()), (&[ADD_FLOW, REPLACE_FLOW][..], 303, Some(&DEL_FLOW)));
}

#[test]
fn a_batch_with_one_change_that_cannot_be_made_changes_nothing() {
    let mut service = Service::default();
    let s = service.open();
    service.must(s, add_esp(0x1001, PEER, LOCAL));
    service.control.change_flows(vec![add(NET, Action::Pass)]).unwrap();
    service.hear(s);
    let inbound = SaId { dst: LOCAL.parse().unwrap(), protocol: Protocol::Esp, spi: Spi(0x1001) };
    let ports = Selector { sport: 7, ..selector(OTHER) };
    let families = Selector { dst: "fd00::/8".parse().unwrap(), ..selector(OTHER) };
    for (wrong, errno) in [
        (add(NET, Action::Drop), EEXIST),
        (add(OTHER, Action::Drop), EEXIST),
        (delete(("10.4.0.0/16", "10.2.0.0/16")), ENOENT),
        (replace(OTHER, Action::Protect(inbound)), EINVAL),
        (FlowChange::Add(Eroute::new(ports, Action::Drop)), EINVAL),
        (FlowChange::Replace(Eroute::new(families, Action::Drop)), EINVAL),
    ] {
        let wrote = format!("{wrong:?}");
        let (number, fault) =
            service.control.change_flows(vec![add(OTHER, Action::Drop), wrong, delete(NET)]).unwrap_err();
        assert_eq!((number, fault.errno.0), (1, errno), "{wrote}");
        assert_eq!(
            (action_of(&service, NET), action_of(&service, OTHER)),
            (Some(Action::Pass), None),
            "{wrote}"
        );
        assert!(service.hear(s).is_empty(), "{wrote}");
    }
    // What was there and goes first may come again, and what comes first may go.
    let turned = vec![delete(NET), add(NET, Action::Drop), add(OTHER, Action::Pass), delete(OTHER)];
    service.control.change_flows(turned).unwrap();
    assert_eq!((action_of(&service, NET), action_of(&service, OTHER)), (Some(Action::Drop), None));
}

/// Policies of a dialect that a batch replaces or deletes are found by their number no more.
#[test]
fn a_policy_that_a_batch_takes_away_is_forgotten() {
    for change in [replace(NET, Action::Drop), delete(NET)] {
        let mut service = Service::default();
        let s = service.open();
        let policy = |index: u32| {
            let mut body = vec![2, 2, 2, 50];
            [index, 0, 0, 0].iter().for_each(|n| body.extend(n.to_ne_bytes()));
            body
        };
        let action = [vec![0, 0, 0, 0], vec![0; 16]].concat();
        let wants = msg(ADD_FLOW, ESP).src(LOCAL).dst(PEER).inner(NET.0, NET.1);
        let heard = service.must(s, wants.ext(FLOW, &action).ext(FLOW_POLICY, &policy(0)));
        let index = u32::from_ne_bytes(heard.find(FLOW_POLICY).unwrap()[4..8].try_into().unwrap());
        let by_index = || msg(GET_FLOW, 0).ext(FLOW_POLICY, &policy(index));
        service.must(s, by_index());
        service.control.change_flows(vec![change]).unwrap();
        service.hear(s);
        assert_eq!(service.ask(s, by_index()).errno, ENOENT);
    }
}
