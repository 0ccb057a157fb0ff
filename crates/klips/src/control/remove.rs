//! DELETE, DELPAIR, purge and FLUSH.

use super::{Control, protocol};
use crate::sa::SaState;
use crate::sadb::Record;
use core::net::IpAddr;
use ipsec_core::{Protocol, SaId};
use pfkey::{Address, Diagnostic as D, Errno, Fault, Identity, Message};

impl Control {
    /// The SA a request is about, whatever its state: SPI and destination name it, a source must fit if given.
    pub(super) fn named(&self, ask: &Message<'_>) -> Result<SaId, Fault> {
        let dst = ask.dst.as_ref().and_then(|dst| dst.socket).ok_or(Fault::invalid(D::MissingDst))?;
        let (Some(sa), Some(protocol)) = (ask.sa, protocol(ask)) else {
            return Err(Fault::invalid(D::MissingSa));
        };
        let id = SaId { dst: dst.ip(), protocol, spi: ipsec_core::Spi(sa.spi) };
        let missing = Fault { errno: Errno::ESRCH, diagnostic: D::SaNotfound };
        let record = self.sadb.find(&id).ok_or(missing)?;
        let src = ask.src.as_ref().and_then(|src| src.socket).map(|src| src.ip());
        let fits = |src: IpAddr| src == record.src || src.is_unspecified() || record.src.is_unspecified();
        if src.is_none_or(fits) { Ok(id) } else { Err(missing) }
    }

    /// DELETE of one SA; its partner goes on alone.
    pub(super) fn delete(&mut self, ask: &Message<'_>) -> Result<Box<Record>, Fault> {
        let id = self.named(ask)?;
        self.take_out(&id).ok_or(Fault { errno: Errno::ESRCH, diagnostic: D::SaNotfound })
    }

    /// DELPAIR: the SA and its partner. An SA without one is deleted all the same before that is complained about.
    pub(super) fn delete_pair(&mut self, ask: &Message<'_>) -> Result<Box<Record>, Fault> {
        let id = self.named(ask)?;
        let gone = self.take_out(&id).ok_or(Fault { errno: Errno::ESRCH, diagnostic: D::SaNotfound })?;
        let partner = gone.partner().ok_or(Fault { errno: Errno::ESRCH, diagnostic: D::PairSaNotfound })?;
        self.take_out(&partner);
        Ok(gone)
    }

    /// DELETE without an SA: every SA that is not larval and has all that is asked for.
    pub(super) fn purge(&mut self, ask: &Message<'_>) -> Result<(), Fault> {
        let ip = |address: &Option<Address>| address.as_ref().and_then(Address::ip);
        let (src, dst) = (ip(&ask.src), ip(&ask.dst));
        let (Some(family), Some(protocol)) = (dst.or(src), protocol(ask)) else {
            return Err(Fault::invalid(D::MissingSa));
        };
        let identity = |asked: &Option<Identity<'_>>, has: Option<&crate::sadb::Identity>| {
            asked
                .as_ref()
                .is_none_or(|asked| has.is_some_and(|has| has.kind == asked.kind && *has.text == *asked.text))
        };
        let number = |asked: u64, has: u64| asked == 0 || has == 0 || asked == has;
        let km = ask.km_cookie.unwrap_or_default();
        let doomed: Vec<SaId> = self
            .sadb
            .of(protocol)
            .filter(|record| {
                record.state() != SaState::Larval
                    && record.id.dst.is_ipv4() == family.is_ipv4()
                    && src.is_none_or(|src| src == record.src)
                    && dst.is_none_or(|dst| dst == record.id.dst)
                    && number(u64::from(km.proto), u64::from(record.km.proto))
                    && number(km.cookie, record.km.cookie)
                    && identity(&ask.src_identity, record.extras().and_then(|e| e.src_identity.as_ref()))
                    && identity(&ask.dst_identity, record.extras().and_then(|e| e.dst_identity.as_ref()))
            })
            .map(|record| record.id)
            .collect();
        for id in doomed {
            self.take_out(&id);
        }
        Ok(())
    }

    /// FLUSH of one protocol, or of all.
    pub(super) fn flush(&mut self, protocol: Option<Protocol>) {
        let plane = &self.plane;
        self.sadb.clear(protocol, |record| {
            match &record.sa {
                Some(sa) => _ = sa.die(),
                None => plane.end_larva(&record.id),
            }
            if record.in_use {
                plane.withdraw(&record.id);
            }
        });
        let sadb = &self.sadb;
        self.dummies.retain(|id| sadb.find(id).is_some());
        self.policy_all_changed();
    }

    /// Takes an SA out of the SADB and, at once, out of use. Whoever was its partner goes on alone.
    pub(super) fn take_out(&mut self, id: &SaId) -> Option<Box<Record>> {
        let record = self.sadb.remove(id)?;
        self.dummies.forget(id);
        match &record.sa {
            Some(sa) => _ = sa.die(),
            None => self.plane.end_larva(id),
        }
        if record.in_use {
            self.plane.withdraw(id);
            self.policy_sas_changed(id.dst);
        }
        if let Some(partner) = record.partner() {
            self.unpair(&partner);
        }
        Some(record)
    }
}
