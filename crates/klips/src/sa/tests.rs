use super::*;
use ipsec_core::{Protocol, Spi};

#[test]
fn a_tunnel_that_was_narrowed_carries_its_selector_and_no_other_family() {
    let nets = |src: &str, dst: &str| Selector::nets(src.parse().unwrap(), dst.parse().unwrap());
    let sa = Sa::new(Blueprint {
        id: SaId { dst: [192, 0, 2, 1].into(), protocol: Protocol::Ipip, spi: Spi(0x1000) },
        src: [192, 0, 2, 2].into(),
        mode: Mode::Tunnel,
        suite: Suite { encryption: None, auth: None },
        keys: Keys::default(),
        esn: false,
        window: 0,
        encapsulation: None,
        selector: Some(nets("0.0.0.0/0", "0.0.0.0/0")),
        limits: Limits::default(),
    });
    sa.carry_either_family();
    let flow = |src: &str, dst: &str| Flow {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        proto: 17,
        sport: 1,
        dport: 2,
    };
    let (good, bad, six) =
        (flow("10.2.0.9", "10.1.0.1"), flow("10.3.0.9", "10.1.0.1"), flow("fd00::1", "fd00::2"));
    assert!(sa.entitles(&good) && sa.entitles(&bad) && sa.entitles(&six));
    let narrowed = sa.narrowed(nets("10.2.0.0/16", "10.1.0.0/16"));
    assert!(narrowed.is_same_life(&sa) && narrowed.is_alive());
    assert_eq!([good, bad, six].map(|flow| narrowed.entitles(&flow)), [true, false, false]);
}
