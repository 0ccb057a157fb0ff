//! GET, DELETE, DELPAIR, REGISTER, PROMISC and INVERSE_ACQUIRE.

use super::*;

pub(crate) fn get_and_delete(r: &mut Table) {
    for kind in [GET, DELETE, DELPAIR] {
        let ask = |spi, dst| msg(kind, ESP).sa(spi).dst(dst);
        r.bad(&format!("{kind}: not there"), ask(0x9999, LOCAL), ESRCH, 78);
        r.bad(&format!("{kind}: there for another destination"), ask(IN, "203.0.113.7"), ESRCH, 78);
        r.bad(&format!("{kind}: there from another source"), ask(IN, LOCAL).src("203.0.113.7"), ESRCH, 78);
    }
    r.bad("GET: nothing said", msg(GET, ESP), EINVAL, 19);
    r.bad("GET: no destination", msg(GET, ESP).sa(IN), EINVAL, 19);
    r.bad("GET: no SA", msg(GET, ESP).dst(LOCAL), EINVAL, 20);
    for (name, spi, dst) in [
        ("larval", LARVA, LOCAL),
        ("dying", DYING_ONE, PEER),
        ("dead", DEAD_ONE, PEER),
        ("both ways", BOTH, "203.0.113.2"),
    ] {
        r.good(&format!("GET: {name}"), get(ESP, spi, dst), SENDER);
    }
    r.good("GET: with its source", get(ESP, IN, LOCAL).src(PEER), SENDER);
    r.good("GET: with any source", get(ESP, IN, LOCAL).src("0.0.0.0"), SENDER);
    r.good("GET: AH", get(AH, AH_IN, LOCAL), SENDER);
    r.bad("GET: AH under ESP", get(ESP, AH_IN, LOCAL), ESRCH, 78);
    let hint = |flags| msg(GET, ESP).sa_full(IN, 0, 0, 0, 0, flags).dst(LOCAL);
    r.good("GET: a hint", hint(F_IN), SENDER);
    r.good("GET: a wrong hint", hint(F_OUT), SENDER);
    r.bad("DELETE: nothing said", msg(DELETE, ESP), EINVAL, 20);
    r.bad("DELETE: no destination", msg(DELETE, ESP).sa(IN), EINVAL, 19);
    r.good("DELETE", msg(DELETE, ESP).sa(IN).dst(LOCAL), ALL);
    r.good("DELETE: larval", msg(DELETE, ESP).sa(LARVA).dst(LOCAL), ALL);
    r.good("DELETE: one of a pair", msg(DELETE, ESP).sa(PAIR_IN).dst(LOCAL), ALL);
    r.good("DELETE: all to somewhere", msg(DELETE, ESP).dst(PEER), ALL);
    r.good("DELETE: all from somewhere", msg(DELETE, ESP).src(PEER), ALL);
    r.good("DELETE: all to where nothing goes", msg(DELETE, ESP).dst("203.0.113.77"), ALL);
    r.bad("DELETE: all between families", msg(DELETE, ESP).src(PEER6).dst(LOCAL), EINVAL, 11);
    r.good("DELPAIR", msg(DELPAIR, ESP).sa(PAIR_IN).dst(LOCAL), ALL);
    r.bad("DELPAIR: no pair", msg(DELPAIR, ESP).sa(IN).dst(LOCAL), ESRCH, 76);
    r.good("PROMISC off", msg(PROMISC, 0), SENDER);
    r.good("PROMISC on", msg(PROMISC, 1), SENDER);
    r.good("PROMISC by any type", msg(PROMISC, 77).src(LOCAL), SENDER);
    r.good("REGISTER AH", msg(REGISTER, AH), "pas");
    r.good("REGISTER ESP", msg(REGISTER, ESP), "pes");
    r.case_from("REGISTER again", 'e', msg(REGISTER, ESP), REGISTER, 0, 0, "pe");
    r.case_from("plain after extended", 'x', msg(REGISTER, ESP), REGISTER, EBUSY, 0, "px");
    r.case_from("plain after extended, unknown", 'x', msg(REGISTER, 77), REGISTER, EBUSY, 0, "px");
    let ereg = || msg(REGISTER, 0).ext(EREG, &[ESP, 0, 0, 0]);
    r.case_from("extended after plain", 'e', ereg(), REGISTER, EBUSY, 0, "pe");
    r.case_from("extended after extended", 'x', ereg(), REGISTER, EBUSY, 0, "px");
    r.good("extended", ereg(), "pes");
    let inverse = |m: fn(Msg) -> Msg| m(msg(INVERSE_ACQUIRE, 0));
    r.bad("INVERSE_ACQUIRE: no source", inverse(|m| m.dst(PEER)), EINVAL, 18);
    r.bad("INVERSE_ACQUIRE: no destination", inverse(|m| m.src(LOCAL)), EINVAL, 19);
    r.bad(
        "INVERSE_ACQUIRE: inner source alone",
        inverse(|m| m.src(LOCAL).dst(PEER).addr(INNER_SRC, "10.0.0.1")),
        EINVAL,
        59,
    );
    r.bad(
        "INVERSE_ACQUIRE: inner destination alone",
        inverse(|m| m.src(LOCAL).dst(PEER).addr(INNER_DST, "10.0.0.1")),
        EINVAL,
        58,
    );
    r.bad("INVERSE_ACQUIRE: source of no family", inverse(|m| m.odd_addr(SRC).dst(PEER)), EINVAL, 12);
    r.bad("INVERSE_ACQUIRE: destination of no family", inverse(|m| m.src(LOCAL).odd_addr(DST)), EINVAL, 13);
    r.bad("INVERSE_ACQUIRE: families differ", inverse(|m| m.src(LOCAL6).dst(PEER)), EINVAL, 11);
    r.bad(
        "INVERSE_ACQUIRE: bad inner source",
        inverse(|m| m.src(LOCAL).dst(PEER).odd_addr(INNER_SRC).addr(INNER_DST, PEER)),
        EINVAL,
        62,
    );
    r.bad(
        "INVERSE_ACQUIRE: bad inner destination",
        inverse(|m| m.src(LOCAL).dst(PEER).addr(INNER_SRC, PEER).odd_addr(INNER_DST)),
        EINVAL,
        63,
    );
    r.bad(
        "INVERSE_ACQUIRE: inner families differ",
        inverse(|m| m.src(LOCAL).dst(PEER).inner("10.0.0.0/8", "2001:db8::/32")),
        EINVAL,
        67,
    );
    r.bad(
        "INVERSE_ACQUIRE: IPv4 in protocol 41",
        inverse(|m| {
            m.addr_full(SRC, LOCAL, 0, 41, 0).addr_full(DST, PEER, 0, 41, 0).inner("10.0.0.0/8", "10.0.0.0/8")
        }),
        EPROTOTYPE,
        0,
    );
    r.bad("INVERSE_ACQUIRE: no policy", inverse(|m| m.src(LOCAL).dst(PEER)), ENOENT, 0);
    r.bad(
        "INVERSE_ACQUIRE: no policy, inner",
        inverse(|m| m.src(LOCAL).dst(PEER).inner("10.0.0.0/8", "10.0.0.0/8")),
        ENOENT,
        0,
    );
}

/// Who hears what, when sockets have changed since they were opened.
pub(crate) fn audiences(r: &mut Table) {
    let from = |r: &mut Table, name: &str, letter, request: Msg, hearers: &str| {
        let kind = request.octets[1];
        r.case_from(name, letter, request, kind, 0, 0, hearers);
    };
    from(r, "ADD by a listener: everyone", 'o', add_esp(1, PEER, LOCAL), ALL);
    from(r, "GET by a listener: it alone", 'o', get(ESP, IN, LOCAL), "op");
    from(r, "GET by the promiscuous one: once", 'p', get(ESP, IN, LOCAL), "p");
    from(r, "ADD by one with loopback off: everyone else", 'd', add_esp(1, PEER, LOCAL), ALL);
    from(r, "GET by one with loopback off: not itself", 'd', get(ESP, IN, LOCAL), "p");
    from(r, "REGISTER by one with loopback off", 'd', msg(REGISTER, ESP), "ep");
    from(r, "PROMISC by one with loopback off", 'd', msg(PROMISC, 1), "p");
    from(r, "PROMISC off by the promiscuous one", 'p', msg(PROMISC, 0), "p");
    from(r, "extended REGISTER by a listener", 'o', msg(REGISTER, 0).ext(EREG, &[AH]), "oap");
    r.case_from("GET is seen by whoever became promiscuous", 'o', get(ESP, IN, LOCAL), GET, 0, 0, "osp")
        .after([msg(PROMISC, 1)]);
    r.case_from("and not by whoever is so no more", 'o', get(ESP, IN, LOCAL), GET, 0, 0, "op")
        .after([msg(PROMISC, 1), msg(PROMISC, 0)]);
    r.case_from("REGISTER is heard by whoever registered", 'o', msg(REGISTER, AH), REGISTER, 0, 0, "soap")
        .after([msg(REGISTER, AH)]);
    r.case_from("for that SA type alone", 'o', msg(REGISTER, ESP), REGISTER, 0, 0, "oep")
        .after([msg(REGISTER, AH)]);
    r.case_from(
        "REGISTER is not heard by whoever did so extended",
        'o',
        msg(REGISTER, AH),
        REGISTER,
        0,
        0,
        "oap",
    )
    .after([msg(REGISTER, 0).ext(EREG, &[AH])]);
    r.bad("a refused GET is told to its sender", get(ESP, 0x9999, LOCAL), ESRCH, 78);
    r.case_from("a refused ADD is told to everyone", 'd', add_esp(IN, PEER, LOCAL), ADD, EEXIST, 0, ALL);
    r.case_from("a refused GET by one with loopback off", 'd', get(ESP, 0x9999, LOCAL), GET, ESRCH, 78, "p");
    r.case_from(
        "a refused REGISTER is told to its sender",
        'o',
        msg(REGISTER, 77),
        REGISTER,
        EINVAL,
        4,
        "op",
    );
    // Reference Q6: the answer to an INVERSE_ACQUIRE is an ACQUIRE for those with an extended REGISTER, too.
    let eroute = |action: u8| {
        let mut body = vec![action, 0, 0, 0];
        body.extend([0; 16]);
        msg(128, 0).inner("10.1.0.0/16", "10.2.0.0/16").ext(128, &body)
    };
    let inverse = || msg(INVERSE_ACQUIRE, 0).src(LOCAL).dst(PEER).inner("10.1.0.1/32", "10.2.0.1/32");
    r.case("INVERSE_ACQUIRE of a %trap eroute", inverse(), ACQUIRE, 0, 0, "sxp")
        .after([eroute(4)])
        .exts(&[INNER_SRC, INNER_DST, SRC, DST, EPROP]);
    for (name, action) in [("%pass", 1), ("%drop", 2), ("%reject", 3)] {
        r.bad(&format!("INVERSE_ACQUIRE of a {name} eroute"), inverse(), ENOENT, 0).after([eroute(action)]);
    }
    r.bad("INVERSE_ACQUIRE beside the eroute", inverse().seq(0), ENOENT, 0)
        .after([msg(128, 0).inner("10.3.0.0/16", "10.2.0.0/16").ext(128, &[4; 20])]);
}
