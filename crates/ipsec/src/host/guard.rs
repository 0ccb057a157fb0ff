//! What arrives in clear although policy has it protected goes no further (RFC 4301 §5.2).
//!
//! The host forwards what a physical interface brings, whatever its source says. A table of nf_tables refuses it: a packet
//! whose answer would be routed into a device of ours must have come out of one, unless an eroute says `%pass` of that answer.
//! The kernel looks the answer's route up for each packet ("fib saddr"), so that what counts is the routing table of that
//! moment; only our devices' names, what lies closed beneath routes and eroutes with `%pass` are kept in step from here.
//! ESP, AH and IKE for this host, ICMP errors about them and neighbour discovery always pass.
//!
//! The table is the kernel's: it outlives a daemon that is killed, the next one takes it up, and `ipsec setup stop` takes it
//! away. Where nf_tables or its fib look-ups are missing nothing is refused, and that is said.

mod message;
mod ruleset;

use ipnet::IpNet;
use ipsec_core::Selector;
use message::{Batch, Nft};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// With more eroutes than these that come before some `%pass` each change of policy would take long: then no `%pass` holds
/// for what comes in.
pub const MOST_EROUTES: usize = 4096;

/// What the table is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The names of our devices.
    pub devices: Vec<String>,
    /// Destinations beneath whose route lies one that drops.
    pub closed: Vec<IpNet>,
    /// The eroutes that decide what passes in clear, in match order, and whether they say `%pass`
    /// ([`klips::Eroutes::bypasses`]).
    pub policy: Vec<(Selector, bool)>,
    /// UDP ports where ESP and IKE come in.
    pub ports: Vec<u16>,
}

/// Why clear packets are not refused.
#[derive(Debug)]
pub enum GuardError {
    /// The kernel has no nf_tables.
    NoTables,
    /// nf_tables cannot look up routes.
    NoFib,
    /// Another refusal.
    Os(io::Error),
}

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTables => f.write_str("this kernel has no nf_tables (`modprobe nf_tables')"),
            Self::NoFib => {
                f.write_str("nf_tables of this kernel has no fib look-ups (`modprobe nft_fib_inet')")
            }
            Self::Os(error) => write!(f, "nf_tables: {error}"),
        }
    }
}

impl std::error::Error for GuardError {}

impl From<io::Error> for GuardError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => Self::NoTables,
            // An expression of a type that no module brings.
            Some(libc::ENOENT) => Self::NoFib,
            _ => Self::Os(error),
        }
    }
}

/// The table of one instance.
pub struct Guard {
    name: String,
    nft: Nft,
    watch: Socket,
    installed: Option<Wanted>,
}

impl Guard {
    /// Opens the way to nf_tables in the calling thread's network namespace; the table is there from the first
    /// [`Guard::install`] on.
    pub fn open(name: String) -> Result<Self, GuardError> {
        let mut watch = Socket::new(NETLINK_NETFILTER)?;
        watch.bind(&SocketAddr::new(0, 0))?;
        watch.add_membership(libc::NFNLGRP_NFTABLES.unsigned_abs())?;
        watch.set_non_blocking(true)?;
        Ok(Self { name, nft: Nft::open()?, watch, installed: None })
    }

    /// The table's name, in the family `inet`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Readable when tables have changed: call [`Guard::disturbed`].
    pub fn changes(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// Puts a table in the place of the one there is, in one step; without devices there is none. What was counted stays.
    pub fn install(&mut self, wanted: Wanted) -> Result<(), GuardError> {
        if self.installed.as_ref() == Some(&wanted) {
            return Ok(());
        }
        // What is counted between two questions would be lost with the counter: it stays where the rest is exchanged.
        if let Some(old) =
            self.installed.take().filter(|old| !old.devices.is_empty() && !wanted.devices.is_empty())
        {
            let mut batch = Batch::new();
            ruleset::empty(&mut batch, &self.name, &old);
            ruleset::fill(&mut batch, &self.name, &wanted);
            if self.nft.commit(batch).is_ok() {
                self.installed = Some(wanted);
                return Ok(());
            }
            // Somebody has changed it.
        }
        let mut batch = Batch::new();
        batch.remove_table(&self.name);
        if !wanted.devices.is_empty() {
            let refused = self.refused();
            ruleset::make(&mut batch, &self.name, refused);
            ruleset::fill(&mut batch, &self.name, &wanted);
        }
        self.nft.commit(batch)?;
        self.installed = Some(wanted);
        Ok(())
    }

    /// Says whether somebody else has changed the table since last asked, by `nft flush ruleset` for example, and puts it back.
    pub fn disturbed(&mut self) -> Result<bool, GuardError> {
        if !self.nft.somebody_changed(&self.watch, &self.name, ruleset::COUNTER) {
            return Ok(false);
        }
        match self.installed.take() {
            Some(wanted) => self.install(wanted).map(|()| true),
            None => Ok(false),
        }
    }

    /// Packets refused since the table was first made.
    pub fn refused(&mut self) -> u64 {
        self.nft.counter(&self.name, ruleset::COUNTER).unwrap_or(0)
    }
}

/// Removes the table, with or without a daemon; not an error if there is none, or no nf_tables.
pub fn remove(name: &str) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.remove_table(name);
    match Nft::open().and_then(|mut nft| nft.commit(batch)).map_err(GuardError::from) {
        Err(GuardError::Os(error)) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
