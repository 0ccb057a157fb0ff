//! Many connections in one file: how long they take to be loaded and to come up, each beside what cannot be done without.
//!
//! `IPSEC_TEST_CONNECTIONS=500` has more than the forty that are quick.

use super::{CONN, Gateway, SECRET, pair, passes, sas, wait};
use ipsec::conf::Conf;
use ipsec::conf::connection::plan;
use ipsec::host::clock;
use ipsec::host::netlink::Netlink;
use ipsec::pluto::ports::Local;
use ipsec_core::kex::Group;
use std::net::IpAddr;
use std::time::Duration;

/// The third octet has room for 256.
fn inside(side: u8, n: usize, host: u8) -> IpAddr {
    let (high, low) = (u8::try_from(n / 256).expect("few"), u8::try_from(n % 256).expect("small"));
    IpAddr::from([10, side + 4 * high, low, host])
}

fn conns(many: usize, auto: &str) -> String {
    let mut text = format!("{CONN}\tauto={auto}\n");
    for n in 1..many {
        let (ours, theirs) = (inside(1, n, 0), inside(2, n, 0));
        let net = format!("\tleftsubnet={ours}/24\n\trightsubnet={theirs}/24\n\tauto={auto}\n");
        text.push_str(&format!("conn more-{n}\n\talso=west-east\n{net}"));
    }
    text
}

fn took<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let began = clock::now();
    let done = work();
    (done, clock::now().since(began))
}

fn up(gateway: &Gateway) -> usize {
    let all = gateway.status()["connections"].as_array().cloned().unwrap_or_default();
    all.iter().filter(|one| one["state"] == "up").count()
}

#[test]
fn many_connections_of_one_peer_come_up_on_one_ike_sa_and_each_carries_its_own() {
    let many = std::env::var("IPSEC_TEST_CONNECTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let Some((west, east, _router)) = pair(("config setup\n", SECRET), ("config setup\n", SECRET)) else {
        return;
    };
    let load = |gateway: &Gateway, auto: &str| {
        gateway.write("ipsec.conf", &conns(many, auto));
        let (said, load) = took(|| gateway.done(&["auto", "--reload"]));
        assert_eq!(said.lines().count(), many, "{said}");
        load
    };
    let loaded = load(&east, "add");
    // The least: the file read and understood by itself.
    let (planned, alone) = took(|| {
        let here = east.namespace.run(Local::now).expect("namespace").expect("addresses");
        let conf = Conf::load(east.dir.path()).expect("ipsec.conf");
        let all = conf.conns.iter().map(|conn| plan(conn, &here, &mut Vec::new()).expect("planned").len());
        all.sum::<usize>()
    });
    assert_eq!(planned, many);
    // The file is reloaded and nothing has changed: nothing is done.
    let (said, again) = took(|| east.done(&["auto", "--reload"]));
    assert_eq!(said, "");
    let began = clock::now();
    load(&west, "start");
    let mut seen = 0;
    wait("all of them", || {
        seen = seen.max(up(&west));
        seen == many && up(&east) == many
    });
    let all = clock::now().since(began);
    // The least: each has a key exchange of its own (pfs=yes), of two ends.
    let ((), exchanges) = took(|| {
        for _ in 0..many {
            let (secret, offer) = Group::X25519.offer().expect("an offer");
            let (answer, _) = Group::X25519.accept(&offer).expect("accepted");
            secret.finish(&answer).expect("finished");
        }
    });
    eprintln!(
        "{many} connections: loaded in {loaded:?}, read and understood alone {alone:?}, loaded again in {again:?}"
    );
    eprintln!("{many} connections: up in {all:?}, their key exchanges alone {exchanges:?}");
    assert_eq!(west.status()["ike_sas"].as_array().map(Vec::len), Some(1));
    assert_eq!((sas(&west), sas(&east)), (2 * many, 2 * many));
    for n in [0, 1, 17, many - 1] {
        for (gateway, side) in [(&west, 1), (&east, 2)] {
            let added = gateway.namespace.run(|| {
                let mut netlink = Netlink::open()?;
                let lo = netlink.link("lo")?.expect("lo").index;
                if n == 0 { Ok(()) } else { netlink.add_address(lo, inside(side, n, 1).into()) }
            });
            added.expect("namespace").expect("address");
        }
        passes((&west.namespace, inside(1, n, 1)), (&east.namespace, inside(2, n, 1)));
    }
}
