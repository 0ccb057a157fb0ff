//! What takes time, or more than one reader: EXPIRE, lost notices, a DUMP that nobody reads.

use crate::pfkey_cases::Transport;
use crate::pfkey_support::*;
use crate::seven::Talk as _;
use crate::wire::{Daemon, Socket, loopback};

#[test]
fn every_limit_is_told_to_everyone_once() {
    let Some(mut daemon) = Daemon::start() else { return };
    daemon.begin(false);
    let limited = add_esp(0xeeee, PEER, LOCAL).kmc(3, 77).inner("10.1.0.0/16", "10.2.0.0/16");
    let limited = limited.lifetime(SOFT, 0, 0, 1, 0).lifetime(HARD, 0, 0, 2, 0);
    daemon.socket('s').must(limited);
    daemon.socket('s').must(add_esp(0xffff, PEER, LOCAL).lifetime(IDLE, 0, 0, 1, 0));
    let (mut soft, mut hard, mut idle) = (None, None, None);
    while soft.is_none() || hard.is_none() || idle.is_none() {
        let heard = daemon.socket('o').receive();
        if heard.kind != EXPIRE {
            continue;
        }
        assert_eq!((heard.errno, heard.satype, heard.seq, heard.pid), (0, ESP, 0, 0), "{heard:?}");
        let slot = match heard.state() {
            Some(DYING) => &mut soft,
            Some(DEAD) => &mut hard,
            Some(MATURE) => &mut idle,
            other => panic!("state {other:?}"),
        };
        *slot = Some((heard.spi().expect("SPI"), heard.kinds(), heard.life(HARD), heard.life(SOFT)));
    }
    let soft = soft.expect("soft");
    assert_eq!((soft.0, soft.3), (0xeeee, Some((0, 0, 1, 0))));
    assert_eq!(soft.1, [SA, CURRENT, SOFT, SRC, DST, KMC]);
    let hard = hard.expect("hard");
    assert_eq!((hard.0, hard.2), (0xeeee, Some((0, 0, 2, 0))));
    assert_eq!(hard.1, [SA, CURRENT, HARD, SRC, DST, KMC]);
    let idle = idle.expect("idle");
    assert_eq!((idle.0, idle.1), (0xffff, vec![SA, CURRENT, IDLE, SRC, DST, KMC]));
    for (letter, heard) in daemon.hear() {
        let told = |kind| heard.iter().filter(|h| h.kind == EXPIRE && h.find(kind).is_some()).count();
        // One has been read already, one hears nothing.
        let times = usize::from(!['o', 'd'].contains(&letter));
        assert_eq!((told(SOFT), told(HARD)), (times, times), "{letter}");
        assert!(told(IDLE) >= times, "{letter}");
    }
    // The dead one is seen for a second; then its name is free.
    let s = daemon.socket('s');
    loop {
        let heard = s.ask(get(ESP, 0xeeee, LOCAL));
        if heard.errno != 0 {
            assert_eq!((heard.errno, heard.diagnostic), (ESRCH, 78));
            break;
        }
        assert_eq!(heard.state(), Some(DEAD));
    }
    s.must(add_esp(0xeeee, PEER, LOCAL));
    daemon.stop();
}

/// A message everyone hears, of some size.
fn loud(seq: u32) -> Msg {
    msg(DELETE, AH).dst("203.0.113.99").ident(ID_SRC, 2, &"x".repeat(50_000)).seq(seq)
}

#[test]
fn what_a_socket_does_not_read_is_lost_to_it_alone_and_counted() {
    let Some(daemon) = Daemon::start() else { return };
    let (s, slow) = (Socket::open(&daemon.host), Socket::open(&daemon.host));
    slow.until_fence();
    let count = 100;
    for seq in 1..=count {
        // Whoever reads misses nothing.
        assert_eq!(s.must(loud(seq)).seq, seq);
    }
    let table = daemon.host.ipsec(&["pf_key", "--json"]).out;
    let rows: serde_json::Value = serde_json::from_str(&table).expect("json");
    let dropped = |row: &serde_json::Value| row["dropped"].as_u64().expect("dropped");
    let all: Vec<u64> = rows.as_array().expect("rows").iter().map(dropped).collect();
    let lost: u64 = all.iter().sum();
    assert!(lost > 0, "{table}");
    assert_eq!(all.iter().filter(|n| **n != 0).count(), 1, "{table}");
    // What is left comes in its order, and is what was not lost.
    let left: Vec<u32> = slow.until_fence().iter().map(|heard| heard.seq).collect();
    assert!(left.is_sorted(), "{left:?}");
    assert_eq!(left.len() as u64 + lost, u64::from(count), "{left:?}");
    s.must(loud(999));
    assert_eq!(slow.until_fence().iter().map(|heard| heard.seq).collect::<Vec<_>>(), [999]);
    drop((s, slow));
    daemon.stop();
}

#[test]
fn a_dump_that_nobody_reads_keeps_nobody_waiting_and_loses_nothing() {
    let Some(daemon) = Daemon::start() else { return };
    let (s, other) = (Socket::open(&daemon.host), Socket::open(&daemon.host));
    other.must(loopback(true));
    let count = 3000;
    for spi in 1..=count {
        s.must(add_esp(spi, PEER, LOCAL));
    }
    other.until_fence();
    s.send(&msg(DUMP, ESP).seq(5).done());
    // The reader sleeps; all others go on.
    assert_eq!(other.must(get(ESP, 17, LOCAL)).spi(), Some(17));
    other.must(add_esp(count + 1, PEER, LOCAL));
    other.send(&msg(DUMP, ESP).seq(6).done());
    let read = |socket: &Socket, seq: u32| {
        let mut spis = Vec::new();
        loop {
            let heard = socket.receive();
            match (heard.kind, heard.seq) {
                (DUMP, 0) => {
                    assert_eq!((heard.errno, heard.octets.len()), (0, 16));
                    return spis;
                }
                (DUMP, other) => {
                    assert_eq!((other, heard.find(EKEY).is_some()), (seq, true));
                    spis.push(heard.spi().expect("SPI"));
                }
                _ => assert_eq!(heard.kind, ADD),
            }
        }
    };
    let whole: Vec<u32> = (1..=count + 1).collect();
    let mut seen = read(&other, 6);
    seen.sort_unstable();
    assert_eq!(seen, whole);
    // What was there when it began is there; what came meanwhile may be.
    let mut seen = read(&s, 5);
    seen.sort_unstable();
    assert_eq!(seen[..whole.len() - 1], whole[..whole.len() - 1]);
    drop((s, other));
    daemon.stop();
}
