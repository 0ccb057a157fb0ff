//! `ipsec eroute`: the policy table, shown and changed.
//!
//! The options are those of ipsec_eroute(8), in any order. What is asked for becomes a [`Plan`] before anything is
//! done, so that a mistake changes nothing.

mod batch;
pub(crate) mod message;

use super::Failure;
use super::ask::ask;
use super::listing;
use super::said::{Af, SaidArgs};
use super::service;
use super::usage::Usage;
use crate::ctl::{Client, Request};
use crate::print;
use crate::rundir::Rundir;
use crate::table::Table;
use ipnet::IpNet;
use ipsec_core::text::{self, Family};
use ipsec_core::{Flow, Said, Selector};
use pfkey::{Diagnostic, Errno, Fault, MessageType, SaType};
use serde_json::Value;
use std::process::ExitCode;

/// Show or change the policy: what happens to a packet with these addresses
#[derive(Clone, Debug, Default, clap::Args)]
#[command(
    infer_long_args = true,
    after_help = "\
Without options it prints the table.

A SUBNET is ADDRESS/BITS or ADDRESS/MASK, with :PORT if need be, or %default.
Addresses choose first: the longest --src wins, then the longest --dst, then
the entry that names a protocol, then ports. A packet that nothing matches is
dropped.

Examples:
  ipsec eroute --add --src 10.1.0.0/16 --dst 10.2.0.0/16 \\
        --said esp0x1001@192.0.2.2
  ipsec eroute --replace --src 10.1.0.0/16 --dst 0/0 \\
        --transport-proto tcp --dst-port 25 --said %reject
  ipsec eroute --explain 10.1.2.3 10.2.3.4 tcp 40000 80
  ipsec eroute >saved; ipsec eroute --clear; ipsec eroute --batch saved"
)]
pub struct Args {
    #[command(flatten)]
    action: Action,
    #[command(flatten)]
    said: SaidArgs,
    /// Address family of --src and --dst
    #[arg(long, value_enum)]
    eraf: Option<Af>,
    /// Packets from here
    #[arg(long, value_name = "SUBNET")]
    src: Option<String>,
    /// Packets to there
    #[arg(long, value_name = "SUBNET")]
    dst: Option<String>,
    /// Packets of this protocol only, by name or number
    #[arg(long, value_name = "PROTOCOL")]
    transport_proto: Option<String>,
    /// Packets from this port only, by name or number
    #[arg(long, value_name = "PORT")]
    src_port: Option<String>,
    /// Packets to this port only, by name or number
    #[arg(long, value_name = "PORT")]
    dst_port: Option<String>,
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
struct Action {
    /// Add an eroute; there must be none with the same selector
    #[arg(long)]
    add: bool,
    /// Add what may arrive by a tunnel
    #[arg(long)]
    addin: bool,
    /// Add an eroute, or put it in the place of the one with the same selector, without a gap
    #[arg(long)]
    replace: bool,
    /// The same for what may arrive by a tunnel
    #[arg(long)]
    replacein: bool,
    /// Delete the eroute with exactly this selector
    #[arg(long)]
    del: bool,
    /// Delete all eroutes
    #[arg(long)]
    clear: bool,
    /// Make all changes of a file, or none; `-' is standard input. Each line has the options of one change, or is a row of the table
    #[arg(long, value_name = "FILE")]
    batch: Option<String>,
    /// Say which eroute decides about a packet, and why
    #[arg(long, num_args = 2..=5, value_names = ["SRC", "DST", "PROTO", "SPORT", "DPORT"])]
    explain: Vec<String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Print the table.
    List,
    /// Say what happens to a packet.
    Explain(Flow),
    /// Make the changes of a file.
    Batch(String),
    /// Delete everything.
    Clear,
    /// Delete one.
    Delete(Selector),
    /// Add one.
    Add {
        /// What it matches.
        selector: Selector,
        /// What it does.
        said: Said,
        /// Whether it takes the place of another.
        replace: bool,
    },
}

impl Args {
    /// Makes sense of the arguments.
    pub fn plan(&self) -> Result<Plan, Usage> {
        let Action { add, addin, replace, replacein, del, clear, batch, explain } = &self.action;
        if let [src, dst, rest @ ..] = &explain[..] {
            return flow("--explain", src, dst, rest).map(Plan::Explain);
        }
        if *addin || *replacein {
            return Err(Usage::new(
                "what may arrive by an SA is said when the SA is made: ipsec spi … --inner-src SUBNET --inner-dst SUBNET",
            ));
        }
        if let Some(file) = batch {
            return Ok(Plan::Batch(file.clone()));
        }
        let said = self.said.named()?;
        if *clear {
            return Ok(Plan::Clear);
        }
        if !add && !replace && !del {
            if said.is_some() || self.src.is_some() || self.dst.is_some() || self.transport_proto.is_some() {
                return Err(Usage::new(
                    "exactly one of --add, --replace, --del, --clear or --explain must be given",
                ));
            }
            return Ok(Plan::List);
        }
        let selector = self.selector()?;
        if *del {
            return Ok(Plan::Delete(selector));
        }
        let said = said.ok_or_else(|| Usage::new("--add and --replace need an SA or an action: --said"))?;
        Ok(Plan::Add { selector, said, replace: *replace })
    }

    fn selector(&self) -> Result<Selector, Usage> {
        let family = self.eraf.map(Family::from);
        let missing = |option: &str| Usage::new(format_args!("{option} is required"));
        let (src_text, dst_text) = (self.src.as_deref(), self.dst.as_deref());
        let (src_text, dst_text) =
            (src_text.ok_or_else(|| missing("--src"))?, dst_text.ok_or_else(|| missing("--dst"))?);
        // `%default` on one side has the family of the other.
        let hint = |text| text::subnet(text, family).ok().map(|(net, _)| family_of(&net));
        let family = family.or_else(|| hint(src_text)).or_else(|| hint(dst_text));
        let (src, src_port) = subnet("--src", src_text, family)?;
        let (dst, dst_port) = subnet("--dst", dst_text, family)?;
        if family_of(&src) != family_of(&dst) {
            return Err(Usage::new(format_args!("--src {src} and --dst {dst} are of different families")));
        }
        let proto = match self.transport_proto.as_deref() {
            Some(name) => text::protocol(name)
                .map_err(|why| Usage::new(format_args!("--transport-proto {name}: {why}")))?,
            None => 0,
        };
        let sport = self.port("--src-port", self.src_port.as_deref(), src_port, proto)?;
        let mut dport = self.port("--dst-port", self.dst_port.as_deref(), dst_port, proto)?;
        let mut sport = sport;
        if is_icmp(proto) {
            // Type and code stand in the place of both; either may be given.
            let both = sport.max(dport);
            if sport != 0 && dport != 0 && sport != dport {
                return Err(Usage::new("ICMP has one type and code: --src-port and --dst-port differ"));
            }
            (sport, dport) = (both, both);
        }
        if (sport != 0 || dport != 0) && !has_ports(proto) {
            return Err(Usage::new(
                "ports need --transport-proto tcp, udp, sctp, dccp, udplite, icmp or ipv6-icmp",
            ));
        }
        Ok(Selector { src, dst, proto, sport, dport })
    }

    /// A port from its own option or from behind the subnet; both only if they agree.
    fn port(&self, option: &str, given: Option<&str>, behind: Option<u16>, proto: u8) -> Result<u16, Usage> {
        let given = given.map(|text| port(option, text, proto)).transpose()?;
        match (given, behind) {
            (Some(given), Some(behind)) if given != behind => {
                Err(Usage::new(format_args!("{option} {given} and the subnet's port {behind} differ")))
            }
            (given, behind) => Ok(given.or(behind).unwrap_or(0)),
        }
    }

    /// How messages call the command.
    pub fn name(&self) -> String {
        self.label.as_ref().map_or_else(|| "eroute".to_owned(), |label| format!("eroute {label}"))
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
        Plan::List => return listing::print(Table::Eroute, json),
        Plan::Explain(flow) => return explain(flow, json),
        Plan::Batch(file) => return batch::run(file),
        Plan::Clear => ask(MessageType::FlushFlows, SaType::Unspec, |_| {}),
        Plan::Delete(selector) => {
            ask(MessageType::DelFlow, SaType::Unspec, |writer| message::selector(writer, selector))
        }
        Plan::Add { selector, said, replace } => {
            let kind = if *replace { MessageType::ReplaceFlow } else { MessageType::AddFlow };
            ask(kind, message::satype_of(said), |writer| message::flow(writer, selector, said))
        }
    };
    outcome?.map_err(|fault| refusal(plan, fault))
}

/// What a refusal means for what was asked.
fn refusal(plan: &Plan, fault: Fault) -> Failure {
    match (plan, fault.errno) {
        (Plan::Add { .. }, Errno::EEXIST) => {
            Failure::new("an eroute with this selector is there already; delete it first, or use --replace")
        }
        (Plan::Delete(_), Errno::ENOENT | Errno::ESRCH) => {
            Failure::new("there is no eroute with exactly this selector, so none was deleted")
        }
        _ if fault.diagnostic != Diagnostic::None => {
            Failure::new(format_args!("refused: {} ({})", fault.diagnostic.text(), fault.errno.name()))
        }
        _ => Failure::new(format_args!("refused: {fault}")),
    }
}

/// Asks the daemon and prints the eroute that wins, why, and those it beats.
fn explain(flow: &Flow, json: bool) -> Result<(), Failure> {
    let &Flow { src, dst, proto, sport, dport } = flow;
    let mut client = Client::connect(&Rundir::from_env()).map_err(Failure::new)?;
    let answer = client.call(Request::Explain { src, dst, proto, sport, dport }).map_err(Failure::new)?;
    if json {
        return Ok(print::line(answer)?);
    }
    Ok(print::text(explanation(&answer))?)
}

/// The daemon's answer for a person: the winner, the reason, and the others with what they lack.
pub(super) fn explanation(answer: &Value) -> String {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let row = |row: &Value| {
        let proto = match row.get("proto").and_then(Value::as_u64).unwrap_or(0) {
            0 => String::new(),
            number => format!(" proto {number}"),
        };
        let side = |net: &str, port: &str| match row.get(port).and_then(Value::as_u64).unwrap_or(0) {
            0 => text(row, net),
            port => format!("{}:{port}", text(row, net)),
        };
        format!("{} -> {}{proto} => {}", side("src", "sport"), side("dst", "dport"), text(row, "said"))
    };
    let mut out = String::new();
    if let Some(winner) = answer.get("eroute").filter(|winner| !winner.is_null()) {
        out = format!("{}\n", row(winner));
    }
    out.push_str(&format!("{}\n", text(answer, "why")));
    for other in answer.get("others").and_then(Value::as_array).into_iter().flatten() {
        let beaten = other.get("eroute").map(row).unwrap_or_default();
        out.push_str(&format!("  not {beaten}: {}\n", text(other, "beaten")));
    }
    out
}

/// The flow that `option` names: `SRC DST [PROTO [SPORT DPORT]]`.
pub(super) fn flow(option: &str, src: &str, dst: &str, rest: &[String]) -> Result<Flow, Usage> {
    let address = |text: &str| {
        text::address(text, None).map_err(|why| Usage::new(format_args!("{option} {text}: {why}")))
    };
    let (src, dst) = (address(src)?, address(dst)?);
    if src.is_ipv4() != dst.is_ipv4() {
        return Err(Usage::new(format_args!("{option} {src} {dst}: addresses of different families")));
    }
    let proto = rest.first().map_or(Ok(0), |name| {
        text::protocol(name).map_err(|why| Usage::new(format_args!("{option}: {name}: {why}")))
    })?;
    let ports: Result<Vec<u16>, Usage> = rest.iter().skip(1).map(|text| port(option, text, proto)).collect();
    match ports?[..] {
        [] => Ok(Flow { src, dst, proto, sport: 0, dport: 0 }),
        [kind, code] if is_icmp(proto) && kind < 256 && code < 256 => {
            let both = kind << 8 | code;
            Ok(Flow { src, dst, proto, sport: both, dport: both })
        }
        [sport, dport] if has_ports(proto) && !is_icmp(proto) => Ok(Flow { src, dst, proto, sport, dport }),
        [_, _] => Err(Usage::new(format_args!("{option}: this protocol has no ports"))),
        _ => Err(Usage::new(format_args!("{option} SRC DST [PROTO [SPORT DPORT]]: two ports or none"))),
    }
}

fn family_of(net: &IpNet) -> Family {
    match net {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

fn subnet(option: &str, text: &str, family: Option<Family>) -> Result<(IpNet, Option<u16>), Usage> {
    text::subnet(text, family).map_err(|why| Usage::new(format_args!("{option} {text}: {why}")))
}

fn port(option: &str, text: &str, proto: u8) -> Result<u16, Usage> {
    text::port(text, proto, service::port).map_err(|why| Usage::new(format_args!("{option} {text}: {why}")))
}

/// TCP, UDP, DCCP, SCTP, UDP-Lite; and ICMP, whose type and code count for one.
const fn has_ports(proto: u8) -> bool {
    matches!(proto, 6 | 17 | 33 | 132 | 136) || is_icmp(proto)
}

const fn is_icmp(proto: u8) -> bool {
    matches!(proto, 1 | 58)
}

#[cfg(test)]
mod tests;
