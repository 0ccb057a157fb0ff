//! Commands carried out: the connection, what comes back, where it is shown.

use super::build::{self, Built};
use super::grammar::{Ask, Command, Wrong};
use super::{help, json, monitor, names, print, save, store};
use crate::command::Failure;
use crate::host::clock;
use crate::keyclient::{KeyClient, LONGEST, PATIENCE};
use crate::print::{self as out, Screen};
use crate::rundir::Rundir;
use core::net::IpAddr;
use jiff::tz::TimeZone;
use pfkey::{Base, Errno, Message, MessageType, SaType};
use std::io::{self, Write};
use zeroize::Zeroizing;

/// How to show things.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    /// No names, nothing is looked up.
    pub(super) numeric: bool,
    /// What is sent, too.
    pub(super) verbose: bool,
    /// No keys.
    pub(super) paranoid: bool,
    /// JSON.
    pub(super) json: bool,
}

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The next command, please.
    More,
    /// `quit`, or nobody reads what we print.
    Quit,
}

/// A PF_KEY connection, made when it is needed, and a screen.
pub(super) struct Session {
    /// How to show things.
    pub(super) style: Style,
    screen: Screen,
    client: Option<KeyClient>,
    names: names::Names,
    zone: TimeZone,
    buffer: Zeroizing<Vec<u8>>,
}

impl core::fmt::Debug for Session {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Session({:?})", self.style)
    }
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Self {
        Self::new(wrong)
    }
}

impl Session {
    /// Connects to nobody yet.
    pub(super) fn new(style: Style) -> Result<Self, Failure> {
        let names = names::Names::default();
        Ok(Self {
            style,
            screen: Screen::new()?,
            client: None,
            names,
            zone: TimeZone::system(),
            buffer: Zeroizing::default(),
        })
    }

    /// Carries out one command.
    pub(super) fn carry_out(&mut self, command: &Command) -> Result<After, Failure> {
        let outcome = match command {
            Command::Ask(ask) => self.ask(ask),
            Command::Dump(satype) => self.dump_all(*satype),
            Command::Save(satype, file) => self.save(*satype, file.as_deref()),
            Command::Monitor { active } => {
                // It gets a socket of its own: what that one loses is what the monitor has lost.
                self.client = None;
                monitor::watch(self, *active)
            }
            Command::Help(about) => self.show(help::text(about.as_deref())),
            Command::Quit => return Ok(After::Quit),
        };
        match outcome {
            Ok(()) => Ok(After::More),
            Err(Stopped(Failure::Unread)) => Ok(After::Quit),
            Err(Stopped(why)) => Err(why),
        }
    }

    /// Shows text.
    pub(super) fn show(&mut self, text: impl AsRef<[u8]>) -> Result<(), Stopped> {
        Ok(self.screen.write_all(text.as_ref())?)
    }

    /// Shows a message, and a blank line after it if that is wanted.
    pub(super) fn message(&mut self, record: &[u8], blank: bool) -> Result<(), Stopped> {
        if self.style.json {
            let line = json::line(record, self.style.paranoid);
            return self.show(&*line);
        }
        let names = &mut self.names;
        let mut name_of = |ip: IpAddr| names.of(ip);
        let mut look = print::Look {
            paranoid: self.style.paranoid,
            verbose: self.style.verbose,
            names: if self.style.numeric { None } else { Some(&mut name_of) },
            now: jiff::Timestamp::now().as_second().unsigned_abs(),
            zone: self.zone.clone(),
        };
        let text = print::text(record, &mut look);
        self.show(text.as_bytes())?;
        if blank { self.show("\n") } else { Ok(()) }
    }

    /// The time zone of the times.
    pub(super) fn zone(&self) -> TimeZone {
        self.zone.clone()
    }

    fn client(&mut self) -> Result<&mut KeyClient, Failure> {
        if self.client.is_none() {
            self.client = Some(KeyClient::connect(&Rundir::from_env()).map_err(Failure::new)?);
        }
        self.client.as_mut().ok_or_else(|| Failure::new("not connected"))
    }

    fn ask(&mut self, ask: &Ask) -> Result<(), Stopped> {
        let client = self.client()?;
        let mut next_seq = || client.next_seq();
        let built = build::build(ask, &mut |name| names::addresses(name), &mut next_seq, std::process::id());
        let Built { messages, warnings } = built.map_err(Failure::from)?;
        for warning in warnings {
            out::complain(format_args!("warning: {warning}"));
        }
        let mut buffer = core::mem::take(&mut self.buffer);
        buffer.resize(LONGEST, 0);
        let outcome = self.send_all(ask, &messages, &mut buffer);
        // Wiped once, not for each message.
        self.buffer = buffer;
        outcome
    }

    fn send_all(
        &mut self,
        ask: &Ask,
        messages: &[Zeroizing<Vec<u8>>],
        buffer: &mut [u8],
    ) -> Result<(), Stopped> {
        for message in messages {
            if self.style.verbose {
                self.message(message, true)?;
            }
            let len = self.client()?.exchange(message, buffer).map_err(Failure::new)?;
            let answer = buffer.get(..len).unwrap_or_default();
            let base = header(answer)?;
            if base.errno != Errno(0) {
                return Err(Failure::new(format_args!(
                    "klips refused it: {}{}",
                    print::refusal(&base),
                    remedy(&base)
                ))
                .into());
            }
            if ask.kind == MessageType::Get {
                self.message(answer, false)?;
            }
        }
        Ok(())
    }

    fn dump_all(&mut self, satype: SaType) -> Result<(), Stopped> {
        self.dump(satype, &mut |session, record| session.message(record, true))?;
        if self.style.json {
            return Ok(());
        }
        self.show(format!("DUMP succeeded for SA type {}.\n", satype.number()))
    }

    /// Hands over every SA.
    fn dump(&mut self, satype: SaType, each: &mut Each<'_>) -> Result<(), Stopped> {
        let pid = std::process::id();
        let seq = self.client()?.next_seq();
        let base = Base::request(MessageType::Dump, satype, seq, pid);
        let request = build::request(&base, |_| {}).map_err(Failure::new)?;
        let mut buffer = Zeroizing::new(vec![0; LONGEST]);
        self.client()?.send(&request).map_err(Failure::new)?;
        loop {
            let until = clock::now().after(PATIENCE);
            let len = self.client()?.hear(&mut buffer, Some(until)).map_err(Failure::new)?;
            let record = buffer.get(..len).unwrap_or_default();
            let base = header(record)?;
            if base.kind() != Some(MessageType::Dump) || base.pid != pid {
                continue;
            }
            if base.errno != Errno(0) {
                return Err(Failure::new(format_args!("klips refused it: {}", print::refusal(&base))).into());
            }
            // The end is a header alone.
            if len == Base::LEN {
                return Ok(());
            }
            if base.seq == seq {
                each(self, record)?;
            }
        }
    }

    /// Writes every SA to a file, all of them or nothing.
    pub(super) fn save(&mut self, satype: SaType, file: Option<&str>) -> Result<(), Stopped> {
        let paranoid = self.style.paranoid;
        let entry = |record: &[u8]| {
            let message = Message::parse_answer(record)
                .map_err(|why| Failure::new(format_args!("klips sent nonsense: {why}")))?;
            Ok::<_, Failure>(save::entry(&message, record.len(), paranoid))
        };
        let Some(path) = file else {
            self.show(save::HEAD)?;
            return self.dump(satype, &mut |session, record| match entry(record)? {
                Some(text) => session.show(text.as_bytes()),
                None => Ok(()),
            });
        };
        let mut store = store::Store::new(path)?;
        store.write(save::HEAD)?;
        self.dump(satype, &mut |_, record| match entry(record)? {
            Some(text) => Ok(store.write(&text)?),
            None => Ok(()),
        })?;
        Ok(store.finish()?)
    }
}

/// What to do with each SA of a dump.
type Each<'a> = dyn FnMut(&mut Session, &[u8]) -> Result<(), Stopped> + 'a;

/// Why a command ended before its end.
#[derive(Debug)]
pub(super) struct Stopped(Failure);

impl From<Failure> for Stopped {
    fn from(why: Failure) -> Self {
        Self(why)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self(error.into())
    }
}

/// The base header of a record.
pub(super) fn header(record: &[u8]) -> Result<Base, Failure> {
    record.first_chunk().map(Base::parse).ok_or_else(|| Failure::new("klips sent half a message"))
}

/// What to do about a refusal, where there is something to do.
const fn remedy(base: &Base) -> &'static str {
    match base.errno {
        Errno::ESRCH => "; `dump' lists what there is",
        Errno::EEXIST => "; delete it first, or use update",
        Errno::ENOMEM => "; try again",
        _ => "",
    }
}
