//! What the person in front of the terminal reads.

use crate::print;
use core::cell::RefCell;
use core::fmt::Display;
use serde_json::{Value, json};
use std::io::{self, IsTerminal};

pub(super) struct Story {
    quiet: bool,
    unsaid: RefCell<Option<io::Error>>,
    colour: bool,
    chapter: u32,
    checks: Vec<(String, bool)>,
}

impl Story {
    pub(super) fn new(quiet: bool) -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { quiet, unsaid: RefCell::default(), colour, chapter: 0, checks: Vec::new() }
    }

    pub(super) fn line(&self, text: &str) {
        if !self.quiet {
            self.say(format_args!("    {text}"));
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn open(&self, raw: bool) {
        if self.quiet {
            return;
        }
        let carrier = if raw { "raw ESP" } else { "ESP in UDP" };
        self.say(
            "tulips: IPsec in user space. Two sites, joined by a tunnel; nothing of this machine is touched.\n",
        );
        self.say("    host A ──────── gateway A ══════════════════ gateway B ──────── host B");
        self.say(format_args!("    10.1.0.2        192.0.2.1   {carrier:^14}   192.0.2.2        10.2.0.2\n"));
    }

    pub(super) fn chapter(&mut self, title: &str, more: &str) {
        self.chapter = self.chapter.saturating_add(1);
        if !self.quiet {
            let dash = if more.is_empty() { String::new() } else { format!(": {more}") };
            self.say(format_args!("{}. {}{dash}", self.chapter, self.paint("1", title)));
        }
    }

    pub(super) fn note(&self, text: &str) {
        self.line(text);
    }

    /// A file as a person would write it.
    pub(super) fn file(&self, name: &str, text: &str) {
        self.line(&self.paint("4", name));
        text.lines().for_each(|line| self.line(&format!("  {line}")));
    }

    /// A command as a person would type it on gateway A.
    pub(super) fn command(&self, words: &[&str]) {
        self.line(&format!("gateway-a# ipsec {}", words.join(" ")));
    }

    pub(super) fn shell(&self, text: &str) {
        text.lines().for_each(|line| self.line(line));
    }

    pub(super) fn check(&mut self, what: &str, held: bool) {
        if !self.quiet {
            let mark = if held { self.paint("32", "ok") } else { self.paint("31;1", "NO") };
            self.say(format_args!("    {mark}  {what}"));
        }
        self.checks.push((what.to_owned(), held));
    }

    pub(super) fn all_held(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|(_, held)| *held)
    }

    pub(super) fn checks(&self) -> Value {
        self.checks.iter().map(|(what, held)| json!({ "what": what, "held": held })).collect()
    }

    /// Says how many checks held, and whether the story could be told.
    pub(super) fn end(self) -> io::Result<()> {
        let held = self.checks.iter().filter(|(_, held)| *held).count();
        let all = self.checks.len();
        self.say(format_args!("\n{held} of {all} checks held. Namespaces, daemons and keys are gone."));
        self.unsaid.into_inner().map_or(Ok(()), Err)
    }

    /// The job goes on when the story cannot be told: what it leaves behind must be cleaned up, and its outcome counts.
    fn say(&self, text: impl Display) {
        let mut unsaid = self.unsaid.borrow_mut();
        if unsaid.is_none() {
            *unsaid = print::line(text).err();
        }
    }
}
