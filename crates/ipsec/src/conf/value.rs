//! Values: yes and no, times, and the braces of include patterns.

use std::time::Duration;

/// `yes`, `y`, `true`, `on` and their opposites, in either case.
pub fn flag(value: &str) -> Option<bool> {
    let is = |words: [&str; 4]| words.iter().any(|word| word.eq_ignore_ascii_case(value));
    if is(["yes", "y", "true", "on"]) {
        Some(true)
    } else if is(["no", "n", "false", "off"]) {
        Some(false)
    } else {
        None
    }
}

/// A time: a number with `s`, `m`, `h`, `d` or `w` behind it, seconds without; `%forever` is no time at all.
pub fn time(value: &str) -> Option<Duration> {
    if value.eq_ignore_ascii_case("%forever") {
        return Some(Duration::ZERO);
    }
    let (number, unit) = match value.char_indices().last()? {
        (at, 's' | 'S') => (&value[..at], 1),
        (at, 'm' | 'M') => (&value[..at], 60),
        (at, 'h' | 'H') => (&value[..at], 3_600),
        (at, 'd' | 'D') => (&value[..at], 86_400),
        (at, 'w' | 'W') => (&value[..at], 604_800),
        _ => (value, 1),
    };
    // No sign, no blanks: `parse` alone would take `+5`.
    if !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs)
}

/// What `a{b,c}d` stands for: `abd` and `acd`. Braces that do not close are taken as they are.
pub(super) fn braces(pattern: &str) -> Vec<String> {
    // A pattern of nothing but braces would grow without bound.
    const MOST: usize = 256;
    let mut open = vec![pattern.to_owned()];
    let mut done = Vec::new();
    while let Some(pattern) = open.pop() {
        let inner = pattern.rfind('{').and_then(|from| {
            let to = pattern[from..].find('}')? + from;
            Some((from, to))
        });
        match inner {
            Some((from, to)) if open.len() + done.len() < MOST => {
                let choices = pattern[from + 1..to].split(',').rev();
                open.extend(
                    choices.map(|choice| format!("{}{choice}{}", &pattern[..from], &pattern[to + 1..])),
                );
            }
            _ => done.push(pattern),
        }
    }
    done
}
