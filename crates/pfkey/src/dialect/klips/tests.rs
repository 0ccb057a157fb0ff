//! What the service has to be made to say: groups, moves of a peer, needs for SAs. The conversations with the real one are in
//! `crates/klips/tests/dialect_klips.rs`.

use super::*;
use crate::{Address, Comb, ExtType, Limits, Sa, Writer, flags};

fn ext(number: u16, body: &[u8]) -> Vec<u8> {
    let len = (4 + body.len()).next_multiple_of(8);
    let mut octets = u16::try_from(len / 8).unwrap().to_ne_bytes().to_vec();
    octets.extend(number.to_ne_bytes());
    octets.extend(body);
    octets.resize(len, 0);
    octets
}

fn record(number: u8, satype: u8, errno: u8, diagnostic: u16, exts: &[Vec<u8>]) -> Vec<u8> {
    let body = exts.concat();
    let mut octets = vec![2, number, errno, satype];
    octets.extend(u16::try_from((16 + body.len()) / 8).unwrap().to_ne_bytes());
    octets.extend(diagnostic.to_ne_bytes());
    octets.extend(7_u32.to_ne_bytes());
    octets.extend(4242_u32.to_ne_bytes());
    octets.extend(body);
    octets
}

fn sa(number: u16, spi: u32) -> Vec<u8> {
    ext(number, &[&spi.to_be_bytes()[..], &[0; 16]].concat())
}

fn address(number: u16, last: u8) -> Vec<u8> {
    ext(number, &[0, 0, 0, 0, 2, 0, 0, 0, 192, 0, 2, last, 0, 0, 0, 0, 0, 0, 0, 0])
}

const TUN: Member = Member { satype: 9, spi: 0x1000 };
const ESP: Member = Member { satype: 3, spi: 0x1001 };
const AH: Member = Member { satype: 2, spi: 0x1002 };

/// GRPSA of two SAs.
fn link(one: Member, two: Member) -> Vec<u8> {
    let second = [ext(18, &[two.satype, 0, 0, 0]), sa(19, two.spi), address(20, 2)];
    record(13, one.satype, 0, 0, &[&[sa(1, one.spi), address(6, 2)][..], &second].concat())
}

fn alone(one: Member) -> Vec<u8> {
    record(13, one.satype, 0, 0, &[sa(1, one.spi), address(6, 2)])
}

fn delete(one: Member) -> Vec<u8> {
    record(4, one.satype, 0, 0, &[sa(1, one.spi), address(5, 1), address(6, 2)])
}

/// What GET says: the SA, and the group that it is in.
fn shown(ask: &[u8], group: &[Member]) -> Vec<u8> {
    let ask = Message::parse(ask).unwrap();
    assert_eq!((ask.base.kind(), ask.base.pid), (Some(MessageType::Get), OURS));
    let mut w = Writer::new(&ask.base);
    w.sa(&ask.sa.unwrap()).address(ExtType::AddressDst, &ask.dst.unwrap());
    if group.len() > 1 {
        w.group(group);
    }
    w.finish().unwrap()
}

/// Answers the GETs of a turn with these groups, and returns what is asked then.
fn answered(klips: &mut Klips, turn: &Turn, groups: &[&[Member]]) -> Turn {
    assert_eq!((turn.ask.len(), turn.say.len()), (groups.len(), 0));
    let mut last = Turn::default();
    for (ask, group) in turn.ask.iter().zip(groups) {
        assert!(last.ask.is_empty() && last.say.is_empty(), "not before all is known");
        last = klips.notice(&shown(ask, group));
    }
    last
}

/// The groups that are asked for.
fn groups(turn: &Turn) -> Vec<Vec<Member>> {
    let group = |ask: &Zeroizing<Vec<u8>>| {
        let message = Message::parse(ask).unwrap();
        assert_eq!(message.base.kind(), Some(MessageType::GroupSa));
        assert_eq!(message.dst.and_then(|dst| dst.ip()), Some([192, 0, 2, 2].into()));
        message.group.unwrap().members().collect()
    };
    turn.ask.iter().map(group).collect()
}

#[test]
fn sas_are_linked_one_by_one_and_grouped_as_a_whole() {
    let mut klips = Klips::default();
    let turn = klips.request(&link(TUN, ESP));
    let turn = answered(&mut klips, &turn, &[&[TUN], &[ESP]]);
    assert_eq!(groups(&turn), [[TUN, ESP]]);
    assert_eq!(*klips.notice(&turn.ask[0]).say[0], link(TUN, ESP), "to whom it was done, octet by octet");
    // Another socket hears it, too.
    assert_eq!(*Klips::default().notice(&turn.ask[0]).say[0], link(TUN, ESP));

    // The next link, from outside: the whole chain is grouped anew.
    let turn = klips.request(&link(ESP, AH));
    let turn = answered(&mut klips, &turn, &[&[TUN, ESP], &[AH]]);
    assert_eq!(groups(&turn), [[TUN, ESP, AH]]);
    let heard = klips.notice(&turn.ask[0]);
    assert_eq!((heard.say.len(), &*heard.say[0]), (1, &link(ESP, AH)), "the link that was asked for");
    let others = Klips::default().notice(&turn.ask[0]);
    assert_eq!(others.say.iter().map(|r| r.to_vec()).collect::<Vec<_>>(), [link(TUN, ESP), link(ESP, AH)]);
}

#[test]
fn a_link_that_is_there_or_cannot_be_is_refused() {
    let mut klips = Klips::default();
    let mut refused = |ask: Vec<u8>, groups: &[&[Member]]| {
        let turn = klips.request(&ask);
        let turn = answered(&mut klips, &turn, groups);
        assert_eq!((turn.ask.len(), turn.say.len()), (0, 1));
        turn.say[0].to_vec()
    };
    let eexist = record(13, 9, Errno::EEXIST.0, 0, &[]);
    assert_eq!(refused(link(TUN, AH), &[&[TUN, ESP], &[AH]]), eexist);
    assert_eq!(refused(link(TUN, ESP), &[&[TUN], &[AH, ESP]]), eexist);
    assert_eq!(refused(link(TUN, TUN), &[&[TUN], &[TUN]]), eexist);
    let more = |spi| Member { satype: 3, spi };
    let long = [more(1), more(2), more(3), TUN];
    assert_eq!(refused(link(TUN, AH), &[&long, &[AH]]), record(13, 9, Errno::EINVAL.0, 3, &[]));
    // One that does not exist, the first or the second.
    for n in 0..2 {
        let turn = klips.request(&link(TUN, ESP));
        let missing = Message::parse(&turn.ask[n]).unwrap().base;
        if n == 1 {
            assert!(klips.notice(&shown(&turn.ask[0], &[TUN])).say.is_empty());
        }
        let fault = Fault { errno: Errno::ESRCH, diagnostic: D::SaNotfound };
        let turn = klips.notice(&missing.refusal(fault));
        assert_eq!(*turn.say[0], record(13, 9, 2, 78, &[]), "ENOENT");
    }
    assert!(klips.pending.len() == 0);
    // To two hosts.
    let elsewhere = [sa(1, 1), address(6, 2), ext(18, &[3, 0, 0, 0]), sa(19, 2), address(20, 3)];
    assert_eq!(
        *klips.request(&record(13, 9, 0, 0, &elsewhere)).say[0],
        record(13, 9, Errno::EINVAL.0, 13, &[])
    );
    // Half of a second one.
    let half = [sa(1, 1), address(6, 2), ext(18, &[3, 0, 0, 0])];
    assert_eq!(*klips.request(&record(13, 9, 0, 0, &half)).say[0], record(13, 9, Errno::EINVAL.0, 20, &[]));
    // The service has its own reasons.
    let turn = klips.request(&link(TUN, ESP));
    let turn = answered(&mut klips, &turn, &[&[TUN], &[ESP]]);
    let base = Message::parse(&turn.ask[0]).unwrap().base;
    let turn = klips.notice(&base.refusal(Fault::errno(Errno::EPROTOTYPE)));
    assert_eq!(*turn.say[0], record(13, 9, Errno::EPROTOTYPE.0, 0, &[]));
}

#[test]
fn one_sa_alone_takes_its_group_apart() {
    let mut klips = Klips::default();
    let turn = klips.request(&alone(ESP));
    let turn = answered(&mut klips, &turn, &[&[TUN, ESP, AH]]);
    assert_eq!(groups(&turn), [[TUN], [AH], [ESP]]);
    let heard: Vec<Vec<u8>> =
        turn.ask.iter().flat_map(|ask| klips.notice(ask).say).map(|record| record.to_vec()).collect();
    assert_eq!(heard, [alone(ESP)], "the rest is not the program's doing");
}

#[test]
fn a_delete_takes_the_whole_group() {
    let mut klips = Klips::default();
    let turn = klips.request(&delete(AH));
    let turn = answered(&mut klips, &turn, &[&[TUN, ESP, AH]]);
    let deleted = |ask: &Zeroizing<Vec<u8>>| {
        let message = Message::parse(ask).unwrap();
        assert_eq!(message.base.kind(), Some(MessageType::Delete));
        Member { satype: message.base.satype_number, spi: message.sa.unwrap().spi }
    };
    assert_eq!(turn.ask.iter().map(deleted).collect::<Vec<_>>(), [TUN, ESP, AH]);
    let heard: Vec<Vec<u8>> =
        turn.ask.iter().flat_map(|ask| klips.notice(ask).say).map(|record| record.to_vec()).collect();
    assert_eq!(heard, [record(4, 2, 0, 0, &[sa(1, AH.spi), address(6, 2)])]);
}

#[test]
fn a_peer_that_moved_is_told_with_both_places() {
    let mut w = Writer::new(&Base::request(MessageType::NewMapping, SaType::Esp, 7, 4242));
    let host = |last: u8, port: u16| Address {
        proto: 17,
        prefix: 0,
        socket: Some(([192, 0, 2, last], port).into()),
    };
    w.sa(&Sa { spi: 0x1001, state: 1, flags: flags::INBOUND, ..Sa::default() });
    w.address(ExtType::AddressSrc, &host(9, 0)).address(ExtType::AddressDst, &host(1, 0));
    w.address(ExtType::AddressNattRem, &host(9, 4500)).address(ExtType::NewSrc, &host(10, 40_000));
    let told = Klips::default().notice(&w.finish().unwrap());
    let mut body = 0x1001_u32.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 0]);
    body.extend([0; 12]);
    let port = |number: u16, port: u16| ext(number, &[port.to_be_bytes(), [0; 2]].concat());
    let exts = [ext(1, &body), address(5, 9), address(6, 10), port(28, 4500), port(29, 40_000)];
    assert_eq!(*told.say[0], record(17, 3, 0, 0, &exts));
}

#[test]
fn a_need_for_an_sa_is_told_in_what_has_a_number_there() {
    let mut w = Writer::new(&Base::request(MessageType::Acquire, SaType::Esp, 7, 4242));
    w.address(ExtType::AddressSrc, &Address::host([192, 0, 2, 1].into()));
    w.address(ExtType::AddressDst, &Address::host([192, 0, 2, 2].into()));
    let comb = |auth: u8, encrypt: u8| Comb {
        auth,
        encrypt,
        auth_bits: (160, 160),
        encrypt_bits: (192, 192),
        salt_bits: 0,
        limits: Limits::default(),
    };
    w.proposal(64, &[comb(0, 20), comb(3, 3)]);
    let told = Klips::default().notice(&w.finish().unwrap());
    let mut body = vec![64, 0, 0, 0, 3, 3, 0, 0];
    [160_u16, 160, 192, 192].iter().for_each(|bits| body.extend(bits.to_ne_bytes()));
    body.extend([0; 60]);
    let exts = [address(5, 1), address(6, 2), ext(13, &body)];
    assert_eq!(*told.say[0], record(6, 3, 0, 0, &exts));
}

#[test]
fn what_is_asked_and_not_answered_is_bounded() {
    let mut klips = Klips::default();
    for _ in 0..1000 {
        klips.request(&record(9, 3, 0, 0, &[]));
        klips.request(&link(TUN, ESP));
    }
    assert_eq!((klips.asked.len(), klips.pending.len()), (64, 64));
}

#[test]
fn every_cut_and_every_flipped_bit_is_taken_or_refused() {
    let mut klips = Klips::default();
    let tcp = ext(26, &[6, 0, 0, 0]);
    let flow = [address(21, 0), address(22, 0), address(23, 255), address(24, 255), tcp];
    let add_flow = record(14, 3, 0, 0, &[&[sa(1, 1), address(6, 2)][..], &flow].concat());
    for whole in [link(TUN, ESP), delete(AH), add_flow] {
        for len in 0..whole.len() {
            let turn = klips.request(&whole[..len]);
            assert_eq!((turn.ask.len(), turn.say.len()), (0, 1), "{len}");
        }
        for bit in 0..whole.len() * 8 {
            let mut octets = whole.clone();
            octets[bit / 8] ^= 1 << (bit % 8);
            let turn = klips.request(&octets);
            assert!(turn.ask.len() + turn.say.len() >= 1, "bit {bit}");
            turn.ask.iter().for_each(|ask| {
                Message::parse(ask).unwrap();
            });
        }
    }
}
