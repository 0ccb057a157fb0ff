//! Every documented fault and behaviour of pf_key(7P) against the engine, in this process.

mod pfkey_cases;
mod pfkey_support;

use klips::SocketId;
use pfkey_cases::{IN, LARVA, SOCKETS, Transport, aging, introduction, run, setup};
use pfkey_support::*;

/// One service with one socket of every kind.
#[derive(Default)]
struct World {
    service: Service,
    sockets: Vec<(char, SocketId)>,
}

impl World {
    fn socket(&self, letter: char) -> SocketId {
        self.sockets.iter().find(|(l, _)| *l == letter).unwrap().1
    }
}

impl Transport for World {
    fn begin(&mut self, aged: bool) {
        *self = Self::default();
        let s = self.service.open();
        for message in setup() {
            self.service.must(s, message);
        }
        if aged {
            for message in aging() {
                self.service.must(s, message);
            }
            self.service.now = self.service.now.after(std::time::Duration::from_secs(1));
            self.service.control.expire(self.service.now);
            let told = self.service.hear(s);
            assert_eq!(told.iter().map(|h| h.kind).collect::<Vec<_>>(), [EXPIRE, EXPIRE], "{told:?}");
        }
        for letter in SOCKETS {
            let socket = if letter == 's' { s } else { self.service.open() };
            if let Some(message) = introduction(letter) {
                self.service.send(socket, message);
            }
            if letter == 'd' {
                self.service.control.set_loopback(socket, false);
            }
            self.sockets.push((letter, socket));
        }
        self.hear();
    }

    fn send(&mut self, from: char, octets: &[u8]) {
        self.service.control.request(self.socket(from), octets, self.service.now);
    }

    fn hear(&mut self) -> Vec<(char, Vec<Heard>)> {
        let sockets = self.sockets.clone();
        sockets.into_iter().map(|(letter, socket)| (letter, self.service.hear(socket))).collect()
    }
}

#[test]
fn the_service_answers_as_documented() {
    run(&mut World::default());
}

#[test]
fn a_short_record_is_refused_to_its_sender_and_an_empty_one_ignored() {
    let mut world = World::default();
    world.begin(false);
    for length in [1, 8, 15] {
        world.send('s', &msg(ADD, ESP).done()[..length]);
        for (letter, heard) in world.hear() {
            match letter {
                's' | 'p' => {
                    assert_eq!(heard.len(), 1, "{letter}");
                    assert_eq!((heard[0].errno, heard[0].diagnostic), (EMSGSIZE, 0));
                }
                _ => assert!(heard.is_empty(), "{letter}"),
            }
        }
    }
    world.send('s', &[]);
    assert!(world.hear().iter().all(|(_, heard)| heard.is_empty()));
}

#[test]
fn a_larval_partner_leaves_no_pair_when_either_of_the_two_goes() {
    let mut world = World::default();
    world.begin(false);
    let s = world.socket('s');
    let pair = |spi| get(ESP, spi, if spi == LARVA { LOCAL } else { PEER });
    // The one with a limit dies: the name waits on, alone.
    world.service.must(s, add_esp(0x777, LOCAL, PEER).lifetime(HARD, 0, 0, 2, 0).pair(LARVA));
    assert!(world.service.must(s, pair(LARVA)).find(PAIR).is_some());
    world.service.wait(2);
    world.hear();
    assert_eq!(world.service.must(s, pair(LARVA)).find(PAIR), None);
    // Nobody comes for the name: the other goes on alone.
    world.service.must(s, add_esp(0x778, LOCAL, PEER).pair(LARVA));
    world.service.wait(90);
    world.hear();
    assert_eq!(world.service.ask(s, pair(LARVA)).errno, ESRCH);
    assert_eq!(world.service.must(s, pair(0x778)).find(PAIR), None);
}

#[test]
fn a_flush_or_dump_beside_ones_own_dump_is_refused_and_the_dump_goes_on() {
    let mut world = World::default();
    world.begin(false);
    let (s, o) = (world.socket('s'), world.socket('o'));
    world.send('s', &msg(DUMP, ESP).seq(1).done());
    // Two are shown; then the reader asks for more than it can have.
    let mut dumped: Vec<Heard> =
        (0..2).map(|_| Heard::new(world.service.control.notice(s, world.service.now).unwrap())).collect();
    world.send('s', &msg(DUMP, AH).seq(2).done());
    world.send('s', &msg(FLUSH, ESP).seq(3).done());
    world.send('s', &msg(132, 0).seq(4).done());
    // Another reader is not held up by this one: pf_key(7P) has one DUMP at a time for all; a reader that stops would
    // keep everyone from FLUSH. One per socket is enough for what the rule is for.
    world.service.hear(o);
    world.service.must(o, get(ESP, IN, LOCAL));
    dumped.extend(world.service.hear(s));
    let refused: Vec<(u8, u32)> =
        dumped.iter().filter(|h| h.errno == ENOMEM).map(|h| (h.kind, h.seq)).collect();
    assert_eq!(refused, [(DUMP, 2), (FLUSH, 3), (132, 4)]);
    // All of ESP, as if nothing had been asked.
    let shown = dumped.iter().filter(|h| (h.kind, h.errno, h.seq) == (DUMP, 0, 1)).count();
    assert_eq!(shown, 7);
    assert_eq!(dumped.iter().filter(|h| (h.kind, h.errno, h.seq) == (DUMP, 0, 0)).count(), 1);
    assert_eq!(world.service.must(s, msg(FLUSH, ESP)).errno, 0);
}
