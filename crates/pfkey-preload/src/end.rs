//! What becomes of a socket whose service has gone.
//!
//! A kernel's PF_KEY never goes, so programs that wait for it have no plan for its end: OpenIKED, told the same at each
//! read, asks again at once and for ever. So the end is told once for each descriptor, and from then on that is a socket on
//! which nothing happens: reads wait, `poll` is silent, and whatever is sent is refused, ENETDOWN. What the program asks
//! next fails, which it has a plan for; whoever started it can start it again, and a new `socket` reaches a new service.

use crate::ours::{GONE, errno, fail, is_ours, set_errno, set_option};
use crate::real;
use core::ffi::{c_int, c_void};
use libc::{socklen_t, ssize_t};

/// What a program is told when the service has gone: its PF_KEY is down. Other errors are as they are.
pub(crate) fn gone(result: ssize_t) -> ssize_t {
    if result < 0 && [libc::EPIPE, libc::ECONNRESET, libc::ENOTCONN].contains(&errno()) {
        return fail(libc::ENETDOWN);
    }
    result
}

/// After a read of `wanted` octets that gave none: the end of a record socket is that of the service.
pub(crate) fn heard(fd: c_int, wanted: usize) -> ssize_t {
    if wanted == 0 {
        return 0;
    }
    silence(fd);
    fail(libc::ENETDOWN)
}

/// Puts a socket that nobody can send to in the place of one that has ended. Where the kernel has none left, the end stays.
fn silence(fd: c_int) {
    let nothing = core::ptr::null_mut();
    // SAFETY: numbers only.
    let (status, own) =
        unsafe { (real::fcntl(fd, libc::F_GETFL, nothing), real::fcntl(fd, libc::F_GETFD, nothing)) };
    let nonblocking = if status > 0 { status & libc::O_NONBLOCK } else { 0 };
    // Unnamed, and connected to nothing.
    // SAFETY: numbers only.
    let new = unsafe { real::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | nonblocking, 0) };
    if new < 0 {
        return;
    }
    for limit in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        keep(fd, new, limit);
    }
    // Another thread may have closed it meanwhile, and have something else there.
    if set_option(new, libc::SO_PRIORITY, GONE) == 0 && is_ours(fd) {
        let flags = if own > 0 && own & libc::FD_CLOEXEC != 0 { libc::O_CLOEXEC } else { 0 };
        // SAFETY: numbers only.
        unsafe { real::dup3(new, fd, flags) };
    }
    let before = errno();
    // SAFETY: it was opened above and nobody else knows it.
    unsafe { libc::close(new) };
    set_errno(before);
}

/// Gives one socket another's time limit.
fn keep(from: c_int, to: c_int, name: c_int) {
    let mut limit = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut len = size_of::<libc::timeval>() as socklen_t;
    let at: *mut c_void = (&raw mut limit).cast();
    // SAFETY: the value has as many octets as `len` says, both times.
    unsafe {
        if real::getsockopt(from, libc::SOL_SOCKET, name, at, &raw mut len) == 0 {
            real::setsockopt(to, libc::SOL_SOCKET, name, at, len);
        }
    }
}
