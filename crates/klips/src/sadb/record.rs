//! What an SA is to its key manager: lifetimes in seconds, identities, its pair, its cookie.
//!
//! What packets need is in [`Sa`], once; keys above all. A larval SA has none yet.

use crate::sa::{Limits, Sa, SaState};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use ipsec_core::{SaId, Spi, Time};
use pfkey::{Lifetime, PacketLimits, SaPolicy};
use std::sync::Arc;

/// How long a name reserved by GETSPI waits for its SA.
const LARVAL: Duration = Duration::from_secs(90);

/// How long a dead SA stays to be seen, its name taken.
const REAP: Duration = Duration::from_secs(1);

/// What time does to an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nobody came for the larval SA: it goes without a word.
    Larval,
    /// It has been dead long enough: it goes.
    Reap,
    /// A hard limit is reached.
    Hard,
    /// A soft limit is reached.
    Soft,
    /// It has been idle for as long as its key manager wanted to know.
    Idle,
}

/// Limits of idleness, in seconds; 0 is none (`SADB_X_EXT_LIFETIME_IDLE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeLimits {
    /// After it was added, if it has never been used.
    pub(crate) addtime: u64,
    /// After its last use.
    pub(crate) usetime: u64,
}

/// Ports of the outer selector, host order, and its protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) proto: u8,
    pub(crate) src: u16,
    pub(crate) dst: u16,
}

/// Which key manager made an SA, and its own name for it (`SADB_X_EXT_KM_COOKIE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Km {
    pub(crate) proto: u32,
    pub(crate) cookie: u64,
}

/// An identity as the key manager wrote it: nobody interprets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) kind: u16,
    pub(crate) text: Box<[u8]>,
}

/// What most SAs do not have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    pub(crate) src_identity: Option<Identity>,
    pub(crate) dst_identity: Option<Identity>,
    pub(crate) natt_loc: Option<SocketAddr>,
    pub(crate) natt_rem: Option<SocketAddr>,
    pub(crate) idle: TimeLimits,
    pub(crate) packets: PacketLimits,
    /// What other address and port its key manager was last told of.
    pub(crate) mapping: Option<SocketAddr>,
    /// When idleness was last told.
    pub(crate) idle_told: Time,
    /// The SAs it is applied together with, itself among them, from the inside to the outside.
    pub(crate) group: Option<Arc<[SaId]>>,
}

/// One SA of the SADB.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: SaId,
    /// Unspecified if any peer may send on it.
    pub(crate) src: IpAddr,
    /// Its part in the data plane; `None` while it is larval.
    pub(crate) sa: Option<Arc<Sa>>,
    /// Whether packets are carried on it.
    pub(crate) in_use: bool,
    pub(crate) replay: u8,
    /// Width of the replay window asked for, in packets.
    pub(crate) window: u32,
    pub(crate) auth: u8,
    pub(crate) encrypt: u8,
    pub(crate) ports: Ports,
    pub(crate) flags: u32,
    /// The SPI of the SA for the other direction; says something only with the PAIRED flag.
    pub(crate) pair: u32,
    pub(crate) km: Km,
    pub(crate) policy: SaPolicy,
    pub(crate) hard: Lifetime,
    pub(crate) soft: Lifetime,
    pub(crate) added: Time,
    pub(crate) died: Option<Time>,
    /// Set by the SADB alone.
    pub(crate) timer: Option<Time>,
    pub(crate) extras: Option<Box<Extras>>,
}

impl Record {
    /// A name and nothing behind it yet (GETSPI).
    pub(crate) fn larval(id: SaId, src: IpAddr, now: Time) -> Self {
        Self {
            id,
            src,
            sa: None,
            in_use: false,
            replay: 0,
            window: 0,
            auth: 0,
            encrypt: 0,
            ports: Ports::default(),
            flags: 0,
            pair: 0,
            km: Km::default(),
            policy: SaPolicy::default(),
            hard: Lifetime::default(),
            soft: Lifetime::default(),
            added: now,
            died: None,
            timer: None,
            extras: None,
        }
    }

    pub(crate) fn state(&self) -> SaState {
        self.sa.as_ref().map_or(SaState::Larval, |sa| sa.state())
    }

    /// The name of the SA it is paired with.
    pub(crate) fn partner(&self) -> Option<SaId> {
        let paired = self.flags & crate::control::flag::PAIRED != 0 && self.pair != 0;
        paired.then_some(SaId { dst: self.src, protocol: self.id.protocol, spi: Spi(self.pair) })
    }

    pub(crate) fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// Octets carried.
    pub(crate) fn bytes(&self) -> u64 {
        self.sa.as_ref().map_or(0, |sa| sa.bytes())
    }

    /// Limits of packets.
    pub(crate) fn packet_limits(&self) -> PacketLimits {
        self.extras().map_or(PacketLimits::default(), |extras| extras.packets)
    }

    /// Hands the limits of what it carries to the data plane.
    pub(crate) fn apply_limits(&self) {
        let PacketLimits { soft, hard } = self.packet_limits();
        if let Some(sa) = &self.sa {
            sa.limit(Limits {
                soft_bytes: self.soft.bytes,
                hard_bytes: self.hard.bytes,
                soft_packets: soft,
                hard_packets: hard,
            });
        }
    }

    /// The next thing time will do to it, as far as is known now, and when.
    pub(crate) fn due(&self) -> Option<(Time, Due)> {
        match self.state() {
            SaState::Larval => Some((self.added.after(LARVAL), Due::Larval)),
            // Until control has heard of a death it cannot count from it.
            SaState::Dead => self.died.map(|died| (died.after(REAP), Due::Reap)),
            state @ (SaState::Mature | SaState::Dying) => {
                let mature = state == SaState::Mature;
                let soft = if mature { self.limit_at(&self.soft) } else { None };
                let idle = if mature { self.idle_at() } else { None };
                // At the same moment the harder limit wins: min_by_key keeps the first of equals.
                [(self.limit_at(&self.hard), Due::Hard), (soft, Due::Soft), (idle, Due::Idle)]
                    .into_iter()
                    .filter_map(|(at, due)| Some((at?, due)))
                    .min_by_key(|(at, _)| *at)
            }
        }
    }

    /// What time has done to it by now: of several limits that have passed only the hardest counts.
    pub(crate) fn overdue(&self, now: Time) -> Option<Due> {
        let passed = |at: Option<Time>| at.is_some_and(|at| at <= now);
        match self.due() {
            Some((at, due)) if at <= now => Some(match due {
                Due::Soft | Due::Idle if passed(self.limit_at(&self.hard)) => Due::Hard,
                Due::Idle if passed(self.limit_at(&self.soft)) => Due::Soft,
                Due::Larval | Due::Reap | Due::Hard | Due::Soft | Due::Idle => due,
            }),
            _ => None,
        }
    }

    /// When the earlier of the two limits in time is reached; use counts once there was one.
    fn limit_at(&self, limit: &Lifetime) -> Option<Time> {
        let added = (limit.addtime != 0).then(|| self.added.after(Duration::from_secs(limit.addtime)));
        let first = self.sa.as_ref().filter(|_| limit.usetime != 0).and_then(|sa| sa.first_use());
        let used = first.map(|first| first.after(Duration::from_secs(limit.usetime)));
        match (added, used) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
    }

    fn idle_at(&self) -> Option<Time> {
        let extras = self.extras()?;
        let (from, limit) = match self.sa.as_ref().and_then(|sa| sa.last_use()) {
            Some(last) => (last, extras.idle.usetime),
            None => (self.added, extras.idle.addtime),
        };
        (limit != 0).then(|| from.max(extras.idle_told).after(Duration::from_secs(limit)))
    }
}
