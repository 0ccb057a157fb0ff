//! Stage 2: the addresses, the same for every message about SAs.

use super::*;

pub(crate) fn stage_two_addresses(r: &mut Table) {
    let g = || msg(GET, ESP).sa(IN);
    r.bad("a source of no family", g().odd_addr(SRC).dst(LOCAL), EINVAL, 8);
    r.bad("a destination of no family", g().odd_addr(DST), EINVAL, 9);
    r.bad("a multicast source", g().src("224.0.0.5").dst(LOCAL), EINVAL, 12);
    r.bad("an IPv6 multicast source", g().src("ff02::1").dst(LOCAL6), EINVAL, 12);
    r.bad("a broadcast source", g().src("255.255.255.255").dst(LOCAL), EINVAL, 12);
    r.bad("the broadcast address of our network as source", g().src(BROADCAST).dst(PEER), EINVAL, 12);
    let sought = g().src(LOCAL).dst(BROADCAST);
    r.bad("the broadcast address of our network as destination", sought, ESRCH, 78);
    r.bad("a mapped multicast source", g().src("::ffff:224.0.0.5").dst(LOCAL), EINVAL, 12);
    r.bad("an unspecified destination", g().dst("0.0.0.0"), EINVAL, 13);
    r.bad("an unspecified IPv6 destination", g().dst("::"), EINVAL, 13);
    r.bad("the source comes first", msg(GET, ESP).src("224.0.0.5").dst("0.0.0.0"), EINVAL, 12);
    r.bad("addresses come before a missing SA", msg(GET, ESP).src("224.0.0.5").dst(LOCAL), EINVAL, 12);
    r.bad("a multicast destination is only not found", g().dst("224.0.0.5"), ESRCH, 78);
    r.good("a mapped destination is IPv4", msg(GET, ESP).sa(IN).dst("::ffff:192.0.2.1"), SENDER);
    r.bad("families differ", g().src(PEER6).dst(LOCAL), EINVAL, 11);
    r.bad("families differ the other way", g().src(PEER).dst(LOCAL6), EINVAL, 11);
    r.good("an unspecified IPv6 source fits any family", g().src("::").dst(LOCAL), SENDER);
    r.bad("an unspecified IPv4 source does not", g().src("0.0.0.0").dst(LOCAL6), EINVAL, 11);
    let proto = |a, b| msg(GET, ESP).sa(IN).addr_full(SRC, "::", 0, a, 0).addr_full(DST, LOCAL, 0, b, 0);
    r.bad("protocols differ where families do", proto(6, 17), EINVAL, 70);
    r.good("protocols agree where families do not", proto(6, 6), SENDER);
    r.good("one protocol is enough", proto(0, 6), SENDER);
    let same = g().addr_full(SRC, PEER, 0, 6, 0).addr_full(DST, LOCAL, 0, 17, 0);
    r.good("protocols may differ where families agree", same, SENDER);
    r.bad("a NAT-T local of no family", g().dst(LOCAL).odd_addr(NATT_LOC), EINVAL, 69);
    r.bad("a NAT-T local that is mine", g().dst(LOCAL).addr(NATT_LOC, LOCAL), EINVAL, 55);
    r.bad("a multicast NAT-T local", g().dst(LOCAL).addr(NATT_LOC, "224.0.0.1"), EINVAL, 55);
    r.bad("an IPv6 NAT-T local", g().dst(LOCAL).addr(NATT_LOC, PEER6), EINVAL, 69);
    r.good("an unspecified NAT-T local", g().dst(LOCAL).addr(NATT_LOC, "0.0.0.0"), SENDER);
    r.good("a foreign NAT-T local", g().dst(LOCAL).addr(NATT_LOC, "203.0.113.9"), SENDER);
    r.good("a mapped NAT-T local", g().dst(LOCAL).addr(NATT_LOC, "::ffff:203.0.113.9"), SENDER);
    r.bad("a NAT-T remote of no family", g().dst(LOCAL).odd_addr(NATT_REM), EINVAL, 68);
    r.bad("a NAT-T remote that is mine", g().dst(LOCAL).addr(NATT_REM, LOCAL), EINVAL, 56);
    r.bad("an unspecified NAT-T remote", g().dst(LOCAL).addr(NATT_REM, "0.0.0.0"), EINVAL, 56);
    let inner = g().dst(LOCAL).addr(NATT_REM, "0.0.0.0").inner("10.0.0.0/8", "10.0.0.0/8");
    r.good("an unspecified NAT-T remote of a tunnel", inner, SENDER);
    r.bad("an IPv6 NAT-T remote", g().dst(LOCAL).addr(NATT_REM, PEER6), EINVAL, 68);
    r.bad("an inner source alone", g().dst(LOCAL).addr(INNER_SRC, "10.0.0.0"), EINVAL, 59);
    r.bad("an inner destination alone", g().dst(LOCAL).addr(INNER_DST, "10.0.0.0"), EINVAL, 58);
    r.bad(
        "an inner source of no family",
        g().dst(LOCAL).odd_addr(INNER_SRC).addr(INNER_DST, PEER),
        EINVAL,
        10,
    );
    r.bad(
        "an inner destination of no family",
        g().dst(LOCAL).addr(INNER_SRC, PEER).odd_addr(INNER_DST),
        EINVAL,
        66,
    );
    r.bad(
        "the inner destination comes first",
        g().dst(LOCAL).odd_addr(INNER_SRC).odd_addr(INNER_DST),
        EINVAL,
        66,
    );
    r.bad("an inner source prefix too long", g().dst(LOCAL).inner("10.0.0.0/33", "10.0.0.0/8"), EINVAL, 64);
    r.bad(
        "an inner destination prefix too long",
        g().dst(LOCAL).inner("10.0.0.0/8", "10.0.0.0/33"),
        EINVAL,
        65,
    );
    r.bad(
        "an inner IPv6 prefix too long",
        g().dst(LOCAL).inner("2001:db8::/129", "2001:db8::/64"),
        EINVAL,
        64,
    );
    let mapped = g().dst(LOCAL).inner("::ffff:10.0.0.0/104", "::ffff:10.0.0.0/128");
    r.good("mapped inner prefixes lose 96 bits", mapped, SENDER);
    let mapped = g().dst(LOCAL).inner("::ffff:10.0.0.0/95", "::ffff:10.0.0.0/128");
    r.bad("mapped inner prefixes need 96 bits", mapped, EINVAL, 64);
    r.bad("inner families differ", g().dst(LOCAL).inner("10.0.0.0/8", "2001:db8::/32"), EINVAL, 67);
    let ports = |outer, inner| {
        g().src(PEER)
            .addr_full(DST, LOCAL, outer, 6, 0)
            .addr_full(INNER_SRC, "10.0.0.1", inner, 6, 32)
            .addr_full(INNER_DST, "10.0.0.2", 0, 6, 32)
    };
    r.bad("ports outside and inside", ports(80, 80), EINVAL, 72);
    r.good("ports outside only", ports(80, 0), SENDER);
    r.good("ports inside only", ports(0, 80), SENDER);
    r.bad("an AH message with an encryption key", get(AH, AH_IN, LOCAL).key(EKEY, 16), EINVAL, 37);
    r.bad("a proposal", get(ESP, IN, LOCAL).ext(PROPOSAL, &[0; 4]), EINVAL, 38);
    r.bad("supported integrity", get(ESP, IN, LOCAL).ext(SUPPORTED_AUTH, &[0; 4]), EINVAL, 39);
    r.bad("supported ciphers", get(ESP, IN, LOCAL).ext(SUPPORTED_ENCRYPT, &[0; 4]), EINVAL, 39);
    r.bad("REGISTER is checked alike", msg(REGISTER, AH).key(EKEY, 16), EINVAL, 37);
    r.bad("DELETE is checked alike", msg(DELETE, ESP).sa(IN).dst(LOCAL).ext(PROPOSAL, &[0; 4]), EINVAL, 38);
}
