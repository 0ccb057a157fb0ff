//! What pf_key(7P) says about each message, as one table: what it needs, what its reply keeps, who hears it.
//!
//! Checks of *content* (is the key long enough, is the state right) are the SADB's; checks of *shape* are here and are
//! made nowhere else. That keys leave only in the answers to GET and DUMP is a column of this table.

use crate::{Diagnostic, ExtType, Fault, Message, MessageType, SaType};

/// Who hears a message. Promiscuous sockets hear all of them; a socket with loopback off hears none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The socket that asked.
    Sender,
    /// Every socket.
    Everyone,
    /// The socket that asked and those registered for the SA type.
    Registered,
    /// Nobody: there is no such message.
    Nobody,
}

/// What the answer to a successful message is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The request again, without keys.
    Echo,
    /// The base header alone.
    Base,
    /// All that is known of the SA, keys included.
    Whole,
    /// All that is known of the SA but its keys.
    WholeWithoutKeys,
    /// Something of its own.
    Own,
    /// No answer at all.
    Nothing,
}

/// Which SA types a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// One that has a database.
    Type,
    /// One that has a database, or 0 for all of them.
    TypeOrAll,
    /// Any: it is not looked at, or the message does so itself.
    Anything,
}

/// What is known of one message type.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The message.
    pub kind: MessageType,
    /// The SA types it takes.
    pub satype: Needs,
    /// Extensions it cannot do without, in the order they are missed, and how each is missed.
    pub required: &'static [(ExtType, Diagnostic)],
    /// What the answer keeps.
    pub reply: Reply,
    /// Who hears the answer.
    pub success: Audience,
    /// Who hears that it was refused.
    pub failure: Audience,
}

const SRC: (ExtType, Diagnostic) = (ExtType::AddressSrc, Diagnostic::MissingSrc);
const DST: (ExtType, Diagnostic) = (ExtType::AddressDst, Diagnostic::MissingDst);
const SA: (ExtType, Diagnostic) = (ExtType::Sa, Diagnostic::MissingSa);
const RANGE: (ExtType, Diagnostic) = (ExtType::SpiRange, Diagnostic::MissingRange);
const INNER_SRC: (ExtType, Diagnostic) = (ExtType::AddressInnerSrc, Diagnostic::MissingInnerSrc);
const INNER_DST: (ExtType, Diagnostic) = (ExtType::AddressInnerDst, Diagnostic::MissingInnerDst);
const GROUP: (ExtType, Diagnostic) = (ExtType::Group, Diagnostic::BadExtlen);
const FLOW: (ExtType, Diagnostic) = (ExtType::Flow, Diagnostic::BadExtlen);
const POLICY: (ExtType, Diagnostic) = (ExtType::FlowPolicy, Diagnostic::BadExtlen);
const OPTIONS: (ExtType, Diagnostic) = (ExtType::SocketOptions, Diagnostic::BadExtlen);

/// The table.
pub const RULES: &[Rule] = {
    use Audience::{Everyone, Nobody, Registered, Sender};
    use MessageType as M;
    use Needs::{Anything, Type, TypeOrAll};
    use Reply::{Base, Echo, Nothing, Own, Whole, WholeWithoutKeys};
    const fn rule(
        kind: MessageType,
        satype: Needs,
        required: &'static [(ExtType, Diagnostic)],
        reply: Reply,
        success: Audience,
        failure: Audience,
    ) -> Rule {
        Rule { kind, satype, required, reply, success, failure }
    }
    &[
        rule(M::GetSpi, Type, &[SRC, DST, RANGE], Own, Everyone, Everyone),
        rule(M::Update, Type, &[DST, SRC, SA], Echo, Everyone, Everyone),
        rule(M::Add, Type, &[SRC, DST, SA], Echo, Everyone, Everyone),
        // Without an SA extension DELETE purges what its addresses match; that is for the SADB to see.
        rule(M::Delete, Type, &[], WholeWithoutKeys, Everyone, Everyone),
        rule(M::Get, Type, &[DST, SA], Whole, Sender, Sender),
        rule(M::Acquire, Anything, &[], Nothing, Nobody, Sender),
        rule(M::Register, TypeOrAll, &[], Own, Registered, Sender),
        rule(M::Expire, Anything, &[], Nothing, Everyone, Everyone),
        rule(M::Flush, TypeOrAll, &[], Base, Everyone, Everyone),
        rule(M::Dump, TypeOrAll, &[], Whole, Sender, Sender),
        rule(M::Promisc, Anything, &[], Echo, Sender, Sender),
        rule(M::InverseAcquire, Anything, &[SRC, DST], Own, Sender, Sender),
        rule(M::UpdatePair, Type, &[DST, SRC, SA], Echo, Everyone, Everyone),
        rule(M::DelPair, Type, &[], WholeWithoutKeys, Everyone, Everyone),
        rule(M::AddFlow, Anything, &[FLOW, INNER_SRC, INNER_DST], Echo, Everyone, Sender),
        rule(M::ReplaceFlow, Anything, &[FLOW, INNER_SRC, INNER_DST], Echo, Everyone, Sender),
        rule(M::DelFlow, Anything, &[INNER_SRC, INNER_DST], Echo, Everyone, Sender),
        rule(M::FlushFlows, Anything, &[], Base, Everyone, Sender),
        rule(M::DumpFlows, Anything, &[], Own, Sender, Sender),
        rule(M::GetFlow, Anything, &[POLICY], Own, Sender, Sender),
        rule(M::GroupSa, Anything, &[DST, GROUP], Echo, Everyone, Sender),
        rule(M::MoveSa, Type, &[DST, SRC, SA], Echo, Everyone, Sender),
        rule(M::NewMapping, Anything, &[], Nothing, Registered, Sender),
        rule(M::Socket, Anything, &[OPTIONS], Echo, Sender, Sender),
    ]
};

/// The rule of a message type.
pub fn rule(kind: MessageType) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.kind == kind)
}

impl Rule {
    /// Says what the message lacks, the first thing first.
    pub fn complete(&self, message: &Message<'_>) -> Result<(), Fault> {
        match self.required.iter().find(|(kind, _)| !message.has(*kind)) {
            Some((_, missing)) => Err(Fault::invalid(*missing)),
            None => Ok(()),
        }
    }

    /// Says whether the message takes the SA type it names.
    pub const fn takes(&self, satype: u8) -> Result<(), Fault> {
        match (self.satype, SaType::from_number(satype)) {
            (Needs::Anything, _) | (Needs::TypeOrAll, Some(_)) => Ok(()),
            (Needs::Type, Some(SaType::Unspec)) => Err(Fault::invalid(Diagnostic::SatypeNeeded)),
            (Needs::Type, Some(_)) => Ok(()),
            (Needs::Type | Needs::TypeOrAll, None) => Err(Fault::invalid(Diagnostic::UnknownSatype)),
        }
    }
}

/// What can never be part of a message about SAs of this type: proposals and lists of algorithms go the other way, and AH
/// has no encryption key.
pub fn possible(message: &Message<'_>, satype: SaType) -> Result<(), Fault> {
    let refuse = |present: bool, diagnostic| if present { Err(Fault::invalid(diagnostic)) } else { Ok(()) };
    refuse(satype == SaType::Ah && message.has(ExtType::KeyEncrypt), Diagnostic::EkeyPresent)?;
    refuse(message.has(ExtType::Proposal), Diagnostic::PropPresent)?;
    let supported = message.has(ExtType::SupportedAuth) || message.has(ExtType::SupportedEncrypt);
    refuse(supported, Diagnostic::SuppPresent)
}
