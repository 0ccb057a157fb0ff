//! Lines of `ipsec key` as words: quotes, comments, continued lines.
//!
//! There may be keys in a line. It stays in buffers that are wiped and never grow, and what is wrong with it is said
//! without repeating it.

use std::io::{self, Read};
use zeroize::Zeroizing;

/// The longest line, continued ones joined.
const LONGEST: usize = 1 << 16;

/// One word and where it stood. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// The word without its quotes.
    pub(super) text: Zeroizing<String>,
    /// The line of the file, counted from 1.
    pub(super) line: usize,
}

impl core::fmt::Debug for Word {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Word({} characters, line {})", self.text.len(), self.line)
    }
}

/// Why there are no words.
#[derive(Debug)]
pub(super) enum BadLine {
    /// The file could not be read.
    Io(io::Error),
    /// What is wrong with this line; the next one can be read.
    Text {
        /// Counted from 1.
        line: usize,
        /// In words.
        why: &'static str,
    },
}

/// Splits one physical line; says whether the next one continues it.
pub(super) fn split(text: &str, line: usize, words: &mut Vec<Word>) -> Result<bool, &'static str> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if words.is_empty() && text.trim_start().starts_with('#') {
        return Ok(false);
    }
    let (text, continued) = match text.strip_suffix('\\') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let room = text.len();
    let mut word: Option<Word> = None;
    let mut quoted = false;
    for c in text.chars() {
        if c.is_ascii_whitespace() && !quoted {
            words.extend(word.take());
            continue;
        }
        // Room for all of the line: a key is never copied by growing.
        let word =
            word.get_or_insert_with(|| Word { text: Zeroizing::new(String::with_capacity(room)), line });
        match c {
            '"' => quoted = !quoted,
            c if c.is_control() => return Err("a control character; this is a file of text"),
            c => word.text.push(c),
        }
    }
    if quoted {
        return Err("a quotation mark is not closed on its line; close it");
    }
    words.extend(word);
    Ok(continued)
}

/// Reads a file line by line.
pub(super) struct Lines<R> {
    source: R,
    buffer: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
    line: usize,
}

impl<R> core::fmt::Debug for Lines<R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Lines(line {})", self.line)
    }
}

impl<R: Read> Lines<R> {
    /// From the beginning.
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: Zeroizing::new(vec![0; LONGEST]), start: 0, end: 0, line: 0 }
    }

    /// The words of the next line that has any; `None` at the end.
    pub(super) fn words(&mut self) -> Option<Result<Vec<Word>, BadLine>> {
        let mut words = Vec::new();
        loop {
            let range = match self.physical() {
                Ok(Some(range)) => range,
                Ok(None) => return (!words.is_empty()).then_some(Ok(words)),
                Err(error) => return Some(Err(error)),
            };
            let line = self.line;
            let octets = self.buffer.get(range).unwrap_or_default();
            let split = match core::str::from_utf8(octets) {
                Ok(text) => split(text, line, &mut words),
                Err(_) => Err("not UTF-8 text"),
            };
            match split {
                Ok(true) if words.len() > LONGEST / 16 => {
                    return Some(Err(BadLine::Text { line, why: "more than 4096 words in a line" }));
                }
                Ok(true) => {}
                Ok(false) if words.is_empty() => {}
                Ok(false) => return Some(Ok(words)),
                Err(why) => return Some(Err(BadLine::Text { line, why })),
            }
        }
    }

    /// Where the next physical line lies in the buffer, its end included.
    fn physical(&mut self) -> Result<Option<core::ops::Range<usize>>, BadLine> {
        self.line += 1;
        loop {
            let held = self.buffer.get(self.start..self.end).unwrap_or_default();
            if let Some(len) = memchr::memchr(b'\n', held) {
                let range = self.start..self.start + len + 1;
                self.start = range.end;
                return Ok(Some(range));
            }
            if held.len() == self.buffer.len() {
                self.skip().map_err(BadLine::Io)?;
                return Err(BadLine::Text { line: self.line, why: "longer than 65536 octets" });
            }
            if self.fill().map_err(BadLine::Io)? == 0 {
                let rest = self.start..self.end;
                self.start = self.end;
                return Ok((!rest.is_empty()).then_some(rest));
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        loop {
            match self.source.read(room) {
                Ok(len) => {
                    self.end += len;
                    return Ok(len);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes to the end of a line that is too long.
    fn skip(&mut self) -> io::Result<()> {
        loop {
            let held = self.buffer.get(self.start..self.end).unwrap_or_default();
            if let Some(len) = memchr::memchr(b'\n', held) {
                self.start += len + 1;
                return Ok(());
            }
            (self.start, self.end) = (0, 0);
            if self.fill()? == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Said = Result<Vec<(String, usize)>, (usize, &'static str)>;

    fn all(text: &str) -> Vec<Said> {
        let mut lines = Lines::new(text.as_bytes());
        core::iter::from_fn(|| lines.words())
            .map(|words| match words {
                Ok(words) => Ok(words.into_iter().map(|w| (w.text.to_string(), w.line)).collect()),
                Err(BadLine::Text { line, why }) => Err((line, why)),
                Err(BadLine::Io(error)) => panic!("{error}"),
            })
            .collect()
    }

    fn words(text: &str) -> Vec<String> {
        all(text).remove(0).unwrap().into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn blanks_separate_and_quotes_hold_together() {
        assert_eq!(words("get  esp\tspi 0x100\r\n"), ["get", "esp", "spi", "0x100"]);
        assert_eq!(words("a \"b c\" d\"e \"f \"\""), ["a", "b c", "de f", ""]);
    }

    #[test]
    fn comments_and_empty_lines_are_nothing() {
        assert_eq!(all("# a comment \\\n\n   # another\nflush"), [Ok(vec![("flush".to_owned(), 4)])]);
        assert_eq!(words("get #1"), ["get", "#1"], "only at the beginning of a line");
        assert!(all("").is_empty());
    }

    #[test]
    fn a_backslash_at_the_end_continues_and_every_word_knows_its_line() {
        let word = |text: &str, line| (text.to_owned(), line);
        assert_eq!(
            all("add esp \\\n  spi 1 \\\n\nflush\\\n"),
            [
                Ok(vec![word("add", 1), word("esp", 1), word("spi", 2), word("1", 2)]),
                Ok(vec![word("flush", 4)])
            ]
        );
        assert_eq!(words("a\\b"), ["a\\b"], "elsewhere it is itself");
    }

    #[test]
    fn a_bad_line_does_not_hide_the_next() {
        let long = "x".repeat(LONGEST * 3);
        let lines = all(&format!("a \"b\n{long}\nflush\n"));
        assert_eq!(lines[0].as_ref().unwrap_err().0, 1);
        assert_eq!(lines[1].as_ref().unwrap_err().0, 2);
        assert_eq!(lines[2], Ok(vec![("flush".to_owned(), 3)]));
    }

    #[test]
    fn debug_does_not_show_the_word() {
        let mut words = Vec::new();
        split("deadbeef", 1, &mut words).unwrap();
        assert!(!format!("{words:?}").contains("deadbeef"));
    }
}
