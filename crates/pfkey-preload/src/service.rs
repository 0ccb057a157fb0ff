//! Reaching the service: opening a socket, sending to it.

use crate::end::gone;
use crate::ours::{DEAF, HEARS, errno, fail, look, option, set_errno, set_option};
use crate::real;
use core::ffi::{CStr, c_int};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use core::time::Duration;
use libc::{SO_PRIORITY, iovec, msghdr, sockaddr_un, socklen_t, ssize_t};

/// The variable that names the service's socket.
const PATH: &CStr = c"IPSEC_PFKEY_SOCKET";
const PF_KEY_V2: c_int = 2;
/// A number that no other socket of this machine has had (socket(7)).
const SO_COOKIE: c_int = 57;
/// The sequence number of the question that finds out whether the service lets us in.
const KNOCK: u32 = 0x6b6e_6f63;
/// How long the service may take, where a kernel takes no time at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// Parts of one record, and records of one call: what a kernel takes.
pub(crate) const MOST: usize = 1024;

/// `sadb_msg_type`s that matter here: ACQUIRE has no answer; the other is the native one for socket options.
const SADB_ACQUIRE: u8 = 6;
const SOCKET_OPTIONS: u8 = 134;
/// Flags in that message.
const LOOPBACK: u32 = 1;
const NO_ANSWER: u32 = 2;

/// A native message about socket options (pf_key(7)).
fn options(flags: u32, seq: u32) -> [u8; 24] {
    let mut octets = [0; 24];
    // SAFETY: getpid has no preconditions.
    let pid = unsafe { libc::getpid() };
    let fields: [(usize, &[u8]); 7] = [
        (0, &[2, SOCKET_OPTIONS, 0, 0]),
        (4, &3_u16.to_ne_bytes()),
        (8, &seq.to_ne_bytes()),
        (12, &pid.to_ne_bytes()),
        (16, &1_u16.to_ne_bytes()),
        (18, &131_u16.to_ne_bytes()),
        (20, &flags.to_ne_bytes()),
    ];
    for (at, value) in fields {
        if let Some(field) = octets.get_mut(at..at + value.len()) {
            field.copy_from_slice(value);
        }
    }
    octets
}

/// The address of the service; `None` if nothing names it.
fn address() -> Option<sockaddr_un> {
    // SAFETY: the name ends in NUL; what comes back is null or a string of the environment.
    let path = unsafe {
        let path = libc::getenv(PATH.as_ptr());
        if path.is_null() {
            return None;
        }
        CStr::from_ptr(path)
    };
    let mut address = sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    let octets = path.to_bytes_with_nul();
    if octets.len() < 2 {
        return None;
    }
    for (to, from) in address.sun_path.get_mut(..octets.len())?.iter_mut().zip(octets) {
        *to = from.cast_signed();
    }
    Some(address)
}

/// `socket(PF_KEY, …)`. `None` if no service is named: then the kernel is asked.
pub(crate) fn open(kind: c_int, protocol: c_int) -> Option<c_int> {
    let address = address()?;
    let flags = kind & (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    if kind & !flags != libc::SOCK_RAW {
        return Some(fail(libc::ESOCKTNOSUPPORT));
    }
    if protocol != PF_KEY_V2 {
        return Some(fail(libc::EPROTONOSUPPORT));
    }
    share();
    let kind = libc::SOCK_SEQPACKET | flags & libc::SOCK_CLOEXEC;
    // SAFETY: numbers only.
    let fd = unsafe { real::socket(libc::AF_UNIX, kind, 0) };
    if fd < 0 {
        return Some(fd);
    }
    if let Err(error) = enter(fd, &address, flags & libc::SOCK_NONBLOCK != 0) {
        // SAFETY: it was opened above and nobody else knows it.
        unsafe { libc::close(fd) };
        let named_so = error == libc::EPERM && is_klips(&address);
        return Some(fail(if named_so { libc::EACCES } else { error }));
    }
    Some(fd)
}

fn done(result: c_int) -> Result<(), c_int> {
    if result < 0 { Err(errno()) } else { Ok(()) }
}

fn enter(fd: c_int, address: &sockaddr_un, nonblocking: bool) -> Result<(), c_int> {
    let len = size_of::<sockaddr_un>() as socklen_t;
    // SAFETY: the address has as many octets as `len` says.
    done(unsafe { real::connect(fd, core::ptr::from_ref(address).cast(), len) }).map_err(
        |error| match error {
            // No service is what a kernel without PF_KEY is.
            libc::ENOENT | libc::ECONNREFUSED => libc::EAFNOSUPPORT,
            libc::EACCES => libc::EPERM,
            other => other,
        },
    )?;
    // A kernel refuses in socket(). The service accepts everybody and then says who may not: ask.
    let knock = options(LOOPBACK, KNOCK);
    // SAFETY: the buffer has as many octets as the call says.
    let sent = unsafe { real::send(fd, knock.as_ptr().cast(), knock.len(), libc::MSG_NOSIGNAL) };
    // One that was refused at once may find the door shut; the reason lies behind it.
    if sent < 0 && errno() != libc::EPIPE {
        return Err(errno());
    }
    let mut reset = false;
    // What it says meanwhile to everybody, and signals, make no more time of it.
    let start = now();
    loop {
        wait(fd, start)?;
        let mut head = [0_u8; 16];
        // SAFETY: as above. Longer records are cut.
        let len = unsafe { real::recv(fd, head.as_mut_ptr().cast(), head.len(), libc::MSG_DONTWAIT) };
        if len < 0 && [libc::EINTR, libc::EAGAIN].contains(&errno()) {
            continue;
        }
        // It may have hung up before it read the question; what it said before that lies behind this one error.
        if len < 0 && errno() == libc::ECONNRESET && !core::mem::replace(&mut reset, true) {
            continue;
        }
        if len < 16 {
            return Err(if len < 0 { errno() } else { libc::EAFNOSUPPORT });
        }
        let [_, kind, error, ..] = head;
        if kind == 0 && error != 0 {
            return Err(error.into());
        }
        if head.get(8..12) == Some(&KNOCK.to_ne_bytes()) {
            break;
        }
    }
    if nonblocking {
        let flag = core::ptr::without_provenance_mut(libc::O_NONBLOCK as usize);
        // SAFETY: numbers only.
        done(unsafe { real::fcntl(fd, libc::F_SETFL, flag) })?;
    }
    done(set_option(fd, SO_PRIORITY, HEARS))?;
    look(fd);
    Ok(())
}

/// Waits until there is something to read, which may take as long as the service may, from `start` on.
fn wait(fd: c_int, start: Duration) -> Result<(), c_int> {
    let mut one = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    loop {
        let left = PATIENCE.saturating_sub(now().saturating_sub(start));
        if left.is_zero() {
            return Err(libc::ETIMEDOUT);
        }
        let milliseconds = c_int::try_from(left.as_millis()).unwrap_or(c_int::MAX).saturating_add(1);
        // SAFETY: one entry, as the count says.
        match unsafe { libc::poll(&raw mut one, 1, milliseconds) } {
            0 => {}
            1.. => return Ok(()),
            _ if errno() == libc::EINTR => {}
            _ => return Err(errno()),
        }
    }
}

/// Octets that lie ready to be read.
fn ready(fd: c_int) -> c_int {
    let mut octets: c_int = 0;
    // SAFETY: the request writes one int.
    let done = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut octets) };
    if done == 0 { octets } else { 0 }
}

/// Sends one record in parts. Returns when its answer is there, as a kernel's `send` does: OpenIKED waits for one
/// millisecond after it.
///
/// # Safety
/// As sendmsg(2) says.
pub(crate) unsafe fn send(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    let parts = unsafe {
        if message.is_null() || (*message).msg_iovlen > 0 && (*message).msg_iov.is_null() {
            return fail(libc::EFAULT);
        }
        if (*message).msg_iovlen > MOST {
            return fail(libc::EMSGSIZE);
        }
        core::slice::from_raw_parts(
            if (*message).msg_iovlen == 0 {
                core::ptr::NonNull::dangling().as_ptr()
            } else {
                (*message).msg_iov
            },
            (*message).msg_iovlen,
        )
    };
    // Nothing is no message, and to the service it would be the end.
    if parts.iter().all(|part: &iovec| part.iov_len == 0) {
        return 0;
    }
    let before = Before { ready: ready(fd), taken: number(fd).load(Ordering::Relaxed) };
    // Addresses and descriptors are no part of PF_KEY.
    // SAFETY: all zero is a valid msghdr.
    let mut plain: msghdr = unsafe { core::mem::zeroed() };
    plain.msg_iov = parts.as_ptr().cast_mut();
    plain.msg_iovlen = parts.len();
    // SAFETY: the parts are the caller's.
    let sent = unsafe { real::sendmsg(fd, &raw const plain, flags | libc::MSG_NOSIGNAL) };
    if sent < 0 {
        return gone(sent);
    }
    let after = errno();
    if answered(parts) && option(fd, SO_PRIORITY) == Some(HEARS) {
        settle(fd, &before);
        if speaks_klips(fd)
            && let Some(error) = refused(fd, &before, parts)
        {
            return fail(error);
        }
    }
    set_errno(after);
    sent
}

/// The end of the path of the service's socket for programs written for KLIPS.
const KLIPS: &[u8] = b"/pf_key.klips.sock";

fn is_klips(address: &sockaddr_un) -> bool {
    let path = address.sun_path.map(i8::cast_unsigned);
    let len = path.iter().position(|octet| *octet == 0).unwrap_or(path.len());
    path.get(..len).is_some_and(|path| path.ends_with(KLIPS))
}

/// Whether the program is one that is told by `write`, too, why its message was refused.
fn speaks_klips(fd: c_int) -> bool {
    let mut address = sockaddr_un { sun_family: 0, sun_path: [0; 108] };
    let mut len = size_of::<sockaddr_un>() as socklen_t;
    // SAFETY: the address has as many octets as `len` says.
    let done = unsafe { real::getpeername(fd, (&raw mut address).cast(), &raw mut len) };
    done == 0 && is_klips(&address)
}

/// Why the message just sent was refused, if it was. The record that says so stays to be read.
fn refused(fd: c_int, before: &Before, parts: &[iovec]) -> Option<c_int> {
    let mut asked = [0_u8; 16];
    let octets = parts.iter().flat_map(|part| {
        // SAFETY: it was just sent from there, so it can be read.
        (0..part.iov_len).map(|n| unsafe { *part.iov_base.cast::<u8>().add(n) })
    });
    let whole = asked.iter_mut().zip(octets).map(|(to, from)| *to = from).count();
    if whole < asked.len() {
        asked.fill(0);
    }
    // What was not read before lies in front of it.
    if before.ready != 0 && set_option(fd, libc::SO_PEEK_OFF, before.ready) != 0 {
        return None;
    }
    let mut head = [0_u8; 16];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the buffer has as many octets as the call says.
    let len = unsafe { real::recv(fd, head.as_mut_ptr().cast(), head.len(), flags) };
    if before.ready != 0 {
        set_option(fd, libc::SO_PEEK_OFF, -1);
    }
    let ([_, kind, ..], [_, number, error, ..]) = (asked, head);
    // Sequence number and process.
    let same = len == 16 && kind == number && asked.get(8..) == head.get(8..);
    (same && error != 0).then(|| error.into())
}

/// Whether the service answers such a message.
fn answered(parts: &[iovec]) -> bool {
    let mut skip = 1;
    for part in parts {
        if skip < part.iov_len {
            // SAFETY: it was just sent from there, so it can be read.
            let kind = unsafe { *part.iov_base.cast::<u8>().add(skip) };
            return kind != SADB_ACQUIRE;
        }
        skip -= part.iov_len;
    }
    // Too short to be a message; it is refused all the same.
    true
}

/// How many sockets are counted apart. Two that fall together are one to a writer, who then may not wait for its answer.
const APART: usize = 1024;
type Numbers = [AtomicU32; APART];

/// Records that were read from PF_KEY sockets in this process and those that it forked: they have the descriptors in common and,
/// from before the first of them, the page that these numbers lie in.
static TAKEN: AtomicPtr<Numbers> = AtomicPtr::new(core::ptr::null_mut());
/// The numbers of one process alone, where there is no such page.
static ALONE: Numbers = [const { AtomicU32::new(0) }; APART];

/// Has a page for the numbers. Where memory is short, a reader in another process is not noticed, and waited for.
fn share() {
    if !TAKEN.load(Ordering::Acquire).is_null() {
        return;
    }
    let (len, access) = (size_of::<Numbers>(), libc::PROT_READ | libc::PROT_WRITE);
    let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new page where there is room, of zeros.
    let page = unsafe { libc::mmap(core::ptr::null_mut(), len, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return;
    }
    let none = core::ptr::null_mut();
    if TAKEN.compare_exchange(none, page.cast(), Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: another thread was first; nobody knows this page.
        unsafe { libc::munmap(page, len) };
    }
}

/// The number of one socket, whichever descriptor of it this is.
fn number(fd: c_int) -> &'static AtomicU32 {
    static NONE: AtomicU32 = AtomicU32::new(0);
    // SAFETY: once set it is a page that stays, aligned and zero at first, which are valid numbers.
    let numbers = unsafe { TAKEN.load(Ordering::Acquire).as_ref() }.unwrap_or(&ALONE);
    let mut cookie: u64 = 0;
    let mut len = size_of::<u64>() as socklen_t;
    // SAFETY: the value has as many octets as `len` says. Where there are none of these, all sockets are one.
    unsafe { real::getsockopt(fd, libc::SOL_SOCKET, SO_COOKIE, (&raw mut cookie).cast(), &raw mut len) };
    let at = usize::try_from(cookie % APART as u64).unwrap_or(0);
    numbers.get(at).unwrap_or(&NONE)
}

/// How things were before a message was sent.
struct Before {
    ready: c_int,
    taken: u32,
}

/// How long the service may take to answer a message that it has read, on a machine that has other things to do. Past that,
/// somebody has read the answer who was given the descriptor, or kept it across `exec`.
const ANSWERING: Duration = Duration::from_secs(1);
/// The same where other records lie unread: then the answer may wait in the service for its turn.
const ANSWERING_BEHIND: Duration = Duration::from_millis(5);

/// Waits until the answer lies ready, a reader beside us (another thread, another process) has taken it, or the program's
/// patience ends (`SO_SNDTIMEO`).
fn settle(fd: c_int, before: &Before) {
    let start = now();
    let mut read = None;
    let mut patience = None;
    loop {
        // What has piled up unread makes `poll` useless; then it is looked at in turns.
        if before.ready == 0 {
            let mut one = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry, as the count says.
            if unsafe { libc::poll(&raw mut one, 1, 1) } > 0 {
                return;
            }
        } else {
            if ready(fd) != before.ready {
                return;
            }
            let nap = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
            // SAFETY: the time is valid, what remains of it is not asked for.
            unsafe { libc::nanosleep(&raw const nap, core::ptr::null_mut()) };
        }
        if number(fd).load(Ordering::Relaxed) != before.taken {
            return;
        }
        let now = now();
        if now.saturating_sub(start) >= *patience.get_or_insert_with(|| patience_of(fd)) {
            return;
        }
        if unread(fd) {
            continue;
        }
        let enough = if before.ready == 0 { ANSWERING } else { ANSWERING_BEHIND };
        if now.saturating_sub(*read.get_or_insert(now)) >= enough {
            return;
        }
    }
}

/// Time since some moment, while the machine is awake.
pub(crate) fn now() -> Duration {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one time is written; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut at) };
    duration(&at)
}

/// A time of C.
pub(crate) fn duration(at: &libc::timespec) -> Duration {
    Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap_or(0))
}

/// Whether the service has not read all that was sent.
fn unread(fd: c_int) -> bool {
    let mut octets: c_int = 0;
    // SAFETY: the request writes one int.
    let done = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut octets) };
    done == 0 && octets > 0
}

/// How long a message may take: `SO_SNDTIMEO`, and never longer than ours.
fn patience_of(fd: c_int) -> Duration {
    let mut limit = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let mut len = size_of::<libc::timeval>() as socklen_t;
    let at = (&raw mut limit).cast();
    // SAFETY: the value has as many octets as `len` says.
    let done = unsafe { real::getsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, at, &raw mut len) };
    let own = Duration::from_secs(limit.tv_sec.unsigned_abs())
        .saturating_add(Duration::from_micros(limit.tv_usec.unsigned_abs()));
    if done != 0 || own.is_zero() { PATIENCE } else { own.min(PATIENCE) }
}

/// A record was read from one of ours. Leaves errno as it is.
pub(crate) fn taken(fd: c_int) {
    let before = errno();
    number(fd).fetch_add(1, Ordering::Relaxed);
    set_errno(before);
}

/// SO_USELOOPBACK.
pub(crate) fn set_loopback(fd: c_int, on: bool) -> c_int {
    let message = options(NO_ANSWER | if on { LOOPBACK } else { 0 }, 0);
    // SAFETY: the buffer has as many octets as the call says.
    let sent = unsafe { real::send(fd, message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) };
    if gone(sent) < 0 {
        return -1;
    }
    set_option(fd, SO_PRIORITY, if on { HEARS } else { DEAF })
}
