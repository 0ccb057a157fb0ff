//! Several selectors of one SA: extension 138 of ADD and of the UPDATE that makes an SA mature, kept and shown.

mod pfkey_support;

use ipsec_core::{Protocol, SaId, Spi};
use pfkey_support::*;

const SELECTORS: u16 = 138;
const MOVE_SA: u8 = 135;
const NEW_DST: u16 = 134;
const EINVAL: u8 = 22;
const EMSGSIZE: u8 = 90;
const EOPNOTSUPP: u8 = 95;
const MISSING_INNER_SRC: u16 = 58;

/// A source of 24 bits and a destination of 24 bits, TCP to a port.
fn row(src: [u8; 3], dst: [u8; 3], port: u16) -> Vec<u8> {
    let mut row = vec![4, if port == 0 { 0 } else { 6 }, 24, 24, 0, 0];
    row.extend(port.to_be_bytes());
    for [a, b, c] in [src, dst] {
        row.extend([a, b, c, 0]);
        row.extend([0; 12]);
    }
    row
}

fn body(rows: &[Vec<u8>]) -> Vec<u8> {
    [vec![0; 4], rows.concat()].concat()
}

fn tunnel(kind: u8, spi: u32) -> Msg {
    let sa = msg(kind, ESP).sa_full(spi, 32, MATURE, 0, GCM16, F_TUNNEL);
    sa.src(LOCAL).dst(PEER).inner("10.1.0.0/24", "10.2.0.0/24").key(EKEY, 20)
}

fn shown(service: &mut Service, s: klips::SocketId, dst: &str) -> Option<Vec<u8>> {
    service.must(s, msg(GET, ESP).sa(0x2001).src(LOCAL).dst(dst)).find(SELECTORS)
}

#[test]
fn they_are_shown_as_they_were_given_and_go_where_the_sa_goes() {
    let mut service = Service::default();
    let s = service.open();
    let all = body(&[row([10, 1, 1], [10, 2, 0], 0), row([10, 1, 1], [10, 2, 1], 22)]);
    let answer = service.must(s, tunnel(ADD, 0x2001).ext(SELECTORS, &all));
    assert_eq!(answer.find(SELECTORS), Some(all.clone()), "the answer is the request again");
    assert_eq!(shown(&mut service, s, PEER), Some(all.clone()));
    let row = service.control.sas().find(|row| row.id.spi == Spi(0x2001)).unwrap();
    let more: Vec<String> = row
        .more_selectors
        .iter()
        .flat_map(|more| more.iter())
        .map(|s| format!("{} {}", s.src, s.dst))
        .collect();
    assert_eq!(more, ["10.1.1.0/24 10.2.0.0/24", "10.1.1.0/24 10.2.1.0/24"]);

    let moving = msg(MOVE_SA, ESP).sa_full(0x2001, 0, MATURE, 0, 0, 0).src(LOCAL).dst(PEER);
    let mut to = vec![0; 4];
    to.extend(2_u16.to_ne_bytes());
    to.extend([0, 0, 203, 0, 113, 77, 0, 0, 0, 0, 0, 0, 0, 0]);
    service.must(s, moving.ext(NEW_DST, &to));
    assert_eq!(shown(&mut service, s, "203.0.113.77"), Some(all));
    let id = SaId { dst: "203.0.113.77".parse().unwrap(), protocol: Protocol::Esp, spi: Spi(0x2001) };
    assert!(service.plane.sa(&id).is_some());

    // An SA of one selector says nothing of others.
    service.must(s, tunnel(ADD, 0x2002));
    assert_eq!(service.must(s, msg(GET, ESP).sa(0x2002).src(LOCAL).dst(PEER)).find(SELECTORS), None);
}

#[test]
fn too_many_and_those_without_a_first_are_refused_and_so_is_another_choice_later() {
    let mut service = Service::default();
    let s = service.open();
    let rows = |n: u8| -> Vec<Vec<u8>> { (0..n).map(|n| row([10, 3, n], [10, 4, n], 0)).collect() };
    let refusal = |service: &mut Service, message: Msg| {
        let heard = service.ask(s, message);
        (heard.errno, heard.diagnostic)
    };
    let too_many = tunnel(ADD, 0x2001).ext(SELECTORS, &body(&rows(64)));
    assert_eq!(refusal(&mut service, too_many), (EMSGSIZE, 0));
    let transport = msg(ADD, ESP).sa_full(0x2001, 32, MATURE, 0, GCM16, 0).src(LOCAL).dst(PEER).key(EKEY, 20);
    let transport = transport.ext(SELECTORS, &body(&rows(1)));
    assert_eq!(refusal(&mut service, transport), (EINVAL, MISSING_INNER_SRC));
    assert_eq!(service.control.sas().count(), 0, "nothing of it stays");

    let most = body(&rows(63));
    service.must(s, tunnel(ADD, 0x2001).ext(SELECTORS, &most));
    assert_eq!(shown(&mut service, s, PEER), Some(most.clone()));
    let change = msg(UPDATE, ESP).sa_full(0x2001, 0, MATURE, 0, 0, 0).src(LOCAL).dst(PEER);
    assert_eq!(refusal(&mut service, change.ext(SELECTORS, &body(&rows(1)))), (EOPNOTSUPP, 0));
    assert_eq!(shown(&mut service, s, PEER), Some(most));
}
