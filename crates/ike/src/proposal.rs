//! Proposals as data: what is offered, what is chosen (RFC 7296 §2.7, §3.3; RFC 9370 §2.2.1).

use crate::wire::{Malformed, Reader, Writer};
use ipsec_core::algorithm::{Auth, Encryption};
use ipsec_core::kex::Group;
use ipsec_core::prf::Prf;

/// What a proposal or a notification is about (RFC 7296 §3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// IKE, 1.
    Ike,
    /// AH, 2.
    Ah,
    /// ESP, 3.
    Esp,
}

impl Protocol {
    /// Its number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Ike => 1,
            Self::Ah => 2,
            Self::Esp => 3,
        }
    }

    /// The protocol with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ike),
            2 => Some(Self::Ah),
            3 => Some(Self::Esp),
            _ => None,
        }
    }
}

/// One transform: a type, a number, and a key length where the cipher has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transform {
    /// What it is for.
    pub kind: Kind,
    /// Its number within its kind.
    pub number: u16,
    /// Bits of key, where the transform has more than one length.
    pub key_bits: Option<u16>,
}

/// Transform types (RFC 7296 §3.3.2, RFC 9370 §4.1), in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Encryption, 1.
    Encryption,
    /// Pseudorandom function, 2.
    Prf,
    /// Integrity, 3.
    Integrity,
    /// Key exchange, 4.
    KeyExchange,
    /// Extended sequence numbers, 5.
    Esn,
    /// An additional key exchange, 6 to 12, numbered from 1 to 7.
    Additional(u8),
    /// One we do not know.
    Other(u8),
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Encryption => 1,
            Self::Prf => 2,
            Self::Integrity => 3,
            Self::KeyExchange => 4,
            Self::Esn => 5,
            Self::Additional(n) => n.saturating_add(5),
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Encryption,
            2 => Self::Prf,
            3 => Self::Integrity,
            4 => Self::KeyExchange,
            5 => Self::Esn,
            6..=12 => Self::Additional(number.saturating_sub(5)),
            number => Self::Other(number),
        }
    }

    /// What people call it in ipsec.conf and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encryption => "encryption",
            Self::Prf => "PRF",
            Self::Integrity => "integrity",
            Self::KeyExchange => "key exchange",
            Self::Esn => "ESN",
            Self::Additional(_) => "additional key exchange",
            Self::Other(_) => "unknown transform",
        }
    }
}

/// One proposal: a protocol, an SPI, and the transforms of each kind, one of which is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// From 1, ascending.
    pub number: u8,
    /// What it is for.
    pub protocol: Protocol,
    /// The SPI of the sender: empty in IKE_SA_INIT, 8 octets when an IKE SA is rekeyed, 4 for ESP and AH.
    pub spi: Vec<u8>,
    /// The transforms, in the order of preference within each kind.
    pub transforms: Vec<Transform>,
}

/// Bounds on what is read: more is no peer's need.
const MAX_PROPOSALS: usize = 32;
const MAX_TRANSFORMS: usize = 128;

impl Proposal {
    pub(crate) fn parse_list(octets: &[u8]) -> Result<Vec<Self>, Malformed> {
        let mut r = Reader::new(octets);
        let mut proposals = Vec::new();
        loop {
            let more = r.u8("proposal")?;
            r.u8("proposal")?;
            let length = usize::from(r.u16("length of a proposal")?);
            let body = r.take(length.checked_sub(4).ok_or(Malformed("length of a proposal"))?, "proposal")?;
            // A proposal for a protocol we do not know cannot be chosen, and is passed over.
            if let Some(proposal) = Self::parse(body)? {
                proposals.push(proposal);
            }
            if more == 0 {
                break;
            }
            if more != 2 || proposals.len() >= MAX_PROPOSALS {
                return Err(Malformed("number of proposals"));
            }
        }
        if r.is_empty() { Ok(proposals) } else { Err(Malformed("end of proposals")) }
    }

    fn parse(body: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut r = Reader::new(body);
        let number = r.u8("number of a proposal")?;
        let protocol = Protocol::from_number(r.u8("protocol of a proposal")?);
        let spi = usize::from(r.u8("SPI size of a proposal")?);
        let count = usize::from(r.u8("number of transforms")?);
        let spi = r.take(spi, "SPI of a proposal")?.to_vec();
        if count > MAX_TRANSFORMS {
            return Err(Malformed("number of transforms"));
        }
        let mut transforms = Vec::new();
        for _ in 0..count {
            r.u8("transform")?;
            r.u8("transform")?;
            let length = usize::from(r.u16("length of a transform")?);
            let mut body = Reader::new(
                r.take(length.checked_sub(4).ok_or(Malformed("length of a transform"))?, "transform")?,
            );
            let kind = Kind::from_number(body.u8("transform type")?);
            body.u8("transform type")?;
            let id = body.u16("transform number")?;
            let mut key_bits = None;
            let mut understood = true;
            while !body.is_empty() {
                let attribute = body.u16("transform attribute")?;
                let value = body.u16("transform attribute")?;
                match attribute {
                    0x800e => key_bits = Some(value),
                    // An attribute with a length of its own, and any that we do not know: the transform cannot be chosen
                    // (RFC 7296 §3.3.6).
                    long if long & 0x8000 == 0 => {
                        body.take(usize::from(value), "transform attribute")?;
                        understood = false;
                    }
                    _ => understood = false,
                }
            }
            if understood {
                transforms.push(Transform { kind, number: id, key_bits });
            }
        }
        if !r.is_empty() {
            return Err(Malformed("number of transforms"));
        }
        Ok(protocol.map(|protocol| Self { number, protocol, spi, transforms }))
    }

    pub(crate) fn emit_list(proposals: &[Self], w: &mut Writer) {
        let last = proposals.len().saturating_sub(1);
        for (n, proposal) in proposals.iter().enumerate() {
            w.u8(if n == last { 0 } else { 2 });
            w.u8(0);
            w.counted(4, |w| {
                w.u8(proposal.number);
                w.u8(proposal.protocol.number());
                w.u8(u8::try_from(proposal.spi.len()).unwrap_or(u8::MAX));
                w.u8(u8::try_from(proposal.transforms.len()).unwrap_or(u8::MAX));
                w.put(&proposal.spi);
                let last = proposal.transforms.len().saturating_sub(1);
                for (n, transform) in proposal.transforms.iter().enumerate() {
                    w.u8(if n == last { 0 } else { 3 });
                    w.u8(0);
                    w.counted(4, |w| {
                        w.u8(transform.kind.number());
                        w.u8(0);
                        w.u16(transform.number);
                        if let Some(bits) = transform.key_bits {
                            w.u16(0x800e);
                            w.u16(bits);
                        }
                    });
                }
            });
        }
    }

    /// The transforms of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Transform> {
        self.transforms.iter().filter(move |transform| transform.kind == kind)
    }
}

/// The algorithms of one configured proposal: every kind with its alternatives, in the order of preference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Ciphers with bits of key; 0 bits for a cipher with one length.
    pub encryption: Vec<(Encryption, u16)>,
    /// Integrity algorithms; empty beside combined-mode ciphers.
    pub integrity: Vec<Auth>,
    /// Pseudorandom functions; empty for ESP and AH.
    pub prf: Vec<Prf>,
    /// Key exchange methods; empty for a Child SA without PFS.
    pub groups: Vec<Group>,
    /// Additional key exchanges, first to seventh; `None` among them lets the peer go without (RFC 9370 §2.2.1).
    pub additional: Vec<Vec<Option<Group>>>,
    /// Extended sequence numbers; empty for IKE.
    pub esn: Vec<bool>,
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The number of the proposal.
    pub number: u8,
    /// The cipher, and its bits of key (0 if it has one length); `None` for AH.
    pub encryption: Option<(Encryption, u16)>,
    /// The integrity algorithm.
    pub integrity: Option<Auth>,
    /// The pseudorandom function; `None` for ESP and AH.
    pub prf: Option<Prf>,
    /// The key exchange method; `None` for a Child SA without PFS.
    pub group: Option<Group>,
    /// Additional key exchanges, in order.
    pub additional: Vec<Group>,
    /// Extended sequence numbers.
    pub esn: bool,
    /// The sender's SPI.
    pub spi: Vec<u8>,
}

impl Chosen {
    /// Octets of cipher key, salt included.
    pub fn encryption_octets(&self) -> usize {
        self.encryption.map_or(0, |(encryption, bits)| {
            let row = encryption.row();
            let bits = if bits == 0 { row.max_bits } else { bits };
            usize::from(bits / 8).saturating_add(row.salt())
        })
    }

    /// Octets of integrity key.
    pub fn integrity_octets(&self) -> usize {
        self.integrity
            .map_or(0, |auth| usize::from(auth.row().max_bits / 8).saturating_add(auth.row().salt()))
    }

    /// The one proposal that says what was chosen, under the SPI of the one who chose.
    pub fn proposal(&self, protocol: Protocol, spi: Vec<u8>) -> Proposal {
        let offer = Offer {
            encryption: self.encryption.into_iter().collect(),
            integrity: self.integrity.into_iter().collect(),
            prf: self.prf.into_iter().collect(),
            groups: self.group.into_iter().collect(),
            additional: self.additional.iter().map(|group| vec![Some(*group)]).collect(),
            esn: if protocol == Protocol::Ike { Vec::new() } else { vec![self.esn] },
        };
        Proposal { number: self.number, ..offer.proposal(self.number, protocol, spi) }
    }
}

impl Offer {
    /// The proposal that offers this.
    pub fn proposal(&self, number: u8, protocol: Protocol, spi: Vec<u8>) -> Proposal {
        let mut transforms = Vec::new();
        let mut push = |kind, number, key_bits| transforms.push(Transform { kind, number, key_bits });
        for (encryption, bits) in &self.encryption {
            let bits = encryption.has_key_lengths().then_some(*bits);
            push(Kind::Encryption, encryption.transform_number(), bits);
        }
        self.prf.iter().for_each(|prf| push(Kind::Prf, prf.number(), None));
        for auth in &self.integrity {
            push(Kind::Integrity, auth.transform_number(auth.row().max_bits as usize / 8), None);
        }
        self.groups.iter().for_each(|group| push(Kind::KeyExchange, group.number(), None));
        for (n, groups) in (1..=7).zip(&self.additional) {
            for group in groups {
                push(Kind::Additional(n), group.map_or(0, Group::number), None);
            }
        }
        self.esn.iter().for_each(|esn| push(Kind::Esn, u16::from(*esn), None));
        Proposal { number, protocol, spi, transforms }
    }

    /// Chooses from what a peer proposes: one transform of each kind, our preference first. `None` if the two do not
    /// meet.
    pub fn choose(&self, theirs: &Proposal) -> Option<Chosen> {
        self.meet(theirs).ok()
    }

    /// Chooses, or says where the two do not meet.
    ///
    /// # Errors
    /// The kinds of transform in which nothing is common.
    pub fn meet(&self, theirs: &Proposal) -> Result<Chosen, Vec<Kind>> {
        let mut missing = Vec::new();
        let has = |kind: Kind, number: u16, bits: Option<u16>| {
            theirs.transforms.iter().any(|t| t.kind == kind && t.number == number && t.key_bits == bits)
        };
        let offered = |kind: Kind| theirs.of(kind).next().is_some();
        let encryption = self.encryption.iter().copied().find(|(encryption, bits)| {
            has(
                Kind::Encryption,
                encryption.transform_number(),
                encryption.has_key_lengths().then_some(*bits),
            )
        });
        if encryption.is_none() && (!self.encryption.is_empty() || offered(Kind::Encryption)) {
            missing.push(Kind::Encryption);
        }
        let prf = self.prf.iter().copied().find(|prf| has(Kind::Prf, prf.number(), None));
        if prf.is_none() && (!self.prf.is_empty() || offered(Kind::Prf)) {
            missing.push(Kind::Prf);
        }
        // Beside a combined-mode cipher integrity is absent, or said to be none (RFC 7296 §3.3.3, RFC 5282 §8).
        let combined = encryption.is_some_and(|(encryption, _)| encryption.is_combined());
        let integrity = if combined {
            None
        } else {
            self.integrity.iter().copied().find(|auth| {
                has(Kind::Integrity, auth.transform_number(auth.row().max_bits as usize / 8), None)
            })
        };
        let none = !offered(Kind::Integrity) || has(Kind::Integrity, 0, None);
        if if combined { !none } else { integrity.is_none() } {
            missing.push(Kind::Integrity);
        }
        let group = self.groups.iter().copied().find(|group| has(Kind::KeyExchange, group.number(), None));
        let no_group = !offered(Kind::KeyExchange) || has(Kind::KeyExchange, 0, None);
        if group.is_none() && !(self.groups.is_empty() && no_group) {
            missing.push(Kind::KeyExchange);
        }
        let mut additional = Vec::new();
        for n in 1..=7 {
            let kind = Kind::Additional(n);
            let ours = self.additional.get(usize::from(n).saturating_sub(1)).map_or(&[][..], Vec::as_slice);
            let chosen = ours.iter().find(|group| match group {
                Some(group) => has(kind, group.number(), None) && !additional.contains(group),
                None => !offered(kind) || has(kind, 0, None),
            });
            match chosen {
                Some(Some(group)) => additional.push(*group),
                Some(None) => {}
                None if ours.is_empty() && (!offered(kind) || has(kind, 0, None)) => {}
                None => missing.push(kind),
            }
        }
        // A peer that does not mention ESN means none, though the transform is not optional (RFC 7296 §3.3.3).
        let esn = self
            .esn
            .iter()
            .copied()
            .find(|esn| has(Kind::Esn, u16::from(*esn), None) || (!*esn && !offered(Kind::Esn)));
        if esn.is_none() && !self.esn.is_empty() {
            missing.push(Kind::Esn);
        }
        if theirs.transforms.iter().any(|t| matches!(t.kind, Kind::Other(_))) {
            missing.push(Kind::Other(0));
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        let (number, spi) = (theirs.number, theirs.spi.clone());
        let esn = esn.unwrap_or(false);
        Ok(Chosen { number, encryption, integrity, prf, group, additional, esn, spi })
    }

    /// Checks that a response chose from what we offered under this number, exactly one of each kind.
    pub fn confirm(&self, number: u8, theirs: &Proposal) -> Option<Chosen> {
        let once = theirs.transforms.iter().all(|one| theirs.of(one.kind).count() == 1);
        (theirs.number == number && once).then(|| self.choose(theirs)).flatten()
    }
}

/// Proposals for a list of offers, numbered from 1 under one SPI.
pub fn proposals(offers: &[Offer], protocol: Protocol, spi: &[u8]) -> Vec<Proposal> {
    (1..=u8::MAX).zip(offers).map(|(number, offer)| offer.proposal(number, protocol, spi.to_vec())).collect()
}

/// The first of a peer's proposals that any of our offers meets; among offers the order is ours.
///
/// # Errors
/// For each pair, the kinds in which it does not meet, the nearest pair first.
pub fn choose(
    offers: &[Offer],
    theirs: &[Proposal],
    protocol: Protocol,
) -> Result<(usize, Chosen), Vec<Kind>> {
    let mut nearest: Option<Vec<Kind>> = None;
    for (n, offer) in offers.iter().enumerate() {
        for proposal in theirs.iter().filter(|proposal| proposal.protocol == protocol) {
            match offer.meet(proposal) {
                Ok(chosen) => return Ok((n, chosen)),
                Err(kinds) if nearest.as_ref().is_none_or(|known| kinds.len() < known.len()) => {
                    nearest = Some(kinds);
                }
                Err(_) => {}
            }
        }
    }
    Err(nearest.unwrap_or_default())
}

/// The longest text of a list of proposals: a stranger may send thirty-two of a hundred transforms each, and it is logged.
const MAX_TEXT: usize = 512;

/// Proposals as people read them, as many as a line has room for.
pub(crate) fn text(list: &[Proposal]) -> String {
    let mut text = String::new();
    for (n, proposal) in list.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        text.push_str(&format!("{comma}{proposal}"));
        if text.len() > MAX_TEXT {
            return text.chars().take(MAX_TEXT).chain("...".chars()).collect();
        }
    }
    text
}

impl core::fmt::Display for Proposal {
    /// As people write proposals in ipsec.conf: `aes_gcm16_256-prfsha256-x25519`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut last = None;
        for transform in &self.transforms {
            let word = match transform.kind {
                Kind::Encryption => {
                    Encryption::from_transform_number(transform.number).map(|e| e.to_string())
                }
                Kind::Prf => Prf::from_number(transform.number).map(|prf| prf.to_string()),
                Kind::Integrity => Auth::from_transform_number(transform.number).map(|auth| auth.to_string()),
                Kind::KeyExchange => Group::from_number(transform.number).map(|group| group.to_string()),
                Kind::Additional(n) => {
                    Group::from_number(transform.number).map(|group| format!("ke{n}_{group}"))
                }
                Kind::Esn if transform.number == 0 => continue,
                Kind::Esn => Some("esn".to_owned()),
                Kind::Other(_) => None,
            };
            let word = word.unwrap_or_else(|| format!("{}:{}", transform.kind.name(), transform.number));
            let between = match last {
                None => "",
                Some(kind) if kind == transform.kind => "+",
                Some(_) => "-",
            };
            write!(f, "{between}{word}")?;
            if let Some(bits) = transform.key_bits {
                write!(f, "_{bits}")?;
            }
            last = Some(transform.kind);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
