//! A tunnel with strongSwan and what befalls it: proofs anew, a NAT that forgets, a flood, a crash, and what does not meet; by the word of
//! either side.

use super::charon::{self, Charon, Children, begin, both_ways, rekeyed_by_both, unbroken};
use super::flood::Flood;
use super::moves::renumber;
use super::{Gateway, masquerades_at, wait};
use ipsec::host::netns::Namespace;
use std::time::Duration;

const IKE: &str = "aes256gcm16-prfsha256-x25519";
const ESP: &str = "aes256gcm16-x25519-noesn";

/// With what ours and theirs have beside the usual.
fn pair(ours: &str, theirs: &str, children: &Children) -> Option<(Gateway, Charon, Namespace)> {
    charon::pair((IKE, ESP), ours, theirs, children)
}

/// The first keys of a child are the IKE SA's, so that groups which do not meet are found by the first rekeying.
#[test]
fn a_rekeying_whose_group_the_other_does_not_have_is_refused_in_words_and_the_tunnel_goes_on() {
    for we_begin in [true, false] {
        let children = Children::NETS;
        let Some((west, east, _router)) = pair("\tesp=aes256gcm16-ecp384\n", "", &children) else { return };
        begin(&west, &east, we_begin);
        let before = west.spis();
        unbroken(&west, &east, || {
            west.done(&["auto", "--rekey", "west-east"]);
            wait("its refusal", || west.said().contains("NO_PROPOSAL_CHOSEN"));
            east.swanctl(&["--rekey", "--child", "net"]);
            wait("our refusal", || east.log().contains("received NO_PROPOSAL_CHOSEN"));
        });
        let said = west.said();
        assert!(said.contains("ecp384") && said.contains("x25519") && said.contains("esp="), "{said}");
        assert_eq!(west.spis(), before);
    }
}

#[test]
fn who_we_are_is_proved_anew_at_the_word_of_either_and_no_packet_is_lost() {
    let ours = "\tikelifetime=20s\n\trekeymargin=14s\n\trekeyfuzz=0%\n\treauth=yes\n";
    let theirs = "reauth_time = 6s\n  over_time = 10s\n  rand_time = 0s";
    let daemon = "make_before_break = yes";
    for (we_begin, ours, theirs) in [(true, ours, ""), (false, "", theirs)] {
        let Some((west, east, _router)) = pair(ours, theirs, &Children { daemon, ..Children::NETS }) else {
            return;
        };
        begin(&west, &east, we_begin);
        let (before, first) = (west.ike_sas(), west.spis());
        unbroken(&west, &east, || {
            wait("another IKE SA", || west.ike_sas().len() == 1 && west.ike_sas() != before);
            wait("another pair", || west.spis().len() == 1 && west.spis() != first);
        });
        both_ways(&west, &east);
        let said = west.said();
        assert!(said.matches("IKE SA established with @east").count() >= 2, "{said}");
    }
}

#[test]
fn a_strongswan_that_crashes_is_noticed_and_had_back() {
    let conn = "\tdpddelay=1s\n\tretransmit-timeout=2s\n\tdpdaction=restart\n";
    let Some((west, mut east, _router)) = pair(conn, "", &Children::NETS) else { return };
    begin(&west, &east, true);
    let before = west.spis();
    east.kill();
    wait("its silence to be said", || west.said().contains("no answer from 198.51.100.7"));
    assert!(!west.spis().iter().any(|spi| before.contains(spi)));
    east.restart();
    wait("up again", || west.state() == "up");
    both_ways(&west, &east);
}

#[test]
fn strongswan_notices_that_we_crashed_and_has_us_back() {
    let children = Children { daemon: "retransmit_tries = 2\n  retransmit_timeout = 0.5", ..Children::NETS };
    let Some((mut west, east, _router)) = pair("", "dpd_delay = 1s", &children) else { return };
    begin(&west, &east, false);
    for pid in [west.rundir.pluto_pid(), west.rundir.klips_pid()] {
        west.kill(&pid);
    }
    wait("charon to forget us", || !east.done(&["--list-sas"]).contains("ESTABLISHED"));
    west.start_klips();
    west.start_pluto();
    begin(&west, &east, false);
}

/// The router masquerades whoever begins, and in the middle of it has another address: what it kept of the streams is void.
#[test]
fn a_nat_that_forgets_is_followed_whichever_side_is_behind_it() {
    for we_begin in [true, false] {
        // Who is behind the NAT asks after the other, and an authentic packet from another port says where it is now.
        let ours = if we_begin { "\tdpddelay=1s\n" } else { "\tright=%any\n" };
        let theirs = if we_begin { "remote_addrs = %any" } else { "dpd_delay = 1s" };
        let Some((west, east, router)) = pair(ours, theirs, &Children::NETS) else { return };
        let (port, old, new) = if we_begin {
            ("eth2", "198.51.100.254", "198.51.100.253")
        } else {
            ("eth1", "192.0.2.254", "192.0.2.253")
        };
        if !masquerades_at(&router, port) {
            return;
        }
        begin(&west, &east, we_begin);
        let seen = || if we_begin { east.done(&["--list-sas"]) } else { west.status().to_string() };
        assert!(seen().contains(old), "{}", seen());
        renumber(&router, port, old, new);
        wait("its new address", || seen().contains(new) && !seen().contains(old));
        both_ways(&west, &east);
    }
}

/// Whoever is flooded asks for cookies, and for another group than the first: the other brings both and is let in.
#[test]
fn a_flood_keeps_neither_from_the_other() {
    const TWO: &str = "aes256gcm16-prfsha256-ecp384,aes256gcm16-prfsha256-x25519";
    for we_begin in [true, false] {
        let (ours, theirs) = if we_begin {
            (format!("\tike={TWO}\n"), "remote_addrs = %any".to_owned())
        } else {
            ("\tright=%any\n".to_owned(), format!("proposals = {TWO}"))
        };
        let children = Children { daemon: "cookie_threshold = 5", ..Children::NETS };
        let Some((west, east, router)) = pair(&ours, &theirs, &children) else { return };
        let flood = Flood::start(&router, if we_begin { "198.51.100.7" } else { "192.0.2.1" });
        // Before it has an effect nothing is asked of anybody.
        std::thread::sleep(Duration::from_secs(1));
        begin(&west, &east, we_begin);
        // Strangers bring none, and it has nobody else to ask.
        let asked =
            if we_begin { "IKE_SA_INIT request 0 [ N(COOKIE)" } else { "IKE_SA_INIT response 0 [ N(COOKIE)" };
        assert!(east.log().contains(asked), "no cookie was asked for");
        assert!(east.log().contains("N(INVAL_KE)"), "no other group was asked for");
        // What is up is rekeyed in it, and loses nothing.
        unbroken(&west, &east, || {
            let before = west.spis();
            west.done(&["auto", "--rekey", "west-east"]);
            wait("new SAs", || west.spis().len() == 1 && west.spis() != before);
        });
        drop(flood);
    }
}

/// Each side has more, and less, than the other: what both have is agreed on, whoever asks.
#[test]
fn subnets_are_narrowed_to_what_both_have() {
    for (ours, theirs) in [("10.2.0.0/16", "10.2.0.0/24"), ("10.2.0.0/24", "10.0.0.0/8")] {
        for we_begin in [true, false] {
            let children = Children { local_ts: theirs, ..Children::NETS };
            let Some((west, east, _router)) = pair(&format!("\trightsubnet={ours}\n"), "", &children) else {
                return;
            };
            begin(&west, &east, we_begin);
            let eroutes = west.done(&["eroute"]);
            let leads = |row: &&str| row.contains("10.2.0.0/24") && row.contains("esp");
            assert_eq!(eroutes.lines().filter(leads).count(), 1, "{eroutes}");
            let list = east.done(&["--list-sas"]);
            assert!(list.contains("local  10.2.0.0/24") && list.contains("remote 10.1.0.0/24"), "{list}");
            // And so when it is rekeyed.
            rekeyed_by_both(&west, &east);
            assert_eq!(west.done(&["eroute"]).lines().filter(leads).count(), 1);
        }
    }
}
