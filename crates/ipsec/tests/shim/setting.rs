//! The shim, programs in C, and how one is run with the other.

use crate::host::{Host, IPSEC, Said};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where `net/pfkeyv2.h` is.
pub(crate) const INCLUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pfkey/include");
/// Where the programs in C are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shim");

/// Whether there is such a program.
pub(crate) fn has(program: &str) -> bool {
    let quiet = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Builds the shim beside `ipsec`, where `ipsec run` looks for it: cargo makes no library of a package that is only
/// tested, and a stale one would be tested in its place.
pub(crate) fn build_shim() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = Path::new(IPSEC).parent().expect("a directory");
        let Some(cargo) = std::env::var_os("CARGO") else {
            assert!(dir.join("libpfkey_preload.so").exists(), "cargo build -p pfkey-preload builds it");
            return;
        };
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--package", "pfkey-preload", "--target-dir"]);
        command.arg(dir.parent().expect("target")).current_dir(env!("CARGO_MANIFEST_DIR"));
        if dir.ends_with("release") {
            command.arg("--release");
        }
        assert!(command.status().expect("cargo").success(), "the shim does not build");
    });
}

/// Starts the data plane of a host, and builds the shim.
pub(crate) fn start(host: &Host) {
    build_shim();
    let said = host.ipsec(&["setup", "start"]);
    assert_eq!(said.code, 0, "{said:?}");
}

/// A host with a running data plane and no devices. `None`, and why on stderr, where there can be none.
pub(crate) fn host() -> Option<Host> {
    let host = Host::new("%none")?;
    start(&host);
    Some(host)
}

/// Compiles one of our programs into the directory of a host.
pub(crate) fn compile(host: &Host, compiler: &str, words: &[&str], source: &str) -> PathBuf {
    let program = host.dir.path().join(format!("{source}-{compiler}-{}", words.concat().replace('/', "_")));
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Werror", "-I", INCLUDE]).args(words).arg("-o").arg(&program);
    command.arg(Path::new(SOURCES).join(source)).arg("-pthread");
    let said: Said = command.output().expect("a compiler").into();
    assert_eq!(said.code, 0, "{compiler} {words:?} {source}: {}", said.err);
    program
}

/// `ipsec run -- PROGRAM …` on a host.
pub(crate) fn under_run(host: &Host, program: &Path, args: &[&str]) -> Command {
    under_run_as(host, &[], program, args)
}

/// The same with options of its own.
pub(crate) fn under_run_as(host: &Host, options: &[&str], program: &Path, args: &[&str]) -> Command {
    let mut command = host.command(IPSEC, &["run"]);
    command.args(options).arg("--").arg(program).args(args).env("DAEMON", host.daemon().pid.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(crate) fn run(host: &Host, program: &Path, args: &[&str]) -> Said {
    let mut command = under_run(host, program, args);
    host.namespace.run(|| command.output()).expect("namespace").expect("ipsec run").into()
}
