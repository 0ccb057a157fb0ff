//! Which descriptors are PF_KEY sockets of ours.

use crate::real;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU64, Ordering};
use libc::socklen_t;

/// The priority of a socket that hears the service, and of one with SO_USELOOPBACK off. The kernel gives it no meaning on
/// a Unix socket, keeps it with the open socket, and asks for no privilege.
pub(crate) const HEARS: c_int = 5;
pub(crate) const DEAF: c_int = 6;
/// That of a datagram socket that stands where one of ours was, whose service has gone.
pub(crate) const GONE: c_int = 4;

/// Descriptor numbers below this are remembered; others are looked at each time.
const REMEMBERED: usize = 1 << 16;
const WORDS: usize = REMEMBERED / 64;
type Set = [AtomicU64; WORDS];

/// Numbers that were looked at, and those of them that have been ours. What is not ours can only become so through
/// `socket`, `dup`, `fcntl` or `recvmsg`, which say so here; what has been ours is looked at again on each use, for good: a
/// child of `vfork` has our memory and its own descriptors, and another thread may be between closing and opening.
static LOOKED_AT: Set = [const { AtomicU64::new(0) }; WORDS];
static OURS: Set = [const { AtomicU64::new(0) }; WORDS];

fn place(fd: c_int) -> Option<(usize, u64)> {
    let number = usize::try_from(fd).ok().filter(|number| *number < REMEMBERED)?;
    Some((number / 64, 1 << (number % 64)))
}

fn contains(set: &Set, (word, bit): (usize, u64)) -> bool {
    set.get(word).is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
}

fn put(set: &Set, (word, bit): (usize, u64)) {
    if let Some(word) = set.get(word) {
        word.fetch_or(bit, Ordering::Relaxed);
    }
}

pub(crate) fn errno() -> c_int {
    // SAFETY: the address is that of this thread's errno, always.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(value: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value }
}

/// Fails as a function of C does.
pub(crate) fn fail<T: From<i8>>(error: c_int) -> T {
    set_errno(error);
    T::from(-1)
}

/// A socket option that is an int.
pub(crate) fn option(fd: c_int, name: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    // SAFETY: the value has as many octets as `len` says.
    let done = unsafe { real::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len) };
    (done == 0).then_some(value)
}

/// Sets a socket option that is an int.
pub(crate) fn set_option(fd: c_int, name: c_int, value: c_int) -> c_int {
    let len = size_of::<c_int>() as socklen_t;
    // SAFETY: the value has as many octets as `len` says.
    unsafe { real::setsockopt(fd, libc::SOL_SOCKET, name, (&raw const value).cast::<c_void>(), len) }
}

/// Asks the kernel. Leaves errno as it is.
pub(crate) fn look(fd: c_int) -> bool {
    let before = errno();
    let priorities: &[c_int] = match option(fd, libc::SO_DOMAIN) {
        Some(libc::AF_UNIX) => match option(fd, libc::SO_TYPE) {
            Some(libc::SOCK_SEQPACKET) => &[HEARS, DEAF],
            Some(libc::SOCK_DGRAM) => &[GONE],
            _ => &[],
        },
        _ => &[],
    };
    let ours = !priorities.is_empty()
        && option(fd, libc::SO_PRIORITY).is_some_and(|priority| priorities.contains(&priority));
    set_errno(before);
    if let Some(place) = place(fd) {
        if ours {
            put(&OURS, place);
        }
        put(&LOOKED_AT, place);
    }
    ours
}

/// Whether it may be ours: what is not asked of the kernel.
#[inline]
pub(crate) fn may_be_ours(fd: c_int) -> bool {
    place(fd).is_none_or(|place| contains(&OURS, place) || !contains(&LOOKED_AT, place))
}

/// Whether it is a PF_KEY socket of ours.
#[inline]
pub(crate) fn is_ours(fd: c_int) -> bool {
    fd >= 0 && may_be_ours(fd) && look(fd)
}
