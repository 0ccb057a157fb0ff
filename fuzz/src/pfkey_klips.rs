//! What programs of the KLIPS dialect write: records one after the other, as long as each says it is, translated, asked of the
//! service, and its answers translated back, to the one who asked and to one who listens.

use ipsec_core::Time;
use klips::{Config, Control, Plane, SocketId};
use pfkey::Message;
use pfkey::dialect::{Dialect, Translator, Turn};
use std::sync::Arc;

/// `sadb_msg_type` of the shim's message about socket options.
const SHIM: u8 = 134;
const SECRET: [u8; 8] = *b"SecretK!";
/// Records of one input: a group takes four SAs, and three links.
const RECORDS: usize = 16;

fn contains_secret(octets: &[u8]) -> bool {
    octets.windows(SECRET.len()).any(|window| window == SECRET)
}

/// One program, its socket and its translation.
type Program = (SocketId, Box<dyn Translator>);

/// Takes the octets as records.
pub fn run(data: &[u8]) {
    let random = |octets: &mut [u8]| octets.fill(0x5a);
    let mut control = Control::new(Arc::new(Plane::default()), Config::new(1_700_000_000, Box::new(random)));
    let now = Time::from_nanos(1);
    let mut open = || -> Program {
        (control.connect(1, now), Dialect::Klips.translator().expect("it is not the native one"))
    };
    let (mut asking, mut listening) = (open(), open());
    // A key where none belongs is nobody's secret.
    let elsewhere = public_secret(data);
    for record in records(data).take(RECORDS) {
        // What a GET was answered with is the asker's to see.
        let mut heard = Vec::new();
        let turn = asking.1.request(record);
        act(&mut control, asking.0, turn, now, &mut heard);
        hear(&mut control, &mut asking, now, &mut heard);
        let shows = record.get(1) == Some(&5);
        assert!(
            elsewhere || shows || !heard.iter().any(|r| contains_secret(r)),
            "a key went to who did not ask"
        );
        heard.clear();
        hear(&mut control, &mut listening, now, &mut heard);
        assert!(elsewhere || !heard.iter().any(|r| contains_secret(r)), "a key went to somebody else");
    }
}

/// All that a program has to hear. What it is told makes its translation ask again, but not without end.
fn hear(control: &mut Control, (socket, translator): &mut Program, now: Time, heard: &mut Vec<Vec<u8>>) {
    for _ in 0..256 {
        let Some(notice) = control.notice(*socket, now) else { return };
        let turn = translator.notice(&notice);
        act(control, *socket, turn, now, heard);
    }
    assert!(control.notice(*socket, now).is_none(), "it never ends");
}

/// Does a turn's part of the service, and looks at what it says.
fn act(control: &mut Control, socket: SocketId, turn: Turn, now: Time, heard: &mut Vec<Vec<u8>>) {
    for ask in turn.ask {
        // The shim's own message goes through as it came.
        let read = Message::parse(&ask);
        assert!(ask.get(1) == Some(&SHIM) || read.is_ok(), "the service cannot read {ask:?}: {read:?}");
        control.request(socket, &ask, now);
    }
    for record in turn.say {
        well_formed(&record);
        // The base header is an echo, of whatever number the mutation put into it.
        heard.push(record.get(16..).unwrap_or_default().to_vec());
    }
}

/// Its lengths are those of its octets.
fn well_formed(record: &[u8]) {
    let word = |octets: &[u8]| usize::from(u16::from_ne_bytes([octets[0], octets[1]])) * 8;
    assert!(record.len() >= 16 && word(&record[4..]) == record.len(), "{record:?}");
    let mut rest = &record[16..];
    while !rest.is_empty() {
        let len = word(rest);
        assert!(len >= 8 && len <= rest.len(), "{record:?}");
        rest = &rest[len..];
    }
}

/// The records: each as long as its header says, the last one whatever is left.
fn records(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let &[_, _, _, _, l0, l1, ..] = data else {
            return (!data.is_empty()).then(|| std::mem::take(&mut data));
        };
        let len = (usize::from(u16::from_ne_bytes([l0, l1])) * 8).clamp(16, data.len().max(16));
        let (record, rest) = data.split_at(len.min(data.len()));
        data = rest;
        Some(record)
    })
}

/// Whether what looks like a key is also where none is.
fn public_secret(data: &[u8]) -> bool {
    records(data).any(|record| {
        let mut rest = record.get(16..).unwrap_or_default();
        while let [l0, l1, t0, t1, ..] = *rest {
            let len = usize::from(u16::from_ne_bytes([l0, l1])) * 8;
            let Some((extension, after)) = rest.split_at_checked(len).filter(|_| len != 0) else { break };
            if !matches!(u16::from_ne_bytes([t0, t1]), 8 | 9) && contains_secret(extension) {
                return true;
            }
            rest = after;
        }
        // What is no message goes back as nothing but its header, and the shim's message as it came.
        record.get(1) == Some(&SHIM) || record.get(1) == Some(&16)
    })
}

fn record(number: u8, satype: u8, extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = extensions.concat();
    let words = u16::try_from((16 + body.len()) / 8).expect("short").to_ne_bytes();
    let mut octets = vec![2, number, 0, satype, words[0], words[1], 0, 0, 1, 0, 0, 0, 0x0f, 0x27, 0, 0];
    octets.extend(body);
    octets
}

fn ext(number: u16, body: &[u8]) -> Vec<u8> {
    let len = (4 + body.len()).next_multiple_of(8);
    let mut octets = u16::try_from(len / 8).expect("short").to_ne_bytes().to_vec();
    octets.extend(number.to_ne_bytes());
    octets.extend(body);
    octets.resize(len, 0);
    octets
}

fn sa(number: u16, spi: u32, rest: [u8; 4], flags: u32) -> Vec<u8> {
    ext(number, &[&spi.to_be_bytes()[..], &rest, &flags.to_ne_bytes(), &[0; 8]].concat())
}

fn address(number: u16, ip: [u8; 4]) -> Vec<u8> {
    ext(number, &[&[0, 0, 0, 0, 2, 0, 0, 0][..], &ip, &[0; 8]].concat())
}

fn key(number: u16, octets: usize) -> Vec<u8> {
    let bits = u16::try_from(octets * 8).expect("short").to_ne_bytes();
    ext(number, &[&bits[..], &[0, 0], &SECRET.repeat(4)[..octets]].concat())
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
