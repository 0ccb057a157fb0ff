//! Both gateways with `auto=start`, started at once.

use super::{CONN, Gateway, SECRET, crosses, scene, wait};
use serde_json::Value;
use std::collections::BTreeSet;

/// The pairs a gateway has, each as the SPI towards it and the one away from it.
fn pairs(gateway: &Gateway) -> BTreeSet<[String; 2]> {
    let sas = gateway.connection()["sas"].as_array().cloned().unwrap_or_default();
    let spi = |sa: &Value, way: &str| sa[way].as_str().expect("text").to_owned();
    sas.iter().map(|sa| [spi(sa, "in"), spi(sa, "out")]).collect()
}

/// Both have the same pairs, one at least, and each sends on one that the other has.
fn agree(west: &Gateway, east: &Gateway) -> bool {
    let mirrored: BTreeSet<_> = pairs(east).into_iter().map(|[into, out]| [out, into]).collect();
    let ours = pairs(west);
    let leads = |gateway: &Gateway, to: &Gateway| {
        let rows: Vec<Value> = serde_json::from_str(&gateway.done(&["eroute", "--json"])).expect("json");
        let said = rows.iter().find_map(|row| row["said"].as_str().filter(|said| said.starts_with("esp")));
        let bare = |spi: &str| spi.trim_start_matches("0x").trim_start_matches('0').to_owned();
        said.is_some_and(|said| pairs(to).iter().any(|[into, _]| said.contains(&bare(into))))
    };
    !ours.is_empty() && ours == mirrored && leads(west, east) && leads(east, west)
}

#[test]
fn two_gateways_that_start_at_once_have_the_same_sas_and_one_that_is_killed_comes_back() {
    let Some([left, _router, right]) = scene() else { return };
    let conn = format!("{CONN}\tauto=start\n");
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    let mut east = Gateway::new(right, "10.2.0.1", &conn, SECRET);
    west.start_klips();
    east.start_klips();
    std::thread::scope(|scope| {
        scope.spawn(|| west.start_pluto());
        scope.spawn(|| east.start_pluto());
    });
    wait("the same SAs", || agree(&west, &east));
    crosses(&west, &east);
    crosses(&east, &west);
    // If one IKE SA gives way to the other, it does so after five seconds, and both hear of it.
    std::thread::sleep(std::time::Duration::from_secs(6));
    wait("the same SAs later on", || agree(&west, &east));
    crosses(&west, &east);
    crosses(&east, &west);
    let pid = east.rundir.pluto_pid();
    east.kill(&pid);
    east.start_pluto();
    wait("the same SAs again", || agree(&west, &east));
    crosses(&west, &east);
    crosses(&east, &west);
}
