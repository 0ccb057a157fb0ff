//! A record of what IKE said, opened by Wireshark.

use super::{CONN, Gateway, SECRET, crosses, scene, wait};
use std::fs;
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
        eprintln!("skipped: no tshark (apt-get install tshark)");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    for inside in
        ["Identification Data:west", "Identification Data:east", "Traffic Selector", "Payload: Delete (42)"]
    {
        assert!(text.contains(inside), "{inside}: {}{text}", String::from_utf8_lossy(&output.stderr));
    }
}
