//! A key manager written with `pfkey::client`, as its documentation shows, against the real service.

use ipsec_core::Time;
use klips::{Config, Control, Plane, SocketId};
use pfkey::client::{Client, Heard, Request, Ticket};
use pfkey::{
    Address, Algorithm, Diagnostic, Errno, ExtType, Fault, Lifetime, Message, MessageType, Pair, Sa, SaType,
    SpiRange, flags, state,
};
use std::sync::Arc;

const PID: u32 = 4242;

struct Manager {
    control: Control,
    socket: SocketId,
    client: Client,
    now: Time,
}

impl Manager {
    fn new() -> Self {
        let random = |octets: &mut [u8]| octets.fill(0x5a);
        let mut control =
            Control::new(Arc::new(Plane::default()), Config::new(1_700_000_000, Box::new(random)));
        // Which direction an SA serves is told by whose address it goes to.
        control.set_local_addresses(vec!["192.0.2.1".parse().unwrap()]);
        let now = Time::from_nanos(1);
        let socket = control.connect(PID, now);
        // Somebody else has a socket too, and a client with the same numbers.
        let other = control.connect(1, now);
        let mut stranger = Client::new(1);
        let (_, record) = stranger.finish(stranger.request(MessageType::Register, SaType::Esp)).unwrap();
        control.request(other, &record, now);
        Self { control, socket, client: Client::new(PID), now }
    }

    fn send(&mut self, request: Request) -> Ticket {
        let (ticket, record) = self.client.finish(request).unwrap();
        self.control.request(self.socket, &record, self.now);
        ticket
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        self.control.notice(self.socket, self.now)
    }

    /// Sends a request that is expected to succeed, and hands its one answer to `read`.
    fn ask<R>(&mut self, request: Request, read: impl FnOnce(&Message<'_>) -> R) -> R {
        let ticket = self.send(request);
        let record = self.next().expect("an answer");
        match self.client.hear(&record).unwrap() {
            Heard::Answer { to, message, more: false } if to == ticket => read(&message),
            other @ (Heard::Answer { .. } | Heard::Refused { .. } | Heard::Notice(_)) => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, request: Request) -> Fault {
        let ticket = self.send(request);
        let record = self.next().expect("an answer");
        match self.client.hear(&record).unwrap() {
            Heard::Refused { to, fault } if to == ticket => fault,
            other @ (Heard::Answer { .. } | Heard::Refused { .. } | Heard::Notice(_)) => panic!("{other:?}"),
        }
    }
}

fn host(text: &str) -> Address {
    Address::host(text.parse().unwrap())
}

fn sa(client: &Client, kind: MessageType, spi: u32, out: bool) -> Request {
    let mut ends = [(host("192.0.2.2"), "10.2.0.0"), (host("192.0.2.1"), "10.1.0.0")];
    if out {
        ends.reverse();
    }
    let mut ask = client.request(kind, SaType::Esp);
    ask.sa(&Sa { spi, replay: 64, state: state::MATURE, encrypt: 20, flags: flags::TUNNEL, ..Sa::default() });
    ask.lifetime(ExtType::LifetimeHard, &Lifetime { addtime: 3600, ..Lifetime::default() });
    ask.lifetime(ExtType::LifetimeSoft, &Lifetime { addtime: 1800, ..Lifetime::default() });
    for ((outer, inner), (end, net)) in
        [(ExtType::AddressSrc, ExtType::AddressInnerSrc), (ExtType::AddressDst, ExtType::AddressInnerDst)]
            .into_iter()
            .zip(ends)
    {
        ask.address(outer, &end);
        ask.address(inner, &Address::net(net.parse().unwrap(), 16));
    }
    ask.key(ExtType::KeyEncrypt, 160, 0, &[if out { 0x22 } else { 0x11 }; 20]);
    ask
}

#[test]
fn a_key_manager_registers_makes_a_pair_and_hears_it_expire() {
    let mut manager = Manager::new();
    let register = manager.client.request(MessageType::Register, SaType::Esp);
    manager.ask(register, |message| {
        let supported = message.raw(ExtType::SupportedEncrypt).unwrap();
        assert!(Algorithm::list(supported).any(|algorithm| algorithm.id == 20));
    });

    let mut ask = manager.client.request(MessageType::GetSpi, SaType::Esp);
    ask.address(ExtType::AddressSrc, &host("192.0.2.2"));
    ask.address(ExtType::AddressDst, &host("192.0.2.1"));
    ask.spi_range(&SpiRange { min: 0x100, max: u32::MAX });
    let inbound = manager.ask(ask, |message| message.sa.unwrap().spi);

    let update = sa(&manager.client, MessageType::Update, inbound, false);
    manager
        .ask(update, |message| assert!(!message.has(ExtType::KeyEncrypt), "keys leave in GET and DUMP only"));
    let mut add = sa(&manager.client, MessageType::Add, 0x2002, true);
    add.pair(&Pair { spi: inbound });
    manager.ask(add, |message| assert_eq!(message.sa.unwrap().flags & flags::PAIRED, flags::PAIRED));

    // Both are there, each with the other's SPI, and the dump ends.
    let dump = manager.client.request(MessageType::Dump, SaType::Unspec);
    let ticket = manager.send(dump);
    let mut pairs = Vec::new();
    loop {
        let record = manager.next().expect("the rest of the dump");
        match manager.client.hear(&record).unwrap() {
            Heard::Answer { to, message, more } => {
                assert_eq!(to, ticket);
                if !more {
                    break;
                }
                pairs.push((message.sa.unwrap().spi, message.pair.unwrap().spi));
            }
            other @ (Heard::Refused { .. } | Heard::Notice(_)) => panic!("{other:?}"),
        }
    }
    pairs.sort_unstable();
    let mut want = [(inbound, 0x2002), (0x2002, inbound)];
    want.sort_unstable();
    assert_eq!(pairs, want);
    assert_eq!(manager.client.pending(), 0);

    // Half an hour later.
    manager.now = Time::from_nanos(1 + 1_900_000_000_000);
    manager.control.expire(manager.now);
    let mut expired = Vec::new();
    while let Some(record) = manager.next() {
        let Heard::Notice(message) = manager.client.hear(&record).unwrap() else { panic!() };
        assert_eq!(message.base.kind(), Some(MessageType::Expire));
        assert!(message.soft.is_some() && message.hard.is_none());
        expired.push(message.sa.unwrap().spi);
    }
    expired.sort_unstable();
    assert_eq!(expired, want.map(|(spi, _)| spi));
}

#[test]
fn a_refusal_says_what_is_wrong_and_leaves_nothing_pending() {
    let mut manager = Manager::new();
    let mut get = manager.client.request(MessageType::Get, SaType::Esp);
    get.sa(&Sa { spi: 0x1001, ..Sa::default() });
    assert_eq!(manager.refused(get), Fault::invalid(Diagnostic::MissingDst));
    let mut get = manager.client.request(MessageType::Get, SaType::Esp);
    get.sa(&Sa { spi: 0x1001, ..Sa::default() }).address(ExtType::AddressDst, &host("192.0.2.1"));
    assert_eq!(manager.refused(get).errno, Errno::ESRCH);
    assert_eq!(manager.client.pending(), 0);
}

#[test]
fn an_extended_register_is_answered_for_each_type() {
    let mut manager = Manager::new();
    let request = manager.client.register_extended(&[SaType::Ah, SaType::Esp]);
    let ticket = manager.send(request);
    let mut types = Vec::new();
    while let Some(record) = manager.next() {
        let Heard::Answer { to, message, more } = manager.client.hear(&record).unwrap() else { panic!() };
        assert_eq!(to, ticket);
        types.push((message.base.satype(), more));
    }
    assert_eq!(types, [(Some(SaType::Ah), true), (Some(SaType::Esp), false)]);
}
