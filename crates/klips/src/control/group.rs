//! GROUPSA: SAs that are applied to one packet, one after the other (`ipsec spigrp`).
//!
//! From then on none of them does anything by itself: what policy sends through one of them goes through all, and what comes
//! in must have gone through all. The last word counts: SAs that were grouped otherwise before leave their group, and what
//! remains of that carries nothing until it is grouped again or taken apart. One SA by itself is taken out of its group.
//! With inner addresses the one IP-in-IP SA among them carries packets of that selector only (RFC 4301 §5.2): it may have been
//! added before anybody knew which.

use super::{Control, flag, flows};
use crate::bundle::{BundleError, MOST};
use crate::sa::Sa;
use ipsec_core::{Protocol, SaId, Spi};
use pfkey::{Diagnostic as D, Errno, Fault, Member, Message, SaType};
use std::sync::Arc;

/// What a requester hears of it.
const fn fault(error: BundleError) -> Fault {
    match error {
        BundleError::Number => Fault::invalid(D::BadExtlen),
        BundleError::Unprotected => Fault::errno(Errno::EPROTOTYPE),
        BundleError::Encapsulated => Fault::invalid(D::BadSaflags),
        BundleError::Elsewhere => Fault::invalid(D::BadDst),
    }
}

impl Control {
    /// GROUPSA.
    pub(super) fn group(&mut self, ask: &Message<'_>) -> Result<(), Fault> {
        let (Some(dst), Some(group)) = (ask.dst.and_then(|dst| dst.ip()), ask.group) else {
            return Err(Fault::invalid(D::BadExtlen));
        };
        let name = |Member { satype, spi }| {
            let protocol = match SaType::from_number(satype) {
                Some(SaType::Ah) => Protocol::Ah,
                Some(SaType::Esp) => Protocol::Esp,
                Some(SaType::Ipip) => Protocol::Ipip,
                Some(SaType::Ipcomp) => Protocol::Ipcomp,
                Some(SaType::Unspec) => return Err(Fault::invalid(D::SatypeNeeded)),
                None => return Err(Fault::invalid(D::UnknownSatype)),
            };
            Ok(SaId { dst, protocol, spi: Spi(spi) })
        };
        let ids: Vec<SaId> =
            group.members().take(MOST.saturating_add(1)).map(name).collect::<Result<_, _>>()?;
        let twice = ids
            .iter()
            .enumerate()
            .any(|(n, id)| ids.iter().skip(n.saturating_add(1)).any(|other| other == id));
        if ids.len() > MOST || twice {
            return Err(Fault::invalid(D::BadExtlen));
        }
        let selector = ask.inner_src.is_some().then(|| flows::selector(ask)).transpose()?;
        let tunnels = ids.iter().filter(|id| id.protocol == Protocol::Ipip).count();
        if selector.is_some() && tunnels != 1 {
            return Err(Fault { errno: Errno::ENOENT, diagnostic: D::SaNotfound });
        }
        let mut sas = Vec::new();
        let mut direction = None;
        for id in &ids {
            let record = self.sadb.find(id).filter(|record| record.died.is_none());
            let missing = Fault { errno: Errno::ESRCH, diagnostic: D::SaNotfound };
            let record = record.ok_or(missing)?;
            let sa = record.sa.as_ref().ok_or(Fault::invalid(D::BadSastate))?;
            // Encryption without integrity is never used (RFC 4303 §3.2), not even inside of AH.
            if id.protocol == Protocol::Esp && !sa.suite.has_integrity() {
                return Err(Fault::invalid(D::BadAalg));
            }
            if *direction.get_or_insert(record.flags & flag::BOTH) != record.flags & flag::BOTH {
                return Err(Fault::invalid(D::BadSaflags));
            }
            // Another object of the same life: whoever remembers the SA as it was looks again.
            sas.push(Arc::new(match selector.filter(|_| id.protocol == Protocol::Ipip) {
                Some(selector) => sa.narrowed(selector),
                None => sa.again(),
            }));
        }
        let grouped = ids.len() > 1;
        let in_use = if grouped {
            self.plane.publish_group(sas.iter().map(Arc::clone)).map_err(fault)?;
            true
        } else {
            sas.iter().all(|sa| self.plane.publish_alone(Arc::clone(sa)))
        };
        self.leave_groups(&ids);
        let group: Option<Arc<[SaId]>> = grouped.then(|| ids.as_slice().into());
        for (id, sa) in ids.iter().zip(sas) {
            self.regroup(id, sa, group.clone(), in_use);
        }
        // Policy that has them go one after the other has to know them as they are now.
        self.policy_sas_changed(dst);
        Ok(())
    }

    fn regroup(&mut self, id: &SaId, sa: Arc<Sa>, group: Option<Arc<[SaId]>>, in_use: bool) {
        let Some(record) = self.sadb.find_mut(id) else { return };
        record.sa = Some(sa);
        record.in_use = in_use;
        record.extras.get_or_insert_default().group = group;
    }

    /// Whoever shared a group with one of these is in none any more.
    fn leave_groups(&mut self, ids: &[SaId]) {
        let groups: Vec<Arc<[SaId]>> =
            ids.iter().filter_map(|id| self.sadb.find(id)?.extras()?.group.clone()).collect();
        for other in groups.iter().flat_map(|group| group.iter()).filter(|other| !ids.contains(other)) {
            if let Some(extras) = self.sadb.find_mut(other).and_then(|record| record.extras.as_deref_mut()) {
                extras.group = None;
            }
        }
    }
}
