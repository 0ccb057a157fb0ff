//! ESP (RFC 4303), by direction.

mod open;
mod seal;

pub(crate) use open::{Authenticated, Candidates, Payload, RUN, fits, header};
pub(crate) use seal::trailer;
