//! Who is asked for an SA, how often, and what about.

use crate::host::{Host, PID, START, acquires, replace_flow, said, selector, udp};
use ipsec_core::Selector;
use klips::{Action, Discard, Eroute, Verdict, Vnet};
use pfkey::client::{Client, Request};
use pfkey::{
    Address, Comb, Diagnostic, Ecomb, Errno, ExtType, Flow, FlowAction, Message, MessageType, SaType,
};
use std::time::Duration;

#[test]
fn the_first_packet_asks_plain_and_extended_key_managers_once() {
    let mut host = Host::trap();
    let (plain, extended) = (host.manager(false), host.manager(true));
    let bystander = host.control.connect(1, START);
    for mark in 0..3 {
        assert_eq!(host.packet(9, mark), Verdict::Keep);
    }
    assert_eq!(host.packet(8, 0), Verdict::Keep);
    assert_eq!(host.heard(bystander), Vec::<Vec<u8>>::new());

    let records = host.heard(plain);
    let asked = acquires(&records);
    let seqs: Vec<u32> = asked.iter().map(|message| message.base.seq).collect();
    assert_eq!(seqs, [0xffff_fffe, 0xffff_fffd], "one for each pair of hosts, counted down");
    let message = &asked[0];
    assert_eq!((message.base.pid, message.base.satype()), (0, Some(SaType::Esp)));
    let (src, dst) = (message.src.unwrap(), message.dst.unwrap());
    assert_eq!((src.ip(), dst.ip()), ("10.1.0.1".parse().ok(), "10.2.0.9".parse().ok()));
    assert_eq!((src.proto, dst.proto, src.port(), dst.port()), (4, 4, 0, 0));
    let (inner_src, inner_dst) = (message.inner_src.unwrap(), message.inner_dst.unwrap());
    assert_eq!((inner_src.ip(), inner_src.prefix), ("10.1.0.0".parse().ok(), 16), "what the policy says");
    assert_eq!((inner_dst.ip(), inner_dst.prefix), ("10.2.0.0".parse().ok(), 16));
    let combs: Vec<Comb> = Comb::list(message.raw(ExtType::Proposal).unwrap()).collect();
    assert_eq!(
        (combs[0].encrypt, combs[0].auth, combs[0].encrypt_bits),
        (20, 0, (128, 256)),
        "the best first"
    );
    let legacy = [2, 3]; // 3DES-CBC, HMAC-MD5
    assert!(combs.iter().all(|comb| comb.encrypt != 3 && !legacy.contains(&comb.auth)), "{combs:?}");

    let records = host.heard(extended);
    let asked = acquires(&records);
    assert_eq!(
        asked.iter().map(|m| (m.base.seq, m.base.satype_number)).collect::<Vec<_>>(),
        [(0xffff_fffe, 0), (0xffff_fffd, 0)]
    );
    let ecombs: Vec<Ecomb> = Ecomb::list(asked[0].raw(ExtType::Eprop).unwrap()).collect();
    assert_eq!(ecombs.len(), combs.len());
    assert_eq!(ecombs[0].algorithms[0].id, 20);
    assert!(!asked[0].has(ExtType::Proposal));
    assert_eq!(host.dropped(), 0);
}

#[test]
fn where_nobody_listens_nothing_waits() {
    let mut host = Host::trap();
    // Registered for something else, or deaf, is not listening.
    let other = host.control.connect(PID, START);
    let register = Client::new(PID).request(MessageType::Register, SaType::Ah);
    host.ask(other, register);
    let deaf = host.manager(false);
    host.control.set_loopback(deaf, false);
    for _ in 0..5000 {
        host.trapped(9, 1);
    }
    assert_eq!(host.dropped(), 5000);
    assert!(host.control.deadline().is_some(), "what is forgotten early is forgotten when its time comes");
    host.now = START.after(Duration::from_secs(15));
    host.control.expire(host.now);
    assert_eq!(host.control.deadline(), None);
}

#[test]
fn after_fifteen_seconds_they_are_dropped_and_the_next_packet_asks_again() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    host.heard(manager);
    assert_eq!(host.control.deadline(), Some(START.after(Duration::from_secs(15))));
    host.now = START.after(Duration::from_millis(14_999));
    host.control.expire(host.now);
    host.trapped(9, 2);
    assert_eq!((host.dropped(), acquires(&host.heard(manager)).len()), (0, 0));
    host.now = START.after(Duration::from_secs(15));
    host.control.expire(host.now);
    assert_eq!(host.dropped(), 2);
    assert_eq!(host.control.deadline(), None);
    host.trapped(9, 3);
    assert_eq!(acquires(&host.heard(manager)).len(), 1);
}

#[test]
fn a_packet_that_comes_when_a_record_ends_asks_anew() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    host.heard(manager);
    host.now = START.after(Duration::from_secs(15));
    host.trapped(9, 2);
    assert_eq!((host.dropped(), acquires(&host.heard(manager)).len()), (1, 1));
}

#[test]
fn a_trap_that_is_gone_when_control_looks_asks_nobody() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    // The worker has trapped it; control has not looked, and is told of the eroute first.
    let verdict = host.outbound.packet(&Vnet::default(), &mut udp(9, 1, 60), host.now, &mut host.sealed);
    assert_eq!(verdict, Verdict::Keep);
    host.add(manager, 77, 0x2002, true);
    host.ask(manager, replace_flow(FlowAction::Protect, 0x2002));
    host.control.expire(host.now);
    assert_eq!(acquires(&host.heard(manager)).len(), 0);
    assert_eq!(host.released().len(), 1);
}

#[test]
fn trapsubnet_asks_once_for_all_hosts_of_its_networks() {
    let mut host = Host::new(Action::TrapSubnet);
    let manager = host.manager(false);
    for to in [9, 8, 7] {
        host.trapped(to, to);
    }
    let records = host.heard(manager);
    let asked = acquires(&records);
    assert_eq!(asked.len(), 1, "one need, one ACQUIRE");
    let (seq, dst) = (asked[0].base.seq, asked[0].dst.unwrap().ip());
    assert_eq!(dst, "10.2.0.9".parse().ok(), "the host that was first");
    assert_eq!(asked[0].inner_dst.unwrap().prefix, 16, "and what it is about");
    // A change of policy for one of its hosts is seen by what waits for all of them.
    let one = Selector::nets("10.1.0.0/16".parse().unwrap(), "10.2.0.7/32".parse().unwrap());
    let mut drop_one = Client::new(PID).request(MessageType::AddFlow, SaType::Unspec);
    drop_one.address(ExtType::AddressInnerSrc, &Address::net([10, 1, 0, 0].into(), 16));
    drop_one.address(ExtType::AddressInnerDst, &Address::net([10, 2, 0, 7].into(), 32));
    drop_one.flow(&Flow { action: FlowAction::Drop, packets: 0, last_use: 0 });
    host.ask(manager, drop_one);
    assert!(host.plane.eroutes().exact(&one).is_some());
    assert_eq!(host.released().len(), 0);
    assert_eq!(host.plane.discarded(Discard::Drop), 1);
    host.add(manager, seq, 0x2002, true);
    assert_eq!(host.released().len(), 2);
    // Another host of the networks finds the need met.
    host.trapped(6, 6);
    assert_eq!(host.released().len(), 1);
    assert!(acquires(&host.heard(manager)).is_empty());
}

/// The need of the trap was met while this packet was on its way to its worker, or the key manager adds no eroute: whoever
/// comes later goes through the SA, and one need is one ACQUIRE.
#[test]
fn a_need_that_was_met_asks_no_more_while_its_sa_lives() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(1, 1);
    let records = host.heard(manager);
    let seq = acquires(&records)[0].base.seq;
    host.add(manager, seq, 0x5001, true);
    assert_eq!(host.released().len(), 1);
    host.heard(manager);
    for mark in 2..20 {
        host.trapped(1, mark);
        assert_eq!(host.released().len(), 1, "{mark}");
    }
    assert!(acquires(&host.heard(manager)).is_empty());
    // Another host's need is another.
    host.trapped(2, 1);
    assert_eq!(acquires(&host.heard(manager)).len(), 1);
    // An SA that is gone meets nothing.
    host.plane.withdraw(&said(0x5001));
    host.trapped(1, 30);
    assert_eq!(acquires(&host.heard(manager)).len(), 1);
}

fn inverse(inner: Option<(&str, &str)>) -> Request {
    let mut ask = Client::starting_at(PID, 77).request(MessageType::InverseAcquire, SaType::Unspec);
    ask.address(ExtType::AddressSrc, &Address::host("192.0.2.1".parse().unwrap()));
    ask.address(ExtType::AddressDst, &Address::host("192.0.2.2".parse().unwrap()));
    if let Some((src, dst)) = inner {
        ask.address(ExtType::AddressInnerSrc, &Address::host(src.parse().unwrap()));
        ask.address(ExtType::AddressInnerDst, &Address::host(dst.parse().unwrap()));
    }
    ask
}

#[test]
fn an_inverse_acquire_is_answered_from_the_eroutes() {
    let mut host = Host::trap();
    let (asking, extended) = (host.manager(false), host.manager(true));
    // REGISTER is told to those that are registered already.
    host.heard(asking);
    let answers = host.ask(asking, inverse(Some(("10.1.2.3", "10.2.3.4"))));
    let message = Message::parse_answer(&answers[0]).unwrap();
    assert_eq!((message.base.kind(), message.base.satype_number), (Some(MessageType::Acquire), 0));
    assert_eq!((message.base.seq, message.base.pid, message.base.errno), (77, PID, Errno(0)));
    assert_eq!(message.inner_dst.map(|a| (a.ip(), a.prefix)), Some(("10.2.0.0".parse().ok(), 16)));
    assert_eq!(message.dst.unwrap().ip(), "192.0.2.2".parse().ok());
    assert!(Ecomb::list(message.raw(ExtType::Eprop).unwrap()).count() > 1);
    assert_eq!(host.heard(extended), answers, "those with an extended REGISTER hear it, too");

    let refused = |host: &mut Host, request| {
        let answers = host.ask(asking, request);
        let base = Message::parse_answer(&answers[0]).unwrap().base;
        (base.number, base.errno, base.diagnostic)
    };
    let number = MessageType::InverseAcquire.number();
    let none = (number, Errno::ENOENT, Diagnostic::None.number());
    assert_eq!(refused(&mut host, inverse(Some(("10.9.2.3", "10.2.3.4")))), none);
    assert_eq!(refused(&mut host, inverse(None)), none);
    host.plane.change_eroutes(|eroutes| eroutes.replace(Eroute::new(selector(), Action::Pass)));
    assert_eq!(refused(&mut host, inverse(Some(("10.1.2.3", "10.2.3.4")))), none, "%pass needs no SA");
}
