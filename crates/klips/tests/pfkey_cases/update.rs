//! UPDATE and UPDATEPAIR.

use super::*;

fn update(spi: u32, src: &str, dst: &str) -> Msg {
    msg(UPDATE, ESP).sa(spi).src(src).dst(dst)
}

fn hatch(flags: u32) -> Msg {
    msg(UPDATE, ESP).sa_full(LARVA, 32, MATURE, 0, GCM16, flags).src(PEER).dst(LOCAL).key(EKEY, 20)
}

pub(crate) fn updates(r: &mut Table) {
    r.bad("no destination", msg(UPDATE, ESP).sa(OUT).src(LOCAL), EINVAL, 19);
    r.bad("neither address", msg(UPDATE, ESP).sa(OUT), EINVAL, 19);
    r.bad("no source", msg(UPDATE, ESP).sa(OUT).dst(PEER), EINVAL, 18);
    r.bad("no SA", msg(UPDATE, ESP).src(LOCAL).dst(PEER), EINVAL, 20);
    r.bad("no SA, pair", msg(UPDATEPAIR, ESP).src(LOCAL).dst(PEER), EINVAL, 20);
    r.bad("not there", update(0x9999, LOCAL, PEER), ESRCH, 78);
    r.bad("there, but from elsewhere", update(OUT, "203.0.113.7", PEER), ESRCH, 78);
    r.good("nothing to change", update(OUT, LOCAL, PEER), ALL);
    r.good("an IPv6 SA", update(OUT6, LOCAL6, PEER6), ALL);
    r.good("a hard lifetime", update(OUT, LOCAL, PEER).lifetime(HARD, 0, 100, 0, 0), ALL);
    r.bad("an integrity key", update(OUT, LOCAL, PEER).key(AKEY, 32), EINVAL, 36);
    r.bad("an encryption key", update(OUT, LOCAL, PEER).key(EKEY, 20), EINVAL, 37);
    r.bad("both keys", update(OUT, LOCAL, PEER).key(AKEY, 32).key(EKEY, 20), EINVAL, 36);
    for state in [LARVAL, DYING, DEAD, 99] {
        let m = msg(UPDATE, ESP).sa_full(OUT, 0, state, 0, 0, 0).src(LOCAL).dst(PEER);
        r.bad(&format!("state {state}"), m, EINVAL, 43);
    }
    for flag in [F_PFS, F_UNIQUE, F_USED, F_TUNNEL, 0x4_0000] {
        let m = msg(UPDATE, ESP).sa_full(OUT, 0, MATURE, 0, 0, flag).src(LOCAL).dst(PEER);
        r.bad(&format!("flag {flag:#x}"), m, EINVAL, 42);
    }
    r.bad("a current lifetime", update(OUT, LOCAL, PEER).lifetime(CURRENT, 0, 0, 0, 0), EOPNOTSUPP, 0);
    let life = update(OUT, LOCAL, PEER).lifetime(SOFT, 0, 0, 2, 0).lifetime(HARD, 0, 0, 1, 0);
    r.bad("soft above hard", life, EINVAL, 16);
    r.bad("a label", update(OUT, LOCAL, PEER).ext(SENS, &[0; 12]), EINVAL, 83);
    r.bad("a dead SA", update(DEAD_ONE, LOCAL, PEER), ESRCH, 79);
    r.good("a dying SA", update(DYING_ONE, LOCAL, PEER), ALL);
    r.bad("a replay value of a mature SA", update(OUT, LOCAL, PEER).replay(5, 0), EINVAL, 43);
    let kmc = |proto, cookie| update(OUT, LOCAL, PEER).kmc(proto, cookie);
    r.bad("another key manager", kmc(2, 0), EINVAL, 49).after([kmc(1, 5)]);
    r.bad("another cookie", kmc(1, 6), EINVAL, 50).after([kmc(1, 5)]);
    r.bad("another key manager and cookie", kmc(2, 6), EINVAL, 49).after([kmc(1, 5)]);
    r.good("the same key manager and cookie", kmc(1, 5), ALL).after([kmc(1, 5)]);
    r.good("IKEv2 may change its cookie", kmc(3, 6), ALL).after([kmc(3, 5)]);
    r.good("zeros leave key manager and cookie alone", kmc(0, 0), ALL).after([kmc(1, 5)]);
    r.good("a cookie", update(OUT, LOCAL, PEER).kmc(3, 77), ALL);
    r.good("a larval SA", hatch(0), ALL);
    r.bad(
        "a larval SA without a key",
        msg(UPDATE, ESP).sa_full(LARVA, 0, MATURE, 0, GCM16, 0).src(PEER).dst(LOCAL),
        EINVAL,
        21,
    );
    r.bad(
        "a larval SA, as larval",
        msg(UPDATE, ESP).sa_full(LARVA, 0, LARVAL, 0, GCM16, 0).src(PEER).dst(LOCAL).key(EKEY, 20),
        EINVAL,
        43,
    );
    r.good("a larval SA, a tunnel", hatch(F_TUNNEL).inner("10.0.0.0/8", "10.0.0.0/8"), ALL);
    r.bad("a larval SA, a tunnel to nowhere", hatch(F_TUNNEL), EINVAL, 42);
    r.good("a larval SA with a partner", hatch(0).pair(OUT), ALL);
    r.bad("a larval SA with a partner that has one", hatch(0).pair(PAIR_OUT), EINVAL, 75);
    let mut fresh = hatch(0);
    fresh.octets[1] = UPDATEPAIR;
    r.bad("UPDATEPAIR of a larval SA", fresh, EEXIST, 0);
    let pair = |spi, src, dst| msg(UPDATEPAIR, ESP).sa(spi).src(src).dst(dst).lifetime(HARD, 0, 0, 500, 0);
    r.good("UPDATEPAIR", pair(PAIR_OUT, LOCAL, PEER), ALL);
    r.bad("UPDATEPAIR of an SA without a pair", pair(OUT, LOCAL, PEER), ESRCH, 76);
    r.bad("UPDATEPAIR of nothing", pair(0x9999, LOCAL, PEER), ESRCH, 78);
    r.good("a pair by UPDATE", update(OUT, LOCAL, PEER).pair(IN), ALL);
    r.bad("a pair by UPDATE with a paired SA", update(OUT, LOCAL, PEER).pair(PAIR_IN), EINVAL, 75);
    r.bad("a pair by UPDATE with nobody", update(OUT, LOCAL, PEER).pair(0x9999), EINVAL, 73);
}
