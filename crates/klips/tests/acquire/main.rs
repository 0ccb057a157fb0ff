//! `%trap`: a packet makes the service ask for an SA, waits for it, and goes when it is there.

mod answer;
mod asking;
mod early;
mod hold;
mod host;
mod policy;
mod sas;
mod waiting;
