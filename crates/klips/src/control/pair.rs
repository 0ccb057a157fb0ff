//! Pairs: the two SAs of one relation, bound so that they can be changed and deleted as one (pf_key(7P)).
//!
//! Both carry the PAIRED flag and each other's SPI. The partner has the addresses the other way round, so source and SPI
//! name it.

use super::class::Class;
use super::{Control, flag};
use crate::sa::SaState;
use crate::sadb::Record;
use ipsec_core::{SaId, Spi};
use pfkey::{Diagnostic as D, Fault};

impl Control {
    /// Binds an SA to the one with SPI `spi` that goes the other way.
    pub(super) fn pair(&mut self, id: &SaId, spi: u32) -> Result<(), Fault> {
        let inappropriate = Fault::invalid(D::PairInappropriate);
        let Some(one) = self.sadb.find(id) else { return Err(Fault::invalid(D::SaNotfound)) };
        if spi == 0 || spi == id.spi.0 || self.is_cloned(one) || one.src.is_unspecified() {
            return Err(inappropriate);
        }
        let partner = SaId { dst: one.src, protocol: id.protocol, spi: Spi(spi) };
        let Some(other) = self.sadb.find(&partner) else { return Err(inappropriate) };
        // A name reserved by GETSPI is for packets to this host.
        let direction = if other.sa.is_none() { flag::INBOUND } else { other.flags };
        let opposite = (one.flags ^ direction) & flag::BOTH == flag::BOTH;
        let fresh = matches!(other.state(), SaState::Larval | SaState::Mature);
        if other.src != id.dst || !opposite || !fresh || (other.sa.is_some() && self.is_cloned(other)) {
            return Err(inappropriate);
        }
        // A partner bound to this very SA already is no fault: the same message twice must not fail.
        if other.flags & flag::PAIRED != 0 && other.pair != id.spi.0 {
            return Err(Fault::invalid(D::PairAlready));
        }
        let old = one.partner();
        if let Some(old) = old.filter(|old| *old != partner) {
            self.unpair(&old);
        }
        self.bind(id, spi);
        self.bind(&partner, id.spi.0);
        Ok(())
    }

    /// The SA goes on alone.
    pub(super) fn unpair(&mut self, id: &SaId) {
        if let Some(record) = self.sadb.find_mut(id) {
            record.flags &= !flag::PAIRED;
            record.pair = 0;
        }
    }

    fn bind(&mut self, id: &SaId, spi: u32) {
        if let Some(record) = self.sadb.find_mut(id) {
            record.flags |= flag::PAIRED;
            record.pair = spi;
        }
    }

    /// Says whether the SA carries packets both ways: named so, or both ends are this host's.
    fn is_cloned(&self, record: &Record) -> bool {
        let to_itself = || {
            let class = |ip| self.locals.class(ip);
            class(record.id.dst) == Class::Mine
                && matches!(class(record.src), Class::Mine | Class::Unspecified)
        };
        record.flags & flag::BOTH == flag::BOTH || to_itself()
    }
}
