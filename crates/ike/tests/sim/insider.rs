//! Somebody who holds SK_* of an IKE SA, as everybody does who has done IKE_SA_INIT, and says in it what nobody honest would.

use super::world::World;
use ike::message::{Exchange, Flags, Header, Message, Payload};
use ike::protect::{Opener, Opening, Sealer};
use ike::tape::{Entry, Keys, Tape};
use ipsec_core::transform::SkCipher;
use std::sync::{Arc, Mutex};

/// The keys that a host has made last.
#[derive(Clone, Default)]
pub(crate) struct KeysOf(Arc<Mutex<Option<Keys>>>);

impl Tape for KeysOf {
    fn take(&mut self, entry: &Entry) {
        if let Entry::Keys(keys) = entry {
            *self.0.lock().unwrap() = Some((**keys).clone());
        }
    }
}

/// Both directions of one IKE SA: the initiator's, the responder's.
pub(crate) struct Insider {
    keys: Keys,
    sealers: [Sealer; 2],
    openers: [Opener; 2],
}

impl Insider {
    /// With the keys a host has made last; `None` while it has none.
    pub(crate) fn new(known: &KeysOf) -> Option<Self> {
        let keys = known.0.lock().unwrap().clone()?;
        let cipher = |role: usize| {
            let (encryption, _) = keys.cipher.expect("a cipher");
            let mac = keys.mac.map(|mac| (mac, &*keys.integrity[role]));
            SkCipher::new(encryption, &keys.encryption[role], mac).unwrap()
        };
        // Far from where the two themselves count their IVs.
        let sealers = [0, 1].map(|role| Sealer::new(cipher(role), 1 << 40));
        let openers = [0, 1].map(|role| Opener::new(cipher(role)));
        Some(Self { sealers, openers, keys })
    }

    /// A message as the initiator (0) or the responder (1) would send it.
    pub(crate) fn says(
        &mut self,
        role: usize,
        (exchange, response, id): (Exchange, bool, u32),
        payloads: Vec<Payload>,
    ) -> Vec<u8> {
        let (spi_i, spi_r) = self.keys.spis;
        let flags = Flags { initiator: role == 0, response };
        let message = Message { header: Header { spi_i, spi_r, exchange, flags, id }, payloads };
        let sealed = self.sealers[role].seal(&message, None, &mut |octets| octets.fill(9));
        sealed.unwrap().remove(0)
    }

    /// What one of the two has sent; `None` for a fragment while others are missing.
    pub(crate) fn reads(&mut self, role: usize, octets: &[u8]) -> Option<Message> {
        match self.openers[role].open(octets, true) {
            Opening::Message(opened) => Some(opened.message),
            Opening::Fragment => None,
            other => panic!("{other:?}"),
        }
    }
}

/// Changes the oldest message that is on its way from the initiator (0) or the responder (1), and delivers it.
pub(crate) fn changes(world: &mut World, side: usize, change: impl FnOnce(&mut Message)) {
    let mut insider = Insider::new(&world.hosts[1].keys).expect("keys");
    let mut message = insider.reads(side, world.oldest(side)).expect("a message in one piece");
    change(&mut message);
    let Header { exchange, flags, id, .. } = message.header;
    let forged = insider.says(side, (exchange, flags.response, id), message.payloads);
    world.lose(side);
    world.inject(1 - side, &forged);
}
