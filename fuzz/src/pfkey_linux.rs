//! What a program of the Linux dialect writes: one record, translated, asked of the service, and its answers translated
//! back.

use ipsec_core::Time;
use klips::{Config, Control, Plane};
use pfkey::Message;
use pfkey::dialect::{Dialect, Turn};
use std::sync::Arc;

/// `sadb_msg_type` of the shim's message about socket options.
const SHIM: u8 = 134;
const SECRET: [u8; 8] = *b"SecretK!";

fn contains_secret(octets: &[u8]) -> bool {
    octets.windows(SECRET.len()).any(|window| window == SECRET)
}

/// Takes the octets as one record.
pub fn run(data: &[u8]) {
    let random = |octets: &mut [u8]| octets.fill(0x5a);
    let mut control = Control::new(Arc::new(Plane::default()), Config::new(1_700_000_000, Box::new(random)));
    let now = Time::from_nanos(1);
    let (asking, listening) = (control.connect(1, now), control.connect(2, now));
    let mut translators = [asking, listening]
        .map(|socket| (socket, Dialect::Linux.translator().expect("it is not the native one")));
    let elsewhere = public_secret(data);
    let turn = translators[0].1.request(data);
    assert!(turn.ask.len() + turn.say.len() == 1, "one record has one answer");
    act(&mut control, asking, turn, now, elsewhere);
    for (socket, translator) in &mut translators {
        // What it is told may make it ask again, once.
        for _ in 0..64 {
            let Some(notice) = control.notice(*socket, now) else { break };
            let turn = translator.notice(&notice);
            act(&mut control, *socket, turn, now, elsewhere);
        }
    }
    // What was added, if anything, is dumped: each record well-formed, the last one marked.
    let turn = translators[1].1.request(&bare(10));
    act(&mut control, listening, turn, now, true);
    let mut said = Vec::new();
    while let Some(notice) = control.notice(listening, now) {
        said.extend(translators[1].1.notice(&notice).say);
    }
    assert!(said.last().is_some_and(|last| last.get(8..12) == Some(&[0; 4])), "a dump ends");
}

/// Does a turn's part of the service, and looks at what it says.
fn act(control: &mut Control, socket: klips::SocketId, turn: Turn, now: Time, elsewhere: bool) {
    for ask in turn.ask {
        // The shim's own message goes through as it came.
        assert!(
            ask.get(1) == Some(&SHIM) || Message::parse(&ask).is_ok(),
            "what is asked the service can read"
        );
        control.request(socket, &ask, now);
    }
    for record in turn.say {
        well_formed(&record);
        assert!(elsewhere || !contains_secret(record.get(16..).unwrap_or_default()), "a key went out");
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

/// Whether what looks like a key is also where none is.
fn public_secret(data: &[u8]) -> bool {
    let mut rest = data.get(16..).unwrap_or_default();
    while let [l0, l1, t0, t1, ..] = *rest {
        let len = usize::from(u16::from_ne_bytes([l0, l1])) * 8;
        let Some((extension, after)) = rest.split_at_checked(len).filter(|_| len != 0) else { break };
        if !matches!(u16::from_ne_bytes([t0, t1]), 8 | 9) && contains_secret(extension) {
            return true;
        }
        rest = after;
    }
    data.get(1) == Some(&SHIM)
}

fn bare(number: u8) -> Vec<u8> {
    record(number, 0, &[])
}

fn record(number: u8, satype: u8, extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = extensions.concat();
    let words = u16::try_from((16 + body.len()) / 8).expect("short").to_ne_bytes();
    let mut octets = vec![2, number, 0, satype, words[0], words[1], 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
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

fn sockaddr(ip: [u8; 4]) -> Vec<u8> {
    [&[2, 0, 0, 0][..], &ip, &[0; 8]].concat()
}

/// One of each message a key manager sends.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let address =
        |number, proto, prefix, ip| ext(number, &[&[proto, prefix, 0, 0][..], &sockaddr(ip)].concat());
    let ends = || [address(5, 0, 32, [192, 0, 2, 1]), address(6, 0, 32, [192, 0, 2, 2])].concat();
    let nets = || [address(5, 255, 16, [10, 1, 0, 0]), address(6, 255, 16, [10, 2, 0, 0])].concat();
    let sa = |auth, encrypt| ext(1, &[0, 0, 0x10, 1, 32, 1, auth, encrypt, 0, 0, 0, 0]);
    let sa2 = ext(19, &[2, 0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0]);
    let key = |number, octets: usize| {
        let bits = u16::try_from(octets * 8).expect("short").to_ne_bytes();
        ext(number, &[&bits[..], &[0, 0], &SECRET.repeat(8)[..octets]].concat())
    };
    let life = |number, addtime: u8| {
        ext(number, &[&[0; 12][..], &[addtime, 0x20, 0, 0, 0, 0, 0, 0], &[0; 8]].concat())
    };
    let natt = [ext(20, &[2, 0, 0, 0]), ext(21, &[0x11, 0x94, 0, 0]), ext(22, &[0x11, 0x95, 0, 0])].concat();
    let policy = |kind: u8, direction: u8, level: u8| {
        let request = [&[48, 0, 50, 0, 2, level, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0][..]]
            .concat()
            .into_iter()
            .chain(sockaddr([192, 0, 2, 1]))
            .chain(sockaddr([192, 0, 2, 2]));
        let head = [kind, 0, direction, 0, 8, 0, 0, 0, 0, 0, 0, 0x80];
        let request: Vec<u8> = if kind == 2 { request.collect() } else { Vec::new() };
        ext(18, &[&head[..], &request].concat())
    };
    let range = ext(16, &[0, 1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0]);
    let cbc = [sa(5, 12), ends(), life(3, 9), life(4, 1), sa2.clone(), key(8, 32), key(9, 16)];
    let gcm = [sa(0, 20), sa2.clone(), ends(), natt, key(9, 20)];
    let all: [(&str, Vec<u8>); 18] = [
        ("getspi", record(1, 3, &[ends(), range, sa2])),
        ("add-cbc", record(3, 3, &cbc)),
        ("update-cbc", record(2, 3, &cbc)),
        ("add-gcm-natt", record(3, 3, &gcm)),
        ("get", record(5, 3, &[sa(0, 0), ends()])),
        ("delete", record(4, 3, &[sa(0, 0), ends()])),
        ("register", record(7, 3, &[])),
        ("flush", bare(9)),
        ("dump", bare(10)),
        ("spdadd-unique", record(14, 0, &[nets(), policy(2, 2, 3)])),
        ("spdupdate-require", record(13, 0, &[nets(), policy(2, 1, 2)])),
        ("spdupdate-use", record(13, 0, &[nets(), policy(2, 3, 1)])),
        ("spdadd-discard", record(14, 0, &[nets(), policy(0, 2, 0)])),
        ("spdadd-none", record(14, 0, &[nets(), policy(1, 2, 0)])),
        ("spddelete", record(15, 0, &[nets(), policy(1, 2, 0)])),
        ("spdget", record(16, 0, &[policy(1, 2, 0)])),
        ("spddelete2", record(22, 0, &[policy(1, 2, 0)])),
        ("spddump", bare(18)),
    ];
    all.map(|(name, octets)| (name.to_owned(), octets)).to_vec()
}
