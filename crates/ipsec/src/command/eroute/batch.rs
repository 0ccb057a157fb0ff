//! Many changes in one call: a file with a change on each line, all of them made or none.
//!
//! A line is what `ipsec eroute` would be given, or a row of the table as it was printed, which is added: what was saved with
//! `ipsec eroute >FILE` can be put back.

use super::{Args, Plan};
use crate::command::{Failure, Usage};
use crate::ctl::{Change, Client, Do, Request};
use crate::rundir::Rundir;
use crate::table::Form;
use crate::table::eroute::Line;
use clap::Parser;
use ipsec_core::Said;
use std::fs;
use std::io::{self, Read};

/// The longest file of changes.
const LONGEST: u64 = 4 << 20;

/// One line of options.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Words {
    #[command(flatten)]
    args: Args,
}

/// Makes all changes of a file, `-` for standard input.
pub(super) fn run(file: &str) -> Result<(), Failure> {
    let text = read(file).map_err(|error| Failure::new(format_args!("{file}: {error}")))?;
    let changes = changes(file, &text).map_err(Failure::new)?;
    if changes.is_empty() {
        return Ok(());
    }
    Client::connect(&Rundir::from_env())?.call(Request::Eroutes { changes })?;
    Ok(())
}

fn read(file: &str) -> io::Result<String> {
    let from: Box<dyn Read> =
        if file == "-" { Box::new(io::stdin()) } else { Box::new(fs::File::open(file)?) };
    let mut text = String::new();
    let octets = from.take(LONGEST + 1).read_to_string(&mut text)?;
    if octets as u64 > LONGEST {
        return Err(io::Error::other(format!("longer than {LONGEST} octets; split it")));
    }
    Ok(text)
}

/// The changes of a file; what is wrong with its first wrong line.
fn changes(file: &str, text: &str) -> Result<Vec<Change>, Usage> {
    let lines = (1..).zip(text.lines().map(str::trim));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            let (what, row) =
                change(line).map_err(|why| Usage::new(format_args!("{file}:{number}: {why}")))?;
            Ok(Change { what, row: row.write(Form::Man).trim_end().to_owned(), line: number })
        })
        .collect()
}

fn change(line: &str) -> Result<(Do, Line), Usage> {
    if !line.starts_with('-') {
        return Ok((Do::Add, line.parse().map_err(Usage::new)?));
    }
    let words = Words::try_parse_from(line.split_whitespace()).map_err(|error| {
        // The first line says what is wrong; the rest is about the command.
        Usage::new(error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: "))
    })?;
    let row = |selector, said| Line {
        packets: 0,
        selector,
        said,
        src_identity: String::new(),
        dst_identity: String::new(),
    };
    match words.args.plan()? {
        Plan::Add { selector, said, replace } => {
            Ok((if replace { Do::Replace } else { Do::Add }, row(selector, said)))
        }
        Plan::Delete(selector) => Ok((Do::Delete, row(selector, Said::Drop))),
        Plan::List | Plan::Explain(_) | Plan::Clear | Plan::Batch(_) => {
            Err(Usage::new("a line of a batch is --add, --replace or --del, or a row of the table"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_options_and_rows_of_the_table_are_changes() {
        let text = "\
# two ways
--add --src 10.1.0.0/16 --dst 10.2.0.0/16 --said esp0x1001@192.0.2.2

  --replace --src 10.1.0.0/16 --dst 0/0 --transport-proto tcp --dst-port 25 --said %reject
--del --src 10.3.0.0/16 --dst 10.2.0.0/16
12         10.1.0.0/16:0      -> 10.9.0.0/16:0      => %trap\t(east)\t()
0          fd00::/16          -> fd01::/16          => %hold
";
        let all = changes("f", text).unwrap();
        let what: Vec<Do> = all.iter().map(|change| change.what).collect();
        assert_eq!(what, [Do::Add, Do::Replace, Do::Delete, Do::Add, Do::Add]);
        assert_eq!(all.iter().map(|change| change.line).collect::<Vec<_>>(), [2, 4, 5, 6, 7]);
        // What is sent is read as what was meant.
        for change in &all {
            let row: Line = change.row.parse().unwrap();
            assert_eq!(row.write(Form::Man).trim_end(), change.row);
        }
        assert_eq!(all[3].row.parse::<Line>().unwrap().src_identity, "east");
    }

    #[test]
    fn the_first_wrong_line_is_named_and_nothing_is_asked() {
        for (text, why) in [
            ("\n--add --src 10.1.0.0/16\n", "f:2: --dst is required"),
            ("--clear\n", "f:1: a line of a batch"),
            ("10.1.0.0/16 to 10.2.0.0/16\n", "f:1: has wrong number of fields"),
            ("# x\n--add --nonsense\n", "f:2: unexpected argument '--nonsense'"),
            ("--batch f\n", "f:1: a line of a batch"),
        ] {
            let told = changes("f", text).unwrap_err().to_string();
            assert!(told.starts_with(why), "{told}");
        }
    }
}
