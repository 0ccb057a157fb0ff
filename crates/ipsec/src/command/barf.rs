//! `ipsec barf`: everything somebody needs who is to find out what is wrong, and no key.
//!
//! What may hold a secret is never copied: of ipsec.conf only settings are printed, those that name keys without their values
//! and no comment; of ipsec.secrets only how many there are. Tables of SAs print no keys by themselves.

use super::{Failure, finish, verify};
use crate::conf::{Conf, Problem, Setting, secrets};
use crate::print;
use crate::process;
use crate::rundir::{Rundir, confs};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// What `ipsec barf` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  ipsec barf >barf.txt

It holds addresses, names and configuration, and no keys, secrets or comments of
files; look at it before you give it to somebody.
Exit codes: 0 done, 1 failed (the reason is on stderr).")]
pub struct Args {
    /// Lines of the log
    #[arg(long, value_name = "N", default_value_t = 500)]
    lines: u32,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    finish("barf", go(args).map_err(Failure::from))
}

fn go(args: &Args) -> std::io::Result<()> {
    let rundir = Rundir::from_env();
    let section = |title: &str, text: &str| print::text(format_args!("+ {title}\n{}\n\n", text.trim_end()));
    section("host", &host())?;
    for words in [
        &["setup", "status"][..],
        &["setup", "status", "--json"],
        &["auto", "--status"],
        &["auto", "--status", "--json"],
        &["look", "--json"],
        &["spi", "--json"],
        &["pf_key"],
        &["pf_key", "--registered"],
        &["showdefaults"],
    ] {
        section(&format!("ipsec {}", words.join(" ")), &ours(words))?;
    }
    section("ipsec verify", &checks(&verify::all()))?;
    section("ipsec.conf, settings alone, values of keys left out", &configuration(&confs()))?;
    section("ipsec.secrets", &counted(&confs().join("ipsec.secrets")))?;
    section("run directory", &listing(rundir.path()))?;
    section("ipsec.info", &fs::read_to_string(rundir.info()).unwrap_or_else(|error| error.to_string()))?;
    for (program, words) in [
        ("ip", &["-brief", "address"][..]),
        ("ip", &["route", "show", "table", "all"]),
        ("ip", &["-6", "route", "show", "table", "all"]),
        ("ip", &["rule"]),
        ("ip", &["-statistics", "link"]),
        ("nft", &["list", "ruleset"]),
        ("ss", &["-uanp"]),
    ] {
        section(&format!("{program} {}", words.join(" ")), &output(Command::new(program).args(words)))?;
    }
    for path in ["/proc/net/snmp", "/proc/net/netstat", "/proc/net/dev", "/proc/meminfo", "/proc/loadavg"] {
        section(path, &fs::read_to_string(path).unwrap_or_else(|error| error.to_string()))?;
    }
    let lines = args.lines.to_string();
    let mut log = Command::new("journalctl");
    log.args([
        "--no-pager",
        "--lines",
        &lines,
        "-t",
        "pluto",
        "-t",
        "klips",
        "-t",
        "ipsec_setup",
        "-u",
        "ipsec",
    ]);
    section("log", &output(&mut log))
}

/// What is wrong with the two files is said with the value that is, which may be a secret in the wrong place: of these checks
/// the outcome alone.
fn checks(all: &[verify::Check]) -> String {
    let mut text = String::new();
    for check in all {
        let tells = matches!(check.id, "configuration" | "secrets") && check.grade != verify::Grade::Good;
        let _ = if tells {
            writeln!(text, "{:5}{}: `ipsec verify' says what is wrong", check.word(), check.id)
        } else {
            writeln!(text, "{}", check.line())
        };
    }
    text
}

fn host() -> String {
    let name = rustix::system::uname();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let release = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("").to_owned();
    format!(
        "{}\n{} {} {} {}\n{}\nup {} s",
        super::version::LINE,
        name.sysname().to_string_lossy(),
        name.release().to_string_lossy(),
        name.version().to_string_lossy(),
        name.machine().to_string_lossy(),
        release.trim_matches('"'),
        rustix::system::sysinfo().uptime
    )
}

/// What another command of ours says.
fn ours(words: &[&str]) -> String {
    match process::program() {
        Ok(program) => output(Command::new(program).args(words)),
        Err(error) => error.to_string(),
    }
}

/// What a program says; that it is not there, or failed, is part of what is to be known.
fn output(command: &mut Command) -> String {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => {
            let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.push_str(&String::from_utf8_lossy(&output.stderr));
            if !output.status.success() {
                let _ = write!(text, "({})", output.status);
            }
            text
        }
        Err(error) => format!("({error})"),
    }
}

/// Whether the value of a key may be secret. Rather once too often: public keys are left out, too.
fn is_secret(key: &str) -> bool {
    let harmless = ["keyexchange", "keyingtries", "keylife", "keep_alive", "rekey", "pfkeygroup"];
    let telling = ["key", "secret", "psk", "pass", "pin", "xauth"];
    // `rekeymargin`, `rekeyfuzz` and their like are times.
    !harmless.contains(&key) && !key.starts_with("rekey") && telling.iter().any(|word| key.contains(word))
}

fn configuration(confs: &Path) -> String {
    let line = |out: &mut String, Setting { key, value, at }: &Setting| {
        let value = if is_secret(key) { "(left out)" } else { value };
        let _ = writeln!(out, "\t{key}={value}\t# {}:{}", at.file.display(), at.line);
    };
    let mut out = String::new();
    match Conf::load(confs) {
        Ok(conf) => {
            out.push_str("config setup\n");
            conf.setup.settings.iter().for_each(|setting| line(&mut out, setting));
            for conn in &conf.conns {
                let _ = writeln!(out, "conn {}", conn.name);
                conn.settings.iter().for_each(|setting| line(&mut out, setting));
            }
        }
        // What is wrong is said with the value that is, which may be a secret in the wrong place.
        Err(problems) => problems.iter().for_each(|Problem { at, .. }| {
            let _ = writeln!(
                out,
                "{}:{}: not understood: `ipsec auto --check' says what",
                at.file.display(),
                at.line
            );
        }),
    }
    out
}

fn counted(file: &Path) -> String {
    match secrets::read(file) {
        Ok(read) => {
            format!("{} preshared keys, {} entries passed over", read.secrets.psks.len(), read.warnings.len())
        }
        Err(problems) => {
            let places =
                problems.iter().map(|Problem { at, .. }| format!("{}:{}", at.file.display(), at.line));
            format!("not understood: {}", places.collect::<Vec<_>>().join(", "))
        }
    }
}

fn listing(dir: &Path) -> String {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten(),
        Err(error) => return format!("{}: {error}", dir.display()),
    };
    let mut lines: Vec<String> = entries
        .map(|entry| {
            let size = entry.metadata().map_or(0, |at| at.len());
            format!("{} {size}", entry.path().display())
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_keys_and_comments_are_left_out_and_the_rest_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let text = "# the old secret was tulip\nconfig setup\n\tpfkeygroup=wheel # tulip\nconn a\n\tleft=192.0.2.1\n\t\
                    espenckey=0x7475_6c6970\n\tleftrsasigkey=0stulip\n\tikelifetime=1h\n\trekeymargin=9m\n\tkeyingtries=3\n";
        fs::write(dir.path().join("ipsec.conf"), text).unwrap();
        let said = configuration(dir.path());
        assert!(!said.contains("tulip") && !said.contains("7475"), "{said}");
        for there in
            ["pfkeygroup=wheel", "left=192.0.2.1", "ikelifetime=1h", "rekeymargin=9m", "keyingtries=3"]
        {
            assert!(said.contains(there), "{there}: {said}");
        }
        // An error names the value; it is not repeated here, nor by what looks at the file.
        fs::write(dir.path().join("ipsec.conf"), "config setup\n\tuniqueids=tulip\n").unwrap();
        assert!(!configuration(dir.path()).contains("tulip"));
        let all = verify::of_files(dir.path());
        assert!(all.iter().any(|check| check.line().contains("tulip")), "nothing was to be left out");
        let said = checks(&all);
        assert!(!said.contains("tulip") && said.contains("FAIL configuration"), "{said}");
    }

    #[test]
    fn secrets_are_counted_and_not_shown() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ipsec.secrets");
        fs::write(&file, ": PSK \"tulip\"\n@a @b : PSK \"tulip too\"\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(counted(&file), "2 preshared keys, 0 entries passed over");
        fs::write(&file, "tulip PSK \"tulip\n").unwrap();
        assert!(!counted(&file).replace(&file.display().to_string(), "").contains("tulip"));
    }
}
