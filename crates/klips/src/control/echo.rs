//! A request as it is answered: again, as it was understood, and without its keys (pf_key(7P)).

use pfkey::{Address, Base, ExtType, Extension, Identity, Message, MessageType, Writer};

/// The whole request. `sa` is what an answer says of the SA, if that is not what the request said.
pub(super) fn again(ask: &Message<'_>, sa: Option<pfkey::Sa>, base: &Base) -> Vec<u8> {
    let mut w = Writer::with_capacity(base, 256);
    for extension in ask.extensions() {
        one(&mut w, ask, &extension, sa);
    }
    w.finish().unwrap_or_default()
}

/// One extension.
fn one(w: &mut Writer, ask: &Message<'_>, extension: &Extension<'_>, sa: Option<pfkey::Sa>) {
    let reserves = ask.base.kind() == Some(MessageType::GetSpi);
    match (extension.kind, sa) {
        (ExtType::KeyAuth | ExtType::KeyEncrypt | ExtType::Edump, _) => {}
        // The SA of an answer to GETSPI stands where its range was, and is the only one.
        (ExtType::Sa, _) if reserves => {}
        (ExtType::SpiRange, Some(sa)) if reserves => _ = w.sa(&sa),
        (ExtType::Sa, Some(sa)) => _ = w.sa(&sa),
        (ExtType::AddressSrc, _) => address(w, extension, ask.src),
        (ExtType::AddressDst, _) => address(w, extension, ask.dst),
        (ExtType::AddressInnerSrc, _) => address(w, extension, ask.inner_src),
        (ExtType::AddressInnerDst, _) => address(w, extension, ask.inner_dst),
        (ExtType::AddressNattLoc, _) => address(w, extension, ask.natt_loc),
        (ExtType::AddressNattRem, _) => address(w, extension, ask.natt_rem),
        (ExtType::NewSrc, _) => address(w, extension, ask.new_src),
        (ExtType::NewDst, _) => address(w, extension, ask.new_dst),
        (ExtType::IdentitySrc, _) => identity(w, extension, ask.src_identity),
        (ExtType::IdentityDst, _) => identity(w, extension, ask.dst_identity),
        // It has got its number.
        (ExtType::FlowPolicy, _) => match &ask.flow_policy {
            Some(policy) => _ = w.flow_policy(policy),
            None => _ = w.echo(extension),
        },
        _ => _ = w.echo(extension),
    }
}

/// An address as it was understood, in as much room as it came in.
fn address(w: &mut Writer, came: &Extension<'_>, understood: Option<Address>) {
    match understood {
        Some(address) => w.address_in_place(came.kind, &address, came.octets.len()),
        None => w.echo(came),
    };
}

/// An identity as it came, but for the NUL at its end, which it has got if it had none.
fn identity(w: &mut Writer, came: &Extension<'_>, understood: Option<Identity<'_>>) {
    let ends = came.octets.get(16..).is_none_or(|text| text.is_empty() || text.contains(&0));
    match understood.filter(|_| !ends) {
        Some(identity) => w.identity(came.kind, &identity),
        None => w.echo(came),
    };
}
