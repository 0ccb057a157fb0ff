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
