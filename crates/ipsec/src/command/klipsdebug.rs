//! `ipsec klipsdebug`: what the data plane logs, and where the packets of one flow go.

use super::eroute::{explanation, flow};
use super::{Failure, finish, listing};
use crate::ctl::{Client, Request};
use crate::host::clock;
use crate::print;
use crate::rundir::Rundir;
use crate::table::Table;
use crate::table::sighting::Sighting;
use ipsec_core::Flow;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// Between two questions about a flow.
const PAUSE: Duration = Duration::from_millis(200);

/// What `ipsec klipsdebug` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without options it prints the flags. FLAG is one of tunnel, tunnel-xmit,
netlink, xform, eroute, spi, radij, esp, ah, rcv, pfkey, ipcomp, verbose:

  eroute, tunnel  each packet that goes out: the eroute that decides, its fate
  rcv             each packet that comes in: its SA, its fate
  xform, esp, ah  packets that an SA refuses
  spi, radij      PF_KEY messages about SAs, and about policy
  pfkey           every PF_KEY message (its header; never keys)
  verbose         more than a hundred lines a second

With any flag set, packets refused by the data plane are logged by reason, once
a second.

  ipsec klipsdebug --flow 10.1.0.9 10.2.0.9 tcp
      says of each packet between the two, either way, where it goes")]
pub struct Args {
    /// Set a flag; may be repeated
    #[arg(long, value_name = "FLAG")]
    set: Vec<String>,
    /// Clear a flag; may be repeated
    #[arg(long, value_name = "FLAG")]
    clear: Vec<String>,
    /// Set every flag but verbose
    #[arg(long, conflicts_with_all = ["set", "clear", "none"])]
    all: bool,
    /// Clear every flag
    #[arg(long, conflicts_with_all = ["set", "clear"])]
    none: bool,
    /// Say which eroute decides about a flow, and what becomes of its packets: SRC DST [PROTO [SPORT DPORT]]
    #[arg(long, num_args = 2..=5, value_name = "FLOW", conflicts_with_all = ["set", "clear", "all", "none"])]
    flow: Vec<String>,
    /// Of a flow: end after this many seconds, not at ^C
    #[arg(long, value_name = "N", requires = "flow")]
    seconds: Option<u64>,
    /// Print a JSON array instead of text; of a flow, an object a line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    if let [src, dst, rest @ ..] = &args.flow[..] {
        return match flow("--flow", src, dst, rest) {
            Ok(flow) => finish("klipsdebug", watch(&flow, args.seconds, args.json)),
            Err(usage) => usage.report("klipsdebug"),
        };
    }
    finish("klipsdebug", act(args))
}

fn act(args: Args) -> Result<(), Failure> {
    let Args { mut set, mut clear, all, none, json, .. } = args;
    if all {
        set.push("all".into());
    }
    if none {
        clear.push("all".into());
    }
    if set.is_empty() && clear.is_empty() {
        return listing::print(Table::Klipsdebug, json);
    }
    Client::connect(&Rundir::from_env())?.call(Request::Debug { set, clear })?;
    Ok(())
}

/// What policy says of the flow, and then a line for each of its packets as they come.
fn watch(flow: &Flow, seconds: Option<u64>, json: bool) -> Result<(), Failure> {
    let &Flow { src, dst, proto, sport, dport } = flow;
    let mut client = Client::connect(&Rundir::from_env())?;
    let policy = client.call(Request::Explain { src, dst, proto, sport, dport })?;
    if json {
        print::line(json!({ "policy": policy }))?;
    } else {
        print::text(explanation(&policy))?;
    }
    let end = seconds.map(|seconds| clock::now().after(Duration::from_secs(seconds)));
    let id = u64::from(std::process::id());
    loop {
        let answer = client.call(Request::Watch { watcher: id, src, dst, proto, sport, dport })?;
        let missed = answer.get("missed").and_then(serde_json::Value::as_u64).unwrap_or(0);
        for seen in answer.get("seen").and_then(serde_json::Value::as_array).into_iter().flatten() {
            if json {
                print::line(seen)?;
                continue;
            }
            let row: Sighting = serde_json::from_value(seen.clone()).map_err(Failure::new)?;
            print::line(row)?;
        }
        match (missed, json) {
            (0, _) => {}
            (_, true) => print::line(json!({ "missed": missed }))?,
            (_, false) => print::line(format_args!("{missed} more, too many to show"))?,
        }
        if end.is_some_and(|end| clock::now() >= end) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}
