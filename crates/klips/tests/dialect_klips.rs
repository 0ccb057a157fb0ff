//! Conversations in the dialect of KLIPS with the real service below, octet by octet: what a program sends and what it reads.
//!
//! The octets are laid out here by hand, after the messages that the tools of Openswan are known to send. Nothing of the
//! code under test helps.

#[path = "dialect_klips/list.rs"]
mod list;
mod pfkey_support;

use ipsec_core::{Protocol, SaId, Selector, Spi};
use klips::{Action, SocketId};
use pfkey::dialect::klips::Klips;
use pfkey::dialect::{Translator, Turn};
use pfkey_support::{Heard, Msg, Service, add_esp};

const ENOENT: u8 = 2;
const ESRCH: u8 = 3;
const EEXIST: u8 = 17;
const EINVAL: u8 = 22;
const ENOSYS: u8 = 38;
const EMSGSIZE: u8 = 90;
const ESOCKTNOSUPPORT: u8 = 94;
const EOPNOTSUPP: u8 = 95;

const LEFT: [u8; 4] = [192, 0, 2, 1];
const RIGHT: [u8; 4] = [198, 51, 100, 2];

fn octets(hex: &str) -> Vec<u8> {
    hex.split_whitespace().map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect()
}

/// An extension: its words, its type, what follows and zeros.
fn ext(number: u16, body: &[u8]) -> Vec<u8> {
    let len = (4 + body.len()).next_multiple_of(8);
    let mut octets = ((len / 8) as u16).to_ne_bytes().to_vec();
    octets.extend(number.to_ne_bytes());
    octets.extend(body);
    octets.resize(len, 0);
    octets
}

/// A message with sequence number 1 of process 9999.
fn record(number: u8, satype: u8, exts: &[Vec<u8>]) -> Vec<u8> {
    refused(number, satype, 0, 0, exts)
}

fn refused(number: u8, satype: u8, errno: u8, diagnostic: u16, exts: &[Vec<u8>]) -> Vec<u8> {
    let body = exts.concat();
    let mut octets = vec![2, number, errno, satype];
    octets.extend((((16 + body.len()) / 8) as u16).to_ne_bytes());
    octets.extend(diagnostic.to_ne_bytes());
    octets.extend(1_u32.to_ne_bytes());
    octets.extend(9999_u32.to_ne_bytes());
    octets.extend(body);
    octets
}

/// 24 octets: KLIPS has a number of its own behind the SA.
fn sa_of(number: u16, spi: u32, rest: [u8; 4], flags: u32) -> Vec<u8> {
    let mut body = spi.to_be_bytes().to_vec();
    body.extend(rest);
    body.extend(flags.to_ne_bytes());
    body.extend([0; 8]);
    ext(number, &body)
}

fn sa(spi: u32) -> Vec<u8> {
    sa_of(1, spi, [0; 4], 0)
}

/// 3DES with HMAC-MD5, window 0, MATURE.
fn esp(spi: u32) -> Vec<u8> {
    sa_of(1, spi, [0, 1, 2, 3], 0)
}

fn address(number: u16, ip: [u8; 4]) -> Vec<u8> {
    port_of(number, ip, 0)
}

fn port_of(number: u16, ip: [u8; 4], port: u16) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0];
    body.extend(2_u16.to_ne_bytes());
    body.extend(port.to_be_bytes());
    body.extend(ip);
    body.extend([0; 8]);
    ext(number, &body)
}

fn key(number: u16, octets: u8) -> Vec<u8> {
    let mut body = (u16::from(octets) * 8).to_ne_bytes().to_vec();
    body.extend([0; 2]);
    // Three keys of 3DES that differ, each octet of odd parity.
    body.extend((0..octets).map(|n| n << 1 | u8::from(n.count_ones() % 2 == 0)));
    ext(number, &body)
}

fn keys() -> [Vec<u8>; 2] {
    [key(8, 16), key(9, 24)]
}

/// SRC_FLOW, DST_FLOW and their masks.
fn flow(src: [u8; 4], dst: [u8; 4], mask: [u8; 4]) -> [Vec<u8>; 4] {
    [address(21, src), address(22, dst), address(23, mask), address(24, mask)]
}

const NET1: [u8; 4] = [10, 1, 0, 0];
const NET2: [u8; 4] = [10, 2, 0, 0];
const SIXTEEN: [u8; 4] = [255, 255, 0, 0];

thread_local! {
    /// Types of messages that were answered or told as wanted, octet by octet, with their errno.
    static EXACT: std::cell::RefCell<std::collections::BTreeSet<(u8, u8)>> = Default::default();
}

/// They are the same, octet by octet.
#[track_caller]
fn exact(heard: &[u8], wanted: &[u8]) {
    assert_eq!(heard, wanted, "\nheard  {heard:02x?}\nwanted {wanted:02x?}");
    EXACT.with_borrow_mut(|all| all.insert((heard[1], heard[2])));
}

/// A service, two programs that speak the dialect, and one that speaks as the service does.
struct World {
    service: Service,
    programs: Vec<(SocketId, Klips)>,
    native: SocketId,
    debug: Vec<(&'static str, u32)>,
}

impl World {
    fn new() -> Self {
        let mut service = Service::default();
        let programs = (0..2).map(|_| (service.open(), Klips::default())).collect();
        let native = service.open();
        Self { service, programs, native, debug: Vec::new() }
    }

    fn act(&mut self, n: usize, turn: Turn, heard: &mut Vec<Vec<u8>>) {
        let (socket, _) = self.programs[n];
        turn.ask.iter().for_each(|ask| self.service.control.request(socket, ask, self.service.now));
        heard.extend(turn.say.iter().map(|record| record.to_vec()));
        self.debug.extend(turn.debug.into_iter().flatten());
    }

    /// What a program has to hear.
    fn hear(&mut self, n: usize) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        while let Some(notice) = self.service.control.notice(self.programs[n].0, self.service.now) {
            let turn = self.programs[n].1.notice(&notice);
            self.act(n, turn, &mut heard);
        }
        heard
    }

    /// What the first program hears after it has sent this.
    fn ask(&mut self, record: &[u8]) -> Vec<Vec<u8>> {
        let turn = self.programs[0].1.request(record);
        let mut heard = Vec::new();
        self.act(0, turn, &mut heard);
        heard.extend(self.hear(0));
        heard
    }

    /// One answer, to the octet.
    #[track_caller]
    fn gets(&mut self, ask: &[u8], answer: &[u8]) {
        let heard = self.ask(ask);
        assert_eq!(heard.len(), 1, "{heard:02x?}");
        exact(&heard[0], answer);
    }

    /// The same with LIFETIME_CURRENT behind the SA: nothing has gone through it since it was made, at the beginning.
    #[track_caller]
    fn shows(&mut self, ask: &[u8], answer: &[u8]) {
        let heard = self.ask(ask);
        assert_eq!(heard.len(), 1, "{heard:02x?}");
        exact(&heard[0], &with_current(answer));
    }

    fn native(&mut self, message: Msg) -> Heard {
        self.service.hear(self.native);
        self.service.must(self.native, message)
    }

    fn eroutes(&self) -> Vec<(String, Action)> {
        let list = self.service.plane.eroutes().list();
        let text = |s: Selector| format!("{} {} {} {} {}", s.src, s.dst, s.proto, s.sport, s.dport);
        list.iter().map(|eroute| (text(eroute.selector), eroute.action)).collect()
    }

    fn sas(&self) -> usize {
        self.service.control.sa_count()
    }
}

/// A message with LIFETIME_CURRENT of an SA that nothing has gone through, behind the SA.
fn with_current(octets: &[u8]) -> Vec<u8> {
    let current =
        ext(2, &[&[0; 4][..], &[0, pfkey_support::EPOCH + 1000, 0].map(u64::to_ne_bytes).concat()].concat());
    let (head, rest) = octets.split_at(16 + 24);
    let mut octets = [head, &current, rest].concat();
    octets[4] = (octets.len() / 8) as u8;
    octets
}

/// ADD of an ESP SA from left to right.
fn add(spi: u32) -> Vec<u8> {
    let ends = [esp(spi), address(5, LEFT), address(6, RIGHT)];
    record(3, 3, &[&ends[..], &keys()].concat())
}

fn named(number: u8, satype: u8, spi: u32) -> Vec<u8> {
    record(number, satype, &[sa(spi), address(5, LEFT), address(6, RIGHT)])
}

#[test]
fn flush_takes_every_sa_whatever_type_it_names() {
    let mut world = World::new();
    world.ask(&add(0x1001));
    world.native(add_esp(0x2002, "192.0.2.1", "198.51.100.2"));
    (0..2).for_each(|n| drop(world.hear(n)));
    let flush = octets("02 09 00 00 02 00 00 00 01 00 00 00 0f 27 00 00");
    world.gets(&record(9, 2, &[]), &record(9, 2, &[]));
    assert_eq!(world.sas(), 0);
    assert_eq!(world.hear(1), [record(9, 0, &[])], "everyone hears it");
    world.gets(&flush, &flush);
}

#[test]
fn an_sa_is_added_shown_updated_and_deleted() {
    let mut world = World::new();
    // As `ipsec spi' sends it: 18 words.
    let add = add(0x1bbd_d678);
    assert_eq!(add[..24], octets("02 03 00 03 12 00 00 00 01 00 00 00 0f 27 00 00 03 00 01 00 1b bd d6 78"));
    let ends = [esp(0x1bbd_d678), address(5, LEFT), address(6, RIGHT)];
    world.gets(&add, &record(3, 3, &ends));
    assert_eq!(world.hear(1), [record(3, 3, &ends)], "everyone hears it, without keys");
    world.gets(&add, &refused(3, 3, EEXIST, 0, &[]));
    world.shows(&named(5, 3, 0x1bbd_d678), &record(5, 3, &[&ends[..], &keys()].concat()));
    // Keys are the asker's alone.
    assert!(world.hear(1).iter().all(|record| !record.windows(16).any(|w| w == &key(8, 16)[8..])));
    world.shows(&named(4, 3, 0x1bbd_d678), &{
        let dead = [sa_of(1, 0x1bbd_d678, [0, 3, 2, 3], 0), address(5, LEFT), address(6, RIGHT)];
        record(4, 3, &dead)
    });
    assert_eq!(world.sas(), 0);
    for (number, errno) in [(4, ESRCH), (5, ESRCH)] {
        world.gets(&named(number, 3, 0x1bbd_d678), &refused(number, 3, errno, 78, &[]));
    }
    let update = record(2, 3, &[esp(0x77777), address(5, LEFT), address(6, RIGHT), key(8, 16), key(9, 24)]);
    world.gets(&update, &refused(2, 3, ENOENT, 78, &[]));
}

#[test]
fn an_spi_is_reserved_and_becomes_an_sa() {
    let mut world = World::new();
    let range = ext(16, &[0x3000_u32.to_be_bytes(), 0x3000_u32.to_be_bytes(), [0; 4]].concat());
    let ends = [address(5, LEFT), address(6, RIGHT)];
    let larva = [&[sa(0x3000)], &ends[..]].concat();
    world.gets(&record(1, 3, &[&ends[..], std::slice::from_ref(&range)].concat()), &record(1, 3, &larva));
    world.gets(&record(1, 3, &[&ends[..], &[range]].concat()), &refused(1, 3, EEXIST, 0, &[]));
    let backwards = ext(16, &[0x3001_u32.to_be_bytes(), 0x3000_u32.to_be_bytes(), [0; 4]].concat());
    world.gets(&record(1, 3, &[&ends[..], &[backwards]].concat()), &refused(1, 3, EINVAL, 35, &[]));
    let update = [&[esp(0x3000)], &ends[..], &keys()].concat();
    world.gets(&record(2, 3, &update), &record(2, 3, &[&[esp(0x3000)], &ends[..]].concat()));
}

#[test]
fn what_an_sa_has_besides_comes_back() {
    let mut world = World::new();
    let lifetime = |number: u16, words: [u64; 3]| {
        ext(number, &[&[0; 4][..], &words.map(u64::to_ne_bytes).concat()].concat())
    };
    let ident =
        |number: u16, text: &[u8]| ext(number, &[&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], text].concat());
    let saref = ext(32, &[0xd2, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let head = [esp(0x1001)];
    let limits = [lifetime(3, [1 << 30, 3600, 0]), lifetime(4, [1 << 20, 3000, 0])];
    let ends = [address(5, LEFT), address(6, RIGHT)];
    let who = [ident(10, b"left\0"), ident(11, b"right\0")];
    let natt = [ext(27, &[2, 0, 0, 0]), port16(28, 4501), port16(29, 4502)];
    let oa = address(30, LEFT);
    let ask = [&head[..], &limits, &ends, &keys(), &who, &natt, &[oa, saref]].concat();
    let answer = [&head[..], &limits, &ends, &who, &natt].concat();
    world.gets(&record(3, 3, &ask), &record(3, 3, &answer));
    let answer = [&head[..], &limits, &ends, &keys(), &who, &natt].concat();
    world.shows(&named(5, 3, 0x1001), &record(5, 3, &answer));
    let sa = world.service.control.sas().next().unwrap();
    // Neither end is this host: the sender's port is the first.
    assert_eq!(sa.encapsulation.map(|e| (e.local, e.remote)), Some((4501, 4502)));
    // An SA that comes in: the peer is the sender.
    let ask = [&[esp(0x1002), address(5, RIGHT), address(6, LEFT)][..], &keys(), &natt].concat();
    world.ask(&record(3, 3, &ask));
    let sa = world.service.control.sas().find(|sa| sa.id.spi == Spi(0x1002)).unwrap();
    assert_eq!(sa.encapsulation.map(|e| (e.local, e.remote)), Some((4502, 4501)));
    let shown = [&[esp(0x1002), address(5, RIGHT), address(6, LEFT)][..], &keys(), &natt].concat();
    let get = record(5, 3, &[self::sa(0x1002), address(5, RIGHT), address(6, LEFT)]);
    world.shows(&get, &record(5, 3, &shown));
}

fn port16(number: u16, port: u16) -> Vec<u8> {
    ext(number, &[port.to_be_bytes(), [0; 2]].concat())
}

#[test]
fn a_register_lists_what_has_a_number_there() {
    let mut world = World::new();
    for (satype, auths) in [(2, true), (3, true), (9, false), (10, false)] {
        let heard = world.ask(&record(7, satype, &[]));
        assert_eq!((heard.len(), heard[0][1], heard[0][2], heard[0][3]), (1, 7, 0, satype));
        let heard = Heard::new(heard[0].clone());
        let ids = |kind| -> Vec<u8> {
            heard.find(kind).map_or(Vec::new(), |body| body[4..].chunks(8).map(|row| row[0]).collect())
        };
        assert_eq!(!ids(14).is_empty(), auths, "{satype}");
        assert!(ids(14).iter().all(|id| [2, 3, 5, 6, 7].contains(id)));
        assert!(
            ids(15).iter().all(|id| [2, 3, 11, 12].contains(id)),
            "AES-GCM has no number in this dialect"
        );
    }
    world.gets(&record(7, 0, &[]), &refused(7, 0, EINVAL, 5, &[]));
    world.gets(&record(7, 11, &[]), &refused(7, 11, EINVAL, 4, &[]));
}

#[test]
fn eroutes_are_added_replaced_deleted_and_cleared() {
    let mut world = World::new();
    // As `ipsec eroute' sends it (the octets are those of Openswan's own test).
    let head = octets("02 0e 00 09 17 00 00 00 01 00 00 00 0f 27 00 00 03 00 01 00 12 34 56 78");
    let flow = flow([192, 0, 2, 0], [192, 0, 1, 0], [255, 255, 255, 0]);
    let any = address(5, [0; 4]);
    let edst = address(6, [192, 1, 2, 40]);
    let ask = record(14, 9, &[&[sa(0x1234_5678), any, edst.clone()][..], &flow].concat());
    assert_eq!((ask.len(), &ask[..24]), (184, &head[..]));
    let answer = record(14, 9, &[&[sa(0x1234_5678), edst][..], &flow].concat());
    world.gets(&ask, &answer);
    assert_eq!(world.hear(1), [answer], "everyone hears it");
    let id = SaId { dst: [192, 1, 2, 40].into(), protocol: Protocol::Ipip, spi: Spi(0x1234_5678) };
    assert_eq!(world.eroutes(), [("192.0.2.0/24 192.0.1.0/24 0 0 0".to_owned(), Action::Protect(id))]);
    world.gets(&ask, &refused(14, 9, EEXIST, 0, &[]));

    // The same selector, another SA, at once.
    let esp = [sa_of(1, 0x1001, [0; 4], 2), address(6, RIGHT)];
    world.gets(&record(14, 3, &[&esp[..], &flow].concat()), &record(14, 3, &[&esp[..], &flow].concat()));
    let id = SaId { dst: RIGHT.into(), protocol: Protocol::Esp, spi: Spi(0x1001) };
    assert_eq!(world.eroutes().iter().map(|e| e.1).collect::<Vec<_>>(), [Action::Protect(id)]);

    let nothing = [sa_of(1, 0, [0; 4], 0), address(6, [0; 4])];
    let delete = record(15, 0, &flow);
    world.gets(&delete, &record(15, 0, &[&nothing[..], &flow].concat()));
    world.gets(&delete, &refused(15, 0, ENOENT, 0, &[]));
    assert!(world.eroutes().is_empty());

    world.ask(&ask);
    let clear = record(15, 0, &[sa_of(1, 0, [0; 4], 4)]);
    world.gets(&clear, &clear);
    assert!(world.eroutes().is_empty());
}

#[test]
fn every_word_has_its_spi() {
    let mut world = World::new();
    let words = [
        (11, 256, Action::Pass, 256),
        (11, 257, Action::Drop, 257),
        (11, 258, Action::Reject, 258),
        (11, 259, Action::Hold, 259),
        (11, 260, Action::Trap, 260),
        (11, 261, Action::TrapSubnet, 261),
        // %passthrough.
        (9, 0, Action::Pass, 256),
    ];
    let flow = flow(NET1, NET2, SIXTEEN);
    for (satype, spi, action, told) in words {
        let of = |spi| [sa_of(1, spi, [0; 4], 2), address(6, [0; 4])];
        let ask = record(14, satype, &[&of(spi)[..], &flow].concat());
        world.gets(&ask, &record(14, 11, &[&of(told)[..], &flow].concat()));
        assert_eq!(world.eroutes().iter().map(|e| e.1).collect::<Vec<_>>(), [action]);
    }
    let unknown = record(14, 11, &[&[sa(300), address(6, [0; 4])][..], &flow].concat());
    world.gets(&unknown, &refused(14, 11, EINVAL, 32, &[]));
}

#[test]
fn an_eroute_may_have_a_protocol_ports_and_identities() {
    let mut world = World::new();
    let masks = [address(23, SIXTEEN), address(24, [255; 4])];
    let ends = [port_of(21, NET1, 0), port_of(22, [10, 2, 0, 9], 25)];
    let ident =
        |number: u16, text: &[u8]| ext(number, &[&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], text].concat());
    let who = [ident(10, b"left\0"), ident(11, b"right\0")];
    let tcp = ext(26, &[6, 0, 0, 0]);
    let exts = [&[sa(0x1001), address(6, RIGHT)][..], &ends, &masks, &who, &[tcp]].concat();
    world.gets(&record(14, 3, &exts), &record(14, 3, &exts));
    assert_eq!(world.eroutes()[0].0, "10.1.0.0/16 10.2.0.9/32 6 0 25");
    // Another protocol is another eroute, and is not deleted with it.
    let udp = ext(26, &[17, 0, 0, 0]);
    let delete = record(15, 0, &[&ends[..], &masks, &[udp]].concat());
    world.gets(&delete, &refused(15, 0, ENOENT, 0, &[]));
    // Ports of no protocol.
    let none = record(14, 3, &[&[sa(0x1001), address(6, RIGHT)][..], &ends, &masks].concat());
    world.gets(&none, &refused(14, 3, EINVAL, 71, &[]));
}

#[test]
fn what_an_eroute_cannot_say_is_refused_by_name() {
    let mut world = World::new();
    let flow = flow(NET1, NET2, SIXTEEN);
    let with = |sa: Vec<u8>, flow: &[Vec<u8>]| record(14, 3, &[&[sa, address(6, RIGHT)][..], flow].concat());
    let inflow = record(15, 3, &[&[sa_of(1, 0x1001, [0; 4], 8), address(6, RIGHT)][..], &flow].concat());
    world.gets(&inflow, &refused(15, 3, EOPNOTSUPP, 42, &[]));
    let masked = |src: [u8; 4], dst: [u8; 4]| {
        let mut flow = flow.to_vec();
        (flow[2], flow[3]) = (address(23, src), address(24, dst));
        flow
    };
    world.gets(&with(sa(0x1001), &masked([255, 0, 255, 0], SIXTEEN)), &refused(14, 3, EINVAL, 64, &[]));
    world.gets(&with(sa(0x1001), &masked(SIXTEEN, [0, 0, 0, 1])), &refused(14, 3, EINVAL, 65, &[]));
    world.gets(&with(sa(0x1001), &flow[..3]), &refused(14, 3, EINVAL, 59, &[]));
    assert!(world.eroutes().is_empty());
    // The narrowest and the widest.
    world.ask(&with(sa(0x1001), &masked([255; 4], [0; 4])));
    assert_eq!(world.eroutes()[0].0, "10.1.0.0/32 0.0.0.0/0 0 0 0");
}

#[test]
fn debug_words_are_for_the_daemon() {
    let mut world = World::new();
    let words: Vec<u8> = (0..12_u32).flat_map(|n| if n == 3 { [0xff; 4] } else { [0; 4] }).collect();
    let ask = record(16, 0, &[ext(25, &[&words[..], &[0; 4]].concat())]);
    world.gets(&ask, &ask);
    let set: Vec<_> = world.debug.iter().filter(|(_, word)| *word != 0).collect();
    assert_eq!(set, [&("eroute", u32::MAX)]);
    world.gets(&record(16, 0, &[ext(25, &[0; 20])]), &refused(16, 0, EINVAL, 3, &[]));
}

#[test]
fn a_packet_without_an_sa_is_told_to_those_who_registered() {
    let mut world = World::new();
    world.ask(&record(7, 3, &[]));
    world.hear(1);
    let failed = refused(6, 3, 113, 0, &[]);
    assert!(world.ask(&failed).is_empty(), "it has no answer");
}

#[test]
fn limits_are_told_to_everyone() {
    let mut world = World::new();
    let limit = |number: u16, addtime: u64| {
        ext(number, &[&[0; 4][..], &[0, addtime, 0].map(u64::to_ne_bytes).concat()].concat())
    };
    let ends = [address(5, LEFT), address(6, RIGHT)];
    let ask = [&[esp(0x1001), limit(3, 20), limit(4, 10)][..], &ends, &keys()].concat();
    world.ask(&record(3, 3, &ask));
    world.hear(1);
    let expired = |state: u8, limit: Vec<u8>| {
        let mut told = record(8, 3, &[&[sa_of(1, 0x1001, [0, state, 2, 3], 0), limit][..], &ends].concat());
        told[8..16].fill(0);
        told
    };
    world.service.wait(10);
    for n in 0..2 {
        let heard = world.hear(n);
        assert_eq!(heard.len(), 1);
        exact(&heard[0], &with_current(&expired(2, limit(4, 10))));
    }
    world.service.wait(10);
    exact(&world.hear(1)[0], &with_current(&expired(3, limit(3, 20))));
}

#[test]
fn a_record_that_is_none_is_refused_to_its_sender() {
    let mut world = World::new();
    let get = named(5, 3, 0x1001);
    let with = |at: usize, octet: u8| {
        let mut octets = get.clone();
        octets[at] = octet;
        octets
    };
    let errno = |heard: &[Vec<u8>]| {
        assert_eq!((heard.len(), heard[0].len()), (1, 16), "{heard:?}");
        heard[0][2]
    };
    assert_eq!(errno(&world.ask(&get[..8])), EMSGSIZE);
    assert_eq!(errno(&world.ask(&get[..40])), EMSGSIZE);
    assert_eq!(errno(&world.ask(&with(4, 30))), EMSGSIZE);
    assert_eq!(errno(&world.ask(&with(0, 3))), EINVAL, "version");
    assert_eq!(errno(&world.ask(&with(6, 1))), EINVAL, "reserved");
    for number in [0, 20, 133, 255] {
        world.gets(&record(number, 3, &[]), &refused(number, 3, EINVAL, 1, &[]));
    }
    for number in 10..=12 {
        world.gets(&record(number, 3, &[]), &refused(number, 3, ENOSYS, 1, &[]));
    }
    for (number, exts) in
        [(8, vec![]), (17, vec![]), (18, vec![ext(31, &[1, 0, 1, 0])]), (19, vec![ext(31, &[1, 0, 1, 0])])]
    {
        let refusal = if number < 18 { (EINVAL, 1) } else { (EOPNOTSUPP, 1) };
        world.gets(&record(number, 0, &exts), &refused(number, 0, refusal.0, refusal.1, &[]));
    }
    // An extension too much, twice, too few, cut.
    let ends = [address(5, LEFT), address(6, RIGHT)];
    world.gets(&record(9, 0, &ends), &refused(9, 0, EINVAL, 2, &[]));
    world.gets(&record(5, 3, &[&[sa(1), sa(1)][..], &ends].concat()), &refused(5, 3, EINVAL, 3, &[]));
    world.gets(&record(5, 3, &ends), &refused(5, 3, EINVAL, 20, &[]));
    world.gets(&record(5, 3, &[sa(0x1001), ends[1].clone()]), &refused(5, 3, EINVAL, 18, &[]));
    world.gets(&record(5, 3, &[&[ext(1, &[0; 4])][..], &ends].concat()), &refused(5, 3, EINVAL, 3, &[]));
    // What an SA cannot have.
    let add = |sa: Vec<u8>, more: &[Vec<u8>]| record(3, 3, &[&[sa][..], &ends, &keys(), more].concat());
    let window = add(sa_of(1, 0x1001, [65, 1, 2, 3], 0), &[]);
    world.gets(&window, &refused(3, 3, EINVAL, 81, &[]));
    world.gets(&add(sa_of(1, 0x1001, [0, 1, 2, 20], 0), &[]), &refused(3, 3, ESOCKTNOSUPPORT, 41, &[]));
    world.gets(&add(sa_of(1, 0x1001, [0, 1, 252, 3], 0), &[]), &refused(3, 3, ESOCKTNOSUPPORT, 40, &[]));
    world.gets(&add(sa_of(1, 0x1001, [0, 1, 2, 3], 8), &[]), &refused(3, 3, EINVAL, 42, &[]));
    let old_natt = add(esp(0x1001), &[ext(27, &[1, 0, 0, 0])]);
    world.gets(&old_natt, &refused(3, 3, EOPNOTSUPP, 128, &[]));
}

/// Later kernels had it behind the others.
#[test]
fn a_limit_of_packets_is_kept_and_told_again() {
    let mut world = World::new();
    let packets = |number: u16, n: u8| {
        let mut body = vec![0; 28];
        body.extend([n, 0, 0, 0, 0, 0, 0, 0]);
        ext(number, &body)
    };
    let ends = [address(5, LEFT), address(6, RIGHT)];
    let ask = |limits: &[Vec<u8>]| record(3, 3, &[&[esp(0x1001)][..], limits, &ends, &keys()].concat());
    world.gets(&ask(&[packets(3, 8), packets(4, 9)]), &refused(3, 3, EINVAL, 0, &[]));
    assert_eq!(world.ask(&ask(&[packets(3, 9), packets(4, 7)]))[0][2], 0);
    let told = world.ask(&named(5, 3, 0x1001)).remove(0);
    for limit in [packets(3, 9), packets(4, 7)] {
        assert!(told.windows(limit.len()).any(|octets| octets == limit), "{told:02x?}");
    }
}

const TUN: u32 = 0x1000;
const ESP: u32 = 0x1001;
const AH: u32 = 0x1002;

/// `tun`, `esp` and `ah` SAs from right to left, whose packets come in.
fn three(world: &mut World) {
    let ends = [address(5, RIGHT), address(6, LEFT)];
    let plain = |spi| sa_of(1, spi, [0, 1, 0, 0], 0);
    for (satype, sa, keys) in [
        (9, plain(TUN), vec![]),
        (3, esp(ESP), keys().to_vec()),
        (2, sa_of(1, AH, [0, 1, 3, 0], 0), vec![key(8, 20)]),
    ] {
        let heard = world.ask(&record(3, satype, &[&[sa][..], &ends, &keys].concat()));
        assert_eq!((heard.len(), heard[0][2]), (1, 0), "{heard:02x?}");
    }
    world.hear(1);
}

fn link(one: (u8, u32), two: (u8, u32)) -> Vec<u8> {
    let second = [ext(18, &[two.0, 0, 0, 0]), sa_of(19, two.1, [0; 4], 0), address(20, LEFT)];
    record(13, one.0, &[&[sa(one.1), address(6, LEFT)][..], &second].concat())
}

fn groups(world: &World) -> Vec<Vec<u32>> {
    let mut all: Vec<_> = world.service.control.sas().collect();
    all.sort_by_key(|sa| sa.id.spi);
    all.iter().map(|sa| sa.group.iter().flat_map(|g| g.iter().map(|id| id.spi.0)).collect()).collect()
}

#[test]
fn sas_are_grouped_link_by_link_and_deleted_together() {
    let mut world = World::new();
    three(&mut world);
    let (tun, esp, ah) = ((9, TUN), (3, ESP), (2, AH));
    world.gets(&link(tun, esp), &link(tun, esp));
    assert_eq!(world.hear(1), [link(tun, esp)], "everyone hears it");
    world.gets(&link(esp, ah), &link(esp, ah));
    assert_eq!(groups(&world), [[TUN, ESP, AH], [TUN, ESP, AH], [TUN, ESP, AH]]);
    assert_eq!(world.hear(1), [link(tun, esp), link(esp, ah)], "the group as it is now");
    world.gets(&link(tun, ah), &refused(13, 9, EEXIST, 0, &[]));
    world.gets(&link(ah, (3, 0x9999)), &refused(13, 2, ENOENT, 78, &[]));
    // Apart, and together again.
    let alone = record(13, 3, &[sa(ESP), address(6, LEFT)]);
    world.gets(&alone, &alone);
    assert_eq!(groups(&world), [[0_u32; 0], [], []]);
    world.ask(&link(tun, esp));
    world.ask(&link(esp, ah));
    // The outermost takes all with it; the asker hears of the one it named.
    let delete = record(4, 2, &[sa(AH), address(5, RIGHT), address(6, LEFT)]);
    let gone = record(4, 2, &[sa_of(1, AH, [0, 3, 3, 0], 0), address(5, RIGHT), address(6, LEFT)]);
    world.shows(&delete, &gone);
    assert_eq!(world.sas(), 0);
    let told: Vec<(u8, u8)> = world.hear(1).iter().map(|record| (record[1], record[3])).collect();
    assert_eq!(told[told.len() - 3..], [(4, 9), (4, 3), (4, 2)]);
}

#[test]
fn what_may_come_in_is_said_of_the_tunnel() {
    let mut world = World::new();
    three(&mut world);
    let flow = flow(NET2, NET1, SIXTEEN);
    let inflow = |satype: u8, spi, flags| {
        record(14, satype, &[&[sa_of(1, spi, [0; 4], flags), address(6, LEFT)][..], &flow].concat())
    };
    let selector = |world: &World| {
        let sa = world.service.control.sas().find(|sa| sa.id.spi == Spi(TUN)).unwrap();
        sa.selector.map(|s| format!("{} {}", s.src, s.dst))
    };
    assert_eq!(selector(&world), None);
    // There is no tunnel in that group, no such SA at all.
    world.gets(&inflow(3, ESP, 8), &refused(14, 3, ENOENT, 78, &[]));
    world.gets(&inflow(9, 0x9999, 8), &refused(14, 9, ENOENT, 78, &[]));
    // Before it is grouped, as pluto does, and after.
    world.gets(&inflow(9, TUN, 8), &inflow(9, TUN, 8));
    assert_eq!(selector(&world).as_deref(), Some("10.2.0.0/16 10.1.0.0/16"));
    world.ask(&link((9, TUN), (3, ESP)));
    assert_eq!(selector(&world).as_deref(), Some("10.2.0.0/16 10.1.0.0/16"));
    let narrow = [address(21, [10, 2, 0, 9]), address(22, NET1), address(23, [255; 4]), address(24, SIXTEEN)];
    let named = |flags| [sa_of(1, ESP, [0; 4], flags), address(6, LEFT)];
    world.gets(
        &record(14, 3, &[&named(16)[..], &narrow].concat()),
        &record(14, 3, &[&named(8)[..], &narrow].concat()),
    );
    assert_eq!(selector(&world).as_deref(), Some("10.2.0.9/32 10.1.0.0/16"));
    assert_eq!(groups(&world), [vec![TUN, ESP], vec![TUN, ESP], vec![]]);
    assert!(world.eroutes().is_empty(), "it is no eroute");
}
