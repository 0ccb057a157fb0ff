//! What there is to see of an instance at one moment, for those who show it: `ipsec metrics`, `ipsec top`.
//!
//! Both daemons are asked, and a connection is shown with the SAs it has in the data plane. What does not answer is shown as
//! down; connections that ipsec.conf has and no pluto knows are down, too, and not absent.

pub mod metrics;
pub mod traffic;

use crate::command::setup::lives;
use crate::conf::Conf;
use crate::conf::connection::{self, Auto};
use crate::ctl;
use crate::pluto;
use crate::pluto::kernel::Carried;
use crate::rundir::Rundir;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use traffic::Loads;

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// `up`, `connecting`, `routed`, `down`, or `unloaded`: in ipsec.conf, and pluto does not have it.
    pub state: String,
    /// Where the peer is, or was told to be.
    pub remote: String,
    /// What it protects.
    pub flows: String,
    /// What it has carried, on the SAs that are there and on those before them; `None` if that is not known at the moment.
    pub traffic: Option<Carried>,
    /// Seconds until new SAs are negotiated.
    pub rekey: Option<u64>,
    /// Seconds since anything came through.
    pub idle: Option<u64>,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// klips answered.
    pub klips: bool,
    /// pluto answered.
    pub pluto: bool,
    /// Seconds since klips was started.
    pub uptime: u64,
    /// The connections, by name.
    pub connections: Vec<Connection>,
    /// IKE SAs that are established.
    pub ike_sas: u64,
    /// SAs in the data plane, and entries of its policy.
    pub sas: u64,
    /// Entries of the policy.
    pub eroutes: u64,
    /// Packets refused, by reason: every reason there is.
    pub discards: BTreeMap<String, u64>,
    /// IKE messages refused, by reason.
    pub ike_dropped: BTreeMap<String, u64>,
    /// How often each daemon has died and was started again.
    pub deaths: BTreeMap<String, u64>,
}

impl Snapshot {
    /// Asks both daemons.
    pub fn take(rundir: &Rundir, confs: &Path) -> Self {
        let mut all = Self { deaths: lives(rundir), ..Self::default() };
        let loads = all.ask_klips(rundir).ok();
        all.ask_pluto(rundir, loads.as_ref());
        all.add_unloaded(confs);
        all
    }

    fn ask_klips(&mut self, rundir: &Rundir) -> Result<Loads, ctl::CtlError> {
        let mut client = ctl::Client::connect(rundir)?.within(PATIENCE)?;
        let status = client.call(ctl::Request::Status)?;
        let number = |key: &str| status.get(key).and_then(Value::as_u64).unwrap_or(0);
        self.klips = true;
        (self.uptime, self.sas, self.eroutes) = (number("uptime"), number("sas"), number("eroutes"));
        // A reason that has not happened is zero and not absent: what appears out of nothing raises no alarm.
        self.discards = klips::Discard::ALL.iter().map(|why| (why.name().to_owned(), 0)).collect();
        self.discards.extend(counts(status.get("discards")));
        Loads::read(&mut client)
    }

    fn ask_pluto(&mut self, rundir: &Rundir, loads: Option<&Loads>) {
        let client = pluto::ctl::Client::connect(rundir).and_then(|client| Ok(client.within(PATIENCE)?));
        let status = client.and_then(|mut client| client.call(&pluto::ctl::Request::Status, |_| Ok(())));
        let Ok(status) = status else { return };
        self.pluto = true;
        self.ike_dropped = counts(status.get("dropped"));
        let list = |key: &str| status.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let up =
            list("ike_sas").iter().filter(|row| row.get("peer").is_some_and(|peer| !peer.is_null())).count();
        self.ike_sas = u64::try_from(up).unwrap_or(u64::MAX);
        self.connections = list("connections").iter().map(|one| connection(one, loads)).collect();
        self.connections.sort_by(|one, other| one.name.cmp(&other.name));
    }

    /// Adds what the file has and pluto has not.
    fn add_unloaded(&mut self, confs: &Path) {
        let Ok(conf) = Conf::load(confs) else { return };
        for conn in &conf.conns {
            let wanted = connection::auto(conn).is_ok_and(|auto| auto != Auto::Ignore);
            let of =
                |one: &Connection| one.name == conn.name || one.name.starts_with(&format!("{}/", conn.name));
            if wanted && !self.connections.iter().any(of) {
                let remote = conn.get("right").unwrap_or_default().to_owned();
                let state = "unloaded".to_owned();
                self.connections.push(Connection {
                    name: conn.name.clone(),
                    state,
                    remote,
                    ..Connection::default()
                });
            }
        }
    }

    /// How many connections are up.
    pub fn up(&self) -> usize {
        self.connections.iter().filter(|one| one.state == "up").count()
    }
}

fn counts(object: Option<&Value>) -> BTreeMap<String, u64> {
    let entries = object.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect()
}

fn connection(one: &Value, loads: Option<&Loads>) -> Connection {
    let text = |key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut connection = Connection {
        name: text("name"),
        state: text("state"),
        remote: text("remote"),
        flows: text("flows"),
        traffic: loads.and_then(|loads| loads.of(one)),
        idle: loads.and_then(|loads| loads.idle(one)),
        ..Connection::default()
    };
    for pair in one.get("sas").and_then(Value::as_array).into_iter().flatten() {
        if pair.get("replaced").and_then(Value::as_bool) != Some(true) {
            let rekey = pair.get("rekey_in").and_then(Value::as_u64);
            connection.rekey = [connection.rekey, rekey].into_iter().flatten().min();
        }
    }
    connection
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_connection_is_rekeyed_when_the_newest_of_its_sas_are() {
        let one = json!({
            "name": "a", "state": "up", "remote": "192.0.2.2", "flows": "x === y",
            "sas": [{ "rekey_in": 3, "replaced": true }, { "rekey_in": 700, "replaced": false }],
        });
        let seen = connection(&one, None);
        assert_eq!((seen.rekey, seen.idle, seen.traffic), (Some(700), None, None));
    }

    #[test]
    fn what_the_file_has_and_no_pluto_knows_is_down_and_not_absent() {
        let dir = tempfile::tempdir().unwrap();
        let text = "conn a\n\tright=192.0.2.2\n\tauto=start\nconn b\n\tright=192.0.2.3\n\tauto=ignore\n";
        std::fs::write(dir.path().join("ipsec.conf"), text).unwrap();
        let seen = Snapshot::take(&Rundir::new(dir.path().join("run")), dir.path());
        assert!(!seen.klips && !seen.pluto);
        let names: Vec<_> =
            seen.connections.iter().map(|one| (one.name.as_str(), one.state.as_str())).collect();
        assert_eq!(names, [("a", "unloaded")]);
    }
}
