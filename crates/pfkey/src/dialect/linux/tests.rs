//! Octets as linux/pfkeyv2.h lays them out, written here by hand: the code under test has no part in them.

use super::*;
use crate::{
    Address, Algorithm, ExtType, Flow, FlowAction, FlowDirection, FlowPolicy, Level, Sa, SaPolicy, Wanted,
    Writer, state,
};

/// Extensions of a record under construction.
fn ext(number: u16, body: &[u8]) -> Vec<u8> {
    let len = (4 + body.len()).next_multiple_of(8);
    let mut octets = u16::try_from(len / 8).unwrap().to_ne_bytes().to_vec();
    octets.extend(number.to_ne_bytes());
    octets.extend(body);
    octets.resize(len, 0);
    octets
}

fn record(number: u8, satype: u8, extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = extensions.concat();
    let words = u16::try_from((16 + body.len()) / 8).unwrap().to_ne_bytes();
    let mut octets = vec![2, number, 0, satype, words[0], words[1], 0, 0];
    octets.extend(7_u32.to_ne_bytes());
    octets.extend(4242_u32.to_ne_bytes());
    octets.extend(body);
    octets
}

fn address(number: u16, proto: u8, ip: [u8; 4], prefix: u8) -> Vec<u8> {
    let mut body = vec![proto, prefix, 0, 0, 2, 0, 0, 0];
    body.extend(ip);
    body.extend([0; 8]);
    ext(number, &body)
}

fn ends() -> [Vec<u8>; 2] {
    [address(5, 0, [192, 0, 2, 1], 32), address(6, 0, [192, 0, 2, 2], 32)]
}

fn sa(state: u8, auth: u8, encrypt: u8) -> Vec<u8> {
    let mut body = 0x1001_u32.to_be_bytes().to_vec();
    body.extend([64, state, auth, encrypt, 0, 0, 0, 0]);
    ext(1, &body)
}

fn sa2(mode: u8, reqid: u32) -> Vec<u8> {
    let mut body = vec![mode, 0, 0, 0, 0, 0, 0, 0];
    body.extend(reqid.to_ne_bytes());
    ext(19, &body)
}

fn key(number: u16, octet: u8, len: usize) -> Vec<u8> {
    let mut body = u16::try_from(len * 8).unwrap().to_ne_bytes().to_vec();
    body.extend([0, 0]);
    body.extend(vec![octet; len]);
    ext(number, &body)
}

fn lifetime(number: u16, bytes: u64, addtime: u64) -> Vec<u8> {
    let mut body = 0_u32.to_ne_bytes().to_vec();
    [bytes, addtime, 0].iter().for_each(|n: &u64| body.extend(n.to_ne_bytes()));
    ext(number, &body)
}

fn port(number: u16, port: u16) -> Vec<u8> {
    ext(number, &[port.to_be_bytes(), [0; 2]].concat())
}

/// What iked sends for an inbound SA behind a NAT.
fn add() -> Vec<u8> {
    let mut all = vec![sa(1, 3, 12), sa2(2, 77)];
    all.extend(ends());
    all.extend([lifetime(4, 1 << 30, 9000), lifetime(3, 1 << 32, 10800)]);
    all.extend([ext(20, &[2, 0, 0, 0]), port(21, 4501), port(22, 4500), key(9, 0x5e, 16), key(8, 0x5a, 20)]);
    record(3, 3, &all)
}

/// The one thing that is asked.
fn asked(turn: &Turn) -> Message<'_> {
    assert_eq!((turn.ask.len(), turn.say.len()), (1, 0), "{turn:?}");
    Message::parse(&turn.ask[0]).unwrap()
}

/// The one record that is said: number, errno, SA type, diagnostic.
fn said(turn: &Turn) -> (u8, u8, u8, u16) {
    assert_eq!((turn.ask.len(), turn.say.len()), (0, 1), "{turn:?}");
    let base = super::super::record::base(&turn.say[0]);
    assert_eq!(usize::from(base.words) * 8, turn.say[0].len());
    (base.number, base.errno.0, base.satype_number, base.diagnostic)
}

/// The service's answer: the request again.
fn answer(turn: &Turn, change: impl FnOnce(&mut Base)) -> Vec<u8> {
    let mut octets = turn.ask[0].to_vec();
    let mut base = super::super::record::base(&octets);
    change(&mut base);
    octets[..16].copy_from_slice(&base.octets());
    octets
}

#[test]
fn an_sa_goes_there_and_comes_back() {
    let mut linux = Linux::default();
    let turn = linux.request(&add());
    let ask = asked(&turn);
    assert_eq!((ask.base.kind(), ask.base.seq, ask.base.pid), (Some(MessageType::Add), 7, 4242));
    let flags = crate::flags::TUNNEL | crate::flags::NATT_LOC | crate::flags::NATT_REM;
    let want = Sa { spi: 0x1001, replay: 64, state: state::MATURE, auth: 3, encrypt: 12, flags };
    assert_eq!(ask.sa, Some(want));
    assert_eq!(ask.sa_policy, Some(SaPolicy { reqid: 77, by_policy: true }));
    assert_eq!(ask.inner_src, Some(Address::net([0; 4].into(), 0)));
    assert_eq!(ask.dst, Some(Address::host([192, 0, 2, 2].into())));
    assert_eq!(ask.natt_loc.map(|a| a.port()), Some(4501));
    assert_eq!(ask.natt_rem.map(|a| a.port()), Some(4500));
    assert_eq!(ask.encrypt_key.unwrap().octets, [0x5e; 16]);

    // As GET shows it, the service knows by then that the SA is inbound, and whose port is whose.
    let mut w = Writer::new(&Base { satype_number: 3, ..ask.base });
    w.sa(&Sa { flags: want.flags | crate::flags::INBOUND, ..want });
    w.address(ExtType::AddressSrc, &ask.src.unwrap()).address(ExtType::AddressDst, &ask.dst.unwrap());
    w.address(ExtType::AddressNattLoc, &ask.natt_rem.unwrap());
    w.address(ExtType::AddressNattRem, &ask.natt_loc.unwrap());
    w.address(ExtType::AddressInnerSrc, &ask.inner_src.unwrap());
    w.address(ExtType::AddressInnerDst, &ask.inner_dst.unwrap());
    w.sa_policy(&ask.sa_policy.unwrap());
    w.key(ExtType::KeyAuth, 160, 0, &[0x5a; 20]).key(ExtType::KeyEncrypt, 128, 0, &[0x5e; 16]);
    let turn = linux.notice(&w.finish().unwrap());
    let mut want = vec![sa(1, 3, 12)];
    want.extend(ends());
    want.extend([key(8, 0x5a, 20), key(9, 0x5e, 16), sa2(2, 77)]);
    want.extend([ext(20, &[2, 0, 0, 0]), port(21, 4501), port(22, 4500)]);
    assert_eq!(*turn.say[0], record(3, 3, &want));
}

#[test]
fn a_salt_is_part_of_the_key() {
    let mut w = Writer::new(&Base::request(MessageType::Get, SaType::Esp, 7, 4242));
    w.sa(&Sa { spi: 0x1001, replay: 64, state: 1, auth: 0, encrypt: 20, flags: 0 });
    w.key(ExtType::KeyEncrypt, 128, 32, &[0x5e; 20]);
    let turn = Linux::default().notice(&w.finish().unwrap());
    assert_eq!(*turn.say[0], record(5, 3, &[sa(1, 0, 20), key(9, 0x5e, 20), sa2(1, 0)]));
}

#[test]
fn a_range_of_spis_is_in_host_order_here() {
    let mut linux = Linux::default();
    let mut all = ends().to_vec();
    all.push(ext(16, &[0x100_u32.to_ne_bytes(), 0xffff_ffff_u32.to_ne_bytes(), [0; 4]].concat()));
    let turn = linux.request(&record(1, 3, &all));
    let range = asked(&turn).spi_range.unwrap();
    assert_eq!((range.min, range.max), (0x100, 0xffff_ffff));
    // Another's reservation is nobody else's business.
    assert!(Linux::default().notice(&turn.ask[0]).say.is_empty());
    all[2] = ext(16, &[0x200_u32.to_ne_bytes(), 0x1ff_u32.to_ne_bytes(), [0; 4]].concat());
    let refused = linux.request(&record(1, 3, &all));
    assert!(refused.ask.is_empty(), "the other way round it is none");
    assert_eq!(said(&refused), (1, Errno::EINVAL.0, 3, D::MalformedRange.number()));
}

#[test]
fn refusals_are_linux_ones_and_the_askers_alone() {
    let mut linux = Linux::default();
    let mut all = vec![sa(0, 0, 0)];
    all.extend(ends());
    let turn = linux.request(&record(2, 3, &all));
    let refused = answer(&turn, |base| {
        *base = Base { errno: Errno::EINVAL, diagnostic: D::SaNotfound.number(), words: 2, ..*base };
    });
    assert_eq!(said(&linux.notice(&refused[..16])), (2, 3, 3, D::SaNotfound.number()));
    assert!(Linux::default().notice(&refused[..16]).say.is_empty());
    // An algorithm nobody has, BEET, ESP in UDP as it was before RFC 3948.
    let mut with = |from: Vec<u8>, to: Vec<u8>| {
        let octets = add();
        let at = octets.windows(from.len()).position(|w| w == from).unwrap();
        let octets = [&octets[..at], &to, &octets[at + from.len()..]].concat();
        said(&linux.request(&octets))
    };
    assert_eq!(with(sa(1, 3, 12), sa(1, 3, 200)), (3, 38, 3, D::BadEalg.number()));
    assert_eq!(with(sa(1, 3, 12), sa(1, 200, 12)), (3, 38, 3, D::BadAalg.number()));
    assert_eq!(with(sa2(2, 77), sa2(3, 77)), (3, 95, 3, D::BadMode.number()));
    assert_eq!(with(ext(20, &[2, 0, 0, 0]), ext(20, &[1, 0, 0, 0])), (3, 95, 3, D::BadMode.number()));
    assert_eq!(said(&linux.request(&record(24, 3, &[]))), (24, 95, 3, D::UnknownMsg.number()));
    assert_eq!(said(&linux.request(&record(8, 3, &[]))), (8, 95, 3, D::UnknownMsg.number()));
}

#[test]
fn a_register_that_was_refused_may_be_tried_again() {
    let mut linux = Linux::default();
    let register = record(7, 3, &[]);
    let turn = linux.request(&register);
    let refused = answer(&turn, |base| *base = Base { errno: Errno::ENOMEM, words: 2, ..*base });
    assert_eq!(said(&linux.notice(&refused[..16])), (7, Errno::ENOMEM.0, 3, 0));
    assert_eq!(linux.request(&register).ask.len(), 1);
}

#[test]
fn a_socket_registers_once_for_an_sa_type() {
    let mut linux = Linux::default();
    let register = record(7, 3, &[]);
    let turn = linux.request(&register);
    assert_eq!(said(&linux.request(&register)), (7, Errno::EEXIST.0, 3, 0));
    let mut w = Writer::new(&asked(&turn).base);
    let row = |id| Algorithm { id, iv: 8, min_bits: 128, max_bits: 256, increment: 64, salt_bits: 32 };
    // ChaCha20-Poly1305 has no number here.
    w.supported(ExtType::SupportedEncrypt, &[row(20), row(128), row(129)]);
    let turn = linux.notice(&w.finish().unwrap());
    let octets = |id: u8| [&[id, 8][..], &128_u16.to_ne_bytes(), &256_u16.to_ne_bytes(), &[0, 0]].concat();
    assert_eq!(*turn.say[0], record(7, 3, &[ext(15, &[&[0; 4][..], &octets(20), &octets(23)].concat())]));
}

#[test]
fn a_dump_counts_and_ends_with_0_or_with_enoent() {
    let mut linux = Linux::default();
    let turn = linux.request(&record(10, 0, &[]));
    let end = answer(&turn, |base| base.seq = 0);
    let one = || {
        let mut w = Writer::new(&Base { satype_number: 3, ..asked(&turn).base });
        w.sa(&Sa { spi: 0x1001, ..Sa::default() });
        w.finish().unwrap()
    };
    assert!(linux.notice(&one()).say.is_empty());
    let seq = |turn: &Turn| super::super::record::base(&turn.say[0]).seq;
    assert_eq!(seq(&linux.notice(&one())), 1);
    assert_eq!(seq(&linux.notice(&end)), 0);
    // Nothing there.
    let turn = linux.request(&record(10, 9, &[]));
    assert_eq!(asked(&turn).base.satype(), Some(SaType::Ipcomp));
    assert_eq!(said(&linux.notice(&end)), (10, Errno::ENOENT.0, 9, 0));
}

#[test]
fn what_is_asked_and_not_answered_is_bounded() {
    let mut linux = Linux::default();
    for _ in 0..1000 {
        linux.request(&record(9, 3, &[]));
    }
    assert_eq!(linux.asked.len(), 64);
}

#[test]
fn every_cut_and_every_flipped_bit_is_taken_or_refused() {
    let whole = add();
    let mut linux = Linux::default();
    for len in 0..whole.len() {
        let turn = linux.request(&whole[..len]);
        assert_eq!((turn.ask.len(), turn.say.len()), (0, 1), "{len}");
    }
    for bit in 0..whole.len() * 8 {
        let mut octets = whole.clone();
        octets[bit / 8] ^= 1 << (bit % 8);
        let turn = linux.request(&octets);
        assert_eq!(turn.ask.len() + turn.say.len(), 1, "bit {bit}");
        turn.ask.iter().for_each(|ask| {
            Message::parse(ask).unwrap();
        });
    }
}

/// A selector, and a policy of one request.
fn spd(number: u8, kind: u8, direction: u8, request: &[u8]) -> Vec<u8> {
    let mut policy = vec![kind, 0, direction, 0];
    policy.extend(9_u32.to_ne_bytes());
    policy.extend(0x4000_0000_u32.to_ne_bytes());
    policy.extend(request);
    record(
        number,
        0,
        &[address(5, 255, [10, 1, 0, 0], 16), address(6, 255, [10, 2, 0, 0], 16), ext(18, &policy)],
    )
}

fn request(protocol: u8, mode: u8, level: u8, reqid: u32) -> Vec<u8> {
    let mut octets = vec![48, 0, protocol, 0, mode, level, 0, 0];
    octets.extend(reqid.to_ne_bytes());
    octets.extend([0; 4]);
    for last in [1, 2] {
        octets.extend([2, 0, 0, 0, 192, 0, 2, last, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    octets
}

#[test]
fn a_policy_goes_there_and_comes_back() {
    let mut linux = Linux::default();
    let turn = linux.request(&spd(14, 2, 2, &request(50, 2, 3, 77)));
    let ask = asked(&turn);
    assert_eq!((ask.base.kind(), ask.base.seq), (Some(MessageType::AddFlow), 7));
    let wanted = Wanted { protocol: 50, mode: 2, level: Level::Unique, reqid: 77 };
    let mut want = FlowPolicy {
        direction: FlowDirection::Out,
        index: 0,
        priority: 1 << 30,
        wanted: Some(wanted),
        further: Vec::new(),
    };
    assert_eq!(ask.flow_policy.as_ref(), Some(&want));
    assert_eq!(ask.inner_src, Some(Address::net([10, 1, 0, 0].into(), 16)), "255 is any");
    assert_eq!(ask.dst, Some(Address::host([192, 0, 2, 2].into())));

    // The service has given it a number, and there is no SA yet.
    let mut w = Writer::new(&ask.base);
    w.address(ExtType::AddressSrc, &ask.src.unwrap()).address(ExtType::AddressDst, &ask.dst.unwrap());
    w.address(ExtType::AddressInnerSrc, &ask.inner_src.unwrap());
    w.address(ExtType::AddressInnerDst, &ask.inner_dst.unwrap());
    want.index = 9;
    w.flow_policy(&want).flow(&Flow { action: FlowAction::Trap, packets: 0, last_use: 0 });
    let turn = linux.notice(&w.finish().unwrap());
    let whole = spd(14, 2, 2, &request(50, 2, 3, 77));
    let said = &turn.say[0];
    assert_eq!(said[..2], whole[..2], "SPDADD");
    let policy = &whole[16 + 48..];
    assert!(said.ends_with(policy), "{said:?}\n{policy:?}");
    assert_eq!(said[16..64], whole[16..64], "selector");
    // Another socket of the dialect hears the same.
    assert_eq!(Linux::default().notice(&w_again(&ask, &want)).say[0][1], 14);
}

fn w_again(ask: &Message<'_>, policy: &FlowPolicy) -> Vec<u8> {
    let mut w = Writer::new(&ask.base);
    w.address(ExtType::AddressInnerSrc, &ask.inner_src.unwrap());
    w.address(ExtType::AddressInnerDst, &ask.inner_dst.unwrap());
    w.flow_policy(policy).flow(&Flow { action: FlowAction::Pass, packets: 0, last_use: 0 });
    w.finish().unwrap()
}

#[test]
fn only_unique_looks_at_the_number() {
    for (level, want) in [(0, Level::Require), (1, Level::Use), (2, Level::Require), (3, Level::Unique)] {
        let mut linux = Linux::default();
        let turn = linux.request(&spd(13, 2, 1, &request(50, 2, level, 77)));
        let wanted = asked(&turn).flow_policy.unwrap().wanted.unwrap();
        assert_eq!((wanted.level, wanted.reqid), (want, if level == 3 { 77 } else { 0 }));
        assert_eq!(asked(&turn).base.kind(), Some(MessageType::ReplaceFlow));
    }
}

#[test]
fn policies_that_cannot_be_kept_are_refused_by_name() {
    let one = request(50, 2, 2, 0);
    let why = |octets: &[u8]| {
        let (_, errno, _, diagnostic) = said(&Linux::default().request(octets));
        (errno, D::from_number(diagnostic).unwrap())
    };
    let two = [one.clone(), request(51, 2, 2, 0)].concat();
    assert_eq!(why(&spd(14, 2, 2, &two)), (95, D::BadPolicy), "a bundle");
    let transport = [&[16, 0, 50, 0, 1, 2, 0, 0][..], &[0; 8]].concat();
    assert_eq!(why(&spd(14, 2, 2, &transport)), (95, D::BadMode));
    assert_eq!(why(&spd(14, 2, 2, &[])), (22, D::BadPolicy), "ipsec and nothing");
    assert_eq!(why(&spd(14, 3, 2, &[])), (22, D::BadPolicy), "entrust");
    assert_eq!(why(&spd(14, 2, 0, &one)), (22, D::BadPolicy), "any direction");
    assert_eq!(why(&spd(14, 2, 2, &one[..40])), (22, D::BadPolicy), "cut");
    let mut lies = one.clone();
    lies[0] = 200;
    assert_eq!(why(&spd(14, 2, 2, &lies)), (22, D::BadPolicy), "a length beyond the end");
    lies[0] = 8;
    assert_eq!(why(&spd(14, 2, 2, &lies)), (22, D::BadPolicy), "a length below its own");
}

#[test]
fn delete_by_number_looks_first_and_then_deletes_what_it_saw() {
    let mut linux = Linux::default();
    let turn = linux.request(&spd(22, 1, 2, &[]));
    let ask = asked(&turn);
    assert_eq!((ask.base.kind(), ask.flow_policy.unwrap().index), (Some(MessageType::GetFlow), 9));
    let mut w = Writer::new(&ask.base);
    w.address(ExtType::AddressInnerSrc, &Address::net([10, 1, 0, 0].into(), 16));
    w.address(ExtType::AddressInnerDst, &Address::net([10, 2, 0, 0].into(), 16));
    let policy = FlowPolicy { index: 9, direction: FlowDirection::Forward, ..FlowPolicy::default() };
    w.flow_policy(&policy).flow(&Flow { action: FlowAction::Pass, packets: 0, last_use: 0 });
    let turn = linux.notice(&w.finish().unwrap());
    let ask = asked(&turn);
    assert_eq!(ask.base.kind(), Some(MessageType::DelFlow));
    assert_eq!(ask.flow_policy.unwrap().direction, FlowDirection::Forward);
    let echo = turn.ask[0].to_vec();
    let done = linux.notice(&echo);
    assert_eq!(said(&done).0, 22);
    // None of that number.
    let turn = linux.request(&spd(22, 1, 2, &[]));
    let none = answer(&turn, |base| *base = Base { errno: Errno::ENOENT, words: 2, ..*base });
    assert_eq!(said(&linux.notice(&none[..16])), (22, Errno::ENOENT.0, 0, 0));
}

#[test]
fn an_acquire_names_the_policy() {
    let mut w = Writer::new(&Base::request(MessageType::Acquire, SaType::Esp, 0x8000_0001, 0));
    w.address(ExtType::AddressSrc, &Address { proto: 4, ..Address::host([192, 0, 2, 1].into()) });
    w.address(ExtType::AddressDst, &Address { proto: 4, ..Address::host([192, 0, 2, 2].into()) });
    w.flow_policy(&FlowPolicy { index: 9, priority: 1 << 30, ..FlowPolicy::default() });
    let turn = Linux::default().notice(&w.finish().unwrap());
    let mut policy = vec![2, 0, 2, 0];
    policy.extend(9_u32.to_ne_bytes());
    policy.extend(0x4000_0000_u32.to_ne_bytes());
    let mut want = record(6, 3, &[&ends()[..], &[ext(18, &policy)]].concat());
    want[8..12].copy_from_slice(&0x8000_0001_u32.to_ne_bytes());
    want[12..16].fill(0);
    assert_eq!(*turn.say[0], want);
}
