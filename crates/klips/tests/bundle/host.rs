//! One host with its engines; what it sends are whole IP packets.

use crate::device;
use crate::wire::{header, next, reassemble, settle};
use ipsec_core::algorithm::{Auth, Encryption, Suite};
use ipsec_core::{Protocol, SaId, Selector, Spi, Time};
use klips::{
    Action, Arrival, Blueprint, Carrier, Discard, Encapsulation, Eroute, Inbound, Keys, Limits, Link, Mode,
    Opened, Outbound, Plane, Route, Sa, Sealed, Verdict, Vnet,
};
use pfkey::Tfc;
use std::net::IpAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// One SA of a bundle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) protocol: Protocol,
    pub(crate) mode: Mode,
    pub(crate) suite: Suite,
    pub(crate) udp: bool,
    pub(crate) esn: bool,
    pub(crate) hard_bytes: u64,
    pub(crate) tfc: Tfc,
}

const NONE: Suite = Suite { encryption: None, auth: None };
const GCM: Suite = Suite { encryption: Some(Encryption::AesGcm16), auth: None };
const CBC: Suite = Suite { encryption: Some(Encryption::AesCbc), auth: Some(Auth::HmacSha256) };

const fn spec(protocol: Protocol, mode: Mode, suite: Suite) -> Spec {
    Spec { protocol, mode, suite, udp: false, esn: false, hard_bytes: 0, tfc: Tfc { pad: 0, dummies: 0 } }
}

pub(crate) const TUN: Spec = spec(Protocol::Ipip, Mode::Tunnel, NONE);
pub(crate) const COMP: Spec = spec(Protocol::Ipcomp, Mode::Transport, NONE);
pub(crate) const ESP: Spec = spec(Protocol::Esp, Mode::Transport, GCM);
pub(crate) const ESP_CBC: Spec = spec(Protocol::Esp, Mode::Transport, CBC);
pub(crate) const ESP_TUNNEL: Spec = spec(Protocol::Esp, Mode::Tunnel, CBC);
pub(crate) const ESP_UDP: Spec = Spec { udp: true, ..ESP };

pub(crate) const fn ah(auth: Auth) -> Spec {
    spec(Protocol::Ah, Mode::Transport, Suite { encryption: None, auth: Some(auth) })
}

pub(crate) const fn ah_tunnel(auth: Auth) -> Spec {
    Spec { mode: Mode::Tunnel, ..ah(auth) }
}

/// What two hosts agreed on; SAs from the inside to the outside.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) chain: Vec<Spec>,
    pub(crate) inner6: bool,
    pub(crate) outer6: bool,
}

impl Setup {
    pub(crate) fn new(chain: &[Spec]) -> Self {
        Self { chain: chain.into(), inner6: false, outer6: false }
    }

    /// Nothing in it makes a header of its own.
    pub(crate) fn transport(&self) -> bool {
        self.chain.iter().all(|spec| spec.mode == Mode::Transport)
    }

    pub(crate) fn outer(&self, side: u8) -> IpAddr {
        match self.outer6 {
            false => IpAddr::from([192, 0, 2, side + 1]),
            true => format!("2001:db8::{}", side + 1).parse().unwrap(),
        }
    }

    /// Who speaks on `side`: a machine behind it, or itself.
    pub(crate) fn inner(&self, side: u8) -> IpAddr {
        match (self.transport(), self.inner6) {
            (true, _) => self.outer(side),
            (false, false) => IpAddr::from([10, side + 1, 0, 9]),
            (false, true) => format!("fd00:{}::9", side + 1).parse().unwrap(),
        }
    }

    pub(crate) fn selector(&self, from: u8) -> Selector {
        Selector::nets(self.inner(from).into(), self.inner(1 - from).into())
    }

    pub(crate) fn id(&self, index: usize, from: u8) -> SaId {
        let spi = Spi(0x1000 + 0x100 * u32::from(from) + index as u32);
        SaId { dst: self.outer(1 - from), protocol: self.chain[index].protocol, spi }
    }

    pub(crate) fn sa(&self, index: usize, from: u8, at: u8) -> Arc<Sa> {
        let Spec { mode, suite, udp, esn, hard_bytes, tfc, .. } = self.chain[index];
        let key = |len: usize, salt: u8| {
            Zeroizing::new((0..len).map(|n| n as u8 ^ salt ^ from ^ (index as u8) << 3).collect::<Vec<u8>>())
        };
        let encryption = match suite.encryption {
            Some(Encryption::AesGcm16) => 20,
            None | Some(Encryption::Null) => 0,
            Some(_) => 16,
        };
        let auth = suite.auth.map_or(0, |auth| auth.row().keymat_lengths().next().unwrap());
        let sa = Sa::new(Blueprint {
            id: self.id(index, from),
            src: self.outer(from),
            mode,
            suite,
            keys: Keys {
                encryption: key(encryption, 0x5a),
                auth: key(auth, 0xa5),
                iv: Zeroizing::new([9; 16]),
            },
            esn,
            window: 64,
            encapsulation: udp
                .then_some(Encapsulation { local: 4500 + u16::from(at), remote: 4501 - u16::from(at) }),
            // The innermost SA says what may be inside.
            selector: (index == 0).then(|| self.selector(from)),
            limits: Limits { soft_bytes: 0, hard_bytes, ..Limits::default() },
        });
        if from == at {
            sa.hide(tfc);
        }
        Arc::new(sa)
    }

    /// A packet as far as it can arrive: from a UDP socket the kernel hands no IP header over, so what transport mode delivers
    /// has no identification and is atomic (RFC 6864 §4.1).
    pub(crate) fn arrives(&self, mut packet: Vec<u8>) -> Vec<u8> {
        let udp = self.chain.last().is_some_and(|spec| spec.udp);
        if udp && self.transport() && packet[0] >> 4 == 4 {
            packet[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
            settle(&mut packet);
        }
        packet
    }

    pub(crate) fn pair(&self) -> [Host; 2] {
        [Host::new(self, 0), Host::new(self, 1)]
    }
}

/// See the module.
pub(crate) struct Host {
    pub(crate) plane: Arc<Plane>,
    pub(crate) sends: Vec<Arc<Sa>>,
    pub(crate) receives: Vec<Arc<Sa>>,
    pub(crate) link: Link,
    pub(crate) told: Vec<Vec<u8>>,
    /// Writes to the device so far.
    pub(crate) writes: usize,
    outbound: Outbound,
    inbound: Inbound,
    sealed: Sealed,
    opened: Opened,
}

impl Host {
    pub(crate) fn new(setup: &Setup, side: u8) -> Self {
        let plane = Arc::new(Plane::default());
        let all = |from| (0..setup.chain.len()).map(|n| setup.sa(n, from, side)).collect::<Vec<_>>();
        let (sends, receives) = (all(side), all(1 - side));
        for sas in [&sends, &receives] {
            plane.publish_group(sas.iter().cloned()).unwrap();
        }
        let eroute = Eroute::new(setup.selector(side), Action::Protect(sends[0].id));
        plane.change_eroutes(|eroutes| eroutes.add(eroute)).unwrap();
        Self { sends, receives, ..Self::on(plane) }
    }

    /// A host whose policy and SAs are somebody else's business.
    pub(crate) fn on(plane: Arc<Plane>) -> Self {
        let link = Link {
            mtu: 1500,
            icmp_source4: None,
            icmp_source6: None,
            hide_tos: false,
            frag_icmp: true,
            copy_df: false,
        };
        Self {
            outbound: Outbound::new(Arc::clone(&plane), plane.new_counters(), link),
            inbound: Inbound::new(Arc::clone(&plane), plane.new_counters()),
            plane,
            sends: Vec::new(),
            receives: Vec::new(),
            link,
            told: Vec::new(),
            writes: 0,
            sealed: Sealed::new(0),
            opened: Opened::new(64),
        }
    }

    /// The IP packets on the wire for some packets of the device.
    pub(crate) fn send_all(&mut self, packets: &[(Vnet, Vec<u8>)]) -> (Vec<Verdict>, Vec<Vec<u8>>) {
        self.outbound.set_link(self.link);
        let now = Time::from_secs(1);
        let mut verdicts = Vec::new();
        for (vnet, packet) in packets {
            verdicts.push(self.outbound.packet(vnet, &mut packet.clone(), now, &mut self.sealed));
        }
        self.outbound.finish(now, &mut self.sealed);
        (verdicts, self.wire())
    }

    /// What packets that control kept have become: the IP packets on the wire.
    pub(crate) fn returned(&mut self) -> Vec<Vec<u8>> {
        if self.plane.take_returned() {
            assert!(!self.outbound.returned(Time::from_secs(1), &mut self.sealed));
        }
        self.wire()
    }

    fn wire(&mut self) -> Vec<Vec<u8>> {
        let mut wire = Vec::new();
        for run in self.sealed.runs() {
            for packet in run.octets.chunks(run.stride) {
                match run.route {
                    Route::Esp(path) => {
                        let mut outer = match (path.src, path.dst) {
                            (IpAddr::V4(src), IpAddr::V4(dst)) => [
                                &[
                                    0x45,
                                    path.tos,
                                    0,
                                    0,
                                    0,
                                    7,
                                    if path.dont_fragment { 0x40 } else { 0 },
                                    0,
                                    64,
                                    50,
                                    0,
                                    0,
                                ][..],
                                &src.octets(),
                                &dst.octets(),
                            ]
                            .concat(),
                            (IpAddr::V6(src), IpAddr::V6(dst)) => [
                                &[0x60 | path.tos >> 4, path.tos << 4, 0, 0, 0, 0, 50, 64][..],
                                &src.octets(),
                                &dst.octets(),
                            ]
                            .concat(),
                            _ => panic!("mixed families"),
                        };
                        if let Some(ports) = path.encapsulation {
                            outer[if path.src.is_ipv4() { 9 } else { 6 }] = 17;
                            outer.extend(ports.local.to_be_bytes());
                            outer.extend(ports.remote.to_be_bytes());
                            outer.extend((packet.len() as u16 + 8).to_be_bytes());
                            outer.extend([0, 0]);
                        }
                        outer.extend(packet);
                        settle(&mut outer);
                        wire.push(outer);
                    }
                    Route::Whole(_) => wire.push(packet.to_vec()),
                    Route::Clear(_) => panic!("in clear"),
                    Route::Back => self.told.push(packet.to_vec()),
                }
            }
        }
        self.sealed.clear();
        wire
    }

    pub(crate) fn send(&mut self, packet: &[u8]) -> (Verdict, Vec<Vec<u8>>) {
        let (verdicts, wire) = self.send_all(&[(Vnet::default(), packet.to_vec())]);
        (verdicts[0], wire)
    }

    /// What the device gets for IP packets of the wire, as raw and UDP sockets hand them over.
    pub(crate) fn receive(&mut self, wire: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut rx = Vec::new();
        let mut reads = Vec::new();
        for packet in reassemble(wire) {
            let (at, v4) = (header(&packet), packet[0] >> 4 == 4);
            let address = |at: usize| match v4 {
                true => IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap()),
                false => IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap()),
            };
            let (src, dst) = if v4 { (address(12), address(16)) } else { (address(8), address(24)) };
            let tos = if v4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 };
            let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            let (carrier, kept, skipped) = match next(&packet) {
                50 => (Carrier::Esp, if v4 { at } else { 0 }, at),
                51 => (Carrier::Ah, if v4 { at } else { 0 }, at),
                17 => (Carrier::Udp { local: port(at + 2), remote: port(at) }, 0, at + 8),
                // The kernel hands nothing else to our sockets.
                _ => continue,
            };
            rx.extend(&packet[..kept]);
            let begin = rx.len();
            rx.extend(&packet[skipped..]);
            reads.push((Arrival { src, dst, carrier, tos, header: kept }, begin..rx.len()));
        }
        for (arrival, range) in reads {
            let stride = range.len();
            self.inbound.datagrams(&arrival, &mut rx, range, stride, Time::from_secs(1), &mut self.opened);
        }
        self.opened.merge(&mut rx, true, true);
        let mut delivered = Vec::new();
        for write in self.opened.writes() {
            self.writes += 1;
            delivered
                .extend(device::cut(&write.vnet, &write.octets(&rx).flatten().copied().collect::<Vec<u8>>()));
        }
        self.opened.clear();
        delivered
    }

    /// Hears an ICMP message of the outer family.
    pub(crate) fn hear(&self, message: &[u8]) {
        let v4 = self.sends.first().is_some_and(|sa| sa.id.dst.is_ipv4());
        let port = self.sends.last().and_then(|sa| sa.encapsulation()).map_or(4500, |udp| udp.local);
        self.inbound.icmp(v4, message, port, Time::from_secs(1));
    }

    /// The counters that are not zero.
    pub(crate) fn refused(&self) -> Vec<(Discard, u64)> {
        let all = Discard::ALL.iter().map(|why| (*why, self.plane.discarded(*why)));
        all.filter(|(_, n)| *n > 0).collect()
    }
}
