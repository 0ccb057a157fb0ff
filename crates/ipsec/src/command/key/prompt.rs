//! Somebody types: a prompt, a line editor, a history that has no keys in it and goes with the program.

use super::attribute::{Keyword, keyword};
use super::grammar::{self, Place};
use super::session::{After, Session, Style};
use super::words::{self, Word};
use crate::command::Failure;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Asks for commands until there are no more.
pub(super) fn converse(style: Style) -> Result<ExitCode, Failure> {
    let mut session = Session::new(style)?;
    let mut editor = DefaultEditor::new().map_err(Failure::new)?;
    let mut typed = Typed::default();
    loop {
        let prompt = if typed.text.is_empty() { "ipseckey> " } else { "> " };
        let line = match editor.readline(prompt) {
            Ok(line) => Zeroizing::new(line),
            Err(ReadlineError::Interrupted) => {
                typed = Typed::default();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(Failure::new(error)),
        };
        // What is pasted may be several lines.
        for line in line.lines().chain(line.is_empty().then_some("")) {
            match typed.line(line) {
                Ok(None) => {}
                Ok(Some((words, text))) => {
                    if let Some(text) = text {
                        editor.add_history_entry(text.as_str()).map_err(Failure::new)?;
                    }
                    let outcome = grammar::command(&words, Place::Prompt).map_err(Failure::from);
                    match outcome.and_then(|command| session.carry_out(&command)) {
                        Ok(After::More) => {}
                        Ok(After::Quit) => return Ok(ExitCode::SUCCESS),
                        Err(why) => crate::print::complain(why),
                    }
                }
                Err(why) => crate::print::complain(why),
            }
        }
    }
}

/// A whole command and what may be remembered of it.
type Whole = (Vec<Word>, Option<Zeroizing<String>>);

/// A command that may not be finished yet.
#[derive(Default)]
struct Typed {
    words: Vec<Word>,
    text: Zeroizing<String>,
}

impl Typed {
    /// Takes a line; a command that is whole comes back.
    fn line(&mut self, line: &str) -> Result<Option<Whole>, &'static str> {
        let more = words::split(line, 0, &mut self.words);
        let line = line.trim_end().trim_end_matches('\\').trim();
        let mut text = Zeroizing::new(String::with_capacity(self.text.len() + 1 + line.len()));
        text.push_str(&self.text);
        if !text.is_empty() && !line.is_empty() {
            text.push(' ');
        }
        text.push_str(line);
        if more == Ok(true) {
            self.text = text;
            return Ok(None);
        }
        let words = core::mem::take(&mut self.words);
        *self = Self::default();
        more?;
        let remembered = (!has_key(&words)).then_some(text);
        Ok((!words.is_empty()).then_some((words, remembered)))
    }
}

/// Whether a line must not be remembered. One that was mistyped may have a key in it under another name.
fn has_key(words: &[Word]) -> bool {
    let named = |word: &Word| matches!(keyword(&word.text), Some(Keyword::AuthKey | Keyword::EncryptKey));
    let long =
        |word: &Word| word.text.len() >= 32 && word.text.bytes().filter(u8::is_ascii_hexdigit).count() >= 32;
    words.iter().any(|word| named(word) || long(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<Word> {
        let mut words = Vec::new();
        words::split(text, 1, &mut words).unwrap();
        words
    }

    #[test]
    fn lines_with_keys_are_not_remembered() {
        for text in [
            "add esp spi 1 authkey 00",
            "add esp ENCRKEY 00",
            "add esp encrky 000102030405060708090a0b0c0d0e0f",
        ] {
            assert!(has_key(&line(text)), "{text}");
        }
        let mut typed = Typed::default();
        assert!(typed.line("add esp authkey \\").unwrap().is_none(), "it goes on");
        let (words, text) = typed.line(" 00 spi 1").unwrap().unwrap();
        assert!(words.len() == 6 && text.is_none());
        assert!(!has_key(&line("get esp spi 0x1001 dst 2001:db8::1234:5678:9abc:def0")));
    }

    #[test]
    fn continued_lines_are_remembered_as_one() {
        let mut typed = Typed::default();
        assert!(typed.line("get esp \\").unwrap().is_none());
        let (words, text) = typed.line("  spi 1 ").unwrap().unwrap();
        assert_eq!((words.len(), text.unwrap().as_str()), (4, "get esp spi 1"));
        assert!(typed.line("").unwrap().is_none() && typed.line("# nothing").unwrap().is_none());
        assert!(typed.line("get \"esp").is_err());
        assert!(typed.line("dump").unwrap().is_some(), "and nothing is left of it");
    }
}
