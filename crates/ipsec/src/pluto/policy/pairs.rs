//! Pairs of SAs, found by SPI, by connection and by what goes through them: with fifty thousand of them as fast as with one.

use crate::pluto::kernel::Installed;
use ipsec_core::Selector;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// An inbound SPI, and the address of ours that it is at.
type Name = (u32, IpAddr);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    all: BTreeMap<Name, Installed>,
    of: BTreeMap<String, Of>,
}

/// The pairs of one connection.
#[derive(Debug, Default)]
struct Of {
    names: BTreeSet<Name>,
    /// The pairs that can carry each flow; the last is the one that it goes through.
    flows: BTreeMap<Selector, Vec<Name>>,
}

/// The first name that an SPI may be in.
const fn first(spi_in: u32) -> Name {
    (spi_in, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

impl Pairs {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Installed> {
        self.all.values()
    }

    /// Adds a pair that its flows go through from now on, unless it is on `standby`: then it only receives.
    pub(super) fn insert(&mut self, pair: Installed, standby: bool) {
        let name = (pair.spi_in, pair.local);
        self.take(name);
        let of = self.of.entry(pair.connection.clone()).or_default();
        of.names.insert(name);
        for flow in &pair.flows {
            let carriers = of.flows.entry(*flow).or_default();
            carriers.insert(if standby { 0 } else { carriers.len() }, name);
        }
        self.all.insert(name, pair);
    }

    /// The flows of a pair go through it from now on.
    pub(super) fn use_now(&mut self, spi_in: u32) -> Option<&Installed> {
        let pair = self.get(spi_in)?.clone();
        let name = (pair.spi_in, pair.local);
        self.insert(pair, false);
        self.all.get(&name)
    }

    /// A pair has another address of ours; what goes through it stays the same.
    pub(super) fn relocate(&mut self, spi_in: u32, new: &Installed) -> bool {
        let Some(old) = self.get(spi_in).map(|pair| (pair.spi_in, pair.local)) else { return false };
        let name = (new.spi_in, new.local);
        self.all.remove(&old);
        self.all.insert(name, new.clone());
        if let Some(of) = self.of.get_mut(&new.connection) {
            of.names.remove(&old);
            of.names.insert(name);
            let carriers = of.flows.values_mut().flatten();
            carriers.filter(|carrier| **carrier == old).for_each(|carrier| *carrier = name);
        }
        true
    }

    /// The pair that a flow of a connection goes through.
    pub(super) fn carrier(&self, connection: &str, flow: &Selector) -> Option<&Installed> {
        self.of.get(connection)?.flows.get(flow)?.last().and_then(|name| self.all.get(name))
    }

    /// The pair of this inbound SPI.
    pub(super) fn get(&self, spi_in: u32) -> Option<&Installed> {
        self.all.range(first(spi_in)..).next().map(|(_, pair)| pair).filter(|pair| pair.spi_in == spi_in)
    }

    /// Takes out the pair of this inbound SPI.
    pub(super) fn remove(&mut self, spi_in: u32) -> Option<Installed> {
        let pair = self.get(spi_in)?;
        self.take((pair.spi_in, pair.local))
    }

    fn take(&mut self, name: Name) -> Option<Installed> {
        let pair = self.all.remove(&name)?;
        if let Entry::Occupied(mut of) = self.of.entry(pair.connection.clone()) {
            let Of { names, flows } = of.get_mut();
            names.remove(&name);
            for flow in &pair.flows {
                if let Some(carriers) = flows.get_mut(flow) {
                    carriers.retain(|carrier| *carrier != name);
                    if carriers.is_empty() {
                        flows.remove(flow);
                    }
                }
            }
            if names.is_empty() {
                of.remove();
            }
        }
        Some(pair)
    }

    /// Whether a connection has any.
    pub(super) fn has(&self, connection: &str) -> bool {
        self.of.contains_key(connection)
    }

    /// The pairs of a connection.
    pub(super) fn of(&self, connection: &str) -> impl Iterator<Item = &Installed> {
        let names = self.of.get(connection).into_iter().flat_map(|of| &of.names);
        names.filter_map(|name| self.all.get(name))
    }

    /// Whether a flow goes through a pair of this connection.
    pub(super) fn carry(&self, connection: &str, flow: &Selector) -> bool {
        self.of.get(connection).is_some_and(|of| of.flows.contains_key(flow))
    }

    /// Takes out all pairs of a connection.
    pub(super) fn take_of(&mut self, connection: &str) -> Vec<Installed> {
        let names = self.of.get(connection).map(|of| of.names.clone()).unwrap_or_default();
        names.into_iter().filter_map(|name| self.take(name)).collect()
    }
}

impl FromIterator<Installed> for Pairs {
    fn from_iter<I: IntoIterator<Item = Installed>>(all: I) -> Self {
        let mut pairs = Self::default();
        all.into_iter().for_each(|pair| pairs.insert(pair, false));
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(connection: &str, spi_in: u32, local: u8, net: u8) -> Installed {
        let flow =
            Selector::nets("10.0.0.0/8".parse().unwrap(), format!("192.0.{net}.0/24").parse().unwrap());
        Installed {
            connection: connection.into(),
            spi_in,
            spi_out: spi_in,
            local: [10, 0, 0, local].into(),
            remote: [10, 0, 1, 1].into(),
            flows: vec![flow],
        }
    }

    #[test]
    fn they_are_found_by_each_name_they_have_until_they_are_taken_out() {
        let [one, two, three] = [pair("a", 7, 1, 1), pair("a", 9, 1, 1), pair("b", 7, 2, 2)];
        let mut pairs: Pairs = [one.clone(), two.clone(), three.clone()].into_iter().collect();
        assert_eq!((pairs.len(), pairs.get(8), pairs.get(9)), (3, None, Some(&two)));
        assert_eq!(pairs.of("a").collect::<Vec<_>>(), [&one, &two]);
        // One SPI at two addresses of ours is two pairs.
        assert_eq!(pairs.remove(7), Some(one.clone()));
        assert_eq!(pairs.get(7), Some(&three));
        assert!(pairs.carry("a", &one.flows[0]) && !pairs.carry("b", &one.flows[0]));
        assert_eq!(pairs.remove(9), Some(two));
        assert!(!pairs.carry("a", &one.flows[0]) && !pairs.has("a") && pairs.has("b"));
        assert_eq!(pairs.take_of("b"), [three]);
        assert_eq!((pairs.len(), pairs.take_of("b").len(), pairs.of.len()), (0, 0, 0));
    }

    #[test]
    fn a_flow_goes_through_the_pair_that_came_last_or_was_taken_into_use_last() {
        let mut pairs: Pairs = [pair("a", 7, 1, 1), pair("a", 9, 1, 1)].into_iter().collect();
        pairs.insert(pair("a", 8, 1, 1), true);
        let flow = pair("a", 7, 1, 1).flows[0];
        let carrier = |pairs: &Pairs| pairs.carrier("a", &flow).map(|pair| (pair.spi_in, pair.local));
        let at = |spi_in, local: u8| Some((spi_in, IpAddr::from([10, 0, 0, local])));
        assert_eq!(carrier(&pairs), at(9, 1));
        // It only received so far.
        assert_eq!(pairs.use_now(8), Some(&pair("a", 8, 1, 1)));
        assert_eq!(carrier(&pairs), at(8, 1));
        // What moves is the same pair, in use or not.
        assert!(pairs.relocate(9, &pair("a", 9, 2, 1)) && !pairs.relocate(10, &pair("a", 10, 2, 1)));
        assert_eq!(carrier(&pairs), at(8, 1));
        assert!(pairs.relocate(8, &pair("a", 8, 2, 1)));
        assert_eq!(carrier(&pairs), at(8, 2));
        for (gone, next) in [(8, at(9, 2)), (9, at(7, 1)), (7, None)] {
            assert!(pairs.remove(gone).is_some());
            assert_eq!(carrier(&pairs), next);
        }
        assert_eq!(pairs.use_now(7), None);
        assert_eq!((pairs.len(), pairs.of.len()), (0, 0));
    }

    #[test]
    fn what_comes_again_under_its_name_takes_the_place_of_what_was_there() {
        let mut pairs: Pairs = [pair("a", 7, 1, 1), pair("b", 7, 1, 2)].into_iter().collect();
        assert_eq!((pairs.len(), pairs.has("a"), pairs.has("b")), (1, false, true));
        assert_eq!(pairs.remove(7), Some(pair("b", 7, 1, 2)));
    }
}
