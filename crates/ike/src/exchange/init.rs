//! IKE_SA_INIT (RFC 7296 §1.2, §2.6, §2.7, §2.23).

use super::{ke, nonce, notifications, notified, proposals, refused};
use crate::auth::methods::{self, Methods};
use crate::connection::{Connection, Encapsulation};
use crate::credential::Schemes;
use crate::event::Why;
use crate::job::{Answer, Job};
use crate::keys::{IkeKeys, Seed};
use crate::message::{Exchange, IkeSpi, Message, Notify, NotifyKind, Payload};
use crate::outbox::Context;
use crate::ppk::{self, PpkNeed};
use crate::proposal::{self, Chosen, Offer, Protocol};
use crate::protect::{Opened, Opener, Sealer};
use crate::sa::{Answers, Asked, Channel, DATAGRAM, Handshake, IkeSa, Nat, Pause, Stage, Task};
use crate::tape::{Entry, Keys};
use core::net::SocketAddr;
use core::time::Duration;
use ipsec_core::Secret;
use ipsec_core::digest::sha1;
use ipsec_core::kex::Group;
use std::sync::Arc;

/// By this two of our own gateways know each other, and carry ESP in UDP where both may choose.
const VENDOR: &[u8] = b"tulips";
/// After a refusal that anybody could have sent, the peer itself has so long to answer.
const BETTER: Duration = Duration::from_secs(4);
/// How often a peer may send us back for a cookie or a group.
const MAX_ROUNDS: u8 = 8;
/// Hashes of signatures that are looked at.
const MAX_HASHES: usize = 32;
/// The port of IKE behind NAT and with ESP in UDP (RFC 3947 §4).
pub(crate) const NAT_PORT: u16 = 4500;

/// Asks for a new IKE SA.
pub(crate) fn begin(sa: &mut IkeSa, cx: &mut Context<'_>, answers: &mut Answers) -> Result<(), Pause> {
    let (Some(connection), Stage::Opening(opening)) = (sa.connection.clone(), &sa.stage) else {
        return Ok(());
    };
    let (group, fresh) = (opening.group, opening.offer.clone());
    let (offer, share) = match fresh {
        Some(known) => known,
        None => match answers.ask(|| Job::Offer(group))? {
            Answer::Offered(Ok(offered)) => offered,
            _ => {
                return Err(Pause::Fail(Why::Internal("the key exchange could not be begun: no randomness")));
            }
        },
    };
    let peer = super::auth::peer(sa, &connection);
    let ppk = ppk::ours(&cx.config.secrets, &connection, &peer).is_some();
    if !ppk && connection.ppk.need == PpkNeed::Insist {
        return Err(Pause::Fail(Why::NoPpkSecret(connection.local_id.to_string(), peer.to_string())));
    }
    let mut payloads = Vec::new();
    // The cookie stands first, what it is about unchanged (RFC 7296 §2.6).
    payloads.extend(
        opening.cookie.clone().map(|cookie| Payload::Notify(Notify::new(NotifyKind::Cookie, cookie))),
    );
    payloads.push(Payload::Sa(proposal::proposals(&connection.ike, Protocol::Ike, &[])));
    payloads.push(Payload::Ke { group: group.number(), data: share.clone() });
    payloads.push(Payload::Nonce(opening.ni.clone()));
    payloads.extend(about_us(sa, &connection, IkeSpi(0)));
    if connection.ike.iter().any(|offer| !offer.additional.is_empty()) {
        payloads.push(crate::sa::notify(NotifyKind::IntermediateExchangeSupported));
    }
    payloads.extend(ppk.then(|| crate::sa::notify(NotifyKind::UsePpk)));
    cx.out.progress(Some(&connection), format!("IKE_SA_INIT to {}", sa.remote));
    let message = sa.ask(cx, Exchange::IkeSaInit, payloads, Asked::Init);
    if let Stage::Opening(opening) = &mut sa.stage {
        opening.sent = message.emit();
        opening.offer = Some((offer, share));
    }
    Ok(())
}

/// NAT detection and what we can do: the part that both first messages share.
fn about_us(sa: &IkeSa, connection: &Connection, spi_r: IkeSpi) -> Vec<Payload> {
    let spis = if sa.initiator { (sa.key, spi_r) } else { (sa.peer_spi, sa.key) };
    let forced = connection.encapsulation == Encapsulation::Yes;
    let mut payloads = nat_detection(spis, (sa.local, sa.remote), forced);
    if connection.fragmentation {
        payloads.push(crate::sa::notify(NotifyKind::Ikev2FragmentationSupported));
    }
    // Whose signature we will verify, only IKE_AUTH says; what we can verify with is no secret (RFC 7427 §4).
    let signature = connection.remote_auth.signature.as_ref().map(|policy| policy.schemes.announced());
    let hashes = signature.unwrap_or_else(|| Schemes::default().announced());
    let data = hashes.iter().flat_map(|number| number.to_be_bytes()).collect();
    payloads.push(Payload::Notify(Notify::new(NotifyKind::SignatureHashAlgorithms, data)));
    if connection.encapsulation == Encapsulation::Auto {
        payloads.push(Payload::Vendor(VENDOR.to_vec()));
    }
    payloads
}

/// The hashes the peer says it can verify with.
fn hashes(message: &Message) -> Option<Vec<u16>> {
    let notify = notified(message, NotifyKind::SignatureHashAlgorithms)?;
    let (pairs, _) = notify.data.as_chunks::<2>();
    Some(pairs.iter().take(MAX_HASHES).map(|pair| u16::from_be_bytes(*pair)).collect())
}

/// The two hashes by which the peer sees whether addresses are changed on the way.
pub(super) fn nat_detection(
    spis: (IkeSpi, IkeSpi),
    (local, remote): (SocketAddr, SocketAddr),
    forced: bool,
) -> Vec<Payload> {
    // Forced encapsulation: a source that is not ours makes the peer see a NAT (reference: what peers do in the field).
    let source = if forced { SocketAddr::new(local.ip(), 0) } else { local };
    [(NotifyKind::NatDetectionSourceIp, source), (NotifyKind::NatDetectionDestinationIp, remote)]
        .map(|(kind, end)| Payload::Notify(Notify::new(kind, nat_hash(spis, end).to_vec())))
        .into()
}

/// SHA-1 of the SPIs, the address and the port (RFC 7296 §2.23).
fn nat_hash((spi_i, spi_r): (IkeSpi, IkeSpi), end: SocketAddr) -> [u8; 20] {
    let (spi_i, spi_r, port) = (spi_i.0.to_be_bytes(), spi_r.0.to_be_bytes(), end.port().to_be_bytes());
    match end.ip() {
        core::net::IpAddr::V4(address) => sha1(&[&spi_i, &spi_r, &address.octets(), &port]),
        core::net::IpAddr::V6(address) => sha1(&[&spi_i, &spi_r, &address.octets(), &port]),
    }
}

/// What the peer's NAT detection and vendor ID say.
pub(super) fn nat(message: &Message, ends: (SocketAddr, SocketAddr), policy: Encapsulation) -> Nat {
    let spis = (message.header.spi_i, message.header.spi_r);
    let says = |kind: NotifyKind, end: SocketAddr| {
        let mut all = notifications(message).filter(|notify| notify.kind == kind).peekable();
        // A peer that says nothing of NAT has none to deal with.
        all.peek().is_some() && !all.any(|notify| notify.data == nat_hash(spis, end))
    };
    let (local, remote) = ends;
    let there = says(NotifyKind::NatDetectionSourceIp, remote);
    let here = says(NotifyKind::NatDetectionDestinationIp, local);
    let kin = message.payloads.iter().any(|payload| matches!(payload, Payload::Vendor(id) if id == VENDOR));
    let encapsulate = here || there || policy == Encapsulation::Yes || (kin && policy == Encapsulation::Auto);
    Nat { here, there, kin, encapsulate }
}

/// Takes the answer to our first message.
pub(crate) fn answered(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    opened: &Opened,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let message = &opened.message;
    let Some(connection) = sa.connection.clone() else { return Ok(()) };
    if message.header.spi_i != sa.key {
        return Ok(());
    }
    let Stage::Opening(opening) = &mut sa.stage else { return Ok(()) };
    if let Some(back) = sent_back(message, &connection) {
        opening.rounds = opening.rounds.saturating_add(1);
        match back {
            Ok(_) if opening.rounds > MAX_ROUNDS => {
                refuses(sa, cx, Why::Protocol("it demands one cookie or group after the other"));
                return Ok(());
            }
            Ok(Back::Cookie(cookie)) => opening.cookie = Some(cookie),
            Ok(Back::Group(group)) => (opening.group, opening.offer) = (group, None),
            Err(why) => {
                refuses(sa, cx, why);
                return Ok(());
            }
        }
        sa.again();
        sa.tasks.push_front(Task::Init);
        return Ok(());
    }
    if let Some(notify) = refused(message) {
        let why = match notify.kind {
            NotifyKind::NoProposalChosen => Why::Unwanted(sa.local.ip()),
            kind => Why::Refused("IKE_SA_INIT", kind),
        };
        refuses(sa, cx, why);
        return Ok(());
    }
    let Some((offer, _)) = opening.offer.clone() else { return Ok(()) };
    let theirs = proposals(message).first();
    let chosen = theirs.and_then(|theirs| {
        let ours = connection.ike.get(usize::from(theirs.number).checked_sub(1)?)?;
        ours.confirm(theirs.number, theirs)
    });
    let Some(chosen) = chosen else {
        refuses(sa, cx, Why::Protocol("it chose algorithms that were not offered"));
        return Ok(());
    };
    let Some((group, share)) = ke(message) else { return Ok(()) };
    if chosen.group != Some(opening.group)
        || group != opening.group.number()
        || message.header.spi_r == IkeSpi(0)
    {
        refuses(sa, cx, Why::Protocol("its key exchange is not the one it chose"));
        return Ok(());
    }
    let Answer::Finished(Ok(shared)) = answers.ask(|| Job::Finish(offer, share.to_vec()))? else {
        refuses(sa, cx, Why::Protocol("its key exchange value is none"));
        return Ok(());
    };
    let can_ppk = notified(message, NotifyKind::UsePpk).is_some();
    if connection.ppk.need == PpkNeed::Insist && !can_ppk {
        refuses(sa, cx, Why::NoPpk);
        return Ok(());
    }
    let nat = nat(message, (sa.local, sa.remote), connection.encapsulation);
    if (nat.here || nat.there) && connection.encapsulation == Encapsulation::No {
        refuses(sa, cx, Why::Nat);
        return Ok(());
    }
    let fragmentation = notified(message, NotifyKind::Ikev2FragmentationSupported).is_some();
    let Stage::Opening(opening) = core::mem::replace(&mut sa.stage, Stage::Closed) else { return Ok(()) };
    let handshake = Handshake {
        init_i: opening.sent,
        init_r: opened.inner.to_vec(),
        ni: opening.ni,
        nr: nonce(message).to_vec(),
        int_auth: Default::default(),
        additional: chosen.additional.iter().copied().collect(),
        hashes: hashes(message),
        methods: Methods::of(message),
        asked: super::auth::asks(message),
        can_ppk,
        named: None,
    };
    let additional = !handshake.additional.is_empty();
    sa.peer_spi = message.header.spi_r;
    keyed(sa, cx, chosen, &shared, handshake)?;
    sa.fragmentation = fragmentation && connection.fragmentation;
    sa.nat = nat;
    sa.peer_can_be_childless = notified(message, NotifyKind::ChildlessIkev2Supported).is_some();
    // A host that may move has both ports ready for a NAT (RFC 4555 §3.3). A peer that says nothing of NAT need not be at the other.
    let knows_nat = notified(message, NotifyKind::NatDetectionDestinationIp).is_some();
    if nat.encapsulate || (connection.mobike && knows_nat) {
        // From here on everything goes where ESP in UDP goes (RFC 7296 §2.23).
        sa.local.set_port(NAT_PORT);
        if sa.remote.port() == 500 {
            sa.remote.set_port(NAT_PORT);
        }
    }
    sa.granted();
    sa.tasks.push_front(if additional { Task::Intermediate } else { Task::Auth });
    Ok(())
}

/// An error that anybody on the way could have sent, or an answer that is none: it is said, and a better answer waited for (RFC 7296 §2.21.1).
fn refuses(sa: &mut IkeSa, cx: &mut Context<'_>, why: Why) {
    let Stage::Opening(opening) = &mut sa.stage else { return };
    if opening.refused.is_none() {
        cx.out.progress(
            sa.connection.as_ref(),
            format!("{why}. Anybody could say so: a better answer is waited for"),
        );
    }
    opening.refused = Some(why);
    sa.expires = sa.expires.min(cx.now.after(BETTER));
}

/// Why the peer wants the first message once more.
enum Back {
    Cookie(Vec<u8>),
    Group(Group),
}

fn sent_back(message: &Message, connection: &Connection) -> Option<Result<Back, Why>> {
    if let Some(notify) = notified(message, NotifyKind::InvalidKePayload) {
        let group =
            <[u8; 2]>::try_from(&*notify.data).ok().and_then(|n| Group::from_number(u16::from_be_bytes(n)));
        // Only to what we offer ourselves: nobody on the way can lead us to a weaker group.
        let ours = group.filter(|group| connection.ike.iter().any(|offer| offer.groups.contains(group)));
        return Some(ours.map(Back::Group).ok_or(Why::Refused("the key exchange method", notify.kind)));
    }
    let cookie = notified(message, NotifyKind::Cookie)?;
    let fits = (1..=64).contains(&cookie.data.len());
    Some(if fits { Ok(Back::Cookie(cookie.data.clone())) } else { Err(Why::Protocol("its cookie")) })
}

/// Makes the keys of a handshake, and the channel from them.
fn keyed(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    chosen: Chosen,
    shared: &Secret,
    handshake: Handshake,
) -> Result<(), Pause> {
    let broken = || Pause::Fail(Why::Internal("the algorithms chosen do not go together"));
    let prf = chosen.prf.ok_or_else(broken)?;
    let (spi_i, spi_r) = sa.spis();
    let seed = Seed { ni: &handshake.ni, nr: &handshake.nr, spi_i, spi_r };
    let keys = IkeKeys::initial(&chosen, prf, shared, seed);
    sa.channel = Some(channel((sa.initiator, sa.spis()), cx, chosen, keys).ok_or_else(broken)?);
    sa.stage = Stage::Keyed(Box::new(handshake));
    Ok(())
}

/// The two directions under new keys.
pub(crate) fn channel(
    (initiator, spis): (bool, (IkeSpi, IkeSpi)),
    cx: &mut Context<'_>,
    chosen: Chosen,
    keys: IkeKeys,
) -> Option<Channel> {
    cx.out.note(|| {
        let (encryption, integrity) = (keys.e.clone(), keys.a.clone());
        let (cipher, mac) = (chosen.encryption, chosen.integrity);
        Entry::Keys(Box::new(Keys { spis, encryption, integrity, cipher, mac }))
    });
    let [i, r] = keys.ciphers(&chosen)?;
    let (out, inn) = if initiator { (i, r) } else { (r, i) };
    let mut start = [0; 8];
    cx.random.fill(&mut start);
    let sealer = Sealer::new(out, u64::from_be_bytes(start));
    Some(Channel { chosen, keys, sealer, opener: Opener::new(inn) })
}

/// What a first message of a peer comes to before anything is kept for it.
pub(crate) enum First {
    /// Its algorithms and its key exchange are acceptable.
    Accept(Box<Chosen>),
    /// It is answered, and forgotten.
    Answer(Notify, Why),
}

/// Chooses from the first message of a peer, for the connections that the two addresses may be of.
pub(crate) fn consider(message: &Message, offers: &[Offer]) -> First {
    let theirs = proposals(message);
    let chosen = match proposal::choose(offers, theirs, Protocol::Ike) {
        Ok((_, chosen)) => chosen,
        Err(kinds) => {
            let ours = proposal::text(&proposal::proposals(offers, Protocol::Ike, &[]));
            let why = Why::NoProposal { what: "IKE SA", kinds, theirs: proposal::text(theirs), ours };
            return First::Answer(Notify::new(NotifyKind::NoProposalChosen, Vec::new()), why);
        }
    };
    let Some(group) = chosen.group else {
        return First::Answer(
            Notify::new(NotifyKind::NoProposalChosen, Vec::new()),
            Why::Protocol("no key exchange"),
        );
    };
    if ke(message).is_none_or(|(sent, _)| sent != group.number()) {
        // What was sent is for another group than the one chosen; the right one is named (RFC 7296 §1.2).
        let data = group.number().to_be_bytes().to_vec();
        return First::Answer(
            Notify::new(NotifyKind::InvalidKePayload, data),
            Why::Protocol("another group is wanted"),
        );
    }
    if !chosen.additional.is_empty() && notified(message, NotifyKind::IntermediateExchangeSupported).is_none()
    {
        let why = Why::Protocol("it offers additional key exchanges without IKE_INTERMEDIATE");
        return First::Answer(Notify::new(NotifyKind::NoProposalChosen, Vec::new()), why);
    }
    First::Accept(Box::new(chosen))
}

/// Answers the first message of a peer.
pub(crate) fn answer(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let (Some((_, share)), Stage::Answering { chosen, .. }) = (ke(message), &sa.stage) else { return Ok(()) };
    let Some(group) = chosen.group else { return Ok(()) };
    let Answer::Accepted(Ok((ours, shared))) = answers.ask(|| Job::Accept(group, share.to_vec()))? else {
        return Err(Pause::Refuse(Notify::new(NotifyKind::InvalidSyntax, Vec::new()), None));
    };
    let Stage::Answering { ni, chosen, init_i } = core::mem::replace(&mut sa.stage, Stage::Closed) else {
        return Ok(());
    };
    let policy = sa.connection.clone().unwrap_or_else(|| Arc::new(nobody()));
    sa.nat = nat(message, (sa.local, sa.remote), policy.encapsulation);
    let theirs = notified(message, NotifyKind::Ikev2FragmentationSupported).is_some();
    let nr = cx.nonce();
    let mut payloads = vec![
        Payload::Sa(vec![chosen.proposal(Protocol::Ike, Vec::new())]),
        Payload::Ke { group: group.number(), data: ours },
        Payload::Nonce(nr.clone()),
    ];
    payloads.extend(about_us(sa, &policy, sa.key));
    payloads.extend(super::auth::ask_for_certificate(sa, cx));
    if !chosen.additional.is_empty() {
        payloads.push(crate::sa::notify(NotifyKind::IntermediateExchangeSupported));
    }
    payloads.push(crate::sa::notify(NotifyKind::ChildlessIkev2Supported));
    // Whose connection this will be is not known: if any between these two ends may use one, we can (RFC 8784 §3).
    let can_ppk = notified(message, NotifyKind::UsePpk).is_some()
        && cx
            .config
            .connections
            .fitting(sa.local.ip(), sa.remote.ip())
            .any(|(_, connection)| ppk::can(&cx.config.secrets, connection));
    payloads.extend(can_ppk.then(|| crate::sa::notify(NotifyKind::UsePpk)));
    let of_ends =
        cx.config.connections.values().filter(|one| one.fit(sa.local.ip(), sa.remote.ip()).is_some());
    if let Some(methods) = methods::announce(of_ends.map(|one| &**one)) {
        // What is not cut into fragments must fit into one datagram (RFC 9593 §3.1).
        let header = sa.header(Exchange::IkeSaInit, true, 0);
        let longer = Message { header, payloads: payloads.iter().cloned().chain([methods]).collect() };
        if longer.emit().len() <= DATAGRAM {
            payloads = longer.payloads;
        }
    }
    let response = sa.respond(cx, Exchange::IkeSaInit, 0, payloads);
    let additional = chosen.additional.iter().copied().collect();
    let int_auth = Default::default();
    let (hashes, asked) = (hashes(message), false);
    let (init_r, methods, named) = (response.emit(), None, None);
    let handshake =
        Handshake { init_i, init_r, ni, nr, int_auth, additional, hashes, methods, asked, can_ppk, named };
    keyed(sa, cx, *chosen, &shared, handshake)?;
    sa.fragmentation = theirs && policy.fragmentation;
    // Whose connection this is, only IKE_AUTH will say.
    sa.connection = None;
    Ok(())
}

/// What is said before it is known which connection a peer is for.
pub(crate) fn nobody() -> Connection {
    use crate::connection::{ChildPolicy, Mode, Times, WhenGone};
    Connection {
        name: String::new(),
        local_address: None,
        remote_address: None,
        remote_port: 500,
        local_id: crate::identity::Id::Fqdn(String::new()),
        remote_id: crate::identity::IdPattern::Any,
        local_auth: Default::default(),
        remote_auth: Default::default(),
        ppk: Default::default(),
        ike: Vec::new(),
        child: ChildPolicy {
            offers: Vec::new(),
            mode: Mode::Tunnel,
            local: Vec::new(),
            remote: Vec::new(),
            upper: Default::default(),
            replay_window: 64,
            pad: None,
        },
        times: Times::default(),
        encapsulation: Encapsulation::Auto,
        fragmentation: true,
        attempts: None,
        when_gone: WhenGone::Clear,
        unique: true,
        mobike: false,
        childless: false,
        reauthenticate: false,
        provision: None,
        request: None,
    }
}
