//! What the service says by itself, and that no message of the dialect is without a conversation.

use super::*;
use klips::{Link, Outbound, Sealed, Verdict, Vnet};
use std::sync::Arc;

/// One supported algorithm: its number, the octets of its IV, its shortest and its longest key.
fn algorithm(id: u8, iv: u8, least: u16, most: u16) -> Vec<u8> {
    [&[id, iv][..], &least.to_ne_bytes(), &most.to_ne_bytes(), &[0; 2]].concat()
}

#[test]
pub(super) fn a_register_is_answered_with_the_algorithms_there_are() {
    let mut world = World::new();
    let list = |number: u16, rows: &[Vec<u8>]| ext(number, &[&[0; 4][..], &rows.concat()].concat());
    let auths =
        [(2, 128), (3, 160), (5, 256), (6, 384), (7, 512)].map(|(id, bits)| algorithm(id, 0, bits, bits));
    let ciphers = [algorithm(3, 8, 192, 192), algorithm(11, 0, 0, 0), algorithm(12, 16, 128, 256)];
    let both = [list(14, &auths), list(15, &ciphers)];
    world.gets(&record(7, 2, &[]), &record(7, 2, &both[..1]));
    world.gets(&record(7, 3, &[]), &record(7, 3, &both));
    world.gets(&record(7, 9, &[]), &record(7, 9, &[]));
    // RFC 2367 has no list for what compresses.
    world.gets(&record(7, 10, &[]), &record(7, 10, &[]));
}

/// A packet from 10.1.0.1 to 10.2.0.9, UDP.
fn packet() -> Vec<u8> {
    let mut packet = vec![0; 60];
    packet[..28].copy_from_slice(&[
        0x45, 0, 0, 60, 0, 9, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 9, 3, 0xe8, 7, 0xd0, 0, 40, 0, 0,
    ]);
    packet
}

#[test]
pub(super) fn a_packet_that_meets_a_trap_is_told_to_those_who_registered() {
    let mut world = World::new();
    let flow = flow(NET1, NET2, SIXTEEN);
    let trap = record(14, 11, &[&[sa_of(1, 260, [0; 4], 2), address(6, [0; 4])][..], &flow].concat());
    world.ask(&record(7, 3, &[]));
    world.ask(&trap);
    (0..2).for_each(|n| drop(world.hear(n)));

    let plane = Arc::clone(&world.service.plane);
    let (mtu, hide_tos, frag_icmp, copy_df) = (1500, true, true, false);
    let link = Link { mtu, icmp_source4: None, icmp_source6: None, hide_tos, frag_icmp, copy_df };
    let mut outbound = Outbound::new(Arc::clone(&plane), plane.new_counters(), link);
    let (now, mut sealed) = (world.service.now, Sealed::new(0));
    assert_eq!(outbound.packet(&Vnet::default(), &mut packet(), now, &mut sealed), Verdict::Keep);
    outbound.finish(now, &mut sealed);
    assert!(plane.take_wake());
    world.service.control.expire(now);
    let told = world.hear(0);
    assert_eq!(told.len(), 1, "{told:02x?}");
    // RFC 2367 §3.1.6: the ends of what needs a tunnel, and proposals, the best first, of what has a number here: 24000 and 28800 s.
    let comb = |auth: u8, bits: u16| {
        let mut comb = vec![auth, 12, 0, 0];
        [bits, bits, 128, 256].iter().for_each(|bits| comb.extend(bits.to_ne_bytes()));
        comb.resize(40, 0);
        [24_000_u64, 28_800, 0, 0].iter().for_each(|seconds| comb.extend(seconds.to_ne_bytes()));
        comb
    };
    let combs = [(5, 256), (6, 384), (7, 512)].map(|(auth, bits)| comb(auth, bits));
    let proposal = ext(13, &[&[64, 0, 0, 0][..], &combs.concat()].concat());
    let end = |number: u16, ip: [u8; 4]| {
        let mut end = address(number, ip);
        end[4] = 4;
        end
    };
    let mut wanted = record(6, 3, &[end(5, [10, 1, 0, 1]), end(6, [10, 2, 0, 9]), proposal]);
    wanted[8..12].copy_from_slice(&0xffff_fffe_u32.to_ne_bytes());
    wanted[12..16].fill(0);
    exact(&told[0], &wanted);
    assert!(world.hear(1).is_empty(), "it has not registered");
}

#[test]
pub(super) fn a_peer_that_has_moved_is_told_to_those_who_registered() {
    let mut world = World::new();
    let natt = [ext(27, &[2, 0, 0, 0]), port16(28, 4500), port16(29, 4500)];
    world.ask(&record(
        3,
        3,
        &[&[esp(0x1001), address(5, RIGHT), address(6, LEFT)][..], &keys(), &natt].concat(),
    ));
    world.service.control.set_local_addresses(vec![LEFT.into()]);
    world.ask(&record(
        3,
        3,
        &[&[esp(0x1002), address(5, RIGHT), address(6, LEFT)][..], &keys(), &natt].concat(),
    ));
    world.ask(&record(7, 3, &[]));
    (0..2).for_each(|n| drop(world.hear(n)));
    let id = SaId { dst: LEFT.into(), protocol: Protocol::Esp, spi: Spi(0x1002) };
    world.service.control.new_mapping(&id, "203.0.113.7:5555".parse().unwrap());
    let told = world.hear(0);
    assert_eq!(told.len(), 1, "{told:02x?}");
    let ends = [address(5, RIGHT), address(6, [203, 0, 113, 7])];
    let ports = [port16(28, 4500), port16(29, 5555)];
    let mut wanted = record(17, 3, &[&[sa_of(1, 0x1002, [0, 1, 0, 0], 0)][..], &ends, &ports].concat());
    wanted[8..16].fill(0);
    exact(&told[0], &wanted);
    assert!(world.hear(1).is_empty(), "it has not registered");
}

/// The messages of the dialect, and those of its conversations in which it is answered, or told, to the octet. What is only refused
/// is so with this errno.
const LIST: &[(u8, &str, Option<u8>)] = &[
    (1, "GETSPI", None),
    (2, "UPDATE", None),
    (3, "ADD", None),
    (4, "DELETE", None),
    (5, "GET", None),
    (6, "ACQUIRE", None),
    (7, "REGISTER", None),
    (8, "EXPIRE", None),
    (9, "FLUSH", None),
    (10, "DUMP", Some(ENOSYS)),
    (11, "X_PROMISC", Some(ENOSYS)),
    (12, "X_PCHANGE", Some(ENOSYS)),
    (13, "X_GRPSA", None),
    (14, "X_ADDFLOW", None),
    (15, "X_DELFLOW", None),
    (16, "X_DEBUG", None),
    (17, "X_NAT_T_NEW_MAPPING", None),
    // Devices are made by `ipsec tncfg`.
    (18, "X_PLUMBIF", Some(EOPNOTSUPP)),
    (19, "X_UNPLUMBIF", Some(EOPNOTSUPP)),
];

#[test]
fn every_message_of_the_dialect_has_a_conversation_to_the_octet() {
    let conversations = [
        flush_takes_every_sa_whatever_type_it_names,
        an_sa_is_added_shown_updated_and_deleted,
        an_spi_is_reserved_and_becomes_an_sa,
        a_register_is_answered_with_the_algorithms_there_are,
        a_packet_that_meets_a_trap_is_told_to_those_who_registered,
        a_peer_that_has_moved_is_told_to_those_who_registered,
        eroutes_are_added_replaced_deleted_and_cleared,
        debug_words_are_for_the_daemon,
        limits_are_told_to_everyone,
        sas_are_grouped_link_by_link_and_deleted_together,
        a_record_that_is_none_is_refused_to_its_sender,
    ];
    EXACT.with_borrow_mut(std::collections::BTreeSet::clear);
    conversations.iter().for_each(|conversation| conversation());
    let said = EXACT.with_borrow(Clone::clone);
    for (number, name, refused) in LIST {
        assert!(said.contains(&(*number, refused.unwrap_or(0))), "{name}: {said:?}");
        assert!(refused.is_none() || !said.contains(&(*number, 0)), "{name} is answered now");
    }
    // And the list has them all: what is not on it is no message.
    let last = LIST.last().unwrap().0;
    assert_eq!(LIST.iter().map(|row| row.0).collect::<Vec<_>>(), (1..=last).collect::<Vec<_>>());
    assert_eq!(last, pfkey::dialect::klips::number::message::UNPLUMBIF);
}
