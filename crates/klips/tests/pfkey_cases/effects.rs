//! What a message leaves behind, seen by the next.

use super::*;

fn update(spi: u32, src: &str, dst: &str) -> Msg {
    msg(UPDATE, ESP).sa(spi).src(src).dst(dst)
}

pub(crate) fn lifetimes(r: &mut Table) {
    let change = |kind, l: (u32, u64, u64, u64)| update(IN, PEER, LOCAL).lifetime(kind, l.0, l.1, l.2, l.3);
    let shown = |r: &mut Table, name: &str, steps: Vec<Msg>, kind, expected: &str| {
        r.good(name, get(ESP, IN, LOCAL), SENDER).after(steps).shows(expected, life_of(kind));
    };
    let hard = || change(HARD, (1, 2000, 3000, 4000));
    shown(r, "hard limits", vec![hard()], HARD, "Some((1, 2000, 3000, 4000))");
    shown(
        r,
        "zeros leave alone",
        vec![hard(), change(HARD, (0, 0, 0, 0))],
        HARD,
        "Some((1, 2000, 3000, 4000))",
    );
    shown(r, "one field", vec![hard(), change(HARD, (0, 9000, 0, 0))], HARD, "Some((1, 9000, 3000, 4000))");
    let soft = |l| change(SOFT, l);
    shown(
        r,
        "a soft limit below the hard one",
        vec![hard(), soft((0, 1000, 0, 0))],
        SOFT,
        "Some((0, 1000, 0, 0))",
    );
    shown(
        r,
        "soft bytes above the hard ones are cut",
        vec![hard(), soft((0, 5000, 0, 0))],
        SOFT,
        "Some((0, 2000, 0, 0))",
    );
    shown(
        r,
        "soft usetime above the hard one is cut",
        vec![hard(), soft((0, 0, 0, 9000))],
        SOFT,
        "Some((0, 0, 0, 4000))",
    );
    // Reference Q10: no hard limit is no limit, not one of 0.
    shown(r, "soft bytes without hard ones stay", vec![soft((0, 5000, 0, 0))], SOFT, "Some((0, 5000, 0, 0))");
    shown(
        r,
        "soft usetime without a hard one stays",
        vec![soft((0, 0, 0, 5000))],
        SOFT,
        "Some((0, 0, 0, 5000))",
    );
    shown(r, "idle limits", vec![change(IDLE, (0, 0, 100, 200))], IDLE, "Some((0, 0, 100, 200))");
    shown(r, "no limits, no extension", vec![change(HARD, (0, 0, 0, 0))], HARD, "None");
    let refused = update(IN, PEER, LOCAL).lifetime(HARD, 0, 50, 0, 0).key(AKEY, 32);
    r.good("a refused UPDATE changes nothing", get(ESP, IN, LOCAL), SENDER)
        .after_refused(refused)
        .shows("None", life_of(HARD));
    let other = msg(UPDATE, ESP).sa_full(IN, 99, MATURE, 7, 12, F_NOREPLAY).src(PEER).dst(LOCAL);
    r.good("UPDATE changes neither algorithms nor window", get(ESP, IN, LOCAL), SENDER)
        .after([other])
        .shows("spi 0x1000 replay 32 state 1 auth 0 encrypt 20", sa_of);
    r.bad(
        "a dying SA stays dying: a replay value may come",
        update(DYING_ONE, LOCAL, PEER).replay(0, 0).kmc(9, 0),
        EINVAL,
        49,
    )
    .after([update(DYING_ONE, LOCAL, PEER).kmc(1, 0)]);
    r.good("a dying SA, its state", get(ESP, DYING_ONE, PEER), SENDER)
        .shows("2", |heard| heard.state().unwrap_or(9).to_string());
    r.good("a dead SA, its state", get(ESP, DEAD_ONE, PEER), SENDER)
        .shows("3", |heard| heard.state().unwrap_or(9).to_string());
}

pub(crate) fn pairs(r: &mut Table) {
    let bind = || update(OUT, LOCAL, PEER).pair(IN);
    let spi = |heard: &Heard| format!("{:?} {}", heard.find(PAIR), flags_of(heard));
    let paired = |spi: u32, flags: &str| format!("{:?} {flags}", Some(spi.to_be_bytes()));
    r.good("both know: one", get(ESP, OUT, PEER), SENDER)
        .after([bind()])
        .shows(paired(IN, "OUT PAIRED EALG2 EALG1"), spi);
    r.good("both know: the other", get(ESP, IN, LOCAL), SENDER)
        .after([bind()])
        .shows(paired(OUT, "IN PAIRED EALG2 EALG1"), spi);
    r.good("bound twice", bind(), ALL).after([bind()]);
    let add = |pair| add_esp(0xeeee, PEER, LOCAL).pair(pair);
    r.bad("an ADD that cannot be paired leaves nothing", get(ESP, 0xeeee, LOCAL), ESRCH, 78)
        .after_refused(add(0x9999));
    r.good("it can be added again at once (Q20)", add(OUT), ALL).after_refused(add(0x9999));
    r.good("a refused pair leaves the other alone", get(ESP, PAIR_OUT, PEER), SENDER)
        .after_refused(add(PAIR_OUT))
        .shows(paired(PAIR_IN, "OUT PAIRED EALG2 EALG1"), spi);
    let failed = msg(UPDATE, ESP).sa_full(LARVA, 0, MATURE, 0, GCM16, 0).src(PEER).dst(LOCAL).key(EKEY, 20);
    r.good("a larval partner that could not be made mature leaves no pair", get(ESP, OUT, PEER), SENDER)
        .after([update(OUT, LOCAL, PEER).pair(LARVA)])
        .after_refused(failed.pair(0x9999))
        .shows("None OUT EALG2 EALG1", spi);
    let gone = || msg(DELETE, ESP).sa(PAIR_IN).dst(LOCAL);
    r.good("DELETE of one leaves the other unpaired", get(ESP, PAIR_OUT, PEER), SENDER)
        .after([gone()])
        .shows("None OUT EALG2 EALG1", spi);
    r.bad("DELPAIR of what was left", msg(DELPAIR, ESP).sa(PAIR_OUT).dst(PEER), ESRCH, 76).after([gone()]);
    let lone = || msg(DELPAIR, ESP).sa(IN).dst(LOCAL);
    r.bad("DELPAIR without a pair deletes all the same", get(ESP, IN, LOCAL), ESRCH, 78)
        .after_refused(lone());
    let both = || msg(DELPAIR, ESP).sa(PAIR_IN).dst(LOCAL);
    r.bad("DELPAIR deletes one", get(ESP, PAIR_IN, LOCAL), ESRCH, 78).after([both()]);
    r.bad("DELPAIR deletes the other", get(ESP, PAIR_OUT, PEER), ESRCH, 78).after([both()]);
    r.good("DELPAIR shows the first", both(), ALL).shows("Some(20480)", |heard| format!("{:?}", heard.spi()));
    let life = |spi, src, dst| msg(UPDATEPAIR, ESP).sa(spi).src(src).dst(dst).lifetime(HARD, 0, 77, 0, 0);
    for (name, spi, dst) in [("UPDATEPAIR: one", PAIR_IN, LOCAL), ("UPDATEPAIR: the other", PAIR_OUT, PEER)] {
        r.good(name, get(ESP, spi, dst), SENDER)
            .after([life(PAIR_OUT, LOCAL, PEER)])
            .shows("Some((0, 77, 0, 0))", life_of(HARD));
    }
    r.good("UPDATEPAIR without a pair has changed the first", get(ESP, OUT, PEER), SENDER)
        .after_refused(life(OUT, LOCAL, PEER))
        .shows("Some((0, 77, 0, 0))", life_of(HARD));
    r.good("UPDATE leaves the other of a pair alone", get(ESP, PAIR_IN, LOCAL), SENDER)
        .after([update(PAIR_OUT, LOCAL, PEER).lifetime(HARD, 0, 77, 0, 0)])
        .shows("None", life_of(HARD));
}

pub(crate) fn removal(r: &mut Table) {
    let gone = |r: &mut Table, name: &str, by: Msg, satype, spi, dst| {
        r.bad(name, get(satype, spi, dst), ESRCH, 78).after([by]);
    };
    let stays = |r: &mut Table, name: &str, by: Msg, satype, spi, dst| {
        r.good(name, get(satype, spi, dst), SENDER).after([by]);
    };
    gone(r, "DELETE", msg(DELETE, ESP).sa(IN).dst(LOCAL), ESP, IN, LOCAL);
    gone(r, "DELETE of an SA for both directions", msg(DELETE, ESP).sa(BOTH).dst(FAR2), ESP, BOTH, FAR2);
    gone(r, "DELETE of a larval SA", msg(DELETE, ESP).sa(LARVA).dst(LOCAL), ESP, LARVA, LOCAL);
    stays(r, "DELETE of one spares another", msg(DELETE, ESP).sa(IN).dst(LOCAL), ESP, PAIR_IN, LOCAL);
    gone(r, "FLUSH", msg(FLUSH, 0), ESP, IN, LOCAL);
    gone(r, "FLUSH takes larval ones", msg(FLUSH, ESP), ESP, LARVA, LOCAL);
    gone(r, "FLUSH of all takes AH", msg(FLUSH, 0), AH, AH_IN, LOCAL);
    stays(r, "FLUSH of ESP spares AH", msg(FLUSH, ESP), AH, AH_IN, LOCAL);
    stays(r, "FLUSH of AH spares ESP", msg(FLUSH, AH), ESP, IN, LOCAL);
    let purge = || msg(DELETE, ESP);
    gone(r, "purge by destination", purge().dst(LOCAL), ESP, IN, LOCAL);
    stays(r, "purge by destination spares others", purge().dst(LOCAL), ESP, OUT, PEER);
    stays(r, "purge spares larval ones", purge().dst(LOCAL), ESP, LARVA, LOCAL);
    stays(r, "purge spares the other type", purge().dst(LOCAL), AH, AH_IN, LOCAL);
    gone(r, "purge by source", purge().src(PEER), ESP, IN, LOCAL);
    stays(r, "purge by source spares others", purge().src(PEER), ESP, OUT, PEER);
    stays(r, "purge by both needs both", purge().src(FAR).dst(LOCAL), ESP, IN, LOCAL);
    let named = || {
        add_esp(0xeeee, PEER, LOCAL).ident(ID_SRC, 2, "a.example").ident(ID_DST, 2, "b.example").kmc(3, 77)
    };
    let mut by = |name: &str, by: Msg, goes: bool| {
        let ask = get(ESP, 0xeeee, LOCAL);
        let case = if goes { r.bad(name, ask, ESRCH, 78) } else { r.good(name, ask, SENDER) };
        case.after([named(), by]);
    };
    by("purge by identity", purge().dst(LOCAL).ident(ID_SRC, 2, "a.example"), true);
    by("purge by another identity", purge().dst(LOCAL).ident(ID_SRC, 2, "c.example"), false);
    by("purge by another type of identity", purge().dst(LOCAL).ident(ID_SRC, 3, "a.example"), false);
    by(
        "purge by both identities",
        purge().dst(LOCAL).ident(ID_SRC, 2, "a.example").ident(ID_DST, 2, "b.example"),
        true,
    );
    by(
        "purge by the wrong one of two",
        purge().dst(LOCAL).ident(ID_SRC, 2, "a.example").ident(ID_DST, 2, "x"),
        false,
    );
    by("purge by cookie", purge().dst(LOCAL).kmc(3, 77), true);
    by("purge by another cookie", purge().dst(LOCAL).kmc(3, 78), false);
    by("purge by another key manager", purge().dst(LOCAL).kmc(1, 77), false);
    by("purge by key manager alone", purge().dst(LOCAL).kmc(3, 0), true);
    r.good("purge by identity spares those without", get(ESP, IN, LOCAL), SENDER)
        .after([purge().dst(LOCAL).ident(ID_SRC, 2, "a.example")]);
    r.good("purge by cookie takes those without", get(ESP, PAIR_OUT, PEER), SENDER)
        .after([purge().dst(LOCAL).kmc(3, 77)])
        .shows("OUT EALG2 EALG1", flags_of);
    r.good("a name is free once deleted", add_esp(IN, PEER, LOCAL), ALL)
        .after([msg(DELETE, ESP).sa(IN).dst(LOCAL)]);
    let failed =
        msg(UPDATE, ESP).sa_full(LARVA, 0, MATURE, 0, GCM16, F_TUNNEL).src(PEER).dst(LOCAL).key(EKEY, 20);
    r.bad("a larval SA that could not be made mature is gone", get(ESP, LARVA, LOCAL), ESRCH, 78)
        .after_refused(failed);
    let early = msg(UPDATE, ESP).sa_full(LARVA, 0, MATURE, 0, GCM16, 0).src(PEER).dst(LOCAL);
    r.good("one that was refused before that is not", get(ESP, LARVA, LOCAL), SENDER).after_refused(early);
}

/// The native messages.
const ADDFLOW: u8 = 128;
const REPLACEFLOW: u8 = 129;
const DELFLOW: u8 = 130;
const FLUSHFLOWS: u8 = 131;
const DUMPFLOWS: u8 = 132;
const FLOW: u16 = 128;
/// What an eroute does.
const PASS: u8 = 1;
const DROP: u8 = 2;

fn flow(kind: u8, action: u8, src: &str, dst: &str) -> Msg {
    let mut body = vec![action, 0, 0, 0];
    body.extend([0; 16]);
    msg(kind, 0).inner(src, dst).ext(FLOW, &body)
}

pub(crate) fn eroutes(r: &mut Table) {
    let (a, b) = ("10.1.0.0/16", "10.2.0.0/16");
    let add = |action| flow(ADDFLOW, action, a, b);
    let delete = || msg(DELFLOW, 0).inner(a, b);
    r.good("ADDFLOW", add(PASS), ALL).exts(&[INNER_SRC, INNER_DST, FLOW]);
    let refused = |r: &mut Table, name: &str, request: Msg, errno, diagnostic| {
        let kind = request.octets[1];
        r.case(name, request, kind, errno, diagnostic, SENDER);
    };
    refused(r, "ADDFLOW without an action", msg(ADDFLOW, 0).inner(a, b), EINVAL, 3);
    refused(r, "ADDFLOW of an unknown action", flow(ADDFLOW, 99, a, b), EINVAL, 3);
    let half = |kind| msg(ADDFLOW, 0).addr_full(kind, "10.0.0.0", 0, 0, 8).ext(FLOW, &[PASS; 20]);
    refused(r, "ADDFLOW without an inner source", half(INNER_DST), EINVAL, 58);
    refused(r, "ADDFLOW without an inner destination", half(INNER_SRC), EINVAL, 59);
    refused(r, "ADDFLOW between families", flow(ADDFLOW, PASS, a, "2001:db8::/32"), EINVAL, 67);
    r.case("ADDFLOW of what is there", add(DROP), ADDFLOW, EEXIST, 0, SENDER).after([add(PASS)]);
    r.good("REPLACEFLOW of what is there", flow(REPLACEFLOW, DROP, a, b), ALL).after([add(PASS)]);
    r.good("REPLACEFLOW of what is not there", flow(REPLACEFLOW, DROP, a, b), ALL);
    r.good("DELFLOW", delete(), ALL).after([add(PASS)]);
    r.case("DELFLOW of what is not there", delete(), DELFLOW, ENOENT, 0, SENDER);
    let wider = flow(ADDFLOW, PASS, "10.0.0.0/8", b);
    r.case("DELFLOW of a part of what is there", delete(), DELFLOW, ENOENT, 0, SENDER).after([wider]);
    r.good("FLUSHFLOWS", msg(FLUSHFLOWS, 0), ALL).after([add(PASS)]);
    r.case("after FLUSHFLOWS", delete(), DELFLOW, ENOENT, 0, SENDER).after([add(PASS), msg(FLUSHFLOWS, 0)]);
    r.good("DUMPFLOWS", msg(DUMPFLOWS, 0), SENDER)
        .after([add(PASS)])
        .exts(&[INNER_SRC, INNER_DST, FLOW])
        .ends_dump();
    r.case("DUMPFLOWS of nothing", msg(DUMPFLOWS, 0), DUMPFLOWS, 0, 0, SENDER).only_end();
    r.good("REPLACEFLOW: what is there now", msg(DUMPFLOWS, 0), SENDER)
        .after([add(PASS), flow(REPLACEFLOW, DROP, a, b)])
        .shows("2", |heard| heard.find(FLOW).map_or(99, |body| body[0]).to_string())
        .ends_dump();
    let protect = flow(ADDFLOW, 0, a, b);
    refused(r, "protection without an SA", protect.clone(), EINVAL, 5);
    let mut named = protect.sa(0x777).dst(PEER);
    named.octets[3] = ESP;
    r.good("protection by an SA that is yet to come", named.clone(), ALL);
    r.good("it is shown with its SA", msg(DUMPFLOWS, 0), SENDER)
        .after([named])
        .exts(&[SA, DST, INNER_SRC, INNER_DST, FLOW])
        .ends_dump();
}
