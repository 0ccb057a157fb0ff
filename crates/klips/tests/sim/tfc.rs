//! Dummy packets (RFC 4303 §2.6): sent by a clock of their own, as long as padded packets are, and gone quietly.

use crate::gateway::{Gateway, at};
use crate::host::{Setup, Side};
use crate::ip;
use crate::net::{Datagram, clear_sky};
use ipsec_core::SaId;
use klips::{Discard, Lifetime, Limits, Vnet};
use pfkey::Tfc;
use std::net::IpAddr;

const NONE: [Lifetime; 2] = [Lifetime { allocations: 0, bytes: 0, addtime: 0, usetime: 0 }; 2];

/// A pad, and a dummy every two seconds.
fn setup(pad: u32) -> Setup {
    Setup { tfc: Tfc { pad, dummies: 2000 }, ..Setup::default() }
}

/// What a gateway sends by itself until then.
fn by_itself(gateway: &mut Gateway, second: u64) -> Vec<Datagram> {
    gateway.pass_until(at(second));
    if gateway.host.plane.take_returned() {
        gateway.host.wake();
    }
    gateway.host.flush()
}

#[test]
fn dummies_come_whether_there_is_traffic_or_not_and_look_like_it() {
    for shape in setup(Tfc::MTU).shapes() {
        let [mut left, mut right] = Gateway::pair(&shape, NONE);
        let mut net = shape.wire(Side::Left, &clear_sky());
        let (mut lengths, mut moments) = (Vec::new(), Vec::new());
        for second in 0..=20 {
            let mut sent = by_itself(&mut left, second);
            moments.extend(sent.iter().map(|_| second));
            if second == 7 {
                let ping = ip::ping(shape.inner(Side::Left), shape.inner(Side::Right), 7, 56);
                sent.extend(left.host.send(&Vnet::default(), &ping).1);
            }
            lengths.extend(sent.iter().map(|datagram| datagram.octets.len()));
            // From the right side nothing is carried over, so that what it sends disturbs nobody.
            by_itself(&mut right, second);
            right.host.receive(&net.carry(sent));
        }
        assert_eq!(moments, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20], "{shape:?}");
        lengths.dedup();
        assert!(
            lengths.len() == 1 && lengths[0] > 8900,
            "nothing tells the ping from the others: {lengths:?}"
        );
        assert_eq!(right.host.take().len(), 1, "{shape:?}");
        assert_eq!(right.host.refused(), [(Discard::Dummy, 10)], "{shape:?}");
        assert_eq!((left.host.refused(), left.host.sends.hidden().1), (vec![], 10), "{shape:?}");
        assert_eq!(left.host.sends.sent(), 11, "each has a number");
        // What comes in on the other SA is the peer's to hide.
        assert_eq!(left.host.receives.hidden(), (0, 0));
    }
}

#[test]
fn dummies_end_with_their_sa_and_follow_it_where_it_goes() {
    let setup = setup(200);
    let id = setup.id(Side::Left);
    let [mut left, _] = Gateway::pair(&setup, NONE);
    assert_eq!(by_itself(&mut left, 2).len(), 1);
    // A host that slept sends one, not those it missed.
    assert_eq!(by_itself(&mut left, 1000).len(), 1);
    assert_eq!(by_itself(&mut left, 1001).len(), 0);
    let elsewhere = IpAddr::from([192, 0, 2, 77]);
    left.move_to(&setup, elsewhere);
    let sent = by_itself(&mut left, 1002);
    assert_eq!(sent.iter().map(|datagram| datagram.dst).collect::<Vec<_>>(), [elsewhere]);
    left.delete(SaId { dst: elsewhere, ..id });
    assert_eq!(by_itself(&mut left, 1004).len(), 0);
    assert_eq!(left.host.refused(), []);
}

/// They count as packets, so that no number is used twice and no key too often.
#[test]
fn dummies_wear_out_their_sa_like_other_packets() {
    let limits = Limits { hard_packets: 4, ..Limits::default() };
    let [mut left, _] = Gateway::pair(&Setup { limits, ..setup(200) }, NONE);
    let sent: usize = (0..30).map(|second| by_itself(&mut left, second).len()).sum();
    assert_eq!((sent, left.host.sends.packets()), (3, 3));
    assert_eq!(left.host.refused(), [(Discard::Expired, 1)], "and then no more are tried");
}
