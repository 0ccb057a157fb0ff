//! What a connection has carried, through rekeyings, restarts and deaths: as a monitoring server adds it up.

use crate::operate::metric;
use crate::{CONN, Gateway, SECRET, both, crosses, pair, unbroken, wait};
use serde_json::Value;
use std::net::UdpSocket;

/// An inner packet of [`unbroken`]: an IPv4 header, a UDP header, four octets.
const OCTETS: u64 = 32;

/// One counter as Prometheus sees it: what is less than before has begun anew.
#[derive(Default)]
struct Counter {
    last: u64,
    increase: u64,
    resets: u32,
}

impl Counter {
    fn take(&mut self, value: u64) {
        self.resets += u32::from(value < self.last);
        self.increase += if value < self.last { value } else { value - self.last };
        self.last = value;
    }

    /// Scrapes once.
    fn scrape(&mut self, gateway: &Gateway, name: &str, direction: &str) {
        if let Some(value) = scraped(gateway, name, direction) {
            self.take(value);
        }
    }
}

fn scraped(gateway: &Gateway, name: &str, direction: &str) -> Option<u64> {
    let line = format!("ipsec_connection_{name}_total{{connection=\"west-east\",direction=\"{direction}\"}}");
    metric(&gateway.done(&["metrics"]), &line).map(|value| value as u64)
}

/// Octets and packets by `ipsec auto --status --json`.
fn shown(gateway: &Gateway, direction: &str) -> Option<(u64, u64)> {
    let traffic: Value = gateway.connection()["traffic"].clone();
    Some((traffic["bytes"][direction].as_u64()?, traffic["packets"][direction].as_u64()?))
}

#[test]
fn a_rekeying_takes_nothing_from_what_was_carried_and_all_say_the_same() {
    let Some((west, east, _router)) = both() else { return };
    west.done(&["auto", "--up", "west-east"]);
    crosses(&west, &east);
    let before = scraped(&west, "packets", "out").expect("a line");
    let (mut bytes, mut packets, mut received) = (Counter::default(), Counter::default(), Counter::default());
    let mut scrape = || {
        bytes.scrape(&west, "bytes", "out");
        packets.scrape(&west, "packets", "out");
        received.scrape(&east, "packets", "in");
    };
    scrape();
    let sent: u32 = [(&west, false), (&east, false), (&west, true), (&east, false)]
        .into_iter()
        .map(|(side, ike)| {
            let spis = west.spis();
            unbroken(&west, &east, || {
                if ike {
                    side.done(&["auto", "--rekey", "--ike", "west-east"]);
                } else {
                    side.done(&["auto", "--rekey", "west-east"]);
                    wait("new SAs", || {
                        scrape();
                        west.spis().len() == 1 && west.spis() != spis
                    });
                }
            })
        })
        .sum();
    let all = before + u64::from(sent);
    // What was replaced is still there for some seconds, and goes.
    let lingering = || !west.connection()["lingering"].as_array().expect("a list").is_empty();
    assert!(lingering());
    for gone in [false, true] {
        wait("the old pairs to be there or gone", || lingering() != gone);
        scrape();
        for (gateway, direction) in [(&west, "out"), (&east, "in")] {
            let seen = shown(gateway, direction).expect("traffic");
            assert_eq!(seen.1, all, "{direction}: {}", gateway.connection());
            assert_eq!(Some(seen.1), scraped(gateway, "packets", direction));
            assert_eq!(Some(seen.0), scraped(gateway, "bytes", direction));
        }
    }
    let text = west.done(&["auto", "--status"]);
    assert!(text.contains(&format!("octets in {all} packets")), "{text}");
    assert_eq!((bytes.resets, packets.resets, received.resets), (0, 0, 0));
    assert_eq!((packets.last, received.last), (all, all));
    assert_eq!(bytes.increase % OCTETS, bytes.last % OCTETS);
    let (octets, _) = shown(&west, "out").expect("traffic");
    // The first ones had five octets.
    assert_eq!(octets, u64::from(sent) * OCTETS + before * (OCTETS + 1));

    // Down it is no less, and up again no more.
    west.done(&["auto", "--down", "west-east"]);
    wait("down", || west.spis().is_empty());
    assert_eq!(shown(&west, "out").map(|(_, packets)| packets), Some(all));
    west.done(&["auto", "--up", "west-east"]);
    assert_eq!(shown(&west, "out").map(|(_, packets)| packets), Some(all));
    let more = unbroken(&west, &east, || {});
    assert_eq!(scraped(&west, "packets", "out"), Some(all + u64::from(more)));
}

#[test]
fn whichever_daemon_is_killed_nothing_is_counted_twice() {
    let conn = format!("{CONN}\tauto=start\n");
    let Some((mut west, east, _router)) = pair((&conn, SECRET), (&conn, SECRET)) else { return };
    wait("up", || west.state() == "up" && east.state() == "up");
    let sender =
        west.namespace.run(|| UdpSocket::bind((west.inside, 0))).expect("namespace").expect("socket");
    let mut seen = Counter::default();
    let mut given = 0;
    let send = |given: &mut u64, many: u32| {
        for _ in 0..many {
            // While there is no route it is not taken, and is not sent either.
            *given += u64::from(sender.send_to(b"hello", (east.inside, 7779)).is_ok());
        }
    };
    // Much before each death and little after it: what is counted twice shows.
    for daemon in ["pluto", "klips", "pluto", "klips"] {
        wait("packets", || {
            // Not more at once than the device keeps for klips.
            send(&mut given, 200);
            scraped(&west, "packets", "out").is_some_and(|now| now >= 1000)
        });
        seen.scrape(&west, "packets", "out");
        west.done(&["auto", "--rekey", "west-east"]);
        wait("a sum", || {
            west.connection()["gone"]["packets"]["out"].as_u64() >= Some(1000) || {
                seen.scrape(&west, "packets", "out");
                false
            }
        });
        if daemon == "pluto" {
            west.kill(&west.rundir.pluto_pid().clone());
            assert_eq!(scraped(&west, "packets", "out"), None);
            west.start_pluto();
        } else {
            west.kill(&west.rundir.klips_pid().clone());
            assert_eq!(scraped(&west, "packets", "out"), None);
            seen.scrape(&west, "packets", "out");
            west.start_klips();
        }
        wait("up again", || {
            seen.scrape(&west, "packets", "out");
            west.state() == "up"
        });
        wait("packets", || {
            send(&mut given, 3);
            seen.scrape(&west, "packets", "out");
            seen.last > 0
        });
        assert!(seen.last < 1000, "{}", seen.last);
        assert!(seen.increase <= given, "{} of {given}", seen.increase);
    }
    assert_eq!(seen.resets, 4);
    assert!(seen.increase >= 4000, "{} of {given}", seen.increase);
}
