//! Several subnets on each side, one pair of SAs for all of them (RFC 7296 §2.9).

use super::charon::{self, Charon, Children};
use super::moves::{readdress, remote};
use super::{Gateway, Inside, PATIENCE, SECRET, net, pair, passes, scene, wait};
use ipsec::host::netlink::Netlink;
use ipsec::host::netns::Namespace;
use serde_json::Value;
use std::net::{IpAddr, UdpSocket};

const CONN: &str = "\
conn west-east
\tleft=192.0.2.1
\tleftid=@west
\tleftsubnet=10.1.0.0/24,10.1.9.0/24
\tright=198.51.100.7
\trightid=@east
\trightsubnet=10.2.0.0/24,10.2.9.0/24
\tauthby=secret
\tretransmit-interval=200
\tauto=add
";

/// A second address inside, in the second subnet.
fn second(namespace: &Namespace, address: &str) -> IpAddr {
    let whole = format!("{address}/32");
    let added = namespace.run(|| {
        let mut netlink = Netlink::open()?;
        let lo = netlink.link("lo")?.expect("lo").index;
        netlink.add_address(lo, net(&whole))
    });
    added.expect("namespace").expect("address");
    address.parse().expect("address")
}

/// Each address of the one side with each of the other, both ways.
fn all_ways(west: (&Namespace, &[IpAddr]), east: (&Namespace, &[IpAddr])) {
    for ours in west.1 {
        for theirs in east.1 {
            let (here, there): (Inside<'_>, Inside<'_>) = ((west.0, *ours), (east.0, *theirs));
            passes(here, there);
            passes(there, here);
        }
    }
}

/// What klips has: each SA's policies, and the eroutes that lead into an SA.
fn installed(gateway: &Gateway) -> (Vec<usize>, usize) {
    let rows = |args: &[&str]| -> Vec<Value> { serde_json::from_str(&gateway.done(args)).expect("json") };
    let policies = |sa: &Value| {
        let more = sa["more_policy"].as_array().map_or(0, Vec::len);
        usize::from(sa["policy"].is_object()) + more
    };
    // An SPI that was reserved for a request which came to nothing stays larval for a while.
    let sas = rows(&["spi", "--json"]).iter().filter(|sa| sa["state"] != "larval").map(policies).collect();
    let leads = |row: &&Value| row["said"].as_str().is_some_and(|said| said.starts_with("esp"));
    (sas, rows(&["eroute", "--json"]).iter().filter(leads).count())
}

#[test]
fn two_subnets_on_each_side_go_through_one_pair_of_sas_whatever_becomes_of_it() {
    let Some((mut west, east, _router)) = pair((CONN, SECRET), (CONN, SECRET)) else { return };
    let ours = [west.inside, second(&west.namespace, "10.1.9.1")];
    let theirs = [east.inside, second(&east.namespace, "10.2.9.1")];
    west.done(&["auto", "--up", "west-east"]);
    let all = |west: &Gateway| all_ways((&west.namespace, &ours), (&east.namespace, &theirs));
    all(&west);
    for gateway in [&west, &east] {
        assert_eq!((gateway.spis().len(), installed(gateway)), (1, (vec![4, 4], 4)));
    }
    // Rekeyed by either, the IKE SA too.
    for side in [&west, &east] {
        let before = west.spis();
        side.done(&["auto", "--rekey", "west-east"]);
        wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
        side.done(&["auto", "--rekey", "--ike", "west-east"]);
        all(&west);
    }
    // klips restarts: pluto builds it again.
    let before = west.spis();
    let pid = west.rundir.klips_pid();
    west.kill(&pid);
    west.start_klips();
    wait("SAs again", || west.spis().len() == 1 && west.spis() != before);
    all(&west);
    wait("what was before to go", || installed(&west) == (vec![4, 4], 4));
    // Down: nothing leads into an SA that is not there, and nothing goes out in clear.
    west.done(&["auto", "--down", "west-east"]);
    wait("down", || west.spis().is_empty() && east.spis().is_empty());
    wait("no SAs", || installed(&west) == (vec![], 0));
    let eroutes = west.done(&["eroute", "--json"]);
    assert_eq!(eroutes.matches("%drop").count(), 4, "{eroutes}");
}

#[test]
fn a_peer_that_asks_for_a_part_gets_it_and_no_more() {
    let part = CONN.replace("leftsubnet=10.1.0.0/24,10.1.9.0/24", "leftsubnet=10.1.9.0/24,10.1.0.0/28");
    let Some((west, east, _router)) = pair((&part, SECRET), (CONN, SECRET)) else { return };
    let ours = [west.inside, second(&west.namespace, "10.1.9.1")];
    let theirs = [east.inside, second(&east.namespace, "10.2.9.1")];
    west.done(&["auto", "--up", "west-east"]);
    all_ways((&west.namespace, &ours), (&east.namespace, &theirs));
    let eroutes = east.done(&["eroute", "--json"]);
    assert!(eroutes.contains("10.1.0.0/28") && !eroutes.contains("10.1.0.0/24"), "{eroutes}");
    assert_eq!(installed(&east), (vec![4, 4], 4));
}

#[test]
fn all_of_them_move_together_when_either_gateway_has_another_address() {
    let Some((west, east, _router)) = pair((CONN, SECRET), (CONN, SECRET)) else { return };
    let ours = [west.inside, second(&west.namespace, "10.1.9.1")];
    let theirs = [east.inside, second(&east.namespace, "10.2.9.1")];
    let all = || all_ways((&west.namespace, &ours), (&east.namespace, &theirs));
    west.done(&["auto", "--up", "west-east"]);
    all();
    let before = (west.spis(), east.spis());
    // Where each SA goes, and with what: one for each direction, four pairs of subnets in each.
    let between = |here: &str, there: &str| {
        for gateway in [&west, &east] {
            let rows: Vec<Value> = serde_json::from_str(&gateway.done(&["spi", "--json"])).expect("json");
            let ends = |row: &Value| (row["src"].clone(), row["dst"].clone());
            let mut all: Vec<_> = rows.iter().filter(|row| row["state"] != "larval").map(ends).collect();
            all.sort_by_key(|ends| ends.0.to_string());
            let way = |from: &str, to: &str| (Value::from(from), Value::from(to));
            assert_eq!(all, [way(here, there), way(there, here)]);
            assert_eq!(installed(gateway), (vec![4, 4], 4));
        }
    };
    between("192.0.2.1", "198.51.100.7");
    readdress(&west.namespace, "192.0.2.1/24", "192.0.2.9/32");
    wait("east to follow", || remote(&east) == "192.0.2.9:4500");
    all();
    between("192.0.2.9", "198.51.100.7");
    readdress(&east.namespace, "198.51.100.7/24", "198.51.100.9/32");
    wait("west to follow", || remote(&west) == "198.51.100.9:4500");
    all();
    between("192.0.2.9", "198.51.100.9");
    assert_eq!((west.spis(), east.spis()), before, "nothing was negotiated anew");
    // Where they are now they are rekeyed, and taken away.
    for side in [&west, &east] {
        let before = west.spis();
        side.done(&["auto", "--rekey", "west-east"]);
        wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
        all();
    }
    west.done(&["auto", "--down", "west-east"]);
    wait("no SAs", || installed(&west) == (vec![], 0) && installed(&east) == (vec![], 0));
}

const IKE: &str = "aes256gcm16-prfsha256-x25519";
const ESP: &str = "aes256gcm16-x25519-noesn";

#[test]
fn strongswan_and_we_agree_on_two_subnets_on_each_side_whoever_begins() {
    if !charon::is_there() {
        return;
    }
    for we_begin in [true, false] {
        let Some([left, _router, right]) = scene() else { return };
        let mut west = Gateway::new(left, "10.1.0.1", &format!("{CONN}\tike={IKE}\n\tesp={ESP}\n"), SECRET);
        west.start_klips();
        west.start_pluto();
        let children = Children {
            local_ts: "10.2.0.0/24,10.2.9.0/24",
            remote_ts: "10.1.0.0/24,10.1.9.0/24",
            ..Children::NETS
        };
        let ours = [west.inside, second(&west.namespace, "10.1.9.1")];
        let theirs = [[10, 2, 0, 1].into(), second(&right, "10.2.9.1")];
        let east = Charon::start_with(right, IKE, ESP, "", &children);
        if we_begin {
            west.done(&["auto", "--up", "west-east"]);
        } else {
            east.done(&["--initiate", "--child", "net", "--timeout", "20"]);
            wait("up", || west.state() == "up");
        }
        let all = || all_ways((&west.namespace, &ours), (&east.namespace, &theirs));
        all();
        assert_eq!(installed(&west), (vec![4, 4], 4));
        let before = west.spis();
        west.done(&["auto", "--rekey", "west-east"]);
        wait("our new SAs", || west.spis().len() == 1 && west.spis() != before);
        all();
        let before = west.spis();
        east.done(&["--rekey", "--child", "net"]);
        wait("its new SAs", || west.spis().len() == 1 && west.spis() != before);
        all();
    }
}

/// Ports of one range in both files: what is for another finds no SA, and does not leave in clear.
#[test]
fn packets_to_ports_of_a_range_pass_and_others_do_not() {
    let net = CONN.replace(",10.1.9.0/24", "").replace(",10.2.9.0/24", "");
    let conn = format!("{net}\tleftprotoport=udp\n\trightprotoport=udp/7776-7779\n");
    let Some((west, east, _router)) = pair((&conn, SECRET), (&conn, SECRET)) else { return };
    west.done(&["auto", "--up", "west-east"]);
    assert_eq!(installed(&west), (vec![4, 4], 4));
    let flows = west.connection()["flows"].clone();
    assert_eq!(flows, "10.1.0.0/24:17 === 10.2.0.0/24:17/7776-7779");
    let bind = |gateway: &Gateway, port: u16| {
        let socket = gateway.namespace.run(|| UdpSocket::bind((gateway.inside, port)));
        let socket = socket.expect("namespace").expect("socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        socket
    };
    let from = bind(&west, 0);
    for (inside, outside) in [(7776, 7775), (7779, 7780)] {
        let (good, bad) = (bind(&east, inside), bind(&east, outside));
        // The one that must not arrive is sent first, so that it is not merely late.
        from.send_to(b"lost", bad.local_addr().expect("address")).expect("sent");
        from.send_to(b"found", good.local_addr().expect("address")).expect("sent");
        let mut heard = [0; 16];
        let octets = good.recv(&mut heard).expect("a datagram");
        assert_eq!(&heard[..octets], b"found");
        bad.set_nonblocking(true).expect("non-blocking");
        assert!(bad.recv(&mut heard).is_err(), "to port {outside}");
        // The answer comes from a port of the range, and goes through.
        good.send_to(b"back", from.local_addr().expect("address")).expect("sent");
        assert_eq!(from.recv(&mut heard).expect("an answer"), 4);
    }
}

#[test]
fn strongswan_and_we_agree_on_a_range_of_ports_whoever_begins_and_packets_to_them_pass() {
    if !charon::is_there() {
        return;
    }
    // Its file has the range, or ours.
    let range = "\tleftprotoport=udp\n\trightprotoport=udp/7776-7779\n";
    for (we_begin, ours) in [(true, ""), (false, ""), (true, range), (false, range)] {
        let Some([left, _router, right]) = scene() else { return };
        let conn = CONN.replace(",10.1.9.0/24", "").replace(",10.2.9.0/24", "");
        let conn = format!("{conn}\tike={IKE}\n\tesp={ESP}\n{ours}");
        let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
        west.start_klips();
        west.start_pluto();
        let theirs = Children {
            local_ts: "10.2.0.0/24[udp/7776-7779]",
            remote_ts: "10.1.0.0/24[udp]",
            ..Children::NETS
        };
        let children = if ours.is_empty() { theirs } else { Children::NETS };
        let east = Charon::start_with(right, IKE, ESP, "", &children);
        if we_begin {
            west.done(&["auto", "--up", "west-east"]);
        } else {
            east.done(&["--initiate", "--child", "net", "--timeout", "20"]);
            wait("up", || west.state() == "up");
        }
        assert_eq!(installed(&west), (vec![4, 4], 4));
        let eroutes = west.done(&["eroute", "--json"]);
        assert!([7776, 7777, 7778, 7779].iter().all(|port| eroutes.contains(&port.to_string())), "{eroutes}");
        passes((&west.namespace, west.inside), east.inside());
    }
}
