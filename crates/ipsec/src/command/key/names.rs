//! Names of hosts: each address is looked up once.

use core::net::IpAddr;
use std::collections::HashMap;
use std::io;

/// More addresses than anybody looks at; the rest have no names.
const MOST: usize = 1 << 16;

/// What addresses are called.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<IpAddr, Option<String>>);

impl Names {
    /// The name of an address, if it has one.
    pub(super) fn of(&mut self, ip: IpAddr) -> Option<String> {
        if ip.is_unspecified() {
            return None;
        }
        if let Some(known) = self.0.get(&ip) {
            return known.clone();
        }
        if self.0.len() >= MOST {
            return None;
        }
        // Without a name the resolver gives the number back.
        let name = dns_lookup::lookup_addr(&ip).ok().filter(|name| name.parse::<IpAddr>().is_err());
        self.0.insert(ip, name.clone());
        name
    }
}

/// The addresses of a name.
pub(super) fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok(dns_lookup::lookup_host(name)?.collect())
}
