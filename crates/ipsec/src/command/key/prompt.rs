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
    let mut words: Vec<Word> = Vec::new();
    let mut typed = Zeroizing::new(String::new());
    loop {
        let prompt = if typed.is_empty() { "ipseckey> " } else { "> " };
        let line = match editor.readline(prompt) {
            Ok(line) => Zeroizing::new(line),
            Err(ReadlineError::Interrupted) => {
                words.clear();
                typed.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(Failure::new(error)),
        };
        let split = words::split(&line, 0, &mut words);
        if !typed.is_empty() {
            typed.push(' ');
        }
        typed.push_str(line.trim_end_matches('\\').trim());
        match split {
            Ok(true) => continue,
            Ok(false) if words.is_empty() => {}
            Ok(false) => {
                if !has_key(&words) {
                    editor.add_history_entry(typed.as_str()).map_err(Failure::new)?;
                }
                let outcome = grammar::command(&words, Place::Prompt).map_err(Failure::from);
                match outcome.and_then(|command| session.carry_out(&command)) {
                    Ok(After::More) => {}
                    Ok(After::Quit) => return Ok(ExitCode::SUCCESS),
                    Err(why) => eprintln!("{why}"),
                }
            }
            Err(why) => eprintln!("{why}"),
        }
        words.clear();
        typed.clear();
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
        assert!(!has_key(&line("get esp spi 0x1001 dst 2001:db8::1234:5678:9abc:def0")));
    }
}
