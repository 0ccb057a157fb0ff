//! Who is behind an address that packets go to in transport mode.
//!
//! Hosts behind one NAT have one address here. Packets to it, for the same protocol and ports, can go through the SAs of one of them only
//! (RFC 7296 §2.23.1), and what is for one must never be sealed for another: so the first keeps it, and the others are refused.

use ike::identity::Id;
use ipsec_core::Selector;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    of: BTreeMap<Selector, (Id, Vec<u32>)>,
}

impl Hosts {
    /// A pair of SAs with this inbound SPI is to carry a flow to `peer`.
    pub(super) fn take(&mut self, flow: Selector, peer: &Id, spi_in: u32) -> Result<(), String> {
        let (holder, pairs) = self.of.entry(flow).or_insert_with(|| (peer.clone(), Vec::new()));
        if holder != peer {
            return Err(format!(
                "packets to {} go to {holder}, who is behind the same NAT as {peer}: one of them needs another protoport=, or type=tunnel",
                flow.dst.addr()
            ));
        }
        pairs.push(spi_in);
        Ok(())
    }

    /// A pair is there no more.
    pub(super) fn leave(&mut self, flow: &Selector, spi_in: u32) {
        if let Some((_, pairs)) = self.of.get_mut(flow) {
            pairs.retain(|known| *known != spi_in);
            if pairs.is_empty() {
                self.of.remove(flow);
            }
        }
    }

    /// None is there any more.
    pub(super) fn clear(&mut self) {
        self.of.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_an_address_first_keeps_it_for_all_its_pairs_and_leaves_it_with_the_last() {
        let [one, two] = ["@one", "@two"].map(|id| Id::parse(id).unwrap());
        let flow = Selector::nets("192.0.2.1/32".parse().unwrap(), "203.0.113.5/32".parse().unwrap());
        let dns = Selector { proto: 17, dport: 53, ..flow };
        let mut hosts = Hosts::default();
        hosts.take(flow, &one, 1).unwrap();
        hosts.take(flow, &one, 2).unwrap();
        let why = hosts.take(flow, &two, 3).unwrap_err();
        assert!(why.contains("203.0.113.5") && why.contains("one") && why.contains("two"), "{why}");
        hosts.take(dns, &two, 4).unwrap();
        hosts.leave(&flow, 1);
        assert!(hosts.take(flow, &two, 3).is_err());
        hosts.leave(&flow, 2);
        hosts.take(flow, &two, 3).unwrap();
        assert!(hosts.take(flow, &one, 5).is_err());
        hosts.clear();
        hosts.take(flow, &one, 5).unwrap();
    }
}
