//! A host whose SAs and eroutes come from a key manager, by PF_KEY, while another socket listens.

use crate::host::{Host, Setup, Side};
use ipsec_core::{SaId, Time};
use klips::{Config, Control, Plane, SocketId};
use pfkey::client::{Client, Heard, Request};
use pfkey::{
    Address, ExtType, Flow, FlowAction, Lifetime, Message, MessageType, PacketLimits, Sa, SaParams, SaType,
    SpiRange, flags, state,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// When the gateways come up.
pub(crate) const START: Time = Time::from_secs(1000);

/// Which lifetime is over, and the SPI it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Expired {
    Soft(u32),
    Hard(u32),
}

/// Soft and hard lifetime.
pub(crate) type Lives = [Lifetime; 2];

/// See the module.
pub(crate) struct Gateway {
    pub(crate) host: Host,
    control: Control,
    manager: SocketId,
    client: Client,
    listener: SocketId,
    side: Side,
}

impl Gateway {
    /// Both gateways, each with one SA each way and the eroute that uses it.
    pub(crate) fn pair(setup: &Setup, lives: Lives) -> [Self; 2] {
        [Side::Left, Side::Right].map(|side| Self::new(setup, side, lives))
    }

    fn new(setup: &Setup, side: Side, lives: Lives) -> Self {
        let plane = Arc::new(Plane::default());
        let random = move |octets: &mut [u8]| octets.fill(0x5a ^ side as u8);
        let config = Config { soft_fuzz: 0..=0, ..Config::new(1_700_000_000, Box::new(random)) };
        let mut control = Control::new(Arc::clone(&plane), config);
        control.set_local_addresses(vec![setup.outer(side)]);
        let manager = control.connect(17, START);
        let listener = control.connect(18, START);
        let mut client = Client::new(17);
        for from in [Side::Left, Side::Right] {
            let add = add(&client, MessageType::Add, setup, from, side, lives);
            ask(&mut control, &mut client, manager, add, START);
        }
        let route = protect(&client, MessageType::AddFlow, setup, side);
        ask(&mut control, &mut client, manager, route, START);
        let mut host = Host::on(plane, setup, side);
        host.now = START;
        let mut gateway = Self { host, control, manager, client, listener, side };
        gateway.hear();
        gateway
    }

    /// Adds the SA from `from`.
    pub(crate) fn add(&mut self, setup: &Setup, from: Side, lives: Lives) {
        let request = add(&self.client, MessageType::Add, setup, from, self.side, lives);
        self.ask(request);
    }

    /// Reserves the name of the SA from `from`: a larva.
    pub(crate) fn reserve(&mut self, setup: &Setup, from: Side) {
        let mut request = self.client.request(MessageType::GetSpi, SaType::Esp);
        request.address(ExtType::AddressSrc, &Address::host(setup.outer(from)));
        request.address(ExtType::AddressDst, &Address::host(setup.outer(from.other())));
        request.spi_range(&SpiRange { min: setup.spi(from).0, max: setup.spi(from).0 });
        self.ask(request);
    }

    /// The larva gets its keys.
    pub(crate) fn hatch(&mut self, setup: &Setup, from: Side) {
        let lives = [Lifetime::default(); 2];
        let request = add(&self.client, MessageType::Update, setup, from, self.side, lives);
        self.ask(request);
        assert!(self.host.plane.take_returned());
        self.host.wake();
    }

    /// Lets what goes out use the SA of `setup` from now on.
    pub(crate) fn switch_to(&mut self, setup: &Setup) {
        let request = protect(&self.client, MessageType::ReplaceFlow, setup, self.side);
        self.ask(request);
    }

    /// Deletes an SA.
    pub(crate) fn delete(&mut self, id: SaId) {
        let mut request = self.client.request(MessageType::Delete, SaType::Esp);
        request.sa(&Sa { spi: id.spi.0, ..Sa::default() });
        request.address(ExtType::AddressDst, &Address::host(id.dst));
        self.ask(request);
    }

    /// Has what goes out go to another address of the peer.
    pub(crate) fn move_to(&mut self, setup: &Setup, dst: IpAddr) {
        let mut request = self.client.request(MessageType::MoveSa, SaType::Esp);
        request.sa(&Sa { spi: setup.spi(self.side).0, ..Sa::default() });
        request.address(ExtType::AddressSrc, &Address::host(setup.outer(self.side)));
        request.address(ExtType::AddressDst, &Address::host(setup.outer(self.side.other())));
        request.address(ExtType::NewDst, &Address::host(dst));
        self.ask(request);
    }

    /// Lets time pass until `now`, as the host does: control is called when it asked to be, or when a worker woke it.
    pub(crate) fn pass_until(&mut self, now: Time) {
        self.host.now = now;
        if self.host.plane.take_wake() || self.control.deadline().is_some_and(|at| at <= now) {
            self.control.expire(now);
        }
    }

    /// What the listening socket heard of lifetimes since last asked.
    pub(crate) fn hear(&mut self) -> Vec<Expired> {
        let mut heard = Vec::new();
        while let Some(record) = self.control.notice(self.listener, self.host.now) {
            let message = Message::parse_answer(&record).unwrap();
            assert!(!message.has(ExtType::KeyEncrypt) && !message.has(ExtType::KeyAuth));
            if message.base.kind() != Some(MessageType::Expire) {
                continue;
            }
            let spi = message.sa.unwrap().spi;
            heard.push(if message.hard.is_some() { Expired::Hard(spi) } else { Expired::Soft(spi) });
        }
        heard.sort_unstable();
        heard
    }

    fn ask(&mut self, request: Request) {
        ask(&mut self.control, &mut self.client, self.manager, request, self.host.now);
    }
}

/// Sends a request that must succeed; what else the socket hears before the answer is not for it.
fn ask(control: &mut Control, client: &mut Client, socket: SocketId, request: Request, now: Time) {
    let (ticket, record) = client.finish(request).unwrap();
    control.request(socket, &record, now);
    while let Some(record) = control.notice(socket, now) {
        match client.hear(&record).unwrap() {
            Heard::Answer { to, .. } if to == ticket => return,
            Heard::Notice(_) => {}
            other @ (Heard::Answer { .. } | Heard::Refused { .. }) => panic!("{other:?}"),
        }
    }
    panic!("no answer");
}

fn inner(request: &mut Request, setup: &Setup, from: Side) {
    let selector = setup.selector(from);
    for (kind, net) in [(ExtType::AddressInnerSrc, selector.src), (ExtType::AddressInnerDst, selector.dst)] {
        request.address(kind, &Address::net(net.network(), net.prefix_len()));
    }
}

/// ADD, or UPDATE, of the SA from `from` as `at` sees it.
fn add(
    client: &Client,
    kind: MessageType,
    setup: &Setup,
    from: Side,
    at: Side,
    [soft, hard]: Lives,
) -> Request {
    let mut request = client.request(kind, SaType::Esp);
    let natted = if setup.udp { flags::NATT_LOC | flags::NATT_REM } else { 0 };
    request.sa(&Sa {
        spi: setup.spi(from).0,
        replay: 64,
        state: state::MATURE,
        auth: setup.suite.auth.map_or(0, |auth| auth.row().number),
        encrypt: setup.suite.encryption.map_or(0, |encryption| encryption.row().number),
        flags: flags::TUNNEL | natted,
    });
    request.lifetime(ExtType::LifetimeHard, &hard);
    request.lifetime(ExtType::LifetimeSoft, &soft);
    request.address(ExtType::AddressSrc, &Address::host(setup.outer(from)));
    request.address(ExtType::AddressDst, &Address::host(setup.outer(from.other())));
    inner(&mut request, setup, from);
    if setup.udp {
        for (kind, side) in [(ExtType::AddressNattLoc, at), (ExtType::AddressNattRem, at.other())] {
            let port = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), Setup::port(side));
            request.address(kind, &Address { proto: 0, prefix: 0, socket: Some(port) });
        }
    }
    let keys = setup.keys(from);
    request.key(ExtType::KeyEncrypt, 8 * keys.encryption.len() as u16, 0, &keys.encryption);
    if !keys.auth.is_empty() {
        request.key(ExtType::KeyAuth, 8 * keys.auth.len() as u16, 0, &keys.auth);
    }
    request.sa_params(&SaParams { window: setup.window, esn: setup.esn });
    let packets = PacketLimits { soft: setup.limits.soft_packets, hard: setup.limits.hard_packets };
    if packets != PacketLimits::default() {
        request.packet_limits(&packets);
    }
    if setup.tfc != Default::default() {
        request.tfc(&setup.tfc);
    }
    request
}

/// The eroute of what leaves `side`.
fn protect(client: &Client, kind: MessageType, setup: &Setup, side: Side) -> Request {
    let mut request = client.request(kind, SaType::Esp);
    request.sa(&Sa { spi: setup.spi(side).0, ..Sa::default() });
    request.address(ExtType::AddressDst, &Address::host(setup.outer(side.other())));
    inner(&mut request, setup, side);
    request.flow(&Flow { action: FlowAction::Protect, packets: 0, last_use: 0 });
    request
}

/// So many seconds after the start.
pub(crate) const fn at(secs: u64) -> Time {
    START.after(Duration::from_secs(secs))
}
