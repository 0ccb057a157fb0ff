//! IKE_INTERMEDIATE (RFC 9242) with one additional key exchange each (RFC 9370 §2.2.2).

use super::{ke, refused};
use crate::auth::methods::Methods;
use crate::event::Why;
use crate::job::{Answer, Job};
use crate::keys::Seed;
use crate::message::{Exchange, Message, NotifyKind, Payload};
use crate::outbox::Context;
use crate::protect::{Opened, int_auth_header, plain};
use crate::sa::{Answers, Asked, IkeSa, Pause, Stage, Task};
use ipsec_core::Secret;

/// Asks for the next additional key exchange.
pub(super) fn begin(sa: &mut IkeSa, cx: &mut Context<'_>, answers: &mut Answers) -> Result<(), Pause> {
    let Stage::Keyed(handshake) = &sa.stage else { return Ok(()) };
    let Some(&group) = handshake.additional.front() else { return Ok(()) };
    let Answer::Offered(Ok((offer, share))) = answers.ask(|| Job::Offer(group))? else {
        return Err(Pause::Fail(Why::Internal("an additional key exchange could not be begun")));
    };
    cx.out.progress(sa.connection.as_ref(), format!("IKE_INTERMEDIATE, {group}"));
    let payloads = vec![Payload::Ke { group: group.number(), data: share }];
    let message = sa.ask(cx, Exchange::IkeIntermediate, payloads, Asked::Intermediate(offer));
    cover(sa, &message, plain(&message.payloads), 0);
    Ok(())
}

/// Takes the peer's share.
pub(super) fn answered(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    opened: &Opened,
    answers: &mut Answers,
) -> Result<(), Pause> {
    if let Some(notify) = refused(&opened.message) {
        return Err(Pause::Fail(Why::Refused("the additional key exchange", notify.kind)));
    }
    let Some(Asked::Intermediate(offer)) = sa.request.as_ref().map(|request| &request.asked) else {
        return Ok(());
    };
    let offer = offer.clone();
    let wrong = || Pause::Fail(Why::Protocol("its additional key exchange is not the one agreed"));
    let (group, share) = ke(&opened.message).ok_or_else(wrong)?;
    if group != offer.group().number() {
        return Err(wrong());
    }
    let Answer::Finished(Ok(shared)) = answers.ask(|| Job::Finish(offer, share.to_vec()))? else {
        return Err(wrong());
    };
    // A list that is too long for the first message comes here (RFC 9593 §3.1).
    if let (Stage::Keyed(handshake), Some(methods)) = (&mut sa.stage, Methods::of(&opened.message)) {
        handshake.methods = Some(methods);
    }
    cover(sa, &opened.message, opened.inner.clone(), 1);
    update(sa, cx, &shared)?;
    sa.granted();
    let more = matches!(&sa.stage, Stage::Keyed(handshake) if !handshake.additional.is_empty());
    sa.tasks.push_front(if more { Task::Intermediate } else { Task::Auth });
    Ok(())
}

/// Answers the peer's share with ours.
pub(super) fn answer(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    opened: &Opened,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let Stage::Keyed(handshake) = &sa.stage else { return Err(Pause::refuse(NotifyKind::InvalidSyntax)) };
    let (Some(&group), Some((theirs, share))) = (handshake.additional.front(), ke(&opened.message)) else {
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    };
    if theirs != group.number() {
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    }
    let Answer::Accepted(Ok((ours, shared))) = answers.ask(|| Job::Accept(group, share.to_vec()))? else {
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    };
    cover(sa, &opened.message, opened.inner.clone(), 0);
    // The answer goes under the keys the request came under; the new ones are for what follows.
    let payloads = vec![Payload::Ke { group: group.number(), data: ours }];
    let message = sa.respond(cx, Exchange::IkeIntermediate, opened.message.header.id, payloads);
    cover(sa, &message, plain(&message.payloads), 1);
    update(sa, cx, &shared)
}

/// Takes a message of this exchange into what AUTH will cover: side 0 is the initiator's (RFC 9242 §3.3.2).
fn cover(sa: &mut IkeSa, message: &Message, inner: Secret, side: usize) {
    let (Stage::Keyed(handshake), Some(channel)) = (&mut sa.stage, &sa.channel) else { return };
    let header = int_auth_header(&message.header, &message.payloads, inner.len());
    let (Some(key), Some(so_far)) = (channel.keys.p.get(side), handshake.int_auth.get_mut(side)) else {
        return;
    };
    *so_far = channel.keys.prf.compute(key, &[so_far, &header, &inner]).to_vec();
}

/// All keys anew, with one more secret in them.
fn update(sa: &mut IkeSa, cx: &mut Context<'_>, shared: &Secret) -> Result<(), Pause> {
    let (spi_i, spi_r) = sa.spis();
    let (Stage::Keyed(handshake), Some(channel)) = (&mut sa.stage, sa.channel.take()) else { return Ok(()) };
    let seed = Seed { ni: &handshake.ni, nr: &handshake.nr, spi_i, spi_r };
    let keys = channel.keys.updated(&channel.chosen, shared, seed);
    handshake.additional.pop_front();
    sa.before = (!sa.initiator).then_some(channel.opener);
    sa.channel = super::init::channel((sa.initiator, (spi_i, spi_r)), cx, channel.chosen, keys);
    if sa.channel.is_some() {
        Ok(())
    } else {
        Err(Pause::Fail(Why::Internal("the algorithms chosen do not go together")))
    }
}
