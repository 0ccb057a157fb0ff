//! The dialect of Linux: one record has one answer, and a DUMP an end.

use crate::dialect::{Speech, ext, key};
use pfkey::dialect::Dialect;

/// Takes the octets as records.
pub fn run(data: &[u8]) {
    let mut all = Speech { dialect: Dialect::Linux, echoed: &[], most: 1 }.converse(data);
    // What was added, if anything, is dumped: each record well-formed, the last one marked.
    let said = all.ask_as_listener(&bare(10));
    assert!(said.last().is_some_and(|last| last.get(8..12) == Some(&[0; 4])), "a dump ends");
}

fn bare(number: u8) -> Vec<u8> {
    record(number, 0, &[])
}

fn record(number: u8, satype: u8, extensions: &[Vec<u8>]) -> Vec<u8> {
    crate::dialect::record(number, satype, (0, 1), extensions)
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
    let bundle = {
        let request = |proto: u8| [16, 0, proto, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let head = [2, 0, 2, 0, 8, 0, 0, 0, 0, 0, 0, 0x80];
        ext(18, &[&head[..], &request(108), &request(50), &request(51)].concat())
    };
    let all: [(&str, Vec<u8>); 19] = [
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
        ("spdadd-bundle", record(14, 0, &[ends(), bundle])),
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
