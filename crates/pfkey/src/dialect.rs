//! Dialects: what programs written for another PF_KEY than pf_key(7P) say, translated both ways.
//!
//! RFC 2367 left policy, modes, NAT and most algorithms to the systems, and each numbered them its own way: message 14 adds
//! a policy on one, deletes a pair of SAs on another. So a dialect is chosen by the socket a program connects to, never
//! guessed. What is below is one SADB and one policy, whichever socket speaks to it.
//!
//! A dialect is a pure translation, one [`Translator`] for each socket: a record of the program becomes native requests; a
//! native message for that socket becomes records of the dialect. What a translator remembers between the two is bounded,
//! and what one side cannot say is refused with a [`crate::Diagnostic`] or left out, as the table of the dialect says.

pub mod klips;
pub mod linux;
mod outstanding;
mod parts;
pub mod record;

use crate::{Base, Fault, MessageType};
use zeroize::Zeroizing;

/// A PF_KEY dialect, and so one of our sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// pf_key(7P) with our policy messages: no translation.
    #[default]
    Native,
    /// Linux and KAME: `linux/pfkeyv2.h`.
    Linux,
    /// KLIPS of FreeS/WAN, Openswan and libreswan.
    Klips,
}

impl Dialect {
    /// Every dialect, the native one first.
    pub const ALL: &[Self] = &[Self::Native, Self::Linux, Self::Klips];

    /// Its name, as `ipsec run --dialect` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Linux => "linux",
            Self::Klips => "klips",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|dialect| dialect.name() == name)
    }

    /// The name of its socket in the run directory.
    pub const fn socket(self) -> &'static str {
        match self {
            Self::Native => "pf_key.sock",
            Self::Linux => "pf_key.linux.sock",
            Self::Klips => "pf_key.klips.sock",
        }
    }

    /// What stands between a socket of this dialect and the service; nothing for the native one.
    pub fn translator(self) -> Option<Box<dyn Translator>> {
        match self {
            Self::Native => None,
            Self::Linux => Some(Box::<linux::Linux>::default()),
            Self::Klips => Some(Box::<klips::Klips>::default()),
        }
    }
}

/// Parts of the data plane by their names in klipsdebug(8), and the bits that say what of each is logged.
pub type DebugWords = Vec<(&'static str, u32)>;

/// What is to be done with one record, in this order.
///
/// Records may hold keys, so they are wiped when they have been sent.
#[derive(Default)]
pub struct Turn {
    /// Native requests for the service.
    pub ask: Vec<Zeroizing<Vec<u8>>>,
    /// Records of the dialect for the program.
    pub say: Vec<Zeroizing<Vec<u8>>>,
    /// What the daemon is to log from now on.
    pub debug: Option<DebugWords>,
}

impl core::fmt::Debug for Turn {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Turn({} to ask, {} to say)", self.ask.len(), self.say.len())
    }
}

impl Turn {
    /// One native request.
    pub fn ask(message: Vec<u8>) -> Self {
        Self { ask: vec![Zeroizing::new(message)], ..Self::default() }
    }

    /// One record for the program.
    pub fn say(record: Vec<u8>) -> Self {
        Self { say: vec![Zeroizing::new(record)], ..Self::default() }
    }
}

/// One socket's translation.
///
/// The service answers a request before it is given another, and its answer comes back through [`Translator::notice`] among
/// what else the socket is to hear.
pub trait Translator: Send + Sync {
    /// A record that the program has sent.
    fn request(&mut self, record: &[u8]) -> Turn;

    /// A native message for that program.
    fn notice(&mut self, message: &[u8]) -> Turn;
}

/// A record is translated, or refused in words of the dialect.
fn translated(
    octets: &[u8],
    translate: impl FnOnce(&[u8]) -> Result<Turn, Fault>,
    refusal: fn(&Base, Fault) -> Vec<u8>,
) -> Turn {
    // The shim's own message, about the socket and not about SAs.
    if octets.get(1) == Some(&MessageType::Socket.number()) {
        return Turn::ask(octets.to_vec());
    }
    translate(octets).unwrap_or_else(|fault| Turn::say(refusal(&record::base(octets), fault)))
}

/// A message that is its header alone.
fn header(base: &Base) -> Vec<u8> {
    Base { words: 2, ..*base }.octets().to_vec()
}
