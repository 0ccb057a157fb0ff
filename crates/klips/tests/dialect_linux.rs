//! The questions that a probe of Linux's af_key asks, in its dialect, with the real service below: which errno, who hears, and
//! what is told of an SA afterwards.
//!
//! Three sockets, as there: one asks, one only listens, one has registered for AH, ESP and IPComp. Answers are those of RFC 2367,
//! of setkey(8) and of what programs that speak this dialect rely on; where the service is stricter than Linux, the row says so.

mod linux_world;
mod pfkey_support;

use linux_world::*;
use pfkey_support::*;
use std::net::SocketAddr;

const ENOSYS: u8 = 38;
const SPDUPDATE: u8 = 13;
const SPDDELETE: u8 = 15;
const SPDGET: u8 = 16;
const SPDACQUIRE: u8 = 17;
const SPDFLUSH: u8 = 19;
const SPDSETIDX: u8 = 20;
const SPDEXPIRE: u8 = 21;
const SPDDELETE2: u8 = 22;
const NEW_MAPPING: u8 = 23;
const MIGRATE: u8 = 24;
const PROXY: u16 = INNER_SRC;
const NAT_T_TYPE: u16 = 20;
const NAT_T_SPORT: u16 = 21;
const NAT_T_DPORT: u16 = 22;
const NAT_T_OA: u16 = 23;
const HMAC_SHA1: u8 = 3;

fn tunnel(level: u8) -> Vec<u8> {
    request(50, 2, level, 0, Some((LOCAL, PEER)))
}

fn named(kind: u8, satype: u8, spi: u32) -> Msg {
    msg(kind, satype).sa(spi).ends(LOCAL, PEER)
}

fn esp(kind: u8, spi: u32, encrypt: u8, auth: u8) -> Msg {
    msg(kind, ESP).sa_full(spi, 32, MATURE, auth, encrypt, 0).ends(LOCAL, PEER)
}

/// AES-CBC with HMAC-SHA-256.
fn cbc(spi: u32) -> Msg {
    esp(ADD, spi, AES_CBC, SHA256).key(AKEY, 32).key(EKEY, 16)
}

fn update(spi: u32) -> Msg {
    esp(UPDATE, spi, AES_CBC, SHA256).key(AKEY, 32).key(EKEY, 16)
}

fn ah(spi: u32) -> Msg {
    msg(ADD, AH).sa_full(spi, 32, MATURE, SHA256, 0, 0).ends(LOCAL, PEER).key(AKEY, 32)
}

fn getspi(satype: u8, min: u32, max: u32) -> Msg {
    msg(GETSPI, satype).ends(LOCAL, PEER).spis(min, max)
}

fn out(level: u8) -> Msg {
    msg(SPDADD, 0).selector(255, 16).policy(2, OUT, 0, &tunnel(level))
}

/// A name, what is sent one after the other, and the errno of the last answer.
type Case = (&'static str, Vec<Msg>, u8);

#[track_caller]
fn run(cases: Vec<Case>) {
    for (name, steps, errno) in cases {
        let mut world = World::new();
        let last = steps.len() - 1;
        for (n, step) in steps.into_iter().enumerate() {
            let (kind, seq) = (step.octets[1], step.octets[8..12].to_vec());
            let heard = world.ask(ASKS, step);
            assert_eq!(heard.len(), 1, "{name}: {heard:?}");
            assert_eq!(heard[0].kind, kind, "{name}: {heard:?}");
            assert_eq!(heard[0].octets[8..12], seq[..], "{name}: its own number");
            let want = if n == last { errno } else { 0 };
            assert_eq!(heard[0].errno, want, "{name}, step {n}: {:?}", heard[0]);
            // A refusal is its asker's alone, and its header alone.
            if want != 0 {
                assert_eq!(heard[0].octets.len(), 16, "{name}");
                assert!(world.hear(LISTENS).is_empty() && world.hear(REGISTERED).is_empty(), "{name}");
            } else {
                world.hear(LISTENS);
                world.hear(REGISTERED);
            }
        }
    }
}

#[test]
fn headers_and_extensions_that_are_none_are_refused() {
    let get = || named(GET, ESP, 0x1001);
    let short = |kind: u16| msg(GET, ESP).ext(kind, &[0; 4]).ends(LOCAL, PEER);
    let mut version = msg(REGISTER, ESP);
    version.octets[0] = 1;
    run(vec![
        ("version 1", vec![version], EINVAL),
        ("a length that is less", vec![msg(REGISTER, ESP).ext(SA, &[0; 12]).words(2)], EMSGSIZE),
        ("a length that is more", vec![msg(REGISTER, ESP).words(3)], EMSGSIZE),
        ("message 0", vec![msg(0, ESP)], EINVAL),
        ("message 25", vec![msg(25, ESP)], EINVAL),
        ("message 255", vec![msg(255, ESP)], EINVAL),
        ("an errno in a request", vec![msg(REGISTER, ESP).errno(7)], 0),
        ("REGISTER of SA type 255", vec![msg(REGISTER, 255)], EINVAL),
        ("REGISTER of SA type 1", vec![msg(REGISTER, 1)], EINVAL),
        ("an extension of no length", vec![get().ext_words(SA2, 0, &[0; 4])], EINVAL),
        ("one longer than its message", vec![msg(GET, ESP).ext_words(SA, 9, &[0; 4])], EINVAL),
        ("one twice", vec![get().sa(2)], EINVAL),
        ("one of an unknown type", vec![get().ext(27, &[0; 4])], EINVAL),
        ("one of type 0", vec![get().ext(0, &[0; 4])], EINVAL),
        ("an SA that is too short", vec![short(SA)], EINVAL),
        (
            "a type of NAT-T that is too long",
            vec![cbc(0x1001).ext(NAT_T_TYPE, &[2, 0, 0, 0, 0, 0, 0, 0])],
            EINVAL,
        ),
        ("an SA that is too long", vec![msg(GET, ESP).ext(SA, &[0; 20]).ends(LOCAL, PEER)], EINVAL),
        ("no family", vec![msg(GETSPI, ESP).odd_addr(SRC).dst(PEER).spis(256, 512)], EINVAL),
        ("two families", vec![msg(GETSPI, ESP).ends(LOCAL, PEER6).spis(256, 512)], EINVAL),
        (
            "an address that is cut",
            vec![
                msg(GETSPI, ESP).ext(SRC, &[0, 32, 0, 0, 2, 0, 0, 0, 192, 0, 2, 1]).dst(PEER).spis(256, 512),
            ],
            EINVAL,
        ),
    ]);
    // What is no header has no number to be answered with.
    let mut world = World::new();
    let heard = world.ask_octets(ASKS, &msg(REGISTER, ESP).done()[..15]);
    assert_eq!((heard.len(), heard[0].errno), (1, EMSGSIZE));
}

#[test]
fn a_socket_registers_for_what_there_is() {
    run(vec![
        ("AH, ESP, IPComp", [AH, ESP, IPCOMP].map(|satype| msg(REGISTER, satype)).to_vec(), 0),
        ("ESP twice", vec![msg(REGISTER, ESP), msg(REGISTER, ESP)], EEXIST),
        ("all types", vec![msg(REGISTER, 0)], EINVAL),
        ("RSVP", vec![msg(REGISTER, 5)], EINVAL),
    ]);
}

#[test]
fn spis_are_reserved_from_a_range_in_host_order() {
    let mut world = World::new();
    let spi = world.must(getspi(ESP, 0x1000, 0x10ff)).spi().unwrap();
    assert!((0x1000..=0x10ff).contains(&spi), "{spi:x}");
    assert!(world.hear(LISTENS).is_empty(), "a reservation is nobody else's business");
    let one = || getspi(ESP, 0x1234, 0x1234);
    run(vec![
        ("IPv6", vec![msg(GETSPI, ESP).ends(LOCAL6, PEER6).spis(0x1000, 0x10ff)], 0),
        ("AH", vec![getspi(AH, 0x1000, 0x10ff)], 0),
        ("with mode and number", vec![getspi(ESP, 0x1000, 0x10ff).sa2(2, 77)], 0),
        ("the only one, twice", vec![one(), one()], ENOENT),
        ("no range", vec![msg(GETSPI, ESP).ends(LOCAL, PEER)], EINVAL),
        ("a range upside down", vec![getspi(ESP, 0x200, 0x100)], EINVAL),
        ("no source", vec![msg(GETSPI, ESP).dst(PEER).spis(256, 512)], EINVAL),
        ("no SA type", vec![getspi(0, 256, 512)], EINVAL),
        ("RSVP", vec![getspi(5, 256, 512)], EINVAL),
        ("BEET", vec![getspi(ESP, 256, 512).sa2(3, 0)], EOPNOTSUPP),
    ]);
}

#[test]
fn sas_are_added_or_refused() {
    let flags = |flags| msg(ADD, ESP).sa_full(0x1001, 32, MATURE, SHA256, AES_CBC, flags).ends(LOCAL, PEER);
    let flagged = |value| flags(value).key(AKEY, 32).key(EKEY, 16);
    let state = |state| {
        let sa = msg(ADD, ESP).sa_full(0x1001, 32, state, SHA256, AES_CBC, 0).ends(LOCAL, PEER);
        sa.key(AKEY, 32).key(EKEY, 16)
    };
    let natt = |kind: u8, port: u16| {
        let ports = [port.to_be_bytes(), [0; 2]].concat();
        let sa = cbc(0x1001).ext(NAT_T_TYPE, &[kind, 0, 0, 0]);
        sa.ext(NAT_T_SPORT, &ports).ext(NAT_T_DPORT, &ports)
    };
    let life = |kind, addtime| cbc(0x1001).lifetime(kind, 0, 0, addtime, 0);
    run(vec![
        ("AES-GCM", vec![esp(ADD, 0x1001, GCM16, 0).key(EKEY, 20)], 0),
        ("AES-CBC", vec![cbc(0x1001)], 0),
        ("tunnel", vec![cbc(0x1001).sa2(2, 16385)], 0),
        ("transport", vec![cbc(0x1001).sa2(1, 3)], 0),
        ("any mode", vec![cbc(0x1001).sa2(0, 3)], 0),
        // Linux has that mode.
        ("BEET", vec![cbc(0x1001).sa2(3, 0)], EOPNOTSUPP),
        ("mode 9", vec![cbc(0x1001).sa2(9, 0)], EINVAL),
        ("lifetimes", vec![life(HARD, 3600).lifetime(SOFT, 0, 0, 3000, 0)], 0),
        ("soft above hard", vec![life(HARD, 100).lifetime(SOFT, 0, 0, 200, 0)], EINVAL),
        ("identities", vec![cbc(0x1001).ident(ID_SRC, 2, "a.example").ident(ID_DST, 3, "u@b.example")], 0),
        ("a proxy", vec![cbc(0x1001).sa2(2, 0).addr_full(PROXY, "10.1.0.0", 0, 0, 16)], 0),
        ("in UDP", vec![natt(2, 4500)], 0),
        ("in UDP, original address", vec![natt(2, 4500).addr(NAT_T_OA, "10.9.9.9")], 0),
        // As it was before RFC 3948: Linux has that, too.
        ("in UDP of type 1", vec![natt(1, 4500)], EOPNOTSUPP),
        ("in UDP of type 9", vec![natt(9, 4500)], EOPNOTSUPP),
        ("AH", vec![ah(0x2001)], 0),
        (
            "AH with a cipher",
            vec![msg(ADD, AH).sa_full(1, 0, MATURE, SHA256, AES_CBC, 0).ends(LOCAL, PEER).key(AKEY, 32)],
            EINVAL,
        ),
        ("AH with nothing", vec![msg(ADD, AH).sa_full(0x2001, 0, MATURE, 0, 0, 0).ends(LOCAL, PEER)], EINVAL),
        (
            "DEFLATE",
            vec![msg(ADD, IPCOMP).sa_full(0x3001, 0, MATURE, 0, 2, 0).ends(LOCAL, PEER).sa2(2, 0)],
            0,
        ),
        ("twice", vec![cbc(0x1001), cbc(0x1001)], EEXIST),
        ("the same SPI for AH", vec![cbc(0x2001), ah(0x2001)], 0),
        ("larval", vec![state(LARVAL)], EINVAL),
        ("dying", vec![state(DYING)], EINVAL),
        ("dead", vec![state(DEAD)], EINVAL),
        ("NOECN, NOPMTUDISC, DECAP_DSCP", vec![flagged(0xe000_0000)], 0),
        ("PFS", vec![flagged(1)], 0),
        ("an unknown flag", vec![flagged(0x100)], EINVAL),
        (
            "no destination",
            vec![
                msg(ADD, ESP)
                    .sa_full(1, 0, MATURE, SHA256, AES_CBC, 0)
                    .src(LOCAL)
                    .key(AKEY, 32)
                    .key(EKEY, 16),
            ],
            EINVAL,
        ),
        ("no SA", vec![msg(ADD, ESP).ends(LOCAL, PEER).key(AKEY, 32)], EINVAL),
        (
            "no SA type",
            vec![
                msg(ADD, 0)
                    .sa_full(1, 0, MATURE, SHA256, AES_CBC, 0)
                    .ends(LOCAL, PEER)
                    .key(AKEY, 32)
                    .key(EKEY, 16),
            ],
            EINVAL,
        ),
        (
            "RSVP",
            vec![
                msg(ADD, 5)
                    .sa_full(1, 0, MATURE, SHA256, AES_CBC, 0)
                    .ends(LOCAL, PEER)
                    .key(AKEY, 32)
                    .key(EKEY, 16),
            ],
            EINVAL,
        ),
    ]);
}

/// Every number of `linux/pfkeyv2.h`: the key lengths that Linux takes, and what it has and we have not.
#[test]
fn algorithms_have_the_numbers_and_keys_of_linux() {
    let cipher = |number, octets| {
        // AEADs have their own integrity, and their salt in the key.
        let aead = (14..=20).contains(&number) || number == 23;
        let sa = esp(ADD, 0x1001, number, if aead { 0 } else { HMAC_SHA1 });
        let sa = if aead { sa } else { sa.key(AKEY, 20) };
        if octets == 0 { sa } else { sa.key(EKEY, octets) }
    };
    let mut cases: Vec<Case> = Vec::new();
    for (number, octets, errno) in [
        (2, 8, ENOSYS),
        (3, 24, 0),
        (6, 16, ENOSYS),
        (7, 16, ENOSYS),
        (11, 0, 0),
        (12, 16, 0),
        (12, 24, 0),
        (12, 32, 0),
        (12, 15, EINVAL),
        (13, 20, ENOSYS),
        (14, 19, 0),
        (15, 19, 0),
        (16, 19, 0),
        (18, 20, 0),
        (19, 20, 0),
        (20, 20, 0),
        (20, 28, 0),
        (20, 36, 0),
        (20, 16, EINVAL),
        (22, 16, ENOSYS),
        (23, 20, 0),
        (200, 16, ENOSYS),
        (252, 16, ENOSYS),
        (253, 16, ENOSYS),
    ] {
        cases.push(("a cipher", vec![cipher(number, octets)], errno));
    }
    for (number, octets, errno) in [
        (2, 16, 0),
        (3, 20, 0),
        (5, 32, 0),
        (5, 31, EINVAL),
        (6, 48, 0),
        (7, 64, 0),
        (8, 20, ENOSYS),
        (9, 16, 0),
        (200, 16, ENOSYS),
        (250, 16, ENOSYS),
    ] {
        let sa = esp(ADD, 0x1001, NULL, number).key(AKEY, octets);
        cases.push(("integrity", vec![sa], errno));
        let sa = msg(ADD, AH).sa_full(0x1001, 0, MATURE, number, 0, 0).ends(LOCAL, PEER).key(AKEY, octets);
        cases.push(("AH", vec![sa], errno));
    }
    cases.push(("neither", vec![esp(ADD, 0x1001, NULL, 251)], EINVAL));
    cases.push(("both", vec![esp(ADD, 0x1001, GCM16, SHA256).key(AKEY, 32).key(EKEY, 20)], EINVAL));
    cases.push(("none at all", vec![esp(ADD, 0x1001, 0, 0)], EINVAL));
    run(cases);
}

#[test]
fn an_algorithm_is_shown_by_the_number_it_came_with() {
    for (encrypt, auth, octets) in
        [(12, 7, 16), (16, 0, 19), (14, 0, 19), (18, 0, 20), (20, 0, 20), (23, 0, 20)]
    {
        let mut world = World::new();
        let sa = esp(ADD, 0x1001, encrypt, auth).key(EKEY, octets);
        world.must(if auth == 0 { sa } else { sa.key(AKEY, 64) });
        let shown = world.must(named(GET, ESP, 0x1001));
        let body = shown.find(SA).unwrap();
        assert_eq!((body[6], body[7]), (auth, encrypt));
        let key = shown.find(EKEY).unwrap();
        assert_eq!(u16::from_ne_bytes([key[0], key[1]]), octets as u16 * 8, "with its salt");
    }
}

#[test]
fn sas_are_updated_shown_and_deleted() {
    let spi = || getspi(ESP, 0x1001, 0x1001);
    run(vec![
        (
            "reserve, update, get, delete",
            vec![spi(), update(0x1001), named(GET, ESP, 0x1001), named(DELETE, ESP, 0x1001)],
            0,
        ),
        ("UPDATE of nothing", vec![update(0x1001)], ESRCH),
        ("UPDATE of a mature one", vec![cbc(0x1001), update(0x1001).lifetime(HARD, 0, 0, 555, 0)], 0),
        ("GET of nothing", vec![named(GET, ESP, 0x1001)], ESRCH),
        ("GET without source", vec![cbc(0x1001), msg(GET, ESP).sa(0x1001).dst(PEER)], EINVAL),
        ("GET of another source", vec![cbc(0x1001), msg(GET, ESP).sa(0x1001).ends("192.0.2.9", PEER)], ESRCH),
        ("GET of another type", vec![cbc(0x1001), named(GET, AH, 0x1001)], ESRCH),
        ("GET of a larval one", vec![spi(), named(GET, ESP, 0x1001)], 0),
        ("DELETE of nothing", vec![named(DELETE, ESP, 0x1001)], ESRCH),
        ("DELETE without SA", vec![cbc(0x1001), msg(DELETE, ESP).ends(LOCAL, PEER)], EINVAL),
        ("DELETE without source", vec![cbc(0x1001), msg(DELETE, ESP).sa(0x1001).dst(PEER)], EINVAL),
        ("DELETE without SA type", vec![cbc(0x1001), named(DELETE, 0, 0x1001)], EINVAL),
        ("delete what is reserved, add it", vec![spi(), named(DELETE, ESP, 0x1001), cbc(0x1001)], 0),
    ]);
    // The keys of a mature SA stay what they are, though UPDATE brings some, as it must here.
    let mut world = World::new();
    let key = world.must(cbc(0x1001)).find(EKEY);
    assert_eq!(key, None, "no echo has keys");
    let other = esp(UPDATE, 0x1001, AES_CBC, SHA256).key_full(AKEY, 256, 0, &[9; 32]);
    world.must(other.key_full(EKEY, 128, 0, &[9; 16]));
    let shown = world.must(named(GET, ESP, 0x1001));
    assert_eq!(shown.find(EKEY).unwrap()[4..20], (1..=16).collect::<Vec<u8>>());
    for n in [LISTENS, REGISTERED] {
        let heard = world.hear(n);
        assert_eq!(heard.iter().map(|one| one.kind).collect::<Vec<_>>(), [ADD, UPDATE], "not the GET");
        assert!(heard.iter().all(|one| one.find(EKEY).is_none() && one.find(AKEY).is_none()));
    }
}

#[test]
fn dumps_and_flushes_are_of_one_type_or_all() {
    let three = |world: &mut World| {
        world.must(cbc(0x1001));
        world.must(ah(0x2001));
        world.must(cbc(0x1003));
    };
    for (satype, count) in [(0, 3), (ESP, 2), (AH, 1)] {
        let mut world = World::new();
        three(&mut world);
        let heard = world.ask(ASKS, msg(DUMP, satype).seq(9));
        assert_eq!(heard.len(), count);
        assert!(heard.iter().all(|one| one.kind == DUMP && one.errno == 0 && one.pid == 4242));
        let ends: Vec<bool> = heard.iter().map(|one| one.seq == 0).collect();
        assert_eq!(ends.iter().filter(|end| **end).count(), 1, "one is marked");
        assert_eq!(ends.last(), Some(&true), "the last");
        world.must(msg(FLUSH, satype));
        let left = world.ask(ASKS, msg(DUMP, 0));
        assert_eq!(left.iter().filter(|one| one.errno == 0).count(), 3 - count);
    }
    run(vec![
        ("DUMP of nothing", vec![msg(DUMP, 0)], ENOENT),
        ("DUMP of IPComp", vec![cbc(0x1001), msg(DUMP, IPCOMP)], ENOENT),
        ("DUMP of type 1", vec![msg(DUMP, 1)], EINVAL),
        ("FLUSH of nothing", vec![msg(FLUSH, ESP)], 0),
        ("DUMP with a filter", vec![cbc(0x1001), msg(DUMP, 0).ext(26, &[0; 36])], EOPNOTSUPP),
        ("FLUSH of type 1", vec![msg(FLUSH, 1)], EINVAL),
        ("EXPIRE", vec![named(EXPIRE, ESP, 1)], EOPNOTSUPP),
        ("PCHANGE", vec![msg(12, ESP)], EOPNOTSUPP),
        ("NEW_MAPPING", vec![msg(NEW_MAPPING, ESP)], EOPNOTSUPP),
        ("MIGRATE", vec![msg(MIGRATE, ESP).selector(255, 16).policy(2, OUT, 0, &[])], EOPNOTSUPP),
        ("SPDACQUIRE", vec![msg(SPDACQUIRE, 0)], EOPNOTSUPP),
        ("SPDEXPIRE", vec![msg(SPDEXPIRE, 0)], EOPNOTSUPP),
    ]);
}

#[test]
fn policies_are_added_or_refused() {
    let add = |kind, direction, requests: &[u8]| {
        msg(SPDADD, 0).selector(255, 16).policy(kind, direction, 0, requests)
    };
    let one = |request: &[u8]| add(2, OUT, request);
    let hosts = msg(SPDADD, 0).addr_full(SRC, LOCAL, 0, 6, 32).addr_full(DST, PEER, 80, 6, 32);
    run(vec![
        ("out", vec![out(2)], 0),
        ("in", vec![add(2, IN, &tunnel(2))], 0),
        ("fwd", vec![add(2, FWD, &tunnel(2))], 0),
        ("direction any", vec![add(2, 0, &tunnel(2))], EINVAL),
        ("direction 4", vec![add(2, 4, &tunnel(2))], EINVAL),
        ("discard", vec![add(0, OUT, &[])], 0),
        ("none", vec![add(1, OUT, &[])], 0),
        ("entrust", vec![add(3, OUT, &[])], EINVAL),
        ("bypass", vec![add(4, OUT, &[])], EINVAL),
        ("type 5", vec![add(5, OUT, &[])], EINVAL),
        ("ipsec and nothing", vec![add(2, OUT, &[])], EINVAL),
        ("twice", vec![out(2), out(2)], EEXIST),
        ("in another direction", vec![out(2), add(2, IN, &tunnel(2))], 0),
        (
            "SPDUPDATE of one",
            vec![out(2), msg(SPDUPDATE, 0).selector(255, 16).policy(2, OUT, 0, &tunnel(1))],
            0,
        ),
        ("SPDUPDATE of none", vec![msg(SPDUPDATE, 0).selector(255, 16).policy(2, OUT, 0, &tunnel(2))], 0),
        ("priority", vec![msg(SPDADD, 0).selector(255, 16).policy(2, OUT, 1000, &tunnel(2))], 0),
        // Linux ends the policy then.
        ("a lifetime", vec![out(2).lifetime(HARD, 0, 0, 600, 0)], EOPNOTSUPP),
        ("a lifetime of nothing", vec![out(2).lifetime(HARD, 0, 0, 0, 0)], 0),
        ("use", vec![out(1)], 0),
        ("default", vec![out(0)], 0),
        ("unique without a number", vec![out(3)], 0),
        ("level 4", vec![out(4)], EINVAL),
        ("hosts, transport, a port", vec![hosts.policy(2, OUT, 0, &request(50, 1, 3, 5, None))], 0),
        // Linux takes both of these; one SA is for one network or two hosts here.
        ("networks, transport", vec![one(&request(50, 1, 2, 0, None))], EOPNOTSUPP),
        ("two requests", vec![one(&[tunnel(2), request(51, 1, 2, 0, None)].concat())], 0),
        (
            "one that is torn",
            vec![one(&[tunnel(2), vec![24], request(51, 1, 2, 0, None)[1..].to_vec()].concat())],
            EINVAL,
        ),
        ("a tunnel without ends", vec![one(&request(50, 2, 2, 0, None))], EINVAL),
        ("GRE", vec![one(&request(47, 2, 2, 0, Some((LOCAL, PEER))))], EINVAL),
        ("IPComp alone", vec![one(&request(108, 2, 2, 0, Some((LOCAL, PEER))))], EOPNOTSUPP),
        ("a protocol above 255", vec![one(&request(306, 2, 2, 0, Some((LOCAL, PEER))))], EINVAL),
        ("mode 7", vec![one(&request(50, 7, 2, 0, Some((LOCAL, PEER))))], EINVAL),
        ("ends of two families", vec![one(&request(50, 2, 2, 0, Some((LOCAL, PEER6))))], EINVAL),
        ("prefix 33", vec![msg(SPDADD, 0).selector(255, 33).policy(2, OUT, 0, &tunnel(2))], EINVAL),
        ("TCP", vec![msg(SPDADD, 0).selector(6, 16).policy(2, OUT, 0, &tunnel(2))], 0),
        ("no policy", vec![msg(SPDADD, 0).selector(255, 16)], EINVAL),
        ("SPDSETIDX", vec![msg(SPDSETIDX, 0).selector(255, 16).policy(1, OUT, 0, &[])], 0),
        ("SPDGET of none", vec![msg(SPDGET, 0).numbered(8888)], ENOENT),
        ("SPDDELETE", vec![out(2), msg(SPDDELETE, 0).selector(255, 16).policy(2, OUT, 0, &[])], 0),
        (
            "SPDDELETE of another direction",
            vec![out(2), msg(SPDDELETE, 0).selector(255, 16).policy(2, IN, 0, &[])],
            ENOENT,
        ),
        ("SPDDELETE of none", vec![msg(SPDDELETE, 0).selector(255, 16).policy(2, OUT, 0, &[])], ENOENT),
        ("SPDDELETE2 of none", vec![msg(SPDDELETE2, 0).numbered(8888)], ENOENT),
        ("SPDDUMP of nothing", vec![msg(SPDDUMP, 0)], ENOENT),
        ("SPDFLUSH of nothing", vec![msg(SPDFLUSH, 0)], 0),
        ("SPDFLUSH", vec![out(2), msg(SPDFLUSH, 0), msg(SPDDUMP, 0)], ENOENT),
    ]);
}

/// Everything in a policy comes back, to whoever listens and by its number.
#[test]
fn a_policy_is_told_as_it_was_added() {
    for (direction, priority, level, reqid) in
        [(OUT, 1000, 3, 77), (IN, 1 << 31, 1, 0), (FWD, u32::MAX, 2, 0)]
    {
        let mut world = World::new();
        let requests = request(50, 2, level, reqid, Some((LOCAL, PEER)));
        let asked = msg(SPDADD, 0).selector(255, 16).policy(2, direction, priority, &requests);
        let told = world.must(asked);
        let policy = told.find(POLICY).unwrap();
        assert_eq!((policy[0], policy[2]), (2, direction));
        assert_eq!(policy[8..12], priority.to_ne_bytes());
        assert_eq!(policy[12..], requests);
        let index = u32::from_ne_bytes(policy[4..8].try_into().unwrap());
        assert_eq!(index & 7, u32::from(direction) - 1);
        assert_eq!(told.address(SRC), Some(("10.1.0.0:0".parse().unwrap(), 255, 16)));
        assert_eq!(world.hear(LISTENS)[0].octets, told.octets);
        for kind in [SPDGET, SPDDELETE2] {
            let shown = world.must(msg(kind, 0).numbered(index));
            assert_eq!((shown.satype, shown.find(POLICY)), (0, Some(policy.clone())));
        }
        assert_eq!(world.ask(ASKS, msg(SPDGET, 0).numbered(index))[0].errno, ENOENT);
    }
}

#[test]
fn spddump_is_one_record_for_a_policy_and_the_last_is_0() {
    let mut world = World::new();
    world.must(out(2));
    world.must(msg(SPDADD, 0).selector(255, 16).policy(2, IN, 0, &tunnel(2)));
    world.must(msg(SPDADD, 0).selector(6, 16).policy(0, OUT, 0, &[]));
    let heard = world.ask(ASKS, msg(SPDDUMP, 0).seq(9));
    assert_eq!(
        heard.iter().map(|one| (one.kind, one.errno, one.satype)).collect::<Vec<_>>(),
        [(SPDDUMP, 0, 0); 3]
    );
    assert_eq!(heard.iter().map(|one| one.seq).collect::<Vec<_>>(), [1, 2, 0]);
    let mut directions: Vec<u8> = heard.iter().map(|one| one.find(POLICY).unwrap()[2]).collect();
    directions.sort_unstable();
    assert_eq!(directions, [IN, OUT, OUT]);
    assert!(world.hear(LISTENS).iter().all(|one| one.kind == SPDADD), "a dump is its asker's");
}

#[test]
fn a_peer_behind_a_nat_that_moved_is_told_with_both_ports() {
    let mut world = World::new();
    let port = |port: u16| [port.to_be_bytes(), [0; 2]].concat();
    let sa = msg(ADD, ESP).sa_full(0x1001, 32, MATURE, SHA256, AES_CBC, 0).ends(PEER, LOCAL);
    let sa = sa.key(AKEY, 32).key(EKEY, 16).sa2(2, 7).ext(NAT_T_TYPE, &[2, 0, 0, 0]);
    world.must(sa.ext(NAT_T_SPORT, &port(1024)).ext(NAT_T_DPORT, &port(4500)));
    (0..3).for_each(|n| drop(world.hear(n)));
    let id = ipsec_core::SaId {
        dst: LOCAL.parse().unwrap(),
        protocol: ipsec_core::Protocol::Esp,
        spi: ipsec_core::Spi(0x1001),
    };
    let moved: SocketAddr = "203.0.113.7:5555".parse().unwrap();
    // It is told once for each place.
    (0..2).for_each(|_| world.service.control.new_mapping(&id, moved));
    assert!(world.hear(LISTENS).is_empty(), "it did not register");
    let heard = world.hear(REGISTERED);
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!((heard[0].kind, heard[0].satype, heard[0].spi()), (NEW_MAPPING, ESP, Some(0x1001)));
    assert_eq!(heard[0].address(SRC).unwrap().0.ip(), PEER.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(heard[0].find(NAT_T_SPORT).unwrap()[..2], 1024_u16.to_be_bytes(), "where it was");
    assert_eq!(heard[0].address(DST).unwrap().0.ip(), moved.ip());
    assert_eq!(heard[0].find(NAT_T_DPORT).unwrap()[..2], 5555_u16.to_be_bytes(), "where it is");
}
