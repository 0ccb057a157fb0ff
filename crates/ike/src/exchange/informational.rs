//! INFORMATIONAL: deletion and liveness (RFC 7296 §1.4, §1.4.1, §2.4).

use crate::event::Why;
use crate::message::{Delete, Exchange, Message, NotifyKind, Payload};
use crate::outbox::Context;
use crate::sa::{Asked, IkeSa};

/// Asks whether anybody is there.
pub(super) fn liveness(sa: &mut IkeSa, cx: &mut Context<'_>) {
    sa.ask(cx, Exchange::Informational, Vec::new(), Asked::Liveness);
}

/// How many deletions of what we do not know are remembered while a request for a child is under way: the peer makes one.
const GONE: usize = 16;

/// Takes a pair of SAs away, on both sides.
pub(super) fn delete_child(sa: &mut IkeSa, cx: &mut Context<'_>, spi_in: u32) {
    // It goes when the peer has answered: until then packets of the peer's may be on their way through it.
    let child = sa.children.iter_mut().find(|child| child.spi_in == spi_in);
    let protocol = child.map_or(crate::proposal::Protocol::Esp, |child| {
        child.deleting = true;
        child.protocol
    });
    let payload = Payload::Delete(Delete::Child(protocol, vec![spi_in]));
    sa.ask(cx, Exchange::Informational, vec![payload], Asked::DeleteChild(spi_in));
}

/// Takes this IKE SA away, on both sides.
pub(super) fn delete_ike(sa: &mut IkeSa, cx: &mut Context<'_>, why: &Why) {
    let payload = Payload::Delete(Delete::IkeSa);
    sa.ask(cx, Exchange::Informational, vec![payload], Asked::DeleteIke(why.clone()));
}

/// The peer has answered one of these.
pub(super) fn answered(sa: &mut IkeSa, cx: &mut Context<'_>) {
    match sa.granted() {
        Some(Asked::DeleteIke(why)) => sa.close(cx, why),
        Some(Asked::DeleteChild(spi_in)) => {
            sa.remove_child(cx, spi_in);
        }
        _ => {}
    }
}

/// Answers the peer.
pub(super) fn answer(sa: &mut IkeSa, cx: &mut Context<'_>, message: &Message) {
    let (exchange, id) = (message.header.exchange, message.header.id);
    // The initiator does not believe who we are, and has only this way to say so (RFC 7296 §2.21.2).
    if let Some(notify) = super::notified(message, NotifyKind::AuthenticationFailed) {
        sa.respond(cx, exchange, id, Vec::new());
        let why = super::eap::failed(sa).unwrap_or(Why::Refused("IKE_AUTH", notify.kind));
        return sa.close(cx, why);
    }
    let deletes =
        || message.payloads.iter().filter_map(|p| if let Payload::Delete(d) = p { Some(d) } else { None });
    if deletes().any(|delete| *delete == Delete::IkeSa) {
        // Its children need no word of their own (RFC 7296 §1.4.1).
        let why = match &sa.request {
            Some(request) => match &request.asked {
                Asked::DeleteIke(why) => why.clone(),
                _ => Why::Deleted,
            },
            None if sa.replaced() => Why::Rekeyed,
            None => Why::Deleted,
        };
        sa.respond(cx, exchange, id, Vec::new());
        // Both sides rekeyed, and the peer deletes the old one although our own exchange is not over: then its new one is
        // the one that stands (RFC 7296 §2.8.2).
        let why = match sa.crossing.take() {
            Some((heir, _)) => {
                super::rekey_ike::hand_over(sa, cx, heir);
                cx.out.moved_children(sa, heir);
                Why::Rekeyed
            }
            None => why,
        };
        sa.close(cx, why);
        return;
    }
    let deleting = match &sa.request {
        Some(request) => match request.asked {
            Asked::DeleteChild(spi_in) => Some(spi_in),
            _ => None,
        },
        None => None,
    };
    let mut ours = Vec::new();
    for delete in deletes() {
        let Delete::Child(protocol, spis) = delete else { continue };
        for spi in spis {
            let child = sa.children.iter().find(|child| child.spi_out == *spi && child.protocol == *protocol);
            // One that we are deleting ourselves is not named a second time (§1.4.1).
            if let Some(spi_in) = child.map(|child| child.spi_in) {
                sa.remove_child(cx, spi_in);
                if Some(spi_in) != deleting {
                    ours.push((*protocol, spi_in));
                }
            } else if let Some(asked) = sa.asked_child()
                && asked.gone.len() < GONE
            {
                asked.gone.push(*spi);
            }
        }
    }
    let mut payloads = super::mobike::answer(sa, cx, message);
    for protocol in [crate::proposal::Protocol::Ah, crate::proposal::Protocol::Esp] {
        let spis: Vec<u32> = ours.iter().filter(|(of, _)| *of == protocol).map(|(_, spi)| *spi).collect();
        if !spis.is_empty() {
            payloads.push(Payload::Delete(Delete::Child(protocol, spis)));
        }
    }
    sa.respond(cx, exchange, id, payloads);
}
