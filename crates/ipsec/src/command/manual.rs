//! `ipsec manual`: connections whose keys stand in ipsec.conf, without pluto.
//!
//! Everything of a connection is made or, when something fails, taken back.

mod plan;

use super::ask::{self, ask, satype};
use super::eroute::message as eroute;
use super::spi::{self, NewSa};
use super::{Failure, Usage};
use crate::conf::Conf;
use crate::ctl::Client;
use crate::host::netlink::{Netlink, Route};
use crate::print;
use crate::rundir::{self, Rundir};
use crate::table::{Device, Form, Table};
use core::fmt;
use ipnet::IpNet;
use ipsec_core::{SaId, Said, Selector};
use pfkey::{Address, Errno, ExtType, Fault, Member, MessageType, SaType};
use plan::Plan;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;

/// Bring up and down connections whose keys stand in ipsec.conf
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A connection by hand has esp= or ah= (or both), its keys as espenckey=,
espauthkey= and ahkey=, and spi= or spibase=. Whoever reads the file can read
what it protects: keep it at mode 0600.

Examples:
  ipsec manual --up west-east
  ipsec manual --showonly --up west-east")]
pub struct Args {
    #[command(flatten)]
    verb: Verb,
    /// Say what is done, keys left out
    #[arg(long)]
    show: bool,
    /// Say what would be done
    #[arg(long)]
    showonly: bool,
    /// Read this file instead of ipsec.conf
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The connection
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Verb {
    /// Make its SAs, its eroute and its route
    #[arg(long)]
    up: bool,
    /// Take them away
    #[arg(long)]
    down: bool,
    /// Make its route alone: until it is up packets are dropped, or go where another eroute sends them
    #[arg(long)]
    route: bool,
    /// Take its route away
    #[arg(long)]
    unroute: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let file = args.config.clone().unwrap_or_else(|| rundir::confs().join("ipsec.conf"));
    let plan = Conf::read(&file).and_then(|conf| match conf.conn(&args.name) {
        Some(conn) => plan::plan(conn, &is_ours),
        None => Err(Vec::new()),
    });
    let plan = match plan {
        Ok(plan) => plan,
        Err(problems) if problems.is_empty() => {
            return Usage::new(format_args!("no connection {} in {}", args.name, file.display()))
                .report("manual");
        }
        Err(problems) => {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            return super::finish("manual", Err(Failure::new(all.join("\nipsec manual: "))));
        }
    };
    let steps = args.verb.steps(&plan);
    super::finish("manual", carry_out(&steps, args))
}

/// Whether an address is one of this host's.
fn is_ours(address: IpAddr) -> bool {
    !address.is_unspecified() && UdpSocket::bind((address, 0)).is_ok()
}

/// One thing to do. `Display` is the command that would do it, keys left out.
enum Step<'p> {
    Add(&'p NewSa),
    Delete(SaId),
    Group(Vec<SaId>),
    Eroute(Selector, Said),
    NoEroute(Selector),
    Route(IpNet, IpAddr),
    NoRoute(IpNet, IpAddr),
}

impl Verb {
    fn steps<'p>(&self, plan: &'p Plan) -> Vec<Step<'p>> {
        let Plan { local, out, back, selector, said } = plan;
        let route = selector.dst;
        if self.route {
            return vec![Step::Route(route, *local)];
        }
        if self.unroute {
            return vec![Step::NoRoute(route, *local)];
        }
        let mut steps = Vec::new();
        if self.up {
            // What comes in can be read before anything goes out.
            for sas in [back, out] {
                steps.extend(sas.iter().map(Step::Add));
                if sas.len() > 1 {
                    steps.push(Step::Group(sas.iter().map(|sa| sa.id).collect()));
                }
            }
            steps.push(Step::Eroute(*selector, *said));
            steps.push(Step::Route(route, *local));
        } else {
            // The route stays until nothing can leave by it.
            steps.push(Step::NoEroute(*selector));
            steps.extend(out.iter().chain(back).map(|sa| Step::Delete(sa.id)));
            steps.push(Step::NoRoute(route, *local));
        }
        steps
    }
}

fn carry_out(steps: &[Step<'_>], args: &Args) -> Result<(), Failure> {
    let mut done = Vec::new();
    for step in steps {
        if args.show || args.showonly {
            print::line(step)?;
        }
        if args.showonly {
            continue;
        }
        match step.take() {
            Ok(()) => done.push(step),
            // Down goes on: what is there is taken away.
            Err(why) if args.verb.down => print::complain(format_args!("ipsec manual: {why}")),
            Err(why) => {
                for step in done.into_iter().rev() {
                    step.take_back();
                }
                return Err(Failure::new(format_args!(
                    "fatal error in \"{}\": {why}; nothing is left of it",
                    args.name
                )));
            }
        }
    }
    Ok(())
}

impl Step<'_> {
    fn take(&self) -> Result<(), Failure> {
        let outcome = match self {
            Step::Add(sa) => {
                ask(MessageType::Add, satype(sa.id.protocol), |w| spi::message::add(w, sa, sa.direction))
            }
            Step::Delete(id) => ask(MessageType::Delete, satype(id.protocol), |w| ask::name(w, id)),
            Step::Group(sas) => ask(MessageType::GroupSa, SaType::Unspec, |w| {
                if let Some(first) = sas.first() {
                    w.address(ExtType::AddressDst, &Address::host(first.dst));
                }
                let member = |id: &SaId| Member { satype: satype(id.protocol).number(), spi: id.spi.0 };
                w.group(&sas.iter().map(member).collect::<Vec<_>>());
            }),
            Step::Eroute(selector, said) => {
                ask(MessageType::ReplaceFlow, eroute::satype_of(said), |w| eroute::flow(w, selector, said))
            }
            Step::NoEroute(selector) => {
                ask(MessageType::DelFlow, SaType::Unspec, |w| eroute::selector(w, selector))
            }
            Step::Route(net, local) => return route(*net, *local, true),
            Step::NoRoute(net, local) => return route(*net, *local, false),
        };
        outcome?.map_err(|fault| self.refused(fault))
    }

    /// Undoes what has been done; what cannot be undone is not there.
    fn take_back(&self) {
        let undo = match self {
            Step::Add(sa) => Step::Delete(sa.id),
            Step::Eroute(selector, _) => Step::NoEroute(*selector),
            Step::Route(net, local) => Step::NoRoute(*net, *local),
            Step::Delete(_) | Step::Group(_) | Step::NoEroute(_) | Step::NoRoute(..) => return,
        };
        let _ = undo.take();
    }

    fn refused(&self, fault: Fault) -> Failure {
        let why = match (self, fault.errno) {
            (Step::Add(sa), Errno::EEXIST) => format!("{} is in use already", sa.id),
            (Step::Delete(id), Errno::ESRCH) => format!("{id} does not exist"),
            (Step::NoEroute(_), Errno::ENOENT) => "its eroute does not exist".to_owned(),
            _ => format!("{self}: {fault}"),
        };
        Failure::new(why)
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Add(sa) => write!(f, "ipsec spi --said {} --src {} {}", sa.id, sa.src, plan::options(sa)),
            Step::Delete(id) => write!(f, "ipsec spi --said {id} --del"),
            Step::Group(sas) => {
                f.write_str("ipsec spigrp --said")?;
                sas.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Step::Eroute(Selector { src, dst, .. }, said) => {
                write!(f, "ipsec eroute --replace --src {src} --dst {dst} --said {said}")
            }
            Step::NoEroute(Selector { src, dst, .. }) => {
                write!(f, "ipsec eroute --del --src {src} --dst {dst}")
            }
            Step::Route(net, local) => {
                write!(f, "ip route replace {net} dev ipsecN # the device that stands on {local}")
            }
            Step::NoRoute(net, local) => {
                write!(f, "ip route del {net} dev ipsecN # the device that stands on {local}")
            }
        }
    }
}

/// The route to what is behind the peer, through the device that stands on our address.
fn route(dst: IpNet, local: IpAddr, add: bool) -> Result<(), Failure> {
    let mut netlink = Netlink::open()?;
    let ours = netlink.addresses(None)?.into_iter().find(|address| address.net.addr() == local);
    let links = netlink.links()?;
    let physical = links.iter().find(|link| ours.is_some_and(|ours| ours.link == link.index));
    let mut devices: Vec<Device> = Vec::new();
    Client::connect(&Rundir::from_env())?.table(Table::Tncfg, Form::Json, |row| {
        devices.extend(serde_json::from_str::<Device>(row).ok());
        Ok(())
    })?;
    let on = |device: &&Device| {
        physical.is_some_and(|link| device.physical.as_deref() == Some(link.name.as_str()))
    };
    let device = devices.iter().find(on).ok_or_else(|| {
        Failure::new(format_args!("no ipsecN stands on the interface with {local}: `ipsec tncfg --attach'"))
    })?;
    let link = links.iter().find(|link| link.name == device.name).map(|link| link.index);
    let route = Route { dst, via: None, link, src: None, metric: 0 };
    let done = if add { netlink.add_route(&route) } else { netlink.remove_route(&route) };
    match done {
        // It is as it is to be.
        Err(error) if add && error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        done => done
            .map_err(|error| Failure::new(format_args!("route to {dst} through {}: {error}", device.name))),
    }
}
