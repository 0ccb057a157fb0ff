use super::*;
use crate::command::key::build;
use crate::command::key::grammar::{self, Command, Place};
use crate::command::key::words::Lines;
use core::net::SocketAddr;
use pfkey::{Base, ExtType, MessageType, Pair, Writer};

const KEY: &[u8] = &[0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8];

fn dumped(change: impl Fn(&mut Sa), more: impl Fn(&mut Writer) -> &mut Writer) -> Vec<u8> {
    let mut writer = Writer::new(&Base::request(MessageType::Dump, SaType::Esp, 1, 1));
    let mut sa = Sa { spi: 0x1001, state: state::MATURE, auth: 0, encrypt: 20, ..Sa::default() };
    change(&mut sa);
    writer.sa(&sa);
    let address = |text: &str| {
        let socket: SocketAddr = text.parse().unwrap();
        Address { proto: 0, prefix: 0, socket: Some(socket) }
    };
    writer.address(ExtType::AddressSrc, &address("192.0.2.1:0"));
    writer.address(ExtType::AddressDst, &address("192.0.2.2:0"));
    // Four octets of key and four of salt: what is written does not care for the algorithm.
    writer.key(ExtType::KeyEncrypt, 32, 32, KEY);
    more(&mut writer);
    writer.finish().unwrap()
}

fn text(record: &[u8], paranoid: bool) -> String {
    entry(&Message::parse_answer(record).unwrap(), record.len(), paranoid).unwrap().to_string()
}

fn read(text: &str) -> Vec<Command> {
    let mut lines = Lines::new(text.as_bytes());
    core::iter::from_fn(|| lines.words())
        .map(|words| grammar::command(&words.expect("words"), Place::File).expect(text))
        .collect()
}

#[test]
fn one_sa_is_one_command_with_the_salt_in_its_key() {
    let text = text(&dumped(|_| {}, |w| w), false);
    let [Command::Ask(ask)] = &read(&text)[..] else { panic!("{text}") };
    let key = ask.sa.encrypt_key.as_ref().unwrap();
    assert_eq!((&key.octets[..], key.bits), (KEY, 64));
    assert!(
        text.starts_with(
            "# begin esp 0x1001 to 192.0.2.2\nadd esp \\\n    spi 0x1001 encr_alg aes-gcm16 \\\n"
        ),
        "{text}"
    );
    assert!(text.ends_with("\n\n# end\n\n"), "{text}");
    let built = build::build(ask, &mut |_| panic!("no names"), &mut || 1, 1).unwrap();
    let again = Message::parse(&built.messages[0]).unwrap();
    assert_eq!(again.sa.unwrap(), Sa { spi: 0x1001, state: state::MATURE, encrypt: 20, ..Sa::default() });
    assert_eq!(again.src.unwrap().ip(), "192.0.2.1".parse().ok());
}

#[test]
fn paranoid_files_have_no_keys() {
    let text = text(&dumped(|_| {}, |w| w), true);
    assert!(text.contains("encrkey XXXXXXXXXXXXXXXX/64") && !text.contains("a1a2"), "{text}");
}

#[test]
fn what_cannot_be_made_again_is_said() {
    let larval = text(&dumped(|sa| sa.state = state::LARVAL, |w| w), false);
    assert!(larval.contains("larval") && read(&larval).is_empty(), "{larval}");
    let dying = text(&dumped(|sa| sa.state = state::DYING, |w| w), false);
    assert!(dying.contains("# It was near its end") && read(&dying).len() == 1, "{dying}");
    for bad in [&b"a\"b"[..], b"a\nflush", b"\xff"] {
        let identity = Identity { kind: pfkey::identity::FQDN, id: 0, text: bad };
        let odd = text(&dumped(|_| {}, |w| w.identity(ExtType::IdentitySrc, &identity)), false);
        assert!(odd.contains("left out") && !odd.contains("srcidtype"), "{odd}");
        assert_eq!(read(&odd).len(), 1, "nothing in an identity is a command: {odd}");
    }
    let paired = text(&dumped(|sa| sa.flags = flags::PAIRED, |w| w.pair(&Pair { spi: 5 })), false);
    assert!(!paired.contains("pair-spi"), "the other one may not be there yet: {paired}");
}

#[test]
fn what_else_an_sa_carries_is_read_as_it_was_written() {
    let pair = |src: &str, dst: &str, (src_prefix, dst_prefix): (u8, u8), proto: u8| InnerPair {
        proto,
        src: src.parse().unwrap(),
        src_prefix,
        dst: dst.parse().unwrap(),
        dst_prefix,
    };
    let more = [
        pair("10.3.0.0:0", "10.4.0.0:0", (24, 16), 0),
        pair("10.3.0.0:0", "10.4.0.0:22", (24, 16), 6),
        pair("[fd00::]:0", "[::]:0", (64, 0), 0),
    ];
    let nets = |w: &mut Writer| {
        w.address(ExtType::AddressInnerSrc, &Address::net([10, 1, 0, 0].into(), 16));
        w.address(ExtType::AddressInnerDst, &Address::net([10, 2, 0, 0].into(), 16));
        w.selectors(&more);
    };
    let record = dumped(
        |sa| sa.flags = flags::TUNNEL,
        |w| {
            nets(w);
            w
        },
    );
    let text = text(&record, false);
    assert!(text.contains("also 10.3.0.0/24,10.4.0.0/16 ") && text.contains(",6,0,22"), "{text}");
    let [Command::Ask(ask)] = &read(&text)[..] else { panic!("{text}") };
    let built = build::build(ask, &mut |_| panic!("no names"), &mut || 1, 1).unwrap();
    let again = Message::parse(&built.messages[0]).unwrap();
    assert_eq!(again.selectors.unwrap().pairs().collect::<Vec<_>>(), more);
    assert_eq!(again.inner_src.unwrap().prefix, 16);
}
