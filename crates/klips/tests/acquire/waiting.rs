//! What waits: in which order, how much of it, and until when.

use crate::host::{Host, PID, START, acquires, negative, replace_flow, said, udp};
use klips::{Discard, Gso, Verdict, Vnet};
use pfkey::client::Client;
use pfkey::{FlowAction, MessageType, SaType};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn the_first_packet_and_the_latest_three_wait() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    for mark in 1..=7 {
        assert_eq!(host.packet(9, mark), Verdict::Keep);
    }
    assert_eq!(host.dropped(), 3);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    host.add(manager, seq, 0x2002, true);
    let marks: Vec<u8> = host.released().iter().map(|packet| packet[8 + 40]).collect();
    assert_eq!(marks, [1, 5, 6, 7]);
    assert_eq!(host.dropped(), 3);
}

#[test]
fn a_superpacket_waits_whole_and_is_cut_when_it_goes() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    let vnet = Vnet {
        needs_csum: true,
        gso: Gso::Udp,
        gso_size: 100,
        hdr_len: 28,
        csum_start: 20,
        csum_offset: 6,
        ..Vnet::default()
    };
    assert_eq!(host.send(&vnet, &mut udp(9, 0x77, 28 + 250)), Verdict::Keep);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    host.add(manager, seq, 0x2002, true);
    let lengths: Vec<usize> =
        host.released().iter().map(|packet| usize::from(packet[10]) << 8 | usize::from(packet[11])).collect();
    assert_eq!(lengths, [128, 128, 78]);
}

#[test]
fn a_scan_of_a_trapped_network_is_bounded() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    for n in 0..3000_u16 {
        let mut packet = udp(0, 1, 60);
        packet[18..20].copy_from_slice(&n.to_be_bytes());
        let _ = host.send(&Vnet::default(), &mut packet);
        host.heard(manager);
    }
    assert_eq!(host.dropped(), 3000 - 1024);
    // Large ones meet another limit.
    let mut host = Host::trap();
    let manager = host.manager(false);
    let room = (4 << 20) / 60_000;
    for wave in 1..=2 {
        for n in 0..200_u8 {
            let _ = host.send(&Vnet::default(), &mut udp(n, 1, 60_000));
            host.heard(manager);
        }
        assert_eq!(host.dropped(), wave * 200 - room, "wave {wave}");
        // All are dropped, and make room for as many.
        host.now = host.now.after(Duration::from_secs(15));
        host.control.expire(host.now);
        assert_eq!(host.dropped(), wave * 200);
    }
}

#[test]
fn small_packets_make_no_room_for_large_ones() {
    const RECORDS: u16 = 200;
    let mut host = Host::trap();
    let manager = host.manager(false);
    let mut seqs = Vec::new();
    for len in [60, 60_000] {
        for n in 0..RECORDS {
            for _ in 0..4 {
                let mut packet = udp(0, 1, len);
                packet[6] = 0; // It may be fragmented.
                packet[18..20].copy_from_slice(&n.to_be_bytes());
                let _ = host.send(&Vnet::default(), &mut packet);
            }
            let records = host.heard(manager);
            seqs.extend(acquires(&records).iter().map(|message| message.base.seq));
        }
    }
    assert_eq!(seqs.len(), usize::from(RECORDS));
    // What drives another out drops one as well as what finds no room does: only the octets tell.
    let mut octets = 0;
    for (seq, spi) in seqs.into_iter().zip(0x3000..) {
        host.add(manager, seq, spi, true);
        octets += host.released().iter().map(Vec::len).sum::<usize>();
    }
    let (least, most) = (3 << 20, (4 << 20) + 4 * usize::from(RECORDS) * 100);
    assert!((least..most).contains(&octets), "{octets} octets waited");
}

#[test]
fn workers_hand_over_no_more_than_control_can_take() {
    let mut host = Host::trap();
    host.manager(false);
    let mut kept = 0;
    for n in 0..200_u8 {
        let verdict = host.outbound.packet(&Vnet::default(), &mut udp(n, 1, 60), host.now, &mut host.sealed);
        kept += u32::from(verdict == Verdict::Keep);
    }
    assert_eq!(kept, 64);
    assert_eq!(host.counters.count(Discard::Hold), 200 - 64);
    host.control.expire(host.now);
    assert_eq!(host.packet(3, 1), Verdict::Keep);
    // Large ones meet another limit, and that one is there again, too, once control has looked.
    for _ in 0..2 {
        let kept = (0..64).filter(|n| {
            let mut packet = udp(*n, 1, 60_000);
            host.outbound.packet(&Vnet::default(), &mut packet, host.now, &mut host.sealed) == Verdict::Keep
        });
        assert_eq!(kept.count(), (1 << 20) / 60_000);
        host.control.expire(host.now);
    }
}

#[test]
fn what_has_no_room_in_one_go_comes_in_the_next() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    let vnet = Vnet {
        needs_csum: true,
        gso: Gso::Udp,
        gso_size: 1000,
        hdr_len: 28,
        csum_start: 20,
        csum_offset: 6,
        ..Vnet::default()
    };
    for host_octet in 1..=40 {
        for _ in 0..4 {
            assert_eq!(host.send(&vnet, &mut udp(host_octet, 0x77, 28 + 20_000)), Verdict::Keep);
        }
        host.heard(manager);
    }
    host.add(manager, 77, 0x2002, true);
    host.ask(manager, replace_flow(FlowAction::Protect, 0x2002));
    assert_eq!(host.released().len(), 40 * 4 * 20);
    assert_eq!(host.dropped(), 0);
}

#[test]
fn flush_takes_what_waits() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    let flush = Client::new(PID).request(MessageType::Flush, SaType::Ah);
    host.ask(manager, flush);
    assert_eq!(host.dropped(), 0);
    let flush = Client::new(PID).request(MessageType::Flush, SaType::Unspec);
    host.ask(manager, flush);
    assert_eq!(host.dropped(), 1);
    host.add(manager, seq, 0x2002, true);
    assert_eq!(host.released(), Vec::<Vec<u8>>::new());
    host.trapped(9, 1);
    assert_eq!(acquires(&host.heard(manager))[0].base.seq, seq - 1, "numbers are not used again");
}

#[test]
fn an_engine_that_ends_leaves_nothing_behind_and_its_packets_are_counted() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    host.trapped(8, 2);
    let records = host.heard(manager);
    let seqs: Vec<u32> = acquires(&records).iter().map(|message| message.base.seq).collect();
    // One that no packet waits for, to compare.
    host.add(manager, 1, 0x2001, true);
    host.add(manager, seqs[0], 0x2002, true);
    let [other, sa] = [0x2001, 0x2002].map(|spi| host.plane.sa(&said(spi)).unwrap());
    assert_eq!(Arc::strong_count(&sa), Arc::strong_count(&other) + 1);
    let Host { plane, mut control, outbound, counters, .. } = host;
    drop(outbound);
    assert_eq!(counters.count(Discard::Hold), 1, "what had come back");
    // What comes back later finds nobody.
    control.request(manager, &negative(seqs[1]), START);
    assert_eq!(plane.discarded(Discard::Hold), 2);
    let held = "a packet that nobody takes must not keep an SA and its keys";
    assert_eq!(Arc::strong_count(&sa), Arc::strong_count(&other), "{held}");
}

#[test]
fn an_sa_for_an_engine_that_ended_drops_what_waited() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    let record = host.add_record(seq, 0x2002, true);
    let Host { plane, mut control, outbound, .. } = host;
    drop(outbound);
    control.request(manager, &record, START);
    assert_eq!(plane.discarded(Discard::Hold), 1);
}
