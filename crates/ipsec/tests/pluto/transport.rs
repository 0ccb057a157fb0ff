//! Transport mode between two hosts: all there is between them, one protocol and port, and through a NAT.

use super::{Gateway, SECRET, default_route, masquerades, net, passes, scene, wait};
use ipsec::host::netns::{End, Namespace, connect};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const HOSTS: &str = "\
conn west-east
\ttype=transport
\tleft=192.0.2.1
\tleftid=@west
\tright=198.51.100.7
\trightid=@east
\tauthby=secret
\tretransmit-interval=200
";

const WEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const EAST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

fn hosts(west: &str, east: &str) -> Option<(Gateway, Gateway, Namespace)> {
    let [left, router, right] = scene()?;
    let mut west = Gateway::new(left, "192.0.2.1", west, SECRET);
    let mut east = Gateway::new(right, "198.51.100.7", east, SECRET);
    for gateway in [&mut east, &mut west] {
        gateway.start_klips();
        gateway.start_pluto();
    }
    Some((west, east, router))
}

/// The records of all SAs, as PF_KEY has them.
fn dump(gateway: &Gateway) -> Vec<Value> {
    let text = gateway.done(&["key", "-n", "--json", "dump"]);
    let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|record| record["encrkey"].is_object()).collect()
}

/// Asks a server for what it was told, over TCP from any port to `port`.
fn calls(from: &Gateway, to: (&Gateway, IpAddr, u16)) {
    let (gateway, address, port) = to;
    let listener = gateway.namespace.run(|| TcpListener::bind((address, port)));
    let listener = listener.expect("namespace").expect("socket");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("a call");
            let mut octets = vec![0; 120_000];
            stream.read_exact(&mut octets).expect("a question");
            stream.write_all(&octets).expect("an answer");
        });
        let mut stream = None;
        wait("a connection", || {
            let to = SocketAddr::new(address, port);
            let dial = || TcpStream::connect_timeout(&to, Duration::from_secs(2));
            stream = from.namespace.run(dial).expect("namespace").ok();
            stream.is_some()
        });
        let mut stream = stream.expect("waited for");
        stream.set_read_timeout(Some(super::PATIENCE)).expect("timeout");
        let question: Vec<u8> = (0..120_000_u32).map(|n| n as u8).collect();
        let mut answer = vec![0; question.len()];
        stream.write_all(&question).expect("asked");
        stream.read_exact(&mut answer).expect("answered");
        assert!(answer == question, "what came back is something else");
    });
}

/// Both sides rekey the SAs, and `check` holds each time.
fn is_rekeyed(west: &Gateway, east: &Gateway, check: impl Fn()) {
    for side in [west, east] {
        let before = west.spis();
        side.done(&["auto", "--rekey", "west-east"]);
        wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
        check();
    }
}

/// SAs of both directions have carried packets.
fn is_used(gateway: &Gateway) {
    let used = |record: &&Value| record["current"]["bytes"].as_u64().is_some_and(|octets| octets > 100_000);
    let all = dump(gateway);
    assert!(all.iter().filter(used).count() >= 2, "{all:?}");
}

fn is_in_transport_mode(gateway: &Gateway) {
    let rows: Vec<Value> = serde_json::from_str(&gateway.done(&["spi", "--json"])).expect("json");
    let mature: Vec<&Value> = rows.iter().filter(|row| row["state"] != "larval").collect();
    assert!(!mature.is_empty() && mature.iter().all(|row| row["mode"] == "transport"), "{mature:?}");
}

#[test]
fn all_between_two_hosts_is_protected_by_itself_and_on_demand_and_rekeyed() {
    for (auto, more) in [("start", ""), ("route", "\tencapsulation=no\n")] {
        let conn = |auto: &str| format!("{HOSTS}\tauto={auto}\n{more}");
        let Some((west, east, _router)) = hosts(&conn(auto), &conn("add")) else { return };
        let check = || {
            passes((&west.namespace, WEST), (&east.namespace, EAST));
            passes((&east.namespace, EAST), (&west.namespace, WEST));
            calls(&west, (&east, EAST, 7780));
            [&west, &east].into_iter().for_each(is_used);
        };
        check();
        assert_eq!((west.spis().len(), east.spis().len()), (1, 1), "in clear");
        [&west, &east].into_iter().for_each(is_in_transport_mode);
        is_rekeyed(&west, &east, check);
    }
}

#[test]
fn one_protocol_and_port_is_protected_and_the_addresses_of_the_sas_say_so() {
    let conn = |auto: &str| format!("{HOSTS}\tauto={auto}\n\tleftprotoport=tcp\n\trightprotoport=tcp/7779\n");
    let Some((west, east, _router)) = hosts(&conn("add"), &conn("add")) else { return };
    west.done(&["auto", "--up", "west-east"]);
    let check = || {
        calls(&west, (&east, EAST, 7779));
        // What is sent to the server has its port, what comes from it as well.
        let end =
            |address: IpAddr, port: u16| json!({ "address": address, "prefix": 0, "port": port, "proto": 6 });
        let there = (end(WEST, 0), end(EAST, 7779));
        for gateway in [&west, &east] {
            let all: Vec<(Value, Value)> =
                dump(gateway).iter().map(|record| (record["src"].clone(), record["dst"].clone())).collect();
            let back = (there.1.clone(), there.0.clone());
            let only = all.iter().all(|ends| *ends == there || *ends == back);
            assert!(only && all.contains(&there) && all.contains(&back), "{all:?}");
        }
    };
    check();
    is_rekeyed(&west, &east, check);
}

#[test]
fn two_hosts_with_a_nat_between_them_each_mean_the_addresses_they_see() {
    let (west, east) = (format!("{HOSTS}\tauto=add\n"), HOSTS.replace("left=192.0.2.1", "left=%any"));
    let Some((west, east, router)) = hosts(&west, &format!("{east}\tauto=add\n")) else { return };
    if !masquerades(&router) {
        return;
    }
    west.done(&["auto", "--up", "west-east"]);
    let outside: IpAddr = [198, 51, 100, 254].into();
    let flow = |gateway: &Gateway| gateway.done(&["eroute", "--json"]);
    let check = || {
        calls(&west, (&east, EAST, 7781));
        [&west, &east].into_iter().for_each(is_used);
        assert!(flow(&east).contains("198.51.100.254/32") && !flow(&east).contains("192.0.2.1"));
        assert!(dump(&east).iter().any(|record| record["dst"]["address"] == json!(outside)));
    };
    check();
    is_rekeyed(&west, &east, check);
}

#[test]
fn a_second_host_behind_the_same_nat_does_not_get_what_is_for_the_first() {
    let conn = format!("{HOSTS}\tauto=add\n\tkeyingtries=1\n");
    let anybody = conn.replace("left=192.0.2.1\n\tleftid=@west", "left=%any");
    let Some((west, east, router)) = hosts(&conn, &anybody) else { return };
    if !masquerades(&router) {
        return;
    }
    east.write("ipsec.secrets", &format!("{SECRET}@north @east : PSK \"the lazy dog\"\n"));
    east.done(&["auto", "--rereadsecrets"]);
    let space = Namespace::new().expect("namespace");
    connect(
        End { namespace: &space, name: "eth0", addresses: &[net("192.0.3.1/24")] },
        End { namespace: &router, name: "eth3", addresses: &[net("192.0.3.254/24")] },
    )
    .expect("cable");
    default_route(&space, "192.0.3.254");
    let conn = conn.replace("192.0.2.1", "192.0.3.1").replace("@west", "@north");
    let mut north = Gateway::new(space, "192.0.3.1", &conn, "@north @east : PSK \"the lazy dog\"\n");
    north.start_klips();
    north.start_pluto();
    west.done(&["auto", "--up", "west-east"]);
    calls(&west, (&east, EAST, 7782));
    let before = east.spis();
    north.ipsec(&["auto", "--up", "west-east"]);
    wait("the refusal", || east.said().contains("who is behind the same NAT as"));
    wait("nothing of it to stay", || north.spis().is_empty());
    assert_eq!(east.spis(), before);
    calls(&west, (&east, EAST, 7783));
    // The first leaves, and the other has its place.
    west.done(&["auto", "--down", "west-east"]);
    wait("it to leave", || east.spis().is_empty());
    north.done(&["auto", "--up", "west-east"]);
    calls(&north, (&east, EAST, 7784));
}

#[test]
fn hosts_of_ipv6_have_it_too_in_udp_and_by_itself() {
    for encapsulation in ["yes", "no"] {
        let Some([left, _, right]) = scene() else { return };
        let cable = |namespace, address| End { namespace, name: "eth1", addresses: address };
        let (west, east) = ([net("fd00:9::1/64")], [net("fd00:9::2/64")]);
        connect(cable(&left, &west), cable(&right, &east)).expect("cable");
        let conn = HOSTS.replace("192.0.2.1", "fd00:9::1").replace("198.51.100.7", "fd00:9::2");
        let conn = format!("{conn}\tauto=add\n\tencapsulation={encapsulation}\n");
        let mut west = Gateway::new(left, "fd00:9::1", &conn, SECRET);
        let mut east = Gateway::new(right, "fd00:9::2", &conn, SECRET);
        for gateway in [&mut east, &mut west] {
            gateway.start_klips_on("eth1");
            gateway.start_pluto();
        }
        west.done(&["auto", "--up", "west-east"]);
        let check = || {
            calls(&west, (&east, east.inside, 7785));
            [&west, &east].into_iter().for_each(is_used);
        };
        check();
        is_rekeyed(&west, &east, check);
    }
}
