//! IKE_AUTH (RFC 7296 §1.2, §2.15): who both sides are, and the first Child SA.

use super::child::{self, Pair};
use super::{configuration, notified, refused};
use crate::auth::{Authenticated, Claim, SHARED_KEY, Signed, verify};
use crate::connection::Connection;
use crate::event::{Event, Why};
use crate::identity::{Id, IdPattern};
use crate::message::{Exchange, IdBody, Message, Notify, NotifyKind, Payload};
use crate::outbox::Context;
use crate::sa::{Answers, Asked, IkeSa, Pause, Stage, Task};
use ipsec_core::Secret;
use ipsec_core::Time;
use std::sync::Arc;

/// Says who we are and asks for the first Child SA.
pub(super) fn begin(sa: &mut IkeSa, cx: &mut Context<'_>, answers: &mut Answers) -> Result<(), Pause> {
    let Some(connection) = sa.connection.clone() else { return Ok(()) };
    let peer = match &connection.remote_id {
        IdPattern::Exactly(id) => id.clone(),
        IdPattern::Any => Id::Address(sa.remote.ip()),
    };
    let no_secret = || Pause::Fail(Why::NoSecret(connection.local_id.to_string(), peer.to_string()));
    let key = cx.config.secrets.psk(&connection.local_id, &peer).ok_or_else(no_secret)?.clone();
    let spi_in = child::spi(sa, answers)?;
    let body = connection.local_id.body();
    let auth = auth(sa, &key, &body, 0).ok_or(Pause::Fail(Why::Internal("AUTH could not be made")))?;
    let mut payloads = vec![Payload::IdI(body)];
    if let IdPattern::Exactly(id) = &connection.remote_id {
        payloads.push(Payload::IdR(id.body()));
    }
    payloads.push(Payload::Auth { method: SHARED_KEY, data: auth.to_vec() });
    if sa.first_contact {
        payloads.push(crate::sa::notify(NotifyKind::InitialContact));
    }
    payloads.extend(configuration::request(&connection));
    payloads.extend(child::offer(sa, &connection, spi_in, false, None));
    cx.out.progress(Some(&connection), format!("IKE_AUTH as {} to {}", connection.local_id, sa.remote));
    sa.ask(cx, Exchange::IkeAuth, payloads, Asked::Auth { spi_in });
    Ok(())
}

/// AUTH of one side: 0 the initiator's, 1 the responder's.
fn auth(sa: &IkeSa, key: &Secret, id: &IdBody, side: usize) -> Option<Secret> {
    let channel = sa.channel.as_ref()?;
    let int_auth = int_auth(sa);
    Some(signed(sa, side, &int_auth)?.shared_key(channel.keys.prf, key, id))
}

/// IntAuth: both sides' chains and the Message ID of this exchange; nothing if IKE_INTERMEDIATE was not used
/// (RFC 9242 §3.3.2).
fn int_auth(sa: &IkeSa) -> Vec<u8> {
    let (Stage::Keyed(handshake), Some(channel)) = (&sa.stage, &sa.channel) else { return Vec::new() };
    let [i, r] = &handshake.int_auth;
    if i.is_empty() {
        return Vec::new();
    }
    // IKE_SA_INIT was 0, each IKE_INTERMEDIATE took one.
    let id = u32::try_from(channel.chosen.additional.len()).unwrap_or(0).saturating_add(1);
    [i.as_slice(), r, &id.to_be_bytes()].concat()
}

fn signed<'a>(sa: &'a IkeSa, side: usize, int_auth: &'a [u8]) -> Option<Signed<'a>> {
    let (Stage::Keyed(handshake), Some(channel)) = (&sa.stage, &sa.channel) else { return None };
    let (init, nonce) =
        if side == 0 { (&handshake.init_i, &handshake.nr) } else { (&handshake.init_r, &handshake.ni) };
    Some(Signed { init, nonce, sk_p: channel.keys.p.get(side)?, int_auth })
}

/// Checks what the peer says of itself; `side` is the peer's.
fn check(
    sa: &IkeSa,
    cx: &Context<'_>,
    message: &Message,
    connection: &Connection,
    side: usize,
) -> Result<Authenticated, Why> {
    let id = message.payloads.iter().find_map(|payload| match payload {
        Payload::IdI(id) if side == 0 => Some(id),
        Payload::IdR(id) if side == 1 => Some(id),
        _ => None,
    });
    let auth = message
        .payloads
        .iter()
        .find_map(|p| if let Payload::Auth { method, data } = p { Some((*method, data)) } else { None });
    let (Some(id), Some((method, data))) = (id, auth) else {
        return Err(Why::Protocol("it did not say who it is, or did not prove it"));
    };
    let (int_auth, channel) = (int_auth(sa), sa.channel.as_ref().ok_or(Why::Internal("no keys"))?);
    let signed = signed(sa, side, &int_auth).ok_or(Why::Internal("no handshake"))?;
    let ends = (&connection.local_id, &connection.remote_id);
    verify(channel.keys.prf, &cx.config.secrets, ends, Claim { id, method, data }, signed)
}

/// Takes the answer: the peer must prove who it is before anything else in it counts.
pub(super) fn answered(sa: &mut IkeSa, cx: &mut Context<'_>, message: &Message) -> Result<(), Pause> {
    let Some(connection) = sa.connection.clone() else { return Ok(()) };
    let has_auth = message.payloads.iter().any(|payload| matches!(payload, Payload::Auth { .. }));
    if !has_auth && let Some(notify) = refused(message) {
        return Err(Pause::Fail(Why::Refused("IKE_AUTH", notify.kind)));
    }
    let proved = check(sa, cx, message, &connection, 1).map_err(Pause::Fail)?;
    let Stage::Keyed(handshake) = core::mem::replace(&mut sa.stage, Stage::Closed) else { return Ok(()) };
    let Some(Asked::Auth { spi_in }) = sa.granted() else { return Ok(()) };
    established(sa, cx, &connection, proved);
    // The IKE SA stands even if the child does not (RFC 7296 §1.2).
    if let Some(notify) = refused(message) {
        let why = Why::Refused("the Child SA", notify.kind);
        cx.out.progress(Some(&connection), format!("the IKE SA is up, but {why}"));
        cx.out.events.push_back(Event::Failed { connection, why });
        return Ok(());
    }
    configuration::take(sa, message, &connection);
    let nonces = (&*handshake.ni, &*handshake.nr);
    match child::confirm(sa, message, &connection, false) {
        Ok(agreed) => {
            let pair =
                Pair { spi_in, shared: &[], nonces, initiated: true, replaces: None, redundant: false };
            child::install(sa, cx, &connection, agreed, pair);
        }
        Err(why) => {
            // What it believes to have is taken away again.
            sa.task(Task::DeleteChild(spi_in));
            cx.out.events.push_back(Event::Failed { connection, why });
        }
    }
    Ok(())
}

/// Answers a peer that says who it is and asks for the first Child SA.
pub(super) fn answer(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let (Stage::Keyed(handshake), Some(channel)) = (&sa.stage, &sa.channel) else {
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    };
    if !handshake.additional.is_empty() {
        // Whoever skips a key exchange that was agreed wants to be without it.
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    }
    let deny = |why: Why| Pause::Refuse(Notify::new(NotifyKind::AuthenticationFailed, Vec::new()), Some(why));
    let id = message.payloads.iter().find_map(|p| if let Payload::IdI(id) = p { Some(id) } else { None });
    let wanted =
        message.payloads.iter().find_map(|p| if let Payload::IdR(id) = p { Id::from_body(id) } else { None });
    let claimed =
        id.and_then(Id::from_body).ok_or_else(|| deny(Why::Protocol("it did not say who it is")))?;
    let mut candidates: Vec<(u8, Arc<Connection>)> = Vec::new();
    for connection in cx.config.connections.values() {
        let fit = connection.fit(sa.local.ip(), sa.remote.ip());
        let algorithms = connection.ike.iter().any(|offer| {
            offer.choose(&channel.chosen.proposal(crate::proposal::Protocol::Ike, Vec::new())).is_some()
        });
        let us = wanted.as_ref().is_none_or(|wanted| wanted.is(&connection.local_id));
        if let (Some(fit), true, true, true) = (fit, algorithms, us, connection.remote_id.matches(&claimed)) {
            let exact = matches!(connection.remote_id, IdPattern::Exactly(_));
            candidates.push((if exact { fit } else { fit | 4 }, connection.clone()));
        }
    }
    candidates.sort_by_key(|(score, _)| *score);
    let (best, _) = candidates
        .first()
        .map(|(s, c)| (*s, c))
        .ok_or_else(|| deny(Why::NoConnection(claimed.to_string())))?;
    // Among the best the networks asked for decide.
    let candidates: Vec<Arc<Connection>> =
        candidates.into_iter().filter(|(s, _)| *s == best).map(|(_, c)| c).collect();
    let narrowed = candidates.iter().find(|connection| child::answerable(sa, message, connection));
    let Some(connection) = narrowed.or(candidates.first()).cloned() else { return Ok(()) };
    let proved = check(sa, cx, message, &connection, 0).map_err(deny)?;
    let key = cx.config.secrets.psk(&connection.local_id, &claimed);
    let key =
        key.ok_or_else(|| deny(Why::NoSecret(connection.local_id.to_string(), claimed.to_string())))?.clone();
    let childless = !message.payloads.iter().any(|payload| matches!(payload, Payload::Sa(_)));
    let provided = configuration::provide(sa, cx, message, &connection, proved.id());
    let (provided, agreed) = match (childless, provided) {
        (true, provided) => (provided.ok().flatten(), None),
        (false, Ok(provided)) => (provided, Some(child::choose(sa, message, &connection, false))),
        (false, Err(refused)) => (None, Some(Err(refused))),
    };
    let spi_in = if let Some(Ok(_)) = &agreed { child::spi(sa, answers)? } else { 0 };
    let body = connection.local_id.body();
    let data = auth(sa, &key, &body, 1).ok_or(Pause::Fail(Why::Internal("AUTH could not be made")))?;
    let mut payloads = vec![Payload::IdR(body), Payload::Auth { method: SHARED_KEY, data: data.to_vec() }];
    payloads.extend(provided);
    match &agreed {
        Some(Ok(agreed)) => payloads.extend(child::grant(agreed, spi_in)),
        Some(Err((notify, _))) => payloads.push(Payload::Notify(notify.clone())),
        None => {}
    }
    let Stage::Keyed(handshake) = core::mem::replace(&mut sa.stage, Stage::Closed) else { return Ok(()) };
    sa.connection = Some(connection.clone());
    let initial = notified(message, NotifyKind::InitialContact).is_some();
    sa.respond(cx, Exchange::IkeAuth, message.header.id, payloads);
    if initial || connection.unique {
        cx.out.superseded.push((sa.key, proved.id().clone(), initial));
    }
    established(sa, cx, &connection, proved);
    match agreed {
        Some(Ok(agreed)) => {
            let nonces = (&*handshake.ni, &*handshake.nr);
            let pair =
                Pair { spi_in, shared: &[], nonces, initiated: false, replaces: None, redundant: false };
            child::install(sa, cx, &connection, agreed, pair);
        }
        Some(Err((_, why))) => {
            cx.out.progress(Some(&connection), format!("the IKE SA is up, but not its Child SA: {why}"));
        }
        None => {}
    }
    Ok(())
}

/// The peer has proved who it is: its time begins, and its host is told.
pub(super) fn established(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    connection: &Arc<Connection>,
    proved: Authenticated,
) {
    let peer = proved.id().to_string();
    sa.stage = Stage::Established(proved);
    let (rekey_at, expires) = lifetimes(cx, connection, connection.times.ike_life);
    (sa.rekey_at, sa.expires) = (rekey_at, expires);
    let (ike, connection, remote) = (sa.key, connection.clone(), sa.remote);
    cx.out.events.push_back(Event::IkeUp { ike, connection, peer, remote });
}

/// When a successor is to be negotiated, and when all is over.
pub(crate) fn lifetimes(
    cx: &mut Context<'_>,
    connection: &Connection,
    life: core::time::Duration,
) -> (Time, Time) {
    let margin = connection.times.margin.min(life.checked_div(2).unwrap_or(life));
    let hundredth = u64::try_from(margin.as_nanos()).unwrap_or(u64::MAX).checked_div(100).unwrap_or(0);
    let more = cx.random_below(hundredth.saturating_mul(u64::from(connection.times.fuzz)).saturating_add(1));
    let early = margin.saturating_add(core::time::Duration::from_nanos(more));
    (cx.now.after(life.saturating_sub(early)), cx.now.after(life))
}
