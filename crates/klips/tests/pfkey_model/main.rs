//! Random conversations with the PF_KEY service, against a model that is too simple to be wrong.
//!
//! Five sockets say anything they like about a handful of SAs while time passes. After every message each socket must
//! have heard exactly what the model says: errno, diagnostic, extensions and their order, keys in GET and DUMP only. DUMPs
//! show that both know the same SAs.

mod model;
#[path = "../pfkey_support/mod.rs"]
mod pfkey_support;

use klips::SocketId;
use model::{Ask, Model};
use pfkey_support::*;
use proptest::prelude::*;

/// One thing that happens, as numbers: they shrink well.
#[derive(Clone, Debug)]
struct Step {
    what: u8,
    who: usize,
    esp: bool,
    spi: u32,
    src: usize,
    dst: usize,
    faults: [u8; 2],
    hard: u64,
    soft: u64,
    km: (u32, u64),
    pair: u32,
    bits: u8,
    /// Which of the SAs that are there; from 200 on none in particular.
    aim: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = || prop_oneof![4 => Just(0_usize), 4 => Just(1), 1 => Just(2)];
    let names = (0..24_u8, 0..5_usize, any::<bool>(), 1..4_u32, end(), end());
    // Most messages are good ones, or nothing would ever be there.
    let fault = || prop_oneof![5 => Just(0_u8), 2 => 1..15_u8];
    let rest =
        ([fault(), fault()], 0..5_u64, 0..8_u64, (0..4_u32, 0..3_u64), 0..5_u32, any::<u8>(), 0..256_usize);
    let step = (names, rest).prop_map(|((what, who, esp, spi, src, dst), rest)| {
        let (faults, hard, soft, km, pair, bits, aim) = rest;
        Step { what, who, esp, spi, src, dst, faults, hard, soft, km, pair, bits, aim }
    });
    prop::collection::vec(step, 1..60)
}

const ENDS: [&str; 3] = [LOCAL, PEER, "203.0.113.7"];

impl Step {
    /// Most messages are about something that is there, or next to it.
    fn aimed(&self, kind: u8, model: &Model) -> Self {
        let mut step = self.clone();
        // A pair is asked for now and then, mostly with one that could be it.
        step.pair = if self.bits.is_multiple_of(2) { self.pair } else { 0 };
        let names = model.names();
        if names.is_empty() || self.aim >= 200 {
            return step;
        }
        let (satype, src, dst, spi) = names[self.aim % names.len()];
        let end = |ip| ENDS.iter().position(|end| *end == ip).unwrap();
        step.esp = satype == ESP;
        if [ADD, GETSPI].contains(&kind) {
            (step.src, step.dst) = (end(dst), end(src));
            step.pair = if step.pair > 1 { spi } else { step.pair };
        } else {
            (step.src, step.dst, step.spi) = (end(src), end(dst), spi);
            let other =
                names.iter().find(|n| (n.0, n.1, n.2) == (satype, dst, src)).filter(|_| step.pair > 1);
            step.pair = other.map_or(step.pair, |other| other.3);
        }
        step
    }
}

/// A request about an SA, good but for its faults.
fn ask(step: &Step, kind: u8, larval: bool) -> Ask {
    let satype = if step.esp { ESP } else { AH };
    let inbound = ENDS[step.dst] == LOCAL;
    // Those of a pair never die in the same second, and nothing becomes soft when another dies: the order of what
    // happens at once is nobody's promise.
    let hard = if inbound { [0, 2, 6, 2, 6] } else { [0, 4, 8, 4, 8] }[step.hard as usize];
    let hard = if kind == UPDATEPAIR { 0 } else { hard };
    let soft = [0, 1, 3, 5, 0, 0, 0, 0][step.soft as usize];
    let mut ask = Ask {
        kind,
        satype,
        seq: u32::from(step.bits),
        spi: Some(step.spi),
        src: Some(ENDS[step.src]),
        dst: Some(ENDS[step.dst]),
        two_sas: false,
        state: MATURE,
        auth: if step.esp { 0 } else { SHA256 },
        encrypt: if step.esp { GCM16 } else { 0 },
        flags: [0, 0, 0, F_NOREPLAY][usize::from(step.bits % 4)],
        auth_key: if step.esp { 0 } else { 32 },
        encrypt_key: if step.esp { 20 } else { 0 },
        fill: step.bits | 1,
        hard: (0, hard),
        soft: (0, if hard != 0 && soft > hard { 0 } else { soft }),
        current: false,
        label: false,
        km: step.km,
        pair: Some(step.pair).filter(|_| step.pair != 0),
    };
    // An UPDATE of what is complete has no keys; one of what is larval does.
    if [UPDATE, UPDATEPAIR].contains(&kind) && !larval && step.bits & 24 != 0 {
        (ask.auth_key, ask.encrypt_key) = (0, 0);
        if step.bits & 32 != 0 {
            (ask.auth, ask.encrypt) = (0, 0);
        }
    }
    for fault in step.faults {
        match fault {
            1 => ask.src = None,
            2 => ask.dst = None,
            3 => ask.spi = None,
            4 => (ask.auth_key, ask.encrypt_key) = (0, 0),
            5 => ask.state = if step.bits & 16 == 0 { LARVAL } else { DEAD },
            6 => ask.encrypt = if step.esp { 0 } else { NULL },
            7 => ask.flags |= F_PFS,
            8 => (ask.hard.0, ask.soft.0) = (10, 20),
            9 => ask.current = true,
            10 => ask.label = true,
            11 if step.esp => ask.encrypt_key = 16,
            11 => ask.auth_key = 16,
            12 => ask.src = Some("224.0.0.9"),
            13 => ask.two_sas = true,
            14 => ask.auth_key = 32,
            _ => {}
        }
    }
    ask
}

/// The service and its sockets, and the model beside them.
struct Both {
    service: Service,
    sockets: Vec<SocketId>,
    model: Model,
}

impl Both {
    fn new() -> Self {
        let mut service = Service::default();
        let sockets: Vec<SocketId> = (0..5).map(|_| service.open()).collect();
        let mut both = Self { service, sockets, model: Model::new(5) };
        both.say(0, &Ask::bare(REGISTER, ESP));
        both.say(1, &Ask::bare(REGISTER, 0));
        both.say(2, &Ask::bare(PROMISC, 1));
        both.say(3, &Ask::bare(model::SOCKET, 0));
        both
    }

    fn say(&mut self, who: usize, ask: &Ask) {
        self.service.send(self.sockets[who], ask.message());
        self.model.say(who, ask);
        self.compare();
    }

    fn wait(&mut self, secs: u64) {
        self.service.wait(secs);
        self.model.wait(secs);
        self.compare();
    }

    fn compare(&mut self) {
        for who in [0, 1, 3, 4, 2] {
            // What time did, it did in no particular order.
            let mut heard: Vec<Vec<u8>> =
                self.service.hear(self.sockets[who]).iter().map(model::comparable).collect();
            let mut expected = self.model.heard(who);
            heard.sort_unstable();
            expected.sort_unstable();
            assert_eq!(heard, expected, "socket {who}");
        }
    }

    fn step(&mut self, step: &Step) {
        let kind = match step.what {
            0..=4 => ADD,
            5..=6 => GETSPI,
            7..=8 => UPDATE,
            9..=10 => UPDATEPAIR,
            11..=12 => GET,
            13 => DELETE,
            14 => DELPAIR,
            15..=16 => DUMP,
            17 if step.bits < 64 => FLUSH,
            17 => GET,
            18..=20 => return self.wait(if step.bits > 240 { 96 } else { 8 }),
            21 => PROMISC,
            22 => REGISTER,
            _ => model::SOCKET,
        };
        let step = &step.aimed(kind, &self.model);
        let satype = if step.esp { ESP } else { AH };
        let larval = self.model.is_larval((satype, ENDS[step.dst], step.spi));
        let ask = match kind {
            DUMP | FLUSH | REGISTER if step.bits.is_multiple_of(3) => Ask::bare(kind, 0),
            DUMP | FLUSH | REGISTER => Ask::bare(kind, satype),
            // Mostly on for the one that began so, mostly off for the others.
            PROMISC => Ask::bare(kind, u8::from(step.who == 2)),
            model::SOCKET => Ask::bare(kind, u8::from(step.who != 3)),
            GETSPI | GET | DELETE | DELPAIR => ask(step, kind, larval).address_only(kind),
            _ => ask(step, kind, larval),
        };
        self.say(step.who, &ask);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_service_does_what_the_model_does(steps in steps()) {
        let mut both = Both::new();
        for step in &steps {
            both.step(step);
        }
        both.say(4, &Ask::bare(DUMP, 0));
        both.wait(200);
        both.say(4, &Ask::bare(DUMP, 0));
    }
}
