//! `ipsec newhostkey` and `ipsec showhostkey`: keys that this host signs with.

use super::{Failure, finish};
use crate::conf::files;
use crate::print;
use crate::rundir::confs;
use base64ct::{Base64, Encoding};
use clap::ValueEnum;
use ipsec_core::sign::{Curve, KeyKind, PrivateKey};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::process::ExitCode;

/// Kinds of keys.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyType {
    Rsa,
    Ecdsa,
    Ed25519,
}

/// What `ipsec newhostkey` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ipsec newhostkey                            an ECDSA key: ipsec.d/private/host.key
  ipsec newhostkey --keytype rsa --bits 3072 --output west.key

A key that is there is never replaced. `ipsec showhostkey' prints its public half.
Exit codes: 0 done, 1 failed (the reason is on stderr), 2 usage.")]
pub struct NewArgs {
    /// The kind of key
    #[arg(long, value_enum, default_value_t = KeyType::Ecdsa)]
    keytype: KeyType,
    /// Bits of an RSA key: 2048, 3072, 4096 or 8192; of an ECDSA key: 256, 384 or 521
    #[arg(long)]
    bits: Option<u16>,
    /// The file, below ipsec.d/private
    #[arg(long, default_value = "host.key", value_name = "FILE")]
    output: String,
}

/// What `ipsec showhostkey` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ipsec showhostkey                 the public half of ipsec.d/private/host.key
  ipsec showhostkey --left west.key a line for ipsec.conf, here and at the peer

Nothing of the private half is printed.
Exit codes: 0 done, 1 failed (the reason is on stderr), 2 usage.")]
pub struct ShowArgs {
    /// The file of the private key, below ipsec.d/private
    #[arg(default_value = "host.key")]
    file: String,
    /// As a line for ipsec.conf, for the left side
    #[arg(long, conflicts_with = "right")]
    left: bool,
    /// The same, for the right side
    #[arg(long)]
    right: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs `ipsec newhostkey`.
pub fn new(args: &NewArgs) -> ExitCode {
    finish("newhostkey", make(args))
}

/// Runs `ipsec showhostkey`.
pub fn show(args: &ShowArgs) -> ExitCode {
    finish("showhostkey", tell(args))
}

fn make(args: &NewArgs) -> Result<(), Failure> {
    let bits = args.bits;
    let wrong = |sizes: &str| Failure::new(format_args!("--bits {}: write {sizes}", bits.unwrap_or(0)));
    let (kind, bits, word) = match (args.keytype, bits) {
        (KeyType::Rsa, None) => (KeyKind::Rsa, 3072, "RSA"),
        (KeyType::Rsa, Some(bits @ (2048 | 3072 | 4096 | 8192))) => (KeyKind::Rsa, bits, "RSA"),
        (KeyType::Rsa, Some(_)) => return Err(wrong("2048, 3072, 4096 or 8192 for RSA")),
        (KeyType::Ecdsa, None | Some(256)) => (KeyKind::Ec(Curve::P256), 0, "ECDSA"),
        (KeyType::Ecdsa, Some(384)) => (KeyKind::Ec(Curve::P384), 0, "ECDSA"),
        (KeyType::Ecdsa, Some(521)) => (KeyKind::Ec(Curve::P521), 0, "ECDSA"),
        (KeyType::Ecdsa, Some(_)) => return Err(wrong("256, 384 or 521 for ECDSA")),
        (KeyType::Ed25519, None) => (KeyKind::Ed25519, 0, "ED25519"),
        (KeyType::Ed25519, Some(_)) => return Err(Failure::new("--bits: an Ed25519 key has one size")),
    };
    if args.output.starts_with('.') || args.output.contains('/') {
        let why =
            format_args!("--output {}: write a name, not a path: keys are in ipsec.d/private", args.output);
        return Err(Failure::new(why));
    }
    let directory = confs().join("ipsec.d/private");
    let path = directory.join(&args.output);
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new(format_args!(
            "{}: there is a key already, and peers may know it: name another file with --output",
            path.display()
        )),
        _ => Failure::new(format_args!("{}: {error}", path.display())),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
    // First the file, which nobody else can open, then the key.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = file.map_err(failed)?;
    let written =
        PrivateKey::generate(kind, bits).map_err(|error| error.to_string()).and_then(|(key, pkcs8)| {
            let pem = files::pem("PRIVATE KEY", &pkcs8);
            file.write_all(pem.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|error| error.to_string())?;
            Ok(key)
        });
    let key = match written {
        Ok(key) => key,
        Err(why) => {
            let _ = fs::remove_file(&path);
            return Err(Failure::new(format_args!("{}: {why}", path.display())));
        }
    };
    print::line(format_args!("{}: the new {word} key, mode 0600", path.display()))?;
    print::line(format_args!("ipsec.secrets: : {word} {}", args.output))?;
    print::line(format_args!("ipsec.conf:    left{}", public(&key)))?;
    Ok(())
}

/// The public half as ipsec.conf has it, without the side.
fn public(key: &PrivateKey) -> String {
    let key = key.public();
    match key.to_rfc3110() {
        Some(octets) => format!("rsasigkey=0s{}", Base64::encode_string(&octets)),
        None => format!("pubkey=0s{}", Base64::encode_string(key.spki())),
    }
}

fn tell(args: &ShowArgs) -> Result<(), Failure> {
    let key = files::private_key(&confs(), &args.file).map_err(Failure::new)?;
    let line = public(&key);
    if args.json {
        let kind = match key.public().kind() {
            KeyKind::Rsa => "rsa",
            KeyKind::Ec(_) => "ecdsa",
            KeyKind::Ed25519 => "ed25519",
        };
        let (name, value) = line.split_once('=').unwrap_or((&line, ""));
        let spki = Base64::encode_string(key.public().spki());
        let object =
            serde_json::json!({ "file": args.file, "type": kind, "key": name, "value": value, "spki": spki });
        return Ok(print::line(object)?);
    }
    if args.left || args.right {
        let side = if args.right { "right" } else { "left" };
        return Ok(print::line(format_args!("\t{side}{line}"))?);
    }
    let pem = files::pem("PUBLIC KEY", key.public().spki());
    Ok(print::text(&*pem)?)
}
