//! Names of hosts. A name is a comfort: looking for one delays what it stands beside by a quarter of a second at most, all
//! names together; one that comes later stands beside what is shown later.

use crate::host::clock;
use core::net::IpAddr;
use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// More addresses than anybody looks at; the rest have no names.
const MOST: usize = 1 << 16;

/// Questions that may be open at once: a resolver that is silent keeps a thread for each.
const OPEN: usize = 8;

/// How long all questions together may be waited for.
const PATIENCE: Duration = Duration::from_millis(250);

type Answer = (IpAddr, Option<String>);

/// What addresses are called.
#[derive(Debug)]
pub(super) struct Names {
    known: HashMap<IpAddr, Option<String>>,
    answers: (Sender<Answer>, Receiver<Answer>),
    open: usize,
    patience: Duration,
    ask: fn(IpAddr) -> Option<String>,
}

impl Default for Names {
    fn default() -> Self {
        // Without a name the resolver gives the number back.
        let ask =
            |ip: IpAddr| dns_lookup::lookup_addr(&ip).ok().filter(|name| name.parse::<IpAddr>().is_err());
        Self { known: HashMap::new(), answers: channel(), open: 0, patience: PATIENCE, ask }
    }
}

impl Names {
    /// The name of an address, if it has one and it is known in time.
    pub(super) fn of(&mut self, ip: IpAddr) -> Option<String> {
        if ip.is_unspecified() {
            return None;
        }
        while let Ok(answer) = self.answers.1.try_recv() {
            self.learn(answer);
        }
        if let Some(known) = self.known.get(&ip) {
            return known.clone();
        }
        if self.known.len() >= MOST || self.open >= OPEN {
            return None;
        }
        let (sender, ask) = (self.answers.0.clone(), self.ask);
        let asking = thread::Builder::new().spawn(move || {
            // Nobody listens any more once everything is shown.
            let _ = sender.send((ip, ask(ip)));
        });
        if asking.is_err() {
            return None;
        }
        self.open = self.open.saturating_add(1);
        self.known.insert(ip, None);
        let began = clock::now();
        loop {
            let left = self.patience.saturating_sub(clock::now().since(began));
            let Ok(answer) = self.answers.1.recv_timeout(left) else { break };
            let ours = answer.0 == ip;
            self.learn(answer);
            if ours {
                break;
            }
        }
        self.patience = self.patience.saturating_sub(clock::now().since(began));
        self.known.get(&ip).cloned().flatten()
    }

    fn learn(&mut self, (ip, name): Answer) {
        self.open = self.open.saturating_sub(1);
        self.known.insert(ip, name);
    }
}

/// The addresses of a name.
pub(super) fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok(dns_lookup::lookup_host(name)?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_that_never_answers_holds_nothing_up() {
        let silent = |_| loop {
            thread::park();
        };
        let mut names = Names { ask: silent, patience: Duration::from_millis(1), ..Names::default() };
        for n in 0..1000_u32 {
            assert_eq!(names.of(IpAddr::V4((n + 1).into())), None);
        }
        assert_eq!((names.open, names.patience), (OPEN, Duration::ZERO));
    }

    #[test]
    fn a_name_is_asked_for_once_and_kept() {
        let mut names = Names { ask: |ip| Some(format!("host-{ip}")), ..Names::default() };
        names.patience = Duration::from_secs(60);
        let ip = IpAddr::V4(1.into());
        assert_eq!(names.of(ip).as_deref(), Some("host-0.0.0.1"));
        names.ask = |_| None;
        assert_eq!(names.of(ip).as_deref(), Some("host-0.0.0.1"));
    }
}
