//! The data-plane daemon.

pub mod instance;
pub mod mailbox;
