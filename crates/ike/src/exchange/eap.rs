//! EAP within IKE_AUTH (RFC 7296 §2.16). The responder has proved who it is by a signature before anything is said of a
//! password or of our certificate, and both sides prove in the end that they have the MSK that EAP has made.
//!
//! Where both have a certificate to show in EAP-TLS, and both connections say so, the responder may leave its signature out
//! (RFC 5998): then who it is, its certificate in TLS says, and it is believed at the end, by that key and no other.

use super::auth::{self, Proved};
use super::refused;
use crate::auth::{Authenticated, Claim, SHARED_KEY, after_eap, of_eap};
use crate::connection::Connection;
use crate::credential::{LocalAuth, RemoteEap};
use crate::eap::{Around, Client, Peer, Server, Step, Won};
use crate::event::Why;
use crate::identity::Id;
use crate::keys::IkeKeys;
use crate::message::{Exchange, IdBody, Message, NotifyKind, Payload};
use crate::outbox::Context;
use crate::ppk::{self, Mix, PpkNeed};
use crate::sa::{Answers, Asked, Handshake, IkeSa, Pause, Stage};
use ipsec_core::Secret;
use std::sync::Arc;

/// EAP under way.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) handshake: Box<Handshake>,
    role: Role,
}

#[derive(Debug)]
enum Role {
    /// We ask who it is. `first` is what the peer asked for, `won` who it is and the MSK, once EAP has succeeded.
    Server { connection: Arc<Connection>, first: Box<Kept>, server: Server, won: Option<Won> },
    /// We are asked by a responder that says it is `id`.
    Client { gateway: Gateway, id: IdBody, client: Client, spi_in: Option<u32>, won: Option<Secret> },
}

/// A responder that asks who we are.
#[derive(Debug)]
pub(super) enum Gateway {
    /// It has proved who it is.
    Proved(Authenticated),
    /// It will do so in EAP, and nothing it has said is believed before.
    Claims(Id),
}

impl Gateway {
    const fn id(&self) -> &Id {
        match self {
            Self::Proved(proved) => proved.id(),
            Self::Claims(id) => id,
        }
    }
}

/// What a peer asked for before EAP, until it has proved who it is: what is still of use of its first message of IKE_AUTH.
#[derive(Clone, Debug)]
struct Kept {
    message: Message,
    octets: usize,
}

/// The longest notification or attribute of it that means something.
const MAX_DATA: usize = 64;

impl Kept {
    fn of(message: &Message) -> Self {
        let mut message = message.clone();
        message.payloads.retain_mut(|payload| match payload {
            Payload::IdI(_) | Payload::IdR(_) | Payload::Sa(_) | Payload::TsI(_) | Payload::TsR(_) => true,
            Payload::Notify(notify) => notify.data.len() <= MAX_DATA,
            Payload::Cp(configuration) => {
                configuration.attributes.retain(|attribute| attribute.value.len() <= MAX_DATA);
                true
            }
            _ => false,
        });
        message.payloads.shrink_to_fit();
        let octets = crate::protect::plain(&message.payloads).len().saturating_mul(2);
        Self { message, octets }
    }
}

impl Conversation {
    /// Octets that are kept for it.
    pub(crate) fn held(&self) -> usize {
        match &self.role {
            Role::Server { first, server, .. } => first.octets.saturating_add(server.held()),
            Role::Client { .. } => 0,
        }
    }
}

/// Why EAP has failed already, if it has and the peer has not waited to be told.
pub(super) fn failed(sa: &IkeSa) -> Option<Why> {
    let Stage::Eap(conversation) = &sa.stage else { return None };
    let Role::Server { server, .. } = &conversation.role else { return None };
    server.over()
}

fn packet(message: &Message) -> Option<&[u8]> {
    message.payloads.iter().find_map(|p| if let Payload::Eap(packet) = p { Some(&**packet) } else { None })
}

fn challenge(cx: &mut Context<'_>) -> [u8; 16] {
    let mut challenge = [0; 16];
    cx.random.fill(&mut challenge);
    challenge
}

/// Our AUTH with the MSK, made with `keys`; `side` is ours.
fn prove(sa: &IkeSa, keys: &IkeKeys, msk: &Secret, id: &IdBody, side: usize) -> Option<Payload> {
    let int_auth = auth::int_auth(sa);
    let data = auth::signed(sa, keys, side, &int_auth)?.shared_key(keys.prf, msk, id).to_vec();
    Some(Payload::Auth { method: SHARED_KEY, data })
}

/// Proves who we are, and asks the peer who it is.
pub(super) fn ask(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    (connection, how): (Arc<Connection>, &RemoteEap),
    mut payloads: Vec<Payload>,
) {
    let [id, ..] = challenge(cx);
    let (server, packet) = Server::begin(id, how);
    payloads.push(Payload::Eap(packet));
    let Some(handshake) = sa.take_handshake() else { return };
    sa.respond(cx, Exchange::IkeAuth, message.header.id, payloads);
    let role = Role::Server { connection, first: Box::new(Kept::of(message)), server, won: None };
    sa.stage = Stage::Eap(Box::new(Conversation { handshake, role }));
}

/// Answers a peer in the middle of EAP.
pub(super) fn answer(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let fresh = challenge(cx);
    let Stage::Eap(conversation) = &sa.stage else { return Ok(()) };
    let Role::Server { connection, first, server, won } = &conversation.role else {
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    };
    if let Some(won) = won {
        let (won, connection, first) = (won.clone(), connection.clone(), first.clone());
        return finish(sa, cx, (message, &first.message), (&won, connection), answers);
    }
    let Some(packet) = packet(message) else {
        return Err(auth::deny(1, Why::Protocol("it stops in the middle of EAP")));
    };
    let Some(said) = identity(&first.message) else {
        return Err(auth::deny(1, Why::Internal("nobody asked")));
    };
    let (secrets, at) = (&cx.config.secrets, cx.config.time_of_day(cx.now));
    let around = Around { connection, secrets, said, at, fresh };
    // The handler may be called again, and nothing may have changed then.
    let mut further = server.clone();
    let step = further.take(packet, around, answers)?;
    let (reply, success, end) = match step {
        Step::Send(reply) => (Some(reply), None, None),
        Step::Success((reply, won)) => (Some(reply), Some(won), None),
        Step::Failure(reply, why) => (reply, None, Some(why)),
    };
    if let Stage::Eap(conversation) = &mut sa.stage
        && let Role::Server { server, won, .. } = &mut conversation.role
    {
        (*server, *won) = (further, success);
    }
    let payloads = reply.map(Payload::Eap).into_iter().collect();
    sa.respond(cx, Exchange::IkeAuth, message.header.id, payloads);
    if let Some(why) = end {
        sa.close(cx, why);
    }
    Ok(())
}

/// What the peer said it is before EAP.
fn identity(first: &Message) -> Option<&IdBody> {
    first.payloads.iter().find_map(|p| if let Payload::IdI(id) = p { Some(id) } else { None })
}

/// EAP has succeeded; the peer's AUTH says that it was EAP with us, in this handshake.
fn finish(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    (message, first): (&Message, &Message),
    (won, connection): (&Won, Arc<Connection>),
    answers: &mut Answers,
) -> Result<(), Pause> {
    let denied = |why| auth::deny(1, why);
    let broken = || denied(Why::Internal("AUTH could not be made"));
    let auth = message
        .payloads
        .iter()
        .find_map(|p| if let Payload::Auth { method, data } = p { Some((*method, data)) } else { None });
    let (Some(id), Some((method, data))) = (identity(first), auth) else {
        return Err(denied(Why::Protocol("it does not prove that EAP was with us")));
    };
    // Meanwhile the connection may have been changed, or taken away.
    if cx.config.connections.get(&connection.name).is_none_or(|known| **known != *connection) {
        return Err(denied(Why::NoConnection(won.id.to_string())));
    }
    let int_auth = auth::int_auth(sa);
    let both = sa.handshake().is_some_and(|handshake| handshake.can_ppk);
    let mix = ppk::decide(&cx.config.secrets, &connection, &won.id, both, message).map_err(denied)?;
    let data = if let Mix::Instead(proof) = mix { proof } else { data };
    let keys = mix.keys(&auth::keys(sa).ok_or_else(broken)?);
    let signed = auth::signed(sa, &keys, 0, &int_auth).ok_or_else(broken)?;
    let proved = after_eap(keys.prf, won, &connection, Claim { id, method, data }, signed).map_err(denied)?;
    let ours = prove(sa, &keys, &won.msk, &connection.local_id.body(), 1).ok_or_else(broken)?;
    let mix = (keys, mix.id());
    let what = Proved { proved, connection, payloads: vec![ours], id: message.header.id, mix };
    auth::grant(sa, cx, first, what, answers)
}

/// The responder asks who we are.
pub(super) fn begin(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    (gateway, spi_in): (Gateway, Option<u32>),
    answers: &mut Answers,
) -> Result<(), Pause> {
    let fresh = challenge(cx);
    let connection = sa.connection.clone();
    let local = connection.as_ref().and_then(|connection| match &connection.local_auth {
        LocalAuth::Eap(local) => Some((local, connection)),
        LocalAuth::SharedKey | LocalAuth::Signature(_) => None,
    });
    let id =
        message.payloads.iter().find_map(|p| if let Payload::IdR(id) = p { Some(id.clone()) } else { None });
    let (Some((local, connection)), Some(id)) = (local, id) else {
        return Err(Pause::Fail(Why::Internal("nothing says who we are in EAP")));
    };
    let alone = matches!(gateway, Gateway::Claims(_));
    let peer = Peer { id: gateway.id(), alone, at: cx.config.time_of_day(cx.now) };
    let client = match Client::new(local, connection, &cx.config.secrets, peer) {
        Ok(client) => client,
        Err(why) => {
            auth::disbelieve(sa, cx, why);
            return Ok(());
        }
    };
    // Some servers ask nobody's name, and begin with their method.
    let said = speak(client, message, fresh, answers)?;
    sa.granted();
    let Some(handshake) = sa.take_handshake() else { return Ok(()) };
    let role = Role::Client { gateway, id, client: said.0, spi_in, won: None };
    sa.stage = Stage::Eap(Box::new(Conversation { handshake, role }));
    spoken(sa, cx, said.1);
    Ok(())
}

/// Takes what the responder says in the middle of EAP.
pub(super) fn answered(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let fresh = challenge(cx);
    let Stage::Eap(conversation) = &sa.stage else { return Ok(()) };
    let Role::Client { gateway, id, won, client, .. } = &conversation.role else { return Ok(()) };
    if packet(message).is_none()
        && !message.payloads.iter().any(|payload| matches!(payload, Payload::Auth { .. }))
        && let Some(notify) = refused(message)
    {
        return Err(Pause::Fail(Why::Refused("IKE_AUTH", notify.kind)));
    }
    let Some(msk) = won else {
        let (client, step) = speak(client.clone(), message, fresh, answers)?;
        sa.granted();
        if let Stage::Eap(conversation) = &mut sa.stage
            && let Role::Client { client: before, .. } = &mut conversation.role
        {
            *before = client;
        }
        spoken(sa, cx, step);
        return Ok(());
    };
    // The last word: it proves that it was the other end of EAP, and not somebody between.
    let broken = || Pause::Fail(Why::Internal("AUTH could not be made"));
    let connection = sa.connection.as_ref().ok_or_else(broken)?;
    let mix = match ppk::granted(conversation.handshake.named.as_ref(), connection, message) {
        Ok(Some(named)) => (named.keys.clone(), Some(named.id.clone())),
        Ok(None) => (auth::keys(sa).ok_or_else(broken)?, None),
        Err(why) => {
            auth::disbelieve(sa, cx, why);
            return Ok(());
        }
    };
    let theirs = message
        .payloads
        .iter()
        .find_map(|p| if let Payload::Auth { method: SHARED_KEY, data } = p { Some(&**data) } else { None });
    let claim = Claim { id, method: SHARED_KEY, data: theirs.unwrap_or_default() };
    let int_auth = auth::int_auth(sa);
    let signed = auth::signed(sa, &mix.0, 1, &int_auth).ok_or_else(broken)?;
    let prf = mix.0.prf;
    let ended = match gateway {
        Gateway::Proved(proved) => of_eap(prf, (proved.id(), msk), claim, signed).map(|()| None),
        Gateway::Claims(_) => {
            let won = Won { id: client.server().ok_or_else(broken)?.clone(), msk: msk.clone() };
            after_eap(prf, &won, connection, claim, signed).map(Some)
        }
    };
    let in_eap = match ended {
        Ok(in_eap) => in_eap,
        Err(why) => {
            auth::disbelieve(sa, cx, why);
            return Ok(());
        }
    };
    let Stage::Eap(conversation) = core::mem::replace(&mut sa.stage, Stage::Closed) else { return Ok(()) };
    let Conversation { handshake, role: Role::Client { gateway, spi_in, .. } } = *conversation else {
        return Ok(());
    };
    let proved = match (gateway, in_eap) {
        (Gateway::Proved(proved), _) | (Gateway::Claims(_), Some(proved)) => proved,
        (Gateway::Claims(_), None) => return Ok(()),
    };
    sa.stage = Stage::Keyed(handshake);
    sa.granted();
    auth::mixed(sa, mix.0, mix.1);
    auth::conclude(sa, cx, message, (proved, spi_in));
    Ok(())
}

/// Gives the responder's packet to the client; it has none where it lets us in without asking who we are.
fn speak(
    mut client: Client,
    message: &Message,
    fresh: [u8; 16],
    answers: &mut Answers,
) -> Result<(Client, Option<Step<Secret>>), Pause> {
    let step = packet(message).map(|packet| client.take(packet, fresh, answers)).transpose()?;
    Ok((client, step))
}

/// Sends what the client has to say.
fn spoken(sa: &mut IkeSa, cx: &mut Context<'_>, step: Option<Step<Secret>>) {
    let Some(step) = step else {
        return auth::disbelieve(
            sa,
            cx,
            Why::Protocol("it asks for no EAP, and the connection is to prove in it who we are (leftauth=)"),
        );
    };
    let payloads = match step {
        Step::Send(packet) => Ok(vec![Payload::Eap(packet)]),
        Step::Success(msk) => {
            let payloads = last_word(sa, cx, &msk);
            if let Stage::Eap(conversation) = &mut sa.stage
                && let Role::Client { won, .. } = &mut conversation.role
            {
                *won = Some(msk);
            }
            payloads
        }
        // The responder knows, or is not worth being told.
        Step::Failure(_, why) => Err(why),
    };
    match payloads {
        Ok(payloads) => {
            sa.ask(cx, Exchange::IkeAuth, payloads, Asked::Eap);
        }
        Err(why) => sa.close(cx, why),
    }
}

/// Our AUTH after EAP, and the post-quantum preshared key that goes with it, if any.
fn last_word(sa: &mut IkeSa, cx: &Context<'_>, msk: &Secret) -> Result<Vec<Payload>, Why> {
    let broken = || Why::Internal("AUTH could not be made");
    let connection = sa.connection.clone().ok_or_else(broken)?;
    let (id, peer) = (connection.local_id.body(), auth::peer(sa, &connection));
    let named = auth::named(sa, cx, &connection, &peer)?;
    let keys = auth::keys(sa).ok_or_else(broken)?;
    let mixed = named.as_ref().map_or(&keys, |named| &named.keys);
    let auth = prove(sa, mixed, msk, &id, 0).ok_or_else(broken)?;
    let can_without = named.is_some() && connection.ppk.need == PpkNeed::Propose;
    let without = if can_without { prove(sa, &keys, msk, &id, 0) } else { None };
    let payloads = auth::with_ppk(auth, named.as_ref(), without);
    if let Stage::Eap(conversation) = &mut sa.stage {
        conversation.handshake.named = named;
    }
    Ok(payloads)
}
