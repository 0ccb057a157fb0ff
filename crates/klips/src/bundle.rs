//! What is done to a packet: the SAs it goes through, put together when they are published and read by both directions.
//!
//! A bundle of one ESP SA in tunnel mode that does not pad is the fast way ([`Bundle::Tunnel`]): sealed on its way out of the superpacket,
//! opened where it was received. Anything else goes the general way, in the same batches: from the inner SA to the outer one
//! through frames with room at both ends ([`crate::outbound`]), and back the same way, every one of them demanded
//! ([`crate::inbound`]). A new protocol is an arm of [`Chain::grown`] here, of the step it takes on the way out and of the one
//! it takes on the way in.

use crate::ah;
use crate::ip::Outer;
use crate::sa::{Mode, Sa};
use arrayvec::ArrayVec;
use core::fmt;
use ipsec_core::transform::Transform;
use ipsec_core::{Protocol, SaId, Time};
use std::sync::Arc;

/// SAs that one packet goes through: `tun`, `comp`, `esp` and `ah` of KLIPS, or any four.
pub(crate) const MOST: usize = 4;

/// The SAs of a bundle, from the inside to the outside.
pub(crate) type Sas = ArrayVec<Arc<Sa>, MOST>;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) enum Bundle {
    /// One ESP SA in tunnel mode.
    Tunnel(Arc<Sa>),
    /// Anything else.
    Chain(Arc<Chain>),
}

/// SAs that are applied one after the other.
#[derive(Debug)]
pub(crate) struct Chain {
    sas: Sas,
    /// The outermost header is written by the kernel: it is our own, and nothing of it is authenticated.
    by_kernel: bool,
}

/// Why SAs cannot be applied one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// None, or more than four.
    Number,
    /// The outermost is neither ESP nor AH: what lies outside of it would have no protection, and nothing here receives it.
    Unprotected,
    /// UDP encapsulation is for the outermost ESP alone (RFC 3948): no NAT looks further, and none leaves an AH whole.
    Encapsulated,
    /// Transport mode to another host than the one that the header around it is for.
    Elsewhere,
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "a group has one to four SAs",
            Self::Unprotected => "the outermost SA of a group must be ESP or AH",
            Self::Encapsulated => "only the outermost SA of a group may be ESP in UDP",
            Self::Elsewhere => "an SA in transport mode leads to another host than the SA inside of it",
        })
    }
}

impl core::error::Error for BundleError {}

impl Bundle {
    /// Puts SAs together, from the inside to the outside.
    pub(crate) fn new(sas: Sas) -> Result<Self, BundleError> {
        let last = sas.last().ok_or(BundleError::Number)?;
        // IPComp that policy judges may be in what another such SA leaves; by itself it is not sent, nor received.
        let waits = last.id.protocol == Protocol::Ipcomp && last.reqid().is_some() && sas.len() == 1;
        if !protects(last) && !waits {
            return Err(BundleError::Unprotected);
        }
        if sas.iter().rev().skip(1).any(|sa| sa.encapsulation().is_some()) {
            return Err(BundleError::Encapsulated);
        }
        let mut header = None;
        for sa in &sas {
            match sa.mode {
                Mode::Tunnel => header = Some(sa.id.dst),
                Mode::Transport if header.is_none_or(|dst| dst == sa.id.dst) => {}
                Mode::Transport => return Err(BundleError::Elsewhere),
            }
        }
        if let [sa] = sas.as_slice()
            && sa.id.protocol == Protocol::Esp
            && sa.mode == Mode::Tunnel
            && !sa.pads()
        {
            return Ok(Self::Tunnel(Arc::clone(sa)));
        }
        // AH in the same header has authenticated its identification, which the kernel would choose anew (RFC 4302 §3.3.3.1.1.1).
        let outer = sas.iter().rposition(|sa| sa.mode == Mode::Tunnel).and_then(|tunnel| sas.get(tunnel..));
        let by_kernel = last.id.protocol == Protocol::Esp
            && outer.is_some_and(|outer| outer.iter().all(|sa| sa.id.protocol != Protocol::Ah));
        Ok(Self::Chain(Arc::new(Chain { sas, by_kernel })))
    }

    /// A bundle of one.
    pub(crate) fn alone(sa: Arc<Sa>) -> Result<Self, BundleError> {
        let mut sas = Sas::new();
        sas.push(sa);
        Self::new(sas)
    }

    /// Its SAs, from the inside to the outside.
    pub(crate) fn sas(&self) -> &[Arc<Sa>] {
        match self {
            Self::Tunnel(sa) => core::slice::from_ref(sa),
            Self::Chain(chain) => &chain.sas,
        }
    }

    /// The outermost SA: the one that packets name on the wire.
    #[inline]
    pub(crate) fn outermost(&self) -> Option<&Arc<Sa>> {
        match self {
            Self::Tunnel(sa) => Some(sa),
            Self::Chain(chain) => chain.sas.last(),
        }
    }

    /// The SA of that name.
    pub(crate) fn sa(&self, id: &SaId) -> Option<&Arc<Sa>> {
        self.sas().iter().find(|sa| sa.id == *id)
    }

    /// Whether packets may use it: one SA that may not is enough to say no.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Tunnel(sa) => sa.is_alive(),
            Self::Chain(chain) => chain.sas.iter().all(|sa| sa.is_alive()),
        }
    }

    /// The longest packet that is not longer than `mtu` on the wire.
    pub(crate) fn inner_mtu(&self, mtu: usize) -> usize {
        let v4 = self.outermost().is_some_and(|sa| sa.id.dst.is_ipv4());
        inner_mtu(self.sas(), mtu, if v4 { 20 } else { 40 })
    }

    /// Whether packets may go on it now.
    pub(crate) fn may_send(&self) -> bool {
        self.outermost().is_some_and(|sa| protects(sa)) && self.sas().iter().all(|sa| sa.may_send())
    }

    /// Whether both are the same SAs.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.sas().len() == other.sas().len()
            && self.sas().iter().zip(other.sas()).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

/// Whether what lies inside of an SA has any protection.
const fn protects(sa: &Sa) -> bool {
    matches!(sa.id.protocol, Protocol::Esp | Protocol::Ah)
}

impl Chain {
    /// The SAs, from the inside to the outside.
    pub(crate) fn sas(&self) -> &[Arc<Sa>] {
        &self.sas
    }

    /// Whether the kernel writes the outermost header.
    pub(crate) const fn by_kernel(&self) -> bool {
        self.by_kernel
    }

    /// Whether the header of the packet itself is what goes over the wire: it must be between the hosts of the SAs.
    pub(crate) fn is_transport(&self) -> bool {
        self.sas.iter().all(|sa| sa.mode == Mode::Transport)
    }

    /// How long a packet of `len` octets, `head` of them IP header, is on the wire. Compression is taken to fail.
    pub(crate) fn grown(&self, len: usize, head: usize) -> Option<usize> {
        grown(&self.sas, len, head)
    }

    /// The longest packet, `head` octets of it IP header, that is not longer than `mtu` on the wire.
    pub(crate) fn inner_mtu(&self, mtu: usize, head: usize) -> usize {
        inner_mtu(&self.sas, mtu, head)
    }

    /// The longest packet that may go, over a link that carries packets of `link` octets.
    pub(crate) fn path_mtu(&self, link: usize, now: Time) -> usize {
        self.sas.last().map_or(link, |sa| sa.path_mtu().limit(link, now))
    }

    /// Octets that the SA at `index` pads what lies inside of it to, if packets of `mtu` octets pass; 0 if it does not pad.
    pub(crate) fn pad(&self, index: usize, mtu: usize) -> usize {
        let outside = self.sas.get(index..).unwrap_or_default();
        let Some(sa) = outside.first().filter(|sa| sa.pads()) else { return 0 };
        // No packet is longer.
        let asked = sa.hiding().pad().min(usize::from(u16::MAX));
        // In tunnel mode the header that counts is the one that is put around.
        match grown(outside, asked, 0) {
            Some(grown) if grown <= mtu => asked,
            _ => inner_mtu(outside, mtu, 0),
        }
    }

    /// The most that any of them pads to.
    pub(crate) fn padded(&self, mtu: usize) -> usize {
        (0..self.sas.len()).map(|index| self.pad(index, mtu)).max().unwrap_or(0)
    }

    /// Octets that may come before a packet, and behind it.
    pub(crate) fn room(&self) -> (usize, usize) {
        let mut room = (0_usize, 0_usize);
        for sa in &self.sas {
            let v4 = sa.id.dst.is_ipv4();
            if sa.mode == Mode::Tunnel {
                room.0 = room.0.saturating_add(Outer::len(v4));
            }
            let transform = sa.transform().map_or((0, 0), around);
            let ah = sa.mac().map_or(0, |mac| ah::len(mac, v4));
            room =
                (room.0.saturating_add(transform.0).saturating_add(ah), room.1.saturating_add(transform.1));
        }
        room
    }
}

fn grown(sas: &[Arc<Sa>], len: usize, head: usize) -> Option<usize> {
    let (mut len, mut head) = (len, head);
    for sa in sas {
        let v4 = sa.id.dst.is_ipv4();
        if sa.mode == Mode::Tunnel {
            head = Outer::len(v4);
            len = len.checked_add(head)?;
        }
        let body = len.checked_sub(head)?;
        len = match sa.id.protocol {
            Protocol::Ipip | Protocol::Ipcomp => len,
            Protocol::Esp => {
                let udp = if sa.encapsulation().is_some() { 8 } else { 0 };
                head.checked_add(sa.transform()?.sealed_len(body))?.checked_add(udp)?
            }
            Protocol::Ah => len.checked_add(ah::len(sa.mac()?, v4))?,
        };
    }
    Some(len)
}

fn inner_mtu(sas: &[Arc<Sa>], mtu: usize, head: usize) -> usize {
    // What is put around does not depend on the length by more than one alignment for each SA.
    (0..=mtu).rev().find(|len| grown(sas, *len, head).is_some_and(|grown| grown <= mtu)).unwrap_or(0)
}

/// Octets that ESP, and UDP around it, put before a payload and at most behind it.
const fn around(transform: &Transform) -> (usize, usize) {
    let tail = transform.alignment().saturating_add(2).saturating_add(transform.icv_len());
    (transform.header_len().saturating_add(8), tail)
}
