//! SAs that a key manager adds, and what packets may do with them in either direction.

use crate::host::{Host, PID, said, udp};
use ipsec_core::Spi;
use klips::Discard;
use pfkey::client::Client;
use pfkey::{Address, ExtType, Flow, FlowAction, Message, MessageType, Sa, SaType, flags, state};
use std::sync::Arc;

#[test]
fn an_eroute_may_not_name_an_sa_that_packets_come_on() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.add(manager, 0, 0x7001, true);
    host.add(manager, 0, 0x7002, false);
    let flow = |spi, dst: &str| {
        let mut ask = Client::new(PID).request(MessageType::ReplaceFlow, SaType::Esp);
        ask.sa(&Sa { spi, ..Sa::default() });
        ask.address(ExtType::AddressDst, &Address::host(dst.parse().unwrap()));
        ask.address(ExtType::AddressInnerSrc, &Address::net([10, 1, 0, 0].into(), 16));
        ask.address(ExtType::AddressInnerDst, &Address::net([10, 2, 0, 0].into(), 16));
        ask.flow(&Flow { action: FlowAction::Protect, packets: 0, last_use: 0 });
        ask
    };
    let errno = |answers: &[Vec<u8>]| Message::parse_answer(&answers[0]).unwrap().base.errno.0;
    let request = flow(0x7002, "192.0.2.1");
    assert_eq!(errno(&host.ask(manager, request)), 22);
    let request = flow(0x7001, "192.0.2.2");
    assert_eq!(errno(&host.ask(manager, request)), 0);
}

/// A packet that the peer has sealed, NULL and HMAC-SHA-256.
fn sealed(spi: u32, inner: &[u8], next_header: u8) -> Vec<u8> {
    let suite = ipsec_core::algorithm::Suite {
        encryption: Some(ipsec_core::algorithm::Encryption::Null),
        auth: Some(ipsec_core::algorithm::Auth::HmacSha256),
    };
    let transform = ipsec_core::transform::Transform::new(suite, &[], &[7; 32], &[0; 16]).unwrap();
    let mut rx = vec![0; transform.sealed_len(inner.len())];
    assert!(transform.seal_from(inner, next_header, &mut rx, (Spi(spi), 1, false)));
    rx
}

/// How many packets the device gets of one that came from the peer.
fn receive(host: &Host, rx: &mut [u8], carrier: klips::Carrier) -> usize {
    let (src, dst) = ("192.0.2.2".parse().unwrap(), "192.0.2.1".parse().unwrap());
    let arrival = klips::Arrival { src, dst, carrier, tos: 0, header: 0 };
    let mut inbound = klips::Inbound::new(Arc::clone(&host.plane), host.plane.new_counters());
    let mut opened = klips::Opened::new(1);
    let len = rx.len();
    inbound.datagrams(&arrival, rx, 0..len, len, host.now, &mut opened);
    opened.packets()
}

#[test]
fn what_goes_to_a_peer_follows_the_port_that_its_packets_come_from() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    let (ours, theirs) =
        (Address::host("192.0.2.1".parse().unwrap()), Address::host("192.0.2.2".parse().unwrap()));
    let (left, right) = (Address::net([10, 1, 0, 0].into(), 16), Address::net([10, 2, 0, 0].into(), 16));
    for (spi, ends, partner) in [
        (0x7101, [(ours, left), (theirs, right)], None),
        (0x7102, [(theirs, right), (ours, left)], Some(0x7101)),
    ] {
        let mut ask = Client::new(PID).request(MessageType::Add, SaType::Esp);
        let flags = flags::TUNNEL | flags::NATT_REM;
        ask.sa(&Sa { spi, replay: 32, state: state::MATURE, encrypt: 11, auth: 5, flags });
        ask.address(ExtType::AddressSrc, &ends[0].0);
        ask.address(ExtType::AddressDst, &ends[1].0);
        ask.address(ExtType::AddressInnerSrc, &ends[0].1);
        ask.address(ExtType::AddressInnerDst, &ends[1].1);
        let natt = |end: Address| Address { proto: 17, socket: end.ip().map(|ip| (ip, 4500).into()), ..end };
        ask.address(ExtType::AddressNattRem, &natt(theirs));
        ask.key(ExtType::KeyAuth, 256, 0, &[7; 32]);
        if let Some(spi) = partner {
            ask.pair(&pfkey::Pair { spi });
        }
        let answers = host.ask(manager, ask);
        assert_eq!(answers[0][2], 0, "{:?}", Message::parse_answer(&answers[0]));
    }
    let mut inner = udp(9, 1, 60);
    inner[12..20].copy_from_slice(&[10, 2, 0, 9, 10, 1, 0, 1]);
    let mut rx = sealed(0x7102, &inner, 4);
    let port = |host: &Host| host.plane.sa(&said(0x7101)).unwrap().encapsulation().unwrap().remote;
    assert_eq!(port(&host), 4500);
    assert_eq!(receive(&host, &mut rx, klips::Carrier::Udp { local: 4500, remote: 7777 }), 1);
    host.control.expire(host.now);
    assert_eq!(port(&host), 7777);
}

/// Nobody negotiates the selectors of a manual key: all of one family is whatever is inside. Those of a key manager hold.
#[test]
fn a_manual_sa_for_everything_carries_either_family_and_a_negotiated_one_what_was_agreed() {
    let any = Address::net([0, 0, 0, 0].into(), 0);
    for (negotiated, carries) in [(false, true), (true, false)] {
        let mut host = Host::trap();
        let manager = host.manager(false);
        let mut ask = Client::new(PID).request(MessageType::Add, SaType::Esp);
        if negotiated {
            ask.km_cookie(&pfkey::KmCookie { proto: pfkey::km::IKEV2, cookie: 9 });
        }
        ask.sa(&Sa {
            spi: 0x7003,
            replay: 32,
            state: state::MATURE,
            encrypt: 11,
            auth: 5,
            flags: flags::TUNNEL,
        });
        ask.address(ExtType::AddressSrc, &Address::host("192.0.2.2".parse().unwrap()));
        ask.address(ExtType::AddressDst, &Address::host("192.0.2.1".parse().unwrap()));
        ask.address(ExtType::AddressInnerSrc, &any);
        ask.address(ExtType::AddressInnerDst, &any);
        ask.key(ExtType::KeyAuth, 256, 0, &[7; 32]);
        let record = Client::new(PID).finish(ask).unwrap().1;
        host.control.request(manager, &record, host.now);
        assert_eq!(host.heard(manager)[0][2], 0);

        // An IPv6 packet without payload inside, sealed by the peer.
        let mut inner = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
        inner.extend([0xfd; 32]);
        let mut rx = sealed(0x7003, &inner, 41);
        let arrived = receive(&host, &mut rx, klips::Carrier::Esp) == 1;
        assert_eq!((arrived, host.plane.discarded(Discard::PolicyMismatch) == 0), (carries, carries));
    }
}
