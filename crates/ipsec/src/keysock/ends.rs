//! How connections end: what a record of no octets means, and how a client is sent away.

use rustix::event::{self, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags};
use std::os::fd::OwnedFd;
use zeroize::Zeroizing;

/// Records of a client that is sent away which are read before it goes.
const DRAINED: usize = 1024;

/// What comes after a record of no octets, which is what reading at the end looks like, too.
pub(super) enum After {
    /// It was a record: RFC 2367 knows no such message, and it is nothing at all.
    More,
    /// The client sends nothing more.
    Silence,
    /// It is gone.
    End,
}

/// Tells them apart: at the end the other side has shut down and nothing waits.
pub(super) fn after_nothing(fd: &OwnedFd) -> After {
    let mut state = [PollFd::new(fd, PollFlags::RDHUP)];
    let polled = event::poll(&mut state, Some(&Timespec::default()));
    let hung_up = state.iter().fold(PollFlags::empty(), |all, one| all | one.revents());
    let waiting = rustix::io::ioctl_fionread(fd).unwrap_or(0);
    if polled.is_err() || hung_up.intersects(PollFlags::HUP | PollFlags::ERR) && waiting == 0 {
        After::End
    } else if hung_up.contains(PollFlags::RDHUP) && waiting == 0 {
        After::Silence
    } else {
        After::More
    }
}

/// Reads what a client that is sent away has written: what lies unread when its socket closes would make its next read say
/// ECONNRESET and not why. It can write nothing more meanwhile.
pub(super) fn drain(fd: &OwnedFd) {
    let _ = net::shutdown(fd, net::Shutdown::Read);
    // What it could write is bounded by its send buffer; empty records, which are nothing, are not waited for.
    for _ in 0..DRAINED {
        match net::recv(fd, &mut [0_u8; 1][..], RecvFlags::DONTWAIT) {
            Ok((0, _)) if rustix::io::ioctl_fionread(fd).unwrap_or(0) == 0 => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// In the place of an answer that is too long for the socket: its header, in whatever numbers it was written, saying so.
pub(super) fn too_long(message: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut header: [u8; pfkey::Base::LEN] = *message.first_chunk()?;
    let [_, _, errno, _, l0, l1, d0, d1, ..] = &mut header;
    *errno = pfkey::Errno::EMSGSIZE.0;
    [*l0, *l1] = 2_u16.to_ne_bytes();
    [*d0, *d1] = [0, 0];
    Some(Zeroizing::new(header.to_vec()))
}
