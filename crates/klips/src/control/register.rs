//! REGISTER, plain and extended: who is asked for SAs, and with which algorithms they may answer.

use super::view::{self, ALGORITHM_ENCRYPT};
use super::{Control, Hearers, address};
use crate::keysock::SocketId;
use pfkey::{Algorithm, Base, Diagnostic as D, Errno, ExtType, Fault, Message, SaType, Writer, rules};

impl Control {
    /// REGISTER. It answers by itself, because an extended one has several answers.
    pub(super) fn register(&mut self, from: SocketId, ask: &mut Message<'_>) -> Result<(), Fault> {
        let number = ask.base.satype_number;
        if number == SaType::Unspec.number() {
            return self.register_extended(from, ask);
        }
        if self.sockets.get(from).is_some_and(|socket| socket.extended) {
            return Err(Fault::errno(Errno::EBUSY));
        }
        let satype = SaType::from_number(number).ok_or(Fault::invalid(D::UnknownSatype))?;
        address::fix(ask, &self.locals)?;
        rules::possible(ask, satype)?;
        self.registered(from, &ask.base, satype);
        Ok(())
    }

    /// The extended form: several SA types at once, none of them registered before.
    fn register_extended(&mut self, from: SocketId, ask: &Message<'_>) -> Result<(), Fault> {
        let socket = self.sockets.get_mut(from).ok_or(Fault::errno(Errno::EINVAL))?;
        if socket.extended || socket.registered != 0 {
            return Err(Fault::errno(Errno::EBUSY));
        }
        // A list without SA types is none: it would have no answer.
        let satypes =
            ask.ereg.filter(|satypes| !satypes.is_empty()).ok_or(Fault::invalid(D::SatypeNeeded))?;
        socket.extended = true;
        for number in satypes {
            match SaType::from_number(*number).filter(|satype| *satype != SaType::Unspec) {
                Some(satype) => self.registered(from, &ask.base, satype),
                // The others go on.
                None => self.refuse(from, &ask.base, Fault::invalid(D::UnknownSatype)),
            }
        }
        Ok(())
    }

    /// Registers a socket and says what is supported.
    fn registered(&mut self, from: SocketId, base: &Base, satype: SaType) {
        if let Some(socket) = self.sockets.get_mut(from) {
            socket.register(satype.number());
        }
        let base = Base { satype_number: satype.number(), errno: Errno(0), diagnostic: 0, ..*base };
        let mut w = Writer::new(&base);
        let all = view::supported(satype.number());
        for kind in [ExtType::SupportedAuth, ExtType::SupportedEncrypt] {
            let list: Vec<Algorithm> = all
                .iter()
                .filter(|s| (s.exttype == ALGORITHM_ENCRYPT) == (kind == ExtType::SupportedEncrypt))
                .map(|s| Algorithm {
                    id: s.id,
                    iv: s.ivlen,
                    min_bits: s.minbits,
                    max_bits: s.maxbits,
                    increment: s.increment,
                    salt_bits: s.saltbits,
                })
                .collect();
            if !list.is_empty() {
                w.supported(kind, &list);
            }
        }
        if let Ok(message) = w.finish() {
            self.sockets.deliver(Hearers::SenderAndPlain(from, satype.number()), message);
        }
    }
}
