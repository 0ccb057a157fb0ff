//! Standard output and standard error, the same for every command.
//!
//! What is printed either arrives or is an error that says so: [`std::println!`] would panic instead. A reader that has
//! seen enough (`ipsec eroute | head`) is no error: [`unread`] tells it apart, and the command ends quietly. What goes
//! to standard error has nowhere else to go, so it is tried and no more.

use core::fmt;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsFd;

/// Standard output could not be written to. Inside of an [`io::Error`] it tells this apart from trouble with a file or
/// a socket.
#[derive(Debug)]
struct Unprinted(io::Error);

impl fmt::Display for Unprinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "standard output: {}", self.0)
    }
}

impl Error for Unprinted {}

/// Marks an error as one of standard output.
pub fn failed(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unprinted(error))
}

/// Whether an error is one of standard output.
pub fn is_unprinted(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<Unprinted>)
}

/// Whether an error means that nobody reads standard output any more.
pub fn unread(error: &io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe && is_unprinted(error)
}

/// Standard output without a buffer, so that nothing of what may be a key stays behind in one.
#[derive(Debug)]
pub struct Screen(File);

impl Screen {
    /// Standard output as it is now.
    pub fn new() -> io::Result<Self> {
        Ok(Self(File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?)))
    }

    /// With a buffer, for long tables; what is in it when this goes is lost, so it is to be flushed.
    pub fn buffered() -> io::Result<BufWriter<Self>> {
        Ok(BufWriter::with_capacity(1 << 16, Self::new()?))
    }
}

impl Write for Screen {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self.0.write(octets) {
            // It is tried again by who asked, who must not see another kind.
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(failed(error)),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints text.
pub fn text(text: impl fmt::Display) -> io::Result<()> {
    Screen::new()?.write_all(text.to_string().as_bytes())
}

/// Prints text and a line end.
pub fn line(text: impl fmt::Display) -> io::Result<()> {
    self::text(format_args!("{text}\n"))
}

/// Says something on standard error, in one piece.
pub fn complain(text: impl fmt::Display) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Seconds as `47s`, `12m`, `3h`, `9d`; `-` where there are none.
pub fn span(seconds: Option<u64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(s @ 0..=119) => format!("{s}s"),
        Some(s @ 120..=7199) => format!("{}m", s / 60),
        Some(s @ 7200..=172_799) => format!("{}h", s / 3600),
        Some(s) => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (s, text) in [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d")] {
            assert_eq!(span(Some(s)), text);
        }
        assert_eq!(span(None), "-");
    }

    #[test]
    fn only_standard_output_without_a_reader_is_nobodys_fault() {
        let pipe = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(unread(&failed(pipe())));
        assert!(!unread(&pipe()), "a daemon that hangs up is");
        assert!(!unread(&failed(ErrorKind::StorageFull.into())));
        assert!(failed(ErrorKind::StorageFull.into()).to_string().starts_with("standard output: "));
    }
}
