//! Who is at the other end of a local socket (unix(7): `SO_PEERCRED`, `SO_PEERGROUPS`).
//!
//! The kernel translates both into our user namespace: root of another one is not root here.
#![expect(
    unsafe_code,
    reason = "SO_PEERGROUPS has no safe wrapper in rustix or nix, and theirs of SO_PEERCRED cannot hold pid 0"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Whom we serve.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trust {
    /// Members of this group, beside root.
    pub group: Option<u32>,
}

/// The process at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number in our PID namespace; 0 if it has none there.
    pub pid: u32,
    /// Whether it may ask.
    pub trusted: bool,
}

impl Trust {
    /// Looks at who connected.
    pub fn look(&self, socket: impl AsFd) -> io::Result<Peer> {
        let socket = socket.as_fd();
        let cred = credentials(socket)?;
        let root = cred.uid == 0;
        let trusted = match self.group {
            Some(group) if !root => cred.gid == group || groups(socket)?.contains(&group),
            _ => root,
        };
        Ok(Peer { pid: u32::try_from(cred.pid).unwrap_or(0), trusted })
    }
}

/// The process at the other end. One outside our PID namespace has the number 0.
fn credentials(socket: impl AsFd) -> io::Result<libc::ucred> {
    let mut cred = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
    let mut size = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(io::Error::other)?;
    // SAFETY: `cred` has room for the `size` octets of a ucred, in which every pattern of bits is valid, and the kernel
    // writes no more than that.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &raw mut size,
        )
    };
    if rc == 0 { Ok(cred) } else { Err(io::Error::last_os_error()) }
}

/// The supplementary groups of the process at the other end, as they were when it connected.
fn groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let room = groups.len().saturating_mul(size_of::<u32>());
        let mut size = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
        // SAFETY: `groups` has room for `size` octets of gid_t, which is u32, and the kernel writes no more than that; it
        // sets `size` to what it wrote, or to what it would need together with ERANGE.
        let rc = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        let count = usize::try_from(size).unwrap_or(0) / size_of::<u32>();
        if rc == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn we_recognise_ourselves_and_our_groups() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = Trust::default().look(&a).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.trusted, rustix::process::geteuid().is_root());
        let own = rustix::process::getegid().as_raw();
        assert!(Trust { group: Some(own) }.look(&a).unwrap().trusted);
        let mut known: Vec<u32> = rustix::process::getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
        let mut seen = groups(&a).unwrap();
        known.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, known);
    }
}
