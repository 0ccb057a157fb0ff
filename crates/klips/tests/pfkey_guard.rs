//! What the PF_KEY service keeps to itself, and what no client can make it spend.

mod pfkey_support;

use klips::{Config, SocketId, SocketRow};
use pfkey_support::*;

fn row(service: &Service, socket: SocketId) -> SocketRow {
    service.control.sockets().find(|row| row.id == socket).expect("open")
}

/// A service whose sockets may leave this many octets unread.
fn with_limit(limit: usize) -> Service {
    let mut config = Config::new(EPOCH, random());
    config.receive_limit = limit;
    Service::new(config)
}

#[test]
fn keys_leave_in_get_and_dump_only_and_for_the_one_who_asked() {
    let mut service = Service::default();
    let [asking, registered, quiet] = [(); 3].map(|()| service.open());
    service.must(registered, msg(REGISTER, ESP));
    let add = add_esp(0x1001, LOCAL, PEER).lifetime(HARD, 0, 0, 60, 0);
    let key = Heard::new(add.clone().done()).find(EKEY).expect("key")[4..24].to_vec();
    let has_key = |heard: &Heard| heard.octets.windows(key.len()).any(|at| at == key);
    let mut heard = Vec::new();
    let update = msg(UPDATE, ESP).sa(0x1001).src(LOCAL).dst(PEER).lifetime(HARD, 0, 0, 90, 0);
    let requests = [
        add.clone(),
        add,
        update,
        get(ESP, 0x1001, PEER),
        msg(DUMP, ESP),
        msg(REGISTER, ESP),
        msg(DELETE, ESP).sa(0x1001).dst(PEER),
        add_esp(0x1002, LOCAL, PEER).lifetime(HARD, 0, 0, 60, 0),
        msg(FLUSH, ESP),
        add_esp(0x1003, LOCAL, PEER).lifetime(HARD, 0, 0, 60, 0),
    ];
    for request in requests {
        service.send(asking, request);
        for socket in [asking, registered, quiet] {
            heard.extend(service.hear(socket).into_iter().map(|heard| (socket, heard)));
        }
    }
    service.wait(120);
    for socket in [asking, registered, quiet] {
        heard.extend(service.hear(socket).into_iter().map(|heard| (socket, heard)));
    }
    let kinds = |socket| {
        heard.iter().filter(|(to, _)| *to == socket).map(|(_, heard)| heard.kind).collect::<Vec<_>>()
    };
    assert!(
        kinds(registered).contains(&EXPIRE) && kinds(quiet).contains(&ADD),
        "the others do hear something"
    );
    for kind in [GET, DUMP] {
        let told = |(to, heard): &(SocketId, Heard)| *to == asking && heard.kind == kind && has_key(heard);
        assert!(heard.iter().any(told), "message type {kind} answers with the key");
    }
    for (to, heard) in &heard {
        assert!(!has_key(heard) || [GET, DUMP].contains(&heard.kind) && *to == asking, "{to:?} {heard:?}");
    }
}

#[test]
fn a_promiscuous_socket_hears_keys_and_nothing_but_get_and_dump_has_them() {
    let mut service = Service::default();
    let [asking, listening] = [(); 2].map(|()| service.open());
    service.must(listening, msg(PROMISC, 1));
    service.must(asking, add_esp(0x1001, LOCAL, PEER));
    service.must(asking, get(ESP, 0x1001, PEER));
    service.send(asking, msg(DUMP, ESP));
    service.hear(asking);
    service.must(asking, msg(DELETE, ESP).sa(0x1001).dst(PEER));
    let heard = service.hear(listening);
    let all: Vec<(u8, bool)> = heard.iter().map(|h| (h.kind, h.find(EKEY).is_some())).collect();
    assert_eq!(all, [(ADD, false), (GET, true), (DUMP, true), (DUMP, false), (DELETE, false)]);
}

#[test]
fn a_flood_fills_one_queue_to_its_limit_and_nobody_elses() {
    let mut service = with_limit(4096);
    let [flooding, deaf] = [(); 2].map(|()| service.open());
    for n in 0..5000 {
        // Refusals of DELETE are for everybody to hear.
        let heard = service.ask(flooding, msg(DELETE, ESP).seq(n).sa(0x7777).dst(PEER));
        assert_eq!((heard.errno, heard.seq), (ESRCH, n));
    }
    let full = row(&service, deaf);
    assert!(full.queued <= 4096, "{full:?}");
    assert!(full.dropped > 4000, "{full:?}");
    assert_eq!((row(&service, flooding).dropped, row(&service, flooding).queued), (0, 0));
    assert!(!service.hear(deaf).is_empty());
    assert_eq!(row(&service, deaf).queued, 0);
}

#[test]
fn a_dump_waits_for_its_reader_in_no_more_memory_than_the_limit() {
    let mut service = with_limit(4096);
    let [reader, other] = [(); 2].map(|()| service.open());
    let number = 2000;
    for spi in 0..number {
        service.must(other, add_esp(0x1000 + spi, LOCAL, PEER));
        service.hear(reader);
    }
    service.send(reader, msg(DUMP, ESP));
    let mut spis = Vec::new();
    while let Some(octets) = service.control.notice(reader, service.now) {
        let heard = Heard::new(octets);
        assert!(row(&service, reader).queued <= 4096);
        spis.extend(heard.spi());
        // Whoever else asks is served in between.
        service.must(other, get(ESP, 0x1000, PEER));
    }
    spis.sort_unstable();
    let all: Vec<u32> = (0..number).map(|spi| 0x1000 + spi).collect();
    assert_eq!(spis, all);
    assert_eq!(row(&service, reader).dropped, 0);
}

/// Of what no socket could be told nothing is kept.
#[test]
fn an_sa_too_large_to_be_shown_is_refused() {
    let mut service = with_limit(1 << 20);
    let s = service.open();
    let named = |src: usize, dst: usize| {
        let ident = |m: Msg, kind, len: usize| m.ident(kind, 2, &"x".repeat(len));
        ident(ident(add_esp(0x1001, LOCAL, PEER), ID_SRC, src), ID_DST, dst)
    };
    for (src, dst) in [(500_000, 0), (0, 500_000), (70_000, 70_000), ((128 << 10) + 1, 0)] {
        let heard = service.ask(s, named(src, dst));
        assert_eq!((heard.errno, heard.diagnostic, heard.octets.len()), (EMSGSIZE, 0, 16), "{src} {dst}");
        assert_eq!(service.control.sa_count(), 0);
    }
    // A larval SA does not become one either.
    service.must(s, msg(GETSPI, ESP).src(LOCAL).dst(PEER).range(0x1001, 0x1001));
    let mut update = named(200_000, 200_000);
    update.octets[1] = UPDATE;
    assert_eq!(service.ask(s, update).errno, EMSGSIZE);
    // What is just not too large is shown, all of it.
    service.must(s, named(64 << 10, 64 << 10));
    let shown = service.must(s, get(ESP, 0x1001, PEER));
    assert!(shown.octets.len() < (128 << 10) + 1024, "{}", shown.octets.len());
    assert!(shown.find(ID_DST).is_some_and(|body| body.len() > 64 << 10) && shown.find(EKEY).is_some());
    let dump = {
        service.send(s, msg(DUMP, ESP));
        service.hear(s)
    };
    assert_eq!(dump.len(), 2, "the SA and the end");
    // Where less may wait for a socket, less is taken.
    let mut service = with_limit(64 << 10);
    let s = service.open();
    assert_eq!(service.ask(s, named(63 << 10, 1)).errno, EMSGSIZE);
    service.must(s, named(62 << 10, 1));
}

/// A replay value may only take the numbers of an SA on, whichever of a pair it reaches.
#[test]
fn a_replay_value_takes_neither_of_a_pair_back() {
    const INBOUND: u32 = 0x1001;
    const OUTBOUND: u32 = 0x2001;
    let mut service = Service::default();
    let s = service.open();
    let aging = |m: Msg, secs| m.lifetime(SOFT, 0, 0, secs, 0);
    service.must(s, aging(add_esp(INBOUND, PEER, LOCAL), 1));
    service.must(s, aging(add_esp(OUTBOUND, LOCAL, PEER), 10).pair(INBOUND));
    let update = |value| msg(UPDATEPAIR, ESP).sa(INBOUND).src(PEER).dst(LOCAL).replay(value, 0);
    let errors = |heard: &Heard| (heard.errno, heard.diagnostic);
    service.wait(5);
    service.hear(s);
    // The one named may have one by now, its partner not yet.
    assert_eq!(errors(&service.ask(s, update(50))), (EINVAL, 43));
    service.wait(10);
    service.hear(s);
    let sa = |service: &Service, spi, dst: &str| {
        let id = format!("esp{spi:#x}@{dst}").parse().unwrap();
        service.plane.sa(&id).unwrap()
    };
    let (inbound, outbound) = (sa(&service, INBOUND, LOCAL), sa(&service, OUTBOUND, PEER));
    outbound.continue_after(100);
    for (value, sent, received) in [(50, 100, 0), (99, 100, 0)] {
        assert_eq!(errors(&service.ask(s, update(value))), (EINVAL, 81), "{value}");
        assert_eq!((outbound.sent(), inbound.received()), (sent, received), "nothing has changed");
    }
    service.must(s, update(150));
    assert_eq!((outbound.sent(), inbound.received()), (150, 150));
    // And the one that receives: what was received before would be taken again.
    inbound.received_up_to(200);
    assert_eq!(errors(&service.ask(s, update(160))), (EINVAL, 81));
    assert_eq!((outbound.sent(), inbound.received()), (150, 200));
}
