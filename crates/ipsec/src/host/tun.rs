//! TUN devices with the virtio-net header: superpackets of up to 64 KiB in and out.
//!
//! Every read and write is one `virtio_net_hdr` of [`klips::Vnet::LEN`] octets and one IP packet. The device lasts as long
//! as one of its queues is open, or until it is told otherwise: one that is kept ([`Handle::keep`]) outlives the process, and drops
//! what is routed into it meanwhile.
#![expect(unsafe_code, reason = "TUN is configured by ioctl alone; five calls, each beside its proof")]

use super::netlink::Netlink;
use rustix::io::{Errno, read, writev};
use std::ffi::CString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// What the kernel may leave to us, and we to it: parts of checksums and segmentation (virtio 1.2 §5.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads(u32);

impl Offloads {
    /// None.
    pub const NONE: Self = Self(0);
    /// Checksums.
    pub const CSUM: Self = Self(libc::TUN_F_CSUM);
    /// TCP segmentation, IPv4 and IPv6.
    pub const TSO: Self = Self(libc::TUN_F_TSO4 | libc::TUN_F_TSO6);
    /// TCP segmentation where CWR is on the first segment only.
    pub const TSO_ECN: Self = Self(libc::TUN_F_TSO_ECN);
    /// UDP segmentation, IPv4 and IPv6.
    pub const USO: Self = Self(libc::TUN_F_USO4 | libc::TUN_F_USO6);
    /// All we can use.
    pub const ALL: Self = Self::CSUM.and(Self::TSO).and(Self::TSO_ECN).and(Self::USO);

    /// The words of tables, options and `--json`.
    pub const NAMES: [(Self, &'static str); 4] =
        [(Self::CSUM, "csum"), (Self::TSO, "tso"), (Self::TSO_ECN, "tso_ecn"), (Self::USO, "uso")];

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are in.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The words for those that are in.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(one, _)| self.has(*one)).map(|(_, name)| name)
    }

    /// The sets to try, best first: kernels before 6.2 know no USO, and segmentation needs checksums.
    fn fallbacks(self) -> impl Iterator<Item = Self> {
        let steps =
            [Self::NONE, Self::USO, Self::USO.and(Self::TSO_ECN), Self::ALL.without(Self::CSUM), Self::ALL];
        steps.into_iter().map(move |step| self.without(step))
    }
}

/// Why there is no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunError {
    /// `/dev/net/tun` does not exist, or no driver is behind it.
    Missing,
    /// `/dev/net/tun` may not be opened.
    Unreadable,
    /// Devices may not be made here.
    Forbidden,
    /// An interface of that name exists and is no free TUN device.
    Busy,
    /// Not a name for an interface.
    Name,
    /// The kernel refused something else.
    Os(Errno),
}

impl fmt::Display for TunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "/dev/net/tun is missing: run `modprobe tun`, or give the container the device (`--device /dev/net/tun`)",
            ),
            Self::Unreadable => {
                f.write_str("/dev/net/tun may not be opened: run as root or `chmod 666 /dev/net/tun`")
            }
            Self::Forbidden => f.write_str(
                "no permission to make a TUN device: CAP_NET_ADMIN is needed in this network namespace \
                 (run as root, or give the container `--cap-add NET_ADMIN`)",
            ),
            Self::Busy => f.write_str("an interface of that name exists already and belongs to someone else"),
            Self::Name => f.write_str("not a name for an interface: 1 to 15 characters without `/` or blanks"),
            Self::Os(errno) => write!(f, "the kernel refused a TUN device: {errno}"),
        }
    }
}

impl std::error::Error for TunError {}

/// A TUN device just made: take its queues and it is theirs.
#[derive(Debug)]
pub struct Device {
    /// What the kernel agreed to.
    pub offloads: Offloads,
    /// One for each worker.
    pub queues: Vec<Queue>,
    /// What decides how long it lasts.
    pub handle: Handle,
}

/// Decides whether a device outlives its queues. Holding it is holding a queue.
#[derive(Debug)]
pub struct Handle {
    file: File,
}

impl Handle {
    /// Whether the device stays when the last queue is closed, by whatever end of the process.
    pub fn keep(&self, stays: bool) -> io::Result<()> {
        // SAFETY: TUNSETPERSIST takes its flag by value.
        let set =
            unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(stays)) };
        check(set).map_err(Into::into)
    }
}

impl Device {
    /// Makes the device `name` with `queues` queues and as many of the offloads `wanted` as the kernel has.
    pub fn create(name: &str, queues: usize, wanted: Offloads) -> Result<Self, TunError> {
        let name = CString::new(name).map_err(|_| TunError::Name)?;
        let length = name.as_bytes().len();
        if length == 0 || length >= libc::IFNAMSIZ || name.as_bytes().contains(&b'/') {
            return Err(TunError::Name);
        }
        // A device of several queues lets others join; one that somebody holds is not ours to join.
        let busy = Netlink::open().and_then(|mut netlink| netlink.link(name.to_str().unwrap_or_default()));
        if busy
            .map_err(|error| TunError::Os(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?
            .is_some_and(|link| link.carrier)
        {
            return Err(TunError::Busy);
        }
        let queues = queues.clamp(1, 256);
        let mut files = Vec::with_capacity(queues);
        for _ in 0..queues {
            // Always as one of several: a device that was kept can then have another number of queues.
            files.push(open_queue(&name)?);
        }
        let handle = files.first().map(File::try_clone).transpose().ok().flatten();
        let handle = Handle { file: handle.ok_or(TunError::Os(Errno::MFILE))? };
        let offloads = files.first().map_or(Offloads::NONE, |file| agree(file, wanted));
        for file in &files {
            set_header(file).map_err(TunError::Os)?;
        }
        Ok(Self { offloads, handle, queues: files.into_iter().map(|file| Queue { file }).collect() })
    }
}

/// One queue of a TUN device. Reads and writes never block.
#[derive(Debug)]
pub struct Queue {
    file: File,
}

impl Queue {
    /// Reads one packet with its header; `WouldBlock` if there is none.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(read(&self.file, buffer)?)
    }

    /// Writes one packet from its pieces, the first of which is the header.
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(writev(&self.file, pieces)?)
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_queue(name: &CString) -> Result<File, TunError> {
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open("/dev/net/tun");
    let file = file.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => TunError::Missing,
        Some(Errno::ACCESS | Errno::PERM) => TunError::Unreadable,
        Some(other) => TunError::Os(other),
        None => TunError::Missing,
    })?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    match attach(&file, name, flags) {
        Ok(()) => Ok(file),
        Err(Errno::PERM | Errno::ACCESS) => Err(TunError::Forbidden),
        Err(Errno::BUSY | Errno::INVAL | Errno::EXIST) => Err(TunError::Busy),
        Err(other) => Err(TunError::Os(other)),
    }
}

fn agree(file: &File, wanted: Offloads) -> Offloads {
    wanted.fallbacks().find(|set| set_offloads(file, *set).is_ok()).unwrap_or(Offloads::NONE)
}

fn attach(file: &File, name: &CString, flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: all zero octets are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes_with_nul()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags.try_into().map_err(|_| Errno::INVAL)?;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives until the call returns.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

fn set_offloads(file: &File, set: Offloads) -> Result<(), Errno> {
    // SAFETY: TUNSETOFFLOAD takes its flags by value.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(set.0)) })
}

fn set_header(file: &File) -> Result<(), Errno> {
    let length = libc::c_int::try_from(klips::Vnet::LEN).map_err(|_| Errno::INVAL)?;
    // SAFETY: TUNSETVNETHDRSZ reads one `int`, which lives until the call returns.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) })
}

fn check(result: libc::c_int) -> Result<(), Errno> {
    if result < 0 {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netns::{Namespace, available};

    #[test]
    fn a_device_has_the_queues_asked_for_and_goes_with_them() {
        if let Err(why) = available() {
            return eprintln!("skipped: {why}");
        }
        let namespace = Namespace::new().unwrap();
        namespace
            .run(|| {
                let device = Device::create("ipsec0", 3, Offloads::ALL).unwrap();
                assert_eq!(device.queues.len(), 3);
                assert!(device.offloads.has(Offloads::CSUM.and(Offloads::TSO)), "{:?}", device.offloads);
                let mut netlink = Netlink::open().unwrap();
                assert!(netlink.link("ipsec0").unwrap().is_some());
                drop(device);
                assert!(netlink.link("ipsec0").unwrap().is_none());
            })
            .unwrap();
    }

    #[test]
    fn offloads_not_wanted_are_off() {
        if let Err(why) = available() {
            return eprintln!("skipped: {why}");
        }
        let namespace = Namespace::new().unwrap();
        let device = namespace.run(|| Device::create("ipsec0", 1, Offloads::NONE)).unwrap().unwrap();
        assert_eq!(device.offloads, Offloads::NONE);
        assert_eq!(device.offloads.names().count(), 0);
    }

    #[test]
    fn a_name_in_use_is_busy_and_a_bad_name_is_named_so() {
        if let Err(why) = available() {
            return eprintln!("skipped: {why}");
        }
        let namespace = Namespace::new().unwrap();
        namespace
            .run(|| {
                let _held = Device::create("ipsec0", 1, Offloads::ALL).unwrap();
                assert_eq!(Device::create("ipsec0", 1, Offloads::ALL).unwrap_err(), TunError::Busy);
                assert_eq!(Device::create("lo", 1, Offloads::ALL).unwrap_err(), TunError::Busy);
                for name in ["", "a/b", "sixteencharslong"] {
                    assert_eq!(Device::create(name, 1, Offloads::ALL).unwrap_err(), TunError::Name);
                }
            })
            .unwrap();
    }

    #[test]
    fn packets_written_by_the_host_are_read_with_their_header() {
        if let Err(why) = available() {
            return eprintln!("skipped: {why}");
        }
        let namespace = Namespace::new().unwrap();
        namespace
            .run(|| {
                let device = Device::create("ipsec0", 1, Offloads::ALL).unwrap();
                let mut netlink = Netlink::open().unwrap();
                let link = netlink.link("ipsec0").unwrap().unwrap();
                netlink.set_no_link_local(link.index).unwrap();
                netlink.add_address_and_route(link.index, "10.9.0.1/24".parse().unwrap()).unwrap();
                netlink.set_up(link.index, true).unwrap();
                let socket = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
                socket.send_to(&[7; 100], "10.9.0.2:9").unwrap();
                let mut buffer = vec![0; 70_000];
                let queue = &device.queues[0];
                let n = queue.read(&mut buffer).unwrap();
                assert_eq!(n, klips::Vnet::LEN + 20 + 8 + 100);
                assert_eq!(buffer[klips::Vnet::LEN] >> 4, 4);
                assert_eq!(queue.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);

                // Turned round and written back in two pieces, it arrives.
                let packet = &mut buffer[klips::Vnet::LEN..n];
                let (src, dst) = (packet[12..16].to_vec(), packet[16..20].to_vec());
                packet[12..16].copy_from_slice(&dst);
                packet[16..20].copy_from_slice(&src);
                let port = packet[20..22].to_vec();
                packet[22..24].copy_from_slice(&port);
                packet[26..28].fill(0);
                let header = [0; klips::Vnet::LEN];
                let pieces = [&header[..], &packet[..50], &packet[50..]].map(IoSlice::new);
                assert_eq!(queue.write(&pieces).unwrap(), n);
                let mut got = [0; 200];
                assert_eq!(socket.recv(&mut got).unwrap(), 100);
            })
            .unwrap();
    }
}
