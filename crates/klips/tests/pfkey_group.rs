//! GROUPSA: SAs put together by PF_KEY, used together, taken apart.

mod pfkey_support;

use ipsec_core::{Protocol, SaId, Spi};
use klips::SaState;
use pfkey_support::*;

const GROUP_SA: u8 = 133;
const GROUP: u16 = 130;
const IPIP: u8 = 9;
const COMP: u8 = 10;
const EINVAL: u8 = 22;
const ESRCH: u8 = 3;
const EPROTOTYPE: u8 = 91;

fn id(protocol: Protocol, spi: u32) -> SaId {
    SaId { dst: PEER.parse().unwrap(), protocol, spi: Spi(spi) }
}

/// A group from the inside to the outside, all to one destination.
fn group(dst: &str, members: &[(u8, u32)]) -> Msg {
    let mut body = vec![0; 4];
    for (satype, spi) in members {
        body.extend([*satype, 0, 0, 0]);
        body.extend(spi.to_be_bytes());
    }
    msg(GROUP_SA, 0).dst(dst).ext(GROUP, &body)
}

/// `tun`, `comp`, `esp` and `ah` to the peer.
fn four(service: &mut Service) -> klips::SocketId {
    let s = service.open();
    let outer = |satype, spi| msg(ADD, satype).sa_full(spi, 32, MATURE, 0, 0, 0).src(LOCAL).dst(PEER);
    service.must(s, outer(IPIP, 0x1000).inner("10.1.0.0/16", "10.2.0.0/16"));
    service.must(s, outer(COMP, 0x1001));
    service.must(s, add_esp(0x1002, LOCAL, PEER));
    service.must(s, add_ah(0x1003, LOCAL, PEER));
    s
}

#[test]
fn sas_are_used_together_once_they_are_grouped_and_apart_before_and_after() {
    let mut service = Service::default();
    let s = four(&mut service);
    // IPIP and IPComp protect nothing by themselves.
    assert!(service.plane.sa(&id(Protocol::Ipip, 0x1000)).is_none());
    let esp = service.plane.sa(&id(Protocol::Esp, 0x1002)).unwrap();
    esp.continue_after(40);
    let all = [(IPIP, 0x1000), (COMP, 0x1001), (ESP, 0x1002), (AH, 0x1003)];
    service.must(s, group(PEER, &all));
    assert!(service.plane.sa(&id(Protocol::Ipip, 0x1000)).is_some());
    // Whoever remembers the SA as it was looks again, and numbers go on.
    assert!(!esp.is_alive() && esp.state() == SaState::Mature);
    assert_eq!(service.plane.sa(&id(Protocol::Esp, 0x1002)).unwrap().sent(), 40);
    let groups = |service: &Service| service.control.sas().filter(|row| row.group.is_some()).count();
    assert_eq!(groups(&service), 4);

    // The last word counts: those that are left out are in no group any more.
    service.must(s, group(PEER, &[(ESP, 0x1002), (AH, 0x1003)]));
    assert_eq!(groups(&service), 2);
    service.must(s, group(PEER, &[(ESP, 0x1002)]));
    service.must(s, group(PEER, &[(IPIP, 0x1000)]));
    assert_eq!(groups(&service), 0);
    assert!(service.plane.sa(&id(Protocol::Ipip, 0x1000)).is_none());
    let esp = service.plane.sa(&id(Protocol::Esp, 0x1002)).unwrap();
    assert!(esp.is_alive() && esp.sent() == 40);
}

#[test]
fn what_is_no_group_is_refused_and_changes_nothing() {
    let mut service = Service::default();
    let s = four(&mut service);
    service.must(s, add_esp(0x1004, PEER, LOCAL));
    let before = service.plane.sa(&id(Protocol::Esp, 0x1002)).unwrap();
    for (members, errno) in [
        (&[(ESP, 0x1002), (IPIP, 0x1000)][..], EPROTOTYPE),
        (&[(IPIP, 0x1000), (COMP, 0x1001)], EPROTOTYPE),
        (&[(ESP, 0x1002), (ESP, 0x1002)], EINVAL),
        (&[(IPIP, 0x1000), (ESP, 0x9999)], ESRCH),
        (&[(0, 0x1000), (ESP, 0x1002)], EINVAL),
        (&[(77, 0x1000), (ESP, 0x1002)], EINVAL),
        (&[(IPIP, 0x1000), (COMP, 0x1001), (ESP, 0x1002), (AH, 0x1003), (AH, 0x1003)], EINVAL),
    ] {
        assert_eq!(service.ask(s, group(PEER, members)).errno, errno, "{members:?}");
        assert!(before.is_alive(), "{members:?}");
    }
    // A name that is only reserved has nothing to apply yet.
    assert_eq!(service.ask(s, group(PEER, &[(IPIP, 0x1000), (ESP, 0x1004)])).errno, ESRCH);
}

#[test]
fn what_protects_nothing_has_ended_or_goes_the_other_way_is_in_no_group() {
    let mut service = Service::default();
    let s = four(&mut service);
    let esp =
        |spi, encrypt, flags| msg(ADD, ESP).sa_full(spi, 32, MATURE, 0, encrypt, flags).src(LOCAL).dst(PEER);
    // Encryption without integrity is kept for whoever asked and never used, not even inside of AH (RFC 4303 §3.2).
    service.must(s, esp(0x1005, AES_CBC, 0).key(EKEY, 16));
    service.must(s, esp(0x1006, GCM16, F_IN).key(EKEY, 20));
    service.must(s, esp(0x1007, GCM16, 0).key(EKEY, 20).lifetime(HARD, 0, 0, 5, 0));
    service.wait(6);
    service.hear(s);
    for (spi, errno) in [(0x1005, EINVAL), (0x1006, EINVAL), (0x1007, ESRCH)] {
        assert_eq!(service.ask(s, group(PEER, &[(ESP, spi), (AH, 0x1003)])).errno, errno, "{spi:#x}");
        assert!(service.control.sas().all(|row| row.group.is_none()), "{spi:#x}");
    }
}

#[test]
fn a_group_of_which_one_is_deleted_carries_nothing_more() {
    let mut service = Service::default();
    let s = four(&mut service);
    service.must(s, group(PEER, &[(ESP, 0x1002), (AH, 0x1003)]));
    service.must(s, msg(DELETE, AH).sa(0x1003).src(LOCAL).dst(PEER));
    let esp = service.plane.sa(&id(Protocol::Esp, 0x1002)).unwrap();
    assert!(esp.is_alive(), "by itself it would go on");
    let selector = ipsec_core::Selector::nets("0.0.0.0/0".parse().unwrap(), "0.0.0.0/0".parse().unwrap());
    let eroute = klips::Eroute::new(selector, klips::Action::Protect(esp.id));
    service.plane.change_eroutes(|eroutes| eroutes.add(eroute)).unwrap();
    let link = klips::Link {
        mtu: 1500,
        icmp_source4: None,
        icmp_source6: None,
        hide_tos: true,
        frag_icmp: true,
        copy_df: false,
    };
    let mut outbound =
        klips::Outbound::new(std::sync::Arc::clone(&service.plane), service.plane.new_counters(), link);
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1];
    packet.extend([0, 9, 0, 9, 0, 8, 0, 0]);
    let verdict = outbound.packet(
        &klips::Vnet::default(),
        &mut packet,
        ipsec_core::Time::from_secs(1),
        &mut klips::Sealed::new(0),
    );
    assert_eq!(verdict, klips::Verdict::Discard(klips::Discard::NoSa));
}
