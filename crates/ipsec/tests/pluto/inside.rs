//! Road warriors: addresses inside, name servers and domains, with strongSwan and between two of ours.

use super::charon::{self, Charon, Children};
use super::{Gateway, SECRET, net, pair, passes, scene, wait};
use ipsec::host::netlink::Netlink;
use std::fs;
use std::net::IpAddr;

/// West as a road warrior that asks the east for an address.
const ROAD: &str = "\
conn west-east
\tleft=192.0.2.1
\tleftid=@west
\tleftsourceip=%config
\tright=198.51.100.7
\trightid=@east
\trightsubnet=10.2.0.0/24
\tauthby=secret
\tretransmit-interval=200
\tauto=add
";

/// West as a gateway that gives addresses.
const GATEWAY: &str = "\
conn west-east
\tleft=192.0.2.1
\tleftid=@west
\tleftsubnet=10.1.0.0/24
\tright=%any
\trightid=@east
\trightaddresspool=10.9.0.7-10.9.0.7
\tmodecfgdns=10.1.0.53
\tmodecfgdomains=corp.example.org
\tauthby=secret
\tretransmit-interval=200
\tauto=add
";

const IKE: &str = "aes256gcm16-prfsha256-x25519";
const ESP: &str = "aes256gcm16-x25519-noesn";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A program that writes down what it is told.
fn witness(gateway: &Gateway) -> String {
    let dir = gateway.dir.path().display();
    gateway.write(
        "updown",
        &format!("#!/bin/sh\nenv | grep ^PLUTO_ | sort >> {dir}/told\necho >> {dir}/told\n"),
    );
    format!("\tleftupdown=\"/bin/sh {dir}/updown\"\n")
}

fn told(gateway: &Gateway) -> String {
    fs::read_to_string(gateway.dir.path().join("told")).unwrap_or_default()
}

/// The addresses of the tunnel device.
fn addresses(gateway: &Gateway) -> Vec<IpAddr> {
    let read = gateway.namespace.run(|| {
        let mut netlink = Netlink::open()?;
        let link = netlink.link("ipsec0")?.expect("ipsec0").index;
        netlink.addresses(Some(link))
    });
    read.expect("namespace").expect("addresses").iter().map(|address| address.net.addr()).collect()
}

fn given(gateway: &Gateway) -> String {
    gateway.status()["ike_sas"][0]["given"][0].as_str().unwrap_or_default().to_owned()
}

#[test]
fn strongswan_gives_us_an_address_that_is_ours_while_we_are_connected() {
    if !charon::is_there() {
        return;
    }
    let Some([left, _router, right]) = scene() else { return };
    let children = Children {
        remote_ts: "dynamic",
        more: "pools { rw { addrs = 10.9.0.32/28\n dns = 10.2.0.53 } }",
        ..Children::NETS
    };
    let mut west = Gateway::new(left, "10.1.0.1", "", SECRET);
    let conn = format!("{ROAD}\tike={IKE}\n\tesp={ESP}\n{}", witness(&west));
    west.write("ipsec.conf", &conn);
    west.start_klips();
    west.start_pluto();
    let east = Charon::start_with(right, IKE, ESP, "pools = rw", &children);
    west.done(&["auto", "--up", "west-east"]);
    let ours = ip("10.9.0.33");
    assert!(addresses(&west).contains(&ours), "{:?}", addresses(&west));
    passes((&west.namespace, ours), east.inside());
    passes(east.inside(), (&west.namespace, ours));
    wait("the program", || told(&west).contains("PLUTO_PEER_DNS_INFO=10.2.0.53"));
    assert!(told(&west).contains("PLUTO_MY_SOURCEIP=10.9.0.33"), "{}", told(&west));
    // Both sides rekey, and the address stays.
    let before = west.spis();
    west.done(&["auto", "--rekey", "west-east"]);
    wait("our new SAs", || west.spis().len() == 1 && west.spis() != before);
    passes((&west.namespace, ours), east.inside());
    east.done(&["--rekey", "--ike", "peer"]);
    let before = west.spis();
    east.done(&["--rekey", "--child", "net"]);
    wait("its new SAs", || west.spis().len() == 1 && west.spis() != before);
    passes(east.inside(), (&west.namespace, ours));
    west.done(&["auto", "--down", "west-east"]);
    west.done(&["auto", "--delete", "west-east"]);
    assert!(!addresses(&west).contains(&ours), "given back");
}

#[test]
fn strongswan_gets_an_address_from_us_and_the_same_after_a_restart() {
    if !charon::is_there() {
        return;
    }
    let Some([left, _router, right]) = scene() else { return };
    let children = Children { local_ts: "dynamic", ..Children::NETS };
    let conn = format!("{GATEWAY}\tike={IKE}\n\tesp={ESP}\n");
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    west.start_klips();
    west.start_pluto();
    let east = Charon::start_with(right, IKE, ESP, "vips = 0.0.0.0", &children);
    east.done(&["--initiate", "--child", "net", "--timeout", "20"]);
    wait("up", || west.state() == "up");
    assert_eq!(given(&west), "10.9.0.7");
    let theirs = || (&east.namespace, ip("10.9.0.7"));
    passes(theirs(), (&west.namespace, west.inside));
    passes((&west.namespace, west.inside), theirs());
    east.done(&["--terminate", "--ike", "peer", "--timeout", "20"]);
    wait("down", || west.spis().is_empty());
    // A larger pool and another pluto: the peer has what it had.
    west.write("ipsec.conf", &conn.replace("10.9.0.7-10.9.0.7", "10.9.0.1-10.9.0.20"));
    let pid = west.rundir.pluto_pid();
    west.kill(&pid);
    west.start_pluto();
    east.done(&["--initiate", "--child", "net", "--timeout", "20"]);
    wait("up", || west.state() == "up");
    assert_eq!(given(&west), "10.9.0.7");
    passes(theirs(), (&west.namespace, west.inside));
}

#[test]
fn addresses_of_both_families_servers_and_domains_reach_a_road_warrior_of_ours() {
    let east_conn = "\
conn west-east
\tleft=%any
\tleftid=@west
\tleftaddresspool=10.9.0.0/24,fd00:9::/112
\tright=198.51.100.7
\trightid=@east
\trightsubnets={10.2.0.0/24 fd00:2::/64}
\tmodecfgdns=10.2.0.53,fd00:2::53
\tmodecfgdomains=corp.example.org,example.net
\tauthby=secret
\tauto=add
";
    let Some((west, east, _router)) = pair(("", SECRET), (east_conn, SECRET)) else { return };
    let road = ROAD.replace("rightsubnet=10.2.0.0/24", "rightsubnets={10.2.0.0/24 fd00:2::/64}");
    west.write("ipsec.conf", &format!("{road}{}", witness(&west)));
    west.done(&["auto", "--reload"]);
    east.namespace
        .run(|| {
            let mut netlink = Netlink::open()?;
            let lo = netlink.link("lo")?.expect("lo").index;
            netlink.add_address(lo, net("fd00:2::1/128"))
        })
        .expect("namespace")
        .expect("address");
    west.done(&["auto", "--up", "west-east"]);
    let (four, six) = (ip("10.9.0.1"), ip("fd00:9::1"));
    passes((&west.namespace, four), (&east.namespace, east.inside));
    passes((&west.namespace, six), (&east.namespace, ip("fd00:2::1")));
    passes((&east.namespace, ip("fd00:2::1")), (&west.namespace, six));
    wait("the program", || told(&west).contains("PLUTO_PEER_DNS_INFO=10.2.0.53 fd00:2::53"));
    assert!(told(&west).contains("PLUTO_PEER_DOMAIN_INFO=corp.example.org example.net"), "{}", told(&west));
    assert_eq!(west.status()["ike_sas"].as_array().map(Vec::len), Some(1));
    let text = east.done(&["auto", "--status"]);
    assert!(text.contains("it was given 10.9.0.1,fd00:9::1"), "{text}");
}
