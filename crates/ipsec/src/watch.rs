//! What there is to see of an instance at one moment, for those who show it: `ipsec metrics`, `ipsec top`.
//!
//! Both daemons are asked, and a connection is shown with the SAs it has in the data plane. What does not answer is shown as
//! down; connections that ipsec.conf has and no pluto knows are down, too, and not absent.

pub mod metrics;

use crate::command::setup::lives;
use crate::conf::Conf;
use crate::conf::connection::{self, Auto};
use crate::ctl;
use crate::pluto;
use crate::rundir::Rundir;
use crate::table::{Form, Table};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

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
    /// Octets sent and received through the SAs that are there now; a rekeying begins them anew.
    pub bytes: (u64, u64),
    /// Packets sent and received.
    pub packets: (u64, u64),
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

/// What the data plane knows of one SA.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    bytes: u64,
    packets: u64,
    idle: Option<u64>,
}

impl Snapshot {
    /// Asks both daemons.
    pub fn take(rundir: &Rundir, confs: &Path) -> Self {
        let mut all = Self { deaths: lives(rundir), ..Self::default() };
        let sas = all.ask_klips(rundir).unwrap_or_default();
        all.ask_pluto(rundir, &sas);
        all.add_unloaded(confs);
        all
    }

    fn ask_klips(&mut self, rundir: &Rundir) -> Result<BTreeMap<u32, Traffic>, ctl::CtlError> {
        let mut client = ctl::Client::connect(rundir)?.within(PATIENCE)?;
        let status = client.call(ctl::Request::Status)?;
        let number = |key: &str| status.get(key).and_then(Value::as_u64).unwrap_or(0);
        self.klips = true;
        (self.uptime, self.sas, self.eroutes) = (number("uptime"), number("sas"), number("eroutes"));
        // A reason that has not happened is zero and not absent: what appears out of nothing raises no alarm.
        self.discards = klips::Discard::ALL.iter().map(|why| (why.name().to_owned(), 0)).collect();
        self.discards.extend(counts(status.get("discards")));
        let mut sas = BTreeMap::new();
        client.table(Table::Spi, Form::Json, |row| {
            let row: Value = serde_json::from_str(row)?;
            let spi = row.get("spi").and_then(Value::as_u64).and_then(|spi| u32::try_from(spi).ok());
            if let Some(spi) = spi {
                let number = |at: &str| row.pointer(at).and_then(Value::as_u64);
                let one = Traffic {
                    bytes: number("/current/bytes").unwrap_or(0),
                    packets: number("/packets").unwrap_or(0),
                    idle: number("/idle"),
                };
                sas.insert(spi, one);
            }
            Ok(())
        })?;
        Ok(sas)
    }

    fn ask_pluto(&mut self, rundir: &Rundir, sas: &BTreeMap<u32, Traffic>) {
        let client = pluto::ctl::Client::connect(rundir).and_then(|client| Ok(client.within(PATIENCE)?));
        let status = client.and_then(|mut client| client.call(&pluto::ctl::Request::Status, |_| Ok(())));
        let Ok(status) = status else { return };
        self.pluto = true;
        self.ike_dropped = counts(status.get("dropped"));
        let list = |key: &str| status.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let up =
            list("ike_sas").iter().filter(|row| row.get("peer").is_some_and(|peer| !peer.is_null())).count();
        self.ike_sas = u64::try_from(up).unwrap_or(u64::MAX);
        self.connections = list("connections").iter().map(|one| connection(one, sas)).collect();
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

fn connection(one: &Value, sas: &BTreeMap<u32, Traffic>) -> Connection {
    let text = |key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut connection = Connection {
        name: text("name"),
        state: text("state"),
        remote: text("remote"),
        flows: text("flows"),
        ..Connection::default()
    };
    for pair in one.get("sas").and_then(Value::as_array).into_iter().flatten() {
        let spi = |key: &str| {
            let text = pair.get(key)?.as_str()?.strip_prefix("0x")?;
            u32::from_str_radix(text, 16).ok()
        };
        let traffic = |key: &str| spi(key).and_then(|spi| sas.get(&spi)).copied().unwrap_or_default();
        let (sent, received) = (traffic("out"), traffic("in"));
        connection.bytes.0 = connection.bytes.0.saturating_add(sent.bytes);
        connection.bytes.1 = connection.bytes.1.saturating_add(received.bytes);
        connection.packets.0 = connection.packets.0.saturating_add(sent.packets);
        connection.packets.1 = connection.packets.1.saturating_add(received.packets);
        connection.idle = [connection.idle, received.idle].into_iter().flatten().min();
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
    fn a_connection_has_the_numbers_of_its_own_sas_and_the_rekeying_of_the_newest() {
        let one = json!({
            "name": "a", "state": "up", "remote": "192.0.2.2", "flows": "x === y",
            "sas": [
                { "in": "0x00001001", "out": "0x00001002", "rekey_in": 3, "replaced": true },
                { "in": "0x00001003", "out": "0x00001004", "rekey_in": 700, "replaced": false },
            ],
        });
        let sas = [(0x1001, 1, 9), (0x1002, 2, 9), (0x1003, 4, 5), (0x1004, 8, 1), (0x1005, 1000, 0)];
        let sas = sas.map(|(spi, bytes, idle)| (spi, Traffic { bytes, packets: bytes, idle: Some(idle) }));
        let seen = connection(&one, &sas.into_iter().collect());
        assert_eq!((seen.bytes, seen.packets), ((10, 5), (10, 5)));
        assert_eq!((seen.rekey, seen.idle), (Some(700), Some(5)));
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
