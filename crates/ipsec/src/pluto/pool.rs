//! Threads for what takes long: key exchanges. The main loop never waits for one.

use crate::daemon::mailbox::Waker;
use ike::job::{Answer, Job, JobId};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// The threads and the way to them and back.
#[derive(Debug)]
pub struct Pool {
    jobs: Sender<(JobId, Job)>,
    answers: Receiver<(JobId, Answer)>,
    waker: Waker,
}

impl Pool {
    /// Starts so many threads; they end with the pool.
    pub fn new(threads: usize) -> io::Result<Self> {
        let (jobs, todo) = channel::<(JobId, Job)>();
        let (done, answers) = channel();
        let (todo, waker) = (Arc::new(Mutex::new(todo)), Waker::new()?);
        for n in 0..threads.max(1) {
            let (todo, done, waker) = (Arc::clone(&todo), done.clone(), waker.clone());
            thread::Builder::new().name(format!("job.{n}")).spawn(move || {
                loop {
                    // One waits with the lock, the others for the lock.
                    let Ok((id, job)) = todo.lock().recv() else { return };
                    let Ok(answer) = job.run() else { continue };
                    if done.send((id, answer)).is_err() {
                        return;
                    }
                    waker.wake();
                }
            })?;
        }
        Ok(Self { jobs, answers, waker })
    }

    /// Readable when there are answers.
    pub const fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Gives the threads something to do. They do it in order: how much that is at a time, and whose turn it is, the engine
    /// sees to.
    pub fn run(&self, id: JobId, job: Job) {
        let _ = self.jobs.send((id, job));
    }

    /// The next answer, if there is one.
    pub fn answer(&self) -> Option<(JobId, Answer)> {
        self.answers.try_recv().ok()
    }
}
