//! The programs, run in network namespaces and run directories of their own. Needs root, or `unshare -Ur`; says what it skips.

mod closed;
mod device;
mod dialect;
mod dump;
mod flow;
mod guard;
mod host;
mod key;
mod keysock;
mod manual;
mod matrix;
mod network;
mod print;
mod setup;
#[path = "../support/skipped.rs"]
mod skipped;
mod steps;
mod supervise;
mod trap;
