//! With strongSwan in the east. Its user-space ESP is in UDP always, so that is a test of UDP 4500, too, which is iked's.

use crate::charon::{Charon, Children, is_there};
use crate::identity::{Authority, By, Holder, write};
use crate::{Gateway, Inside, crosses, scene, wait};

/// The secret that charon is given in these tests.
const SECRET: &str = "the quick brown fox";
/// What both have; on Linux OpenIKED asks for no integrity by SHA-256 for ESP.
const ALGORITHMS: &str = "ikesa enc aes-256 prf hmac-sha2-256 auth hmac-sha2-256 group curve25519 \
                          childsa enc aes-256 auth hmac-sha2-384";

fn pair(by: By) -> Option<(Gateway, Charon)> {
    if !is_there() {
        return None;
    }
    let [left, right] = scene()?;
    let proof = if by == By::Secret { format!("psk \"{SECRET}\"") } else { String::new() };
    let rule = format!(
        "ikev2 \"t\" active esp from 10.1.0.0/16 to 10.2.0.0/16 local 192.0.2.1 peer 192.0.2.2 \
         {ALGORITHMS} srcid west.example.org dstid east.example.org {proof}\n"
    );
    let mut west = Gateway::new(left, "10.1.0.1", &rule);
    west.nat = true;
    let authority = Authority::new();
    authority.equip(&authority.vouch("west"), &west.dir.path().join("etc"));
    let dir = tempfile::tempdir().expect("directory");
    let Holder { certificate, key } = authority.vouch("east");
    write(&dir.path().join("x509/east.pem"), &certificate);
    write(&dir.path().join("x509ca/root.pem"), &authority.certificate);
    write(&dir.path().join("private/east.pem"), &key);
    let auth = if by == By::Secret { "auth = psk" } else { "auth = pubkey" };
    let certs = if by == By::Secret { "" } else { "certs = east.pem" };
    let local = format!("{auth}\n    {certs}\n    id = east.example.org");
    let remote = format!("{auth}\n    id = west.example.org");
    let more = "local_addrs = 192.0.2.2\n  remote_addrs = 192.0.2.1";
    let children = Children { local_ts: "10.2.0.0/16", remote_ts: "10.1.0.0/16", ..Children::NETS };
    let (ike, esp) = ("aes256-sha256-x25519", "aes256-sha384-noesn");
    let charon = Charon::start_as(right, dir, (ike, esp, more), (&local, &remote), &children);
    west.start_klips("10.2.0.0/16");
    west.start_iked();
    Some((west, charon))
}

fn both_ways(west: &Gateway, east: &Charon) {
    let east: Inside<'_> = (&east.namespace, [10, 2, 0, 1].into());
    crosses(west.inside(), east);
    crosses(east, west.inside());
}

#[test]
fn openiked_and_strongswan_rekey_end_and_begin_again_by_secret_and_by_certificate() {
    for by in [By::Secret, By::Certificate] {
        let Some((mut west, east)) = pair(by) else { return };
        both_ways(&west, &east);
        let first = west.spis();
        assert_eq!(first.len(), 2, "{by:?}");
        // Its own ESP is in UDP, and so is what iked has asked us for.
        assert!(west.shown(&["setkey", "-D"]).contains("esp-udp"), "{by:?}");
        east.done(&["--rekey", "--child", "net"]);
        wait("other SAs", || west.spis().len() == 2 && west.spis().iter().all(|spi| !first.contains(spi)));
        both_ways(&west, &east);
        east.done(&["--rekey", "--ike", "peer"]);
        both_ways(&west, &east);

        east.done(&["--terminate", "--ike", "peer", "--timeout", "20"]);
        wait("an end", || west.spis().is_empty());
        east.done(&["--initiate", "--child", "net", "--timeout", "20"]);
        both_ways(&west, &east);

        // It is killed, and then the data plane with it.
        Gateway::kill(&mut west.iked);
        west.start_iked();
        both_ways(&west, &east);
        Gateway::kill(&mut west.klips);
        Gateway::kill(&mut west.iked);
        west.start_klips("10.2.0.0/16");
        west.start_iked();
        both_ways(&west, &east);
    }
}
