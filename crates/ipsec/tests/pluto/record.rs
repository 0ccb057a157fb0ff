//! A record of what IKE said, opened by Wireshark and played into the engine again.

use super::outside::Small;
use super::{CONN, Gateway, SECRET, crosses, scene, wait};
use crate::skipped::skipped;
use ipsec::conf::connection::{Here, plan};
use ipsec::conf::{Conf, secrets};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn tshark_opens_what_pluto_recorded_and_nobody_else_may_read_it() {
    let Some([left, _router, right]) = scene() else { return };
    let conn = format!("{CONN}\tauto=add\n\tike=aes_gcm256-sha2_256-x25519\n");
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    let mut east = Gateway::new(right, "10.2.0.1", &conn, SECRET);
    let record = west.dir.path().join("record");
    for gateway in [&mut west, &mut east] {
        gateway.start_klips();
    }
    west.start_pluto_with(&["--record", &record.display().to_string()]);
    east.start_pluto();
    assert!(west.said().contains("RECORDED WITH ALL ITS KEYS"));
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    west.done(&["auto", "--rekey", "--ike", "west-east"]);
    wait("the old IKE SA's end", || west.status()["ike_sas"].as_array().is_some_and(|all| all.len() == 1));
    assert!(west.done(&["auto", "--status"]).contains("RECORDED WITH ALL ITS KEYS"));
    let mode = |name: &str| fs::metadata(record.join(name)).expect(name).permissions().mode() & 0o777;
    for name in ["ike.tape", "ike.pcap", "ikev2_decryption_table"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    // A record is never written over: what it was begun for may be the one before.
    let pid = west.rundir.pluto_pid();
    west.kill(&pid);
    let mut again = west.command(super::PLUTO, &["-F", "--record", &record.display().to_string()]);
    let output = west.namespace.run(|| again.output()).expect("namespace").expect("pluto");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ike.pcap"));

    let home = tempfile::tempdir().expect("directory");
    let profile = home.path().join(".config/wireshark");
    fs::create_dir_all(&profile).expect("profile");
    fs::copy(record.join("ikev2_decryption_table"), profile.join("ikev2_decryption_table")).expect("table");
    let mut tshark = Command::new("tshark");
    tshark.env("HOME", home.path()).env_remove("XDG_CONFIG_HOME").arg("-r").arg(record.join("ike.pcap"));
    let Ok(output) = tshark.arg("-V").output() else {
        skipped("no tshark (apt-get install tshark)");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    for inside in
        ["Identification Data:west", "Identification Data:east", "Traffic Selector", "Payload: Delete (42)"]
    {
        assert!(text.contains(inside), "{inside}: {}{text}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What the gateway is that wrote a record.
struct At(IpAddr);

impl Here for At {
    fn has(&self, address: IpAddr) -> bool {
        address == self.0
    }
    fn address_towards(&self, _: Option<IpAddr>) -> Option<IpAddr> {
        Some(self.0)
    }
}

/// Plays a tape with the files of the gateway that wrote it: how many datagrams came out as they are recorded.
fn replayed(gateway: &Gateway, address: &str, tape: &str) -> usize {
    let confs = gateway.dir.path();
    let conf = Conf::load(confs).unwrap_or_else(|why| panic!("{why:?}"));
    let here = At(address.parse().expect("an address"));
    let known = secrets::read(&confs.join("ipsec.secrets")).unwrap_or_else(|why| panic!("{why:?}")).secrets;
    let done = ike::tape::replay(tape, |endpoint| {
        for conn in &conf.conns {
            let planned = plan(conn, &here, &mut Vec::new()).unwrap_or_else(|why| panic!("{why:?}"));
            planned.into_iter().for_each(|planned| endpoint.add(planned.ike));
        }
        endpoint.set_secrets(known);
    });
    done.unwrap_or_else(|at| panic!("{address}: {at:?}"))
}

#[test]
fn what_pluto_recorded_is_replayed_into_the_engine_to_the_same_octets() {
    let Some([left, _router, right]) = scene() else { return };
    let conn = format!("{CONN}\tauto=add\n\tike=aes_gcm256-sha2_256-x25519-ke1_mlkem768\n\tpfs=yes\n");
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    let mut east = Gateway::new(right, "10.2.0.1", &conn, SECRET);
    for gateway in [&mut west, &mut east] {
        gateway.start_klips();
        let record = gateway.dir.path().join("record");
        gateway.start_pluto_with(&["--record", &record.display().to_string()]);
    }
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    for (gateway, more) in [(&west, &[][..]), (&east, &[]), (&west, &["--ike"]), (&east, &["--ike"])] {
        let before = (west.spis(), west.status()["ike_sas"].clone());
        gateway.done(&[&["auto", "--rekey"], more, &["west-east"]].concat());
        wait("what is new, and it alone", || {
            let status = west.status();
            let ikes = status["ike_sas"].as_array().map_or(0, Vec::len);
            (west.spis(), status["ike_sas"].clone()) != before && ikes == 1 && west.spis().len() == 1
        });
        crosses(&west, &east);
    }
    west.done(&["auto", "--down", "west-east"]);
    wait("the end on both sides", || east.status()["ike_sas"].as_array().is_some_and(Vec::is_empty));
    for (gateway, address) in [(&mut west, "192.0.2.1"), (&mut east, "198.51.100.7")] {
        let pid = gateway.rundir.pluto_pid();
        gateway.kill(&pid);
        let tape = fs::read_to_string(gateway.dir.path().join("record/ike.tape")).expect("a tape");
        let sent = tape.lines().filter(|line| line.starts_with("transmit")).count();
        assert!(sent >= 8, "{sent}");
        assert_eq!(replayed(gateway, address, &tape), sent, "{address}");
    }
}

#[test]
fn a_disk_that_is_full_ends_a_record_and_status_says_so_and_tunnels_come_up_all_the_same() {
    let Some([left, _router, right]) = scene() else { return };
    let conn = format!("{CONN}\tauto=add\n");
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    let mut east = Gateway::new(right, "10.2.0.1", &conn, SECRET);
    let disk = west.dir.path().join("disk");
    let small = Small::new(&disk);
    let record = disk.join("record");
    for gateway in [&mut west, &mut east] {
        gateway.start_klips();
    }
    west.start_pluto_with(&["--record", &record.display().to_string()]);
    east.start_pluto();
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    assert_eq!(west.status()["recording_failed"], serde_json::Value::Null);
    // What is up stays up and is rekeyed.
    let filler = small.fill();
    for more in [&[][..], &["--ike"]] {
        let before = (west.spis(), west.status()["ike_sas"].clone());
        west.done(&[&["auto", "--rekey"], more, &["west-east"]].concat());
        wait("what is new", || (west.spis(), west.status()["ike_sas"].clone()) != before);
        crosses(&west, &east);
    }
    let said = format!("{}: No space left on device", record.display());
    assert!(west.said().contains(&format!("{said} (os error 28): recording has stopped")), "{}", west.said());
    assert_eq!(west.said().matches("recording has stopped").count(), 1, "once");
    let status = west.done(&["auto", "--status"]);
    assert!(status.contains("recording has stopped") && status.contains(&said), "{status}");
    assert!(!status.contains("EVERYTHING IS RECORDED"), "{status}");
    // What is down comes up. A record with a hole in it would be none: there is no more of it when there is room again.
    west.done(&["auto", "--down", "west-east"]);
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    let length = |name: &str| fs::metadata(record.join(name)).expect(name).len();
    let before = length("ike.tape");
    fs::remove_file(filler).expect("room");
    west.done(&["auto", "--rekey", "west-east"]);
    crosses(&west, &east);
    assert_eq!(length("ike.tape"), before);
    assert!(west.status()["recording_failed"].as_str().is_some_and(|why| why.contains(&said)));
}
