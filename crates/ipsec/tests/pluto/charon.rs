//! With strongSwan, as Debian has it, in the place of east; ESP by its own user-space implementation.

use super::{Gateway, Inside, SECRET, passes, scene, stream, wait};
use crate::skipped::skipped;
use ipsec::host::netns::Namespace;

#[path = "../support/charon.rs"]
mod program;

pub(super) use program::root;
pub(crate) use program::{Charon, Children, is_there};

impl Charon {
    pub(crate) fn inside(&self) -> Inside<'_> {
        (&self.namespace, [10, 2, 0, 1].into())
    }
}

/// Ours in the west, charon in the east; `None` where there is no charon.
pub(super) fn pair(
    (ike, esp): (&str, &str),
    ours: &str,
    theirs: &str,
    children: &Children,
) -> Option<(Gateway, Charon, Namespace)> {
    if !is_there() {
        return None;
    }
    let [left, router, right] = scene()?;
    let conn = format!("{}\tauto=add\n\tike={ike}\n\tesp={esp}\n{ours}", super::CONN);
    let mut west = Gateway::new(left, "10.1.0.1", &conn, SECRET);
    west.start_klips();
    west.start_pluto();
    Some((west, Charon::start_with(right, ike, esp, theirs, children), router))
}

pub(crate) fn both_ways(west: &Gateway, east: &Charon) {
    let ours = (&west.namespace, west.inside);
    passes(ours, east.inside());
    passes(east.inside(), ours);
}

/// One of the two brings the tunnel up.
pub(super) fn begin(west: &Gateway, east: &Charon, we_begin: bool) {
    if we_begin {
        west.done(&["auto", "--up", "west-east"]);
    } else {
        east.done(&["--initiate", "--child", "net", "--timeout", "20"]);
        wait("up", || west.state() == "up");
    }
    both_ways(west, east);
}

/// Numbered datagrams in both directions while `change` is made. None may be lost, but by the queues in front of a charon that does
/// not run for a while: they hold some 270.
pub(super) fn unbroken(west: &Gateway, east: &Charon, change: impl FnOnce()) {
    let overrun = || stream::overruns(west.inside()) + stream::overruns(east.inside());
    let (before, mut back) = (overrun(), None);
    let there = stream::during(west.inside(), east.inside(), || {
        back = Some(stream::during(east.inside(), west.inside(), change));
    });
    let overrun = overrun().saturating_sub(before);
    for (way, (sent, lost)) in [("to strongSwan", there), ("from it", back.expect("a stream"))] {
        assert!(
            sent > 20 && lost.len() as u64 <= overrun,
            "{way}: of {sent} lost {lost:?}, {overrun} by queues; {:?}",
            west.discards()
        );
    }
}

/// The child and the IKE SA are rekeyed at the word of either side, and neither direction loses a datagram.
pub(super) fn rekeyed_by_both(west: &Gateway, east: &Charon) {
    for we_ask in [true, false] {
        let before = west.spis();
        unbroken(west, east, || {
            if we_ask {
                west.done(&["auto", "--rekey", "west-east"]);
            } else {
                east.done(&["--rekey", "--child", "net"]);
            }
            wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
        });
        let before = west.ike_sas();
        unbroken(west, east, || {
            if we_ask {
                west.done(&["auto", "--rekey", "--ike", "west-east"]);
            } else {
                east.done(&["--rekey", "--ike", "peer"]);
            }
            wait("another IKE SA", || west.ike_sas().len() == 1 && west.ike_sas() != before);
        });
    }
}

#[test]
fn whoever_begins_with_strongswan_and_whoever_rekeys_what_no_datagram_is_lost() {
    for (ike, esp) in [
        ("aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519-noesn"),
        ("aes128-sha256-modp2048", "aes128-sha256-modp2048-noesn"),
        ("chacha20poly1305-prfsha512-ecp384", "chacha20poly1305-ecp384-noesn"),
        ("aes256gcm16-prfsha384-ecp256", "aes256gcm16-ecp256-noesn"),
    ] {
        for we_begin in [true, false] {
            let Some((west, east, _router)) = pair((ike, esp), "", "fragmentation = force", &Children::NETS)
            else {
                return;
            };
            begin(&west, &east, we_begin);
            rekeyed_by_both(&west, &east);
            both_ways(&west, &east);
            if we_begin {
                west.done(&["auto", "--down", "west-east"]);
                wait("charon to forget it", || !east.done(&["--list-sas"]).contains("ESTABLISHED"));
            } else {
                east.done(&["--terminate", "--ike", "peer", "--timeout", "20"]);
                wait("down", || west.spis().is_empty());
            }
        }
    }
}

#[test]
fn strongswans_refusals_are_said_in_words_that_help() {
    let ike = "aes256gcm16-prfsha256-x25519";
    let Some((west, _east, _router)) =
        pair((ike, "aes256gcm16-noesn"), "\tkeyingtries=1\n\tleftsubnet=10.7.0.0/24\n", "", &Children::NETS)
    else {
        return;
    };
    let output = west.ipsec(&["auto", "--up", "west-east"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("leftsubnet="), "{said}");
}

/// With ML-KEM, which needs strongSwan 6: `TULIPS_STRONGSWAN_ROOT=DIR`, a root directory of a Debian that has it.
#[test]
fn strongswan_6_and_we_exchange_keys_with_ml_kem_in_ike_and_child_whoever_begins() {
    if root().is_none() {
        skipped(
            "ML-KEM with strongSwan 6 (cargo xtask test --newer, or TULIPS_STRONGSWAN_ROOT: the root of a Debian that has it)",
        );
        return;
    }
    // Beside a group, several of them, and alone; as strongSwan writes them in its log.
    for (words, theirs) in [
        ("x25519-ke1_mlkem768", "CURVE_25519/KE1_ML_KEM_768"),
        ("ecp384-ke1_mlkem1024", "ECP_384/KE1_ML_KEM_1024"),
        ("x25519-ke1_mlkem512-ke2_mlkem1024", "CURVE_25519/KE1_ML_KEM_512/KE2_ML_KEM_1024"),
        ("mlkem768", "ML_KEM_768"),
    ] {
        let (ike, esp) = (format!("aes256gcm16-prfsha384-{words}"), format!("aes256gcm16-{words}-noesn"));
        for we_begin in [true, false] {
            let Some((west, east, _router)) = pair((&ike, &esp), "", "", &Children::NETS) else { return };
            begin(&west, &east, we_begin);
            let said = || west.status()["ike_sas"][0]["algorithms"].as_str().unwrap_or_default().to_owned();
            assert!(said().ends_with(words), "{}", said());
            // With IKE_FOLLOWUP_KE where several are agreed on.
            rekeyed_by_both(&west, &east);
            assert!(said().ends_with(words), "{}", said());
            // Once in the beginning and twice anew for the IKE SA; twice for the child, whose first keys are the IKE SA's.
            let chosen = |what: &str| {
                let said = format!("selected proposal: {what}");
                let log = east.log();
                let all = |line: &&str| theirs.split('/').all(|method| line.contains(method));
                log.lines().filter(|line| line.contains(&said)).filter(all).count()
            };
            assert_eq!((chosen("IKE:"), chosen("ESP:")), (3, 2), "{words}");
        }
    }
}
