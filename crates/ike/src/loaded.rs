//! The connections that are loaded, found by name and by the peer's address: fifty thousand of them cost a first message no
//! more than one.

use crate::connection::Connection;
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// No names.
static NONE: BTreeSet<String> = BTreeSet::new();

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    all: BTreeMap<String, Arc<Connection>>,
    /// Names by the address the peer must have.
    towards: BTreeMap<IpAddr, BTreeSet<String>>,
    /// Names of those whose peer may be anywhere.
    from_anywhere: BTreeSet<String>,
}

impl Loaded {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Adds one, or puts it in the place of the one of its name.
    pub(crate) fn insert(&mut self, connection: Arc<Connection>) {
        let name = connection.name.clone();
        self.remove(&name);
        let names = match connection.remote_address {
            Some(address) => self.towards.entry(address).or_default(),
            None => &mut self.from_anywhere,
        };
        names.insert(name.clone());
        self.all.insert(name, connection);
    }

    /// Forgets one; whether it was there.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let Some(connection) = self.all.remove(name) else { return false };
        self.from_anywhere.remove(name);
        if let Some(address) = connection.remote_address
            && let Some(names) = self.towards.get_mut(&address)
        {
            names.remove(name);
            if names.is_empty() {
                self.towards.remove(&address);
            }
        }
        true
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Connection>> {
        self.all.get(name)
    }

    /// All of them, by name.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.all.values()
    }

    /// Those whose peer may be at this address, by name.
    pub(crate) fn towards(&self, remote: IpAddr) -> impl Iterator<Item = &Arc<Connection>> {
        let names = self.towards.get(&remote).unwrap_or(&NONE).union(&self.from_anywhere);
        names.filter_map(|name| self.all.get(name))
    }

    /// Those that two ends of these addresses may be of, by name, and how far from exact that is.
    pub(crate) fn fitting(
        &self,
        local: IpAddr,
        remote: IpAddr,
    ) -> impl Iterator<Item = (u8, &Arc<Connection>)> {
        self.towards(remote).filter_map(move |one| Some((one.fit(local, remote)?, one)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::tests::connection;

    #[test]
    fn a_connection_is_found_by_its_name_and_by_where_its_peer_is_until_it_goes_or_changes() {
        let mut loaded = Loaded::default();
        let (here, there, elsewhere) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), [10, 0, 0, 3].into());
        let load = |loaded: &mut Loaded, name: &str, remote: Option<IpAddr>| {
            loaded.insert(Arc::new(Connection {
                name: name.to_owned(),
                remote_address: remote,
                ..connection()
            }));
        };
        let names = |loaded: &Loaded, remote| -> Vec<(u8, String)> {
            loaded.fitting(here, remote).map(|(fit, one)| (fit, one.name.clone())).collect()
        };
        load(&mut loaded, "b", Some(there));
        load(&mut loaded, "a", None);
        load(&mut loaded, "c", Some(elsewhere));
        // As if all were gone through, by name.
        assert_eq!(names(&loaded, there), [(3, "a".to_owned()), (1, "b".to_owned())]);
        load(&mut loaded, "b", Some(elsewhere));
        assert_eq!(names(&loaded, there), [(3, "a".to_owned())]);
        assert_eq!(names(&loaded, elsewhere).len(), 3);
        assert!(loaded.remove("a") && loaded.remove("c") && !loaded.remove("c"));
        assert_eq!(names(&loaded, elsewhere), [(1, "b".to_owned())]);
        assert!(loaded.remove("b") && loaded.towards.is_empty() && loaded.from_anywhere.is_empty());
    }
}
