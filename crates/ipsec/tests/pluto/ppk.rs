//! Post-quantum preshared keys (RFC 8784) with strongSwan.

use super::charon::{Charon, Children, both_ways, is_there};
use super::{CONN, Gateway, SECRET, scene, wait};

/// As either side writes it down.
const KEY: &str = "0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Ours in the west with this `ppk=`, charon in the east with this of its own, and with the key under this name.
fn pair(ours: &str, theirs: &str, name: &str) -> Option<(Gateway, Charon, super::Namespace)> {
    let [left, router, right] = scene()?;
    let conn = format!(
        "{CONN}\tauto=add\n\tkeyingtries=1\n\tike=aes256gcm16-prfsha384-x25519\n\tesp=aes256gcm16-x25519\n\tppk={ours}\n"
    );
    let secrets = format!("{SECRET}@west @east : PPKS \"spring\" {KEY}\n");
    let mut west = Gateway::new(left, "10.1.0.1", &conn, &secrets);
    west.start_klips();
    west.start_pluto();
    let sections = format!("secrets {{ ppk-1 {{\n  secret = {KEY}\n  id-1 = {name}\n}} }}").leak();
    let children = Children { more: sections, ..Children::NETS };
    let (ike, esp) = ("aes256gcm16-prfsha384-x25519", "aes256gcm16-x25519-noesn");
    Some((west, Charon::start_with(right, ike, esp, theirs, &children), router))
}

#[test]
fn strongswan_and_we_mix_in_a_post_quantum_preshared_key() {
    if !is_there() {
        return;
    }
    let (may, must) = ("ppk_id = spring", "ppk_id = spring\n  ppk_required = yes");
    for (ours, theirs, name, comes_up, used) in [
        ("propose", may, "spring", [true; 2], true),
        ("insist", must, "spring", [true; 2], true),
        // The other has none, or one of another name.
        ("propose", "", "autumn", [true; 2], false),
        // Ours does without one that it does not have, as it was asked to; strongSwan does not.
        ("propose", "ppk_id = autumn", "autumn", [false, true], false),
        ("insist", "", "autumn", [false; 2], false),
        ("no", must, "spring", [false; 2], false),
        ("insist", "ppk_id = autumn", "autumn", [false; 2], false),
    ] {
        for (we_begin, comes_up) in [true, false].into_iter().zip(comes_up) {
            let case = format!("{ours}, {theirs:?}, {name}, we begin: {we_begin}");
            let Some((west, east, _router)) = pair(ours, theirs, name) else { return };
            if we_begin {
                west.ipsec(&["auto", "--up", "west-east"]);
            } else {
                east.swanctl(&["--initiate", "--child", "net", "--timeout", "10"]);
            }
            if !comes_up {
                assert_eq!(west.spis().len(), 0, "{case}: {}", west.said());
                continue;
            }
            wait("up", || west.state() == "up");
            let ppk = west.status()["ike_sas"][0]["ppk"].as_str().map(str::to_owned);
            assert_eq!(ppk.as_deref(), used.then_some("spring"), "{case}: {}", west.said());
            both_ways(&west, &east);
            // What comes after is made from keys in which it is.
            let before = west.spis();
            west.done(&["auto", "--rekey", "--ike", "west-east"]);
            west.done(&["auto", "--rekey", "west-east"]);
            wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
            both_ways(&west, &east);
        }
    }
}
