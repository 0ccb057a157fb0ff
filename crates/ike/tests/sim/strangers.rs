//! Who has done IKE_SA_INIT holds SK_*, and so can everybody who asks: until AUTH it is a stranger, and what it demands under
//! those keys is refused and moves nothing (CVE-2014-2338).

use crate::insider::Insider;
use crate::password;
use crate::world::{World, net, site};
use ike::event::{Event, Transmit};
use ike::message::{
    Attribute, Configuration, Delete, Exchange, Header, Message, Notify, NotifyKind, Payload,
};
use ike::proposal::Protocol;
use ipsec_core::kex::Group;

fn notify(kind: NotifyKind, data: &[u8]) -> Payload {
    Payload::Notify(Notify::new(kind, data.to_vec()))
}

/// What only somebody who has proved who it is may ask for. `pair` is an SPI of the honest peer's pair.
fn demands(pair: u32) -> Vec<(&'static str, Exchange, Vec<Payload>)> {
    use Exchange::{CreateChildSa, IkeFollowupKe, Informational};
    let offers = site("net");
    let spi = vec![0xbe, 0xef, 0, 1];
    let (_, share) = Group::X25519.offer().unwrap();
    let ke = || Payload::Ke { group: Group::X25519.number(), data: share.clone() };
    let mut pfs = offers.child.offers[0].clone();
    pfs.groups = vec![Group::X25519];
    let child = |offer: &ike::proposal::Offer| {
        vec![
            Payload::Sa(vec![offer.proposal(1, Protocol::Esp, spi.clone())]),
            Payload::Nonce(vec![7; 32]),
            Payload::TsI(vec![net("10.1.0.0/16")]),
            Payload::TsR(vec![net("10.2.0.0/16")]),
        ]
    };
    let rekey = Notify {
        protocol: Some(Protocol::Esp),
        spi: pair.to_be_bytes().to_vec(),
        ..Notify::new(NotifyKind::RekeySa, Vec::new())
    };
    let ike = offers.ike[0].proposal(1, Protocol::Ike, vec![0xbe, 0xef, 0, 0, 0, 0, 0, 1]);
    let configuration = Configuration {
        kind: Configuration::REQUEST,
        attributes: vec![Attribute { kind: Attribute::IP4_ADDRESS, value: Vec::new() }],
    };
    vec![
        ("a child", CreateChildSa, child(&offers.child.offers[0])),
        ("a child with PFS", CreateChildSa, [child(&pfs), vec![ke()]].concat()),
        (
            "another's child",
            CreateChildSa,
            [vec![Payload::Notify(rekey)], child(&offers.child.offers[0])].concat(),
        ),
        ("a new IKE SA", CreateChildSa, vec![Payload::Sa(vec![ike]), Payload::Nonce(vec![7; 32]), ke()]),
        (
            "one more key exchange",
            IkeFollowupKe,
            vec![ke(), notify(NotifyKind::AdditionalKeyExchange, &[7; 16])],
        ),
        ("liveness", Informational, Vec::new()),
        ("an end of the IKE SA", Informational, vec![Payload::Delete(Delete::IkeSa)]),
        ("an end of a child", Informational, vec![Payload::Delete(Delete::Child(Protocol::Esp, vec![pair]))]),
        ("another address", Informational, vec![notify(NotifyKind::UpdateSaAddresses, &[])]),
        ("more addresses", Informational, vec![notify(NotifyKind::AdditionalIp4Address, &[203, 0, 113, 66])]),
        ("a cookie", Informational, vec![notify(NotifyKind::Cookie2, &[7; 16])]),
        ("to be the only one", Informational, vec![notify(NotifyKind::InitialContact, &[])]),
        ("an address inside", Informational, vec![Payload::Cp(configuration)]),
    ]
}

/// What a host has of peers that are known, and what it has told its own host.
pub(crate) fn state(world: &World, side: usize) -> String {
    let host = &world.hosts[side];
    let known: Vec<_> = host.endpoint.rows().into_iter().filter(|row| row.peer.is_some()).collect();
    let is_said = |event: &&Event| matches!(event, Event::Progress { .. } | Event::PeerFailed { .. });
    let events = host.events.iter().filter(|event| !is_said(event)).count();
    let pairs: Vec<_> = host.pairs.iter().map(|pair| (pair.inbound.spi, pair.local, pair.remote)).collect();
    format!("{known:#?} {pairs:?} {events} events, SPI {:#x}", host.last_spi())
}

/// West and east have an IKE SA and a pair; then west begins another one, of which nothing has been delivered.
fn beside_an_honest_one(mut world: World) -> World {
    world.up(0);
    world.settle();
    world.agree(1);
    let mut weaker = world.hosts[1].endpoint.connections().next().unwrap().ike[0].clone();
    weaker.encryption[0].1 = 128;
    let mut second = (**world.hosts[0].endpoint.connections().next().unwrap()).clone();
    (second.name, second.ike) = ("second".to_owned(), vec![weaker.clone()]);
    world.hosts[0].endpoint.add(second);
    world.change(1, |c| c.ike.push(weaker));
    world.by_hand();
    let (address, now) = (world.hosts[0].address.parse().unwrap(), world.now);
    world.hosts[0].endpoint.up("second", address, now).unwrap();
    world.drain();
    world
}

/// IKE_SA_INIT, as it is.
fn first_messages(world: &mut World) -> (Insider, [Transmit; 2]) {
    let taken = [0, 1].map(|side| {
        let taken = world.take(side).expect("a first message");
        assert_eq!(Header::parse(&taken.octets).unwrap().0.exchange, Exchange::IkeSaInit);
        world.give(side, &taken, &taken.octets);
        taken
    });
    (Insider::new(&world.hosts[1].keys).expect("keys"), taken)
}

/// The next message of a side, whole.
fn next(world: &mut World, insider: &mut Insider, side: usize) -> Option<Message> {
    let mut message = None;
    while let Some(taken) = world.take(side) {
        message = insider.reads(side, &taken.octets).or(message);
    }
    message
}

#[test]
fn a_stranger_with_the_keys_of_its_ike_sa_is_refused_whatever_it_demands_and_moves_nothing() {
    for (world, rounds) in [(World::new(), 1), (password::world_with(|_, _| {}), 5)] {
        let mut world = beside_an_honest_one(world);
        let pair = world.hosts[0].pairs[0].inbound.spi;
        let (mut insider, taken) = first_messages(&mut world);
        let known = [0, 1].map(|side| state(&world, side));
        // Each demand of the stranger has a Message ID of its own, by which the honest ones are moved.
        let mut more = 0;
        for round in 0..rounds {
            let honest = next(&mut world, &mut insider, 0).expect("a request");
            let id = honest.header.id;
            for (what, exchange, payloads) in demands(pair) {
                let octets = insider.says(0, (exchange, false, id + more), payloads.clone());
                world.give(0, &taken[0], &octets);
                let answer = next(&mut world, &mut insider, 1).expect(what);
                assert_eq!(answer.payloads, [notify(NotifyKind::InvalidSyntax, &[])], "{what}, {round}");
                assert_eq!(state(&world, 1), known[1], "{what}, round {round}");
                more += 1;
                // Nor does one who asks take anything from a responder that has not said who it is. It is not even answered.
                let octets = insider.says(1, (exchange, false, 0), payloads);
                world.give(1, &taken[1], &octets);
                assert!(world.take(0).is_none(), "{what}, round {round}");
                assert_eq!(state(&world, 0), known[0], "{what}, round {round}");
            }
            let octets = insider.says(0, (honest.header.exchange, false, id + more), honest.payloads);
            world.give(0, &taken[0], &octets);
            let answer = next(&mut world, &mut insider, 1).expect("an answer");
            let octets = insider.says(1, (answer.header.exchange, true, id), answer.payloads);
            world.give(1, &taken[1], &octets);
        }
        // And after all that the same IKE SA is good for who proves who it is.
        for side in 0..2 {
            let rows = world.hosts[side].endpoint.rows();
            assert!(rows.len() == 2 && rows.iter().all(|row| row.peer.is_some()), "{rows:#?}");
        }
        world.agree(2);
    }
}

#[test]
fn what_ends_the_ike_sa_of_a_stranger_ends_no_other() {
    let (_, share) = Group::MlKem768.offer().unwrap();
    let ke = vec![Payload::Ke { group: Group::MlKem768.number(), data: share }];
    let nothing = NotifyKind::InvalidSyntax;
    for (rounds, exchange, payloads, answers) in [
        // A key exchange that was not agreed on, before and within EAP.
        (0, Exchange::IkeIntermediate, ke.clone(), vec![notify(nothing, &[])]),
        (1, Exchange::IkeIntermediate, ke.clone(), vec![notify(nothing, &[])]),
        (0, Exchange::IkeAuth, ke, vec![notify(nothing, &[])]),
        (0, Exchange::IkeAuth, vec![], vec![notify(NotifyKind::AuthenticationFailed, &[])]),
        (1, Exchange::IkeAuth, vec![], vec![notify(NotifyKind::AuthenticationFailed, &[])]),
        // Who does not believe the gateway may say so.
        (
            1,
            Exchange::Informational,
            vec![notify(NotifyKind::AuthenticationFailed, &[]), Payload::Delete(Delete::IkeSa)],
            vec![],
        ),
    ] {
        let mut world = beside_an_honest_one(password::world_with(|_, _| {}));
        let (mut insider, taken) = first_messages(&mut world);
        let known = state(&world, 1);
        for id in 1..=rounds {
            let honest = next(&mut world, &mut insider, 0).expect("a request");
            let octets = insider.says(0, (Exchange::IkeAuth, false, id), honest.payloads);
            world.give(0, &taken[0], &octets);
            next(&mut world, &mut insider, 1).expect("an answer");
        }
        let octets = insider.says(0, (exchange, false, rounds + 1), payloads);
        world.give(0, &taken[0], &octets);
        let answer = next(&mut world, &mut insider, 1).expect("an answer");
        assert_eq!(answer.payloads, answers, "{exchange:?} after {rounds}");
        assert_eq!(state(&world, 1), known, "{exchange:?} after {rounds}");
        assert_eq!(world.hosts[1].endpoint.rows().len(), 1, "{exchange:?} after {rounds}");
    }
}
