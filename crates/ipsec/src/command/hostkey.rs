//! `ipsec newhostkey` and `ipsec showhostkey`: keys that this host signs with.

use super::{Failure, finish};
use crate::conf::files;
use crate::print;
use crate::rundir::confs;
use base64ct::{Base64, Encoding};
use clap::ValueEnum;
use ike::dn::Dn;
use ike::identity::Id;
use ike::x509::request::request;
use ipsec_core::sign::{Curve, KeyKind, PrivateKey};
use std::fs;
use std::io::Write;
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
  ipsec newhostkey                          ECDSA, in ipsec.d/private/host.key
  ipsec newhostkey --keytype rsa --bits 3072 --output west.key

A key that is there is never replaced. `ipsec showhostkey' prints its public
half.
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
  ipsec showhostkey --request 'O=Example, CN=west' --san @west.example.org
                                    what an authority is asked to sign

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
    /// As a request for a certificate (PKCS#10, PEM) with this subject
    #[arg(long, value_name = "NAME", conflicts_with_all = ["left", "right", "json"])]
    request: Option<String>,
    /// An identity that the certificate asked for is to vouch for: @host, user@host or an address; may be repeated
    #[arg(long, value_name = "ID", requires = "request")]
    san: Vec<String>,
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

/// Which word ipsec.secrets has for a key.
pub(super) const fn word(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Rsa => "RSA",
        KeyKind::Ec(_) => "ECDSA",
        KeyKind::Ed25519 => "ED25519",
    }
}

fn make(args: &NewArgs) -> Result<(), Failure> {
    let bits = args.bits;
    let wrong = |sizes: &str| Failure::new(format_args!("--bits {}: write {sizes}", bits.unwrap_or(0)));
    let (kind, bits) = match (args.keytype, bits) {
        (KeyType::Rsa, None) => (KeyKind::Rsa, 3072),
        (KeyType::Rsa, Some(bits @ (2048 | 3072 | 4096 | 8192))) => (KeyKind::Rsa, bits),
        (KeyType::Rsa, Some(_)) => return Err(wrong("2048, 3072, 4096 or 8192 for RSA")),
        (KeyType::Ecdsa, None | Some(256)) => (KeyKind::Ec(Curve::P256), 0),
        (KeyType::Ecdsa, Some(384)) => (KeyKind::Ec(Curve::P384), 0),
        (KeyType::Ecdsa, Some(521)) => (KeyKind::Ec(Curve::P521), 0),
        (KeyType::Ecdsa, Some(_)) => return Err(wrong("256, 384 or 521 for ECDSA")),
        (KeyType::Ed25519, None) => (KeyKind::Ed25519, 0),
        (KeyType::Ed25519, Some(_)) => return Err(Failure::new("--bits: an Ed25519 key has one size")),
    };
    if args.output.starts_with('.') || args.output.contains('/') {
        let why =
            format_args!("--output {}: write a name, not a path: keys are in ipsec.d/private", args.output);
        return Err(Failure::new(why));
    }
    let directory = confs().join("ipsec.d/private");
    let path = directory.join(&args.output);
    // First the file, which nobody else can open, then the key.
    let mut file = files::new_file(&path, 0o600)
        .map_err(|why| Failure::new(format_args!("{why}; --output names another")))?;
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
    print::line(format_args!("{}: the new {} key, mode 0600", path.display(), word(kind)))?;
    // Each line stands alone, as it is copied.
    print::line(format_args!("add to {}:", confs().join("ipsec.secrets").display()))?;
    print::line(format_args!(": {} {}", word(kind), args.output))?;
    print::line("add to the connection in ipsec.conf, here and at the peer:")?;
    print::line(format_args!("\tleft{}", public(&key)))?;
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
    if let Some(subject) = &args.request {
        let subject = Dn::parse(subject).map_err(Failure::new)?;
        let names = args.san.iter().map(|name| Id::parse(name)).collect::<Result<Vec<_>, _>>();
        let der = request(&key, &subject, &names.map_err(Failure::new)?).map_err(Failure::new)?;
        return Ok(print::text(&*files::pem("CERTIFICATE REQUEST", &der))?);
    }
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
