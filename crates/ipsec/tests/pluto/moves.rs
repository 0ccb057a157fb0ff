//! Addresses that change under a tunnel (RFC 4555), and reauthentication beside it, with traffic.

use super::charon::{self, Charon};
use super::{CONN, Gateway, SECRET, both, crosses, net, pair, passes, scene, unbroken, wait};
use ipsec::host::netlink::Netlink;
use ipsec::host::netns::Namespace;
use std::fs;

/// Takes an address from a host and gives it another.
pub(super) fn readdress(namespace: &Namespace, old: &str, new: &str) {
    readdress_at(namespace, "eth0", old, new);
}

/// The same on a device of its own.
fn readdress_at(namespace: &Namespace, device: &str, old: &str, new: &str) {
    let changed = namespace.run(|| {
        let mut netlink = Netlink::open()?;
        let link = netlink.link(device)?.expect("the device").index;
        netlink.add_address_and_route(link, net(new))?;
        netlink.remove_address(link, net(old))
    });
    changed.expect("namespace").expect("addresses");
}

/// Gives a cable of the router another address; what its NAT kept of the streams there is void.
pub(super) fn renumber(router: &Namespace, device: &str, old: &str, new: &str) {
    // The second address of a device would go with the first.
    let promote = || fs::write("/proc/sys/net/ipv4/conf/all/promote_secondaries", "1");
    router.run(promote).expect("namespace").expect("a setting");
    readdress_at(router, device, &format!("{old}/24"), &format!("{new}/24"));
}

/// Has the router's NAT forget what it has for an address of one of its cables: what comes next leaves by other ports.
pub(super) fn forget(router: &Namespace, device: &str, address: &str) {
    let changed = router.run(|| {
        let mut netlink = Netlink::open()?;
        let link = netlink.link(device)?.expect("the device").index;
        netlink.remove_address(link, net(address))?;
        netlink.add_address_and_route(link, net(address))
    });
    changed.expect("namespace").expect("address");
}

pub(super) fn remote(gateway: &Gateway) -> String {
    gateway.status()["ike_sas"][0]["remote"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_tunnel_goes_on_with_the_same_sas_when_either_gateway_has_another_address() {
    let Some((west, east, _router)) = both() else { return };
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    let before = (west.spis(), east.spis());
    readdress(&west.namespace, "192.0.2.1/24", "192.0.2.9/32");
    wait("the peer to follow", || remote(&east) == "192.0.2.9:4500");
    crosses(&west, &east);
    crosses(&east, &west);
    // The responder's own address goes, and the initiator follows its word.
    readdress(&east.namespace, "198.51.100.7/24", "198.51.100.9/32");
    wait("us to follow", || remote(&west) == "198.51.100.9:4500");
    crosses(&west, &east);
    crosses(&east, &west);
    assert_eq!((west.spis(), east.spis()), before, "nothing was negotiated anew");
    // And everything goes on from there, without a loss.
    for (side, ike) in [(&west, false), (&east, true), (&east, false)] {
        unbroken(&west, &east, || {
            let spis = west.spis();
            if ike {
                side.done(&["auto", "--rekey", "--ike", "west-east"]);
            } else {
                side.done(&["auto", "--rekey", "west-east"]);
                wait("new SAs", || west.spis().len() == 1 && west.spis() != spis);
            }
        });
    }
}

#[test]
fn a_peer_proves_anew_who_it_is_and_no_packet_is_lost() {
    let conn =
        format!("{CONN}\tauto=add\n\tikelifetime=20s\n\trekeymargin=14s\n\trekeyfuzz=0%\n\treauth=yes\n");
    let Some((west, east, _router)) = pair((&conn, SECRET), (&conn, SECRET)) else { return };
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    let ike = |gateway: &Gateway| gateway.status()["ike_sas"][0]["ike"].clone();
    let before = ike(&west);
    unbroken(&west, &east, || {
        wait("another IKE SA", || {
            let status = west.status();
            let all = status["ike_sas"].as_array().cloned().unwrap_or_default();
            all.len() == 1 && all[0]["ike"] != before
        });
    });
    crosses(&east, &west);
    assert!(west.said().matches("IKE SA established with @east").count() == 2, "{}", west.said());
}

const IKE: &str = "aes256gcm16-prfsha256-x25519";
const ESP: &str = "aes256gcm16-x25519-noesn";

fn with_charon() -> Option<(Gateway, Charon, Namespace)> {
    if !charon::is_there() {
        return None;
    }
    let [left, router, right] = scene()?;
    let conn = format!("{CONN}\tauto=add\n\tike={IKE}\n\tesp={ESP}\n\tdpddelay=5s\n");
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    west.start_klips();
    west.start_pluto();
    let east = Charon::start(right, IKE, ESP, "mobike = yes\n  local_addrs = %any");
    Some((west, east, router))
}

#[test]
fn strongswan_moves_and_we_follow() {
    let Some((west, east, _router)) = with_charon() else { return };
    east.done(&["--initiate", "--child", "net", "--timeout", "20"]);
    wait("up", || west.state() == "up");
    passes((&west.namespace, west.inside), east.inside());
    // Its user-space ESP cannot move an SA: it rekeys at the new address, at once.
    readdress(&east.namespace, "198.51.100.7/24", "198.51.100.9/32");
    wait("us to follow", || remote(&west) == "198.51.100.9:4500");
    passes((&west.namespace, west.inside), east.inside());
    passes(east.inside(), (&west.namespace, west.inside));
}

#[test]
fn we_move_and_strongswan_follows() {
    let Some((west, east, _router)) = with_charon() else { return };
    west.done(&["auto", "--up", "west-east"]);
    passes((&west.namespace, west.inside), east.inside());
    readdress(&west.namespace, "192.0.2.1/24", "192.0.2.9/32");
    wait("it to follow", || east.done(&["--list-sas"]).contains("192.0.2.9"));
    passes((&west.namespace, west.inside), east.inside());
    passes(east.inside(), (&west.namespace, west.inside));
}
