//! How much a client has not read of what the kernel holds for it.

#![expect(unsafe_code, reason = "no library asks a Unix socket for its output queue")]

use std::os::fd::{AsRawFd, OwnedFd};

/// Octets of memory that unread records take, as the kernel counts them: the records and its own bookkeeping.
pub(super) fn unread(fd: &OwnedFd) -> usize {
    let mut octets: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (SIOCOUTQ for sockets) writes one int, and `octets` is one that outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut octets) };
    if done == 0 { usize::try_from(octets).unwrap_or(0) } else { 0 }
}
