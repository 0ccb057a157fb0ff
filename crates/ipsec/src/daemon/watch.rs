//! Who wants to see packets: the log, by the flags of `ipsec klipsdebug`, and those who watch one flow.

use super::Daemon;
use crate::ctl::Refusal;
use crate::host::clock;
use crate::table::Klipsdebug;
use crate::table::sighting::Sighting;
use ipsec_core::{Protocol, Selector, Time};
use klips::{Action, Fate, Wanted, Way};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;

/// Flows watched at a time.
const WATCHES: usize = 16;
/// Sightings that wait for one who watches.
const WAITING: usize = 1024;
/// One who does not ask for this long has gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines a second in the log, but with `verbose`.
const LINES: u32 = 100;

/// See the module.
#[derive(Default)]
pub(super) struct Watches {
    all: Vec<Watch>,
    /// The second, and the lines of it so far.
    second: (u64, u32),
    unsaid: u64,
}

struct Watch {
    /// Chosen by who watches.
    id: u64,
    flow: Selector,
    seen: VecDeque<Sighting>,
    missed: u64,
    asked: Time,
}

impl Watches {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What the engines are to say, those who watch and these flags being there.
    fn wanted(&self, flags: &Klipsdebug) -> Wanted {
        let any = |words: &[&str]| words.iter().any(|word| flags.is_set(word));
        let sas = any(&["xform", "esp", "ah"]);
        Wanted {
            out: sas || any(&["tunnel", "eroute"]),
            inward: sas || any(&["rcv"]),
            flows: self.all.iter().map(|watch| watch.flow).collect(),
        }
    }

    /// Whether one more line may be logged now.
    fn may_say(&mut self, now: Time) -> bool {
        if self.second.0 != now.as_secs() {
            if self.unsaid > 0 {
                tracing::info!("klipsdebug: {} more lines; `--set verbose` shows all", self.unsaid);
            }
            (self.second, self.unsaid) = ((now.as_secs(), 0), 0);
        }
        self.second.1 = self.second.1.saturating_add(1);
        let may = self.second.1 <= LINES;
        self.unsaid = self.unsaid.saturating_add(u64::from(!may));
        may
    }
}

impl Daemon {
    /// Tells the engines what is wanted of them now.
    pub(super) fn want(&self) {
        self.plane.watch(self.watches.wanted(&self.debug));
    }

    /// What was seen of a flow since `id` asked last; from the first time on it is watched.
    pub(super) fn watch(&mut self, id: u64, flow: Selector) -> Result<Value, Refusal> {
        let now = clock::now();
        self.look();
        let known = self.watches.all.iter_mut().find(|watch| watch.id == id && watch.flow == flow);
        if let Some(watch) = known {
            watch.asked = now;
            let seen = std::mem::take(&mut watch.seen);
            return Ok(json!({ "seen": seen, "missed": std::mem::take(&mut watch.missed) }));
        }
        if self.watches.all.len() >= WATCHES {
            return Err(Refusal::with("EAGAIN", format!("{WATCHES} flows are watched already")));
        }
        self.watches.all.push(Watch { id, flow, seen: VecDeque::new(), missed: 0, asked: now });
        self.want();
        Ok(json!({ "seen": [], "missed": 0 }))
    }

    /// Takes what the engines have seen to those who want to know, and lets go of those who have gone.
    pub(super) fn look(&mut self) {
        let now = clock::now();
        let (seen, missed) = self.plane.take_seen();
        for sighting in &seen {
            self.log_sighting(sighting, now);
            let matches = |flow: &Selector| {
                // Without a flow the engine has looked at what the SA may carry.
                sighting.flow.is_none_or(|seen| flow.matches(&seen) || flow.reversed().matches(&seen))
            };
            for watch in self.watches.all.iter_mut().filter(|watch| matches(&watch.flow)) {
                if watch.seen.len() < WAITING {
                    watch.seen.push_back(Sighting::from(sighting));
                } else {
                    watch.missed = watch.missed.saturating_add(1);
                }
            }
        }
        self.watches.all.iter_mut().for_each(|watch| watch.missed = watch.missed.saturating_add(missed));
        let before = self.watches.all.len();
        self.watches.all.retain(|watch| now.since(watch.asked) < PATIENCE);
        if self.watches.all.len() != before {
            self.want();
        }
    }

    /// One line for each part that is to say something of this packet.
    fn log_sighting(&mut self, seen: &klips::Sighting, now: Time) {
        for part in parts(seen) {
            if self.debug.is_set(part) && (self.debug.is_verbose() || self.watches.may_say(now)) {
                tracing::info!("{part}: {}", Sighting::from(seen));
            }
        }
    }
}

/// The words of `ipsec klipsdebug` that a sighting is about.
fn parts(seen: &klips::Sighting) -> impl Iterator<Item = &'static str> {
    let refused = matches!(seen.fate, Fate::Refused(..));
    let sa = seen.sa.or(match seen.eroute {
        Some((_, Action::Protect(id))) => Some(id),
        _ => None,
    });
    let transform = sa.filter(|_| refused).map(|sa| match sa.protocol {
        Protocol::Ah => "ah",
        Protocol::Esp | Protocol::Ipcomp | Protocol::Ipip => "esp",
    });
    let way: &[&str] = match seen.way {
        Way::Out => &["eroute", "tunnel"],
        Way::In => &["rcv"],
    };
    way.iter().copied().chain(transform.map(|_| "xform")).chain(transform)
}

#[cfg(test)]
mod tests {
    use super::*;
    use klips::{Discard, Sighting};

    fn sighting(way: Way, sa: Option<&str>, fate: Fate) -> Sighting {
        let sa = sa.map(|sa| sa.parse().unwrap());
        Sighting { at: Time::ZERO, way, flow: None, octets: 0, eroute: None, sa, fate }
    }

    #[test]
    fn each_flag_is_about_its_own_part() {
        let all = |seen: &Sighting| parts(seen).collect::<Vec<_>>();
        let refused = Fate::Refused(Discard::Forged, 1);
        assert_eq!(all(&sighting(Way::Out, None, Fate::Protected)), ["eroute", "tunnel"]);
        assert_eq!(all(&sighting(Way::In, Some("esp0x1001@192.0.2.1"), Fate::Delivered)), ["rcv"]);
        assert_eq!(all(&sighting(Way::In, Some("esp0x1001@192.0.2.1"), refused)), ["rcv", "xform", "esp"]);
        assert_eq!(all(&sighting(Way::In, Some("ah0x1001@192.0.2.1"), refused)), ["rcv", "xform", "ah"]);
        assert_eq!(all(&sighting(Way::In, None, refused)), ["rcv"]);
    }

    #[test]
    fn the_engines_say_what_some_flag_asks_for_and_no_more() {
        let watches = Watches::default();
        let wanted = |flag: &str| {
            let mut flags = Klipsdebug::default();
            assert!(flags.change(flag, true));
            let wanted = watches.wanted(&flags);
            (wanted.out, wanted.inward)
        };
        for (flag, out, inward) in [
            ("tunnel-xmit", true, false),
            ("eroute", true, false),
            ("rcv", false, true),
            ("ah", true, true),
            ("ipcomp", true, true),
            ("pfkey", false, false),
            ("spi", false, false),
            ("radij", false, false),
            ("verbose", false, false),
        ] {
            assert_eq!(wanted(flag), (out, inward), "{flag}");
        }
    }

    #[test]
    fn a_second_has_so_many_lines() {
        let mut watches = Watches::default();
        let mut said = |at: u64| (0..300).filter(|_| watches.may_say(Time::from_secs(at))).count();
        assert_eq!((said(1), said(1), said(2)), (100, 0, 100));
    }
}
