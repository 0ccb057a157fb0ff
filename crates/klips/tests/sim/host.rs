//! One host: a plane, its engines, and a model of a TUN device above them.

use crate::device;
use crate::net::{Datagram, Net, Weather};
use ipsec_core::algorithm::{Encryption, Suite};
use ipsec_core::transform::Transform;
use ipsec_core::{Protocol, SaId, Selector, Spi, Time};
use klips::{
    Action, Arrival, Blueprint, Carrier, Discard, Encapsulation, Eroute, Event, Inbound, Keys, Limits, Link,
    Mode, Opened, Outbound, Plane, Route, Sa, Sealed, Verdict, Vnet,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Which end of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left = 0,
    Right = 1,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// What two hosts agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) suite: Suite,
    /// Octets of encryption key, salt included.
    pub(crate) key: usize,
    pub(crate) esn: bool,
    pub(crate) window: u32,
    /// ESP in UDP.
    pub(crate) udp: bool,
    pub(crate) inner6: bool,
    pub(crate) outer6: bool,
    pub(crate) limits: Limits,
    /// What the SAs of gateways hide.
    pub(crate) tfc: pfkey::Tfc,
    /// Whether received segments are merged.
    pub(crate) merge: bool,
    /// How often it was rekeyed before.
    pub(crate) generation: u8,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            suite: Suite { encryption: Some(Encryption::AesGcm16), auth: None },
            key: 20,
            esn: false,
            window: 64,
            udp: false,
            inner6: false,
            outer6: false,
            limits: Limits::default(),
            tfc: pfkey::Tfc::default(),
            merge: true,
            generation: 0,
        }
    }
}

impl Setup {
    /// Every suite ESP knows, with every length of key.
    pub(crate) fn every_suite() -> Vec<Self> {
        use ipsec_core::algorithm::{AUTH, Auth, ENCRYPTION};
        let mut all = Vec::new();
        for row in &ENCRYPTION {
            let auths: Vec<Option<Auth>> = if row.algorithm.is_combined() {
                vec![None]
            } else {
                // GMAC is for AH; ESP has it in combined-mode clothes.
                AUTH.iter().map(|row| row.algorithm).filter(|auth| *auth != Auth::AesGmac).map(Some).collect()
            };
            for auth in auths {
                for key in row.keymat_lengths() {
                    let suite = Suite { encryption: Some(row.algorithm), auth };
                    all.push(Self { suite, key, ..Self::default() });
                }
            }
        }
        all
    }

    /// Every combination of families, carrier and numbering.
    pub(crate) fn shapes(self) -> impl Iterator<Item = Self> {
        (0..16_u8).map(move |bits| Self {
            inner6: bits & 1 != 0,
            outer6: bits & 2 != 0,
            udp: bits & 4 != 0,
            esn: bits & 8 != 0,
            ..self
        })
    }

    /// A wire from `from` with an eavesdropper who knows what to look for.
    pub(crate) fn wire(&self, from: Side, weather: &Weather) -> Net {
        let mut net = Net::new(weather);
        let encryption = self.suite.encryption.unwrap();
        if !matches!(encryption, Encryption::Null | Encryption::NullAesGmac) {
            net.eavesdropper.iv_len.insert(self.spi(from).0, encryption.row().iv.into());
        }
        net
    }

    pub(crate) fn outer(&self, side: Side) -> IpAddr {
        let n = side as u8 + 1;
        match self.outer6 {
            false => Ipv4Addr::new(192, 0, 2, n).into(),
            true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into(),
        }
    }

    /// A machine behind `side`.
    pub(crate) fn inner(&self, side: Side) -> IpAddr {
        let n = side as u8 + 1;
        match self.inner6 {
            false => Ipv4Addr::new(10, n, 0, 9).into(),
            true => Ipv6Addr::new(0xfd00, n.into(), 0, 0, 0, 0, 0, 9).into(),
        }
    }

    pub(crate) fn selector(&self, from: Side) -> Selector {
        let bits = if self.inner6 { 32 } else { 16 };
        let net = |side| format!("{}/{bits}", self.inner(side)).parse::<ipnet::IpNet>().unwrap();
        Selector::nets(net(from), net(from.other()))
    }

    pub(crate) const fn port(side: Side) -> u16 {
        4500 + side as u16
    }

    pub(crate) const fn spi(&self, from: Side) -> Spi {
        Spi(0x1000_0001 + from as u32 + 2 * self.generation as u32)
    }

    pub(crate) fn id(&self, from: Side) -> SaId {
        SaId { dst: self.outer(from.other()), protocol: Protocol::Esp, spi: self.spi(from) }
    }

    pub(crate) fn keys(&self, from: Side) -> Keys {
        let key = from as u8 ^ self.generation << 1;
        let octets = |len: usize, salt: u8| {
            Zeroizing::new((0..len).map(|i| (i as u8).wrapping_mul(37) ^ salt ^ key).collect::<Vec<_>>())
        };
        Keys {
            encryption: octets(self.key, 0x5a),
            auth: octets(self.suite.auth.map_or(0, |auth| usize::from(auth.row().min_bits / 8)), 0xa6),
            iv: Zeroizing::new([0x77 ^ key; 16]),
        }
    }

    /// The SA from `from` to the other side, as `at` sees it.
    pub(crate) fn blueprint(&self, from: Side, at: Side) -> Blueprint {
        let encapsulation = Encapsulation { local: Self::port(at), remote: Self::port(at.other()) };
        Blueprint {
            id: self.id(from),
            src: self.outer(from),
            mode: Mode::Tunnel,
            suite: self.suite,
            keys: self.keys(from),
            esn: self.esn,
            window: self.window,
            encapsulation: self.udp.then_some(encapsulation),
            selector: Some(self.selector(from)),
            limits: self.limits,
        }
    }

    /// The keyed algorithms of the SA from `from`, for packets made by hand.
    pub(crate) fn transform(&self, from: Side) -> Transform {
        let keys = self.keys(from);
        Transform::new(self.suite, &keys.encryption, &keys.auth, &keys.iv).unwrap()
    }

    /// How a packet from `from` arrives.
    pub(crate) fn datagram(&self, from: Side, octets: Vec<u8>) -> Datagram {
        let to = from.other();
        Datagram {
            src: self.outer(from),
            dst: self.outer(to),
            ports: self.udp.then_some([Self::port(from), Self::port(to)]),
            tos: 0,
            dont_fragment: false,
            octets,
        }
    }

    /// Two hosts that have both SAs and an eroute each.
    pub(crate) fn pair(&self) -> [Host; 2] {
        [Host::new(self, Side::Left), Host::new(self, Side::Right)]
    }
}

/// See the module.
pub(crate) struct Host {
    pub(crate) plane: Arc<Plane>,
    /// The SA it sends on.
    pub(crate) sends: Arc<Sa>,
    /// The SA it receives on.
    pub(crate) receives: Arc<Sa>,
    pub(crate) now: Time,
    /// What its device was given, cut into packets.
    pub(crate) delivered: Vec<Vec<u8>>,
    /// In how many writes.
    pub(crate) writes: usize,
    /// IKE messages found on port 4500.
    pub(crate) ike: Vec<Vec<u8>>,
    /// What it sent protected, with an outer header of its own.
    pub(crate) whole: Vec<Vec<u8>>,
    /// What it sent unprotected.
    pub(crate) clear: Vec<Vec<u8>>,
    /// What its own senders were told (ICMP).
    pub(crate) told: Vec<Vec<u8>>,
    sent: Vec<Datagram>,
    outbound: Outbound,
    inbound: Inbound,
    sealed: Sealed,
    opened: Opened,
    link: Link,
    merge: bool,
}

impl Host {
    fn new(setup: &Setup, side: Side) -> Self {
        let plane = Arc::new(Plane::default());
        let sends = Arc::new(Sa::new(setup.blueprint(side, side)));
        let receives = Arc::new(Sa::new(setup.blueprint(side.other(), side)));
        plane.publish(Arc::clone(&sends));
        plane.publish(receives);
        let eroute = Eroute::new(setup.selector(side), Action::Protect(sends.id));
        plane.change_eroutes(|eroutes| eroutes.add(eroute)).unwrap();
        Self::on(plane, setup, side)
    }

    /// A host on a plane that has both SAs already.
    pub(crate) fn on(plane: Arc<Plane>, setup: &Setup, side: Side) -> Self {
        let sends = plane.sa(&setup.id(side)).unwrap();
        let receives = plane.sa(&setup.id(side.other())).unwrap();
        let link = Link {
            mtu: 9000,
            icmp_source4: Some(Ipv4Addr::new(192, 0, 2, side as u8 + 1)),
            icmp_source6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1 + side as u16)),
            hide_tos: false,
            frag_icmp: true,
            copy_df: false,
        };
        let (out, inn) = (plane.new_counters(), plane.new_counters());
        Self {
            outbound: Outbound::new(Arc::clone(&plane), out, link),
            inbound: Inbound::new(Arc::clone(&plane), inn),
            plane,
            sends,
            receives,
            now: Time::from_secs(1),
            delivered: Vec::new(),
            writes: 0,
            ike: Vec::new(),
            whole: Vec::new(),
            clear: Vec::new(),
            told: Vec::new(),
            sent: Vec::new(),
            link,
            sealed: Sealed::new(256 * 1024),
            opened: Opened::new(64),
            merge: setup.merge,
        }
    }

    /// What the wire gets for a packet or superpacket that the host routes into its device.
    pub(crate) fn send(&mut self, vnet: &Vnet, packet: &[u8]) -> (Verdict, Vec<Datagram>) {
        let verdict = self.offer(vnet, packet);
        (verdict, self.flush())
    }

    /// Takes one packet or superpacket of a batch that [`Host::flush`] ends.
    pub(crate) fn offer(&mut self, vnet: &Vnet, packet: &[u8]) -> Verdict {
        if !self.sealed.has_room() {
            self.collect();
        }
        self.outbound.packet(vnet, &mut packet.to_vec(), self.now, &mut self.sealed)
    }

    /// What the wire gets for all that was offered.
    pub(crate) fn flush(&mut self) -> Vec<Datagram> {
        self.collect();
        core::mem::take(&mut self.sent)
    }

    /// Sends the runs.
    fn collect(&mut self) {
        self.outbound.finish(self.now, &mut self.sealed);
        for run in self.sealed.runs() {
            let packets = run.octets.chunks(run.stride).map(<[u8]>::to_vec);
            match run.route {
                Route::Esp(path) => self.sent.extend(packets.map(|octets| Datagram {
                    src: path.src,
                    dst: path.dst,
                    ports: path.encapsulation.map(|ports| [ports.local, ports.remote]),
                    tos: path.tos,
                    dont_fragment: path.dont_fragment,
                    octets,
                })),
                Route::Whole(_) => self.whole.extend(packets),
                Route::Clear(_) => self.clear.extend(packets),
                Route::Back => self.told.extend(packets),
            }
        }
        self.sealed.clear();
    }

    /// Takes what arrived, as one batch: neighbours of one kind and size come as `UDP_GRO` would deliver them.
    pub(crate) fn receive(&mut self, arrived: &[Datagram]) {
        let mut rx = Vec::new();
        let mut reads: Vec<(Arrival, core::ops::Range<usize>, usize, usize)> = Vec::new();
        for datagram in arrived {
            let carrier = match datagram.ports {
                None => Carrier::Esp,
                Some([remote, local]) => Carrier::Udp { local, remote },
            };
            let arrival =
                Arrival { src: datagram.src, dst: datagram.dst, carrier, tos: datagram.tos, header: 0 };
            let begin = rx.len();
            rx.extend(&datagram.octets);
            match reads.last_mut() {
                Some((last, range, stride, end))
                    if *last == arrival
                        && *end == *stride
                        && (1..=*stride).contains(&datagram.octets.len()) =>
                {
                    *end = datagram.octets.len();
                    range.end = rx.len();
                }
                _ => reads.push((arrival, begin..rx.len(), datagram.octets.len(), datagram.octets.len())),
            }
        }
        for (arrival, range, stride, _) in reads {
            self.inbound.datagrams(&arrival, &mut rx, range, stride, self.now, &mut self.opened);
        }
        self.deliver(&mut rx);
    }

    fn deliver(&mut self, rx: &mut [u8]) {
        self.opened.merge(rx, self.merge, self.merge);
        for write in self.opened.writes() {
            let octets: Vec<u8> = write.octets(rx).flatten().copied().collect();
            self.writes += 1;
            self.delivered.extend(device::cut(&write.vnet, &octets));
        }
        self.ike.extend(self.opened.ike().map(|(_, range)| rx[range].to_vec()));
        self.opened.clear();
    }

    /// Hears an ICMP message of the outer family.
    pub(crate) fn hear(&self, message: &[u8]) {
        self.inbound.icmp(self.sends.id.dst.is_ipv4(), message, Setup::port(Side::Left), self.now);
    }

    /// Lets go of the SAs it was made with, so that only the plane and the engines have them.
    pub(crate) fn forget_sas(&mut self) {
        let blank = || Arc::new(Sa::new(Setup::default().blueprint(Side::Left, Side::Left)));
        (self.sends, self.receives) = (blank(), blank());
    }

    /// What a worker does when it is woken by [`Plane::take_returned`].
    pub(crate) fn wake(&mut self) {
        self.inbound.forget_dead();
        let mut rx = vec![0; 1 << 17];
        while self.inbound.matured(&mut rx, self.now, &mut self.opened) > 0 {
            self.deliver(&mut rx);
        }
        assert!(!self.outbound.returned(self.now, &mut self.sealed));
    }

    /// Tells it about the link below.
    pub(crate) fn set_link(&mut self, change: impl FnOnce(&mut Link)) {
        change(&mut self.link);
        self.outbound.set_link(self.link);
    }

    /// Takes what was delivered so far.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.delivered)
    }

    /// The counters that are not zero.
    pub(crate) fn refused(&self) -> Vec<(Discard, u64)> {
        let all = Discard::ALL.iter().map(|why| (*why, self.plane.discarded(*why)));
        all.filter(|(_, n)| *n > 0).collect()
    }

    /// What control would have been told.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.plane.take_events()
    }
}
