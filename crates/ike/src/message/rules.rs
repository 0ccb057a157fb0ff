//! Which payloads a message may hold, as one table: handlers never check shape again (RFC 7296 §1.2 to §1.5,
//! RFC 9242 §3.2, RFC 9370 §2.2).

use super::{Exchange, Message, Payload};

/// How often a payload may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Once.
    One,
    /// At most once.
    Optional,
    /// As often as the message has room.
    Any,
}

/// What one message may hold besides notifications and vendor IDs, which every message may.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Kinds of payload and how often each may stand there.
    pub payloads: &'static [(u8, Count)],
}

const SA: u8 = 33;
const KE: u8 = 34;
const IDI: u8 = 35;
const IDR: u8 = 36;
const CERT: u8 = 37;
const CERTREQ: u8 = 38;
const AUTH: u8 = 39;
const NONCE: u8 = 40;
const NOTIFY: u8 = 41;
const DELETE: u8 = 42;
const VENDOR: u8 = 43;
const TSI: u8 = 44;
const TSR: u8 = 45;
const CP: u8 = 47;
const EAP: u8 = 48;

use Count::{Any, One, Optional};

/// The payloads of a request, and of a response that grants what was asked.
pub const fn rule(exchange: Exchange, response: bool) -> Rule {
    let payloads: &[(u8, Count)] = match (exchange, response) {
        (Exchange::IkeSaInit, false) => &[(SA, One), (KE, One), (NONCE, One)],
        (Exchange::IkeSaInit, true) => &[(SA, One), (KE, One), (NONCE, One), (CERTREQ, Any)],
        // The later messages of EAP hold EAP alone, or AUTH alone (RFC 7296 §2.16).
        (Exchange::IkeAuth, false) => &[
            (IDI, Optional),
            (IDR, Optional),
            (CERT, Any),
            (CERTREQ, Any),
            (AUTH, Optional),
            (EAP, Optional),
            (CP, Optional),
            (SA, Optional),
            (TSI, Optional),
            (TSR, Optional),
        ],
        (Exchange::IkeAuth, true) => &[
            (IDR, Optional),
            (CERT, Any),
            (AUTH, Optional),
            (EAP, Optional),
            (CP, Optional),
            (SA, Optional),
            (TSI, Optional),
            (TSR, Optional),
        ],
        (Exchange::CreateChildSa, _) => {
            &[(SA, One), (NONCE, One), (KE, Optional), (TSI, Optional), (TSR, Optional)]
        }
        (Exchange::Informational, _) => &[(DELETE, Any), (CP, Optional)],
        (Exchange::IkeIntermediate, _) | (Exchange::IkeFollowupKe, _) => &[(KE, Optional)],
    };
    Rule { payloads }
}

/// Says whether a request, or a response without an error notification, has the payloads of its exchange and no
/// others. A response with an error is allowed what it has: its error is all that is read.
pub fn fits(message: &Message) -> bool {
    let response = message.header.flags.response;
    let failed = |payload: &Payload| matches!(payload, Payload::Notify(notify) if notify.kind.is_error());
    let lone =
        message.payloads.iter().all(|payload| matches!(payload, Payload::Notify(_) | Payload::Vendor(_)));
    let exchange = message.header.exchange;
    // A cookie, or the demand for another group, stands alone in the answer (RFC 7296 §2.6).
    if response && (message.payloads.iter().any(failed) || (exchange == Exchange::IkeSaInit && lone)) {
        return true;
    }
    let rule = rule(exchange, response);
    let times = |kind: u8| message.payloads.iter().filter(|payload| payload.kind() == kind).count();
    let counted = rule.payloads.iter().all(|(kind, count)| match count {
        One => times(*kind) == 1,
        Optional => times(*kind) <= 1,
        Any => true,
    });
    let known = message.payloads.iter().all(|payload| {
        let kind = payload.kind();
        kind == NOTIFY || kind == VENDOR || rule.payloads.iter().any(|(allowed, _)| *allowed == kind)
    });
    counted && known
}
