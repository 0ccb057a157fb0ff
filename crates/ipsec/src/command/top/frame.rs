//! The picture: from two looks to lines of text, without a terminal.

use crate::pluto::kernel::Carried;
use crate::print::span;
use crate::watch::{Connection, Snapshot};
use ipsec_core::Time;
use std::collections::BTreeMap;

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// What is down.
    State,
    Name,
    /// What carries most.
    Traffic,
}

/// The last two looks, and how they are to be shown.
#[derive(Debug)]
pub(super) struct View {
    before: Option<(Snapshot, Time)>,
    now: (Snapshot, Time),
    pub(super) order: Order,
    first: usize,
}

/// Lines above and below the connections that are always there: the head, the titles, an empty one and the refusals.
const AROUND: usize = 6;

impl View {
    pub(super) const fn new(seen: Snapshot, at: Time) -> Self {
        Self { before: None, now: (seen, at), order: Order::State, first: 0 }
    }

    /// Another look.
    pub(super) fn next(&mut self, seen: Snapshot, at: Time) {
        self.before = Some(std::mem::replace(&mut self.now, (seen, at)));
    }

    pub(super) fn scroll(&mut self, by: isize) {
        self.first = self.first.saturating_add_signed(by);
    }

    /// Per second, since the look before; a counter that went back began anew.
    fn rate(&self, now: u64, before: u64) -> u64 {
        let Some((_, then)) = &self.before else { return 0 };
        let millis = u64::try_from(self.now.1.since(*then).as_millis()).unwrap_or(u64::MAX).max(1);
        let grown = now.checked_sub(before).unwrap_or(now);
        u64::try_from(u128::from(grown) * 1000 / u128::from(millis)).unwrap_or(u64::MAX)
    }

    /// The picture in at most `rows` lines of at most `columns` characters.
    pub(super) fn lines(&mut self, rows: usize, columns: usize) -> Vec<String> {
        let room = rows.saturating_sub(AROUND).max(1);
        let count = self.now.0.connections.len();
        self.first = self.first.min(count.saturating_sub(room));
        let mut lines = self.head();
        let rates = self.rates();
        let mut sorted: Vec<(&Connection, (u64, u64))> = self
            .now
            .0
            .connections
            .iter()
            .map(|one| (one, rates.get(one.name.as_str()).copied().unwrap_or_default()))
            .collect();
        match self.order {
            Order::Name => {}
            Order::State => sorted.sort_by_key(|(one, _)| rank(&one.state)),
            Order::Traffic => {
                sorted.sort_by_key(|(_, (out, r#in))| std::cmp::Reverse(out.saturating_add(*r#in)))
            }
        }
        let shown = sorted.iter().skip(self.first).take(room);
        let names = shown.clone().map(|(one, _)| one.name.chars().count()).max().unwrap_or(0).clamp(10, 30);
        let peers = shown.clone().map(|(one, _)| one.remote.chars().count()).max().unwrap_or(0).clamp(6, 39);
        lines.push(format!(
            "{:names$} {:10} {:peers$} {:>9} {:>9} {:>7} {:>6}  FLOWS",
            "CONNECTION", "STATE", "PEER", "OUT/S", "IN/S", "REKEY", "IDLE"
        ));
        for (one, (out, r#in)) in shown {
            lines.push(format!(
                "{:names$} {:10} {:peers$} {:>9} {:>9} {:>7} {:>6}  {}",
                cut(&one.name, names),
                one.state,
                cut(&one.remote, peers),
                octets(*out),
                octets(*r#in),
                span(one.rekey),
                span(one.idle),
                one.flows
            ));
        }
        if count > room {
            lines.push(format!("({} to {} of {count})", self.first + 1, (self.first + room).min(count)));
        } else {
            lines.push(String::new());
        }
        lines.extend(self.refused());
        lines.iter().map(|line| cut(line, columns)).collect()
    }

    fn head(&self) -> Vec<String> {
        let seen = &self.now.0;
        let daemon = |name: &str, up: bool| {
            let deaths = seen.deaths.get(name).copied().unwrap_or(0);
            let again = if deaths > 0 { format!(" ({deaths} deaths)") } else { String::new() };
            format!("{name} {}{again}", if up { "runs" } else { "DOES NOT ANSWER" })
        };
        vec![
            format!(
                "{}, {}, up {}",
                daemon("klips", seen.klips),
                daemon("pluto", seen.pluto),
                span(Some(seen.uptime))
            ),
            format!(
                "connections {}, {} up; IKE SAs {}, SAs {}, eroutes {}",
                seen.connections.len(),
                seen.up(),
                seen.ike_sas,
                seen.sas,
                seen.eroutes
            ),
        ]
    }

    /// Octets per second, out and in, by connection.
    fn rates(&self) -> BTreeMap<&str, (u64, u64)> {
        let before: BTreeMap<&str, Carried> = self
            .before
            .iter()
            .flat_map(|(seen, _)| &seen.connections)
            .filter_map(|one| Some((one.name.as_str(), one.traffic?)))
            .collect();
        let rate = |one: &Connection| {
            let now = one.traffic.unwrap_or_default();
            // Seen for the first time, or not seen now: how fast is not known.
            let then = before.get(one.name.as_str()).filter(|_| one.traffic.is_some()).unwrap_or(&now);
            (self.rate(now.out.bytes, then.out.bytes), self.rate(now.r#in.bytes, then.r#in.bytes))
        };
        self.now.0.connections.iter().map(|one| (one.name.as_str(), rate(one))).collect()
    }

    /// What is refused, the most first: per second, and altogether.
    fn refused(&self) -> Vec<String> {
        let list = |now: &BTreeMap<String, u64>, before: Option<&BTreeMap<String, u64>>| {
            let mut all: Vec<(u64, u64, &str)> = now
                .iter()
                .filter(|(_, count)| **count > 0)
                .map(|(name, count)| {
                    let then = before.map_or(*count, |before| before.get(name).copied().unwrap_or(0));
                    (self.rate(*count, then), *count, name.as_str())
                })
                .collect();
            all.sort_by(|one, other| other.cmp(one));
            let words: Vec<String> =
                all.iter().map(|(rate, count, name)| format!("{name} {count} ({rate}/s)")).collect();
            if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
        };
        let before = self.before.as_ref().map(|(seen, _)| seen);
        vec![
            format!("packets refused: {}", list(&self.now.0.discards, before.map(|seen| &seen.discards))),
            format!(
                "IKE refused:     {}",
                list(&self.now.0.ike_dropped, before.map(|seen| &seen.ike_dropped))
            ),
        ]
    }
}

/// What needs a person's eye comes first.
fn rank(state: &str) -> u8 {
    match state {
        "down" | "unloaded" => 0,
        "connecting" => 1,
        "routed" => 2,
        _ => 3,
    }
}

/// Without what a terminal would obey, and not longer than there is room.
fn cut(text: &str, columns: usize) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(columns).collect()
}

/// 1234567 as `1.2M`.
fn octets(n: u64) -> String {
    let mut rest = n;
    for unit in ["", "k", "M", "G", "T"] {
        if rest < 1000 {
            return format!("{rest}{unit}");
        }
        if rest < 10_000 {
            let next = match unit {
                "" => "k",
                "k" => "M",
                "M" => "G",
                "G" => "T",
                _ => "P",
            };
            return format!("{}.{}{next}", rest / 1000, rest % 1000 / 100);
        }
        rest /= 1000;
    }
    format!("{rest}P")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pluto::kernel::Load;

    fn connection(name: &str, state: &str, out: u64) -> Connection {
        Connection {
            name: name.into(),
            state: state.into(),
            remote: "198.51.100.7".into(),
            flows: "10.1.0.0/16 === 10.2.0.0/16".into(),
            traffic: Some(Carried { out: Load { bytes: out, packets: 1 }, r#in: Load::default() }),
            rekey: (state == "up").then_some(2820),
            ..Connection::default()
        }
    }

    fn seen(out: u64, forged: u64) -> Snapshot {
        Snapshot {
            klips: true,
            pluto: true,
            uptime: 3600,
            ike_sas: 1,
            sas: 2,
            eroutes: 2,
            connections: vec![connection("a", "up", out), connection("b", "down", 0)],
            discards: [("forged".to_owned(), forged), ("replayed".to_owned(), 0)].into(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn the_picture_is_this_one() {
        let mut view = View::new(seen(1_000_000, 10), Time::from_secs(100));
        view.next(seen(4_500_000, 30), Time::from_secs(102));
        assert_eq!(
            view.lines(24, 120),
            [
                "klips runs, pluto runs, up 60m",
                "connections 2, 1 up; IKE SAs 1, SAs 2, eroutes 2",
                "CONNECTION STATE      PEER             OUT/S      IN/S   REKEY   IDLE  FLOWS",
                "b          down       198.51.100.7         0         0       -      -  10.1.0.0/16 === 10.2.0.0/16",
                "a          up         198.51.100.7      1.7M         0     47m      -  10.1.0.0/16 === 10.2.0.0/16",
                "",
                "packets refused: forged 30 (10/s)",
                "IKE refused:     nothing",
            ]
        );
        view.order = Order::Traffic;
        assert!(view.lines(24, 120)[3].starts_with("a "));
        assert!(view.lines(24, 20).iter().all(|line| line.chars().count() <= 20));
    }

    #[test]
    fn counters_that_begin_anew_and_connections_that_are_new_have_no_rate_out_of_nothing() {
        let mut view = View::new(seen(1_000_000, 0), Time::from_secs(0));
        // pluto was started again, and 2000 octets have passed since.
        view.next(seen(2000, 0), Time::from_secs(2));
        assert_eq!(view.rates()["a"], (1000, 0));
        let mut more = seen(2000, 0);
        more.connections.push(connection("new", "up", 77_777));
        view.next(more, Time::from_secs(4));
        assert_eq!(view.rates()["new"], (0, 0));
        let mut unknown = seen(2000, 0);
        unknown.connections[0].traffic = None;
        view.next(unknown, Time::from_secs(6));
        assert_eq!(view.rates()["a"], (0, 0));
        view.next(seen(2_000_000, 0), Time::from_secs(8));
        assert_eq!(view.rates()["a"], (0, 0));
    }

    #[test]
    fn more_connections_than_lines_are_scrolled_and_never_past_the_end() {
        let mut many = seen(0, 0);
        many.connections = (0..100).map(|n| connection(&format!("c{n:02}"), "up", 0)).collect();
        let mut view = View::new(many, Time::ZERO);
        view.order = Order::Name;
        let lines = view.lines(16, 100);
        assert!(
            lines.len() <= 16
                && lines[3].starts_with("c00")
                && lines.contains(&"(1 to 10 of 100)".to_owned()),
            "{lines:?}"
        );
        view.scroll(1000);
        assert!(view.lines(16, 100)[3].starts_with("c90"));
        view.scroll(-1);
        assert!(view.lines(16, 100)[3].starts_with("c89"));
        assert!(!view.lines(1, 100).is_empty());
    }

    #[test]
    fn a_name_that_a_terminal_would_obey_is_only_text() {
        let mut evil = seen(0, 0);
        evil.connections[0].remote = "\x1b[2J\x07".into();
        let mut view = View::new(evil, Time::ZERO);
        assert!(view.lines(24, 100).iter().all(|line| !line.contains('\x1b') && !line.contains('\x07')));
    }

    #[test]
    fn numbers_are_short() {
        for (n, text) in
            [(0, "0"), (999, "999"), (1000, "1.0k"), (9999, "9.9k"), (10_000, "10k"), (1_234_567, "1.2M")]
        {
            assert_eq!(octets(n), text);
        }
        assert_eq!(octets(u64::MAX), "18446P");
    }
}
