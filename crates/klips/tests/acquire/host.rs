//! A gateway with one trapped network: a real outbound engine, the real service, and key managers that speak octets.

use ipsec_core::{Protocol, SaId, Selector, Spi, Time};
use klips::{
    Action, Config, Control, Counters, Discard, Eroute, Link, Outbound, Plane, Route, Sealed, SocketId,
    Verdict, Vnet,
};
use pfkey::client::{Client, Request};
use pfkey::{
    Address, Base, Errno, ExtType, Flow, FlowAction, Message, MessageType, Sa, SaType, Writer, flags, state,
};
use std::sync::Arc;

pub(crate) const PID: u32 = 4242;
pub(crate) const START: Time = Time::from_secs(100);

pub(crate) struct Host {
    pub(crate) plane: Arc<Plane>,
    pub(crate) control: Control,
    pub(crate) counters: Arc<Counters>,
    pub(crate) outbound: Outbound,
    pub(crate) sealed: Sealed,
    pub(crate) now: Time,
}

impl Host {
    /// A gateway whose policy for 10.1.0.0/16 → 10.2.0.0/16 is `action`.
    pub(crate) fn new(action: Action) -> Self {
        let plane = Arc::new(Plane::default());
        let random = |octets: &mut [u8]| octets.fill(0x5a);
        let mut control = Control::new(Arc::clone(&plane), Config::new(1_700_000_000, Box::new(random)));
        control.set_local_addresses(vec!["192.0.2.1".parse().unwrap()]);
        let counters = plane.new_counters();
        let link = Link {
            mtu: 1500,
            icmp_source4: None,
            icmp_source6: None,
            hide_tos: true,
            frag_icmp: true,
            copy_df: false,
        };
        let outbound = Outbound::new(Arc::clone(&plane), Arc::clone(&counters), link);
        plane.change_eroutes(|eroutes| eroutes.replace(Eroute::new(selector(), action)));
        Self { plane, control, counters, outbound, sealed: Sealed::new(0), now: START }
    }

    pub(crate) fn trap() -> Self {
        Self::new(Action::Trap)
    }

    /// A key manager with a plain or an extended REGISTER.
    pub(crate) fn manager(&mut self, extended: bool) -> SocketId {
        let socket = self.control.connect(PID, self.now);
        let mut client = Client::new(PID);
        let request = match extended {
            true => client.register_extended(&[SaType::Ah, SaType::Esp]),
            false => client.request(MessageType::Register, SaType::Esp),
        };
        let (_, record) = client.finish(request).unwrap();
        self.control.request(socket, &record, self.now);
        self.heard(socket);
        socket
    }

    pub(crate) fn heard(&mut self, socket: SocketId) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.control.notice(socket, self.now)).collect()
    }

    /// One packet from the device; control acts if the engine says that it should.
    pub(crate) fn packet(&mut self, host: u8, mark: u8) -> Verdict {
        self.send(&Vnet::default(), &mut udp(host, mark, 60))
    }

    pub(crate) fn trapped(&mut self, host: u8, mark: u8) {
        assert_eq!(self.packet(host, mark), Verdict::Keep);
    }

    pub(crate) fn send(&mut self, vnet: &Vnet, packet: &mut [u8]) -> Verdict {
        let verdict = self.outbound.packet(vnet, packet, self.now, &mut self.sealed);
        self.outbound.finish(self.now, &mut self.sealed);
        if self.plane.take_wake() {
            self.control.expire(self.now);
        }
        verdict
    }

    /// What came back to the engine and went out: ESP packets.
    pub(crate) fn released(&mut self) -> Vec<Vec<u8>> {
        assert!(self.sealed.runs().next().is_none(), "something went out before it might");
        let mut all = Vec::new();
        let mut more = self.plane.take_returned();
        while more {
            more = self.outbound.returned(self.now, &mut self.sealed);
            for run in self.sealed.runs() {
                assert!(matches!(run.route, Route::Esp(_)));
                all.extend(run.octets.chunks(run.stride).map(<[u8]>::to_vec));
            }
            self.sealed.clear();
        }
        all
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.plane.discarded(Discard::Hold)
    }

    pub(crate) fn ask(&mut self, from: SocketId, request: Request) -> Vec<Vec<u8>> {
        let (_, record) = Client::new(PID).finish(request).unwrap();
        self.control.request(from, &record, self.now);
        self.heard(from)
    }

    /// ADD with an ACQUIRE's number: NULL encryption, so that the test can see what is inside.
    pub(crate) fn add(&mut self, from: SocketId, seq: u32, spi: u32, outbound: bool) {
        let record = self.add_record(seq, spi, outbound);
        self.control.request(from, &record, self.now);
        let answers = self.heard(from);
        assert_eq!(answers[0][2], 0, "{:?}", Message::parse_answer(&answers[0]));
    }

    pub(crate) fn add_record(&self, seq: u32, spi: u32, outbound: bool) -> Vec<u8> {
        self.add_record_for(seq, spi, outbound, 0)
    }

    /// The same for inner packets of one protocol.
    pub(crate) fn add_record_for(&self, seq: u32, spi: u32, outbound: bool, proto: u8) -> Vec<u8> {
        let mut ask = Client::starting_at(PID, seq).request(MessageType::Add, SaType::Esp);
        let ours = Address::host("192.0.2.1".parse().unwrap());
        let theirs = Address::host("192.0.2.2".parse().unwrap());
        let net = |second| Address { proto, ..Address::net([10, second, 0, 0].into(), 16) };
        let (left, right) = (net(1), net(2));
        let ends = if outbound { [(ours, left), (theirs, right)] } else { [(theirs, right), (ours, left)] };
        let sa = Sa { spi, replay: 32, state: state::MATURE, encrypt: 11, auth: 5, flags: flags::TUNNEL };
        ask.sa(&sa);
        ask.address(ExtType::AddressSrc, &ends[0].0);
        ask.address(ExtType::AddressDst, &ends[1].0);
        ask.address(ExtType::AddressInnerSrc, &ends[0].1);
        ask.address(ExtType::AddressInnerDst, &ends[1].1);
        ask.key(ExtType::KeyAuth, 256, 0, &[7; 32]);
        Client::new(PID).finish(ask).unwrap().1
    }
}

pub(crate) fn selector() -> Selector {
    Selector::nets("10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap())
}

pub(crate) fn said(spi: u32) -> SaId {
    SaId { dst: "192.0.2.2".parse().unwrap(), protocol: Protocol::Esp, spi: Spi(spi) }
}

/// An IPv4 UDP packet from 10.1.0.1 to 10.2.0.`host` that says `mark`. It has no UDP checksum, which is legal.
pub(crate) fn udp(host: u8, mark: u8, len: usize) -> Vec<u8> {
    let mut p = vec![mark; len];
    p[..28].copy_from_slice(&[
        0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, host, 3, 0xe8, 7, 0xd0, 0, 0, 0, 0,
    ]);
    p[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    p[24..26].copy_from_slice(&((len - 20) as u16).to_be_bytes());
    p
}

pub(crate) fn acquires(records: &[Vec<u8>]) -> Vec<Message<'_>> {
    let all = records.iter().map(|record| Message::parse_answer(record).unwrap());
    all.filter(|message| message.base.kind() == Some(MessageType::Acquire)).collect()
}

/// ACQUIRE from a key manager: there will be none.
pub(crate) fn negative(seq: u32) -> Vec<u8> {
    let base = Base::request(MessageType::Acquire, SaType::Esp, seq, PID);
    Writer::new(&Base { errno: Errno(110), ..base }).finish().unwrap()
}

/// REPLACEFLOW for the trapped networks, as `ipsec eroute` sends it.
pub(crate) fn replace_flow(action: FlowAction, spi: u32) -> Request {
    let satype = if action == FlowAction::Protect { SaType::Esp } else { SaType::Unspec };
    let mut ask = Client::new(PID).request(MessageType::ReplaceFlow, satype);
    if action == FlowAction::Protect {
        ask.sa(&Sa { spi, ..Sa::default() });
        ask.address(ExtType::AddressDst, &Address::host("192.0.2.2".parse().unwrap()));
    }
    ask.address(ExtType::AddressInnerSrc, &Address::net([10, 1, 0, 0].into(), 16));
    ask.address(ExtType::AddressInnerDst, &Address::net([10, 2, 0, 0].into(), 16));
    ask.flow(&Flow { action, packets: 0, last_use: 0 });
    ask
}
