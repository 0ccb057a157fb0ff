//! The anti-replay window (RFC 4303 §3.4.3, RFC 6479, RFC 4303 Appendix A).

/// skeleton
#[derive(Debug)]
pub(crate) struct Window {}

impl Window {
    /// A window `width` packets wide; rounded up to a power of two from 32 to 4096.
    pub(crate) fn new(_width: u32) -> Self {
        Self {}
    }
}
