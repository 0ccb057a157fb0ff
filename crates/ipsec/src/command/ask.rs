//! One PF_KEY request of a command: sent, answered, and the refusal put into words.

use super::Failure;
use crate::keyclient::KeyClient;
use crate::rundir::Rundir;
use ipsec_core::{Protocol, SaId};
use pfkey::{Address, ExtType, Fault, MessageType, Sa, SaType, Writer};

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
    let mut request = client.request(kind, satype);
    write(&mut request);
    client.ask(request).map_err(Failure::new)
}
