//! Two engines in this process, and what they say to one another.

use super::pki::Pki;
use crate::measure::cpu_nanos;
use ike::connection::{ChildPolicy, Connection, Encapsulation, Mode, Psk, Secrets, Times, WhenGone};
use ike::credential::{LocalAuth, LocalSignature, RemoteAuth, RemoteSignature, Schemes, SendCert};
use ike::event::{Event, Transmit};
use ike::identity::{Id, IdPattern};
use ike::job::Answer;
use ike::message::TrafficSelector;
use ike::proposal::Offer;
use ike::{Endpoint, Random};
use ipsec_core::algorithm::Encryption;
use ipsec_core::kex::Group;
use ipsec_core::prf::Prf;
use ipsec_core::{Secret, Time};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

pub(super) const NOW: Time = Time::from_secs(1);
pub(super) const US: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// What both sides negotiate.
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) group: Group,
    /// The additional key exchange.
    pub(super) more: Option<Group>,
    /// Who vouches for both, where they sign.
    pub(super) pki: Option<Arc<Pki>>,
}

impl Suite {
    pub(super) const fn psk(name: &'static str, group: Group, more: Option<Group>) -> Self {
        Self { name, group, more, pki: None }
    }

    pub(super) fn signed(name: &'static str, group: Group, pki: Pki) -> Self {
        Self { name, group, more: None, pki: Some(Arc::new(pki)) }
    }
}

struct Dice(u64);

impl Random for Dice {
    fn fill(&mut self, octets: &mut [u8]) {
        for octet in octets {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *octet = (self.0 >> 56) as u8;
        }
    }
}

pub(super) fn address(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

pub(super) fn connection(suite: &Suite, peer: Option<u32>) -> Connection {
    let Suite { group, more, pki, .. } = suite;
    let net = |text: &str| vec![TrafficSelector::of(text.parse().expect("a network"), 0, 0)];
    let ours = |us: bool| if us { net("10.1.0.0/16") } else { net("172.16.0.0/12") };
    let name = |us: bool| match pki {
        _ if us => "@gw".to_owned(),
        // All peers have one certificate: what is measured is the responder.
        Some(_) => "@peer".to_owned(),
        None => format!("@peer{}", peer.unwrap_or(0)),
    };
    let id = |text: &str| Id::parse(text).expect("an identity");
    let us = peer.is_none();
    Connection {
        name: "net".to_owned(),
        local_address: peer.map(address).or(Some(US)),
        remote_address: peer.map(|_| US),
        remote_port: 500,
        local_id: id(&name(us)),
        remote_id: if us { IdPattern::Any } else { IdPattern::Exactly(id("@gw")) },
        local_auth: pki.as_ref().map_or_else(Default::default, |pki| local_auth(pki, us)),
        remote_auth: pki.as_ref().map_or_else(Default::default, |_| by_signature()),
        ppk: Default::default(),
        ike: vec![Offer {
            encryption: vec![(Encryption::AesGcm16, 256)],
            prf: vec![Prf::HmacSha256],
            groups: vec![*group],
            additional: more.iter().map(|group| vec![Some(*group)]).collect(),
            ..Offer::default()
        }],
        child: ChildPolicy {
            offers: vec![Offer {
                encryption: vec![(Encryption::AesGcm16, 256)],
                esn: vec![false],
                ..Offer::default()
            }],
            mode: Mode::Tunnel,
            local: ours(us),
            remote: ours(!us),
            upper: Default::default(),
            replay_window: 64,
            pad: None,
        },
        times: Times::default(),
        encapsulation: Encapsulation::Auto,
        fragmentation: true,
        attempts: None,
        when_gone: WhenGone::Clear,
        unique: false,
        mobike: false,
        childless: false,
        reauthenticate: false,
        provision: None,
        request: None,
    }
}

pub(super) fn endpoint(suite: &Suite, connection: Connection, seed: u64) -> Endpoint {
    let us = connection.remote_address.is_none();
    let mut endpoint = Endpoint::new(Box::new(Dice(seed)), NOW);
    endpoint.add(connection);
    let signs = suite.pki.as_ref();
    endpoint.set_epoch(Duration::from_secs(super::pki::NOW));
    endpoint.set_secrets(Secrets {
        psks: vec![Psk { ids: Vec::new(), key: Secret::from(&b"the secret of all"[..]) }],
        keys: signs.map(|pki| pki.holder(us).key.clone()).into_iter().collect(),
        trust: signs.map(|pki| pki.trust.clone()).unwrap_or_default(),
        ..Secrets::default()
    });
    endpoint
}

/// One side: its engine, the SPIs it was given, and how many children came up.
pub(super) struct Side {
    pub(super) engine: Endpoint,
    spi: u32,
    pub(super) children: usize,
}

impl Side {
    pub(super) fn new(engine: Endpoint) -> Self {
        Self { engine, spi: 0x1000, children: 0 }
    }

    /// Does what the engine wants done; what is to be sent is handed back.
    pub(super) fn drain(&mut self) -> Vec<Transmit> {
        let mut sent = Vec::new();
        loop {
            let mut any = false;
            while let Some((id, job)) = self.engine.job() {
                any = true;
                // What cannot be computed is an SPI: that is the data plane's to give.
                let answer = job.run().unwrap_or_else(|_| {
                    self.spi += 1;
                    Answer::Spi(Some(self.spi))
                });
                self.engine.answer(id, answer, NOW);
            }
            while let Some(event) = self.engine.event() {
                any = true;
                self.children += usize::from(matches!(event, Event::ChildUp(_)));
            }
            while let Some(transmit) = self.engine.transmit() {
                any = true;
                sent.push(transmit);
            }
            if !any {
                return sent;
            }
        }
    }

    fn take(&mut self, all: &[Transmit]) -> Vec<Transmit> {
        for Transmit { local, remote, octets } in all {
            self.engine.datagram(*remote, *local, octets, NOW);
        }
        self.drain()
    }
}

/// Carries datagrams to and fro until nobody has any; the nanoseconds the responder needed.
pub(super) fn talk(client: &mut Side, responder: &mut Side) -> f64 {
    let mut spent = 0.0;
    let mut sent = client.drain();
    while !sent.is_empty() {
        let mut answers = Vec::new();
        spent += cpu_nanos(|| answers = responder.take(&sent));
        sent = client.take(&answers);
    }
    spent
}

pub(super) fn handshake(n: u32, suite: &Suite, responder: &mut Side) -> (Side, f64) {
    let mut client = Side::new(endpoint(suite, connection(suite, Some(n)), u64::from(n) + 7));
    client.engine.up("net", address(n), NOW).expect("begun");
    let spent = talk(&mut client, responder);
    assert_eq!(client.children, 1, "peer {n} has no child");
    (client, spent)
}

fn local_auth(pki: &Pki, us: bool) -> LocalAuth {
    let holder = pki.holder(us);
    LocalAuth::Signature(Box::new(LocalSignature {
        public: holder.certificate.key().clone(),
        chain: vec![holder.certificate.clone()],
        send: SendCert::Always,
        schemes: Schemes::default(),
    }))
}

fn by_signature() -> RemoteAuth {
    RemoteAuth { shared_key: false, signature: Some(RemoteSignature::default()), eap: None }
}
