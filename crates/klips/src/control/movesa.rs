//! MOVESA and NEWMAPPING: a peer is reached at, or sends from, another address or port.

use super::class::Class;
use super::{Control, Hearers, describe, flag};
use crate::sa::{Encapsulation, SaState};
use core::net::{IpAddr, SocketAddr};
use ipsec_core::SaId;
use pfkey::{Address, Base, Diagnostic as D, Errno, ExtType, Fault, KmCookie, Message, MessageType, Writer};
use std::sync::Arc;

/// UDP port of encapsulated ESP where none is named (RFC 3948).
const NATT_PORT: u16 = 4500;

/// Where an SA goes on.
#[derive(Clone, Copy)]
struct Ends {
    src: SocketAddr,
    dst: SocketAddr,
    /// NATT_LOC, NATT_REM, or neither: plain ESP.
    natt: u32,
}

impl Ends {
    /// The same for the SA of the other direction.
    const fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, natt: self.natt }
    }
}

impl Control {
    /// MOVESA: the SA and its partner go on between other addresses or ports, or nothing has changed.
    pub(super) fn move_sa(&mut self, ask: &mut Message<'_>) -> Result<(), Fault> {
        let id = self.named(ask)?;
        let Some(record) = self.sadb.find(&id) else { return Err(Fault::invalid(D::SaNotfound)) };
        match record.state() {
            SaState::Larval => return Err(Fault::invalid(D::BadSastate)),
            SaState::Dead => return Err(Fault { errno: Errno::ESRCH, diagnostic: D::SaExpired }),
            SaState::Mature | SaState::Dying => {}
        }
        let natt = ask.sa.map_or(0, |sa| sa.flags) & (flag::NATT_LOC | flag::NATT_REM);
        if ask.new_src.is_none() && ask.new_dst.is_none() {
            return Err(Fault::invalid(D::BadExtlen));
        }
        let end = |new: &mut Option<Address>, old: IpAddr, unknown: D| match new {
            None => Ok(SocketAddr::new(old, 0)),
            Some(new) => {
                let socket = new.socket.ok_or(Fault::invalid(unknown))?;
                let socket = SocketAddr::new(socket.ip().to_canonical(), socket.port());
                new.socket = Some(socket);
                Ok(socket)
            }
        };
        let src = end(&mut ask.new_src, record.src, D::BadSrcAf)?;
        let dst = end(&mut ask.new_dst, id.dst, D::BadDstAf)?;
        if self.locals.class(src.ip()) == Class::Many {
            return Err(Fault::invalid(D::BadSrc));
        }
        // With a partner, or packets the other way, either end is a destination.
        if matches!(self.locals.class(dst.ip()), Class::Unspecified | Class::Many) {
            return Err(Fault::invalid(D::BadDst));
        }
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(Fault::invalid(D::AfMismatch));
        }
        let ends = Ends { src, dst, natt };
        let partner = record.partner().filter(|partner| {
            self.sadb.find(partner).is_some_and(|p| matches!(p.state(), SaState::Mature | SaState::Dying))
        });
        if partner.is_some() && src.ip().is_unspecified() {
            return Err(Fault::invalid(D::BadSrc));
        }
        let moves: Vec<(SaId, Ends)> = [Some((id, ends)), partner.map(|partner| (partner, ends.reversed()))]
            .into_iter()
            .flatten()
            .collect();
        // A name that one of the two leaves is free for the other only if that is the same one.
        let taken = |(old, ends): &(SaId, Ends)| {
            let new = SaId { dst: ends.dst.ip(), ..*old };
            new != *old && self.sadb.find(&new).is_some()
        };
        if moves.iter().any(taken) {
            return Err(Fault::errno(Errno::EEXIST));
        }
        for (old, ends) in moves {
            self.move_one(&old, ends);
        }
        Ok(())
    }

    fn move_one(&mut self, old: &SaId, ends: Ends) {
        let Some(mut record) = self.sadb.remove(old) else { return };
        let port = |end: SocketAddr| if end.port() == 0 { NATT_PORT } else { end.port() };
        let outbound = record.flags & flag::BOTH == flag::OUTBOUND;
        let (here, there) = if outbound { (ends.src, ends.dst) } else { (ends.dst, ends.src) };
        let encapsulation =
            (ends.natt != 0).then(|| Encapsulation { local: port(here), remote: port(there) });
        record.id = SaId { dst: ends.dst.ip(), ..*old };
        record.src = ends.src.ip();
        record.flags = record.flags & !(flag::NATT_LOC | flag::NATT_REM) | ends.natt;
        let extras = record.extras.get_or_insert_default();
        let shown = |end: SocketAddr| encapsulation.map(|_| SocketAddr::new(end.ip(), port(end)));
        (extras.natt_loc, extras.natt_rem, extras.mapping) = (shown(here), shown(there), None);
        if let Some(sa) = &record.sa {
            let sa = Arc::new(sa.moved(record.id, record.src, encapsulation));
            record.sa = Some(Arc::clone(&sa));
            if record.in_use {
                self.plane.move_sa(old, sa);
            }
        }
        let (new, in_use) = (record.id, record.in_use);
        self.dummies.rename(old, new);
        // Its new name was found free.
        let _ = self.sadb.insert(record);
        if in_use {
            self.policy_sa_came(&new);
            self.policy_sas_changed(old.dst);
        }
    }

    /// The newest authentic packet of an inbound SA came from `from`: its key manager is told, once for each other place.
    pub fn new_mapping(&mut self, id: &SaId, from: SocketAddr) {
        let Some(record) = self.sadb.find_mut(id) else { return };
        let Some(sa) = record.sa.as_ref().filter(|sa| sa.is_alive()) else { return };
        let port = sa.encapsulation().map_or(0, |agreed| agreed.remote);
        if SocketAddr::new(record.src, port) != from {
            self.tell_mapping(id, from);
        }
    }

    /// NEWMAPPING, unless it was the last thing told of this SA.
    pub(super) fn tell_mapping(&mut self, id: &SaId, from: SocketAddr) {
        let Some(record) = self.sadb.find_mut(id) else { return };
        if record.extras().is_some_and(|extras| extras.mapping == Some(from)) {
            return;
        }
        record.extras.get_or_insert_default().mapping = Some(from);
        let Some(record) = self.sadb.find(id) else { return };
        let satype = describe::satype(id.protocol);
        let mut w = Writer::new(&Base::request(MessageType::NewMapping, satype, 0, 0));
        w.sa(&self.wire_sa(record, record.state() as u8));
        describe::outer(&mut w, record);
        describe::natt(&mut w, record);
        if record.km != Default::default() {
            w.km_cookie(&KmCookie { proto: record.km.proto, cookie: record.km.cookie });
        }
        w.address(ExtType::NewSrc, &Address { proto: 17, prefix: 0, socket: Some(from) });
        if let Ok(message) = w.finish() {
            self.sockets.deliver(Hearers::Registered(satype.number()), message);
        }
    }
}
