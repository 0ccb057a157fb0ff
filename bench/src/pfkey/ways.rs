//! The other ways to the service, beside the native socket: the sockets of the dialects, and `socket(PF_KEY, …)` of a program
//! under the shim.
//!
//! One record goes all ways: an ESP SA in transport mode, in numbers that all dialects have in common.

use super::{Batch, Line, PID, SAMPLE, WINDOW, per_second, with_service};
use crate::measure::{Options, median, nanos};
use crate::report::{figure, row};
use pfkey::dialect::Dialect;
use pfkey::{Address, Base, ExtType, MessageType, Sa, SaType, Writer, state};
use serde_json::json;
use std::io::{self, Read as _, Write as _};
use std::os::fd::FromRawFd as _;
use std::path::Path;
use std::process::Command;

/// OpenIKED gives an answer one millisecond.
const OPENIKED_WAITS_NS: f64 = 1e6;

/// What a message about the `n`-th SA says, in any dialect.
fn about(kind: MessageType, n: u32) -> Vec<u8> {
    let mut writer = Writer::with_capacity(&Base::request(kind, SaType::Esp, n.max(1), PID), 512);
    let spi = 0x1000 + n;
    // HMAC-SHA1 and AES-CBC.
    let whole = Sa { spi, replay: 32, state: state::MATURE, auth: 3, encrypt: 12, flags: 0 };
    writer.sa(&if kind == MessageType::Add { whole } else { Sa { spi, ..Sa::default() } });
    writer.address(ExtType::AddressSrc, &Address::host([192, 0, 2, 1].into()));
    writer.address(ExtType::AddressDst, &Address::host([198, 18, (n >> 8) as u8, n as u8].into()));
    if kind == MessageType::Add {
        let mut key = [0x5a; 20];
        key[..4].copy_from_slice(&n.to_be_bytes());
        writer.key(ExtType::KeyAuth, 160, 0, &key);
        writer.key(ExtType::KeyEncrypt, 128, 0, &key[..16]);
    }
    writer.finish().expect("a short message")
}

fn batch(kind: MessageType) -> Batch {
    let len = about(kind, 0).len();
    Batch { octets: (0..SAMPLE).flat_map(|n| about(kind, n)).collect(), len }
}

/// Each dialect's socket beside the native one.
pub(super) fn dialects(options: &Options, dir: &Path) -> io::Result<()> {
    const KINDS: [MessageType; 3] = [MessageType::Add, MessageType::Get, MessageType::Delete];
    let rounds = if options.quick { 3 } else { 9 };
    let name = |dialect: Dialect, kind| {
        format!("pfkey dialect {}, {}", dialect.name(), format!("{kind:?}").to_uppercase())
    };
    let others = || Dialect::ALL.iter().copied().filter(|dialect| *dialect != Dialect::Native);
    if !others().any(|dialect| KINDS.iter().any(|kind| options.wants(&name(dialect, *kind)))) {
        return Ok(());
    }
    let batches = KINDS.map(batch);
    let mut samples = vec![[const { Vec::new() }; KINDS.len()]; Dialect::ALL.len()];
    for round in 0..rounds {
        for (dialect, samples) in Dialect::ALL.iter().zip(&mut samples) {
            let path = dir.join(format!("{}{round}", dialect.name()));
            let taken = with_service(*dialect, &path, |line| {
                [&batches[0], &batches[1], &batches[2]].map(|batch| line.one_by_one(batch))
            })?;
            samples.iter_mut().zip(taken).for_each(|(samples, sample)| samples.push(sample));
        }
    }
    let medians: Vec<[f64; KINDS.len()]> = samples.into_iter().map(|samples| samples.map(median)).collect();
    let native = Dialect::ALL.iter().position(|dialect| *dialect == Dialect::Native).unwrap_or(0);
    for (at, dialect) in Dialect::ALL.iter().enumerate().filter(|(at, _)| *at != native) {
        for (n, kind) in KINDS.iter().enumerate() {
            let (time, beside) = (medians[at][n], medians[native][n]);
            row(&[
                ("bench", json!(name(*dialect, *kind))),
                ("one_by_one_per_s", per_second(time)),
                ("native_per_s", per_second(beside)),
                ("time_of_native", figure(time / beside)),
            ]);
        }
    }
    Ok(())
}

/// `ipsec run`'s library beside the native socket: one GET at a time, and how long the slowest take. OpenIKED gives an answer
/// one millisecond, counted from when its write has returned; it is there then.
pub(super) fn shim(options: &Options, dir: &Path) -> io::Result<()> {
    let name = "pfkey shim, GET";
    if !options.wants(name) {
        return Ok(());
    }
    let exe = std::env::current_exe()?;
    let library = exe.with_file_name("libpfkey_preload.so");
    if !library.exists() {
        eprintln!("{name}: no {}; `cargo build --release -p pfkey-preload` builds it", library.display());
        return Ok(());
    }
    let (adds, gets) = (batch(MessageType::Add), batch(MessageType::Get));
    let path = dir.join("shim");
    // OpenIKED's millisecond begins when its write is done.
    let (mut native, mut shimmed, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    with_service(Dialect::Native, &path, |line: &mut Line| -> io::Result<()> {
        for some in adds.octets.chunks(WINDOW * adds.len) {
            some.chunks_exact(adds.len).for_each(|record| line.send(record));
            some.chunks_exact(adds.len).for_each(|_| assert!(super::well(line.receive())));
        }
        // The first sample finds cold caches.
        for _ in 0..=if options.quick { 3 } else { 9 } {
            native = gets
                .iter()
                .map(|record| {
                    nanos(|| {
                        line.send(record);
                        assert!(super::well(line.receive()));
                    })
                })
                .collect();
            // What others hear costs the service time, and this socket would not read it.
            let mut command = Command::new(&exe);
            command.args(["pfkey-under-shim"]).env("LD_PRELOAD", &library).env("IPSEC_PFKEY_SOCKET", &path);
            let said = command.output()?;
            if !said.status.success() {
                return Err(io::Error::other(String::from_utf8_lossy(&said.stderr).into_owned()));
            }
            let (times, _) = said.stdout.as_chunks::<8>();
            let times = times.iter().map(|octets| f64::from_ne_bytes(*octets)).collect::<Vec<_>>();
            let (both, _) = times.as_chunks::<2>();
            (shimmed, reads) = both.iter().map(|[whole, read]| (*whole, *read)).unzip();
        }
        Ok(())
    })??;
    let at = |times: &mut Vec<f64>, part: f64| {
        times.sort_by(f64::total_cmp);
        times.get((times.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN) / 1e3
    };
    let (middle, beside) = (at(&mut shimmed, 0.5), at(&mut native, 0.5));
    row(&[
        ("bench", json!(name)),
        ("median_us", figure(middle)),
        ("native_median_us", figure(beside)),
        ("time_of_native", figure(middle / beside)),
        ("p999_us", figure(at(&mut shimmed, 0.999))),
        ("native_p999_us", figure(at(&mut native, 0.999))),
        ("openiked_waits_us", json!(OPENIKED_WAITS_NS / 1e3)),
        ("later_than_that", json!(reads.iter().filter(|time| **time > OPENIKED_WAITS_NS).count())),
        ("of", json!(shimmed.len())),
    ]);
    Ok(())
}

/// The program under the shim: asks, reads what must lie ready, and writes how long each took, and of that the reading.
#[expect(unsafe_code, reason = "the calls of C are what is measured; rustix would go past the shim")]
pub(crate) fn under_shim() -> io::Result<()> {
    const PF_KEY: i32 = 15;
    const PF_KEY_V2: i32 = 2;
    // SAFETY: numbers only; the descriptor is nobody else's.
    let mut socket = unsafe {
        let fd = nix::libc::socket(PF_KEY, nix::libc::SOCK_RAW, PF_KEY_V2);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        std::fs::File::from_raw_fd(fd)
    };
    let mut buffer = [0; 4096];
    let mut times = Vec::with_capacity(SAMPLE as usize * 8);
    for get in batch(MessageType::Get).iter() {
        let (mut asked, mut heard) = (Ok(()), Ok(0));
        let write = nanos(|| asked = socket.write_all(get));
        let read = nanos(|| heard = socket.read(&mut buffer));
        asked.and(heard)?;
        assert!(super::well(&buffer), "refused");
        times.extend((write + read).to_ne_bytes());
        times.extend(read.to_ne_bytes());
    }
    io::stdout().write_all(&times)
}
