use super::*;
use crate::command::key::grammar::{self, Command, Place};
use crate::command::key::words;
use pfkey::Message;

fn parsed(line: &str) -> Ask {
    let mut all = Vec::new();
    words::split(line, 3, &mut all).expect("words");
    match grammar::command(&all, Place::File) {
        Ok(Command::Ask(ask)) => *ask,
        other => panic!("{other:?}"),
    }
}

/// `two` has two addresses of IPv4 and one of IPv6, `one` one; nothing else is known.
fn resolve(name: &str) -> std::io::Result<Vec<IpAddr>> {
    let all: &[&str] = match name {
        "one" => &["192.0.2.1"],
        "two" => &["192.0.2.2", "192.0.2.1", "2001:db8::1", "192.0.2.1"],
        _ => return Err(std::io::ErrorKind::NotFound.into()),
    };
    Ok(all.iter().map(|ip| ip.parse().expect("address")).collect())
}

fn built(line: &str) -> Result<Built, Wrong> {
    let mut seq = 0;
    let mut next = || {
        seq += 1;
        seq
    };
    build(&parsed(line), &mut resolve, &mut next, 42)
}

fn one(line: &str) -> Zeroizing<Vec<u8>> {
    let mut built = built(line).expect(line);
    assert_eq!((built.messages.len(), built.warnings.len()), (1, 0), "{line}");
    built.messages.remove(0)
}

fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

const ADD: &str = "add esp spi 0x100 auth_alg sha1 authkey 00ff";

#[test]
fn an_add_has_everything_in_the_order_of_the_original() {
    let record = one(&format!(
        "{ADD} encr_alg aes encrkey 11 src 192.0.2.2 dst 192.0.2.1 sport 5 dport 6 proto 17 pair-spi 7 hard_bytes 1 \
         soft_bytes 1 idle_addtime 1 encap udp nat_loc 192.0.2.3 nat_rport 4500 isrc 10.0.0.0/8 idst 10.0.0.1 \
         srcidtype fqdn a dstidtype fqdn b replay_value 9 replay 300 esn inbound"
    ));
    let message = Message::parse(&record).unwrap();
    use ExtType as E;
    let order: Vec<ExtType> = message.extensions().map(|extension| extension.kind).collect();
    assert_eq!(
        order,
        [
            E::Sa,
            E::Pair,
            E::LifetimeHard,
            E::LifetimeSoft,
            E::LifetimeIdle,
            E::KeyEncrypt,
            E::KeyAuth,
            E::IdentitySrc,
            E::IdentityDst,
            E::AddressDst,
            E::AddressNattRem,
            E::AddressNattLoc,
            E::AddressSrc,
            E::AddressInnerSrc,
            E::AddressInnerDst,
            E::ReplayValue,
            E::SaParams
        ]
    );
    assert_eq!((message.base.seq, message.base.pid), (1, 42));
    let sa = message.sa.unwrap();
    assert_eq!((sa.spi, sa.replay, sa.state, sa.auth, sa.encrypt), (0x100, 255, state::MATURE, 3, 12));
    let all = flags::INBOUND | flags::PAIRED | flags::TUNNEL | flags::NATT_LOC | flags::NATT_REM;
    assert_eq!(sa.flags, all);
    let src = message.src.unwrap();
    assert_eq!((src.ip(), src.port(), src.proto, src.prefix), (ip("192.0.2.2"), 5, 17, 0));
    let rem = message.natt_rem.unwrap();
    assert_eq!((rem.ip(), rem.port(), rem.proto), (ip("0.0.0.0"), 4500, UDP));
    assert_eq!((message.inner_src.unwrap().prefix, message.inner_dst.unwrap().prefix), (8, 32));
    assert_eq!(message.sa_params, Some(SaParams { window: 300, esn: true }));
    assert_eq!(message.replay_value, Some(ReplayValue { low: 9, high: 9 }));
}

#[test]
fn what_is_not_said_is_filled_in() {
    let v6 = one(&format!("{ADD} dst 2001:db8::1"));
    let message = Message::parse(&v6).unwrap();
    assert_eq!(message.src.unwrap().ip(), ip("::"));
    assert_eq!(message.sa.unwrap().encrypt, 11, "the NULL cipher");
    assert!(message.sa_params.is_none() && message.hard.is_none());
    let ah = one("add ah spi 0x100 auth_alg sha1 authkey 00ff dst 192.0.2.1 replay 0");
    let sa = Message::parse(&ah).unwrap().sa.unwrap();
    assert_eq!((sa.encrypt, sa.flags), (0, flags::NOREPLAY));
    let update = one("update esp spi 0x100 dst 192.0.2.1 hard_bytes 1");
    assert_eq!(Message::parse(&update).unwrap().sa.unwrap().encrypt, 0, "no algorithm is changed");
    let get = one("get esp spi 0x100 dst 192.0.2.1 outbound");
    let message = Message::parse(&get).unwrap();
    assert!(message.src.is_none() && message.sa.unwrap().flags == flags::OUTBOUND);
    assert_eq!(one("flush ah").len(), Base::LEN);
}

#[test]
fn a_name_means_all_its_addresses_as_a_destination_and_one_as_a_source() {
    let all = built(&format!("{ADD} dst two")).unwrap();
    let dsts = all.messages.iter().map(|record| Message::parse(record).unwrap().dst.unwrap().ip());
    assert_eq!(dsts.collect::<Vec<_>>(), [ip("192.0.2.1"), ip("192.0.2.2"), ip("2001:db8::1")]);
    let only = one(&format!("{ADD} dst6 two"));
    assert_eq!(Message::parse(&only).unwrap().dst.unwrap().ip(), ip("2001:db8::1"));
    let src = |line: &str| {
        let built = built(line).unwrap();
        (Message::parse(&built.messages[0]).unwrap().src.unwrap().ip(), built.warnings.len())
    };
    assert_eq!(src(&format!("{ADD} src one dst 192.0.2.9")), (ip("192.0.2.1"), 0));
    assert_eq!(src(&format!("{ADD} src two dst 192.0.2.9")), (ip("0.0.0.0"), 1), "which of them?");
    assert_eq!(src(&format!("{ADD} src two dst 2001:db8::9")), (ip("2001:db8::1"), 0));
    assert_eq!(src(&format!("{ADD} src :: dst 192.0.2.9")), (ip("0.0.0.0"), 0));
    for (words, named) in [("dst nowhere", "nowhere"), ("dst6 one", "one")] {
        let why = built(&format!("{ADD} {words}")).unwrap_err();
        assert!(why.line == 3 && why.to_string().starts_with(named), "{why}");
    }
}
