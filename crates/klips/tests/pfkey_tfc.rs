//! What hides an SA's packets, as its key manager asks for it (extension 139).

mod pfkey_support;

use pfkey_support::*;

const TFC: u16 = 139;
const MTU: u32 = u32::MAX;

fn tfc(pad: u32, dummies: u64) -> Vec<u8> {
    [&[0; 0][..], &pad.to_ne_bytes(), &dummies.to_ne_bytes()].concat()
}

fn tunnel(spi: u32) -> Msg {
    msg(ADD, ESP)
        .sa_full(spi, 32, MATURE, 0, GCM16, F_TUNNEL)
        .src(LOCAL)
        .dst(PEER)
        .inner("10.1.0.0/16", "10.2.0.0/16")
        .key(EKEY, 20)
}

#[test]
fn what_was_asked_for_is_shown_and_can_be_asked_for_at_the_beginning_only() {
    let mut service = Service::default();
    let s = service.open();
    service.must(s, tunnel(1).ext(TFC, &tfc(MTU, 250)));
    service.must(s, tunnel(2).ext(TFC, &tfc(0, 0)));
    let mut shown = |spi| service.must(s, get(ESP, spi, PEER)).find(TFC);
    assert_eq!((shown(1), shown(2)), (Some(tfc(MTU, 250)), None));
    let update = msg(UPDATE, ESP).sa_full(1, 0, MATURE, 0, 0, 0).src(LOCAL).dst(PEER).ext(TFC, &tfc(9, 0));
    service.send(s, update);
    assert_eq!(service.hear(s)[0].errno, EOPNOTSUPP);
    assert_eq!(service.must(s, get(ESP, 1, PEER)).find(TFC), Some(tfc(MTU, 250)));
}

#[test]
fn what_hides_nothing_or_cannot_be_done_is_refused_and_nothing_is_added() {
    let mut service = Service::default();
    let s = service.open();
    let transport = add_esp(3, LOCAL, PEER);
    let ah = add_ah(3, LOCAL, PEER);
    for (message, errno) in [
        // Dummies that are told by their length; too often; too seldom; an interval of 33 bits.
        (tunnel(3).ext(TFC, &tfc(0, 250)), EINVAL),
        (tunnel(3).ext(TFC, &tfc(100, 9)), EINVAL),
        (tunnel(3).ext(TFC, &tfc(100, 3_600_001)), EINVAL),
        (tunnel(3).ext(TFC, &tfc(100, 1 << 32)), EINVAL),
        (tunnel(3).ext(TFC, &[0; 20]), EINVAL),
        (transport.ext(TFC, &tfc(100, 0)), EOPNOTSUPP),
        (ah.ext(TFC, &tfc(100, 0)), EOPNOTSUPP),
    ] {
        service.send(s, message);
        assert_eq!(service.hear(s)[0].errno, errno);
        assert_eq!(service.control.sa_count(), 0);
    }
}
