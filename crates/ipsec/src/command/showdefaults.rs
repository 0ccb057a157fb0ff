//! `ipsec showdefaults`: the default route as `%defaultroute` means it, and what a connection has that says nothing.

use super::{Failure, finish};
use crate::conf::Setup;
use crate::host::netlink::{Netlink, Route};
use crate::print;
use crate::rundir::Rundir;
use serde_json::{Value, json};
use std::fs;
use std::process::ExitCode;

/// What `ipsec showdefaults` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints what `%defaultroute' in ipsec.conf stands for on this host now, what it
stood for when IPsec was started, and what `config setup' says where it says
nothing.
Exit codes: 0 done, 1 no default route.")]
pub struct Args {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    finish("showdefaults", go(args.json))
}

struct Default {
    device: String,
    address: Option<String>,
    next: String,
}

fn go(json: bool) -> Result<(), Failure> {
    let found = default()?;
    let started = fs::read_to_string(Rundir::from_env().info()).unwrap_or_default();
    let started: Vec<&str> = started.lines().filter(|line| line.starts_with("default")).collect();
    let setup = setup();
    if json {
        let route = found.as_ref().map(|route| {
            json!({ "phys": route.device, "virt": "ipsec0", "addr": route.address, "nexthop": route.next })
        });
        print::line(json!({ "defaultroute": route, "started_with": started, "setup": setup }))?;
    } else {
        if let Some(Default { device, address, next }) = &found {
            let address = address.as_deref().unwrap_or("");
            print::text(format!(
                "# %defaultroute now\ndefaultroutephys={device}\ndefaultroutevirt=ipsec0\ndefaultrouteaddr={address}\n\
                 defaultroutenexthop={next}\n"
            ))?;
        }
        if !started.is_empty() {
            print::line(format_args!("# %defaultroute when IPsec was started\n{}", started.join("\n")))?;
        }
        print::line("# config setup")?;
        for (key, value) in setup.as_object().into_iter().flatten() {
            print::line(format_args!("{key}={}", value.as_str().unwrap_or_default()))?;
        }
    }
    match found {
        Some(_) => Ok(()),
        None => {
            Err(Failure::new("there is no default route: `%defaultroute' in ipsec.conf means nothing here"))
        }
    }
}

fn default() -> Result<Option<Default>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format_args!("netlink: {error}"));
    let mut netlink = Netlink::open().map_err(failed)?;
    let routes: Vec<Route> = netlink.default_routes().map_err(failed)?;
    let links = netlink.links().map_err(failed)?;
    let ours = |index: u32| links.iter().find(|link| link.index == index && !link.name.starts_with("ipsec"));
    let best = routes.iter().filter_map(|route| Some((route, ours(route.link?)?)));
    let Some((route, link)) = best.min_by_key(|(route, _)| (route.dst.addr().is_ipv6(), route.metric)) else {
        return Ok(None);
    };
    let addresses = netlink.addresses(Some(link.index)).map_err(failed)?;
    let four = route.dst.addr().is_ipv4();
    let address = addresses.iter().find(|have| !have.link_local && have.net.addr().is_ipv4() == four);
    Ok(Some(Default {
        device: link.name.clone(),
        address: address.map(|have| have.net.addr().to_string()),
        next: route.via.map_or_else(|| "%direct".to_owned(), |via| via.to_string()),
    }))
}

fn setup() -> Value {
    let Setup { pluto, plutorestartoncrash, forwardcontrol, hidetos, fragicmp, copydf, uniqueids, .. } =
        Setup::default();
    let word = |yes: bool| if yes { "yes" } else { "no" };
    json!({
        "interfaces": "%defaultroute",
        "protostack": "auto",
        "pluto": word(pluto),
        "plutorestartoncrash": word(plutorestartoncrash),
        "forwardcontrol": word(forwardcontrol),
        "hidetos": word(hidetos),
        "fragicmp": word(fragicmp),
        "copydf": word(copydf),
        "uniqueids": word(uniqueids),
        "syslog": "daemon.error",
    })
}
