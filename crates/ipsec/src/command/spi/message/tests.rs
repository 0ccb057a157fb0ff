use super::*;
use crate::command::ask::satype;
use crate::command::spi::{Args, Plan};
use clap::Parser;
use pfkey::client::Client;
use pfkey::{Message, MessageType};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// The record of an ADD, as `ipsec spi` sends it for these arguments.
fn record(line: &str, direction: Option<Direction>) -> Vec<u8> {
    let words = std::iter::once("spi").chain(line.split_whitespace());
    let Plan::Add(sa) = Cli::try_parse_from(words).unwrap().args.plan().unwrap() else { panic!("{line}") };
    let mut client = Client::new(7);
    let mut request = client.request(MessageType::Add, satype(sa.id.protocol));
    add(&mut request, &sa, direction);
    client.finish(request).unwrap().1
}

#[test]
fn everything_arrives_in_its_place() {
    let key = "01".repeat(20);
    let record = record(
        &format!(
            "--said esp0x1001@192.0.2.2 --src 192.0.2.1 --esp aes-gcm16 --enckey 0x{key} --inner-src 10.1.0.0/16 \
             --inner-dst 10.2.0.0/24 --esn --replay-window 1024 --life soft-bytes=5,hard-addtime=9 --natt nonesp \
             --sport 4501 --dport 4502 --tfc mtu --dummies 250"
        ),
        Some(Direction::Out),
    );
    let message = Message::parse(&record).unwrap();
    pfkey::rules::rule(MessageType::Add).unwrap().complete(&message).unwrap();
    let sa = message.sa.unwrap();
    assert_eq!((sa.spi, sa.replay, sa.state, sa.auth, sa.encrypt), (0x1001, 255, state::MATURE, 0, 20));
    assert_eq!(sa.flags, flags::OUTBOUND | flags::TUNNEL | flags::NATT_LOC | flags::NATT_REM);
    assert_eq!(message.sa_params, Some(SaParams { window: 1024, esn: true }));
    assert_eq!(message.tfc, Some(Tfc { pad: Tfc::MTU, dummies: 250 }));
    let key = message.encrypt_key.unwrap();
    assert_eq!((key.bits, key.octets, message.auth_key), (160, &[1; 20][..], None));
    assert_eq!((message.soft.unwrap().bytes, message.hard.unwrap().addtime), (5, 9));
    let socket = |address: Option<Address>| address.unwrap().socket.unwrap().to_string();
    assert_eq!((socket(message.src), socket(message.dst)), ("192.0.2.1:0".into(), "192.0.2.2:0".into()));
    assert_eq!(socket(message.natt_loc), "0.0.0.0:4501");
    assert_eq!(socket(message.natt_rem), "0.0.0.0:4502");
    let net =
        |address: Option<Address>| (address.unwrap().ip().unwrap().to_string(), address.unwrap().prefix);
    assert_eq!(net(message.inner_src), ("10.1.0.0".into(), 16));
    assert_eq!(net(message.inner_dst), ("10.2.0.0".into(), 24));
}

#[test]
fn an_inbound_sa_has_the_peer_as_remote() {
    let record = record(
        &format!(
            "--said esp0x1001@2001:db8::2 --src 2001:db8::1 --esp null-sha1 --authkey 0x{} --replay-window 64 --natt nonesp --sport 1234",
            "01".repeat(20)
        ),
        Some(Direction::In),
    );
    let message = Message::parse(&record).unwrap();
    let sa = message.sa.unwrap();
    assert_eq!((sa.replay, sa.auth, sa.encrypt), (64, 3, 11));
    assert_eq!(sa.flags, flags::INBOUND | flags::NATT_LOC | flags::NATT_REM);
    // The ports are what counts; the addresses are those of the SA.
    assert_eq!(message.natt_loc.unwrap().socket.unwrap().to_string(), "0.0.0.0:4500");
    assert_eq!(message.natt_rem.unwrap().socket.unwrap().to_string(), "0.0.0.0:1234");
    assert_eq!((message.inner_src, message.sa_params, message.encrypt_key), (None, None, None));
}

#[test]
fn a_tunnel_for_anything_names_everything() {
    let key = "01".repeat(36);
    let record = record(
        &format!(
            "--said esp0x1001@192.0.2.2 --esp chacha20-poly1305 --enckey 0x{key} --tunnel --replay-window 0"
        ),
        None,
    );
    let message = Message::parse(&record).unwrap();
    assert_eq!(message.sa.unwrap().flags, flags::TUNNEL | flags::NOREPLAY);
    assert_eq!((message.inner_src.unwrap().prefix, message.inner_dst.unwrap().prefix), (0, 0));
    assert_eq!(message.src.unwrap().ip(), "0.0.0.0".parse().ok());
    assert_eq!((message.hard, message.soft), (None, None));
}

#[test]
fn an_outer_header_alone_has_no_inner_addresses() {
    let record = record("--ip4 --said tun0x1001@192.0.2.2 --src 192.0.2.1", None);
    let message = Message::parse(&record).unwrap();
    assert_eq!((message.sa.unwrap().flags, message.inner_src), (0, None));
    assert_eq!(message.base.satype(), Some(pfkey::SaType::Ipip));
}
