//! `ipsec setkey`: SAs and policies in the language of setkey(8), over the Linux dialect of PF_KEY, so that scripts written
//! for KAME and ipsec-tools run.

mod grammar;
mod print;
mod record;

use super::{Failure, Usage, finish};
use crate::host::clock;
use crate::keyclient::{self, KeyClient};
use crate::print as out;
use crate::rundir::Rundir;
use grammar::Statement;
use jiff::tz::TimeZone;
use pfkey::dialect::Dialect;
use pfkey::dialect::linux::number::message;
use pfkey::dialect::linux::{Record, number};
use pfkey::{Base, Diagnostic, Errno};
use print::Look;
use record::Record as Ask;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::Duration;
use zeroize::Zeroizing;

/// What `ipsec setkey` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ipsec setkey -f /etc/ipsec-tools.conf    run a script
  ipsec setkey -DP                         show the policies
  echo 'spdflush;' | ipsec setkey -c       statements from standard input

ipsec_setkey(8) has the language.")]
pub struct Args {
    /// Run the statements on standard input
    #[arg(short = 'c', group = "what")]
    stdin: bool,
    /// Run the statements of a file
    #[arg(short = 'f', value_name = "FILE", group = "what")]
    file: Option<String>,
    /// Show the SAs; with -P the policies
    #[arg(short = 'D', group = "what")]
    dump: bool,
    /// Delete all SAs; with -P the policies
    #[arg(short = 'F', group = "what")]
    flush: bool,
    /// Print every PF_KEY message as it comes; twice: with times as plain numbers
    #[arg(short = 'x', action = clap::ArgAction::Count, group = "what")]
    watch: u8,
    /// Policies, for -D and -F
    #[arg(short = 'P')]
    policies: bool,
    /// Dead SAs, too, for -D
    #[arg(short = 'a')]
    all: bool,
    /// A line for each SA, for -D
    #[arg(short = 'l')]
    short: bool,
    /// Ports of SAs in UDP, for -D
    #[arg(short = 'p')]
    ports: bool,
    /// Check the statements and do nothing
    #[arg(short = 'n')]
    check: bool,
    /// Print what is sent, without its keys
    #[arg(short = 'v')]
    verbose: bool,
    /// Policies as Linux has them: one of direction in is none of direction fwd
    #[arg(short = 'k', conflicts_with = "rfc")]
    kernel: bool,
    /// Policies as RFC 4301 has them: in is for forwarded packets, too (the default)
    #[arg(short = 'r')]
    rfc: bool,
    /// JSON, one object in a line, for -D
    #[arg(long, requires = "dump")]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let outcome = match args {
        Args { dump: true, .. } => dump(args).map(|()| 0),
        Args { flush: true, policies, .. } => {
            let statement = if *policies { Statement::SpdFlush } else { Statement::Flush(0) };
            Session::new(args).and_then(|mut session| session.all("-F", &[(0, statement)]))
        }
        Args { watch: 1.., .. } => watch(args).map(|()| 0),
        Args { file: Some(path), .. } => read_file(path).and_then(|text| script(args, path, &text)),
        Args { stdin: true, .. } => {
            read(&mut io::stdin().lock()).and_then(|text| script(args, "stdin", &text))
        }
        _ => return Usage::new("one of -c, -f, -D, -F and -x says what to do").report("setkey"),
    };
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => finish("setkey", Err(why)),
    }
}

/// A script: no longer than anybody writes one.
const LONGEST_SCRIPT: u64 = 16 << 20;

fn read(from: &mut impl Read) -> Result<Zeroizing<String>, Failure> {
    // With room for all of it, so that keys are not left behind where it grew.
    let mut text = Zeroizing::new(String::with_capacity(1 << 20));
    let len = from.take(LONGEST_SCRIPT).read_to_string(&mut text).map_err(Failure::new)?;
    match u64::try_from(len) {
        Ok(len) if len < LONGEST_SCRIPT => Ok(text),
        _ => Err(Failure::new("more than 16 MiB of statements")),
    }
}

fn read_file(path: &str) -> Result<Zeroizing<String>, Failure> {
    let fail = |error: io::Error| Failure::new(format_args!("{path}: {error}"));
    let mut file = fs::File::open(path).map_err(fail)?;
    let about = file.metadata().map_err(fail)?;
    if about.is_file() && about.mode() & 0o077 != 0 {
        out::complain(format_args!("warning: others can read or change the keys in {path}; chmod 600 it"));
    }
    read(&mut file).map_err(|why| Failure::new(format_args!("{path}: {why}")))
}

/// Checks all statements, then runs them: how many of them failed.
fn script(args: &Args, name: &str, text: &str) -> Result<usize, Failure> {
    let statements =
        grammar::read(text, false).map_err(|wrong| Failure::new(format_args!("{name}:{wrong}")))?;
    if args.check {
        return Ok(0);
    }
    Session::new(args)?.all(name, &statements)
}

struct Session<'a> {
    args: &'a Args,
    client: KeyClient,
    buffer: Zeroizing<Vec<u8>>,
    look: Look,
}

/// Why a statement was refused.
struct Refused(Base);

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self(base) = self;
        let what = match base.errno {
            Errno::EEXIST => "it is there already",
            Errno::ESRCH => "no such SA",
            Errno::ENOENT => "there is none",
            number::errno::ENOSYS => "no such algorithm here",
            Errno::EOPNOTSUPP => "not supported",
            Errno::EINVAL => "not possible",
            errno => return write!(f, "{}", io::Error::from_raw_os_error(errno.0.into())),
        };
        f.write_str(what)?;
        match Diagnostic::from_number(base.diagnostic).filter(|diagnostic| *diagnostic != Diagnostic::None) {
            Some(diagnostic) => write!(f, ": {}", diagnostic.text()),
            None => Ok(()),
        }
    }
}

impl<'a> Session<'a> {
    fn new(args: &'a Args) -> Result<Self, Failure> {
        let client = KeyClient::connect_to(&Rundir::from_env(), Dialect::Linux).map_err(Failure::new)?;
        let look =
            Look { ports: args.ports, short: args.short, now: clock::wall(), zone: TimeZone::system() };
        Ok(Self { args, client, buffer: Zeroizing::new(vec![0; keyclient::LONGEST]), look })
    }

    /// Sends a record and shows every answer to `each`; the last is the one of sequence number `last`.
    fn converse(
        &mut self,
        ask: Ask,
        dump: bool,
        mut each: impl FnMut(&Record<'_>, &Look) -> Result<(), Failure>,
    ) -> Result<Result<(), Refused>, Failure> {
        let seq = self.client.next_seq();
        let record = ask.finish(seq).map_err(Failure::new)?;
        let asked = Record::parse(&record).map_err(Failure::new)?.base;
        if self.args.verbose {
            out::complain(format_args!(
                "sadb_msg: {} seq={seq}, {} octets",
                print::message(asked.number),
                record.len()
            ));
        }
        self.client.send(&record).map_err(Failure::new)?;
        loop {
            let until = clock::now().after(keyclient::PATIENCE);
            let len = self.client.hear(&mut self.buffer, Some(until)).map_err(Failure::new)?;
            let octets = self.buffer.get(..len).unwrap_or_default();
            let Some(base) = octets.first_chunk().map(Base::parse) else { continue };
            let ours = base.number == asked.number && base.pid == asked.pid && (dump || base.seq == seq);
            if !ours {
                continue;
            }
            if base.errno.0 != 0 {
                return Ok(Err(Refused(base)));
            }
            each(&Record::parse(octets).map_err(Failure::new)?, &self.look)?;
            if !dump || base.seq == 0 {
                return Ok(Ok(()));
            }
        }
    }

    /// Runs statements, says what fails, goes on, and says how many did.
    fn all(&mut self, name: &str, statements: &[(usize, Statement)]) -> Result<usize, Failure> {
        let mut wrong = 0;
        for (line, statement) in statements {
            if let Err(refused) = self.one(statement)? {
                let place = if *line == 0 { name.to_owned() } else { format!("{name}:{line}") };
                out::complain(format_args!("{place}: {refused}"));
                wrong += 1;
            }
        }
        Ok(wrong)
    }

    fn tell(&mut self, ask: Ask) -> Result<Result<(), Refused>, Failure> {
        self.converse(ask, false, |_, _| Ok(()))
    }

    fn one(&mut self, statement: &Statement) -> Result<Result<(), Refused>, Failure> {
        const DELETE: u8 = 4;
        const GET: u8 = 5;
        const FLUSH: u8 = 9;
        match statement {
            Statement::Flush(satype) => self.tell(Ask::new(FLUSH, *satype)),
            Statement::SpdFlush => self.tell(Ask::new(message::SPDFLUSH, 0)),
            Statement::Dump(satype) => self.dump_sas(*satype),
            Statement::SpdDump => self.dump_policies(),
            Statement::Add(add) => self.tell(record::add(add)),
            Statement::Get { src, dst, satype, spi } => {
                let ask = record::named(GET, *satype, *src, *dst, *spi);
                self.converse(ask, false, |record, look| {
                    Ok(show(print::sa(record, look).map_err(Failure::new)?.as_bytes())?)
                })
            }
            Statement::Delete { src, dst, satype, spi } => {
                self.tell(record::named(DELETE, *satype, *src, *dst, *spi))
            }
            Statement::DeleteAll { src, dst, satype } => {
                let mut spis = Vec::new();
                let found = self.converse(Ask::new(DUMP, *satype), true, |record, _| {
                    let ends = record.ends().ok().and_then(|(src, dst)| src.ip().zip(dst.ip()));
                    if ends == Some((*src, *dst)) {
                        spis.extend(record.sa(pfkey::ExtType::Sa.number()).ok().map(|sa| sa.spi));
                    }
                    Ok(())
                })?;
                if let Err(refused) = found.and(if spis.is_empty() { Err(nothing()) } else { Ok(()) }) {
                    return Ok(Err(refused));
                }
                for spi in spis {
                    if let Err(refused) = self.tell(record::named(DELETE, *satype, *src, *dst, spi))? {
                        return Ok(Err(refused));
                    }
                }
                Ok(Ok(()))
            }
            Statement::SpdAdd { selector, policy, update } => {
                let done = self.tell(record::spdadd(*selector, policy, *update))?;
                match record::forwarded(policy).filter(|_| !self.args.kernel && done.is_ok()) {
                    // One that is there from before goes with the one it belongs to.
                    Some(forward) => self.tell(record::spdadd(*selector, &forward, true)),
                    None => Ok(done),
                }
            }
            Statement::SpdDelete { selector, direction } => {
                let done = self.tell(record::spddelete(*selector, *direction))?;
                if *direction == pfkey::FlowDirection::In && !self.args.kernel && done.is_ok() {
                    // It may never have had one.
                    let _ = self.tell(record::spddelete(*selector, pfkey::FlowDirection::Forward))?;
                }
                Ok(done)
            }
        }
    }

    fn dump_sas(&mut self, satype: u8) -> Result<Result<(), Refused>, Failure> {
        let Args { json, all, .. } = *self.args;
        self.converse(Ask::new(DUMP, satype), true, |record, look| {
            let dead = record.sa(pfkey::ExtType::Sa.number()).is_ok_and(|sa| sa.state == pfkey::state::DEAD);
            if dead && !all {
                return Ok(());
            }
            if json {
                let object = print::sa_json(record).map_err(Failure::new)?;
                return Ok(show(Zeroizing::new(format!("{object}\n")).as_bytes())?);
            }
            Ok(show(print::sa(record, look).map_err(Failure::new)?.as_bytes())?)
        })
    }

    fn dump_policies(&mut self) -> Result<Result<(), Refused>, Failure> {
        let json = self.args.json;
        self.converse(Ask::new(message::SPDDUMP, 0), true, |record, look| {
            let text = match json {
                true => format!("{}\n", print::policy_json(record).map_err(Failure::new)?),
                false => print::policy(record, look).map_err(Failure::new)?,
            };
            Ok(show(text.as_bytes())?)
        })
    }
}

/// SADB_DUMP.
const DUMP: u8 = 10;

/// What a DUMP of nothing says.
fn nothing() -> Refused {
    let base = Base::parse(&[0; Base::LEN]);
    Refused(Base { errno: Errno::ENOENT, ..base })
}

/// Prints without a buffer that a key could stay in.
fn show(octets: &[u8]) -> io::Result<()> {
    out::Screen::new()?.write_all(octets)
}

/// -D and -DP. Where there is nothing, that is no failure.
fn dump(args: &Args) -> Result<(), Failure> {
    let mut session = Session::new(args)?;
    let outcome = if args.policies { session.dump_policies()? } else { session.dump_sas(0)? };
    match outcome {
        Err(Refused(base)) if base.errno == Errno::ENOENT => {
            let what = if args.policies { "No SPD entries." } else { "No SAD entries." };
            if args.json { Ok(()) } else { Ok(out::line(what)?) }
        }
        Err(refused) => Err(Failure::new(refused)),
        Ok(()) => Ok(()),
    }
}

/// -x: until somebody ends it.
fn watch(args: &Args) -> Result<(), Failure> {
    const PROMISC: u8 = 11;
    let mut session = Session::new(args)?;
    session.tell(Ask::new(PROMISC, 1))?.map_err(Failure::new)?;
    loop {
        let len = session.client.hear(&mut session.buffer, None).map_err(Failure::new)?;
        let octets = session.buffer.get(..len).unwrap_or_default();
        let Ok(record) = Record::parse(octets) else { continue };
        let now = jiff::Timestamp::now();
        let time = match args.watch {
            1 => now.to_zoned(session.look.zone.clone()).strftime("%H:%M:%S.%6f").to_string(),
            _ => format!(
                "{}.{:06}",
                now.as_second(),
                Duration::from_nanos(now.subsec_nanosecond().unsigned_abs().into()).as_micros()
            ),
        };
        let Base { number, errno, satype_number, seq, pid, .. } = record.base;
        let name = print::message(number);
        let head = format!("{time}\t{name} errno={} satype={satype_number} seq={seq} pid={pid}\n", errno.0);
        show(head.as_bytes())?;
        session.look.now = now.as_second().unsigned_abs();
        let policy = record.raw(number::ext::POLICY).is_some();
        if policy && let Ok(text) = print::policy(&record, &session.look) {
            show(text.as_bytes())?;
        } else if let Ok(text) = print::sa(&record, &session.look) {
            show(text.as_bytes())?;
        }
    }
}

#[cfg(test)]
mod tests;
