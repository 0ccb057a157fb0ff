//! `ipsec run`: an unmodified program that opens `socket(PF_KEY, SOCK_RAW, PF_KEY_V2)` gets our PF_KEY service.

mod restart;

use super::{Failure, finish};
use crate::rundir::Rundir;
use pfkey::dialect::Dialect;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What `ipsec run` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ipsec run -- ./keymanager -d        a key manager written from pf_key(7P)
  ipsec run -- strace -f ./keymanager with everything it starts
  ipsec run --dialect linux -- iked -d one written for Linux or KAME
  ipsec run --dialect klips -- ./klipstool  one written for KLIPS
  ipsec run --restart --dialect linux -- iked -d
                                      one that begins and ends with klips

The program is started in place of this one, with libpfkey_preload.so in
LD_PRELOAD: its PF_KEY sockets are connections to pf_key.sock of the run
directory, or to that of another dialect, and nothing else about it changes.
What it starts inherits that. A C program for it includes <net/pfkeyv2.h>.

It needs a dynamically linked program that gains no privileges when it is
started: the dynamic linker of others does not look at LD_PRELOAD.")]
pub struct Args {
    /// The PF_KEY that the program was written for
    #[arg(long, value_name = "DIALECT", default_value = "native", value_parser = dialect)]
    dialect: Dialect,
    /// Start the program when there is a data plane, end it when that has gone, and start it again with the next
    #[arg(long)]
    restart: bool,
    /// Started by `ipsec run --restart`, as this process
    #[arg(long, hide = true, value_name = "PID", conflicts_with = "restart")]
    kept_by: Option<u32>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// The shim's file.
const SHIM: &str = "libpfkey_preload.so";
/// What the shim reads.
const SOCKET: &str = "IPSEC_PFKEY_SOCKET";
/// Interpreters of interpreters, as many as Linux follows.
const SCRIPTS: usize = 4;

/// Runs the command. Returns only if that could not be done, or with the program's end.
pub fn run(args: &Args) -> ExitCode {
    if args.restart {
        let found = args.program.first().map_or(Ok(()), |name| can_be_shimmed(&find(name)?));
        return match found.and_then(|()| restart::keep(&args.program, args.dialect)) {
            Ok(code) => code,
            Err(why) => finish("run", Err(why)),
        };
    }
    let ready = args.kept_by.map_or(Ok(()), restart::be_kept);
    finish("run", ready.and_then(|()| start(&args.program, args.dialect)))
}

fn dialect(name: &str) -> Result<Dialect, String> {
    let known = || Dialect::ALL.iter().map(|dialect| dialect.name()).collect::<Vec<_>>().join(", ");
    Dialect::from_name(name).ok_or_else(|| format!("no such dialect; there are {}", known()))
}

fn start(words: &[OsString], dialect: Dialect) -> Result<(), Failure> {
    let (name, arguments) = words.split_first().ok_or_else(|| Failure::new("what is to be run?"))?;
    let program = find(name)?;
    can_be_shimmed(&program)?;
    let shim = shim()?;
    let mut preload = shim.into_os_string();
    // Whoever preloads something else goes on doing so, behind us.
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    // The program may go to another directory before it opens a socket.
    let socket = std::path::absolute(Rundir::from_env().dialect_sock(dialect)).map_err(Failure::new)?;
    let mut command = Command::new(&program);
    command.arg0(name).args(arguments);
    command.env("LD_PRELOAD", preload).env(SOCKET, socket);
    let error = command.exec();
    Err(Failure::new(format_args!("{}: {error}", program.display())))
}

/// Where a program is, as a shell would find it.
fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    let executable =
        |path: &Path| fs::metadata(path).is_ok_and(|at| at.is_file() && at.permissions().mode() & 0o111 != 0);
    if name.as_encoded_bytes().contains(&b'/') {
        return Ok(name.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join(name)).find(|path| executable(path));
    found.ok_or_else(|| Failure::new(format_args!("{}: no such program in PATH", name.display())))
}

/// Beside this program, or where a package puts libraries.
fn shim() -> Result<PathBuf, Failure> {
    let exe = env::current_exe().map_err(|error| Failure::new(format_args!("who am I: {error}")))?;
    let dir = exe.parent().unwrap_or(Path::new("/"));
    let places = [dir.join(SHIM), dir.join("../lib/tulips").join(SHIM), dir.join("../lib").join(SHIM)];
    let found = places.iter().find(|place| place.is_file()).ok_or_else(|| {
        Failure::new(format_args!(
            "no {SHIM} in {} or ../lib; `cargo build -p pfkey-preload` builds it",
            dir.display()
        ))
    })?;
    // The dynamic linker takes blanks and colons for separators and says nothing.
    let found = fs::canonicalize(found)
        .map_err(|error| Failure::new(format_args!("{}: {error}", found.display())))?;
    if found.as_os_str().as_encoded_bytes().iter().any(|octet| b" :".contains(octet)) {
        return Err(Failure::new(format_args!(
            "{}: LD_PRELOAD cannot name a file with a blank or a colon in its path; move it",
            found.display()
        )));
    }
    Ok(found)
}

/// Refuses what the dynamic linker would start without the shim, and says why.
fn can_be_shimmed(program: &Path) -> Result<(), Failure> {
    let mut file = program.to_path_buf();
    for _ in 0..=SCRIPTS {
        let refuse = |why: &str| Failure::new(format_args!("{}: {why}", file.display()));
        let read = |error: io::Error| refuse(&error.to_string());
        gains_nothing(&file).map_err(refuse)?;
        let mut opened = fs::File::open(&file).map_err(read)?;
        let mut start = Vec::new();
        opened.by_ref().take(1 << 12).read_to_end(&mut start).map_err(read)?;
        if let Some(line) = start.strip_prefix(b"#!") {
            let line = line.split(|octet| *octet == b'\n').next().unwrap_or_default();
            let interpreter = line.split(|octet| b" \t".contains(octet)).find(|word| !word.is_empty());
            let interpreter = interpreter.ok_or_else(|| refuse("a script that names no interpreter"))?;
            let interpreter = String::from_utf8_lossy(interpreter).into_owned();
            file = interpreter.into();
            continue;
        }
        return is_dynamic(&opened, &start).map_err(refuse);
    }
    Err(Failure::new(format_args!("{}: scripts that interpret scripts", program.display())))
}

/// Secure execution (ld.so(8)): LD_PRELOAD is not looked at.
fn gains_nothing(file: &Path) -> Result<(), &'static str> {
    let Ok(at) = fs::metadata(file) else { return Ok(()) };
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    if at.mode() & 0o4000 != 0 && at.uid() != uid || at.mode() & 0o2000 != 0 && at.gid() != gid {
        return Err("it is setuid or setgid, so LD_PRELOAD has no effect on it; run it as its owner");
    }
    let mut value = [0_u8; 64];
    let capabilities = rustix::fs::getxattr(file, "security.capability", value.as_mut_slice());
    if capabilities.is_ok() && uid != 0 {
        return Err("it has file capabilities, so LD_PRELOAD has no effect on it; run it as root");
    }
    Ok(())
}

/// Whether an ELF program of our kind names a dynamic linker (PT_INTERP), and one that can load the shim.
fn is_dynamic(file: &fs::File, start: &[u8]) -> Result<(), &'static str> {
    const PT_INTERP: u64 = 3;
    const CUT: &str = "an ELF program cut short";
    let ours = fs::read("/proc/self/exe").ok().and_then(|exe| exe.get(..20).map(<[u8]>::to_vec));
    if start.get(..4) != Some(b"\x7fELF") {
        return Err("neither an ELF program nor a script that names its interpreter");
    }
    // Class, byte order and machine.
    let kind = |elf: &[u8]| Some((elf.get(4..6)?.to_vec(), elf.get(18..20)?.to_vec()));
    if ours.as_deref().and_then(kind) != kind(start) {
        return Err("it is for another kind of machine than the shim");
    }
    // Elf64: e_phoff at 32, e_phentsize at 54, e_phnum at 56. The table may lie anywhere; patchelf puts it last.
    let table = || Some((number(start, 32, 8)?, number(start, 54, 2)?, number(start, 56, 2)?));
    let (at, size, count) = table().ok_or(CUT)?;
    for index in 0..count {
        let mut entry = [0_u8; 56];
        let here = index.checked_mul(size).and_then(|more| at.checked_add(more)).ok_or(CUT)?;
        file.read_exact_at(&mut entry, here).map_err(|_| CUT)?;
        if number(&entry, 0, 4) == Some(PT_INTERP) {
            // p_offset at 8. A path is no longer than PATH_MAX.
            let mut linker = Vec::new();
            let mut rest = file;
            let there = number(&entry, 8, 8).ok_or(CUT)?;
            rest.seek(SeekFrom::Start(there))
                .and_then(|_| rest.take(4096).read_to_end(&mut linker))
                .map_err(|_| CUT)?;
            let path = linker.split(|octet| *octet == 0).next().unwrap_or_default();
            if path.windows(7).any(|part| part == b"ld-musl") {
                return Err("it is linked with musl, and the shim with glibc");
            }
            return Ok(());
        }
    }
    Err(
        "it is statically linked, so nothing can be put before its socket(); it would need to speak to pf_key.sock itself (pf_key(7))",
    )
}

/// A number of an ELF file of this machine's byte order.
fn number(octets: &[u8], at: usize, len: usize) -> Option<u64> {
    let octets = octets.get(at..at.checked_add(len)?)?;
    let number = |whole: u64, octet: &u8| whole << 8 | u64::from(*octet);
    Some(if cfg!(target_endian = "little") {
        octets.iter().rev().fold(0, number)
    } else {
        octets.iter().fold(0, number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dynamic_linker_would_shim_is_started() {
        can_be_shimmed(Path::new("/proc/self/exe")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, octets: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, octets).unwrap();
            path
        };
        let why = |path: &Path| can_be_shimmed(path).unwrap_err().to_string();
        let mut elf = fs::read("/proc/self/exe").unwrap();
        elf.truncate(1 << 16);
        // Without PT_INTERP it is static: every program header becomes PT_NULL.
        let (at, size, count) = (64, 56, usize::from(elf[56]));
        for index in 0..count {
            elf[at + index * size..][..4].fill(0);
        }
        assert!(why(&file("static", &elf)).contains("statically linked"));
        // A table behind everything else, as patchelf leaves it, that names a linker.
        let mut patched = elf.clone();
        patched[32..40].copy_from_slice(&(1_u64 << 20).to_le_bytes());
        patched[56..58].copy_from_slice(&1_u16.to_le_bytes());
        assert!(why(&file("cut", &patched)).contains("cut short"));
        patched.resize(1 << 20, 0);
        let names = |linker: &[u8]| {
            let mut whole = patched.clone();
            whole.extend([3, 0, 0, 0, 4, 0, 0, 0]);
            whole.extend(((1_u64 << 20) + 56).to_le_bytes());
            whole.resize((1 << 20) + 56, 0);
            whole.extend(linker);
            whole
        };
        can_be_shimmed(&file("patched", &names(b"/lib64/ld-linux-x86-64.so.2\0"))).unwrap();
        assert!(why(&file("musl", &names(b"/lib/ld-musl-x86_64.so.1\0"))).contains("musl"));
        elf[18] ^= 0xff;
        assert!(why(&file("machine", &elf)).contains("another kind of machine"));
        assert!(why(&file("text", b"hello")).contains("neither an ELF"));
        let script = file("script", format!("#! {}/static\n", dir.path().display()).as_bytes());
        assert!(why(&script).contains("statically linked"));
        file("loop", format!("#!{}/loop\n", dir.path().display()).as_bytes());
        assert!(why(&dir.path().join("loop")).contains("scripts that interpret"));
        if rustix::process::geteuid().is_root() {
            let theirs = file("setuid", &fs::read("/proc/self/exe").unwrap()[..1 << 16]);
            std::os::unix::fs::chown(&theirs, Some(12_345), None).unwrap();
            fs::set_permissions(&theirs, fs::Permissions::from_mode(0o4755)).unwrap();
            assert!(why(&theirs).contains("setuid"));
        }
    }
}
