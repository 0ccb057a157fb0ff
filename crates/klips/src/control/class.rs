//! What kind of address an address is to this host.

use core::net::IpAddr;
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

/// The addresses of this host.
#[derive(Debug, Default)]
pub(super) struct Locals(HashSet<IpAddr>);

impl Locals {
    pub(super) fn new(addresses: Vec<IpAddr>) -> Self {
        Self(addresses.into_iter().filter(|address| !address.is_loopback()).collect())
    }

    pub(super) fn class(&self, address: IpAddr) -> Class {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        if address.is_unspecified() {
            Class::Unspecified
        } else if address.is_multicast() || broadcast {
            Class::Many
        } else if self.0.contains(&address) {
            Class::Mine
        } else {
            Class::Other
        }
    }
}
