//! What time and traffic do to SAs, and what the key manager hears of it (EXPIRE).
//!
//! Each limit is told once. Where a soft and a hard limit have passed together, only the hard one is told.

use super::{Control, Hearers};
use crate::plane::Event;
use crate::sa::SaState;
use crate::sadb::Due;
use core::net::SocketAddr;
use ipsec_core::{SaId, Time};

/// Which limit an EXPIRE is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Soft,
    Hard,
    Idle,
}

impl Control {
    /// What workers found since last asked.
    pub(super) fn expire_events(&mut self, now: Time) {
        for event in self.plane.take_events() {
            match event {
                Event::FirstUse(id) => self.sadb.rearm(&id),
                // The SA a worker spoke of may be gone, and another have its name.
                Event::Soft(id) if self.is_past_soft(&id) => self.soft(&id),
                Event::Hard(id) if self.is_dead(&id) => self.hard(&id, now),
                Event::Moved(id, port) => self.moved(&id, port),
                Event::Soft(_) | Event::Hard(_) => {}
            }
        }
    }

    /// The answers to a peer behind a NAT go to the port its packets come from (RFC 3948 §3), and key managers hear of it.
    fn moved(&mut self, id: &SaId, port: u16) {
        let partner = self.sadb.find(id).and_then(|record| record.partner());
        if let Some(sa) = partner.and_then(|id| self.sadb.find(&id)).and_then(|record| record.sa.as_ref()) {
            sa.follow(port);
        }
        if let Some(src) = self.sadb.find(id).map(|record| record.src) {
            self.tell_mapping(id, SocketAddr::new(src, port));
        }
    }

    fn is_past_soft(&self, id: &SaId) -> bool {
        let reached = |limit: u64, count: u64| limit != 0 && count >= limit;
        self.sadb.find(id).is_some_and(|record| {
            let packets = record.sa.as_ref().map_or(0, |sa| sa.packets());
            reached(record.soft.bytes, record.bytes()) || reached(record.packet_limits().soft, packets)
        })
    }

    fn is_dead(&self, id: &SaId) -> bool {
        self.sadb.find(id).is_some_and(|record| record.state() == SaState::Dead)
    }

    /// What time has done.
    pub(super) fn expire_timers(&mut self, now: Time) {
        while let Some(id) = self.sadb.take_due(now) {
            match self.sadb.find(&id).and_then(|record| record.overdue(now)) {
                Some(Due::Larval | Due::Reap) => {
                    self.take_out(&id);
                }
                Some(Due::Hard) => self.hard(&id, now),
                Some(Due::Soft) => self.soft(&id),
                Some(Due::Idle) => {
                    self.tell_expire(&id, Limit::Idle);
                    if let Some(record) = self.sadb.find_mut(&id) {
                        record.extras.get_or_insert_default().idle_told = now;
                    }
                    self.sadb.rearm(&id);
                }
                // It has been used or given more time since the timer was set.
                None => self.sadb.rearm(&id),
            }
        }
    }

    /// A soft limit is reached: the SA goes on, dying.
    fn soft(&mut self, id: &SaId) {
        let Some(record) = self.sadb.find(id).filter(|record| record.state() == SaState::Mature) else {
            return;
        };
        if let Some(sa) = &record.sa {
            sa.advance(SaState::Dying);
        }
        self.policy_sas_changed(id.dst);
        self.tell_expire(id, Limit::Soft);
        self.sadb.rearm(id);
    }

    /// A hard limit is reached: the SA and its partner carry nothing more (reference §4.8).
    fn hard(&mut self, id: &SaId, now: Time) {
        let Some(partner) = self.kill(id, now) else { return };
        self.tell_expire(id, Limit::Hard);
        let Some(partner) = partner else { return };
        // A larval one has no limits to reach: it waits on, alone.
        self.unpair(&partner);
        let outbound = self.sadb.find(&partner).is_some_and(|p| p.flags & super::flag::OUTBOUND != 0);
        if self.kill(&partner, now).is_some() && outbound {
            // The inbound partner of an outbound SA goes without a word of its own.
            self.tell_expire(&partner, Limit::Hard);
        }
    }

    /// Makes an SA dead, takes it out of use and breaks its pair. `None` if that was done before, else its partner.
    fn kill(&mut self, id: &SaId, now: Time) -> Option<Option<SaId>> {
        let record = self.sadb.find_mut(id).filter(|record| record.died.is_none())?;
        record.sa.as_ref()?.die();
        record.died = Some(now);
        let (partner, in_use) = (record.partner(), core::mem::take(&mut record.in_use));
        if in_use {
            self.plane.withdraw(id);
            self.policy_sas_changed(id.dst);
        }
        self.unpair(id);
        self.sadb.rearm(id);
        Some(partner)
    }

    fn tell_expire(&mut self, id: &SaId, limit: Limit) {
        if let Some(record) = self.sadb.find(id) {
            let message = self.describe_expire(record, limit);
            self.sockets.deliver(Hearers::All, message);
        }
    }
}
