//! UPDATE and UPDATEPAIR: a larval SA becomes mature; of any other only lifetimes, cookie and partner change.

use super::add::{check_lifetimes, has_label, replay_value};
use super::{Control, flag};
use crate::sa::SaState;
use crate::sadb::{Km, Record, TimeLimits};
use ipsec_core::{Protocol, SaId, Time};
use pfkey::{Diagnostic as D, Errno, Fault, Lifetime, Message, km};

impl Control {
    /// UPDATE and, with `pair`, UPDATEPAIR. Says whether a larval SA became mature.
    pub(super) fn update(&mut self, ask: &mut Message<'_>, pair: bool, now: Time) -> Result<bool, Fault> {
        let id = self.named(ask)?;
        let Some(record) = self.sadb.find(&id) else { return Err(Fault::invalid(D::SaNotfound)) };
        if record.sa.is_none() {
            // pf_key(7P) takes an UPDATEPAIR of a larval SA for an ADD, and there is something of that name.
            return if pair {
                self.add(ask, now).map(|_| true)
            } else {
                self.hatch(ask, id, now).map(|()| true)
            };
        }
        self.check_update(ask, &id)?;
        let partner = self.sadb.find(&id).and_then(|record| record.partner());
        // Before anything changes: a value that one of the two cannot take is no value for the pair.
        if let Some(partner) = partner.filter(|_| pair).and_then(|partner| self.sadb.find(&partner)) {
            check_replay_value(ask, partner)?;
        }
        self.change(ask, &id);
        if pair {
            // By then the first SA has been changed: that is how it has always been.
            let partner = partner.ok_or(Fault { errno: Errno::ESRCH, diagnostic: D::PairSaNotfound })?;
            self.change(ask, &partner);
        }
        if let Some(pair) = ask.pair {
            self.pair(&id, pair.spi)?;
        }
        Ok(false)
    }

    /// Everything that can be wrong with an UPDATE of an SA that has its keys, in order.
    fn check_update(&self, ask: &Message<'_>, id: &SaId) -> Result<(), Fault> {
        let (Some(record), Some(sa)) = (self.sadb.find(id), ask.sa) else {
            return Err(Fault::invalid(D::SaNotfound));
        };
        if sa.state != SaState::Mature as u8 {
            return Err(Fault::invalid(D::BadSastate));
        }
        let allowed = if id.protocol == Protocol::Ah { flag::UPDATE_AH } else { flag::UPDATE_ESP };
        if sa.flags & !allowed != 0 {
            return Err(Fault::invalid(D::BadSaflags));
        }
        if ask.current.is_some() {
            return Err(Fault::errno(Errno::EOPNOTSUPP));
        }
        // What an SA may carry is agreed on with its peer, once.
        if ask.selectors.is_some() {
            return Err(Fault::errno(Errno::EOPNOTSUPP));
        }
        // Decided when an SA is put in use, as all that is done to a packet.
        if ask.tfc.is_some() {
            return Err(Fault::errno(Errno::EOPNOTSUPP));
        }
        check_lifetimes(ask)?;
        if has_label(ask) {
            return Err(Fault::invalid(D::BadLabel));
        }
        // A dialect without a word for it sends the keys again, and they stay what they are.
        let again = ask.sa_policy.is_some_and(|policy| policy.by_policy);
        if ask.auth_key.is_some() && !again {
            return Err(Fault::invalid(D::AkeyPresent));
        }
        if ask.encrypt_key.is_some() && !again {
            return Err(Fault::invalid(D::EkeyPresent));
        }
        let partner = record.partner().and_then(|partner| self.sadb.find(&partner));
        if record.state() == SaState::Dead || partner.is_some_and(|p| p.state() == SaState::Dead) {
            return Err(Fault { errno: Errno::ESRCH, diagnostic: D::SaExpired });
        }
        if let Some(asked) = ask.km_cookie {
            if asked.proto != 0 && record.km.proto != 0 && asked.proto != record.km.proto {
                return Err(Fault::invalid(D::DuplicateKmp));
            }
            let other = asked.cookie != 0 && record.km.cookie != 0 && asked.cookie != record.km.cookie;
            // IKEv2 may: the cookie names the IKE SA, and that one gets rekeyed.
            if other && asked.proto != km::IKEV2 {
                return Err(Fault::invalid(D::DuplicateKmc));
            }
        }
        check_replay_value(ask, record)
    }

    /// What an UPDATE may change of one SA. Zero fields leave alone what is there: a limit can be moved, not lifted.
    fn change(&mut self, ask: &Message<'_>, id: &SaId) {
        let Some(record) = self.sadb.find_mut(id) else { return };
        if let Some(hard) = ask.hard {
            merge(&mut record.hard, &hard, |new, _| new, &Lifetime::default());
        }
        if let Some(soft) = ask.soft {
            // No hard limit is no reason to have no soft one (reference Q10).
            let clamp = |new: u64, hard: u64| if hard == 0 { new } else { new.min(hard) };
            merge(&mut record.soft, &soft, clamp, &record.hard);
        }
        if let Some(idle) = ask.idle {
            let extras = record.extras.get_or_insert_default();
            let keep = |new, old| if new == 0 { old } else { new };
            extras.idle = TimeLimits {
                addtime: keep(idle.addtime, extras.idle.addtime),
                usetime: keep(idle.usetime, extras.idle.usetime),
            };
        }
        if let Some(packets) = ask.packet_limits {
            let old = &mut record.extras.get_or_insert_default().packets;
            old.hard = if packets.hard == 0 { old.hard } else { packets.hard };
            let soft = if packets.soft == 0 { old.soft } else { packets.soft };
            old.soft = if old.hard == 0 { soft } else { soft.min(old.hard) };
        }
        if let Some(km) = ask.km_cookie {
            let old = record.km;
            record.km = Km {
                proto: if km.proto == 0 { old.proto } else { km.proto },
                cookie: if km.cookie == 0 { old.cookie } else { km.cookie },
            };
        }
        if let (Some(value), Some(sa)) = (ask.replay_value, &record.sa) {
            let last = replay_value(value, sa.esn);
            if record.flags & flag::OUTBOUND != 0 {
                sa.continue_after(last);
            }
            if record.flags & flag::INBOUND != 0 {
                sa.received_up_to(last);
            }
        }
        let (direction, mature) = (record.flags, record.state() == SaState::Mature);
        let mut soft = record.soft;
        record.apply_limits();
        if mature && ask.soft.is_some_and(|soft| soft.addtime != 0) {
            self.fuzz(direction, &mut soft);
        }
        if let Some(record) = self.sadb.find_mut(id) {
            record.soft = soft;
        }
        self.sadb.rearm(id);
    }
}

/// Whether an SA may go on after a replay value: past its middle age only, and never back. A number sent twice is a nonce used
/// twice; a number received twice is a packet played again.
fn check_replay_value(ask: &Message<'_>, record: &Record) -> Result<(), Fault> {
    let (Some(value), Some(sa)) = (ask.replay_value, &record.sa) else { return Ok(()) };
    if matches!(record.state(), SaState::Larval | SaState::Mature) {
        return Err(Fault::invalid(D::BadSastate));
    }
    let last = replay_value(value, sa.esn);
    let back = record.flags & flag::OUTBOUND != 0 && last < sa.sent()
        || record.flags & flag::INBOUND != 0 && last < sa.received();
    if back { Err(Fault::invalid(D::InvalidReplay)) } else { Ok(()) }
}

fn merge(old: &mut Lifetime, new: &Lifetime, with: impl Fn(u64, u64) -> u64, hard: &Lifetime) {
    let field = |old: &mut u64, new: u64, hard: u64| {
        if new != 0 {
            *old = with(new, hard);
        }
    };
    let mut allocations = u64::from(old.allocations);
    field(&mut allocations, u64::from(new.allocations), u64::from(hard.allocations));
    old.allocations = u32::try_from(allocations).unwrap_or(u32::MAX);
    field(&mut old.bytes, new.bytes, hard.bytes);
    field(&mut old.addtime, new.addtime, hard.addtime);
    field(&mut old.usetime, new.usetime, hard.usetime);
}
