//! Why a packet was refused, and how often.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! discards {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// Why a packet was not let through: the data plane's ordinary "no", not an error.
        ///
        /// Exactly one counter per reason, under the same name in tables, logs and tests.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(usize)]
        pub enum Discard {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Discard {
            /// Every reason, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The reason's name in tables and `--json`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

discards! {
    /// Not an IP packet, truncated, or its lengths contradict each other.
    Malformed = "malformed",
    /// A virtio-net header that does not fit its packet.
    BadOffload = "bad_offload",
    /// Outbound: no eroute matches (RFC 4301 §5.1: DISCARD).
    NoEroute = "no_eroute",
    /// Outbound: the eroute says `%drop`.
    Drop = "drop",
    /// Outbound: the eroute says `%reject`; an ICMP answer was sent if the rate allowed.
    Reject = "reject",
    /// Outbound: the eroute says `%trap` or `%hold` and the packet could not be kept.
    Hold = "hold",
    /// No SA of that name, or it is not mature or dying.
    NoSa = "no_sa",
    /// Inbound: it came before its SA had keys, and found no room to wait for them, or they did not come in time.
    Early = "early",
    /// Outbound: transport mode, but the packet is not between the hosts of the SA.
    OtherHosts = "other_hosts",
    /// Outbound: transport mode, but the packet is a fragment (RFC 4303 §3.3.4: whole packets only).
    Fragment = "fragment",
    /// The SA's hard lifetime is reached.
    Expired = "expired",
    /// Outbound: the SA has used its last sequence number (RFC 4303 §3.3.3).
    SequenceExhausted = "sequence_exhausted",
    /// Outbound: too big for the path and must not be fragmented; the sender was told if the rate allowed.
    TooBig = "too_big",
    /// Inbound: shorter than the smallest ESP packet of its SA, or not a multiple of its alignment.
    Short = "short",
    /// Inbound: left of the replay window (RFC 4303 §3.4.3).
    ReplayOld = "replay_old",
    /// Inbound: seen before.
    Replayed = "replayed",
    /// Inbound: the ICV does not verify.
    Forged = "forged",
    /// Inbound: authentic, but its padding is not 1, 2, 3 … or longer than the packet.
    BadPadding = "bad_padding",
    /// Inbound: next header 59, a dummy packet (RFC 4303 §2.6). Gone quietly.
    Dummy = "dummy",
    /// Inbound: the next header is not one this SA may carry.
    BadNextHeader = "bad_next_header",
    /// Inbound: an SA of a bundle without all of those outside of it, or with another inside than belongs there.
    WrongBundle = "wrong_bundle",
    /// Inbound: what IPComp carries cannot be decompressed.
    BadCompression = "bad_compression",
    /// Inbound: what IPComp carries would be longer than any IP packet, or there is too much of it at once.
    Bomb = "compression_bomb",
    /// Inbound: the inner packet is outside the SA's selectors (RFC 4301 §5.2).
    PolicyMismatch = "policy_mismatch",
    /// Inbound: UDP encapsulation where the SA has none, or the other way round, or from another peer.
    WrongEncapsulation = "wrong_encapsulation",
    /// Inbound: ECN says congestion on the outside but the inner packet cannot carry the mark (RFC 6040 §4.2).
    CongestionNotCarried = "congestion_not_carried",
    /// A NAT keepalive (RFC 3948 §2.3).
    Keepalive = "keepalive",
    /// An ICMP message that would narrow a path and quotes no packet that we sent a moment ago, or says what cannot be.
    UnbelievedIcmp = "unbelieved_icmp",
    /// IKE on port 4500 and nobody to take it.
    NoIke = "no_ike",
    /// The host could not send or deliver it (socket or TUN refused).
    HostIo = "host_io",
    /// An invariant did not hold. Must read zero.
    Internal = "internal",
}

/// One worker's counters; written by that worker alone, read by anyone.
#[derive(Debug)]
pub struct Counters {
    discards: Vec<AtomicU64>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { discards: Discard::ALL.iter().map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Counters {
    /// Counts `n` packets refused for `why`.
    pub fn add(&self, why: Discard, n: u64) {
        if let Some(counter) = self.discards.get(why as usize) {
            counter.fetch_add(n, Relaxed);
        }
    }

    /// All counts, in the order of [`Discard::ALL`].
    pub(crate) fn all(&self) -> Vec<u64> {
        self.discards.iter().map(|counter| counter.load(Relaxed)).collect()
    }

    /// How many packets were refused for `why`.
    pub fn count(&self, why: Discard) -> u64 {
        self.discards.get(why as usize).map_or(0, |counter| counter.load(Relaxed))
    }
}
