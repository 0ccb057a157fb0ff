//! Child SAs: the payloads that IKE_AUTH and CREATE_CHILD_SA share, and CREATE_CHILD_SA itself (RFC 7296 §1.3.1,
//! §1.3.3, §2.8, §2.9).

use super::followup::{self, TheirWhat};
use super::transport;
use super::{ke, nonce, notified, proposals, refused};
use crate::connection::{Connection, Mode, Pad};
use crate::event::{ChildUp, Event, Keyed, Why};
use crate::job::{Answer, Job};
use crate::message::pairs::{Unfit, fitting, pairs};
use crate::message::{Exchange, Message, Notify, NotifyKind, Payload, TrafficSelector};
use crate::outbox::Context;
use crate::proposal::{self, Chosen, Offer, Protocol};
use crate::sa::{Answers, Asked, AskedChild, Child, IkeSa, Pause, Stage, Task};
use core::net::IpAddr;
use core::time::Duration;
use ipsec_core::Secret;
use ipsec_core::algorithm::Suite;
use ipsec_core::kex::Group;
use std::collections::VecDeque;
use std::sync::Arc;

/// A pair that a peer makes while it has another IKE SA here only receives for so long: our answer to it is under way.
pub(crate) const SUCCESSION: Duration = Duration::from_secs(1);
/// How long after TEMPORARY_FAILURE a request is tried again; up to as long again is added at random.
const LATER: Duration = Duration::from_secs(3);

/// Pairs of SAs that a peer may have of one connection on one IKE SA, those that wait for their deletion included; a rekeying
/// may go beyond, for a peer that has many rekeys many at once. Each costs the data plane two SAs and eroutes. Who needs more has
/// another connection for them, or wider selectors.
const MOST: usize = 256;
/// The same while one is to take another's place.
const MOST_WHILE_REKEYING: usize = 512;

/// What both sides agreed on for a Child SA, but for its keys.
#[derive(Debug)]
pub(crate) struct Agreed {
    chosen: Chosen,
    protocol: Protocol,
    mode: Mode,
    /// The peer takes packets with TFC padding.
    takes_padding: bool,
    spi_out: u32,
    /// The initiator's selectors of this exchange, and the responder's.
    ts: (Vec<TrafficSelector>, Vec<TrafficSelector>),
}

impl Agreed {
    /// What is sent is padded so: what the connection says, where the peer takes it. In transport mode nothing says where a
    /// packet ends and padding begins (RFC 4303 §2.7).
    pub(super) fn pad(&self, connection: &Connection) -> Option<Pad> {
        connection.child.pad.filter(|_| self.takes_padding && self.mode == Mode::Tunnel)
    }

    /// The additional key exchanges that are to come.
    pub(super) fn additional(&self) -> VecDeque<Group> {
        self.chosen.additional.iter().copied().collect()
    }
}

/// Says whether a rekeying of ours has additional key exchanges in it: then it takes several exchanges, and one of the peer's
/// that crosses it has to wait (RFC 7296 §2.25).
fn is_long(connection: &Connection) -> bool {
    connection.child.offers.iter().any(|offer| !offer.additional.is_empty() && !offer.groups.is_empty())
}

/// Where a pair of SAs comes from.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) spi_in: u32,
    pub(super) shared: &'a [Secret],
    pub(super) nonces: (&'a [u8], &'a [u8]),
    /// We began the exchange that made it.
    pub(super) initiated: bool,
    pub(super) replaces: Option<u32>,
    /// It is made while the peer makes another, and that one stands (RFC 7296 §2.8.1).
    pub(super) redundant: bool,
}

/// An SPI for our inbound SA, from the data plane.
pub(super) fn spi(sa: &IkeSa, answers: &mut Answers) -> Result<u32, Pause> {
    let (local, peer) = (sa.local.ip(), sa.remote.ip());
    match answers.ask(|| Job::Spi { local, peer })? {
        Answer::Spi(Some(spi)) => Ok(spi),
        _ => Err(Pause::Refuse(
            Notify::new(NotifyKind::NoAdditionalSas, Vec::new()),
            Some(Why::Internal(
                "the data plane gave no SPI: does klips run, and has it attached an interface?",
            )),
        )),
    }
}

/// What is known of addresses that one side gives the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Addresses {
    /// Nothing: each is whichever it may be.
    Any,
    /// We ask, and have ours already or take any (RFC 7296 §2.19).
    Asked,
    /// What was given, and nothing else.
    Given,
}

/// Our side and the peer's, as selectors: what is configured, else the two addresses themselves; where addresses are
/// given, those.
fn sides(
    sa: &IkeSa,
    connection: &Connection,
    addresses: Addresses,
) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let policy = &connection.child;
    let or = |list: &[TrafficSelector], address: IpAddr, ports: (u16, u16)| match list {
        [] => vec![TrafficSelector::of_range(address.into(), policy.upper.protocol, ports)],
        list if policy.mode == Mode::Transport => transport::at(list, address),
        list => list.to_vec(),
    };
    let mut ours = or(&policy.local, sa.local.ip(), policy.upper.local);
    let mut theirs = or(&policy.remote, sa.remote.ip(), policy.upper.remote);
    if let Some(provision) = &connection.provision {
        theirs = if addresses == Addresses::Any {
            let any = provision.pools.iter();
            any.map(|range| TrafficSelector { addresses: *range, ..TrafficSelector::everything(false) })
                .collect()
        } else {
            let held = sa.given.iter().filter(|address| provision.holds(**address));
            held.map(|address| TrafficSelector::of((*address).into(), 0, 0)).collect()
        };
        theirs.retain(|one| ours.iter().any(|other| one.is_ipv4() == other.is_ipv4()));
    }
    if let Some(request) = connection.request {
        ours = match (&sa.taken, addresses) {
            (Some(taken), Addresses::Asked | Addresses::Given) => {
                let all = taken.addresses.iter();
                all.map(|address| TrafficSelector::of((*address).into(), 0, 0)).collect()
            }
            (None, Addresses::Given) => Vec::new(),
            (_, Addresses::Any) | (None, Addresses::Asked) => {
                let families = [(request.ipv4, false), (request.ipv6, true)];
                let wanted = families.into_iter().filter(|(wanted, _)| *wanted);
                wanted.map(|(_, six)| TrafficSelector::everything(six)).collect()
            }
        };
        ours.retain(|one| theirs.iter().any(|other| one.is_ipv4() == other.is_ipv4()));
    }
    (ours, theirs)
}

/// The offers of a child: without key exchanges in IKE_AUTH.
fn offers(connection: &Connection, pfs: bool, group: Option<Group>) -> Vec<Offer> {
    let mut offers = connection.child.offers.clone();
    for offer in &mut offers {
        if !pfs || offer.groups.is_empty() {
            offer.groups.clear();
            offer.additional.clear();
        } else if let Some(group) = group.filter(|group| offer.groups.contains(group)) {
            offer.groups.retain(|known| *known != group);
            offer.groups.insert(0, group);
        }
    }
    offers
}

/// SA, TSi and TSr of a request of ours.
pub(super) fn offer(
    sa: &IkeSa,
    connection: &Connection,
    spi_in: u32,
    pfs: bool,
    group: Option<Group>,
) -> Vec<Payload> {
    let (ours, theirs) = sides(sa, connection, Addresses::Asked);
    let offers = offers(connection, pfs, group);
    let mut payloads = Vec::new();
    payloads.extend(transport::said(connection.child.mode));
    payloads.push(Payload::Sa(proposal::proposals(&offers, Protocol::Esp, &spi_in.to_be_bytes())));
    payloads.extend([Payload::TsI(ours), Payload::TsR(theirs)]);
    payloads
}

fn selectors(message: &Message) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let mut ts = (Vec::new(), Vec::new());
    for payload in &message.payloads {
        match payload {
            Payload::TsI(selectors) => ts.0.clone_from(selectors),
            Payload::TsR(selectors) => ts.1.clone_from(selectors),
            _ => {}
        }
    }
    ts
}

/// Says whether a peer takes packets with TFC padding: who does not says so (RFC 7296 §1.3.1).
fn takes_padding(message: &Message) -> bool {
    notified(message, NotifyKind::EspTfcPaddingNotSupported).is_none()
}

fn list(selectors: &[TrafficSelector]) -> String {
    selectors.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Whether a pair of SAs can carry what is between the two lists, ours first.
fn carried(mode: Mode, ts: (&[TrafficSelector], &[TrafficSelector])) -> Result<(), Why> {
    match pairs(ts.0, ts.1) {
        Ok(all) if mode == Mode::Transport && all.len() > 1 => Err(Why::Pairs(Unfit::Several)),
        Ok(_) => Ok(()),
        Err(unfit) => Err(Why::Pairs(unfit)),
    }
}

fn spi_of(proposal: &[u8]) -> Option<u32> {
    // 1 to 255 are reserved, and 0 is no SPI (RFC 4303 §2.1).
    <[u8; 4]>::try_from(proposal).ok().map(u32::from_be_bytes).filter(|spi| *spi > 255)
}

/// Says whether the selectors a peer asks for meet this connection's.
pub(super) fn answerable(sa: &IkeSa, message: &Message, connection: &Connection) -> bool {
    let Some(mode) = transport::granted(message, connection) else { return false };
    let ((ours, theirs), (ts_i, ts_r)) =
        (sides(sa, connection, Addresses::Any), transport::asked(sa, selectors(message), mode));
    !TrafficSelector::narrow(&ts_i, &theirs).is_empty() && !TrafficSelector::narrow(&ts_r, &ours).is_empty()
}

/// Chooses from a request of the peer.
///
/// # Errors
/// What the peer is told, and what is said here.
pub(super) fn choose(
    sa: &IkeSa,
    message: &Message,
    connection: &Connection,
    pfs: bool,
) -> Result<Agreed, (Notify, Why)> {
    let deny = |kind, why| (Notify::new(kind, Vec::new()), why);
    let mode = transport::granted(message, connection)
        .ok_or_else(|| deny(NotifyKind::NoProposalChosen, Why::Mode(Mode::Tunnel)))?;
    let offers = offers(connection, pfs, None);
    let (theirs, ours) = (proposals(message), proposal::proposals(&offers, Protocol::Esp, &[]));
    let (_, chosen) = proposal::choose(&offers, theirs, Protocol::Esp).map_err(|kinds| {
        let (theirs, ours) = (proposal::text(theirs), proposal::text(&ours));
        let why = Why::NoProposal { what: "Child SA", kinds, theirs, ours };
        deny(NotifyKind::NoProposalChosen, why)
    })?;
    if let Some(group) = chosen.group
        && ke(message).is_none_or(|(sent, _)| sent != group.number())
    {
        let data = group.number().to_be_bytes().to_vec();
        let why = Why::Protocol("another group is wanted for the Child SA");
        return Err((Notify::new(NotifyKind::InvalidKePayload, data), why));
    }
    let ((ours, theirs), (asked_i, asked_r)) =
        (sides(sa, connection, Addresses::Given), transport::asked(sa, selectors(message), mode));
    let mut ts = (TrafficSelector::narrow(&asked_i, &theirs), TrafficSelector::narrow(&asked_r, &ours));
    let fit = (fitting(&asked_i, &theirs), fitting(&asked_r, &ours));
    if !fit.0.is_empty() && !fit.1.is_empty() {
        ts = fit;
    }
    if mode == Mode::Transport {
        transport::first(&mut ts);
    }
    if ts.0.is_empty() || ts.1.is_empty() {
        let theirs_text = format!("{} and {}", list(&asked_i), list(&asked_r));
        let why =
            Why::Selectors { theirs: theirs_text, ours: format!("{} and {}", list(&theirs), list(&ours)) };
        return Err(deny(NotifyKind::TsUnacceptable, why));
    }
    // What the data plane could not install is not granted; the peer learns that now and not from packets that are lost.
    carried(mode, (&ts.1, &ts.0)).map_err(|why| deny(NotifyKind::TsUnacceptable, why))?;
    let spi_out = spi_of(&chosen.spi);
    let spi_out =
        spi_out.ok_or_else(|| deny(NotifyKind::NoProposalChosen, Why::Protocol("its SPI is reserved")))?;
    Ok(Agreed { chosen, protocol: Protocol::Esp, mode, takes_padding: takes_padding(message), spi_out, ts })
}

/// The payloads that grant what was chosen.
pub(super) fn grant(agreed: &Agreed, spi_in: u32) -> Vec<Payload> {
    let mut payloads = Vec::new();
    payloads.extend(transport::said(agreed.mode));
    payloads.push(Payload::Sa(vec![agreed.chosen.proposal(agreed.protocol, spi_in.to_be_bytes().to_vec())]));
    payloads.extend([Payload::TsI(agreed.ts.0.clone()), Payload::TsR(agreed.ts.1.clone())]);
    payloads
}

/// Checks what the peer granted against what we asked for.
///
/// # Errors
/// What is not as it must be.
pub(super) fn confirm(
    sa: &IkeSa,
    message: &Message,
    connection: &Connection,
    pfs: bool,
) -> Result<Agreed, Why> {
    let offers = offers(connection, pfs, None);
    let theirs = proposals(message).first().filter(|proposal| proposal.protocol == Protocol::Esp);
    let chosen = theirs.and_then(|theirs| {
        offers.get(usize::from(theirs.number).checked_sub(1)?)?.confirm(theirs.number, theirs)
    });
    let chosen = chosen.ok_or(Why::Protocol("it chose algorithms for the Child SA that were not offered"))?;
    let spi_out = spi_of(&chosen.spi).ok_or(Why::Protocol("its SPI is reserved"))?;
    let mode = transport::wanted(message);
    if mode != connection.child.mode {
        return Err(Why::Mode(mode));
    }
    let ((ours, theirs), (ts_i, ts_r)) =
        (sides(sa, connection, Addresses::Given), transport::answered(sa, selectors(message), mode));
    if ours.is_empty() && connection.request.is_some() {
        return Err(Why::NotGiven);
    }
    // The responder may narrow and never widen (RFC 7296 §2.9).
    let within = |granted: &[TrafficSelector], asked: &[TrafficSelector]| {
        !granted.is_empty() && granted.iter().all(|one| asked.iter().any(|asked| asked.covers(one)))
    };
    if !within(&ts_i, &ours) || !within(&ts_r, &theirs) {
        let granted = format!("{} and {}", list(&ts_r), list(&ts_i));
        return Err(Why::Selectors {
            theirs: granted,
            ours: format!("{} and {}", list(&theirs), list(&ours)),
        });
    }
    carried(mode, (&ts_i, &ts_r))?;
    let takes_padding = takes_padding(message);
    Ok(Agreed { chosen, protocol: Protocol::Esp, mode, takes_padding, spi_out, ts: (ts_i, ts_r) })
}

/// Makes the keys of a pair and hands it to the host.
pub(super) fn install(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    connection: &Arc<Connection>,
    agreed: Agreed,
    pair: Pair<'_>,
) {
    let (Some(channel), Stage::Established(proved)) = (&sa.channel, &sa.stage) else { return };
    let peer = proved.id().clone();
    let pad = agreed.pad(connection);
    let Agreed { chosen, protocol, mode, takes_padding, spi_out, ts } = agreed;
    if connection.child.pad.is_some() && !takes_padding {
        let what = "the peer takes no TFC padding (ESP_TFC_PADDING_NOT_SUPPORTED): tfc= does nothing";
        cx.out.progress(Some(connection), what.to_owned());
    }
    let (e, a) = (chosen.encryption_octets(), chosen.integrity_octets());
    let half = e.saturating_add(a);
    let (ni, nr) = pair.nonces;
    let keymat = channel.keys.child(pair.shared, ni, nr, half.saturating_mul(2));
    let keyed = |from: usize, spi: u32| Keyed {
        spi,
        encryption: keymat.part(from, e),
        integrity: keymat.part(from.saturating_add(e), a),
    };
    // The first half is for what the initiator of this exchange sends.
    let (out, inn) = if pair.initiated { (0, half) } else { (half, 0) };
    let (local_selectors, remote_selectors) = if pair.initiated { ts } else { (ts.1, ts.0) };
    let (rekey_at, expires) = super::auth::lifetimes(cx, connection, connection.times.child_life);
    if let Some(child) =
        sa.children.iter_mut().find(|child| Some(child.spi_in) == pair.replaces && !pair.redundant)
    {
        child.replaced_by = Some(pair.spi_in);
    }
    // On an older IKE SA of the peer packets go on meanwhile, and it has the keys only when it has our answer.
    let beside = !pair.initiated && sa.beside && pair.replaces.is_none();
    sa.children.push(Child {
        connection: connection.clone(),
        protocol,
        mode,
        spi_in: pair.spi_in,
        spi_out,
        placed: sa.place(),
        rekey_at,
        expires,
        idle_until: beside.then(|| cx.now.after(SUCCESSION)),
        replaced_by: None,
        deleting: false,
    });
    cx.out.events.push_back(Event::ChildUp(Box::new(ChildUp {
        ike: sa.key,
        peer,
        connection: connection.clone(),
        protocol,
        mode,
        pad,
        suite: Suite {
            encryption: chosen.encryption.map(|(encryption, _)| encryption),
            auth: chosen.integrity,
        },
        esn: chosen.esn,
        inbound: keyed(inn, pair.spi_in),
        outbound: keyed(out, spi_out),
        local_selectors,
        remote_selectors,
        local: sa.local,
        remote: sa.remote,
        encapsulate: sa.nat.encapsulate,
        replaces: pair.replaces,
        standby: pair.redundant || beside || (pair.replaces.is_some() && !pair.initiated),
        life: connection.times.child_life,
        configured: sa.taken.clone(),
    })));
}

/// The group whose share goes with a request: the one that IKE_SA_INIT was done with where the first offer with groups has it, else
/// that of the IKE SA, else the first of that offer. A wrong guess costs an exchange, and libreswan 4.10 answers it with
/// INVALID_SYNTAX in the place of INVALID_KE_PAYLOAD (RFC 7296 §1.3.1): it holds to the group of IKE_SA_INIT for Child SAs, also
/// when the IKE SA has been rekeyed with another.
fn likely_group(sa: &IkeSa, connection: &Connection) -> Option<Group> {
    let groups = &connection.child.offers.iter().find(|offer| !offer.groups.is_empty())?.groups;
    let agreed = sa.channel.as_ref().and_then(|channel| channel.chosen.group);
    let likely = [sa.first_group, agreed].into_iter().flatten().find(|group| groups.contains(group));
    likely.or_else(|| groups.first().copied())
}

/// Asks for a Child SA, new or in place of another.
pub(super) fn begin(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    (connection, rekeys, group): (&Arc<Connection>, Option<u32>, Option<Group>),
    answers: &mut Answers,
) -> Result<(), Pause> {
    let old = rekeys.and_then(|spi_in| sa.children.iter().find(|child| child.spi_in == spi_in));
    // It went, or was rekeyed by the peer, while the task waited.
    if rekeys.is_some() && old.is_none_or(Child::replaced) {
        return Ok(());
    }
    // The peer may not know yet that it has this pair; it does when it has deleted the one before.
    if rekeys.is_some_and(|spi_in| sa.children.iter().any(|child| child.replaced_by == Some(spi_in))) {
        sa.later.push((cx.now.after(LATER), Task::Child { connection: connection.clone(), rekeys, group }));
        return Ok(());
    }
    let rekey = old.map(|child| Notify {
        protocol: Some(child.protocol),
        spi: child.spi_in.to_be_bytes().to_vec(),
        kind: NotifyKind::RekeySa,
        data: Vec::new(),
    });
    let pfs = likely_group(sa, connection);
    let sent_back = group.is_some();
    let offer = match group.or(pfs).filter(|_| pfs.is_some()) {
        Some(group) => match answers.ask(|| Job::Offer(group))? {
            Answer::Offered(Ok(offered)) => Some(offered),
            _ => return Ok(()),
        },
        None => None,
    };
    let spi_in = match spi(sa, answers) {
        // The data plane is away for a moment: the old pair goes on, and the next try comes soon.
        Err(Pause::Refuse(..)) => {
            let task = Task::Child { connection: connection.clone(), rekeys, group };
            sa.later.push((cx.now.after(LATER), task));
            return Ok(());
        }
        other => other?,
    };
    let ni = cx.nonce();
    let mut payloads: Vec<Payload> = rekey.map(Payload::Notify).into_iter().collect();
    let group = offer.as_ref().map(|(offer, _)| offer.group());
    let mut asked = self::offer(sa, connection, spi_in, pfs.is_some(), group);
    let at = asked
        .iter()
        .position(|payload| matches!(payload, Payload::Sa(_)))
        .map_or(0, |at| at.saturating_add(1));
    let after = asked.split_off(at);
    payloads.extend(asked);
    payloads.push(Payload::Nonce(ni.clone()));
    if let Some((offer, share)) = &offer {
        payloads.push(Payload::Ke { group: offer.group().number(), data: share.clone() });
    }
    payloads.extend(after);
    let offer = offer.map(|(offer, _)| offer);
    let connection = connection.clone();
    let gone = Vec::new();
    let asked = AskedChild { connection, rekeys, spi_in, ni, offer, sent_back, crossed: None, gone };
    sa.ask(cx, Exchange::CreateChildSa, payloads, Asked::Child(Box::new(asked)));
    Ok(())
}

/// Takes the answer.
pub(super) fn answered(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let Some(Asked::Child(asked)) = sa.request.as_ref().map(|request| &request.asked) else { return Ok(()) };
    if let Some(notify) = refused(message) {
        let (kind, data) = (notify.kind, notify.data.clone());
        denied(sa, cx, kind, &data);
        return Ok(());
    }
    let pfs = asked.offer.is_some();
    let connection = asked.connection.clone();
    let shared = match (&asked.offer, ke(message)) {
        (Some(offer), Some((group, share))) if group == offer.group().number() => {
            let (offer, share) = (offer.clone(), share.to_vec());
            match answers.ask(|| Job::Finish(offer, share))? {
                Answer::Finished(Ok(shared)) => Some(shared),
                _ => None,
            }
        }
        _ => None,
    };
    let agreed = confirm(sa, message, &connection, pfs);
    let Some(Asked::Child(asked)) = sa.granted() else { return Ok(()) };
    let agreed = match agreed {
        Ok(agreed) if agreed.chosen.group.is_some() == shared.is_some() && pfs == shared.is_some() => agreed,
        outcome => {
            let why =
                outcome.err().unwrap_or(Why::Protocol("its key exchange for the Child SA is missing or bad"));
            sa.task(Task::DeleteChild(asked.spi_in));
            cx.out.events.push_back(Event::Failed { connection, why });
            return Ok(());
        }
    };
    if !agreed.chosen.additional.is_empty() {
        let Some(first) = shared else { return Ok(()) };
        let spi_in = asked.spi_in;
        if let Err(why) = followup::go_on_with_child(sa, asked, agreed, first, message) {
            sa.task(Task::DeleteChild(spi_in));
            cx.out.events.push_back(Event::Failed { connection, why });
        }
        return Ok(());
    }
    let shared: Vec<Secret> = shared.into_iter().collect();
    complete(sa, cx, *asked, agreed, &shared, nonce(message));
    Ok(())
}

/// All that was to be exchanged for a child of ours has been.
pub(super) fn complete(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    asked: AskedChild,
    agreed: Agreed,
    shared: &[Secret],
    nr: &[u8],
) {
    let connection = asked.connection.clone();
    // Both sides rekeyed at once: the pair whose exchange had the lowest of the four nonces goes, and whoever made it
    // takes it away; the other side takes away the old one (RFC 7296 §2.8.1).
    let lowest = asked.ni.as_slice().min(nr);
    let redundant = asked.crossed.as_ref().is_some_and(|(_, theirs)| lowest < theirs.as_slice());
    let pair = Pair {
        spi_in: asked.spi_in,
        shared,
        nonces: (&asked.ni, nr),
        initiated: true,
        replaces: asked.rekeys,
        redundant,
    };
    let spi_out = agreed.spi_out;
    install(sa, cx, &connection, agreed, pair);
    if asked.gone.contains(&spi_out) {
        // The peer's answer was overtaken by its deletion of what it had made.
        sa.remove_child(cx, asked.spi_in);
    } else if redundant {
        sa.task(Task::DeleteChild(asked.spi_in));
    } else if let Some(old) = asked.rekeys {
        if let Some(child) = sa
            .children
            .iter_mut()
            .find(|child| asked.crossed.as_ref().is_some_and(|(spi, _)| *spi == child.spi_in))
        {
            // The peer will delete it; should it not, we do not rekey what is one too many.
            child.replaced_by = Some(asked.spi_in);
        }
        sa.task(Task::DeleteChild(old));
    }
}

/// The peer refused the child.
fn denied(sa: &mut IkeSa, cx: &mut Context<'_>, kind: NotifyKind, data: &[u8]) {
    let Some(Asked::Child(asked)) = sa.granted() else { return };
    let AskedChild { connection, rekeys, crossed, offer, sent_back, .. } = *asked;
    let again = |group| Task::Child { connection: connection.clone(), rekeys, group };
    match kind {
        // The peer is busy with the same; if it rekeyed the child itself, that is done (RFC 7296 §2.25.1).
        NotifyKind::TemporaryFailure if crossed.is_none() => {
            let more = cx.random_below(u64::try_from(LATER.as_nanos()).unwrap_or(u64::MAX));
            let at = cx.now.after(LATER).after(Duration::from_nanos(more));
            sa.later.push((at, again(None)));
        }
        NotifyKind::TemporaryFailure => {}
        NotifyKind::InvalidKePayload => {
            let group =
                <[u8; 2]>::try_from(data).ok().and_then(|n| Group::from_number(u16::from_be_bytes(n)));
            let ours = group.filter(|_| !sent_back).filter(|group| {
                offer.is_some_and(|offer| offer.group() != *group)
                    && connection.child.offers.iter().any(|offer| offer.groups.contains(group))
            });
            match ours {
                Some(group) => sa.task(again(Some(group))),
                None => {
                    let why = Why::Refused("the key exchange of the Child SA", kind);
                    later(sa, cx, rekeys, again(None));
                    cx.out.events.push_back(Event::Failed { connection, why });
                }
            }
        }
        // It does not have what was to be rekeyed: ours is of no use, and a new one takes its place (§2.25.1). If ours is
        // gone or replaced meanwhile, the peer has only been faster.
        NotifyKind::ChildSaNotFound if rekeys.is_some() => {
            let known = sa.children.iter().find(|child| Some(child.spi_in) == rekeys && !child.replaced());
            let Some(spi_in) = known.map(|child| child.spi_in) else { return };
            sa.remove_child(cx, spi_in);
            sa.task(Task::Child { connection: connection.clone(), rekeys: None, group: None });
        }
        kind => {
            let why =
                Why::Refused(if rekeys.is_some() { "to rekey the Child SA" } else { "the Child SA" }, kind);
            cx.out.events.push_back(Event::Failed { connection: connection.clone(), why });
            later(sa, cx, rekeys, again(None));
        }
    }
}

/// A pair that was not rekeyed lives until its end; another try comes before.
fn later(sa: &mut IkeSa, cx: &Context<'_>, rekeys: Option<u32>, again: Task) {
    let Some(spi_in) = rekeys else { return };
    let left = sa.children.iter().find(|child| child.spi_in == spi_in).map(|child| child.expires);
    let left = left.map_or(Duration::ZERO, |expires| expires.since(cx.now));
    sa.later.push((cx.now.after(left.checked_div(2).unwrap_or(left).max(LATER)), again));
}

/// Answers a request for a Child SA.
pub(super) fn answer(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    // This IKE SA is about to be replaced, or to go: the peer asks again on the next one (RFC 7296 §2.25.2).
    let ending =
        sa.request.as_ref().is_some_and(|r| matches!(r.asked, Asked::RekeyIke(_) | Asked::DeleteIke(_)));
    let ending = ending || sa.ours.as_ref().is_some_and(|ours| ours.is_ike());
    if ending || sa.replaced() {
        return Err(Pause::refuse(NotifyKind::TemporaryFailure));
    }
    let rekey = notified(message, NotifyKind::RekeySa);
    let old = match rekey {
        Some(notify) => {
            let spi_out = <[u8; 4]>::try_from(&*notify.spi).ok().map(u32::from_be_bytes);
            let child = sa.children.iter().find(|child| Some(child.spi_out) == spi_out);
            let Some(child) = child else {
                // It may be the one that we have asked for and that the peer has made: its answer is still on the way.
                if sa.asked_child().is_some() {
                    return Err(Pause::refuse(NotifyKind::TemporaryFailure));
                }
                let refusal = Notify { kind: NotifyKind::ChildSaNotFound, ..notify.clone() };
                return Err(Pause::Refuse(refusal, None));
            };
            let crosses = is_long(&child.connection) && sa.rekeys_child(child.spi_in);
            if child.replaced() || crosses {
                return Err(Pause::refuse(NotifyKind::TemporaryFailure));
            }
            Some(child.clone())
        }
        None => None,
    };
    let connection = match &old {
        Some(child) => Some(child.connection.clone()),
        None => {
            let own = sa.connection.iter().cloned();
            // Where an IKE SA has moved, its connections still name the address it was made with.
            let made_with = sa.connection.as_ref().and_then(|connection| connection.remote_address);
            let there =
                made_with.filter(|address| *address != sa.remote.ip()).into_iter().chain([sa.remote.ip()]);
            let others = there.flat_map(|address| cx.config.connections.towards(address));
            let mut all = own.chain(others.filter(|other| sa.serves(other)).cloned());
            all.find(|connection| answerable(sa, message, connection)).or_else(|| sa.connection.clone())
        }
    };
    let Some(connection) = connection else { return Err(Pause::refuse(NotifyKind::TsUnacceptable)) };
    let has = sa.children.iter().filter(|child| child.connection.name == connection.name).count();
    if has >= if old.is_some() { MOST_WHILE_REKEYING } else { MOST } {
        let refusal = Notify::new(NotifyKind::NoAdditionalSas, Vec::new());
        return Err(Pause::Refuse(refusal, Some(Why::ManyChildren(has))));
    }
    let agreed =
        choose(sa, message, &connection, true).map_err(|(notify, why)| Pause::Refuse(notify, Some(why)))?;
    let mut shared = Vec::new();
    let mut ours = None;
    if let (Some(group), Some((_, share))) = (agreed.chosen.group, ke(message)) {
        match answers.ask(|| Job::Accept(group, share.to_vec()))? {
            Answer::Accepted(Ok((share, secret))) => {
                ours = Some(Payload::Ke { group: group.number(), data: share });
                shared.push(secret);
            }
            _ => return Err(Pause::refuse(NotifyKind::InvalidSyntax)),
        }
    }
    let spi_in = spi(sa, answers)?;
    let nr = cx.nonce();
    let mut payloads = grant(&agreed, spi_in);
    let at = payloads
        .iter()
        .position(|payload| matches!(payload, Payload::Sa(_)))
        .map_or(0, |at| at.saturating_add(1));
    let after = payloads.split_off(at);
    payloads.push(Payload::Nonce(nr.clone()));
    payloads.extend(ours);
    payloads.extend(after);
    let ni = nonce(message);
    let replaces = old.map(|child| child.spi_in);
    let left = agreed.additional();
    if let Some(first) = shared.first().filter(|_| !left.is_empty()).cloned() {
        let what = TheirWhat::Child { connection, agreed: Box::new(agreed), spi_in, replaces };
        let link = followup::owe(sa, cx, what, (ni, &nr), first, left);
        payloads.push(link);
        sa.respond(cx, Exchange::CreateChildSa, message.header.id, payloads);
        return Ok(());
    }
    sa.respond(cx, Exchange::CreateChildSa, message.header.id, payloads);
    if let (Some(spi), Some(request)) = (replaces, &mut sa.request)
        && let Asked::Child(asked) = &mut request.asked
        && asked.rekeys == Some(spi)
    {
        asked.crossed = Some((spi_in, ni.min(&nr).to_vec()));
    }
    let pair =
        Pair { spi_in, shared: &shared, nonces: (ni, &nr), initiated: false, replaces, redundant: false };
    install(sa, cx, &connection, agreed, pair);
    Ok(())
}

impl IkeSa {
    /// Says whether a rekeying of this child is under way here.
    fn rekeys_child(&self, spi_in: u32) -> bool {
        let asked = self.request.as_ref().is_some_and(
            |request| matches!(&request.asked, Asked::Child(asked) if asked.rekeys == Some(spi_in)),
        );
        asked || self.ours.as_ref().is_some_and(|ours| ours.rekeys() == Some(spi_in))
    }
}
