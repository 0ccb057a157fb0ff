//! What answers an ACQUIRE: the SA that leads there, or the word that there will be none.

use crate::host::{Host, PID, acquires, negative, udp};
use ipsec_core::Selector;
use klips::{Action, Discard, Eroute, Vnet};
use pfkey::client::Client;
use pfkey::{Address, Errno, ExtType, Message, MessageType, SaType, SpiRange};

#[test]
fn the_sa_that_answers_lets_the_packets_go_in_their_order() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    for mark in 1..=3 {
        host.trapped(9, mark);
    }
    let seq = acquires(&host.heard(manager))[0].base.seq;
    // The direction that leads in answers nothing.
    host.add(manager, seq, 0x1001, false);
    assert_eq!(host.released(), Vec::<Vec<u8>>::new());
    host.add(manager, seq, 0x2002, true);
    let packets = host.released();
    assert_eq!(packets.len(), 3);
    for (index, (packet, mark)) in packets.iter().zip(1..).enumerate() {
        assert_eq!(packet[..4], 0x2002_u32.to_be_bytes());
        assert_eq!(packet[4..8], (index as u32 + 1).to_be_bytes());
        assert_eq!(packet[8..68], udp(9, mark, 60), "inner packet {mark}");
    }
    assert_eq!(host.dropped(), 0);
    // It is answered, once.
    host.add(manager, seq, 0x2003, true);
    assert_eq!(host.released(), Vec::<Vec<u8>>::new());
}

#[test]
fn an_update_that_makes_a_reserved_spi_an_sa_answers_too() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    let mut ask = Client::new(PID).request(MessageType::GetSpi, SaType::Esp);
    ask.address(ExtType::AddressSrc, &Address::host("192.0.2.1".parse().unwrap()));
    ask.address(ExtType::AddressDst, &Address::host("192.0.2.2".parse().unwrap()));
    ask.spi_range(&SpiRange { min: 0x2002, max: 0x2002 });
    assert_eq!(host.ask(manager, ask)[0][2], 0);
    let mut update = host.add_record(seq, 0x2002, true);
    update[1] = MessageType::Update.number();
    let now = host.now;
    host.control.request(manager, &update, now);
    assert_eq!(host.heard(manager)[0][2], 0);
    assert_eq!(host.released().len(), 1);
}

#[test]
fn a_packet_outside_the_selectors_of_the_sa_that_answers_does_not_go_through_it() {
    const TCP: u8 = 6;
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    let add = host.add_record_for(seq, 0x2002, true, TCP);
    host.control.request(manager, &add, host.now);
    assert_eq!(host.released(), Vec::<Vec<u8>>::new());
    assert_eq!(host.counters.count(Discard::PolicyMismatch), 1);
}

/// Key managers number their own requests, and a number may be an ACQUIRE's by chance.
#[test]
fn an_sa_that_leads_elsewhere_is_no_answer_whatever_its_number() {
    for refused in [false, true] {
        let mut host = Host::trap();
        let wide = Selector::nets("0.0.0.0/0".parse().unwrap(), "0.0.0.0/0".parse().unwrap());
        host.plane.change_eroutes(|eroutes| {
            drop(eroutes.clear());
            eroutes.replace(Eroute::new(wide, Action::Trap));
        });
        let manager = host.manager(false);
        let mut packet = udp(9, 1, 60);
        packet[16..20].copy_from_slice(&[10, 9, 0, 1]);
        let _ = host.send(&Vnet::default(), &mut packet);
        let seq = acquires(&host.heard(manager))[0].base.seq;
        host.add(manager, if refused { 0 } else { seq }, 0x2002, true);
        if refused {
            let again = host.add_record(seq, 0x2002, true);
            host.control.request(manager, &again, host.now);
            assert_eq!(host.heard(manager)[0][2], 17, "EEXIST");
        }
        assert_eq!((host.released().len(), host.dropped()), (0, 0), "it still waits");
        host.control.request(manager, &negative(seq), host.now);
        assert_eq!(host.dropped(), 1, "for its own answer");
    }
}

#[test]
fn an_answer_that_fails_drops_what_waits_for_it() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.add(manager, 1, 0x2002, true);
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    let again = host.add_record(seq, 0x2002, true);
    let now = host.now;
    host.control.request(manager, &again, now);
    assert_eq!(Message::parse_answer(&host.heard(manager)[0]).unwrap().base.errno, Errno::EEXIST);
    assert_eq!(host.dropped(), 1);
    assert_eq!(host.released().len(), 0);
}

#[test]
fn a_key_manager_that_gives_up_drops_them() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    host.trapped(9, 2);
    host.trapped(8, 3);
    let records = host.heard(manager);
    let seqs: Vec<u32> = acquires(&records).iter().map(|message| message.base.seq).collect();
    let now = host.now;
    host.control.request(manager, &negative(seqs[0]), now);
    assert_eq!(host.heard(manager), Vec::<Vec<u8>>::new(), "there is no answer to it");
    assert_eq!(host.dropped(), 2);
    host.control.request(manager, &negative(seqs[0] - 77), now);
    assert_eq!(host.dropped(), 2);
    // The next packet asks again.
    host.trapped(9, 4);
    assert_eq!(acquires(&host.heard(manager)).len(), 1);
}

#[test]
fn only_the_database_that_was_asked_can_give_up() {
    let mut host = Host::trap();
    let (manager, extended) = (host.manager(false), host.manager(true));
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    let now = host.now;
    let mut refuse = |from, satype: SaType| {
        let mut octets = negative(seq);
        octets[3] = satype.number();
        host.control.request(from, &octets, now);
        host.plane.discarded(Discard::Hold)
    };
    assert_eq!(refuse(manager, SaType::Ah), 0, "AH has no such record");
    // RFC 2367 has no satype 0 here; a socket with an extended REGISTER means all it is registered for.
    assert_eq!(refuse(extended, SaType::Unspec), 1);
}
