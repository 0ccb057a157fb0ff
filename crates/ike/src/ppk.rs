//! Post-quantum preshared keys (RFC 8784): a secret that both sides have is mixed into what Child SAs, later IKE SAs and AUTH
//! are made with, so that whoever breaks the key exchange one day does not read what was recorded today.
//!
//! Who begins says in IKE_SA_INIT that it can (USE_PPK); if the responder can, too, it names one of its keys beside AUTH
//! (PPK_IDENTITY), and AUTH is made with that key mixed in. Who can do without proves itself a second time without it
//! (NO_PPK_AUTH), for a responder that does not have the key. `decide` and `granted` are the two tables of what follows
//! from what; where a connection insists, there is no way without.

use crate::connection::{Connection, Secrets};
use crate::event::Why;
use crate::exchange::notified;
use crate::identity::{Id, IdPattern};
use crate::keys::IkeKeys;
use crate::message::{Message, Notify, NotifyKind, Payload};
use ipsec_core::Secret;

/// PPK_ID_OPAQUE: what the name means, the two sides know. PPK_ID_FIXED: each name is one key's, as both have configured it, and
/// that is what we say (RFC 8784 §5.1). Read, they are the same to us.
const OPAQUE: u8 = 1;
const FIXED: u8 = 2;

/// The longest name of a key.
const MAX_ID: usize = 256;

/// Whether a connection has such a key mixed in, and which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PpkPolicy {
    /// Whether.
    pub need: PpkNeed,
    /// The names of those that may be used, the first of them is offered; none is any that is for these two ends.
    pub ids: Vec<Vec<u8>>,
}

/// Whether a key is mixed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PpkNeed {
    /// It is not.
    #[default]
    Never,
    /// Where both sides have one.
    Propose,
    /// Without one nothing comes up.
    Insist,
}

impl PpkPolicy {
    /// Says whether an IKE SA will do whose keys were mixed with this key, or with none.
    pub(crate) fn admits(&self, used: Option<&[u8]>) -> bool {
        self.need != PpkNeed::Insist || used.is_some_and(|id| self.allows(id))
    }

    fn allows(&self, id: &[u8]) -> bool {
        self.ids.is_empty() || self.ids.iter().any(|known| known == id)
    }
}

/// One such key.
#[derive(Clone, Debug)]
pub struct Ppk {
    /// Its name, which goes over the wire.
    pub id: Vec<u8>,
    /// Whom it is for, like [`crate::connection::Psk::ids`].
    pub ends: Vec<IdPattern>,
    /// The key.
    pub key: Secret,
}

/// The name of a key as people read it.
pub(crate) fn name(id: &[u8]) -> String {
    id.escape_ascii().to_string()
}

/// The key we offer: the first that the connection names and that is for these two ends.
pub(crate) fn ours<'a>(secrets: &'a Secrets, connection: &Connection, peer: &Id) -> Option<&'a Ppk> {
    let policy = &connection.ppk;
    let find = |id: Option<&[u8]>| secrets.ppk(id, &connection.local_id, peer);
    match policy.need {
        PpkNeed::Never => None,
        _ if policy.ids.is_empty() => find(None),
        _ => policy.ids.iter().find_map(|id| find(Some(id))),
    }
}

/// Says whether a connection can use any such key at all: all that a responder knows when it is asked.
pub(crate) fn can(secrets: &Secrets, connection: &Connection) -> bool {
    connection.ppk.need != PpkNeed::Never && !secrets.ppks.is_empty()
}

/// PPK_IDENTITY with the name of a key.
pub(crate) fn identity(id: &[u8]) -> Payload {
    Payload::Notify(Notify::new(NotifyKind::PpkIdentity, [&[FIXED], id].concat()))
}

/// The key that a peer names.
fn named(message: &Message) -> Option<&[u8]> {
    let notify = notified(message, NotifyKind::PpkIdentity)?;
    match notify.data.split_first() {
        Some((&OPAQUE | &FIXED, id)) if !id.is_empty() && id.len() <= MAX_ID => Some(id),
        // A name that cannot be read is one that is not known.
        _ => Some(&[]),
    }
}

/// What the keys of an IKE SA are, as far as such a key goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mix<'a> {
    /// This is mixed in.
    With(&'a Ppk),
    /// The peer named one that is not used here, and this is its proof without.
    Instead(&'a [u8]),
    /// None was named.
    Without,
}

impl Mix<'_> {
    /// Says whether the peer's AUTH is over the same keys, in the same place.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::With(one), Self::With(two)) => one.id == two.id && one.key.is_same(&two.key),
            (Self::Instead(_), Self::Instead(_)) | (Self::Without, Self::Without) => true,
            _ => false,
        }
    }

    /// The keys with it.
    pub(crate) fn keys(&self, keys: &IkeKeys) -> IkeKeys {
        let mut keys = keys.clone();
        if let Self::With(ppk) = self {
            keys.mix_ppk(&ppk.key);
        }
        keys
    }

    /// The name of the key that is mixed in.
    pub(crate) fn id(&self) -> Option<Vec<u8>> {
        if let Self::With(ppk) = self { Some(ppk.id.clone()) } else { None }
    }
}

/// What a responder does about the key that the peer names, or names not, in the message that has its AUTH (RFC 8784 §3,
/// table 1). `both` is whether both sides have said in IKE_SA_INIT that they can.
///
/// # Errors
/// The connection is not for a peer without the right key.
pub(crate) fn decide<'a>(
    secrets: &'a Secrets,
    connection: &Connection,
    peer: &Id,
    both: bool,
    message: &'a Message,
) -> Result<Mix<'a>, Why> {
    let policy = &connection.ppk;
    let insists = policy.need == PpkNeed::Insist;
    let Some(id) = named(message).filter(|_| both) else {
        return if insists { Err(Why::NoPpk) } else { Ok(Mix::Without) };
    };
    let usable = policy.need != PpkNeed::Never && policy.allows(id);
    let known = secrets.ppk(Some(id), &connection.local_id, peer).filter(|_| usable);
    let otherwise = notified(message, NotifyKind::NoPpkAuth).filter(|_| !insists);
    match (known, otherwise) {
        (Some(ppk), _) => Ok(Mix::With(ppk)),
        (None, Some(proof)) => Ok(Mix::Instead(&proof.data)),
        (None, None) => Err(Why::UnknownPpk(name(id))),
    }
}

/// A key that we have named to the responder, mixed into the keys there were.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) id: Vec<u8>,
    pub(crate) keys: IkeKeys,
}

/// What an initiator does about the answer: the key it has named is mixed in if the responder says so.
///
/// # Errors
/// The connection insists, and the responder does without.
pub(crate) fn granted<'a>(
    ours: Option<&'a Named>,
    connection: &Connection,
    message: &Message,
) -> Result<Option<&'a Named>, Why> {
    let agreed = ours.filter(|_| named(message).is_some());
    if agreed.is_none() && connection.ppk.need == PpkNeed::Insist { Err(Why::NoPpk) } else { Ok(agreed) }
}
