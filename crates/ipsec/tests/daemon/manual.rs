//! Connections whose keys stand in ipsec.conf, and many eroutes in one call.

use crate::host::Host;
use ipsec::host::netlink::Netlink;
use ipsec::host::netns::Namespace;
use ipsec::rundir::Rundir;
use std::fs;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

const CONN: &str = "
conn west-east
\tleft=192.0.2.7
\tleftsubnet=10.1.0.0/16
\tright=192.0.2.8
\trightsubnet=10.2.0.0/16
\tspibase=0x300
\tesp=aes128-sha1
\tespenckey=0x000102030405060708090a0b0c0d0e0f
\tespauthkey=0x8765876587658765876587658765876587658765
\tah=hmac-sha256
\tahkey=0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
";

fn setup(interfaces: &str) -> String {
    format!("\tprotostack=klips\n\tpluto=no\n\tinterfaces=\"{interfaces}\"\n{CONN}")
}

/// The other end of the cable, a host of its own with a daemon.
fn beyond(west: &Host) -> Host {
    let namespace = Namespace::new().expect("namespace");
    let moved = west.namespace.run(|| {
        let mut netlink = Netlink::open()?;
        let cable = netlink.link("cable")?.expect("the host has made it").index;
        netlink.move_link(cable, namespace.as_fd())
    });
    moved.expect("namespace").expect("moved");
    let dir = tempfile::tempdir().expect("directory");
    let rundir = Rundir::new(dir.path().join("run"));
    let east = Host { namespace, rundir, dir };
    for (host, link, nets) in
        [(west, "eth7", &["10.1.0.1/32"][..]), (&east, "cable", &["192.0.2.8/24", "10.2.0.1/32"])]
    {
        let made = host.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let index = netlink.link(link)?.expect("there").index;
            netlink.set_up(index, true)?;
            nets.iter().try_for_each(|net| netlink.add_address_and_route(index, net.parse().expect("net")))
        });
        made.expect("namespace").expect("addresses");
    }
    east
}

fn ping(from: &Host) -> bool {
    let mut command = Command::new("ping");
    command.args(["-n", "-q", "-c", "1", "-W", "5", "-I", "10.1.0.1", "10.2.0.1"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    from.namespace.spawn(&mut command).and_then(|mut ping| ping.wait()).is_ok_and(|status| status.success())
}

#[test]
fn a_connection_by_hand_comes_up_carries_and_goes_down() {
    let Some(west) = Host::new("ipsec0=eth7") else { return };
    let east = beyond(&west);
    west.configure(&setup("ipsec0=eth7"));
    east.configure(&setup("ipsec0=cable"));
    for host in [&west, &east] {
        let started = host.ipsec(&["setup", "start"]);
        assert_eq!(started.code, 0, "{started:?}");
        let shown = host.ipsec(&["manual", "--showonly", "--up", "west-east"]);
        assert_eq!((shown.code, shown.err.as_str()), (0, ""), "{shown:?}");
        assert!(
            shown.out.contains("ipsec spigrp --said esp0x302@192.0.2.8 ah0x304@192.0.2.8"),
            "{}",
            shown.out
        );
        assert!(!shown.out.contains("0001020304") && !shown.out.contains("87658765"), "{}", shown.out);
        let up = host.ipsec(&["manual", "--up", "west-east"]);
        assert_eq!((up.code, up.err.as_str(), up.out.as_str()), (0, "", ""), "{up:?}");
    }
    assert!(ping(&west), "{:?}", west.ipsec(&["look"]));
    let groups = west.ipsec(&["spigrp"]).out;
    assert!(groups.contains("esp0x302@192.0.2.8 ah0x304@192.0.2.8 \n"), "{groups}");
    let look = west.ipsec(&["look"]).out;
    assert!(look.contains("esp0x302@192.0.2.8 ah0x304@192.0.2.8"), "{look}");
    // What is there is not harmed by a second attempt.
    let again = west.ipsec(&["manual", "--up", "west-east"]);
    assert!(again.code == 1 && again.err.contains("is in use already"), "{again:?}");
    assert!(ping(&west));
    let down = west.ipsec(&["manual", "--down", "west-east"]);
    assert_eq!((down.code, down.err.as_str()), (0, ""), "{down:?}");
    assert_eq!((west.ipsec(&["eroute"]).out, west.ipsec(&["spi"]).out), (String::new(), String::new()));
    assert!(!ping(&west));
    let unknown = west.ipsec(&["manual", "--up", "nowhere"]);
    assert!(unknown.code == 2 && unknown.err.contains("no connection nowhere"), "{unknown:?}");
    for host in [&west, &east] {
        assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
    }
}

#[test]
fn a_table_that_was_saved_is_put_back_whole_or_not_at_all() {
    let Some(host) = Host::new("ipsec0=eth7") else { return };
    let started = host.ipsec(&["setup", "start"]);
    assert_eq!(started.code, 0, "{started:?}");
    let path = |name: &str| host.dir.path().join(name).to_string_lossy().into_owned();
    let lines: String = (0..2000)
        .map(|n| format!("--add --src 10.{}.{}.0/24 --dst 10.0.0.0/8 --said %drop\n", n / 256, n % 256))
        .collect();
    let extra = "# and two more\n--add --src fd00::/16 --dst fd01::/16 --said esp0x1001@2001:db8::2\n\
                 --replace --src 10.0.0.0/24 --dst 10.0.0.0/8 --transport-proto tcp --dst-port 25 --said %reject\n";
    fs::write(path("many"), lines + extra).expect("file");
    let done = host.ipsec(&["eroute", "--batch", &path("many")]);
    assert_eq!((done.code, done.err.as_str(), done.out.as_str()), (0, "", ""), "{done:?}");
    let table = host.ipsec(&["eroute"]).out;
    assert_eq!(table.lines().count(), 2002);
    // The last line of three cannot be done: nothing is.
    fs::write(path("wrong"), "--del --src 10.0.1.0/24 --dst 10/8\n--clear\n").expect("file");
    let refused = host.ipsec(&["eroute", "--batch", &path("wrong")]);
    assert!(refused.code == 1 && refused.err.contains("wrong:2: a line of a batch is"), "{refused:?}");
    let wrong =
        "--del --src 10.0.1.0/24 --dst 10.0.0.0/8\n\n--add --src 10.0.2.0/24 --dst 10.0.0.0/8 --said %pass\n";
    fs::write(path("wrong"), wrong).expect("file");
    let refused = host.ipsec(&["eroute", "--batch", &path("wrong")]);
    assert!(
        refused.code == 1 && refused.err.contains("line 3: an eroute with this selector is there"),
        "{refused:?}"
    );
    assert!(host.ipsec(&["eroute"]).out == table);
    // Both printed forms come back as they were.
    for node in ["ipsec_eroute", "ipsec/eroute/all"] {
        let file = host.rundir.proc().join("net").join(node);
        let saved = fs::read_to_string(&file).unwrap_or_else(|_| table.clone());
        fs::write(path("saved"), &saved).expect("file");
        assert_eq!(host.ipsec(&["eroute", "--clear"]).code, 0);
        let done = host.ipsec(&["eroute", "--batch", &path("saved")]);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{node}");
        assert!(host.ipsec(&["eroute"]).out == table, "{node}");
    }
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}
