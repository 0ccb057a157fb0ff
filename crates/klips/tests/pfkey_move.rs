//! MOVESA and NEWMAPPING: an SA whose peer is elsewhere goes on with its numbers.

mod pfkey_support;

use ipsec_core::{Protocol, SaId, Spi};
use klips::Action;
use pfkey_support::*;

const MOVE_SA: u8 = 135;
const NEW_MAPPING: u8 = 136;
const NEW_SRC: u16 = 133;
const NEW_DST: u16 = 134;
const NEW_PEER: [u8; 4] = [203, 0, 113, 77];

fn at(ip: [u8; 4], port: u16) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(2_u16.to_ne_bytes());
    body.extend(port.to_be_bytes());
    body.extend(ip);
    body.extend([0; 8]);
    body
}

fn id(dst: &str, spi: u32) -> SaId {
    SaId { dst: dst.parse().unwrap(), protocol: Protocol::Esp, spi: Spi(spi) }
}

fn tunnel(spi: u32, src: &str, dst: &str, inner: (&str, &str)) -> Msg {
    msg(ADD, ESP)
        .sa_full(spi, 32, MATURE, 0, GCM16, F_TUNNEL)
        .src(src)
        .dst(dst)
        .inner(inner.0, inner.1)
        .key(EKEY, 20)
}

fn pair(service: &mut Service) -> klips::SocketId {
    let s = service.open();
    service.must(s, tunnel(0x1001, PEER, LOCAL, ("10.2.0.0/16", "10.1.0.0/16")));
    service.must(s, tunnel(0x2001, LOCAL, PEER, ("10.1.0.0/16", "10.2.0.0/16")).pair(0x1001));
    s
}

fn moving(flags: u32) -> Msg {
    msg(MOVE_SA, ESP).sa_full(0x2001, 0, MATURE, 0, 0, flags).src(LOCAL).dst(PEER)
}

#[test]
fn an_sa_and_its_pair_move_with_their_numbers_and_eroutes_follow() {
    let mut service = Service::default();
    let s = pair(&mut service);
    let old = service.plane.sa(&id(PEER, 0x2001)).unwrap();
    old.continue_after(77);
    let inbound = service.plane.sa(&id(LOCAL, 0x1001)).unwrap();
    inbound.received_up_to(55);
    let selector = old.selector.unwrap();
    service.plane.change_eroutes(|eroutes| {
        eroutes.add(klips::Eroute::new(selector, Action::Protect(id(PEER, 0x2001)))).unwrap();
    });
    service.must(s, moving(F_NATT_REM).ext(NEW_DST, &at(NEW_PEER, 61234)));
    let new_peer = "203.0.113.77";
    let moved = service.plane.sa(&id(new_peer, 0x2001)).unwrap();
    assert_eq!(moved.sent(), 77);
    // Whoever still sends on the old one takes from the same numbers.
    old.continue_after(80);
    assert_eq!(moved.sent(), 80);
    assert!(moved.is_alive() && !old.is_alive());
    assert!(service.plane.sa(&id(PEER, 0x2001)).is_none());
    assert_eq!(moved.encapsulation().map(|e| (e.local, e.remote)), Some((4500, 61234)));
    let partner = service.plane.sa(&id(LOCAL, 0x1001)).unwrap();
    assert_eq!((partner.src.to_string().as_str(), partner.received()), (new_peer, 55));
    assert_eq!(partner.encapsulation().map(|e| (e.local, e.remote)), Some((4500, 61234)));
    assert!(partner.is_alive() && !inbound.is_alive());
    let action = service.plane.eroutes().exact(&selector).unwrap().action;
    assert_eq!(action, Action::Protect(id(new_peer, 0x2001)));
    // Back, as plain ESP; then the pair can be deleted under its name.
    let back = msg(MOVE_SA, ESP).sa(0x2001).src(LOCAL).dst(new_peer);
    let peer: std::net::Ipv4Addr = PEER.parse().unwrap();
    service.must(s, back.ext(NEW_DST, &at(peer.octets(), 0)));
    let back = service.plane.sa(&id(PEER, 0x2001)).unwrap();
    assert_eq!((back.sent(), back.encapsulation()), (80, None));
    service.must(s, msg(DELPAIR, ESP).sa(0x2001).src(LOCAL).dst(PEER));
    assert_eq!(service.control.sa_count(), 0);
    assert!(!back.is_alive());
}

#[test]
fn what_cannot_be_moved_stays_as_it_is() {
    let mut service = Service::default();
    let s = pair(&mut service);
    service.must(s, tunnel(0x2001, LOCAL, "203.0.113.77", ("10.1.0.0/16", "10.9.0.0/16")));
    let mut refused = |message: Msg, errno: u8, diagnostic: u16| {
        service.send(s, message);
        let heard = service.hear(s);
        assert_eq!((heard[0].errno, heard[0].diagnostic), (errno, diagnostic), "{heard:?}");
    };
    refused(moving(0), EINVAL, 3);
    refused(moving(0).ext(NEW_DST, &at(NEW_PEER, 0)), EEXIST, 0);
    refused(moving(0).ext(NEW_DST, &at([0; 4], 0)), EINVAL, 13);
    refused(moving(0).ext(NEW_DST, &at([224, 0, 0, 5], 0)), EINVAL, 13);
    refused(moving(0).ext(NEW_SRC, &at([224, 0, 0, 5], 0)), EINVAL, 12);
    let missing = msg(MOVE_SA, ESP).sa(0x9999).src(LOCAL).dst(PEER);
    refused(missing.ext(NEW_DST, &at(NEW_PEER, 0)), ESRCH, 78);
    let old = service.plane.sa(&id(PEER, 0x2001)).unwrap();
    assert!(old.is_alive() && old.encapsulation().is_none());
}

#[test]
fn another_place_is_told_to_the_registered_once() {
    let mut service = Service::default();
    let s = pair(&mut service);
    let listener = service.open();
    let registered = service.open();
    service.send(registered, msg(REGISTER, ESP));
    service.hear(registered);
    let from = "203.0.113.77:4501".parse().unwrap();
    for _ in 0..3 {
        service.control.new_mapping(&id(LOCAL, 0x1001), from);
    }
    let heard = service.hear(registered);
    assert_eq!(heard.iter().map(|h| h.kind).collect::<Vec<_>>(), [NEW_MAPPING]);
    assert!(service.hear(listener).is_empty());
    service.control.new_mapping(&id(LOCAL, 0x1001), "203.0.113.77:4502".parse().unwrap());
    assert_eq!(service.hear(registered).len(), 1);
    // Where it is already is no news.
    service.control.new_mapping(&id(LOCAL, 0x1001), format!("{PEER}:0").parse().unwrap());
    assert!(service.hear(registered).is_empty());
    // A key manager cannot say it.
    service.send(s, msg(NEW_MAPPING, ESP).sa(0x1001));
    let heard: Vec<_> = service.hear(s).into_iter().filter(|h| h.kind == NEW_MAPPING).collect();
    assert_eq!(heard[0].errno, EOPNOTSUPP);
}
