use super::*;
use crate::sa::{Blueprint, Keys, Limits, Mode};
use ipsec_core::algorithm::{Encryption, Suite};

fn sa(dst: u32) -> Sa {
    Sa::new(Blueprint {
        id: SaId { dst: IpAddr::from(dst.to_be_bytes()), protocol: Protocol::Esp, spi: Spi(0x1000) },
        src: [192, 0, 2, 1].into(),
        mode: Mode::Tunnel,
        suite: Suite { encryption: Some(Encryption::AesGcm16), auth: None },
        keys: Keys::default(),
        esn: false,
        window: 0,
        encapsulation: None,
        selector: None,
        limits: Limits::default(),
    })
}

const fn learned(mtu: u16, until: u64) -> Learned {
    Learned { mtu, until: Time::from_secs(until) }
}

#[test]
fn a_path_becomes_narrower_only_and_forgets() {
    let (path, at) = (PathMtu::default(), Time::from_secs);
    assert_eq!(path.limit(1500, at(1)), 1500);
    assert!(path.learn(learned(1400, 100), at(1)));
    assert_eq!(
        (path.limit(1500, at(99)), path.limit(1300, at(99)), path.limit(1500, at(100))),
        (1400, 1300, 1500)
    );
    // The same again, and more than is known, are no news: they keep nothing alive.
    assert!(!path.learn(learned(1400, 500), at(50)) && !path.learn(learned(1450, 500), at(50)));
    assert_eq!(path.learned(), Some(learned(1400, 100)));
    assert!(path.learn(learned(1300, 500), at(50)));
    assert!(path.learn(learned(1450, 900), at(500)), "what is forgotten binds nobody");
    assert_eq!(path.limit(9000, at(899)), 1450);
}

#[test]
fn paths_to_many_destinations_are_bounded_and_the_narrowest_word_counts() {
    let (mut paths, now) = (Paths::default(), Time::from_secs(1));
    for n in 0..3 * PATHS as u32 {
        paths.remember(&sa(n), learned(1400, 100), now);
    }
    assert_eq!(paths.0.len(), PATHS);
    paths.remember(&sa(3), learned(1300, 200), now);
    paths.remember(&sa(3), learned(1350, 300), now);
    let known = |paths: &Paths, dst| {
        let sa = sa(dst);
        paths.tell(&sa);
        sa.path_mtu().learned()
    };
    assert_eq!((known(&paths, 3), known(&paths, 4)), (Some(learned(1300, 200)), Some(learned(1400, 100))));
    assert_eq!(known(&paths, 2 * PATHS as u32), None);
    // Those that are forgotten make room.
    paths.remember(&sa(5000), learned(1320, 400), Time::from_secs(150));
    assert_eq!((paths.0.len(), known(&paths, 5000)), (2, Some(learned(1320, 400))));
}

/// What the kernel has cut to what it knew of the path, and a router finds too big again.
#[test]
fn the_first_fragment_of_a_packet_names_its_sa_and_no_other_does() {
    let message = |offset: u8| {
        let mut message = vec![2, 0, 0, 0, 0, 0, 0x05, 0x14, 0x60, 0, 0, 0, 5, 0xa0, FRAGMENT, 64];
        message.extend([0x20; 16]);
        message.extend([0x21; 16]);
        message.extend([50, 0, 0, offset, 0, 0, 0, 7, 0, 0, 0x10, 0, 0, 0, 0, 9]);
        message
    };
    let Heard::Claim(claim) = Heard::read(false, &message(1), 4500) else { panic!("not heard") };
    assert_eq!((claim.id.spi, claim.number, claim.mtu), (Spi(0x1000), 9, 1300));
    assert_eq!(Heard::read(false, &message(9), 4500), Heard::Absurd);
}

/// Every beginning of every kind of message, and every octet of it changed, is read without a fault.
#[test]
fn whatever_is_heard_is_judged() {
    for (v4, start, proto) in [
        (true, &[3, 4, 0, 0, 0, 0, 5, 0x14, 0x45, 0, 5, 0xdc, 0, 7, 0x40, 0, 64][..], 9),
        (false, &[2, 0, 0, 0, 0, 0, 5, 0x14, 0x60, 0, 0, 0, 5, 0xb4][..], 6),
    ] {
        for protocol in [17, 50, 51, FRAGMENT, 6] {
            let mut message = start.to_vec();
            message.resize(100, 1);
            message[8 + proto] = protocol;
            for len in 0..message.len() {
                for at in 0..len {
                    let mut message = message[..len].to_vec();
                    message[at] ^= 0xff;
                    if v4 && len > 4 {
                        message[2..4].fill(0);
                        let sum = Sum::default().octets(&message).checksum();
                        message[2..4].copy_from_slice(&sum.to_be_bytes());
                    }
                    if let Heard::Claim(claim) = Heard::read(v4, &message, 4500) {
                        assert!(usize::from(claim.mtu) >= if v4 { LEAST4 } else { LEAST6 });
                    }
                }
            }
        }
    }
}
