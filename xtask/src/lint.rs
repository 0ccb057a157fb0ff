//! `cargo xtask lint`.

use crate::run::{Failed, cargo, root, step, works};
use std::fs;
use std::path::Path;
use std::process::Command;

pub(crate) fn lint() -> Result<(), Failed> {
    paths_exist("ARCHITECTURE.md")?;
    tests_exist("docs/attacks.md")?;
    if !works(&mut cargo(&["fmt", "--version"])) || !works(&mut cargo(&["clippy", "--version"])) {
        step("rustup", Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))?;
    }
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step("clippy", &mut cargo(&clippy))?;
    let doc = ["doc", "--quiet", "--workspace", "--no-deps"];
    step("doc", cargo(&doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    let mut skipped = Vec::new();
    if works(&mut cargo(&["deny", "--version"])) {
        // Advisories need their database from the network; everything else is decided by what is in the tree.
        step("deny", &mut cargo(&["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]))?;
        if step("deny advisories", &mut cargo(&["deny", "--log-level", "error", "check", "advisories"]))
            .is_err()
        {
            if std::env::var_os("TULIPS_ADVISORIES").is_some() {
                return Err(Failed("cargo deny check advisories failed".into()));
            }
            skipped.push("advisories: failed or could not fetch its database (TULIPS_ADVISORIES=1 makes this an error)");
        }
    } else {
        skipped.push("cargo deny: not installed (cargo install cargo-deny)");
    }
    for what in skipped {
        println!("skipped: {what}");
    }
    println!("lint: passed");
    Ok(())
}

/// Every path that the map names is there: a map that lies is worse than none.
fn paths_exist(document: &str) -> Result<(), Failed> {
    println!("=== paths in {document}");
    let text = fs::read_to_string(root().join(document)).map_err(|e| Failed(format!("{document}: {e}")))?;
    let missing: Vec<&str> = paths(&text).filter(|path| !root().join(path).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failed(format!("{document} names what does not exist: {}", missing.join(", "))))
}

/// What stands between backticks and looks like a path of this repository.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let tops = ["crates", "xtask", "fuzz", "docs", ".ci", "bench"];
    text.split('`').skip(1).step_by(2).filter(move |word| {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
        let top = word.split('/').next().is_some_and(|first| tops.contains(&first));
        plain && (top || word.ends_with(".rs") || word.ends_with(".md"))
    })
}

/// Every attack of the table has a test, and the tests it names are there.
fn tests_exist(document: &str) -> Result<(), Failed> {
    println!("=== tests in {document}");
    let text = fs::read_to_string(root().join(document)).map_err(|e| Failed(format!("{document}: {e}")))?;
    let mut source = String::new();
    for top in ["crates", "fuzz/src"] {
        sources(&root().join(top), &mut source).map_err(|e| Failed(format!("{top}: {e}")))?;
    }
    let mut known = std::collections::BTreeSet::new();
    for (attack, tests) in attacks(&text) {
        if !known.insert(attack) {
            return Err(Failed(format!("{document} has two rows of {attack:?}")));
        }
        if tests.is_empty() {
            return Err(Failed(format!("{document}: no test shows what becomes of {attack:?}")));
        }
        if let Some(test) = tests.iter().find(|test| !source.contains(&format!("fn {test}("))) {
            return Err(Failed(format!("{document} names a test that does not exist: {test}")));
        }
    }
    Ok(())
}

/// Adds the text of every Rust source below `dir`.
fn sources(dir: &Path, all: &mut String) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, all)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// The rows of a table of three columns, `| attack | what stops it | shown by |`: the first, and what stands between
/// backticks in the last.
fn attacks(text: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| attack "));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [attack, _, shown_by] = cells[..] else { return (row, Vec::new()) };
        (attack, shown_by.split('`').skip(1).step_by(2).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_of_an_attack_are_found_in_its_row() {
        let text = "# Attacks\n\n| attack | what stops it | shown by |\n|---|---|---|\n\
                    | replay | the `window` | `a_b`, `c_d` |\n| none | luck | hope |\n| broken | row |\ntext `x`\n";
        let rows: Vec<_> = attacks(text).collect();
        assert_eq!(rows[0], ("replay", vec!["a_b", "c_d"]));
        assert_eq!(rows[1], ("none", vec![]));
        assert!(rows[2].1.is_empty());
        assert_eq!(rows.len(), 3);
    }

    #[test]
    fn paths_are_told_from_names() {
        let text = "`crates/klips` has `Sadb`, `src/x.rs`, `proc/`, `cargo xtask lint`; see `README.md` and `docs/a b`.";
        assert_eq!(paths(text).collect::<Vec<_>>(), ["crates/klips", "src/x.rs", "README.md"]);
    }
}
