//! `ipsec tncfg`: which virtual device stands on which physical one.

use super::{Failure, Usage, finish, listing};
use crate::ctl::{Client, Request};
use crate::print;
use crate::rundir::Rundir;
use crate::table::Table;
use std::process::ExitCode;

/// What `ipsec tncfg` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without options it prints the table:
  ipsec0 -> eth0 mtu=1420(1420) -> 1500
which are the device, what it stands on, the device's MTU, the largest packet
that passes with the SAs there are, the physical MTU, and which of the two
devices is down or gone, if one is.

Examples:
  ipsec tncfg --attach --virtual ipsec0 --physical eth0
  ipsec tncfg --attach --virtual ipsec0 --physical %defaultroute \\
        --address 10.9.0.1/32
  ipsec tncfg --detach --virtual ipsec0")]
pub struct Args {
    /// Make --virtual and attach it to --physical
    #[arg(long, requires = "virtual_device", requires = "physical", conflicts_with_all = ["detach", "clear"])]
    attach: bool,
    /// Detach --virtual and remove it
    #[arg(long, requires = "virtual_device", conflicts_with_all = ["clear", "physical"])]
    detach: bool,
    /// Detach all
    #[arg(long, conflicts_with_all = ["virtual_device", "physical"])]
    clear: bool,
    /// The device, ipsec and a number of at most four digits
    #[arg(long = "virtual", value_name = "ipsecN")]
    virtual_device: Option<String>,
    /// An interface of this host, or %defaultroute
    #[arg(long, value_name = "DEV", requires = "attach")]
    physical: Option<String>,
    /// An address of the device, instead of those of the physical interface; may be repeated
    #[arg(long = "address", value_name = "ADDRESS/BITS", requires = "attach")]
    addresses: Vec<ipnet::IpNet>,
    /// Print JSON: the table as an array, an attached device as an object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    if args.virtual_device.is_some() && !args.attach && !args.detach {
        let why = "exactly one of --attach, --detach or --clear options must be specified.";
        return Usage::new(why).report("tncfg");
    }
    finish("tncfg", act(args))
}

fn act(args: Args) -> Result<(), Failure> {
    let Args { attach, clear, detach, virtual_device, physical, addresses, json } = args;
    let request = match (virtual_device, physical) {
        (Some(r#virtual), Some(physical)) if attach => {
            let given: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            Request::Attach { r#virtual, physical, addresses: (!given.is_empty()).then_some(given) }
        }
        (Some(r#virtual), None) if detach => Request::Detach { r#virtual },
        _ if clear => Request::Clear,
        _ => return listing::print(Table::Tncfg, json),
    };
    let done = Client::connect(&Rundir::from_env())?.call(request)?;
    if json && attach {
        print::line(done)?;
    }
    Ok(())
}
