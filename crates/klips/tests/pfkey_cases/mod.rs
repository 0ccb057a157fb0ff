//! The documented faults and behaviours of pf_key(7P), one case each: request, answer, who hears it.
//!
//! A table, run twice: against the engine in this process (`crates/klips/tests/pfkey_conformance.rs`) and against a real
//! daemon over its socket (`crates/ipsec/tests/pfkey`). Every case has SAs ([`setup`]) and sockets ([`SOCKETS`]) of its
//! own.

#![allow(dead_code, reason = "each transport uses its own part of this")]

pub(crate) use crate::pfkey_support::*;
use pfkey::{Diagnostic, Errno, MessageType};
use std::fmt::Write;

mod add;
mod address;
mod answers;
mod effects;
mod order;
mod others;
mod shape;
mod update;

/// s asks, o only listens, a and e have a plain REGISTER for AH and ESP, x an extended one for both, p is promiscuous, d
/// has loopback off. The promiscuous one is listened to last: it hears a DUMP while its reader reads.
pub(crate) const SOCKETS: [char; 7] = ['s', 'o', 'a', 'e', 'x', 'd', 'p'];

pub(crate) const ALL: &str = "soaexp";
pub(crate) const SENDER: &str = "sp";
pub(crate) const NOBODY: &str = "";

/// SPIs of the SAs that are there.
pub(crate) const IN: u32 = 0x1000;
pub(crate) const OUT: u32 = 0x2000;
pub(crate) const LARVA: u32 = 0x4000;
pub(crate) const PAIR_IN: u32 = 0x5000;
pub(crate) const PAIR_OUT: u32 = 0x6000;
pub(crate) const DYING_ONE: u32 = 0x7071;
pub(crate) const DEAD_ONE: u32 = 0x8081;
pub(crate) const BOTH: u32 = 0x9000;
pub(crate) const AH_IN: u32 = 0xa000;
pub(crate) const OUT6: u32 = 0xb000;

/// The two ends of [`BOTH`].
pub(crate) const FAR: &str = "203.0.113.1";
pub(crate) const FAR2: &str = "203.0.113.2";

/// What makes the SAs every case begins with.
pub(crate) fn setup() -> Vec<Msg> {
    vec![
        add_esp(IN, PEER, LOCAL),
        add_esp(OUT, LOCAL, PEER),
        msg(GETSPI, ESP).src(PEER).dst(LOCAL).range(LARVA, LARVA),
        add_esp(PAIR_IN, PEER, LOCAL),
        add_esp(PAIR_OUT, LOCAL, PEER).pair(PAIR_IN),
        add_esp(BOTH, FAR, FAR2),
        add_ah(AH_IN, PEER, LOCAL),
        add_esp(OUT6, LOCAL6, PEER6),
    ]
}

/// What makes the two that reach a limit after a second. Only the cases that name them have to wait; none changes them.
pub(crate) fn aging() -> Vec<Msg> {
    vec![
        add_esp(DYING_ONE, LOCAL, PEER).lifetime(SOFT, 0, 0, 1, 0),
        add_esp(DEAD_ONE, LOCAL, PEER).lifetime(HARD, 0, 0, 1, 0),
    ]
}

/// What a socket of this letter says first.
pub(crate) fn introduction(letter: char) -> Option<Msg> {
    match letter {
        'a' => Some(msg(REGISTER, AH)),
        'e' => Some(msg(REGISTER, ESP)),
        'x' => Some(msg(REGISTER, 0).ext(EREG, &[ESP, AH, 0, 0])),
        'p' => Some(msg(PROMISC, 1)),
        _ => None,
    }
}

type Render = Box<dyn Fn(&Heard) -> String>;

/// One line of the table.
pub(crate) struct Case {
    pub(crate) name: String,
    /// What the sender says first, and whether it must be accepted.
    pub(crate) before: Vec<(Msg, bool)>,
    pub(crate) from: char,
    pub(crate) request: Msg,
    /// The messages heard, and by whom.
    expected: Vec<(String, String)>,
    exts: Option<&'static [u16]>,
    shows: Option<(String, Render)>,
}

impl Case {
    pub(crate) fn after(&mut self, before: impl IntoIterator<Item = Msg>) -> &mut Self {
        self.before.extend(before.into_iter().map(|message| (message, true)));
        self
    }

    /// Something said first that must be refused.
    pub(crate) fn after_refused(&mut self, message: Msg) -> &mut Self {
        self.before.push((message, false));
        self
    }

    /// The types of the answer's extensions, in their order.
    pub(crate) fn exts(&mut self, exts: &'static [u16]) -> &mut Self {
        self.exts = Some(exts);
        self
    }

    /// Something the answer says.
    pub(crate) fn shows(
        &mut self,
        expected: impl Into<String>,
        render: impl Fn(&Heard) -> String + 'static,
    ) -> &mut Self {
        self.shows = Some((expected.into(), Box::new(render)));
        self
    }

    /// One more answer to the same request.
    pub(crate) fn and(&mut self, kind: u8, errno: u8, diagnostic: u16, hearers: &str) -> &mut Self {
        self.expected.push((headline(kind, errno, diagnostic), sorted(hearers)));
        self
    }

    /// After the messages of a DUMP its end: the header alone, seq 0.
    pub(crate) fn ends_dump(&mut self) -> &mut Self {
        let kind = self.request.octets[1];
        let end = format!("{} seq 0 pid 4242", headline(kind, 0, 0));
        self.expected.push((end, sorted(SENDER)));
        self
    }

    /// Nothing but the end of a DUMP.
    pub(crate) fn only_end(&mut self) -> &mut Self {
        self.expected.clear();
        self.ends_dump()
    }

    /// Whether it is about an SA that has to age first.
    pub(crate) fn is_aged(&self) -> bool {
        let names = |octets: &[u8], spi: u32| octets.windows(4).any(|four| four == spi.to_be_bytes());
        let mut all = self.before.iter().map(|(m, _)| m).chain([&self.request]);
        all.any(|m| names(&m.octets, DYING_ONE) || names(&m.octets, DEAD_ONE))
    }

    /// What is expected, as the table says it.
    pub(crate) fn expected(&self) -> String {
        let mut line = String::new();
        for (headline, hearers) in &self.expected {
            let _ = write!(line, "{headline} to {}; ", if hearers.is_empty() { "nobody" } else { hearers });
        }
        if let Some(exts) = self.exts {
            let _ = write!(line, "extensions {exts:?}; ");
        }
        if let Some((shows, _)) = &self.shows {
            let _ = write!(line, "{shows}");
        }
        line
    }

    /// What was heard, in the same words.
    pub(crate) fn got(&self, heard: &[(char, Vec<Heard>)]) -> String {
        // The same octets are the same message.
        let mut messages: Vec<(&Heard, String)> = Vec::new();
        for (letter, all) in heard {
            for one in all {
                match messages.iter_mut().find(|(known, by)| *known == one && !by.contains(*letter)) {
                    Some((_, hearers)) => hearers.push(*letter),
                    None => messages.push((one, letter.to_string())),
                }
            }
        }
        let ids = |octets: &[u8]| octets[8..16].to_vec();
        let mut line = String::new();
        for (one, hearers) in &messages {
            let _ = write!(line, "{}", headline(one.kind, one.errno, one.diagnostic));
            if ids(&one.octets) != ids(&self.request.octets) {
                let _ = write!(line, " seq {} pid {}", one.seq, one.pid);
            }
            let keys = one.kinds().iter().any(|kind| [AKEY, EKEY].contains(kind));
            if keys && ![GET, DUMP].contains(&one.kind) {
                line.push_str(" WITH KEYS");
            }
            if one.errno != 0 && one.octets.len() != 16 {
                line.push_str(" with extensions");
            }
            let _ = write!(line, " to {}; ", sorted(hearers));
        }
        if messages.is_empty() && self.expected.iter().all(|(_, hearers)| hearers.is_empty()) {
            line.clone_from(&self.expected());
        }
        let first = messages.first();
        if let (Some(_), Some((one, _))) = (self.exts, first) {
            let _ = write!(line, "extensions {:?}; ", one.kinds());
        }
        if let (Some((_, render)), Some((one, _))) = (&self.shows, first) {
            let _ = write!(line, "{}", render(one));
        }
        line
    }

    /// The diagnostics it is about.
    pub(crate) fn diagnostics(&self) -> impl Iterator<Item = &'static Diagnostic> + '_ {
        Diagnostic::ALL.iter().filter(|diagnostic| {
            let symbol = format!("/{} {}", diagnostic.number(), diagnostic.symbol());
            self.expected.iter().any(|(headline, _)| headline.ends_with(&symbol))
        })
    }
}

/// SPI, window, state, algorithms.
pub(crate) fn sa_of(heard: &Heard) -> String {
    heard.find(SA).map_or("no SA".to_owned(), |b| {
        let spi = u32::from_be_bytes(b[..4].try_into().unwrap());
        format!("spi {spi:#x} replay {} state {} auth {} encrypt {}", b[4], b[5], b[6], b[7])
    })
}

/// The directions and the other flags.
pub(crate) fn flags_of(heard: &Heard) -> String {
    let names = [
        (F_NOREPLAY, "NOREPLAY"),
        (F_IN, "IN"),
        (F_OUT, "OUT"),
        (F_PAIRED, "PAIRED"),
        (F_TUNNEL, "TUNNEL"),
        (F_NATT_REM, "NATT_REM"),
        (F_NATT_LOC, "NATT_LOC"),
        (0x400_0000, "EALG2"),
        (0x800_0000, "EALG1"),
        (F_UNIQUE, "UNIQUE"),
        (F_USED, "USED"),
    ];
    let flags = heard.flags().unwrap_or(0);
    let known: Vec<&str> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    let rest = names.iter().fold(flags, |flags, (bit, _)| flags & !bit);
    known.join(" ") + &if rest == 0 { String::new() } else { format!(" {rest:#x}") }
}

/// Address and port, protocol, prefix length.
pub(crate) fn address_of(kind: u16) -> impl Fn(&Heard) -> String {
    move |heard| match heard.address(kind) {
        Some((socket, proto, prefix)) => format!("{socket} proto {proto} prefix {prefix}"),
        None => "no address".to_owned(),
    }
}

/// Allocations, bytes, addtime, usetime.
pub(crate) fn life_of(kind: u16) -> impl Fn(&Heard) -> String {
    move |heard| format!("{:?}", heard.life(kind))
}

/// An extension's body, octet by octet.
pub(crate) fn body_of(kind: u16) -> impl Fn(&Heard) -> String {
    move |heard| format!("{:?}", heard.find(kind))
}

/// The letters in the order of [`SOCKETS`].
fn sorted(hearers: &str) -> String {
    SOCKETS.iter().filter(|letter| hearers.contains(**letter)).collect()
}

/// `ADD EINVAL/42 BAD_SAFLAGS`.
fn headline(kind: u8, errno: u8, diagnostic: u16) -> String {
    let name =
        MessageType::from_number(kind).map_or_else(|| format!("type {kind}"), |kind| format!("{kind:?}"));
    let symbol = Diagnostic::from_number(diagnostic).map_or("", Diagnostic::symbol);
    format!("{name} {}/{diagnostic} {symbol}", Errno(errno).name())
}

/// The cases of one theme.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) cases: Vec<Case>,
}

impl Table {
    /// The answer is `errno/diagnostic` of type `kind`, base header only if it is an error; it reaches `hearers` and
    /// nobody else.
    pub(crate) fn case(
        &mut self,
        name: &str,
        request: Msg,
        kind: u8,
        errno: u8,
        diagnostic: u16,
        hearers: &str,
    ) -> &mut Case {
        self.case_from(name, 's', request, kind, errno, diagnostic, hearers)
    }

    #[expect(clippy::too_many_arguments, reason = "one column each")]
    pub(crate) fn case_from(
        &mut self,
        name: &str,
        from: char,
        request: Msg,
        kind: u8,
        errno: u8,
        diagnostic: u16,
        hearers: &str,
    ) -> &mut Case {
        let expected = vec![(headline(kind, errno, diagnostic), sorted(hearers))];
        let name = name.to_owned();
        self.cases.push(Case { name, before: Vec::new(), from, request, expected, exts: None, shows: None });
        self.cases.last_mut().unwrap()
    }

    /// Malformed: an error to everyone.
    pub(crate) fn bad(&mut self, name: &str, request: Msg, errno: u8, diagnostic: u16) -> &mut Case {
        let kind = request.octets[1];
        let hearers = match kind {
            GETSPI | UPDATE | ADD | DELETE | EXPIRE | FLUSH | UPDATEPAIR | DELPAIR => ALL,
            _ => SENDER,
        };
        self.case(name, request, kind, errno, diagnostic, hearers)
    }

    /// Accepted: the answer is of the request's type.
    pub(crate) fn good(&mut self, name: &str, request: Msg, hearers: &str) -> &mut Case {
        let kind = request.octets[1];
        self.case(name, request, kind, 0, 0, hearers)
    }
}

/// Themes and their cases.
pub(crate) fn themes() -> Vec<(&'static str, Vec<Case>)> {
    let theme = |name, fill: fn(&mut Table)| {
        let mut table = Table::default();
        fill(&mut table);
        (name, table.cases)
    };
    vec![
        theme("shape", shape::stage_one_shape_of_the_message),
        theme("dispatch", shape::stage_one_dispatch),
        theme("addresses", address::stage_two_addresses),
        theme("GETSPI", add::getspi),
        theme("ADD ESP", add::add_esp_faults),
        theme("ADD AH", add::add_ah_faults),
        theme("insertion", add::insertion),
        theme("UPDATE", update::updates),
        theme("others", others::get_and_delete),
        theme("audiences", others::audiences),
        theme("answers", answers::answers),
        theme("directions", answers::directions),
        theme("dumps", answers::dumps),
        theme("lifetimes", effects::lifetimes),
        theme("pairs", effects::pairs),
        theme("removal", effects::removal),
        theme("order", order::orders),
        theme("eroutes", effects::eroutes),
    ]
}

/// What runs the cases.
pub(crate) trait Transport {
    /// Fresh sockets and SAs, aged ones among them or not.
    fn begin(&mut self, aged: bool);
    fn send(&mut self, from: char, octets: &[u8]);
    /// What every socket has heard since.
    fn hear(&mut self) -> Vec<(char, Vec<Heard>)>;
}

/// Runs the whole table, prints it, and fails if a line differs or a reachable diagnostic is never seen.
pub(crate) fn run(transport: &mut impl Transport) {
    let (mut count, mut wrong) = (0, Vec::new());
    let mut seen = Vec::new();
    for (theme, cases) in themes() {
        for case in cases {
            transport.begin(case.is_aged());
            let mut refused = String::new();
            for (message, accepted) in &case.before {
                transport.send('s', &message.clone().done());
                let heard = transport.hear();
                let answer = heard.iter().find(|(letter, _)| *letter == 's').and_then(|(_, all)| all.first());
                if answer.is_none_or(|answer| (answer.errno == 0) != *accepted) {
                    let _ = write!(refused, "PREPARATION: {answer:?}; ");
                }
            }
            transport.send(case.from, &case.request.clone().done());
            let got = refused + &case.got(&transport.hear());
            let expected = case.expected();
            count += 1;
            seen.extend(case.diagnostics());
            let verdict = if got == expected { "ok   " } else { "WRONG" };
            let line = format!("{verdict} {theme} | {} | {expected} | {got}", case.name);
            println!("{line}");
            if got != expected {
                wrong.push(line);
            }
        }
    }
    println!("{count} cases, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 680, "only {count} cases");
    let never: Vec<&str> = Diagnostic::ALL
        .iter()
        .filter(|diagnostic| !seen.contains(diagnostic) && unreachable(**diagnostic).is_none())
        .map(|diagnostic| diagnostic.symbol())
        .collect();
    assert!(never.is_empty(), "no case produced {never:?}");
    let impossible: Vec<&str> =
        seen.iter().filter(|d| unreachable(***d).is_some()).map(|d| d.symbol()).collect();
    assert!(impossible.is_empty(), "said to be out of reach, but produced: {impossible:?}");
}

/// Why a diagnostic of the page is never heard, here or there.
fn unreachable(diagnostic: Diagnostic) -> Option<&'static str> {
    use Diagnostic as D;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is reachable")]
    match diagnostic {
        D::MissingLifetime => Some("later versions say it of an UPDATE with a current lifetime"),
        D::NoSadbs => Some("there is always a database"),
        D::WeakAkey => Some("no authentication algorithm has weak keys"),
        D::DuplicateNattLoc | D::DuplicateNattRem => Some("two of them have no words of their own"),
        D::DuplicateNattPorts => Some("defined, never produced"),
        D::InnerProtoMismatch | D::PairAddMismatch | D::BadSaDirection => Some("defined, never produced"),
        D::BadMode | D::BadPolicy => Some("what a dialect says that this version cannot do"),
        D::MissingAstr | D::DuplicateAstr | D::MalformedAstr => Some("TCP-MD5 has no database here"),
        _ => None,
    }
}
