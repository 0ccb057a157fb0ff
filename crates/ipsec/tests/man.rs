//! The manual pages say what the programs do: as many options, no other ones, and help that fits a terminal.

#[path = "support/skipped.rs"]
mod skipped;

use ipsec::conf::{Conf, keys};
use skipped::skipped;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn pages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/man")
}

fn help(program: &str, command: &[&str], columns: &str) -> String {
    let out = Command::new(program).args(command).arg("--help").env("COLUMNS", columns).output();
    String::from_utf8(out.expect(program).stdout).expect("text")
}

/// Every command of `ipsec --help`, with the text of its own help; and the daemon.
fn programs() -> Vec<(String, String)> {
    let ipsec = env!("CARGO_BIN_EXE_ipsec");
    let main = help(ipsec, &[], "80");
    let list = main.split("Commands:\n").nth(1).expect("commands");
    let names = list.lines().take_while(|line| !line.is_empty());
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let mut all: Vec<_> = names.map(|name| (format!("ipsec_{name}"), help(ipsec, &[name], "80"))).collect();
    all.push(("ipsec".into(), main));
    all.push(("klips".into(), help(env!("CARGO_BIN_EXE_klips"), &[], "80")));
    all.push(("pluto".into(), help(env!("CARGO_BIN_EXE_pluto"), &[], "80")));
    all
}

#[test]
fn who_writes_a_command_of_another_program_is_told_what_it_is_here() {
    for (word, here) in [
        ("status", "`ipsec setup status'"),
        ("start", "`ipsec setup start'"),
        ("stop", "`ipsec setup stop'"),
        ("up", "`ipsec auto --up NAME'"),
        ("down", "`ipsec auto --down NAME'"),
    ] {
        let out =
            Command::new(env!("CARGO_BIN_EXE_ipsec")).args([word, "west-east"]).output().expect("ipsec");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && said.contains(here), "{word}: {said}");
    }
    let out = Command::new(env!("CARGO_BIN_EXE_ipsec")).arg("frob").output().expect("ipsec");
    assert!(!String::from_utf8_lossy(&out.stderr).contains("for that there is"));
}

/// The long options that a text has between characters that cannot belong to them.
fn long(text: &str, before: &str) -> BTreeSet<String> {
    let name = |at: &str| {
        let end = at.find(|c: char| !c.is_ascii_lowercase() && c != '-' && c != '_').unwrap_or(at.len());
        at[..end].to_owned()
    };
    text.split(before).skip(1).map(name).filter(|name| !name.is_empty() && name != "help").collect()
}

/// The options of a help text: what its lines begin with, and aliases.
fn options(help: &str) -> BTreeSet<String> {
    let lines =
        help.lines().map(str::trim_start).filter(|line| line.starts_with('-') || line.starts_with("[alias"));
    lines
        .filter_map(|line| line.find("--").and_then(|at| long(&line[at..], "--").into_iter().next()))
        .collect()
}

fn page(name: &str) -> Option<String> {
    ["8", "5"].iter().find_map(|section| fs::read_to_string(pages().join(format!("{name}.{section}"))).ok())
}

fn all_pages() -> Vec<(String, String)> {
    let entries = fs::read_dir(pages()).expect("docs/man");
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).expect("text"))
    };
    entries.map(read).collect()
}

#[test]
fn every_command_has_a_page_with_its_options_and_no_others() {
    for (name, help) in programs() {
        let Some(page) = page(&name) else { panic!("docs/man has no page {name}") };
        let mut has = options(&help);
        let mut says = long(&page, "Fl -");
        // It is of `ipsec` itself, before any command is known.
        says.remove("optionsfrom");
        has.remove("optionsfrom");
        assert_eq!(says, has, "left: docs/man/{name}; right: what `--help` lists");
    }
}

#[test]
fn the_page_of_ipsec_lists_every_command() {
    let page = page("ipsec").expect("page");
    for (name, _) in programs() {
        if let Some(command) = name.strip_prefix("ipsec_") {
            assert!(
                page.contains(&format!("\n.It Cm {command}\n")),
                "docs/man/ipsec.8 does not list {command}"
            );
        }
    }
}

#[test]
fn the_examples_use_options_that_there_are() {
    let known: BTreeSet<String> = programs().iter().flat_map(|(_, help)| options(help)).collect();
    // Of nsenter(1), of ours outside the list.
    let others = ["net", "optionsfrom"].map(String::from);
    for (name, text) in all_pages() {
        for option in long(&text, "--") {
            assert!(known.contains(&option) || others.contains(&option), "{name}: --{option}");
        }
    }
}

#[test]
fn the_keys_of_the_configuration_are_keys() {
    let (_, page) = all_pages().into_iter().find(|(name, _)| name == "ipsec.conf.5").expect("page");
    let keys = entries(&page, "config setup");
    assert!(keys.contains_key("interfaces"));
    for key in keys.keys() {
        let text = format!("config setup\n\t{key}=yes\n");
        let said = match Conf::parse("page", &text) {
            Ok(conf) => conf.warnings,
            Err(problems) => problems,
        };
        for problem in said {
            assert!(
                problem.what.starts_with("value must") || problem.what.starts_with("interface not"),
                "{problem}"
            );
        }
    }
}

/// The entries of a section of a page, by each of the names that one has.
fn entries(page: &str, section: &str) -> BTreeMap<String, String> {
    let of = page.split(&format!("\n.Ss {section}\n")).nth(1).expect("the section");
    let of = of.split("\n.Ss ").next().unwrap_or(of);
    let mut all = BTreeMap::new();
    for entry in of.split("\n.El").next().unwrap_or(of).split("\n.It Ic ").skip(1) {
        let (names, text) = entry.split_once('\n').unwrap_or((entry, ""));
        for name in names.split(" , ") {
            let twice = all.insert(name.to_owned(), text.to_owned());
            assert!(twice.is_none(), "{name} has two entries");
        }
    }
    all
}

#[test]
fn every_key_of_a_connection_is_explained_with_its_default() {
    let page = page("ipsec.conf").expect("page");
    let entries = entries(&page, "Keys of a connection");
    for key in keys() {
        let text = entries.get(&key).unwrap_or_else(|| panic!("ipsec.conf(5) has no entry for {key}="));
        let says = |word: &str| text.contains(word);
        let nothing = ["no effect", "Refused", "not needed", "For\n.Xr ipsec_manual 8"].into_iter().any(says);
        let without =
            ["default", "not given", "without it", "Without it", "are needed"].into_iter().any(says);
        assert!(text.len() > 20 && (nothing || without), "what is {key}= if it is not given? {text}");
    }
    let known: BTreeSet<String> = keys().collect();
    for key in entries.keys() {
        assert!(known.contains(key), "ipsec.conf(5) explains {key}=, which there is not");
    }
}

#[test]
fn references_among_our_pages_lead_somewhere() {
    for (name, text) in all_pages() {
        for line in text.lines().filter_map(|line| line.strip_prefix(".Xr ")) {
            let mut words = line.split(' ');
            let (to, section) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            if to.starts_with("ipsec") || to == "klips" || to == "pf_key" {
                assert!(pages().join(format!("{to}.{section}")).exists(), "{name} refers to {to}({section})");
            }
        }
    }
}

#[test]
fn the_pages_are_sound_mdoc() {
    let check =
        |name: &str| Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(pages().join(name)).output();
    for (name, _) in all_pages() {
        let Ok(out) = check(&name) else {
            skipped("no mandoc");
            return;
        };
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    }
}

#[test]
fn help_is_set_for_eighty_columns() {
    let end = |text: &str| {
        text.rsplit("Print help").next().unwrap_or("").split_once('\n').map(|(_, rest)| rest.to_owned())
    };
    let ipsec = env!("CARGO_BIN_EXE_ipsec");
    for (name, narrow) in programs() {
        let command: Vec<&str> = name.strip_prefix("ipsec_").into_iter().collect();
        let program = match name.as_str() {
            "klips" => env!("CARGO_BIN_EXE_klips"),
            "pluto" => env!("CARGO_BIN_EXE_pluto"),
            _ => ipsec,
        };
        assert_eq!(
            end(&narrow),
            end(&help(program, &command, "300")),
            "{name}: what follows the options was broken"
        );
    }
}
