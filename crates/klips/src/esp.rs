//! ESP (RFC 4303), by direction.

mod open;

pub(crate) use open::{Authenticated, Candidates, Payload, RUN, fits, header};
