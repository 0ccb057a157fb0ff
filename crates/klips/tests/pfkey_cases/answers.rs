//! What successful answers are made of, and in which order.

use super::*;

/// Everything an SA can have, an ADD of it.
fn rich() -> Msg {
    msg(ADD, ESP)
        .ident(ID_DST, 2, "b.example")
        .ident(ID_SRC, 3, "a@a.example")
        .kmc(3, 0x1122_3344_5566_7788)
        .key(AKEY, 32)
        .addr_full(DST, LOCAL, 0, 4, 0)
        .sa_full(0xd00d, 32, MATURE, SHA256, AES_CBC, F_TUNNEL | F_NATT_LOC | F_NATT_REM)
        .addr_full(NATT_REM, "203.0.113.9", 4501, 17, 0)
        .addr_full(NATT_LOC, "0.0.0.0", 4500, 17, 0)
        .lifetime(IDLE, 0, 0, 500, 600)
        .lifetime(SOFT, 1, 1000, 2000, 3000)
        .lifetime(HARD, 2, 2000, 4000, 6000)
        .key(EKEY, 16)
        .inner("10.1.2.3/16", "10.2.3.4/16")
        .addr_full(SRC, PEER, 0, 4, 0)
        .pair(OUT)
}

/// The same without keys, as everyone hears it.
const RICH_ECHO: &[u16] =
    &[ID_DST, ID_SRC, KMC, DST, SA, NATT_REM, NATT_LOC, IDLE, SOFT, HARD, INNER_SRC, INNER_DST, SRC, PAIR];
const RICH: &[u16] = &[
    SA, CURRENT, HARD, SOFT, IDLE, SRC, DST, NATT_LOC, NATT_REM, INNER_SRC, INNER_DST, KMC, AKEY, EKEY,
    ID_SRC, ID_DST, PAIR,
];
const RICH_WITHOUT_KEYS: &[u16] = &[
    SA, CURRENT, HARD, SOFT, IDLE, SRC, DST, NATT_LOC, NATT_REM, INNER_SRC, INNER_DST, KMC, ID_SRC, ID_DST,
    PAIR,
];

pub(crate) fn answers(r: &mut Table) {
    let getspi = || msg(GETSPI, ESP).src(PEER).dst(LOCAL);
    let got =
        r.good("GETSPI: the range becomes an SA", getspi().range(0x777, 0x777), ALL).exts(&[SRC, DST, SA]);
    got.shows("spi 0x777 replay 0 state 0 auth 0 encrypt 0", sa_of);
    let first = msg(GETSPI, ESP).range(0x777, 0x777).kmc(1, 2).src(PEER).dst(LOCAL);
    r.good("GETSPI: the SA is where the range was", first, ALL).exts(&[SA, KMC, SRC, DST]);
    let two = getspi().sa(0x888).range(0x777, 0x777);
    r.good("GETSPI: one SA, whatever was asked", two, ALL)
        .exts(&[SRC, DST, SA])
        .shows("spi 0x777 replay 0 state 0 auth 0 encrypt 0", sa_of);
    r.good("ADD: a range stays one", add_esp(0x777, PEER, LOCAL).range(1, 2), ALL)
        .exts(&[SA, SRC, DST, RANGE]);
    let keys = getspi().range(0x777, 0x777).key(EKEY, 16).key(AKEY, 16);
    r.good("GETSPI: keys are not sent back", keys, ALL).exts(&[SRC, DST, SA]);
    r.good("a larval SA, shown", get(ESP, LARVA, LOCAL), SENDER)
        .exts(&[SA, CURRENT, SRC, DST])
        .shows("spi 0x4000 replay 0 state 0 auth 0 encrypt 0", sa_of);

    r.good("ADD: everything but the keys", rich(), ALL).exts(RICH_ECHO);
    r.good("GET: everything, in its order", get(ESP, 0xd00d, LOCAL), SENDER).after([rich()]).exts(RICH);
    let gone = msg(DELETE, ESP).sa(0xd00d).dst(LOCAL);
    r.good("DELETE: everything but the keys", gone.clone(), ALL).after([rich()]).exts(RICH_WITHOUT_KEYS);
    r.good("DELETE: dead", gone, ALL)
        .after([rich()])
        .shows("spi 0xd00d replay 32 state 3 auth 5 encrypt 12", sa_of);
    let shown = |r: &mut Table, name: &str, expected: String, render: Render| {
        r.good(name, get(ESP, 0xd00d, LOCAL), SENDER).after([rich()]).shows(expected, render);
    };
    shown(r, "GET: SA", "spi 0xd00d replay 32 state 1 auth 5 encrypt 12".into(), Box::new(sa_of));
    shown(r, "GET: flags", "IN PAIRED TUNNEL NATT_REM NATT_LOC".into(), Box::new(flags_of));
    shown(r, "GET: hard", "Some((2, 2000, 4000, 6000))".into(), Box::new(life_of(HARD)));
    shown(r, "GET: soft", "Some((1, 1000, 2000, 3000))".into(), Box::new(life_of(SOFT)));
    shown(r, "GET: idle", "Some((0, 0, 500, 600))".into(), Box::new(life_of(IDLE)));
    shown(r, "GET: source", format!("{PEER}:0 proto 4 prefix 0"), Box::new(address_of(SRC)));
    shown(r, "GET: NAT-T local", "0.0.0.0:4500 proto 17 prefix 0".into(), Box::new(address_of(NATT_LOC)));
    shown(
        r,
        "GET: NAT-T remote",
        "203.0.113.9:4501 proto 17 prefix 0".into(),
        Box::new(address_of(NATT_REM)),
    );
    shown(
        r,
        "GET: inner source, masked",
        "10.1.0.0:0 proto 0 prefix 16".into(),
        Box::new(address_of(INNER_SRC)),
    );
    shown(
        r,
        "GET: inner destination",
        "10.2.0.0:0 proto 0 prefix 16".into(),
        Box::new(address_of(INNER_DST)),
    );
    let mut cookie = 3_u32.to_ne_bytes().to_vec();
    cookie.extend(0x1122_3344_5566_7788_u64.to_ne_bytes());
    shown(r, "GET: cookie", format!("{:?}", Some(cookie)), Box::new(body_of(KMC)));
    shown(r, "GET: pair", format!("{:?}", Some(OUT.to_be_bytes())), Box::new(body_of(PAIR)));
    let key = |bits: u16, salt: u16, octets: u8| {
        let mut body = [bits.to_ne_bytes(), salt.to_ne_bytes()].concat();
        body.extend(1..=octets);
        body.resize(4 + usize::from(octets).next_multiple_of(8), 0);
        format!("{:?}", Some(body))
    };
    shown(r, "GET: authentication key", key(256, 0, 32), Box::new(body_of(AKEY)));
    shown(r, "GET: encryption key", key(128, 0, 16), Box::new(body_of(EKEY)));
    r.good("GET: the salt is counted apart", get(ESP, IN, LOCAL), SENDER)
        .shows(key(128, 32, 20), body_of(EKEY));
    let ident = |r: &mut Table, name: &str, kind, idtype: u16, text: &str| {
        let mut body = idtype.to_ne_bytes().to_vec();
        body.extend([0; 10]);
        body.extend(text.as_bytes());
        body.push(0);
        body.resize(4 + body.len().next_multiple_of(8), 0);
        let body: Vec<u8> = body.into_iter().take(12 + (text.len() + 1).next_multiple_of(8)).collect();
        shown(r, name, format!("{:?}", Some(body)), Box::new(body_of(kind)));
    };
    ident(r, "GET: source identity", ID_SRC, 3, "a@a.example");
    ident(r, "GET: destination identity", ID_DST, 2, "b.example");
    // The last octet of an identity without its NUL makes room for one, and its extension is as long as it was.
    let unterminated = |kind| [&2_u16.to_ne_bytes()[..], &[0; 10], kind].concat();
    let named = || add_esp(0xd00e, PEER, LOCAL).ext(ID_SRC, &unterminated(b"abcdefgh"));
    let cut = format!("{:?}", Some(unterminated(b"abcdefg\0")));
    r.good("ADD: an identity without its NUL", named(), ALL).shows(cut.clone(), body_of(ID_SRC));
    r.good("GET: an identity without its NUL", get(ESP, 0xd00e, LOCAL), SENDER)
        .after([named()])
        .shows(cut, body_of(ID_SRC));
    let short = || add_esp(0xd00e, PEER, LOCAL).ext(ID_SRC, &unterminated(b"abc\0\0fgh"));
    let as_came = format!("{:?}", Some(unterminated(b"abc\0\0fgh")));
    r.good("ADD: an identity with octets after its NUL", short(), ALL).shows(as_came, body_of(ID_SRC));
    let clean = format!("{:?}", Some(unterminated(b"abc\0\0\0\0\0")));
    r.good("GET: an identity with octets after its NUL", get(ESP, 0xd00e, LOCAL), SENDER)
        .after([short()])
        .shows(clean, body_of(ID_SRC));
    // IPv4 in IPv6 clothes is answered as IPv4 in as much room.
    let lengths = |heard: &Heard| {
        let words = |kind| heard.find(kind).map(|body| (body.len() + 4) / 8);
        let v4 = |kind| heard.address(kind).map(|(socket, ..)| socket.is_ipv4());
        format!("{:?} {:?} {:?} {:?}", words(SRC), words(DST), v4(SRC), v4(DST))
    };
    let mapped = |m: Msg| m.src(&format!("::ffff:{PEER}")).dst(LOCAL);
    let wide = "Some(5) Some(3) Some(true) Some(true)";
    let add = mapped(msg(ADD, ESP).sa_full(0xd00f, 32, MATURE, 0, GCM16, 0)).key(EKEY, 20);
    r.good("ADD: a mapped address", add.clone(), ALL).shows(wide, lengths);
    r.good("GET: a mapped address that was added", get(ESP, 0xd00f, LOCAL), SENDER)
        .after([add])
        .shows("Some(3) Some(3) Some(true) Some(true)", lengths);
    r.good("GETSPI: a mapped address", mapped(msg(GETSPI, ESP)).range(0x777, 0x777), ALL)
        .shows(wide, lengths);
    r.good("UPDATE: a mapped address", mapped(msg(UPDATE, ESP).sa(IN)), ALL).shows(wide, lengths);

    r.good("GET: the least there is", get(ESP, IN, LOCAL), SENDER).exts(&[SA, CURRENT, SRC, DST, EKEY]);
    r.good("GET: AH", get(AH, AH_IN, LOCAL), SENDER).exts(&[SA, CURRENT, SRC, DST, AKEY]);
    r.good("GET: flags of a combined cipher", get(ESP, IN, LOCAL), SENDER).shows("IN EALG2 EALG1", flags_of);
    let hint = msg(GET, ESP).sa_full(IN, 7, DEAD, 9, 9, F_OUT).dst(LOCAL).src("0.0.0.0").kmc(7, 7);
    r.good("GET: what is stored, not what was asked", hint, SENDER)
        .shows("spi 0x1000 replay 32 state 1 auth 0 encrypt 20", sa_of);

    let narrow = add_esp(1, PEER, LOCAL).kmc(1, u64::from_ne_bytes([1, 2, 3, 4, 5, 6, 7, 8]));
    let mut kept = 1_u32.to_ne_bytes().to_vec();
    kept.extend([1, 2, 3, 4, 0, 0, 0, 0]);
    r.good("an IKEv1 cookie has 32 bits", get(ESP, 1, LOCAL), SENDER)
        .after([narrow])
        .shows(format!("{:?}", Some(kept)), body_of(KMC));
    let mapped =
        msg(ADD, ESP).sa_full(1, 0, MATURE, 0, GCM16, 0).src("::ffff:198.51.100.2").dst("::ffff:192.0.2.1");
    r.good("ADD: a mapped address is answered as IPv4", mapped.key(EKEY, 20), ALL)
        .shows(format!("{PEER}:0 proto 0 prefix 0"), address_of(SRC));
    let tunnel = add_esp(1, PEER, LOCAL).inner("10.1.2.3/8", "2.2.2.2/32");
    r.good("ADD: the outer protocol of a tunnel is filled in", tunnel.clone(), ALL)
        .shows(format!("{LOCAL}:0 proto 4 prefix 0"), address_of(DST));
    r.good("ADD: an inner prefix is answered masked", tunnel, ALL)
        .shows("10.0.0.0:0 proto 0 prefix 8", address_of(INNER_SRC));
    let tunnel6 = add_esp(1, PEER, LOCAL).inner("2001:db8::/32", "2001:db8::/32");
    r.good("ADD: IPv6 inside is protocol 41", tunnel6, ALL)
        .shows(format!("{LOCAL}:0 proto 41 prefix 0"), address_of(DST));
    let ports = msg(ADD, ESP).sa_full(1, 0, MATURE, 0, GCM16, 0).addr_full(SRC, PEER, 0, 6, 0);
    let ports = ports.addr_full(DST, LOCAL, 443, 6, 0).key(EKEY, 20);
    r.good("ADD: a port makes it unique", ports.clone(), ALL).shows("IN EALG2 EALG1 UNIQUE", flags_of);
    r.good("GET: ports and protocol", get(ESP, 1, LOCAL), SENDER)
        .after([ports])
        .shows(format!("{LOCAL}:443 proto 6 prefix 0"), address_of(DST));
    let nameless = add_esp(1, "0.0.0.0", LOCAL);
    r.good("no window without a source", get(ESP, 1, LOCAL), SENDER)
        .after([nameless])
        .shows("spi 0x1 replay 0 state 1 auth 0 encrypt 20", sa_of);
    let larval = msg(UPDATE, ESP).sa_full(LARVA, 32, MATURE, 0, GCM16, 0).src(PEER).dst(LOCAL).key(EKEY, 20);
    r.good("UPDATE of a larval SA: its final flags, no key", larval.clone(), ALL)
        .exts(&[SA, SRC, DST])
        .shows("IN EALG2 EALG1", flags_of);
    r.good("a larval SA made mature", get(ESP, LARVA, LOCAL), SENDER)
        .after([larval])
        .shows("spi 0x4000 replay 32 state 1 auth 0 encrypt 20", sa_of);
    r.good("FLUSH: the base header", msg(FLUSH, ESP), ALL).exts(&[]);
    let purge = msg(DELETE, ESP).dst(LOCAL).ident(ID_SRC, 2, "nobody").kmc(9, 9);
    r.good("purge: the request again", purge, ALL).exts(&[DST, ID_SRC, KMC]);
    r.good("PROMISC: the request again", msg(PROMISC, 9).src(LOCAL).kmc(1, 1), SENDER).exts(&[SRC, KMC]);
    r.good("REGISTER AH", msg(REGISTER, AH), "sap").exts(&[SUPPORTED_AUTH]);
    r.good("REGISTER ESP", msg(REGISTER, ESP), "sep").exts(&[SUPPORTED_AUTH, SUPPORTED_ENCRYPT]);
    let row = |kind, id: u8| {
        move |heard: &Heard| {
            let body = heard.find(kind).unwrap_or_default();
            format!("{:?}", body[4..].chunks(8).find(|row| row[0] == id))
        }
    };
    let supported = |id: u8, iv: u8, min: u16, max: u16, step: u8, salt: u8| {
        let bits = [min.to_ne_bytes(), max.to_ne_bytes()].concat();
        format!("{:?}", Some([&[id, iv][..], &bits, &[step, salt]].concat()))
    };
    for (name, id, bits) in
        [("MD5", MD5, 128), ("SHA-1", 3, 160), ("SHA-256", SHA256, 256), ("SHA-512", 7, 512)]
    {
        r.good(&format!("REGISTER: HMAC-{name}"), msg(REGISTER, AH), "sap")
            .shows(supported(id, 0, bits, bits, 0, 0), row(SUPPORTED_AUTH, id));
    }
    for (name, id, iv, min, max, step, salt) in [
        ("3DES", TDES, 8, 192, 192, 0, 0),
        ("NULL", NULL, 0, 0, 0, 0, 0),
        ("AES-CBC", AES_CBC, 16, 128, 256, 64, 0),
        ("AES-CCM-16", 16, 8, 128, 256, 64, 24),
        ("AES-GCM-16", GCM16, 8, 128, 256, 64, 32),
    ] {
        r.good(&format!("REGISTER: {name}"), msg(REGISTER, ESP), "sep")
            .shows(supported(id, iv, min, max, step, salt), row(SUPPORTED_ENCRYPT, id));
    }
    let ereg = |types: &[u8]| msg(REGISTER, 0).ext(EREG, types);
    let satype = |heard: &Heard| heard.satype.to_string();
    r.good("extended REGISTER of two types has two answers", ereg(&[AH, ESP, 0, 0]), "sap")
        .and(REGISTER, 0, 0, "sep")
        .shows("2", satype);
    r.good("its order is that of the list", ereg(&[ESP, AH, 0, 0]), "sep")
        .and(REGISTER, 0, 0, "sap")
        .shows("3", satype);
    r.case(
        "an unknown type in the list spares the others",
        ereg(&[77, ESP, 0, 0]),
        REGISTER,
        EINVAL,
        4,
        SENDER,
    )
    .and(REGISTER, 0, 0, "sep");
    r.good("the list ends at 0", ereg(&[ESP, 0, 77, AH]), "sep");
    r.bad("a refused extended REGISTER leaves no mark", ereg(&[]), EBUSY, 0).after([msg(REGISTER, AH)]);
    r.good("without EREG nothing is registered", msg(REGISTER, ESP), "sep").after_refused(msg(REGISTER, 0));
    r.good("an empty EREG registers nothing", msg(REGISTER, ESP), "sep").after_refused(ereg(&[0; 4]));
    let mut odd = get(ESP, IN, LOCAL).errno(5);
    odd.octets[6..8].copy_from_slice(&77_u16.to_ne_bytes());
    r.good("errno and diagnostic of a request are not echoed (Q17)", odd, SENDER);
    let mut version = get(ESP, IN, LOCAL);
    version.octets[0] = 9;
    r.good("the version is not looked at, and echoed", version, SENDER)
        .shows("9", |heard| heard.octets[0].to_string());
    r.good("any seq will do", get(ESP, IN, LOCAL).seq(0), SENDER);
}

pub(crate) fn directions(r: &mut Table) {
    let cases = [
        ("to me", PEER, LOCAL, 0, "IN"),
        ("from me", LOCAL, PEER, 0, "OUT"),
        ("between others", FAR, "203.0.113.7", 0, "IN OUT"),
        ("from anyone to another", "0.0.0.0", "203.0.113.7", 0, "IN OUT"),
        ("from anyone to me", "0.0.0.0", LOCAL, 0, "IN"),
        ("from me to me", LOCAL, LOCAL, 0, "IN"),
        ("from me to many", LOCAL, "224.0.0.5", 0, "IN OUT"),
        ("from another to many", PEER, "224.0.0.5", 0, "IN OUT"),
        ("IPv6 to me", PEER6, LOCAL6, 0, "IN"),
        ("IPv6 from me", LOCAL6, PEER6, 0, "OUT"),
        ("said to be inbound", LOCAL, PEER, F_IN, "IN"),
        ("said to be outbound", PEER, LOCAL, F_OUT, "OUT"),
        ("said to be both", PEER, LOCAL, F_IN | F_OUT, "IN OUT"),
    ];
    for (name, src, dst, flags, expected) in cases {
        let add = msg(ADD, ESP).sa_full(1, 0, MATURE, 0, GCM16, flags).src(src).dst(dst).key(EKEY, 20);
        r.good(name, add, ALL).shows(format!("{expected} EALG2 EALG1"), flags_of);
    }
    let add = msg(ADD, ESP).sa_full(1, 0, MATURE, 0, GCM16, F_PAIRED).src(PEER).dst(LOCAL).key(EKEY, 20);
    r.good("PAIRED may be said", add, ALL);
    let both = msg(ADD, ESP).sa_full(1, 0, MATURE, 0, GCM16, F_IN | F_OUT).src(PEER).dst(LOCAL).key(EKEY, 20);
    r.bad("said to be both, and paired", both.pair(OUT), EINVAL, 73);
}

pub(crate) fn dumps(r: &mut Table) {
    let dump = |satype| msg(DUMP, satype);
    r.good("AH: one SA and the end", dump(AH), SENDER).exts(&[SA, CURRENT, SRC, DST, AKEY]).ends_dump();
    let clean = || [msg(FLUSH, 0)];
    r.case("of nothing: the end alone", dump(0), DUMP, 0, 0, SENDER).after(clean()).only_end();
    r.good("of one type after a FLUSH of the other", dump(AH), SENDER).after([msg(FLUSH, ESP)]).ends_dump();
    r.case("FLUSH of one type", dump(AH), DUMP, 0, 0, SENDER).after([msg(FLUSH, AH)]).only_end();
    r.good("a larval SA is shown", dump(ESP), SENDER)
        .after([msg(FLUSH, 0), msg(GETSPI, ESP).src(PEER).dst(LOCAL).range(7000, 7000)])
        .exts(&[SA, CURRENT, SRC, DST])
        .ends_dump();
    r.good("AH comes first", dump(0), SENDER)
        .after([msg(FLUSH, 0), add_esp(1, PEER, LOCAL), add_ah(2, PEER, LOCAL)])
        .and(DUMP, 0, 0, SENDER)
        .shows("2", |heard| heard.satype.to_string())
        .ends_dump();
    r.good("IPv4 comes before IPv6", dump(ESP), SENDER)
        .after([msg(FLUSH, 0), add_esp(1, PEER6, LOCAL6), add_esp(2, PEER, LOCAL)])
        .and(DUMP, 0, 0, SENDER)
        .shows("Some(2)", |heard| format!("{:?}", heard.spi()))
        .ends_dump();
    r.good("an SA for both directions is shown once", dump(ESP), SENDER)
        .after([msg(FLUSH, 0), add_esp(1, FAR, FAR2)])
        .ends_dump();
    r.case("EDUMP leaves out what was not used", dump(ESP).edump(100), DUMP, 0, 0, SENDER).only_end();
    r.good("EDUMP of 0 leaves out nothing", dump(AH).edump(0), SENDER).ends_dump();
}
