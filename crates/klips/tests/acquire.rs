//! `%trap`: a packet makes the service ask for an SA, waits for it, and goes when it is there.
//!
//! Real outbound engines, the real service, and key managers that speak octets.

use ipsec_core::{Protocol, SaId, Selector, Spi, Time};
use klips::{
    Action, Config, Control, Counters, Discard, Eroute, Gso, Link, Outbound, Plane, Route, Sealed, SocketId,
    Verdict, Vnet,
};
use pfkey::client::{Client, Request};
use pfkey::{
    Address, Base, Comb, Diagnostic, Ecomb, Errno, ExtType, Flow, FlowAction, Message, MessageType, Sa,
    SaType, SpiRange, Writer, flags, state,
};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const PID: u32 = 4242;
const START: Time = Time::from_secs(100);

struct Host {
    plane: Arc<Plane>,
    control: Control,
    counters: Arc<Counters>,
    outbound: Outbound,
    sealed: Sealed,
    now: Time,
}

fn selector() -> Selector {
    Selector::nets("10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap())
}

impl Host {
    /// A gateway whose policy for 10.1.0.0/16 → 10.2.0.0/16 is `action`.
    fn new(action: Action) -> Self {
        let plane = Arc::new(Plane::default());
        let random = |octets: &mut [u8]| octets.fill(0x5a);
        let mut control = Control::new(Arc::clone(&plane), Config::new(1_700_000_000, Box::new(random)));
        control.set_local_addresses(vec!["192.0.2.1".parse().unwrap()]);
        let counters = plane.new_counters();
        let link =
            Link { mtu: 1500, icmp_source4: None, icmp_source6: None, hide_tos: true, frag_icmp: true };
        let outbound = Outbound::new(Arc::clone(&plane), Arc::clone(&counters), link);
        plane.change_eroutes(|eroutes| eroutes.replace(Eroute::new(selector(), action)));
        Self { plane, control, counters, outbound, sealed: Sealed::new(0), now: START }
    }

    fn trap() -> Self {
        Self::new(Action::Trap)
    }

    /// A key manager with a plain or an extended REGISTER.
    fn manager(&mut self, extended: bool) -> SocketId {
        let socket = self.control.connect(PID, self.now);
        let mut client = Client::new(PID);
        let request = match extended {
            true => client.register_extended(&[SaType::Ah, SaType::Esp]),
            false => client.request(MessageType::Register, SaType::Esp),
        };
        let (_, record) = client.finish(request).unwrap();
        self.control.request(socket, &record, self.now);
        self.heard(socket);
        socket
    }

    fn heard(&mut self, socket: SocketId) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.control.notice(socket, self.now)).collect()
    }

    /// One packet from the device; control acts if the engine says that it should.
    fn packet(&mut self, host: u8, mark: u8) -> Verdict {
        self.send(&Vnet::default(), &mut udp(host, mark, 60))
    }

    fn trapped(&mut self, host: u8, mark: u8) {
        assert_eq!(self.packet(host, mark), Verdict::Keep);
    }

    fn send(&mut self, vnet: &Vnet, packet: &mut [u8]) -> Verdict {
        let verdict = self.outbound.packet(vnet, packet, self.now, &mut self.sealed);
        self.outbound.finish(self.now, &mut self.sealed);
        if self.plane.take_wake() {
            self.control.expire(self.now);
        }
        verdict
    }

    /// What came back to the engine and went out: ESP packets.
    fn released(&mut self) -> Vec<Vec<u8>> {
        assert!(self.sealed.runs().next().is_none(), "something went out before it might");
        let mut all = Vec::new();
        let mut more = self.plane.take_returned();
        while more {
            more = self.outbound.returned(self.now, &mut self.sealed);
            for run in self.sealed.runs() {
                assert!(matches!(run.route, Route::Esp(_)));
                all.extend(run.octets.chunks(run.stride).map(<[u8]>::to_vec));
            }
            self.sealed.clear();
        }
        all
    }

    fn dropped(&self) -> u64 {
        self.plane.discarded(Discard::Hold)
    }

    fn ask(&mut self, from: SocketId, request: Request) -> Vec<Vec<u8>> {
        let (_, record) = Client::new(PID).finish(request).unwrap();
        self.control.request(from, &record, self.now);
        self.heard(from)
    }

    /// ADD with an ACQUIRE's number: NULL encryption, so that the test can see what is inside.
    fn add(&mut self, from: SocketId, seq: u32, spi: u32, outbound: bool) {
        let record = self.add_record(seq, spi, outbound);
        self.control.request(from, &record, self.now);
        let answers = self.heard(from);
        assert_eq!(answers[0][2], 0, "{:?}", Message::parse_answer(&answers[0]));
    }

    fn add_record(&self, seq: u32, spi: u32, outbound: bool) -> Vec<u8> {
        self.add_record_for(seq, spi, outbound, 0)
    }

    /// The same for inner packets of one protocol.
    fn add_record_for(&self, seq: u32, spi: u32, outbound: bool, proto: u8) -> Vec<u8> {
        let mut ask = Client::starting_at(PID, seq).request(MessageType::Add, SaType::Esp);
        let ours = Address::host("192.0.2.1".parse().unwrap());
        let theirs = Address::host("192.0.2.2".parse().unwrap());
        let net = |second| Address { proto, ..Address::net([10, second, 0, 0].into(), 16) };
        let (left, right) = (net(1), net(2));
        let ends = if outbound { [(ours, left), (theirs, right)] } else { [(theirs, right), (ours, left)] };
        let sa = Sa { spi, replay: 32, state: state::MATURE, encrypt: 11, auth: 5, flags: flags::TUNNEL };
        ask.sa(&sa);
        ask.address(ExtType::AddressSrc, &ends[0].0);
        ask.address(ExtType::AddressDst, &ends[1].0);
        ask.address(ExtType::AddressInnerSrc, &ends[0].1);
        ask.address(ExtType::AddressInnerDst, &ends[1].1);
        ask.key(ExtType::KeyAuth, 256, 0, &[7; 32]);
        Client::new(PID).finish(ask).unwrap().1
    }
}

fn said(spi: u32) -> SaId {
    SaId { dst: "192.0.2.2".parse().unwrap(), protocol: Protocol::Esp, spi: Spi(spi) }
}

/// An IPv4 UDP packet from 10.1.0.1 to 10.2.0.`host` that says `mark`. It has no UDP checksum, which is legal.
fn udp(host: u8, mark: u8, len: usize) -> Vec<u8> {
    let mut p = vec![mark; len];
    p[..28].copy_from_slice(&[
        0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, host, 3, 0xe8, 7, 0xd0, 0, 0, 0, 0,
    ]);
    p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    p[24..26].copy_from_slice(&((len - 20) as u16).to_be_bytes());
    p
}

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

fn acquires(records: &[Vec<u8>]) -> Vec<Message<'_>> {
    let all = records.iter().map(|record| Message::parse_answer(record).unwrap());
    all.filter(|message| message.base.kind() == Some(MessageType::Acquire)).collect()
}

/// ACQUIRE from a key manager: there will be none.
fn negative(seq: u32) -> Vec<u8> {
    let base = Base::request(MessageType::Acquire, SaType::Esp, seq, PID);
    Writer::new(&Base { errno: Errno(110), ..base }).finish().unwrap()
}

#[test]
fn the_first_packet_asks_plain_and_extended_key_managers_once() {
    let mut host = Host::trap();
    let (plain, extended) = (host.manager(false), host.manager(true));
    let bystander = host.control.connect(1, START);
    for mark in 0..3 {
        assert_eq!(host.packet(9, mark), Verdict::Keep);
    }
    assert_eq!(host.packet(8, 0), Verdict::Keep);
    assert_eq!(host.heard(bystander), Vec::<Vec<u8>>::new());

    let records = host.heard(plain);
    let asked = acquires(&records);
    let seqs: Vec<u32> = asked.iter().map(|message| message.base.seq).collect();
    assert_eq!(seqs, [0xffff_fffe, 0xffff_fffd], "one for each pair of hosts, counted down");
    let message = &asked[0];
    assert_eq!((message.base.pid, message.base.satype()), (0, Some(SaType::Esp)));
    let (src, dst) = (message.src.unwrap(), message.dst.unwrap());
    assert_eq!((src.ip(), dst.ip()), ("10.1.0.1".parse().ok(), "10.2.0.9".parse().ok()));
    assert_eq!((src.proto, dst.proto, src.port(), dst.port()), (4, 4, 0, 0));
    let (inner_src, inner_dst) = (message.inner_src.unwrap(), message.inner_dst.unwrap());
    assert_eq!((inner_src.ip(), inner_src.prefix), ("10.1.0.0".parse().ok(), 16), "what the policy says");
    assert_eq!((inner_dst.ip(), inner_dst.prefix), ("10.2.0.0".parse().ok(), 16));
    let combs: Vec<Comb> = Comb::list(message.raw(ExtType::Proposal).unwrap()).collect();
    assert_eq!(
        (combs[0].encrypt, combs[0].auth, combs[0].encrypt_bits),
        (20, 0, (128, 256)),
        "the best first"
    );
    let legacy = [2, 3]; // 3DES-CBC, HMAC-MD5
    assert!(combs.iter().all(|comb| comb.encrypt != 3 && !legacy.contains(&comb.auth)), "{combs:?}");

    let records = host.heard(extended);
    let asked = acquires(&records);
    assert_eq!(
        asked.iter().map(|m| (m.base.seq, m.base.satype_number)).collect::<Vec<_>>(),
        [(0xffff_fffe, 0), (0xffff_fffd, 0)]
    );
    let ecombs: Vec<Ecomb> = Ecomb::list(asked[0].raw(ExtType::Eprop).unwrap()).collect();
    assert_eq!(ecombs.len(), combs.len());
    assert_eq!(ecombs[0].algorithms[0].id, 20);
    assert!(!asked[0].has(ExtType::Proposal));
    assert_eq!(host.dropped(), 0);
}

#[test]
fn the_sa_that_answers_lets_the_packets_go_in_their_order() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    for mark in 1..=3 {
        host.trapped(9, mark);
    }
    let seq = acquires(&host.heard(manager))[0].base.seq;
    // The direction that leads in answers nothing.
    host.add(manager, seq, 0x1001, false);
    assert_eq!(host.released(), Vec::<Vec<u8>>::new());
    host.add(manager, seq, 0x2002, true);
    let packets = host.released();
    assert_eq!(packets.len(), 3);
    for (index, (packet, mark)) in packets.iter().zip(1..).enumerate() {
        assert_eq!(packet[..4], 0x2002_u32.to_be_bytes());
        assert_eq!(packet[4..8], (index as u32 + 1).to_be_bytes());
        assert_eq!(packet[8..68], udp(9, mark, 60), "inner packet {mark}");
    }
    assert_eq!(host.dropped(), 0);
    // It is answered, once.
    host.add(manager, seq, 0x2003, true);
    assert_eq!(host.released(), Vec::<Vec<u8>>::new());
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
fn a_key_manager_that_gives_up_drops_them() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    host.trapped(9, 2);
    host.trapped(8, 3);
    let records = host.heard(manager);
    let seqs: Vec<u32> = acquires(&records).iter().map(|message| message.base.seq).collect();
    let now = host.now;
    host.control.request(manager, &negative(seqs[0]), now);
    assert_eq!(host.heard(manager), Vec::<Vec<u8>>::new(), "there is no answer to it");
    assert_eq!(host.dropped(), 2);
    host.control.request(manager, &negative(seqs[0] - 77), now);
    assert_eq!(host.dropped(), 2);
    // The next packet asks again.
    host.trapped(9, 4);
    assert_eq!(acquires(&host.heard(manager)).len(), 1);
}

#[test]
fn after_fifteen_seconds_they_are_dropped_and_the_next_packet_asks_again() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    host.heard(manager);
    assert_eq!(host.control.deadline(), Some(START.after(Duration::from_secs(15))));
    host.now = START.after(Duration::from_millis(14_999));
    host.control.expire(host.now);
    host.trapped(9, 2);
    assert_eq!((host.dropped(), acquires(&host.heard(manager)).len()), (0, 0));
    host.now = START.after(Duration::from_secs(15));
    host.control.expire(host.now);
    assert_eq!(host.dropped(), 2);
    assert_eq!(host.control.deadline(), None);
    host.trapped(9, 3);
    assert_eq!(acquires(&host.heard(manager)).len(), 1);
}

#[test]
fn where_nobody_listens_nothing_waits() {
    let mut host = Host::trap();
    // Registered for something else, or deaf, is not listening.
    let other = host.control.connect(PID, START);
    let register = Client::new(PID).request(MessageType::Register, SaType::Ah);
    host.ask(other, register);
    let deaf = host.manager(false);
    host.control.set_loopback(deaf, false);
    for _ in 0..5000 {
        host.trapped(9, 1);
    }
    assert_eq!(host.dropped(), 5000);
    assert!(host.control.deadline().is_some(), "what is forgotten early is forgotten when its time comes");
    host.now = START.after(Duration::from_secs(15));
    host.control.expire(host.now);
    assert_eq!(host.control.deadline(), None);
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
fn a_packet_outside_the_selectors_of_the_sa_that_answers_does_not_go_through_it() {
    const TCP: u8 = 6;
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    let add = host.add_record_for(seq, 0x2002, true, TCP);
    host.control.request(manager, &add, host.now);
    assert_eq!(host.released(), Vec::<Vec<u8>>::new());
    assert_eq!(host.counters.count(Discard::PolicyMismatch), 1);
}

/// Key managers number their own requests, and a number may be an ACQUIRE's by chance.
#[test]
fn an_sa_that_leads_elsewhere_is_no_answer_whatever_its_number() {
    for refused in [false, true] {
        let mut host = Host::trap();
        let wide = Selector::nets("0.0.0.0/0".parse().unwrap(), "0.0.0.0/0".parse().unwrap());
        host.plane.change_eroutes(|eroutes| {
            drop(eroutes.clear());
            eroutes.replace(Eroute::new(wide, Action::Trap));
        });
        let manager = host.manager(false);
        let mut packet = udp(9, 1, 60);
        packet[16..20].copy_from_slice(&[10, 9, 0, 1]);
        let _ = host.send(&Vnet::default(), &mut packet);
        let seq = acquires(&host.heard(manager))[0].base.seq;
        host.add(manager, if refused { 0 } else { seq }, 0x2002, true);
        if refused {
            let again = host.add_record(seq, 0x2002, true);
            host.control.request(manager, &again, host.now);
            assert_eq!(host.heard(manager)[0][2], 17, "EEXIST");
        }
        assert_eq!((host.released().len(), host.dropped()), (0, 0), "it still waits");
        host.control.request(manager, &negative(seq), host.now);
        assert_eq!(host.dropped(), 1, "for its own answer");
    }
}

/// The eroutes as the table has them.
fn table(host: &Host) -> Vec<(String, Action, u64)> {
    let row = |eroute: &Arc<Eroute>| {
        let Selector { src, dst, proto, sport, dport } = eroute.selector;
        (format!("{src}->{dst} {proto} {sport} {dport}"), eroute.action, eroute.packets())
    };
    host.plane.eroutes().list().iter().map(row).collect()
}

/// Eight packets through a `%trap`: one meets it, seven the `%hold` that is there since; exact counts, as ever.
#[test]
fn trapsubnet_asks_once_for_all_hosts_of_its_networks() {
    let mut host = Host::new(Action::TrapSubnet);
    let manager = host.manager(false);
    for to in [9, 8, 7] {
        host.trapped(to, to);
    }
    let records = host.heard(manager);
    let asked = acquires(&records);
    assert_eq!(asked.len(), 1, "one need, one ACQUIRE");
    let (seq, dst) = (asked[0].base.seq, asked[0].dst.unwrap().ip());
    assert_eq!(dst, "10.2.0.9".parse().ok(), "the host that was first");
    assert_eq!(asked[0].inner_dst.unwrap().prefix, 16, "and what it is about");
    // A change of policy for one of its hosts is seen by what waits for all of them.
    let one = Selector::nets("10.1.0.0/16".parse().unwrap(), "10.2.0.7/32".parse().unwrap());
    let mut drop_one = Client::new(PID).request(MessageType::AddFlow, SaType::Unspec);
    drop_one.address(ExtType::AddressInnerSrc, &Address::net([10, 1, 0, 0].into(), 16));
    drop_one.address(ExtType::AddressInnerDst, &Address::net([10, 2, 0, 7].into(), 32));
    drop_one.flow(&Flow { action: FlowAction::Drop, packets: 0, last_use: 0 });
    host.ask(manager, drop_one);
    assert!(host.plane.eroutes().exact(&one).is_some());
    assert_eq!(host.released().len(), 0);
    assert_eq!(host.plane.discarded(Discard::Drop), 1);
    host.add(manager, seq, 0x2002, true);
    assert_eq!(host.released().len(), 2);
    // Another host of the networks finds the need met.
    host.trapped(6, 6);
    assert_eq!(host.released().len(), 1);
    assert!(acquires(&host.heard(manager)).is_empty());
}

#[test]
fn a_trap_puts_a_hold_for_its_flow_into_the_table_until_there_is_an_sa() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    let trap = table(&host)[0].0.clone();
    for mark in 1..=8 {
        assert_eq!(host.packet(9, mark), Verdict::Keep);
        host.control.expire(host.now);
    }
    let [(_, _, trapped), (hold, action, held)] = &table(&host)[..] else { panic!("{:?}", table(&host)) };
    assert_eq!(
        (*trapped, hold.as_str(), *action, *held),
        (1, "10.1.0.1/32->10.2.0.9/32 0 0 0", Action::Hold, 7)
    );
    // Another flow of the network asks anew, and has its own.
    host.trapped(7, 1);
    assert_eq!(table(&host).len(), 3);
    assert_eq!(host.control.trap_counts(), (2, 2));
    assert_eq!(host.dropped(), 4);
    let asked = host.heard(manager);
    assert_eq!(acquires(&asked).len(), 2);
    let seq = acquires(&asked)[0].base.seq;
    host.add(manager, seq, 0x2002, true);
    let marks: Vec<u8> = host.released().iter().map(|packet| packet[8 + 40]).collect();
    assert_eq!(marks, [1, 6, 7, 8]);
    assert_eq!(table(&host).len(), 2, "the hold of the flow that has its SA is gone");
    // The other one goes when its time is up.
    host.now = host.now.after(Duration::from_secs(16));
    host.control.expire(host.now);
    let left = table(&host);
    assert_eq!((left.len(), &left[0].0, left[0].1), (1, &trap, Action::Trap));
}

#[test]
fn a_trapsubnet_becomes_the_hold_of_all_it_matches_and_is_itself_again() {
    let mut host = Host::new(Action::TrapSubnet);
    let manager = host.manager(false);
    let before = table(&host);
    for (count, mark) in (1..=8).enumerate() {
        assert_eq!(host.packet(9 + count as u8, mark), Verdict::Keep);
        host.control.expire(host.now);
    }
    // One line, and it has counted all of them.
    assert_eq!(table(&host), [(before[0].0.clone(), Action::Hold, 8)]);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    host.control.request(manager, &negative(seq), host.now);
    assert_eq!(table(&host), [(before[0].0.clone(), Action::TrapSubnet, 8)]);
    assert_eq!(host.dropped(), 8);
}

/// With a protocol or a port in the trap the hold has it too, and no more than that (the masks are right), over IPv6 as well.
#[test]
fn the_hold_of_a_trap_matches_as_much_of_a_flow_as_the_trap_did() {
    for (selector, flow, hold) in [
        ("10.1.0.0/16->10.2.0.0/16 17 0 53", ("10.1.0.9", "10.2.0.1"), "10.1.0.9/32->10.2.0.1/32 17 0 53"),
        ("fd00:1::/32->fd00:2::/32 0 0 0", ("fd00:1::9", "fd00:2::1"), "fd00:1::9/128->fd00:2::1/128 0 0 0"),
    ] {
        let mut words = selector.split(' ');
        let (src, dst) = words.next().unwrap().split_once("->").unwrap();
        let mut number = || words.next().unwrap().parse::<u16>().unwrap();
        let (proto, sport, dport) = (number() as u8, number(), number());
        let selector =
            Selector { proto, sport, dport, ..Selector::nets(src.parse().unwrap(), dst.parse().unwrap()) };
        let mut host = Host::trap();
        host.manager(false);
        host.plane.change_eroutes(|eroutes| {
            drop(eroutes.clear());
            eroutes.add(Eroute::new(selector, Action::Trap)).unwrap();
        });
        let (src, dst): (IpAddr, IpAddr) = (flow.0.parse().unwrap(), flow.1.parse().unwrap());
        let mut packet = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0][..], &src.octets(), &dst.octets()].concat()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                [&[0x60, 0, 0, 0, 0, 8, 17, 64][..], &src.octets(), &dst.octets()].concat()
            }
            _ => unreachable!(),
        };
        packet.extend([0x30, 0x39, 0, 53, 0, 8, 0, 0]);
        assert_eq!(host.send(&Vnet::default(), &mut packet), Verdict::Keep);
        host.control.expire(host.now);
        let holds: Vec<String> =
            table(&host).into_iter().filter(|row| row.1 == Action::Hold).map(|row| row.0).collect();
        assert_eq!(holds, [hold]);
    }
}

/// What a person holds stays held: the first and the latest packets, nobody asked, until policy says otherwise.
#[test]
fn a_hold_that_somebody_put_there_keeps_the_first_and_the_latest_packets() {
    let mut host = Host::new(Action::Hold);
    let manager = host.manager(false);
    for mark in 1..=7 {
        assert_eq!(host.packet(9, mark), Verdict::Keep);
        host.control.expire(host.now);
    }
    assert_eq!((host.heard(manager).len(), host.dropped()), (0, 3));
    let before = table(&host);
    assert_eq!((before.len(), before[0].1, before[0].2), (1, Action::Hold, 7));
    host.add(manager, 0, 0x2002, true);
    assert_eq!(host.released(), Vec::<Vec<u8>>::new());
    host.ask(manager, replace_flow(FlowAction::Protect, 0x2002));
    let marks: Vec<u8> = host.released().iter().map(|packet| packet[8 + 40]).collect();
    assert_eq!(marks, [1, 5, 6, 7]);
    // When their time is up the packets go; the eroute is not ours to take away.
    let mut host = Host::new(Action::Hold);
    assert_eq!(host.packet(9, 1), Verdict::Keep);
    host.control.expire(host.now);
    host.now = host.now.after(Duration::from_secs(16));
    host.control.expire(host.now);
    assert_eq!((host.dropped(), table(&host)[0].1), (1, Action::Hold));
}

/// A wider eroute that is put in while a flow is held decides about it: the hold we made does not stand in its way.
#[test]
fn the_hold_of_a_trap_gives_way_to_what_policy_says_behind_it() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    assert_eq!(table(&host).len(), 2);
    host.add(manager, 0, 0x2002, true);
    host.ask(manager, replace_flow(FlowAction::Protect, 0x2002));
    assert_eq!(host.released().len(), 1);
    assert_eq!(table(&host).len(), 1);
    assert!(matches!(table(&host)[0].1, Action::Protect(_)));
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

/// REPLACEFLOW for the trapped networks, as `ipsec eroute` sends it.
fn replace_flow(action: FlowAction, spi: u32) -> Request {
    let satype = if action == FlowAction::Protect { SaType::Esp } else { SaType::Unspec };
    let mut ask = Client::new(PID).request(MessageType::ReplaceFlow, satype);
    if action == FlowAction::Protect {
        ask.sa(&Sa { spi, ..Sa::default() });
        ask.address(ExtType::AddressDst, &Address::host("192.0.2.2".parse().unwrap()));
    }
    ask.address(ExtType::AddressInnerSrc, &Address::net([10, 1, 0, 0].into(), 16));
    ask.address(ExtType::AddressInnerDst, &Address::net([10, 2, 0, 0].into(), 16));
    ask.flow(&Flow { action, packets: 0, last_use: 0 });
    ask
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
fn the_eroute_that_replaces_the_trap_lets_packets_go_that_came_after_the_sa() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    host.add(manager, seq, 0x2002, true);
    assert_eq!(host.released().len(), 1);
    // The trap is still there, and other hosts need their own answer.
    host.trapped(7, 2);
    host.trapped(8, 3);
    assert_eq!(host.released().len(), 0);
    host.ask(manager, replace_flow(FlowAction::Protect, 0x2002));
    let mut marks: Vec<u8> = host.released().iter().map(|packet| packet[8 + 40]).collect();
    marks.sort_unstable();
    assert_eq!(marks, [2, 3]);
    // Nothing is left to expire.
    host.now = START.after(Duration::from_secs(15));
    host.control.expire(host.now);
    assert_eq!(host.dropped(), 0);
}

#[test]
fn a_packet_that_waits_goes_by_the_policy_there_is_when_it_goes() {
    for (action, why) in [(FlowAction::Drop, Discard::Drop), (FlowAction::Reject, Discard::Reject)] {
        let mut host = Host::trap();
        let manager = host.manager(false);
        host.trapped(9, 1);
        let seq = acquires(&host.heard(manager))[0].base.seq;
        // Into the engine's hands, and the policy changes before it looks.
        let (now, add) = (host.now, host.add_record(seq, 0x2002, true));
        host.control.request(manager, &add, now);
        host.ask(manager, replace_flow(action, 0));
        if host.plane.take_returned() {
            assert!(!host.outbound.returned(now, &mut host.sealed));
        }
        assert!(host.sealed.runs().all(|run| run.route == Route::Back), "{action:?}: it was sent");
        assert_eq!(host.counters.count(why), 1);
    }
}

#[test]
fn a_trap_that_is_gone_when_control_looks_asks_nobody() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    // The worker has trapped it; control has not looked, and is told of the eroute first.
    let verdict = host.outbound.packet(&Vnet::default(), &mut udp(9, 1, 60), host.now, &mut host.sealed);
    assert_eq!(verdict, Verdict::Keep);
    host.add(manager, 77, 0x2002, true);
    host.ask(manager, replace_flow(FlowAction::Protect, 0x2002));
    host.control.expire(host.now);
    assert_eq!(acquires(&host.heard(manager)).len(), 0);
    assert_eq!(host.released().len(), 1);
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
fn only_the_database_that_was_asked_can_give_up() {
    let mut host = Host::trap();
    let (manager, extended) = (host.manager(false), host.manager(true));
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    let now = host.now;
    let mut refuse = |from, satype: SaType| {
        let mut octets = negative(seq);
        octets[3] = satype.number();
        host.control.request(from, &octets, now);
        host.plane.discarded(Discard::Hold)
    };
    assert_eq!(refuse(manager, SaType::Ah), 0, "AH has no such record");
    // RFC 2367 has no satype 0 here; a socket with an extended REGISTER means all it is registered for.
    assert_eq!(refuse(extended, SaType::Unspec), 1);
}

#[test]
fn an_update_that_makes_a_reserved_spi_an_sa_answers_too() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    let mut ask = Client::new(PID).request(MessageType::GetSpi, SaType::Esp);
    ask.address(ExtType::AddressSrc, &Address::host("192.0.2.1".parse().unwrap()));
    ask.address(ExtType::AddressDst, &Address::host("192.0.2.2".parse().unwrap()));
    ask.spi_range(&SpiRange { min: 0x2002, max: 0x2002 });
    assert_eq!(host.ask(manager, ask)[0][2], 0);
    let mut update = host.add_record(seq, 0x2002, true);
    update[1] = MessageType::Update.number();
    let now = host.now;
    host.control.request(manager, &update, now);
    assert_eq!(host.heard(manager)[0][2], 0);
    assert_eq!(host.released().len(), 1);
}

#[test]
fn an_answer_that_fails_drops_what_waits_for_it() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.add(manager, 1, 0x2002, true);
    host.trapped(9, 1);
    let seq = acquires(&host.heard(manager))[0].base.seq;
    let again = host.add_record(seq, 0x2002, true);
    let now = host.now;
    host.control.request(manager, &again, now);
    assert_eq!(Message::parse_answer(&host.heard(manager)[0]).unwrap().base.errno, Errno::EEXIST);
    assert_eq!(host.dropped(), 1);
    assert_eq!(host.released().len(), 0);
}

#[test]
fn a_packet_that_comes_when_a_record_ends_asks_anew() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(9, 1);
    host.heard(manager);
    host.now = START.after(Duration::from_secs(15));
    host.trapped(9, 2);
    assert_eq!((host.dropped(), acquires(&host.heard(manager)).len()), (1, 1));
}

fn inverse(inner: Option<(&str, &str)>) -> Request {
    let mut ask = Client::starting_at(PID, 77).request(MessageType::InverseAcquire, SaType::Unspec);
    ask.address(ExtType::AddressSrc, &Address::host("192.0.2.1".parse().unwrap()));
    ask.address(ExtType::AddressDst, &Address::host("192.0.2.2".parse().unwrap()));
    if let Some((src, dst)) = inner {
        ask.address(ExtType::AddressInnerSrc, &Address::host(src.parse().unwrap()));
        ask.address(ExtType::AddressInnerDst, &Address::host(dst.parse().unwrap()));
    }
    ask
}

#[test]
fn an_inverse_acquire_is_answered_from_the_eroutes() {
    let mut host = Host::trap();
    let (asking, extended) = (host.manager(false), host.manager(true));
    // REGISTER is told to those that are registered already.
    host.heard(asking);
    let answers = host.ask(asking, inverse(Some(("10.1.2.3", "10.2.3.4"))));
    let message = Message::parse_answer(&answers[0]).unwrap();
    assert_eq!((message.base.kind(), message.base.satype_number), (Some(MessageType::Acquire), 0));
    assert_eq!((message.base.seq, message.base.pid, message.base.errno), (77, PID, Errno(0)));
    assert_eq!(message.inner_dst.map(|a| (a.ip(), a.prefix)), Some(("10.2.0.0".parse().ok(), 16)));
    assert_eq!(message.dst.unwrap().ip(), "192.0.2.2".parse().ok());
    assert!(Ecomb::list(message.raw(ExtType::Eprop).unwrap()).count() > 1);
    assert_eq!(host.heard(extended), answers, "those with an extended REGISTER hear it, too");

    let refused = |host: &mut Host, request| {
        let answers = host.ask(asking, request);
        let base = Message::parse_answer(&answers[0]).unwrap().base;
        (base.number, base.errno, base.diagnostic)
    };
    let number = MessageType::InverseAcquire.number();
    let none = (number, Errno::ENOENT, Diagnostic::None.number());
    assert_eq!(refused(&mut host, inverse(Some(("10.9.2.3", "10.2.3.4")))), none);
    assert_eq!(refused(&mut host, inverse(None)), none);
    host.plane.change_eroutes(|eroutes| eroutes.replace(Eroute::new(selector(), Action::Pass)));
    assert_eq!(refused(&mut host, inverse(Some(("10.1.2.3", "10.2.3.4")))), none, "%pass needs no SA");
}

/// The need of the trap was met while this packet was on its way to its worker, or the key manager adds no eroute: whoever
/// comes later goes through the SA, and one need is one ACQUIRE.
#[test]
fn a_need_that_was_met_asks_no_more_while_its_sa_lives() {
    let mut host = Host::trap();
    let manager = host.manager(false);
    host.trapped(1, 1);
    let records = host.heard(manager);
    let seq = acquires(&records)[0].base.seq;
    host.add(manager, seq, 0x5001, true);
    assert_eq!(host.released().len(), 1);
    host.heard(manager);
    for mark in 2..20 {
        host.trapped(1, mark);
        assert_eq!(host.released().len(), 1, "{mark}");
    }
    assert!(acquires(&host.heard(manager)).is_empty());
    // Another host's need is another.
    host.trapped(2, 1);
    assert_eq!(acquires(&host.heard(manager)).len(), 1);
    // An SA that is gone meets nothing.
    host.plane.withdraw(&said(0x5001));
    host.trapped(1, 30);
    assert_eq!(acquires(&host.heard(manager)).len(), 1);
}
