//! What a program has asked and has no answer to yet.

use std::collections::VecDeque;

/// Requests that may be without an answer at a time. An answer that the socket had no room for never comes: the oldest
/// are given up then.
const MOST: usize = 64;

/// Requests in the order in which they were asked, which is that of their answers.
pub(super) struct Outstanding<T>(VecDeque<T>);

impl<T> Default for Outstanding<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Outstanding<T> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// One more; the oldest goes where there are too many.
    pub(super) fn push(&mut self, one: T) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(one);
    }

    /// The first such one.
    pub(super) fn find(&self, such: impl Fn(&T) -> bool) -> Option<&T> {
        self.0.iter().find(|one| such(one))
    }

    /// Takes the first such one, and those before it with it: their answers will not come any more.
    pub(super) fn answered(&mut self, such: impl Fn(&T) -> bool) -> Option<T> {
        let at = self.0.iter().position(such)?;
        self.0.drain(..=at).next_back()
    }

    /// The first such one, to be changed, and where it is.
    pub(super) fn position(&self, such: impl Fn(&T) -> bool) -> Option<usize> {
        self.0.iter().position(such)
    }

    /// The one that is there.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.0.get_mut(at)
    }

    /// Takes the one that is there, and no other.
    pub(super) fn remove(&mut self, at: usize) -> Option<T> {
        self.0.remove(at)
    }
}
