//! Peers that are known by name, and addresses that come late.

use super::{CONN, Gateway, PLUTO, SECRET, crosses, net, scene, wait};
use crate::skipped::skipped;
use ipsec::host::netlink::Netlink;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A pluto that finds names in this file and nowhere else.
fn start_with_names(gateway: &mut Gateway, hosts: &Path) {
    let order = gateway.dir.path().join("nsswitch.conf");
    fs::write(&order, "hosts: files\n").expect("nsswitch.conf");
    let script = "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/nsswitch.conf && exec \"$3\" -F";
    let (hosts, order) = (hosts.display().to_string(), order.display().to_string());
    let mut command = gateway.command("unshare", &["-m", "sh", "-c", script, "sh", &hosts, &order, PLUTO]);
    command.stderr(gateway.log("pluto.log"));
    gateway.daemons.push(gateway.namespace.spawn(&mut command).expect("pluto"));
    wait("pluto", || {
        gateway.rundir.pluto_pid().exists() && gateway.ipsec(&["auto", "--status"]).status.success()
    });
    wait("klips and pluto together", || gateway.status()["klips"] == true);
}

/// The state of a connection; nothing if it is not loaded.
fn state(gateway: &Gateway, name: &str) -> String {
    let all = gateway.status()["connections"].as_array().cloned().unwrap_or_default();
    let one = all.into_iter().find(|one| one["name"] == name).unwrap_or_default();
    one["state"].as_str().unwrap_or_default().to_owned()
}

fn waiting(gateway: &Gateway) -> Vec<String> {
    let all = gateway.status()["waiting"].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|one| one["section"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_peer_by_name_is_waited_for_and_followed_and_holds_nobody_up() {
    let Some([left, _router, right]) = scene() else { return };
    if !Path::new("/etc/hosts").exists() || !Path::new("/etc/nsswitch.conf").exists() {
        return skipped("this system has no /etc/hosts or no /etc/nsswitch.conf to stand in for");
    }
    let impatient = "\tmobike=no\n\tdpddelay=1\n\tretransmit-timeout=2s\n";
    let other = "conn other\n\talso=west-east\n\tright=198.51.100.7\n\tleftsubnet=10.1.9.0/24\n\trightsubnet=10.2.9.0/24\n\tauto=start\n";
    let late = "conn late\n\talso=west-east\n\tleft=192.0.2.77\n\tright=198.51.100.7\n\tleftsubnet=10.1.8.0/24\n\tauto=add\n";
    let west_conf = format!(
        "{}{impatient}\tauto=start\n{other}{late}",
        CONN.replace("right=198.51.100.7", "right=east.example")
    );
    let east_conf = format!(
        "{}{impatient}\tauto=add\n{}",
        CONN.replace("right=198.51.100.7", "right=%any"),
        other.replace("right=198.51.100.7", "right=%any").replace("auto=start", "auto=add")
    );
    let mut west = Gateway::new(left, "10.1.0.1", &west_conf, SECRET);
    let mut east = Gateway::new(right, "10.2.0.1", &east_conf, SECRET);
    let hosts = west.dir.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").expect("hosts");
    east.start_klips();
    east.start_pluto();
    west.start_klips();
    start_with_names(&mut west, &hosts);

    // Neither the name nor the address that is missing keeps another one down.
    wait("the other connection", || state(&west, "other") == "up");
    assert_eq!(waiting(&west), ["late", "west-east"]);
    assert!(state(&west, "west-east").is_empty() && state(&west, "late").is_empty());
    let said = west.done(&["auto", "--status"]);
    assert!(said.contains("\"west-east\": waits until") && said.contains("east.example"), "{said}");
    let refused = west.ipsec(&["auto", "--add", "west-east"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && why.contains("neither an address nor a name"), "{why}");
    let before: Value = west.connection();
    assert!(west.done(&["auto", "--reload"]).contains("\"west-east\": waits until"));
    assert_eq!(before, west.connection());
    let added = west.namespace.run(|| {
        let mut netlink = Netlink::open()?;
        let link = netlink.link("eth0")?.expect("eth0").index;
        netlink.add_address(link, net("192.0.2.77/24"))
    });
    added.expect("namespace").expect("address");
    wait("the late one", || !state(&west, "late").is_empty());

    fs::write(&hosts, "198.51.100.7 east.example\n").expect("hosts");
    wait("the peer by name", || state(&west, "west-east") == "up");
    assert!(waiting(&west).is_empty());
    crosses(&west, &east);

    // The peer has another address, and so has its name. Nobody told us.
    fs::write(&hosts, "198.51.100.8 east.example\n").expect("hosts");
    let moved = east.namespace.run(|| {
        let mut netlink = Netlink::open()?;
        let link = netlink.link("eth0")?.expect("eth0").index;
        // Of another length, so that it does not go together with the first one.
        netlink.add_address_and_route(link, net("198.51.100.8/25"))?;
        netlink.remove_address(link, net("198.51.100.7/24"))
    });
    moved.expect("namespace").expect("addresses");
    let at = |gateway: &Gateway| gateway.connection()["remote"].as_str().unwrap_or_default().to_owned();
    wait("where the name leads now", || at(&west) == "198.51.100.8" && west.state() == "up");
    crosses(&west, &east);
}
