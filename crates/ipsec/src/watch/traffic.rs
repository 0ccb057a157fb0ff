//! What connections carry: what klips knows of the SAs that are there, and pluto of those that have gone, brought together.
//!
//! klips is asked before pluto. An SA that goes in between is then in pluto's sum, with more than klips had said; the other way
//! round it would be in neither, and a counter that goes back counts everything twice.

use crate::ctl::{Client, CtlError};
use crate::pluto::kernel::{Carried, Load};
use crate::pluto::status;
use crate::rundir::Rundir;
use crate::table::{Form, Table};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What klips knows of one SA.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    load: Load,
    /// Seconds since its last packet.
    idle: Option<u64>,
}

/// The SAs of klips at one moment, by destination and SPI.
#[derive(Debug, Default)]
pub struct Loads(BTreeMap<(IpAddr, u32), Known>);

impl Loads {
    /// Asks the klips of a run directory.
    pub fn ask(rundir: &Rundir) -> Result<Self, CtlError> {
        Self::read(&mut Client::connect(rundir)?.within(super::PATIENCE)?)
    }

    pub(super) fn read(client: &mut Client) -> Result<Self, CtlError> {
        let mut all = BTreeMap::new();
        client.table(Table::Spi, Form::Json, |row| {
            all.extend(known(&serde_json::from_str(row)?));
            Ok(())
        })?;
        Ok(Self(all))
    }

    /// What a connection of pluto's status has carried. `None` if one of its SAs is not known here: it has just been made,
    /// or is another klips'.
    pub fn of(&self, connection: &Value) -> Option<Carried> {
        let mut sum = Carried {
            out: Load {
                bytes: number(connection, "/gone/bytes/out")?,
                packets: number(connection, "/gone/packets/out")?,
            },
            r#in: Load {
                bytes: number(connection, "/gone/bytes/in")?,
                packets: number(connection, "/gone/packets/in")?,
            },
        };
        for pair in pairs(connection).filter(|pair| pair["counted"] == true) {
            for (sum, known) in [(&mut sum.out, self.out(pair)), (&mut sum.r#in, self.r#in(pair))] {
                let Load { bytes, packets } = known?.load;
                *sum = Load {
                    bytes: sum.bytes.saturating_add(bytes),
                    packets: sum.packets.saturating_add(packets),
                };
            }
        }
        Some(sum)
    }

    /// Seconds since anything came through a connection.
    pub(super) fn idle(&self, connection: &Value) -> Option<u64> {
        pairs(connection).filter_map(|pair| self.r#in(pair)?.idle).min()
    }

    /// Adds to pluto's status what each connection has carried, `null` where that is not known.
    pub fn add_to(loads: Option<&Self>, status: &mut Value) {
        for connection in status.get_mut("connections").and_then(Value::as_array_mut).into_iter().flatten() {
            let traffic = loads.and_then(|loads| loads.of(connection)).map(status::carried);
            connection["traffic"] = json!(traffic);
        }
    }

    fn out(&self, pair: &Value) -> Option<Known> {
        self.find(pair, "remote", "out")
    }

    fn r#in(&self, pair: &Value) -> Option<Known> {
        self.find(pair, "local", "in")
    }

    fn find(&self, pair: &Value, dst: &str, spi: &str) -> Option<Known> {
        let dst = pair.get(dst)?.as_str()?.parse().ok()?;
        let spi = u32::from_str_radix(pair.get(spi)?.as_str()?.strip_prefix("0x")?, 16).ok()?;
        self.0.get(&(dst, spi)).copied()
    }
}

/// The pairs of a connection, those that were replaced included.
fn pairs(connection: &Value) -> impl Iterator<Item = &Value> {
    let list = |key: &str| connection.get(key).and_then(Value::as_array).into_iter().flatten();
    list("sas").chain(list("lingering"))
}

fn number(value: &Value, at: &str) -> Option<u64> {
    value.pointer(at).and_then(Value::as_u64)
}

/// One row of klips' table.
fn known(row: &Value) -> Option<((IpAddr, u32), Known)> {
    let dst = row.get("dst")?.as_str()?.parse().ok()?;
    let spi = number(row, "/spi")?.try_into().ok()?;
    let load = Load { bytes: number(row, "/current/bytes")?, packets: number(row, "/packets")? };
    Some(((dst, spi), Known { load, idle: number(row, "/idle") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(dst: &str, spi: u32, n: u64) -> Value {
        json!({ "dst": dst, "spi": spi, "current": { "bytes": n * 100 }, "packets": n, "idle": n })
    }

    fn loads(rows: &[(&str, u32, u64)]) -> Loads {
        Loads(rows.iter().filter_map(|(dst, spi, n)| known(&row(dst, *spi, *n))).collect())
    }

    fn pair(r#in: u32, out: u32, counted: bool) -> Value {
        let spi = |spi: u32| format!("{spi:#010x}");
        json!({ "in": spi(r#in), "out": spi(out), "local": "192.0.2.1", "remote": "192.0.2.2", "counted": counted })
    }

    fn connection(sas: &[Value], lingering: &[Value]) -> Value {
        json!({
            "name": "a", "sas": sas, "lingering": lingering,
            "gone": { "bytes": { "out": 7000, "in": 9000 }, "packets": { "out": 70, "in": 90 } },
        })
    }

    const OURS: &str = "192.0.2.1";
    const THEIRS: &str = "192.0.2.2";

    #[test]
    fn the_sum_is_of_what_is_there_what_lingers_and_what_has_gone() {
        let loads = loads(&[
            (OURS, 1, 3),
            (THEIRS, 2, 4),
            (OURS, 3, 5),
            (THEIRS, 4, 6),
            // Another peer has chosen the same number.
            ("192.0.2.3", 2, 1000),
            (OURS, 9, 1),
            (THEIRS, 10, 1000),
        ]);
        let one = connection(&[pair(1, 2, true), pair(9, 10, false)], &[pair(3, 4, true)]);
        let sum = loads.of(&one).unwrap();
        assert_eq!(
            (sum.out, sum.r#in),
            (Load { bytes: 8000, packets: 80 }, Load { bytes: 9800, packets: 98 })
        );
        assert_eq!(loads.idle(&one), Some(1));
    }

    #[test]
    fn a_sum_of_which_a_part_is_not_known_is_none_at_all() {
        let known = [(OURS, 1, 3), (THEIRS, 2, 4)];
        let one = connection(&[pair(1, 2, true)], &[]);
        assert!(loads(&known).of(&one).is_some());
        for part in 0..2 {
            assert_eq!(loads(&known[part..=part]).of(&one), None);
        }
        // It counts no more: what it had carried is among what has gone.
        let closed = connection(&[pair(1, 2, false)], &[]);
        assert_eq!(loads(&[]).of(&closed).map(|sum| sum.out.packets), Some(70));
        assert_eq!(loads(&known).of(&json!({ "name": "a" })), None);
        let mut status = json!({ "connections": [one] });
        Loads::add_to(Some(&loads(&known)), &mut status);
        assert_eq!(status["connections"][0]["traffic"]["bytes"]["out"], 7400);
        Loads::add_to(None, &mut status);
        assert!(status["connections"][0]["traffic"].is_null());
    }
}
