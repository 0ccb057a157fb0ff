use super::grammar::{self, DISCARD, IPSEC, NONE};
use super::*;
use pfkey::dialect::linux::{Policy, Request};
use pfkey::{FlowDirection, Level};

/// What manual pages and how-tos have.
const SCRIPT: &str = r#"#!/usr/sbin/setkey -f
flush; spdflush ;
# ESP with a key in hexadecimal, over
# two lines
add 192.0.2.1 192.0.2.2 esp 0x10001
	-m tunnel -u 77 -r 64 -lh 3600 -ls 3000 -bh 1000000 -bs 900000
	-E rijndael-cbc 0x000102030405060708090a0b0c0d0e0f
	-A hmac-sha1 "authentication key!!" ;
add -6 2001:db8::1 2001:db8::2 ah 123456 -A hmac-sha256 0x0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20;
add 192.0.2.1[4500] 192.0.2.2[1024] esp-udp 4097 -E null -A hmac-md5 "sixteen octets!!";
get 192.0.2.1 192.0.2.2 esp 65537;
delete 192.0.2.1 192.0.2.2 esp 65537; deleteall 192.0.2.1 192.0.2.2 esp ; dump esp;
spdadd 10.1.0.0/16[any] 10.2.0.0/16 any -P out prio high - 5 ipsec
	esp/tunnel/192.0.2.1-192.0.2.2/unique:77;
spdadd 10.2.0.0/16 10.1.0.0/16 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/require;
spdadd 192.0.2.1 192.0.2.2[80] tcp -P out priority 10 ipsec esp/transport//use ah/transport//default;
spdupdate 0.0.0.0/0 0.0.0.0/0 icmp -P fwd discard;
spdadd ::/0 ::/0 icmp6 -P out none;
spddelete 10.1.0.0/16 10.2.0.0/16 any -P out;
spddump;
"#;

fn read(text: &str) -> Vec<Statement> {
    grammar::read(text, true).unwrap().into_iter().map(|(_, statement)| statement).collect()
}

fn wrong(text: &str) -> String {
    match grammar::read(text, true) {
        Err(wrong) => wrong.to_string(),
        Ok(_) => panic!("{text}"),
    }
}

#[test]
fn a_script_of_every_statement_is_read() {
    let all = read(SCRIPT);
    assert_eq!(all.len(), 16);
    let Statement::Add(add) = &all[2] else { panic!() };
    assert_eq!((add.spi, add.mode, add.reqid, add.replay), (0x10001, 2, 77, 64));
    assert_eq!((add.hard, add.soft), ((3600, 1_000_000), (3000, 900_000)));
    let (number, key) = add.encrypt.as_ref().unwrap();
    assert_eq!((*number, key.len(), key[15]), (12, 16, 15));
    assert_eq!(add.auth.as_ref().map(|(n, key)| (*n, &key[..])), Some((3, &b"authentication key!!"[..])));
    let Statement::Add(udp) = &all[4] else { panic!() };
    assert_eq!((udp.in_udp, udp.src.port(), udp.dst.port()), (true, 4500, 1024));
    let Statement::SpdAdd { selector, policy, update: false } = &all[9] else { panic!() };
    assert_eq!((selector.src.prefix, selector.proto), (16, 255));
    let request = Request {
        protocol: 50,
        mode: 2,
        level: Some(Level::Unique),
        reqid: 77,
        ends: Some(("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap())),
    };
    let want = Policy { kind: IPSEC, direction: 2, index: 0, priority: 0x4000_0005, requests: vec![request] };
    assert_eq!(*policy, want);
    let Statement::SpdAdd { selector, policy, .. } = &all[11] else { panic!() };
    assert_eq!((selector.proto, selector.dst.address.port(), selector.dst.prefix), (6, 80, 32));
    assert_eq!((policy.priority, policy.requests.len()), ((1 << 31) - 10, 2));
    let Statement::SpdAdd { policy, update: true, .. } = &all[12] else { panic!() };
    assert_eq!((policy.kind, policy.direction), (DISCARD, 3));
    let Statement::SpdAdd { selector, policy, .. } = &all[13] else { panic!() };
    assert_eq!((policy.kind, selector.proto), (NONE, 58));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, want) in [
        ("flush", "1: this statement has no semicolon at its end"),
        ("\n\nfrob x;", "3: frob: no such statement"),
        ("add 192.0.2.1 2001:db8::1 esp 5 -E null;", "1: 2001:db8::1: no address of that family"),
        ("add host 192.0.2.1 esp 5 -E null;", "1: host: not an address, and -n looks no names up"),
        ("add 192.0.2.1 192.0.2.2 esp 5x -E null;", "1: 5x: not a number for the SPI"),
        ("add 192.0.2.1 192.0.2.2 esp 0x100000000 -E null;", "1: 0x100000000: not a number for the SPI"),
        ("add 192.0.2.1 192.0.2.2 esp 5;", "1: esp needs -E"),
        ("flush esp now;", "1: there is more here than the statement has"),
        ("add 192.0.2.1 192.0.2.2 ah 5 -E null;", "1: ah needs -A"),
        ("add 192.0.2.1 192.0.2.2 esp-old 5 -E null;", "1: esp-old: not supported"),
        (
            "add 192.0.2.1 192.0.2.2 esp 5 -E rot13 0x00;",
            "1: no such encryption algorithm (what was read may be a key); there are des-cbc,",
        ),
        ("add 192.0.2.1 192.0.2.2 esp 5 -m beet -E null;", "1: beet: the mode is any, transport or tunnel"),
        ("spdadd 10.0.0.0/33 10.0.0.0/8 any -P out none;", "1: 33: the prefix length is from 0 to 32"),
        ("spdadd 10.0.0.0/8[80] 10.0.0.0/8 any -P out none;", "1: a port needs a protocol that has ports"),
        ("spdadd 10.0.0.0/8 10.0.0.0/8 any -P out ipsec;", "1: ipsec needs a request"),
        ("get 192.0.2.1 2001:db8::2 esp 5;", "1: 2001:db8::2: no address of that family"),
        ("get 2001:db8::1 192.0.2.2 esp 5;", "1: 192.0.2.2: no address of that family"),
        ("deleteall -6 192.0.2.1 192.0.2.2 esp;", "1: 192.0.2.1: no address of that family"),
        ("spdadd 10.0.0.0/8 10.0.0.0/8 any -P up none;", "1: up: the direction is in, out or fwd"),
        (
            "spdadd 10.0.0.0/8 10.0.0.0/8 any -P out ipsec esp/tunnel//require;",
            "1: esp/tunnel//require: a tunnel has two ends",
        ),
        ("spdadd 10.0.0.0/8 10.0.0.0/8 any -P out entrust;", "1: entrust: for sockets only"),
        ("add 192.0.2.1 192.0.2.2 esp 5 -E aes-cbc \"x\n\";", "1: a quoted word without its end"),
        (
            "spdadd 10.0.0.0/8 10.0.0.0/8 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:16384;",
            "1: the number after unique:",
        ),
    ] {
        assert!(wrong(text).starts_with(want), "{text}: {}", wrong(text));
    }
}

#[test]
fn no_message_shows_a_key() {
    let before = "add 192.0.2.1 192.0.2.2 esp 5 -E aes-cbc";
    for text in [
        format!("{before} 0x5ec2e7;x"),
        format!("{before} 0x5ec2e;"),
        format!("{before} 5ec2e7;"),
        format!("{before} \"s5ec2e7\" \"s5ec2e7\";"),
        format!("{before} 0x00 0x5ec2e7;"),
        "\"s5ec2e7\" ;".into(),
        // The name of the algorithm was forgotten, and a semicolon came too early.
        "add 192.0.2.1 192.0.2.2 esp 5 -E 0x5ec2e7;".into(),
        "add 192.0.2.1 192.0.2.2 esp 5 -E \"s5ec2e7\";".into(),
        "add 192.0.2.1 192.0.2.2 ah 5 -A s5ec2e7;".into(),
        format!("{before} \"sixteen octets!!\" \"-s5ec2e7\";"),
        format!("{before} 0x00; 0x5ec2e7;"),
        "flush; 5ec2e7;".into(),
        "flush; a5ec2e7;".into(),
    ] {
        let why = wrong(&text);
        assert!(!why.contains("5ec2e"), "{text}: {why}");
    }
}

#[test]
fn what_is_sent_is_printed_in_its_own_words() {
    let look = Look { ports: true, short: false, now: 0, zone: TimeZone::UTC };
    let all = read(SCRIPT);
    let Statement::Add(add) = &all[2] else { panic!() };
    let octets = record::add(add).finish(1).unwrap();
    let text = print::sa(&Record::parse(&octets).unwrap(), &look).unwrap();
    let head = "192.0.2.1 192.0.2.2 \n\tesp mode=tunnel spi=65537(0x00010001) reqid=77(0x0000004d)\n\
                \tE: aes-cbc  00010203 04050607 08090a0b 0c0d0e0f\n";
    assert!(text.starts_with(head), "{}", &**text);
    for line in [
        "\tseq=0x00000000 replay=64 flags=0x00000000 state=mature \n",
        "\tdiff: 0(s)\thard: 3600(s)\tsoft: 3000(s)\n",
        "\tcurrent: 0(bytes)\thard: 1000000(bytes)\tsoft: 900000(bytes)\n",
    ] {
        assert!(text.contains(line), "{line}{}", &**text);
    }
    let Statement::Add(add) = &all[4] else { panic!() };
    let octets = record::add(add).finish(1).unwrap();
    let text = print::sa(&Record::parse(&octets).unwrap(), &look).unwrap();
    assert!(text.starts_with("192.0.2.1[4500] 192.0.2.2[1024] \n\tesp-udp mode=any "), "{}", &**text);

    let Statement::SpdAdd { selector, policy, .. } = &all[9] else { panic!() };
    let octets = record::spdadd(*selector, policy, false).finish(1).unwrap();
    let text = print::policy(&Record::parse(&octets).unwrap(), &look).unwrap();
    let head = "10.1.0.0/16[any] 10.2.0.0/16[any] any\n\tout prio high - 5 ipsec\n\
                \tesp/tunnel/192.0.2.1-192.0.2.2/unique:77\n";
    assert!(text.starts_with(head), "{text}");
    // A whole address has no prefix length, and a number of the service's choice is not yet one.
    let hosts = read("spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//unique;");
    let Statement::SpdAdd { selector, policy, .. } = &hosts[0] else { panic!() };
    let octets = record::spdadd(*selector, policy, false).finish(1).unwrap();
    let text = print::policy(&Record::parse(&octets).unwrap(), &look).unwrap();
    let head = "192.0.2.1[any] 192.0.2.2[any] any\n\tout ipsec\n\tesp/transport//unique\n";
    assert!(text.starts_with(head), "{text}");
    let Statement::SpdAdd { selector, policy, .. } = &all[11] else { panic!() };
    let octets = record::spdadd(*selector, policy, false).finish(1).unwrap();
    let text = print::policy(&Record::parse(&octets).unwrap(), &look).unwrap();
    assert!(text.contains(" ipsec\n\tesp/transport//use\n\tah/transport//default\n\tcreated"), "{text}");
}

#[test]
fn names_are_looked_up_unless_that_is_not_wanted() {
    let named = grammar::read("get -4 localhost localhost ah 5;", false).unwrap();
    let Statement::Get { src, dst, .. } = &named[0].1 else { panic!() };
    assert!(src.is_loopback() && src == dst);
    assert!(wrong("get -n localhost localhost ah 5;").contains("looks no names up"));
}

#[test]
fn in_is_for_forwarded_packets_too_where_it_is_about_tunnels() {
    let all = read(SCRIPT);
    let Statement::SpdAdd { policy, .. } = &all[10] else { panic!() };
    assert_eq!(policy.direction, FlowDirection::In.number());
    let forward = record::forwarded(policy).unwrap();
    assert_eq!(forward.direction, FlowDirection::Forward.number());
    assert_eq!(forward.requests, policy.requests);
    assert!(record::forwarded(&Policy { direction: 2, ..policy.clone() }).is_none());
    let transport = read("spdadd 192.0.2.2 192.0.2.1 any -P in ipsec esp/transport//require;");
    let Statement::SpdAdd { policy, .. } = &transport[0] else { panic!() };
    assert!(record::forwarded(policy).is_none());
    // A tunnel has hosts behind it, whatever is around it.
    let around = read(
        "spdadd 10.2.0.0/16 10.1.0.0/16 any -P in ipsec ah/tunnel/192.0.2.2-192.0.2.1/require esp/transport//require;",
    );
    let Statement::SpdAdd { policy, .. } = &around[0] else { panic!() };
    assert_eq!(record::forwarded(policy).unwrap().requests, policy.requests);
}
