//! Every documented fault and behaviour of pf_key(7P), one case each: request, answer, who hears it.
//!
//! Each case runs on a fresh service with the same SAs and the same sockets ([`World`]); its answer must be the expected
//! one, and it must reach exactly the expected sockets.

mod pfkey_support;

use klips::SocketId;
use pfkey_support::*;
use std::time::Duration;

/// One socket of every kind.
struct World {
    service: Service,
    /// Letter and socket: s asks, o only listens, a and e have a plain REGISTER for AH and ESP, x an extended one for
    /// both, p is promiscuous, d has loopback off.
    sockets: Vec<(char, SocketId)>,
}

const ALL: &str = "aeops x";
const SENDER: &str = "ps";
const NOBODY: &str = "";

/// SPIs of the world's SAs.
const IN: u32 = 0x1000;
const OUT: u32 = 0x2000;
const LARVA: u32 = 0x4000;
const PAIR_IN: u32 = 0x5000;
const PAIR_OUT: u32 = 0x6000;
const DYING_ONE: u32 = 0x7000;
const DEAD_ONE: u32 = 0x8000;
const BOTH: u32 = 0x9000;
const AH_IN: u32 = 0xa000;
const OUT6: u32 = 0xb000;

impl World {
    fn new() -> Self {
        let mut service = Service::default();
        let s = service.open();
        for message in [
            add_esp(IN, PEER, LOCAL),
            add_esp(OUT, LOCAL, PEER),
            msg(GETSPI, ESP).src(PEER).dst(LOCAL).range(LARVA, LARVA),
            add_esp(PAIR_IN, PEER, LOCAL),
            add_esp(PAIR_OUT, LOCAL, PEER).pair(PAIR_IN),
            add_esp(DYING_ONE, LOCAL, PEER).lifetime(SOFT, 0, 0, 10, 0),
            add_esp(BOTH, "203.0.113.1", "203.0.113.2"),
            add_ah(AH_IN, PEER, LOCAL),
            add_esp(OUT6, LOCAL6, PEER6),
        ] {
            service.must(s, message);
        }
        service.wait(10);
        service.must_hear(s, EXPIRE);
        service.must(s, add_esp(DEAD_ONE, LOCAL, PEER).lifetime(HARD, 0, 0, 1, 0));
        service.now = service.now.after(Duration::from_secs(1));
        service.control.expire(service.now);
        service.must_hear(s, EXPIRE);

        let mut sockets = vec![('s', s)];
        for letter in ['o', 'a', 'e', 'x', 'p', 'd'] {
            let socket = service.open();
            match letter {
                'a' => service.send(socket, msg(REGISTER, AH)),
                'e' => service.send(socket, msg(REGISTER, ESP)),
                'x' => service.send(socket, msg(REGISTER, 0).ext(EREG, &[ESP, AH, 0, 0])),
                'p' => service.send(socket, msg(PROMISC, 1)),
                'd' => service.control.set_loopback(socket, false),
                _ => {}
            }
            sockets.push((letter, socket));
        }
        for (_, socket) in &sockets {
            service.hear(*socket);
        }
        Self { service, sockets }
    }

    fn sender(&self) -> SocketId {
        self.sockets[0].1
    }

    /// What every socket hears, by letter.
    fn hear(&mut self) -> Vec<(char, Vec<Heard>)> {
        let mut sockets = self.sockets.clone();
        // A DUMP is copied to the promiscuous socket while the sender reads it: listen to that one last.
        sockets.sort_by_key(|(letter, _)| *letter == 'p');
        sockets.iter().map(|(letter, socket)| (*letter, self.service.hear(*socket))).collect()
    }
}

trait MustHear {
    fn must_hear(&mut self, socket: SocketId, kind: u8);
}

impl MustHear for Service {
    fn must_hear(&mut self, socket: SocketId, kind: u8) {
        let heard = self.hear(socket);
        assert_eq!(heard.iter().map(|h| h.kind).collect::<Vec<_>>(), [kind], "{heard:?}");
    }
}

/// Cases that went wrong, and how many there were.
#[derive(Default)]
struct Report {
    cases: usize,
    wrong: Vec<String>,
}

impl Report {
    /// The answer is `errno/diagnostic` of type `kind`, base header only if it is an error; it reaches `hearers` and
    /// nobody else.
    fn case(&mut self, name: &str, request: Msg, kind: u8, errno: u8, diagnostic: u16, hearers: &str) {
        self.case_from(name, 's', request, kind, errno, diagnostic, hearers);
    }

    #[expect(clippy::too_many_arguments, reason = "one column each")]
    fn case_from(
        &mut self,
        name: &str,
        from: char,
        request: Msg,
        kind: u8,
        errno: u8,
        diagnostic: u16,
        hearers: &str,
    ) {
        self.cases += 1;
        let mut world = World::new();
        let from = world.sockets.iter().find(|(letter, _)| *letter == from).unwrap().1;
        let (seq, pid) = (&request.octets[8..12], &request.octets[12..16]);
        let ids = [seq, pid].map(|id| u32::from_ne_bytes(id.try_into().unwrap()));
        world.service.send(from, request.clone());
        let mut got = String::new();
        let mut heard_by: Vec<char> = Vec::new();
        for (letter, messages) in world.hear() {
            for heard in messages {
                heard_by.push(letter);
                let base = heard.octets.len() == 16;
                let want = (kind, errno, diagnostic, errno != 0 && !base);
                let have = (heard.kind, heard.errno, heard.diagnostic, errno != 0 && !base);
                if want != have || (errno != 0 && !base) || [heard.seq, heard.pid] != ids {
                    got = format!(
                        "type {} errno {} diagnostic {} octets {} seq {} to {letter}",
                        heard.kind,
                        heard.errno,
                        heard.diagnostic,
                        heard.octets.len(),
                        heard.seq
                    );
                }
            }
        }
        heard_by.sort_unstable();
        let mut want: Vec<char> = hearers.chars().filter(|c| *c != ' ').collect();
        want.sort_unstable();
        if heard_by != want {
            got = format!("{got} heard by {heard_by:?}");
        }
        if !got.is_empty() {
            let line = format!("{name}: expected type {kind} {errno}/{diagnostic} to {want:?}, got {got}");
            self.wrong.push(line);
        }
    }

    /// Malformed: an error to everyone.
    fn bad(&mut self, name: &str, request: Msg, errno: u8, diagnostic: u16) {
        let kind = request.octets[1];
        let hearers = match kind {
            GETSPI | UPDATE | ADD | DELETE | EXPIRE | FLUSH | UPDATEPAIR | DELPAIR => ALL,
            _ => SENDER,
        };
        self.case(name, request, kind, errno, diagnostic, hearers);
    }

    /// Accepted: the answer is of the request's type.
    fn good(&mut self, name: &str, request: Msg, hearers: &str) {
        let kind = request.octets[1];
        self.case(name, request, kind, 0, 0, hearers);
    }

    fn finish(self, at_least: usize) {
        println!("{} cases, {} wrong", self.cases, self.wrong.len());
        assert!(self.wrong.is_empty(), "{} of {}:\n{}", self.wrong.len(), self.cases, self.wrong.join("\n"));
        assert!(self.cases >= at_least, "only {} cases", self.cases);
    }
}

fn update(spi: u32, src: &str, dst: &str) -> Msg {
    msg(UPDATE, ESP).sa(spi).src(src).dst(dst)
}

fn hatch(flags: u32) -> Msg {
    msg(UPDATE, ESP).sa_full(LARVA, 32, MATURE, 0, GCM16, flags).src(PEER).dst(LOCAL).key(EKEY, 20)
}

#[test]
fn stage_one_shape_of_the_message() {
    let mut r = Report::default();
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
    r.finish(50);
}

#[test]
fn stage_one_dispatch() {
    let mut r = Report::default();
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
    r.finish(70);
}

#[test]
fn stage_two_addresses() {
    let mut r = Report::default();
    let g = || msg(GET, ESP).sa(IN);
    r.bad("a source of no family", g().odd_addr(SRC).dst(LOCAL), EINVAL, 8);
    r.bad("a destination of no family", g().odd_addr(DST), EINVAL, 9);
    r.bad("a multicast source", g().src("224.0.0.5").dst(LOCAL), EINVAL, 12);
    r.bad("an IPv6 multicast source", g().src("ff02::1").dst(LOCAL6), EINVAL, 12);
    r.bad("a broadcast source", g().src("255.255.255.255").dst(LOCAL), EINVAL, 12);
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
    r.finish(50);
}

#[test]
fn getspi() {
    let mut r = Report::default();
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
    r.finish(13);
}

#[test]
fn add_esp_faults() {
    let mut r = Report::default();
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
    r.bad("an AES key of 160 bits", sa(SHA256, AES_CBC, 0).key(EKEY, 20).key(AKEY, 32), EINVAL, 80);
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
    r.finish(60);
}

#[test]
fn add_ah_faults() {
    let mut r = Report::default();
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
    r.finish(18);
}

#[test]
fn insertion() {
    let mut r = Report::default();
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
    r.bad("IPv4 in protocol 41", tunnel("10.1.0.0/16", "10.2.0.0/16", 41), EPROTOTYPE, 67);
    r.bad("IPv6 in protocol 4", tunnel("2001:db8:1::/48", "2001:db8:2::/48", 4), EPROTOTYPE, 67);
    r.bad("IPv4 in TCP", tunnel("10.1.0.0/16", "10.2.0.0/16", 6), EPROTOTYPE, 67);
    let bare = msg(ADD, ESP).sa_full(1, 0, MATURE, 0, GCM16, F_TUNNEL).src(PEER).dst(LOCAL).key(EKEY, 20);
    r.bad("a tunnel without inner addresses", bare, EINVAL, 58);
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
    r.finish(28);
}

#[test]
fn updates() {
    let mut r = Report::default();
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
    r.bad("a current lifetime", update(OUT, LOCAL, PEER).lifetime(CURRENT, 0, 0, 0, 0), EOPNOTSUPP, 82);
    let life = update(OUT, LOCAL, PEER).lifetime(SOFT, 0, 0, 2, 0).lifetime(HARD, 0, 0, 1, 0);
    r.bad("soft above hard", life, EINVAL, 16);
    r.bad("a label", update(OUT, LOCAL, PEER).ext(SENS, &[0; 12]), EINVAL, 83);
    r.bad("a dead SA", update(DEAD_ONE, LOCAL, PEER), ESRCH, 0);
    r.good("a dying SA", update(DYING_ONE, LOCAL, PEER), ALL);
    r.bad("a replay value of a mature SA", update(OUT, LOCAL, PEER).replay(5, 0), EINVAL, 43);
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
    r.bad("a larval SA, a tunnel to nowhere", hatch(F_TUNNEL), EINVAL, 58);
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
    r.finish(40);
}

#[test]
fn get_and_delete() {
    let mut r = Report::default();
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
    r.finish(50);
}

#[test]
fn a_short_record_is_refused_to_its_sender_and_an_empty_one_ignored() {
    let mut world = World::new();
    let sender = world.sender();
    for length in [1, 8, 15] {
        world.service.control.request(sender, &msg(ADD, ESP).done()[..length], world.service.now);
        for (letter, heard) in world.hear() {
            match letter {
                's' | 'p' => {
                    assert_eq!(heard.len(), 1, "{letter}");
                    assert_eq!((heard[0].errno, heard[0].diagnostic), (EMSGSIZE, 0));
                }
                _ => assert!(heard.is_empty(), "{letter}"),
            }
        }
    }
    world.service.control.request(sender, &[], world.service.now);
    assert!(world.hear().iter().all(|(_, heard)| heard.is_empty()));
}
