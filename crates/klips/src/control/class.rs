//! What kind of address an address is to this host.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::HashSet;

/// pf_key(7P)'s classes of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Configured on an interface of this host; loopback addresses are not.
    Mine,
    /// Multicast or broadcast.
    Many,
    /// 0.0.0.0 or `::`.
    Unspecified,
    /// Another host's.
    Other,
}

/// What this host knows of addresses.
#[derive(Debug, Default)]
pub(super) struct Locals {
    mine: HashSet<IpAddr>,
    /// Directed broadcast addresses of its networks.
    broadcast: HashSet<Ipv4Addr>,
}

impl Locals {
    pub(super) fn set_mine(&mut self, addresses: Vec<IpAddr>) {
        self.mine = addresses.into_iter().filter(|address| !address.is_loopback()).collect();
    }

    pub(super) fn set_broadcast(&mut self, addresses: Vec<Ipv4Addr>) {
        self.broadcast = addresses.into_iter().collect();
    }

    pub(super) fn class(&self, address: IpAddr) -> Class {
        let broadcast =
            matches!(address, IpAddr::V4(v4) if v4.is_broadcast() || self.broadcast.contains(&v4));
        if address.is_unspecified() {
            Class::Unspecified
        } else if address.is_multicast() || broadcast {
            Class::Many
        } else if self.mine.contains(&address) {
            Class::Mine
        } else {
            Class::Other
        }
    }
}
