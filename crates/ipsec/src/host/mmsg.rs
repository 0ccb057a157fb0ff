//! Many datagrams in one system call: `sendmsg` with `UDP_SEGMENT`, `sendmmsg`, `recvmmsg`, and the options they go with.
//!
//! The arrays the kernel reads and writes are allocated once, in [`Slots`] and [`Scratch`]; their pointers are set anew for
//! every call and mean nothing between calls.
#![expect(
    unsafe_code,
    reason = "the vectored calls and their control messages exist only in libc; five calls, each beside its proof"
)]

use core::ffi::c_int;
use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// Datagrams in one call, at most.
pub const MAX: usize = 64;

/// Room for the control messages of one datagram: addresses, TOS and segment size, IPv6 being the larger.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 128]);

/// What comes with a datagram received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it begins in the buffer.
    pub start: usize,
    /// Its length.
    pub len: usize,
    /// It was longer than its slot.
    pub truncated: bool,
    /// Who sent it; the port is 0 for raw sockets.
    pub from: SocketAddr,
    /// Which of our addresses it came to, if the socket tells.
    pub to: Option<IpAddr>,
    /// TOS or traffic class, if the socket tells.
    pub tos: u8,
    /// The length of each of the datagrams that `UDP_GRO` put together here, but the last.
    pub segment: Option<usize>,
}

/// Receive slots.
pub struct Slots {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    stride: usize,
}

// SAFETY: the pointers inside are written before each call and read by nobody after it.
unsafe impl Send for Slots {}

impl Default for Slots {
    fn default() -> Self {
        // SAFETY: all zero octets are valid values of these C structures.
        let (header, vector, name) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            headers: vec![header; MAX].into(),
            vectors: vec![vector; MAX].into(),
            names: vec![name; MAX].into(),
            controls: vec![Control([0; 128]); MAX].into(),
            stride: 0,
        }
    }
}

impl Slots {
    /// Receives up to `count` datagrams without waiting, one every `stride` octets of `buffer`, each cut off where the
    /// next begins. Returns how many there are.
    pub fn receive(
        &mut self,
        socket: impl AsFd,
        buffer: &mut [u8],
        stride: usize,
        count: usize,
    ) -> io::Result<usize> {
        self.stride = stride.max(1);
        let mut ready = 0_usize;
        let parts =
            self.headers.iter_mut().zip(&mut self.vectors).zip(self.names.iter_mut().zip(&mut self.controls));
        for (((header, vector), (name, control)), slot) in
            parts.zip(buffer.chunks_exact_mut(self.stride)).take(count.min(MAX))
        {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let header = &mut header.msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = length(size_of_val(name));
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = control.0.len() as _;
            header.msg_flags = 0;
            ready = ready.saturating_add(1);
        }
        // SAFETY: the first `ready` headers point at live and distinct vectors, names, control buffers and slots of
        // `buffer`, each with its own length; all are borrowed mutably until the call returns.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                ready as _,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// What came with datagram `index` of the last [`Slots::receive`].
    pub fn message(&self, index: usize) -> Option<Message> {
        let header = self.headers.get(index)?;
        let control = self.controls.get(index)?;
        let mut message = Message {
            start: index.checked_mul(self.stride)?,
            len: header.msg_len as usize,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            from: address(self.names.get(index)?)?,
            to: None,
            tos: 0,
            segment: None,
        };
        for (level, kind, data) in controls(control.0.get(..header.msg_hdr.msg_controllen)?) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    message.to =
                        data.get(8..12).and_then(octets).map(|to: [u8; 4]| Ipv4Addr::from(to).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    message.to =
                        data.get(..16).and_then(octets).map(|to: [u8; 16]| Ipv6Addr::from(to).into());
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => message.tos = data.first().copied().unwrap_or(0),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    message.tos = integer(data).and_then(|value| u8::try_from(value).ok()).unwrap_or(0);
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    message.segment = integer(data).and_then(|value| usize::try_from(value).ok());
                }
                _ => {}
            }
        }
        Some(message)
    }
}

/// Where datagrams go, and what their IP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The receiver; port 0 for raw sockets.
    pub to: SocketAddr,
    /// Our address, of the same family; the kernel's choice if unspecified.
    pub from: Option<IpAddr>,
    /// TOS or traffic class; what the socket has if `None`.
    pub tos: Option<u8>,
}

/// The arrays of one sender.
pub struct Scratch {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    name: libc::sockaddr_storage,
    name_len: libc::socklen_t,
    control: Control,
    control_len: usize,
}

// SAFETY: as for `Slots`.
unsafe impl Send for Scratch {}

impl Default for Scratch {
    fn default() -> Self {
        // SAFETY: all zero octets are valid values of these C structures.
        let (header, vector, name) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            headers: vec![header; MAX].into(),
            vectors: vec![vector; MAX].into(),
            name,
            name_len: 0,
            control: Control([0; 128]),
            control_len: 0,
        }
    }
}

impl Scratch {
    /// Sends `octets` as one datagram, or as many of `segment` octets each that the kernel cuts (`UDP_SEGMENT`).
    pub fn send(
        &mut self,
        socket: impl AsFd,
        octets: &[u8],
        destination: &Destination,
        segment: Option<u16>,
    ) -> io::Result<()> {
        self.address(destination, segment);
        let mut vector = libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() };
        let header = self.header(&raw mut vector);
        // SAFETY: `header` points at the name, the control messages and one vector over `octets`, all alive until the
        // call returns; sendmsg only reads them.
        let sent = unsafe {
            libc::sendmsg(
                socket.as_fd().as_raw_fd(),
                &raw const header,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends `octets` as datagrams of `stride` octets, the last perhaps shorter, up to [`MAX`]. Returns how many left;
    /// an error is about the first.
    pub fn send_each(
        &mut self,
        socket: impl AsFd,
        octets: &[u8],
        stride: usize,
        destination: &Destination,
    ) -> io::Result<usize> {
        self.address(destination, None);
        let mut ready = 0_usize;
        for (index, octets) in octets.chunks(stride.max(1)).take(MAX).enumerate() {
            let Some(vector) = self.vectors.get_mut(index) else { break };
            *vector = libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() };
            let vector = ptr::from_mut(vector);
            let header = self.header(vector);
            let Some(slot) = self.headers.get_mut(index) else { break };
            slot.msg_hdr = header;
            ready = index.saturating_add(1);
        }
        // SAFETY: the first `ready` headers point at the name, the control messages and one live vector each over a
        // part of `octets`; sendmmsg only reads them, and writes `msg_len`.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                ready as _,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    fn header(&mut self, vector: *mut libc::iovec) -> libc::msghdr {
        // SAFETY: all zero octets are a valid `msghdr`.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_name = ptr::from_mut(&mut self.name).cast();
        header.msg_namelen = self.name_len;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        if self.control_len > 0 {
            header.msg_control = self.control.0.as_mut_ptr().cast();
            header.msg_controllen = self.control_len as _;
        }
        header
    }

    fn address(&mut self, destination: &Destination, segment: Option<u16>) {
        self.name_len = name(destination.to, &mut self.name);
        self.control_len = 0;
        match destination.from {
            Some(IpAddr::V4(from)) if !from.is_unspecified() => {
                // in_pktinfo: interface, address to send from, (only on receipt) address in the header.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&from.octets());
                self.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(from)) if !from.is_unspecified() => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&from.octets());
                self.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => {}
        }
        if let Some(tos) = destination.tos {
            let value = c_int::from(tos).to_ne_bytes();
            if destination.to.is_ipv4() {
                self.put(libc::IPPROTO_IP, libc::IP_TOS, &value);
            } else {
                self.put(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &value);
            }
        }
        if let Some(segment) = segment {
            self.put(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
    }

    /// Appends one control message: its header, its data, padding to the alignment of a word (cmsg(3)).
    fn put(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let at = self.control_len;
        let length = HEADER + data.len();
        let Some(room) = self.control.0.get_mut(at..at + length.next_multiple_of(WORD)) else { return };
        room.fill(0);
        room[..WORD].copy_from_slice(&length.to_ne_bytes());
        room[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        room[WORD + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        room[HEADER..length].copy_from_slice(data);
        self.control_len = at + room.len();
    }
}

const WORD: usize = size_of::<usize>();
const HEADER: usize = size_of::<libc::cmsghdr>();
// The layout `put` and `controls` rely on: a word of length, level, kind, no gap.
const _: () = assert!(HEADER == WORD + 8);

/// The control messages in what the kernel wrote.
fn controls(mut octets_left: &[u8]) -> impl Iterator<Item = (c_int, c_int, &[u8])> {
    std::iter::from_fn(move || {
        let length = octets_left.get(..WORD).and_then(octets).map(usize::from_ne_bytes)?;
        let this = octets_left.get(..length)?;
        let level = integer(this.get(WORD..)?)?;
        let kind = integer(this.get(WORD + 4..)?)?;
        let data = this.get(HEADER..)?;
        octets_left = octets_left.get(length.next_multiple_of(WORD)..).unwrap_or_default();
        Some((level, kind, data))
    })
}

fn octets<const N: usize>(from: &[u8]) -> Option<[u8; N]> {
    from.first_chunk().copied()
}

fn integer(from: &[u8]) -> Option<c_int> {
    octets(from).map(c_int::from_ne_bytes)
}

fn length(of: usize) -> libc::socklen_t {
    of as libc::socklen_t
}

/// `socket2` knows how addresses lie in memory.
fn name(address: SocketAddr, to: &mut libc::sockaddr_storage) -> libc::socklen_t {
    let address = socket2::SockAddr::from(address);
    // SAFETY: a `SockAddr` is at least `len` initialised octets, and no longer than a `sockaddr_storage`.
    unsafe {
        ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            ptr::from_mut(to).cast(),
            address.len() as usize,
        )
    };
    address.len()
}

fn address(of: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(of.ss_family) {
        libc::AF_INET => {
            // SAFETY: a `sockaddr_storage` is large enough and aligned for a `sockaddr_in`, in which every bit pattern is valid.
            let of = unsafe { &*ptr::from_ref(of).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(of.sin_addr.s_addr));
            Some(SocketAddr::new(ip.into(), u16::from_be(of.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: likewise for a `sockaddr_in6`.
            let of = unsafe { &*ptr::from_ref(of).cast::<libc::sockaddr_in6>() };
            Some(SocketAddr::new(Ipv6Addr::from(of.sin6_addr.s6_addr).into(), u16::from_be(of.sin6_port)))
        }
        _ => None,
    }
}

/// Sets a socket option that holds an `int`.
pub fn set(socket: impl AsFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    set_raw(socket, level, option, ptr::from_ref(&value).cast(), size_of::<c_int>())
}

/// One instruction of a classic BPF program.
pub type Instruction = libc::sock_filter;

/// Has the kernel choose among the sockets of a `SO_REUSEPORT` group by a program over the datagram's payload.
pub fn steer(socket: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    attach(socket, libc::SO_ATTACH_REUSEPORT_CBPF, program)
}

/// Has the kernel keep datagrams from a socket for which the program returns 0.
pub fn filter(socket: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    attach(socket, libc::SO_ATTACH_FILTER, program)
}

fn attach(socket: impl AsFd, option: c_int, program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    set_raw(socket, libc::SOL_SOCKET, option, ptr::from_ref(&program).cast(), size_of_val(&program))
}

/// `value` must point at `len` octets of what the option takes.
fn set_raw(
    socket: impl AsFd,
    level: c_int,
    option: c_int,
    value: *const libc::c_void,
    len: usize,
) -> io::Result<()> {
    // SAFETY: the two callers pass a pointer to one live C value with its size; the kernel copies it, and the program it
    // may point at, before it returns.
    let result = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, value, length(len)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn pair(host: &str) -> (UdpSocket, UdpSocket) {
        let (one, two) = (UdpSocket::bind((host, 0)).unwrap(), UdpSocket::bind((host, 0)).unwrap());
        let receive: &[(c_int, c_int)] = if host.contains(':') {
            &[(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO), (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)]
        } else {
            &[(libc::IPPROTO_IP, libc::IP_PKTINFO), (libc::IPPROTO_IP, libc::IP_RECVTOS)]
        };
        for (level, option) in receive {
            set(&two, *level, *option, 1).unwrap();
        }
        (one, two)
    }

    fn to(socket: &UdpSocket, from: &str) -> Destination {
        Destination {
            to: socket.local_addr().unwrap(),
            from: Some(from.parse().unwrap()),
            tos: Some(0b1011_1010),
        }
    }

    #[test]
    fn datagrams_sent_in_one_call_arrive_with_their_addresses_and_tos() {
        for (host, from) in [("127.0.0.1", "127.0.0.5"), ("::1", "::1")] {
            let (one, two) = pair(host);
            let (mut scratch, mut slots) = (Scratch::default(), Slots::default());
            let octets: Vec<u8> = (0..=249).collect();
            assert_eq!(scratch.send_each(&one, &octets, 100, &to(&two, from)).unwrap(), 3);
            let mut buffer = vec![0; 64 * 300];
            assert_eq!(slots.receive(&two, &mut buffer, 300, MAX).unwrap(), 3);
            for (index, expected) in octets.chunks(100).enumerate() {
                let message = slots.message(index).unwrap();
                assert_eq!(&buffer[message.start..][..message.len], expected);
                assert_eq!(
                    message.from,
                    SocketAddr::new(from.parse().unwrap(), one.local_addr().unwrap().port())
                );
                assert_eq!(message.to, Some(host.parse().unwrap()));
                assert_eq!(message.tos, 0b1011_1010);
                assert_eq!((message.truncated, message.segment), (false, None));
            }
            assert_eq!(
                slots.receive(&two, &mut buffer, 300, MAX).unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
        }
    }

    #[test]
    fn one_segmented_send_is_received_as_one_with_its_stride() {
        for host in ["127.0.0.1", "::1"] {
            let (one, two) = pair(host);
            set(&two, libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
            let (mut scratch, mut slots) = (Scratch::default(), Slots::default());
            let octets: Vec<u8> = (0..25_000_u32).map(|n| (n % 251) as u8).collect();
            scratch.send(&one, &octets, &to(&two, host), Some(1000)).unwrap();
            scratch.send(&one, &octets[..999], &to(&two, host), None).unwrap();
            let mut buffer = vec![0; 3 * 65536];
            assert_eq!(slots.receive(&two, &mut buffer, 65536, 3).unwrap(), 2);
            let message = slots.message(0).unwrap();
            assert_eq!(message.segment, Some(1000));
            assert_eq!(&buffer[message.start..][..message.len], octets);
            let message = slots.message(1).unwrap();
            assert_eq!((message.start, message.len), (65536, 999));
        }
    }

    #[test]
    fn a_datagram_longer_than_its_slot_is_marked_and_does_not_touch_the_next() {
        let (one, two) = pair("127.0.0.1");
        let (mut scratch, mut slots) = (Scratch::default(), Slots::default());
        scratch.send(&one, &[9; 400], &to(&two, "127.0.0.1"), None).unwrap();
        let mut buffer = vec![0; 300];
        assert_eq!(slots.receive(&two, &mut buffer, 100, 1).unwrap(), 1);
        let message = slots.message(0).unwrap();
        assert!(message.truncated);
        assert_eq!(message.len, 100);
        assert_eq!(buffer[100..], [0; 200]);
    }

    #[test]
    fn no_more_slots_are_used_than_the_buffer_holds() {
        let (one, two) = pair("127.0.0.1");
        let (mut scratch, mut slots) = (Scratch::default(), Slots::default());
        scratch.send_each(&one, &[1; 500], 100, &to(&two, "127.0.0.1")).unwrap();
        let mut buffer = vec![0; 250];
        assert_eq!(slots.receive(&two, &mut buffer, 100, MAX).unwrap(), 2);
        assert_eq!(slots.message(MAX), None);
    }

    #[test]
    fn a_program_chooses_the_socket_of_a_group() {
        let first = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        first.set_reuse_port(true).unwrap();
        first.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = first.local_addr().unwrap();
        let second = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        second.set_reuse_port(true).unwrap();
        second.bind(&address).unwrap();
        let program = [
            Instruction { code: 0x20, jt: 0, jf: 0, k: 0 },
            Instruction { code: 0x54, jt: 0, jf: 0, k: 1 },
            Instruction { code: 0x16, jt: 0, jf: 0, k: 0 },
        ];
        steer(&first, &program).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = address.as_socket().unwrap();
        for spi in 0..20_u32 {
            sender.send_to(&spi.to_be_bytes(), target).unwrap();
        }
        let (mut slots, mut buffer) = (Slots::default(), vec![0; 64 * 16]);
        for (parity, socket) in [&first, &second].into_iter().enumerate() {
            let n = slots.receive(socket, &mut buffer, 16, MAX).unwrap();
            assert_eq!(n, 10);
            assert!((0..n).all(|i| usize::from(buffer[16 * i + 3]) % 2 == parity));
        }
    }
}
