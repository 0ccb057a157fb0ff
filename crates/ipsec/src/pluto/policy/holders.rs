//! Who has which part of what a connection protects, where the connection is for several peers.
//!
//! Such a peer says itself behind which addresses it is, within what the connection allows. What one of them has must not go to
//! another that asks for the same, or for a part of it, which would be the closer match: so the first keeps it, and the others
//! are refused. Where addresses are given (addresspool=) each has its own anyway.

use ike::connection::Connection;
use ike::identity::{Id, IdPattern};
use ipnet::IpNet;
use ipsec_core::Selector;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// By connection and inbound SPI.
    of: BTreeMap<String, BTreeMap<u32, (Id, Vec<Selector>)>>,
}

/// Says whether several peers may ask for the same.
fn is_for_several(connection: &Connection) -> bool {
    !matches!(connection.remote_id, IdPattern::Exactly(_)) && connection.provision.is_none()
}

/// Says whether there may be packets that both select.
fn meet(one: &Selector, two: &Selector) -> bool {
    let nets = |one: &IpNet, two: &IpNet| one.contains(two) || two.contains(one);
    let same = |one: u16, two: u16| one == 0 || two == 0 || one == two;
    nets(&one.dst, &two.dst)
        && nets(&one.src, &two.src)
        && same(one.proto.into(), two.proto.into())
        && same(one.sport, two.sport)
        && same(one.dport, two.dport)
}

impl Holders {
    /// A pair of SAs with this inbound SPI is to carry these flows to `peer`.
    pub(super) fn take(
        &mut self,
        connection: &Connection,
        flows: &[Selector],
        peer: &Id,
        spi_in: u32,
    ) -> Result<(), String> {
        if !is_for_several(connection) {
            return Ok(());
        }
        let of = self.of.entry(connection.name.clone()).or_default();
        for (holder, held) in of.values().filter(|(holder, _)| !holder.is(peer)) {
            if let Some(flow) = held.iter().find(|held| flows.iter().any(|flow| meet(flow, held))) {
                return Err(format!(
                    "{} is behind {holder} already, and cannot be behind {peer} as well: give each peer a connection of its own, or addresses (addresspool=)",
                    flow.dst
                ));
            }
        }
        of.insert(spi_in, (peer.clone(), flows.to_vec()));
        Ok(())
    }

    /// A pair is there no more.
    pub(super) fn leave(&mut self, connection: &str, spi_in: u32) {
        if let Some(of) = self.of.get_mut(connection) {
            of.remove(&spi_in);
            if of.is_empty() {
                self.of.remove(connection);
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
    use crate::pluto::policy::tests::connection;

    fn behind(net: &str) -> Selector {
        Selector::nets("10.1.0.0/16".parse().unwrap(), net.parse().unwrap())
    }

    #[test]
    fn what_is_behind_one_peer_of_a_connection_for_many_is_behind_no_other() {
        let [one, two] = ["@one.example", "@two.example"].map(|id| Id::parse(id).unwrap());
        let many = connection(IdPattern::Any);
        let mut holders = Holders::default();
        holders.take(&many, &[behind("10.2.1.0/24")], &one, 1).unwrap();
        // The same, a part of it, all of it, and one of its ports.
        let port = Selector { proto: 6, dport: 443, ..behind("10.2.1.9/32") };
        for flow in [behind("10.2.1.0/24"), behind("10.2.1.9/32"), behind("10.2.0.0/16"), port] {
            let why = holders.take(&many, &[behind("10.2.7.0/24"), flow], &two, 2).unwrap_err();
            assert!(why.contains("10.2.1.0/24") && why.contains("one") && why.contains("two"), "{why}");
        }
        holders.take(&many, &[behind("10.2.7.0/24")], &two, 2).unwrap();
        // Its own it may have twice, while it is rekeyed, and as long as one of the two is there.
        holders.take(&many, &[behind("10.2.1.0/24")], &one, 3).unwrap();
        holders.leave(&many.name, 1);
        assert!(holders.take(&many, &[behind("10.2.1.9/32")], &two, 4).is_err());
        holders.leave(&many.name, 3);
        holders.take(&many, &[behind("10.2.1.9/32")], &two, 4).unwrap();
        holders.leave(&many.name, 2);
        holders.leave(&many.name, 4);
        assert!(holders.of.is_empty());
        // Where the connection is for one, its peer has what it says.
        let single = connection(IdPattern::Exactly(one.clone()));
        holders.take(&single, &[behind("10.2.1.0/24")], &one, 5).unwrap();
        assert!(holders.of.is_empty());
    }
}
