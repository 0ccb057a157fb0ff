//! Somebody who speaks IKE with the east, and has proved nothing or is the west: it has the keys of its own IKE SAs, breaks the
//! rules as it likes, and sends from where it says.

use crate::world::{World, net};
use ike::identity::Id;
use ike::keys::{IkeKeys, Seed};
use ike::message::{Exchange, Flags, Header, IkeSpi, Message, Notify, NotifyKind, Payload};
use ike::proposal::Protocol;
use ike::protect::{Opener, Opening, Sealer};
use ipsec_core::Secret;
use ipsec_core::kex::Offer;
use ipsec_core::prf::Prf;
use std::net::SocketAddr;
use std::sync::OnceLock;

/// The octets of a datagram without fragmentation.
const DATAGRAM: usize = 1228;

/// One IKE SA of its.
pub(crate) struct Outsider {
    from: SocketAddr,
    spis: (IkeSpi, IkeSpi),
    sealer: Sealer,
    opener: Opener,
    id: u32,
    keys: IkeKeys,
    /// Its first message, and the east's nonce.
    begun: (Vec<u8>, Vec<u8>),
}

/// The key exchange of all of them: they save their own time.
fn exchange(world: &World) -> &'static (Offer, Vec<u8>) {
    static KNOWN: OnceLock<(Offer, Vec<u8>)> = OnceLock::new();
    let group = world.hosts[1].endpoint.connections().next().unwrap().ike[0].groups[0];
    KNOWN.get_or_init(|| group.offer().unwrap())
}

/// The secret that an answer makes, and the nonce in it.
fn shared(world: &World, answer: &Message) -> Option<(Secret, Vec<u8>)> {
    let (mut share, mut nr) = (None, None);
    for payload in &answer.payloads {
        match payload {
            Payload::Ke { data, .. } => share = Some(data),
            Payload::Nonce(nonce) => nr = Some(nonce.clone()),
            _ => {}
        }
    }
    Some((exchange(world).0.finish(share?).ok()?, nr?))
}

/// What asks for a child under this SPI.
fn child(world: &World, spi: u32) -> Vec<Payload> {
    let offer = &world.hosts[1].endpoint.connections().next().unwrap().child.offers[0];
    vec![
        Payload::Sa(vec![offer.proposal(1, Protocol::Esp, spi.to_be_bytes().to_vec())]),
        Payload::TsI(vec![net("10.1.0.0/16")]),
        Payload::TsR(vec![net("10.2.0.0/16")]),
    ]
}

fn header(spis: (IkeSpi, IkeSpi), exchange: Exchange, id: u32) -> Header {
    let flags = Flags { initiator: true, response: false };
    Header { spi_i: spis.0, spi_r: spis.1, exchange, flags, id }
}

/// A first message, with a cookie in front if there is one, and something behind.
pub(crate) fn first(world: &World, spi: u64, cookie: Option<Notify>, more: Vec<Payload>) -> Vec<u8> {
    let offer = &world.hosts[1].endpoint.connections().next().unwrap().ike[0];
    let (own, share) = exchange(world);
    let mut payloads: Vec<Payload> = cookie.map(Payload::Notify).into_iter().collect();
    payloads.extend([
        Payload::Sa(vec![offer.proposal(1, Protocol::Ike, vec![])]),
        Payload::Ke { group: own.group().number(), data: share.clone() },
        Payload::Nonce(vec![7; 32]),
        Payload::Notify(Notify::new(NotifyKind::Ikev2FragmentationSupported, vec![])),
    ]);
    payloads.extend(more);
    let header = header((IkeSpi(spi), IkeSpi(0)), Exchange::IkeSaInit, 0);
    Message { header, payloads }.emit()
}

impl Outsider {
    /// An IKE SA of which the east knows the keys; `None` if it did not answer, a cookie brought back included.
    pub(crate) fn begin(world: &mut World, from: SocketAddr, spi: u64) -> Option<Self> {
        let mut cookie = None;
        for _ in 0..2 {
            let octets = first(world, spi, cookie.take(), vec![]);
            let answer = Message::parse(&world.hears(from, &octets).pop()?).ok()?;
            cookie = answer.payloads.iter().find_map(|payload| match payload {
                Payload::Notify(notify) if notify.kind == NotifyKind::Cookie => Some(notify.clone()),
                _ => None,
            });
            if cookie.is_none() {
                return Self::of(world, from, &answer, octets);
            }
        }
        None
    }

    fn of(world: &World, from: SocketAddr, answer: &Message, first: Vec<u8>) -> Option<Self> {
        let (shared, nr) = shared(world, answer)?;
        let offer = &world.hosts[1].endpoint.connections().next().unwrap().ike[0];
        let chosen = offer.choose(&offer.proposal(1, Protocol::Ike, vec![]))?;
        let spis = (answer.header.spi_i, answer.header.spi_r);
        let seed = Seed { ni: &[7; 32], nr: &nr, spi_i: spis.0, spi_r: spis.1 };
        let keys = IkeKeys::initial(&chosen, chosen.prf?, &shared, seed);
        let [out, inn] = keys.ciphers(&chosen)?;
        let (sealer, opener) = (Sealer::new(out, 0), Opener::new(inn));
        Some(Self { from, spis, sealer, opener, id: 1, keys, begun: (first, nr) })
    }

    /// Proves that it is this one by the secret of both, and asks for a child.
    pub(crate) fn prove(&mut self, world: &mut World, name: &str, more: Vec<Payload>) -> Vec<Message> {
        let prf = Prf::HmacSha256;
        let id = Id::parse(name).unwrap().body();
        let padded = prf.compute(b"the secret of both", &[b"Key Pad for IKEv2"]);
        let maced = prf.compute(&self.keys.p[0], &[&id.octets()]);
        let data = prf.compute(&padded, &[&self.begun.0, &self.begun.1, &maced]).to_vec();
        let mut payloads = vec![Payload::IdI(id), Payload::Auth { method: 2, data }];
        payloads.extend(more);
        payloads.extend(child(world, 0x5000));
        self.say(world, Exchange::IkeAuth, payloads)
    }

    /// The payloads that ask for a child.
    pub(crate) fn wants(&self, world: &World) -> Vec<Payload> {
        child(world, 0x5000)
    }

    /// Asks for one more child.
    pub(crate) fn child(&mut self, world: &mut World, spi: u32) -> Vec<Message> {
        let mut payloads = child(world, spi);
        payloads.insert(1, Payload::Nonce(spi.to_be_bytes().repeat(8)));
        self.say(world, Exchange::CreateChildSa, payloads)
    }

    /// Asks for a successor, and goes on there; `None` if it was refused.
    pub(crate) fn successor(&mut self, world: &mut World, spi: u64) -> Option<Self> {
        let offer = world.hosts[1].endpoint.connections().next().unwrap().ike[0].clone();
        let (own, share) = exchange(world);
        let payloads = vec![
            Payload::Sa(vec![offer.proposal(1, Protocol::Ike, spi.to_be_bytes().to_vec())]),
            Payload::Nonce(vec![7; 32]),
            Payload::Ke { group: own.group().number(), data: share.clone() },
        ];
        let answer = self.say(world, Exchange::CreateChildSa, payloads).pop()?;
        let (shared, nr) = shared(world, &answer)?;
        let theirs = answer.payloads.iter().find_map(|payload| match payload {
            Payload::Sa(proposals) => <[u8; 8]>::try_from(&*proposals[0].spi).ok().map(u64::from_be_bytes),
            _ => None,
        })?;
        let chosen = offer.choose(&offer.proposal(1, Protocol::Ike, vec![]))?;
        let spis = (IkeSpi(spi), IkeSpi(theirs));
        let seed = Seed { ni: &[7; 32], nr: &nr, spi_i: spis.0, spi_r: spis.1 };
        let keys = self.keys.rekeyed(&chosen, chosen.prf?, &[shared], seed);
        let [out, inn] = keys.ciphers(&chosen)?;
        let (sealer, opener) = (Sealer::new(out, 0), Opener::new(inn));
        Some(Self { from: self.from, spis, sealer, opener, id: 0, keys, begun: Default::default() })
    }

    /// The next request as datagrams.
    pub(crate) fn request(&mut self, exchange: Exchange, payloads: Vec<Payload>) -> Vec<Vec<u8>> {
        let message = Message { header: header(self.spis, exchange, self.id), payloads };
        self.id += 1;
        self.sealer.seal(&message, Some(DATAGRAM), &mut |octets| octets.fill(9)).unwrap()
    }

    /// Sends datagrams; what is answered.
    pub(crate) fn send(&mut self, world: &mut World, datagrams: &[Vec<u8>]) -> Vec<Message> {
        let answers: Vec<Vec<u8>> =
            datagrams.iter().flat_map(|octets| world.hears(self.from, octets)).collect();
        let opened = answers.iter().filter_map(|octets| match self.opener.open(octets, true) {
            Opening::Message(opened) => Some(opened.message),
            _ => None,
        });
        opened.collect()
    }

    /// Asks for something; what is answered.
    pub(crate) fn say(
        &mut self,
        world: &mut World,
        exchange: Exchange,
        payloads: Vec<Payload>,
    ) -> Vec<Message> {
        let datagrams = self.request(exchange, payloads);
        self.send(world, &datagrams)
    }
}
