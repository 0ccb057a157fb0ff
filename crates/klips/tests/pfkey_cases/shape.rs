//! Stage 1: the shape of a message, and which messages there are.

use super::*;

pub(crate) fn stage_one_shape_of_the_message(r: &mut Table) {
    let g = || get(ESP, IN, LOCAL);
    r.good("a plain GET", g(), SENDER);
    r.bad("length field too small", g().words(2), EMSGSIZE, 0);
    r.bad("length field too big", g().words(99), EMSGSIZE, 0);
    r.bad("length field zero", g().words(0), EMSGSIZE, 0);
    r.bad("extension type 0", g().ext(0, &[0; 4]), EINVAL, 2);
    r.bad("extension type past the last", g().ext(4000, &[0; 4]), EINVAL, 2);
    r.bad("extension of no length", g().ext_words(KMC, 0, &[0; 12]), EINVAL, 3);
    r.bad("extension past the end", g().ext_words(KMC, 9, &[0; 12]), EINVAL, 3);
    r.bad("unknown type wins over bad length", g().ext_words(0, 0, &[0; 4]), EINVAL, 2);
    r.bad(
        "the first bad extension wins",
        msg(GET, ESP).ext(0, &[0; 4]).ext_words(KMC, 0, &[0; 4]),
        EINVAL,
        2,
    );
    r.bad("two sources", g().src(PEER).src(PEER), EINVAL, 24);
    r.bad("two destinations", g().dst(PEER), EINVAL, 25);
    r.bad("two SAs", g().sa(1), EINVAL, 26);
    r.bad("two encryption keys", g().key(EKEY, 16).key(EKEY, 16), EINVAL, 27);
    r.bad("two authentication keys", g().key(AKEY, 16).key(AKEY, 16), EINVAL, 28);
    r.bad("two ranges", g().range(1, 2).range(1, 2), EINVAL, 29);
    r.bad("two inner sources", g().addr(INNER_SRC, PEER).addr(INNER_SRC, PEER), EINVAL, 60);
    r.bad("two inner destinations", g().addr(INNER_DST, PEER).addr(INNER_DST, PEER), EINVAL, 61);
    let twice = |ext: fn(Msg) -> Msg| ext(ext(g()));
    r.bad("two NAT-T locals", twice(|m| m.addr(NATT_LOC, PEER)), EINVAL, 0);
    r.bad("two NAT-T remotes", twice(|m| m.addr(NATT_REM, PEER)), EINVAL, 0);
    r.bad("two hard lifetimes", twice(|m| m.lifetime(HARD, 0, 0, 0, 0)), EINVAL, 0);
    r.bad("two soft lifetimes", twice(|m| m.lifetime(SOFT, 0, 0, 0, 0)), EINVAL, 0);
    r.bad("two pairs", twice(|m| m.pair(1)), EINVAL, 0);
    r.bad("two cookies", twice(|m| m.kmc(1, 1)), EINVAL, 0);
    r.bad("two source identities", twice(|m| m.ident(ID_SRC, 2, "a")), EINVAL, 0);
    r.bad("a source of one word", msg(GET, ESP).sa(IN).dst(LOCAL).ext(SRC, &[0; 4]), EINVAL, 30);
    r.bad("a destination of one word", msg(GET, ESP).sa(IN).ext(DST, &[0; 4]), EINVAL, 31);
    r.bad("an inner source of one word", g().ext(INNER_SRC, &[0; 4]), EINVAL, 62);
    r.bad("an inner destination of one word", g().ext(INNER_DST, &[0; 4]), EINVAL, 63);
    let short6 = |kind| {
        let mut body = vec![0; 4];
        body.extend(&sockaddr(LOCAL6, 0)[..16]);
        msg(GET, ESP).sa(IN).ext(kind, &body)
    };
    r.bad("a source cut short", short6(SRC).dst(LOCAL), EINVAL, 30);
    r.bad("a destination cut short", short6(DST), EINVAL, 31);
    r.bad("an inner source cut short", short6(INNER_SRC).dst(LOCAL), EINVAL, 62);
    r.bad("an inner destination cut short", short6(INNER_DST).dst(LOCAL), EINVAL, 63);
    r.bad("a NAT-T local cut short", short6(NATT_LOC).dst(LOCAL), EINVAL, 55);
    r.bad("a NAT-T remote cut short", short6(NATT_REM).dst(LOCAL), EINVAL, 56);
    r.bad("an SA of one word", msg(GET, ESP).ext(SA, &[0; 4]).dst(LOCAL), EINVAL, 32);
    r.bad("an SA of three words", msg(GET, ESP).ext(SA, &[0; 20]).dst(LOCAL), EINVAL, 32);
    r.bad("a lifetime of two words", g().ext(HARD, &[0; 12]), EINVAL, 0);
    r.bad("a soft lifetime of five words", g().ext(SOFT, &[0; 36]), EINVAL, 0);
    r.bad("a pair of two words", g().ext(PAIR, &[0; 12]), EINVAL, 3);
    r.bad("a cookie of one word", g().ext(KMC, &[0; 4]), EINVAL, 3);
    r.bad("a replay value of one word", g().ext(REPLAY, &[0; 4]), EINVAL, 3);
    r.bad("a range upside down", msg(GETSPI, ESP).src(PEER).dst(LOCAL).range(9, 8), EINVAL, 35);
    r.bad("an encryption key of no bits", g().key_full(EKEY, 0, 0, &[1; 8]), EINVAL, 33);
    r.bad("an authentication key of no bits", g().key_full(AKEY, 0, 0, &[1; 8]), EINVAL, 34);
    r.bad("an encryption key longer than its bits", g().key_full(EKEY, 64, 0, &[1; 16]), EINVAL, 33);
    r.bad("an authentication key shorter than its bits", g().key_full(AKEY, 256, 0, &[1; 16]), EINVAL, 34);
    r.bad("an encryption key of zeros", g().key_full(EKEY, 128, 0, &[0; 16]), EINVAL, 33);
    r.bad("an authentication key of zeros", g().key_full(AKEY, 128, 0, &[0; 16]), EINVAL, 34);
    r.bad(
        "a key of zeros with something after it",
        g().key_full(EKEY, 128, 0, &[0; 16]).kmc(u32::MAX, u64::MAX),
        EINVAL,
        33,
    );
    r.bad("the shape comes before the SA type", get(0, IN, LOCAL).ext(0, &[0; 4]), EINVAL, 2);
    let mut unknown = g().ext(0, &[0; 4]);
    unknown.octets[1] = 77;
    r.case("the shape comes before the message type", unknown, 0, EINVAL, 2, SENDER);
}

pub(crate) fn stage_one_dispatch(r: &mut Table) {
    for kind in [GETSPI, ADD, UPDATE, UPDATEPAIR, DELETE, DELPAIR, GET] {
        r.bad(&format!("type {kind}, no SA type"), msg(kind, 0), EINVAL, 5);
        for satype in [1, 4, 5, 8, 200, 255] {
            r.bad(&format!("type {kind}, SA type {satype}"), msg(kind, satype), EINVAL, 4);
        }
    }
    for kind in [0, 99, 127, 255] {
        r.case(&format!("type {kind}"), msg(kind, ESP), 0, EINVAL, 1, SENDER);
    }
    r.case("DELPAIR_STATE", msg(15, ESP), 0, EINVAL, 1, SENDER);
    r.bad("EXPIRE from a user", msg(EXPIRE, ESP), EOPNOTSUPP, 0);
    r.bad("EXPIRE of no SA type", msg(EXPIRE, 0), EOPNOTSUPP, 0);
    r.bad("REGISTER of an unknown SA type", msg(REGISTER, 77), EINVAL, 4);
    r.bad("extended REGISTER without EREG", msg(REGISTER, 0), EINVAL, 5);
    r.bad("extended REGISTER of nothing", msg(REGISTER, 0).ext(EREG, &[0; 4]), EINVAL, 5);
    r.bad("FLUSH with an extension", msg(FLUSH, ESP).sa(1), EINVAL, 7);
    r.bad("FLUSH with an extension of an unknown SA type", msg(FLUSH, 77).sa(1), EINVAL, 7);
    r.bad("FLUSH of an unknown SA type", msg(FLUSH, 77), EINVAL, 4);
    r.bad("DUMP with an extension", msg(DUMP, ESP).sa(1), EINVAL, 7);
    r.bad("DUMP with EDUMP and more", msg(DUMP, ESP).edump(5).sa(1), EINVAL, 7);
    r.bad("DUMP of an unknown SA type", msg(DUMP, 77), EINVAL, 4);
    r.good("FLUSH of all", msg(FLUSH, 0), ALL);
    r.good("FLUSH of ESP", msg(FLUSH, ESP), ALL);
    r.case("ACQUIRE without an error and of no SA type", msg(ACQUIRE, 0), ACQUIRE, EINVAL, 5, "psx");
    r.case("ACQUIRE without an error", msg(ACQUIRE, ESP).src(LOCAL).dst(PEER), ACQUIRE, 0, 0, "p");
    r.case("negative ACQUIRE of no SA type", msg(ACQUIRE, 0).errno(1), ACQUIRE, EINVAL, 5, "psx");
    r.case("negative ACQUIRE of an unknown SA type", msg(ACQUIRE, 77).errno(1), ACQUIRE, EINVAL, 4, SENDER);
    r.case("negative ACQUIRE", msg(ACQUIRE, ESP).errno(1).seq(0xffff_fff0), ACQUIRE, 0, 0, NOBODY);
    let long = msg(ACQUIRE, ESP).errno(1).src(LOCAL);
    r.case("negative ACQUIRE with extensions", long, ACQUIRE, 0, 0, NOBODY);
    r.case("negative extended ACQUIRE", msg(ACQUIRE, 0).errno(1), ACQUIRE, EINVAL, 5, "psx");
    r.case_from("the same from an extended socket", 'x', msg(ACQUIRE, 0).errno(1), ACQUIRE, 0, 0, NOBODY);
}
