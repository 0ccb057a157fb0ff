//! With our own key daemon in the east, from an ipsec.conf.

use crate::identity::{Authority, By, Holder, write};
use crate::{Gateway, crosses, scene, stream, wait};
use serde_json::Value;
use std::fs;
use std::process::Child;

const PLUTO: &str = env!("CARGO_BIN_EXE_pluto");

/// What both have; with a group for the child, whose rekeying makes new secrets of its own.
const ALGORITHMS: &str = "ikesa enc aes-256 prf hmac-sha2-256 auth hmac-sha2-256 group curve25519 \
                          childsa enc aes-256 auth hmac-sha2-384 group curve25519";

const CONN: &str = "\
conn west-east
\tleft=192.0.2.1
\tleftid=@west.example.org
\tleftsubnet=10.1.0.0/16
\tright=192.0.2.2
\trightid=@east.example.org
\trightsubnet=10.2.0.0/16
\tike=aes256-sha256-x25519
\tesp=aes256-sha384-x25519
\tretransmit-interval=500
\tauto=add
";

/// The gateway in the east, and pluto on it.
struct East {
    gateway: Gateway,
    pluto: Option<Child>,
}

impl East {
    fn start(mut gateway: Gateway) -> Self {
        gateway.start_klips("10.1.0.0/16");
        let mut command = gateway.command(PLUTO, &["-F"]);
        command.stderr(gateway.log("pluto.log"));
        let pluto = Some(gateway.namespace.spawn(&mut command).expect("pluto"));
        let east = Self { gateway, pluto };
        wait("klips and pluto together", || east.status()["klips"] == true);
        east
    }

    /// Runs a command that must succeed, and says what it printed.
    fn auto(&self, args: &[&str]) -> String {
        let output = self.gateway.ipsec(&[&["auto"], args].concat());
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.gateway.shown(&["auto", "--status", "--json"])).unwrap_or_default()
    }

    /// The IKE SAs there are, by their SPIs.
    fn ike(&self) -> Vec<Value> {
        let all = self.status()["ike_sas"].as_array().cloned().unwrap_or_default();
        all.iter().map(|one| one["ike"].clone()).collect()
    }
}

impl Drop for East {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.gateway.dir.path().join("pluto.log")).unwrap_or_default();
            eprintln!("---- pluto\n{log}");
        }
        Gateway::kill(&mut self.pluto);
    }
}

/// OpenIKED in the west, which begins by itself if it is `active`, with `options` in its rule.
fn pair(by: By, mode: &str, options: &str) -> Option<(Gateway, East)> {
    let [left, right] = scene()?;
    let (proof, secret, auth) = match by {
        By::Secret => (
            "psk \"the quick brown fox\"",
            "@west.example.org @east.example.org : PSK \"the quick brown fox\"\n",
            // Without support for NATs iked has no UDP 4500.
            "\tauthby=secret\n",
        ),
        By::Certificate => {
            ("", ": PKCS8 east.key\n", "\tauthby=ecdsa\n\trightcert=east.pem\n\tencapsulation=yes\n")
        }
    };
    let rule = format!(
        "ikev2 \"t\" {mode} esp from 10.1.0.0/16 to 10.2.0.0/16 local 192.0.2.1 peer 192.0.2.2 \
         {ALGORITHMS} srcid west.example.org dstid east.example.org {options} {proof}\n"
    );
    let mut west = Gateway::new(left, "10.1.0.1", &rule);
    // One with NAT traversal turned off, raw; and one in UDP.
    west.nat = by == By::Certificate;
    let authority = Authority::new();
    authority.equip(&authority.vouch("west"), &west.dir.path().join("etc"));

    let east = Gateway::new(right, "10.2.0.1", "");
    let Holder { certificate, key } = authority.vouch("east");
    for (name, text) in [
        ("ipsec.conf", &format!("{CONN}{auth}")),
        ("ipsec.secrets", &secret.to_owned()),
        ("ipsec.d/certs/east.pem", &certificate),
        ("ipsec.d/private/east.key", &key),
        ("ipsec.d/cacerts/root.pem", &authority.certificate),
    ] {
        write(&east.dir.path().join(name), text);
    }
    let east = East::start(east);
    west.start_klips("10.2.0.0/16");
    west.start_iked();
    Some((west, east))
}

/// Traffic has its way in both directions, and both have the same SAs, in UDP where that was asked for.
fn both_ways(west: &Gateway, east: &East) {
    crosses(west.inside(), east.gateway.inside());
    crosses(east.gateway.inside(), west.inside());
    wait("the same SAs on both", || west.spis().len() == 2 && west.spis() == east.gateway.spis());
    assert_eq!(west.shown(&["setkey", "-D"]).contains("esp-udp"), west.nat);
}

/// Numbered datagrams go both ways while `change` is made. None from behind OpenIKED may be lost; of those to it `late` may.
fn stream_both_ways(west: &Gateway, east: &East, late: usize, change: impl FnOnce()) {
    let before = west.refused("no_sa");
    let mut to_west = (0, Vec::new());
    let (sent, lost) = stream::during(west.inside(), east.gateway.inside(), || {
        to_west = stream::during(east.gateway.inside(), west.inside(), change);
    });
    let refused = format!("refused: {} and {}", west.discards(), east.gateway.discards());
    assert!(sent > 20 && lost.is_empty(), "of {sent} datagrams from OpenIKED were lost: {lost:?}; {refused}");
    let (sent, lost) = to_west;
    let no_sa = west.refused("no_sa") - before;
    assert!(
        sent > 20 && lost.len() <= late && lost.len() as u64 <= no_sa,
        "of {sent} datagrams to OpenIKED were lost: {lost:?}, {no_sa} for want of their SA; {refused}"
    );
}

/// The same for what we rekey: nothing is lost.
fn unbroken(west: &Gateway, east: &East, change: impl FnOnce()) {
    stream_both_ways(west, east, 0, change);
}

/// The same where OpenIKED rekeys the child: it takes its old SA away once it has sent its DELETE, and does not wait for the answer.
/// Until we hear it we send on the old one, for DELETE is what tells us that the new one is there (RFC 7296 §2.8): that much is
/// lost, which is nothing or one datagram here, and all until the next transmission where the network loses that DELETE.
fn iked_rekeys(west: &Gateway, east: &East, change: impl FnOnce()) {
    // Half a second of them, for machines on which we hear it late.
    const UNHEARD: usize = 500;
    stream_both_ways(west, east, UNHEARD, change);
}

/// Waits for SAs of which none was there before, and for the end of those.
fn others(west: &Gateway, first: &[u64]) {
    wait("other SAs", || west.spis().len() == 2 && west.spis().iter().all(|spi| !first.contains(spi)));
}

/// Waits until nothing is left on either side.
fn ends(west: &Gateway, east: &East) {
    wait("an end", || west.spis().is_empty() && east.gateway.spis().is_empty() && east.ike().is_empty());
}

/// Everything at the word of our side, and an end by OpenIKED.
fn pluto_steers(by: By) {
    let Some((west, east)) = pair(by, "passive", "") else { return };
    wait("iked", || listens(&west));
    let said = east.auto(&["--up", "west-east"]);
    assert!(said.contains("IPsec SA established"), "{said}");
    both_ways(&west, &east);
    let renewed = || {
        let first = west.spis();
        unbroken(&west, &east, || {
            east.auto(&["--rekey", "west-east"]);
            others(&west, &first);
        });
        both_ways(&west, &east);
    };
    renewed();
    let (first, children) = (east.ike(), west.spis());
    unbroken(&west, &east, || {
        east.auto(&["--rekey", "--ike", "west-east"]);
        wait("another IKE SA", || east.ike().len() == 1 && east.ike() != first);
    });
    both_ways(&west, &east);
    assert_eq!(west.spis(), children, "they are another IKE SA's now, and the same");
    // What the new IKE SA is good for is shown by its next exchange.
    renewed();

    east.auto(&["--down", "west-east"]);
    ends(&west, &east);
    east.auto(&["--up", "west-east"]);
    both_ways(&west, &east);
    // OpenIKED ends it, and whoever wants it up begins again.
    let first = west.spis();
    west.ikectl(&["reset", "id", "FQDN/east.example.org"]);
    others(&west, &first);
    both_ways(&west, &east);
    east.auto(&["--down", "west-east"]);
    ends(&west, &east);
}

/// Whether iked has read its rule and its keys.
fn listens(west: &Gateway) -> bool {
    let log = fs::read_to_string(west.dir.path().join("iked.log")).unwrap_or_default();
    log.contains("ikev2 \"t\" passive")
}

#[test]
fn openiked_answers_pluto_which_rekeys_everything_by_secret_and_by_certificate() {
    for by in [By::Secret, By::Certificate] {
        pluto_steers(by);
    }
}

/// OpenIKED begins, and rekeys the child and the IKE SA when its lifetimes say so: ours are those of hours.
fn iked_steers(by: By) {
    let Some((west, east)) = pair(by, "active", "ikelifetime 40 lifetime 26") else { return };
    both_ways(&west, &east);
    let (children, first) = (west.spis(), east.ike());
    assert_eq!(first.len(), 1);
    iked_rekeys(&west, &east, || others(&west, &children));
    both_ways(&west, &east);
    // By then it has rekeyed the child again.
    iked_rekeys(&west, &east, || wait("its new IKE SA", || east.ike().len() == 1 && east.ike() != first));
    both_ways(&west, &east);
    // On that one, too, both have their say.
    let children = west.spis();
    unbroken(&west, &east, || {
        east.auto(&["--rekey", "west-east"]);
        others(&west, &children);
    });
    both_ways(&west, &east);
    // Ours ends it, and OpenIKED begins again when it is told to.
    let children = west.spis();
    east.auto(&["--down", "west-east"]);
    let gone = |gateway: &Gateway| !gateway.spis().iter().any(|spi| children.contains(spi));
    wait("an end", || gone(&west) && gone(&east.gateway));
    west.ikectl(&["reload"]);
    both_ways(&west, &east);
}

#[test]
fn openiked_begins_with_pluto_and_rekeys_everything_by_secret() {
    iked_steers(By::Secret);
}

#[test]
fn openiked_begins_with_pluto_and_rekeys_everything_by_certificate() {
    iked_steers(By::Certificate);
}
