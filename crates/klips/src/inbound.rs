//! The inbound path: wire → bundle → replay check → open → replay advance → policy → device (RFC 4301 §5.2).
//!
//! Nothing about the ciphertext is believed before its ICV: a forged packet costs one lookup and one opening, and moves no
//! window, no counter of use and no lifetime. Each step asks for the proof the step before it made:
//! [`Verified`](crate::open::Verified) for the window, [`Admitted`](crate::admit::Admitted) for delivery. What is here is the
//! fast way, ESP in tunnel mode; [`unwrap`] is the general one.

mod seen;
mod unwrap;

use crate::admit::{Entitled, tunnelled};
use crate::ah;
use crate::arrival::{Arrival, Carrier};
use crate::bundle::Bundle;
use crate::comp::Codec;
use crate::discard::{Counters, Discard};
use crate::early::{Early, Fate};
use crate::open::{self, Authenticated, Candidates, RUN};
use crate::opened::Opened;
use crate::packet::Parsed;
use crate::path_mtu::Heard;
use crate::plane::Plane;
use crate::sa::{Sa, SaState};
use crate::window::Window;
use arrayvec::ArrayVec;
use core::ops::Range;
use ipsec_core::{SaId, Spi, Time};
use std::sync::Arc;

/// One worker's inbound engine.
pub struct Inbound {
    plane: Arc<Plane>,
    counters: Arc<Counters>,
    /// The bundle of the last run: most runs are followed by another of the same.
    last: Option<Bundle>,
    /// The flow of the last packet that its SA was found entitled to carry.
    entitled: Option<Entitled>,
    /// The state of inbound policy at which it was found.
    admission: u64,
    /// What came before its SA had keys.
    early: Early,
    /// How many SAs had got theirs when it was last looked.
    hatched: u64,
    /// For the general way.
    codec: Codec,
    scratch: Vec<u8>,
    /// The time of this batch, if somebody wants to see packets; asked once a batch.
    watched: Option<Time>,
}

/// What a datagram is, before any SA is asked.
enum Class {
    Protected(u32),
    Ike,
    Refused(Discard),
}

/// Octets of the longest packet that can come.
const LARGEST: usize = 65_535;

/// Neighbouring datagrams of one SA, each with its place in the receive buffer.
type Run<'p> = ArrayVec<(&'p mut [u8], usize), RUN>;

impl Inbound {
    /// An engine on `plane`.
    pub fn new(plane: Arc<Plane>, counters: Arc<Counters>) -> Self {
        let (early, codec, scratch) = Default::default();
        Self {
            plane,
            counters,
            last: None,
            entitled: None,
            admission: 0,
            early,
            hatched: 0,
            codec,
            scratch,
            watched: None,
        }
    }

    /// Lets go of the SAs of the last run if one has died, and so of their keys.
    pub fn forget_dead(&mut self) {
        self.last.take_if(|bundle| !bundle.is_alive());
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
        self.watched = self.plane.trace().is_on().then_some(now);
        let mut at = range.start;
        let stride = stride.max(1);
        let Some((before, octets)) =
            rx.get_mut(..range.end).and_then(|rx| rx.split_at_mut_checked(range.start))
        else {
            return self.refuse(Discard::Internal, 1);
        };
        let header = before.len().checked_sub(arrival.header).and_then(|at| before.get(at..));
        let Some(header) = header else {
            return self.refuse(Discard::Internal, 1);
        };
        let from = (arrival, header);
        if octets.is_empty() {
            return self.refuse(Discard::Short, 1);
        }
        let mut run = Run::new();
        let mut run_spi = 0;
        for datagram in octets.chunks_mut(stride) {
            match classify(arrival.carrier, datagram) {
                Class::Protected(spi) => {
                    if spi != run_spi || run.is_full() {
                        self.run(from, run_spi, &mut run, now, out);
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
        self.run(from, run_spi, &mut run, now, out);
    }

    /// Takes packets that came before their SA had keys and now has, in the order they came, as [`Inbound::datagrams`] would have; says
    /// how many. Until there are none, when [`Plane::take_returned`] said so.
    pub fn matured(&mut self, rx: &mut [u8], now: Time, out: &mut Opened) -> usize {
        let (mut taken, mut at) = (0_usize, 0_usize);
        while !self.early.is_empty() {
            let Some(room) = rx.get_mut(at..) else { break };
            let plane = &self.plane;
            let fate = |id: &SaId, arrival: &Arrival| {
                if plane.bundle(id).is_some() {
                    Fate::Ripe
                } else if plane.larvae().expect(id, arrival.src) {
                    Fate::Waits
                } else {
                    Fate::Gone
                }
            };
            // What has no room goes with the next ones.
            if room.len() < LARGEST && taken > 0 {
                break;
            }
            let (next, gone) = self.early.next(room, now, fate);
            self.refuse(Discard::Early, gone);
            let Some((arrival, len)) = next else { break };
            let range = at.saturating_add(arrival.header)..at.saturating_add(len);
            at = range.end;
            taken = taken.saturating_add(1);
            self.datagrams(&arrival, rx, range, len, now, out);
        }
        taken
    }

    /// Takes an ICMP message that came to this host, without the IP header before it. One that says that a packet of ours was
    /// too big for a router narrows the path of the SA it went on, if it can be believed; `port` is ours of ESP in UDP.
    pub fn icmp(&self, v4: bool, message: &[u8], port: u16, now: Time) {
        let believed = match Heard::read(v4, message, port) {
            Heard::Elsewhere => return,
            Heard::Claim(claim) => self.plane.believe(&claim, now),
            Heard::Absurd => false,
        };
        self.refuse(Discard::UnbelievedIcmp, usize::from(!believed));
    }

    /// Takes a run of packets of one SA from lookup to delivery.
    fn run(&mut self, from: (&Arrival, &[u8]), spi: u32, run: &mut Run<'_>, now: Time, out: &mut Opened) {
        if run.is_empty() {
            return;
        }
        let (arrival, _) = from;
        let id = SaId { dst: arrival.dst, protocol: arrival.carrier.protocol(), spi: Spi(spi) };
        let mut found = self.find(&id, arrival);
        if matches!(found, Err(Discard::NoSa)) {
            if self.plane.larvae().expect(&id, arrival.src) {
                return self.keep(id, from, run, now);
            }
            if self.plane.larvae().have_hatched(&mut self.hatched) {
                found = self.find(&id, arrival);
            }
        }
        match found {
            Ok(bundle) => {
                match &bundle {
                    Bundle::Tunnel(sa) => self.open(sa, arrival, run, now, out),
                    Bundle::Chain(chain) => self.unwrap(chain, from, run, now, out),
                }
                self.last = Some(bundle);
            }
            Err(why) => match self.plane.sa(&id) {
                Some(sa) => self.refuse_of(&sa, why, run.len()),
                None => self.refuse_unknown(id, why, run.len()),
            },
        }
        run.clear();
    }

    /// Keeps packets until their SA has keys, as far as there is room.
    #[cold]
    fn keep(&mut self, id: SaId, from: (&Arrival, &[u8]), run: &mut Run<'_>, now: Time) {
        for (packet, _) in run.drain(..) {
            if let Err(why) = self.early.keep(id, from, packet, now) {
                self.refuse_unknown(id, why, 1);
            }
        }
    }

    /// Refuses packets that name no SA.
    fn refuse_unknown(&self, id: SaId, why: Discard, n: usize) {
        self.refuse(why, n);
        self.saw_unknown(id, why, n);
    }

    /// The bundle that begins, on the outside, with the SA of that name, if packets of this arrival may use it.
    fn find(&mut self, id: &SaId, arrival: &Arrival) -> Result<Bundle, Discard> {
        let same = |bundle: &Bundle| bundle.outermost().is_some_and(|sa| sa.id == *id) && bundle.is_alive();
        let bundle = match self.last.take().filter(same) {
            Some(bundle) => bundle,
            None => {
                self.entitled = None;
                self.plane.bundle(id).ok_or(Discard::NoSa)?
            }
        };
        let sa = bundle.outermost().ok_or(Discard::Internal)?;
        // An SA inside of others does not come without them.
        if sa.id != *id {
            return Err(Discard::WrongBundle);
        }
        if !arrives_as_agreed(sa, arrival) {
            return Err(Discard::WrongEncapsulation);
        }
        if bundle.is_alive() {
            return Ok(bundle);
        }
        // A larval SA, or one that is gone from its bundle by now, is as good as none.
        let expired = bundle.sas().iter().any(|sa| sa.state() == SaState::Dead);
        Err(if expired { Discard::Expired } else { Discard::NoSa })
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
                let judged = if open::fits(transform, packet.len()) {
                    number(sa, window.as_deref(), packet_number(packet))
                } else {
                    Err(Discard::Short)
                };
                if let Err(why) = judged.and_then(|seq| candidates.push(packet, at, seq, sa.esn)) {
                    self.refuse_of(sa, why, 1);
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
                        window.advance(packet.verified())?;
                        newest |= window.right() == packet.verified().seq();
                        Ok(packet)
                    }
                    None => Ok(packet),
                });
                match fresh {
                    Ok(packet) => authentic.push(packet),
                    Err(why) => self.refuse_of(sa, why, 1),
                }
            }
        }

        if newest {
            self.follow(sa, arrival);
        }
        let admission = self.plane.admission_generation();
        if core::mem::replace(&mut self.admission, admission) != admission {
            self.entitled = None;
        }
        let admitted = self.charge(sa, &authentic, Authenticated::charged_len, now);
        self.refuse_of(sa, Discard::Expired, authentic.len().saturating_sub(admitted));
        for packet in authentic.drain(..).take(admitted) {
            let mut seen = None;
            let admitted = packet.payload().and_then(|payload| {
                seen = self.watched.and_then(|_| Parsed::new(payload.octets).ok());
                tunnelled(&self.plane, (sa, &[]), arrival.tos, payload, &mut self.entitled)
            });
            match admitted {
                Ok(packet) => {
                    self.saw(sa, seen.as_ref());
                    out.packets.push(packet);
                }
                Err(why) => self.refuse_seen(sa, why, seen.as_ref()),
            }
        }
    }

    /// The newest authentic packet came from this port of the peer's: answers go there (RFC 3948 §3, RFC 7296 §2.23).
    fn follow(&self, sa: &Sa, arrival: &Arrival) {
        if let Carrier::Udp { remote, .. } = arrival.carrier
            && sa.encapsulation().is_some_and(|agreed| agreed.remote != remote)
            && sa.follow(remote)
        {
            self.plane.tell_moved(sa.id, remote);
        }
    }

    /// Charges the SA for authentic packets and says how many of them its lifetime lets pass; tells control what
    /// happened to it.
    fn charge<P>(&self, sa: &Sa, packets: &[P], len: impl Fn(&P) -> u64, now: Time) -> usize {
        let mut admitted = 0_usize;
        // All packets of a run but the last usually have one size.
        for same in packets.chunk_by(|a, b| len(a) == len(b)) {
            let size = same.first().map_or(0, &len);
            let charge = sa.charge(same.len() as u64, size, now);
            self.plane.tell_charge(sa.id, &charge);
            admitted = admitted.saturating_add(charge.admitted as usize);
            // What follows the packet that met the limit is refused, however small.
            if (charge.admitted as usize) < same.len() {
                break;
            }
        }
        admitted
    }

    /// Refuses packets of an SA, which counts them too.
    fn refuse_of(&self, sa: &Sa, why: Discard, n: usize) {
        if n > 0 {
            self.refuse(why, n);
            sa.refuse(why, n as u64);
            self.saw_refused(sa, why, n);
        }
    }

    fn refuse(&self, why: Discard, n: usize) {
        if n > 0 {
            self.counters.add(why, n as u64);
        }
    }
}

/// Whoever ends an engine has its SAs end as well: what waits for theirs is lost.
impl Drop for Inbound {
    fn drop(&mut self) {
        self.refuse(Discard::Early, self.early.len());
    }
}

/// Tells what is protected, IKE and keepalives apart (RFC 3948 §2.2, §2.3).
fn classify(carrier: Carrier, datagram: &[u8]) -> Class {
    if let (Carrier::Udp { .. }, [0xff]) = (carrier, datagram) {
        return Class::Refused(Discard::Keepalive);
    }
    if carrier == Carrier::Ah {
        return ah::Header::read(datagram)
            .map_or(Class::Refused(Discard::Short), |header| Class::Protected(header.spi));
    }
    match (carrier, datagram, open::header(datagram)) {
        (Carrier::Udp { .. }, [0, 0, 0, 0, _, ..], _) => Class::Ike,
        (_, _, Some((spi, _))) => Class::Protected(spi),
        (_, _, None) => Class::Refused(Discard::Short),
    }
}

/// Whether a packet of this SA may come this way: raw or in UDP, to this port, from this peer. The peer's port may be
/// another than it was, for a NAT forgets; it is believed when the packet has been found authentic.
fn arrives_as_agreed(sa: &Sa, arrival: &Arrival) -> bool {
    let carrier = match (arrival.carrier, sa.encapsulation()) {
        (Carrier::Esp | Carrier::Ah, None) => true,
        (Carrier::Udp { local, .. }, Some(agreed)) => local == agreed.local,
        (Carrier::Esp | Carrier::Ah, Some(_)) | (Carrier::Udp { .. }, None) => false,
    };
    carrier && (sa.src.is_unspecified() || sa.src == arrival.src)
}

/// The low half of an ESP packet's sequence number.
fn packet_number(packet: &[u8]) -> Option<u32> {
    open::header(packet).map(|(_, low)| low)
}

/// The 64-bit sequence number of a packet, if the window would take it.
fn number(sa: &Sa, window: Option<&Window>, low: Option<u32>) -> Result<u64, Discard> {
    let low = low.ok_or(Discard::Internal)?;
    let Some(window) = window else {
        // Without a window there is nothing to infer a high half from; an SA with ESN always has one.
        return if sa.esn { Err(Discard::Internal) } else { Ok(low.into()) };
    };
    let high = if sa.esn { window.infer(low).ok_or(Discard::ReplayOld)? } else { 0 };
    let seq = u64::from(high) << 32 | u64::from(low);
    window.check(seq)?;
    Ok(seq)
}
