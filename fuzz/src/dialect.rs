//! What programs of a dialect write: records one after the other, as long as each says it is, translated, asked of the
//! service, and its answers translated back, to the one who asked and to one who listens.

use ipsec_core::Time;
use klips::{Config, Control, Plane, SocketId};
use pfkey::Message;
use pfkey::dialect::{Dialect, Translator, Turn};
use std::sync::Arc;

/// `sadb_msg_type` of the shim's message about socket options.
const SHIM: u8 = 134;
/// `sadb_msg_type` of GET and DUMP, whose answers have keys in them.
const SHOW: [u8; 2] = [5, 10];
/// `sadb_ext_type` of keys.
const KEYS: [u16; 2] = [8, 9];
/// Every key of an input begins with this.
pub(crate) const SECRET: [u8; 8] = *b"SecretK!";
/// Records of one input: a group takes four SAs, and three links.
const RECORDS: usize = 16;
const NOW: Time = Time::from_nanos(1);

/// What is special about a dialect.
pub(crate) struct Speech {
    pub(crate) dialect: Dialect,
    /// Messages that go back as they came, whatever is in them.
    pub(crate) echoed: &'static [u8],
    /// So many requests or answers at the most are made of one record.
    pub(crate) most: usize,
}

/// One program, its socket and its translation.
pub(crate) struct Program {
    socket: SocketId,
    translator: Box<dyn Translator>,
}

/// A service and two of its clients.
pub(crate) struct Conversation {
    control: Control,
    asking: Program,
    listening: Program,
}

impl Speech {
    /// Takes the octets as records.
    pub(crate) fn converse(&self, data: &[u8]) -> Conversation {
        let random = |octets: &mut [u8]| octets.fill(0x5a);
        let config = Config::new(1_700_000_000, Box::new(random));
        let mut control = Control::new(Arc::new(Plane::default()), config);
        let mut open = || Program {
            socket: control.connect(1, NOW),
            translator: self.dialect.translator().expect("it is not the native one"),
        };
        let (asking, listening) = (open(), open());
        let mut all = Conversation { control, asking, listening };
        // A key where none belongs is nobody's secret.
        let elsewhere = records(data).any(|record| self.is_public(record));
        for record in records(data).take(RECORDS) {
            let turn = all.asking.translator.request(record);
            let made = turn.ask.len() + turn.say.len();
            assert!((1..=self.most).contains(&made), "{made} of {record:?}");
            let heard = all.ask(turn);
            let shows = record.get(1).is_some_and(|number| SHOW.contains(number));
            assert!(elsewhere || shows || !any_secret(&heard), "a key went to who did not ask");
            let heard = all.listen();
            assert!(elsewhere || !any_secret(&heard), "a key went to somebody else");
        }
        all
    }

    /// Whether what looks like a key is also where none is.
    fn is_public(&self, record: &[u8]) -> bool {
        let mut rest = record.get(16..).unwrap_or_default();
        while let [l0, l1, t0, t1, ..] = *rest {
            let len = usize::from(u16::from_ne_bytes([l0, l1])) * 8;
            let Some((extension, after)) = rest.split_at_checked(len).filter(|_| len != 0) else { break };
            if !KEYS.contains(&u16::from_ne_bytes([t0, t1])) && contains_secret(extension) {
                return true;
            }
            rest = after;
        }
        // What is no message goes back as nothing but its header.
        record.get(1).is_some_and(|number| *number == SHIM || self.echoed.contains(number))
    }
}

impl Conversation {
    /// Does what the asking program's record is, and returns what that program hears.
    fn ask(&mut self, turn: Turn) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        act(&mut self.control, self.asking.socket, turn, &mut heard);
        hear(&mut self.control, &mut self.asking, &mut heard);
        heard
    }

    /// What the other one hears.
    fn listen(&mut self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        hear(&mut self.control, &mut self.listening, &mut heard);
        heard
    }

    /// What the other one hears when it asks something itself: records as they are.
    pub(crate) fn ask_as_listener(&mut self, record: &[u8]) -> Vec<Vec<u8>> {
        let turn = self.listening.translator.request(record);
        act(&mut self.control, self.listening.socket, turn, &mut Vec::new());
        let mut said = Vec::new();
        while let Some(notice) = self.control.notice(self.listening.socket, NOW) {
            said.extend(self.listening.translator.notice(&notice).say.iter().map(|record| record.to_vec()));
        }
        said
    }
}

/// All that a program has to hear. What it is told makes its translation ask again, but not without end.
fn hear(control: &mut Control, program: &mut Program, heard: &mut Vec<Vec<u8>>) {
    for _ in 0..256 {
        let Some(notice) = control.notice(program.socket, NOW) else { return };
        let turn = program.translator.notice(&notice);
        act(control, program.socket, turn, heard);
    }
    assert!(control.notice(program.socket, NOW).is_none(), "it never ends");
}

/// Does a turn's part of the service, and looks at what it says.
fn act(control: &mut Control, socket: SocketId, turn: Turn, heard: &mut Vec<Vec<u8>>) {
    for ask in turn.ask {
        // The shim's own message goes through as it came.
        let read = Message::parse(&ask);
        assert!(ask.get(1) == Some(&SHIM) || read.is_ok(), "the service cannot read {ask:?}: {read:?}");
        control.request(socket, &ask, NOW);
    }
    for record in turn.say {
        well_formed(&record);
        // The base header is an echo, of whatever number the mutation put into it.
        heard.push(record.get(16..).unwrap_or_default().to_vec());
    }
}

fn contains_secret(octets: &[u8]) -> bool {
    octets.windows(SECRET.len()).any(|window| window == SECRET)
}

fn any_secret(records: &[Vec<u8>]) -> bool {
    records.iter().any(|record| contains_secret(record))
}

/// Its lengths are those of its octets.
fn well_formed(record: &[u8]) {
    let word = |octets: &[u8]| usize::from(u16::from_ne_bytes([octets[0], octets[1]])) * 8;
    assert!(record.len() >= 16 && word(&record[4..]) == record.len(), "{record:?}");
    let mut rest = &record[16..];
    while !rest.is_empty() {
        let len = word(rest);
        assert!(len >= 8 && len <= rest.len(), "{record:?}");
        rest = &rest[len..];
    }
}

/// The records: each as long as its header says, the last one whatever is left.
fn records(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let &[_, _, _, _, l0, l1, ..] = data else {
            return (!data.is_empty()).then(|| std::mem::take(&mut data));
        };
        let len = (usize::from(u16::from_ne_bytes([l0, l1])) * 8).clamp(16, data.len().max(16));
        let (record, rest) = data.split_at(len.min(data.len()));
        data = rest;
        Some(record)
    })
}

/// A record with these two numbers in its header.
pub(crate) fn record(number: u8, satype: u8, (seq, pid): (u32, u32), extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = extensions.concat();
    let words = u16::try_from((16 + body.len()) / 8).expect("short").to_ne_bytes();
    let mut octets = vec![2, number, 0, satype, words[0], words[1], 0, 0];
    octets.extend([seq, pid].into_iter().flat_map(u32::to_ne_bytes));
    octets.extend(body);
    octets
}

pub(crate) fn ext(number: u16, body: &[u8]) -> Vec<u8> {
    let len = (4 + body.len()).next_multiple_of(8);
    let mut octets = u16::try_from(len / 8).expect("short").to_ne_bytes().to_vec();
    octets.extend(number.to_ne_bytes());
    octets.extend(body);
    octets.resize(len, 0);
    octets
}

/// A key that the other program must never see.
pub(crate) fn key(number: u16, octets: usize) -> Vec<u8> {
    let bits = u16::try_from(octets * 8).expect("short").to_ne_bytes();
    ext(number, &[&bits[..], &[0, 0], &SECRET.repeat(8)[..octets]].concat())
}
