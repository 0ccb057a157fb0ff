//! The codec: known octets, round trips, every truncation, every bit flip, every lie about a length.

use pfkey::{
    Address, Algorithm, Base, Comb, Counters, Descriptor, Diagnostic as D, Ecomb, Errno, ExtType, Fault,
    Flow, FlowAction, FlowDirection, FlowPolicy, Further, Identity, InnerPair, KmCookie, Level, Lifetime,
    Limits, Member, Message, MessageType, PacketLimits, Pair, ReplayValue, Sa, SaParams, SaPolicy, SaType,
    Sensitivity, SocketOptions, SpiRange, Tfc, Wanted, Writer,
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

fn base(kind: MessageType) -> Base {
    Base::request(kind, SaType::Esp, 7, 4242)
}

/// A message with one of every extension that a request may have.
fn everything() -> Vec<u8> {
    let life = Lifetime { allocations: 1, bytes: 2, addtime: 3, usetime: 4 };
    let host = |text: &str| Address::host(text.parse().unwrap());
    let mut w = Writer::new(&base(MessageType::Add));
    w.sa(&Sa { spi: 0x1234_5678, replay: 64, state: 1, auth: 5, encrypt: 12, flags: 0x2_8000 })
        .lifetime(ExtType::LifetimeCurrent, &life)
        .lifetime(ExtType::LifetimeHard, &life)
        .lifetime(ExtType::LifetimeSoft, &life)
        .lifetime(ExtType::LifetimeIdle, &life)
        .address(ExtType::AddressSrc, &host("192.0.2.1"))
        .address(ExtType::AddressDst, &host("2001:db8::2"))
        .address(ExtType::AddressInnerSrc, &Address::net("10.1.0.0".parse().unwrap(), 16))
        .address(ExtType::AddressInnerDst, &Address::net("fd00::".parse().unwrap(), 48))
        .address(ExtType::AddressNattLoc, &host("192.0.2.9"))
        .address(ExtType::AddressNattRem, &host("192.0.2.10"))
        .key(ExtType::KeyAuth, 256, 0, &[0xa5; 32])
        .key(ExtType::KeyEncrypt, 160, 0, &[0x5a; 20])
        .identity(ExtType::IdentitySrc, &Identity { kind: 2, id: 9, text: b"east.example" })
        .identity(ExtType::IdentityDst, &Identity { kind: 3, id: 0, text: b"" })
        .spi_range(&SpiRange { min: 0x100, max: 0xffff_ffff })
        .km_cookie(&KmCookie { proto: 3, cookie: 0x1122_3344_5566_7788 })
        .pair(&Pair { spi: 0x8765_4321 })
        .replay_value(&ReplayValue { low: 5, high: 6 })
        .edump(60)
        .ereg(&[2, 3])
        .supported(ExtType::SupportedAuth, &[])
        .proposal(64, &[Comb { auth: 5, encrypt: 12, ..Comb::default() }])
        .eprop(64, &[Ecomb::default()])
        .sensitivity(ExtType::Sensitivity, &LABEL)
        .sensitivity(ExtType::OuterSensitivity, &Sensitivity { bitmap: &[], integrity_bitmap: &[], ..LABEL })
        .group(&GROUP)
        .flow(&Flow { action: FlowAction::Trap, packets: 8, last_use: 9 })
        .sa_params(&SaParams { window: 4096, esn: true })
        .packet_limits(&PacketLimits { soft: 1 << 33, hard: 1 << 34 })
        .selectors(&[ALSO, ALSO_SIX])
        .tfc(&Tfc { pad: Tfc::MTU, dummies: 250 })
        .sa_policy(&SaPolicy { reqid: 77, by_policy: true })
        .flow_policy(&policy())
        .socket_options(&SocketOptions { loopback: false, quiet: false })
        .address(ExtType::NewSrc, &Address::host("192.0.2.9".parse().unwrap()))
        .address(ExtType::NewDst, &Address::host("192.0.2.8".parse().unwrap()))
        .counters(&Counters { packets: 1, forged: 2, replayed: 3, sequence: 4 });
    w.finish().unwrap()
}

const ALSO: InnerPair = InnerPair {
    proto: 6,
    src: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 3, 0, 0)), 0),
    src_prefix: 16,
    dst: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 4, 0, 0)), 0x1234),
    dst_prefix: 24,
};
const ALSO_SIX: InnerPair = InnerPair {
    proto: 0,
    src: SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 0)), 0),
    src_prefix: 64,
    dst: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    dst_prefix: 0,
};

/// The octets of pf_key(7), and each way in which a row is none.
#[test]
fn more_selectors_are_whole_rows_of_one_family_each() {
    let record = |rows: &[[u8; 40]], tail: &[u8]| {
        let mut w = Writer::new(&base(MessageType::Add));
        w.numbered(138, |octets| {
            octets.extend_from_slice(&[0; 4]);
            rows.iter().for_each(|row| octets.extend_from_slice(row));
            octets.extend_from_slice(tail);
        });
        w.finish().unwrap()
    };
    let mut row = [0; 40];
    row[..12].copy_from_slice(&[4, 6, 16, 24, 0, 0, 0x12, 0x34, 10, 3, 0, 0]);
    row[24..28].copy_from_slice(&[10, 4, 0, 0]);
    let good = record(&[row], &[]);
    assert_eq!(Message::parse(&good).unwrap().selectors.unwrap().pairs().collect::<Vec<_>>(), [ALSO]);
    let wrong = Fault::invalid(D::BadExtlen);
    for (at, octet) in [(0, 5), (0, 0), (2, 33), (3, 33), (12, 1), (39, 1)] {
        let mut bad = row;
        bad[at] = octet;
        assert_eq!(Message::parse(&record(&[row, bad], &[])).unwrap_err(), wrong, "{octet} at {at}");
    }
    assert_eq!(Message::parse(&record(&[], &[])).unwrap_err(), wrong, "none");
    assert_eq!(Message::parse(&record(&[row], &[0; 8])).unwrap_err(), wrong, "a part of one");
    let mixed = InnerPair { dst: ALSO_SIX.dst, ..ALSO };
    for pairs in [&[mixed][..], &[]] {
        let mut w = Writer::new(&base(MessageType::Add));
        assert!(w.selectors(pairs).clone().finish().is_err());
    }
}

const LABEL: Sensitivity<'_> = Sensitivity {
    domain: 7,
    level: 1,
    integrity_level: 2,
    flags: 3,
    bitmap: &[0xaa; 16],
    integrity_bitmap: &[0xbb; 8],
};
const GROUP: [Member; 2] = [Member { satype: 9, spi: 0x1000 }, Member { satype: 3, spi: 0xffff_ffff }];

fn policy() -> FlowPolicy {
    let ah = |src: &str, dst: &str| Further {
        wanted: Wanted { protocol: 51, mode: 1, level: Level::Require, reqid: 0x0102_0304 },
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
    };
    FlowPolicy {
        direction: FlowDirection::Forward,
        index: 9,
        priority: 1 << 30,
        wanted: Some(Wanted { protocol: 50, mode: 2, level: Level::Unique, reqid: 77 }),
        further: vec![ah("192.0.2.1", "192.0.2.2"), ah("2001:db8::1", "2001:db8::2")],
    }
}

#[test]
fn every_extension_comes_back_as_it_went() {
    let octets = everything();
    let m = Message::parse(&octets).unwrap();
    assert_eq!(m.sensitivity, Some(LABEL));
    assert_eq!(m.outer_sensitivity, Some(Sensitivity { bitmap: &[], integrity_bitmap: &[], ..LABEL }));
    assert_eq!(m.group.unwrap().members().collect::<Vec<_>>(), GROUP);
    assert_eq!(
        (m.base.kind(), m.base.satype(), m.base.seq, m.base.pid),
        (Some(MessageType::Add), Some(SaType::Esp), 7, 4242)
    );
    let sa = m.sa.unwrap();
    assert_eq!(
        (sa.spi, sa.replay, sa.state, sa.auth, sa.encrypt, sa.flags),
        (0x1234_5678, 64, 1, 5, 12, 0x2_8000)
    );
    for life in [m.current, m.hard, m.soft, m.idle] {
        assert_eq!(life, Some(Lifetime { allocations: 1, bytes: 2, addtime: 3, usetime: 4 }));
    }
    assert_eq!(m.src.unwrap().ip(), Some("192.0.2.1".parse().unwrap()));
    assert_eq!(m.dst.unwrap().ip(), Some("2001:db8::2".parse().unwrap()));
    assert_eq!((m.inner_src.unwrap().prefix, m.inner_dst.unwrap().prefix), (16, 48));
    assert_eq!(m.natt_loc.unwrap().v4(), Some("192.0.2.9".parse().unwrap()));
    assert_eq!(m.natt_rem.unwrap().v4(), Some("192.0.2.10".parse().unwrap()));
    assert_eq!((m.auth_key.unwrap().bits, m.auth_key.unwrap().octets), (256, &[0xa5; 32][..]));
    assert_eq!((m.encrypt_key.unwrap().bits, m.encrypt_key.unwrap().octets), (160, &[0x5a; 20][..]));
    assert_eq!(m.src_identity.unwrap(), Identity { kind: 2, id: 9, text: b"east.example" });
    assert_eq!(m.dst_identity.unwrap().text, b"");
    assert_eq!(m.spi_range.unwrap(), SpiRange { min: 0x100, max: 0xffff_ffff });
    assert_eq!(m.km_cookie.unwrap(), KmCookie { proto: 3, cookie: 0x1122_3344_5566_7788 });
    assert_eq!(m.pair.unwrap().spi, 0x8765_4321);
    assert_eq!(m.replay_value.unwrap(), ReplayValue { low: 5, high: 6 });
    assert_eq!(m.edump, Some(60));
    assert_eq!(m.ereg, Some(&[2, 3][..]));
    assert_eq!(m.flow.unwrap(), Flow { action: FlowAction::Trap, packets: 8, last_use: 9 });
    assert_eq!(m.sa_params.unwrap(), SaParams { window: 4096, esn: true });
    assert_eq!(m.packet_limits.unwrap(), PacketLimits { soft: 1 << 33, hard: 1 << 34 });
    assert_eq!(m.tfc.unwrap(), Tfc { pad: Tfc::MTU, dummies: 250 });
    assert_eq!(m.flow_policy, Some(policy()));
    assert_eq!(m.selectors.unwrap().pairs().collect::<Vec<_>>(), [ALSO, ALSO_SIX]);
    assert_eq!(m.sa_policy.unwrap(), SaPolicy { reqid: 77, by_policy: true });
    assert_eq!(m.socket.unwrap(), SocketOptions { loopback: false, quiet: false });
    assert_eq!(m.new_src.unwrap(), Address::host("192.0.2.9".parse().unwrap()));
    assert_eq!(m.new_dst.unwrap(), Address::host("192.0.2.8".parse().unwrap()));
    assert_eq!(m.counters.unwrap(), Counters { packets: 1, forged: 2, replayed: 3, sequence: 4 });
    let mut echo = Writer::new(&m.base);
    m.extensions().for_each(|extension| {
        echo.echo(&extension);
    });
    assert_eq!(echo.finish().unwrap(), octets);
    assert!(!format!("{m:?} {:?}", m.extensions()).contains("165, 165"), "keys are not for logs");
}

/// What a KLIPS tool sent (the base message and the SA extension are common to all dialects).
#[test]
fn octets_of_another_implementation_are_understood() {
    if cfg!(target_endian = "big") {
        return;
    }
    let flush = hex::decode("0209000002000000010000000f270000").unwrap();
    let m = Message::parse(&flush).unwrap();
    assert_eq!(
        (m.base.kind(), m.base.satype_number, m.base.seq, m.base.pid),
        (Some(MessageType::Flush), 0, 1, 9999)
    );
    assert!(m.is_bare());
    let add =
        hex::decode("020300030400000001000000 0f270000 02000100 1bbdd678 00010203 00000000".replace(' ', ""))
            .unwrap();
    let sa = Message::parse(&add).unwrap().sa.unwrap();
    assert_eq!((sa.spi, sa.replay, sa.state, sa.auth, sa.encrypt), (0x1bbd_d678, 0, 1, 2, 3));
}

#[test]
fn spis_ports_and_addresses_travel_in_network_order_and_nothing_else_does() {
    let mut w = Writer::new(&base(MessageType::GetSpi));
    w.address(
        ExtType::AddressSrc,
        &Address { proto: 17, prefix: 0, socket: Some(SocketAddr::new("1.2.3.4".parse().unwrap(), 0x1194)) },
    )
    .spi_range(&SpiRange { min: 0x0102_0304, max: 0x0506_0708 });
    let octets = w.finish().unwrap();
    assert_eq!(octets[8..12], 7_u32.to_ne_bytes());
    assert_eq!(octets[16 + 8..16 + 10], 2_u16.to_ne_bytes(), "the family is in host order");
    assert_eq!(octets[16 + 10..16 + 16], [0x11, 0x94, 1, 2, 3, 4]);
    assert_eq!(octets[40 + 4..40 + 12], [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn every_truncation_is_refused() {
    let octets = everything();
    for len in 0..octets.len() {
        assert_eq!(
            Message::parse(&octets[..len]).unwrap_err(),
            Fault::errno(Errno::EMSGSIZE),
            "{len} octets"
        );
    }
    // The same with the header telling the truth about what is left: cut inside an extension, or between two.
    for words in 2..octets.len() / 8 {
        let mut cut = octets[..words * 8].to_vec();
        cut[4..6].copy_from_slice(&(words as u16).to_ne_bytes());
        match Message::parse(&cut) {
            Ok(m) => assert!(m.extensions().map(|e| e.octets.len()).sum::<usize>() + 16 == cut.len()),
            Err(fault) => assert_eq!(fault, Fault::invalid(D::BadExtlen)),
        }
    }
}

#[test]
fn every_bit_flip_is_refused_or_changes_something() {
    let octets = everything();
    let before = format!("{:?}", Message::parse(&octets).unwrap());
    let raw = |m: &Message<'_>| m.extensions().map(|e| e.octets.to_vec()).collect::<Vec<_>>();
    let before_raw = raw(&Message::parse(&octets).unwrap());
    for bit in 0..octets.len() * 8 {
        let mut flipped = octets.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(m) = Message::parse(&flipped) {
            assert!(format!("{m:?}") != before || raw(&m) != before_raw, "bit {bit}");
        }
    }
}

/// Puts `body` behind an extension header of this type.
fn with(kind: u16, words: u16, body: &[u8]) -> Vec<u8> {
    let mut octets = base(MessageType::Add).octets().to_vec();
    octets.extend(words.to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend(body);
    octets.resize(octets.len().next_multiple_of(8), 0);
    let all = (octets.len() / 8) as u16;
    octets[4..6].copy_from_slice(&all.to_ne_bytes());
    octets
}

#[test]
fn the_first_fault_is_the_one_reported() {
    let fault = |octets: &[u8]| Message::parse(octets).unwrap_err();
    // Type before length, length before content.
    assert_eq!(fault(&with(0, 0, &[])), Fault::invalid(D::UnknownExt));
    assert_eq!(fault(&with(28, 1, &[])), Fault::invalid(D::UnknownExt));
    assert_eq!(fault(&with(127, 9, &[])), Fault::invalid(D::UnknownExt));
    assert_eq!(fault(&with(140, 1, &[])), Fault::invalid(D::UnknownExt));
    assert_eq!(fault(&with(1, 0, &[])), Fault::invalid(D::BadExtlen));
    assert_eq!(fault(&with(1, 3, &[0; 12])), Fault::invalid(D::BadExtlen));
    assert_eq!(fault(&with(1, u16::MAX, &[0; 12])), Fault::invalid(D::BadExtlen));
    assert_eq!(fault(&with(1, 1, &[])), Fault::invalid(D::MalformedSa));
    assert_eq!(fault(&with(3, 3, &[0; 20])), Fault::invalid(D::None));
    let addresses = [
        (5, D::MalformedSrc),
        (6, D::MalformedDst),
        (7, D::MalformedInnerSrc),
        (22, D::MalformedInnerDst),
        (20, D::MalformedNattLoc),
        (21, D::MalformedNattRem),
    ];
    for (kind, diagnostic) in addresses {
        assert_eq!(fault(&with(kind, 1, &[])), Fault::invalid(diagnostic));
        // AF_INET cut short, AF_INET6 cut short.
        for family in [2_u16, 10] {
            let mut body = vec![0; 4];
            body.extend(family.to_ne_bytes());
            body.extend([0; 6]);
            assert_eq!(fault(&with(kind, 2, &body)), Fault::invalid(diagnostic), "family {family}");
        }
        // An unknown family is for the next stage to refuse, with its own diagnostic.
        assert!(Message::parse(&with(kind, 2, &[0, 0, 0, 0, 99, 0, 0, 0])).is_ok());
    }
    let key = |bits: u16, octets: &[u8]| {
        let mut body = bits.to_ne_bytes().to_vec();
        body.extend([0; 2]);
        body.extend(octets);
        body
    };
    for (kind, diagnostic) in [(8, D::MalformedAkey), (9, D::MalformedEkey)] {
        assert_eq!(fault(&with(kind, 1, &key(0, &[]))), Fault::invalid(diagnostic), "no bits");
        assert_eq!(
            fault(&with(kind, 3, &key(64, &[1; 16]))),
            Fault::invalid(diagnostic),
            "longer than its bits"
        );
        assert_eq!(
            fault(&with(kind, 2, &key(128, &[1; 8]))),
            Fault::invalid(diagnostic),
            "shorter than its bits"
        );
        assert_eq!(fault(&with(kind, 3, &key(128, &[0; 16]))), Fault::invalid(diagnostic), "all zero");
        assert!(Message::parse(&with(kind, 3, &key(128, &[1; 16]))).is_ok());
    }
    let mut range = 5_u32.to_be_bytes().to_vec();
    range.extend(4_u32.to_be_bytes());
    range.extend([0; 4]);
    assert_eq!(fault(&with(16, 2, &range)), Fault::invalid(D::MalformedRange));
    for kind in [17, 19, 23, 24, 25, 128, 129, 131, 132] {
        let words = if kind == 17 { 0 } else { 7 };
        assert_eq!(fault(&with(kind, words, &[0; 52])), Fault::invalid(D::BadExtlen), "type {kind}");
    }
}

#[test]
fn duplicates_are_named_where_the_page_has_a_name() {
    let named = [
        (5, D::DuplicateSrc),
        (6, D::DuplicateDst),
        (1, D::DuplicateSa),
        (9, D::DuplicateEkey),
        (8, D::DuplicateAkey),
        (16, D::DuplicateRange),
        (7, D::DuplicateInnerSrc),
        (22, D::DuplicateInnerDst),
        (20, D::None),
        (21, D::None),
        (3, D::None),
        (10, D::None),
        (19, D::None),
        (23, D::None),
    ];
    let octets = everything();
    let whole = Message::parse(&octets).unwrap();
    for (kind, diagnostic) in named {
        let extension = whole.extensions().find(|e| e.kind.number() == kind).unwrap();
        let mut w = Writer::new(&base(MessageType::Add));
        w.echo(&extension).echo(&extension);
        assert_eq!(
            Message::parse(&w.finish().unwrap()).unwrap_err(),
            Fault::invalid(diagnostic),
            "type {kind}"
        );
    }
}

#[test]
fn numbers_and_names_agree() {
    for kind in MessageType::ALL {
        assert_eq!(MessageType::from_number(kind.number()), Some(*kind));
        assert!(pfkey::rules::rule(*kind).is_some(), "{kind:?} has no rule");
    }
    for kind in ExtType::ALL {
        assert_eq!(ExtType::from_number(kind.number()), Some(*kind));
    }
    for diagnostic in D::ALL {
        assert_eq!(D::from_number(diagnostic.number()), Some(*diagnostic));
    }
    // Those of pf_key(7P) and later, without a gap, and then ours.
    let page = D::ALL.iter().take_while(|diagnostic| diagnostic.number() < 128);
    assert!(page.clone().map(|diagnostic| diagnostic.number()).eq(0..87));
    assert!(D::ALL.iter().skip(87).all(|diagnostic| diagnostic.number() >= 128));
    let refusal = Base { number: 77, ..base(MessageType::Add) }.refusal(Fault::invalid(D::UnknownMsg));
    assert_eq!(
        (refusal[1], refusal[2], refusal[4]),
        (0, 22, 2),
        "a type that does not exist is not repeated"
    );
}

#[test]
fn proposals_have_the_sizes_of_the_page_and_come_back() {
    let mut w = Writer::new(&base(MessageType::Acquire));
    let descriptor =
        Descriptor { satype: 3, kind: pfkey::AlgorithmKind::Crypt, id: 20, salt_bits: 32, bits: (128, 256) };
    let auth = Descriptor { kind: pfkey::AlgorithmKind::Auth, id: 5, ..descriptor };
    let limits = Limits { allocations: (1, 2), bytes: (3, 4), addtime: (5, 6), usetime: (7, u64::MAX) };
    let comb =
        Comb { auth: 5, encrypt: 12, auth_bits: (160, 256), encrypt_bits: (128, 192), salt_bits: 32, limits };
    let combs = [comb, Comb { auth: 7, ..Comb::default() }];
    let ecombs = [
        Ecomb { algorithms: vec![descriptor, auth, descriptor], limits },
        Ecomb::default(),
        Ecomb { algorithms: vec![auth], ..Ecomb::default() },
    ];
    w.proposal(64, &combs).eprop(64, &ecombs).supported(
        ExtType::SupportedEncrypt,
        &[Algorithm { id: 12, iv: 16, min_bits: 128, max_bits: 256, increment: 64, salt_bits: 0 }],
    );
    let octets = w.finish().unwrap();
    let m = Message::parse(&octets).unwrap();
    let len = |kind| m.raw(kind).unwrap().len();
    assert_eq!(
        (len(ExtType::Proposal), len(ExtType::Eprop), len(ExtType::SupportedEncrypt)),
        (8 + 2 * 72, 8 + 3 * 64 + 4 * 8, 16)
    );
    let listed: Vec<_> = Algorithm::list(m.raw(ExtType::SupportedEncrypt).unwrap()).collect();
    assert_eq!((listed[0].id, listed[0].max_bits, listed[0].increment), (12, 256, 64));
    assert_eq!(Comb::list(m.raw(ExtType::Proposal).unwrap()).collect::<Vec<_>>(), combs);
    assert_eq!(Ecomb::list(m.raw(ExtType::Eprop).unwrap()).collect::<Vec<_>>(), ecombs);
}

#[test]
fn lengths_inside_an_extension_that_lie_are_refused_or_end_it() {
    let mut w = Writer::new(&base(MessageType::Acquire));
    w.sensitivity(ExtType::Sensitivity, &LABEL).eprop(64, &[Ecomb::default(), Ecomb::default()]);
    let octets = w.finish().unwrap();
    for (at, words) in [(16 + 9, 3), (16 + 9, 1), (16 + 11, 2), (16 + 11, 255)] {
        let mut lie = octets.clone();
        lie[at] = words;
        let lie = Message::parse(&lie).unwrap();
        assert!(lie.has(ExtType::Sensitivity) && lie.sensitivity.is_none());
    }
    let eprop = Message::parse(&octets).unwrap().raw(ExtType::Eprop).unwrap();
    for algorithms in 1..=255 {
        let mut lie = eprop.to_vec();
        lie[8] = algorithms;
        let read: Vec<_> = Ecomb::list(&lie).collect();
        // Eight rows of what follows are the second combination's octets; more rows than there are octets are none.
        assert!(read.iter().all(|ecomb| ecomb.algorithms.len() <= 8), "{algorithms}");
        assert!(read.len() <= 2);
    }
}

#[test]
fn a_group_of_nobody_cannot_be_built() {
    let mut w = Writer::new(&base(MessageType::GroupSa));
    w.group(&[]);
    assert_eq!(w.finish().unwrap_err(), pfkey::TooLong);
}

proptest! {
    #[test]
    fn hostile_records_never_panic(mut octets in prop::collection::vec(any::<u8>(), 0..400), honest: bool) {
        if honest && octets.len() >= 16 {
            octets.truncate(octets.len() / 8 * 8);
            let words = (octets.len() / 8) as u16;
            octets[4..6].copy_from_slice(&words.to_ne_bytes());
        }
        if let Ok(m) = Message::parse(&octets) {
            prop_assert!(m.extensions().count() <= octets.len() / 8);
        }
        let _ = Message::parse_answer(&octets);
    }

    #[test]
    fn hostile_extensions_never_panic(kind in 0..140_u16, words in 0..9_u16, body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Message::parse(&with(kind, words, &body));
    }

    #[test]
    fn addresses_survive_the_round_trip(ip: IpAddr, port: u16, proto: u8, prefix: u8) {
        let address = Address { proto, prefix, socket: Some(SocketAddr::new(ip, port)) };
        let mut w = Writer::new(&base(MessageType::Get));
        w.address(ExtType::AddressDst, &address);
        let octets = w.finish().unwrap();
        prop_assert_eq!(Message::parse(&octets).unwrap().dst, Some(address));
    }

    #[test]
    fn keys_survive_the_round_trip(key in prop::collection::vec(1..=255_u8, 1..100), salt in 0..8_u16) {
        let mut w = Writer::new(&base(MessageType::Add));
        w.key(ExtType::KeyAuth, (key.len() * 8) as u16, 0, &key);
        let octets = w.finish().unwrap();
        prop_assert_eq!(Message::parse(&octets).unwrap().auth_key.unwrap().octets, &key[..]);
        // In an answer the salt stands behind the key and is counted beside it.
        if usize::from(salt) < key.len() {
            let mut w = Writer::new(&base(MessageType::Get));
            w.key(ExtType::KeyEncrypt, (key.len() as u16 - salt) * 8, salt * 8, &key);
            let octets = w.finish().unwrap();
            prop_assert_eq!(Message::parse_answer(&octets).unwrap().encrypt_key.unwrap().octets, &key[..]);
        }
    }
}
