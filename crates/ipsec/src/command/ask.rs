//! One PF_KEY request of a command: sent, answered, and the refusal put into words.

use super::Failure;
use crate::keyclient::KeyClient;
use crate::rundir::Rundir;
use ipsec_core::{Protocol, SaId};
use pfkey::{
    Address, Base, Diagnostic, Errno, ExtType, Fault, Message, MessageType, Sa, SaType, TooLong, Writer,
};
use zeroize::Zeroizing;

/// The SA type of a protocol.
pub(super) const fn satype(protocol: Protocol) -> SaType {
    match protocol {
        Protocol::Ah => SaType::Ah,
        Protocol::Esp => SaType::Esp,
        Protocol::Ipip => SaType::Ipip,
        Protocol::Ipcomp => SaType::Ipcomp,
    }
}

/// Names an SA in a message.
pub(super) fn name(writer: &mut Writer, id: &SaId) {
    writer.sa(&Sa { spi: id.spi.0, ..Sa::default() });
    writer.address(ExtType::AddressDst, &Address::host(id.dst));
}

/// Builds a request with `write`, sends it and waits for the answer; the daemon's refusal comes back as a [`Fault`].
pub(super) fn ask(
    kind: MessageType,
    satype: SaType,
    write: impl FnOnce(&mut Writer),
) -> Result<Result<(), Fault>, Failure> {
    let mut client = KeyClient::connect(&Rundir::from_env()).map_err(Failure::new)?;
    let base = Base::request(kind, satype, client.next_seq(), std::process::id());
    let record =
        build(&base, write).map_err(|_| Failure::new("the request does not fit a PF_KEY message"))?;
    let answer = Zeroizing::new(client.exchange(&record).map_err(Failure::new)?);
    let base =
        answer.first_chunk().map(Base::parse).ok_or_else(|| Failure::new("klips sent half a message"))?;
    if base.errno == Errno(0) {
        return Ok(Message::parse_answer(&answer).map(drop));
    }
    let diagnostic = Diagnostic::from_number(base.diagnostic).unwrap_or(Diagnostic::None);
    Ok(Err(Fault { errno: base.errno, diagnostic }))
}

/// A request as octets; there may be keys in it.
pub(super) fn build(base: &Base, write: impl FnOnce(&mut Writer)) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    let mut writer = Writer::with_capacity(base, 1024);
    write(&mut writer);
    writer.finish().map(Zeroizing::new)
}
