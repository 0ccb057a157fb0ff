//! How other threads of the daemon ask the control thread: one question, one answer, and a wake-up.

use crate::ctl::{Refusal, Request};
use crate::table::{Snapshot, Table};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// What can be asked.
#[derive(Debug)]
pub enum Ask {
    /// A table as it is now.
    Table(Table),
    /// Anything that is not a table.
    Do(Request),
}

/// What is answered.
#[derive(Debug)]
pub enum Answer {
    /// The table.
    Table(Snapshot),
    /// Done, with what there is to say about it.
    Done(serde_json::Value),
    /// Not done.
    Refused(Refusal),
}

/// A question on its way.
#[derive(Debug)]
pub struct Mail {
    /// The question.
    pub ask: Ask,
    /// Where the answer goes; whoever asked may have gone.
    pub reply: SyncSender<Answer>,
}

/// Wakes a thread that waits in epoll.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// One that nobody has used yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// The descriptor, for those who wake by writing to it themselves.
    pub fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.0)
    }

    /// Makes the descriptor readable.
    pub fn wake(&self) {
        // It can only fail by overflow, and then it is readable already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable again.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where other threads put their questions.
#[derive(Clone, Debug)]
pub struct Mailbox {
    sender: Sender<Mail>,
    waker: Waker,
}

/// The control thread's end.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Mail>,
    /// Readable when there is mail.
    pub waker: Waker,
}

/// A mailbox and its other end.
pub fn mailbox() -> io::Result<(Mailbox, Inbox)> {
    let (sender, receiver) = channel();
    let waker = Waker::new()?;
    Ok((Mailbox { sender, waker: waker.clone() }, Inbox { receiver, waker }))
}

impl Mailbox {
    /// Asks, and waits for the answer.
    pub fn ask(&self, ask: Ask) -> Answer {
        let gone = || Answer::Refused(Refusal::new("the daemon is stopping"));
        let (reply, answer) = sync_channel(1);
        if self.sender.send(Mail { ask, reply }).is_err() {
            return gone();
        }
        self.waker.wake();
        answer.recv().unwrap_or_else(|_| gone())
    }
}

impl Inbox {
    /// The next question, if there is one. Never more than there are threads to ask.
    pub fn next(&self) -> Option<Mail> {
        self.receiver.try_recv().ok()
    }
}
