//! The inbound path: wire → SA → replay check → open → replay advance → policy → device (RFC 4301 §5.2).
//!
//! Nothing about the ciphertext is believed before its ICV: a forged packet costs one lookup and one opening, and moves no
//! window, no counter of use and no lifetime. Each step asks for the proof the step before it made:
//! [`Authenticated`] for the window, [`Admitted`] for delivery.

use crate::discard::{Counters, Discard};
use crate::ecn;
use crate::esp::{self, Authenticated, Candidates, Payload, RUN};
use crate::opened::Opened;
use crate::packet::Parsed;
use crate::plane::{Event, Plane};
use crate::sa::{Mode, Sa, SaState};
use crate::window::Window;
use arrayvec::ArrayVec;
use core::net::IpAddr;
use core::ops::Range;
use ipsec_core::{Protocol, SaId, Spi, Time};
use std::sync::Arc;

/// The IP protocol numbers that tunnel mode carries.
const IPV4: u8 = 4;
const IPV6: u8 = 41;

/// How octets reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// In IP protocol 50.
    Esp,
    /// In UDP, with these ports (host order); the local one is ours.
    Udp {
        /// Our port.
        local: u16,
        /// The peer's port.
        remote: u16,
    },
}

/// The outer header of received datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// Raw or in UDP.
    pub carrier: Carrier,
    /// TOS or traffic class, for ECN (RFC 6040 §4.2).
    pub tos: u8,
}

/// One worker's inbound engine.
pub struct Inbound {
    plane: Arc<Plane>,
    counters: Arc<Counters>,
    /// The SA of the last run: most runs are followed by another of the same SA.
    last: Option<Arc<Sa>>,
    /// The flow of the last packet that SA was found entitled to carry.
    entitled: Option<Plain>,
}

/// What a datagram is, before any SA is asked.
enum Class {
    Esp(u32),
    Ike,
    Refused(Discard),
}

/// Neighbouring datagrams of one SA, each with its place in the receive buffer.
type Run<'p> = ArrayVec<(&'p mut [u8], usize), RUN>;

impl Inbound {
    /// An engine on `plane`.
    pub const fn new(plane: Arc<Plane>, counters: Arc<Counters>) -> Self {
        Self { plane, counters, last: None, entitled: None }
    }

    /// Lets go of the SA of the last run if it has died, and so of its keys.
    pub fn forget_dead(&mut self) {
        self.last.take_if(|sa| !sa.is_alive());
    }

    /// Takes datagrams of one arrival, `stride` octets apart in `rx[range]` (the last may be shorter), as `UDP_GRO`
    /// delivers them. ESP is opened where it stands.
    ///
    /// `out` may collect several arrivals, as long as they lie in the same `rx`.
    pub fn datagrams(
        &mut self,
        arrival: &Arrival,
        rx: &mut [u8],
        range: Range<usize>,
        stride: usize,
        now: Time,
        out: &mut Opened,
    ) {
        let mut at = range.start;
        let stride = stride.max(1);
        let Some(octets) = rx.get_mut(range) else {
            return self.refuse(Discard::Internal, 1);
        };
        if octets.is_empty() {
            return self.refuse(Discard::Short, 1);
        }
        let mut run = Run::new();
        let mut run_spi = 0;
        for datagram in octets.chunks_mut(stride) {
            match classify(arrival.carrier, datagram) {
                Class::Esp(spi) => {
                    if spi != run_spi || run.is_full() {
                        self.run(arrival, run_spi, &mut run, now, out);
                    }
                    run_spi = spi;
                    run.push((datagram, at));
                }
                // The marker is not part of the message.
                Class::Ike => {
                    out.ike.push((*arrival, at.saturating_add(4)..at.saturating_add(datagram.len())));
                }
                Class::Refused(why) => self.refuse(why, 1),
            }
            at = at.saturating_add(stride);
        }
        self.run(arrival, run_spi, &mut run, now, out);
    }

    /// Takes a run of packets of one SA from lookup to delivery.
    fn run(&mut self, arrival: &Arrival, spi: u32, run: &mut Run<'_>, now: Time, out: &mut Opened) {
        if run.is_empty() {
            return;
        }
        let id = SaId { dst: arrival.dst, protocol: Protocol::Esp, spi: Spi(spi) };
        match self.find(&id, arrival) {
            Ok(sa) => {
                self.open(&sa, arrival, run, now, out);
                self.last = Some(sa);
            }
            Err(why) => self.refuse(why, run.len()),
        }
        run.clear();
    }

    /// The SA of that name, if packets of this arrival may use it.
    fn find(&mut self, id: &SaId, arrival: &Arrival) -> Result<Arc<Sa>, Discard> {
        let sa = match self.last.take().filter(|sa| sa.id == *id && sa.is_alive()) {
            Some(sa) => sa,
            None => {
                self.entitled = None;
                self.plane.sa(id).ok_or(Discard::NoSa)?
            }
        };
        if !arrives_as_agreed(&sa, arrival) {
            return Err(Discard::WrongEncapsulation);
        }
        match sa.state() {
            SaState::Mature | SaState::Dying => Ok(sa),
            SaState::Larval => Err(Discard::NoSa),
            SaState::Dead => Err(Discard::Expired),
        }
    }

    /// The order below is RFC 4303 §3.4 and RFC 4301 §5.2; each step takes the whole run.
    fn open(&mut self, sa: &Sa, arrival: &Arrival, run: &mut Run<'_>, now: Time, out: &mut Opened) {
        let Some(transform) = sa.transform() else {
            return self.refuse(Discard::Internal, run.len());
        };

        // Duplicates and stragglers are turned away before paying for cryptography.
        let mut candidates = Candidates::default();
        {
            let window = sa.live.window.as_ref().map(|window| window.lock());
            for (packet, at) in run.drain(..) {
                let judged = if esp::fits(transform, packet.len()) {
                    number(sa, window.as_deref(), packet)
                } else {
                    Err(Discard::Short)
                };
                if let Err(why) = judged.and_then(|seq| candidates.push(packet, at, seq, sa.esn)) {
                    self.refuse(why, 1);
                }
            }
        }

        let mut authentic = ArrayVec::<Authenticated<'_>, RUN>::new();
        // Without a window a recorded packet could be sent again from anywhere, so nothing is ever the newest.
        let mut newest = false;
        {
            let opened = candidates.open(transform);
            let mut window = sa.live.window.as_ref().map(|window| window.lock());
            for packet in opened {
                let fresh = packet.and_then(|packet| match &mut window {
                    Some(window) => {
                        window.advance(&packet)?;
                        newest |= window.right() == packet.seq();
                        Ok(packet)
                    }
                    None => Ok(packet),
                });
                match fresh {
                    Ok(packet) => authentic.push(packet),
                    Err(why) => self.refuse(why, 1),
                }
            }
        }

        if let Carrier::Udp { remote, .. } = arrival.carrier
            && newest
            && sa.encapsulation().is_some_and(|agreed| agreed.remote != remote)
            && sa.follow(remote)
        {
            self.plane.tell_moved(sa.id, remote);
        }

        let admitted = self.charge(sa, &authentic, now);
        self.refuse(Discard::Expired, authentic.len().saturating_sub(admitted));
        for packet in authentic.drain(..).take(admitted) {
            match packet.payload().and_then(|payload| admit(sa, arrival, payload, &mut self.entitled)) {
                Ok(packet) => out.packets.push(packet),
                Err(why) => self.refuse(why, 1),
            }
        }
    }

    /// Charges the SA for authentic packets and says how many of them its lifetime lets pass; tells control what
    /// happened to it.
    fn charge(&self, sa: &Sa, packets: &[Authenticated<'_>], now: Time) -> usize {
        let mut admitted = 0_usize;
        // All packets of a run but the last usually have one size.
        for same in packets.chunk_by(|a, b| a.charged_len() == b.charged_len()) {
            let size = same.first().map_or(0, Authenticated::charged_len);
            let charge = sa.charge(same.len() as u64, size, now);
            for (happened, event) in [
                (charge.first, Event::FirstUse(sa.id)),
                (charge.soft, Event::SoftBytes(sa.id)),
                (charge.hard, Event::Hard(sa.id)),
            ] {
                if happened {
                    self.plane.tell(event);
                }
            }
            admitted = admitted.saturating_add(charge.admitted as usize);
            // What follows the packet that met the limit is refused, however small.
            if (charge.admitted as usize) < same.len() {
                break;
            }
        }
        admitted
    }

    fn refuse(&self, why: Discard, n: usize) {
        if n > 0 {
            self.counters.add(why, n as u64);
        }
    }
}

/// Tells ESP, IKE and keepalives apart (RFC 3948 §2.2, §2.3).
fn classify(carrier: Carrier, datagram: &[u8]) -> Class {
    if let (Carrier::Udp { .. }, [0xff]) = (carrier, datagram) {
        return Class::Refused(Discard::Keepalive);
    }
    match (carrier, datagram, esp::header(datagram)) {
        (Carrier::Udp { .. }, [0, 0, 0, 0, _, ..], _) => Class::Ike,
        (_, _, Some((spi, _))) => Class::Esp(spi),
        (_, _, None) => Class::Refused(Discard::Short),
    }
}

/// Whether a packet of this SA may come this way: raw or in UDP, to this port, from this peer. The peer's port may be
/// another than it was, for a NAT forgets; it is believed when the packet has been found authentic.
fn arrives_as_agreed(sa: &Sa, arrival: &Arrival) -> bool {
    let carrier = match (arrival.carrier, sa.encapsulation()) {
        (Carrier::Esp, None) => true,
        (Carrier::Udp { local, .. }, Some(agreed)) => local == agreed.local,
        (Carrier::Esp, Some(_)) | (Carrier::Udp { .. }, None) => false,
    };
    carrier && (sa.src.is_unspecified() || sa.src == arrival.src)
}

/// The 64-bit sequence number of a packet, if the window would take it.
fn number(sa: &Sa, window: Option<&Window>, packet: &[u8]) -> Result<u64, Discard> {
    let (_, low) = esp::header(packet).ok_or(Discard::Internal)?;
    let Some(window) = window else {
        // Without a window there is nothing to infer a high half from; an SA with ESN always has one.
        return if sa.esn { Err(Discard::Internal) } else { Ok(low.into()) };
    };
    let high = if sa.esn { window.infer(low).ok_or(Discard::ReplayOld)? } else { 0 };
    let seq = u64::from(high) << 32 | u64::from(low);
    window.check(seq)?;
    Ok(seq)
}

/// An inner packet that its SA was entitled to carry. Only [`admit`] makes one, and nothing else reaches the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    at: usize,
    len: usize,
}

impl Admitted {
    /// Where it lies in the receive buffer.
    pub(crate) const fn range(&self) -> Range<usize> {
        self.at..self.at.saturating_add(self.len)
    }

    #[cfg(test)]
    pub(crate) const fn for_test(at: usize, len: usize) -> Self {
        Self { at, len }
    }
}

/// Lets a payload in as an inner packet.
///
//= https://www.rfc-editor.org/rfc/rfc4301#section-5.2
//# If an IPsec system receives an inbound packet on an SA and the packet's header fields are not consistent with the
//# selectors for the SA, it MUST discard the packet.
fn admit(
    sa: &Sa,
    arrival: &Arrival,
    payload: Payload<'_>,
    entitled: &mut Option<Plain>,
) -> Result<Admitted, Discard> {
    let Payload { octets, at, next_header } = payload;
    let version = match (sa.mode, next_header) {
        (Mode::Tunnel, IPV4) => 4,
        (Mode::Tunnel, IPV6) => 6,
        (Mode::Tunnel, _) => return Err(Discard::BadNextHeader),
        (Mode::Transport, _) => return Err(Discard::NotTunnel),
    };
    if octets.first().is_none_or(|first| first >> 4 != version) {
        return Err(Discard::Malformed);
    }
    let plain = Plain::read(octets);
    let len = match plain {
        // The same question as for the packet before has the same answer.
        Some((plain, len)) if Some(plain) == *entitled => len,
        _ => {
            let parsed = Parsed::new(octets)?;
            if !sa.entitles(&parsed.flow) {
                return Err(Discard::PolicyMismatch);
            }
            *entitled = plain.map(|(plain, _)| plain);
            parsed.len
        }
    };
    ecn::decapsulate(octets, arrival.tos)?;
    // What follows the inner packet is TFC padding (RFC 4303 §2.7).
    Ok(Admitted { at, len })
}

/// All that selectors look at in a TCP or UDP packet without options, extension headers or fragmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plain {
    src: u128,
    dst: u128,
    ports: u32,
    version: u8,
    proto: u8,
}

impl Plain {
    /// The flow of such a packet, and its length; `None` for any other packet, and for one too short to have ports.
    fn read(octets: &[u8]) -> Option<(Self, usize)> {
        const TCP: u8 = 6;
        const UDP: u8 = 17;
        let (plain, transport, len) =
            if let [0x45, _, l0, l1, _, _, f0, f1, _, proto, _, _, rest @ ..] = octets {
                let &[s0, s1, s2, s3, d0, d1, d2, d3, p0, p1, p2, p3] = rest.first_chunk()?;
                if u16::from_be_bytes([*f0, *f1]) & 0x3fff != 0 {
                    return None;
                }
                let plain = Self {
                    src: u32::from_be_bytes([s0, s1, s2, s3]).into(),
                    dst: u32::from_be_bytes([d0, d1, d2, d3]).into(),
                    ports: u32::from_be_bytes([p0, p1, p2, p3]),
                    version: 4,
                    proto: *proto,
                };
                (plain, 20, usize::from(u16::from_be_bytes([*l0, *l1])))
            } else if let [0x60..=0x6f, _, _, _, l0, l1, proto, _, rest @ ..] = octets {
                let (src, rest) = rest.split_first_chunk()?;
                let (dst, rest) = rest.split_first_chunk()?;
                let plain = Self {
                    src: u128::from_be_bytes(*src),
                    dst: u128::from_be_bytes(*dst),
                    ports: u32::from_be_bytes(*rest.first_chunk()?),
                    version: 6,
                    proto: *proto,
                };
                (plain, 40, usize::from(u16::from_be_bytes([*l0, *l1])).saturating_add(40))
            } else {
                return None;
            };
        let ported = matches!(plain.proto, TCP | UDP) && len.saturating_sub(transport) >= 8;
        (ported && len <= octets.len()).then_some((plain, len))
    }
}
