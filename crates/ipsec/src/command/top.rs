//! `ipsec top`: connections, rates and refusals as they are now, anew every other second.

mod frame;

use super::{Failure, finish};
use crate::host::clock;
use crate::print;
use crate::rundir::{Rundir, confs};
use crate::watch::Snapshot;
use crossterm::event::{Event, KeyCode, KeyModifiers, poll, read};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{cursor, queue};
use frame::{Order, View};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// What `ipsec top` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys: q quit, t by traffic, n by name, s by state (what is down first), up and
down (or k and j) to scroll, space for a new look at once.
Where standard output is no terminal one picture is printed.")]
pub struct Args {
    /// Seconds between two pictures
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    delay: u64,
    /// One picture, of two looks a delay apart, and end
    #[arg(long)]
    once: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    finish("top", go(args))
}

fn go(args: &Args) -> Result<(), Failure> {
    let delay = Duration::from_secs(args.delay);
    let mut view = View::new(look(), clock::now());
    if args.once || !io::stdout().is_terminal() {
        std::thread::sleep(delay);
        view.next(look(), clock::now());
        return view.lines(usize::MAX, 100).iter().try_for_each(print::line).map_err(Failure::from);
    }
    let screen = Screen::enter()?;
    let outcome = live(&mut view, delay);
    drop(screen);
    outcome.map_err(|error| print::failed(error).into())
}

fn look() -> Snapshot {
    Snapshot::take(&Rundir::from_env(), &confs())
}

/// The terminal while it is ours; as it was when this goes, also if we end by a panic.
struct Screen;

impl Screen {
    fn enter() -> Result<Self, Failure> {
        enable_raw_mode().map_err(|error| Failure::new(format_args!("the terminal: {error}")))?;
        let screen = Self;
        queue!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        io::stdout().flush()?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = queue!(io::stdout(), cursor::Show, LeaveAlternateScreen);
        let _ = io::stdout().flush();
        let _ = disable_raw_mode();
    }
}

fn live(view: &mut View, delay: Duration) -> io::Result<()> {
    let mut due = clock::now().after(delay);
    loop {
        draw(view)?;
        let wait = due.since(clock::now());
        if wait.is_zero() {
            view.next(look(), clock::now());
            due = clock::now().after(delay);
            continue;
        }
        if !poll(wait)? {
            continue;
        }
        let Event::Key(key) = read()? else { continue };
        let interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
        if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
            return Ok(());
        }
        if let KeyCode::Char(letter) = key.code {
            match letter {
                't' => view.order = Order::Traffic,
                'n' => view.order = Order::Name,
                's' => view.order = Order::State,
                'j' => view.scroll(1),
                'k' => view.scroll(-1),
                ' ' => due = clock::now(),
                _ => {}
            }
        } else if key.code == KeyCode::Down {
            view.scroll(1);
        } else if key.code == KeyCode::Up {
            view.scroll(-1);
        }
    }
}

fn draw(view: &mut View) -> io::Result<()> {
    let (columns, rows) = size()?;
    let mut out = io::stdout().lock();
    queue!(out, cursor::MoveTo(0, 0))?;
    let lines = view.lines(rows.into(), columns.into());
    for (at, line) in lines.iter().take(rows.into()).enumerate() {
        queue!(out, cursor::MoveTo(0, u16::try_from(at).unwrap_or(u16::MAX)), Clear(ClearType::CurrentLine))?;
        out.write_all(line.as_bytes())?;
    }
    queue!(out, Clear(ClearType::FromCursorDown))?;
    out.flush()
}
