//! IKE_AUTH (RFC 7296 §1.2, §2.15): who both sides are, and the first Child SA.

use super::child::{self, Pair};
use super::eap::Gateway;
use super::{configuration, eap, mobike, notified, refused};
use crate::auth::methods::{self, Methods};
use crate::auth::signature::{certificates, encode, is_signature};
use crate::auth::{Authenticated, Claim, SHARED_KEY, Signed, Verification, accept, shared_key};
use crate::connection::Connection;
use crate::credential::{LocalAuth, LocalSignature, SendCert};
use crate::event::{Event, Why};
use crate::identity::{Id, IdPattern};
use crate::job::{Answer, Job};
use crate::keys::IkeKeys;
use crate::message::{CertEncoding, Exchange, IdBody, Message, Notify, NotifyKind, Payload};
use crate::outbox::Context;
use crate::ppk::{self, Mix, Named, PpkNeed};
use crate::sa::{Answers, Asked, IkeSa, Pause, Stage, Task};
use ipsec_core::Time;
use ipsec_core::sign::KeyKind;
use std::sync::Arc;

/// No authentication method: the peer asks for EAP by sending no AUTH.
const EAP: u8 = 0;
/// Connections that a peer's signature is tried for. Each may cost a verification.
const MAX_CANDIDATES: usize = 16;
/// Authorities that are named in a request for a certificate: the first message must fit into a datagram.
const MAX_AUTHORITIES: usize = 20;

/// Says who we are and asks for the first Child SA.
pub(super) fn begin(sa: &mut IkeSa, cx: &mut Context<'_>, answers: &mut Answers) -> Result<(), Pause> {
    let Some(connection) = sa.connection.clone() else { return Ok(()) };
    let body = connection.local_id.body();
    let handshake = sa.handshake();
    let methods = handshake.and_then(|handshake| handshake.methods.clone());
    let said = (handshake.is_some_and(|handshake| handshake.asked), methods.as_ref());
    let peer = peer(sa, &connection);
    let (certificates, auth, named) = match &connection.local_auth {
        // Without AUTH the responder is asked for EAP (RFC 7296 §2.16).
        LocalAuth::Eap(local) => {
            crate::eap::ready(local, &cx.config.secrets).map_err(Pause::Fail)?;
            (Vec::new(), Vec::new(), None)
        }
        LocalAuth::SharedKey | LocalAuth::Signature(_) => {
            let named = named(sa, cx, &connection, &peer).map_err(Pause::Fail)?;
            let keys = keys(sa).ok_or(Pause::Fail(Why::Internal("no keys")))?;
            let mixed = named.as_ref().map_or(&keys, |named| &named.keys);
            let (certificates, auth) = prove(sa, cx, mixed, (&connection, &peer), 0, said, answers)?;
            let without = if named.is_some() && connection.ppk.need == PpkNeed::Propose {
                Some(prove(sa, cx, &keys, (&connection, &peer), 0, said, answers)?.1)
            } else {
                None
            };
            (certificates, with_ppk(auth, named.as_ref(), without), named)
        }
    };
    let childless = connection.childless && sa.peer_can_be_childless;
    let spi_in = if childless { None } else { Some(child::spi(sa, answers)?) };
    let mut payloads = vec![Payload::IdI(body)];
    payloads.extend(certificates);
    payloads.extend(ask_for_certificate(sa, cx));
    if let IdPattern::Exactly(id) = &connection.remote_id {
        payloads.push(Payload::IdR(id.body()));
    }
    payloads.extend(auth);
    if connection.eap_alone().is_some() {
        payloads.push(crate::sa::notify(NotifyKind::EapOnlyAuthentication));
    }
    if methods.is_some() {
        payloads.extend(methods::announce(core::iter::once(&*connection)));
    }
    if sa.first_contact {
        payloads.push(crate::sa::notify(NotifyKind::InitialContact));
    }
    payloads.extend(configuration::request(&connection));
    if let Some(spi_in) = spi_in {
        payloads.extend(child::offer(sa, &connection, spi_in, false, None));
    }
    payloads.extend(mobike::about_us(sa, cx, &connection));
    cx.out.progress(Some(&connection), format!("IKE_AUTH as {} to {}", connection.local_id, sa.remote));
    if let Stage::Keyed(handshake) = &mut sa.stage {
        handshake.named = named;
    }
    sa.ask(cx, Exchange::IkeAuth, payloads, Asked::Auth { spi_in });
    Ok(())
}

/// Whom we expect, before it has said who it is.
pub(super) fn peer(sa: &IkeSa, connection: &Connection) -> Id {
    match &connection.remote_id {
        IdPattern::Exactly(id) => id.clone(),
        _ => Id::Address(sa.remote.ip()),
    }
}

/// The keys there are, without any that is mixed in.
pub(super) fn keys(sa: &IkeSa) -> Option<IkeKeys> {
    sa.channel.as_ref().map(|channel| channel.keys.clone())
}

/// The post-quantum preshared key that we name beside AUTH, and the keys with it (RFC 8784 §3).
///
/// # Errors
/// The connection insists on one, and there is none any more.
pub(super) fn named(
    sa: &IkeSa,
    cx: &Context<'_>,
    connection: &Connection,
    peer: &Id,
) -> Result<Option<Named>, Why> {
    let both = sa.handshake().is_some_and(|handshake| handshake.can_ppk);
    let ppk = ppk::ours(&cx.config.secrets, connection, peer).filter(|_| both);
    let named =
        ppk.zip(keys(sa)).map(|(ppk, keys)| Named { id: ppk.id.clone(), keys: Mix::With(ppk).keys(&keys) });
    if named.is_none() && connection.ppk.need == PpkNeed::Insist {
        return Err(Why::NoPpkSecret(connection.local_id.to_string(), peer.to_string()));
    }
    Ok(named)
}

/// AUTH, and what goes with it if a key is named: its name, and our proof without it where we can do without.
pub(super) fn with_ppk(auth: Payload, named: Option<&Named>, without: Option<Payload>) -> Vec<Payload> {
    let mut payloads = vec![auth];
    payloads.extend(named.map(|named| ppk::identity(&named.id)));
    if let Some(Payload::Auth { data, .. }) = without {
        payloads.push(Payload::Notify(Notify::new(NotifyKind::NoPpkAuth, data)));
    }
    payloads
}

/// From here on the keys are these.
pub(super) fn mixed(sa: &mut IkeSa, keys: IkeKeys, ppk: Option<Vec<u8>>) {
    sa.ppk = ppk;
    if let Some(channel) = &mut sa.channel {
        channel.keys = keys;
    }
}

/// Our certificates and our AUTH for `peer`, made with `keys`; `side` is ours, 0 the initiator's and 1 the responder's.
fn prove(
    sa: &IkeSa,
    cx: &Context<'_>,
    keys: &IkeKeys,
    (connection, peer): (&Connection, &Id),
    side: usize,
    (asked, methods): (bool, Option<&Methods>),
    answers: &mut Answers,
) -> Result<(Vec<Payload>, Payload), Pause> {
    let broken = || Pause::Fail(Why::Internal("AUTH could not be made"));
    let (int_auth, body) = (int_auth(sa), connection.local_id.body());
    let signed = signed(sa, keys, side, &int_auth).ok_or_else(broken)?;
    let prf = keys.prf;
    match &connection.local_auth {
        LocalAuth::SharedKey if methods.is_some_and(|methods| !methods.shared_key) => {
            Err(deny(side, Why::SecretNotTaken))
        }
        LocalAuth::SharedKey => {
            let local = &connection.local_id;
            let key = cx.config.secrets.psk(local, peer);
            let key = key.ok_or_else(|| deny(side, Why::NoSecret(local.to_string(), peer.to_string())))?;
            let data = signed.shared_key(prf, key, &body).to_vec();
            Ok((Vec::new(), Payload::Auth { method: SHARED_KEY, data }))
        }
        LocalAuth::Signature(_) | LocalAuth::Eap(_) => {
            let local = connection.signs().ok_or_else(|| deny(side, Why::BadMethod(EAP)))?;
            let handshake = sa.handshake().ok_or_else(broken)?;
            let kind = local.public.kind();
            let takes = |scheme| methods.is_none_or(|methods| methods.take(scheme));
            let scheme = local.schemes.choose(kind, handshake.hashes.as_deref(), takes);
            let scheme = scheme.ok_or_else(|| deny(side, Why::NoScheme(name(kind))))?;
            let missing = || deny(side, Why::NoPrivateKey(connection.local_id.to_string()));
            let key = cx.config.secrets.key(&local.public).ok_or_else(missing)?.clone();
            let octets = signed.octets(prf, &body);
            let Answer::Signed(Ok(signature)) = answers.ask(|| Job::Sign(key, scheme, octets))? else {
                return Err(broken());
            };
            let (method, data) = encode(scheme, &signature).ok_or_else(broken)?;
            Ok((ours(local, asked), Payload::Auth { method, data }))
        }
    }
}

/// What ends it where our own proof cannot be made: the responder says so, the initiator has nothing to say.
pub(super) const fn deny(side: usize, why: Why) -> Pause {
    if side == 0 {
        Pause::Fail(why)
    } else {
        Pause::Refuse(Notify::new(NotifyKind::AuthenticationFailed, Vec::new()), Some(why))
    }
}

const fn name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Rsa => "RSA",
        KeyKind::Ec(_) => "ECDSA",
        KeyKind::Ed25519 => "Ed25519",
    }
}

/// The certificates to send, our own first (RFC 7296 §3.6).
fn ours(local: &LocalSignature, asked: bool) -> Vec<Payload> {
    match local.send {
        SendCert::Never => return Vec::new(),
        SendCert::IfAsked if !asked => return Vec::new(),
        SendCert::IfAsked | SendCert::Always => {}
    }
    let payload = |der: &[u8]| Payload::Cert { encoding: CertEncoding::X509Signature, data: der.to_vec() };
    local.chain.iter().map(|certificate| payload(certificate.der())).collect()
}

/// Whether the peer asks for a certificate of ours.
pub(super) fn asks(message: &Message) -> bool {
    message
        .payloads
        .iter()
        .any(|p| matches!(p, Payload::CertReq { encoding: CertEncoding::X509Signature, .. }))
}

/// Asks for a certificate of an authority we trust, if the connection, or any between these two ends, may need one
/// (RFC 7296 §3.7).
pub(super) fn ask_for_certificate(sa: &IkeSa, cx: &Context<'_>) -> Option<Payload> {
    let mut authorities: Vec<u8> = Vec::new();
    let (local, remote) = (sa.local.ip(), sa.remote.ip());
    let of_sa = sa.connection.iter().filter(|_| sa.initiator);
    let of_ends = cx.config.connections.fitting(local, remote).map(|(_, one)| one).filter(|_| !sa.initiator);
    let mut any = false;
    for connection in of_sa.chain(of_ends) {
        let Some(policy) = connection.remote_auth.signature.as_ref().filter(|policy| policy.known.is_empty())
        else {
            continue;
        };
        any = true;
        for authority in cx.config.secrets.trust.allowed(&policy.authorities) {
            let hash = authority.key_hash();
            let (known, _) = authorities.as_chunks::<20>();
            if known.len() < MAX_AUTHORITIES && !known.contains(&hash) {
                authorities.extend_from_slice(&hash);
            }
        }
    }
    any.then_some(Payload::CertReq { encoding: CertEncoding::X509Signature, authorities })
}

/// IntAuth: both sides' chains and the Message ID of this exchange; nothing if IKE_INTERMEDIATE was not used
/// (RFC 9242 §3.3.2).
pub(super) fn int_auth(sa: &IkeSa) -> Vec<u8> {
    let (Some(handshake), Some(channel)) = (sa.handshake(), &sa.channel) else { return Vec::new() };
    let [i, r] = &handshake.int_auth;
    if i.is_empty() {
        return Vec::new();
    }
    // IKE_SA_INIT was 0, each IKE_INTERMEDIATE took one.
    let id = u32::try_from(channel.chosen.additional.len()).unwrap_or(0).saturating_add(1);
    [i.as_slice(), r, &id.to_be_bytes()].concat()
}

pub(super) fn signed<'a>(
    sa: &'a IkeSa,
    keys: &'a IkeKeys,
    side: usize,
    int_auth: &'a [u8],
) -> Option<Signed<'a>> {
    let handshake = sa.handshake()?;
    let (init, nonce) =
        if side == 0 { (&handshake.init_i, &handshake.nr) } else { (&handshake.init_r, &handshake.ni) };
    Some(Signed { init, nonce, sk_p: keys.p.get(side)?, int_auth })
}

/// What the peer says of itself; `side` is the peer's.
pub(super) fn claim(message: &Message, side: usize) -> Result<Claim<'_>, Why> {
    let id: Option<&IdBody> = message.payloads.iter().find_map(|payload| match payload {
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
    Ok(Claim { id, method, data })
}

/// Checks what the peer says of itself for the first of the `candidates` for which it holds; `side` is the peer's. What
/// stops it is either a job that must be done first, or that it does not hold.
fn check(
    sa: &IkeSa,
    cx: &Context<'_>,
    keys: &IkeKeys,
    (message, claim): (&Message, Claim<'_>),
    candidates: &[Arc<Connection>],
    side: usize,
    answers: &mut Answers,
) -> Result<Result<(Authenticated, Arc<Connection>), Why>, Pause> {
    let internal = |what| Ok(Err(Why::Internal(what)));
    let int_auth = int_auth(sa);
    let Some(signed) = signed(sa, keys, side, &int_auth) else { return internal("no handshake") };
    let Some(best) = candidates.first() else { return internal("no connection") };
    if !is_signature(claim.method) {
        let proved = shared_key(keys.prf, &cx.config.secrets, best, claim, signed);
        return Ok(proved.map(|proved| (proved, best.clone())));
    }
    let Some(at) = cx.config.time_of_day(cx.now) else { return internal("the time of day is not known") };
    let trust = cx.config.secrets.trust.clone();
    let octets = signed.octets(keys.prf, claim.id);
    let verification = certificates(message).and_then(|certificates| {
        Verification::new(candidates.to_vec(), claim, octets, certificates, (trust, at))
    });
    let verification = match verification {
        Ok(verification) => verification,
        Err(why) => return Ok(Err(why)),
    };
    let Answer::Verified(verified) = answers.ask(|| Job::Verify(Box::new(verification)))? else {
        return internal("an answer to another question");
    };
    Ok(verified.and_then(|verified| accept(&verified, candidates)))
}

/// Takes the answer: the peer must prove who it is before anything else in it counts.
pub(super) fn answered(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let Some(connection) = sa.connection.clone() else { return Ok(()) };
    let has_auth = message.payloads.iter().any(|payload| matches!(payload, Payload::Auth { .. }));
    if !has_auth && let Some(notify) = refused(message) {
        return Err(Pause::Fail(Why::Refused("IKE_AUTH", notify.kind)));
    }
    if !has_auth && connection.eap_alone().is_some() {
        return alone(sa, cx, message, &connection, answers);
    }
    let claimed = claim(message, 1).and_then(|claim| {
        let named = sa.handshake().and_then(|handshake| handshake.named.as_ref());
        // The responder proves itself before EAP without one: it does not know whose key it would be (RFC 8784 §3).
        let eap = matches!(connection.local_auth, LocalAuth::Eap(_));
        let named = if eap { None } else { ppk::granted(named, &connection, message)? };
        let mix = named.map(|named| (named.keys.clone(), Some(named.id.clone())));
        let mix = mix.or_else(|| keys(sa).map(|keys| (keys, None))).ok_or(Why::Internal("no keys"))?;
        Ok((claim, mix))
    });
    let checked = match &claimed {
        Ok((claim, (keys, _))) => {
            check(sa, cx, keys, (message, *claim), core::slice::from_ref(&connection), 1, answers)?
        }
        Err(why) => Err(why.clone()),
    };
    let (proved, (keys, ppk)) = match checked.and_then(|(proved, _)| Ok((proved, claimed?.1))) {
        Ok(believed) => believed,
        Err(why) => {
            disbelieve(sa, cx, why);
            return Ok(());
        }
    };
    if matches!(connection.local_auth, LocalAuth::Eap(_)) {
        let Some(Asked::Auth { spi_in }) = sa.request.as_ref().map(|request| &request.asked) else {
            return Ok(());
        };
        let spi_in = *spi_in;
        return eap::begin(sa, cx, message, (Gateway::Proved(proved), spi_in), answers);
    }
    let Some(Asked::Auth { spi_in }) = sa.granted() else { return Ok(()) };
    mixed(sa, keys, ppk);
    conclude(sa, cx, message, (proved, spi_in));
    Ok(())
}

/// The responder leaves AUTH out, as we have said that it may: it will prove in EAP alone who it says it is (RFC 5998 §3).
fn alone(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    connection: &Connection,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let id =
        message.payloads.iter().find_map(|p| if let Payload::IdR(id) = p { Id::from_body(id) } else { None });
    let wanted = &connection.remote_id;
    let claimed = id.ok_or(Why::Protocol("it did not say who it is, or did not prove it"));
    let claimed = claimed.and_then(|id| match wanted.matches(&id) {
        true => Ok(id),
        false => Err(Why::WrongId { is: id.to_string(), wanted: wanted.to_string() }),
    });
    let claimed = match claimed {
        Ok(claimed) => claimed,
        Err(why) => {
            disbelieve(sa, cx, why);
            return Ok(());
        }
    };
    let Some(Asked::Auth { spi_in }) = sa.request.as_ref().map(|request| &request.asked) else {
        return Ok(());
    };
    let spi_in = *spi_in;
    eap::begin(sa, cx, message, (Gateway::Claims(claimed), spi_in), answers)
}

/// The peer has proved who it is and granted what we asked for, or some of it.
pub(super) fn conclude(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    (proved, spi_in): (Authenticated, Option<u32>),
) {
    let (Some(connection), Some(handshake)) = (sa.connection.clone(), sa.take_handshake()) else { return };
    mobike::agree(sa, &connection, message);
    established(sa, cx, &connection, proved);
    // The IKE SA stands even if the child does not (RFC 7296 §1.2).
    if let Some(notify) = refused(message) {
        let why = Why::Refused("the Child SA", notify.kind);
        cx.out.progress(Some(&connection), format!("the IKE SA is up, but {why}"));
        cx.out.events.push_back(Event::Failed { connection, why });
        return;
    }
    configuration::take(sa, message, &connection);
    let Some(spi_in) = spi_in else {
        // The first child comes like every other (RFC 6023).
        sa.tasks.push_front(Task::Child { connection, rekeys: None, group: None });
        return;
    };
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
}

/// The responder believes to have an IKE SA with us: it is told once that it has none (RFC 7296 §2.21.2).
pub(super) fn disbelieve(sa: &mut IkeSa, cx: &mut Context<'_>, why: Why) {
    sa.granted();
    let payloads = vec![crate::sa::notify(NotifyKind::AuthenticationFailed)];
    sa.ask(cx, Exchange::Informational, payloads, Asked::DeleteIke(why.clone()));
    sa.close(cx, why);
}

/// The connections that a peer may be for who claims an identity, asks for one of ours, and authenticates by a method;
/// the best first, and of those equally good the ones whose networks it asks for.
fn candidates<'a>(
    sa: &IkeSa,
    cx: &'a Context<'_>,
    message: &'a Message,
    claimed: &Id,
    method: u8,
) -> Result<(Vec<Arc<Connection>>, Mix<'a>), Why> {
    let Some(channel) = &sa.channel else { return Err(Why::Internal("no keys")) };
    let both = sa.handshake().is_some_and(|handshake| handshake.can_ppk);
    let wanted =
        message.payloads.iter().find_map(|p| if let Payload::IdR(id) = p { Id::from_body(id) } else { None });
    let mut found: Vec<(u8, bool, Arc<Connection>, Mix<'_>)> = Vec::new();
    let mut otherwise = None;
    let chosen = channel.chosen.proposal(crate::proposal::Protocol::Ike, Vec::new());
    for (fit, connection) in cx.config.connections.fitting(sa.local.ip(), sa.remote.ip()) {
        let algorithms = connection.ike.iter().any(|offer| offer.choose(&chosen).is_some());
        let us = wanted.as_ref().is_none_or(|wanted| wanted.is(&connection.local_id));
        // Before EAP it may say what it likes: the user's name will be matched.
        let them = method == EAP || connection.remote_id.matches(claimed);
        if !(algorithms && us && them) {
            continue;
        }
        let taken = match method {
            SHARED_KEY => connection.remote_auth.shared_key,
            EAP => connection.remote_auth.eap.is_some() && connection.signs().is_some(),
            method if is_signature(method) => connection.remote_auth.signature.is_some(),
            _ => false,
        };
        if !taken {
            otherwise = Some(Why::BadMethod(method));
            continue;
        }
        // What is mixed in is said beside AUTH, which comes after EAP.
        let mix = match ppk::decide(&cx.config.secrets, connection, claimed, both, message) {
            _ if method == EAP => Mix::Without,
            Ok(mix) => mix,
            Err(why) => {
                otherwise = Some(why);
                continue;
            }
        };
        let score = connection.remote_id.looseness().saturating_mul(4) | fit;
        // Among the best the networks asked for decide.
        found.push((score, !child::answerable(sa, message, connection), connection.clone(), mix));
    }
    found.sort_by_key(|(score, elsewhere, ..)| (*score, *elsewhere));
    let Some(mix) = found.first().map(|(.., mix)| *mix) else {
        return Err(otherwise.unwrap_or_else(|| Why::NoConnection(claimed.to_string())));
    };
    // One AUTH is over one set of keys.
    found.retain(|(.., other)| other.is(&mix));
    let best = found.into_iter().take(MAX_CANDIDATES);
    Ok((best.map(|(_, _, connection, _)| connection).collect(), mix))
}

/// Answers a peer that says who it is and asks for the first Child SA.
pub(super) fn answer(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    if matches!(sa.stage, Stage::Eap(_)) {
        return eap::answer(sa, cx, message, answers);
    }
    let Stage::Keyed(handshake) = &sa.stage else {
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    };
    if !handshake.additional.is_empty() {
        // Whoever skips a key exchange that was agreed wants to be without it.
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    }
    let deny = |why: Why| deny(1, why);
    if !message.payloads.iter().any(|payload| matches!(payload, Payload::Auth { .. })) {
        return ask_in_eap(sa, cx, message, answers);
    }
    let claim = claim(message, 0).map_err(deny)?;
    let claimed = Id::from_body(claim.id)
        .ok_or_else(|| deny(Why::Protocol("its identity is of no type that is known here")))?;
    let methods = Methods::of(message);
    let said = (asks(message), methods.as_ref());
    let (candidates, mix) = candidates(sa, cx, message, &claimed, claim.method).map_err(deny)?;
    let keys = keys(sa).ok_or_else(|| deny(Why::Internal("no keys")))?;
    let keys = mix.keys(&keys);
    let claim = if let Mix::Instead(data) = mix { Claim { data, ..claim } } else { claim };
    let (proved, connection) =
        check(sa, cx, &keys, (message, claim), &candidates, 0, answers)?.map_err(deny)?;
    let (certificates, auth) = prove(sa, cx, &keys, (&connection, &claimed), 1, said, answers)?;
    let mix = (keys, mix.id());
    let mut payloads = vec![Payload::IdR(connection.local_id.body())];
    payloads.extend(certificates);
    payloads.push(auth);
    let what = Proved { proved, connection, payloads, id: message.header.id, mix };
    grant(sa, cx, message, what, answers)
}

/// Answers a peer that sends no AUTH and so asks for EAP: we prove who we are, unless both will do that in EAP, and ask who
/// it is.
fn ask_in_eap(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let id = message.payloads.iter().find_map(|p| if let Payload::IdI(id) = p { Some(id) } else { None });
    let claimed = id.and_then(Id::from_body);
    let claimed =
        claimed.ok_or_else(|| deny(1, Why::Protocol("it did not say who it is, or did not prove it")))?;
    let methods = Methods::of(message);
    let said = (asks(message), methods.as_ref());
    let (candidates, _) = candidates(sa, cx, message, &claimed, EAP).map_err(|why| deny(1, why))?;
    let Some(connection) = candidates.first().cloned() else { return Ok(()) };
    let Some(how) = connection.remote_auth.eap.clone() else { return Ok(()) };
    let keys = keys(sa).ok_or_else(|| deny(1, Why::Internal("no keys")))?;
    let mut payloads = vec![Payload::IdR(connection.local_id.body())];
    let alone = notified(message, NotifyKind::EapOnlyAuthentication).is_some();
    if !alone || connection.eap_alone().is_none() {
        let (certificates, auth) = prove(sa, cx, &keys, (&connection, &claimed), 1, said, answers)?;
        payloads.extend(certificates);
        payloads.push(auth);
    }
    eap::ask(sa, cx, message, (connection, &how), payloads);
    Ok(())
}

/// A peer that has proved who it is, and how we do.
pub(super) struct Proved {
    pub(super) proved: Authenticated,
    pub(super) connection: Arc<Connection>,
    /// Our own proof, with what goes before it.
    pub(super) payloads: Vec<Payload>,
    /// The Message ID of the request that is answered.
    pub(super) id: u32,
    /// The keys from here on, and the name of the post-quantum preshared key in them.
    pub(super) mix: (IkeKeys, Option<Vec<u8>>),
}

/// Answers a peer that has proved who it is, with what it asked for in `message`.
pub(super) fn grant(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    what: Proved,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let Proved { proved, connection, mut payloads, id, mix: (keys, ppk) } = what;
    if ppk.is_some() {
        // That it is in use is all that is said: which, the peer has said (RFC 8784 §3).
        payloads.push(crate::sa::notify(NotifyKind::PpkIdentity));
    }
    let childless = !message.payloads.iter().any(|payload| matches!(payload, Payload::Sa(_)));
    let provided = configuration::provide(sa, cx, message, &connection, &proved);
    let (provided, agreed) = match (childless, provided) {
        (true, provided) => (provided.ok().flatten(), None),
        (false, Ok(provided)) => (provided, Some(child::choose(sa, message, &connection, false))),
        (false, Err(refused)) => (None, Some(Err(refused))),
    };
    let spi_in = if let Some(Ok(_)) = &agreed { child::spi(sa, answers)? } else { 0 };
    payloads.extend(provided);
    match &agreed {
        Some(Ok(agreed)) => payloads.extend(child::grant(agreed, spi_in)),
        Some(Err((notify, _))) => payloads.push(Payload::Notify(notify.clone())),
        None => {}
    }
    mobike::agree(sa, &connection, message);
    if sa.mobike {
        payloads.extend(mobike::about_us(sa, cx, &connection));
    }
    let Some(handshake) = sa.take_handshake() else { return Ok(()) };
    sa.connection = Some(connection.clone());
    mixed(sa, keys, ppk);
    let initial = notified(message, NotifyKind::InitialContact).is_some();
    sa.respond(cx, Exchange::IkeAuth, id, payloads);
    cx.out.superseded.push((sa.key, proved.id().clone(), initial));
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
    sa.proved = true;
    sa.placed = (sa.local, sa.remote);
    sa.before = None;
    sa.routable = sa.remote.ip();
    if core::mem::take(&mut sa.readdressed) && sa.mobike {
        // The peer may have heard us where we were.
        sa.task(Task::Move);
    }
    if sa.succeeds.is_some() {
        cx.out.proved_anew.push(sa.key);
    }
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
