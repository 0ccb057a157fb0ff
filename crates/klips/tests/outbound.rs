//! The outbound path step by step: what each eroute and each limit does to a packet, and exactly which counter moves.

use ipsec_core::algorithm::{Encryption, Suite};
use ipsec_core::{Protocol, SaId, Selector, Spi, Time};
use klips::{
    Action, Blueprint, Counters, Discard, Encapsulation, Eroute, Event, Keys, Limits, Link, Mode, Outbound,
    Plane, Route, Sa, SaState, Sealed, Verdict, Vnet,
};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use zeroize::Zeroizing;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NOW: Time = Time::from_secs(1000);

struct Bench {
    plane: Arc<Plane>,
    counters: Arc<Counters>,
    outbound: Outbound,
    out: Sealed,
    counted: Vec<u64>,
}

fn link(mtu: usize) -> Link {
    Link {
        mtu,
        icmp_source4: Some(GATEWAY),
        icmp_source6: Some("2001:db8::1".parse().unwrap()),
        hide_tos: true,
        frag_icmp: true,
        copy_df: false,
    }
}

fn id(spi: u32) -> SaId {
    SaId { dst: "192.0.2.2".parse().unwrap(), protocol: Protocol::Esp, spi: Spi(spi) }
}

fn sa(spi: u32, change: impl FnOnce(&mut Blueprint)) -> Arc<Sa> {
    let mut blueprint = Blueprint {
        id: id(spi),
        src: IpAddr::V4(GATEWAY),
        mode: Mode::Tunnel,
        suite: Suite { encryption: Some(Encryption::AesGcm16), auth: None },
        keys: Keys { encryption: Zeroizing::new((1..=20).collect()), ..Keys::default() },
        esn: false,
        window: 64,
        encapsulation: Some(Encapsulation { local: 4500, remote: 4500 }),
        selector: None,
        limits: Limits::default(),
    };
    change(&mut blueprint);
    Arc::new(Sa::new(blueprint))
}

fn selector(src: &str, dst: &str) -> Selector {
    Selector::nets(src.parse().unwrap(), dst.parse().unwrap())
}

impl Bench {
    fn new() -> Self {
        let plane = Arc::new(Plane::default());
        let counters = plane.new_counters();
        let outbound = Outbound::new(Arc::clone(&plane), Arc::clone(&counters), link(1500));
        Self { plane, counters, outbound, out: Sealed::new(0), counted: vec![0; Discard::ALL.len()] }
    }

    /// A policy of one eroute for everything.
    fn with(action: Action) -> Self {
        let bench = Self::new();
        bench.policy(action);
        bench
    }

    fn policy(&self, action: Action) {
        self.plane.change_eroutes(|eroutes| {
            eroutes.replace(Eroute::new(selector("0.0.0.0/0", "0.0.0.0/0"), action));
            eroutes.replace(Eroute::new(selector("::/0", "::/0"), action));
        });
    }

    fn send(&mut self, packet: &[u8]) -> Verdict {
        self.out.clear();
        let verdict = self.outbound.packet(&Vnet::default(), &mut packet.to_vec(), NOW, &mut self.out);
        self.outbound.finish(NOW, &mut self.out);
        verdict
    }

    /// Asserts that exactly these counters moved since last asked, and no other.
    #[track_caller]
    fn moved(&mut self, expected: &[(Discard, u64)]) {
        for (why, before) in Discard::ALL.iter().zip(&mut self.counted) {
            let now = self.counters.count(*why);
            let want = expected.iter().find(|(other, _)| other == why).map_or(0, |(_, n)| *n);
            assert_eq!(now - *before, want, "{}", why.name());
            *before = now;
        }
    }

    fn runs(&self) -> Vec<(Route, usize, usize)> {
        self.out.runs().map(|run| (run.route, run.octets.len(), run.stride)).collect()
    }

    fn back(&self) -> Vec<u8> {
        let run = self.out.runs().next().unwrap();
        assert_eq!(run.route, Route::Back);
        run.octets.to_vec()
    }
}

/// An IPv4 UDP packet of `len` octets, 10.1.0.1:1000 → 10.2.0.1:2000.
fn v4(len: usize, dont_fragment: bool) -> Vec<u8> {
    let mut p = vec![0x5a; len];
    p[..20].copy_from_slice(&[0x45, 0xb9, 0, 0, 0, 9, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1]);
    p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    if dont_fragment {
        p[6] = 0x40;
    }
    p[20..28].copy_from_slice(&[3, 0xe8, 7, 0xd0, 0, 0, 0, 0]);
    p
}

/// An IPv6 UDP packet of `len` octets.
fn v6(len: usize) -> Vec<u8> {
    let mut p = vec![0x5a; len];
    p[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 17, 64]);
    p[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    p[8..24].copy_from_slice(&"fd01::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    p[24..40].copy_from_slice(&"fd02::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    p
}

#[test]
fn what_no_eroute_matches_is_discarded() {
    let mut b = Bench::new();
    assert_eq!(b.send(&v4(100, true)), Verdict::Discard(Discard::NoEroute));
    b.moved(&[(Discard::NoEroute, 1)]);
    assert!(b.runs().is_empty());
}

#[test]
fn drop_is_silent_and_trap_and_hold_keep_the_packet() {
    let mut b = Bench::with(Action::Drop);
    assert_eq!(b.send(&v4(100, true)), Verdict::Discard(Discard::Drop));
    b.moved(&[(Discard::Drop, 1)]);
    for action in [Action::Hold, Action::Trap, Action::TrapSubnet] {
        b.policy(action);
        assert_eq!(b.send(&v4(100, true)), Verdict::Keep, "{action:?}");
        b.moved(&[]);
        assert!(b.runs().is_empty());
    }
}

#[test]
fn pass_lets_the_packet_through_as_it_is() {
    let mut b = Bench::with(Action::Pass);
    let packet = v4(100, true);
    assert_eq!(b.send(&packet), Verdict::Send);
    let run = b.out.runs().next().unwrap();
    assert_eq!((run.route, run.octets), (Route::Clear("10.2.0.1".parse().unwrap()), &packet[..]));
    b.moved(&[]);
}

#[test]
fn reject_tells_the_sender_administratively_prohibited() {
    let mut b = Bench::with(Action::Reject);
    let packet = v4(700, true);
    assert_eq!(b.send(&packet), Verdict::Answer(Discard::Reject));
    b.moved(&[(Discard::Reject, 1)]);
    let answer = b.back();
    assert_eq!((answer[9], &answer[12..16], &answer[16..20]), (1, &GATEWAY.octets()[..], &[10, 1, 0, 1][..]));
    assert_eq!((answer[20], answer[21], answer.len()), (3, 13, 576));
    assert_eq!(answer[28..], packet[..576 - 28]);
    assert_eq!((sum(&answer[..20]), sum(&answer[20..])), (0xffff, 0xffff));

    assert_eq!(b.send(&v6(100)), Verdict::Answer(Discard::Reject));
    let answer = b.back();
    assert_eq!((answer[6], answer[40], answer[41]), (58, 1, 1));
    let mut covered = answer[8..40].to_vec();
    covered.extend([0, 58]);
    covered.extend(((answer.len() - 40) as u16).to_be_bytes());
    covered.extend(&answer[40..]);
    assert_eq!(sum(&covered), 0xffff);
    b.moved(&[(Discard::Reject, 1)]);
}

/// RFC 1071.
fn sum(octets: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in octets.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn answers_are_rationed_and_errors_are_never_answered() {
    let mut b = Bench::with(Action::Reject);
    let verdicts: Vec<Verdict> = (0..200).map(|_| b.send(&v4(60, true))).collect();
    let answered = verdicts.iter().filter(|v| matches!(v, Verdict::Answer(_))).count();
    assert_eq!(answered, 50);
    b.moved(&[(Discard::Reject, 200)]);

    let mut b = Bench::with(Action::Reject);
    let quiet = Verdict::Discard(Discard::Reject);
    // An ICMP error, a later fragment, a multicast, a packet from nobody.
    let mut error = v4(60, true);
    error[9] = 1;
    error[20..22].copy_from_slice(&[3, 1]);
    assert_eq!(b.send(&error), quiet);
    error[20] = 8;
    assert_eq!(b.send(&error), Verdict::Answer(Discard::Reject), "an echo request is no error");
    let mut fragment = v4(60, false);
    fragment[7] = 5;
    assert_eq!(b.send(&fragment), quiet);
    let mut multicast = v4(60, true);
    multicast[16] = 224;
    assert_eq!(b.send(&multicast), quiet);
    let mut nobody = v4(60, true);
    nobody[12..16].fill(0);
    assert_eq!(b.send(&nobody), quiet);
    let mut error6 = v6(100);
    error6[6] = 58;
    error6[40] = 1;
    assert_eq!(b.send(&error6), quiet);
}

#[test]
fn a_missing_or_dead_sa_and_one_of_other_hosts_carry_nothing() {
    let mut b = Bench::with(Action::Protect(id(0x1001)));
    assert_eq!(b.send(&v4(100, true)), Verdict::Discard(Discard::NoSa));
    b.moved(&[(Discard::NoSa, 1)]);
    // That it was missing is not remembered.
    b.plane.publish(sa(0x1001, |_| {}));
    assert_eq!(b.send(&v4(100, true)), Verdict::Send);
    b.moved(&[]);
    // A withdrawn SA is dead at once, though the flow is cached.
    b.plane.withdraw(&id(0x1001));
    assert_eq!(b.send(&v4(100, true)), Verdict::Discard(Discard::NoSa));
    // Its successor of the same name is found at once.
    let next = sa(0x1001, |_| {});
    b.plane.publish(Arc::clone(&next));
    assert_eq!(b.send(&v4(100, true)), Verdict::Send);
    assert_eq!((next.packets(), next.bytes(), next.sent()), (1, 100, 1));
    b.moved(&[(Discard::NoSa, 1)]);
    b.plane.publish(sa(0x1002, |b| b.mode = Mode::Transport));
    b.policy(Action::Protect(id(0x1002)));
    assert_eq!(b.send(&v4(100, true)), Verdict::Discard(Discard::OtherHosts));
    b.moved(&[(Discard::OtherHosts, 1)]);
}

/// RFC 4301 §4.4.1.1: an eroute may be for one type and code of ICMP.
#[test]
fn policy_tells_one_kind_of_icmp_from_another() {
    let mut b = Bench::with(Action::Drop);
    let echo = Selector {
        proto: 1,
        sport: 0x0800,
        dport: 0x0800,
        ..Selector::nets("10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap())
    };
    b.plane.change_eroutes(|eroutes| eroutes.add(Eroute::new(echo, Action::Reject))).unwrap();
    let icmp = |kind: u8, code: u8| {
        let mut packet = v4(100, true);
        (packet[9], packet[20], packet[21]) = (1, kind, code);
        packet
    };
    let verdict = |b: &mut Bench, packet: Vec<u8>| match b.send(&packet) {
        Verdict::Answer(why) | Verdict::Discard(why) => why,
        other @ (Verdict::Send | Verdict::Keep) => panic!("{other:?}"),
    };
    assert_eq!(verdict(&mut b, icmp(8, 0)), Discard::Reject);
    for (kind, code) in [(0, 0), (8, 1), (3, 4), (13, 0)] {
        assert_eq!(verdict(&mut b, icmp(kind, code)), Discard::Drop, "type {kind}, code {code}");
    }
}

#[test]
fn a_change_of_policy_is_seen_by_the_next_packet() {
    let mut b = Bench::with(Action::Protect(id(0x1001)));
    b.plane.publish(sa(0x1001, |_| {}));
    assert_eq!(b.send(&v4(100, true)), Verdict::Send);
    b.policy(Action::Drop);
    assert_eq!(b.send(&v4(100, true)), Verdict::Discard(Discard::Drop));
    b.plane.change_eroutes(|eroutes| {
        eroutes.add(Eroute::new(selector("10.1.0.1/32", "0.0.0.0/0"), Action::Pass)).unwrap();
    });
    assert_eq!(b.send(&v4(100, true)), Verdict::Send);
    let list = b.plane.eroutes().list();
    assert_eq!(
        list.iter().map(|e| e.packets()).collect::<Vec<_>>(),
        [1, 1, 0],
        "each counts its own packets"
    );
    b.moved(&[(Discard::Drop, 1)]);
}

/// The next-hop MTU of a too-big answer.
fn told_mtu(b: &Bench) -> usize {
    let answer = b.back();
    match answer[0] >> 4 {
        4 => {
            assert_eq!((answer[20], answer[21]), (3, 4));
            u16::from_be_bytes([answer[26], answer[27]]).into()
        }
        _ => {
            assert_eq!(answer[40], 2);
            u32::from_be_bytes(answer[44..48].try_into().unwrap()) as usize
        }
    }
}

#[test]
fn the_mtu_told_is_the_largest_that_fits() {
    for encapsulated in [true, false] {
        for mtu in 1400..1420 {
            let mut b = Bench::with(Action::Protect(id(7)));
            b.plane.publish(sa(7, |b| {
                if !encapsulated {
                    b.encapsulation = None;
                }
            }));
            b.outbound.set_link(link(mtu));
            for packet in [v4(1500, true), v6(1500)] {
                assert_eq!(b.send(&packet), Verdict::Answer(Discard::TooBig));
                let told = told_mtu(&b);
                let four = packet[0] >> 4 == 4;
                let exact = if four { v4(told, true) } else { v6(told) };
                assert_eq!(b.send(&exact), Verdict::Send, "{told} fits {mtu}");
                let outer = 20 + if encapsulated { 8 } else { 0 };
                assert!(b.runs()[0].1 + outer <= mtu);
                let one_more = if four { v4(told + 1, true) } else { v6(told + 1) };
                assert_eq!(
                    b.send(&one_more),
                    Verdict::Answer(Discard::TooBig),
                    "{told} + 1 does not fit {mtu}"
                );
                b.moved(&[(Discard::TooBig, 2)]);
            }
        }
    }
}

#[test]
fn what_may_be_fragmented_is_protected_and_travels_alone() {
    let mut b = Bench::with(Action::Protect(id(7)));
    b.plane.publish(sa(7, |_| {}));
    for _ in 0..2 {
        let mut packet = v4(1500, false);
        assert_eq!(b.outbound.packet(&Vnet::default(), &mut packet, NOW, &mut b.out), Verdict::Send);
    }
    b.outbound.finish(NOW, &mut b.out);
    // A run is sent in one piece, and segments of such a send cannot be fragmented: each is a run of its own.
    assert_eq!(b.runs().len(), 2);
    // The same with `fragicmp=no`, whatever the packet says.
    b.outbound.set_link(Link { frag_icmp: false, ..link(1500) });
    assert_eq!(b.send(&v4(1500, true)), Verdict::Send);
    // An IPv6 packet of the minimum MTU is never too big (RFC 8200 §5).
    b.outbound.set_link(link(1280));
    assert_eq!(b.send(&v6(1280)), Verdict::Send);
    b.moved(&[]);
}

#[test]
fn without_an_address_of_its_own_the_answer_comes_from_where_the_packet_was_going() {
    let mut b = Bench::with(Action::Reject);
    b.outbound.set_link(Link { icmp_source4: None, icmp_source6: None, ..link(1500) });
    for (packet, addresses, half) in [(v4(100, true), 12, 4), (v6(100), 8, 16)] {
        let (src, dst) = packet[addresses..addresses + 2 * half].split_at(half);
        assert_eq!(b.send(&packet), Verdict::Answer(Discard::Reject));
        let run = b.out.runs().next().unwrap();
        assert_eq!(run.route, Route::Back);
        assert_eq!(run.octets[addresses..addresses + 2 * half], [dst, src].concat());
    }
}

#[test]
fn the_outer_tos_carries_ecn_and_hides_the_rest_unless_told_otherwise() {
    let mut b = Bench::with(Action::Protect(id(7)));
    b.plane.publish(sa(7, |_| {}));
    let tos = |b: &mut Bench| {
        assert_eq!(b.send(&v4(100, true)), Verdict::Send);
        match b.runs()[0].0 {
            Route::Esp(path) => (path.tos, path.src, path.dst),
            other @ (Route::Whole(_) | Route::Clear(_) | Route::Back) => panic!("{other:?}"),
        }
    };
    let ends = (IpAddr::V4(GATEWAY), id(7).dst);
    assert_eq!(tos(&mut b), (0x01, ends.0, ends.1));
    b.outbound.set_link(Link { hide_tos: false, ..link(1500) });
    assert_eq!(tos(&mut b), (0xb9, ends.0, ends.1));
}

#[test]
fn a_limit_of_packets_counts_packets_whatever_their_size_and_the_smaller_of_two_limits_holds() {
    for (limits, carried) in [
        (Limits { soft_packets: 2, hard_packets: 4, ..Limits::default() }, 3),
        (Limits { soft_packets: 2, hard_packets: 4, hard_bytes: 251, ..Limits::default() }, 2),
        (Limits { soft_bytes: 150, hard_packets: 4, hard_bytes: 100_000, ..Limits::default() }, 3),
        (Limits { hard_packets: 1, soft_bytes: 1, ..Limits::default() }, 0),
    ] {
        let mut b = Bench::with(Action::Protect(id(7)));
        let sa = sa(7, |b| b.limits = limits);
        b.plane.publish(Arc::clone(&sa));
        let verdicts: Vec<Verdict> = [100, 150, 60, 40, 40].map(|len| b.send(&v4(len, true))).into();
        let expected = |n: usize| match n.cmp(&carried) {
            core::cmp::Ordering::Less => Verdict::Send,
            core::cmp::Ordering::Equal => Verdict::Discard(Discard::Expired),
            core::cmp::Ordering::Greater => Verdict::Discard(Discard::NoSa),
        };
        assert_eq!(verdicts, (0..5).map(expected).collect::<Vec<_>>(), "{limits:?}");
        assert_eq!((sa.packets(), sa.sent()), (carried as u64, carried as u64), "{limits:?}");
        let events = b.plane.take_events();
        assert_eq!(events.contains(&Event::Soft(id(7))), carried > 0, "{limits:?}: {events:?}");
        assert_eq!(events.last(), Some(&Event::Hard(id(7))));
    }
}

#[test]
fn the_hard_limit_is_met_by_the_packet_that_would_reach_it() {
    let mut b = Bench::with(Action::Protect(id(7)));
    let sa = sa(7, |b| b.limits = Limits { soft_bytes: 200, hard_bytes: 400, ..Limits::default() });
    b.plane.publish(Arc::clone(&sa));
    assert_eq!(b.send(&v4(100, true)), Verdict::Send);
    assert_eq!(b.plane.take_events(), [Event::FirstUse(id(7))]);
    assert_eq!(b.send(&v4(100, true)), Verdict::Send);
    assert_eq!(b.plane.take_events(), [Event::Soft(id(7))]);
    assert_eq!(b.send(&v4(100, true)), Verdict::Send);
    assert_eq!(b.plane.take_events(), []);
    b.moved(&[]);
    assert_eq!(b.send(&v4(100, true)), Verdict::Discard(Discard::Expired));
    assert_eq!(b.plane.take_events(), [Event::Hard(id(7))]);
    assert_eq!((sa.bytes(), sa.packets(), sa.state()), (300, 3, SaState::Dead));
    assert_eq!(b.send(&v4(40, true)), Verdict::Discard(Discard::NoSa));
    b.moved(&[(Discard::Expired, 1), (Discard::NoSa, 1)]);
}

#[test]
fn sequence_numbers_end_and_never_wrap() {
    let mut b = Bench::with(Action::Protect(id(7)));
    let sa = sa(7, |_| {});
    sa.continue_after(0xffff_fffd);
    b.plane.publish(Arc::clone(&sa));
    for want in [0xffff_fffe_u32, 0xffff_ffff] {
        assert_eq!(b.send(&v4(100, true)), Verdict::Send);
        let run = b.out.runs().next().unwrap();
        assert_eq!(run.octets[4..8], want.to_be_bytes());
    }
    b.plane.take_events();
    assert_eq!(b.send(&v4(100, true)), Verdict::Send, "known only when the batch is sealed");
    assert!(b.runs().is_empty());
    assert_eq!(b.plane.take_events(), [Event::Hard(id(7))]);
    assert_eq!(b.send(&v4(100, true)), Verdict::Discard(Discard::NoSa));
    b.moved(&[(Discard::SequenceExhausted, 1), (Discard::NoSa, 1)]);
}

#[test]
fn small_packets_of_one_sa_leave_in_one_run() {
    let mut b = Bench::with(Action::Protect(id(7)));
    b.plane.publish(sa(7, |_| {}));
    for _ in 0..10 {
        let mut packet = v4(64, true);
        assert_eq!(b.outbound.packet(&Vnet::default(), &mut packet, NOW, &mut b.out), Verdict::Send);
    }
    assert!(b.runs().is_empty(), "they wait for each other");
    b.outbound.finish(NOW, &mut b.out);
    let runs = b.runs();
    assert_eq!((runs.len(), runs[0].1, runs[0].2), (1, 10 * 100, 100));
}

#[test]
fn absurd_packets_are_malformed() {
    let mut b = Bench::with(Action::Pass);
    for packet in [&[][..], &[0x45], &[0x60; 39], &[0x00; 40], &[0x44; 60], &[0xff; 100]] {
        assert_eq!(b.send(packet), Verdict::Discard(Discard::Malformed));
    }
    b.moved(&[(Discard::Malformed, 6)]);
}
