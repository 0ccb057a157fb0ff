//! GETSPI and ADD.

use super::*;

pub(crate) fn getspi(r: &mut Table) {
    let ask = |kind: fn(Msg) -> Msg| kind(msg(GETSPI, ESP));
    r.bad("no source", ask(|m| m.dst(LOCAL).range(1, 2)), EINVAL, 18);
    r.bad("no destination", ask(|m| m.src(PEER).range(1, 2)), EINVAL, 19);
    r.bad("no range", ask(|m| m.src(PEER).dst(LOCAL)), EINVAL, 23);
    r.bad("nothing at all", ask(|m| m), EINVAL, 18);
    r.bad("taken by a mature SA", ask(|m| m.src(PEER).dst(LOCAL).range(IN, IN)), EEXIST, 0);
    r.bad("taken by a larval SA", ask(|m| m.src(PEER).dst(LOCAL).range(LARVA, LARVA)), EEXIST, 0);
    r.bad("taken whatever the source", ask(|m| m.src("203.0.113.7").dst(LOCAL).range(IN, IN)), EEXIST, 0);
    r.good("free for another destination", ask(|m| m.src(PEER).dst("203.0.113.7").range(IN, IN)), ALL);
    r.good("free for another protocol", msg(GETSPI, AH).src(PEER).dst(LOCAL).range(IN, IN), ALL);
    r.good("a wide range", ask(|m| m.src(PEER).dst(LOCAL).range(256, u32::MAX)), ALL);
    r.good("a reserved SPI, asked for by name", ask(|m| m.src(PEER).dst(LOCAL).range(7, 7)), ALL);
    r.bad("SPI 0 alone", ask(|m| m.src(PEER).dst(LOCAL).range(0, 0)), EINVAL, 35);
    r.good("with keys, carelessly", ask(|m| m.src(PEER).dst(LOCAL).range(256, 512).key(EKEY, 16)), ALL);
}

pub(crate) fn add_esp_faults(r: &mut Table) {
    let spi = 0xdead;
    let sa = |auth, encrypt, flags| {
        msg(ADD, ESP).sa_full(spi, 0, MATURE, auth, encrypt, flags).src(PEER).dst(LOCAL)
    };
    let gcm = || sa(0, GCM16, 0).key(EKEY, 20);
    r.good("AES-GCM-16", gcm(), ALL);
    r.good("AES-CBC and HMAC-SHA-256", sa(SHA256, AES_CBC, 0).key(EKEY, 16).key(AKEY, 32), ALL);
    r.good("NULL and HMAC-SHA-256", sa(SHA256, NULL, 0).key(AKEY, 32), ALL);
    r.good("integrity named but not keyed", sa(SHA256, AES_CBC, 0).key(EKEY, 16), ALL);
    r.good("3DES and MD5 when asked for", sa(MD5, TDES, 0).key(EKEY, 24).key(AKEY, 16), ALL);
    r.bad("no source", msg(ADD, ESP).sa(spi).dst(LOCAL), EINVAL, 18);
    r.bad("no destination", msg(ADD, ESP).sa(spi).src(PEER), EINVAL, 19);
    r.bad("no SA", msg(ADD, ESP).src(PEER).dst(LOCAL), EINVAL, 20);
    r.bad("no encryption key", sa(0, GCM16, 0), EINVAL, 21);
    r.bad(
        "no key comes before the state",
        msg(ADD, ESP).sa_full(spi, 0, LARVAL, 0, GCM16, 0).src(PEER).dst(LOCAL),
        EINVAL,
        21,
    );
    for state in [LARVAL, DYING, DEAD, 5, 99] {
        let m = msg(ADD, ESP).sa_full(spi, 0, state, 0, GCM16, 0).src(PEER).dst(LOCAL).key(EKEY, 20);
        r.bad(&format!("state {state}"), m, EINVAL, 43);
    }
    r.bad("cipher 0", sa(SHA256, 0, 0).key(EKEY, 16).key(AKEY, 32), EINVAL, 41);
    r.bad("NULL without integrity", sa(0, NULL, 0), EINVAL, 40);
    for flag in [F_PFS, F_UNIQUE, F_USED, 4, 8, 0x4_0000, 0x20_0000] {
        r.bad(&format!("flag {flag:#x}"), sa(0, GCM16, flag).key(EKEY, 20), EINVAL, 42);
    }
    for flag in [F_NOREPLAY, F_IN, F_OUT, F_PAIRED, 0x40_0000, 0x800_0000] {
        r.good(&format!("flag {flag:#x} is allowed"), sa(0, GCM16, flag).key(EKEY, 20), ALL);
    }
    let life = |soft: (u32, u64, u64, u64), hard: (u32, u64, u64, u64)| {
        gcm().lifetime(SOFT, soft.0, soft.1, soft.2, soft.3).lifetime(HARD, hard.0, hard.1, hard.2, hard.3)
    };
    r.bad("soft allocations above hard", life((2, 0, 0, 0), (1, 0, 0, 0)), EINVAL, 14);
    r.bad("soft bytes above hard", life((0, 2, 0, 0), (0, 1, 0, 0)), EINVAL, 15);
    r.bad("soft addtime above hard", life((0, 0, 2, 0), (0, 0, 1, 0)), EINVAL, 16);
    r.bad("soft usetime above hard", life((0, 0, 0, 2), (0, 0, 0, 1)), EINVAL, 17);
    r.bad("allocations come first", life((2, 2, 2, 2), (1, 1, 1, 1)), EINVAL, 14);
    r.good("soft equal to hard", life((1, 1, 1, 1), (1, 1, 1, 1)), ALL);
    r.good("soft without hard", life((9, 9, 9, 9), (0, 0, 0, 0)), ALL);
    let idle = |addtime, usetime| gcm().lifetime(HARD, 0, 0, 10, 10).lifetime(IDLE, 0, 0, addtime, usetime);
    r.bad("idle addtime above hard", idle(11, 0), EINVAL, 16);
    r.bad("idle usetime above hard", idle(0, 11), EINVAL, 17);
    r.good("idle below hard", idle(9, 9), ALL);
    let soft = gcm().lifetime(SOFT, 0, 0, 10, 10);
    r.bad("idle addtime above soft", soft.clone().lifetime(IDLE, 0, 0, 11, 0), EINVAL, 16);
    r.bad("idle usetime above soft", soft.lifetime(IDLE, 0, 0, 0, 11), EINVAL, 17);
    r.bad("NAT-T local flagged, not given", sa(0, GCM16, F_NATT_LOC).key(EKEY, 20), EINVAL, 51);
    r.bad("NAT-T remote flagged, not given", sa(0, GCM16, F_NATT_REM).key(EKEY, 20), EINVAL, 52);
    let natt = |flags| {
        let m = sa(0, GCM16, flags).key(EKEY, 20);
        m.addr_full(NATT_REM, "203.0.113.9", 4500, 17, 0).addr_full(NATT_LOC, "0.0.0.0", 4500, 17, 0)
    };
    r.good("NAT-T on both sides", natt(F_NATT_LOC | F_NATT_REM), ALL);
    r.good("NAT-T addresses without flags", natt(0), ALL);
    r.bad("a current lifetime", gcm().lifetime(CURRENT, 0, 0, 0, 0), EOPNOTSUPP, 0);
    r.bad("a label", gcm().ext(SENS, &[0; 12]), EINVAL, 83);
    r.bad("an outer label", gcm().ext(OUTER_SENS, &[0; 12]), EINVAL, 83);
    r.bad("unknown integrity", sa(99, GCM16, 0).key(EKEY, 20).key(AKEY, 32), EINVAL, 40);
    r.bad(
        "an integrity key of the wrong size",
        sa(SHA256, AES_CBC, 0).key(EKEY, 16).key(AKEY, 16),
        EINVAL,
        44,
    );
    r.bad("unknown cipher", sa(0, 99, 0).key(EKEY, 20), EINVAL, 41);
    r.bad("DES, which nobody should use", sa(SHA256, 2, 0).key(EKEY, 8).key(AKEY, 32), EINVAL, 41);
    r.bad("a key for NULL", sa(SHA256, NULL, 0).key(EKEY, 16).key(AKEY, 32), EINVAL, 45);
    r.bad("a GCM key without its salt", sa(0, GCM16, 0).key(EKEY, 16), EINVAL, 45);
    r.bad("a GCM key too long", sa(0, GCM16, 0).key(EKEY, 40), EINVAL, 45);
    r.bad("an AES key too short", sa(SHA256, AES_CBC, 0).key(EKEY, 8).key(AKEY, 32), EINVAL, 45);
    r.bad("integrity twice over", sa(SHA256, GCM16, 0).key(EKEY, 20).key(AKEY, 32), EINVAL, 80);
    r.bad("an AES key of 160 bits", sa(SHA256, AES_CBC, 0).key(EKEY, 20).key(AKEY, 32), EINVAL, 0);
    let with_iv = sa(0, GCM16, 0).key_full(EKEY, 224, 64, &[9; 28]);
    r.good("a GCM key with an initial IV", with_iv, ALL);
    let tdes = |key: &[u8]| sa(SHA256, TDES, 0).key_full(EKEY, 192, 0, key).key(AKEY, 32);
    let (a, b) = ([0x10_u8, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe], [0x23; 8]);
    r.good("3DES", tdes(&[a, b, a].concat()), ALL);
    r.bad("3DES with K1 = K2", tdes(&[a, a, b].concat()), EINVAL, 47);
    r.bad("3DES with K2 = K3", tdes(&[b, a, a].concat()), EINVAL, 47);
    r.bad("3DES with K1 = K2 but for parity", tdes(&[a, a.map(|o| o ^ 1), b].concat()), EINVAL, 47);
    r.bad("3DES with two weak keys", tdes(&[[1; 8], a, [0xfe; 8]].concat()), EINVAL, 47);
    r.good("3DES with one weak key", tdes(&[[1; 8], a, b].concat()), ALL);
    r.bad("integrity is judged before the cipher", sa(99, 99, 0).key(EKEY, 20).key(AKEY, 32), EINVAL, 40);
}

pub(crate) fn add_ah_faults(r: &mut Table) {
    let sa = |state, auth, encrypt, flags| {
        msg(ADD, AH).sa_full(1, 0, state, auth, encrypt, flags).src(PEER).dst(LOCAL)
    };
    r.good("HMAC-SHA-256", sa(MATURE, SHA256, 0, 0).key(AKEY, 32), ALL);
    r.bad("no key", sa(MATURE, SHA256, 0, 0), EINVAL, 22);
    r.bad("no key comes before the state", sa(LARVAL, SHA256, 0, 0), EINVAL, 22);
    r.bad("no SA", msg(ADD, AH).src(PEER).dst(LOCAL), EINVAL, 20);
    r.bad("state", sa(DEAD, SHA256, 0, 0).key(AKEY, 32), EINVAL, 43);
    r.bad("a cipher", sa(MATURE, SHA256, NULL, 0).key(AKEY, 32), EINVAL, 46);
    r.bad("an encryption key", sa(MATURE, SHA256, 0, 0).key(AKEY, 32).key(EKEY, 16), EINVAL, 37);
    for flag in [F_PFS, F_NATT_LOC, F_NATT_REM, 0x800_0000, 0x1000] {
        r.bad(&format!("flag {flag:#x}"), sa(MATURE, SHA256, 0, flag).key(AKEY, 32), EINVAL, 42);
    }
    let soft = sa(MATURE, SHA256, 0, 0).key(AKEY, 32).lifetime(SOFT, 0, 9, 0, 0).lifetime(HARD, 0, 8, 0, 0);
    r.bad("soft bytes above hard", soft, EINVAL, 15);
    r.bad(
        "a current lifetime",
        sa(MATURE, SHA256, 0, 0).key(AKEY, 32).lifetime(CURRENT, 0, 0, 0, 0),
        EOPNOTSUPP,
        0,
    );
    r.bad("a label", sa(MATURE, SHA256, 0, 0).key(AKEY, 32).ext(SENS, &[0; 12]), EOPNOTSUPP, 0);
    r.bad("unknown integrity", sa(MATURE, 77, 0, 0).key(AKEY, 32), EINVAL, 40);
    r.bad("integrity 0", sa(MATURE, 0, 0, 0).key(AKEY, 32), EINVAL, 40);
    r.bad("a key of the wrong size", sa(MATURE, SHA256, 0, 0).key(AKEY, 20), EINVAL, 44);
    let natt = sa(MATURE, SHA256, 0, 0).key(AKEY, 32).addr(NATT_LOC, "203.0.113.9");
    r.good("a NAT-T address without its flag", natt, ALL);
}

pub(crate) fn insertion(r: &mut Table) {
    r.bad("a name that is taken", add_esp(IN, PEER, LOCAL), EEXIST, 0);
    r.bad("a name that is taken, from elsewhere", add_esp(IN, "203.0.113.7", LOCAL), EEXIST, 0);
    r.bad("a name a larval SA waits for", add_esp(LARVA, PEER, LOCAL), EEXIST, 0);
    r.bad("a name a dead SA still has", add_esp(DEAD_ONE, LOCAL, PEER), EEXIST, 0);
    r.good("a name another protocol has", add_ah(IN, PEER, LOCAL), ALL);
    r.good("a name another destination has", add_esp(IN, LOCAL, PEER), ALL);
    r.good("a name the other family has", add_esp(IN, PEER6, LOCAL6), ALL);
    let tunnel = |src, dst, proto| {
        msg(ADD, ESP)
            .sa_full(0xd00d, 32, MATURE, 0, GCM16, F_TUNNEL)
            .addr_full(SRC, PEER, 0, proto, 0)
            .addr_full(DST, LOCAL, 0, proto, 0)
            .inner(src, dst)
            .key(EKEY, 20)
    };
    r.good("a tunnel", tunnel("10.1.0.0/16", "10.2.0.0/16", 0), ALL);
    r.good("a tunnel that says so", tunnel("10.1.0.0/16", "10.2.0.0/16", 4), ALL);
    r.good("an IPv6 tunnel", tunnel("2001:db8:1::/48", "2001:db8:2::/48", 41), ALL);
    r.bad("IPv4 in protocol 41", tunnel("10.1.0.0/16", "10.2.0.0/16", 41), EPROTOTYPE, 0);
    r.bad("IPv6 in protocol 4", tunnel("2001:db8:1::/48", "2001:db8:2::/48", 4), EPROTOTYPE, 0);
    r.bad("IPv4 in TCP", tunnel("10.1.0.0/16", "10.2.0.0/16", 6), EPROTOTYPE, 0);
    let bare = msg(ADD, ESP).sa_full(1, 0, MATURE, 0, GCM16, F_TUNNEL).src(PEER).dst(LOCAL).key(EKEY, 20);
    r.bad("a tunnel without inner addresses", bare, EINVAL, 42);
    r.bad("a wide replay value alone", add_esp(1, PEER, LOCAL).replay(0, 5), EOPNOTSUPP, 81);
    r.good("a replay value", add_esp(1, PEER, LOCAL).replay(5, 0), ALL);
    r.bad("a pair with SPI 0", add_esp(1, PEER, LOCAL).pair(0), EINVAL, 73);
    r.bad("a pair with itself", add_esp(1, PEER, LOCAL).pair(1), EINVAL, 73);
    r.bad("a pair with nobody", add_esp(1, PEER, LOCAL).pair(0x9999), EINVAL, 73);
    r.bad("a pair with an SA that goes the same way", add_esp(1, LOCAL, PEER).pair(OUT), EINVAL, 73);
    r.bad("a pair with an SA between others", add_esp(1, "203.0.113.7", LOCAL).pair(OUT), EINVAL, 73);
    r.good("a pair with a larval SA", add_esp(1, LOCAL, PEER).pair(LARVA), ALL);
    r.bad("a pair with a dying SA", add_esp(1, PEER, LOCAL).pair(DYING_ONE), EINVAL, 73);
    r.bad("a pair with a dead SA", add_esp(1, PEER, LOCAL).pair(DEAD_ONE), EINVAL, 73);
    r.bad("a pair with a paired SA", add_esp(1, LOCAL, PEER).pair(PAIR_IN), EINVAL, 75);
    r.bad(
        "a pair of an SA for both directions",
        add_esp(1, "203.0.113.2", "203.0.113.1").pair(BOTH),
        EINVAL,
        73,
    );
    r.good("a pair", add_esp(1, LOCAL, PEER).pair(IN), ALL);
    r.good("a pair the other way round", add_esp(1, PEER, LOCAL).pair(OUT), ALL);
}
