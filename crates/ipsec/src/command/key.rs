//! `ipsec key`, also called `ipseckey`: the SADB by hand, over PF_KEY. And `ipsec monitor`.
//!
//! The commands, words and files of the illumos ipseckey(8). Keys come from files and from the prompt, never from the
//! command line; what holds them in memory is wiped.

mod attribute;
mod build;
mod grammar;
mod help;
mod json;
mod monitor;
mod names;
mod print;
mod prompt;
mod save;
mod session;
mod store;
mod words;

use super::{Failure, Usage, finish};
use crate::print as out;
use grammar::{Command, Place};
use pfkey::SaType;
use session::{After, Session, Style};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use words::{BadLine, Lines, Word};
use zeroize::Zeroizing;

/// What `ipsec key` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Without a command it asks for one; `ipsec key help' lists them. Commands with
keys are taken from a file or at the prompt only.

  ipsec key dump esp
  ipsec key get esp spi 0x1001 dst 192.0.2.1
  ipsec key -s /etc/ipsec.d/keys      save all SAs
  ipsec key -f /etc/ipsec.d/keys      load them again")]
pub struct Args {
    /// Numbers instead of names; nothing is looked up
    #[arg(short = 'n')]
    numeric: bool,
    /// Show what is sent, and times also in seconds
    #[arg(short = 'v')]
    verbose: bool,
    /// Paranoid: XX instead of keys
    #[arg(short = 'p')]
    paranoid: bool,
    /// Run the commands of a file; - is standard input
    #[arg(short = 'f', value_name = "FILE", conflicts_with_all = ["check", "save", "command"])]
    file: Option<String>,
    /// Check the commands of a file and send nothing
    #[arg(short = 'c', value_name = "FILE", conflicts_with_all = ["save", "command"])]
    check: Option<String>,
    /// Save all SAs to a file; - is standard output
    #[arg(short = 's', value_name = "FILE", conflicts_with = "command")]
    save: Option<String>,
    /// Print get, dump and monitor as JSON, one object in a line
    #[arg(long)]
    json: bool,
    /// One command
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

/// What `ipsec monitor` takes.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = "\
It ends on Ctrl-C, and says then how many messages it was too slow for.
Keys are never printed; `ipsec key monitor' does.")]
pub struct MonitorArgs {
    /// Numbers instead of names; nothing is looked up
    #[arg(short = 'n')]
    numeric: bool,
    /// Times also in seconds
    #[arg(short = 'v')]
    verbose: bool,
    /// Only what every PF_KEY socket hears, not what is meant for others
    #[arg(long)]
    passive: bool,
    /// JSON, one object in a line
    #[arg(long)]
    json: bool,
}

/// Runs `ipsec key`.
pub fn run(args: &Args) -> ExitCode {
    let Args { numeric, verbose, paranoid, json, .. } = *args;
    let style = Style { numeric, verbose, paranoid, json };
    if !args.command.is_empty() {
        let word = |text: &String| Word { text: Zeroizing::new(text.clone()), line: 0 };
        let words: Vec<Word> = args.command.iter().map(word).collect();
        return match grammar::command(&words, Place::Arguments) {
            Ok(command) => single(style, &command),
            Err(wrong) => Usage::new(wrong).report("key"),
        };
    }
    if let Some(path) = &args.save {
        let path = Some(path.clone()).filter(|path| path != "-");
        return single(style, &Command::Save(SaType::Unspec, path));
    }
    let outcome = match (&args.file, &args.check) {
        (Some(path), _) => source(path).and_then(|source| load(style, path, source, Place::File)),
        (None, Some(path)) => source(path).and_then(|source| check(path, source)),
        (None, None) if io::stdin().is_terminal() => prompt::converse(style),
        (None, None) => load(style, "stdin", Box::new(io::stdin().lock()), Place::Prompt),
    };
    match outcome {
        Ok(code) => code,
        Err(why) => finish("key", Err(why)),
    }
}

/// Runs `ipsec monitor`.
pub fn monitor(args: &MonitorArgs) -> ExitCode {
    let MonitorArgs { numeric, verbose, passive, json } = *args;
    // Who watches wants to know what happens, not what others have asked for.
    let style = Style { numeric, verbose, paranoid: true, json };
    let command = Command::Monitor { active: !passive };
    finish("monitor", Session::new(style).and_then(|mut session| session.carry_out(&command).map(drop)))
}

fn single(style: Style, command: &Command) -> ExitCode {
    finish("key", Session::new(style).and_then(|mut session| session.carry_out(command).map(drop)))
}

/// Opens a file of commands.
fn source(path: &str) -> Result<Box<dyn Read>, Failure> {
    if path == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let fail = |why: &dyn core::fmt::Display| Failure::new(format_args!("{path}: {why}"));
    let file = File::open(path).map_err(|error| fail(&error))?;
    let about = file.metadata().map_err(|error| fail(&error))?;
    if !about.is_file() {
        return Err(fail(&"not a regular file; - reads standard input"));
    }
    if about.mode() & 0o077 != 0 {
        out::complain(format_args!("warning: others can read or change the keys in {path}; chmod 600 it"));
    }
    let owners = [0, rustix::process::geteuid().as_raw()];
    if !owners.contains(&about.uid()) {
        out::complain(format_args!(
            "warning: {path} belongs to uid {}, who can change the keys; chown it to root",
            about.uid()
        ));
    }
    Ok(Box::new(file))
}

/// Reads commands and hands them over; says what is wrong with the others, and how many there were.
fn each(
    name: &str,
    source: Box<dyn Read>,
    place: Place,
    mut run: impl FnMut(&Command) -> Result<After, Failure>,
) -> Result<usize, Failure> {
    let mut lines = Lines::new(source);
    let mut wrong = 0;
    while let Some(line) = lines.words() {
        let words = match line {
            Ok(words) => words,
            Err(BadLine::Io(error)) => return Err(Failure::new(format_args!("{name}: {error}"))),
            Err(BadLine::Text { line, why }) => {
                out::complain(format_args!("{name}:{line}: {why}"));
                wrong += 1;
                continue;
            }
        };
        let begin = words.first().map_or(0, |word| word.line);
        let outcome = match grammar::command(&words, place) {
            Ok(command) => run(&command).map_err(|why| (begin, why)),
            Err(why) => Err((why.line, why.into())),
        };
        match outcome {
            Ok(After::More) => {}
            Ok(After::Quit) => break,
            Err((line, why)) => {
                let command = words.first().map_or("", |word| word.text.as_str());
                out::complain(format_args!("{name}:{line}: {command}: {why}"));
                wrong += 1;
            }
        }
    }
    Ok(wrong)
}

fn code(wrong: usize) -> ExitCode {
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs everything that can be run.
fn load(style: Style, name: &str, source: Box<dyn Read>, place: Place) -> Result<ExitCode, Failure> {
    let mut session = Session::new(style)?;
    each(name, source, place, |command| session.carry_out(command)).map(code)
}

fn check(name: &str, source: Box<dyn Read>) -> Result<ExitCode, Failure> {
    let quits = |command: &Command| if *command == Command::Quit { After::Quit } else { After::More };
    each(name, source, Place::File, |command| Ok(quits(command))).map(code)
}
