//! A new IKE SA in place of this one (RFC 7296 §1.3.2, §2.8, §2.18).

use super::followup::{self, TheirWhat};
use super::{ke, nonce, proposals, refused};
use crate::event::{Event, Why};
use crate::job::{Answer, Job};
use crate::keys::Seed;
use crate::message::{Exchange, IkeSpi, Message, Notify, NotifyKind, Payload};
use crate::outbox::Context;
use crate::proposal::{self, Chosen, Offer, Protocol};
use crate::sa::{Answers, Asked, AskedIke, IkeSa, Pause, Stage, Task};
use core::time::Duration;
use ipsec_core::Secret;
use ipsec_core::kex::Group;

const LATER: Duration = Duration::from_secs(3);
/// An IKE SA that another replaced waits so long for its deletion.
const ABANDONED: Duration = Duration::from_secs(120);

/// A peer may have an IKE SA and its heirs rekeyed so often within the time for which one that is replaced may wait for its
/// deletion, and no more: else there would be as many of them as it likes.
const MOST: u32 = 16;

/// The offers of a rekeying: those of the connection, so that a new IKE SA is no weaker than a first one would be.
fn offers(sa: &IkeSa) -> Vec<Offer> {
    sa.connection.as_ref().map(|connection| connection.ike.clone()).unwrap_or_default()
}

/// Says whether a rekeying of ours takes several exchanges, and is under way.
fn is_long_and_under_way(sa: &IkeSa) -> bool {
    let asked = sa.request.as_ref().is_some_and(|request| matches!(request.asked, Asked::RekeyIke(_)));
    let long = offers(sa).iter().any(|offer| !offer.additional.is_empty());
    (long && asked) || sa.ours.is_some()
}

/// Asks for the successor.
pub(super) fn begin(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    group: Option<Group>,
    answers: &mut Answers,
) -> Result<(), Pause> {
    if sa.replaced() {
        return Ok(());
    }
    let offers = offers(sa);
    let used = sa.channel.as_ref().and_then(|channel| channel.chosen.group);
    let sent_back = group.is_some();
    let Some(group) = group.or(used) else { return Ok(()) };
    let Answer::Offered(Ok((offer, share))) = answers.ask(|| Job::Offer(group))? else { return Ok(()) };
    let (spi, ni) = (cx.spi(), cx.nonce());
    let payloads = vec![
        Payload::Sa(proposal::proposals(&offers, Protocol::Ike, &spi.0.to_be_bytes())),
        Payload::Nonce(ni.clone()),
        Payload::Ke { group: group.number(), data: share },
    ];
    let asked = AskedIke { ni, spi, offer, sent_back, crossed: None };
    sa.ask(cx, Exchange::CreateChildSa, payloads, Asked::RekeyIke(Box::new(asked)));
    Ok(())
}

fn peer_spi(chosen: &Chosen) -> Option<IkeSpi> {
    <[u8; 8]>::try_from(&*chosen.spi).ok().map(u64::from_be_bytes).filter(|spi| *spi != 0).map(IkeSpi)
}

/// Takes the answer.
pub(super) fn answered(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let Some(Asked::RekeyIke(asked)) = sa.request.as_ref().map(|request| &request.asked) else {
        return Ok(());
    };
    if let Some(notify) = refused(message) {
        let (kind, data) = (notify.kind, notify.data.clone());
        denied(sa, cx, kind, &data);
        return Ok(());
    }
    let (theirs, used) = (proposals(message).first(), asked.offer.group());
    let chosen = theirs.and_then(|theirs| {
        offers(sa).get(usize::from(theirs.number).checked_sub(1)?)?.confirm(theirs.number, theirs)
    });
    let wrong =
        || Pause::Fail(Why::Protocol("its answer to the rekeying of the IKE SA is not one that was offered"));
    let chosen = chosen.filter(|chosen| chosen.group == Some(used)).ok_or_else(wrong)?;
    let spi = peer_spi(&chosen).ok_or_else(wrong)?;
    let (group, share) = ke(message).ok_or_else(wrong)?;
    if group != used.number() {
        return Err(wrong());
    }
    let (offer, share) = (asked.offer.clone(), share.to_vec());
    let Answer::Finished(Ok(shared)) = answers.ask(|| Job::Finish(offer, share))? else {
        return Err(wrong());
    };
    let Some(Asked::RekeyIke(asked)) = sa.granted() else { return Ok(()) };
    if !chosen.additional.is_empty() {
        return followup::go_on_with_ike(sa, asked, chosen, spi, shared, message).map_err(Pause::Fail);
    }
    complete(sa, cx, *asked, chosen, spi, &[shared], nonce(message).to_vec())
}

/// All that was to be exchanged for the successor has been.
pub(super) fn complete(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    asked: AskedIke,
    chosen: Chosen,
    spi: IkeSpi,
    shared: &[Secret],
    nr: Vec<u8>,
) -> Result<(), Pause> {
    let Some(mut heir) = heir(sa, cx, true, (asked.spi, spi), chosen, shared, (&asked.ni, &nr)) else {
        return Err(Pause::Fail(Why::Internal("the algorithms chosen do not go together")));
    };
    match asked.crossed {
        // The new IKE SA whose exchange had the lowest of the four nonces goes; whoever began it takes it away
        // (RFC 7296 §2.8.2).
        Some((_, lowest_theirs)) if asked.ni.min(nr) < lowest_theirs => {
            heir.heir = Some(sa.key);
            heir.tasks.push_back(Task::DeleteIke(Why::Rekeyed));
            cx.out.born.push(heir);
            // The peer's stands; its exchange is the one that replaces this IKE SA, and the peer deletes this.
            if let Some((theirs, _)) = sa.crossing.take() {
                hand_over(sa, cx, theirs);
            }
        }
        _ => {
            if let Some((theirs, _)) = sa.crossing.take() {
                cx.out.redundant.push((theirs, heir.key, cx.now.after(ABANDONED)));
            }
            hand_over(sa, cx, heir.key);
            heir.children = core::mem::take(&mut sa.children);
            cx.out.born.push(heir);
            sa.task(Task::DeleteIke(Why::Rekeyed));
        }
    }
    Ok(())
}

fn denied(sa: &mut IkeSa, cx: &mut Context<'_>, kind: NotifyKind, data: &[u8]) {
    let Some(Asked::RekeyIke(asked)) = sa.granted() else { return };
    if let Some((theirs, _)) = sa.crossing.take() {
        // The peer refuses ours and has begun its own: that one stands.
        hand_over(sa, cx, theirs);
        return;
    }
    let group = <[u8; 2]>::try_from(data).ok().and_then(|n| Group::from_number(u16::from_be_bytes(n)));
    match (kind, group) {
        (NotifyKind::InvalidKePayload, Some(group))
            if group != asked.offer.group()
                && !asked.sent_back
                && offers(sa).iter().any(|offer| offer.groups.contains(&group)) =>
        {
            sa.task(Task::RekeyIke { group: Some(group) });
        }
        _ => {
            let why = Why::Refused("to rekey the IKE SA", kind);
            cx.out.progress(sa.connection.as_ref(), format!("{why}; it is tried again before its end"));
            let more = cx.random_below(u64::try_from(LATER.as_nanos()).unwrap_or(u64::MAX));
            let soon = cx.now.after(LATER).after(Duration::from_nanos(more));
            let half = sa.expires.since(cx.now).checked_div(2).unwrap_or(LATER);
            let at = if kind == NotifyKind::TemporaryFailure { soon } else { cx.now.after(half.max(LATER)) };
            sa.later.push((at, Task::RekeyIke { group: None }));
        }
    }
}

/// Answers the peer's request for a successor.
pub(super) fn answer(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    // While a child is being made or taken away here, the IKE SA stays (RFC 7296 §2.25.2).
    let busy = sa.request.as_ref().is_some_and(|request| {
        matches!(request.asked, Asked::Child(_) | Asked::DeleteChild(_) | Asked::DeleteIke(_))
    });
    if busy || is_long_and_under_way(sa) || sa.replaced() || sa.crossing.is_some() {
        return Err(Pause::refuse(NotifyKind::TemporaryFailure));
    }
    if sa.rekeyed_by_peer.1 >= MOST && cx.now.since(sa.rekeyed_by_peer.0) < ABANDONED {
        return Err(Pause::refuse(NotifyKind::TemporaryFailure));
    }
    let offers = offers(sa);
    let theirs = proposals(message);
    let (_, chosen) = proposal::choose(&offers, theirs, Protocol::Ike).map_err(|kinds| {
        let ours = proposal::text(&proposal::proposals(&offers, Protocol::Ike, &[]));
        let why = Why::NoProposal { what: "IKE SA", kinds, theirs: proposal::text(theirs), ours };
        Pause::Refuse(Notify::new(NotifyKind::NoProposalChosen, Vec::new()), Some(why))
    })?;
    let (Some(group), Some(spi_theirs), Some((sent, share))) = (chosen.group, peer_spi(&chosen), ke(message))
    else {
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    };
    if sent != group.number() {
        let data = group.number().to_be_bytes().to_vec();
        return Err(Pause::Refuse(Notify::new(NotifyKind::InvalidKePayload, data), None));
    }
    let Answer::Accepted(Ok((ours, shared))) = answers.ask(|| Job::Accept(group, share.to_vec()))? else {
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    };
    let (spi, nr) = (cx.spi(), cx.nonce());
    let ni = nonce(message);
    let answer = chosen.proposal(Protocol::Ike, spi.0.to_be_bytes().to_vec());
    let mut payloads = vec![
        Payload::Sa(vec![answer]),
        Payload::Nonce(nr.clone()),
        Payload::Ke { group: group.number(), data: ours },
    ];
    if chosen.additional.is_empty() {
        sa.respond(cx, Exchange::CreateChildSa, message.header.id, payloads);
        granted(sa, cx, chosen, (spi, spi_theirs), &[shared], (ni, &nr));
    } else {
        let left = chosen.additional.iter().copied().collect();
        let what = TheirWhat::Ike { chosen: Box::new(chosen), ours: spi, theirs: spi_theirs };
        let link = followup::owe(sa, cx, what, (ni, &nr), shared, left);
        payloads.push(link);
        sa.respond(cx, Exchange::CreateChildSa, message.header.id, payloads);
    }
    Ok(())
}

/// The peer has what it needs for the successor it asked for.
pub(super) fn granted(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    chosen: Chosen,
    spis: (IkeSpi, IkeSpi),
    shared: &[Secret],
    (ni, nr): (&[u8], &[u8]),
) {
    let (since, times) = sa.rekeyed_by_peer;
    let over = cx.now.since(since) >= ABANDONED;
    sa.rekeyed_by_peer = if over { (cx.now, 1) } else { (since, times.saturating_add(1)) };
    // `keyed` has seen to it that what can be chosen has ciphers.
    let Some(mut heir) = heir(sa, cx, false, spis, chosen, shared, (ni, nr)) else { return };
    let (spi, lowest) = (spis.0, ni.min(nr).to_vec());
    if let Some(request) = &mut sa.request
        && let Asked::RekeyIke(asked) = &mut request.asked
    {
        // Which of the two stands is known when our own request is answered; until then the children stay here.
        asked.crossed = Some((spi, lowest.clone()));
        sa.crossing = Some((spi, lowest));
        heir.awaits = true;
    } else {
        heir.children = core::mem::take(&mut sa.children);
        hand_over(sa, cx, spi);
    }
    cx.out.born.push(heir);
}

/// The IKE SA that takes this one's place: same peer, same ends, new keys.
fn heir(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    initiator: bool,
    (ours, theirs): (IkeSpi, IkeSpi),
    chosen: Chosen,
    shared: &[Secret],
    (ni, nr): (&[u8], &[u8]),
) -> Option<IkeSa> {
    let Stage::Established(proved) = &sa.stage else { return None };
    let connection = sa.connection.clone()?;
    let (spi_i, spi_r) = if initiator { (ours, theirs) } else { (theirs, ours) };
    let prf = chosen.prf?;
    let seed = Seed { ni, nr, spi_i, spi_r };
    let keys = sa.channel.as_ref()?.keys.rekeyed(&chosen, prf, shared, seed);
    let stage = Stage::Established(proved.inherited());
    let mut heir = IkeSa::new(ours, initiator, (sa.local, sa.remote), stage, cx.now);
    heir.peer_spi = theirs;
    heir.channel = Some(super::init::channel((initiator, (spi_i, spi_r)), cx, chosen, keys)?);
    (heir.nat, heir.fragmentation) = (sa.nat, sa.fragmentation);
    heir.ppk = sa.ppk.clone();
    heir.first_group = sa.first_group.or(sa.channel.as_ref()?.chosen.group);
    heir.rekeyed_by_peer = sa.rekeyed_by_peer;
    (heir.began, heir.mobike, heir.elsewhere) = (sa.began, sa.mobike, sa.elsewhere.clone());
    (heir.placed, heir.routable) = (sa.placed, sa.routable);
    (heir.unchecked, heir.wary) = (sa.unchecked, sa.wary);
    (heir.lessee, heir.given, heir.taken) = (sa.lessee, sa.given.clone(), sa.taken.clone());
    (heir.rekey_at, heir.expires) = super::auth::lifetimes(cx, &connection, connection.times.ike_life);
    heir.connection = Some(connection);
    Some(heir)
}

/// Says that another took this one's place: no more is begun here but its deletion.
pub(super) fn hand_over(sa: &mut IkeSa, cx: &mut Context<'_>, to: IkeSpi) {
    sa.heir = Some(to);
    sa.crossing = None;
    // Whoever should delete it may be gone; it need not stay for that.
    sa.expires = sa.expires.min(cx.now.after(ABANDONED));
    cx.out.events.push_back(Event::IkeRekeyed { from: sa.key, to });
    // What waited for its turn goes on over there.
    let mut tasks: Vec<Task> =
        sa.tasks.drain(..).filter(|task| !matches!(task, Task::RekeyIke { .. } | Task::Liveness)).collect();
    // So does what the peer asked us to try later.
    let later = sa.later.drain(..).map(|(_, task)| task);
    tasks.extend(later.filter(|task| {
        matches!(task, Task::Child { .. } | Task::DeleteChild(_) | Task::DeleteIke(Why::Superseded))
    }));
    // A child whose deletion is not answered yet has left, too: the answer to it here would find nothing.
    if let Some(Asked::DeleteChild(spi_in)) = sa.request.as_ref().map(|request| &request.asked) {
        tasks.push(Task::DeleteChild(*spi_in));
    }
    // That we have moved is said over there, too: the answer to it here moves what has left.
    if sa.began && sa.mobike && sa.placed != (sa.local, sa.remote) {
        tasks.push(Task::Move);
    }
    cx.out.moved.push((sa.key, to, tasks));
}
