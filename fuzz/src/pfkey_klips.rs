//! The dialect of KLIPS: conversations, for it links SAs one by one and asks before it does.

use crate::dialect::{Speech, ext, key};
use pfkey::dialect::Dialect;

/// `sadb_msg_type` of SADB_X_DEBUG.
const DEBUG: u8 = 16;

/// Takes the octets as records.
pub fn run(data: &[u8]) {
    // GRPSA asks for the groups of two SAs.
    let speech = Speech { dialect: Dialect::Klips, echoed: &[DEBUG], most: 2 };
    drop(speech.converse(data));
}

fn record(number: u8, satype: u8, extensions: &[Vec<u8>]) -> Vec<u8> {
    crate::dialect::record(number, satype, (1, 9999), extensions)
}

fn sa(number: u16, spi: u32, rest: [u8; 4], flags: u32) -> Vec<u8> {
    ext(number, &[&spi.to_be_bytes()[..], &rest, &flags.to_ne_bytes(), &[0; 8]].concat())
}

fn address(number: u16, ip: [u8; 4]) -> Vec<u8> {
    ext(number, &[&[0, 0, 0, 0, 2, 0, 0, 0][..], &ip, &[0; 8]].concat())
}

/// One of each message, and the conversation that makes a tunnel and takes it away.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let (left, right) = ([192, 0, 2, 1], [198, 51, 100, 2]);
    let ends = || vec![address(5, left), address(6, right)];
    let with = |number, satype, first: Vec<u8>, more: Vec<Vec<u8>>| {
        record(number, satype, &[vec![first], ends(), more].concat())
    };
    let flow = || {
        let (nets, mask) = ([[10, 1, 0, 0], [10, 2, 0, 0]], [255, 255, 0, 0]);
        vec![address(21, nets[0]), address(22, nets[1]), address(23, mask), address(24, mask)]
    };
    let lifetime = |number| {
        ext(number, &[&[0; 4][..], &3600_u64.to_ne_bytes(), &60_u64.to_ne_bytes(), &[0; 8]].concat())
    };
    let named = |number, satype, spi| with(number, satype, sa(1, spi, [0; 4], 0), vec![]);
    let tun = with(3, 9, sa(1, 0x1000, [0, 1, 0, 0], 0), vec![ext(32, &[0; 12])]);
    // NULL with HMAC-SHA1: any key will do.
    let esp = with(3, 3, sa(1, 0x1001, [32, 1, 3, 11], 0), vec![lifetime(3), lifetime(4), key(8, 20)]);
    let ah = with(3, 2, sa(1, 0x1002, [32, 1, 3, 0], 0), vec![key(8, 20)]);
    let natt = vec![ext(27, &[2, 0, 0, 0]), ext(28, &[0x11, 0x94, 0, 0]), ext(29, &[0x11, 0x95, 0, 0])];
    let natted = with(3, 3, sa(1, 0x1003, [0, 1, 3, 12], 0), [natt, vec![key(8, 20), key(9, 16)]].concat());
    let link = |one: (u8, u32), two: (u8, u32)| {
        let second = [ext(18, &[two.0, 0, 0, 0]), sa(19, two.1, [0; 4], 0), address(20, right)];
        record(13, one.0, &[&[sa(1, one.1, [0; 4], 0), address(6, right)][..], &second].concat())
    };
    let alone = record(13, 3, &[sa(1, 0x1001, [0; 4], 0), address(6, right)]);
    let eroute = |satype, spi, flags| with(14, satype, sa(1, spi, [0; 4], flags), flow());
    let mut getspi = ends();
    getspi.push(ext(16, &[0, 0, 16, 0, 0, 0, 32, 0, 0, 0, 0, 0]));
    let all =
        [&tun[..], &esp, &ah, &link((9, 0x1000), (3, 0x1001)), &link((3, 0x1001), (2, 0x1002))].concat();
    let inflow = eroute(9, 0x1000, 8);
    let whole =
        [&all[..], &inflow, &eroute(9, 0x1000, 0), &named(5, 3, 0x1001), &named(4, 2, 0x1002)].concat();
    let apart = [&all[..], &alone, &named(4, 9, 0x1000), &record(9, 3, &[])].concat();
    let mut named_seeds = vec![
        ("tunnel", whole),
        ("apart", apart),
        ("natted", [natted, named(5, 3, 0x1003)].concat()),
        ("getspi", record(1, 3, &getspi)),
        ("update", with(2, 3, sa(1, 0x1001, [0, 1, 3, 11], 0), vec![key(8, 20)])),
        ("register", record(7, 3, &[])),
        ("failed", record(6, 3, &[])),
        ("pass", [eroute(11, 256, 2), record(15, 0, &flow())].concat()),
        ("trap", [eroute(11, 260, 0), record(15, 0, &[sa(1, 0, [0; 4], 4)])].concat()),
        ("debug", record(16, 0, &[ext(25, &[0xff; 52])])),
        ("plumb", record(18, 0, &[ext(31, &[1, 0, 1, 0])])),
        ("dump", record(10, 3, &[])),
    ];
    named_seeds.drain(..).map(|(name, octets)| (name.to_owned(), octets)).collect()
}
