//! nf_tables by netlink: one transaction, one counter, and who changed what.

use netlink_bindings::builtin::Nlmsghdr;
use netlink_bindings::nftables::{Nfgenmsg, ObjData, ObjectType, OpGetobjDo, PushObjAttrs, PushTableAttrs};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;

/// Octets of one netlink header.
const HEADER: usize = 16;
/// A transaction goes to the kernel in one piece, and so do its answers come.
const BUFFER: i32 = 16 << 20;
/// The table serves IPv4 and IPv6.
const INET: u8 = 1;

/// Changes that are made together or not at all.
pub(super) struct Batch {
    octets: Vec<u8>,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self { octets: Vec::new() };
        batch.border(libc::NFNL_MSG_BATCH_BEGIN);
        batch
    }

    fn border(&mut self, kind: i32) {
        let [high, low] = subsystem().to_be_bytes();
        self.raw(u16::try_from(kind).unwrap_or(0), 0, [0, 0, high, low], |_| {});
    }

    /// One message about a table: `kind` is one of `libc::NFT_MSG_*`.
    pub(super) fn message(&mut self, kind: i32, flags: i32, write: impl FnOnce(&mut Vec<u8>)) {
        let flags = u16::try_from(flags).unwrap_or(0);
        self.raw(number(kind), flags, [INET, 0, 0, 0], write);
    }

    fn raw(&mut self, kind: u16, flags: u16, family: [u8; 4], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.octets.len();
        self.octets.resize(start.saturating_add(HEADER), 0);
        self.octets.extend(family);
        write(&mut self.octets);
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
        let header = Nlmsghdr {
            len: u32::try_from(self.octets.len().saturating_sub(start)).unwrap_or(0),
            r#type: kind,
            flags: flags | u16::try_from(libc::NLM_F_REQUEST).unwrap_or(0),
            seq: 0,
            pid: 0,
        };
        if let Some(place) = self.octets.get_mut(start..start.saturating_add(HEADER)) {
            place.copy_from_slice(header.as_slice());
        }
    }

    /// Afterwards there is no such table, whether or not there was one.
    pub(super) fn remove_table(&mut self, name: &str) {
        let named = |buf: &mut Vec<u8>| drop(PushTableAttrs::new(buf).push_name_bytes(name.as_bytes()));
        // To delete what is not there is an error that undoes the whole transaction.
        self.message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, named);
        self.message(libc::NFT_MSG_DELTABLE, 0, named);
    }
}

/// A socket to nf_tables.
pub(super) struct Nft {
    socket: Socket,
    port: u32,
}

impl Nft {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers before the send returns: what is not there then never comes.
        socket.set_non_blocking(true)?;
        // Without CAP_NET_ADMIN outside, the host's limits hold; they are enough for some hundred eroutes.
        let size = libc::SO_SNDBUFFORCE;
        let _ = super::super::mmsg::set(&socket, libc::SOL_SOCKET, size, BUFFER);
        Ok(Self { socket, port })
    }

    /// Makes the changes.
    pub(super) fn commit(&mut self, mut batch: Batch) -> io::Result<()> {
        batch.border(libc::NFNL_MSG_BATCH_END);
        self.socket.send(&batch.octets, 0)?;
        // No message asks for an acknowledgement: there is an answer where something was refused, and the first one says why.
        let mut refused = None;
        self.answers(|kind, _, body| {
            if kind == u16::try_from(libc::NLMSG_ERROR).unwrap_or(0) {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                if code != 0 && refused.is_none() {
                    refused = Some(io::Error::from_raw_os_error(code.saturating_neg()));
                }
            }
        })?;
        refused.map_or(Ok(()), Err)
    }

    /// The packets a named counter has counted.
    pub(super) fn counter(&mut self, table: &str, name: &str) -> Option<u64> {
        let mut ask = Batch { octets: Vec::new() };
        ask.message(libc::NFT_MSG_GETOBJ, 0, |buf| {
            PushObjAttrs::new(buf)
                .push_table_bytes(table.as_bytes())
                .push_name_bytes(name.as_bytes())
                .push_type(ObjectType::Counter as u32);
        });
        self.socket.send(&ask.octets, 0).ok()?;
        let mut count = None;
        let told = self.answers(|kind, _, body| {
            if kind == number(libc::NFT_MSG_NEWOBJ)
                && let Ok(ObjData::Counter(counter)) = OpGetobjDo::decode_request(body).1.get_data()
            {
                count = counter.get_packets().ok();
            }
        });
        told.ok().and(count)
    }

    /// Whether `watch` has heard of a change of the table that was not ours.
    pub(super) fn somebody_changed(&mut self, watch: &Socket, table: &str, counter: &str) -> bool {
        let mut changed = false;
        let mut see = |kind: u16, port: u32, body: &[u8]| {
            // An attribute of type 1 is the table's name, whatever of it the message is about.
            let named = body.get(Nfgenmsg::len().saturating_add(4)..).unwrap_or_default();
            let of_ours = named.strip_prefix(table.as_bytes()).is_some_and(|rest| rest.first() == Some(&0));
            changed |= port != self.port && of_ours && kind >> 8 == subsystem();
        };
        let mut missed = false;
        while let Err(error) = each(watch, &mut see) {
            if error.raw_os_error() != Some(libc::ENOBUFS) {
                break;
            }
            missed = true;
        }
        // A large table of ours is news enough to overrun the queue: what was missed is not taken for a change, but looked into.
        changed || (missed && self.counter(table, counter).is_none())
    }

    fn answers(&self, see: impl FnMut(u16, u32, &[u8])) -> io::Result<()> {
        each(&self.socket, see)
    }
}

/// Shows what has come, as type, who caused it and what follows the header, until there is no more.
fn each(socket: &Socket, mut see: impl FnMut(u16, u32, &[u8])) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(65_536);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut left = buffer.as_slice();
        while let Some((header, rest)) = left.split_at_checked(HEADER) {
            let header = Nlmsghdr::new_from_slice(header).unwrap_or_default();
            let length = usize::try_from(header.len).unwrap_or(0).saturating_sub(HEADER);
            let Some(body) = rest.get(..length) else { break };
            see(header.r#type, header.pid, body);
            left = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn subsystem() -> u16 {
    u16::try_from(libc::NFNL_SUBSYS_NFTABLES).unwrap_or(0)
}

fn number(kind: i32) -> u16 {
    subsystem() << 8 | u16::try_from(kind).unwrap_or(0)
}
