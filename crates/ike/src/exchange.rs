//! The exchanges, one file each: what is asked, what is answered, and what comes of it.

pub(crate) mod auth;
pub(crate) mod child;
mod configuration;
pub(crate) mod eap;
pub(crate) mod followup;
mod informational;
pub(crate) mod init;
mod intermediate;
mod mobike;
mod reauth;
mod rekey_ike;
mod transport;

use crate::message::{Exchange, Message, Notify, NotifyKind, Payload};
use crate::outbox::Context;
use crate::sa::{Answers, Asked, IkeSa, Pause, Stage, Task, Work};

/// The handler of whatever is to be done.
pub(crate) fn step(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    work: &Work,
    answers: &mut Answers,
) -> Result<(), Pause> {
    match work {
        Work::Request(opened) => match opened.message.header.exchange {
            Exchange::IkeSaInit => init::answer(sa, cx, &opened.message, answers),
            Exchange::IkeIntermediate => intermediate::answer(sa, cx, opened, answers),
            Exchange::IkeAuth => auth::answer(sa, cx, &opened.message, answers),
            // A client that does not believe us says so before it has said anything of its password (RFC 7296 §2.21.2).
            Exchange::Informational
                if matches!(sa.stage, Stage::Eap(_))
                    && notified(&opened.message, NotifyKind::AuthenticationFailed).is_some() =>
            {
                informational::answer(sa, cx, &opened.message);
                Ok(())
            }
            // Everything below is for a peer that has proved who it is.
            _ if !sa.is_established() => Err(Pause::refuse(NotifyKind::InvalidSyntax)),
            Exchange::CreateChildSa if is_ike_rekey(&opened.message) => {
                rekey_ike::answer(sa, cx, &opened.message, answers)
            }
            Exchange::CreateChildSa => child::answer(sa, cx, &opened.message, answers),
            Exchange::Informational => {
                informational::answer(sa, cx, &opened.message);
                Ok(())
            }
            Exchange::IkeFollowupKe => followup::answer(sa, cx, &opened.message, answers),
        },
        Work::Response(opened) => {
            let Some(request) = &sa.request else { return Ok(()) };
            match &request.asked {
                Asked::Init => init::answered(sa, cx, opened, answers),
                Asked::Intermediate(_) => intermediate::answered(sa, cx, opened, answers),
                Asked::Auth { .. } => auth::answered(sa, cx, &opened.message, answers),
                Asked::Eap => eap::answered(sa, cx, &opened.message, answers),
                Asked::Child(_) => child::answered(sa, cx, &opened.message, answers),
                Asked::RekeyIke(_) => rekey_ike::answered(sa, cx, &opened.message, answers),
                Asked::Followup(_) => followup::answered(sa, cx, &opened.message, answers),
                Asked::DeleteChild(_) | Asked::DeleteIke(_) | Asked::Liveness => {
                    informational::answered(sa, cx);
                    Ok(())
                }
                Asked::Move(_) => {
                    mobike::answered(sa, cx, &opened.message);
                    Ok(())
                }
                Asked::Routable(..) => {
                    mobike::checked(sa, cx, &opened.message);
                    Ok(())
                }
            }
        }
        Work::Begin(task) => match task {
            Task::Init => init::begin(sa, cx, answers),
            Task::Intermediate => intermediate::begin(sa, cx, answers),
            Task::Auth => auth::begin(sa, cx, answers),
            Task::Child { connection, rekeys, group } => {
                child::begin(sa, cx, (connection, *rekeys, *group), answers)
            }
            Task::Followup => followup::begin(sa, cx, answers),
            Task::RekeyIke { group } => rekey_ike::begin(sa, cx, *group, answers),
            Task::DeleteChild(spi_in) => {
                informational::delete_child(sa, cx, *spi_in);
                Ok(())
            }
            Task::DeleteIke(why) => {
                informational::delete_ike(sa, cx, why);
                Ok(())
            }
            Task::Liveness => {
                informational::liveness(sa, cx);
                Ok(())
            }
            Task::Move => {
                mobike::begin(sa, cx);
                Ok(())
            }
            Task::Addresses => {
                mobike::tell(sa, cx);
                Ok(())
            }
            Task::Routable(cookie) => {
                mobike::check(sa, cx, cookie);
                Ok(())
            }
            Task::Reauthenticate => {
                reauth::begin(sa, cx);
                Ok(())
            }
            Task::Retire => {
                reauth::retire(sa, cx);
                Ok(())
            }
        },
    }
}

/// A CREATE_CHILD_SA request that proposes IKE is for a new IKE SA, any other for a Child SA.
fn is_ike_rekey(message: &Message) -> bool {
    proposals(message).iter().any(|proposal| proposal.protocol == crate::proposal::Protocol::Ike)
}

/// The proposals of a message; none if it has no SA payload.
pub(crate) fn proposals(message: &Message) -> &[crate::proposal::Proposal] {
    message
        .payloads
        .iter()
        .find_map(|p| if let Payload::Sa(sa) = p { Some(&**sa) } else { None })
        .unwrap_or_default()
}

/// The nonce of a message; the table of rules has seen to it that the exchanges that need one have one.
pub(crate) fn nonce(message: &Message) -> &[u8] {
    message
        .payloads
        .iter()
        .find_map(|p| if let Payload::Nonce(n) = p { Some(&**n) } else { None })
        .unwrap_or_default()
}

/// The key exchange of a message.
pub(crate) fn ke(message: &Message) -> Option<(u16, &[u8])> {
    message
        .payloads
        .iter()
        .find_map(|p| if let Payload::Ke { group, data } = p { Some((*group, &**data)) } else { None })
}

/// The first notification of a kind.
pub(crate) fn notified(message: &Message, kind: NotifyKind) -> Option<&Notify> {
    notifications(message).find(|notify| notify.kind == kind)
}

/// All notifications.
pub(crate) fn notifications(message: &Message) -> impl Iterator<Item = &Notify> {
    message.payloads.iter().filter_map(|p| if let Payload::Notify(n) = p { Some(n) } else { None })
}

/// The first error among the notifications.
pub(crate) fn refused(message: &Message) -> Option<&Notify> {
    notifications(message).find(|notify| notify.kind.is_error())
}

#[cfg(test)]
pub(crate) mod tests;
