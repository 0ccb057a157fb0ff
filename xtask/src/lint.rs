//! `cargo xtask lint`.

use crate::run::{Failed, cargo, root, step, works};
use std::fs;
use std::process::Command;

pub(crate) fn lint() -> Result<(), Failed> {
    paths_exist("ARCHITECTURE.md")?;
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

/// Every path that the map names is there (style.md R22: a map that lies is worse than none).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_names() {
        let text = "`crates/klips` has `Sadb`, `src/x.rs`, `proc/`, `cargo xtask lint`; see `README.md` and `docs/a b`.";
        assert_eq!(paths(text).collect::<Vec<_>>(), ["crates/klips", "src/x.rs", "README.md"]);
    }
}
