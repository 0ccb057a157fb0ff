//! What programs call.

use crate::ours::{DEAF, fail, is_ours, look, option};
use crate::{end, real, service};
use core::ffi::{c_int, c_uint, c_void};
use libc::{iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};

const PF_KEY: c_int = 15;
const PF_KEY_V2: c_int = 2;
/// SO_USELOOPBACK of `net/pfkeyv2.h`.
const SO_USELOOPBACK: c_int = 0x40;
const IP_IPSEC_POLICY: c_int = 16;
const IPV6_IPSEC_POLICY: c_int = 34;

#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn() = real::find_all_at_start;

/// Declares a function that programs call in place of the C library's.
macro_rules! stand_in {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)+) => {
        $(
            /// Stands in front of the C library's function of this name.
            ///
            /// # Safety
            /// As that function says.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C-unwind" fn $name($($argument: $type),*) -> $result {
                // SAFETY: what the caller promises that function, it promises here.
                unsafe { $body }
            }
        )+
    };
}

/// Those that make no sense on a PF_KEY socket.
macro_rules! unsupported {
    ($(fn $name:ident($($argument:ident: $type:ty),*);)+) => {
        stand_in! {
            $(fn $name(fd: c_int $(, $argument: $type)*) -> c_int {
                if is_ours(fd) { fail(libc::EOPNOTSUPP) } else { real::$name(fd $(, $argument)*) }
            })+
        }
    };
}

unsupported! {
    fn bind(at: *const sockaddr, len: socklen_t);
    fn connect(at: *const sockaddr, len: socklen_t);
    fn listen(backlog: c_int);
    fn accept(at: *mut sockaddr, len: *mut socklen_t);
    fn accept4(at: *mut sockaddr, len: *mut socklen_t, flags: c_int);
    fn shutdown(how: c_int);
}

/// A new number for something that may be ours.
fn known(fd: c_int) -> c_int {
    if fd >= 0 {
        look(fd);
    }
    fd
}

stand_in! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
        if domain == PF_KEY && let Some(fd) = service::open(kind, protocol) {
            return fd;
        }
        real::socket(domain, kind, protocol)
    }

    fn dup(fd: c_int) -> c_int {
        let ours = is_ours(fd);
        let new = real::dup(fd);
        if ours { known(new) } else { new }
    }

    fn dup2(fd: c_int, to: c_int) -> c_int {
        let ours = is_ours(fd);
        let new = real::dup2(fd, to);
        if ours { known(new) } else { new }
    }

    fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
        let ours = is_ours(fd);
        let new = real::dup3(fd, to, flags);
        if ours { known(new) } else { new }
    }

    fn fcntl(fd: c_int, command: c_int, argument: *mut c_void) -> c_int {
        let new = real::fcntl(fd, command, argument);
        if [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC].contains(&command) && new >= 0 && is_ours(fd) { known(new) } else { new }
    }

    fn fcntl64(fd: c_int, command: c_int, argument: *mut c_void) -> c_int {
        let new = real::fcntl64(fd, command, argument);
        if [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC].contains(&command) && new >= 0 && is_ours(fd) { known(new) } else { new }
    }

    fn pidfd_getfd(pidfd: c_int, fd: c_int, flags: c_uint) -> c_int {
        known(real::pidfd_getfd(pidfd, fd, flags))
    }

    fn getsockname(fd: c_int, at: *mut sockaddr, len: *mut socklen_t) -> c_int {
        if is_ours(fd) { family_alone(at, len) } else { real::getsockname(fd, at, len) }
    }

    fn getpeername(fd: c_int, at: *mut sockaddr, len: *mut socklen_t) -> c_int {
        if is_ours(fd) { family_alone(at, len) } else { real::getpeername(fd, at, len) }
    }

    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int {
        if !is_ours(fd) {
            return real::getsockopt(fd, level, name, value, len);
        }
        if level != libc::SOL_SOCKET {
            return fail(libc::EOPNOTSUPP);
        }
        let ours = match name {
            libc::SO_DOMAIN => PF_KEY,
            libc::SO_TYPE => libc::SOCK_RAW,
            libc::SO_PROTOCOL => PF_KEY_V2,
            libc::SO_PRIORITY => 0,
            SO_USELOOPBACK => c_int::from(option(fd, libc::SO_PRIORITY) != Some(DEAF)),
            _ => return real::getsockopt(fd, level, name, value, len),
        };
        if value.is_null() || len.is_null() {
            return fail(libc::EFAULT);
        }
        let octets = ours.to_ne_bytes();
        let room = octets.len().min(*len as usize);
        core::ptr::copy_nonoverlapping(octets.as_ptr(), value.cast::<u8>(), room);
        *len = room as socklen_t;
        0
    }

    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int {
        if is_ours(fd) {
            if level != libc::SOL_SOCKET {
                return fail(libc::EOPNOTSUPP);
            }
            return match name {
                SO_USELOOPBACK if value.is_null() => fail(libc::EFAULT),
                SO_USELOOPBACK if (len as usize) < size_of::<c_int>() => fail(libc::EINVAL),
                SO_USELOOPBACK => service::set_loopback(fd, value.cast::<c_int>().read_unaligned() != 0),
                // Accepted by a kernel, and what marks the socket here.
                libc::SO_PRIORITY => 0,
                _ => real::setsockopt(fd, level, name, value, len),
            };
        }
        let policy = (level == libc::IPPROTO_IP && name == IP_IPSEC_POLICY)
            || (level == libc::IPPROTO_IPV6 && name == IPV6_IPSEC_POLICY);
        if policy && leaves_alone(value, len) {
            return 0;
        }
        real::setsockopt(fd, level, name, value, len)
    }

    fn read(fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t {
        told(fd, real::read(fd, buffer, len), || len)
    }

    fn __read_chk(fd: c_int, buffer: *mut c_void, len: size_t, room: size_t) -> ssize_t {
        told(fd, real::__read_chk(fd, buffer, len, room), || len)
    }

    fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        told(fd, real::readv(fd, parts, count), || room(parts, count as usize))
    }

    fn recv(fd: c_int, buffer: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
        told(fd, real::recv(fd, buffer, len, flags), || len)
    }

    fn __recv_chk(fd: c_int, buffer: *mut c_void, len: size_t, room: size_t, flags: c_int) -> ssize_t {
        told(fd, real::__recv_chk(fd, buffer, len, room, flags), || len)
    }

    fn recvfrom(fd: c_int, buffer: *mut c_void, len: size_t, flags: c_int, at: *mut sockaddr, size: *mut socklen_t) -> ssize_t {
        if !is_ours(fd) {
            return real::recvfrom(fd, buffer, len, flags, at, size);
        }
        if !size.is_null() {
            *size = 0;
        }
        told(fd, real::recv(fd, buffer, len, flags), || len)
    }

    fn __recvfrom_chk(fd: c_int, buffer: *mut c_void, len: size_t, room: size_t, flags: c_int, at: *mut sockaddr, size: *mut socklen_t) -> ssize_t {
        if !is_ours(fd) {
            return real::__recvfrom_chk(fd, buffer, len, room, flags, at, size);
        }
        if !size.is_null() {
            *size = 0;
        }
        told(fd, real::__recv_chk(fd, buffer, len, room, flags), || len)
    }

    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
        if is_ours(fd) {
            return receive_one(fd, message, flags);
        }
        let got = real::recvmsg(fd, message, flags);
        if got >= 0 {
            passed(message);
        }
        got
    }

    fn recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int {
        if is_ours(fd) {
            return receive_many(fd, messages, count, flags, timeout);
        }
        let got = real::recvmmsg(fd, messages, count, flags, timeout);
        for index in 0..usize::try_from(got).unwrap_or(0) {
            passed(&raw const (*messages.add(index)).msg_hdr);
        }
        got
    }

    fn write(fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
        if is_ours(fd) { send_one(fd, buffer, len, 0) } else { real::write(fd, buffer, len) }
    }

    fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        if !is_ours(fd) {
            return real::writev(fd, parts, count);
        }
        let Some(count) = usize::try_from(count).ok().filter(|count| *count <= service::MOST) else {
            return fail(libc::EINVAL);
        };
        let mut message: msghdr = core::mem::zeroed();
        message.msg_iov = parts.cast_mut();
        message.msg_iovlen = count;
        service::send(fd, &raw const message, 0)
    }

    fn send(fd: c_int, buffer: *const c_void, len: size_t, flags: c_int) -> ssize_t {
        if is_ours(fd) { send_one(fd, buffer, len, flags) } else { real::send(fd, buffer, len, flags) }
    }

    fn sendto(fd: c_int, buffer: *const c_void, len: size_t, flags: c_int, at: *const sockaddr, size: socklen_t) -> ssize_t {
        if is_ours(fd) { send_one(fd, buffer, len, flags) } else { real::sendto(fd, buffer, len, flags, at, size) }
    }

    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
        if is_ours(fd) { service::send(fd, message, flags) } else { real::sendmsg(fd, message, flags) }
    }

    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
        if !is_ours(fd) {
            return real::sendmmsg(fd, messages, count, flags);
        }
        let count = (count as usize).min(service::MOST);
        for index in 0..count {
            let one = messages.add(index);
            let sent = service::send(fd, &raw const (*one).msg_hdr, flags);
            if sent < 0 {
                return if index == 0 { -1 } else { index as c_int };
            }
            (*one).msg_len = sent as c_uint;
        }
        count as c_int
    }
}

/// What a read has given, as the program is to be told: the end of the service is no end of a file. How much was wanted is
/// asked only where the kernel has found that to make sense.
fn told(fd: c_int, got: ssize_t, wanted: impl FnOnce() -> usize) -> ssize_t {
    if !is_ours(fd) {
        return got;
    }
    match got {
        0 => end::heard(fd, wanted()),
        1.. => {
            service::taken(fd);
            got
        }
        _ => end::gone(got),
    }
}

/// One record into parts, as the kernel gives it: without the address it has come from, that of a Unix socket, and without
/// descriptors, which nobody asked for.
///
/// # Safety
/// As recvmsg(2) says.
unsafe fn receive_plain(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    if message.is_null() {
        return fail(libc::EFAULT);
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mut plain: msghdr = core::mem::zeroed();
        (plain.msg_iov, plain.msg_iovlen) = ((*message).msg_iov, (*message).msg_iovlen);
        let got = real::recvmsg(fd, &raw mut plain, flags);
        if got >= 0 {
            ((*message).msg_namelen, (*message).msg_controllen) = (0, 0);
            (*message).msg_flags = plain.msg_flags & !libc::MSG_CTRUNC;
        }
        got
    }
}

/// The same as a program is told.
///
/// # Safety
/// As recvmsg(2) says.
unsafe fn receive_one(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's promise.
    unsafe {
        let got = receive_plain(fd, message, flags);
        told(fd, got, || room((*message).msg_iov, (*message).msg_iovlen))
    }
}

/// Records, each into parts of its own, until all have come, or the time has passed that is looked at after each.
///
/// # Safety
/// As recvmmsg(2) says.
unsafe fn receive_many(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    let limit = unsafe { timeout.as_ref() };
    if limit.is_some_and(|time| time.tv_sec < 0 || !(0..1_000_000_000).contains(&time.tv_nsec)) {
        return fail(libc::EINVAL);
    }
    let limit = limit.map(|time| (service::now(), service::duration(time)));
    let count = (count as usize).min(service::MOST);
    let mut flags = flags;
    for index in 0..count {
        // SAFETY: there are as many as `count` says.
        let one = unsafe { &mut *messages.add(index) };
        let plain = flags & !libc::MSG_WAITFORONE;
        // SAFETY: the caller's promise. What ends the records is told by the next call: nobody looks behind the last of them.
        let got = unsafe {
            match index {
                0 => receive_one(fd, &raw mut one.msg_hdr, plain),
                _ => receive_plain(fd, &raw mut one.msg_hdr, plain),
            }
        };
        if got < 0 || got == 0 && index > 0 {
            return if index == 0 { -1 } else { index as c_int };
        }
        if index > 0 {
            service::taken(fd);
        }
        one.msg_len = got as c_uint;
        if flags & libc::MSG_WAITFORONE != 0 {
            flags |= libc::MSG_DONTWAIT;
        }
        if limit.is_some_and(|(start, most)| service::now().saturating_sub(start) >= most) {
            return index as c_int + 1;
        }
    }
    count as c_int
}

/// One record in one piece.
///
/// # Safety
/// As send(2) says.
unsafe fn send_one(fd: c_int, buffer: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    let mut part = iovec { iov_base: buffer.cast_mut(), iov_len: len };
    // SAFETY: all zero is a valid msghdr; the buffer is the caller's promise.
    unsafe {
        let mut message: msghdr = core::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        service::send(fd, &raw const message, flags)
    }
}

/// How many octets fit.
///
/// # Safety
/// There are as many parts as `count` says.
unsafe fn room(parts: *const iovec, count: usize) -> usize {
    if parts.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    (0..count).map(|index| unsafe { (*parts.add(index)).iov_len }).fold(0, usize::saturating_add)
}

/// An address with a family and nothing else, as PF_KEY sockets have one.
///
/// # Safety
/// As getsockname(2) says.
unsafe fn family_alone(at: *mut sockaddr, len: *mut socklen_t) -> c_int {
    if at.is_null() || len.is_null() {
        return fail(libc::EFAULT);
    }
    let address = sockaddr { sa_family: PF_KEY as libc::sa_family_t, sa_data: [0; 14] };
    let size = size_of::<sockaddr>();
    // SAFETY: there is as much room as `len` says, and no more is written.
    unsafe {
        let room = size.min(*len as usize);
        core::ptr::copy_nonoverlapping((&raw const address).cast::<u8>(), at.cast::<u8>(), room);
        *len = size as socklen_t;
    }
    0
}

/// Whether a `struct sadb_x_policy` says to leave packets as they are: NONE, ENTRUST or BYPASS.
///
/// # Safety
/// There are as many octets as `len` says.
unsafe fn leaves_alone(policy: *const c_void, len: socklen_t) -> bool {
    const LEN: socklen_t = 16;
    if policy.is_null() || len < LEN {
        return false;
    }
    // SAFETY: the field is within the octets.
    let kind = unsafe { policy.cast::<u8>().add(4).cast::<u16>().read_unaligned() };
    [1, 3, 4].contains(&kind)
}

/// Looks at descriptors that another process has passed.
///
/// # Safety
/// The message was just received.
unsafe fn passed(message: *const msghdr) {
    // SAFETY: the kernel has just written the control messages, and the macros stay within them.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(message);
        while !control.is_null() {
            if (*control).cmsg_level == libc::SOL_SOCKET && (*control).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(control).cast::<c_int>();
                let octets = ((*control).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                for index in 0..octets / size_of::<c_int>() {
                    look(data.add(index).read_unaligned());
                }
            }
            control = libc::CMSG_NXTHDR(message, control);
        }
    }
}
