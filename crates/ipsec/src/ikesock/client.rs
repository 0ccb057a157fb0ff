//! The key daemon's end of `ike.sock`.

use super::Record;
use crate::rundir::Rundir;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A connection to klips' UDP port. Nothing here waits.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

impl Client {
    /// Connects to the klips of a run directory.
    pub fn connect(rundir: &Rundir) -> io::Result<Self> {
        let address = SocketAddrUnix::new(rundir.ike_sock())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        net::connect(&socket, &address)?;
        Ok(Self { socket })
    }

    /// The next datagram, if one is there; an error when klips has gone. `buffer` has room for [`super::LONGEST`].
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<Record<'b>>> {
        loop {
            match net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((len, _)) => {
                    let record = buffer.get(..len).and_then(Record::parse);
                    return record.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into());
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sends a datagram. One that klips does not take at once is lost, as datagrams are; IKE sends it again.
    pub fn send(&self, record: &Record<'_>) -> io::Result<()> {
        self.send_raw(&record.to_vec())
    }

    pub(super) fn send_raw(&self, octets: &[u8]) -> io::Result<()> {
        net::send(&self.socket, octets, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
