//! IKE_FOLLOWUP_KE (RFC 9370 §2.2.4): the additional key exchanges of a CREATE_CHILD_SA, one in each exchange. What is
//! negotiated comes into being when the last is done, with the secrets of all.

use super::{child, ke, notified, refused, rekey_ike};
use crate::connection::Connection;
use crate::event::{Event, Why};
use crate::job::{Answer, Job};
use crate::message::{Exchange, IkeSpi, Message, Notify, NotifyKind, Payload};
use crate::outbox::Context;
use crate::proposal::Chosen;
use crate::sa::{Answers, Asked, AskedChild, AskedIke, IkeSa, Pause, Task};
use core::time::Duration;
use ipsec_core::kex::Group;
use ipsec_core::{Secret, Time};
use std::collections::VecDeque;
use std::sync::Arc;

/// What is begun and not gone on with is forgotten after this.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// A CREATE_CHILD_SA of ours that is not complete.
#[derive(Debug)]
pub(crate) struct Ours {
    what: OurWhat,
    nr: Vec<u8>,
    shared: Vec<Secret>,
    left: VecDeque<Group>,
    /// What the peer knows it by.
    link: Vec<u8>,
}

#[derive(Debug)]
enum OurWhat {
    Child(Box<AskedChild>, Box<child::Agreed>),
    Ike(Box<AskedIke>, Box<Chosen>, IkeSpi),
}

impl Ours {
    /// The child that is to be replaced.
    pub(super) const fn rekeys(&self) -> Option<u32> {
        match &self.what {
            OurWhat::Child(asked, _) => asked.rekeys,
            OurWhat::Ike(..) => None,
        }
    }

    /// The child that is being made.
    pub(crate) const fn child(&mut self) -> Option<&mut AskedChild> {
        match &mut self.what {
            OurWhat::Child(asked, _) => Some(asked),
            OurWhat::Ike(..) => None,
        }
    }

    /// It is for an IKE SA.
    pub(super) const fn is_ike(&self) -> bool {
        matches!(self.what, OurWhat::Ike(..))
    }
}

/// A CREATE_CHILD_SA of the peer that is not complete.
#[derive(Debug)]
pub(crate) struct Theirs {
    what: TheirWhat,
    ni: Vec<u8>,
    nr: Vec<u8>,
    shared: Vec<Secret>,
    left: VecDeque<Group>,
    link: Vec<u8>,
    until: Time,
}

#[derive(Debug)]
pub(super) enum TheirWhat {
    Child { connection: Arc<Connection>, agreed: Box<child::Agreed>, spi_in: u32, replaces: Option<u32> },
    Ike { chosen: Box<Chosen>, ours: IkeSpi, theirs: IkeSpi },
}

/// Where the peer's answer says that its own state can be found.
fn link(message: &Message) -> Option<Vec<u8>> {
    let notify = notified(message, NotifyKind::AdditionalKeyExchange)?;
    (1..=256).contains(&notify.data.len()).then(|| notify.data.clone())
}

/// Our request for a child was granted, and more key exchanges are to come.
pub(super) fn go_on_with_child(
    sa: &mut IkeSa,
    asked: Box<AskedChild>,
    agreed: child::Agreed,
    first: Secret,
    message: &Message,
) -> Result<(), Why> {
    let left = agreed.additional();
    go_on(sa, OurWhat::Child(asked, Box::new(agreed)), left, first, message)
}

/// The same for the successor of an IKE SA.
pub(super) fn go_on_with_ike(
    sa: &mut IkeSa,
    asked: Box<AskedIke>,
    chosen: Chosen,
    theirs: IkeSpi,
    first: Secret,
    message: &Message,
) -> Result<(), Why> {
    let left = chosen.additional.iter().copied().collect();
    go_on(sa, OurWhat::Ike(asked, Box::new(chosen), theirs), left, first, message)
}

fn go_on(
    sa: &mut IkeSa,
    what: OurWhat,
    left: VecDeque<Group>,
    first: Secret,
    message: &Message,
) -> Result<(), Why> {
    let link = link(message)
        .ok_or(Why::Protocol("it agreed to additional key exchanges and does not go on with them"))?;
    let nr = super::nonce(message).to_vec();
    sa.ours = Some(Ours { what, nr, shared: vec![first], left, link });
    sa.tasks.push_front(Task::Followup);
    Ok(())
}

/// Asks for the next key exchange.
pub(super) fn begin(sa: &mut IkeSa, cx: &mut Context<'_>, answers: &mut Answers) -> Result<(), Pause> {
    let Some(ours) = &sa.ours else { return Ok(()) };
    let (Some(&group), link) = (ours.left.front(), ours.link.clone()) else { return Ok(()) };
    let Answer::Offered(Ok((offer, share))) = answers.ask(|| Job::Offer(group))? else {
        give_up(sa, cx, Why::Internal("an additional key exchange could not be begun"));
        return Ok(());
    };
    let payloads = vec![
        Payload::Ke { group: group.number(), data: share },
        Payload::Notify(Notify::new(NotifyKind::AdditionalKeyExchange, link)),
    ];
    sa.ask(cx, Exchange::IkeFollowupKe, payloads, Asked::Followup(offer));
    Ok(())
}

/// Takes the peer's share.
pub(super) fn answered(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let Some(Asked::Followup(offer)) = sa.request.as_ref().map(|request| &request.asked) else {
        return Ok(());
    };
    let offer = offer.clone();
    if let Some(notify) = refused(message) {
        let why = Why::Refused("an additional key exchange", notify.kind);
        sa.granted();
        give_up(sa, cx, why);
        return Ok(());
    }
    let share = ke(message).filter(|(group, _)| *group == offer.group().number());
    let shared = match share {
        Some((_, share)) => {
            let share = share.to_vec();
            match answers.ask(|| Job::Finish(offer, share))? {
                Answer::Finished(Ok(shared)) => Some(shared),
                _ => None,
            }
        }
        None => None,
    };
    sa.granted();
    let Some(ours) = &mut sa.ours else { return Ok(()) };
    let Some(shared) = shared else {
        give_up(sa, cx, Why::Protocol("its additional key exchange is not the one agreed"));
        return Ok(());
    };
    ours.shared.push(shared);
    ours.left.pop_front();
    if !ours.left.is_empty() {
        match link(message) {
            Some(link) => {
                ours.link = link;
                sa.tasks.push_front(Task::Followup);
            }
            None => {
                give_up(sa, cx, Why::Protocol("it does not go on with the additional key exchanges agreed"))
            }
        }
        return Ok(());
    }
    let Some(Ours { what, nr, shared, .. }) = sa.ours.take() else { return Ok(()) };
    match what {
        OurWhat::Child(asked, agreed) => child::complete(sa, cx, *asked, *agreed, &shared, &nr),
        OurWhat::Ike(asked, chosen, theirs) => {
            rekey_ike::complete(sa, cx, *asked, *chosen, theirs, &shared, nr)?
        }
    }
    Ok(())
}

/// What was begun comes to nothing; what was to be replaced is tried again before its end.
fn give_up(sa: &mut IkeSa, cx: &mut Context<'_>, why: Why) {
    let Some(ours) = sa.ours.take() else { return };
    match ours.what {
        OurWhat::Child(asked, _) => {
            let AskedChild { connection, rekeys, .. } = *asked;
            cx.out.events.push_back(Event::Failed { connection: connection.clone(), why });
            if rekeys.is_some() {
                sa.later.push((cx.now.after(FORGOTTEN), Task::Child { connection, rekeys, group: None }));
            }
        }
        OurWhat::Ike(..) => {
            cx.out.progress(sa.connection.as_ref(), format!("the IKE SA was not rekeyed: {why}"));
            sa.later.push((cx.now.after(FORGOTTEN), Task::RekeyIke { group: None }));
        }
    }
}

/// Keeps what the peer began, and says where it is found.
pub(super) fn owe(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    what: TheirWhat,
    nonces: (&[u8], &[u8]),
    first: Secret,
    left: VecDeque<Group>,
) -> Payload {
    let link = fresh(cx);
    let payload = Payload::Notify(Notify::new(NotifyKind::AdditionalKeyExchange, link.clone()));
    let (ni, nr, until) = (nonces.0.to_vec(), nonces.1.to_vec(), cx.now.after(FORGOTTEN));
    sa.theirs = Some(Box::new(Theirs { what, ni, nr, shared: vec![first], left, link, until }));
    payload
}

fn fresh(cx: &mut Context<'_>) -> Vec<u8> {
    let mut link = vec![0; 16];
    cx.random.fill(&mut link);
    link
}

/// Answers the peer's share with ours.
pub(super) fn answer(
    sa: &mut IkeSa,
    cx: &mut Context<'_>,
    message: &Message,
    answers: &mut Answers,
) -> Result<(), Pause> {
    let named = link(message);
    let known =
        sa.theirs.as_ref().filter(|theirs| Some(&theirs.link) == named.as_ref() && cx.now < theirs.until);
    let Some(theirs) = known else { return Err(Pause::refuse(NotifyKind::StateNotFound)) };
    let share =
        ke(message).filter(|(group, _)| theirs.left.front().is_some_and(|left| left.number() == *group));
    let (Some((_, share)), Some(&group)) = (share, theirs.left.front()) else {
        sa.theirs = None;
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    };
    let Answer::Accepted(Ok((ours, shared))) = answers.ask(|| Job::Accept(group, share.to_vec()))? else {
        sa.theirs = None;
        return Err(Pause::refuse(NotifyKind::InvalidSyntax));
    };
    let next = fresh(cx);
    let Some(mut theirs) = sa.theirs.take() else { return Ok(()) };
    theirs.shared.push(shared);
    theirs.left.pop_front();
    let mut payloads = vec![Payload::Ke { group: group.number(), data: ours }];
    let last = theirs.left.is_empty();
    if !last {
        payloads.push(Payload::Notify(Notify::new(NotifyKind::AdditionalKeyExchange, next.clone())));
    }
    sa.respond(cx, Exchange::IkeFollowupKe, message.header.id, payloads);
    if !last {
        theirs.link = next;
        sa.theirs = Some(theirs);
        return Ok(());
    }
    let Theirs { what, ni, nr, shared, .. } = *theirs;
    match what {
        TheirWhat::Child { connection, agreed, spi_in, replaces } => {
            // What it was to replace may have gone meanwhile: then it is new.
            let replaces = replaces.filter(|spi| sa.children.iter().any(|child| child.spi_in == *spi));
            let nonces = (&*ni, &*nr);
            let pair =
                child::Pair { spi_in, shared: &shared, nonces, initiated: false, replaces, redundant: false };
            child::install(sa, cx, &connection, *agreed, pair);
        }
        TheirWhat::Ike { chosen, ours, theirs } => {
            rekey_ike::granted(sa, cx, *chosen, (ours, theirs), &shared, (&ni, &nr));
        }
    }
    Ok(())
}
