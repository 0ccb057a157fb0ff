//! `ipsec spi`: the SA table, shown and changed by hand.
//!
//! The options are those of ipsec_spi(8), in any order, and what has come since: AEADs, ESN, wide replay windows, inner
//! selectors. Keys need never stand on a command line, where every user of the machine can read them: `-` and `@FILE`
//! take them from standard input and from a file.

pub(super) mod algorithm;
pub(super) mod key;
mod life;
pub(super) mod message;

pub use key::KeyText;
pub use life::{Life, Limits};

use super::Failure;
use super::ask::{self, ask, satype};
use super::listing;
use super::said::SaidArgs;
use super::usage::Usage;
use crate::table::Table;
use core::net::IpAddr;
use ipnet::IpNet;
use ipsec_core::algorithm::Suite;
use ipsec_core::text::{self, Family};
use ipsec_core::{Protocol, SaId};
use pfkey::{Diagnostic, Errno, Fault, MessageType, SaType, Tfc};
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Show or change the security associations
#[derive(Clone, Debug, Default, clap::Args)]
#[command(
    infer_long_args = true,
    after_help = "\
Without options it prints the table.

A KEY is 0x and hexadecimal, 0s and base64, 0t and text, `-' for a line of
standard input, or @FILE. Ciphers with a salt (aes-gcm and chacha20-poly1305:
4 octets, aes-ccm: 3) have it at the end of the key.

Examples:
  ipsec spi --said esp0x1001@192.0.2.2 --src 192.0.2.1 \\
        --esp aes-gcm16 --enckey @/root/key \\
        --inner-src 10.1.0.0/16 --inner-dst 10.2.0.0/16 --natt nonesp
  ipsec spi --said esp0x1002@192.0.2.2 --src 192.0.2.1 \\
        --esp aes-sha256 --enckey - --authkey - --tunnel
  ipsec spi --said esp0x1001@192.0.2.2 --del"
)]
pub struct Args {
    #[command(flatten)]
    said: SaidArgs,
    #[command(flatten)]
    kind: Kind,
    /// Encryption key, with its salt last
    #[arg(long, value_name = "KEY", requires = "esp")]
    enckey: Option<KeyText>,
    /// Encryption key from a file
    #[arg(long, value_name = "FILE", conflicts_with = "enckey", requires = "esp")]
    enckey_file: Option<String>,
    /// Integrity key
    #[arg(long, value_name = "KEY")]
    authkey: Option<KeyText>,
    /// Integrity key from a file
    #[arg(long, value_name = "FILE", conflicts_with = "authkey")]
    authkey_file: Option<String>,
    /// Source of the outer header
    #[arg(long, value_name = "ADDRESS")]
    src: Option<String>,
    /// Destination of the outer header; the destination of the SA if not given
    #[arg(long, value_name = "ADDRESS")]
    dst: Option<String>,
    /// Tunnel mode; inner packets come from here only
    #[arg(long, value_name = "SUBNET", requires = "inner_dst")]
    inner_src: Option<String>,
    /// Tunnel mode; inner packets go to there only
    #[arg(long, value_name = "SUBNET", requires = "inner_src")]
    inner_dst: Option<String>,
    /// Tunnel mode, whatever the inner packets (with --inner-src and --inner-dst it goes without saying)
    #[arg(long)]
    tunnel: bool,
    /// Whether the SA carries packets to this host or from it; found out from the addresses if not given
    #[arg(long, value_enum, value_name = "DIRECTION")]
    dir: Option<Direction>,
    /// Replay protection, by how many packets may arrive late: 32 to 4096 (less counts as 32). Without it, or with 0, there is
    /// none: a peer whose manual key is set again starts at number 1 again, and would be refused (RFC 4303 section 3.3.3).
    /// --esn brings 64
    #[arg(long, visible_alias = "replay_window", value_name = "N", value_parser = window)]
    replay_window: Option<u16>,
    /// Extended sequence numbers (RFC 4303 section 2.2.1); both ends must have them
    #[arg(long)]
    esn: bool,
    /// Limits, comma-separated: {soft|hard}-{allocations|bytes|addtime|usetime|packets}=N
    #[arg(long, value_name = "LIST", value_parser = life::parse)]
    life: Option<Life>,
    /// Pad packets inside to this many octets, so that their lengths say less (RFC 4303 section 2.7): 1 to 65535, or mtu for
    /// as much as the path carries. ESP in tunnel mode; what arrives may always be padded
    #[arg(long, value_name = "SIZE|mtu", value_parser = padding, requires = "esp")]
    tfc: Option<u32>,
    /// Send a packet that holds nothing this often, whatever traffic there is (RFC 4303 section 2.6): milliseconds, 10 to
    /// 3600000. It is as long as padded packets are, and counts as one
    #[arg(long, value_name = "MS", requires = "tfc", value_parser = clap::value_parser!(u32).range(10..=3_600_000))]
    dummies: Option<u32>,
    /// UDP encapsulation (RFC 3948)
    #[arg(long, value_enum, value_name = "TYPE")]
    natt: Option<Natt>,
    /// UDP port of this SA's source, 4500 if not given
    #[arg(long, value_name = "PORT", requires = "natt", value_parser = udp_port)]
    sport: Option<u16>,
    /// UDP port of this SA's destination, 4500 if not given
    #[arg(long, value_name = "PORT", requires = "natt", value_parser = udp_port)]
    dport: Option<u16>,
    /// Print a JSON array with one object per row
    #[arg(long)]
    json: bool,
    /// A name for error messages
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    debug: bool,
}

#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false)]
struct Kind {
    /// Make an ESP SA: aes-gcm16, chacha20-poly1305, aes128-sha1, aes-cbc+hmac-sha256, null-sha1 …
    #[arg(long, value_name = "ALGORITHMS")]
    esp: Option<String>,
    /// Make an AH SA: hmac-sha256, hmac-sha1-96, aes-gmac …
    #[arg(long, value_name = "ALGORITHM")]
    ah: Option<String>,
    /// Make an IPComp SA: deflate
    #[arg(long, value_name = "ALGORITHM")]
    comp: Option<String>,
    /// Make an IPIP SA with an outer IPv4 header
    #[arg(long)]
    ip4: bool,
    /// Make an IPIP SA with an outer IPv6 header
    #[arg(long)]
    ip6: bool,
    /// Delete the SA
    #[arg(long)]
    del: bool,
    /// Delete all SAs
    #[arg(long)]
    clear: bool,
}

/// Which way an SA's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// To this host
    In,
    /// From this host
    Out,
}

/// How ESP goes through address translators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Natt {
    /// Not in UDP
    None,
    /// As RFC 3948 has it
    #[value(alias = "espinudp", alias = "udp")]
    Nonesp,
}

/// What is to be done.
#[derive(Debug)]
pub enum Plan {
    /// Print the table.
    List,
    /// Delete everything.
    Clear,
    /// Delete one.
    Delete(SaId),
    /// Make one.
    Add(Box<NewSa>),
}

/// An SA to be made.
pub struct NewSa {
    /// Its name.
    pub id: SaId,
    /// The outer source; unspecified if any peer may send on it.
    pub src: IpAddr,
    /// Its algorithms; none for IPIP and IPComp.
    pub suite: Suite,
    /// Encryption key with its salt last.
    pub encryption_key: Zeroizing<Vec<u8>>,
    /// Integrity key.
    pub auth_key: Zeroizing<Vec<u8>>,
    /// Tunnel mode.
    pub tunnel: bool,
    /// What inner packets may be, from sender to receiver.
    pub inner: Option<(IpNet, IpNet)>,
    /// Which way, if it was said.
    pub direction: Option<Direction>,
    /// Width of the replay window; 0 for none.
    pub window: u16,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Limits.
    pub life: Life,
    /// Padding and dummy packets.
    pub tfc: Tfc,
    /// UDP ports of source and destination, if it is encapsulated.
    pub encapsulation: Option<(u16, u16)>,
}

impl core::fmt::Debug for NewSa {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "NewSa({}, {:?})", self.id, self.suite)
    }
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    match args.plan() {
        Ok(plan) => super::finish(&args.name(), carry_out(&plan, args.json)),
        Err(usage) => usage.report(&args.name()),
    }
}

fn carry_out(plan: &Plan, json: bool) -> Result<(), Failure> {
    let outcome = match plan {
        Plan::List => return listing::print(Table::Spi, json),
        Plan::Clear => ask(MessageType::Flush, SaType::Unspec, |_| {}),
        Plan::Delete(id) => ask(MessageType::Delete, satype(id.protocol), |writer| ask::name(writer, id)),
        Plan::Add(sa) => {
            let direction = message::direction(sa);
            ask(MessageType::Add, satype(sa.id.protocol), |writer| message::add(writer, sa, direction))
        }
    };
    outcome?.map_err(|fault| refusal(plan, fault))
}

/// What a refusal means for what was asked.
fn refusal(plan: &Plan, fault: Fault) -> Failure {
    match (plan, fault.errno) {
        (Plan::Add(sa), Errno::EEXIST) => {
            Failure::new(format_args!("{} is in use already; delete the old one first", sa.id))
        }
        (Plan::Delete(id), Errno::ESRCH | Errno::ENOENT) => {
            Failure::new(format_args!("{id} does not exist, so it cannot be deleted"))
        }
        (_, Errno::ENOMEM) => Failure::new("klips is flushing or listing SAs, try again"),
        _ if fault.diagnostic != Diagnostic::None => {
            Failure::new(format_args!("refused: {} ({})", fault.diagnostic.text(), fault.errno.name()))
        }
        _ => Failure::new(format_args!("refused: {fault}")),
    }
}

/// The replay window of an SA that does not say. Keys set by hand are set again after a restart, and numbers then start again:
/// a window would refuse them, so there is none unless it is asked for (RFC 4303 §3.3.3). Extended numbers need one: what is
/// not sent of them is known from it (RFC 4303 §2.2.1).
const fn default_window(esn: bool) -> u16 {
    if esn { 64 } else { 0 }
}

impl Args {
    /// Makes sense of the arguments; reads keys from where they are.
    pub fn plan(&self) -> Result<Plan, Usage> {
        let Kind { esp, ah, comp, ip4, ip6, del, clear } = &self.kind;
        if *clear {
            return Ok(Plan::Clear);
        }
        let id = self.said.sa()?;
        let making = esp.is_some() || ah.is_some() || comp.is_some() || *ip4 || *ip6;
        let Some(id) = id else {
            if making || *del {
                return Err(Usage::new("which SA? Give --said, or --edst, --spi and --proto"));
            }
            return if self.src.is_none() {
                Ok(Plan::List)
            } else {
                Err(Usage::new("which SA? Give --said"))
            };
        };
        if *del {
            return Ok(Plan::Delete(id));
        }
        let matches = |protocol, option: &str| {
            let word = id.protocol.word();
            if id.protocol == protocol {
                Ok(())
            } else {
                Err(Usage::new(format_args!("{option} does not make {word} SAs")))
            }
        };
        match (esp, ah, comp) {
            (Some(names), ..) => {
                matches(Protocol::Esp, "--esp")?;
                let (suite, key_bits) = algorithm::esp(names).ok_or_else(|| {
                    Usage::new(format_args!("--esp {names}: no such algorithms; try aes-gcm16 or aes-sha256"))
                })?;
                self.add(id, suite, key_bits)
            }
            (None, Some(name), _) => {
                matches(Protocol::Ah, "--ah")?;
                let auth = algorithm::ah(name).ok_or_else(|| {
                    Usage::new(format_args!("--ah {name}: no such algorithm; try hmac-sha256"))
                })?;
                self.add(id, Suite { encryption: None, auth: Some(auth) }, None)
            }
            (None, None, Some(name)) => {
                matches(Protocol::Ipcomp, "--comp")?;
                if name != "deflate" {
                    return Err(Usage::new(format_args!("--comp {name}: only deflate is available")));
                }
                self.add(id, Suite { encryption: None, auth: None }, None)
            }
            (None, None, None) if *ip4 || *ip6 => {
                matches(Protocol::Ipip, if *ip4 { "--ip4" } else { "--ip6" })?;
                if id.dst.is_ipv4() != *ip4 {
                    return Err(Usage::new(format_args!("{id} has no outer header of that family")));
                }
                self.add(id, Suite { encryption: None, auth: None }, None)
            }
            _ => Err(Usage::new("what about it? Give --esp, --ah, --comp, --ip4, --ip6 or --del")),
        }
    }

    fn add(&self, id: SaId, suite: Suite, key_bits: Option<u32>) -> Result<Plan, Usage> {
        let family = if id.dst.is_ipv4() { Family::V4 } else { Family::V6 };
        let address = |option: &str, text: &str| {
            text::address(text, Some(family))
                .map_err(|why| Usage::new(format_args!("{option} {text}: {why}")))
        };
        let dst = self.dst.as_deref().map(|dst| address("--dst", dst)).transpose()?;
        if dst.is_some_and(|dst| dst != id.dst) {
            return Err(Usage::new("--dst must be the destination of the SA"));
        }
        let src = match self.src.as_deref() {
            Some(src) => address("--src", src)?,
            None if id.protocol == Protocol::Ipip => return Err(Usage::new("an outer header needs --src")),
            None => unspecified(family),
        };
        let encryption_key = key::take("--enckey", self.enckey.as_ref(), self.enckey_file.as_deref())?;
        let auth_key = key::take("--authkey", self.authkey.as_ref(), self.authkey_file.as_deref())?;
        let salt = suite.encryption.map_or(0, |e| e.row().salt());
        key::check(
            "--enckey",
            suite.encryption.map(|e| (e.row().name(), e.row().keymat_lengths().collect())),
            salt,
            &encryption_key,
        )?;
        key::check(
            "--authkey",
            suite.auth.map(|a| (a.row().name(), a.row().keymat_lengths().collect())),
            0,
            &auth_key,
        )?;
        if let Some(bits) = key_bits
            && encryption_key.len().saturating_sub(salt).saturating_mul(8) != bits as usize
        {
            return Err(Usage::new(format_args!("--enckey is not a key of {bits} bits")));
        }
        let inner = self.inner()?;
        let encapsulation = match self.natt {
            Some(Natt::Nonesp) if id.protocol == Protocol::Esp => {
                Some((self.sport.unwrap_or(4500), self.dport.unwrap_or(4500)))
            }
            Some(Natt::Nonesp) => return Err(Usage::new("--natt is for ESP (RFC 3948)")),
            Some(Natt::None) | None => None,
        };
        let tunnel = self.tunnel || inner.is_some() || id.protocol == Protocol::Ipip;
        if self.tfc.is_some() && !tunnel {
            // RFC 4303 §2.7: only a whole packet inside says where it ends.
            return Err(Usage::new("--tfc is for tunnel mode: add --tunnel, or --inner-src and --inner-dst"));
        }
        Ok(Plan::Add(Box::new(NewSa {
            id,
            src,
            suite,
            encryption_key,
            auth_key,
            tunnel,
            tfc: Tfc { pad: self.tfc.unwrap_or(0), dummies: self.dummies.unwrap_or(0) },
            inner,
            direction: self.dir,
            window: self.replay_window.unwrap_or(default_window(self.esn)),
            esn: self.esn,
            life: self.life.unwrap_or_default(),
            encapsulation,
        })))
    }

    fn inner(&self) -> Result<Option<(IpNet, IpNet)>, Usage> {
        let (Some(src), Some(dst)) = (&self.inner_src, &self.inner_dst) else { return Ok(None) };
        let hint = |text: &str| {
            let family = |net: IpNet| if net.addr().is_ipv4() { Family::V4 } else { Family::V6 };
            text::subnet(text, None).ok().map(|(net, _)| family(net))
        };
        let family = hint(src).or_else(|| hint(dst));
        let net = |option: &str, text: &str| match text::subnet(text, family) {
            Ok((net, None)) => Ok(net),
            Ok(_) => Err(Usage::new(format_args!("{option} {text}: a subnet without a port"))),
            Err(why) => Err(Usage::new(format_args!("{option} {text}: {why}"))),
        };
        let (src, dst) = (net("--inner-src", src)?, net("--inner-dst", dst)?);
        if src.addr().is_ipv4() != dst.addr().is_ipv4() {
            return Err(Usage::new(format_args!(
                "--inner-src {src} and --inner-dst {dst} are of different families"
            )));
        }
        Ok(Some((src, dst)))
    }

    /// How messages call the command.
    pub fn name(&self) -> String {
        self.label.as_ref().map_or_else(|| "spi".to_owned(), |label| format!("spi {label}"))
    }
}

const fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED),
    }
}

/// KLIPS took 1 to 64; narrower than 32 helps nobody and is widened (RFC 4303 §3.4.3 asks for 32 at least).
fn window(text: &str) -> Result<u16, String> {
    match text::number(text) {
        Ok(0) => Ok(0),
        Ok(width @ 1..=4096) => Ok(u16::try_from(width).unwrap_or(4096).max(32)),
        _ => Err("must be 0, or 32 to 4096".to_owned()),
    }
}

fn padding(text: &str) -> Result<u32, String> {
    match text::number(text).map(u32::try_from) {
        _ if text == "mtu" => Ok(Tfc::MTU),
        Ok(Ok(size @ 1..=65_535)) => Ok(size),
        _ => Err("must be 1 to 65535 octets, or mtu".to_owned()),
    }
}

fn udp_port(text: &str) -> Result<u16, String> {
    match text::number(text).map(u16::try_from) {
        Ok(Ok(port)) if port != 0 => Ok(port),
        _ => Err("must be a port, 1 to 65535".to_owned()),
    }
}

#[cfg(test)]
mod tests;
